//! Another sampling rate: every n-th timestep where that is enough, else a windowed sinc.
//!
//! Each new timestep is a weighted sum of the old ones around it, with a linear-phase low-pass as weights that passes up
//! to 90 % of the lower of the two Nyquist frequencies and suppresses by 80 dB and more from that frequency on. A
//! Butterworth band-pass before it is no substitute: its edge is where it halves the amplitude, and mains at 60 Hz would
//! fold to 40 Hz. Only on request, and where the ratio is whole, every n-th timestep is taken and nothing else is done,
//! as the authors do.

use super::extend::Extended;
use super::{Block, Event, Recording, Signal};
use crate::ensure;
use crate::error::{Kind, Result};
use rayon::prelude::*;
use std::f64::consts::PI;

/// Stop-band attenuation the Kaiser window is designed for, in dB.
const ATTENUATION: f64 = 90.0;
/// Where the transition band begins, as a part of the lower Nyquist frequency.
const PASS_EDGE: f64 = 0.9;
/// Old timesteps that are in memory at once, roughly.
const CHUNK: usize = 1 << 14;
/// New timesteps whose weights are computed at once.
const BATCH: usize = 64;

/// What keeps frequencies above the new Nyquist frequency from folding down.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum AntiAlias {
    /// A low-pass of 80 dB.
    #[default]
    LowPass,
    /// Nothing but the pass band the recording already has, where every n-th timestep can be taken (the authors' way).
    PassBand,
}

/// The recording at `sfreq` Hz. Onsets of events become `floor(onset · new / old)`, as the authors have it.
///
/// New timestep `i` is the signal at the time `i / sfreq`. There are `ceil(n · new / old)` of them when every n-th is
/// taken, otherwise that number rounded, as in MNE.
pub fn resample(recording: Recording, sfreq: f64, anti_alias: AntiAlias) -> Result<Recording> {
    let mut info = recording.info.clone();
    let old = info.sfreq;
    ensure!(sfreq.is_finite() && sfreq > 0.0, Kind::SamplingRate, "a sampling rate of {sfreq} Hz makes no sense");
    if sfreq == old {
        return Ok(recording);
    }
    let map = |timestep: f64| (timestep * sfreq / old).floor();
    let whole = (old / sfreq).round();
    let limited = anti_alias == AntiAlias::PassBand && info.pass_band.1 < sfreq / 2.0;
    let decimates = limited && whole >= 1.0 && whole * sfreq == old;
    let n_timestep = info.n_timestep as f64 * sfreq / old;
    let n_timestep = if decimates { n_timestep.ceil() } else { n_timestep.round() };
    let before = std::mem::replace(&mut info.n_timestep, n_timestep as usize);
    ensure!(info.n_timestep > 0, Kind::TooShort, "nothing is left of {before} timesteps at {sfreq} Hz");
    info.sfreq = sfreq;
    info.first_timestep = map(info.first_timestep as f64) as u64;
    info.pass_band.1 = info.pass_band.1.min(sfreq / 2.0);
    let last = info.n_timestep - 1;
    let mapped = |event: &Event| Event {
        onset: (map(event.onset as f64) as usize).min(last),
        duration: map(event.duration as f64) as usize,
        label: event.label.clone(),
    };
    info.events = info.events.iter().map(mapped).collect();
    if decimates {
        return Recording::new(info, Box::new(Decimated { inner: recording, factor: whole as usize }));
    }
    let kernel = Kernel::new(sfreq / old);
    // Half an old timestep for rounding, one for the last new timestep, which may lie beyond the end.
    let margin = kernel.half_width.ceil() as usize + (old / sfreq).ceil() as usize + 1;
    let input = Extended::new(recording, margin, "the low-pass filter of the resampling")?;
    Recording::new(info, Box::new(Sinc { input, kernel, step: old / sfreq }))
}

/// Every `factor`-th timestep.
struct Decimated {
    inner: Recording,
    factor: usize,
}

impl Signal for Decimated {
    fn read(&mut self, start: usize, n_timestep: usize) -> Result<Block> {
        let mut out = Block::zeros(self.inner.info.n_channel(), n_timestep);
        let n_piece = (CHUNK / self.factor).max(1);
        for first in (0..n_timestep).step_by(n_piece) {
            let n = n_piece.min(n_timestep - first);
            let source = self.inner.read((start + first) * self.factor, (n - 1) * self.factor + 1)?;
            for channel in 0..out.n_channel {
                let taken = source.channel(channel).iter().step_by(self.factor);
                out.channel_mut(channel)[first..first + n].iter_mut().zip(taken).for_each(|(y, &x)| *y = x);
            }
        }
        Ok(out)
    }
}

/// A Kaiser-windowed sinc; times are in old timesteps.
struct Kernel {
    /// Where the attenuation is 6 dB, in cycles per old timestep: the middle of the transition band.
    cutoff: f64,
    /// The weight is zero further away than this.
    half_width: f64,
    /// Shape of the Kaiser window.
    beta: f64,
}

