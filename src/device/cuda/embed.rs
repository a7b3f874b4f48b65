//! The embedding. See `kernels/embed.cu`.

use super::kernel::embed::EmbedForward;
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
