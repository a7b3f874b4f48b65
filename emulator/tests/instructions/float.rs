//! Single and double precision: arithmetic in every rounding, approximations, comparison.

use crate::case::Kind::{self, *};
use crate::case::{Case, Want};
use crate::exact::{self, Format, Number, Round, approximately};

/// What a result must be: rounded, flushed and saturated as the instruction says.
pub fn rounded(format: Format, value: Number, round: Round, flush: bool, saturate: bool) -> Want {
    let bits = format.encode(value, round, false);
    let sign = format.sign_bit();
    let magnitude = bits & (sign - 1);
    let smallest_normal = 1 << (format.precision - 1);
    if saturate {
        let one = one(format);
        if format.is_nan(bits) {
            return Want::Bits(0);
        }
        // The manual does not say whether minus zero keeps its sign.
        if bits & sign != 0 {
            return Want::Either(0, sign);
        }
        if bits > one {
            return Want::Bits(one);
        }
    }
    if flush && magnitude < smallest_normal {
        return Want::Bits(bits & sign);
    }
    // Tiny before rounding, normal after it: hardware may judge either way.
    if flush && magnitude == smallest_normal && format.encode(value, Round::Zero, false) & (sign - 1) < smallest_normal
    {
        return Want::Either(bits, bits & sign);
    }
    Want::Bits(bits)
}

/// The bits of 1.0.
pub fn one(format: Format) -> u64 {
    format.infinity() >> 1 & (u64::MAX << (format.precision - 1))
}

/// Every rounding, flush and saturation of an operation: the suffix, and what it asks for.
fn variants(kind: Kind, saturates: bool) -> Vec<(String, Round, bool, bool)> {
    let mut all = Vec::new();
    for (name, round) in Round::NAMED {
        for flush in if kind == F32 { vec![false, true] } else { vec![false] } {
            for saturate in if kind == F32 && saturates { vec![false, true] } else { vec![false] } {
                let (ftz, sat) = (if flush { ".ftz" } else { "" }, if saturate { ".sat" } else { "" });
                all.push((format!(".{name}{ftz}{sat}"), round, flush, saturate));
            }
        }
    }
    all
}

const KINDS: [(&str, Kind, Format); 2] = [("f32", F32, exact::SINGLE), ("f64", F64, exact::DOUBLE)];

pub fn arithmetic() -> Vec<Case> {
    let mut cases = Vec::new();
    for (t, kind, format) in KINDS {
        let mut push = |body: String, arity: usize, round, flush, saturate, f: fn(&[Number], Round) -> Number| {
            cases.push(Case::new(body, &vec![kind; arity], kind, move |x| {
                let numbers: Vec<Number> = x.iter().map(|&bits| format.decode(bits, flush)).collect();
                rounded(format, f(&numbers, round), round, flush, saturate)
            }));
        };
        for (suffix, round, flush, saturate) in variants(kind, true) {
            push(format!("add{suffix}.{t} %d, %a, %b;"), 2, round, flush, saturate, |x, r| exact::add(x[0], x[1], r));
            push(format!("sub{suffix}.{t} %d, %a, %b;"), 2, round, flush, saturate, |x, r| {
                exact::add(x[0], exact::negate(x[1]), r)
            });
            push(format!("mul{suffix}.{t} %d, %a, %b;"), 2, round, flush, saturate, |x, _| exact::multiply(x[0], x[1]));
            push(format!("fma{suffix}.{t} %d, %a, %b, %c;"), 3, round, flush, saturate, |x, r| {
                exact::add(exact::multiply(x[0], x[1]), x[2], r)
            });
            push(format!("mad{suffix}.{t} %d, %a, %b, %c;"), 3, round, flush, saturate, |x, r| {
                exact::add(exact::multiply(x[0], x[1]), x[2], r)
            });
        }
        for (suffix, round, flush, _) in variants(kind, false) {
            push(format!("div{suffix}.{t} %d, %a, %b;"), 2, round, flush, false, |x, _| exact::divide(x[0], x[1]));
            push(format!("rcp{suffix}.{t} %d, %a;"), 1, round, flush, false, |x, _| {
                exact::divide(exact::integer(1), x[0])
            });
            push(format!("sqrt{suffix}.{t} %d, %a;"), 1, round, flush, false, |x, _| exact::square_root(x[0]));
        }
        // Without a rounding: to nearest, and the assembler may fuse what it finds; alone, nothing is fused.
        push(format!("add.{t} %d, %a, %b;"), 2, Round::Nearest, false, false, |x, r| exact::add(x[0], x[1], r));
        push(format!("mul.{t} %d, %a, %b;"), 2, Round::Nearest, false, false, |x, _| exact::multiply(x[0], x[1]));
        if kind == F32 {
            push("add.sat.f32 %d, %a, %b;".into(), 2, Round::Nearest, false, true, |x, r| exact::add(x[0], x[1], r));
            push("sub.ftz.f32 %d, %a, 0f3F000000;".into(), 1, Round::Nearest, true, false, |x, r| {
                exact::add(x[0], exact::negate(exact::SINGLE.decode(0x3f00_0000, false)), r)
            });
        }
    }
    cases
}

