//! Reading: which buffer of which part holds a timestep, and the numbers in it.

use super::annotations::{self, TimeAxis};
use super::constants::{CONTENT_MARK, data_type, kind};
use super::info::{self, Measurement};
use super::source::Source;
use super::split;
use super::tags::{RAW_BLOCKS, Tag, Tree, be_i32};
use crate::error::{Error, Kind, Result};
use crate::recording::marks::GAP;
use crate::recording::{Block, Event, Info, Recording, Signal};
use std::path::Path;

/// Opens a recording, with all the parts it is split into.
pub(super) fn open(path: &Path) -> Result<Recording> {
    let (first, tree, mut next) = Part::open(path)?;
    let mut parts = vec![first];
    let mut paths = vec![path.to_path_buf()];
    while let Some(next_path) = next {
        let referred_by = &paths[paths.len() - 1];
        if paths.contains(&next_path) || paths.len() == split::PARTS_MAX {
            let what =
                format!("the chain of parts does not end: after {} parts comes {}", paths.len(), next_path.display());
            return Err(Error::new(Kind::Corrupt, what).at(referred_by));
        }
        let (part, _, after) = Part::open(&next_path).map_err(|e| match e.kind() {
            Kind::NotFound => split::missing(&next_path, referred_by),
            _ => e,
        })?;
        parts[0].check_same_recording(&part)?;
        parts.push(part);
        paths.push(next_path);
        next = after;
    }
    join(path, parts, &tree)
}

/// What one file says of itself in its description, whatever parts it goes on in.
pub(crate) fn description(path: &Path) -> Result<Option<String>> {
    Ok(Part::open(path)?.0.measurement.description)
}

/// Puts the parts one behind the other.
fn join(path: &Path, parts: Vec<Part>, first_tree: &Tree) -> Result<Recording> {
    let mut segments = Vec::new();
    let mut events = Vec::new();
    let mut n_timestep = 0;
    for (part, content) in parts.iter().enumerate() {
        for &(length, buffer) in &content.raw.stretches {
            if buffer.is_none() {
                events.push(Event { onset: n_timestep, duration: length, label: GAP.to_owned() });
            }
            n_timestep += length;
            segments.push(Segment { end: n_timestep, n_timestep: length, part, buffer });
        }
    }
    // The acquisition's own counter has 31 bits; a longer recording is a skip that lies.
    if i32::try_from(n_timestep).is_err() {
        return Err(parts[0].source.corrupt(format!("{n_timestep} timesteps are more than a FIF recording can have")));
    }
    let first = &parts[0];
    let measurement = &first.measurement;
    let axis = TimeAxis {
        meas_date: measurement.meas_date,
        sfreq: measurement.sfreq,
        first_timestep: first.raw.first_timestep,
        first_tagged: first.raw.first_tagged,
        n_timestep,
    };
    events.extend(annotations::read(&first.source, first_tree, &axis)?);
    events.sort_by_key(|event| event.onset);
    let info = Info {
        channels: measurement.channels.clone(),
        sfreq: measurement.sfreq,
        n_timestep,
        first_timestep: first.raw.first_timestep as u64,
        events,
        subject: measurement.subject.clone(),
        pass_band: measurement.pass_band,
        meas_date: measurement.meas_date,
        line_freq: measurement.line_freq,
        dev_head_t: measurement.dev_head_t,
        dig: measurement.dig.clone(),
        description: measurement.description.clone(),
        source: path.display().to_string(),
    };
    let cals = measurement.cals.clone();
    let sources = parts.into_iter().map(|p| p.source).collect();
    Recording::new(info, Box::new(Fif { sources, segments, cals, rows: Vec::new() }))
}

/// Where and how the numbers of a buffer are stored: timestep after timestep, all channels of each.
#[derive(Debug, Clone, Copy)]
struct Buffer {
    position: u64,
    number: Number,
}

/// The types of numbers that a buffer can have, all big-endian.
#[derive(Debug, Clone, Copy)]
enum Number {
    Int16,
    Int32,
    Float32,
    Float64,
}

impl Number {
    fn of(source: &Source, tag: &Tag) -> Result<Self> {
        match tag.data_type {
            data_type::SHORT | data_type::DAU_PACK16 => Ok(Self::Int16),
            data_type::INT => Ok(Self::Int32),
            data_type::FLOAT => Ok(Self::Float32),
            data_type::DOUBLE => Ok(Self::Float64),
            data_type::COMPLEX_FLOAT | data_type::COMPLEX_DOUBLE => {
                let what = "the samples are complex numbers (an analytic signal), not a recording";
                Err(Error::new(Kind::UnknownFormat, what).at(source.path()).hint("Save the real signal instead"))
            }
            other => Err(source.corrupt(format!("a data buffer at {} has the unknown type {other}", tag.position))),
        }
    }

