//! The least work that each kernel of a training step could do: what it must read and write once, however large the caches,
//! and the arithmetic of the formulas without padding, the causal half of the scores alone.
//!
//! What a kernel must read and write is taken from its interface (the comment that it opens with), so these are least counts of
//! this design, not of any. Multiplications that the design repeats in the backward pass rather than store are counted once for
//! each time. Moves, addresses and conversions are no work here: no least number of instructions is known.

use super::work::Work;
use crate::model::config::ModelConfig;
use std::collections::BTreeMap;

/// Bytes of an f32 and of a bf16.
const F32: f64 = 4.0;
const BF16: f64 = 2.0;

/// A step over `n_sequence` whole windows, gradients in `slots` copies: the work of all launches of each kernel, by its name.
pub fn step(config: &ModelConfig, n_sequence: usize, slots: usize) -> BTreeMap<&'static str, Work> {
    let mut sum = BTreeMap::<&'static str, Work>::new();
    let mut add = |name, work| *sum.entry(name).or_default() += work;
    for layer in 0..config.n_layer {
        let from = if layer + 1 == config.n_layer { config.first_target() } else { 0 };
        let layer = Layer::new(config, n_sequence, slots, from);
        for (name, work) in layer.kernels() {
            add(name, work);
        }
    }
    let head = Head::new(config, n_sequence, slots);
    head.kernels().into_iter().for_each(|(name, work)| add(name, work));
    sum
}

/// One layer: its sizes.
struct Layer {
    /// Width, its square, and heads.
    e: f64,
    ee: f64,
    h: f64,
    /// Timesteps of all sequences, and those whose output is needed.
    all: f64,
    rows: f64,
    /// Pairs of a timestep that is needed and one that it sees, of all sequences.
    pairs: f64,
    /// Gradient slots that are used.
    slots: f64,
}

impl Layer {
    fn new(config: &ModelConfig, n_sequence: usize, slots: usize, from: usize) -> Self {
        let (e, t, n) = (config.d_model as f64, config.n_ctx as f64, n_sequence as f64);
        let from = from as f64;
        Self {
            e,
            ee: e * e,
            h: config.n_head as f64,
            all: n * t,
            rows: n * (t - from),
            pairs: n * (t * (t + 1.0) - from * (from + 1.0)) / 2.0,
            slots: n_sequence.min(slots) as f64,
        }
    }

    fn kernels(&self) -> [(&'static str, Work); 6] {
        let Self { e, ee, h, all, rows, pairs, slots } = *self;
        let normal = BF16 * e + F32;
        [
            (
                "attention_forward",
                Work {
                    bytes: all * (F32 * e + normal) + rows * (F32 * e + BF16 * e + F32 * h) + BF16 * 4.0 * ee,
                    tensor_flop: 4.0 * all * ee + 4.0 * rows * ee + 4.0 * pairs * e,
                    special: pairs * h,
                    ..Work::default()
                },
            ),
            (
                "mlp_forward",
                Work {
                    bytes: rows * (2.0 * F32 * e + normal) + BF16 * 8.0 * ee,
                    tensor_flop: 16.0 * rows * ee,
                    special: 4.0 * rows * e,
                    ..Work::default()
                },
            ),
            (
                "mlp_backward",
                Work {
                    bytes: rows * (2.0 * F32 * e + normal + 2.0 * BF16 * 4.0 * e + BF16 * e) + BF16 * 8.0 * ee,
                    tensor_flop: 24.0 * rows * ee,
                    special: 4.0 * rows * e,
                    ..Work::default()
                },
            ),
            (
                "attention_backward",
                Work {
                    bytes: rows * (F32 * e + 2.0 * BF16 * e + F32 * h)
                        + all * (BF16 * e + 3.0 * BF16 * e)
                        + BF16 * 4.0 * ee,
                    tensor_flop: 6.0 * all * ee + 2.0 * rows * ee + 10.0 * pairs * e,
                    special: pairs * h,
                    ..Work::default()
                },
            ),
            (
                "attention_backward_input",
                Work {
                    bytes: all * (3.0 * BF16 * e + normal + F32 * e) + rows * F32 * e + BF16 * 3.0 * ee,
                    tensor_flop: 6.0 * all * ee,
                    ..Work::default()
                },
            ),
            (
                "weight_gradient",
                Work {
                    // Operands, and the gradients of 12E² weights and 9E biases read and written in each slot.
                    bytes: BF16 * (all * 4.0 * e + rows * 12.0 * e) + 2.0 * F32 * slots * (12.0 * ee + 9.0 * e),
                    tensor_flop: 6.0 * all * ee + 18.0 * rows * ee,
                    ..Work::default()
                },
            ),
        ]
    }
}

/// What comes before and after the layers: its sizes.
struct Head {
    e: f64,
    q: f64,
    all: f64,
    /// Targets.
    rows: f64,
    slots: f64,
    /// Matrices of the head.
    matrices: f64,
    /// All parameters, and copies of their gradients.
    n_params: f64,
    copies: f64,
}

impl Head {
    fn new(config: &ModelConfig, n_sequence: usize, slots: usize) -> Self {
        let n = n_sequence as f64;
        let per_channel = config.head == crate::model::config::Head::PerChannel;
        Self {
            e: config.d_model as f64,
            q: config.n_level as f64,
            all: n * config.n_ctx as f64,
            rows: n * (config.n_ctx - config.first_target()) as f64,
            slots: n_sequence.min(slots) as f64,
            matrices: if per_channel { config.n_channel as f64 } else { 1.0 },
            n_params: crate::model::layout::ParamLayout::new(config).len() as f64,
            copies: slots as f64,
        }
    }

