//! `mma` of integers, of bytes that are floats, and of doubles, by the layouts of the PTX manual.

use crate::case::Kind::*;
use crate::case::{Case, Want};
use crate::exact::{self, Round};

/// The elements of A and B that a lane holds: `i` counts through its registers.
fn a_place(width: usize, i: usize, group: usize, member: usize) -> (usize, usize) {
    let per_register = 32 / width;
    let (register, within) = (i / per_register, i % per_register);
    (group + 8 * (register % 2), member * per_register + within + register / 2 * 4 * per_register)
}

fn b_place(width: usize, i: usize, group: usize, member: usize) -> (usize, usize) {
    let per_register = 32 / width;
    let (register, within) = (i / per_register, i % per_register);
    (member * per_register + within + register * 4 * per_register, group)
}

/// What an element stands for.
fn value(t: &str, bits: u64) -> i64 {
    match t {
        "s8" => i64::from(bits as u8 as i8),
        "u8" => i64::from(bits as u8),
        "s4" => i64::from((bits as u8) << 4) as i8 as i64 >> 4,
        "u4" => (bits & 15) as i64,
        other => panic!("{other}"),
    }
}

/// All sums of one product, as the 4 results of each lane.
fn sums(
    width: usize,
    k: usize,
    warp: &[Vec<u64>],
    a: impl Fn(u64) -> f64,
    b: impl Fn(u64) -> f64,
    c: impl Fn(&[u64], usize) -> f64,
) -> Vec<[f64; 4]> {
    let per_register = 32 / width;
    let (of_a, of_b) = (k / (2 * per_register), k / (4 * per_register));
    let element = |word: u64, i: usize| word >> (i % per_register * width) & (u64::MAX >> (64 - width));
    let (mut left, mut right) = (vec![vec![0.0; k]; 16], vec![vec![0.0; 8]; k]);
    for (lane, x) in warp.iter().enumerate() {
        for i in 0..of_a * per_register {
            let (row, column) = a_place(width, i, lane / 4, lane % 4);
            left[row][column] = a(element(x[i / per_register], i));
        }
        for i in 0..of_b * per_register {
            let (row, column) = b_place(width, i, lane / 4, lane % 4);
            right[row][column] = b(element(x[of_a + i / per_register], i));
        }
    }
    (0..32usize)
        .map(|lane| {
            std::array::from_fn(|i| {
                let (row, column) = (lane / 4 + if i < 2 { 0 } else { 8 }, lane % 4 * 2 + i % 2);
                let products = (0..k).map(|j| left[row][j] * right[j][column]);
                c(&warp[lane][of_a + of_b..], i) + products.sum::<f64>()
            })
        })
        .collect()
}

const NAMES: [&str; 10] = ["%a", "%b", "%c", "%f", "%i4", "%i5", "%i6", "%i7", "%i8", "%i9"];

fn lists(of_a: usize, of_b: usize, of_c: usize) -> String {
    let list = |from: usize, count: usize| format!("{{{}}}", NAMES[from..from + count].join(", "));
    format!("{}, {}, {}", list(0, of_a), list(of_a, of_b), list(of_a + of_b, of_c))
}

pub fn integers() -> Vec<Case> {
    let mut cases = Vec::new();
    for (width, types, depths) in [(8, ["s8", "u8"], [16, 32]), (4, ["s4", "u4"], [32, 64])] {
        for (a, b) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            let (a, b) = (types[a], types[b]);
            for (k, saturate) in depths.into_iter().flat_map(|k| [(k, false), (k, true)]) {
                let (of_a, of_b) = (k * width / 64, k * width / 128);
                let text = format!(
                    "mma.sync.aligned.m16n8k{k}.row.col{}.s32.{a}.{b}.s32 {{%d, %e, %g, %h}}, {};",
                    if saturate { ".satfinite" } else { "" },
                    lists(of_a, of_b, 4)
                );
                let inputs = [vec![U32; of_a + of_b], vec![S32; 4]].concat();
                cases.push(Case::of_group(text, &inputs, &[S32; 4], 32, move |warp| {
                    let number = |t: &'static str| move |bits: u64| value(t, bits) as f64;
                    let of_c = |c: &[u64], i: usize| f64::from(c[i] as u32 as i32);
                    // Sums stay far below 2^53: doubles hold them exactly.
                    let sums = sums(width, k, warp, number(a), number(b), of_c);
                    let bits = |sum: f64| if saturate { sum as i32 as u32 } else { sum as i64 as u32 };
                    sums.iter().map(|lane| lane.map(|sum| Want::Bits(bits(sum).into())).to_vec()).collect()
                }));
            }
        }
    }
    cases
}

/// Bytes that stand for 0 to 7, by type.
fn bytes(t: &str) -> [u8; 8] {
    match t {
        "e4m3" => [0, 0x38, 0x40, 0x44, 0x48, 0x4a, 0x4c, 0x4e],
        _ => [0, 0x3c, 0x40, 0x42, 0x44, 0x45, 0x46, 0x47],
    }
}

