//! What the program prints, and where nobody can hear it; and names that are hard to print.

#[path = "support/lines.rs"]
mod lines;

use lines::{noise, succeed, write_fif};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Command, Stdio};

const TRAIN: &str = "--layers 1 --heads 1 --d-model 8 --context 16 --steps 2";

fn program(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gpt2meg"));
    command.current_dir(folder);
    command
}

fn full_disk() -> Stdio {
    File::options().write(true).open("/dev/full").unwrap().into()
}

fn write_two(folder: &Path) {
    write_fif(&folder.join("two.fif"), 100.0, 3000, &[], |channel, time| noise(2 * time + channel));
}

/// What was made is there, and the failure has its code and its line.
#[test]
fn output_that_cannot_be_printed_is_a_failure_and_no_panic() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write_two(folder);
    let full = |line: &str, made: &str| {
        let output = program(folder).args(line.split(' ')).stdout(full_disk()).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(74), "{line}: {error}");
        assert!(error.contains("standard output") && !error.contains("panicked"), "{line}: {error}");
        assert!(folder.join(made).exists(), "{line}: {made} was made");
    };
    full("tokenize two.fif --out data", "data/two_train.safetensors");
    full(&format!("train data --out run {TRAIN} --json"), "run/best.safetensors");
    full("score run data", "run/scores.json");
    full("generate run --data data --out x_raw.fif --seconds 9", "x_raw.fif");
    full("evaluate --real data --generated x_raw.fif --skip hmm --out report", "report/report.html");
    full("export run --out model --json", "model/config.json");
    full("simulate --out s_raw.fif --hours 0.01 --channels 3", "s_raw.fif");
    for line in ["info data", "info device --json", "verify data", "verify data --json"] {
        full(line, "data");
    }
}

/// A log on a full disk, or a terminal that is gone: the work is done all the same.
#[test]
fn notes_that_nobody_hears_stop_no_work() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write_two(folder);
    let unheard = |line: &str, code: i32, made: &str| {
        let (reader, broken) = std::io::pipe().unwrap();
        drop(reader);
        for (stderr, force) in [(full_disk(), ""), (broken.into(), " --force")] {
            let line = if code == 0 { format!("{line}{force}") } else { line.into() };
            let output = program(folder).args(line.split(' ')).stderr(stderr).output().unwrap();
            assert_eq!(output.status.code(), Some(code), "{line}");
            assert!(folder.join(made).exists(), "{line}: {made} was made");
        }
    };
    unheard("tokenize two.fif --out data", 0, "data/two_train.safetensors");
    unheard(&format!("train data --out run {TRAIN}"), 0, "run/best.safetensors");
    unheard("score run data", 0, "run/scores.json");
    unheard("generate run --data data --out x_raw.fif --seconds 9", 0, "x_raw.fif");
    unheard("evaluate --real data --generated x_raw.fif --skip hmm --out report", 0, "report/report.html");
    unheard("export run --out model", 0, "model/config.json");
    unheard("info nowhere", 66, "");
}

/// Names of files are bytes: JSON shows what it can of them, and nothing panics.
#[test]
fn names_need_not_be_unicode() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write_two(folder);
    succeed(folder, "tokenize two.fif --out data");
    let odd = |name: &str| OsString::from_iter([OsStr::from_bytes(b"odd\xff"), OsStr::new(name)]);
    let run = |line: &str| {
        let words = line.split(' ').map(|word| word.strip_prefix('@').map_or_else(|| word.into(), odd));
        program(folder).args(words).output().unwrap()
    };
    for line in [
        "simulate --out @s_raw.fif --hours 0.01 --channels 3 --json",
        "tokenize @s_raw.fif --out @data --json",
        &format!("train data --out @run {TRAIN} --json"),
        "score @run data --json",
        "generate @run --out @x_raw.fif --seconds 9 --json",
        "evaluate --real data --generated @x_raw.fif --skip hmm --out @report --json",
        "export @run --out @model --json",
        "verify @data --json",
        "info @run --json",
    ] {
        let output = run(line);
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{line}: {error}");
        assert!(serde_json::from_slice::<serde_json::Value>(&output.stdout).is_ok(), "{line}");
    }
    let output = run("demo --out @demo");
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), error.lines().count()), (Some(2), 1), "{error}");
    assert!(error.contains("not Unicode") && !folder.join(odd("demo")).exists(), "{error}");
    // What a run has to remember has to be Unicode.
    let output = run(&format!("train @data --out other {TRAIN}"));
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{error}");
    assert!(error.contains("not Unicode") && !folder.join("other").exists(), "{error}");
}

/// One line stays one, whatever a file is called.
#[test]
fn names_cannot_break_lines_or_command_the_terminal() {
    let folder = tempfile::tempdir().unwrap();
    let output = program(folder.path()).args(["info", "a\nb\u{1b}[31m.fif"]).output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), error.lines().count()), (Some(66), 1), "{error}");
    assert!(error.contains(r"a\nb\u{1b}[31m.fif") && !error.contains('\u{1b}'), "{error}");
}
