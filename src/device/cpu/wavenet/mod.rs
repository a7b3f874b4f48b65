//! WaveNet's stages on the CPU: as the other stages, one thread works on a sequence from the first layer to the last, in
//! tiles of [`ROWS`](super::ROWS) timesteps, with weights that are packed once in a call.
//!
//! Convolutions are valid, never padded: of each layer only those timesteps are computed on which an output that
//! somebody needs depends.

mod backward;
mod head;
mod mix;
mod rollout;
mod stack;

use super::Cpu;
use super::GRAD_SLOTS;
use super::memory::Memory;
use crate::device::wavenet::{StackParams, WavenetHead, WavenetHeadBackward, WavenetParams, WavenetStages};
use crate::device::{Call, Inputs, Rollout, Tensor};
use crate::ensure;
use crate::error::{Kind, Result};
use crate::model::wavenet::WavenetConfig;
use std::cell::Ref;

/// Where a layer's results lie within what a sequence keeps.
#[derive(Debug, Clone, Copy)]
struct Place {
    /// How far back the earlier tap looks; 0 in the first layer, which has one tap.
    dilation: usize,
    /// First timestep that anybody needs of this layer.
    start: usize,
    /// Where its output lies; the last layer has none.
    x: usize,
    /// Where its gates lie.
    gates: usize,
}

/// The sizes of a call, checked.
#[derive(Debug, Clone)]
struct Shape {
    n: usize,
    t: usize,
    from: usize,
    /// d_model.
    e: usize,
    /// d_token.
    f: usize,
    /// d_skip.
    s: usize,
    /// d_hidden.
    h: usize,
    q: usize,
    d_condition: usize,
    d_subject: usize,
    layers: Vec<Place>,
    /// Elements of all layers' outputs: the gates follow them.
    outputs: usize,
    /// Elements that a sequence keeps.
    kept: usize,
}

impl Shape {
    fn new(config: &WavenetConfig, call: &Call) -> Result<Self> {
        let &Call { n, n_time: t, from, .. } = call;
        let reach = config.n_receptive();
        ensure!(
            (1..=GRAD_SLOTS).contains(&n) && from < t && from + 1 >= reach,
            Kind::Internal,
            "a call that makes no sense for a receptive field of {reach}: {call:?}"
        );
        Ok(Self::unchecked(config, call))
    }

    fn unchecked(config: &WavenetConfig, call: &Call) -> Self {
        let &Call { n, n_time: t, from, .. } = call;
        let &WavenetConfig { d_model: e, d_token: f, d_skip: s, d_hidden: h, n_level: q, .. } = config;
        let mut layers = Vec::with_capacity(config.n_layer + 1);
        let mut start = from + 1 - config.n_receptive();
        let (mut outputs, mut gates) = (0, 0);
        for dilation in std::iter::once(0).chain(config.dilations()) {
            start += dilation;
            layers.push(Place { dilation, start, x: outputs, gates });
            gates += (t - start) * 2 * e;
            outputs += (t - start) * e;
        }
        // Nobody reads what the last layer would add to the residual stream.
        outputs -= (t - start) * e;
        layers.iter_mut().for_each(|place| place.gates += outputs);
        let (d_condition, d_subject) = (config.d_condition, config.d_subject);
        Self { n, t, from, e, f, s, h, q, d_condition, d_subject, layers, outputs, kept: outputs + gates }
    }

    /// Timesteps that somebody needs.
    fn rows(&self) -> usize {
        self.t - self.from
    }

    /// Of what a sequence keeps: the layer's input (nothing in the first layer), its output and its gates.
    fn parts<'a>(&self, layer: usize, kept: &'a mut [f32]) -> (&'a [f32], &'a mut [f32], &'a mut [f32]) {
        let (xs, gates) = kept.split_at_mut(self.outputs);
        let place = self.layers[layer];
        let (before, x) = xs.split_at_mut(place.x);
        let input = if layer == 0 { &[] } else { &before[self.layers[layer - 1].x..] };
        (input, x, &mut gates[place.gates - self.outputs..][..(self.t - place.start) * 2 * self.e])
    }

    /// Whether it is the last layer.
    fn is_last(&self, layer: usize) -> bool {
        layer + 1 == self.layers.len()
    }
}

