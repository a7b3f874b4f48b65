//! Decoding: against scikit-learn, on simulated trials whose conditions differ, and with labels that mean nothing.

#[path = "support/report.rs"]
mod support;

use gpt2meg::evaluate::battery::Wanted;
use gpt2meg::evaluate::decoding::lda::Lda;
use gpt2meg::evaluate::decoding::{Labelled, network};
use gpt2meg::recording::simulate::{Config, Simulation};
use gpt2meg::recording::{Event, InMemory, Recording, marks};
use serde_json::Value;
use support::{inputs, report, sources};

fn floats(value: &Value) -> Vec<f64> {
    match value {
        Value::Array(all) => all.iter().flat_map(floats).collect(),
        number => vec![number.as_f64().expect("a number")],
    }
}

#[test]
fn shrunk_discriminant_analysis_is_scikit_learns() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/decoding/expected.json");
    let expected: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let whole = |value: &Value| floats(value).into_iter().map(|x| x as usize).collect::<Vec<_>>();
    for case in ["many", "few"] {
        let want = &expected[case];
        let n_feature = floats(&want["rows"][0]).len();
        let train = Labelled { n_feature, rows: floats(&want["rows"]), labels: whole(&want["labels"]) };
        let test = Labelled { n_feature, rows: floats(&want["test"]), labels: whole(&want["found"]) };
        // A fourth class without trials is never found.
        let lda = Lda::fit(&train, 4);
        for (got, want) in lda.scores(&test).iter().zip(floats(&want["scores"])) {
            // Scores of size 10 from a covariance of condition below 1e4.
            assert!((got - want).abs() < 1e-9, "{case}: {got} {want}");
        }
        assert_eq!(lda.predict(&test), test.labels, "{case}");
    }
}

fn stretch(from: usize, to: usize, change: impl Fn(usize, Event) -> Event) -> Recording {
    let config = Config { seconds: 1200.0, sfreq: 100.0, n_channel: 12, n_condition: 2, seed: 3, ..Config::default() };
    let mut whole = Simulation::new(&config, 0).unwrap().into_recording().unwrap();
    let range = 100 * from..100 * to;
    let mut info = marks::cut(&whole.info, &range);
    info.events = info.events.into_iter().enumerate().map(|(i, event)| change(i, event)).collect();
    let block = whole.read(range.start, range.len()).unwrap();
    Recording::new(info, Box::new(InMemory(block))).unwrap()
}

fn section(generated: Vec<(&str, Recording)>, real: Recording, network: Option<network::Options>) -> Value {
    let wanted = Wanted { decoding: true, network, ..Wanted::default() };
    let report = report(inputs(vec![real], sources(generated), wanted)).unwrap();
    report.json()["sections"]["decoding"].clone()
}

#[test]
fn good_trials_teach_and_labels_without_meaning_do_not() {
    let same = |_: usize, event: Event| event;
    let blind =
        |i: usize, event: Event| Event { label: if (i / 2).is_multiple_of(2) { "1" } else { "2" }.into(), ..event };
    let generated = vec![("good", stretch(600, 1200, same)), ("blind", stretch(600, 1200, blind))];
    let options = network::Options { epochs: 20, n_spatial: 6, hidden: [12, 8], ..network::Options::QUICK };
    let found = section(generated, stretch(0, 600, same), Some(options));
    let curve = |label: &str, decoder: &str| {
        let all = found["curves"].as_array().unwrap();
        let is = |c: &&Value| c["label"] == label && c["decoder"] == decoder;
        all.iter().find(is).unwrap_or_else(|| panic!("{label} {decoder} in {found}"))["tested"].clone()
    };
    let first = |label: &str, decoder: &str| curve(label, decoder)[0]["accuracy"].as_f64().unwrap();
    let last = |label: &str, decoder: &str| {
        curve(label, decoder).as_array().unwrap().last().unwrap()["accuracy"].as_f64().unwrap()
    };
    let n = found["n_test"].as_f64().unwrap();
    // Five standard deviations of tossing a coin.
    let chance = 5.0 * (0.25 / n).sqrt();
    for decoder in ["LDA", "network"] {
        assert!(last("real trials alone", decoder) > 0.7, "{decoder}: {}", last("real trials alone", decoder));
        assert!(first("good", decoder) > 0.7, "{decoder} from generated trials alone: {}", first("good", decoder));
        assert!((first("blind", decoder) - 0.5).abs() < chance, "{decoder}: {}", first("blind", decoder));
    }
    assert!((first("real, conditions shuffled", "LDA") - 0.5).abs() < chance);
    assert_eq!(curve("good", "LDA")[0]["fraction_of_real"], 0.0);
}

/// With one trial a class there is no covariance: such shares have no number, and the fit itself stays finite.
#[test]
fn six_trials_a_condition_have_no_smallest_share() {
    let same = |_: usize, event: Event| event;
    let mut real = stretch(0, 600, same);
    let mut seen = std::collections::BTreeMap::new();
    real.info.events.retain(|event| {
        let n = seen.entry(event.label.clone()).or_insert(0);
        *n += 1;
        *n <= 6
    });
    assert_eq!(real.info.events.len(), 12);
    let found = section(vec![("g", stretch(600, 900, same))], real, None);
    assert_eq!((&found["n_test"], &found["n_train"]), (&4.into(), &8.into()), "the first two of six are for testing");
    let shares = |curve: usize| {
        let tested = found["curves"][curve]["tested"].as_array().unwrap();
        tested.iter().map(|t| t["fraction_of_real"].as_f64().unwrap()).collect::<Vec<_>>()
    };
    // Of four a tenth and a quarter are one.
    assert_eq!((shares(0), shares(1)), (vec![0.5, 1.0], vec![0.0, 0.5, 1.0]));

    let rows = Labelled { n_feature: 2, rows: vec![0.0, 1.0, 2.0, 1.0, 5.0, 1.0], labels: vec![0, 1, 2] };
    for rows in [rows.clone(), Labelled { rows: vec![0.5; 6], ..rows.clone() }, rows.and(&rows)] {
        let lda = Lda::fit(&rows, 3);
        let scores = lda.scores(&rows);
        assert!(lda.is_finite() && scores.iter().all(|x| x.is_finite()), "{scores:?}");
        if rows.row(0) != rows.row(1) {
            assert_eq!(lda.predict(&rows), rows.labels, "each is nearest to its own mean");
        }
    }
}

#[test]
fn too_few_trials_are_said() {
    let same = |_: usize, event: Event| event;
    let one = |_: usize, event: Event| Event { label: "1".into(), ..event };
    let few = section(vec![("g", stretch(300, 400, same))], stretch(0, 10, same), None);
    assert!(few["not_computed"].as_str().unwrap().contains("nothing to tell apart"), "{few}");
    let alone = section(vec![("g", stretch(300, 400, one))], stretch(0, 100, same), None);
    assert!(alone["left_out"][0].as_str().unwrap().contains("g (fewer than two conditions have 2 trials)"), "{alone}");
}
