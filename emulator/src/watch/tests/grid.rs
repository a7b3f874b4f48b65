//! Several blocks, and global memory.

use super::super::clock::{BlockClock, Lanes};
use super::super::global::GlobalRaces;
use super::super::order::{Releases, Strong};
use super::super::race::{Access, Conflict, Kind};
use super::super::tag::Strength;
use super::{access, barrier};

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
        let access = Access { pc: block as u32, strength, ..access(0, 1, &addresses, kind) };
        self.memory.access(&self.clocks[block], &access, &|_, _| (1, 0))
    }

    /// All lanes of the block read neighbouring places, `bytes` bytes each.
    fn read_row(&mut self, block: usize, bytes: u32) -> Option<Conflict> {
        let addresses = std::array::from_fn(|lane| (1 << 20) + u64::from(bytes) * lane as u64);
        let access = Access { pc: block as u32, bytes, ..access(0, u32::MAX, &addresses, Kind::Read) };
        self.memory.access(&self.clocks[block], &access, &|_, _| (1, 0))
    }

    /// `atomicAdd` on a word, relaxed as CUDA's are.
    fn atomic(&mut self, block: usize, word: u64) -> Option<Conflict> {
        let address = (1 << 20) + 4 * word;
        let strong = Strong {
            warp: 0,
            lanes: Lanes::ALL,
            first: 0,
            answers: true,
            address,
            reads: true,
            writes: true,
            acquire: false,
            release: false,
            device: true,
        };
        self.memory.strong(&mut self.clocks[block], strong);
        self.with(block, Kind::Update, Strength::Device, word)
    }

    /// A volatile load or store of a word.
    fn volatile(&mut self, block: usize, write: bool, word: u64) -> Option<Conflict> {
        let address = (1 << 20) + 4 * word;
        let strong = Strong {
            warp: 0,
            lanes: Lanes::ALL,
            first: 0,
            answers: true,
            address,
            reads: !write,
            writes: write,
            acquire: false,
            release: false,
            device: true,
        };
        self.memory.strong(&mut self.clocks[block], strong);
        self.with(block, if write { Kind::Write } else { Kind::Read }, Strength::Device, word)
    }
}