    fn size(self) -> usize {
        match self {
            Self::Int16 => 2,
            Self::Int32 | Self::Float32 => 4,
            Self::Float64 => 8,
        }
    }
}

/// One file of a recording.
struct Part {
    source: Source,
    measurement: Measurement,
    raw: RawData,
    /// The checksum of the recording's samples that its id holds, where it is one of ours.
    content: Option<i32>,
}

/// What a block of raw data consists of.
struct RawData {
    /// Length in timesteps, and the buffer, or nothing where acquisition was switched off.
    stretches: Vec<(usize, Option<Buffer>)>,
    /// The first timestep's number.
    first_timestep: i64,
    /// The same as its tag says it, which is without a skip before the first buffer.
    first_tagged: i64,
}

impl Part {
    /// Opens a file and lists its buffers; also its tree, and the part that follows.
    fn open(path: &Path) -> Result<(Self, Tree, Option<std::path::PathBuf>)> {
        let source = Source::open(path)?;
        let tree = Tree::scan(&source)?;
        let measurement = info::read(&source, &tree)?;
        let raw = RawData::list(&source, raw_tags(&source, &tree)?, measurement.channels.len())?;
        let next = split::next_part(&source, &tree, path)?;
        let content = content(&source, &tree)?;
        Ok((Self { source, measurement, raw, content }, tree, next))
    }

    /// A later part must have the same channels, with the same calibration, at the same rate.
    fn check_same_recording(&self, later: &Self) -> Result<()> {
        let (ours, theirs) = (&self.measurement, &later.measurement);
        if self.content.is_some() && self.content != later.content {
            let what = "it is a part of another recording than the first part";
            let hint = "One of the two has been replaced: copy all parts again from one place, or write them again";
            return Err(Error::new(Kind::Corrupt, what).at(later.source.path()).hint(hint));
        }
        let differs = |what: &str| {
            let what = format!("its {what} differ from those of the recording's first part");
            Err(Error::new(Kind::ChannelMismatch, what).at(later.source.path()))
        };
        if !ours.channels.iter().map(|c| &c.name).eq(theirs.channels.iter().map(|c| &c.name)) {
            return differs("channels");
        }
        if ours.cals != theirs.cals {
            return differs("calibrations");
        }
        if ours.sfreq != theirs.sfreq {
            let what = format!("{} Hz after a first part of {} Hz", theirs.sfreq, ours.sfreq);
            return Err(Error::new(Kind::SamplingRate, what).at(later.source.path()));
        }
        Ok(())
    }
}

/// See [`CONTENT_MARK`].
pub(super) fn content(source: &Source, tree: &Tree) -> Result<Option<i32>> {
    let Some(id) = tree.root().tag(kind::FILE_ID).filter(|id| id.size == 20) else { return Ok(None) };
    let bytes: [u8; 20] = id.structure(source)?;
    Ok((be_i32(&bytes[4..]) == CONTENT_MARK as i32).then(|| be_i32(&bytes[8..])))
}

/// The tags of the only block of raw data.
fn raw_tags<'a>(source: &Source, tree: &'a Tree) -> Result<&'a [Tag]> {
    for kind in RAW_BLOCKS {
        let mut blocks = tree.find_all(kind);
        let Some(block) = blocks.next() else { continue };
        return match blocks.count() {
            0 => Ok(&block.tags),
            more => Err(source.corrupt(format!("{} blocks of raw data; one is expected", more + 1))),
        };
    }
    let what = "a FIF file without raw data";
    Err(Error::new(Kind::UnknownFormat, what)
        .at(source.path())
        .hint("Give the continuous recording, not epochs or averages"))
}

