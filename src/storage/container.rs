//! One container for shards and checkpoints: safetensors, with our own JSON and checksums in its metadata.
//!
//! The file is `u64` header length, header, tensors. The header is safetensors' JSON; its metadata has the one key
//! `gpt2meg`, whose value is canonical JSON (sorted keys, no white space): a checksum of everything up to the first
//! tensor, with its own eight digits taken as zeros; the format's number; the kind; the payload's own metadata; and
//! the checksums of every tensor's blocks. Because `__metadata__` comes first and `checksum` is its first key, a
//! header of ours always begins with the same bytes, and can be checked before any of it is parsed.

use super::atomic::AtomicFile;
pub use super::writer::{Spec, Writer};
use super::{checksum, sigbus};
use crate::ensure;
use crate::error::{Error, Kind, Result};
use memmap2::Mmap;
use safetensors::{Dtype, SafeTensors};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// What every header of ours begins with, after the length.
pub(super) const PREFIX: &[u8] = br#"{"__metadata__":{"gpt2meg":"{\"checksum\":\""#;
/// Bytes of the header's length.
pub(super) const LENGTH: usize = 8;
/// Digits of the header's checksum, which follow the prefix.
pub(super) const DIGITS: usize = 8;
/// The longest header we read or write: far above that of any recording, far below any machine's memory.
pub(super) const MAX_HEADER: usize = 64 << 20;
/// The format's number. It changes when an older program could misread a newer file.
pub(super) const FORMAT: u32 = 1;

/// A tensor to be written.
pub struct Entry<'a> {
    /// Its name in the file.
    pub name: &'a str,
    /// safetensors' type.
    pub dtype: Dtype,
    /// Row-major shape.
    pub shape: Vec<usize>,
    /// Little-endian elements.
    pub bytes: &'a [u8],
}

/// Writes a container atomically (see [`super::atomic`]) from tensors that are in memory; [`Writer`] takes them piece
/// by piece. `kind` says what it is ("tokens", "checkpoint").
pub fn write(path: &Path, force: bool, kind: &str, meta: &impl Serialize, tensors: &[Entry]) -> Result<()> {
    write_on(std::sync::Arc::new(super::disk::Os), path, force, kind, meta, tensors)
}

/// As [`write()`], on a given disk.
pub fn write_on(
    disk: std::sync::Arc<dyn super::disk::Disk>,
    path: &Path,
    force: bool,
    kind: &str,
    meta: &impl Serialize,
    tensors: &[Entry],
) -> Result<()> {
    sealed_on(disk, path, force, kind, meta, tensors)?.publish()
}

/// As [`write_on`], under the temporary name still.
pub fn sealed_on(
    disk: std::sync::Arc<dyn super::disk::Disk>,
    path: &Path,
    force: bool,
    kind: &str,
    meta: &impl Serialize,
    tensors: &[Entry],
) -> Result<AtomicFile> {
    let specs: Vec<_> = tensors.iter().map(|t| Spec { name: t.name, dtype: t.dtype, shape: t.shape.clone() }).collect();
    let mut writer = Writer::create_on(disk, path, force, kind, meta, &specs)?;
    for tensor in tensors {
        writer.put(tensor.name, 0, tensor.bytes)?;
    }
    writer.seal()?;
    Ok(writer.into_file())
}

/// The value of the one metadata key. The fields are in alphabetical order, as canonical JSON has them.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Head {
    pub checksum: String,
    pub format: u32,
    pub kind: String,
    pub meta: serde_json::Value,
    pub tensors: BTreeMap<String, String>,
}

/// CRC32C of length and header, with the digits of the checksum taken as zeros.
pub(super) fn header_checksum(bytes: &[u8]) -> u32 {
    let digits = LENGTH + PREFIX.len();
    let crc = crc32c::crc32c(&bytes[..digits]);
    let crc = crc32c::crc32c_append(crc, &[b'0'; DIGITS]);
    crc32c::crc32c_append(crc, &bytes[digits + DIGITS..])
}

struct Tensor {
    dtype: Dtype,
    shape: Vec<usize>,
    /// In the file.
    bytes: Range<usize>,
    sums: Vec<u32>,
    /// Which blocks have been checked. Two threads may both check one; they agree.
    checked: Vec<AtomicBool>,
}

/// A container opened for reading: validated, memory-mapped, checksums checked when a block is first touched.
pub struct Container {
    path: PathBuf,
    file: File,
    map: Mmap,
    _named: sigbus::Named,
    kind: String,
    meta: serde_json::Value,
    tensors: BTreeMap<String, Tensor>,
}

