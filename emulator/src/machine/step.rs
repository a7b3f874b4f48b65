//! The interpreter's loop: a warp's turn.

use super::barrier;
use super::calls;
use super::core::Core;
use super::lanes::Frame;
use super::trouble::{Outcome, Trouble};
use super::warp::{Fragment, State, Warp};
use crate::decode::op::{self, Action, Barrier, Op};
use crate::watch::FindingKind;

/// How a warp's turn ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// All its lanes have exited.
    Exited,
    /// All its lanes wait.
    Blocked,
    /// It could go on, but others should have a turn: it seems to wait for them in a loop.
    Yielded,
}

/// Atomics, volatile accesses and sleeps after which a fragment gives way.
const SPINS: u32 = 64;
/// Instructions after which a fragment gives way.
const PATIENCE: u64 = 1 << 20;

/// Why the loop over instructions ended.
enum Stop {
    /// The fragment is where another might be, or has split: choose again.
    Choose,
    /// It waits.
    Wait(State),
    /// Its lanes have exited.
    Gone,
    /// Others should have a turn.
    Yield,
}

/// Runs a warp until it waits, ends or gives way.
///
/// # Errors
/// The trouble that it ran into; [`Warp::pc`] says where.
pub fn turn(core: &mut Core<'_>, warp: &mut Warp) -> Outcome<Turn> {
    barrier::wake(core, warp);
    (warp.patience, warp.spins) = (PATIENCE, 0);
    loop {
        let Some((mut fragment, limit)) = warp.choose() else {
            if warp.live == 0 {
                return Ok(Turn::Exited);
            }
            if meet(core, warp) {
                continue;
            }
            return Ok(Turn::Blocked);
        };
        match execute(core, warp, &mut fragment, limit)? {
            Stop::Choose => warp.add(fragment),
            Stop::Wait(state) => {
                fragment.state = state;
                wait(core, warp, fragment);
                barrier::wake(core, warp);
            }
            Stop::Gone => exit(core, warp, fragment)?,
            Stop::Yield => {
                fragment.tired = true;
                (warp.patience, warp.spins) = (PATIENCE, 0);
                warp.add(fragment);
                if warp.fragments.iter().all(|f| f.tired || f.state != State::Ready) {
                    warp.fragments.iter_mut().for_each(|f| f.tired = false);
                    return Ok(Turn::Yielded);
                }
            }
        }
    }
}

