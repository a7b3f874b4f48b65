//! `ld`, `st`, `cp.async`, and hints to caches.

use super::Reader;
use crate::decode::builder::{Builder, Carries, Decoded, Symbol};
use crate::decode::op::{Action, CONSTANT, NONE, Op};
use crate::decode::types::Type;
use crate::machine::access::{load_handler, store_handler};
use crate::machine::core::OpSpace;
use crate::machine::modifiers::{Modifiers, Order};
use crate::machine::{copy, discard};
use crate::ptx::Operand;

pub fn decode<'a>(b: &mut Builder<'a, '_>, mut r: Reader<'a, '_>) -> Decoded {
    match r.base() {
        "ld" | "ldu" => load(b, r),
        "st" => store(b, r),
        "cp" => {
            if !r.has("async") {
                return r.refuse(b);
            }
            copies(b, r)
        }
        "createpolicy" => policy(b, r),
        _ => hint(b, r),
    }
}

/// `prefetch`, `prefetchu`, `applypriority`: advice to caches, which do not exist here; so nothing happens. They may name
/// any address, so that is not judged. `discard` is more than advice: what it names must not be read any more.
fn hint<'a>(b: &mut Builder<'a, '_>, mut r: Reader<'a, '_>) -> Decoded {
    let space = r.one_of(&[("global", OpSpace::Global), ("local", OpSpace::Local)]).unwrap_or(OpSpace::Generic);
    r.skip_hints();
    r.one_of(&[("L1", ()), ("L2", ())]);
    let bytes = matches!(r.base(), "applypriority" | "discard");
    r.done_with(b, if bytes { 2 } else { 1 })?;
    let at = address(b, r.operand(b, 0)?)?;
    if bytes && *r.operand(b, 1)? != Operand::Integer(128) {
        return b.error("128 bytes must be given");
    }
    if r.base() != "discard" {
        b.emit(Op::new(Action::Nothing));
        return Ok(());
    }
    let y = modifiers(b, space, &at, 1, Order::Weak);
    b.emit(Op { a: at.base, x: at.offset as u64, y, ..Op::new(Action::Warp(discard::run)) });
    Ok(())
}

/// `createpolicy`: some value, for nobody looks at it.
fn policy<'a>(b: &mut Builder<'a, '_>, r: Reader<'a, '_>) -> Decoded {
    let d = b.destination(r.operand(b, 0)?, Type::B64)?;
    let a = b.constant(0, true);
    b.emit(Op { d, a, ..Op::new(crate::machine::lanes::unary(|_, x: u64| x)) });
    Ok(())
}

/// An address operand.
#[derive(Clone, Copy, Debug)]
pub struct Address {
    /// The register or constant that it begins with, if any.
    pub base: u32,
    /// Whether that has 64 bits.
    pub wide: bool,
    /// Bytes added.
    pub offset: i64,
    /// The space that its symbol lies in, if it has one.
    pub symbol: Option<OpSpace>,
    /// Whether it counts from the frame's local memory.
    pub framed: bool,
}

/// Reads `[base+offset]`.
pub fn address<'a>(b: &mut Builder<'a, '_>, operand: &Operand<'a>) -> Decoded<Address> {
    let Operand::Memory(parts) = operand else { return b.error("an address in brackets must stand here") };
    let (name, offset) = match parts[..] {
        [Operand::Name(name)] => (name, 0),
        [Operand::Offset(name, offset)] => (name, offset),
        [Operand::Integer(value)] => {
            return Ok(Address { base: NONE, wide: true, offset: value as i64, symbol: None, framed: false });
        }
        _ => return b.error("an address is a register or symbol and an offset"),
    };
    let plain = Address { base: NONE, wide: true, offset, symbol: None, framed: false };
    let at = |at: u32| offset + i64::from(at);
    match b.find(name) {
        Some(Symbol::Register(id, t)) => Ok(Address { base: id, wide: t.is_wide(), ..plain }),
        Some(symbol @ Symbol::Variable(_)) => {
            let base = b.address_of(symbol, 0, true)?;
            debug_assert_eq!(base & CONSTANT, CONSTANT);
            Ok(Address { base, symbol: Some(OpSpace::Global), ..plain })
        }
        Some(Symbol::Constant(offset)) => Ok(Address { offset: at(offset), symbol: Some(OpSpace::Constant), ..plain }),
        Some(Symbol::Shared(offset)) => Ok(Address { offset: at(offset), symbol: Some(OpSpace::Shared), ..plain }),
        Some(Symbol::Parameter(offset)) => {
            Ok(Address { offset: at(offset), symbol: Some(OpSpace::Parameter), ..plain })
        }
        Some(Symbol::Local(offset)) => {
            Ok(Address { offset: at(offset), symbol: Some(OpSpace::Local), framed: true, ..plain })
        }
        _ => b.error(format!("{name} is not declared, or has no address")),
    }
}

