//! The attention half-block: x += proj(softmax(q·kᵀ/√D + causal)·v), (q, k, v) = qkv(norm(x)).
//!
//! One thread does one sequence. Within a head the scores are computed for a block of as many queries as a narrow panel
//! has columns, queries lying across the vector's lanes, against all keys up to the block's last query: a product of
//! the keys with the transposed queries. Softmax then runs down the keys without a single sum across lanes, and the
//! weighted values are a second product. What lies beyond the diagonal is never computed, but for the block's corner.

use super::gemm::{Matrix, Onto, Product, Width, pack};
use super::memory::{Cuts, Memory};
use super::norm::{normalize, scale_and_shift};
use super::sequences::Sequences;
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
    /// Largest score of each query times log2(e)/√D, [H, T'].
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
    /// A block of queries, transposed, [D, block].
    queries: &'a mut [f32],
    /// Scores, then their exponentials, [T, block].
    scores: &'a mut [f32],
    /// The block's answers, transposed, [D, block].
    answers: &'a mut [f32],
}

impl<'a> Forward<'a> {
    /// Room that a sequence is computed in: what it keeps, where nobody else wants that, then its own.
    pub(super) fn lens(team: &Team, shape: &Shape) -> [usize; 5] {
        let (d, block) = (shape.d(), team.columns(Width::Narrow));
        [saved_len(shape), ROWS * shape.e, d * block, shape.t * block, d * block]
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
        let [unsaved, tile, queries, scores, answers] = Self::lens(team, &shape).map(|len| room.take(len));
        let saved = Saved::split(&shape, saved.unwrap_or(unsaved));
        Self { shape, weights, x, saved, tile, queries, scores, answers }
    }
}

impl WithSimd for &mut Forward<'_> {
    type Output = ();

    /// The whole half-block.
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        self.project(simd);
        for head in 0..self.shape.h {
            match Width::Narrow.vectors::<S>() {
                1 => self.answer::<S, 1>(simd, head),
                _ => self.answer::<S, 2>(simd, head),
            }
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
        Product { m, k: e, n: e, left, right: proj.0, width: Width::Wide, onto, out, ld: e }.run(simd);
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
        Product { m: rows, k: e, n: 2 * e, left, right, width: Width::Wide, onto, out, ld: 3 * e }.run(simd);
        let skip = from.saturating_sub(first);
        if skip < rows {
            let (left, out) = (Matrix::Rows(&self.tile[skip * e..], e), &mut self.saved.qkv[(first + skip) * 3 * e..]);
            let (m, right, onto) = (rows - skip, query.0, Onto::Bias(query.1));
            Product { m, k: e, n: e, left, right, width: Width::Wide, onto, out, ld: 3 * e }.run(simd);
        }
    }

    /// One head: block after block of queries, as wide as `NV` vectors.
    #[inline(always)]
    fn answer<S: Simd, const NV: usize>(&mut self, simd: S, head: usize) {
        let Shape { t, e, from, .. } = self.shape;
        let (d, width, onto) = (self.shape.d(), Width::Narrow, Onto::Nothing);
        let (block, ld) = (NV * S::F32_LANES, 3 * e);
        let [q, k, v] = [0, e, 2 * e].map(|part| part + head * d);
        for first in (from..t).step_by(block) {
            let n = block.min(t - first);
            let keys = first + n;
            let qkv = &*self.saved.qkv;
            pack(block, d, n, Matrix::Columns(&qkv[first * ld + q..], ld), self.queries);
            let (left, out) = (Matrix::Rows(&qkv[k..], ld), &mut *self.scores);
            Product { m: keys, k: d, n: block, left, right: self.queries, width, onto, out, ld: block }.run(simd);

            let factor = LOG2_E / (d as f32).sqrt();
            let (most, inverse) = softmax_down::<S, NV>(simd, first, factor, &mut self.scores[..keys * block]);

            let left = Matrix::Columns(&qkv[v..], ld);
            Product { m: d, k: keys, n: block, left, right: self.scores, width, onto, out: self.answers, ld: block }
                .run(simd);
            let inverse: &[f32] = bytemuck::cast_slice(&inverse);
            for (c, &inverse) in inverse[..n].iter().enumerate() {
                let out = &mut self.saved.answer[(first + c - from) * e + head * d..][..d];
                for (out, answers) in out.iter_mut().zip(self.answers.chunks_exact(block)) {
                    *out = answers[c] * inverse;
                }
            }
            let at = head * (t - from) + first - from;
            self.saved.inverse_sum[at..][..n].copy_from_slice(&inverse[..n]);
            self.saved.most[at..][..n].copy_from_slice(&bytemuck::cast_slice(&most)[..n]);
        }
    }
}

/// Softmax down the columns of `scores`, a row for each key and a column for each query, the first of which has the
/// number `first`; not yet divided by the sum. Later keys than the query get exactly zero. Returns for each query
/// factor · (largest score), and one over the sum.
#[inline(always)]
fn softmax_down<S: Simd, const NV: usize>(
    simd: S,
    first: usize,
    factor: f32,
    scores: &mut [f32],
) -> ([S::f32s; NV], [S::f32s; NV]) {
    let rows = S::as_mut_simd_f32s(scores).0.as_chunks_mut::<NV>().0;
    let mut most = [simd.splat_f32s(f32::NEG_INFINITY); NV];
    for row in rows[..first].iter() {
        for (most, &score) in most.iter_mut().zip(row) {
            *most = simd.max_f32s(*most, score);
        }
    }
    for (c, row) in rows[first..].iter_mut().enumerate() {
        for (v, (most, score)) in most.iter_mut().zip(row).enumerate() {
            let seen = simd.greater_than_or_equal_f32s(lanes(simd, v), simd.splat_f32s(c as f32));
            *score = simd.select_f32s(seen, *score, simd.splat_f32s(f32::NEG_INFINITY));
            *most = simd.max_f32s(*most, *score);
        }
    }
    let factor = simd.splat_f32s(factor);
    let most = most.map(|most| simd.mul_f32s(most, factor));
    let mut sum = [simd.splat_f32s(0.0); NV];
    for row in rows {
        for v in 0..NV {
            row[v] = exp2(simd, simd.mul_add_e_f32s(row[v], factor, simd.neg_f32s(most[v])));
            sum[v] = simd.add_f32s(sum[v], row[v]);
        }
    }
    (most, sum.map(|sum| simd.div_f32s(simd.splat_f32s(1.0), sum)))
}

/// The numbers of the columns in the vector `v` of a block, as floats.
#[inline(always)]
pub(super) fn lanes<S: Simd>(simd: S, v: usize) -> S::f32s {
    const COUNT: [f32; 16] = [0., 1., 2., 3., 4., 5., 6., 7., 8., 9., 10., 11., 12., 13., 14., 15.];
    simd.add_f32s(S::as_simd_f32s(&COUNT).0[0], simd.splat_f32s((v * S::F32_LANES) as f32))
}
