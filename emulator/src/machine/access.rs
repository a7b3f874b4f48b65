//! `ld` and `st`: addresses, checks, and the fast paths for neighbouring and equal addresses.

use super::core::{CONSTANT_WINDOW, Core, LOCAL_WINDOW, OpSpace, PARAMETER_WINDOW, SHARED_WINDOW};
use super::elements::*;
use super::lanes::{Frame, VECTORS, WarpHandler};
use super::local_access;
use super::locate::{Pattern, locate, pattern, set_fine, words_have, written};
use super::modifiers::Modifiers;
use super::trouble::{Outcome, Trouble};
use super::ungiven;
use super::warp::Warp;
use crate::decode::op::{self, Op};
use crate::watch::{FindingKind, Space};

/// The lanes' addresses: `a + x`, or `x` alone.
///
/// # Safety
/// The decoder placed the operands.
#[inline(always)]
pub unsafe fn addresses(frame: &Frame, op: &Op, m: Modifiers) -> [u64; 32] {
    let offset = if m.framed { op.x.wrapping_add(frame.local_base.into()) } else { op.x };
    if op.a == op::NONE {
        return [offset; 32];
    }
    let mut out = [0; 32];
    // SAFETY: by the caller's promise.
    unsafe {
        if m.wide {
            let a = frame.row::<u64>(op.a);
            for lane in 0..32 {
                out[lane] = a[lane].wrapping_add(offset);
            }
        } else {
            let a = frame.row::<u32>(op.a);
            for lane in 0..32 {
                out[lane] = a[lane].wrapping_add(offset as u32).into();
            }
        }
    }
    out
}

/// Chooses the version of `$run` that is compiled for the processor.
macro_rules! version {
    ($run:ident, $element:ty) => {{
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2,fma,f16c,bmi1,bmi2,lzcnt,popcnt")]
        unsafe fn vector(core: &mut Core<'_>, warp: &mut Warp, frame: &Frame, op: &Op, mask: u32) -> Outcome {
            // SAFETY: the caller's promise is passed on.
            unsafe { $run::<$element>(core, warp, frame, op, mask) }
        }
        unsafe fn portable(core: &mut Core<'_>, warp: &mut Warp, frame: &Frame, op: &Op, mask: u32) -> Outcome {
            // SAFETY: the caller's promise is passed on.
            unsafe { $run::<$element>(core, warp, frame, op, mask) }
        }
        #[cfg(target_arch = "x86_64")]
        let handler: WarpHandler = if *VECTORS { vector } else { portable };
        #[cfg(not(target_arch = "x86_64"))]
        let handler: WarpHandler = portable;
        handler
    }};
}

/// `ld` of elements of `bytes` bytes into registers of 32 or (`wide`) 64 bits.
pub fn load_handler(bytes: u32, signed: bool, wide: bool) -> Option<WarpHandler> {
    Some(match (bytes, signed, wide) {
        (1, false, false) => version!(load, U8),
        (1, true, false) => version!(load, S8),
        (2, false, false) => version!(load, U16),
        (2, true, false) => version!(load, S16),
        (4, _, false) => version!(load, U32),
        (1, false, true) => version!(load, U8Wide),
        (1, true, true) => version!(load, S8Wide),
        (2, false, true) => version!(load, U16Wide),
        (2, true, true) => version!(load, S16Wide),
        (4, false, true) => version!(load, U32Wide),
        (4, true, true) => version!(load, S32Wide),
        (8, _, true) => version!(load, U64),
        _ => return None,
    })
}

/// `st` of elements of `bytes` bytes from registers of 32 or (`wide`) 64 bits.
pub fn store_handler(bytes: u32, wide: bool) -> Option<WarpHandler> {
    Some(match (bytes, wide) {
        (1, false) => version!(store, U8),
        (2, false) => version!(store, U16),
        (4, false) => version!(store, U32),
        (1, true) => version!(store, U8Wide),
        (2, true) => version!(store, U16Wide),
        (4, true) => version!(store, U32Wide),
        (8, true) => version!(store, U64),
        _ => return None,
    })
}

