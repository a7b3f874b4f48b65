//! Scalars for TensorBoard: an event file beside `metrics.jsonl`.
//!
//! An event file is a sequence of records: length (u64), masked CRC32C of the length, payload, masked CRC32C of the
//! payload, all little-endian. A payload is a protobuf message `Event`, of which only these fields are written:
//! `wall_time` (1, double), `step` (2, int64), and one of `file_version` (3, string), `summary` (5) and `session_log`
//! (7). Format: TensorFlow's `record_writer.cc`, `event.proto` and `summary.proto`.

use crate::error::{Error, Result};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// An open event file.
#[derive(Debug)]
pub struct EventWriter {
    path: PathBuf,
    file: File,
}

impl EventWriter {
    /// Starts a new event file in `folder` for a run that stands at `step`. TensorBoard drops what earlier files of the
    /// folder say about later steps.
    pub fn create(folder: &Path, step: u64) -> Result<Self> {
        let (seconds, process) = (wall_time() as u64, std::process::id());
        let mut attempt = 0;
        loop {
            let path = folder.join(format!("events.out.tfevents.{seconds:010}.gpt2meg.{process}.{attempt}"));
            match OpenOptions::new().write(true).create_new(true).open(&path) {
                Ok(file) => {
                    let mut writer = Self { path, file };
                    writer.write(&event(0, 3, b"brain.Event:2"))?;
                    // SessionLog { status (1): START (1) }, at the first step that is still to come.
                    writer.write(&event(step + 1, 7, &[0x08, 0x01]))?;
                    return Ok(writer);
                }
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => attempt += 1,
                Err(error) => return Err(Error::io(error, "make an event file", path)),
            }
        }
    }

    /// Appends the scalars of one step.
    pub fn scalars(&mut self, step: u64, scalars: &[(&str, f64)]) -> Result<()> {
        let mut summary = Vec::new();
        for (tag, value) in scalars {
            // Summary.Value { tag (1), simple_value (2, float) }
            let mut entry = Vec::new();
            put_bytes(&mut entry, 1, tag.as_bytes());
            entry.push(2 << 3 | 5);
            entry.extend((*value as f32).to_le_bytes());
            put_bytes(&mut summary, 1, &entry);
        }
        self.write(&event(step, 5, &summary))
    }

    fn write(&mut self, payload: &[u8]) -> Result<()> {
        let length = (payload.len() as u64).to_le_bytes();
        let mut record = Vec::with_capacity(payload.len() + 16);
        record.extend(length);
        record.extend(masked_crc(&length).to_le_bytes());
        record.extend(payload);
        record.extend(masked_crc(payload).to_le_bytes());
        let doing = format!("write {} bytes", record.len());
        self.file.write_all(&record).map_err(|e| Error::io(e, &doing, &self.path))
    }
}

/// An `Event` whose content is field `number`.
fn event(step: u64, number: u32, content: &[u8]) -> Vec<u8> {
    let mut event = vec![1 << 3 | 1];
    event.extend(wall_time().to_le_bytes());
    event.push(2 << 3);
    put_varint(&mut event, step);
    put_bytes(&mut event, number, content);
    event
}

/// A length-delimited field.
fn put_bytes(to: &mut Vec<u8>, number: u32, content: &[u8]) {
    put_varint(to, u64::from(number << 3 | 2));
    put_varint(to, content.len() as u64);
    to.extend(content);
}

/// Seven bits a byte, the lowest first; the top bit says that more follow.
fn put_varint(to: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        to.push(value as u8 | 0x80);
        value >>= 7;
    }
    to.push(value as u8);
}

/// TensorFlow's guard against checksums of data that contain checksums.
fn masked_crc(data: &[u8]) -> u32 {
    crc32c::crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// Seconds since 1970.
fn wall_time() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64())
}
