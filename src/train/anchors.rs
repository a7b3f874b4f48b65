//! What a loss is held against: predictors that anybody can compute, on exactly the targets the model is scored on.
//!
//! * uniform: every level alike, ln 256 nats;
//! * unigram: how often each level came in the training part of this channel, each count half a count higher;
//! * bigram: how often each level followed each other, over all channels (one channel has too few pairs), smoothed by
//!   adding [`PRIOR`] pairs shared out as the pooled unigram is;
//! * repeat last: the level before; it has no probabilities;
//! * AR(20): least squares on the standardised signal of each channel with a Gaussian residual, whose mass over a
//!   level's interval is that level's probability; and the mean of that Gaussian as a prediction of the value.

use super::autoregression::{Autoregression, LevelRanks, NormalEquations};
use super::metrics::Sums;
use super::scoring::{Scored, Summary};
use crate::error::{Error, Kind, Result};
use crate::interrupt;
use crate::tokens::dataset::Dataset;
use crate::tokens::scheme::Scheme;
use crate::tokens::shard::Split;
use crate::tokens::window::Window;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::ops::Range;
use std::sync::Mutex;

/// Order of the autoregression.
pub const ORDER: usize = 20;
/// Pairs added to each row of the bigram table.
pub const PRIOR: f64 = 10.0;
/// Timesteps that are read from a shard at once.
const CHUNK: usize = 1 << 16;
/// Windows of single channels that are scored at once.
const AT_ONCE: usize = 4096;

/// The anchors' names, in the order of their tables.
pub const NAMES: [&str; 6] = ["uniform", "unigram", "bigram", "repeat-last", "ar20", "ar20-mean"];

/// One anchor's scores, under its name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Anchor {
    /// One of [`NAMES`].
    pub name: String,
    /// Its scores; what it does not define is null.
    #[serde(flatten)]
    pub scores: Summary,
}

/// A table of probabilities over levels.
#[derive(Debug, Clone)]
struct Distribution {
    nats: Vec<f64>,
    /// Place of each level when the most probable comes first (the lower level first at a tie).
    place: Vec<u8>,
    best: usize,
}

/// The anchors, fitted to the training part of a data set.
#[derive(Debug)]
pub struct Anchors {
    levels: Vec<f64>,
    boundaries: Vec<f64>,
    /// For each channel.
    unigram: Vec<Distribution>,
    /// For each level that comes before.
    bigram: Vec<Distribution>,
    /// For each channel.
    autoregression: Vec<Autoregression>,
}

/// What one channel's training tokens come to.
struct Counts {
    levels: Vec<u64>,
    equations: NormalEquations,
}

impl Distribution {
    /// From weights, which need not sum to one.
    fn new(weights: &[f64]) -> Self {
        let total: f64 = weights.iter().sum();
        let mut order: Vec<usize> = (0..weights.len()).collect();
        // A stable sort: the lower level first at a tie.
        order.sort_by(|&a, &b| weights[b].total_cmp(&weights[a]));
        let mut place = vec![0; weights.len()];
        order.iter().enumerate().for_each(|(rank, &level)| place[level] = rank as u8);
        let nats = weights.iter().map(|weight| -(weight / total).ln()).collect();
        Self { nats, place, best: order[0] }
    }

    /// Counts one target.
    fn score(&self, target: usize, levels: &[f64], sums: &mut Sums) {
        sums.nats += self.nats[target];
        sums.top1 += f64::from(u8::from(self.place[target] == 0));
        sums.top5 += f64::from(u8::from(self.place[target] < 5));
        sums.squared += (levels[self.best] - levels[target]).powi(2);
    }
}

