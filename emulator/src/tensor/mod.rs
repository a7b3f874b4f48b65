//! What a warp computes together: `mma`, and the shuffles of 8 × 8 matrices that feed it (`ldmatrix`, `stmatrix`,
//! `movmatrix`). Pure functions from registers to registers; memory is the machine's.
//!
//! A warp register is a `[u32; 32]`: element `lane` is what that lane holds.

pub mod layout;
pub mod matrix;
pub mod mma;
mod row;

#[cfg(test)]
mod tests;

/// One register of all lanes of a warp.
pub type WarpRegister = [u32; 32];
