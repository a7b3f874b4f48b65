//! A prepared recording to tokens, channel by channel, measuring what that costs.

use super::measure::Measure;
use super::report::Report;
use super::scheme::{Quantiser, Scales, Scheme};
use super::shard::Split;
use crate::error::Result;
use crate::recording::events::Trial;
use crate::recording::prepare::Prepared;
use crate::recording::split::Split as Parts;
use rayon::prelude::*;
use std::ops::Range;

/// Channels encoded at a time: their tokens are in memory together.
const CHUNK: usize = 64;

/// What a recording is tokenised with.
pub struct Plan<'a> {
    /// The tokenizer.
    pub scheme: Scheme,
    /// Which timesteps belong to which part.
    pub parts: &'a Parts,
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

    /// Fits the scales on the training part of every channel.
    pub fn fit(&self, prepared: &Prepared) -> Result<Scales> {
        let names: Vec<&str> = prepared.info.channels.iter().map(|channel| channel.name.as_str()).collect();
        let train = self.parts.train.clone();
        Scales::fit(&self.scheme, &names, |channel| &prepared.channel(channel)[train.clone()])
            .map_err(|e| e.at(&prepared.info.source))
    }

    /// Encodes every channel, hands its tokens over in the order of the channels, and reports. `name` is the
    /// recording's name within the data set. `None` when a signal asked the process to stop.
    pub fn encode(
        &self,
        name: &str,
        prepared: &Prepared,
        scales: &Scales,
        mut each: impl FnMut(usize, &[u8]) -> Result<()>,
    ) -> Result<Option<Report>> {
        let info = &prepared.info;
        let quantiser = Quantiser::new(&self.scheme);
        let measure = Measure {
            sfreq: info.sfreq,
            low_pass: info.pass_band.1,
            parts: Split::ALL.map(|split| (split, self.part(split))),
            trials: self.trials,
        };
        let one = |channel: usize| {
            let (signal, scale) = (prepared.channel(channel), scales.channel(channel));
            let mut tokens = vec![0; signal.len()];
            quantiser.encode_signal(scale, signal, &mut tokens);
            let name = &info.channels[channel].name;
            let (report, counts) = measure.channel(name, signal, &tokens, scale, &quantiser.decoded(scale));
            (tokens, report, counts)
        };
        let (mut reports, mut totals) = (Vec::new(), [0u64; 256]);
        for start in (0..info.n_channel()).step_by(CHUNK) {
            if crate::interrupt::requested().is_some() {
                return Ok(None);
            }
            let end = info.n_channel().min(start + CHUNK);
            let chunk: Vec<_> = (start..end).into_par_iter().map(one).collect();
            for (channel, (tokens, report, counts)) in (start..end).zip(chunk) {
                each(channel, &tokens)?;
                reports.push(report);
                totals.iter_mut().zip(counts).for_each(|(total, n)| *total += n);
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
