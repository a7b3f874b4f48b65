//! f32 and f64: nearest by the host, directed by error-free transformations and by bracketing.

use super::Source;
use crate::arith::compare::{self, Relation};
use crate::arith::exact::{self, Exact};
use crate::arith::float::{self, Extreme, Property};
use crate::arith::{Mode, NAN_F32, Round};

const DIRECTED: [Round; 3] = [Round::Zero, Round::Down, Round::Up];

fn mode(round: Round) -> Mode {
    Mode { round, ..Mode::NEAREST }
}

/// The next f32 above; -0 counts as 0.
fn above(x: f32) -> f32 {
    if x == 0.0 { f32::from_bits(1) } else { x.next_up() }
}

/// The f32 that `round` asks for, from the nearest one and the sign of what it misses.
fn fix(nearest: f32, missing: f64, round: Round) -> f32 {
    let below = |x: f32| -above(-x);
    match round {
        Round::Up if missing > 0.0 => above(nearest),
        Round::Down if missing < 0.0 => below(nearest),
        Round::Zero if missing < 0.0 && (nearest > 0.0 || nearest.is_infinite()) && nearest.is_sign_positive() => {
            below(nearest)
        }
        Round::Zero if missing > 0.0 && nearest < 0.0 => above(nearest),
        _ => nearest,
    }
}

/// The sign of `a·b + c - r`, in f64: the product is exact, the sum's error is recovered by two-sum.
fn missing(a: f32, b: f32, c: f32, r: f32) -> f64 {
    let product = f64::from(a) * f64::from(b);
    let sum = product + f64::from(c);
    let shadow = sum - product;
    let error = (product - (sum - shadow)) + (f64::from(c) - shadow);
    (sum - f64::from(r)) + error
}

fn check(got: u32, expected: f32, what: &str, operands: &[f32]) {
    let expected = if expected.is_nan() { NAN_F32 } else { expected.to_bits() };
    assert_eq!(got, expected, "{what} {operands:?}");
}

#[test]
fn directed_f32_against_error_free_transformations() {
    let mut source = Source::new(32);
    for _ in 0..300_000 {
        let bits: [u32; 3] = std::array::from_fn(|_| source.word());
        let [a, b, c] = bits.map(f32::from_bits);
        let finite = [a, b, c].iter().all(|x| x.is_finite());
        if !finite && a.is_finite() && c.is_finite() {
            continue;
        }
        for round in DIRECTED {
            let m = mode(round);
            if !finite {
                check(float::add_f32(bits[0], bits[2], m), a + c, "add", &[a, c]);
                check(float::fma_f32(bits[0], bits[1], bits[2], m), a.mul_add(b, c), "fma", &[a, b, c]);
                continue;
            }
            // An exact zero from unlike signs is -0 when rounding down, +0 otherwise.
            let zero = |sum: f32, like: bool| {
                if sum == 0.0 && !like { if round == Round::Down { -0.0 } else { 0.0 } } else { sum }
            };
            let like = a.is_sign_positive() == b.is_sign_positive();
            let sum = fix(zero(a + b, like), missing(a, 1.0, b, a + b), round);
            check(float::add_f32(bits[0], bits[1], m), sum, "add", &[a, b]);
            let difference = fix(zero(a - b, !like), missing(a, 1.0, -b, a - b), round);
            check(float::sub_f32(bits[0], bits[1], m), difference, "sub", &[a, b]);
            let product = fix(a * b, missing(a, b, 0.0, a * b), round);
            check(float::mul_f32(bits[0], bits[1], m), product, "mul", &[a, b]);
            let nearest = a.mul_add(b, c);
            let miss = missing(a, b, c, nearest);
            if miss != 0.0 || nearest != 0.0 {
                check(float::fma_f32(bits[0], bits[1], bits[2], m), fix(nearest, miss, round), "fma", &[a, b, c]);
            }
            // a/b - q has the sign of (a - q·b)/b.
            if b != 0.0 {
                let q = a / b;
                let miss =
                    if q.is_infinite() { -f64::from(q) } else { -missing(q, b, -a, 0.0) * f64::from(b.signum()) };
                check(float::div_f32(bits[0], bits[1], m), fix(q, miss, round), "div", &[a, b]);
            }
            if a > 0.0 {
                let root = a.sqrt();
                let miss = -missing(root, root, -a, 0.0);
                check(float::sqrt_f32(bits[0], m), fix(root, miss, round), "sqrt", &[a]);
            }
        }
    }
}