/// The state space of an instruction, and how strong it is.
pub fn space_and_order<'a>(b: &mut Builder<'a, '_>, r: &mut Reader<'a, '_>) -> Decoded<(OpSpace, Order)> {
    let order = r
        .one_of(&[
            ("volatile", Order::Volatile),
            ("relaxed", Order::Relaxed),
            ("acquire", Order::Acquire),
            ("release", Order::Release),
            ("acq_rel", Order::AcquireRelease),
            ("weak", Order::Weak),
        ])
        .unwrap_or(Order::Weak);
    r.has("mmio");
    let scope = r.one_of(&[("cta", true), ("cluster", true), ("gpu", false), ("sys", false)]);
    let order = match (order, scope) {
        (Order::Weak | Order::Relaxed, Some(true)) => Order::RelaxedBlock,
        (Order::Weak, Some(false)) => Order::Relaxed,
        (Order::Acquire, Some(true)) => Order::AcquireBlock,
        (Order::Release, Some(true)) => Order::ReleaseBlock,
        (Order::AcquireRelease, Some(true)) => Order::AcquireReleaseBlock,
        (order, _) => order,
    };
    let space = r
        .one_of(&[
            ("global", OpSpace::Global),
            ("const", OpSpace::Constant),
            ("shared", OpSpace::Shared),
            ("shared::cta", OpSpace::Shared),
            ("local", OpSpace::Local),
            ("param", OpSpace::Parameter),
            ("param::entry", OpSpace::Parameter),
            ("param::func", OpSpace::Parameter),
        ])
        .unwrap_or(OpSpace::Generic);
    if order != Order::Weak && matches!(space, OpSpace::Generic | OpSpace::Global) {
        b.communicates = true;
    }
    Ok((space, order))
}

/// Space, address and element count, as an operation keeps them.
pub fn modifiers(b: &Builder<'_, '_>, space: OpSpace, address: &Address, count: u8, order: Order) -> u64 {
    let space = match (space, address.symbol) {
        // Parameters of functions, and those of calls, are in the frame's local memory.
        (OpSpace::Parameter, Some(OpSpace::Local)) => OpSpace::Local,
        (OpSpace::Parameter, None) if !b.entry => OpSpace::Local,
        (OpSpace::Generic, Some(symbol)) => symbol,
        (space, _) => space,
    };
    Modifiers { space, count, wide: address.wide, framed: address.framed, order }.pack()
}

fn vector_length(r: &mut Reader<'_, '_>) -> u8 {
    r.one_of(&[("v2", 2), ("v4", 4), ("v8", 8)]).unwrap_or(1)
}

/// That a vector is one that there is: up to 16 bytes, or 32 in global memory from sm_100 on.
fn check_vector<'a>(b: &Builder<'a, '_>, r: &Reader<'a, '_>, t: Type, count: u8, space: OpSpace) -> Decoded {
    let bytes = t.bytes() * u32::from(count);
    let large = bytes == 32 && t.bytes() >= 4 && space == OpSpace::Global && b.sm >= 100;
    if count > 1 && (bytes > 16 || count > 4) && !large { r.refuse(b) } else { Ok(()) }
}

