//! Training steps of the paper's single-subject model (d_model 96, 12 layers, 12 heads, 256 timesteps) and each of its
//! stages. `benches/peers/peers.py` does the same step in PyTorch, by turns.
//!
//! `cargo bench --bench step` uses all cores; `THREADS=1 cargo bench --bench step` one.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use gpt2meg::bench::step::Step;
use gpt2meg::device::DeviceChoice;
use gpt2meg::model::config::ModelConfig;

/// Sequences of a step: large enough that the update is a small part, as in training.
const SEQUENCES: usize = 32;

fn benches(criterion: &mut Criterion) {
    let threads = std::env::var("THREADS").ok().and_then(|threads| threads.parse().ok());
    let device = gpt2meg::device::open(DeviceChoice::Cpu, threads, |_| ()).unwrap();
    let config = ModelConfig::single(306, 1, 118);
    let mut step = Step::new(device, &config, SEQUENCES).unwrap();
    let mut group = criterion.benchmark_group(format!("step on {}", step.device.name()));
    group.sample_size(10);
    group.throughput(Throughput::Elements(step.n_token() as u64));
    group.bench_function("whole", |bencher| bencher.iter(|| step.run().unwrap()));
    for place in step.places(config.n_layer) {
        let name = format!("{} of {} timesteps, {} in a step", place.stage.name(), place.rows, place.times);
        group.bench_function(name, |bencher| bencher.iter(|| step.run_place(&place).unwrap()));
    }
    group.finish();
}

criterion_group!(step, benches);
criterion_main!(step);
