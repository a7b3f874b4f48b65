//! The stages of WaveNet (paper, sections 3.1 and 3.2), for devices that have them.
//!
//! A sequence goes through all layers in one stage, because the layers of one sequence need nothing of another. Only the
//! map across channels does, and so it is a stage of its own, between the layers and the head. The three rules of
//! [`super`] hold. Shapes as there, and: E `d_model`, F `d_token`, S `d_skip`, H `d_hidden`, Z what a layer is conditioned on,
//! T' = T − from.

use super::{Call, Inputs, Rollout, Tensor};
use crate::error::Result;
use crate::model::wavenet::WavenetConfig;

/// One layer: conv [F, 2E] in the first layer and [2, E, 2E] (earlier tap first) in the others, filter and gate beside
/// each other; local [Z, 2E]; res [E, E]; skip [E, S].
#[derive(Debug, Clone, Copy)]
#[expect(missing_docs, reason = "the names are the table's")]
pub struct LayerParams {
    pub conv: Tensor,
    pub local: Tensor,
    pub res: Tensor,
    pub skip: Tensor,
}

/// What the first layer has besides: a map [F, E] of its input onto the residual stream, and biases.
#[derive(Debug, Clone, Copy)]
#[expect(missing_docs, reason = "the names are the table's")]
pub struct FirstParams {
    pub input: Tensor,
    pub conv_bias: Tensor,
    pub local_bias: Tensor,
    pub res_bias: Tensor,
    pub skip_bias: Tensor,
    pub input_bias: Tensor,
}

/// Tables and layers. token [C, Q, F], condition [Y + 1, ·], subject [S, ·] (empty for one subject).
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "the names are the table's")]
pub struct StackParams {
    pub token: Tensor,
    pub condition: Tensor,
    pub subject: Tensor,
    pub first: FirstParams,
    pub layers: Vec<LayerParams>,
}

/// The head: leaky ReLU, fc [S, H] + `[H]`, leaky ReLU, proj [H, Q] + `[Q]`.
#[derive(Debug, Clone, Copy)]
#[expect(missing_docs, reason = "the names are the table's")]
pub struct WavenetHead {
    pub fc_weight: Tensor,
    pub fc_bias: Tensor,
    pub proj_weight: Tensor,
    pub proj_bias: Tensor,
}

/// All parameters; mix is [C, C].
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "the names are the table's")]
pub struct WavenetParams {
    pub stack: StackParams,
    pub mix: Option<Tensor>,
    pub head: WavenetHead,
}

/// What the head needs for its backward pass.
#[derive(Debug, Clone, Copy)]
pub struct WavenetHeadBackward {
    /// Gradients of the head's parameters.
    pub grads: WavenetHead,
    /// [N, T', S], overwritten.
    pub dskips: Tensor,
    /// Factor on the sum of nats.
    pub weight: f32,
}

/// The stages. Of a [`Call`], `first`, `n`, `n_time` and `from` count; `from + 1` is at least the receptive field.
pub trait WavenetStages {
    /// f32 elements per sequence that [`Self::stack`] wants to keep for its backward pass.
    fn saved_len(&self, config: &WavenetConfig, call: &Call) -> usize;

    /// Tables and layers: `skips`, [N, T', S], overwritten by the sum of all layers' skips.
    fn stack(
        &mut self,
        config: &WavenetConfig,
        call: &Call,
        params: &StackParams,
        inputs: &Inputs,
        skips: Tensor,
        saved: Option<Tensor>,
    ) -> Result<()>;

    /// Adds to `grads` what the gradient `dskips` of the summed skips comes to.
    #[expect(clippy::too_many_arguments, reason = "a stage's tensors, forward and backward")]
    fn stack_backward(
        &mut self,
        config: &WavenetConfig,
        call: &Call,
        params: &StackParams,
        grads: &StackParams,
        inputs: &Inputs,
        saved: Tensor,
        dskips: Tensor,
    ) -> Result<()>;

    /// `mixed[d] = Σ_c weight[d, c] · skips[c]` for the C channels of one window, each [T', S]; `mixed` is overwritten.
    fn mix(&mut self, n_channel: usize, weight: Tensor, skips: Tensor, mixed: Tensor) -> Result<()>;

    /// Adds to `grad`, in the slot of the sequence `first`, and overwrites `dskips`.
    #[expect(clippy::too_many_arguments, reason = "a stage's tensors, forward and backward")]
    fn mix_backward(
        &mut self,
        n_channel: usize,
        first: usize,
        weight: Tensor,
        grad: Tensor,
        skips: Tensor,
        dmixed: Tensor,
        dskips: Tensor,
    ) -> Result<()>;

    /// Logits and cross-entropy, as [`super::Device::head_loss`] has it.
    #[expect(clippy::too_many_arguments, reason = "one fused stage, forward and backward")]
    fn head_loss(
        &mut self,
        config: &WavenetConfig,
        call: &Call,
        params: &WavenetHead,
        inputs: &Inputs,
        levels: Tensor,
        skips: Tensor,
        scores: Tensor,
        backward: Option<WavenetHeadBackward>,
    ) -> Result<()>;

    /// The bare logits of timesteps `from ..`: f32 [N, T', Q], overwritten.
    fn head_logits(
        &mut self,
        config: &WavenetConfig,
        call: &Call,
        params: &WavenetHead,
        skips: Tensor,
        logits: Tensor,
    ) -> Result<()>;

    /// Draws `n_new` tokens of each sequence; every layer keeps what it will look back at, so the work of a timestep does
    /// not depend on how many came before. The prompt is at least the receptive field. Where there is a map across
    /// channels, sequences come in groups of all channels in their order.
    fn rollout(
        &mut self,
        config: &WavenetConfig,
        params: &WavenetParams,
        rollout: &Rollout,
        tokens: &mut [u8],
        logits: Option<&mut [f32]>,
    ) -> Result<()>;
}
