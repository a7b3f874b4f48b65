//! Initial parameters: a function of the seed and the table.

use crate::model::layout::{Init, ParamLayout};
use crate::random::{Purpose, keyed};
use rand::Rng;
use rand_distr::{Distribution, StandardNormal};

/// The flat buffer of initial parameters (paper 2.1): each entry of the table draws from its own keystream, so that an
/// entry's start does not depend on the entries before it.
pub fn parameters(layout: &ParamLayout, seed: u64) -> Vec<f32> {
    let mut params = vec![0.0; layout.len()];
    for (number, entry) in layout.entries().iter().enumerate() {
        let values = &mut params[entry.offset..][..entry.len];
        match entry.init {
            Init::Constant(value) => values.fill(value),
            Init::Normal(spread) => normal(seed, number, 0.0, spread, values),
            Init::NormalAround { mean, spread } => normal(seed, number, mean, spread, values),
            Init::Uniform(bound) => {
                let mut generator = keyed(seed, Purpose::Init, number as u64);
                // The 24 bits in the middle of their interval: never a bound itself, and no mean.
                let draw = |word: u32| (2.0 * (f64::from(word >> 8) + 0.5) / 16_777_216.0 - 1.0) * bound;
                values.iter_mut().for_each(|value| *value = draw(generator.next_u32()) as f32);
            }
        }
    }
    params
}

fn normal(seed: u64, number: usize, mean: f64, spread: f64, values: &mut [f32]) {
    let mut generator = keyed(seed, Purpose::Init, number as u64);
    for value in values {
        let normal: f64 = StandardNormal.sample(&mut generator);
        *value = (mean + spread * normal) as f32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::config::ModelConfig;
    use crate::model::wavenet::WavenetConfig;

    #[test]
    fn entries_have_their_spread_and_norms_start_at_one() {
        for layout in [ParamLayout::new(&ModelConfig::tiny(3, 2, 4)), WavenetConfig::tiny(true, 3, 2, 4).layout()] {
            let params = parameters(&layout, 5);
            for entry in layout.entries() {
                let values = &params[entry.offset..][..entry.len];
                let (mean, spread) = match entry.init {
                    Init::Constant(value) => {
                        assert!(values.iter().all(|&x| x == value), "{}", entry.name);
                        continue;
                    }
                    Init::Normal(spread) => (0.0, spread),
                    Init::NormalAround { mean, spread } => (mean, spread),
                    Init::Uniform(bound) => {
                        assert!(values.iter().all(|x| f64::from(x.abs()) < bound), "{}", entry.name);
                        (0.0, bound / 3f64.sqrt())
                    }
                };
                let n = entry.len as f64;
                let found = values.iter().map(|&x| f64::from(x)).sum::<f64>() / n;
                let square = values.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / n;
                // Five standard errors of the mean and of the mean square of n normal draws; uniform ones err less.
                assert!((found - mean).abs() < 5.0 * spread / n.sqrt(), "{}: mean {found}", entry.name);
                let relative = square / spread.powi(2) - 1.0;
                assert!(relative.abs() < 5.0 * (2.0 / n).sqrt(), "{}: square off by {relative}", entry.name);
            }
            assert_eq!(params, parameters(&layout, 5));
            assert_ne!(params, parameters(&layout, 6));
        }
    }
}
