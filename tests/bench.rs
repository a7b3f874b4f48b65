//! `gpt2meg bench`: its numbers belong together, whatever they are, and what makes no sense is refused.

use serde_json::Value;
use std::process::{Command, Output};

/// The exit code of `Kind::Usage`.
const USAGE: i32 = 2;
const SMALL: [&str; 8] = ["--layers", "3", "--heads", "1", "--d-model", "8", "--context", "16"];

fn bench(what: &str, more: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gpt2meg"));
    command.args(["bench", what, "--device", "cpu", "--threads", "1"]).args(SMALL).args(more).output().unwrap()
}

fn facts(what: &str, more: &[&str]) -> Value {
    let output = bench(what, &[&["--json", "--repeats", "3"], more].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[track_caller]
fn assert_near(value: &Value, want: f64) {
    let value = value.as_f64().unwrap();
    assert!((value / want - 1.0).abs() < 1e-9, "{value} instead of {want}");
}

#[test]
fn rates_follow_from_times() {
    let train = facts("train", &["--sequences", "5"]);
    let seconds = &train["seconds"];
    let [fast, median, slow] = ["fast", "median", "slow"].map(|name| seconds[name].as_f64().unwrap());
    assert!(0.0 < fast && fast <= median && median <= slow);
    assert_near(&train["tokens_per_second"], 5.0 * 16.0 / median);
    // By the formulas: three times 24E² and 4E for each of 8.5 timesteps seen, in each of three layers, and 2EQ.
    let flop = 3.0 * (3.0 * (24.0 * 64.0 + 32.0 * 8.5) + 2.0 * 8.0 * 256.0);
    assert_near(&train["flop_per_second"], 5.0 * 16.0 * flop / median);
    assert!(train["register_flop_per_second"].as_f64().unwrap() > 1e8);

    let generate = facts("generate", &["--sequences", "5", "--hop", "4"]);
    assert_near(&generate["timesteps_per_second"], 4.0 / generate["seconds"]["median"].as_f64().unwrap());
    assert_near(&generate["tokens_per_second"], 5.0 * generate["timesteps_per_second"].as_f64().unwrap());
}

#[test]
fn stages_add_up_to_a_step() {
    let kernels = facts("kernels", &["--sequences", "2"]);
    let stages = kernels["stages"].as_array().unwrap();
    let calls: Vec<(&str, u64, u64)> = stages
        .iter()
        .map(|stage| &stage["place"])
        .map(|place| {
            (place["stage"].as_str().unwrap(), place["rows"].as_u64().unwrap(), place["times"].as_u64().unwrap())
        })
        .collect();
    // Two layers whole, and one of which half is needed.
    assert_eq!(
        calls,
        [
            ("embed", 16, 1),
            ("attention", 16, 2),
            ("attention", 8, 1),
            ("mlp", 16, 2),
            ("mlp", 8, 1),
            ("head", 8, 1),
            ("mlp_backward", 16, 2),
            ("mlp_backward", 8, 1),
            ("attention_backward", 16, 2),
            ("attention_backward", 8, 1),
            ("embed_backward", 16, 1),
            ("update", 0, 1),
        ]
    );
    let sum: f64 = stages
        .iter()
        .zip(&calls)
        .map(|(stage, call)| call.2 as f64 * stage["seconds"]["median"].as_f64().unwrap())
        .sum();
    assert_near(&kernels["seconds"], sum);
    assert_near(&kernels["tokens_per_second"], 2.0 * 16.0 / sum);
}

#[test]
fn for_people_it_is_a_table() {
    for (what, rows) in [("train", "step"), ("generate", "window"), ("kernels", "attention_backward")] {
        let output = bench(what, &["--sequences", "2", "--repeats", "1"]);
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && text.starts_with("CPU") && text.contains(rows), "{text}");
    }
}

#[test]
fn what_makes_no_sense_is_refused() {
    let refusals: [(&[&str], &str); 3] = [
        (&["--hop", "16"], "--hop 16 is outside 1 to 15"),
        (&["--sequences", "0"], "--sequences must be 1 to 65536, not 0"),
        (&["--repeats", "0"], "--repeats must be at least 1"),
    ];
    for (arguments, message) in refusals {
        let output = bench("generate", arguments);
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(text.contains(message) && text.lines().count() == 1, "{text}");
        assert_eq!(output.status.code(), Some(USAGE), "{text}");
    }
}

/// What the emulator counted of a step, and that the page was written; nothing where there is no CUDA compiler.
#[cfg(feature = "emulated")]
#[test]
fn counts_are_at_least_the_least_and_add_up() {
    use ptx_emulator::toolkit::{REQUIRED_VARIABLE, Toolkit};
    let Ok(toolkit) = Toolkit::find() else {
        assert!(std::env::var_os(REQUIRED_VARIABLE).is_none(), "there is no CUDA compiler");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("kernels.html");
    let counted = |what: &str, heads: &str, more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gpt2meg"));
        command.args([
            "bench",
            what,
            "--device",
            "emulated",
            "--json",
            "--layers",
            "3",
            "--heads",
            heads,
            "--d-model",
            "32",
        ]);
        command.args(["--context", "32", "--sequences", "3", "--card", "a100"]).args(more);
        // The compiler that the tests use, where the program looks for one.
        let libraries = std::env::var("LD_LIBRARY_PATH").unwrap_or_default();
        command.env("LD_LIBRARY_PATH", format!("{}:{libraries}", toolkit.nvrtc().parent().unwrap().display()));
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };

    let step = counted("kernels", "4", &["--html", page.to_str().unwrap()]);
    let rows = step["rows"].as_array().unwrap();
    let mut bound = 0.0;
    for row in rows {
        let seconds: Vec<f64> = row["seconds"].as_object().unwrap().values().map(|s| s.as_f64().unwrap()).collect();
        bound += seconds.iter().copied().fold(0.0, f64::max);
    }
    assert_at_least(&step);
    assert_near(&step["bound_seconds"], bound);
    assert_near(&step["bound_tokens_per_second"], 3.0 * 32.0 / bound);
    // Two layers whole and one half; one layer's tensor operations by the formulas: 24·E² and 4·E for each of 16.5 timesteps
    // seen, with blocks of sixteen instead of the exact half.
    let forward: Vec<&Value> = rows.iter().filter(|row| row["kernel"] == "mlp_forward").collect();
    assert_eq!(forward.len(), 2);
    assert_eq!((forward[0]["times"].as_u64(), forward[1]["times"].as_u64()), (Some(2), Some(1)));
    assert_near(&forward[0]["least"]["tensor_flop"], 3.0 * 32.0 * 16.0 * 32.0 * 32.0);
    assert!(std::fs::read_to_string(&page).unwrap().contains("mlp_forward"));
    // A page is one line of bars a kernel.
    assert_eq!(std::fs::read_to_string(&page).unwrap().matches("class=\"bars\"").count(), rows.len());

    let generation = counted("generate", "4", &["--hop", "4"]);
    let kernels: Vec<&str> =
        generation["rows"].as_array().unwrap().iter().map(|row| row["kernel"].as_str().unwrap()).collect();
    assert!(kernels.contains(&"decode"), "{kernels:?}");
    assert_at_least(&generation);
    assert_near(&generation["bound_tokens_per_second"], 3.0 * 4.0 / generation["bound_seconds"].as_f64().unwrap());

    // Heads that only the general kernels know; one of those has the name of a function of a fused one.
    let general = counted("kernels", "2", &[]);
    let attend = general["rows"].as_array().unwrap().iter().find(|row| row["kernel"] == "attend").unwrap();
    let found = toolkit.ptxas().is_some();
    assert!(attend["registers"].is_array() == found && attend["resident"].is_u64() == found, "{attend}");
}

/// Asserts that no kernel was counted at less than the least.
#[cfg(feature = "emulated")]
fn assert_at_least(counts: &Value) {
    for row in counts["rows"].as_array().unwrap() {
        for count in ["bytes", "tensor_flop", "special"] {
            if let Some(least) = row["least"][count].as_f64() {
                let counted = row["work"][count].as_f64().unwrap();
                assert!(counted >= 0.999 * least, "{}: {counted} {count}, at least {least}", row["kernel"]);
            }
        }
    }
    assert!(counts["rows"].as_array().unwrap().iter().any(|row| row["least"].is_object()), "nothing was compared");
}

/// Every launch of a step is counted and measured at the same place, beside the same least work: of fused kernels, of those that an
/// RTX 4090 cuts in two, and of general ones, most of which have none.
#[cfg(feature = "emulated")]
#[test]
fn kernels_are_measured_beside_the_least_that_they_are_counted_beside() {
    use gpt2meg::bench::card::CARDS;
    use gpt2meg::bench::step::Step;
    use gpt2meg::bench::{count, measure};
    use gpt2meg::device::cuda::emulated;
    use gpt2meg::model::config::ModelConfig;
    use ptx_emulator::toolkit::{REQUIRED_VARIABLE, Toolkit};
    if Toolkit::find().is_err() && std::env::var_os(REQUIRED_VARIABLE).is_none() {
        return;
    }
    // For the engine to find it.
    Toolkit::find().unwrap().open_nvrtc().unwrap();
    let config =
        |n_head, d_model, n_ctx| ModelConfig { n_layer: 2, n_head, d_model, n_ctx, ..ModelConfig::tiny(3, 1, 2) };
    let copies = ["working_matrix", "working_bias", "working_qkv"];
    let small = ["mlp_norm_gradient", "judge_norm"];
    let shared = ["embed_forward", "embed_backward", "sum_slots", "adamw"];
    let cases =
        [("A100", config(4, 32, 16), true), ("RTX 4090", config(12, 96, 80), true), ("A100", config(2, 40, 16), false)];
    for (card, config, fused) in cases {
        let card = CARDS.iter().find(|known| known.name.starts_with(card)).unwrap();
        let counts = count::step(&config, 3, card, Some(2)).unwrap();
        let (device, _reports) = emulated::open_counted(card.target().unwrap(), Some(2)).unwrap();
        let mut step = Step::new(Box::new(device), &config, 3).unwrap();
        step.run().unwrap();
        let measured = measure::kernels(&mut step, 1, Some(card)).unwrap().unwrap();
        let counted: Vec<_> = counts
            .rows
            .iter()
            .map(|row| {
                let least = row.least.map(|least| row.times as f64 * least.times(card).binding().1);
                (row.stage, row.rows, row.times, row.kernel.as_str(), row.launches, least)
            })
            .collect();
        let measured: Vec<_> = measured
            .iter()
            .map(|of| (of.place.stage.name(), of.place.rows, of.place.times, of.kernel, of.launches, of.least_seconds))
            .collect();
        assert_eq!(measured, counted);
        for (stage, _, _, kernel, _, least) in counted {
            let without =
                if fused { [copies.as_slice(), &small].concat().contains(&kernel) } else { !shared.contains(&kernel) };
            assert_eq!(least.is_none(), without, "{kernel} of {stage}");
        }
        let launches = |kernel| measured.iter().any(|of| of.3 == kernel);
        assert_eq!(launches("attention_backward_input"), card.name == "RTX 4090");
    }
}

#[test]
fn a_history_grows_line_by_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("history.csv");
    let name = path.to_str().unwrap();
    let score = facts("score", &["--sequences", "2", "--history", name]);
    assert_near(&score["tokens_per_second"], 2.0 * 16.0 / score["seconds"]["median"].as_f64().unwrap());
    facts("kernels", &["--sequences", "2", "--history", name]);
    let text = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split(',').collect()).collect();
    assert_eq!(lines.len(), 3, "{text}");
    let column = |name: &str| lines[0].iter().position(|head| *head == name).unwrap();
    let of = |line: usize, name: &str| lines[line][column(name)];
    assert_eq!((of(1, "work"), of(2, "work"), of(1, "n_layer"), of(1, "hop")), ("score", "kernels", "3", ""));
    assert_eq!(of(1, "threads"), "1");
    assert_eq!(of(1, "tokens_per_second").parse::<f64>().unwrap(), score["tokens_per_second"]);
    assert_eq!(of(1, "median_seconds").parse::<f64>().unwrap(), score["seconds"]["median"]);

    let nowhere = folder.path().join("none").join("history.csv");
    assert!(!bench("train", &["--history", nowhere.to_str().unwrap()]).status.success());

    // Somebody else's file is left alone, and refused before anything is measured.
    std::fs::write(&path, "mine\n").unwrap();
    let refused = bench("train", &["--history", name]);
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("left alone"), "{refused:?}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine\n");
}
