//! One pass over a recording gathers everything the statistics need: constant memory, block by block, channels in
//! parallel. Each channel is summed by one thread in the order of time, so the numbers do not depend on the threads.

use super::amplitude::Amplitude;
use super::autocorrelation::{CorrelationSum, Correlator};
use super::covariance::CovarianceSum;
use super::envelope::{BANDS, Envelope, EnvelopeSum, Enveloper};
use super::health::{Watch, Watcher, Window};
use crate::ensure;
use crate::error::{Error, Kind, Result};
use crate::recording::{Block, Info, Recording};
use crate::statistics::welch::{SEGMENT_SECONDS, Welch, WelchSum, segment_len};
use rayon::prelude::*;
use std::ops::Range;

/// A recording, or several parts of one that follow each other with gaps between: what one colour of the report is.
pub struct Source {
    /// The name in the report.
    pub label: String,
    /// In order of time; the same channels and sampling rate.
    pub pieces: Vec<Recording>,
}

/// Mean and standard deviation of every channel, in SI units: the common scale of all recordings of a report.
#[derive(Debug, Clone, PartialEq)]
pub struct Scale {
    /// Mean of each channel.
    pub mean: Vec<f64>,
    /// Standard deviation of each channel.
    pub sd: Vec<f64>,
}

/// What one recording was measured to be: a row a channel.
#[derive(Debug, Clone)]
pub struct Measured {
    /// The name in the report.
    pub label: String,
    /// Where it came from.
    pub origin: String,
    /// Timesteps measured.
    pub n_timestep: usize,
    /// Frequencies of the spectra, Hz.
    pub frequencies: Vec<f64>,
    /// Power spectral density of each channel, SI unit squared per Hz.
    pub spectra: Vec<Vec<f64>>,
    /// Amplitude distribution of each channel, in standard deviations of the real one.
    pub amplitudes: Vec<Amplitude>,
    /// Autocorrelation of each channel from lag 0 on, one value a timestep.
    pub autocorrelations: Vec<Vec<f64>>,
    /// Correlation of each channel with each.
    pub correlations: Vec<Vec<f64>>,
    /// Envelope of each channel in each of the bands that the sampling rate allows, `[band][channel]`.
    pub envelopes: Vec<Vec<Envelope>>,
    /// Each channel's windows in order of time.
    pub windows: Vec<Vec<Window>>,
}

/// The state of a measurement under way.
pub struct Meter<'a> {
    welch: Welch,
    correlator: Correlator,
    envelopers: Vec<Enveloper>,
    watcher: Watcher,
    covariance: CovarianceSum,
    scale: &'a Scale,
    channels: Vec<ChannelMeter>,
    n_timestep: usize,
}

#[derive(Default)]
struct ChannelMeter {
    welch: WelchSum,
    correlation: CorrelationSum,
    amplitude: Amplitude,
    envelopes: [EnvelopeSum; BANDS.len()],
    watch: Watch,
    z: Vec<f64>,
}

impl<'a> Meter<'a> {
    /// A meter for as many channels as `scale` has.
    pub fn new(sfreq: f64, scale: &'a Scale) -> Self {
        let channels = scale.mean.iter().map(|_| ChannelMeter::default()).collect();
        let welch = Welch::new(sfreq, segment_len(sfreq));
        Self {
            welch,
            correlator: Correlator::new(sfreq),
            envelopers: Enveloper::all(sfreq),
            watcher: Watcher::new(sfreq),
            covariance: CovarianceSum::new(scale.mean.len()),
            scale,
            channels,
            n_timestep: 0,
        }
    }

