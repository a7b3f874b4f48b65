//! Jumps, calls, barriers, fences.

use super::Reader;
use crate::decode::builder::{Builder, Carries, Decoded, Jump, Symbol};
use crate::decode::op::{Action, Barrier, BuiltIn, Call, NONE, Op};
use crate::decode::types::Type;
use crate::machine::atomics;
use crate::ptx::Operand;

pub fn decode<'a>(b: &mut Builder<'a, '_>, mut r: Reader<'a, '_>) -> Decoded {
    match r.base() {
        "bra" => branch(b, r),
        "brx" => table(b, r),
        "call" => call(b, r),
        "bar" | "barrier" => barrier(b, r),
        "ret" => {
            r.has("uni");
            r.done_with(b, 0)?;
            b.emit(Op::new(Action::Return));
            Ok(())
        }
        "exit" => {
            r.done_with(b, 0)?;
            b.emit(Op::new(Action::Exit));
            Ok(())
        }
        "trap" | "brkpt" => {
            r.done_with(b, 0)?;
            b.emit(Op::new(Action::Trap));
            Ok(())
        }
        "membar" | "fence" => fence(b, r),
        "nanosleep" => {
            r.only_type(b)?;
            r.done_with(b, 1)?;
            b.emit(Op::new(Action::Yield));
            Ok(())
        }
        "griddepcontrol" if b.sm >= 90 => {
            r.one_of(&[("launch_dependents", ()), ("wait", ())]);
            r.done_with(b, 0)?;
            b.emit(Op::new(Action::Nothing));
            Ok(())
        }
        "pmevent" => {
            b.emit(Op::new(Action::Nothing));
            Ok(())
        }
        _ => r.refuse(b),
    }
}

fn branch<'a>(b: &mut Builder<'a, '_>, mut r: Reader<'a, '_>) -> Decoded {
    r.has("uni");
    r.done_with(b, 1)?;
    let Operand::Name(label) = r.operand(b, 0)? else { return b.error("a label must be given") };
    b.jumps.push(Jump { draft: b.drafts.len(), position: None, braces: b.braces.clone(), label, line: b.line });
    b.emit(Op::new(Action::Branch));
    Ok(())
}

fn table<'a>(b: &mut Builder<'a, '_>, mut r: Reader<'a, '_>) -> Decoded {
    r.has("uni");
    if !r.has("idx") {
        return r.refuse(b);
    }
    r.done_with(b, 2)?;
    let a = b.source(r.operand(b, 0)?, Type::U32)?;
    let Operand::Name(name) = r.operand(b, 1)? else { return b.error("a list of labels must be given") };
    let Some(targets) = b.targets.get(name).cloned() else { return b.error(format!("{name} is not a list of labels")) };
    for (i, label) in targets.iter().enumerate() {
        b.jumps.push(Jump { draft: b.drafts.len(), position: Some(i), braces: b.braces.clone(), label, line: b.line });
    }
    let list = vec![Builder::number(0); targets.len()];
    b.emit(Op { a, y: targets.len() as u64, ..Op::new(Action::BranchTable) }).list = Some((list, 0));
    Ok(())
}

/// `call (returned), function, (arguments), prototype;` with any of the lists left out.
fn call<'a>(b: &mut Builder<'a, '_>, mut r: Reader<'a, '_>) -> Decoded {
    r.has("uni");
    r.done(b)?;
    let mut operands = r.instruction.operands.iter().peekable();
    let mut call = Call::default();
    let mut returned = Vec::new();
    if let Some(Operand::List(list)) = operands.next_if(|operand| matches!(operand, Operand::List(_))) {
        returned.extend(list);
    }
    let Some(callee @ Operand::Name(name)) = operands.next() else { return b.error("a function must be given") };
    let mut arguments = Vec::new();
    if let Some(Operand::List(list)) = operands.next_if(|operand| matches!(operand, Operand::List(_))) {
        arguments.extend(list);
    }
    let mut a = NONE;
    let built_in = match *name {
        "vprintf" => Some(BuiltIn::Print),
        "__assertfail" => Some(BuiltIn::AssertFail),
        "malloc" => Some(BuiltIn::Allocate),
        "free" => Some(BuiltIn::Free),
        _ => None,
    };
    match b.find(name) {
        _ if built_in.is_some() => call.built_in = built_in,
        Some(Symbol::Function(index)) => call.function = Some(index),
        Some(Symbol::Register(_, t)) if t.is_wide() => a = b.source(callee, Type::U64)?,
        _ => return b.unknown(format!("{name} is not a function that is known")),
    }
    if matches!(built_in, Some(BuiltIn::Allocate | BuiltIn::Free)) {
        b.communicates = true;
    }
    let mut finish = Vec::new();
    for operand in arguments {
        call.arguments.push(argument(b, operand)?);
    }
    for operand in returned {
        call.returns = Some(match place(b, operand) {
            Some(place) => place,
            None => {
                let (place, load) = returned_register(b, operand)?;
                finish.push(load);
                place
            }
        });
    }
    b.calls.push(call);
    let x = b.calls.len() as u64 - 1;
    b.emit(Op { a, x, ..Op::new(Action::Call) });
    finish.into_iter().for_each(|op| {
        b.emit(op);
    });
    Ok(())
}

