//! Integer arithmetic.

use crate::case::Kind::{self, *};
use crate::case::{Case, Want};

/// A case on integers of one kind whose result is that kind's low bits of a whole number.
fn whole(body: String, inputs: &[Kind], output: Kind, f: impl Fn(&[i128]) -> i128 + Send + Sync + 'static) -> Case {
    let kinds = inputs.to_vec();
    Case::new(body, inputs, output, move |x| {
        let values: Vec<i128> = kinds.iter().zip(x).map(|(kind, &bits)| kind.value(bits)).collect();
        Want::Bits(output.wrap(f(&values)))
    })
}

fn wider(kind: Kind) -> Kind {
    match kind {
        S16 => S32,
        U16 => U32,
        S32 => S64,
        U32 => U64,
        other => panic!("nothing is twice {other:?}"),
    }
}

pub fn arithmetic() -> Vec<Case> {
    let mut cases = Vec::new();
    for (t, kind) in Kind::INTEGERS {
        let bits = kind.bits();
        let two = [kind, kind];
        let three = [kind, kind, kind];
        cases.push(whole(format!("add.{t} %d, %a, %b;"), &two, kind, |x| x[0] + x[1]));
        cases.push(whole(format!("sub.{t} %d, %a, %b;"), &two, kind, |x| x[0] - x[1]));
        cases.push(whole(format!("mul.lo.{t} %d, %a, %b;"), &two, kind, |x| x[0].wrapping_mul(x[1])));
        cases.push(whole(format!("mul.hi.{t} %d, %a, %b;"), &two, kind, move |x| high(x[0], x[1], kind)));
        cases.push(whole(format!("mad.lo.{t} %d, %a, %b, %c;"), &three, kind, |x| {
            x[0].wrapping_mul(x[1]).wrapping_add(x[2])
        }));
        cases.push(whole(format!("mad.hi.{t} %d, %a, %b, %c;"), &three, kind, move |x| high(x[0], x[1], kind) + x[2]));
        if bits < 64 {
            let wide = wider(kind);
            cases.push(whole(format!("mul.wide.{t} %d, %a, %b;"), &two, wide, |x| x[0] * x[1]));
            cases.push(whole(format!("mad.wide.{t} %d, %a, %b, %c;"), &[kind, kind, wide], wide, |x| {
                x[0] * x[1] + x[2]
            }));
        }
        for (name, rest) in [("div", false), ("rem", true)] {
            // By zero, and of the least by minus one, the manual leaves the result open.
            cases.push(Case::new(format!("{name}.{t} %d, %a, %b;"), &two, kind, move |x| {
                let (a, b) = (kind.value(x[0]), kind.value(x[1]));
                if b == 0 || (kind.signed() && a == kind.least() && b == -1) {
                    return Want::Any;
                }
                Want::Bits(kind.wrap(if rest { a % b } else { a / b }))
            }));
        }
        cases.push(whole(format!("sad.{t} %d, %a, %b, %c;"), &three, kind, |x| x[2] + (x[0] - x[1]).abs()));
        cases.push(whole(format!("min.{t} %d, %a, %b;"), &two, kind, |x| x[0].min(x[1])));
        cases.push(whole(format!("max.{t} %d, %a, %b;"), &two, kind, |x| x[0].max(x[1])));
        if kind.signed() {
            cases.push(whole(format!("abs.{t} %d, %a;"), &[kind], kind, |x| x[0].abs()));
            cases.push(whole(format!("neg.{t} %d, %a;"), &[kind], kind, |x| -x[0]));
        }
        // With an immediate in the second place.
        cases.push(whole(format!("add.{t} %d, %a, 77;"), &[kind], kind, |x| x[0] + 77));
        if kind.signed() {
            cases.push(whole(format!("sub.{t} %d, %a, -3;"), &[kind], kind, |x| x[0] + 3));
        }
    }
    let clamp = |v: i128| v.clamp(S32.least(), S32.greatest());
    cases.push(whole("add.sat.s32 %d, %a, %b;".into(), &[S32; 2], S32, move |x| clamp(x[0] + x[1])));
    cases.push(whole("sub.sat.s32 %d, %a, %b;".into(), &[S32; 2], S32, move |x| clamp(x[0] - x[1])));
    cases.push(whole("mad.hi.sat.s32 %d, %a, %b, %c;".into(), &[S32; 3], S32, move |x| {
        clamp(high(x[0], x[1], S32) + x[2])
    }));
    for (t, kind) in [("s32", S32), ("u32", U32)] {
        // 24 bits of each factor, signed or not; the low or the high 32 of the 48 bits of the product.
        let product = move |a: i128, b: i128| {
            let cut = |v: i128| if kind.signed() { i128::from((v as i32) << 8 >> 8) } else { v & 0xff_ffff };
            cut(a) * cut(b)
        };
        cases.push(whole(format!("mul24.lo.{t} %d, %a, %b;"), &[kind; 2], kind, move |x| product(x[0], x[1])));
        cases.push(whole(format!("mul24.hi.{t} %d, %a, %b;"), &[kind; 2], kind, move |x| product(x[0], x[1]) >> 16));
        cases.push(whole(format!("mad24.lo.{t} %d, %a, %b, %c;"), &[kind; 3], kind, move |x| {
            product(x[0], x[1]) + x[2]
        }));
        cases.push(whole(format!("mad24.hi.{t} %d, %a, %b, %c;"), &[kind; 3], kind, move |x| {
            (product(x[0], x[1]) >> 16) + x[2]
        }));
    }
    cases.push(whole("mad24.hi.sat.s32 %d, %a, %b, %c;".into(), &[S32; 3], S32, move |x| {
        let cut = |v: i128| i128::from((v as i32) << 8 >> 8);
        clamp(((cut(x[0]) * cut(x[1])) >> 16) + x[2])
    }));
    cases
}

