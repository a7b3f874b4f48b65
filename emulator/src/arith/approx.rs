//! The `.approx` functions.
//!
//! The hardware's own tables are not public; the PTX manual gives bounds. By default each function is computed in f64
//! and rounded once (the nearest f32 but for about one argument in 2^25). Perturbed, the value is moved within the
//! documented bound by a hash of seed and argument: the same argument gives the same result in every run and order, as
//! it does on hardware. Where the manual lists a special case (zeros, infinities, NaN), it holds in both.

use super::float::{flush_f32, saturate_f32};
use super::half::{Half, HalfMode, flush};
use super::{Mode, NAN_F32};

/// Whether and how results are moved within their bounds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Perturbation(pub Option<u64>);

impl Perturbation {
    /// Results as exact as they can be.
    pub const NONE: Perturbation = Perturbation(None);

    /// A number in [-1, 1] that depends on seed, function and argument; the ends are as likely as all between.
    #[inline(always)]
    fn direction(seed: u64, function: u64, argument: u64) -> f64 {
        let hash = mix(seed ^ mix(argument.wrapping_add(function << 56)));
        match hash & 3 {
            0 => -1.0,
            1 => 1.0,
            _ => (hash >> 11) as f64 / (1u64 << 52) as f64 - 1.0,
        }
    }

    /// `value` moved by at most `bound` times itself.
    #[inline(always)]
    fn relative(self, value: f64, function: u64, argument: u64, bound: f64) -> f64 {
        match self.0 {
            None => value,
            Some(seed) => value * (1.0 + bound * Self::direction(seed, function, argument)),
        }
    }

    /// `value` moved by at most `bound`.
    #[inline(always)]
    fn absolute(self, value: f64, function: u64, argument: u64, bound: f64) -> f64 {
        match self.0 {
            None => value,
            Some(seed) => value + bound * Self::direction(seed, function, argument),
        }
    }
}

/// The finaliser of splitmix64: every bit of the input reaches every bit of the output.
#[inline(always)]
pub(crate) fn mix(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 31
}

/// Relative error of rounding to f32, and a little of f64: what a bound must leave to the last steps.
const ROUNDING: f64 = 1.000_001 / (1 << 24) as f64;
/// 2^-23: `sqrt`.
const BOUND_23: f64 = 2.0 * ROUNDING - ROUNDING;
/// 2^-22.9: `rsqrt`.
const BOUND_22_9: f64 = 2.143_546_925_072_586 * ROUNDING - ROUNDING;
/// 2^-22.5: `ex2`.
const BOUND_22_5: f64 = 2.828_427_124_746_19 * ROUNDING - ROUNDING;
/// 2^-22: `lg2`.
const BOUND_22: f64 = 4.0 * ROUNDING - ROUNDING;
/// 2^-11: `tanh.f32`.
const BOUND_11: f64 = 1.0 / 2048.0 - ROUNDING;
/// 2^-20.5, absolute: `sin` and `cos` in [-π, π].
const BOUND_SINE: f64 = 6.743_495_761_743_044e-7 - ROUNDING;
/// 2^-14.7, absolute: `sin` and `cos` beyond.
const BOUND_SINE_FAR: f64 = 3.757_006_794_690_24e-5 - ROUNDING;

/// Operand and result of an f32 function: `ftz`, `sat`, one NaN.
#[inline(always)]
fn through_f32(a: u32, mode: Mode, function: impl FnOnce(f64, u64) -> f64) -> u32 {
    let a = if mode.ftz { flush_f32(a) } else { a };
    let result = function(f32::from_bits(a).into(), a.into()) as f32;
    let result = if mode.saturate { saturate_f32(result) } else { result };
    let bits = if result.is_nan() { NAN_F32 } else { result.to_bits() };
    if mode.ftz { flush_f32(bits) } else { bits }
}

/// `rcp.approx.f32`: within one unit in the last place, on which NVIDIA's own division of wide integers relies; a
/// relative error of 2^-25 and the rounding make no more.
#[inline(always)]
pub fn rcp(a: u32, mode: Mode, p: Perturbation) -> u32 {
    through_f32(a, mode, |x, key| p.relative(1.0 / x, 1, key, 0.5 * ROUNDING))
}

/// `sqrt.approx.f32`.
#[inline(always)]
pub fn sqrt(a: u32, mode: Mode, p: Perturbation) -> u32 {
    through_f32(a, mode, |x, key| p.relative(x.sqrt(), 2, key, BOUND_23))
}

/// `rsqrt.approx.f32`.
#[inline(always)]
pub fn rsqrt(a: u32, mode: Mode, p: Perturbation) -> u32 {
    through_f32(a, mode, |x, key| p.relative(1.0 / x.sqrt(), 3, key, BOUND_22_9))
}

