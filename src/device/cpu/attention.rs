//! The attention half-block: x += proj(softmax(q·kᵀ/√D + causal)·v), (q, k, v) = qkv(norm(x)).
//!
//! One thread does one sequence. Within a head the scores are computed for a block of queries, which lie across the vector's
//! lanes, against strips of keys up to the block's last query ([`super::strips`]). Softmax then runs down the keys without
//! a single sum across lanes, and its weights go from registers into the sums of the values. What lies beyond the
//! diagonal is never computed, but for the block's corner.

use super::gemm::{Matrix, Onto, Product};
use super::memory::{Cuts, Memory};
use super::norm::{normalize, scale_and_shift};
use super::sequences::Sequences;
use super::strips::{ROWS as STRIP, lanes, pack_block, pack_strips, scores, strips_len, unpack_block, weigh};
use super::team::Team;
use super::vector::{LOG2_E, exp2};
use super::{Cpu, ROWS, Shape};
use crate::device::{AttentionParams, Call, Tensor};
use crate::error::Result;
use pulp::{Simd, WithSimd};

/// What one sequence keeps for the backward pass; rows from `from` on where only those are needed (T' = T − from).
pub(super) struct Saved<'a> {
    /// Normalised input, [T, E].
    pub normal: &'a mut [f32],
    /// Queries (rows from `from` on), keys and values, [T, 3E].
    pub qkv: &'a mut [f32],
    /// The heads' answers, before the projection, [T', E].
    pub answer: &'a mut [f32],
    /// The norm's factor, [T].
    pub scale: &'a mut [f32],
    /// Largest score of each query, times [`score_factor`], [H, T'].
    pub most: &'a mut [f32],
    /// One over the sum of each query's exponentials, [H, T'].
    pub inverse_sum: &'a mut [f32],
}

/// Elements that one sequence keeps.
pub(super) fn saved_len(shape: &Shape) -> usize {
    let Shape { t, e, h, .. } = *shape;
    4 * t * e + shape.rows() * e + t + 2 * h * shape.rows()
}

impl<'a> Saved<'a> {
    pub(super) fn split(shape: &Shape, all: &'a mut [f32]) -> Self {
        let (te, rows) = (shape.t * shape.e, shape.rows());
        let (normal, all) = all.split_at_mut(te);
        let (qkv, all) = all.split_at_mut(3 * te);
        let (answer, all) = all.split_at_mut(rows * shape.e);
        let (scale, all) = all.split_at_mut(shape.t);
        let (most, inverse_sum) = all.split_at_mut(shape.h * rows);
        Self { normal, qkv, answer, scale, most, inverse_sum }
    }
}

/// The half-block's parameters, the weights packed for products and beside their biases. Queries are apart from keys and
/// values, because fewer rows may need them.
pub(super) struct Weights<'a> {
    norm: (&'a [f32], &'a [f32]),
    query: (&'a [f32], &'a [f32]),
    key_value: (&'a [f32], &'a [f32]),
    proj: (&'a [f32], &'a [f32]),
}

impl<'a> Weights<'a> {
    /// Room that [`Self::pack`] takes.
    pub(super) fn lens(team: &Team, e: usize) -> [usize; 7] {
        let [query, key_value, proj] = [e, 2 * e, e].map(|n| team.packed_len(e, n));
        [query, key_value, proj, e, e, 3 * e, e]
    }

    /// Packs the parameters of a half-block of width `e`.
    pub(super) fn pack(
        memory: &Memory,
        team: &Team,
        e: usize,
        params: &AttentionParams,
        room: &mut Cuts<'a>,
    ) -> Result<Self> {
        let [query, key_value, proj, norm_weight, norm_bias, qkv_bias, proj_bias] =
            Self::lens(team, e).map(|len| room.take(len));
        let qkv_weight = memory.floats(params.qkv_weight, 3 * e * e)?;
        team.pack(e, e, Matrix::Rows(&qkv_weight, 3 * e), query);
        team.pack(e, 2 * e, Matrix::Rows(&qkv_weight[e..], 3 * e), key_value);
        team.pack(e, e, Matrix::Rows(&memory.floats(params.proj_weight, e * e)?, e), proj);
        norm_weight.copy_from_slice(&memory.floats(params.norm_weight, e)?);
        norm_bias.copy_from_slice(&memory.floats(params.norm_bias, e)?);
        qkv_bias.copy_from_slice(&memory.floats(params.qkv_bias, 3 * e)?);
        proj_bias.copy_from_slice(&memory.floats(params.proj_bias, e)?);
        let (query_bias, key_value_bias) = qkv_bias.split_at(e);
        Ok(Self {
            norm: (norm_weight, norm_bias),
            query: (query, query_bias),
            key_value: (key_value, key_value_bias),
            proj: (proj, proj_bias),
        })
    }
}

