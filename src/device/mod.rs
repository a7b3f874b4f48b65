//! The device: the stages of the model, forward and backward, and the memory they work on.
//!
//! A stage is a half-block, not an operator: that is the unit a GPU fuses best and that stays in a CPU core's cache.
//! Models call stages in order and hold [`Tensor`] handles; inside a stage each device is free. Three rules hold on
//! every device:
//!
//! 1. **Sequences are independent.** Every channel of a window is one sequence of `n_time` timesteps; what a stage
//!    writes for one sequence has the same bits whichever other sequences are in the call.
//! 2. **Gradients of parameters have fixed slots.** A gradient buffer holds [`Device::grad_slots`] copies of the flat
//!    parameters. The sequence with index `i` within the step adds to slot `i % grad_slots`, in the order of `i`;
//!    [`Device::update`] sums the slots in a fixed tree. No sum depends on the number of threads or multiprocessors, nor on
//!    how a step is cut into calls of up to `grad_slots` sequences. Where a call may have more of them than there are slots,
//!    a slot's sequences within a call are summed first.
//! 3. **Activation gradients overwrite, parameter gradients accumulate.** The residual stream is updated in place,
//!    forward and backward.
//!
//! The residual stream, its gradient and what half-blocks keep may be made for more sequences than a call has; the first
//! ones are used. Shapes are written as comments: N sequences, T = `n_time`, E = `d_model`, H heads, D = E / H, Q levels.

mod choice;
pub mod cpu;
pub mod cuda;
pub mod describe;
mod rollout;
mod tensor;
pub mod wavenet;

use crate::error::{Error, Kind, Result};

pub use choice::{DeviceChoice, cpu_instead, open};
pub use rollout::{Rollout, Sampler};
pub use tensor::{AttentionParams, Dtype, EmbedParams, HeadParams, Inputs, MlpParams, Tensor};

/// The part of a step that one call of a stage works on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    /// Index within the step of the call's first sequence: chooses its gradient slot.
    pub first: usize,
    /// Sequences in this call (N), at most [`Device::max_sequences`].
    pub n: usize,
    /// Timesteps of each sequence (T).
    pub n_time: usize,
    /// Width of the residual stream (E).
    pub d_model: usize,
    /// Attention heads (H).
    pub n_head: usize,
    /// First timestep whose output anybody needs. Attention reads keys and values of all timesteps but answers only
    /// these; MLP and head leave earlier rows alone. After such a call the earlier rows of the residual stream are
    /// unspecified.
    pub from: usize,
}

/// Sums over the targets of one sequence, as a row of four f32 in the tensor [`Device::head_loss`] fills. Where a logit is
/// not finite, the target is no hit, and `nats` and `squared` are NaN.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Score {
    /// Cross-entropy in nats, summed.
    pub nats: f32,
    /// Targets that were the most probable level (the lowest such level at a tie).
    pub top1: f32,
    /// Targets among the five most probable levels (a tie counts by the lower level).
    pub top5: f32,
    /// Squared difference between the most probable level's value and the target's, by the table of levels.
    pub squared: f32,
}

impl Score {
    /// Elements of a row.
    pub const LEN: usize = 4;
}

/// Which half-block a device keeps activations for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HalfBlock {
    /// `x += attention(norm(x))`.
    Attention,
    /// `x += mlp(norm(x))`.
    Mlp,
}

/// Hyperparameters of one AdamW update (decay 0 is Adam).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamW {
    /// Learning rate of this step.
    pub lr: f32,
    /// Decay of the first moment.
    pub beta1: f32,
    /// Decay of the second moment.
    pub beta2: f32,
    /// Added to the root of the second moment.
    pub eps: f32,
    /// Decoupled weight decay, applied to the decayed prefix.
    pub weight_decay: f32,
    /// Gradients with a larger norm are scaled down to it; infinity for never.
    pub max_norm: f32,
    /// Number of this update, counted from 1: the bias correction.
    pub step: u64,
}

