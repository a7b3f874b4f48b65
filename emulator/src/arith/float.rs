//! f32 and f64: arithmetic in the four rounding modes, `ftz`, `sat`; minimum, maximum, classification.
//!
//! To the nearest, the host's own instructions are used; they are IEEE 754's. The directed modes go through
//! [`Exact`], rounded once.

use super::exact::{self, Exact};
use super::{Mode, NAN_F32, Round};

/// The value of a register, subnormals flushed if asked.
#[inline(always)]
fn f32_of(bits: u32, ftz: bool) -> f32 {
    f32::from_bits(if ftz { flush_f32(bits) } else { bits })
}

/// `.ftz`: a subnormal becomes zero of the same sign.
#[inline(always)]
pub fn flush_f32(bits: u32) -> u32 {
    if bits & 0x7f80_0000 == 0 { bits & 0x8000_0000 } else { bits }
}

/// The register for a result: `ftz`, `sat`, the canonical NaN.
#[inline(always)]
fn finish_f32(result: f32, mode: Mode) -> u32 {
    let result = if mode.saturate { saturate_f32(result) } else { result };
    let bits = if result.is_nan() { NAN_F32 } else { result.to_bits() };
    if mode.ftz { flush_f32(bits) } else { bits }
}

/// `.sat`: into [0, 1], NaN to +0.
#[inline(always)]
pub fn saturate_f32(value: f32) -> f32 {
    // Written so that NaN and -0 fail the comparison.
    if value > 0.0 { if value < 1.0 { value } else { 1.0 } } else { 0.0 }
}

/// `.sat` of f64.
#[inline(always)]
pub fn saturate_f64(value: f64) -> f64 {
    if value > 0.0 { if value < 1.0 { value } else { 1.0 } } else { 0.0 }
}

/// Rounds an exact number to f32.
fn round_f32(number: Exact, round: Round) -> f32 {
    f32::from_bits(number.round(exact::F32, round) as u32)
}

/// Rounds an exact number to f64.
fn round_f64(number: Exact, round: Round) -> f64 {
    f64::from_bits(number.round(exact::F64, round))
}

/// `a * b + c` exactly, if all are finite.
fn exact_fma(a: f64, b: f64, c: f64, round: Round) -> Option<Exact> {
    (a.is_finite() && b.is_finite() && c.is_finite())
        .then(|| Exact::of_f64(a).times(Exact::of_f64(b)).plus(Exact::of_f64(c), round))
}

/// `a + b` exactly.
fn exact_add(a: f64, b: f64, round: Round) -> Option<Exact> {
    (a.is_finite() && b.is_finite()).then(|| Exact::of_f64(a).plus(Exact::of_f64(b), round))
}

/// `a * b` exactly.
fn exact_mul(a: f64, b: f64) -> Option<Exact> {
    (a.is_finite() && b.is_finite()).then(|| Exact::of_f64(a).times(Exact::of_f64(b)))
}

/// `a / b` as exactly as any rounding needs.
fn exact_div(a: f64, b: f64) -> Option<Exact> {
    (a.is_finite() && b.is_finite() && b != 0.0).then(|| Exact::of_f64(a).over(Exact::of_f64(b)))
}

/// The square root of `a` as exactly as any rounding needs.
fn exact_sqrt(a: f64) -> Option<Exact> {
    (a.is_finite() && a >= 0.0).then(|| Exact::of_f64(a).sqrt())
}

/// f32: the nearest result, or the exact one rounded as the mode says.
#[inline(always)]
fn choose_f32(nearest: f32, mode: Mode, exact: impl FnOnce() -> Option<Exact>) -> u32 {
    let result = match mode.round {
        Round::Nearest => nearest,
        directed => exact().map_or(nearest, |number| round_f32(number, directed)),
    };
    finish_f32(result, mode)
}

/// f64: likewise.
#[inline(always)]
fn choose_f64(nearest: f64, round: Round, exact: impl FnOnce() -> Option<Exact>) -> u64 {
    match round {
        Round::Nearest => nearest,
        directed => exact().map_or(nearest, |number| round_f64(number, directed)),
    }
    .to_bits()
}

/// `add.f32`.
#[inline(always)]
pub fn add_f32(a: u32, b: u32, mode: Mode) -> u32 {
    let (a, b) = (f32_of(a, mode.ftz), f32_of(b, mode.ftz));
    choose_f32(a + b, mode, || exact_add(a.into(), b.into(), mode.round))
}

