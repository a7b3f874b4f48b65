//! Conversions between all types.

use crate::case::Kind::{self, *};
use crate::case::{Case, Want};
use crate::exact::{self, Format, Number, Round, integer, to_integral};
use crate::float::rounded;

const INTEGERS: [(&str, Kind); 8] =
    [("s8", S8), ("u8", U8), ("s16", S16), ("u16", U16), ("s32", S32), ("u32", U32), ("s64", S64), ("u64", U64)];

const FLOATS: [(&str, Kind, Format); 3] =
    [("f16", F16, exact::HALF), ("f32", F32, exact::SINGLE), ("f64", F64, exact::DOUBLE)];

/// The modes of rounding to a whole number.
const INTEGRAL: [(&str, Round); 4] =
    [("rni", Round::Nearest), ("rzi", Round::Zero), ("rmi", Round::Down), ("rpi", Round::Up)];

/// The register that a narrow result fills: 16 bits for 8, extended by the sign of the type.
fn register(kind: Kind) -> Kind {
    match kind {
        S8 => S16,
        U8 => U16,
        other => other,
    }
}

pub fn integers() -> Vec<Case> {
    let mut cases = Vec::new();
    for (d, to) in INTEGERS {
        for (s, from) in INTEGERS {
            let out = register(to);
            cases.push(Case::new(format!("cvt.{d}.{s} %d, %a;"), &[from], out, move |x| {
                Want::Bits(out.wrap(to.value(to.wrap(from.value(x[0])))))
            }));
            // Where nothing can be out of range, there is no such instruction.
            if to.least() > from.least() || to.greatest() < from.greatest() {
                cases.push(Case::new(format!("cvt.sat.{d}.{s} %d, %a;"), &[from], out, move |x| {
                    Want::Bits(out.wrap(from.value(x[0]).clamp(to.least(), to.greatest())))
                }));
            }
        }
    }
    // The pair of saturated values, below what the third operand brings.
    for (t, kind, bits) in [("s8", S8, 8), ("u8", U8, 8)] {
        cases.push(Case::new(format!("cvt.pack.sat.{t}.s32.b32 %d, %a, %b, %c;"), &[S32, S32, U32], U32, move |x| {
            let part = |bits: u64| kind.wrap(S32.value(bits).clamp(kind.least(), kind.greatest()));
            Want::Bits(part(x[1]) | part(x[0]) << bits | (x[2] & 0xffff) << 16)
        }));
    }
    for (t, kind) in [("s16", S16), ("u16", U16)] {
        cases.push(Case::new(format!("cvt.pack.sat.{t}.s32 %d, %a, %b;"), &[S32; 2], U32, move |x| {
            let part = |bits: u64| kind.wrap(S32.value(bits).clamp(kind.least(), kind.greatest()));
            Want::Bits(part(x[1]) | part(x[0]) << 16)
        }));
    }
    cases
}

pub fn floats_to_integers() -> Vec<Case> {
    let mut cases = Vec::new();
    for (s, from, format) in FLOATS {
        for (d, to) in INTEGERS {
            for (name, round) in INTEGRAL {
                for flush in if from == F32 { vec![false, true] } else { vec![false] } {
                    let ftz = if flush { ".ftz" } else { "" };
                    let out = register(to);
                    cases.push(Case::new(format!("cvt.{name}{ftz}.{d}.{s} %d, %a;"), &[from], out, move |x| {
                        Want::Bits(out.wrap(to.value(to.wrap(whole(format.decode(x[0], flush), round, from, to)))))
                    }));
                }
            }
        }
    }
    cases
}

/// The whole number, clamped to the type. NaN is zero, or for 64-bit types the least of a signed type's bits.
fn whole(value: Number, round: Round, from: Kind, to: Kind) -> i128 {
    match to_integral(value, round) {
        Number::Nan if from == F64 || to.bits() == 64 => 1i128 << (to.bits() - 1),
        Number::Nan => 0,
        Number::Infinite { negative } => {
            if negative {
                to.least()
            } else {
                to.greatest()
            }
        }
        Number::Finite { negative, mantissa, exponent, .. } => {
            let shifted = if mantissa == 0 {
                0
            } else if exponent > 70 {
                i128::MAX
            } else {
                (mantissa << exponent.max(0) >> (-exponent).max(0)) as i128
            };
            (if negative { -shifted } else { shifted }).clamp(to.least(), to.greatest())
        }
    }
}

pub fn integers_to_floats() -> Vec<Case> {
    let mut cases = Vec::new();
    for (d, to, format) in FLOATS {
        for (s, from) in INTEGERS {
            for (name, round) in Round::NAMED {
                cases.push(Case::new(format!("cvt.{name}.{d}.{s} %d, %a;"), &[from], to, move |x| {
                    Want::Bits(format.encode(integer(from.value(x[0])), round, false))
                }));
            }
        }
    }
    cases
}

