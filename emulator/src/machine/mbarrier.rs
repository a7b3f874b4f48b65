//! `mbarrier`: barriers that lie in shared memory, of which a block has as many as it likes.
//!
//! An arrival hands on what its thread did before; a wait that succeeds knows what the arrivals of its phase handed on.
//! `cp.async.mbarrier.arrive` arrives when the copies of its thread before it have landed; of a `cp.async.bulk` a phase
//! counts the bytes. They land at the last moment: when a phase that somebody waits for lacks nothing else.

use super::access::{addresses, by_space};
use super::core::{Core, OpSpace};
use super::lanes::Frame;
use super::locate::{locate, written};
use super::mbarrier_state::{Deferred, How, Landing, MOST, State, What};
use super::modifiers::{Modifiers, Order};
use super::observe::Made;
use super::trouble::{Outcome, Trouble};
use super::warp::Warp;
use super::{bulk, copy};
use crate::count::traffic::Flow;
use crate::decode::op::{self, Op};
use crate::watch::clock::{Knowledge, Lanes};
use crate::watch::race::Kind;
use crate::watch::{FindingKind, Space};

/// All `mbarrier` instructions that touch memory.
///
/// # Safety
/// The decoder placed the operands.
pub unsafe fn run(core: &mut Core<'_>, warp: &mut Warp, frame: &Frame, op: &Op, mask: u32) -> Outcome {
    let m = Modifiers::unpack(op.y);
    // SAFETY: by the caller's promise.
    let addresses = unsafe { addresses(frame, op, m) };
    warp.spins += 1;
    let mut run = |space: OpSpace, addresses: &[u64; 32], lanes: u32| -> Outcome {
        if space != OpSpace::Shared {
            let message = "an mbarrier that is not in shared memory";
            return Err(Trouble::new(FindingKind::Undefined, lanes.trailing_zeros(), message));
        }
        // SAFETY: as above.
        unsafe { run_at(core, warp, frame, op, lanes, addresses) }
    };
    match m.space {
        OpSpace::Generic => by_space(addresses, mask, run),
        space => run(space, &addresses, mask),
    }
}

unsafe fn run_at(
    core: &mut Core<'_>,
    warp: &mut Warp,
    frame: &Frame,
    op: &Op,
    mask: u32,
    addresses: &[u64; 32],
) -> Outcome {
    let how = How::unpack(op.list);
    let region = core.region(OpSpace::Shared);
    let need = if how.what == What::Init { 0x0F } else { core.grid.need };
    // SAFETY: shared addresses as they are.
    let places = unsafe { locate(core, &region, addresses, mask, 8, 8, need, "uses an mbarrier in")? };
    let knowledge = match how.what {
        What::Arrive | What::ArriveDrop | What::ExpectArrive | What::CopyArrive if !how.relaxed => {
            released(core, warp.index, Lanes { mask, live: warp.live })
        }
        _ => Knowledge::default(),
    };
    let (mut tokens, mut over) = ([0u64; 32], 0u32);
    for lane in (0..32u32).filter(|lane| mask >> lane & 1 != 0) {
        let address = addresses[lane as usize];
        // SAFETY: the decoder placed `b`: 64 bits for the state of a wait, 32 for all else.
        let operand = unsafe {
            match (op.b, how.what) {
                (op::NONE, _) => 1,
                (code, What::Wait) => frame.row::<u64>(code)[lane as usize],
                (code, _) => u64::from(frame.row::<u32>(code)[lane as usize]),
            }
        };
        // SAFETY: located above.
        let holds = unsafe { places[lane as usize].cast::<u64>().read_unaligned() };
        let (token, done) = one(core, (warp.index, warp.live), how, lane, address, operand, holds, &knowledge)?;
        tokens[lane as usize] = token;
        over |= u32::from(done) << lane;
        if let Some(state) = core.mbarriers.states.get(&address) {
            // SAFETY: as above.
            unsafe { places[lane as usize].cast::<u64>().write_unaligned(state.token()) };
            written(core, &region, address, 8);
        } else {
            core.shared.shadow().clear_initialised(address, 8);
        }
    }
    let waits = matches!(how.what, What::Wait | What::WaitParity);
    if waits {
        // SAFETY: the decoder placed `d`, a predicate.
        unsafe { frame.write_predicate(op.d, over, mask) };
    } else if op.d != op::NONE {
        // SAFETY: the decoder placed `d`, of 64 bits.
        unsafe { frame.write(op.d, &tokens, mask) };
    }
    core.progress += u64::from(!waits || over != 0);
    let (kind, order, flow) = match how.what {
        What::Init | What::Invalidate => (Kind::Write, Order::Weak, Flow::Store),
        What::Wait | What::WaitParity => (Kind::Read, Order::RelaxedBlock, Flow::Load),
        // What arrivals order is told by the knowledge that they hand on; among each other they do not race.
        _ => (Kind::Read, Order::RelaxedBlock, Flow::Atomic),
    };
    if how.what == What::Invalidate {
        // Who gives a barrier up does so for its warp: libcu++ lets one lane do it after all have arrived.
        super::hooks::meets(core, warp, warp.live);
    }
    let Some(observer) = &mut core.observer else { return Ok(()) };
    let (index, pc, space, flow) = (warp.index, warp.pc, Space::Shared, Some(flow));
    let made =
        Made { warp: index, live: warp.live, pc, space, kind, flow, order, mask, addresses, bytes: 8, spread: false };
    observer.access(core.grid, &made, &|_, _| (0, 1))
}

