//! The attention half-block's backward pass.
//!
//! Here a block of keys lies across the lanes, and the strips are of queries, from the block's first key on. The softmax P
//! and the gradient of the scores dS are computed again from what the forward pass kept; with queries as rows, dV = Pᵀ·dO
//! and dK = dSᵀ·Q are sums in each lane, and only dQ = dS·K sums over lanes.

use super::attention::{Saved, saved_len, score_factor};
use super::gemm::{Matrix, Onto, Product, columns, pack};
use super::memory::{part, parts};
use super::norm::{normalize_backward, scale_and_shift};
use super::sequences::Sequences;
use super::strips::{
    MAX_LANES, ROWS as STRIP, lanes, pack_block, pack_strips, scores, strips_len, unpack_block, weigh, weigh_rows,
};
use super::vector::{LOG2_E, add, add_rows, exp2};
use super::{Cpu, Shape};
use crate::device::{AttentionParams, Call, Tensor};
use crate::error::Result;
use pulp::{Simd, WithSimd};

/// Runs the stage on every sequence of the call.
pub(super) fn backward(
    cpu: &mut Cpu,
    call: &Call,
    params: &AttentionParams,
    grads: &AttentionParams,
    saved: Tensor,
    dx: Tensor,
) -> Result<()> {
    let shape = Shape::new(call)?;
    let (memory, team, kept) = (&cpu.memory, &cpu.team, saved_len(&shape));
    let (e, te, rows) = (shape.e, shape.t * shape.e, shape.rows());
    let (norm_weight, norm_bias) = (memory.floats(params.norm_weight, e)?, memory.floats(params.norm_bias, e)?);
    let (qkv_weight, proj_weight) =
        (memory.floats(params.qkv_weight, 3 * e * e)?, memory.floats(params.proj_weight, e * e)?);
    let [query, key_value, proj] = cpu.packed.split([e, 2 * e, e].map(|k| team.packed_len(k, e)));
    team.pack(e, e, Matrix::Columns(&qkv_weight, 3 * e), query);
    team.pack(2 * e, e, Matrix::Columns(&qkv_weight[e..], 3 * e), key_value);
    team.pack(e, e, Matrix::Columns(&proj_weight, e), proj);
    let backward = Backward { shape, grads, norm: (&norm_weight, &norm_bias), query, key_value, proj };

    let lens = [
        (grads.norm_weight, e),
        (grads.norm_bias, e),
        (grads.qkv_weight, 3 * e * e),
        (grads.qkv_bias, 3 * e),
        (grads.proj_weight, e * e),
        (grads.proj_bias, e),
    ];
    let sequences = Sequences { memory, team, shape, kept };
    sequences.backward(call.first, dx, saved, &lens, |dx, saved, grads, scratch| {
        let own = [rows * e, 3 * te, te, team.packed_len(shape.t, 2 * e)];
        let of_head = HeadRoom::lens(&shape, team.lanes());
        let mut cuts = scratch.cuts(own.into_iter().chain(of_head));
        let [d_answer, dqkv, normed, packed] = own.map(|len| cuts.take(len));
        let room = HeadRoom::new(of_head.map(|len| cuts.take(len)));
        let saved = Saved::split(&shape, saved);
        team.arch.dispatch(BackwardOne { all: &backward, dx, saved, grads, d_answer, dqkv, normed, packed, room });
    })
}

/// What the sequences of a call share. Weights are packed, transposed.
struct Backward<'a> {
    shape: Shape,
    grads: &'a AttentionParams,
    norm: (&'a [f32], &'a [f32]),
    query: &'a [f32],
    key_value: &'a [f32],
    proj: &'a [f32],
}

