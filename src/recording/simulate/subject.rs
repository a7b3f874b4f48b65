//! What makes a subject: where its sources lie, how the sensors see them, how fast its rhythms are.

use super::helmet::{self, Dipole, HEAD_CENTRE, Sensor};
use super::key::{GROUP, Stream};
use super::sources::{N_BACKGROUND, PER_STATE};
use super::states::{Law, N_STATE};
use super::trials::{N_EVOKED, Response};
use crate::random::{Purpose, keyed};
use nalgebra::{Rotation3, Vector3};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;
use std::f64::consts::TAU;

/// Rows of the source series that are always there: oscillators, background, evoked responses.
pub const N_SOURCE: usize = PER_STATE * N_STATE + N_BACKGROUND + N_EVOKED;
/// The typical signal of a magnetometer, tesla: what amplitude 1 means.
pub const UNIT_T: f64 = 3e-13;
/// Dipoles that share one oscillator, each with its own phase.
const N_DIPOLE: usize = 6;
/// Group frequencies of the states (Hz), before they are squeezed below the sampling limit.
const FREQUENCIES_HZ: [f64; N_STATE] = [2.2, 4.2, 6.3, 8.5, 10.6, 13.0, 16.0, 19.5, 23.5, 28.0, 33.5, 40.0];
/// Amplitudes, in [`UNIT_T`] across the helmet: an oscillation at 10 Hz, the background, a response's peaks.
const OSCILLATION: f64 = 0.85;
const BACKGROUND: f64 = 0.45;
const EVOKED: f64 = 0.3;

/// One oscillator as the sensors see it.
#[derive(Debug, Clone)]
struct Patch {
    /// Each dipole, scaled, with the phase at which it follows the oscillator.
    dipoles: Vec<(Dipole, f64)>,
    /// Size of the second harmonic relative to the first, and its phase: 0 and π make arches, ±π/2 saws.
    harmonic: f64,
    harmonic_phase: f64,
}

/// A subject's fixed numbers. Patterns and rates are the group's, changed a little.
#[derive(Debug, Clone)]
pub struct Subject {
    /// What rules its hidden states.
    pub law: Law,
    /// Frequency of each state at amplitude 1, Hz.
    pub frequency_hz: [f64; N_STATE],
    /// How loud the background is in each state.
    pub loudness: [f64; N_STATE],
    /// How its head sits in the helmet (axis times angle).
    pub turn: Vector3<f64>,
    /// Delay (s) and gain of its evoked responses.
    pub evoked: (f64, f64),
    patches: Vec<Patch>,
    background: Vec<Dipole>,
    responding: Vec<Dipole>,
}

impl Subject {
    /// Subject `index` of the group that `seed` makes, recorded at `sfreq`.
    pub fn draw(seed: u64, index: usize, sfreq: f64) -> Self {
        let mut group = keyed(seed, Purpose::Simulate, Stream::Anatomy.key(GROUP, 0));
        let mut own = keyed(seed, Purpose::Simulate, Stream::Anatomy.key(index, 0));
        let mut law = Law::draw(&mut group);
        law.slow_phase += TAU * own.random::<f64>();
        let turn = Vector3::from_fn(|_, _| 0.04 * normal(&mut own));
        let head = Rotation3::new(turn).inverse();

        // Above 0.4 of the sampling rate nothing oscillates; a harmonic above it is left out.
        let squeeze = (0.4 * sfreq / FREQUENCIES_HZ[N_STATE - 1]).min(1.0);
        let frequency_hz = FREQUENCIES_HZ.map(|f| f * squeeze * libm::exp(0.04 * normal(&mut own)));
        let loudness = loudness(&mut group);
        let magnetometers = helmet::magnetometers();
        let patches =
            frequency_hz.iter().map(|&f| Patch::draw(f, sfreq, &magnetometers, &head, &mut group, &mut own)).collect();
        let mut dipoles = |n: usize, amplitude: f64| -> Vec<Dipole> {
            let mut one = || {
                let dipole = varied(&cortical(&mut group), &head, &mut own);
                let gain = amplitude * UNIT_T * libm::exp(0.15 * normal(&mut own));
                scaled(&dipole, gain / rms(&magnetometers, |s| s.reads(|r| dipole.field(r))))
            };
            (0..n).map(|_| one()).collect()
        };
        let background = dipoles(N_BACKGROUND, BACKGROUND / (N_BACKGROUND as f64).sqrt());
        let responding = dipoles(N_EVOKED, EVOKED);
        let evoked = (0.006 * normal(&mut own), libm::exp(0.15 * normal(&mut own)));
        Self { law, frequency_hz, loudness, turn, evoked, patches, background, responding }
    }

    /// How a sensor sees each of the [`N_SOURCE`] series: T or T/m for amplitude 1.
    pub fn mixing(&self, sensor: &Sensor) -> Vec<f64> {
        let plain = |dipole: &Dipole| sensor.reads(|r| dipole.field(r));
        let states = self.patches.iter().flat_map(|patch| patch.mixing(sensor));
        states.chain(self.background.iter().map(plain)).chain(self.responding.iter().map(plain)).collect()
    }

