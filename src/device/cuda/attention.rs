//! The attention half-block. See `kernels/attention.cu`.

use super::kernel::Pointer;
use super::kernel::attention::AttentionForward;
use super::kernel::attention_backward::{AttentionBackward, AttentionBackwardInput, SOURCE};
use super::kernel::working::WorkingQkv;
use super::weights::{self, Operands, Target};
use super::working::{self, Matrix, Places};
use super::{Gpu, Grid, Part, Shape};
use crate::error::Result;
use cudarc::driver::CudaSlice;

/// The half-block's parameters on the GPU: norm `[E]` + `[E]`, qkv [E, 3E] + `[3E]`, proj [E, E] + `[E]`.
#[derive(Debug, Clone, Copy)]
#[expect(missing_docs, reason = "the names are GPT-2's")]
pub struct Params {
    pub norm_weight: Pointer<f32>,
    pub norm_bias: Pointer<f32>,
    pub qkv_weight: Pointer<f32>,
    pub qkv_bias: Pointer<f32>,
    pub proj_weight: Pointer<f32>,
    pub proj_bias: Pointer<f32>,
}

/// Working copies of the weights.
pub struct Working {
    qkv_weight: CudaSlice<u32>,
    qkv_bias: CudaSlice<f32>,
    proj_weight: CudaSlice<u32>,
    qkv_back: CudaSlice<u32>,
    proj_back: CudaSlice<u32>,
}

/// What the backward pass will need.
#[derive(Debug, Clone, Copy)]
pub struct Saved {
    /// Normalised rows, bf16 [N, T, E] in pairs.
    pub normal: Pointer<u32>,
    /// The norm's factors [N, T].
    pub scale: Pointer<f32>,
    /// The heads' answers, bf16 [N, T, E] in pairs.
    pub answer: Pointer<u32>,
    /// log2 of the sums of exponentials [N, H, T].
    pub lse: Pointer<f32>,
}

/// Words that one sequence's [`Saved`] takes.
pub fn saved_len(shape: &Shape) -> usize {
    shape.n_time * (shape.d_model + 1 + shape.n_head)
}

impl Saved {
    /// What `n` sequences keep in `n` · [`saved_len`] words from `start` on.
    pub fn at(start: Pointer<u32>, shape: &Shape, n: usize) -> Self {
        let rows = n * shape.n_time;
        let answer = start.offset(rows * shape.d_model / 2);
        let scale = answer.offset(rows * shape.d_model / 2);
        Self { normal: start, answer, scale: scale.cast(), lse: scale.offset(rows).cast() }
    }
}

impl Working {
    /// Makes them from the parameters.
    pub fn new(gpu: &mut Gpu, shape: &Shape, params: &Params) -> Result<Self> {
        let e = shape.d_model;
        let working = Self {
            qkv_weight: gpu.zeros(3 * e * e / 2)?,
            qkv_bias: gpu.zeros(3 * e)?,
            proj_weight: gpu.zeros(e * e / 2)?,
            qkv_back: gpu.zeros(3 * e * e / 2)?,
            proj_back: gpu.zeros(e * e / 2)?,
        };
        working.refresh(gpu, shape, params)?;
        Ok(working)
    }

    /// Makes them anew from parameters that have changed.
    pub fn refresh(&self, gpu: &mut Gpu, shape: &Shape, params: &Params) -> Result<()> {
        let (e, d) = (shape.d_model, shape.d_model / shape.n_head);
        let none = (Pointer::NULL, Pointer::NULL);
        let qkv = Matrix { w: params.qkv_weight, len: (e, 3 * e), strides: (3 * e, 1), scale: none, count: 1, next: 0 };
        let query = std::f32::consts::LOG2_E / (d as f32).sqrt();
        let out = gpu.address(&self.qkv_bias);
        working::bias(gpu, shape, out, &qkv, params.norm_bias, params.qkv_bias, (e, query))?;

        let out = gpu.address(&self.qkv_weight).cast();
        let kernel = WorkingQkv { out, w: params.qkv_weight, norm: params.norm_weight };
        // SAFETY: the copy has half a word for each element.
        unsafe { gpu.launch(shape, &kernel, Grid::over(3 * e * e / 8)) }?;

        let blocks = working::blocks(e);
        let proj = Matrix { w: params.proj_weight, len: (e, e), strides: (e, 1), scale: none, count: 1, next: 0 };
        let places = Places { place: (blocks, 1), interleaved: (false, true), next: 0 };
        let out = gpu.address(&self.proj_weight).cast();
        working::matrix(gpu, shape, out, &proj, &places)?;

        // Backward, k runs over what were columns.
        let proj = Matrix { strides: (1, e), ..proj };
        let places = Places { place: (blocks, 1), interleaved: (true, false), next: 0 };
        let out = gpu.address(&self.proj_back).cast();
        working::matrix(gpu, shape, out, &proj, &places)?;
        let scale = (Pointer::NULL, params.norm_weight);
        let qkv = Matrix { len: (3 * e, e), strides: (1, 3 * e), scale, ..qkv };
        let places = Places { place: (blocks, 1), interleaved: (false, true), next: 0 };
        let out = gpu.address(&self.qkv_back).cast();
        working::matrix(gpu, shape, out, &qkv, &places)
    }
}

