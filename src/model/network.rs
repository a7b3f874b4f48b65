//! A network of either kind on a device, with all that a pass over some windows works in: what training and scoring call.

use super::config::ModelConfig;
use super::gpt2::{self, Gpt2};
use super::kind::Model;
use super::layout::Parameters;
use super::wavenet::{self, Wavenet, WavenetConfig};
use crate::device::wavenet::WavenetParams;
use crate::device::{Call, Device, HalfBlock, Inputs, Rollout, Score, Tensor};
use crate::error::{Error, Kind, Result};
use crate::interrupt;

/// A network, its workspace and, for training, where its gradients go.
#[derive(Debug, Clone)]
#[expect(
    missing_docs,
    clippy::large_enum_variant,
    reason = "the fields are the same in both kinds; there is one of them"
)]
pub enum Network {
    /// GPT2MEG.
    Gpt { net: Gpt2, work: gpt2::Workspace, backward: Option<gpt2::Backward> },
    /// WaveNet.
    Wavenet { net: Wavenet, work: wavenet::Workspace, backward: Option<wavenet::Backward> },
}

/// Gradients of training: a flat buffer in the device's slots, and the factor on each target's nats.
#[derive(Debug, Clone, Copy)]
pub struct Gradients {
    /// f32 [grad_slots, P].
    pub grads: Tensor,
    /// 1 / (targets in the whole step) makes the loss a mean.
    pub weight: f32,
}

impl Network {
    /// The network of a model whose flat `params` and values of `levels` are on the device, to work on up to `n_sequence`
    /// sequences at a time (fewer, where the device takes fewer); with `gradients` it can be trained.
    pub fn new(
        device: &mut dyn Device,
        model: &Model,
        n_sequence: usize,
        params: Tensor,
        levels: Tensor,
        gradients: Option<Gradients>,
    ) -> Result<Self> {
        let (layout, n, training) = (model.layout(), device.max_sequences(), gradients.is_some());
        Ok(match model {
            Model::Gpt(config) => {
                let net = Gpt2 { config: config.clone(), params: layout.bind(params), levels };
                let work = net.workspace(device, n.min(n_sequence), training)?;
                let backward = gradients.map(|g| gpt2::Backward { grads: layout.bind(g.grads), weight: g.weight });
                Self::Gpt { net, work, backward }
            }
            Model::Wavenet(config) => {
                let net = Wavenet { config: config.clone(), params: config.bind(&layout, params), levels };
                let work = net.workspace(device, n, training)?;
                let bind = |g: Gradients| wavenet::Backward { grads: config.bind(&layout, g.grads), weight: g.weight };
                Self::Wavenet { net, work, backward: gradients.map(bind) }
            }
            Model::Ar(_) => return Err(no_network()),
        })
    }

    /// Scores the first `n` sequences of `inputs`, whole windows of all channels, in calls of as many as there is room for; with
    /// `gradients`, adds those too. False if a signal asked to stop on the way.
    pub fn loss(
        &self,
        device: &mut dyn Device,
        inputs: &Inputs,
        n: usize,
        scores: Tensor,
        gradients: bool,
    ) -> Result<bool> {
        match self {
            Self::Wavenet { net, work, backward } => {
                net.loss(device, inputs, n, work, scores, backward.as_ref().filter(|_| gradients))
            }
            Self::Gpt { net, work, backward } => {
                let most = work.n;
                for first in (0..n).step_by(most) {
                    if interrupt::requested().is_some() {
                        return Ok(false);
                    }
                    let part = most.min(n - first);
                    let inputs = inputs.sequences(first, part, net.config.n_ctx);
                    let scores = scores.slice(first * Score::LEN, part * Score::LEN);
                    let backward = backward.as_ref().filter(|_| gradients);
                    net.loss(device, &net.call(first, part), &inputs, work, scores, backward)?;
                }
                Ok(true)
            }
        }
    }
}

/// A model with its parameters on a device, ready to generate.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "shape and parameters of either kind")]
pub enum Generating {
    Gpt(ModelConfig, Parameters),
    Wavenet(WavenetConfig, WavenetParams),
}

impl Generating {
    /// A model whose flat `params` are on a device.
    pub fn new(model: &Model, params: Tensor) -> Result<Self> {
        let layout = model.layout();
        match model {
            Model::Gpt(config) => Ok(Self::Gpt(config.clone(), layout.bind(params))),
            Model::Wavenet(config) => Ok(Self::Wavenet(config.clone(), config.bind(&layout, params))),
            Model::Ar(_) => Err(no_network()),
        }
    }

    /// Generates one chunk of tokens, [N, n_new].
    pub fn rollout(&self, device: &mut dyn Device, rollout: &Rollout, tokens: &mut [u8]) -> Result<()> {
        match self {
            Self::Gpt(config, params) => device.rollout(config, params, rollout, tokens, None),
            Self::Wavenet(config, params) => device.wavenet()?.rollout(config, params, rollout, tokens, None),
        }
    }
}

/// f32 elements that training a model with steps of `n_sequence` sequences works in, besides parameters, gradients, moments and
/// the batch.
pub fn workspace_len(device: &mut dyn Device, model: &Model, n_sequence: usize) -> Result<usize> {
    let n = device.max_sequences();
    match model {
        Model::Gpt(config) => {
            let n = n.min(n_sequence);
            let (n_time, d_model) = (config.n_ctx, config.d_model);
            let mut per_sequence = 2 * n_time * d_model;
            for layer in 0..config.n_layer {
                let from = if layer + 1 == config.n_layer { config.first_target() } else { 0 };
                let call = Call { first: 0, n, n_time, d_model, n_head: config.n_head, from };
                per_sequence += device.saved_len(HalfBlock::Attention, &call) + device.saved_len(HalfBlock::Mlp, &call);
            }
            Ok(n * per_sequence + device.work_bytes(config, n).div_ceil(4))
        }
        Model::Wavenet(config) => {
            let saved_len = device.wavenet()?.saved_len(config, &config.call(0, n));
            Ok(config.workspace_lens(saved_len, n, true).iter().sum())
        }
        Model::Ar(_) => Err(no_network()),
    }
}

/// An autoregression was to be treated as a network: nothing a user does leads here.
fn no_network() -> Error {
    Error::new(Kind::Internal, "an autoregression is no network")
}
