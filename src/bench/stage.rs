//! The stages of a step, one by one.

use super::step::{Calls, Step};
use crate::device::{Call, Device, HeadBackward, KernelTime, Score, Tensor};
use crate::error::Result;
use serde::Serialize;

/// A stage of [`Device`] in a training step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names are the trait's")]
pub enum Stage {
    Embed,
    Attention,
    Mlp,
    Head,
    MlpBackward,
    AttentionBackward,
    EmbedBackward,
    Update,
}

impl Stage {
    /// Its name, as the method's of [`Device`].
    pub fn name(self) -> &'static str {
        match self {
            Self::Embed => "embed",
            Self::Attention => "attention",
            Self::Mlp => "mlp",
            Self::Head => "head",
            Self::MlpBackward => "mlp_backward",
            Self::AttentionBackward => "attention_backward",
            Self::EmbedBackward => "embed_backward",
            Self::Update => "update",
        }
    }
}

/// A stage and where in the network it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Place {
    /// The stage.
    pub stage: Stage,
    /// Its layer, for the half-blocks.
    pub layer: usize,
    /// Timesteps of a window whose output is needed: half of them from the last layer on.
    pub rows: usize,
    /// Places like this one in the whole network.
    pub times: usize,
}

impl Step {
    /// The places of a network with `n_layer` layers, in an order in which each finds what it needs. This step's own network has
    /// to be of that shape, but may have two layers only: all but the last are alike.
    pub fn places(&self, n_layer: usize) -> Vec<Place> {
        let (config, t) = (&self.model.config, self.model.config.n_ctx);
        let half = t - config.first_target();
        let once = |stage, rows| Place { stage, layer: 0, rows, times: 1 };
        let layers: Vec<(usize, usize, usize)> = match config.n_layer {
            1 => vec![(0, half, 1)],
            own => vec![(0, t, n_layer - 1), (own - 1, half, 1)],
        };
        let of_layers = |stage| layers.iter().map(move |&(layer, rows, times)| Place { stage, layer, rows, times });
        let mut places = vec![once(Stage::Embed, t)];
        places.extend(of_layers(Stage::Attention));
        places.extend(of_layers(Stage::Mlp));
        places.push(once(Stage::Head, half));
        places.extend(of_layers(Stage::MlpBackward));
        places.extend(of_layers(Stage::AttentionBackward));
        places.push(once(Stage::EmbedBackward, t));
        places.push(once(Stage::Update, 0));
        places
    }

    /// Runs the stage of one place for all sequences; `self.device.sync()` waits for it.
    pub fn run_place(&mut self, place: &Place) -> Result<()> {
        let (device, calls) = self.parts();
        calls.place(device, place)
    }

    /// Runs the stage of one place, launch by launch, to the end: each launch's kernel and seconds, where there are kernels.
    pub fn time_place(&mut self, place: &Place) -> Result<Option<Vec<KernelTime>>> {
        let (device, calls) = self.parts();
        device.timed(&mut |device| calls.place(device, place))
    }
}

impl Calls<'_> {
    /// The calls of one place.
    fn place(&self, device: &mut dyn Device, place: &Place) -> Result<()> {
        if place.stage == Stage::Update {
            return self.update(device);
        }
        let cut = self.work.n;
        for first in (0..self.n_sequence).step_by(cut) {
            self.call(device, place, first, cut.min(self.n_sequence - first))?;
        }
        Ok(())
    }

    fn call(&self, device: &mut dyn Device, place: &Place, first: usize, n: usize) -> Result<()> {
        let Self { model, work, backward, .. } = self;
        let t = model.config.n_ctx;
        let call = Call { from: t - place.rows, ..model.call(first, n) };
        let part = |tensor: Tensor| tensor.slice(0, tensor.len / work.n * n);
        let inputs = self.inputs.sequences(first, n, t);
        let (x, dx) = (part(work.x), part(work.dx));
        let (attention, mlp) = &model.params.blocks[place.layer];
        let (attention_grads, mlp_grads) = &backward.grads.blocks[place.layer];
        let (saved_attention, saved_mlp) = work.saved[place.layer];
        let (saved_attention, saved_mlp) = (part(saved_attention), part(saved_mlp));
        match place.stage {
            Stage::Embed => device.embed(&call, &model.params.embed, &inputs, x),
            Stage::Attention => device.attention(&call, attention, x, Some(saved_attention)),
            Stage::Mlp => device.mlp(&call, mlp, x, Some(saved_mlp)),
            Stage::Head => {
                let head = HeadBackward { grads: backward.grads.head, dx, weight: backward.weight };
                let scores = self.scores.slice(first * Score::LEN, n * Score::LEN);
                device.head_loss(&call, &model.params.head, &inputs, model.levels, x, scores, Some(head))
            }
            Stage::MlpBackward => device.mlp_backward(&call, mlp, mlp_grads, saved_mlp, dx),
            Stage::AttentionBackward => {
                device.attention_backward(&call, attention, attention_grads, saved_attention, dx)
            }
            Stage::EmbedBackward => device.embed_backward(&call, &backward.grads.embed, &inputs, dx),
            Stage::Update => unreachable!("it works on no sequences"),
        }
    }
}
