//! Linear autoregression: the shape, and the fitted model itself, in f64.
//!
//! Univariate: each channel's next value is a constant plus a weighted sum of its own last `order` values. Multivariate:
//! of all channels' last `order` values. What is left over is Gaussian. Values are in scaled units (z).
//!
//! Source: paper, section 3.3, but for the fit, which is exact least squares here, and the noise, which is the residual's.

use crate::ensure;
use crate::error::{Kind, Result};
use crate::model::config::ModelConfig;
use crate::model::kind::Sizes;
use serde::{Deserialize, Serialize};

/// The shape of an autoregression.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct LinearConfig {
    /// Values of the past that a prediction reads, of each channel that it reads.
    pub order: usize,
    /// Whether a prediction reads all channels, or its own alone.
    pub multivariate: bool,
    /// Added to the diagonal of the equations of the fit, as a part of the diagonal's mean.
    pub ridge: f64,
    /// Whether it is of the signal from before quantising, which its data must then have kept; else of the levels' centres.
    pub signal: bool,
    /// Windows, levels, channels, subjects, conditions; subjects and conditions do not matter to it.
    #[serde(flatten)]
    pub sizes: Sizes,
}

impl LinearConfig {
    /// Equations that a multivariate fit may have: their matrix takes half a gigabyte.
    const MAX_WIDTH: usize = 8192;

    /// The ridge where nobody asks for another: the signal's own rounding is more.
    const RIDGE: f64 = 1e-9;

    /// The shape for such data, of the levels' centres; windows as GPT2MEG has them, or longer where the order needs it.
    pub fn new(order: usize, multivariate: bool, sizes: Sizes) -> Self {
        Self {
            order,
            multivariate,
            ridge: Self::RIDGE,
            signal: false,
            sizes: Sizes { n_ctx: order.saturating_mul(2).max(256), ..sizes },
        }
    }

    /// Values that one prediction reads.
    pub fn width(&self) -> usize {
        if self.multivariate { self.order * self.sizes.n_channel } else { self.order }
    }

    /// Checks every number against its limit and against the others.
    pub fn check(&self) -> Result<()> {
        let (order, max) = (self.order, ModelConfig::MAX);
        let Sizes { n_ctx, n_level, n_channel, n_subject, n_condition } = self.sizes;
        let ridge = self.ridge;
        ensure!((0.0..=1.0).contains(&ridge), Kind::ShapeMismatch, "a ridge of {ridge} is outside 0 to 1");
        for (name, value, least, most) in [
            ("the order", order, 1, max.n_ctx / 2),
            ("n_ctx", n_ctx, 2, max.n_ctx),
            ("n_level", n_level, 2, max.n_level),
            ("n_channel", n_channel, 1, max.n_channel),
            ("n_subject", n_subject, 1, max.n_subject),
            ("n_condition", n_condition, 0, max.n_condition),
        ] {
            let inside = (least..=most).contains(&value);
            ensure!(inside, Kind::ShapeMismatch, "{name} = {value} is outside {least} to {most}");
        }
        let long = n_ctx.is_multiple_of(2) && n_ctx / 2 >= order;
        ensure!(long, Kind::ShapeMismatch, "windows of {n_ctx} timesteps do not fit the order {order}");
        let (width, most) = (self.width(), Self::MAX_WIDTH);
        ensure!(
            width <= most,
            Kind::ShapeMismatch,
            "the order {order} of {n_channel} channels together makes {width} equations, more than {most}"
        );
        Ok(())
    }
}

/// A fitted autoregression.
#[derive(Debug, Clone, PartialEq)]
pub struct Linear {
    /// Its shape.
    pub config: LinearConfig,
    /// Constant terms, `[C]`.
    pub intercept: Vec<f64>,
    /// [C, order], or [C, order, C] of a multivariate one; the oldest value first.
    pub weights: Vec<f64>,
    /// Standard deviations of the residuals, `[C]`.
    pub sigma: Vec<f64>,
    /// Of a multivariate one, the lower triangular factor [C, C] of the residuals' covariance; else empty.
    pub factor: Vec<f64>,
}

/// The names of a fitted autoregression's tensors, in the order of [`Linear::tensors`].
pub const TENSORS: [&str; 4] = ["intercept", "weights", "sigma", "factor"];

impl Linear {
    /// The shapes of its tensors.
    pub fn shapes(config: &LinearConfig) -> [Vec<usize>; 4] {
        let (c, order) = (config.sizes.n_channel, config.order);
        match config.multivariate {
            false => [vec![c], vec![c, order], vec![c], vec![0, 0]],
            true => [vec![c], vec![c, order, c], vec![c], vec![c, c]],
        }
    }

    /// Its tensors.
    pub fn tensors(&self) -> [&Vec<f64>; 4] {
        [&self.intercept, &self.weights, &self.sigma, &self.factor]
    }

    /// The expected value of a channel after `history`: the last `order` values of the channel, or, of a multivariate
    /// one, of all channels timestep by timestep; the oldest first.
    pub fn predict(&self, channel: usize, history: &[f64]) -> f64 {
        let width = self.config.width();
        self.intercept[channel] + dot(&self.weights[channel * width..][..width], &history[..width])
    }
}

/// Σ a b, in eight running sums so that it vectorises.
pub fn dot(a: &[f64], b: &[f64]) -> f64 {
    let (a, b) = (a.chunks_exact(8), b.chunks_exact(8));
    let rest: f64 = a.remainder().iter().zip(b.remainder()).map(|(x, y)| x * y).sum();
    let mut sums = [0.0; 8];
    for (a, b) in a.zip(b) {
        for lane in 0..8 {
            sums[lane] += a[lane] * b[lane];
        }
    }
    sums.iter().sum::<f64>() + rest
}
