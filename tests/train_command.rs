//! `gpt2meg train` refuses before it touches anything, and calls nothing done that is of no use.

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

const SMALL: &str = "--layers 1 --heads 1 --d-model 8 --context 16 --quiet";

/// A folder with some data in `data`, on so many channels.
fn world(n_channel: usize) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    std::fs::create_dir(&data).unwrap();
    support::write_recording(&data, "a", n_channel, [400, 100, 100], |channel, time| {
        ((time * 7919 + channel * 31) % 101) as f64 / 101.0 - 0.5
    });
    folder
}

/// Exit code, standard output, standard error, of a process that may have 800 MB.
fn gpt2meg(folder: &Path, line: &str) -> (Option<i32>, String, String) {
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -v 800000; exec \"$@\"", "sh", env!("CARGO_BIN_EXE_gpt2meg")]);
    let output = command.args(line.split(' ')).current_dir(folder).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn fails(folder: &Path, line: &str, code: i32, named: &str) {
    let (found, _, error) = gpt2meg(folder, line);
    assert_eq!(found, Some(code), "{line}: {error}");
    assert!(error.contains(named) && !error.contains("panicked"), "{line}: {error}");
}

/// Every file below a folder, with its bytes; locks are nobody's content.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for path in folder.read_dir().unwrap().map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            found.extend(files(&path));
        } else if !path.ends_with(".lock") {
            found.insert(path.clone(), std::fs::read(path).unwrap());
        }
    }
    found
}

#[test]
fn a_command_that_is_refused_leaves_the_earlier_run_and_makes_none() {
    let world = world(306);
    let folder = world.path();
    let (code, _, error) = gpt2meg(folder, &format!("train data --out run --steps 3 {SMALL}"));
    assert_eq!(code, Some(0), "{error}");
    let before = files(folder);
    assert!(before.contains_key(&folder.join("run/best.safetensors")));
    for (flags, code, named) in [
        ("--threads 0", 2, "threads"),
        ("--threads 100000", 2, "threads"),
        // More memory than there is, which nobody knows before the device is asked for it.
        ("--steps 1 --threads 1 --windows-per-step 65536", 69, "bytes"),
        ("--passes 0", 2, "passes"),
    ] {
        fails(folder, &format!("train data --out run {SMALL} --force {flags}"), code, named);
        assert!(files(folder) == before, "{flags} with --force");
        for resume in ["", " --resume"] {
            let line = format!("train data --out new {SMALL} {flags}{resume}");
            fails(folder, &line, code, named);
            assert!(!folder.join("new").exists(), "{line}");
        }
    }
    fails(folder, "train data --out new --context 4096 --resume", 16, "timesteps");
    fails(folder, "train nowhere --out new --resume", 66, "nowhere");
    fails(folder, "train --out new --resume", 66, "new");
    assert!(!folder.join("new").exists());
    // What is whole replaces what was there.
    let (code, _, error) = gpt2meg(folder, &format!("train data --out run --steps 2 --force {SMALL}"));
    assert_eq!(code, Some(0), "{error}");
    assert!(!folder.join("run/checkpoints/step-00000003.safetensors").exists());
}

#[test]
fn folders_that_are_no_runs_are_left_alone() {
    let world = world(2);
    let folder = world.path();
    let others = folder.join("logs");
    std::fs::create_dir(&others).unwrap();
    std::fs::write(others.join("events.out.tfevents.1700000000.somebody.1.0"), "somebody's").unwrap();
    std::fs::write(others.join("metrics.jsonl"), "{\"accuracy\": 1}\n").unwrap();
    let before = files(folder);
    for flags in ["", " --force", " --resume", " --resume --force"] {
        fails(folder, &format!("train data --out logs --steps 1 {SMALL}{flags}"), 73, "no run.json");
        fails(folder, &format!("train data --out data --steps 1 {SMALL}{flags}"), 73, "holds tokens");
        assert!(files(folder) == before, "{flags}");
        assert!(!folder.join("data/checkpoints").exists() && !others.join("checkpoints").exists());
    }
    // Nor is what has a run.json of another program's.
    std::fs::write(others.join("run.json"), r#"{"model": "resnet", "version": 3}"#).unwrap();
    let before = files(folder);
    for flags in ["", " --force"] {
        fails(folder, &format!("train data --out logs --steps 1 {SMALL}{flags}"), 73, "has not written");
        assert!(files(folder) == before, "{flags}");
    }
}

#[test]
fn a_model_that_has_diverged_is_not_done() {
    let world = world(2);
    let folder = world.path();
    let shape = SMALL.replace(" --quiet", "");
    // The first step makes weights that the next ones cannot compute with.
    let (code, _, error) = gpt2meg(folder, &format!("train data --out run --steps 3 --lr 1e30 {shape}"));
    assert_eq!(code, Some(3), "{error}");
    assert!(error.contains("diverged") && !error.contains("Done"), "{error}");
    fails(folder, "score run data", 3, "not finite");
    assert!(!folder.join("run/scores.json").exists());
    fails(folder, "generate run --out w.npy --timesteps 20", 3, "diverged");
}

#[test]
fn force_is_an_option_of_the_commands_that_write() {
    let world = world(2);
    let folder = world.path();
    for command in ["demo", "simulate", "tokenize", "train", "generate", "score", "evaluate", "export"] {
        assert!(gpt2meg(folder, &format!("{command} --help")).1.contains("--force"), "{command}");
    }
    for command in ["info", "verify"] {
        assert!(!gpt2meg(folder, &format!("{command} --help")).1.contains("--force"), "{command}");
        fails(folder, &format!("{command} data --force"), 2, "--force");
    }
}
