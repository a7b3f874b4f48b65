//! Command lines, and small recordings to run them on.

#![allow(dead_code, reason = "each test binary uses its part")]

use gpt2meg::recording::{Block, Channel, ChannelKind, Event, Info, fif};
use std::path::Path;
use std::process::{Command, Output};

/// Runs a command line (words separated by spaces) in a folder.
pub fn run(folder: &Path, line: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gpt2meg"));
    command.args(line.split(' ')).current_dir(folder).env("TMPDIR", "/nowhere").output().unwrap()
}

/// Runs a command line that must succeed; returns what it said.
pub fn succeed(folder: &Path, line: &str) -> String {
    let output = run(folder, line);
    let said = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap()).concat();
    assert!(output.status.success(), "{line}: {said}");
    said
}

/// Runs a command line that must succeed; returns what it printed, without the notes.
pub fn printed(folder: &Path, line: &str) -> String {
    let output = run(folder, line);
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Runs a command line that must fail with this exit code and a line that has `named` in it.
pub fn fail(folder: &Path, line: &str, code: i32, named: &str) {
    let output = run(folder, line);
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{line}: {error}");
    assert!(error.lines().any(|line| line.starts_with("gpt2meg: ") && line.contains(named)), "{line}: {error}");
}

/// Numbers in [-0.5, 0.5) without order.
pub fn noise(i: usize) -> f64 {
    let mut x = (i as u64).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 31)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (x >> 40) as f64 / f64::from(1 << 24) - 0.5
}

/// A FIF recording of two magnetometers.
pub fn write_fif(path: &Path, sfreq: f64, n_timestep: usize, events: &[Event], value: impl Fn(usize, usize) -> f64) {
    write_channels(path, &[("MEG 000", false), ("MEG 001", false)], sfreq, n_timestep, events, value);
}

/// A FIF recording of magnetometers (electrodes where the name begins with EEG) with these names; true marks them bad.
pub fn write_channels(
    path: &Path,
    channels: &[(&str, bool)],
    sfreq: f64,
    n_timestep: usize,
    events: &[Event],
    value: impl Fn(usize, usize) -> f64,
) {
    let channel = |&(name, bad): &(&str, bool)| Channel {
        name: name.into(),
        kind: if name.starts_with("EEG") { ChannelKind::Eeg } else { ChannelKind::Mag },
        loc: [0.0; 12],
        coil_type: if name.starts_with("EEG") { 1 } else { 3024 },
        coord_frame: 1,
        bad,
    };
    let info = Info {
        channels: channels.iter().map(channel).collect(),
        sfreq,
        n_timestep,
        first_timestep: 0,
        events: vec![],
        subject: None,
        pass_band: (0.0, sfreq / 2.0),
        meas_date: None,
        line_freq: None,
        dev_head_t: None,
        dig: vec![],
        description: None,
        source: String::new(),
    };
    let mut block = Block::zeros(channels.len(), n_timestep);
    for channel in 0..channels.len() {
        block.channel_mut(channel).iter_mut().enumerate().for_each(|(time, x)| *x = value(channel, time));
    }
    let mut writer = fif::create(path, &info, false).unwrap();
    writer.write(&block).unwrap();
    writer.finish(events).unwrap();
}

pub fn event(onset: usize, duration: usize, label: &str) -> Event {
    Event { onset, duration, label: label.into() }
}

pub fn entries(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}
