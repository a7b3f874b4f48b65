//! One block, and its shared memory.

use super::super::clock::{BlockClock, Lanes};
use super::super::race::{Access, Conflict, Kind};
use super::super::shared::SharedRaces;
use super::super::tag::Strength;
use super::{ALL, access, barrier};

/// A block of two warps with shared memory.
pub struct Stage {
    pub clock: BlockClock,
    shared: SharedRaces,
}

impl Stage {
    pub fn new() -> Self {
        Stage { clock: BlockClock::new(0, 2), shared: SharedRaces::new(4096) }
    }

    /// Lane `i` of the warp accesses `address(i)`; all write their lane's number, where 99 was before.
    pub fn access(
        &mut self,
        warp: u32,
        kind: Kind,
        mask: u32,
        bytes: u32,
        address: impl Fn(u64) -> u64,
    ) -> Option<Conflict> {
        self.strong(warp, kind, Strength::Weak, mask, bytes, address)
    }

    fn strong(
        &mut self,
        warp: u32,
        kind: Kind,
        strength: Strength,
        mask: u32,
        bytes: u32,
        address: impl Fn(u64) -> u64,
    ) -> Option<Conflict> {
        let addresses = std::array::from_fn(|lane| address(lane as u64));
        let access = Access { bytes, strength, ..access(warp, mask, &addresses, kind) };
        self.shared.access(&self.clock, &access, &|lane, _| (0x0101_0101 * (lane + 1), 99))
    }

    fn barrier(&mut self) {
        barrier(&mut self.clock, 2);
    }
}

#[test]
fn a_barrier_between_write_and_read() {
    for barrier in [true, false] {
        let mut s = Stage::new();
        assert_eq!(s.access(0, Kind::Write, ALL, 4, |i| 4 * i), None);
        assert_eq!(s.access(0, Kind::Read, ALL, 4, |i| 4 * i), None, "one's own");
        if barrier {
            s.barrier();
        }
        let found = s.access(1, Kind::Read, ALL, 4, |i| 4 * (31 - i));
        assert_eq!(found.is_none(), barrier, "{found:?}");
        if let Some(conflict) = found {
            assert_eq!((conflict.lane, conflict.address, conflict.pc, conflict.thread), (0, 124, 7, 31));
            assert!(conflict.wrote);
        }
    }
}

#[test]
fn a_barrier_between_read_and_the_next_write() {
    for barrier in [true, false] {
        let mut s = Stage::new();
        s.access(0, Kind::Write, ALL, 4, |i| 4 * i);
        s.barrier();
        // Both warps read, twice: the record widens and must still accuse.
        for warp in [0, 1, 0] {
            assert_eq!(s.access(warp, Kind::Read, ALL, 4, |i| 4 * i), None);
        }
        if barrier {
            s.barrier();
        }
        let found = s.access(0, Kind::Write, ALL, 4, |i| 4 * i);
        assert_eq!(found.map(|c| c.wrote), (!barrier).then_some(false));
    }
}

#[test]
fn a_barrier_that_one_warp_has_only_arrived_at() {
    let mut s = Stage::new();
    s.access(0, Kind::Write, ALL, 4, |i| 4 * i);
    // The producer arrives, the consumer waits: the consumer may read, the producer may not yet overwrite.
    s.clock.arrive(0, Lanes::ALL, 3, false);
    s.clock.arrive(1, Lanes::ALL, 3, true);
    s.clock.complete(3, true);
    s.clock.leave(1, 3);
    assert_eq!(s.access(1, Kind::Read, ALL, 4, |i| 4 * i), None);
    assert!(s.access(0, Kind::Write, ALL, 4, |i| 4 * i).is_some());
}

#[test]
fn a_barrier_of_some_warps_orders_those() {
    for third in [false, true] {
        let mut s = Stage { clock: BlockClock::new(0, 3), shared: SharedRaces::new(4096) };
        (0..2).for_each(|warp| assert_eq!(s.access(warp, Kind::Read, ALL, 4, |i| 4 * i), None));
        if third {
            s.access(2, Kind::Read, 1, 4, |_| 0);
        }
        (0..2).for_each(|warp| s.clock.arrive(warp, Lanes::ALL, 1, true));
        s.clock.complete(1, true);
        (0..2).for_each(|warp| s.clock.leave(warp, 1));
        assert_eq!(s.access(0, Kind::Write, ALL, 4, |i| 4 * i).is_some(), third);
    }
}

