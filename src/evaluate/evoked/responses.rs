//! Averages over trials, their correlation with the real ones, and how sure that is.

use crate::evaluate::dynamics::matching::correlation;
use crate::evaluate::epochs::Epochs;
use crate::random::{Purpose, keyed};
use rand::RngExt;
use rayon::prelude::*;

/// Draws of the bootstrap.
pub const N_DRAW: usize = 200;
/// Seconds from the onset within which the peak is looked for.
pub const PEAK_SECONDS: f64 = 0.6;

/// A number with the interval that holds 95 % of its bootstrap draws.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Estimate {
    /// From all trials.
    pub value: f64,
    /// 2.5 % of the draws are below.
    pub low: f64,
    /// 2.5 % of the draws are above.
    pub high: f64,
}

/// Averages of trials.
#[derive(Debug, Clone, PartialEq)]
pub struct Averages {
    /// Of each condition, `[condition][channel][time]`; zeros for a condition without trials.
    pub conditions: Vec<Vec<Vec<f64>>>,
    /// The mean of the conditions, `[channel][time]`.
    pub pooled: Vec<Vec<f64>>,
}

/// The trials to be averaged, for each condition.
pub type Chosen = Vec<Vec<usize>>;

/// One channel's average of some trials.
fn average(epochs: &Epochs, channel: usize, trials: &[usize]) -> Vec<f64> {
    let mut sum = vec![0.0; epochs.n_time];
    for &trial in trials {
        sum.iter_mut().zip(epochs.row(trial, channel)).for_each(|(sum, &x)| *sum += f64::from(x));
    }
    sum.iter_mut().for_each(|x| *x /= trials.len().max(1) as f64);
    sum
}

/// The mean of rows of equal length.
fn mean_of(rows: &[Vec<f64>]) -> Vec<f64> {
    let mut mean = vec![0.0; rows[0].len()];
    for row in rows {
        mean.iter_mut().zip(row).for_each(|(mean, x)| *mean += x / rows.len() as f64);
    }
    mean
}

/// Averages of the chosen trials of every condition.
pub fn averages(epochs: &Epochs, chosen: &Chosen) -> Averages {
    let of = |channel| chosen.iter().map(|trials| average(epochs, channel, trials)).collect::<Vec<_>>();
    let channels: Vec<Vec<Vec<f64>>> = (0..epochs.n_channel).into_par_iter().map(of).collect();
    let pooled = channels.iter().map(|conditions| mean_of(conditions)).collect();
    let condition = |k: usize| channels.iter().map(|conditions| conditions[k].clone()).collect();
    Averages { conditions: (0..chosen.len()).map(condition).collect(), pooled }
}

/// How alike the averages of two sets of trials are.
#[derive(Debug, Clone, PartialEq)]
pub struct Likeness {
    /// Correlation of the pooled averages, channel by channel.
    pub channels: Vec<f64>,
    /// Their mean.
    pub pooled: Estimate,
    /// Mean correlation of the averages of each condition.
    pub conditions: Estimate,
    /// The same of what each has that the pooled average has not; none with one condition.
    pub specific: Option<Estimate>,
    /// Mean over channels of the correlation of each condition of the one with each of the other, `[of a][of b]`.
    pub matrix: Vec<Vec<f64>>,
}

/// One channel's matrix, its likeness, and that of each draw.
type OfChannel = (Vec<f64>, [f64; 3], Vec<[f64; 3]>);

/// For one channel: pooled, conditions, specific.
fn channel_likeness(a: &[Vec<f64>], b: &[Vec<f64>], from: usize) -> [f64; 3] {
    let (pooled_a, pooled_b) = (mean_of(a), mean_of(b));
    let n = a.len() as f64;
    let own = |x: &[f64], pooled: &[f64]| x.iter().zip(pooled).map(|(x, p)| x - p).collect::<Vec<f64>>();
    let pairs = || a.iter().zip(b);
    let conditions = pairs().map(|(a, b)| correlation(&a[from..], &b[from..])).sum::<f64>() / n;
    let specific = pairs().map(|(a, b)| correlation(&own(a, &pooled_a)[from..], &own(b, &pooled_b)[from..]));
    [correlation(&pooled_a[from..], &pooled_b[from..]), conditions, specific.sum::<f64>() / n]
}

/// Compares chosen trials; intervals by drawing each condition's trials again, with replacement, on both sides.
pub fn likeness(a: (&Epochs, &Chosen), b: (&Epochs, &Chosen), seed: u64) -> Likeness {
    let (n_channel, from) = (a.0.n_channel, a.0.n_before);
    let draws: Vec<(Chosen, Chosen)> =
        (0..N_DRAW as u64).map(|draw| (again(a.1, seed, 2 * draw), again(b.1, seed, 2 * draw + 1))).collect();
    let of = |(epochs, chosen): (&Epochs, &Chosen), channel| {
        chosen.iter().map(|trials| average(epochs, channel, trials)).collect::<Vec<_>>()
    };
    // Channel by channel, so that no more than one channel's draws are in memory.
    let each: Vec<OfChannel> = (0..n_channel)
        .into_par_iter()
        .map(|channel| {
            let (ours, theirs) = (of(a, channel), of(b, channel));
            let all = ours.iter().flat_map(|x| theirs.iter().map(|y| correlation(&x[from..], &y[from..])));
            let drawn = draws
                .iter()
                .map(|(one, other)| channel_likeness(&of((a.0, one), channel), &of((b.0, other), channel), from));
            (all.collect(), channel_likeness(&ours, &theirs, from), drawn.collect())
        })
        .collect();
    let n = n_channel as f64;
    let k = a.1.len();
    let mut matrix = vec![vec![0.0; k]; k];
    let mut drawn = vec![[0.0; 3]; N_DRAW];
    let mut values = [0.0; 3];
    for (all, value, draws) in &each {
        all.iter().enumerate().for_each(|(at, r)| matrix[at / k][at % k] += r / n);
        (0..3).for_each(|i| values[i] += value[i] / n);
        drawn.iter_mut().zip(draws).for_each(|(sum, x)| (0..3).for_each(|i| sum[i] += x[i] / n));
    }
    let estimate = |i: usize| centred(values[i], drawn.iter().map(|x| x[i]).collect());
    Likeness {
        channels: each.iter().map(|(_, value, _)| value[0]).collect(),
        pooled: estimate(0),
        conditions: estimate(1),
        specific: (k > 1).then(|| estimate(2)),
        matrix,
    }
}

