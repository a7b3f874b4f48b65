//! Races and what is none, played through on the records themselves.

use super::clock::BlockClock;
use super::global::GlobalRaces;
use super::order::{Releases, Strong};
use super::race::{Access, Conflict, Kind, SharedRaces};
use super::tag::Strength;

/// A block of two warps with shared memory.
struct Stage {
    clock: BlockClock,
    shared: SharedRaces,
}

impl Stage {
    fn new() -> Self {
        Stage { clock: BlockClock::new(0, 2), shared: SharedRaces::new(4096) }
    }

    /// Lane `i` of the warp accesses `address(i)`; all write their lane's number, where 99 was before.
    fn access(
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
        let access = Access { warp, pc: 7 + warp, mask, addresses: &addresses, bytes, kind, strength };
        self.shared.access(&self.clock, &access, &|lane, _| (0x0101_0101 * (lane + 1), 99))
    }

    fn barrier(&mut self) {
        (0..2).for_each(|warp| self.clock.arrive(warp, 0, true));
        self.clock.complete(0);
        (0..2).for_each(|warp| self.clock.leave(warp, 0));
    }
}

const ALL: u32 = u32::MAX;

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
    s.clock.arrive(0, 3, false);
    s.clock.arrive(1, 3, true);
    s.clock.complete(3);
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
        (0..2).for_each(|warp| s.clock.arrive(warp, 1, true));
        s.clock.complete(1);
        (0..2).for_each(|warp| s.clock.leave(warp, 1));
        assert_eq!(s.access(0, Kind::Write, ALL, 4, |i| 4 * i).is_some(), third);
    }
}