#[test]
fn none_of_several_readers_is_forgotten() {
    for third in [false, true] {
        let mut s = Stage { clock: BlockClock::new(0, 4), shared: SharedRaces::new(4096) };
        let readers = [0, 1, 2, 0].into_iter().filter(|warp| third || *warp != 2);
        readers.for_each(|warp| assert_eq!(s.access(warp, Kind::Read, ALL, 4, |i| 4 * i), None));
        [0, 1, 3].into_iter().for_each(|warp| s.clock.arrive(warp, Lanes::ALL, 1, true));
        s.clock.complete(1, true);
        [0, 1, 3].into_iter().for_each(|warp| s.clock.leave(warp, 1));
        assert_eq!(s.access(3, Kind::Write, ALL, 4, |i| 4 * i).is_some(), third);
    }
}

#[test]
fn a_reader_that_comes_back_is_not_forgotten() {
    // Warps 1 and 2 tell warp 0 that they are done. Warp 1 reads once more, and yet another warp reads after it.
    for (bytes, stride, mask) in [(4, 4, ALL), (4, 8, ALL), (4, 4, 0xff), (16, 16, ALL), (2, 2, ALL), (4, 0, 1 << 7)] {
        for (late, third) in [(false, true), (true, false), (true, true)] {
            let mut s = Stage { clock: BlockClock::new(0, 4), shared: SharedRaces::new(4096) };
            let read = |s: &mut Stage, warp| assert_eq!(s.access(warp, Kind::Read, mask, bytes, |i| stride * i), None);
            read(&mut s, 2);
            read(&mut s, 1);
            s.clock.arrive(1, Lanes::ALL, 1, false);
            if late {
                read(&mut s, 1);
            }
            if third {
                read(&mut s, 2);
            }
            s.clock.arrive(2, Lanes::ALL, 1, false);
            s.clock.arrive(0, Lanes::ALL, 1, true);
            s.clock.complete(1, true);
            s.clock.leave(0, 1);
            let found = s.access(0, Kind::Write, mask, bytes, |i| stride * i);
            assert_eq!(found.is_some(), late, "{bytes} bytes, {mask:#x}, another after it: {third}");
        }
    }
}

#[test]
fn words_read_long_ago_do_not_hide_who_reads_now() {
    // Two warps read all; after a barrier half of it again. Then all is read by a third and a fourth, which writes.
    let mut s = Stage { clock: BlockClock::new(0, 4), shared: SharedRaces::new(4096) };
    (0..2).for_each(|warp| assert_eq!(s.access(warp, Kind::Read, ALL, 4, |i| 4 * i), None));
    barrier(&mut s.clock, 4);
    (0..2).for_each(|warp| assert_eq!(s.access(warp, Kind::Read, 0xffff, 4, |i| 4 * i), None));
    (2..4).for_each(|warp| assert_eq!(s.access(warp, Kind::Read, ALL, 4, |i| 4 * i), None));
    assert!(s.access(3, Kind::Write, 1 << 20, 4, |i| 4 * i).is_some());
}

#[test]
fn an_exit_orders_nothing_for_a_barrier_of_some_threads() {
    for counted in [false, true] {
        let mut s = Stage::new();
        s.clock.arrive(1, Lanes::ALL, 1, false);
        // Warp 1 has arrived, reads once more, and exits.
        s.access(1, Kind::Read, ALL, 4, |i| 4 * i);
        s.clock.exit(1);
        s.clock.arrive(0, Lanes::ALL, 1, true);
        s.clock.complete(1, counted);
        s.clock.leave(0, 1);
        assert_eq!(s.access(0, Kind::Write, ALL, 4, |i| 4 * i).is_some(), counted);
    }
}

#[test]
fn clocks_that_move_while_others_wait() {
    // Both warps read a word, one of them after the other has begun to wait and the clock has moved on.
    let mut s = Stage::new();
    s.access(0, Kind::Read, 1, 4, |_| 0);
    s.clock.arrive(0, Lanes::ALL, 0, true);
    s.clock.meet(1, ALL, ALL);
    s.access(1, Kind::Read, 1, 4, |_| 0);
    s.clock.meet(1, ALL, ALL);
    s.clock.arrive(1, Lanes::ALL, 0, true);
    s.clock.complete(0, false);
    (0..2).for_each(|warp| s.clock.leave(warp, 0));
    assert_eq!(s.access(1, Kind::Write, 1, 4, |_| 0), None);
    // Without the barrier, the older of the two still counts.
    let mut s = Stage::new();
    s.access(0, Kind::Read, 1, 4, |_| 0);
    s.clock.meet(1, ALL, ALL);
    s.access(1, Kind::Read, 1, 4, |_| 0);
    assert!(s.access(1, Kind::Write, 1, 4, |_| 0).is_some());
}

