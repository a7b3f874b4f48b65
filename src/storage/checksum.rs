//! CRC32C of a tensor by blocks of 1 MiB, from pieces that may come in any order.
//!
//! A CRC is affine over the bits of its message: crc(m) = L(m) ⊕ crc(0…0), with L linear. A piece p inside a block of
//! zeros contributes L(p) shifted by the number of bytes that follow it, and pieces that do not overlap simply add.
//! So the checksums come from the bytes that were handed over, not from reading back what became of them.

use crc32c::{crc32c, crc32c_combine};

/// Bytes in a block; the last one of a tensor may be shorter.
pub const BLOCK: usize = 1 << 20;

/// Number of blocks of a tensor of `len` bytes.
pub fn n_block(len: usize) -> usize {
    len.div_ceil(BLOCK)
}

/// The byte range of one block.
pub fn block_range(len: usize, block: usize) -> std::ops::Range<usize> {
    block * BLOCK..len.min((block + 1) * BLOCK)
}

/// The checksums of a tensor that is being written.
pub struct Sums {
    len: usize,
    blocks: Vec<u32>,
    covered: usize,
}

impl Sums {
    /// Those of `len` zeros.
    pub fn new(len: usize) -> Self {
        let blocks = (0..n_block(len)).map(|block| of_zeros(block_range(len, block).len())).collect();
        Self { len, blocks, covered: 0 }
    }

    /// How many blocks there are.
    pub fn n_block(&self) -> usize {
        self.blocks.len()
    }

    /// Adds the bytes at `start`, which no earlier piece may have covered.
    pub fn add(&mut self, mut start: usize, mut bytes: &[u8]) {
        self.covered += bytes.len();
        while !bytes.is_empty() {
            let block = start / BLOCK;
            let end = block_range(self.len, block).end;
            let (piece, rest) = bytes.split_at(bytes.len().min(end - start));
            let linear = crc32c(piece) ^ of_zeros(piece.len());
            self.blocks[block] ^= shifted(linear, end - start - piece.len());
            (start, bytes) = (start + piece.len(), rest);
        }
    }

    /// The checksums, once every byte has been added.
    pub fn finish(&self) -> Option<&[u32]> {
        (self.covered == self.len).then_some(&self.blocks)
    }
}

/// The checksum after `n` zero bytes more, for a message whose inversions cancel.
fn shifted(crc: u32, n: usize) -> u32 {
    if n == 0 { crc } else { crc32c_combine(crc, 0, n) }
}

/// CRC32C of `n` zero bytes.
fn of_zeros(n: usize) -> u32 {
    !shifted(!0, n)
}

/// Checksums as text: eight hexadecimal digits each.
pub fn to_hex(sums: &[u32]) -> String {
    sums.iter().map(|sum| format!("{sum:08x}")).collect()
}

/// The inverse of [`to_hex`]; `None` for anything it cannot have written.
pub fn from_hex(text: &str) -> Option<Vec<u32>> {
    if !text.len().is_multiple_of(8) {
        return None;
    }
    let is_hex = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let chunk = |chunk: &[u8]| {
        let text = chunk.iter().all(is_hex).then(|| std::str::from_utf8(chunk).ok())??;
        u32::from_str_radix(text, 16).ok()
    };
    text.as_bytes().chunks_exact(8).map(chunk).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn zeros() {
        for n in [0, 1, 7, 4096, BLOCK] {
            assert_eq!(of_zeros(n), crc32c(&vec![0; n]), "{n} zeros");
        }
    }

    #[test]
    fn hex_round_trip_and_refusals() {
        let sums = [0, 1, 0xdead_beef, u32::MAX];
        assert_eq!(from_hex(&to_hex(&sums)).unwrap(), sums);
        for text in ["0", "+0000001", "DEADBEEF", "0000000g", "é000000"] {
            assert_eq!(from_hex(text), None, "{text}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn pieces_in_any_order_give_the_checksum_of_the_whole(
            len in prop_oneof![Just(0usize), Just(1), Just(BLOCK - 1), Just(BLOCK), Just(BLOCK + 1), 0..3 * BLOCK],
            mut cuts in prop::collection::vec(0..3 * BLOCK, 0..12),
            seed in any::<u32>(),
        ) {
            let bytes: Vec<u8> = (0..len as u32).map(|i| (i.wrapping_mul(2_654_435_761) ^ seed).to_be_bytes()[1]).collect();
            cuts.retain(|&cut| cut < len);
            cuts.extend([0, len]);
            cuts.sort_unstable();
            let mut pieces: Vec<_> = cuts.windows(2).map(|pair| pair[0]..pair[1]).collect();
            pieces.sort_by_key(|piece| (piece.start as u32).wrapping_mul(seed | 1));
            let mut sums = Sums::new(len);
            for piece in pieces {
                sums.add(piece.start, &bytes[piece]);
            }
            let expected: Vec<u32> = bytes.chunks(BLOCK).map(crc32c).collect();
            prop_assert_eq!(sums.finish().unwrap(), &expected[..]);
        }
    }
}
