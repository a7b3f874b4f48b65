//! The sixteen barriers of a block.

use super::core::Core;
use super::trouble::{Outcome, Trouble};
use super::warp::{Fragment, State, Warp};
use crate::decode::op::{self, Barrier, Op};
use crate::watch::FindingKind;

/// One barrier.
#[derive(Clone, Copy, Debug, Default)]
pub struct BarrierState {
    /// How often it has completed.
    pub completed: u64,
    /// Lanes that have arrived.
    pub lanes: u32,
    /// Threads that have arrived as the hardware counts them: whole warps.
    pub threads: u32,
    /// Threads that it waits for; none for all of the block.
    pub expected: Option<u32>,
    /// Where the first to arrive did so.
    pub first: u32,
    /// Of the predicates that arrived: how many hold.
    holding: u32,
    /// The results of the last completions: how many predicates held, and of how many.
    results: [(u32, u32); 8],
}

impl BarrierState {
    fn is_complete(&self, live: u32) -> bool {
        match self.expected {
            None => self.lanes > 0 && self.lanes >= live,
            Some(expected) => self.threads >= expected,
        }
    }

    fn complete(&mut self) {
        self.results[(self.completed % 8) as usize] = (self.holding, self.lanes);
        self.completed += 1;
        (self.lanes, self.threads, self.holding, self.expected) = (0, 0, 0, None);
    }
}

/// The lanes of `active` arrive at the barrier that `op` names. Whether they must wait.
///
/// # Errors
/// When the operands or the arrivals make no sense.
pub fn arrive(
    core: &mut Core<'_>,
    warp: &Warp,
    op: &Op,
    pc: u32,
    active: u32,
    operands: Operands,
) -> Outcome<Option<State>> {
    let how = Barrier::unpack(op.y);
    let lane = active.trailing_zeros();
    let Operands { barrier: id, count, holding } = operands;
    let wrong = |message: String| Err(Trouble::new(FindingKind::BarrierDivergence, lane, message));
    let Some(state) = core.barriers.get_mut(id as usize) else {
        return wrong(format!("barrier {id} does not exist: there are 16"));
    };
    if let Some(count) = count
        && (count == 0 || count % 32 != 0)
    {
        return wrong(format!("a barrier for {count} threads: it must be a positive multiple of 32"));
    }
    if state.threads == 0 {
        state.expected = count;
        state.first = pc;
    } else if state.expected != count {
        let (have, want) = (state.expected, count);
        return wrong(format!("barrier {id} is joined for {want:?} threads while others wait at it for {have:?}"));
    } else if count.is_none() && how.aligned && state.first != pc {
        let first = state.first;
        let mut trouble = Trouble::new(
            FindingKind::BarrierDivergence,
            lane,
            format!("warp {} waits at another barrier of the block than the warps before it", warp.index),
        );
        trouble.other = Some(first);
        return Err(trouble);
    }
    state.lanes += active.count_ones();
    state.threads += if how.aligned { 32 } else { active.count_ones() };
    state.holding += (holding & active).count_ones();
    let waiting = State::Barrier(id, state.completed);
    super::hooks::barrier_arrives(core, warp, active, id, !how.arrive && active == warp.live);
    let state = &mut core.barriers[id as usize];
    if state.is_complete(core.live) {
        state.complete();
        core.completions += 1;
        super::hooks::barrier_completes(core, id, count.is_some());
    }
    Ok((!how.arrive).then_some(waiting))
}

/// What a barrier operation says at run time.
#[derive(Clone, Copy, Debug)]
pub struct Operands {
    /// Which barrier.
    pub barrier: u32,
    /// For how many threads.
    pub count: Option<u32>,
    /// Lanes whose predicate holds, for a reduction.
    pub holding: u32,
}

/// After lanes have exited: barriers that waited for them only are complete.
pub fn after_exit(core: &mut Core<'_>) {
    for id in 0..core.barriers.len() {
        let state = &mut core.barriers[id];
        if state.expected.is_none() && state.is_complete(core.live) {
            state.complete();
            core.completions += 1;
            super::hooks::barrier_completes(core, id as u32, false);
        }
    }
}

/// Wakes the fragments of a warp whose barrier has completed.
pub fn wake(core: &mut Core<'_>, warp: &mut Warp) {
    if core.completions == warp.seen {
        return;
    }
    warp.seen = core.completions;
    let (woken, rest): (Vec<Fragment>, Vec<Fragment>) = warp.fragments.iter().partition(|f| match f.state {
        State::Barrier(id, before) => core.barriers[id as usize].completed > before,
        _ => false,
    });
    warp.fragments = rest;
    for mut fragment in woken {
        let State::Barrier(id, before) = fragment.state else { continue };
        let op = &core.grid.module.code[fragment.pc as usize];
        let (holding, all) = core.barriers[id as usize].results[(before % 8) as usize];
        let frame = warp.frame(fragment.node, core.grid.constants);
        // SAFETY: the decoder placed the destination: a 32-bit register for popc, a predicate else.
        unsafe {
            match Barrier::unpack(op.y).reduce {
                1 => frame.write(op.d, &[holding; 32], fragment.mask),
                2 => frame.write_predicate(op.d, if holding == all { u32::MAX } else { 0 }, fragment.mask),
                3 => frame.write_predicate(op.d, if holding > 0 { u32::MAX } else { 0 }, fragment.mask),
                _ => {}
            }
        }
        super::hooks::barrier_leaves(core, warp, id);
        fragment.pc += 1;
        fragment.state = State::Ready;
        fragment.tired = false;
        warp.add(fragment);
    }
}

/// The operands of a barrier operation for the lanes of `active`.
///
/// # Safety
/// The decoder placed the operands for this frame.
pub unsafe fn operands(frame: &super::lanes::Frame, op: &Op, active: u32) -> Outcome<Operands> {
    let uniform = |code: u32, what: &str| {
        // SAFETY: by the caller's promise.
        let row = unsafe { frame.row::<u32>(code) };
        let first = row[active.trailing_zeros() as usize];
        match (0..32).find(|lane| active >> lane & 1 != 0 && row[*lane as usize] != first) {
            None => Ok(first),
            Some(lane) => Err(Trouble::new(
                FindingKind::BarrierDivergence,
                lane,
                format!("lanes disagree about the {what} of a barrier"),
            )),
        }
    };
    let barrier = uniform(op.a, "number")?;
    let count = if op.b == op::NONE { None } else { Some(uniform(op.b, "thread count")?) };
    // SAFETY: by the caller's promise.
    let holding = if op.c == op::NONE { 0 } else { unsafe { frame.predicate(op.c) } };
    Ok(Operands { barrier, count, holding })
}