#[test]
fn directed_f64_brackets_the_exact_value() {
    // Rounded to nearest, Exact must agree with the host; then down ≤ exact ≤ up, neighbours or equal, is enough:
    // a directed result that is an end of the bracket around the host's nearest, on the right side of it.
    let mut source = Source::new(64);
    for _ in 0..200_000 {
        let bits: [u64; 3] = std::array::from_fn(|_| source.long());
        let [a, b, c] = bits.map(f64::from_bits);
        if !bits.iter().all(|x| f64::from_bits(*x).is_finite()) {
            continue;
        }
        let near = |number: Exact| number.round(exact::F64, Round::Nearest);
        let (x, y, z) = (Exact::of_f64(a), Exact::of_f64(b), Exact::of_f64(c));
        assert_eq!(near(x.plus(y, Round::Nearest)), (a + b).to_bits(), "{a:e} + {b:e}");
        assert_eq!(near(x.times(y)), (a * b).to_bits(), "{a:e} * {b:e}");
        assert_eq!(near(x.times(y).plus(z, Round::Nearest)), a.mul_add(b, c).to_bits(), "{a:e} * {b:e} + {c:e}");
        if b != 0.0 {
            assert_eq!(near(x.over(y)), (a / b).to_bits(), "{a:e} / {b:e}");
        }
        if a >= 0.0 {
            assert_eq!(near(x.sqrt()), a.sqrt().to_bits(), "sqrt {a:e}");
        }
        let results: [(f64, [u64; 3]); 3] = [
            (a + b, DIRECTED.map(|round| float::add_f64(bits[0], bits[1], round))),
            (a * b, DIRECTED.map(|round| float::mul_f64(bits[0], bits[1], round))),
            (a.mul_add(b, c), DIRECTED.map(|round| float::fma_f64(bits[0], bits[1], bits[2], round))),
        ];
        for (nearest, directed) in results {
            let [zero, down, up] = directed.map(f64::from_bits);
            assert!(down <= nearest && nearest <= up && (down == up || down.next_up() == up), "{a:e} {b:e} {c:e}");
            assert_eq!(zero, if nearest > 0.0 || up > 0.0 { down } else { up });
            assert!(down == nearest || up == nearest);
        }
    }
}

#[test]
fn exact_rounding_of_f32_agrees_with_the_host_for_every_binade() {
    let mut source = Source::new(7);
    for _ in 0..300_000 {
        let value = f64::from_bits(source.next());
        let value = if value.is_finite() { value } else { continue };
        // Into f32's range, where most doubles are not.
        let scaled = f64::from_bits(value.to_bits() & !(0x7ff << 52) | (1023 - 160 + source.next() % 300) << 52);
        for value in [value, scaled] {
            let got = Exact::of_f64(value).round(exact::F32, Round::Nearest) as u32;
            assert_eq!(got, (value as f32).to_bits(), "{value:e}");
        }
    }
}

#[test]
fn subnormals_are_flushed_with_their_sign() {
    let m = Mode::NEAREST_FTZ;
    let (tiny, normal) = (0x8000_0001, 0x0080_0000);
    assert_eq!(float::add_f32(tiny, tiny, m), 0x8000_0000);
    assert_eq!(float::add_f32(tiny, tiny, Mode::NEAREST), 0x8000_0002);
    assert_eq!(float::mul_f32(normal, 0.5f32.to_bits(), m), 0);
    assert_eq!(float::mul_f32(normal, (-0.5f32).to_bits(), m), 0x8000_0000);
    assert_eq!(float::div_f32(1.0f32.to_bits(), 1, m), f32::INFINITY.to_bits());
    assert_eq!(float::fma_f32(1, 0x7f00_0000, 0, m), 0);
    assert_eq!(float::sqrt_f32(tiny, m), 0x8000_0000);
    assert_eq!((float::neg_f32(1, true), float::abs_f32(tiny, true)), (0x8000_0000, 0));
    assert!(compare::f32s(Relation::Equal, 1, tiny, true));
    assert!(!compare::f32s(Relation::Equal, 1, tiny, false));
}

#[test]
fn saturation_sends_nan_and_minus_zero_to_zero() {
    let m = Mode { saturate: true, ..Mode::NEAREST };
    let one = 1.0f32.to_bits();
    for (a, expected) in
        [(2.5f32, 1.0f32), (-1.0, 0.0), (-0.0, 0.0), (0.25, 0.25), (f32::NAN, 0.0), (f32::INFINITY, 1.0)]
    {
        assert_eq!(float::mul_f32(a.to_bits(), one, m), expected.to_bits(), "{a}");
    }
}

#[test]
fn any_nan_becomes_the_canonical_one() {
    let m = Mode::NEAREST;
    let nan = 0xff80_1234;
    assert_eq!(float::add_f32(nan, 0, m), NAN_F32);
    assert_eq!(float::mul_f32(0x7f80_0000, 0, m), NAN_F32);
    assert_eq!(float::sqrt_f32((-1.0f32).to_bits(), m), NAN_F32);
    assert_eq!(float::neg_f32(nan, false), 0x7f80_1234);
    assert_eq!(float::copysign_f32((-1.0f32).to_bits(), 2.0f32.to_bits()), (-2.0f32).to_bits());
    assert_eq!(float::copysign_f64((-1.0f64).to_bits(), 2.0f64.to_bits()), (-2.0f64).to_bits());
}

