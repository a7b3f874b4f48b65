//! Fragments against the manual's formulas, shape by shape as it states them; products against plain loops.

#![allow(clippy::needless_range_loop, reason = "lanes and values index several arrays at once")]

use super::WarpRegister;
use super::layout::matrix_cell;
use super::matrix::{Rows, to_fragment, to_rows, transpose};
use super::mma::{Accumulator, Element, Mma, Sums, mma, mma_any, mma_f64};
use super::row::Plain;
use crate::arith::exact::{self, Exact};
use crate::arith::half::{Bf16, F16, Half};
use crate::arith::tests::Source;
use crate::arith::{NAN_F32, Round};

/// A formula of the manual: (group, lane in group, element) → index.
type Formula = fn(usize, usize, usize) -> usize;

/// A shape as the manual describes it: element type, k, elements of A and B to a lane, rows and columns of A, rows of
/// B. Columns of B are always the group; C is the same for all.
struct Shape {
    element: Element,
    k: usize,
    counts: (usize, usize),
    a_row: Formula,
    a_column: Formula,
    b_row: Formula,
}

/// Below `limit` the group, else 8 further.
macro_rules! rows {
    ($i:ident: $upper:expr) => {
        |g, _, $i| if $upper { g } else { g + 8 }
    };
}

/// The same for both kinds of halves.
const HALVES_K16: Shape = Shape {
    element: Element::Bf16,
    k: 16,
    counts: (8, 4),
    a_row: rows!(i: i < 2 || (4..6).contains(&i)),
    a_column: |_, t, i| if i < 4 { t * 2 + (i & 1) } else { t * 2 + (i & 1) + 8 },
    b_row: |_, t, i| if i < 2 { t * 2 + (i & 1) } else { t * 2 + (i & 1) + 8 },
};

const SHAPES: [Shape; 8] = [
    HALVES_K16,
    Shape { element: Element::F16, ..HALVES_K16 },
    Shape {
        element: Element::Bf16,
        k: 8,
        counts: (4, 2),
        a_row: rows!(i: i < 2),
        a_column: |_, t, i| t * 2 + (i & 1),
        b_row: |_, t, i| t * 2 + i,
    },
    Shape {
        element: Element::Tf32,
        k: 4,
        counts: (2, 1),
        a_row: rows!(i: i == 0),
        a_column: |_, t, _| t,
        b_row: |_, t, _| t,
    },
    Shape {
        element: Element::Tf32,
        k: 8,
        counts: (4, 2),
        a_row: rows!(i: i == 0 || i == 2),
        a_column: |_, t, i| if i < 2 { t } else { t + 4 },
        b_row: |_, t, i| if i == 0 { t } else { t + 4 },
    },
    Shape {
        element: Element::S8,
        k: 16,
        counts: (8, 4),
        a_row: rows!(i: i < 4),
        a_column: |_, t, i| t * 4 + (i & 3),
        b_row: |_, t, i| t * 4 + i,
    },
    Shape {
        element: Element::U8,
        k: 32,
        counts: (16, 8),
        a_row: rows!(i: i < 4 || (8..12).contains(&i)),
        a_column: |_, t, i| if i < 8 { t * 4 + (i & 3) } else { t * 4 + (i & 3) + 16 },
        b_row: |_, t, i| if i < 4 { t * 4 + (i & 3) } else { t * 4 + (i & 3) + 16 },
    },
    Shape {
        element: Element::S4,
        k: 64,
        counts: (32, 16),
        a_row: rows!(i: i < 8 || (16..24).contains(&i)),
        a_column: |_, t, i| if i < 16 { t * 8 + (i & 7) } else { t * 8 + (i & 7) + 32 },
        b_row: |_, t, i| if i < 8 { t * 8 + (i & 7) } else { t * 8 + (i & 7) + 32 },
    },
];

/// Row and column of value `i` of C.
fn c_place(lane: usize, i: usize) -> (usize, usize) {
    let (g, t) = (lane >> 2, lane % 4);
    (if i < 2 { g } else { g + 8 }, t * 2 + (i & 1))
}

/// The encoding of a small whole number.
fn encode(element: Element, value: i32) -> u32 {
    match element {
        Element::Bf16 => Bf16::from_f32(value as f32),
        Element::F16 => F16::from_f32(value as f32),
        Element::Tf32 => (value as f32).to_bits(),
        Element::S8 | Element::U8 => value as u32 & 0xff,
        _ => value as u32 & 0xf,
    }
}

