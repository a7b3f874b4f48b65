//! A training step of a model with random weights on random tokens: what benchmarks time and count.

use crate::device::{AdamW, Device, Dtype, Inputs, OptimizerState, Score, Tensor};
use crate::error::Result;
use crate::model::config::ModelConfig;
use crate::model::gpt2::{Backward, Gpt2, Workspace};
use crate::model::layout::ParamLayout;
use crate::random::{Purpose, keyed};
use crate::train::init;
use rand::Rng;

/// A step, ready to be run any number of times.
pub struct Step {
    /// Where it runs.
    pub device: Box<dyn Device>,
    /// The network.
    pub model: Gpt2,
    /// What calls work in.
    pub work: Workspace,
    /// All sequences.
    pub inputs: Inputs,
    /// A row for each sequence.
    pub scores: Tensor,
    /// Gradients.
    pub backward: Backward,
    /// What the update works on.
    pub state: OptimizerState,
    n_sequence: usize,
}

impl Step {
    /// A step of `n_sequence` sequences.
    pub fn new(mut device: Box<dyn Device>, config: &ModelConfig, n_sequence: usize) -> Result<Self> {
        let layout = ParamLayout::new(config);
        let (p, t, slots) = (layout.len(), config.n_ctx, device.grad_slots());
        let mut random = keyed(0, Purpose::Init, u64::MAX);
        let mut below = |limit: usize| random.next_u32() % limit as u32;
        let token: Vec<u8> = (0..n_sequence * (t + 1)).map(|_| below(config.n_level) as u8).collect();
        let condition: Vec<u16> = (0..n_sequence * t).map(|_| below(config.n_condition + 1) as u16).collect();
        let channel: Vec<u32> = (0..n_sequence).map(|i| (i % config.n_channel) as u32).collect();

        let mut put = |dtype: Dtype, bytes: &[u8]| {
            let tensor = device.alloc(dtype, bytes.len() / dtype.size())?;
            device.upload(tensor, bytes).map(|()| tensor)
        };
        let inputs = Inputs {
            token: put(Dtype::U8, &token)?,
            condition: put(Dtype::U16, bytemuck::cast_slice(&condition))?,
            channel: put(Dtype::U32, bytemuck::cast_slice(&channel))?,
            subject: put(Dtype::U32, &vec![0; 4 * n_sequence])?,
        };
        let params = put(Dtype::F32, bytemuck::cast_slice(&init::parameters(&layout, 0)))?;
        let state = OptimizerState {
            params,
            grads: device.alloc(Dtype::F32, slots * p)?,
            m: device.alloc(Dtype::F32, p)?,
            v: device.alloc(Dtype::F32, p)?,
            n_decayed: layout.n_decayed(),
        };
        let scores = device.alloc(Dtype::F32, n_sequence * Score::LEN)?;
        let levels = device.alloc(Dtype::F32, config.n_level)?;
        let weight = 1.0 / (n_sequence * (t - config.first_target())) as f32;
        let backward = Backward { grads: layout.bind(state.grads), weight };
        let model = Gpt2 { params: layout.bind(params), levels, config: config.clone() };
        let n = device.max_sequences().min(n_sequence);
        let work = model.workspace(device.as_mut(), n, true)?;
        Ok(Self { device, model, work, inputs, scores, backward, state, n_sequence })
    }

    /// Sequences of a step.
    pub fn n_sequence(&self) -> usize {
        self.n_sequence
    }

    /// Timesteps that a step processes.
    pub fn n_token(&self) -> usize {
        self.n_sequence * self.model.config.n_ctx
    }

    /// Forward, backward and update, to the end.
    pub fn run(&mut self) -> Result<()> {
        self.gradients()?;
        self.update()
    }

    /// Forward and backward, as training asks for them; `self.device.sync()` waits for them.
    pub fn gradients(&mut self) -> Result<()> {
        let (device, calls) = self.parts();
        device.repeated(&mut |device| calls.make(device, Some(calls.backward)).map(|()| true)).map(drop)
    }

    /// Forward passes and their losses; `self.device.sync()` waits for them.
    pub fn losses(&mut self) -> Result<()> {
        let (device, calls) = self.parts();
        calls.make(device, None)
    }

    /// The update alone.
    pub fn update(&mut self) -> Result<()> {
        let (device, calls) = self.parts();
        calls.update(device)
    }

    /// The device, and what it is asked for.
    pub(super) fn parts(&mut self) -> (&mut dyn Device, Calls<'_>) {
        let Self { device, model, work, inputs, scores, backward, state, n_sequence } = self;
        let calls = Calls { model, work, inputs, scores: *scores, backward, state, n_sequence: *n_sequence };
        (device.as_mut(), calls)
    }
}

/// The calls of a step.
pub(super) struct Calls<'a> {
    pub(super) model: &'a Gpt2,
    pub(super) work: &'a Workspace,
    pub(super) inputs: &'a Inputs,
    pub(super) scores: Tensor,
    pub(super) backward: &'a Backward,
    state: &'a OptimizerState,
    pub(super) n_sequence: usize,
}

impl Calls<'_> {
    /// The losses; with `backward` also the gradients.
    fn make(&self, device: &mut dyn Device, backward: Option<&Backward>) -> Result<()> {
        let (t, cut) = (self.model.config.n_ctx, self.work.n);
        for first in (0..self.n_sequence).step_by(cut) {
            let n = cut.min(self.n_sequence - first);
            let inputs = self.inputs.sequences(first, n, t);
            let scores = self.scores.slice(first * Score::LEN, n * Score::LEN);
            let call = self.model.call(first, n);
            self.model.loss(device, &call, &inputs, self.work, scores, backward)?;
        }
        Ok(())
    }

    pub(super) fn update(&self, device: &mut dyn Device) -> Result<()> {
        let (lr, beta1, beta2, eps) = (1e-4, 0.9, 0.999, 1e-8);
        let hyper = AdamW { lr, beta1, beta2, eps, weight_decay: 0.0, max_norm: f32::INFINITY, step: 1 };
        device.update(self.state, &hyper, self.scores).map(drop)
    }
}
