//! Races: two accesses to the same bytes, at least one a write, that nothing orders.
//!
//! For each word the last writer and the last readers are kept ([`Tag`]); an access that is not ordered after them
//! ([`BlockClock`]) is a race. What orders: barriers, `bar.warp.sync`, and releases that are acquired ([`super::order`]).
//! Accesses that are both strong do not race. Three things are forgiven that the letter of the memory model does not
//! forgive, because ordinary CUDA does them: many threads that store the same value; an atomic on what another thread has
//! read plainly; and a plain read of what atomics change when an atomic on it follows at once (the loop around a
//! compare-and-swap begins so): such a conflict is [`Conflict::tentative`].

use super::clock::{BlockClock, Warps};
use super::tag::{Group, Scope, Strength, TICK_SHIFT, Tag, groups};

/// What an access does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Load.
    Read,
    /// Store.
    Write,
    /// Atomic: both.
    Update,
}

/// An access of the lanes of a warp.
#[derive(Clone, Copy, Debug)]
pub struct Access<'a> {
    /// The warp in its block.
    pub warp: u32,
    /// The operation.
    pub pc: u32,
    /// Its active lanes.
    pub mask: u32,
    /// The lanes' addresses, in the memory's own terms.
    pub addresses: &'a [u64; 32],
    /// Bytes of each lane; a power of two.
    pub bytes: u32,
    /// What it does.
    pub kind: Kind,
    /// Whether others may rely on it.
    pub strength: Strength,
}

/// The two sides of a race.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The lane that came second.
    pub lane: u32,
    /// The word, by its address.
    pub address: u64,
    /// The operation that came first.
    pub pc: u32,
    /// One of the threads that executed it, by its number in the block.
    pub thread: u32,
    /// Its block, if it is another.
    pub block: Option<u32>,
    /// Whether the first access was a write.
    pub wrote: bool,
    /// A plain read of what atomics have changed: no race if an atomic on the same word is what its warp does next.
    pub tentative: bool,
}

/// What a lane's store puts into a word, and what the word holds before it.
pub type Stored<'a> = &'a dyn Fn(u32, u64) -> (u32, u32);

/// A record with what does not fit into its tag.
#[derive(Clone, Copy)]
pub(super) struct Record {
    pub tag: Tag,
    /// The block that it belongs to.
    pub block: u32,
    /// More about it, if it reaches to its block.
    pub warps: Warps,
}

/// The records of one word.
pub(super) struct Cell {
    pub write: Record,
    pub read: Record,
}

impl Access<'_> {
    /// A record of a group of this access.
    #[inline(always)]
    pub(super) fn tag(&self, tick: u32, group: &Group) -> Tag {
        let scope = if group.several { Scope::Warp } else { Scope::Thread };
        Tag::new(tick, self.pc, self.warp * 32 + group.lane, scope, self.strength, group.mixed, group.bytes)
    }
}

/// One group of an access, about to be judged.
pub(super) struct Judge<'a, 'b> {
    pub clock: &'a BlockClock,
    pub access: &'a Access<'b>,
    pub group: Group,
    /// How many releases there have been in the launch.
    pub releases: u32,
    /// Whether this is shared memory.
    pub shared: bool,
}

impl Judge<'_, '_> {
    /// Whether all that a record stands for comes before this access.
    fn is_ordered(&self, Record { tag, block, warps }: Record) -> bool {
        if tag.is_empty() {
            true
        } else if tag.scope() == Scope::Grid || block != self.clock.block {
            self.clock.knows_foreign(self.access.warp, block, tag, warps)
        } else {
            self.clock.is_ordered(self.access.warp, self.group.lane, tag, warps)
        }
    }

