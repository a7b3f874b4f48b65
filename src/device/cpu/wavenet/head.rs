//! The head: leaky ReLU, a hidden layer, leaky ReLU, logits; softmax cross-entropy fused with its backward pass.

use super::super::gemm::{Matrix, Onto, Product, columns, pack};
use super::super::head::score_target;
use super::super::memory::{Cuts, Memory, part};
use super::super::team::Team;
use super::super::vector::{add_rows, load, store};
use super::super::{Cpu, ROWS};
use super::Shape;
use crate::device::wavenet::{WavenetHead, WavenetHeadBackward};
use crate::device::{Call, Inputs, Score, Tensor};
use crate::ensure;
use crate::error::{Kind, Result};
use crate::model::wavenet::WavenetConfig;
use pulp::{Simd, WithSimd};

/// Slope below zero (PyTorch's default, which the authors leave).
const SLOPE: f32 = 0.01;

/// The head's parameters, the weights packed.
pub(super) struct Weights<'a> {
    fc: &'a [f32],
    fc_bias: &'a [f32],
    proj: &'a [f32],
    proj_bias: &'a [f32],
    /// Transposed, for the backward pass.
    fc_backward: &'a [f32],
    proj_backward: &'a [f32],
}

impl<'a> Weights<'a> {
    pub(super) fn lens(team: &Team, shape: &Shape) -> [usize; 6] {
        let &Shape { s, h, q, .. } = shape;
        [team.packed_len(s, h), h, team.packed_len(h, q), q, team.packed_len(h, s), team.packed_len(q, h)]
    }

    pub(super) fn pack(
        memory: &Memory,
        team: &Team,
        shape: &Shape,
        params: &WavenetHead,
        room: &mut Cuts<'a>,
    ) -> Result<Self> {
        let &Shape { s, h, q, .. } = shape;
        let [fc, fc_bias, proj, proj_bias, fc_backward, proj_backward] =
            Self::lens(team, shape).map(|len| room.take(len));
        let (fc_weight, proj_weight) =
            (memory.floats(params.fc_weight, s * h)?, memory.floats(params.proj_weight, h * q)?);
        team.pack(s, h, Matrix::Rows(&fc_weight, h), fc);
        team.pack(h, q, Matrix::Rows(&proj_weight, q), proj);
        team.pack(h, s, Matrix::Columns(&fc_weight, h), fc_backward);
        team.pack(q, h, Matrix::Columns(&proj_weight, q), proj_backward);
        fc_bias.copy_from_slice(&memory.floats(params.fc_bias, h)?);
        proj_bias.copy_from_slice(&memory.floats(params.proj_bias, q)?);
        Ok(Self { fc, fc_bias, proj, proj_bias, fc_backward, proj_backward })
    }
}

/// y = leaky(x).
#[inline(always)]
fn leaky<S: Simd>(simd: S, x: &[f32], y: &mut [f32]) {
    let (zero, slope) = (simd.splat_f32s(0.0), simd.splat_f32s(SLOPE));
    for (x, y) in x.chunks(S::F32_LANES).zip(y.chunks_mut(S::F32_LANES)) {
        let x = load(simd, x);
        store(simd, y, simd.select_f32s(simd.less_than_f32s(zero, x), x, simd.mul_f32s(x, slope)));
    }
}

/// dy, in place, times the slope at x: which is also where leaky(x) has its sign.
#[inline(always)]
fn leaky_backward<S: Simd>(simd: S, x: &[f32], dy: &mut [f32]) {
    let (zero, slope) = (simd.splat_f32s(0.0), simd.splat_f32s(SLOPE));
    for (x, dy) in x.chunks(S::F32_LANES).zip(dy.chunks_mut(S::F32_LANES)) {
        let d = load(simd, dy);
        let value = simd.select_f32s(simd.less_than_f32s(zero, load(simd, x)), d, simd.mul_f32s(d, slope));
        store(simd, dy, value);
    }
}

/// Rows on their way to logits.
pub(super) struct Logits<'a> {
    weights: &'a Weights<'a>,
    s: usize,
    /// Both layers' inputs, behind their leaky ReLU: [ROWS, S] and [ROWS, H].
    first: &'a mut [f32],
    second: &'a mut [f32],
}

impl<'a> Logits<'a> {
    pub(super) fn lens(shape: &Shape) -> [usize; 2] {
        [ROWS * shape.s, ROWS * shape.h]
    }

    pub(super) fn new(weights: &'a Weights<'a>, shape: &Shape, room: &mut Cuts<'a>) -> Self {
        let [first, second] = Self::lens(shape).map(|len| room.take(len));
        Self { weights, s: shape.s, first, second }
    }

