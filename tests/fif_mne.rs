//! FIF against MNE-Python at run time: what is written here is what MNE reads, and what MNE reads is what is read here.
//!
//! `GPT2MEG_PYTHON` names a Python that has mne and numpy. `GPT2MEG_FIF`, a list like `PATH`, adds recordings of your
//! own to those compared.

#[path = "support/fif.rs"]
mod support;

use gpt2meg::recording::{Block, Channel, ChannelKind, DigPoint, Event, Info, fif, stim::events_from_stim};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use support::{check_info, check_samples, events, expected_samples};

/// What MNE reads from recordings, all of them in one go, because starting Python takes seconds.
fn facts(recordings: &[PathBuf]) -> Vec<(Value, Vec<f64>)> {
    let python = std::env::var_os("GPT2MEG_PYTHON").expect("GPT2MEG_PYTHON must name a Python that has mne and numpy");
    let out = tempfile::tempdir().unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/fif_facts.py");
    let status = Command::new(python).arg(script).arg(out.path()).args(recordings).status().unwrap();
    assert!(status.success(), "MNE does not read all of {recordings:?}");
    let of = |i: usize| {
        let json = std::fs::read_to_string(out.path().join(format!("{i}.json"))).unwrap();
        (serde_json::from_str(&json).unwrap(), expected_samples(&out.path().join(format!("{i}.npy"))))
    };
    (0..recordings.len()).map(of).collect()
}

const KINDS: [ChannelKind; 9] = {
    use ChannelKind::*;
    [Mag, Grad, RefMeg, Eeg, Stim, Eog, Ecg, Emg, Misc]
};
/// Elekta magnetometer and gradiometer, a CTF reference, an electrode.
const COIL_TYPES: [i32; 9] = [3024, 3012, 5002, 1, 0, 0, 0, 0, 0];
const FRAMES: [i32; 9] = [1, 1, 1, 4, 0, 0, 0, 0, 0];
/// Tesla, tesla per metre, volt, none.
const UNITS: [i64; 9] = [112, 201, 112, 107, 107, 107, 107, 107, -1];

fn channel(i: usize) -> Channel {
    let kind = i % KINDS.len();
    let name = match i {
        4 => "STI 014".to_owned(),
        11 => "größer".to_owned(),
        12 | 13 => format!("longer than fifteen characters {i}"),
        _ => format!("CH{i:04}"),
    };
    let loc = std::array::from_fn(|k| ((i * 12 + k) as f32).sin());
    Channel { name, kind: KINDS[kind], loc, coil_type: COIL_TYPES[kind], coord_frame: FRAMES[kind], bad: i % 6 == 1 }
}

fn info(n_channel: usize, meas_date: Option<(i64, i64)>, first_timestep: u64) -> Info {
    let dig = |i: i32| DigPoint { kind: 1 + i % 5, ident: i, position: [0.1 * i as f32, -0.02, 0.3], coord_frame: 4 };
    let (sin, cos) = (0.6, 0.8);
    Info {
        channels: (0..n_channel).map(channel).collect(),
        sfreq: 600.614_990_234_375,
        n_timestep: 0,
        first_timestep,
        events: vec![],
        subject: Some("Zoë".into()),
        pass_band: (0.5, 45.0),
        meas_date,
        line_freq: Some(50.0),
        dev_head_t: Some([[cos, -sin, 0.0, 0.01], [sin, cos, 0.0, -0.02], [0.0, 0.0, 1.0, 0.03], [0.0, 0.0, 0.0, 1.0]]),
        dig: (1..12).map(dig).collect(),
        description: Some("From one head".into()),
        source: "test".into(),
    }
}

