//! The rollout: many sequences, each read once and then continued token by token with a cache of keys and values.
//!
//! Reading a prompt and drawing a token are the same computation on different rows: a few consecutive timesteps of one
//! sequence, or the newest timestep of several sequences. A row's keys and values go into its sequence's cache, then it
//! attends to everything up to itself. As every product computes a row by itself ([`super::gemm`]), the bits of a
//! logit depend on the tokens of its sequence alone: not on the batch, its place in it, the number of threads, nor on
//! which of the tokens were read and which were drawn.

use super::gemm::{Matrix, Onto, Product, Width, pack, packed_len};
use super::memory::{Memory, Scratch};
use super::norm::normalize;
use super::team::Team;
use super::vector::{exponentials, gelu, load, store};
use super::{Cpu, ROWS, sampler};
use crate::device::{AttentionParams, MlpParams, Rollout, Tensor};
use crate::ensure;
use crate::error::{Error, Kind, Result};
use crate::interrupt;
use crate::model::config::{Head, ModelConfig};
use crate::model::layout::Parameters;
use crate::random::{Purpose, word_at};
use pulp::{Simd, WithSimd};
use std::cell::Ref;

/// Sequences that draw together: the weights are read once for all of them.
const SEQUENCES: usize = 8;
/// Keys that are scored together: four of the widest vectors.
const KEYS: usize = 64;
/// Most elements of a tile's cache, unless a single sequence needs more: 256 MiB.
const MOST_CACHED: usize = 1 << 26;

/// A norm's weight and bias.
type Norm<'a> = (&'a [f32], &'a [f32]);
/// A projection's weight [in, out] and bias.
type Projection<'a> = (&'a [f32], &'a [f32]);

/// The parameters of a block, resolved.
struct BlockWeights<'a> {
    norm_1: Norm<'a>,
    qkv: Projection<'a>,
    attention_proj: Projection<'a>,
    norm_2: Norm<'a>,
    fc: Projection<'a>,
    mlp_proj: Projection<'a>,
}

/// The parameters of the network, resolved.
struct Weights<'a> {
    token: &'a [f32],
    position: &'a [f32],
    channel: &'a [f32],
    subject: &'a [f32],
    condition: &'a [f32],
    blocks: Vec<BlockWeights<'a>>,
    norm: Norm<'a>,
    /// [Q, E], or [C, Q, E].
    head: &'a [f32],
    head_per_channel: bool,
}

/// One call, checked and resolved.
struct Job<'a> {
    config: &'a ModelConfig,
    weights: Weights<'a>,
    rollout: &'a Rollout<'a>,
    tokens: &'a mut [u8],
    logits: Option<&'a mut [f32]>,
    team: &'a Team,
}

/// Generates one chunk: see [`crate::device::Device::rollout`].
pub(super) fn rollout(
    cpu: &mut Cpu,
    config: &ModelConfig,
    params: &Parameters,
    rollout: &Rollout,
    tokens: &mut [u8],
    logits: Option<&mut [f32]>,
) -> Result<()> {
    check(config, rollout, tokens.len(), logits.as_ref().map(|logits| logits.len()))?;
    if rollout.n == 0 || rollout.n_new == 0 {
        return Ok(());
    }
    let params = Resolved::new(&cpu.memory, config, params)?;
    let weights = params.weights(config.head == Head::PerChannel);
    cpu.team.arch.dispatch(Job { config, weights, rollout, tokens, logits, team: &cpu.team })
}