/// Registers that hold `count` elements of each lane, as `value(lane, i)` gives them.
fn registers(element: Element, count: usize, value: impl Fn(usize, usize) -> u32) -> Vec<WarpRegister> {
    let each = element.per_register();
    let bits = 32 / each;
    (0..count / each)
        .map(|r| std::array::from_fn(|lane| (0..each).fold(0, |w, e| w | value(lane, r * each + e) << (bits * e % 32))))
        .collect()
}

fn refs(registers: &[WarpRegister]) -> Vec<&WarpRegister> {
    registers.iter().collect()
}

#[test]
fn whole_numbers_multiply_exactly_in_every_shape() {
    let mut source = Source::new(8);
    for shape in &SHAPES {
        let (element, k) = (shape.element, shape.k);
        let (low, high) = match element {
            Element::U8 => (0, 255),
            Element::S8 => (-128, 127),
            Element::S4 => (-8, 7),
            _ => (-63, 63),
        };
        let mut number = || low + (source.next() % (high - low + 1) as u64) as i32;
        let a: Vec<Vec<i32>> = (0..16).map(|_| (0..k).map(|_| number()).collect()).collect();
        let b: Vec<Vec<i32>> = (0..k).map(|_| (0..8).map(|_| number()).collect()).collect();
        let c: Vec<Vec<i32>> = (0..16).map(|_| (0..8).map(|_| number()).collect()).collect();
        let a_registers = registers(element, shape.counts.0, |lane, i| {
            let (g, t) = (lane >> 2, lane % 4);
            encode(element, a[(shape.a_row)(g, t, i)][(shape.a_column)(g, t, i)])
        });
        let b_registers = registers(element, shape.counts.1, |lane, i| {
            let (g, t) = (lane >> 2, lane % 4);
            encode(element, b[(shape.b_row)(g, t, i)][g])
        });
        let integers = element.is_integer();
        let accumulators: &[Accumulator] = match element {
            _ if integers => &[Accumulator::S32],
            Element::F16 => &[Accumulator::F32, Accumulator::F16],
            _ => &[Accumulator::F32],
        };
        for &kind in accumulators {
            let value = |v: i32| if integers { v as u32 } else { (v as f32).to_bits() };
            let c_registers = if kind == Accumulator::F16 {
                registers(Element::F16, 4, |lane, i| encode(Element::F16, c[c_place(lane, i).0][c_place(lane, i).1]))
            } else {
                registers(Element::Tf32, 4, |lane, i| value(c[c_place(lane, i).0][c_place(lane, i).1]))
            };
            let what = Mma { a: element, b: element, k, c: kind, d: kind, saturate: false };
            assert_eq!((what.a_registers(), what.b_registers()), (a_registers.len(), b_registers.len()));
            for sums in [Sums::Exact, Sums::Truncated(1), Sums::Truncated(7)] {
                let mut d = vec![[0; 32]; kind.registers()];
                mma(what, &refs(&a_registers), &refs(&b_registers), &refs(&c_registers), &mut d, sums);
                for lane in 0..32 {
                    for i in 0..4 {
                        let (row, column) = c_place(lane, i);
                        let product: i32 = (0..k).map(|j| a[row][j] * b[j][column]).sum();
                        let total = product + c[row][column];
                        if kind == Accumulator::F16 {
                            let got = d[i / 2][lane] >> (16 * (i % 2)) & 0xffff;
                            assert_eq!(got, F16::from_f32(total as f32), "k {k} lane {lane} value {i}");
                        } else {
                            assert_eq!(d[i][lane], value(total), "{element:?} k {k} lane {lane} value {i} {sums:?}");
                        }
                    }
                }
            }
        }
    }
}

