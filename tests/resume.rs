//! Runs that are stopped at any instant go on to the same bits: the real binary, real signals, real files.
//!
//! The instants are drawn from the clock; `GPT2MEG_TEST_SEED` repeats a test's draws.

mod support;

use gpt2meg::random::{Purpose, uniform_at};
use gpt2meg::train::checkpoint::{self, Which, best_path, step_path};
use std::collections::BTreeMap;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

const STEPS: u64 = 60;
/// The exit code of `Kind::Locked`.
const LOCKED: i32 = 75;

/// Uniform draws in [0, 1).
struct Draws {
    seed: u64,
    position: u64,
}

impl Draws {
    fn new() -> Self {
        let given = std::env::var("GPT2MEG_TEST_SEED").ok().map(|seed| seed.parse().unwrap());
        let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64;
        let seed = given.unwrap_or(clock);
        println!("GPT2MEG_TEST_SEED={seed}");
        Self { seed, position: 0 }
    }

    fn next(&mut self) -> f64 {
        self.position += 1;
        f64::from(uniform_at(self.seed, Purpose::Control, 0, self.position))
    }
}

/// Two recordings of two channels: a slow and a fast wave with some disorder; the validation part of this many timesteps.
fn data(folder: &Path, n_validation: usize) -> PathBuf {
    let data = folder.join("data");
    std::fs::create_dir(&data).unwrap();
    for (recording, phase) in [("a", 0.0), ("b", 1.0)] {
        support::write_recording(&data, recording, 2, [400, n_validation, 100], |channel, time| {
            let disorder = ((time * 7919 + channel * 31) % 101) as f64 / 101.0 - 0.5;
            0.2 * (time as f64 * (0.2 + 0.3 * channel as f64) + phase).sin() + 0.05 * disorder
        });
    }
    data
}

/// `gpt2meg train` with a very small model.
fn train(run: &Path, data: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gpt2meg"));
    command.arg("train").arg(data).arg("--out").arg(run);
    command.args(["--layers", "2", "--heads", "2", "--d-model", "8", "--context", "16", "--lr", "1e-3"]);
    command.args(["--steps", &STEPS.to_string(), "--validate-every", "10", "--checkpoint-every", "7"]);
    command.args(["--windows-per-step", "2", "--quiet"]).args(more);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    // Whatever runs the tests may ignore this signal, as nohup does, and children would inherit that.
    // SAFETY: signal may be called between fork and exec.
    unsafe {
        command.pre_exec(|| match libc::signal(libc::SIGHUP, libc::SIG_DFL) {
            libc::SIG_ERR => Err(std::io::Error::last_os_error()),
            _ => Ok(()),
        })
    };
    command
}

fn signal(child: &Child, signal: i32) {
    // SAFETY: a plain system call on a process of ours that has not been waited for.
    assert_eq!(unsafe { libc::kill(child.id() as i32, signal) }, 0);
}

/// What a run leaves that is a function of its configuration: name → bytes.
fn remains(run: &Path) -> BTreeMap<String, Vec<u8>> {
    let files = [step_path(run, STEPS), best_path(run), run.join("metrics.jsonl"), run.join("anchors.json")];
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_string();
    files.iter().map(|path| (name(path), std::fs::read(path).unwrap())).collect()
}

fn assert_same(run: &Path, reference: &BTreeMap<String, Vec<u8>>) {
    for (name, bytes) in remains(run) {
        assert!(bytes == reference[&name], "{name} differs from that of the uninterrupted run");
    }
}

/// An uninterrupted run, and how long it took.
fn reference(folder: &Path, data: &Path) -> (BTreeMap<String, Vec<u8>>, Duration) {
    let run = folder.join("reference");
    let started = Instant::now();
    assert!(train(&run, data, &[]).status().unwrap().success());
    let whole = started.elapsed();
    println!("an uninterrupted run takes {whole:?}");
    let other = folder.join("other-threads");
    assert!(train(&other, data, &["--threads", "3"]).status().unwrap().success());
    assert_same(&other, &remains(&run));
    let log = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    assert_eq!(log.lines().count() as u64, STEPS);
    assert_eq!(log.lines().filter(|line| line.contains("validation")).count() as u64, STEPS / 10);
    (remains(&run), whole)
}

