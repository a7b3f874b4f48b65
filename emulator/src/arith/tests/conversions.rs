//! `cvt`: each pair of types against a reference by search or by the host's own casts.

use super::Source;
use crate::arith::Round;
use crate::arith::convert::{Conversion, NumberType, convert, convert_packed, convert_pair, pack_saturated, value_of};
use NumberType::*;

const INTEGERS: [(NumberType, i128, i128, u32); 8] = [
    (U8, 0, u8::MAX as i128, 8),
    (S8, i8::MIN as i128, i8::MAX as i128, 8),
    (U16, 0, u16::MAX as i128, 16),
    (S16, i16::MIN as i128, i16::MAX as i128, 16),
    (U32, 0, u32::MAX as i128, 32),
    (S32, i32::MIN as i128, i32::MAX as i128, 32),
    (U64, 0, u64::MAX as i128, 64),
    (S64, i64::MIN as i128, i64::MAX as i128, 64),
];
const FLOATS: [NumberType; 4] = [F16, Bf16, F32, F64];
const ROUNDS: [Round; 4] = [Round::Nearest, Round::Zero, Round::Down, Round::Up];

/// The integer that a register holds.
fn integer(bits: u64, low: i128, width: u32) -> i128 {
    let field = i128::from(bits) & ((1 << width) - 1);
    if low < 0 && field >> (width - 1) & 1 == 1 { field - (1 << width) } else { field }
}

#[test]
fn between_integers() {
    let mut source = Source::new(11);
    for _ in 0..3_000 {
        let bits = source.long();
        for (from, low, _, width) in INTEGERS {
            let value = integer(bits, low, width);
            for (to, low, high, width) in INTEGERS {
                let plain = convert(Conversion::new(to, from), bits);
                assert_eq!(plain, integer(value as u64, low, width) as u64, "{from:?} {to:?} {value}");
                let clamped = convert(Conversion { saturate: true, ..Conversion::new(to, from) }, bits);
                assert_eq!(clamped, value.clamp(low, high) as u64, "{from:?} {to:?} {value}");
            }
        }
    }
}

/// All encodings of a narrow format that are finite, by value.
fn encodings(of: NumberType, count: u64) -> Vec<(f64, u64)> {
    let mut all: Vec<(f64, u64)> = (0..count)
        .map(|bits| if of == Tf32 { bits << 13 } else { bits })
        .map(|bits| (value_of(of, bits, false), bits))
        .filter(|(value, bits)| value.is_finite() && !(*value == 0.0 && *bits != 0))
        .collect();
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    all
}

/// The value of the format that `round` asks for, by search among all of them; None beyond the largest.
fn by_search(all: &[(f64, u64)], value: f64, round: Round) -> Option<f64> {
    let above = all.partition_point(|(v, _)| *v < value);
    let (low, high) = (above.checked_sub(1).map(|i| all[i]), all.get(above).copied());
    if let Some((v, _)) = high.filter(|(v, _)| *v == value) {
        return Some(v);
    }
    let (low, high) = (low?, high?);
    let to_low = match round {
        Round::Zero => value > 0.0,
        Round::Down => true,
        Round::Up => false,
        Round::Nearest | Round::NearestAway => {
            let (below, beyond) = (value - low.0, high.0 - value);
            if below != beyond {
                below < beyond
            } else if round == Round::NearestAway {
                value < 0.0
            } else {
                // Ties go to the even significand: the even encoding, the sign bit aside (tf32: above its unused bits).
                let last = |bits: u64| if all.len() > 100_000 { bits >> 13 & 1 } else { bits & 1 };
                last(low.1) == 0
            }
        }
    };
    Some(if to_low { low.0 } else { high.0 })
}

