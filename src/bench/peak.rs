//! Multiplications and additions a second that the processor reaches where nothing but registers is touched.

use pulp::{Arch, Simd, WithSimd};
use std::hint::black_box;
use std::time::Instant;

/// Independent sums: enough to fill two units of a latency of four or five cycles, with registers for the operands to spare.
const CHAINS: usize = 12;
const ROUNDS: usize = 1 << 16;

struct Loop {
    rounds: usize,
}

impl WithSimd for Loop {
    /// Operations done.
    type Output = f64;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> f64 {
        let [scale, offset] = black_box([0.999_f32, 1e-3]).map(|x| simd.splat_f32s(x));
        let mut sums = [simd.splat_f32s(black_box(1.0)); CHAINS];
        for _ in 0..self.rounds {
            for sum in &mut sums {
                *sum = simd.mul_add_f32s(*sum, scale, offset);
            }
        }
        black_box(sums.map(|sum| simd.reduce_sum_f32s(sum)));
        (2 * CHAINS * self.rounds * S::F32_LANES) as f64
    }
}

/// Operations a second of `threads` threads together: the best of `repeats` rounds, each a few milliseconds of all at once.
pub fn flop_rate(threads: usize, repeats: usize) -> f64 {
    let arch = Arch::new();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads can be started");
    let round = || {
        let start = Instant::now();
        let flop: f64 = pool.broadcast(|_| arch.dispatch(Loop { rounds: ROUNDS })).into_iter().sum();
        flop / start.elapsed().as_secs_f64()
    };
    (0..repeats.max(1)).map(|_| round()).fold(0.0, f64::max)
}
