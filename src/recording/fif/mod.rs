//! FIF, the format of Elekta/MEGIN systems and of MNE-Python: reading recordings, and writing such as
//! `mne.io.read_raw_fif` opens.
//!
//! Read: int16, int32, float32 and float64 buffers; gzipped files; recordings split over several files; acquisition
//! skips (zeros, and an event `BAD_ACQ_SKIP`); raw data recorded with internal active shielding (MaxShield) as they
//! are; bad channels; annotations as events; long channel names; all kinds of head points. Values, names and times are
//! those that MNE-Python gives.
//!
//! Not read: SSP projectors and CTF compensation matrices (neither does MNE apply them on reading), HPI measurements,
//! the acquisition's parameters, the processing history. They are not copied to a written file either.
//!
//! `tags` knows the chain of tags and the nesting of blocks, `info` the measurement info, `annotations` the events,
//! `split` the names of parts, `reader` the samples; `encode`, `header` and `writer` are the way back.

mod annotations;
mod constants;
mod encode;
mod header;
mod info;
mod reader;
mod source;
mod split;
mod tags;
mod writer;

pub(crate) use reader::description;
pub(crate) use split::{later_parts, previous_part};

use super::{Info, Recording, Writer};
use crate::error::Result;
use crate::storage::disk::{Disk, Os};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Opens a FIF recording (`.fif`, `.fif.gz`, and the parts that follow it). Only the tags are looked at; samples are
/// read when they are asked for.
///
/// Errors: `UnknownFormat` for anything but continuous FIF data, `EmptyRecording`, `Corrupt` for a file that is cut
/// short or contradicts itself, `NotFound` for a missing part.
pub fn open(path: &Path) -> Result<Recording> {
    reader::open(path)
}

/// Starts writing a FIF recording of the channels, dates and positions in `info`, with float32 samples. Its length and
/// its events are those that the writer is given. More than 2 GB go on in `name-1.fif`, `name-2.fif` and so on. An
/// existing file is refused unless `force` is given.
///
/// Until [`Writer::publish`], everything stands in files with temporary names in the same folder, which are removed if
/// it is never reached.
pub fn create(path: &Path, info: &Info, force: bool) -> Result<Box<dyn Writer>> {
    create_on(Arc::new(Os), path, info, force, writer::SPLIT_BYTES)
}

/// The files that [`create`] will write for so many timesteps from the first on; at a limit perhaps one more. An error where they
/// cannot be written.
pub fn files(path: &Path, n_channel: usize, sfreq: f64, n_timestep: usize) -> Result<Vec<PathBuf>> {
    // What a header takes, and more.
    const OPENING: u64 = 1 << 20;
    let n_later = writer::n_later(n_channel, sfreq, n_timestep, writer::SPLIT_BYTES - OPENING);
    writer::check_parts(path, n_later)?;
    writer::check_length(path, n_timestep as u64)?;
    let later = (1..=n_later as usize).map(|part| writer::part_path(path, part));
    Ok(std::iter::once(path.to_path_buf()).chain(later).collect())
}

/// [`create`] on a given disk and with another size of the parts.
pub fn create_on(
    disk: Arc<dyn Disk>,
    path: &Path,
    info: &Info,
    force: bool,
    split_bytes: u64,
) -> Result<Box<dyn Writer>> {
    Ok(Box::new(writer::FifWriter::create(disk, path, info, force, split_bytes)?))
}

#[cfg(test)]
mod tests;
