//! What quantising one channel costs: errors in time, by part and by frequency band, and what becomes of the evoked
//! responses. Channels are measured piece by piece, in memory that does not grow with the recording.
//!
//! An error is relative: the root mean square of decoded minus prepared signal over that of the prepared signal about
//! the channel's centre, so that an offset does not flatter it. Stretches without usable signal do not count.

use super::scheme::Scale;
use super::shard::Split;
use crate::recording::events::Trial;
use crate::recording::marks::kept;
use crate::statistics::welch::{Welch, WelchSum};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ops::Range;

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

/// What all channels of a recording share.
pub struct Measure {
    sfreq: f64,
    /// Upper edge of the pass band in Hz.
    low_pass: f64,
    /// In order of time.
    stretches: Vec<Stretch>,
    /// First timesteps of the stretches around the onsets of trials, with the trials' conditions as indices.
    evoked: Vec<(usize, usize)>,
    /// Trials of each condition.
    n_trial: Vec<usize>,
    /// Timesteps of an evoked response.
    n_evoked: usize,
    welch: Welch,
    n_fft: usize,
}

/// A usable stretch within one part.
struct Stretch {
    part: usize,
    time: Range<usize>,
    /// Whether it goes on where the one before it ends: a spectrum reaches from one part into the next, but not over what
    /// is excluded.
    goes_on: bool,
}

/// What one channel has come to so far.
pub struct Sums {
    /// Energy of the error and of the signal in each part.
    energy: [[f64; 2]; 3],
    spectra: [WelchSum; 2],
    n_clipped: usize,
    /// How often each level occurs.
    pub counts: [u64; 256],
    /// Sums over trials before and after quantising: condition after condition.
    evoked: [Vec<f64>; 2],
}

impl Measure {
    /// For a recording at `sfreq` Hz with a pass band up to `low_pass` Hz; `parts` in the order of [`Split::ALL`] and
    /// `excluded` in timesteps of the whole recording. Trials count whose response lies whole in usable signal.
    pub fn new(
        sfreq: f64,
        low_pass: f64,
        parts: &[Range<usize>; 3],
        excluded: &[Range<usize>],
        trials: &[Trial],
    ) -> Self {
        let n_timestep = parts.iter().map(|part| part.end).max().unwrap_or(0);
        let of_part = |part: usize| kept(parts[part].clone(), excluded).into_iter().map(move |time| (part, time));
        let mut usable: Vec<_> = (0..parts.len()).flat_map(of_part).collect();
        usable.sort_by_key(|(_, time)| time.start);
        let mut last = 0;
        let stretch = |(part, time): (usize, Range<usize>)| {
            let goes_on = std::mem::replace(&mut last, time.end) == time.start;
            Stretch { part, time, goes_on }
        };
        let stretches = usable.into_iter().map(stretch).collect();
        let before = (-EVOKED.start * sfreq).round() as usize;
        let n_evoked = before + (EVOKED.end * sfreq).round() as usize;
        let usable = kept(0..n_timestep, excluded);
        let whole = |trial: &Trial| {
            let start = trial.onset.checked_sub(before)?;
            let inside = usable.iter().any(|usable| usable.start <= start && start + n_evoked <= usable.end);
            inside.then_some((start, usize::from(trial.condition) - 1))
        };
        let evoked: Vec<_> = trials.iter().filter_map(whole).collect();
        let n_condition = evoked.iter().map(|&(_, condition)| condition + 1).max().unwrap_or(0);
        let n_trial = (0..n_condition).map(|c| evoked.iter().filter(|trial| trial.1 == c).count()).collect();
        // Two seconds or more.
        let n_fft = ((2.0 * sfreq) as usize).next_power_of_two().clamp(2, n_timestep.max(2));
        let welch = Welch::new(sfreq, n_fft);
        Self { sfreq, low_pass, stretches, evoked, n_trial, n_evoked, welch, n_fft }
    }

