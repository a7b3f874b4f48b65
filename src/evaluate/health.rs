//! The health of a rollout: does it drift, collapse or repeat itself as time goes on?
//!
//! Windows of ten seconds, one after the other, are held against the windows of the real recording: a generated recording
//! that is healthy lies where they lie, at its end as at its beginning.

use super::chart::{Axis, Chart};
use super::measure::Measured;
use super::section::{Comparison, Figure, Layout, Section, Table, series};
use super::svg::escape;
use super::text::significant;
use crate::statistics::quantile::{median, quantile};
use realfft::num_complex::Complex;
use realfft::{ComplexToReal, RealFftPlanner, RealToComplex};
use serde_json::{Value, json};
use std::sync::Arc;

/// Length of a window, s.
pub const WINDOW_SECONDS: f64 = 10.0;
/// A loop's period, s: from where rhythms no longer count as loops to half a window.
const LOOP_SECONDS: (f64, f64) = (0.5, 5.0);
/// The real windows' range: all but this share at either end.
const TAIL: f64 = 0.01;

/// A typical window must be this far off, in standard deviations, for a recording to be said to drift: where the real one
/// was high-passed its own windows are off by next to nothing.
const DRIFT: f64 = 0.5;

/// One channel over one window, in standard deviations of the real channel.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Window {
    /// Mean.
    pub mean: f64,
    /// Standard deviation.
    pub sd: f64,
    /// The largest autocorrelation at lags of half a second and more: 1 for a signal that repeats itself exactly.
    pub repetition: f64,
}

/// What the channels share: lengths and transforms.
pub struct Watcher {
    n: usize,
    lags: (usize, usize),
    forward: Arc<dyn RealToComplex<f64>>,
    inverse: Arc<dyn ComplexToReal<f64>>,
}

/// What one channel has gathered so far.
#[derive(Clone, Default)]
pub struct Watch {
    pending: Vec<f64>,
    /// Whole windows.
    pub windows: Vec<Window>,
}

impl Watcher {
    /// For a sampling rate in Hz.
    pub fn new(sfreq: f64) -> Self {
        let steps = |seconds: f64| ((seconds * sfreq).round() as usize).max(1);
        let n = steps(WINDOW_SECONDS).max(2);
        let mut planner = RealFftPlanner::new();
        let len = (2 * n).next_power_of_two();
        let lags = (steps(LOOP_SECONDS.0).min(n - 1), steps(LOOP_SECONDS.1).min(n - 1));
        Self { n, lags, forward: planner.plan_fft_forward(len), inverse: planner.plan_fft_inverse(len) }
    }

    /// Takes in the next samples of a channel.
    pub fn push(&self, watch: &mut Watch, samples: &[f64]) {
        watch.pending.extend_from_slice(samples);
        let whole = watch.pending.len() / self.n * self.n;
        for window in watch.pending[..whole].chunks(self.n) {
            watch.windows.push(self.window(window));
        }
        watch.pending.drain(..whole);
    }

    /// The recording has a gap here: what has not filled a window does not count.
    pub fn gap(&self, watch: &mut Watch) {
        watch.pending.clear();
    }

    fn window(&self, x: &[f64]) -> Window {
        let n = x.len() as f64;
        let mean = x.iter().sum::<f64>() / n;
        let squares: f64 = x.iter().map(|x| (x - mean).powi(2)).sum();
        let mut padded = self.forward.make_input_vec();
        padded.iter_mut().zip(x).for_each(|(out, x)| *out = x - mean);
        let mut spectrum = self.forward.make_output_vec();
        self.forward.process(&mut padded, &mut spectrum).expect("planned lengths");
        spectrum.iter_mut().for_each(|value| *value = Complex::from(value.norm_sqr()));
        let mut products = self.inverse.make_output_vec();
        self.inverse.process(&mut spectrum, &mut products).expect("planned lengths");
        // Unbiased: a signal that repeats itself has 1 at the period, however few periods fit.
        let at = |lag: usize| products[lag] / products.len() as f64 / squares * n / (n - lag as f64);
        let largest = (self.lags.0..=self.lags.1).map(at).fold(f64::NEG_INFINITY, f64::max);
        // A window that never changes repeats itself, too.
        let repetition = if squares > 1e-12 * n { largest } else { 1.0 };
        Window { mean, sd: (squares / n).sqrt(), repetition }
    }
}

