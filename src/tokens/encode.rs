//! A prepared recording to tokens, some channels at a time and piece by piece, measuring what that costs. The memory it
//! takes does not grow with the recording.

use super::measure::{ChannelReport, Measure, Sums};
use super::report::Report;
use super::scheme::{Quantiser, Scales, Scheme};
use super::shard::Split;
use crate::error::Result;
use crate::recording::events::Trial;
use crate::recording::marks::kept;
use crate::recording::prepare::Prepared;
use crate::recording::split::Parts;
use rayon::prelude::*;
use std::collections::BTreeMap;
use std::ops::Range;

/// Channels encoded at a time.
const CHANNELS: usize = 64;
/// Timesteps encoded at a time.
const TIMESTEPS: usize = 1 << 16;

/// What a recording is tokenised with.
pub struct Plan<'a> {
    /// The tokenizer.
    pub scheme: Scheme,
    /// Which timesteps belong to which part.
    pub parts: &'a Parts,
    /// Stretches without usable signal, sorted and disjoint.
    pub excluded: &'a [Range<usize>],
    /// Onsets of known conditions.
    pub trials: &'a [Trial],
    /// Names of the conditions.
    pub conditions: &'a [String],
}

impl Plan<'_> {
    /// The timesteps of a part.
    pub fn part(&self, split: Split) -> Range<usize> {
        match split {
            Split::Train => self.parts.train.clone(),
            Split::Validation => self.parts.validation.clone(),
            Split::Test => self.parts.test.clone(),
        }
    }

    /// Fits the scales on the usable stretches of the training part of every channel.
    pub fn fit(&self, prepared: &Prepared) -> Result<Scales> {
        let names: Vec<&str> = prepared.info.channels.iter().map(|channel| channel.name.as_str()).collect();
        let train = kept(self.parts.train.clone(), self.excluded);
        let stretches =
            |channel: usize| train.iter().map(|stretch| &prepared.channel(channel)[stretch.clone()]).collect();
        Scales::fit(&self.scheme, &names, stretches).map_err(|e| e.at(&prepared.info.source))
    }

    /// Encodes every channel, hands the tokens over piece by piece as (channel, first timestep, tokens), and reports.
    /// `name` is the recording's name within the data set. `None` when a signal asked the process to stop.
    pub fn encode(
        &self,
        name: &str,
        prepared: &Prepared,
        scales: &Scales,
        mut each: impl FnMut(usize, usize, &[u8]) -> Result<()>,
    ) -> Result<Option<Report>> {
        let info = &prepared.info;
        let quantiser = Quantiser::new(&self.scheme);
        let parts = Split::ALL.map(|split| self.part(split));
        let measure = Measure::new(info.sfreq, info.pass_band.1, &parts, self.excluded, self.trials);
        let (mut reports, mut totals) = (Vec::new(), [0u64; 256]);
        for first in (0..info.n_channel()).step_by(CHANNELS) {
            let channels = first..info.n_channel().min(first + CHANNELS);
            let mut rows: Vec<Row> = channels
                .map(|channel| {
                    let decoded = quantiser.decoded(scales.channel(channel));
                    Row { channel, decoded, sums: measure.start(), tokens: Vec::new() }
                })
                .collect();
            for start in (0..info.n_timestep).step_by(TIMESTEPS) {
                if crate::interrupt::requested().is_some() {
                    return Ok(None);
                }
                let end = info.n_timestep.min(start + TIMESTEPS);
                rows.par_iter_mut().for_each(|row| {
                    let (signal, scale) = (&prepared.channel(row.channel)[start..end], scales.channel(row.channel));
                    row.tokens.resize(signal.len(), 0);
                    quantiser.encode_signal(scale, signal, &mut row.tokens);
                    measure.push(&mut row.sums, start, signal, &row.tokens, scale, &row.decoded);
                });
                rows.iter().try_for_each(|row| each(row.channel, start, &row.tokens))?;
            }
            let report = |row: &Row| measure.finish(&info.channels[row.channel].name, &row.sums);
            reports.extend(rows.par_iter().map(report).collect::<Vec<ChannelReport>>());
            for row in &rows {
                totals.iter_mut().zip(row.sums.counts).for_each(|(total, n)| *total += n);
            }
        }
        Ok(Some(self.blank_report(name, prepared).summarise(reports, &totals)))
    }

    /// What is known before a channel has been measured.
    fn blank_report(&self, name: &str, prepared: &Prepared) -> Report {
        let count = |condition: usize| self.trials.iter().filter(|t| usize::from(t.condition) == condition).count();
        let trials = self.conditions.iter().enumerate().map(|(i, class)| (class.clone(), count(i + 1))).collect();
        Report {
            recording: name.into(),
            subject: prepared.info.subject.clone(),
            sfreq: prepared.info.sfreq,
            n_timestep: prepared.info.n_timestep,
            parts: self.parts.clone(),
            n_excluded: self.excluded.iter().map(ExactSizeIterator::len).sum(),
            marks: BTreeMap::new(),
            trials,
            scheme: self.scheme,
            error_median: 0.0,
            error_max: 0.0,
            worst_channel: String::new(),
            clipped: 0.0,
            n_level_used: 0,
            entropy_bits: 0.0,
            channels: Vec::new(),
        }
    }
}

/// One channel on its way.
struct Row {
    channel: usize,
    /// What each level stands for, in SI units.
    decoded: Vec<f64>,
    sums: Sums,
    /// Of the present piece.
    tokens: Vec<u8>,
}
