//! The head with its loss. See `kernels/general_loss.cu`.

use super::super::head::{Inputs, Params};
use super::super::kernel::Pointer;
use super::super::kernel::general_loss::LossOfLogits;
use super::super::kernel::general_product::{ProductLogits, SOURCE};
use super::super::weights::{self, Operands, Target};
use super::super::working::{self, Matrix};
use super::super::{Gpu, Grid, Part, Shape};
use super::{PerChannel, Rows, cut, fill, matrix_len, norm, norm_backward, padded, product, rows_len, total};
use crate::error::Result;
use cudarc::driver::CudaSlice;

/// Working copies of the weights.
pub struct Working {
    weight: CudaSlice<u32>,
    weight_back: CudaSlice<u32>,
    bias: CudaSlice<f32>,
    /// uint4 from one channel's matrix to the next; none where all share one.
    matrix_len: Option<u32>,
}

impl Working {
    /// Makes them from the parameters.
    pub fn new(gpu: &mut Gpu, shape: &Shape, params: &Params) -> Result<Self> {
        let (q, count) = (shape.n_level, params.matrices);
        let len = matrix_len(shape.d_model, q);
        let working = Self {
            weight: gpu.zeros(count * len)?,
            weight_back: gpu.zeros(count * len)?,
            bias: gpu.zeros(count * q)?,
            matrix_len: (count > 1).then_some((len / 4) as u32),
        };
        working.refresh(gpu, shape, params)?;
        Ok(working)
    }

    /// Makes them anew from parameters that have changed.
    pub fn refresh(&self, gpu: &mut Gpu, shape: &Shape, params: &Params) -> Result<()> {
        let (e, q) = (shape.d_model, shape.n_level);
        // In the product for logits k runs over the width and columns are levels; backward it is the other way round.
        let forward = Matrix {
            w: params.weight,
            len: (e, q),
            strides: (1, e),
            scale: (params.norm_weight, Pointer::NULL),
            count: params.matrices,
            next: q * e,
        };
        let out = gpu.address(&self.bias);
        working::bias(gpu, shape, out, &forward, params.norm_bias, Pointer::NULL, (0, 1.0))?;
        fill(gpu, shape, gpu.address(&self.weight), &forward, (0, 1.0))?;
        let backward = Matrix { len: (q, e), strides: (e, 1), scale: (Pointer::NULL, params.norm_weight), ..forward };
        fill(gpu, shape, gpu.address(&self.weight_back), &backward, (0, 1.0))
    }

    fn per_channel(&self, channel: Pointer<u32>) -> PerChannel {
        self.matrix_len.map(|len| (channel, len))
    }
}

/// Memory that the head works in; for gradients of the parameters its content must last from the loss on.
#[derive(Debug, Clone, Copy)]
pub struct Scratch {
    /// Normalised rows, bf16 [N, T, E].
    normal: Pointer<u32>,
    /// The norm's factors [N, T].
    scale: Pointer<f32>,
    /// [N, T − from, Q].
    logits: Pointer<f32>,
    /// Their gradient, bf16 [N, T, Q].
    dlogits: Pointer<u32>,
    /// The gradient of normalised rows, bf16 [N, T, E].
    dnormal: Pointer<u32>,
}

fn scratch_lens(shape: &Shape) -> [usize; 5] {
    let (t, q, rows) = (shape.n_time, shape.n_level, rows_len(shape, shape.d_model));
    [rows, t, t * q, rows_len(shape, q), rows]
}

/// Words that one sequence's [`Scratch`] takes.
pub fn scratch_len(shape: &Shape) -> usize {
    total(&scratch_lens(shape))
}

impl Scratch {
    /// Of `n` sequences, in `n` · [`scratch_len`] words from `start` on, a multiple of sixteen bytes.
    pub fn at(start: Pointer<u32>, shape: &Shape, n: usize) -> Self {
        let [normal, scale, logits, dlogits, dnormal] = cut(start, n, scratch_lens(shape));
        Self { normal, scale: scale.cast(), logits: logits.cast(), dlogits, dnormal }
    }
}

