//! f16 and bf16: conversions exhaustively against the `half` crate, arithmetic against an exact integer reference.

use super::Source;
use crate::arith::NAN_F16;
use crate::arith::Round;
use crate::arith::approx::{self, Perturbation};
use crate::arith::compare::{self, Relation};
use crate::arith::exact::{self, Exact, Format};
use crate::arith::float::Extreme;
use crate::arith::half::{self, Bf16, F16, Half, HalfMode};

const PLAIN: HalfMode = HalfMode { ftz: false, saturate: false, relu: false };

#[test]
fn every_half_widens_exactly() {
    for bits in 0..=0xffffu16 {
        let (f16, bf16) = (F16::to_f32(bits.into()), Bf16::to_f32(bits.into()));
        let expected = ::half::f16::from_bits(bits).to_f32();
        assert!(f16.to_bits() == expected.to_bits() || (f16.is_nan() && expected.is_nan()), "{bits:#x}");
        let expected = ::half::bf16::from_bits(bits).to_f32();
        assert!(bf16.to_bits() == expected.to_bits() || (bf16.is_nan() && expected.is_nan()), "{bits:#x}");
    }
}

#[test]
fn narrowing_rounds_to_nearest_even() {
    let check = |value: f32| {
        let expected = if value.is_nan() { NAN_F16 } else { ::half::f16::from_f32_const(value).to_bits().into() };
        assert_eq!(F16::from_f32(value), expected, "{value:e} to f16");
        let expected = if value.is_nan() { NAN_F16 } else { ::half::bf16::from_f32_const(value).to_bits().into() };
        assert_eq!(Bf16::from_f32(value), expected, "{value:e} to bf16");
    };
    // Every upper half with the lower ones around a tie, of both formats; then a walk.
    for upper in 0..=0xffffu32 {
        for lower in [0, 1, 0xfff, 0x1000, 0x1001, 0x2fff, 0x3000, 0x7fff, 0x8000, 0x8001, 0xffff] {
            check(f32::from_bits(upper << 16 | lower));
        }
    }
    let mut source = Source::new(16);
    for _ in 0..500_000 {
        check(f32::from_bits(source.next() as u32));
    }
}

/// `a·b + c` of finite values by the exact arithmetic, rounded once.
fn reference<H: Half>(format: Format, a: u32, b: u32, c: u32) -> Option<u32> {
    let [a, b, c] = [a, b, c].map(|x| f64::from(H::to_f32(x)));
    let exact = (a.is_finite() && b.is_finite() && c.is_finite())
        .then(|| Exact::of_f64(a).times(Exact::of_f64(b)).plus(Exact::of_f64(c), Round::Nearest))?;
    Some(exact.round(format, Round::Nearest) as u32)
}

fn arithmetic<H: Half>(format: Format, seed: u64) {
    let mut source = Source::new(seed);
    for round in 0..1_000_000 {
        let mut x = source.next();
        if round % 3 == 0 {
            // Exponents alike, so that products and addends overlap; or far apart, for sticky bits.
            x = x & !0x7800_7800_7800 | 0x3800_3800_3800;
        }
        let [a, b, c] = [0, 16, 32].map(|shift| (x >> shift & 0xffff) as u32);
        let values = [a, b, c].map(H::to_f32);
        let like_nan = values.iter().any(|v| v.is_nan());
        let expected = match reference::<H>(format, a, b, c) {
            Some(bits) => bits,
            None if like_nan => NAN_F16,
            // Infinities: f32 finds the same infinity or NaN, products being far from its limits only in f16.
            None => H::from_f32((f64::from(values[0]) * f64::from(values[1]) + f64::from(values[2])) as f32),
        };
        assert_eq!(half::fma::<H>(a, b, c, PLAIN), expected, "{values:?}");
        if let Some(sum) = reference::<H>(format, a, H::ONE, c) {
            assert_eq!(half::add::<H>(a, c, PLAIN), sum, "{values:?}");
            assert_eq!(half::sub::<H>(a, c ^ 0x8000, PLAIN), sum);
        }
        if let Some(product) = reference::<H>(format, a, b, 0x8000) {
            assert_eq!(half::mul::<H>(a, b, PLAIN), product, "{values:?}");
        }
    }
}

#[test]
fn arithmetic_is_rounded_once() {
    arithmetic::<F16>(exact::F16, 1);
    arithmetic::<Bf16>(exact::BF16, 2);
}

#[test]
fn bf16_sums_far_below_double_precision_still_count() {
    // 257/256 · 1 lies midway between two bf16 numbers; what is added is lost in f64, but decides.
    let (a, b) = (0x3f81, 0x3f82); // (1 + 2^-7)(1 + 2^-6) = 1 + 3·2^-7 + 2^-13
    let tie = half::fma::<Bf16>(0x3f83, 0x3f80, 0, PLAIN);
    assert_eq!(tie, 0x3f83);
    for (a, b, tiny) in [(a, b, 0x0080), (a, b, 0x8080), (0x3f90, 0x3f88, 0x0001), (0x3f90, 0x3f88, 0x8001)] {
        let expected = reference::<Bf16>(exact::BF16, a, b, tiny).unwrap();
        assert_eq!(half::fma::<Bf16>(a, b, tiny, PLAIN), expected);
    }
    // (1 + 2^-3)(1 + 2^-4) = 1.1953125 needs 8 bits; with half a last place more it is a tie.
    let mut both_ways = 0;
    for a in 0x3f80..0x3fff {
        for b in 0x3f80..0x3fff {
            let [down, up] = [0x8001, 0x0001].map(|tiny| half::fma::<Bf16>(a, b, tiny, PLAIN));
            both_ways += usize::from(down != up);
            assert_eq!(Some(down), reference::<Bf16>(exact::BF16, a, b, 0x8001));
            assert_eq!(Some(up), reference::<Bf16>(exact::BF16, a, b, 0x0001));
        }
    }
    assert!(both_ways > 50, "no ties among the products: the test shows nothing");
}