/// The upper half of a product of twice the width.
fn high(a: i128, b: i128, kind: Kind) -> i128 {
    if kind == U64 { ((a as u128).wrapping_mul(b as u128) >> 64) as i128 } else { (a * b) >> kind.bits() }
}

/// Sums of many words: each line carries from one instruction to the next.
pub fn carries() -> Vec<Case> {
    let mut cases = Vec::new();
    for (bits, kind) in [(32, U32), (64, U64)] {
        let joined = move |high: u64, low: u64| u128::from(high) << bits | u128::from(low);
        let halves = move |v: u128| vec![Want::Bits(kind.wrap(v as i128)), Want::Bits(kind.wrap((v >> bits) as i128))];
        for t in ["u", "s"] {
            cases.push(Case::with_outputs(
                format!("add.cc.{t}{bits} %d, %a, %c; addc.{t}{bits} %e, %b, %f;"),
                &[kind; 4],
                &[kind; 2],
                move |x| halves(joined(x[1], x[0]).wrapping_add(joined(x[3], x[2]))),
            ));
            cases.push(Case::with_outputs(
                format!("sub.cc.{t}{bits} %d, %a, %c; subc.{t}{bits} %e, %b, %f;"),
                &[kind; 4],
                &[kind; 2],
                move |x| halves(joined(x[1], x[0]).wrapping_sub(joined(x[3], x[2]))),
            ));
            // The carry out of the second instruction shows in a third.
            cases.push(Case::with_outputs(
                format!("add.cc.{t}{bits} %d, %a, %c; addc.cc.{t}{bits} %e, %b, %f; addc.{t}{bits} %d, 0, 0;"),
                &[kind; 4],
                &[kind; 2],
                move |x| {
                    let (low, first) = add_words(x[0], x[2], false, bits);
                    let (high, second) = add_words(x[1], x[3], first, bits);
                    let _ = low;
                    vec![Want::Bits(u64::from(second)), Want::Bits(high)]
                },
            ));
            cases.push(Case::with_outputs(
                format!("sub.cc.{t}{bits} %d, %a, %c; subc.cc.{t}{bits} %e, %b, %f; subc.{t}{bits} %d, 0, 0;"),
                &[kind; 4],
                &[kind; 2],
                move |x| {
                    let borrow = x[0] < x[2];
                    let high = x[1].wrapping_sub(x[3]).wrapping_sub(u64::from(borrow));
                    let again = u128::from(x[1]) < u128::from(x[3]) + u128::from(borrow);
                    vec![Want::Bits(kind.wrap(-i128::from(again))), Want::Bits(kind.wrap(high as i128))]
                },
            ));
            // After a subtraction the flag says that nothing was borrowed, as in the sum with the complement.
            cases.push(Case::with_outputs(
                format!("sub.cc.{t}{bits} %d, %a, %b; addc.{t}{bits} %e, %c, %f;"),
                &[kind; 4],
                &[kind; 2],
                move |x| {
                    let sum = i128::from(x[2]) + i128::from(x[3]) + i128::from(x[0] >= x[1]);
                    vec![Want::Bits(kind.wrap(i128::from(x[0]) - i128::from(x[1]))), Want::Bits(kind.wrap(sum))]
                },
            ));
            cases.push(Case::with_outputs(
                format!("add.cc.{t}{bits} %d, %a, %b; subc.{t}{bits} %e, %c, %f;"),
                &[kind; 4],
                &[kind; 2],
                move |x| {
                    let (sum, carry) = add_words(x[0], x[1], false, bits);
                    let difference = i128::from(x[2]) - i128::from(x[3]) - i128::from(!carry);
                    vec![Want::Bits(sum), Want::Bits(kind.wrap(difference))]
                },
            ));
            cases.push(Case::with_outputs(
                format!("mad.hi.cc.{t}{bits} %d, %a, %b, %c; addc.{t}{bits} %e, 0, 0;"),
                &[kind; 3],
                &[kind; 2],
                move |x| {
                    let of = match (t, bits) {
                        ("s", 32) => S32,
                        ("s", _) => S64,
                        (_, 32) => U32,
                        _ => U64,
                    };
                    let upper = of.wrap(high(of.value(x[0]), of.value(x[1]), of));
                    let (sum, carry) = add_words(upper, x[2], false, bits);
                    vec![Want::Bits(sum), Want::Bits(u64::from(carry))]
                },
            ));
            cases.push(Case::with_outputs(
                format!("mad.lo.cc.{t}{bits} %d, %a, %b, %c; madc.hi.{t}{bits} %e, %a, %b, %f;"),
                &[kind; 4],
                &[kind; 2],
                move |x| {
                    let (low, carry) = add_words(kind.wrap(x[0].wrapping_mul(x[1]) as i128), x[2], false, bits);
                    let signed = t == "s";
                    let kind = match (signed, bits) {
                        (true, 32) => S32,
                        (true, _) => S64,
                        (false, 32) => U32,
                        (false, _) => U64,
                    };
                    let upper = kind.wrap(high(kind.value(x[0]), kind.value(x[1]), kind));
                    let (sum, _) = add_words(upper, x[3], carry, bits);
                    vec![Want::Bits(low), Want::Bits(sum)]
                },
            ));
            cases.push(Case::with_outputs(
                format!("add.cc.{t}{bits} %d, %a, %c; madc.lo.cc.{t}{bits} %e, %a, %b, %f; addc.{t}{bits} %d, 0, 0;"),
                &[kind; 4],
                &[kind; 2],
                move |x| {
                    let (_, carry) = add_words(x[0], x[2], false, bits);
                    let product = kind.wrap(x[0].wrapping_mul(x[1]) as i128);
                    let (sum, again) = add_words(product, x[3], carry, bits);
                    vec![Want::Bits(u64::from(again)), Want::Bits(sum)]
                },
            ));
        }
    }
    cases
}