/// Samples of the size of each kind's unit, all different; triggers are small integers.
fn signal(n_channel: usize, n_timestep: usize) -> Block {
    let mut block = Block::zeros(n_channel, n_timestep);
    for channel in 0..n_channel {
        let scale = [1e-13, 1e-12, 1e-13, 1e-6, 1.0, 1e-5, 1e-5, 1e-5, 1.0][channel % 9];
        for (i, x) in block.channel_mut(channel).iter_mut().enumerate() {
            let phase = ((i * 31 + channel * 17) as f64).sin();
            *x = if channel % 9 == 4 { ((i / 97) % 3) as f64 } else { phase * scale };
        }
    }
    block
}

#[test]
fn mne_reads_what_is_written() {
    let event = |onset, duration, label: &str| Event { onset, duration, label: label.into() };
    let folder = tempfile::tempdir().unwrap();
    let mut written = Vec::new();
    for (n_channel, n_timestep, meas_date, first_timestep) in [
        (1, 1, None, 0),
        (9, 600, Some((1_038_942_071, 201_560)), 0),
        (16, 601, Some((1_038_942_071, 201_560)), 25_800),
        // Five days in: float32 seconds would be off by 18 timesteps.
        (16, 1500, Some((-1000, 999_999)), 260_000_000),
        (306, 602, None, 1_000_003),
    ] {
        let path = folder.path().join(format!("{}_raw.fif", written.len()));
        let mut info = info(n_channel, meas_date, first_timestep);
        let block = signal(n_channel, n_timestep);
        let mut writer = fif::create(&path, &info, false).unwrap();
        writer.write(&block).unwrap();
        info.n_timestep = n_timestep;
        info.events = vec![event(0, 1, "first: Ä")];
        if n_timestep > 1 {
            info.events.extend([event(100, 0, "🧠"), event(101, 300, "visual/left"), event(n_timestep - 1, 0, "last")]);
        }
        writer.finish(&info.events).unwrap();
        written.push((path, info, block));
    }
    let paths: Vec<PathBuf> = written.iter().map(|(path, ..)| path.clone()).collect();
    for ((_, info, mut block), (facts, samples)) in written.into_iter().zip(facts(&paths)) {
        check_info(&info, &facts);
        for (i, channel) in facts["channels"].as_array().unwrap().iter().enumerate() {
            assert_eq!(channel["unit"].as_i64(), Some(UNITS[i % 9]), "channel {i}");
        }
        block.data.iter_mut().for_each(|x| *x = f64::from(*x as f32));
        check_samples(&block, 0, &samples, info.n_timestep);
    }
}

/// All fixtures, and what the caller names.
fn recordings() -> Vec<PathBuf> {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let stems = std::fs::read_dir(fixtures.join("fif")).unwrap().map(|e| e.unwrap().path());
    let mut recordings: Vec<PathBuf> = stems
        .filter(|p| p.extension().is_some_and(|e| e == "json") && !p.ends_with("string_raw.json"))
        .map(|p| if p.ends_with("packed_raw.json") { p.with_extension("fif.gz") } else { p.with_extension("fif") })
        .collect();
    recordings.push(fixtures.join("audvis_mag_raw.fif"));
    let own = std::env::var_os("GPT2MEG_FIF").unwrap_or_default();
    recordings.extend(std::env::split_paths(&own).filter(|p| !p.as_os_str().is_empty()));
    recordings
}

#[test]
fn what_mne_reads_is_read() {
    let recordings = recordings();
    for (path, (facts, samples)) in recordings.iter().zip(facts(&recordings)) {
        let mut recording = fif::open(path).unwrap_or_else(|e| panic!("{e}"));
        check_info(&recording.info, &facts);
        let n_timestep = recording.info.n_timestep;
        recording
            .blocks(|start, block| {
                check_samples(block, start, &samples, n_timestep);
                Ok(())
            })
            .unwrap();
        if !facts["triggers"].is_null() {
            assert_eq!(events_from_stim(&mut recording, None).unwrap(), events(&facts["triggers"]));
        }
        println!("{}: {} channels, {n_timestep} timesteps", path.display(), recording.info.n_channel());
    }
}