/// What lanes hand on now.
pub fn released(core: &mut Core<'_>, warp: u32, lanes: Lanes) -> Knowledge {
    let mut knowledge = None;
    if let Some(observer) = &mut core.observer {
        observer.order(|clock| [knowledge, _] = clock.released(warp, lanes, true, false));
    }
    knowledge.unwrap_or_default()
}

/// One lane's part: the state before it, and of a wait, whether the phase is over.
fn one(
    core: &mut Core<'_>,
    (warp, live): (u32, u32),
    how: How,
    lane: u32,
    address: u64,
    operand: u64,
    holds: u64,
    knowledge: &Knowledge,
) -> Outcome<(u64, bool)> {
    let wrong =
        |message: String| Err(Trouble::at_address(FindingKind::Undefined, lane, Space::Shared, address, message));
    if how.what == What::Init {
        if core.mbarriers.states.contains_key(&address) {
            return wrong("mbarrier.init of an mbarrier that is in use: mbarrier.inval must come first".into());
        }
        let Some(expected) = u32::try_from(operand).ok().filter(|count| (1..=MOST).contains(count)) else {
            return wrong(format!("mbarrier.init for {operand} arrivals: 1 to {MOST} are possible"));
        };
        core.mbarriers.states.insert(address, State { expected, pending: expected, ..State::default() });
        return Ok((0, false));
    }
    if matches!(how.what, What::Wait | What::WaitParity | What::Invalidate) {
        land_for(core, address, how.what == What::Invalidate)?;
    }
    let Some(state) = core.mbarriers.states.get_mut(&address) else {
        return wrong("uses an mbarrier that was not initialised by mbarrier.init".into());
    };
    let token = state.token();
    // Landing may have changed the state since its memory was read.
    if holds != token && !matches!(how.what, What::Wait | What::WaitParity | What::Invalidate) {
        return wrong("uses an mbarrier whose memory something else has written to".into());
    }
    match how.what {
        What::Init => {}
        What::Invalidate => drop(core.mbarriers.states.remove(&address)),
        What::Expect | What::ExpectArrive | What::Complete => {
            // As signed numbers; what is too much shows when nothing ever completes.
            let bytes = i64::from(operand as u32 as i32);
            state.bytes += if how.what == What::Complete { -bytes } else { bytes };
            if how.what != What::ExpectArrive {
                state.settle();
            } else if state.pending == 0 {
                return wrong("arrives at an mbarrier whose phase needs no more arrivals".into());
            } else {
                state.arrive(1, knowledge);
            }
        }
        What::Arrive | What::ArriveDrop => {
            let pending = state.pending;
            let Some(count) = u32::try_from(operand).ok().filter(|count| (1..=pending).contains(count)) else {
                return wrong(format!(
                    "arrives {operand} times at an mbarrier whose phase needs {pending} more arrivals"
                ));
            };
            if how.no_complete && count == pending {
                return wrong("arrives with .noComplete, but completes the phase".into());
            }
            if how.what == What::ArriveDrop {
                state.expected = state.expected.saturating_sub(count);
            }
            state.arrive(count, knowledge);
        }
        What::Wait | What::WaitParity => {
            let over = match how.what {
                What::WaitParity => state.phase & 1 != operand & 1,
                // The phases of a token are counted with 24 bits.
                _ => match (state.phase & 0xFF_FFFF).wrapping_sub(operand >> 40) & 0xFF_FFFF {
                    0 => false,
                    1 => true,
                    _ => return wrong("waits for a phase that is neither this one nor the last".into()),
                },
            };
            if over
                && !how.relaxed
                && let Some(observer) = &mut core.observer
            {
                let completed = &state.completed;
                let lanes = Lanes { mask: 1 << lane, live };
                observer.order(|clock| clock.acquire(warp, lanes, completed, true));
            }
            return Ok((token, over));
        }
        What::CopyArrive => {
            if !how.no_increment {
                if state.pending == MOST {
                    return wrong(format!("an mbarrier with more than {MOST} arrivals to come"));
                }
                state.pending += 1;
            }
            let copies = core.copies[warp as usize].follow(lane);
            let what = Landing::Arrival { warp, lane, copies, knowledge: knowledge.clone(), pc: core.at.1 };
            core.mbarriers.deferred.push(Deferred { barrier: address, what });
        }
    }
    Ok((token, false))
}