#[test]
fn what_exited_warps_did_comes_before_the_next_barrier() {
    let mut s = Stage { clock: BlockClock::new(0, 3), shared: SharedRaces::new(4096) };
    assert_eq!(s.access(2, Kind::Write, ALL, 4, |i| 4 * i), None);
    s.clock.exit(2);
    assert!(s.access(0, Kind::Read, 1, 4, |_| 4).is_some());
    s.barrier();
    (0..2).for_each(|warp| assert_eq!(s.access(warp, Kind::Read, ALL, 4, |i| 4 * i), None));
    s.barrier();
    assert_eq!(s.access(0, Kind::Write, ALL, 4, |i| 4 * i), None);
}

#[test]
fn lanes_of_a_warp_race_until_they_meet() {
    for (meet, read_mask, fine) in [(ALL, ALL, true), (0, ALL, false), (0xffff, 0x00ff, true), (0xffff, ALL, false)] {
        let mut s = Stage::new();
        s.access(0, Kind::Write, ALL, 4, |i| 4 * i);
        if meet != 0 {
            s.clock.meet(0, meet, ALL);
        }
        let neighbour = s.access(0, Kind::Read, read_mask, 4, |i| 4 * (i ^ 1));
        assert_eq!(neighbour.is_none(), fine, "met {meet:#x}, read {read_mask:#x}: {neighbour:?}");
    }
    // Read by all lanes at once, then written by one without meeting.
    let mut s = Stage::new();
    s.access(0, Kind::Read, ALL, 4, |_| 64);
    assert!(s.access(0, Kind::Write, 1, 4, |_| 64).is_some());
    s.clock.meet(0, ALL, ALL);
    assert!(s.access(0, Kind::Write, 1, 4, |_| 64).is_none());
}

#[test]
fn tiles_of_a_warp_that_read_one_word_each() {
    // Half a warp reads a word by all its lanes, and meets, or not; then one of it writes.
    for (half, writer) in [(0xffff, 1), (0xffff, 1 << 7), (0xffff_0000, 1 << 16), (0xffff_0000, 1 << 31)] {
        for (met, found) in [(half, false), (0, true), (!half, true)] {
            let mut s = Stage::new();
            s.access(0, Kind::Read, ALL, 4, |i| 64 + i / 16 * 4);
            if met != 0 {
                s.clock.meet(0, met, ALL);
            }
            let write = s.access(0, Kind::Write, writer, 4, |i| 64 + i / 16 * 4);
            assert_eq!(write.is_some(), found, "{half:#x} {writer:#x} {met:#x}");
        }
    }
}

#[test]
fn two_lanes_of_one_store() {
    let mut s = Stage::new();
    let found = s.access(0, Kind::Write, 3, 4, |_| 0).unwrap();
    assert_eq!((found.lane, found.thread, found.pc), (1, 0, 7));
    let addresses = [0; 32];
    let access = access(1, ALL, &addresses, Kind::Write);
    let mut s = Stage::new();
    assert_eq!(s.shared.access(&s.clock, &access, &|_, _| (5, 99)), None, "all store the same");
    // Vectors that overlap in part.
    let mut s = Stage::new();
    assert!(s.access(0, Kind::Write, 3, 8, |i| 8 * i).is_none());
    assert!(s.access(1, Kind::Write, 2, 8, |_| 8).is_some());
}

#[test]
fn the_same_value_again_is_forgiven() {
    let mut s = Stage::new();
    s.access(0, Kind::Write, 1, 4, |_| 0);
    let addresses = [0; 32];
    let access = access(1, 1, &addresses, Kind::Write);
    assert_eq!(s.shared.access(&s.clock, &access, &|_, _| (99, 99)), None);
    assert!(s.shared.access(&s.clock, &access, &|_, _| (98, 99)).is_some(), "another value is not");
}

#[test]
fn strong_accesses_do_not_race_with_each_other() {
    let mut s = Stage::new();
    let block = Strength::Block;
    assert_eq!(s.strong(0, Kind::Update, block, ALL, 4, |_| 0), None);
    assert_eq!(s.strong(1, Kind::Update, block, ALL, 4, |_| 0), None);
    assert_eq!(s.strong(1, Kind::Read, Strength::Volatile, 1, 4, |_| 0), None, "a volatile flag of another warp");
    let plain = s.access(1, Kind::Read, 1, 4, |_| 0).unwrap();
    assert!(plain.tentative, "a plain read, unless an atomic follows");
    assert_eq!(s.strong(1, Kind::Update, block, 1, 4, |_| 0), None);
    assert!(!s.access(0, Kind::Write, 1, 4, |_| 0).unwrap().tentative, "a plain write");
    s.barrier();
    assert_eq!(s.access(1, Kind::Read, 1, 4, |_| 0), None);
    // Volatile does not order lanes of a warp.
    let mut s = Stage::new();
    s.strong(0, Kind::Write, Strength::Volatile, ALL, 4, |i| 4 * i);
    assert!(s.strong(0, Kind::Read, Strength::Volatile, 1, 4, |_| 4).is_some());
    assert!(s.strong(1, Kind::Read, Strength::Volatile, 1, 4, |_| 8).is_none());
}