#[test]
fn modifiers_of_halves() {
    let (relu, saturate, ftz) =
        (HalfMode { relu: true, ..PLAIN }, HalfMode { saturate: true, ..PLAIN }, HalfMode { ftz: true, ..PLAIN });
    let minus_two = 0xc000;
    assert_eq!(half::add::<F16>(minus_two, 0, relu), 0);
    assert_eq!(half::add::<F16>(0x7e01, 0, relu), NAN_F16);
    assert_eq!(half::add::<F16>(0x7e01, 0, saturate), 0);
    assert_eq!(half::add::<F16>(0x4000, 0x4000, saturate), 0x3c00);
    assert_eq!(half::add::<F16>(minus_two, 0, saturate), 0);
    assert_eq!(half::add::<F16>(0x8001, 0x8001, ftz), 0x8000);
    assert_eq!(half::mul::<F16>(0x0400, 0x3800, ftz), 0);
    assert_eq!(half::fma2::<F16>(0x4000_3c00, 0x4200_3c00, 0x3c00_3c00, PLAIN), 0x4700_4000); // 2·3+1, 1·1+1
    assert_eq!(half::add2::<Bf16>(0x4000_3f80, 0x3f80_3f80, PLAIN), 0x4040_4000);
    assert_eq!(half::sub2::<Bf16>(0x4000_3f80, 0x3f80_3f80, PLAIN), 0x3f80_0000);
    assert_eq!(half::mul2::<Bf16>(0x4000_3f80, 0x4000_3f80, PLAIN), 0x4080_3f80);
    assert_eq!(half::neg::<F16>(0x3c00_3c00, true, false), 0xbc00_bc00);
    assert_eq!(half::neg::<F16>(0x3c00, false, false), 0xbc00);
    assert_eq!(half::abs::<Bf16>(0xbf80_bf80, true, false), 0x3f80_3f80);
}

fn extremes<H: Half>() {
    let mut source = Source::new(77);
    for _ in 0..200_000 {
        let x = source.next();
        let (a, b) = ((x & 0xffff) as u32, (x >> 16 & 0xffff) as u32);
        let (p, q) = (H::to_f32(a), H::to_f32(b));
        for max in [false, true] {
            let how = Extreme { max, ..Extreme::default() };
            let got = half::extreme::<H>(a, b, how);
            let expected = match (p.is_nan(), q.is_nan()) {
                (true, true) => NAN_F16,
                (true, false) => b,
                (false, true) => a,
                _ if p == q => {
                    if max {
                        a & b
                    } else {
                        a | b
                    }
                } // differ in the sign of zero only, if at all
                _ => {
                    if (p > q) == max {
                        a
                    } else {
                        b
                    }
                }
            };
            assert_eq!(got, expected, "{a:#x} {b:#x}");
            let nan = half::extreme::<H>(a, b, Extreme { nan: true, ..how });
            assert_eq!(nan, if p.is_nan() || q.is_nan() { NAN_F16 } else { expected });
        }
        let less = compare::halves::<H>(Relation::Less, a, b, false);
        assert_eq!(less, p < q);
    }
    let how = Extreme { max: true, xorsign: true, ..Extreme::default() };
    assert_eq!(half::extreme2::<H>(H::ONE << 16 | 0x8000 | H::ONE, 0x8000_0000, how) & 0x8000_8000, 0x8000_8000);
}

#[test]
fn extremes_of_halves() {
    extremes::<F16>();
    extremes::<Bf16>();
}

#[test]
fn half_approximations_are_within_their_bounds_for_every_argument() {
    for seed in [None, Some(1), Some(2)] {
        let p = Perturbation(seed);
        let mut moved = 0;
        for bits in 0..=0xffffu32 {
            let x = f64::from(F16::to_f32(bits));
            let got = f64::from(F16::to_f32(approx::ex2_half::<F16>(bits, false, PLAIN, p)));
            let exact = x.exp2();
            // A subnormal result, and what overflows, is a matter of rounding, not of the bound.
            if exact.is_finite() && exact > 6.2e-5 && exact < 65_000.0 {
                assert!((got - exact).abs() <= exact * 2f64.powf(-9.9), "ex2 {x} {got}");
                moved += usize::from(got != f64::from(F16::to_f32(F16::from_f32(exact as f32))));
            }
            if !x.is_nan() {
                let got = f64::from(F16::to_f32(approx::tanh_half::<F16>(bits, false, p)));
                assert!((got - x.tanh()).abs() <= 2f64.powf(-10.987), "tanh {x} {got}");
            }
            let x = f64::from(Bf16::to_f32(bits));
            let got = f64::from(Bf16::to_f32(approx::ex2_half::<Bf16>(bits, false, PLAIN, p)));
            let exact = x.exp2();
            if exact > 1.2e-38 && exact < 3e38 {
                assert!((got - exact).abs() <= exact / 128.0, "ex2.bf16 {x} {got}");
            }
            if !x.is_nan() {
                let got = f64::from(Bf16::to_f32(approx::tanh_half::<Bf16>(bits, false, p)));
                assert!((got - x.tanh()).abs() <= 1.0 / 256.0, "tanh.bf16 {x} {got}");
            }
        }
        assert_eq!(moved > 1_000, seed.is_some(), "{moved}");
    }
}
