//! What the simulator promises, measured on what it makes.

use super::*;
use crate::recording::Block;

fn short(n_channel: usize) -> Config {
    Config { seconds: 40.0, sfreq: 100.0, n_channel, ..Config::default() }
}

fn whole(config: &Config, index: usize) -> Block {
    let mut recording = recording(config, index).unwrap();
    recording.read(0, config.n_timestep()).unwrap()
}

#[test]
fn the_same_whatever_the_stretch_asked_for() {
    let config = Config { artefacts: true, stim: true, n_bad: 2, seconds: 400.0, ..short(7) };
    let all = whole(&config, 0);
    let mut other = recording(&config, 0).unwrap();
    // Backwards past the kept states, forwards over several chunks, across and inside chunks.
    for (start, n) in [(39_000, 1000), (0, 1), (1023, 2), (20_000, 2500), (19_999, 1), (16_384, 1024), (5, 0)] {
        let part = other.read(start, n).unwrap();
        for channel in 0..all.n_channel {
            assert_eq!(part.channel(channel), &all.channel(channel)[start..start + n], "channel {channel} at {start}");
        }
    }
}

#[test]
fn threads_change_nothing() {
    let config = short(20);
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| whole(&config, 0))
    };
    let one = run(1);
    assert_eq!(one, run(2));
    assert_eq!(one, run(5));
}

#[test]
fn magnitudes_are_those_of_meg() {
    let config = short(306);
    let all = whole(&config, 0);
    let info = recording(&config, 0).unwrap().info;
    for (kind, low, high) in [(ChannelKind::Mag, 1.5e-13, 6e-13), (ChannelKind::Grad, 3e-12, 12e-12)] {
        let mut deviation: Vec<f64> = (0..306)
            .filter(|&c| info.channels[c].kind == kind)
            .map(|c| {
                let x = all.channel(c);
                let mean = x.iter().sum::<f64>() / x.len() as f64;
                (x.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / x.len() as f64).sqrt()
            })
            .collect();
        deviation.sort_by(f64::total_cmp);
        let median = deviation[deviation.len() / 2];
        assert!((low..high).contains(&median), "{kind:?}: median {median:e}");
        assert!(deviation[0] > median / 8.0, "{kind:?}: a silent channel, {:e} of {median:e}", deviation[0]);
    }
}