/// As many trials of each condition, drawn with replacement.
fn again(chosen: &Chosen, seed: u64, index: u64) -> Chosen {
    let mut generator = keyed(seed, Purpose::Bootstrap, index);
    let mut draw =
        |trials: &Vec<usize>| trials.iter().map(|_| trials[generator.random_range(0..trials.len())]).collect();
    chosen.iter().map(&mut draw).collect()
}

/// The draws' interval, moved so that their mean is the value: trials that are drawn twice make averages noisier, and so
/// every draw correlates a little worse, and responds a little more, than what it was drawn from.
fn centred(value: f64, mut draws: Vec<f64>) -> Estimate {
    let bias = draws.iter().sum::<f64>() / draws.len() as f64 - value;
    draws.iter_mut().for_each(|x| *x -= bias);
    interval(value, draws)
}

fn interval(value: f64, mut draws: Vec<f64>) -> Estimate {
    use crate::statistics::quantile::quantile;
    draws.sort_unstable_by(f64::total_cmp);
    Estimate { value, low: quantile(&draws, 0.025), high: quantile(&draws, 0.975) }
}

/// The size of the response over all channels, and its peak.
#[derive(Debug, Clone, PartialEq)]
pub struct Power {
    /// Root mean square over channels of the pooled average less its mean before the onset, at each timestep; with the
    /// bounds of 95 % of the bootstrap draws.
    pub curve: Vec<Estimate>,
    /// When it is largest, s.
    pub latency: Estimate,
    /// How large it is then, in standard deviations of the signal.
    pub height: Estimate,
}

/// The size of the response of the chosen trials.
pub fn power(epochs: &Epochs, chosen: &Chosen, seed: u64) -> Power {
    let draws: Vec<Chosen> = (0..N_DRAW as u64).map(|draw| again(chosen, seed, draw)).collect();
    let all: Vec<&Chosen> = std::iter::once(chosen).chain(&draws).collect();
    let squares = |chosen: &Chosen, channel: usize| -> Vec<f64> {
        let conditions: Vec<Vec<f64>> = chosen.iter().map(|trials| average(epochs, channel, trials)).collect();
        let pooled = mean_of(&conditions);
        let base = pooled[..epochs.n_before].iter().sum::<f64>() / epochs.n_before.max(1) as f64;
        pooled.iter().map(|x| (x - base).powi(2)).collect()
    };
    // A curve for the trials themselves, then one for each draw; channels are summed in their order.
    let curves: Vec<Vec<f64>> = all
        .par_iter()
        .map(|chosen| {
            let mut sum = vec![0.0; epochs.n_time];
            for channel in 0..epochs.n_channel {
                sum.iter_mut().zip(squares(chosen, channel)).for_each(|(sum, x)| *sum += x);
            }
            sum.iter().map(|x| (x / epochs.n_channel as f64).sqrt()).collect()
        })
        .collect();
    let last = (epochs.n_before + (PEAK_SECONDS * epochs.sfreq) as usize).min(epochs.n_time);
    let peak = |curve: &Vec<f64>| {
        let t = (epochs.n_before..last).max_by(|&a, &b| curve[a].total_cmp(&curve[b])).unwrap_or(epochs.n_before);
        ((t - epochs.n_before) as f64 / epochs.sfreq, curve[t])
    };
    type Interval = fn(f64, Vec<f64>) -> Estimate;
    let of = |how: Interval, value: &dyn Fn(&Vec<f64>) -> f64| {
        how(value(&curves[0]), curves[1..].iter().map(value).collect())
    };
    Power {
        curve: (0..epochs.n_time).map(|t| of(centred, &|curve| curve[t])).collect(),
        latency: of(interval, &|curve| peak(curve).0),
        height: of(centred, &|curve| peak(curve).1),
    }
}

/// Pooled averages of some channels with the bounds of their bootstrap draws, `[channel][time]`.
pub fn bands(epochs: &Epochs, chosen: &Chosen, channels: &[usize], seed: u64) -> Vec<Vec<Estimate>> {
    let draws: Vec<Chosen> = (0..N_DRAW as u64).map(|draw| again(chosen, seed, draw)).collect();
    let pooled = |chosen: &Chosen, channel: usize| {
        mean_of(&chosen.iter().map(|trials| average(epochs, channel, trials)).collect::<Vec<_>>())
    };
    let of = |&channel: &usize| {
        let value = pooled(chosen, channel);
        let drawn: Vec<Vec<f64>> = draws.iter().map(|chosen| pooled(chosen, channel)).collect();
        let at = |t: usize| interval(value[t], drawn.iter().map(|x| x[t]).collect());
        (0..epochs.n_time).map(at).collect()
    };
    channels.par_iter().map(of).collect()
}
