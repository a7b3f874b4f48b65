//! `atom`, `red`.

use super::Reader;
use super::memory::{address, modifiers, space_and_order};
use crate::decode::builder::{Builder, Decoded};
use crate::decode::op::{Action, NONE, Op};
use crate::decode::types::Type;
use crate::machine::atomics::{self, Atomic, What};
use crate::machine::core::OpSpace;

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
    r.skip_hints();
    r.has("noftz");
    let t = r.only_type(b)?;
    r.done(b)?;
    let red = r.base() == "red";
    let first = usize::from(!red);
    let sources = if what == What::Compare { 2 } else { 1 };
    if r.operands() < first + 1 + sources {
        return b.error(format!("{} takes more operands", r.base()));
    }
    if space != OpSpace::Shared {
        b.communicates = true;
    }
    let d = if red { NONE } else { b.destination(r.operand(b, 0)?, t)? };
    let at = address(b, r.operand(b, first)?)?;
    let second = b.source(r.operand(b, first + 1)?, t)?;
    let c = if sources == 2 { b.source(r.operand(b, first + 2)?, t)? } else { NONE };
    let Some(list) = (Atomic { what, t }).pack() else { return r.refuse(b) };
    let y = modifiers(b, space, &at, 1, order);
    let handler = if t == Type::B128 { return r.refuse(b) } else { atomics::run };
    b.emit(Op {
        d,
        a: at.base,
        b: second,
        c,
        x: at.offset as u64,
        y,
        list: Builder::number(list),
        ..Op::new(Action::Warp(handler))
    });
    Ok(())
}
