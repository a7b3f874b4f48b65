//! A FIF file as bytes at positions: opened, unpacked if it is gzipped, every read checked against its length.

use crate::ensure;
use crate::error::{Error, Kind, Result};
use flate2::read::MultiGzDecoder;
use std::fs::File;
use std::io::{BufReader, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// FIF's own positions and sizes have 31 bits, so nothing longer than this can be an unpacked FIF file.
const UNPACKED_MAX: u64 = 1 << 31;

/// An open file of known length. All reads are positioned, so that the operating system's page cache is the only cache
/// needed and a file that shrinks under us is an error, not a signal.
#[derive(Debug)]
pub(super) struct Source {
    file: File,
    len: u64,
    path: PathBuf,
}

impl Source {
    /// Opens a file; one that begins as gzip is unpacked to an unnamed temporary file first.
    pub fn open(path: &Path) -> Result<Self> {
        // A pipe would be waited for.
        if path.metadata().is_ok_and(|about| !about.is_file()) {
            return Err(Error::new(Kind::UnknownFormat, "not a regular file").at(path));
        }
        let file = File::open(path).map_err(|e| Error::io(e, "open", path))?;
        let metadata = file.metadata().map_err(|e| Error::io(e, "read the length", path))?;
        let mut source = Self { file, len: metadata.len(), path: path.to_path_buf() };
        ensure_not_empty(&source)?;
        let mut magic = [0; 2];
        if source.len >= 2 {
            source.read_exact_at(&mut magic, 0)?;
        }
        if magic == [0x1f, 0x8b] {
            source.unpack()?;
        }
        Ok(source)
    }

    /// Replaces the file by its unpacked content, which the operating system forgets when it is closed.
    fn unpack(&mut self) -> Result<()> {
        let hint = "Set TMPDIR to a folder with room for the unpacked recording";
        let unpacked = tempfile::tempfile()
            .map_err(|e| Error::io(e, "make a temporary file to unpack it", &self.path).hint(hint))?;
        let mut unpacked = unpacked;
        let mut packed = MultiGzDecoder::new(BufReader::with_capacity(1 << 16, &self.file));
        let mut chunk = vec![0; 1 << 16];
        let mut len = 0u64;
        loop {
            let n = packed.read(&mut chunk).map_err(|e| {
                Error::new(Kind::Corrupt, format!("gzip content is damaged after {len} bytes: {e}")).at(&self.path)
            })?;
            if n == 0 {
                break;
            }
            len += n as u64;
            if len > UNPACKED_MAX {
                let what = "unpacks to more than 2 GiB, which no FIF file can be";
                return Err(Error::new(Kind::Corrupt, what).at(&self.path));
            }
            let doing = format!("write {n} bytes of the unpacked recording to a temporary file");
            unpacked.write_all(&chunk[..n]).map_err(|e| Error::io(e, &doing, &self.path).hint(hint))?;
        }
        (self.file, self.len) = (unpacked, len);
        ensure_not_empty(self)
    }

    /// Length in bytes, after unpacking.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// The path as it was given.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Fills `bytes` from `position`.
    pub fn read_exact_at(&self, bytes: &mut [u8], position: u64) -> Result<()> {
        self.file.read_exact_at(bytes, position).map_err(|e| {
            let doing = format!("read {} bytes at {position} of {}", bytes.len(), self.len);
            Error::io(e, &doing, &self.path)
        })
    }

    /// `size` bytes from `position`. They are allocated only after it is known that the file holds them.
    pub fn bytes(&self, position: u64, size: u32) -> Result<Vec<u8>> {
        self.check_inside(position, size)?;
        let mut bytes = vec![0; size as usize];
        self.read_exact_at(&mut bytes, position)?;
        Ok(bytes)
    }

    /// An error unless `position .. position + size` lies inside the file.
    pub fn check_inside(&self, position: u64, size: u32) -> Result<()> {
        let inside = position.checked_add(u64::from(size)).is_some_and(|end| end <= self.len);
        if inside {
            return Ok(());
        }
        let what = format!("a tag needs {size} bytes at {position}, but the file has {} bytes", self.len);
        Err(self.corrupt(what).hint("It seems to be cut short; copy it again from where it came from"))
    }

    /// An error about this file's content.
    pub fn corrupt(&self, what: impl Into<String>) -> Error {
        Error::new(Kind::Corrupt, what).at(&self.path)
    }
}

/// An empty file is worth its own message: it is what an interrupted copy leaves.
fn ensure_not_empty(source: &Source) -> Result<()> {
    let check = || {
        ensure!(source.len > 0, Kind::EmptyRecording, "the file is empty");
        Ok(())
    };
    check().map_err(|e: Error| e.at(&source.path))
}