/// Runs the stage on every sequence of the call.
pub(super) fn forward(
    cpu: &mut Cpu,
    call: &Call,
    params: &AttentionParams,
    x: Tensor,
    saved: Option<Tensor>,
) -> Result<()> {
    let shape = Shape::new(call)?;
    let (memory, team, kept) = (&cpu.memory, &cpu.team, saved_len(&shape));
    let weights = &Weights::pack(memory, team, shape.e, params, &mut cpu.packed.cuts(Weights::lens(team, shape.e)))?;
    Sequences { memory, team, shape, kept }.forward(x, saved, |x, saved, scratch| {
        let mut room = scratch.cuts(Forward::lens(team, &shape));
        team.arch.dispatch(&mut Forward::new(team, weights, shape, x, saved, &mut room));
    })
}

/// One sequence.
pub(super) struct Forward<'a> {
    shape: Shape,
    weights: &'a Weights<'a>,
    x: &'a mut [f32],
    pub(super) saved: Saved<'a>,
    /// Rows of the norm's output, [ROWS, E].
    tile: &'a mut [f32],
    /// A head's keys and values, in strips.
    keys: &'a mut [f32],
    values: &'a mut [f32],
    /// A block of queries, [D, lanes].
    queries: &'a mut [f32],
    /// Its scores, [T, lanes].
    scores: &'a mut [f32],
    /// Its answers, [D, lanes].
    answers: &'a mut [f32],
}

impl<'a> Forward<'a> {
    /// Room that a sequence is computed in: what it keeps, where nobody else wants that, then its own.
    pub(super) fn lens(team: &Team, shape: &Shape) -> [usize; 7] {
        let (d, lanes) = (shape.d(), team.lanes());
        let (strips, scores) = (strips_len(shape.t, d), strips_len(shape.t, lanes));
        [saved_len(shape), ROWS * shape.e, strips, strips, d * lanes, scores, d * lanes]
    }

    /// The sequence `x`, [T, E]; with `saved` ([`saved_len`] elements) the backward pass can follow.
    pub(super) fn new(
        team: &Team,
        weights: &'a Weights<'a>,
        shape: Shape,
        x: &'a mut [f32],
        saved: Option<&'a mut [f32]>,
        room: &mut Cuts<'a>,
    ) -> Self {
        let [unsaved, tile, keys, values, queries, scores, answers] =
            Self::lens(team, &shape).map(|len| room.take(len));
        let saved = Saved::split(&shape, saved.unwrap_or(unsaved));
        Self { shape, weights, x, saved, tile, keys, values, queries, scores, answers }
    }
}

impl WithSimd for &mut Forward<'_> {
    type Output = ();

    /// The whole half-block.
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        self.project(simd);
        for head in 0..self.shape.h {
            self.answer(simd, head);
        }
        self.finish(simd);
    }
}

