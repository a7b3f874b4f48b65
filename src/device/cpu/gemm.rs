//! Matrix products, out = left · right, with the right-hand side packed in panels.
//!
//! A product is a grid of register tiles: a few rows of `left` times a panel of a few vectors of `right`. Each element
//! of `out` is one chain of multiply-adds over k in ascending order, started from zero, whatever tile it falls in. So
//! a row's bits depend on nothing but that row: not on its neighbours, the size of the batch, or the tile's shape.
//! Library products do not promise that (they choose other orders for a single row or for edges), allocate on each
//! call and pack the weights anew for every sequence; these three are why the engine has its own.
//!
//! The width of a panel depends on the instruction set: as many vectors as the registers hold. Attention has products of
//! its own ([`super::strips`]), narrower and with what follows them in the same registers.

use super::vector::{load, store};
use pulp::{Simd, WithSimd};

/// Rows and vectors of a register tile: the accumulators, one row of the panel and a broadcast fill the registers.
const fn tile<S: Simd>() -> (usize, usize) {
    if S::REGISTER_COUNT >= 32 { (8, 3) } else { (6, 2) }
}

/// Columns of a panel.
pub(crate) const fn columns<S: Simd>() -> usize {
    tile::<S>().1 * S::F32_LANES
}

/// A matrix as it lies in memory. `Rows(data, ld)`: element (i, p) at i·ld + p; `Columns(data, ld)`: at p·ld + i.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Matrix<'a> {
    /// Each row is contiguous; rows are `ld` elements apart.
    Rows(&'a [f32], usize),
    /// Each column is contiguous; columns are `ld` elements apart: a transposed matrix.
    Columns(&'a [f32], usize),
}

/// Elements that a packed right-hand side of `k` rows and `n` columns takes.
pub(crate) const fn packed_len(columns: usize, k: usize, n: usize) -> usize {
    n.div_ceil(columns) * columns * k
}

/// Packs a right-hand side of `k` rows and `n` columns: panel after panel of `columns`, each with its rows contiguous,
/// the last one filled up with zeros.
pub(crate) fn pack(columns: usize, k: usize, n: usize, from: Matrix, packed: &mut [f32]) {
    if k == 0 {
        return;
    }
    for (j, panel) in packed[..packed_len(columns, k, n)].chunks_exact_mut(columns * k).enumerate() {
        pack_panel(columns, k, n, from, j, panel);
    }
}

/// Packs the panel with the number `j` alone.
pub(crate) fn pack_panel(columns: usize, k: usize, n: usize, from: Matrix, j: usize, panel: &mut [f32]) {
    let first = j * columns;
    let width = columns.min(n - first);
    if width < columns {
        panel.fill(0.0);
    }
    match from {
        Matrix::Rows(data, ld) => {
            for (p, row) in panel.chunks_exact_mut(columns).enumerate() {
                row[..width].copy_from_slice(&data[p * ld + first..][..width]);
            }
        }
        Matrix::Columns(data, ld) => {
            for c in 0..width {
                let column = &data[(first + c) * ld..][..k];
                for (row, &value) in panel.chunks_exact_mut(columns).zip(column) {
                    row[c] = value;
                }
            }
        }
    }
}

/// What is added to the product before it is stored.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Onto<'a> {
    /// out = product
    Nothing,
    /// out = product + bias
    Bias(&'a [f32]),
    /// out += product
    Out,
    /// out += product + bias
    OutAndBias(&'a [f32]),
}

/// One product, [m, k] · [k, n]; `out` has rows `ld` apart.
pub(crate) struct Product<'a> {
    pub m: usize,
    pub k: usize,
    pub n: usize,
    pub left: Matrix<'a>,
    /// Packed with panels of [`columns`].
    pub right: &'a [f32],
    pub onto: Onto<'a>,
    pub out: &'a mut [f32],
    pub ld: usize,
}

impl Product<'_> {
    /// Computes it. A call of its own, so that the tiles are compiled once per instruction set.
    #[inline(always)]
    pub(crate) fn run<S: Simd>(self, simd: S) {
        simd.vectorize(self);
    }

    #[inline(always)]
    fn tiles<S: Simd, const MR: usize, const NV: usize>(mut self, simd: S) {
        if self.m == 0 || self.n == 0 {
            return;
        }
        match self.left {
            Matrix::Rows(data, ld) => self.panels::<S, MR, NV, false>(simd, data, ld),
            Matrix::Columns(data, ld) => self.panels::<S, MR, NV, true>(simd, data, ld),
        }
    }

    #[inline(always)]
    fn panels<S: Simd, const MR: usize, const NV: usize, const TRANSPOSED: bool>(
        &mut self,
        simd: S,
        left: &[f32],
        ld: usize,
    ) {
        let columns = NV * S::F32_LANES;
        let right = &self.right[..packed_len(columns, self.k, self.n)];
        for j in 0..self.n.div_ceil(columns) {
            let panel = &right[j * columns * self.k..][..columns * self.k];
            let mut i = 0;
            while i + MR <= self.m {
                self.tile::<S, MR, NV, TRANSPOSED>(simd, left, ld, panel, i, j);
                i += MR;
            }
            // What is left is less than MR ≤ 8 rows: tiles of 4, 2 and 1.
            if i + 4 <= self.m {
                self.tile::<S, 4, NV, TRANSPOSED>(simd, left, ld, panel, i, j);
                i += 4;
            }
            if i + 2 <= self.m {
                self.tile::<S, 2, NV, TRANSPOSED>(simd, left, ld, panel, i, j);
                i += 2;
            }
            if i < self.m {
                self.tile::<S, 1, NV, TRANSPOSED>(simd, left, ld, panel, i, j);
            }
        }
    }

    /// The tile of `MR` rows from `i` on and the panel with the number `j`.
    #[inline(always)]
    fn tile<S: Simd, const MR: usize, const NV: usize, const TRANSPOSED: bool>(
        &mut self,
        simd: S,
        left: &[f32],
        ld: usize,
        panel: &[f32],
        i: usize,
        j: usize,
    ) {
        let (rows, _) = S::as_simd_f32s(panel).0.as_chunks::<NV>();
        let mut sums = [[simd.splat_f32s(0.0); NV]; MR];
        if let Some(last) = rows.len().checked_sub(1) {
            let (start, far) = if TRANSPOSED { (i, last * ld + MR - 1) } else { (i * ld, (MR - 1) * ld + last) };
            let left = &left[start..][..far + 1];
            for (p, row) in rows.iter().enumerate() {
                for (r, sums) in sums.iter_mut().enumerate() {
                    let index = if TRANSPOSED { p * ld + r } else { r * ld + p };
                    // SAFETY: r < MR and p ≤ last, so index ≤ far, the last element of `left`.
                    let factor = simd.splat_f32s(unsafe { *left.get_unchecked(index) });
                    for (sum, &value) in sums.iter_mut().zip(row) {
                        *sum = simd.mul_add_e_f32s(factor, value, *sum);
                    }
                }
            }
        }
        for (r, sums) in sums.iter().enumerate() {
            for (v, &sum) in sums.iter().enumerate() {
                let column = (j * NV + v) * S::F32_LANES;
                if column < self.n {
                    self.store(simd, i + r, column, sum);
                }
            }
        }
    }

    /// Stores a vector of the product at (row, column), or as much of it as `out` has columns for.
    #[inline(always)]
    fn store<S: Simd>(&mut self, simd: S, row: usize, column: usize, mut sum: S::f32s) {
        let width = S::F32_LANES.min(self.n - column);
        let out = &mut self.out[row * self.ld + column..][..width];
        if let Onto::Bias(bias) | Onto::OutAndBias(bias) = self.onto {
            sum = simd.add_f32s(sum, load(simd, &bias[column..][..width]));
        }
        if let Onto::Out | Onto::OutAndBias(_) = self.onto {
            sum = simd.add_f32s(sum, load(simd, out));
        }
        store(simd, out, sum);
    }
}

