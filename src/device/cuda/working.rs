//! Working copies of the parameters: bf16, in the order in which tensor cores take them. See `kernels/working.cu`.

use super::kernel::Pointer;
use super::kernel::working::{WorkingBias, WorkingMatrix};
use super::{Gpu, Grid, Shape};
use crate::error::Result;

/// A matrix of the parameters, as B of a product: element (k, n) is `w[k · strides.0 + n · strides.1]`.
#[derive(Debug, Clone, Copy)]
pub struct Matrix {
    /// First element.
    pub w: Pointer<f32>,
    /// Rows (k) and columns (n).
    pub len: (usize, usize),
    /// Elements from row to row, and from column to column.
    pub strides: (usize, usize),
    /// Factors of the rows and of the columns, or null.
    pub scale: (Pointer<f32>, Pointer<f32>),
    /// Matrices, `next` elements apart.
    pub count: usize,
    /// Elements from one matrix to the next.
    pub next: usize,
}

/// Where blocks of sixteen by sixteen go: block (i, j) to `i · place.0 + j · place.1`.
#[derive(Debug, Clone, Copy)]
pub struct Places {
    /// Distances of neighbouring blocks.
    pub place: (usize, usize),
    /// Whether k and columns are interleaved.
    pub interleaved: (bool, bool),
    /// Blocks from one matrix to the next.
    pub next: usize,
}

/// Blocks that `len` needs.
pub fn blocks(len: usize) -> usize {
    len.div_ceil(16)
}

/// Fills the working copy of a matrix.
pub fn matrix(gpu: &mut Gpu, shape: &Shape, out: Pointer<[u32; 4]>, matrix: &Matrix, places: &Places) -> Result<()> {
    scaled_matrix(gpu, shape, out, matrix, places, (0, 1.0))
}

/// As [`matrix`], the first `scaled` columns times `factor`.
pub fn scaled_matrix(
    gpu: &mut Gpu,
    shape: &Shape,
    out: Pointer<[u32; 4]>,
    matrix: &Matrix,
    places: &Places,
    (scaled, factor): (usize, f32),
) -> Result<()> {
    let (k, n) = (blocks(matrix.len.0), blocks(matrix.len.1));
    let kernel = WorkingMatrix {
        out,
        w: matrix.w,
        k_scale: matrix.scale.0,
        n_scale: matrix.scale.1,
        k_len: matrix.len.0 as u32,
        n_len: matrix.len.1 as u32,
        k_stride: matrix.strides.0 as u32,
        n_stride: matrix.strides.1 as u32,
        n_blocks: n as u32,
        k_place: places.place.0 as u32,
        n_place: places.place.1 as u32,
        order: u32::from(places.interleaved.0) + 2 * u32::from(places.interleaved.1),
        w_next: matrix.next as u32,
        out_next: (places.next * 32) as u32,
        scaled: scaled as u32,
        factor,
        blocks: (k * n) as u32,
    };
    let mut grid = Grid::over(k * n * 32);
    grid.blocks.1 = matrix.count as u32;
    // SAFETY: callers give matrices and copies of the sizes that they state.
    unsafe { gpu.launch(shape, &kernel, grid) }
}

/// Fills `out` [matrices, columns] with what a norm's bias (or null) adds to each column of a product with `matrix`, plus `bias`
/// (or null); the first `scaled` times `factor`.
pub fn bias(
    gpu: &mut Gpu,
    shape: &Shape,
    out: Pointer<f32>,
    matrix: &Matrix,
    norm_bias: Pointer<f32>,
    bias: Pointer<f32>,
    (scaled, factor): (usize, f32),
) -> Result<()> {
    let kernel = WorkingBias {
        out,
        w: matrix.w,
        norm_bias,
        bias,
        // Without a norm there is nothing to add up.
        k_len: if norm_bias == Pointer::NULL { 0 } else { matrix.len.0 as u32 },
        n_len: matrix.len.1 as u32,
        k_stride: matrix.strides.0 as u32,
        n_stride: matrix.strides.1 as u32,
        scaled: scaled as u32,
        factor,
        w_next: matrix.next as u32,
    };
    let mut grid = Grid::over(matrix.len.1);
    grid.blocks.1 = matrix.count as u32;
    // SAFETY: callers give matrices and outputs of the sizes that they state.
    unsafe { gpu.launch(shape, &kernel, grid) }
}
