//! The MLP half-block: x += proj(gelu(fc(norm(x)))), forward [`ROWS`] timesteps at a time and backward [`BACKWARD_ROWS`].

use super::gemm::{Matrix, Onto, Product, columns, pack};
use super::memory::{Cuts, Memory, part, parts};
use super::norm::{normalize, normalize_backward, scale_and_shift};
use super::sequences::Sequences;
use super::team::Team;
use super::vector::{add, add_rows, gelu, gelu_and_slope, load, map, store};
use super::{Cpu, ROWS, Shape};
use crate::device::{Call, MlpParams, Tensor};
use crate::error::Result;
use pulp::{Simd, WithSimd};

/// Timesteps of the backward pass at a time. More than in the forward pass: the weights' gradients, which are as large as the
/// weights, are read and written once for each such group. 256 instead of 64 took 7 to 12 % less time at widths of 96 and
/// 240, with a core's L2 cache of 1 MiB.
const BACKWARD_ROWS: usize = 256;

/// What one sequence keeps for the backward pass (T' = T − from rows).
struct Saved<'a> {
    /// Normalised input, [T', E].
    normal: &'a mut [f32],
    /// GELU's argument, [T', 4E].
    hidden: &'a mut [f32],
    /// The norm's factor, [T'].
    scale: &'a mut [f32],
}

/// Elements that one sequence keeps.
pub(super) fn saved_len(shape: &Shape) -> usize {
    shape.rows() * (5 * shape.e + 1)
}

impl<'a> Saved<'a> {
    fn split(shape: &Shape, all: &'a mut [f32]) -> Self {
        let (normal, all) = all.split_at_mut(shape.rows() * shape.e);
        let (hidden, scale) = all.split_at_mut(shape.rows() * 4 * shape.e);
        Self { normal, hidden, scale }
    }
}

/// The half-block's parameters, the weights packed for products and beside their biases.
pub(super) struct Weights<'a> {
    norm: (&'a [f32], &'a [f32]),
    fc: (&'a [f32], &'a [f32]),
    proj: (&'a [f32], &'a [f32]),
}

impl<'a> Weights<'a> {
    /// Room that [`Self::pack`] takes.
    pub(super) fn lens(team: &Team, e: usize) -> [usize; 6] {
        [team.packed_len(e, 4 * e), team.packed_len(4 * e, e), e, e, 4 * e, e]
    }

    /// Packs the parameters of a half-block of width `e`.
    pub(super) fn pack(
        memory: &Memory,
        team: &Team,
        e: usize,
        params: &MlpParams,
        room: &mut Cuts<'a>,
    ) -> Result<Self> {
        let [fc, proj, norm_weight, norm_bias, fc_bias, proj_bias] = Self::lens(team, e).map(|len| room.take(len));
        team.pack(e, 4 * e, Matrix::Rows(&memory.floats(params.fc_weight, 4 * e * e)?, 4 * e), fc);
        team.pack(4 * e, e, Matrix::Rows(&memory.floats(params.proj_weight, 4 * e * e)?, e), proj);
        norm_weight.copy_from_slice(&memory.floats(params.norm_weight, e)?);
        norm_bias.copy_from_slice(&memory.floats(params.norm_bias, e)?);
        fc_bias.copy_from_slice(&memory.floats(params.fc_bias, 4 * e)?);
        proj_bias.copy_from_slice(&memory.floats(params.proj_bias, e)?);
        Ok(Self { norm: (norm_weight, norm_bias), fc: (fc, fc_bias), proj: (proj, proj_bias) })
    }
}

/// Runs the stage on every sequence of the call.
pub(super) fn forward(cpu: &mut Cpu, call: &Call, params: &MlpParams, x: Tensor, saved: Option<Tensor>) -> Result<()> {
    let shape = Shape::new(call)?;
    let (memory, team, kept) = (&cpu.memory, &cpu.team, saved_len(&shape));
    let weights = &Weights::pack(memory, team, shape.e, params, &mut cpu.packed.cuts(Weights::lens(team, shape.e)))?;
    Sequences { memory, team, shape, kept }.forward(x, saved, |x, saved, scratch| {
        let mut room = scratch.cuts(Forward::lens(&shape));
        team.arch.dispatch(Forward::new(weights, shape, x, saved, &mut room));
    })
}