/// The inputs of a call, checked against the tables they index.
struct Batch<'a> {
    token: Ref<'a, [u8]>,
    condition: Ref<'a, [u16]>,
    channel: Ref<'a, [u32]>,
    subject: Ref<'a, [u32]>,
}

/// One sequence's inputs.
#[derive(Clone, Copy)]
struct Sequence<'a> {
    token: &'a [u8],
    condition: &'a [u16],
    channel: usize,
    subject: usize,
}

impl<'a> Batch<'a> {
    fn new(memory: &'a Memory, config: &WavenetConfig, shape: &Shape, inputs: &Inputs) -> Result<Self> {
        let (n, t) = (shape.n, shape.t);
        let token = memory.read::<u8>(inputs.token)?;
        let condition = memory.read::<u16>(inputs.condition)?;
        let channel = memory.read::<u32>(inputs.channel)?;
        let subject = memory.read::<u32>(inputs.subject)?;
        let lens = [token.len(), condition.len(), channel.len(), subject.len()];
        ensure!(lens == [n * (t + 1), n * t, n, n], Kind::Internal, "inputs of another shape: {lens:?}");
        for (name, most, limit) in [
            ("token", token.iter().max().map_or(0, |&i| i as usize), config.n_level),
            ("condition", condition.iter().max().map_or(0, |&i| i as usize), config.n_condition + 1),
            ("channel", channel.iter().max().map_or(0, |&i| i as usize), config.n_channel),
            ("subject", subject.iter().max().map_or(0, |&i| i as usize), config.n_subject),
        ] {
            ensure!(most < limit, Kind::Internal, "{name} {most} is beyond its table");
        }
        Ok(Self { token, condition, channel, subject })
    }

    fn sequences(&self, t: usize) -> impl Iterator<Item = Sequence<'_>> {
        let series = self.token.chunks_exact(t + 1).zip(self.condition.chunks_exact(t));
        let places = self.channel.iter().zip(self.subject.iter());
        series.zip(places).map(|((token, condition), (&channel, &subject))| Sequence {
            token,
            condition,
            channel: channel as usize,
            subject: subject as usize,
        })
    }
}

impl WavenetStages for Cpu {
    fn saved_len(&self, config: &WavenetConfig, call: &Call) -> usize {
        Shape::unchecked(config, call).kept
    }

    fn stack(
        &mut self,
        config: &WavenetConfig,
        call: &Call,
        params: &StackParams,
        inputs: &Inputs,
        skips: Tensor,
        saved: Option<Tensor>,
    ) -> Result<()> {
        stack::forward(self, config, call, params, inputs, skips, saved)
    }

    fn stack_backward(
        &mut self,
        config: &WavenetConfig,
        call: &Call,
        params: &StackParams,
        grads: &StackParams,
        inputs: &Inputs,
        saved: Tensor,
        dskips: Tensor,
    ) -> Result<()> {
        backward::backward(self, config, call, params, grads, inputs, saved, dskips)
    }

    fn mix(&mut self, n_channel: usize, weight: Tensor, skips: Tensor, mixed: Tensor) -> Result<()> {
        mix::forward(self, n_channel, weight, skips, mixed)
    }

    fn mix_backward(
        &mut self,
        n_channel: usize,
        first: usize,
        weight: Tensor,
        grad: Tensor,
        skips: Tensor,
        dmixed: Tensor,
        dskips: Tensor,
    ) -> Result<()> {
        mix::backward(self, n_channel, first, weight, grad, skips, dmixed, dskips)
    }

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
    ) -> Result<()> {
        head::loss(self, config, call, params, inputs, levels, skips, scores, backward)
    }

    fn head_logits(
        &mut self,
        config: &WavenetConfig,
        call: &Call,
        params: &WavenetHead,
        skips: Tensor,
        logits: Tensor,
    ) -> Result<()> {
        head::bare_logits(self, config, call, params, skips, logits)
    }

    fn rollout(
        &mut self,
        config: &WavenetConfig,
        params: &WavenetParams,
        rollout: &Rollout,
        tokens: &mut [u8],
        logits: Option<&mut [f32]>,
    ) -> Result<()> {
        rollout::rollout(self, config, params, rollout, tokens, logits)
    }
}
