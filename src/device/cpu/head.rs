//! The head: final norm, logits, and softmax cross-entropy fused with its backward pass, [`ROWS`] timesteps at a time.

use super::gemm::{Matrix, Onto, Product, columns, pack};
use super::memory::{Cuts, part, parts};
use super::norm::{normalize, normalize_backward, scale_and_shift};
use super::vector::{exponentials, load, store};
use super::{Cpu, ROWS, Shape};
use crate::device::{Call, HeadBackward, HeadParams, Inputs, Score, Tensor};
use crate::ensure;
use crate::error::{Kind, Result};
use pulp::{Simd, WithSimd};
use std::ops::Range;

/// The sizes of a head: levels, and the matrix of each channel within the weights.
#[derive(Clone, Copy)]
struct Levels {
    q: usize,
    matrices: usize,
}

impl Levels {
    fn new(params: &HeadParams, shape: &Shape, q: usize) -> Result<Self> {
        let matrices = if params.per_channel { params.weight.len / (q * shape.e).max(1) } else { 1 };
        ensure!(
            q > 0 && params.weight.len == matrices * q * shape.e,
            Kind::Internal,
            "a head of {} elements is not {q} levels of {}",
            params.weight.len,
            shape.e
        );
        Ok(Self { q, matrices })
    }

    /// The elements of the matrix for `channel` within the weights.
    fn matrix(&self, shape: &Shape, channel: u32) -> Result<Range<usize>> {
        let which = if self.matrices == 1 { 0 } else { channel as usize };
        let len = self.q * shape.e;
        ensure!(which < self.matrices, Kind::Internal, "channel {channel} has no head among {}", self.matrices);
        Ok(which * len..(which + 1) * len)
    }
}

/// Norm and logits, [`ROWS`] rows at a time.
pub(super) struct Logits<'a> {
    q: usize,
    norm: (&'a [f32], &'a [f32]),
    /// Normalised rows, and the norm's output, [ROWS, E].
    normal: &'a mut [f32],
    normed: &'a mut [f32],
    /// The norm's factors.
    scale: [f32; ROWS],
}

impl<'a> Logits<'a> {
    /// Room that [`Self::new`] takes.
    pub(super) fn lens(e: usize) -> [usize; 2] {
        [ROWS * e; 2]
    }

    /// For heads of `q` levels after this norm.
    pub(super) fn new(q: usize, norm: (&'a [f32], &'a [f32]), room: &mut Cuts<'a>) -> Self {
        let [normal, normed] = Self::lens(norm.0.len()).map(|len| room.take(len));
        Self { q, norm, normal, normed, scale: [0.0; ROWS] }
    }

    /// The logits of the `m` first rows of `x`, [m, Q], with a packed weight.
    #[inline(always)]
    pub(super) fn rows<S: Simd>(&mut self, simd: S, right: &[f32], x: &[f32], m: usize, out: &mut [f32]) {
        let (norm, e) = (self.norm, self.norm.0.len());
        for (row, (x, normal)) in x.chunks_exact(e).zip(self.normal.chunks_exact_mut(e)).take(m).enumerate() {
            self.scale[row] = normalize(simd, x, normal);
            scale_and_shift(simd, normal, norm.0, norm.1, &mut self.normed[row * e..][..e]);
        }
        let (left, onto) = (Matrix::Rows(self.normed, e), Onto::Nothing);
        Product { m, k: e, n: self.q, left, right, onto, out, ld: self.q }.run(simd);
    }
}