/// What a sign is of a window.
type Of = fn(&Window) -> f64;

/// What is watched: key, name, axis, of a window.
const SIGNS: [(&str, &str, &str, Of); 3] = [
    ("drift", "Drift", "|mean| (SD)", |w| w.mean.abs()),
    ("size", "Size", "SD (real SD)", |w| w.sd),
    ("repetition", "Repetition", "Largest autocorrelation", |w| w.repetition),
];

/// The median over channels of each window.
fn course(m: &Measured, of: fn(&Window) -> f64) -> Vec<f64> {
    let n = m.windows.iter().map(Vec::len).min().unwrap_or(0);
    (0..n).map(|t| median(m.windows.iter().map(|channel| of(&channel[t]))).unwrap_or(f64::NAN)).collect()
}

/// The range of the real windows, and the share of a course's windows below and above it.
fn outside(real: &[f64], course: &[f64]) -> ((f64, f64), (f64, f64)) {
    let mut sorted = real.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let (low, high) = (quantile(&sorted, TAIL), quantile(&sorted, 1.0 - TAIL));
    let share =
        |is: &dyn Fn(f64) -> bool| course.iter().filter(|x| is(**x)).count() as f64 / course.len().max(1) as f64;
    ((low, high), (share(&|x| x < low), share(&|x| x > high)))
}

/// The section on the health of rollouts.
pub fn section(c: &Comparison) -> Section {
    let mut section = Section { id: "health", title: "Health over time".into(), ..Section::default() };
    let real: Vec<Vec<f64>> = SIGNS.iter().map(|sign| course(&c.real, sign.3)).collect();
    if real[0].len() < 2 {
        section.text = vec![format!(
            "Windows of {WINDOW_SECONDS} s are compared, and the real recording has fewer than two of them."
        )];
        return section;
    }
    section.text = vec![
        "A rollout can run away, fall silent, or come to repeat itself, minutes or hours after it began. Windows of ten seconds \
         are held against the range of the real recording’s windows; about one in fifty of a healthy recording lies outside."
            .into(),
    ];
    let mut found = serde_json::Map::new();
    let mut rows = Vec::new();
    for m in std::iter::once(&c.real).chain(&c.generated).chain(&c.references) {
        let mut row = vec![escape(&m.label)];
        let mut numbers = serde_json::Map::new();
        for (sign, real) in SIGNS.iter().zip(&real) {
            let course = course(m, sign.3);
            let ((low, high), (below, above)) = outside(real, &course);
            let percent = |share: f64| significant((1000.0 * share).round() / 10.0);
            let cell = match course.is_empty() {
                true => "–".into(),
                false => format!("{} % below, {} % above", percent(below), percent(above)),
            };
            row.push(cell);
            let trend = correlated_with_time(&course);
            numbers.insert(
                sign.0.into(),
                json!({"real_range": [low, high], "below": below, "above": above, "trend": trend, "windows": course}),
            );
        }
        row.push(verdict(&numbers));
        found.insert(m.label.clone(), Value::Object(numbers));
        rows.push(row);
    }
    section.numbers = [("recordings".to_string(), Value::Object(found))].into_iter().collect();
    section.tables = vec![Table {
        caption: "Share of windows outside the range of 98 % of the real ones, median over channels.".into(),
        head: ["", "drift: |mean|", "size: SD", "repetition", "verdict"].map(String::from).to_vec(),
        rows,
    }];
    section.figures = vec![figure(c, &real)];
    section.methods = vec![METHODS.into()];
    section
}

/// In words, what more than a tenth of the windows say.
fn verdict(numbers: &serde_json::Map<String, Value>) -> String {
    let share = |sign: &str, side: &str| numbers[sign][side].as_f64().unwrap_or(0.0);
    let means = numbers["drift"]["windows"].as_array().into_iter().flatten().filter_map(Value::as_f64);
    let drifted = median(means).unwrap_or(0.0);
    let often = [
        (if drifted >= DRIFT { share("drift", "above") } else { 0.0 }, "drifts"),
        (share("size", "below"), "collapses"),
        (share("size", "above"), "grows"),
        (share("repetition", "above"), "repeats itself"),
    ];
    let said: Vec<&str> = often.iter().filter(|(share, _)| *share > 0.1).map(|(_, word)| *word).collect();
    if said.is_empty() {
        "<span class=\"good\">healthy</span>".into()
    } else {
        format!("<span class=\"poor\">{}</span>", said.join(", "))
    }
}

