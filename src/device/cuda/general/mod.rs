//! The stages for any width, any heads and any number of timesteps: one kernel for each operator, on tensor cores. What the
//! fused kernels of the parent module do not know goes this way.
//!
//! Half-blocks keep normalised rows, answers and the logarithms of softmax's sums, and recompute queries, keys, values and
//! the hidden layer. All else is scratch. Everything in bf16 has rows of [`padded`] elements.

pub mod attention;
pub mod head;
pub mod mlp;

use super::kernel::Pointer;
use super::kernel::general_norm::{NarrowRows, NormRows, NormRowsBackward};
use super::kernel::general_product::{Product, SOURCE};
use super::working::{self, Matrix, Places};
use super::{Gpu, Grid, Shape};
use crate::error::Result;

/// Elements from row to row of a bf16 matrix of timesteps of this width: every row begins where sixteen bytes do.
pub fn padded(width: usize) -> usize {
    width.next_multiple_of(8)
}

/// Words of one sequence's timesteps in bf16.
fn rows_len(shape: &Shape, width: usize) -> usize {
    shape.n_time * padded(width) / 2
}

/// Where stretches begin that have these lengths for each of `n` sequences, one after another from `start` on. Each begins
/// where sixteen bytes do, if `start` does.
fn cut<const N: usize>(start: Pointer<u32>, n: usize, lens: [usize; N]) -> [Pointer<u32>; N] {
    let mut next = start;
    lens.map(|len| {
        let here = next;
        next = next.offset(n * len.next_multiple_of(4));
        here
    })
}

/// Words for each sequence that [`cut`] hands out.
fn total(lens: &[usize]) -> usize {
    lens.iter().map(|len| len.next_multiple_of(4)).sum()
}

/// Timesteps that a kernel works on: of `n` sequences, those from `skip` on.
#[derive(Clone, Copy)]
struct Rows {
    n: usize,
    skip: usize,
}

impl Rows {
    fn count(self, shape: &Shape) -> usize {
        self.n * (shape.n_time - self.skip)
    }

    /// One warp a row.
    fn warps(self, shape: &Shape) -> Grid {
        Grid { blocks: (self.count(shape).div_ceil(8) as u32, 1), threads: 256, shared_bytes: 0 }
    }

    /// Tiles of `height` rows and 128 columns; where channels have matrices of their own, each sequence has its own tiles.
    fn tiles(self, shape: &Shape, height: usize, width: usize, per_channel: bool, shared_bytes: u32) -> Grid {
        let sequences = if per_channel { self.n } else { 1 };
        let tiles = sequences * (self.count(shape) / sequences).div_ceil(height);
        Grid { blocks: (tiles as u32, width.div_ceil(128) as u32), threads: 256, shared_bytes }
    }
}

/// Words of the working copy of a matrix [k, n].
fn matrix_len(k: usize, n: usize) -> usize {
    working::blocks(k) * working::blocks(n) * 128
}

/// Fills a working copy for products, the first `scaled` columns times `factor`.
fn fill(gpu: &mut Gpu, shape: &Shape, out: Pointer<u32>, matrix: &Matrix, scaled: (usize, f32)) -> Result<()> {
    let (k, n) = (working::blocks(matrix.len.0), working::blocks(matrix.len.1));
    let places = Places { place: (n, 1), interleaved: (false, true), next: k * n };
    working::scaled_matrix(gpu, shape, out.cast(), matrix, &places, scaled)
}

/// Each sequence's channel, and uint4 from one channel's matrix to the next.
type PerChannel = Option<(Pointer<u32>, u32)>;

/// out [N, T, columns] bf16 = a [N, T, k] · a working copy + bias.
///
/// # Safety
/// Everything has the shape that is stated.
#[expect(clippy::too_many_arguments, reason = "two operands and their sizes")]
unsafe fn product(
    gpu: &mut Gpu,
    shape: &Shape,
    rows: Rows,
    a: Pointer<u32>,
    (b, bias): (Pointer<u32>, Pointer<f32>),
    (k, columns): (usize, usize),
    per_channel: PerChannel,
    out: Pointer<u32>,
) -> Result<()> {
    let (channel, matrix_len) = per_channel.unwrap_or((Pointer::NULL, 0));
    let kernel = Product {
        a: a.cast(),
        b: b.cast(),
        bias,
        channel,
        matrix_len,
        out: out.cast(),
        k_len: k as u32,
        n_len: columns as u32,
        n: rows.n as u32,
        skip: rows.skip as u32,
    };
    let shared_bytes = gpu.constant(&SOURCE, shape, "product_shared_bytes")?;
    // SAFETY: the caller's.
    unsafe { gpu.launch(shape, &kernel, rows.tiles(shape, 128, columns, per_channel.is_some(), shared_bytes)) }
}

/// Normalised rows of x [N, T, E] and their factors.
///
/// # Safety
/// Everything has the shape that is stated.
unsafe fn norm(
    gpu: &mut Gpu,
    shape: &Shape,
    rows: Rows,
    x: Pointer<f32>,
    (normal, scale): (Pointer<u32>, Pointer<f32>),
) -> Result<()> {
    let kernel = NormRows { x, normal: normal.cast(), scale, n: rows.n as u32, skip: rows.skip as u32 };
    // SAFETY: the caller's.
    unsafe { gpu.launch(shape, &kernel, rows.warps(shape)) }
}

/// dx [N, T, E] from the gradient of normalised rows: added from `add_from` on, before that overwritten.
///
/// # Safety
/// Everything has the shape that is stated.
unsafe fn norm_backward(
    gpu: &mut Gpu,
    shape: &Shape,
    (rows, add_from): (Rows, usize),
    gradient: Pointer<u32>,
    (normal, scale): (Pointer<u32>, Pointer<f32>),
    dx: Pointer<f32>,
) -> Result<()> {
    let kernel = NormRowsBackward {
        dx,
        gradient: gradient.cast(),
        normal: normal.cast(),
        scale,
        n: rows.n as u32,
        skip: rows.skip as u32,
        add_from: add_from as u32,
    };
    // SAFETY: the caller's.
    unsafe { gpu.launch(shape, &kernel, rows.warps(shape)) }
}

/// Rows of x [N, T, E] in bf16.
///
/// # Safety
/// Everything has the shape that is stated.
unsafe fn narrow(gpu: &mut Gpu, shape: &Shape, rows: Rows, x: Pointer<f32>, out: Pointer<u32>) -> Result<()> {
    let kernel = NarrowRows { x, out: out.cast(), n: rows.n as u32, skip: rows.skip as u32 };
    // SAFETY: the caller's.
    unsafe { gpu.launch(shape, &kernel, rows.warps(shape)) }
}
