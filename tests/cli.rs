//! The program as its users meet it: every command, from its own output to the next one's input, and every mistake
//! with its one line and its own exit code.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A folder to work in, and the program.
struct World(tempfile::TempDir);

impl World {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Runs a command line (words separated by spaces) in the folder.
    fn run(&self, line: &str) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gpt2meg"));
        command.args(line.split(' ')).current_dir(self.0.path()).output().unwrap()
    }

    /// Runs a command line that must succeed; returns what it printed.
    fn succeed(&self, line: &str) -> String {
        let output = self.run(line);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{line}: {error}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs a command line that must fail with this exit code and one line that has `named` in it.
    fn fail(&self, line: &str, code: i32, named: &str) {
        let output = self.run(line);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{line}: {error}");
        let last = error.lines().filter(|line| line.starts_with("gpt2meg: ")).collect::<Vec<_>>();
        assert_eq!(last.len(), 1, "{line}: {error}");
        assert!(last[0].contains(named), "{line}: {error}");
        assert!(!error.contains("panicked"), "{line}: {error}");
    }

    /// Writes a float32 array of shape [time, channel] that numpy opens.
    fn npy(&self, name: &str, n_timestep: usize, n_channel: usize, value: impl Fn(usize, usize) -> f32) {
        let shape = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({n_timestep}, {n_channel}), }}");
        let header = format!("{shape:<117}\n");
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((header.len() as u16).to_le_bytes());
        bytes.extend(header.as_bytes());
        for time in 0..n_timestep {
            for channel in 0..n_channel {
                bytes.extend(value(time, channel).to_le_bytes());
            }
        }
        std::fs::write(self.path(name), bytes).unwrap();
    }

    /// A recording of 30 seconds at 100 Hz that can be tokenized.
    fn signal(&self, name: &str, n_channel: usize) {
        self.npy(name, 3000, n_channel, |time, channel| {
            let t = time as f32 * 0.01;
            (t * (40.0 + channel as f32)).sin() + (t * 71.3).sin() + (t * 123.1 + (t * 9.0).sin()).cos()
        });
    }
}

const NPY: &str = "--rate 100 --layout time-first --picks all";

