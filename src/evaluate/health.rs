//! The health of a rollout: does it drift, collapse or repeat itself as time goes on?
//!
//! Windows of ten seconds, one after the other, are held against the windows of the real recording: a generated recording
//! that is healthy lies where they lie, at its end as at its beginning.

use super::chart::{Axis, Chart};
use super::section::{Comparison, Figure, Layout, Section, Table, series};
use super::svg::escape;
use super::text::significant;
use crate::statistics::quantile::{median, quantile};
use realfft::num_complex::Complex;
use realfft::{ComplexToReal, RealFftPlanner, RealToComplex};
use serde_json::{Value, json};
use std::collections::BTreeSet;
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
/// A fault is what more than this share of the windows have.
const OFTEN: f64 = 0.1;
/// And what chance brings to fewer than this share of healthy recordings.
const CHANCE: f64 = 0.01;
/// Real windows that a verdict needs.
const WINDOWS_MIN: usize = 40;

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

/// A fault: what it is a sign of, an index into [`SIGNS`]; whether above the real range; a recording that has it, and
/// channels that have it, in words.
struct Fault {
    sign: usize,
    above: bool,
    recording: &'static str,
    channels: &'static str,
}

const FAULTS: [Fault; 4] = [
    Fault { sign: 0, above: true, recording: "drifts", channels: "drift" },
    Fault { sign: 1, above: false, recording: "collapses", channels: "collapse" },
    Fault { sign: 1, above: true, recording: "grows", channels: "grow" },
    Fault { sign: 2, above: true, recording: "repeats itself", channels: "repeat themselves" },
];

