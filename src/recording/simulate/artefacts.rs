//! What goes wrong in real recordings, on request: bad channels, blinks, drifts and jumps.

use super::helmet::{Dipole, HEAD_CENTRE, Sensor, magnetometers};
use super::key::Stream;
use super::subject::{UNIT_T, rms};
use crate::random::{Purpose, keyed};
use nalgebra::Vector3;
use rand::RngExt;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use std::f64::consts::TAU;

/// Series that artefacts add to the sources: one of the eyelids, three of the room's field.
pub const N_ARTEFACT: usize = 4;
/// Length of a blink, seconds; the mean pause between two, and the shortest.
const BLINK_S: f64 = 0.35;
const BLINK_PAUSE_S: (f64, f64) = (4.0, 1.0);
/// Size of a blink and of each drift across the helmet, in [`UNIT_T`].
const BLINK: f64 = 2.5;
const DRIFT: f64 = 1.5;
/// Sinusoids that make a drift, and their shortest and longest period (s).
const N_WAVE: usize = 5;
const DRIFT_PERIOD_S: (f64, f64) = (25.0, 200.0);
/// Mean time between jumps of any sensor, seconds.
const JUMP_PAUSE_S: f64 = 120.0;

/// How a channel is bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bad {
    /// It reads zero throughout.
    Flat,
    /// White noise, twenty times a typical signal, drowns it.
    Noisy,
}

/// A step of one sensor's reading, as a SQUID that loses and finds its lock makes it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Jump {
    /// Timestep from which the reading is offset.
    pub onset: usize,
    /// The channel's row.
    pub channel: usize,
    /// The offset, in typical signals of the channel's kind.
    pub size: f64,
}

/// All artefacts of one recording.
#[derive(Debug, Clone, Default)]
pub struct Artefacts {
    /// For each sensor, how it is bad.
    pub bad: Vec<Option<Bad>>,
    /// Onsets of the blinks, timesteps.
    pub blinks: Vec<usize>,
    /// Jumps, in order of time.
    pub jumps: Vec<Jump>,
    /// Period (s) and phase of each drift's sinusoids; empty without artefacts.
    waves: Vec<[(f64, f64); N_WAVE]>,
    sfreq: f64,
}

impl Artefacts {
    /// Draws `n_bad` bad channels of `n_sensor` (flat and noisy by turns) and, where asked for, everything else.
    pub fn draw(
        seed: u64,
        subject: usize,
        n_sensor: usize,
        n_bad: usize,
        others: bool,
        sfreq: f64,
        n_timestep: usize,
    ) -> Self {
        let mut generator = keyed(seed, Purpose::Simulate, Stream::Artefacts.key(subject, 0));
        let mut bad = vec![None; n_sensor];
        let mut order: Vec<usize> = (0..n_sensor).collect();
        order.shuffle(&mut generator);
        for (i, &channel) in order.iter().take(n_bad).enumerate() {
            bad[channel] = Some(if i % 2 == 0 { Bad::Flat } else { Bad::Noisy });
        }
        let mut artefacts = Self { bad, sfreq, ..Self::default() };
        if others {
            let mut generator = keyed(seed, Purpose::Simulate, Stream::Artefacts.key(subject, 1));
            let (mean, shortest) = BLINK_PAUSE_S;
            artefacts.blinks = onsets(&mut generator, mean, shortest, sfreq, n_timestep);
            artefacts.jumps = onsets(&mut generator, JUMP_PAUSE_S, 0.0, sfreq, n_timestep)
                .into_iter()
                .map(|onset| {
                    let sign = if generator.random::<bool>() { 1.0 } else { -1.0 };
                    let size = sign * (4.0 + 8.0 * generator.random::<f64>());
                    Jump { onset, channel: generator.random_range(0..n_sensor), size }
                })
                .collect();
            artefacts.waves = (1..N_ARTEFACT).map(|_| std::array::from_fn(|_| wave(&mut generator))).collect();
        }
        artefacts
    }