/// `sub.f32`.
#[inline(always)]
pub fn sub_f32(a: u32, b: u32, mode: Mode) -> u32 {
    let (a, b) = (f32_of(a, mode.ftz), f32_of(b, mode.ftz));
    choose_f32(a - b, mode, || exact_add(a.into(), -f64::from(b), mode.round))
}

/// `mul.f32`.
#[inline(always)]
pub fn mul_f32(a: u32, b: u32, mode: Mode) -> u32 {
    let (a, b) = (f32_of(a, mode.ftz), f32_of(b, mode.ftz));
    choose_f32(a * b, mode, || exact_mul(a.into(), b.into()))
}

/// `fma.f32`, also `mad.f32` of sm_20 and later.
#[inline(always)]
pub fn fma_f32(a: u32, b: u32, c: u32, mode: Mode) -> u32 {
    let (a, b, c) = (f32_of(a, mode.ftz), f32_of(b, mode.ftz), f32_of(c, mode.ftz));
    choose_f32(a.mul_add(b, c), mode, || exact_fma(a.into(), b.into(), c.into(), mode.round))
}

/// `div.rn.f32` and its directed kin.
#[inline(always)]
pub fn div_f32(a: u32, b: u32, mode: Mode) -> u32 {
    let (a, b) = (f32_of(a, mode.ftz), f32_of(b, mode.ftz));
    choose_f32(a / b, mode, || exact_div(a.into(), b.into()))
}

/// `rcp.rn.f32` and its directed kin.
#[inline(always)]
pub fn rcp_f32(a: u32, mode: Mode) -> u32 {
    div_f32(1.0f32.to_bits(), a, mode)
}

/// `sqrt.rn.f32` and its directed kin.
#[inline(always)]
pub fn sqrt_f32(a: u32, mode: Mode) -> u32 {
    let a = f32_of(a, mode.ftz);
    choose_f32(a.sqrt(), mode, || exact_sqrt(a.into()))
}

/// `neg.f32`. A NaN keeps its bits but for the sign.
#[inline(always)]
pub fn neg_f32(a: u32, ftz: bool) -> u32 {
    (if ftz { flush_f32(a) } else { a }) ^ 0x8000_0000
}

/// `abs.f32`.
#[inline(always)]
pub fn abs_f32(a: u32, ftz: bool) -> u32 {
    (if ftz { flush_f32(a) } else { a }) & 0x7fff_ffff
}

/// `copysign.f32 d, a, b`: the magnitude of `b` with the sign of `a`.
#[inline(always)]
pub fn copysign_f32(a: u32, b: u32) -> u32 {
    a & 0x8000_0000 | b & 0x7fff_ffff
}

/// `add.f64`.
#[inline(always)]
pub fn add_f64(a: u64, b: u64, round: Round) -> u64 {
    let (a, b) = (f64::from_bits(a), f64::from_bits(b));
    choose_f64(a + b, round, || exact_add(a, b, round))
}

/// `sub.f64`.
#[inline(always)]
pub fn sub_f64(a: u64, b: u64, round: Round) -> u64 {
    let (a, b) = (f64::from_bits(a), f64::from_bits(b));
    choose_f64(a - b, round, || exact_add(a, -b, round))
}

/// `mul.f64`.
#[inline(always)]
pub fn mul_f64(a: u64, b: u64, round: Round) -> u64 {
    let (a, b) = (f64::from_bits(a), f64::from_bits(b));
    choose_f64(a * b, round, || exact_mul(a, b))
}

/// `fma.f64`.
#[inline(always)]
pub fn fma_f64(a: u64, b: u64, c: u64, round: Round) -> u64 {
    let (a, b, c) = (f64::from_bits(a), f64::from_bits(b), f64::from_bits(c));
    choose_f64(a.mul_add(b, c), round, || exact_fma(a, b, c, round))
}

/// `div.f64`.
#[inline(always)]
pub fn div_f64(a: u64, b: u64, round: Round) -> u64 {
    let (a, b) = (f64::from_bits(a), f64::from_bits(b));
    choose_f64(a / b, round, || exact_div(a, b))
}

