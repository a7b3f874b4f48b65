//! The options that say what shape a network has.

use crate::ensure;
use crate::error::{Error, Kind, Result};
use crate::model::config::{Head, ModelConfig};
use crate::model::kind::{Model, Sizes};
use crate::model::linear::LinearConfig;
use crate::model::wavenet::WavenetConfig;
use clap::{Args, ValueEnum};

/// The network's shape.
#[derive(Args, Debug)]
pub struct Shape {
    /// Shape to start from: the paper's two models, or a small one [default: single].
    #[arg(long, value_enum)]
    pub preset: Option<Preset>,
    /// Transformer blocks; of a WaveNet, its dilated layers (1, 2, 4, … timesteps apart, again and again).
    #[arg(long)]
    layers: Option<usize>,
    /// Attention heads (GPT2MEG only).
    #[arg(long)]
    heads: Option<usize>,
    /// Width of the network: of GPT2MEG, a multiple of the heads; a WaveNet's other widths keep the paper's proportion to it.
    #[arg(long)]
    d_model: Option<usize>,
    /// Longest context, in timesteps; even. Of a WaveNet, whose context is its receptive field, the length of a window, of
    /// which the last half are targets.
    #[arg(long)]
    context: Option<usize>,
    /// One output projection for all channels (the authors' code), or one for each (the paper's text) (GPT2MEG only)
    /// [default: shared].
    #[arg(long, value_enum)]
    head: Option<Head>,
    /// Of an autoregression: values of the past that it reads [default: 255; 10 of a multivariate one].
    #[arg(long)]
    order: Option<usize>,
    /// Of an autoregression: predict each channel from all of them.
    #[arg(long)]
    multivariate: bool,
    /// Of an autoregression: added to the diagonal of its equations, as a part of the diagonal's mean [default: 1e-9].
    #[arg(long)]
    ridge: Option<f64>,
}

/// A kind of model.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelKind {
    /// GPT2MEG.
    Gpt,
    /// WaveNet, channels independent (the paper's full-channel).
    Wavenet,
    /// WaveNet with a map across channels before the head (the paper's full-channel-mix).
    WavenetMix,
    /// Linear autoregression, solved at once: univariate of order 255, or as --order and --multivariate say.
    Ar,
}

impl ModelKind {
    /// As [`Model::name`].
    pub fn name(self) -> &'static str {
        match self {
            Self::Gpt => "gpt",
            Self::Wavenet => "wavenet",
            Self::WavenetMix => "wavenet-mix",
            Self::Ar => "ar",
        }
    }
}

/// A shape to start from.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preset {
    /// The paper's single-subject model: 12 layers, 12 heads, d_model 96, context 256; a WaveNet of 14 layers, d_model 128.
    Single,
    /// The paper's group model: as single, with d_model 240; a WaveNet as for one subject.
    Group,
    /// For demonstrations: 2 layers, 4 heads, d_model 32, context 128; a WaveNet of 10 layers, d_model 32.
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

    /// The model that the flags ask for, of this kind and for these numbers of channels, subjects, conditions and levels.
    pub fn model(&self, kind: ModelKind, counts: [usize; 3], n_level: usize) -> Result<Model> {
        let [n_channel, n_subject, n_condition] = counts;
        let wavenet = |mix| {
            let preset = if self.preset() == Preset::Tiny { WavenetConfig::tiny } else { WavenetConfig::single };
            Model::Wavenet(WavenetConfig { n_level, ..preset(mix, n_channel, n_subject, n_condition) })
        };
        let base = match kind {
            ModelKind::Gpt => {
                Model::Gpt(ModelConfig { n_level, ..self.preset().config(n_channel, n_subject, n_condition) })
            }
            ModelKind::Wavenet => wavenet(false),
            ModelKind::WavenetMix => wavenet(true),
            ModelKind::Ar => {
                let sizes = Sizes { n_ctx: 0, n_level, n_channel, n_subject, n_condition };
                Model::Ar(LinearConfig::new(if self.multivariate { 10 } else { 255 }, self.multivariate, sizes))
            }
        };
        if kind != ModelKind::Ar && (self.order.is_some() || self.multivariate || self.ridge.is_some()) {
            let hint = "Leave --order, --multivariate and --ridge away, or give --model ar";
            return Err(Error::new(Kind::Usage, "a network has no order").hint(hint));
        }
        let model = self.apply_to(&base)?;
        model.check().map_err(|e| e.hint("Choose another shape"))?;
        Ok(model)
    }

    /// `base` with what the flags change.
    pub fn apply_to(&self, base: &Model) -> Result<Model> {
        let config = match base {
            Model::Gpt(config) => return Ok(self.apply(config).into()),
            Model::Wavenet(config) => config,
            Model::Ar(config) => {
                let none = [self.layers, self.heads, self.d_model, self.context].iter().all(Option::is_none);
                ensure!(
                    none && self.head.is_none() && self.preset.is_none(),
                    Kind::Usage,
                    "an autoregression has no shape but --order, --multivariate and --ridge"
                );
                let order = self.order.unwrap_or(config.order);
                let multivariate = self.multivariate || config.multivariate;
                let ridge = self.ridge.unwrap_or(config.ridge);
                let shape = LinearConfig::new(order, multivariate, config.sizes);
                return Ok(Model::Ar(LinearConfig { ridge, signal: config.signal, ..shape }));
            }
        };
        if self.heads.is_some() || self.head.is_some() {
            let hint = "Leave --heads and --head away: they are GPT2MEG's";
            return Err(Error::new(Kind::Usage, "a WaveNet has no attention heads and one output").hint(hint));
        }
        let mut config = config.clone();
        if let Some(d_model) = self.d_model {
            config = config.with_width(d_model);
        }
        if let Some(n_layer) = self.layers {
            config.n_layer = n_layer;
            // Sums of dilations need a checked shape, so the least window only of shapes that could be.
            if n_layer <= ModelConfig::MAX.n_layer {
                config.n_ctx = 2 * config.n_receptive();
            }
        }
        config.n_ctx = self.context.unwrap_or(config.n_ctx);
        Ok(config.into())
    }
}