/// Sign, minimum and maximum, and tests of class.
pub fn signs() -> Vec<Case> {
    let mut cases = Vec::new();
    for (t, kind, format) in KINDS {
        let sign = format.sign_bit();
        let smallest_normal = 1u64 << (format.precision - 1);
        let flushes: &[bool] = if kind == F32 { &[false, true] } else { &[false] };
        for &flush in flushes {
            let ftz = if flush { ".ftz" } else { "" };
            let input = move |bits: u64| {
                if flush && bits & (sign - 1) < smallest_normal { bits & sign } else { bits }
            };
            cases.push(Case::new(format!("abs{ftz}.{t} %d, %a;"), &[kind], kind, move |x| {
                Want::Bits(input(x[0]) & !sign)
            }));
            cases.push(Case::new(format!("neg{ftz}.{t} %d, %a;"), &[kind], kind, move |x| {
                Want::Bits(input(x[0]) ^ sign)
            }));
            for (name, largest) in [("min", false), ("max", true)] {
                let pick = move |a: u64, b: u64| {
                    // In the order of the reals, with minus zero below plus zero.
                    let order = |bits: u64| {
                        let magnitude = (bits & (sign - 1)) as i128;
                        if bits & sign != 0 { -magnitude - 1 } else { magnitude }
                    };
                    if (order(a) < order(b)) == largest { b } else { a }
                };
                let number_first = move |x: &[u64], nan: bool| {
                    let (a, b) = (input(x[0]), input(x[1]));
                    match (format.is_nan(a), format.is_nan(b)) {
                        (false, false) => pick(a, b),
                        (true, true) => format.nan(),
                        _ if nan => format.nan(),
                        (true, false) => b,
                        (false, true) => a,
                    }
                };
                cases.push(Case::new(format!("{name}{ftz}.{t} %d, %a, %b;"), &[kind; 2], kind, move |x| {
                    Want::Bits(number_first(x, false))
                }));
                if kind == F32 {
                    cases.push(Case::new(format!("{name}{ftz}.NaN.{t} %d, %a, %b;"), &[kind; 2], kind, move |x| {
                        Want::Bits(number_first(x, true))
                    }));
                }
            }
        }
        cases.push(Case::new(format!("copysign.{t} %d, %a, %b;"), &[kind; 2], kind, move |x| {
            Want::Bits(x[1] & !sign | x[0] & sign)
        }));
        type Class = fn(Format, u64) -> bool;
        let classes: [(&str, Class); 6] = [
            ("finite", |f, m| m < f.infinity()),
            ("infinite", |f, m| m == f.infinity()),
            ("number", |f, m| m <= f.infinity()),
            ("notanumber", |f, m| m > f.infinity()),
            ("normal", |f, m| m < f.infinity() && m >= 1 << (f.precision - 1)),
            ("subnormal", |f, m| m != 0 && m < 1 << (f.precision - 1)),
        ];
        for (name, holds) in classes {
            cases.push(Case::new(format!("testp.{name}.{t} %d, %a;"), &[kind], Predicate, move |x| {
                Want::Bits(u64::from(holds(format, x[0] & (sign - 1))))
            }));
        }
        cases.push(Case::new(format!("mov.{t} %d, %a;"), &[kind], kind, |x| Want::Bits(x[0])));
    }
    cases
}