/// Pearson's correlation of a course with time.
fn correlated_with_time(course: &[f64]) -> f64 {
    let time: Vec<f64> = (0..course.len()).map(|t| t as f64).collect();
    crate::evaluate::dynamics::matching::correlation(&time, course)
}

const METHODS: &str = "<b>Health.</b> Windows of 10 s without overlap, channels in standard deviations of the real ones; the \
    median over channels of the absolute mean, of the standard deviation, and of the largest autocorrelation (unbiased) at \
    lags from 0.5 to 5 s, which is 1 where a window repeats itself exactly. The range is that of the real recording’s \
    windows between their 1st and 99th percentiles. More than a tenth of the windows outside counts as a fault; a drift also has to be of half a standard deviation.";

fn figure(c: &Comparison, real: &[Vec<f64>]) -> Figure {
    let longest = c.generated.iter().map(|m| m.n_timestep).max().unwrap_or(0) as f64 / c.sfreq / 60.0;
    let mut panels = Vec::new();
    for ((_, name, label, of), real) in SIGNS.iter().zip(real) {
        let courses: Vec<Vec<f64>> = c.generated.iter().map(|m| course(m, *of)).collect();
        let ((low, high), _) = outside(real, real);
        let all = || courses.iter().flatten().copied().filter(|x| x.is_finite()).chain([low, high]);
        let (least, most) = (all().fold(f64::INFINITY, f64::min), all().fold(f64::NEG_INFINITY, f64::max));
        let margin = 0.08 * (most - least).max(1e-6);
        let x = Axis::linear(0.0, longest, 4, "Time (min)");
        let mut chart = Chart::new(300.0, 220.0, name, x, Axis::linear(least - margin, most + margin, 4, label));
        chart.band("ceiling", &[0.0, longest], &[low; 2], &[high; 2]);
        for (i, course) in courses.iter().enumerate() {
            let time: Vec<f64> = (0..course.len()).map(|t| (t as f64 + 0.5) * WINDOW_SECONDS / 60.0).collect();
            chart.line(&series(i + 1), &time, course);
        }
        panels.push(chart.finish());
    }
    let mut legend: Vec<(String, String)> = c.legend().into_iter().skip(1).collect();
    legend.push(("ceiling".into(), "98 % of the real windows".into()));
    let caption = "Windows of ten seconds over the course of each generated recording, median over channels.";
    Figure { panels, layout: Layout::Triples, legend, caption: caption.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn windows(x: &[f64], block: usize) -> Vec<Window> {
        let (watcher, mut watch) = (Watcher::new(100.0), Watch::default());
        x.chunks(block).for_each(|samples| watcher.push(&mut watch, samples));
        watch.windows
    }

    fn noise(n: usize) -> Vec<f64> {
        let draw = |t| crate::random::uniform_at(1, crate::random::Purpose::Control, 9, t as u64);
        (0..n).map(|t| f64::from(draw(t)) - 0.5).collect()
    }

    #[test]
    fn loops_silence_and_drift_are_seen() {
        let fresh = noise(3000);
        let looped: Vec<f64> = (0..3000).map(|t| fresh[t % 170]).collect();
        let drifting: Vec<f64> = (0..3000).map(|t| fresh[t] + t as f64 * 0.001).collect();
        for block in [1, 999, 3000] {
            let all = windows(&fresh, block);
            assert_eq!((all.len(), all.clone()), (3, windows(&fresh, 1000)));
            // Of 450 lags of white noise the largest is about 3.5 / √500.
            assert!(
                all.iter().all(|w| w.repetition < 0.3 && w.mean.abs() < 0.1 && (w.sd - 0.289).abs() < 0.02),
                "{all:?}"
            );
            assert!(windows(&looped, block).iter().all(|w| w.repetition > 0.95));
            assert!(windows(&drifting, block)[2].mean > 2.0);
        }
        let silent = windows(&[0.0; 1000], 1000)[0];
        assert_eq!((silent.mean, silent.sd, silent.repetition), (0.0, 0.0, 1.0));
    }

    #[test]
    fn shares_outside_the_range() {
        let real: Vec<f64> = (0..101).map(f64::from).collect();
        let (range, shares) = outside(&real, &[-5.0, 0.5, 50.0, 200.0]);
        assert_eq!((range, shares), ((1.0, 99.0), (0.5, 0.25)));
    }
}
