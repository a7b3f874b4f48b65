//! The device's memory: allocations with red zones, and the shadow that knows what is valid and initialised.
//!
//! One [`GlobalMemory`] belongs to one device and is shared by driver and machine. Shared and local memory live with the
//! block and the warp that own them ([`crate::machine`]), with shadows of the same kind.

mod allocator;
mod arena;
mod fault;
mod shadow;
mod touched;

use std::{io, sync::Mutex};

use allocator::{Allocator, CannotFree};
use arena::Arena;
pub use fault::MemoryFault;
pub use shadow::{FINE, Shadow};
pub use touched::Stretch;
use touched::Touched;

/// Allocations up to this size are filled with [`POISON`]; larger ones read as zeros, so that a large buffer that is
/// hardly used costs hardly anything.
const POISON_LIMIT: u64 = 64 << 20;
/// What uninitialised bytes hold: as bf16 or fp32 a NaN, as an index far outside.
const POISON: u8 = 0xFF;

/// Global memory of one device. Device addresses are addresses of this process.
#[derive(Debug)]
pub struct GlobalMemory {
    // Before the arena, for nothing may use it once the mapping has gone.
    allocator: Mutex<Allocator>,
    /// Stretches of the host's memory that kernels may address: first byte, length.
    registered: Mutex<Vec<(u64, u64)>>,
    arena: Arena,
    touched: Touched,
}

/// What a check of an access needs, free of locks.
#[derive(Clone, Copy, Debug)]
pub struct View {
    /// First address of the arena.
    pub base: u64,
    /// Bytes in the arena.
    pub length: u64,
    /// Its shadow, by offsets from `base`.
    pub shadow: Shadow,
}

impl GlobalMemory {
    /// A device with `total_bytes` of memory. Twice as much address space is reserved, so that freed addresses can rest.
    ///
    /// # Errors
    /// When the system refuses to reserve the address space.
    pub fn new(total_bytes: u64) -> io::Result<Self> {
        let length = total_bytes.checked_mul(2).ok_or_else(|| io::Error::other("more memory than can be addressed"))?;
        let arena = Arena::new(length.max(1 << 20))?;
        Ok(GlobalMemory {
            allocator: Mutex::new(Allocator::new(arena.length(), total_bytes)),
            registered: Mutex::new(Vec::new()),
            touched: Touched::new(arena.length())?,
            arena,
        })
    }

    /// Takes `bytes` bytes at a multiple of 256, uninitialised, with red zones around. None when they do not fit.
    pub fn allocate(&self, bytes: u64) -> Option<u64> {
        let offset = self.lock().allocate(bytes)?;
        self.arena.shadow().set_addressable(offset, bytes, true);
        if bytes <= POISON_LIMIT {
            // SAFETY: the stretch was just given to us and lies inside the arena.
            unsafe { self.pointer(offset).write_bytes(POISON, bytes as usize) };
        }
        Some(self.arena.base() + offset)
    }

    /// Frees an allocation. Its address is not given out again for a while, so that a use after free shows.
    ///
    /// # Errors
    /// [`MemoryFault::FreedTwice`] or [`MemoryFault::NotAnAllocation`].
    pub fn free(&self, address: u64) -> Result<(), MemoryFault> {
        let offset = address.wrapping_sub(self.arena.base());
        match self.lock().free(offset) {
            Ok(stretch) => {
                self.arena.shadow().set_addressable(offset, stretch.bytes, false);
                self.arena.forget_pages(offset, stretch.bytes);
                Ok(())
            }
            Err(CannotFree::Twice) => Err(MemoryFault::FreedTwice { address }),
            Err(CannotFree::Unknown) => Err(MemoryFault::NotAnAllocation { address }),
        }
    }

