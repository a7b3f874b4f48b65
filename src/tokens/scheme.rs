//! From volts and tesla to 256 levels and back (the paper, section 1).
//!
//! A sample x of a channel is scaled, z = (x − centre) / spread, clipped to ± `peak` and divided by it, so that it lies
//! in [−1, 1]; companded, f(x) = sign(x) ln(1 + µ|x|) / ln(1 + µ); and rounded to the nearest of `n_level` values that
//! are equally spaced in f from −1 to 1. Decoding returns that value, the centre of the level, not its edge.

use crate::ensure;
use crate::error::{Kind, Result};
use serde::{Deserialize, Serialize};
use std::fmt;

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

impl Companding {
    /// f(x), from [−1, 1] to [−1, 1]. libm's functions, so that every platform gives the same tokens.
    fn compress(self, x: f64) -> f64 {
        match self {
            Self::MuLaw { mu } => libm::log1p(mu * x.abs()) / libm::log1p(mu) * if x < 0.0 { -1.0 } else { 1.0 },
            Self::Linear => x,
        }
    }

    /// The inverse of f.
    fn expand(self, f: f64) -> f64 {
        match self {
            Self::MuLaw { mu } => (libm::expm1(f.abs() * libm::log1p(mu)) / mu).copysign(f),
            Self::Linear => f,
        }
    }
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

/// The tokenizer in words.
impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scaling = match self.scaling {
            Scaling::MeanStd => "mean and standard deviation",
            Scaling::Robust => "median and inter-quartile range, then the largest value",
        };
        write!(f, "{scaling}, clip ±{}, ", self.clip)?;
        match self.companding {
            Companding::MuLaw { mu } => write!(f, "µ-law (µ = {mu}), {} levels", self.n_level),
            Companding::Linear => write!(f, "linear, {} levels", self.n_level),
        }
    }
}

impl Scheme {
    /// The paper's summary: mean and standard deviation, clip ±10, µ = 255, 256 levels.
    pub const PAPER: Scheme =
        Scheme { scaling: Scaling::MeanStd, clip: 10.0, companding: Companding::MuLaw { mu: 255.0 }, n_level: 256 };
    /// The authors' code: robust scaling, clip ±4, then per-channel max-abs.
    pub const AUTHORS: Scheme =
        Scheme { scaling: Scaling::Robust, clip: 4.0, companding: Companding::MuLaw { mu: 255.0 }, n_level: 256 };

    /// The levels' values in [−1, 1], ascending: what decoding returns, and what the squared error is measured with.
    pub fn levels(&self) -> Vec<f64> {
        let last = (self.n_level - 1) as f64;
        (0..self.n_level).map(|level| self.companding.expand(level as f64 / last * 2.0 - 1.0)).collect()
    }

    /// The boundaries between levels in [−1, 1]: `n_level + 1` values, the outer ones infinite. Level k holds
    /// `boundaries[k] <= x < boundaries[k + 1]`, exactly.
    pub fn boundaries(&self) -> Vec<f64> {
        let levels = self.levels();
        let inner = (1..self.n_level).map(|level| self.first_of(level, levels[level - 1], levels[level]));
        std::iter::once(f64::NEG_INFINITY).chain(inner).chain([f64::INFINITY]).collect()
    }

    /// The smallest number that [`Self::encode`] gives `level` or more, found between one below and one above.
    fn first_of(&self, level: usize, mut below: f64, mut above: f64) -> f64 {
        loop {
            let middle = below + (above - below) / 2.0;
            if middle <= below || middle >= above {
                return above;
            }
            if usize::from(self.encode(middle)) < level { below = middle } else { above = middle }
        }
    }

    /// The level of `x` in [−1, 1] (clipped to it): nearest in the companded domain, ties upwards.
    /// [`Quantiser`] gives the same, faster.
    pub fn encode(&self, x: f64) -> u8 {
        let half = (self.n_level - 1) as f64 / 2.0;
        ((self.companding.compress(x.clamp(-1.0, 1.0)) + 1.0) * half + 0.5).floor() as u8
    }

