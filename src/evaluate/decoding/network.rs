//! The linear network of the paper's decoder (section 6.1): a map over channels, then three maps of everything, with
//! dropout between them and no other nonlinearity; trained with Adam on the cross-entropy.

use super::{Labelled, accuracy};
use crate::error::Result;
use crate::random::{Purpose, keyed, unit};
use crate::statistics::product::{View, add_product};
use rand::seq::SliceRandom;
use rand::{Rng, RngExt};
use rand_distr::StandardNormal;

/// Sizes and training.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// Channels after the first map.
    pub n_spatial: usize,
    /// Sizes of the two layers between.
    pub hidden: [usize; 2],
    /// Share of values that dropout sets to zero.
    pub dropout: f64,
    /// Learning rate.
    pub lr: f64,
    /// Trials in a batch.
    pub batch: usize,
    /// Passes over the trials.
    pub epochs: usize,
    /// Epochs from one validation to the next.
    pub validate_every: usize,
}

impl Options {
    /// The paper's: hours on a CPU for an hour of trials.
    pub const PAPER: Self = Self {
        n_spatial: 80,
        hidden: [1000, 300],
        dropout: 0.7,
        lr: 5e-5,
        batch: 59,
        epochs: 2000,
        validate_every: 20,
    };
    /// Smaller and faster, of the same kind.
    pub const QUICK: Self =
        Self { n_spatial: 30, hidden: [60, 30], dropout: 0.5, lr: 1e-3, batch: 59, epochs: 60, validate_every: 5 };
}

/// One map, `out = weights · in + bias`, with Adam's moments.
#[derive(Debug, Clone, PartialEq)]
struct Map {
    n_out: usize,
    n_in: usize,
    /// `[out, in]` and then the bias.
    values: Vec<f64>,
    first: Vec<f64>,
    second: Vec<f64>,
}

/// The network.
#[derive(Debug, Clone, PartialEq)]
pub struct Network {
    n_channel: usize,
    n_time: usize,
    maps: [Map; 4],
    n_step: i32,
}

/// What a pass leaves for the way back.
struct Passed {
    /// Inputs of the maps: `[batch · time, channel]` of the first, `[batch, …]` of the others.
    inputs: [Vec<f64>; 4],
    /// Factors of dropout behind the first three maps.
    kept: [Vec<f64>; 3],
    logits: Vec<f64>,
}

impl Map {
    fn new(n_out: usize, n_in: usize, generator: &mut impl Rng) -> Self {
        let size = (1.0 / n_in as f64).sqrt();
        let mut values: Vec<f64> =
            (0..n_out * n_in).map(|_| size * generator.sample::<f64, _>(StandardNormal)).collect();
        values.resize(n_out * (n_in + 1), 0.0);
        Self { n_out, n_in, first: vec![0.0; values.len()], second: vec![0.0; values.len()], values }
    }

    fn forward(&self, x: &[f64]) -> Vec<f64> {
        let n = x.len() / self.n_in;
        let (weights, bias) = self.values.split_at(self.n_out * self.n_in);
        let mut out: Vec<f64> = (0..n).flat_map(|_| bias.iter().copied()).collect();
        let weights = View::rows(weights, (self.n_out, self.n_in), self.n_in).transposed();
        add_product(&mut out, 1.0, 1.0, View::rows(x, (n, self.n_in), self.n_in), weights);
        out
    }

    /// Gradients of the values, and of the input.
    fn backward(&self, x: &[f64], out: &[f64]) -> (Vec<f64>, Vec<f64>) {
        let n = x.len() / self.n_in;
        let mut values = vec![0.0; self.values.len()];
        let (weights, bias) = values.split_at_mut(self.n_out * self.n_in);
        let (rows, gradient) = (View::rows(x, (n, self.n_in), self.n_in), View::rows(out, (n, self.n_out), self.n_out));
        add_product(weights, 0.0, 1.0, gradient.transposed(), rows);
        out.chunks(self.n_out).for_each(|row| bias.iter_mut().zip(row).for_each(|(b, x)| *b += x));
        let mut input = vec![0.0; x.len()];
        let own = View::rows(&self.values, (self.n_out, self.n_in), self.n_in);
        add_product(&mut input, 0.0, 1.0, gradient, own);
        (values, input)
    }

