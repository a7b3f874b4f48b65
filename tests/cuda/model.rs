//! The whole network on the emulated GPU: ten steps of training beside the CPU's, learning, and what must not change a bit.

use crate::gpu::{self, adversarial, assert_clean};
use gpt2meg::device::cpu::Cpu;
use gpt2meg::device::cuda::{Cuda, Gpu};
use gpt2meg::device::{AdamW, Device, Dtype, Inputs, OptimizerState, Rollout, Sampler, Score, Tensor};
use gpt2meg::error::Kind;
use gpt2meg::model::config::{Head, ModelConfig};
use gpt2meg::model::gpt2::{Backward, Gpt2, Workspace};
use gpt2meg::model::layout::ParamLayout;
use gpt2meg::train::init;
use ptx_emulator::settings::{Rounding, Settings, Watch};
use ptx_emulator::target::Target;

/// A whole-head model's shape, with fewer layers, channels and timesteps.
fn paper() -> ModelConfig {
    ModelConfig { n_layer: 2, n_ctx: 32, ..ModelConfig::single(3, 2, 3) }
}

/// Heads of the group model's width, which the fused kernels do not know.
fn general() -> ModelConfig {
    ModelConfig { n_head: 2, d_model: 40, n_ctx: 18, n_level: 50, head: Head::PerChannel, ..paper() }
}

/// The smallest that the fused kernels know.
fn small() -> ModelConfig {
    ModelConfig { n_layer: 1, n_ctx: 16, n_level: 16, head: Head::PerChannel, ..ModelConfig::tiny(3, 1, 2) }
}

/// Parameters and both moments.
type State = [Vec<f32>; 3];

fn fresh(config: &ModelConfig) -> State {
    let layout = ParamLayout::new(config);
    [init::parameters(&layout, 5), vec![0.0; layout.len()], vec![0.0; layout.len()]]
}

/// A training run in the small, on one batch of `n` sequences.
struct Run<'a> {
    device: &'a mut dyn Device,
    model: Gpt2,
    work: Workspace,
    backward: Backward,
    inputs: Inputs,
    scores: Tensor,
    state: OptimizerState,
    n: usize,
    step: u64,
    /// Whether steps are made as such, so that the device may capture them.
    repeated: bool,
}

fn put<T: bytemuck::Pod>(device: &mut dyn Device, dtype: Dtype, data: &[T]) -> Tensor {
    let tensor = device.alloc(dtype, data.len()).unwrap();
    device.upload(tensor, bytemuck::cast_slice(data)).unwrap();
    tensor
}

fn get(device: &mut dyn Device, tensor: Tensor) -> Vec<f32> {
    let mut data = vec![0.0f32; tensor.len];
    device.download(tensor, bytemuck::cast_slice_mut(&mut data)).unwrap();
    data
}

/// Every sequence is a walk whose steps follow from where it is, so that there is something to learn.
fn walks(config: &ModelConfig, n: usize) -> Vec<u8> {
    let (q, t) = (config.n_level, config.n_ctx);
    let walk = |i: usize| {
        let mut at = 7 * i + 1;
        (0..=t).map(move |_| {
            at = (5 * at + 3) % q;
            at as u8
        })
    };
    (0..n).flat_map(walk).collect()
}

impl<'a> Run<'a> {
    fn new(device: &'a mut dyn Device, config: &ModelConfig, n: usize, start: &State) -> Self {
        let layout = ParamLayout::new(config);
        let t = config.n_ctx;
        let [params, m, v] = start.each_ref().map(|data| put(device, Dtype::F32, data));
        let grads = device.alloc(Dtype::F32, device.grad_slots() * layout.len()).unwrap();
        let values: Vec<f32> = (0..config.n_level).map(|level| level as f32 / config.n_level as f32).collect();
        let levels = put(device, Dtype::F32, &values);
        let condition: Vec<u16> = (0..n * t).map(|i| (i / 5 % (config.n_condition + 1)) as u16).collect();
        let channel: Vec<u32> = (0..n).map(|i| (i % config.n_channel) as u32).collect();
        let subject: Vec<u32> = (0..n).map(|i| (i % config.n_subject) as u32).collect();
        let inputs = Inputs {
            token: put(device, Dtype::U8, &walks(config, n)),
            condition: put(device, Dtype::U16, &condition),
            channel: put(device, Dtype::U32, &channel),
            subject: put(device, Dtype::U32, &subject),
        };
        let scores = device.alloc(Dtype::F32, n * Score::LEN).unwrap();
        let weight = 1.0 / (n * (t - config.first_target())) as f32;
        let backward = Backward { grads: layout.bind(grads), weight };
        let model = Gpt2 { params: layout.bind(params), levels, config: config.clone() };
        let work = model.workspace(device, n, true).unwrap();
        let state = OptimizerState { params, grads, m, v, n_decayed: layout.n_decayed() };
        Self { device, model, work, backward, inputs, scores, state, n, step: 0, repeated: true }
    }

