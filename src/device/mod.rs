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

pub mod cpu;
pub mod cuda;
pub mod describe;
mod rollout;
pub mod wavenet;

use crate::ensure;
use crate::error::{Error, Kind, Result};

/// What an element of a tensor is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dtype {
    /// Bytes; tokens.
    U8,
    /// Conditions.
    U16,
    /// Indices of channels and subjects.
    U32,
    /// Everything that is computed with.
    F32,
}

impl Dtype {
    /// Bytes of one element.
    pub fn size(self) -> usize {
        match self {
            Self::U8 => 1,
            Self::U16 => 2,
            Self::U32 | Self::F32 => 4,
        }
    }
}

/// A handle to a stretch of a device's buffer. It is `Copy` and carries no address; the device checks it when it is
/// resolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tensor {
    /// The buffer's number on its device.
    pub buffer: u32,
    /// First element.
    pub offset: usize,
    /// Elements.
    pub len: usize,
    /// Type of the elements.
    pub dtype: Dtype,
}

impl Tensor {
    /// The `len` elements from `offset` on. Panics if they are not inside: a handle never grows.
    pub fn slice(self, offset: usize, len: usize) -> Tensor {
        assert!(
            offset.checked_add(len).is_some_and(|end| end <= self.len),
            "a slice of {len} elements at {offset} leaves a tensor of {}",
            self.len
        );
        Tensor { offset: self.offset + offset, len, ..self }
    }
}

/// Embedding tables. Shapes: token [Q, E], position [n_ctx, E], channel [C, E], subject [S, E], condition [Y + 1, E].
#[derive(Debug, Clone, Copy)]
#[expect(missing_docs, reason = "the names are the table's")]
pub struct EmbedParams {
    pub token: Tensor,
    pub position: Tensor,
    pub channel: Tensor,
    pub subject: Tensor,
    pub condition: Tensor,
}

/// The attention half-block: norm `[E]` + `[E]`, qkv `[E, 3E]` + `[3E]` (queries, keys, values; head h at columns h·D), proj
/// `[E, E]` + `[E]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are GPT-2's")]
pub struct AttentionParams {
    pub norm_weight: Tensor,
    pub norm_bias: Tensor,
    pub qkv_weight: Tensor,
    pub qkv_bias: Tensor,
    pub proj_weight: Tensor,
    pub proj_bias: Tensor,
}

/// The MLP half-block: norm `[E]` + `[E]`, fc `[E, 4E]` + `[4E]`, proj `[4E, E]` + `[E]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are GPT-2's")]
pub struct MlpParams {
    pub norm_weight: Tensor,
    pub norm_bias: Tensor,
    pub fc_weight: Tensor,
    pub fc_bias: Tensor,
    pub proj_weight: Tensor,
    pub proj_bias: Tensor,
}

impl AttentionParams {
    /// All of them, in the order of their names.
    pub fn tensors(&self) -> [Tensor; 6] {
        let Self { norm_weight, norm_bias, qkv_weight, qkv_bias, proj_weight, proj_bias } = *self;
        [norm_weight, norm_bias, qkv_weight, qkv_bias, proj_weight, proj_bias]
    }
}

impl MlpParams {
    /// All of them, in the order of their names.
    pub fn tensors(&self) -> [Tensor; 6] {
        let Self { norm_weight, norm_bias, fc_weight, fc_bias, proj_weight, proj_bias } = *self;
        [norm_weight, norm_bias, fc_weight, fc_bias, proj_weight, proj_bias]
    }
}

/// The head: final norm `[E]` + `[E]`, weight `[Q, E]` shared by all channels or `[C, Q, E]`; no bias.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are GPT-2's")]
pub struct HeadParams {
    pub norm_weight: Tensor,
    pub norm_bias: Tensor,
    pub weight: Tensor,
    pub per_channel: bool,
}

impl HeadParams {
    /// All of them, in the order of their names.
    pub fn tensors(&self) -> [Tensor; 3] {
        [self.norm_weight, self.norm_bias, self.weight]
    }
}

/// What a batch of N sequences is made of.
#[derive(Debug, Clone, Copy)]
pub struct Inputs {
    /// u8 [N, T + 1]: the input at t is token t, its target is token t + 1.
    pub token: Tensor,
    /// u16 [N, T]: the condition that goes with input token t; 0 adds exactly zero.
    pub condition: Tensor,
    /// u32 `[N]`.
    pub channel: Tensor,
    /// u32 `[N]`.
    pub subject: Tensor,
}

impl Inputs {
    /// The sequences `first .. first + n`, of a batch with windows of `n_time` inputs.
    pub fn sequences(&self, first: usize, n: usize, n_time: usize) -> Inputs {
        Inputs {
            token: self.token.slice(first * (n_time + 1), n * (n_time + 1)),
            condition: self.condition.slice(first * n_time, n * n_time),
            channel: self.channel.slice(first, n),
            subject: self.subject.slice(first, n),
        }
    }
}

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