/// The loss, and with `backward` the gradients.
#[expect(clippy::too_many_arguments, reason = "one fused stage, forward and backward")]
pub(super) fn loss(
    cpu: &mut Cpu,
    call: &Call,
    params: &HeadParams,
    inputs: &Inputs,
    levels: Tensor,
    x: Tensor,
    scores: Tensor,
    backward: Option<HeadBackward>,
) -> Result<()> {
    let shape = Shape::new(call)?;
    let (e, te, q) = (shape.e, shape.t * shape.e, levels.len);
    let head = Levels::new(params, &shape, q)?;
    let (memory, team) = (&cpu.memory, &cpu.team);
    let (norm_weight, norm_bias) = (memory.floats(params.norm_weight, e)?, memory.floats(params.norm_bias, e)?);
    let weight = memory.read::<f32>(params.weight)?;
    let levels = memory.floats(levels, q)?;
    let tokens = memory.read::<u8>(inputs.token)?;
    let channels = memory.read::<u32>(inputs.channel)?;
    let x = memory.first(x, shape.n * te)?;
    let mut scores = memory.floats_mut(scores, shape.n * Score::LEN)?;
    ensure!(
        tokens.len() == shape.n * (shape.t + 1) && channels.len() == shape.n,
        Kind::Internal,
        "inputs of another shape"
    );
    let most = tokens.iter().copied().max().map_or(0, usize::from);
    ensure!(most < q, Kind::Internal, "token {most} of a vocabulary of {q}");
    for &channel in channels.iter() {
        head.matrix(&shape, channel)?;
    }
    let slots = backward.map(|HeadBackward { grads, .. }| {
        memory.slots(&[(grads.norm_weight, e), (grads.norm_bias, e), (grads.weight, params.weight.len)])
    });
    let mut slots = slots.transpose()?;
    let mut dx = backward.map(|b| memory.first_mut(b.dx, shape.n * te)).transpose()?;

    let all = Loss { shape, q, norm: (&norm_weight, &norm_bias), levels: &levels };
    let mut slot = slots.as_mut().map(|slots| slots.of(call.first));
    let mut dx_of = dx.as_mut().map(|dx| dx.chunks_exact_mut(te));
    let sequences = x.chunks_exact(te).zip(tokens.chunks_exact(shape.t + 1)).zip(channels.iter());
    let jobs = sequences.zip(scores.chunks_exact_mut(Score::LEN)).map(|(((x, tokens), &channel), score)| {
        let grads = slot.as_mut().and_then(Iterator::next).zip(dx_of.as_mut().and_then(Iterator::next));
        (x, tokens, channel, score, grads)
    });
    let weight = &*weight;
    team.each(jobs, |(x, tokens, channel, score, grads), scratch| {
        let matrix = head.matrix(&shape, channel).expect("checked above");
        let back = if grads.is_some() { 1 } else { 0 };
        let lens = [team.packed_len(e, q), back * team.packed_len(q, e), ROWS * q, back * team.packed_len(ROWS, e)];
        let mut room = scratch.cuts(lens.into_iter().chain(Logits::lens(e)));
        let [right, right_backward, logits, packed] = lens.map(|len| room.take(len));
        let columns = team.columns();
        pack(columns, e, q, Matrix::Columns(&weight[matrix.clone()], e), right);
        let backward = grads.zip(backward).map(|((grads, dx), call)| {
            pack(columns, q, e, Matrix::Rows(&weight[matrix.clone()], e), right_backward);
            BackwardOne { call, grads, dx, matrix: matrix.clone(), right: right_backward, packed }
        });
        let head = Logits::new(q, all.norm, &mut room);
        let one = LossOne { all: &all, x, tokens, right, head, logits, backward };
        score.copy_from_slice(&team.arch.dispatch(one));
    });
    Ok(())
}

/// What the sequences of a call share.
struct Loss<'a> {
    shape: Shape,
    q: usize,
    norm: (&'a [f32], &'a [f32]),
    levels: &'a [f32],
}

/// One sequence.
struct LossOne<'a> {
    all: &'a Loss<'a>,
    x: &'a [f32],
    tokens: &'a [u8],
    /// The weight, packed.
    right: &'a [f32],
    head: Logits<'a>,
    /// Logits, then their gradient, [ROWS, Q].
    logits: &'a mut [f32],
    backward: Option<BackwardOne<'a>>,
}

/// What one sequence needs for its backward pass.
struct BackwardOne<'a> {
    call: HeadBackward,
    grads: &'a mut [f32],
    dx: &'a mut [f32],
    /// The sequence's matrix within the weights.
    matrix: Range<usize>,
    right: &'a [f32],
    packed: &'a mut [f32],
}

impl WithSimd for LossOne<'_> {
    type Output = [f32; Score::LEN];

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) -> Self::Output {
        let Loss { shape: Shape { t, from, .. }, .. } = *self.all;
        let weight = self.backward.as_ref().map(|backward| backward.call.weight);
        let mut score = [0.0; Score::LEN];
        for first in (from..t).step_by(ROWS) {
            let m = ROWS.min(t - first);
            self.head.rows(simd, self.right, &self.x[first * self.all.shape.e..], m, self.logits);
            for row in 0..m {
                let logits = &mut self.logits[row * self.all.q..][..self.all.q];
                let target = usize::from(self.tokens[first + row + 1]);
                score_target(simd, logits, target, self.all.levels, weight, &mut score);
            }
            if self.backward.is_some() {
                self.rows_backward(simd, first, m);
            }
        }
        score.map(|sum| sum as f32)
    }
}

