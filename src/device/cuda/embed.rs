//! The embedding. See `kernels/embed.cu`.

use super::kernel::embed::{EmbedBackward, EmbedForward};
use super::{Gpu, Grid, Shape};
use crate::error::Result;

/// x [N, T, E], overwritten: the sum of the rows that each timestep's indices name.
///
/// # Safety
/// Tables and inputs have the shapes of the kernel's comment, and every index is within its table.
pub unsafe fn forward(gpu: &mut Gpu, shape: &Shape, kernel: &EmbedForward) -> Result<()> {
    let width = if shape.d_model.is_multiple_of(4) { shape.d_model / 4 } else { shape.d_model };
    // SAFETY: the caller's.
    unsafe { gpu.launch(shape, kernel, Grid::over(kernel.n as usize * shape.n_time * width)) }
}

/// Adds dx [N, T, E] to the rows of the tables that each timestep read.
///
/// # Safety
/// As for the forward pass.
pub unsafe fn backward(gpu: &mut Gpu, shape: &Shape, kernel: &EmbedBackward) -> Result<()> {
    let blocks = (shape.d_model.div_ceil(32) as u32, kernel.slots);
    let grid = Grid { blocks, threads: 256, shared_bytes: 128 * shape.n_level as u32 };
    // SAFETY: the caller's.
    unsafe { gpu.launch(shape, kernel, grid) }
}