impl Container {
    /// Opens a file of this `kind`; every length is checked before anything is mapped or allocated.
    pub fn open(path: &Path, kind: &str) -> Result<Self> {
        let container = Self::open_any(path)?;
        if container.kind != kind {
            let what = format!("this is a file of kind {}, not {kind}", container.kind);
            return Err(Error::new(Kind::UnknownFormat, what).at(path));
        }
        Ok(container)
    }

    /// Opens a file of any kind.
    pub fn open_any(path: &Path) -> Result<Self> {
        Self::open_inner(path).map_err(|e| e.at(path))
    }

    fn open_inner(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|e| Error::io(e, "open", path))?;
        let data = file.metadata().map_err(|e| Error::io(e, "ask for the length", path))?;
        ensure!(data.is_file(), Kind::UnknownFormat, "this is not a file");
        let header = header_range(&file, data.len())?;
        // SAFETY: nobody else writes to files of ours: they are replaced by renaming. Against those who do, every use
        // is preceded by a look at the length, content is checked before it is believed, nothing here needs bytes to
        // stay the same for soundness (they are only ever read as numbers), and SIGBUS ends the process cleanly.
        let map = unsafe { Mmap::map(&file) }.map_err(|e| Error::io(e, "map", path))?;
        ensure!(map.len() as u64 == data.len(), Kind::Corrupt, "the file changes its length while it is opened");
        let named = sigbus::name(map.as_ptr_range(), path);
        let (head, metadata) = parse_header(&map, header.clone())?;
        let tensors = tensors(&metadata, &head.tensors, header.end)?;
        Ok(Self { path: path.to_owned(), file, map, _named: named, kind: head.kind, meta: head.meta, tensors })
    }

    /// What it says it is.
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Our metadata.
    pub fn meta<M: DeserializeOwned>(&self) -> Result<M> {
        M::deserialize(&self.meta)
            .map_err(|e| Error::new(Kind::Corrupt, format!("the metadata cannot be understood: {e}")).at(&self.path))
    }

    /// Names of the tensors, sorted.
    pub fn names(&self) -> Vec<String> {
        self.tensors.keys().cloned().collect()
    }

    /// The shape of a tensor of this type; an error if it is missing or of another type.
    pub fn shape(&self, name: &str, dtype: Dtype) -> Result<Vec<usize>> {
        let tensor = self.tensor(name)?;
        if tensor.dtype != dtype {
            let what = format!("tensor {name} is of type {}, not {dtype}", tensor.dtype);
            return Err(Error::new(Kind::Corrupt, what).at(&self.path));
        }
        Ok(tensor.shape.clone())
    }

    /// All bytes of a tensor, checked against their checksums, aligned for its type.
    pub fn bytes(&self, name: &str) -> Result<&[u8]> {
        let len = self.tensor(name)?.bytes.len();
        self.range(name, 0, len)
    }

    /// Bytes `start .. start + len` of a tensor; only the blocks touched are checked (once each).
    pub fn range(&self, name: &str, start: usize, len: usize) -> Result<&[u8]> {
        let tensor = self.tensor(name)?;
        let n_byte = tensor.bytes.len();
        let inside = start.checked_add(len).filter(|&end| end <= n_byte);
        let Some(end) = inside else {
            let what = format!("asked for {len} bytes at {start} of tensor {name}, which has {n_byte}");
            return Err(Error::new(Kind::Internal, what).at(&self.path));
        };
        if len == 0 {
            return Ok(&[]);
        }
        self.check_length()?;
        for block in start / checksum::BLOCK..=(end - 1) / checksum::BLOCK {
            if !tensor.checked[block].load(Ordering::Relaxed) {
                self.check_block(name, tensor, block)?;
                tensor.checked[block].store(true, Ordering::Relaxed);
            }
        }
        Ok(&self.map[tensor.bytes.start + start..tensor.bytes.start + end])
    }

    /// Checks every block, whether it has been checked before or not.
    pub fn verify(&self) -> Result<()> {
        for (name, tensor) in &self.tensors {
            for block in 0..tensor.sums.len() {
                self.check_length()?;
                self.check_block(name, tensor, block)?;
            }
        }
        Ok(())
    }

    fn tensor(&self, name: &str) -> Result<&Tensor> {
        let missing = || Error::new(Kind::Corrupt, format!("tensor {name} is missing")).at(&self.path);
        self.tensors.get(name).ok_or_else(missing)
    }

    /// A mapped file that has shrunk must not be touched.
    fn check_length(&self) -> Result<()> {
        let now = self.file.metadata().map_err(|e| Error::io(e, "ask for the length", &self.path))?.len();
        if now < self.map.len() as u64 {
            let what = format!("the file shrank from {} to {now} bytes while it was read", self.map.len());
            return Err(Error::new(Kind::Io, what).at(&self.path));
        }
        Ok(())
    }

    fn check_block(&self, name: &str, tensor: &Tensor, block: usize) -> Result<()> {
        let range = checksum::block_range(tensor.bytes.len(), block);
        let in_file = tensor.bytes.start + range.start..tensor.bytes.start + range.end;
        if crc32c::crc32c(&self.map[in_file.clone()]) != tensor.sums[block] {
            let (start, end) = (in_file.start, in_file.end);
            let what = format!("tensor {name} is damaged between bytes {start} and {end} of the file");
            return Err(Error::new(Kind::Corrupt, what).at(&self.path).hint("Restore the file or make it again"));
        }
        Ok(())
    }
}