    /// Takes in timesteps `from .. to` of a block.
    pub fn push(&mut self, block: &Block, from: usize, to: usize) {
        if from >= to {
            return;
        }
        let (welch, correlator, scale) = (&self.welch, &self.correlator, self.scale);
        let (envelopers, watcher) = (&self.envelopers, &self.watcher);
        self.channels.par_iter_mut().enumerate().for_each(|(index, channel)| {
            let samples = &block.channel(index)[from..to];
            let (mean, sd) = (scale.mean[index], scale.sd[index]);
            channel.z.clear();
            channel.z.extend(samples.iter().map(|x| (x - mean) / sd));
            welch.push(&mut channel.welch, &channel.z);
            correlator.push(&mut channel.correlation, &channel.z);
            channel.amplitude.push(&channel.z);
            for (enveloper, sum) in envelopers.iter().zip(&mut channel.envelopes) {
                enveloper.push(sum, &channel.z);
            }
            watcher.push(&mut channel.watch, &channel.z);
        });
        self.covariance.push(self.channels.iter().map(|channel| channel.z.as_slice()));
        self.n_timestep += to - from;
    }

    /// The recording has a gap here.
    pub fn gap(&mut self) {
        for channel in &mut self.channels {
            self.welch.gap(&mut channel.welch);
            self.correlator.gap(&mut channel.correlation);
            for (enveloper, sum) in self.envelopers.iter().zip(&mut channel.envelopes) {
                enveloper.gap(sum);
            }
            self.watcher.gap(&mut channel.watch);
        }
    }

    /// The measurements; an error if not one whole segment was seen.
    pub fn finish(self, label: &str, origin: &str) -> Result<Measured> {
        let n_segment = self.channels.iter().map(|c| c.welch.n_segment).min().unwrap_or(0);
        let what = format!("no unbroken stretch of {label} lasts {} s, one segment of a spectrum", SEGMENT_SECONDS);
        ensure!(n_segment > 0, Kind::TooShort, "{what}");
        let (welch, correlator, scale) = (self.welch, self.correlator, self.scale);
        let mut measured = Measured {
            label: label.into(),
            origin: origin.into(),
            n_timestep: self.n_timestep,
            frequencies: welch.frequencies(),
            spectra: Vec::new(),
            amplitudes: Vec::new(),
            autocorrelations: Vec::new(),
            correlations: self.covariance.correlations(),
            envelopes: vec![Vec::new(); self.envelopers.len()],
            windows: Vec::new(),
        };
        for (channel, sd) in self.channels.into_iter().zip(&scale.sd) {
            measured.spectra.push(welch.density(&channel.welch).iter().map(|p| p * sd * sd).collect());
            measured.autocorrelations.push(correlator.finish(channel.correlation));
            measured.amplitudes.push(channel.amplitude);
            for ((of_band, enveloper), sum) in
                measured.envelopes.iter_mut().zip(&self.envelopers).zip(channel.envelopes)
            {
                of_band.push(enveloper.finish(sum));
            }
            measured.windows.push(channel.watch.windows);
        }
        Ok(measured)
    }
}

impl Source {
    /// Timesteps of all pieces.
    pub fn n_timestep(&self) -> usize {
        self.pieces.iter().map(|piece| piece.info.n_timestep).sum()
    }

    /// Onsets of all events, in timesteps over all pieces.
    pub fn onsets(&self) -> Vec<usize> {
        let mut before = 0;
        let mut onsets = Vec::new();
        for piece in &self.pieces {
            onsets.extend(piece.info.events.iter().map(|event| before + event.onset));
            before += piece.info.n_timestep;
        }
        onsets
    }

    /// What is known of the first piece, and so of all.
    pub fn info(&self) -> &Info {
        &self.pieces[0].info
    }

    /// Hands every block to `each(start, block, last)`: `start` counts timesteps over all pieces, `last` says that a
    /// piece ends with the block. `each` returns whether to go on.
    pub fn blocks(&mut self, mut each: impl FnMut(usize, &Block, bool) -> Result<()>) -> Result<()> {
        let mut before = 0;
        for piece in &mut self.pieces {
            let n = piece.info.n_timestep;
            piece.blocks(|start, block| each(before + start, block, start + block.n_timestep == n))?;
            before += n;
        }
        Ok(())
    }