/// A `.param` variable of the frame: where it is, and its bytes.
fn place<'a>(b: &Builder<'a, '_>, operand: &Operand<'a>) -> Option<(u32, u32)> {
    let Operand::Name(name) = operand else { return None };
    match b.find(name) {
        Some(Symbol::Local(at)) => Some((at, *b.sizes.get(&at)?)),
        _ => None,
    }
}

/// An argument: a variable of the frame, or a value that is stored in one first.
fn argument<'a>(b: &mut Builder<'a, '_>, operand: &Operand<'a>) -> Decoded<(u32, u32)> {
    if let Some(place) = place(b, operand) {
        return Ok(place);
    }
    let t = match (b.any_register(operand), operand) {
        (Some((_, t)), _) => t,
        (None, Operand::Bits64(_)) => Type::B64,
        (None, _) => Type::B32,
    };
    let at = b.local_space(t.bytes(), t.bytes());
    let code = b.source(operand, t)?;
    let Some(op) = super::memory::local_store(at, t, code) else { return b.error("no such argument") };
    b.emit(op).carries = Carries::Store;
    Ok((at, t.bytes()))
}

fn returned_register<'a>(b: &mut Builder<'a, '_>, operand: &Operand<'a>) -> Decoded<((u32, u32), Op)> {
    let Some((code, t)) = b.any_register(operand) else {
        return b.error("a variable or register must take the result");
    };
    let at = b.local_space(t.bytes(), t.bytes());
    match super::memory::local_load(at, t, code) {
        Some(op) => Ok(((at, t.bytes()), op)),
        None => b.error("no such result"),
    }
}

fn barrier<'a>(b: &mut Builder<'a, '_>, mut r: Reader<'a, '_>) -> Decoded {
    if r.has("warp") {
        if !r.has("sync") {
            return r.refuse(b);
        }
        r.done_with(b, 1)?;
        let c = b.source(r.operand(b, 0)?, Type::B32)?;
        b.emit(Op { c, ..Op::new(Action::Meet) });
        return Ok(());
    }
    if r.has("cluster") {
        return r.refuse(b);
    }
    r.has("cta");
    let aligned = r.has("aligned") || r.base() == "bar";
    let kind = r.one_of(&[("sync", 's'), ("arrive", 'a'), ("red", 'r')]);
    let reduce = r.one_of(&[("popc", 1u8), ("and", 2), ("or", 3)]).unwrap_or(0);
    if r.types().iter().any(|t| !matches!((reduce, t), (1, Type::U32) | (2 | 3, Type::Pred))) {
        return r.refuse(b);
    }
    r.done(b)?;
    let barrier = Barrier { aligned, arrive: kind == Some('a'), reduce };
    if kind.is_none() || (kind == Some('r')) != (reduce != 0) {
        return r.refuse(b);
    }
    let mut op = Op { y: barrier.pack(), ..Op::new(Action::Barrier) };
    let mut at = 0;
    if reduce != 0 {
        op.d = if reduce == 1 {
            b.destination(r.operand(b, 0)?, Type::B32)?
        } else {
            b.predicate_destination(r.operand(b, 0)?)?
        };
        at = 1;
        op.c = b.predicate_source(r.operand(b, r.operands() - 1)?)?;
    }
    op.a = b.source(r.operand(b, at)?, Type::B32)?;
    let last = r.operands() - usize::from(reduce != 0);
    if last > at + 1 {
        op.b = b.source(r.operand(b, at + 1)?, Type::B32)?;
    } else if barrier.arrive {
        return b.error("bar.arrive needs the number of threads");
    }
    b.emit(op);
    Ok(())
}

fn fence<'a>(b: &mut Builder<'a, '_>, mut r: Reader<'a, '_>) -> Decoded {
    r.one_of(&[("sc", ()), ("acq_rel", ()), ("acquire", ()), ("release", ())]);
    if r.has("proxy") {
        // Proxies other than the generic one (`cp.async.bulk`, tensor maps, textures) are not used by what runs here.
        r.one_of(&[("async", ()), ("alias", ()), ("async.global", ()), ("async.shared::cta", ())]);
        r.one_of(&[("global", ()), ("shared::cta", ())]);
    }
    // This one tells the other blocks of a cluster that an mbarrier is ready.
    if b.sm < 90 && r.has("mbarrier_init") {
        return r.refuse(b);
    }
    r.has("mbarrier_init");
    // A block is a cluster of its own: what is for the cluster is for the block.
    let scope = r.one_of(&[("cta", 0u64), ("cluster", 0), ("gpu", 2), ("gl", 2), ("sys", 3)]).unwrap_or(3);
    r.done_with(b, 0)?;
    // Who fences for others than its block talks to them, in whatever way.
    b.communicates |= scope >= 2;
    b.emit(Op { x: scope, ..Op::new(Action::Warp(atomics::fence)) });
    Ok(())
}
