//! The judgement of what is most common, in few steps: plain accesses of whole words whose records are settled, one's
//! own, or read by several warps. Everything else is left to [`Judge`](super::race::Judge), and what is decided here is
//! what it would decide.

use super::clock::{BlockClock, Known, Warps};
use super::groups::Group;
use super::race::{Access, Kind};
use super::tag::{CONSTANT, MIXED, SCOPE_SHIFT, Scope, Strength, THREAD_SHIFT, TICK_SHIFT, Tag, WHOSE};

/// What all lanes of an access have in common.
pub(super) struct Quick<'a> {
    pub clock: &'a BlockClock,
    pub access: &'a Access<'a>,
    known: &'a Known,
    /// Records below are of ticks that lie before this access, whoever made them.
    pub settled: u64,
    now: u32,
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
    /// Nothing is to be recorded.
    Keep,
    /// No race; the new record.
    Put(u64),
    /// No race; a record that reaches to the block.
    Widen(u64, Warps),
    /// Not to be told quickly.
    Unclear,
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
            now,
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
            || record.scope() <= Scope::Warp && record.tick() < self.known[record.warp() as usize]
            || self.is_own(record, group)
    }

    /// Whether the only thread of a record is the only one of the group.
    #[inline(always)]
    fn is_own(&self, record: Tag, group: &Group) -> bool {
        !group.several && (record.0 ^ (self.base + (u64::from(group.lane) << THREAD_SHIFT))) & WHOSE == 0
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
            Scope::Thread if self.is_own(read, group) => Step::Put(new | u64::from(read.bytes())),
            Scope::Thread | Scope::Warp if self.partly && read.warp() == self.warp => Step::Unclear,
            Scope::Thread | Scope::Warp if read.tick() < self.known[read.warp() as usize] => Step::Put(new),
            _ if !whole => Step::Unclear,
            Scope::Thread | Scope::Warp if read.warp() == self.warp => Step::Put(widened(new, Scope::Warp)),
            Scope::Thread | Scope::Warp => {
                let mask = 1 << self.warp | 1 << read.warp();
                Step::Widen(widened(new, Scope::Block), Warps { mask, since: read.tick() })
            }
            Scope::Block => {
                let Warps { mask, since } = warps();
                if new & CONSTANT == read.0 & CONSTANT && read.tick() == self.now && mask >> self.warp & 1 != 0 {
                    return Step::Keep;
                }
                Step::Widen(widened(new, Scope::Block), Warps { mask: mask | 1 << self.warp, since })
            }
            Scope::Grid => Step::Unclear,
        }
    }

    /// Whether a load adds nothing to a record of reads by many blocks, of which the last came after `releases` releases.
    #[inline(always)]
    pub fn known_to_grid(&self, group: &Group, write: Tag, read: Tag, releases: u32) -> bool {
        let same = read.scope() == Scope::Grid && read.tick() == releases && read.0 & CONSTANT >= self.constant;
        let unwritten = self.is_ordered(write, group) && (self.constant == 0 || write.is_empty());
        self.possible && same && unwritten && read.bytes() & group.bytes == group.bytes
    }

    /// A store, likewise.
    #[inline(always)]
    pub fn write(&self, group: &Group, write: Tag, read: Tag) -> Step {
        if !self.possible || read.0 & CONSTANT != 0 || !self.is_ordered(read, group) || !self.is_ordered(write, group) {
            return Step::Unclear;
        }
        let earlier = if write.0 >= self.settled && self.is_own(write, group) { write.bytes() } else { 0 };
        Step::Put(self.tag(group) | u64::from(earlier))
    }

    /// A load or store of 32 lanes of neighbouring words, `words` to a lane, whose records are all settled, or all of the
    /// very lanes that access them now: whether that is so.
    #[inline]
    pub fn neighbours(&self, write: &[u64], read: &[u64], words: usize) -> bool {
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") {
            // SAFETY: the processor has it.
            return self.possible && unsafe { self.neighbours_by_vectors(write, read, words) };
        }
        self.possible && self.all_clear(write, read, words)
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2")]
    fn neighbours_by_vectors(&self, write: &[u64], read: &[u64], words: usize) -> bool {
        self.all_clear(write, read, words)
    }

    #[inline(always)]
    fn all_clear(&self, write: &[u64], read: &[u64], words: usize) -> bool {
        match words {
            1 => self.clear::<1>(write, read),
            2 => self.clear::<2>(write, read),
            4 => self.clear::<4>(write, read),
            _ => false,
        }
    }

    #[inline(always)]
    fn clear<const WORDS: usize>(&self, write: &[u64], read: &[u64]) -> bool {
        let (write, read) = (&write[..32 * WORDS], &read[..32 * WORDS]);
        let mut unclear = false;
        // What is read past the caches must never have been written, nor be.
        let (unwritten, unread) = (self.constant != 0, self.writes);
        for at in 0..32 * WORDS {
            let own = self.base + (((at / WORDS) as u64) << THREAD_SHIFT);
            unclear |= (write[at] >= self.settled) & ((write[at] ^ own) & WHOSE != 0);
            unclear |= (read[at] >= self.settled) & ((read[at] ^ own) & WHOSE != 0);
            unclear |= unwritten & (write[at] != 0) | unread & (read[at] & CONSTANT != 0);
        }
        !unclear
    }

    /// Records an access of neighbouring words.
    #[inline]
    pub fn put_neighbours(&self, into: &mut [u64], words: usize) {
        for (lane, tags) in (0..).zip(into.chunks_exact_mut(words)) {
            tags.iter_mut().for_each(|tag| *tag = (self.base + (lane << THREAD_SHIFT)) | *tag & CONSTANT);
        }
    }
}

/// A record of one group that stands for more; at the block's scope, of warps that each touched all bytes.
#[inline(always)]
fn widened(tag: u64, scope: Scope) -> u64 {
    let mixed = if scope == Scope::Block { MIXED } else { 0 };
    tag & !(3 << SCOPE_SHIFT | mixed) | (scope as u64) << SCOPE_SHIFT
}
