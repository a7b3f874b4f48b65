//! numpy arrays: read in either orientation (declared, never guessed), written as `float32`.
//!
//! Beside `x.npy` our writer puts `x.json` (sensors, sampling rate) and `x_events.tsv`, and the reader looks for them.

mod array;
mod sidecar;
mod write;

pub use array::Array;
pub use write::{create, create_on};

use super::events::table;
use super::{Block, Channel, ChannelKind, Info, Recording, Signal};
use crate::ensure;
use crate::error::{Error, Kind, Result};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// The bytes that every `.npy` file begins with.
pub const MAGIC: &[u8; 6] = b"\x93NUMPY";

/// Which axis of an array is time. The default is for writing; reading assumes nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Layout {
    /// A row is a timestep: time × channels, as osl-dynamics expects.
    #[default]
    TimeFirst,
    /// A row is a channel: channels × time, as MNE's `get_data` returns.
    ChannelsFirst,
}

/// What a `.npy` file does not say of itself.
#[derive(Debug, Clone, Default)]
pub struct NpyOptions {
    /// Which axis is time. Needed unless the file beside it, written by us, says so.
    pub layout: Option<Layout>,
    /// Sampling rate in Hz. Needed unless the file beside it says so.
    pub sfreq: Option<f64>,
    /// What the channels measure; `Misc` when neither this nor the file beside it says.
    pub kind: Option<ChannelKind>,
    /// Names of the channels; `000`, `001`, … when neither this nor the file beside it says.
    pub names: Option<Vec<String>>,
}

/// Opens an array of shape time × channels or channels × time; its numbers are taken to be in SI units. Events are read
/// from `x_events.tsv` beside it, where that exists.
///
/// Errors: a layout or sampling rate that nobody states ([`Kind::Usage`], [`Kind::SamplingRate`]), more channels than
/// timesteps under the stated layout ([`Kind::Usage`]), a header that does not fit the file ([`Kind::Corrupt`]).
pub fn open(path: &Path, options: &NpyOptions) -> Result<Recording> {
    let array = Array::open(path)?;
    let sidecar = sidecar::read(path)?;
    let layout = declared_layout(options.layout, sidecar.as_ref().map(|s| s.layout)).map_err(|e| e.at(path))?;
    let time_first = layout == Layout::TimeFirst;
    let (n_timestep, n_channel) =
        if time_first { (array.n_row, array.n_column) } else { (array.n_column, array.n_row) };
    // Before the comparison below: what is empty is not the wrong way round.
    ensure!(n_channel > 0 && n_timestep > 0, Kind::EmptyRecording, "{}: the array is empty", path.display());
    if n_channel > n_timestep {
        let (declared, other) = match layout {
            Layout::TimeFirst => ("time × channels", "channels-first"),
            Layout::ChannelsFirst => ("channels × time", "time-first"),
        };
        let what = format!("read as {declared} it has {n_channel} channels and only {n_timestep} timesteps");
        return Err(Error::new(Kind::Usage, what).at(path).hint(format!("Did you mean --layout {other}?")));
    }
    let mut info = match sidecar {
        Some(sidecar) => {
            let fits = sidecar.info.n_timestep == n_timestep && sidecar.info.n_channel() == n_channel;
            if !fits {
                let what = format!(
                    "it describes {} channels × {} timesteps, the array has {n_channel} × {n_timestep}",
                    sidecar.info.n_channel(),
                    sidecar.info.n_timestep
                );
                let hint = "Remove it and give --rate and --layout, or write the array again";
                return Err(Error::new(Kind::Corrupt, what).at(sidecar::path(path)).hint(hint));
            }
            sidecar.info
        }
        None => bare_info(n_channel, n_timestep),
    };
    describe(&mut info, options).map_err(|e| e.at(path))?;
    info.source = path.display().to_string();
    let table = table::beside(path);
    if table.exists() {
        info.events = table::read(&table, info.sfreq, info.first_timestep, n_timestep)?.events;
    }
    Recording::new(info, Box::new(NpySignal { array, time_first, n_channel }))
}

/// What the file beside an array says of it, where our writer left one: the recording but for its events.
pub fn described(path: &Path) -> Result<Option<Info>> {
    Ok(sidecar::read(path)?.map(|sidecar| sidecar.info))
}

/// Everything that is written for an array called `path`: the array, its description and its events.
pub fn files(path: &Path) -> [PathBuf; 3] {
    [path.into(), sidecar::path(path), table::beside(path)]
}

/// The layout the user declared, or the one our own writer noted; both must agree.
fn declared_layout(declared: Option<Layout>, noted: Option<Layout>) -> Result<Layout> {
    match (declared, noted) {
        (Some(a), Some(b)) if a != b => {
            let what = format!("--layout says {a:?}, the .json file beside it says {b:?}");
            Err(Error::new(Kind::Usage, what).hint("Leave --layout out to follow the .json file"))
        }
        (Some(layout), _) | (None, Some(layout)) => Ok(layout),
        (None, None) => Err(Error::new(Kind::Usage, "nothing says which axis of the array is time")
            .hint("Give --layout time-first or --layout channels-first")),
    }
}

/// What is known of an array that comes with nothing: no sampling rate yet, numbered channels.
fn bare_info(n_channel: usize, n_timestep: usize) -> Info {
    let channel = |i| Channel {
        name: format!("{i:03}"),
        kind: ChannelKind::Misc,
        loc: [0.0; 12],
        coil_type: 0,
        coord_frame: 0,
        bad: false,
    };
    Info {
        channels: (0..n_channel).map(channel).collect(),
        sfreq: f64::NAN,
        n_timestep,
        first_timestep: 0,
        events: Vec::new(),
        subject: None,
        pass_band: (0.0, f64::INFINITY),
        meas_date: None,
        line_freq: None,
        dev_head_t: None,
        dig: Vec::new(),
        description: None,
        source: String::new(),
    }
}

/// Applies what the user says about the file.
fn describe(info: &mut Info, options: &NpyOptions) -> Result<()> {
    if let Some(sfreq) = options.sfreq {
        info.sfreq = sfreq;
    }
    if info.sfreq.is_nan() {
        let error = Error::new(Kind::SamplingRate, "nothing says at which rate the array was sampled");
        return Err(error.hint("Give it in Hz with --rate"));
    }
    info.pass_band.1 = info.pass_band.1.min(info.sfreq / 2.0);
    if let Some(kind) = options.kind {
        info.channels.iter_mut().for_each(|channel| channel.kind = kind);
    }
    if let Some(names) = &options.names {
        let (named, there) = (names.len(), info.n_channel());
        ensure!(named == there, Kind::ChannelMismatch, "{named} channel names were given for {there} channels");
        info.channels.iter_mut().zip(names).for_each(|(channel, name)| channel.name.clone_from(name));
    }
    Ok(())
}

struct NpySignal {
    array: Array,
    time_first: bool,
    n_channel: usize,
}

impl Signal for NpySignal {
    fn read(&mut self, start: usize, n_timestep: usize) -> Result<Block> {
        let mut block = Block::zeros(self.n_channel, n_timestep);
        self.array.timesteps(self.time_first, start, n_timestep, &mut block.data)?;
        Ok(block)
    }
}
