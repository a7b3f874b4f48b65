//! The judgement of what is most common, in few steps: plain accesses of whole words whose records are settled, one's
//! own, or read by several warps. Everything else is left to [`Judge`](super::race::Judge), and what is decided here is
//! what it would decide.

use super::clock::{BlockClock, Known, Warps};
use super::groups::Group;
use super::race::{Access, Kind};
use super::tag::{CONSTANT, MIXED, PARTS, SCOPE_SHIFT, SEVERAL, Scope, Strength, THREAD_SHIFT, TICK_SHIFT, Tag, WHOSE};

/// What all lanes of an access have in common.
pub(super) struct Quick<'a> {
    pub clock: &'a BlockClock,
    pub access: &'a Access<'a>,
    known: &'a Known,
    /// Records below are of ticks that lie before this access, whoever made them.
    pub settled: u64,
    warp: u32,
    /// The record of lane 0, as if it were alone at its word.
    base: u64,
    /// [`CONSTANT`], if it is one that does not see what the launch writes.
    constant: u64,
    writes: bool,
    /// Whether only some lanes of the warp have met, so that it is not all one what a warp knows.
    partly: bool,
    /// Whether there is a quick way at all.
    possible: bool,
}

/// What a quick judgement comes to.
pub(super) enum Step {
    /// No race; the new record.
    Put(u64),
    /// No race; a record that reaches to the block.
    Widen(u64, Warps),
    /// Not to be told quickly.
    Unclear,
}

/// What a quick judgement of neighbouring words comes to.
#[derive(Clone, Copy)]
pub(super) enum Neighbours {
    /// Not to be told quickly.
    Unclear,
    /// No race, and all is recorded.
    Done,
    /// So it is; of words that several warps have read, this one among them now.
    Several,
}

const WHOLE: u8 = 0xf;

impl<'a> Quick<'a> {
    pub fn new(clock: &'a BlockClock, access: &'a Access<'a>) -> Self {
        let (warp, now) = (access.warp, clock.tick());
        let constant = if access.constant { CONSTANT } else { 0 };
        Quick {
            clock,
            access,
            known: clock.known(warp),
            // Ticks begin at 1, so that words that nobody has touched are settled too.
            settled: u64::from(clock.horizon(warp).max(1)) << TICK_SHIFT,
            warp,
            base: Tag::new(now, access.pc, warp * 32, Scope::Thread, Strength::Weak, false, WHOLE).0 | constant,
            constant,
            writes: access.kind != Kind::Read,
            partly: clock.has_met_partly(warp),
            possible: access.strength == Strength::Weak && access.kind != Kind::Update,
        }
    }

    /// With no quick way, to be compared with.
    #[cfg(test)]
    pub fn unless(self, slow: bool) -> Self {
        Quick { possible: self.possible && !slow, ..self }
    }

    /// Whether what a record of this block stands for comes before what a lane does.
    #[inline(always)]
    fn is_ordered(&self, record: Tag, group: &Group) -> bool {
        record.0 < self.settled
            || record.scope() <= Scope::Warp && record.tick() < self.known.warps[record.warp() as usize]
            || self.is_own(record, group)
    }

    /// Whether the only thread of a record is the only one of the group.
    #[inline(always)]
    fn is_own(&self, record: Tag, group: &Group) -> bool {
        !group.several && (record.0 ^ (self.base + (u64::from(group.lane) << THREAD_SHIFT))) & WHOSE == 0
    }

    /// One's own record and a later one of the same lane in one, if it is all one when which bytes were touched.
    #[inline(always)]
    fn followed(&self, own: Tag, later: u64) -> Step {
        match own.bytes() & !(later as u8) {
            0 => Step::Put(later),
            more if (own.0 ^ later) >> TICK_SHIFT == 0 && own.0 & PARTS == 0 => Step::Put(later | u64::from(more)),
            _ => Step::Unclear,
        }
    }

    /// The record of a group.
    #[inline(always)]
    fn tag(&self, group: &Group) -> u64 {
        let scope = if group.several { Scope::Warp } else { Scope::Thread };
        let rest = (u64::from(group.lane) << THREAD_SHIFT) + ((scope as u64) << SCOPE_SHIFT);
        (self.base & !u64::from(WHOLE)) + rest + if group.mixed { MIXED } else { 0 } + u64::from(group.bytes)
    }