impl Forward<'_> {
    /// Norm, queries, keys and values of every timestep.
    #[inline(always)]
    pub(super) fn project<S: Simd>(&mut self, simd: S) {
        for first in (0..self.shape.t).step_by(ROWS) {
            self.project_rows(simd, first, ROWS.min(self.shape.t - first));
        }
    }

    /// Projects the heads' answers and adds them to the residual stream.
    #[inline(always)]
    pub(super) fn finish<S: Simd>(&mut self, simd: S) {
        let (Shape { e, from, .. }, proj) = (self.shape, self.weights.proj);
        let (m, left, onto) = (self.shape.rows(), Matrix::Rows(self.saved.answer, e), Onto::OutAndBias(proj.1));
        let out = &mut self.x[from * e..];
        Product { m, k: e, n: e, left, right: proj.0, onto, out, ld: e }.run(simd);
    }

    /// Norm, queries, keys and values of `rows` timesteps from `first` on.
    #[inline(always)]
    fn project_rows<S: Simd>(&mut self, simd: S, first: usize, rows: usize) {
        let Weights { norm, query, key_value, .. } = *self.weights;
        let Shape { e, from, .. } = self.shape;
        for row in 0..rows {
            let at = (first + row) * e;
            let normal = &mut self.saved.normal[at..][..e];
            self.saved.scale[first + row] = normalize(simd, &self.x[at..][..e], normal);
            scale_and_shift(simd, normal, norm.0, norm.1, &mut self.tile[row * e..][..e]);
        }
        let (left, out) = (Matrix::Rows(self.tile, e), &mut self.saved.qkv[first * 3 * e + e..]);
        let (right, onto) = (key_value.0, Onto::Bias(key_value.1));
        Product { m: rows, k: e, n: 2 * e, left, right, onto, out, ld: 3 * e }.run(simd);
        let skip = from.saturating_sub(first);
        if skip < rows {
            let (left, out) = (Matrix::Rows(&self.tile[skip * e..], e), &mut self.saved.qkv[(first + skip) * 3 * e..]);
            let (m, right, onto) = (rows - skip, query.0, Onto::Bias(query.1));
            Product { m, k: e, n: e, left, right, onto, out, ld: 3 * e }.run(simd);
        }
    }

    /// One head, block after block of queries.
    #[inline(always)]
    fn answer<S: Simd>(&mut self, simd: S, head: usize) {
        let Shape { t, e, from, .. } = self.shape;
        let (d, ld) = (self.shape.d(), 3 * e);
        for (part, strips) in [(e, &mut *self.keys), (2 * e, &mut *self.values)] {
            pack_strips(t, d, &self.saved.qkv[part + head * d..], ld, 1.0, strips);
        }
        for first in (from..t).step_by(S::F32_LANES) {
            let n = S::F32_LANES.min(t - first);
            let queries = &self.saved.qkv[first * ld + head * d..];
            pack_block::<S>(n, d, queries, ld, score_factor(d), self.queries);
            let (most, sum) = self.attend(simd, first, n);
            let inverse = [simd.div_f32s(simd.splat_f32s(1.0), sum)];
            let (most, inverse): (&[f32], &[f32]) = (bytemuck::cast_slice(&most), bytemuck::cast_slice(&inverse));
            let answer = &mut self.saved.answer[(first - from) * e + head * d..];
            unpack_block::<S>(n, d, self.answers, inverse, answer, e);
            let at = head * (t - from) + first - from;
            self.saved.inverse_sum[at..][..n].copy_from_slice(&inverse[..n]);
            self.saved.most[at..][..n].copy_from_slice(&most[..n]);
        }
    }

    /// The block of `n` queries from `first` on: the values' sums, weighed, in `answers`. Returns each query's largest score
    /// and the sum of its weights, 2^(score − largest); later keys than the query weigh nothing.
    #[inline(always)]
    fn attend<S: Simd>(&mut self, simd: S, first: usize, n: usize) -> ([S::f32s; 1], S::f32s) {
        let d = self.shape.d();
        let (queries, answers) = (S::as_simd_f32s(self.queries).0, S::as_mut_simd_f32s(self.answers).0);
        let [keys, values] = [&*self.keys, &*self.values].map(|strips| strips.as_chunks::<STRIP>().0.chunks_exact(d));
        let strips = (first + n).div_ceil(STRIP);
        let rows = S::as_mut_simd_f32s(self.scores).0.as_chunks_mut::<STRIP>().0[..strips].iter_mut();

        let mut most = simd.splat_f32s(f32::NEG_INFINITY);
        for ((s, row), keys) in (0..strips).zip(rows).zip(keys) {
            *row = scores(simd, keys, queries);
            if (s + 1) * STRIP > first + 1 {
                for (j, score) in row.iter_mut().enumerate() {
                    // The key is later than the queries of the lanes before this one.
                    let earliest = simd.splat_f32s((s * STRIP + j) as f32 - first as f32);
                    let seen = simd.greater_than_or_equal_f32s(lanes(simd), earliest);
                    *score = simd.select_f32s(seen, *score, simd.splat_f32s(f32::NEG_INFINITY));
                }
            }
            for &score in &*row {
                most = simd.max_f32s(most, score);
            }
        }
        let mut sum = simd.splat_f32s(0.0);
        answers.fill(sum);
        let rows = S::as_simd_f32s(self.scores).0.as_chunks::<STRIP>().0[..strips].iter();
        for (row, values) in rows.zip(values) {
            let mut weights = *row;
            for weight in &mut weights {
                *weight = exp2(simd, simd.sub_f32s(*weight, most));
                sum = simd.add_f32s(sum, *weight);
            }
            weigh(simd, &weights, values, answers);
        }
        ([most], sum)
    }
}

/// What a score is times before it is a power of two: log2(e)/√D. Queries are multiplied by it, which are fewer than scores.
pub(super) fn score_factor(d: usize) -> f32 {
    LOG2_E / (d as f32).sqrt()
}
