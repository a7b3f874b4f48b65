//! `cp.async.bulk` from global to shared memory: many bytes by one thread, which an mbarrier counts as they land.

use super::access::{addresses, by_space};
use super::core::{Core, OpSpace};
use super::lanes::{ALL, Frame};
use super::locate::{locate, written};
use super::mbarrier::released;
use super::mbarrier_state::Bulk;
use super::modifiers::Modifiers;
use super::trouble::{Outcome, Trouble};
use super::warp::Warp;
use crate::count::traffic::Flow;
use crate::decode::op::Op;
use crate::watch::clock::Lanes;
use crate::watch::{FindingKind, Space};

/// Bytes that are looked at together: as many as a warp copies with its widest access.
const STRIP: u64 = 512;
/// Bytes of which sizes and addresses are multiples.
const UNIT: u64 = 16;

/// Pieces of 16 bytes from an address on, up to a strip: their addresses, and which of them there are.
fn pieces(address: u64, bytes: u64) -> ([u64; 32], u32) {
    let count = (bytes / UNIT).min(32);
    (std::array::from_fn(|piece| address + UNIT * (piece as u64).min(count - 1)), ALL >> (32 - count))
}

/// Destination `a + (x low half)`, source `b + (x high half)`, bytes in `c`, the mbarrier at `e`.
///
/// # Safety
/// The decoder placed the operands.
pub unsafe fn begin(core: &mut Core<'_>, warp: &mut Warp, frame: &Frame, op: &Op, mask: u32) -> Outcome {
    let m = Modifiers::unpack(op.y);
    let (low, high) = (op.x as u32 as i32 as i64 as u64, (op.x as i64 >> 32) as u64);
    let wide = |bit: u32| Modifiers { wide: op.list >> bit & 1 != 0, ..m };
    // SAFETY: by the caller's promise.
    let (to, from, barrier, sizes) = unsafe {
        let barrier = addresses(frame, &Op { a: op.e, x: 0, ..op.clone() }, wide(1));
        let to = addresses(frame, &Op { x: low, ..op.clone() }, wide(0));
        let from = addresses(frame, &Op { a: op.b, x: high, ..op.clone() }, Modifiers { wide: true, ..m });
        (to, from, barrier, *frame.row::<u32>(op.c))
    };
    for lane in (0..32).filter(|lane| mask >> lane & 1 != 0) {
        let bytes = u64::from(sizes[lane]);
        if bytes == 0 || !bytes.is_multiple_of(UNIT) {
            let message = format!("cp.async.bulk of {bytes} bytes: a positive multiple of {UNIT} is possible");
            return Err(Trouble::new(FindingKind::Undefined, lane as u32, message));
        }
        if !core.mbarriers.states.contains_key(&barrier[lane]) {
            let message = "cp.async.bulk tells an mbarrier that was not initialised by mbarrier.init";
            let (kind, at) = (FindingKind::Undefined, barrier[lane]);
            return Err(Trouble::at_address(kind, lane as u32, Space::Shared, at, message));
        }
        let mut source = [0; 32];
        by_space([from[lane]; 32], 1 << lane, |space, at, _| {
            source[0] = at[lane];
            if space == OpSpace::Global {
                return Ok(());
            }
            let message = "copies from an address that is not in global memory";
            Err(Trouble::new(FindingKind::Undefined, lane as u32, message))
        })?;
        // Registered memory of the host may lie outside the arena: its places come from `locate`, strip by strip.
        let mut strips = Vec::new();
        for at in (0..bytes).step_by(STRIP as usize) {
            let (addresses, lanes) = pieces(source[0] + at, bytes - at);
            let region = core.region(OpSpace::Global);
            // SAFETY: global addresses as they are.
            let places = unsafe { locate(core, &region, &addresses, lanes, UNIT, UNIT, core.grid.need, "copies")? };
            strips.push(places[0] as u64);
            let flow = Some(Flow::Copy);
            super::hooks::pieces(core, warp, Space::Global, false, flow, lane as u32, (&addresses, lanes))?;
            let (addresses, lanes) = pieces(to[lane] + at, bytes - at);
            let region = core.region(OpSpace::Shared);
            // SAFETY: shared addresses as they are.
            let places = unsafe { locate(core, &region, &addresses, lanes, UNIT, UNIT, 0x0F, "copies to")? };
            let length = (bytes - at).min(STRIP);
            core.shared.shadow().clear_initialised(addresses[0], length);
            // SAFETY: located above.
            unsafe { places[0].write_bytes(0xFF, length as usize) };
            super::hooks::pieces(core, warp, Space::Shared, true, None, lane as u32, (&addresses, lanes))?;
        }
        let knowledge = released(core, warp.index, Lanes { mask: 1 << lane, live: warp.live });
        let bulk = Bulk { from: strips, to: to[lane], bytes, warp: warp.index, pc: warp.pc, knowledge };
        core.mbarriers.follow(barrier[lane], bulk);
    }
    Ok(())
}

/// The bytes land.
pub fn land(core: &mut Core<'_>, bulk: &Bulk) -> Outcome {
    let region = core.region(OpSpace::Shared);
    for (at, from) in (0..bulk.bytes).step_by(STRIP as usize).zip(&bulk.from) {
        let length = (bulk.bytes - at).min(STRIP);
        // SAFETY: both sides were checked when the copy began; the block's shared memory does not move, and global memory
        // that is freed during a launch stays mapped.
        unsafe { region.data.add((bulk.to + at) as usize).copy_from(*from as *const u8, length as usize) };
        written(core, &region, bulk.to + at, length);
        let (addresses, lanes) = pieces(bulk.to + at, bulk.bytes - at);
        // Whoever waits at the mbarrier knows what was done when the copy began: of its landing no new record is made.
        super::hooks::lands(core, bulk.warp, bulk.pc, lanes, &addresses, UNIT, false)?;
    }
    Ok(())
}
