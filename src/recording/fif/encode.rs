//! Writing tags.

use super::constants::{DATE_NONE, NEXT_NONE, NEXT_SEQ, VERSION, data_type, kind};
use super::tags::escape;

/// Tags, encoded one behind the other.
#[derive(Debug, Default)]
pub(super) struct Encoder {
    bytes: Vec<u8>,
}

impl Encoder {
    /// A tag with its data.
    pub fn tag(&mut self, kind: i32, data_type: u32, data: &[u8]) {
        let size = i32::try_from(data.len()).expect("tags that are encoded in memory are far smaller than 2 GiB");
        self.bytes.extend_from_slice(&header(kind, data_type, size, NEXT_SEQ));
        self.bytes.extend_from_slice(data);
    }

    /// One integer.
    pub fn int(&mut self, kind: i32, number: i32) {
        self.tag(kind, data_type::INT, &number.to_be_bytes());
    }

    /// Several integers.
    pub fn ints(&mut self, kind: i32, numbers: &[i32]) {
        self.tag(kind, data_type::INT, &be_ints(numbers));
    }

    /// One float.
    pub fn float(&mut self, kind: i32, number: f64) {
        self.tag(kind, data_type::FLOAT, &(number as f32).to_be_bytes());
    }

    /// Several floats.
    pub fn floats(&mut self, kind: i32, numbers: &[f32]) {
        self.tag(kind, data_type::FLOAT, &be_floats(numbers));
    }

    /// Several doubles.
    pub fn doubles(&mut self, kind: i32, numbers: impl Iterator<Item = f64>) {
        self.tag(kind, data_type::DOUBLE, &numbers.flat_map(f64::to_be_bytes).collect::<Vec<u8>>());
    }

    /// Text.
    pub fn text(&mut self, kind: i32, text: &str) {
        self.tag(kind, data_type::STRING, &escape(text));
    }

    /// An id. It carries the measurement's date and nothing of the machine, so that the same recording gives the same
    /// bytes everywhere.
    pub fn id(&mut self, kind: i32, date: Option<(i64, i64)>) {
        let (seconds, microseconds) = date.unwrap_or(DATE_NONE);
        let numbers = [VERSION, 0, 0, seconds as i32, microseconds as i32];
        self.tag(kind, data_type::ID_STRUCT, &be_ints(&numbers));
    }

    /// Opens a block.
    pub fn start_block(&mut self, block: i32) {
        self.int(kind::BLOCK_START, block);
    }

    /// Closes a block.
    pub fn end_block(&mut self, block: i32) {
        self.int(kind::BLOCK_END, block);
    }

    /// The last tag of a file.
    pub fn end_file(&mut self) {
        self.bytes.extend_from_slice(&header(kind::NOP, 0, 0, NEXT_NONE));
    }

    /// What has been encoded.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

/// A tag's header.
pub(super) fn header(kind: i32, data_type: u32, size: i32, next: i32) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..4].copy_from_slice(&kind.to_be_bytes());
    bytes[4..8].copy_from_slice(&data_type.to_be_bytes());
    bytes[8..12].copy_from_slice(&size.to_be_bytes());
    bytes[12..].copy_from_slice(&next.to_be_bytes());
    bytes
}

/// Big-endian integers.
pub(super) fn be_ints(numbers: &[i32]) -> Vec<u8> {
    numbers.iter().flat_map(|n| n.to_be_bytes()).collect()
}

/// Big-endian floats.
pub(super) fn be_floats(numbers: &[f32]) -> Vec<u8> {
    numbers.iter().flat_map(|n| n.to_be_bytes()).collect()
}
