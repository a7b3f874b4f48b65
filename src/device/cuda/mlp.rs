//! The MLP half-block. See `kernels/mlp.cu`.

use super::kernel::Pointer;
use super::kernel::mlp::{MlpForward, SOURCE};
use super::kernel::mlp_backward::{self, MlpBackward};
use super::kernel::mlp_weights::{self, MlpNormGradient, MlpWeights};
use super::working::{self, Matrix, Places};
use super::{Gpu, Grid, Part, Shape};
use crate::error::Result;
use cudarc::driver::CudaSlice;

/// The half-block's parameters on the GPU: norm `[E]` + `[E]`, fc [E, 4E] + `[4E]`, proj [4E, E] + `[E]`.
#[derive(Debug, Clone, Copy)]
#[expect(missing_docs, reason = "the names are GPT-2's")]
pub struct Params {
    pub norm_weight: Pointer<f32>,
    pub norm_bias: Pointer<f32>,
    pub fc_weight: Pointer<f32>,
    pub fc_bias: Pointer<f32>,
    pub proj_weight: Pointer<f32>,
    pub proj_bias: Pointer<f32>,
}

/// Working copies of the weights.
pub struct Working {
    weight: CudaSlice<u32>,
    back: CudaSlice<u32>,
    rows: CudaSlice<u32>,
    fc_bias: CudaSlice<f32>,
}

/// What the backward pass will need.
#[derive(Debug, Clone, Copy)]
pub struct Saved {
    /// Normalised rows, bf16 [N, T, E] in pairs.
    pub normal: Pointer<u32>,
    /// The norm's factors [N, T].
    pub scale: Pointer<f32>,
}

/// Words that one sequence's [`Saved`] takes.
pub fn saved_len(shape: &Shape) -> usize {
    shape.n_time * (shape.d_model / 2 + 1)
}

impl Saved {
    /// What `n` sequences keep in `n` · [`saved_len`] words from `start` on.
    pub fn at(start: Pointer<u32>, shape: &Shape, n: usize) -> Self {
        Self { normal: start, scale: start.offset(n * shape.n_time * shape.d_model / 2).cast() }
    }
}

impl Working {
    /// Makes them from the parameters.
    pub fn new(gpu: &mut Gpu, shape: &Shape, params: &Params) -> Result<Self> {
        let e = shape.d_model;
        let [weight, rows] = [gpu.zeros(4 * e * e)?, gpu.zeros(4 * e * e)?];
        let working = Self { weight, back: gpu.zeros(6 * e * e)?, rows, fc_bias: gpu.zeros(4 * e)? };
        working.refresh(gpu, shape, params)?;
        Ok(working)
    }

    /// Makes them anew from parameters that have changed.
    pub fn refresh(&self, gpu: &mut Gpu, shape: &Shape, params: &Params) -> Result<()> {
        let e = shape.d_model;
        let steps = working::blocks(e);
        let fc = Matrix {
            w: params.fc_weight,
            len: (e, 4 * e),
            strides: (4 * e, 1),
            scale: (params.norm_weight, Pointer::NULL),
            count: 1,
            next: 0,
        };
        let out = gpu.address(&self.fc_bias);
        working::bias(gpu, shape, out, &fc, params.norm_bias, params.fc_bias, (0, 1.0))?;
        // For each block of hidden units all blocks of fc, then all of proj.
        let out: Pointer<[u32; 4]> = gpu.address(&self.weight).cast();
        let places = Places { place: (1, 2 * steps), interleaved: (true, true), next: 0 };
        working::matrix(gpu, shape, out, &fc, &places)?;
        let proj = Matrix {
            w: params.proj_weight,
            len: (4 * e, e),
            strides: (e, 1),
            scale: (Pointer::NULL, Pointer::NULL),
            count: 1,
            next: 0,
        };
        let places = Places { place: (2 * steps, 1), interleaved: (true, true), next: 0 };
        working::matrix(gpu, shape, out.offset(32 * steps), &proj, &places)?;

        // For each block of hidden units all blocks of fc, of proj transposed, and of fc transposed.
        let out: Pointer<[u32; 4]> = gpu.address(&self.back).cast();
        let by_columns = Places { place: (1, 3 * steps), interleaved: (true, true), next: 0 };
        working::matrix(gpu, shape, out, &fc, &by_columns)?;
        let proj = Matrix { len: (e, 4 * e), strides: (1, e), ..proj };
        working::matrix(gpu, shape, out.offset(32 * steps), &proj, &by_columns)?;
        let scale = (Pointer::NULL, params.norm_weight);
        let fc_back = Matrix { len: (4 * e, e), strides: (1, 4 * e), scale, ..fc };
        let by_rows = Places { place: (3 * steps, 1), interleaved: (true, true), next: 0 };
        working::matrix(gpu, shape, out.offset(64 * steps), &fc_back, &by_rows)?;

        // For each block of hidden units all blocks of fc, then all of proj transposed, in order.
        let out: Pointer<[u32; 4]> = gpu.address(&self.rows).cast();
        let in_order = Places { place: (1, 2 * steps), interleaved: (false, false), next: 0 };
        working::matrix(gpu, shape, out, &fc, &in_order)?;
        working::matrix(gpu, shape, out.offset(32 * steps), &proj, &in_order)
    }
}