impl LossOne<'_> {
    /// The backward pass of `m` rows from the timestep `first` on; `logits` holds their gradient.
    #[inline(always)]
    fn rows_backward<S: Simd>(&mut self, simd: S, first: usize, m: usize) {
        let Loss { shape, q, norm, .. } = *self.all;
        let e = shape.e;
        let Some(backward) = &mut self.backward else { return };
        let grads = &backward.call.grads;

        pack(columns::<S>(), m, e, Matrix::Rows(self.head.normed, e), backward.packed);
        let out = &mut part(backward.grads, grads.weight)[backward.matrix.clone()];
        let (left, onto) = (Matrix::Columns(self.logits, q), Onto::Out);
        Product { m: q, k: m, n: e, left, right: backward.packed, onto, out, ld: e }.run(simd);

        let dx = &mut backward.dx[first * e..][..m * e];
        let (left, onto) = (Matrix::Rows(self.logits, q), Onto::Nothing);
        Product { m, k: q, n: e, left, right: backward.right, onto, out: dx, ld: e }.run(simd);
        let [weight, bias] = parts(backward.grads, [grads.norm_weight, grads.norm_bias]);
        for (row, dx) in dx.chunks_exact_mut(e).enumerate() {
            let normal = &self.head.normal[row * e..][..e];
            normalize_backward(simd, normal, self.head.scale[row], norm.0, dx, weight, bias);
        }
    }
}

/// Adds one target's score; with the `weight` of a backward pass, logits become their gradient,
/// weight · (softmax − one-hot).
#[inline(always)]
pub(super) fn score_target<S: Simd>(
    simd: S,
    row: &mut [f32],
    target: usize,
    levels: &[f32],
    weight: Option<f32>,
    score: &mut [f64; Score::LEN],
) {
    let (before, after) = row.split_at(target);
    let logit = after[0];
    // A tie counts by the lower level.
    let rank =
        before.iter().filter(|&&other| other >= logit).count() + after.iter().filter(|&&other| other > logit).count();
    let best = (1..row.len()).fold(0, |best, level| if row[level] > row[best] { level } else { best });
    // Every comparison with NaN is false, which would make any target the most probable level.
    let finite = row.iter().fold(true, |all, x| all & x.is_finite());
    let (most, sum) = exponentials(simd, row);
    if finite {
        let error = f64::from(levels[best] - levels[target]);
        score[0] += f64::from(sum).ln() + f64::from(most) - f64::from(logit);
        score[1] += f64::from(u8::from(rank == 0));
        score[2] += f64::from(u8::from(rank < 5));
        score[3] += error * error;
    } else {
        (score[0], score[3]) = (f64::NAN, f64::NAN);
    }
    if let Some(weight) = weight {
        let factor = simd.splat_f32s(weight / sum);
        for x in row.chunks_mut(S::F32_LANES) {
            let value = simd.mul_f32s(load(simd, x), factor);
            store(simd, x, value);
        }
        row[target] -= weight;
    }
}

/// The bare logits of timesteps `from ..`.
pub(super) fn bare_logits(
    cpu: &mut Cpu,
    call: &Call,
    params: &HeadParams,
    inputs: &Inputs,
    x: Tensor,
    out: Tensor,
) -> Result<()> {
    let shape = Shape::new(call)?;
    let (e, te) = (shape.e, shape.t * shape.e);
    let q = out.len / (shape.n * shape.rows());
    let head = Levels::new(params, &shape, q)?;
    let (memory, team) = (&cpu.memory, &cpu.team);
    let (norm_weight, norm_bias) = (memory.floats(params.norm_weight, e)?, memory.floats(params.norm_bias, e)?);
    let weight = memory.read::<f32>(params.weight)?;
    let channels = memory.read::<u32>(inputs.channel)?;
    let x = memory.first(x, shape.n * te)?;
    let mut out = memory.floats_mut(out, shape.n * shape.rows() * q)?;
    ensure!(channels.len() == shape.n, Kind::Internal, "inputs of another shape");
    for &channel in channels.iter() {
        head.matrix(&shape, channel)?;
    }
    let (weight, norm) = (&*weight, (&*norm_weight, &*norm_bias));
    let jobs = x.chunks_exact(te).zip(channels.iter()).zip(out.chunks_exact_mut(shape.rows() * q));
    team.each(jobs, |((x, &channel), out), scratch| {
        let matrix = head.matrix(&shape, channel).expect("checked above");
        let mut room = scratch.cuts([team.packed_len(e, q)].into_iter().chain(Logits::lens(e)));
        let right = room.take(team.packed_len(e, q));
        pack(team.columns(), e, q, Matrix::Columns(&weight[matrix], e), right);
        team.arch.dispatch(LogitsOne { shape, right, head: Logits::new(q, norm, &mut room), x, out });
    });
    Ok(())
}

/// One sequence's bare logits.
struct LogitsOne<'a> {
    shape: Shape,
    /// The weight, packed.
    right: &'a [f32],
    head: Logits<'a>,
    x: &'a [f32],
    out: &'a mut [f32],
}

impl WithSimd for LogitsOne<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let Shape { e, from, .. } = self.shape;
        for first in (0..self.shape.rows()).step_by(ROWS) {
            let m = ROWS.min(self.shape.rows() - first);
            let (x, out) = (&self.x[(from + first) * e..], &mut self.out[first * self.head.q..]);
            self.head.rows(simd, self.right, x, m, out);
        }
    }
}