    /// The logits of `m` rows of skips, at most [`ROWS`].
    #[inline(always)]
    pub(super) fn rows<S: Simd>(&mut self, simd: S, skips: &[f32], m: usize, out: &mut [f32]) {
        let (s, h, q) = (self.s, self.weights.fc_bias.len(), self.weights.proj_bias.len());
        leaky(simd, &skips[..m * s], self.first);
        let (left, right, onto) = (Matrix::Rows(self.first, s), self.weights.fc, Onto::Bias(self.weights.fc_bias));
        Product { m, k: s, n: h, left, right, onto, out: self.second, ld: h }.run(simd);
        let second = &mut self.second[..m * h];
        let (zero, slope) = (simd.splat_f32s(0.0), simd.splat_f32s(SLOPE));
        for x in second.chunks_mut(S::F32_LANES) {
            let value = load(simd, x);
            store(simd, x, simd.select_f32s(simd.less_than_f32s(zero, value), value, simd.mul_f32s(value, slope)));
        }
        let (left, right, onto) = (Matrix::Rows(second, h), self.weights.proj, Onto::Bias(self.weights.proj_bias));
        Product { m, k: h, n: q, left, right, onto, out, ld: q }.run(simd);
    }
}

/// The loss, and with `backward` the gradients.
#[expect(clippy::too_many_arguments, reason = "one fused stage, forward and backward")]
pub(super) fn loss(
    cpu: &mut Cpu,
    config: &WavenetConfig,
    call: &Call,
    params: &WavenetHead,
    inputs: &Inputs,
    levels: Tensor,
    skips: Tensor,
    scores: Tensor,
    backward: Option<WavenetHeadBackward>,
) -> Result<()> {
    let shape = &Shape::new(config, call)?;
    let &Shape { n, t, s, h, q, .. } = shape;
    let (memory, team, len) = (&cpu.memory, &cpu.team, shape.rows() * s);
    let weights = &Weights::pack(memory, team, shape, params, &mut cpu.packed.cuts(Weights::lens(team, shape)))?;
    let levels = memory.floats(levels, q)?;
    let tokens = memory.read::<u8>(inputs.token)?;
    ensure!(tokens.len() == n * (t + 1), Kind::Internal, "inputs of another shape");
    let most = tokens.iter().copied().max().map_or(0, usize::from);
    ensure!(most < q, Kind::Internal, "token {most} of a vocabulary of {q}");
    let skips = memory.first(skips, n * len)?;
    let mut scores = memory.floats_mut(scores, n * Score::LEN)?;
    let slots = backward.map(|WavenetHeadBackward { grads, .. }| {
        memory.slots(&[(grads.fc_weight, s * h), (grads.fc_bias, h), (grads.proj_weight, h * q), (grads.proj_bias, q)])
    });
    let mut slots = slots.transpose()?;
    let mut dskips = backward.map(|b| memory.first_mut(b.dskips, n * len)).transpose()?;
    let mut slot = slots.as_mut().map(|slots| slots.of(call.first));
    let mut dskips = dskips.as_mut().map(|dskips| dskips.chunks_exact_mut(len));
    let jobs = skips.chunks_exact(len).zip(tokens.chunks_exact(t + 1)).zip(scores.chunks_exact_mut(Score::LEN));
    let jobs = jobs.map(|((skips, tokens), score)| {
        let grads = slot.as_mut().and_then(Iterator::next).zip(dskips.as_mut().and_then(Iterator::next));
        (skips, tokens, score, grads)
    });
    let levels = &*levels;
    team.each(jobs, |(skips, tokens, score, grads), scratch| {
        let own = [ROWS * q, ROWS * h, team.packed_len(ROWS, q.max(h))];
        let mut room = scratch.cuts(own.into_iter().chain(Logits::lens(shape)));
        let [rows, hidden, packed] = own.map(|len| room.take(len));
        let backward = grads.zip(backward).map(|((grads, dskips), call)| One { call, grads, dskips, hidden, packed });
        let head = Logits::new(weights, shape, &mut room);
        score.copy_from_slice(&team.arch.dispatch(Loss { shape, levels, skips, tokens, head, rows, backward }));
    });
    Ok(())
}

/// One sequence.
struct Loss<'a> {
    shape: &'a Shape,
    levels: &'a [f32],
    skips: &'a [f32],
    tokens: &'a [u8],
    head: Logits<'a>,
    /// Logits, then their gradient, [ROWS, Q].
    rows: &'a mut [f32],
    backward: Option<One<'a>>,
}

