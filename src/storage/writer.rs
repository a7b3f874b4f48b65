//! Writing a container: tensors piece by piece, in any order, with no more than a piece in memory.

use super::atomic::AtomicFile;
use super::checksum::{self, Sums};
use super::container::{Container, FORMAT, Head, LENGTH, MAX_HEADER, PREFIX, header_checksum};
use super::disk::{Disk, Os};
use crate::ensure;
use crate::error::{Error, Kind, Result};
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};
use serde::Serialize;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

/// A tensor whose bytes will follow.
#[derive(Debug, Clone)]
pub struct Spec<'a> {
    /// Its name in the file.
    pub name: &'a str,
    /// safetensors' type.
    pub dtype: Dtype,
    /// Row-major shape.
    pub shape: Vec<usize>,
}

/// A container that is being written under a temporary name; dropped before [`Writer::publish`], it leaves nothing.
pub struct Writer {
    file: AtomicFile,
    head: Head,
    infos: Vec<(String, TensorInfo)>,
    sums: BTreeMap<String, Sums>,
    data: usize,
}

impl Writer {
    /// Starts a container. The bytes of every tensor must then be [`put`](Self::put) exactly once.
    pub fn create(path: &Path, force: bool, kind: &str, meta: &impl Serialize, specs: &[Spec]) -> Result<Self> {
        Self::create_on(Arc::new(Os), path, force, kind, meta, specs)
    }

    /// As [`Self::create`], on a given disk.
    pub fn create_on(
        disk: Arc<dyn Disk>,
        path: &Path,
        force: bool,
        kind: &str,
        meta: &impl Serialize,
        specs: &[Spec],
    ) -> Result<Self> {
        let defect = |e: &dyn std::fmt::Display| Error::new(Kind::Internal, format!("a header that {e}")).at(path);
        let meta = serde_json::to_value(meta).map_err(|e| defect(&e))?;
        let infos = lay_out(specs).ok_or_else(|| defect(&"names a tensor twice or overflows"))?;
        let sums: BTreeMap<_, _> = infos
            .iter()
            .map(|(name, info)| (name.clone(), Sums::new(info.data_offsets.1 - info.data_offsets.0)))
            .collect();
        let hex = |(name, sums): (&String, &Sums)| (name.clone(), "0".repeat(8 * sums.n_block()));
        let tensors = sums.iter().map(hex).collect();
        let head = Head { checksum: "0".repeat(8), format: FORMAT, kind: kind.into(), meta, tensors };
        // The checksums are as long as they will be, so the tensors can take their final places at once.
        let data = header(&head, &infos).map_err(|e| e.at(path))?.len();
        let mut file = AtomicFile::create_on(disk, path, force)?;
        let total = data + infos.last().map_or(0, |(_, info)| info.data_offsets.1);
        file.expect_bytes(total as u64);
        Ok(Self { file, head, infos, sums, data })
    }

    /// Writes bytes of tensor `name` at byte `start` of it.
    pub fn put(&mut self, name: &str, start: usize, bytes: &[u8]) -> Result<()> {
        let info = self.infos.iter().find(|(n, _)| n == name).map(|(_, info)| info.data_offsets);
        let sums = self.sums.get_mut(name);
        let (Some((first, end)), Some(sums)) = (info, sums) else {
            return Err(Error::new(Kind::Internal, format!("tensor {name} was not announced")));
        };
        let inside = start.checked_add(bytes.len()).is_some_and(|stop| stop <= end - first);
        ensure!(inside, Kind::Internal, "{} bytes at {start} lie outside tensor {name}", bytes.len());
        sums.add(start, bytes);
        self.file.write_at((self.data + first + start) as u64, bytes)
    }

    /// Writes the header, makes everything durable, and reads it back, under the temporary name still.
    pub fn seal(&mut self) -> Result<()> {
        for (name, sums) in &self.sums {
            let sums = sums.finish();
            ensure!(sums.is_some(), Kind::Internal, "tensor {name} has not been written whole");
            self.head.tensors.insert(name.clone(), checksum::to_hex(sums.unwrap_or_default()));
        }
        let header = header(&self.head, &self.infos)?;
        ensure!(header.len() == self.data, Kind::Internal, "the header changed its length");
        self.file.write_at(0, &header)?;
        self.file.sync()?;
        let read_back = Container::open(self.file.temporary(), &self.head.kind).and_then(|written| written.verify());
        read_back.map_err(|e| {
            Error::new(Kind::Io, format!("what was written reads back differently: {e}"))
                .hint("The disk or its connection is failing")
        })
    }