/// `ex2.approx.f32`. Whole arguments give exact powers, perturbed or not: NVIDIA's own library scales by them.
#[inline(always)]
pub fn ex2(a: u32, mode: Mode, p: Perturbation) -> u32 {
    through_f32(a, mode, |x, key| {
        let bound = if x.trunc() == x { 0.0 } else { BOUND_22_5 };
        p.relative(exp2(x), 4, key, bound)
    })
}

/// `lg2.approx.f32`.
#[inline(always)]
pub fn lg2(a: u32, mode: Mode, p: Perturbation) -> u32 {
    through_f32(a, mode, |x, key| {
        let value = log2(x);
        // Between 0.5 and 2 the bound is absolute.
        let near = value.abs() < 1.0;
        let absolute = p.absolute(value, 5, key, BOUND_22);
        let relative = p.relative(value, 5, key, BOUND_22);
        if near { absolute } else { relative }
    })
}

/// `tanh.approx.f32`.
#[inline(always)]
pub fn tanh(a: u32, mode: Mode, p: Perturbation) -> u32 {
    through_f32(a, mode, |x, key| p.relative(hyperbolic_tangent(x), 6, key, BOUND_11))
}

/// `sin.approx.f32`.
#[inline(always)]
pub fn sin(a: u32, mode: Mode, p: Perturbation) -> u32 {
    through_f32(a, mode, |x, key| if x == 0.0 { x } else { p.absolute(x.sin(), 7, key, sine_bound(x)) })
}

/// `cos.approx.f32`.
#[inline(always)]
pub fn cos(a: u32, mode: Mode, p: Perturbation) -> u32 {
    through_f32(a, mode, |x, key| if x == 0.0 { 1.0 } else { p.absolute(x.cos(), 8, key, sine_bound(x)) })
}

/// The absolute bound of `sin` and `cos` at `x`.
#[inline(always)]
fn sine_bound(x: f64) -> f64 {
    if x.abs() <= std::f64::consts::PI { BOUND_SINE } else { BOUND_SINE_FAR }
}

/// `div.full.f32` and, with `approx`, `div.approx.f32`: within 2 units in the last place. The latter gives up for
/// divisors above 2^126: zero, or NaN for an infinite dividend.
#[inline(always)]
pub fn div(a: u32, b: u32, approx: bool, mode: Mode, p: Perturbation) -> u32 {
    let (a, b) = if mode.ftz { (flush_f32(a), flush_f32(b)) } else { (a, b) };
    let magnitude = b & 0x7fff_ffff;
    if approx && magnitude > 253 << 23 && magnitude < 0x7f80_0000 {
        let dividend = a & 0x7fff_ffff;
        return if dividend >= 0x7f80_0000 {
            NAN_F32
        } else if mode.saturate {
            0
        } else {
            (a ^ b) & 0x8000_0000
        };
    }
    let key = u64::from(a) << 32 | u64::from(b);
    // At most one last place (of the smallest relative size, 2^-24) on top of the rounding.
    let quotient = p.relative(f64::from(f32::from_bits(a)) / f64::from(f32::from_bits(b)), 9, key, ROUNDING);
    let result = quotient as f32;
    let result = if mode.saturate { saturate_f32(result) } else { result };
    let bits = if result.is_nan() { NAN_F32 } else { result.to_bits() };
    if mode.ftz { flush_f32(bits) } else { bits }
}

/// `ex2.approx` of f16 or bf16, one value or two. Bounds: 2^-9.9 and 2^-7, relative.
#[inline(always)]
pub fn ex2_half<H: Half>(a: u32, x2: bool, mode: HalfMode, p: Perturbation) -> u32 {
    let low = ex2_one::<H>(a & 0xffff, mode, p);
    if x2 { low | ex2_one::<H>(a >> 16, mode, p) << 16 } else { low }
}

#[inline(always)]
fn ex2_one<H: Half>(a: u32, mode: HalfMode, p: Perturbation) -> u32 {
    let bound = if H::ONE == 0x3c00 { 1.046_7e-3 - 4.9e-4 } else { 1.0 / 256.0 };
    let a = if mode.ftz { flush::<H>(a) } else { a };
    let result = H::from_f32(p.relative(exp2(H::to_f32(a).into()), 10, a.into(), bound) as f32);
    if mode.ftz { flush::<H>(result) } else { result }
}

/// `tanh.approx` of f16 or bf16, one value or two. Bounds: 2^-10.987 and 2^-8, absolute.
#[inline(always)]
pub fn tanh_half<H: Half>(a: u32, x2: bool, p: Perturbation) -> u32 {
    let low = tanh_one::<H>(a & 0xffff, p);
    if x2 { low | tanh_one::<H>(a >> 16, p) << 16 } else { low }
}

