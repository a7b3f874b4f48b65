//! Integer arithmetic.

#![allow(clippy::unnecessary_cast, reason = "needed for one of the lane types that a macro is used with")]

use super::{Reader, by_integer, simple};
use crate::arith::bits::{dot2, dot4};
use crate::arith::integer::{
    Integer, add_carry32, add_carry64, mad_hi, mad_hi_sat, mad_lo, mad_wide, mad24_hi_sat, mul24_hi, mul24_lo, sad,
    sub_borrow32, sub_borrow64,
};
use crate::decode::builder::{Builder, Decoded};
use crate::decode::op::{NONE, Op};
use crate::decode::types::Type;
use crate::machine::lanes::{binary, carrying, ternary, unary};

/// A function of two integers as an operation.
macro_rules! two {
    ($b:expr, $t:expr, $f:ident) => {
        by_integer!($b, $t, (T, L) => binary(|_, a: L, b: L| -> L {
            T::from_bits(a as u64).$f(T::from_bits(b as u64)).bits() as L
        }))
    };
}

/// A function of three integers as an operation.
macro_rules! three {
    ($b:expr, $t:expr, $f:expr) => {
        by_integer!($b, $t, (T, L) => ternary(|_, a: L, b: L, c: L| -> L {
            $f(T::from_bits(a as u64), T::from_bits(b as u64), T::from_bits(c as u64)).bits() as L
        }))
    };
}

pub fn decode<'a>(b: &mut Builder<'a, '_>, mut r: Reader<'a, '_>) -> Decoded {
    match r.base() {
        "addc" | "subc" | "madc" => return chain(b, r),
        "add" | "sub" | "mad" if r.instruction.opcode.contains(&"cc") => return chain(b, r),
        "mul24" | "mad24" => return short(b, r),
        "dp4a" | "dp2a" => return dots(b, r),
        _ => {}
    }
    let saturate = r.has("sat");
    let part = r.one_of(&[("lo", 'l'), ("hi", 'h'), ("wide", 'w')]);
    let relu = r.has("relu");
    let t = r.only_type(b)?;
    if let Type::U16x2 | Type::S16x2 = t {
        return packed(b, &r, t, saturate, relu);
    }
    let (mut d, mut sources) = (t, vec![t, t]);
    let action = match (r.base(), part) {
        ("add", None) if saturate => two!(b, t, add_sat),
        ("sub", None) if saturate => two!(b, t, sub_sat),
        ("add", None) => two!(b, t, add),
        ("sub", None) => two!(b, t, sub),
        ("mul", Some('l')) => two!(b, t, mul_lo),
        ("mul", Some('h')) => two!(b, t, mul_hi),
        ("div", None) => two!(b, t, div),
        ("rem", None) => two!(b, t, rem),
        ("min", None) => match relu {
            false => by_integer!(b, t, (T, L) => binary(|_, x: L, y: L| -> L {
                T::from_bits(x as u64).min(T::from_bits(y as u64)).bits() as L
            })),
            true => binary(|_, x: u32, y: u32| (x as i32).min(y as i32).max(0) as u32),
        },
        ("max", None) => match relu {
            false => by_integer!(b, t, (T, L) => binary(|_, x: L, y: L| -> L {
                T::from_bits(x as u64).max(T::from_bits(y as u64)).bits() as L
            })),
            true => binary(|_, x: u32, y: u32| (x as i32).max(y as i32).max(0) as u32),
        },
        ("abs", None) => {
            sources.pop();
            by_integer!(b, t, (T, L) => unary(|_, x: L| -> L { Integer::abs(T::from_bits(x as u64)).bits() as L }))
        }
        ("neg", None) => {
            sources.pop();
            by_integer!(b, t, (T, L) => unary(|_, x: L| -> L { Integer::neg(T::from_bits(x as u64)).bits() as L }))
        }
        ("sad", None) => {
            sources.push(t);
            three!(b, t, sad)
        }
        ("mad", Some('l')) => {
            sources.push(t);
            three!(b, t, mad_lo)
        }
        ("mad", Some('h')) if saturate => {
            sources.push(t);
            ternary(|_, x: u32, y: u32, z: u32| mad_hi_sat(x as i32, y as i32, z as i32) as u32)
        }
        ("mad", Some('h')) => {
            sources.push(t);
            three!(b, t, mad_hi)
        }
        ("mul" | "mad", Some('w')) => {
            d = match t {
                Type::U16 => Type::U32,
                Type::S16 => Type::S32,
                Type::U32 => Type::U64,
                Type::S32 => Type::S64,
                _ => return b.error("multiplies 16 or 32 bits"),
            };
            if r.base() == "mad" {
                sources.push(d);
            }
            wide(t, r.base() == "mad")
        }
        _ => return r.refuse(b),
    };
    if saturate && !(t == Type::S32 && matches!(r.base(), "add" | "sub" | "mad")) {
        return b.error(".sat is for .s32");
    }
    let op = simple(b, &r, action, d, &sources)?;
    b.emit(op);
    Ok(())
}

