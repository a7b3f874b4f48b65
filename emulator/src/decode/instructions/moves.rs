//! `mov`, `cvta`, `isspacep`.

use super::{Reader, simple};
use crate::decode::builder::{Builder, Decoded};
use crate::decode::op::{NONE, Op, PREDICATE};
use crate::decode::types::Type;
use crate::machine::core::{CONSTANT_WINDOW, LOCAL_WINDOW, PARAMETER_WINDOW, SHARED_WINDOW};
use crate::machine::lanes::{binary, compare, frame, quaternary, unary};
use crate::ptx::Operand;

pub fn decode<'a>(b: &mut Builder<'a, '_>, r: Reader<'a, '_>) -> Decoded {
    match r.base() {
        "mov" => mov(b, r),
        "cvta" => convert_address(b, r),
        "isspacep" => is_space(b, r),
        _ => r.refuse(b),
    }
}

fn mov<'a>(b: &mut Builder<'a, '_>, mut r: Reader<'a, '_>) -> Decoded {
    let t = r.only_type(b)?;
    r.done_with(b, 2)?;
    let (to, from) = (r.operand(b, 0)?, r.operand(b, 1)?);
    if t == Type::Pred {
        let d = b.predicate_destination(to)?;
        let a = b.predicate_source(from)?;
        let action = frame(|frame, op, mask| {
            // SAFETY: the decoder gives predicates.
            unsafe { frame.write_predicate(op.d, frame.predicate(op.a), mask) }
        });
        b.emit(Op { d, a, ..Op::new(action) });
        return Ok(());
    }
    match (to, from) {
        (Operand::Vector(parts), _) => unpack(b, t, parts, from),
        (_, Operand::Vector(parts)) => pack(b, t, to, parts),
        _ => {
            let d = b.destination(to, t)?;
            // The address of a kernel's parameter, or of a local variable, is a value like others.
            let a = b.source(from, t)?;
            let action = if t.is_wide() { unary(|_, x: u64| x) } else { unary(|_, x: u32| x) };
            b.emit(Op { d, a, ..Op::new(action) });
            Ok(())
        }
    }
}

/// `mov.b64 {a, b}, c`
fn unpack<'a>(b: &mut Builder<'a, '_>, t: Type, parts: &[Operand<'a>], from: &Operand<'a>) -> Decoded {
    let a = b.source(from, t)?;
    let bits = t.bytes() * 8 / parts.len() as u32;
    let part = match bits {
        8 => Type::B8,
        16 => Type::B16,
        32 => Type::B32,
        _ => return b.error("the vector's elements must have 8, 16 or 32 bits"),
    };
    let mask = (1u64 << bits) - 1;
    let mut first = true;
    for (i, to) in parts.iter().enumerate() {
        let d = b.destination(to, part)?;
        if d == NONE {
            continue;
        }
        let action = match t.is_wide() {
            true => unary(|e, x: u64| (x >> e.x & e.y) as u32),
            false => unary(|e, x: u32| x >> e.x & e.y as u32),
        };
        let op = Op { d, a, x: u64::from(bits) * i as u64, y: mask, hidden: !first, ..Op::new(action) };
        b.emit(op);
        first = false;
    }
    Ok(())
}

/// `mov.b64 a, {b, c}`
fn pack<'a>(b: &mut Builder<'a, '_>, t: Type, to: &Operand<'a>, parts: &[Operand<'a>]) -> Decoded {
    let d = b.destination(to, t)?;
    let part = match t.bytes() as usize / parts.len() {
        1 => Type::B8,
        2 => Type::B16,
        4 => Type::B32,
        _ => return b.error("the vector's elements must have 8, 16 or 32 bits"),
    };
    let mut codes = [NONE; 4];
    if parts.len() > 4 {
        return b.error("a vector has at most 4 elements");
    }
    for (code, operand) in codes.iter_mut().zip(parts) {
        *code = b.source(operand, part)?;
    }
    let [a, second, c, e] = codes;
    let action = match (t.bytes(), parts.len()) {
        (8, 2) => binary(|_, x: u32, y: u32| u64::from(x) | u64::from(y) << 32),
        (8, 4) => quaternary(|_, x: u32, y: u32, z: u32, w: u32| {
            u64::from(x & 0xFFFF)
                | u64::from(y & 0xFFFF) << 16
                | u64::from(z & 0xFFFF) << 32
                | u64::from(w & 0xFFFF) << 48
        }),
        (4, 2) => binary(|_, x: u32, y: u32| x & 0xFFFF | y << 16),
        (4, 4) => {
            quaternary(|_, x: u32, y: u32, z: u32, w: u32| x & 0xFF | (y & 0xFF) << 8 | (z & 0xFF) << 16 | w << 24)
        }
        (2, 2) => binary(|_, x: u32, y: u32| x & 0xFF | (y & 0xFF) << 8),
        _ => return b.error("the vector does not fill the register"),
    };
    b.emit(Op { d, a, b: second, c, e, ..Op::new(action) });
    Ok(())
}

/// Where the generic addresses of a space begin. A device function's parameters are in its local memory.
fn window<'a>(b: &Builder<'a, '_>, space: &str) -> Option<u64> {
    Some(match space {
        "global" => 0,
        "const" => CONSTANT_WINDOW,
        "shared" | "shared::cta" | "shared::cluster" => SHARED_WINDOW,
        "local" => LOCAL_WINDOW,
        "param" if b.entry => PARAMETER_WINDOW,
        "param" => LOCAL_WINDOW,
        _ => return None,
    })
}

fn convert_address<'a>(b: &mut Builder<'a, '_>, mut r: Reader<'a, '_>) -> Decoded {
    let to = r.has("to");
    let t = r.only_type(b)?;
    let Some(space) = r.peek() else { return b.error("a state space must be given") };
    let Some(window) = window(b, space) else { return r.refuse(b) };
    r.has(space);
    let x = if to { window.wrapping_neg() } else { window };
    let action = match t {
        Type::U64 if window == 0 => unary(|_, address: u64| address),
        Type::U64 => unary(|e, address: u64| address.wrapping_add(e.x)),
        _ => return r.refuse(b),
    };
    let op = simple(b, &r, action, t, &[t])?;
    b.emit(Op { x, ..op });
    Ok(())
}

fn is_space<'a>(b: &mut Builder<'a, '_>, mut r: Reader<'a, '_>) -> Decoded {
    let Some(space) = r.peek() else { return b.error("a state space must be given") };
    let Some(window) = window(b, space) else { return r.refuse(b) };
    r.has(space);
    r.done_with(b, 2)?;
    let d = b.predicate_destination(r.operand(b, 0)?)?;
    let a = b.source(r.operand(b, 1)?, Type::U64)?;
    debug_assert_eq!(d & PREDICATE, PREDICATE);
    let action = compare(|e, address: u64, _: u64| address >> 56 == e.x);
    b.emit(Op { d, a, b: a, x: window >> 56, ..Op::new(action) });
    Ok(())
}
