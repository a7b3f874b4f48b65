//! The rollout: many sequences, each read once and then continued token by token with a cache of keys and values.
//!
//! A prompt is read by the stages that training uses, one sequence after another; its keys and values stay. A token is
//! drawn for several sequences at once, which are then the rows of the same stages; only attention is another, against
//! the [`Cache`]. As every product computes a row by itself ([`super::gemm`]) and both ways of attention sum in the same
//! order, the bits of a logit depend on the tokens of its sequence alone: not on the batch, its place in it, the number
//! of threads, nor on which of the tokens were read and which were drawn.

mod cache;

use super::embed::Tables;
use super::gemm::{Matrix, columns, pack};
use super::head::Logits;
use super::memory::{Cuts, Scratch};
use super::team::Team;
use super::{Cpu, Shape, attention, mlp, sampler};
use crate::device::Rollout;
use crate::ensure;
use crate::error::{Kind, Result};
use crate::interrupt;
use crate::model::config::{Head, ModelConfig};
use crate::model::layout::Parameters;
use crate::random::{Purpose, word_at};
use cache::Cache;
use pulp::{Simd, WithSimd};

/// Sequences that draw together, at most: the weights are read once for all of them.
const SEQUENCES: usize = 8;
/// Most elements of a tile's cache, unless a single sequence needs more: 256 MiB.
const MOST_CACHED: usize = 1 << 26;

/// Generates one chunk: see [`crate::device::Device::rollout`].
pub(super) fn rollout(
    cpu: &mut Cpu,
    config: &ModelConfig,
    params: &Parameters,
    rollout: &Rollout,
    tokens: &mut [u8],
    logits: Option<&mut [f32]>,
) -> Result<()> {
    rollout.check(config, tokens.len(), logits.as_ref().map(|logits| logits.len()))?;
    if rollout.n == 0 || rollout.n_new == 0 {
        return Ok(());
    }
    ensure!(params.blocks.len() == config.n_layer, Kind::Internal, "parameters of {} blocks", params.blocks.len());
    let (memory, team, e) = (&cpu.memory, &cpu.team, config.d_model);
    let table = |tensor, rows: usize| memory.floats(tensor, rows * e);
    let token = table(params.embed.token, config.n_level)?;
    let position = table(params.embed.position, config.n_ctx)?;
    let channel = table(params.embed.channel, config.n_channel)?;
    let subject = table(params.embed.subject, config.n_subject)?;
    let condition = table(params.embed.condition, config.n_condition + 1)?;
    let (norm_weight, norm_bias) = (table(params.head.norm_weight, 1)?, table(params.head.norm_bias, 1)?);
    let n_head = if config.head == Head::PerChannel { config.n_channel } else { 1 };
    let head = table(params.head.weight, n_head * config.n_level)?;

    let lens = || attention::Weights::lens(team, e).into_iter().chain(mlp::Weights::lens(team, e));
    let mut room = cpu.packed.cuts((0..config.n_layer).flat_map(|_| lens()));
    let mut blocks = Vec::with_capacity(config.n_layer);
    for (attention, mlp) in &params.blocks {
        let attention = attention::Weights::pack(memory, team, e, attention, &mut room)?;
        blocks.push((attention, mlp::Weights::pack(memory, team, e, mlp, &mut room)?));
    }
    let tables = Tables { e, tables: [&token, &position, &channel, &subject, &condition] };
    let network = &Network { config, team, tables, blocks, norm: (&norm_weight, &norm_bias), head: &head };

    // No bit depends on the size of a tile, so it may depend on everything else.
    let fitting = (MOST_CACHED / Cache::len(config, 1)).max(1);
    let n_tile = rollout.n.div_ceil(team.threads()).clamp(1, SEQUENCES.min(fitting));
    let mut logits = logits.map(|all| all.chunks_mut(n_tile * rollout.n_new * config.n_level));
    let tiles = tokens.chunks_mut(n_tile * rollout.n_new).enumerate();
    let tiles = tiles.map(|(i, tokens)| (i * n_tile, tokens, logits.as_mut().and_then(Iterator::next))).collect();
    team.try_all(tiles, |(first, tokens, logits), scratch| {
        team.arch.dispatch(Tile { network, rollout, first, tokens, logits, scratch })
    })
}