/// Minimum and maximum of magnitudes with the product's sign: sm_86.
pub fn signs_of_sm_86() -> Vec<Case> {
    ["min", "max"]
        .map(|name| {
            Case::new(format!("{name}.xorsign.abs.f32 %d, %a, %b;"), &[F32; 2], F32, move |x| {
                let (a, b) = (x[0] & 0x7fff_ffff, x[1] & 0x7fff_ffff);
                let picked = match (a > 0x7f80_0000, b > 0x7f80_0000) {
                    (true, true) => return Want::Bits(0x7fff_ffff),
                    (true, false) => b,
                    (false, true) => a,
                    _ if name == "min" => a.min(b),
                    _ => a.max(b),
                };
                Want::Bits(picked | (x[0] ^ x[1]) & 0x8000_0000)
            })
        })
        .into()
}

/// Whether a relation holds.
pub type Relation = fn(f64, f64) -> bool;

/// The relations of floats. The ordered ones are false of a NaN, the unordered ones (`equ`, …) true.
pub const RELATIONS: [(&str, Relation); 14] = [
    ("eq", |a, b| a == b),
    ("ne", |a, b| !a.is_nan() && !b.is_nan() && a != b),
    ("lt", |a, b| a < b),
    ("le", |a, b| a <= b),
    ("gt", |a, b| a > b),
    ("ge", |a, b| a >= b),
    ("equ", |a, b| a.is_nan() || b.is_nan() || a == b),
    ("neu", |a, b| a != b),
    ("ltu", |a, b| a.is_nan() || b.is_nan() || a < b),
    ("leu", |a, b| a.is_nan() || b.is_nan() || a <= b),
    ("gtu", |a, b| a.is_nan() || b.is_nan() || a > b),
    ("geu", |a, b| a.is_nan() || b.is_nan() || a >= b),
    ("num", |a, b| !a.is_nan() && !b.is_nan()),
    ("nan", |a, b| a.is_nan() || b.is_nan()),
];

pub fn comparisons() -> Vec<Case> {
    let mut cases = Vec::new();
    for (t, kind, format) in KINDS {
        let flushes: &[bool] = if kind == F32 { &[false, true] } else { &[false] };
        for &flush in flushes {
            let ftz = if flush { ".ftz" } else { "" };
            for (name, holds) in RELATIONS {
                let truth = move |x: &[u64]| {
                    let value = |bits: u64| approximately(format.decode(bits, flush));
                    holds(value(x[0]), value(x[1]))
                };
                let two = [kind; 2];
                cases.push(Case::new(format!("setp.{name}{ftz}.{t} %d, %a, %b;"), &two, Predicate, move |x| {
                    Want::Bits(u64::from(truth(x)))
                }));
                cases.push(Case::new(format!("set.{name}{ftz}.u32.{t} %d, %a, %b;"), &two, U32, move |x| {
                    Want::Bits(if truth(x) { 0xffff_ffff } else { 0 })
                }));
                cases.push(Case::new(format!("set.{name}{ftz}.f32.{t} %d, %a, %b;"), &two, F32, move |x| {
                    Want::Bits(if truth(x) { 0x3f80_0000 } else { 0 })
                }));
                cases.push(Case::with_outputs(
                    format!("setp.{name}.and{ftz}.{t} %d|%e, %a, %b, %c;"),
                    &[kind, kind, Predicate],
                    &[Predicate; 2],
                    move |x| vec![Want::Bits(u64::from(truth(x)) & x[2]), Want::Bits(u64::from(!truth(x)) & x[2])],
                ));
            }
        }
    }
    cases
}

/// An approximation must lie within a share of the true value, or a distance from it.
fn near(value: f64, relative: f64, absolute: f64, flush: bool) -> Want {
    let (smallest, smallest_normal) = (f64::powi(2.0, -149), f64::powi(2.0, -126));
    // Next to the largest number, the bound lets the result be infinite.
    if value.is_finite() && value.abs() >= f64::from(f32::MAX) * (1.0 - 1e-6) {
        return if value.abs() > f64::from(f32::MAX) * 1.000_001 { infinite(value) } else { Want::Any };
    }
    let bound = value.abs() * relative + absolute + smallest;
    let bound = if flush && value.abs() < smallest_normal * 1.000_001 { bound.max(value.abs()) } else { bound };
    Want::Near { value, bound }
}

