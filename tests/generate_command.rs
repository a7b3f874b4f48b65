//! `gpt2meg generate` as users run it: the same bytes whatever happens to the process, honest files, clear errors.

use gpt2meg::device::{DeviceChoice, Dtype, Sampler, open};
use gpt2meg::generate::conditions::Series;
use gpt2meg::generate::provenance::Provenance;
use gpt2meg::generate::{Generator, Plan};
use gpt2meg::model::config::{Head, ModelConfig};
use gpt2meg::model::layout::{Init, ParamLayout};
use gpt2meg::model::network::Generating;
use gpt2meg::random::{Purpose, keyed};
use gpt2meg::recording::open::OpenOptions;
use gpt2meg::recording::{self, Channel, ChannelKind, Event, Info, fif};
use gpt2meg::tokens::dataset::Dataset;
use gpt2meg::tokens::scheme::{Quantiser, Scales, Scheme};
use gpt2meg::tokens::shard::{ShardMeta, ShardWriter, Split, Tokenization};
use gpt2meg::train::checkpoint::{self, CheckpointMeta, DataMeta, Moments, Progress};
use gpt2meg::train::config::TrainingConfig;
use gpt2meg::train::labels::ConditionLabels;
use rand::Rng;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

const N_CHANNEL: usize = 3;
const N_CTX: usize = 32;
/// Timesteps of a shard.
const N_DATA: usize = 200;

fn info(names: &[&str]) -> Info {
    let channel = |name: &&str| Channel {
        name: name.to_string(),
        kind: ChannelKind::Mag,
        loc: [0.1; 12],
        coil_type: 3022,
        coord_frame: 1,
        bad: false,
    };
    Info {
        channels: names.iter().map(channel).collect(),
        sfreq: 100.0,
        n_timestep: N_DATA,
        first_timestep: 0,
        events: Vec::new(),
        subject: None,
        pass_band: (0.5, 45.0),
        meas_date: None,
        line_freq: None,
        dev_head_t: None,
        dig: Vec::new(),
        description: None,
        source: "test".into(),
    }
}

fn token(channel: usize, time: usize) -> u8 {
    (100 + channel * 31 % 40 + time * 7 % 29) as u8
}

fn scales() -> Scales {
    let centre = (0..N_CHANNEL).map(|c| c as f64 * 1e-14).collect();
    Scales { centre, spread: vec![2e-13; N_CHANNEL], peak: vec![10.0; N_CHANNEL] }
}

fn condition(time: usize) -> u16 {
    (time / 10 % 3) as u16
}

fn write_data(folder: &Path, subjects: &[&str], channels: &[&str]) {
    std::fs::create_dir(folder).unwrap();
    for subject in subjects {
        let meta = ShardMeta {
            info: Info { subject: Some(subject.to_string()), ..info(channels) },
            split: Split::Train,
            recording: format!("sub-{subject}"),
            scheme: Scheme::PAPER,
            conditions: vec!["face".into(), "house".into()],
            excluded: vec![],
            tokenization: Tokenization::default(),
            version: "test".into(),
        };
        let path = folder.join(format!("sub-{subject}_train.safetensors"));
        let mut writer = ShardWriter::create(&path, false, &meta, &scales()).unwrap();
        for channel in 0..channels.len() {
            let row: Vec<u8> = (0..N_DATA).map(|time| token(channel, time)).collect();
            writer.tokens(channel, 0, &row).unwrap();
        }
        writer.conditions(0, &(0..N_DATA).map(condition).collect::<Vec<_>>()).unwrap();
        writer.seal().unwrap();
        writer.publish().unwrap();
    }
}

fn config() -> ModelConfig {
    let (n_level, n_subject, n_condition, head) = (256, 2, 2, Head::Shared);
    ModelConfig {
        n_layer: 2,
        n_head: 2,
        d_model: 16,
        n_ctx: N_CTX,
        n_level,
        n_channel: N_CHANNEL,
        n_subject,
        n_condition,
        head,
    }
}

