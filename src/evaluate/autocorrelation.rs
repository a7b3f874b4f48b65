//! Autocorrelation up to 2.5 s, streaming, through the Fourier transform.
//!
//! r(k) = Σ (x(t) − m)(x(t + k) − m) / Σ (x(t) − m)², m the recording's own mean: the biased estimate, which is a
//! valid (positive semi-definite) autocorrelation whatever the data.

use super::chart::Axis;
use super::panels;
use super::section::{Between, Comparison, Distance, Figure, Layout, Section};
use realfft::num_complex::Complex;
use realfft::{ComplexToReal, RealFftPlanner, RealToComplex};
use std::sync::Arc;

/// The longest lag in seconds: the reach of all the models (256 timesteps at 100 Hz), rounded down.
pub const MAX_LAG_SECONDS: f64 = 2.5;

/// What the channels of one recording share: the longest lag and the transforms.
pub struct Correlator {
    /// Longest lag, in timesteps.
    pub max_lag: usize,
    forward: Arc<dyn RealToComplex<f64>>,
    inverse: Arc<dyn ComplexToReal<f64>>,
}

/// What one channel has gathered so far.
#[derive(Clone, Default)]
pub struct CorrelationSum {
    /// Up to `max_lag` samples already counted, which new ones still pair with, then the new ones.
    pending: Vec<f64>,
    /// How many of `pending` are counted already.
    n_counted: usize,
    /// Σ over chunks of FFT(new) · conj(FFT(past and new)): the sum of lagged products, still in frequency.
    cross: Vec<Complex<f64>>,
    /// The first `max_lag` samples since the last gap.
    head: Vec<f64>,
    /// Timesteps since the last gap.
    n_since_gap: usize,
    /// Lag by lag: sum of the first and the last k samples of every stretch between gaps.
    edges: Vec<f64>,
    /// Lag by lag: number of pairs.
    n_pair: Vec<f64>,
    total: f64,
    n_timestep: usize,
}

impl Correlator {
    /// Plans for a sampling rate in Hz.
    pub fn new(sfreq: f64) -> Self {
        let max_lag = ((MAX_LAG_SECONDS * sfreq).round() as usize).max(1);
        // Eight times the lag: seven eighths of every transform are new samples.
        let len = (8 * max_lag).next_power_of_two().max(64);
        let mut planner = RealFftPlanner::new();
        Self { max_lag, forward: planner.plan_fft_forward(len), inverse: planner.plan_fft_inverse(len) }
    }

    /// Takes in the next samples of a channel (best already roughly centred and scaled: sums of squares are kept).
    pub fn push(&self, sum: &mut CorrelationSum, samples: &[f64]) {
        sum.total += samples.iter().sum::<f64>();
        sum.n_timestep += samples.len();
        sum.n_since_gap += samples.len();
        let missing = self.max_lag - sum.head.len();
        sum.head.extend(samples.iter().take(missing));
        let n_new = self.forward.len() - self.max_lag;
        let mut rest = samples;
        while !rest.is_empty() {
            let free = n_new - (sum.pending.len() - sum.n_counted);
            let (now, later) = rest.split_at(free.min(rest.len()));
            sum.pending.extend_from_slice(now);
            rest = later;
            if sum.pending.len() - sum.n_counted == n_new {
                self.count(sum);
            }
        }
    }

    /// Pairs the new samples with themselves and the past, then keeps the last `max_lag` as the new past.
    fn count(&self, sum: &mut CorrelationSum) {
        if sum.pending.len() == sum.n_counted {
            return;
        }
        let mut both = self.forward.make_input_vec();
        both[..sum.pending.len()].copy_from_slice(&sum.pending);
        let mut new = both.clone();
        new[..sum.n_counted].fill(0.0);
        let (mut both_f, mut new_f) = (self.forward.make_output_vec(), self.forward.make_output_vec());
        self.forward.process(&mut both, &mut both_f).expect("planned lengths");
        self.forward.process(&mut new, &mut new_f).expect("planned lengths");
        sum.cross.resize(both_f.len(), Complex::default());
        for ((cross, new), both) in sum.cross.iter_mut().zip(&new_f).zip(&both_f) {
            *cross += new * both.conj();
        }
        let keep = sum.pending.len().min(self.max_lag);
        sum.pending.drain(..sum.pending.len() - keep);
        sum.n_counted = keep;
    }