/// Starts or goes on with `run`, and stops it after a part of `longest` that is drawn.
fn interrupted(
    run: &Path,
    data: &Path,
    signal_number: i32,
    longest: Duration,
    draws: &mut Draws,
) -> (ExitStatus, Duration) {
    let mut child = train(run, data, &["--resume"]).spawn().unwrap();
    std::thread::sleep(longest.mul_f64(draws.next()));
    signal(&child, signal_number);
    let sent = Instant::now();
    (child.wait().unwrap(), sent.elapsed())
}

/// What nohup starts is to outlive the terminal.
#[test]
fn a_hang_up_that_is_ignored_stops_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let data = data(folder.path(), 100);
    let run = folder.path().join("run");
    let command = train(&run, &data, &[]);
    let mut ignoring = Command::new("sh");
    ignoring.args(["-c", "trap '' HUP; exec \"$@\"", "sh"]).arg(command.get_program()).args(command.get_args());
    let mut child = ignoring.stderr(Stdio::null()).spawn().unwrap();
    while !run.join("metrics.jsonl").exists() {
        assert!(child.try_wait().unwrap().is_none(), "it must not end before the signal");
        std::thread::sleep(Duration::from_millis(1));
    }
    signal(&child, libc::SIGHUP);
    assert!(child.wait().unwrap().success());
}

#[test]
fn killed_at_any_instant_it_goes_on_to_the_same_bits() {
    let folder = tempfile::tempdir().unwrap();
    let data = data(folder.path(), 100);
    let (reference, whole) = reference(folder.path(), &data);
    let mut draws = Draws::new();
    let (mut n_killed, mut n_midway) = (0, 0);
    let mut chain = 0;
    while n_killed < 50 {
        assert!(chain < 500, "of 500 runs only {n_killed} could be killed");
        let run = folder.path().join(format!("run-{chain}"));
        chain += 1;
        // Several kills of the same run, each somewhere in what an uninterrupted run would take.
        for _ in 0..5 {
            let (status, _) = interrupted(&run, &data, libc::SIGKILL, whole, &mut draws);
            if status.signal() == Some(libc::SIGKILL) {
                n_killed += 1;
                n_midway += usize::from(checkpoint::load_state(&run).is_ok_and(|state| state.is_some()));
            } else {
                assert!(status.success(), "{status}");
                break;
            }
        }
        assert!(train(&run, &data, &["--resume"]).status().unwrap().success());
        assert_same(&run, &reference);
        std::fs::remove_dir_all(&run).unwrap();
    }
    println!("{n_midway} of {n_killed} kills came after a checkpoint");
    // If no kill ever met a run with a checkpoint, nothing was shown.
    assert!(n_midway >= 10, "only {n_midway} of {n_killed} kills came after a checkpoint");
}

