//! Recordings for the tests of this folder.

use super::{Block, Channel, ChannelKind, InMemory, Info, Recording};

/// A recording of these rows, all magnetometers.
pub fn in_memory(rows: &[&[f64]], sfreq: f64) -> Recording {
    let channel = |number: usize| Channel {
        name: format!("MEG {number:03}"),
        kind: ChannelKind::Mag,
        loc: [0.0; 12],
        coil_type: 3024,
        coord_frame: 1,
        bad: false,
    };
    let n_timestep = rows[0].len();
    let info = Info {
        channels: (0..rows.len()).map(channel).collect(),
        sfreq,
        n_timestep,
        first_timestep: 0,
        events: Vec::new(),
        subject: None,
        pass_band: (0.0, sfreq / 2.0),
        meas_date: None,
        line_freq: None,
        dev_head_t: None,
        dig: Vec::new(),
        description: None,
        source: "test".into(),
    };
    let block = Block { n_channel: rows.len(), n_timestep, data: rows.concat() };
    Recording::new(info, Box::new(InMemory(block))).unwrap()
}

/// Reproducible numbers in [-0.5, 0.5).
pub fn noise(n: usize, seed: u64) -> Vec<f64> {
    let draw = |t| crate::random::uniform_at(seed, crate::random::Purpose::Simulate, u64::MAX, t as u64);
    (0..n).map(|t| f64::from(draw(t)) - 0.5).collect()
}
