//! From a recording as it was made to the signal that is tokenised: channels picked, filtered, resampled.

use super::filter::{Band, filter};
use super::marks::bridge;
use super::pick::{Picks, pick};
use super::resample::{AntiAlias, resample};
use super::{Block, Event, Info, Recording, Signal};
use crate::error::{Error, Kind, Result};
use memmap2::Mmap;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;

/// What is done to a recording before it is tokenised, in this order.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PrepareOptions {
    /// The channels used.
    pub picks: Picks,
    /// The pass band, if it is filtered.
    pub band: Option<Band>,
    /// The new sampling rate in Hz, if it is resampled.
    pub sfreq: Option<f64>,
    /// How resampling keeps high frequencies from folding down.
    pub anti_alias: AntiAlias,
}

/// The recording as it will be tokenised, gaps among its `marks` bridged; nothing is read until somebody asks for
/// samples, and then only what the channels picked hold matters.
///
/// Reading it to its end, in order, fails with [`Kind::ZeroVariance`] when a picked channel never changes.
pub fn prepare(recording: Recording, marks: &[Event], options: &PrepareOptions) -> Result<Recording> {
    let picked = pick(recording, &options.picks)?;
    let mut prepared = watch_for_flat_channels(bridge(picked, marks)?)?;
    if let Some(band) = &options.band {
        prepared = filter(prepared, band)?;
    }
    match options.sfreq {
        Some(sfreq) => resample(prepared, sfreq, options.anti_alias),
        None => Ok(prepared),
    }
}

/// Fails once the whole recording has been read, in order, and a channel has had one value throughout. It stands before
/// the filter, whose rounding would hide a flat channel.
fn watch_for_flat_channels(recording: Recording) -> Result<Recording> {
    let ranges = vec![(f64::INFINITY, f64::NEG_INFINITY); recording.info.n_channel()];
    let info = recording.info.clone();
    Recording::new(info, Box::new(FlatWatch { inner: recording, ranges, seen: 0 }))
}

struct FlatWatch {
    inner: Recording,
    /// Smallest and largest value of each channel.
    ranges: Vec<(f64, f64)>,
    /// Timesteps seen without a gap.
    seen: usize,
}

impl Signal for FlatWatch {
    fn read(&mut self, start: usize, n_timestep: usize) -> Result<Block> {
        let block = self.inner.read(start, n_timestep)?;
        let end = start + n_timestep;
        if start > self.seen || end <= self.seen {
            return Ok(block);
        }
        self.seen = end;
        for (channel, (min, max)) in self.ranges.iter_mut().enumerate() {
            let samples = block.channel(channel);
            *min = samples.iter().copied().fold(*min, f64::min);
            *max = samples.iter().copied().fold(*max, f64::max);
        }
        let info = &self.inner.info;
        if end == info.n_timestep {
            let flat = (0..self.ranges.len()).filter(|&channel| self.ranges[channel].0 == self.ranges[channel].1);
            let flat: Vec<&str> = flat.map(|channel| info.channels[channel].name.as_str()).collect();
            refuse_flat(&flat).map_err(|e| e.at(&info.source))?;
        }
        Ok(block)
    }
}

/// An error that names the flat channels, if there are any.
fn refuse_flat(flat: &[&str]) -> Result<()> {
    if flat.is_empty() { Ok(()) } else { Err(flat_error(flat, "the signal never changes", false)) }
}

/// The error about channels without spread, with the option that leaves them out, as it can be pasted into a shell: that
/// for channels marked bad where all of them are.
pub fn flat_error(flat: &[&str], why: &str, all_bad: bool) -> Error {
    let shown = flat.iter().take(5).copied().collect::<Vec<_>>().join(", ");
    let more = if flat.len() > 5 { format!(" and {} more", flat.len() - 5) } else { String::new() };
    let hint = match all_bad {
        true => "They are marked bad: --drop-bads leaves out what is marked so".to_string(),
        false => format!("Leave such channels out: --exclude \"{}\"", flat.join(",")),
    };
    Error::new(Kind::ZeroVariance, format!("{shown}{more}: {why}")).hint(hint)
}

/// A prepared recording, written once to a nameless file and mapped: statistics and encoding visit one channel at a
/// time, and the memory they use does not grow with the recording.
pub struct Prepared {
    /// As of the recording it was made from.
    pub info: Info,
    samples: Mmap,
}

