//! `wmma`.

use super::Reader;
use super::memory::{address, modifiers};
use super::together::listed;
use crate::decode::builder::{Builder, Decoded};
use crate::decode::op::{Action, NONE, Op};
use crate::decode::types::Type;
use crate::machine::core::OpSpace;
use crate::machine::matrix;
use crate::machine::modifiers::Order;
use crate::machine::wmma::{self, Operand as Matrix, Wmma};
use crate::machine::wmma_double::{self, Fragment};
use crate::ptx::Operand;
use crate::tensor::mma::{Accumulator, Element, Mma};

/// Where matrices may be; without a space, by a generic address.
const SPACES: [(&str, OpSpace); 3] =
    [("global", OpSpace::Global), ("shared", OpSpace::Shared), ("shared::cta", OpSpace::Shared)];

pub fn decode<'a>(b: &mut Builder<'a, '_>, mut r: Reader<'a, '_>) -> Decoded {
    let what = r.one_of(&[("load", 'l'), ("store", 's'), ("mma", 'm')]);
    if !(r.has("sync") && r.has("aligned")) {
        return r.refuse(b);
    }
    if r.has("m8n8k4") {
        return doubles(b, r, what);
    }
    let shape = r.one_of(&[
        ("m16n16k16", ([16, 16], 16)),
        ("m32n8k16", ([32, 8], 16)),
        ("m8n32k16", ([8, 32], 16)),
        ("m16n16k8", ([16, 16], 8)),
    ]);
    let Some((shape, k)) = shape else { return r.refuse(b) };
    match what {
        Some('m') => multiply(b, r, shape, k),
        Some(what) => transfer(b, r, shape, k, what == 'l'),
        None => r.refuse(b),
    }
}

fn element(name: &str) -> Option<Element> {
    Some(match name {
        "f16" => Element::F16,
        "bf16" => Element::Bf16,
        "tf32" => Element::Tf32,
        "s8" => Element::S8,
        "u8" => Element::U8,
        _ => return None,
    })
}

fn accumulator(name: &str) -> Option<Accumulator> {
    Some(match name {
        "f16" => Accumulator::F16,
        "f32" => Accumulator::F32,
        "s32" => Accumulator::S32,
        _ => return None,
    })
}

/// The parts that are left, in order.
fn names<'a>(r: &mut Reader<'a, '_>) -> Vec<&'a str> {
    let mut names = Vec::new();
    while let Some(part) = r.peek() {
        r.has(part);
        names.push(part);
    }
    names
}

/// `wmma.load`, `wmma.store`
fn transfer<'a>(b: &mut Builder<'a, '_>, mut r: Reader<'a, '_>, shape: [usize; 2], k: usize, load: bool) -> Decoded {
    let operand = r.one_of(&[("a", Matrix::A), ("b", Matrix::B), ("c", Matrix::C), ("d", Matrix::C)]);
    let by_column = r.one_of(&[("row", false), ("col", true)]);
    let space = r.one_of(&SPACES).unwrap_or(OpSpace::Generic);
    let (Some(operand), Some(by_column), [name]) = (operand, by_column, &names(&mut r)[..]) else { return r.refuse(b) };
    let (factor, sum) = match operand {
        Matrix::C => (Some(Element::F16), accumulator(name)),
        _ => (element(name), Some(Accumulator::F32)),
    };
    let (Some(factor), Some(sum)) = (factor, sum) else { return r.refuse(b) };
    if operand != Matrix::C && (factor == Element::Tf32) != (k == 8) {
        return r.refuse(b);
    }
    // Of a C fragment the factors do not matter; k is set to what they would have.
    let factor_k = if operand == Matrix::C { 16 } else { k };
    let product = Mma { a: factor, b: factor, k: factor_k, c: sum, d: sum, saturate: false };
    let mut w = Wmma { product, shape, operand, by_column, registers: 0 };
    let [_, of_a, of_b, of_c] = wmma::counts(&w);
    w.registers = match operand {
        Matrix::A => of_a,
        Matrix::B => of_b,
        Matrix::C => of_c,
    };
    let (place, registers) = if load { (1, 0) } else { (0, 1) };
    let at = address(b, r.operand(b, place)?)?;
    let mut codes = Vec::new();
    let Operand::Vector(parts) = r.operand(b, registers)? else {
        return b.error("a vector of registers must be given");
    };
    if parts.len() != w.registers {
        return b.error(format!("{} registers for a fragment of {}", parts.len(), w.registers));
    }
    for part in parts {
        codes.push(if load { b.destination(part, Type::B32)? } else { b.source(part, Type::B32)? });
    }
    let stride = match r.operand(b, 2) {
        Ok(operand) => b.source(operand, Type::B32)?,
        Err(_) => NONE,
    };
    let y = modifiers(b, space, &at, 1, Order::Weak);
    b.wmmas.push(w);
    let e = Builder::number(b.wmmas.len() as u32 - 1);
    let action = Action::Together(if load { wmma::load } else { wmma::store });
    let written = if load { codes.len() } else { 0 };
    let op = Op { a: at.base, b: stride, e, x: at.offset as u64, y, ..Op::new(action) };
    b.emit(op).list = Some((codes, written));
    Ok(())
}

