//! From trials to what a decoder sees.

use super::Labelled;
use crate::evaluate::epochs::Epochs;
use crate::statistics::eigen;
use crate::statistics::product::{View, add_product};
use rayon::prelude::*;

/// Seconds from the onset that are decoded (the paper, section 6.1).
pub const SECONDS: f64 = 0.5;
/// Spatial components at most.
pub const COMPONENTS: usize = 80;
/// Bins of time that linear discriminant analysis sees.
const BINS: usize = 10;

/// Spatial components of the decoded part of some trials.
pub struct Filters {
    n_component: usize,
    /// `[component, channel]`
    weights: Vec<f64>,
}

fn part(epochs: &Epochs) -> std::ops::Range<usize> {
    let n = ((SECONDS * epochs.sfreq).round() as usize).max(1);
    epochs.n_before..(epochs.n_before + n).min(epochs.n_time)
}

/// Channel after channel of one trial's decoded part.
fn decoded(epochs: &Epochs, trial: usize) -> Vec<f64> {
    let part = part(epochs);
    (0..epochs.n_channel).flat_map(|c| epochs.row(trial, c)[part.clone()].iter().map(|&x| f64::from(x))).collect()
}

impl Filters {
    /// The principal components over channels of the chosen trials, each of standard deviation 1 over them.
    pub fn fit(epochs: &Epochs, trials: &[usize]) -> Self {
        let (c, n) = (epochs.n_channel, part(epochs).len());
        let mut covariance = vec![0.0; c * c];
        for &trial in trials {
            let x = decoded(epochs, trial);
            let view = View::rows(&x, (c, n), n);
            add_product(&mut covariance, 1.0, 1.0 / (n * trials.len()) as f64, view, view.transposed());
        }
        let pairs = eigen::leading(&covariance, c, COMPONENTS);
        let largest = pairs.values.first().copied().unwrap_or(0.0);
        let kept = pairs.values.iter().filter(|&&v| v > 1e-10 * largest).count();
        let k = pairs.values.len();
        let weight =
            |component: usize, channel: usize| pairs.vectors[channel * k + component] / pairs.values[component].sqrt();
        let weights = (0..kept).flat_map(|i| (0..c).map(move |j| (i, j))).map(|(i, j)| weight(i, j)).collect();
        Self { n_component: kept, weights }
    }

    /// Every trial as its components' means over bins of time, `[component, bin]`.
    pub fn features(&self, epochs: &Epochs) -> Labelled {
        let (c, n, k) = (epochs.n_channel, part(epochs).len(), self.n_component);
        let bins = BINS.min(n);
        let rows: Vec<Vec<f64>> = (0..epochs.len())
            .into_par_iter()
            .map(|trial| {
                let (x, mut components) = (decoded(epochs, trial), vec![0.0; k * n]);
                let weights = View::rows(&self.weights, (k, c), c);
                add_product(&mut components, 0.0, 1.0, weights, View::rows(&x, (c, n), n));
                let mean = |row: &[f64], bin: usize| {
                    let part = &row[bin * n / bins..(bin + 1) * n / bins];
                    part.iter().sum::<f64>() / part.len() as f64
                };
                components.chunks(n).flat_map(|row| (0..bins).map(|bin| mean(row, bin)).collect::<Vec<_>>()).collect()
            })
            .collect();
        Labelled { n_feature: k * bins, rows: rows.concat(), labels: epochs.conditions.clone() }
    }
}

/// Every trial as it is, `[channel, time]` of the decoded part: what the network sees.
pub fn whole(epochs: &Epochs) -> Labelled {
    let rows: Vec<f64> = (0..epochs.len()).flat_map(|trial| decoded(epochs, trial)).collect();
    Labelled { n_feature: epochs.n_channel * part(epochs).len(), rows, labels: epochs.conditions.clone() }
}
