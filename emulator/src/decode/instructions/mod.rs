//! Instructions, by family: what each opcode with its modifiers becomes.

mod atomic;
mod bits;
mod compare;
mod control;
mod convert;
mod float;
mod half;
mod integer;
mod mbarrier;
mod memory;
mod moves;
mod together;
mod video;
mod wmma;

pub use memory::{local_load, local_store};

use super::builder::{Builder, Decoded};
use super::op::{Action, Op};
use super::types::Type;
use crate::arith::Round;
use crate::ptx::{Instruction, Operand};

/// An instruction whose opcode is being read, part by part.
pub struct Reader<'a, 'i> {
    /// The instruction.
    pub instruction: &'i Instruction<'a>,
    /// Parts of the opcode that have not been understood yet, without the first.
    rest: Vec<&'a str>,
}

impl<'a, 'i> Reader<'a, 'i> {
    /// Of an instruction of which only the first part is known.
    pub fn new(instruction: &'i Instruction<'a>) -> Self {
        Reader { instruction, rest: instruction.opcode[1..].to_vec() }
    }

    /// The first part.
    pub fn base(&self) -> &'a str {
        self.instruction.opcode[0]
    }

    /// Whether a part is there; it is then understood.
    pub fn has(&mut self, part: &str) -> bool {
        let at = self.rest.iter().position(|rest| *rest == part);
        at.map(|at| self.rest.remove(at)).is_some()
    }

    /// The first of these parts that is there; it is then understood.
    pub fn one_of<T: Copy>(&mut self, parts: &[(&str, T)]) -> Option<T> {
        let at = self.rest.iter().position(|rest| parts.iter().any(|(part, _)| part == rest))?;
        let found = self.rest.remove(at);
        parts.iter().find(|(part, _)| *part == found).map(|(_, value)| *value)
    }

    /// All types among the parts, in order.
    pub fn types(&mut self) -> Vec<Type> {
        let types = self.rest.iter().filter_map(|part| Type::named(part)).collect();
        self.rest.retain(|part| Type::named(part).is_none());
        types
    }

    /// The only type.
    pub fn only_type(&mut self, b: &Builder<'a, '_>) -> Decoded<Type> {
        match self.types()[..] {
            [t] => Ok(t),
            _ => b.error("one type must be given"),
        }
    }

    /// `.rn`, `.rz`, `.rm`, `.rp`; nearest when none is given.
    pub fn rounding(&mut self) -> Round {
        self.one_of(&[("rn", Round::Nearest), ("rz", Round::Zero), ("rm", Round::Down), ("rp", Round::Up)])
            .unwrap_or(Round::Nearest)
    }

    /// Parts that are advice to caches, or an `.L2::…` prefetch size.
    pub fn skip_hints(&mut self) {
        self.rest.retain(|part| {
            !(part.starts_with("L1::")
                || part.starts_with("L2::")
                || matches!(*part, "nc" | "ca" | "cg" | "cs" | "lu" | "cv" | "wb" | "wt"))
        });
    }

    /// The first part that has not been understood.
    pub fn peek(&self) -> Option<&'a str> {
        self.rest.first().copied()
    }

    /// An operand.
    pub fn operand(&self, b: &Builder<'a, '_>, index: usize) -> Decoded<&'i Operand<'a>> {
        match self.instruction.operands.get(index) {
            Some(operand) => Ok(operand),
            None => b.error(format!("operand {} is missing", index + 1)),
        }
    }

    /// Number of operands.
    pub fn operands(&self) -> usize {
        self.instruction.operands.len()
    }

    /// That everything has been understood.
    pub fn done(&self, b: &Builder<'a, '_>) -> Decoded {
        match self.rest.first() {
            None => Ok(()),
            Some(part) => b.unknown(format!("{}: .{part} is not known here", self.instruction.opcode.join("."))),
        }
    }

    /// That everything has been understood, and the number of operands is right.
    pub fn done_with(&self, b: &Builder<'a, '_>, operands: usize) -> Decoded {
        self.done(b)?;
        if self.operands() != operands {
            return b.error(format!("{} takes {operands} operands, not {}", self.base(), self.operands()));
        }
        Ok(())
    }

    /// What is not known.
    pub fn refuse<T>(&self, b: &Builder<'a, '_>) -> Decoded<T> {
        b.unknown(format!("{} is not known", self.instruction.opcode.join(".")))
    }
}

/// `d = f(…)`: the destination has type `d`, the sources `sources`, `a` first.
pub fn simple<'a>(
    b: &mut Builder<'a, '_>,
    r: &Reader<'a, '_>,
    action: Action,
    d: Type,
    sources: &[Type],
) -> Decoded<Op> {
    r.done_with(b, 1 + sources.len())?;
    let mut op = Op::new(action);
    op.d = b.destination(r.operand(b, 0)?, d)?;
    for (i, t) in sources.iter().enumerate() {
        let code = b.source(r.operand(b, 1 + i)?, *t)?;
        *[&mut op.a, &mut op.b, &mut op.c, &mut op.e][i] = code;
    }
    Ok(op)
}