/// `wmma.mma`: types of D and C for f16, of D, A, B and C for the others.
fn multiply<'a>(b: &mut Builder<'a, '_>, mut r: Reader<'a, '_>, shape: [usize; 2], k: usize) -> Decoded {
    let saturate = r.has("satfinite");
    // How the factors lay in memory: their fragments do not show it.
    while r.one_of(&[("row", ()), ("col", ())]).is_some() {}
    let names = names(&mut r);
    let (d, factor, c) = match names[..] {
        [d, c] => (d, "f16", c),
        [d, left, right, c] if left == right => (d, left, c),
        _ => return r.refuse(b),
    };
    let (Some(d), Some(factor), Some(c)) = (accumulator(d), element(factor), accumulator(c)) else {
        return r.refuse(b);
    };
    let integers = factor.is_integer();
    let fits = match factor {
        Element::F16 => d != Accumulator::S32 && c != Accumulator::S32,
        Element::S8 | Element::U8 => d == Accumulator::S32 && c == d,
        _ => d == Accumulator::F32 && c == d,
    };
    if !fits || (factor == Element::Tf32) != (k == 8) || (saturate && !integers) {
        return r.refuse(b);
    }
    let product = Mma { a: factor, b: factor, k, c, d, saturate };
    let w = Wmma { product, shape, operand: Matrix::C, by_column: false, registers: 0 };
    let mut codes = Vec::new();
    let counts = wmma::counts(&w);
    for (i, count) in counts.iter().enumerate() {
        let Operand::Vector(parts) = r.operand(b, i)? else { return b.error("a vector of registers must be given") };
        if parts.len() != *count {
            return b.error(format!("operand {} has {} registers, not {count}", i + 1, parts.len()));
        }
        for part in parts {
            codes.push(if i == 0 { b.destination(part, Type::B32)? } else { b.source(part, Type::B32)? });
        }
    }
    b.wmmas.push(w);
    let e = Builder::number(b.wmmas.len() as u32 - 1);
    b.emit(Op { e, ..Op::new(Action::Together(wmma::multiply)) }).list = Some((codes, counts[0]));
    Ok(())
}

/// `m8n8k4` of f64.
fn doubles<'a>(b: &mut Builder<'a, '_>, mut r: Reader<'a, '_>, what: Option<char>) -> Decoded {
    if what == Some('m') {
        let laid_out = [r.one_of(&[("row", ()), ("col", ())]), r.one_of(&[("row", ()), ("col", ())])];
        // Other roundings than to the nearest are not known.
        r.has("rn");
        if laid_out.contains(&None) || names(&mut r) != ["f64"; 4] {
            return r.refuse(b);
        }
        return listed(b, &r, [2, 1, 1, 2], Type::F64, Action::Together(matrix::multiply_f64), 0);
    }
    let operand = r.one_of(&[("a", Matrix::A), ("b", Matrix::B), ("c", Matrix::C), ("d", Matrix::C)]);
    let by_column = r.one_of(&[("row", false), ("col", true)]);
    let space = r.one_of(&SPACES).unwrap_or(OpSpace::Generic);
    let (Some(operand), Some(by_column), Some(what)) = (operand, by_column, what) else { return r.refuse(b) };
    if names(&mut r) != ["f64"] {
        return r.refuse(b);
    }
    let fragment = Fragment { operand, by_column };
    let load = what == 'l';
    let (place, registers) = if load { (1, 0) } else { (0, 1) };
    let at = address(b, r.operand(b, place)?)?;
    let Operand::Vector(parts) = r.operand(b, registers)? else {
        return b.error("a vector of registers must be given");
    };
    if parts.len() != fragment.registers() {
        return b.error(format!("{} registers for a fragment of {}", parts.len(), fragment.registers()));
    }
    let mut codes = Vec::new();
    for part in parts {
        codes.push(if load { b.destination(part, Type::F64)? } else { b.source(part, Type::F64)? });
    }
    let stride = match r.operand(b, 2) {
        Ok(operand) => b.source(operand, Type::B32)?,
        Err(_) => NONE,
    };
    let y = modifiers(b, space, &at, 1, Order::Weak);
    let e = Builder::number(fragment.pack());
    let action = Action::Together(if load { wmma_double::load } else { wmma_double::store });
    let written = if load { codes.len() } else { 0 };
    let op = Op { a: at.base, b: stride, e, x: at.offset as u64, y, ..Op::new(action) };
    b.emit(op).list = Some((codes, written));
    Ok(())
}
