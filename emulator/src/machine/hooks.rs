//! Where watching and counting look on: one call for each access, barrier and fence. Switched off, each costs one branch
//! that is always predicted.

use super::core::{Core, Region};
use super::elements::Element;
use super::modifiers::Order;
use super::observe::Made;
use super::trouble::Outcome;
use super::warp::Warp;
use crate::count::traffic::Flow;
use crate::watch::Space;
use crate::watch::clock::Lanes;
use crate::watch::race::{Kind, Stored};

/// What nobody stored: for accesses of which no store can be forgiven for changing nothing.
const UNKNOWN: &dyn Fn(u32, u64) -> (u32, u32) = &|_, _| (0, 1);

/// Judges and counts an access; a race that does not end the launch is noted.
#[inline(always)]
fn observe(core: &mut Core<'_>, made: &Made<'_>, stored: Stored) -> Outcome {
    let Some(observer) = &mut core.observer else { return Ok(()) };
    match observer.access(core.grid, made, stored) {
        Ok(()) => Ok(()),
        Err(trouble) => core.note(trouble),
    }
}

/// An access of the lanes of `mask` to global, shared or parameter memory, `bytes` bytes each, at addresses of that
/// space. A store is about to be made; one that changes nothing is not told from others.
#[inline(always)]
pub fn access(
    core: &mut Core<'_>,
    warp: &Warp,
    space: Space,
    write: bool,
    order: Order,
    mask: u32,
    addresses: &[u64; 32],
    bytes: u64,
) -> Outcome {
    let (kind, flow) = if write { (Kind::Write, Flow::Store) } else { (Kind::Read, Flow::Load) };
    let (warp, live, pc, flow) = (warp.index, warp.live, warp.pc, Some(flow));
    observe(core, &Made { warp, live, pc, space, kind, flow, order, mask, addresses, bytes, spread: false }, UNKNOWN)
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
    let (warp, live, pc, space, kind, flow) =
        (warp.index, warp.live, warp.pc, region.space, Kind::Write, Some(Flow::Store));
    let made = Made { warp, live, pc, space, kind, flow, order, mask, addresses, bytes, spread: false };
    observe(core, &made, &|lane, word| {
        let address = addresses[lane as usize];
        // Of the word, only the bytes that the lane stores: others may be another block's.
        let mine = (0..4).filter(|byte| (address..address + bytes).contains(&(word * 4 + byte)));
        mine.fold((0, 0), |(new, old), byte| {
            let at = word * 4 + byte;
            let (element, within) = ((at - address) / u64::from(E::BYTES), (at - address) % u64::from(E::BYTES));
            let bits = E::bits(value(element as usize, lane as usize)) >> (8 * within) & 0xff;
            // SAFETY: the access has been checked. (Of a block that races, another thread may be storing there, as for loads.)
            let there = unsafe { region.data.wrapping_add(at.wrapping_sub(region.base) as usize).read() };
            (new | (bits as u32) << (8 * byte), old | u32::from(there) << (8 * byte))
        })
    })
}

/// `ldmatrix` or `stmatrix`: the lanes of `mask` hold the addresses of rows of 16 bytes, whose words the whole warp shares.
#[inline(always)]
pub fn matrix(core: &mut Core<'_>, warp: &Warp, write: bool, transposed: bool, mask: u32, rows: &[u64; 32]) -> Outcome {
    let Some(observer) = &mut core.observer else { return Ok(()) };
    let (kind, flow) = if write { (Kind::Write, Flow::Store) } else { (Kind::Read, Flow::Load) };
    let (warp, live, pc, space, order) = (warp.index, warp.live, warp.pc, Space::Shared, Order::Weak);
    let all =
        Made { warp, live, pc, space, kind, flow: Some(flow), order, mask, addresses: rows, bytes: 16, spread: true };
    if observer.races() {
        observer.count(core.grid, &all);
    } else {
        return observer.access(core.grid, &all, UNKNOWN);
    }
    if transposed && !write {
        // Two lanes get the two halves of each word.
        return observe(core, &Made { flow: None, ..all }, UNKNOWN);
    }
    for first in (0..mask.count_ones() as usize).step_by(8) {
        // Lane 4r + w holds word w of row r; if transposed, half a word of rows 2 (lane % 4) and the one after it.
        let row = |lane: usize, half: usize| rows[first + lane % 4 * 2 + half] + lane as u64 / 4 * 2;
        let parts: [[u64; 32]; 2] = match transposed {
            false => [std::array::from_fn(|lane| rows[first + lane / 4] + lane as u64 % 4 * 4), [0; 32]],
            true => [0, 1].map(|half| std::array::from_fn(|lane| row(lane, half))),
        };
        let bytes = if transposed { 2 } else { 4 };
        for addresses in &parts[..if transposed { 2 } else { 1 }] {
            let made = Made { flow: None, mask: u32::MAX, addresses, bytes, spread: false, ..all };
            observe(core, &made, UNKNOWN)?;
        }
    }
    Ok(())
}

