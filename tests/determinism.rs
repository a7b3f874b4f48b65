//! The same bits whatever the number of threads and however a step is cut into calls, and no allocation in a step.

use gpt2meg::device::cpu::Cpu;
use gpt2meg::device::{AdamW, Device, Dtype, Inputs, OptimizerState, Tensor};
use gpt2meg::model::config::{Head, ModelConfig};
use gpt2meg::model::gpt2::{Backward, Gpt2, Workspace};
use gpt2meg::model::layout::ParamLayout;
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

/// The system's allocator, counting what is asked of it.
struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);
static LARGEST: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is passed on unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        LARGEST.fetch_max(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise is the system's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is the system's.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const SEQUENCES: usize = 37;

fn config() -> ModelConfig {
    ModelConfig {
        n_layer: 2,
        n_head: 3,
        d_model: 24,
        n_ctx: 40,
        n_level: 32,
        n_channel: 9,
        n_subject: 2,
        n_condition: 3,
        head: Head::PerChannel,
    }
}

/// A training run in the small.
struct Run {
    device: Cpu,
    model: Gpt2,
    work: Workspace,
    backward: Backward,
    inputs: Inputs,
    scores: Tensor,
    state: OptimizerState,
    step: u64,
}

fn noise(seed: u64, i: usize) -> u64 {
    let mut z = (seed << 32 | i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z ^ (z >> 32)
}

impl Run {
    fn new(threads: usize) -> Self {
        let config = config();
        let layout = ParamLayout::new(&config);
        let mut device = Cpu::new(Some(threads)).unwrap();
        let (p, t) = (layout.len(), config.n_ctx);
        let slots = device.grad_slots();
        let [params, m, v] = [p, p, p].map(|len| device.alloc(Dtype::F32, len).unwrap());
        let grads = device.alloc(Dtype::F32, slots * p).unwrap();
        let start: Vec<f32> = (0..p).map(|i| noise(1, i) as u32 as f32 / u32::MAX as f32 - 0.5).collect();
        device.upload(params, bytemuck::cast_slice(&start)).unwrap();

        let levels = device.alloc(Dtype::F32, config.n_level).unwrap();
        let token: Vec<u8> = (0..SEQUENCES * (t + 1)).map(|i| (noise(2, i) % 32) as u8).collect();
        let condition: Vec<u16> = (0..SEQUENCES * t).map(|i| (noise(3, i) % 4) as u16).collect();
        let channel: Vec<u32> = (0..SEQUENCES).map(|i| (i % 9) as u32).collect();
        let subject: Vec<u32> = (0..SEQUENCES).map(|i| (i % 2) as u32).collect();
        let mut put = |dtype, bytes: &[u8], len| {
            let tensor = device.alloc(dtype, len).unwrap();
            device.upload(tensor, bytes).unwrap();
            tensor
        };
        let inputs = Inputs {
            token: put(Dtype::U8, &token, token.len()),
            condition: put(Dtype::U16, bytemuck::cast_slice(&condition), condition.len()),
            channel: put(Dtype::U32, bytemuck::cast_slice(&channel), channel.len()),
            subject: put(Dtype::U32, bytemuck::cast_slice(&subject), subject.len()),
        };
        let scores = device.alloc(Dtype::F32, SEQUENCES * 4).unwrap();
        let weight = 1.0 / (SEQUENCES * t / 2) as f32;
        let backward = Backward { grads: layout.bind(grads), weight };
        let model = Gpt2 { params: layout.bind(params), levels, config };
        let work = model.workspace(&mut device, 16, true).unwrap();
        let state = OptimizerState { params, grads, m, v, n_decayed: layout.n_decayed() };
        Self { device, model, work, backward, inputs, scores, state, step: 0 }
    }

    /// One step, cut into calls of at most `cut` sequences.
    fn step(&mut self, cut: usize) {
        let t = self.model.config.n_ctx;
        for first in (0..SEQUENCES).step_by(cut) {
            let n = cut.min(SEQUENCES - first);
            let call = self.model.call(first, n);
            let inputs = self.inputs.sequences(first, n, t);
            let scores = self.scores.slice(first * 4, n * 4);
            self.model.loss(&mut self.device, &call, &inputs, &self.work, scores, Some(&self.backward)).unwrap();
        }
        self.step += 1;
        let hyper =
            AdamW { lr: 0.01, beta1: 0.9, beta2: 0.99, eps: 1e-8, weight_decay: 0.01, max_norm: 0.5, step: self.step };
        assert!(self.device.update(&self.state, &hyper, self.scores).unwrap().applied);
    }

    /// Everything the steps have made.
    fn bits(&mut self) -> Vec<u32> {
        let OptimizerState { params, m, v, .. } = self.state;
        let mut all = Vec::new();
        for tensor in [params, m, v, self.scores] {
            let mut data = vec![0u32; tensor.len];
            self.device.download(tensor, bytemuck::cast_slice_mut(&mut data)).unwrap();
            all.extend(data);
        }
        all
    }
}

// One test, because the counter is the process's.
#[test]
fn a_step_is_the_same_bits_and_allocates_nothing() {
    // First, while no other pool's threads are on their way out: they allocate too.
    a_step_allocates_nothing();
    same_bits_for_any_threads_and_any_cut();
}

fn same_bits_for_any_threads_and_any_cut() {
    let bits = |threads, cut| {
        let mut run = Run::new(threads);
        (0..3).for_each(|_| run.step(cut));
        run.bits()
    };
    let expected = bits(1, 16);
    for (threads, cut) in [(2, 16), (3, 16), (5, 16), (1, 1), (2, 4), (3, 5), (5, 7), (16, 3)] {
        assert!(bits(threads, cut) == expected, "{threads} threads, calls of {cut}");
    }
}

/// With one thread a step allocates nothing. With more, the queue through which the pool takes work is a list of blocks,
/// and one is allocated (and another freed) every 63 times it is asked: so few, and so small, is all that may be.
fn a_step_allocates_nothing() {
    for (threads, block) in [(1, 0), (2, 2048)] {
        let mut run = Run::new(threads);
        run.step(16);
        run.step(16);
        LARGEST.store(0, Ordering::Relaxed);
        let before = ALLOCATIONS.load(Ordering::Relaxed);
        let steps = 20usize;
        (0..steps).for_each(|_| run.step(16));
        let allocations = ALLOCATIONS.load(Ordering::Relaxed) - before;
        let largest = LARGEST.load(Ordering::Relaxed);
        // A step is three calls of embedding, two layers and head, there and back, and an update in two passes. Attention packs
        // three weights and the MLP two, each in a pass of its own.
        let asked = steps * (3 * (2 + 1 + 2 * 2 * (3 + 1 + 2 + 1)) + 2);
        let most = if block == 0 { 0 } else { asked.div_ceil(63) + 1 };
        assert!(allocations <= most, "{allocations} allocations in {steps} steps of {threads} threads, not {most}");
        assert!(largest <= block, "{largest} bytes at once with {threads} threads");
    }
}
