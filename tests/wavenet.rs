//! WaveNet: the oracle against finite differences and PyTorch, the CPU against both, and generation against recomputation.

#[path = "oracle/mod.rs"]
mod oracle;
#[path = "support/tensors.rs"]
mod tensors;

use gpt2meg::device::cpu::Cpu;
use gpt2meg::device::{AdamW, Call, Device, Dtype, Inputs, OptimizerState, Rollout, Sampler, Tensor};
use gpt2meg::model::layout::ParamLayout;
use gpt2meg::model::wavenet::{Backward, Wavenet, WavenetConfig};
use gpt2meg::random::{Purpose, word_at};
use oracle::network::{Batch, Table};
use oracle::number::{Matrix, Number};
use oracle::wavenet::{Outcome, Shape, run};
use safetensors::SafeTensors;
use serde_json::Value;
use tensors::numbers;

/// Numbers that look random, in [−1, 1].
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    fn below(&mut self, n: usize) -> usize {
        ((f64::from(self.next()) + 1.0) / 2.0 * n as f64).min(n as f64 - 1.0) as usize
    }
}

fn shape(config: &WavenetConfig) -> Shape {
    let &WavenetConfig { n_ctx, n_level, n_channel, .. } = config;
    Shape { dilations: config.dilations().collect(), n_ctx, n_level, n_channel }
}

/// Parameters large enough that no gate is near linear.
fn parameters(config: &WavenetConfig, noise: &mut Noise) -> Vec<f32> {
    (0..config.layout().len()).map(|_| 0.7 * noise.next()).collect()
}

fn table(layout: &ParamLayout, flat: &[f32]) -> Table {
    let matrix = |columns: usize, data: &[f32]| Matrix::exact(data.len() / columns, columns, data);
    let entries = layout.entries().iter();
    entries.map(|e| (e.name.clone(), matrix(*e.shape.last().unwrap(), &flat[e.offset..][..e.len]))).collect()
}

/// `n_window` windows of all channels; conditions stay for a while, as they do.
fn windows(config: &WavenetConfig, n_window: usize, noise: &mut Noise) -> Batch {
    let n = n_window * config.n_channel;
    let mut batch = Batch { token: vec![], condition: vec![], channel: vec![], subject: vec![] };
    for i in 0..n {
        batch.token.push((0..=config.n_ctx).map(|_| noise.below(config.n_level) as u8).collect());
        let mut now = 0;
        let series = (0..config.n_ctx).map(|_| {
            if noise.below(4) == 0 {
                now = noise.below(config.n_condition + 1) as u16;
            }
            now
        });
        batch.condition.push(series.collect());
        batch.channel.push((i % config.n_channel) as u32);
        batch.subject.push((i / config.n_channel % config.n_subject) as u32);
    }
    batch
}

fn small(mix: bool) -> WavenetConfig {
    WavenetConfig {
        d_skip: 4,
        d_hidden: 3,
        d_token: 2,
        d_condition: 2,
        d_subject: 1,
        n_ctx: 10,
        n_level: 5,
        ..WavenetConfig::tiny(mix, 2, 2, 2)
    }
    .with_layers(2, 2, 3)
}

/// Shapes of tests, which are not the presets'.
trait WithLayers {
    fn with_layers(self, n_layer: usize, n_cycle: usize, d_model: usize) -> Self;
}

impl WithLayers for WavenetConfig {
    fn with_layers(self, n_layer: usize, n_cycle: usize, d_model: usize) -> Self {
        let config = Self { n_layer, n_cycle, d_model, ..self };
        config.check().unwrap();
        config
    }
}

