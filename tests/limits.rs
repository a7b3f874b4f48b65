//! What a training process takes from the machine and what it survives: memory, threads, a full disk, files that shrink,
//! and signals while the anchors are computed. The real binary, watched from outside.

#![cfg(target_os = "linux")]

mod support;

use gpt2meg::train::checkpoint::{self, Which, step_path};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// The exit code of `Kind::Io`.
const IO: i32 = 74;
const MB: u64 = 1_000_000;

/// One recording of so many channels; the lengths of its training and validation parts.
fn data(folder: &Path, n_channel: usize, n_train: usize, n_validation: usize) -> PathBuf {
    let data = folder.join("data");
    std::fs::create_dir(&data).unwrap();
    support::write_recording(&data, "a", n_channel, [n_train, n_validation, 100], |channel, time| {
        ((time * 7919 + channel * 31) % 101) as f64 / 101.0 - 0.5
    });
    data
}

fn train(run: &Path, data: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gpt2meg"));
    command.arg("train").arg(data).arg("--out").arg(run).args(more);
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

const SMALL: [&str; 8] = ["--layers", "1", "--heads", "1", "--d-model", "8", "--context", "32"];

/// Reads what a child has written to its end, and its exit.
fn ended(mut child: Child) -> (ExitStatus, String) {
    let mut text = String::new();
    std::io::Read::read_to_string(&mut child.stderr.take().unwrap(), &mut text).unwrap();
    (child.wait().unwrap(), text)
}

/// Runs to the end, looking every millisecond at the memory that is the process's own: the highest seen, in bytes.
fn peak(command: &mut Command) -> (u64, String) {
    let child = command.spawn().unwrap();
    let path = format!("/proc/{}/status", child.id());
    let waiting = std::thread::spawn(|| ended(child));
    let mut peak = 0;
    while !waiting.is_finished() {
        let status = std::fs::read_to_string(&path).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
        let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        peak = peak.max(kilobytes.unwrap_or(0) * 1024);
        std::thread::sleep(Duration::from_millis(1));
    }
    let (status, text) = waiting.join().unwrap();
    assert!(status.success(), "{text}");
    (peak, text)
}

#[test]
fn memory_does_not_grow_with_the_data() {
    const N_CHANNEL: usize = 32;
    const N_TIMESTEP: usize = 15_000 + 1_500;
    const TIMES: usize = 40;
    let peaks = [1, TIMES].map(|times| {
        let folder = tempfile::tempdir().unwrap();
        let data = data(folder.path(), N_CHANNEL, 15_000 * times, 1_500 * times);
        // Steps enough for the process to be seen at its largest, however seldom it is looked at.
        let recipe = ["--steps", "200", "--validate-every", "200", "--threads", "1"];
        peak(&mut train(&folder.path().join("run"), &data, &[&SMALL[..], &recipe].concat())).0
    });
    println!("at most {peaks:?} bytes");
    // What is kept is a few numbers for each window of all channels: a tenth of the data, here where windows are short.
    let more_data = (N_CHANNEL * N_TIMESTEP * (TIMES - 1)) as u64;
    assert!(peaks[1] < peaks[0] + more_data / 4, "{peaks:?} bytes for the data and {TIMES} times as much");
}

/// Simulated and tokenized in blocks, or a channel at a time: six times as much takes less than the signal's own
/// size more. Generated, it takes less than its tokens.
#[test]
fn memory_does_not_grow_with_the_recording() {
    const N_CHANNEL: usize = 24;
    const SECONDS: [usize; 2] = [200, 1200];
    const N_MORE: usize = 100 * (SECONDS[1] - SECONDS[0]);
    let folder = tempfile::tempdir().unwrap();
    let command = |line: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gpt2meg"));
        command.args(line.split(' ')).args(["--threads", "1"]).current_dir(folder.path());
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        command
    };
    // The line for so many seconds; what it may take more for the longer one.
    let check = |seconds: [usize; 2], most: usize, line: &dyn Fn(usize) -> String| {
        let peaks = seconds.map(|seconds| peak(&mut command(&line(seconds))).0);
        println!("{}: at most {peaks:?} bytes, may grow by {most}", line(seconds[1]));
        assert!(peaks[1] < peaks[0] + most as u64, "{}: {peaks:?} bytes, more than {most} apart", line(seconds[1]));
    };
    // A few numbers of a channel at a time, as float64: two thirds of the signal as float32.
    let of_a_channel = 8 * 8 * N_MORE;
    assert!(of_a_channel <= 4 * N_CHANNEL * N_MORE * 2 / 3);
    check(SECONDS, of_a_channel, &|seconds| {
        let hours = seconds as f64 / 3600.0;
        format!("simulate --out {seconds}.fif --hours {hours} --channels {N_CHANNEL} --sfreq 100")
    });
    check(SECONDS, of_a_channel, &|seconds| format!("tokenize {seconds}.fif --out data{seconds} --max-error 1"));
    for line in [
        "simulate --out four.fif --hours 0.02 --channels 4 --sfreq 100",
        "tokenize four.fif --out four --max-error 1",
        "train four --out run --layers 1 --heads 1 --d-model 8 --context 32 --steps 1",
    ] {
        peak(&mut command(line));
    }
    let signal = 4 * 4 * 100 * 1200;
    check([300, 1500], signal / 4, &|seconds| {
        format!("generate run --out made{seconds}.fif --seconds {seconds} --hop 31")
    });
}