/// A product of bf16 with values of all sizes; its fragments and, for each value of D, the terms that make it.
fn wide_product(seed: u64) -> (Vec<WarpRegister>, Vec<WarpRegister>, Vec<WarpRegister>, Vec<Vec<f64>>) {
    let mut source = Source::new(seed);
    // Exponents from 2^-12 to 2^11, both signs.
    let mut number = || {
        let x = source.next() as u32;
        (x & 0x807f) | (127 - 12 + (x >> 16) % 24) << 7
    };
    let a: Vec<u32> = (0..256).map(|_| number()).collect();
    let b: Vec<u32> = (0..128).map(|_| number()).collect();
    let c: Vec<u32> = (0..128).map(|_| number() << 16).collect();
    let shape = &SHAPES[0];
    let a_registers = registers(Element::Bf16, 8, |lane, i| {
        let (g, t) = (lane >> 2, lane % 4);
        a[16 * (shape.a_row)(g, t, i) + (shape.a_column)(g, t, i)]
    });
    let b_registers = registers(Element::Bf16, 4, |lane, i| {
        let (g, t) = (lane >> 2, lane % 4);
        b[8 * (shape.b_row)(g, t, i) + g]
    });
    let place = |lane, i| 8 * c_place(lane, i).0 + c_place(lane, i).1;
    let c_registers = registers(Element::Tf32, 4, |lane, i| c[place(lane, i)]);
    let value = |bits| f64::from(Bf16::to_f32(bits));
    let terms = (0..128)
        .map(|n| {
            let (lane, i) = (n / 4, n % 4);
            let (row, column) = c_place(lane, i);
            let products = (0..16).map(|j| value(a[16 * row + j]) * value(b[8 * j + column]));
            std::iter::once(f64::from(f32::from_bits(c[place(lane, i)]))).chain(products).collect()
        })
        .collect();
    (a_registers, b_registers, c_registers, terms)
}

const BF16: Mma =
    Mma { a: Element::Bf16, b: Element::Bf16, k: 16, c: Accumulator::F32, d: Accumulator::F32, saturate: false };

#[test]
fn exact_sums_are_rounded_once() {
    for seed in 0..200 {
        let (a, b, c, terms) = wide_product(seed);
        let mut d = [[0; 32]; 4];
        mma(BF16, &refs(&a), &refs(&b), &refs(&c), &mut d, Sums::Exact);
        for (n, terms) in terms.iter().enumerate() {
            let sum = terms.iter().map(|t| Exact::of_f64(*t)).reduce(|s, t| s.plus(t, Round::Nearest)).unwrap();
            assert_eq!(u64::from(d[n % 4][n / 4]), sum.round(exact::F32, Round::Nearest), "{terms:?}");
        }
    }
}

#[test]
fn truncated_sums_stay_within_their_bound_and_differ() {
    let (mut differ, mut largest, mut toward_zero) = (0, 0f64, 0);
    for seed in 0..200 {
        let (a, b, c, terms) = wide_product(seed);
        let mut d = [[0; 32]; 4];
        mma(BF16, &refs(&a), &refs(&b), &refs(&c), &mut d, Sums::Truncated(seed));
        for (n, terms) in terms.iter().enumerate() {
            let exact: f64 = terms.iter().sum();
            let got = f64::from(f32::from_bits(d[n % 4][n / 4]));
            // In each of at most four groups, 5 terms lose less than 2^-23 of the largest intermediate value, which is
            // less than the sum of all magnitudes, and so does the truncation to f32; 17 terms in one group, likewise.
            let size: f64 = terms.iter().map(|t| t.abs()).sum();
            let error = (got - exact).abs();
            assert!(error <= 24.0 * 2f64.powi(-23) * size, "{error:e} of {size:e}");
            largest = largest.max(error / size);
            differ += usize::from(got as f32 != exact as f32);
            toward_zero += usize::from(got.abs() < exact.abs());
        }
    }
    assert!(differ > 10_000, "{differ} of 25600 differ from the exact sums");
    assert!(largest > 2f64.powi(-24) && toward_zero > differ / 2, "{largest:e} {toward_zero}");
}

#[test]
fn vector_code_and_portable_code_agree_on_all_bits() {
    for seed in 0..100 {
        let mut source = Source::new(seed);
        let mut random = || -> Vec<WarpRegister> { (0..4).map(|_| std::array::from_fn(|_| source.word())).collect() };
        let (a, b, c) = (random(), random(), random());
        for sums in [Sums::Exact, Sums::Truncated(seed)] {
            let (mut fast, mut plain) = ([[0; 32]; 4], [[0; 32]; 4]);
            mma(BF16, &refs(&a), &refs(&b[..2]), &refs(&c), &mut fast, sums);
            mma_any::<Plain>(BF16, &refs(&a), &refs(&b[..2]), &refs(&c), &mut plain, sums);
            assert_eq!(fast, plain);
        }
    }
}

