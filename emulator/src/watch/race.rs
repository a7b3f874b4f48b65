//! Races: two accesses to the same bytes, at least one a write, that nothing orders.
//!
//! For each word the last writer and the last readers are kept ([`Tag`]), plain and strong accesses apart; an access
//! that is not ordered after them ([`BlockClock`]) is a race. What orders: barriers, `bar.warp.sync`, and releases that
//! are acquired ([`super::order`]). Accesses that are both strong do not race. Three things are forgiven that the letter
//! of the memory model does not forgive, because ordinary CUDA does them: many threads that store the same value; an
//! atomic on what another thread has read plainly; and a plain read of what atomics change when an atomic on it follows
//! (the loop around a compare-and-swap begins so): such a conflict is [`Conflict::tentative`].

use super::clock::{BlockClock, Readers, Warps, block_bit};
use super::groups::Group;
use super::tag::{CONSTANT, Last, Older, PARTS, Scope, Strength, TICK_SHIFT, Tag};

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
    /// Whether each address stands for several lanes, as where the rows of a matrix are spread over the warp.
    pub spread: bool,
    /// Whether it goes past the coherent caches: `ld.global.nc`, for what no thread writes during the launch.
    pub constant: bool,
    /// Whether the judgement goes on after a race, as if it were none.
    pub all: bool,
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
    /// One of the two is a read by `ld.global.nc`, which no order helps.
    pub constant: bool,
}

/// What a lane's store puts into a word, and what the word holds before it.
pub type Stored<'a> = &'a dyn Fn(u32, u64) -> (u32, u32);

/// A record with what does not fit into its tag. By default that of nobody.
#[derive(Clone, Copy, Default)]
pub(super) struct Record {
    pub tag: Tag,
    /// The block that it belongs to.
    pub block: u32,
    /// More about it, if it reaches to its block; if it reaches to the grid, its blocks, as [`block_bit`]s; if its bytes are
    /// of different times, which and when.
    pub warps: Warps,
    /// Whether it is one of which [`Judge::each`] says how each warp was there last.
    pub timed: bool,
}

impl Record {
    /// Its bytes of one time, and those that are older.
    fn parts(self) -> [Option<Record>; 2] {
        if !self.tag.has_parts() {
            return [Some(self), None];
        }
        let Older { recent, since } = self.warps.older();
        let part = |tick, bytes| Record { tag: self.tag.at(tick, bytes), warps: Warps::default(), ..self };
        [Some(part(self.tag.tick(), recent)), Some(part(since, self.tag.bytes() & !recent))]
    }
}

/// Index of the records of reads, and of writes.
pub(super) const READ: usize = 0;
/// See [`READ`].
pub(super) const WRITE: usize = 1;

/// The records of one word.
#[derive(Clone, Copy)]
pub(super) struct Cell {
    /// Plain reads and writes.
    pub plain: [Record; 2],
    /// Strong ones.
    pub strong: [Record; 2],
}

impl Access<'_> {
    /// A record of a group of this access.
    #[inline(always)]
    pub(super) fn tag(&self, tick: u32, group: &Group) -> Tag {
        let scope = if group.several { Scope::Warp } else { Scope::Thread };
        let tag = Tag::new(tick, self.pc, self.warp * 32 + group.lane, scope, self.strength, group.mixed, group.bytes);
        Tag(tag.0 | if self.constant { CONSTANT } else { 0 })
    }
}

/// One group of an access, about to be judged.
pub(super) struct Judge<'a, 'b> {
    pub clock: &'a BlockClock,
    pub access: &'a Access<'b>,
    pub group: Group,
    /// Of several warps that have read the word, how each did so last.
    pub each: &'a [Last; 32],
    /// How many releases there have been in the launch.
    pub releases: u32,
    /// Whether this is shared memory.
    pub shared: bool,
    /// Whether other blocks run at the same time, so that what a word holds depends on luck.
    pub parallel: bool,
}