    /// A load, by the word's plain records of this block.
    #[inline(always)]
    pub fn read(&self, group: &Group, write: Tag, read: Tag, warps: impl FnOnce() -> Warps) -> Step {
        if !self.possible || !self.is_ordered(write, group) || self.constant != 0 && !write.is_empty() {
            return Step::Unclear;
        }
        let new = self.tag(group) | read.0 & CONSTANT;
        if read.0 < self.settled {
            return Step::Put(new);
        }
        let whole = read.bytes() & group.bytes == WHOLE && !read.mixed();
        match read.scope() {
            Scope::Thread if self.is_own(read, group) => self.followed(read, new),
            Scope::Thread | Scope::Warp if self.partly && read.warp() == self.warp => Step::Unclear,
            Scope::Thread | Scope::Warp if read.tick() < self.known.warps[read.warp() as usize] => Step::Put(new),
            _ if !whole => Step::Unclear,
            Scope::Thread | Scope::Warp if read.warp() == self.warp => {
                Step::Put(new & !(3 << SCOPE_SHIFT) | (Scope::Warp as u64) << SCOPE_SHIFT)
            }
            Scope::Thread | Scope::Warp => {
                let mask = 1 << self.warp | 1 << read.warp();
                let several = group.several && read.scope() == Scope::Warp;
                Step::Widen(of_block(new, group), Warps { mask, since: read.tick(), several })
            }
            Scope::Block => {
                let Warps { mask, since, several } = warps();
                let several = group.several && several;
                Step::Widen(of_block(new, group), Warps { mask: mask | 1 << self.warp, since, several })
            }
            Scope::Grid => Step::Unclear,
        }
    }

    /// Whether a load adds nothing but its block to a record of reads by many blocks, of which the last came after
    /// `releases` releases.
    #[inline(always)]
    pub fn known_to_grid(&self, group: &Group, write: Tag, read: Tag, releases: u32) -> bool {
        let unwritten = self.is_ordered(write, group) && (self.constant == 0 || write.is_empty());
        self.is_known_to_grid(read, group.bytes, releases) && unwritten
    }

    /// Whether a load of some bytes, which nothing else forbids, adds nothing else to such a record.
    #[inline(always)]
    pub fn is_known_to_grid(&self, read: Tag, bytes: u8, releases: u32) -> bool {
        let same = (read.scope() == Scope::Grid) & (read.tick() == releases) & (read.0 & CONSTANT >= self.constant);
        self.possible & same & (read.bytes() & bytes == bytes)
    }

    /// Whether a record is of a plain read of a whole word by another block than this one, of which nothing is known.
    #[inline(always)]
    pub fn is_read_elsewhere(&self, read: Tag, block: u32) -> bool {
        let plain = read.scope() < Scope::Grid && read.0 & (MIXED | u64::from(WHOLE)) == u64::from(WHOLE);
        self.possible & !read.is_empty() & plain & (block != self.clock.block)
    }

    /// The record of a word of those that neighbouring lanes read, `bytes` bytes each, as another block has done before
    /// (`other`) and nobody knows of.
    #[inline(always)]
    pub fn read_by_blocks(&self, lane: u32, word: usize, bytes: u32, other: Tag, releases: u32) -> u64 {
        let own = match bytes {
            4 => self.of_neighbours::<4>(lane, word),
            8 => self.of_neighbours::<8>(lane, word),
            _ => self.of_neighbours::<16>(lane, word),
        };
        let rest = own & ((1 << TICK_SHIFT) - 1) | (Scope::Grid as u64) << SCOPE_SHIFT | other.0 & CONSTANT;
        rest | u64::from(releases) << TICK_SHIFT
    }

    /// A store, likewise.
    #[inline(always)]
    pub fn write(&self, group: &Group, write: Tag, read: Tag) -> Step {
        if !self.possible || read.0 & CONSTANT != 0 || !self.is_ordered(read, group) || !self.is_ordered(write, group) {
            return Step::Unclear;
        }
        let new = self.tag(group);
        let own = write.0 >= self.settled && self.is_own(write, group);
        if own { self.followed(write, new) } else { Step::Put(new) }
    }

    /// The record of a word of those that neighbouring lanes touch, from `lane` on: `BYTES` bytes each.
    #[inline(always)]
    fn of_neighbours<const BYTES: u32>(&self, lane: u32, word: usize) -> u64 {
        let (shared, each) =
            (const { 4 / if BYTES < 4 { BYTES } else { 4 } }, const { if BYTES > 4 { BYTES / 4 } else { 1 } });
        let rest = if shared > 1 { MIXED | (Scope::Warp as u64) << SCOPE_SHIFT } else { 0 };
        self.base + rest + ((u64::from(lane) + (word as u64 / u64::from(each)) * u64::from(shared)) << THREAD_SHIFT)
    }

