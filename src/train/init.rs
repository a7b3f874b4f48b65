//! Initial parameters: a function of the seed and the table.

use crate::model::layout::{Init, ParamLayout};
use crate::random::{Purpose, keyed};
use rand_distr::{Distribution, StandardNormal};

/// The flat buffer of initial parameters (paper 2.1): each entry of the table draws from its own keystream, so that an
/// entry's start does not depend on the entries before it.
pub fn parameters(layout: &ParamLayout, seed: u64) -> Vec<f32> {
    let mut params = vec![0.0; layout.len()];
    for (number, entry) in layout.entries().iter().enumerate() {
        let values = &mut params[entry.offset..][..entry.len];
        match entry.init {
            Init::Constant(value) => values.fill(value),
            Init::Normal(spread) => {
                let mut generator = keyed(seed, Purpose::Init, number as u64);
                for value in values {
                    let normal: f64 = StandardNormal.sample(&mut generator);
                    *value = (spread * normal) as f32;
                }
            }
        }
    }
    params
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::config::ModelConfig;

    #[test]
    fn entries_have_their_spread_and_norms_start_at_one() {
        let layout = ParamLayout::new(&ModelConfig::tiny(3, 2, 4));
        let params = parameters(&layout, 5);
        for entry in layout.entries() {
            let values = &params[entry.offset..][..entry.len];
            match entry.init {
                Init::Constant(value) => assert!(values.iter().all(|&x| x == value), "{}", entry.name),
                Init::Normal(spread) => {
                    let n = entry.len as f64;
                    let mean = values.iter().map(|&x| f64::from(x)).sum::<f64>() / n;
                    let square = values.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / n;
                    // Five standard errors of the mean and of the mean square of n normal draws.
                    assert!(mean.abs() < 5.0 * spread / n.sqrt(), "{}: mean {mean}", entry.name);
                    let relative = square / spread.powi(2) - 1.0;
                    assert!(relative.abs() < 5.0 * (2.0 / n).sqrt(), "{}: square off by {relative}", entry.name);
                }
            }
        }
        assert_eq!(params, parameters(&layout, 5));
        assert_ne!(params, parameters(&layout, 6));
    }
}
