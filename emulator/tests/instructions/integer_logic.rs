//! Logic, shifts, fields of bits, comparison and selection.

use crate::case::Kind::{self, *};
use crate::case::{Case, Want};

const BITS: [(&str, Kind); 3] = [("b16", U16), ("b32", U32), ("b64", U64)];

fn word(
    body: impl Into<String>,
    inputs: &[Kind],
    output: Kind,
    f: impl Fn(&[u64]) -> u64 + Send + Sync + 'static,
) -> Case {
    Case::new(body, inputs, output, move |x| Want::Bits(output.wrap(f(x) as i128)))
}

pub fn logic() -> Vec<Case> {
    let mut cases = Vec::new();
    for (t, kind) in BITS {
        cases.push(word(format!("and.{t} %d, %a, %b;"), &[kind; 2], kind, |x| x[0] & x[1]));
        cases.push(word(format!("or.{t} %d, %a, %b;"), &[kind; 2], kind, |x| x[0] | x[1]));
        cases.push(word(format!("xor.{t} %d, %a, %b;"), &[kind; 2], kind, |x| x[0] ^ x[1]));
        cases.push(word(format!("not.{t} %d, %a;"), &[kind], kind, |x| !x[0]));
        cases.push(word(format!("cnot.{t} %d, %a;"), &[kind], kind, |x| u64::from(x[0] == 0)));
        cases.push(word(format!("mov.{t} %d, %a;"), &[kind], kind, |x| x[0]));
        cases.push(word(format!("and.{t} %d, %a, 0x55;"), &[kind], kind, |x| x[0] & 0x55));
    }
    let p = Predicate;
    cases.push(word("and.pred %d, %a, %b;", &[p, p], p, |x| x[0] & x[1]));
    cases.push(word("or.pred %d, %a, %b;", &[p, p], p, |x| x[0] | x[1]));
    cases.push(word("xor.pred %d, %a, %b;", &[p, p], p, |x| x[0] ^ x[1]));
    cases.push(word("not.pred %d, %a;", &[p], p, |x| x[0] ^ 1));
    cases.push(word("mov.pred %d, %a;", &[p], p, |x| x[0]));
    cases.push(word("@%a mov.b32 %d, %b; @!%a mov.b32 %d, %c;", &[p, U32, U32], U32, |x| {
        if x[0] == 1 { x[1] } else { x[2] }
    }));
    for table in [0x00u8, 0x80, 0xfe, 0x96, 0xe8, 0xca, 0x1b, 0x3c, 0xff] {
        let bitwise = move |x: &[u64]| {
            (0..32).fold(0u64, |word, i| {
                let index = (x[0] >> i & 1) << 2 | (x[1] >> i & 1) << 1 | x[2] >> i & 1;
                word | u64::from(table >> index & 1) << i
            })
        };
        cases.push(word(format!("lop3.b32 %d, %a, %b, %c, {table};"), &[U32; 3], U32, bitwise));
    }
    // Packing and unpacking of vectors by mov.
    cases.push(word("mov.b32 %d, {%a, %b};", &[U16, U16], U32, |x| x[0] | x[1] << 16));
    cases.push(word("mov.b64 %d, {%a, %b};", &[U32, U32], U64, |x| x[0] | x[1] << 32));
    cases.push(word("mov.b64 %d, {%a, %b, %c, %f};", &[U16; 4], U64, |x| x[0] | x[1] << 16 | x[2] << 32 | x[3] << 48));
    let both = |x: u64, bits: u32, kind: Kind| {
        vec![Want::Bits(kind.wrap(x as i128)), Want::Bits(kind.wrap((x >> bits) as i128))]
    };
    cases.push(Case::with_outputs("mov.b32 {%d, %e}, %a;", &[U32], &[U16; 2], move |x| both(x[0], 16, U16)));
    cases.push(Case::with_outputs("mov.b64 {%d, %e}, %a;", &[U64], &[U32; 2], move |x| both(x[0], 32, U32)));
    cases.push(Case::with_outputs("mov.b64 {%d, _}, %a; mov.b64 {_, %e}, %a;", &[U64], &[U32; 2], move |x| {
        both(x[0], 32, U32)
    }));
    for (body, value) in [
        ("mov.f32 %d, 0f3FC00000;", 0x3fc0_0000u64),
        ("mov.u32 %d, 0b1011;", 11),
        ("mov.b32 %d, -7;", 0xffff_fff9),
        ("mov.u32 %d, 017;", 15),
    ] {
        cases.push(word(body, &[], U32, move |_| value));
    }
    cases.push(word("mov.f64 %d, 0d4000CCCCCCCCCCCD;", &[], U64, |_| 0x4000_cccc_cccc_cccd));
    cases.push(word("mov.u64 %d, 0xFEDCBA9876543210U;", &[], U64, |_| 0xfedc_ba98_7654_3210));
    cases.push(word("mov.u32 %d, (3 + 4) * 2 - (1 << 2) | 1;", &[], U32, |_| 11));
    cases
}

