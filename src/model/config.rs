//! The shape of a GPT2MEG, its presets, and the checks that a shape must pass.

use crate::ensure;
use crate::error::{Kind, Result};
use serde::{Deserialize, Serialize};

/// Whether all channels share the output projection (the authors' code) or each has its own (the paper's summary).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Head {
    /// One `lm_head` for all channels.
    Shared,
    /// One `lm_head` for each channel.
    PerChannel,
}

/// The shape of the network. Paper, section 2; the presets are its two models and a small one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelConfig {
    /// Transformer blocks.
    pub n_layer: usize,
    /// Attention heads; divides `d_model`.
    pub n_head: usize,
    /// Width of the residual stream.
    pub d_model: usize,
    /// Window length in timesteps: the longest context, and the number of learned positions. Even.
    pub n_ctx: usize,
    /// Levels of the quantiser.
    pub n_level: usize,
    /// Channels, each with an embedding.
    pub n_channel: usize,
    /// Subjects, each with an embedding.
    pub n_subject: usize,
    /// Conditions, not counting 0 (none), which adds exactly zero.
    pub n_condition: usize,
    /// Shared or per-channel output projection.
    pub head: Head,
}

impl ModelConfig {
    /// Limits on what a file or a flag may ask for, so that no size can overflow or exhaust memory unnoticed.
    pub const MAX: ModelConfig = ModelConfig {
        n_layer: 256,
        n_head: 256,
        d_model: 4096,
        n_ctx: 16_384,
        n_level: 256,
        n_channel: 8192,
        n_subject: 65_536,
        n_condition: 65_535,
        head: Head::PerChannel,
    };

    /// The width of one attention head.
    pub fn d_head(&self) -> usize {
        self.d_model / self.n_head
    }

    /// The first position of the window whose output is a target: the loss covers the last half (paper 2.2).
    pub fn first_target(&self) -> usize {
        self.n_ctx / 2
    }

    /// The paper's single-subject model: d_model 96, 12 layers, 12 heads, context 256.
    pub fn single(n_channel: usize, n_subject: usize, n_condition: usize) -> Self {
        let head = Head::Shared;
        Self { n_layer: 12, n_head: 12, d_model: 96, n_ctx: 256, n_level: 256, n_channel, n_subject, n_condition, head }
    }

    /// The paper's group model: d_model 240, otherwise as [`Self::single`].
    pub fn group(n_channel: usize, n_subject: usize, n_condition: usize) -> Self {
        Self { d_model: 240, ..Self::single(n_channel, n_subject, n_condition) }
    }

    /// A small model for demonstrations and tests: minutes on a laptop.
    pub fn tiny(n_channel: usize, n_subject: usize, n_condition: usize) -> Self {
        Self { n_layer: 2, n_head: 4, d_model: 32, n_ctx: 128, ..Self::single(n_channel, n_subject, n_condition) }
    }

    /// Checks every number against its limit and against the others.
    pub fn check(&self) -> Result<()> {
        let max = Self::MAX;
        for (name, value, least, most) in [
            ("n_layer", self.n_layer, 1, max.n_layer),
            ("n_head", self.n_head, 1, max.n_head),
            ("d_model", self.d_model, 1, max.d_model),
            ("n_ctx", self.n_ctx, 2, max.n_ctx),
            ("n_level", self.n_level, 2, max.n_level),
            ("n_channel", self.n_channel, 1, max.n_channel),
            ("n_subject", self.n_subject, 1, max.n_subject),
            ("n_condition", self.n_condition, 0, max.n_condition),
        ] {
            ensure!(
                (least..=most).contains(&value),
                Kind::ShapeMismatch,
                "{name} = {value} is outside {least} to {most}"
            );
        }
        ensure!(
            self.d_model.is_multiple_of(self.n_head),
            Kind::ShapeMismatch,
            "d_model = {} is not a multiple of n_head = {}",
            self.d_model,
            self.n_head
        );
        ensure!(self.n_ctx.is_multiple_of(2), Kind::ShapeMismatch, "n_ctx = {} is odd", self.n_ctx);
        Ok(())
    }
}