fn parameters() -> Vec<f32> {
    let layout = ParamLayout::new(&config());
    let mut noise = keyed(2, Purpose::Init, 0);
    let mut flat = vec![0.0; layout.len()];
    for entry in layout.entries() {
        for x in &mut flat[entry.offset..][..entry.len] {
            let spread = (noise.next_u32() as f64 / u32::MAX as f64 - 0.5) as f32;
            *x = if let Init::Constant(c) = entry.init { c + 0.3 * spread } else { 0.7 * spread };
        }
    }
    flat
}

/// A folder with data of two subjects and a checkpoint of a model of them.
struct World {
    folder: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        write_data(&data, &["01", "02"], &["A", "B", "C"]);
        let dataset = Dataset::open(&data).unwrap();
        let meta = CheckpointMeta {
            model: config().into(),
            data: DataMeta::of(&dataset).unwrap(),
            training: TrainingConfig::paper(0, 1),
            progress: Progress::default(),
            version: "test".into(),
            device: "test".into(),
        };
        let params = parameters();
        Self::save(folder.path(), "model.safetensors", &meta, &params);
        let diverged = vec![f32::NAN; params.len()];
        Self::save(folder.path(), "diverged.safetensors", &meta, &diverged);
        Self { folder }
    }

    fn save(folder: &Path, name: &str, meta: &CheckpointMeta, params: &[f32]) {
        let moments = Moments { m: vec![0.0; params.len()], v: vec![0.0; params.len()] };
        checkpoint::save(&folder.join(name), meta, &[scales(), scales()], params, &moments).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, out: &str, arguments: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gpt2meg"));
        command.current_dir(self.folder.path());
        command.args(["generate", "model.safetensors", "--out", out, "--threads", "1"]);
        if !arguments.contains("--data") {
            command.args(["--data", "data"]);
        }
        command.args(arguments.split_whitespace()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn run(&self, out: &str, arguments: &str) -> Output {
        self.command(out, arguments).output().unwrap()
    }

    fn succeed(&self, out: &str, arguments: &str) -> Vec<u8> {
        let output = self.run(out, arguments);
        assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
        std::fs::read(self.path(out)).unwrap_or_default()
    }

    fn fail(&self, out: &str, arguments: &str, code: i32) -> String {
        let output = self.run(out, arguments);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{arguments}: {text}");
        assert!(!self.path(out).exists(), "{arguments}: nothing is written");
        text
    }

    fn partial(&self, out: &str) -> PathBuf {
        self.path(&format!("{out}.tokens.partial"))
    }
}

/// The float32 samples of a .npy file, time × channels.
fn samples(bytes: &[u8]) -> Vec<f32> {
    let header = 10 + u16::from_le_bytes([bytes[8], bytes[9]]) as usize;
    bytes[header..].chunks_exact(4).map(|x| f32::from_le_bytes(x.try_into().unwrap())).collect()
}

fn labels(world: &World, table: &str) -> Vec<String> {
    let text = std::fs::read_to_string(world.path(table)).unwrap();
    text.lines().skip(1).map(|line| line.split('\t').take(3).collect::<Vec<_>>().join(" ")).collect()
}

/// Timesteps of the prompt at the hop that [`by_library`] uses.
const N_PROMPT: usize = N_CTX - 10;

/// What the library generates for subject 02 with seed 5, decoded: 50 timesteps of each channel.
fn by_library(series: Series, prompt_condition: Vec<u16>) -> Vec<Vec<f32>> {
    let plan = Plan {
        model: config().into(),
        hop: 10,
        n_rollout: 1,
        subject: 1,
        prompt: (0..N_CHANNEL).flat_map(|c| (0..N_PROMPT).map(move |t| token(c, t))).collect(),
        prompt_condition,
        series,
        labels: ConditionLabels::Data,
        seed: 5,
        sampler: Sampler { temperature: 1.0, top_k: 0, top_p: 0.8, greedy: false },
    };
    let mut device = open(DeviceChoice::Cpu, Some(2), |_| ()).unwrap();
    let buffer = device.alloc(Dtype::F32, ParamLayout::new(&config()).len()).unwrap();
    device.upload(buffer, bytemuck::cast_slice(&parameters())).unwrap();
    let model = Generating::new(&config().into(), buffer).unwrap();
    let mut generator = Generator::new(plan).unwrap();
    let mut expected = vec![Vec::new(); N_CHANNEL];
    for _ in 0..5 {
        let tokens = generator.draw(&mut *device, &model).unwrap();
        for (channel, new) in tokens.chunks(10).enumerate() {
            let values = Quantiser::new(&Scheme::PAPER).decoded(scales().channel(channel));
            expected[channel].extend(new.iter().map(|&token| values[token as usize] as f32));
        }
        generator.advance(&tokens);
    }
    expected
}

/// The file holds the levels' centres of the tokens that the library generates, in SI units, and the conditions that the
/// data goes on with; FIF and npy hold the same.
#[test]
fn a_recording_is_the_decoded_tokens_with_their_conditions() {
    let world = World::new();
    let bytes = world.succeed("x.npy", "--timesteps 45 --hop 10 --seed 5 --subject 02");
    let series = Series::Data { series: (0..N_DATA).map(condition).collect(), start: N_PROMPT };
    let expected = by_library(series, (0..N_PROMPT).map(condition).collect());
    let got = samples(&bytes);
    assert_eq!(got.len(), 45 * N_CHANNEL);
    for (at, value) in got.iter().enumerate() {
        assert_eq!(*value, expected[at % N_CHANNEL][at / N_CHANNEL], "timestep {}", at / N_CHANNEL);
    }
    // The prompt ends within the condition of timesteps 20 to 29: 8 timesteps of it are left.
    assert_eq!(labels(&world, "x_events.tsv"), ["0 0.08 house", "0.18 0.1 face", "0.28 0.1 house"]);
    assert!(!world.partial("x.npy").exists());

    world.succeed("x_raw.fif", "--timesteps 45 --hop 10 --seed 5 --subject 02");
    let mut recording = fif::open(&world.path("x_raw.fif")).unwrap();
    let event = |onset, duration, label: &str| Event { onset, duration, label: label.into() };
    assert_eq!(recording.info.events, [event(0, 8, "house"), event(18, 10, "face"), event(28, 10, "house")]);
    assert_eq!(recording.info.channels, info(&["A", "B", "C"]).channels);
    let block = recording.read(0, 45).unwrap();
    for (channel, expected) in expected.iter().enumerate() {
        let row: Vec<f32> = block.channel(channel).iter().map(|&x| x as f32).collect();
        assert_eq!(row, expected[..45]);
    }
}

#[test]
fn neither_threads_nor_other_rollouts_change_a_byte() {
    let world = World::new();
    let arguments = "--timesteps 33 --hop 7 --conditions random --trial-seconds 0.06";
    let one = world.succeed("one.npy", arguments);
    for threads in [2, 3, 5] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gpt2meg"));
        command.current_dir(world.folder.path()).args(["generate", "model.safetensors", "--data", "data"]);
        command.args(["--out", "n.npy", "--force", "--threads", &threads.to_string()]);
        assert!(command.args(arguments.split_whitespace()).output().unwrap().status.success());
        assert!(std::fs::read(world.path("n.npy")).unwrap() == one, "{threads} threads");
    }
    world.succeed("many.npy", &format!("{arguments} --rollouts 3"));
    let rollout = |i| std::fs::read(world.path(&format!("many_rollout-{i}.npy"))).unwrap();
    assert!(rollout(1) == one);
    assert!(rollout(2) != one && rollout(3) != rollout(2));
    assert!(world.succeed("other.npy", &format!("{arguments} --seed 1")) != one);
}