#[test]
fn narrow_floats_by_search_among_all_their_values() {
    let formats = [(F16, 1 << 16), (Bf16, 1 << 16), (E4m3, 256), (E5m2, 256), (Tf32, 1 << 19)];
    for (to, count) in formats {
        let all = encodings(to, count);
        let mut source = Source::new(count);
        let mut tried = 0;
        for i in 0..60_000u64 {
            // Near values of the format and midway between them, and anything.
            let (place, nudge) = ((source.next() % (all.len() as u64 - 1)) as usize, source.next() % 5);
            let value = match nudge {
                0 => f64::from_bits(source.next()),
                1 => all[place].0,
                2 => (all[place].0 + all[place + 1].0) / 2.0,
                _ => {
                    let middle = (all[place].0 + all[place + 1].0) / 2.0;
                    middle
                        + (middle - all[place].0) * (source.next() % 1000) as f64 / 1e6
                            * if i & 1 == 0 { 1.0 } else { -1.0 }
                }
            };
            let value = f64::from(value as f32);
            let rounds: &[Round] = match to {
                Tf32 => &[Round::NearestAway, Round::Nearest, Round::Zero],
                E4m3 | E5m2 => &[Round::Nearest],
                _ => &ROUNDS,
            };
            for &round in rounds {
                let Some(expected) = by_search(&all, value, round) else { continue };
                let conversion = Conversion::new(to, F32).rounded(round);
                let got = convert(conversion, (value as f32).to_bits().into());
                let finite = convert(Conversion { finite: true, ..conversion }, (value as f32).to_bits().into());
                assert_eq!(value_of(to, got, false), expected, "{value:e} to {to:?} {round:?}");
                assert_eq!(got, finite);
                let wide = convert(Conversion { from: F64, ..conversion }, value.to_bits());
                assert_eq!(wide, got);
                tried += 1;
            }
        }
        assert!(tried > 20_000);
    }
}

#[test]
fn what_is_too_large() {
    let of = |to, round, value: f32| convert(Conversion::new(to, F32).rounded(round), value.to_bits().into());
    assert_eq!(of(F16, Round::Nearest, 65_520.0), 0x7c00);
    assert_eq!(of(F16, Round::Nearest, 65_519.99), 0x7bff);
    assert_eq!(of(F16, Round::Zero, 1e30), 0x7bff);
    assert_eq!(of(F16, Round::Down, 1e30), 0x7bff);
    assert_eq!(of(F16, Round::Up, 1e30), 0x7c00);
    assert_eq!(of(F16, Round::Down, -1e30), 0xfc00);
    assert_eq!(of(Bf16, Round::Nearest, f32::MAX), 0x7f80);
    assert_eq!(of(E4m3, Round::Nearest, 1e6), 0x7e);
    assert_eq!(of(E4m3, Round::Nearest, -f32::INFINITY), 0xfe);
    assert_eq!(of(E4m3, Round::Nearest, 464.0), 0x7e); // the tie with the value that is not there
    let finite =
        |to, value: f32| convert(Conversion { finite: true, ..Conversion::new(to, F32) }, value.to_bits().into());
    assert_eq!(finite(E5m2, 1e6), 0x7b);
    assert_eq!(finite(E5m2, f32::NAN), 0x7f);
    assert_eq!(finite(F16, 1e6), 0x7bff);
    assert_eq!(finite(Tf32, f32::INFINITY), 0x7f7f_e000);
}

#[test]
fn integers_to_floats_round_once_in_every_mode() {
    let mut source = Source::new(13);
    for _ in 0..20_000 {
        let bits = source.long() >> (source.next() % 64);
        for (from, low, _, width) in INTEGERS {
            let value = integer(bits, low, width);
            assert_eq!(convert(Conversion::new(F32, from), bits), u64::from((value as f32).to_bits()));
            assert_eq!(convert(Conversion::new(F64, from), bits), (value as f64).to_bits());
            for to in FLOATS {
                let [nearest, zero, down, up] =
                    ROUNDS.map(|r| value_of(to, convert(Conversion::new(to, from).rounded(r), bits), false));
                // Compared as integers where that is exact: a bracket around the value, at most one place wide.
                let int = |v: f64| if v.is_finite() { v as i128 } else { i128::MAX.wrapping_add(i128::from(v < 0.0)) };
                assert!(int(down) <= value && value <= int(up), "{value} to {to:?}: {down} {up}");
                assert!(nearest == down || nearest == up);
                assert_eq!(zero, if value >= 0 { down } else { up });
            }
        }
    }
}

