//! f32 and f64 arithmetic.
//!
//! The modes that compilers emit by default have loops of their own; the others are looked up in `x` for each lane.

use super::{Reader, simple};
use crate::arith::float::{self as f, Extreme, Property};
use crate::arith::{Mode, Round, approx};
use crate::decode::builder::{Builder, Decoded};
use crate::decode::op::{Action, Op};
use crate::decode::types::Type;
use crate::machine::lanes::{Extra, approximation, binary, compare, ternary, unary};

/// Modifiers as they are kept in [`Op::x`].
pub fn pack(mode: Mode) -> u64 {
    mode.round as u64 | u64::from(mode.ftz) << 4 | u64::from(mode.saturate) << 5
}

/// Modifiers from [`Extra::x`].
#[inline(always)]
pub fn mode(extra: Extra) -> Mode {
    Mode { round: round(extra), ftz: extra.x & 16 != 0, saturate: extra.x & 32 != 0 }
}

#[inline(always)]
fn round(extra: Extra) -> Round {
    match extra.x & 15 {
        1 => Round::Zero,
        2 => Round::Down,
        3 => Round::Up,
        _ => Round::Nearest,
    }
}

/// A function of f32 with a mode: two fast versions and a general one.
macro_rules! moded {
    ($constructor:ident, $mode:expr, $f:path, $($a:ident),*) => {
        match $mode {
            Mode::NEAREST => $constructor(|_, $($a: u32),*| $f($($a,)* Mode::NEAREST)),
            Mode::NEAREST_FTZ => $constructor(|_, $($a: u32),*| $f($($a,)* Mode::NEAREST_FTZ)),
            _ => $constructor(|extra, $($a: u32),*| $f($($a,)* mode(extra))),
        }
    };
}

/// A function of f64 with a rounding: a fast version and a general one.
macro_rules! rounded {
    ($constructor:ident, $mode:expr, $f:path, $($a:ident),*) => {
        match $mode.round {
            Round::Nearest => $constructor(|_, $($a: u64),*| $f($($a,)* Round::Nearest)),
            _ => $constructor(|extra, $($a: u64),*| $f($($a,)* round(extra))),
        }
    };
}

pub fn decode<'a>(b: &mut Builder<'a, '_>, mut r: Reader<'a, '_>) -> Decoded {
    if r.base() == "testp" {
        return test(b, r);
    }
    let approximate = r.has("approx");
    let full = r.has("full");
    let how = Extreme { max: r.base() == "max", ftz: false, nan: r.has("NaN"), xorsign: false };
    let xorsign = r.has("xorsign") && (r.has("abs") || b.error::<()>(".abs must follow .xorsign").is_err());
    let mode = Mode { ftz: r.has("ftz"), saturate: r.has("sat"), round: r.rounding() };
    let t = r.only_type(b)?;
    if let Type::F16 | Type::F16x2 | Type::Bf16 | Type::Bf16x2 = t {
        return super::half::approximate(b, r, t, mode.ftz);
    }
    let how = Extreme { ftz: mode.ftz, xorsign, ..how };
    let single = t == Type::F32;
    if !single && t != Type::F64 {
        return b.error(format!(".{} is not a type of this instruction", t.name()));
    }
    let (action, sources) = match (r.base(), single) {
        ("add", true) => (moded!(binary, mode, f::add_f32, x, y), 2),
        ("sub", true) => (moded!(binary, mode, f::sub_f32, x, y), 2),
        ("mul", true) => (moded!(binary, mode, f::mul_f32, x, y), 2),
        ("fma" | "mad", true) => (moded!(ternary, mode, f::fma_f32, x, y, z), 3),
        ("add", false) => (rounded!(binary, mode, f::add_f64, x, y), 2),
        ("sub", false) => (rounded!(binary, mode, f::sub_f64, x, y), 2),
        ("mul", false) => (rounded!(binary, mode, f::mul_f64, x, y), 2),
        ("fma" | "mad", false) => (rounded!(ternary, mode, f::fma_f64, x, y, z), 3),
        ("min" | "max", true) => (extremes(how), 2),
        ("min", false) => (binary(|_, x: u64, y: u64| f::extreme_f64(x, y, false)), 2),
        ("max", false) => (binary(|_, x: u64, y: u64| f::extreme_f64(x, y, true)), 2),
        ("abs", true) => (unary(|e, x: u32| f::abs_f32(x, e.x & 16 != 0)), 1),
        ("neg", true) => (unary(|e, x: u32| f::neg_f32(x, e.x & 16 != 0)), 1),
        ("abs", false) => (unary(|_, x: u64| f::abs_f64(x)), 1),
        ("neg", false) => (unary(|_, x: u64| f::neg_f64(x)), 1),
        ("copysign", true) => (binary(|_, x: u32, y: u32| f::copysign_f32(x, y)), 2),
        ("copysign", false) => (binary(|_, x: u64, y: u64| f::copysign_f64(x, y)), 2),
        ("div", true) if approximate => {
            (binary(|e, x: u32, y: u32| approx::div(x, y, true, mode_of(e), e.perturbation)), 2)
        }
        ("div", true) if full => (binary(|e, x: u32, y: u32| approx::div(x, y, false, mode_of(e), e.perturbation)), 2),
        ("div", true) => (moded!(binary, mode, f::div_f32, x, y), 2),
        ("div", false) => (rounded!(binary, mode, f::div_f64, x, y), 2),
        ("rcp", true) if approximate => (approximation!(|e, x: u32| approx::rcp(x, mode_of(e), e.perturbation)), 1),
        ("rcp", false) if approximate => (approximation!(|e, x: u64| approx::gross_f64(x, false, e.perturbation)), 1),
        ("rcp", true) => (moded!(unary, mode, f::rcp_f32, x), 1),
        ("rcp", false) => (rounded!(unary, mode, f::rcp_f64, x), 1),
        ("sqrt", true) if approximate => (approximation!(|e, x: u32| approx::sqrt(x, mode_of(e), e.perturbation)), 1),
        ("sqrt", true) => (moded!(unary, mode, f::sqrt_f32, x), 1),
        ("sqrt", false) => (rounded!(unary, mode, f::sqrt_f64, x), 1),
        ("rsqrt", true) => (approximation!(|e, x: u32| approx::rsqrt(x, mode_of(e), e.perturbation)), 1),
        ("rsqrt", false) if mode.ftz => (approximation!(|e, x: u64| approx::gross_f64(x, true, e.perturbation)), 1),
        ("rsqrt", false) => (approximation!(|e, x: u64| approx::rsqrt_f64(x, e.perturbation)), 1),
        ("sin", true) => (approximation!(|e, x: u32| approx::sin(x, mode_of(e), e.perturbation)), 1),
        ("cos", true) => (approximation!(|e, x: u32| approx::cos(x, mode_of(e), e.perturbation)), 1),
        ("lg2", true) => (approximation!(|e, x: u32| approx::lg2(x, mode_of(e), e.perturbation)), 1),
        ("ex2", true) => (approximation!(|e, x: u32| approx::ex2(x, mode_of(e), e.perturbation)), 1),
        ("tanh", true) => (approximation!(|e, x: u32| approx::tanh(x, mode_of(e), e.perturbation)), 1),
        _ => return r.refuse(b),
    };
    let t = if single { Type::F32 } else { Type::F64 };
    let op = simple(b, &r, action, t, &[t, t, t][..sources])?;
    b.emit(Op { x: pack(mode), ..op });
    Ok(())
}

