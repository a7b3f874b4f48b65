//! Which bytes of global memory a launch has read and written.
//!
//! The driver asks after each launch, to find uses in different streams that nothing orders. Two maps hold four bits for
//! each aligned word, one bit a byte; a third says which parts of the memory are worth looking at.

use std::io;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

/// Bytes of memory for which one byte of the third map stands.
const REGION: u64 = 1 << 16;
/// All four bytes of a word.
const WORD: u8 = 0xF;
/// Stretches told for one allocation; the rest of a scattered use is left out.
const STRETCHES: usize = 256;

/// Bytes that a launch has used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// The first, by its address.
    pub start: u64,
    /// One past the last.
    pub end: u64,
    /// Whether they were written, or only read.
    pub written: bool,
}

/// The maps of one memory, zero at first. Threads set bits without locks; where two set different bits of one word at
/// once, one may be lost, which hides a use and never invents one.
#[derive(Debug)]
pub struct Touched {
    /// Reads, then writes, then regions.
    map: *mut u8,
    /// Bytes of memory.
    length: u64,
}

// SAFETY: the map is only used through atomics, or by whom has the memory alone (see `take`).
unsafe impl Send for Touched {}
// SAFETY: as above.
unsafe impl Sync for Touched {}

impl Touched {
    /// Maps for `length` bytes of memory; they cost what is used of them.
    pub fn new(length: u64) -> io::Result<Self> {
        let length = length.next_multiple_of(REGION);
        // SAFETY: a new private mapping, of zeros.
        let map = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                Self::bytes(length),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if map == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(Touched { map: map.cast(), length }) }
    }

    fn bytes(length: u64) -> usize {
        (length / 4 * 2 + length / REGION) as usize
    }

    fn byte(&self, index: u64) -> &AtomicU8 {
        debug_assert!((index as usize) < Self::bytes(self.length));
        // SAFETY: inside the mapping, as every caller sees to; bytes of it are only used as atomics.
        unsafe { AtomicU8::from_ptr(self.map.add(index as usize)) }
    }

    /// Notes that bytes from an offset on were used; no more at a time than a region has.
    #[inline]
    pub fn note(&self, offset: u64, bytes: u64, written: bool) {
        if offset.checked_add(bytes).is_none_or(|end| end > self.length) || bytes == 0 {
            return;
        }
        let map = if written { self.length / 4 } else { 0 };
        self.byte(self.length / 2 + offset / REGION).store(1, Ordering::Relaxed);
        let (first, last) = (offset / 4, (offset + bytes - 1) / 4);
        self.byte(self.length / 2 + last * 4 / REGION).store(1, Ordering::Relaxed);
        for word in first..=last {
            let below = offset.saturating_sub(word * 4).min(4);
            let above = (word * 4 + 4).saturating_sub(offset + bytes);
            let bits = (WORD << below) & (WORD >> above);
            let byte = self.byte(map + word);
            // A whole word needs no look at what was there.
            let before = if bits == WORD { 0 } else { byte.load(Ordering::Relaxed) };
            byte.store(before | bits, Ordering::Relaxed);
        }
    }

    /// What was noted between two offsets, as addresses from `base`; it is forgotten. To be called when nobody notes.
    pub fn take(&self, base: u64, from: u64, to: u64) -> Vec<Stretch> {
        let mut stretches = Vec::new();
        let end = to.min(self.length);
        for written in [false, true] {
            let mut told = 0;
            let map = if written { self.length / 4 } else { 0 };
            // The stretch that the words so far end with.
            let mut open: Option<Stretch> = None;
            let mut word = from / 4;
            while word * 4 < end {
                let region = word * 4 / REGION;
                let region_end = ((region + 1) * REGION / 4).min(end.div_ceil(4));
                if self.byte(self.length / 2 + region).load(Ordering::Relaxed) == 0 {
                    stretches.extend(open.take());
                    word = region_end;
                    continue;
                }
                while word < region_end {
                    if word.is_multiple_of(8)
                        && word + 8 <= region_end
                        && self.eight(map + word).load(Ordering::Relaxed) == 0
                    {
                        stretches.extend(open.take());
                        word += 8;
                        continue;
                    }
                    let bits = self.byte(map + word).swap(0, Ordering::Relaxed);
                    for byte in (0..4).filter(|byte| bits >> byte & 1 != 0) {
                        let at = base + word * 4 + byte;
                        match &mut open {
                            Some(stretch) if stretch.end == at => stretch.end = at + 1,
                            _ => {
                                stretches.extend(open.replace(Stretch { start: at, end: at + 1, written }));
                                told += 1;
                            }
                        }
                    }
                    word += 1;
                }
            }
            stretches.extend(open);
            let excess = told - told.min(STRETCHES);
            stretches.truncate(stretches.len() - excess);
        }
        stretches
    }

    /// Forgets which regions are worth looking at; to be called when all that was noted has been taken.
    pub fn forget_regions(&self) {
        let (start, count) = (self.length / 2, self.length / REGION);
        // Most are untouched, and a write would make the system find a page for them.
        for eight in 0..count / 8 {
            let regions = self.eight(start + eight * 8);
            if regions.load(Ordering::Relaxed) != 0 {
                regions.store(0, Ordering::Relaxed);
            }
        }
        (count / 8 * 8..count).for_each(|region| self.byte(start + region).store(0, Ordering::Relaxed));
    }

    fn eight(&self, index: u64) -> &AtomicU64 {
        debug_assert!(index.is_multiple_of(8) && (index as usize) + 8 <= Self::bytes(self.length));
        // SAFETY: inside the mapping and aligned, as the caller sees to; nobody notes meanwhile, so that no byte of it is
        // used as another atomic at the same time.
        unsafe { AtomicU64::from_ptr(self.map.add(index as usize).cast()) }
    }
}