/// Scores [N, 4] of the targets of timesteps `from ..`. With `backward`, a factor and dx [N, T, E], rows of dx from `from` on are
/// overwritten with the gradient of factor · nats.
///
/// # Safety
/// Everything has the shape that is stated; tokens are below Q, channels below the number of matrices.
#[expect(clippy::too_many_arguments, reason = "one stage, forward and backward")]
pub unsafe fn loss(
    gpu: &mut Gpu,
    shape: &Shape,
    (n, from): (usize, usize),
    working: &Working,
    inputs: &Inputs,
    x: Pointer<f32>,
    scratch: &Scratch,
    scores: Pointer<f32>,
    backward: Option<(f32, Pointer<f32>)>,
) -> Result<()> {
    let Scratch { normal, scale, logits: to, dlogits, dnormal } = *scratch;
    // SAFETY: the caller's.
    unsafe { logits(gpu, shape, (n, from), working, inputs.channel, x, scratch, to) }?;
    let kernel = LossOfLogits {
        logits: to,
        token: inputs.token,
        levels: inputs.levels,
        scores,
        factor: backward.map_or(0.0, |(factor, _)| factor),
        dlogits: if backward.is_some() { dlogits.cast() } else { Pointer::NULL },
        from: from as u32,
    };
    // SAFETY: the caller's.
    unsafe { gpu.launch(shape, &kernel, Grid { blocks: (n as u32, 1), threads: 256, shared_bytes: 0 }) }?;
    let Some((_, dx)) = backward else { return Ok(()) };
    let (rows, sizes) = (Rows { n, skip: from }, (shape.n_level, shape.d_model));
    let weight = (gpu.address(&working.weight_back), Pointer::NULL);
    // SAFETY: the caller's.
    unsafe {
        product(gpu, shape, rows, dlogits, weight, sizes, working.per_channel(inputs.channel), dnormal)?;
        norm_backward(gpu, shape, (rows, shape.n_time), dnormal, (normal, scale), dx)
    }
}

/// Logits [N, T − from, Q] of timesteps `from ..`.
///
/// # Safety
/// Everything has the shape that is stated; channels are below the number of matrices.
#[expect(clippy::too_many_arguments, reason = "what a stage needs")]
pub unsafe fn logits(
    gpu: &mut Gpu,
    shape: &Shape,
    (n, from): (usize, usize),
    working: &Working,
    channel: Pointer<u32>,
    x: Pointer<f32>,
    scratch: &Scratch,
    logits: Pointer<f32>,
) -> Result<()> {
    let rows = Rows { n, skip: from };
    // SAFETY: the caller's.
    unsafe { norm(gpu, shape, rows, x, (scratch.normal, scratch.scale)) }?;
    let per_channel = working.per_channel(channel);
    let (channel, matrix_len) = per_channel.unwrap_or((Pointer::NULL, 0));
    let kernel = ProductLogits {
        a: scratch.normal.cast(),
        b: gpu.address(&working.weight).cast(),
        bias: gpu.address(&working.bias),
        channel,
        matrix_len,
        logits,
        n: n as u32,
        skip: from as u32,
    };
    let shared_bytes = gpu.constant(&SOURCE, shape, "product_shared_bytes")?;
    let grid = rows.tiles(shape, 128, shape.n_level, per_channel.is_some(), shared_bytes);
    // SAFETY: the caller's.
    unsafe { gpu.launch(shape, &kernel, grid) }
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
    scratch: &Scratch,
) -> Result<()> {
    let (e, q) = (shape.d_model, shape.n_level);
    let target = Target {
        strides: (1, e),
        per_channel: (params.matrices > 1).then_some((channel, q * e)),
        ..Target::affine((grads.weight, params.weight), Pointer::NULL, (e, q))
            .behind((grads.norm_weight, params.norm_weight), (grads.norm_bias, params.norm_bias))
    };
    let Scratch { normal, dlogits, .. } = *scratch;
    let widths = (padded(e), padded(q));
    let operands = Operands { a: normal, b: dlogits, rows: shape.n_time, skip: part.from, widths };
    // SAFETY: the caller's.
    unsafe { weights::gradient(gpu, shape, part, &operands, &target) }
}
