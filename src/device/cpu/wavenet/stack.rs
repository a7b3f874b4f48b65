//! Tables and layers, forward.

use super::super::gemm::{Matrix, Onto, Product};
use super::super::memory::{Cuts, Memory};
use super::super::team::Team;
use super::super::vector::{gates, load, store};
use super::super::{Cpu, ROWS};
use super::{Batch, Place, Sequence, Shape};
use crate::device::wavenet::StackParams;
use crate::device::{Call, Inputs, Tensor};
use crate::error::Result;
use crate::model::wavenet::WavenetConfig;
use pulp::{Simd, WithSimd};
use std::cell::Ref;

/// The tables, as they lie in memory.
pub(super) struct Tables<'a> {
    pub(super) token: Ref<'a, [f32]>,
    pub(super) condition: Ref<'a, [f32]>,
    pub(super) subject: Ref<'a, [f32]>,
}

impl<'a> Tables<'a> {
    pub(super) fn new(memory: &'a Memory, config: &WavenetConfig, params: &StackParams) -> Result<Self> {
        let &WavenetConfig { n_channel, n_level, n_condition, n_subject, d_token, d_condition, d_subject, .. } = config;
        Ok(Self {
            token: memory.floats(params.token, n_channel * n_level * d_token)?,
            condition: memory.floats(params.condition, (n_condition + 1) * d_condition)?,
            subject: memory.floats(params.subject, n_subject * d_subject)?,
        })
    }
}

/// One layer's weights: packed for products, but for `local`.
struct Layer<'a> {
    /// The earlier tap, then the later one; the first layer has only the later one.
    taps: [&'a [f32]; 2],
    /// [Z, 2E].
    local: &'a [f32],
    res: &'a [f32],
    skip: &'a [f32],
}

/// The stack's weights.
pub(super) struct Weights<'a> {
    e: usize,
    f: usize,
    layers: Vec<Layer<'a>>,
    /// The first layer's input to the residual stream, packed.
    input: &'a [f32],
    /// The first layer's: of its gates (the convolution's and the condition's), residual (that and the input's), skip.
    gate_bias: &'a [f32],
    res_bias: &'a [f32],
    input_bias: &'a [f32],
    skip_bias: &'a [f32],
}

impl<'a> Weights<'a> {
    /// Room that a layer and then the rest take.
    fn lens(team: &Team, shape: &Shape) -> ([usize; 5], [usize; 5]) {
        let &Shape { e, f, s, .. } = shape;
        let tap = team.packed_len(e.max(f), 2 * e);
        let layer =
            [tap, tap, (shape.d_condition + shape.d_subject) * 2 * e, team.packed_len(e, e), team.packed_len(e, s)];
        (layer, [team.packed_len(f, e), 2 * e, e, e, s])
    }

    /// All of them.
    pub(super) fn room(team: &Team, shape: &Shape) -> impl Iterator<Item = usize> + use<> {
        let (layer, rest) = Self::lens(team, shape);
        (0..shape.layers.len()).flat_map(move |_| layer).chain(rest)
    }

    pub(super) fn pack(
        memory: &Memory,
        team: &Team,
        shape: &Shape,
        params: &StackParams,
        room: &mut Cuts<'a>,
    ) -> Result<Self> {
        let &Shape { e, f, s, .. } = shape;
        let z = shape.d_condition + shape.d_subject;
        let (layer_lens, rest) = Self::lens(team, shape);
        let mut layers = Vec::with_capacity(params.layers.len());
        for (number, layer) in params.layers.iter().enumerate() {
            let [early, late, local, res, skip] = layer_lens.map(|len| room.take(len));
            let n_in = if number == 0 { f } else { e };
            let n_tap = if number == 0 { 1 } else { 2 };
            let conv = memory.floats(layer.conv, n_tap * n_in * 2 * e)?;
            let len = team.packed_len(n_in, 2 * e);
            team.pack(n_in, 2 * e, Matrix::Rows(&conv[(n_tap - 1) * n_in * 2 * e..], 2 * e), &mut late[..len]);
            if n_tap == 2 {
                team.pack(n_in, 2 * e, Matrix::Rows(&conv, 2 * e), &mut early[..len]);
            }
            local.copy_from_slice(&memory.floats(layer.local, z * 2 * e)?);
            team.pack(e, e, Matrix::Rows(&memory.floats(layer.res, e * e)?, e), res);
            team.pack(e, s, Matrix::Rows(&memory.floats(layer.skip, e * s)?, s), skip);
            layers.push(Layer { taps: [early, late], local, res, skip });
        }
        let [input, gate_bias, res_bias, input_bias, skip_bias] = rest.map(|len| room.take(len));
        let first = &params.first;
        team.pack(f, e, Matrix::Rows(&memory.floats(first.input, f * e)?, e), input);
        let (conv, local) = (memory.floats(first.conv_bias, 2 * e)?, memory.floats(first.local_bias, 2 * e)?);
        gate_bias.iter_mut().zip(conv.iter().zip(local.iter())).for_each(|(sum, (a, b))| *sum = a + b);
        res_bias.copy_from_slice(&memory.floats(first.res_bias, e)?);
        input_bias.copy_from_slice(&memory.floats(first.input_bias, e)?);
        skip_bias.copy_from_slice(&memory.floats(first.skip_bias, s)?);
        Ok(Self { e, f, layers, input, gate_bias, res_bias, input_bias, skip_bias })
    }

