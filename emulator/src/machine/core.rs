//! What the warps of a block share, and what all blocks of a launch share.

use std::cell::RefCell;

use super::barrier::BarrierState;
use super::copy::Copies;
use super::lanes::Row;
use super::local::SharedMemory;
use super::mbarrier_state::Barriers;
use super::observe::{Observer, Records};
use super::trouble::{Noted, Outcome, Trouble};
use super::{Launch, LoadedModule};
use crate::decode::op::Op;
use crate::decode::{Module, SharedVariable};
use crate::memory::{GlobalMemory, View};
use crate::settings::{Findings, Settings, Watch};
use crate::watch::{FindingKind, Space};

/// Generic addresses of shared memory begin here. No address of a process is that high.
pub const SHARED_WINDOW: u64 = 1 << 56;
/// Generic addresses of local memory begin here.
pub const LOCAL_WINDOW: u64 = 2 << 56;
/// Generic addresses of a kernel's parameters begin here.
pub const PARAMETER_WINDOW: u64 = 3 << 56;
/// Addresses of functions begin here.
pub const FUNCTION_WINDOW: u64 = 4 << 56;
/// Generic addresses of constant memory begin here.
pub const CONSTANT_WINDOW: u64 = 5 << 56;

/// A launch, as its blocks see it.
#[derive(Debug)]
pub struct Grid<'a> {
    /// The code.
    pub module: &'a Module,
    /// Its constants, each a row or two.
    pub constants: &'a [Row],
    /// Constant memory: its address and its bytes.
    pub constant_bank: (u64, u64),
    /// The device's memory.
    pub memory: &'a GlobalMemory,
    /// What checks of it need.
    pub view: View,
    /// The launch.
    pub launch: &'a Launch<'a>,
    /// The kernel, among the module's functions.
    pub function: u32,
    /// The parameter buffer, aligned, with some bytes to spare.
    pub parameters: Vec<u64>,
    /// How to run.
    pub settings: &'a Settings,
    /// What a shadow byte must have at least: [`crate::memory::FINE`], or without checks of initialisation less.
    pub need: u8,
    /// The parts of a block's shared memory: static variables, dynamic bytes, what is reserved for the system.
    pub shared_ranges: Vec<std::ops::Range<u32>>,
    /// Where the reserved part begins; 0 if the kernel does not use it.
    pub reserved_shared: u32,
    /// Where the last of them ends.
    pub shared_bytes: u32,
    /// What watching and counting record of all blocks.
    pub records: Records,
    /// Room for the barrier of a cooperative launch; 0 for other launches.
    pub workspace: u64,
}

impl<'a> Grid<'a> {
    /// Prepares a launch. With `undo`, what it writes can be put back while races are watched.
    pub fn new(
        loaded: &'a LoadedModule,
        launch: &'a Launch<'a>,
        memory: &'a GlobalMemory,
        settings: &'a Settings,
        undo: bool,
    ) -> Self {
        let module: &Module = loaded.module();
        let mut parameters = vec![0u64; launch.parameters.len() / 8 + 5];
        for (i, byte) in launch.parameters.iter().enumerate() {
            parameters[i / 8] |= u64::from(*byte) << (i % 8 * 8);
        }
        let mut shared_ranges = launch.kernel.shared_ranges(launch.dynamic_shared);
        let reserved = launch.kernel.reserved_range(launch.dynamic_shared);
        shared_ranges.extend(reserved.clone());
        Grid {
            module,
            constants: loaded.constants(),
            constant_bank: loaded.constant_bank(),
            memory,
            view: memory.view(),
            records: Records::new(settings, &memory.view(), undo),
            launch,
            function: launch.kernel.function,
            parameters,
            settings,
            need: if settings.watch == Watch::Off { 0x0F } else { 0xFF },
            shared_bytes: shared_ranges.iter().map(|range| range.end).max().unwrap_or(0),
            shared_ranges,
            reserved_shared: reserved.map_or(0, |range| range.start),
            workspace: 0,
        }
    }
}