impl Anchors {
    /// Fits them to the training part; none if a signal asked to stop.
    pub fn fit(dataset: &Dataset) -> Result<Option<Self>> {
        let shards = dataset.split(Split::Train);
        let Some(&first) = shards.first() else {
            let hint = "Give the whole folder that gpt2meg tokenize wrote";
            return Err(Error::new(Kind::TooShort, "the data has no training part to fit the anchors to").hint(hint));
        };
        let meta = &dataset.shards[first].meta;
        let (scheme, n_channel) = (meta.scheme, meta.info.n_channel());
        let n_level = scheme.n_level;
        // Counts are whole numbers: the sum does not depend on the order in which channels come.
        let pairs = Mutex::new(vec![0; n_level * n_level]);
        let counted: Option<Result<Vec<Counts>>> = (0..n_channel)
            .into_par_iter()
            .map(|channel| count(dataset, &shards, &scheme, channel, &pairs).transpose())
            .collect();
        let Some(counts) = counted.transpose()? else { return Ok(None) };
        let pairs = pairs.into_inner().expect("no thread has panicked");
        let mut levels = vec![0; n_level];
        counts.iter().for_each(|counts| add(&mut levels, &counts.levels));
        let half_more = |counts: &[u64]| -> Vec<f64> { counts.iter().map(|&n| n as f64 + 0.5).collect() };
        let pooled = half_more(&levels);
        let total: f64 = pooled.iter().sum();
        let bigram = pairs.chunks_exact(n_level).map(|row| {
            let weights = row.iter().zip(&pooled).map(|(&n, level)| n as f64 + PRIOR * level / total);
            Distribution::new(&weights.collect::<Vec<_>>())
        });
        Ok(Some(Self {
            levels: scheme.levels(),
            boundaries: scheme.boundaries(),
            unigram: counts.iter().map(|counts| Distribution::new(&half_more(&counts.levels))).collect(),
            bigram: bigram.collect(),
            autoregression: counts.iter().map(|counts| counts.equations.solve()).collect(),
        }))
    }

    /// Scores them on the last halves of `windows` of a model with context `n_ctx`, in the order of [`NAMES`]; none if a
    /// signal asked to stop.
    pub fn score(&self, dataset: &Dataset, windows: &[Window], n_ctx: usize) -> Result<Option<Vec<Scored>>> {
        let n_channel = self.unigram.len();
        let mut scored = vec![Scored::new(n_channel, windows.len()); NAMES.len()];
        // As many sequences at once as keep all threads busy, so that memory does not grow with the data.
        let at_once = AT_ONCE.div_ceil(n_channel);
        for (part, some) in windows.chunks(at_once).enumerate() {
            let sums: Option<Result<Vec<[Sums; 6]>>> = (0..some.len() * n_channel)
                .into_par_iter()
                .map(|i| self.score_window(dataset, some[i / n_channel], n_ctx, i % n_channel).transpose())
                .collect();
            let Some(sums) = sums.transpose()? else { return Ok(None) };
            for (i, by_anchor) in sums.iter().enumerate() {
                let (channel, window) = (i % n_channel, part * at_once + i / n_channel);
                scored.iter_mut().zip(by_anchor).for_each(|(scored, sums)| scored.count(channel, window, sums));
            }
        }
        Ok(Some(scored))
    }

