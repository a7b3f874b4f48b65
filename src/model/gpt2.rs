//! GPT2MEG: the network and nothing else.
//!
//! A window of MEG is, for each channel, a sequence of tokens. Channels are independent sequences: what they share is
//! the weights. Each token is embedded together with its position, channel, subject and the condition at its time;
//! twelve blocks of causal attention and MLP follow, pre-norm as in GPT-2; a linear head gives the logits of the next
//! token. The loss is the cross-entropy of the last half of the window, so every target has at least half a window of
//! history; in the last block only that half needs queries, an MLP and a head.
//!
//! Source: paper, section 2; the authors' `gpt_quantized.py` (classes `Embeddings`, `GPT2MEG`) over Hugging Face's
//! `GPT2Model`.

use super::config::ModelConfig;
use super::layout::Parameters;
use crate::device::{Call, Device, HalfBlock, HeadBackward, Inputs, Tensor};
use crate::error::Result;

/// The tensors calls of up to N sequences work in: the residual stream, its gradient, and what each half-block keeps.
#[derive(Debug, Clone)]
pub struct Workspace {
    /// N.
    pub n: usize,
    /// [N, T, E].
    pub x: Tensor,
    /// [N, T, E].
    pub dx: Tensor,
    /// For each block, what attention and MLP keep for their backward passes.
    pub saved: Vec<(Tensor, Tensor)>,
}

impl Workspace {
    /// The part of one of the tensors that a call of `n` sequences works in.
    fn part(&self, tensor: Tensor, n: usize) -> Tensor {
        tensor.slice(0, tensor.len / self.n * n)
    }
}

/// The network of one shape, with its parameters on a device.
#[derive(Debug, Clone)]
pub struct Gpt2 {
    /// The shape.
    pub config: ModelConfig,
    /// The parameters.
    pub params: Parameters,
    /// Values of the levels, f32 `[Q]`, for the squared error.
    pub levels: Tensor,
}

/// How the loss is propagated back: where gradients go, and the weight of one target.
#[derive(Debug, Clone)]
pub struct Backward {
    /// Gradients, in the device's slots.
    pub grads: Parameters,
    /// Factor on each target's nats.
    pub weight: f32,
}

impl Gpt2 {
    /// The part of a step that handles the `n` sequences from `first` on.
    pub fn call(&self, first: usize, n: usize) -> Call {
        Call { first, n, n_time: self.config.n_ctx, d_model: self.config.d_model, n_head: self.config.n_head, from: 0 }
    }

    /// The scores of the last half of each window; with `backward`, also the gradients.
    pub fn loss(
        &self,
        device: &mut dyn Device,
        call: &Call,
        inputs: &Inputs,
        work: &Workspace,
        scores: Tensor,
        backward: Option<&Backward>,
    ) -> Result<()> {
        let last_half = Call { from: self.config.first_target(), ..*call };
        self.forward(device, call, last_half.from, inputs, work, backward.is_some())?;
        let (x, dx) = (work.part(work.x, call.n), work.part(work.dx, call.n));
        let head = backward.map(|b| HeadBackward { grads: b.grads.head, dx, weight: b.weight });
        device.head_loss(&last_half, &self.params.head, inputs, self.levels, x, scores, head)?;
        match backward {
            Some(backward) => self.backward(device, call, last_half.from, inputs, work, &backward.grads),
            None => Ok(()),
        }
    }

    /// The logits of timesteps `from ..` of each window: [N, T - from, Q].
    pub fn logits(
        &self,
        device: &mut dyn Device,
        call: &Call,
        from: usize,
        inputs: &Inputs,
        work: &Workspace,
        logits: Tensor,
    ) -> Result<()> {
        self.forward(device, call, from, inputs, work, false)?;
        device.head_logits(&Call { from, ..*call }, &self.params.head, inputs, work.part(work.x, call.n), logits)
    }

    /// Embedding and blocks; the last block answers only timesteps `from ..`.
    fn forward(
        &self,
        device: &mut dyn Device,
        call: &Call,
        from: usize,
        inputs: &Inputs,
        work: &Workspace,
        keep: bool,
    ) -> Result<()> {
        let x = work.part(work.x, call.n);
        device.embed(call, &self.params.embed, inputs, x)?;
        for (layer, (attention, mlp)) in self.params.blocks.iter().enumerate() {
            let call = self.layer_call(call, layer, from);
            let saved = keep.then(|| work.saved[layer]);
            device.attention(&call, attention, x, saved.map(|s| work.part(s.0, call.n)))?;
            device.mlp(&call, mlp, x, saved.map(|s| work.part(s.1, call.n)))?;
        }
        Ok(())
    }

    /// The gradient of the residual stream, from the head back to the embedding.
    fn backward(
        &self,
        device: &mut dyn Device,
        call: &Call,
        from: usize,
        inputs: &Inputs,
        work: &Workspace,
        grads: &Parameters,
    ) -> Result<()> {
        let dx = work.part(work.dx, call.n);
        for (layer, (attention, mlp)) in self.params.blocks.iter().enumerate().rev() {
            let call = self.layer_call(call, layer, from);
            let (saved_attention, saved_mlp) = work.saved[layer];
            let (grads_attention, grads_mlp) = &grads.blocks[layer];
            device.mlp_backward(&call, mlp, grads_mlp, work.part(saved_mlp, call.n), dx)?;
            let saved_attention = work.part(saved_attention, call.n);
            device.attention_backward(&call, attention, grads_attention, saved_attention, dx)?;
        }
        device.embed_backward(call, &grads.embed, inputs, dx)
    }

    /// Every block answers all timesteps, but the last only those that somebody reads.
    fn layer_call(&self, call: &Call, layer: usize, from: usize) -> Call {
        Call { from: if layer + 1 == self.config.n_layer { from } else { 0 }, ..*call }
    }

    /// Allocates what calls of up to `n` sequences work in; without `training` nothing is kept for a backward pass.
    pub fn workspace(&self, device: &mut dyn Device, n: usize, training: bool) -> Result<Workspace> {
        use crate::device::Dtype::F32;
        let call = self.call(0, n);
        let stream = n * call.n_time * call.d_model;
        let x = device.alloc(F32, stream)?;
        let dx = device.alloc(F32, if training { stream } else { 0 })?;
        let mut saved = Vec::new();
        for layer in 0..if training { self.config.n_layer } else { 0 } {
            let call = self.layer_call(&call, layer, self.config.first_target());
            let attention = n * device.saved_len(HalfBlock::Attention, &call);
            let mlp = n * device.saved_len(HalfBlock::Mlp, &call);
            saved.push((device.alloc(F32, attention)?, device.alloc(F32, mlp)?));
        }
        Ok(Workspace { n, x, dx, saved })
    }
}