/// Executes a fragment's instructions.
#[allow(clippy::too_many_lines, reason = "one loop, one match")]
fn execute(core: &mut Core<'_>, warp: &mut Warp, fragment: &mut Fragment, limit: u32) -> Outcome<Stop> {
    let module = core.grid.module;
    let code = &module.code[..];
    let frame = warp.frame(fragment.node, core.grid.constants);
    let mut mask = fragment.mask;
    let mut pc = fragment.pc;
    let alone = warp.fragments.is_empty();
    let granted = warp.patience.min(core.budget);
    let mut patience = granted;
    core.budget -= granted;
    let stop = loop {
        if pc >= limit {
            break Stop::Choose;
        }
        let op = &code[pc as usize];
        // SAFETY: the decoder placed the guard.
        let active = if op.guard == op::NONE { mask } else { mask & unsafe { frame.predicate(op.guard) } };
        if patience == 0 {
            warp.pc = pc;
            if core.budget == 0 {
                let message = format!(
                    "the block has executed {} warp instructions, the limit",
                    core.grid.settings.max_warp_instructions
                );
                return Err(Trouble::new(FindingKind::Runaway, mask.trailing_zeros(), message));
            }
            break Stop::Yield;
        }
        patience -= 1;
        if let Some(counts) = &mut core.counts {
            let [issued, lanes] = &mut counts[pc as usize];
            *issued += 1;
            *lanes += u64::from(active.count_ones());
        }
        if op.tracked {
            warp.pc = pc;
            track(core, warp, fragment.node, op, pc, active)?;
        }
        match op.action {
            Action::Lanes(handler) => {
                if active != 0 {
                    // SAFETY: the decoder chose handler and operands together, for this frame.
                    unsafe { handler(&frame, op, active) };
                }
                pc += 1;
            }
            Action::Warp(handler) => {
                if active != 0 {
                    warp.pc = pc;
                    warp.effects += 1;
                    // SAFETY: as above.
                    unsafe { handler(core, warp, &frame, op, active)? };
                    if warp.spins >= SPINS {
                        pc += 1;
                        break Stop::Yield;
                    }
                }
                pc += 1;
            }
            Action::Branch => {
                let target = op.x as u32;
                if active == mask {
                    pc = target;
                    if !alone {
                        break Stop::Choose;
                    }
                } else if active != 0 {
                    super::hooks::diverges(core);
                    warp.add(Fragment { pc: target, mask: active, ..*fragment });
                    mask &= !active;
                    pc += 1;
                    break Stop::Choose;
                } else {
                    pc += 1;
                }
            }
            Action::Together(handler) => {
                if active == 0 {
                    pc += 1;
                    continue;
                }
                warp.pc = pc;
                // SAFETY: the decoder placed the mask.
                let group = unsafe { group(warp, &frame, op, active)? };
                if group.ready {
                    if group.lanes != active {
                        // Lanes with another mask wait for their own.
                        warp.add(Fragment { mask: active & !group.lanes, pc, ..*fragment });
                        if mask != active {
                            warp.add(Fragment { mask: mask & !active, pc: pc + 1, ..*fragment });
                        }
                        mask = group.lanes;
                    }
                    warp.effects += 1;
                    // SAFETY: as above.
                    unsafe { handler(core, warp, &frame, op, group.lanes)? };
                    pc += 1;
                    if group.lanes != active {
                        break Stop::Choose;
                    }
                } else {
                    if active != mask {
                        warp.add(Fragment { mask: mask & !active, pc: pc + 1, ..*fragment });
                        mask = active;
                    }
                    break Stop::Wait(State::Lanes(warp.effects));
                }
            }
            Action::Meet => {
                warp.pc = pc;
                if active == 0 {
                    pc += 1;
                    continue;
                }
                // SAFETY: the decoder placed the mask.
                let group = unsafe { group(warp, &frame, op, active)? };
                if group.ready && group.lanes == active {
                    super::hooks::meets(core, warp, active);
                    pc += 1;
                    continue;
                }
                for (rest, next) in [(active & !group.lanes, pc), (mask & !active, pc + 1)] {
                    if rest != 0 {
                        warp.add(Fragment { mask: rest, pc: next, ..*fragment });
                    }
                }
                mask = group.lanes;
                if group.ready {
                    super::hooks::meets(core, warp, mask);
                    pc += 1;
                    break Stop::Choose;
                }
                break Stop::Wait(State::Lanes(warp.effects));
            }
            Action::Barrier => {
                if active == 0 {
                    pc += 1;
                    continue;
                }
                warp.pc = pc;
                if active != mask {
                    warp.add(Fragment { mask: mask & !active, pc: pc + 1, ..*fragment });
                    mask = active;
                }
                if Barrier::unpack(op.y).aligned && active != warp.live {
                    break Stop::Wait(State::Lanes(warp.effects));
                }
                // SAFETY: the decoder placed the operands.
                let operands = unsafe { barrier::operands(&frame, op, active)? };
                match barrier::arrive(core, warp, op, pc, active, operands)? {
                    Some(state) => break Stop::Wait(state),
                    None => pc += 1,
                }
                if mask != fragment.mask {
                    break Stop::Choose;
                }
            }
            Action::BranchTable => {
                if active == 0 {
                    pc += 1;
                    continue;
                }
                warp.pc = pc;
                // SAFETY: the decoder placed the index.
                let index = unsafe { frame.row::<u32>(op.a) };
                let first = index[active.trailing_zeros() as usize];
                if u64::from(first) >= op.y {
                    let message = format!("brx.idx selects target {first} of {}", op.y);
                    return Err(Trouble::new(FindingKind::Undefined, active.trailing_zeros(), message));
                }
                let same = (0..32).filter(|lane| active >> lane & 1 != 0 && index[*lane as usize] == first);
                let taken = same.fold(0, |lanes, lane| lanes | 1u32 << lane);
                let target = core.listed(op, op.y as usize)[first as usize];
                if taken == mask {
                    pc = op::index(target);
                } else {
                    super::hooks::diverges(core);
                    warp.add(Fragment { mask: taken, pc: op::index(target), ..*fragment });
                    mask &= !taken;
                    // Those that are left branch in turn; those that the guard leaves out fall through.
                    break Stop::Choose;
                }
                if !alone {
                    break Stop::Choose;
                }
            }
            Action::Call => {
                if active == 0 {
                    pc += 1;
                    continue;
                }
                warp.pc = pc;
                if active != mask {
                    warp.add(Fragment { mask: mask & !active, pc: pc + 1, ..*fragment });
                    mask = active;
                }
                // SAFETY: the decoder placed the operands.
                let entered = unsafe { calls::call(core, warp, &frame, op, Fragment { pc, mask, ..*fragment })? };
                match entered {
                    None => pc += 1,
                    Some((inside, rest)) => {
                        if let Some(rest) = rest {
                            warp.add(rest);
                        }
                        *fragment = inside;
                        core.budget += patience;
                        warp.patience -= granted - patience;
                        return Ok(Stop::Choose);
                    }
                }
                if mask != fragment.mask {
                    break Stop::Choose;
                }
            }
            Action::Return | Action::Exit => {
                if active == 0 {
                    pc += 1;
                    continue;
                }
                warp.pc = pc;
                if active != mask {
                    warp.add(Fragment { mask: mask & !active, pc: pc + 1, ..*fragment });
                    mask = active;
                }
                if matches!(op.action, Action::Return) && warp.nodes[fragment.node as usize].depth > 0 {
                    *fragment = calls::give_back(core, warp, Fragment { pc, mask, ..*fragment });
                    core.budget += patience;
                    warp.patience -= granted - patience;
                    return Ok(Stop::Choose);
                }
                break Stop::Gone;
            }
            Action::Trap => {
                if active != 0 {
                    warp.pc = pc;
                    return Err(Trouble::new(FindingKind::Trap, active.trailing_zeros(), "executes trap"));
                }
                pc += 1;
            }
            Action::Yield => {
                pc += 1;
                if active != 0 {
                    break Stop::Yield;
                }
            }
            Action::Clock => {
                let now = core.clock + (granted - patience);
                // SAFETY: the decoder placed the destination: 64 bits wide for 2.
                unsafe {
                    match op.x {
                        0 => frame.write(op.d, &[now as u32; 32], active),
                        1 => frame.write(op.d, &[(now >> 32) as u32; 32], active),
                        _ => frame.write(op.d, &[now; 32], active),
                    }
                }
                core.clock += 1;
                pc += 1;
            }
            Action::Nothing => pc += 1,
        }
    };
    core.budget += patience;
    core.clock += granted - patience;
    warp.patience -= granted - patience;
    (fragment.pc, fragment.mask) = (pc, mask);
    Ok(stop)
}

