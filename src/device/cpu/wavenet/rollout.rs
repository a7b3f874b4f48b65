//! Generation: a prompt is read by the layers that training uses; then every timestep is one row of each layer.
//!
//! A layer looks back by its dilation and no further, so of its input it keeps the last so many timesteps, in a ring. What
//! a row comes to depends on nothing but the row and those it looks back to, and both ways compute it in the same order:
//! the bits of a logit depend on the receptive field before it alone, not on where reading ended and drawing began.

use super::super::memory::{Cuts, Scratch};
use super::super::rollout::draw;
use super::super::team::Team;
use super::super::vector::gates;
use super::super::{Cpu, ROWS};
use super::stack::{Forward, Rows, Weights};
use super::{Sequence, Shape, head, mix};
use crate::device::wavenet::WavenetParams;
use crate::device::{Call, Rollout};
use crate::ensure;
use crate::error::{Kind, Result};
use crate::interrupt;
use crate::model::wavenet::WavenetConfig;
use pulp::{Simd, WithSimd};

/// Sequences that are generated together, at most, where no map across channels says how many: their rings are in memory.
const TOGETHER: usize = 256;

/// Generates one chunk: see [`crate::device::wavenet::WavenetStages::rollout`].
pub(super) fn rollout(
    cpu: &mut Cpu,
    config: &WavenetConfig,
    params: &WavenetParams,
    rollout: &Rollout,
    tokens: &mut [u8],
    mut logits: Option<&mut [f32]>,
) -> Result<()> {
    rollout.check_wavenet(config, tokens.len(), logits.as_ref().map(|logits| logits.len()))?;
    if rollout.n == 0 || rollout.n_new == 0 {
        return Ok(());
    }
    let n_time = rollout.n_prompt;
    let call = Call { first: 0, n: 1, n_time, d_model: config.d_model, n_head: 1, from: n_time - 1 };
    let shape = &Shape::new(config, &call)?;
    let (memory, team) = (&cpu.memory, &cpu.team);
    let tables = super::stack::Tables::new(memory, config, &params.stack)?;
    let mix = params.mix.map(|mix| memory.floats(mix, config.n_channel.pow(2))).transpose()?;
    let lens = Weights::room(team, shape).chain(head::Weights::lens(team, shape));
    let mut room = cpu.packed.cuts(lens);
    let weights = Weights::pack(memory, team, shape, &params.stack, &mut room)?;
    let head = head::Weights::pack(memory, team, shape, &params.head, &mut room)?;
    let network = Network {
        shape,
        team,
        token: &tables.token,
        condition: &tables.condition,
        subject: &tables.subject,
        weights,
        mix: mix.as_deref(),
        head,
        rollout,
        kept: shape.layers.iter().map(|place| place.dilation * shape.e).sum(),
    };
    let together = if mix.is_some() { config.n_channel } else { TOGETHER };
    for first in (0..rollout.n).step_by(together) {
        let n = together.min(rollout.n - first);
        let part = first * rollout.n_new..(first + n) * rollout.n_new;
        let logits = logits.as_mut().map(|all| &mut all[part.start * shape.q..part.end * shape.q]);
        network.together(first, n, &mut tokens[part], logits)?;
    }
    Ok(())
}

impl Rollout<'_> {
    /// As [`Self::check`], for a WaveNet.
    fn check_wavenet(&self, config: &WavenetConfig, n_token: usize, n_logit: Option<usize>) -> Result<()> {
        let reach = config.n_receptive();
        ensure!(self.n_prompt >= reach, Kind::Internal, "{} tokens to read of a field of {reach}", self.n_prompt);
        let &WavenetConfig { n_level, n_condition, n_channel, n_subject, .. } = config;
        self.check_sizes([n_level, n_condition + 1, n_channel, n_subject], n_token, n_logit)?;
        let whole = self.n.is_multiple_of(n_channel)
            && self.channel.iter().zip((0..n_channel).cycle()).all(|(&c, i)| c as usize == i);
        ensure!(whole || !config.mix, Kind::Internal, "a map across channels needs all of them, in their order");
        Ok(())
    }
}

/// The network, packed once for all sequences.
struct Network<'a> {
    shape: &'a Shape,
    team: &'a Team,
    token: &'a [f32],
    condition: &'a [f32],
    subject: &'a [f32],
    weights: Weights<'a>,
    mix: Option<&'a [f32]>,
    head: head::Weights<'a>,
    rollout: &'a Rollout<'a>,
    /// Elements of a sequence's rings.
    kept: usize,
}