fn wide(t: Type, add: bool) -> crate::decode::op::Action {
    match (t, add) {
        (Type::U16, false) => binary(|_, x: u32, y: u32| u32::from(x as u16) * u32::from(y as u16)),
        (Type::S16, false) => binary(|_, x: u32, y: u32| (i32::from(x as i16) * i32::from(y as i16)) as u32),
        (Type::U32, false) => binary(|_, x: u32, y: u32| u64::from(x) * u64::from(y)),
        (Type::S32, false) => binary(|_, x: u32, y: u32| (i64::from(x as i32) * i64::from(y as i32)) as u64),
        (Type::U16, true) => ternary(|_, x: u32, y: u32, z: u32| mad_wide(x as u16, y as u16, z)),
        (Type::S16, true) => ternary(|_, x: u32, y: u32, z: u32| mad_wide(x as i16, y as i16, z as i32) as u32),
        (Type::U32, true) => ternary(|_, x: u32, y: u32, z: u64| mad_wide(x, y, z)),
        (_, _) => ternary(|_, x: u32, y: u32, z: u64| mad_wide(x as i32, y as i32, z as i64) as u64),
    }
}

/// Two 16-bit values in one register: `add`, `min`, `max`.
fn packed<'a>(b: &mut Builder<'a, '_>, r: &Reader<'a, '_>, t: Type, saturate: bool, relu: bool) -> Decoded {
    fn each(x: u32, y: u32, f: impl Fn(u16, u16) -> u16) -> u32 {
        u32::from(f(x as u16, y as u16)) | u32::from(f((x >> 16) as u16, (y >> 16) as u16)) << 16
    }
    let signed = t == Type::S16x2;
    let action = match (r.base(), signed, relu) {
        ("add", _, false) if !saturate => binary(|_, x: u32, y: u32| each(x, y, u16::wrapping_add)),
        ("min", false, false) => binary(|_, x: u32, y: u32| each(x, y, |a, b| a.min(b))),
        ("max", false, false) => binary(|_, x: u32, y: u32| each(x, y, |a, b| a.max(b))),
        ("min", true, false) => binary(|_, x: u32, y: u32| each(x, y, |a, b| (a as i16).min(b as i16) as u16)),
        ("max", true, false) => binary(|_, x: u32, y: u32| each(x, y, |a, b| (a as i16).max(b as i16) as u16)),
        ("min", true, true) => binary(|_, x: u32, y: u32| each(x, y, |a, b| (a as i16).min(b as i16).max(0) as u16)),
        ("max", true, true) => binary(|_, x: u32, y: u32| each(x, y, |a, b| (a as i16).max(b as i16).max(0) as u16)),
        _ => return r.refuse(b),
    };
    let op = simple(b, r, action, Type::B32, &[Type::B32; 2])?;
    b.emit(op);
    Ok(())
}

/// A difference, and the flag: set when nothing was borrowed.
#[inline(always)]
fn kept<T>((difference, borrowed): (T, bool)) -> (T, bool) {
    (difference, !borrowed)
}

