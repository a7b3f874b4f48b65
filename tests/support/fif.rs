//! Comparing a recording with what MNE-Python reads, as `tests/python/fif_facts.py` writes it down.

use gpt2meg::recording::{Block, DigPoint, Event, Info};
use serde_json::Value;
use std::path::Path;

/// The samples that MNE reads, channels × time.
pub fn expected_samples(path: &Path) -> Vec<f64> {
    let file = std::io::BufReader::new(std::fs::File::open(path).unwrap());
    npyz::NpyFile::new(file).unwrap().into_vec().unwrap()
}

/// Numbers of a list.
pub fn f64s(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

/// Events of a list of (onset, duration, label).
pub fn events(value: &Value) -> Vec<Event> {
    let event = |e: &Value| Event {
        onset: e[0].as_u64().unwrap() as usize,
        duration: e[1].as_u64().unwrap() as usize,
        label: e[2].as_str().unwrap().to_owned(),
    };
    value.as_array().unwrap().iter().map(event).collect()
}

/// Everything but the samples. Both sides hold the same float32 numbers of the file, so that nothing may differ.
pub fn check_info(info: &Info, expected: &Value) {
    assert_eq!(Some(info.sfreq), expected["sfreq"].as_f64());
    assert_eq!(Some(info.n_timestep as u64), expected["n_timestep"].as_u64());
    assert_eq!(Some(info.first_timestep), expected["first_timestep"].as_u64());
    assert_eq!(vec![info.pass_band.0, info.pass_band.1], f64s(&expected["pass_band"]));
    assert_eq!(info.line_freq, expected["line_freq"].as_f64());
    assert_eq!(info.subject.as_deref(), expected["subject"].as_str());
    let date = info.meas_date.map(|(seconds, microseconds)| vec![seconds as f64, microseconds as f64]);
    assert_eq!(date, expected["meas_date"].as_array().map(|_| f64s(&expected["meas_date"])));

    let transform = info.dev_head_t.map(|t| t.map(|row| row.map(f64::from).to_vec()).to_vec());
    let rows = |rows: &Vec<Value>| rows.iter().map(f64s).collect::<Vec<_>>();
    match (transform, expected["dev_head_t"].as_array().map(rows)) {
        (None, None) => {}
        (Some(ours), Some(theirs)) => {
            for (x, y) in ours.concat().iter().zip(theirs.concat()) {
                // Where MNE inverts a stored transform, we take the stored inverse: one rounding to float32 apart.
                assert!((x - y).abs() <= f64::from(f32::EPSILON), "{x} {y}");
            }
        }
        (ours, theirs) => panic!("{ours:?} {theirs:?}"),
    }
    let point = |p: &DigPoint| {
        let [x, y, z] = p.position.map(f64::from);
        vec![f64::from(p.kind), f64::from(p.ident), x, y, z, f64::from(p.coord_frame)]
    };
    let points: Vec<_> = expected["dig"].as_array().unwrap().iter().map(f64s).collect();
    assert_eq!(info.dig.iter().map(point).collect::<Vec<_>>(), points);

    assert_eq!(info.n_channel(), expected["channels"].as_array().unwrap().len());
    for (channel, expected) in info.channels.iter().zip(expected["channels"].as_array().unwrap()) {
        assert_eq!(channel.name, expected["name"].as_str().unwrap());
        assert_eq!(serde_json::to_value(channel.kind).unwrap(), expected["kind"], "{}", channel.name);
        assert_eq!(channel.loc.map(f64::from).to_vec(), f64s(&expected["loc"]), "{}", channel.name);
        assert_eq!(i64::from(channel.coil_type), expected["coil_type"].as_i64().unwrap(), "{}", channel.name);
        assert_eq!(i64::from(channel.coord_frame), expected["coord_frame"].as_i64().unwrap(), "{}", channel.name);
        assert_eq!(channel.bad, expected["bad"].as_bool().unwrap(), "{}", channel.name);
    }
    let mut ours = info.events.clone();
    ours.sort();
    assert_eq!(ours, events(&expected["events"]));
}

/// The stretch of a block from one channel-major array of `n_timestep` columns.
pub fn check_samples(block: &Block, start: usize, expected: &[f64], n_timestep: usize) {
    for channel in 0..block.n_channel {
        let expected = &expected[channel * n_timestep + start..][..block.n_timestep];
        for (i, (ours, theirs)) in block.channel(channel).iter().zip(expected).enumerate() {
            // One product of two float32 numbers, in float64 on both sides.
            let close = (ours - theirs).abs() <= f64::EPSILON * theirs.abs();
            assert!(close, "channel {channel}, timestep {}: {ours} {theirs}", start + i);
        }
    }
}