fn add_words(a: u64, b: u64, carry: bool, bits: u32) -> (u64, bool) {
    let sum = u128::from(a) + u128::from(b) + u128::from(carry);
    ((sum & (u128::MAX >> (128 - bits))) as u64, sum >> bits != 0)
}

/// Sums of four and of two products of small integers, and of distances.
pub fn dot_products() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, bits) in [("vabsdiff4", 8), ("vabsdiff2", 16)] {
        let distances = move |x: &[u64]| -> Vec<u64> {
            let part = |word: u64, i: u32| word >> (i * bits) & ((1 << bits) - 1);
            (0..32 / bits).map(|i| part(x[0], i).abs_diff(part(x[1], i))).collect()
        };
        cases.push(Case::new(format!("{name}.u32.u32.u32 %d, %a, %b, %c;"), &[U32; 3], U32, move |x| {
            Want::Bits(distances(x).iter().rev().fold(0, |word, part| word << bits | part))
        }));
        cases.push(Case::new(format!("{name}.u32.u32.u32.add %d, %a, %b, %c;"), &[U32; 3], U32, move |x| {
            Want::Bits(U32.wrap((distances(x).iter().sum::<u64>() + x[2]) as i128))
        }));
    }
    let byte = |word: u64, i: u32, signed: bool| {
        let bits = (word >> (8 * i)) as u8;
        if signed { i128::from(bits as i8) } else { i128::from(bits) }
    };
    for (s, a_signed) in [("s32", true), ("u32", false)] {
        for (t, b_signed) in [("s32", true), ("u32", false)] {
            let sum = if a_signed || b_signed { S32 } else { U32 };
            cases.push(Case::new(format!("dp4a.{s}.{t} %d, %a, %b, %c;"), &[U32, U32, sum], sum, move |x| {
                let dot: i128 = (0..4).map(|i| byte(x[0], i, a_signed) * byte(x[1], i, b_signed)).sum();
                Want::Bits(sum.wrap(dot + sum.value(x[2])))
            }));
            for (half, first) in [("lo", 0), ("hi", 2)] {
                cases.push(Case::new(
                    format!("dp2a.{half}.{s}.{t} %d, %a, %b, %c;"),
                    &[U32, U32, sum],
                    sum,
                    move |x| {
                        let short = |i: u32| if a_signed { S16 } else { U16 }.value(x[0] >> (16 * i) & 0xffff);
                        let dot: i128 = (0..2).map(|i| short(i) * byte(x[1], first + i, b_signed)).sum();
                        Want::Bits(sum.wrap(dot + sum.value(x[2])))
                    },
                ));
            }
        }
    }
    cases
}