    /// The recording has a gap here, or ends: samples on its two sides are not paired.
    pub fn gap(&self, sum: &mut CorrelationSum) {
        self.count(sum);
        sum.edges.resize(self.max_lag + 1, 0.0);
        sum.n_pair.resize(self.max_lag + 1, 0.0);
        let tail: Vec<f64> = sum.pending.iter().rev().copied().collect();
        let mut edge = 0.0;
        for lag in 0..=self.max_lag {
            sum.edges[lag] += edge;
            sum.n_pair[lag] += sum.n_since_gap.saturating_sub(lag) as f64;
            edge += sum.head.get(lag).unwrap_or(&0.0) + tail.get(lag).unwrap_or(&0.0);
        }
        sum.pending.clear();
        sum.head.clear();
        (sum.n_counted, sum.n_since_gap) = (0, 0);
    }

    /// r(0) = 1 to r(max_lag). Ends with a gap. A channel that never changes has r(k) = 0 for k > 0.
    pub fn finish(&self, mut sum: CorrelationSum) -> Vec<f64> {
        self.gap(&mut sum);
        let mut products = self.inverse.make_output_vec();
        if !sum.cross.is_empty() {
            // The imaginary parts of the first and last bin are zero by construction, rounding included.
            self.inverse.process(&mut sum.cross, &mut products).expect("planned lengths");
        }
        let mean = sum.total / sum.n_timestep.max(1) as f64;
        let len = self.forward.len() as f64;
        let covariance: Vec<f64> = (0..=self.max_lag)
            .map(|lag| products[lag] / len - mean * (2.0 * sum.total - sum.edges[lag]) + sum.n_pair[lag] * mean * mean)
            .collect();
        // Rounding leaves a constant channel with a variance near 1e-16 of its square: no correlation to speak of.
        let floor = 1e-12 * (products[0] / len).abs().max(f64::MIN_POSITIVE);
        let first = covariance[0];
        covariance
            .iter()
            .enumerate()
            .map(|(lag, c)| match lag {
                0 => 1.0,
                _ if first <= floor => 0.0,
                _ => c / first,
            })
            .collect()
    }
}

/// Mean absolute difference over lags 1 … of two autocorrelations.
pub fn distance(a: &[f64], b: &[f64]) -> f64 {
    let n = a.len().min(b.len());
    a[1..n].iter().zip(&b[1..n]).map(|(a, b)| (a - b).abs()).sum::<f64>() / (n - 1).max(1) as f64
}

/// The distance of autocorrelations.
pub fn distances() -> Vec<Distance> {
    let (key, name, unit) = ("mean_difference", "Autocorrelation: mean |difference|", "");
    let between: Between = Box::new(|a, b, i| distance(&a.autocorrelations[i], &b.autocorrelations[i]));
    vec![Distance { key, name, unit, between }]
}

/// The section on autocorrelation.
pub fn section(c: &Comparison) -> Section {
    Section {
        id: "autocorrelation",
        title: "Autocorrelation".into(),
        text: vec![
            "How much a value says about the values after it, up to 2.5 s: the reach of the context of the models. \
             It is the other side of the spectrum, in time: rhythms show as ripples, slow fluctuations as a slow decay."
                .into(),
        ],
        measures: c.measures(distances()),
        figures: vec![figure(c)],
        methods: vec![METHODS.into()],
        ..Section::default()
    }
}

const METHODS: &str = "<b>Autocorrelation.</b> <i>r</i>(<i>k</i>) = Σ (<i>x</i>(<i>t</i>) − <i>m</i>)(<i>x</i>(<i>t</i>+<i>k</i>) \
    − <i>m</i>) / Σ (<i>x</i>(<i>t</i>) − <i>m</i>)², with <i>m</i> the recording’s own mean (the biased estimate), for \
    lags up to 2.5 s; pairs never reach across a gap. Distance: mean absolute difference over all lags above 0.";

