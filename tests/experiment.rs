//! `gpt2meg experiment`: from one small file to one table, again and again.

use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

const HEAD: &str = "[data.simulate]\nhours = 0.025\nchannels = 3\nconditions = 2\nsfreq = 100\nseed = 3\n\
    [tokenize]\nband = 'none'\nmax_error = 1\n\
    [train]\npreset = 'tiny'\nsteps = 12\nvalidate_every = 4\nvalidation_windows = 2\n\
    [gpt]\nlayers = 1\nd_model = 8\nheads = 2\ncontext = 16\n[wavenet]\nlayers = 2\nd_model = 8\ncontext = 32\n[ar]\norder = 5\n\
    [generate]\nseconds = 20\n[measures]\ncontrol_p = 1\nskip = 'hmm'\n";
const GPT: &str = "[[model]]\nname = 'GPT'\nkind = 'gpt'\n";
const WAVENET: &str = "[[model]]\nname = 'Wave, net'\nkind = 'wavenet-mix'\n";
const AR: &str = "[[model]]\nname = 'AR(5)'\nkind = 'ar'\n";

fn command(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gpt2meg"));
    command.args(["experiment", "plan.toml", "--out", "all", "--threads", "1"]).current_dir(folder);
    command
}

fn run(folder: &Path, plan: &str) -> Output {
    std::fs::write(folder.join("plan.toml"), plan).unwrap();
    command(folder).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn succeeds(folder: &Path, plan: &str) -> String {
    let output = run(folder, plan);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    text(&output.stdout)
}

/// Every file below a folder but the lock, with its time of change and what is in it.
fn files(folder: &Path) -> BTreeMap<PathBuf, (std::time::SystemTime, Vec<u8>)> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.file_name().unwrap() != ".lock" {
            let changed = path.metadata().unwrap().modified().unwrap();
            found.insert(path.clone(), (changed, std::fs::read(&path).unwrap()));
        }
    }
    found
}

/// The parts whose records are other than they were.
fn made_again(folder: &Path, before: &BTreeMap<PathBuf, (std::time::SystemTime, Vec<u8>)>) -> Vec<String> {
    let after = files(&folder.join("all"));
    let is_new = |(path, file): &(&PathBuf, &(std::time::SystemTime, Vec<u8>))| {
        path.extension().is_some_and(|e| e == "json")
            && path.parent().unwrap().ends_with("parts")
            && before.get(*path) != Some(file)
    };
    let names = after.iter().filter(is_new).map(|(path, _)| path.file_stem().unwrap().to_string_lossy().into_owned());
    names.collect()
}

/// What people read: the report, its numbers, its table, and the recordings.
fn results(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let is_result = |path: &Path| {
        let of_report = path.components().any(|part| part.as_os_str() == "report");
        of_report || path.file_name().unwrap().to_string_lossy().ends_with("raw.fif")
    };
    let all = files(&folder.join("all")).into_iter().filter(|(path, _)| is_result(path));
    all.map(|(path, (_, bytes))| (path.strip_prefix(folder).unwrap().to_path_buf(), bytes)).collect()
}

