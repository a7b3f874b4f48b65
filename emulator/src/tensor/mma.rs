//! `mma.sync` of the `m16n8` shapes: D = A · B + C.
//!
//! Fragments are spread into tiles once, multiplied there in plain loops that vectorise over the eight columns, and
//! gathered again. Products of all supported formats are exact in f64.

#![allow(clippy::needless_range_loop, reason = "rows, columns and lanes index several arrays at once")]

use super::WarpRegister;
use super::layout::c_cell;
use super::row::{Plain, Row};
use crate::arith::convert::{NumberType, value_of};
use crate::arith::half::{Bf16, F16, Half, round_to_odd};
use crate::arith::{NAN_F32, approx::mix};

/// Type of the elements of A or B.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names of PTX")]
pub enum Element {
    F16,
    Bf16,
    /// The low 13 bits of the register are ignored.
    Tf32,
    E4m3,
    E5m2,
    S8,
    U8,
    S4,
    U4,
}

/// Type of C and D.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names of PTX")]
pub enum Accumulator {
    F16,
    F32,
    S32,
}

/// A multiplication of matrices, 16 × k times k × 8.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Mma {
    /// Elements of A.
    pub a: Element,
    /// Elements of B: as wide as those of A.
    pub b: Element,
    /// Columns of A.
    pub k: usize,
    /// Type of C.
    pub c: Accumulator,
    /// Type of D.
    pub d: Accumulator,
    /// `.satfinite` of integers: the sum is clamped, it does not wrap.
    pub saturate: bool,
}

/// How the products are added up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sums {
    /// In index order, in f64, rounded to nearest once at the end.
    Exact,
    /// As tensor cores do, in a way chosen by the seed: products in another order, in groups of 4, 8 or 16; in a group
    /// all terms are cut off at the same place, at or up to 2 bits below the last place of the largest; each group's
    /// sum is truncated to f32.
    Truncated(u64),
}

impl Element {
    /// Elements to a register.
    pub const fn per_register(self) -> usize {
        match self {
            Element::Tf32 => 1,
            Element::F16 | Element::Bf16 => 2,
            Element::E4m3 | Element::E5m2 | Element::S8 | Element::U8 => 4,
            Element::S4 | Element::U4 => 8,
        }
    }

    /// Whether products are of integers.
    pub const fn is_integer(self) -> bool {
        matches!(self, Element::S8 | Element::U8 | Element::S4 | Element::U4)
    }
}

impl Accumulator {
    /// Registers of a fragment.
    pub const fn registers(self) -> usize {
        if matches!(self, Accumulator::F16) { 2 } else { 4 }
    }
}

impl Mma {
    /// Registers of A's fragment.
    pub const fn a_registers(self) -> usize {
        self.k / (2 * self.a.per_register())
    }

    /// Registers of B's fragment.
    pub const fn b_registers(self) -> usize {
        self.k / (4 * self.b.per_register())
    }
}

/// The tiles that a warp's fragments spread into. B is held row by row, so that a row of eight is two vectors.
struct Tiles<T, const K: usize> {
    a: [[T; K]; 16],
    b: [[T; 8]; K],
    c: [[T; 8]; 16],
}

/// Multiplies. `a`, `b`, `c` hold the fragments' registers, `d` takes as many as [`Mma::d`] has.
pub fn mma(
    mma: Mma,
    a: &[&WarpRegister],
    b: &[&WarpRegister],
    c: &[&WarpRegister],
    d: &mut [WarpRegister],
    sums: Sums,
) {
    debug_assert!(a.len() == mma.a_registers() && b.len() == mma.b_registers());
    debug_assert!(c.len() == mma.c.registers() && d.len() == mma.d.registers());
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has just been found to have these instructions.
        return unsafe { mma_avx2(mma, a, b, c, d, sums) };
    }
    mma_any::<Plain>(mma, a, b, c, d, sums);
}

/// The same code, compiled for AVX2. Without FMA: a fused product would be no different, all products being exact.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn mma_avx2(
    mma: Mma,
    a: &[&WarpRegister],
    b: &[&WarpRegister],
    c: &[&WarpRegister],
    d: &mut [WarpRegister],
    sums: Sums,
) {
    mma_any::<super::row::Avx>(mma, a, b, c, d, sums);
}