pub fn floats() -> Vec<Case> {
    let mut cases = Vec::new();
    for (d, to, target) in FLOATS {
        for (s, from, source) in FLOATS {
            let flushes: &[bool] = if from == F32 || to == F32 { &[false, true] } else { &[false] };
            for &flush in flushes {
                let ftz = if flush { ".ftz" } else { "" };
                // Only fp32 is flushed: an input or a result of that type.
                let (of_input, of_result) = (flush && from == F32, flush && to == F32);
                if to == from {
                    for (name, round) in INTEGRAL {
                        for saturate in [false, true] {
                            let sat = if saturate { ".sat" } else { "" };
                            cases.push(Case::new(
                                format!("cvt.{name}{ftz}{sat}.{d}.{s} %d, %a;"),
                                &[from],
                                to,
                                move |x| {
                                    let value = to_integral(source.decode(x[0], of_input), round);
                                    rounded(target, value, Round::Nearest, of_result, saturate)
                                },
                            ));
                        }
                    }
                    cases.push(Case::new(format!("cvt{ftz}.sat.{d}.{s} %d, %a;"), &[from], to, move |x| {
                        rounded(target, source.decode(x[0], of_input), Round::Nearest, of_result, true)
                    }));
                } else {
                    let narrower = to.bits() < from.bits();
                    let modes: &[(&str, Round)] = if narrower { &Round::NAMED } else { &[("", Round::Nearest)] };
                    for &(name, round) in modes {
                        for saturate in [false, true] {
                            let sat = if saturate { ".sat" } else { "" };
                            let mode = if name.is_empty() { String::new() } else { format!(".{name}") };
                            cases.push(Case::new(
                                format!("cvt{mode}{ftz}{sat}.{d}.{s} %d, %a;"),
                                &[from],
                                to,
                                move |x| rounded(target, source.decode(x[0], of_input), round, of_result, saturate),
                            ));
                        }
                    }
                }
            }
        }
    }
    cases
}

/// bf16 and tf32, scalar and in pairs, with and without the negative cut off.
pub fn narrow_floats() -> Vec<Case> {
    let mut cases = Vec::new();
    for (d, pair, to, packed, format) in
        [("bf16", "bf16x2", Bf16, Bf16x2, exact::BFLOAT), ("f16", "f16x2", F16, F16x2, exact::HALF)]
    {
        for (name, round) in [("rn", Round::Nearest), ("rz", Round::Zero)] {
            for relu in [false, true] {
                let suffix = if relu { ".relu" } else { "" };
                let narrowed = move |bits: u64| {
                    let result = format.encode(exact::SINGLE.decode(bits, false), round, false);
                    // Minus zero becomes plus zero as well.
                    if relu && !format.is_nan(result) && result & format.sign_bit() != 0 { 0 } else { result }
                };
                cases.push(Case::new(format!("cvt.{name}{suffix}.{d}.f32 %d, %a;"), &[F32], to, move |x| {
                    Want::Bits(narrowed(x[0]))
                }));
                // The first operand goes to the upper half.
                cases.push(Case::new(
                    format!("cvt.{name}{suffix}.{pair}.f32 %d, %a, %b;"),
                    &[F32; 2],
                    packed,
                    move |x| Want::Bits(narrowed(x[1]) | narrowed(x[0]) << 16),
                ));
            }
        }
    }
    let tf32 = Format { precision: 11, exponent_bits: 8 };
    // What the lowest 13 bits hold is left open.
    cases.push(Case::new("cvt.rna.tf32.f32 %d, %a; and.b32 %d, %d, 0xffffe000;", &[F32], F32, move |x| {
        Want::Bits(tf32.encode(exact::SINGLE.decode(x[0], false), Round::NearestAway, false) << 13)
    }));
    cases
}

/// bf16 to and from everything else: sm_90.
pub fn bfloat_of_sm_90() -> Vec<Case> {
    let mut cases = Vec::new();
    let bfloat = exact::BFLOAT;
    cases.push(Case::new("cvt.f32.bf16 %d, %a;", &[Bf16], F32, |x| Want::Bits(x[0] << 16)));
    // There are none to and from 8 bits.
    let wide = INTEGERS.into_iter().filter(|(_, kind)| kind.bits() > 8);
    for (s, from) in wide.clone() {
        for (name, round) in Round::NAMED {
            cases.push(Case::new(format!("cvt.{name}.bf16.{s} %d, %a;"), &[from], Bf16, move |x| {
                Want::Bits(bfloat.encode(integer(from.value(x[0])), round, false))
            }));
        }
    }
    for (d, to) in wide {
        for (name, round) in INTEGRAL {
            let out = register(to);
            cases.push(Case::new(format!("cvt.{name}.{d}.bf16 %d, %a;"), &[Bf16], out, move |x| {
                Want::Bits(out.wrap(to.value(to.wrap(whole(bfloat.decode(x[0], false), round, Bf16, to)))))
            }));
        }
    }
    for (s, from, source) in [("f16", F16, exact::HALF), ("f64", F64, exact::DOUBLE)] {
        for (name, round) in Round::NAMED {
            cases.push(Case::new(format!("cvt.{name}.bf16.{s} %d, %a;"), &[from], Bf16, move |x| {
                Want::Bits(bfloat.encode(source.decode(x[0], false), round, false))
            }));
        }
    }
    for (d, to, target) in [("f16", F16, exact::HALF)] {
        for (name, round) in Round::NAMED {
            cases.push(Case::new(format!("cvt.{name}.{d}.bf16 %d, %a;"), &[Bf16], to, move |x| {
                Want::Bits(target.encode(bfloat.decode(x[0], false), round, false))
            }));
        }
    }
    cases.push(Case::new("cvt.f64.bf16 %d, %a;", &[Bf16], F64, move |x| {
        Want::Bits(exact::DOUBLE.encode(bfloat.decode(x[0], false), Round::Nearest, false))
    }));
    let tf32 = Format { precision: 11, exponent_bits: 8 };
    for (name, round) in [("rn", Round::Nearest), ("rz", Round::Zero)] {
        for relu in [false, true] {
            let suffix = if relu { ".relu" } else { "" };
            cases.push(Case::new(
                format!("cvt.{name}{suffix}.tf32.f32 %d, %a; and.b32 %d, %d, 0xffffe000;"),
                &[F32],
                F32,
                move |x| {
                    let result = tf32.encode(exact::SINGLE.decode(x[0], false), round, false);
                    Want::Bits(if relu && !tf32.is_nan(result) && result & tf32.sign_bit() != 0 {
                        0
                    } else {
                        result << 13
                    })
                },
            ));
        }
    }
    cases
}
