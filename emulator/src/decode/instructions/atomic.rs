//! `atom`, `red`.

use super::Reader;
use super::memory::{address, modifiers, space_and_order};
use crate::decode::builder::{Builder, Decoded};
use crate::decode::op::{Action, NONE, Op};
use crate::decode::types::Type;
use crate::machine::atomics::{self, Atomic, What};
use crate::machine::core::OpSpace;
use crate::ptx::Operand;

pub fn decode<'a>(b: &mut Builder<'a, '_>, mut r: Reader<'a, '_>) -> Decoded {
    if r.has("async") {
        return r.refuse(b);
    }
    let what = r.one_of(&[
        ("add", What::Add),
        ("exch", What::Exchange),
        ("min", What::Min),
        ("max", What::Max),
        ("inc", What::Increment),
        ("dec", What::Decrement),
        ("and", What::And),
        ("or", What::Or),
        ("xor", What::Xor),
        ("cas", What::Compare),
    ]);
    let Some(what) = what else { return r.refuse(b) };
    let (space, order) = space_and_order(b, &mut r)?;
    let cached = r.has("L2::cache_hint");
    let t = r.types();
    let count = r.one_of(&[("v2", 2u8), ("v4", 4), ("v8", 8)]).unwrap_or(1);
    r.has("noftz");
    r.done(b)?;
    let [t] = t[..] else { return b.error("one type must be given") };
    let red = r.base() == "red";
    let first = usize::from(!red);
    let sources = if what == What::Compare { 2 } else { 1 };
    let wanted = first + 1 + sources;
    // The policy that tells the cache what to keep comes last.
    if r.operands() != wanted + usize::from(cached) {
        return b.error(format!("{} takes {wanted} operands, not {}", r.base(), r.operands()));
    }
    if space != OpSpace::Shared {
        b.communicates = true;
    }
    let Some(packed) = (Atomic { what, t }).pack() else { return r.refuse(b) };
    let at = address(b, r.operand(b, first)?)?;
    let y = modifiers(b, space, &at, count, order) | u64::from(packed) << 32;
    let op = Op { a: at.base, x: at.offset as u64, y, ..Op::new(Action::Warp(atomics::run)) };
    if count > 1 {
        return vector(b, &r, op, t, count.into());
    }
    let d = if red { NONE } else { b.destination(r.operand(b, 0)?, t)? };
    let second = b.source(r.operand(b, first + 1)?, t)?;
    let c = if sources == 2 { b.source(r.operand(b, first + 2)?, t)? } else { NONE };
    b.emit(Op { d, b: second, c, ..op });
    Ok(())
}

/// Several elements at once: of f32, or of halves, up to 16 bytes in all.
fn vector<'a>(b: &mut Builder<'a, '_>, r: &Reader<'a, '_>, op: Op, t: Type, count: usize) -> Decoded {
    let add = r.instruction.opcode.contains(&"add");
    let fits = match t {
        Type::F32 => add && count <= 4,
        Type::F16x2 | Type::Bf16x2 => count <= 4,
        Type::F16 | Type::Bf16 => true,
        _ => false,
    };
    if !fits || b.sm < 90 {
        return r.refuse(b);
    }
    let red = r.base() == "red";
    let mut codes = Vec::new();
    let mut list = |b: &mut Builder<'a, '_>, index: usize, write: bool| -> Decoded {
        let Operand::Vector(parts) = r.operand(b, index)? else { return b.error("a vector must stand here") };
        if parts.len() != count {
            return b.error(format!("{} registers for {count} elements", parts.len()));
        }
        for part in parts {
            codes.push(if write { b.destination(part, t)? } else { b.source(part, t)? });
        }
        Ok(())
    };
    if !red {
        list(b, 0, true)?;
    }
    list(b, if red { 1 } else { 2 }, false)?;
    if red {
        codes.splice(0..0, std::iter::repeat_n(NONE, count));
    }
    b.emit(op).list = Some((codes, count));
    Ok(())
}