pub fn shifts() -> Vec<Case> {
    let mut cases = Vec::new();
    for (t, kind) in BITS {
        let bits = u64::from(kind.bits());
        cases.push(word(format!("shl.{t} %d, %a, %b;"), &[kind, U32], kind, move |x| {
            if x[1] >= bits { 0 } else { x[0] << x[1] }
        }));
        cases.push(word(format!("shr.{t} %d, %a, %b;"), &[kind, U32], kind, move |x| {
            if x[1] >= bits { 0 } else { x[0] >> x[1] }
        }));
        cases.push(word(format!("shl.{t} %d, %a, 3;"), &[kind], kind, move |x| x[0] << 3));
    }
    for (t, kind) in Kind::INTEGERS {
        let most = i128::from(kind.bits());
        cases.push(word(format!("shr.{t} %d, %a, %b;"), &[kind, U32], kind, move |x| {
            (kind.value(x[0]) >> i128::from(x[1]).min(most)) as u64
        }));
    }
    for (mode, clamp) in [("clamp", true), ("wrap", false)] {
        let distance = move |c: u64| if clamp { c.min(32) } else { c & 31 } as u32;
        cases.push(word(format!("shf.l.{mode}.b32 %d, %a, %b, %c;"), &[U32; 3], U32, move |x| {
            ((u128::from(x[1]) << 32 | u128::from(x[0])) << distance(x[2]) >> 32) as u64
        }));
        cases.push(word(format!("shf.r.{mode}.b32 %d, %a, %b, %c;"), &[U32; 3], U32, move |x| {
            ((u128::from(x[1]) << 32 | u128::from(x[0])) >> distance(x[2])) as u64
        }));
        let size = move |b: u64| if clamp { b.min(32) } else { b & 31 } as u32;
        cases.push(word(format!("szext.{mode}.u32 %d, %a, %b;"), &[U32; 2], U32, move |x| {
            x[0] & ((1u64 << size(x[1])) - 1)
        }));
        cases.push(word(format!("szext.{mode}.s32 %d, %a, %b;"), &[U32; 2], U32, move |x| match size(x[1]) {
            0 => 0,
            n => ((x[0] << (64 - n)) as i64 >> (64 - n)) as u64,
        }));
        cases.push(word(format!("bmsk.{mode}.b32 %d, %a, %b;"), &[U32; 2], U32, move |x| {
            let (start, width) = if clamp { (x[0].min(32), x[1].min(32)) } else { (x[0] & 31, x[1] & 31) };
            (((1u128 << width) - 1) << start) as u64
        }));
    }
    cases
}