    /// Mean and standard deviation of every channel, by blocks merged as Chan, Golub and LeVeque (1983) have it.
    pub fn scale(&mut self, mut progress: impl FnMut(usize) -> Result<()>) -> Result<Scale> {
        let n_channel = self.info().n_channel();
        let (mut mean, mut squares, mut n) = (vec![0.0; n_channel], vec![0.0; n_channel], 0.0);
        self.blocks(|_, block, _| {
            let m = block.n_timestep as f64;
            mean.par_iter_mut().zip(&mut squares).enumerate().for_each(|(index, (mean, squares))| {
                let samples = block.channel(index);
                let block_mean = samples.iter().sum::<f64>() / m;
                let block_squares: f64 = samples.iter().map(|x| (x - block_mean).powi(2)).sum();
                let step = block_mean - *mean;
                *mean += step * m / (n + m);
                *squares += block_squares + step * step * n * m / (n + m);
            });
            n += m;
            progress(block.n_timestep)
        })?;
        let sd: Vec<f64> = squares.iter().map(|s| (s / n).sqrt()).collect();
        for (index, (sd, mean)) in sd.iter().zip(&mean).enumerate() {
            // Rounding alone leaves about 1e-16 of the mean.
            if *sd <= 1e-13 * mean.abs() {
                let info = self.info();
                let what = format!("channel {} of the real recording never changes", info.channels[index].name);
                let hint = "Nothing can be compared with it: leave that channel out of both recordings";
                return Err(Error::new(Kind::ZeroVariance, what).at(&info.source).hint(hint));
            }
        }
        Ok(Scale { mean, sd })
    }

    /// Measures the whole.
    pub fn measure(&mut self, scale: &Scale, progress: impl FnMut(usize) -> Result<()>) -> Result<Measured> {
        let n = self.n_timestep();
        let [whole] = self.measure_parts(scale, [(0, n)], progress)?;
        Ok(whole)
    }

    /// Measures stretches that follow each other, one after the other, and keeps of each what `keep` makes of it.
    pub fn measure_in_turn<T>(
        &mut self,
        scale: &Scale,
        parts: &[Range<usize>],
        keep: impl Fn(Measured) -> T,
        progress: &mut dyn FnMut(usize) -> Result<()>,
    ) -> Result<Vec<T>> {
        let (sfreq, label, origin) = (self.info().sfreq, self.label.clone(), self.info().source.clone());
        let mut meter = Meter::new(sfreq, scale);
        let mut kept = Vec::new();
        self.blocks(|start, block, last| {
            while let Some(part) = parts.get(kept.len()) {
                let inside = |t: usize| t.saturating_sub(start).min(block.n_timestep);
                meter.push(block, inside(part.start), inside(part.end));
                if part.end > start + block.n_timestep {
                    break;
                }
                let done = std::mem::replace(&mut meter, Meter::new(sfreq, scale));
                kept.push(keep(done.finish(&label, &origin)?));
            }
            if last {
                meter.gap();
            }
            progress(block.n_timestep)
        })?;
        Ok(kept)
    }

    /// Measures several stretches, given in timesteps over all pieces, in one pass.
    pub fn measure_parts<const N: usize>(
        &mut self,
        scale: &Scale,
        parts: [(usize, usize); N],
        mut progress: impl FnMut(usize) -> Result<()>,
    ) -> Result<[Measured; N]> {
        let sfreq = self.info().sfreq;
        let mut meters = parts.map(|_| Meter::new(sfreq, scale));
        self.blocks(|start, block, last| {
            for (meter, (from, to)) in meters.iter_mut().zip(parts) {
                let inside = |t: usize| t.saturating_sub(start).min(block.n_timestep);
                meter.push(block, inside(from), inside(to));
                if last {
                    meter.gap();
                }
            }
            progress(block.n_timestep)
        })?;
        let origin = self.info().source.clone();
        let measured: Vec<Measured> =
            meters.into_iter().map(|meter| meter.finish(&self.label, &origin)).collect::<Result<_>>()?;
        Ok(measured.try_into().expect("as many as there are parts"))
    }
}
