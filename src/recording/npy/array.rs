//! A two-dimensional `.npy` array, read in pieces: the header checked before anything of its size is allocated.
//!
//! The samples are read, not memory-mapped: a file that somebody truncates while we read it then gives an error and
//! not the death of the process.

use crate::ensure;
use crate::error::{Error, Kind, Result};
use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// Longest header text we read; numpy's own for a matrix has 118 bytes.
const MAX_HEADER: usize = 4096;

/// The numeric types we read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Element {
    F32,
    F64,
    I16,
    I32,
    I64,
}

impl Element {
    fn bytes(self) -> usize {
        match self {
            Self::I16 => 2,
            Self::F32 | Self::I32 => 4,
            Self::F64 | Self::I64 => 8,
        }
    }
}

/// An open array of `n_row × n_column` numbers.
pub struct Array {
    file: File,
    path: PathBuf,
    element: Element,
    big_endian: bool,
    data_start: u64,
    /// Rows.
    pub n_row: usize,
    /// Columns.
    pub n_column: usize,
    /// Whether neighbours along a column, not along a row, lie side by side in the file.
    fortran_order: bool,
}

impl Array {
    /// Opens `path` and checks that its header and its length agree.
    pub fn open(path: &Path) -> Result<Self> {
        let mut file = File::open(path).map_err(|e| Error::io(e, "open the file", path))?;
        let header = Header::read(&mut file).map_err(|e| e.at(path))?;
        let [n_row, n_column] = header.shape[..] else {
            let what = format!("the array has {} dimensions, a recording has two", header.shape.len());
            let hint = "Save it as timesteps × channels (or channels × timesteps), one array per recording";
            return Err(Error::new(Kind::UnknownFormat, what).at(path).hint(hint));
        };
        let expected = n_row.checked_mul(n_column).and_then(|n| n.checked_mul(header.element.bytes()));
        let expected = expected.and_then(|n| (n as u64).checked_add(header.data_start));
        let length = file.metadata().map_err(|e| Error::io(e, "read the length", path))?.len();
        if expected != Some(length) {
            let what = format!("a header for {n_row} × {n_column} numbers does not fit a file of {length} bytes");
            return Err(Error::new(Kind::Corrupt, what).at(path).hint("Copy or write the file again"));
        }
        let Header { element, big_endian, fortran_order, data_start, .. } = header;
        Ok(Self { file, path: path.into(), element, big_endian, data_start, n_row, n_column, fortran_order })
    }

    /// `n` timesteps from `start` on, channels first (`out[channel * n + time]`). With `time_first` a row is a
    /// timestep, otherwise a column is.
    pub fn timesteps(&mut self, time_first: bool, start: usize, n: usize, out: &mut [f64]) -> Result<()> {
        let (n_timestep, n_channel) =
            if time_first { (self.n_row, self.n_column) } else { (self.n_column, self.n_row) };
        assert!(start + n <= n_timestep && out.len() == n * n_channel);
        if time_first == self.fortran_order {
            // A channel's timesteps are neighbours in the file.
            return (0..n_channel).try_for_each(|c| self.elements(c * n_timestep + start, &mut out[c * n..][..n]));
        }
        let mut interleaved = vec![0.0; out.len()];
        self.elements(start * n_channel, &mut interleaved)?;
        transpose(&interleaved, n_channel, out);
        Ok(())
    }

    /// Neighbouring elements in file order, from number `first` on.
    fn elements(&mut self, first: usize, out: &mut [f64]) -> Result<()> {
        let size = self.element.bytes();
        let mut bytes = vec![0; out.len() * size];
        let position = SeekFrom::Start(self.data_start + (first * size) as u64);
        let read = self.file.seek(position).and_then(|_| self.file.read_exact(&mut bytes));
        read.map_err(|e| Error::io(e, &format!("read {} bytes", bytes.len()), &self.path))?;
        // One loop for each type keeps the decoding free of branches.
        macro_rules! decode {
            ($type:ty) => {
                for (value, raw) in out.iter_mut().zip(bytes.as_chunks().0) {
                    let from = if self.big_endian { <$type>::from_be_bytes } else { <$type>::from_le_bytes };
                    *value = from(*raw) as f64;
                }
            };
        }
        match self.element {
            Element::F32 => decode!(f32),
            Element::F64 => decode!(f64),
            Element::I16 => decode!(i16),
            Element::I32 => decode!(i32),
            Element::I64 => decode!(i64),
        }
        Ok(())
    }
}