/// `ld`.
///
/// # Safety
/// The decoder placed the operands.
#[inline(always)]
unsafe fn load<E: Element>(core: &mut Core<'_>, warp: &mut Warp, frame: &Frame, op: &Op, mask: u32) -> Outcome {
    let m = Modifiers::unpack(op.y);
    // SAFETY: by the caller's promise.
    let addresses = unsafe { addresses(frame, op, m) };
    if m.space != OpSpace::Generic {
        // SAFETY: as above.
        unsafe { load_from::<E>(core, warp, frame, op, mask, m, m.space, &addresses)? };
    } else {
        by_space(addresses, mask, |space, addresses, mask| {
            // SAFETY: as above.
            unsafe { load_from::<E>(core, warp, frame, op, mask, m, space, addresses) }
        })?;
    }
    if m.order.is_strong() {
        // SAFETY: as above.
        unsafe { asks::<E>(core, warp, frame, op, mask, m, addresses[mask.trailing_zeros() as usize]) };
    }
    Ok(())
}

/// A strong load has been made, as a loop makes that waits for somebody else.
///
/// # Safety
/// The decoder placed the operands.
unsafe fn asks<E: Element>(
    core: &mut Core<'_>,
    warp: &mut Warp,
    frame: &Frame,
    op: &Op,
    mask: u32,
    m: Modifiers,
    address: u64,
) {
    core.progress += u64::from(warp.polls(address));
    core.polls += 1;
    let listed = if m.count == 1 { &[op.d] } else { core.listed(op, usize::from(m.count)) };
    let mut answer = 0u64;
    for code in listed.iter().filter(|code| **code != op::NONE) {
        // SAFETY: by the caller's promise.
        let values = unsafe { frame.row::<E::Register>(*code) };
        for lane in (0..32).filter(|lane| mask >> lane & 1 != 0) {
            answer = one_number(answer, E::bits(values[lane]));
        }
    }
    core.news += u64::from(warp.hears(address, answer));
}

/// Two numbers in one: others, with next to no exception, give another one.
pub fn one_number(sum: u64, value: u64) -> u64 {
    (sum.rotate_left(5) ^ value).wrapping_mul(0x517c_c1b7_2722_0a95)
}

/// Calls `f` once for each space that generic addresses fall into, with addresses of that space.
#[inline(always)]
pub fn by_space(
    mut addresses: [u64; 32],
    mask: u32,
    mut f: impl FnMut(OpSpace, &[u64; 32], u32) -> Outcome,
) -> Outcome {
    let mut rest = mask;
    while rest != 0 {
        let space = Core::space_of(addresses[rest.trailing_zeros() as usize]);
        let mut here = 0;
        for lane in 0..32 {
            here |= u32::from(Core::space_of(addresses[lane]) == space) << lane;
        }
        here &= rest;
        rest &= !here;
        let window = match space {
            OpSpace::Shared => SHARED_WINDOW,
            OpSpace::Local => LOCAL_WINDOW,
            OpSpace::Parameter => PARAMETER_WINDOW,
            OpSpace::Constant => CONSTANT_WINDOW,
            _ => 0,
        };
        if window != 0 {
            for lane in (0..32).filter(|lane| here >> lane & 1 != 0) {
                addresses[lane] -= window;
            }
        }
        f(space, &addresses, here)?;
    }
    Ok(())
}

#[inline(always)]
unsafe fn load_from<E: Element>(
    core: &mut Core<'_>,
    warp: &mut Warp,
    frame: &Frame,
    op: &Op,
    mask: u32,
    m: Modifiers,
    space: OpSpace,
    addresses: &[u64; 32],
) -> Outcome {
    if space == OpSpace::Local {
        // SAFETY: by the caller's promise.
        return unsafe { local_access::load::<E>(core, warp, frame, op, mask, m, addresses) };
    }
    let count = usize::from(m.count);
    let bytes = u64::from(E::BYTES) * count as u64;
    let region = core.region(space);
    let need = core.grid.need;
    let offset = addresses[0].wrapping_sub(region.base);
    let pattern = pattern(addresses, mask, bytes);
    let span = if pattern == Pattern::Neighbours { 32 * bytes } else { bytes };
    let simple = pattern != Pattern::Scattered
        && offset & (bytes - 1) == 0
        && region.length >= span
        && offset <= region.length - span
        // SAFETY: the span lies within the region.
        && unsafe { words_have(&region, offset, span, need) };
    // SAFETY: checked above or by `locate`; destinations are the decoder's. If blocks of the kernel race, another thread may
    // store to these very bytes: Rust promises nothing then. They are numbers, whatever is read; see ARCHITECTURE.md.
    unsafe {
        let mut values = [E::Register::default(); 32];
        if simple {
            let from = region.data.add(offset as usize);
            for element in 0..count {
                let from = from.add(element * E::BYTES as usize);
                if pattern == Pattern::Same {
                    values = [E::read(from); 32];
                } else {
                    for lane in 0..32 {
                        values[lane] = E::read(from.add(lane * bytes as usize));
                    }
                }
                let to = if count == 1 { op.d } else { core.listed(op, count)[element] };
                if to != op::NONE {
                    frame.write(to, &values, mask);
                }
            }
        } else {
            let places = locate(core, &region, addresses, mask, bytes, bytes, need, "reads")?;
            for element in 0..count {
                for lane in 0..32 {
                    values[lane] = E::read(places[lane].add(element * E::BYTES as usize));
                }
                let to = if count == 1 { op.d } else { core.listed(op, count)[element] };
                if to != op::NONE {
                    frame.write(to, &values, mask);
                }
            }
        }
    }
    super::hooks::access(core, warp, region.space, false, m.order, mask, addresses, bytes)
}

