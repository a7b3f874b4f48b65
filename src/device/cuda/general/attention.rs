//! The attention half-block. See `kernels/general_attention.cu`.

use super::super::attention::Params;
use super::super::kernel::Pointer;
use super::super::kernel::general_attention::{Attend, SOURCE};
use super::super::kernel::general_attention_backward::{self, AttendBackwardKeys, AttendBackwardQueries};
use super::super::kernel::general_product::{self, ProductAdd};
use super::super::weights::{self, Operands, Target};
use super::super::working::{self, Matrix};
use super::super::{Gpu, Grid, Part, Shape};
use super::{Rows, cut, fill, matrix_len, narrow, norm, norm_backward, padded, product, rows_len, total};
use crate::error::Result;
use cudarc::driver::CudaSlice;

/// Timesteps of a block of threads.
const TILE: usize = 64;

/// Working copies of the weights.
pub struct Working {
    qkv: CudaSlice<u32>,
    qkv_bias: CudaSlice<f32>,
    proj: CudaSlice<u32>,
    qkv_back: CudaSlice<u32>,
    proj_back: CudaSlice<u32>,
}

impl Working {
    /// Makes them from the parameters.
    pub fn new(gpu: &mut Gpu, shape: &Shape, params: &Params) -> Result<Self> {
        let e = shape.d_model;
        let working = Self {
            qkv: gpu.zeros(matrix_len(e, 3 * e))?,
            qkv_bias: gpu.zeros(3 * e)?,
            proj: gpu.zeros(matrix_len(e, e))?,
            qkv_back: gpu.zeros(matrix_len(3 * e, e))?,
            proj_back: gpu.zeros(matrix_len(e, e))?,
        };
        working.refresh(gpu, shape, params)?;
        Ok(working)
    }

    /// Makes them anew from parameters that have changed.
    pub fn refresh(&self, gpu: &mut Gpu, shape: &Shape, params: &Params) -> Result<()> {
        let (e, d) = (shape.d_model, shape.d_model / shape.n_head);
        // Queries carry the factor of scores, whose exponentials have base two.
        let queries = (e, std::f32::consts::LOG2_E / (d as f32).sqrt());
        let scale = (params.norm_weight, Pointer::NULL);
        let qkv = Matrix { w: params.qkv_weight, len: (e, 3 * e), strides: (3 * e, 1), scale, count: 1, next: 0 };
        let out = gpu.address(&self.qkv_bias);
        working::bias(gpu, shape, out, &qkv, params.norm_bias, params.qkv_bias, queries)?;
        fill(gpu, shape, gpu.address(&self.qkv), &qkv, queries)?;
        let scale = (Pointer::NULL, params.norm_weight);
        let qkv = Matrix { len: (3 * e, e), strides: (1, 3 * e), scale, ..qkv };
        fill(gpu, shape, gpu.address(&self.qkv_back), &qkv, (0, 1.0))?;
        let scale = (Pointer::NULL, Pointer::NULL);
        let proj = Matrix { w: params.proj_weight, len: (e, e), strides: (e, 1), scale, count: 1, next: 0 };
        fill(gpu, shape, gpu.address(&self.proj), &proj, (0, 1.0))?;
        fill(gpu, shape, gpu.address(&self.proj_back), &Matrix { strides: (1, e), ..proj }, (0, 1.0))
    }
}

/// What the backward pass will need.
#[derive(Debug, Clone, Copy)]
pub struct Saved {
    /// Normalised rows, bf16 [N, T, E].
    pub normal: Pointer<u32>,
    /// The heads' answers, bf16 [N, T, E], rows from `from` on.
    pub answer: Pointer<u32>,
    /// The norm's factors [N, T].
    pub scale: Pointer<f32>,
    /// log2 of the sums of exponentials [N, H, T], timesteps from `from` on.
    pub lse: Pointer<f32>,
}

fn saved_lens(shape: &Shape) -> [usize; 4] {
    let rows = rows_len(shape, shape.d_model);
    [rows, rows, shape.n_time, shape.n_head * shape.n_time]
}

/// Words that one sequence's [`Saved`] takes: a multiple of four.
pub fn saved_len(shape: &Shape) -> usize {
    total(&saved_lens(shape))
}

impl Saved {
    /// What `n` sequences keep in `n` · [`saved_len`] words from `start` on, a multiple of sixteen bytes.
    pub fn at(start: Pointer<u32>, shape: &Shape, n: usize) -> Self {
        let [normal, answer, scale, lse] = cut(start, n, saved_lens(shape));
        Self { normal, answer, scale: scale.cast(), lse: lse.cast() }
    }
}

/// Memory that both passes work in. Its content need not last from one to the other.
#[derive(Debug, Clone, Copy)]
pub struct Scratch {
    /// In place of what is not saved.
    saved: Saved,
    /// Queries, keys and values, bf16 [N, T, 3E].
    qkv: Pointer<u32>,
    /// Their gradients.
    dqkv: Pointer<u32>,
    /// The gradient of the output, bf16 [N, T, E].
    dout: Pointer<u32>,
    /// The gradient of the answers, bf16 [N, T, E].
    danswer: Pointer<u32>,
    /// The gradient of normalised rows, bf16 [N, T, E].
    dnormal: Pointer<u32>,
    /// Σ danswer·answer [N, H, T].
    dots: Pointer<f32>,
}

fn scratch_lens(shape: &Shape) -> [usize; 7] {
    let (one, three) = (rows_len(shape, shape.d_model), rows_len(shape, 3 * shape.d_model));
    [saved_len(shape), three, three, one, one, one, shape.n_head * shape.n_time]
}

