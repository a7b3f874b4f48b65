//! The optimiser: slots summed in a fixed tree, the norm, and AdamW.
//!
//! The parameters are cut into [`GRAD_SLOTS`] ranges, whatever the number of threads; each range is one job, and the
//! ranges' squares are added in their order.

use super::vector::{load, store};
use super::{Cpu, GRAD_SLOTS};
use crate::device::{AdamW, OptimizerState, Tensor, UpdateOutcome};
use crate::error::Result;
use pulp::{Simd, WithSimd};

/// Sums the slots, clips, updates, and zeroes the gradients.
pub(super) fn update(cpu: &mut Cpu, state: &OptimizerState, hyper: &AdamW, scores: Tensor) -> Result<UpdateOutcome> {
    let (memory, team, n) = (&cpu.memory, &cpu.team, state.params.len);
    let mut grads = memory.floats_mut(state.grads, GRAD_SLOTS * n)?;
    let mut params = memory.floats_mut(state.params, n)?;
    let mut m = memory.floats_mut(state.m, n)?;
    let mut v = memory.floats_mut(state.v, n)?;
    let scores_finite = memory.read::<f32>(scores)?.iter().all(|score| score.is_finite());
    let range = n.div_ceil(GRAD_SLOTS).next_multiple_of(16);

    let mut squares = [0.0f64; GRAD_SLOTS];
    let mut slots = grads.chunks_exact_mut(n);
    let mut slots: [_; GRAD_SLOTS] = std::array::from_fn(|_| slots.next().unwrap_or_default().chunks_mut(range));
    let jobs = squares.iter_mut().map_while(|square| {
        let slots = slots.each_mut().map(|slot| slot.next().unwrap_or_default());
        (!slots[0].is_empty()).then_some((slots, square))
    });
    team.each(jobs, |(slots, square), _| *square = team.arch.dispatch(Sum { slots }));

    let grad_norm = squares.iter().sum::<f64>().sqrt();
    let clip = if grad_norm > f64::from(hyper.max_norm) { f64::from(hyper.max_norm) / grad_norm } else { 1.0 };
    // The second moment is a square in f32: where that overflows, it would never come back.
    let square = (grad_norm * clip).powi(2) as f32;
    let applied = scores_finite && grad_norm.is_finite() && square.is_finite();
    if applied {
        let rates = Rates::new(hyper, clip);
        let moments = m.chunks_mut(range).zip(v.chunks_mut(range));
        let jobs = params.chunks_mut(range).zip(moments).zip(grads.chunks_mut(range)).enumerate();
        team.each(jobs, |(i, ((p, (m, v)), grad)), _| {
            let decayed = state.n_decayed.saturating_sub(i * range).min(p.len());
            let (p, grad) = (p, &grad[..m.len()]);
            team.arch.dispatch(Step { rates, decayed, p, m, v, grad });
        });
    }
    grads[..n].fill(0.0);
    Ok(UpdateOutcome { grad_norm, applied })
}

/// Sums the slots of one range into the first, zeroes the others, and returns the sum of the squares.
struct Sum<'a> {
    slots: [&'a mut [f32]; GRAD_SLOTS],
}

impl WithSimd for Sum<'_> {
    type Output = f64;

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) -> f64 {
        let mut square = 0.0;
        for at in (0..self.slots[0].len()).step_by(S::F32_LANES) {
            let end = self.slots[0].len().min(at + S::F32_LANES);
            let mut sums = [simd.splat_f32s(0.0); GRAD_SLOTS];
            for (sum, slot) in sums.iter_mut().zip(&mut self.slots) {
                *sum = load(simd, &slot[at..end]);
                slot[at..end].fill(0.0);
            }
            // ((0 + 1) + (2 + 3)) + …, whatever the threads.
            let mut width = 1;
            while width < GRAD_SLOTS {
                for i in (0..GRAD_SLOTS).step_by(2 * width) {
                    sums[i] = simd.add_f32s(sums[i], sums[i + width]);
                }
                width *= 2;
            }
            let first = &mut self.slots[0][at..end];
            store(simd, first, sums[0]);
            square += first.iter().map(|&g| f64::from(g) * f64::from(g)).sum::<f64>();
        }
        square
    }
}

/// The factors of one AdamW step.
#[derive(Clone, Copy)]
struct Rates {
    clip: f32,
    gain1: f32,
    decay2: f32,
    gain2: f32,
    inverse_root2: f32,
    eps: f32,
    rate: f32,
    shrink: f32,
}

impl Rates {
    /// Bias corrections and products in f64: 1 − β^step loses digits in f32.
    fn new(hyper: &AdamW, clip: f64) -> Self {
        let (beta1, beta2, lr) = (f64::from(hyper.beta1), f64::from(hyper.beta2), f64::from(hyper.lr));
        let step = hyper.step as f64;
        Self {
            clip: clip as f32,
            gain1: (1.0 - beta1) as f32,
            decay2: hyper.beta2,
            gain2: (1.0 - beta2) as f32,
            inverse_root2: (1.0 / (1.0 - beta2.powf(step)).sqrt()) as f32,
            eps: hyper.eps,
            rate: (lr / (1.0 - beta1.powf(step))) as f32,
            shrink: (1.0 - lr * f64::from(hyper.weight_decay)) as f32,
        }
    }
}

/// One range of the parameters: m += (g − m)·(1 − β₁), v = β₂·v + (1 − β₂)·g², p = shrink·p − rate·m / (√v̂ + ε).
struct Step<'a> {
    rates: Rates,
    /// Parameters of this range that decay applies to: the first ones.
    decayed: usize,
    p: &'a mut [f32],
    m: &'a mut [f32],
    v: &'a mut [f32],
    grad: &'a [f32],
}

impl WithSimd for Step<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (Rates { clip, gain1, decay2, gain2, inverse_root2, eps, rate, shrink }, splat) =
            (self.rates, |x| simd.splat_f32s(x));
        for p in self.p[..self.decayed].chunks_mut(S::F32_LANES) {
            let value = simd.mul_f32s(load(simd, p), splat(shrink));
            store(simd, p, value);
        }
        let lanes = S::F32_LANES;
        let moments = self.m.chunks_mut(lanes).zip(self.v.chunks_mut(lanes));
        for ((p, (m, v)), grad) in self.p.chunks_mut(lanes).zip(moments).zip(self.grad.chunks(lanes)) {
            let g = simd.mul_f32s(load(simd, grad), splat(clip));
            let old = load(simd, m);
            let first = simd.mul_add_e_f32s(simd.sub_f32s(g, old), splat(gain1), old);
            let scaled = simd.mul_f32s(simd.mul_f32s(g, g), splat(gain2));
            let second = simd.mul_add_e_f32s(load(simd, v), splat(decay2), scaled);
            let root = simd.mul_f32s(simd.sqrt_f32s(second), splat(inverse_root2));
            let step = simd.div_f32s(first, simd.add_f32s(root, splat(eps)));
            let value = simd.negate_mul_add_e_f32s(splat(rate), step, load(simd, p));
            store(simd, p, value);
            store(simd, m, first);
            store(simd, v, second);
        }
    }
}
