//! A hidden Markov model with a Gaussian in each state: densities, posteriors, the likeliest path.

use super::Series;
use crate::statistics::product::{View, add_product};
use nalgebra::{Cholesky, DMatrix};
use rayon::prelude::*;
use std::ops::Range;

/// States with a smaller probability than this, given the past, count as impossible: their reciprocal is still finite.
const IMPOSSIBLE: f64 = 1e-290;
/// Rows whose densities are computed together.
const ROWS: usize = 256;

/// The model.
#[derive(Debug, Clone, PartialEq)]
pub struct Hmm {
    /// Number of states.
    pub n_state: usize,
    /// Numbers in a row of the series.
    pub n_dim: usize,
    /// Probability of each state in the first row of a stretch.
    pub initial: Vec<f64>,
    /// Probability of the next state, `[from, to]`, row-major.
    pub transition: Vec<f64>,
    /// Mean of each state, `[state, dim]`.
    pub means: Vec<f64>,
    /// Covariance of each state, `[dim, dim]`, row-major.
    pub covariances: Vec<Vec<f64>>,
}

/// What a model says of a series.
#[derive(Debug, Clone, PartialEq)]
pub struct Posterior {
    /// Probability of each state in each row, given the whole series: `[row, state]`.
    pub states: Vec<f64>,
    /// Expected number of steps from one state to another, `[from, to]`.
    pub steps: Vec<f64>,
    /// ln p(series).
    pub log_likelihood: f64,
}

impl Hmm {
    /// ln p(row | state), `[row, state]`.
    pub fn log_densities(&self, series: &Series) -> Vec<f64> {
        let (k, d) = (self.n_state, self.n_dim);
        assert_eq!(series.n_dim, d);
        let gaussians: Vec<Gaussian> = (0..k).map(|state| self.gaussian(state)).collect();
        // All states' whitening matrices below each other: one product whitens for all of them.
        let whiteners: Vec<f64> = gaussians.iter().flat_map(|g| g.whitener.iter().copied()).collect();
        let mut out = vec![0.0; series.len() * k];
        out.par_chunks_mut(ROWS * k).enumerate().for_each(|(chunk, out)| {
            let n = out.len() / k;
            let rows = series.rows(chunk * ROWS..chunk * ROWS + n);
            let mut white = vec![0.0; n * k * d];
            let whiteners = View::rows(&whiteners, (k * d, d), d);
            add_product(&mut white, 0.0, 1.0, View::rows(&rows, (n, d), d), whiteners.transposed());
            for (out, white) in out.chunks_mut(k).zip(white.chunks(k * d)) {
                for ((out, white), gaussian) in out.iter_mut().zip(white.chunks(d)).zip(&gaussians) {
                    let square = |(z, m): (&f64, &f64)| (z - m) * (z - m);
                    *out = gaussian.constant - 0.5 * white.iter().zip(&gaussian.mean).map(square).sum::<f64>();
                }
            }
        });
        out
    }

    fn gaussian(&self, state: usize) -> Gaussian {
        let d = self.n_dim;
        let lower = cholesky(&self.covariances[state], d);
        let log_det: f64 = (0..d).map(|i| lower[(i, i)].ln()).sum();
        let whitener = lower.solve_lower_triangular(&DMatrix::identity(d, d)).expect("a positive diagonal");
        let row_major: Vec<f64> = (0..d * d).map(|at| whitener[(at / d, at % d)]).collect();
        let mut mean = vec![0.0; d];
        let own = View::rows(&self.means[state * d..(state + 1) * d], (d, 1), 1);
        add_product(&mut mean, 0.0, 1.0, View::rows(&row_major, (d, d), d), own);
        let constant = -0.5 * d as f64 * std::f64::consts::TAU.ln() - log_det;
        Gaussian { whitener: row_major, mean, constant }
    }

    /// Posteriors of a series by the scaled forward recursion and the smoother of Kim (1994), which goes backwards over
    /// posteriors and so never leaves [0, 1].
    pub fn posterior(&self, series: &Series) -> Posterior {
        let densities = self.log_densities(series);
        let k = self.n_state;
        let mut states = vec![0.0; densities.len()];
        let of_segment = |range: &Range<usize>| &densities[range.start * k..range.end * k];
        let smoothed: Vec<_> = series.segments.par_iter().map(|range| self.smooth(of_segment(range))).collect();
        let (mut steps, mut log_likelihood) = (vec![0.0; k * k], 0.0);
        for (range, (gamma, counted, ln)) in series.segments.iter().zip(smoothed) {
            states[range.start * k..range.end * k].copy_from_slice(&gamma);
            steps.iter_mut().zip(counted).for_each(|(sum, x)| *sum += x);
            log_likelihood += ln;
        }
        Posterior { states, steps, log_likelihood }
    }

