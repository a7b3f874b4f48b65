//! How many blocks of a kernel a multiprocessor holds.
//!
//! Threads, blocks and shared memory are counted as hardware does. Registers are the weak point: PTX has virtual ones
//! only, and what an assembler would make of them is guessed at (`Kernel::registers`). The guess is kept between 16 and
//! what lets one block of the asked size run, so an answer is never 0 for a block that the kernel admits.

use super::error::{Outcome, invalid};
use super::module::Function;
use crate::target::{self, Target};

/// Registers of a thread as assumed for blocks of a size.
pub fn registers(function: &Function, threads: u32) -> u32 {
    let affordable = target::REGISTERS_PER_MULTIPROCESSOR / threads.next_multiple_of(32).max(32);
    // Registers come in eights.
    function.kernel().registers.next_multiple_of(8).max(16).min(affordable / 8 * 8).min(target::REGISTERS_PER_THREAD)
}

/// Bytes of shared memory that a resident block takes.
fn shared_footprint(bytes: u32) -> u32 {
    (bytes + target::SHARED_RESERVED_PER_BLOCK).next_multiple_of(target::SHARED_UNIT)
}

/// Resident blocks of a multiprocessor.
pub fn blocks_per_multiprocessor(function: &Function, threads: u32, dynamic_shared: u32) -> u32 {
    if threads == 0 || threads > function.max_threads() {
        return 0;
    }
    let limits = function.resident.target.limits();
    let kernel = function.kernel();
    let shared = kernel.static_shared.saturating_add(dynamic_shared);
    if shared > limits.shared_per_block_optin {
        return 0;
    }
    let warps = threads.div_ceil(32);
    let by_warps = limits.threads_per_multiprocessor / 32 / warps;
    let by_shared = limits.shared_per_multiprocessor / shared_footprint(shared);
    let per_warp = (registers(function, threads) * 32).next_multiple_of(target::REGISTER_UNIT);
    // A multiprocessor has four partitions, each with its own registers.
    let warps_by_registers = target::REGISTERS_PER_MULTIPROCESSOR / 4 / per_warp * 4;
    let by_registers = warps_by_registers / warps;
    limits.blocks_per_multiprocessor.min(by_warps).min(by_shared).min(by_registers)
}

/// Dynamic shared memory that each of so many resident blocks can have.
///
/// # Errors
/// No such number of blocks fits.
pub fn available_shared(function: &Function, blocks: u32, threads: u32) -> Outcome<u32> {
    if blocks == 0 || blocks_per_multiprocessor(function, threads, 0) < blocks {
        return invalid(format!(
            "{blocks} blocks of {threads} threads of {} do not fit a multiprocessor",
            function.name
        ));
    }
    let limits = function.resident.target.limits();
    let share = limits.shared_per_multiprocessor / blocks / target::SHARED_UNIT * target::SHARED_UNIT;
    let own = share.saturating_sub(target::SHARED_RESERVED_PER_BLOCK).min(limits.shared_per_block_optin);
    Ok(own.saturating_sub(function.kernel().static_shared))
}

/// The block size that keeps most threads resident, and the blocks that fill the device with it.
pub fn best_block(function: &Function, limit: u32, mut dynamic_shared: impl FnMut(u32) -> u32) -> (u32, u32) {
    let most = if limit == 0 { function.max_threads() } else { limit.min(function.max_threads()) };
    let mut best = (0, 0, 0);
    let sizes = std::iter::once(most).chain((1..=most / 32).rev().map(|warps| warps * 32).filter(|&size| size < most));
    for threads in sizes {
        let blocks = blocks_per_multiprocessor(function, threads, dynamic_shared(threads));
        if blocks * threads > best.0 {
            best = (blocks * threads, blocks, threads);
        }
    }
    let (_, blocks, threads) = best;
    (blocks * function.resident.target.limits().multiprocessors, threads)
}

/// What the device answers as "not so many": clusters need sm_90.
pub fn has_clusters(target: Target) -> bool {
    target >= Target::Sm90
}
