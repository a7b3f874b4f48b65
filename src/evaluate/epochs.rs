//! Trials cut out of a recording: what evoked responses and decoders are made of.

use super::measure::{Scale, Source};
use crate::error::Result;
use crate::random::{Purpose, keyed};
use rand::RngExt;
use std::collections::BTreeSet;

/// Seconds before and after the onset (the paper, section 5.4).
pub const WINDOW_SECONDS: (f64, f64) = (0.1, 1.0);

/// Trials of one recording, in standard deviations of the real channels.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Epochs {
    /// Name of the recording.
    pub label: String,
    /// Number of channels.
    pub n_channel: usize,
    /// Timesteps of a trial.
    pub n_time: usize,
    /// Timesteps before the onset.
    pub n_before: usize,
    /// Sampling rate, Hz.
    pub sfreq: f64,
    /// The condition of each trial, an index into the names that were asked for.
    pub conditions: Vec<usize>,
    /// `[trial, channel, time]`.
    pub data: Vec<f32>,
}

impl Epochs {
    /// Number of trials.
    pub fn len(&self) -> usize {
        self.conditions.len()
    }

    /// Whether there are no trials.
    pub fn is_empty(&self) -> bool {
        self.conditions.is_empty()
    }

    /// One channel of one trial.
    pub fn row(&self, trial: usize, channel: usize) -> &[f32] {
        &self.data[(trial * self.n_channel + channel) * self.n_time..][..self.n_time]
    }

    /// The trials of a condition, in order of time.
    pub fn of(&self, condition: usize) -> Vec<usize> {
        (0..self.len()).filter(|&trial| self.conditions[trial] == condition).collect()
    }

    /// Time of each timestep from the onset, s.
    pub fn times(&self) -> Vec<f64> {
        (0..self.n_time).map(|t| (t as f64 - self.n_before as f64) / self.sfreq).collect()
    }

    /// Cuts the trials of the named conditions that lie wholly within a piece.
    pub fn cut(
        source: &mut Source,
        scale: &Scale,
        names: &[String],
        progress: &mut dyn FnMut(usize) -> Result<()>,
    ) -> Result<Self> {
        let index = |label: &str| names.iter().position(|name| name == label);
        let mut before = 0;
        let mut onsets = Vec::new();
        for piece in &source.pieces {
            let found = piece.info.events.iter().filter_map(|e| Some((before + e.onset, index(&e.label)?)));
            onsets.extend(found);
            before += piece.info.n_timestep;
        }
        Self::cut_at(source, scale, &onsets, progress)
    }

    /// As many windows as `n`, at random times, all of condition 0.
    pub fn cut_at_random(
        source: &mut Source,
        scale: &Scale,
        n: usize,
        seed: u64,
        progress: &mut dyn FnMut(usize) -> Result<()>,
    ) -> Result<Self> {
        let mut generator = keyed(seed, Purpose::Bootstrap, u64::MAX);
        let mut onsets: Vec<(usize, usize)> =
            (0..n).map(|_| (generator.random_range(0..source.n_timestep()), 0)).collect();
        onsets.sort_unstable();
        Self::cut_at(source, scale, &onsets, progress)
    }

    /// Cuts windows around onsets (in timesteps over all pieces, sorted), each with its condition.
    fn cut_at(
        source: &mut Source,
        scale: &Scale,
        onsets: &[(usize, usize)],
        progress: &mut dyn FnMut(usize) -> Result<()>,
    ) -> Result<Self> {
        let (sfreq, n_channel) = (source.info().sfreq, source.info().n_channel());
        let steps = |seconds: f64| (seconds * sfreq).round() as usize;
        let (n_before, n_after) = (steps(WINDOW_SECONDS.0), steps(WINDOW_SECONDS.1));
        let n_time = n_before + n_after;
        let (mut from, mut whole) = (0, Vec::new());
        for piece in &source.pieces {
            let to = from + piece.info.n_timestep;
            let inside = |onset: usize| onset >= from + n_before && onset + n_after <= to;
            whole.extend(onsets.iter().copied().filter(|&(onset, _)| inside(onset)));
            from = to;
        }
        let mut data = vec![0.0; whole.len() * n_channel * n_time];
        source.blocks(|start, block, _| {
            let end = start + block.n_timestep;
            for (trial, (onset, _)) in whole.iter().enumerate() {
                let first = onset - n_before;
                let (from, to) = (first.max(start), (first + n_time).min(end));
                if from >= to {
                    continue;
                }
                for channel in 0..n_channel {
                    let (mean, sd) = (scale.mean[channel], scale.sd[channel]);
                    let out = &mut data[(trial * n_channel + channel) * n_time + from - first..][..to - from];
                    let samples = &block.channel(channel)[from - start..to - start];
                    out.iter_mut().zip(samples).for_each(|(out, x)| *out = ((x - mean) / sd) as f32);
                }
            }
            progress(block.n_timestep)
        })?;
        let conditions = whole.iter().map(|&(_, condition)| condition).collect();
        Ok(Self { label: source.label.clone(), n_channel, n_time, n_before, sfreq, conditions, data })
    }
}

/// The labels of a recording's events, numbers in numeric order, others in alphabetical order.
pub fn labels(source: &Source) -> Vec<String> {
    let all: BTreeSet<&str> = source.pieces.iter().flat_map(|p| &p.info.events).map(|e| e.label.as_str()).collect();
    let mut labels: Vec<String> = all.into_iter().map(String::from).collect();
    if labels.iter().all(|label| label.parse::<i64>().is_ok()) {
        labels.sort_by_key(|label| label.parse::<i64>().unwrap_or(i64::MAX));
    }
    labels
}