impl Judge<'_, '_> {
    /// Whether all that a record stands for comes before this access.
    fn is_ordered(&self, Record { tag, block, warps, timed }: Record) -> bool {
        if tag.is_empty() {
            true
        } else if tag.scope() == Scope::Grid || block != self.clock.block {
            self.clock.knows_foreign(self.access.warp, self.lanes(), block, tag, warps)
        } else {
            // Of several lanes that read the same bytes, at most one is the thread of the record.
            let alone = !self.group.several || self.group.mixed;
            let readers = Readers { warps, each: timed.then_some(self.each), parts: self.touches_parts(tag) };
            self.clock.is_ordered(self.access.warp, self.group.lane, alone, self.lanes(), tag, readers)
        }
    }

    /// Whether each lane touches less than what a record stands for.
    fn touches_parts(&self, tag: Tag) -> bool {
        self.group.mixed || tag.bytes() & !self.group.bytes != 0
    }

    /// The lanes that the group may consist of.
    fn lanes(&self) -> u32 {
        match (self.group.several, self.access.spread) {
            (false, _) => 1 << self.group.lane,
            (true, false) => self.access.mask,
            (true, true) => u32::MAX,
        }
    }

    /// Whether of a group whose lanes touch bytes of their own, only the thread of the record touches the record's.
    fn only_itself(&self, Record { tag, block, .. }: Record) -> bool {
        let alone = tag.scope() == Scope::Thread && tag.warp() == self.access.warp && block == self.clock.block;
        if !(alone && self.group.mixed) {
            return false;
        }
        let touches = |lane: u32| {
            let address = self.access.addresses[lane as usize];
            let part = ((1u32 << self.access.bytes) - 1) << (address & 3);
            address / 4 == self.group.word && part as u8 & tag.bytes() != 0
        };
        let others = self.access.mask & !(1 << (tag.thread() % 32));
        !(0..32).any(|lane| others >> lane & 1 != 0 && touches(lane))
    }

    /// Whether this access and one of a record race.
    fn conflicts(&self, record: Record, wrote: bool, plain: bool) -> bool {
        let whole = record.tag;
        record.parts().into_iter().flatten().any(|part| self.conflicts_with_part(part, whole, wrote, plain))
    }