/// What decodes a family of instructions.
type Family = for<'a, 'm, 'i> fn(&mut Builder<'a, 'm>, Reader<'a, 'i>) -> Decoded;

/// All that is known, by first parts of opcodes.
const FAMILIES: [(&[&str], Family); 16] = [
    (&["add", "sub", "mul", "mad", "fma", "div", "abs", "neg", "min", "max"], arithmetic),
    (&["addc", "subc", "madc", "rem", "sad", "mul24", "mad24", "dp4a", "dp2a"], integer::decode),
    (&["rcp", "sqrt", "rsqrt", "sin", "cos", "lg2", "ex2", "tanh", "testp", "copysign"], float::decode),
    (&["and", "or", "xor", "not", "cnot", "lop3", "shl", "shr", "shf", "popc", "clz", "bfind"], bits::decode),
    (&["brev", "bfe", "bfi", "fns", "szext", "bmsk", "prmt"], bits::decode),
    (&["set", "setp", "selp", "slct"], compare::decode),
    (&["cvt"], convert::decode),
    (&["mov", "cvta", "isspacep"], moves::decode),
    (&["ld", "ldu", "st", "prefetch", "prefetchu", "applypriority", "discard", "createpolicy", "cp"], memory::decode),
    (&["atom", "red"], atomic::decode),
    (&["mbarrier"], mbarrier::decode),
    (&["bra", "brx", "call", "ret", "exit", "trap", "brkpt", "nanosleep", "pmevent"], control::decode),
    (&["bar", "barrier", "membar", "fence", "griddepcontrol"], control::decode),
    (&["shfl", "vote", "match", "activemask", "redux", "elect"], together::decode),
    (&["ldmatrix", "stmatrix", "movmatrix", "mma"], together::decode),
    (&["wmma"], wmma::decode),
];

/// Those on the parts of a word, which have one decoder and many names.
const VIDEO: &[&str] = &[
    "vadd2",
    "vsub2",
    "vavrg2",
    "vabsdiff2",
    "vmin2",
    "vmax2",
    "vadd4",
    "vsub4",
    "vavrg4",
    "vabsdiff4",
    "vmin4",
    "vmax4",
];

/// The first parts of all opcodes that are known.
pub fn mnemonics() -> impl Iterator<Item = &'static str> {
    FAMILIES.iter().flat_map(|(names, _)| names.iter().copied()).chain(VIDEO.iter().copied())
}

/// Decodes an instruction.
///
/// # Errors
/// When it is not known, or makes no sense.
pub fn decode<'a>(b: &mut Builder<'a, '_>, instruction: &Instruction<'a>) -> Decoded {
    b.line = instruction.line;
    b.set_guard(instruction)?;
    let r = Reader::new(instruction);
    let base = r.base();
    match FAMILIES.iter().find(|(names, _)| names.contains(&base)) {
        Some((_, family)) => family(b, r),
        None if VIDEO.contains(&base) => video::decode(b, r),
        None => r.refuse(b),
    }
}

/// Opcodes that exist for integers, floats and halves alike: the last type decides.
fn arithmetic<'a>(b: &mut Builder<'a, '_>, r: Reader<'a, '_>) -> Decoded {
    let last = r.instruction.opcode.iter().rev().find_map(|part| Type::named(part));
    match last {
        Some(Type::F32 | Type::F64) => float::decode(b, r),
        Some(Type::F16 | Type::F16x2 | Type::Bf16 | Type::Bf16x2) => half::decode(b, r),
        Some(_) => integer::decode(b, r),
        None => b.error("a type must be given"),
    }
}

/// `$body` with two types named.
macro_rules! with_types {
    ($T:ident = $integer:ty, $L:ident = $lane:ty, $body:expr) => {{
        type $T = $integer;
        type $L = $lane;
        $body
    }};
}
use with_types;

/// Runs `$body` with `$T` an integer type of [`crate::arith::integer`] and `$L` the lane that holds it.
macro_rules! by_integer {
    ($b:expr, $t:expr, ($T:ident, $L:ident) => $body:expr) => {{
        use crate::decode::instructions::with_types;
        use crate::decode::types::Type;
        match $t {
            Type::U16 | Type::B16 => with_types!($T = u16, $L = u32, $body),
            Type::S16 => with_types!($T = i16, $L = u32, $body),
            Type::U32 | Type::B32 => with_types!($T = u32, $L = u32, $body),
            Type::S32 => with_types!($T = i32, $L = u32, $body),
            Type::U64 | Type::B64 => with_types!($T = u64, $L = u64, $body),
            Type::S64 => with_types!($T = i64, $L = u64, $body),
            other => return $b.error(format!(".{} is not a type of this instruction", other.name())),
        }
    }};
}
use by_integer;
