//! Writing: float32 buffers of about one second, streamed to temporary files that take their names when all is written.

use super::annotations;
use super::constants::{CONTENT_MARK, FILE_ID_MARK, block, data_type, kind, role};
use super::encode::{Encoder, header};
use super::header::{opening, reference};
use super::split::{PARTS_MAX, own_parts};
use super::tags::HEADER;
use crate::ensure;
use crate::error::{Error, Kind, Result};
use crate::recording::{Block, Event, Info, Writer};
use crate::storage::atomic::{self, AtomicFile};
use crate::storage::disk::Disk;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Bytes after which a part ends. FIF's limit is 2³¹; the difference is room for the annotations.
pub(super) const SPLIT_BYTES: u64 = 2_000_000_000;

/// Bytes of samples in a buffer, at most.
const BUFFER_BYTES: usize = 64 << 20;

/// A recording being written.
pub(super) struct FifWriter {
    disk: Arc<dyn Disk>,
    info: Info,
    path: PathBuf,
    force: bool,
    split_bytes: u64,
    parts: Vec<Part>,
    /// Samples of the next buffer, timestep after timestep.
    rows: Vec<f32>,
    rows_per_buffer: usize,
    /// Timesteps in the files, those in `rows` not counted.
    n_written: usize,
    /// Checksum of all samples so far: what all parts of one recording have in common.
    content: u32,
}

/// One file, under its temporary name.
struct Part {
    file: AtomicFile,
    path: PathBuf,
    n_byte: u64,
    n_buffer: usize,
}

impl FifWriter {
    /// Starts a recording; `split_bytes` is [`SPLIT_BYTES`] but in tests.
    pub fn create(disk: Arc<dyn Disk>, path: &Path, info: &Info, force: bool, split_bytes: u64) -> Result<Self> {
        check_writable_info(info).map_err(|e| e.at(path))?;
        if path.extension().is_some_and(|e| e.eq_ignore_ascii_case("gz")) {
            let error = Error::new(Kind::Usage, "FIF is written unpacked").at(path);
            return Err(error.hint("Give a name that ends in .fif and pack the file afterwards"));
        }
        let rows_per_buffer = rows_per_buffer(info.n_channel(), info.sfreq);
        atomic::refuse_busy(path)?;
        let mut writer = Self {
            disk,
            info: info.clone(),
            path: path.to_path_buf(),
            force,
            split_bytes,
            parts: Vec::new(),
            rows: Vec::with_capacity(rows_per_buffer * info.n_channel()),
            rows_per_buffer,
            n_written: 0,
            content: 0,
        };
        writer.start_part()?;
        let room = split_bytes.saturating_sub(writer.parts[0].n_byte);
        check_parts(path, n_later(info.n_channel(), info.sfreq, info.n_timestep, room))?;
        check_length(path, info.first_timestep.saturating_add(info.n_timestep as u64))?;
        Ok(writer)
    }

    /// Opens the next part and writes its header.
    fn start_part(&mut self) -> Result<()> {
        let part = self.parts.len();
        check_parts(&self.path, part as u64)?;
        let path = if part == 0 { self.path.clone() } else { part_path(&self.path, part) };
        let first_timestep = self.info.first_timestep + self.n_written as u64;
        check_length(&self.path, first_timestep)?;
        let first_timestep = first_timestep as i32;
        let previous = self.parts.last().map(|p| file_name(&p.path));
        let opening = opening(&self.info, part as i32, previous.as_deref(), first_timestep).map_err(|e| e.at(&path))?;
        let mut part = Part::create(self.disk.clone(), path, self.force)?;
        // What is still to come, so far as it was announced: a full disk is then reported with what is missing.
        let left = 4 * self.info.n_channel() as u64 * self.info.n_timestep.saturating_sub(self.n_written) as u64;
        part.file.expect_bytes(opening.len() as u64 + left.min(self.split_bytes));
        part.write(&opening)?;
        self.parts.push(part);
        Ok(())
    }

