//! Training steps of the paper's single-subject model (d_model 96, 12 layers, 12 heads, 256 timesteps) and each of its
//! stages. `benches/pytorch_step.py` does the same step in PyTorch.
//!
//! `cargo bench --bench step` uses all cores; `THREADS=1 cargo bench --bench step` one.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use gpt2meg::bench::step::Step;
use gpt2meg::device::{DeviceChoice, HalfBlock, HeadBackward};
use gpt2meg::model::config::ModelConfig;

/// Sequences of a step: large enough that the update is a small part, as in training.
const SEQUENCES: usize = 32;

fn benches(criterion: &mut Criterion) {
    let threads = std::env::var("THREADS").ok().and_then(|threads| threads.parse().ok());
    let device = gpt2meg::device::open(DeviceChoice::Cpu, threads).unwrap();
    let mut step = Step::new(device, &ModelConfig::single(306, 1, 118), SEQUENCES).unwrap();
    let t = step.model.config.n_ctx;
    let mut group = criterion.benchmark_group(format!("step on {}", step.device.name()));
    group.sample_size(10);
    group.throughput(Throughput::Elements((SEQUENCES * t) as u64));
    group.bench_function("whole", |bencher| bencher.iter(|| step.run().unwrap()));

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
    let device = step.device.as_mut();
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
    group.bench_function("update", |b| b.iter(|| step.update().unwrap()));
    group.finish();
}

criterion_group!(step, benches);
criterion_main!(step);