    /// The sealed file.
    pub fn into_file(self) -> AtomicFile {
        self.file
    }

    /// Gives the sealed file its name.
    pub fn publish(self) -> Result<()> {
        self.file.publish()
    }

    /// [`seal`](Self::seal) and [`publish`](Self::publish).
    pub fn finish(mut self) -> Result<()> {
        self.seal()?;
        self.publish()
    }
}

/// Offsets as safetensors' own writer lays them out: by descending alignment, then by name. `None` if sizes overflow or
/// a name comes twice.
fn lay_out(specs: &[Spec]) -> Option<Vec<(String, TensorInfo)>> {
    let mut specs: Vec<&Spec> = specs.iter().collect();
    specs.sort_by(|a, b| b.dtype.cmp(&a.dtype).then(a.name.cmp(b.name)));
    let mut names: Vec<&str> = specs.iter().map(|spec| spec.name).collect();
    names.sort_unstable();
    names.dedup();
    let mut offset = 0usize;
    let mut place = |spec: &Spec| {
        let n_element = spec.shape.iter().try_fold(1usize, |n, &side| n.checked_mul(side))?;
        let end = offset.checked_add(n_element.checked_mul(spec.dtype.bitsize())?.div_ceil(8))?;
        let info = TensorInfo { dtype: spec.dtype, shape: spec.shape.clone(), data_offsets: (offset, end) };
        offset = end;
        Some((spec.name.to_owned(), info))
    };
    let infos = specs.iter().map(|spec| place(spec)).collect();
    if names.len() == specs.len() { infos } else { None }
}

/// Length, header and padding, with the header's checksum in its place.
fn header(head: &Head, infos: &[(String, TensorInfo)]) -> Result<Vec<u8>> {
    let defect = |e: &dyn std::fmt::Display| Error::new(Kind::Internal, format!("a header that cannot be: {e}"));
    let ours = serde_json::to_string(head).map_err(|e| defect(&e))?;
    let metadata = Metadata::new(Some(HashMap::from([("gpt2meg".into(), ours)])), infos.to_vec());
    let mut json = serde_json::to_vec(&metadata.map_err(|e| defect(&e))?).map_err(|e| defect(&e))?;
    json.resize(json.len().next_multiple_of(8), b' ');
    ensure!(json.len() <= MAX_HEADER, Kind::Internal, "a header of {} bytes is too long", json.len());
    ensure!(json.starts_with(PREFIX), Kind::Internal, "the header does not begin as it should");
    let mut bytes = (json.len() as u64).to_le_bytes().to_vec();
    bytes.extend(json);
    let digits = format!("{:08x}", header_checksum(&bytes));
    let at = LENGTH + PREFIX.len();
    bytes[at..at + digits.len()].copy_from_slice(digits.as_bytes());
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_in_any_order() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pieces.safetensors");
        let specs = [Spec { name: "x", dtype: Dtype::U8, shape: vec![3, 1_000_000] }];
        let bytes: Vec<u8> = (0..3_000_000u32).map(|i| (i.wrapping_mul(97) >> 5) as u8).collect();
        let mut writer = Writer::create(&path, false, "test", &(), &specs).unwrap();
        for start in [2_500_000, 0, 700_000] {
            let end = if start == 0 {
                700_000
            } else if start == 700_000 {
                2_500_000
            } else {
                3_000_000
            };
            writer.put("x", start, &bytes[start..end]).unwrap();
        }
        writer.finish().unwrap();
        let container = Container::open(&path, "test").unwrap();
        assert!(container.bytes("x").unwrap() == bytes);
    }

    #[test]
    fn what_is_missing_twice_or_outside_is_a_defect() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.safetensors");
        let spec = |name| Spec { name, dtype: Dtype::U8, shape: vec![4] };
        let mut writer = Writer::create(&path, false, "test", &(), &[spec("a")]).unwrap();
        writer.put("a", 0, &[1, 2, 3]).unwrap();
        assert!(writer.put("a", 3, &[1, 2]).is_err() && writer.put("b", 0, &[]).is_err());
        assert_eq!(writer.finish().unwrap_err().kind(), Kind::Internal);
        assert!(Writer::create(&path, false, "test", &(), &[spec("a"), spec("a")]).is_err());
        let huge = Spec { name: "a", dtype: Dtype::F64, shape: vec![1 << 40, 1 << 40] };
        assert!(Writer::create(&path, false, "test", &(), &[huge]).is_err());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