impl RawData {
    /// Lists the buffers of a raw data block. As in MNE, a skip counts in buffers as long as the one that follows it; one before the first buffer moves the first
    /// timestep, a later one is a stretch of zeros.
    fn list(source: &Source, tags: &[Tag], n_channel: usize) -> Result<Self> {
        let first_tagged = match tags.first().filter(|t| t.kind == kind::FIRST_SAMPLE) {
            Some(tag) => i64::from(tag.int(source)?),
            None => 0,
        };
        let mut first_timestep = first_tagged;
        let mut stretches: Vec<(usize, Option<Buffer>)> = Vec::new();
        let (mut skip, mut n_timestep) = (0usize, 0usize);
        let too_long = || source.corrupt("a skip is longer than a FIF recording can be");
        for tag in tags {
            match tag.kind {
                kind::DATA_SKIP => skip = usize::try_from(tag.int(source)?).unwrap_or(0),
                kind::DATA_BUFFER => {
                    let number = Number::of(source, tag)?;
                    let row = number.size() * n_channel;
                    if !(tag.size as usize).is_multiple_of(row) {
                        let what =
                            format!("a buffer of {} bytes at {} for {n_channel} channels", tag.size, tag.position);
                        return Err(source.corrupt(what));
                    }
                    let length = tag.size as usize / row;
                    let skipped = skip.checked_mul(length).ok_or_else(too_long)?;
                    if stretches.is_empty() {
                        first_timestep = first_timestep.checked_add_unsigned(skipped as u64).ok_or_else(too_long)?;
                    } else if skipped > 0 {
                        stretches.push((skipped, None));
                        n_timestep = n_timestep.checked_add(skipped).ok_or_else(too_long)?;
                    }
                    skip = 0;
                    stretches.push((length, Some(Buffer { position: tag.position, number })));
                    n_timestep = n_timestep.checked_add(length).ok_or_else(too_long)?;
                }
                _ => {}
            }
        }
        if n_timestep == 0 {
            return Err(Error::new(Kind::EmptyRecording, "the recording has no timesteps").at(source.path()));
        }
        if first_timestep < 0 || i32::try_from(n_timestep).is_err() {
            let what = format!("{n_timestep} timesteps from number {first_timestep} on make no sense");
            return Err(source.corrupt(what));
        }
        Ok(Self { stretches, first_timestep, first_tagged })
    }
}

/// A stretch of the whole recording.
struct Segment {
    /// One past its last timestep.
    end: usize,
    n_timestep: usize,
    part: usize,
    buffer: Option<Buffer>,
}

/// The signal of a FIF recording: reads just the rows asked for.
struct Fif {
    sources: Vec<Source>,
    segments: Vec<Segment>,
    cals: Vec<f64>,
    /// Bytes of some rows, kept to save their allocation.
    rows: Vec<u8>,
}

impl Fif {
    /// Rows read and transposed at a time: few enough to stay in a core's cache, many enough to be worth a call.
    const ROWS: usize = 64;

    /// Reads the `n_row` rows of a buffer from `first_row` on into the columns of `block` from `column` on.
    fn read_rows(
        &mut self,
        (part, buffer): (usize, Buffer),
        first_row: usize,
        n_row: usize,
        block: &mut Block,
        column: usize,
    ) -> Result<()> {
        let row_bytes = self.cals.len() * buffer.number.size();
        let mut done = 0;
        while done < n_row {
            let n = Self::ROWS.min(n_row - done);
            self.rows.resize(n * row_bytes, 0);
            let position = buffer.position + ((first_row + done) * row_bytes) as u64;
            self.sources[part].read_exact_at(&mut self.rows, position)?;
            let column = column + done;
            match buffer.number {
                Number::Int16 => spread(&self.rows, &self.cals, block, column, |b| f64::from(i16::from_be_bytes(b))),
                Number::Int32 => spread(&self.rows, &self.cals, block, column, |b| f64::from(i32::from_be_bytes(b))),
                Number::Float32 => spread(&self.rows, &self.cals, block, column, |b| f64::from(f32::from_be_bytes(b))),
                Number::Float64 => spread(&self.rows, &self.cals, block, column, f64::from_be_bytes),
            }
            done += n;
        }
        Ok(())
    }
}

/// Transposes rows of all channels into the columns of a block from `column` on, in SI units.
fn spread<const N: usize>(
    rows: &[u8],
    cals: &[f64],
    block: &mut Block,
    column: usize,
    number: impl Fn([u8; N]) -> f64,
) {
    let numbers = rows.as_chunks::<N>().0;
    let n_channel = cals.len();
    let n_row = numbers.len() / n_channel;
    for (channel, cal) in cals.iter().enumerate() {
        let out = &mut block.channel_mut(channel)[column..column + n_row];
        for (out, bytes) in out.iter_mut().zip(numbers[channel..].iter().step_by(n_channel)) {
            *out = number(*bytes) * cal;
        }
    }
}

impl Signal for Fif {
    fn read(&mut self, start: usize, n_timestep: usize) -> Result<Block> {
        let mut block = Block::zeros(self.cals.len(), n_timestep);
        let end = start + n_timestep;
        let first = self.segments.partition_point(|s| s.end <= start);
        let mut column = 0;
        for i in first..self.segments.len() {
            let segment = &self.segments[i];
            let segment_start = segment.end - segment.n_timestep;
            if segment_start >= end {
                break;
            }
            let first_row = (start + column) - segment_start;
            let n_row = segment.end.min(end) - (start + column);
            if let Some(buffer) = segment.buffer {
                self.read_rows((segment.part, buffer), first_row, n_row, &mut block, column)?;
            }
            column += n_row;
        }
        Ok(block)
    }
}
