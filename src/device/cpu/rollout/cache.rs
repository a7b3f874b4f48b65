//! Keys and values of the sequences of a tile, and attention against them.
//!
//! Every pair of a sequence and a head is a lane of the vectors: nothing is ever summed across lanes, whatever the width of
//! a head, and each lane sums in the order of [`super::attention`], so that both give the same bits.

use super::super::attention::score_factor;
use super::super::vector::exp2;
use crate::model::config::ModelConfig;
use pulp::Simd;

/// Lanes come in multiples of the widest vector.
const LANES: usize = 16;

/// A tile's cache. L lanes: head h of sequence s is the lane s·H + h; those beyond are nobody's.
pub(super) struct Cache<'a> {
    d: usize,
    h: usize,
    lanes: usize,
    /// Elements of a layer's keys, and of its values.
    half: usize,
    /// For each layer the keys [n_ctx, D, L], then the values.
    kept: &'a mut [f32],
    /// The newest queries, [D, L].
    query: &'a mut [f32],
    /// Scores, then their exponentials, [n_ctx, L].
    scores: &'a mut [f32],
    /// Sums of the weighted values, then divided, [D, L].
    answer: &'a mut [f32],
}

impl<'a> Cache<'a> {
    fn lanes(config: &ModelConfig, n: usize) -> usize {
        (n * config.n_head).next_multiple_of(LANES)
    }

    /// Elements that the cache of `n` sequences takes.
    pub(super) fn len(config: &ModelConfig, n: usize) -> usize {
        let (d, n_ctx) = (config.d_head(), config.n_ctx);
        Self::lanes(config, n) * (config.n_layer * 2 * n_ctx * d + 2 * d + n_ctx)
    }

    /// A cache in `memory`, [`Self::len`] elements.
    pub(super) fn new(config: &ModelConfig, n: usize, memory: &'a mut [f32]) -> Self {
        let (d, h, lanes) = (config.d_head(), config.n_head, Self::lanes(config, n));
        let half = config.n_ctx * d * lanes;
        let (kept, rest) = memory.split_at_mut(config.n_layer * 2 * half);
        let (query, rest) = rest.split_at_mut(d * lanes);
        let (answer, scores) = rest.split_at_mut(d * lanes);
        Self { d, h, lanes, half, kept, query, scores, answer }
    }

    /// Keeps the keys and values of a row [3E] of queries, keys and values.
    pub(super) fn put(&mut self, layer: usize, sequence: usize, position: usize, qkv: &[f32]) {
        let (d, h, lanes) = (self.d, self.h, self.lanes);
        for (part, row) in qkv.chunks_exact(d * h).skip(1).enumerate() {
            let to = &mut self.kept[(layer * 2 + part) * self.half + position * d * lanes..][..d * lanes];
            turn(row, d, 1.0, &mut to[sequence * h..], lanes);
        }
    }

    /// The queries in `qkv`, a row [3E] for each sequence, against the first `n_key` keys: softmax(q·kᵀ/√D)·v, [n, E].
    #[inline(always)]
    pub(super) fn attend<S: Simd>(&mut self, simd: S, layer: usize, n_key: usize, qkv: &[f32], answer: &mut [f32]) {
        let (d, h, lanes) = (self.d, self.h, self.lanes);
        for (sequence, qkv) in qkv.chunks_exact(3 * d * h).enumerate() {
            turn(&qkv[..d * h], d, score_factor(d), &mut self.query[sequence * h..], lanes);
        }
        let (keys, values) = self.kept[layer * 2 * self.half..][..2 * self.half].split_at(self.half);
        let used = n_key * d * lanes;
        score(simd, self.query, &keys[..used], &mut self.scores[..n_key * lanes]);
        // The queries have done their work: their place holds what the answers are multiplied by.
        let inverse = &mut self.query[..lanes];
        softmax(simd, &mut self.scores[..n_key * lanes], inverse);
        weigh(simd, &self.scores[..n_key * lanes], &values[..used], self.answer);
        for (lane, answer) in answer.chunks_exact_mut(d).enumerate() {
            for (to, row) in answer.iter_mut().zip(self.answer.chunks_exact(lanes)) {
                *to = row[lane] * inverse[lane];
            }
        }
    }
}

/// A sequence's row [H, D], times `factor`, into its lanes of [D, L].
fn turn(row: &[f32], d: usize, factor: f32, to: &mut [f32], lanes: usize) {
    for (i, to) in to.chunks_mut(lanes).enumerate() {
        for (to, head) in to.iter_mut().zip(row.chunks_exact(d)) {
            *to = head[i] * factor;
        }
    }
}

/// scores[t] = Σ_d query[d] · keys[t, d], d ascending, in every lane.
#[inline(always)]
fn score<S: Simd>(simd: S, query: &[f32], keys: &[f32], scores: &mut [f32]) {
    let (query, keys, scores) = (S::as_simd_f32s(query).0, S::as_simd_f32s(keys).0, S::as_mut_simd_f32s(scores).0);
    // Vectors in a row of lanes: a key's row holds D of them where its scores hold one.
    let n = query.len() * scores.len() / keys.len();
    for (keys, scores) in keys.chunks_exact(query.len()).zip(scores.chunks_exact_mut(n)) {
        for (v, score) in scores.iter_mut().enumerate() {
            let mut sum = simd.splat_f32s(0.0);
            for (&key, &query) in keys[v..].iter().step_by(n).zip(query[v..].iter().step_by(n)) {
                sum = simd.mul_add_e_f32s(key, query, sum);
            }
            *score = sum;
        }
    }
}

/// Replaces scores by 2^(score − largest) and gives one over their sum, in every lane.
#[inline(always)]
fn softmax<S: Simd>(simd: S, scores: &mut [f32], inverse: &mut [f32]) {
    let (scores, inverse) = (S::as_mut_simd_f32s(scores).0, S::as_mut_simd_f32s(inverse).0);
    let n = inverse.len();
    for (v, inverse) in inverse.iter_mut().enumerate() {
        let mut most = simd.splat_f32s(f32::NEG_INFINITY);
        for &score in scores[v..].iter().step_by(n) {
            most = simd.max_f32s(most, score);
        }
        let mut sum = simd.splat_f32s(0.0);
        for score in scores[v..].iter_mut().step_by(n) {
            *score = exp2(simd, simd.sub_f32s(*score, most));
            sum = simd.add_f32s(sum, *score);
        }
        *inverse = simd.div_f32s(simd.splat_f32s(1.0), sum);
    }
}

/// answer[d] = Σ_t weights[t] · values[t, d], t ascending, in every lane.
#[inline(always)]
fn weigh<S: Simd>(simd: S, weights: &[f32], values: &[f32], answer: &mut [f32]) {
    let (weights, values) = (S::as_simd_f32s(weights).0, S::as_simd_f32s(values).0);
    let answer = S::as_mut_simd_f32s(answer).0;
    answer.fill(simd.splat_f32s(0.0));
    let n = answer.len() * weights.len() / values.len();
    for (weights, values) in weights.chunks_exact(n).zip(values.chunks_exact(answer.len())) {
        for (answer, values) in answer.chunks_exact_mut(n).zip(values.chunks_exact(n)) {
            for ((answer, &value), &weight) in answer.iter_mut().zip(values).zip(weights) {
                *answer = simd.mul_add_e_f32s(value, weight, *answer);
            }
        }
    }
}