    /// A load or store by neighbouring lanes, from `lane` on, of neighbouring words, whose records these are. It is
    /// recorded if all are settled, or were made by the very lanes that touch them now; or by a load, if several warps
    /// have loaded all of them. If one other warp has, `first` is called with it and its records, before they are gone.
    #[inline(always)]
    pub fn neighbours(
        &self,
        lane: u32,
        bytes: u32,
        write: &mut [u64],
        read: &mut [u64],
        warps: &mut [u64],
        first: impl FnOnce(u32, &[u64]),
    ) -> Neighbours {
        match bytes {
            1 => self.any_neighbours::<1>(lane, write, read, warps, first),
            2 => self.any_neighbours::<2>(lane, write, read, warps, first),
            4 => self.any_neighbours::<4>(lane, write, read, warps, first),
            8 => self.any_neighbours::<8>(lane, write, read, warps, first),
            16 => self.any_neighbours::<16>(lane, write, read, warps, first),
            _ => Neighbours::Unclear,
        }
    }

    #[inline(always)]
    fn any_neighbours<const BYTES: u32>(
        &self,
        lane: u32,
        write: &mut [u64],
        read: &mut [u64],
        warps: &mut [u64],
        first: impl FnOnce(u32, &[u64]),
    ) -> Neighbours {
        let mut unclear = !self.possible;
        // What is read past the caches must never have been written, nor be.
        let (unwritten, unread) = (self.constant != 0, self.writes);
        let mut recent = 0;
        for (word, (write, read)) in write.iter().zip(&*read).enumerate() {
            let own = self.of_neighbours::<BYTES>(lane, word);
            unclear |= (*write >= self.settled) & ((*write ^ own) & (WHOSE | MIXED) != 0);
            recent |= u64::from((*read >= self.settled) & ((*read ^ own) & (WHOSE | MIXED) != 0));
            unclear |= unwritten & (*write != 0) | unread & (*read & CONSTANT != 0);
        }
        let mut done = Neighbours::Done;
        if recent != 0 && !unclear {
            done = if BYTES < 4 || self.writes { Neighbours::Unclear } else { self.several(write, read, warps, first) };
        }
        if unclear || matches!(done, Neighbours::Unclear) {
            return Neighbours::Unclear;
        }
        let block = if recent != 0 { (Scope::Block as u64) << SCOPE_SHIFT } else { 0 };
        for (word, tag) in if self.writes { write } else { read }.iter_mut().enumerate() {
            *tag = self.of_neighbours::<BYTES>(lane, word) | block | *tag & CONSTANT;
        }
        done
    }

    /// If all of these words have been loaded by several warps, or all by one other at one time, this warp is added to their
    /// number.
    #[inline(always)]
    fn several(&self, write: &[u64], read: &[u64], warps: &mut [u64], note: impl FnOnce(u32, &[u64])) -> Neighbours {
        const BLOCK: u64 = (Scope::Block as u64) << SCOPE_SHIFT;
        const SCOPE: u64 = 3 << SCOPE_SHIFT;
        const KIND: u64 = SCOPE | MIXED | WHOLE as u64;
        // The records of one warp at one time, whichever its lanes and operations.
        const TIME: u64 = u64::MAX << TICK_SHIFT | (0x3ff & !31) << THREAD_SHIFT;
        let first = Tag(read[0]);
        let (mut many, mut one, mut written) = (true, true, false);
        for (write, read) in write.iter().zip(read) {
            many &= (*read & KIND == BLOCK | u64::from(WHOLE)) & (*read >= self.settled);
            one &= (*read ^ first.0) & TIME == 0;
            one &= (*read & (MIXED | u64::from(WHOLE)) == u64::from(WHOLE)) & (*read & SCOPE < BLOCK);
            written |= *write >= self.settled;
        }
        if many && !written {
            warps.iter_mut().for_each(|warps| *warps = Warps::joined_by(*warps, self.warp));
            return Neighbours::Several;
        }
        let other = first.warp();
        if !one || written || other == self.warp || first.tick() < self.known.warps[other as usize] {
            return Neighbours::Unclear;
        }
        warps.fill(Warps { mask: 1 << self.warp | 1 << other, since: first.tick(), several: false }.pack());
        note(other, read);
        Neighbours::Several
    }
}

/// Whether the processor can do what is compiled for more than any x86-64 can.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(super) fn has_vectors() -> bool {
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("bmi1") && is_x86_feature_detected!("bmi2")
}

/// The record of a group of one warp, as the last of those of several warps that each touched all bytes.
#[inline(always)]
fn of_block(tag: u64, group: &Group) -> u64 {
    let several = if group.several { SEVERAL } else { 0 };
    tag & !(3 << SCOPE_SHIFT | MIXED) | (Scope::Block as u64) << SCOPE_SHIFT | several
}
