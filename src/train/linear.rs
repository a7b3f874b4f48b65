//! Fitting and scoring linear autoregressions: least squares over the usable stretches of the training part.

use super::autoregression::{Autoregression, NormalEquations};
use super::metrics::Sums;
use super::scoring::Scored;
use crate::console::note;
use crate::ensure;
use crate::error::{Error, Kind, Result};
use crate::interrupt;
use crate::model::linear::{Linear, LinearConfig};
use crate::tokens::dataset::Dataset;
use crate::tokens::scheme::Quantiser;
use crate::tokens::shard::{Shard, Split};
use crate::tokens::window::Window;
use nalgebra::{DMatrix, DMatrixView};
use rayon::prelude::*;
use std::ops::Range;

/// Timesteps that are read at once, besides those before them.
const CHUNK: usize = 1 << 14;
/// Rows of the equations that one job sums.
const ROWS: usize = 64;
/// Windows that are scored at once.
const AT_ONCE: usize = 256;
/// Noise of its own, as a part of a channel's variance, that rounding alone may make necessary.
const ROUNDING: f64 = 1e-6;

/// Whether all of a data set has kept the signal from before quantising.
pub fn keeps_signal(dataset: &Dataset) -> bool {
    dataset.shards.iter().all(Shard::has_signal)
}

/// Refuses data that lacks the signal, for an autoregression of it.
fn check_kept(dataset: &Dataset, config: &LinearConfig) -> Result<()> {
    match dataset.shards.iter().find(|shard| config.signal && !shard.has_signal()) {
        Some(without) => {
            let what = "the autoregression is of the signal from before quantising, which this data has not kept";
            let hint = "Tokenise it with --keep-signal, or fit another one to data without";
            Err(Error::new(Kind::TokenizerMismatch, what).at(without.path()).hint(hint))
        }
        None => Ok(()),
    }
}

/// Reads values of a channel in scaled units (z): with `signal` the signal itself, else those of its levels.
fn read(signal: bool, shard: &Shard, channel: usize, start: usize, levels: &[f64], z: &mut [f64]) -> Result<()> {
    let scale = shard.scales.channel(channel);
    if signal {
        let mut signal = vec![0.0f32; z.len()];
        shard.signal(channel, start, &mut signal)?;
        z.iter_mut().zip(signal).for_each(|(z, x)| *z = scale.scaled(f64::from(x)));
        return Ok(());
    }
    let mut tokens = vec![0; z.len()];
    shard.tokens(channel, start, &mut tokens)?;
    z.iter_mut().zip(tokens).for_each(|(z, token)| *z = levels[usize::from(token)] * scale.peak);
    Ok(())
}

/// Pieces of a stretch, each beginning with the last `order` timesteps of the one before.
fn pieces(kept: Range<usize>, order: usize) -> impl Iterator<Item = Range<usize>> {
    let targets = (kept.start + order).min(kept.end)..kept.end;
    targets.clone().step_by(CHUNK).map(move |start| start - order..(start + CHUNK).min(targets.end))
}

/// Fits to the training part; none if a signal asked to stop.
pub fn fit(dataset: &Dataset, config: &LinearConfig) -> Result<Option<Linear>> {
    check_kept(dataset, config)?;
    let shards: Vec<&Shard> = dataset.split(Split::Train).into_iter().map(|shard| &dataset.shards[shard]).collect();
    let longest = shards.iter().flat_map(|shard| shard.kept()).map(|kept| kept.len()).max().unwrap_or(0);
    if longest <= config.order {
        let what = format!("no usable stretch of the training part is longer than the order {}", config.order);
        return Err(Error::new(Kind::TooShort, format!("{what}: {longest} timesteps")).hint("Choose a lower --order"));
    }
    if config.multivariate { together(&shards, config) } else { alone(&shards, config) }
}

/// Every channel by itself.
fn alone(shards: &[&Shard], config: &LinearConfig) -> Result<Option<Linear>> {
    let fits: Option<Result<Vec<Autoregression>>> = (0..config.sizes.n_channel)
        .into_par_iter()
        .map(|channel| {
            let mut equations = NormalEquations::new(config.order);
            for shard in shards {
                let levels = shard.meta.scheme.levels();
                for piece in shard.kept().into_iter().flat_map(|kept| pieces(kept, config.order)) {
                    if interrupt::requested().is_some() {
                        return None;
                    }
                    let mut z = vec![0.0; piece.len()];
                    if let Err(error) = read(config.signal, shard, channel, piece.start, &levels, &mut z) {
                        return Some(Err(error));
                    }
                    equations.add(&z);
                }
            }
            Some(Ok(equations.solve_with(config.ridge)))
        })
        .collect();
    let Some(fits) = fits.transpose()? else { return Ok(None) };
    Ok(Some(Linear {
        config: *config,
        intercept: fits.iter().map(|fit| fit.intercept).collect(),
        weights: fits.iter().flat_map(|fit| fit.weights.iter().rev().copied()).collect(),
        sigma: fits.iter().map(|fit| fit.sigma).collect(),
        factor: Vec::new(),
    }))
}

