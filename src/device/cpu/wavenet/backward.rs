//! Tables and layers, backward.
//!
//! Layers are gone through from the last to the first, each in ascending tiles. A tile reads the gradient of its own
//! output, then adds to that of its input, in the same buffer: at its own timesteps, and `dilation` earlier, where all
//! earlier tiles have been read by then.

use super::super::gemm::{Matrix, Onto, Product, columns, pack};
use super::super::memory::{Cuts, Memory, part};
use super::super::team::Team;
use super::super::vector::{add, add_rows, dot, load, store};
use super::super::{Cpu, ROWS};
use super::stack::{Rows, Tables};
use super::{Batch, Place, Shape};
use crate::device::wavenet::StackParams;
use crate::device::{Call, Inputs, Tensor};
use crate::error::Result;
use crate::model::wavenet::WavenetConfig;
use pulp::{Simd, WithSimd};

/// One layer's weights, transposed and packed, but for `local`.
struct Layer<'a> {
    /// The earlier tap, then the later one; the first layer has only the later one.
    taps: [&'a [f32]; 2],
    /// [Z, 2E].
    local: &'a [f32],
    res: &'a [f32],
    skip: &'a [f32],
}

/// What the sequences of a call share.
struct Weights<'a> {
    layers: Vec<Layer<'a>>,
    input: &'a [f32],
}

impl<'a> Weights<'a> {
    /// Room that a layer takes, and the first layer's input.
    fn lens(team: &Team, shape: &Shape) -> ([usize; 5], usize) {
        let &Shape { e, f, s, .. } = shape;
        let tap = team.packed_len(2 * e, e.max(f));
        let z = shape.d_condition + shape.d_subject;
        ([tap, tap, z * 2 * e, team.packed_len(e, e), team.packed_len(s, e)], team.packed_len(e, f))
    }

    fn room(team: &Team, shape: &Shape) -> impl Iterator<Item = usize> + use<> {
        let (layer, input) = Self::lens(team, shape);
        (0..shape.layers.len()).flat_map(move |_| layer).chain([input])
    }

    fn pack(memory: &Memory, team: &Team, shape: &Shape, params: &StackParams, room: &mut Cuts<'a>) -> Result<Self> {
        let &Shape { e, f, s, .. } = shape;
        let z = shape.d_condition + shape.d_subject;
        let (layer_lens, input_len) = Self::lens(team, shape);
        let mut layers = Vec::with_capacity(params.layers.len());
        for (number, layer) in params.layers.iter().enumerate() {
            let [early, late, local, res, skip] = layer_lens.map(|len| room.take(len));
            let (n_tap, n_in) = if number == 0 { (1, f) } else { (2, e) };
            let conv = memory.floats(layer.conv, n_tap * n_in * 2 * e)?;
            let len = team.packed_len(2 * e, n_in);
            team.pack(2 * e, n_in, Matrix::Columns(&conv[(n_tap - 1) * n_in * 2 * e..], 2 * e), &mut late[..len]);
            if n_tap == 2 {
                team.pack(2 * e, n_in, Matrix::Columns(&conv, 2 * e), &mut early[..len]);
            }
            local.copy_from_slice(&memory.floats(layer.local, z * 2 * e)?);
            team.pack(e, e, Matrix::Columns(&memory.floats(layer.res, e * e)?, e), res);
            team.pack(s, e, Matrix::Columns(&memory.floats(layer.skip, e * s)?, s), skip);
            layers.push(Layer { taps: [early, late], local, res, skip });
        }
        let input = room.take(input_len);
        team.pack(e, f, Matrix::Columns(&memory.floats(params.first.input, f * e)?, e), input);
        Ok(Self { layers, input })
    }
}

/// Every parameter's gradient with the length it must have.
fn lens(config: &WavenetConfig, grads: &StackParams) -> Vec<(Tensor, usize)> {
    let &WavenetConfig { d_model: e, d_skip: s, d_token: f, .. } = config;
    let mut all = vec![
        (grads.token, config.n_channel * config.n_level * f),
        (grads.condition, (config.n_condition + 1) * config.d_condition),
        (grads.first.input, f * e),
        (grads.first.conv_bias, 2 * e),
        (grads.first.local_bias, 2 * e),
        (grads.first.res_bias, e),
        (grads.first.skip_bias, s),
        (grads.first.input_bias, e),
    ];
    if config.d_subject > 0 {
        all.push((grads.subject, config.n_subject * config.d_subject));
    }
    for (number, layer) in grads.layers.iter().enumerate() {
        let conv = if number == 0 { f * 2 * e } else { 2 * e * 2 * e };
        all.extend([
            (layer.conv, conv),
            (layer.local, config.d_local() * 2 * e),
            (layer.res, e * e),
            (layer.skip, e * s),
        ]);
    }
    all
}

