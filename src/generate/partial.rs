//! The file that a generation grows in: the tokens so far, and what they depend on.
//!
//! A line of JSON pins everything the tokens are a function of; then come records of equal size, one a chunk: the tokens
//! [sequence, hop] and a CRC-32C over that line, the record's number and the tokens. Records are only ever appended.
//! After any crash the file is a whole number of good records and perhaps a torn one, which is cut off. The tokens so
//! far are the whole state, so going on gives the same bytes as never having stopped. Every second or so what has been
//! appended is synced to the disk: a power cut costs the records since, whatever of them arrived.

use crate::error::{Error, Kind, Result};
use crate::storage::atomic;
use crate::storage::disk::{Disk, Os};
use serde_json::{Map, Value};
use std::fs::{File, TryLockError};
use std::io::{BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Bytes of a record's checksum.
const CRC: usize = 4;
/// Longest line of JSON that is read back: the line holds no table that grows.
const LONGEST_PIN: u64 = 1 << 16;

/// A power cut costs no more than this and one chunk.
const SYNC_EVERY: Duration = Duration::from_secs(1);

/// An open partial file; nobody else has it open for writing.
#[derive(Debug)]
pub struct Partial {
    file: File,
    path: PathBuf,
    /// The first line, its newline included.
    line: Vec<u8>,
    /// Tokens in a record.
    n_token: usize,
    /// Whole records in the file.
    n_record: u64,
    synced: Instant,
}

impl Partial {
    /// The partial file beside an output.
    pub fn beside(output: &Path) -> PathBuf {
        let mut name = output.as_os_str().to_owned();
        name.push(".tokens.partial");
        name.into()
    }

    /// Starts a new file with records of `n_token` tokens. An existing one is refused unless `force`.
    pub fn create(path: &Path, pins: &Map<String, Value>, n_token: usize, force: bool) -> Result<Self> {
        if path.exists() && !force {
            let what = "an unfinished generation is here";
            return Err(Error::new(Kind::Exists, what)
                .at(path)
                .hint("Go on with --resume, or start anew with --force"));
        }
        let file = open_locked(path, true)?;
        let line = pin_line(pins);
        let written = file.set_len(0).and_then(|()| file.write_all_at(&line, 0));
        written.map_err(|e| Error::io(e, "begin the partial file", path))?;
        let mut partial = Self { file, path: path.into(), line, n_token, n_record: 0, synced: Instant::now() };
        partial.sync()?;
        let folder = atomic::folder_of(path);
        Os.sync_folder(folder).map_err(|e| Error::io(e, "sync the folder", folder))?;
        Ok(partial)
    }

    /// Opens what an interrupted generation left, hands its records to `each` in order, and cuts off what is torn. It is
    /// an error if anything the tokens depend on differs now.
    pub fn resume(path: &Path, pins: &Map<String, Value>, n_token: usize, mut each: impl FnMut(&[u8])) -> Result<Self> {
        let file = open_locked(path, false).map_err(|e| {
            if e.kind() == Kind::NotFound { e.hint("There is nothing to resume: leave out --resume") } else { e }
        })?;
        let line = pin_line(pins);
        check_pins(&file, path, pins, &line)?;
        let mut partial = Self { file, path: path.into(), line, n_token, n_record: 0, synced: Instant::now() };

        let reader = partial.file.try_clone().map_err(|e| Error::io(e, "read the partial file", path))?;
        let mut reader = BufReader::with_capacity(1 << 20, reader);
        let mut skipped = vec![0; partial.line.len()];
        let mut record = vec![0; n_token + CRC];
        reader.read_exact(&mut skipped).map_err(|e| Error::io(e, "read the partial file", path))?;
        loop {
            match reader.read_exact(&mut record) {
                Ok(()) => {}
                Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => break,
                // What cannot be read now may be readable later: nothing is cut off.
                Err(e) => return Err(Error::io(e, "read the partial file", path)),
            }
            let (tokens, crc) = record.split_at(n_token);
            if crc != partial.crc(partial.n_record, tokens) {
                break;
            }
            each(tokens);
            partial.n_record += 1;
        }
        let end = partial.position(partial.n_record);
        partial.file.set_len(end).map_err(|e| Error::io(e, "cut off a torn record", path))?;
        Ok(partial)
    }

    /// Appends the tokens of one chunk.
    pub fn append(&mut self, tokens: &[u8]) -> Result<()> {
        assert_eq!(tokens.len(), self.n_token, "records are of equal size");
        let mut record = tokens.to_vec();
        record.extend(self.crc(self.n_record, tokens));
        let written = self.file.write_all_at(&record, self.position(self.n_record));
        written.map_err(|e| {
            let what = format!("write {} bytes", record.len());
            Error::io(e, &what, &self.path).hint("Make room, then go on with --resume")
        })?;
        self.n_record += 1;
        if self.synced.elapsed() >= SYNC_EVERY { self.sync() } else { Ok(()) }
    }

    /// Makes what has been appended durable.
    pub fn sync(&mut self) -> Result<()> {
        self.file.sync_data().map_err(|e| Error::io(e, "sync the tokens to disk", &self.path))?;
        self.synced = Instant::now();
        Ok(())
    }

    /// Whole records in the file.
    pub fn n_record(&self) -> u64 {
        self.n_record
    }

    /// Reads `out.len()` tokens of a record, from the `first` on.
    pub fn read(&self, record: u64, first: usize, out: &mut [u8]) -> Result<()> {
        assert!(record < self.n_record && first + out.len() <= self.n_token, "only what was written is read");
        let read = self.file.read_exact_at(out, self.position(record) + first as u64);
        read.map_err(|e| Error::io(e, "read back the tokens", &self.path))
    }

    /// Removes the file: the recording is whole.
    pub fn remove(self) -> Result<()> {
        std::fs::remove_file(&self.path).map_err(|e| Error::io(e, "remove the partial file", &self.path))
    }

    fn position(&self, record: u64) -> u64 {
        self.line.len() as u64 + record * (self.n_token + CRC) as u64
    }

    fn crc(&self, record: u64, tokens: &[u8]) -> [u8; CRC] {
        let pinned = crc32c::crc32c_append(crc32c::crc32c(&self.line), &record.to_le_bytes());
        crc32c::crc32c_append(pinned, tokens).to_le_bytes()
    }
}

fn pin_line(pins: &Map<String, Value>) -> Vec<u8> {
    let mut line = serde_json::to_vec(pins).expect("plain data");
    line.push(b'\n');
    line
}

/// Opens a file for reading and writing and locks it for as long as it is open.
fn open_locked(path: &Path, create: bool) -> Result<File> {
    let opened = File::options().read(true).write(true).create(create).truncate(false).open(path);
    let file = opened.map_err(|e| Error::io(e, "open the partial file", path))?;
    match file.try_lock() {
        // A file system without locks has nothing better to offer.
        Ok(()) | Err(TryLockError::Error(_)) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            let what = "another process is generating into this file";
            Err(Error::new(Kind::Locked, what).at(path).hint("Wait for it, or choose another name"))
        }
    }
}

