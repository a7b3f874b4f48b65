//! Races in global memory.
//!
//! The records also keep what a launch has overwritten: blocks that run on several threads and race are undone, and run
//! again one after the other, so that what is reported does not depend on who was faster.

use std::sync::Mutex;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;

use super::clock::{BlockClock, block_bit};
use super::groups::{FOUR, Group, groups, neighbours, run};
use super::order::{Releases, Strong};
use super::page::{PAGE, Pages, Taken, Words};
use super::quick::{Neighbours, Quick, Step, has_vectors};
use super::race::{Access, Conflict, Judge, Kind, READ, Record, Stored, WRITE, certain};
use super::tag::{SCOPE_SHIFT, Scope, Strength, Tag};
use crate::memory::Shadow;

/// The scope of records that many blocks have made.
const GRID: u64 = (Scope::Grid as u64) << SCOPE_SHIFT;

/// The records of global memory during one launch.
#[derive(Debug)]
pub struct GlobalRaces {
    /// Whether nothing is judged quickly.
    #[cfg(test)]
    pub(super) slow: bool,
    base: u64,
    length: u64,
    pages: Pages,
    releases: Mutex<Releases>,
    /// How many releases there have been.
    released: AtomicU32,
    /// The memory's shadow, if the launch may have to be undone.
    undo: Option<Shadow>,
}

impl GlobalRaces {
    /// For the `length` bytes from `base` on. With `undo`, the memory's shadow, blocks may run on several threads, and the
    /// launch can be undone.
    pub fn new(base: u64, length: u64, undo: Option<Shadow>) -> Self {
        let pages = Pages::new(length / 4, undo.is_some());
        GlobalRaces {
            #[cfg(test)]
            slow: false,
            base,
            length,
            pages,
            releases: Mutex::default(),
            released: AtomicU32::new(0),
            undo,
        }
    }

    /// A strong access, before it is judged.
    pub fn strong(&self, clock: &mut BlockClock, access: Strong) {
        let mut releases = self.releases.lock().unwrap_or_else(|e| e.into_inner());
        releases.strong(clock, access);
        self.released.store(releases.count(), Relaxed);
    }

