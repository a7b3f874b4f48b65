//! Recordings: what is read, what the simulator makes, and what generation ends in.
//!
//! A [`Recording`] is an [`Info`] and a [`Signal`] that is handed out in blocks; hours of 306 channels never have to
//! be in memory at once. Every stage of the program begins and ends with this one type, so real against generated and
//! real against real go through the same code.

pub mod bids;
pub mod events;
mod extend;
pub mod fif;
pub mod filter;
pub mod marks;
pub mod npy;
pub mod open;
pub mod pick;
pub mod prepare;
pub mod resample;
pub mod simulate;
pub mod split;
pub mod stim;
#[cfg(test)]
pub(crate) mod testing;
pub mod together;

pub use open::{OpenOptions, create, open};

use crate::ensure;
use crate::error::{Kind, Result};
use crate::storage::atomic::{self, AtomicFile};
use crate::storage::disk::Disk;
use serde::{Deserialize, Serialize};

/// Where the name of a file ends and its extension (with the dot; `""` for none of ours) begins. A dot may also be a part
/// of the name, as in `sub-01.a_raw.fif`.
pub(crate) fn stem_and_extension(name: &str) -> (&str, &str) {
    let small = name.to_ascii_lowercase();
    let extension = [".fif.gz", ".fif", ".npy"].into_iter().find(|extension| small.ends_with(extension));
    name.split_at(name.len() - extension.map_or(0, str::len))
}

/// What a channel measures. The unit follows from it, as in MNE.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChannelKind {
    /// Magnetometer, tesla.
    Mag,
    /// Planar or axial gradiometer whose unit is tesla per metre.
    Grad,
    /// Reference magnetometer or gradiometer of a CTF, KIT or 4D system.
    RefMeg,
    /// Electrode on the scalp, volt.
    Eeg,
    /// Trigger line, no unit.
    Stim,
    /// Electro-oculogram, volt.
    Eog,
    /// Electrocardiogram, volt.
    Ecg,
    /// Electromyogram, volt.
    Emg,
    /// Anything else.
    Misc,
}

impl ChannelKind {
    /// The SI unit as text: `T`, `T/m`, `V` or nothing.
    pub fn unit(self) -> &'static str {
        match self {
            Self::Mag | Self::RefMeg => "T",
            Self::Grad => "T/m",
            Self::Eeg | Self::Eog | Self::Ecg | Self::Emg => "V",
            Self::Stim | Self::Misc => "",
        }
    }
}

/// One sensor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Channel {
    /// Name, unique within a recording.
    pub name: String,
    /// What it measures.
    pub kind: ChannelKind,
    /// Position (m) and three unit vectors (ex, ey, ez), as FIF stores them; zeros where unknown.
    pub loc: [f32; 12],
    /// FIF coil type (3012, 3022, 3024, … for Elekta; 1 for EEG; 0 where unknown).
    pub coil_type: i32,
    /// FIF coordinate frame of `loc` (1 device, 4 head, 0 unknown).
    pub coord_frame: i32,
    /// Marked bad in the source. Bad channels are kept unless the user drops them.
    pub bad: bool,
}

/// Something that happened: a trigger, an annotation, a row of `_events.tsv`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Event {
    /// Timestep of the onset, counted from the first timestep of the recording.
    pub onset: usize,
    /// Length in timesteps; 0 where the source gives none.
    pub duration: usize,
    /// The label: the trigger code in decimal, the annotation's description or the BIDS `trial_type`.
    pub label: String,
}

/// A digitised point on the head, as FIF stores it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DigPoint {
    /// 1 cardinal, 2 HPI coil, 3 EEG electrode, 4 extra, 5 head surface.
    pub kind: i32,
    /// Number within its kind.
    pub ident: i32,
    /// Position in metres.
    pub position: [f32; 3],
    /// FIF coordinate frame of `position`; 4, head, nearly always.
    pub coord_frame: i32,
}