/// Compares the file's first line with `line`, and names what differs; a line that was not finished is.
fn check_pins(file: &File, path: &Path, pins: &Map<String, Value>, line: &[u8]) -> Result<()> {
    let mut start = Vec::new();
    let read = file.take(LONGEST_PIN.max(line.len() as u64)).read_to_end(&mut start);
    read.map_err(|e| Error::io(e, "read the partial file", path))?;
    let position = std::io::Seek::seek(&mut &*file, std::io::SeekFrom::Start(0));
    position.map_err(|e| Error::io(e, "read the partial file", path))?;
    if start.starts_with(line) {
        return Ok(());
    }
    if line.starts_with(&start) {
        // It was killed while it wrote its first line: nothing had been generated.
        return file.write_all_at(line, 0).map_err(|e| Error::io(e, "begin the partial file", path));
    }
    let end = start.iter().position(|&byte| byte == b'\n').unwrap_or(start.len());
    let Ok(old) = serde_json::from_slice::<Map<String, Value>>(&start[..end]) else {
        let what = "this is not the partial file of a generation, or its first line is damaged";
        return Err(Error::new(Kind::Corrupt, what).at(path).hint("Start anew with --force"));
    };
    let differing = pins.iter().find(|(key, value)| old.get(*key) != Some(value));
    let what = match differing {
        Some((key, value)) => {
            let was = old.get(key).map_or("absent".to_string(), Value::to_string);
            format!("this generation was begun with {key} = {was}, now {key} = {value}")
        }
        None => "this generation was begun by another version".to_string(),
    };
    Err(Error::new(Kind::Usage, what).at(path).hint("Resume with the same settings, or start anew with --force"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pins(seed: u64) -> Map<String, Value> {
        let Value::Object(pins) = serde_json::json!({"hop": 10, "seed": seed}) else { unreachable!() };
        pins
    }

    fn replay(path: &Path) -> (Partial, Vec<Vec<u8>>) {
        let mut records = Vec::new();
        let partial = Partial::resume(path, &pins(1), 6, |tokens| records.push(tokens.to_vec())).unwrap();
        (partial, records)
    }

    /// Cuts the file at every length, and flips every bit of it: what comes back is always a prefix of what was written,
    /// and going on from there gives the whole.
    #[test]
    fn any_torn_or_damaged_tail_is_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.tokens.partial");
        let chunks: Vec<[u8; 6]> = (0..4).map(|i| [i; 6]).collect();
        let mut partial = Partial::create(&path, &pins(1), 6, false).unwrap();
        for chunk in &chunks {
            partial.append(chunk).unwrap();
        }
        let line = partial.line.len();
        drop(partial);
        let whole = std::fs::read(&path).unwrap();

        for len in 0..whole.len() {
            std::fs::write(&path, &whole[..len]).unwrap();
            let (mut partial, records) = replay(&path);
            assert_eq!(records.len(), len.saturating_sub(line) / 10);
            for chunk in &chunks[records.len()..] {
                partial.append(chunk).unwrap();
            }
            drop(partial);
            assert_eq!(std::fs::read(&path).unwrap(), whole);
        }
        for bit in line * 8..whole.len() * 8 {
            let mut damaged = whole.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(&path, &damaged).unwrap();
            let (_, records) = replay(&path);
            assert_eq!(records, chunks[..(bit / 8 - line) / 10]);
        }
    }

    #[test]
    fn other_settings_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.tokens.partial");
        drop(Partial::create(&path, &pins(1), 6, false).unwrap());
        let error = Partial::resume(&path, &pins(2), 6, |_| {}).unwrap_err();
        assert_eq!(error.kind(), Kind::Usage);
        assert!(error.to_string().contains("seed = 1, now seed = 2"), "{error}");
        assert_eq!(Partial::create(&path, &pins(1), 6, false).unwrap_err().kind(), Kind::Exists);
        std::fs::write(&path, b"something else").unwrap();
        assert_eq!(Partial::resume(&path, &pins(1), 6, |_| {}).unwrap_err().kind(), Kind::Corrupt);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(Partial::resume(&path, &pins(1), 6, |_| {}).unwrap_err().kind(), Kind::NotFound);
    }

    #[test]
    fn two_writers_are_one_too_many() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.tokens.partial");
        let _first = Partial::create(&path, &pins(1), 6, false).unwrap();
        assert_eq!(Partial::create(&path, &pins(1), 6, true).unwrap_err().kind(), Kind::Locked);
        assert_eq!(Partial::resume(&path, &pins(1), 6, |_| {}).unwrap_err().kind(), Kind::Locked);
    }
}