    /// Writes the samples gathered so far as one buffer, in a new part if the present one is full.
    fn flush(&mut self) -> Result<()> {
        if self.rows.is_empty() {
            return Ok(());
        }
        let size = 4 * self.rows.len();
        let mut bytes = Vec::with_capacity(HEADER as usize + size);
        bytes.extend_from_slice(&header(kind::DATA_BUFFER, data_type::FLOAT, size as i32, 0));
        bytes.extend(self.rows.iter().flat_map(|x| x.to_be_bytes()));
        let last = self.parts.len() - 1;
        if self.parts[last].n_buffer > 0 && self.parts[last].n_byte + bytes.len() as u64 > self.split_bytes {
            let next = file_name(&part_path(&self.path, last + 1));
            let mut end = Encoder::default();
            reference(&mut end, &self.info, role::NEXT_FILE, &next, last as i32 + 1);
            end.end_block(block::RAW_DATA);
            self.parts[last].write(&end.into_bytes())?;
            self.start_part()?;
        }
        let last = self.parts.len() - 1;
        self.parts[last].write(&bytes)?;
        self.content = crc32c::crc32c_append(self.content, &bytes);
        self.parts[last].n_buffer += 1;
        self.n_written += self.rows.len() / self.info.n_channel();
        self.rows.clear();
        Ok(())
    }

    /// Appends columns `from .. from + n` of a block to `rows`.
    fn gather(&mut self, block: &Block, from: usize, n: usize) -> Result<()> {
        let n_channel = block.n_channel;
        let old = self.rows.len();
        self.rows.resize(old + n * n_channel, 0.0);
        for channel in 0..n_channel {
            let rows = self.rows[old + channel..].iter_mut().step_by(n_channel);
            for (i, (row, sample)) in rows.zip(&block.channel(channel)[from..from + n]).enumerate() {
                *row = *sample as f32;
                if !row.is_finite() {
                    let name = &self.info.channels[channel].name;
                    let timestep = self.n_written + old / n_channel + i;
                    let what = format!("channel {name} is {sample} at timestep {timestep}, which cannot be written");
                    return Err(Error::new(Kind::NonFiniteSignal, what).at(&self.path));
                }
            }
        }
        Ok(())
    }

    /// Writes what stands after the samples, and the checksum of all samples into each part's id.
    fn complete(&mut self, events: &[Event]) -> Result<()> {
        self.flush()?;
        if self.n_written == 0 {
            return Err(Error::new(Kind::EmptyRecording, "no timesteps were written").at(&self.path));
        }
        let inside: Vec<Event> = events.iter().filter(|e| e.onset < self.n_written).cloned().collect();
        let last = self.parts.len() - 1;
        for (i, part) in self.parts.iter_mut().enumerate() {
            let mut end = Encoder::default();
            if i == last {
                end.end_block(block::RAW_DATA);
            }
            // The events are known only now; readers look for them in the first part, wherever they stand in it.
            if i == 0 {
                annotations::write(&mut end, &self.info, f64::from(self.info.sfreq as f32), &inside);
            }
            end.end_block(block::MEAS);
            end.end_file();
            part.write(&end.into_bytes())?;
            let mark = [CONTENT_MARK.to_be_bytes(), self.content.to_be_bytes()].concat();
            part.file.write_at(FILE_ID_MARK, &mark)?;
            part.file.sync()?;
        }
        Ok(())
    }
}

impl Writer for FifWriter {
    fn write(&mut self, block: &Block) -> Result<()> {
        let n_channel = self.info.n_channel();
        ensure!(
            block.n_channel == n_channel,
            Kind::Internal,
            "a block of {} channels for {n_channel}",
            block.n_channel
        );
        let mut from = 0;
        while from < block.n_timestep {
            let room = self.rows_per_buffer - self.rows.len() / n_channel;
            let n = room.min(block.n_timestep - from);
            self.gather(block, from, n)?;
            if n == room {
                self.flush()?;
            }
            from += n;
        }
        Ok(())
    }

    fn seal(&mut self, events: &[Event]) -> Result<()> {
        self.complete(events)
    }

    /// A recording in one file replaces one in one file in a single step. Where either has several, the first part leads
    /// (see [`atomic::publish_together`]), and parts that the new recording does not have are removed in the end where
    /// they belonged to the recording that was replaced.
    fn publish(mut self: Box<Self>) -> Result<()> {
        let old = if self.force { own_parts(&self.path) } else { Vec::new() };
        let stale: Vec<PathBuf> =
            old.into_iter().filter(|old| self.parts.iter().all(|part| part.path != *old)).collect();
        let mut files = self.parts.drain(..).map(|part| part.file);
        let Some(first) = files.next() else { return Ok(()) };
        atomic::publish_together(&*self.disk, files.collect(), first)?;
        stale.iter().try_for_each(|path| atomic::remove(&*self.disk, path))
    }
}