    /// The sums of each anchor over one channel's targets in one window; none if a signal asked to stop.
    fn score_window(
        &self,
        dataset: &Dataset,
        window: Window,
        n_ctx: usize,
        channel: usize,
    ) -> Result<Option<[Sums; 6]>> {
        if interrupt::requested().is_some() {
            return Ok(None);
        }
        let shard = &dataset.shards[window.shard];
        let peak = shard.scales.peak[channel];
        let first = window.start + n_ctx / 2 + 1;
        let n_target = window.start + n_ctx + 1 - first;
        let n_history = ORDER.min(first);
        let mut tokens = vec![0; n_history + n_target];
        shard.tokens(channel, first - n_history, &mut tokens)?;

        let (levels, boundaries) = (&self.levels, &self.boundaries);
        let z: Vec<f64> = tokens.iter().map(|&token| levels[usize::from(token)] * peak).collect();
        let fit = &self.autoregression[channel];
        let mut ranks = LevelRanks::new(fit, boundaries, peak);
        let n_level = levels.len() as f64;
        let nan = f64::NAN;

        let mut sums = [Sums { n_target: n_target as f64, ..Sums::default() }; 6];
        let [uniform, unigram, bigram, repeat, ar, ar_mean] = &mut sums;
        for t in n_history..tokens.len() {
            let (last, target) = (usize::from(tokens[t - 1]), usize::from(tokens[t]));
            self.unigram[channel].score(target, levels, unigram);
            self.bigram[last].score(target, levels, bigram);
            repeat.top1 += f64::from(u8::from(last == target));
            repeat.squared += (levels[last] - levels[target]).powi(2);

            let mean = fit.predict(&z[..t]);
            let (best, place) = ranks.rank(mean, target);
            ar.nats -= fit.ln_mass(mean, boundaries[target] * peak, boundaries[target + 1] * peak);
            ar.top1 += f64::from(u8::from(place == 0));
            ar.top5 += f64::from(u8::from(place < 5));
            ar.squared += (levels[best] - levels[target]).powi(2);
            ar_mean.squared += ((mean / peak).clamp(-1.0, 1.0) - levels[target]).powi(2);
        }
        let n = n_target as f64;
        *uniform =
            Sums { nats: n * n_level.ln(), top1: n / n_level, top5: n * 5.0 / n_level, squared: nan, ..*uniform };
        *repeat = Sums { nats: nan, top5: nan, ..*repeat };
        *ar_mean = Sums { nats: nan, top1: nan, top5: nan, ..*ar_mean };
        sums.iter_mut().for_each(|sums| sums.squared_z = sums.squared * peak * peak);
        Ok(Some(sums))
    }
}

fn add(totals: &mut [u64], counts: &[u64]) {
    totals.iter_mut().zip(counts).for_each(|(total, n)| *total += n);
}

/// The anchors' scores under their names.
pub fn named(scored: &[Scored]) -> Vec<Anchor> {
    NAMES.iter().zip(scored).map(|(name, scored)| Anchor { name: name.to_string(), scores: scored.summary() }).collect()
}

/// Reads one channel's training tokens, in pieces; its pairs of levels are added to those of all channels. None if a
/// signal asked to stop.
fn count(
    dataset: &Dataset,
    shards: &[usize],
    scheme: &Scheme,
    channel: usize,
    all_pairs: &Mutex<Vec<u64>>,
) -> Result<Option<Counts>> {
    let n_level = scheme.n_level;
    let mut levels = vec![0; n_level];
    let mut pairs = vec![0; n_level * n_level];
    let mut equations = NormalEquations::new(ORDER);
    let values = scheme.levels();
    let (mut tokens, mut z) = (vec![0; CHUNK + ORDER], Vec::with_capacity(CHUNK + ORDER));
    for shard in shards.iter().map(|&shard| &dataset.shards[shard]) {
        let peak = shard.scales.peak[channel];
        let pieces = |kept: Range<usize>| kept.clone().step_by(CHUNK).map(move |start| (kept.clone(), start));
        for (kept, start) in shard.kept().into_iter().flat_map(pieces) {
            if interrupt::requested().is_some() {
                return Ok(None);
            }
            // Each piece begins with the last values of the one before; nothing reaches over what is excluded.
            let n_before = ORDER.min(start - kept.start);
            let end = (start + CHUNK).min(kept.end);
            let tokens = &mut tokens[..n_before + end - start];
            shard.tokens(channel, start - n_before, tokens)?;
            tokens[n_before..].iter().for_each(|&token| levels[usize::from(token)] += 1);
            for pair in tokens[n_before.saturating_sub(1)..].windows(2) {
                pairs[usize::from(pair[0]) * n_level + usize::from(pair[1])] += 1;
            }
            z.clear();
            z.extend(tokens.iter().map(|&token| values[usize::from(token)] * peak));
            equations.add(&z);
        }
    }
    add(&mut all_pairs.lock().expect("no thread has panicked"), &pairs);
    Ok(Some(Counts { levels, equations }))
}