    /// Lets kernels address a stretch of the host's memory; it counts as initialised.
    ///
    /// # Safety
    /// The memory must stay valid until [`Self::unregister_host`].
    pub unsafe fn register_host(&self, address: u64, bytes: u64) {
        self.registered.lock().unwrap_or_else(|e| e.into_inner()).push((address, bytes));
    }

    /// Ends what [`Self::register_host`] began; false when nothing was registered there.
    pub fn unregister_host(&self, address: u64) -> bool {
        let mut registered = self.registered.lock().unwrap_or_else(|e| e.into_inner());
        let before = registered.len();
        registered.retain(|(start, _)| *start != address);
        registered.len() < before
    }

    /// Host to device; what is written counts as initialised.
    ///
    /// # Errors
    /// When some byte is not part of a live allocation; nothing is written then.
    pub fn write(&self, address: u64, bytes: &[u8]) -> Result<(), MemoryFault> {
        self.check(address, bytes.len() as u64)?;
        // SAFETY: checked above; the two cannot overlap, for `bytes` is borrowed memory of the host.
        unsafe { (address as *mut u8).copy_from(bytes.as_ptr(), bytes.len()) };
        self.mark_initialised(address, bytes.len() as u64);
        Ok(())
    }

    /// Device to host. Returns the first byte's address that was never written, if there is one.
    ///
    /// # Errors
    /// When some byte is not part of a live allocation; nothing is read then.
    pub fn read(&self, address: u64, bytes: &mut [u8]) -> Result<Option<u64>, MemoryFault> {
        self.check(address, bytes.len() as u64)?;
        // SAFETY: checked above.
        unsafe { bytes.as_mut_ptr().copy_from(address as *const u8, bytes.len()) };
        Ok(self.first_not_initialised(address, bytes.len() as u64))
    }

    /// Repeats `pattern` (1, 2 or 4 bytes) `count` times.
    ///
    /// # Errors
    /// When some byte is not part of a live allocation; nothing is written then.
    pub fn fill(&self, address: u64, pattern: &[u8], count: u64) -> Result<(), MemoryFault> {
        let bytes = count.checked_mul(pattern.len() as u64).ok_or_else(|| self.fault_at(address))?;
        self.check(address, bytes)?;
        if let [byte] = pattern {
            // SAFETY: checked above.
            unsafe { (address as *mut u8).write_bytes(*byte, bytes as usize) };
        } else {
            for i in 0..count {
                let to = (address + i * pattern.len() as u64) as *mut u8;
                // SAFETY: checked above.
                unsafe { to.copy_from(pattern.as_ptr(), pattern.len()) };
            }
        }
        self.mark_initialised(address, bytes);
        Ok(())
    }

    /// Device to device; the ranges may overlap. What was uninitialised stays so at its new place.
    ///
    /// # Errors
    /// When some byte of either side is not part of a live allocation; nothing is written then.
    pub fn copy(&self, to: u64, from: u64, bytes: u64) -> Result<(), MemoryFault> {
        self.check(to, bytes)?;
        self.check(from, bytes)?;
        // SAFETY: both checked above; `copy_from` allows overlap.
        unsafe { (to as *mut u8).copy_from(from as *const u8, bytes as usize) };
        match (self.offset(to), self.offset(from)) {
            (Some(to), Some(from)) => self.arena.shadow().copy_initialised(to, from, bytes),
            _ => self.mark_initialised(to, bytes),
        }
        Ok(())
    }

    /// That all these bytes belong to one live allocation or to registered host memory.
    ///
    /// # Errors
    /// [`MemoryFault::OutOfBounds`] or [`MemoryFault::UseAfterFree`], for the first byte that does not.
    pub fn check(&self, address: u64, bytes: u64) -> Result<(), MemoryFault> {
        if bytes == 0 || self.is_registered(address, bytes) {
            return Ok(());
        }
        let Some(offset) = self.offset(address) else { return Err(self.fault_at(address)) };
        match self.arena.shadow().first_not_addressable(offset, bytes) {
            None => Ok(()),
            Some(bad) => Err(self.fault_at(self.arena.base() + bad)),
        }
    }

