//! The embedding: five table rows added up for each timestep, and their gradients.

use super::memory::part;
use super::vector::{add, load, store};
use super::{Cpu, Shape};
use crate::device::{Call, EmbedParams, Inputs, Tensor};
use crate::ensure;
use crate::error::{Kind, Result};
use pulp::{Simd, WithSimd};
use std::cell::Ref;

/// The inputs of a call, checked against the tables they index.
struct Indices<'a> {
    token: Ref<'a, [u8]>,
    condition: Ref<'a, [u16]>,
    channel: Ref<'a, [u32]>,
    subject: Ref<'a, [u32]>,
}

impl<'a> Indices<'a> {
    fn new(cpu: &'a Cpu, shape: &Shape, params: &EmbedParams, inputs: &Inputs) -> Result<Self> {
        let Shape { n, t, e, .. } = *shape;
        let token = cpu.memory.read::<u8>(inputs.token)?;
        let condition = cpu.memory.read::<u16>(inputs.condition)?;
        let channel = cpu.memory.read::<u32>(inputs.channel)?;
        let subject = cpu.memory.read::<u32>(inputs.subject)?;
        let lens = [token.len(), condition.len(), channel.len(), subject.len()];
        ensure!(lens == [n * (t + 1), n * t, n, n], Kind::Internal, "inputs of another shape: {lens:?}");
        for (name, table, most) in [
            ("token", params.token, token.iter().max().map_or(0, |&i| i as usize)),
            ("position", params.position, t - 1),
            ("condition", params.condition, condition.iter().max().map_or(0, |&i| i as usize)),
            ("channel", params.channel, channel.iter().max().map_or(0, |&i| i as usize)),
            ("subject", params.subject, subject.iter().max().map_or(0, |&i| i as usize)),
        ] {
            ensure!((most + 1) * e <= table.len, Kind::Internal, "{name} {most} is beyond its table");
        }
        Ok(Self { token, condition, channel, subject })
    }

    /// Each sequence's tokens, conditions, channel and subject.
    fn sequences(&self, t: usize) -> impl Iterator<Item = (&[u8], &[u16], usize, usize)> {
        let series = self.token.chunks_exact(t + 1).zip(self.condition.chunks_exact(t));
        let places = self.channel.iter().zip(self.subject.iter());
        series.zip(places).map(|((token, condition), (&c, &s))| (token, condition, c as usize, s as usize))
    }
}

/// Runs the stage on every sequence of the call.
pub(super) fn forward(cpu: &mut Cpu, call: &Call, params: &EmbedParams, inputs: &Inputs, x: Tensor) -> Result<()> {
    let shape = Shape::new(call)?;
    let indices = Indices::new(cpu, &shape, params, inputs)?;
    let (memory, team) = (&cpu.memory, &cpu.team);
    let (token, position) = (memory.read::<f32>(params.token)?, memory.read::<f32>(params.position)?);
    let (channel, subject) = (memory.read::<f32>(params.channel)?, memory.read::<f32>(params.subject)?);
    let condition = memory.read::<f32>(params.condition)?;
    let tables = Tables { e: shape.e, tables: [&token, &position, &channel, &subject, &condition] };
    let mut x = memory.first_mut(x, shape.n * shape.t * shape.e)?;
    let jobs = x.chunks_exact_mut(shape.t * shape.e).zip(indices.sequences(shape.t));
    team.each(jobs, |(x, sequence), _| team.arch.dispatch(Forward { tables, sequence, x }));
    Ok(())
}

/// The tables, with rows of width E.
#[derive(Clone, Copy)]
pub(super) struct Tables<'a> {
    pub(super) e: usize,
    /// Token, position, channel, subject, condition.
    pub(super) tables: [&'a [f32]; 5],
}

impl Tables<'_> {
    /// x = the sum of these rows of the tables; the condition 0 adds nothing.
    #[inline(always)]
    pub(super) fn row<S: Simd>(
        &self,
        simd: S,
        [token, position, channel, subject, condition]: [usize; 5],
        x: &mut [f32],
    ) {
        let row = |table: usize, index: usize| &self.tables[table][index * self.e..][..self.e];
        x.copy_from_slice(row(0, token));
        add(simd, row(1, position), x);
        add(simd, row(2, channel), x);
        add(simd, row(3, subject), x);
        if condition > 0 {
            add(simd, row(4, condition), x);
        }
    }
}

/// One sequence.
struct Forward<'a> {
    tables: Tables<'a>,
    sequence: (&'a [u8], &'a [u16], usize, usize),
    x: &'a mut [f32],
}

impl WithSimd for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { tables, sequence: (token, condition, channel, subject), x } = self;
        for (t, x) in x.chunks_exact_mut(tables.e).enumerate() {
            tables.row(simd, [token[t].into(), t, channel, subject, condition[t].into()], x);
        }
    }
}

/// Runs the backward stage on every sequence of the call.
pub(super) fn backward(cpu: &mut Cpu, call: &Call, grads: &EmbedParams, inputs: &Inputs, dx: Tensor) -> Result<()> {
    let shape = Shape::new(call)?;
    let indices = Indices::new(cpu, &shape, grads, inputs)?;
    let (memory, team) = (&cpu.memory, &cpu.team);
    let dx = memory.first(dx, shape.n * shape.t * shape.e)?;
    let tables = [grads.token, grads.position, grads.channel, grads.subject, grads.condition];
    let mut slots = memory.slots(&tables.map(|table| (table, table.len)))?;
    let jobs = dx.chunks_exact(shape.t * shape.e).zip(indices.sequences(shape.t)).zip(slots.of(call.first));
    team.each(jobs, |((dx, sequence), slot), _| {
        team.arch.dispatch(Backward { e: shape.e, grads, sequence, dx, slot });
    });
    Ok(())
}

/// One sequence.
struct Backward<'a> {
    e: usize,
    grads: &'a EmbedParams,
    sequence: (&'a [u8], &'a [u16], usize, usize),
    dx: &'a [f32],
    slot: &'a mut [f32],
}

impl WithSimd for Backward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { e, grads, sequence: (token, condition, channel, subject), dx, slot } = self;
        let mut add_to = |table: Tensor, index: usize, dx: &[f32]| {
            let row = &mut part(slot, table)[index * e..][..e];
            for (dx, row) in dx.chunks(S::F32_LANES).zip(row.chunks_mut(S::F32_LANES)) {
                let sum = simd.add_f32s(load(simd, row), load(simd, dx));
                store(simd, row, sum);
            }
        };
        for (t, dx) in dx.chunks_exact(e).enumerate() {
            add_to(grads.token, usize::from(token[t]), dx);
            add_to(grads.position, t, dx);
            add_to(grads.channel, channel, dx);
            add_to(grads.subject, subject, dx);
            if condition[t] > 0 {
                add_to(grads.condition, usize::from(condition[t]), dx);
            }
        }
    }
}
