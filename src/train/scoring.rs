//! Predictions on held-out windows: every channel and every window is counted by itself, for a model and for the anchors
//! alike.

use super::batch::Batch;
use super::metrics::{Metrics, Sums};
use super::numbering::Numbering;
use crate::device::{Device, Dtype, Score, Tensor};
use crate::error::Result;
use crate::model::kind::Model;
use crate::model::network::Network;
use crate::tokens::dataset::Dataset;
use crate::tokens::window::{Window, Windows};
use serde::{Deserialize, Serialize};

/// Sums over the targets of some windows.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Scored {
    /// For each channel, over all windows.
    pub channels: Vec<Sums>,
    /// For each window, nats over all channels: one number a window, so that hours of data take little memory.
    pub window_nats: Vec<f64>,
}

/// [`Scored`] as it goes into a file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Means over all targets.
    #[serde(flatten)]
    pub all: Metrics,
    /// Standard error of `nats`: the spread of the windows' means over the root of their number. The windows' targets do
    /// not overlap, but neighbouring windows are alike, so it is rather too small.
    pub nats_standard_error: Option<f64>,
    /// Means over each channel's targets.
    pub channels: Vec<Metrics>,
}

/// How much better or worse one prediction is than another, window by window.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    /// Mean difference in nats a token, over all windows; negative where the first is better.
    pub nats: f64,
    /// Its standard error: the windows' differences are the units, the root of their number divides their spread. As
    /// neighbouring windows are alike, it is rather too small. None for a single window.
    pub standard_error: Option<f64>,
}

impl Scored {
    /// Nothing yet, for so many channels and windows.
    pub fn new(n_channel: usize, n_window: usize) -> Self {
        Self { channels: vec![Sums::default(); n_channel], window_nats: vec![0.0; n_window] }
    }

    /// Counts the sums of one channel of one window.
    pub fn count(&mut self, channel: usize, window: usize, sums: &Sums) {
        self.channels[channel].add(sums);
        self.window_nats[window] += sums.nats;
    }

    /// Means over all targets.
    pub fn metrics(&self) -> Metrics {
        let mut all = Sums::default();
        self.channels.iter().for_each(|channel| all.add(channel));
        all.metrics()
    }

    /// Means, for all and for each channel, and the standard error over windows.
    pub fn summary(&self) -> Summary {
        let (_, nats_standard_error) = mean_and_error(&self.nats());
        let channels = self.channels.iter().map(Sums::metrics).collect();
        Summary { all: self.metrics(), nats_standard_error, channels }
    }
}

impl Scored {
    /// Each window's mean nats: all windows have as many targets.
    fn nats(&self) -> Vec<f64> {
        let n_target: f64 = self.channels.iter().map(|channel| channel.n_target).sum();
        let n_target = n_target / self.window_nats.len() as f64;
        self.window_nats.iter().map(|nats| nats / n_target).collect()
    }

    /// What `self` needs more than `other` on the same windows. What is hard for both does not count into the standard
    /// error, which is that of the windows' differences.
    pub fn minus(&self, other: &Self) -> Difference {
        let differences: Vec<f64> = self.nats().iter().zip(other.nats()).map(|(a, b)| a - b).collect();
        let (nats, standard_error) = mean_and_error(&differences);
        Difference { nats, standard_error }
    }
}

/// The mean, and its standard error where there are at least two values.
fn mean_and_error(values: &[f64]) -> (f64, Option<f64>) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let variance = values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (n - 1.0);
    (mean, Some((variance / n).sqrt()).filter(|error| error.is_finite()))
}

/// `n` of a split's windows in file order, evenly spread; all of them if `n` is none or more than there are.
pub fn spread(windows: &Windows, n: Option<usize>) -> Vec<Window> {
    let len = windows.len();
    let n = n.map_or(len, |n| n.min(len));
    (0..n).map(|i| windows.in_order(i * len / n)).collect()
}

/// What scoring works in, besides the model: room for a batch of windows, and for the scores of its sequences.
#[derive(Debug)]
pub struct Scorer {
    n_target: usize,
    batch: Batch,
    scores: Tensor,
    rows: Vec<f32>,
}

impl Scorer {
    /// Room for as many windows as it takes to keep the device busy, from the data set whose `numbering` this is.
    pub fn new(device: &mut dyn Device, model: &Model, numbering: &Numbering) -> Result<Self> {
        let n_channel = model.n_channel();
        let n_window = device.max_sequences().div_ceil(n_channel);
        let len = n_window * n_channel * Score::LEN;
        let batch = Batch::new(device, model, n_window, numbering)?;
        Ok(Self { n_target: model.n_target(), batch, scores: device.alloc(Dtype::F32, len)?, rows: vec![0.0; len] })
    }

    /// Scores the model on `windows`; none if a signal asked to stop. `done` hears of every batch: how many windows.
    pub fn score(
        &mut self,
        device: &mut dyn Device,
        network: &Network,
        dataset: &Dataset,
        windows: &[Window],
        mut done: impl FnMut(usize),
    ) -> Result<Option<Scored>> {
        let (n_channel, n_target) = (self.batch.n_channel(), self.n_target as f64);
        let mut scored = Scored::new(n_channel, windows.len());
        let n_window = self.batch.n_window();
        for (part, windows) in windows.chunks(n_window).enumerate() {
            let n = self.batch.fill(device, dataset, windows.iter().copied())?;
            if !network.loss(device, &self.batch.inputs, n, self.scores, false)? {
                return Ok(None);
            }
            let scores = self.scores.slice(0, n * Score::LEN);
            device.download(scores, bytemuck::cast_slice_mut(&mut self.rows[..n * Score::LEN]))?;
            for (sequence, row) in self.rows[..n * Score::LEN].chunks_exact(Score::LEN).enumerate() {
                let (window, channel) = (sequence / n_channel, sequence % n_channel);
                let peak = dataset.shards[windows[window].shard].scales.peak[channel];
                let squared = f64::from(row[3]);
                let sums = Sums {
                    n_target,
                    nats: f64::from(row[0]),
                    top1: f64::from(row[1]),
                    top5: f64::from(row[2]),
                    squared,
                    squared_z: squared * peak * peak,
                };
                scored.count(channel, part * n_window + window, &sums);
            }
            done(windows.len());
        }
        Ok(Some(scored))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scored(nats: &[f64]) -> Scored {
        let mut scored = Scored::new(1, nats.len());
        for (window, &nats) in nats.iter().enumerate() {
            scored.count(0, window, &Sums { n_target: 2.0, nats: 2.0 * nats, ..Sums::default() });
        }
        scored
    }

    #[test]
    fn differences_are_paired() {
        // Windows differ by units, the two predictions by hundredths: means 0.02, deviations 0.01, 0, -0.01.
        let (a, b) = (scored(&[3.03, 5.02, 4.01]), scored(&[3.0, 5.0, 4.0]));
        let difference = a.minus(&b);
        assert!((difference.nats - 0.02).abs() < 1e-12);
        assert!((difference.standard_error.unwrap() - 0.01 / 3f64.sqrt()).abs() < 1e-12);
        assert!((b.minus(&a).nats + 0.02).abs() < 1e-12);
        // The first prediction's own: deviations -0.99, 1.00, -0.01.
        assert!((a.summary().nats_standard_error.unwrap() - (0.9901f64 / 3.0).sqrt()).abs() < 1e-12);
        assert_eq!(scored(&[1.0]).minus(&scored(&[2.0])), Difference { nats: -1.0, standard_error: None });
    }
}