/// Killed again and again at any instant, and resumed: the same bytes as without.
#[test]
fn killed_and_resumed_is_the_same_file() {
    let world = World::new();
    let arguments = "--timesteps 4000 --hop 4";
    let whole = world.succeed("whole.npy", arguments);
    let mut resume = "";
    let mut kills = 0;
    for attempt in 0..200u64 {
        let mut child = world.command("x.npy", &format!("{arguments} {resume}")).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(20 + attempt * 7 % 60));
        child.kill().unwrap();
        let status = child.wait().unwrap();
        if status.success() {
            break;
        }
        kills += 1;
        // Killed after the file had taken its name: it is whole, or the name would not be there.
        if let Ok(named) = std::fs::read(world.path("x.npy")) {
            assert!(named == whole, "something half-written has the name");
            if !world.partial("x.npy").exists() {
                break;
            }
        }
        resume = if world.partial("x.npy").exists() { "--resume" } else { "" };
        if kills == 25 {
            world.succeed("x.npy", &format!("{arguments} {resume}"));
            break;
        }
    }
    assert!(kills > 3, "only {kills} kills hit");
    assert!(std::fs::read(world.path("x.npy")).unwrap() == whole);
    assert!(!world.partial("x.npy").exists());
}

fn interrupt_once_begun(world: &World, out: &str, child: &mut Child) {
    for _ in 0..2000 {
        if std::fs::metadata(world.partial(out)).is_ok_and(|file| file.len() > 2000) {
            break;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
}

#[test]
fn an_interrupted_recording_is_valid_and_goes_on() {
    let world = World::new();
    let arguments = "--timesteps 20000 --hop 4";
    let mut child = world.command("x.npy", arguments).spawn().unwrap();
    interrupt_once_begun(&world, "x.npy", &mut child);
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let short = samples(&std::fs::read(world.path("x.npy")).unwrap());
    assert!(!short.is_empty() && short.len() < 20000 * N_CHANNEL && short.len().is_multiple_of(4 * N_CHANNEL));

    let busy = world.run("x.npy", &format!("{arguments} --force --resume --seed 9"));
    assert_eq!(busy.status.code(), Some(2), "another seed");
    let n_timestep = short.len() / N_CHANNEL + 50;
    let resumed = samples(&world.succeed("x.npy", &format!("--timesteps {n_timestep} --hop 4 --resume")));
    assert_eq!(resumed[..short.len()], short);
    let whole = world.succeed("y.npy", &format!("--timesteps {n_timestep} --hop 4"));
    assert!(resumed == samples(&whole));
}

/// The prompt is real signal: whatever conditions follow, it goes with those it was recorded under.
#[test]
fn the_prompt_keeps_its_own_conditions() {
    let world = World::new();
    let random = Series::Random { seed: 5, n_condition: 2, pause: 50, trial: 6 };
    for (arguments, series) in
        [("--conditions none", Series::None), ("--conditions random --trial-seconds 0.06", random)]
    {
        let got = world.succeed("x.npy", &format!("--timesteps 50 --seed 5 --subject 02 --force {arguments}"));
        let interleaved = |rows: Vec<Vec<f32>>| {
            (0..50).flat_map(|t| rows.iter().map(|row| row[t]).collect::<Vec<_>>()).collect::<Vec<_>>()
        };
        let told = interleaved(by_library(series.clone(), (0..N_PROMPT).map(condition).collect()));
        assert!(samples(&got) == told, "{arguments}");
        assert!(
            told != interleaved(by_library(series, vec![0; N_PROMPT])),
            "{arguments}: the prompt's conditions matter"
        );
    }
}

#[test]
fn conditions_come_from_a_table() {
    let world = World::new();
    let table = "onset\tduration\ttrial_type\n0.1\t0.05\thouse\n0.2\tn/a\tface\n";
    std::fs::write(world.path("trials.tsv"), table).unwrap();
    let with = world.succeed("x.npy", "--seconds 1 --events trials.tsv");
    assert_eq!(labels(&world, "x_events.tsv"), ["0.1 0.05 house", "0.2 0.5 face"]);
    let without = world.succeed("y.npy", "--seconds 1 --conditions none");
    assert!(labels(&world, "y_events.tsv").is_empty());
    assert!(with != without, "conditions matter");
    // Until the first condition has been fed, nothing differs: the token after it is the first to know.
    let (with, without) = (samples(&with), samples(&without));
    assert_eq!(with[..11 * N_CHANNEL], without[..11 * N_CHANNEL]);
}

#[test]
fn mistakes_are_named() {
    let world = World::new();
    std::fs::write(world.path("trials.tsv"), "onset\ttrial_type\n0\tcat\n").unwrap();
    write_data(&world.path("others"), &["01"], &["A", "B", "D"]);
    let cases = [
        ("x.npy", "--seconds 1 --subject 07", 20, "01, 02"),
        ("x.npy", "--seconds 1 --events trials.tsv", 15, "cat"),
        ("x.npy", "--seconds 1 --data others", 14, "channel C"),
        ("x.npy", "--seconds 1 --hop 32", 2, "1 to 31"),
        ("x.npy", "--seconds 1 --hop 0", 2, "hop of 0"),
        ("x.npy", "--seconds 1 --top-p 0", 2, "top-p"),
        ("x.npy", "--seconds 1 --temperature nan", 2, "temperature"),
        ("x.npy", "--seconds -1", 2, ""),
        ("x.npy", "--seconds 1 --conditions random --trial-seconds 1e30", 2, "make no sense"),
        ("x.npy", "--seconds 1 --conditions random --trial-seconds 0.001", 2, "shorter than a timestep"),
        ("x.npy", "--seconds 1 --conditions random --trial-seconds nan", 2, "shorter than a timestep"),
        ("x.npy", "--seconds 1 --prompt-from test", 16, "test part"),
        ("x.npy", "--seconds 1 --prompt-start 1.9", 16, "200"),
        ("x.npy", "--seconds 1 --resume", 66, "leave out --resume"),
        ("x.wav", "--seconds 1", 2, ".npy"),
        ("nowhere/x.npy", "--seconds 1", 66, "nowhere"),
    ];
    for (out, arguments, code, named) in cases {
        let text = world.fail(out, arguments, code);
        assert!(text.contains(named), "{arguments}: {text}");
        assert!(!world.partial(out).exists(), "{arguments}");
    }
    std::fs::write(world.path("there.npy"), b"mine").unwrap();
    assert_eq!(world.run("there.npy", "--seconds 1").status.code(), Some(73));
    assert_eq!(std::fs::read(world.path("there.npy")).unwrap(), b"mine");
}

/// What stands beside an array is part of it: somebody else's is found before anything is drawn, and stays.
#[test]
fn what_somebody_else_left_beside_an_array_is_not_replaced() {
    let world = World::new();
    for name in ["x.json", "x_events.tsv"] {
        std::fs::write(world.path(name), "mine").unwrap();
        let text = world.fail("x.npy", "--seconds 1", 73);
        assert!(text.contains(name), "{text}");
        assert!(!world.partial("x.npy").exists());
        assert_eq!(std::fs::read(world.path(name)).unwrap(), b"mine");
        std::fs::remove_file(world.path(name)).unwrap();
    }

    // Going on replaces what it wrote itself, whole or not, and nothing else.
    let goes_on = |out: &str, spoil: &dyn Fn(), code: i32| {
        let mut child = world.command(out, "--timesteps 20000 --hop 4 --force").spawn().unwrap();
        interrupt_once_begun(&world, out, &mut child);
        assert_eq!(child.wait().unwrap().code(), Some(130));
        let partial = std::fs::read(world.partial(out)).unwrap();
        spoil();
        let output = world.run(out, "--timesteps 300 --hop 4 --resume");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{out}: {text}");
        if code == 73 {
            assert!(text.contains("Beside --resume it keeps the tokens"), "{text}");
            assert_eq!(std::fs::read(world.partial(out)).unwrap(), partial);
            assert!(world.run(out, "--timesteps 300 --hop 4 --resume --force").status.success());
        }
    };
    let put = |name: &str| std::fs::write(world.path(name), "mine").unwrap();
    let remove = |name: &str| std::fs::remove_file(world.path(name)).unwrap();
    goes_on("x.npy", &|| {}, 0);
    goes_on("x.npy", &|| remove("x.npy"), 0);
    goes_on("x.npy", &|| put("x.json"), 73);
    goes_on("x.npy", &|| ["x.npy", "x.json", "x_events.tsv"].iter().for_each(|name| remove(name)), 0);
    goes_on("x_raw.fif", &|| {}, 0);
    goes_on("x_raw.fif", &|| put("x_raw.fif"), 73);
    // The like of it, of another seed.
    world.succeed("y_raw.fif", "--seconds 1 --seed 3");
    let copy = || {
        std::fs::copy(world.path("y_raw.fif"), world.path("x_raw.fif")).unwrap();
    };
    goes_on("x_raw.fif", &copy, 73);
}

/// What cannot begin leaves nothing that the next try would stumble over.
#[test]
fn a_generation_that_cannot_begin_leaves_no_partial_file() {
    let world = World::new();
    let mut command = Command::new(env!("CARGO_BIN_EXE_gpt2meg"));
    command.current_dir(world.folder.path());
    let words = "generate diverged.safetensors --data data --out x.npy --seconds 1";
    let output = command.args(words.split(' ')).output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(!world.partial("x.npy").exists());
}

/// The tokens are four times smaller than the signal: where these had room and that has none, the tokens are kept, and
/// the message says so.
#[test]
fn without_room_for_the_recording_its_tokens_are_kept() {
    let world = World::new();
    for out in ["x_raw.fif", "x.npy"] {
        let program = env!("CARGO_BIN_EXE_gpt2meg");
        let generate = format!("exec {program} generate model.safetensors --data data --out {out} --timesteps 3000");
        // 16 KiB a file: there are 10 kB of tokens and 36 kB of signal.
        let limited = Command::new("bash")
            .args(["-c", &format!("trap '' XFSZ; ulimit -f 16; {generate}")])
            .current_dir(world.folder.path())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&limited.stderr).into_owned();
        assert_eq!(limited.status.code(), Some(74), "{text}");
        assert!(text.contains("needs 36000 bytes") && text.contains("then give --resume"), "{text}");
        assert!(!world.path(out).exists());
        let resumed = world.succeed(out, "--timesteps 3000 --resume");
        assert_eq!(resumed, world.succeed(&format!("whole_{out}"), "--timesteps 3000"));
    }
}

/// Both formats carry how they were made; MNE shows it as the description.
#[test]
fn a_recording_says_how_it_was_made() {
    let world = World::new();
    let mut said = Vec::new();
    for out in ["x_raw.fif", "x.npy"] {
        world.succeed(out, "--seconds 1 --rollouts 2 --seed 8");
        let out = if out == "x.npy" { "x_rollout-2.npy" } else { "x_rollout-2_raw.fif" };
        let info = recording::open(&world.path(out), &OpenOptions::default()).unwrap().remove(0).info;
        said.push(Provenance::of(&info).unwrap());
    }
    assert_eq!(said[0], said[1]);
    assert_eq!((said[0].rollout, said[0].tokenizer), (2, Scheme::PAPER));
    assert!(said[0].sampler.contains("seed 8") && said[0].sampler.contains("top-p 0.8"), "{}", said[0].sampler);
}