/// One sequence.
struct BackwardOne<'a> {
    all: &'a Backward<'a>,
    dx: &'a mut [f32],
    saved: Saved<'a>,
    /// The sequence's slot of the gradients.
    grads: &'a mut [f32],
    /// Gradient of the heads' answers, [T', E].
    d_answer: &'a mut [f32],
    /// Gradient of queries (rows from `from` on), keys and values, [T, 3E].
    dqkv: &'a mut [f32],
    /// The norm's output, then its gradient, [T, E].
    normed: &'a mut [f32],
    /// Right-hand sides of the products that give weight gradients.
    packed: &'a mut [f32],
    room: HeadRoom<'a>,
}

impl WithSimd for BackwardOne<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let Backward { shape, norm, proj, .. } = *self.all;
        let Shape { t, e, from, .. } = shape;

        let (left, out) = (Matrix::Rows(&self.dx[from * e..], e), &mut *self.d_answer);
        let (m, onto) = (shape.rows(), Onto::Nothing);
        Product { m, k: e, n: e, left, right: proj, onto, out, ld: e }.run(simd);
        self.proj_gradient(simd);

        for head in 0..shape.h {
            self.head(simd, head);
        }

        for (normal, y) in self.saved.normal.chunks_exact(e).zip(self.normed.chunks_exact_mut(e)) {
            scale_and_shift(simd, normal, norm.0, norm.1, y);
        }
        self.qkv_gradient(simd);
        self.norm_gradient(simd);
        debug_assert_eq!(self.dx.len(), t * e);
    }
}