#[test]
fn floats_to_integers_clamp_and_round() {
    let mut source = Source::new(17);
    for i in 0..20_000 {
        let wide = match i % 4 {
            0 => f64::from_bits(source.next()),
            1 => (source.next() as i64) as f64 / 2.0,
            _ => (source.next() % 4096) as f64 / 8.0 - 256.0,
        };
        for from in FLOATS {
            let bits = convert(Conversion::new(from, F64), wide.to_bits());
            let value = value_of(from, bits, false);
            if value.is_nan() {
                continue;
            }
            for (to, low, high, _) in INTEGERS {
                for round in ROUNDS {
                    let whole = match round {
                        Round::Zero => value.trunc(),
                        Round::Down => value.floor(),
                        Round::Up => value.ceil(),
                        _ => {
                            // The even one of two that are as near.
                            let floor = value.floor();
                            let rest = value - floor;
                            let even = floor % 2.0 == 0.0;
                            if rest > 0.5 || (rest == 0.5 && !even) { floor + 1.0 } else { floor }
                        }
                    };
                    let expected = if whole >= high as f64 {
                        high
                    } else if whole <= low as f64 {
                        low
                    } else {
                        whole as i128
                    };
                    let got = convert(Conversion::new(to, from).rounded(round), bits);
                    assert_eq!(got, expected as u64, "{value} ({from:?}) to {to:?} {round:?}");
                }
            }
        }
    }
    let of = |to, from, bits| convert(Conversion::new(to, from), bits);
    assert_eq!(of(S32, F32, f32::NAN.to_bits().into()), 0);
    assert_eq!(of(S64, F32, f32::NAN.to_bits().into()), 1 << 63);
    assert_eq!(of(U32, F64, f64::NAN.to_bits()), 1 << 31);
    assert_eq!(of(S16, F16, 0x7e00), 0);
}

#[test]
fn floats_to_whole_floats_and_modifiers() {
    let whole = |round, value: f32| {
        let conversion = Conversion { integral: true, ..Conversion::new(F32, F32).rounded(round) };
        f32::from_bits(convert(conversion, value.to_bits().into()) as u32)
    };
    assert_eq!(whole(Round::Nearest, 2.5), 2.0);
    assert_eq!(whole(Round::Up, 2.1), 3.0);
    assert_eq!(whole(Round::Down, -2.1), -3.0);
    assert_eq!(whole(Round::Zero, -0.5).to_bits(), (-0.0f32).to_bits());
    let plain = Conversion::new(F32, F32);
    assert_eq!(convert(Conversion { ftz: true, ..plain }, 0x8000_0001), 0x8000_0000);
    assert_eq!(convert(plain, 0x7f80_0001), 0x7f80_0001);
    assert_eq!(convert(Conversion { saturate: true, ..plain }, f32::NAN.to_bits().into()), 0);
    assert_eq!(convert(Conversion { saturate: true, ..plain }, 7f32.to_bits().into()), u64::from(1f32.to_bits()));
    let relu = Conversion { relu: true, ..Conversion::new(Bf16, F32) };
    assert_eq!(convert(relu, (-3f32).to_bits().into()), 0);
    assert_eq!(convert(relu, f32::NAN.to_bits().into()), 0x7fff);
    assert_eq!(convert(relu, 3f32.to_bits().into()), 0x4040);
    assert_eq!(convert(Conversion { ftz: true, ..Conversion::new(F32, F64) }, 1e-40f64.to_bits()), 0);
    assert_eq!(
        convert(Conversion::new(F64, F32), f32::MIN_POSITIVE.to_bits().into()),
        f64::from(f32::MIN_POSITIVE).to_bits()
    );
}

#[test]
fn packing() {
    let bits = |v: f32| u64::from(v.to_bits());
    assert_eq!(convert_pair(Conversion::new(Bf16, F32), bits(2.0), bits(1.0)), 0x4000_3f80);
    assert_eq!(convert_pair(Conversion::new(F16, F32), bits(-2.0), bits(1.0)), 0xc000_3c00);
    assert_eq!(convert_pair(Conversion::new(E4m3, F32), bits(1.0), bits(-2.0)), 0x38c0);
    assert_eq!(convert_packed(Conversion::new(F16, E4m3), 0x38c0), 0x3c00_c000);
    assert_eq!(convert_packed(Conversion::new(F16, E5m2), 0x3cc0), 0x3c00_c000);
    assert_eq!(convert_packed(Conversion::new(E5m2, F16), 0x3c00_c000), 0x3cc0);
    assert_eq!(pack_saturated(S16, 70_000, -70_000i32 as u32, 0), 0x7fff_8000);
    assert_eq!(pack_saturated(U8, 300, -5i32 as u32, 0x1234_5678), 0x5678_ff00);
}
