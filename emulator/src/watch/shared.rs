//! The records of a block's shared memory.

use super::clock::{BlockClock, Warps};
use super::groups::{FOUR, Group, four, groups, neighbours};
use super::quick::{Neighbours, Quick, Step, has_vectors};
use super::race::{Access, Cell, Conflict, Judge, Kind, READ, Record, Stored, WRITE, certain};
use super::tag::{Last, Scope, Strength, Tag};

/// Who touched each word last.
#[derive(Debug)]
pub struct SharedRaces {
    plain: [Records; 2],
    /// Of words that several warps have read plainly: how each warp did so last, for each word. Empty for those that never
    /// read such a word.
    each: [Vec<Last>; 32],
    /// Of strong accesses, once there has been one.
    strong: Option<Box<[Records; 2]>>,
    /// Whether nothing is judged quickly.
    #[cfg(test)]
    pub(super) slow: bool,
}

/// Tags, and more about those that reach to the block.
#[derive(Debug)]
struct Records {
    tags: Vec<u64>,
    /// [`Warps`], as one number.
    warps: Vec<u64>,
}

impl Records {
    fn new(words: usize) -> Self {
        Records { tags: vec![0; words], warps: vec![0; words] }
    }

    fn get(&self, index: usize, block: u32) -> Record {
        Record { tag: Tag(self.tags[index]), block, warps: Warps::unpack(self.warps[index]), timed: false }
    }

    fn set(&mut self, index: usize, tag: u64, warps: Warps) {
        self.tags[index] = tag;
        self.warps[index] = warps.pack();
    }
}

impl SharedRaces {
    /// For so many bytes.
    pub fn new(bytes: u32) -> Self {
        let words = bytes.div_ceil(4) as usize;
        SharedRaces {
            plain: [Records::new(words), Records::new(words)],
            each: Default::default(),
            strong: None,
            #[cfg(test)]
            slow: false,
        }
    }

