//! Logic, shifts, bit fields.

use super::{Reader, simple};
use crate::arith::bits as k;
use crate::decode::builder::{Builder, Carries, Decoded};
use crate::decode::op::{self, Action, Op};
use crate::decode::types::Type;
use crate::machine::lanes::{binary, frame, quaternary, ternary, unary};
use crate::ptx::Operand;

pub fn decode<'a>(b: &mut Builder<'a, '_>, mut r: Reader<'a, '_>) -> Decoded {
    match r.base() {
        "and" | "or" | "xor" | "not" if r.instruction.opcode.contains(&"pred") => return predicates(b, r),
        "shf" => return funnel(b, r),
        "lop3" => return logic3(b, r),
        "prmt" => return permute(b, r),
        "bfind" | "fns" | "szext" | "bmsk" => return finding(b, r),
        _ => {}
    }
    let t = r.only_type(b)?;
    let wide = t.is_wide();
    let u32s = Type::B32;
    let (action, d, sources): (Action, Type, Vec<Type>) = match (r.base(), wide) {
        ("and", false) => (binary(|_, x: u32, y: u32| x & y), t, vec![t; 2]),
        ("and", true) => (binary(|_, x: u64, y: u64| x & y), t, vec![t; 2]),
        ("or", false) => (binary(|_, x: u32, y: u32| x | y), t, vec![t; 2]),
        ("or", true) => (binary(|_, x: u64, y: u64| x | y), t, vec![t; 2]),
        ("xor", false) => (binary(|_, x: u32, y: u32| x ^ y), t, vec![t; 2]),
        ("xor", true) => (binary(|_, x: u64, y: u64| x ^ y), t, vec![t; 2]),
        ("not", false) => (unary(|_, x: u32| !x), t, vec![t]),
        ("not", true) => (unary(|_, x: u64| !x), t, vec![t]),
        ("cnot", false) if t.bytes() == 2 => (unary(|_, x: u32| u32::from(x as u16 == 0)), t, vec![t]),
        ("cnot", false) => (unary(|_, x: u32| u32::from(x == 0)), t, vec![t]),
        ("cnot", true) => (unary(|_, x: u64| u64::from(x == 0)), t, vec![t]),
        ("shl", _) if t.bytes() == 2 => {
            (binary(|_, x: u32, n: u32| u32::from(k::shl16(x as u16, n))), t, vec![t, u32s])
        }
        ("shl", false) => (binary(|_, x: u32, n: u32| k::shl32(x, n)), t, vec![t, u32s]),
        ("shl", true) => (binary(|_, x: u64, n: u32| k::shl64(x, n)), t, vec![t, u32s]),
        ("shr", _) => {
            let action = match (t.bytes(), t.is_signed()) {
                (2, false) => binary(|_, x: u32, n: u32| u32::from(k::shr_u16(x as u16, n))),
                (2, true) => binary(|_, x: u32, n: u32| u32::from(k::shr_s16(x as u16, n))),
                (4, false) => binary(|_, x: u32, n: u32| k::shr_u32(x, n)),
                (4, true) => binary(|_, x: u32, n: u32| k::shr_s32(x, n)),
                (8, false) => binary(|_, x: u64, n: u32| k::shr_u64(x, n)),
                (8, true) => binary(|_, x: u64, n: u32| k::shr_s64(x, n)),
                _ => return r.refuse(b),
            };
            (action, t, vec![t, u32s])
        }
        ("popc", false) => (unary(|_, x: u32| x.count_ones()), u32s, vec![t]),
        ("popc", true) => (unary(|_, x: u64| x.count_ones()), u32s, vec![t]),
        ("clz", false) => (unary(|_, x: u32| x.leading_zeros()), u32s, vec![t]),
        ("clz", true) => (unary(|_, x: u64| x.leading_zeros()), u32s, vec![t]),
        ("brev", false) => (unary(|_, x: u32| x.reverse_bits()), t, vec![t]),
        ("brev", true) => (unary(|_, x: u64| x.reverse_bits()), t, vec![t]),
        ("bfe", false) if t.is_signed() => {
            (ternary(|_, x: u32, p: u32, n: u32| k::extract(x.into(), p, n, 32, true) as u32), t, vec![t, u32s, u32s])
        }
        ("bfe", false) => {
            (ternary(|_, x: u32, p: u32, n: u32| k::extract(x.into(), p, n, 32, false) as u32), t, vec![t, u32s, u32s])
        }
        ("bfe", true) if t.is_signed() => {
            (ternary(|_, x: u64, p: u32, n: u32| k::extract(x, p, n, 64, true)), t, vec![t, u32s, u32s])
        }
        ("bfe", true) => (ternary(|_, x: u64, p: u32, n: u32| k::extract(x, p, n, 64, false)), t, vec![t, u32s, u32s]),
        ("bfi", false) => (
            quaternary(|_, x: u32, y: u32, p: u32, n: u32| k::insert(x.into(), y.into(), p, n, 32) as u32),
            t,
            vec![t, t, u32s, u32s],
        ),
        ("bfi", true) => {
            (quaternary(|_, x: u64, y: u64, p: u32, n: u32| k::insert(x, y, p, n, 64)), t, vec![t, t, u32s, u32s])
        }
        _ => return r.refuse(b),
    };
    let op = simple(b, &r, action, d, &sources)?;
    b.emit(op);
    Ok(())
}