fn entries(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn mistakes_in_recordings_have_their_own_exit_codes_and_leave_nothing_behind() {
    let world = World::new();
    std::fs::write(world.path("letter.fif"), "Dear Sir or Madam, this is not a recording. ".repeat(9)).unwrap();
    std::fs::write(world.path("empty.fif"), "").unwrap();
    world.npy("nan.npy", 3000, 2, |time, channel| if time == 1500 && channel == 1 { f32::NAN } else { time as f32 });
    world.npy("flat.npy", 3000, 2, |time, channel| if channel == 1 { 1.0 } else { (time as f32).sin() });
    world.npy("brief.npy", 4, 2, |time, _| time as f32);
    world.npy("wide.npy", 4, 3000, |time, channel| (time * channel) as f32);
    world.signal("good.npy", 2);
    for (line, code, named) in [
        ("tokenize letter.fif --out data".to_string(), 10, "letter.fif"),
        ("tokenize empty.fif --out data".to_string(), 11, "empty.fif"),
        (format!("tokenize nan.npy {NPY} --out data"), 12, "001"),
        (format!("tokenize flat.npy {NPY} --out data"), 13, "001"),
        (format!("tokenize brief.npy {NPY} --out data"), 16, "0.04 s"),
        (format!("tokenize wide.npy {NPY} --out data"), 2, "channels"),
        ("tokenize good.npy --layout time-first --out data".to_string(), 21, "--rate"),
        ("tokenize good.npy --rate 100 --out data".to_string(), 2, "--layout"),
        (format!("tokenize good.npy {NPY} --band 0.5,80 --out data"), 2, "50 Hz"),
        (format!("tokenize good.npy {NPY} --levels 16 --out data"), 19, "--max-error"),
        ("tokenize nowhere.fif --out data".to_string(), 66, "nowhere.fif"),
        ("info nowhere".to_string(), 66, "nowhere"),
        ("verify nowhere".to_string(), 66, "nowhere"),
        ("train good.npy --out run".to_string(), 10, "good.npy"),
    ] {
        world.fail(&line, code, named);
        assert!(
            !world.path("data").exists() || entries(&world.path("data")).is_empty(),
            "{line} left something behind"
        );
    }
    assert!(!world.path("run").exists(), "refused before the run's folder is made");
    // A folder that cannot be made: its parent is a file.
    world.fail(&format!("tokenize good.npy {NPY} --out good.npy/data"), 74, "good.npy/data");
}

#[test]
fn data_that_do_not_belong_together_are_refused() {
    let world = World::new();
    world.signal("two.npy", 2);
    world.signal("three.npy", 3);
    world.succeed(&format!("tokenize two.npy {NPY} --out two"));
    world.succeed(&format!("tokenize three.npy {NPY} --out three"));
    world.succeed(&format!("tokenize two.npy {NPY} --preset authors --band 0.5,45 --max-error 1 --out authors"));
    world.succeed("train two --out run --layers 1 --heads 1 --d-model 8 --context 16 --steps 2");

    world.fail(&format!("tokenize three.npy {NPY} --out two --force"), 14, "channel");
    world.fail("score run three", 14, "channel");
    world.fail("score run authors", 17, "tokenizer");
    world.fail("train two --out run", 73, "run");
    world.fail("train two --out long --context 4096", 16, "--context");
    world.fail("train two --out odd --d-model 10 --heads 3", 18, "n_head");
    world.fail("train three --out run --resume", 17, "other data");
    assert!(!world.path("long").exists() && !world.path("odd").exists(), "refused before a folder is made");
    // Not even --force removes a run for one that cannot start; nor is what somebody else left removed without it.
    world.fail("train nowhere --out run --force", 66, "nowhere");
    world.fail("train two --out run --force --context 4096", 16, "--context");
    world.succeed("verify run");
    std::fs::create_dir(world.path("foreign")).unwrap();
    std::fs::write(world.path("foreign/events.out.tfevents.1"), "mine").unwrap();
    world.fail("train two --out foreign", 73, "events.out.tfevents.1");
    world.fail("score run two/two_test.safetensors", 16, "training part");

    // One part of another tokenizer among its like.
    let mixed = world.path("mixed");
    std::fs::create_dir(&mixed).unwrap();
    std::fs::copy(world.path("two/two_train.safetensors"), mixed.join("a_train.safetensors")).unwrap();
    std::fs::copy(world.path("authors/two_test.safetensors"), mixed.join("b_test.safetensors")).unwrap();
    world.fail("train mixed --out other", 17, "tokenizer");
}

#[test]
fn damage_is_found_by_verify_and_named() {
    let world = World::new();
    world.signal("two.npy", 2);
    world.succeed(&format!("tokenize two.npy {NPY} --out data"));
    world.succeed("train data --out run --layers 1 --heads 1 --d-model 8 --context 16 --steps 2");
    world.succeed("verify data");
    world.succeed("verify run");
    let shard = world.path("data/two_train.safetensors");
    let mut bytes = std::fs::read(&shard).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&shard, &bytes).unwrap();
    world.fail("verify data", 65, "two_train.safetensors");
    world.fail("train data --out other --layers 1 --heads 1 --d-model 8 --context 16 --steps 2", 65, "two_train");
    let step = world.path("run/checkpoints/step-00000002.safetensors");
    let mut bytes_of_step = std::fs::read(&step).unwrap();
    *bytes_of_step.last_mut().unwrap() ^= 1;
    std::fs::write(&step, bytes_of_step).unwrap();
    world.fail("verify run", 65, "step-00000002");
    bytes.truncate(middle);
    std::fs::write(&shard, &bytes).unwrap();
    world.fail("verify data", 65, "two_train.safetensors");
    world.fail("info data/two_train.safetensors", 65, "two_train.safetensors");
}