    /// Whether blinks, drifts and jumps were asked for.
    pub fn any(&self) -> bool {
        !self.waves.is_empty()
    }

    /// Adds the blinks and drifts of the timesteps from `first` on to `series[artefact][time]`.
    pub fn run(&self, first: usize, n_timestep: usize, series: &mut [f64]) {
        let (blink, drifts) = series.split_at_mut(n_timestep);
        let length = (BLINK_S * self.sfreq) as usize;
        let from = self.blinks.partition_point(|&onset| onset + length <= first);
        for &onset in self.blinks[from..].iter().take_while(|&&onset| onset < first + n_timestep) {
            for time in onset.max(first)..(onset + length).min(first + n_timestep) {
                let half_wave = libm::sin(0.5 * TAU * (time - onset) as f64 / length as f64);
                blink[time - first] += half_wave * half_wave;
            }
        }
        for (drift, waves) in drifts.chunks_mut(n_timestep).zip(&self.waves) {
            for (i, value) in drift.iter_mut().enumerate() {
                let t = (first + i) as f64 / self.sfreq;
                let sum: f64 = waves.iter().map(|(period, phase)| libm::sin(TAU * t / period + phase)).sum();
                *value += sum / (N_WAVE as f64 / 2.0).sqrt();
            }
        }
    }

    /// The offset of a channel that its jumps before `timestep` have left.
    pub fn offset(&self, channel: usize, timestep: usize) -> f64 {
        let past = self.jumps.iter().take_while(|j| j.onset <= timestep);
        past.filter(|j| j.channel == channel).map(|j| j.size).sum()
    }

    /// How a sensor sees each artefact's series.
    pub fn mixing(sensor: &Sensor) -> [f64; N_ARTEFACT] {
        // Eyelids that slide over the charged eyeballs: one current in front of each eye.
        let eyes = [-0.03, 0.03].map(|x| Dipole {
            position: Vector3::from(HEAD_CENTRE) + Vector3::new(x, 0.07, -0.03),
            moment: Vector3::new(0.0, 0.3, 1.0),
        });
        let blink = |r: &Vector3<f64>| eyes[0].field(r) + eyes[1].field(r);
        // A lift two metres away along each axis: nearly the same field everywhere.
        let far = |axis: usize, r: &Vector3<f64>| {
            let away = r - Vector3::ith(axis, 2.0);
            let direction = away.normalize();
            (direction * (3.0 * direction[axis]) - Vector3::ith(axis, 1.0)) / away.norm().powi(3)
        };
        let helmet = magnetometers();
        let weigh = |size: f64, field: &dyn Fn(&Vector3<f64>) -> Vector3<f64>| {
            size * UNIT_T * sensor.reads(field) / rms(&helmet, |s| s.reads(field))
        };
        std::array::from_fn(|i| if i == 0 { weigh(BLINK, &blink) } else { weigh(DRIFT, &|r| far(i - 1, r)) })
    }
}

/// Onsets with exponential pauses of mean `mean` above a shortest one, seconds; timesteps.
fn onsets(generator: &mut ChaCha8Rng, mean: f64, shortest: f64, sfreq: f64, n_timestep: usize) -> Vec<usize> {
    let mut onsets = Vec::new();
    let mut time = 0.0;
    loop {
        time += shortest - (mean - shortest) * libm::log(1.0 - generator.random::<f64>());
        let onset = (time * sfreq) as usize;
        if onset >= n_timestep {
            return onsets;
        }
        onsets.push(onset);
    }
}

/// Period (s) and phase of one sinusoid.
fn wave(generator: &mut ChaCha8Rng) -> (f64, f64) {
    let (shortest, longest) = DRIFT_PERIOD_S;
    (shortest * libm::pow(longest / shortest, generator.random::<f64>()), TAU * generator.random::<f64>())
}
