//! What one lane computes.
//!
//! Pure functions on raw register contents: a 32-bit value is a `u32`, a 64-bit one a `u64`, whatever its type; 8- and
//! 16-bit values sit in the low bits. All are small and `#[inline(always)]`, so that a loop over the 32 lanes of a warp
//! with a constant mode becomes vector code in the caller, with the caller's target features.
//!
//! | file | what it holds |
//! | --- | --- |
//! | [`integer`] | add, multiply, divide, compare-and-choose in every width; carry chains; saturation |
//! | [`bits`] | shifts, fields, counts, permutations, `lop3`, small dot products |
//! | [`float`] | f32 and f64 in the four rounding modes, `ftz`, `sat`; minimum, maximum, classification |
//! | [`half`](mod@half) | f16 and bf16, scalar and packed, correctly rounded |
//! | [`approx`] | `.approx` functions: correctly rounded, or perturbed within the documented bounds |
//! | [`compare`] | `setp`, `set`, `slct` |
//! | [`convert`](mod@convert) | `cvt` between all types |
//! | [`exact`] | wide arithmetic that is rounded once: what the rarer modes rest on |

pub mod approx;
pub mod bits;
pub mod compare;
pub mod convert;
pub mod exact;
pub mod float;
pub mod half;
pub mod integer;

#[cfg(test)]
pub(crate) mod tests;

/// How an inexact result is rounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Round {
    /// To the nearest, ties to even (`.rn`; `.rni` for integers).
    Nearest,
    /// Towards zero (`.rz`, `.rzi`).
    Zero,
    /// Towards negative infinity (`.rm`, `.rmi`).
    Down,
    /// Towards positive infinity (`.rp`, `.rpi`).
    Up,
    /// To the nearest, ties away from zero (`.rna`, of tf32 only).
    NearestAway,
}

/// Modifiers of a floating-point instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Mode {
    /// Rounding of the result.
    pub round: Round,
    /// `.ftz`: subnormal operands and results become zero of the same sign.
    pub ftz: bool,
    /// `.sat`: the result is clamped to [0, 1], NaN becomes +0.
    pub saturate: bool,
}

impl Mode {
    /// `.rn` alone.
    pub const NEAREST: Mode = Mode { round: Round::Nearest, ftz: false, saturate: false };
    /// `.rn.ftz`.
    pub const NEAREST_FTZ: Mode = Mode { round: Round::Nearest, ftz: true, saturate: false };
}

/// The NaN that single-precision instructions return, whatever NaN went in.
pub const NAN_F32: u32 = 0x7fff_ffff;
/// The NaN that f16 and bf16 instructions return.
pub const NAN_F16: u32 = 0x7fff;
