//! What a statistic hands to the report: numbers with their ceilings, figures, tables, text.
//!
//! A statistic is one file with one function that makes a [`Section`] of a [`Comparison`]; the report places it.

use super::bootstrap::centred;
use super::measure::{Measured, Scale};
use crate::recording::{Block, Channel, ChannelKind};
use crate::statistics::quantile::quantile;
use serde::Serialize;
use std::collections::BTreeMap;

/// Real against generated: everything the sections are made of.
pub struct Comparison {
    /// What the figures call the two sides: `real` and `generated`.
    pub sides: (&'static str, &'static str),
    /// The channels, the same in all recordings.
    pub channels: Vec<Channel>,
    /// Sampling rate in Hz.
    pub sfreq: f64,
    /// Mean and standard deviation of the real channels: the unit of amplitudes and traces.
    pub scale: Scale,
    /// The real recording.
    pub real: Measured,
    /// Two stretches of the real recording that share no timestep: what they differ by is the ceiling.
    pub halves: [Measured; 2],
    /// The generated recordings.
    pub generated: Vec<Measured>,
    /// As much of each generated recording as one of the halves. Distances are those of these to the first half: over
    /// stretches of one length and to the same one, a perfect model's are the ceiling's but for chance.
    pub stretches: Vec<Measured>,
    /// The second half with something destroyed on purpose (see `surrogate`).
    pub references: Vec<Measured>,
    /// What distances come out at when blocks of the stretches are drawn again.
    pub draws: Draws,
    /// A few seconds from the middle of the real and of each generated recording.
    pub excerpts: Vec<Block>,
}

/// One part of the report.
#[derive(Default)]
pub struct Section {
    /// Anchor in the page and key in the JSON.
    pub id: &'static str,
    /// Heading.
    pub title: String,
    /// Names of the generated recordings, where they are not those of the report.
    pub columns: Vec<String>,
    /// What the numbers of measures and quantities are of, where it is not channels.
    pub over: &'static str,
    /// What stands above the ceilings, where it is not "real against real".
    pub ceiling: String,
    /// Paragraphs before the figures, HTML.
    pub text: Vec<String>,
    /// Distances per channel, each with its ceiling.
    pub measures: Vec<Measure>,
    /// Properties of each recording by itself.
    pub quantities: Vec<Quantity>,
    /// Further numbers for the JSON.
    pub numbers: serde_json::Map<String, serde_json::Value>,
    /// Figures.
    pub figures: Vec<Figure>,
    /// Tables that are not made of measures and quantities.
    pub tables: Vec<Table>,
    /// Exact definitions and citations, HTML paragraphs for the methods part.
    pub methods: Vec<String>,
    /// Files beside the report: path below its folder, content.
    pub files: Vec<(String, Vec<u8>)>,
}

/// A distance between recordings, channel by channel; 0 is equal.
#[derive(Serialize)]
pub struct Measure {
    /// Key in the JSON.
    #[serde(skip)]
    pub key: &'static str,
    /// Name in tables.
    pub name: &'static str,
    /// Unit of the numbers.
    pub unit: &'static str,
    /// One stretch of the real recording against another.
    pub ceiling: Spread,
    /// The first of them against as much of each generated recording.
    pub generated: Vec<Spread>,
    /// The first of them against each reference, made of the second: what the measure says of a recording without dynamics, or without
    /// anything common to channels.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub references: Vec<Spread>,
    /// How sure the medians are; none where the stretches are too short to say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub intervals: Option<Intervals>,
}

/// What holds 95 % of the draws of a number.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Interval {
    /// 2.5 % of the draws are below.
    pub low: f64,
    /// 2.5 % of the draws are above.
    pub high: f64,
}

/// The intervals of a measure's medians, in its own order.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Intervals {
    /// Of the ceiling.
    pub ceiling: Option<Interval>,
    /// Of the generated recordings.
    pub generated: Vec<Option<Interval>>,
    /// Of the references.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub references: Vec<Option<Interval>>,
}

/// A distance between two recordings' channels of the same index.
pub struct Distance {
    /// Key in the JSON, of no other distance.
    pub key: &'static str,
    /// Name in tables.
    pub name: &'static str,
    /// Unit of the numbers.
    pub unit: &'static str,
    /// What it is of the two recordings' channels of an index.
    pub between: Between,
}