#[test]
fn from_a_plan_to_a_table_and_what_changes_is_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let plan = [HEAD, GPT, WAVENET, AR, &GPT.replace("GPT", "p 1"), "top_p = 1\n"].concat();
    let out = succeeds(folder, &plan);
    assert!(out.ends_with("all/report/report.html\n"), "{out}");
    let report: Value = serde_json::from_slice(&std::fs::read(folder.join("all/report/report.json")).unwrap()).unwrap();
    let rows = report["sections"]["table"]["rows"].as_array().unwrap();
    let labels: Vec<&str> = rows.iter().map(|row| row["label"].as_str().unwrap()).collect();
    assert_eq!(labels[..5], ["real against real", "GPT", "Wave, net", "AR(5)", "p 1"]);
    for row in &rows[1..5] {
        for key in ["nats", "spectrum", "amplitude", "autocorrelation", "covariance"] {
            let value = row["cells"][key]["value"].as_f64();
            assert!(value.is_some_and(|value| value > 0.0), "{} {key}: {row}", row["label"]);
        }
    }
    // Rows that differ in how they are drawn only are of one training.
    assert!(!folder.join("all/models/p 1/run").exists());
    assert_eq!(rows[1]["cells"]["nats"], rows[4]["cells"]["nats"]);
    assert_ne!(rows[1]["cells"]["amplitude"], rows[4]["cells"]["amplitude"]);
    let csv = std::fs::read_to_string(folder.join("all/report/table.csv")).unwrap();
    assert!(csv.contains("\n\"Wave, net\",model,"), "{csv}");
    let html = std::fs::read_to_string(folder.join("all/report/report.html")).unwrap();
    let order = ["id=\"table\"", "class=\"summary\"", "id=\"spectrum\""].map(|what| html.find(what).unwrap());
    assert!(order.is_sorted(), "{order:?}");
    let log = std::fs::read_to_string(folder.join("all/parts/score GPT.log")).unwrap();
    assert!(log.contains("unigram") && log.contains("Model minus anchor"), "{log}");

    // Again: the same is said, and no file is touched.
    let before = files(&folder.join("all"));
    assert_eq!(succeeds(folder, &plan), out);
    assert_eq!(files(&folder.join("all")), before);

    // One model's steps: its own parts, and the report.
    let longer = plan.replace("'wavenet-mix'\n", "'wavenet-mix'\nsteps = 13\n");
    succeeds(folder, &longer);
    // What was finished is not lost to a changed line.
    let of_run = |run: &str| std::fs::read(folder.join("all/models/Wave, net").join(run).join("run.json")).unwrap();
    assert_eq!(of_run("run.earlier"), before[&folder.join("all/models/Wave, net/run/run.json")].1);
    assert_ne!(of_run("run.earlier"), of_run("run"));
    // Nor to changing it back and forth.
    let run_of_13 = of_run("run");
    succeeds(folder, &longer.replace("steps = 13", "steps = 14"));
    assert_eq!(of_run("run.earlier"), before[&folder.join("all/models/Wave, net/run/run.json")].1);
    assert_eq!(of_run("run.earlier-2"), run_of_13);
    succeeds(folder, &longer);
    assert_eq!(made_again(folder, &before), ["generate Wave, net", "report", "score Wave, net", "train Wave, net"]);
    // A measure's setting: the report alone. And what is lost is made again, and nothing else.
    let before = files(&folder.join("all"));
    succeeds(folder, &longer.replace("skip = 'hmm'", "skip = ['hmm', 'decoding']"));
    assert_eq!(made_again(folder, &before), ["report"]);
    let before = files(&folder.join("all"));
    std::fs::remove_file(folder.join("all/models/AR(5)/scores.json")).unwrap();
    succeeds(folder, &longer.replace("skip = 'hmm'", "skip = ['hmm', 'decoding']"));
    assert_eq!(made_again(folder, &before), ["score AR(5)"]);
}

#[test]
fn stopped_anywhere_it_goes_on_to_the_same_bytes() {
    let (whole, stopped) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (whole, stopped) = (whole.path(), stopped.path());
    let longer = HEAD.replace("steps = 12", "steps = 3000").replace("every = 4", "every = 1000");
    let plan = [&longer.replace("seconds = 20", "seconds = 100"), GPT, AR].concat();
    succeeds(whole, &plan);
    std::fs::write(stopped.join("plan.toml"), &plan).unwrap();
    // Stopped in training, in generation and in the report, each as soon as there is something to go on with.
    let (mut n_stopped, mut logs) = (0, Vec::new());
    let cases = [
        ("train GPT", "models/GPT/run/metrics.jsonl", "Going on from step"),
        ("generate GPT", "models/GPT/generated_raw.fif.tokens.partial", ""),
        ("report", "parts/report.json", ""),
    ];
    for (part, sign, resumed) in cases {
        let mut child = command(stopped).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let begun = Instant::now();
        let is_there = || stopped.join("all").join(sign).metadata().is_ok_and(|about| about.len() > 0);
        while !is_there() && begun.elapsed() < Duration::from_secs(100) {
            assert!(child.try_wait().unwrap().is_none(), "{part} never began");
            std::thread::sleep(Duration::from_millis(1));
        }
        // SAFETY: a signal to a child that has not been waited for.
        unsafe { libc::kill(child.id() as i32, libc::SIGINT) };
        let output = child.wait_with_output().unwrap();
        let said = text(&output.stderr);
        if output.status.code() == Some(0) {
            // It was faster than the signal.
            continue;
        }
        assert_eq!(output.status.code(), Some(130), "{said}");
        assert!(said.contains("To go on: the same command again"), "{said}");
        n_stopped += 1;
        logs.push((stopped.join("all/parts").join(format!("{part}.log")), resumed));
    }
    assert!(n_stopped >= 2, "{n_stopped} of 3");
    succeeds(stopped, &plan);
    for (log, resumed) in logs {
        let said = std::fs::read_to_string(&log).unwrap();
        assert!(said.contains(resumed), "{}: {said}", log.display());
    }
    assert_eq!(results(whole).keys().collect::<Vec<_>>(), results(stopped).keys().collect::<Vec<_>>());
    for (path, bytes) in results(whole) {
        assert!(results(stopped)[&path] == bytes, "{} differs", path.display());
    }
}

