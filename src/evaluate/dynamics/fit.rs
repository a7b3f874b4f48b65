//! Baum–Welch: a hidden Markov model from a series, the whole series at each iteration.
//!
//! The covariance of a state is (Σ γ z zᵀ + κ G) / (Σ γ + κ), with G that of the whole series and κ one row: a state that
//! sees thousands of rows does not notice, and one that sees none or a few keeps a covariance of full rank. It is the
//! maximum a posteriori estimate under an inverse Wishart prior, so the likelihood with that prior never falls.

use super::hmm::{Hmm, Posterior, cholesky};
use super::{Options, Series};
use crate::ensure;
use crate::error::{Kind, Result};
use crate::random::{Purpose, keyed};
use crate::statistics::product::{View, add_product};
use rand::RngExt;
use rayon::prelude::*;

/// κ, in rows.
const PRIOR: f64 = 1.0;
/// Iterations of each beginning.
const FIRST_ITERATIONS: usize = 6;
/// An iteration that gains less than this, in nats for each row, is the last.
const TOLERANCE: f64 = 1e-4;
/// Rows with a smaller posterior do not enter a covariance.
const NEGLIGIBLE: f64 = 1e-12;
/// Probability of staying where a model begins.
const STAY: f64 = 0.9;

/// A fitted model.
#[derive(Debug, Clone)]
pub struct Fitted {
    /// The model.
    pub hmm: Hmm,
    /// ln p(series), with the prior, before each iteration of the finished model.
    pub objective: Vec<f64>,
    /// Whether it ended because the gain had become small.
    pub converged: bool,
}

/// Rows read, in all iterations that may be made: what `progress` of [`fit`] adds up to.
pub fn work(n_row: usize, options: &Options) -> usize {
    n_row * (options.n_init * FIRST_ITERATIONS + options.max_iter)
}

/// Fits a model: several beginnings, of which the best after a few iterations is finished.
pub fn fit(series: &Series, options: &Options, progress: &mut dyn FnMut(usize) -> Result<()>) -> Result<Fitted> {
    let (n, k) = (series.len(), options.n_state);
    let longest = series.segments.iter().map(ExactSizeIterator::len).max().unwrap_or(0);
    ensure!((1..=255).contains(&k), Kind::Usage, "a model of {k} states: 1 to 255 are possible");
    let what = "timesteps in components are fewer than the states and components need";
    ensure!(n >= (k * 10).max(2 * series.n_dim) && longest >= 10, Kind::TooShort, "{n} {what}");
    let global = second_moment(series);
    let mut best: Option<(Hmm, f64)> = None;
    for attempt in 0..options.n_init.max(1) {
        let mut hmm = begin(series, &global, options, attempt as u64);
        let mut objective = f64::NEG_INFINITY;
        for _ in 0..FIRST_ITERATIONS {
            (hmm, objective) = iterate(&hmm, series, &global, options.means);
            progress(n)?;
        }
        if best.as_ref().is_none_or(|(_, so_far)| objective > *so_far) {
            best = Some((hmm, objective));
        }
    }
    let (mut hmm, _) = best.expect("at least one beginning");
    let (mut objective, mut converged) = (Vec::new(), false);
    while objective.len() < options.max_iter && !converged {
        let (next, value) = iterate(&hmm, series, &global, options.means);
        converged = objective.last().is_some_and(|last| value - last < TOLERANCE * n as f64);
        objective.push(value);
        hmm = next;
        progress(n)?;
    }
    progress(n * (options.max_iter - objective.len()))?;
    Ok(Fitted { hmm, objective, converged })
}

/// One iteration: the next model, and ln p(series) with the prior under this one.
pub fn iterate(hmm: &Hmm, series: &Series, global: &[f64], means: bool) -> (Hmm, f64) {
    let posterior = hmm.posterior(series);
    let objective = posterior.log_likelihood + log_prior(hmm, global);
    (maximise(hmm, series, &posterior, global, means), objective)
}

/// −κ/2 · Σ over states of ln|Σ| + tr(Σ⁻¹ G), of which [`maximise`] finds the maximum together with the likelihood.
fn log_prior(hmm: &Hmm, global: &[f64]) -> f64 {
    let d = hmm.n_dim;
    let of = |covariance: &Vec<f64>| {
        let lower = cholesky(covariance, d);
        let log_det: f64 = (0..d).map(|i| 2.0 * lower[(i, i)].ln()).sum();
        let half = lower.solve_lower_triangular(&cholesky(global, d)).expect("a positive diagonal");
        -0.5 * PRIOR * (log_det + half.norm_squared())
    };
    hmm.covariances.iter().map(of).sum()
}

/// The model that makes the expected log-likelihood, and the prior, largest.
fn maximise(hmm: &Hmm, series: &Series, posterior: &Posterior, global: &[f64], means: bool) -> Hmm {
    let (k, d) = (hmm.n_state, hmm.n_dim);
    let mut next = hmm.clone();
    let mut first = vec![0.0; k];
    for segment in &series.segments {
        let row = &posterior.states[segment.start * k..][..k];
        first.iter_mut().zip(row).for_each(|(sum, p)| *sum += p);
    }
    normalise(&first, &mut next.initial);
    for (counted, row) in posterior.steps.chunks(k).zip(next.transition.chunks_mut(k)) {
        normalise(counted, row);
    }
    let Moments { weights, sums, squares } = moments(series, &posterior.states, k);
    for state in 0..k {
        let weight = weights[state];
        let mean: Vec<f64> = match means && weight > 0.0 {
            true => sums[state * d..(state + 1) * d].iter().map(|sum| sum / weight).collect(),
            false => vec![0.0; d],
        };
        let square = &squares[state * d * d..(state + 1) * d * d];
        let about = |at: usize| square[at] - weight * mean[at / d] * mean[at % d] + PRIOR * global[at];
        next.covariances[state] = (0..d * d).map(|at| about(at) / (weight + PRIOR)).collect();
        next.means[state * d..(state + 1) * d].copy_from_slice(&mean);
    }
    next
}