/// `st`.
///
/// # Safety
/// The decoder placed the operands.
#[inline(always)]
unsafe fn store<E: Element>(core: &mut Core<'_>, warp: &mut Warp, frame: &Frame, op: &Op, mask: u32) -> Outcome {
    let m = Modifiers::unpack(op.y);
    // SAFETY: by the caller's promise.
    let addresses = unsafe { addresses(frame, op, m) };
    // Who stores, even plainly, does more than to wait.
    core.progress += u64::from(m.space != OpSpace::Local);
    if m.space != OpSpace::Generic {
        // SAFETY: as above.
        unsafe { store_to::<E>(core, warp, frame, op, mask, m, m.space, &addresses)? };
    } else {
        by_space(addresses, mask, |space, addresses, mask| {
            // SAFETY: as above.
            unsafe { store_to::<E>(core, warp, frame, op, mask, m, space, addresses) }
        })?;
    }
    if op.tracked { ungiven::stored(core, warp, frame, op, mask, E::BYTES) } else { Ok(()) }
}

#[inline(always)]
unsafe fn store_to<E: Element>(
    core: &mut Core<'_>,
    warp: &mut Warp,
    frame: &Frame,
    op: &Op,
    mask: u32,
    m: Modifiers,
    space: OpSpace,
    addresses: &[u64; 32],
) -> Outcome {
    let count = usize::from(m.count);
    let bytes = u64::from(E::BYTES) * count as u64;
    if space == OpSpace::Local {
        // SAFETY: by the caller's promise.
        return unsafe { local_access::store::<E>(core, warp, frame, op, mask, m, addresses) };
    }
    let region = core.region(space);
    if let Space::Parameter | Space::Constant = region.space {
        let message = "writes a parameter of the kernel, or constant memory";
        return Err(Trouble::new(FindingKind::Undefined, mask.trailing_zeros(), message));
    }
    let grid = core.grid;
    let listed: &[u32] = if count == 1 { &[] } else { &grid.module.operands[op.list as usize..][..count] };
    let offset = addresses[0].wrapping_sub(region.base);
    let simple = pattern(addresses, mask, bytes) == Pattern::Neighbours
        && offset & (bytes - 1) == 0
        && region.length >= 32 * bytes
        && offset <= region.length - 32 * bytes
        && E::BYTES >= 4
        && !region.shadow.is_null()
        // SAFETY: the span lies within the region.
        && unsafe { words_have(&region, offset, 32 * bytes, 0x0F) };
    // SAFETY: checked above or by `locate`; sources are the decoder's. Of blocks that race, what is said of loads holds.
    unsafe {
        let value = |element: usize, lane: usize| {
            let source = if count == 1 { op.b } else { listed[element] };
            frame.row::<E::Register>(source)[lane]
        };
        if simple {
            super::hooks::stores::<E>(core, warp, &region, m.order, mask, addresses, bytes, value)?;
            let to = region.data.add(offset as usize);
            for element in 0..count {
                let source = if count == 1 { op.b } else { core.listed(op, count)[element] };
                let values = frame.row::<E::Register>(source);
                for lane in 0..32 {
                    E::put(to.add(lane * bytes as usize + element * E::BYTES as usize), values[lane]);
                }
            }
            set_fine(&region, offset, 8 * bytes as usize);
        } else {
            let places = locate(core, &region, addresses, mask, bytes, bytes, 0x0F, "writes")?;
            super::hooks::stores::<E>(core, warp, &region, m.order, mask, addresses, bytes, value)?;
            for lane in (0..32).filter(|lane| mask >> lane & 1 != 0) {
                for element in 0..count {
                    let source = if count == 1 { op.b } else { core.listed(op, count)[element] };
                    E::put(places[lane].add(element * E::BYTES as usize), frame.row::<E::Register>(source)[lane]);
                }
                written(core, &region, addresses[lane], bytes);
            }
        }
    }
    Ok(())
}