impl WithSimd for Product<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match tile::<S>() {
            (8, 3) => self.tiles::<S, 8, 3>(simd),
            _ => self.tiles::<S, 6, 2>(simd),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pulp::Arch;

    /// The columns of a panel, which only a dispatched function knows, and then the product.
    struct Whole<'a> {
        sizes: [usize; 3],
        transposed: bool,
        a: &'a [f32],
        b: &'a [f32],
        out: &'a mut [f32],
    }

    impl WithSimd for Whole<'_> {
        type Output = ();
        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) {
            let [m, k, n] = self.sizes;
            let columns = columns::<S>();
            let mut packed = vec![f32::NAN; packed_len(columns, k, n)];
            let (right, left) = if self.transposed {
                (Matrix::Columns(self.b, k), Matrix::Columns(self.a, m))
            } else {
                (Matrix::Rows(self.b, n), Matrix::Rows(self.a, k))
            };
            pack(columns, k, n, right, &mut packed);
            Product { m, k, n, left, right: &packed, onto: Onto::Nothing, out: self.out, ld: n }.run(simd);
        }
    }

    #[test]
    fn every_element_is_one_chain_over_k() {
        let value = |i: usize| ((i * 2_654_435_761) % 2001) as f32 / 1000.0 - 1.0;
        for arch in [Arch::Scalar, Arch::new()] {
            for sizes in [[1, 1, 1], [7, 3, 47], [8, 8, 48], [9, 5, 49], [15, 16, 17], [23, 2, 100], [3, 0, 5]] {
                let [m, k, n] = sizes;
                let a: Vec<f32> = (0..m * k).map(value).collect();
                let b: Vec<f32> = (0..k * n).map(|i| value(i + 7)).collect();
                let turned = |x: &[f32], rows: usize, columns: usize| -> Vec<f32> {
                    (0..rows * columns).map(|i| x[i % rows * columns + i / rows]).collect()
                };
                let mut out = vec![f32::NAN; m * n];
                let whole = Whole { sizes, transposed: false, a: &a, b: &b, out: &mut out };
                arch.dispatch(whole);
                for (at, &out) in out.iter().enumerate() {
                    let terms = (0..k).map(|p| (a[at / n * k + p], b[p * n + at % n]));
                    let fused = terms.clone().fold(0.0f32, |sum, (a, b)| a.mul_add(b, sum));
                    let plain = terms.fold(0.0f32, |sum, (a, b)| sum + a * b);
                    assert!(out == fused || out == plain, "{arch:?} {sizes:?} {at}: {out} for {fused}");
                }
                let (a, b) = (turned(&a, m, k), turned(&b, k, n));
                let mut again = vec![f32::NAN; m * n];
                let whole = Whole { sizes, transposed: true, a: &a, b: &b, out: &mut again };
                arch.dispatch(whole);
                assert_eq!(out, again, "{arch:?} {sizes:?}: transposed operands");
            }
        }
    }
}