#[test]
fn the_oracles_gradients_are_finite_differences() {
    for mix in [false, true] {
        let (config, mut noise) = (small(mix), Noise(1));
        let params = table(&config.layout(), &parameters(&config, &mut noise));
        let batch = windows(&config, 2, &mut noise);
        let (shape, levels) = (shape(&config), vec![0.0; config.n_level]);
        let grads = run(&params, &shape, &batch, &levels).grads;
        let step = 1e-4;
        for (name, grad) in &grads {
            for i in 0..grad.data.len() {
                let loss = |by: f64| {
                    let mut params = params.clone();
                    let value = &mut params.get_mut(name).unwrap().data[i];
                    *value = Number::from(value.v + by);
                    run(&params, &shape, &batch, &levels).loss.v
                };
                // Fourth order, as for GPT2MEG; a step of 1e-4 crosses no kink of the leaky ReLU here.
                let slope = (8.0 * (loss(step) - loss(-step)) - (loss(2.0 * step) - loss(-2.0 * step))) / (12.0 * step);
                let found = grad.data[i].v;
                assert!((slope - found).abs() < 1e-9 + 1e-7 * slope.abs(), "{name}[{i}]: {slope} and {found}");
            }
        }
    }
}

/// What PyTorch made: see `tests/fixtures/make_wavenet.py`.
struct Fixture {
    config: WavenetConfig,
    lr: f32,
    flat: Vec<f32>,
    grads: Vec<(String, Vec<f64>)>,
    batch: Batch,
    logits: Vec<f64>,
    losses: Vec<f64>,
}

impl Fixture {
    fn both() -> [Self; 2] {
        [
            include_bytes!("fixtures/pytorch/wavenet.safetensors").as_slice(),
            include_bytes!("fixtures/pytorch/wavenet_mix.safetensors"),
        ]
        .map(Self::read)
    }

    fn read(bytes: &[u8]) -> Self {
        let file = SafeTensors::deserialize(bytes).unwrap();
        let (_, header) = SafeTensors::read_metadata(bytes).unwrap();
        let metadata = header.metadata().clone().unwrap();
        let config: WavenetConfig =
            serde_json::from_value(serde_json::from_str::<Value>(&metadata["shape"]).unwrap()).unwrap();
        config.check().unwrap();
        let layout = config.layout();
        let mut flat = vec![0.0; layout.len()];
        let mut grads = Vec::new();
        for entry in layout.entries() {
            let tensor = file.tensor(&format!("param.{}", entry.name)).unwrap();
            assert_eq!(tensor.shape(), entry.shape, "{}", entry.name);
            flat[entry.offset..][..entry.len].copy_from_slice(&numbers(&file, &format!("param.{}", entry.name)));
            grads.push((entry.name.clone(), numbers(&file, &format!("grad.{}", entry.name))));
        }
        let t = config.n_ctx;
        let token: Vec<u8> = numbers(&file, "token");
        let condition: Vec<u16> = numbers(&file, "condition");
        let batch = Batch {
            token: token.chunks(t + 1).map(<[u8]>::to_vec).collect(),
            condition: condition.chunks(t).map(<[u16]>::to_vec).collect(),
            channel: numbers(&file, "channel"),
            subject: numbers(&file, "subject"),
        };
        let lr = metadata["lr"].parse().unwrap();
        Self { config, lr, flat, grads, batch, logits: numbers(&file, "logits"), losses: numbers(&file, "losses") }
    }

    fn oracle(&self) -> Outcome {
        let levels = vec![0.0; self.config.n_level];
        run(&table(&self.config.layout(), &self.flat), &shape(&self.config), &self.batch, &levels)
    }
}

#[test]
fn the_oracle_is_pytorch() {
    for fixture in Fixture::both() {
        let outcome = fixture.oracle();
        // Both are f64; the factor 1 / targets is an f32 here, and so is the slope of the leaky ReLU: 2⁻²⁴ off, a few times.
        let near = |ours: f64, theirs: f64| (ours - theirs).abs() <= 1e-9 + 2e-7 * theirs.abs();
        assert!(near(outcome.loss.v, fixture.losses[0]), "{} {}", outcome.loss.v, fixture.losses[0]);
        let logits: Vec<_> = outcome.logits.iter().flat_map(|logits| &logits.data).collect();
        assert_eq!(logits.len(), fixture.logits.len());
        for (ours, &theirs) in logits.iter().zip(&fixture.logits) {
            assert!((ours.v - theirs).abs() < 1e-7, "{} {theirs}", ours.v);
        }
        for (name, theirs) in &fixture.grads {
            for (ours, &theirs) in outcome.grads[name].data.iter().zip(theirs) {
                assert!((ours.v - theirs).abs() <= 1e-7 * (1.0 + theirs.abs()), "{name}: {} {theirs}", ours.v);
            }
        }
    }
}