/// Lanes at a `.sync` instruction.
struct Group {
    /// Lanes that name the same mask, if all that it names and that live are among them; else all that are there.
    lanes: u32,
    /// Whether they can go on.
    ready: bool,
}

/// # Safety
/// The decoder placed the mask of `op`.
#[inline(always)]
unsafe fn group(warp: &Warp, frame: &Frame, op: &Op, active: u32) -> Outcome<Group> {
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

/// Checks the registers of an operation that are watched, and marks what it writes.
#[cold]
#[inline(never)]
fn track(core: &Core<'_>, warp: &mut Warp, node: u32, op: &Op, pc: u32, active: u32) -> Outcome {
    if core.grid.need & 0xF0 == 0 {
        return Ok(());
    }
    let base = warp.nodes[node as usize].tracked as usize;
    let Some(track) = core.grid.module.tracks.get(&pc) else { return Ok(()) };
    for (register, name) in &track.reads {
        let missing = active & !warp.tracked[base + *register as usize];
        if missing != 0 && !(matches!(op.action, Action::Branch) && active == 0) {
            let message = format!("reads register {name}, which it has never written");
            return Err(Trouble::new(FindingKind::Uninitialised, missing.trailing_zeros(), message));
        }
    }
    for register in &track.writes {
        warp.tracked[base + *register as usize] |= active;
    }
    Ok(())
}

/// A fragment begins to wait; if others wait at the same place it joins them.
fn wait(core: &mut Core<'_>, warp: &mut Warp, fragment: Fragment) {
    let joined = warp.fragments.iter_mut().find(|other| {
        matches!((other.state, fragment.state), (State::Lanes(_), State::Lanes(_)))
            && other.pc == fragment.pc
            && other.node == fragment.node
    });
    if let Some(other) = joined {
        other.mask |= fragment.mask;
        other.state = State::Ready;
    } else {
        warp.fragments.push(fragment);
    }
    let _ = core;
}

/// Lanes exit.
fn exit(core: &mut Core<'_>, warp: &mut Warp, fragment: Fragment) -> Outcome {
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
        // Lanes that leave at once are as good as gone before. Those that did something first have gone past the others.
        if effects != warp.effects && named & fragment.mask != 0 {
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
        super::hooks::exits(core, warp)?;
    }
    barrier::after_exit(core);
    barrier::wake(core, warp);
    Ok(())
}

/// Lanes that wait at `bar.warp.sync` in several places go on when their masks are all there. Whether any could.
fn meet(core: &mut Core<'_>, warp: &mut Warp) -> bool {
    let mut waiting = Vec::new();
    for (i, fragment) in warp.fragments.iter().enumerate() {
        let op = &core.grid.module.code[fragment.pc as usize];
        if matches!(fragment.state, State::Lanes(_)) && matches!(op.action, Action::Meet) {
            waiting.push((i, fragment.node, op.c, fragment.mask));
        }
    }
    let named: Vec<(usize, u32, u32)> = waiting
        .into_iter()
        .map(|(i, node, code, lanes)| {
            let frame = warp.frame(node, core.grid.constants);
            // SAFETY: the decoder placed the mask for the fragment's frame.
            let masks = unsafe { frame.row::<u32>(code) };
            (i, masks[lanes.trailing_zeros() as usize], lanes)
        })
        .collect();
    for (_, wanted, _) in &named {
        let here = named.iter().filter(|(_, mask, _)| mask == wanted).fold(0, |all, (_, _, lanes)| all | lanes);
        if wanted & warp.live & !here == 0 {
            super::hooks::meets(core, warp, here);
            for (i, mask, _) in &named {
                if mask == wanted {
                    warp.fragments[*i].state = State::Ready;
                    warp.fragments[*i].pc += 1;
                }
            }
            return true;
        }
    }
    false
}
