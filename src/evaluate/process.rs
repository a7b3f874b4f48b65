//! An autoregressive process whose truth is known: fitted by Yule–Walker to an autocorrelation, drawn from as itself and
//! through the levels of a tokenizer.

use crate::device::Sampler;
use crate::device::cpu::sampler;
use crate::random::{Purpose, keyed};
use crate::tokens::scheme::{Scaling, Scheme};
use rand::Rng;
use rand_distr::{Distribution, StandardNormal};

/// `x(t) = Σ coefficients[k] x(t − 1 − k) + sd e(t)`, e standard Gaussian; the variance of x is 1.
#[derive(Debug, Clone, PartialEq)]
pub struct Autoregression {
    /// Weight of the value 1, 2, … timesteps ago.
    pub coefficients: Vec<f64>,
    /// Standard deviation of what is new in each timestep.
    pub sd: f64,
}

impl Autoregression {
    /// Solves the Yule–Walker equations for lags 0 to `order` of an autocorrelation, by Levinson's recursion (Durbin
    /// 1960). The biased estimate of [`super::autocorrelation`] always gives a stable process.
    pub fn fit(autocorrelation: &[f64], order: usize) -> Self {
        let mut a: Vec<f64> = Vec::with_capacity(order);
        let mut variance = 1.0;
        for k in 1..=order.min(autocorrelation.len() - 1) {
            let explained: f64 = a.iter().enumerate().map(|(i, a)| a * autocorrelation[k - 1 - i]).sum();
            let reflection = (autocorrelation[k] - explained) / variance;
            // Rounding can leave nothing new to explain: a process that its past determines needs no more lags.
            if reflection.is_nan() || reflection.abs() >= 1.0 {
                break;
            }
            let mirrored: Vec<f64> = a.iter().rev().map(|b| reflection * b).collect();
            a.iter_mut().zip(mirrored).for_each(|(a, m)| *a -= m);
            a.push(reflection);
            variance *= 1.0 - reflection * reflection;
        }
        Self { coefficients: a, sd: variance.sqrt() }
    }

    /// The expectation of the next value; `past` ends with the latest.
    fn mean(&self, past: &[f64]) -> f64 {
        self.coefficients.iter().zip(past.iter().rev()).map(|(a, x)| a * x).sum()
    }

    /// `n` timesteps of the process itself, after `settle` that are thrown away.
    pub fn draw(&self, n: usize, settle: usize, seed: u64, index: u64) -> Vec<f64> {
        let mut random = keyed(seed, Purpose::Control, index);
        self.run(n, settle, |mean| {
            mean + self.sd * <StandardNormal as Distribution<f64>>::sample(&StandardNormal, &mut random)
        })
    }

    /// The same through a tokenizer: the exact distribution of the next level given the past levels' values, from which
    /// the program's own sampler draws.
    pub fn draw_levels(
        &self,
        levels: &Levels,
        how: &Sampler,
        n: usize,
        settle: usize,
        seed: u64,
        index: u64,
    ) -> Vec<f64> {
        let mut random = keyed(seed, Purpose::Control, index);
        let mut logits = vec![0f32; levels.values.len()];
        self.run(n, settle, |mean| {
            levels.logits(mean, self.sd, &mut logits);
            let token = sampler::draw(&logits, how, random.next_u32()).expect("finite logits");
            levels.values[usize::from(token)]
        })
    }

    fn run(&self, n: usize, settle: usize, mut next: impl FnMut(f64) -> f64) -> Vec<f64> {
        let order = self.coefficients.len();
        let mut x = vec![0.0; order];
        for _ in 0..settle + n {
            x.push(next(self.mean(&x[x.len() - order..])));
        }
        x.split_off(order + settle)
    }
}

/// The levels of a tokenizer in standard deviations of a channel.
#[derive(Debug, Clone)]
pub struct Levels {
    values: Vec<f64>,
    /// Between the levels: one fewer than there are.
    boundaries: Vec<f64>,
}

impl Levels {
    /// Of a scheme, for a Gaussian channel that reaches its clip.
    pub fn new(scheme: &Scheme) -> Self {
        // The quartiles of a Gaussian lie 1.349 standard deviations apart.
        let unit = scheme.clip * if scheme.scaling == Scaling::Robust { 1.348_979_500_392_163_4 } else { 1.0 };
        let scaled = |values: &[f64]| values.iter().map(|v| v * unit).collect();
        let boundaries = scheme.boundaries();
        Self { values: scaled(&scheme.levels()), boundaries: scaled(&boundaries[1..boundaries.len() - 1]) }
    }