/// `to[column * n_row + row] = from[row * n_column + column]`, in tiles that stay in the cache.
pub fn transpose<T: Copy>(from: &[T], n_column: usize, to: &mut [T]) {
    const TILE: usize = 16;
    let n_row = from.len().checked_div(n_column).unwrap_or(0);
    for row_tile in (0..n_row).step_by(TILE) {
        for column_tile in (0..n_column).step_by(TILE) {
            for row in row_tile..n_row.min(row_tile + TILE) {
                for column in column_tile..n_column.min(column_tile + TILE) {
                    to[column * n_row + row] = from[row * n_column + column];
                }
            }
        }
    }
}

/// What the text at the beginning of a `.npy` file says.
struct Header {
    element: Element,
    big_endian: bool,
    fortran_order: bool,
    shape: Vec<usize>,
    data_start: u64,
}

impl Header {
    fn read(file: &mut File) -> Result<Self> {
        let mut start = [0; 10];
        read_all(file, &mut start)?;
        ensure!(start.starts_with(super::MAGIC), Kind::UnknownFormat, "this is not a .npy file");
        // Version 1 counts the text in two bytes, versions 2 and 3 in four.
        let mut length = usize::from(u16::from_le_bytes([start[8], start[9]]));
        let mut before_text = 10;
        if start[6] != 1 {
            let mut high = [0; 2];
            read_all(file, &mut high)?;
            length += usize::from(u16::from_le_bytes(high)) << 16;
            before_text = 12;
        }
        ensure!(length <= MAX_HEADER, Kind::Corrupt, "a .npy header of {length} bytes is longer than any matrix needs");
        let mut text = vec![0; length];
        read_all(file, &mut text)?;
        let text = String::from_utf8_lossy(&text);
        let parsed = Self::parse(&text, (before_text + length) as u64);
        parsed.map_err(|e| e.hint("Save the array with numpy.save as float32, float64, int16 or int32"))
    }

    /// Reads the three entries of the dictionary that numpy writes:
    /// `{'descr': '<f4', 'fortran_order': False, 'shape': (60000, 306), }`.
    fn parse(text: &str, data_start: u64) -> Result<Self> {
        let entry = |key: &str| -> Result<&str> {
            let missing = || Error::new(Kind::Corrupt, format!("the .npy header has no '{key}'"));
            let at = text.find(&format!("'{key}':")).ok_or_else(missing)?;
            Ok(text[at + key.len() + 3..].trim_start())
        };
        let descr = entry("descr")?.strip_prefix('\'').and_then(|rest| rest.split_once('\''));
        let (descr, _) = descr.ok_or_else(|| Error::new(Kind::UnknownFormat, "the array is not of plain numbers"))?;
        let element = match descr.trim_start_matches(['<', '>', '=', '|']) {
            "f4" => Element::F32,
            "f8" => Element::F64,
            "i2" => Element::I16,
            "i4" => Element::I32,
            "i8" => Element::I64,
            _ => return Err(Error::new(Kind::UnknownFormat, format!("arrays of type {descr} are not read"))),
        };
        let order = entry("fortran_order")?;
        ensure!(order.starts_with(['T', 'F']), Kind::Corrupt, "the .npy header's 'fortran_order' is no truth value");
        let bad_shape = || Error::new(Kind::Corrupt, "the .npy header's 'shape' makes no sense");
        let (shape, _) = entry("shape")?.strip_prefix('(').and_then(|s| s.split_once(')')).ok_or_else(bad_shape)?;
        let lengths = shape.split(',').map(str::trim).filter(|s| !s.is_empty());
        let shape = lengths.map(|s| s.parse().map_err(|_| bad_shape())).collect::<Result<_>>()?;
        let big_endian = descr.starts_with('>') || (cfg!(target_endian = "big") && descr.starts_with('='));
        Ok(Self { element, big_endian, fortran_order: order.starts_with('T'), shape, data_start })
    }
}

fn read_all(file: &mut File, bytes: &mut [u8]) -> Result<()> {
    file.read_exact(bytes).map_err(|e| match e.kind() {
        ErrorKind::UnexpectedEof => Error::new(Kind::Corrupt, "the file ends inside its .npy header"),
        _ => Error::new(Kind::Io, format!("cannot read the .npy header: {e}")),
    })
}

/// The 128 bytes before the samples of an array of little-endian `float32`.
pub fn header_f32(n_row: usize, n_column: usize) -> [u8; 128] {
    let text = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({n_row}, {n_column}), }}");
    let mut header = [b' '; 128];
    header[..6].copy_from_slice(super::MAGIC);
    header[6..10].copy_from_slice(&[1, 0, 118, 0]);
    header[10..10 + text.len()].copy_from_slice(text.as_bytes());
    header[127] = b'\n';
    header
}