    /// Scores, and with `backward` gradients, in calls of at most `cut` sequences; the mean loss.
    fn loss(&mut self, cut: usize, backward: bool) -> f64 {
        let t = self.model.config.n_ctx;
        let backward = backward.then_some(&self.backward);
        let mut calls = |device: &mut dyn Device| {
            for first in (0..self.n).step_by(cut) {
                let n = cut.min(self.n - first);
                let (call, inputs) = (self.model.call(first, n), self.inputs.sequences(first, n, t));
                let scores = self.scores.slice(first * Score::LEN, n * Score::LEN);
                self.model.loss(device, &call, &inputs, &self.work, scores, backward)?;
            }
            Ok(true)
        };
        let done = match self.repeated && backward.is_some() {
            true => self.device.repeated(&mut calls),
            false => calls(self.device),
        };
        assert!(done.unwrap());
        let nats: f64 = get(self.device, self.scores).chunks_exact(Score::LEN).map(|row| f64::from(row[0])).sum();
        nats / (self.n * (t - self.model.config.first_target())) as f64
    }

    /// One step of training; the loss before it.
    fn step(&mut self, cut: usize, lr: f32) -> f64 {
        let loss = self.loss(cut, true);
        self.step += 1;
        let (eps, weight_decay, max_norm) = (1e-8, 0.01, 1.0);
        let hyper = AdamW { lr, beta1: 0.9, beta2: 0.99, eps, weight_decay, max_norm, step: self.step };
        assert!(self.device.update(&self.state, &hyper, self.scores).unwrap().applied);
        loss
    }

    /// The logits from which a few tokens are drawn, and the tokens.
    fn rollout(&mut self) -> (Vec<f32>, Vec<u8>) {
        let (n_prompt, n_new, q) = (3, 4, self.model.config.n_level);
        let sampler = Sampler { temperature: 1.0, top_k: 0, top_p: 0.8, greedy: false };
        let rollout = Rollout {
            n: 1,
            n_prompt,
            n_new,
            prompt: &[1, 2, 3],
            condition: &[0; 6],
            channel: &[2],
            subject: &[0],
            key: &[9],
            timestep: 0,
            seed: 3,
            sampler,
        };
        let (mut tokens, mut logits) = (vec![0; n_new], vec![f32::NAN; n_new * q]);
        let Gpt2 { config, params, .. } = &self.model;
        self.device.rollout(config, params, &rollout, &mut tokens, Some(&mut logits)).unwrap();
        (logits, tokens)
    }

    /// As it is now, on the host.
    fn read(&mut self) -> State {
        [self.state.params, self.state.m, self.state.v].map(|tensor| get(self.device, tensor))
    }
}

/// The emulated GPU with these settings, as if it had so many multiprocessors at most.
fn emulated(settings: &Settings, multiprocessors: u32) -> Option<Cuda> {
    let machine = gpu::machine(settings)?;
    let mut gpu = Gpu::open(0).unwrap();
    gpu.limit_multiprocessors(multiprocessors);
    Some(Cuda::new(gpu).watched(Box::new(move || {
        assert_clean(&machine);
        Ok(())
    })))
}

#[test]
fn ten_steps_follow_the_cpus() {
    try_ten_steps(&paper());
    try_ten_steps(&general());
}