/// Shares of counts; where nothing was counted, what was there stays.
fn normalise(counts: &[f64], shares: &mut [f64]) {
    let sum: f64 = counts.iter().sum();
    if sum > 0.0 {
        shares.iter_mut().zip(counts).for_each(|(share, count)| *share = count / sum);
    }
}

/// Sums over rows, weighted by each state's posterior.
struct Moments {
    /// Σ γ
    weights: Vec<f64>,
    /// Σ γ z, `[state, dim]`
    sums: Vec<f64>,
    /// Σ γ z zᵀ, `[state, dim, dim]`
    squares: Vec<f64>,
}

/// Summed in at most 32 parts, then over the parts in their order: the same bits for any number of threads.
fn moments(series: &Series, posterior: &[f64], k: usize) -> Moments {
    let (n, d) = (series.len(), series.n_dim);
    let part = n.div_ceil(32).max(256);
    let parts: Vec<Moments> = (0..n.div_ceil(part))
        .into_par_iter()
        .map(|index| part_moments(series, posterior, k, index * part..((index + 1) * part).min(n)))
        .collect();
    let mut all = Moments { weights: vec![0.0; k], sums: vec![0.0; k * d], squares: vec![0.0; k * d * d] };
    let add = |to: &mut [f64], from: &[f64]| to.iter_mut().zip(from).for_each(|(to, from)| *to += from);
    for part in &parts {
        add(&mut all.weights, &part.weights);
        add(&mut all.sums, &part.sums);
        add(&mut all.squares, &part.squares);
    }
    all
}

fn part_moments(series: &Series, posterior: &[f64], k: usize, rows: std::ops::Range<usize>) -> Moments {
    let d = series.n_dim;
    let mut part = Moments { weights: vec![0.0; k], sums: vec![0.0; k * d], squares: vec![0.0; k * d * d] };
    // Few enough rows at a time that they stay in the cache.
    for start in rows.clone().step_by(512) {
        let block = start..(start + 512).min(rows.end);
        let values = series.rows(block.clone());
        for state in 0..k {
            let mut scaled = Vec::with_capacity(values.len());
            for (t, z) in block.clone().zip(values.chunks(d)) {
                let weight = posterior[t * k + state];
                part.weights[state] += weight;
                if weight > NEGLIGIBLE {
                    part.sums[state * d..(state + 1) * d].iter_mut().zip(z).for_each(|(sum, z)| *sum += weight * z);
                    let root = weight.sqrt();
                    scaled.extend(z.iter().map(|z| root * z));
                }
            }
            let view = View::rows(&scaled, (scaled.len() / d, d), d);
            let squares = &mut part.squares[state * d * d..(state + 1) * d * d];
            add_product(squares, 1.0, 1.0, view.transposed(), view);
        }
    }
    part
}

/// Σ z zᵀ / n of the whole series.
pub fn second_moment(series: &Series) -> Vec<f64> {
    let n = series.len();
    let all = moments(series, &vec![1.0; n], 1);
    all.squares.iter().map(|square| square / n.max(1) as f64).collect()
}

/// A model to begin with: each state has the covariance of a random stretch of rows, drawn towards the whole series' by
/// as many rows as there are dimensions.
fn begin(series: &Series, global: &[f64], options: &Options, attempt: u64) -> Hmm {
    let (n, d, k) = (series.len(), series.n_dim, options.n_state);
    let mut generator = keyed(options.seed, Purpose::States, attempt);
    let length = d.max(20).min(n / 2);
    let covariance = |start: usize| -> Vec<f64> {
        let data = series.data[start * d..(start + length) * d].to_vec();
        let rows = Series { n_dim: d, data, ..Series::default() };
        let own = second_moment(&rows);
        let (weight, prior) = (length as f64, d as f64);
        own.iter().zip(global).map(|(own, all)| (weight * own + prior * all) / (weight + prior)).collect()
    };
    let leave = if k > 1 { (1.0 - STAY) / (k - 1) as f64 } else { 0.0 };
    let stay = 1.0 - leave * (k - 1) as f64;
    let means = match options.means {
        true => (0..k).flat_map(|_| series.rows(row_at(&mut generator, n))).collect(),
        false => vec![0.0; k * d],
    };
    Hmm {
        n_state: k,
        n_dim: d,
        initial: vec![1.0 / k as f64; k],
        transition: (0..k * k).map(|at| if at / k == at % k { stay } else { leave }).collect(),
        covariances: (0..k).map(|_| covariance(generator.random_range(0..=n - length))).collect(),
        means,
    }
}

fn row_at(generator: &mut impl rand::Rng, n: usize) -> std::ops::Range<usize> {
    let t = generator.random_range(0..n);
    t..t + 1
}