/// Pairs of 16-bit integers, and the minimum with zero: sm_90.
pub fn packed() -> Vec<Case> {
    let mut cases = Vec::new();
    for (t, half) in [("u16x2", U16), ("s16x2", S16)] {
        let each = move |x: &[u64], f: fn(i128, i128) -> i128| {
            let part =
                |shift: u32| half.wrap(f(half.value(x[0] >> shift & 0xffff), half.value(x[1] >> shift & 0xffff)));
            Want::Bits(part(0) | part(16) << 16)
        };
        cases.push(Case::new(format!("add.{t} %d, %a, %b;"), &[U32; 2], U32, move |x| each(x, |a, b| a + b)));
        cases.push(Case::new(format!("min.{t} %d, %a, %b;"), &[U32; 2], U32, move |x| each(x, |a, b| a.min(b))));
        cases.push(Case::new(format!("max.{t} %d, %a, %b;"), &[U32; 2], U32, move |x| each(x, |a, b| a.max(b))));
    }
    let relu = |x: &[u64], f: fn(i128, i128) -> i128| {
        let part =
            |shift: u32| S16.wrap(f(S16.value(x[0] >> shift & 0xffff), S16.value(x[1] >> shift & 0xffff)).max(0));
        Want::Bits(part(0) | part(16) << 16)
    };
    cases.push(Case::new("min.relu.s16x2 %d, %a, %b;", &[U32; 2], U32, move |x| relu(x, |a, b| a.min(b))));
    cases.push(Case::new("max.relu.s16x2 %d, %a, %b;", &[U32; 2], U32, move |x| relu(x, |a, b| a.max(b))));
    cases.push(whole("min.relu.s32 %d, %a, %b;".into(), &[S32; 2], S32, |x| x[0].min(x[1]).max(0)));
    cases.push(whole("max.relu.s32 %d, %a, %b;".into(), &[S32; 2], S32, |x| x[0].max(x[1]).max(0)));
    cases
}
