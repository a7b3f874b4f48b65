//! The kinds of model that train, score and generate through the same commands.
//!
//! A match over this enum stands wherever the kinds differ; everything else (windows, checkpoints, logs, scores) is
//! written once. Checkpoints record the kind under `kind`; those without it are older than it and hold a GPT2MEG.

use super::config::ModelConfig;
use super::layout::ParamLayout;
use super::linear::{Linear, LinearConfig};
use super::wavenet::WavenetConfig;
use crate::error::Result;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

/// The shape of a model, of whichever kind.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Model {
    /// GPT2MEG.
    Gpt(ModelConfig),
    /// A WaveNet, with or without a map across channels.
    Wavenet(WavenetConfig),
    /// A linear autoregression.
    Ar(LinearConfig),
}

impl From<ModelConfig> for Model {
    fn from(config: ModelConfig) -> Self {
        Self::Gpt(config)
    }
}

impl From<WavenetConfig> for Model {
    fn from(config: WavenetConfig) -> Self {
        Self::Wavenet(config)
    }
}

impl<'de> Deserialize<'de> for Model {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let mut map = Map::deserialize(deserializer)?;
        let kind = map.remove("kind");
        let shape = Value::Object(map);
        let made = match kind.as_ref().map_or(Some("gpt"), Value::as_str) {
            Some("gpt") => serde_json::from_value(shape).map(Self::Gpt),
            Some("wavenet") => serde_json::from_value(shape).map(Self::Wavenet),
            Some("ar") => serde_json::from_value(shape).map(Self::Ar),
            _ => return Err(D::Error::custom(format!("this version knows no model of the kind {kind:?}"))),
        };
        made.map_err(D::Error::custom)
    }
}

/// What every kind of model has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sizes {
    /// Timesteps of a window; its last half are targets.
    pub n_ctx: usize,
    /// Levels of the quantiser.
    pub n_level: usize,
    /// Channels.
    pub n_channel: usize,
    /// Subjects.
    pub n_subject: usize,
    /// Conditions, not counting 0 (none).
    pub n_condition: usize,
}

impl Model {
    /// The sizes that do not depend on the kind.
    pub fn sizes(&self) -> Sizes {
        match self {
            Self::Gpt(c) => Sizes {
                n_ctx: c.n_ctx,
                n_level: c.n_level,
                n_channel: c.n_channel,
                n_subject: c.n_subject,
                n_condition: c.n_condition,
            },
            Self::Wavenet(c) => Sizes {
                n_ctx: c.n_ctx,
                n_level: c.n_level,
                n_channel: c.n_channel,
                n_subject: c.n_subject,
                n_condition: c.n_condition,
            },
            Self::Ar(config) => config.sizes,
        }
    }

    /// Timesteps of a window; its last half are targets.
    pub fn n_ctx(&self) -> usize {
        self.sizes().n_ctx
    }

    /// The first position of the window whose output is a target (paper 2.2).
    pub fn first_target(&self) -> usize {
        self.n_ctx() / 2
    }

    /// Targets of a window of one channel.
    pub fn n_target(&self) -> usize {
        self.n_ctx() - self.first_target()
    }

    /// Channels.
    pub fn n_channel(&self) -> usize {
        self.sizes().n_channel
    }

    /// The name that `train --model` knows it by.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Gpt(_) => "gpt",
            Self::Wavenet(config) if config.mix => "wavenet-mix",
            Self::Wavenet(_) => "wavenet",
            Self::Ar(_) => "ar",
        }
    }

    /// Checks every number against its limit and against the others.
    pub fn check(&self) -> Result<()> {
        match self {
            Self::Gpt(config) => config.check(),
            Self::Wavenet(config) => config.check(),
            Self::Ar(config) => config.check(),
        }
    }

    /// The table of a network's parameters; the shape must have passed [`Self::check`]. An autoregression has none: it is no
    /// network.
    pub fn layout(&self) -> ParamLayout {
        match self {
            Self::Gpt(config) => ParamLayout::new(config),
            Self::Wavenet(config) => config.layout(),
            Self::Ar(_) => ParamLayout::none(),
        }
    }

    /// The number of its parameters.
    pub fn n_parameter(&self) -> usize {
        match self {
            Self::Ar(config) => Linear::shapes(config).iter().map(|shape| shape.iter().product::<usize>()).sum(),
            _ => self.layout().len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kind_is_recorded_and_its_absence_means_gpt() {
        let (gpt, wavenet) = (ModelConfig::tiny(3, 2, 4), WavenetConfig::tiny(true, 3, 2, 4));
        let linear = LinearConfig::new(255, false, Model::from(gpt.clone()).sizes());
        for model in [Model::from(gpt.clone()), wavenet.into(), Model::Ar(linear)] {
            let text = serde_json::to_string(&model).unwrap();
            assert_eq!(serde_json::from_str::<Model>(&text).unwrap(), model, "{text}");
        }
        let old = serde_json::to_string(&gpt).unwrap();
        assert!(!old.contains("kind"));
        assert_eq!(serde_json::from_str::<Model>(&old).unwrap(), gpt.into());
        let error = serde_json::from_str::<Model>("{\"kind\":\"mamba\"}").unwrap_err();
        assert!(error.to_string().contains("mamba"), "{error}");
    }
}