    /// Width of a layer's input.
    fn width(&self, layer: usize) -> usize {
        if layer == 0 { self.f } else { self.e }
    }

    /// What a layer's gates begin with, [2E]: its bias, and what the condition and the subject add.
    #[inline(always)]
    pub(super) fn local<S: Simd>(&self, simd: S, layer: usize, condition: &[f32], subject: &[f32], out: &mut [f32]) {
        let width = 2 * self.e;
        if layer == 0 {
            out.copy_from_slice(self.gate_bias);
        } else {
            out.fill(0.0);
        }
        let rows = self.layers[layer].local.chunks_exact(width);
        // The condition 0 has no embedding: its rows are passed over.
        let skipped = rows.len() - condition.len() - subject.len();
        let embedding = condition.iter().chain(subject);
        for (row, &factor) in rows.skip(skipped).zip(embedding) {
            let factor = simd.splat_f32s(factor);
            for (x, out) in row.chunks(S::F32_LANES).zip(out.chunks_mut(S::F32_LANES)) {
                let value = simd.mul_add_e_f32s(load(simd, x), factor, load(simd, out));
                store(simd, out, value);
            }
        }
    }

    /// gates (`m` rows [2E]) += one tap of the convolution of rows [F or E] at `input`.
    #[inline(always)]
    pub(super) fn tap<S: Simd>(&self, simd: S, layer: usize, tap: usize, input: &[f32], m: usize, out: &mut [f32]) {
        let (k, n, right) = (self.width(layer), 2 * self.e, self.layers[layer].taps[tap]);
        let left = Matrix::Rows(input, k);
        Product { m, k, n, left, right, onto: Onto::Out, out, ld: n }.run(simd);
    }

    /// skips (`m` rows [S]) += skip(h), or = in the first layer.
    #[inline(always)]
    pub(super) fn skip<S: Simd>(&self, simd: S, layer: usize, h: &[f32], m: usize, out: &mut [f32]) {
        let (k, n, right) = (self.e, self.skip_bias.len(), self.layers[layer].skip);
        let onto = if layer == 0 { Onto::Bias(self.skip_bias) } else { Onto::Out };
        Product { m, k, n, left: Matrix::Rows(h, k), right, onto, out, ld: n }.run(simd);
    }

    /// out (`m` rows [E]) = the layer's input + res(h); in the first layer the input is mapped onto that width.
    #[inline(always)]
    pub(super) fn residual<S: Simd>(&self, simd: S, layer: usize, input: &[f32], h: &[f32], m: usize, out: &mut [f32]) {
        let (k, e) = (self.width(layer), self.e);
        let mut onto = Onto::Out;
        if layer == 0 {
            let (left, onto_bias) = (Matrix::Rows(input, k), Onto::Bias(self.input_bias));
            Product { m, k, n: e, left, right: self.input, onto: onto_bias, out, ld: e }.run(simd);
            onto = Onto::OutAndBias(self.res_bias);
        } else {
            out[..m * e].copy_from_slice(&input[..m * e]);
        }
        let (left, right) = (Matrix::Rows(h, e), self.layers[layer].res);
        Product { m, k: e, n: e, left, right, onto, out, ld: e }.run(simd);
    }
}

/// Runs the stage on every sequence of the call.
pub(super) fn forward(
    cpu: &mut Cpu,
    config: &WavenetConfig,
    call: &Call,
    params: &StackParams,
    inputs: &Inputs,
    skips: Tensor,
    saved: Option<Tensor>,
) -> Result<()> {
    let shape = &Shape::new(config, call)?;
    let (memory, team) = (&cpu.memory, &cpu.team);
    let batch = Batch::new(memory, config, shape, inputs)?;
    let tables = Tables::new(memory, config, params)?;
    let weights = &Weights::pack(memory, team, shape, params, &mut cpu.packed.cuts(Weights::room(team, shape)))?;
    let skip_len = shape.rows() * shape.s;
    let mut skips = memory.first_mut(skips, shape.n * skip_len)?;
    let mut saved = saved.map(|saved| memory.first_mut(saved, shape.n * shape.kept)).transpose()?;
    let mut saved = saved.as_mut().map(|saved| saved.chunks_exact_mut(shape.kept));
    let jobs = batch.sequences(shape.t).zip(skips.chunks_exact_mut(skip_len));
    let jobs = jobs.map(|(sequence, skips)| (sequence, skips, saved.as_mut().and_then(Iterator::next)));
    let (token, condition, subject) = (&*tables.token, &*tables.condition, &*tables.subject);
    team.each(jobs, |(sequence, skips, saved), scratch| {
        let mut room = scratch.cuts([shape.kept].into_iter().chain(Forward::lens(shape)));
        let unsaved = room.take(shape.kept);
        let rows = Rows { shape, token, condition, subject, sequence };
        let kept = saved.unwrap_or(unsaved);
        team.arch.dispatch(&mut Forward::new(weights, rows, kept, skips, &mut room));
    });
    Ok(())
}