impl Prepared {
    /// Reads all of `recording` into a nameless temporary file in `folder`, which needs four bytes for each sample and
    /// vanishes with this value, however the process ends. `progress` is told the timesteps done after each block.
    /// `None` when a signal asked the process to stop.
    pub fn new(recording: &mut Recording, folder: &Path, mut progress: impl FnMut(usize)) -> Result<Option<Self>> {
        const BLOCK: usize = 2048;
        let info = recording.info.clone();
        let (n_channel, n_timestep) = (info.n_channel(), info.n_timestep);
        let n_byte = n_channel.checked_mul(n_timestep).and_then(|n| n.checked_mul(4));
        let too_large = || Error::new(Kind::Corrupt, "the recording is larger than memory can address");
        let n_byte = n_byte.ok_or_else(too_large)?;
        let failed = |e| Error::io(e, &format!("write the prepared signal ({n_byte} bytes)"), folder);
        let mut file = tempfile::tempfile_in(folder).map_err(failed)?;
        file.set_len(n_byte as u64).map_err(failed)?;
        let mut start = 0;
        while start < n_timestep {
            if crate::interrupt::requested().is_some() {
                return Ok(None);
            }
            let n = BLOCK.min(n_timestep - start);
            let block = recording.read(start, n)?;
            for channel in 0..n_channel {
                let samples: Vec<f32> = block.channel(channel).iter().map(|&x| x as f32).collect();
                if let Some(at) = samples.iter().position(|x| !x.is_finite()) {
                    let name = &info.channels[channel].name;
                    let what = format!("channel {name} leaves the range of float32 at timestep {}", start + at);
                    return Err(Error::new(Kind::NonFiniteSignal, what).at(&info.source));
                }
                let position = SeekFrom::Start(4 * (channel * n_timestep + start) as u64);
                let bytes = bytemuck::cast_slice(&samples);
                file.seek(position).and_then(|_| file.write_all(bytes)).map_err(failed)?;
            }
            start += n;
            progress(start);
        }
        // SAFETY: the file has no name, so no other process can open it, and this one neither writes nor shortens it
        // from here on; its length was set above.
        let samples = unsafe { Mmap::map(&file) }.map_err(|e| Error::io(e, "map the prepared signal", folder))?;
        let prepared = Self { info, samples };
        let flat = |channel: &usize| prepared.channel(*channel).iter().all(|&x| x == prepared.channel(*channel)[0]);
        let flat: Vec<usize> = (0..n_channel).filter(flat).collect();
        let flat: Vec<&str> = flat.iter().map(|&channel| prepared.info.channels[channel].name.as_str()).collect();
        refuse_flat(&flat).map_err(|e| e.at(&prepared.info.source))?;
        Ok(Some(prepared))
    }