/// What one sequence needs for its backward pass.
struct One<'a> {
    call: WavenetHeadBackward,
    grads: &'a mut [f32],
    dskips: &'a mut [f32],
    /// Gradient of the hidden layer, [ROWS, H].
    hidden: &'a mut [f32],
    packed: &'a mut [f32],
}

impl WithSimd for Loss<'_> {
    type Output = [f32; Score::LEN];

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) -> Self::Output {
        let &Shape { s, q, from, .. } = self.shape;
        let weight = self.backward.as_ref().map(|backward| backward.call.weight);
        let mut score = [0.0; Score::LEN];
        for first in (0..self.shape.rows()).step_by(ROWS) {
            let m = ROWS.min(self.shape.rows() - first);
            self.head.rows(simd, &self.skips[first * s..], m, self.rows);
            for (row, logits) in self.rows[..m * q].chunks_exact_mut(q).enumerate() {
                let target = usize::from(self.tokens[from + first + row + 1]);
                score_target(simd, logits, target, self.levels, weight, &mut score);
            }
            self.rows_backward(simd, first, m);
        }
        score.map(|sum| sum as f32)
    }
}

impl Loss<'_> {
    /// The backward pass of `m` rows from the row `first` on; `rows` holds the gradient of their logits.
    #[inline(always)]
    fn rows_backward<S: Simd>(&mut self, simd: S, first: usize, m: usize) {
        let &Shape { s, h, q, .. } = self.shape;
        let columns = columns::<S>();
        let Some(One { call, grads: slot, dskips, hidden, packed }) = &mut self.backward else { return };
        let (grads, head) = (&call.grads, &self.head);

        pack(columns, m, q, Matrix::Rows(self.rows, q), packed);
        let (left, out) = (Matrix::Columns(head.second, h), part(slot, grads.proj_weight));
        Product { m: h, k: m, n: q, left, right: packed, onto: Onto::Out, out, ld: q }.run(simd);
        add_rows(simd, m, q, self.rows, q, part(slot, grads.proj_bias));
        let (left, right, out) = (Matrix::Rows(self.rows, q), head.weights.proj_backward, &mut **hidden);
        Product { m, k: q, n: h, left, right, onto: Onto::Nothing, out, ld: h }.run(simd);
        leaky_backward(simd, &head.second[..m * h], &mut hidden[..m * h]);

        pack(columns, m, h, Matrix::Rows(hidden, h), packed);
        let (left, out) = (Matrix::Columns(head.first, s), part(slot, grads.fc_weight));
        Product { m: s, k: m, n: h, left, right: packed, onto: Onto::Out, out, ld: h }.run(simd);
        add_rows(simd, m, h, hidden, h, part(slot, grads.fc_bias));
        let out = &mut dskips[first * s..][..m * s];
        let (left, right) = (Matrix::Rows(hidden, h), head.weights.fc_backward);
        Product { m, k: h, n: s, left, right, onto: Onto::Nothing, out, ld: s }.run(simd);
        leaky_backward(simd, &head.first[..m * s], out);
    }
}

/// The bare logits of timesteps `from ..`.
pub(super) fn bare_logits(
    cpu: &mut Cpu,
    config: &WavenetConfig,
    call: &Call,
    params: &WavenetHead,
    skips: Tensor,
    out: Tensor,
) -> Result<()> {
    let shape = &Shape::new(config, call)?;
    let (memory, team, len) = (&cpu.memory, &cpu.team, shape.rows() * shape.s);
    let weights = &Weights::pack(memory, team, shape, params, &mut cpu.packed.cuts(Weights::lens(team, shape)))?;
    let skips = memory.first(skips, shape.n * len)?;
    let mut out = memory.floats_mut(out, shape.n * shape.rows() * shape.q)?;
    let jobs = skips.chunks_exact(len).zip(out.chunks_exact_mut(shape.rows() * shape.q));
    team.each(jobs, |(skips, out), scratch| {
        let head = Logits::new(weights, shape, &mut scratch.cuts(Logits::lens(shape)));
        team.arch.dispatch(LogitsOne { shape, head, skips, out });
    });
    Ok(())
}

/// One sequence's bare logits.
struct LogitsOne<'a> {
    shape: &'a Shape,
    head: Logits<'a>,
    skips: &'a [f32],
    out: &'a mut [f32],
}

impl WithSimd for LogitsOne<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let &Shape { s, q, .. } = self.shape;
        for first in (0..self.shape.rows()).step_by(ROWS) {
            let m = ROWS.min(self.shape.rows() - first);
            self.head.rows(simd, &self.skips[first * s..], m, &mut self.out[first * q..]);
        }
    }
}
