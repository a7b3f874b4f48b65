//! Quantiles as numpy has them by default: linear between neighbours.

/// The quantile `q` of sorted values; NaN of none.
pub fn quantile<T: Copy + Into<f64>>(sorted: &[T], q: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    let at = q * last as f64;
    let (low, high) = (sorted[at.floor() as usize].into(), sorted[at.ceil() as usize].into());
    low + (high - low) * at.fract()
}

/// The median of values in any order; `None` of none.
pub fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_unstable_by(f64::total_cmp);
    (!values.is_empty()).then(|| quantile(&values, 0.5))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_numpy_has_them() {
        // numpy.quantile([1, 2, 4, 8], [0, 0.1, 0.5, 0.9, 1])
        for (q, wanted) in [(0.0, 1.0), (0.1, 1.3), (0.5, 3.0), (0.9, 6.8), (1.0, 8.0)] {
            assert!((quantile(&[1.0f32, 2.0, 4.0, 8.0], q) - wanted).abs() < 1e-12, "{q}");
        }
        assert_eq!((median([8.0, 1.0, 4.0, 2.0]), median([3.0, 9.0, 5.0]), median([])), (Some(3.0), Some(5.0), None));
        assert!(quantile::<f64>(&[], 0.5).is_nan());
    }
}
