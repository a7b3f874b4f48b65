//! Pinned memory on the way to the GPU: what is uploaded is copied there first, and the upload itself goes on beside whatever the
//! host does next.

use super::{Gpu, failed};
use crate::error::Result;
use cudarc::driver::{CudaEvent, DriverError, PinnedHostSlice, result};

/// Uploads that may be under way: two batches of tokens, conditions, channels and subjects.
const SLOTS: usize = 8;

/// What is larger goes the ordinary way: parameters, once in a run.
const LARGEST: usize = 1 << 24;

/// Slots of pinned memory, used in turn.
#[derive(Default)]
pub struct Staging {
    slots: [Option<Slot>; SLOTS],
    next: usize,
}

struct Slot {
    pinned: PinnedHostSlice<u8>,
    /// Comes when what is in the slot has been copied from there.
    copied: CudaEvent,
}

impl Slot {
    fn new(gpu: &Gpu, len: usize) -> std::result::Result<Self, DriverError> {
        let context = gpu.stream().context();
        // SAFETY: nothing is read from it but what has been written before.
        let pinned = unsafe { context.alloc_pinned::<u8>(len) }?;
        Ok(Self { pinned, copied: context.new_event(None)? })
    }

    fn upload(&mut self, gpu: &Gpu, to: u64, from: &[u8]) -> std::result::Result<(), DriverError> {
        self.copied.synchronize()?;
        let pinned = &mut self.pinned.as_mut_slice()?[..from.len()];
        pinned.copy_from_slice(from);
        // SAFETY: the caller's; and the slot is not touched again before the event.
        unsafe { result::memcpy_htod_async(to, pinned, gpu.stream().cu_stream()) }?;
        self.copied.record(gpu.stream())
    }
}

impl Drop for Slot {
    /// What is in the slot may still be on its way.
    fn drop(&mut self) {
        // Where the GPU has failed nothing is on its way any more.
        let _ = self.copied.synchronize();
    }
}

impl Staging {
    /// Copies bytes to an address of the GPU; they may change as soon as this returns.
    ///
    /// # Safety
    /// So many bytes are there.
    pub unsafe fn upload(&mut self, gpu: &Gpu, to: u64, from: &[u8]) -> Result<()> {
        // Whichever thread has the device now.
        let bound = gpu.stream().context().bind_to_thread();
        let uploaded = bound.and_then(|()| match from.len() {
            // SAFETY: the caller's. The driver takes pageable memory before it returns.
            LARGEST.. => unsafe { result::memcpy_htod_async(to, from, gpu.stream().cu_stream()) },
            _ => self.through_slot(gpu, to, from),
        });
        uploaded.map_err(|error| failed(&format!("copy {} bytes to the GPU", from.len()), error))
    }

    fn through_slot(&mut self, gpu: &Gpu, to: u64, from: &[u8]) -> std::result::Result<(), DriverError> {
        let slot = &mut self.slots[self.next];
        self.next = (self.next + 1) % SLOTS;
        if slot.as_ref().is_none_or(|slot| slot.pinned.len() < from.len()) {
            *slot = Some(Slot::new(gpu, from.len().next_power_of_two())?);
        }
        slot.as_mut().expect("made above").upload(gpu, to, from)
    }
}