impl Part {
    fn create(disk: Arc<dyn Disk>, path: PathBuf, force: bool) -> Result<Self> {
        let file = AtomicFile::create_on(disk, &path, force)?;
        Ok(Self { file, path, n_byte: 0, n_buffer: 0 })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_at(self.n_byte, bytes)?;
        self.n_byte += bytes.len() as u64;
        Ok(())
    }
}

/// The file of part `part`, from 1 on.
pub(super) fn part_path(path: &Path, part: usize) -> PathBuf {
    // As MNE names them: the number is appended, even to a name that ends in one.
    let mut name = path.file_stem().unwrap_or_default().to_os_string();
    name.push(format!("-{part}"));
    if let Some(extension) = path.extension() {
        name.push(".");
        name.push(extension);
    }
    path.with_file_name(name)
}

/// Refuses a recording at `path` that goes on in `n_later` more files, where that cannot be.
pub(super) fn check_parts(path: &Path, n_later: u64) -> Result<()> {
    if n_later >= PARTS_MAX as u64 {
        let what = format!("the recording needs more than {PARTS_MAX} files");
        return Err(Error::new(Kind::Usage, what)
            .at(path)
            .hint("Write fewer channels or less time; an array, .npy, is one file"));
    }
    // A part names the next one as text.
    if n_later > 0 && path.file_name().is_some_and(|name| name.to_str().is_none()) {
        let what = "the recording needs several files, and the name is not Unicode: FIF cannot refer to the later ones";
        return Err(Error::new(Kind::Usage, what).at(path).hint("Choose another name"));
    }
    Ok(())
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Timesteps in a buffer: about a second.
fn rows_per_buffer(n_channel: usize, sfreq: f64) -> usize {
    (sfreq.round() as usize).min(BUFFER_BYTES / (4 * n_channel.max(1))).max(1)
}

/// Parts after the first that so many timesteps take, where each has so many bytes for its buffers.
pub(super) fn n_later(n_channel: usize, sfreq: f64, n_timestep: usize, room: u64) -> u64 {
    let rows = rows_per_buffer(n_channel, sfreq);
    let buffer = HEADER + 4 * (rows * n_channel) as u64;
    let n_buffer = n_timestep.div_ceil(rows) as u64;
    n_buffer.div_ceil((room / buffer).max(1)).saturating_sub(1)
}

/// Refuses a recording that ends with a later timestep than FIF can number.
pub(super) fn check_length(path: &Path, end: u64) -> Result<()> {
    if end > i32::MAX as u64 {
        let what = "FIF numbers its timesteps with 31 bits, and the recording is longer";
        return Err(Error::new(Kind::Usage, what).at(path).hint("Write less time; an array, .npy, has no such limit"));
    }
    Ok(())
}

/// What FIF can represent; the length is not known yet.
fn check_writable_info(info: &Info) -> Result<()> {
    ensure!(!info.channels.is_empty(), Kind::EmptyRecording, "the recording has no channels");
    let sfreq = info.sfreq as f32;
    ensure!(
        sfreq.is_finite() && sfreq > 0.0,
        Kind::SamplingRate,
        "a sampling rate of {} Hz makes no sense",
        info.sfreq
    );
    let mut names: Vec<&str> = info.channels.iter().map(|c| c.name.as_str()).collect();
    names.sort_unstable();
    ensure!(!names[0].is_empty(), Kind::ChannelMismatch, "a channel has no name");
    for pair in names.windows(2) {
        ensure!(pair[0] != pair[1], Kind::ChannelMismatch, "two channels are called {}", pair[0]);
    }
    if let Some((seconds, microseconds)) = info.meas_date {
        let fits = i32::try_from(seconds).is_ok() && (0..1_000_000).contains(&microseconds);
        ensure!(fits, Kind::Usage, "FIF cannot store a measurement date {seconds} s after 1970");
    }
    Ok(())
}
