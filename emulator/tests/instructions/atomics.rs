//! Atomics on global and shared memory.

use crate::case::Kind::{self, *};
use crate::case::{Case, Want};
use crate::exact::{self, Round};
use crate::memory::slot;

/// What an atomic leaves behind.
type Update = Box<dyn Fn(u64, u64) -> u64 + Send + Sync>;

/// Each operation with its type.
fn updates(space: &str) -> Vec<(&'static str, &'static str, Kind, Update)> {
    let mut all: Vec<(&str, &str, Kind, Update)> = Vec::new();
    for (t, kind) in [("u32", U32), ("s32", S32), ("u64", U64)] {
        all.push(("add", t, kind, Box::new(move |a, b| kind.wrap(kind.value(a) + kind.value(b)))));
    }
    for (t, kind) in [("u32", U32), ("s32", S32), ("u64", U64), ("s64", S64)] {
        all.push(("min", t, kind, Box::new(move |a, b| kind.wrap(kind.value(a).min(kind.value(b))))));
        all.push(("max", t, kind, Box::new(move |a, b| kind.wrap(kind.value(a).max(kind.value(b))))));
    }
    for (t, kind) in [("b32", U32), ("b64", U64)] {
        all.push(("and", t, kind, Box::new(|a, b| a & b)));
        all.push(("or", t, kind, Box::new(|a, b| a | b)));
        all.push(("xor", t, kind, Box::new(|a, b| a ^ b)));
    }
    all.push(("inc", "u32", U32, Box::new(|a, b| if a >= b { 0 } else { a + 1 })));
    all.push(("dec", "u32", U32, Box::new(|a, b| if a == 0 || a > b { b } else { a - 1 })));
    // fp32 atomics flush subnormals in global memory and keep them in shared; fp64 keeps them.
    let flush = space == "global";
    all.push((
        "add",
        "f32",
        F32,
        Box::new(move |a, b| {
            let number = |bits: u64| exact::SINGLE.decode(bits, flush);
            exact::SINGLE.encode(exact::add(number(a), number(b), Round::Nearest), Round::Nearest, flush)
        }),
    ));
    all.push((
        "add",
        "f64",
        F64,
        Box::new(|a, b| {
            let number = |bits: u64| exact::DOUBLE.decode(bits, false);
            exact::DOUBLE.encode(exact::add(number(a), number(b), Round::Nearest), Round::Nearest, false)
        }),
    ));
    let half = |a: u64, b: u64| {
        let number = |bits: u64| exact::HALF.decode(bits & 0xffff, false);
        exact::HALF.encode(exact::add(number(a), number(b), Round::Nearest), Round::Nearest, false)
    };
    all.push(("add.noftz", "f16", F16, Box::new(half)));
    all.push(("add.noftz", "f16x2", F16x2, Box::new(move |a, b| half(a, b) | half(a >> 16, b >> 16) << 16)));
    all
}

pub fn atomics() -> Vec<Case> {
    let mut cases = Vec::new();
    for space in ["global", "shared"] {
        let slot = slot(space);
        for (op, t, kind, update) in updates(space) {
            let bits = kind.bits();
            let update = std::sync::Arc::new(update);
            let after = update.clone();
            cases.push(Case::with_outputs(
                format!("{{ {slot} st.{space}.b{bits} [%slot], %a; atom.{space}.{op}.{t} %d, [%slot], %b; ld.{space}.b{bits} %e, [%slot]; }}"),
                &[kind; 2],
                &[kind; 2],
                move |x| vec![Want::Bits(x[0]), Want::Bits(after(x[0], x[1]))],
            ));
            cases.push(Case::new(
                format!("{{ {slot} st.{space}.b{bits} [%slot], %a; red.{space}.{op}.{t} [%slot], %b; ld.{space}.b{bits} %d, [%slot]; }}"),
                &[kind; 2],
                kind,
                move |x| Want::Bits(update(x[0], x[1])),
            ));
        }
        for (t, kind) in [("b32", U32), ("b64", U64)] {
            cases.push(Case::with_outputs(
                format!("{{ {slot} st.{space}.{t} [%slot], %a; atom.{space}.exch.{t} %d, [%slot], %b; ld.{space}.{t} %e, [%slot]; }}"),
                &[kind; 2],
                &[kind; 2],
                |x| vec![Want::Bits(x[0]), Want::Bits(x[1])],
            ));
        }
        for (t, kind) in [("b16", U16), ("b32", U32), ("b64", U64)] {
            cases.push(Case::with_outputs(
                format!("{{ {slot} st.{space}.{t} [%slot], %a; atom.{space}.cas.{t} %d, [%slot], %b, %c; ld.{space}.{t} %e, [%slot]; }}"),
                &[kind; 3],
                &[kind; 2],
                |x| vec![Want::Bits(x[0]), Want::Bits(if x[0] == x[1] { x[2] } else { x[0] })],
            ));
        }
        // Every order and every scope.
        for order in ["relaxed", "acquire", "release", "acq_rel"] {
            for scope in ["cta", "gpu", "sys"] {
                cases.push(Case::with_outputs(
                    format!("{{ {slot} st.{space}.u32 [%slot], %a; atom.{order}.{scope}.{space}.add.u32 %d, [%slot], %b; ld.{space}.u32 %e, [%slot]; }}"),
                    &[U32; 2],
                    &[U32; 2],
                    |x| vec![Want::Bits(x[0]), Want::Bits(U32.wrap((x[0] + x[1]) as i128))],
                ));
            }
        }
        cases.push(Case::new(
            format!("{{ {slot} st.{space}.u32 [%slot], %a; red.relaxed.gpu.{space}.max.s32 [%slot], %b; ld.{space}.u32 %d, [%slot]; }}"),
            &[U32; 2],
            U32,
            |x| Want::Bits(U32.wrap(S32.value(x[0]).max(S32.value(x[1])))),
        ));
    }
    // By a generic address.
    let slot = slot("shared");
    cases.push(Case::with_outputs(
        format!("{{ {slot} .reg .b64 %g64; cvt.u64.u32 %g64, %slot; cvta.shared.u64 %g64, %g64; st.shared.u32 [%slot], %a; atom.add.u32 %d, [%g64], %b; ld.shared.u32 %e, [%slot]; }}"),
        &[U32; 2],
        &[U32; 2],
        |x| vec![Want::Bits(x[0]), Want::Bits(U32.wrap((x[0] + x[1]) as i128))],
    ));
    cases
}