#[test]
fn asked_to_stop_it_saves_and_goes_on_to_the_same_bits() {
    let folder = tempfile::tempdir().unwrap();
    // A long validation part: many of the signals come in the middle of a validation.
    let data = data(folder.path(), 1500);
    let (reference, whole) = reference(folder.path(), &data);
    let mut draws = Draws::new();
    let (mut n_unvalidated, mut times) = (0, Vec::new());
    let mut chain = 0;
    while times.len() < 20 {
        assert!(chain < 200, "of 800 signals only {} found a run to stop", times.len());
        let run = folder.path().join(format!("run-{chain}"));
        chain += 1;
        for _ in 0..4 {
            let number = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP][times.len() % 3];
            let (status, time) = interrupted(&run, &data, number, whole, &mut draws);
            if status.code() == Some(128 + number) {
                times.push(time);
                if let Ok(Some((checkpoint, _))) = checkpoint::load_state(&run) {
                    n_unvalidated += usize::from(checkpoint.meta.progress.unvalidated.is_some());
                }
            } else {
                // Done before the signal, or stopped by it before the program could catch it.
                assert!(status.success() || status.signal() == Some(number), "{status}");
            }
        }
        assert!(train(&run, &data, &["--resume"]).status().unwrap().success());
        assert_same(&run, &reference);
        std::fs::remove_dir_all(&run).unwrap();
    }
    times.sort();
    let (n_stopped, slowest) = (times.len(), times[times.len() - 1]);
    println!("{n_unvalidated} of {n_stopped} signals came during a validation; the slowest stop took {slowest:?}");
    // Two seconds are promised; a machine that is busy with other tests may break that now and then.
    assert!(times[times.len() * 9 / 10] < Duration::from_secs(2), "{times:?}");
    assert!(n_unvalidated > 0, "no signal came during a validation");
}

#[test]
fn of_several_trainers_one_runs() {
    let folder = tempfile::tempdir().unwrap();
    let data = data(folder.path(), 100);
    for race in 0..5 {
        let run = folder.path().join(format!("run-{race}"));
        // More steps than anybody will wait for.
        let forever = ["--passes", "1e6"];
        let mut command = |_| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_gpt2meg"));
            command.arg("train").arg(&data).arg("--out").arg(&run).args(["--preset", "tiny", "--context", "16"]);
            command.args(forever).arg("--quiet").stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
        };
        let mut children: Vec<Child> = (0..4).map(&mut command).collect();
        let deadline = Instant::now() + Duration::from_secs(30);
        let mut refused = 0;
        while refused < 3 {
            assert!(Instant::now() < deadline, "only {refused} of 4 trainers were refused");
            std::thread::sleep(Duration::from_millis(5));
            children.retain_mut(|child| match child.try_wait().unwrap() {
                None => true,
                Some(status) => {
                    assert_eq!(status.code(), Some(LOCKED));
                    refused += 1;
                    false
                }
            });
        }
        // The lock dies with its holder.
        children[0].kill().unwrap();
        children[0].wait().unwrap();
        gpt2meg::storage::lock::FolderLock::acquire(&run).unwrap();
    }
}

/// The newest checkpoint's bytes.
fn newest(run: &Path, step: u64) -> Vec<u8> {
    std::fs::read(step_path(run, step)).unwrap()
}

#[test]
fn a_run_goes_on_with_its_own_recipe_only() {
    let folder = tempfile::tempdir().unwrap();
    let data = data(folder.path(), 100);
    let run = folder.path().join("run");
    let code = |more: &[&str]| train(&run, &data, more).status().unwrap().code();
    let short = ["--steps", "20", "--validate-every", "10", "--checkpoint-every", "7"];
    let command = |recipe: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gpt2meg"));
        command.arg("train").arg("--out").arg(&run).args(recipe).arg("--quiet").stderr(Stdio::null());
        command.status().unwrap().code()
    };
    let shape = ["--layers", "2", "--heads", "2", "--d-model", "8", "--context", "16", "--lr", "1e-3"];
    let start = [&[data.to_str().unwrap()], &shape[..], &short, &["--windows-per-step", "2"]].concat();
    assert_eq!(command(&start), Some(0));
    let before = newest(&run, 20);

    // Another recipe is refused, whether run.json is there or lost, and also if it was edited.
    let text = std::fs::read_to_string(run.join("run.json")).unwrap();
    assert_eq!(code(&["--resume", "--weight-decay", "0.1"]), Some(2));
    assert_eq!(code(&["--resume", "--seed", "5"]), Some(2));
    std::fs::remove_file(run.join("run.json")).unwrap();
    assert_eq!(code(&["--resume", "--weight-decay", "0.1"]), Some(2));
    assert_eq!(code(&["--resume", "--seed", "5"]), Some(2));
    assert_eq!(command(&["--resume"]), Some(66), "without run.json nobody knows where the data is");
    let edited = text.replace("\"weight_decay\": 0.0", "\"weight_decay\": 0.5");
    assert_ne!(edited, text);
    std::fs::write(run.join("run.json"), edited).unwrap();
    assert_eq!(command(&["--resume"]), Some(2));
    std::fs::remove_file(run.join("run.json")).unwrap();
    assert_eq!(newest(&run, 20), before);

    // Its own goes on to the bits of one whole run.
    assert_eq!(code(&["--resume"]), Some(0));
    let (reference, _) = reference(folder.path(), &data);
    assert_same(&run, &reference);
}

