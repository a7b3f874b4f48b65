//! The attention half-block's backward pass.
//!
//! Here the keys lie across the lanes, a narrow panel of them at a time, and the rows are the queries from the panel's
//! first key on. The softmax P and the gradient of the scores dS are computed again from what the forward pass kept;
//! with the queries as rows, dV = Pᵀ·dO and dK = dSᵀ·Q are products as they lie, and only dQ = dS·K sums over lanes.

use super::attention::{Saved, lanes, saved_len};
use super::gemm::{Matrix, Onto, Product, Width, pack};
use super::memory::{part, parts};
use super::norm::{normalize_backward, scale_and_shift};
use super::sequences::Sequences;
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
    let (e, te, rows, block) = (shape.e, shape.t * shape.e, shape.rows(), team.columns(Width::Narrow));
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
        let d = shape.d();
        let packed = team.packed_len(shape.t, 2 * e);
        let panel = block * d.next_multiple_of(block);
        let [d_answer, dqkv, normed, packed, left, right, p, ds, sums] =
            scratch.split([rows * e, 3 * te, te, packed, panel, panel, shape.t * block, shape.t * block, rows]);
        let saved = Saved::split(&shape, saved);
        let one =
            BackwardOne { all: &backward, dx, saved, grads, d_answer, dqkv, normed, packed, left, right, p, ds, sums };
        team.arch.dispatch(one);
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
    /// Two panels: transposed keys or values, [D, block], or keys, [block, D].
    left: &'a mut [f32],
    right: &'a mut [f32],
    /// Softmax and gradient of the scores, [T, block].
    p: &'a mut [f32],
    ds: &'a mut [f32],
    /// For each query of a head, the sum of its softmax times its gradient, [T'].
    sums: &'a mut [f32],
}

