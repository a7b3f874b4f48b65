//! The optimiser. See `kernels/update.cu`.

use super::kernel::Pointer;
use super::kernel::update::{Adamw, JudgeNorm, SumSlots};
use super::{Gpu, Grid, Shape, failed};
use crate::device::{AdamW, UpdateOutcome};
use crate::error::Result;
use cudarc::driver::{CudaSlice, DriverError};

/// The state of the optimiser on the GPU.
#[derive(Debug, Clone, Copy)]
pub struct State {
    /// Parameters (P).
    pub len: usize,
    /// Those that decay applies to: the prefix of this length.
    pub n_decayed: usize,
    /// `[P]`.
    pub params: Pointer<f32>,
    /// [GRAD_SLOTS, P].
    pub grads: Pointer<f32>,
    /// `[P]`.
    pub m: Pointer<f32>,
    /// `[P]`.
    pub v: Pointer<f32>,
}

/// What an update sums up, kept from one to the next: the outcome's two numbers, then the squares of each piece.
#[derive(Default)]
pub struct Sums(Option<CudaSlice<f64>>);

impl Sums {
    /// Room for so many pieces, and for the outcome; whatever was there last.
    fn room(&mut self, gpu: &Gpu, pieces: usize) -> Result<(Pointer<f64>, Pointer<f64>)> {
        if self.0.as_ref().is_none_or(|room| room.len() < 2 + pieces) {
            self.0 = Some(gpu.zeros(2 + pieces)?);
        }
        let outcome = gpu.address(self.0.as_ref().expect("made above"));
        Ok((outcome.offset(2), outcome))
    }

    /// The last outcome, after everything has run.
    fn outcome(&self, gpu: &Gpu) -> std::result::Result<[f64; 2], DriverError> {
        let mut outcome = [0.0; 2];
        if let Some(room) = &self.0 {
            gpu.stream().memcpy_dtoh(&room.slice(..2), &mut outcome)?;
            gpu.stream().synchronize()?;
        }
        Ok(outcome)
    }
}

/// Sums the slots, clips by the norm, updates params and moments, and zeroes the gradients. If the norm or any of the scores
/// is not finite, params and moments keep their bits.
///
/// # Safety
/// Everything has the size that is stated.
pub unsafe fn update(
    gpu: &mut Gpu,
    shape: &Shape,
    sums: &mut Sums,
    state: &State,
    hyper: &AdamW,
    (scores, scores_len): (Pointer<f32>, usize),
) -> Result<UpdateOutcome> {
    let State { len, n_decayed, params, grads, m, v } = *state;
    let pieces = len.div_ceil(1024);
    let (squares, outcome) = sums.room(gpu, pieces)?;
    let blocks = |blocks: usize| Grid { blocks: (blocks as u32, 1), threads: 256, shared_bytes: 0 };
    // SAFETY: the caller's.
    unsafe { gpu.launch(shape, &SumSlots { grads, squares, len: len as u64 }, blocks(pieces)) }?;
    let (pieces, scores_len) = (pieces as u32, scores_len as u32);
    let judge = JudgeNorm { squares, pieces, scores, scores_len, max_norm: hyper.max_norm, outcome };
    // SAFETY: the caller's.
    unsafe { gpu.launch(shape, &judge, blocks(1)) }?;
    // Bias corrections and products in f64: 1 − β^step loses digits in f32.
    let (beta1, beta2, lr) = (f64::from(hyper.beta1), f64::from(hyper.beta2), f64::from(hyper.lr));
    let step = hyper.step as f64;
    let adamw = Adamw {
        params,
        m,
        v,
        grads,
        outcome,
        gain1: (1.0 - beta1) as f32,
        decay2: hyper.beta2,
        gain2: (1.0 - beta2) as f32,
        inverse_root2: (1.0 / (1.0 - beta2.powf(step)).sqrt()) as f32,
        eps: hyper.eps,
        rate: (lr / (1.0 - beta1.powf(step))) as f32,
        shrink: (1.0 - lr * f64::from(hyper.weight_decay)) as f32,
        decayed: n_decayed as u64,
        len: len as u64,
    };
    // SAFETY: the caller's.
    unsafe { gpu.launch(shape, &adamw, blocks(len.div_ceil(1024))) }?;
    let [grad_norm, factor] = sums.outcome(gpu).map_err(|error| failed("read the gradient's norm", error))?;
    Ok(UpdateOutcome { grad_norm, applied: factor >= 0.0 })
}
