//! The options that say what shape a network has.

use crate::model::config::{Head, ModelConfig};
use clap::{Args, ValueEnum};

/// The network's shape.
#[derive(Args, Debug)]
pub struct Shape {
    /// Shape to start from: the paper's two models, or a small one [default: single].
    #[arg(long, value_enum)]
    pub preset: Option<Preset>,
    /// Transformer blocks.
    #[arg(long)]
    layers: Option<usize>,
    /// Attention heads.
    #[arg(long)]
    heads: Option<usize>,
    /// Width of the network; a multiple of the heads.
    #[arg(long)]
    d_model: Option<usize>,
    /// Longest context, in timesteps; even.
    #[arg(long)]
    context: Option<usize>,
    /// One output projection for all channels (the authors' code), or one for each (the paper's text) [default: shared].
    #[arg(long, value_enum)]
    head: Option<Head>,
}

/// A shape to start from.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preset {
    /// The paper's single-subject model: 12 layers, 12 heads, d_model 96, context 256.
    Single,
    /// The paper's group model: as single, with d_model 240.
    Group,
    /// For demonstrations: 2 layers, 4 heads, d_model 32, context 128.
    Tiny,
}

impl Preset {
    /// The preset for so many channels, subjects and conditions.
    pub fn config(self, n_channel: usize, n_subject: usize, n_condition: usize) -> ModelConfig {
        let config = match self {
            Self::Single => ModelConfig::single,
            Self::Group => ModelConfig::group,
            Self::Tiny => ModelConfig::tiny,
        };
        config(n_channel, n_subject, n_condition)
    }
}

impl Shape {
    /// The shape to start from.
    pub fn preset(&self) -> Preset {
        self.preset.unwrap_or(Preset::Single)
    }

    /// `base` with what the flags change.
    pub fn apply(&self, base: &ModelConfig) -> ModelConfig {
        ModelConfig {
            n_layer: self.layers.unwrap_or(base.n_layer),
            n_head: self.heads.unwrap_or(base.n_head),
            d_model: self.d_model.unwrap_or(base.d_model),
            n_ctx: self.context.unwrap_or(base.n_ctx),
            head: self.head.unwrap_or(base.head),
            ..base.clone()
        }
    }
}