#[test]
fn clocks_that_move_while_others_wait() {
    // Both warps read a word, one of them after the other has begun to wait and the clock has moved on.
    let mut s = Stage::new();
    s.access(0, Kind::Read, 1, 4, |_| 0);
    s.clock.arrive(0, 0, true);
    s.clock.meet(1, ALL, ALL);
    s.access(1, Kind::Read, 1, 4, |_| 0);
    s.clock.meet(1, ALL, ALL);
    s.clock.arrive(1, 0, true);
    s.clock.complete(0);
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
fn two_lanes_of_one_store() {
    let mut s = Stage::new();
    let found = s.access(0, Kind::Write, 3, 4, |_| 0).unwrap();
    assert_eq!((found.lane, found.thread, found.pc), (1, 0, 7));
    let addresses = [0; 32];
    let access = Access {
        warp: 1,
        pc: 1,
        mask: ALL,
        addresses: &addresses,
        bytes: 4,
        kind: Kind::Write,
        strength: Strength::Weak,
    };
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
    let access = Access {
        warp: 1,
        pc: 1,
        mask: 1,
        addresses: &addresses,
        bytes: 4,
        kind: Kind::Write,
        strength: Strength::Weak,
    };
    assert_eq!(s.shared.access(&s.clock, &access, &|_, _| (99, 99)), None);
    assert!(s.shared.access(&s.clock, &access, &|_, _| (98, 99)).is_some(), "another value is not");
}

#[test]
fn halves_of_a_word_belong_to_different_lanes() {
    let mut s = Stage::new();
    assert_eq!(s.access(0, Kind::Write, ALL, 2, |i| 2 * i), None);
    assert_eq!(s.access(0, Kind::Read, ALL, 2, |i| 2 * i), None);
    assert!(s.access(1, Kind::Read, 1, 2, |_| 6).is_some(), "another warp reads them unordered");
    let mut s = Stage::new();
    assert_eq!(s.access(0, Kind::Write, 1, 2, |_| 0), None);
    assert_eq!(s.access(1, Kind::Write, 1, 2, |_| 2), None, "different bytes of a word");
    assert!(s.access(0, Kind::Write, 2, 2, |_| 2).is_none(), "of a mixed record the block itself is not accused");
    let mut s = Stage::new();
    assert_eq!(s.access(0, Kind::Read, ALL, 1, |i| i), None);
    assert_eq!(s.access(1, Kind::Read, ALL, 1, |i| i), None);
    assert!(s.access(1, Kind::Write, 1, 1, |_| 5).is_some());
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
    // Nor two blocks that store.
    let mut b = Blocks::new(2);
    assert_eq!(b.with(0, Kind::Write, Strength::Volatile, 0), None);
    assert_eq!(b.with(1, Kind::Read, Strength::Volatile, 0), None);
    b.memory
        .access(
            &b.clocks[1],
            &Access {
                warp: 0,
                pc: 0,
                mask: 1,
                addresses: &[1 << 20; 32],
                bytes: 4,
                kind: Kind::Write,
                strength: Strength::Volatile,
            },
            &|_, _| (2, 1),
        )
        .unwrap();
}

/// Blocks of one warp each and global memory.
struct Blocks {
    clocks: Vec<BlockClock>,
    memory: GlobalRaces,
}

impl Blocks {
    fn new(count: u32) -> Self {
        Blocks {
            clocks: (0..count).map(|b| BlockClock::new(b, 1)).collect(),
            memory: GlobalRaces::new(1 << 20, 1 << 20, None),
        }
    }

    /// Lane 0 of the block accesses the word with this number.
    fn access(&mut self, block: usize, kind: Kind, word: u64) -> Option<Conflict> {
        self.with(block, kind, Strength::Weak, word)
    }

    fn with(&mut self, block: usize, kind: Kind, strength: Strength, word: u64) -> Option<Conflict> {
        let addresses = [(1 << 20) + 4 * word; 32];
        let access = Access { warp: 0, pc: block as u32, mask: 1, addresses: &addresses, bytes: 4, kind, strength };
        self.memory.access(&self.clocks[block], &access, &|_, _| (1, 0))
    }

    /// `atomicAdd` on a word, relaxed as CUDA's are.
    fn atomic(&mut self, block: usize, word: u64) -> Option<Conflict> {
        let address = (1 << 20) + 4 * word;
        let strong =
            Strong { warp: 0, address, reads: true, writes: true, acquire: false, release: false, device: true };
        self.memory.strong(&mut self.clocks[block], strong);
        self.with(block, Kind::Update, Strength::Device, word)
    }

    /// A volatile load or store of a word.
    fn volatile(&mut self, block: usize, write: bool, word: u64) -> Option<Conflict> {
        let address = (1 << 20) + 4 * word;
        let strong =
            Strong { warp: 0, address, reads: !write, writes: write, acquire: false, release: false, device: true };
        self.memory.strong(&mut self.clocks[block], strong);
        self.with(block, if write { Kind::Write } else { Kind::Read }, Strength::Device, word)
    }
}

#[test]
fn blocks_race_unless_they_only_read() {
    let mut b = Blocks::new(3);
    assert!(b.access(0, Kind::Read, 5).is_none() && b.access(1, Kind::Read, 5).is_none());
    let found = b.access(2, Kind::Write, 5).unwrap();
    assert_eq!((found.block, found.wrote, found.address), (Some(1), false, (1 << 20) + 20));
    let mut b = Blocks::new(2);
    assert!(b.access(0, Kind::Write, 5).is_none() && b.access(1, Kind::Write, 6).is_none());
    assert_eq!(b.access(1, Kind::Read, 5).unwrap().block, Some(0));
    // One of the readers writes what another has read.
    let mut b = Blocks::new(2);
    assert!(b.access(0, Kind::Read, 5).is_none() && b.access(1, Kind::Read, 5).is_none());
    assert!(b.access(1, Kind::Write, 5).is_some());
}

#[test]
fn the_last_block_reads_what_all_have_written() {
    for fences in [true, false] {
        let mut b = Blocks::new(4);
        let mut found = None;
        for block in 0..4 {
            assert_eq!(b.access(block, Kind::Write, block as u64), None);
            if fences {
                b.clocks[block].fence(0, true);
            }
            assert_eq!(b.atomic(block, 100), None);
        }
        for word in 0..4 {
            found = found.or(b.access(3, Kind::Read, word));
        }
        assert_eq!(found.is_none(), fences, "{found:?}");
    }
}

#[test]
fn a_fence_of_the_block_is_none_for_others() {
    let mut b = Blocks::new(2);
    b.access(0, Kind::Write, 0);
    b.clocks[0].fence(0, false);
    b.atomic(0, 100);
    b.atomic(1, 100);
    assert!(b.access(1, Kind::Read, 0).is_some());
}

#[test]
fn flags_need_a_fence_on_both_sides() {
    for (before, after) in [(true, true), (true, false), (false, true)] {
        let mut b = Blocks::new(2);
        b.access(0, Kind::Write, 0);
        if before {
            b.clocks[0].fence(0, true);
        }
        assert_eq!(b.volatile(0, true, 100), None);
        assert_eq!(b.volatile(1, false, 100), None);
        if after {
            b.clocks[1].fence(0, true);
        }
        assert_eq!(b.access(1, Kind::Read, 0).is_none(), before && after);
    }
}

#[test]
fn all_fence_and_then_one_tells() {
    // Each warp writes and fences; after a barrier one of them raises the flag, without a fence of its own.
    for fences in [true, false] {
        let memory = GlobalRaces::new(1 << 20, 1 << 20, None);
        let (mut teller, mut listener) = (BlockClock::new(0, 2), BlockClock::new(1, 1));
        let access = |clock: &BlockClock, warp: u32, kind: Kind, word: u64| {
            let addresses = [(1 << 20) + 4 * word; 32];
            let access =
                Access { warp, pc: 0, mask: 1, addresses: &addresses, bytes: 4, kind, strength: Strength::Weak };
            memory.access(clock, &access, &|_, _| (1, 0))
        };
        for warp in 0..2 {
            access(&teller, warp, Kind::Write, warp.into());
            if fences {
                teller.fence(warp, true);
            }
        }
        (0..2).for_each(|warp| teller.arrive(warp, 0, true));
        teller.complete(0);
        (0..2).for_each(|warp| teller.leave(warp, 0));
        let strong =
            |reads| Strong { warp: 0, address: 8, reads, writes: true, acquire: false, release: false, device: true };
        memory.strong(&mut teller, strong(false));
        memory.strong(&mut listener, strong(true));
        let found = (0..2).find_map(|word| access(&listener, 0, Kind::Read, word));
        assert_eq!(found.is_none(), fences);
    }
}

#[test]
fn knowledge_is_handed_on_from_block_to_block() {
    let mut b = Blocks::new(3);
    b.access(0, Kind::Write, 0);
    for (from, to, flag) in [(0, 1, 100), (1, 2, 101)] {
        b.clocks[from].fence(0, true);
        b.volatile(from, true, flag);
        b.volatile(to, false, flag);
        b.clocks[to].fence(0, true);
    }
    assert_eq!(b.access(2, Kind::Write, 0), None);
}

#[test]
fn a_grid_barrier_orders_what_all_blocks_read() {
    for barrier in [true, false] {
        let mut b = Blocks::new(3);
        for block in 0..3 {
            assert_eq!(b.access(block, Kind::Read, 0), None);
        }
        if barrier {
            for block in 0..3 {
                b.clocks[block].fence(0, true);
                b.atomic(block, 100);
            }
            for block in 0..3 {
                b.volatile(block, false, 100);
                b.clocks[block].fence(0, true);
            }
        }
        assert_eq!(b.access(1, Kind::Write, 0).is_none(), barrier);
        if barrier {
            assert!(b.access(2, Kind::Read, 0).is_some());
        }
    }
}

#[test]
fn a_store_without_a_fence_ends_what_was_handed_on() {
    let mut releases = Releases::default();
    let (mut a, mut b) = (BlockClock::new(0, 1), BlockClock::new(1, 1));
    let strong =
        |reads, writes| Strong { warp: 0, address: 8, reads, writes, acquire: true, release: false, device: true };
    a.fence(0, true);
    releases.strong(&mut a, strong(false, true));
    assert_eq!(releases.count(), 1);
    releases.strong(&mut b, strong(false, true));
    assert_eq!(releases.count(), 1, "b never fenced");
    releases.strong(&mut b, strong(true, false));
    assert_eq!(releases.count(), 1);
}

#[test]
fn a_launch_can_be_undone() {
    let memory = crate::memory::GlobalMemory::new(1 << 20).unwrap();
    let address = memory.allocate(64).unwrap();
    memory.write(address, &[7; 32]).unwrap();
    let view = memory.view();
    let races = GlobalRaces::new(view.base, view.length, Some(view.shadow));
    let clock = BlockClock::new(0, 1);
    let addresses = std::array::from_fn(|lane| address + 4 * lane as u64);
    for pc in 0..2 {
        // Words 4 to 11: four that were written before, four that were not. The second time nothing new is kept.
        let (kind, strength) = (Kind::Write, Strength::Weak);
        let access = Access { warp: 0, pc, mask: 0xff0, addresses: &addresses, bytes: 4, kind, strength };
        assert_eq!(races.access(&clock, &access, &|_, _| (1, 0)), None);
        memory.write(address + 16, &[pc as u8 + 1; 32]).unwrap();
    }
    races.undo();
    let mut bytes = [0; 64];
    assert_eq!(memory.read(address, &mut bytes), Ok(Some(address + 32)));
    assert_eq!(bytes[..32], [7; 32]);
}
