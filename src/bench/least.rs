//! The least work that each kernel of a training step could do: what it must read and write once, however large the caches,
//! and the arithmetic of the formulas without padding, the causal half of the scores alone.
//!
//! What a kernel must read and write is taken from its interface (the comment that it opens with), so these are least counts of
//! this design, not of any. Multiplications that the design repeats in the backward pass rather than store are counted once for
//! each time. Moves, addresses and conversions are no work here: no least number of instructions is known.

use super::stage::Stage;
use super::work::Work;
use crate::device::cuda::Shape;
use crate::error::{Error, Kind, Result};
use crate::model::config::{Head, ModelConfig};
use crate::model::layout::ParamLayout;

/// Bytes of an f32 and of a bf16.
const F32: f64 = 4.0;
const BF16: f64 = 2.0;

/// Multiplications and additions of training on one timestep, by the formulas: forward, and twice that backward; scores of the
/// causal half; every timestep a target. (paper, section 2; 9.9 million for the single-subject model.)
pub fn training_flop(config: &ModelConfig) -> f64 {
    3.0 * forward_flop(config, (config.n_ctx as f64 + 1.0) / 2.0)
}

/// The same of the forward pass alone, for a timestep that sees `context` timesteps.
pub fn forward_flop(config: &ModelConfig, context: f64) -> f64 {
    let (e, q) = (config.d_model as f64, config.n_level as f64);
    config.n_layer as f64 * (24.0 * e * e + 4.0 * e * context) + 2.0 * e * q
}

/// Whether the least work of a stage's kernels is known: of the fused ones, and of those that all shapes share.
pub fn knows(stage: Stage, config: &ModelConfig) -> bool {
    let &ModelConfig { d_model, n_head, n_ctx: n_time, n_level, .. } = config;
    let shared = matches!(stage, Stage::Embed | Stage::EmbedBackward | Stage::Update);
    shared || Shape { d_model, n_head, n_time, n_level }.is_fused()
}

/// A stage of a step: the work of each of its kernels, by its name; none where [`knows`] says so. `rows` are the timesteps of a
/// window whose output is needed; `launched` says whether the stage launches a kernel of this name, for that depends on the card.
pub fn stage(
    stage: Stage,
    config: &ModelConfig,
    rows: usize,
    n_sequence: usize,
    slots: usize,
    launched: impl Fn(&str) -> bool,
) -> Vec<(&'static str, Work)> {
    let sizes = Sizes::new(config, rows, n_sequence, slots);
    match stage {
        _ if !knows(stage, config) => Vec::new(),
        Stage::Embed => vec![("embed_forward", sizes.embed())],
        Stage::Attention => vec![("attention_forward", sizes.attention())],
        Stage::Mlp => vec![("mlp_forward", sizes.mlp())],
        Stage::Head => sizes.head().to_vec(),
        Stage::MlpBackward => sizes.mlp_backward().to_vec(),
        Stage::AttentionBackward => sizes.attention_backward(!launched("attention_backward_input")),
        Stage::EmbedBackward => vec![("embed_backward", sizes.embed())],
        Stage::Update => sizes.update().to_vec(),
    }
}

/// Fails if kernels whose least work is known are `left`, for the stage did not launch them.
pub fn all_launched<'a>(stage: Stage, mut left: impl Iterator<Item = &'a &'a str>) -> Result<()> {
    match left.next() {
        Some(kernel) => Err(Error::new(Kind::Internal, format!("{} launches no {kernel}", stage.name()))),
        None => Ok(()),
    }
}

/// Multiplications and additions of a stage by the formulas, as in [`training_flop`]: what a design repeats in the backward pass
/// rather than store is not counted, so that rates of designs compare.
pub fn stage_flop(stage: Stage, config: &ModelConfig, rows: usize, n_sequence: usize) -> f64 {
    let sizes = Sizes::new(config, rows, n_sequence, 1);
    match stage {
        Stage::Attention => sizes.attention().tensor_flop,
        Stage::AttentionBackward => 2.0 * sizes.attention().tensor_flop,
        Stage::Mlp => sizes.mlp().tensor_flop,
        Stage::MlpBackward => 2.0 * sizes.mlp().tensor_flop,
        Stage::Head => sizes.head().iter().map(|(_, work)| work.tensor_flop).sum(),
        Stage::Embed | Stage::EmbedBackward | Stage::Update => 0.0,
    }
}