/// The network, its blocks packed once for all sequences.
struct Network<'a> {
    config: &'a ModelConfig,
    team: &'a Team,
    tables: Tables<'a>,
    blocks: Vec<(attention::Weights<'a>, mlp::Weights<'a>)>,
    /// The final norm.
    norm: (&'a [f32], &'a [f32]),
    /// [Q, E], or [C, Q, E].
    head: &'a [f32],
}

impl Network<'_> {
    /// `t` rows as a stage sees them: the timesteps of one sequence, or the newest one of several.
    fn shape(&self, t: usize, from: usize) -> Shape {
        Shape { n: 1, t, e: self.config.d_model, h: self.config.n_head, from }
    }

    /// The activations that go with a token.
    #[inline(always)]
    fn embed<S: Simd>(&self, simd: S, rollout: &Rollout, sequence: usize, position: usize, token: u8, x: &mut [f32]) {
        let condition = rollout.condition[sequence * rollout.n_fed() + position].into();
        let (channel, subject) = (rollout.channel[sequence] as usize, rollout.subject[sequence] as usize);
        self.tables.row(simd, [token.into(), position, channel, subject, condition], x);
    }
}

/// A few sequences, on one thread. Half-blocks are called by `vectorize`, each compiled once: inlined here a second time,
/// their closures would be left as functions without the instruction set, and every vector operation a call.
struct Tile<'a> {
    network: &'a Network<'a>,
    rollout: &'a Rollout<'a>,
    /// The tile's first sequence.
    first: usize,
    /// [sequences of the tile, n_new]
    tokens: &'a mut [u8],
    /// [sequences of the tile, n_new, Q]
    logits: Option<&'a mut [f32]>,
    scratch: &'a mut Scratch,
}

impl WithSimd for Tile<'_> {
    type Output = Result<()>;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Result<()> {
        let Self { network, rollout, first, tokens, mut logits, scratch } = self;
        let &Network { config, team, .. } = network;
        let (e, n_level, n_new, n_prompt) = (config.d_model, config.n_level, rollout.n_new, rollout.n_prompt);
        let n = tokens.len() / n_new;

        let packed = team.packed_len(e, n_level);
        let n_head = if config.head == Head::PerChannel { n } else { 1 };
        let largest = network.shape(n_prompt.max(n), 0);
        let own = [Cache::len(config, n), n_prompt * e, n * e, n * n_level, n_head * packed];
        let stages = attention::Forward::lens(team, &largest).into_iter().chain(mlp::Forward::lens(&largest));
        let mut room = scratch.cuts(own.into_iter().chain(Logits::lens(e)).chain(stages));
        let [cache, window, x, row_logits, heads] = own.map(|len| room.take(len));
        let mut cache = Cache::new(config, n, cache);
        for (i, packed) in heads.chunks_exact_mut(packed).enumerate() {
            let which = if config.head == Head::PerChannel { rollout.channel[first + i] as usize } else { 0 };
            let weight = &network.head[which * n_level * e..][..n_level * e];
            pack(columns::<S>(), e, n_level, Matrix::Columns(weight, e), packed);
        }
        let mut head = Logits::new(n_level, network.norm, &mut room);

        for sequence in 0..n {
            if interrupt::requested().is_some() {
                return Ok(());
            }
            read_prompt(simd, network, rollout, first, sequence, window, &mut cache, room.rest());
            x[sequence * e..][..e].copy_from_slice(&window[(n_prompt - 1) * e..]);
        }
        for step in 0..n_new {
            if step > 0 {
                if interrupt::requested().is_some() {
                    return Ok(());
                }
                let position = n_prompt + step - 1;
                for (sequence, x) in x.chunks_exact_mut(e).enumerate() {
                    network.embed(simd, rollout, first + sequence, position, tokens[sequence * n_new + step - 1], x);
                }
                feed(simd, network, position, x, &mut cache, room.rest());
            }
            // All rows with the one head, or each with its own.
            let rows = n / n_head;
            let heads = heads.chunks_exact(packed).zip(x.chunks_exact(rows * e));
            for ((right, x), out) in heads.zip(row_logits.chunks_exact_mut(rows * n_level)) {
                head.rows(simd, right, x, rows, out);
            }
            for (sequence, row) in row_logits.chunks_exact(n_level).enumerate() {
                if let Some(logits) = &mut logits {
                    logits[(sequence * n_new + step) * n_level..][..n_level].copy_from_slice(row);
                }
                tokens[sequence * n_new + step] = draw(rollout, first + sequence, step, row)?;
            }
        }
        Ok(())
    }
}