    /// What is wrong with an address that may not be touched.
    pub fn fault_at(&self, address: u64) -> MemoryFault {
        let base = self.arena.base();
        let allocator = self.lock();
        let offset = address.wrapping_sub(base);
        match allocator.freed_containing(offset) {
            Some(freed) => MemoryFault::UseAfterFree { address, allocation: (base + freed.offset, freed.bytes) },
            None => {
                // An address below the arena is nearest to its first allocation, one above to its last.
                let offset = address.clamp(base, base + self.arena.length()) - base;
                let nearest = allocator.nearest(offset).map(|s| (base + s.offset, s.bytes));
                MemoryFault::OutOfBounds { address, nearest }
            }
        }
    }

    /// The live allocation that holds an address: where it begins and its length.
    pub fn allocation(&self, address: u64) -> Option<(u64, u64)> {
        let base = self.arena.base();
        self.lock().containing(address.checked_sub(base)?).map(|s| (base + s.offset, s.bytes))
    }

    /// All live allocations by address: where each begins and its length.
    pub fn allocations(&self) -> Vec<(u64, u64)> {
        let base = self.arena.base();
        self.lock().live().map(|s| (base + s.offset, s.bytes)).collect()
    }

    /// The first of these bytes that was never written. They must be addressable.
    pub fn first_not_initialised(&self, address: u64, bytes: u64) -> Option<u64> {
        let offset = self.offset(address)?;
        self.arena.shadow().first_not_initialised(offset, bytes).map(|at| self.arena.base() + at)
    }

    /// Marks bytes as written. They must be addressable.
    pub fn mark_initialised(&self, address: u64, bytes: u64) {
        if let Some(offset) = self.offset(address) {
            self.arena.shadow().set_initialised(offset, bytes);
        }
    }

    /// Whether kernels may address any memory of the host.
    pub fn has_registered(&self) -> bool {
        !self.registered.lock().unwrap_or_else(|e| e.into_inner()).is_empty()
    }

    /// Whether all these bytes are registered memory of the host.
    pub fn is_registered(&self, address: u64, bytes: u64) -> bool {
        self.offset(address).is_none()
            && self.registered.lock().unwrap_or_else(|e| e.into_inner()).iter().any(|(start, length)| {
                address >= *start && address.checked_add(bytes).is_some_and(|end| end <= start + length)
            })
    }

    /// Bytes free and in all.
    pub fn free_and_total(&self) -> (u64, u64) {
        let allocator = self.lock();
        (allocator.capacity() - allocator.used(), allocator.capacity())
    }

    /// Notes that bytes have been used, for [`Self::take_uses`].
    pub fn note_use(&self, address: u64, bytes: u64, written: bool) {
        self.touched.note(address.wrapping_sub(self.arena.base()), bytes, written);
    }

    /// What was noted since it was last taken, with the allocation that it lies in. Not while a kernel runs.
    pub fn take_uses(&self) -> Vec<(u64, Stretch)> {
        let base = self.arena.base();
        let mut uses = Vec::new();
        for (start, bytes) in self.allocations() {
            let taken = self.touched.take(base, start - base, start - base + bytes);
            uses.extend(taken.into_iter().map(|stretch| (start, stretch)));
        }
        self.touched.forget_regions();
        uses
    }

    /// What a check needs in the midst of a launch.
    pub fn view(&self) -> View {
        View { base: self.arena.base(), length: self.arena.length(), shadow: self.arena.shadow() }
    }

    fn offset(&self, address: u64) -> Option<u64> {
        address.checked_sub(self.arena.base()).filter(|offset| *offset < self.arena.length())
    }