/// What hints to caches say about an access: `.cv` and `.wt` are meant for what others change, as `volatile` is; with
/// `.cg` blocks can at least wait for each other; `.nc` is for what nobody changes.
fn hinted<'a>(b: &mut Builder<'a, '_>, r: &mut Reader<'a, '_>, space: OpSpace, order: Order) -> Order {
    let hint = r.one_of(&[("cv", 'v'), ("wt", 'v'), ("cg", 'g'), ("nc", 'n')]);
    r.skip_hints();
    b.communicates |= matches!(hint, Some('v' | 'g')) && matches!(space, OpSpace::Generic | OpSpace::Global);
    match (hint, order) {
        (Some('v'), Order::Weak) => Order::Volatile,
        (Some('n'), Order::Weak) => Order::Constant,
        _ => order,
    }
}

fn load<'a>(b: &mut Builder<'a, '_>, mut r: Reader<'a, '_>) -> Decoded {
    let (space, order) = space_and_order(b, &mut r)?;
    let order = hinted(b, &mut r, space, order);
    let count = vector_length(&mut r);
    let t = r.only_type(b)?;
    r.done(b)?;
    if r.operands() < 2 {
        return b.error("ld takes a destination and an address");
    }
    check_vector(b, &r, t, count, space)?;
    let at = address(b, r.operand(b, 1)?)?;
    let y = modifiers(b, space, &at, count, order);
    let to: Vec<&Operand<'a>> = match r.operand(b, 0)? {
        Operand::Vector(parts) => parts.iter().collect(),
        one => vec![one],
    };
    if to.len() != usize::from(count) {
        return b.error(format!("{} destinations for {count} elements", to.len()));
    }
    let mut codes = Vec::new();
    let mut wide = t.is_wide();
    for operand in to {
        match b.any_register(operand) {
            Some((code, have)) => {
                if have.bytes() < t.bytes() {
                    return b.error(format!("the destination is narrower than .{}", t.name()));
                }
                wide = have.is_wide();
                codes.push(code);
            }
            None => codes.push(b.destination(operand, t)?),
        }
    }
    let Some(handler) = load_handler(t.bytes(), t.is_signed(), wide) else { return r.refuse(b) };
    let mut op = Op { a: at.base, x: at.offset as u64, y, ..Op::new(Action::Warp(handler)) };
    if count == 1 {
        op.d = codes[0];
        b.emit(op);
    } else {
        b.emit(op).list = Some((codes, usize::from(count)));
    }
    Ok(())
}

fn store<'a>(b: &mut Builder<'a, '_>, mut r: Reader<'a, '_>) -> Decoded {
    if r.has("async") || r.has("bulk") {
        return r.refuse(b);
    }
    let (space, order) = space_and_order(b, &mut r)?;
    let order = hinted(b, &mut r, space, order);
    let count = vector_length(&mut r);
    let t = r.only_type(b)?;
    r.done(b)?;
    if r.operands() < 2 {
        return b.error("st takes an address and a source");
    }
    check_vector(b, &r, t, count, space)?;
    let at = address(b, r.operand(b, 0)?)?;
    let y = modifiers(b, space, &at, count, order);
    let from: Vec<&Operand<'a>> = match r.operand(b, 1)? {
        Operand::Vector(parts) => parts.iter().collect(),
        one => vec![one],
    };
    if from.len() != usize::from(count) {
        return b.error(format!("{} sources for {count} elements", from.len()));
    }
    let mut codes = Vec::new();
    // Registers may be wider than the type; all must be alike then, which those of a vector are.
    let wide = from.iter().find_map(|operand| b.any_register(operand)).map_or(t.is_wide(), |(_, have)| have.is_wide());
    for operand in from {
        let as_type = match (wide, t.is_wide()) {
            (true, false) => Type::B64,
            _ => t,
        };
        codes.push(b.source(operand, as_type)?);
    }
    let Some(handler) = store_handler(t.bytes(), wide) else { return r.refuse(b) };
    let mut op = Op { a: at.base, x: at.offset as u64, y, ..Op::new(Action::Warp(handler)) };
    if count == 1 {
        op.b = codes[0];
        b.emit(op).carries = Carries::Store;
    } else {
        let draft = b.emit(op);
        (draft.list, draft.carries) = (Some((codes, 0)), Carries::Store);
    }
    Ok(())
}