/// x [N, T, E] in place; rows before `from` are unspecified afterwards.
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
    let none = Saved { normal: Pointer::NULL, scale: Pointer::NULL, answer: Pointer::NULL, lse: Pointer::NULL };
    let saved = saved.unwrap_or(none);
    let kernel = AttentionForward {
        x_all: x,
        qkv_weight: gpu.address(&working.qkv_weight).cast(),
        qkv_bias: gpu.address(&working.qkv_bias),
        proj_weight: gpu.address(&working.proj_weight).cast(),
        proj_bias: params.proj_bias,
        normal_all: saved.normal,
        scale_all: saved.scale,
        answer_all: saved.answer,
        lse_all: saved.lse,
        from: from as u32,
    };
    let rows = working::blocks(shape.n_time) * 16;
    let grid = Grid {
        blocks: (n as u32, 1),
        threads: 32 * shape.n_head as u32,
        shared_bytes: (rows * (2 * shape.d_model + 16)) as u32,
    };
    // SAFETY: the caller's.
    unsafe { gpu.launch(shape, &kernel, grid) }
}

/// Memory that the backward pass works in.
#[derive(Debug, Clone, Copy)]
pub struct Scratch {
    /// Gradients of queries, keys and values, bf16 [N, T, 3E] in pairs.
    pub dqkv: Pointer<u32>,
    /// The gradient of the output, bf16 [N, T, E] in pairs.
    pub dout: Pointer<u32>,
}

/// Words that one sequence's [`Scratch`] takes.
pub fn scratch_len(shape: &Shape) -> usize {
    shape.n_time * 2 * shape.d_model
}

impl Scratch {
    /// Of `n` sequences, in `n` · [`scratch_len`] words from `start` on.
    pub fn at(start: Pointer<u32>, shape: &Shape, n: usize) -> Self {
        Self { dqkv: start, dout: start.offset(n * shape.n_time * 3 * shape.d_model / 2) }
    }
}

/// dx [N, T, E] (in: gradient of the output, rows from `from` on; out: of the input, all rows); adds to `grads`, the slots'
/// first.
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
    let (e, n, from) = (shape.d_model, part.n as u32, part.from as u32);
    let Scratch { dqkv, dout } = *scratch;
    let qkv_back = gpu.address(&working.qkv_back).cast();
    let kernel = AttentionBackward {
        dx,
        normal: saved.normal,
        scale: saved.scale,
        answer: saved.answer,
        lse: saved.lse,
        qkv_weight: gpu.address(&working.qkv_weight).cast(),
        qkv_bias: gpu.address(&working.qkv_bias),
        proj_back: gpu.address(&working.proj_back).cast(),
        qkv_back,
        dqkv,
        dout,
        from,
    };
    let heads = gpu.constant(&SOURCE, shape, "attention_backward_heads")?;
    let shared_bytes = gpu.constant(&SOURCE, shape, "attention_backward_shared_bytes")?;
    let grid = Grid { blocks: (n, shape.n_head as u32 / heads), threads: 32 * heads, shared_bytes };
    // SAFETY: the caller's.
    unsafe { gpu.launch(shape, &kernel, grid) }?;

    let qkv = Target::affine((grads.qkv_weight, params.qkv_weight), grads.qkv_bias, (e, 3 * e))
        .behind((grads.norm_weight, params.norm_weight), (grads.norm_bias, params.norm_bias));
    let operands = Operands { a: saved.normal, b: dqkv, rows: shape.n_time, skip: 0, widths: (e, 3 * e) };
    // SAFETY: the caller's.
    unsafe { weights::gradient(gpu, shape, part, &operands, &qkv) }?;
    let proj = Target::affine((grads.proj_weight, params.proj_weight), grads.proj_bias, (e, e));
    let operands = Operands { a: saved.answer, b: dout, rows: shape.n_time, skip: part.from, widths: (e, e) };
    // SAFETY: the caller's.
    unsafe { weights::gradient(gpu, shape, part, &operands, &proj) }?;

    if gpu.constant(&SOURCE, shape, "attention_backward_whole")? != 0 {
        return Ok(());
    }
    let kernel = AttentionBackwardInput { dx, dqkv, normal: saved.normal, scale: saved.scale, qkv_back, n, from };
    let tiles = (part.n * shape.n_time).div_ceil(128) as u32;
    let shared_bytes = gpu.constant(&SOURCE, shape, "attention_backward_input_shared_bytes")?;
    // Two blocks fit on a multiprocessor of most cards.
    let grid = Grid { blocks: (tiles.min(2 * gpu.multiprocessors()), 1), threads: 256, shared_bytes };
    // SAFETY: the caller's.
    unsafe { gpu.launch(shape, &kernel, grid) }
}