    /// A channel of which nothing has been seen yet.
    pub fn start(&self) -> Sums {
        let evoked = || vec![0.0; self.n_trial.len() * self.n_evoked];
        let spectra = [WelchSum::default(), WelchSum::default()];
        Sums { energy: [[0.0; 2]; 3], spectra, n_clipped: 0, counts: [0; 256], evoked: [evoked(), evoked()] }
    }

    /// Takes in the next piece of a channel, from timestep `start` on: `decoded[k]` is what level k stands for, in SI
    /// units.
    pub fn push(&self, sums: &mut Sums, start: usize, signal: &[f32], tokens: &[u8], scale: Scale, decoded: &[f64]) {
        let end = start + signal.len();
        let centred: Vec<f64> = signal.iter().map(|&x| f64::from(x) - scale.centre).collect();
        let error: Vec<f64> =
            signal.iter().zip(tokens).map(|(&x, &token)| decoded[usize::from(token)] - f64::from(x)).collect();
        let touched = |stretch: &&Stretch| stretch.time.start < end && stretch.time.end > start;
        for Stretch { part, time, goes_on } in self.stretches.iter().filter(touched) {
            if time.start >= start && !goes_on {
                sums.spectra.iter_mut().for_each(|spectrum| self.welch.gap(spectrum));
            }
            let piece = time.start.max(start) - start..time.end.min(end) - start;
            for (i, x) in [&error, &centred].into_iter().enumerate() {
                sums.energy[*part][i] += energy(&x[piece.clone()]);
                self.welch.push(&mut sums.spectra[i], &x[piece.clone()]);
            }
            tokens[piece.clone()].iter().for_each(|&token| sums.counts[usize::from(token)] += 1);
            let clipped = |&&x: &&f32| scale.scaled(f64::from(x)).abs() > scale.peak;
            sums.n_clipped += signal[piece].iter().filter(clipped).count();
        }
        for &(first, condition) in self.evoked.iter().filter(|trial| trial.0 < end && trial.0 + self.n_evoked > start) {
            for time in first.max(start)..(first + self.n_evoked).min(end) {
                let at = condition * self.n_evoked + time - first;
                sums.evoked[0][at] += centred[time - start];
                sums.evoked[1][at] += centred[time - start] + error[time - start];
            }
        }
    }

    /// What the channel called `name` has come to.
    pub fn finish(&self, name: &str, sums: &Sums) -> ChannelReport {
        let total = |i: usize| sums.energy.iter().map(|part| part[i]).sum::<f64>();
        let by_part =
            |(part, [error, signal]): (Split, &[f64; 2])| Some((part.name().to_string(), relative(*error, *signal)?));
        let n = self.stretches.iter().map(|stretch| stretch.time.len()).sum::<usize>();
        ChannelReport {
            name: name.into(),
            error: relative(total(0), total(1)).unwrap_or(0.0),
            error_by_part: Split::ALL.into_iter().zip(&sums.energy).filter_map(by_part).collect(),
            error_by_band: self.bands(sums),
            clipped: sums.n_clipped as f64 / n as f64,
            n_level_used: sums.counts.iter().filter(|&&n| n > 0).count(),
            entropy_bits: entropy_bits(&sums.counts),
            evoked_correlation: self.evoked(sums),
        }
    }

    /// The relative error in each band that begins within the pass band.
    fn bands(&self, sums: &Sums) -> BTreeMap<String, f64> {
        let [error, signal] = sums.spectra.each_ref().map(|spectrum| self.welch.density(spectrum));
        let top = self.low_pass.min(self.sfreq / 2.0);
        let bin = |hz: f64| ((hz * self.n_fft as f64 / self.sfreq).ceil() as usize).min(signal.len());
        let in_band = |(name, band): &(&str, Range<f64>)| {
            let bins = bin(band.start)..bin(band.end);
            let sum = |x: &[f64]| x[bins.clone()].iter().sum::<f64>();
            let ratio = relative(sum(&error), sum(&signal)).filter(|_| band.start < top)?;
            Some((name.to_string(), ratio))
        };
        BANDS.iter().filter_map(in_band).collect()
    }

