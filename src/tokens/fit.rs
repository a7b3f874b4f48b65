//! Fitting a channel's centre and scale, on the training part only.

use super::scheme::{Scale, Scales, Scaling, Scheme};
use crate::error::Result;
use crate::recording::prepare::flat_error;
use crate::statistics::quantile::quantile;
use rayon::prelude::*;

impl Scheme {
    /// The scale of one channel from the stretches of its training part that count, or `None` when they never change.
    pub fn fit(&self, train: &[&[f32]]) -> Option<Scale> {
        let samples = || train.iter().copied().flatten();
        let first = samples().next()?;
        if samples().all(|x| x == first) {
            return None;
        }
        let (centre, spread) = match self.scaling {
            Scaling::MeanStd => mean_std(samples),
            Scaling::Robust => median_iqr(train.concat()),
        };
        if !(spread.is_normal() && centre.is_finite()) {
            return None;
        }
        let scale = Scale { centre, spread, peak: self.clip };
        let largest = || samples().map(|&x| scale.scaled(f64::from(x)).abs()).fold(0.0, f64::max);
        let peak = match self.scaling {
            Scaling::MeanStd => self.clip,
            Scaling::Robust => self.clip.min(largest()),
        };
        Some(Scale { peak, ..scale })
    }
}

impl Scales {
    /// The scales of all channels; `train` gives the stretches of each one's training part. Channels that cannot be
    /// scaled are all named.
    pub fn fit<'a>(scheme: &Scheme, names: &[&str], train: impl Fn(usize) -> Vec<&'a [f32]> + Sync) -> Result<Self> {
        let fitted: Vec<Option<Scale>> = (0..names.len()).into_par_iter().map(|c| scheme.fit(&train(c))).collect();
        let flat: Vec<&str> = (0..names.len()).filter(|&c| fitted[c].is_none()).map(|c| names[c]).collect();
        if !flat.is_empty() {
            return Err(flat_error(&flat, "the training part has no spread to scale by", false));
        }
        Ok(fitted.into_iter().flatten().collect())
    }
}

/// Mean and standard deviation (of the population, as numpy's default), in two passes.
fn mean_std<'a, I: Iterator<Item = &'a f32>>(samples: impl Fn() -> I) -> (f64, f64) {
    let n = samples().count() as f64;
    let mean = samples().map(|&x| f64::from(x)).sum::<f64>() / n;
    let variance = samples().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / n;
    (mean, variance.sqrt())
}

/// Median and inter-quartile range, exact, interpolated as numpy does by default.
fn median_iqr(mut samples: Vec<f32>) -> (f64, f64) {
    samples.sort_unstable_by(f32::total_cmp);
    (quantile(&samples, 0.5), quantile(&samples, 0.75) - quantile(&samples, 0.25))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;
    use approx::assert_relative_eq;

    #[test]
    fn mean_and_standard_deviation() {
        let scale = Scheme::PAPER.fit(&[&[1.0, 2.0], &[], &[3.0, 6.0]]).unwrap();
        assert_eq!((scale.centre, scale.peak), (3.0, 10.0));
        assert_relative_eq!(scale.spread, 3.5f64.sqrt(), max_relative = 1e-15);
    }

    /// numpy.percentile([5, 1, 4, 2, 100], [25, 50, 75]) is [2, 4, 5]; of [0, 1, 10, 20] it is [0.75, 5.5, 12.5].
    #[test]
    fn median_quartiles_and_largest() {
        let scale = Scheme::AUTHORS.fit(&[&[5.0, 1.0, 4.0, 2.0], &[100.0]]).unwrap();
        assert_eq!((scale.centre, scale.spread, scale.peak), (4.0, 3.0, 4.0));
        let scale = Scheme::AUTHORS.fit(&[&[10.0, 0.0, 20.0, 1.0]]).unwrap();
        assert_eq!((scale.centre, scale.spread), (5.5, 11.75));
        assert_relative_eq!(scale.peak, 14.5 / 11.75, max_relative = 1e-15);
    }

    #[test]
    fn the_scale_of_tesla_is_kept() {
        let x: Vec<f32> = (0..1000).map(|i| (i % 7) as f32 * 1e-13).collect();
        let scale = Scheme::PAPER.fit(&[&x]).unwrap();
        assert_relative_eq!(scale.spread, 2e-13, max_relative = 1e-2);
    }

    #[test]
    fn channels_without_spread_are_named() {
        let rows = [vec![0.1f32; 100], (0..100).map(|i| i as f32).collect(), vec![]];
        let error = Scales::fit(&Scheme::PAPER, &["A", "B", "C"], |c| vec![&rows[c][..]]).unwrap_err();
        assert_eq!(error.kind(), Kind::ZeroVariance);
        assert!(error.to_string().contains("A, C") && error.to_string().contains("--exclude \"A,C\""), "{error}");
        // More than half of the samples equal: the quartiles coincide.
        let mut spiky = vec![0.0f32; 100];
        spiky[3] = 1.0;
        assert!(Scheme::AUTHORS.fit(&[&spiky]).is_none() && Scheme::PAPER.fit(&[&spiky]).is_some());
    }
}