/// Everything about a recording but its samples.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Info {
    /// The sensors, in the order of the signal's rows.
    pub channels: Vec<Channel>,
    /// Sampling rate in Hz.
    pub sfreq: f64,
    /// Length in timesteps.
    pub n_timestep: usize,
    /// FIF's `first_samp`: the number the acquisition system gave the first timestep. Events are already relative.
    pub first_timestep: u64,
    /// Sorted by onset, all inside the recording.
    pub events: Vec<Event>,
    /// The subject's label (`01` of `sub-01`), where known.
    pub subject: Option<String>,
    /// Pass band in Hz that the signal has already been limited to: (high-pass, low-pass).
    pub pass_band: (f64, f64),
    /// Seconds and microseconds since 1970 (UTC) of the first acquired sample, where known.
    pub meas_date: Option<(i64, i64)>,
    /// Mains frequency in Hz, where known.
    pub line_freq: Option<f64>,
    /// Device-to-head transform, row-major 4 × 4, where known.
    pub dev_head_t: Option<[[f32; 4]; 4]>,
    /// Digitised head points.
    pub dig: Vec<DigPoint>,
    /// What the recording says of itself, in words: FIF's description.
    #[serde(default)]
    pub description: Option<String>,
    /// Where it came from: file name, or `simulated`, or `generated`.
    pub source: String,
}

impl Info {
    /// Number of channels.
    pub fn n_channel(&self) -> usize {
        self.channels.len()
    }

    /// Length in seconds.
    pub fn seconds(&self) -> f64 {
        self.n_timestep as f64 / self.sfreq
    }

    /// Checks what every reader must guarantee: channels and timesteps, a sampling rate, unique names, events sorted
    /// and inside.
    pub fn check(&self) -> Result<()> {
        ensure!(!self.channels.is_empty(), Kind::EmptyRecording, "the recording has no channels");
        ensure!(self.n_timestep > 0, Kind::EmptyRecording, "the recording has no timesteps");
        ensure!(
            (1e-3..=1e7).contains(&self.sfreq),
            Kind::SamplingRate,
            "a sampling rate of {} Hz makes no sense",
            self.sfreq
        );
        let mut names: Vec<&str> = self.channels.iter().map(|c| c.name.as_str()).collect();
        names.sort_unstable();
        for pair in names.windows(2) {
            ensure!(pair[0] != pair[1], Kind::Corrupt, "two channels are called {}", pair[0]);
        }
        for pair in self.events.windows(2) {
            ensure!(pair[0].onset <= pair[1].onset, Kind::Corrupt, "events are not sorted by onset");
        }
        if let Some(last) = self.events.last() {
            ensure!(
                last.onset < self.n_timestep,
                Kind::Corrupt,
                "an event at timestep {} lies outside the recording of {} timesteps",
                last.onset,
                self.n_timestep
            );
        }
        Ok(())
    }
}

/// A stretch of signal, all channels: `data[channel * n_timestep + time]`, in SI units.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Block {
    /// Rows.
    pub n_channel: usize,
    /// Columns.
    pub n_timestep: usize,
    /// Row-major samples, channels first.
    pub data: Vec<f64>,
}

impl Block {
    /// A block of zeros.
    pub fn zeros(n_channel: usize, n_timestep: usize) -> Self {
        Self { n_channel, n_timestep, data: vec![0.0; n_channel * n_timestep] }
    }

    /// One channel's samples.
    pub fn channel(&self, channel: usize) -> &[f64] {
        &self.data[channel * self.n_timestep..][..self.n_timestep]
    }

    /// The channels in `rows`, in that order.
    pub fn rows(self, rows: &[usize]) -> Self {
        if rows.iter().copied().eq(0..self.n_channel) {
            return self;
        }
        let data = rows.iter().flat_map(|&row| self.channel(row)).copied().collect();
        Self { n_channel: rows.len(), n_timestep: self.n_timestep, data }
    }

    /// One channel's samples, mutable.
    pub fn channel_mut(&mut self, channel: usize) -> &mut [f64] {
        &mut self.data[channel * self.n_timestep..][..self.n_timestep]
    }
}

/// Where the samples come from: a file, a filter over another signal, decoded tokens. Any stretch may be asked for in
/// any order; implementations are fastest in order. `start + n_timestep` never exceeds the recording (checked by
/// [`Recording::read`]).
pub trait Signal: Send {
    /// The samples `start .. start + n_timestep` of every channel, in SI units.
    fn read(&mut self, start: usize, n_timestep: usize) -> Result<Block>;
}

/// A recording: what is known about it, and its signal.
pub struct Recording {
    /// Everything but the samples.
    pub info: Info,
    signal: Box<dyn Signal>,
}

impl Recording {
    /// Timesteps in one block of [`Recording::blocks`]: about ten seconds at 1 kHz.
    pub const BLOCK: usize = 10_000;

    /// A recording whose info holds together.
    pub fn new(info: Info, signal: Box<dyn Signal>) -> Result<Self> {
        info.check().map_err(|e| e.at(&info.source))?;
        Ok(Self { info, signal })
    }

