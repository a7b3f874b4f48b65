//! Writing an array block by block, under a partial name until it is whole.

use super::array::{header_f32, transpose};
use super::{Layout, sidecar};
use crate::ensure;
use crate::error::{Error, Kind, Result};
use crate::recording::events::table;
use crate::recording::{Block, Event, Info, Writer};
use crate::storage::atomic::{self, AtomicFile};
use crate::storage::disk::{Disk, Os};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const HEADER: u64 = 128;
const F32: u64 = 4;

/// Starts writing `path` as little-endian `float32`, in SI units.
///
/// Time-first arrays may have any length. Channels-first ones are laid out for `info.n_timestep` timesteps; when fewer
/// come, the rows are moved together at the end. The array, its description (`.json`) and its events (`_events.tsv`) take
/// their names together, in [`Writer::publish`].
pub fn create(path: &Path, info: &Info, layout: Layout, force: bool) -> Result<Box<dyn Writer>> {
    create_on(Arc::new(Os), path, info, layout, force)
}

/// As [`create`], on a given disk.
pub fn create_on(
    disk: Arc<dyn Disk>,
    path: &Path,
    info: &Info,
    layout: Layout,
    force: bool,
) -> Result<Box<dyn Writer>> {
    for existing in super::files(path) {
        atomic::refuse_existing(&existing, force)?;
    }
    atomic::refuse_busy(path)?;
    let mut file = AtomicFile::create_on(disk.clone(), path, force)?;
    file.expect_bytes(NpyWriter::row_position(info.n_channel(), info.n_timestep, 0));
    file.write_at(0, &[0; HEADER as usize])?;
    let (path, info) = (path.into(), info.clone());
    Ok(Box::new(NpyWriter { disk, file, beside: Vec::new(), path, info, layout, force, written: 0 }))
}

struct NpyWriter {
    disk: Arc<dyn Disk>,
    file: AtomicFile,
    /// The description and the events, once sealed.
    beside: Vec<AtomicFile>,
    path: PathBuf,
    /// As announced; the length is what was written in the end.
    info: Info,
    layout: Layout,
    force: bool,
    /// Timesteps so far.
    written: usize,
}

impl NpyWriter {
    /// Where a channel's timestep lies in a channels-first file whose rows have `width` timesteps.
    fn row_position(channel: usize, width: usize, time: usize) -> u64 {
        HEADER + F32 * (channel as u64 * width as u64 + time as u64)
    }

    /// Moves the rows of a channels-first file together when fewer timesteps came than announced. Row by row from the
    /// first on: no row is overwritten before it has moved.
    fn close_gaps(&mut self) -> Result<()> {
        let temporary = self.file.temporary().to_path_buf();
        let source = File::open(&temporary).map_err(|e| Error::io(e, "open", &temporary))?;
        let mut piece = vec![0; 1 << 20];
        for channel in 1..self.info.n_channel() {
            let mut from = Self::row_position(channel, self.info.n_timestep, 0);
            let mut to = Self::row_position(channel, self.written, 0);
            let mut left = self.written * F32 as usize;
            while left > 0 {
                let n = left.min(piece.len());
                let read = source.read_exact_at(&mut piece[..n], from);
                read.map_err(|e| Error::io(e, &format!("read {n} bytes"), &temporary))?;
                self.file.write_at(to, &piece[..n])?;
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
                self.file.write_at(at, &little_endian(&interleaved))?;
            }
            Layout::ChannelsFirst => {
                let width = self.info.n_timestep;
                let end = self.written + n;
                ensure!(end <= width, Kind::Internal, "{end} timesteps came for a file of {width}");
                for (channel, row) in samples.chunks_exact(n.max(1)).enumerate() {
                    self.file.write_at(Self::row_position(channel, width, self.written), &little_endian(row))?;
                }
            }
        }
        self.written += n;
        Ok(())
    }

    fn seal(&mut self, events: &[Event]) -> Result<()> {
        let n_channel = self.info.n_channel();
        if self.written == 0 {
            return Err(Error::new(Kind::EmptyRecording, "the recording has no timesteps").at(&self.path));
        }
        if self.layout == Layout::ChannelsFirst && self.written < self.info.n_timestep {
            self.close_gaps()?;
            self.file.set_len(Self::row_position(n_channel, self.written, 0))?;
        }
        self.info.n_timestep = self.written;
        let (n_row, n_column) = match self.layout {
            Layout::TimeFirst => (self.written, n_channel),
            Layout::ChannelsFirst => (n_channel, self.written),
        };
        self.file.write_at(0, &header_f32(n_row, n_column))?;
        self.file.sync()?;
        let description = sidecar::text(&self.info, self.layout).map_err(|e| e.at(&self.path))?;
        let events = table::text(events, self.info.sfreq);
        for (path, text) in [(sidecar::path(&self.path), description), (table::beside(&self.path), events.into_bytes())]
        {
            self.beside.push(atomic::sealed(self.disk.clone(), &path, self.force, &text)?);
        }
        Ok(())
    }

    /// The array is the leader: without it, nobody looks at its description.
    fn publish(self: Box<Self>) -> Result<()> {
        atomic::publish_together(&*self.disk, self.beside, self.file)
    }
}

fn little_endian(samples: &[f32]) -> Vec<u8> {
    samples.iter().flat_map(|x| x.to_le_bytes()).collect()
}
