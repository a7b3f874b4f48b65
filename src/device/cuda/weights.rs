//! Gradients of weights from the operands that backward kernels leave. See `kernels/weights.cu`.

use super::kernel::Pointer;
use super::kernel::weights::{SOURCE, WeightGradient};
use super::{Gpu, Grid, Part, Shape};
use crate::error::Result;

/// The two operands, bf16 in pairs: a [N, rows, widths.0] and b [N, rows, widths.1], rows from `skip` on. Widths are multiples of
/// eight; beyond the target's size nothing is read.
#[derive(Debug, Clone, Copy)]
pub struct Operands {
    /// Left operand, transposed in the product.
    pub a: Pointer<u32>,
    /// Right operand.
    pub b: Pointer<u32>,
    /// Rows of a sequence.
    pub rows: usize,
    /// First row that counts.
    pub skip: usize,
    /// Elements of a row.
    pub widths: (usize, usize),
}

/// Where the gradients go, each (gradient in the first slot, parameter).
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// The matrix.
    pub weight: (Pointer<f32>, Pointer<f32>),
    /// Gradient of the bias, or null.
    pub bias: Pointer<f32>,
    /// Weight and bias of the norm whose normalised rows the left operand is.
    pub norm: Option<[(Pointer<f32>, Pointer<f32>); 2]>,
    /// Elements of the matrix from row to row of the product, and from column to column.
    pub strides: (usize, usize),
    /// Rows and columns of the product.
    pub len: (usize, usize),
    /// Each sequence's channel, and elements from one channel's matrix to the next.
    pub per_channel: Option<(Pointer<u32>, usize)>,
}

impl Target {
    /// A matrix [rows, columns] with its bias, in a half-block.
    pub fn affine(weight: (Pointer<f32>, Pointer<f32>), bias: Pointer<f32>, len: (usize, usize)) -> Self {
        Self { weight, bias, norm: None, strides: (len.1, 1), len, per_channel: None }
    }

    /// The same, behind a norm.
    pub fn behind(self, weight: (Pointer<f32>, Pointer<f32>), bias: (Pointer<f32>, Pointer<f32>)) -> Self {
        Self { norm: Some([weight, bias]), ..self }
    }
}

/// Adds each sequence's gradient to its slot.
///
/// # Safety
/// Everything has the shape that is stated.
pub unsafe fn gradient(gpu: &mut Gpu, shape: &Shape, part: &Part, operands: &Operands, target: &Target) -> Result<()> {
    let none = (Pointer::NULL, Pointer::NULL);
    let [norm_weight, norm_bias] = target.norm.unwrap_or([none; 2]);
    let (channel, matrix_len) = target.per_channel.unwrap_or((Pointer::NULL, 0));
    let (m_len, n_len) = target.len;
    let height = gpu.constant(&SOURCE, shape, "weight_gradient_rows")?;
    let most_columns = gpu.constant(&SOURCE, shape, "weight_gradient_columns")? as usize;
    // Launches of about as many columns each.
    let threads = n_len.div_ceil(n_len.div_ceil(most_columns)).next_multiple_of(32);
    let blocks = (m_len.div_ceil(height as usize) as u32, part.slots as u32);
    let shared_bytes = 128 * (height + threads as u32 + 16);
    let grid = Grid { blocks, threads: threads as u32, shared_bytes };
    for begin in (0..n_len).step_by(threads) {
        let kernel = WeightGradient {
            a: operands.a,
            b: operands.b,
            weight_grad: target.weight.0,
            bias_grad: target.bias,
            weight: target.weight.1,
            norm_weight: norm_weight.1,
            norm_bias: norm_bias.1,
            norm_weight_grad: norm_weight.0,
            norm_bias_grad: norm_bias.0,
            channel,
            n: part.n as u32,
            first: part.first as u32,
            slots: part.slots as u32,
            rows: operands.rows as u32,
            skip: operands.skip as u32,
            m_len: m_len as u32,
            m_ld: operands.widths.0 as u32,
            n_len: n_len as u32,
            n_ld: operands.widths.1 as u32,
            begin: begin as u32,
            m_stride: target.strides.0 as u32,
            n_stride: target.strides.1 as u32,
            matrix_len: matrix_len as u32,
            slot_len: part.slot_len as u64,
        };
        // SAFETY: the caller's.
        unsafe { gpu.launch(shape, &kernel, grid) }?;
    }
    Ok(())
}
