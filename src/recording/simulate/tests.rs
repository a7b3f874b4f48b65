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

#[test]
fn a_channel_is_the_same_among_many() {
    let (few, many) = (short(7), short(306));
    let infos = [&few, &many].map(|c| recording(c, 1).unwrap().info);
    let (a, b) = (whole(&few, 1), whole(&many, 1));
    for (i, channel) in infos[0].channels.iter().enumerate() {
        let j = infos[1].channels.iter().position(|c| c == channel).expect("a channel of the whole helmet");
        assert_eq!(a.channel(i), b.channel(j), "{}", channel.name);
    }
}

#[test]
fn states_have_their_own_frequencies() {
    let config = Config { seconds: 900.0, n_channel: 30, n_condition: 0, ..Config::default() };
    let truth = Simulation::new(&config, 0).unwrap().truth();
    let all = whole(&config, 0);
    let n = 125; // half a second
    for state in 0..N_STATE {
        // On the magnetometer that sees this state best, power at its frequency inside and outside its visits.
        let weight = |c: usize| truth.mixing[state * 4 * 30 + c].hypot(truth.mixing[(state * 4 + 1) * 30 + c]);
        let channel = (0..30).step_by(3).max_by(|&a, &b| weight(a).total_cmp(&weight(b))).unwrap();
        let x = all.channel(channel);
        let turn = std::f64::consts::TAU * truth.frequency_hz[state] / config.sfreq;
        let power = |start: usize| {
            let parts = (0..n).map(|i| {
                let window = 1.0 - (std::f64::consts::TAU * i as f64 / n as f64).cos();
                let (sin, cos) = (turn * i as f64).sin_cos();
                (window * x[start + i] * cos, window * x[start + i] * sin)
            });
            let (re, im) = parts.fold((0.0, 0.0), |(a, b), (c, d)| (a + c, b + d));
            re * re + im * im
        };
        let (mut inside, mut outside) = (Vec::new(), Vec::new());
        for pair in truth.visits.windows(2) {
            let (start, end) = (pair[0].start + 40, pair[1].start.min(truth.n_timestep));
            if start + n <= end {
                if usize::from(pair[0].state) == state { &mut inside } else { &mut outside }.push(power(start));
            }
        }
        let mean = |v: &[f64]| v.iter().sum::<f64>() / v.len() as f64;
        let ratio = mean(&inside) / mean(&outside);
        // The slowest states share their band with the 1/f background.
        let least = if truth.frequency_hz[state] < 5.0 { 1.5 } else { 3.0 };
        assert!(ratio > least, "state {state} at {:.1} Hz: ratio {ratio:.2}", truth.frequency_hz[state]);
    }
}

/// Hours of visits of one subject, at 100 Hz.
fn hours_of_states(hours: f64) -> Truth {
    let config = Config { seconds: hours * 3600.0, n_condition: 0, ..short(1) };
    Simulation::new(&config, 0).unwrap().truth()
}

#[test]
fn lifetimes_have_a_power_law_tail() {
    let truth = hours_of_states(10.0);
    let lives: Vec<(usize, f64)> = truth
        .visits
        .windows(2)
        .map(|pair| (usize::from(pair[0].state), (pair[1].start - pair[0].start) as f64 / 100.0))
        .collect();
    // Of the visits longer than a second, the share that lasts longer than 4 s, under the truncated Pareto law.
    let law = |t: f64| t.powf(-TAIL) - states::LONGEST_S.powf(-TAIL);
    let longer = |t: f64| lives.iter().filter(|(_, life)| *life > t).count() as f64;
    for (t, u) in [(0.5, 1.0), (1.0, 2.0), (1.0, 4.0), (2.0, 6.0)] {
        let (n, share) = (longer(t), longer(u) / longer(t));
        let expected = law(u) / law(t);
        let bound = 4.0 * (expected * (1.0 - expected) / n).sqrt() + 0.01;
        assert!((share - expected).abs() < bound, "P(life > {u} | life > {t}) is {share}, not {expected}");
    }
    // The mark of a heavy tail: the longer a state has lasted, the longer it will.
    let residual = |t: f64| {
        let left: Vec<f64> = lives.iter().filter(|(_, life)| *life > t).map(|(_, life)| life - t).collect();
        left.iter().sum::<f64>() / left.len() as f64
    };
    assert!(residual(1.0) > 1.8 * residual(0.3), "{} after 1 s, {} after 0.3 s", residual(1.0), residual(0.3));
    for state in 0..N_STATE {
        let shortest = lives.iter().filter(|(s, _)| *s == state).map(|(_, l)| *l).fold(f64::MAX, f64::min);
        assert!((shortest - truth.shortest_s[state]).abs() < 0.03, "state {state}: {shortest}");
    }
}