    /// The logarithm of the mass that a Gaussian has on each level's interval.
    fn logits(&self, mean: f64, sd: f64, logits: &mut [f32]) {
        // e⁻²⁰⁰ is never drawn, and its logarithm is finite.
        const LEAST: f64 = 1.4e-87;
        let standard = |boundary: f64| (boundary - mean) / (sd * std::f64::consts::SQRT_2);
        // The smaller tail on each side of the mean keeps its precision: mass below left of it, mass above right of it.
        let tail = |z: f64| 0.5 * libm::erfc(z.abs());
        let mut left = (f64::NEG_INFINITY, 0.0);
        let ends = self.boundaries.iter().map(|&b| standard(b)).chain([f64::INFINITY]);
        for (logit, z) in logits.iter_mut().zip(ends) {
            let right = (z, tail(z));
            let mass = if right.0 <= 0.0 {
                right.1 - left.1
            } else if left.0 >= 0.0 {
                left.1 - right.1
            } else {
                1.0 - left.1 - right.1
            };
            *logit = mass.max(LEAST).ln() as f32;
            left = right;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn yule_walker_recovers_a_known_process() {
        // The autocorrelation of x(t) = 1.2 x(t−1) − 0.6 x(t−2) + e follows its own recursion; r(1) = 1.2 / 1.6.
        let mut r = vec![1.0, 0.75];
        for k in 2..=20 {
            r.push(1.2 * r[k - 1] - 0.6 * r[k - 2]);
        }
        let fitted = Autoregression::fit(&r, 20);
        assert!((fitted.coefficients[0] - 1.2).abs() < 1e-12 && (fitted.coefficients[1] + 0.6).abs() < 1e-12);
        assert!(fitted.coefficients[2..].iter().all(|a| a.abs() < 1e-12), "{fitted:?}");
        let variance = 1.0 - 1.2 * 0.75 + 0.6 * r[2];
        assert!((fitted.sd.powi(2) - variance).abs() < 1e-12);
        assert_eq!(Autoregression::fit(&[1.0, 1.0, 1.0], 2).coefficients, [0.0; 0]);
    }

    #[test]
    fn level_masses_are_a_distribution_even_far_out() {
        let levels = Levels::new(&Scheme::PAPER);
        let mut logits = vec![0f32; 256];
        for (mean, sd) in [(0.0, 1.0), (0.3, 0.01), (-9.9, 0.5), (12.0, 0.2), (0.0, 30.0)] {
            levels.logits(mean, sd, &mut logits);
            let total: f64 = logits.iter().map(|&l| f64::from(l).exp()).sum();
            // Each logarithm is rounded to f32: 2⁻²⁴ of at most 200.
            assert!((total - 1.0).abs() < 2e-5 && logits.iter().all(|l| l.is_finite()), "{mean} {sd}: {total}");
        }
        // The mean's own level is the most probable for a narrow Gaussian.
        levels.logits(levels.values[200], 0.01, &mut logits);
        let best = (0..256).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap();
        assert_eq!(best, 200);
    }

    #[test]
    fn drawn_through_levels_at_p_1_it_keeps_its_variance() {
        let process = Autoregression { coefficients: vec![0.8], sd: 0.6 };
        let levels = Levels::new(&Scheme::PAPER);
        let all = Sampler { temperature: 1.0, top_k: 0, top_p: 1.0, greedy: false };
        let variance = |x: &[f64]| x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64;
        let n = 40_000;
        // The variance of n values of an AR(1) with a = 0.8 has a standard error of sqrt(2 (1 + a²) / (1 − a²) / n) = 0.015.
        let whole = variance(&process.draw_levels(&levels, &all, n, 100, 1, 0));
        assert!((whole - 1.0).abs() < 0.06, "{whole}");
        assert!((variance(&process.draw(n, 100, 1, 0)) - 1.0).abs() < 0.06);
        let nucleus = Sampler { top_p: 0.8, ..all };
        let cut = variance(&process.draw_levels(&levels, &nucleus, n, 100, 1, 0));
        assert!((whole - cut).abs() > 0.06, "the nucleus must show: {cut} against {whole}");
        assert_eq!(process.draw(5, 3, 1, 0), process.draw(5, 3, 1, 0));
    }
}