impl WithSimd for BackwardOne<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let Backward { shape, norm, proj, .. } = *self.all;
        let Shape { t, e, from, .. } = shape;

        let (left, out) = (Matrix::Rows(&self.dx[from * e..], e), &mut *self.d_answer);
        let (m, onto) = (shape.rows(), Onto::Nothing);
        Product { m, k: e, n: e, left, right: proj, width: Width::Wide, onto, out, ld: e }.run(simd);
        self.proj_gradient(simd);

        for row in self.dqkv[from * 3 * e..].chunks_exact_mut(3 * e) {
            row[..e].fill(0.0);
        }
        for head in 0..shape.h {
            match Width::Narrow.vectors::<S>() {
                1 => self.head::<S, 1>(simd, head),
                _ => self.head::<S, 2>(simd, head),
            }
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
        pack(Width::Wide.columns::<S>(), rows, e, Matrix::Rows(dx, e), self.packed);
        let (left, out) = (Matrix::Columns(self.saved.answer, e), part(self.grads, grads.proj_weight));
        Product { m: e, k: rows, n: e, left, right: self.packed, width: Width::Wide, onto: Onto::Out, out, ld: e }
            .run(simd);
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
            pack(Width::Wide.columns::<S>(), k, n, Matrix::Rows(gradient, 3 * e), self.packed);
            let left = Matrix::Columns(&self.normed[first * e..], e);
            let out = &mut part(self.grads, grads.qkv_weight)[column..];
            Product { m, k, n, left, right: self.packed, width: Width::Wide, onto: Onto::Out, out, ld: 3 * e }
                .run(simd);
            let bias = &mut part(self.grads, grads.qkv_bias)[column..][..n];
            add_rows(simd, k, n, gradient, 3 * e, bias);
        }
    }

    /// dx += norm'(dqkv · qkv_weightᵀ); rows before `from` had no gradient of their own.
    #[inline(always)]
    fn norm_gradient<S: Simd>(&mut self, simd: S) {
        let Backward { shape, grads, norm, query, key_value, .. } = *self.all;
        let Shape { t, e, from, .. } = shape;
        let (ld, width) = (e, Width::Wide);
        let (left, out) = (Matrix::Rows(&self.dqkv[e..], 3 * e), &mut *self.normed);
        Product { m: t, k: 2 * e, n: e, left, right: key_value, width, onto: Onto::Nothing, out, ld }.run(simd);
        let (left, out) = (Matrix::Rows(&self.dqkv[from * 3 * e..], 3 * e), &mut self.normed[from * e..]);
        Product { m: t - from, k: e, n: e, left, right: query, width, onto: Onto::Out, out, ld }.run(simd);

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

    /// One head: block after block of keys, as wide as `NV` vectors.
    #[inline(always)]
    fn head<S: Simd, const NV: usize>(&mut self, simd: S, head: usize) {
        let Shape { t, e, from, .. } = self.all.shape;
        let (d, width, onto) = (self.all.shape.d(), Width::Narrow, Onto::Nothing);
        let (block, ld) = (NV * S::F32_LANES, 3 * e);
        let [q, k, v] = [0, e, 2 * e].map(|part| part + head * d);
        for (i, sum) in self.sums.iter_mut().enumerate() {
            let at = i * e + head * d;
            let pairs = self.saved.answer[at..][..d].iter().zip(&self.d_answer[at..][..d]);
            *sum = pairs.map(|(a, b)| a * b).sum();
        }
        for first in (0..t).step_by(block) {
            let n = block.min(t - first);
            let first_query = from.max(first);
            let m = t - first_query;
            let qkv = &*self.saved.qkv;
            let queries = &qkv[first_query * ld + q..];
            let d_answer = &self.d_answer[(first_query - from) * e + head * d..];

            pack(block, d, n, Matrix::Columns(&qkv[first * ld + k..], ld), self.left);
            pack(block, d, n, Matrix::Columns(&qkv[first * ld + v..], ld), self.right);
            let (left, out) = (Matrix::Rows(queries, ld), &mut *self.p);
            Product { m, k: d, n: block, left, right: self.left, width, onto, out, ld: block }.run(simd);
            let (left, out) = (Matrix::Rows(d_answer, e), &mut *self.ds);
            Product { m, k: d, n: block, left, right: self.right, width, onto, out, ld: block }.run(simd);
            self.scores_gradient::<S, NV>(simd, head, first, first_query);

            let qkv = &*self.saved.qkv;
            let queries = &qkv[first_query * ld + q..];
            let d_answer = &self.d_answer[(first_query - from) * e + head * d..];
            // dV and dK come out transposed, [D, block].
            for (left, right, to) in
                [(Matrix::Columns(d_answer, e), &*self.p, v), (Matrix::Columns(queries, ld), &*self.ds, k)]
            {
                let out = &mut *self.left;
                Product { m: d, k: m, n: block, left, right, width, onto, out, ld: block }.run(simd);
                for c in 0..n {
                    let out = &mut self.dqkv[(first + c) * ld + to..][..d];
                    for (out, gradient) in out.iter_mut().zip(self.left.chunks_exact(block)) {
                        *out = gradient[c];
                    }
                }
            }
            pack(block, n, d, Matrix::Rows(&qkv[first * ld + k..], ld), self.right);
            let (left, out) = (Matrix::Rows(self.ds, block), &mut self.dqkv[first_query * ld + q..]);
            Product { m, k: n, n: d, left, right: self.right, width, onto: Onto::Out, out, ld }.run(simd);
        }
    }

    /// In: scores in `p`, gradient of the softmax in `ds`, a row for each query from `first_query` on and a column for
    /// each key from `first` on. Out: the softmax and the gradient of the product of query and key.
    #[inline(always)]
    fn scores_gradient<S: Simd, const NV: usize>(&mut self, simd: S, head: usize, first: usize, first_query: usize) {
        let Shape { t, from, .. } = self.all.shape;
        let root = (self.all.shape.d() as f32).sqrt();
        let (factor, scale) = (simd.splat_f32s(LOG2_E / root), simd.splat_f32s(1.0 / root));
        let (skip, rows) = (first_query - from, t - from);
        let most = &self.saved.most[head * rows..][..rows][skip..];
        let inverse_sum = &self.saved.inverse_sum[head * rows..][..rows][skip..];
        let sums = &self.sums[skip..];
        let p = S::as_mut_simd_f32s(self.p).0.as_chunks_mut::<NV>().0;
        let ds = S::as_mut_simd_f32s(self.ds).0.as_chunks_mut::<NV>().0;
        let queries = p.iter_mut().zip(ds).zip(most).zip(inverse_sum).zip(sums);
        for (i, ((((p, ds), &most), &inverse), &sum)) in queries.enumerate() {
            let (most, inverse, sum) = (simd.splat_f32s(-most), simd.splat_f32s(inverse), simd.splat_f32s(sum));
            // The query's place in the block of keys: lanes up to it are seen, and past the block all are.
            let place = first_query + i - first;
            for v in 0..NV {
                let mut seen = simd.mul_f32s(exp2(simd, simd.mul_add_e_f32s(p[v], factor, most)), inverse);
                if place < NV * S::F32_LANES {
                    let mask = simd.less_than_or_equal_f32s(lanes(simd, v), simd.splat_f32s(place as f32));
                    seen = simd.select_f32s(mask, seen, simd.splat_f32s(0.0));
                }
                p[v] = seen;
                ds[v] = simd.mul_f32s(simd.mul_f32s(seen, simd.sub_f32s(ds[v], sum)), scale);
            }
        }
    }
}