/// Checks sizes, indices and the window.
fn check(config: &ModelConfig, rollout: &Rollout, n_token: usize, n_logit: Option<usize>) -> Result<()> {
    let &Rollout { n, n_prompt, n_new, .. } = rollout;
    rollout.sampler.check()?;
    let longest = config.n_ctx + 1;
    ensure!(
        n_prompt > 0 && n_prompt.checked_add(n_new).is_some_and(|all| all <= longest),
        Kind::Internal,
        "{n_prompt} tokens to read and {n_new} to draw do not fit a window of {}",
        config.n_ctx
    );
    let fed = (n_prompt + n_new).saturating_sub(1);
    for (what, len, expected) in [
        ("prompt", rollout.prompt.len(), n * n_prompt),
        ("conditions", rollout.condition.len(), n * fed),
        ("channels", rollout.channel.len(), n),
        ("subjects", rollout.subject.len(), n),
        ("keys", rollout.key.len(), n),
        ("tokens", n_token, n * n_new),
        ("logits", n_logit.unwrap_or(n * n_new * config.n_level), n * n_new * config.n_level),
    ] {
        ensure!(len == expected, Kind::Internal, "a rollout with {len} {what} where {expected} are needed");
    }
    for (what, limit, largest) in [
        ("level", config.n_level, rollout.prompt.iter().max().map(|&x| usize::from(x))),
        ("condition", config.n_condition + 1, rollout.condition.iter().max().map(|&x| usize::from(x))),
        ("channel", config.n_channel, rollout.channel.iter().max().map(|&x| x as usize)),
        ("subject", config.n_subject, rollout.subject.iter().max().map(|&x| x as usize)),
    ] {
        let largest = largest.unwrap_or(0);
        ensure!(largest < limit, Kind::Internal, "a rollout with the {what} {largest} of {limit}");
    }
    Ok(())
}

/// A guard on each parameter, for as long as the call lasts.
struct Resolved<'a> {
    /// token, position, channel, subject, condition, final norm (2), head
    tables: [Ref<'a, [f32]>; 8],
    /// For each block the weights and biases in the order of [`BlockWeights`].
    blocks: Vec<[Ref<'a, [f32]>; 12]>,
}

impl<'a> Resolved<'a> {
    fn new(memory: &'a Memory, config: &ModelConfig, params: &Parameters) -> Result<Self> {
        let e = config.d_model;
        let one = |(tensor, len): (Tensor, usize)| memory.floats(tensor, len);
        let all = |pairs: Vec<(Tensor, usize)>| pairs.into_iter().map(one).collect::<Result<Vec<_>>>();
        let (embed, head) = (&params.embed, &params.head);
        let n_head = if config.head == Head::PerChannel { config.n_channel } else { 1 };
        let tables = all(vec![
            (embed.token, config.n_level * e),
            (embed.position, config.n_ctx * e),
            (embed.channel, config.n_channel * e),
            (embed.subject, config.n_subject * e),
            (embed.condition, (config.n_condition + 1) * e),
            (head.norm_weight, e),
            (head.norm_bias, e),
            (head.weight, n_head * config.n_level * e),
        ])?;
        ensure!(params.blocks.len() == config.n_layer, Kind::Internal, "parameters of {} blocks", params.blocks.len());
        let block = |(attention, mlp): &(AttentionParams, MlpParams)| -> Result<[Ref<'a, [f32]>; 12]> {
            let refs = all(vec![
                (attention.norm_weight, e),
                (attention.norm_bias, e),
                (attention.qkv_weight, 3 * e * e),
                (attention.qkv_bias, 3 * e),
                (attention.proj_weight, e * e),
                (attention.proj_bias, e),
                (mlp.norm_weight, e),
                (mlp.norm_bias, e),
                (mlp.fc_weight, 4 * e * e),
                (mlp.fc_bias, 4 * e),
                (mlp.proj_weight, 4 * e * e),
                (mlp.proj_bias, e),
            ])?;
            Ok(refs.try_into().expect("twelve"))
        };
        let blocks = params.blocks.iter().map(block).collect::<Result<_>>()?;
        Ok(Self { tables: tables.try_into().expect("eight"), blocks })
    }

    fn weights(&self, head_per_channel: bool) -> Weights<'_> {
        let [token, position, channel, subject, condition, norm_weight, norm_bias, head] = &self.tables;
        fn block<'b>(params: &'b [Ref<[f32]>; 12]) -> BlockWeights<'b> {
            let pair = |i: usize| (&*params[i], &*params[i + 1]);
            BlockWeights {
                norm_1: pair(0),
                qkv: pair(2),
                attention_proj: pair(4),
                norm_2: pair(6),
                fc: pair(8),
                mlp_proj: pair(10),
            }
        }
        let blocks = self.blocks.iter().map(block).collect();
        let norm = (&**norm_weight, &**norm_bias);
        Weights { token, position, channel, subject, condition, blocks, norm, head, head_per_channel }
    }
}

