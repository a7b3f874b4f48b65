//! What the section on hidden states draws.

use super::compare::{Dynamics, EVOKED_SECONDS, Entry};
use super::summary::StateSummary;
use crate::evaluate::chart::{Axis, Chart};
use crate::evaluate::panels::PAIR;
use crate::evaluate::section::{Figure, Layout, series};
use crate::evaluate::text::significant;

/// Seconds of the states' course that are drawn.
const COURSE_SECONDS: f64 = 20.0;

/// The colour of an entry: the two stretches of the real recording come first.
fn class(index: usize) -> String {
    series(index.saturating_sub(1))
}

fn legend(entries: &[Entry]) -> Vec<(String, String)> {
    let name = |(i, entry): (usize, &Entry)| (class(i), if i == 1 { "real".into() } else { entry.label.clone() });
    entries.iter().enumerate().skip(1).map(name).collect()
}

/// Four panels: each statistic, a point for every state in a row for every recording.
pub fn statistics(entries: &[Entry], caption: &str) -> Figure {
    type Of = fn(&StateSummary) -> f64;
    let all: [(&str, &str, Of); 4] = [
        ("Fractional occupancy", "Share of time", |s| s.fractional_occupancy),
        ("Mean lifetime", "Seconds", StateSummary::mean_lifetime),
        ("Mean interval", "Seconds", StateSummary::mean_interval),
        ("Switching rate", "Visits begun in a second", |s| s.switching_rate),
    ];
    let panels = all.iter().map(|(title, label, of)| dots(entries, title, label, of)).collect();
    Figure { panels, layout: Layout::Pairs, legend: legend(entries), caption: caption.into() }
}

fn dots(entries: &[Entry], title: &str, label: &str, of: &dyn Fn(&StateSummary) -> f64) -> String {
    let values = || entries.iter().flat_map(|e| &e.states).map(of).filter(|x| x.is_finite());
    let high = values().fold(0.0, f64::max);
    let names: Vec<(f64, &str)> = entries.iter().enumerate().map(|(i, e)| (-(i as f64), e.label.as_str())).collect();
    let n = entries.len() as f64;
    let y = Axis::linear(-n + 0.4, 0.6, 1, "").with_ticks(&names);
    let x = Axis::linear(0.0, if high > 0.0 { high * 1.05 } else { 1.0 }, 5, label);
    let mut chart = Chart::with_left(160.0, PAIR.0, 76.0 + 30.0 * n, title, x, y);
    for (row, entry) in entries.iter().enumerate() {
        for (state, value) in entry.states.iter().map(of).enumerate() {
            let spread = 0.5 * (state as f64 / (entry.states.len().max(2) - 1) as f64 - 0.5);
            let tooltip = format!("{}, state {}: {}", entry.label, state + 1, significant(value));
            chart.point(&class(row), value, -(row as f64) - spread, &tooltip);
        }
    }
    chart.finish()
}

/// How many visits last longer than a time, both ways of fitting side by side.
pub fn lifetimes(d: &Dynamics) -> Figure {
    let panel = |title: &str, entries: &[Entry]| {
        let longest = entries.iter().flat_map(Entry::lifetimes).fold(0.1, f64::max);
        let fewest = entries.iter().map(|e| 1.0 / e.lifetimes().len().max(10) as f64).fold(0.1, f64::min);
        let x = Axis::log(1.0 / d.sfreq, longest * 1.1, "Lifetime of a visit (s)");
        let mut chart =
            Chart::new(PAIR.0, PAIR.1, title, x, Axis::log(fewest, 1.2, "Share of visits that last longer"));
        for (row, entry) in entries.iter().enumerate().filter(|(_, entry)| entry.missing.is_none()) {
            let mut sorted = entry.lifetimes();
            sorted.sort_unstable_by(f64::total_cmp);
            let n = sorted.len() as f64;
            // A step at every length that occurs.
            let lengths: Vec<&[f64]> = sorted.chunk_by(|a, b| a == b).collect();
            let (mut xs, mut ys, mut left) = (Vec::new(), Vec::new(), n);
            for visits in lengths {
                xs.extend([visits[0]; 2]);
                ys.push(left / n);
                left -= visits.len() as f64;
                ys.push(left / n);
            }
            chart.line(&class(row), &xs, &ys);
        }
        chart.finish()
    };
    let caption = "Lifetimes of the visits to all states together, both axes logarithmic: a straight line is a power law, a \
                   bend downwards an exponential. The two stretches of the real recording are both drawn in its colour. \
                   Left: the real recording’s model says which state is on. Right: each recording has a model of its own.";
    Figure {
        panels: vec![
            panel("States of the real model", &d.applied),
            panel("States of a model of their own", &d.separate),
        ],
        layout: Layout::Pairs,
        legend: legend(&d.applied),
        caption: caption.into(),
    }
}

