//! The hidden states: a semi-Markov chain with heavy-tailed lifetimes, a memory of two visits and a slow rhythm.
//!
//! - A lifetime is Pareto with exponent [`TAIL`], from about 0.2 s, cut at [`LONGEST_S`]: `P(life > t)` falls as
//!   `t^-1.6`, so the correlation of the state with its past falls as a power law, not exponentially.
//! - With probability [`RETURN`] the chain returns to the state before the last: what comes next depends on what was
//!   there one lifetime (0.3–2.5 s) ago.
//! - The odds between even and odd states swing with a period of [`SLOW_PERIOD_S`] s. A window of 2.56 s shows on which
//!   side the swing is, not where it is going: no model with that context can keep the rhythm, and one that seems to
//!   has been measured wrongly.

use crate::random::{Purpose, keyed};
use rand::{Rng, RngExt};
use rand_chacha::ChaCha8Rng;
use std::f64::consts::TAU;

/// Number of hidden states.
pub const N_STATE: usize = 12;
/// Exponent of the lifetimes' Pareto distribution; below 2, so without the cut the variance would be infinite.
pub const TAIL: f64 = 1.6;
/// The longest lifetime, seconds.
pub const LONGEST_S: f64 = 8.0;
/// Probability that a visit leads back to the state before it.
pub const RETURN: f64 = 0.3;
/// Period of the slow swing between even and odd states, seconds.
pub const SLOW_PERIOD_S: f64 = 11.0;
/// Amplitude of the swing in log-odds of one state.
const SLOW_STRENGTH: f64 = 1.5;

/// What rules the chain. The same for all subjects but for the phase of the swing.
#[derive(Debug, Clone)]
pub struct Law {
    /// Weights of the next state, `[from][to]`; rows sum to 1, the diagonal is 0.
    pub transition: [[f64; N_STATE]; N_STATE],
    /// The shortest lifetime of each state, seconds.
    pub shortest_s: [f64; N_STATE],
    /// Phase of the slow swing at the start, radians.
    pub slow_phase: f64,
}

/// A stay in one state.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Visit {
    /// The timestep at which it begins.
    pub start: usize,
    /// Which state.
    pub state: u8,
    /// How strong this visit's oscillation is, 1 on average; stronger is slower (see `super::sources`).
    pub amplitude: f64,
}

impl Law {
    /// Draws the law of a group of subjects.
    pub fn draw(generator: &mut ChaCha8Rng) -> Self {
        let mut transition = [[0.0; N_STATE]; N_STATE];
        for (from, row) in transition.iter_mut().enumerate() {
            // Squared exponential draws: each state has a few preferred successors.
            for (to, weight) in row.iter_mut().enumerate() {
                let draw = exponential(generator);
                *weight = if from == to { 0.0 } else { draw * draw };
            }
            let sum: f64 = row.iter().sum();
            row.iter_mut().for_each(|w| *w /= sum);
        }
        let shortest_s = std::array::from_fn(|_| 0.16 + 0.12 * generator.random::<f64>());
        Self { transition, shortest_s, slow_phase: TAU * generator.random::<f64>() }
    }

    /// The visits that cover `n_timestep`, the first beginning at 0. They are drawn in seconds: another sampling rate
    /// meets the same states.
    pub fn visits(&self, seed: u64, index: u64, sfreq: f64, n_timestep: usize) -> Vec<Visit> {
        let mut generator = keyed(seed, Purpose::Simulate, index);
        let mut visits: Vec<Visit> = Vec::new();
        let (mut before, mut now) = (0, generator.random_range(0..N_STATE));
        let mut start_s = 0.0;
        while start_s * sfreq < n_timestep as f64 {
            let amplitude = 0.65 + 0.7 * generator.random::<f64>();
            visits.push(Visit { start: (start_s * sfreq).ceil() as usize, state: now as u8, amplitude });
            start_s += self.lifetime(now, generator.random());
            let next = self.next(before, now, start_s, visits.len() > 1, &mut generator);
            (before, now) = (now, next);
        }
        visits
    }

    /// A lifetime (s) of `state` for a uniform draw: the truncated Pareto distribution's quantile.
    fn lifetime(&self, state: usize, uniform: f64) -> f64 {
        let shortest = self.shortest_s[state];
        let kept = 1.0 - libm::pow(shortest / LONGEST_S, TAIL);
        shortest * libm::pow(1.0 - uniform * kept, -1.0 / TAIL)
    }

    /// The state that follows `now` at `time_s`.
    fn next(&self, before: usize, now: usize, time_s: f64, may_return: bool, generator: &mut impl Rng) -> usize {
        if generator.random::<f64>() < RETURN && may_return {
            return before;
        }
        let swing = SLOW_STRENGTH * libm::sin(TAU * time_s / SLOW_PERIOD_S + self.slow_phase);
        let odds = [libm::exp(swing), libm::exp(-swing)];
        let weight = |to: usize| self.transition[now][to] * odds[to % 2];
        let mut left = generator.random::<f64>() * (0..N_STATE).map(weight).sum::<f64>();
        let mut last = now;
        for to in (0..N_STATE).filter(|&to| to != now) {
            last = to;
            left -= weight(to);
            if left < 0.0 {
                break;
            }
        }
        last
    }
}

/// A draw from the exponential distribution of mean 1.
fn exponential(generator: &mut impl Rng) -> f64 {
    -libm::log(1.0 - generator.random::<f64>())
}
