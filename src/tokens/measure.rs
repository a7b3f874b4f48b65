//! What quantising one channel costs: errors in time, by part and by frequency band, and what becomes of the evoked
//! responses.
//!
//! An error is relative: the root mean square of decoded minus prepared signal over that of the prepared signal about
//! the channel's centre, so that an offset does not flatter it.

use super::scheme::Scale;
use super::shard::Split;
use crate::recording::events::Trial;
use realfft::num_complex::Complex;
use realfft::{RealFftPlanner, RealToComplex};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// The customary bands, in Hz.
pub const BANDS: [(&str, Range<f64>); 5] =
    [("delta", 1.0..4.0), ("theta", 4.0..8.0), ("alpha", 8.0..13.0), ("beta", 13.0..30.0), ("low gamma", 30.0..45.0)];

/// Evoked responses are compared from 0.1 s before an onset to 1 s after it.
const EVOKED: Range<f64> = -0.1..1.0;

/// What is measured of one channel.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChannelReport {
    /// The channel.
    pub name: String,
    /// Relative error over the whole recording.
    pub error: f64,
    /// Relative error over each part; nothing where the part does not vary.
    pub error_by_part: BTreeMap<String, f64>,
    /// Relative error in each band that the signal has.
    pub error_by_band: BTreeMap<String, f64>,
    /// Fraction of samples beyond the clip.
    pub clipped: f64,
    /// Levels that occur.
    pub n_level_used: usize,
    /// Entropy of the levels, in bits.
    pub entropy_bits: f64,
    /// Pearson correlation of the evoked responses, all conditions one after the other, before and after quantising.
    pub evoked_correlation: Option<f64>,
}

/// What the measures need to know besides the signal.
pub struct Measure<'a> {
    /// Sampling rate in Hz.
    pub sfreq: f64,
    /// Upper edge of the pass band in Hz.
    pub low_pass: f64,
    /// The parts of the recording.
    pub parts: [(Split, Range<usize>); 3],
    /// Onsets of known conditions.
    pub trials: &'a [Trial],
}

impl Measure<'_> {
    /// Measures one channel: `decoded[k]` is what level k stands for, in SI units. Also returns how often each level
    /// occurs.
    pub fn channel(
        &self,
        name: &str,
        signal: &[f32],
        tokens: &[u8],
        scale: Scale,
        decoded: &[f64],
    ) -> (ChannelReport, [u64; 256]) {
        let centred: Vec<f64> = signal.iter().map(|&x| f64::from(x) - scale.centre).collect();
        let error: Vec<f64> =
            signal.iter().zip(tokens).map(|(&x, &token)| decoded[usize::from(token)] - f64::from(x)).collect();
        let ratio = |range: Range<usize>| relative(energy(&error[range.clone()]), energy(&centred[range]));
        let mut counts = [0u64; 256];
        tokens.iter().for_each(|&token| counts[usize::from(token)] += 1);
        let n_clipped = signal.iter().filter(|&&x| scale.scaled(f64::from(x)).abs() > scale.peak).count();
        let report = ChannelReport {
            name: name.into(),
            error: ratio(0..signal.len()).unwrap_or(0.0),
            error_by_part: self
                .parts
                .iter()
                .filter_map(|(part, range)| Some((part.name().to_string(), ratio(range.clone())?)))
                .collect(),
            error_by_band: self.bands(&error, &centred),
            clipped: n_clipped as f64 / signal.len() as f64,
            n_level_used: counts.iter().filter(|&&n| n > 0).count(),
            entropy_bits: entropy_bits(&counts),
            evoked_correlation: self.evoked(&centred, &error),
        };
        (report, counts)
    }

    /// The relative error in each band, from averaged periodograms (Hann, half overlapping, two seconds or more).
    fn bands(&self, error: &[f64], signal: &[f64]) -> BTreeMap<String, f64> {
        let n_fft = ((2.0 * self.sfreq) as usize).next_power_of_two().min(signal.len());
        let fft = RealFftPlanner::new().plan_fft_forward(n_fft);
        let [error, signal] = [error, signal].map(|x| power(&fft, x));
        let top = self.low_pass.min(self.sfreq / 2.0);
        let bin = |hz: f64| ((hz * n_fft as f64 / self.sfreq).ceil() as usize).min(signal.len());
        let in_band = |(name, band): &(&str, Range<f64>)| {
            let bins = bin(band.start)..bin(band.end);
            let sum = |x: &[f64]| x[bins.clone()].iter().sum::<f64>();
            let ratio = relative(sum(&error), sum(&signal)).filter(|_| band.start < top)?;
            Some((name.to_string(), ratio))
        };
        BANDS.iter().filter_map(in_band).collect()
    }

    /// Correlation of the averages over trials, condition after condition; `None` without a whole trial.
    fn evoked(&self, signal: &[f64], error: &[f64]) -> Option<f64> {
        let before = (-EVOKED.start * self.sfreq).round() as usize;
        let len = before + (EVOKED.end * self.sfreq).round() as usize;
        // For each condition: trials, and sums before and after quantising.
        let mut sums: BTreeMap<u16, (f64, [Vec<f64>; 2])> = BTreeMap::new();
        for trial in self.trials {
            let Some(start) = trial.onset.checked_sub(before).filter(|start| start + len <= signal.len()) else {
                continue;
            };
            let (n, [real, quantised]) = sums.entry(trial.condition).or_insert((0.0, [vec![0.0; len], vec![0.0; len]]));
            *n += 1.0;
            for i in 0..len {
                real[i] += signal[start + i];
                quantised[i] += signal[start + i] + error[start + i];
            }
        }
        let join = |which: usize| -> Vec<f64> {
            sums.values().flat_map(|(n, sums)| sums[which].iter().map(move |x| x / n)).collect()
        };
        correlation(&join(0), &join(1))
    }
}

