//! The two products of attention, between a block of columns, which lie across the lanes of a vector, and rows in strips
//! of eight.
//!
//! A head is narrow (8 elements in the paper's model for one subject), so its scores are products of a few terms each, of
//! which there are very many, and a general product would spend more on reading and writing its tiles than on
//! arithmetic. Here the scores of a strip and a block are made in registers and used from there: backward for all that follows from
//! them; forward once for the largest and, because that must be known first, again from memory for the softmax and the sums that
//! it weighs. What the loops touch lies together, 33 KiB for a head of 8 and 256 timesteps.
//!
//! Each score is one chain of multiply-adds over the elements, and each weighted sum one over the rows, both ascending; the sum over
//! lanes is one over a block's lanes, added to that of the blocks before.

use super::vector::load;
use pulp::Simd;

/// Rows of a strip: enough independent chains to hide the latency of a multiply-add.
pub(super) const ROWS: usize = 8;

/// Lanes of the widest vector.
pub(super) const MAX_LANES: usize = 16;

/// One element of each row of a strip.
pub(super) type Strip = [f32; ROWS];

/// Floats that `n` rows of `d` elements take as strips.
pub(super) const fn strips_len(n: usize, d: usize) -> usize {
    n.next_multiple_of(ROWS) * d
}

/// Lays out `n` rows of `d` elements, `ld` apart, times `factor`: strip after strip, each [D, 8], the last filled up with zeros.
#[inline(always)]
pub(super) fn pack_strips(n: usize, d: usize, from: &[f32], ld: usize, factor: f32, to: &mut [f32]) {
    let to = to[..strips_len(n, d)].as_chunks_mut::<ROWS>().0;
    for (first, strip) in (0..n).step_by(ROWS).zip(to.chunks_exact_mut(d)) {
        let rows = ROWS.min(n - first);
        if rows < ROWS {
            strip.fill([0.0; ROWS]);
        }
        for j in 0..rows {
            let row = &from[(first + j) * ld..][..d];
            for (strip, &x) in strip.iter_mut().zip(row) {
                strip[j] = x * factor;
            }
        }
    }
}

/// Lays out `n` rows of `d` elements, `ld` apart, times `factor`, as the columns of a block, [D, lanes], the last zeros.
#[inline(always)]
pub(super) fn pack_block<S: Simd>(n: usize, d: usize, from: &[f32], ld: usize, factor: f32, to: &mut [f32]) {
    let to = &mut to[..d * S::F32_LANES];
    if n < S::F32_LANES {
        to.fill(0.0);
    }
    for c in 0..n {
        let row = &from[c * ld..][..d];
        for (to, &x) in to.chunks_exact_mut(S::F32_LANES).zip(row) {
            to[c] = x * factor;
        }
    }
}

/// The first `n` columns of a block, [D, lanes], each times its `factor`, as rows `ld` apart.
#[inline(always)]
pub(super) fn unpack_block<S: Simd>(n: usize, d: usize, block: &[f32], factor: &[f32], to: &mut [f32], ld: usize) {
    for c in 0..n {
        for (to, block) in to[c * ld..][..d].iter_mut().zip(block.chunks_exact(S::F32_LANES)) {
            *to = block[c] * factor[c];
        }
    }
}

/// The scores of a strip's rows and a block's columns: Σ_d strip[d, row] · block[d].
#[inline(always)]
pub(super) fn scores<S: Simd>(simd: S, strip: &[Strip], block: &[S::f32s]) -> [S::f32s; ROWS] {
    let mut sums = [simd.splat_f32s(0.0); ROWS];
    for (strip, &block) in strip.iter().zip(block) {
        for (sum, &x) in sums.iter_mut().zip(strip) {
            *sum = simd.mul_add_e_f32s(simd.splat_f32s(x), block, *sum);
        }
    }
    sums
}

/// Adds a strip's rows, weighed: sums[d] += Σ_row weights[row] · strip[d, row].
#[inline(always)]
pub(super) fn weigh<S: Simd>(simd: S, weights: &[S::f32s; ROWS], strip: &[Strip], sums: &mut [S::f32s]) {
    for (strip, sum) in strip.iter().zip(sums) {
        let mut total = *sum;
        for (&weight, &x) in weights.iter().zip(strip) {
            total = simd.mul_add_e_f32s(simd.splat_f32s(x), weight, total);
        }
        *sum = total;
    }
}

/// sums[row] += Σ_lane weights[row, lane] · rows[lane], for the eight rows of a strip, [8, lanes]; `rows` and `sums` are as many
/// times eight elements wide as `rows` says.
///
/// The one sum over lanes. Eight elements, and not a vector: most heads are no wider.
#[inline(always)]
pub(super) fn weigh_rows<S: Simd>(weights: &[f32], rows: &[[f32; 8]], sums: &mut [[f32; 8]]) {
    let n_wide = rows.len() / S::F32_LANES;
    for wide in 0..n_wide {
        let mut totals = [[0.0; 8]; ROWS];
        for (lane, row) in rows.chunks_exact(n_wide).enumerate() {
            for (j, total) in totals.iter_mut().enumerate() {
                let weight = weights[j * S::F32_LANES + lane];
                for (total, &x) in total.iter_mut().zip(&row[wide]) {
                    *total = multiply_add::<S>(weight, x, *total);
                }
            }
        }
        for (sums, totals) in sums.chunks_exact_mut(n_wide).zip(totals) {
            sums[wide].iter_mut().zip(totals).for_each(|(sum, total)| *sum += total);
        }
    }
}

/// a·b + c, in one rounding where the instruction set does that: the portable one would call a library.
#[inline(always)]
fn multiply_add<S: Simd>(a: f32, b: f32, c: f32) -> f32 {
    if S::F32_LANES > 1 { a.mul_add(b, c) } else { a * b + c }
}

/// The numbers of a vector's lanes, as floats.
#[inline(always)]
pub(super) fn lanes<S: Simd>(simd: S) -> S::f32s {
    const COUNT: [f32; MAX_LANES] = [0., 1., 2., 3., 4., 5., 6., 7., 8., 9., 10., 11., 12., 13., 14., 15.];
    load(simd, &COUNT[..S::F32_LANES])
}
