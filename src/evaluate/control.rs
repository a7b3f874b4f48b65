//! The control for the sampler itself: what the levels and the nucleus do to a process that is known exactly.
//!
//! A model that knew an autoregressive process perfectly would give the sampler the exact distribution of the next level.
//! Here that is what the sampler gets. Whatever then differs from the process is the sampler's doing, and nobody else's.

use super::measure::{Measured, Source};
use super::process::{Autoregression, Levels};
use super::section::{Comparison, Draws, Figure, Group, Layout, Section};
use super::text::significant;
use super::{amplitude, autocorrelation, spectrum};
use crate::device::Sampler;
use crate::error::Result;
use crate::recording::{Block, Channel, ChannelKind, InMemory, Info, Recording};
use crate::tokens::scheme::Scheme;
use rayon::prelude::*;
use serde_json::json;

/// Lags of the process.
const ORDER: usize = 20;
/// At most this many channels lend their autocorrelation.
const CHANNELS: usize = 8;
/// The control, measured like any recordings.
pub struct Control {
    /// The process ("real"), another run of it (the ceiling), and what the sampler made of it at each p.
    comparison: Comparison,
    scheme: Scheme,
    /// The nuclei shown: 1, then the others from the largest to the smallest.
    top_p: Vec<f32>,
}

impl Control {
    /// Fits processes to channels spread over the real recording, and draws from them: with p = 1, and with each of
    /// `top_p`.
    pub fn new(c: &Comparison, scheme: &Scheme, top_p: &[f32], seed: u64) -> Result<Self> {
        let mut top_p = [&[1.0], top_p].concat();
        top_p.sort_by(|a, b| b.total_cmp(a));
        top_p.dedup();
        let picked = c.spread_channels(CHANNELS);
        let fit = |&channel: &usize| Autoregression::fit(&c.real.autocorrelations[channel], ORDER);
        let processes: Vec<Autoregression> = picked.iter().map(fit).collect();
        let n = 20_000.max((60.0 * c.sfreq).ceil() as usize);
        // Ten seconds are many times the memory of a process of 20 lags fitted to a signal without drift.
        let settle = (10.0 * c.sfreq).ceil() as usize;
        let levels = Levels::new(scheme);

        let names = picked.iter().map(|&i| c.channels[i].name.clone());
        let kind = ChannelKind::Misc;
        let channel = |name| Channel { name, kind, loc: [0.0; 12], coil_type: 0, coord_frame: 0, bad: false };
        let channels: Vec<Channel> = names.map(channel).collect();
        let source = |label: &str, run: u64, draw: &(dyn Fn(&Autoregression, u64) -> Vec<f64> + Sync)| {
            // A keystream of its own for each process and run.
            let rows =
                processes.par_iter().enumerate().map(|(i, p)| draw(p, (run << 32) | i as u64)).collect::<Vec<_>>();
            in_memory(label, &channels, c.sfreq, rows)
        };
        let mut truth = source("the process itself", 0, &|p, index| p.draw(n, settle, seed, index))?;
        let mut again = source("the process again", 1, &|p, index| p.draw(n, settle, seed, index))?;
        let scale = truth.scale(|_| Ok(()))?;
        let measure = |source: &mut Source| source.measure(&scale, |_| Ok(()));
        let mut generated: Vec<Measured> = Vec::new();
        for (run, &top_p) in (2..).zip(&top_p) {
            let how = Sampler { temperature: 1.0, top_k: 0, top_p, greedy: false };
            let draw = |p: &Autoregression, index| p.draw_levels(&levels, &how, n, settle, seed, index);
            generated.push(measure(&mut source(&format!("p = {top_p}"), run, &draw)?)?);
        }
        let halves = [measure(&mut truth)?, measure(&mut again)?];
        let real = measure(&mut truth)?;
        let (sfreq, excerpts) = (c.sfreq, Vec::new());
        let sides = ("the process", "sampled");
        let stretches = generated.clone();
        let references = Vec::new();
        let draws = Draws::default();
        let comparison = Comparison {
            draws,
            sides,
            channels,
            sfreq,
            scale,
            real,
            halves,
            generated,
            stretches,
            references,
            excerpts,
        };
        Ok(Self { comparison, scheme: *scheme, top_p })
    }