/// Carry chains: `add.cc`, `addc`, `sub.cc`, `subc`, `mad.cc`, `madc`.
fn chain<'a>(b: &mut Builder<'a, '_>, mut r: Reader<'a, '_>) -> Decoded {
    let writes = r.has("cc");
    let reads = r.base().ends_with('c');
    let high = r.one_of(&[("lo", false), ("hi", true)]);
    let t = r.only_type(b)?;
    let (wide, signed) = (t.is_wide(), t.is_signed());
    let action = match (&r.base()[..3], wide, high) {
        ("add", false, None) => carrying(|_, x: u32, y: u32, _, carry| add_carry32(x, y, carry)),
        ("add", true, None) => carrying(|_, x: u64, y: u64, _, carry| add_carry64(x, y, carry)),
        // A subtraction is the addition of the complement: the flag says that nothing was borrowed. NVIDIA's own
        // division of 128-bit integers reads it so, with addc after subc.cc.
        ("sub", false, None) if reads => carrying(|_, x: u32, y: u32, _, carry| kept(sub_borrow32(x, y, !carry))),
        ("sub", true, None) if reads => carrying(|_, x: u64, y: u64, _, carry| kept(sub_borrow64(x, y, !carry))),
        ("sub", false, None) => carrying(|_, x: u32, y: u32, _, _| kept(sub_borrow32(x, y, false))),
        ("sub", true, None) => carrying(|_, x: u64, y: u64, _, _| kept(sub_borrow64(x, y, false))),
        ("mad", false, Some(false)) => carrying(|_, x: u32, y: u32, z, carry| add_carry32(x.wrapping_mul(y), z, carry)),
        ("mad", true, Some(false)) => carrying(|_, x: u64, y: u64, z, carry| add_carry64(x.wrapping_mul(y), z, carry)),
        ("mad", false, Some(true)) if signed => {
            carrying(|_, x: u32, y: u32, z, carry| add_carry32((x as i32).mul_hi(y as i32) as u32, z, carry))
        }
        ("mad", false, Some(true)) => carrying(|_, x: u32, y: u32, z, carry| add_carry32(x.mul_hi(y), z, carry)),
        ("mad", true, Some(true)) if signed => {
            carrying(|_, x: u64, y: u64, z, carry| add_carry64((x as i64).mul_hi(y as i64) as u64, z, carry))
        }
        ("mad", true, Some(true)) => carrying(|_, x: u64, y: u64, z, carry| add_carry64(x.mul_hi(y), z, carry)),
        _ => return r.refuse(b),
    };
    let sources = if r.base().starts_with("mad") { 3 } else { 2 };
    let mut op = simple(b, &r, action, t, &vec![t; sources])?;
    if op.c == NONE {
        op.c = op.a;
    }
    let carry = b.carry_flag();
    op.list = if reads { carry } else { NONE };
    op.e = if writes { carry } else { NONE };
    b.emit(op).e_written = true;
    Ok(())
}

/// `mul24`, `mad24`.
fn short<'a>(b: &mut Builder<'a, '_>, mut r: Reader<'a, '_>) -> Decoded {
    let Some(high) = r.one_of(&[("lo", false), ("hi", true)]) else { return b.error(".lo or .hi must be given") };
    let saturate = r.has("sat");
    let t = r.only_type(b)?;
    let signed = t.is_signed();
    let action = match (r.base(), high, signed) {
        ("mul24", false, false) => binary(|_, x: u32, y: u32| mul24_lo(x, y, false)),
        ("mul24", false, true) => binary(|_, x: u32, y: u32| mul24_lo(x, y, true)),
        ("mul24", true, false) => binary(|_, x: u32, y: u32| mul24_hi(x, y, false)),
        ("mul24", true, true) => binary(|_, x: u32, y: u32| mul24_hi(x, y, true)),
        ("mad24", false, false) => ternary(|_, x: u32, y: u32, z: u32| mul24_lo(x, y, false).wrapping_add(z)),
        ("mad24", false, true) => ternary(|_, x: u32, y: u32, z: u32| mul24_lo(x, y, true).wrapping_add(z)),
        ("mad24", true, true) if saturate => ternary(|_, x: u32, y: u32, z: u32| mad24_hi_sat(x, y, z)),
        ("mad24", true, false) => ternary(|_, x: u32, y: u32, z: u32| mul24_hi(x, y, false).wrapping_add(z)),
        (_, _, _) => ternary(|_, x: u32, y: u32, z: u32| mul24_hi(x, y, true).wrapping_add(z)),
    };
    let sources = if r.base() == "mad24" { 3 } else { 2 };
    let op = simple(b, &r, action, t, &vec![t; sources])?;
    b.emit(op);
    Ok(())
}

/// `dp4a`, `dp2a`: the signs of the two operands are in `x`.
fn dots<'a>(b: &mut Builder<'a, '_>, mut r: Reader<'a, '_>) -> Decoded {
    let upper = r.one_of(&[("lo", false), ("hi", true)]);
    let [ta, tb] = r.types()[..] else { return b.error("two types must be given") };
    let action = match (r.base(), upper) {
        ("dp4a", None) => ternary(|e, x: u32, y: u32, z: u32| dot4(x, y, z, e.x & 1 != 0, e.x & 2 != 0)),
        ("dp2a", Some(_)) => {
            ternary(|e, x: u32, y: u32, z: u32| dot2(x, y, z, e.x & 1 != 0, e.x & 2 != 0, e.x & 4 != 0))
        }
        _ => return r.refuse(b),
    };
    let op = simple(b, &r, action, Type::B32, &[Type::B32; 3])?;
    let x = u64::from(ta.is_signed()) | u64::from(tb.is_signed()) << 1 | u64::from(upper == Some(true)) << 2;
    b.emit(Op { x, ..op });
    Ok(())
}