/// A WaveNet on the CPU, with a batch.
struct Machine {
    device: Cpu,
    net: Wavenet,
    layout: ParamLayout,
    backward: Backward,
    inputs: Inputs,
    levels: Vec<f32>,
    scores: Tensor,
    state: OptimizerState,
    n: usize,
}

fn put<T: bytemuck::Pod>(device: &mut dyn Device, dtype: Dtype, data: &[T]) -> Tensor {
    let tensor = device.alloc(dtype, data.len()).unwrap();
    device.upload(tensor, bytemuck::cast_slice(data)).unwrap();
    tensor
}

impl Machine {
    fn new(mut device: Cpu, config: &WavenetConfig, flat: &[f32], batch: &Batch) -> Self {
        let layout = config.layout();
        let (p, n) = (layout.len(), batch.token.len());
        let levels: Vec<f32> = (0..config.n_level).map(|level| (level as f32 * 0.37).sin()).collect();
        let to = &mut device;
        let inputs = Inputs {
            token: put(to, Dtype::U8, &batch.token.concat()),
            condition: put(to, Dtype::U16, &batch.condition.concat()),
            channel: put(to, Dtype::U32, &batch.channel),
            subject: put(to, Dtype::U32, &batch.subject),
        };
        let params = put(to, Dtype::F32, flat);
        let (m, v) = (to.alloc(Dtype::F32, p).unwrap(), to.alloc(Dtype::F32, p).unwrap());
        let grads = to.alloc(Dtype::F32, to.grad_slots() * p).unwrap();
        let scores = put(to, Dtype::F32, &vec![f32::NAN; n * 4]);
        let values = put(to, Dtype::F32, &levels);
        let weight = 1.0 / (n * (config.n_ctx - config.first_target())) as f32;
        Self {
            net: Wavenet { config: config.clone(), params: config.bind(&layout, params), levels: values },
            backward: Backward { grads: config.bind(&layout, grads), weight },
            state: OptimizerState { params, grads, m, v, n_decayed: layout.n_decayed() },
            device,
            layout,
            inputs,
            levels,
            scores,
            n,
        }
    }

    fn get(&mut self, tensor: Tensor) -> Vec<f32> {
        let mut data = vec![0.0f32; tensor.len];
        self.device.download(tensor, bytemuck::cast_slice_mut(&mut data)).unwrap();
        data
    }

    /// Forward and backward in calls of up to `most` sequences; the sequences' scores.
    fn step(&mut self, most: usize) -> Vec<f32> {
        let work = self.net.workspace(&mut self.device, most, true).unwrap();
        let backward = Some(&self.backward);
        assert!(self.net.loss(&mut self.device, &self.inputs, self.n, &work, self.scores, backward).unwrap());
        self.get(self.scores)
    }

    fn nats(&mut self) -> f64 {
        let n_target = self.n * (self.net.config.n_ctx - self.net.config.first_target());
        self.step(4).chunks(4).map(|row| f64::from(row[0])).sum::<f64>() / n_target as f64
    }

    /// The slots' sum, as the update has it or nearly.
    fn gradient(&mut self) -> Vec<f32> {
        let (p, slots) = (self.layout.len(), self.get(self.state.grads));
        (0..p).map(|i| slots.chunks(p).map(|slot| slot[i]).sum()).collect()
    }
}

