//! `gpt2meg score`: subjects and conditions are matched by name, and differences are paired.

mod support;

use serde_json::Value;
use std::path::Path;
use std::process::Command;

const CHANNELS: usize = 2;

/// A recording whose subject has its name; `names` are its conditions', which `order` counts.
fn recording(folder: &Path, name: &str, names: [&str; 2], order: [u16; 3]) {
    let phase = f64::from(name.as_bytes()[0]);
    support::write_named(
        folder,
        name,
        CHANNELS,
        [400, 100, 300],
        names,
        |time| order[time / 25 % 3],
        |channel, time| {
            let disorder = ((time * 7919 + channel * 31) % 101) as f64 / 101.0 - 0.5;
            0.2 * (time as f64 * (0.2 + 0.3 * channel as f64) + phase).sin() + 0.05 * disorder
        },
    );
}

fn gpt2meg(folder: &Path, line: &str) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gpt2meg"));
    let output = command.args(line.split(' ')).current_dir(folder).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn score(folder: &Path, data: &str) -> Value {
    let (code, text, error) = gpt2meg(folder, &format!("score run {data} --json --force"));
    assert_eq!(code, Some(0), "{error}");
    serde_json::from_str(&text).unwrap()
}

#[test]
fn subjects_and_conditions_are_matched_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| {
        let path = folder.path().join(name);
        std::fs::create_dir_all(&path).unwrap();
        path
    };
    let (names, order) = (["face", "house"], [0, 1, 2]);
    recording(&at("both"), "a", names, order);
    recording(&at("both"), "b", names, order);
    recording(&at("only-a"), "a", names, order);
    recording(&at("only-b"), "b", names, order);
    // The same in another order: house is 1 here and face 2.
    recording(&at("reordered"), "b", ["house", "face"], [0, 2, 1]);
    // A condition that no model knows, named in the list but never there; and one that is.
    recording(&at("unused"), "b", ["face", "tree"], [0, 1, 0]);
    recording(&at("unknown"), "b", ["face", "tree"], [0, 1, 2]);
    recording(&at("stranger"), "c", names, order);
    let shape = "--layers 1 --heads 1 --d-model 8 --context 16 --lr 0.02 --steps 150 --quiet";
    let (code, _, error) = gpt2meg(folder.path(), &format!("train both --out run {shape}"));
    assert_eq!(code, Some(0), "{error}");

    let [both, a, b, reordered] = ["both", "only-a", "only-b", "reordered"].map(|data| score(folder.path(), data));
    let nats = |scores: &Value| scores["model"]["nats"].as_f64().unwrap();
    let sum = |scores: &Value| nats(scores) * scores["n_window"].as_f64().unwrap();
    // Each subject's own embedding, whether or not the others are there.
    let whole = sum(&both);
    assert!((sum(&a) + sum(&b) - whole).abs() < 1e-9 * whole, "{} and {} for {whole}", sum(&a), sum(&b));
    assert_eq!(nats(&reordered), nats(&b));
    // Which says something only if subjects and conditions matter to this model.
    support::write_named(
        &at("swapped"),
        "b",
        CHANNELS,
        [400, 100, 300],
        names,
        |time| [0, 2, 1][time / 25 % 3],
        |_, _| 0.1,
    );
    support::write_named(&at("plain"), "b", CHANNELS, [400, 100, 300], names, |time| order[time / 25 % 3], |_, _| 0.1);
    assert_ne!(nats(&score(folder.path(), "swapped")), nats(&score(folder.path(), "plain")));

    score(folder.path(), "unused");
    for (data, code, named) in [("unknown", 15, "tree"), ("stranger", 20, "\"c\"")] {
        let (found, _, error) = gpt2meg(folder.path(), &format!("score run {data} --force"));
        assert_eq!(found, Some(code), "{error}");
        assert!(error.contains(named) && error.contains(data), "{error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
}

#[test]
fn differences_come_with_a_paired_standard_error() {
    let folder = tempfile::tempdir().unwrap();
    recording(&folder.path().join("."), "a", ["face", "house"], [0, 1, 2]);
    let data = folder.path().to_str().unwrap();
    let shape = "--layers 1 --heads 1 --d-model 8 --context 16 --lr 0.01 --steps 60 --quiet";
    assert_eq!(gpt2meg(folder.path(), &format!("train {data} --out run {shape}")).0, Some(0));
    let scores = score(folder.path(), data);
    let anchor =
        |name: &str| scores["anchors"].as_array().unwrap().iter().find(|anchor| anchor["name"] == name).unwrap();
    let differences = scores["model_minus"].as_array().unwrap();
    let names: Vec<_> = differences.iter().map(|difference| difference["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["uniform", "unigram", "bigram", "ar20"], "those that have probabilities");
    for difference in differences {
        let other = anchor(difference["name"].as_str().unwrap());
        let expected = scores["model"]["nats"].as_f64().unwrap() - other["nats"].as_f64().unwrap();
        assert!((difference["nats"].as_f64().unwrap() - expected).abs() < 1e-12, "{difference}");
        let [paired, own, theirs] =
            [&difference["standard_error"], &scores["model"]["nats_standard_error"], &other["nats_standard_error"]]
                .map(|error| error.as_f64().unwrap());
        // The error of a difference lies between the difference of the errors and their sum.
        assert!(paired <= own + theirs + 1e-12 && paired >= (own - theirs).abs() - 1e-12, "{difference}");
    }
    let (_, text, _) = gpt2meg(folder.path(), &format!("score run {data} --force"));
    assert!(
        text.contains("paired over") && text.lines().any(|line| line.contains("ar20 ") && line.contains(" ± ")),
        "{text}"
    );
}