/// `rcp.f64`.
#[inline(always)]
pub fn rcp_f64(a: u64, round: Round) -> u64 {
    div_f64(1.0f64.to_bits(), a, round)
}

/// `sqrt.f64`.
#[inline(always)]
pub fn sqrt_f64(a: u64, round: Round) -> u64 {
    let a = f64::from_bits(a);
    choose_f64(a.sqrt(), round, || exact_sqrt(a))
}

/// `neg.f64`.
#[inline(always)]
pub fn neg_f64(a: u64) -> u64 {
    a ^ 1 << 63
}

/// `abs.f64`.
#[inline(always)]
pub fn abs_f64(a: u64) -> u64 {
    a & !(1 << 63)
}

/// `copysign.f64 d, a, b`: the magnitude of `b` with the sign of `a`.
#[inline(always)]
pub fn copysign_f64(a: u64, b: u64) -> u64 {
    a & 1 << 63 | b & !(1 << 63)
}

/// Modifiers of `min` and `max`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Extreme {
    /// `max`, not `min`.
    pub max: bool,
    /// `.ftz`.
    pub ftz: bool,
    /// `.NaN`: one NaN makes the result NaN. Without it, the other operand is the result.
    pub nan: bool,
    /// `.xorsign.abs`: of the magnitudes, with the product of the signs.
    pub xorsign: bool,
}

/// `min.f32`, `max.f32`; -0 is less than +0.
#[inline(always)]
pub fn extreme_f32(a: u32, b: u32, how: Extreme) -> u32 {
    let (a, b) = if how.ftz { (flush_f32(a), flush_f32(b)) } else { (a, b) };
    let sign = if how.xorsign { (a ^ b) & 0x8000_0000 } else { 0 };
    let (a, b) = if how.xorsign { (a & 0x7fff_ffff, b & 0x7fff_ffff) } else { (a, b) };
    let a_nan = a & 0x7fff_ffff > 0x7f80_0000;
    let b_nan = b & 0x7fff_ffff > 0x7f80_0000;
    // Ordered as integers after folding the sign: -0 comes out below +0.
    let key = |x: u32| x as i32 ^ ((x as i32 >> 31) as u32 >> 1) as i32;
    let take_a = (key(a) < key(b)) != how.max;
    let number = if take_a { a } else { b };
    let one = if a_nan { b } else { number };
    let one = if b_nan { a } else { one };
    let nan = if how.nan { a_nan | b_nan } else { a_nan & b_nan };
    if nan { NAN_F32 } else { one ^ sign }
}

/// `min.f64`, `max.f64`; a NaN loses, two NaN give the first.
#[inline(always)]
pub fn extreme_f64(a: u64, b: u64, max: bool) -> u64 {
    let is_nan = |x: u64| x & !(1 << 63) > 0x7ff0_0000_0000_0000;
    let key = |x: u64| x as i64 ^ ((x as i64 >> 63) as u64 >> 1) as i64;
    if is_nan(b) {
        a
    } else if is_nan(a) || (key(a) < key(b)) == max {
        b
    } else {
        a
    }
}

/// What `testp` asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Property {
    /// Neither infinite nor NaN.
    Finite,
    /// Infinite.
    Infinite,
    /// Not NaN.
    Number,
    /// NaN.
    NotANumber,
    /// Neither zero, subnormal, infinite nor NaN.
    Normal,
    /// Subnormal (`testp.subnormal`); zero is not.
    Subnormal,
}

/// `testp.f64`; of f32 after widening its class, see [`test_f32`].
#[inline(always)]
fn test(class: std::num::FpCategory, property: Property) -> bool {
    use std::num::FpCategory as Class;
    match property {
        Property::Finite => !matches!(class, Class::Infinite | Class::Nan),
        Property::Infinite => class == Class::Infinite,
        Property::Number => class != Class::Nan,
        Property::NotANumber => class == Class::Nan,
        Property::Normal => class == Class::Normal,
        Property::Subnormal => class == Class::Subnormal,
    }
}

/// `testp.f32`.
#[inline(always)]
pub fn test_f32(a: u32, property: Property) -> bool {
    test(f32::from_bits(a).classify(), property)
}

/// `testp.f64`.
#[inline(always)]
pub fn test_f64(a: u64, property: Property) -> bool {
    test(f64::from_bits(a).classify(), property)
}
