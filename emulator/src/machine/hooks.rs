//! Where watching and counting look on: one call for each access, barrier and fence. Switched off, each costs one branch
//! that is always predicted.

use super::access::Order;
use super::core::{Core, Region};
use super::elements::Element;
use super::observe::Made;
use super::trouble::Outcome;
use super::warp::Warp;
use crate::count::traffic::Flow;
use crate::watch::Space;
use crate::watch::race::Kind;

/// What nobody stored: for accesses of which no store can be forgiven for changing nothing.
const UNKNOWN: &dyn Fn(u32, u64) -> (u32, u32) = &|_, _| (0, 1);

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
    let Some(observer) = &mut core.observer else { return Ok(()) };
    let (kind, flow) = if write { (Kind::Write, Flow::Store) } else { (Kind::Read, Flow::Load) };
    let (warp, pc, flow) = (warp.index, warp.pc, Some(flow));
    observer.access(core.grid, &Made { warp, pc, space, kind, flow, order, mask, addresses, bytes }, UNKNOWN)
}

/// A store that is about to be made: `value(element, lane)` is what it puts into the elements of type `E`.
#[inline(always)]
pub fn stores<E: Element>(
    core: &mut Core<'_>,
    warp: &Warp,
    region: &Region,
    order: Order,
    mask: u32,
    addresses: &[u64; 32],
    bytes: u64,
    value: impl Fn(usize, usize) -> E::Register,
) -> Outcome {
    let Some(observer) = &mut core.observer else { return Ok(()) };
    let (warp, pc, space, kind, flow) = (warp.index, warp.pc, region.space, Kind::Write, Some(Flow::Store));
    let made = Made { warp, pc, space, kind, flow, order, mask, addresses, bytes };
    observer.access(core.grid, &made, &|lane, word| {
        let address = addresses[lane as usize];
        // SAFETY: the word holds bytes of an access that has been checked, and regions consist of whole words.
        let old =
            unsafe { region.data.wrapping_add((word * 4).wrapping_sub(region.base) as usize).cast::<u32>().read() };
        let new =
            (0..4).filter(|byte| (address..address + bytes).contains(&(word * 4 + byte))).fold(old, |new, byte| {
                let offset = word * 4 + byte - address;
                let (element, within) = (offset / u64::from(E::BYTES), offset % u64::from(E::BYTES));
                let bits = E::bits(value(element as usize, lane as usize)) >> (8 * within) & 0xff;
                new & !(0xff << (8 * byte)) | (bits as u32) << (8 * byte)
            });
        (new, old)
    })
}

/// A `cp.async` begins: it reads global memory, or it is going to write shared memory.
#[inline(always)]
pub fn copies(core: &mut Core<'_>, warp: &Warp, space: Space, mask: u32, addresses: &[u64; 32], bytes: u64) -> Outcome {
    let Some(observer) = &mut core.observer else { return Ok(()) };
    let global = space == Space::Global;
    let (kind, flow) = if global { (Kind::Read, Some(Flow::Copy)) } else { (Kind::Write, None) };
    let (warp, pc, order) = (warp.index, warp.pc, Order::Weak);
    observer.access(core.grid, &Made { warp, pc, space, kind, flow, order, mask, addresses, bytes }, UNKNOWN)
}

/// A `cp.async` of the operation at `pc` has written shared memory. Counted, and unless it is known already `recorded`.
#[inline(always)]
pub fn lands(
    core: &mut Core<'_>,
    warp: u32,
    pc: u32,
    mask: u32,
    addresses: &[u64; 32],
    bytes: u64,
    recorded: bool,
) -> Outcome {
    let Some(observer) = &mut core.observer else { return Ok(()) };
    if !recorded {
        if let Some(traffic) = &mut observer.traffic {
            traffic.shared(Flow::Store, mask, addresses, bytes);
        }
        return Ok(());
    }
    let (space, kind, flow, order) = (Space::Shared, Kind::Write, Some(Flow::Store), Order::Weak);
    observer.access(core.grid, &Made { warp, pc, space, kind, flow, order, mask, addresses, bytes }, UNKNOWN)
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
    let Some(observer) = &mut core.observer else { return Ok(()) };
    let (warp, pc, kind, flow) = (warp.index, warp.pc, Kind::Update, Some(Flow::Atomic));
    observer.access(core.grid, &Made { warp, pc, space, kind, flow, order, mask, addresses, bytes }, UNKNOWN)
}

/// A warp arrives at a barrier; if it `waits`, with all its lanes.
#[inline(always)]
pub fn barrier_arrives(core: &mut Core<'_>, warp: &Warp, barrier: u32, waits: bool) {
    if let Some(observer) = &mut core.observer {
        observer.order(|clock| clock.arrive(warp.index, barrier, waits));
    }
}

/// A barrier completes.
#[inline(always)]
pub fn barrier_completes(core: &mut Core<'_>, barrier: u32) {
    if let Some(observer) = &mut core.observer {
        observer.order(|clock| clock.complete(barrier));
    }
}

/// A warp goes on after a barrier that has completed.
#[inline(always)]
pub fn barrier_leaves(core: &mut Core<'_>, warp: &Warp, barrier: u32) {
    if let Some(observer) = &mut core.observer {
        observer.order(|clock| clock.leave(warp.index, barrier));
    }
}

/// All lanes of a warp have exited.
#[inline(always)]
pub fn exits(core: &mut Core<'_>, warp: &Warp) {
    if let Some(observer) = &mut core.observer {
        observer.exit(warp.index);
    }
}

/// The lanes of `mask` have met at a `bar.warp.sync`.
#[inline(always)]
pub fn meets(core: &mut Core<'_>, warp: &Warp, mask: u32) {
    if let Some(observer) = &mut core.observer {
        observer.order(|clock| clock.meet(warp.index, mask, warp.live));
    }
}

/// Lanes of a warp part ways at a branch.
#[inline(always)]
pub fn diverges(core: &mut Core<'_>) {
    if let Some(traffic) = core.observer.as_mut().and_then(|observer| observer.traffic.as_mut()) {
        traffic.divergent_branches += 1;
    }
}

/// `membar`, `fence` of a scope: 0 block, 1 cluster, 2 device, 3 system.
#[inline(always)]
pub fn fence(core: &mut Core<'_>, warp: &Warp, scope: u64) {
    if let Some(observer) = &mut core.observer {
        observer.order(|clock| clock.fence(warp.index, scope >= 2));
    }
}
