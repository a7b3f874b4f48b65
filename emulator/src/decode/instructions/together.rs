//! What the lanes of a warp do together: `shfl`, `vote`, `match`, `redux`, matrices.

use super::Reader;
use super::memory::{address, modifiers};
use crate::decode::builder::{Builder, Carries, Decoded};
use crate::decode::op::{Action, NONE, Op};
use crate::decode::types::Type;
use crate::machine::core::OpSpace;
use crate::machine::lanes::frame;
use crate::machine::modifiers::Order;
use crate::machine::{exchange, matrix};
use crate::ptx::Operand;
use crate::tensor::mma::{Accumulator, Element, Mma};

pub fn decode<'a>(b: &mut Builder<'a, '_>, mut r: Reader<'a, '_>) -> Decoded {
    match r.base() {
        "activemask" => {
            let t = r.only_type(b)?;
            r.done_with(b, 1)?;
            let d = b.destination(r.operand(b, 0)?, t)?;
            // SAFETY: the decoder gives a 32-bit register.
            let action = frame(|frame, op, mask| unsafe { frame.write(op.d, &[mask; 32], mask) });
            b.emit(Op { d, ..Op::new(action) });
            return Ok(());
        }
        "ldmatrix" | "stmatrix" | "movmatrix" | "mma" => return matrices(b, r),
        _ => {}
    }
    if !r.has("sync") {
        return b.unknown(format!("{} without .sync is not in sm_70 and later", r.base()));
    }
    match r.base() {
        "shfl" => shuffle(b, r),
        "vote" => vote(b, r),
        "match" => matching(b, r),
        "redux" => reduce(b, r),
        "elect" => {
            r.done_with(b, 2)?;
            let (d, e) = pair(b, r.operand(b, 0)?)?;
            let c = b.source(r.operand(b, 1)?, Type::B32)?;
            b.emit(Op { d, e, c, ..Op::new(Action::Together(exchange::elect)) }).e_written = true;
            Ok(())
        }
        _ => r.refuse(b),
    }
}

/// `d|p` or `d`.
fn pair<'a>(b: &mut Builder<'a, '_>, operand: &Operand<'a>) -> Decoded<(u32, u32)> {
    match operand {
        Operand::Pair(d, p) => Ok((b.destination(d, Type::B32)?, b.predicate_destination(p)?)),
        operand => Ok((b.destination(operand, Type::B32)?, NONE)),
    }
}

fn shuffle<'a>(b: &mut Builder<'a, '_>, mut r: Reader<'a, '_>) -> Decoded {
    let Some(x) = r.one_of(&[("idx", 0), ("up", 1), ("down", 2), ("bfly", 3)]) else { return r.refuse(b) };
    r.only_type(b)?;
    r.done_with(b, 5)?;
    let t = Type::B32;
    let (d, e) = pair(b, r.operand(b, 0)?)?;
    let a = b.source(r.operand(b, 1)?, t)?;
    let second = b.source(r.operand(b, 2)?, t)?;
    let list = b.source(r.operand(b, 3)?, t)?;
    let c = b.source(r.operand(b, 4)?, t)?;
    let draft = b.emit(Op { d, e, a, b: second, c, list, x, ..Op::new(Action::Together(exchange::shuffle)) });
    (draft.e_written, draft.carries) = (true, Carries::Across);
    Ok(())
}

fn vote<'a>(b: &mut Builder<'a, '_>, mut r: Reader<'a, '_>) -> Decoded {
    let Some(x) = r.one_of(&[("all", 0), ("any", 1), ("uni", 2), ("ballot", 3)]) else { return r.refuse(b) };
    let t = r.only_type(b)?;
    r.done_with(b, 3)?;
    let to = r.operand(b, 0)?;
    let d = if x == 3 { b.destination(to, t)? } else { b.predicate_destination(to)? };
    let a = b.predicate_source(r.operand(b, 1)?)?;
    let c = b.source(r.operand(b, 2)?, Type::B32)?;
    b.emit(Op { d, a, c, x, ..Op::new(Action::Together(exchange::vote)) });
    Ok(())
}