pub fn fields() -> Vec<Case> {
    let mut cases = Vec::new();
    for (t, kind) in [("b32", U32), ("b64", U64)] {
        let bits = kind.bits();
        cases.push(word(format!("popc.{t} %d, %a;"), &[kind], U32, |x| u64::from(x[0].count_ones())));
        cases.push(word(format!("clz.{t} %d, %a;"), &[kind], U32, move |x| {
            u64::from(x[0].leading_zeros() - (64 - bits))
        }));
        cases.push(word(format!("brev.{t} %d, %a;"), &[kind], kind, move |x| x[0].reverse_bits() >> (64 - bits)));
        cases.push(word(format!("bfi.{t} %d, %a, %b, %c, %f;"), &[kind, kind, U32, U32], kind, move |x| {
            let (position, length) = (x[2] & 0xff, x[3] & 0xff);
            (0..u64::from(bits)).fold(0, |word, i| {
                let inside = i >= position && i < position + length;
                word | (if inside { x[0] >> (i - position) & 1 } else { x[1] >> i & 1 }) << i
            })
        }));
    }
    for (t, kind) in [("u32", U32), ("s32", S32), ("u64", U64), ("s64", S64)] {
        let most = u64::from(kind.bits()) - 1;
        cases.push(word(format!("bfe.{t} %d, %a, %b, %c;"), &[kind, U32, U32], kind, move |x| {
            let (position, length) = (x[1] & 0xff, x[2] & 0xff);
            let fill = if !kind.signed() || length == 0 { 0 } else { x[0] >> (position + length - 1).min(most) & 1 };
            (0..=most).fold(0, |word, i| {
                let bit = if i < length && position + i <= most { x[0] >> (position + i) & 1 } else { fill };
                word | bit << i
            })
        }));
        // The place of the most significant bit that is not a sign.
        let found = move |x: u64| {
            let looked_for = if kind.signed() && x >> most & 1 == 1 { !x } else { x };
            (0..=most).rev().find(|&i| looked_for >> i & 1 == 1)
        };
        cases.push(word(format!("bfind.{t} %d, %a;"), &[kind], U32, move |x| found(x[0]).unwrap_or(0xffff_ffff)));
        cases.push(word(format!("bfind.shiftamt.{t} %d, %a;"), &[kind], U32, move |x| {
            found(x[0]).map_or(0xffff_ffff, |i| most - i)
        }));
    }
    // The n-th set bit, from a base upwards or downwards.
    cases.push(Case::new("and.b32 %b, %b, 31; fns.b32 %d, %a, %b, %c;", &[U32, U32, S32], U32, |x| {
        let (base, n) = ((x[1] & 31) as i128, S32.value(x[2]));
        if n == 0 {
            return Want::Bits(if x[0] >> base & 1 == 1 { base as u64 } else { 0xffff_ffff });
        }
        let (mut place, mut left) = (base, n.abs());
        while (0..32).contains(&place) {
            if x[0] >> place & 1 == 1 {
                left -= 1;
                if left == 0 {
                    return Want::Bits(place as u64);
                }
            }
            place += n.signum();
        }
        Want::Bits(0xffff_ffff)
    }));
    let bytes = |x: &[u64]| -> Vec<u64> { (0..8).map(|i| x[usize::from(i >= 4)] >> (8 * (i % 4)) & 0xff).collect() };
    cases.push(word("prmt.b32 %d, %a, %b, %c;", &[U32; 3], U32, move |x| {
        let bytes = bytes(x);
        (0..4).fold(0, |word, i| {
            let choice = x[2] >> (4 * i);
            let byte = bytes[(choice & 7) as usize];
            let byte = if choice & 8 == 0 {
                byte
            } else if byte & 0x80 == 0 {
                0
            } else {
                0xff
            };
            word | byte << (8 * i)
        })
    }));
    // For each mode and each value of the selector's two low bits, the bytes taken, least significant first.
    let modes: [(&str, [[usize; 4]; 4]); 6] = [
        ("f4e", [[0, 1, 2, 3], [1, 2, 3, 4], [2, 3, 4, 5], [3, 4, 5, 6]]),
        ("b4e", [[0, 7, 6, 5], [1, 0, 7, 6], [2, 1, 0, 7], [3, 2, 1, 0]]),
        ("rc8", [[0; 4], [1; 4], [2; 4], [3; 4]]),
        ("ecl", [[0, 1, 2, 3], [1, 1, 2, 3], [2, 2, 2, 3], [3, 3, 3, 3]]),
        ("ecr", [[0, 0, 0, 0], [0, 1, 1, 1], [0, 1, 2, 2], [0, 1, 2, 3]]),
        ("rc16", [[0, 1, 0, 1], [2, 3, 2, 3], [0, 1, 0, 1], [2, 3, 2, 3]]),
    ];
    for (mode, table) in modes {
        cases.push(word(format!("prmt.b32.{mode} %d, %a, %b, %c;"), &[U32; 3], U32, move |x| {
            let (bytes, row) = (bytes(x), table[(x[2] & 3) as usize]);
            (0..4).fold(0, |word, i| word | bytes[row[i]] << (8 * i))
        }));
    }
    cases
}

/// Whether a relation holds.
type Relation = fn(i128, i128) -> bool;