/// What the warps of a block share while it runs.
#[derive(Debug)]
pub struct Core<'a> {
    /// The launch.
    pub grid: &'a Grid<'a>,
    /// The block's place in the grid.
    pub block: [u32; 3],
    /// Shared memory.
    pub shared: SharedMemory,
    /// Threads that have not exited.
    pub live: u32,
    /// Its barriers.
    pub barriers: [BarrierState; 16],
    /// How often a barrier has completed, whichever.
    pub completions: u64,
    /// How often something has changed that others may wait for.
    pub progress: u64,
    /// How often it has heard something new of other blocks: read another value than before where it asks again and again, or
    /// changed something by an atomic.
    pub news: u64,
    /// Strong reads in this run that a loop which waits for another block would make.
    pub polls: u32,
    /// Warp instructions that it may still execute.
    pub budget: u64,
    /// What `%clock` reads: warp instructions executed.
    pub clock: u64,
    /// Copies under way, by warp.
    pub copies: Vec<Copies>,
    /// Its mbarriers.
    pub mbarriers: Barriers,
    /// What was printed.
    pub printed: String,
    /// The warp and the operation that are executed.
    pub at: (u32, u32),
    /// What was found and did not end the block.
    pub noted: RefCell<Vec<Noted>>,
    /// For each operation: times issued, and active lanes, when the launch is counted.
    pub counts: Option<Vec<[u64; 2]>>,
    /// What watching and counting record, when either is on.
    pub observer: Option<Box<Observer>>,
}

/// Memory that is addressed by one number: the data, and the shadow of each word.
#[derive(Clone, Copy, Debug)]
pub struct Region {
    /// The space.
    pub space: Space,
    /// The address of the first byte, as the kernel sees it.
    pub base: u64,
    /// Bytes.
    pub length: u64,
    /// The first byte.
    pub data: *mut u8,
    /// The shadow byte of the first word; null if all bytes are fine.
    pub shadow: *mut u8,
}

/// State spaces as operations name them, in the low bits of [`Op::y`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs, reason = "the names of PTX")]
pub enum OpSpace {
    Generic,
    Global,
    Shared,
    Local,
    /// A kernel's parameters.
    Parameter,
    /// The module's constants.
    Constant,
}