    /// Whether this access and one of a record race.
    fn conflicts(&self, record: Record, wrote: bool) -> bool {
        let Record { tag, block, .. } = record;
        if tag.bytes() & self.group.bytes == 0 || self.is_ordered(record) {
            return false;
        }
        let other_block = tag.scope() == Scope::Grid || block != self.clock.block;
        let same_warp = !other_block && tag.scope() <= Scope::Warp && tag.warp() == self.access.warp;
        let both_store = wrote && self.access.kind != Kind::Read;
        let (mine, theirs) = (self.access.strength, tag.strength());
        let suffices = |strength| match strength {
            Strength::Weak => false,
            Strength::Volatile => !(same_warp && self.shared || both_store && other_block && mine == theirs),
            Strength::Block => !other_block,
            Strength::Device => true,
        };
        if suffices(mine) && suffices(theirs) || self.access.kind == Kind::Update && !wrote {
            return false;
        }
        // Is this thread among those that the record stands for, and may it have been alone at these bytes?
        let within = match tag.scope() {
            Scope::Thread => false,
            Scope::Warp => same_warp,
            Scope::Block => !other_block,
            Scope::Grid => true,
        };
        !(within && tag.mixed())
    }

    /// The record of this access joined with an older one of the same kind.
    fn joined(&self, record: Record) -> Record {
        let Record { tag: old, block, .. } = record;
        let new = self.access.tag(self.clock.tick(), &self.group);
        let mine = |tag, warps| Record { tag, block: self.clock.block, warps };
        let (thread, same_block) = (self.access.warp * 32 + self.group.lane, block == self.clock.block);
        if !old.is_empty()
            && same_block
            && old.scope() == Scope::Thread
            && old.thread() == thread
            && !self.group.several
        {
            let (bytes, strength) = (old.bytes() | new.bytes(), old.strength().min(new.strength()));
            return mine(
                Tag::new(new.tick(), new.pc(), thread, Scope::Thread, strength, false, bytes),
                Warps::default(),
            );
        }
        if self.is_ordered(record) {
            return mine(new, Warps::default());
        }
        let scope = match (same_block, old.warp() == self.access.warp) {
            (false, _) => Scope::Grid,
            (_, true) => Scope::Warp,
            _ => Scope::Block,
        };
        let widened = old.widened(new, scope);
        if widened.scope() == Scope::Grid {
            // Blocks have no ticks in common; what they have is the number of releases.
            let tag = Tag(widened.0 & ((1 << TICK_SHIFT) - 1) | u64::from(self.releases) << TICK_SHIFT);
            return mine(tag, Warps::default());
        }
        let before =
            if old.scope() == Scope::Block { record.warps } else { Warps { mask: 1 << old.warp(), since: old.tick() } };
        mine(widened, Warps { mask: before.mask | 1 << self.access.warp, since: before.since })
    }

    fn conflict(&self, Record { tag, block, .. }: Record, wrote: bool) -> Conflict {
        let block = (tag.scope() == Scope::Grid || block != self.clock.block).then_some(block);
        let address = self.group.word * 4;
        let tentative = self.access.kind == Kind::Read && tag.strength() >= Strength::Block;
        Conflict { lane: self.group.lane, address, pc: tag.pc(), thread: tag.thread(), block, wrote, tentative }
    }

    /// Judges a load, and records it.
    #[inline(never)]
    pub(super) fn read(&self, cell: &mut Cell) -> Option<Conflict> {
        let found = self.conflicts(cell.write, true).then(|| self.conflict(cell.write, true));
        if found.is_some_and(|conflict| !conflict.tentative) {
            return found;
        }
        cell.read = self.joined(cell.read);
        found
    }

    /// Judges a store or an atomic, and records it.
    #[inline(never)]
    pub(super) fn write(&self, cell: &mut Cell, stored: Stored) -> Option<Conflict> {
        if self.conflicts(cell.read, false) && !self.is_silent(None, stored) {
            return Some(self.conflict(cell.read, false));
        }
        if self.conflicts(cell.write, true) && !self.is_silent(Some(cell.write), stored) {
            return Some(self.conflict(cell.write, true));
        }
        cell.write = self.joined(cell.write);
        None
    }

    /// Whether the store changes nothing: compared with the word or, when the record is of this very instruction, with
    /// what the other lane stores.
    fn is_silent(&self, first: Option<Record>, stored: Stored) -> bool {
        if self.access.kind == Kind::Update {
            return false;
        }
        let mask =
            (0..4).filter(|byte| self.group.bytes >> byte & 1 != 0).fold(0u32, |mask, byte| mask | 0xff << (8 * byte));
        let (value, old) = stored(self.group.lane, self.group.word);
        let before = match first {
            Some(Record { tag, block, .. })
                if tag.pc() == self.access.pc
                    && tag.tick() == self.clock.tick()
                    && tag.warp() == self.access.warp
                    && block == self.clock.block
                    && tag.thread() % 32 < self.group.lane
                    && self.touches(tag.thread() % 32) =>
            {
                stored(tag.thread() % 32, self.group.word).0
            }
            _ => old,
        };
        (value ^ before) & mask == 0
    }