/// A number of two recordings' channels of an index.
pub type Between = Box<dyn Fn(&Measured, &Measured, usize) -> f64 + Send + Sync>;

/// Draws of every distance by its key, the median over channels each: of the ceiling, and of what is held against the first
/// half, in their order; none where a stretch was too short.
#[derive(Default)]
pub struct Draws {
    /// Of one half against the other.
    pub ceiling: Option<BTreeMap<&'static str, Vec<f64>>>,
    /// Of the generated recordings.
    pub generated: Vec<Option<BTreeMap<&'static str, Vec<f64>>>>,
    /// Of the references.
    pub references: Vec<Option<BTreeMap<&'static str, Vec<f64>>>>,
}

/// A property of each recording, channel by channel.
#[derive(Serialize)]
pub struct Quantity {
    /// Key in the JSON.
    #[serde(skip)]
    pub key: &'static str,
    /// Name in tables.
    pub name: &'static str,
    /// Unit of the numbers.
    pub unit: &'static str,
    /// The real recording.
    pub real: Spread,
    /// The two stretches of the real recording.
    pub halves: [Spread; 2],
    /// Each generated recording.
    pub generated: Vec<Spread>,
}

/// One number a channel, and what is typical of them.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Spread {
    /// Median over channels.
    pub median: f64,
    /// 10th percentile over channels.
    pub p10: f64,
    /// 90th percentile over channels.
    pub p90: f64,
    /// Every channel, in the order of the recording.
    pub channels: Vec<f64>,
}

/// Panels that belong together, with a legend and a caption.
pub struct Figure {
    /// Finished SVG elements.
    pub panels: Vec<String>,
    /// How the panels are laid out.
    pub layout: Layout,
    /// CSS class and name of each colour.
    pub legend: Vec<(String, String)>,
    /// What is to be seen, HTML.
    pub caption: String,
}

/// How the panels of a figure are laid out on a wide page; on a narrow one they stand below each other.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// One below the other.
    Single,
    /// Two in a row.
    Pairs,
    /// Three in a row.
    Triples,
}

/// A table of text.
pub struct Table {
    /// What it shows, HTML.
    pub caption: String,
    /// Head of each column.
    pub head: Vec<String>,
    /// Rows; the first cell is the row's head.
    pub rows: Vec<Vec<String>>,
}

impl Measure {
    /// The median of `spread` over the median of the ceiling; none where the ceiling is zero, or one of them no number.
    pub fn ratio(&self, spread: &Spread) -> Option<f64> {
        (self.ceiling.median > 0.0 && spread.median.is_finite()).then(|| spread.median / self.ceiling.median)
    }
}

impl Spread {
    /// Of one value a channel.
    pub fn of(channels: Vec<f64>) -> Self {
        let mut sorted = channels.clone();
        sorted.sort_unstable_by(f64::total_cmp);
        let at = |q| quantile(&sorted, q);
        Self { median: at(0.5), p10: at(0.1), p90: at(0.9), channels }
    }

    /// The channel with the largest value.
    pub fn worst(&self) -> usize {
        (0..self.channels.len()).max_by(|&a, &b| self.channels[a].total_cmp(&self.channels[b])).unwrap_or(0)
    }
}

/// Column by column of equally long rows: 10th percentile, median and 90th percentile over the rows.
pub fn spread_over<'a>(rows: impl Iterator<Item = &'a [f64]> + Clone) -> [Vec<f64>; 3] {
    let n = rows.clone().next().map_or(0, <[f64]>::len);
    let mut spread = [Vec::with_capacity(n), Vec::with_capacity(n), Vec::with_capacity(n)];
    for column in 0..n {
        let mut values: Vec<f64> = rows.clone().map(|row| row[column]).collect();
        values.sort_unstable_by(f64::total_cmp);
        for (out, q) in spread.iter_mut().zip([0.1, 0.5, 0.9]) {
            out.push(quantile(&values, q));
        }
    }
    spread
}

/// Channels that are measured in the same unit.
pub struct Group {
    /// Name in headings.
    pub name: &'static str,
    /// Name of the unit shown.
    pub unit: &'static str,
    /// SI units to the unit shown.
    pub factor: f64,
    /// Indices of the channels.
    pub channels: Vec<usize>,
}

