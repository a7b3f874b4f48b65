//! Statistics that more than one room needs: spectra by Welch's method, quantiles.

pub mod quantile;
pub mod welch;