    fn pointer(&self, offset: u64) -> *mut u8 {
        (self.arena.base() + offset) as *mut u8
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Allocator> {
        self.allocator.lock().unwrap_or_else(|e| e.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_back_and_what_was_not_written_is_told() {
        let memory = GlobalMemory::new(1 << 20).unwrap();
        let a = memory.allocate(10).unwrap();
        memory.write(a, &[1, 2, 3]).unwrap();
        let mut back = [0; 4];
        assert_eq!(memory.read(a, &mut back), Ok(Some(a + 3)));
        assert_eq!(back, [1, 2, 3, POISON]);
        memory.fill(a + 4, &[7, 8], 3).unwrap();
        let b = memory.allocate(10).unwrap();
        memory.copy(b, a, 10).unwrap();
        let mut back = [0; 10];
        assert_eq!(memory.read(b, &mut back), Ok(Some(b + 3)));
        assert_eq!(back, [1, 2, 3, POISON, 7, 8, 7, 8, 7, 8]);
    }

    #[test]
    fn what_lies_outside_is_refused_and_named() {
        let memory = GlobalMemory::new(1 << 20).unwrap();
        assert!(matches!(memory.write(16, &[0]), Err(MemoryFault::OutOfBounds { address: 16, nearest: None })));
        let a = memory.allocate(10).unwrap();
        let fault = memory.write(a + 8, &[0; 3]).unwrap_err();
        assert_eq!(fault, MemoryFault::OutOfBounds { address: a + 10, nearest: Some((a, 10)) });
        assert!(fault.to_string().contains("0 bytes after the end of one of 10 bytes"), "{fault}");
        let fault = memory.read(a - 2, &mut [0; 4]).unwrap_err();
        assert!(fault.to_string().contains("2 bytes before one of 10 bytes"), "{fault}");
        memory.free(a).unwrap();
        let fault = memory.fill(a, &[0], 1).unwrap_err();
        assert_eq!(fault, MemoryFault::UseAfterFree { address: a, allocation: (a, 10) });
        assert_eq!(memory.free(a), Err(MemoryFault::FreedTwice { address: a }));
        assert_eq!(memory.free(a + 1), Err(MemoryFault::NotAnAllocation { address: a + 1 }));
    }

    #[test]
    fn host_memory_is_addressable_while_registered() {
        let memory = GlobalMemory::new(1 << 20).unwrap();
        let host = [5u8; 16];
        let address = host.as_ptr() as u64;
        // SAFETY: `host` lives to the end of the test.
        unsafe { memory.register_host(address, 16) };
        let mut back = [0; 16];
        assert_eq!(memory.read(address, &mut back), Ok(None));
        assert_eq!(back, host);
        assert!(memory.check(address, 17).is_err());
        assert!(memory.unregister_host(address));
        assert!(memory.check(address, 1).is_err());
    }

    #[test]
    fn uses_are_told_by_allocation() {
        let memory = GlobalMemory::new(1 << 20).unwrap();
        let (a, b) = (memory.allocate(1000).unwrap(), memory.allocate(1000).unwrap());
        memory.note_use(a, 128, false);
        memory.note_use(b, 4, true);
        memory.note_use(b + 8, 4, true);
        // Outside the arena: registered memory of the host.
        memory.note_use(64, 4, true);
        let stretch = |start, end, written| Stretch { start, end, written };
        let expected =
            [(a, stretch(a, a + 128, false)), (b, stretch(b, b + 4, true)), (b, stretch(b + 8, b + 12, true))];
        assert_eq!(memory.take_uses(), expected);
        assert_eq!(memory.take_uses(), []);
    }

    #[test]
    fn the_capacity_is_kept() {
        let memory = GlobalMemory::new(1 << 20).unwrap();
        let a = memory.allocate(1 << 20).unwrap();
        assert_eq!(memory.allocate(1), None);
        assert_eq!(memory.free_and_total(), (0, 1 << 20));
        memory.free(a).unwrap();
        assert!(memory.allocate(1 << 20).is_some());
    }
}