/// Lets the copies land that a barrier's phase lacks nothing but, or, if it `must` be, all that it will hear of.
fn land_for(core: &mut Core<'_>, address: u64, must: bool) -> Outcome {
    let ours = |deferred: &&Deferred| deferred.barrier == address;
    let arrival = |deferred: &&Deferred| matches!(deferred.what, Landing::Arrival { .. });
    let due = core.mbarriers.deferred.iter().filter(ours).count();
    let arrivals = core.mbarriers.deferred.iter().filter(ours).filter(arrival).count();
    let Some(state) = core.mbarriers.states.get(&address) else { return Ok(()) };
    if due == 0 || !must && (arrivals as u32) < state.pending {
        return Ok(());
    }
    let all = std::mem::take(&mut core.mbarriers.deferred);
    let (now, later): (Vec<Deferred>, Vec<Deferred>) = all.into_iter().partition(|deferred| ours(&deferred));
    core.mbarriers.deferred = later;
    for deferred in now {
        let (count, bytes, knowledge, by) = match deferred.what {
            Landing::Arrival { warp, lane, copies, knowledge, pc } => {
                copy::land_before(core, warp, lane, copies)?;
                (1, 0, knowledge, (warp, lane, pc))
            }
            Landing::Bulk(copy) => {
                bulk::land(core, &copy)?;
                (0, copy.bytes as i64, copy.knowledge, (copy.warp, 0, copy.pc))
            }
        };
        let Some(state) = core.mbarriers.states.get_mut(&address) else { continue };
        state.bytes -= bytes;
        if count > state.pending {
            let (warp, lane, pc) = by;
            let message = format!("the copies of warp {warp} arrive at an mbarrier whose phase needs no more arrivals");
            let mut trouble = Trouble::at_address(FindingKind::Undefined, lane, Space::Shared, address, message);
            trouble.at = Some(pc);
            return Err(trouble);
        }
        state.arrive(count, &knowledge);
    }
    Ok(())
}