#[test]
fn extremes_order_zeros_and_pass_over_nan() {
    let [min, max] = [false, true].map(|max| Extreme { max, ..Extreme::default() });
    let nan = f32::NAN.to_bits();
    let (zero, minus, one) = (0, 0x8000_0000, 1.0f32.to_bits());
    for (a, b) in [(zero, minus), (minus, zero)] {
        assert_eq!((float::extreme_f32(a, b, min), float::extreme_f32(a, b, max)), (minus, zero));
    }
    for (a, b) in [(nan, one), (one, nan)] {
        assert_eq!((float::extreme_f32(a, b, min), float::extreme_f32(a, b, max)), (one, one));
        assert_eq!(float::extreme_f32(a, b, Extreme { nan: true, ..min }), NAN_F32);
    }
    assert_eq!(float::extreme_f32(nan | 5, nan, min), NAN_F32);
    let how = Extreme { xorsign: true, ..max };
    assert_eq!(float::extreme_f32((-3.0f32).to_bits(), 2.0f32.to_bits(), how), (-3.0f32).to_bits());
    assert_eq!(float::extreme_f32((-3.0f32).to_bits(), (-4.0f32).to_bits(), how), 4.0f32.to_bits());
    let mut source = Source::new(5);
    for _ in 0..100_000 {
        let (a, b) = (source.word(), source.word());
        let (x, y) = (f32::from_bits(a), f32::from_bits(b));
        if !x.is_nan() && !y.is_nan() && x != y {
            assert_eq!(float::extreme_f32(a, b, min), x.min(y).to_bits());
            assert_eq!(float::extreme_f32(a, b, max), x.max(y).to_bits());
        }
        let (a, b) = (source.long(), source.long());
        let (x, y) = (f64::from_bits(a), f64::from_bits(b));
        if !x.is_nan() && !y.is_nan() && x != y {
            assert_eq!(float::extreme_f64(a, b, false), x.min(y).to_bits());
            assert_eq!(float::extreme_f64(a, b, true), x.max(y).to_bits());
        }
    }
    assert_eq!(float::extreme_f64(0, 1 << 63, false), 1 << 63);
    assert_eq!(float::extreme_f64(f64::NAN.to_bits(), 5, true), 5);
    assert_eq!(float::extreme_f64(5, f64::NAN.to_bits(), true), 5);
}

#[test]
fn relations_by_their_table() {
    // For (less, equal, greater, unordered): what each relation says.
    let table = [
        (Relation::Equal, [false, true, false, false]),
        (Relation::NotEqual, [true, false, true, false]),
        (Relation::Less, [true, false, false, false]),
        (Relation::LessEqual, [true, true, false, false]),
        (Relation::Greater, [false, false, true, false]),
        (Relation::GreaterEqual, [false, true, true, false]),
        (Relation::EqualUnordered, [false, true, false, true]),
        (Relation::NotEqualUnordered, [true, false, true, true]),
        (Relation::LessUnordered, [true, false, false, true]),
        (Relation::LessEqualUnordered, [true, true, false, true]),
        (Relation::GreaterUnordered, [false, false, true, true]),
        (Relation::GreaterEqualUnordered, [false, true, true, true]),
        (Relation::Numbers, [true, true, true, false]),
        (Relation::AnyNan, [false, false, false, true]),
    ];
    for (relation, expected) in table {
        for ((a, b), says) in [(1.0f64, 2.0f64), (2.0, 2.0), (3.0, 2.0), (f64::NAN, 2.0)].into_iter().zip(expected) {
            assert_eq!(compare::f64s(relation, a.to_bits(), b.to_bits()), says, "{relation:?} {a} {b}");
            let (a, b) = (a as f32, b as f32);
            assert_eq!(compare::f32s(relation, a.to_bits(), b.to_bits(), false), says, "{relation:?} {a} {b}");
        }
        for ((a, b), says) in [(-1, 2), (2, 2), (3, 2)].into_iter().zip(expected) {
            assert_eq!(compare::integers(relation, a, b), says, "{relation:?} {a} {b}");
        }
    }
    assert!(compare::integers(Relation::Greater, u32::MAX, 1) && !compare::integers(Relation::Greater, -1, 1));
    for (c, takes_a) in [(0.0f32, true), (-0.0, true), (-1.0, false), (f32::NAN, false), (3.0, true)] {
        assert_eq!(compare::select_f32(c.to_bits(), false), takes_a, "{c}");
    }
    assert!(compare::select_f32(0x8000_0001, true) && !compare::select_f32(0x8000_0001, false));
    assert!(compare::select_s32(0) && !compare::select_s32(!0));
}

#[test]
fn properties_of_every_class() {
    use Property::*;
    let classes = [
        (0u32, vec![Finite, Number]),
        (1, vec![Finite, Number, Subnormal]),
        (0x3f80_0000, vec![Finite, Number, Normal]),
        (0xff80_0000, vec![Infinite, Number]),
        (0x7f80_0001, vec![NotANumber]),
    ];
    for (bits, holds) in classes {
        for property in [Finite, Infinite, Number, NotANumber, Normal, Subnormal] {
            assert_eq!(float::test_f32(bits, property), holds.contains(&property), "{bits:#x} {property:?}");
        }
    }
    assert!(float::test_f64(1, Subnormal) && float::test_f64(f64::MIN_POSITIVE.to_bits(), Normal));
}