impl Comparison {
    /// The channels by sensor type, in a fixed order; types without channels are left out.
    pub fn groups(&self) -> Vec<Group> {
        let of = |name, unit, factor, kinds: &[ChannelKind]| {
            let channels = (0..self.channels.len()).filter(|&i| kinds.contains(&self.channels[i].kind)).collect();
            Group { name, unit, factor, channels }
        };
        use ChannelKind::*;
        let mut groups = vec![
            of("Magnetometers", "fT", 1e15, &[Mag, RefMeg]),
            of("Gradiometers", "fT/cm", 1e13, &[Grad]),
            of("EEG", "µV", 1e6, &[Eeg]),
            of("Other electrodes", "µV", 1e6, &[Eog, Ecg, Emg]),
            of("Other channels", "a.u.", 1.0, &[Stim, Misc]),
        ];
        groups.retain(|group| !group.channels.is_empty());
        groups
    }

    /// At most `n` channels, evenly spread over the sensor types.
    pub fn spread_channels(&self, n: usize) -> Vec<usize> {
        let all: Vec<usize> = self.groups().into_iter().flat_map(|group| group.channels).collect();
        let n = n.min(all.len());
        (0..n).map(|i| all[(2 * i + 1) * all.len() / (2 * n)]).collect()
    }

    /// The measures of some distances.
    pub fn measures(&self, distances: Vec<Distance>) -> Vec<Measure> {
        distances.into_iter().map(|distance| self.measure(distance)).collect()
    }

    fn measure(&self, Distance { key, name, unit, between }: Distance) -> Measure {
        let all = |a: &Measured, b: &Measured| Spread::of((0..self.channels.len()).map(|i| between(a, b, i)).collect());
        let from_first = |others: &[Measured]| others.iter().map(|other| all(&self.halves[0], other)).collect();
        let (generated, references): (Vec<Spread>, Vec<Spread>) =
            (from_first(&self.stretches), from_first(&self.references));
        let ceiling = all(&self.halves[0], &self.halves[1]);
        let interval = |spread: &Spread, draws: &Option<BTreeMap<&'static str, Vec<f64>>>| {
            centred(spread.median, draws.as_ref()?.get(key)?.clone())
        };
        let each = |spreads: &[Spread], draws: &[Option<_>]| {
            spreads.iter().zip(draws).map(|(spread, draws)| interval(spread, draws)).collect()
        };
        let intervals = self.draws.ceiling.is_some().then(|| Intervals {
            ceiling: interval(&ceiling, &self.draws.ceiling),
            generated: each(&generated, &self.draws.generated),
            references: each(&references, &self.draws.references),
        });
        Measure { key, name, unit, ceiling, generated, references, intervals }
    }

    /// A property, by what it is of one recording's channel.
    pub fn quantity(
        &self,
        key: &'static str,
        name: &'static str,
        unit: &'static str,
        of: impl Fn(&Measured, usize) -> f64,
    ) -> Quantity {
        let all = |m: &Measured| Spread::of((0..self.channels.len()).map(|i| of(m, i)).collect());
        let generated = self.generated.iter().map(all).collect();
        Quantity {
            key,
            name,
            unit,
            real: all(&self.real),
            halves: [all(&self.halves[0]), all(&self.halves[1])],
            generated,
        }
    }

    /// The legend of figures that show the real and all generated recordings.
    pub fn legend(&self) -> Vec<(String, String)> {
        let names = std::iter::once(&self.real).chain(&self.generated).map(|m| m.label.clone());
        names.enumerate().map(|(i, name)| (series(i), name)).collect()
    }
}

/// The CSS class of a recording's colour: 0 is the real one; colours repeat after eight generated ones.
pub fn series(index: usize) -> String {
    format!("s{}", if index == 0 { 0 } else { (index - 1) % 8 + 1 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_as_numpy_has_them() {
        // numpy.quantile([1, 2, 4, 8], [0.1, 0.5, 0.9])
        let spread = Spread::of(vec![8.0, 1.0, 4.0, 2.0]);
        assert_eq!((spread.median, spread.worst()), (3.0, 0));
        assert!((spread.p10 - 1.3).abs() < 1e-12 && (spread.p90 - 6.8).abs() < 1e-12);
        assert_eq!(Spread::of(vec![5.0]), Spread { median: 5.0, p10: 5.0, p90: 5.0, channels: vec![5.0] });
        assert_eq!(spread_over([[1.0, 5.0].as_slice(), &[3.0, 7.0]].into_iter())[1], [2.0, 6.0]);
    }
}