/// √(a / b); nothing where b is zero.
fn relative(a: f64, b: f64) -> Option<f64> {
    (b > 0.0).then(|| (a / b).sqrt())
}

fn energy(x: &[f64]) -> f64 {
    x.iter().map(|x| x * x).sum()
}

/// Entropy of a histogram, in bits.
pub fn entropy_bits(counts: &[u64]) -> f64 {
    let total = counts.iter().sum::<u64>() as f64;
    counts.iter().filter(|&&n| n > 0).map(|&n| n as f64 / total).map(|p| -p * p.log2()).sum()
}

/// Pearson's; `None` where one of the two does not vary.
fn correlation(a: &[f64], b: &[f64]) -> Option<f64> {
    let n = a.len() as f64;
    let [mean_a, mean_b] = [a, b].map(|x| x.iter().sum::<f64>() / n);
    let (mut ab, mut aa, mut bb) = (0.0, 0.0, 0.0);
    for (a, b) in a.iter().zip(b) {
        ab += (a - mean_a) * (b - mean_b);
        aa += (a - mean_a).powi(2);
        bb += (b - mean_b).powi(2);
    }
    (aa > 0.0 && bb > 0.0).then(|| ab / (aa.sqrt() * bb.sqrt()))
}

/// Sum of the periodograms of half overlapping Hann windows, for each bin.
fn power(fft: &Arc<dyn RealToComplex<f64>>, x: &[f64]) -> Vec<f64> {
    let n_fft = fft.len();
    let (mut input, mut output) = (fft.make_input_vec(), fft.make_output_vec());
    let mut scratch = fft.make_scratch_vec();
    let mut sums = vec![0.0; output.len()];
    let hann: Vec<f64> =
        (0..n_fft).map(|i| 0.5 - 0.5 * (std::f64::consts::TAU * i as f64 / n_fft as f64).cos()).collect();
    let mut start = 0;
    while start + n_fft <= x.len() {
        for ((input, x), hann) in input.iter_mut().zip(&x[start..]).zip(&hann) {
            *input = x * hann;
        }
        fft.process_with_scratch(&mut input, &mut output, &mut scratch).expect("the lengths are the plan's own");
        sums.iter_mut().zip(&output).for_each(|(sum, z): (&mut f64, &Complex<f64>)| *sum += z.norm_sqr());
        start += (n_fft / 2).max(1);
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;
    use approx::assert_relative_eq;
    use std::f64::consts::TAU;

    const SCALE: Scale = Scale { centre: 0.0, spread: 1.0, peak: 10.0 };

    fn measure<'a>(n: usize, trials: &'a [Trial]) -> Measure<'a> {
        let parts = [(Split::Train, 0..n / 2), (Split::Validation, n / 2..n * 3 / 4), (Split::Test, n * 3 / 4..n)];
        Measure { sfreq: 100.0, low_pass: 45.0, parts, trials }
    }

    /// One level that decodes to 0 loses everything; the true value loses nothing.
    #[test]
    fn the_ends_of_the_scale() {
        let signal: Vec<f32> = (0..1000).map(|i| (i as f32 * 0.3).sin()).collect();
        let (report, counts) = measure(1000, &[]).channel("a", &signal, &[0; 1000], SCALE, &[0.0]);
        assert_eq!((report.error, report.entropy_bits, report.n_level_used, counts[0]), (1.0, 0.0, 1, 1000));
        assert_eq!((report.clipped, report.evoked_correlation), (0.0, None));
        assert!(report.error_by_part.len() == 3 && report.error_by_part.values().all(|&e| e == 1.0));
        assert!(report.error_by_band.len() == 5 && report.error_by_band.values().all(|&e| e == 1.0));
        let signal: Vec<f32> = (0..1000).map(|i| (i % 2) as f32).collect();
        let tokens: Vec<u8> = (0..1000).map(|i| (i % 2) as u8).collect();
        let (report, _) = measure(1000, &[]).channel("a", &signal, &tokens, SCALE, &[0.0, 1.0]);
        assert_eq!((report.error, report.entropy_bits), (0.0, 1.0));
    }

    /// Signal of amplitude 1 at 10 Hz and 0.5 at 20 Hz; the error is 0.1 at 10 Hz and 0.25 at 20 Hz.
    #[test]
    fn bands_are_kept_apart() {
        let wave = |hz: f64, i: usize| (TAU * hz * i as f64 / 100.0).sin();
        let n = 25_600;
        let signal: Vec<f64> = (0..n).map(|i| wave(10.0, i) + 0.5 * wave(20.0, i)).collect();
        let error: Vec<f64> = (0..n).map(|i| 0.1 * wave(10.0, i) + 0.25 * wave(20.0, i)).collect();
        let bands = measure(n, &[]).bands(&error, &signal);
        assert_relative_eq!(bands["alpha"], 0.1, max_relative = 1e-3);
        assert_relative_eq!(bands["beta"], 0.5, max_relative = 1e-3);
        let narrow = Measure { low_pass: 25.0, ..measure(n, &[]) }.bands(&error, &signal);
        assert!(!narrow.contains_key("low gamma") && narrow.contains_key("beta"));
    }

    #[test]
    fn parts_and_clipping() {
        let mut signal = vec![1.0f32; 100];
        signal[75..].fill(20.0);
        let scale = Scale { centre: 0.5, ..SCALE };
        let (report, _) = measure(100, &[]).channel("a", &signal, &[0; 100], scale, &[1.25]);
        assert_eq!(report.clipped, 0.25);
        assert_relative_eq!(report.error_by_part["train"], 0.5);
        assert_relative_eq!(report.error_by_part["test"], 18.75 / 19.5);
    }

    /// Two conditions of two trials each. The error is the same in both trials of condition 1 and cancels in condition
    /// 2, so the averages differ by it only once; the oracle averages and correlates in the plainest way.
    #[test]
    fn evoked_responses_are_averaged_before_they_are_compared() {
        let onsets = [(20, 1), (200, 2), (400, 1), (600, 2), (5, 1), (950, 2)];
        let trials = onsets.map(|(onset, condition)| Trial { onset, condition });
        let signal: Vec<f64> = (0..1000).map(|i| (i as f64 * 0.37).sin() + (i as f64 * 0.011).cos()).collect();
        let error: Vec<f64> = (0..1000).map(|i| 0.3 * (i as f64 * 1.7).sin()).collect();
        let mut real = Vec::new();
        let mut quantised = Vec::new();
        for pair in [[20, 400], [200, 600]] {
            for i in 0..110 {
                let mean = |x: &dyn Fn(usize) -> f64| (x(pair[0] - 10 + i) + x(pair[1] - 10 + i)) / 2.0;
                real.push(mean(&|t| signal[t]));
                quantised.push(mean(&|t| signal[t] + error[t]));
            }
        }
        let n = real.len() as f64;
        let mean = |x: &[f64]| x.iter().sum::<f64>() / n;
        let covariance =
            |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>() / n - mean(a) * mean(b);
        let expected =
            covariance(&real, &quantised) / (covariance(&real, &real) * covariance(&quantised, &quantised)).sqrt();
        assert!((0.9..0.999).contains(&expected), "{expected}");
        assert_relative_eq!(measure(1000, &trials).evoked(&signal, &error).unwrap(), expected, max_relative = 1e-10);
        assert_eq!(measure(1000, &trials[4..]).evoked(&signal, &error), None);
    }
}
