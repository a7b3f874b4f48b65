//! The MLP half-block. See `kernels/general_product.cu`.

use super::super::kernel::Pointer;
use super::super::kernel::general_product::{ProductAdd, ProductGelu, ProductGeluBackward, SOURCE};
use super::super::mlp::Params;
use super::super::weights::{self, Operands, Target};
use super::super::working::{self, Matrix};
use super::super::{Gpu, Part, Shape};
use super::{Rows, cut, fill, matrix_len, narrow, norm, norm_backward, padded, product, rows_len, total};
use crate::error::Result;
use cudarc::driver::CudaSlice;

/// Working copies of the weights.
pub struct Working {
    fc: CudaSlice<u32>,
    fc_bias: CudaSlice<f32>,
    proj: CudaSlice<u32>,
    fc_back: CudaSlice<u32>,
    proj_back: CudaSlice<u32>,
}

impl Working {
    /// Makes them from the parameters.
    pub fn new(gpu: &mut Gpu, shape: &Shape, params: &Params) -> Result<Self> {
        let e = shape.d_model;
        let working = Self {
            fc: gpu.zeros(matrix_len(e, 4 * e))?,
            fc_bias: gpu.zeros(4 * e)?,
            proj: gpu.zeros(matrix_len(4 * e, e))?,
            fc_back: gpu.zeros(matrix_len(4 * e, e))?,
            proj_back: gpu.zeros(matrix_len(e, 4 * e))?,
        };
        working.refresh(gpu, shape, params)?;
        Ok(working)
    }

    /// Makes them anew from parameters that have changed.
    pub fn refresh(&self, gpu: &mut Gpu, shape: &Shape, params: &Params) -> Result<()> {
        let (e, as_they_are) = (shape.d_model, (0, 1.0));
        let scale = (params.norm_weight, Pointer::NULL);
        let fc = Matrix { w: params.fc_weight, len: (e, 4 * e), strides: (4 * e, 1), scale, count: 1, next: 0 };
        let out = gpu.address(&self.fc_bias);
        working::bias(gpu, shape, out, &fc, params.norm_bias, params.fc_bias, as_they_are)?;
        fill(gpu, shape, gpu.address(&self.fc), &fc, as_they_are)?;
        let scale = (Pointer::NULL, params.norm_weight);
        let fc = Matrix { len: (4 * e, e), strides: (1, 4 * e), scale, ..fc };
        fill(gpu, shape, gpu.address(&self.fc_back), &fc, as_they_are)?;
        let scale = (Pointer::NULL, Pointer::NULL);
        let proj = Matrix { w: params.proj_weight, len: (4 * e, e), strides: (e, 1), scale, count: 1, next: 0 };
        fill(gpu, shape, gpu.address(&self.proj), &proj, as_they_are)?;
        let proj = Matrix { len: (e, 4 * e), strides: (1, e), ..proj };
        fill(gpu, shape, gpu.address(&self.proj_back), &proj, as_they_are)
    }
}

/// What the backward pass will need, rows from `from` on.
#[derive(Debug, Clone, Copy)]
pub struct Saved {
    /// Normalised rows, bf16 [N, T, E].
    pub normal: Pointer<u32>,
    /// The norm's factors [N, T].
    pub scale: Pointer<f32>,
}

fn saved_lens(shape: &Shape) -> [usize; 2] {
    [rows_len(shape, shape.d_model), shape.n_time]
}

/// Words that one sequence's [`Saved`] takes: a multiple of four.
pub fn saved_len(shape: &Shape) -> usize {
    total(&saved_lens(shape))
}

impl Saved {
    /// What `n` sequences keep in `n` · [`saved_len`] words from `start` on, a multiple of sixteen bytes.
    pub fn at(start: Pointer<u32>, shape: &Shape, n: usize) -> Self {
        let [normal, scale] = cut(start, n, saved_lens(shape));
        Self { normal, scale: scale.cast() }
    }
}

/// Memory that both passes work in. Its content need not last from one to the other.
#[derive(Debug, Clone, Copy)]
pub struct Scratch {
    /// In place of what is not saved.
    saved: Saved,
    /// The hidden layer, bf16 [N, T, 4E].
    active: Pointer<u32>,
    /// Its gradient, before GELU.
    dhidden: Pointer<u32>,
    /// The gradient of the output, bf16 [N, T, E].
    dout: Pointer<u32>,
    /// The gradient of normalised rows, bf16 [N, T, E].
    dnormal: Pointer<u32>,
}

fn scratch_lens(shape: &Shape) -> [usize; 5] {
    let (one, four) = (rows_len(shape, shape.d_model), rows_len(shape, 4 * shape.d_model));
    [saved_len(shape), four, four, one, one]
}

/// Words that one sequence's [`Scratch`] takes.
pub fn scratch_len(shape: &Shape) -> usize {
    total(&scratch_lens(shape))
}