#[test]
fn states_are_correlated_where_they_should_be() {
    let truth = hours_of_states(10.0);
    let state = truth.state();
    let mut share = [0.0; N_STATE];
    state.iter().for_each(|&s| share[usize::from(s)] += 1.0 / state.len() as f64);
    let chance: f64 = share.iter().map(|p| p * p).sum();
    // Correlation of the state with itself, 1 at lag 0.
    let same = |lag: usize| {
        let n = state.len() - lag;
        let equal = (0..n).filter(|&t| state[t] == state[t + lag]).count() as f64 / n as f64;
        (equal - chance) / (1.0 - chance)
    };
    let (short, middle, long) = (same(30), same(125), same(250));
    assert!(short > 0.3 && middle > 0.1 && long > 0.05, "{short} {middle} {long}");
    // Far slower than the exponential through the correlation at 0.3 s, which a Markov chain would follow.
    assert!(middle > 2.0 * short.powf(125.0 / 30.0), "{middle} after {short}");
    assert!(long > 20.0 * short.powf(250.0 / 30.0), "{long} after {short}");

    // The control: the swing between even and odd states reverses after half its period and returns after the whole.
    let parity: Vec<f64> = state.iter().map(|s| 1.0 - 2.0 * f64::from(s % 2)).collect();
    let mean = parity.iter().sum::<f64>() / parity.len() as f64;
    let swing = |lag: f64| {
        let lag = (lag * 100.0) as usize;
        let n = parity.len() - lag;
        let covariance: f64 = (0..n).map(|t| (parity[t] - mean) * (parity[t + lag] - mean)).sum();
        covariance / n as f64 / (1.0 - mean * mean)
    };
    let (half, whole) = (swing(SLOW_PERIOD_S / 2.0), swing(SLOW_PERIOD_S));
    assert!(half < -0.08 && whole > 0.08, "{half} {whole}");
}

#[test]
fn the_average_of_trials_converges_to_the_truth() {
    let config = Config { seconds: 2600.0, n_condition: 1, ..short(12) };
    let truth = Simulation::new(&config, 0).unwrap().truth();
    let all = whole(&config, 0);
    let [_, n_channel, n_time] = truth.evoked_shape;
    assert!(truth.trials.len() > 1700, "{} trials", truth.trials.len());
    let (mut gradual, mut size) = (Vec::new(), 0.0);
    // The squared error of averages over n trials, over all disjoint groups of n, in units of each channel's power.
    for n in [16, 64, 256] {
        let mut error = 0.0;
        let groups: Vec<_> = truth.trials.chunks_exact(n).collect();
        for channel in 0..n_channel {
            let x = all.channel(channel);
            let mean = x.iter().sum::<f64>() / x.len() as f64;
            let power = x.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / x.len() as f64;
            let expected = &truth.evoked[channel * n_time..][..n_time];
            if n == 16 {
                let power_evoked = expected.iter().map(|&e| f64::from(e) * f64::from(e)).sum::<f64>();
                size += power_evoked / (power * (n_time * n_channel) as f64);
            }
            for (group, time) in groups.iter().flat_map(|g| (0..n_time).map(move |t| (g, t))) {
                let average = group.iter().map(|t| x[t.onset + time]).sum::<f64>() / n as f64;
                let difference = average - f64::from(expected[time]);
                error += difference * difference / (power * (groups.len() * n_time * n_channel) as f64);
            }
        }
        gradual.push(error);
    }
    // Four times the trials, a quarter of the squared error.
    for pair in gradual.windows(2) {
        let fall = pair[0] / pair[1];
        assert!((3.0..5.3).contains(&fall), "squared errors {gradual:?}");
    }
    assert!(size > 5.0 * gradual[2], "a response of power {size} beside errors {gradual:?}");
}

#[test]
fn subjects_differ_but_are_of_one_group() {
    let config = short(30);
    let [a, b] = [0, 1].map(|index| Simulation::new(&config, index).unwrap().truth());
    assert_ne!(a.frequency_hz, b.frequency_hz);
    assert_ne!(a.visits, b.visits);
    assert_ne!(a.trials, b.trials);
    assert_eq!(a.transition, b.transition);
    let (mut product, mut squares) = (0.0, (0.0, 0.0));
    for (&x, &y) in a.evoked.iter().zip(&b.evoked) {
        product += f64::from(x) * f64::from(y);
        squares = (squares.0 + f64::from(x).powi(2), squares.1 + f64::from(y).powi(2));
    }
    let alike = product / (squares.0 * squares.1).sqrt();
    assert!((0.5..0.99).contains(&alike), "evoked responses correlate by {alike}");
    assert_ne!(whole(&config, 0), whole(&Config { seed: 1, ..config.clone() }, 0));
}

