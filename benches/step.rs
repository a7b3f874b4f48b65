//! Training steps of the paper's single-subject model (d_model 96, 12 layers, 12 heads, 256 timesteps) and each of its
//! stages. `benches/pytorch_step.py` does the same step in PyTorch.
//!
//! `cargo bench --bench step` uses all cores; `THREADS=1 cargo bench --bench step` one.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use gpt2meg::device::cpu::Cpu;
use gpt2meg::device::{AdamW, Device, Dtype, HalfBlock, HeadBackward, Inputs, OptimizerState, Tensor};
use gpt2meg::model::config::ModelConfig;
use gpt2meg::model::gpt2::{Backward, Gpt2, Workspace};
use gpt2meg::model::layout::{Init, ParamLayout};
use gpt2meg::random::{Purpose, keyed, unit};
use rand::Rng;

/// Sequences of a step: large enough that the update is a small part, as in training.
const SEQUENCES: usize = 32;

struct Step {
    device: Cpu,
    model: Gpt2,
    work: Workspace,
    inputs: Inputs,
    scores: Tensor,
    backward: Backward,
    state: OptimizerState,
}

impl Step {
    fn new() -> Self {
        let config = ModelConfig::single(306, 1, 118);
        let layout = ParamLayout::new(&config);
        let threads = std::env::var("THREADS").ok().and_then(|threads| threads.parse().ok());
        let mut device = Cpu::new(threads).unwrap();
        let (p, t, slots) = (layout.len(), config.n_ctx, device.grad_slots());
        let mut random = keyed(0, Purpose::Init, 0);
        let mut start = vec![0.0f32; p];
        for entry in layout.entries() {
            for value in &mut start[entry.offset..][..entry.len] {
                // Uniform with the standard deviation asked for is near enough for timing.
                *value = match entry.init {
                    Init::Normal(deviation) => (unit(random.next_u32()) - 0.5) * (deviation * 12f64.sqrt()) as f32,
                    Init::Constant(value) => value,
                };
            }
        }
        let mut put = |dtype: Dtype, len: usize, bytes: &[u8]| {
            let tensor = device.alloc(dtype, len).unwrap();
            if !bytes.is_empty() {
                device.upload(tensor, bytes).unwrap();
            }
            tensor
        };
        let token: Vec<u8> = (0..SEQUENCES * (t + 1)).map(|_| random.next_u32() as u8).collect();
        let condition: Vec<u16> = (0..SEQUENCES * t).map(|_| (random.next_u32() % 119) as u16).collect();
        let channel: Vec<u32> = (0..SEQUENCES as u32).collect();
        let inputs = Inputs {
            token: put(Dtype::U8, token.len(), &token),
            condition: put(Dtype::U16, condition.len(), bytemuck::cast_slice(&condition)),
            channel: put(Dtype::U32, channel.len(), bytemuck::cast_slice(&channel)),
            subject: put(Dtype::U32, SEQUENCES, &[]),
        };
        let params = put(Dtype::F32, p, bytemuck::cast_slice(&start));
        let grads = put(Dtype::F32, slots * p, &[]);
        let state = OptimizerState {
            params,
            grads,
            m: put(Dtype::F32, p, &[]),
            v: put(Dtype::F32, p, &[]),
            n_decayed: layout.n_decayed(),
        };
        let scores = put(Dtype::F32, SEQUENCES * 4, &[]);
        let levels = put(Dtype::F32, config.n_level, &[]);
        let backward = Backward { grads: layout.bind(grads), weight: 1.0 / (SEQUENCES * t / 2) as f32 };
        let model = Gpt2 { params: layout.bind(params), levels, config };
        let n = device.max_sequences();
        let work = model.workspace(&mut device, n, true).unwrap();
        Self { device, model, work, inputs, scores, backward, state }
    }

    fn run(&mut self) {
        let (t, cut) = (self.model.config.n_ctx, self.device.max_sequences());
        for first in (0..SEQUENCES).step_by(cut) {
            let n = cut.min(SEQUENCES - first);
            let inputs = self.inputs.sequences(first, n, t);
            let scores = self.scores.slice(first * 4, n * 4);
            let call = self.model.call(first, n);
            self.model.loss(&mut self.device, &call, &inputs, &self.work, scores, Some(&self.backward)).unwrap();
        }
        self.update();
    }

    fn update(&mut self) {
        let hyper = AdamW {
            lr: 1e-4,
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            weight_decay: 0.0,
            max_norm: f32::INFINITY,
            step: 1,
        };
        self.device.update(&self.state, &hyper, self.scores).unwrap();
    }
}

fn benches(criterion: &mut Criterion) {
    let mut step = Step::new();
    let t = step.model.config.n_ctx;
    let mut group = criterion.benchmark_group(format!("step on {}", step.device.name()));
    group.sample_size(10);
    group.throughput(Throughput::Elements((SEQUENCES * t) as u64));
    group.bench_function("whole", |bencher| bencher.iter(|| step.run()));

    // One call of each stage; tokens per second again, so that their inverses add up to the step's.
    let n = step.device.max_sequences();
    let call = step.model.call(0, n);
    let half = gpt2meg::device::Call { from: t / 2, ..call };
    let inputs = step.inputs.sequences(0, n, t);
    let (attention, mlp) = step.model.params.blocks[0];
    let (attention_grads, mlp_grads) = step.backward.grads.blocks[0];
    let (saved_attention, saved_mlp) = step.work.saved[0];
    assert!(saved_attention.len == n * step.device.saved_len(HalfBlock::Attention, &call));
    let (x, dx) = (step.work.x, step.work.dx);
    group.throughput(Throughput::Elements((n * t) as u64));
    let device = &mut step.device;
    group.bench_function("embed", |b| b.iter(|| device.embed(&call, &step.model.params.embed, &inputs, x)));
    group.bench_function("attention", |b| b.iter(|| device.attention(&call, &attention, x, Some(saved_attention))));
    group.bench_function("mlp", |b| b.iter(|| device.mlp(&call, &mlp, x, Some(saved_mlp))));
    let head = step.model.params.head;
    let back = HeadBackward { grads: step.backward.grads.head, dx, weight: 1e-3 };
    let (levels, scores) = (step.model.levels, step.scores.slice(0, n * 4));
    group.bench_function("head", |b| {
        b.iter(|| device.head_loss(&half, &head, &inputs, levels, x, scores, Some(back)));
    });
    group.bench_function("mlp_backward", |b| {
        b.iter(|| device.mlp_backward(&call, &mlp, &mlp_grads, saved_mlp, dx));
    });
    group.bench_function("attention_backward", |b| {
        b.iter(|| device.attention_backward(&call, &attention, &attention_grads, saved_attention, dx));
    });
    group.bench_function("embed_backward", |b| {
        b.iter(|| device.embed_backward(&call, &step.backward.grads.embed, &inputs, dx));
    });
    group.throughput(Throughput::Elements(step.state.params.len as u64));
    group.bench_function("update", |b| b.iter(|| step.update()));
    group.finish();
}

criterion_group!(step, benches);
criterion_main!(step);