fn try_ten_steps(config: &ModelConfig) {
    let n = 3;
    let Some(mut cuda) = emulated(&adversarial(), u32::MAX) else { return };
    let mut cpu = Cpu::new(Some(2)).unwrap();
    let mut gpu = Run::new(&mut cuda, config, n, &fresh(config));
    let mut cpu = Run::new(&mut cpu, config, n, &fresh(config));
    let losses: Vec<(f64, f64)> = (0..10).map(|_| (gpu.step(n, 1e-3), cpu.step(n, 1e-3))).collect();
    let learned = losses[0].1 - losses[9].1;
    assert!(learned > losses[0].1 / 20.0, "ten steps that learn nothing prove nothing: {losses:?}");
    for (step, (gpu, cpu)) in losses.iter().enumerate() {
        // Half a unit in the last place of bf16, of the loss: its targets' errors are as likely up as down.
        assert!((gpu - cpu).abs() <= cpu / 512.0, "step {step}: {gpu} for the CPU's {cpu}; {losses:?}");
    }
}

#[test]
fn a_small_model_learns() {
    // Checks off: they have been on for every kernel.
    let settings = Settings { watch: Watch::Off, ..Settings::default() };
    let Some(mut cuda) = emulated(&settings, u32::MAX) else { return };
    let (config, n) = (small(), 3);
    let mut run = Run::new(&mut cuda, &config, n, &fresh(&config));
    let first = run.step(n, 3e-3);
    let last = (0..200).map(|_| run.step(n, 3e-3)).last().unwrap();
    assert!((first - (config.n_level as f64).ln()).abs() < 0.1, "it starts by knowing nothing: {first}");
    assert!(last < 0.05, "what follows from where it is has been learnt: {last}");
}

#[test]
fn neither_card_nor_order_nor_cut_nor_resuming_changes_a_bit() {
    let (config, n, steps) = (small(), 9, 3);
    let exact = |target, seed| Settings { target, seed, rounding: Rounding::Exact, threads: 2, ..Settings::default() };
    let Some(mut device) = emulated(&exact(Target::Sm80, 0), u32::MAX) else { return };
    let mut run = Run::new(&mut device, &config, n, &fresh(&config));
    (0..2 * steps).for_each(|_| _ = run.step(n, 1e-2));
    let expected = run.read();

    let others = [(Target::Sm80, u32::MAX, n), (Target::Sm86, 1, n), (Target::Sm90, u32::MAX, 4)];
    for (seed, (target, multiprocessors, cut)) in others.into_iter().enumerate() {
        let settings = exact(target, seed as u64 + 1);
        let mut state = fresh(&config);
        // Two processes: the second goes on from what the first left.
        for part in 0..2 {
            let mut device = emulated(&settings, multiprocessors).unwrap();
            let mut run = Run::new(&mut device, &config, n, &state);
            run.step = part * steps as u64;
            (0..steps).for_each(|_| _ = run.step(cut, 1e-2));
            state = run.read();
        }
        assert!(state == expected, "{target}, {multiprocessors} multiprocessors, calls of {cut}");
    }
}

#[test]
fn a_captured_step_is_the_same_step() {
    let (config, n) = (small(), 5);
    let train = |repeated: bool| {
        let mut device = emulated(&adversarial(), u32::MAX)?;
        let mut run = Run::new(&mut device, &config, n, &fresh(&config));
        run.repeated = repeated;
        // Made, captured, and launched twice as a graph.
        let mut losses: Vec<f64> = (0..4).map(|_| run.step(n, 1e-2)).collect();
        // After a validation the copies are fresh; a batch that is cut otherwise makes other calls; and from there on again.
        losses.push(run.loss(n, false));
        losses.extend((0..3).map(|_| run.step(n, 1e-2)));
        losses.extend((0..3).map(|_| run.step(2, 1e-2)));
        Some((losses, run.read()))
    };
    let Some((losses, state)) = train(true) else { return };
    let (expected_losses, expected) = train(false).unwrap();
    assert_eq!(losses, expected_losses);
    assert!(state == expected, "the state after captured steps is another one");
}

