//! Where watching and counting look on: one call for each access, barrier and fence. Switched off, each costs one branch
//! that is always predicted.

use super::access::Order;
use super::core::Core;
use super::trouble::Outcome;
use super::warp::Warp;
use crate::watch::Space;

/// An access of the lanes of `mask` to global, shared or parameter memory, `bytes` bytes each, at addresses of that space.
#[inline(always)]
pub fn access(
    core: &mut Core<'_>,
    warp: &mut Warp,
    space: Space,
    write: bool,
    order: Order,
    mask: u32,
    addresses: &[u64; 32],
    bytes: u64,
) -> Outcome {
    let _ = (core, warp, space, write, order, mask, addresses, bytes);
    Ok(())
}

/// A `cp.async` of the operation at `pc` has written shared memory.
#[inline(always)]
pub fn lands(core: &mut Core<'_>, warp: &mut Warp, pc: u32, mask: u32, addresses: &[u64; 32], bytes: u64) -> Outcome {
    let _ = (core, warp, pc, mask, addresses, bytes);
    Ok(())
}

/// The lanes of `mask` arrive at a barrier.
#[inline(always)]
pub fn barrier_arrives(core: &mut Core<'_>, warp: &Warp, barrier: u32, mask: u32) {
    let _ = (core, warp, barrier, mask);
}

/// The lanes of `mask` go on after a barrier that has completed.
#[inline(always)]
pub fn barrier_leaves(core: &mut Core<'_>, warp: &Warp, barrier: u32, mask: u32) {
    let _ = (core, warp, barrier, mask);
}

/// The lanes of `mask` have met at a `bar.warp.sync`.
#[inline(always)]
pub fn meets(core: &mut Core<'_>, warp: &Warp, mask: u32) {
    let _ = (core, warp, mask);
}

/// Lanes of a warp part ways at the branch at `pc`.
#[inline(always)]
pub fn diverges(core: &mut Core<'_>, pc: u32) {
    let _ = (core, pc);
}

/// `membar`, `fence` of a scope: 0 block, 1 cluster, 2 device, 3 system.
#[inline(always)]
pub fn fence(core: &mut Core<'_>, warp: &Warp, scope: u64, mask: u32) {
    let _ = (core, warp, scope, mask);
}

/// An atomic operation of the lanes of `mask`.
#[inline(always)]
pub fn atomic(
    core: &mut Core<'_>,
    warp: &mut Warp,
    space: Space,
    order: Order,
    mask: u32,
    addresses: &[u64; 32],
    bytes: u64,
) -> Outcome {
    let _ = (core, warp, space, order, mask, addresses, bytes);
    Ok(())
}

/// A warp has multiplied matrices.
#[inline(always)]
pub fn multiplies(grid: &super::core::Grid<'_>, warp: &Warp, shape: crate::tensor::mma::Mma) {
    let _ = (grid, warp, shape);
}
