//! The interpreter's loop: a warp's turn.

use super::barrier;
use super::calls;
use super::core::Core;
use super::trouble::{Outcome, Trouble};
use super::ungiven::track;
use super::wait::{exit, group, meet, wait};
use super::warp::{Fragment, State, Warp};
use crate::decode::op::{self, Action, Barrier};
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
pub const SPINS: u32 = 64;
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
    core.at.0 = warp.index;
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
                wait(warp, fragment);
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
                    "the block has executed {} warp instructions, the limit (max_warp_instructions of the settings)",
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
            (warp.pc, core.at.1) = (pc, pc);
            track(core, warp, &frame, op, mask, active)?;
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
                    (warp.pc, core.at.1) = (pc, pc);
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
                    core.at.1 = pc;
                    super::hooks::hear(core, warp, group.lanes);
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
    warp.steps += granted - patience;
    (fragment.pc, fragment.mask) = (pc, mask);
    Ok(stop)
}