/// Where the header's JSON lies, from the file's first bytes and its length.
fn header_range(file: &File, len: u64) -> Result<Range<usize>> {
    use std::os::unix::fs::FileExt;
    let mut start = [0u8; LENGTH + PREFIX.len()];
    let n = usize::try_from(len).unwrap_or(usize::MAX).min(start.len());
    file.read_exact_at(&mut start[..n], 0).map_err(|e| Error::io(e, "read the header", ""))?;
    let ours = n == start.len() && &start[LENGTH..] == PREFIX;
    ensure!(ours, Kind::UnknownFormat, "neither tokens nor a checkpoint of gpt2meg, or its beginning is damaged");
    let wanted = u64::from_le_bytes(start[..LENGTH].try_into().expect("eight bytes"));
    ensure!(
        wanted >= (PREFIX.len() + DIGITS) as u64 && wanted <= MAX_HEADER as u64 && wanted.is_multiple_of(8),
        Kind::Corrupt,
        "a header of {wanted} bytes makes no sense"
    );
    ensure!(
        LENGTH as u64 + wanted <= len,
        Kind::Corrupt,
        "the file ends inside its header: {len} bytes, where the header alone needs {}",
        LENGTH as u64 + wanted
    );
    Ok(LENGTH..LENGTH + wanted as usize)
}

/// Checks the header's checksum, then parses it and checks that the tensors fill the rest of the file exactly.
fn parse_header(map: &[u8], header: Range<usize>) -> Result<(Head, safetensors::tensor::Metadata)> {
    let digits = LENGTH + PREFIX.len()..LENGTH + PREFIX.len() + DIGITS;
    let expected = format!("{:08x}", header_checksum(&map[..header.end]));
    ensure!(map[digits] == *expected.as_bytes(), Kind::Corrupt, "the header is damaged: its checksum fails");
    let unclear = |e: &dyn std::fmt::Display| Error::new(Kind::Corrupt, format!("the header makes no sense: {e}"));
    let (_, metadata) = SafeTensors::read_metadata(map).map_err(|e| match e {
        safetensors::SafeTensorError::MetadataIncompleteBuffer => {
            let what = format!("the header describes another length than the file's {} bytes", map.len());
            Error::new(Kind::Corrupt, what).hint("The file is cut short or has grown: restore it or make it again")
        }
        e => unclear(&e),
    })?;
    let ours = metadata.metadata().as_ref().filter(|keys| keys.len() == 1).and_then(|keys| keys.get("gpt2meg"));
    let head = ours.ok_or_else(|| unclear(&"its metadata are not ours"))?;
    let head: Head = serde_json::from_str(head).map_err(|e| unclear(&e))?;
    ensure!(
        head.format == FORMAT,
        Kind::UnknownFormat,
        "the file is of format {}, this program knows format {FORMAT}; use the version that wrote it",
        head.format
    );
    Ok((head, metadata))
}

