//! A half-block's two passes, by the kernels that know the shape.

/// `Passes` of a stage, whose module says what memory its fused kernels need.
macro_rules! passes {
    ($stage:ident) => {
        use gpt2meg::device::cuda::general::$stage as general;
        use gpt2meg::device::cuda::$stage::{self as fused, Params};
        use gpt2meg::device::cuda::{Part, Shape};

        /// The weights' copies, what is kept, and what is worked in.
        enum Passes {
            Fused(fused::Working, fused::Saved, fused::Scratch),
            General(general::Working, general::Saved, general::Scratch),
        }

        impl Passes {
            /// And the memory.
            fn new(bench: &mut Bench, case: &Case, params: &Params) -> (Self, Vec<CudaSlice<u32>>) {
                let (n, shape) = (case.n, &case.shape(256));
                if shape.is_fused() {
                    let (saved, scratch, rooms) = fused_memory(bench, shape, n * case.t);
                    let working = fused::Working::new(&mut bench.gpu, shape, params).unwrap();
                    (Self::Fused(working, saved, scratch), rooms)
                } else {
                    let lens = [n * general::saved_len(shape), n * general::scratch_len(shape)];
                    let (rooms, [saved, scratch]) = bench.rooms(lens);
                    let working = general::Working::new(&mut bench.gpu, shape, params).unwrap();
                    let (saved, scratch) =
                        (general::Saved::at(saved, shape, n), general::Scratch::at(scratch, shape, n));
                    (Self::General(working, saved, scratch), rooms)
                }
            }

            fn forward(&self, bench: &mut Bench, case: &Case, params: &Params, x: &CudaSlice<f32>, keep: bool) {
                let (gpu, shape, rows) = (&mut bench.gpu, &case.shape(256), (case.n, case.from));
                let x = gpu.address(x);
                // SAFETY: everything has its size.
                let done = unsafe {
                    match self {
                        Self::Fused(working, saved, _) => {
                            fused::forward(gpu, shape, rows, params, working, x, keep.then_some(*saved))
                        }
                        Self::General(working, saved, scratch) => {
                            general::forward(gpu, shape, rows, params, working, x, keep.then_some(*saved), scratch)
                        }
                    }
                };
                done.unwrap();
            }

            /// `both` are the parameters and the first slot of their gradients.
            fn backward(&self, bench: &mut Bench, case: &Case, part: &Part, both: [&Params; 2], dx: &CudaSlice<f32>) {
                let (gpu, shape, [params, to]) = (&mut bench.gpu, &case.shape(256), both);
                let dx = gpu.address(dx);
                // SAFETY: everything has its size.
                let done = unsafe {
                    match self {
                        Self::Fused(working, saved, scratch) => {
                            fused::backward(gpu, shape, part, params, to, working, saved, scratch, dx)
                        }
                        Self::General(working, saved, scratch) => {
                            general::backward(gpu, shape, part, params, to, working, saved, scratch, dx)
                        }
                    }
                };
                done.unwrap();
            }
        }
    };
}