#[test]
fn a_model_that_fails_ends_its_own_row_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let broken = [&GPT.replace("GPT", "too long"), "context = 100000\n"].concat();
    let plan = [HEAD, &broken, AR].concat();
    for _ in 0..2 {
        let output = run(folder, &plan);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(18), "{said}");
        assert!(
            said.contains("1 of 2 models failed, the first of them too long (") && !said.contains("panicked"),
            "{said}"
        );
        assert!(text(&output.stdout).contains("AR(5)"));
    }
    let csv = std::fs::read_to_string(folder.join("all/report/table.csv")).unwrap();
    let row = csv.lines().find(|line| line.starts_with("too long,model,,,")).unwrap();
    assert!(!row.ends_with(','), "{row}");
    // Without a single model there is no report, and the failure is that of the first.
    let output = run(folder, &[HEAD, &broken].concat());
    assert_eq!(output.status.code(), Some(18), "{}", text(&output.stderr));
}

#[test]
fn what_is_wrong_is_said_before_anything_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let refused = |plan: &str, code: i32, named: &str| {
        let output = run(folder, plan);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{plan}: {said}");
        assert!(said.contains(named) && said.lines().count() == 1, "{plan}: {said}");
        assert!(!folder.join("all").exists(), "{plan}");
    };
    refused("seeds = [", 2, "plan.toml: line 1 is not TOML");
    refused(
        &[HEAD, GPT, "stpes = 3\n"].concat(),
        2,
        "plan.toml: model GPT has the key stpes, which means nothing there. The nearest that does is steps",
    );
    refused(
        &[HEAD, GPT, "steps = 'many'\n"].concat(),
        2,
        "plan.toml: train: invalid value 'many' for '--steps <STEPS>'",
    );
    refused(&[HEAD, GPT, "condition_labels = 'two'\n"].concat(), 2, "train: invalid value 'two'");
    let endless = HEAD.replace("seconds = 20\n", "");
    refused(
        &[&endless, GPT].concat(),
        2,
        "generate: the following required arguments were not provided: --seconds <SECONDS>",
    );
    refused(&["[data]\nrecording = 'nowhere.fif'\n", GPT].concat(), 66, "nowhere.fif");
    refused(&["[data]\ntokens = 'nowhere'\n", AR].concat(), 66, "nowhere");
    std::fs::remove_file(folder.join("plan.toml")).unwrap();
    assert_eq!(command(folder).output().unwrap().status.code(), Some(66));
    // Somebody else's folder is left alone.
    std::fs::create_dir(folder.join("all")).unwrap();
    std::fs::write(folder.join("all/precious"), "").unwrap();
    // A plan in it does not make it an experiment's.
    std::fs::write(folder.join("all/experiment.toml"), HEAD).unwrap();
    let output = run(folder, &[HEAD, AR].concat());
    assert_eq!(output.status.code(), Some(73), "{}", text(&output.stderr));
    assert_eq!(std::fs::read_dir(folder.join("all")).unwrap().count(), 2);
    // Nor may an experiment lie within its data.
    let output = run(folder, &["[data]\ntokens = '.'\n", AR].concat());
    let said = text(&output.stderr);
    assert!(output.status.code() == Some(2) && said.contains("lies within the data"), "{said}");
    // What no record knows of is not replaced.
    std::fs::remove_dir_all(folder.join("all")).unwrap();
    succeeds(folder, &[HEAD, AR].concat());
    std::fs::remove_file(folder.join("all/parts/tokenize.json")).unwrap();
    let output = run(folder, &[HEAD, AR].concat());
    let said = text(&output.stderr);
    assert!(output.status.code() == Some(73) && said.contains("no record says"), "{said}");
}