fn infinite(value: f64) -> Want {
    Want::Near { value: f64::INFINITY.copysign(value), bound: 0.0 }
}

pub fn approximations() -> Vec<Case> {
    let mut cases = Vec::new();
    // For each function: the true one, and its relative and absolute error by the PTX manual.
    type Function = (&'static str, fn(f64) -> f64, f64, f64);
    let functions: [Function; 5] = [
        ("rcp.approx", |x| 1.0 / x, f64::powi(2.0, -23), 0.0),
        ("sqrt.approx", f64::sqrt, f64::powi(2.0, -23), 0.0),
        ("rsqrt.approx", |x| 1.0 / x.sqrt(), f64::powf(2.0, -22.4), 0.0),
        ("ex2.approx", f64::exp2, f64::powi(2.0, -22), 0.0),
        ("lg2.approx", f64::log2, f64::powi(2.0, -22), f64::powi(2.0, -22)),
    ];
    for (name, function, relative, absolute) in functions {
        for flush in [false, true] {
            let ftz = if flush { ".ftz" } else { "" };
            cases.push(Case::new(format!("{name}{ftz}.f32 %d, %a;"), &[F32], F32, move |x| {
                let value = approximately(exact::SINGLE.decode(x[0], flush));
                let result = function(value);
                // A root of minus zero is minus zero, and its reciprocal minus infinity.
                near(result, relative, absolute, flush)
            }));
        }
    }
    for (name, function) in [("sin", f64::sin as fn(f64) -> f64), ("cos", f64::cos)] {
        for flush in [false, true] {
            let ftz = if flush { ".ftz" } else { "" };
            cases.push(Case::new(format!("{name}.approx{ftz}.f32 %d, %a;"), &[F32], F32, move |x| {
                let value = approximately(exact::SINGLE.decode(x[0], flush));
                let turn = std::f64::consts::TAU;
                match value.abs() {
                    size if size <= turn => near(function(value), 0.0, f64::powf(2.0, -20.5), flush),
                    size if size <= 50.0 * turn => near(function(value), 0.0, f64::powf(2.0, -14.7), flush),
                    size if size.is_infinite() || size.is_nan() => Want::Bits(exact::SINGLE.nan()),
                    _ => Want::Any,
                }
            }));
        }
    }
    cases.push(Case::new("tanh.approx.f32 %d, %a;", &[F32], F32, |x| {
        let value = approximately(exact::SINGLE.decode(x[0], false));
        near(value.tanh(), f64::powi(2.0, -11), 0.0, true)
    }));
    for flush in [false, true] {
        let ftz = if flush { ".ftz" } else { "" };
        let quotient = move |x: &[u64], largest: f64| {
            let value = |bits: u64| approximately(exact::SINGLE.decode(bits, flush));
            let (a, b) = (value(x[0]), value(x[1]));
            // Outside this range of divisors the manual asks for less.
            if b.is_finite() && b != 0.0 && !(f64::powi(2.0, -126)..=largest).contains(&b.abs()) {
                return Want::Any;
            }
            near(a / b, f64::powi(2.0, -22), 0.0, flush)
        };
        cases.push(Case::new(format!("div.full{ftz}.f32 %d, %a, %b;"), &[F32; 2], F32, move |x| {
            quotient(x, f64::powi(2.0, 126))
        }));
        cases.push(Case::new(format!("div.approx{ftz}.f32 %d, %a, %b;"), &[F32; 2], F32, move |x| {
            quotient(x, f64::powi(2.0, 126))
        }));
    }
    for (name, function) in
        [("rcp.approx.ftz", (|x| 1.0 / x) as fn(f64) -> f64), ("rsqrt.approx.ftz", |x: f64| 1.0 / x.sqrt())]
    {
        cases.push(Case::new(format!("{name}.f64 %d, %a;"), &[F64], F64, move |x| {
            let value = approximately(exact::DOUBLE.decode(x[0], true));
            let result = function(value);
            let bound = if result.abs() < f64::MIN_POSITIVE * 1.1 {
                f64::MIN_POSITIVE * 1.1
            } else {
                result.abs() * f64::powi(2.0, -19)
            };
            Want::Near { value: result, bound }
        }));
    }
    cases
}