/// x [N, T, E] in place; rows before `from` are left alone.
///
/// # Safety
/// `x`, the parameters and what is saved have these shapes.
pub unsafe fn forward(
    gpu: &mut Gpu,
    shape: &Shape,
    (n, from): (usize, usize),
    params: &Params,
    working: &Working,
    x: Pointer<f32>,
    saved: Option<Saved>,
) -> Result<()> {
    let kernel = MlpForward {
        x,
        weight: gpu.address(&working.weight).cast(),
        fc_bias: gpu.address(&working.fc_bias),
        proj_bias: params.proj_bias,
        normal: saved.map_or(Pointer::NULL, |saved| saved.normal),
        scale: saved.map_or(Pointer::NULL, |saved| saved.scale),
        n: n as u32,
        from: from as u32,
    };
    let tiles = (n * (shape.n_time - from)).div_ceil(256) as u32;
    let shared_bytes = gpu.constant(&SOURCE, shape, "mlp_shared_bytes")?;
    let grid = Grid { blocks: (tiles.min(gpu.multiprocessors()), 1), threads: 256, shared_bytes };
    // SAFETY: the caller's.
    unsafe { gpu.launch(shape, &kernel, grid) }
}

/// Memory that the backward pass works in.
#[derive(Debug, Clone, Copy)]
pub struct Scratch {
    /// The gradient of the output, bf16 [N, T, E] in pairs.
    pub dout: Pointer<u32>,
    /// Shares of the gradients of the norm's weight and bias [N, E / 32, 2, E].
    pub partial: Pointer<f32>,
}

/// Words that one sequence's [`Scratch`] takes.
pub fn scratch_len(shape: &Shape) -> usize {
    let e = shape.d_model;
    shape.n_time * e / 2 + e / 32 * 2 * e
}

impl Scratch {
    /// Of `n` sequences, in `n` · [`scratch_len`] words from `start` on.
    pub fn at(start: Pointer<u32>, shape: &Shape, n: usize) -> Self {
        Self { dout: start, partial: start.offset(n * shape.n_time * shape.d_model / 2).cast() }
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
    let e = shape.d_model;
    let Scratch { dout, partial } = *scratch;
    let (n, first, slots, from) = (part.n as u32, part.first as u32, part.slots as u32, part.from as u32);
    let slot_len = part.slot_len as u64;
    let fc_bias = gpu.address(&working.fc_bias);
    let weight = gpu.address(&working.back).cast();
    let kernel = MlpBackward { dx, normal: saved.normal, scale: saved.scale, weight, fc_bias, dout, n, from };
    let tiles = (part.n * (shape.n_time - part.from)).div_ceil(256) as u32;
    let shared_bytes = gpu.constant(&mlp_backward::SOURCE, shape, "mlp_backward_shared_bytes")?;
    let grid = Grid { blocks: (tiles.min(gpu.multiprocessors()), 1), threads: 256, shared_bytes };
    // SAFETY: the caller's.
    unsafe { gpu.launch(shape, &kernel, grid) }?;

    let kernel = MlpWeights {
        normal: saved.normal,
        dout,
        weight: gpu.address(&working.rows).cast(),
        fc_bias,
        fc_weight: params.fc_weight,
        norm_weight: params.norm_weight,
        norm_bias: params.norm_bias,
        fc_weight_grad: grads.fc_weight,
        fc_bias_grad: grads.fc_bias,
        proj_weight_grad: grads.proj_weight,
        proj_bias_grad: grads.proj_bias,
        partial,
        n,
        first,
        slots,
        from,
        slot_len,
    };
    let shared_bytes = gpu.constant(&mlp_weights::SOURCE, shape, "mlp_weights_shared_bytes")?;
    let grid = Grid { blocks: (e as u32 / 32, slots), threads: 256, shared_bytes };
    // SAFETY: the caller's.
    unsafe { gpu.launch(shape, &kernel, grid) }?;

    let [norm_weight_grad, norm_bias_grad] = [grads.norm_weight, grads.norm_bias];
    let kernel = MlpNormGradient { partial, norm_weight_grad, norm_bias_grad, n, first, slots, slot_len };
    // SAFETY: the caller's.
    unsafe { gpu.launch(shape, &kernel, Grid { blocks: (slots, 1), threads: e as u32, shared_bytes: 0 }) }
}
