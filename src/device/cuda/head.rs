//! The head with its loss. See `kernels/head.cu`.

use super::kernel::Pointer;
use super::kernel::head::{HeadLogits, HeadLoss, HeadLossBackward, SOURCE};
use super::weights::{self, Operands, Target};
use super::working::{self, Matrix, Places};
use super::{Gpu, Grid, Part, Shape};
use crate::error::Result;
use cudarc::driver::CudaSlice;

/// The head's parameters on the GPU: norm `[E]` + `[E]`, weight [matrices, Q, E].
#[derive(Debug, Clone, Copy)]
#[expect(missing_docs, reason = "the names are GPT-2's")]
pub struct Params {
    pub norm_weight: Pointer<f32>,
    pub norm_bias: Pointer<f32>,
    pub weight: Pointer<f32>,
    /// One matrix for all channels, or one for each.
    pub matrices: usize,
}

/// Working copies of the weights.
pub struct Working {
    weight: CudaSlice<u32>,
    weight_back: CudaSlice<u32>,
    bias: CudaSlice<f32>,
    /// uint4 from one channel's matrix to the next; 0 where all share one.
    matrix_len: u32,
}

/// What the loss reads.
#[derive(Debug, Clone, Copy)]
pub struct Inputs {
    /// [N, T + 1].
    pub token: Pointer<u8>,
    /// `[N]`.
    pub channel: Pointer<u32>,
    /// `[Q]`.
    pub levels: Pointer<f32>,
}

/// What the backward pass writes.
#[derive(Debug, Clone, Copy)]
pub struct Backward {
    /// Weight of one target.
    pub factor: f32,
    /// [N, T, E], rows from `from` on.
    pub dx: Pointer<f32>,
    /// bf16 [N, T - from, 16·ceil(Q/16)] in pairs.
    pub dlogits: Pointer<u32>,
    /// bf16 [N, T - from, E] in pairs.
    pub normals: Pointer<u32>,
}

/// Words that the backward pass leaves of one sequence.
pub fn backward_len(shape: &Shape) -> usize {
    shape.n_time * (8 * working::blocks(shape.n_level) + shape.d_model / 2)
}

impl Backward {
    /// With what is left of `n` sequences in `n` · [`backward_len`] words from `start` on.
    pub fn at(start: Pointer<u32>, shape: &Shape, n: usize, factor: f32, dx: Pointer<f32>) -> Self {
        let normals = start.offset(n * shape.n_time * 8 * working::blocks(shape.n_level));
        Self { factor, dx, dlogits: start, normals }
    }
}

impl Working {
    /// Makes them from the parameters.
    pub fn new(gpu: &mut Gpu, shape: &Shape, params: &Params) -> Result<Self> {
        let (q, count) = (shape.n_level, params.matrices);
        let len = working::blocks(shape.d_model) * working::blocks(q);
        let working = Self {
            weight: gpu.zeros(count * len * 128)?,
            weight_back: gpu.zeros(count * len * 128)?,
            bias: gpu.zeros(count * q)?,
            matrix_len: if count > 1 { (len * 32) as u32 } else { 0 },
        };
        working.refresh(gpu, shape, params)?;
        Ok(working)
    }

    /// Makes them anew from parameters that have changed.
    pub fn refresh(&self, gpu: &mut Gpu, shape: &Shape, params: &Params) -> Result<()> {
        let (e, q, count) = (shape.d_model, shape.n_level, params.matrices);
        let (steps, levels) = (working::blocks(e), working::blocks(q));
        let len = steps * levels;
        // In the product for logits k runs over the width and columns are levels; backward it is the other way round.
        let forward = Matrix {
            w: params.weight,
            len: (e, q),
            strides: (1, e),
            scale: (params.norm_weight, Pointer::NULL),
            count,
            next: q * e,
        };
        let out = gpu.address(&self.bias);
        working::bias(gpu, shape, out, &forward, params.norm_bias, Pointer::NULL, (0, 1.0))?;
        let out = gpu.address(&self.weight).cast();
        let places = Places { place: (1, steps), interleaved: (true, true), next: len };
        working::matrix(gpu, shape, out, &forward, &places)?;
        let backward = Matrix { len: (q, e), strides: (e, 1), scale: (Pointer::NULL, params.norm_weight), ..forward };
        let out = gpu.address(&self.weight_back).cast();
        let places = Places { place: (steps, 1), interleaved: (true, true), next: len };
        working::matrix(gpu, shape, out, &backward, &places)
    }
}

