//! What the program allocated, and how: the device's memory knows addresses, this knows their meaning to the driver.

use std::collections::BTreeMap;

use super::error::{Outcome, Status, fail, invalid};
use super::handle::Serial;
use super::state::{Driver, Locked};
use crate::memory::GlobalMemory;

/// How memory came to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// `cuMemAlloc`.
    Device,
    /// `cuMemAllocAsync`, from a pool.
    StreamOrdered {
        /// The pool.
        pool: Serial,
        /// A graph's: its address is kept when it is freed, for the next launch.
        of_graph: bool,
        /// Whether the allocation has happened in its stream's order, and its free has not.
        usable: bool,
        /// Whether a free has been submitted.
        freed: bool,
    },
    /// `cuMemHostAlloc`.
    Pinned {
        /// Flags of the call.
        flags: u32,
    },
    /// `cuMemHostRegister`.
    Registered {
        /// Flags of the call.
        flags: u32,
    },
    /// `cuMemAllocManaged`.
    Managed,
}

/// Memory that the program asked for.
#[derive(Clone, Copy, Debug)]
pub struct Allocation {
    /// Its length as asked for.
    pub bytes: u64,
    /// The context that it belongs to.
    pub context: Serial,
    /// How it came to be.
    pub origin: Origin,
}

/// All live allocations, by their first address.
#[derive(Debug, Default)]
pub struct Allocations {
    live: BTreeMap<u64, Allocation>,
}

impl Allocations {
    /// Remembers memory.
    pub fn insert(&mut self, address: u64, allocation: Allocation) {
        self.live.insert(address, allocation);
    }

    /// Forgets memory.
    pub fn remove(&mut self, address: u64) -> Option<Allocation> {
        self.live.remove(&address)
    }

    /// The allocation that begins at an address.
    pub fn at(&self, address: u64) -> Option<&Allocation> {
        self.live.get(&address)
    }

    /// The allocation that begins at an address, to change it.
    pub fn at_mut(&mut self, address: u64) -> Option<&mut Allocation> {
        self.live.get_mut(&address)
    }

    /// The allocation that holds an address, and where it begins.
    pub fn containing(&self, address: u64) -> Option<(u64, &Allocation)> {
        let (start, allocation) = self.live.range(..=address).next_back()?;
        (address - start < allocation.bytes.max(1)).then_some((*start, allocation))
    }

    /// Whether an address is memory of the host that the device can reach: pinned, registered or managed.
    pub fn host_visible(&self, address: u64) -> bool {
        let origin = self.containing(address).map(|(_, allocation)| allocation.origin);
        matches!(origin, Some(Origin::Pinned { .. } | Origin::Registered { .. } | Origin::Managed))
    }

    /// Where the allocations of a context begin.
    pub fn of_context(&self, context: Serial) -> Vec<u64> {
        self.live.iter().filter(|(_, a)| a.context == context).map(|(address, _)| *address).collect()
    }

    /// Bytes taken from a pool.
    pub fn used_of_pool(&self, serial: Serial) -> u64 {
        let of_pool = |a: &&Allocation| matches!(a.origin, Origin::StreamOrdered { pool, .. } if pool == serial);
        self.live.values().filter(of_pool).map(|a| a.bytes).sum()
    }

    /// An address in words.
    pub fn describe(&self, memory: &GlobalMemory, address: u64) -> String {
        match memory.allocation(address) {
            Some((start, bytes)) => {
                format!("address {address:#x}, byte {} of an allocation of {bytes} bytes", address - start)
            }
            None => format!("address {address:#x}"),
        }
    }

    /// What the driver knows about an address that could not be used.
    pub fn hint(&self, address: u64) -> Option<String> {
        let (start, allocation) = self.containing(address)?;
        match allocation.origin {
            Origin::StreamOrdered { usable: false, freed, .. } => Some(format!(
                " (byte {} of {} from cuMemAllocAsync, {} at this point: the stream that uses it does not wait for the \
                 one that {} it)",
                address - start,
                allocation.bytes,
                if freed { "freed" } else { "not yet allocated" },
                if freed { "frees" } else { "allocates" },
            )),
            _ => None,
        }
    }
}