/// Reads all channels of a piece, timestep by timestep: [T, C].
fn read_all(signal: bool, shard: &Shard, piece: Range<usize>, levels: &[f64]) -> Result<Vec<f64>> {
    let n_channel = shard.meta.info.n_channel();
    let mut all = vec![0.0; piece.len() * n_channel];
    let mut z = vec![0.0; piece.len()];
    for channel in 0..n_channel {
        read(signal, shard, channel, piece.start, levels, &mut z)?;
        all[channel..].iter_mut().step_by(n_channel).zip(&z).for_each(|(to, &z)| *to = z);
    }
    Ok(all)
}

/// All channels together. With x = [past; now] of every timestep and a constant, sums of xᵀx hold the equations, their
/// right-hand sides and the targets' own products.
fn together(shards: &[&Shard], config: &LinearConfig) -> Result<Option<Linear>> {
    let (n_channel, width) = (config.sizes.n_channel, config.width());
    // Past and present are one stretch of [T, C]; the constant comes last.
    let all = width + n_channel + 1;
    let mut products = vec![0.0; all * all];
    let mut n = 0.0;
    for shard in shards {
        let levels = shard.meta.scheme.levels();
        for piece in shard.kept().into_iter().flat_map(|kept| pieces(kept, config.order)) {
            if interrupt::requested().is_some() {
                return Ok(None);
            }
            let z = read_all(config.signal, shard, piece, &levels)?;
            let rows: Vec<&[f64]> = z.windows(width + n_channel).step_by(n_channel).collect();
            n += rows.len() as f64;
            products.par_chunks_mut(ROWS * all).enumerate().for_each(|(job, sums)| {
                for row in &rows {
                    for (i, sums) in sums.chunks_exact_mut(all).enumerate() {
                        let factor = row.get(job * ROWS + i).copied().unwrap_or(1.0);
                        sums.iter_mut().zip(*row).for_each(|(sum, &x)| *sum += factor * x);
                        sums[all - 1] += factor;
                    }
                }
            });
        }
    }
    // The predictors: the past and the constant, which is moved beside it.
    let predictors: Vec<usize> = (0..width).chain([all - 1]).collect();
    let products = DMatrixView::from_slice(&products, all, all);
    let matrix = DMatrix::from_fn(width + 1, width + 1, |i, j| products[(predictors[i], predictors[j])]);
    let targets = DMatrix::from_fn(width + 1, n_channel, |i, c| products[(predictors[i], width + c)]);
    let solution = solve(&matrix, &targets, width, config.ridge);
    let own = DMatrix::from_fn(n_channel, n_channel, |a, b| products[(width + a, width + b)]);
    let explained = solution.transpose() * &targets;
    let left = own - &explained - explained.transpose() + solution.transpose() * &matrix * &solution;
    let covariance = left / n;
    let sigma: Vec<f64> = (0..n_channel).map(|c| covariance[(c, c)].max(1e-12).sqrt()).collect();
    let factor = factor(&covariance, &sigma)?;
    Ok(Some(Linear {
        config: *config,
        intercept: (0..n_channel).map(|c| solution[(width, c)]).collect(),
        weights: (0..n_channel).flat_map(|c| (0..width).map(move |i| (i, c))).map(|at| solution[at]).collect(),
        sigma,
        factor,
    }))
}

/// The least-squares solution with a ridge on all but the constant: that asked for, or the smallest with which it exists.
fn solve(matrix: &DMatrix<f64>, targets: &DMatrix<f64>, width: usize, mut ridge: f64) -> DMatrix<f64> {
    let scale = (matrix.trace() / matrix.nrows() as f64).max(f64::MIN_POSITIVE);
    loop {
        let mut ridged = matrix.clone();
        (0..width).for_each(|i| ridged[(i, i)] += ridge * scale);
        match ridged.cholesky() {
            Some(cholesky) => return cholesky.solve(targets),
            None => ridge = (10.0 * ridge).max(1e-12),
        }
    }
}