/// Words that one sequence's [`Scratch`] takes.
pub fn scratch_len(shape: &Shape) -> usize {
    total(&scratch_lens(shape))
}

impl Scratch {
    /// Of `n` sequences, in `n` · [`scratch_len`] words from `start` on, a multiple of sixteen bytes.
    pub fn at(start: Pointer<u32>, shape: &Shape, n: usize) -> Self {
        let [saved, qkv, dqkv, dout, danswer, dnormal, dots] = cut(start, n, scratch_lens(shape));
        Self { saved: Saved::at(saved, shape, n), qkv, dqkv, dout, danswer, dnormal, dots: dots.cast() }
    }
}

/// Blocks of threads for attention's tiles from timestep `from` on.
fn grid(gpu: &mut Gpu, shape: &Shape, (n, from): (usize, usize), shared_bytes: u32) -> Result<Grid> {
    let chunks = gpu.constant(&SOURCE, shape, "attention_chunks")?;
    let tiles = shape.n_time.div_ceil(TILE) - from / TILE;
    Ok(Grid { blocks: ((n * shape.n_head) as u32, tiles as u32 * chunks), threads: 128, shared_bytes })
}

/// x [N, T, E] in place, rows from `from` on.
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
    let Saved { normal, answer, scale, lse } = saved.unwrap_or(scratch.saved);
    let (all, rows) = (Rows { n, skip: 0 }, Rows { n, skip: from });
    let (qkv, bias) = (gpu.address(&working.qkv), gpu.address(&working.qkv_bias));
    // SAFETY: the caller's.
    unsafe {
        norm(gpu, shape, all, x, (normal, scale))?;
        product(gpu, shape, all, normal, (qkv, bias), (e, 3 * e), None, scratch.qkv)?;
    }
    let kernel = Attend { qkv: scratch.qkv.cast(), answer: answer.cast(), lse, from: from as u32 };
    let shared_bytes = gpu.constant(&SOURCE, shape, "attention_shared_bytes")?;
    let grid = grid(gpu, shape, (n, from), shared_bytes)?;
    // SAFETY: the caller's.
    unsafe { gpu.launch(shape, &kernel, grid) }?;
    let kernel = ProductAdd {
        a: answer.cast(),
        b: gpu.address(&working.proj).cast(),
        bias: params.proj_bias,
        x,
        k_len: e as u32,
        n: n as u32,
        skip: from as u32,
    };
    let shared_bytes = gpu.constant(&general_product::SOURCE, shape, "product_shared_bytes")?;
    // SAFETY: the caller's.
    unsafe { gpu.launch(shape, &kernel, rows.tiles(shape, 128, e, false, shared_bytes)) }
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
    let (e, from) = (shape.d_model, part.from);
    let Saved { normal, answer, scale, lse } = *saved;
    let Scratch { qkv, dqkv, dout, danswer, dnormal, dots, .. } = *scratch;
    let (all, rows) = (Rows { n: part.n, skip: 0 }, Rows { n: part.n, skip: from });
    let (proj_back, qkv_bias) = (gpu.address(&working.proj_back), gpu.address(&working.qkv_bias));
    let (qkv_weight, qkv_back) = (gpu.address(&working.qkv), gpu.address(&working.qkv_back));
    // SAFETY: the caller's.
    unsafe {
        narrow(gpu, shape, rows, dx, dout)?;
        product(gpu, shape, rows, dout, (proj_back, Pointer::NULL), (e, e), None, danswer)?;
        product(gpu, shape, all, normal, (qkv_weight, qkv_bias), (e, 3 * e), None, qkv)?;
    }

    let queries = AttendBackwardQueries {
        qkv: qkv.cast(),
        answer: answer.cast(),
        danswer: danswer.cast(),
        lse,
        dots,
        dqkv: dqkv.cast(),
        from: from as u32,
    };
    let keys = AttendBackwardKeys {
        qkv: qkv.cast(),
        danswer: danswer.cast(),
        lse,
        dots,
        dqkv: dqkv.cast(),
        from: from as u32,
    };
    let name = "attention_backward_shared_bytes";
    let shared_bytes = gpu.constant(&general_attention_backward::SOURCE, shape, name)?;
    let grid = grid(gpu, shape, (part.n, 0), shared_bytes)?;
    // SAFETY: the caller's.
    unsafe {
        gpu.launch(shape, &queries, grid)?;
        gpu.launch(shape, &keys, grid)?;
    }

    let target = Target::affine((grads.qkv_weight, params.qkv_weight), grads.qkv_bias, (e, 3 * e))
        .behind((grads.norm_weight, params.norm_weight), (grads.norm_bias, params.norm_bias));
    let widths = (padded(e), padded(3 * e));
    let operands = Operands { a: normal, b: dqkv, rows: shape.n_time, skip: 0, widths };
    // SAFETY: the caller's.
    unsafe { weights::gradient(gpu, shape, part, &operands, &target) }?;
    let target = Target::affine((grads.proj_weight, params.proj_weight), grads.proj_bias, (e, e));
    let widths = (padded(e), padded(e));
    let operands = Operands { a: answer, b: dout, rows: shape.n_time, skip: from, widths };
    // SAFETY: the caller's.
    unsafe {
        weights::gradient(gpu, shape, part, &operands, &target)?;
        product(gpu, shape, all, dqkv, (qkv_back, Pointer::NULL), (3 * e, e), None, dnormal)?;
        norm_backward(gpu, shape, (all, from), dnormal, (normal, scale), dx)
    }
}