#[test]
fn volatile_does_not_order_two_blocks_that_store() {
    let mut b = Blocks::new(2);
    assert_eq!(b.with(0, Kind::Write, Strength::Volatile, 0), None);
    assert_eq!(b.with(1, Kind::Read, Strength::Volatile, 0), None);
    b.memory
        .access(
            &b.clocks[1],
            &Access { strength: Strength::Volatile, ..access(0, 1, &[1 << 20; 32], Kind::Write) },
            &|_, _| (2, 1),
        )
        .unwrap();
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
fn who_writes_a_row_must_have_heard_from_all_who_read_it() {
    for bytes in [2, 4, 8, 16] {
        for told in 0..8u32 {
            let mut b = Blocks::new(4);
            for block in 0..3 {
                assert_eq!(b.read_row(block, bytes), None);
                if told >> block & 1 != 0 {
                    b.clocks[block].fence(0, Lanes::ALL, true);
                    b.atomic(block, 1000);
                }
            }
            b.atomic(3, 1000);
            for word in [0, u64::from(bytes) * 8 - 1] {
                let found = b.access(3, Kind::Write, word);
                assert_eq!(found.is_none(), told == 7, "{bytes} bytes, told by {told:03b}: {found:?}");
                assert!(found.is_none_or(|found| !found.wrote && found.block.is_some_and(|block| block < 3)));
            }
            // Who has read the row itself has not heard from the others, either.
            assert_eq!(b.read_row(0, bytes).is_some(), told == 7, "written since by who knew of all");
        }
    }
}

#[test]
fn the_last_block_reads_what_all_have_written() {
    for fences in [true, false] {
        let mut b = Blocks::new(4);
        let mut found = None;
        for block in 0..4 {
            assert_eq!(b.access(block, Kind::Write, block as u64), None);
            if fences {
                b.clocks[block].fence(0, Lanes::ALL, true);
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
    b.clocks[0].fence(0, Lanes::ALL, false);
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
            b.clocks[0].fence(0, Lanes::ALL, true);
        }
        assert_eq!(b.volatile(0, true, 100), None);
        assert_eq!(b.volatile(1, false, 100), None);
        if after {
            b.clocks[1].fence(0, Lanes::ALL, true);
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
        let touch = |clock: &BlockClock, warp: u32, kind: Kind, word: u64| {
            let addresses = [(1 << 20) + 4 * word; 32];
            memory.access(clock, &access(warp, 1, &addresses, kind), &|_, _| (1, 0))
        };
        for warp in 0..2 {
            touch(&teller, warp, Kind::Write, warp.into());
            if fences {
                teller.fence(warp, Lanes::ALL, true);
            }
        }
        barrier(&mut teller, 2);
        let strong = |reads| Strong {
            warp: 0,
            lanes: Lanes::ALL,
            first: 0,
            answers: true,
            address: 8,
            reads,
            writes: true,
            acquire: false,
            release: false,
            device: true,
        };
        memory.strong(&mut teller, strong(false));
        memory.strong(&mut listener, strong(true));
        let found = (0..2).find_map(|word| touch(&listener, 0, Kind::Read, word));
        assert_eq!(found.is_none(), fences);
    }
}

#[test]
fn knowledge_is_handed_on_from_block_to_block() {
    let mut b = Blocks::new(3);
    b.access(0, Kind::Write, 0);
    for (from, to, flag) in [(0, 1, 100), (1, 2, 101)] {
        b.clocks[from].fence(0, Lanes::ALL, true);
        b.volatile(from, true, flag);
        b.volatile(to, false, flag);
        b.clocks[to].fence(0, Lanes::ALL, true);
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
                b.clocks[block].fence(0, Lanes::ALL, true);
                b.atomic(block, 100);
            }
            for block in 0..3 {
                b.volatile(block, false, 100);
                b.clocks[block].fence(0, Lanes::ALL, true);
            }
        }
        assert_eq!(b.access(1, Kind::Write, 0).is_none(), barrier);
        if barrier {
            assert!(b.access(2, Kind::Read, 0).is_some());
        }
    }
}

#[test]
fn who_has_not_heard_from_all_readers_must_not_write() {
    // Four blocks read; three of them, or all, tell the writer.
    for told in [3, 4] {
        let mut b = Blocks::new(5);
        for block in 1..5 {
            assert_eq!(b.access(block, Kind::Read, 0), None);
        }
        for block in 1..=told {
            b.clocks[block].fence(0, Lanes::ALL, true);
            b.atomic(block, 100);
        }
        b.atomic(0, 100);
        assert_eq!(b.access(0, Kind::Write, 0).is_none(), told == 4);
    }
    // Nor who has heard from all of those that had read before the last one did.
    let mut b = Blocks::new(5);
    for block in 1..4 {
        assert_eq!(b.access(block, Kind::Read, 0), None);
        b.clocks[block].fence(0, Lanes::ALL, true);
        b.atomic(block, 100);
    }
    b.atomic(0, 100);
    for _ in 0..2 {
        assert_eq!(b.access(4, Kind::Read, 0), None);
    }
    assert!(b.access(0, Kind::Write, 0).is_some());
}

#[test]
fn a_store_without_a_fence_ends_what_was_handed_on() {
    let mut releases = Releases::default();
    let (mut a, mut b) = (BlockClock::new(0, 1), BlockClock::new(1, 1));
    let strong = |reads, writes| Strong {
        warp: 0,
        lanes: Lanes::ALL,
        first: 0,
        answers: true,
        address: 8,
        reads,
        writes,
        acquire: true,
        release: false,
        device: true,
    };
    a.fence(0, Lanes::ALL, true);
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
        let access = Access { pc, ..access(0, 0xff0, &addresses, Kind::Write) };
        assert_eq!(races.access(&clock, &access, &|_, _| (1, 0)), None);
        memory.write(address + 16, &[pc as u8 + 1; 32]).unwrap();
    }
    races.undo();
    let mut bytes = [0; 64];
    assert_eq!(memory.read(address, &mut bytes), Ok(Some(address + 32)));
    assert_eq!(bytes[..32], [7; 32]);
}

#[test]
fn what_is_read_past_the_caches_is_written_by_nobody() {
    let read = |b: &Blocks, block: usize, word: u64| {
        let addresses = [(1 << 20) + 4 * word; 32];
        let made = Access { constant: true, ..access(0, 1, &addresses, Kind::Read) };
        b.memory.access(&b.clocks[block], &made, &|_, _| (1, 0))
    };
    // By the same thread, in either order; other words do not matter.
    let mut b = Blocks::new(2);
    assert_eq!(b.access(0, Kind::Write, 5), None);
    assert_eq!(read(&b, 0, 6), None);
    assert!(read(&b, 0, 5).is_some_and(|found| found.constant && found.wrote));
    assert!(b.access(0, Kind::Write, 6).is_some_and(|found| found.constant && !found.wrote));
    // Though others read it otherwise, before and after.
    let mut b = Blocks::new(3);
    for block in 0..3 {
        assert_eq!(b.access(block, Kind::Read, 5), None);
        assert_eq!(read(&b, 1, 5), None);
    }
    assert!(b.atomic(1, 5).is_some_and(|found| found.constant));
}
