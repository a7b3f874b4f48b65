//! `mbarrier`, and the arrival that follows copies.

use super::memory::{address, modifiers};
use super::{Reader, simple};
use crate::decode::builder::{Builder, Decoded};
use crate::decode::op::{Action, NONE, Op};
use crate::decode::types::Type;
use crate::machine::bulk;
use crate::machine::core::OpSpace;
use crate::machine::lanes::unary;
use crate::machine::mbarrier;
use crate::machine::mbarrier_state::{How, What, pending_count};
use crate::machine::modifiers::Order;
use crate::ptx::Operand;

/// A block without a cluster is a cluster of its own, so `.shared::cluster` is its own shared memory.
const SPACES: [(&str, OpSpace); 3] =
    [("shared", OpSpace::Shared), ("shared::cta", OpSpace::Shared), ("shared::cluster", OpSpace::Shared)];

pub fn decode<'a>(b: &mut Builder<'a, '_>, mut r: Reader<'a, '_>) -> Decoded {
    if r.has("pending_count") {
        r.only_type(b)?;
        let op = simple(b, &r, unary(|_, token: u64| pending_count(token)), Type::B32, &[Type::B64])?;
        b.emit(op);
        return Ok(());
    }
    // `arrive.expect_tx` is one thing of its own.
    let expects = r.has("expect_tx");
    let what = r.one_of(&[
        ("complete_tx", What::Complete),
        ("init", What::Init),
        ("inval", What::Invalidate),
        ("arrive", What::Arrive),
        ("arrive_drop", What::ArriveDrop),
        ("test_wait", What::Wait),
        ("try_wait", What::Wait),
    ]);
    let what = match what {
        None if expects => Some(What::Expect),
        Some(What::Arrive) if expects => Some(What::ExpectArrive),
        what if !expects => what,
        _ => None,
    };
    let Some(mut what) = what else { return r.refuse(b) };
    let bytes = matches!(what, What::Expect | What::ExpectArrive | What::Complete);
    let newer = bytes || r.instruction.opcode.contains(&"try_wait");
    if what == What::Wait && r.has("parity") {
        what = What::WaitParity;
    }
    let no_complete = r.has("noComplete");
    let relaxed = r.one_of(&[("relaxed", true), ("acquire", false), ("release", false)]).unwrap_or(false);
    r.one_of(&[("cta", ()), ("cluster", ())]);
    let space = r.one_of(&SPACES).unwrap_or(OpSpace::Generic);
    if r.types() != [Type::B64] || newer && b.sm < 90 {
        return r.refuse(b);
    }
    r.done(b)?;
    let (result, extra) = match what {
        What::Init | What::Expect | What::Complete => (false, 1..=1),
        What::ExpectArrive => (true, 1..=1),
        What::Invalidate => (false, 0..=0),
        What::Wait | What::WaitParity => (true, 1..=if newer { 2 } else { 1 }),
        _ => (true, usize::from(no_complete)..=1),
    };
    let first = usize::from(result);
    if r.operands() < first || !extra.contains(&(r.operands() - first).saturating_sub(1)) {
        return b.error(format!("{} does not take {} operands", r.instruction.opcode.join("."), r.operands()));
    }
    let at = address(b, r.operand(b, first)?)?;
    let d = match what {
        What::Wait | What::WaitParity => b.predicate_destination(r.operand(b, 0)?)?,
        _ if result => b.destination(r.operand(b, 0)?, Type::B64)?,
        _ => NONE,
    };
    let second = match r.operand(b, first + 1) {
        Ok(operand) if what == What::Wait => b.source(operand, Type::B64)?,
        Ok(operand) => b.source(operand, Type::B32)?,
        Err(_) => NONE,
    };
    let y = modifiers(b, space, &at, 1, Order::Weak);
    let list = Builder::number(How { what, no_complete, no_increment: false, relaxed }.pack());
    let action = Action::Warp(mbarrier::run);
    b.emit(Op { d, a: at.base, b: second, x: at.offset as u64, y, list, ..Op::new(action) });
    Ok(())
}

/// `cp.async.mbarrier.arrive`
pub fn copy_arrive<'a>(b: &mut Builder<'a, '_>, mut r: Reader<'a, '_>) -> Decoded {
    let no_increment = r.has("noinc");
    let space = r.one_of(&SPACES[..2]).unwrap_or(OpSpace::Generic);
    if !r.has("arrive") || r.types() != [Type::B64] {
        return r.refuse(b);
    }
    r.done_with(b, 1)?;
    let operand: &Operand<'a> = r.operand(b, 0)?;
    let at = address(b, operand)?;
    let y = modifiers(b, space, &at, 1, Order::Weak);
    let how = How { what: What::CopyArrive, no_complete: false, no_increment, relaxed: false };
    let list = Builder::number(how.pack());
    b.emit(Op { a: at.base, x: at.offset as u64, y, list, ..Op::new(Action::Warp(mbarrier::run)) });
    Ok(())
}

/// `cp.async.bulk` from global to shared memory: `[to], [from], bytes, [mbarrier]`.
pub fn bulk_copy<'a>(b: &mut Builder<'a, '_>, mut r: Reader<'a, '_>) -> Decoded {
    let to_space = r.one_of(&SPACES[1..]);
    let whole = to_space.is_some() && r.has("global") && r.has("mbarrier::complete_tx::bytes");
    let cached = r.has("L2::cache_hint");
    if !whole || b.sm < 90 {
        return r.refuse(b);
    }
    r.done_with(b, 4 + usize::from(cached))?;
    let to = address(b, r.operand(b, 0)?)?;
    let from = address(b, r.operand(b, 1)?)?;
    let c = b.source(r.operand(b, 2)?, Type::B32)?;
    let barrier = address(b, r.operand(b, 3)?)?;
    if barrier.base == NONE || barrier.offset != 0 {
        return b.unknown("the mbarrier must be given by a register without an offset");
    }
    let x = u64::from(to.offset as i32 as u32) | (from.offset as u64) << 32;
    let y = modifiers(b, OpSpace::Generic, &from, 1, Order::Weak);
    let list = Builder::number(u32::from(to.wide) | u32::from(barrier.wide) << 1);
    b.emit(Op { a: to.base, b: from.base, c, e: barrier.base, x, y, list, ..Op::new(Action::Warp(bulk::begin)) });
    Ok(())
}
