//! The class of an instruction, by its name.

use serde::{Deserialize, Serialize};

/// Classes of instructions: roughly, the pipes of a multiprocessor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// Integer arithmetic.
    Integer,
    /// Logic, shifts, bit fields, permutations.
    Bits,
    /// f32.
    Float,
    /// f64.
    Double,
    /// f16 and bf16.
    Half,
    /// Special functions.
    Special,
    /// Comparisons and selections.
    Compare,
    /// Conversions.
    Convert,
    /// Moves, address conversions, special registers.
    Move,
    /// Loads, of whatever space.
    Load,
    /// Stores.
    Store,
    /// Atomics and reductions in memory.
    Atomic,
    /// `cp.async` and what waits for it.
    AsyncCopy,
    /// `ldmatrix`, `stmatrix`, `movmatrix`.
    Matrix,
    /// `mma`.
    Tensor,
    /// Shuffles, votes, `match`, `redux`.
    Warp,
    /// Barriers and fences.
    Barrier,
    /// Branches, calls, exits.
    Control,
    /// Anything else.
    Other,
}

/// The name of an instruction with its modifiers: what its text begins with, a predicate left out.
pub fn opcode(text: &str) -> &str {
    let mut words = text.split_whitespace();
    match words.next() {
        Some(guard) if guard.starts_with('@') => words.next().unwrap_or(""),
        first => first.unwrap_or(""),
    }
    .trim_end_matches(';')
}

impl Class {
    /// The class of an opcode such as `fma.rn.f32`.
    pub fn of(opcode: &str) -> Class {
        let mut parts = opcode.split('.');
        let name = parts.next().unwrap_or("");
        let last = opcode.rsplit('.').next().unwrap_or("");
        match name {
            "ld" | "ldu" => Class::Load,
            "st" => Class::Store,
            "atom" | "red" => Class::Atomic,
            "cp" => Class::AsyncCopy,
            "ldmatrix" | "stmatrix" | "movmatrix" => Class::Matrix,
            "mma" | "wmma" => Class::Tensor,
            "shfl" | "vote" | "match" | "redux" | "activemask" | "elect" => Class::Warp,
            "bar" | "barrier" | "membar" | "fence" | "mbarrier" => Class::Barrier,
            "bra" | "brx" | "call" | "ret" | "exit" | "trap" | "brkpt" | "nanosleep" => Class::Control,
            "setp" | "set" | "selp" | "slct" | "testp" => Class::Compare,
            "cvt" => Class::Convert,
            "mov" | "cvta" | "isspacep" | "prefetch" | "prefetchu" | "discard" | "applypriority" => Class::Move,
            "and" | "or" | "xor" | "not" | "cnot" | "lop3" | "shl" | "shr" | "shf" | "bfe" | "bfi" | "bfind"
            | "brev" | "clz" | "popc" | "fns" | "prmt" | "szext" | "bmsk" => Class::Bits,
            "rcp" | "sqrt" | "rsqrt" | "sin" | "cos" | "lg2" | "ex2" | "tanh" if opcode.contains(".approx") => {
                Class::Special
            }
            _ => match last {
                "f32" | "f32x2" => Class::Float,
                "f64" => Class::Double,
                "f16" | "f16x2" | "bf16" | "bf16x2" => Class::Half,
                _ if last.starts_with(['u', 's', 'b']) && last[1..].parse::<u32>().is_ok() => Class::Integer,
                _ => Class::Other,
            },
        }
    }
}

/// Multiplications and additions of an `mma`: twice m · n · k, from its shape.
pub fn flop(opcode: &str) -> u64 {
    let Some(shape) = opcode.split('.').find(|part| part.starts_with('m') && part.contains('n') && part.contains('k'))
    else {
        return 0;
    };
    let numbers: Option<Vec<u64>> =
        shape.split(['m', 'n', 'k']).filter(|part| !part.is_empty()).map(|part| part.parse().ok()).collect();
    match numbers.as_deref() {
        Some([m, n, k]) => 2 * m * n * k,
        _ => 0,
    }
}
