//! Writing an array block by block, under a partial name until it is whole.

use super::array::{header_f32, transpose};
use super::{Layout, sidecar};
use crate::ensure;
use crate::error::{Error, Kind, Result};
use crate::recording::events::table;
use crate::recording::{Block, Event, Info, Writer};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

const HEADER: u64 = 128;
const F32: u64 = 4;

/// Starts writing `path` as little-endian `float32`, in SI units.
///
/// Time-first arrays may have any length. Channels-first ones are laid out for `info.n_timestep` timesteps; when fewer
/// come, the rows are moved together at the end. The samples go to `path` + `.partial`; [`Writer::finish`] writes
/// the description (`.json`) and the events (`_events.tsv`) and then gives the array its name. A writer that is
/// dropped unfinished removes its partial file.
pub fn create(path: &Path, info: &Info, layout: Layout, force: bool) -> Result<Box<dyn Writer>> {
    for existing in [path.to_path_buf(), sidecar::path(path), table::beside(path)] {
        if !force && existing.exists() {
            return Err(Error::new(Kind::Exists, "the file exists").at(existing).hint("Give --force to replace it"));
        }
    }
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    let file = File::options().read(true).write(true).create(true).truncate(false).open(&partial);
    let file = file.map_err(|e| Error::io(e, "create the file", &partial))?;
    if file.try_lock().is_err() {
        let what = "another process is writing this file";
        return Err(Error::new(Kind::Locked, what).at(&partial).hint("Wait for it, or choose another name"));
    }
    file.set_len(0).map_err(|e| Error::io(e, "empty the file", &partial))?;
    let mut writer =
        NpyWriter { file, partial, path: path.into(), info: info.clone(), layout, force, written: 0, finished: false };
    writer.put(0, &[0; HEADER as usize])?;
    Ok(Box::new(writer))
}

struct NpyWriter {
    file: File,
    partial: PathBuf,
    path: PathBuf,
    /// As announced; the length is what was written in the end.
    info: Info,
    layout: Layout,
    force: bool,
    /// Timesteps so far.
    written: usize,
    finished: bool,
}

impl NpyWriter {
    fn put(&mut self, at: u64, bytes: &[u8]) -> Result<()> {
        let put = self.file.seek(SeekFrom::Start(at)).and_then(|_| self.file.write_all(bytes));
        put.map_err(|e| Error::io(e, &format!("write {} bytes", bytes.len()), &self.partial))
    }

    /// Where a channel's timestep lies in a channels-first file whose rows have `width` timesteps.
    fn row_position(channel: usize, width: usize, time: usize) -> u64 {
        HEADER + F32 * (channel as u64 * width as u64 + time as u64)
    }

    /// Moves the rows of a channels-first file together when fewer timesteps came than announced. Row by row from the
    /// first on: no row is overwritten before it has moved.
    fn close_gaps(&mut self) -> Result<()> {
        let mut piece = vec![0; 1 << 20];
        for channel in 1..self.info.n_channel() {
            let mut from = Self::row_position(channel, self.info.n_timestep, 0);
            let mut to = Self::row_position(channel, self.written, 0);
            let mut left = self.written * F32 as usize;
            while left > 0 {
                let n = left.min(piece.len());
                let read = self.file.seek(SeekFrom::Start(from)).and_then(|_| self.file.read_exact(&mut piece[..n]));
                read.map_err(|e| Error::io(e, &format!("read {n} bytes"), &self.partial))?;
                self.put(to, &piece[..n])?;
                (from, to, left) = (from + n as u64, to + n as u64, left - n);
            }
        }
        Ok(())
    }
}

impl Writer for NpyWriter {
    fn write(&mut self, block: &Block) -> Result<()> {
        let n_channel = self.info.n_channel();
        let (given, n) = (block.n_channel, block.n_timestep);
        ensure!(given == n_channel, Kind::Internal, "a block of {given} channels for a file of {n_channel}");
        let samples: Vec<f32> = block.data.iter().map(|&x| x as f32).collect();
        if let Some(at) = samples.iter().position(|x| !x.is_finite()) {
            let (name, time) = (&self.info.channels[at / n].name, self.written + at % n);
            let what = format!("channel {name} is {} at timestep {time}", block.data[at]);
            return Err(Error::new(Kind::NonFiniteSignal, what).at(&self.path));
        }
        match self.layout {
            Layout::TimeFirst => {
                let mut interleaved = vec![0.0; samples.len()];
                transpose(&samples, n, &mut interleaved);
                let at = HEADER + F32 * (self.written as u64 * n_channel as u64);
                self.put(at, &little_endian(&interleaved))?;
            }
            Layout::ChannelsFirst => {
                let width = self.info.n_timestep;
                let end = self.written + n;
                ensure!(end <= width, Kind::Internal, "{end} timesteps came for a file of {width}");
                for (channel, row) in samples.chunks_exact(n.max(1)).enumerate() {
                    self.put(Self::row_position(channel, width, self.written), &little_endian(row))?;
                }
            }
        }
        self.written += n;
        Ok(())
    }

    fn finish(mut self: Box<Self>, events: &[Event]) -> Result<()> {
        let n_channel = self.info.n_channel();
        if self.written == 0 {
            return Err(Error::new(Kind::EmptyRecording, "the recording has no timesteps").at(&self.path));
        }
        if self.layout == Layout::ChannelsFirst && self.written < self.info.n_timestep {
            self.close_gaps()?;
        }
        self.info.n_timestep = self.written;
        let length = Self::row_position(n_channel, self.written, 0);
        self.file.set_len(length).map_err(|e| Error::io(e, "set the length", &self.partial))?;
        self.put(
            0,
            &match self.layout {
                Layout::TimeFirst => header_f32(self.written, n_channel),
                Layout::ChannelsFirst => header_f32(n_channel, self.written),
            },
        )?;
        self.file.sync_all().map_err(|e| Error::io(e, "sync", &self.partial))?;
        // The array takes its name last: a description without its array is harmless.
        sidecar::write(&self.path, &self.info, self.layout, self.force)?;
        table::write(&table::beside(&self.path), events, self.info.sfreq, self.force)?;
        std::fs::rename(&self.partial, &self.path).map_err(|e| Error::io(e, "rename the file", &self.partial))?;
        self.finished = true;
        let folder = match self.path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        File::open(folder).and_then(|f| f.sync_all()).map_err(|e| Error::io(e, "sync the folder", folder))
    }
}

impl Drop for NpyWriter {
    fn drop(&mut self) {
        if !self.finished {
            // Nothing can be done about a partial file that cannot be removed.
            let _ = std::fs::remove_file(&self.partial);
        }
    }
}

fn little_endian(samples: &[f32]) -> Vec<u8> {
    samples.iter().flat_map(|x| x.to_le_bytes()).collect()
}