impl Network<'_> {
    /// The `n` sequences from `first` on, one timestep after the other; the tokens and logits are theirs.
    fn together(&self, first: usize, n: usize, tokens: &mut [u8], mut logits: Option<&mut [f32]>) -> Result<()> {
        let (s, q, n_new, team) = (self.shape.s, self.shape.q, self.rollout.n_new, self.team);
        let mut rings = vec![0.0; n * self.kept];
        let mut skips = vec![0.0; n * s];
        let mut mixed = vec![0.0; if self.mix.is_some() { n * s } else { 0 }];
        let jobs = rings.chunks_exact_mut(self.kept).zip(skips.chunks_exact_mut(s)).enumerate().collect();
        team.try_all(jobs, |(i, (rings, skips)), scratch| {
            if interrupt::requested().is_none() {
                team.arch.dispatch(Read { network: self, sequence: first + i, rings, skips, scratch });
            }
            Ok(())
        })?;
        // No bit depends on the size of a tile, so it may depend on the threads.
        let tile = n.div_ceil(team.threads()).clamp(1, ROWS);
        for step in 0..self.rollout.n_new {
            if interrupt::requested().is_some() {
                return Ok(());
            }
            if step > 0 {
                let jobs = rings.chunks_mut(tile * self.kept).zip(skips.chunks_mut(tile * s));
                let jobs = jobs.zip(tokens.chunks(tile * n_new)).enumerate().collect();
                team.try_all(jobs, |(i, ((rings, skips), tokens)), scratch| {
                    let first = first + i * tile;
                    team.arch.dispatch(Step { network: self, first, step, tokens, rings, skips, scratch });
                    Ok(())
                })?;
            }
            if let Some(weight) = self.mix {
                mix::product(team, n, s, super::super::gemm::Matrix::Rows(weight, n), &skips, &mut mixed)?;
            }
            let summed = if self.mix.is_some() { &mixed } else { &skips };
            let mut logits = logits.as_mut().map(|all| all.chunks_mut(tile * n_new * q));
            let jobs = summed.chunks(tile * s).zip(tokens.chunks_mut(tile * n_new)).enumerate();
            let jobs = jobs.map(|(i, job)| (i, job, logits.as_mut().and_then(Iterator::next))).collect();
            team.try_all(jobs, |(i, (skips, tokens), logits), scratch| {
                let first = first + i * tile;
                team.arch.dispatch(Answer { network: self, first, step, skips, tokens, logits, scratch })
            })?;
        }
        Ok(())
    }

    fn rows<'a>(&'a self, shape: &'a Shape, sequence: Sequence<'a>) -> Rows<'a> {
        Rows { shape, token: self.token, condition: self.condition, subject: self.subject, sequence }
    }

    /// A sequence of the rollout, with these tokens.
    fn sequence<'a>(&'a self, sequence: usize, token: &'a [u8]) -> Sequence<'a> {
        let rollout = self.rollout;
        Sequence {
            token,
            condition: &rollout.condition[sequence * rollout.n_fed()..][..rollout.n_fed()],
            channel: rollout.channel[sequence] as usize,
            subject: rollout.subject[sequence] as usize,
        }
    }
}

/// One sequence's prompt.
struct Read<'a> {
    network: &'a Network<'a>,
    sequence: usize,
    rings: &'a mut [f32],
    skips: &'a mut [f32],
    scratch: &'a mut Scratch,
}

impl WithSimd for Read<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { network, sequence, mut rings, skips, scratch } = self;
        let (shape, n_prompt) = (network.shape, network.rollout.n_prompt);
        let prompt = &network.rollout.prompt[sequence * n_prompt..][..n_prompt];
        let mut room = scratch.cuts([shape.kept].into_iter().chain(Forward::lens(shape)));
        let kept = room.take(shape.kept);
        let rows = network.rows(shape, network.sequence(sequence, prompt));
        let mut forward = Forward::new(&network.weights, rows, kept, skips, &mut room);
        simd.vectorize(&mut forward);
        let e = shape.e;
        for pair in shape.layers.windows(2) {
            let (input, dilation) = (pair[0], pair[1].dilation);
            let (ring, rest) = rings.split_at_mut(dilation * e);
            for t in n_prompt - dilation..n_prompt {
                let row = &forward.kept[input.x + (t - input.start) * e..][..e];
                ring[t % dilation * e..][..e].copy_from_slice(row);
            }
            rings = rest;
        }
    }
}