impl BackwardOne<'_> {
    /// proj_weight += answerᵀ · dx, proj_bias += Σ dx.
    #[inline(always)]
    fn proj_gradient<S: Simd>(&mut self, simd: S) {
        let Backward { shape, grads, .. } = *self.all;
        let (e, rows) = (shape.e, shape.rows());
        let dx = &self.dx[shape.from * e..];
        pack(columns::<S>(), rows, e, Matrix::Rows(dx, e), self.packed);
        let (left, out) = (Matrix::Columns(self.saved.answer, e), part(self.grads, grads.proj_weight));
        Product { m: e, k: rows, n: e, left, right: self.packed, onto: Onto::Out, out, ld: e }.run(simd);
        add_rows(simd, rows, e, dx, e, part(self.grads, grads.proj_bias));
    }

    /// qkv_weight += normedᵀ · dqkv, qkv_bias += Σ dqkv; queries over their own rows.
    #[inline(always)]
    fn qkv_gradient<S: Simd>(&mut self, simd: S) {
        let Backward { shape, grads, .. } = *self.all;
        let Shape { t, e, from, .. } = shape;
        for (first, column, n) in [(from, 0, e), (0, e, 2 * e)] {
            let gradient = &self.dqkv[first * 3 * e + column..];
            let (k, m) = (t - first, e);
            pack(columns::<S>(), k, n, Matrix::Rows(gradient, 3 * e), self.packed);
            let left = Matrix::Columns(&self.normed[first * e..], e);
            let out = &mut part(self.grads, grads.qkv_weight)[column..];
            Product { m, k, n, left, right: self.packed, onto: Onto::Out, out, ld: 3 * e }.run(simd);
            let bias = &mut part(self.grads, grads.qkv_bias)[column..][..n];
            add_rows(simd, k, n, gradient, 3 * e, bias);
        }
    }

    /// dx += norm'(dqkv · qkv_weightᵀ); rows before `from` had no gradient of their own.
    #[inline(always)]
    fn norm_gradient<S: Simd>(&mut self, simd: S) {
        let Backward { shape, grads, norm, query, key_value, .. } = *self.all;
        let Shape { t, e, from, .. } = shape;
        let ld = e;
        let (left, out) = (Matrix::Rows(&self.dqkv[e..], 3 * e), &mut *self.normed);
        Product { m: t, k: 2 * e, n: e, left, right: key_value, onto: Onto::Nothing, out, ld }.run(simd);
        let (left, out) = (Matrix::Rows(&self.dqkv[from * 3 * e..], 3 * e), &mut self.normed[from * e..]);
        Product { m: t - from, k: e, n: e, left, right: query, onto: Onto::Out, out, ld }.run(simd);

        let [weight, bias] = parts(self.grads, [grads.norm_weight, grads.norm_bias]);
        for i in 0..t {
            let (normal, dy) = (&self.saved.normal[i * e..][..e], &mut self.normed[i * e..][..e]);
            normalize_backward(simd, normal, self.saved.scale[i], norm.0, dy, weight, bias);
            let dx = &mut self.dx[i * e..][..e];
            if i < from {
                dx.copy_from_slice(dy);
            } else {
                add(simd, dy, dx);
            }
        }
    }

    /// One head, block after block of keys.
    #[inline(always)]
    fn head<S: Simd>(&mut self, simd: S, head: usize) {
        let Shape { t, e, from, .. } = self.all.shape;
        let (d, ld, rows) = (self.all.shape.d(), 3 * e, self.all.shape.rows());
        let [q, k, v] = [0, e, 2 * e].map(|part| part + head * d);
        self.constants(head);
        pack_strips(rows, d, &self.saved.qkv[from * ld + q..], ld, score_factor(d), self.room.queries);
        pack_strips(rows, d, &self.d_answer[head * d..], e, 1.0, self.room.d_answers);
        self.room.dq.fill(0.0);
        for first in (0..t).step_by(S::F32_LANES) {
            let n = S::F32_LANES.min(t - first);
            let [keys, values] = [k, v].map(|part| &self.saved.qkv[first * ld + part..]);
            self.room.block(simd, [d, from, first, n], keys, values, ld);
            let gradient = &mut self.dqkv[first * ld..];
            // Queries were multiplied by log2(e)/√D where 1/√D is meant.
            unpack_block::<S>(n, d, self.room.dk, &[1.0 / LOG2_E; MAX_LANES], &mut gradient[k..], ld);
            unpack_block::<S>(n, d, self.room.dv, &[1.0; MAX_LANES], &mut gradient[v..], ld);
        }
        let wide = d.next_multiple_of(STRIP);
        for (dq, row) in self.room.dq.chunks_exact(wide).zip(self.dqkv[from * ld..].chunks_exact_mut(ld)) {
            row[q..][..d].copy_from_slice(&dq[..d]);
        }
    }

    /// What the scores' gradient takes from each query of a head; zeros for those that fill up the last strip.
    #[inline(always)]
    fn constants(&mut self, head: usize) {
        let e = self.all.shape.e;
        let (d, rows) = (self.all.shape.d(), self.all.shape.rows());
        let [most, inverse_sum, sums] = &mut self.room.constants;
        most[..rows].copy_from_slice(&self.saved.most[head * rows..][..rows]);
        inverse_sum[..rows].copy_from_slice(&self.saved.inverse_sum[head * rows..][..rows]);
        for (i, sum) in sums[..rows].iter_mut().enumerate() {
            let at = i * e + head * d;
            let pairs = self.saved.answer[at..][..d].iter().zip(&self.d_answer[at..][..d]);
            *sum = pairs.map(|(a, b)| a * b).sum();
        }
        for constants in &mut self.room.constants {
            constants[rows..].fill(0.0);
        }
    }
}

/// What a head is computed in. Queries are in strips, a block of keys lies across the lanes.
struct HeadRoom<'a> {
    /// For each query its largest score, one over its sum of exponentials, and the sum of its softmax times that softmax's
    /// gradient, which is Σ_d answer · d_answer.
    constants: [&'a mut [f32]; 3],
    /// Queries times [`score_factor`], and gradients of the answers, in strips.
    queries: &'a mut [f32],
    d_answers: &'a mut [f32],
    /// The block's keys and values, and the gradients of both, [D, lanes].
    keys: &'a mut [f32],
    values: &'a mut [f32],
    dk: &'a mut [f32],
    dv: &'a mut [f32],
    /// The block's keys over √D, [lanes, D'], where D' is D filled up with zeros to a multiple of eight.
    key_rows: &'a mut [f32],
    /// Gradients of the queries, [T', D'].
    dq: &'a mut [f32],
    /// Gradients of the scores of a strip, [8, lanes].
    ds: &'a mut [f32],
}