/// Runs the stage on every sequence of the call.
#[expect(clippy::too_many_arguments, reason = "a stage's tensors, forward and backward")]
pub(super) fn backward(
    cpu: &mut Cpu,
    config: &WavenetConfig,
    call: &Call,
    params: &StackParams,
    grads: &StackParams,
    inputs: &Inputs,
    saved: Tensor,
    dskips: Tensor,
) -> Result<()> {
    let shape = &Shape::new(config, call)?;
    let (memory, team) = (&cpu.memory, &cpu.team);
    let batch = Batch::new(memory, config, shape, inputs)?;
    let tables = Tables::new(memory, config, params)?;
    let weights = &Weights::pack(memory, team, shape, params, &mut cpu.packed.cuts(Weights::room(team, shape)))?;
    let skip_len = shape.rows() * shape.s;
    let dskips = memory.first(dskips, shape.n * skip_len)?;
    let mut saved = memory.first_mut(saved, shape.n * shape.kept)?;
    let mut slots = memory.slots(&lens(config, grads))?;
    let jobs = batch.sequences(shape.t).zip(dskips.chunks_exact(skip_len));
    let jobs = jobs.zip(saved.chunks_exact_mut(shape.kept)).zip(slots.of(call.first));
    let (token, condition, subject) = (&*tables.token, &*tables.condition, &*tables.subject);
    team.each(jobs, |(((sequence, dskips), kept), slot), scratch| {
        let rows = Rows { shape, token, condition, subject, sequence };
        let lens = Backward::lens(team, shape);
        let [dx, h, dh, gradient, input, sum, packed, dlocal] = scratch.split(lens);
        let one =
            Backward { weights, grads, rows, kept, dskips, slot, dx, h, dh, gradient, input, sum, packed, dlocal };
        team.arch.dispatch(one);
    });
    Ok(())
}

/// One sequence.
struct Backward<'a> {
    weights: &'a Weights<'a>,
    grads: &'a StackParams,
    rows: Rows<'a>,
    kept: &'a mut [f32],
    /// [T', S].
    dskips: &'a [f32],
    /// The sequence's slot of the gradients.
    slot: &'a mut [f32],
    /// Gradient of the residual stream from the first layer's first timestep on.
    dx: &'a mut [f32],
    /// Rows of gate times filter, and their gradient, [ROWS, E].
    h: &'a mut [f32],
    dh: &'a mut [f32],
    /// Gradient of the gates' arguments, [ROWS, 2E].
    gradient: &'a mut [f32],
    /// The first layer's input, then its gradient, [ROWS, F].
    input: &'a mut [f32],
    /// Of the gates' arguments, over timesteps with the same condition, [2E].
    sum: &'a mut [f32],
    /// Right-hand sides of the products that give weight gradients.
    packed: &'a mut [f32],
    /// Gradient of the subject's embedding.
    dlocal: &'a mut [f32],
}

impl WithSimd for Backward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        self.dx.fill(0.0);
        self.dlocal.fill(0.0);
        let kept = std::mem::take(&mut self.kept);
        for layer in (0..self.rows.shape.layers.len()).rev() {
            self.layer(simd, layer, kept);
        }
        let (d_subject, subject) = (self.rows.shape.d_subject, self.rows.sequence.subject);
        if d_subject > 0 {
            add(simd, self.dlocal, &mut part(self.slot, self.grads.subject)[subject * d_subject..][..d_subject]);
        }
    }
}