/// A sequence's rows of the tables.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    pub(super) shape: &'a Shape,
    pub(super) token: &'a [f32],
    pub(super) condition: &'a [f32],
    pub(super) subject: &'a [f32],
    pub(super) sequence: Sequence<'a>,
}

impl<'a> Rows<'a> {
    /// Where a token's row lies in its table.
    pub(super) fn token_at(&self, token: u8) -> usize {
        (self.sequence.channel * self.shape.q + usize::from(token)) * self.shape.f
    }

    /// The rows of `m` timesteps, [m, F].
    pub(super) fn gather(&self, first: usize, m: usize, out: &mut [f32]) {
        let f = self.shape.f;
        for (row, &token) in out.chunks_exact_mut(f).zip(&self.sequence.token[first..][..m]) {
            row.copy_from_slice(&self.token[self.token_at(token)..][..f]);
        }
    }

    /// The embedding of a condition: nothing for 0.
    pub(super) fn condition(&self, condition: u16) -> &'a [f32] {
        let width = if condition > 0 { self.shape.d_condition } else { 0 };
        &self.condition[usize::from(condition) * self.shape.d_condition..][..width]
    }

    /// The embedding of the sequence's subject.
    pub(super) fn subject(&self) -> &'a [f32] {
        &self.subject[self.sequence.subject * self.shape.d_subject..][..self.shape.d_subject]
    }
}

/// One sequence.
pub(super) struct Forward<'a> {
    weights: &'a Weights<'a>,
    rows: Rows<'a>,
    /// Each layer's output and gates: see [`Shape::parts`].
    pub(super) kept: &'a mut [f32],
    /// [T', S].
    skips: &'a mut [f32],
    /// [ROWS, E], [ROWS, F], [2E].
    h: &'a mut [f32],
    input: &'a mut [f32],
    local: &'a mut [f32],
}

impl<'a> Forward<'a> {
    /// Room that a sequence is computed in, besides what it keeps.
    pub(super) fn lens(shape: &Shape) -> [usize; 3] {
        [ROWS * shape.e, ROWS * shape.f, 2 * shape.e]
    }

    pub(super) fn new(
        weights: &'a Weights<'a>,
        rows: Rows<'a>,
        kept: &'a mut [f32],
        skips: &'a mut [f32],
        room: &mut Cuts<'a>,
    ) -> Self {
        let [h, input, local] = Self::lens(rows.shape).map(|len| room.take(len));
        Self { weights, rows, kept, skips, h, input, local }
    }

    #[inline(always)]
    fn layer<S: Simd>(&mut self, simd: S, layer: usize) {
        let (rows, weights) = (self.rows, self.weights);
        let &Shape { t, e, s, from, .. } = rows.shape;
        let Place { dilation, start, .. } = rows.shape.layers[layer];
        let (before, x, gates_of) = rows.shape.parts(layer, self.kept);
        let mut conditioned = None;
        for first in (start..t).step_by(ROWS) {
            let m = ROWS.min(t - first);
            let gate = &mut gates_of[(first - start) * 2 * e..][..m * 2 * e];
            for (row, &condition) in gate.chunks_exact_mut(2 * e).zip(&rows.sequence.condition[first..]) {
                if conditioned != Some(condition) {
                    conditioned = Some(condition);
                    weights.local(simd, layer, rows.condition(condition), rows.subject(), self.local);
                }
                row.copy_from_slice(self.local);
            }
            let input = if layer == 0 {
                rows.gather(first, m, self.input);
                weights.tap(simd, layer, 1, self.input, m, gate);
                &*self.input
            } else {
                // The layer's input begins `dilation` timesteps before the layer.
                let late = &before[(first - start + dilation) * e..];
                weights.tap(simd, layer, 0, &before[(first - start) * e..], m, gate);
                weights.tap(simd, layer, 1, late, m, gate);
                late
            };
            for (gate, h) in gate.chunks_exact_mut(2 * e).zip(self.h.chunks_exact_mut(e)) {
                gates(simd, gate, h);
            }
            let unread = from.saturating_sub(first).min(m);
            if unread < m {
                let skips = &mut self.skips[(first + unread - from) * s..];
                weights.skip(simd, layer, &self.h[unread * e..], m - unread, skips);
            }
            if !rows.shape.is_last(layer) {
                let out = &mut x[(first - start) * e..];
                weights.residual(simd, layer, input, self.h, m, out);
            }
        }
    }
}

impl WithSimd for &mut Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        for layer in 0..self.rows.shape.layers.len() {
            self.layer(simd, layer);
        }
    }
}