impl Kernel {
    /// For `ratio` new timesteps per old one, by Kaiser's formulas.
    fn new(ratio: f64) -> Self {
        let nyquist = 0.5 * ratio.min(1.0);
        let transition = 2.0 * PI * (1.0 - PASS_EDGE) * nyquist;
        Self {
            cutoff: nyquist * (1.0 + PASS_EDGE) / 2.0,
            half_width: (ATTENUATION - 7.95) / (2.285 * transition) / 2.0,
            beta: 0.1102 * (ATTENUATION - 8.7),
        }
    }

    fn weight(&self, time: f64) -> f64 {
        let from_centre = time / self.half_width;
        if from_centre.abs() >= 1.0 {
            return 0.0;
        }
        let phase = 2.0 * PI * self.cutoff * time;
        let sinc = if phase == 0.0 { 1.0 } else { phase.sin() / phase };
        sinc * bessel_i0(self.beta * (1.0 - from_centre * from_centre).sqrt())
    }
}

/// The modified Bessel function of order 0, by its power series (all terms positive, so to full precision).
fn bessel_i0(x: f64) -> f64 {
    let quarter = x * x / 4.0;
    let (mut term, mut sum, mut k) = (1.0, 1.0, 1.0);
    while term > 1e-17 * sum {
        term *= quarter / (k * k);
        sum += term;
        k += 1.0;
    }
    sum
}

/// Each new timestep a weighted sum of old ones.
struct Sinc {
    input: Extended,
    kernel: Kernel,
    /// Old timesteps per new one.
    step: f64,
}

impl Sinc {
    /// New timesteps `start .. start + n` from one stretch of old ones.
    fn piece(&mut self, start: usize, n: usize, out: &mut Block, at: usize) -> Result<()> {
        let margin = self.input.margin as f64;
        let centre = |i: usize| margin + (start + i) as f64 * self.step;
        let first = (centre(0) - self.kernel.half_width).ceil() as usize;
        let last = (centre(n - 1) + self.kernel.half_width).floor() as usize;
        let source = self.input.read(first, last - first + 1)?;
        let n_tap = (2.0 * self.kernel.half_width).floor() as usize + 1;
        let n_out = out.n_timestep;
        for batch in (0..n).step_by(BATCH) {
            // The same weights serve every channel; they sum to one, so that a constant stays what it is.
            let indices = batch..n.min(batch + BATCH);
            let weights: Vec<(usize, Vec<f64>)> = indices
                .into_par_iter()
                .map(|i| {
                    let from = (centre(i) - self.kernel.half_width).ceil() as usize;
                    let taps = n_tap.min(last + 1 - from);
                    let mut weights: Vec<f64> =
                        (from..from + taps).map(|t| self.kernel.weight(t as f64 - centre(i))).collect();
                    let sum: f64 = weights.iter().sum();
                    weights.iter_mut().for_each(|w| *w /= sum);
                    (from - first, weights)
                })
                .collect();
            out.data.par_chunks_mut(n_out).enumerate().for_each(|(channel, row)| {
                let source = source.channel(channel);
                pulp::Arch::new().dispatch(|| {
                    for (y, (from, weights)) in row[at + batch..].iter_mut().zip(&weights) {
                        *y = dot(weights, &source[*from..]);
                    }
                });
            });
        }
        Ok(())
    }
}

impl Signal for Sinc {
    fn read(&mut self, start: usize, n_timestep: usize) -> Result<Block> {
        let mut out = Block::zeros(self.input.inner.info.n_channel(), n_timestep);
        let n_piece = ((CHUNK as f64 / self.step) as usize).max(1);
        for first in (0..n_timestep).step_by(n_piece) {
            self.piece(start + first, n_piece.min(n_timestep - first), &mut out, first)?;
        }
        Ok(out)
    }
}