#[inline(always)]
fn mode_of(extra: Extra) -> Mode {
    mode(extra)
}

/// `min`, `max` of f32: the plain ones fast, the others by `y`.
fn extremes(how: Extreme) -> Action {
    const fn plain(max: bool) -> Extreme {
        Extreme { max, ftz: false, nan: false, xorsign: false }
    }
    match how {
        _ if how == plain(false) => binary(|_, x: u32, y: u32| f::extreme_f32(x, y, plain(false))),
        _ if how == plain(true) => binary(|_, x: u32, y: u32| f::extreme_f32(x, y, plain(true))),
        // Only `ftz` varies at run time; the rest is eight loops, rarely used.
        Extreme { max: false, nan: false, xorsign: false, .. } => {
            binary(|_, x: u32, y: u32| f::extreme_f32(x, y, Extreme { ftz: true, ..plain(false) }))
        }
        Extreme { max: true, nan: false, xorsign: false, .. } => {
            binary(|_, x: u32, y: u32| f::extreme_f32(x, y, Extreme { ftz: true, ..plain(true) }))
        }
        Extreme { max: false, nan: true, xorsign: false, .. } => {
            binary(|e, x: u32, y: u32| f::extreme_f32(x, y, Extreme { nan: true, ftz: e.x & 16 != 0, ..plain(false) }))
        }
        Extreme { max: true, nan: true, xorsign: false, .. } => {
            binary(|e, x: u32, y: u32| f::extreme_f32(x, y, Extreme { nan: true, ftz: e.x & 16 != 0, ..plain(true) }))
        }
        Extreme { max: false, nan: false, xorsign: true, .. } => binary(|e, x: u32, y: u32| {
            f::extreme_f32(x, y, Extreme { xorsign: true, ftz: e.x & 16 != 0, ..plain(false) })
        }),
        Extreme { max: true, nan: false, xorsign: true, .. } => binary(|e, x: u32, y: u32| {
            f::extreme_f32(x, y, Extreme { xorsign: true, ftz: e.x & 16 != 0, ..plain(true) })
        }),
        Extreme { max: false, .. } => binary(|e, x: u32, y: u32| {
            f::extreme_f32(x, y, Extreme { max: false, nan: true, xorsign: true, ftz: e.x & 16 != 0 })
        }),
        Extreme { max: true, .. } => binary(|e, x: u32, y: u32| {
            f::extreme_f32(x, y, Extreme { max: true, nan: true, xorsign: true, ftz: e.x & 16 != 0 })
        }),
    }
}

/// `testp`: the property is in `x`.
fn test<'a>(b: &mut Builder<'a, '_>, mut r: Reader<'a, '_>) -> Decoded {
    const PROPERTIES: [Property; 6] = [
        Property::Finite,
        Property::Infinite,
        Property::Number,
        Property::NotANumber,
        Property::Normal,
        Property::Subnormal,
    ];
    let names = [("finite", 0u64), ("infinite", 1), ("number", 2), ("notanumber", 3), ("normal", 4), ("subnormal", 5)];
    let Some(x) = r.one_of(&names) else { return b.error("a property must be given") };
    let t = r.only_type(b)?;
    r.done_with(b, 2)?;
    let action = match t {
        Type::F32 => compare(|e, v: u32, _: u32| f::test_f32(v, PROPERTIES[(e.x % 6) as usize])),
        Type::F64 => compare(|e, v: u64, _: u64| f::test_f64(v, PROPERTIES[(e.x % 6) as usize])),
        _ => return r.refuse(b),
    };
    let d = b.predicate_destination(r.operand(b, 0)?)?;
    let a = b.source(r.operand(b, 1)?, t)?;
    b.emit(Op { d, a, b: a, x, ..Op::new(action) });
    Ok(())
}
