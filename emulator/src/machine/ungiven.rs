//! Values that nobody gave, on their way through registers and memory.
//!
//! Computing with one is no fault, since compilers compute first and select afterwards: the result is then one that nobody
//! gave either. Acting on one is: by an address, a branch, an exchange of lanes, or a store that others see. Shared and local
//! memory that such a value is stored in counts as not written.

use super::access::{addresses, by_space};
use super::core::{Core, OpSpace};
use super::lanes::Frame;
use super::modifiers::Modifiers;
use super::trouble::{Outcome, Trouble};
use super::warp::Warp;
use crate::decode::builder::Carries;
use crate::decode::op::{self, Action, Op};
use crate::decode::watched::Track;
use crate::memory::Shadow;
use crate::watch::FindingKind;

/// [`Warp::origins`] of a register that nothing was passed on to.
pub const NOWHERE: u32 = u32::MAX;

/// Checks the registers of an operation that are watched, and marks what it writes. `mask` are the lanes that have come,
/// `active` those whose guard holds.
#[cold]
#[inline(never)]
pub fn track(core: &Core<'_>, warp: &mut Warp, frame: &Frame, op: &Op, mask: u32, active: u32) -> Outcome {
    if core.grid.need & 0xF0 == 0 {
        return Ok(());
    }
    let base = frame.tracked_base as usize;
    let Some(track) = core.grid.module.tracks.get(&warp.pc) else { return Ok(()) };
    if let Some((register, name)) = &track.guard {
        used(core, warp, base + *register as usize, name, mask)?;
    }
    for (register, name) in &track.reads {
        used(core, warp, base + *register as usize, name, active)?;
    }
    for register in &track.writes {
        warp.tracked[base + *register as usize] |= active;
    }
    if !track.to.is_empty() && track.carries != Carries::Across {
        let written = written(warp, frame, op, track, active);
        pass(warp, base, track, active, written);
    }
    Ok(())
}

/// A register is used by lanes that must have written it.
fn used(core: &Core<'_>, warp: &Warp, register: usize, name: &str, lanes: u32) -> Outcome {
    let missing = lanes & !warp.tracked[register];
    if missing == 0 {
        return Ok(());
    }
    let origin = warp.origins[register];
    let message = match origin {
        NOWHERE => format!("reads register {name}, which it has never written"),
        _ => format!("uses register {name}, which depends on a register that it has never written"),
    };
    let mut trouble = Trouble::new(FindingKind::Uninitialised, missing.trailing_zeros(), message);
    trouble.other = (origin != NOWHERE).then_some(origin);
    core.note(trouble)
}

/// The lanes for which what an operation computes is something that was given.
fn written(warp: &Warp, frame: &Frame, op: &Op, track: &Track, active: u32) -> u32 {
    let base = frame.tracked_base as usize;
    let known = |from: &Option<(u32, String)>| {
        from.as_ref().map_or(u32::MAX, |(register, _)| warp.tracked[base + *register as usize])
    };
    let operand = |i: usize| track.from.get(i).map_or(u32::MAX, known);
    // Of two predicates the one that is known may decide: what does not hold by `and`, what holds by `or`.
    let decides = |how: u64, x: u32| match how {
        op::AND => !x,
        op::OR => x,
        _ => 0,
    };
    let (a, b, c) = (operand(0), operand(1), operand(2));
    // SAFETY: the decoder placed the operands: predicates where these are read.
    unsafe {
        match track.carries {
            Carries::Select => {
                let chosen = frame.predicate(op.c);
                c & (chosen & a | !chosen & b)
            }
            Carries::Logic => {
                let (x, y) = (frame.predicate(op.a), frame.predicate(op.b));
                a & b | a & decides(op.x, x) | b & decides(op.x, y)
            }
            Carries::Compare => {
                let compared = a & b;
                let mut written = compared & c | c & decides(op.y & 3, frame.predicate(op.c));
                if let (Action::Lanes(handler), true) = (op.action, op.e == op::NONE) {
                    // What the comparison says by itself.
                    let before = frame.predicate(op.d);
                    handler(frame, &Op { y: 0, ..op.clone() }, active);
                    written |= compared & decides(op.y & 3, frame.predicate(op.d));
                    frame.write_predicate(op.d, before, u32::MAX);
                }
                written
            }
            _ => track.from.iter().fold(u32::MAX, |lanes, from| lanes & known(from)),
        }
    }
}

/// The lanes of `mask` write what an operation passes on to; those of `written` something that was given.
pub fn pass(warp: &mut Warp, base: usize, track: &Track, mask: u32, written: u32) {
    let from = track.from.iter().flatten().map(|(register, _)| base + *register as usize);
    let earlier = from.map(|register| warp.origins[register]).find(|origin| *origin != NOWHERE);
    for to in &track.to {
        let to = base + *to as usize;
        warp.tracked[to] = warp.tracked[to] & !mask | written & mask;
        if mask & !written != 0 {
            warp.origins[to] = earlier.unwrap_or(warp.pc);
        }
    }
}

/// After a store of elements of so many bytes: what it stored of what nobody gave.
#[cold]
#[inline(never)]
pub fn stored(core: &mut Core<'_>, warp: &mut Warp, frame: &Frame, op: &Op, mask: u32, bytes: u32) -> Outcome {
    let Some(track) = core.grid.module.tracks.get(&warp.pc).filter(|_| core.grid.need & 0xF0 != 0) else {
        return Ok(());
    };
    let base = frame.tracked_base as usize;
    let m = Modifiers::unpack(op.y);
    for (element, from) in track.from.iter().enumerate() {
        let Some((register, name)) = from else { continue };
        let register = base + *register as usize;
        let missing = mask & !warp.tracked[register];
        if missing == 0 {
            continue;
        }
        // SAFETY: the decoder placed the operands.
        let addresses =
            unsafe { addresses(frame, op, m) }.map(|address| address.wrapping_add(u64::from(bytes) * element as u64));
        let mut forget = |space: OpSpace, addresses: &[u64; 32], lanes: u32| {
            for lane in (0..32).filter(|lane| lanes >> lane & 1 != 0) {
                match space {
                    OpSpace::Local => warp.local.forget(lane, addresses[lane] as u32, bytes),
                    OpSpace::Shared => {
                        let region = core.region(space);
                        // SAFETY: the region's shadow covers its length, and the store has found the bytes in it.
                        unsafe { Shadow::new(region.shadow, region.length) }
                            .clear_initialised(addresses[lane], bytes.into());
                    }
                    _ => return used(core, warp, register, name, lanes),
                }
            }
            Ok(())
        };
        match m.space {
            OpSpace::Generic => by_space(addresses, missing, forget)?,
            space => forget(space, &addresses, missing)?,
        }
    }
    Ok(())
}