fn matching<'a>(b: &mut Builder<'a, '_>, mut r: Reader<'a, '_>) -> Decoded {
    let Some(x) = r.one_of(&[("any", 0), ("all", 1)]) else { return r.refuse(b) };
    let t = r.only_type(b)?;
    r.done_with(b, 3)?;
    let (d, e) = pair(b, r.operand(b, 0)?)?;
    let a = b.source(r.operand(b, 1)?, t)?;
    let c = b.source(r.operand(b, 2)?, Type::B32)?;
    let y = t.is_wide().into();
    b.emit(Op { d, e, a, c, x, y, ..Op::new(Action::Together(exchange::matching)) }).e_written = true;
    Ok(())
}

fn reduce<'a>(b: &mut Builder<'a, '_>, mut r: Reader<'a, '_>) -> Decoded {
    let kind = r.one_of(&[("add", 0), ("min", 1), ("max", 2), ("and", 5), ("or", 6), ("xor", 7)]);
    let t = r.only_type(b)?;
    let x = match (kind, t) {
        (Some(kind @ (1 | 2)), Type::S32) => kind + 2,
        (Some(kind @ (0..=2)), Type::U32 | Type::S32) => kind,
        (Some(kind @ 5..), Type::B32) => kind,
        _ => return r.refuse(b),
    };
    r.done_with(b, 3)?;
    let d = b.destination(r.operand(b, 0)?, t)?;
    let a = b.source(r.operand(b, 1)?, t)?;
    let c = b.source(r.operand(b, 2)?, t)?;
    b.emit(Op { d, a, c, x, ..Op::new(Action::Together(exchange::reduce)) });
    Ok(())
}

fn matrices<'a>(b: &mut Builder<'a, '_>, mut r: Reader<'a, '_>) -> Decoded {
    if !(r.has("sync") && r.has("aligned")) {
        return r.refuse(b);
    }
    match r.base() {
        "movmatrix" => {
            if !(r.has("m8n8") && r.has("trans")) {
                return r.refuse(b);
            }
            r.only_type(b)?;
            let op = super::simple(b, &r, Action::Together(matrix::turn), Type::B32, &[Type::B32])?;
            b.emit(op);
            Ok(())
        }
        "mma" => multiply(b, r),
        _ => rows(b, r),
    }
}

/// `ldmatrix`, `stmatrix`
fn rows<'a>(b: &mut Builder<'a, '_>, mut r: Reader<'a, '_>) -> Decoded {
    let load = r.base() == "ldmatrix";
    let count = r.one_of(&[("x1", 1u8), ("x2", 2), ("x4", 4)]);
    let transposed = r.has("trans");
    let space = r.one_of(&[("shared", OpSpace::Shared), ("shared::cta", OpSpace::Shared)]).unwrap_or(OpSpace::Generic);
    let (Some(count), true) = (count, r.has("m8n8")) else { return r.refuse(b) };
    if r.types() != [Type::B16] || (!load && b.sm < 90) {
        return r.refuse(b);
    }
    r.done_with(b, 2)?;
    let (registers, place) = if load { (0, 1) } else { (1, 0) };
    let at = address(b, r.operand(b, place)?)?;
    let parts: Vec<&Operand<'a>> = match r.operand(b, registers)? {
        Operand::Vector(parts) => parts.iter().collect(),
        one => vec![one],
    };
    if parts.len() != usize::from(count) {
        return b.error(format!("{} registers for {count} matrices", parts.len()));
    }
    let mut codes = Vec::new();
    for part in parts {
        codes.push(if load { b.destination(part, Type::B32)? } else { b.source(part, Type::B32)? });
    }
    let y = modifiers(b, space, &at, count, Order::Weak) | u64::from(transposed) << 63;
    let action = Action::Together(if load { matrix::load } else { matrix::store });
    let written = if load { codes.len() } else { 0 };
    b.emit(Op { a: at.base, x: at.offset as u64, y, ..Op::new(action) }).list = Some((codes, written));
    Ok(())
}

