//! Half precision and bfloat16, scalar and in pairs.

use crate::case::Kind::{self, *};
use crate::case::{Case, Want};
use crate::exact::{self, Format, Number, Round, add, approximately, multiply, negate};
use crate::float::{RELATIONS, one};

/// A type, its packed partner, and its format.
type Type = (&'static str, Kind, Kind, Format);
const HALF: Type = ("f16", F16, F16x2, exact::HALF);
const BFLOAT: Type = ("bf16", Bf16, Bf16x2, exact::BFLOAT);

/// How a result is finished.
#[derive(Clone, Copy, PartialEq)]
enum Finish {
    Plain,
    Flush,
    Saturate,
    FlushSaturate,
    Relu,
    FlushRelu,
}

use Finish::*;

impl Finish {
    fn suffix(self) -> &'static str {
        match self {
            Plain => "",
            Flush => ".ftz",
            Saturate => ".sat",
            FlushSaturate => ".ftz.sat",
            Relu => ".relu",
            FlushRelu => ".ftz.relu",
        }
    }

    fn flushes(self) -> bool {
        matches!(self, Flush | FlushSaturate | FlushRelu)
    }

    /// Rounds to nearest and finishes. Signs of zero that the manual leaves open are never met by these cases:
    /// a negative result is cut to plus zero.
    fn apply(self, format: Format, value: Number) -> u64 {
        let bits = format.encode(value, Round::Nearest, self.flushes());
        let negative = bits & format.sign_bit() != 0;
        match self {
            Saturate | FlushSaturate if format.is_nan(bits) || negative => 0,
            Saturate | FlushSaturate => bits.min(one(format)),
            Relu | FlushRelu if negative && !format.is_nan(bits) => 0,
            _ => bits,
        }
    }
}

/// A case on scalars, and the same on pairs.
fn both(
    cases: &mut Vec<Case>,
    (t, scalar, packed, _): Type,
    name: &str,
    arity: usize,
    f: impl Fn(&[u64]) -> u64 + Send + Sync + Clone + 'static,
) {
    let operands = ["%a", "%b", "%c"][..arity].join(", ");
    let g = f.clone();
    cases.push(Case::new(format!("{name}.{t} %d, {operands};"), &vec![scalar; arity], scalar, move |x| {
        Want::Bits(f(x))
    }));
    cases.push(Case::new(format!("{name}.{t}x2 %d, {operands};"), &vec![packed; arity], packed, move |x| {
        let part = |shift: u32| g(&x.iter().map(|bits| bits >> shift & 0xffff).collect::<Vec<_>>());
        Want::Bits(part(0) | part(16) << 16)
    }));
}

fn operation(cases: &mut Vec<Case>, of: Type, name: &str, arity: usize, finish: Finish, f: fn(&[Number]) -> Number) {
    let format = of.3;
    both(cases, of, &format!("{name}{}", finish.suffix()), arity, move |x| {
        let numbers: Vec<Number> = x.iter().map(|&bits| format.decode(bits, finish.flushes())).collect();
        finish.apply(format, f(&numbers))
    });
}

pub fn arithmetic() -> Vec<Case> {
    let mut cases = Vec::new();
    for finish in [Plain, Flush, Saturate, FlushSaturate] {
        operation(&mut cases, HALF, "add", 2, finish, |x| add(x[0], x[1], Round::Nearest));
        operation(&mut cases, HALF, "add.rn", 2, finish, |x| add(x[0], x[1], Round::Nearest));
        operation(&mut cases, HALF, "sub", 2, finish, |x| add(x[0], negate(x[1]), Round::Nearest));
        operation(&mut cases, HALF, "mul", 2, finish, |x| multiply(x[0], x[1]));
        operation(&mut cases, HALF, "fma.rn", 3, finish, |x| add(multiply(x[0], x[1]), x[2], Round::Nearest));
    }
    for finish in [Relu, FlushRelu] {
        operation(&mut cases, HALF, "fma.rn", 3, finish, |x| add(multiply(x[0], x[1]), x[2], Round::Nearest));
    }
    for finish in [Plain, Relu] {
        operation(&mut cases, BFLOAT, "fma.rn", 3, finish, |x| add(multiply(x[0], x[1]), x[2], Round::Nearest));
    }
    for of in [HALF, BFLOAT] {
        let format = of.3;
        both(&mut cases, of, "neg", 1, move |x| x[0] ^ format.sign_bit());
        both(&mut cases, of, "abs", 1, move |x| x[0] & !format.sign_bit());
        for (name, largest) in [("min", false), ("max", true)] {
            for nan in [false, true] {
                let suffix = if nan { ".NaN" } else { "" };
                both(&mut cases, of, &format!("{name}{suffix}"), 2, move |x| pick(format, x[0], x[1], largest, nan));
            }
        }
    }
    cases
}