impl WithSimd for Job<'_> {
    type Output = Result<()>;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Result<()> {
        let Self { config, weights, rollout, tokens, logits, team } = self;
        let network = &Network::new(simd, config, &weights);
        let (n_new, n_level) = (rollout.n_new, config.n_level);
        // No bit depends on the size of a tile, so it may depend on everything else.
        let fitting = (MOST_CACHED / network.cache_len()).max(1);
        let n_tile = rollout.n.div_ceil(team.threads()).clamp(1, SEQUENCES.min(fitting));
        let mut logits = logits.map(|all| all.chunks_mut(n_tile * n_new * n_level));
        let tiles = tokens.chunks_mut(n_tile * n_new).enumerate();
        let tiles = tiles.map(|(i, tokens)| (i * n_tile, tokens, logits.as_mut().and_then(Iterator::next))).collect();
        team.try_all(tiles, |(first, tokens, logits), scratch| {
            simd.vectorize(Tile { network, rollout, first, tokens, logits, scratch })
        })
    }
}

/// A projection whose weight is packed for products.
struct Linear<'a> {
    n_in: usize,
    n_out: usize,
    packed: Vec<f32>,
    bias: Option<&'a [f32]>,
}

impl<'a> Linear<'a> {
    fn new<S: Simd>(_simd: S, (weight, bias): Projection<'a>) -> Self {
        let (n_in, n_out) = (weight.len() / bias.len(), bias.len());
        let columns = Width::Wide.columns::<S>();
        let mut packed = vec![0.0; packed_len(columns, n_in, n_out)];
        pack(columns, n_in, n_out, Matrix::Rows(weight, n_out), &mut packed);
        Self { n_in, n_out, packed, bias: Some(bias) }
    }

    /// The head: its weight is [out, in], and it has no bias.
    fn transposed<S: Simd>(_simd: S, weight: &[f32], n_in: usize) -> Self {
        let n_out = weight.len() / n_in;
        let columns = Width::Wide.columns::<S>();
        let mut packed = vec![0.0; packed_len(columns, n_in, n_out)];
        pack(columns, n_in, n_out, Matrix::Columns(weight, n_in), &mut packed);
        Self { n_in, n_out, packed, bias: None }
    }

    /// out = x · weight + bias, or out += that.
    #[inline(always)]
    fn apply<S: Simd>(&self, simd: S, rows: usize, x: &[f32], out: &mut [f32], residual: bool) {
        let onto = match (self.bias, residual) {
            (Some(bias), true) => Onto::OutAndBias(bias),
            (Some(bias), false) => Onto::Bias(bias),
            (None, _) => Onto::Nothing,
        };
        let (k, n) = (self.n_in, self.n_out);
        let left = Matrix::Rows(x, k);
        Product { m: rows, k, n, left, right: &self.packed, width: Width::Wide, onto, out, ld: n }.run(simd);
    }
}

struct Block<'a> {
    norm_1: Norm<'a>,
    qkv: Linear<'a>,
    attention_proj: Linear<'a>,
    norm_2: Norm<'a>,
    fc: Linear<'a>,
    mlp_proj: Linear<'a>,
}

/// The network, its weights packed once for all sequences.
struct Network<'a> {
    config: &'a ModelConfig,
    weights: &'a Weights<'a>,
    blocks: Vec<Block<'a>>,
    /// One head, or none where every channel has its own.
    head: Option<Linear<'a>>,
    /// Elements from one row of a cache to the next: room for a window and for reading whole groups of keys; not a
    /// power of two, so that the rows do not all fall into the same sets of the processor's cache.
    stride: usize,
}