    /// Size and phase of each state's second harmonic.
    pub fn harmonics(&self) -> [(f64, f64); N_STATE] {
        std::array::from_fn(|k| (self.patches[k].harmonic, self.patches[k].harmonic_phase))
    }
}

/// The responses of the conditions, common to the group.
pub fn responses(seed: u64, n_condition: usize) -> Vec<Response> {
    let mut generator = keyed(seed, Purpose::Simulate, Stream::Responses.key(GROUP, 0));
    (0..n_condition).map(|_| Response::draw(&mut generator)).collect()
}

impl Patch {
    fn draw(
        frequency_hz: f64,
        sfreq: f64,
        magnetometers: &[Sensor],
        head: &Rotation3<f64>,
        group: &mut ChaCha8Rng,
        own: &mut ChaCha8Rng,
    ) -> Self {
        let dipoles = (0..N_DIPOLE)
            .map(|_| {
                let dipole = varied(&cortical(group), head, own);
                (dipole, TAU * group.random::<f64>() + 0.2 * normal(own))
            })
            .collect();
        let harmonic = 0.25 + 0.2 * group.random::<f64>();
        let harmonic = if 2.0 * frequency_hz < 0.4 * sfreq { harmonic } else { 0.0 };
        let mut patch = Self { dipoles, harmonic, harmonic_phase: TAU * group.random::<f64>() };
        // Slow rhythms are stronger than fast ones.
        let amplitude = OSCILLATION * UNIT_T * libm::pow(10.0 / frequency_hz, 0.25) * libm::exp(0.15 * normal(own));
        let gain = amplitude
            / rms(magnetometers, |s| {
                let [re, im, ..] = patch.mixing(s);
                ((re * re + im * im) / 2.0).sqrt()
            });
        patch.dipoles.iter_mut().for_each(|(dipole, _)| *dipole = scaled(dipole, gain));
        patch
    }

    /// A sensor's weights of `Re z`, `Im z`, `Re z²`, `Im z²`: every dipole follows the same waveform at its own phase.
    fn mixing(&self, sensor: &Sensor) -> [f64; PER_STATE] {
        let mut weights = [0.0; PER_STATE];
        for (dipole, phase) in &self.dipoles {
            let reads = sensor.reads(|r| dipole.field(r));
            let (sin, cos) = libm::sincos(*phase);
            let (sin2, cos2) = libm::sincos(2.0 * phase + self.harmonic_phase);
            let parts = [cos, -sin, self.harmonic * cos2, -self.harmonic * sin2];
            weights.iter_mut().zip(parts).for_each(|(w, part)| *w += reads * part);
        }
        weights
    }
}

/// Loudness of the background in each state: evenly spread on a logarithmic scale, in random order.
fn loudness(group: &mut ChaCha8Rng) -> [f64; N_STATE] {
    use rand::seq::SliceRandom;
    let mut loudness: [f64; N_STATE] = std::array::from_fn(|k| libm::exp((k as f64 / 11.0 - 0.5) * 1.6));
    loudness.shuffle(group);
    loudness
}

/// A dipole somewhere in the upper part of the head, tangential (a radial one is silent), in head orientation.
fn cortical(generator: &mut ChaCha8Rng) -> Dipole {
    let height = -0.35 + 1.35 * generator.random::<f64>();
    let (sin, cos) = libm::sincos(TAU * generator.random::<f64>());
    let across = (1.0 - height * height).sqrt();
    let direction = Vector3::new(across * cos, across * sin, height);
    let random = Vector3::from_fn(|_, _| normal(generator));
    let depth = 0.055 + 0.017 * generator.random::<f64>();
    Dipole { position: direction * depth, moment: (random - direction * random.dot(&direction)).normalize() }
}

/// The group's dipole in a subject: a few millimetres away, turned a little, and in a head that sits its own way.
fn varied(dipole: &Dipole, head: &Rotation3<f64>, own: &mut ChaCha8Rng) -> Dipole {
    let position = dipole.position + Vector3::from_fn(|_, _| 0.003 * normal(own));
    let moment = dipole.moment + Vector3::from_fn(|_, _| 0.15 * normal(own));
    Dipole { position: head * position + Vector3::from(HEAD_CENTRE), moment: head * moment }
}

fn scaled(dipole: &Dipole, factor: f64) -> Dipole {
    Dipole { position: dipole.position, moment: dipole.moment * factor }
}

/// Root mean square over sensors.
pub fn rms(sensors: &[Sensor], value: impl Fn(&Sensor) -> f64) -> f64 {
    (sensors.iter().map(|s| value(s) * value(s)).sum::<f64>() / sensors.len() as f64).sqrt()
}

/// A draw from the standard normal distribution.
pub fn normal(generator: &mut ChaCha8Rng) -> f64 {
    generator.sample(StandardNormal)
}
