//! A stretch of the process's own address space that serves as the device's memory.
//!
//! Device addresses are addresses inside it, so that an access needs no translation. Pages cost nothing before they are
//! touched; a second mapping of a quarter of its size holds the shadow.

use std::io;

use super::shadow::Shadow;

/// Where the arena is asked for: far from where programs and their libraries live, so that the addresses, which a kernel
/// may print or hash, are the same in every run. The kernel may choose another place.
const WISHED_ADDRESS: usize = 0x2000_0000_0000;

/// Two mappings: the bytes and their shadow.
#[derive(Debug)]
pub struct Arena {
    base: *mut u8,
    shadow: *mut u8,
    length: usize,
}

// SAFETY: it owns two mappings; what happens inside them is ordered by the allocator's lock and by the launches.
unsafe impl Send for Arena {}
// SAFETY: as above.
unsafe impl Sync for Arena {}

impl Arena {
    /// Reserves `length` bytes (rounded up to pages) and their shadow, in which nothing is addressable.
    ///
    /// # Errors
    /// When the system refuses the reservation.
    pub fn new(length: u64) -> io::Result<Self> {
        let length = usize::try_from(length.next_multiple_of(1 << 16)).map_err(io::Error::other)?;
        let base = reserve(length, WISHED_ADDRESS)?;
        let shadow = match reserve(length / 4, 0) {
            Ok(shadow) => shadow,
            Err(error) => {
                // SAFETY: just mapped with this length.
                unsafe { libc::munmap(base.cast(), length) };
                return Err(error);
            }
        };
        Ok(Arena { base, shadow, length })
    }

    /// The first address.
    pub fn base(&self) -> u64 {
        self.base as u64
    }

    /// Bytes from [`Self::base`] to the end.
    pub fn length(&self) -> u64 {
        self.length as u64
    }

    /// The shadow, addressed by offsets from [`Self::base`].
    pub fn shadow(&self) -> Shadow {
        // SAFETY: the mapping has `length / 4` bytes and lives as long as the arena, which outlives every launch.
        unsafe { Shadow::new(self.shadow, self.length as u64) }
    }

    /// Gives the pages that lie wholly in a range back to the system; they read as zeros afterwards.
    pub fn forget_pages(&self, offset: u64, bytes: u64) {
        let first = offset.next_multiple_of(4096);
        let end = (offset + bytes) / 4096 * 4096;
        if first < end && end <= self.length() {
            // SAFETY: the range lies inside our own private mapping.
            unsafe { libc::madvise(self.base.add(first as usize).cast(), (end - first) as usize, libc::MADV_DONTNEED) };
        }
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: both were mapped in `new` with these lengths.
        unsafe {
            libc::munmap(self.base.cast(), self.length);
            libc::munmap(self.shadow.cast(), self.length / 4);
        }
    }
}

fn reserve(length: usize, wish: usize) -> io::Result<*mut u8> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: without MAP_FIXED, mmap touches no existing mapping.
    let address =
        unsafe { libc::mmap(wish as *mut libc::c_void, length, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
    if address == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(address.cast()) }
}
