//! Approximations: within the documented bound of the host's f64 functions, exact or perturbed, and special cases.

use super::Source;
use crate::arith::approx::{self, Perturbation};
use crate::arith::{Mode, NAN_F32};

type Function = fn(u32, Mode, Perturbation) -> u32;

/// Name, function, reference, relative bound, absolute bound, range of exponents tried.
type Case = (&'static str, Function, fn(f64) -> f64, fn(f64) -> f64, std::ops::Range<i32>);

/// The manual's bound on the error at `x`.
const CASES: [Case; 8] = [
    // The manual allows 2^-23; a unit in the last place of every result, on which libraries rely, is three quarters of it.
    ("rcp", approx::rcp, |x| 1.0 / x, |x| 1.50001 * 2f64.powi(-24) / x.abs(), -126..126),
    ("sqrt", approx::sqrt, f64::sqrt, |x| 2f64.powi(-23) * x.sqrt(), -126..127),
    ("rsqrt", approx::rsqrt, |x| 1.0 / x.sqrt(), |x| 2f64.powf(-22.9) / x.sqrt(), -126..127),
    ("ex2", approx::ex2, f64::exp2, |x| 2f64.powf(-22.5) * x.exp2(), -20..7),
    (
        "lg2",
        approx::lg2,
        f64::log2,
        |x| 2f64.powi(-22) * if x > 0.5 && x < 2.0 { 1.0 } else { x.log2().abs() },
        -126..127,
    ),
    ("tanh", approx::tanh, f64::tanh, |x| 2f64.powi(-11) * x.tanh().abs(), -60..20),
    (
        "sin",
        approx::sin,
        f64::sin,
        |x| if x.abs() <= std::f64::consts::PI { 2f64.powf(-20.5) } else { 2f64.powf(-14.7) },
        -60..8,
    ),
    (
        "cos",
        approx::cos,
        f64::cos,
        |x| if x.abs() <= std::f64::consts::PI { 2f64.powf(-20.5) } else { 2f64.powf(-14.7) },
        -60..8,
    ),
];

#[test]
fn within_the_documented_bounds() {
    let mut source = Source::new(23);
    for (name, function, reference, bound, exponents) in CASES {
        let (mut wrong, mut largest, tries) = (0, 0f64, 60_000);
        for i in 0..tries {
            let exponent = exponents.start + (source.next() % exponents.len() as u64) as i32;
            let sign = if matches!(name, "sqrt" | "rsqrt" | "lg2") { 0 } else { source.next() as u32 & 0x8000_0000 };
            let bits = ((exponent + 127) as u32) << 23 | source.next() as u32 & 0x7f_ffff | sign;
            let x = f64::from(f32::from_bits(bits));
            let exact = reference(x);
            if exact != 0.0 && !(exact.abs() as f32).is_normal() {
                continue;
            }
            let nearest = f32::from_bits(function(bits, Mode::NEAREST, Perturbation::NONE));
            // The nearest f32 but for a few arguments that lie on the edge between two.
            assert!((nearest - exact as f32).abs() <= exact.abs() as f32 * f32::EPSILON, "{name}({x:e}) {nearest}");
            wrong += usize::from(nearest != exact as f32);
            let moved = function(bits, Mode::NEAREST, Perturbation(Some(i % 5)));
            assert_eq!(moved, function(bits, Mode::NEAREST, Perturbation(Some(i % 5))));
            let error = (f64::from(f32::from_bits(moved)) - exact).abs();
            assert!(error <= bound(x), "{name}({x:e}): {error:e} > {:e}", bound(x));
            largest = largest.max(error / bound(x));
        }
        assert!(wrong <= 2, "{name}: {wrong} of {tries} not the nearest");
        assert!(largest > 0.9, "{name}: perturbed by {largest} of the bound only");
    }
}

#[test]
fn special_cases_hold_perturbed_or_not() {
    const INF: u32 = 0x7f80_0000;
    const MINUS: u32 = 0x8000_0000;
    let nan = 0x7fc0_0000;
    let table: [(Function, u32, u32); 25] = [
        (approx::rcp, 0, INF),
        (approx::rcp, MINUS, INF | MINUS),
        (approx::rcp, INF, 0),
        (approx::rcp, INF | MINUS, MINUS),
        (approx::rcp, nan, NAN_F32),
        (approx::sqrt, MINUS, MINUS),
        (approx::sqrt, INF, INF),
        (approx::sqrt, 0xbf80_0000, NAN_F32),
        (approx::rsqrt, 0, INF),
        (approx::rsqrt, MINUS, INF | MINUS),
        (approx::rsqrt, INF, 0),
        (approx::rsqrt, 0xbf80_0000, NAN_F32),
        (approx::ex2, INF | MINUS, 0),
        (approx::ex2, INF, INF),
        (approx::ex2, nan, NAN_F32),
        (approx::lg2, 0, INF | MINUS),
        (approx::lg2, MINUS, INF | MINUS),
        (approx::lg2, INF, INF),
        (approx::lg2, 0xbf80_0000, NAN_F32),
        (approx::sin, MINUS, MINUS),
        (approx::sin, INF, NAN_F32),
        (approx::cos, 0, 0x3f80_0000),
        (approx::tanh, MINUS, MINUS),
        (approx::tanh, nan, NAN_F32),
        (approx::lg2, nan, NAN_F32),
    ];
    for (index, (function, argument, expected)) in table.into_iter().enumerate() {
        for seed in [None, Some(1), Some(99)] {
            assert_eq!(function(argument, Mode::NEAREST, Perturbation(seed)), expected, "row {index}: {argument:#x}");
        }
    }
    // Without ftz a subnormal is a number like any other, with it a zero.
    assert_eq!(approx::lg2(1, Mode::NEAREST, Perturbation::NONE), (-149f32).to_bits());
    assert_eq!(approx::lg2(1, Mode::NEAREST_FTZ, Perturbation::NONE), INF | MINUS);
    assert_eq!(approx::ex2((-140f32).to_bits(), Mode::NEAREST, Perturbation::NONE), 1 << 9);
    assert_eq!(approx::ex2((-140f32).to_bits(), Mode::NEAREST_FTZ, Perturbation::NONE), 0);
    assert_eq!(approx::rcp(1, Mode::NEAREST_FTZ, Perturbation::NONE), INF);
}

#[test]
fn divisions() {
    let mut source = Source::new(29);
    let mut moved = 0;
    for i in 0..100_000 {
        let (a, b) = (source.word(), source.word());
        let quotient = f32::from_bits(a) / f32::from_bits(b);
        if !quotient.is_normal() {
            continue;
        }
        for approx in [false, true] {
            if approx && f32::from_bits(b).abs() > 2f32.powi(126) {
                continue;
            }
            let got = approx::div(a, b, approx, Mode::NEAREST, Perturbation(Some(i)));
            let places = i64::from(got) - i64::from(quotient.to_bits());
            assert!(places.abs() <= 1, "{} / {}: {places}", f32::from_bits(a), f32::from_bits(b));
            moved += usize::from(places != 0);
            assert_eq!(approx::div(a, b, approx, Mode::NEAREST, Perturbation::NONE), quotient.to_bits());
        }
    }
    assert!(moved > 10_000);
    let (big, inf, one) = (2f32.powi(127).to_bits(), f32::INFINITY.to_bits(), 1f32.to_bits());
    assert_eq!(approx::div(one, big | 1 << 31, true, Mode::NEAREST, Perturbation::NONE), 1 << 31);
    assert_eq!(approx::div(inf, big, true, Mode::NEAREST, Perturbation::NONE), NAN_F32);
    assert_eq!(approx::div(one, big, false, Mode::NEAREST, Perturbation::NONE), 2f32.powi(-127).to_bits());
    assert_eq!(approx::div(one, 0, true, Mode::NEAREST, Perturbation::NONE), inf);
}

#[test]
fn double_precision_ones() {
    let mut source = Source::new(31);
    for i in 0..50_000 {
        let x = f64::from_bits(source.next() & !(1 << 63));
        if !x.is_normal() {
            continue;
        }
        let exact = 1.0 / x.sqrt();
        for seed in [None, Some(i)] {
            let got = f64::from_bits(approx::rsqrt_f64(x.to_bits(), Perturbation(seed)));
            assert!((got - exact).abs() <= 3.0 * f64::EPSILON * exact, "{x:e}");
            let gross = approx::gross_f64(x.to_bits(), true, Perturbation(seed));
            assert_eq!(gross & 0xffff_ffff, 0);
            assert!((f64::from_bits(gross) - exact).abs() <= 4.0 / (1 << 20) as f64 * exact, "{x:e}");
        }
    }
    assert_eq!(approx::gross_f64(0, false, Perturbation::NONE), f64::INFINITY.to_bits());
    assert_eq!(approx::gross_f64(1, false, Perturbation::NONE), f64::INFINITY.to_bits());
    assert_eq!(approx::rsqrt_f64(0, Perturbation::NONE), f64::INFINITY.to_bits());
    assert_eq!(approx::rsqrt_f64(f64::INFINITY.to_bits(), Perturbation::NONE), 0);
}