impl Backward<'_> {
    /// Room that a sequence is computed in.
    fn lens(team: &Team, shape: &Shape) -> [usize; 8] {
        let &Shape { e, f, s, t, .. } = shape;
        let widest = s.max(2 * e);
        let stream = (t - shape.layers[0].start) * e;
        let packed = team.packed_len(ROWS, widest);
        [stream, ROWS * e, ROWS * e, ROWS * 2 * e, ROWS * f, 2 * e, packed, shape.d_subject]
    }

    #[inline(always)]
    fn layer<S: Simd>(&mut self, simd: S, layer: usize, kept: &mut [f32]) {
        let &Shape { t, .. } = self.rows.shape;
        let start = self.rows.shape.layers[layer].start;
        self.sum.fill(0.0);
        for first in (start..t).step_by(ROWS) {
            self.tile(simd, layer, kept, first, ROWS.min(t - first));
        }
        self.flush(simd, layer, self.rows.sequence.condition[t - 1]);
    }

    /// `m` timesteps from `first` on.
    #[inline(always)]
    fn tile<S: Simd>(&mut self, simd: S, layer: usize, kept: &mut [f32], first: usize, m: usize) {
        let (rows, weights, grads) = (self.rows, self.weights, self.grads);
        let &Shape { e, f, s, from, .. } = rows.shape;
        let Place { dilation, start, .. } = rows.shape.layers[layer];
        let (columns, of_layer) = (columns::<S>(), &grads.layers[layer]);
        let (before, _, gates) = rows.shape.parts(layer, kept);
        let gates = &gates[(first - start) * 2 * e..][..m * 2 * e];
        let here = (first - rows.shape.layers[0].start) * e;

        for (gate, h) in gates.chunks_exact(2 * e).zip(self.h.chunks_exact_mut(e)) {
            let (filter, gate) = gate.split_at(e);
            let lanes = filter.chunks(S::F32_LANES).zip(gate.chunks(S::F32_LANES));
            for ((filter, gate), h) in lanes.zip(h.chunks_mut(S::F32_LANES)) {
                let value = simd.mul_f32s(load(simd, filter), load(simd, gate));
                store(simd, h, value);
            }
        }
        self.dh[..m * e].fill(0.0);
        let dx = &self.dx[here..][..m * e];
        if !rows.shape.is_last(layer) {
            let (left, right, onto) = (Matrix::Rows(dx, e), weights.layers[layer].res, Onto::Out);
            Product { m, k: e, n: e, left, right, onto, out: self.dh, ld: e }.run(simd);
            pack(columns, m, e, Matrix::Rows(dx, e), self.packed);
            let (left, out) = (Matrix::Columns(self.h, e), part(self.slot, of_layer.res));
            Product { m: e, k: m, n: e, left, right: self.packed, onto: Onto::Out, out, ld: e }.run(simd);
        }
        let unread = from.saturating_sub(first).min(m);
        if unread < m {
            let read = m - unread;
            let dskips = &self.dskips[(first + unread - from) * s..][..read * s];
            let (left, right, out) = (Matrix::Rows(dskips, s), weights.layers[layer].skip, &mut self.dh[unread * e..]);
            Product { m: read, k: s, n: e, left, right, onto: Onto::Out, out, ld: e }.run(simd);
            pack(columns, read, s, Matrix::Rows(dskips, s), self.packed);
            let (left, out) = (Matrix::Columns(&self.h[unread * e..], e), part(self.slot, of_layer.skip));
            Product { m: e, k: read, n: s, left, right: self.packed, onto: Onto::Out, out, ld: s }.run(simd);
            if layer == 0 {
                add_rows(simd, read, s, dskips, s, part(self.slot, grads.first.skip_bias));
            }
        }

        self.gates_backward(simd, layer, first, gates);
        let dx = &mut self.dx[..here + m * e];
        pack(columns, m, 2 * e, Matrix::Rows(self.gradient, 2 * e), self.packed);
        if layer > 0 {
            let conv = part(self.slot, of_layer.conv);
            for (tap, back) in [(0, dilation), (1, 0)] {
                let input = &before[(first - start + dilation - back) * e..];
                let (left, out) = (Matrix::Columns(input, e), &mut conv[tap * e * 2 * e..]);
                let (right, onto) = (&*self.packed, Onto::Out);
                Product { m: e, k: m, n: 2 * e, left, right, onto, out, ld: 2 * e }.run(simd);
                let (left, right) = (Matrix::Rows(self.gradient, 2 * e), weights.layers[layer].taps[tap]);
                let out = &mut dx[here - back * e..];
                Product { m, k: 2 * e, n: e, left, right, onto: Onto::Out, out, ld: e }.run(simd);
            }
            return;
        }
        rows.gather(first, m, self.input);
        let (left, out) = (Matrix::Columns(self.input, f), part(self.slot, of_layer.conv));
        Product { m: f, k: m, n: 2 * e, left, right: self.packed, onto: Onto::Out, out, ld: 2 * e }.run(simd);
        let dx = &dx[here..];
        pack(columns, m, e, Matrix::Rows(dx, e), self.packed);
        let (left, out) = (Matrix::Columns(self.input, f), part(self.slot, grads.first.input));
        Product { m: f, k: m, n: e, left, right: self.packed, onto: Onto::Out, out, ld: e }.run(simd);
        add_rows(simd, m, e, dx, e, part(self.slot, grads.first.input_bias));
        add_rows(simd, m, e, dx, e, part(self.slot, grads.first.res_bias));
        let (left, right) = (Matrix::Rows(self.gradient, 2 * e), weights.layers[0].taps[1]);
        Product { m, k: 2 * e, n: f, left, right, onto: Onto::Nothing, out: self.input, ld: f }.run(simd);
        let (left, right) = (Matrix::Rows(dx, e), weights.input);
        Product { m, k: e, n: f, left, right, onto: Onto::Out, out: self.input, ld: f }.run(simd);
        let table = part(self.slot, grads.token);
        for (row, &token) in self.input.chunks_exact(f).zip(&rows.sequence.token[first..][..m]) {
            add(simd, row, &mut table[rows.token_at(token)..][..f]);
        }
    }

    /// From dh and the gates to the gradient of the gates' arguments, which is also that of what conditions the layer.
    #[inline(always)]
    fn gates_backward<S: Simd>(&mut self, simd: S, layer: usize, first: usize, gates: &[f32]) {
        let (e, one) = (self.rows.shape.e, simd.splat_f32s(1.0));
        let condition = self.rows.sequence.condition;
        for row in 0..gates.len() / (2 * e) {
            let (filter, gate) = gates[row * 2 * e..][..2 * e].split_at(e);
            let (to_filter, to_gate) = self.gradient[row * 2 * e..][..2 * e].split_at_mut(e);
            for at in (0..e).step_by(S::F32_LANES) {
                let end = e.min(at + S::F32_LANES);
                let dh = load(simd, &self.dh[row * e..][at..end]);
                let (a, b) = (load(simd, &filter[at..end]), load(simd, &gate[at..end]));
                // tanh' = 1 − tanh², σ' = σ(1 − σ).
                let through = simd.mul_f32s(dh, b);
                let value = simd.mul_f32s(through, simd.sub_f32s(one, simd.mul_f32s(a, a)));
                store(simd, &mut to_filter[at..end], value);
                let value = simd.mul_f32s(simd.mul_f32s(through, a), simd.sub_f32s(one, b));
                store(simd, &mut to_gate[at..end], value);
            }
            let t = first + row;
            if t > self.rows.shape.layers[layer].start && condition[t] != condition[t - 1] {
                self.flush(simd, layer, condition[t - 1]);
            }
            add(simd, &self.gradient[row * 2 * e..][..2 * e], self.sum);
        }
    }

    /// Hands the sum over timesteps with one condition to what conditions the layer, and begins a new one.
    #[inline(always)]
    fn flush<S: Simd>(&mut self, simd: S, layer: usize, condition: u16) {
        let (e, d_condition) = (self.rows.shape.e, self.rows.shape.d_condition);
        let embedding = [self.rows.condition(condition), self.rows.subject()];
        let local = self.weights.layers[layer].local;
        // The condition 0 has no embedding: its rows are passed over.
        let mut z = d_condition - embedding[0].len();
        for (which, embedding) in embedding.into_iter().enumerate() {
            for (i, &factor) in embedding.iter().enumerate() {
                let factor = simd.splat_f32s(factor);
                let to = &mut part(self.slot, self.grads.layers[layer].local)[z * 2 * e..][..2 * e];
                for (sum, to) in self.sum.chunks(S::F32_LANES).zip(to.chunks_mut(S::F32_LANES)) {
                    let value = simd.mul_add_e_f32s(load(simd, sum), factor, load(simd, to));
                    store(simd, to, value);
                }
                let value = dot(simd, &local[z * 2 * e..][..2 * e], self.sum);
                match which {
                    0 => part(self.slot, self.grads.condition)[usize::from(condition) * d_condition + i] += value,
                    _ => self.dlocal[i] += value,
                }
                z += 1;
            }
        }
        if layer == 0 {
            add(simd, self.sum, part(self.slot, self.grads.first.conv_bias));
            add(simd, self.sum, part(self.slot, self.grads.first.local_bias));
        }
        self.sum.fill(0.0);
    }
}
