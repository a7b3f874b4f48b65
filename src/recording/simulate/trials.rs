//! Trials and evoked responses: what a condition's onset adds to the signal.

use crate::random::{Purpose, keyed};
use rand::RngExt;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;

/// Length of a trial (and of its evoked response), seconds.
pub const TRIAL_S: f64 = 0.5;
/// Number of dipoles that evoked responses come from; conditions weigh them differently.
pub const N_EVOKED: usize = 6;
/// Peaks of a response: latency and width (s), the early ones sharper.
const PEAKS: [(f64, f64); 3] = [(0.100, 0.016), (0.165, 0.024), (0.250, 0.045)];
/// The peaks alternate in sign, as early components of evoked responses do.
const SIGNS: [f64; PEAKS.len()] = [1.0, -1.0, 1.0];
/// The shortest pause between trials and its jitter (uniform), seconds.
const PAUSE_S: (f64, f64) = (0.4, 0.6);

/// One trial.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Trial {
    /// Timestep of the onset.
    pub onset: usize,
    /// Condition, from 1.
    pub condition: usize,
    /// How strong this trial's response is, 1 on average.
    pub gain: f64,
}

/// Trials over `n_timestep`: blocks in which every condition comes once, in random order, with jittered pauses. The
/// last one ends inside the recording.
pub fn draw(seed: u64, index: u64, n_condition: usize, sfreq: f64, n_timestep: usize) -> Vec<Trial> {
    let mut generator = keyed(seed, Purpose::Simulate, index);
    let mut trials = Vec::new();
    let mut order: Vec<usize> = (1..=n_condition).collect();
    let mut onset_s = PAUSE_S.0;
    if n_condition == 0 {
        return trials;
    }
    loop {
        order.shuffle(&mut generator);
        for &condition in &order {
            onset_s += PAUSE_S.1 * generator.random::<f64>();
            let gain = 1.0 + 0.2 * generator.sample::<f64, _>(StandardNormal);
            let onset = (onset_s * sfreq).round() as usize;
            if onset + response_len(sfreq) > n_timestep {
                return trials;
            }
            trials.push(Trial { onset, condition, gain });
            onset_s += TRIAL_S + PAUSE_S.0;
        }
    }
}

/// Timesteps of a response.
pub fn response_len(sfreq: f64) -> usize {
    (TRIAL_S * sfreq).round().max(1.0) as usize
}

/// What a condition does at the group: the weight and latency of each of its peaks.
#[derive(Debug, Clone)]
pub struct Response {
    /// `[peak][dipole]`
    weights: [[f64; N_EVOKED]; PEAKS.len()],
    /// Latency of each peak, seconds.
    latency_s: [f64; PEAKS.len()],
}

impl Response {
    /// Draws a condition's response.
    pub fn draw(generator: &mut ChaCha8Rng) -> Self {
        let mut normal = || generator.sample::<f64, _>(StandardNormal);
        // A third is common to the conditions (the first dipoles), the rest their own.
        let weights = std::array::from_fn(|peak| {
            std::array::from_fn(|dipole| f64::from(u8::from(dipole == peak)) + 0.6 * normal())
        });
        let latency_s = std::array::from_fn(|peak| PEAKS[peak].0 + 0.008 * normal());
        Self { weights, latency_s }
    }

    /// The response's time course for each dipole, `[dipole][time]`, with this subject's `delay_s` and `gain`; it
    /// begins and ends at 0.
    pub fn time_course(&self, delay_s: f64, gain: f64, sfreq: f64) -> Vec<Vec<f64>> {
        let n = response_len(sfreq);
        let shape = |peak: usize, t: f64| {
            let z = (t - self.latency_s[peak] - delay_s) / PEAKS[peak].1;
            let ends = (t / 0.03).min((TRIAL_S - t) / 0.1).clamp(0.0, 1.0);
            SIGNS[peak] * ends * libm::exp(-0.5 * z * z)
        };
        let at = |dipole: usize, t: f64| (0..PEAKS.len()).map(|p| gain * self.weights[p][dipole] * shape(p, t)).sum();
        (0..N_EVOKED).map(|dipole| (0..n).map(|i| at(dipole, i as f64 / sfreq)).collect()).collect()
    }
}