#[inline(always)]
fn tanh_one<H: Half>(a: u32, p: Perturbation) -> u32 {
    let bound = if H::ONE == 0x3c00 { 4.9e-4 - 2.5e-4 } else { 1.0 / 512.0 };
    let value = hyperbolic_tangent(H::to_f32(a).into());
    let moved = p.absolute(value, 11, a.into(), bound).clamp(-1.0, 1.0);
    H::from_f32(if value == 0.0 { value } else { moved } as f32)
}

/// `rsqrt.approx.f64`: within about one unit in the last place.
#[inline]
pub fn rsqrt_f64(a: u64, p: Perturbation) -> u64 {
    let x = f64::from_bits(a);
    let estimate = 1.0 / x.sqrt();
    if !estimate.is_normal() || x.is_infinite() {
        return estimate.to_bits();
    }
    // One Newton step with the error of the square kept.
    let square = estimate * estimate;
    let lost = estimate.mul_add(estimate, -square);
    let residual = (-x).mul_add(square, 1.0) - x * lost;
    let value = estimate + estimate * residual / 2.0;
    p.relative(value, 12, a, f64::EPSILON / 2.0).to_bits()
}

/// `rcp.approx.ftz.f64`, and `rsqrt.approx.ftz.f64` with `root`: the upper halves of operand and result only.
#[inline]
pub fn gross_f64(a: u64, root: bool, p: Perturbation) -> u64 {
    let flush = |bits: u64| if bits & 0x7ff0_0000_0000_0000 == 0 { bits & 1 << 63 } else { bits };
    let x = f64::from_bits(flush(a & !0xffff_ffff));
    let value = if root { 1.0 / x.sqrt() } else { 1.0 / x };
    if !value.is_finite() {
        return value.to_bits();
    }
    flush(p.relative(value, 13, a >> 32, 1.0 / (1 << 20) as f64).to_bits() & !0xffff_ffff)
}

/// 2^x to nearly the last place of f64, for |x| up to 300, beyond which any f32 is zero or infinite.
#[inline(always)]
fn exp2(x: f64) -> f64 {
    // Adding 1.5·2^52 leaves the nearest whole number in the low bits.
    const SHIFTER: f64 = 6_755_399_441_055_744.0;
    let x = x.clamp(-300.0, 300.0);
    let shifted = x + SHIFTER;
    let whole = shifted - SHIFTER;
    let t = (x - whole) * std::f64::consts::LN_2;
    // Taylor's series: |t| ≤ 0.35, so that the first term left out is below 10^-17.
    let mut sum = 1.0 / 6_227_020_800.0;
    for inverse_factorial in [
        1.0 / 479_001_600.0,
        1.0 / 39_916_800.0,
        1.0 / 3_628_800.0,
        1.0 / 362_880.0,
        1.0 / 40_320.0,
        1.0 / 5_040.0,
        1.0 / 720.0,
        1.0 / 120.0,
        1.0 / 24.0,
        1.0 / 6.0,
        0.5,
        1.0,
        1.0,
    ] {
        sum = sum * t + inverse_factorial;
    }
    sum * f64::from_bits(shifted.to_bits().wrapping_add(1023) << 52)
}

/// log2 of any f32 held as f64, to nearly the last place.
#[inline(always)]
fn log2(x: f64) -> f64 {
    // m in [√½, √2), so that x near 1 has exponent 0 and nothing cancels.
    let bits = x.to_bits();
    let offset = bits.wrapping_sub(0x3fe6_a09e_667f_3bcd);
    let exponent = (offset as i64 >> 52) as i32;
    let m = f64::from_bits(bits.wrapping_sub((offset as i64 >> 52 << 52) as u64));
    // ln m = 2 artanh s.
    let s = (m - 1.0) / (m + 1.0);
    let square = s * s;
    let mut sum = 1.0 / 23.0;
    for odd in [21.0, 19.0, 17.0, 15.0, 13.0, 11.0, 9.0, 7.0, 5.0, 3.0, 1.0] {
        sum = sum * square + 1.0 / odd;
    }
    let finite = f64::from(exponent) + 2.0 * std::f64::consts::LOG2_E * s * sum;
    if x == 0.0 {
        f64::NEG_INFINITY
    } else if x > 0.0 && x < f64::INFINITY {
        finite
    } else if x > 0.0 {
        f64::INFINITY
    } else {
        f64::NAN
    }
}

/// tanh in f64: by exponentials, near zero by its series.
#[inline(always)]
fn hyperbolic_tangent(x: f64) -> f64 {
    let size = x.abs();
    let decay = exp2(-2.0 * std::f64::consts::LOG2_E * size);
    let large = (1.0 - decay) / (1.0 + decay);
    let square = x * x;
    let small = size * (1.0 + square * (-1.0 / 3.0 + square * (2.0 / 15.0)));
    (if size < 1.0 / 1024.0 { small } else { large }).copysign(x)
}