/// For each sensor type: the autocorrelation, and its difference from the real one.
fn figure(c: &Comparison) -> Figure {
    let n = c.real.autocorrelations[0].len();
    let lags: Vec<f64> = (0..n).map(|lag| lag as f64 / c.sfreq).collect();
    let x = || Axis::linear(0.0, lags[n - 1], 5, "Lag (s)");
    let mut panels = Vec::new();
    for group in c.groups() {
        let rows = panels::of_each(c, &group, |m, i| m.autocorrelations[i].clone());
        let low = rows.iter().flat_map(|r| &r[0]).fold(0.0, |m: f64, &r| m.min(r));
        let y = Axis::linear((low - 0.05).max(-1.0), 1.0, 5, "Autocorrelation");
        let title = format!("{} ({})", group.name, group.channels.len());
        panels.push(panels::overlay(&title, x(), y, &lags, &rows));

        let (ceiling, generated) = panels::of_pairs(c, &group, |a, b, i| {
            a.autocorrelations[i].iter().zip(&b.autocorrelations[i]).map(|(a, b)| b - a).collect()
        });
        let reach = panels::reach(0.02, &ceiling, &generated);
        let y = Axis::linear(-reach, reach, 6, "Generated − real");
        panels.push(panels::difference("Difference from real", x(), y, &lags, &ceiling, &generated));
    }
    let mut legend = c.legend();
    legend.push(("ceiling".into(), "real against real".into()));
    let caption = "Left: autocorrelation, median over channels (line) and 10–90 % of channels (shaded). Right: first \
                   stretch of the generated recording minus that of the real one, channel by channel; the grey band is \
                   the same difference between two stretches of the real recording, as long.";
    Figure { panels, layout: Layout::Pairs, legend, caption: caption.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn direct(pieces: &[&[f64]], max_lag: usize) -> Vec<f64> {
        let n: usize = pieces.iter().map(|p| p.len()).sum();
        let mean = pieces.iter().flat_map(|p| p.iter()).sum::<f64>() / n as f64;
        let covariance = |lag: usize| -> f64 {
            let piece = |p: &[f64]| (lag..p.len()).map(|t| (p[t] - mean) * (p[t - lag] - mean)).sum::<f64>();
            pieces.iter().map(|p| piece(p)).sum()
        };
        (0..=max_lag).map(|lag| covariance(lag) / covariance(0)).collect()
    }

    #[test]
    fn equals_the_definition_for_any_length_blocking_and_gaps() {
        let x: Vec<f64> = (0..1000).map(|t| 0.7 + (t as f64 * 0.3).sin() + ((t * t) as f64 * 0.11).cos()).collect();
        let correlator = Correlator::new(10.0);
        assert_eq!(correlator.max_lag, 25);
        let n_new = correlator.forward.len() - 25;
        for n in [2, 24, 25, 26, n_new - 1, n_new, n_new + 1, 2 * n_new + 3, 1000] {
            for cut in [0, 1, 20, 30, 500] {
                let cut = cut.min(n);
                for block in [1, 13, 1000] {
                    let mut sum = CorrelationSum::default();
                    x[..cut].chunks(block).for_each(|samples| correlator.push(&mut sum, samples));
                    correlator.gap(&mut sum);
                    x[cut..n].chunks(block).for_each(|samples| correlator.push(&mut sum, samples));
                    let got = correlator.finish(sum);
                    for (lag, want) in direct(&[&x[..cut], &x[cut..n]], 25).iter().enumerate() {
                        // Sums of at most 1000 terms of order 1, by transforms of 256: 1e-11 is a hundred roundings.
                        assert!((got[lag] - want).abs() < 1e-11, "n {n}, cut {cut}, lag {lag}: {} {want}", got[lag]);
                    }
                }
            }
        }
    }

    #[test]
    fn a_constant_channel_has_no_correlation() {
        let correlator = Correlator::new(10.0);
        for value in [0.0, 0.1, -3.0] {
            let mut sum = CorrelationSum::default();
            correlator.push(&mut sum, &[value; 300]);
            let r = correlator.finish(sum);
            assert!(r[0] == 1.0 && r[1..].iter().all(|&r| r == 0.0), "{value}: {r:?}");
        }
    }
}
