//! f16 and bf16 arithmetic, scalar and packed.

use super::{Reader, simple};
use crate::arith::approx;
use crate::arith::float::Extreme;
use crate::arith::half::{self as h, Bf16, F16, Half, HalfMode};
use crate::decode::builder::{Builder, Decoded};
use crate::decode::op::{Action, Op};
use crate::decode::types::Type;
use crate::machine::lanes::{Extra, approximation, binary, ternary, unary};

#[inline(always)]
fn mode(extra: Extra) -> HalfMode {
    HalfMode { ftz: extra.x & 1 != 0, saturate: extra.x & 2 != 0, relu: extra.x & 4 != 0 }
}

const PLAIN: HalfMode = HalfMode { ftz: false, saturate: false, relu: false };

/// A function with a mode, scalar and packed, of both formats: a fast version without modifiers and a general one.
macro_rules! formats {
    ($constructor:ident, $t:expr, $plain:expr, $one:ident, $two:ident, $($a:ident),*) => {
        match ($t, $plain) {
            (Type::F16, true) => $constructor(|_, $($a: u32),*| h::$one::<F16>($($a,)* PLAIN)),
            (Type::F16, false) => $constructor(|e, $($a: u32),*| h::$one::<F16>($($a,)* mode(e))),
            (Type::F16x2, true) => $constructor(|_, $($a: u32),*| h::$two::<F16>($($a,)* PLAIN)),
            (Type::F16x2, false) => $constructor(|e, $($a: u32),*| h::$two::<F16>($($a,)* mode(e))),
            (Type::Bf16, true) => $constructor(|_, $($a: u32),*| h::$one::<Bf16>($($a,)* PLAIN)),
            (Type::Bf16, false) => $constructor(|e, $($a: u32),*| h::$one::<Bf16>($($a,)* mode(e))),
            (_, true) => $constructor(|_, $($a: u32),*| h::$two::<Bf16>($($a,)* PLAIN)),
            (_, false) => $constructor(|e, $($a: u32),*| h::$two::<Bf16>($($a,)* mode(e))),
        }
    };
}

pub fn decode<'a>(b: &mut Builder<'a, '_>, mut r: Reader<'a, '_>) -> Decoded {
    let mode = HalfMode { ftz: r.has("ftz"), saturate: r.has("sat"), relu: r.has("relu") };
    let (nan, xorsign) = (r.has("NaN"), r.has("xorsign"));
    if xorsign && !r.has("abs") {
        return b.error(".abs must follow .xorsign");
    }
    r.has("rn");
    let t = r.only_type(b)?;
    let plain = mode == PLAIN;
    let (action, sources) = match r.base() {
        "add" => (formats!(binary, t, plain, add, add2, x, y), 2),
        "sub" => (formats!(binary, t, plain, sub, sub2, x, y), 2),
        "mul" => (formats!(binary, t, plain, mul, mul2, x, y), 2),
        "fma" => (formats!(ternary, t, plain, fma, fma2, x, y, z), 3),
        "neg" => (signs::<false>(t), 1),
        "abs" => (signs::<true>(t), 1),
        "min" | "max" => (extremes(t), 2),
        _ => return r.refuse(b),
    };
    let x = u64::from(mode.ftz) | u64::from(mode.saturate) << 1 | u64::from(mode.relu) << 2;
    let y = u64::from(r.base() == "max") | u64::from(nan) << 1 | u64::from(xorsign) << 2;
    let op = simple(b, &r, action, Type::B32, &[Type::B32; 3][..sources])?;
    b.emit(Op { x, y, ..op });
    Ok(())
}

fn signs<const ABS: bool>(t: Type) -> Action {
    #[inline(always)]
    fn one<H: Half, const ABS: bool>(x: u32, x2: bool, ftz: bool) -> u32 {
        if ABS { h::abs::<H>(x, x2, ftz) } else { h::neg::<H>(x, x2, ftz) }
    }
    match t {
        Type::F16 => unary(|e, x: u32| one::<F16, ABS>(x, false, e.x & 1 != 0)),
        Type::F16x2 => unary(|e, x: u32| one::<F16, ABS>(x, true, e.x & 1 != 0)),
        Type::Bf16 => unary(|e, x: u32| one::<Bf16, ABS>(x, false, e.x & 1 != 0)),
        _ => unary(|e, x: u32| one::<Bf16, ABS>(x, true, e.x & 1 != 0)),
    }
}

fn extremes(t: Type) -> Action {
    #[inline(always)]
    fn one<H: Half>(e: Extra, x: u32, y: u32) -> u32 {
        let how = Extreme { max: e.y & 1 != 0, ftz: e.x & 1 != 0, nan: e.y & 2 != 0, xorsign: e.y & 4 != 0 };
        h::extreme::<H>(x & 0xFFFF, y & 0xFFFF, how)
    }
    #[inline(always)]
    fn two<H: Half>(e: Extra, x: u32, y: u32) -> u32 {
        one::<H>(e, x, y) | one::<H>(e, x >> 16, y >> 16) << 16
    }
    match t {
        Type::F16 => binary(|e, x: u32, y: u32| one::<F16>(e, x, y)),
        Type::F16x2 => binary(|e, x: u32, y: u32| two::<F16>(e, x, y)),
        Type::Bf16 => binary(|e, x: u32, y: u32| one::<Bf16>(e, x, y)),
        _ => binary(|e, x: u32, y: u32| two::<Bf16>(e, x, y)),
    }
}

/// `ex2.approx` and `tanh.approx`; the rest of the opcode has been read.
pub fn approximate<'a>(b: &mut Builder<'a, '_>, r: Reader<'a, '_>, t: Type, ftz: bool) -> Decoded {
    let action = match (r.base(), t) {
        ("ex2", Type::F16) => approximation!(|e, x: u32| approx::ex2_half::<F16>(x, false, mode(e), e.perturbation)),
        ("ex2", Type::F16x2) => approximation!(|e, x: u32| approx::ex2_half::<F16>(x, true, mode(e), e.perturbation)),
        ("ex2", Type::Bf16) => approximation!(|e, x: u32| approx::ex2_half::<Bf16>(x, false, mode(e), e.perturbation)),
        ("ex2", _) => approximation!(|e, x: u32| approx::ex2_half::<Bf16>(x, true, mode(e), e.perturbation)),
        ("tanh", Type::F16) => approximation!(|e, x: u32| approx::tanh_half::<F16>(x, false, e.perturbation)),
        ("tanh", Type::F16x2) => approximation!(|e, x: u32| approx::tanh_half::<F16>(x, true, e.perturbation)),
        ("tanh", Type::Bf16) => approximation!(|e, x: u32| approx::tanh_half::<Bf16>(x, false, e.perturbation)),
        ("tanh", _) => approximation!(|e, x: u32| approx::tanh_half::<Bf16>(x, true, e.perturbation)),
        _ => return r.refuse(b),
    };
    let op = simple(b, &r, action, Type::B32, &[Type::B32])?;
    b.emit(Op { x: ftz.into(), ..op });
    Ok(())
}