#[test]
fn plain_and_strong_accesses_are_kept_apart() {
    // A thread sets a word to zero; after a barrier it takes part in counting, which does not make the others race.
    let mut s = Stage::new();
    s.access(0, Kind::Write, 1, 4, |_| 0);
    s.barrier();
    for warp in [0, 1, 0] {
        assert_eq!(s.strong(warp, Kind::Update, Strength::Device, ALL, 4, |_| 0), None);
    }
    // Likewise a thread that has read it before.
    let mut s = Stage::new();
    s.access(0, Kind::Read, 1, 4, |_| 0);
    s.barrier();
    assert_eq!(s.strong(0, Kind::Read, Strength::Volatile, 1, 4, |_| 0), None);
    assert_eq!(s.strong(1, Kind::Write, Strength::Volatile, 1, 4, |_| 0), None);
    // Without the barrier the plain store races with the counting, also with that of its own warp.
    for warp in [0, 1] {
        let mut s = Stage::new();
        s.access(0, Kind::Write, 1, 4, |_| 0);
        assert_eq!(s.strong(0, Kind::Update, Strength::Device, 1, 4, |_| 0), None);
        let found = s.strong(warp, Kind::Update, Strength::Device, 2, 4, |_| 0).unwrap();
        assert!(found.wrote && !found.tentative);
    }
}

#[test]
fn one_lane_writes_and_all_read() {
    for writer in [0, 5] {
        let mut s = Stage::new();
        s.access(0, Kind::Write, 1 << writer, 4, |_| 8);
        let found = s.access(0, Kind::Read, ALL, 4, |_| 8).unwrap();
        assert_eq!((found.lane == writer, found.thread), (false, writer));
        assert_eq!(s.access(0, Kind::Read, 1 << writer, 4, |_| 8), None, "its own");
        s.clock.meet(0, ALL, ALL);
        assert_eq!(s.access(0, Kind::Read, ALL, 4, |_| 8), None);
    }
    // A matrix's row is named by one lane, and read by others.
    let rows = std::array::from_fn(|lane| 16 * lane as u64);
    let mut s = Stage::new();
    s.access(0, Kind::Write, ALL, 16, |i| 16 * i);
    let load = Access { bytes: 16, spread: true, ..access(0, ALL, &rows, Kind::Read) };
    assert!(s.shared.access(&s.clock, &load, &|_, _| (0, 0)).is_some());
}

#[test]
fn after_the_last_tick_nobody_is_accused_of_what_is_ordered() {
    let mut s = Stage { clock: BlockClock::new(0, 4), shared: SharedRaces::new(4096) };
    let hand_over = |s: &mut Stage| {
        s.clock.arrive(0, Lanes::ALL, 1, false);
        s.clock.arrive(1, Lanes::ALL, 1, true);
        s.clock.complete(1, true);
        s.clock.leave(1, 1);
    };
    // Warps 0 and 2 have read long before.
    (0..3).step_by(2).for_each(|warp| assert_eq!(s.access(warp, Kind::Read, ALL, 4, |i| 4 * i), None));
    barrier(&mut s.clock, 4);
    s.clock.skip_to_the_end();
    for _ in 0..4 {
        assert_eq!(s.access(0, Kind::Write, ALL, 4, |i| 256 + 4 * i), None);
        assert_eq!(s.access(2, Kind::Read, ALL, 4, |i| 1024 + 4 * i), None);
        hand_over(&mut s);
        assert_eq!(s.access(1, Kind::Read, ALL, 4, |i| 256 + 4 * i), None);
        assert_eq!(s.access(1, Kind::Write, ALL, 4, |i| 4 * i), None);
        barrier(&mut s.clock, 4);
    }
    // What was not ordered before is told still.
    let mut s = Stage::new();
    s.access(0, Kind::Write, 1, 4, |_| 512);
    s.clock.skip_to_the_end();
    assert!(s.access(1, Kind::Read, 1, 4, |_| 512).is_some());
}