fn multiply<'a>(b: &mut Builder<'a, '_>, mut r: Reader<'a, '_>) -> Decoded {
    if r.base() != "mma" || r.has("sp") || r.has("sp::ordered_metadata") {
        return r.refuse(b);
    }
    let double = r.has("m8n8k4");
    let k =
        r.one_of(&[("m16n8k4", 4), ("m16n8k8", 8), ("m16n8k16", 16), ("m16n8k32", 32), ("m16n8k64", 64)]).unwrap_or(0);
    if !(r.has("row") && r.has("col")) {
        return r.refuse(b);
    }
    let saturate = r.has("satfinite");
    let mut names: Vec<&str> = Vec::new();
    while let Some(part) = r.peek() {
        r.has(part);
        names.push(part);
    }
    r.done_with(b, 4)?;
    if r.instruction.opcode.contains(&"b1") {
        return r.refuse(b);
    }
    let [d, left, right, c] = names[..] else { return b.error("four types must be given") };
    if double {
        if names != ["f64"; 4] {
            return r.refuse(b);
        }
        return listed(b, &r, [2, 1, 1, 2], Type::F64, Action::Together(matrix::multiply_f64), 0);
    }
    let accumulator = |name| match name {
        "f16" => Some(Accumulator::F16),
        "f32" => Some(Accumulator::F32),
        "s32" => Some(Accumulator::S32),
        _ => None,
    };
    let element = |name| match name {
        "f16" => Some(Element::F16),
        "bf16" => Some(Element::Bf16),
        "tf32" => Some(Element::Tf32),
        "e4m3" => Some(Element::E4m3),
        "e5m2" => Some(Element::E5m2),
        "s8" => Some(Element::S8),
        "u8" => Some(Element::U8),
        "s4" => Some(Element::S4),
        "u4" => Some(Element::U4),
        _ => None,
    };
    let (Some(d), Some(c), Some(left), Some(right)) = (accumulator(d), accumulator(c), element(left), element(right))
    else {
        return r.refuse(b);
    };
    let legal = match left {
        Element::F16 => matches!(k, 8 | 16) && right == left && d != Accumulator::S32 && c == d,
        Element::Bf16 => matches!(k, 8 | 16) && right == left && d == Accumulator::F32 && c == d,
        Element::Tf32 => matches!(k, 4 | 8) && right == left && d == Accumulator::F32 && c == d,
        Element::E4m3 | Element::E5m2 => {
            matches!(k, 16 | 32)
                && matches!(right, Element::E4m3 | Element::E5m2)
                && d == c
                && d != Accumulator::S32
                && b.sm >= 89
        }
        Element::S8 | Element::U8 => {
            matches!(k, 16 | 32) && matches!(right, Element::S8 | Element::U8) && (d, c) == (Accumulator::S32, d)
        }
        Element::S4 | Element::U4 => {
            matches!(k, 32 | 64) && matches!(right, Element::S4 | Element::U4) && (d, c) == (Accumulator::S32, d)
        }
    };
    if !legal {
        return r.refuse(b);
    }
    let shape = Mma { a: left, b: right, k, c, d, saturate };
    b.shapes.push(shape);
    let x = b.shapes.len() as u64 - 1;
    let counts = [d.registers(), shape.a_registers(), shape.b_registers(), c.registers()];
    listed(b, &r, counts, Type::B32, Action::Together(matrix::multiply), x)
}

/// D, A, B and C, each a vector of registers.
pub fn listed<'a>(
    b: &mut Builder<'a, '_>,
    r: &Reader<'a, '_>,
    counts: [usize; 4],
    t: Type,
    action: Action,
    x: u64,
) -> Decoded {
    let mut codes = Vec::new();
    for (i, count) in counts.iter().enumerate() {
        let parts: Vec<&Operand<'a>> = match r.operand(b, i)? {
            Operand::Vector(parts) => parts.iter().collect(),
            one => vec![one],
        };
        if parts.len() != *count {
            return b.error(format!("operand {} has {} registers, not {count}", i + 1, parts.len()));
        }
        for part in parts {
            codes.push(if i == 0 { b.destination(part, t)? } else { b.source(part, t)? });
        }
    }
    b.emit(Op { x, ..Op::new(action) }).list = Some((codes, counts[0]));
    Ok(())
}