impl Core<'_> {
    /// The memory behind a space, by addresses of that space.
    ///
    /// # Panics
    /// For generic and local, which are no single memory.
    #[inline(always)]
    pub fn region(&mut self, space: OpSpace) -> Region {
        match space {
            OpSpace::Global => {
                let view = &self.grid.view;
                // SAFETY: offset 0 is within the shadow.
                let shadow = unsafe { view.shadow.pointer(0) };
                Region {
                    space: Space::Global,
                    base: view.base,
                    length: view.length,
                    data: view.base as *mut u8,
                    shadow,
                }
            }
            OpSpace::Shared => {
                // SAFETY: offset 0 is within the shadow, which has a byte to spare.
                let shadow = unsafe { self.shared.shadow().pointer(0) };
                let length = self.shared.length().into();
                Region { space: Space::Shared, base: 0, length, data: self.shared.data(), shadow }
            }
            OpSpace::Parameter => Region {
                space: Space::Parameter,
                base: 0,
                length: self.grid.launch.parameters.len() as u64,
                data: self.grid.parameters.as_ptr().cast_mut().cast(),
                shadow: std::ptr::null_mut(),
            },
            OpSpace::Constant => {
                let (bank, length) = self.grid.constant_bank;
                let view = &self.grid.view;
                // SAFETY: the bank is an allocation of the arena; without one, the shadow's first byte is as good as any.
                let shadow = unsafe { view.shadow.pointer(if length > 0 { bank - view.base } else { 0 }) };
                Region { space: Space::Constant, base: 0, length, data: bank as *mut u8, shadow }
            }
            OpSpace::Generic | OpSpace::Local => unreachable!("no single memory"),
        }
    }

    /// The space that a generic address falls into.
    #[inline(always)]
    pub fn space_of(address: u64) -> OpSpace {
        match address >> 56 {
            0 => OpSpace::Global,
            1 => OpSpace::Shared,
            2 => OpSpace::Local,
            3 => OpSpace::Parameter,
            5 => OpSpace::Constant,
            _ => OpSpace::Global,
        }
    }

    /// What is wrong with an access of one lane, if anything is: `address` in the region's own terms.
    pub fn explain(
        &self,
        region: &Region,
        lane: u32,
        address: u64,
        bytes: u64,
        align: u64,
        need: u8,
        verb: &str,
    ) -> Outcome {
        let space = region.space;
        let name = format!("{space:?}").to_lowercase();
        if !address.is_multiple_of(align) {
            let message =
                format!("{verb} {bytes} bytes of {name} memory at {address:#x}, which is no multiple of {align}");
            return Err(Trouble::at_address(FindingKind::Misaligned, lane, space, address, message));
        }
        if space == Space::Global {
            if let Err(fault) = self.grid.memory.check(address, bytes) {
                let message = format!("{verb} {bytes} bytes of global memory out of bounds: {fault}");
                return Err(Trouble::at_address(FindingKind::OutOfBounds, lane, space, address, message));
            }
            let bad = if need & 0xF0 != 0 { self.grid.memory.first_not_initialised(address, bytes) } else { None };
            return match bad {
                None => Ok(()),
                Some(bad) => {
                    let within = match self.grid.memory.allocation(bad) {
                        Some((start, length)) => format!(" (byte {} of an allocation of {length})", bad - start),
                        None => String::new(),
                    };
                    let message = format!("{verb} uninitialised global memory at {bad:#x}{within}");
                    Err(Trouble::at_address(FindingKind::Uninitialised, lane, space, bad, message))
                }
            };
        }
        if address.checked_add(bytes).is_none_or(|end| end > region.length) {
            let message = format!(
                "{verb} {bytes} bytes of {name} memory at {address:#x}, out of bounds: {}",
                self.neighbour(region, address)
            );
            return Err(Trouble::at_address(FindingKind::OutOfBounds, lane, space, address, message));
        }
        if space == Space::Shared {
            // SAFETY: the region's shadow covers its length.
            let shadow = unsafe { crate::memory::Shadow::new(region.shadow, region.length) };
            if let Some(bad) = shadow.first_not_addressable(address, bytes) {
                let near = self.neighbour(region, bad);
                let message = format!("{verb} {bytes} bytes of shared memory at {address:#x}, out of bounds: {near}");
                return Err(Trouble::at_address(FindingKind::OutOfBounds, lane, space, bad, message));
            }
        }
        if region.shadow.is_null() || need & 0xF0 == 0 {
            return Ok(());
        }
        // SAFETY: the region's shadow covers its length.
        let shadow = unsafe { crate::memory::Shadow::new(region.shadow, region.length) };
        let Some(bad) = shadow.first_not_initialised(address, bytes) else { return Ok(()) };
        let copies = self.copies.iter().enumerate().find_map(|(w, c)| c.covering(bad as u32).map(|pc| (w, pc)));
        if let Some((warp, pc)) = copies.or_else(|| self.mbarriers.covering(bad)) {
            let message = format!(
                "{verb} shared memory at {bad:#x} while a cp.async of warp {warp} that writes it has not been waited for"
            );
            let mut trouble = Trouble::at_address(FindingKind::InFlight, lane, space, bad, message);
            trouble.other = Some(pc);
            return Err(trouble);
        }
        let message = format!("{verb} uninitialised {name} memory at {bad:#x}");
        Err(Trouble::at_address(FindingKind::Uninitialised, lane, space, bad, message))
    }

    /// What an address that belongs to nothing lies behind.
    fn neighbour(&self, region: &Region, address: u64) -> String {
        let kernel = self.grid.launch.kernel;
        let before = kernel.shared_variables.iter().filter(|variable| u64::from(variable.at) <= address);
        let dynamic = self.grid.launch.dynamic_shared;
        let name = |variable: &SharedVariable| format!("{} has {} bytes", variable.name, variable.bytes);
        match before.max_by_key(|variable| variable.at) {
            _ if region.space != Space::Shared => format!("there are {} bytes", region.length),
            _ if dynamic > 0 && address >= kernel.dynamic_shared_base.into() => {
                format!("the launch has {dynamic} bytes of dynamic shared memory")
            }
            Some(variable) => format!("{}, from {:#x}", name(variable), variable.at),
            None if region.length == 0 => "the block has no shared memory".into(),
            None => format!("no variable is there; there are {} bytes", region.length),
        }
    }

    /// Trouble of the operation that is executed: noted where the settings ask for all there is and the block can go on.
    ///
    /// # Errors
    /// Otherwise, the trouble.
    #[cold]
    pub fn note(&self, trouble: Box<Trouble>) -> Outcome {
        if self.grid.settings.findings == Findings::First || !trouble.is_harmless() {
            return Err(trouble);
        }
        let (warp, pc) = self.at;
        let new = Noted { warp, pc, trouble, times: 1 };
        let mut noted = self.noted.borrow_mut();
        match noted.iter_mut().find(|known| known.key() == new.key()) {
            Some(known) => known.times += 1,
            None => noted.push(new),
        }
        Ok(())
    }

    /// The operands of an operation that are listed.
    #[inline(always)]
    pub fn listed(&self, op: &Op, count: usize) -> &[u32] {
        &self.grid.module.operands[op.list as usize..][..count]
    }
}
