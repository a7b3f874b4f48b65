//! The stages by the kernels that know the shape: the fused ones, or else the general ones. Where what is kept and what is worked
//! in begins is all that callers need to know of either.

use super::kernel::Pointer;
use super::{Gpu, Part, Shape};
use crate::error::Result;

/// A half-block: `attention` or `mlp`, whose fused and general modules have the same names.
macro_rules! half_block {
    ($name:ident, $what:literal) => {
        #[doc = $what]
        pub mod $name {
            use super::*;
            use crate::device::cuda::general::$name as general;
            use crate::device::cuda::$name::{self as fused, Params};

            /// Working copies of the weights.
            pub enum Working {
                /// For the fused kernels.
                Fused(fused::Working),
                /// For the general ones.
                General(general::Working),
            }

            impl Working {
                /// Makes them from the parameters.
                pub fn new(gpu: &mut Gpu, shape: &Shape, params: &Params) -> Result<Self> {
                    Ok(match shape.is_fused() {
                        true => Self::Fused(fused::Working::new(gpu, shape, params)?),
                        false => Self::General(general::Working::new(gpu, shape, params)?),
                    })
                }

                /// Makes them anew from parameters that have changed.
                pub fn refresh(&self, gpu: &mut Gpu, shape: &Shape, params: &Params) -> Result<()> {
                    match self {
                        Self::Fused(working) => working.refresh(gpu, shape, params),
                        Self::General(working) => working.refresh(gpu, shape, params),
                    }
                }
            }

            /// Words that a sequence keeps.
            pub fn saved_len(shape: &Shape) -> usize {
                if shape.is_fused() { fused::saved_len(shape) } else { general::saved_len(shape) }
            }

            /// Words that a sequence is worked in, forward only or backward, too.
            pub fn scratch_len(shape: &Shape, backward: bool) -> usize {
                match (shape.is_fused(), backward) {
                    (true, false) => 0,
                    (true, true) => fused::scratch_len(shape),
                    (false, _) => general::scratch_len(shape),
                }
            }

            /// x [N, T, E] in place.
            ///
            /// # Safety
            /// Everything has its size, `saved` and `scratch` for `n` sequences, and begins where sixteen bytes do.
            #[expect(clippy::too_many_arguments, reason = "what a stage's forward pass needs")]
            pub unsafe fn forward(
                gpu: &mut Gpu,
                shape: &Shape,
                rows: (usize, usize),
                params: &Params,
                working: &Working,
                x: Pointer<f32>,
                saved: Option<Pointer<u32>>,
                scratch: Pointer<u32>,
            ) -> Result<()> {
                let n = rows.0;
                // SAFETY: the caller's.
                unsafe {
                    match working {
                        Working::Fused(working) => {
                            let saved = saved.map(|start| fused::Saved::at(start, shape, n));
                            fused::forward(gpu, shape, rows, params, working, x, saved)
                        }
                        Working::General(working) => {
                            let saved = saved.map(|start| general::Saved::at(start, shape, n));
                            let scratch = general::Scratch::at(scratch, shape, n);
                            general::forward(gpu, shape, rows, params, working, x, saved, &scratch)
                        }
                    }
                }
            }

            /// dx [N, T, E] in place; adds to `grads`, the slots' first.
            ///
            /// # Safety
            /// As for the forward pass, and `saved` is what that saved.
            #[expect(clippy::too_many_arguments, reason = "what a stage's backward pass needs")]
            pub unsafe fn backward(
                gpu: &mut Gpu,
                shape: &Shape,
                part: &Part,
                params: &Params,
                grads: &Params,
                working: &Working,
                saved: Pointer<u32>,
                scratch: Pointer<u32>,
                dx: Pointer<f32>,
            ) -> Result<()> {
                let n = part.n;
                // SAFETY: the caller's.
                unsafe {
                    match working {
                        Working::Fused(working) => {
                            let saved = fused::Saved::at(saved, shape, n);
                            let scratch = fused::Scratch::at(scratch, shape, n);
                            fused::backward(gpu, shape, part, params, grads, working, &saved, &scratch, dx)
                        }
                        Working::General(working) => {
                            let saved = general::Saved::at(saved, shape, n);
                            let scratch = general::Scratch::at(scratch, shape, n);
                            general::backward(gpu, shape, part, params, grads, working, &saved, &scratch, dx)
                        }
                    }
                }
            }
        }
    };
}