#[test]
fn the_memory_announced_is_the_memory_taken() {
    for (preset, threads) in [("single", "2"), ("single", "1"), ("tiny", "2")] {
        let folder = tempfile::tempdir().unwrap();
        let data = data(folder.path(), 40, 600, 300);
        let recipe = ["--preset", preset, "--steps", "1", "--validation-windows", "1", "--threads", threads];
        let (peak, text) = peak(&mut train(&folder.path().join("run"), &data, &recipe));
        let announced = text.lines().find_map(|line| line.strip_prefix("Run: ")?.strip_suffix(" MB."));
        let announced: u64 = announced.and_then(|line| line.rsplit(' ').next()?.parse().ok()).expect("an announcement");
        println!("{preset}, {threads} threads: {announced} MB announced, {} taken", peak / MB);
        // Beside what is announced the program itself takes its few.
        assert!(peak <= announced * MB * 11 / 10 + 12 * MB, "{announced} MB announced, {peak} bytes taken");
        assert!(announced * MB <= peak + peak / 10, "{announced} MB announced, {peak} bytes taken");
    }
}

#[test]
fn a_disk_that_fills_up_leaves_the_old_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let data = data(folder.path(), 2, 400, 100);
    let recipe = |steps| [&SMALL[..], &["--steps", steps, "--checkpoint-every", "5", "--validate-every", "5"]].concat();
    let (run, whole) = (folder.path().join("run"), folder.path().join("whole"));
    assert!(ended(train(&run, &data, &recipe("10")).spawn().unwrap()).0.success());
    let old = std::fs::read(step_path(&run, 10)).unwrap();
    let listing = |folder: PathBuf| {
        let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.collect::<std::collections::BTreeSet<_>>()
    };
    let before = listing(run.join("checkpoints"));

    // From here on no file may be as large as a checkpoint: its last bytes do not go to disk.
    let limit = libc::rlimit { rlim_cur: old.len() as u64 - 1000, rlim_max: old.len() as u64 - 1000 };
    let mut command = train(&run, &data, &["--resume", "--steps", "20"]);
    // SAFETY: setrlimit may be called between fork and exec, and reads a structure of ours.
    unsafe {
        command.pre_exec(move || {
            if libc::setrlimit(libc::RLIMIT_FSIZE, &limit) == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
        })
    };
    let (status, text) = ended(command.spawn().unwrap());
    assert_eq!(status.code(), Some(IO), "{text}");
    let message = text.lines().last().unwrap();
    for part in ["gpt2meg: ", ".safetensors", &format!("needs {} bytes", old.len()), "limit"] {
        assert!(message.contains(part), "no {part} in: {message}");
    }
    assert_eq!(std::fs::read(step_path(&run, 10)).unwrap(), old);
    assert_eq!(listing(run.join("checkpoints")), before, "nothing half-written is left");
    assert_eq!(checkpoint::load(&run, Which::Last).unwrap().meta.progress.step, 10);

    // With room again it goes on to the bits of a run to which nothing happened.
    assert!(ended(train(&run, &data, &["--resume", "--steps", "20"]).spawn().unwrap()).0.success());
    assert!(ended(train(&whole, &data, &recipe("20")).spawn().unwrap()).0.success());
    for name in ["checkpoints/step-00000020.safetensors", "metrics.jsonl", "best.safetensors"] {
        assert!(std::fs::read(run.join(name)).unwrap() == std::fs::read(whole.join(name)).unwrap(), "{name}");
    }
}