#[test]
fn info_and_export_say_what_things_are() {
    let world = World::new();
    world.signal("two.npy", 2);
    world.succeed(&format!("tokenize two.npy {NPY} --out data"));
    world.succeed("train data --out run --layers 1 --heads 1 --d-model 8 --context 16 --steps 2");
    let info = |line: &str| -> serde_json::Value { serde_json::from_str(&world.succeed(line)).expect("JSON") };
    assert_eq!(info("info run --json")["model"]["d_model"], 8);
    assert_eq!(info("info data --json")["channels"], 2);
    assert_eq!(info("info data/two_test.safetensors --json")["part"], "test");
    assert!(info("info device --json")["threads"].as_u64().unwrap() >= 1);
    let audvis = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/audvis_mag_raw.fif");
    let facts = world.succeed(&format!("info {}", audvis.display()));
    assert!(facts.contains("102 mag"), "{facts}");

    world.succeed("export run --out model");
    assert_eq!(
        entries(&world.path("model")),
        ["README.md", "config.json", "embeddings.safetensors", "model.safetensors"]
    );
    let config: serde_json::Value =
        serde_json::from_slice(&std::fs::read(world.path("model/config.json")).unwrap()).unwrap();
    assert_eq!(config["gpt2meg"]["channels"][1]["name"], "001");
    world.fail("export run --out model", 73, "--force");
}

