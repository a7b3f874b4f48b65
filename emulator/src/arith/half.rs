//! f16 and bf16, one or two to a register, each result rounded once from the exact value.
//!
//! Both formats are narrow enough for f64 to hold any product exactly, and `a·b + c` exactly or with a remainder that
//! two further additions recover. That value goes to f32 "rounded to odd" (an inexact result keeps a 1 in its last
//! place), from where rounding to 11 or 8 bits is what it would have been from the exact value. No branches: the loops
//! over lanes vectorise.

use super::NAN_F16;

/// One of the two 16-bit formats.
pub trait Half: Copy {
    /// The value; exact.
    fn to_f32(bits: u32) -> f32;
    /// Rounds to nearest even; NaN becomes the canonical one. The result is in the low 16 bits.
    fn from_f32(value: f32) -> u32;
    /// Encoding of infinity.
    const INFINITY: u32;
    /// Encoding of 1.
    const ONE: u32;
}

/// IEEE binary16.
#[derive(Clone, Copy, Debug)]
pub struct F16;

/// bfloat16.
#[derive(Clone, Copy, Debug)]
pub struct Bf16;

impl Half for F16 {
    const INFINITY: u32 = 0x7c00;
    const ONE: u32 = 0x3c00;

    #[inline(always)]
    fn to_f32(bits: u32) -> f32 {
        // Moved into place, the exponent is 112 too small; a multiplication mends that, for subnormals too.
        let moved = f32::from_bits((bits & 0x7fff) << 13) * f32::from_bits((127 + 112) << 23);
        let special = if bits & 0x7c00 == 0x7c00 { 0x7f80_0000 } else { 0 };
        f32::from_bits(moved.to_bits() | special | (bits & 0x8000) << 16)
    }

    #[inline(always)]
    fn from_f32(value: f32) -> u32 {
        let bits = value.to_bits();
        let magnitude = bits & 0x7fff_ffff;
        // Subnormal results: adding 0.5 puts the last place where f16's is, and the host rounds.
        let small = (f32::from_bits(magnitude) + 0.5).to_bits().wrapping_sub(0.5f32.to_bits());
        // Normal ones: round in integers, rebias the exponent by -112.
        let even = magnitude >> 13 & 1;
        let normal = magnitude.wrapping_add(0xfff + even).wrapping_sub(112 << 23) >> 13;
        let result = if magnitude < 113 << 23 { small } else { normal };
        let result = if magnitude >= 0x4780_0000 { 0x7c00 } else { result }; // 65536 and more
        let result = if magnitude > 0x7f80_0000 { NAN_F16 } else { result | (bits >> 16 & 0x8000) };
        result & 0xffff
    }
}

impl Half for Bf16 {
    const INFINITY: u32 = 0x7f80;
    const ONE: u32 = 0x3f80;

    #[inline(always)]
    fn to_f32(bits: u32) -> f32 {
        f32::from_bits(bits << 16)
    }

    #[inline(always)]
    fn from_f32(value: f32) -> u32 {
        let bits = value.to_bits();
        let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
        if bits & 0x7fff_ffff > 0x7f80_0000 { NAN_F16 } else { rounded }
    }
}

/// Modifiers of 16-bit arithmetic, which always rounds to nearest even.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct HalfMode {
    /// `.ftz` (f16 only): subnormal operands and results become zero of the same sign.
    pub ftz: bool,
    /// `.sat`: into [0, 1], NaN to +0.
    pub saturate: bool,
    /// `.relu`: below zero becomes +0; NaN stays NaN.
    pub relu: bool,
}

/// Subnormal → zero of the same sign.
#[inline(always)]
pub(super) fn flush<H: Half>(bits: u32) -> u32 {
    if bits & H::INFINITY == 0 { bits & 0x8000 } else { bits }
}

/// `sum + residue`, rounded to f32 so that an inexact result is odd.
#[inline(always)]
pub(crate) fn round_to_odd(sum: f64, residue: f64) -> f32 {
    let nearest = sum as f32;
    let missing = (sum - f64::from(nearest)) + residue;
    let bits = nearest.to_bits();
    // Missing something and even: the odd neighbour lies on the side of what is missing.
    let outwards = (missing > 0.0) == (bits >> 31 == 0);
    let step = if outwards { 1 } else { u32::MAX };
    let adjust = missing != 0.0 && bits & 1 == 0 && sum.is_finite();
    f32::from_bits(if adjust { bits.wrapping_add(step) } else { bits })
}

/// The low half of `a * b + c`.
#[inline(always)]
fn fma_one<H: Half>(a: u32, b: u32, c: u32, mode: HalfMode) -> u32 {
    let prepare = |x: u32| f64::from(H::to_f32(if mode.ftz { flush::<H>(x & 0xffff) } else { x & 0xffff }));
    let (a, b, c) = (prepare(a), prepare(b), prepare(c));
    let product = a * b;
    let sum = product + c;
    // What the addition lost (Knuth's two-sum); meaningless and unused when the sum is not finite.
    let shadow = sum - product;
    let residue = (product - (sum - shadow)) + (c - shadow);
    finish::<H>(H::from_f32(round_to_odd(sum, residue)), mode)
}