    fn kernels(&self) -> [(&'static str, Work); 6] {
        let Self { e, q, all, rows, slots, matrices, n_params, copies } = *self;
        [
            ("embed_forward", Work { bytes: all * (F32 * e + 3.0), ..Work::default() }),
            ("embed_backward", Work { bytes: all * (F32 * e + 3.0), ..Work::default() }),
            (
                "head_loss_backward",
                Work {
                    bytes: rows * (2.0 * F32 * e + BF16 * (e + q)) + matrices * BF16 * e * q,
                    tensor_flop: 4.0 * rows * e * q,
                    special: rows * q,
                    ..Work::default()
                },
            ),
            (
                "weight_gradient",
                Work {
                    bytes: BF16 * rows * (e + q) + 2.0 * F32 * slots * e * q,
                    tensor_flop: 2.0 * rows * e * q,
                    ..Work::default()
                },
            ),
            // Every slot is read once, and zeroed for the next step.
            ("sum_slots", Work { bytes: 2.0 * F32 * copies * n_params, ..Work::default() }),
            // Parameters and two moments read and written, the gradient read and zeroed.
            ("adamw", Work { bytes: 8.0 * F32 * n_params, ..Work::default() }),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The sum over the kernels is what counting the formulas of one token by hand gives.
    #[test]
    fn arithmetic_of_a_token_is_the_formulas() {
        let config = ModelConfig { n_layer: 2, ..ModelConfig::single(1, 1, 0) };
        let step = step(&config, 3, 44);
        let [e, t, n] = [96.0, 256.0, 3.0];
        // A whole layer and the last, of which half the rows are needed. Forward 24E² and 4E for each pair; backward twice that,
        // and QKV (6E²), fc (8E²) and the scores (2E for each pair) once more.
        let mut want = 0.0;
        for position in 0..256 {
            for from in [0, 128] {
                let needed = if position >= from { 1.0 } else { 0.0 };
                let pairs = needed * (position as f64 + 1.0);
                want += n * (4.0 + 6.0 + 6.0 + 6.0) * e * e;
                want += n * needed * (2.0 + 2.0 + 16.0 + 24.0 + 2.0 + 2.0 + 16.0) * e * e;
                want += n * pairs * (4.0 + 10.0) * e;
            }
        }
        want += n * t / 2.0 * 6.0 * e * 256.0;
        let flop: f64 = step.values().map(|work| work.tensor_flop).sum();
        assert!((flop / want - 1.0).abs() < 1e-12, "{flop} instead of {want}");
    }
}