    /// Posteriors, expected steps and log-likelihood of one stretch, from its log-densities.
    fn smooth(&self, densities: &[f64]) -> (Vec<f64>, Vec<f64>, f64) {
        let k = self.n_state;
        let n = densities.len() / k;
        let mut filtered = vec![0.0; n * k];
        let mut log_likelihood = 0.0;
        let mut predicted = self.initial.clone();
        for t in 0..n {
            let (now, ln) = (&mut filtered[t * k..(t + 1) * k], &densities[t * k..(t + 1) * k]);
            let possible = |j: &usize| predicted[*j] > IMPOSSIBLE;
            let highest = (0..k).filter(possible).map(|j| ln[j]).fold(f64::NEG_INFINITY, f64::max);
            for j in (0..k).filter(possible) {
                now[j] = predicted[j] * (ln[j] - highest).exp();
            }
            let sum: f64 = now.iter().sum();
            now.iter_mut().for_each(|p| *p /= sum);
            log_likelihood += sum.ln() + highest;
            self.predict(now, &mut predicted);
        }
        let mut steps = vec![0.0; k * k];
        let mut ratio = vec![0.0; k];
        // From here on a row holds the posterior once it has been passed.
        for t in (0..n.saturating_sub(1)).rev() {
            let (past, future) = filtered.split_at_mut((t + 1) * k);
            let now = &mut past[t * k..];
            self.predict(now, &mut predicted);
            for j in 0..k {
                ratio[j] = if predicted[j] > IMPOSSIBLE { future[j] / predicted[j] } else { 0.0 };
            }
            for (i, p) in now.iter_mut().enumerate() {
                let (row, counted) = (&self.transition[i * k..(i + 1) * k], &mut steps[i * k..(i + 1) * k]);
                let mut sum = 0.0;
                for ((a, r), counted) in row.iter().zip(&ratio).zip(counted) {
                    let step = *p * a * r;
                    *counted += step;
                    sum += step;
                }
                *p = sum;
            }
        }
        (filtered, steps, log_likelihood)
    }

    /// Probability of each state in the next row.
    fn predict(&self, now: &[f64], next: &mut [f64]) {
        next.fill(0.0);
        for (p, row) in now.iter().zip(self.transition.chunks(self.n_state)) {
            next.iter_mut().zip(row).for_each(|(next, a)| *next += p * a);
        }
    }

    /// The likeliest path through each stretch (Viterbi 1967), and the sum of their log-probabilities.
    pub fn viterbi(&self, series: &Series) -> (Vec<u8>, f64) {
        let densities = self.log_densities(series);
        let k = self.n_state;
        let (mut path, mut total) = (vec![0; series.len()], 0.0);
        let ln = |p: &f64| p.ln();
        let (initial, transition): (Vec<f64>, Vec<f64>) =
            (self.initial.iter().map(ln).collect(), self.transition.iter().map(ln).collect());
        for range in &series.segments {
            let densities = &densities[range.start * k..range.end * k];
            let mut best: Vec<f64> = initial.iter().zip(densities).map(|(p, d)| p + d).collect();
            let mut from = vec![0u8; densities.len()];
            for (t, row) in densities.chunks(k).enumerate().skip(1) {
                let before = best.clone();
                for j in 0..k {
                    let via = |i: &usize| before[*i] + transition[i * k + j];
                    // The first of equals, as numpy's argmax has it.
                    let i = (0..k).rev().max_by(|a, b| via(a).total_cmp(&via(b))).unwrap_or(0);
                    from[t * k + j] = i as u8;
                    best[j] = via(&i) + row[j];
                }
            }
            let mut state = (0..k).rev().max_by(|&a, &b| best[a].total_cmp(&best[b])).unwrap_or(0);
            total += best[state];
            for t in (0..range.len()).rev() {
                path[range.start + t] = state as u8;
                state = usize::from(from[t * k + state]);
            }
        }
        (path, total)
    }
}

/// What a state's density is computed with.
struct Gaussian {
    /// L⁻¹ of the covariance L Lᵀ, row-major.
    whitener: Vec<f64>,
    /// L⁻¹ mean.
    mean: Vec<f64>,
    /// The logarithm of what stands before the exponential.
    constant: f64,
}

/// The lower Cholesky factor; of a matrix that is not positive definite, with the least of 10⁻¹², 10⁻¹¹, … of the mean
/// variance added to its diagonal that makes it so.
pub fn cholesky(covariance: &[f64], d: usize) -> DMatrix<f64> {
    let matrix = DMatrix::from_row_slice(d, d, covariance);
    let size = (matrix.trace() / d as f64).max(f64::MIN_POSITIVE);
    let ridge = |power: i32| if power == 0 { 0.0 } else { size * 10f64.powi(power - 13) };
    let tried = (0..).map(|power| Cholesky::new(&matrix + DMatrix::identity(d, d) * ridge(power)));
    tried.flatten().next().expect("a ridge far above the matrix makes any positive definite").unpack()
}

/// For each row the state of the highest probability, the first of equals.
pub fn courses(posterior: &[f64], n_state: usize) -> Vec<u8> {
    let highest = |row: &[f64]| (0..n_state).rev().max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap_or(0) as u8;
    posterior.chunks(n_state).map(highest).collect()
}