/// Stores a register in the frame's local memory.
pub fn local_store(at: u32, t: Type, code: u32) -> Option<Op> {
    let y = Modifiers { space: OpSpace::Local, count: 1, wide: true, framed: true, order: Order::Weak }.pack();
    let handler = store_handler(t.bytes(), t.is_wide())?;
    Some(Op { b: code, x: at.into(), y, hidden: true, ..Op::new(Action::Warp(handler)) })
}

/// Loads a register from the frame's local memory.
pub fn local_load(at: u32, t: Type, code: u32) -> Option<Op> {
    let y = Modifiers { space: OpSpace::Local, count: 1, wide: true, framed: true, order: Order::Weak }.pack();
    let handler = load_handler(t.bytes(), t.is_signed(), t.is_wide())?;
    Some(Op { d: code, x: at.into(), y, hidden: true, ..Op::new(Action::Warp(handler)) })
}

/// `cp.async`
fn copies<'a>(b: &mut Builder<'a, '_>, mut r: Reader<'a, '_>) -> Decoded {
    if r.has("bulk") {
        return super::mbarrier::bulk_copy(b, r);
    }
    if r.has("mbarrier") {
        return super::mbarrier::copy_arrive(b, r);
    }
    if r.has("commit_group") {
        r.done_with(b, 0)?;
        b.emit(Op::new(Action::Warp(copy::commit)));
        return Ok(());
    }
    if r.has("wait_all") {
        r.done_with(b, 0)?;
        b.emit(Op { x: u64::MAX, ..Op::new(Action::Warp(copy::wait)) });
        return Ok(());
    }
    if r.has("wait_group") {
        r.done_with(b, 1)?;
        let Operand::Integer(groups) = r.operand(b, 0)? else {
            return b.error("the number of groups must be a constant");
        };
        b.emit(Op { x: *groups as u64, ..Op::new(Action::Warp(copy::wait)) });
        return Ok(());
    }
    if r.one_of(&[("ca", ()), ("cg", ())]).is_none() {
        return r.refuse(b);
    }
    let (to_space, from_space) = (r.one_of(&[("shared", ()), ("shared::cta", ())]), r.has("global"));
    r.skip_hints();
    r.done(b)?;
    if to_space.is_none() || !from_space || r.operands() < 3 {
        return r.refuse(b);
    }
    let to = address(b, r.operand(b, 0)?)?;
    let from = address(b, r.operand(b, 1)?)?;
    let bytes = match r.operand(b, 2)? {
        Operand::Integer(bytes @ (4 | 8 | 16)) => *bytes as u32,
        _ => return b.error("4, 8 or 16 bytes are copied"),
    };
    let (mut c, mut e) = (NONE, NONE);
    if let Ok(operand) = r.operand(b, 3) {
        let is_predicate = matches!(operand, Operand::Not(_))
            || matches!(operand, Operand::Name(name) if matches!(b.find(name), Some(Symbol::Predicate(_))));
        if is_predicate {
            e = b.predicate_source(operand)?;
        } else if b.any_register(operand).is_none_or(|(_, t)| !t.is_wide()) {
            c = b.source(operand, Type::B32)?;
        }
    }
    let x = u64::from(to.offset as i32 as u32) | (from.offset as u64) << 32;
    let y = modifiers(b, OpSpace::Global, &from, 1, Order::Weak);
    let list = Builder::number(bytes | u32::from(to.wide) << 8);
    b.emit(Op { a: to.base, b: from.base, c, e, x, y, list, ..Op::new(Action::Warp(copy::begin)) });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{load_handler, store_handler};

    #[test]
    fn every_width_has_its_handlers() {
        for bytes in [1, 2, 4] {
            for wide in [false, true] {
                assert!(load_handler(bytes, false, wide).is_some() && load_handler(bytes, true, wide).is_some());
                assert!(store_handler(bytes, wide).is_some());
            }
        }
        assert!(load_handler(8, false, true).is_some() && store_handler(8, true).is_some());
        assert!(load_handler(8, false, false).is_none() && load_handler(16, false, true).is_none());
    }
}