#[test]
fn arrays_of_ones_own_are_compared_once_their_layout_and_rate_are_declared() {
    let world = World::new();
    world.signal("real.npy", 2);
    world.npy("mine.npy", 1200, 2, |time, channel| (time as f32 * (0.5 + channel as f32)).sin());
    let both = "evaluate --real real.npy --generated mine.npy --hmm-states 3 --hmm-components 4 --out report";
    world.fail(&format!("{both} --rate 100"), 2, "--layout");
    world.fail(&format!("{both} --layout time-first"), 21, "--rate");
    world.fail(&format!("{both} --layout time-first --rate 100 --control-p 1.5"), 2, "1.5");
    world.fail(&format!("{both} --layout time-first --rate 100 --hmm-lags 4"), 2, "odd");
    assert!(!world.path("report").exists());
    let output = world.run(&format!("{both} --layout time-first --rate 100 --control-p 0.5"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("nothing says which tokenizer was used"), "{said}");
    assert!(said.contains("between stretches of 12 s; for them 6 s of the real recording is left out"), "{said}");
    let report: serde_json::Value =
        serde_json::from_slice(&std::fs::read(world.path("report/report.json")).unwrap()).unwrap();
    assert_eq!(report["compared_n_timestep"], 1200);
    assert_eq!(report["scheme_is_known"], false);
    assert_eq!(report["sections"]["control"]["generated"], serde_json::json!(["p = 1", "p = 0.5"]));
    assert_eq!(report["sections"]["hmm"]["n_state"], 3);
    assert!(world.path("report/hmm/mine/summary_stats/fo.npy").exists());
    std::fs::rename(world.path("report/hmm"), world.path("hmm")).unwrap();
    std::fs::remove_dir_all(world.path("report")).unwrap();
    std::fs::create_dir(world.path("report")).unwrap();
    std::fs::rename(world.path("hmm"), world.path("report/hmm")).unwrap();
    world.fail(&format!("{both} --layout time-first --rate 100"), 73, "--force");
}

#[test]
fn every_command_explains_itself() {
    let world = World::new();
    let all = world.succeed("--help");
    for command in
        ["demo", "simulate", "tokenize", "train", "generate", "score", "evaluate", "info", "verify", "export"]
    {
        assert!(all.contains(command), "{command} is missing from the list");
        let help = world.succeed(&format!("{command} --help"));
        assert!(help.contains(&format!("gpt2meg {command} ")), "{command} shows no example");
    }
}

/// Whoever has several recordings, or channels to name, finds their names with `info`.
#[test]
fn info_names_recordings_and_channels_and_passes_over_what_it_cannot_open() {
    let world = World::new();
    world.signal("two.npy", 2);
    world.fail("info two.npy", 2, "--layout");
    world.fail("info two.npy --layout time-first", 21, "--rate");
    assert!(world.succeed("info two.npy --layout time-first --rate 100").contains("30.0"));
    world.succeed("simulate --out s_raw.fif --hours 0.01 --channels 3 --stim");
    let all: serde_json::Value = serde_json::from_str(&world.succeed("info . --json")).unwrap();
    assert_eq!(all["./s_raw.fif"]["channel_names"].as_array().unwrap().len(), 4);
    assert_eq!(all["./s_raw.fif"]["trigger_channels"], serde_json::json!(["STI 014"]));
    assert!(all["./two.npy"]["skipped"].as_str().unwrap().contains("which axis"), "{all}");
    let text = world.succeed("info s_raw.fif");
    assert!(text.contains("STI 014") && !text.contains("MEG 0111"), "{text}");
    assert!(text.lines().any(|line| line.split_whitespace().eq(["bad", "channels", "none"])), "{text}");

    std::fs::create_dir(world.path("both")).unwrap();
    world.signal("both/A.npy", 2);
    // Another recording, not the same under another name, which would be refused.
    world.npy("both/B.npy", 3000, 2, |time, channel| (time as f32 * (0.71 + channel as f32)).sin());
    world.succeed(&format!("tokenize both {NPY} --out data"));
    let facts: serde_json::Value = serde_json::from_str(&world.succeed("info data --json")).unwrap();
    for name in ["A", "B"] {
        let lengths = &facts["recordings"][name];
        let sum: u64 = ["train", "validation", "test"].iter().map(|part| lengths[part].as_u64().unwrap()).sum();
        assert_eq!(sum, 3000, "{facts}");
    }
    assert!(world.succeed("info data").lines().any(|line| line.trim().starts_with("A ") && line.contains("train ")));
    let both = "evaluate --real data --generated both/A.npy --layout time-first --rate 100 --skip hmm --out report";
    world.fail(both, 2, "--recording");
    world.fail(&format!("{both} --recording C"), 66, "info lists");
    world.succeed(&format!("{both} --recording B --quiet"));
}

/// Names that are taken, or lead nowhere, are told at once and not after hours: nothing else is said, nothing is left.
#[test]
fn what_cannot_be_written_is_found_before_any_work() {
    let world = World::new();
    world.signal("two.npy", 2);
    world.succeed(&format!("tokenize two.npy {NPY} --out data"));
    world.succeed("train data --out run --layers 1 --heads 1 --d-model 8 --context 16 --steps 2 --quiet");
    for folder in ["report", "other", "taken.fif"] {
        std::fs::create_dir(world.path(folder)).unwrap();
    }
    for file in ["report/lags.npy", "other/spectra-two.npy", "file"] {
        std::fs::write(world.path(file), "mine").unwrap();
    }
    let evaluate = "evaluate --real data --generated two.npy --layout time-first --rate 100 --skip hmm --out";
    world.fail(&format!("{evaluate} report"), 73, "lags.npy");
    world.fail(&format!("{evaluate} other"), 73, "spectra-two.npy");
    world.fail(&format!("{evaluate} file --force"), 73, "a file of this name");
    assert_eq!(entries(&world.path("report")), ["lags.npy"]);
    assert_eq!(entries(&world.path("other")), ["spectra-two.npy"]);
    world.fail("score run data --out other --force", 73, "a folder of this name");
    world.fail("score run data --out nowhere/x.json", 66, "no such folder");
    world.fail("generate run --out taken.fif --seconds 1 --force", 73, "a folder of this name");
    assert!(!world.path("taken.fif.tokens.partial").exists());
}

/// A simulated recording of more than 2 GB goes on in further files, and these are looked at, too; what the study's
/// folder is called does not matter to them.
#[test]
fn every_part_of_a_long_simulation_is_looked_at_before_any_work() {
    let world = World::new();
    let study = world.0.path().join(std::ffi::OsStr::from_bytes(b"study-\xff"));
    let taken = "sub-02/meg/sub-02_task-sim_meg-1.fif";
    std::fs::create_dir_all(study.join("sub-02/meg")).unwrap();
    std::fs::write(study.join(taken), "mine").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_gpt2meg"));
    let output = command.args(["simulate", "--subjects", "2", "--hours", "3", "--out"]).arg(&study).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(73) && error.contains(taken), "{error}");
    assert_eq!(std::fs::read_dir(&study).unwrap().count(), 1, "the first subject was begun");
    // So is the study's own table.
    std::fs::create_dir(world.path("other")).unwrap();
    std::fs::write(world.path("other/participants.tsv"), "mine").unwrap();
    world.fail("simulate --subjects 2 --hours 0.01 --out other", 73, "participants.tsv");
    assert_eq!(entries(&world.path("other")), ["participants.tsv"]);
}

