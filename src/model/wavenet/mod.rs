//! WaveNet: the network and nothing else.
//!
//! A window is, for each channel, a sequence of tokens, embedded by a table of that channel's own. A first layer looks at
//! one timestep; the dilated layers after it look at two, 1, 2, 4, … apart, so that an output sees the whole receptive
//! field. In each layer tanh of one half gates with σ of the other; what conditions the timestep (its condition, and the
//! subject) is added to both. Every layer adds to the residual stream and to a sum of skips, and that sum alone goes to
//! the head. Channels are independent sequences, unless `mix` maps the summed skips across them.
//!
//! Source: paper, sections 3.1 and 3.2; the authors' `wavenets_full.py` (classes `WavenetLayer`, `WaveNetLogitsHead`,
//! `WavenetFullChannel`, `WavenetFullChannelMix`).

mod config;

pub use config::WavenetConfig;

use crate::device::Dtype::F32;
use crate::device::wavenet::{WavenetHeadBackward, WavenetParams};
use crate::device::{Call, Device, Inputs, Score, Tensor};
use crate::error::Result;
use crate::interrupt;

/// The tensors that a step works in. With a map across channels the skips are those of a whole window; without, of as many
/// sequences as a call has.
#[derive(Debug, Clone)]
pub struct Workspace {
    /// Sequences of a call, at most.
    most: usize,
    /// What a call's sequences keep for their backward passes.
    saved: Tensor,
    /// Summed skips, those mapped across channels, and their gradient.
    skips: Tensor,
    mixed: Tensor,
    dskips: Tensor,
}

/// The network of one shape, with its parameters on a device.
#[derive(Debug, Clone)]
pub struct Wavenet {
    /// The shape.
    pub config: WavenetConfig,
    /// The parameters.
    pub params: WavenetParams,
    /// Values of the levels, f32 `[Q]`, for the squared error.
    pub levels: Tensor,
}

/// How the loss is propagated back: where gradients go, and the weight of one target.
#[derive(Debug, Clone)]
pub struct Backward {
    /// Gradients, in the device's slots.
    pub grads: WavenetParams,
    /// Factor on each target's nats.
    pub weight: f32,
}

impl WavenetConfig {
    /// The part of a step that handles the `n` sequences from `first` on.
    pub fn call(&self, first: usize, n: usize) -> Call {
        Call { first, n, n_time: self.n_ctx, d_model: self.d_model, n_head: 1, from: self.first_target() }
    }

    /// Elements of one sequence's skips.
    fn skip_len(&self) -> usize {
        (self.n_ctx - self.first_target()) * self.d_skip
    }

    /// f32 elements of a workspace for calls of up to `n` sequences: saved, skips, mixed, their gradient.
    pub(super) fn workspace_lens(&self, saved_len: usize, n: usize, training: bool) -> [usize; 4] {
        let together = if self.mix { self.n_channel } else { n };
        let skips = together * self.skip_len();
        let mixed = if self.mix { skips } else { 0 };
        if training { [n * saved_len, skips, mixed, skips] } else { [0, skips, mixed, 0] }
    }
}

impl Wavenet {
    /// Allocates what calls of up to `n` sequences work in.
    pub fn workspace(&self, device: &mut dyn Device, n: usize, training: bool) -> Result<Workspace> {
        let saved_len = device.wavenet()?.saved_len(&self.config, &self.config.call(0, n));
        let [saved, skips, mixed, dskips] = self.config.workspace_lens(saved_len, n, training);
        Ok(Workspace {
            most: n,
            saved: device.alloc(F32, saved)?,
            skips: device.alloc(F32, skips)?,
            mixed: device.alloc(F32, mixed)?,
            dskips: device.alloc(F32, dskips)?,
        })
    }