/// One sequence.
pub(super) struct Forward<'a> {
    shape: Shape,
    weights: &'a Weights<'a>,
    x: &'a mut [f32],
    saved: Saved<'a>,
    /// Rows of the norm's output, [ROWS, E].
    normed: &'a mut [f32],
    /// Rows of GELU's output, [ROWS, 4E].
    active: &'a mut [f32],
}

impl<'a> Forward<'a> {
    /// Room that a sequence is computed in: what it keeps, where nobody else wants that, then its own.
    pub(super) fn lens(shape: &Shape) -> [usize; 3] {
        [saved_len(shape), ROWS * shape.e, ROWS * 4 * shape.e]
    }

    /// The sequence `x`, [T, E]; with `saved` ([`saved_len`] elements) the backward pass can follow.
    pub(super) fn new(
        weights: &'a Weights<'a>,
        shape: Shape,
        x: &'a mut [f32],
        saved: Option<&'a mut [f32]>,
        room: &mut Cuts<'a>,
    ) -> Self {
        let [unsaved, normed, active] = Self::lens(&shape).map(|len| room.take(len));
        let saved = Saved::split(&shape, saved.unwrap_or(unsaved));
        Self { shape, weights, x, saved, normed, active }
    }
}

impl WithSimd for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (shape, &Weights { norm, fc, proj }) = (self.shape, self.weights);
        let e = shape.e;
        let x = &mut self.x[shape.from * e..];
        for first in (0..shape.rows()).step_by(ROWS) {
            let m = ROWS.min(shape.rows() - first);
            let x = &mut x[first * e..][..m * e];
            for (row, x) in x.chunks_exact(e).enumerate() {
                let normal = &mut self.saved.normal[(first + row) * e..][..e];
                self.saved.scale[first + row] = normalize(simd, x, normal);
                scale_and_shift(simd, normal, norm.0, norm.1, &mut self.normed[row * e..][..e]);
            }
            let hidden = &mut self.saved.hidden[first * 4 * e..][..m * 4 * e];
            let (left, onto) = (Matrix::Rows(self.normed, e), Onto::Bias(fc.1));
            Product { m, k: e, n: 4 * e, left, right: fc.0, onto, out: hidden, ld: 4 * e }.run(simd);
            map(simd, hidden, self.active, |x| gelu(simd, x));
            let (left, onto) = (Matrix::Rows(self.active, 4 * e), Onto::OutAndBias(proj.1));
            Product { m, k: 4 * e, n: e, left, right: proj.0, onto, out: x, ld: e }.run(simd);
        }
    }
}

/// Runs the backward stage on every sequence of the call.
pub(super) fn backward(
    cpu: &mut Cpu,
    call: &Call,
    params: &MlpParams,
    grads: &MlpParams,
    saved: Tensor,
    dx: Tensor,
) -> Result<()> {
    let shape = Shape::new(call)?;
    let (e, memory, team, kept) = (shape.e, &cpu.memory, &cpu.team, saved_len(&shape));
    let (norm_weight, norm_bias) = (memory.floats(params.norm_weight, e)?, memory.floats(params.norm_bias, e)?);
    let fc_weight = memory.floats(params.fc_weight, 4 * e * e)?;
    let proj_weight = memory.floats(params.proj_weight, 4 * e * e)?;
    let [fc, proj] = cpu.packed.split([team.packed_len(4 * e, e), team.packed_len(e, 4 * e)]);
    team.pack(4 * e, e, Matrix::Columns(&fc_weight, 4 * e), fc);
    team.pack(e, 4 * e, Matrix::Columns(&proj_weight, e), proj);
    let backward = Backward { shape, grads, norm: (&norm_weight, &norm_bias), fc, proj };

    let lens = [
        (grads.norm_weight, e),
        (grads.norm_bias, e),
        (grads.fc_weight, 4 * e * e),
        (grads.fc_bias, 4 * e),
        (grads.proj_weight, 4 * e * e),
        (grads.proj_bias, e),
    ];
    let sequences = Sequences { memory, team, shape, kept };
    sequences.backward(call.first, dx, saved, &lens, |dx, saved, grads, scratch| {
        let [normed, active, gradient, packed] = scratch.split([
            BACKWARD_ROWS * e,
            BACKWARD_ROWS * 4 * e,
            BACKWARD_ROWS * 4 * e,
            team.packed_len(BACKWARD_ROWS, 4 * e),
        ]);
        let saved = Saved::split(&shape, saved);
        team.arch.dispatch(BackwardOne { all: &backward, dx, saved, grads, normed, active, gradient, packed });
    })
}