    /// Judges an access of checked addresses, and records it. Memory of the host that kernels may address is not watched.
    pub fn access(&self, clock: &BlockClock, access: &Access, stored: Stored) -> Option<Conflict> {
        #[cfg(target_arch = "x86_64")]
        if has_vectors() {
            // SAFETY: the processor has them.
            return unsafe { self.access_by_vectors(clock, access, stored) };
        }
        self.any_access(clock, access, stored)
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,bmi1,bmi2")]
    fn access_by_vectors(&self, clock: &BlockClock, access: &Access, stored: Stored) -> Option<Conflict> {
        self.any_access(clock, access, stored)
    }

    #[inline(always)]
    fn any_access(&self, clock: &BlockClock, access: &Access, stored: Stored) -> Option<Conflict> {
        let quick = Quick::new(clock, access);
        #[cfg(test)]
        let quick = quick.unless(self.slow);
        let writes = access.kind != Kind::Read;
        if let Some(first) = neighbours(access.mask, access.addresses, access.bytes)
            && self.neighbours(&quick, 0, first, 8 * access.bytes as usize)
        {
            return None;
        }
        let mut mask = access.mask;
        if access.bytes >= 4 {
            let mut rest = mask;
            while rest != 0 {
                let first = rest.trailing_zeros() as usize;
                let end = run(rest, access.addresses, access.bytes.into(), first);
                let lanes = u32::MAX >> (32 - (end - first)) << first;
                let words = (end - first) * access.bytes as usize / 4;
                rest &= !lanes;
                if (FOUR..8 * access.bytes as usize).contains(&words)
                    && self.neighbours(&quick, first as u32, access.addresses[first] / 4, words)
                {
                    mask &= !lanes;
                } else if writes {
                    // Lanes that store the same word are judged in their order.
                    break;
                }
            }
        }
        let mut taken = None;
        let mut kept = None;
        groups(mask, access.addresses, access.bytes, writes, |group| {
            let offset = (group.word * 4).wrapping_sub(self.base);
            if offset >= self.length {
                return None;
            }
            let (number, index) = ((offset / 4) as usize / PAGE, (offset / 4) as usize % PAGE);
            if taken.as_ref().is_none_or(|page: &Taken<'_>| page.number != number) {
                drop(taken.take());
                // SAFETY: the last one has been given back, and only a parallel launch uses several threads.
                taken = Some(unsafe { self.pages.take(number) });
            }
            let words = taken.as_mut()?.words();
            if writes && let Some(shadow) = &self.undo {
                self.keep(words, index, offset, group.bytes, shadow);
            }
            let found = self.judge(&quick, group, words, index, stored);
            certain(access, found, &mut kept)
        })
        .or(kept)
    }

    /// An access of lanes from `lane` on to `count` neighbouring words, if that is enough to judge it by: whether it was,
    /// and is recorded.
    #[inline(always)]
    fn neighbours(&self, quick: &Quick, lane: u32, first: u64, count: usize) -> bool {
        let Quick { clock, access, .. } = *quick;
        let offset = (first * 4).wrapping_sub(self.base);
        let (number, index) = ((offset / 4) as usize / PAGE, (offset / 4) as usize % PAGE);
        if offset >= self.length || index + count > PAGE {
            return false;
        }
        // SAFETY: this is the only one, and only a parallel launch uses several threads.
        let mut page = unsafe { self.pages.take(number) };
        let words = page.words();
        if words.strong.is_some() {
            return false;
        }
        let range = index..index + count;
        let [read, write] = &mut words.plain;
        let writes = access.kind != Kind::Read;
        let (mut foreign, mut known) = (false, !writes && access.bytes >= 4);
        let mut elsewhere = known && access.bytes <= 16 && !clock.knows_others(access.warp);
        let releases = self.released.load(Relaxed);
        let tags = read.tags[range.clone()].iter().zip(&write.tags[range.clone()]);
        for ((r, w), (of_r, of_w)) in tags.zip(read.blocks[range.clone()].iter().zip(&write.blocks[range.clone()])) {
            // Touched, not by this block alone.
            foreign |= (*r != 0) & ((*of_r != clock.block) | (*r & GRID == GRID));
            foreign |= (*w != 0) & ((*of_w != clock.block) | (*w & GRID == GRID));
            // Never written, and read by many blocks of late: nothing to add but this one.
            known &= (*w == 0) & quick.is_known_to_grid(Tag(*r), 0xf, releases);
            // Never written, and read by another block.
            elsewhere &= (*w == 0) & quick.is_read_elsewhere(Tag(*r), *of_r);
        }
        if elsewhere {
            for (word, index) in range.enumerate() {
                let both = block_bit(read.blocks[index]) | block_bit(clock.block);
                let tag = quick.read_by_blocks(lane, word, access.bytes, Tag(read.tags[index]), releases);
                (read.tags[index], read.blocks[index], read.warps[index]) = (tag, clock.block, both);
            }
            return true;
        }
        if known {
            read.warps[range].iter_mut().for_each(|blocks| *blocks |= block_bit(clock.block));
            return true;
        }
        if foreign {
            return false;
        }
        let (written, warps) = (&mut write.tags[range.clone()], &mut read.warps[range.clone()]);
        let tags = &mut read.tags[range.clone()];
        if let Neighbours::Unclear = quick.neighbours(lane, access.bytes, written, tags, warps, |_, _| {}) {
            return false;
        }
        let into = if writes { write } else { read };
        into.blocks[range].fill(clock.block);
        if writes && let Some(shadow) = &self.undo {
            (0..count).for_each(|i| self.keep(words, index + i, offset + 4 * i as u64, 0xf, shadow));
        }
        true
    }

    /// Judges what a group of lanes does to a word.
    #[inline(always)]
    fn judge(&self, quick: &Quick, group: Group, words: &mut Words, index: usize, stored: Stored) -> Option<Conflict> {
        let Quick { clock, access, .. } = *quick;
        let writes = access.kind != Kind::Read;
        let [read, write] = &words.plain;
        let (r, w) = (Tag(read.tags[index]), Tag(write.tags[index]));
        let mine = |tag: Tag, block: u32| tag.is_empty() || block == clock.block && tag.scope() < Scope::Grid;
        let clear = mine(w, write.blocks[index])
            && words
                .strong
                .as_ref()
                .is_none_or(|strong| strong[WRITE].tags[index] == 0 && (!writes || strong[READ].tags[index] == 0));
        let step = if !clear {
            Step::Unclear
        } else if mine(r, read.blocks[index]) {
            if writes { quick.write(&group, w, r) } else { quick.read(&group, w, r, || read.warps_of(index)) }
        } else if !writes && quick.known_to_grid(&group, w, r, self.released.load(Relaxed)) {
            // Read by many blocks of late, and now by this one.
            words.plain[READ].warps[index] |= block_bit(clock.block);
            return None;
        } else {
            Step::Unclear
        };
        let side = if writes { WRITE } else { READ };
        let into = &mut words.plain[side];
        match step {
            Step::Put(tag) => (into.tags[index], into.blocks[index]) = (tag, clock.block),
            Step::Widen(tag, warps) => {
                into.set(index, Record { tag: Tag(tag), block: clock.block, warps, timed: false });
            }
            Step::Unclear => return self.slowly(quick, group, words, index, stored),
        }
        None
    }

    #[cold]
    #[inline(never)]
    fn slowly(&self, quick: &Quick, group: Group, words: &mut Words, index: usize, stored: Stored) -> Option<Conflict> {
        let Quick { clock, access, .. } = *quick;
        let mut cell = words.cell(index);
        let (releases, parallel) = (self.released.load(Relaxed), self.pages.parallel());
        let judge = Judge { clock, access, group, each: &Default::default(), releases, shared: false, parallel };
        let found = judge.judge(&mut cell, stored);
        let side = if access.kind == Kind::Read { READ } else { WRITE };
        if access.strength == Strength::Weak {
            words.plain[side].set(index, cell.plain[side]);
        } else {
            words.strong()[side].set(index, cell.strong[side]);
        }
        found
    }

    /// Keeps what bytes of a word hold, before the launch writes them for the first time.
    #[inline]
    fn keep(&self, words: &mut Words, index: usize, offset: u64, bytes: u8, shadow: &Shadow) {
        let kept = words.kept();
        let new = bytes & !kept.bytes[index];
        if new == 0 {
            return;
        }
        kept.bytes[index] |= new;
        // SAFETY: the access that is judged has been checked, so its bytes and their shadow lie in the arena. Other bytes
        // of the word may be another block's, which may be writing them.
        unsafe {
            let from = (self.base + offset) as *const u8;
            (0..4)
                .filter(|byte| new >> byte & 1 != 0)
                .for_each(|byte| kept.before[index][byte] = from.add(byte).read());
            let bits = new | new << 4;
            kept.shadow[index] = kept.shadow[index] & !bits | shadow.word(offset) & bits;
        }
    }

    /// Puts back all that the launch has written. Nothing else may use the memory meanwhile.
    pub fn undo(&self) {
        let Some(shadow) = &self.undo else { return };
        self.words(|words, index, offset| {
            let Some(kept) = &words.kept else { return };
            let bytes = kept.bytes[index];
            // SAFETY: the bytes were written by a checked access, so they and their shadow lie in the arena.
            unsafe {
                let to = (self.base + offset) as *mut u8;
                let written = (0..4).filter(|byte| bytes >> byte & 1 != 0);
                written.for_each(|byte| to.add(byte).write(kept.before[index][byte]));
                let bits = bytes | bytes << 4;
                shadow.set_word(offset, shadow.word(offset) & !bits | kept.shadow[index] & bits);
            }
        });
    }

    /// Calls `used` with the address and length of all that the launch has read and, after it, of what it has written by
    /// plain stores. Strong accesses count as reads: they may meet their like of other launches, but no plain store.
    pub fn uses(&self, mut used: impl FnMut(u64, u64, bool)) {
        for written in [false, true] {
            let (mut start, mut end) = (0, 0);
            self.words(|words, index, offset| {
                let tag = |records: &[super::page::Records; 2], side: usize| Tag(records[side].tags[index]).bytes();
                let strong = words.strong.as_ref().map_or(0, |strong| tag(strong, READ) | tag(strong, WRITE));
                let bytes = if written { tag(&words.plain, WRITE) } else { tag(&words.plain, READ) | strong };
                for byte in (0..4).filter(|byte| bytes >> byte & 1 != 0) {
                    let address = self.base + offset + byte;
                    if address != end {
                        if start < end {
                            used(start, end - start, written);
                        }
                        start = address;
                    }
                    end = address + 1;
                }
            });
            if start < end {
                used(start, end - start, written);
            }
        }
    }

    /// All words of pages that have been touched, with their offsets in the memory, in order.
    fn words(&self, mut visit: impl FnMut(&Words, usize, u64)) {
        for number in self.pages.used() {
            // SAFETY: the last one has been given back, and no launch is under way on several threads.
            let mut page = unsafe { self.pages.take(number) };
            let words = page.words();
            (0..PAGE).for_each(|index| visit(words, index, 4 * (number * PAGE + index) as u64));
        }
    }
}
