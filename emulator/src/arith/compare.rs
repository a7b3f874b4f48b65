//! Comparisons: `setp`, `set`, `slct`.

use super::float::flush_f32;
use super::half::Half;
use super::integer::Integer;

/// The relation asked for. `lo`, `ls`, `hi`, `hs` are the plain ones on unsigned types.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Relation {
    /// `.eq`
    Equal,
    /// `.ne`; of floats: false if either is NaN.
    NotEqual,
    /// `.lt`, `.lo`
    Less,
    /// `.le`, `.ls`
    LessEqual,
    /// `.gt`, `.hi`
    Greater,
    /// `.ge`, `.hs`
    GreaterEqual,
    /// `.equ`: as the ordered one, or either is NaN. So the following five.
    EqualUnordered,
    /// `.neu`
    NotEqualUnordered,
    /// `.ltu`
    LessUnordered,
    /// `.leu`
    LessEqualUnordered,
    /// `.gtu`
    GreaterUnordered,
    /// `.geu`
    GreaterEqualUnordered,
    /// `.num`: neither is NaN.
    Numbers,
    /// `.nan`: either is NaN.
    AnyNan,
}

/// Compares integers. Relations that speak of NaN do not exist for them; the unordered ones act as the plain ones.
#[inline(always)]
pub fn integers<T: Integer>(relation: Relation, a: T, b: T) -> bool {
    match relation {
        Relation::Equal | Relation::EqualUnordered => a == b,
        Relation::NotEqual | Relation::NotEqualUnordered => a != b,
        Relation::Less | Relation::LessUnordered => a < b,
        Relation::LessEqual | Relation::LessEqualUnordered => a <= b,
        Relation::Greater | Relation::GreaterUnordered => a > b,
        Relation::GreaterEqual | Relation::GreaterEqualUnordered => a >= b,
        Relation::Numbers => true,
        Relation::AnyNan => false,
    }
}

/// Compares floating-point values of the host.
#[inline(always)]
pub fn floats<T: PartialOrd>(relation: Relation, a: T, b: T) -> bool {
    #[allow(clippy::eq_op, reason = "a number equals itself, NaN does not")]
    let numbers = a == a && b == b;
    match relation {
        Relation::Equal => a == b,
        Relation::NotEqual => numbers & (a != b),
        Relation::Less => a < b,
        Relation::LessEqual => a <= b,
        Relation::Greater => a > b,
        Relation::GreaterEqual => a >= b,
        Relation::EqualUnordered => !numbers | (a == b),
        Relation::NotEqualUnordered => a != b,
        Relation::LessUnordered => !numbers | (a < b),
        Relation::LessEqualUnordered => !numbers | (a <= b),
        Relation::GreaterUnordered => !numbers | (a > b),
        Relation::GreaterEqualUnordered => !numbers | (a >= b),
        Relation::Numbers => numbers,
        Relation::AnyNan => !numbers,
    }
}

/// `setp.f32`.
#[inline(always)]
pub fn f32s(relation: Relation, a: u32, b: u32, ftz: bool) -> bool {
    let (a, b) = if ftz { (flush_f32(a), flush_f32(b)) } else { (a, b) };
    floats(relation, f32::from_bits(a), f32::from_bits(b))
}

/// `setp.f64`.
#[inline(always)]
pub fn f64s(relation: Relation, a: u64, b: u64) -> bool {
    floats(relation, f64::from_bits(a), f64::from_bits(b))
}

/// `setp.f16`, `setp.bf16` on the low halves.
#[inline(always)]
pub fn halves<H: Half>(relation: Relation, a: u32, b: u32, ftz: bool) -> bool {
    let value = |x: u32| {
        let x = x & 0xffff;
        H::to_f32(if ftz && x & H::INFINITY == 0 { x & 0x8000 } else { x })
    };
    floats(relation, value(a), value(b))
}

/// The selector of `slct.type.f32`: true takes `a`. -0 counts as not below zero; NaN takes `b`.
#[inline(always)]
pub fn select_f32(c: u32, ftz: bool) -> bool {
    f32::from_bits(if ftz { flush_f32(c) } else { c }) >= 0.0
}

/// The selector of `slct.type.s32`.
#[inline(always)]
pub fn select_s32(c: u32) -> bool {
    c as i32 >= 0
}