#[test]
fn a_cosine_is_not_stretched() {
    let folder = tempfile::tempdir().unwrap();
    let data = data(folder.path(), 100);
    let run = folder.path().join("run");
    let train = |steps: &str, more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gpt2meg"));
        command.arg("train").arg(&data).arg("--out").arg(&run).args(["--steps", steps, "--quiet"]).args(more);
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let shape = ["--layers", "1", "--heads", "1", "--d-model", "8", "--context", "16", "--schedule", "cosine"];
    assert_eq!(train("6", &shape).0, Some(0));
    let before = newest(&run, 6);
    let (code, message) = train("12", &["--resume"]);
    assert_eq!(code, Some(2));
    assert!(message.contains("cosine") && message.contains("--out"), "{message}");
    assert_eq!((newest(&run, 6), train("6", &["--resume"]).0), (before, Some(0)));
}

#[test]
fn validation_may_be_asked_for_in_passes() {
    let folder = tempfile::tempdir().unwrap();
    let data = data(folder.path(), 100);
    let run = folder.path().join("run");
    // Two recordings of 400 timesteps: 2 · ((400 - 17) / 8 + 1) = 96 windows, so 48 steps of two.
    let shape = ["--layers", "1", "--heads", "1", "--d-model", "8", "--context", "16", "--windows-per-step", "2"];
    let mut command = Command::new(env!("CARGO_BIN_EXE_gpt2meg"));
    command.arg("train").arg(&data).arg("--out").arg(&run).args(shape);
    command.args(["--passes", "2", "--validate-passes", "0.5", "--quiet"]);
    assert!(command.status().unwrap().success());
    let log = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let validated = |line: &&str| line.contains("validation");
    let step = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["step"].as_u64().unwrap();
    assert_eq!(log.lines().filter(validated).map(step).collect::<Vec<_>>(), [24, 48, 72, 96]);
    for both in [["--validate-every", "5"], ["--validate-passes", "-1"]] {
        let status = train(&folder.path().join("none"), &data, &["--validate-passes", "1"]).args(both).status();
        assert_eq!(status.unwrap().code(), Some(2));
    }
}

#[test]
fn readers_always_find_a_whole_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let data = data(folder.path(), 100);
    let run = folder.path().join("run");
    let mut command = Command::new(env!("CARGO_BIN_EXE_gpt2meg"));
    command.arg("train").arg(&data).arg("--out").arg(&run).args(["--preset", "tiny", "--context", "16"]);
    command.args(["--passes", "1e6", "--checkpoint-every", "1", "--validate-every", "5", "--quiet"]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    while !best_path(&run).exists() {
        assert!(Instant::now() < deadline && child.try_wait().unwrap().is_none(), "no checkpoint came");
        std::thread::sleep(Duration::from_millis(5));
    }
    let mut last = 0;
    for i in 0..200 {
        let loaded = checkpoint::load(&run, if i % 2 == 0 { Which::Last } else { Which::Best }).unwrap();
        if i % 2 == 0 {
            assert!(loaded.meta.progress.step >= last, "went back from {last} to {}", loaded.meta.progress.step);
            last = loaded.meta.progress.step;
        }
    }
    child.kill().unwrap();
    child.wait().unwrap();
}