/// Generation's kernel over a window: the prompt is read, `hop` timesteps are drawn, of which the last is not fed back. Logits are
/// of drawn timesteps only; keys and values are written once, and read once where a later step needs them; so are the weights.
pub fn decode(config: &ModelConfig, n_sequence: usize, hop: usize) -> Work {
    let (e, q, n) = (config.d_model as f64, config.n_level as f64, n_sequence as f64);
    let (layers, h, fed) = (config.n_layer as f64, config.n_head as f64, config.n_ctx as f64 - 1.0);
    let pairs = fed * (fed + 1.0) / 2.0;
    let read = if hop > 1 { fed - 1.0 } else { 0.0 };
    let bytes = layers * (BF16 * 12.0 * e * e + n * (fed + read) * BF16 * 2.0 * e) + BF16 * e * q;
    let tensor_flop = n * (layers * (24.0 * e * e * fed + 4.0 * e * pairs) + 2.0 * e * q * hop as f64);
    Work { special: n * layers * (h * pairs + 4.0 * e * fed), ..product(bytes, tensor_flop) }
}

struct Sizes {
    /// Width and its square, heads, levels.
    e: f64,
    ee: f64,
    h: f64,
    q: f64,
    /// Timesteps of all sequences, and those whose output is needed.
    all: f64,
    rows: f64,
    /// Pairs of a timestep that is needed and one that it sees, of all sequences.
    pairs: f64,
    /// Copies of the gradients, and those of them that the sequences reach.
    copies: f64,
    slots: f64,
    /// Matrices of the head, and all parameters.
    matrices: f64,
    n_params: f64,
}

/// Work that is bytes and operations of tensor cores only.
fn product(bytes: f64, tensor_flop: f64) -> Work {
    Work { bytes, tensor_flop, ..Work::default() }
}

impl Sizes {
    fn new(config: &ModelConfig, rows: usize, n_sequence: usize, slots: usize) -> Self {
        let (e, t, n) = (config.d_model as f64, config.n_ctx as f64, n_sequence as f64);
        let unseen = (config.n_ctx - rows) as f64;
        let per_channel = config.head == Head::PerChannel;
        Self {
            e,
            ee: e * e,
            h: config.n_head as f64,
            q: config.n_level as f64,
            all: n * t,
            rows: n * rows as f64,
            pairs: n * (t * (t + 1.0) - unseen * (unseen + 1.0)) / 2.0,
            copies: slots as f64,
            slots: n_sequence.min(slots) as f64,
            matrices: if per_channel { config.n_channel as f64 } else { 1.0 },
            n_params: ParamLayout::new(config).len() as f64,
        }
    }

    /// Bytes of a timestep's normalised row and its factor.
    fn normal(&self) -> f64 {
        BF16 * self.e + F32
    }

    /// Bytes of so many parameters' gradients, read and written in each slot.
    fn gradients(&self, n_params: f64) -> f64 {
        2.0 * F32 * self.slots * n_params
    }

    /// Token, condition and row.
    fn embed(&self) -> Work {
        product(self.all * (F32 * self.e + 3.0), 0.0)
    }

    fn attention(&self) -> Work {
        let Self { e, ee, h, all, rows, pairs, .. } = *self;
        let bytes = all * (F32 * e + self.normal()) + rows * (F32 * e + BF16 * e + F32 * h) + BF16 * 4.0 * ee;
        // Keys and values of all timesteps; queries and the projection of those that are needed; scores and answers.
        Work { special: pairs * h, ..product(bytes, 4.0 * all * ee + 4.0 * rows * ee + 4.0 * pairs * e) }
    }

    fn mlp(&self) -> Work {
        let Self { e, ee, rows, .. } = *self;
        let bytes = rows * (2.0 * F32 * e + self.normal()) + BF16 * 8.0 * ee;
        Work { special: 4.0 * rows * e, ..product(bytes, 16.0 * rows * ee) }
    }