    /// Checks every number against its limits.
    pub fn check(&self) -> Result<()> {
        ensure!((2..=256).contains(&self.n_level), Kind::Usage, "{} levels: there may be 2 to 256", self.n_level);
        let clip = self.clip;
        ensure!((1e-3..=1e6).contains(&clip), Kind::Usage, "a clip of ±{clip} makes no sense; the paper has 10");
        if let Companding::MuLaw { mu } = self.companding {
            ensure!((1e-3..=1e6).contains(&mu), Kind::Usage, "µ = {mu} makes no sense; the paper has 255");
        }
        Ok(())
    }
}

/// The fitted scale of one channel.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scale {
    /// SI units.
    pub centre: f64,
    /// SI units.
    pub spread: f64,
    /// Scaled units: the clip itself, or the largest absolute value seen when fitting.
    pub peak: f64,
}

impl Scale {
    /// A sample in scaled units, before clipping.
    pub fn scaled(&self, x: f64) -> f64 {
        (x - self.centre) / self.spread
    }

    /// A sample in [−1, 1], clipped.
    pub fn unit(&self, x: f64) -> f64 {
        self.scaled(x).clamp(-self.peak, self.peak) / self.peak
    }

    /// A value of [−1, 1] in SI units.
    pub fn si(&self, unit: f64) -> f64 {
        unit * self.peak * self.spread + self.centre
    }
}

/// The fitted scales of one recording, one value per channel: z = (x − centre) / spread, clipped to ± `peak`, then
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

impl Scales {
    /// The scale of one channel.
    pub fn channel(&self, channel: usize) -> Scale {
        Scale { centre: self.centre[channel], spread: self.spread[channel], peak: self.peak[channel] }
    }
}

impl FromIterator<Scale> for Scales {
    fn from_iter<I: IntoIterator<Item = Scale>>(scales: I) -> Self {
        let mut all = Self::default();
        for scale in scales {
            all.centre.push(scale.centre);
            all.spread.push(scale.spread);
            all.peak.push(scale.peak);
        }
        all
    }
}

/// A scheme made ready for hours of signal: eight comparisons with a table instead of a logarithm.
#[derive(Debug, Clone)]
pub struct Quantiser {
    levels: Vec<f64>,
    /// `starts[k]` is where level k + 1 begins; infinite where there is no such level.
    starts: [f64; 256],
}

impl Quantiser {
    /// The tables of a scheme that passes its check.
    pub fn new(scheme: &Scheme) -> Self {
        let mut starts = [f64::INFINITY; 256];
        let boundaries = scheme.boundaries();
        let inner = &boundaries[1..scheme.n_level];
        starts[..inner.len()].copy_from_slice(inner);
        Self { levels: scheme.levels(), starts }
    }

    /// The level of `x`; the same as [`Scheme::encode`].
    pub fn encode(&self, x: f64) -> u8 {
        let mut level = 0;
        for step in [128, 64, 32, 16, 8, 4, 2, 1] {
            // The mask changes nothing; it spares the bounds check.
            level += step * usize::from(x >= self.starts[(level + step - 1) & 255]);
        }
        level as u8
    }

    /// The levels of a stretch of one channel.
    pub fn encode_signal(&self, scale: Scale, signal: &[f32], tokens: &mut [u8]) {
        for (token, &x) in tokens.iter_mut().zip(signal) {
            *token = self.encode(scale.unit(f64::from(x)));
        }
    }