/// One timestep of a few sequences, up to the sum of the skips.
struct Step<'a> {
    network: &'a Network<'a>,
    first: usize,
    step: usize,
    /// [sequences of the tile, n_new], drawn up to the step.
    tokens: &'a [u8],
    rings: &'a mut [f32],
    /// [sequences of the tile, S]
    skips: &'a mut [f32],
    scratch: &'a mut Scratch,
}

impl WithSimd for Step<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { network, first, step, tokens, rings, skips, scratch } = self;
        let (shape, weights, kept, n_new) = (network.shape, &network.weights, network.kept, network.rollout.n_new);
        let &Shape { e, f, s, .. } = shape;
        let (m, t) = (skips.len() / s, network.rollout.n_prompt + step - 1);
        let lens = [m * e, m * e, m * e, m * e, m * 2 * e, m * f, 2 * e];
        let [mut x, mut out, early, h, gate, input, local] = scratch.split(lens);
        let of = |row: usize| network.rows(shape, network.sequence(first + row, &tokens[row * n_new..][..n_new]));
        for (row, input) in input.chunks_exact_mut(f).enumerate() {
            of(row).gather(step - 1, 1, input);
        }
        let mut at = 0;
        for (layer, place) in shape.layers.iter().enumerate() {
            let mut conditioned = None;
            for (row, gate) in gate.chunks_exact_mut(2 * e).enumerate() {
                let rows = of(row);
                let now = (rows.sequence.condition[t], rows.sequence.subject);
                if conditioned != Some(now) {
                    conditioned = Some(now);
                    weights.local(simd, layer, rows.condition(now.0), rows.subject(), local);
                }
                gate.copy_from_slice(local);
            }
            if layer == 0 {
                weights.tap(simd, layer, 1, input, m, gate);
            } else {
                let ring = at + t % place.dilation * e;
                let rows = rings.chunks_exact_mut(kept).zip(early.chunks_exact_mut(e)).zip(x.chunks_exact(e));
                for ((rings, early), x) in rows {
                    early.copy_from_slice(&rings[ring..][..e]);
                    rings[ring..][..e].copy_from_slice(x);
                }
                at += place.dilation * e;
                weights.tap(simd, layer, 0, early, m, gate);
                weights.tap(simd, layer, 1, x, m, gate);
            }
            for (gate, h) in gate.chunks_exact_mut(2 * e).zip(h.chunks_exact_mut(e)) {
                gates(simd, gate, h);
            }
            weights.skip(simd, layer, h, m, skips);
            if !shape.is_last(layer) {
                let from = if layer == 0 { &*input } else { &*x };
                weights.residual(simd, layer, from, h, m, out);
                std::mem::swap(&mut x, &mut out);
            }
        }
    }
}

/// Logits and draws of a few sequences.
struct Answer<'a> {
    network: &'a Network<'a>,
    first: usize,
    step: usize,
    /// [sequences of the tile, S]
    skips: &'a [f32],
    /// [sequences of the tile, n_new]
    tokens: &'a mut [u8],
    /// [sequences of the tile, n_new, Q]
    logits: Option<&'a mut [f32]>,
    scratch: &'a mut Scratch,
}

impl WithSimd for Answer<'_> {
    type Output = Result<()>;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Result<()> {
        let Self { network, first, step, skips, tokens, mut logits, scratch } = self;
        let (&Shape { s, q, .. }, n_new) = (network.shape, network.rollout.n_new);
        let m = skips.len() / s;
        let mut room: Cuts = scratch.cuts([m * q].into_iter().chain(head::Logits::lens(network.shape)));
        let rows = room.take(m * q);
        head::Logits::new(&network.head, network.shape, &mut room).rows(simd, skips, m, rows);
        for (i, row) in rows.chunks_exact(q).enumerate() {
            if let Some(logits) = &mut logits {
                logits[(i * n_new + step) * q..][..q].copy_from_slice(row);
            }
            tokens[i * n_new + step] = draw(network.rollout, first + i, step, row)?;
        }
        Ok(())
    }
}