#[test]
fn memory_that_is_not_there_is_one_clear_error() {
    if gpu::machine(&adversarial()).is_none_or(|machine| machine.is_real()) {
        return;
    }
    let Some(mut cuda) = emulated(&adversarial(), u32::MAX) else { return };
    let error = cuda.alloc(Dtype::F32, 5_000_000_000).unwrap_err();
    assert_eq!(error.kind(), Kind::DeviceUnavailable);
    // The emulator has 16 GiB, of which other tests have some.
    assert!(error.to_string().contains("no room for 20.0 GB") && error.to_string().contains("of 17.2 GB are free"));
    cuda.alloc(Dtype::F32, 5).unwrap();
}

#[test]
fn working_copies_are_never_stale() {
    let (config, n) = (small(), 2);
    let Some(mut device) = emulated(&adversarial(), u32::MAX) else { return };
    let results = |run: &mut Run| (run.loss(n, false), run.rollout());
    // What a device that has seen nothing else makes of parameters.
    let anew = |params: &[f32]| {
        let mut device = emulated(&adversarial(), u32::MAX).unwrap();
        let [_, m, v] = fresh(&config);
        results(&mut Run::new(&mut device, &config, n, &[params.to_vec(), m, v]))
    };
    let mut run = Run::new(&mut device, &config, n, &fresh(&config));
    let first = results(&mut run);
    run.step(n, 1e-2);
    let [params, ..] = run.read();
    let after_update = results(&mut run);
    assert_ne!(after_update, first);
    assert_eq!(after_update, anew(&params), "after an update");

    let halved: Vec<f32> = params.iter().map(|x| x / 2.0).collect();
    run.device.upload(run.state.params, bytemuck::cast_slice(&halved)).unwrap();
    assert_eq!(results(&mut run), anew(&halved), "after an upload");

    // One parameter alone, through a handle of its own.
    let bias = run.model.params.blocks[0].1.fc_bias;
    let mut changed = halved.clone();
    changed[bias.offset..][..bias.len].fill(0.5);
    run.device.upload(bias, bytemuck::cast_slice(&vec![0.5f32; bias.len])).unwrap();
    assert_eq!(results(&mut run), anew(&changed), "after an upload of one");

    // A buffer that is given back, and another one in its place.
    run.device.free(run.state.params);
    let params = put(run.device, Dtype::F32, &params);
    assert_eq!(params.buffer, run.state.params.buffer, "the test is of a number used again");
    assert_eq!(results(&mut run), after_update, "after a new allocation");
}

/// What the driver will not capture is made launch by launch from then on, and not tried again at every step.
#[test]
fn a_step_that_cannot_be_captured_is_made_once() {
    let config = small();
    if emulated(&adversarial(), u32::MAX).is_none() {
        return;
    }
    let context = cudarc::driver::CudaContext::new(0).unwrap();
    // Nobody may wait for what is being captured: that ends it, and of later launches every one fails.
    for early in [false, true] {
        let Some(mut device) = emulated(&adversarial(), u32::MAX) else { return };
        let run = Run::new(&mut device, &config, 2, &fresh(&config));
        let mut made = Vec::new();
        for _ in 0..4 {
            let mut n_made = 0;
            let mut step = |device: &mut dyn Device| {
                n_made += 1;
                let call = run.model.call(0, 2);
                let mut calls =
                    || run.model.loss(device, &call, &run.inputs, &run.work, run.scores, Some(&run.backward));
                calls()?;
                let _ = context.synchronize();
                if early { calls().map(|()| true) } else { Ok(true) }
            };
            assert!(run.device.repeated(&mut step).unwrap());
            made.push(n_made);
        }
        assert_eq!(made, [1, 2, 1, 1], "in the middle: {early}");
        run.device.sync().unwrap();
    }
}

/// A large upload is the first thing that another thread does with the device.
#[test]
fn a_device_may_move_to_another_thread() {
    let Some(mut device) = emulated(&adversarial(), u32::MAX) else { return };
    let data: Vec<f32> = (0..5 << 20).map(|i| i as f32).collect();
    let tensor = device.alloc(Dtype::F32, data.len()).unwrap();
    let back = std::thread::spawn(move || {
        device.upload(tensor, bytemuck::cast_slice(&data)).unwrap();
        get(&mut device, tensor) == data
    });
    assert!(back.join().unwrap());
}