/// `.sat`, `.relu`, `.ftz` of a result.
#[inline(always)]
fn finish<H: Half>(bits: u32, mode: HalfMode) -> u32 {
    let negative = bits & 0x8000 != 0;
    let nan = bits & 0x7fff > H::INFINITY;
    let bits = if mode.saturate {
        if nan || negative { 0 } else { bits.min(H::ONE) }
    } else if mode.relu && negative && !nan {
        0
    } else {
        bits
    };
    if mode.ftz { flush::<H>(bits) } else { bits }
}

/// Both halves of packed registers, by an operation on the low ones. (Not a function: a closure that is handed on would be
/// compiled without its caller's target features.)
macro_rules! packed {
    ($one:ident::<$h:ident>($($operand:ident),+; $($rest:expr),+)) => {
        $one::<$h>($($operand & 0xffff),+, $($rest),+) | $one::<$h>($($operand >> 16),+, $($rest),+) << 16
    };
}

/// `fma.rn.f16`, `fma.rn.bf16`.
#[inline(always)]
pub fn fma<H: Half>(a: u32, b: u32, c: u32, mode: HalfMode) -> u32 {
    fma_one::<H>(a, b, c, mode)
}

/// `fma.rn.f16x2`, `fma.rn.bf16x2`.
#[inline(always)]
pub fn fma2<H: Half>(a: u32, b: u32, c: u32, mode: HalfMode) -> u32 {
    packed!(fma_one::<H>(a, b, c; mode))
}

/// `add`: `a * 1 + b`, which is the same value and, for zeros, the same sign.
#[inline(always)]
pub fn add<H: Half>(a: u32, b: u32, mode: HalfMode) -> u32 {
    fma_one::<H>(a, H::ONE, b, mode)
}

/// `add` of both halves.
#[inline(always)]
pub fn add2<H: Half>(a: u32, b: u32, mode: HalfMode) -> u32 {
    packed!(add::<H>(a, b; mode))
}

/// `sub`.
#[inline(always)]
pub fn sub<H: Half>(a: u32, b: u32, mode: HalfMode) -> u32 {
    fma_one::<H>(a, H::ONE, b ^ 0x8000, mode)
}

/// `sub` of both halves.
#[inline(always)]
pub fn sub2<H: Half>(a: u32, b: u32, mode: HalfMode) -> u32 {
    packed!(sub::<H>(a, b; mode))
}

/// `mul`: `a * b + -0`, which leaves every product as it is.
#[inline(always)]
pub fn mul<H: Half>(a: u32, b: u32, mode: HalfMode) -> u32 {
    fma_one::<H>(a, b, 0x8000, mode)
}

/// `mul` of both halves.
#[inline(always)]
pub fn mul2<H: Half>(a: u32, b: u32, mode: HalfMode) -> u32 {
    packed!(mul::<H>(a, b; mode))
}

/// `neg` of one value (`x2` false) or two.
#[inline(always)]
pub fn neg<H: Half>(a: u32, x2: bool, ftz: bool) -> u32 {
    (if ftz { flush::<H>(a & 0xffff) | flush::<H>(a >> 16) << 16 } else { a }) ^ if x2 { 0x8000_8000 } else { 0x8000 }
}

/// `abs` of one value or two.
#[inline(always)]
pub fn abs<H: Half>(a: u32, x2: bool, ftz: bool) -> u32 {
    (if ftz { flush::<H>(a & 0xffff) | flush::<H>(a >> 16) << 16 } else { a }) & if x2 { 0x7fff_7fff } else { 0x7fff }
}

/// `min`, `max` of one value: as [`super::float::extreme_f32`].
#[inline(always)]
pub fn extreme<H: Half>(a: u32, b: u32, how: super::float::Extreme) -> u32 {
    let prepare = |x: u32| if how.ftz { flush::<H>(x & 0xffff) } else { x & 0xffff };
    let (a, b) = (prepare(a), prepare(b));
    let sign = if how.xorsign { (a ^ b) & 0x8000 } else { 0 };
    let (a, b) = if how.xorsign { (a & 0x7fff, b & 0x7fff) } else { (a, b) };
    let (a_nan, b_nan) = (a & 0x7fff > H::INFINITY, b & 0x7fff > H::INFINITY);
    let key = |x: u32| {
        let x = x as u16 as i16;
        x ^ ((x >> 15) as u16 >> 1) as i16
    };
    let number = if (key(a) < key(b)) != how.max { a } else { b };
    let one = if a_nan { b } else { number };
    let one = if b_nan { a } else { one };
    let nan = if how.nan { a_nan | b_nan } else { a_nan & b_nan };
    if nan { NAN_F16 } else { one ^ sign }
}

/// `min`, `max` of both halves.
#[inline(always)]
pub fn extreme2<H: Half>(a: u32, b: u32, how: super::float::Extreme) -> u32 {
    packed!(extreme::<H>(a, b; how))
}