#[test]
fn special_values_pass_through_in_every_mode() {
    let inf = 0x7f80;
    for sums in [Sums::Exact, Sums::Truncated(3)] {
        let run = |a0: u32, b0: u32, c0: u32| {
            let a = registers(Element::Bf16, 8, |lane, i| if lane == 0 && i == 0 { a0 } else { 0x3f80 });
            let b = registers(Element::Bf16, 4, |lane, i| if lane == 0 && i == 0 { b0 } else { 0x3f80 });
            let c = registers(Element::Tf32, 4, |lane, i| if lane == 0 && i == 0 { c0 } else { 0 });
            let mut d = [[0; 32]; 4];
            mma(BF16, &refs(&a), &refs(&b), &refs(&c), &mut d, sums);
            d[0][0]
        };
        assert_eq!(run(0x3f80, 0x3f80, 0), 16f32.to_bits());
        assert_eq!(run(inf, 0x3f80, 0), 0x7f80_0000);
        assert_eq!(run(inf, 0, 0), NAN_F32);
        assert_eq!(run(inf, 0x3f80, 0xff80_0000), NAN_F32);
        assert_eq!(run(0x7fc0, 0, 0), NAN_F32);
        assert_eq!(run(0x3f80, 0x3f80, 0x7f80_0000), 0x7f80_0000);
    }
}

#[test]
fn integer_sums_clamp_or_wrap() {
    let what = Mma { a: Element::S8, b: Element::S8, k: 16, c: Accumulator::S32, d: Accumulator::S32, saturate: true };
    let ones = registers(Element::S8, 8, |_, _| 1);
    let b = registers(Element::S8, 4, |_, _| 1);
    let c = vec![[i32::MAX as u32 - 3; 32]; 4];
    for (saturate, expected) in [(true, i32::MAX), (false, i32::MIN + 12)] {
        let mut d = [[0; 32]; 4];
        mma(Mma { saturate, ..what }, &refs(&ones), &refs(&b), &refs(&c), &mut d, Sums::Exact);
        assert_eq!(d, [[expected as u32; 32]; 4]);
    }
}

#[test]
fn doubles_multiply() {
    // A is row by row 4 to a row, B column by column: element (k, n) sits in lane 4n + k.
    let a: [u64; 32] = std::array::from_fn(|lane| (lane as f64 + 1.0).to_bits());
    let b: [u64; 32] = std::array::from_fn(|lane| (lane as f64 * 0.5 - 3.0).to_bits());
    let c: [u64; 32] = std::array::from_fn(|lane| (lane as f64 * 100.0).to_bits());
    let d = mma_f64(&a, &b, [&c, &c]);
    for lane in 0..32 {
        for i in 0..2 {
            let (row, column) = (lane >> 2, lane % 4 * 2 + i);
            let sum: f64 = (0..4).map(|k| ((4 * row + k) as f64 + 1.0) * ((4 * column + k) as f64 * 0.5 - 3.0)).sum();
            assert_eq!(f64::from_bits(d[i][lane]), sum + lane as f64 * 100.0);
        }
    }
}

#[test]
fn matrices_move_between_rows_and_fragments() {
    // The element of row r and column c is 16 r + c.
    let rows: Rows =
        std::array::from_fn(|r| std::array::from_fn(|w| (16 * r + 2 * w) as u32 | ((16 * r + 2 * w + 1) as u32) << 16));
    let plain = to_fragment(&rows, false);
    let turned = to_fragment(&rows, true);
    for t in 0..32 {
        // The manual's figure: thread t holds elements 2 (t mod 4) and the next of row t / 4; transposed, of column t / 4.
        let (r, c) = (t / 4, 2 * (t % 4));
        assert_eq!(plain[t], (16 * r + c) as u32 | ((16 * r + c + 1) as u32) << 16);
        assert_eq!(turned[t], (16 * c + r) as u32 | ((16 * (c + 1) + r) as u32) << 16);
        assert_eq!((matrix_cell(t, 1, true).row, matrix_cell(t, 1, true).column), (c + 1, r));
    }
    assert_eq!(to_rows(&plain, false), rows);
    assert_eq!(to_rows(&turned, true), rows);
    assert_eq!(transpose(&plain), turned);
    assert_eq!(transpose(&turned), plain);
}
