//! The rollout against a plain float64 network without a cache, and against itself: in other batches, on other threads,
//! with the tokens read instead of drawn.

use super::super::team::Team;
use super::{BlockWeights, Job, Weights};
use crate::device::{Rollout, Sampler};
use crate::error::{Kind, Result};
use crate::model::config::{Head, ModelConfig};
use crate::model::layout::ParamLayout;
use crate::random::{Purpose, keyed};
use rand::Rng;

const GREEDY: Sampler = Sampler { temperature: 1.0, top_k: 0, top_p: 1.0, greedy: true };
const NUCLEUS: Sampler = Sampler { temperature: 1.0, top_k: 0, top_p: 0.8, greedy: false };

/// A network with parameters large enough that everything matters.
struct Model {
    config: ModelConfig,
    layout: ParamLayout,
    flat: Vec<f32>,
}

impl Model {
    fn new(n_layer: usize, n_head: usize, d_head: usize, n_ctx: usize, n_level: usize, head: Head) -> Self {
        let d_model = n_head * d_head;
        let config =
            ModelConfig { n_layer, n_head, d_model, n_ctx, n_level, n_channel: 5, n_subject: 2, n_condition: 3, head };
        config.check().unwrap();
        let layout = ParamLayout::new(&config);
        let mut noise = keyed(3, Purpose::Init, n_ctx as u64);
        let flat = (0..layout.len()).map(|_| (noise.next_u32() as f64 / u32::MAX as f64 - 0.5) as f32).collect();
        Self { config, layout, flat }
    }

    fn get(&self, name: &str) -> &[f32] {
        let entry = self.layout.entry(name);
        &self.flat[entry.offset..][..entry.len]
    }

    fn weights(&self) -> Weights<'_> {
        let pair = |name: String| (self.get(&format!("{name}.weight")), self.get(&format!("{name}.bias")));
        let block = |layer: usize| BlockWeights {
            norm_1: pair(format!("h.{layer}.ln_1")),
            qkv: pair(format!("h.{layer}.attn.c_attn")),
            attention_proj: pair(format!("h.{layer}.attn.c_proj")),
            norm_2: pair(format!("h.{layer}.ln_2")),
            fc: pair(format!("h.{layer}.mlp.c_fc")),
            mlp_proj: pair(format!("h.{layer}.mlp.c_proj")),
        };
        Weights {
            token: self.get("wte"),
            position: self.get("wpe"),
            channel: self.get("wce"),
            subject: self.get("wse"),
            condition: self.get("wye"),
            blocks: (0..self.config.n_layer).map(block).collect(),
            norm: pair("ln_f".into()),
            head: self.get("lm_head"),
            head_per_channel: self.config.head == Head::PerChannel,
        }
    }

    /// x · weight + bias in float64.
    fn project(&self, name: &str, x: &[f64]) -> Vec<f64> {
        let (weight, bias) = (self.get(&format!("{name}.weight")), self.get(&format!("{name}.bias")));
        let column = |j: usize| (0..x.len()).map(|i| x[i] * f64::from(weight[i * bias.len() + j])).sum::<f64>();
        (0..bias.len()).map(|j| column(j) + f64::from(bias[j])).collect()
    }

    fn norm(&self, name: &str, x: &[f64]) -> Vec<f64> {
        let (weight, bias) = (self.get(&format!("{name}.weight")), self.get(&format!("{name}.bias")));
        let mean = x.iter().sum::<f64>() / x.len() as f64;
        let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / x.len() as f64;
        let scale = 1.0 / (variance + 1e-5).sqrt();
        (0..x.len()).map(|i| (x[i] - mean) * scale * f64::from(weight[i]) + f64::from(bias[i])).collect()
    }

    /// The logits that follow the last of `tokens`, and for each the sum of the absolute products it is made of: the
    /// paper's formulas, one after the other.
    fn oracle(&self, tokens: &[u8], condition: &[u16], channel: u32, subject: u32) -> Vec<(f64, f64)> {
        let e = self.config.d_model;
        let row = |name: &str, i: usize| self.get(name)[i * e..][..e].iter().map(|&x| f64::from(x)).collect::<Vec<_>>();
        let add = |x: &mut Vec<f64>, y: Vec<f64>| x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
        let mut xs: Vec<Vec<f64>> = Vec::new();
        for (t, &token) in tokens.iter().enumerate() {
            let mut x = row("wte", token.into());
            add(&mut x, row("wpe", t));
            add(&mut x, row("wce", channel as usize));
            add(&mut x, row("wse", subject as usize));
            if condition[t] > 0 {
                add(&mut x, row("wye", condition[t].into()));
            }
            xs.push(x);
        }
        let d = self.config.d_head();
        for layer in 0..self.config.n_layer {
            let name = |part: &str| format!("h.{layer}.{part}");
            let qkv: Vec<Vec<f64>> =
                xs.iter().map(|x| self.project(&name("attn.c_attn"), &self.norm(&name("ln_1"), x))).collect();
            for t in 0..xs.len() {
                let mut answer = vec![0.0; e];
                for head in (0..e).step_by(d) {
                    let score = |s: usize| (0..d).map(|i| qkv[t][head + i] * qkv[s][e + head + i]).sum::<f64>();
                    let exp: Vec<f64> = (0..=t).map(|s| (score(s) / (d as f64).sqrt()).exp()).collect();
                    let sum: f64 = exp.iter().sum();
                    for i in 0..d {
                        answer[head + i] = (0..=t).map(|s| exp[s] / sum * qkv[s][2 * e + head + i]).sum();
                    }
                }
                add(&mut xs[t], self.project(&name("attn.c_proj"), &answer));
                let gelu = |x: f64| 0.5 * x * (1.0 + (0.797_884_560_802_865_4 * (x + 0.044715 * x.powi(3))).tanh());
                let hidden: Vec<f64> =
                    self.project(&name("mlp.c_fc"), &self.norm(&name("ln_2"), &xs[t])).into_iter().map(gelu).collect();
                add(&mut xs[t], self.project(&name("mlp.c_proj"), &hidden));
            }
        }
        let last = self.norm("ln_f", xs.last().unwrap());
        let n_level = self.config.n_level;
        let first = if self.config.head == Head::PerChannel { channel as usize * n_level } else { 0 };
        let products =
            |q: usize| row("lm_head", first + q).into_iter().zip(&last).map(|(w, x)| w * x).collect::<Vec<_>>();
        let sums = |products: Vec<f64>| (products.iter().sum(), products.iter().map(|p| p.abs()).sum());
        (0..n_level).map(|q| sums(products(q))).collect()
    }
}

