//! What is known about every byte of a memory: whether it may be touched, and whether it has been written.
//!
//! One shadow byte stands for one aligned word of four bytes. Its low nibble says which of them are addressable, its
//! high nibble which are initialised. A word about which nothing is wrong therefore reads [`FINE`], and 32 lanes that
//! touch 32 neighbouring words are judged by one comparison of 32 bytes.

use std::sync::atomic::AtomicU8;
use std::sync::atomic::Ordering::Relaxed;

/// The shadow of a word whose four bytes are addressable and initialised.
pub const FINE: u8 = 0xFF;

/// Shadow bytes of a memory, addressed by the offsets of the bytes that they describe.
///
/// It does not own them: an arena keeps its shadow in a second mapping, a block's shared memory in a vector.
#[derive(Clone, Copy, Debug)]
pub struct Shadow {
    words: *mut u8,
    /// Bytes described; offsets are below it.
    length: u64,
}

// SAFETY: its bytes are read and changed as atomics.
unsafe impl Send for Shadow {}
// SAFETY: as above.
unsafe impl Sync for Shadow {}

impl Shadow {
    /// A shadow over `length` bytes, kept at `words`.
    ///
    /// # Safety
    /// `words` must stay valid for reads and writes of `length / 4` bytes (rounded up) while this value or a copy is used.
    pub const unsafe fn new(words: *mut u8, length: u64) -> Self {
        Shadow { words, length }
    }

    /// Bytes that it describes.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// The shadow byte of the word that holds `offset`.
    ///
    /// # Safety
    /// `offset` is below [`Self::length`].
    #[inline(always)]
    pub unsafe fn word(&self, offset: u64) -> u8 {
        // SAFETY: by the caller's promise.
        unsafe { self.atomic(offset).load(Relaxed) }
    }

    /// Sets the shadow byte of the word that holds `offset`.
    ///
    /// # Safety
    /// `offset` is below [`Self::length`].
    #[inline(always)]
    pub unsafe fn set_word(&self, offset: u64, state: u8) {
        // SAFETY: by the caller's promise.
        unsafe { self.atomic(offset).store(state, Relaxed) }
    }

    /// # Safety
    /// `offset` is below [`Self::length`].
    #[inline(always)]
    unsafe fn atomic(&self, offset: u64) -> &AtomicU8 {
        // SAFETY: by the caller's promise; other threads use the byte as an atomic too.
        unsafe { AtomicU8::from_ptr(self.words.add((offset >> 2) as usize)) }
    }

    /// The bits that the shadow bytes of `count` words from `offset` on have in common.
    ///
    /// # Safety
    /// The words lie below [`Self::length`].
    #[inline(always)]
    pub unsafe fn common(&self, offset: u64, count: usize) -> u8 {
        debug_assert!(
            (offset >> 2) + count as u64 <= self.length.div_ceil(4),
            "{count} words at {offset} of {}",
            self.length
        );
        // SAFETY: by the caller's promise.
        (0..count).fold(u8::MAX, |all, i| all & unsafe { self.word(offset + 4 * i as u64) })
    }

    /// Marks `count` words from `offset` on as [`FINE`].
    ///
    /// # Safety
    /// The words lie below [`Self::length`].
    #[inline(always)]
    pub unsafe fn set_fine(&self, offset: u64, count: usize) {
        debug_assert!(
            (offset >> 2) + count as u64 <= self.length.div_ceil(4),
            "{count} words at {offset} of {}",
            self.length
        );
        // SAFETY: by the caller's promise.
        (0..count).for_each(|i| unsafe { self.set_word(offset + 4 * i as u64, FINE) });
    }

    /// Where the shadow byte of `offset` lives.
    ///
    /// # Safety
    /// `offset` is at most [`Self::length`].
    #[inline(always)]
    pub unsafe fn pointer(&self, offset: u64) -> *mut u8 {
        // SAFETY: by the caller's promise.
        unsafe { self.words.add((offset >> 2) as usize) }
    }

    /// Makes bytes addressable and uninitialised, or neither.
    pub fn set_addressable(&self, offset: u64, bytes: u64, addressable: bool) {
        self.change(
            offset,
            bytes,
            |old, bits| if addressable { old & !(bits << 4) | bits } else { old & !(bits | bits << 4) },
        );
    }

    /// Marks bytes as written.
    #[inline]
    pub fn set_initialised(&self, offset: u64, bytes: u64) {
        self.change(offset, bytes, |old, bits| old | bits << 4);
    }

