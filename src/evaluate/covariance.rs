//! Covariance between channels: what they have in common at the same moment.

use super::measure::Measured;
use super::section::{Between, Comparison, Distance, Figure, Layout, Section, Table};
use super::svg::{Svg, escape};
use super::text::significant;
use super::topography::colour;
use crate::evaluate::dynamics::matching::correlation;
use crate::statistics::product::{View, add_product};
use rayon::prelude::*;

/// Channels that a map shows at most.
const CHANNELS: usize = 40;
/// Rows of the covariance that are summed by one thread.
const ROWS: usize = 32;

/// Sums of products of all channels.
pub struct CovarianceSum {
    n_channel: usize,
    products: Vec<f64>,
    sums: Vec<f64>,
    n: f64,
}

impl CovarianceSum {
    /// Nothing added yet.
    pub fn new(n_channel: usize) -> Self {
        Self { n_channel, products: vec![0.0; n_channel * n_channel], sums: vec![0.0; n_channel], n: 0.0 }
    }

    /// Adds the same timesteps of every channel, in order, in units in which they are of size 1.
    pub fn push<'a>(&mut self, channels: impl Iterator<Item = &'a [f64]>) {
        let rows: Vec<&[f64]> = channels.collect();
        let (c, n) = (self.n_channel, rows.first().map_or(0, |row| row.len()));
        self.sums.iter_mut().zip(&rows).for_each(|(sum, row)| *sum += row.iter().sum::<f64>());
        self.n += n as f64;
        let all = rows.concat();
        self.products.par_chunks_mut(ROWS * c).enumerate().for_each(|(part, out)| {
            let m = out.len() / c;
            let left = View::rows(&all[part * ROWS * n..], (m, n), n);
            add_product(out, 1.0, 1.0, left, View::rows(&all, (c, n), n).transposed());
        });
    }

    /// Pearson's correlation of each channel with each; 0 with one that never changes.
    pub fn correlations(&self) -> Vec<Vec<f64>> {
        let (c, n) = (self.n_channel, self.n.max(1.0));
        let covariance = |i: usize, j: usize| self.products[i * c + j] / n - self.sums[i] / n * (self.sums[j] / n);
        let sd: Vec<f64> = (0..c).map(|i| covariance(i, i).max(0.0).sqrt()).collect();
        let of =
            |i: usize, j: usize| if sd[i] > 1e-9 && sd[j] > 1e-9 { covariance(i, j) / (sd[i] * sd[j]) } else { 0.0 };
        (0..c).map(|i| (0..c).map(|j| of(i, j)).collect()).collect()
    }
}

/// The mean over the other channels of a function of two rows of correlations.
fn over_others(a: &[f64], b: &[f64], channel: usize, of: impl Fn(f64, f64) -> f64) -> f64 {
    let others = a.iter().zip(b).enumerate().filter(|(i, _)| *i != channel);
    others.map(|(_, (&a, &b))| of(a, b)).sum::<f64>() / (a.len() - 1).max(1) as f64
}

/// The distance of correlations between channels.
pub fn distances() -> Vec<Distance> {
    let (key, name, unit) = ("correlation", "Covariance: mean |difference of correlation|", "");
    let between: Between =
        Box::new(|a, b, i| over_others(&a.correlations[i], &b.correlations[i], i, |a, b| (a - b).abs()));
    vec![Distance { key, name, unit, between }]
}

/// The section on covariance.
pub fn section(c: &Comparison) -> Section {
    let mut section = Section { id: "covariance", title: "Covariance between channels".into(), ..Section::default() };
    if c.channels.len() < 2 {
        section.text = vec!["A single channel has nothing in common with others.".into()];
        return section;
    }
    section.text = vec![
        "Sensors lie beside each other and see the same sources, so real channels vary together. <b>A model that generates \
         each channel by itself has almost none of this</b>: its channels share their conditions and nothing else, so what \
         they have in common is what the conditions evoke, however good each channel is. That is how such a model is built, \
         not a failure of its training."
            .into(),
    ];
    section.measures = c.measures(distances());
    section.quantities = vec![c.quantity("correlation_size", "Mean |correlation| with other channels", "", |m, i| {
        over_others(&m.correlations[i], &m.correlations[i], i, |a, _| a.abs())
    })];
    section.tables = vec![pattern(c)];
    section.figures = vec![maps(c)];
    let patterns = alike(c).into_iter().map(|(label, r)| (label, r.into())).collect::<serde_json::Map<_, _>>();
    section.numbers = [("pattern_correlation".to_string(), patterns.into())].into_iter().collect();
    section.methods = vec![METHODS.into()];
    section
}