/// Which state is on, over some seconds.
pub fn courses(d: &Dynamics) -> Figure {
    let n_state = d.fitted.hmm.n_state;
    let mut panels = Vec::new();
    // The second stretch of the real recording would show nothing new.
    for (index, entry) in d.applied.iter().enumerate().filter(|(index, entry)| *index != 1 && entry.missing.is_none()) {
        let n = ((COURSE_SECONDS * d.sfreq) as usize).min(entry.course.len());
        let x = Axis::linear(0.0, n as f64 / d.sfreq, 10, "Time (s)");
        let y = Axis::linear(0.5, n_state as f64 + 0.5, n_state.min(6), "State");
        let name = if index == 0 { "real" } else { &entry.label };
        let mut chart = Chart::new(PAIR.0, 210.0, name, x, y);
        let mut start = 0;
        for visit in entry.course[..n].chunk_by(|a, b| a == b) {
            let (from, to) = (start as f64 / d.sfreq, (start + visit.len()) as f64 / d.sfreq);
            let state = f64::from(visit[0]) + 1.0;
            chart.block(&class(index), (from, to), (state - 0.45, state + 0.45));
            start += visit.len();
        }
        panels.push(chart.finish());
    }
    let caption = "The state that is likeliest at each moment, by the real recording’s model: the first 20 s of each \
                   recording. A model without dynamics of its own jumps about, or stays.";
    Figure { panels, layout: Layout::Pairs, legend: Vec::new(), caption: caption.into() }
}

/// State-evoked curves; none where no recording has events.
pub fn evoked(d: &Dynamics) -> Option<Figure> {
    let shown: Vec<(usize, &Entry)> =
        d.applied.iter().enumerate().filter(|(i, e)| *i != 1 && e.evoked.is_some()).collect();
    let size = |e: &Entry| e.evoked.iter().flatten().flatten().fold(0.0, |m: f64, x| m.max(x.abs()));
    let reach = shown.iter().map(|(_, e)| size(e)).fold(0.02, f64::max) * 1.1;
    let panels = shown.iter().map(|(index, entry)| {
        let curves = entry.evoked.as_ref().expect("those that have events");
        let time: Vec<f64> = (0..curves[0].len()).map(|t| t as f64 / d.sfreq - EVOKED_SECONDS.0).collect();
        let x = Axis::linear(time[0], EVOKED_SECONDS.1, 5, "Time from the onset (s)");
        let name = if *index == 0 { "real" } else { &entry.label };
        let mut chart = Chart::new(PAIR.0, 240.0, name, x, Axis::linear(-reach, reach, 4, "Occupancy − before"));
        chart.vertical("zero", 0.0);
        chart.horizontal("zero", 0.0);
        curves.iter().for_each(|curve| chart.line(&format!("thin {}", class(*index)), &time, curve));
        chart.finish()
    });
    let caption = "State-evoked curves: the mean of each state’s course around the onsets of all conditions, less its mean \
                   over the 0.25 s before; a line a state. States that a stimulus calls or sends away stand out.";
    let panels: Vec<String> = panels.collect();
    (!panels.is_empty()).then(|| Figure { panels, layout: Layout::Pairs, legend: Vec::new(), caption: caption.into() })
}