    /// Likewise, of its bytes of one time; `whole` is the record of all.
    fn conflicts_with_part(&self, record: Record, whole: Tag, wrote: bool, plain: bool) -> bool {
        let Record { tag, block, .. } = record;
        if tag.bytes() & self.group.bytes == 0 || self.is_ordered(record) || self.only_itself(record) {
            return false;
        }
        let other_block = tag.scope() == Scope::Grid || block != self.clock.block;
        let same_warp = !other_block && tag.scope() <= Scope::Warp && tag.warp() == self.access.warp;
        let both_store = wrote && self.access.kind != Kind::Read;
        let (mine, theirs) = (self.access.strength, if plain { Strength::Weak } else { tag.strength() });
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
            Scope::Thread | Scope::Warp => same_warp,
            Scope::Block => !other_block,
            Scope::Grid => true,
        };
        // If it touches all bytes that others and it have touched in parts, one of the others is sure to be among them. Those
        // of one time may well be its own.
        !(within && tag.mixed() && self.touches_parts(whole))
    }

    /// The record of this access joined with an older one of the same kind.
    fn joined(&self, record: Record) -> Record {
        let Record { tag: old, block, .. } = record;
        let new = self.access.tag(self.clock.tick(), &self.group);
        let mine = |tag, warps| Record { tag, block: self.clock.block, warps, timed: false };
        let (thread, same_block) = (self.access.warp * 32 + self.group.lane, block == self.clock.block);
        // What all know already need not be kept.
        let recent = same_block && !old.is_empty() && old.tick() >= self.clock.horizon(self.access.warp);
        if recent && old.scope() == Scope::Thread && old.thread() == thread && !self.group.several {
            let tag = Tag::new(
                new.tick(),
                new.pc(),
                thread,
                Scope::Thread,
                old.strength().min(new.strength()),
                false,
                old.bytes() | new.bytes(),
            );
            return in_parts(record, mine(tag, Warps::default()), new.bytes());
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
            let earlier = if old.scope() == Scope::Grid { record.warps.pack() } else { block_bit(block) };
            return mine(tag, Warps::unpack(earlier | block_bit(self.clock.block)));
        }
        if widened.scope() == Scope::Warp {
            return in_parts(record, mine(widened, Warps::default()), new.bytes());
        }
        let before = match old.scope() {
            Scope::Block => record.warps,
            scope => Warps { mask: 1 << old.warp(), since: old.tick(), several: scope == Scope::Warp },
        };
        let several = before.several && self.group.several && self.access.strength == Strength::Weak;
        let mask = before.mask | 1 << self.access.warp;
        mine(widened, Warps { mask, since: before.since, several })
    }

    fn conflict(&self, Record { tag, block, .. }: Record, wrote: bool) -> Conflict {
        let foreign = tag.scope() == Scope::Grid || block != self.clock.block;
        let mut lane = self.group.lane;
        // Of several lanes, the first that is not the thread of the record.
        if self.group.several && !self.access.spread && !foreign && tag.thread() == self.access.warp * 32 + lane {
            lane += 1;
        }
        let tentative = self.access.kind == Kind::Read && tag.strength() >= Strength::Block;
        let (address, block) = (self.group.word * 4, foreign.then_some(block));
        Conflict { lane, address, pc: tag.pc(), thread: tag.thread(), block, wrote, tentative, constant: false }
    }

    /// Judges the access, and records it if it is no race for certain. A race is told before what may be none.
    #[inline(never)]
    pub(super) fn judge(&self, cell: &mut Cell, stored: Stored) -> Option<Conflict> {
        let writes = self.access.kind != Kind::Read;
        let mut found = None;
        let [plain, strong] = [(cell.plain, true), (cell.strong, false)];
        let records = [plain, strong].map(|([read, write], plain)| [(read, false, plain), (write, true, plain)]);
        for (record, wrote, plain) in records.into_iter().flatten() {
            let beyond =
                if writes { !wrote && plain && record.tag.0 & CONSTANT != 0 } else { wrote && self.access.constant };
            if beyond && record.tag.bytes() & self.group.bytes != 0 {
                found = worse(found, Conflict { tentative: false, constant: true, ..self.conflict(record, wrote) });
                continue;
            }
            if !(wrote || writes) || !self.conflicts(record, wrote, plain) {
                continue;
            }
            let foreign = record.tag.scope() == Scope::Grid || record.block != self.clock.block;
            if writes && !(foreign && self.parallel) && self.is_silent(wrote.then_some(record), stored) {
                continue;
            }
            found = worse(found, self.conflict(record, wrote));
        }
        if found.is_some_and(|conflict| !conflict.tentative) && !self.access.all {
            return found;
        }
        let (records, sticky) = match self.access.strength {
            Strength::Weak => (&mut cell.plain, CONSTANT),
            _ => (&mut cell.strong, 0),
        };
        let record = &mut records[if writes { WRITE } else { READ }];
        let sticky = (record.tag.0 | if self.access.constant { CONSTANT } else { 0 }) & sticky;
        *record = self.joined(*record);
        record.tag.0 |= sticky;
        found
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

/// A record of a thread or a warp that follows an older one and has its bytes too, of which it has touched these itself.
fn in_parts(old: Record, new: Record, touched: u8) -> Record {
    let (before, now) = (old.tag.tick(), new.tag.tick());
    let Older { recent, since } =
        if old.tag.has_parts() { old.warps.older() } else { Older { recent: old.tag.bytes(), since: before } };
    let together = if before == now { touched | recent } else { touched };
    let rest = new.tag.bytes() & !together;
    let since = if rest & !recent != 0 { since } else { before };
    if rest == 0 {
        return new;
    }
    Record { tag: Tag(new.tag.0 | PARTS), warps: Warps::of_parts(Older { recent: together, since }), ..new }
}

/// The first of two conflicts, but a certain one before a tentative one.
fn worse(first: Option<Conflict>, second: Conflict) -> Option<Conflict> {
    first.filter(|first| !first.tentative || second.tentative).or(Some(second))
}

/// A conflict that does not end the judgement of an access is kept, so that the rest is judged too.
#[inline(always)]
pub(super) fn certain(access: &Access, found: Option<Conflict>, kept: &mut Option<Conflict>) -> Option<Conflict> {
    let conflict = found?;
    if !conflict.tentative && !access.all {
        return found;
    }
    *kept = worse(*kept, conflict);
    None
}
