//! Who touched a word last: the record that race detection keeps of it, in 64 bits.
//!
//! A record names a thread while one thread touched the word. When several did that nothing orders, it widens to their
//! warp, their block or the grid. Some records are "mixed": their threads touched different bytes, so that it is not
//! known who touched which; such a record never accuses a thread that is itself among those it stands for. Others, of a
//! thread or a warp, have bytes that were touched at different times: see [`Older`].

/// How far a record reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Scope {
    /// One thread.
    Thread,
    /// Several threads of a warp.
    Warp,
    /// Several warps of a block.
    Block,
    /// Several blocks.
    Grid,
}

/// Whether others may rely on an access while it races: atomics, volatile, `.relaxed` and stronger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Strength {
    /// Plain.
    Weak,
    /// `.volatile`: a flag that one thread raises and others poll. Stores of two blocks race (a sum that is added to so
    /// loses something), and in shared memory the lanes of one warp do, which `volatile` does not make wait for each other.
    Volatile,
    /// Strong in the block.
    Block,
    /// Strong on the device.
    Device,
}

/// A record. Zero: never touched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tag(pub u64);

/// Place of the tick: the top, so that records compare by age.
pub const TICK_SHIFT: u32 = 38;
/// The last tick, which does not pass any more: nothing that is recorded with it accuses anybody.
pub const TICK_LIMIT: u32 = (1 << 26) - 1;
/// Of a record that reaches to its block: several lanes of a warp were the last.
pub const SEVERAL: u64 = 1 << 37;
/// Of a record of a thread or a warp, in the same place: some of its bytes are [`Older`].
pub const PARTS: u64 = SEVERAL;
/// Place of the thread.
pub const THREAD_SHIFT: u32 = 9;
/// The bits of a record that say whose it is, when [`Scope::Thread`]; those of another scope differ.
pub const WHOSE: u64 = 0x3ff << THREAD_SHIFT | 3 << SCOPE_SHIFT;
/// Place of the scope.
pub const SCOPE_SHIFT: u32 = 6;
/// Whether it is not known who touched which bytes.
pub const MIXED: u64 = 1 << 8;
/// Of plain reads, in the place of their strength, which needs no telling: one was by `ld.global.nc`.
pub const CONSTANT: u64 = 1 << 4;
/// Operations above this number are recorded as this one.
const PC_LIMIT: u32 = (1 << 18) - 1;

impl Tag {
    /// A record of one group of lanes.
    #[inline(always)]
    pub fn new(tick: u32, pc: u32, thread: u32, scope: Scope, strength: Strength, mixed: bool, bytes: u8) -> Tag {
        Tag(u64::from(tick) << TICK_SHIFT
            | u64::from(pc.min(PC_LIMIT)) << 19
            | u64::from(thread) << THREAD_SHIFT
            | if mixed { MIXED } else { 0 }
            | (scope as u64) << SCOPE_SHIFT
            | (strength as u64) << 4
            | u64::from(bytes))
    }

    /// Never touched.
    #[inline(always)]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// When: the block's tick; of [`Scope::Grid`], how many releases there had been.
    #[inline(always)]
    pub fn tick(self) -> u32 {
        (self.0 >> TICK_SHIFT) as u32
    }

    /// The operation.
    pub fn pc(self) -> u32 {
        (self.0 >> 19) as u32 & PC_LIMIT
    }

    /// The thread in its block; of a wider scope, one of them.
    #[inline(always)]
    pub fn thread(self) -> u32 {
        (self.0 >> THREAD_SHIFT) as u32 & 0x3ff
    }

    /// Its warp.
    #[inline(always)]
    pub fn warp(self) -> u32 {
        self.thread() >> 5
    }

    /// Whether it is not known who touched which bytes.
    #[inline(always)]
    pub fn mixed(self) -> bool {
        self.0 & MIXED != 0
    }

    /// How far it reaches.
    #[inline(always)]
    pub fn scope(self) -> Scope {
        match self.0 >> SCOPE_SHIFT & 3 {
            0 => Scope::Thread,
            1 => Scope::Warp,
            2 => Scope::Block,
            _ => Scope::Grid,
        }
    }

    /// The weakest of its accesses.
    #[inline(always)]
    pub fn strength(self) -> Strength {
        match self.0 >> 4 & 3 {
            0 => Strength::Weak,
            1 => Strength::Volatile,
            2 => Strength::Block,
            _ => Strength::Device,
        }
    }

    /// Which bytes of the word.
    #[inline(always)]
    pub fn bytes(self) -> u8 {
        self.0 as u8 & 0xf
    }

    /// Whether some of its bytes are [`Older`], if it is of a thread or a warp.
    pub fn has_parts(self) -> bool {
        self.0 & PARTS != 0 && self.scope() < Scope::Block
    }

    /// At another time, for other bytes.
    pub fn at(self, tick: u32, bytes: u8) -> Tag {
        Tag(self.0 & ((1 << TICK_SHIFT) - 1) & !(PARTS | 0xf) | u64::from(tick) << TICK_SHIFT | u64::from(bytes))
    }

    /// Who was last, of what reaches to the block.
    pub fn last(self) -> Last {
        let several =
            if self.scope() == Scope::Block { self.0 & SEVERAL } else { SEVERAL * (self.0 >> SCOPE_SHIFT & 1) };
        Last(self.tick() << 6 | (several >> 32) as u32 | (self.thread() % 32))
    }

    /// Both accesses, `other` newer, in one record that reaches to `scope`.
    pub fn widened(self, other: Tag, scope: Scope) -> Tag {
        let scope = scope.max(self.scope()).max(other.scope());
        // At the block's scope what counts is the bytes of each warp, and a warp's lanes may differ among themselves.
        let counts = |tag: Tag| tag.mixed() && (scope <= Scope::Warp || tag.scope() >= Scope::Block);
        // Several that had all bytes are not alone at any, whatever one more has.
        let has_all = |many: Tag, more: Tag| many.scope() == scope && more.bytes() & !many.bytes() == 0;
        let differ = self.bytes() != other.bytes() && !has_all(self, other) && !has_all(other, self);
        let mixed = counts(self) || counts(other) || differ;
        let strength = self.strength().min(other.strength());
        let tag =
            Tag::new(other.tick(), other.pc(), other.thread(), scope, strength, mixed, self.bytes() | other.bytes());
        // (Of strong accesses the first lane stands for all: so libcu++ gives up an mbarrier at which whole warps have arrived.)
        let several = scope == Scope::Block && other.scope() == Scope::Warp && strength == Strength::Weak;
        Tag(tag.0 | if several { SEVERAL } else { 0 })
    }
}

/// Of a record whose bytes were touched at different times: which of them at its tick, and since when the others. They
/// are accused apart, for who was told of the one need not have been told of the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Older {
    /// The bytes that are as recent as the record.
    pub recent: u8,
    /// The tick of the oldest of the others. (Of what came between, it is not kept when.)
    pub since: u32,
}

/// When a warp touched a word last: the tick, whether by several lanes at once, and the first of them, in 26, 1 and 5 bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Last(pub u32);

impl Last {
    /// As a record of that warp.
    pub fn tag(self, warp: u32) -> Tag {
        let scope = if self.0 & 1 << 5 != 0 { Scope::Warp } else { Scope::Thread };
        Tag::new(self.0 >> 6, 0, warp * 32 + self.0 % 32, scope, Strength::Weak, false, 0xf)
    }
}