    /// Whether another lane of this access touches the group's word.
    fn touches(&self, lane: u32) -> bool {
        let (first, word) = (self.access.addresses[lane as usize] / 4, self.group.word);
        let words = u64::from(self.access.bytes).div_ceil(4);
        self.access.mask >> lane & 1 != 0 && (first..first + words).contains(&word)
    }
}

/// A tentative conflict is kept, so that the rest of the access is judged too.
#[inline(always)]
pub(super) fn certain(found: Option<Conflict>, tentative: &mut Option<Conflict>) -> Option<Conflict> {
    let conflict = found?;
    if !conflict.tentative {
        return found;
    }
    tentative.get_or_insert(conflict);
    None
}

/// The records of a block's shared memory.
#[derive(Debug)]
pub struct SharedRaces {
    write: Vec<u64>,
    read: Vec<u64>,
    /// More about the records of `write` and `read` that reach to the block.
    warps: Vec<[Warps; 2]>,
}

impl SharedRaces {
    /// For so many bytes.
    pub fn new(bytes: u32) -> Self {
        let words = bytes.div_ceil(4) as usize;
        SharedRaces { write: vec![0; words], read: vec![0; words], warps: vec![[Warps::default(); 2]; words] }
    }

    /// Judges an access of checked addresses, and records it. `stored` is asked only when two stores meet.
    #[inline(always)]
    pub fn access(&mut self, clock: &BlockClock, access: &Access, stored: Stored) -> Option<Conflict> {
        if access.kind == Kind::Read { self.read(clock, access) } else { self.write(clock, access, stored) }
    }

    fn read(&mut self, clock: &BlockClock, access: &Access) -> Option<Conflict> {
        let old = u64::from(clock.horizon(access.warp)) << TICK_SHIFT;
        let tick = clock.tick();
        let mut tentative = None;
        groups(access.mask, access.addresses, access.bytes, false, |group| {
            let index = group.word as usize;
            let (write, read) = (self.write[index], self.read[index]);
            if write < old && read < old {
                self.read[index] = access.tag(tick, &group).0;
                return None;
            }
            // Read by several warps of late: nothing to add.
            let known = Tag(read);
            if write < old
                && known.scope() == Scope::Block
                && known.tick() == tick
                && known.bytes() & group.bytes == group.bytes
                && known.strength() <= access.strength
                && self.warps[index][1].mask >> access.warp & 1 != 0
            {
                return None;
            }
            let mut cell = self.cell(index, clock.block);
            let found = Judge { clock, access, group, releases: 0, shared: true }.read(&mut cell);
            (self.read[index], self.warps[index][1]) = (cell.read.tag.0, cell.read.warps);
            certain(found, &mut tentative)
        })
        .or(tentative)
    }

    fn write(&mut self, clock: &BlockClock, access: &Access, stored: Stored) -> Option<Conflict> {
        let old = u64::from(clock.horizon(access.warp)) << TICK_SHIFT;
        let tick = clock.tick();
        groups(access.mask, access.addresses, access.bytes, true, |group| {
            let index = group.word as usize;
            if self.write[index] < old && self.read[index] < old {
                self.write[index] = access.tag(tick, &group).0;
                return None;
            }
            let mut cell = self.cell(index, clock.block);
            let found = Judge { clock, access, group, releases: 0, shared: true }.write(&mut cell, stored);
            (self.write[index], self.warps[index][0]) = (cell.write.tag.0, cell.write.warps);
            found
        })
    }

    fn cell(&self, index: usize, block: u32) -> Cell {
        let [write, read] = self.warps[index];
        Cell {
            write: Record { tag: Tag(self.write[index]), block, warps: write },
            read: Record { tag: Tag(self.read[index]), block, warps: read },
        }
    }
}
