//! Statistics that more than one room needs: spectra by Welch's method, quantiles, products and eigenvectors of matrices.

pub mod eigen;
pub mod product;
pub mod quantile;
pub mod welch;
