//! Welch's estimate of the power spectral density (Welch 1967), streaming.
//!
//! Half overlapping segments, periodic Hann window, the segment's own mean taken out, one-sided density: what
//! `scipy.signal.welch(x, fs, nperseg=n)` computes with its defaults.

use realfft::{RealFftPlanner, RealToComplex};
use std::sync::Arc;

/// Length of one segment in seconds in the paper's figures (the authors' scripts: `nperseg = 4 * fs`).
pub const SEGMENT_SECONDS: f64 = 4.0;

/// Everything that the channels of one recording share: window, transform, scale.
pub struct Welch {
    transform: Arc<dyn RealToComplex<f64>>,
    window: Vec<f64>,
    hop: usize,
    sfreq: f64,
}

/// What one channel has gathered so far.
#[derive(Clone, Default)]
pub struct WelchSum {
    /// Samples not yet part of a whole segment, or needed again by the next.
    pending: Vec<f64>,
    /// Sum over segments of the windowed transform's squared magnitude.
    power: Vec<f64>,
    /// Segments summed.
    pub n_segment: u64,
}

impl Welch {
    /// Plans for a sampling rate in Hz and segments of `n` timesteps.
    pub fn new(sfreq: f64, n: usize) -> Self {
        let window = (0..n).map(|i| 0.5 - 0.5 * (std::f64::consts::TAU * i as f64 / n as f64).cos()).collect();
        // An overlap of n / 2 rounded down, as scipy has it, leaves a hop rounded up.
        Self { transform: RealFftPlanner::new().plan_fft_forward(n), window, hop: n - n / 2, sfreq }
    }

    /// The frequencies of the bins, in Hz.
    pub fn frequencies(&self) -> Vec<f64> {
        let n = self.window.len();
        (0..=n / 2).map(|bin| bin as f64 * self.sfreq / n as f64).collect()
    }

    /// Takes in the next samples of a channel.
    pub fn push(&self, sum: &mut WelchSum, samples: &[f64]) {
        let n = self.window.len();
        sum.power.resize(n / 2 + 1, 0.0);
        let mut segment = self.transform.make_input_vec();
        let mut spectrum = self.transform.make_output_vec();
        let mut scratch = self.transform.make_scratch_vec();
        let mut samples = samples;
        while !samples.is_empty() {
            // No more is kept than a segment, however much comes at once.
            let (now, later) = samples.split_at(samples.len().min(n - sum.pending.len()));
            sum.pending.extend_from_slice(now);
            samples = later;
            if sum.pending.len() < n {
                break;
            }
            let mean = sum.pending.iter().sum::<f64>() / n as f64;
            for ((out, x), w) in segment.iter_mut().zip(&sum.pending).zip(&self.window) {
                *out = (x - mean) * w;
            }
            self.transform.process_with_scratch(&mut segment, &mut spectrum, &mut scratch).expect("planned lengths");
            for (power, value) in sum.power.iter_mut().zip(&spectrum) {
                *power += value.norm_sqr();
            }
            sum.n_segment += 1;
            sum.pending.drain(..self.hop);
        }
    }

    /// The recording has a gap here: no segment may reach across it.
    pub fn gap(&self, sum: &mut WelchSum) {
        sum.pending.clear();
    }

    /// The density so far, in the signal's unit squared per Hz; zeros without a whole segment.
    pub fn density(&self, sum: &WelchSum) -> Vec<f64> {
        let n = self.window.len();
        let energy: f64 = self.window.iter().map(|w| w * w).sum();
        let scale = 1.0 / (self.sfreq * energy * sum.n_segment.max(1) as f64);
        let one_sided = |bin: usize| if bin == 0 || 2 * bin == n { 1.0 } else { 2.0 };
        let mut density = sum.power.clone();
        density.resize(n / 2 + 1, 0.0);
        density.iter_mut().enumerate().for_each(|(bin, p)| *p *= scale * one_sided(bin));
        density
    }
}

/// Timesteps in one segment of the paper's figures.
pub fn segment_len(sfreq: f64) -> usize {
    ((SEGMENT_SECONDS * sfreq).round() as usize).max(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition, segment by segment, with a plain sum for the transform.
    fn direct(x: &[f64], sfreq: f64) -> Vec<f64> {
        let n = segment_len(sfreq);
        let tau = std::f64::consts::TAU;
        let window: Vec<f64> = (0..n).map(|i| (tau * i as f64 / n as f64 / 2.0).sin().powi(2)).collect();
        let energy: f64 = window.iter().map(|w| w * w).sum();
        let starts: Vec<usize> = (0..).map(|s| s * (n - n / 2)).take_while(|s| s + n <= x.len()).collect();
        let bin = |k: usize| {
            let power = |start: &usize| {
                let segment = &x[*start..start + n];
                let mean = segment.iter().sum::<f64>() / n as f64;
                let (mut re, mut im) = (0.0, 0.0);
                for (t, (x, w)) in segment.iter().zip(&window).enumerate() {
                    let phase = tau * (k * t % n) as f64 / n as f64;
                    re += (x - mean) * w * phase.cos();
                    im += (x - mean) * w * phase.sin();
                }
                (re * re + im * im) / (sfreq * energy)
            };
            let two = if k == 0 || 2 * k == n { 1.0 } else { 2.0 };
            two * starts.iter().map(power).sum::<f64>() / starts.len() as f64
        };
        (0..=n / 2).map(bin).collect()
    }

    #[test]
    fn equals_the_definition_for_any_blocking_and_for_odd_segments() {
        for (sfreq, n) in [(10.0, 40), (10.0, 41), (10.25, 41), (10.25, 300), (7.75, 62)] {
            let x: Vec<f64> = (0..n).map(|t| 3.0 + (t as f64 * 0.9).sin() + ((t * t) as f64 * 0.37).cos()).collect();
            let expected = direct(&x, sfreq);
            for block in [1, 7, n] {
                let welch = Welch::new(sfreq, segment_len(sfreq));
                let mut sum = WelchSum::default();
                x.chunks(block).for_each(|samples| welch.push(&mut sum, samples));
                let largest = expected.iter().fold(0.0, |a: f64, &b| a.max(b));
                for (got, want) in welch.density(&sum).iter().zip(&expected) {
                    // Two transforms of n ≤ 41 terms in f64: well under 1e-12 of the largest bin.
                    assert!((got - want).abs() <= 1e-12 * largest, "{sfreq} Hz, blocks of {block}: {got} {want}");
                }
            }
        }
    }

    #[test]
    fn no_segment_reaches_across_a_gap() {
        let welch = Welch::new(10.0, 40);
        let mut sum = WelchSum::default();
        welch.push(&mut sum, &[1.0; 39]);
        welch.gap(&mut sum);
        welch.push(&mut sum, &[1.0; 39]);
        assert_eq!(sum.n_segment, 0);
        welch.push(&mut sum, &[1.0]);
        assert_eq!(sum.n_segment, 1);
    }
}
