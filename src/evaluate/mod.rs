//! Comparing recordings: statistics, their ceilings, figures and the report. Knows nothing of models and devices.
//!
//! [`measure`] makes one pass over each recording. Each statistic is one file ([`spectrum`], [`amplitude`],
//! [`autocorrelation`], …) with a function that turns a [`section::Comparison`] into a [`section::Section`]: numbers
//! with their ceilings, figures, definitions. [`report`] puts the sections together and writes them. The control of the
//! sampler ([`control`]) is a comparison like any other, of a known process with itself.

pub mod amplitude;
pub mod arrays;
pub mod autocorrelation;
pub mod battery;
pub mod bootstrap;
pub mod chart;
pub mod control;
pub mod covariance;
pub mod decoding;
pub mod dynamics;
pub mod envelope;
pub mod epochs;
pub mod evoked;
pub mod health;
pub mod measure;
pub mod next_step;
pub mod page;
pub mod panels;
pub mod process;
pub mod report;
pub mod section;
pub mod spectrum;
pub mod surrogate;
pub mod svg;
pub mod text;
pub mod topography;
pub mod traces;
