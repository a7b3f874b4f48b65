//! Races and what is none, played through on the records themselves.

mod block;
mod grid;
mod parts;
mod quick;

use super::clock::{BlockClock, Lanes};
use super::race::{Access, Kind};
use super::tag::Strength;

/// All lanes.
const ALL: u32 = u32::MAX;

/// An access of 4 bytes by each lane of the mask.
fn access(warp: u32, mask: u32, addresses: &[u64; 32], kind: Kind) -> Access<'_> {
    let strength = Strength::Weak;
    Access { warp, pc: 7 + warp, mask, addresses, bytes: 4, kind, strength, spread: false, constant: false, all: false }
}

/// All warps of a block meet at a barrier.
fn barrier(clock: &mut BlockClock, warps: u32) {
    (0..warps).for_each(|warp| clock.arrive(warp, Lanes::ALL, 0, true));
    clock.complete(0, false);
    (0..warps).for_each(|warp| clock.leave(warp, 0));
}
