//! The model on a device, with everything one step of training works in.

use super::batch::Batch;
use super::checkpoint::Moments;
use super::numbering::Numbering;
use super::scoring::{Scored, Scorer};
use crate::device::Dtype::F32;
use crate::device::{AdamW, Device, OptimizerState, Score, Tensor};
use crate::error::{Error, Kind, Result};
use crate::model::kind::Model;
use crate::model::network::{Gradients, Network, workspace_len};
use crate::tokens::dataset::Dataset;
use crate::tokens::scheme::Scheme;
use crate::tokens::window::Window;

/// What a step did.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Step {
    /// Mean nats over all targets of the step, before the update.
    pub nats: f64,
    /// Euclidean norm of the gradient before clipping.
    pub grad_norm: f64,
    /// False if something was not finite: nothing has changed.
    pub applied: bool,
}

/// A network, its gradients, its moments and its batch, on a device. Nothing is allocated after [`Trainer::new`].
pub struct Trainer<'d> {
    device: &'d mut dyn Device,
    model: Model,
    network: Network,
    state: OptimizerState,
    batch: Batch,
    /// What the batch has been filled with for the step to come.
    ready: Option<Vec<Window>>,
    scores: Tensor,
    rows: Vec<f32>,
    scorer: Scorer,
}

/// Puts parameters (a flat buffer of the model's layout) and the values of the levels on a device.
pub fn upload(device: &mut dyn Device, scheme: &Scheme, params: &[f32]) -> Result<(Tensor, Tensor)> {
    let buffer = device.alloc(F32, params.len())?;
    device.upload(buffer, bytemuck::cast_slice(params))?;
    let values: Vec<f32> = scheme.levels().into_iter().map(|value| value as f32).collect();
    let levels = device.alloc(F32, values.len())?;
    device.upload(levels, bytemuck::cast_slice(&values))?;
    Ok((buffer, levels))
}

impl<'d> Trainer<'d> {
    /// Puts everything on the device, for steps of `n_window` windows from the data set whose `numbering` this is.
    pub fn new(
        device: &'d mut dyn Device,
        model: &Model,
        scheme: &Scheme,
        params: &[f32],
        moments: &Moments,
        n_window: usize,
        numbering: &Numbering,
    ) -> Result<Self> {
        check_room(device, model, n_window)?;
        let layout = model.layout();
        let (params, levels) = upload(device, scheme, params)?;
        let grads = device.alloc(F32, layout.len() * device.grad_slots())?;
        let (m, v) = (device.alloc(F32, layout.len())?, device.alloc(F32, layout.len())?);
        device.upload(m, bytemuck::cast_slice(&moments.m))?;
        device.upload(v, bytemuck::cast_slice(&moments.v))?;
        let n = n_window * model.n_channel();
        let weight = 1.0 / (n * model.n_target()) as f32;
        let network = Network::new(device, model, n, params, levels, Some(Gradients { grads, weight }))?;
        let mut trainer = Self {
            state: OptimizerState { params, grads, m, v, n_decayed: layout.n_decayed() },
            batch: Batch::new(device, model, n_window, numbering)?,
            ready: None,
            scores: device.alloc(F32, n * Score::LEN)?,
            rows: vec![0.0; n * Score::LEN],
            scorer: Scorer::new(device, model, numbering)?,
            device,
            model: model.clone(),
            network,
        };
        if trainer.device.is_gpu() {
            trainer.rehearse(n)?;
        }
        Ok(trainer)
    }

    /// Makes a step of `n` sequences that changes nothing, for its score is no number: what a GPU lacks for a step, memory or a
    /// kernel, it lacks now.
    fn rehearse(&mut self, n: usize) -> Result<()> {
        let (network, inputs, scores) = (&self.network, &self.batch.inputs, self.scores);
        self.device.repeated(&mut |device| network.loss(device, inputs, n, scores, true))?;
        self.rows.fill(f32::NAN);
        self.device.upload(scores, bytemuck::cast_slice(&self.rows))?;
        let (beta1, beta2, eps) = (0.9, 0.999, 1e-8);
        let nothing = AdamW { lr: 0.0, beta1, beta2, eps, weight_decay: 0.0, max_norm: f32::INFINITY, step: 1 };
        // That makes the gradients zero again.
        self.device.update(&self.state, &nothing, scores).map(drop)
    }