/// The state an update works on: four flat buffers of one layout.
#[derive(Debug, Clone, Copy)]
pub struct OptimizerState {
    /// f32 `[P]`.
    pub params: Tensor,
    /// f32 [grad_slots, P]; zero after the update.
    pub grads: Tensor,
    /// First moments, f32 `[P]`.
    pub m: Tensor,
    /// Second moments, f32 `[P]`.
    pub v: Tensor,
    /// Parameters that decay applies to: the prefix of this length.
    pub n_decayed: usize,
}

/// What an update did.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct UpdateOutcome {
    /// Euclidean norm of the summed gradient, before clipping.
    pub grad_norm: f64,
    /// False when the norm (or its square, which would stay in the second moments for ever) or a score was not finite:
    /// nothing was changed but the gradients, which are zero again.
    pub applied: bool,
}

/// A kernel's name, and the seconds of one launch.
pub type KernelTime = (&'static str, f64);

/// A machine that runs the stages. Usable as `&mut dyn Device`.
pub trait Device: Send {
    /// What it is: for a processor, the instruction set it uses, but not the number of threads.
    fn name(&self) -> String;

    /// All that decides the bits of its results, to be kept with them: for a GPU the compiler and the kernels, too.
    fn identity(&self) -> String {
        self.name()
    }

    // ---- memory -----------------------------------------------------------------------------------------------------

    /// A new tensor of `len` elements, all zero.
    fn alloc(&mut self, dtype: Dtype, len: usize) -> Result<Tensor>;
    /// Gives a whole buffer back; any handle into it is dead.
    fn free(&mut self, tensor: Tensor);
    /// Copies bytes in; their number is the tensor's size.
    fn upload(&mut self, to: Tensor, from: &[u8]) -> Result<()>;
    /// Copies bytes out, after everything that was asked for before is done.
    fn download(&mut self, from: Tensor, to: &mut [u8]) -> Result<()>;
    /// Sets every element to zero.
    fn zero(&mut self, tensor: Tensor) -> Result<()>;
    /// Waits until everything asked for is done.
    fn sync(&mut self) -> Result<()>;
    /// Whether it is a GPU: beside the host, with memory of its own, and with much that a machine may turn out to lack.
    fn is_gpu(&self) -> bool {
        false
    }
    /// Bytes of the device's own memory that are free; none where it has none of its own.
    fn free_memory(&self) -> Result<Option<usize>> {
        Ok(None)
    }

    /// Makes the calls of stages that `step` makes on the device it is given, and no other calls; says what `step` says, which is
    /// whether it came to its end. Usually they are the same calls each time: a device may then ask for all that follows from
    /// them at once, and to find out that they are not, it may call `step` twice.
    fn repeated(&mut self, step: &mut (dyn FnMut(&mut dyn Device) -> Result<bool> + Send)) -> Result<bool>;

    /// Does `work`, and says how many seconds each kernel took that it launched, in their order; nothing, and without doing it, where
    /// no kernels are launched.
    fn timed(&mut self, _work: &mut dyn FnMut(&mut dyn Device) -> Result<()>) -> Result<Option<Vec<KernelTime>>> {
        Ok(None)
    }

    // ---- how a step is cut ------------------------------------------------------------------------------------------

    /// Sequences that one call of a stage should take, and the most it may. Where that is more than `grad_slots`, it is a
    /// constant of the device.
    fn max_sequences(&self) -> usize;
    /// Copies of the parameters in a gradient buffer: a constant of the device, whatever its threads.
    fn grad_slots(&self) -> usize;
    /// f32 elements per sequence that this half-block wants to keep for its backward pass.
    fn saved_len(&self, half: HalfBlock, call: &Call) -> usize;

    /// Bytes of its memory that stages of calls of `n` sequences take besides what callers allocate, at most.
    fn work_bytes(&self, _config: &crate::model::config::ModelConfig, _n: usize) -> usize {
        0
    }

    // ---- the stages of GPT2MEG --------------------------------------------------------------------------------------

    /// `x[n,t] = token[id] + position[t] + channel[c] + subject[s] + (condition > 0 ? condition[y] : 0)`.
    /// x: [N, T, E], overwritten.
    fn embed(&mut self, call: &Call, params: &EmbedParams, inputs: &Inputs, x: Tensor) -> Result<()>;
    /// Adds dx to the rows of the tables that [`Device::embed`] read, in the order of (n, t) within a slot.
    fn embed_backward(&mut self, call: &Call, grads: &EmbedParams, inputs: &Inputs, dx: Tensor) -> Result<()>;

    /// x += proj(softmax(q·kᵀ/√D + causal)·v), (q, k, v) = qkv(norm(x)). With `saved` ([N, saved_len]) the backward
    /// pass can follow; without, nothing is kept.
    fn attention(&mut self, call: &Call, params: &AttentionParams, x: Tensor, saved: Option<Tensor>) -> Result<()>;
    /// dx (in: gradient of the output, rows from `from` on; out: of the input, all rows); adds to `grads`.
    fn attention_backward(
        &mut self,
        call: &Call,
        params: &AttentionParams,
        grads: &AttentionParams,
        saved: Tensor,
        dx: Tensor,
    ) -> Result<()>;

    /// x += proj(gelu(fc(norm(x)))), gelu in its tanh form; rows before `from` are left alone.
    fn mlp(&mut self, call: &Call, params: &MlpParams, x: Tensor, saved: Option<Tensor>) -> Result<()>;
    /// dx in place, rows from `from` on; adds to `grads`.
    fn mlp_backward(
        &mut self,
        call: &Call,
        params: &MlpParams,
        grads: &MlpParams,
        saved: Tensor,
        dx: Tensor,
    ) -> Result<()>;

    /// Final norm, logits, softmax and cross-entropy of targets t + 1 for t in `from .. T`. Fills `scores` (f32 [N, 4],
    /// see [`Score`]); `levels` is f32 `[Q]`, the values for the squared error. With `backward`, (gradients of the head,
    /// dx [N, T, E]): adds `weight` · d(sum of nats) to the gradients and overwrites dx, rows from `from` on.
    #[expect(clippy::too_many_arguments, reason = "one fused stage, forward and backward")]
    fn head_loss(
        &mut self,
        call: &Call,
        params: &HeadParams,
        inputs: &Inputs,
        levels: Tensor,
        x: Tensor,
        scores: Tensor,
        backward: Option<HeadBackward>,
    ) -> Result<()>;

    /// logits[n, t - from, q] = head(norm(x))[n, t, q] for t in `from .. T`; f32 [N, T - from, Q], overwritten.
    fn head_logits(
        &mut self,
        call: &Call,
        params: &HeadParams,
        inputs: &Inputs,
        x: Tensor,
        logits: Tensor,
    ) -> Result<()>;

    /// Sums the slots, clips by the norm, updates params and moments, and zeroes the gradients. If the norm or any of
    /// `scores` is not finite, params and moments keep their bits.
    fn update(&mut self, state: &OptimizerState, hyper: &AdamW, scores: Tensor) -> Result<UpdateOutcome>;

    /// Generates one chunk with a KV cache: `tokens` is [N, n_new], overwritten; with `logits` ([N, n_new, Q]) also
    /// what they were drawn from.
    fn rollout(
        &mut self,
        config: &crate::model::config::ModelConfig,
        params: &crate::model::layout::Parameters,
        rollout: &Rollout,
        tokens: &mut [u8],
        logits: Option<&mut [f32]>,
    ) -> Result<()>;

    /// The stages of WaveNet, where the device has them.
    fn wavenet(&mut self) -> Result<&mut dyn wavenet::WavenetStages> {
        let what = format!("{} has no stages for WaveNet yet", self.name());
        Err(Error::new(Kind::DeviceUnavailable, what).hint("Use --device cpu"))
    }
}

/// What the head needs for its backward pass.
#[derive(Debug, Clone, Copy)]
pub struct HeadBackward {
    /// Gradients of the head's parameters.
    pub grads: HeadParams,
    /// [N, T, E], rows from `from` on overwritten.
    pub dx: Tensor,
    /// Factor on the sum of nats: 1 / (targets in the whole step) makes the loss a mean.
    pub weight: f32,
}
