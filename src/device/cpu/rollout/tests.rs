//! The bits of a rollout: in other batches, on other threads, with the tokens read instead of drawn.

use super::Cpu;
use crate::device::{Device, Dtype, Rollout, Sampler};
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
        let mut cpu = Cpu::new(Some(n_thread)).unwrap();
        let buffer = cpu.alloc(Dtype::F32, model.flat.len()).unwrap();
        cpu.upload(buffer, bytemuck::cast_slice(&model.flat)).unwrap();
        cpu.rollout(&model.config, &model.layout.bind(buffer), &rollout, &mut tokens, Some(&mut logits))?;
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