/// The lower triangular factor of a covariance, row by row. Channels that depend on one another, as after signal-space
/// separation, leave it singular, and rounding then may leave it without a factor: every channel gets the least noise of its
/// own with which there is one, from 1e-12 of its variance upwards, and is scaled back to its variance.
fn factor(covariance: &DMatrix<f64>, sigma: &[f64]) -> Result<Vec<f64>> {
    let n = sigma.len();
    let correlation = |i, j| if i == j { 1.0 } else { covariance[(i, j)] / (sigma[i] * sigma[j]) };
    let correlation = DMatrix::from_fn(n, n, correlation);
    let finite = correlation.iter().all(|x| x.is_finite());
    ensure!(finite, Kind::NonFiniteTraining, "the covariance of what the fit left over is not finite");
    // It ends: far above the other entries, the diagonal alone decides.
    let mut own: f64 = 0.0;
    let lower = loop {
        match (&correlation + DMatrix::identity(n, n) * own).cholesky() {
            Some(cholesky) => break cholesky.l(),
            None => own = (10.0 * own).max(1e-12),
        }
    };
    if own > ROUNDING {
        let what = "gpt2meg: the noise's covariance could be had only with noise of its own in every channel";
        note(format_args!("{what}: {own:e} of its variance."));
    }
    let entry = |(i, j): (usize, usize)| lower[(i, j)] * sigma[i] / (1.0 + own).sqrt();
    Ok((0..n).flat_map(|i| (0..n).map(move |j| (i, j))).map(entry).collect())
}

/// Scores on the last halves of `windows`. The likelihood is that of the target's level under the Gaussian around the
/// prediction; accuracies and squared error are those of the prediction, quantised (paper 3.3): a hit is its own level, and
/// among five are the two on either side of it, moved inwards at the ends. None if a signal asked to stop; `done` hears of
/// every batch.
pub fn score(
    linear: &Linear,
    dataset: &Dataset,
    windows: &[Window],
    mut done: impl FnMut(usize),
) -> Result<Option<Scored>> {
    check_kept(dataset, &linear.config)?;
    let n_channel = linear.config.sizes.n_channel;
    let mut scored = Scored::new(n_channel, windows.len());
    for (part, some) in windows.chunks(AT_ONCE).enumerate() {
        let sums: Result<Vec<Vec<Sums>>> =
            some.par_iter().map(|&window| score_window(linear, dataset, window)).collect();
        for (i, sums) in sums?.iter().enumerate() {
            for (channel, sums) in sums.iter().enumerate() {
                scored.count(channel, part * AT_ONCE + i, sums);
            }
        }
        if interrupt::requested().is_some() {
            return Ok(None);
        }
        done(some.len());
    }
    Ok(Some(scored))
}

/// The sums of each channel over its targets in one window.
fn score_window(linear: &Linear, dataset: &Dataset, window: Window) -> Result<Vec<Sums>> {
    let LinearConfig { order, multivariate, signal, sizes, .. } = linear.config;
    let shard = &dataset.shards[window.shard];
    let scheme = &shard.meta.scheme;
    let (levels, boundaries, quantiser) = (scheme.levels(), scheme.boundaries(), Quantiser::new(scheme));
    let first = window.start + sizes.n_ctx / 2 + 1;
    let n_target = sizes.n_ctx - sizes.n_ctx / 2;
    let history = first - order..window.start + sizes.n_ctx;
    let all = if multivariate { read_all(signal, shard, history.clone(), &levels)? } else { Vec::new() };
    let (mut z, mut tokens) = (vec![0.0; history.len()], vec![0; n_target]);
    let mut sums = Vec::with_capacity(sizes.n_channel);
    for channel in 0..sizes.n_channel {
        let peak = shard.scales.peak[channel];
        shard.tokens(channel, first, &mut tokens)?;
        if !multivariate {
            read(signal, shard, channel, history.start, &levels, &mut z)?;
        }
        let fit = Autoregression { intercept: 0.0, weights: Vec::new(), sigma: linear.sigma[channel] };
        let mut sum = Sums { n_target: n_target as f64, ..Sums::default() };
        for (t, &target) in tokens.iter().enumerate() {
            let past = if multivariate { &all[t * sizes.n_channel..] } else { &z[t..] };
            let (mean, target) = (linear.predict(channel, past), usize::from(target));
            let best = usize::from(quantiser.encode(mean / peak));
            let five = best.saturating_sub(2).min(levels.len().saturating_sub(5));
            sum.nats -= fit.ln_mass(mean, boundaries[target] * peak, boundaries[target + 1] * peak);
            sum.top1 += f64::from(u8::from(best == target));
            sum.top5 += f64::from(u8::from((five..five + 5).contains(&target)));
            sum.squared += (levels[best] - levels[target]).powi(2);
        }
        sum.squared_z = sum.squared * peak * peak;
        sums.push(sum);
    }
    Ok(sums)
}