    /// One step of Adam (Kingma and Ba 2015).
    fn update(&mut self, gradient: &[f64], lr: f64, step: i32) {
        let (c1, c2) = (1.0 - 0.9f64.powi(step), 1.0 - 0.999f64.powi(step));
        for (((x, g), m), v) in self.values.iter_mut().zip(gradient).zip(&mut self.first).zip(&mut self.second) {
            *m = 0.9 * *m + 0.1 * g;
            *v = 0.999 * *v + 0.001 * g * g;
            *x -= lr * (*m / c1) / ((*v / c2).sqrt() + 1e-8);
        }
    }
}

impl Network {
    /// An untrained network for trials of `n_channel` rows of `n_time` values.
    pub fn new((n_channel, n_time): (usize, usize), n_class: usize, options: &Options, seed: u64) -> Self {
        let mut generator = keyed(seed, Purpose::Decoder, 0);
        let n_spatial = options.n_spatial.min(n_channel);
        let [a, b] = options.hidden;
        let sizes = [(n_spatial, n_channel), (a, n_spatial * n_time), (b, a), (n_class, b)];
        let maps = sizes.map(|(n_out, n_in)| Map::new(n_out, n_in, &mut generator));
        Self { n_channel, n_time, maps, n_step: 0 }
    }

    /// Of trials `[channel, time]`; with a generator, dropout.
    fn forward(&self, trials: &Labelled, dropout: f64, mut generator: Option<&mut dyn Rng>) -> Passed {
        let (c, t) = (self.n_channel, self.n_time);
        // Time becomes rows, so that the first map is a map like the others: `[trial, time, channel]`.
        let turned = |trial: usize| (0..t).flat_map(move |s| (0..c).map(move |i| (trial, i * t + s)));
        let x: Vec<f64> = (0..trials.len()).flat_map(turned).map(|(trial, at)| trials.row(trial)[at]).collect();
        let (mut inputs, mut kept) = ([x, Vec::new(), Vec::new(), Vec::new()], [const { Vec::new() }; 3]);
        for i in 0..3 {
            let mut out = self.maps[i].forward(&inputs[i]);
            if let Some(generator) = &mut generator {
                let draw =
                    |_| if f64::from(unit(generator.next_u32())) < dropout { 0.0 } else { 1.0 / (1.0 - dropout) };
                kept[i] = (0..out.len()).map(draw).collect();
                out.iter_mut().zip(&kept[i]).for_each(|(x, keep)| *x *= keep);
            }
            inputs[i + 1] = out;
        }
        let logits = self.maps[3].forward(&inputs[3]);
        Passed { inputs, kept, logits }
    }

    /// Mean cross-entropy of a batch, and the gradient of every map.
    fn gradients(&self, batch: &Labelled, dropout: f64, generator: Option<&mut dyn Rng>) -> (f64, [Vec<f64>; 4]) {
        let passed = self.forward(batch, dropout, generator);
        let (n, k) = (batch.len() as f64, self.maps[3].n_out);
        let (mut out, mut loss) = (passed.logits, 0.0);
        for (row, &label) in out.chunks_mut(k).zip(&batch.labels) {
            let highest = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = row.iter().map(|x| (x - highest).exp()).sum();
            loss -= (row[label] - highest - sum.ln()) / n;
            row.iter_mut().for_each(|x| *x = (*x - highest).exp() / sum / n);
            row[label] -= 1.0 / n;
        }
        let mut gradients = [const { Vec::new() }; 4];
        for i in (0..4).rev() {
            let (own, mut input) = self.maps[i].backward(&passed.inputs[i], &out);
            gradients[i] = own;
            if i > 0 && !passed.kept[i - 1].is_empty() {
                input.iter_mut().zip(&passed.kept[i - 1]).for_each(|(x, keep)| *x *= keep);
            }
            out = input;
        }
        (loss, gradients)
    }

