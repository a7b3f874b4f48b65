//! What the section on evoked responses draws.

use super::responses::{Estimate, averages, bands};
use super::section::{Entry, Evoked};
use crate::evaluate::chart::{Axis, Chart};
use crate::evaluate::section::{Figure, Layout, series};
use crate::evaluate::svg::Svg;
use crate::evaluate::text::{listed, significant};
use crate::evaluate::topography::colour;

/// Channels whose averages are drawn.
const CHANNELS: usize = 6;
/// Conditions of which a matrix is drawn at most: more would be too small to see.
const CONDITIONS_MAX: usize = 20;

/// The colour of an entry: the real recording's own, then the generated ones', then the references'.
fn class(index: usize) -> String {
    series(index)
}

fn legend<'a>(entries: impl Iterator<Item = (usize, &'a Entry)>) -> Vec<(String, String)> {
    entries.map(|(i, entry)| (class(i), entry.label.clone())).collect()
}

fn rows(curve: &[Estimate]) -> [Vec<f64>; 3] {
    let of = |value: fn(&Estimate) -> f64| curve.iter().map(value).collect();
    [of(|e| e.low), of(|e| e.value), of(|e| e.high)]
}

/// The size of the response over all channels, of every set of trials.
pub fn sizes(found: &Evoked) -> Figure {
    let times = found.epochs[0].times();
    // Shuffling the conditions does not change the mean over them.
    let shown =
        || found.entries.iter().enumerate().map(|(i, (_, e))| (i, e)).filter(|(_, e)| !e.label.ends_with("shuffled"));
    let high = shown().flat_map(|(_, e)| &e.power.curve).fold(0.0, |m: f64, e| m.max(e.high));
    let x = || Axis::linear(times[0], times[times.len() - 1], 6, "Time from the onset (s)");
    let mut chart = Chart::new(
        520.0,
        280.0,
        "Size of the response",
        x(),
        Axis::linear(0.0, high * 1.05, 5, "RMS over channels (SD)"),
    );
    chart.vertical("zero", 0.0);
    for (i, entry) in shown() {
        let [low, _, high] = rows(&entry.power.curve);
        chart.band(&class(i), &times, &low, &high);
    }
    for (i, entry) in shown() {
        chart.line(&class(i), &times, &rows(&entry.power.curve)[1]);
    }
    let caption = "Root mean square over channels of the mean response, all conditions together; shaded: 95 % of bootstrap draws \
                   of the trials. What stays at random times is noise that the average has not removed.";
    Figure { panels: vec![chart.finish()], layout: Layout::Single, legend: legend(shown()), caption: caption.into() }
}

/// The averages of the channels that respond most in the real recording.
pub fn channels(found: &Evoked, seed: u64) -> Figure {
    let (epochs, n_before) = (&found.epochs[0], found.epochs[0].n_before);
    let reference = averages(epochs, &found.reference).pooled;
    let energy = |channel: usize| reference[channel][n_before..].iter().map(|x| x * x).sum::<f64>();
    let mut order: Vec<usize> = (0..epochs.n_channel).collect();
    order.sort_by(|&a, &b| energy(b).total_cmp(&energy(a)));
    order.truncate(CHANNELS);
    let n_generated = found.epochs.len() - 2;
    let shown: Vec<(usize, &Entry)> =
        found.entries.iter().enumerate().take(1 + n_generated).map(|(i, (_, e))| (i, e)).collect();
    let curves: Vec<Vec<Vec<Estimate>>> =
        shown.iter().map(|&(i, e)| bands(&found.epochs[found.entries[i].0], &e.chosen, &order, seed)).collect();
    let times = epochs.times();
    let panels = (0..order.len()).map(|place| {
        let all = || curves.iter().flat_map(|c| &c[place]);
        let reach = all().fold(0.0, |m: f64, e| m.max(e.high.abs()).max(e.low.abs())) * 1.05;
        let title = found.channels[order[place]].clone();
        let x = Axis::linear(times[0], times[times.len() - 1], 4, "Time (s)");
        let mut chart = Chart::new(300.0, 200.0, &title, x, Axis::linear(-reach, reach, 4, ""));
        chart.vertical("zero", 0.0);
        chart.horizontal("zero", 0.0);
        for (&(i, _), curves) in shown.iter().zip(&curves) {
            let [low, _, high] = rows(&curves[place]);
            chart.band(&class(i), &times, &low, &high);
        }
        for (&(i, _), curves) in shown.iter().zip(&curves) {
            chart.line(&class(i), &times, &rows(&curves[place])[1]);
        }
        chart.finish()
    });
    let caption = "The channels with the largest mean response in the real recording’s first half of trials, all conditions \
                   together, in standard deviations of the signal; shaded: 95 % of bootstrap draws of the trials. Drawn for \
                   the real recording’s other half and for as many generated trials.";
    Figure {
        panels: panels.collect(),
        layout: Layout::Triples,
        legend: legend(shown.iter().copied()),
        caption: caption.into(),
    }
}

/// Every condition of the one against every condition of the other; none with a single condition, or with many.
pub fn matrices(found: &Evoked) -> Option<Figure> {
    let k = found.names.len();
    if !(2..=CONDITIONS_MAX).contains(&k) {
        return None;
    }
    let shown = || found.entries.iter().filter(|(_, e)| !e.label.ends_with("times"));
    let panels = shown().map(|(_, e)| matrix(&e.label, &e.likeness.matrix, &found.names, (-1.0, 1.0))).collect();
    let caption = format!(
        "Correlation of each condition’s average in the real recording’s first half of trials (rows: {}) with each \
         condition’s average elsewhere (columns, in the same order), mean over channels, from −1 (dark) to 1 (light); the \
         number is on the diagonal. A model that ignores its condition has rows without a peak on the diagonal.",
        listed(&found.names)
    );
    Some(Figure {
        panels,
        layout: Layout::Triples,
        legend: Vec::new(),
        caption: crate::evaluate::svg::escape(&caption),
    })
}

/// A square of numbers as colours, from dark at the first of `range` to light at the second.
pub fn matrix(title: &str, values: &[Vec<f64>], names: &[String], range: (f64, f64)) -> String {
    const SIZE: f64 = 200.0;
    let (k, left, top) = (values.len(), 60.0, 28.0);
    let side = SIZE / k as f64;
    let mut svg = Svg::new(300.0, top + SIZE + 26.0, title);
    svg.text("title start", (left, 17.0), title);
    for (i, row) in values.iter().enumerate() {
        for (j, value) in row.iter().enumerate() {
            let corner = (left + j as f64 * side, top + i as f64 * side);
            let share = (value - range.0) / (range.1 - range.0);
            svg.rect("cell", corner, (side, side), Some(&colour(share)));
            if i == j && k <= 8 {
                let at = (corner.0 + side / 2.0, corner.1 + side / 2.0 + 4.0);
                svg.text(if share > 0.6 { "middle on-light" } else { "middle on-dark" }, at, &significant(*value));
            }
        }
        if k <= 12 {
            let short: String = names[i].chars().take(8).collect();
            svg.text("tick end", (left - 6.0, top + (i as f64 + 0.5) * side + 4.0), &short);
            svg.text("tick middle", (left + (i as f64 + 0.5) * side, top + SIZE + 17.0), &short);
        }
    }
    svg.finish()
}