/// Where to compute.
#[derive(clap::ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The first GPU if it can be used, otherwise the CPU.
    Auto,
    /// The CPU engine.
    Cpu,
    /// The first GPU that NVIDIA's driver lists.
    Cuda,
    /// The GPU's kernels, run by the emulator: for tests, and very slow.
    #[cfg(feature = "emulated")]
    Emulated,
}

/// Opens a device. `threads` is for the CPU engine (and the emulator), and by default there is one for each core. `note` hears
/// why a GPU that seems to be there is not used.
pub fn open(choice: DeviceChoice, threads: Option<usize>, note: impl FnOnce(&str)) -> Result<Box<dyn Device>> {
    let cpu = || -> Result<Box<dyn Device>> { Ok(Box::new(cpu::Cpu::new(threads)?)) };
    match choice {
        DeviceChoice::Cpu => cpu(),
        DeviceChoice::Cuda => Ok(Box::new(cuda::open(0)?)),
        DeviceChoice::Auto if !cuda::has_driver() => cpu(),
        DeviceChoice::Auto => match cuda::open(0) {
            Ok(gpu) => Ok(Box::new(gpu)),
            Err(error) => {
                note(&cpu_instead(&error));
                cpu()
            }
        },
        #[cfg(feature = "emulated")]
        DeviceChoice::Emulated => Ok(Box::new(cuda::emulated::open(threads)?)),
    }
}

/// What is said when the CPU takes over from a GPU that cannot be used.
pub fn cpu_instead(error: &Error) -> String {
    format!("The GPU is not used: {error}. The CPU computes instead.")
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

/// How a token is drawn from the logits. The order is: temperature, softmax, top-k, nucleus, draw; the arithmetic that
/// every device reproduces bit for bit is that of [`cpu::sampler`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampler {
    /// Divides the logits; 1 leaves them.
    pub temperature: f32,
    /// Keep the k most probable levels; 0 keeps all.
    pub top_k: u32,
    /// Keep the smallest set of most probable levels whose share of what top-k left exceeds p, the level that crosses it
    /// included (paper section 4); 1 keeps all.
    pub top_p: f32,
    /// Take the most probable level, the lowest at a tie, and draw nothing.
    pub greedy: bool,
}

impl Sampler {
    /// Checks that the numbers make sense: a temperature above 0, a nucleus in (0, 1].
    pub fn check(&self) -> Result<()> {
        let Self { temperature, top_p, .. } = *self;
        // A temperature that is not a normal number has no finite inverse.
        let warm = temperature > 0.0 && temperature.is_normal();
        ensure!(warm, Kind::Usage, "a temperature of {temperature} makes no sense: it must be above 0");
        ensure!(top_p > 0.0 && top_p <= 1.0, Kind::Usage, "top-p of {top_p} is outside (0, 1]");
        Ok(())
    }
}

/// One chunk of generation: every sequence reads `n_prompt` tokens at positions 0.., then draws `n_new` with the cache.
#[derive(Debug, Clone, Copy)]
pub struct Rollout<'a> {
    /// Sequences (N): any number; the device cuts them as it likes.
    pub n: usize,
    /// Tokens already known, at least 1. `n_prompt + n_new ≤ n_ctx + 1`: the last token drawn is never fed back.
    pub n_prompt: usize,
    /// Tokens to draw.
    pub n_new: usize,
    /// [N, n_prompt].
    pub prompt: &'a [u8],
    /// [N, n_prompt + n_new - 1]: the condition that goes with each token that is fed.
    pub condition: &'a [u16],
    /// `[N]`.
    pub channel: &'a [u32],
    /// `[N]`.
    pub subject: &'a [u32],
    /// `[N]`: the sequence's index in the keyed randomness ([`crate::random::Purpose::Sampling`]).
    pub key: &'a [u64],
    /// Timestep of the first new token in the generated series: the position in the keyed randomness.
    pub timestep: u64,
    /// Seed of the draws.
    pub seed: u64,
    /// How to draw.
    pub sampler: Sampler,
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
    /// Bytes of the device's own memory that are free; none where it has none of its own.
    fn free_memory(&self) -> Option<usize> {
        None
    }

    /// Makes the calls of stages that `step` makes on the device it is given, and no other calls; says what `step` says, which is
    /// whether it came to its end. Usually they are the same calls each time: a device may then ask for all that follows from
    /// them at once, and to find out that they are not, it may call `step` twice.
    fn repeated(&mut self, step: &mut dyn FnMut(&mut dyn Device) -> Result<bool>) -> Result<bool>;

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