/// The relations of integers: signed or unsigned by type; `lo`, `ls`, `hi`, `hs` are unsigned's other names.
fn relations(kind: Kind, bitwise: bool) -> Vec<(&'static str, Relation)> {
    let mut all: Vec<(&str, Relation)> = vec![("eq", |a, b| a == b), ("ne", |a, b| a != b)];
    if bitwise {
        return all;
    }
    all.extend::<[(&str, Relation); 4]>([
        ("lt", |a, b| a < b),
        ("le", |a, b| a <= b),
        ("gt", |a, b| a > b),
        ("ge", |a, b| a >= b),
    ]);
    if !kind.signed() {
        all.extend::<[(&str, Relation); 4]>([
            ("lo", |a, b| a < b),
            ("ls", |a, b| a <= b),
            ("hi", |a, b| a > b),
            ("hs", |a, b| a >= b),
        ]);
    }
    all
}

pub fn comparisons() -> Vec<Case> {
    let mut cases = Vec::new();
    let typed = Kind::INTEGERS.into_iter().map(|(t, kind)| (t, kind, false));
    for (t, kind, bitwise) in typed.chain(BITS.into_iter().map(|(t, kind)| (t, kind, true))) {
        for (name, holds) in relations(kind, bitwise) {
            let truth = move |x: &[u64]| holds(kind.value(x[0]), kind.value(x[1]));
            cases.push(word(format!("setp.{name}.{t} %d, %a, %b;"), &[kind; 2], Predicate, move |x| {
                u64::from(truth(x))
            }));
            cases.push(word(format!("set.{name}.u32.{t} %d, %a, %b;"), &[kind; 2], U32, move |x| {
                if truth(x) { 0xffff_ffff } else { 0 }
            }));
        }
        let equal = |x: &[u64]| u64::from(x[0] == x[1]);
        let three = [kind, kind, Predicate];
        cases.push(word(format!("setp.eq.and.{t} %d, %a, %b, %c;"), &three, Predicate, move |x| equal(x) & x[2]));
        cases.push(word(format!("setp.eq.or.{t} %d, %a, %b, !%c;"), &three, Predicate, move |x| equal(x) | (x[2] ^ 1)));
        cases.push(word(format!("setp.ne.xor.{t} %d, %a, %b, %c;"), &three, Predicate, move |x| equal(x) ^ 1 ^ x[2]));
        cases.push(word(format!("set.eq.and.s32.{t} %d, %a, %b, %c;"), &three, S32, move |x| {
            if equal(x) & x[2] == 1 { u64::MAX } else { 0 }
        }));
        cases.push(word(format!("set.ne.f32.{t} %d, %a, %b;"), &[kind; 2], F32, move |x| {
            if equal(x) == 0 { 0x3f80_0000 } else { 0 }
        }));
        cases.push(Case::with_outputs(format!("setp.eq.{t} %d|%e, %a, %b;"), &[kind; 2], &[Predicate; 2], move |x| {
            vec![Want::Bits(equal(x)), Want::Bits(equal(x) ^ 1)]
        }));
        // The second result combines the opposite relation with the same predicate.
        cases.push(Case::with_outputs(
            format!("setp.eq.and.{t} %d|%e, %a, %b, %c;"),
            &three,
            &[Predicate; 2],
            move |x| vec![Want::Bits(equal(x) & x[2]), Want::Bits((equal(x) ^ 1) & x[2])],
        ));
    }
    cases
}

pub fn selections() -> Vec<Case> {
    let mut cases = Vec::new();
    let floats = [("f32", U32), ("f64", U64)];
    for (t, kind) in BITS.into_iter().chain(Kind::INTEGERS).chain(floats) {
        cases.push(word(format!("selp.{t} %d, %a, %b, %c;"), &[kind, kind, Predicate], kind, |x| {
            if x[2] == 1 { x[0] } else { x[1] }
        }));
        cases.push(word(format!("slct.{t}.s32 %d, %a, %b, %c;"), &[kind, kind, S32], kind, |x| {
            if S32.value(x[2]) >= 0 { x[0] } else { x[1] }
        }));
        // Minus zero counts as zero, NaN as negative.
        let first = |c: u64| f32::from_bits(c as u32) >= 0.0;
        cases.push(word(format!("slct.{t}.f32 %d, %a, %b, %c;"), &[kind, kind, F32], kind, move |x| {
            if first(x[2]) { x[0] } else { x[1] }
        }));
        cases.push(word(format!("slct.ftz.{t}.f32 %d, %a, %b, %c;"), &[kind, kind, F32], kind, move |x| {
            let c = f32::from_bits(x[2] as u32);
            if c.is_subnormal() || c >= 0.0 { x[0] } else { x[1] }
        }));
    }
    cases
}
