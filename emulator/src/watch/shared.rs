//! The records of a block's shared memory.

use super::clock::{BlockClock, Warps};
use super::groups::{groups, neighbours};
use super::quick::{Quick, Step};
use super::race::{Access, Cell, Conflict, Judge, Kind, READ, Record, Stored, WRITE, certain};
use super::tag::{Strength, Tag};

/// Who touched each word last.
#[derive(Debug)]
pub struct SharedRaces {
    plain: [Records; 2],
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
        Record { tag: Tag(self.tags[index]), block, warps: Warps::unpack(self.warps[index]) }
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
            strong: None,
            #[cfg(test)]
            slow: false,
        }
    }

    /// Judges an access of checked addresses, and records it. `stored` is asked only when two stores meet.
    pub fn access(&mut self, clock: &BlockClock, access: &Access, stored: Stored) -> Option<Conflict> {
        let quick = Quick::new(clock, access);
        #[cfg(test)]
        let quick = quick.unless(self.slow);
        let writes = access.kind != Kind::Read;
        if access.strength != Strength::Weak && self.strong.is_none() {
            let words = self.plain[READ].tags.len();
            self.strong = Some(Box::new([Records::new(words), Records::new(words)]));
        }
        if self.strong.is_none()
            && !access.spread
            && let Some(first) = neighbours(access.mask, access.addresses, access.bytes)
        {
            let words = access.bytes as usize / 4;
            let range = first as usize..first as usize + 32 * words;
            let [read, write] = &mut self.plain;
            if quick.neighbours(&write.tags[range.clone()], &read.tags[range.clone()], words) {
                let into = if writes { write } else { read };
                quick.put_neighbours(&mut into.tags[range], words);
                return None;
            }
        }
        let mut kept = None;
        groups(access.mask, access.addresses, access.bytes, writes, |mut group| {
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
                Step::Keep => None,
                Step::Put(tag) => {
                    into.tags[index] = tag;
                    None
                }
                Step::Widen(tag, warps) => {
                    into.set(index, tag, warps);
                    None
                }
                Step::Unclear => {
                    let mut cell = self.cell(index, clock.block);
                    let judge = Judge { clock, access, group, releases: 0, shared: true, parallel: false };
                    let found = judge.judge(&mut cell, stored);
                    self.put(index, &cell, access);
                    certain(access, found, &mut kept)
                }
            }
        })
        .or(kept)
    }

    fn cell(&self, index: usize, block: u32) -> Cell {
        let of = |records: &[Records; 2]| [records[READ].get(index, block), records[WRITE].get(index, block)];
        Cell { plain: of(&self.plain), strong: self.strong.as_deref().map_or([Record::default(); 2], of) }
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