/// A batch of sequences.
#[derive(Clone)]
struct Batch {
    n_prompt: usize,
    n_new: usize,
    prompt: Vec<u8>,
    condition: Vec<u16>,
    channel: Vec<u32>,
    subject: Vec<u32>,
    key: Vec<u64>,
    timestep: u64,
}

impl Batch {
    fn new(config: &ModelConfig, n: usize, n_prompt: usize, n_new: usize) -> Self {
        let mut noise = keyed(4, Purpose::Init, n as u64);
        let mut below = |limit: usize| noise.next_u32() as usize % limit;
        let fed = n_prompt + n_new - 1;
        Self {
            n_prompt,
            n_new,
            prompt: (0..n * n_prompt).map(|_| below(config.n_level) as u8).collect(),
            condition: (0..n * fed).map(|_| below(config.n_condition + 1) as u16).collect(),
            channel: (0..n).map(|_| below(config.n_channel) as u32).collect(),
            subject: (0..n).map(|_| below(config.n_subject) as u32).collect(),
            key: (0..n as u64).map(|i| i * 7 + 1).collect(),
            timestep: 40,
        }
    }

    fn n(&self) -> usize {
        self.channel.len()
    }

    fn fed(&self) -> usize {
        self.n_prompt + self.n_new - 1
    }

    /// The sequence number `i` alone.
    fn alone(&self, i: usize) -> Self {
        let fed = self.fed();
        Self {
            prompt: self.prompt[i * self.n_prompt..][..self.n_prompt].to_vec(),
            condition: self.condition[i * fed..][..fed].to_vec(),
            channel: vec![self.channel[i]],
            subject: vec![self.subject[i]],
            key: vec![self.key[i]],
            ..*self
        }
    }

    /// The same sequences with the first `k` drawn tokens read instead.
    fn later(&self, tokens: &[u8], k: usize) -> Self {
        let prompts = self.prompt.chunks(self.n_prompt).zip(tokens.chunks(self.n_new));
        Self {
            prompt: prompts.flat_map(|(prompt, new)| [prompt, &new[..k]].concat()).collect(),
            n_prompt: self.n_prompt + k,
            n_new: self.n_new - k,
            timestep: self.timestep + k as u64,
            ..self.clone()
        }
    }

    fn run(&self, model: &Model, sampler: Sampler, n_thread: usize) -> Result<(Vec<u8>, Vec<f32>)> {
        let mut tokens = vec![0; self.n() * self.n_new];
        let mut logits = vec![0.0; tokens.len() * model.config.n_level];
        let rollout = Rollout {
            n: self.n(),
            n_prompt: self.n_prompt,
            n_new: self.n_new,
            prompt: &self.prompt,
            condition: &self.condition,
            channel: &self.channel,
            subject: &self.subject,
            key: &self.key,
            timestep: self.timestep,
            seed: 11,
            sampler,
        };
        let team = Team::new(pulp::Arch::new(), n_thread).unwrap();
        let job = Job {
            config: &model.config,
            weights: model.weights(),
            rollout: &rollout,
            tokens: &mut tokens,
            logits: Some(&mut logits),
            team: &team,
        };
        team.arch.dispatch(job)?;
        Ok((tokens, logits))
    }
}