/// Replaces the register `%x` of any bits by four floats from -7 to 7.
fn whole(t: &str, x: &str) -> String {
    let bytes = bytes(t);
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four"));
    format!(
        "and.b32 %s, {x}, 0x80808080; and.b32 {x}, {x}, 0x7777; prmt.b32 {x}, 0x{:x}, 0x{:x}, {x}; or.b32 {x}, {x}, %s; ",
        word(0),
        word(4)
    )
}

/// What byte `i` of such a register stands for.
fn number(bits: u64, i: usize) -> f64 {
    let size = (bits >> (4 * i) & 7) as f64;
    if bits >> (8 * i + 7) & 1 != 0 { -size } else { size }
}

/// fp8, of sm_89. The numbers are small and whole, so that every order of summing is exact.
pub fn bytes_that_are_floats() -> Vec<Case> {
    let mut cases = Vec::new();
    for a in ["e4m3", "e5m2"] {
        for b in ["e4m3", "e5m2"] {
            for (k, narrow) in [(16, false), (16, true), (32, false), (32, true)] {
                let (of_a, of_b, of_c) = (k / 8, k / 16, if narrow { 2 } else { 4 });
                let made: String = (0..of_a + of_b).map(|i| whole(if i < of_a { a } else { b }, NAMES[i])).collect();
                let (sum, d) = if narrow { ("f16", "{%d, %e}") } else { ("f32", "{%d, %e, %g, %h}") };
                let text = format!(
                    "{{ .reg .b32 %s; {made} mma.sync.aligned.m16n8k{k}.row.col.{sum}.{a}.{b}.{sum} {d}, {}; }}",
                    lists(of_a, of_b, of_c)
                );
                let c_kind = if narrow { SmallHalves } else { SmallSingle };
                let inputs = [vec![U32; of_a + of_b], vec![c_kind; of_c]].concat();
                let out = if narrow { F16x2 } else { F32 };
                cases.push(Case::of_group(text, &inputs, &vec![out; of_c], 32, move |warp| {
                    // Registers of which each byte is the number of its value.
                    let coded: Vec<Vec<u64>> = warp
                        .iter()
                        .map(|x| {
                            let code = |bits: u64| {
                                (0..4).fold(0, |word, i| word | u64::from((number(bits, i) as i8) as u8) << (8 * i))
                            };
                            x.iter()
                                .enumerate()
                                .map(|(i, &bits)| if i < of_a + of_b { code(bits) } else { bits })
                                .collect()
                        })
                        .collect();
                    let byte = |bits: u64| f64::from(bits as u8 as i8);
                    let of_c = |c: &[u64], i: usize| match narrow {
                        true => exact::approximately(exact::HALF.decode(c[i / 2] >> (16 * (i % 2)) & 0xffff, false)),
                        false => f64::from(f32::from_bits(c[i] as u32)),
                    };
                    let bits = |format: exact::Format, sum: f64| {
                        format.encode(exact::DOUBLE.decode((sum + 0.0).to_bits(), false), Round::Nearest, false)
                    };
                    let one = |lane: &[f64; 4]| match narrow {
                        true => [0, 2]
                            .map(|i| bits(exact::HALF, lane[i]) | bits(exact::HALF, lane[i + 1]) << 16)
                            .map(Want::Bits)
                            .to_vec(),
                        false => lane.map(|sum| Want::Bits(bits(exact::SINGLE, sum))).to_vec(),
                    };
                    sums(8, k, &coded, byte, byte, of_c).iter().map(one).collect()
                }));
            }
        }
    }
    cases
}

/// `m8n8k4` of doubles.
pub fn doubles() -> Vec<Case> {
    let text = "{ .reg .f64 %x0, %x1, %x2, %x3; cvt.f64.f32 %x0, %a; cvt.f64.f32 %x1, %b; cvt.f64.f32 %x2, %c; cvt.f64.f32 %x3, %f; \
                mma.sync.aligned.m8n8k4.row.col.f64.f64.f64.f64 {%d, %e}, {%x0}, {%x1}, {%x2, %x3}; }";
    vec![Case::of_group(text, &[SmallSingle; 4], &[F64; 2], 32, |warp| {
        let number = |lane: usize, i: usize| f64::from(f32::from_bits(warp[lane][i] as u32));
        let d = |row: usize, column: usize, c: f64| {
            c + (0..4).map(|k| number(4 * row + k, 0) * number(4 * column + k, 1)).sum::<f64>()
        };
        let bits = |sum: f64| Want::Bits((sum + 0.0).to_bits());
        (0..32usize)
            .map(|lane| (0..2).map(|i| bits(d(lane / 4, lane % 4 * 2 + i, number(lane, 2 + i)))).collect())
            .collect()
    })]
}