    /// The samples `start .. start + n_timestep` of every channel; every one of them finite.
    pub fn read(&mut self, start: usize, n_timestep: usize) -> Result<Block> {
        let block = self.read_unchecked(start, n_timestep)?;
        self.refuse_non_finite(&block, start, |row| row)?;
        Ok(block)
    }

    /// The same of the channels in `rows` only, in that order: what the others hold does not matter.
    pub fn read_rows(&mut self, rows: &[usize], start: usize, n_timestep: usize) -> Result<Block> {
        let block = self.read_unchecked(start, n_timestep)?.rows(rows);
        self.refuse_non_finite(&block, start, |row| rows[row])?;
        Ok(block)
    }

    fn read_unchecked(&mut self, start: usize, n_timestep: usize) -> Result<Block> {
        let inside = start.checked_add(n_timestep).is_some_and(|end| end <= self.info.n_timestep);
        ensure!(inside, Kind::Internal, "asked for {n_timestep} timesteps at {start} of {}", self.info.n_timestep);
        self.signal.read(start, n_timestep)
    }

    /// Refuses a block, whose row `row` is the channel `channel_of(row)`, with a sample that is not finite.
    fn refuse_non_finite(&self, block: &Block, start: usize, channel_of: impl Fn(usize) -> usize) -> Result<()> {
        if let Some(at) = block.data.iter().position(|x| !x.is_finite()) {
            let (channel, time) = (channel_of(at / block.n_timestep), start + at % block.n_timestep);
            let name = &self.info.channels[channel].name;
            let what = format!("channel {name} is {} at timestep {time}", block.data[at]);
            let hint = "Interpolate or cut that stretch, or leave that channel out";
            return Err(crate::error::Error::new(Kind::NonFiniteSignal, what).at(&self.info.source).hint(hint));
        }
        Ok(())
    }

    /// Hands the whole recording to `each`, block by block, in order: `each(start, block)`.
    pub fn blocks(&mut self, mut each: impl FnMut(usize, &Block) -> Result<()>) -> Result<()> {
        let mut start = 0;
        while start < self.info.n_timestep {
            let n_timestep = Self::BLOCK.min(self.info.n_timestep - start);
            each(start, &self.read(start, n_timestep)?)?;
            start += n_timestep;
        }
        Ok(())
    }

    /// Wraps the signal in another (a filter, a pick of channels), with the info that then holds.
    pub fn map(self, info: Info, wrap: impl FnOnce(Box<dyn Signal>) -> Box<dyn Signal>) -> Result<Self> {
        Self::new(info, wrap(self.signal))
    }
}

/// Gives a sealed recording its names, and then the files that describe it (already sealed too). Older ones of those are
/// removed first: after a crash in between the new recording stands without them, and never beside another's.
pub fn publish_described(disk: &dyn Disk, recording: Box<dyn Writer>, beside: Vec<AtomicFile>) -> Result<()> {
    beside.iter().try_for_each(|file| atomic::remove(disk, file.target()))?;
    recording.publish()?;
    beside.into_iter().try_for_each(AtomicFile::publish)
}

/// A signal that is in memory: for tests, short generated recordings and fixtures.
pub struct InMemory(pub Block);

impl Signal for InMemory {
    fn read(&mut self, start: usize, n_timestep: usize) -> Result<Block> {
        let mut block = Block::zeros(self.0.n_channel, n_timestep);
        for channel in 0..self.0.n_channel {
            block.channel_mut(channel).copy_from_slice(&self.0.channel(channel)[start..start + n_timestep]);
        }
        Ok(block)
    }
}

/// Writes a recording block by block under temporary names; the files take their own in [`Writer::publish`]. A writer
/// that is dropped before leaves nothing.
pub trait Writer {
    /// Appends a block of all channels, in SI units.
    fn write(&mut self, block: &Block) -> Result<()>;
    /// Completes the files with the events seen (onsets counted from the first written timestep) and makes them durable,
    /// under their temporary names still.
    fn seal(&mut self, events: &[Event]) -> Result<()>;
    /// Gives the sealed files their names.
    fn publish(self: Box<Self>) -> Result<()>;
    /// [`seal`](Self::seal) and [`publish`](Self::publish).
    fn finish(mut self: Box<Self>, events: &[Event]) -> Result<()> {
        self.seal(events)?;
        self.publish()
    }
}
