//! The operation that the machine executes.

use crate::machine::{LanesHandler, WarpHandler};

/// Where an operand lives, in the top three bits of its code; the rest is an index.
///
/// Before registers are placed, the index of [`REGISTER`] and [`PREDICATE`] is that of a virtual register.
const KIND: u32 = 0b111 << 29;
/// A row of the frame: 32 lanes of 32 bits. A 64-bit register takes two.
pub const REGISTER: u32 = 0b000 << 29;
/// A plain number.
pub const NUMBER: u32 = 0b001 << 29;
/// A predicate of the frame: its index twice, plus one if it is to be negated.
pub const PREDICATE: u32 = 0b010 << 29;
/// A row of the module's constants: 32 times the same 64-bit or 32-bit value.
pub const CONSTANT: u32 = 0b100 << 29;
/// No operand.
pub const NONE: u32 = u32::MAX;

/// How two predicates are joined: `and`.
pub const AND: u64 = 1;
/// `or`
pub const OR: u64 = 2;
/// `xor`
pub const XOR: u64 = 3;

/// An operand's kind.
pub const fn kind(code: u32) -> u32 {
    code & KIND
}

/// An operand's index.
pub const fn index(code: u32) -> u32 {
    code & !KIND
}

/// One operation. What its fields mean is up to its handler; by custom `d` is written and `a`, `b`, `c` are read.
#[derive(Clone, Debug)]
pub struct Op {
    /// What to do.
    pub action: Action,
    /// Lanes whose predicate is false are left out; [`NONE`] for all.
    pub guard: u32,
    /// Destination.
    pub d: u32,
    /// First source; the address of memory operations.
    pub a: u32,
    /// Second source.
    pub b: u32,
    /// Third source.
    pub c: u32,
    /// A second destination, or a further source.
    pub e: u32,
    /// First of the operands in the module's list of operands, when there are more.
    pub list: u32,
    /// An immediate: the offset of an address, packed modifiers.
    pub x: u64,
    /// More modifiers, as the family that it belongs to packs them.
    pub y: u64,
    /// Whether it touches registers whose initialisation must be watched at run time.
    pub tracked: bool,
    /// Whether it helps another operation of the same instruction; then it is not counted.
    pub hidden: bool,
}

/// What kind of operation.
#[derive(Clone, Copy, Debug)]
pub enum Action {
    /// Each lane by itself, on registers alone.
    Lanes(LanesHandler),
    /// On memory or the state of the warp; may fail.
    Warp(WarpHandler),
    /// Likewise, when all lanes of the mask in `c` (or, if that is [`NONE`], of the warp) have arrived.
    Together(WarpHandler),
    /// `bar.warp.sync`: waits for the lanes of the mask in `c`, wherever in the code they do the same.
    Meet,
    /// Jump to `x`.
    Branch,
    /// Jump to the entry of the table at `list` (of `y` targets) that `a` selects.
    BranchTable,
    /// Call; `x` is an index into the module's calls.
    Call,
    /// Return from a function; from a kernel, exit.
    Return,
    /// The thread ends.
    Exit,
    /// The launch ends: `trap`, `brkpt`.
    Trap,
    /// `bar`, `barrier`: modifiers in `y` (see [`Barrier`]), barrier in `a`, count in `b`, predicate in `c`.
    Barrier,
    /// Let others run: `nanosleep`.
    Yield,
    /// The clock, into `d`; `x` tells which (32 low, 32 high, 64 bits).
    Clock,
    /// Nothing that can be observed: hints to caches.
    Nothing,
}

/// What `bar` does, packed into [`Op::y`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Barrier {
    /// `.aligned`: the warp arrives as one.
    pub aligned: bool,
    /// `.arrive`: does not wait.
    pub arrive: bool,
    /// `.red`: 0 none, 1 popc, 2 and, 3 or.
    pub reduce: u8,
}

impl Barrier {
    /// Into [`Op::y`].
    pub fn pack(self) -> u64 {
        u64::from(self.aligned) | u64::from(self.arrive) << 1 | u64::from(self.reduce) << 2
    }

    /// From [`Op::y`].
    pub fn unpack(y: u64) -> Self {
        Barrier { aligned: y & 1 != 0, arrive: y & 2 != 0, reduce: (y >> 2) as u8 }
    }
}

impl Op {
    /// An operation without operands.
    pub fn new(action: Action) -> Self {
        let none = NONE;
        Op {
            action,
            guard: none,
            d: none,
            a: none,
            b: none,
            c: none,
            e: none,
            list: none,
            x: 0,
            y: 0,
            tracked: false,
            hidden: false,
        }
    }
}

/// A call: who, and what is copied between the frames' local memories.
#[derive(Clone, Debug, Default)]
pub struct Call {
    /// Index of the function; none when `Op::a` holds its address.
    pub function: Option<u32>,
    /// What the machine does itself.
    pub built_in: Option<BuiltIn>,
    /// For each argument: where it is in the caller's frame, and its bytes.
    pub arguments: Vec<(u32, u32)>,
    /// Where the returned value goes in the caller's frame, and its bytes.
    pub returns: Option<(u32, u32)>,
}

/// Functions that every program may call and that have no body in PTX.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BuiltIn {
    /// `vprintf(format, arguments)`
    Print,
    /// `__assertfail(message, file, line, function, character size)`
    AssertFail,
    /// `malloc(bytes)`
    Allocate,
    /// `free(pointer)`
    Free,
}

/// A function's needs and shape.
#[derive(Clone, Debug, Default)]
pub struct Function {
    /// Its name.
    pub name: String,
    /// First operation.
    pub entry: u32,
    /// One past the last operation.
    pub end: u32,
    /// Rows of its frame.
    pub rows: u32,
    /// Predicates of its frame.
    pub predicates: u32,
    /// Registers whose initialisation is watched at run time.
    pub tracked: u32,
    /// Bytes of local memory for each thread: parameters, returned values, local variables.
    pub local_bytes: u32,
    /// Where each parameter is in its local memory, and its bytes.
    pub parameters: Vec<(u32, u32)>,
    /// Where the returned value is in its local memory, and its bytes.
    pub returns: Option<(u32, u32)>,
}