/// Arithmetic of bf16 that needs sm_90.
pub fn bfloat_of_sm_90() -> Vec<Case> {
    let mut cases = Vec::new();
    operation(&mut cases, BFLOAT, "add.rn", 2, Plain, |x| add(x[0], x[1], Round::Nearest));
    operation(&mut cases, BFLOAT, "sub.rn", 2, Plain, |x| add(x[0], negate(x[1]), Round::Nearest));
    operation(&mut cases, BFLOAT, "mul.rn", 2, Plain, |x| multiply(x[0], x[1]));
    approximation(&mut cases, BFLOAT, "tanh.approx", f64::tanh, f64::powi(2.0, -8), 0.0);
    approximation(&mut cases, BFLOAT, "ex2.approx.ftz", f64::exp2, f64::powi(2.0, -7), f64::powi(2.0, -126));
    comparisons_of(&mut cases, BFLOAT);
    cases
}

pub fn approximations() -> Vec<Case> {
    let mut cases = Vec::new();
    approximation(&mut cases, HALF, "tanh.approx", f64::tanh, 0.0, f64::powf(2.0, -10.987));
    approximation(&mut cases, HALF, "ex2.approx", f64::exp2, f64::powf(2.0, -9.9), f64::powi(2.0, -24));
    cases
}

/// A function of one scalar within a bound, and that of pairs by unpacking them.
fn approximation(cases: &mut Vec<Case>, of: Type, name: &str, f: fn(f64) -> f64, relative: f64, absolute: f64) {
    let (t, scalar, packed, format) = of;
    let want = move |bits: u64| {
        let value = f(approximately(format.decode(bits, false)));
        let largest = approximately(format.decode(format.infinity() - 1, false));
        match value.abs() {
            size if size.is_finite() && size > largest * 1.01 => Want::Near { value: f64::INFINITY, bound: 0.0 },
            size if size.is_finite() && size > largest * 0.99 => Want::Any,
            size => Want::Near { value, bound: size * relative + absolute },
        }
    };
    cases.push(Case::new(format!("{name}.{t} %d, %a;"), &[scalar], scalar, move |x| want(x[0])));
    let body = format!("{{ .reg .b32 %t; {name}.{t}x2 %t, %a; mov.b32 {{%d, %e}}, %t; }}");
    cases.push(Case::with_outputs(body, &[packed], &[scalar; 2], move |x| vec![want(x[0] & 0xffff), want(x[0] >> 16)]));
}

/// The smaller or larger of two, with minus zero below plus zero.
fn pick(format: Format, a: u64, b: u64, largest: bool, nan: bool) -> u64 {
    let order = |bits: u64| {
        let magnitude = (bits & (format.sign_bit() - 1)) as i64;
        if bits & format.sign_bit() != 0 { -magnitude - 1 } else { magnitude }
    };
    match (format.is_nan(a), format.is_nan(b)) {
        (true, true) => format.nan(),
        (true, false) | (false, true) if nan => format.nan(),
        (true, false) => b,
        (false, true) => a,
        _ if (order(a) < order(b)) == largest => b,
        _ => a,
    }
}

pub fn comparisons() -> Vec<Case> {
    let mut cases = Vec::new();
    comparisons_of(&mut cases, HALF);
    cases
}

fn comparisons_of(cases: &mut Vec<Case>, (t, scalar, packed, format): Type) {
    for (name, holds) in RELATIONS {
        let truth = move |x: &[u64], shift: u32| {
            let value = |bits: u64| approximately(format.decode(bits >> shift & 0xffff, false));
            holds(value(x[0]), value(x[1]))
        };
        cases.push(Case::new(format!("setp.{name}.{t} %d, %a, %b;"), &[scalar; 2], Predicate, move |x| {
            Want::Bits(u64::from(truth(x, 0)))
        }));
        // Of pairs, the lower halves decide the first predicate and the upper the second.
        cases.push(Case::with_outputs(
            format!("setp.{name}.{t}x2 %d|%e, %a, %b;"),
            &[packed; 2],
            &[Predicate; 2],
            move |x| vec![Want::Bits(u64::from(truth(x, 0))), Want::Bits(u64::from(truth(x, 16)))],
        ));
        cases.push(Case::new(format!("set.{name}.{t}.{t} %d, %a, %b;"), &[scalar; 2], scalar, move |x| {
            Want::Bits(if truth(x, 0) { one(format) } else { 0 })
        }));
        cases.push(Case::new(format!("set.{name}.u32.{t} %d, %a, %b;"), &[scalar; 2], U32, move |x| {
            Want::Bits(if truth(x, 0) { 0xffff_ffff } else { 0 })
        }));
        cases.push(Case::new(format!("set.{name}.{t}x2.{t}x2 %d, %a, %b;"), &[packed; 2], packed, move |x| {
            let part = |shift: u32| if truth(x, shift) { one(format) } else { 0 };
            Want::Bits(part(0) | part(16) << 16)
        }));
    }
}