/// An array without names is compared channel by channel in order, and a generated file says which tokenizer it went
/// through even where the real one does not.
#[test]
fn generated_arrays_are_compared_with_recordings_that_have_names() {
    let world = World::new();
    world.succeed("simulate --out s_raw.fif --hours 0.01 --channels 3 --sfreq 100 --stim");
    world.npy("mine.npy", 1200, 3, |time, channel| (time as f32 * (0.5 + channel as f32)).sin() * 1e-13);
    world.succeed("tokenize s_raw.fif --out data --band 0.5,45");
    world.succeed("train data --out run --layers 1 --heads 1 --d-model 8 --context 16 --steps 2");
    world.succeed("generate run --out x.npy --seconds 12");
    world.succeed("generate run --out x_raw.fif --seconds 12");
    for (real, known) in [("data", true), ("s_raw.fif", false)] {
        let output = world.run(&format!(
            "evaluate --real {real} --generated mine.npy --layout time-first --rate 100 --skip hmm --out report --force"
        ));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{real}: {said}");
        assert!(said.contains("names no channels"), "{real}: {said}");
        assert_eq!(said.contains("which tokenizer"), !known, "{real}: {said}");
    }
    for generated in ["x.npy", "x_raw.fif"] {
        let output =
            world.run(&format!("evaluate --real s_raw.fif --generated {generated} --skip hmm --out report --force"));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{generated}: {said}");
        assert!(!said.contains("which tokenizer") && !said.contains("names no channels"), "{generated}: {said}");
    }
    // The right-hand panels are of stretches of one length, and say so.
    let page = std::fs::read_to_string(world.path("report/report.html")).unwrap();
    for said in
        ["first stretch of each generated recording", "first stretch of the generated recording", "as long", "whole"]
    {
        assert!(page.contains(said), "{said}");
    }
    // Three columns are no four channels.
    world.npy("four.npy", 1200, 4, |time, channel| (time as f32 * (0.5 + channel as f32)).sin());
    world.fail(
        "evaluate --real data --generated four.npy --layout time-first --rate 100 --skip hmm --out other",
        14,
        "4 channels",
    );
}

/// How many times as far from real as real is from itself the demonstration's spectra may be at p = 1: what the report calls
/// near. A perfect model's are at 1 but for chance; this one's were at 1.5, and those of one trained for a twentieth of
/// the steps are beyond (they follow one histogram, whatever came before).
const SPECTRA_FOLLOW: f64 = 3.0;

/// The main job, as the README's first command runs it.
#[test]
fn the_demonstration_ends_in_a_report() {
    let world = World::new();
    // A name that looks like an option, too.
    let printed = world.succeed("demo --out=-demo");
    assert_eq!(printed.lines().last(), Some("./-demo/report/report.html"));
    let report: serde_json::Value =
        serde_json::from_slice(&std::fs::read(world.path("-demo/report/report.json")).unwrap()).unwrap();
    // Generated spectra follow the real ones where nothing is cut: see SPECTRA_FOLLOW.
    let spectrum = &report["sections"]["spectrum"]["measures"]["log_distance"];
    assert_eq!(report["generated"][0]["label"], "p=1");
    let median = |of: &serde_json::Value| of["median"].as_f64().unwrap();
    let ratio = median(&spectrum["generated"][0]) / median(&spectrum["ceiling"]);
    assert!(ratio < SPECTRA_FOLLOW, "spectra at p = 1 are {ratio} times as far from real as real is");
    assert!(std::fs::read_to_string(world.path("-demo/report/report.html")).unwrap().contains("<svg"));
    world.fail("demo --out=-demo", 73, "--force");
}