/// Awkward shapes: one of everything; widths of 1 and around a vector; the least window; tiles of 64 timesteps missed by one;
/// more layers than a cycle; one level of many; many channels.
fn cases() -> Vec<(WavenetConfig, usize)> {
    let shape = |mix, [n_layer, n_cycle, d_model]: [usize; 3], n_ctx, [c, s, y]: [usize; 3], n_level| {
        let base = WavenetConfig::tiny(mix, c, s, y).with_width(d_model);
        WavenetConfig { n_ctx, n_level, d_condition: 3, d_subject: if s > 1 { 2 } else { 0 }, ..base }
            .with_layers(n_layer, n_cycle, d_model)
    };
    vec![
        (shape(false, [1, 1, 1], 2, [1, 1, 0], 2), 1),
        (shape(true, [1, 1, 1], 2, [1, 1, 0], 2), 2),
        (shape(false, [2, 2, 8], 6, [3, 2, 2], 16), 2),
        (shape(true, [3, 2, 5], 8, [3, 2, 2], 17), 2),
        (shape(false, [6, 6, 3], 130, [2, 1, 4], 7), 1),
        (shape(true, [7, 3, 17], 30, [5, 3, 1], 33), 2),
        (shape(true, [2, 1, 4], 12, [17, 1, 3], 9), 1),
        (WavenetConfig { d_skip: 33, d_hidden: 1, d_token: 19, ..shape(false, [4, 3, 6], 258, [1, 1, 2], 256) }, 1),
    ]
}

#[test]
fn the_cpu_has_the_oracles_scores_and_gradients() {
    for (number, (config, n_window)) in cases().into_iter().enumerate() {
        let mut noise = Noise(number as u64 + 5);
        let (flat, batch) = (parameters(&config, &mut noise), windows(&config, n_window, &mut noise));
        let mut machine = Machine::new(Cpu::new(Some(2)).unwrap(), &config, &flat, &batch);
        let scores = machine.step(4);
        let outcome = run(&table(&config.layout(), &flat), &shape(&config), &batch, &machine.levels);
        for (i, (expected, score)) in outcome.entropy.iter().zip(scores.chunks_exact(4)).enumerate() {
            let nats = expected.nats;
            assert!(
                nats.allows(score[0], 1),
                "{config:?}, nats {i}: {} for {} ± {:e}",
                score[0],
                nats.v,
                nats.deviation()
            );
            for (value, (least, most)) in score[1..].iter().zip([expected.top1, expected.top5, expected.squared]) {
                let room = 1e-6 * most;
                assert!((least - room..=most + room).contains(&f64::from(*value)), "{config:?}, {i}: {score:?}");
            }
        }
        let got = machine.gradient();
        for entry in machine.layout.entries() {
            for (i, expected) in outcome.grads[&entry.name].data.iter().enumerate() {
                let (name, value) = (&entry.name, got[entry.offset + i]);
                let far = expected.deviation();
                assert!(expected.allows(value, 1), "{config:?}, {name}[{i}]: {value} for {} ± {far:e}", expected.v);
            }
        }
    }
}

#[test]
fn the_cpu_has_pytorchs_ten_steps() {
    for fixture in Fixture::both() {
        let outcome = fixture.oracle();
        let gradient_error: f64 = outcome.grads.values().flat_map(|g| &g.data).map(|g| g.deviation()).sum();
        let cpu = Cpu::new(Some(2)).unwrap();
        let mut machine = Machine::new(cpu, &fixture.config, &fixture.flat, &fixture.batch);
        for (step, &expected) in fixture.losses.iter().enumerate() {
            let loss = machine.nats();
            // As for GPT2MEG: 2 · lr · error for each parameter and step.
            let bound = outcome.loss.deviation() + 2.0 * f64::from(fixture.lr) * gradient_error * step as f64;
            assert!((loss - expected).abs() <= bound, "step {step}: {loss} for {expected} ± {bound:e}");
            assert!(bound < 0.02 * (fixture.losses[0] - expected).abs().max(0.1), "a bound of {bound:e} proves little");
            let hyper = AdamW {
                lr: fixture.lr,
                beta1: 0.9,
                beta2: 0.999,
                eps: 1e-8,
                weight_decay: 0.0,
                max_norm: f32::INFINITY,
                step: step as u64 + 1,
            };
            assert!(machine.device.update(&machine.state, &hyper, machine.scores).unwrap().applied);
        }
    }
}

