//! Local memory: the private bytes of each lane, stacked by calls.
//!
//! Word `w` of lane `l` lies at word `32 w + l`, as on hardware, so that lanes that use the same address touch
//! neighbouring words. It grows with the depth of calls.

use crate::memory::{FINE, Shadow};

/// Bytes a lane may have; more is a stack that overflows.
pub const LIMIT: u32 = crate::target::LOCAL_BYTES;

/// The local memory of a warp's 32 lanes.
#[derive(Debug, Default)]
pub struct LocalMemory {
    words: Vec<u32>,
    /// One byte for each word, laid out likewise.
    shadow: Vec<u8>,
}

/// Why bytes of local memory cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LocalFault {
    /// The byte belongs to no variable.
    Outside(u32),
    /// The byte was never written.
    Uninitialised(u32),
}

impl LocalMemory {
    /// Gives the lanes of `mask` fresh, uninitialised bytes; false beyond [`LIMIT`].
    pub fn enter(&mut self, base: u32, bytes: u32, mask: u32) -> bool {
        let Some(end) = base.checked_add(bytes).filter(|end| *end <= LIMIT) else { return false };
        let words = end.div_ceil(4) as usize * 32;
        if self.words.len() < words {
            self.words.resize(words, u32::MAX);
            self.shadow.resize(words, 0);
        }
        self.set(base, bytes, mask, true);
        true
    }

    /// Takes bytes away.
    pub fn leave(&mut self, base: u32, bytes: u32, mask: u32) {
        self.set(base, bytes, mask, false);
    }

    fn set(&mut self, base: u32, bytes: u32, mask: u32, addressable: bool) {
        for word in base / 4..(base + bytes).div_ceil(4) {
            let row = &mut self.shadow[word as usize * 32..][..32];
            for (lane, shadow) in row.iter_mut().enumerate() {
                if mask >> lane & 1 != 0 {
                    *shadow = if addressable { 0x0F } else { 0 };
                }
            }
        }
    }

    /// The words and their shadow when every lane uses the same aligned word; none when a lane of `mask` may not read it.
    #[inline(always)]
    pub fn row(&mut self, address: u32, mask: u32, need: u8) -> Option<(&mut [u32; 32], &mut [u8; 32])> {
        let first = address as usize / 4 * 32;
        let shadow: &mut [u8; 32] = self.shadow.get_mut(first..first + 32)?.try_into().ok()?;
        let mut fine = true;
        for lane in 0..32 {
            fine &= mask >> lane & 1 == 0 || shadow[lane] & need == need;
        }
        let words = (&mut self.words[first..first + 32]).try_into().ok()?;
        fine.then_some((words, shadow))
    }

    /// Reads up to 8 bytes of a lane, as a little-endian number.
    pub fn read(&self, lane: usize, address: u32, bytes: u32, initialised: bool) -> Result<u64, LocalFault> {
        self.check(lane, address, bytes, initialised)?;
        Ok((0..bytes).fold(0, |value, i| {
            let word = self.words[(address + i) as usize / 4 * 32 + lane];
            value | u64::from(word >> ((address + i) % 4 * 8) as u8 & 0xFF) << (8 * i)
        }))
    }

    /// Writes up to 8 bytes of a lane.
    pub fn write(&mut self, lane: usize, address: u32, bytes: u32, value: u64) -> Result<(), LocalFault> {
        self.check(lane, address, bytes, false)?;
        for i in 0..bytes {
            let at = (address + i) as usize / 4 * 32 + lane;
            let (byte, shift) = ((value >> (8 * i)) as u32 & 0xFF, (address + i) % 4 * 8);
            self.words[at] = self.words[at] & !(0xFF << shift) | byte << shift;
            self.shadow[at] |= 0x10 << ((address + i) % 4);
        }
        Ok(())
    }

    /// Copies a value between frames, initialised or not as it is.
    pub fn copy(&mut self, lane: usize, to: u32, from: u32, bytes: u32) {
        for i in 0..bytes {
            match self.read(lane, from + i, 1, true) {
                Ok(value) => _ = self.write(lane, to + i, 1, value),
                Err(_) => self.forget(lane, to + i, 1),
            }
        }
    }

    /// Bytes of a lane count as not written.
    pub fn forget(&mut self, lane: usize, address: u32, bytes: u32) {
        for at in address..address.saturating_add(bytes) {
            if let Some(shadow) = self.shadow.get_mut(at as usize / 4 * 32 + lane) {
                *shadow &= !(0x10 << (at % 4));
            }
        }
    }

