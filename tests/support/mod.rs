//! Small data sets for the tests of training.

#![allow(dead_code, reason = "each test binary uses its part")]

use gpt2meg::recording::{Channel, ChannelKind, Info};
use gpt2meg::tokens::scheme::{Scales, Scheme};
use gpt2meg::tokens::shard::{ShardMeta, ShardWriter, Split, Tokenization};
use std::path::Path;

/// Writes the three parts of one recording, `lengths` timesteps long; `value(channel, time)` is the signal in [−1, 1],
/// and the time goes on from part to part.
pub fn write_recording(
    folder: &Path,
    recording: &str,
    n_channel: usize,
    lengths: [usize; 3],
    value: impl Fn(usize, usize) -> f64,
) {
    write_named(folder, recording, n_channel, lengths, ["face", "house"], |time| (time / 25 % 3) as u16, value);
}

/// As [`write_recording`], with these names of conditions, and the condition at each timestep of a part.
pub fn write_named(
    folder: &Path,
    recording: &str,
    n_channel: usize,
    lengths: [usize; 3],
    names: [&str; 2],
    condition: impl Fn(usize) -> u16,
    value: impl Fn(usize, usize) -> f64,
) {
    let channel = |i: usize| Channel {
        name: format!("MEG {i:04}"),
        kind: ChannelKind::Mag,
        loc: [0.0; 12],
        coil_type: 3024,
        coord_frame: 1,
        bad: false,
    };
    let mut first = 0;
    for (split, n_timestep) in [Split::Train, Split::Validation, Split::Test].into_iter().zip(lengths) {
        let info = Info {
            channels: (0..n_channel).map(channel).collect(),
            sfreq: 100.0,
            n_timestep,
            first_timestep: first as u64,
            events: Vec::new(),
            subject: Some(recording.to_string()),
            pass_band: (0.5, 45.0),
            meas_date: None,
            line_freq: None,
            dev_head_t: None,
            dig: Vec::new(),
            description: None,
            source: "test".into(),
        };
        let meta = ShardMeta {
            info,
            split,
            recording: recording.into(),
            scheme: Scheme::PAPER,
            conditions: names.map(String::from).to_vec(),
            excluded: vec![],
            tokenization: Tokenization::default(),
            version: "test".into(),
        };
        let scales =
            Scales { centre: vec![0.0; n_channel], spread: vec![1e-13; n_channel], peak: vec![10.0; n_channel] };
        let path = folder.join(format!("{recording}_{}.safetensors", split.name()));
        let mut writer = ShardWriter::create(&path, true, &meta, &scales).unwrap();
        for channel in 0..n_channel {
            let encode = |time| Scheme::PAPER.encode(value(channel, time));
            writer.tokens(channel, 0, &(first..first + n_timestep).map(encode).collect::<Vec<_>>()).unwrap();
        }
        let conditions: Vec<u16> = (0..n_timestep).map(&condition).collect();
        writer.conditions(0, &conditions).unwrap();
        writer.seal().unwrap();
        writer.publish().unwrap();
        first += n_timestep;
    }
}