/// Awkward shapes: one layer, one head, head widths around a vector, one level below and above the row tile and the key
/// group (64), the shortest window.
fn cases() -> Vec<(Model, usize, usize, usize)> {
    let (shared, own) = (Head::Shared, Head::PerChannel);
    vec![
        (Model::new(1, 1, 1, 2, 2, shared), 1, 1, 2),
        (Model::new(2, 3, 5, 16, 17, shared), 3, 1, 16),
        (Model::new(2, 3, 5, 16, 17, own), 9, 16, 1),
        (Model::new(2, 2, 8, 66, 256, own), 2, 63, 4),
        (Model::new(3, 2, 8, 66, 33, shared), 17, 64, 3),
        (Model::new(2, 1, 20, 130, 31, shared), 2, 65, 66),
        (Model::new(2, 2, 16, 130, 256, shared), 1, 129, 2),
    ]
}

#[test]
fn logits_are_the_networks_at_every_position() {
    for (model, n, n_prompt, n_new) in cases() {
        let config = &model.config;
        let batch = Batch::new(config, n, n_prompt, n_new);
        let (tokens, logits) = batch.run(&model, NUCLEUS, 2).unwrap();
        let mut worst = 0.0f64;
        for i in 0..n.min(3) {
            let one = batch.alone(i);
            let all = [&one.prompt, &tokens[i * n_new..][..n_new]].concat();
            for step in [0, 1, n_new / 2, n_new - 1].into_iter().filter(|&step| step < n_new) {
                let known = n_prompt + step;
                let expected = model.oracle(&all[..known], &one.condition, one.channel[0], one.subject[0]);
                let row = &logits[(i * n_new + step) * config.n_level..][..config.n_level];
                for (got, (want, absolute)) in row.iter().zip(expected) {
                    // The longest sum of products is the MLP's, 4E, or attention's, T. Each of the 2L + 1 half-blocks
                    // passes on a relative error of that many roundings; norms keep it relative.
                    let longest = (4 * config.d_model).max(config.n_ctx) as f64;
                    let bound = (2 * config.n_layer + 1) as f64 * longest / 16_777_216.0 * absolute;
                    let error = (f64::from(*got) - want).abs();
                    worst = worst.max(error / bound);
                    assert!(error <= bound, "{config:?} step {step}: {got} for {want}, bound {bound:e}");
                }
            }
        }
        eprintln!("E {} T {}: at worst {worst:.3} of the bound", config.d_model, config.n_ctx);
    }
}

#[test]
fn tokens_read_and_tokens_drawn_leave_the_same_bits() {
    for (model, n, n_prompt, n_new) in cases() {
        let batch = Batch::new(&model.config, n, n_prompt, n_new);
        let (tokens, logits) = batch.run(&model, NUCLEUS, 1).unwrap();
        for k in [1, n_new / 2, n_new - 1].into_iter().filter(|&k| k > 0 && k < n_new) {
            let (later_tokens, later_logits) = batch.later(&tokens, k).run(&model, NUCLEUS, 1).unwrap();
            for i in 0..n {
                let (new, left, q) = (n_new, n_new - k, model.config.n_level);
                assert_eq!(later_tokens[i * left..][..left], tokens[i * new + k..][..left]);
                assert_eq!(later_logits[i * left * q..][..left * q], logits[(i * new + k) * q..][..left * q]);
            }
        }
    }
}

#[test]
fn neither_batch_nor_place_nor_threads_change_a_bit() {
    let model = Model::new(2, 3, 5, 40, 64, Head::Shared);
    let batch = Batch::new(&model.config, 37, 30, 10);
    let whole = batch.run(&model, NUCLEUS, 1).unwrap();
    for n_thread in [2, 3, 5] {
        assert!(batch.run(&model, NUCLEUS, n_thread).unwrap() == whole, "{n_thread} threads");
    }
    for i in [0, 1, 7, 8, 9, 36] {
        let (tokens, logits) = batch.alone(i).run(&model, NUCLEUS, 1).unwrap();
        assert_eq!(tokens, whole.0[i * 10..][..10]);
        assert_eq!(logits, whole.1[i * 640..][..640]);
    }
}

/// What is drawn, is drawn from the logits that are returned, with the word of its key and timestep.
#[test]
fn tokens_are_drawn_from_the_logits() {
    let model = Model::new(1, 2, 4, 12, 64, Head::Shared);
    let batch = Batch::new(&model.config, 4, 3, 9);
    for sampler in [GREEDY, NUCLEUS] {
        let (tokens, logits) = batch.run(&model, sampler, 1).unwrap();
        for (at, (&token, logits)) in tokens.iter().zip(logits.chunks(64)).enumerate() {
            let word = crate::random::word_at(11, Purpose::Sampling, batch.key[at / 9], 40 + (at % 9) as u64);
            assert_eq!(Some(token), super::sampler::draw(logits, &sampler, word));
        }
    }
}

#[test]
fn a_model_that_diverged_is_an_error() {
    let mut model = Model::new(1, 2, 4, 12, 64, Head::Shared);
    let at = model.layout.entry("wpe").offset + 5 * 8;
    model.flat[at] = f32::NAN;
    let error = Batch::new(&model.config, 2, 3, 9).run(&model, NUCLEUS, 1).unwrap_err();
    assert_eq!(error.kind(), Kind::NonFiniteTraining);
    assert!(error.to_string().contains("timestep 43"), "{error}");
}
