//! Who touched a word last: the record that race detection keeps of it, in 64 bits.
//!
//! A record names a thread while one thread touched the word. When several did that nothing orders, it widens to their
//! warp, their block or the grid. Some records are "mixed": their threads touched different bytes, so that it is not
//! known who touched which; such a record never accuses a thread that is itself among those it stands for. A mixed record
//! of one thread has bytes that its warp already knows of: it accuses the rest of the warp only of touching all of them.

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
pub const TICK_SHIFT: u32 = 37;
/// Ticks above cannot be recorded.
pub const TICK_LIMIT: u32 = (1 << 27) - 1;
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

    /// This access and a later one of the same thread in one record. If the thread's own warp was `told` of this one, it
    /// must not accuse the warp, though others still: then it is not known which bytes are which.
    #[inline(always)]
    pub fn followed_by(self, later: Tag, told: bool) -> Tag {
        let more = self.bytes() & !later.bytes();
        if more == 0 {
            return later;
        }
        let mixed = self.mixed() || told;
        Tag(later.0 | u64::from(more) | if mixed { MIXED } else { 0 })
    }

    /// Of the last access alone.
    pub fn of_last(self) -> Tag {
        Tag(self.0 & !(3 << SCOPE_SHIFT))
    }

    /// Both accesses, `other` newer, in one record that reaches to `scope`.
    pub fn widened(self, other: Tag, scope: Scope) -> Tag {
        let scope = scope.max(self.scope()).max(other.scope());
        // At the block's scope what counts is the bytes of each warp, and a warp's lanes may differ among themselves.
        let counts = |tag: Tag| tag.mixed() && (scope <= Scope::Warp || tag.scope() >= Scope::Block);
        let mixed = counts(self) || counts(other) || self.bytes() != other.bytes();
        let strength = self.strength().min(other.strength());
        Tag::new(other.tick(), other.pc(), other.thread(), scope, strength, mixed, self.bytes() | other.bytes())
    }
}