/// Joins what safetensors and we say about every tensor. `data` is where the first one begins.
fn tensors(
    metadata: &safetensors::tensor::Metadata,
    sums: &BTreeMap<String, String>,
    data: usize,
) -> Result<BTreeMap<String, Tensor>> {
    let infos = metadata.tensors();
    ensure!(infos.len() == sums.len(), Kind::Corrupt, "{} tensors, but checksums of {}", infos.len(), sums.len());
    let join = |(name, info): (String, &safetensors::tensor::TensorInfo)| {
        let (start, end) = info.data_offsets;
        let n_block = checksum::n_block(end - start);
        let size = info.dtype.bitsize().div_ceil(8);
        ensure!(start.is_multiple_of(size), Kind::Corrupt, "tensor {name} is not aligned to its type");
        let sums = sums.get(&name).and_then(|hex| checksum::from_hex(hex)).filter(|sums| sums.len() == n_block);
        ensure!(sums.is_some(), Kind::Corrupt, "tensor {name} does not have the {n_block} checksums it should");
        let checked = (0..n_block).map(|_| AtomicBool::new(false)).collect();
        let (dtype, shape) = (info.dtype, info.shape.clone());
        let sums = sums.unwrap_or_default();
        Ok((name, Tensor { dtype, shape, bytes: data + start..data + end, sums, checked }))
    };
    infos.into_iter().map(join).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small(folder: &Path) -> PathBuf {
        let path = folder.join("small.safetensors");
        let floats: Vec<u8> = [1.5f64, -2.0, 0.1].iter().flat_map(|x| x.to_le_bytes()).collect();
        let bytes: Vec<u8> = (0..35).collect();
        let entries = [
            Entry { name: "bytes", dtype: Dtype::U8, shape: vec![5, 7], bytes: &bytes },
            Entry { name: "empty", dtype: Dtype::F32, shape: vec![0, 4], bytes: &[] },
            Entry { name: "floats", dtype: Dtype::F64, shape: vec![3], bytes: &floats },
        ];
        write(&path, false, "test", &serde_json::json!({"rate": 0.1, "name": "é\"\\"}), &entries).unwrap();
        path
    }

    #[test]
    fn round_trip() {
        let folder = tempfile::tempdir().unwrap();
        let container = Container::open(&small(folder.path()), "test").unwrap();
        assert_eq!(container.names(), ["bytes", "empty", "floats"]);
        assert_eq!(container.shape("bytes", Dtype::U8).unwrap(), [5, 7]);
        assert_eq!(container.bytes("bytes").unwrap(), (0..35).collect::<Vec<u8>>());
        assert_eq!(container.range("bytes", 34, 1).unwrap(), [34]);
        assert!(container.bytes("empty").unwrap().is_empty());
        assert_eq!(bytemuck::cast_slice::<u8, f64>(container.bytes("floats").unwrap()), [1.5, -2.0, 0.1]);
        let meta: serde_json::Value = container.meta().unwrap();
        assert_eq!(meta, serde_json::json!({"rate": 0.1, "name": "é\"\\"}));
        container.verify().unwrap();
    }

    #[test]
    fn what_is_asked_for_and_not_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = small(folder.path());
        assert_eq!(Container::open(&path, "tokens").err().unwrap().kind(), Kind::UnknownFormat);
        let container = Container::open(&path, "test").unwrap();
        assert_eq!(container.bytes("absent").unwrap_err().kind(), Kind::Corrupt);
        assert_eq!(container.shape("bytes", Dtype::F32).unwrap_err().kind(), Kind::Corrupt);
        assert_eq!(container.range("bytes", 30, 6).unwrap_err().kind(), Kind::Internal);
        assert_eq!(container.range("bytes", usize::MAX, 2).unwrap_err().kind(), Kind::Internal);
        assert_eq!(Container::open(folder.path(), "test").err().unwrap().kind(), Kind::UnknownFormat);
        assert_eq!(Container::open(&folder.path().join("no"), "test").err().unwrap().kind(), Kind::NotFound);
    }

    #[test]
    fn the_same_content_gives_the_same_bytes() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        assert_eq!(std::fs::read(small(one.path())).unwrap(), std::fs::read(small(two.path())).unwrap());
    }

    #[test]
    fn a_file_that_shrinks_after_opening_is_refused_untouched() {
        let folder = tempfile::tempdir().unwrap();
        let path = small(folder.path());
        let container = Container::open(&path, "test").unwrap();
        container.bytes("bytes").unwrap();
        File::options().write(true).open(&path).unwrap().set_len(10).unwrap();
        let error = container.bytes("bytes").unwrap_err();
        assert_eq!(error.exit_code(), 74);
        assert!(error.to_string().contains("shrank"), "{error}");
    }

    #[test]
    fn damage_is_named_with_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let path = small(folder.path());
        let mut bytes = std::fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(&path, bytes).unwrap();
        let container = Container::open(&path, "test").unwrap();
        container.bytes("floats").unwrap();
        let error = container.bytes("bytes").unwrap_err().to_string();
        assert!(error.contains("tensor bytes is damaged between bytes"), "{error}");
        assert!(container.verify().is_err());
    }
}