impl Drop for Touched {
    fn drop(&mut self) {
        // SAFETY: this mapping is ours, and nothing refers to it any more.
        unsafe { libc::munmap(self.map.cast(), Self::bytes(self.length)) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: u64 = 1 << 40;

    fn stretch(start: u64, end: u64, written: bool) -> Stretch {
        Stretch { start: BASE + start, end: BASE + end, written }
    }

    #[test]
    fn bytes_that_were_used_come_back_as_stretches() {
        let touched = Touched::new(1 << 20).unwrap();
        for lane in 0..32 {
            touched.note(256 + lane * 4, 4, false);
        }
        touched.note(1000, 16, true);
        touched.note(1017, 2, true);
        touched.note(REGION - 2, 4, true);
        touched.note(1 << 20, 4, true);
        let all = [
            stretch(256, 384, false),
            stretch(1000, 1016, true),
            stretch(1017, 1019, true),
            stretch(REGION - 2, REGION + 2, true),
        ];
        assert_eq!(touched.take(BASE, 0, 1 << 20), all);
        assert_eq!(touched.take(BASE, 0, 1 << 20), []);
        touched.note(5 * REGION, 1, false);
        touched.forget_regions();
        assert_eq!(touched.take(BASE, 0, 1 << 20), [], "a region that was forgotten is not looked at");
    }

    /// Every byte at every distance from a word's edge, against a plain list.
    #[test]
    fn bits_are_the_bytes() {
        let touched = Touched::new(1 << 16).unwrap();
        for bytes in [1, 2, 4, 8, 16] {
            for offset in 64..80 {
                touched.note(offset, bytes, true);
                assert_eq!(touched.take(BASE, 0, 1 << 16), [stretch(offset, offset + bytes, true)]);
            }
        }
    }

    #[test]
    fn scattered_uses_are_cut_short() {
        let touched = Touched::new(1 << 16).unwrap();
        (0..1000).for_each(|i| touched.note(i * 8, 1, false));
        touched.note(20_000, 4, true);
        let taken = touched.take(BASE, 0, 1 << 16);
        assert_eq!(taken.iter().filter(|s| !s.written).count(), STRETCHES);
        assert_eq!(taken.last(), Some(&stretch(20_000, 20_004, true)));
    }
}