    fn head(&self) -> [(&'static str, Work); 2] {
        let Self { e, q, rows, matrices, .. } = *self;
        let bytes = rows * (2.0 * F32 * e + BF16 * (e + q)) + matrices * BF16 * e * q;
        let loss = Work { special: rows * q, ..product(bytes, 4.0 * rows * e * q) };
        let gradient = product(BF16 * rows * (e + q) + self.gradients(e * q), 2.0 * rows * e * q);
        [("head_loss_backward", loss), ("weight_gradient", gradient)]
    }

    fn mlp_backward(&self) -> [(&'static str, Work); 2] {
        let Self { e, ee, rows, .. } = *self;
        let special = 4.0 * rows * e;
        let bytes = rows * (2.0 * F32 * e + self.normal() + BF16 * e) + BF16 * 8.0 * ee;
        let input = Work { special, ..product(bytes, 24.0 * rows * ee) };
        // The hidden layer and its gradient once more.
        let bytes = rows * 2.0 * BF16 * e + BF16 * 8.0 * ee + self.gradients(8.0 * ee + 5.0 * e);
        let gradient = Work { special, ..product(bytes, 32.0 * rows * ee) };
        [("mlp_backward", input), ("mlp_weights", gradient)]
    }

    /// With `whole` the first kernel goes on to the input's gradient, and reads nothing for it that it does not have.
    fn attention_backward(&self, whole: bool) -> Vec<(&'static str, Work)> {
        let Self { e, ee, h, all, rows, pairs, .. } = *self;
        let bytes = rows * (F32 * e + 2.0 * BF16 * e + F32 * h) + all * BF16 * 4.0 * e + BF16 * 4.0 * ee;
        // QKV and the gradient of the answers; five products of the size of the scores.
        let flop = 6.0 * all * ee + 2.0 * rows * ee + 10.0 * pairs * e;
        let scores = Work { special: pairs * h, ..product(bytes, flop) };
        let (to_input, matrix) = (6.0 * all * ee, BF16 * 3.0 * ee);
        let bytes = BF16 * (all * 4.0 * e + rows * 2.0 * e) + self.gradients(4.0 * ee + 6.0 * e);
        let gradient = ("weight_gradient", product(bytes, 6.0 * all * ee + 2.0 * rows * ee));
        if whole {
            let both = scores + product(all * (F32 + F32 * e) + matrix, to_input);
            return vec![("attention_backward", both), gradient];
        }
        let bytes = all * (BF16 * 3.0 * e + self.normal() + F32 * e) + rows * F32 * e + matrix;
        let input = ("attention_backward_input", product(bytes, to_input));
        vec![("attention_backward", scores), input, gradient]
    }

    fn update(&self) -> [(&'static str, Work); 2] {
        let Self { copies, n_params, .. } = *self;
        // Every slot is read once, and zeroed for the next step; parameters and two moments are read and written, the gradient
        // is read and zeroed.
        let sum = product(2.0 * F32 * copies * n_params, 0.0);
        [("sum_slots", sum), ("adamw", product(8.0 * F32 * n_params, 0.0))]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_of_the_papers_model_is_ten_million() {
        let config = ModelConfig::single(306, 1, 118);
        assert_eq!((training_flop(&config) / 1e4).round(), 989.0);
    }

    /// Stages with every row needed add up to a step.
    #[test]
    fn stages_are_a_step() {
        let config = ModelConfig::single(1, 1, 0);
        let flop = |stage| stage_flop(stage, &config, 256, 3);
        let [outside, layer, head] = [
            vec![Stage::Embed, Stage::EmbedBackward, Stage::Update],
            vec![Stage::Attention, Stage::Mlp, Stage::MlpBackward, Stage::AttentionBackward],
            vec![Stage::Head],
        ]
        .map(|stages| stages.into_iter().map(flop).sum::<f64>());
        let whole = outside + 12.0 * layer + head;
        assert!((whole / (3.0 * 256.0 * training_flop(&config)) - 1.0).abs() < 1e-12, "{whole}");
    }

    /// The sum over the kernels is what counting the formulas of one token by hand gives.
    #[test]
    fn arithmetic_is_the_formulas() {
        let config = ModelConfig::single(1, 1, 0);
        let [e, t, n] = [96.0, 256.0, 3.0];
        for (needed_from, whole) in [(0, true), (128, false)] {
            let rows = 256 - needed_from;
            let stages = [Stage::Attention, Stage::Mlp, Stage::MlpBackward, Stage::AttentionBackward];
            let flop: f64 = stages
                .into_iter()
                .flat_map(|stage| super::stage(stage, &config, rows, 3, 44, |_| whole))
                .map(|(_, work)| work.tensor_flop)
                .sum();
            // Forward 24E² and 4E for each pair; backward twice that, and QKV (6E²), fc (8E²) and the scores (2E for each pair)
            // once more; fc, and the hidden layer's gradient (8E²), a second time.
            let mut want = 0.0;
            for position in 0..256 {
                let needed = if position >= needed_from { 1.0 } else { 0.0 };
                want += n * (4.0 + 6.0 + 6.0 + 6.0) * e * e;
                want += n * needed * (2.0 + 2.0 + 16.0 + 24.0 + 2.0 + 2.0 + 32.0) * e * e;
                want += n * needed * (position as f64 + 1.0) * (4.0 + 10.0) * e;
            }
            assert!((flop / want - 1.0).abs() < 1e-12, "{flop} instead of {want}");
        }
        let head: f64 =
            super::stage(Stage::Head, &config, 128, 3, 44, |_| true).iter().map(|(_, work)| work.tensor_flop).sum();
        assert!((head / (n * t / 2.0 * 6.0 * e * 256.0) - 1.0).abs() < 1e-12);
    }
}