    /// A lane's shadow seen as that of a plain memory would be, for checks of one lane.
    fn check(&self, lane: usize, address: u32, bytes: u32, initialised: bool) -> Result<(), LocalFault> {
        for at in address..address.saturating_add(bytes) {
            let shadow = self.shadow.get(at as usize / 4 * 32 + lane).copied().unwrap_or(0);
            if shadow >> (at % 4) & 1 == 0 {
                return Err(LocalFault::Outside(at));
            }
            if initialised && shadow != FINE && shadow >> (4 + at % 4) & 1 == 0 {
                return Err(LocalFault::Uninitialised(at));
            }
        }
        Ok(())
    }
}

/// Shared memory of a block: its bytes and their shadow. Bytes between its variables cannot be accessed.
#[derive(Debug)]
pub struct SharedMemory {
    bytes: Vec<u64>,
    words: Vec<u8>,
    length: u32,
}

impl SharedMemory {
    /// Uninitialised bytes, of which those in `ranges` can be accessed. From `reserved` on, unless it is 0, the system has
    /// written something: nobody knows what.
    pub fn new(ranges: &[std::ops::Range<u32>], reserved: u32) -> Self {
        let length = ranges.iter().map(|range| range.end).max().unwrap_or(0);
        let mut memory = SharedMemory {
            bytes: vec![u64::MAX; length.div_ceil(16) as usize * 2],
            words: vec![0; length.div_ceil(4) as usize],
            length,
        };
        for range in ranges {
            memory.shadow().set_addressable(range.start.into(), range.len() as u64, true);
        }
        if reserved > 0 {
            memory.shadow().set_initialised(reserved.into(), (length - reserved).into());
        }
        memory
    }

    /// Its length in bytes.
    pub fn length(&self) -> u32 {
        self.length
    }

    /// Its first byte, aligned to 8.
    pub fn data(&mut self) -> *mut u8 {
        self.bytes.as_mut_ptr().cast()
    }

    /// Its shadow.
    pub fn shadow(&mut self) -> Shadow {
        // SAFETY: the vector holds the words and is never resized.
        unsafe { Shadow::new(self.words.as_mut_ptr(), self.length.into()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_variables_have_nothing_between_them() {
        let mut memory = SharedMemory::new(&[0..6, 128..132], 0);
        assert_eq!((memory.length(), memory.shadow().first_not_addressable(0, 8)), (132, Some(6)));
        assert_eq!(memory.shadow().first_not_addressable(128, 4), None);
        assert_eq!(SharedMemory::new(&[], 0).length(), 0);
    }

    #[test]
    fn lanes_have_bytes_of_their_own() {
        let mut memory = LocalMemory::default();
        assert!(memory.enter(0, 16, 0b11));
        memory.write(0, 6, 8, 0x0123_4567_89AB_CDEF).unwrap();
        assert_eq!(memory.read(0, 6, 8, true), Ok(0x0123_4567_89AB_CDEF));
        assert_eq!(memory.read(0, 8, 2, true), Ok(0x89AB));
        assert_eq!(memory.read(1, 6, 1, true), Err(LocalFault::Uninitialised(6)));
        assert_eq!(memory.read(0, 4, 4, true), Err(LocalFault::Uninitialised(4)));
        assert_eq!(memory.read(2, 6, 1, false), Err(LocalFault::Outside(6)));
        assert_eq!(memory.read(0, 14, 4, false), Err(LocalFault::Outside(16)));
        memory.copy(0, 0, 6, 4);
        assert_eq!(memory.read(0, 0, 4, true), Ok(0x89AB_CDEF));
        // What was not written is not written either where it is copied to, whatever was there.
        memory.copy(0, 0, 4, 1);
        assert_eq!(memory.read(0, 0, 1, true), Err(LocalFault::Uninitialised(0)));
        memory.forget(0, 7, 2);
        assert_eq!(memory.read(0, 9, 1, true), Ok(0x89));
        assert_eq!(memory.read(0, 8, 1, true), Err(LocalFault::Uninitialised(8)));
        memory.leave(0, 16, 0b1);
        assert_eq!(memory.read(0, 0, 1, false), Err(LocalFault::Outside(0)));
        assert_eq!(memory.read(1, 0, 1, false), Ok(0xFF));
        assert!(!memory.enter(LIMIT - 4, 8, 1));
    }
}