impl Scratch {
    /// Of `n` sequences, in `n` · [`scratch_len`] words from `start` on, a multiple of sixteen bytes.
    pub fn at(start: Pointer<u32>, shape: &Shape, n: usize) -> Self {
        let [saved, active, dhidden, dout, dnormal] = cut(start, n, scratch_lens(shape));
        Self { saved: Saved::at(saved, shape, n), active, dhidden, dout, dnormal }
    }
}

/// x [N, T, E] in place; rows before `from` are left alone.
///
/// # Safety
/// `x`, the parameters, what is saved and scratch have these shapes.
#[expect(clippy::too_many_arguments, reason = "what a stage's forward pass needs")]
pub unsafe fn forward(
    gpu: &mut Gpu,
    shape: &Shape,
    (n, from): (usize, usize),
    params: &Params,
    working: &Working,
    x: Pointer<f32>,
    saved: Option<Saved>,
    scratch: &Scratch,
) -> Result<()> {
    let e = shape.d_model;
    let Saved { normal, scale } = saved.unwrap_or(scratch.saved);
    let rows = Rows { n, skip: from };
    // SAFETY: the caller's.
    unsafe { norm(gpu, shape, rows, x, (normal, scale)) }?;
    let hidden = ProductGelu {
        a: normal.cast(),
        b: gpu.address(&working.fc).cast(),
        bias: gpu.address(&working.fc_bias),
        out: scratch.active.cast(),
        n: n as u32,
        skip: from as u32,
    };
    let out = ProductAdd {
        a: scratch.active.cast(),
        b: gpu.address(&working.proj).cast(),
        bias: params.proj_bias,
        x,
        k_len: 4 * e as u32,
        n: n as u32,
        skip: from as u32,
    };
    let shared_bytes = gpu.constant(&SOURCE, shape, "product_shared_bytes")?;
    // SAFETY: the caller's.
    unsafe {
        gpu.launch(shape, &hidden, rows.tiles(shape, 128, 4 * e, false, shared_bytes))?;
        gpu.launch(shape, &out, rows.tiles(shape, 128, e, false, shared_bytes))
    }
}

/// dx [N, T, E] in place, rows from `from` on; adds to `grads`, the slots' first.
///
/// # Safety
/// Everything has the shape that is stated, and `saved` is what the forward pass saved.
#[expect(clippy::too_many_arguments, reason = "what a stage's backward pass needs")]
pub unsafe fn backward(
    gpu: &mut Gpu,
    shape: &Shape,
    part: &Part,
    params: &Params,
    grads: &Params,
    working: &Working,
    saved: &Saved,
    scratch: &Scratch,
    dx: Pointer<f32>,
) -> Result<()> {
    let (e, from) = (shape.d_model, part.from);
    let Saved { normal, scale } = *saved;
    let Scratch { active, dhidden, dout, dnormal, .. } = *scratch;
    let rows = Rows { n: part.n, skip: from };
    // SAFETY: the caller's.
    unsafe { narrow(gpu, shape, rows, dx, dout) }?;
    let kernel = ProductGeluBackward {
        normal: normal.cast(),
        fc: gpu.address(&working.fc).cast(),
        bias: gpu.address(&working.fc_bias),
        dout: dout.cast(),
        proj_back: gpu.address(&working.proj_back).cast(),
        active: active.cast(),
        dhidden: dhidden.cast(),
        n: part.n as u32,
        skip: from as u32,
    };
    let shared_bytes = gpu.constant(&SOURCE, shape, "hidden_shared_bytes")?;
    // SAFETY: the caller's.
    unsafe { gpu.launch(shape, &kernel, rows.tiles(shape, 64, 4 * e, false, shared_bytes)) }?;

    let target = Target::affine((grads.fc_weight, params.fc_weight), grads.fc_bias, (e, 4 * e))
        .behind((grads.norm_weight, params.norm_weight), (grads.norm_bias, params.norm_bias));
    let widths = (padded(e), padded(4 * e));
    let operands = Operands { a: normal, b: dhidden, rows: shape.n_time, skip: from, widths };
    // SAFETY: the caller's.
    unsafe { weights::gradient(gpu, shape, part, &operands, &target) }?;
    let target = Target::affine((grads.proj_weight, params.proj_weight), grads.proj_bias, (4 * e, e));
    let widths = (padded(4 * e), padded(e));
    let operands = Operands { a: active, b: dout, rows: shape.n_time, skip: from, widths };
    let fc_back = gpu.address(&working.fc_back);
    // SAFETY: the caller's.
    unsafe {
        weights::gradient(gpu, shape, part, &operands, &target)?;
        product(gpu, shape, rows, dhidden, (fc_back, Pointer::NULL), (4 * e, e), None, dnormal)?;
        norm_backward(gpu, shape, (rows, 0), dnormal, (normal, scale), dx)
    }
}