/// Any number of threads, any cut of a step into calls, the instruction set alone decides.
#[test]
fn neither_threads_nor_calls_change_a_bit() {
    for mix in [false, true] {
        let config = WavenetConfig { d_subject: 2, ..WavenetConfig::tiny(mix, 5, 2, 3).with_width(9) };
        let config = WavenetConfig { n_ctx: 74, n_level: 20, ..config }.with_layers(5, 5, 9);
        let mut noise = Noise(3);
        let (flat, batch) = (parameters(&config, &mut noise), windows(&config, 4, &mut noise));
        let run = |threads, most| {
            let mut machine = Machine::new(Cpu::new(Some(threads)).unwrap(), &config, &flat, &batch);
            let scores = machine.step(most);
            let grads = machine.get(machine.state.grads);
            scores.into_iter().chain(grads).map(f32::to_bits).collect::<Vec<_>>()
        };
        let base = run(1, 16);
        for (threads, most) in [(2, 16), (3, 7), (5, 1), (1, 3)] {
            assert!(run(threads, most) == base, "mix {mix}, {threads} threads, calls of {most}");
        }
    }
}

const NUCLEUS: Sampler = Sampler { temperature: 1.0, top_k: 0, top_p: 0.8, greedy: false };

/// Generates `n_new` tokens of each sequence of `batch` after `n_prompt`, in chunks; tokens and logits.
fn generate(machine: &mut Machine, batch: &Batch, n_prompt: usize, chunks: &[usize]) -> (Vec<Vec<u8>>, Vec<Vec<f32>>) {
    let (n, q) = (batch.token.len(), machine.net.config.n_level);
    let mut all: Vec<Vec<u8>> = batch.token.iter().map(|tokens| tokens[..n_prompt].to_vec()).collect();
    let mut all_logits = vec![Vec::new(); n];
    let mut done = 0;
    for &n_new in chunks {
        let prompt: Vec<u8> = all.iter().flat_map(|tokens| tokens[tokens.len() - n_prompt..].to_vec()).collect();
        let condition: Vec<u16> =
            batch.condition.iter().flat_map(|series| series[done..][..n_prompt + n_new - 1].to_vec()).collect();
        let key: Vec<u64> = (0..n as u64).map(|i| 3 * i + 1).collect();
        let rollout = Rollout {
            n,
            n_prompt,
            n_new,
            prompt: &prompt,
            condition: &condition,
            channel: &batch.channel,
            subject: &batch.subject,
            key: &key,
            timestep: done as u64,
            seed: 11,
            sampler: NUCLEUS,
        };
        let (mut tokens, mut logits) = (vec![0; n * n_new], vec![0.0; n * n_new * q]);
        let (config, params) = (&machine.net.config, &machine.net.params);
        let stages = machine.device.wavenet().unwrap();
        stages.rollout(config, params, &rollout, &mut tokens, Some(&mut logits)).unwrap();
        for (i, (tokens, logits)) in tokens.chunks(n_new).zip(logits.chunks(n_new * q)).enumerate() {
            all[i].extend(tokens);
            all_logits[i].extend(logits);
        }
        done += n_new;
    }
    (all, all_logits)
}

/// The logits of timesteps `from ..` of whole sequences, all computed at once.
fn recomputed(machine: &mut Machine, tokens: &[Vec<u8>], batch: &Batch, from: usize) -> Vec<f32> {
    let (n, t, config) = (tokens.len(), tokens[0].len() - 1, machine.net.config.clone());
    let device = &mut machine.device;
    let conditions: Vec<u16> = batch.condition.iter().flat_map(|series| series[..t].to_vec()).collect();
    let inputs = Inputs {
        token: put(device, Dtype::U8, &tokens.concat()),
        condition: put(device, Dtype::U16, &conditions),
        channel: put(device, Dtype::U32, &batch.channel),
        subject: put(device, Dtype::U32, &batch.subject),
    };
    let len = (t - from) * config.d_skip;
    let [skips, mixed] = [(); 2].map(|()| device.alloc(Dtype::F32, n * len).unwrap());
    let logits = device.alloc(Dtype::F32, n * (t - from) * config.n_level).unwrap();
    let stages = device.wavenet().unwrap();
    let params = machine.net.params.clone();
    for first in 0..n {
        let call = Call { first, n: 1, n_time: t, d_model: config.d_model, n_head: 1, from };
        let inputs = inputs.sequences(first, 1, t);
        stages.stack(&config, &call, &params.stack, &inputs, skips.slice(first * len, len), None).unwrap();
    }
    for window in (0..n).step_by(config.n_channel) {
        let part = |tensor: Tensor| tensor.slice(window * len, config.n_channel * len);
        if let Some(mix) = params.mix {
            stages.mix(config.n_channel, mix, part(skips), part(mixed)).unwrap();
        }
    }
    let summed = if params.mix.is_some() { mixed } else { skips };
    for first in 0..n {
        let call = Call { first, n: 1, n_time: t, d_model: config.d_model, n_head: 1, from };
        let out = logits.slice(first * (t - from) * config.n_level, (t - from) * config.n_level);
        stages.head_logits(&config, &call, &params.head, summed.slice(first * len, len), out).unwrap();
    }
    machine.get(logits)
}