    /// The scores of the last half of the windows of `n` sequences, whole windows of all channels; with `backward` also the
    /// gradients. False if a signal asked to stop on the way.
    pub fn loss(
        &self,
        device: &mut dyn Device,
        inputs: &Inputs,
        n: usize,
        work: &Workspace,
        scores: Tensor,
        backward: Option<&Backward>,
    ) -> Result<bool> {
        let together = if self.params.mix.is_some() { self.config.n_channel } else { work.most };
        for first in (0..n).step_by(together) {
            let calls = self.calls(first, together.min(n - first), work.most);
            let done = match self.params.mix {
                None => self.independent(device, inputs, &calls, work, scores, backward),
                Some(weight) => self.mixed(device, inputs, &calls, work, scores, weight, backward),
            };
            if !done? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Calls of up to `most` sequences for the `n` from `first` on.
    fn calls(&self, first: usize, n: usize, most: usize) -> Vec<Call> {
        (0..n).step_by(most).map(|at| self.config.call(first + at, most.min(n - at))).collect()
    }

    /// Channels by themselves: each call from the tables to the gradient of the tables.
    fn independent(
        &self,
        device: &mut dyn Device,
        inputs: &Inputs,
        calls: &[Call],
        work: &Workspace,
        scores: Tensor,
        backward: Option<&Backward>,
    ) -> Result<bool> {
        let (config, stack) = (&self.config, &self.params.stack);
        for call in calls {
            if interrupt::requested().is_some() {
                return Ok(false);
            }
            let inputs = &inputs.sequences(call.first, call.n, config.n_ctx);
            let stages = device.wavenet()?;
            stages.stack(config, call, stack, inputs, work.skips, backward.map(|_| work.saved))?;
            self.head(device, call, inputs, work.skips, scores, backward, work.dskips)?;
            if let Some(b) = backward {
                let stages = device.wavenet()?;
                stages.stack_backward(config, call, stack, &b.grads.stack, inputs, work.saved, work.dskips)?;
            }
        }
        Ok(true)
    }

    /// One window, whose channels meet in the map. What each keeps for its backward pass would be too much for all of them
    /// at once, so the backward pass makes it again.
    #[expect(clippy::too_many_arguments, reason = "as above, and the map")]
    fn mixed(
        &self,
        device: &mut dyn Device,
        inputs: &Inputs,
        calls: &[Call],
        work: &Workspace,
        scores: Tensor,
        weight: Tensor,
        backward: Option<&Backward>,
    ) -> Result<bool> {
        let (config, stack, len) = (&self.config, &self.params.stack, self.config.skip_len());
        let window = calls[0].first;
        let part = |tensor: Tensor, call: &Call| tensor.slice((call.first - window) * len, call.n * len);
        for call in calls {
            if interrupt::requested().is_some() {
                return Ok(false);
            }
            let inputs = &inputs.sequences(call.first, call.n, config.n_ctx);
            device.wavenet()?.stack(config, call, stack, inputs, part(work.skips, call), None)?;
        }
        device.wavenet()?.mix(config.n_channel, weight, work.skips, work.mixed)?;
        for call in calls {
            let inputs = &inputs.sequences(call.first, call.n, config.n_ctx);
            let dskips = if backward.is_some() { part(work.dskips, call) } else { work.dskips };
            self.head(device, call, inputs, part(work.mixed, call), scores, backward, dskips)?;
        }
        let Some(b) = backward else { return Ok(true) };
        let grad = b.grads.mix.expect("gradients of the same shape");
        let (dmixed, dskips) = (work.dskips, work.mixed);
        device.wavenet()?.mix_backward(config.n_channel, window, weight, grad, work.skips, dmixed, dskips)?;
        for call in calls {
            if interrupt::requested().is_some() {
                return Ok(false);
            }
            let inputs = &inputs.sequences(call.first, call.n, config.n_ctx);
            let stages = device.wavenet()?;
            stages.stack(config, call, stack, inputs, part(work.skips, call), Some(work.saved))?;
            let dskips = part(dskips, call);
            stages.stack_backward(config, call, stack, &b.grads.stack, inputs, work.saved, dskips)?;
        }
        Ok(true)
    }

    #[expect(clippy::too_many_arguments, reason = "one fused stage, forward and backward")]
    fn head(
        &self,
        device: &mut dyn Device,
        call: &Call,
        inputs: &Inputs,
        skips: Tensor,
        scores: Tensor,
        backward: Option<&Backward>,
        dskips: Tensor,
    ) -> Result<()> {
        let scores = scores.slice(call.first * Score::LEN, call.n * Score::LEN);
        let back = backward.map(|b| WavenetHeadBackward { grads: b.grads.head, dskips, weight: b.weight });
        device.wavenet()?.head_loss(&self.config, call, &self.params.head, inputs, self.levels, skips, scores, back)
    }
}
