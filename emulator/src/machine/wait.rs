//! Lanes of a warp that wait for each other.

use super::barrier;
use super::core::Core;
use super::lanes::Frame;
use super::trouble::{Outcome, Trouble};
use super::warp::{Fragment, State, Warp};
use crate::decode::op::{self, Action, Op};
use crate::watch::FindingKind;

/// Lanes at a `.sync` instruction.
pub struct Group {
    /// Lanes that name the same mask, if all that it names and that live are among them; else all that are there.
    pub lanes: u32,
    /// Whether they can go on.
    pub ready: bool,
}

/// The lanes of `active` that can go on past a `.sync` instruction together.
///
/// # Errors
/// When a lane's mask does not name it.
///
/// # Safety
/// The decoder placed the mask of `op`.
#[inline(always)]
pub unsafe fn group(warp: &Warp, frame: &Frame, op: &Op, active: u32) -> Outcome<Group> {
    if op.c == op::NONE {
        return Ok(Group { lanes: active, ready: active == warp.live });
    }
    // SAFETY: by the caller's promise.
    let masks = unsafe { frame.row::<u32>(op.c) };
    let mut rest = active;
    while rest != 0 {
        let first = masks[rest.trailing_zeros() as usize];
        let mut lanes = 0;
        for lane in 0..32 {
            lanes |= u32::from(masks[lane] == first) << lane;
        }
        lanes &= rest;
        if lanes & !first != 0 {
            let lane = (lanes & !first).trailing_zeros();
            let message = format!("executes a .sync instruction whose mask {first:#010x} does not name it");
            return Err(Trouble::new(FindingKind::MaskMismatch, lane, message));
        }
        if first & warp.live & !lanes == 0 {
            return Ok(Group { lanes, ready: true });
        }
        rest &= !lanes;
    }
    Ok(Group { lanes: active, ready: false })
}

/// A fragment begins to wait. (Others that wait at the same place it has joined when it came there: see [`Warp::add`].)
pub fn wait(warp: &mut Warp, mut fragment: Fragment) {
    fragment.since = warp.steps;
    warp.fragments.push(fragment);
}

/// Operations that lanes execute which only leave: a jump and the exit itself.
const LEAVING: u64 = 2;

/// Lanes exit.
///
/// # Errors
/// When others of their warp wait for them, or a copy of theirs is under way.
pub fn exit(core: &mut Core<'_>, warp: &mut Warp, fragment: Fragment) -> Outcome {
    if core.grid.need & 0xF0 != 0
        && let Some((lane, pc)) = core.copies[warp.index as usize].left(fragment.mask)
    {
        let message = "exits while a cp.async of it is under way: nothing has waited for what it copies";
        let mut trouble = Trouble::new(FindingKind::InFlight, lane, message);
        trouble.at = Some(pc);
        core.at.1 = warp.pc;
        core.note(trouble)?;
    }
    if core.grid.need & 0xF0 != 0
        && core.live == fragment.mask.count_ones()
        && let Some((by, pc)) = core.mbarriers.left()
    {
        let message =
            format!("the block ends while a cp.async.bulk of warp {by} is under way: nobody has waited for it");
        let mut trouble = Trouble::new(FindingKind::InFlight, fragment.mask.trailing_zeros(), message);
        trouble.at = Some(pc);
        core.at.1 = warp.pc;
        core.note(trouble)?;
    }
    warp.live &= !fragment.mask;
    core.live -= fragment.mask.count_ones();
    for i in 0..warp.fragments.len() {
        let other = warp.fragments[i];
        let State::Lanes(effects) = other.state else { continue };
        let op = &core.grid.module.code[other.pc as usize];
        let frame = warp.frame(other.node, core.grid.constants);
        let named = match op.action {
            // SAFETY: the decoder placed the mask for the fragment's frame.
            Action::Together(_) | Action::Meet if op.c != op::NONE => unsafe {
                frame.row::<u32>(op.c)[other.mask.trailing_zeros() as usize]
            },
            _ => u32::MAX,
        };
        // Lanes that leave at once are as good as gone before. Those that did something first have gone past the others;
        // at a barrier, where the manual wants the whole warp, to have computed something is enough.
        let aligned = matches!(op.action, Action::Barrier) && warp.steps - other.since > LEAVING;
        if (effects != warp.effects || aligned) && named & fragment.mask != 0 {
            let (kind, what) = match op.action {
                Action::Barrier => (FindingKind::BarrierDivergence, "a barrier"),
                _ => (FindingKind::MaskMismatch, "a .sync instruction"),
            };
            let message =
                format!("exits while lanes {:#010x} of its warp wait at {what} that it has gone past", other.mask);
            let mut trouble = Trouble::new(kind, fragment.mask.trailing_zeros(), message);
            trouble.at = Some(other.pc);
            return Err(trouble);
        }
        warp.fragments[i].state = State::Ready;
    }
    if warp.live == 0 {
        super::hooks::exits(core, warp);
    }
    barrier::after_exit(core);
    barrier::wake(core, warp);
    Ok(())
}

/// Lanes that wait at `bar.warp.sync` in several places go on when their masks are all there. Whether any could.
pub fn meet(core: &mut Core<'_>, warp: &mut Warp) -> bool {
    let mut waiting = Vec::new();
    for fragment in &warp.fragments {
        let op = &core.grid.module.code[fragment.pc as usize];
        if matches!(fragment.state, State::Lanes(_)) && matches!(op.action, Action::Meet) {
            waiting.push((fragment.node, op.c, fragment.mask));
        }
    }
    let named: Vec<(u32, u32)> = waiting
        .into_iter()
        .map(|(node, code, lanes)| {
            let frame = warp.frame(node, core.grid.constants);
            // SAFETY: the decoder placed the mask for the fragment's frame.
            let masks = unsafe { frame.row::<u32>(code) };
            (masks[lanes.trailing_zeros() as usize], lanes)
        })
        .collect();
    for (wanted, _) in &named {
        let here = named.iter().filter(|(mask, _)| mask == wanted).fold(0, |all, (_, lanes)| all | lanes);
        if wanted & warp.live & !here == 0 {
            super::hooks::meets(core, warp, here);
            let (met, rest) = warp.fragments.iter().partition::<Vec<_>, _>(|fragment| fragment.mask & here != 0);
            warp.fragments = rest;
            for fragment in met {
                warp.add(Fragment { pc: fragment.pc + 1, state: State::Ready, ..fragment });
            }
            return true;
        }
    }
    false
}