/// Reads the prompt of the tile's `sequence` into the cache. Of `window`, [n_prompt, E], only the last row is complete
/// afterwards: the last layer answers nothing else.
#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "the tile's parts, which it goes on borrowing")]
fn read_prompt<S: Simd>(
    simd: S,
    network: &Network,
    rollout: &Rollout,
    first: usize,
    sequence: usize,
    window: &mut [f32],
    cache: &mut Cache,
    mut room: Cuts,
) {
    let (e, n_prompt) = (network.config.d_model, rollout.n_prompt);
    let prompt = &rollout.prompt[(first + sequence) * n_prompt..][..n_prompt];
    for (position, (x, &token)) in window.chunks_exact_mut(e).zip(prompt).enumerate() {
        network.embed(simd, rollout, first + sequence, position, token, x);
    }
    for (layer, (attention, mlp)) in network.blocks.iter().enumerate() {
        let is_last = layer + 1 == network.blocks.len();
        let shape = network.shape(n_prompt, if is_last { n_prompt - 1 } else { 0 });
        let mut one = attention::Forward::new(network.team, attention, shape, window, None, &mut room.rest());
        simd.vectorize(&mut one);
        for (position, qkv) in one.saved.qkv.chunks_exact(3 * e).enumerate() {
            cache.put(layer, sequence, position, qkv);
        }
        simd.vectorize(mlp::Forward::new(mlp, shape, window, None, &mut room.rest()));
    }
}

/// Takes one row of activations for each sequence of the tile, all at `position`, through the blocks.
#[inline(always)]
fn feed<S: Simd>(simd: S, network: &Network, position: usize, x: &mut [f32], cache: &mut Cache, mut room: Cuts) {
    let e = network.config.d_model;
    let shape = network.shape(x.len() / e, 0);
    for (layer, (attention, mlp)) in network.blocks.iter().enumerate() {
        let mut one = attention::Forward::new(network.team, attention, shape, x, None, &mut room.rest());
        one.project(simd);
        for (sequence, qkv) in one.saved.qkv.chunks_exact(3 * e).enumerate() {
            cache.put(layer, sequence, position, qkv);
        }
        cache.attend(simd, layer, position + 1, one.saved.qkv, one.saved.answer);
        one.finish(simd);
        simd.vectorize(mlp::Forward::new(mlp, shape, x, None, &mut room.rest()));
    }
}

/// Draws the token of `step` of a sequence from its logits.
pub(super) fn draw(rollout: &Rollout, sequence: usize, step: usize, logits: &[f32]) -> Result<u8> {
    let timestep = rollout.timestep + step as u64;
    let word = match rollout.sampler.greedy {
        true => 0,
        false => word_at(rollout.seed, Purpose::Sampling, rollout.key[sequence], timestep),
    };
    sampler::draw(logits, &rollout.sampler, word).ok_or_else(|| rollout.not_finite(sequence, step))
}

#[cfg(test)]
mod tests;