    /// What each level stands for in a channel, in SI units.
    pub fn decoded(&self, scale: Scale) -> Vec<f64> {
        self.levels.iter().map(|&level| scale.si(level)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use approx::assert_relative_eq;
    use proptest::prelude::*;

    /// Schemes of every sort: levels even, odd, few; µ small and large; no companding.
    fn schemes() -> Vec<Scheme> {
        let mut all = vec![Scheme::PAPER, Scheme::AUTHORS];
        for n_level in [2, 3, 54, 255, 256] {
            for companding in [Companding::Linear, Companding::MuLaw { mu: 1.0 }, Companding::MuLaw { mu: 65_535.0 }] {
                all.push(Scheme { companding, n_level, ..Scheme::PAPER });
            }
        }
        all
    }

    /// The paper, sections 1.2 and 1.3.
    #[test]
    fn the_papers_values() {
        let encoded = [-1.0, -1e-12, 0.0, 1e-12, 1.0].map(|x| Scheme::PAPER.encode(x));
        assert_eq!(encoded, [0, 127, 128, 128, 255]);
        let levels = Scheme::PAPER.levels();
        for (level, value) in [(0, -1.0), (127, -8.6212e-5), (128, 8.6212e-5), (255, 1.0)] {
            assert_relative_eq!(levels[level], value, max_relative = 1e-5);
        }
        // The edges of levels 1 and 255, which the authors' code decodes to.
        let boundaries = Scheme::PAPER.boundaries();
        assert_relative_eq!(boundaries[1], -0.97840, max_relative = 1e-5);
        assert_relative_eq!(boundaries[255], 0.97840, max_relative = 1e-5);
    }

    #[test]
    fn beyond_one_is_clipped_and_zero_has_no_sign() {
        let scheme = Scheme::PAPER;
        assert_eq!([-2.0, f64::NEG_INFINITY, 2.0, f64::INFINITY].map(|x| scheme.encode(x)), [0, 0, 255, 255]);
        assert_eq!(scheme.encode(-0.0), scheme.encode(0.0));
    }

    #[test]
    fn the_table_equals_the_formula_around_every_boundary() {
        for scheme in schemes() {
            let quantiser = Quantiser::new(&scheme);
            let boundaries = scheme.boundaries();
            assert_eq!(boundaries.len(), scheme.n_level + 1);
            for (level, &start) in boundaries.iter().enumerate().take(scheme.n_level).skip(1) {
                assert_eq!(usize::from(scheme.encode(start)), level, "{scheme:?}");
                assert_eq!(usize::from(scheme.encode(start.next_down())), level - 1, "{scheme:?}");
                let (mut down, mut up) = (start, start);
                for _ in 0..8 {
                    for x in [down, up] {
                        assert_eq!(quantiser.encode(x), scheme.encode(x), "{scheme:?}, {x:e}");
                    }
                    (down, up) = (down.next_down(), up.next_up());
                }
            }
        }
    }

    #[test]
    fn every_level_decodes_to_itself() {
        for scheme in schemes() {
            for (level, value) in scheme.levels().into_iter().enumerate() {
                assert_eq!(usize::from(scheme.encode(value)), level, "{scheme:?}");
            }
        }
    }

    #[test]
    fn limits() {
        let with = |clip, mu, n_level| Scheme { clip, companding: Companding::MuLaw { mu }, n_level, ..Scheme::PAPER };
        for bad in [with(0.0, 255.0, 256), with(f64::NAN, 255.0, 256), with(10.0, 0.0, 256), with(10.0, 255.0, 257)] {
            assert_eq!(bad.check().unwrap_err().kind(), Kind::Usage, "{bad:?}");
        }
        assert!(schemes().iter().all(|scheme| scheme.check().is_ok()));
    }

    proptest! {
        #[test]
        fn the_table_equals_the_formula(x in -1.1f64..1.1, small in -1e-3f64..1e-3, scheme in 0usize..17) {
            let scheme = schemes()[scheme];
            let quantiser = Quantiser::new(&scheme);
            for x in [x, small] {
                prop_assert_eq!(quantiser.encode(x), scheme.encode(x));
            }
        }

        /// The level's value is within half a step of the sample, in the companded domain: nearest means nearest.
        #[test]
        fn no_other_level_is_nearer(x in -1.0f64..1.0, scheme in 0usize..17) {
            let scheme = schemes()[scheme];
            let f = scheme.companding.compress(x);
            let step = 2.0 / (scheme.n_level - 1) as f64;
            let chosen = scheme.companding.compress(scheme.levels()[usize::from(scheme.encode(x))]);
            prop_assert!((f - chosen).abs() <= step / 2.0 * (1.0 + 1e-9) + 1e-12, "{} {}", f, chosen);
        }
    }
}
