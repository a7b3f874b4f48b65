//! Arithmetic on the bytes or halves of a word.

use crate::case::Kind::*;
use crate::case::{Case, Want};

/// Each operation, with each mixture of signs, as it is, saturated, and summed up.
pub fn simd() -> Vec<Case> {
    type Operation = fn(i64, i64) -> i64;
    let operations: [(&str, Operation); 6] = [
        ("vadd", |x, y| x + y),
        ("vsub", |x, y| x - y),
        ("vavrg", |x, y| (x + y + 1).div_euclid(2)),
        ("vabsdiff", |x, y| (x - y).abs()),
        ("vmin", i64::min),
        ("vmax", i64::max),
    ];
    let mut cases = Vec::new();
    for (name, operation) in operations {
        for (count, signs) in [2usize, 4].into_iter().flat_map(|count| (0..8).map(move |signs| (count, signs))) {
            let signed = [1, 2, 4].map(|bit| signs & bit != 0);
            let [d, a, b] = signed.map(|signed| if signed { "s32" } else { "u32" });
            for suffix in ["", ".sat", ".add"] {
                let width = 32 / count;
                let text = format!("{name}{count}.{d}.{a}.{b}{suffix} %d, %a, %b, %c;");
                cases.push(Case::new(text, &[U32; 3], U32, move |x| {
                    let element = |word: u64, i: usize, signed: bool| {
                        let bits = (word >> (i * width)) as i64 & ((1 << width) - 1);
                        if signed && bits >> (width - 1) == 1 { bits - (1 << width) } else { bits }
                    };
                    let results =
                        (0..count).map(|i| operation(element(x[0], i, signed[1]), element(x[1], i, signed[2])));
                    if suffix == ".add" {
                        return Want::Bits(results.fold(x[2] as i64, |sum, value| sum + value) as u32 as u64);
                    }
                    let (least, most) =
                        if signed[0] { (-(1 << (width - 1)), (1 << (width - 1)) - 1) } else { (0, (1 << width) - 1) };
                    Want::Bits(results.enumerate().fold(0, |word, (i, value)| {
                        let value = if suffix == ".sat" { value.clamp(least, most) } else { value };
                        word | (value as u64 & ((1 << width) - 1)) << (i * width)
                    }))
                }));
            }
        }
    }
    cases
}