impl<'a> Network<'a> {
    fn new<S: Simd>(simd: S, config: &'a ModelConfig, weights: &'a Weights<'a>) -> Self {
        let block = |block: &BlockWeights<'a>| Block {
            norm_1: block.norm_1,
            qkv: Linear::new(simd, block.qkv),
            attention_proj: Linear::new(simd, block.attention_proj),
            norm_2: block.norm_2,
            fc: Linear::new(simd, block.fc),
            mlp_proj: Linear::new(simd, block.mlp_proj),
        };
        let blocks = weights.blocks.iter().map(block).collect();
        let head = (!weights.head_per_channel).then(|| Linear::transposed(simd, weights.head, config.d_model));
        Self { config, weights, blocks, head, stride: config.n_ctx.next_multiple_of(KEYS) + 16 }
    }

    /// Elements of one sequence's cache: for each layer the keys [E, stride], then the values [E, stride].
    fn cache_len(&self) -> usize {
        self.config.n_layer * 2 * self.config.d_model * self.stride
    }
}

/// A row of activations: which sequence of the tile, and which position of its window.
#[derive(Clone, Copy)]
struct Row {
    sequence: usize,
    position: usize,
}

/// A few sequences, on one thread.
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

/// What a tile works in.
struct Work<'a> {
    cache: &'a mut [f32],
    normal: &'a mut [f32],
    /// [rows, 3E]
    qkv: &'a mut [f32],
    attended: &'a mut [f32],
    /// [rows, 4E]
    hidden: &'a mut [f32],
    scores: &'a mut [f32],
}