impl<'a> HeadRoom<'a> {
    fn lens(shape: &Shape, lanes: usize) -> [usize; 12] {
        let (d, one) = (shape.d(), strips_len(shape.rows(), 1));
        let (strips, block, wide) = (one * d, d * lanes, d.next_multiple_of(STRIP));
        [one, one, one, strips, strips, block, block, block, block, lanes * wide, one * wide, STRIP * lanes]
    }

    fn new(room: [&'a mut [f32]; 12]) -> Self {
        let [most, inverse_sum, sums, queries, d_answers, keys, values, dk, dv, key_rows, dq, ds] = room;
        let constants = [most, inverse_sum, sums];
        Self { constants, queries, d_answers, keys, values, dk, dv, key_rows, dq, ds }
    }

    /// The `n` keys and values from `first` on, rows `ld` apart, against all queries that see any of them: their gradients, and
    /// what they add to the queries'.
    #[inline(always)]
    fn block<S: Simd>(&mut self, simd: S, [d, from, first, n]: [usize; 4], keys: &[f32], values: &[f32], ld: usize) {
        pack_block::<S>(n, d, keys, ld, 1.0, self.keys);
        pack_block::<S>(n, d, values, ld, 1.0, self.values);
        self.key_rows.fill(0.0);
        let factor = 1.0 / (d as f32).sqrt();
        for (to, row) in self.key_rows.chunks_exact_mut(d.next_multiple_of(STRIP)).zip(keys.chunks(ld)).take(n) {
            to.iter_mut().zip(&row[..d]).for_each(|(to, &key)| *to = key * factor);
        }
        let (keys, values) = (S::as_simd_f32s(self.keys).0, S::as_simd_f32s(self.values).0);
        let (dk, dv) = (S::as_mut_simd_f32s(self.dk).0, S::as_mut_simd_f32s(self.dv).0);
        dk.fill(simd.splat_f32s(0.0));
        dv.fill(simd.splat_f32s(0.0));
        let [most, inverse_sum, sums] = self.constants.each_ref().map(|all| all.as_chunks::<STRIP>().0);
        let [queries, d_answers] = [&*self.queries, &*self.d_answers].map(|strips| strips.as_chunks::<STRIP>().0);
        for s in first.saturating_sub(from) / STRIP..most.len() {
            let (queries, d_answers) = (&queries[s * d..][..d], &d_answers[s * d..][..d]);
            let mut p = scores(simd, queries, keys);
            let mut ds = scores(simd, d_answers, values);
            for (j, p) in p.iter_mut().enumerate() {
                let power = exp2(simd, simd.sub_f32s(*p, simd.splat_f32s(most[s][j])));
                *p = simd.mul_f32s(power, simd.splat_f32s(inverse_sum[s][j]));
            }
            let query = from + s * STRIP;
            if query < first + S::F32_LANES {
                // Lanes beyond the query's own are later keys.
                for (j, p) in p.iter_mut().enumerate() {
                    let last = simd.splat_f32s((query + j) as f32 - first as f32);
                    let seen = simd.less_than_or_equal_f32s(lanes(simd), last);
                    *p = simd.select_f32s(seen, *p, simd.splat_f32s(0.0));
                }
            }
            for (j, (ds, &p)) in ds.iter_mut().zip(&p).enumerate() {
                *ds = simd.mul_f32s(p, simd.sub_f32s(*ds, simd.splat_f32s(sums[s][j])));
            }
            weigh(simd, &p, d_answers, dv);
            weigh(simd, &ds, queries, dk);
            S::as_mut_simd_f32s(self.ds).0.copy_from_slice(&ds);
            let dq = self.dq.as_chunks_mut::<STRIP>().0;
            weigh_rows::<S>(self.ds, self.key_rows.as_chunks().0, &mut dq[s * d.next_multiple_of(STRIP)..]);
        }
    }
}