impl Driver {
    /// Takes memory from the device.
    ///
    /// # Errors
    /// `OUT_OF_MEMORY`.
    pub fn allocate(&mut self, bytes: u64, context: Serial, origin: Origin) -> Outcome<u64> {
        let memory = self.memory()?;
        let Some(address) = memory.allocate(bytes.max(1)) else {
            let (free, total) = memory.free_and_total();
            return fail(Status::OUT_OF_MEMORY, format!("{bytes} bytes asked for, {free} of {total} are free"));
        };
        match origin {
            // What the host writes there goes unseen, so it counts as written.
            Origin::Pinned { .. } | Origin::Managed => memory.mark_initialised(address, bytes.max(1)),
            Origin::StreamOrdered { .. } => self.set_usable(&memory, address, bytes, false),
            Origin::Device | Origin::Registered { .. } => {}
        }
        self.allocations.insert(address, Allocation { bytes, context, origin });
        Ok(address)
    }

    /// Gives memory back at once.
    ///
    /// # Errors
    /// When nothing was allocated there.
    pub fn release(&mut self, address: u64) -> Outcome<()> {
        let memory = self.memory()?;
        self.queue.hazards.forget(address);
        if let Some(Allocation { origin: Origin::Registered { .. }, .. }) = self.allocations.remove(address) {
            memory.unregister_host(address);
            return Ok(());
        }
        memory.free(address).or_else(|fault| invalid(fault.to_string()))
    }

    fn set_usable(&self, memory: &GlobalMemory, address: u64, bytes: u64, usable: bool) {
        let view = memory.view();
        let (offset, bytes) = (address - view.base, bytes.max(1));
        view.shadow.set_addressable(offset, bytes, usable);
        view.shadow.clear_initialised(offset, bytes);
    }

    /// That a range can be used by an operation which is submitted now.
    ///
    /// # Errors
    /// `INVALID_VALUE`, with what lies there.
    pub fn check_range(&mut self, address: u64, bytes: u64, what: &str) -> Outcome<()> {
        if bytes == 0 {
            return Ok(());
        }
        if address.checked_add(bytes).is_none() {
            return invalid(format!("{what}: {bytes} bytes from {address:#x} wrap around the address space"));
        }
        // Stream-ordered memory may be named before it is usable.
        if let Some((start, allocation)) = self.allocations.containing(address)
            && let Origin::StreamOrdered { freed: false, .. } = allocation.origin
        {
            let end = start + allocation.bytes;
            if address + bytes <= end {
                return Ok(());
            }
            return invalid(format!("{what}: {bytes} bytes from {address:#x} end after the allocation, at {end:#x}"));
        }
        self.memory()?.check(address, bytes).or_else(|fault| invalid(format!("{what}: {fault}")))
    }
}

impl Locked {
    /// A stream-ordered allocation happens.
    pub fn begin_stream_ordered(&mut self, address: u64) -> Outcome<()> {
        let memory = self.memory()?;
        if let Some(Allocation { bytes, origin: Origin::StreamOrdered { usable, freed, of_graph, .. }, .. }) =
            self.allocations.at_mut(address)
        {
            *usable = true;
            *freed &= !*of_graph;
            let bytes = *bytes;
            self.set_usable(&memory, address, bytes, true);
        }
        Ok(())
    }

    /// A stream-ordered free happens.
    pub fn end_stream_ordered(&mut self, address: u64) -> Outcome<()> {
        let memory = self.memory()?;
        match self.allocations.at_mut(address) {
            Some(Allocation { bytes, origin: Origin::StreamOrdered { usable, of_graph: true, .. }, .. }) => {
                *usable = false;
                let bytes = *bytes;
                self.set_usable(&memory, address, bytes, false);
                Ok(())
            }
            // Its memory goes as a whole, so that its uses are told as uses after a free.
            Some(_) => self.release(address),
            None => Ok(()),
        }
    }
}