    /// Correlation of the averages over trials, condition after condition; `None` without a whole trial.
    fn evoked(&self, sums: &Sums) -> Option<f64> {
        let conditions = (0..self.n_trial.len()).filter(|&condition| self.n_trial[condition] > 0);
        let average = |sums: &[f64]| -> Vec<f64> {
            let of =
                |c: usize| sums[c * self.n_evoked..][..self.n_evoked].iter().map(move |x| x / self.n_trial[c] as f64);
            conditions.clone().flat_map(of).collect()
        };
        correlation(&average(&sums.evoked[0]), &average(&sums.evoked[1]))
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

#[cfg(test)]
mod tests {
    use super::*;
    use approx::assert_relative_eq;
    use std::f64::consts::TAU;

    const SCALE: Scale = Scale { centre: 0.0, spread: 1.0, peak: 10.0 };

    fn parts(n: usize) -> [Range<usize>; 3] {
        [0..n / 2, n / 2..n * 3 / 4, n * 3 / 4..n]
    }

    fn measure(n: usize, trials: &[Trial]) -> Measure {
        Measure::new(100.0, 45.0, &parts(n), &[], trials)
    }

    impl Measure {
        /// Measures a channel in pieces of `piece` timesteps.
        fn channel(&self, signal: &[f32], tokens: &[u8], scale: Scale, decoded: &[f64], piece: usize) -> Sums {
            let mut sums = self.start();
            for (i, (signal, tokens)) in signal.chunks(piece).zip(tokens.chunks(piece)).enumerate() {
                self.push(&mut sums, i * piece, signal, tokens, scale, decoded);
            }
            sums
        }
    }

    /// One level that decodes to 0 loses everything; the true value loses nothing.
    #[test]
    fn the_ends_of_the_scale() {
        let signal: Vec<f32> = (0..1000).map(|i| (i as f32 * 0.3).sin()).collect();
        let measure = measure(1000, &[]);
        let sums = measure.channel(&signal, &[0; 1000], SCALE, &[0.0], 1000);
        let report = measure.finish("a", &sums);
        assert_eq!((report.error, report.entropy_bits, report.n_level_used, sums.counts[0]), (1.0, 0.0, 1, 1000));
        assert_eq!((report.clipped, report.evoked_correlation), (0.0, None));
        assert!(report.error_by_part.len() == 3 && report.error_by_part.values().all(|&e| e == 1.0));
        assert!(report.error_by_band.len() == 5 && report.error_by_band.values().all(|&e| e == 1.0));
        let signal: Vec<f32> = (0..1000).map(|i| (i % 2) as f32).collect();
        let tokens: Vec<u8> = (0..1000).map(|i| (i % 2) as u8).collect();
        let report = measure.finish("a", &measure.channel(&signal, &tokens, SCALE, &[0.0, 1.0], 1000));
        assert_eq!((report.error, report.entropy_bits), (0.0, 1.0));
    }

    /// Signal of amplitude 1 at 10 Hz and 0.5 at 20 Hz; the error is 0.1 at 10 Hz and 0.25 at 20 Hz.
    #[test]
    fn bands_are_kept_apart() {
        let wave = |hz: f64, i: usize| (TAU * hz * i as f64 / 100.0).sin();
        let n = 25_600;
        let signal: Vec<f64> = (0..n).map(|i| wave(10.0, i) + 0.5 * wave(20.0, i)).collect();
        let error: Vec<f64> = (0..n).map(|i| 0.1 * wave(10.0, i) + 0.25 * wave(20.0, i)).collect();
        let bands = |measure: Measure| {
            let mut sums = measure.start();
            for (spectrum, x) in sums.spectra.iter_mut().zip([&error, &signal]) {
                measure.welch.push(spectrum, x);
            }
            measure.bands(&sums)
        };
        let all = bands(measure(n, &[]));
        assert_relative_eq!(all["alpha"], 0.1, max_relative = 1e-3);
        assert_relative_eq!(all["beta"], 0.5, max_relative = 1e-3);
        let narrow = bands(Measure { low_pass: 25.0, ..measure(n, &[]) });
        assert!(!narrow.contains_key("low gamma") && narrow.contains_key("beta"));
    }

    /// Whatever lies in an excluded stretch, and however the signal is cut into pieces, the report is the same.
    #[test]
    fn what_is_excluded_does_not_count_and_pieces_do_not_matter() {
        let excluded = [0..30, 420..520, 700..701];
        let signal: Vec<f32> = (0..1000).map(|i| (i as f32 * 0.3).sin() + (i as f32 * 0.071).cos()).collect();
        let tokens: Vec<u8> = signal.iter().map(|x| (x * 2.0 + 4.5) as u8).collect();
        let decoded: Vec<f64> = (0..9).map(|k| (f64::from(k) - 4.0) / 2.0).collect();
        let trials = [60, 200, 300, 400, 525, 800].map(|onset| Trial { onset, condition: 1 });
        let measure = Measure::new(100.0, 45.0, &parts(1000), &excluded, &trials);
        let report = |signal: &[f32], tokens: &[u8], piece| {
            measure.finish("a", &measure.channel(signal, tokens, SCALE, &decoded, piece))
        };
        let (mut spoilt, mut spoilt_tokens) = (signal.clone(), tokens.clone());
        for stretch in &excluded {
            spoilt[stretch.clone()].fill(1000.0);
            spoilt_tokens[stretch.clone()].fill(8);
        }
        let wanted = report(&signal, &tokens, 1000);
        assert_eq!(report(&spoilt, &spoilt_tokens, 1000), wanted);
        // The trials at 400 and 525 reach into what is excluded; by hand, the others' correlation.
        let others = Measure::new(100.0, 45.0, &parts(1000), &[], &[trials[0], trials[1], trials[2], trials[5]]);
        let sums = others.channel(&signal, &tokens, SCALE, &decoded, 1000);
        assert_eq!(wanted.evoked_correlation, others.finish("a", &sums).evoked_correlation);
        for piece in [1, 7, 300, 519] {
            let report = report(&spoilt, &spoilt_tokens, piece);
            // Sums over pieces are rounded in another order.
            assert_relative_eq!(report.error, wanted.error, max_relative = 1e-12);
            assert_eq!((report.n_level_used, report.clipped), (wanted.n_level_used, wanted.clipped));
            assert_eq!(report.evoked_correlation, wanted.evoked_correlation);
            for (band, error) in &wanted.error_by_band {
                assert_relative_eq!(report.error_by_band[band], error, max_relative = 1e-12);
            }
        }
    }

    #[test]
    fn parts_and_clipping() {
        let mut signal = vec![1.0f32; 100];
        signal[75..].fill(20.0);
        let scale = Scale { centre: 0.5, ..SCALE };
        let measure = measure(100, &[]);
        let report = measure.finish("a", &measure.channel(&signal, &[0; 100], scale, &[1.25], 100));
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
        // Every timestep a level of its own: 250 in each piece.
        let evoked = |trials: &[Trial]| {
            let measure = measure(1000, trials);
            let mut sums = measure.start();
            for piece in (0..1000).step_by(250) {
                let exact = &signal[piece..piece + 250];
                let samples: Vec<f32> = exact.iter().map(|&x| x as f32).collect();
                let decoded = |i: usize| f64::from(samples[i]) + error[piece + i];
                let tokens: Vec<u8> = (0..250).map(|i| i as u8).collect();
                measure.push(&mut sums, piece, &samples, &tokens, SCALE, &(0..250).map(decoded).collect::<Vec<_>>());
            }
            measure.finish("a", &sums).evoked_correlation
        };
        // Samples are rounded to f32.
        assert_relative_eq!(evoked(&trials).unwrap(), expected, max_relative = 1e-6);
        assert_eq!(evoked(&trials[4..]), None);
    }
}