#[test]
fn another_sampling_rate_meets_the_same_states_and_trials() {
    let [a, b] = [100.0, 200.0].map(|sfreq| Simulation::new(&Config { sfreq, ..short(1) }, 0).unwrap().truth());
    assert_eq!(a.frequency_hz, b.frequency_hz);
    assert!(a.visits.iter().zip(&b.visits).all(|(v, w)| v.state == w.state && v.start.abs_diff(w.start / 2) <= 1));
    assert!(a.trials.iter().zip(&b.trials).all(|(t, u)| t.condition == u.condition && t.gain == u.gain));
}

#[test]
fn bad_channels_and_triggers_are_what_they_say() {
    let config = Config { n_bad: 3, stim: true, ..short(9) };
    let info = recording(&config, 0).unwrap().info;
    let all = whole(&config, 0);
    let good = whole(&Config { n_bad: 0, ..config.clone() }, 0);
    assert_eq!(info.channels.iter().filter(|c| c.bad).count(), 3);
    let mut n_flat = 0;
    for (i, channel) in info.channels.iter().enumerate() {
        assert_eq!(all.channel(i) == good.channel(i), !channel.bad, "{}", channel.name);
        n_flat += usize::from(all.channel(i).iter().all(|&x| x == 0.0));
    }
    assert_eq!(n_flat, 2);
    // Every rise of the trigger line is an event with that label, and there are no others.
    let stim = all.channel(9);
    let rises: Vec<(usize, String)> = (1..stim.len())
        .filter(|&t| stim[t] > 0.0 && stim[t - 1] == 0.0)
        .map(|t| (t, (stim[t] as usize).to_string()))
        .collect();
    let events: Vec<(usize, String)> = info.events.iter().map(|e| (e.onset, e.label.clone())).collect();
    assert_eq!(rises, events);
}

#[test]
fn artefacts_are_where_the_truth_says() {
    let config = Config { artefacts: true, seconds: 200.0, ..short(306) };
    let truth = Simulation::new(&config, 0).unwrap().truth();
    let (with, without) = (whole(&config, 0), whole(&Config { artefacts: false, ..config.clone() }, 0));
    let info = recording(&config, 0).unwrap().info;
    // The magnetometer that the first blink moves most lies in front.
    let added = |c: usize, t: usize| with.channel(c)[t] - without.channel(c)[t];
    let rise = |c: usize, onset: usize| (added(c, onset + 17) - added(c, onset)).abs();
    let magnetometers = (0..306).step_by(3);
    let front = magnetometers.max_by(|&a, &b| rise(a, truth.blinks[0]).total_cmp(&rise(b, truth.blinks[0]))).unwrap();
    assert!(info.channels[front].loc[1] > 0.05, "{} sees the eyes best", info.channels[front].name);
    assert!(truth.blinks.len() > 20, "{} blinks", truth.blinks.len());
    for &onset in truth.blinks.iter().filter(|&&b| b + 40 < config.n_timestep()) {
        let peak = rise(front, onset);
        assert!(peak > 1e-12, "{peak:e} T at a blink");
    }
}

#[test]
fn one_timestep_one_channel_and_nonsense() {
    let one = Config { seconds: 0.01, ..short(1) };
    assert_eq!(whole(&one, 0).data.len(), 1);
    let refused = |config: Config| recording(&config, 0).err().map(|e| e.kind());
    assert_eq!(refused(Config { sfreq: f64::NAN, ..short(1) }), Some(Kind::SamplingRate));
    assert_eq!(refused(Config { seconds: 0.0, ..short(1) }), Some(Kind::EmptyRecording));
    assert_eq!(refused(Config { seconds: f64::INFINITY, ..short(1) }), Some(Kind::EmptyRecording));
    assert_eq!(refused(short(0)), Some(Kind::Usage));
    assert_eq!(refused(Config { n_bad: 2, ..short(1) }), Some(Kind::Usage));
    assert_eq!(refused(Config { n_condition: 70_000, ..short(1) }), Some(Kind::Usage));
    assert!(recording(&short(1), 5000).is_err());
}

#[test]
fn the_truth_is_a_file_of_its_own() {
    let config = Config { stim: true, ..short(4) };
    let truth = Simulation::new(&config, 0).unwrap().truth();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x_truth.safetensors");
    truth.save(&path, false).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    // Read by the format's own crate, as numpy would.
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(tensors.tensor("state").unwrap().data(), truth.state());
    assert_eq!(tensors.tensor("evoked").unwrap().shape(), [4, 5, 50]);
    assert_eq!(tensors.tensor("mixing").unwrap().shape(), [N_STATE, 4, 5]);
    assert_eq!(tensors.tensor("trial_onset").unwrap().shape(), [truth.trials.len()]);
    assert_eq!(truth.save(&path, false).unwrap_err().kind(), Kind::Exists);
}