/// Layers that keep what they look back at give the bits of layers that compute it again, whatever the chunks, the threads
/// and the other sequences.
#[test]
fn cached_generation_equals_recomputation() {
    for (mix, n_layer, n_cycle) in [(false, 5, 3), (true, 5, 3), (false, 1, 1), (true, 7, 7)] {
        let base = WavenetConfig { d_subject: 2, ..WavenetConfig::tiny(mix, 3, 2, 3).with_width(10) };
        let config = WavenetConfig { n_level: 40, n_ctx: 600, ..base }.with_layers(n_layer, n_cycle, 10);
        let mut noise = Noise(7);
        let (flat, batch) = (parameters(&config, &mut noise), windows(&config, 2, &mut noise));
        let n_prompt = config.n_receptive();
        let new = |threads| Machine::new(Cpu::new(Some(threads)).unwrap(), &config, &flat, &batch);
        let mut machine = new(2);
        let (tokens, logits) = generate(&mut machine, &batch, n_prompt, &[90]);
        let again = recomputed(&mut machine, &tokens, &batch, n_prompt - 1);
        let bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        assert!(bits(&logits.concat()) == bits(&again), "mix {mix}, {n_layer} layers");
        for (tokens, logits) in tokens.iter().zip(&logits) {
            assert_eq!((tokens.len(), logits.len()), (n_prompt + 90, 90 * config.n_level));
        }
        assert!(
            generate(&mut machine, &batch, n_prompt, &[1, 2, 30, 57]) == (tokens.clone(), logits.clone()),
            "chunks"
        );
        assert!(generate(&mut new(1), &batch, n_prompt, &[90]) == (tokens.clone(), logits.clone()), "one thread");
        // Draws are those of the sampler, from these logits.
        for (i, logits) in logits.iter().enumerate() {
            for (step, row) in logits.chunks(config.n_level).enumerate() {
                let word = word_at(11, Purpose::Sampling, 3 * i as u64 + 1, step as u64);
                let drawn = gpt2meg::device::cpu::sampler::draw(row, &NUCLEUS, word);
                assert_eq!(drawn, Some(tokens[i][n_prompt + step]));
            }
        }
        if !mix {
            let alone = Batch {
                token: batch.token[4..5].to_vec(),
                condition: batch.condition[4..5].to_vec(),
                channel: batch.channel[4..5].to_vec(),
                subject: batch.subject[4..5].to_vec(),
            };
            let again = generate_keyed(&mut machine, &alone, n_prompt, logits[4].len() / config.n_level, 13);
            assert!(bits(&again) == bits(&logits[4]), "alone");
        }
    }
}

/// One sequence with this key.
fn generate_keyed(machine: &mut Machine, batch: &Batch, n_prompt: usize, n_new: usize, key: u64) -> Vec<f32> {
    let mut logits = vec![0.0; n_new * machine.net.config.n_level];
    let rollout = Rollout {
        n: 1,
        n_prompt,
        n_new,
        prompt: &batch.token[0][..n_prompt],
        condition: &batch.condition[0][..n_prompt + n_new - 1],
        channel: &batch.channel,
        subject: &batch.subject,
        key: &[key],
        timestep: 0,
        seed: 11,
        sampler: NUCLEUS,
    };
    let (config, params) = (&machine.net.config, &machine.net.params);
    let stages = machine.device.wavenet().unwrap();
    stages.rollout(config, params, &rollout, &mut vec![0; n_new], Some(&mut logits)).unwrap();
    logits
}
