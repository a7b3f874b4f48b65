//! The sources in the head, one timestep after another: oscillators that the hidden state switches, and 1/f noise.
//!
//! An oscillator is the noisy normal form of a Hopf bifurcation, `z` complex. While its state is visited, `z` is drawn
//! to a circle of the visit's amplitude; otherwise it decays. It turns with `2πf (1 + BEND (1 − |z|²))`: a stronger
//! oscillation is slower, and one that swells or fades glides in frequency. Its second harmonic `z²` bends the
//! waveform into arches or saws. Each background source is a sum of Ornstein–Uhlenbeck processes whose corners are a
//! factor of 4 apart, which makes 1/f; what drives them is louder in some states than in others.

use super::key::Stream;
use super::states::{N_STATE, Visit};
use crate::random::{Purpose, keyed};
use rand::RngExt;
use rand_distr::StandardNormal;
use std::f64::consts::TAU;

/// Number of 1/f sources.
pub const N_BACKGROUND: usize = 16;
/// Series that one oscillator hands to the sensors: `Re z`, `Im z`, `Re z²`, `Im z²`.
pub const PER_STATE: usize = 4;
/// Corner frequencies of a background source's processes, Hz.
const CORNERS_HZ: [f64; 5] = [0.3, 1.2, 4.8, 19.2, 76.8];
/// How fast an oscillation reaches its amplitude, and how fast it decays, 1/s.
const ATTRACTION: f64 = 18.0;
const DECAY: f64 = 25.0;
/// Noise that drives an oscillator while visited and while not: variance a second of each of `Re z`, `Im z`.
const NOISE: [f64; 2] = [2.0, 0.1];
/// Relative slowing of an oscillation as `|z|²` rises by 1.
pub const BEND: f64 = 0.12;
/// How fast the background follows a change of state, 1/s.
const FOLLOW: f64 = 20.0;

/// What the sources depend on: one subject's numbers for each state.
#[derive(Debug, Clone)]
pub struct Rhythms {
    /// Seed, and number of the subject: the key of every draw.
    pub key: (u64, usize),
    /// Sampling rate, Hz.
    pub sfreq: f64,
    /// Frequency of an oscillation of amplitude 1, Hz.
    pub frequency_hz: [f64; N_STATE],
    /// How loud the background is driven, 1 on average.
    pub loudness: [f64; N_STATE],
    /// The visits, covering the recording.
    pub visits: Vec<Visit>,
}

/// Everything the next timestep depends on.
#[derive(Debug, Clone)]
pub struct Sources {
    z: [[f64; 2]; N_STATE],
    background: [[f64; CORNERS_HZ.len()]; N_BACKGROUND],
    loudness: f64,
}

impl Sources {
    /// At rest; the background starts from its own distribution.
    pub fn start(seed: u64, subject: usize) -> Self {
        let mut generator = keyed(seed, Purpose::Simulate, Stream::Start.key(subject, 0));
        let scale = (1.0 / CORNERS_HZ.len() as f64).sqrt();
        let background =
            std::array::from_fn(|_| std::array::from_fn(|_| scale * generator.sample::<f64, _>(StandardNormal)));
        Self { z: [[0.0; 2]; N_STATE], background, loudness: 1.0 }
    }

    /// Runs over one chunk of `n_timestep` and leaves the series in `series[source][time]`: `PER_STATE` for each state,
    /// then the background.
    pub fn run(&mut self, rhythms: &Rhythms, chunk: usize, n_timestep: usize, series: &mut [f64]) {
        let (seed, subject) = rhythms.key;
        let mut generator = keyed(seed, Purpose::Simulate, Stream::Sources.key(subject, chunk as u64));
        let mut normal = || generator.sample::<f64, _>(StandardNormal);
        let dt = 1.0 / rhythms.sfreq;
        let step = Step::new(dt);
        let first = chunk * n_timestep;
        let mut at = rhythms.visits.partition_point(|v| v.start <= first).saturating_sub(1);
        for time in 0..n_timestep {
            while rhythms.visits.get(at + 1).is_some_and(|v| v.start <= first + time) {
                at += 1;
            }
            let visit = &rhythms.visits[at];
            for (state, z) in self.z.iter_mut().enumerate() {
                let visited = usize::from(visit.state) == state;
                let power = (z[0] * z[0] + z[1] * z[1]).min(4.0);
                let pull = if visited { step.attract(power, visit.amplitude) } else { step.decay };
                let angle = TAU * dt * rhythms.frequency_hz[state] * (1.0 + BEND * (1.0 - power));
                let (sin, cos) = libm::sincos(angle);
                let noise = step.noise[usize::from(!visited)];
                *z = [
                    pull * (cos * z[0] - sin * z[1]) + noise * normal(),
                    pull * (sin * z[0] + cos * z[1]) + noise * normal(),
                ];
                let row = [z[0], z[1], z[0] * z[0] - z[1] * z[1], 2.0 * z[0] * z[1]];
                for (part, value) in row.into_iter().enumerate() {
                    series[(PER_STATE * state + part) * n_timestep + time] = value;
                }
            }
            self.loudness += step.follow * (rhythms.loudness[usize::from(visit.state)] - self.loudness);
            for (source, parts) in self.background.iter_mut().enumerate() {
                let mut sum = 0.0;
                for (part, (keep, drive)) in parts.iter_mut().zip(step.background) {
                    *part = keep * *part + drive * self.loudness * normal();
                    sum += *part;
                }
                series[(PER_STATE * N_STATE + source) * n_timestep + time] = sum;
            }
        }
    }
}

/// Factors that depend on the length of a timestep alone.
struct Step {
    /// `exp(−2 ATTRACTION dt)`
    relax: f64,
    decay: f64,
    noise: [f64; 2],
    follow: f64,
    /// Of each process: what it keeps, and the standard deviation of what drives it; together of variance 1.
    background: [(f64, f64); CORNERS_HZ.len()],
}

impl Step {
    fn new(dt: f64) -> Self {
        let background = CORNERS_HZ.map(|corner| {
            let keep = libm::exp(-TAU * corner * dt);
            (keep, ((1.0 - keep * keep) / CORNERS_HZ.len() as f64).sqrt())
        });
        Self {
            relax: libm::exp(-2.0 * ATTRACTION * dt),
            decay: libm::exp(-DECAY * dt),
            noise: NOISE.map(|variance| (variance * dt).sqrt()),
            follow: 1.0 - libm::exp(-FOLLOW * dt),
            background,
        }
    }

    /// The factor by which `|z|` moves in one timestep under `r' = ATTRACTION r (1 − r²/amplitude²)`, solved exactly.
    fn attract(&self, power: f64, amplitude: f64) -> f64 {
        let filled = power / (amplitude * amplitude);
        1.0 / (filled + (1.0 - filled) * self.relax).sqrt()
    }
}