/// `and.pred`, `or.pred`, `xor.pred`, `not.pred`: by `x`.
fn predicates<'a>(b: &mut Builder<'a, '_>, mut r: Reader<'a, '_>) -> Decoded {
    r.only_type(b)?;
    let not = r.base() == "not";
    r.done_with(b, if not { 2 } else { 3 })?;
    let d = b.predicate_destination(r.operand(b, 0)?)?;
    let a = b.predicate_source(r.operand(b, 1)?)?;
    let second = if not { a } else { b.predicate_source(r.operand(b, 2)?)? };
    let action = frame(|frame, op, mask| {
        // SAFETY: the decoder gives all three predicates.
        unsafe {
            let (x, y) = (frame.predicate(op.a), frame.predicate(op.b));
            let value = match op.x {
                op::AND => x & y,
                op::OR => x | y,
                op::XOR => x ^ y,
                _ => !x,
            };
            frame.write_predicate(op.d, value, mask);
        }
    });
    let x = match r.base() {
        "and" => op::AND,
        "or" => op::OR,
        "xor" => op::XOR,
        _ => 0,
    };
    b.emit(Op { d, a, b: second, x, ..Op::new(action) }).carries = Carries::Logic;
    Ok(())
}

fn funnel<'a>(b: &mut Builder<'a, '_>, mut r: Reader<'a, '_>) -> Decoded {
    let left = r.one_of(&[("l", true), ("r", false)]);
    let wrap = r.one_of(&[("clamp", false), ("wrap", true)]);
    let t = r.only_type(b)?;
    let action = match (left, wrap) {
        (Some(true), Some(true)) => ternary(|_, x: u32, y: u32, n: u32| k::funnel_left(x, y, n, true)),
        (Some(true), Some(false)) => ternary(|_, x: u32, y: u32, n: u32| k::funnel_left(x, y, n, false)),
        (Some(false), Some(true)) => ternary(|_, x: u32, y: u32, n: u32| k::funnel_right(x, y, n, true)),
        (Some(false), Some(false)) => ternary(|_, x: u32, y: u32, n: u32| k::funnel_right(x, y, n, false)),
        _ => return r.refuse(b),
    };
    let op = simple(b, &r, action, t, &[t, t, t])?;
    b.emit(op);
    Ok(())
}

/// `lop3`: the table is in `x`. The commonest tables have loops of their own by way of the compiler's own folding only
/// when they are constant, so this one evaluates the table bit by bit.
fn logic3<'a>(b: &mut Builder<'a, '_>, mut r: Reader<'a, '_>) -> Decoded {
    if r.has("or") || r.has("and") {
        return r.refuse(b);
    }
    r.only_type(b)?;
    r.done_with(b, 5)?;
    let Operand::Integer(table) = r.operand(b, 4)? else { return b.error("the table must be a constant") };
    let t = Type::B32;
    let action = ternary(|e, x: u32, y: u32, z: u32| k::logic3(x, y, z, e.x as u8));
    let d = b.destination(r.operand(b, 0)?, t)?;
    let a = b.source(r.operand(b, 1)?, t)?;
    let second = b.source(r.operand(b, 2)?, t)?;
    let c = b.source(r.operand(b, 3)?, t)?;
    b.emit(Op { d, a, b: second, c, x: *table as u64 & 0xFF, ..Op::new(action) });
    Ok(())
}

fn permute<'a>(b: &mut Builder<'a, '_>, mut r: Reader<'a, '_>) -> Decoded {
    use k::Permute;
    r.only_type(b)?;
    let mode = r.one_of(&[("f4e", 1), ("b4e", 2), ("rc8", 3), ("ecl", 4), ("ecr", 5), ("rc16", 6)]).unwrap_or(0u64);
    let action = match mode {
        0 => ternary(|_, x: u32, y: u32, s: u32| k::permute(x, y, s, Permute::Index)),
        _ => ternary(|e, x: u32, y: u32, s: u32| {
            let modes = [
                Permute::Index,
                Permute::Forward4,
                Permute::Backward4,
                Permute::Replicate8,
                Permute::EdgeLeft,
                Permute::EdgeRight,
                Permute::Replicate16,
            ];
            k::permute(x, y, s, modes[(e.x % 7) as usize])
        }),
    };
    let op = simple(b, &r, action, Type::B32, &[Type::B32; 3])?;
    b.emit(Op { x: mode, ..op });
    Ok(())
}

/// `bfind`, `fns`, `szext`, `bmsk`.
fn finding<'a>(b: &mut Builder<'a, '_>, mut r: Reader<'a, '_>) -> Decoded {
    let amount = r.has("shiftamt");
    let wrap = r.one_of(&[("clamp", false), ("wrap", true)]).unwrap_or(false);
    let t = r.only_type(b)?;
    let u32s = Type::B32;
    let (action, sources) = match (r.base(), t.is_wide()) {
        ("bfind", false) => (unary(|e, x: u32| k::find32(x, e.x & 1 != 0, e.x & 2 != 0)), vec![t]),
        ("bfind", true) => (unary(|e, x: u64| k::find64(x, e.x & 1 != 0, e.x & 2 != 0)), vec![t]),
        ("fns", _) => (ternary(|_, x: u32, base: u32, n: u32| k::find_nth_set(x, base, n as i32)), vec![u32s; 3]),
        ("szext", _) => (binary(|e, x: u32, n: u32| k::extend(x, n, e.x & 1 != 0, e.x & 4 != 0)), vec![u32s; 2]),
        ("bmsk", _) => (binary(|e, p: u32, n: u32| k::mask(p, n, e.x & 4 != 0)), vec![u32s; 2]),
        _ => return r.refuse(b),
    };
    let op = simple(b, &r, action, u32s, &sources)?;
    let x = u64::from(t.is_signed()) | u64::from(amount) << 1 | u64::from(wrap) << 2;
    b.emit(Op { x, ..op });
    Ok(())
}
