//! Comparing recordings: statistics, their ceilings, figures and the report. Knows nothing of models and devices.

pub mod amplitude;
pub mod autocorrelation;
pub mod chart;
pub mod measure;
pub mod panels;
pub mod section;
pub mod spectrum;
pub mod svg;
pub mod text;
pub mod topography;
pub mod welch;
