//! Zero-phase Butterworth filtering of recordings of any length, block by block.

mod design;
mod kernel;
#[cfg(test)]
mod tests;
mod zero_phase;

pub use design::{Band, Memory, Section, memory};
pub use zero_phase::filter;
