//! The two panels that most sections are made of: all recordings over each other, and their difference from the real
//! one beside the real recording's difference from itself.

use super::chart::{Axis, Chart};
use super::measure::Measured;
use super::section::{Comparison, Group, series, spread_over};

/// 10th percentile, median, 90th percentile over channels, each along the horizontal axis.
pub type Rows = [Vec<f64>; 3];

/// Width and height of one of two panels in a row.
pub const PAIR: (f64, f64) = (420.0, 300.0);

/// The spread over a group's channels of what `row` draws for one of them.
pub fn over_channels(group: &Group, row: impl Fn(usize) -> Vec<f64>) -> Rows {
    let rows: Vec<Vec<f64>> = group.channels.iter().map(|&channel| row(channel)).collect();
    spread_over(rows.iter().map(Vec::as_slice))
}

/// One [`Rows`] for the real recording and one for each generated one.
pub fn of_each(c: &Comparison, group: &Group, row: impl Fn(&Measured, usize) -> Vec<f64>) -> Vec<Rows> {
    std::iter::once(&c.real).chain(&c.generated).map(|m| over_channels(group, |i| row(m, i))).collect()
}

/// What `between` draws for the ceiling (half against half), and for the first half against each generated recording.
pub fn of_pairs(
    c: &Comparison,
    group: &Group,
    between: impl Fn(&Measured, &Measured, usize) -> Vec<f64>,
) -> (Rows, Vec<Rows>) {
    let rows = |a: &Measured, b: &Measured| over_channels(group, |i| between(a, b, i));
    (rows(&c.halves[0], &c.halves[1]), c.stretches.iter().map(|m| rows(&c.halves[0], m)).collect())
}

/// All recordings over each other: shaded 10–90 % of channels, median as a line.
pub fn overlay(title: &str, x: Axis, y: Axis, xs: &[f64], recordings: &[Rows]) -> String {
    let mut chart = Chart::new(PAIR.0, PAIR.1, title, x, y);
    for (index, [low, _, high]) in recordings.iter().enumerate() {
        chart.band(&series(index), xs, low, high);
    }
    for (index, [_, median, _]) in recordings.iter().enumerate() {
        chart.line(&series(index), xs, median);
    }
    chart.finish()
}

/// Differences from the real recording over the grey band of the ceiling.
pub fn difference(title: &str, x: Axis, y: Axis, xs: &[f64], ceiling: &Rows, generated: &[Rows]) -> String {
    let mut chart = Chart::new(PAIR.0, PAIR.1, title, x, y);
    chart.band("ceiling", xs, &ceiling[0], &ceiling[2]);
    chart.horizontal("zero", 0.0);
    for (index, [low, _, high]) in generated.iter().enumerate() {
        chart.band(&format!("faint {}", series(index + 1)), xs, low, high);
    }
    for (index, [_, median, _]) in generated.iter().enumerate() {
        chart.line(&series(index + 1), xs, median);
    }
    chart.finish()
}

/// How far from zero the differences reach, at least `least`.
pub fn reach(least: f64, ceiling: &Rows, generated: &[Rows]) -> f64 {
    let values = generated.iter().chain([ceiling]).flatten().flatten();
    values.filter(|x| x.is_finite()).fold(least, |m, x| m.max(x.abs())) * 1.05
}