/// A `cp.async` begins: it reads global memory, or it is going to write shared memory.
#[inline(always)]
pub fn copies(core: &mut Core<'_>, warp: &Warp, space: Space, mask: u32, addresses: &[u64; 32], bytes: u64) -> Outcome {
    let global = space == Space::Global;
    let (kind, flow) = if global { (Kind::Read, Some(Flow::Copy)) } else { (Kind::Write, None) };
    let (warp, live, pc, order) = (warp.index, warp.live, warp.pc, Order::Weak);
    observe(core, &Made { warp, live, pc, space, kind, flow, order, mask, addresses, bytes, spread: false }, UNKNOWN)
}

/// What one lane touches in many pieces of 16 bytes: counted as a warp would touch them together, judged as what that lane
/// does.
pub fn pieces(
    core: &mut Core<'_>,
    warp: &Warp,
    space: Space,
    write: bool,
    flow: Option<Flow>,
    lane: u32,
    (addresses, pieces): (&[u64; 32], u32),
) -> Outcome {
    let kind = if write { Kind::Write } else { Kind::Read };
    let (warp, live, pc, order) = (warp.index, warp.live, warp.pc, Order::Weak);
    let all = Made { warp, live, pc, space, kind, flow, order, mask: pieces, addresses, bytes: 16, spread: false };
    let Some(observer) = &mut core.observer else { return Ok(()) };
    observer.count(core.grid, &all);
    if !observer.races() {
        return Ok(());
    }
    for piece in (0..32).filter(|piece| pieces >> piece & 1 != 0) {
        let addresses = &[addresses[piece]; 32];
        observe(core, &Made { flow: None, mask: 1 << lane, addresses, ..all }, UNKNOWN)?;
    }
    Ok(())
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
    let (space, kind, flow, order, live) = (Space::Shared, Kind::Write, Some(Flow::Store), Order::Weak, u32::MAX);
    let made = Made { warp, live, pc, space, kind, flow, order, mask, addresses, bytes, spread: false };
    if recorded {
        return observe(core, &made, UNKNOWN);
    }
    if let Some(observer) = &mut core.observer {
        observer.count(core.grid, &made);
    }
    Ok(())
}

/// An atomic operation of the lanes of `mask`, of which those of `kept` have left everything as it was.
#[inline(always)]
pub fn atomic(
    core: &mut Core<'_>,
    warp: &mut Warp,
    space: Space,
    order: Order,
    mask: u32,
    kept: u32,
    addresses: &[u64; 32],
    bytes: u64,
) -> Outcome {
    let (warp, live, pc, kind, flow) = (warp.index, warp.live, warp.pc, Kind::Update, Some(Flow::Atomic));
    let made = Made { warp, live, pc, space, kind, flow, order, mask, addresses, bytes, spread: false };
    observe(core, &made, &|lane, _| (u32::from(kept >> lane & 1 == 0), 0))
}

/// The lanes of `mask` arrive at a barrier; if the warp `waits`, all of them.
#[inline(always)]
pub fn barrier_arrives(core: &mut Core<'_>, warp: &Warp, mask: u32, barrier: u32, waits: bool) {
    if let Some(observer) = &mut core.observer {
        let lanes = Lanes { mask, live: warp.live };
        observer.order(|clock| clock.arrive(warp.index, lanes, barrier, waits));
    }
}

/// A barrier completes, which is for all warps or for a `counted` number of threads.
#[inline(always)]
pub fn barrier_completes(core: &mut Core<'_>, barrier: u32, counted: bool) {
    if let Some(observer) = &mut core.observer {
        observer.order(|clock| clock.complete(barrier, counted));
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

/// The lanes of `mask` take part in a shuffle, a vote or the like.
#[inline(always)]
pub fn hear(core: &mut Core<'_>, warp: &Warp, mask: u32) {
    if let Some(observer) = &mut core.observer {
        let lanes = Lanes { mask, live: warp.live };
        observer.order(|clock| clock.hear(warp.index, lanes));
    }
}

/// Lanes of a warp part ways at a branch.
#[inline(always)]
pub fn diverges(core: &mut Core<'_>) {
    if let Some(traffic) = core.observer.as_mut().and_then(|observer| observer.traffic.as_mut()) {
        traffic.divergent_branches += 1;
    }
}

/// `membar`, `fence` of a scope: 0 block, 2 device, 3 system.
#[inline(always)]
pub fn fence(core: &mut Core<'_>, warp: &Warp, mask: u32, scope: u64) {
    if let Some(observer) = &mut core.observer {
        let lanes = Lanes { mask, live: warp.live };
        observer.order(|clock| clock.fence(warp.index, lanes, scope >= 2));
    }
}