    /// Judges an access of checked addresses, and records it. `stored` is asked only when two stores meet.
    pub fn access(&mut self, clock: &BlockClock, access: &Access, stored: Stored) -> Option<Conflict> {
        #[cfg(target_arch = "x86_64")]
        if has_vectors() {
            // SAFETY: the processor has them.
            return unsafe { self.access_by_vectors(clock, access, stored) };
        }
        self.any_access(clock, access, stored)
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,bmi1,bmi2")]
    fn access_by_vectors(&mut self, clock: &BlockClock, access: &Access, stored: Stored) -> Option<Conflict> {
        self.any_access(clock, access, stored)
    }

    #[inline(always)]
    fn any_access(&mut self, clock: &BlockClock, access: &Access, stored: Stored) -> Option<Conflict> {
        let quick = Quick::new(clock, access);
        #[cfg(test)]
        let quick = quick.unless(self.slow);
        if access.strength != Strength::Weak && self.strong.is_none() {
            let words = self.plain[READ].tags.len();
            self.strong = Some(Box::new([Records::new(words), Records::new(words)]));
        }
        let mut mask = access.mask;
        if self.strong.is_none() && !access.spread {
            if let Some(first) = neighbours(mask, access.addresses, access.bytes)
                && self.neighbours(&quick, 0, first, 8 * access.bytes as usize)
            {
                return None;
            }
            mask &= !match access.bytes {
                4 => self.fours::<4>(&quick),
                8 => self.fours::<8>(&quick),
                16 => self.fours::<16>(&quick),
                _ => 0,
            };
        }
        self.one_by_one(&quick, mask, stored)
    }

    /// An access of `count` neighbouring words, if that is enough to judge it by: whether it was, and is recorded.
    #[inline(always)]
    fn neighbours(&mut self, quick: &Quick, lane: u32, first: u64, count: usize) -> bool {
        let range = first as usize..first as usize + count;
        let ([read, write], each) = (&mut self.plain, &mut self.each);
        let words = read.tags.len();
        let (written, warps) = (&mut write.tags[range.clone()], &mut read.warps[range.clone()]);
        let tags = &mut read.tags[range.clone()];
        let done = quick.neighbours(lane, quick.access.bytes, written, tags, warps, |other, tags| {
            note(&mut of_warp(each, other, words)[range.clone()], tags);
        });
        match done {
            Neighbours::Unclear => return false,
            Neighbours::Done => {}
            Neighbours::Several => note(&mut of_warp(each, quick.access.warp, words)[range], tags),
        }
        true
    }

    /// A warp has read a word that several have. Of the record before, there may have been one.
    fn note_reader(&mut self, index: usize, before: Tag) {
        let after = Tag(self.plain[READ].tags[index]);
        let words = self.plain[READ].tags.len();
        for tag in [before, after] {
            if tag == after || tag.scope() < Scope::Block {
                of_warp(&mut self.each, tag.warp(), words)[index] = tag.last();
            }
        }
    }

    /// Looks at four words at a time: the lanes for which that was enough.
    #[inline(always)]
    fn fours<const BYTES: u64>(&mut self, quick: &Quick) -> u32 {
        let access = quick.access;
        let (lanes, mut done) = (4 * FOUR / BYTES as usize, 0);
        let all = (1u32 << lanes) - 1;
        for first in (0..32).step_by(lanes).filter(|first| access.mask >> first & all == all) {
            let word = four(access.addresses, first, BYTES);
            if word.is_some_and(|word| self.neighbours(quick, first as u32, word, FOUR)) {
                done |= all << first;
            } else if access.kind != Kind::Read {
                // Lanes that store the same word are judged in their order.
                break;
            }
        }
        done
    }

    /// Judges the lanes of `mask` word by word.
    #[inline(always)]
    fn one_by_one(&mut self, quick: &Quick, mask: u32, stored: Stored) -> Option<Conflict> {
        let access = quick.access;
        let writes = access.kind != Kind::Read;
        let mut kept = None;
        groups(mask, access.addresses, access.bytes, writes, |mut group| {
            group.several |= access.spread;
            let index = group.word as usize;
            let [read, write] = &mut self.plain;
            let (r, w) = (Tag(read.tags[index]), Tag(write.tags[index]));
            let clear = match &self.strong {
                None => true,
                Some(strong) => {
                    strong[WRITE].tags[index] < quick.settled && (!writes || strong[READ].tags[index] < quick.settled)
                }
            };
            let step = match () {
                () if !clear => Step::Unclear,
                () if writes => quick.write(&group, w, r),
                () => quick.read(&group, w, r, || Warps::unpack(read.warps[index])),
            };
            let into = if writes { write } else { read };
            match step {
                Step::Put(tag) => into.tags[index] = tag,
                Step::Widen(tag, warps) => {
                    into.set(index, tag, warps);
                    self.note_reader(index, r);
                }
                Step::Unclear => {
                    let found = self.slowly(quick, group, stored);
                    return certain(access, found, &mut kept);
                }
            }
            None
        })
        .or(kept)
    }

    #[cold]
    #[inline(never)]
    fn slowly(&mut self, quick: &Quick, group: Group, stored: Stored) -> Option<Conflict> {
        let Quick { clock, access, .. } = *quick;
        let index = group.word as usize;
        let mut cell = self.cell(index, clock.block);
        let each = std::array::from_fn(|warp| self.each[warp].get(index).copied().unwrap_or_default());
        let before = cell.plain[READ].tag;
        let judge = Judge { clock, access, group, each: &each, releases: 0, shared: true, parallel: false };
        let found = judge.judge(&mut cell, stored);
        self.put(index, &cell, access);
        let reads = access.kind == Kind::Read && access.strength == Strength::Weak;
        if reads && cell.plain[READ].tag != before && cell.plain[READ].tag.scope() == Scope::Block {
            self.note_reader(index, before);
        }
        found
    }

    fn cell(&self, index: usize, block: u32) -> Cell {
        let of = |records: &[Records; 2]| [records[READ].get(index, block), records[WRITE].get(index, block)];
        let [read, write] = of(&self.plain);
        Cell {
            plain: [Record { timed: true, ..read }, write],
            strong: self.strong.as_deref().map_or([Record::default(); 2], of),
        }
    }

    /// Takes over the record that an access may have changed.
    fn put(&mut self, index: usize, cell: &Cell, access: &Access) {
        let side = if access.kind == Kind::Read { READ } else { WRITE };
        let (into, from) = match (&mut self.strong, access.strength) {
            (Some(strong), strength) if strength != Strength::Weak => (strong.as_mut(), &cell.strong),
            _ => (&mut self.plain, &cell.plain),
        };
        into[side].set(index, from[side].tag.0, from[side].warps);
    }
}

/// How a warp last read each word that several have.
#[inline(always)]
fn of_warp(each: &mut [Vec<Last>; 32], warp: u32, words: usize) -> &mut [Last] {
    let of_warp = &mut each[warp as usize];
    if of_warp.is_empty() {
        *of_warp = vec![Last::default(); words];
    }
    of_warp
}

#[inline(always)]
fn note(into: &mut [Last], tags: &[u64]) {
    into.iter_mut().zip(tags).for_each(|(last, tag)| *last = Tag(*tag).last());
}