#[inline(always)]
pub(super) fn mma_any<R: Row>(
    mma: Mma,
    a: &[&WarpRegister],
    b: &[&WarpRegister],
    c: &[&WarpRegister],
    d: &mut [WarpRegister],
    sums: Sums,
) {
    // One instance for each shape: all bounds are constants, all loops unroll and vectorise.
    match (mma.a, mma.k) {
        (Element::Bf16, 16) => floats::<R, 16, 2>(mma, a, b, c, d, sums, bf16),
        (Element::Bf16, _) => floats::<R, 8, 2>(mma, a, b, c, d, sums, bf16),
        (Element::F16, 16) => floats::<R, 16, 2>(mma, a, b, c, d, sums, f16),
        (Element::F16, _) => floats::<R, 8, 2>(mma, a, b, c, d, sums, f16),
        (Element::Tf32, 8) => floats::<R, 8, 1>(mma, a, b, c, d, sums, tf32),
        (Element::Tf32, _) => floats::<R, 4, 1>(mma, a, b, c, d, sums, tf32),
        (Element::S4 | Element::U4, 64) => integers::<64, 8>(mma, a, b, c, d),
        (Element::S4 | Element::U4, _) => integers::<32, 8>(mma, a, b, c, d),
        (Element::S8 | Element::U8, 32) => integers::<32, 4>(mma, a, b, c, d),
        (Element::S8 | Element::U8, _) => integers::<16, 4>(mma, a, b, c, d),
        (Element::E4m3 | Element::E5m2, 32) => floats::<R, 32, 4>(mma, a, b, c, d, sums, f8),
        (Element::E4m3 | Element::E5m2, _) => floats::<R, 16, 4>(mma, a, b, c, d, sums, f8),
    }
}

/// The value of a bf16.
#[inline(always)]
fn bf16(_: Element, bits: u32) -> f64 {
    Bf16::to_f32(bits).into()
}

/// The value of an f16.
#[inline(always)]
fn f16(_: Element, bits: u32) -> f64 {
    F16::to_f32(bits).into()
}

/// The value of a tf32.
#[inline(always)]
fn tf32(_: Element, bits: u32) -> f64 {
    f32::from_bits(bits & !0x1fff).into()
}

/// The value of an 8-bit float.
#[inline(always)]
fn f8(element: Element, bits: u32) -> f64 {
    value_of(if element == Element::E4m3 { NumberType::E4m3 } else { NumberType::E5m2 }, bits.into(), false)
}

#[inline(always)]
fn floats<R: Row, const K: usize, const E: usize>(
    mma: Mma,
    a: &[&WarpRegister],
    b: &[&WarpRegister],
    c: &[&WarpRegister],
    d: &mut [WarpRegister],
    sums: Sums,
    decode: impl Fn(Element, u32) -> f64,
) {
    let mut tiles = Tiles { a: [[0.0; K]; 16], b: [[0.0; 8]; K], c: [[0.0; 8]; 16] };
    spread::<f64, K, E>(mma, a, b, &mut tiles, decode);
    for lane in 0..32 {
        for index in 0..4 {
            let cell = c_cell(lane, index);
            tiles.c[cell.row][cell.column] = match mma.c {
                Accumulator::F16 => F16::to_f32(c[index / 2][lane] >> (16 * (index % 2)) & 0xffff).into(),
                _ => f32::from_bits(c[index][lane]).into(),
            };
        }
    }
    let Tiles { a, b, c: sum } = &mut tiles;
    let way = match sums {
        Sums::Exact => None,
        Sums::Truncated(seed) => Some(Truncation::<K>::new(seed, mma)),
    };
    let mut rows = [R::splat(0.0); K];
    for (row, values) in rows.iter_mut().zip(b) {
        *row = R::load(values);
    }
    for (row, sum) in a.iter().zip(sum.iter_mut()) {
        let mut total = R::load(sum);
        match &way {
            None => {
                for i in 0..K {
                    total = total.plus(R::splat(row[i]).times(rows[i]));
                }
            }
            Some(way) => total = way.add(row, &rows, total),
        }
        *sum = total.store();
    }
    for lane in 0..32 {
        for index in 0..4 {
            let cell = c_cell(lane, index);
            let value = tiles.c[cell.row][cell.column];
            match mma.d {
                Accumulator::F16 => {
                    let half = F16::from_f32(round_to_odd(value, 0.0));
                    let register = &mut d[index / 2][lane];
                    *register = if index % 2 == 0 { half } else { *register | half << 16 };
                }
                _ => d[index][lane] = if value.is_nan() { NAN_F32 } else { (value as f32).to_bits() },
            }
        }
    }
}

/// Puts the elements of A and B in their places.
#[inline(always)]
fn spread<T: Copy, const K: usize, const E: usize>(
    mma: Mma,
    a: &[&WarpRegister],
    b: &[&WarpRegister],
    tiles: &mut Tiles<T, K>,
    decode: impl Fn(Element, u32) -> T,
) {
    // In the order of lanes and, within a register, of bits, a row of A takes 4 · E neighbours, and so does a column of B.
    for register in 0..K / (2 * E) {
        let values = elements::<T, E>(a[register], |bits| decode(mma.a, bits));
        for (group, values) in values.chunks_exact(4).enumerate() {
            let from = register / 2 * 4 * E;
            tiles.a[group + 8 * (register % 2)][from..from + 4 * E].copy_from_slice(values.as_flattened());
        }
    }
    for register in 0..K / (4 * E) {
        let values = elements::<T, E>(b[register], |bits| decode(mma.b, bits));
        for (group, values) in values.chunks_exact(4).enumerate() {
            for (i, value) in values.as_flattened().iter().enumerate() {
                tiles.b[register * 4 * E + i][group] = *value;
            }
        }
    }
}