/// Σ aᵢ bᵢ over the length of `a`, in eight interleaved sums that a compiler can keep in vectors.
#[inline(always)]
fn dot(a: &[f64], b: &[f64]) -> f64 {
    let (eights, rest) = a.as_chunks::<8>();
    let (b_eights, b_rest) = b[..a.len()].as_chunks::<8>();
    let mut sums = [0.0; 8];
    for (a, b) in eights.iter().zip(b_eights) {
        for lane in 0..8 {
            sums[lane] += a[lane] * b[lane];
        }
    }
    let tail: f64 = rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    ((sums[0] + sums[4]) + (sums[1] + sums[5])) + ((sums[2] + sums[6]) + (sums[3] + sums[7])) + tail
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recording::testing::{in_memory, noise};

    fn sine(n: usize, sfreq: f64, frequency: f64) -> Vec<f64> {
        (0..n).map(|t| (2.0 * PI * frequency * t as f64 / sfreq + 0.3).sin()).collect()
    }

    fn read_all(recording: &mut Recording) -> Vec<f64> {
        recording.read(0, recording.info.n_timestep).unwrap().data
    }

    /// Sines below the pass edge come out as the same sines at the new times, to the pass-band ripple of a 90 dB
    /// window; sines above the new Nyquist frequency vanish by 80 dB. Away from the ends, where the extension differs.
    #[test]
    fn sines_pass_or_vanish() {
        for (old, new) in [(600.615, 100.0), (1000.0, 100.0), (100.0, 250.0), (250.0, 100.0), (1000.0, 999.0)] {
            let n = 20_000;
            let lower = f64::min(old, new) / 2.0;
            for frequency in [0.1 * lower, 0.5 * lower, 0.89 * lower] {
                let mut out = resample(in_memory(&[&sine(n, old, frequency)], old), new, AntiAlias::LowPass).unwrap();
                assert_eq!(out.info.n_timestep, (n as f64 * new / old).round() as usize);
                let (got, wanted) = (read_all(&mut out), sine(out.info.n_timestep, new, frequency));
                let inside = 400..got.len() - 400;
                let worst = inside.map(|i| (got[i] - wanted[i]).abs()).fold(0.0, f64::max);
                assert!(worst < 1e-4, "{old} to {new}: {frequency} Hz is off by {worst}");
            }
            if new < old {
                for frequency in [1.001 * lower, (lower + old / 2.0) / 2.0] {
                    let mut out =
                        resample(in_memory(&[&sine(n, old, frequency)], old), new, AntiAlias::LowPass).unwrap();
                    let got = read_all(&mut out);
                    let worst = got[400..got.len() - 400].iter().fold(0.0, |a: f64, x| a.max(x.abs()));
                    assert!(worst < 1e-4, "{old} to {new}: {frequency} Hz leaks {worst}");
                }
            }
        }
    }

    #[test]
    fn a_constant_stays_constant_to_its_ends() {
        let mut out = resample(in_memory(&[&[7.0; 3000]], 300.0), 97.0, AntiAlias::LowPass).unwrap();
        assert!(read_all(&mut out).iter().all(|x| (x - 7.0).abs() < 1e-13));
    }

    #[test]
    fn on_request_a_limited_signal_is_decimated_and_another_is_not() {
        let x = noise(2003, 1);
        let mut limited = in_memory(&[&x], 1000.0);
        limited.info.pass_band.1 = 45.0;
        limited.info.events = vec![Event { onset: 1999, duration: 55, label: "a".into() }];
        let mut out = resample(limited, 100.0, AntiAlias::PassBand).unwrap();
        assert_eq!(read_all(&mut out), x.iter().step_by(10).copied().collect::<Vec<_>>());
        assert_eq!((out.info.n_timestep, out.info.events[0].onset, out.info.events[0].duration), (201, 199, 5));
        let mut other = resample(in_memory(&[&x], 1000.0), 100.0, AntiAlias::PassBand).unwrap();
        assert_ne!(read_all(&mut other)[50], x[500]);
    }

    #[test]
    fn blocks_do_not_matter() {
        let x = noise(50_000, 2);
        for (sfreq, limit) in [(100.0, 45.0), (100.0, 500.0), (130.7, 500.0)] {
            let make = || {
                let mut recording = in_memory(&[&x, &x], 1000.0);
                recording.info.pass_band.1 = limit;
                resample(recording, sfreq, AntiAlias::PassBand).unwrap()
            };
            let whole = make().read(0, make().info.n_timestep).unwrap();
            let mut pieces = make();
            for (start, n) in [(3000, 777), (0, 1), (17, 2000), (4990, 10)] {
                let piece = pieces.read(start, n).unwrap();
                assert_eq!(piece.channel(1), &whole.channel(1)[start..start + n], "{sfreq} Hz, {n} at {start}");
            }
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for sfreq in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            let error = resample(in_memory(&[&[0.0; 100]], 10.0), sfreq, AntiAlias::LowPass).err().unwrap();
            assert_eq!(error.kind(), Kind::SamplingRate);
        }
        assert_eq!(
            resample(in_memory(&[&[0.0; 100]], 1000.0), 100.0, AntiAlias::LowPass).err().unwrap().kind(),
            Kind::TooShort
        );
        assert_eq!(
            resample(in_memory(&[&[0.0; 4]], 1000.0), 1.0, AntiAlias::LowPass).err().unwrap().kind(),
            Kind::TooShort
        );
    }

    #[test]
    fn bessel_against_known_values() {
        // Abramowitz & Stegun, table 9.8.
        for (x, wanted) in [(0.0, 1.0), (1.0, 1.266_065_877_752_008_4), (5.0, 27.239_871_823_604_44)] {
            assert!((bessel_i0(x) / wanted - 1.0).abs() < 1e-14, "{x}");
        }
    }
}