/// Waits until `ready`; the child must not end before.
fn wait_until(child: &mut Child, ready: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !ready() {
        assert!(Instant::now() < deadline && child.try_wait().unwrap().is_none(), "what was waited for did not come");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn data_that_shrink_under_a_trainer_end_it_with_their_name() {
    for len in [0, 5_000] {
        let folder = tempfile::tempdir().unwrap();
        let data = data(folder.path(), 8, 4_000, 100);
        let run = folder.path().join("run");
        let recipe = ["--passes", "1e6", "--checkpoint-every", "5", "--validate-every", "1000", "--quiet"];
        let mut child = train(&run, &data, &[&SMALL[..], &recipe].concat()).spawn().unwrap();
        wait_until(&mut child, || checkpoint::load_state(&run).is_ok_and(|state| state.is_some()));
        let shard = data.join("a_train.safetensors");
        std::fs::File::options().write(true).open(&shard).unwrap().set_len(len).unwrap();
        let (status, text) = ended(child);
        assert_eq!(status.code(), Some(IO), "{text}");
        assert!(text.contains("a_train.safetensors") && !text.contains("panicked"), "{text}");
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(checkpoint::load_state(&run).unwrap().is_some());
    }
}

#[test]
fn anchors_stop_when_asked_and_keep_to_the_threads_given() {
    let folder = tempfile::tempdir().unwrap();
    // So long a validation part that its anchors take many seconds.
    let data = data(folder.path(), 64, 1_000, 400_000);
    let run = folder.path().join("run");
    let mut child = train(&run, &data, &[&SMALL[..], &["--threads", "3", "--steps", "1"]].concat()).spawn().unwrap();
    wait_until(&mut child, || run.join("run.json").exists());
    std::thread::sleep(Duration::from_secs(1));
    let tasks = std::fs::read_dir(format!("/proc/{}/task", child.id())).unwrap();
    let name = |task: std::io::Result<std::fs::DirEntry>| std::fs::read_to_string(task.ok()?.path().join("comm")).ok();
    let names: Vec<_> = tasks.filter_map(name).collect();
    // SAFETY: a plain system call on a process of ours that has not been waited for.
    assert_eq!(unsafe { libc::kill(child.id() as i32, libc::SIGINT) }, 0);
    let sent = Instant::now();
    let (status, text) = ended(child);
    assert_eq!(status.code(), Some(130), "{text}");
    assert!(sent.elapsed() < Duration::from_secs(1), "{:?} to stop", sent.elapsed());
    assert!(!run.join("anchors.json").exists(), "the anchors were done before they could be stopped");
    // The caller, three for the engine, three for everything else.
    assert_eq!(names.len(), 7, "{names:?}");
}
