//! What an `mbarrier` is between instructions: its phase, what it still waits for, what it hands on.

use std::collections::BTreeMap;

use crate::watch::clock::Knowledge;

/// Arrivals that one phase can have, at most.
pub const MOST: u32 = (1 << 20) - 1;

/// What an instruction does, in [`crate::decode::op::Op::list`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum What {
    /// `init`: `b` arrivals make a phase.
    Init,
    /// `inval`
    Invalidate,
    /// `arrive`: `b` times, or once; the state before it to `d`.
    Arrive,
    /// `arrive_drop`: likewise, and later phases need as many less.
    ArriveDrop,
    /// `test_wait`, `try_wait`: whether the phase of the state `b` is over, to the predicate `d`.
    Wait,
    /// Likewise, for the phase whose parity is `b`.
    WaitParity,
    /// `cp.async.mbarrier.arrive`
    CopyArrive,
    /// `expect_tx`: the phase is over when `b` more bytes have landed, too.
    Expect,
    /// `arrive.expect_tx`: both, in this order.
    ExpectArrive,
    /// `complete_tx`: as if `b` bytes had landed.
    Complete,
}

/// An instruction's modifiers, as a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct How {
    /// What it does.
    pub what: What,
    /// `.noComplete`: must not be the last arrival of its phase.
    pub no_complete: bool,
    /// `.noinc`: the arrival is one of those that the phase expects.
    pub no_increment: bool,
    /// `.relaxed`: orders nothing.
    pub relaxed: bool,
}

impl How {
    /// As a number.
    pub fn pack(self) -> u32 {
        let flags = [self.no_complete, self.no_increment, self.relaxed];
        flags.iter().enumerate().fold(self.what as u32, |bits, (i, flag)| bits | u32::from(*flag) << (8 + i))
    }

    /// From a number.
    pub fn unpack(bits: u32) -> Self {
        use What::*;
        const ALL: [What; 10] =
            [Init, Invalidate, Arrive, ArriveDrop, Wait, WaitParity, CopyArrive, Expect, ExpectArrive, Complete];
        let what = ALL[(bits & 0xFF) as usize % ALL.len()];
        let flag = |i: u32| bits >> (8 + i) & 1 != 0;
        How { what, no_complete: flag(0), no_increment: flag(1), relaxed: flag(2) }
    }
}

/// One barrier.
#[derive(Debug, Default)]
pub struct State {
    /// Arrivals that make a phase.
    pub expected: u32,
    /// Those that this phase still needs.
    pub pending: u32,
    /// Bytes that are still to land in this phase.
    pub bytes: i64,
    /// Phases that are over.
    pub phase: u64,
    /// What the arrivals of this phase hand on.
    pub arrived: Knowledge,
    /// What those of the phases before did.
    pub completed: Knowledge,
}

impl State {
    /// The 64 bits that the barrier's memory holds, and that an arrival returns.
    pub fn token(&self) -> u64 {
        u64::from(self.pending) | u64::from(self.expected) << 20 | self.phase << 40
    }

    /// So many arrivals, that hand something on.
    pub fn arrive(&mut self, count: u32, knowledge: &Knowledge) {
        self.arrived.join(knowledge);
        self.pending -= count;
        self.settle();
    }

    /// The phase is over if nothing is missing.
    pub fn settle(&mut self) {
        if self.pending == 0 && self.bytes == 0 {
            self.completed.join(&std::mem::take(&mut self.arrived));
            self.phase += 1;
            self.pending = self.expected;
        }
    }
}

/// The arrivals that a token stands for: `mbarrier.pending_count`.
pub fn pending_count(token: u64) -> u32 {
    token as u32 & MOST
}

/// What a barrier still waits for.
#[derive(Debug)]
pub struct Deferred {
    /// The barrier's address.
    pub barrier: u64,
    /// What it will hear of.
    pub what: Landing,
}

/// What a barrier hears of.
#[derive(Debug)]
pub enum Landing {
    /// An arrival that comes when the copies of a lane have landed that began before it.
    Arrival {
        /// The lane's warp.
        warp: u32,
        /// The lane.
        lane: u32,
        /// How many copies it had begun.
        copies: u64,
        /// What the arrival hands on.
        knowledge: Knowledge,
        /// The operation.
        pc: u32,
    },
    /// Bytes.
    Bulk(Bulk),
}

/// A `cp.async.bulk` that has not landed.
#[derive(Debug)]
pub struct Bulk {
    /// Where it reads, strip by strip, as places in this process.
    pub from: Vec<u64>,
    /// Where it writes in shared memory.
    pub to: u64,
    /// How many bytes.
    pub bytes: u64,
    /// The warp that began it.
    pub warp: u32,
    /// The operation.
    pub pc: u32,
    /// What its landing hands on.
    pub knowledge: Knowledge,
}

/// The barriers of a block.
#[derive(Debug, Default)]
pub struct Barriers {
    /// By address.
    pub states: BTreeMap<u64, State>,
    /// What has not landed.
    pub deferred: Vec<Deferred>,
}

impl Barriers {
    /// A copy begins, whose bytes a barrier counts.
    pub fn follow(&mut self, barrier: u64, bulk: Bulk) {
        self.deferred.push(Deferred { barrier, what: Landing::Bulk(bulk) });
    }

    /// The warp and operation of a `cp.async.bulk` that has not landed.
    pub fn left(&self) -> Option<(u32, u32)> {
        self.deferred.iter().find_map(|deferred| match &deferred.what {
            Landing::Bulk(bulk) => Some((bulk.warp, bulk.pc)),
            Landing::Arrival { .. } => None,
        })
    }

    /// The warp and operation whose copy will write a byte of shared memory.
    pub fn covering(&self, address: u64) -> Option<(usize, u32)> {
        self.deferred.iter().find_map(|deferred| match &deferred.what {
            Landing::Bulk(bulk) if (bulk.to..bulk.to + bulk.bytes).contains(&address) => {
                Some((bulk.warp as usize, bulk.pc))
            }
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_follow_each_other() {
        let mut state = State { expected: 2, pending: 2, ..State::default() };
        assert_eq!(pending_count(state.token()), 2);
        state.arrive(1, &Knowledge::default());
        assert_eq!((state.pending, state.phase), (1, 0));
        state.arrive(1, &Knowledge::default());
        assert_eq!((state.pending, state.phase, state.token() >> 40), (2, 1, 1));
        // Bytes that are to land keep a phase open.
        state.bytes = 16;
        state.arrive(2, &Knowledge::default());
        assert_eq!((state.pending, state.phase), (0, 1));
        state.bytes = 0;
        state.settle();
        assert_eq!((state.pending, state.phase), (2, 2));
    }

    #[test]
    fn modifiers_survive_packing() {
        for what in [What::Init, What::ArriveDrop, What::WaitParity, What::CopyArrive, What::Complete] {
            for bits in 0..8 {
                let [no_complete, no_increment, relaxed] = [1, 2, 4].map(|bit| bits & bit != 0);
                let how = How { what, no_complete, no_increment, relaxed };
                assert_eq!(How::unpack(how.pack()), how);
            }
        }
    }
}