    /// Forward, backward and update over `windows`; none if a signal asked to stop before the update, in which case the
    /// parameters and moments are those of the step before, and the trainer is not to be stepped again. `next` are those of the
    /// step after, which are read while the device computes. Of the batch as many sequences count as `windows` have.
    pub fn step(
        &mut self,
        dataset: &Dataset,
        windows: &[Window],
        next: Vec<Window>,
        hyper: &AdamW,
    ) -> Result<Option<Step>> {
        let n = windows.len() * self.model.n_channel();
        if self.ready.take().is_none_or(|ready| ready != windows) {
            self.batch.fill(self.device, dataset, windows.iter().copied())?;
        }
        let (network, inputs, scores) = (&self.network, &self.batch.inputs, self.scores.slice(0, n * Score::LEN));
        let mut step = |device: &mut dyn Device| network.loss(device, inputs, n, scores, true);
        if !self.device.repeated(&mut step)? {
            return Ok(None);
        }
        // The device has been asked for the step and takes the next batch after it. That this one cannot be read is said in its turn.
        let filled = self.batch.fill(self.device, dataset, next.iter().copied());
        self.ready = filled.is_ok().then_some(next);
        let outcome = self.device.update(&self.state, hyper, scores)?;
        let rows = &mut self.rows[..n * Score::LEN];
        self.device.download(scores, bytemuck::cast_slice_mut(rows))?;
        let nats: f64 = rows.chunks_exact(Score::LEN).map(|row| f64::from(row[0])).sum();
        let n_target = n * self.model.n_target();
        Ok(Some(Step { nats: nats / n_target as f64, grad_norm: outcome.grad_norm, applied: outcome.applied }))
    }

    /// Scores the model on held-out windows; none if a signal asked to stop.
    pub fn validate(&mut self, dataset: &Dataset, windows: &[Window]) -> Result<Option<Scored>> {
        self.scorer.score(self.device, &self.network, dataset, windows, |_| ())
    }

    /// Copies parameters and moments off the device.
    pub fn read_state(&mut self, params: &mut [f32], moments: &mut Moments) -> Result<()> {
        self.device.download(self.state.params, bytemuck::cast_slice_mut(params))?;
        self.device.download(self.state.m, bytemuck::cast_slice_mut(&mut moments.m))?;
        self.device.download(self.state.v, bytemuck::cast_slice_mut(&mut moments.v))
    }

    /// The device's name.
    pub fn device_name(&self) -> String {
        self.device.name()
    }

    /// What decides the bits of what the device computes.
    pub fn device_identity(&self) -> String {
        self.device.identity()
    }
}

/// Bytes that training a model takes: what is on the device, and on the host the copies of parameters and moments for saving,
/// and of the batch.
pub fn n_byte(device: &mut dyn Device, model: &Model, n_window: usize) -> Result<usize> {
    let on_host = 12 * model.layout().len() + batch_bytes(model, n_window);
    Ok(device_bytes(device, model, n_window)?.saturating_add(on_host))
}

/// Bytes on the device: parameters, moments, the gradients' slots, the activations of as many sequences of a step as the device
/// takes at once with all that it works in, and two batches: a step's, and the windows that are scored at once.
fn device_bytes(device: &mut dyn Device, model: &Model, n_window: usize) -> Result<usize> {
    let n = n_window.saturating_mul(model.n_channel());
    let state = 4 * (model.layout().len() * (3 + device.grad_slots()) + workspace_len(device, model, n)?);
    let scored = batch_bytes(model, device.max_sequences().div_ceil(model.n_channel()));
    Ok(state.saturating_add(batch_bytes(model, n_window)).saturating_add(scored))
}

/// Bytes of a batch: tokens, conditions and scores.
fn batch_bytes(model: &Model, n_window: usize) -> usize {
    n_window.saturating_mul(model.n_channel() * (3 * model.n_ctx() + 1 + 4 * Score::LEN))
}

/// Refuses what does not fit a device with memory of its own, with how much is needed and what batch would fit.
fn check_room(device: &mut dyn Device, model: &Model, n_window: usize) -> Result<()> {
    let Some(free) = device.free_memory()? else { return Ok(()) };
    // A fiftieth is for what lies between allocations.
    let room = free - free / 50;
    let needed = device_bytes(device, model, n_window)?;
    if needed <= room {
        return Ok(());
    }
    // The largest batch that fits is sought by halving: so many do, so many do not.
    let (mut most, mut too_many) = (0, n_window);
    while too_many - most > 1 {
        let middle = most + (too_many - most) / 2;
        if device_bytes(device, model, middle)? <= room { most = middle } else { too_many = middle }
    }
    let gb = |bytes: usize| bytes as f64 / 1e9;
    let what = format!("training takes {:.1} GB on the device, where {:.1} GB are free", gb(needed), gb(free));
    let hint = match most {
        0 => "No batch fits: choose a smaller model, a shorter context, or --device cpu".to_string(),
        n => format!("A batch of up to {n} windows fits: --windows-per-step {n}"),
    };
    Err(Error::new(Kind::DeviceUnavailable, what).hint(hint))
}