half_block!(attention, "The attention half-block.");
half_block!(mlp, "The MLP half-block.");

/// The head.
pub mod head {
    use super::*;
    use crate::device::cuda::general::head as general;
    use crate::device::cuda::head::{self as fused, Inputs, Params};

    /// Working copies of the weights.
    pub enum Working {
        /// For the fused kernels.
        Fused(fused::Working),
        /// For the general ones.
        General(general::Working),
    }

    impl Working {
        /// Makes them from the parameters.
        pub fn new(gpu: &mut Gpu, shape: &Shape, params: &Params) -> Result<Self> {
            Ok(match shape.is_fused() {
                true => Self::Fused(fused::Working::new(gpu, shape, params)?),
                false => Self::General(general::Working::new(gpu, shape, params)?),
            })
        }

        /// Makes them anew from parameters that have changed.
        pub fn refresh(&self, gpu: &mut Gpu, shape: &Shape, params: &Params) -> Result<()> {
            match self {
                Self::Fused(working) => working.refresh(gpu, shape, params),
                Self::General(working) => working.refresh(gpu, shape, params),
            }
        }
    }

    /// Words that a sequence is worked in, forward only or backward, too.
    pub fn scratch_len(shape: &Shape, backward: bool) -> usize {
        match (shape.is_fused(), backward) {
            (true, false) => 0,
            (true, true) => fused::backward_len(shape),
            (false, _) => general::scratch_len(shape),
        }
    }

    /// What the loss's backward pass needs.
    pub struct Backward<'a> {
        /// Which slots.
        pub part: Part,
        /// The parameters.
        pub params: &'a Params,
        /// Their gradients, the slots' first.
        pub grads: Params,
        /// Weight of one target.
        pub factor: f32,
        /// [N, T, E], rows from `from` on.
        pub dx: Pointer<f32>,
    }

    /// Scores [N, 4] of the targets of timesteps `from ..`, and with `backward` the gradients.
    ///
    /// # Safety
    /// Everything has its size, `scratch` for `n` sequences, and begins where sixteen bytes do; tokens are below Q, channels below
    /// the number of matrices.
    #[expect(clippy::too_many_arguments, reason = "one fused stage, forward and backward")]
    pub unsafe fn loss(
        gpu: &mut Gpu,
        shape: &Shape,
        rows: (usize, usize),
        working: &Working,
        inputs: &Inputs,
        x: Pointer<f32>,
        scratch: Pointer<u32>,
        scores: Pointer<f32>,
        backward: Option<Backward>,
    ) -> Result<()> {
        let (n, channel) = (rows.0, inputs.channel);
        // SAFETY: the caller's.
        unsafe {
            match working {
                Working::Fused(working) => {
                    let back = backward.as_ref().map(|b| fused::Backward::at(scratch, shape, n, b.factor, b.dx));
                    fused::loss(gpu, shape, rows, working, inputs, x, scores, back)?;
                    let Some((to, back)) = backward.zip(back) else { return Ok(()) };
                    fused::gradients(gpu, shape, &to.part, to.params, &to.grads, channel, &back)
                }
                Working::General(working) => {
                    let scratch = general::Scratch::at(scratch, shape, n);
                    let to = backward.as_ref().map(|backward| (backward.factor, backward.dx));
                    general::loss(gpu, shape, rows, working, inputs, x, &scratch, scores, to)?;
                    let Some(to) = backward else { return Ok(()) };
                    general::gradients(gpu, shape, &to.part, to.params, &to.grads, channel, &scratch)
                }
            }
        }
    }

    /// Logits [N, T - from, Q] of timesteps `from ..`.
    ///
    /// # Safety
    /// As for the loss.
    #[expect(clippy::too_many_arguments, reason = "what a stage needs")]
    pub unsafe fn logits(
        gpu: &mut Gpu,
        shape: &Shape,
        rows: (usize, usize),
        working: &Working,
        channel: Pointer<u32>,
        x: Pointer<f32>,
        scratch: Pointer<u32>,
        logits: Pointer<f32>,
    ) -> Result<()> {
        // SAFETY: the caller's.
        unsafe {
            match working {
                Working::Fused(working) => fused::logits(gpu, shape, rows, working, channel, x, logits),
                Working::General(working) => {
                    let scratch = general::Scratch::at(scratch, shape, rows.0);
                    general::logits(gpu, shape, rows, working, channel, x, &scratch, logits)
                }
            }
        }
    }
}