    /// Marks bytes as not written.
    pub fn clear_initialised(&self, offset: u64, bytes: u64) {
        self.change(offset, bytes, |old, bits| old & !(bits << 4));
    }

    /// The first of these bytes that is not addressable.
    pub fn first_not_addressable(&self, offset: u64, bytes: u64) -> Option<u64> {
        self.first_without(offset, bytes, 0)
    }

    /// The first of these bytes that is not initialised.
    pub fn first_not_initialised(&self, offset: u64, bytes: u64) -> Option<u64> {
        self.first_without(offset, bytes, 4)
    }

    /// Carries "initialised" along with a copy of `bytes` bytes; the ranges may overlap.
    pub fn copy_initialised(&self, to: u64, from: u64, bytes: u64) {
        if self.first_not_initialised(from, bytes).is_none() {
            return self.set_initialised(to, bytes);
        }
        let bits: Vec<bool> = (0..bytes).map(|i| self.first_not_initialised(from + i, 1).is_none()).collect();
        for (i, initialised) in (0..bytes).zip(bits) {
            if initialised {
                self.set_initialised(to + i, 1);
            } else {
                self.clear_initialised(to + i, 1);
            }
        }
    }

    fn first_without(&self, offset: u64, bytes: u64, shift: u32) -> Option<u64> {
        let end = offset.saturating_add(bytes);
        let mut at = offset;
        while at < end {
            if at >= self.length {
                return Some(at);
            }
            // SAFETY: `at` is below the length.
            let word = unsafe { self.word(at) };
            if word == FINE || word >> shift & 0xF == 0xF {
                at = (at | 3) + 1;
            } else if word >> (shift + (at & 3) as u32) & 1 == 0 {
                return Some(at);
            } else {
                at += 1;
            }
        }
        None
    }

    /// Applies `new(old, bits)` to every word of the range, `bits` being those of its bytes that lie in the range.
    /// A whole word is written outright, a part of one by compare and exchange, since two blocks on two threads may
    /// write the two halves of a word.
    #[inline]
    fn change(&self, offset: u64, bytes: u64, new: impl Fn(u8, u8) -> u8) {
        debug_assert!(offset.checked_add(bytes).is_some_and(|end| end <= self.length.next_multiple_of(4)));
        let end = offset + bytes;
        let mut at = offset;
        while at < end {
            let next = ((at | 3) + 1).min(end);
            let bits = (((1u32 << (next - at)) - 1) << (at & 3)) as u8;
            // SAFETY: the range lies within the described bytes (asserted; callers check it against the allocation).
            let word = unsafe { self.atomic(at) };
            if bits == 0xF {
                word.store(new(word.load(Relaxed), bits), Relaxed);
            } else {
                let _ = word.fetch_update(Relaxed, Relaxed, |old| Some(new(old, bits)));
            }
            at = next;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shadow(words: &mut [u8]) -> Shadow {
        // SAFETY: the slice outlives the shadow in these tests.
        unsafe { Shadow::new(words.as_mut_ptr(), words.len() as u64 * 4) }
    }

    #[test]
    fn every_range_marks_exactly_its_bytes() {
        for start in 0..12 {
            for bytes in 0..12 {
                let mut words = [0u8; 6];
                let shadow = shadow(&mut words);
                shadow.set_addressable(0, 24, true);
                shadow.set_initialised(start, bytes);
                for at in 0..24 {
                    let inside = at >= start && at < start + bytes;
                    assert_eq!(shadow.first_not_initialised(at, 1).is_none(), inside, "{start}+{bytes} at {at}");
                    assert_eq!(shadow.first_not_addressable(at, 1), None);
                }
                shadow.clear_initialised(start, bytes);
                assert_eq!(shadow.first_not_initialised(0, 24), Some(0));
                shadow.set_addressable(start, bytes, false);
                assert_eq!(shadow.first_not_addressable(0, 24), (bytes > 0).then_some(start));
            }
        }
    }

    #[test]
    fn copies_carry_the_bits_at_any_alignment() {
        let mut words = [0u8; 16];
        let shadow = shadow(&mut words);
        shadow.set_addressable(0, 64, true);
        shadow.set_initialised(3, 6);
        shadow.copy_initialised(34, 1, 12);
        for i in 0..12 {
            assert_eq!(shadow.first_not_initialised(34 + i, 1).is_none(), (2..8).contains(&i), "{i}");
        }
    }

    #[test]
    fn beyond_the_end_nothing_is_addressable() {
        let mut words = [FINE; 2];
        assert_eq!(shadow(&mut words).first_not_addressable(4, 8), Some(8));
    }
}