impl WithSimd for Tile<'_> {
    type Output = Result<()>;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Result<()> {
        let Self { network, rollout, first, tokens, mut logits, scratch } = self;
        let config = network.config;
        let (e, n_level, n_new) = (config.d_model, config.n_level, rollout.n_new);
        let n = tokens.len() / n_new;
        let rows = ROWS.max(n);
        let [cache, normal, qkv, attended, hidden, scores, window, x, row_logits] = scratch.split([
            n * network.cache_len(),
            rows * e,
            rows * 3 * e,
            rows * e,
            rows * 4 * e,
            network.stride,
            rollout.n_prompt * e,
            n * e,
            n * n_level,
        ]);
        let mut work = Work { cache, normal, qkv, attended, hidden, scores };
        let heads: Vec<Linear> = match network.head {
            Some(_) => Vec::new(),
            None => (first..first + n).map(|i| own_head(simd, network, rollout.channel[i])).collect(),
        };

        for sequence in 0..n {
            if interrupt::requested().is_some() {
                return Ok(());
            }
            read_prompt(simd, network, rollout, first, sequence, &mut work, window);
            x[sequence * e..][..e].copy_from_slice(&window[(rollout.n_prompt - 1) * e..]);
        }
        for step in 0..n_new {
            if step > 0 {
                if interrupt::requested().is_some() {
                    return Ok(());
                }
                let position = rollout.n_prompt + step - 1;
                let rows: Vec<Row> = (0..n).map(|sequence| Row { sequence, position }).collect();
                for sequence in 0..n {
                    let token = tokens[sequence * n_new + step - 1];
                    embed(network, rollout, first + sequence, position, token, &mut x[sequence * e..][..e]);
                }
                for layer in 0..config.n_layer {
                    block(simd, network, layer, &rows, 0, x, &mut work);
                }
            }
            for (x, normal) in x.chunks_exact(e).zip(work.normal.chunks_exact_mut(e)) {
                norm(simd, network.weights.norm, x, normal);
            }
            match &network.head {
                Some(head) => head.apply(simd, n, &work.normal[..n * e], row_logits, false),
                None => {
                    for (i, (head, logits)) in heads.iter().zip(row_logits.chunks_exact_mut(n_level)).enumerate() {
                        head.apply(simd, 1, &work.normal[i * e..][..e], logits, false);
                    }
                }
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

/// Draws the token of `step` of a sequence from its logits.
fn draw(rollout: &Rollout, sequence: usize, step: usize, logits: &[f32]) -> Result<u8> {
    let timestep = rollout.timestep + step as u64;
    let word = match rollout.sampler.greedy {
        true => 0,
        false => word_at(rollout.seed, Purpose::Sampling, rollout.key[sequence], timestep),
    };
    sampler::draw(logits, &rollout.sampler, word).ok_or_else(|| {
        let channel = rollout.channel[sequence];
        let what = format!("the logits of channel {channel} are not finite at generated timestep {timestep}");
        Error::new(Kind::NonFiniteTraining, what).hint("The model has diverged in training: use an earlier checkpoint")
    })
}

/// The head of one channel.
fn own_head<'a, S: Simd>(simd: S, network: &Network<'a>, channel: u32) -> Linear<'a> {
    let (e, len) = (network.config.d_model, network.config.n_level * network.config.d_model);
    Linear::transposed(simd, &network.weights.head[channel as usize * len..][..len], e)
}

/// token + position + channel + subject, and the condition unless it is 0.
fn embed(network: &Network, rollout: &Rollout, sequence: usize, position: usize, token: u8, x: &mut [f32]) {
    let weights = network.weights;
    let fed = rollout.n_prompt + rollout.n_new - 1;
    let condition = usize::from(rollout.condition[sequence * fed + position]);
    let e = x.len();
    x.copy_from_slice(&weights.token[usize::from(token) * e..][..e]);
    let others = [
        (weights.position, position),
        (weights.channel, rollout.channel[sequence] as usize),
        (weights.subject, rollout.subject[sequence] as usize),
        (weights.condition, condition),
    ];
    let others = &others[..if condition > 0 { 4 } else { 3 }];
    for &(table, index) in others {
        for (x, y) in x.iter_mut().zip(&table[index * e..][..e]) {
            *x += y;
        }
    }
}

/// Reads a sequence's prompt into its cache. Of `window`, [n_prompt, E], only the last row is complete afterwards: the
/// last layer answers nothing else.
#[inline(always)]
fn read_prompt<S: Simd>(
    simd: S,
    network: &Network,
    rollout: &Rollout,
    first: usize,
    sequence: usize,
    work: &mut Work,
    window: &mut [f32],
) {
    let (e, n_prompt, n_layer) = (network.config.d_model, rollout.n_prompt, network.config.n_layer);
    let prompt = &rollout.prompt[(first + sequence) * n_prompt..][..n_prompt];
    for (position, (x, &token)) in window.chunks_exact_mut(e).zip(prompt).enumerate() {
        embed(network, rollout, first + sequence, position, token, x);
    }
    let rows: Vec<Row> = (0..n_prompt).map(|position| Row { sequence, position }).collect();
    for layer in 0..n_layer {
        for (rows, x) in rows.chunks(ROWS).zip(window.chunks_mut(ROWS * e)) {
            let is_last = rows.last().is_some_and(|row| row.position + 1 == n_prompt);
            let from = match layer + 1 < n_layer {
                true => 0,
                false => rows.len() - usize::from(is_last),
            };
            block(simd, network, layer, rows, from, x, work);
        }
    }
}

/// One block for some rows of activations `x`, [rows, E]: all of them leave keys and values in the cache, those from
/// `from` on are answered.
#[inline(always)]
fn block<S: Simd>(simd: S, network: &Network, layer: usize, rows: &[Row], from: usize, x: &mut [f32], work: &mut Work) {
    let (e, block) = (network.config.d_model, &network.blocks[layer]);
    for (x, normal) in x.chunks_exact(e).zip(work.normal.chunks_exact_mut(e)) {
        norm(simd, block.norm_1, x, normal);
    }
    block.qkv.apply(simd, rows.len(), &work.normal[..x.len()], work.qkv, false);
    for (row, qkv) in rows.iter().zip(work.qkv.chunks_exact(3 * e)) {
        let cache = &mut work.cache[row.sequence * network.cache_len()..][layer * 2 * e * network.stride..];
        // Row d of the keys, then row d of the values.
        for (cached, value) in cache.chunks_mut(network.stride).zip(&qkv[e..]) {
            cached[row.position] = *value;
        }
    }
    if from == rows.len() {
        return;
    }

    let (rows, x) = (&rows[from..], &mut x[from * e..]);
    for ((row, qkv), out) in
        rows.iter().zip(work.qkv[from * 3 * e..].chunks_exact_mut(3 * e)).zip(work.attended.chunks_exact_mut(e))
    {
        let cache = &work.cache[row.sequence * network.cache_len()..][layer * 2 * e * network.stride..];
        attend(simd, network, row.position + 1, &mut qkv[..e], cache, work.scores, out);
    }
    block.attention_proj.apply(simd, rows.len(), &work.attended[..x.len()], x, true);

    for (x, normal) in x.chunks_exact(e).zip(work.normal.chunks_exact_mut(e)) {
        norm(simd, block.norm_2, x, normal);
    }
    let hidden = &mut work.hidden[..4 * x.len()];
    block.fc.apply(simd, rows.len(), &work.normal[..x.len()], hidden, false);
    for h in hidden.chunks_mut(S::F32_LANES) {
        let value = gelu(simd, load(simd, h));
        store(simd, h, value);
    }
    block.mlp_proj.apply(simd, rows.len(), hidden, x, true);
}

/// One row's LayerNorm.
#[inline(always)]
fn norm<S: Simd>(simd: S, (weight, bias): Norm, x: &[f32], y: &mut [f32]) {
    normalize(simd, x, y);
    for ((y, weight), bias) in
        y.chunks_mut(S::F32_LANES).zip(weight.chunks(S::F32_LANES)).zip(bias.chunks(S::F32_LANES))
    {
        let value = simd.mul_add_e_f32s(load(simd, y), load(simd, weight), load(simd, bias));
        store(simd, y, value);
    }
}

/// One query against the first `n_key` keys of a layer's cache, all heads: out = softmax(q·kᵀ/√D)·v.
#[inline(always)]
fn attend<S: Simd>(
    simd: S,
    network: &Network,
    n_key: usize,
    q: &mut [f32],
    cache: &[f32],
    scores: &mut [f32],
    out: &mut [f32],
) {
    let (d_head, stride) = (network.config.d_head(), network.stride);
    let (keys, values) = cache.split_at(q.len() * stride);
    let scale = 1.0 / (d_head as f32).sqrt();
    for (((q, out), keys), values) in q
        .chunks_exact_mut(d_head)
        .zip(out.chunks_exact_mut(d_head))
        .zip(keys.chunks_exact(d_head * stride))
        .zip(values.chunks(d_head * stride))
    {
        q.iter_mut().for_each(|q| *q *= scale);
        for first in (0..n_key).step_by(KEYS) {
            score(simd, q, &keys[first..], stride, &mut scores[first..][..KEYS]);
        }
        let probabilities = &mut scores[..n_key];
        let (_, sum) = exponentials(simd, probabilities);
        for (out, values) in out.iter_mut().zip(values.chunks(stride)) {
            *out = dot(simd, probabilities, &values[..n_key]) / sum;
        }
    }
}

/// scores[t] = Σ_d q[d] · keys[d, t], d ascending, for `KEYS` keys.
#[inline(always)]
fn score<S: Simd>(simd: S, q: &[f32], keys: &[f32], stride: usize, scores: &mut [f32]) {
    // Four vectors of the widest set make up KEYS; narrower sets go round more often.
    for (i, scores) in S::as_mut_simd_f32s(scores).0.chunks_exact_mut(4).enumerate() {
        let mut sums = [simd.splat_f32s(0.0); 4];
        for (d, &q) in q.iter().enumerate() {
            let q = simd.splat_f32s(q);
            let keys = S::as_simd_f32s(&keys[d * stride + i * 4 * S::F32_LANES..][..4 * S::F32_LANES]).0;
            for (sum, &key) in sums.iter_mut().zip(keys) {
                *sum = simd.mul_add_e_f32s(q, key, *sum);
            }
        }
        scores.copy_from_slice(&sums);
    }
}

/// Σ a[i]·b[i]; lanes first, then the lanes together.
#[inline(always)]
fn dot<S: Simd>(simd: S, a: &[f32], b: &[f32]) -> f32 {
    let mut sum = simd.splat_f32s(0.0);
    for (a, b) in a.chunks(S::F32_LANES).zip(b.chunks(S::F32_LANES)) {
        sum = simd.mul_add_e_f32s(load(simd, a), load(simd, b), sum);
    }
    simd.reduce_sum_f32s(sum)
}

#[cfg(test)]
mod tests;
