//! What the lanes of a warp tell each other: `shfl`, `vote`, `match`, `redux`, `elect`.
//!
//! All are called with the lanes that have arrived: those of the member mask that live.

use super::core::Core;
use super::lanes::Frame;
use super::trouble::{Outcome, Trouble};
use super::ungiven;
use super::warp::Warp;
use crate::decode::op::{self, Op};
use crate::watch::FindingKind;

/// Lanes of a mask, the lowest first.
pub fn lanes(mask: u32) -> impl Iterator<Item = usize> {
    (0..32).filter(move |lane| mask >> lane & 1 != 0)
}

/// `shfl.sync`: value `a`, lane or distance `b`, clamp `list`, mode in `x` (0 idx, 1 up, 2 down, 3 bfly), predicate `e`.
///
/// # Safety
/// The decoder placed the operands.
pub unsafe fn shuffle(core: &mut Core<'_>, warp: &mut Warp, frame: &Frame, op: &Op, mask: u32) -> Outcome {
    // SAFETY: by the caller's promise.
    let (values, distances, clamps) =
        unsafe { (frame.row::<u32>(op.a), frame.row::<u32>(op.b), frame.row::<u32>(op.list)) };
    let (mut out, mut within, mut sources) = ([0; 32], 0u32, [0; 32]);
    for lane in 0..32usize {
        let (b, c) = (distances[lane] as i32 & 31, clamps[lane] as i32);
        let (clamp, segment) = (c & 31, c >> 8 & 31);
        let here = lane as i32;
        let lowest = here & segment;
        let highest = lowest | clamp & !segment & 31;
        let (from, valid) = match op.x {
            0 => {
                let from = lowest | b & !segment;
                (from, from <= highest)
            }
            1 => (here - b, here - b >= highest),
            2 => (here + b, here + b <= highest),
            _ => (here ^ b, here ^ b <= highest),
        };
        let from = if valid { from & 31 } else { here };
        out[lane] = values[from as usize];
        sources[lane] = from;
        within |= u32::from(valid) << lane;
        if mask >> lane & 1 != 0 && mask >> from & 1 == 0 && core.grid.need & 0xF0 != 0 {
            let message =
                format!("takes a value from lane {from}, which does not take part in the shfl (lanes {mask:#010x} do)");
            return Err(Trouble::new(FindingKind::MaskMismatch, lane as u32, message));
        }
    }
    if op.tracked
        && let Some(track) = core.grid.module.tracks.get(&warp.pc)
    {
        // A lane that gets what nobody wrote has nothing either; only who uses it is told.
        let base = frame.tracked_base as usize;
        let written = track.from[0].as_ref().map_or(u32::MAX, |(register, _)| warp.tracked[base + *register as usize]);
        let written = (0..32).fold(0, |lanes, lane| lanes | (written >> sources[lane] & 1) << lane);
        ungiven::pass(warp, base, track, mask, written);
    }
    // SAFETY: by the caller's promise.
    unsafe {
        frame.write(op.d, &out, mask);
        frame.write_predicate(op.e, within, mask);
    }
    Ok(())
}

/// `vote.sync`: predicate `a`, mode in `x` (0 all, 1 any, 2 uni, 3 ballot).
///
/// # Safety
/// The decoder placed the operands.
pub unsafe fn vote(_: &mut Core<'_>, _: &mut Warp, frame: &Frame, op: &Op, mask: u32) -> Outcome {
    // SAFETY: by the caller's promise.
    unsafe {
        let holds = frame.predicate(op.a) & mask;
        let result = match op.x {
            0 => holds == mask,
            1 => holds != 0,
            2 => holds == mask || holds == 0,
            _ => {
                frame.write(op.d, &[holds; 32], mask);
                return Ok(());
            }
        };
        frame.write_predicate(op.d, if result { u32::MAX } else { 0 }, mask);
    }
    Ok(())
}

/// `match.sync`: value `a`, of 64 bits if `y`; `x` is 1 for `.all`, whose predicate is `e`.
///
/// # Safety
/// The decoder placed the operands.
pub unsafe fn matching(_: &mut Core<'_>, _: &mut Warp, frame: &Frame, op: &Op, mask: u32) -> Outcome {
    // SAFETY: by the caller's promise.
    let value = |lane: usize| unsafe {
        if op.y != 0 { frame.row::<u64>(op.a)[lane] } else { frame.row::<u32>(op.a)[lane].into() }
    };
    let mut out = [0u32; 32];
    for lane in lanes(mask) {
        out[lane] = lanes(mask).filter(|other| value(*other) == value(lane)).fold(0, |all, other| all | 1 << other);
    }
    let all = out[mask.trailing_zeros() as usize] == mask;
    // SAFETY: by the caller's promise.
    unsafe {
        if op.x == 1 {
            out = [if all { mask } else { 0 }; 32];
            frame.write_predicate(op.e, if all { u32::MAX } else { 0 }, mask);
        }
        if op.d != op::NONE {
            frame.write(op.d, &out, mask);
        }
    }
    Ok(())
}

/// `redux.sync`: value `a`; `x` is 0 add, 1 min, 2 max of unsigned, 3 min, 4 max of signed, 5 and, 6 or, 7 xor.
///
/// # Safety
/// The decoder placed the operands.
pub unsafe fn reduce(_: &mut Core<'_>, _: &mut Warp, frame: &Frame, op: &Op, mask: u32) -> Outcome {
    // SAFETY: by the caller's promise.
    let values = unsafe { frame.row::<u32>(op.a) };
    let join = |a: u32, b: u32| match op.x {
        0 => a.wrapping_add(b),
        1 => a.min(b),
        2 => a.max(b),
        3 => (a as i32).min(b as i32) as u32,
        4 => (a as i32).max(b as i32) as u32,
        5 => a & b,
        6 => a | b,
        _ => a ^ b,
    };
    let total = lanes(mask).map(|lane| values[lane]).reduce(join).unwrap_or(0);
    // SAFETY: by the caller's promise.
    unsafe { frame.write(op.d, &[total; 32], mask) };
    Ok(())
}

/// `elect.sync`: the lowest lane is it.
///
/// # Safety
/// The decoder placed the operands.
pub unsafe fn elect(_: &mut Core<'_>, _: &mut Warp, frame: &Frame, op: &Op, mask: u32) -> Outcome {
    let leader = mask.trailing_zeros();
    // SAFETY: by the caller's promise.
    unsafe {
        if op.d != op::NONE {
            frame.write(op.d, &[leader; 32], mask);
        }
        frame.write_predicate(op.e, 1 << leader, mask);
    }
    Ok(())
}
