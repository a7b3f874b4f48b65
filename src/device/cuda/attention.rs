//! The attention half-block. See `kernels/attention.cu`.

use super::kernel::Pointer;
use super::kernel::attention::AttentionForward;
use super::kernel::working::WorkingQkv;
use super::working::{self, Matrix, Places};
use super::{Gpu, Grid, Shape};
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

impl Working {
    /// Makes them from the parameters.
    pub fn new(gpu: &mut Gpu, shape: &Shape, params: &Params) -> Result<Self> {
        let (e, d) = (shape.d_model, shape.d_model / shape.n_head);
        let none = (Pointer::NULL, Pointer::NULL);
        let qkv = Matrix { w: params.qkv_weight, len: (e, 3 * e), strides: (3 * e, 1), scale: none, count: 1, next: 0 };
        let query = std::f32::consts::LOG2_E / (d as f32).sqrt();
        let qkv_bias = working::bias(gpu, shape, &qkv, params.norm_bias, params.qkv_bias, (e, query))?;

        let qkv_weight = gpu.zeros(3 * e * e / 2)?;
        let out = gpu.address(&qkv_weight).cast();
        let kernel = WorkingQkv { out, w: params.qkv_weight, norm: params.norm_weight };
        // SAFETY: the copy has half a word for each element.
        unsafe { gpu.launch(shape, &kernel, Grid::over(3 * e * e / 8)) }?;

        let blocks = working::blocks(e);
        let proj = Matrix { w: params.proj_weight, len: (e, e), strides: (e, 1), scale: none, count: 1, next: 0 };
        let places = Places { place: (blocks, 1), interleaved: (false, true), next: 0 };
        let proj_weight = gpu.zeros(e * e / 2)?;
        let out = gpu.address(&proj_weight).cast();
        working::matrix(gpu, shape, out, &proj, &places)?;
        Ok(Self { qkv_weight, qkv_bias, proj_weight })
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