/// How alike the pattern of correlations is to that of the first stretch, over all pairs of channels.
fn alike(c: &Comparison) -> Vec<(String, f64)> {
    let pairs = |m: &Measured| {
        let row = |i: usize| m.correlations[i][..i].to_vec();
        (0..c.channels.len()).flat_map(row).collect::<Vec<f64>>()
    };
    let first = pairs(&c.halves[0]);
    let others = std::iter::once(("real, another stretch", &c.halves[1]))
        .chain(c.stretches.iter().chain(&c.references).map(|m| (m.label.as_str(), m)));
    others.map(|(label, m)| (label.to_string(), correlation(&first, &pairs(m)))).collect()
}

fn pattern(c: &Comparison) -> Table {
    let found = alike(c);
    Table {
        caption: "Pattern: correlation, over all pairs of channels, of their correlations with those in one stretch of the real \
                  recording."
            .into(),
        head: std::iter::once(String::new()).chain(found.iter().map(|(label, _)| escape(label))).collect(),
        rows: vec![std::iter::once("Pattern".into()).chain(found.iter().map(|(_, r)| significant(*r))).collect()],
    }
}

const METHODS: &str = "<b>Covariance.</b> Pearson’s correlation of every channel with every other at the same moment, which is \
    their covariance in standard deviations of each recording’s own channels. Distance: for each channel the mean over \
    the others of the absolute difference of two correlations.";

/// The correlations of some channels as a map, a recording each.
fn maps(c: &Comparison) -> Figure {
    let shown = c.spread_channels(CHANNELS);
    let recordings = std::iter::once(("real", &c.halves[0])).chain(c.stretches.iter().map(|m| (m.label.as_str(), m)));
    let panels = recordings.map(|(label, m)| map(label, m, &shown)).collect();
    let caption = format!(
        "Correlations of {} channels evenly spread over the sensor types, from −1 (dark) to 1 (light); the diagonal is 1.",
        shown.len()
    );
    Figure { panels, layout: Layout::Triples, legend: Vec::new(), caption }
}

fn map(title: &str, m: &Measured, shown: &[usize]) -> String {
    const SIZE: f64 = 240.0;
    let side = SIZE / shown.len() as f64;
    let mut svg = Svg::new(300.0, SIZE + 36.0, title);
    svg.text("title start", (14.0, 17.0), title);
    for (row, &i) in shown.iter().enumerate() {
        for (column, &j) in shown.iter().enumerate() {
            let corner = (14.0 + column as f64 * side, 28.0 + row as f64 * side);
            svg.rect("cell", corner, (side, side), Some(&colour(0.5 + 0.5 * m.correlations[i][j])));
        }
    }
    svg.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equals_the_definition_for_any_blocks() {
        let value = |i: usize, t: usize| ((t * (i + 2)) as f64 * 0.37).sin() + (t as f64 * 0.11).cos() + i as f64;
        let rows: Vec<Vec<f64>> = (0..40).map(|i| (0..97).map(|t| value(i, t)).collect()).collect();
        for block in [1, 10, 97] {
            let mut sum = CovarianceSum::new(41);
            for start in (0..97).step_by(block) {
                let end = (start + block).min(97);
                let constant = vec![3.0; end - start];
                sum.push(rows.iter().map(|row| &row[start..end]).chain([constant.as_slice()]));
            }
            let got = sum.correlations();
            for (i, a) in rows.iter().enumerate() {
                for (j, b) in rows.iter().enumerate() {
                    // Sums of 97 products below 41²: the difference of squares leaves 1e-16 · 41² · 97.
                    assert!((got[i][j] - correlation(a, b)).abs() < 1e-10, "{block} {i} {j}");
                }
                assert_eq!((got[i][40], got[40][i]), (0.0, 0.0), "a channel that never changes");
            }
        }
    }
}