/// What the sequences of a call share. Weights are packed, transposed.
struct Backward<'a> {
    shape: Shape,
    grads: &'a MlpParams,
    norm: (&'a [f32], &'a [f32]),
    fc: &'a [f32],
    proj: &'a [f32],
}

/// One sequence.
struct BackwardOne<'a> {
    all: &'a Backward<'a>,
    dx: &'a mut [f32],
    saved: Saved<'a>,
    /// The sequence's slot of the gradients.
    grads: &'a mut [f32],
    /// Rows of the norm's output, then of its gradient, [BACKWARD_ROWS, E].
    normed: &'a mut [f32],
    /// Rows of GELU's output, [BACKWARD_ROWS, 4E].
    active: &'a mut [f32],
    /// Gradient of those, then of GELU's argument, [BACKWARD_ROWS, 4E].
    gradient: &'a mut [f32],
    /// Right-hand sides of the products that give weight gradients.
    packed: &'a mut [f32],
}

impl WithSimd for BackwardOne<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let rows = self.all.shape.rows();
        for first in (0..rows).step_by(BACKWARD_ROWS) {
            self.rows(simd, first, BACKWARD_ROWS.min(rows - first));
        }
    }
}

impl BackwardOne<'_> {
    /// `m` timesteps from `from + first` on.
    #[inline(always)]
    fn rows<S: Simd>(&mut self, simd: S, first: usize, m: usize) {
        let Backward { shape, grads, norm, fc, proj } = *self.all;
        let (e, columns) = (shape.e, columns::<S>());
        let dx = &mut self.dx[(shape.from + first) * e..][..m * e];
        let normal = &self.saved.normal[first * e..][..m * e];
        let hidden = &self.saved.hidden[first * 4 * e..][..m * 4 * e];

        let (left, out, onto) = (Matrix::Rows(dx, e), &mut *self.gradient, Onto::Nothing);
        Product { m, k: e, n: 4 * e, left, right: proj, onto, out, ld: 4 * e }.run(simd);
        let vectors = hidden.chunks(S::F32_LANES).zip(self.active.chunks_mut(S::F32_LANES));
        for ((hidden, active), gradient) in vectors.zip(self.gradient.chunks_mut(S::F32_LANES)) {
            let (value, slope) = gelu_and_slope(simd, load(simd, hidden));
            store(simd, active, value);
            let value = simd.mul_f32s(load(simd, gradient), slope);
            store(simd, gradient, value);
        }

        pack(columns, m, e, Matrix::Rows(dx, e), self.packed);
        let (left, out) = (Matrix::Columns(self.active, 4 * e), part(self.grads, grads.proj_weight));
        Product { m: 4 * e, k: m, n: e, left, right: self.packed, onto: Onto::Out, out, ld: e }.run(simd);
        add_rows(simd, m, e, dx, e, part(self.grads, grads.proj_bias));

        for (normal, y) in normal.chunks_exact(e).zip(self.normed.chunks_exact_mut(e)) {
            scale_and_shift(simd, normal, norm.0, norm.1, y);
        }
        pack(columns, m, 4 * e, Matrix::Rows(self.gradient, 4 * e), self.packed);
        let (left, out) = (Matrix::Columns(self.normed, e), part(self.grads, grads.fc_weight));
        Product { m: e, k: m, n: 4 * e, left, right: self.packed, onto: Onto::Out, out, ld: 4 * e }.run(simd);
        add_rows(simd, m, 4 * e, self.gradient, 4 * e, part(self.grads, grads.fc_bias));

        let (left, out) = (Matrix::Rows(self.gradient, 4 * e), &mut *self.normed);
        Product { m, k: 4 * e, n: e, left, right: fc, onto, out, ld: e }.run(simd);
        let [weight, bias] = parts(self.grads, [grads.norm_weight, grads.norm_bias]);
        for (row, dx) in dx.chunks_exact_mut(e).enumerate() {
            let (normal, dy) = (&normal[row * e..][..e], &mut self.normed[row * e..][..e]);
            normalize_backward(simd, normal, self.saved.scale[first + row], norm.0, dy, weight, bias);
            add(simd, dy, dx);
        }
    }
}
