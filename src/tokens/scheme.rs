//! From volts and tesla to 256 levels and back.

use crate::error::Result;
use serde::{Deserialize, Serialize};

/// How a channel is centred and scaled before clipping; fitted on the training part only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scaling {
    /// Mean and standard deviation (the paper's summary).
    MeanStd,
    /// Median and inter-quartile range, then the largest absolute value of the clipped training part (the authors' code).
    Robust,
}

/// How [−1, 1] is bent before it is cut into equal steps.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Companding {
    /// µ-law: sign(x) ln(1 + µ|x|) / ln(1 + µ).
    MuLaw {
        /// µ, 255 in the paper.
        mu: f64,
    },
    /// None: equal-width levels.
    Linear,
}

/// A complete tokenizer but for the fitted scales.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Scheme {
    /// Centre and scale.
    pub scaling: Scaling,
    /// Clip at ± this many scaled units.
    pub clip: f64,
    /// Companding.
    pub companding: Companding,
    /// Levels, at most 256.
    pub n_level: usize,
}

impl Scheme {
    /// The paper's summary: mean and standard deviation, clip ±10, µ = 255, 256 levels.
    pub const PAPER: Scheme =
        Scheme { scaling: Scaling::MeanStd, clip: 10.0, companding: Companding::MuLaw { mu: 255.0 }, n_level: 256 };
    /// The authors' code: robust scaling, clip ±4, then per-channel max-abs.
    pub const AUTHORS: Scheme =
        Scheme { scaling: Scaling::Robust, clip: 4.0, companding: Companding::MuLaw { mu: 255.0 }, n_level: 256 };
}

/// The fitted scales of one recording, one value per channel: z = (x − centre) / spread, clipped to ± `clip`, then
/// divided by `peak` to lie in [−1, 1].
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Scales {
    /// SI units.
    pub centre: Vec<f64>,
    /// SI units.
    pub spread: Vec<f64>,
    /// Scaled units: the clip itself, or the largest absolute value seen when fitting.
    pub peak: Vec<f64>,
}

impl Scheme {
    /// The levels' values in [−1, 1], ascending: what decoding returns, and what the squared error is measured with.
    pub fn levels(&self) -> Vec<f64> {
        todo!()
    }
    /// The boundaries between levels in [−1, 1]: `n_level + 1` values, the outer ones infinite.
    pub fn boundaries(&self) -> Vec<f64> {
        todo!()
    }
    /// The level of `x` in [−1, 1] (clipped to it): nearest in the companded domain, ties upwards.
    pub fn encode(&self, x: f64) -> u8 {
        let _ = x;
        todo!()
    }
    /// Checks limits.
    pub fn check(&self) -> Result<()> {
        todo!()
    }
}