    /// All timesteps of one channel, in SI units.
    pub fn channel(&self, channel: usize) -> &[f32] {
        let n_timestep = self.info.n_timestep;
        &bytemuck::cast_slice(&self.samples)[channel * n_timestep..][..n_timestep]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recording::testing::{in_memory, noise};

    fn options(low_pass: f64, sfreq: f64) -> PrepareOptions {
        let band = Band { low_pass: Some(low_pass), ..Band::default() };
        PrepareOptions { band: Some(band), sfreq: Some(sfreq), ..PrepareOptions::default() }
    }

    #[test]
    fn the_file_holds_what_the_recording_gives() {
        let rows = [noise(30_000, 1), noise(30_000, 2), noise(30_000, 3)];
        let rows: Vec<&[f64]> = rows.iter().map(Vec::as_slice).collect();
        let make = || prepare(in_memory(&rows, 1000.0), &[], &options(45.0, 100.0)).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let mut done = 0;
        let prepared = Prepared::new(&mut make(), folder.path(), |n| done = n).unwrap().unwrap();
        assert_eq!((done, prepared.info.n_timestep, prepared.info.pass_band), (3000, 3000, (0.5, 45.0)));
        let block = make().read(0, 3000).unwrap();
        for channel in 0..3 {
            let wanted: Vec<f32> = block.channel(channel).iter().map(|&x| x as f32).collect();
            assert_eq!(prepared.channel(channel), wanted);
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    /// The amplitude of the sine of `hz` Hz that is left after `options`, wherever in the new spectrum it comes out.
    fn left_of(hz: f64, sfreq: f64, options: &PrepareOptions) -> f64 {
        let n = (60.0 * sfreq) as usize;
        let x: Vec<f64> = (0..n).map(|t| (std::f64::consts::TAU * hz * t as f64 / sfreq).sin()).collect();
        let mut prepared = prepare(in_memory(&[&x], sfreq), &[], options).unwrap();
        let n = prepared.info.n_timestep;
        // The ends, where a sine is mirrored, are another matter.
        let inside = prepared.read(1000, n - 2000).unwrap();
        (2.0 * inside.data.iter().map(|x| x * x).sum::<f64>() / inside.data.len() as f64).sqrt()
    }

    /// Mains at 60 Hz and its harmonics, and what else lies above 50 Hz, must not fold into the band of the tokens.
    #[test]
    fn what_lies_above_the_new_nyquist_frequency_is_gone() {
        for sfreq in [1000.0, 600.6, 600.614_990_234_375, 250.0] {
            for hz in [50.5, 60.0, 61.3, 99.0, 120.0] {
                let left = left_of(hz, sfreq, &options(45.0, 100.0));
                assert!(left < 1e-4, "{hz} Hz of {sfreq} Hz leaves {:.1} dB", 20.0 * left.log10());
            }
            let left = left_of(20.0, sfreq, &options(45.0, 100.0));
            // The Butterworth takes 1 / (1 + (20 / 45)¹⁰), less than a thousandth; the sum is not over whole periods.
            assert!((0.998..1.001).contains(&left), "20 Hz of {sfreq} Hz comes out as {left}");
        }
    }

    /// The authors filter and then take every n-th timestep: mains at 60 Hz is left as the Butterworth leaves it. Where
    /// the ratio is not whole there is no n-th timestep, and the low-pass is needed.
    #[test]
    fn the_authors_preset_decimates() {
        let authors = PrepareOptions {
            band: Some(Band::AUTHORS),
            sfreq: Some(100.0),
            anti_alias: AntiAlias::PassBand,
            ..PrepareOptions::default()
        };
        let x = noise(30_000, 4);
        let decimated = prepare(in_memory(&[&x], 1000.0), &[], &authors).unwrap().read(0, 3000).unwrap();
        let filtered = filter(in_memory(&[&x], 1000.0), &Band::AUTHORS).unwrap().read(0, 30_000).unwrap();
        assert_eq!(decimated.data, filtered.data.iter().step_by(10).copied().collect::<Vec<_>>());
        let left = left_of(60.0, 1000.0, &authors);
        // 1 / (1 + Ω¹⁰) with the pre-warped Ω of 60 Hz in a band that ends at 49.9 Hz.
        let warp = |hz: f64| (std::f64::consts::PI * hz / 1000.0).tan();
        let (low, high) = (warp(0.5), warp(49.9));
        let omega = (warp(60.0).powi(2) - low * high) / (warp(60.0) * (high - low));
        let wanted = 1.0 / (1.0 + omega.powi(10));
        assert!((left / wanted - 1.0).abs() < 0.01, "{left} of {wanted}");
        assert!(left_of(60.0, 600.6, &authors) < 1e-4);
    }

    #[test]
    fn flat_channels_are_named() {
        let rows = [noise(30_000, 1), vec![3.3e-13; 30_000]];
        let rows: Vec<&[f64]> = rows.iter().map(Vec::as_slice).collect();
        let folder = tempfile::tempdir().unwrap();
        for options in [options(45.0, 100.0), options(45.0, 1000.0), PrepareOptions::default()] {
            let mut recording = prepare(in_memory(&rows, 1000.0), &[], &options).unwrap();
            let error = Prepared::new(&mut recording, folder.path(), |_| ()).err().unwrap();
            assert_eq!(error.kind(), Kind::ZeroVariance);
            assert!(error.to_string().contains("MEG 001: the signal never changes"), "{error}");
        }
    }

    #[test]
    fn samples_that_are_no_numbers_are_named_unless_excluded() {
        let mut bad = noise(30_000, 1);
        bad[12_345] = f64::NAN;
        let good = noise(30_000, 2);
        let folder = tempfile::tempdir().unwrap();
        let mut recording = prepare(in_memory(&[&good, &bad], 1000.0), &[], &options(45.0, 100.0)).unwrap();
        let error = Prepared::new(&mut recording, folder.path(), |_| ()).err().unwrap();
        assert_eq!(error.kind(), Kind::NonFiniteSignal);
        assert!(error.to_string().contains("MEG 001 is NaN at timestep 12345"), "{error}");
        let mut options = options(45.0, 100.0);
        options.picks.exclude = vec!["MEG 001".into()];
        let mut recording = prepare(in_memory(&[&good, &bad], 1000.0), &[], &options).unwrap();
        assert!(Prepared::new(&mut recording, folder.path(), |_| ()).unwrap().is_some());
    }
}
