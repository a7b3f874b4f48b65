//! `discard`: what memory holds may be forgotten, and must not be read before it is written again.

use super::access::{addresses, by_space};
use super::core::{Core, OpSpace};
use super::lanes::Frame;
use super::locate::locate;
use super::modifiers::Modifiers;
use super::trouble::{Outcome, Trouble};
use super::warp::Warp;
use crate::count::traffic::Flow;
use crate::decode::op::Op;
use crate::memory::Shadow;
use crate::watch::FindingKind;

/// Bytes that are discarded at a time.
const BYTES: u64 = 128;

/// `discard.L2 [a], 128`
///
/// # Safety
/// The decoder placed the operands.
pub unsafe fn run(core: &mut Core<'_>, warp: &mut Warp, frame: &Frame, op: &Op, mask: u32) -> Outcome {
    let m = Modifiers::unpack(op.y);
    // SAFETY: by the caller's promise.
    let addresses = unsafe { addresses(frame, op, m) };
    let mut run = |space: OpSpace, addresses: &[u64; 32], lanes: u32| -> Outcome {
        if space != OpSpace::Global {
            let message = "discards memory that is not global";
            return Err(Trouble::new(FindingKind::Undefined, lanes.trailing_zeros(), message));
        }
        let region = core.region(space);
        // SAFETY: global addresses as they are.
        let places = unsafe { locate(core, &region, addresses, lanes, BYTES, BYTES, 0x0F, "discards")? };
        // A write of 128 bytes, as that of 8 lanes with 16 bytes each.
        for lane in (0..32).filter(|lane| lanes >> lane & 1 != 0) {
            let pieces = std::array::from_fn(|piece| addresses[lane] + 16 * (piece as u64 % 8));
            super::hooks::pieces(core, warp, region.space, true, Some(Flow::Store), lane as u32, (&pieces, 0xFF))?;
        }
        // SAFETY: the region's shadow covers its length.
        let shadow = unsafe { Shadow::new(region.shadow, region.length) };
        for lane in (0..32).filter(|lane| lanes >> lane & 1 != 0) {
            let offset = addresses[lane].wrapping_sub(region.base);
            // Memory of the host stays as it is: no cache of the device holds it.
            if offset < region.length {
                // SAFETY: located above.
                unsafe { places[lane].write_bytes(0xFF, BYTES as usize) };
                shadow.clear_initialised(offset, BYTES);
            }
        }
        Ok(())
    };
    match m.space {
        OpSpace::Generic => by_space(addresses, mask, run),
        space => run(space, &addresses, mask),
    }
}