/// Scores [N, 4] of the targets of timesteps `from ..`, and with `backward` the gradients.
///
/// # Safety
/// Everything has the shape that is stated; tokens are below Q, channels below the number of matrices.
#[expect(clippy::too_many_arguments, reason = "one fused stage, forward and backward")]
pub unsafe fn loss(
    gpu: &mut Gpu,
    shape: &Shape,
    (n, from): (usize, usize),
    working: &Working,
    inputs: &Inputs,
    x: Pointer<f32>,
    scores: Pointer<f32>,
    backward: Option<Backward>,
) -> Result<()> {
    let from = from as u32;
    let (weight, bias, matrix_len) =
        (gpu.address(&working.weight).cast(), gpu.address(&working.bias), working.matrix_len);
    let Inputs { token, channel, levels } = *inputs;
    let grid = |shared_bytes| Grid { blocks: (n as u32, 1), threads: 256, shared_bytes };
    match backward {
        None => {
            let kernel = HeadLoss { x, weight, bias, matrix_len, token, channel, levels, scores, from };
            let shared_bytes = gpu.constant(&SOURCE, shape, "head_forward_shared_bytes")?;
            // SAFETY: the caller's.
            unsafe { gpu.launch(shape, &kernel, grid(shared_bytes)) }
        }
        Some(Backward { factor, dx, dlogits, normals }) => {
            let weight_back = gpu.address(&working.weight_back).cast();
            let kernel = HeadLossBackward {
                x,
                weight,
                weight_back,
                bias,
                matrix_len,
                token,
                channel,
                levels,
                scores,
                factor,
                dx,
                dlogits,
                normals,
                from,
            };
            let shared_bytes = gpu.constant(&SOURCE, shape, "head_backward_shared_bytes")?;
            // SAFETY: the caller's.
            unsafe { gpu.launch(shape, &kernel, grid(shared_bytes)) }
        }
    }
}

/// Logits [N, T - from, Q] of timesteps `from ..`.
///
/// # Safety
/// Everything has the shape that is stated; channels are below the number of matrices.
pub unsafe fn logits(
    gpu: &mut Gpu,
    shape: &Shape,
    (n, from): (usize, usize),
    working: &Working,
    channel: Pointer<u32>,
    x: Pointer<f32>,
    logits: Pointer<f32>,
) -> Result<()> {
    let kernel = HeadLogits {
        x,
        weight: gpu.address(&working.weight).cast(),
        bias: gpu.address(&working.bias),
        matrix_len: working.matrix_len,
        channel,
        logits,
        from: from as u32,
    };
    let shared_bytes = gpu.constant(&SOURCE, shape, "head_forward_shared_bytes")?;
    // SAFETY: the caller's.
    unsafe { gpu.launch(shape, &kernel, Grid { blocks: (n as u32, 1), threads: 256, shared_bytes }) }
}

/// Adds the gradients of the head's parameters to `grads`, the slots' first, from what the loss's backward pass left.
///
/// # Safety
/// Everything has the shape that is stated.
pub unsafe fn gradients(
    gpu: &mut Gpu,
    shape: &Shape,
    part: &Part,
    params: &Params,
    grads: &Params,
    channel: Pointer<u32>,
    backward: &Backward,
) -> Result<()> {
    let (e, q) = (shape.d_model, shape.n_level);
    let target = Target {
        weight: (grads.weight, params.weight),
        bias: Pointer::NULL,
        norm: Some([(grads.norm_weight, params.norm_weight), (grads.norm_bias, params.norm_bias)]),
        strides: (1, e),
        len: (e, q),
        per_channel: (params.matrices > 1).then_some((channel, q * e)),
    };
    let (rows, widths) = (shape.n_time - part.from, (e, 16 * working::blocks(q)));
    let operands = Operands { a: backward.normals, b: backward.dlogits, rows, skip: 0, widths };
    // SAFETY: the caller's.
    unsafe { weights::gradient(gpu, shape, part, &operands, &target) }
}