    /// The section on the control.
    pub fn section(&self) -> Section {
        let c = &self.comparison;
        let mut measures = Vec::new();
        let mut quantities = Vec::new();
        for section in [spectrum::section(c), amplitude::section(c), autocorrelation::section(c)] {
            measures.extend(section.measures);
            quantities.extend(section.quantities);
        }
        let numbers = [
            ("order", json!(ORDER)),
            ("channels", json!(c.channels.iter().map(|channel| &channel.name).collect::<Vec<_>>())),
            ("n_timestep", json!(c.real.n_timestep)),
            ("scheme", json!(self.scheme)),
        ];
        let text = self.text(&quantities);
        Section {
            id: "control",
            title: "What the sampler does by itself".into(),
            columns: c.generated.iter().map(|m| m.label.clone()).collect(),
            ceiling: "the process, twice".into(),
            text,
            measures,
            quantities,
            numbers: numbers.into_iter().map(|(key, value)| (key.to_string(), value)).collect(),
            figures: vec![self.figure()],
            methods: vec![self.methods()],
            ..Section::default()
        }
    }

    fn text(&self, quantities: &[super::section::Quantity]) -> Vec<String> {
        let of = |key: &str| quantities.iter().find(|q| q.key == key).expect("a quantity of the three sections");
        let last = self.top_p.len() - 1;
        let (small, sd) = (of("small"), of("sd"));
        let percent = |x: f64| format!("{} %", significant(100.0 * x));
        let highest = quantities.iter().rfind(|q| q.key.starts_with("power_ratio"));
        let fast = highest.map_or(String::new(), |q| {
            let (at_1, at_least) = (significant(q.generated[0].median), significant(q.generated[last].median));
            format!("; the power in the {} band changes by {at_least} dB (at p = 1 by {at_1} dB)", q.name)
        });
        vec![
            "Sampling with p below 1 changes a signal even when the model is perfect: of the levels that could come \
             next it keeps only the most probable ones. µ-law levels are narrow near zero, so each of them holds little \
             probability and they are cut first; large, wide levels stay. To see how much of a difference is owed to \
             that, and not to the model, here is a process that is known exactly. There is no model in this section: \
             the sampler is given the true probability of every level."
                .into(),
            format!(
                "With p = {} the share of values within ±0.1 SD is {} instead of {} (median over processes), and the \
                 standard deviation is {} of the true one{fast}. At p = 1 the share is {} and the standard deviation {}. \
                 <b>Read the report with this in mind:</b> where a recording generated with p below 1 differs as the \
                 control with the same p does, the sampler did it; what remains, and all of what differs at p = 1, is \
                 the model’s.",
                self.top_p[last],
                percent(small.generated[last].median),
                percent(small.real.median),
                significant(sd.generated[last].median),
                percent(small.generated[0].median),
                significant(sd.generated[0].median),
            ),
        ]
    }

    fn figure(&self) -> Figure {
        let c = &self.comparison;
        let channels = (0..c.channels.len()).collect();
        let group = Group { name: "Known processes", unit: "SD", factor: 1.0, channels };
        let mut panels = spectrum::pair(c, &group).to_vec();
        panels.extend(amplitude::pair(c, &group));
        let mut legend = c.legend();
        legend.push(("ceiling".into(), "the process against itself".into()));
        let caption = "Spectra and amplitude distribution of autoregressive processes fitted to channels of the real \
                       recording, and of what the sampler makes of them at each p. Left: median over \
                       processes (line) and 10–90 % (shaded). Right: difference from the process itself; grey is the \
                       difference between two independent runs of the process.";
        Figure { panels, layout: Layout::Pairs, legend, caption: caption.into() }
    }

    fn methods(&self) -> String {
        let c = &self.comparison;
        format!(
            "<b>Control of the sampler.</b> For {} channels evenly spread over the recording an AR({ORDER}) process with \
             Gaussian noise is fitted to the autocorrelation (Yule–Walker, Levinson–Durbin recursion). Its next value, \
             given its past, is Gaussian with known mean and variance; the probability of each of the {} levels is the \
             mass of that Gaussian on the level’s interval. The program’s own sampler draws a level, the level’s value \
             is what the process continues from. {} timesteps, after 10 s that are thrown away.",
            c.channels.len(),
            self.scheme.n_level,
            c.real.n_timestep
        )
    }
}

fn in_memory(label: &str, channels: &[Channel], sfreq: f64, rows: Vec<Vec<f64>>) -> Result<Source> {
    let n_timestep = rows[0].len();
    let block = Block { n_channel: rows.len(), n_timestep, data: rows.concat() };
    let info = Info {
        channels: channels.to_vec(),
        sfreq,
        n_timestep,
        first_timestep: 0,
        events: Vec::new(),
        subject: None,
        pass_band: (0.0, sfreq / 2.0),
        meas_date: None,
        line_freq: None,
        dev_head_t: None,
        dig: Vec::new(),
        description: None,
        source: label.into(),
    };
    Ok(Source { label: label.into(), pieces: vec![Recording::new(info, Box::new(InMemory(block)))?] })
}