/// The elements of a register, lane by lane.
#[inline(always)]
fn elements<T: Copy, const E: usize>(words: &WarpRegister, decode: impl Fn(u32) -> T) -> [[T; E]; 32] {
    let bits = 32 / E;
    let mask = u32::MAX >> (32 - bits);
    words.map(|word| std::array::from_fn(|index| decode(word >> (bits * index) & mask)))
}

/// One way in which tensor cores may add.
struct Truncation<const K: usize> {
    /// The order of the products.
    order: [u8; K],
    /// Products added to the running sum together.
    group: usize,
    /// 2^-23, 2^-24 or 2^-25: the place where terms are cut off, relative to the power of two of the largest.
    cut: f64,
}

impl<const K: usize> Truncation<K> {
    fn new(seed: u64, mma: Mma) -> Self {
        let mut state = mix(seed ^ (K as u64) << 8 ^ mma.a as u64);
        let mut next = |below: u64| {
            state = mix(state);
            state % below
        };
        let mut order: [u8; K] = std::array::from_fn(|i| i as u8);
        for i in (1..K).rev() {
            order.swap(i, next(i as u64 + 1) as usize);
        }
        let group = [4, 8, 16][next(3) as usize];
        let cut = f64::from_bits((1023 - 23 - next(3)) << 52);
        Truncation { order, group, cut }
    }

    /// Adds a row of A times B to a row of sums.
    #[inline(always)]
    fn add<R: Row>(&self, row: &[f64; K], b: &[R; K], mut sum: R) -> R {
        // Plain loops: a closure handed to an iterator would be compiled without the instructions that `R` uses.
        let mut products = [sum; K];
        for (product, &i) in products.iter_mut().zip(&self.order) {
            *product = R::splat(row[i as usize % K]).times(b[i as usize % K]);
        }
        for group in products.chunks(self.group) {
            let mut largest = R::splat(1e-200).larger(sum);
            for product in group {
                largest = largest.larger(*product);
            }
            let sizes = largest.store();
            if sizes.iter().any(|x| x.is_infinite()) {
                // No place to cut off at: IEEE's rules decide between infinity and NaN.
                for product in group {
                    sum = sum.plus(*product);
                }
                continue;
            }
            // The power of two of the largest term; its inverse, by subtraction of exponents; the cut-off place.
            let power = largest.and(0x7ff << 52);
            let inverse = R::load(&sizes.map(|x| f64::from_bits((2046 << 52) - (x.to_bits() & 0x7ff << 52))));
            let (quantum, scale) = (power.times(R::splat(self.cut)), inverse.times(R::splat(1.0 / self.cut)));
            let mut total = sum.times(scale).truncate();
            for product in group {
                total = total.plus(product.times(scale).truncate());
            }
            // The 29 bits that f64 has and f32 has not go, towards zero.
            sum = total.times(quantum).and(!0x1fff_ffff);
        }
        sum
    }
}

/// The value of an integer.
#[inline(always)]
fn integer(element: Element, bits: u32) -> i32 {
    match element {
        Element::S8 => i32::from(bits as i8),
        Element::S4 => (bits << 28) as i32 >> 28,
        _ => bits as i32,
    }
}

#[inline(always)]
fn integers<const K: usize, const E: usize>(
    mma: Mma,
    a: &[&WarpRegister],
    b: &[&WarpRegister],
    c: &[&WarpRegister],
    d: &mut [WarpRegister],
) {
    let mut tiles = Tiles { a: [[0; K]; 16], b: [[0; 8]; K], c: [[0; 8]; 16] };
    spread::<i32, K, E>(mma, a, b, &mut tiles, integer);
    for (row, sum) in tiles.a.iter().zip(tiles.c.iter_mut()) {
        for i in 0..K {
            for column in 0..8 {
                sum[column] += row[i] * tiles.b[i][column];
            }
        }
    }
    for lane in 0..32 {
        for index in 0..4 {
            let cell = c_cell(lane, index);
            let (sum, start) = (tiles.c[cell.row][cell.column], c[index][lane] as i32);
            let total = if mma.saturate { start.saturating_add(sum) } else { start.wrapping_add(sum) };
            d[index][lane] = total as u32;
        }
    }
}

/// `mma.sync.m8n8k4` of f64: each lane holds one element of A, one of B and two of C. Sums in index order, each step
/// fused.
pub fn mma_f64(a: &[u64; 32], b: &[u64; 32], c: [&[u64; 32]; 2]) -> [[u64; 32]; 2] {
    std::array::from_fn(|index| {
        std::array::from_fn(|lane| {
            let (row, column) = (lane / 4, 2 * (lane % 4) + index);
            (0..4)
                .fold(f64::from_bits(c[index][lane]), |sum, k| {
                    f64::from_bits(a[4 * row + k]).mul_add(f64::from_bits(b[4 * column + k]), sum)
                })
                .to_bits()
        })
    })
}