    /// The likeliest condition of each trial.
    pub fn predict(&self, trials: &Labelled) -> Vec<usize> {
        let logits = self.forward(trials, 0.0, None).logits;
        let k = self.maps[3].n_out;
        let best = |row: &[f64]| (0..k).rev().max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap_or(0);
        logits.chunks(k).map(best).collect()
    }

    /// Trains on, and keeps the state that was best on `validation`. `progress` hears of every epoch.
    pub fn train(
        &mut self,
        train: &Labelled,
        validation: &Labelled,
        options: &Options,
        seed: u64,
        progress: &mut dyn FnMut() -> Result<()>,
    ) -> Result<()> {
        let mut best = (accuracy(&self.predict(validation), &validation.labels), self.clone());
        for epoch in 0..options.epochs {
            let mut generator = keyed(seed, Purpose::Decoder, 1 + epoch as u64);
            let mut order: Vec<usize> = (0..train.len()).collect();
            order.shuffle(&mut generator);
            for batch in order.chunks(options.batch) {
                let (_, gradients) = self.gradients(&train.pick(batch), options.dropout, Some(&mut generator));
                self.n_step += 1;
                for (map, gradient) in self.maps.iter_mut().zip(&gradients) {
                    map.update(gradient, options.lr, self.n_step);
                }
            }
            if (epoch + 1) % options.validate_every == 0 || epoch + 1 == options.epochs {
                let now = accuracy(&self.predict(validation), &validation.labels);
                if now >= best.0 {
                    best = (now, self.clone());
                }
            }
            progress()?;
        }
        *self = best.1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trials(n: usize) -> Labelled {
        let mut generator = keyed(2, Purpose::Decoder, 99);
        let labels: Vec<usize> = (0..n).map(|i| i % 3).collect();
        let row = |&label: &usize| {
            let noise = (0..12).map(|_| generator.sample::<f64, _>(StandardNormal));
            noise.enumerate().map(|(at, x)| 0.5 * x + if at % 3 == label { 1.0 } else { 0.0 }).collect::<Vec<_>>()
        };
        Labelled { n_feature: 12, rows: labels.iter().flat_map(row).collect(), labels }
    }

    const SMALL: Options =
        Options { n_spatial: 2, hidden: [5, 4], lr: 0.02, epochs: 40, dropout: 0.2, ..Options::QUICK };

    #[test]
    fn gradients_are_finite_differences() {
        let mut network = Network::new((3, 4), 3, &SMALL, 1);
        let batch = trials(7);
        let (_, gradients) = network.gradients(&batch, 0.0, None);
        for (map, gradient) in gradients.iter().enumerate() {
            for (at, gradient) in gradient.iter().enumerate() {
                let mut loss = |step: f64| {
                    network.maps[map].values[at] += step;
                    let loss = network.gradients(&batch, 0.0, None).0;
                    network.maps[map].values[at] -= step;
                    loss
                };
                let slope = (loss(1e-5) - loss(-1e-5)) / 2e-5;
                // The step's square times a third derivative of size 1, and rounding of 1e-16 / 1e-5.
                assert!((slope - gradient).abs() < 1e-8, "{map} {at}: {slope} {gradient}");
            }
        }
    }

    #[test]
    fn it_learns_what_can_be_learnt() {
        let (train, test) = (trials(300), trials(90));
        let mut network = Network::new((3, 4), 3, &SMALL, 1);
        network.train(&train, &test, &SMALL, 1, &mut || Ok(())).unwrap();
        let right = accuracy(&network.predict(&test), &test.labels);
        assert!(right > 0.9, "{right}");
    }
}