/// The median over channels of each window.
fn course(channels: &[Vec<Window>], of: Of) -> Vec<f64> {
    let n = channels.iter().map(Vec::len).min().unwrap_or(0);
    (0..n).map(|t| median(channels.iter().map(|channel| of(&channel[t]))).unwrap_or(f64::NAN)).collect()
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

/// The probability that of `m` windows `count` or more lie on one side of the range of `n` others, if all are alike and
/// come in any order: `count` or more of them beyond the real window just inside the range, which is beta-binomial.
fn by_chance(count: usize, m: usize, n: usize) -> f64 {
    // Of the real windows, as many as lie from that one on.
    let beyond = (n - ((n - 1) as f64 * (1.0 - TAIL)).floor() as usize) as f64;
    let (all, within) = (m as f64, (n + 1) as f64 - beyond);
    let mut exactly: f64 = (0..m).map(|i| (within + i as f64) / ((n + 1 + i) as f64)).product();
    let mut more = if count == 0 { exactly } else { 0.0 };
    for k in 0..m {
        let before = k as f64;
        exactly *= (all - before) / (before + 1.0) * (beyond + before) / (within + all - before - 1.0);
        more += if k + 1 >= count { exactly } else { 0.0 };
    }
    more
}

/// Whether more than a tenth of a course's windows have a fault, and more than chance brings, were that asked `n_asked`
/// times.
fn is_at_fault(fault: &Fault, real: &[f64], course: &[f64], n_asked: usize) -> bool {
    let (_, (below, above)) = outside(real, course);
    let share = if fault.above { above } else { below };
    let count = (share * course.len() as f64).round() as usize;
    let is_far = fault.sign != 0 || median(course.iter().copied()).unwrap_or(0.0) >= DRIFT;
    is_far && share > OFTEN && by_chance(count, course.len(), real.len()) < CHANCE / n_asked as f64
}

/// What is wrong with a recording: by the median over channels, and channel by channel, each against its own real windows.
#[derive(Debug, PartialEq)]
struct Health {
    /// For each of [`FAULTS`] whether the recording has it.
    recording: [bool; FAULTS.len()],
    /// For each of [`FAULTS`] the channels that have it.
    channels: [Vec<usize>; FAULTS.len()],
}

/// The health of a recording; none where there are too few real windows for a range.
fn health(real: &[Vec<Window>], other: &[Vec<Window>]) -> Option<Health> {
    let n = real.iter().map(Vec::len).min().unwrap_or(0);
    if n < WINDOWS_MIN || other.iter().any(Vec::is_empty) {
        return None;
    }
    let of_all = |fault: &Fault| {
        let of = SIGNS[fault.sign].3;
        is_at_fault(fault, &course(real, of), &course(other, of), FAULTS.len())
    };
    let of_each = |fault: &Fault| {
        let of = |windows: &[Window]| windows.iter().map(SIGNS[fault.sign].3).collect::<Vec<f64>>();
        let n_asked = FAULTS.len() * real.len();
        let is_faulty = |&i: &usize| is_at_fault(fault, &of(&real[i]), &of(&other[i]), n_asked);
        (0..real.len()).filter(is_faulty).collect()
    };
    Some(Health { recording: FAULTS.each_ref().map(of_all), channels: FAULTS.each_ref().map(of_each) })
}

impl Health {
    /// Channels with any fault.
    fn n_channel(&self) -> usize {
        self.channels.iter().flatten().collect::<BTreeSet<_>>().len()
    }

    /// In words, channel by channel.
    fn by_channel(&self, n_channel: usize) -> String {
        let some = FAULTS.iter().zip(&self.channels).filter(|(_, channels)| !channels.is_empty());
        let words: Vec<String> =
            some.map(|(fault, channels)| format!("{} {}", channels.len(), fault.channels)).collect();
        let few = if words.is_empty() { String::new() } else { format!("<br><small>{}</small>", words.join(", ")) };
        format!("{} of {n_channel}{few}", self.n_channel())
    }

    /// In words: healthy is what has no fault as a whole, nor in any channel.
    fn verdict(&self) -> String {
        let has = FAULTS.iter().zip(self.recording).filter(|(_, has)| *has);
        let mut said: Vec<String> = has.map(|(fault, _)| fault.recording.into()).collect();
        match self.n_channel() {
            0 => (),
            1 => said.push("one channel at fault".into()),
            n => said.push(format!("{n} channels at fault")),
        }
        if said.is_empty() {
            "<span class=\"good\">healthy</span>".into()
        } else {
            format!("<span class=\"poor\">{}</span>", said.join(", "))
        }
    }
}

/// The section on the health of rollouts.
pub fn section(c: &Comparison) -> Section {
    let mut section = Section { id: "health", title: "Health over time".into(), ..Section::default() };
    let real: Vec<Vec<f64>> = SIGNS.iter().map(|sign| course(&c.real.windows, sign.3)).collect();
    let n_real = real[0].len();
    if n_real < 2 {
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
    if n_real < WINDOWS_MIN {
        section.text.push(format!(
            "<b>No verdict</b>: the real recording has {n_real} such windows, and the range of fewer than {WINDOWS_MIN} is so \
             uncertain that healthy recordings would often lie outside it."
        ));
    }
    let mut found = serde_json::Map::new();
    let mut rows = Vec::new();
    for (index, m) in std::iter::once(&c.real).chain(&c.generated).chain(&c.references).enumerate() {
        let mut row = vec![escape(&m.label)];
        let mut numbers = serde_json::Map::new();
        for (sign, real) in SIGNS.iter().zip(&real) {
            let course = course(&m.windows, sign.3);
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
        // The range is made of the real recording: it says nothing of its health.
        let health = if index == 0 { None } else { health(&c.real.windows, &m.windows) };
        row.push(health.as_ref().map_or("–".into(), |health| health.by_channel(c.channels.len())));
        row.push(health.as_ref().map_or("–".into(), Health::verdict));
        if let Some(health) = health {
            let names = |channels: &Vec<usize>| channels.iter().map(|&i| &c.channels[i].name).collect::<Vec<_>>();
            let faults = FAULTS.iter().zip(health.recording).zip(&health.channels);
            let each = faults.map(|((fault, has), channels)| {
                (fault.channels.to_string(), json!({"recording": has, "channels": names(channels)}))
            });
            numbers.insert("faults".into(), Value::Object(each.collect()));
        }
        found.insert(m.label.clone(), Value::Object(numbers));
        rows.push(row);
    }
    section.numbers = [("recordings".to_string(), Value::Object(found))].into_iter().collect();
    section.tables = vec![Table {
        caption:
            "Share of windows outside the range of 98 % of the real ones, median over channels; then the channels that \
                  are at fault by themselves, each held against its own real windows."
                .into(),
        head: ["", "drift: |mean|", "size: SD", "repetition", "channels at fault", "verdict"]
            .map(String::from)
            .to_vec(),
        rows,
    }];
    section.figures = vec![figure(c, &real)];
    section.methods = vec![METHODS.into()];
    section
}

/// Pearson's correlation of a course with time.
fn correlated_with_time(course: &[f64]) -> f64 {
    let time: Vec<f64> = (0..course.len()).map(|t| t as f64).collect();
    crate::evaluate::dynamics::matching::correlation(&time, course)
}

const METHODS: &str = "<b>Health.</b> Windows of 10 s without overlap, channels in standard deviations of the real ones; the \
    median over channels of the absolute mean, of the standard deviation, and of the largest autocorrelation (unbiased) at \
    lags from 0.5 to 5 s, which is 1 where a window repeats itself exactly. The range is that of the real recording’s \
    windows between their 1st and 99th percentiles. A fault is more than a tenth of the windows on one side of it, where as \
    many would come by chance in fewer than one of a hundred recordings like the real one (beta-binomial, the windows \
    taken as independent, divided by the number of faults and, channel by channel, of channels that are looked for); a \
    drift also has to be of half a standard deviation in the median window. Channel by channel, each has the range of its \
    own real windows. There is no verdict with fewer than 40 real windows.";

fn figure(c: &Comparison, real: &[Vec<f64>]) -> Figure {
    let longest = c.generated.iter().map(|m| m.n_timestep).max().unwrap_or(0) as f64 / c.sfreq / 60.0;
    let mut panels = Vec::new();
    for ((_, name, label, of), real) in SIGNS.iter().zip(real) {
        let courses: Vec<Vec<f64>> = c.generated.iter().map(|m| course(&m.windows, *of)).collect();
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

    #[test]
    fn chance_by_hand() {
        // Of 41 windows in any order the last is one of the two largest; of 42 the last two are.
        assert!((by_chance(1, 1, 40) - 2.0 / 41.0).abs() < 1e-15);
        assert!((by_chance(2, 2, 40) - 6.0 / (41.0 * 42.0)).abs() < 1e-15);
        // Each of both alone, or both: 2 · 2/41 − 6/(41 · 42).
        assert!((by_chance(1, 2, 40) - (4.0 / 41.0 - 6.0 / (41.0 * 42.0))).abs() < 1e-15);
        assert!((by_chance(0, 3600, 40) - 1.0).abs() < 1e-9);
    }

    /// Windows of healthy channels, all alike; `seed` makes others.
    fn healthy(n_channel: usize, n: usize, seed: u64) -> Vec<Vec<Window>> {
        let draw = |c: usize, at: usize| {
            f64::from(crate::random::uniform_at(seed, crate::random::Purpose::Control, c as u64, at as u64)) - 0.5
        };
        let window = |c: usize, t: usize| Window {
            mean: 0.2 * draw(c, 3 * t),
            sd: 1.0 + 0.1 * draw(c, 3 * t + 1),
            repetition: 0.3 + 0.1 * draw(c, 3 * t + 2),
        };
        (0..n_channel).map(|c| (0..n).map(|t| window(c, t)).collect()).collect()
    }

    #[test]
    fn verdicts_see_the_whole_and_each_channel() {
        let real = healthy(30, 60, 1);
        for n in [1, 6, 30, 500] {
            let found = health(&real, &healthy(30, n, 2)).unwrap();
            assert!(found.verdict().contains("healthy") && found.n_channel() == 0, "{n}: {found:?}");
        }
        // A tenth of the channels: the medians do not notice.
        let mut sick = healthy(30, 30, 2);
        let silent = Window { mean: 0.0, sd: 0.0, repetition: 1.0 };
        sick[4].fill(silent);
        sick[9].iter_mut().for_each(|w| w.repetition = 0.99);
        sick[20].iter_mut().skip(15).for_each(|w| w.mean = 3.0);
        let found = health(&real, &sick).unwrap();
        assert_eq!(found.recording, [false; 4]);
        assert_eq!(found.channels, [vec![20], vec![4], vec![], vec![4, 9]]);
        assert_eq!(found.verdict(), "<span class=\"poor\">3 channels at fault</span>");
        assert!(found.by_channel(30).starts_with("3 of 30<br><small>1 drift, 1 collapse, 2 repeat themselves"));
        sick.fill(vec![silent; 30]);
        let all = health(&real, &sick).unwrap().verdict();
        assert!(all.contains("collapses, repeats itself, 30 channels at fault"), "{all}");
        // A range of few windows is none.
        assert_eq!(health(&healthy(30, WINDOWS_MIN - 1, 1), &sick), None);
        assert!(health(&healthy(30, WINDOWS_MIN, 1), &sick).is_some());
    }
}
