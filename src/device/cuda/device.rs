//! The GPU as a [`Device`]: handles are resolved and checked, working copies kept fresh, and the stages' launchers called.

use super::copies::Copies;
use super::either::{attention, head, mlp};
use super::graph::Steps;
use super::head::Inputs as Read;
use super::kernel::Pointer;
use super::kernel::embed::{EmbedBackward, EmbedForward};
use super::memory::Memory;
use super::resolve::{Indices, channels, network, part, tensors};
use super::scratch::Scratch;
use super::update::{State, Sums};
use super::{GRAD_SLOTS, Gpu, Shape, embed, rollout, update};
use super::{attention::Params as AttentionPointers, head::Params as HeadPointers, mlp::Params as MlpPointers};
use crate::device::{
    AdamW, AttentionParams, Call, Device, Dtype, EmbedParams, HalfBlock, HeadBackward, HeadParams, Inputs, KernelTime,
    MlpParams, OptimizerState, Rollout, Score, Tensor, UpdateOutcome,
};
use crate::ensure;
use crate::error::{Kind, Result};
use crate::interrupt;
use crate::model::config::ModelConfig;
use crate::model::layout::{ParamLayout, Parameters};

/// Sequences of one call: a window of a whole-head MEG at once, so that every multiprocessor of a large card has work. A
/// constant, whatever the card, for the sums of a slot's gradients depend on how a step is cut.
pub const MAX_SEQUENCES: usize = 8 * GRAD_SLOTS;

/// A GPU as a device.
pub struct Cuda {
    // Dropped in this order: the graph before the memory that it works on, and the modules of its kernels last.
    pub(super) steps: Steps,
    pub(super) copies: Copies,
    scratch: Scratch,
    sums: Sums,
    memory: Memory,
    watch: Option<Watch>,
    pub(super) gpu: Gpu,
}

/// Looks, whenever the GPU has been waited for, whether what ran there was in order.
pub type Watch = Box<dyn FnMut() -> Result<()> + Send>;

impl Cuda {
    /// This GPU as a device.
    pub fn new(gpu: Gpu) -> Self {
        let (memory, copies, scratch) = (Memory::default(), Copies::default(), Scratch::default());
        let (sums, steps) = (Sums::default(), Steps::default());
        Self { gpu, memory, copies, scratch, sums, watch: None, steps }
    }

    /// The same with a watch over it.
    pub fn watched(self, watch: Watch) -> Self {
        Self { watch: Some(watch), ..self }
    }

    /// What the watch says of work that has been waited for, and if nothing, how the work ended.
    fn waited<T>(&mut self, result: Result<T>) -> Result<T> {
        self.watch.as_mut().map_or(Ok(()), |watch| watch())?;
        result
    }
}

/// What kernels of a call are specialised for, checked. Half-blocks know nothing of levels and get the most there can be, so
/// that they are compiled once.
fn shape(call: &Call, n_level: usize) -> Result<Shape> {
    let &Call { n, n_time, d_model, n_head, from, .. } = call;
    let divided = n_head > 0 && d_model > 0 && d_model.is_multiple_of(n_head);
    ensure!(
        (1..=MAX_SEQUENCES).contains(&n) && from < n_time && divided && (1..=256).contains(&n_level),
        Kind::Internal,
        "a call that makes no sense: {call:?}"
    );
    Ok(Shape { d_model, n_head, n_time, n_level })
}

/// Levels of an attention or MLP half-block, which has none.
const NO_LEVEL: usize = 256;

impl Device for Cuda {
    fn name(&self) -> String {
        format!("CUDA ({})", self.gpu.card())
    }

    fn identity(&self) -> String {
        format!("{}, {}", self.name(), self.gpu.made_by())
    }

    fn is_gpu(&self) -> bool {
        true
    }

    fn free_memory(&self) -> Result<Option<usize>> {
        self.gpu.free_memory().map(Some)
    }

    fn alloc(&mut self, dtype: Dtype, len: usize) -> Result<Tensor> {
        self.memory.alloc(&self.gpu, dtype, len)
    }

    fn free(&mut self, tensor: Tensor) {
        self.copies.forget(tensor.buffer);
        self.memory.free(tensor);
    }

    fn upload(&mut self, to: Tensor, from: &[u8]) -> Result<()> {
        self.memory.upload(&self.gpu, to, from)
    }

    fn download(&mut self, from: Tensor, to: &mut [u8]) -> Result<()> {
        let downloaded = self.memory.download(&self.gpu, from, to);
        self.waited(downloaded)
    }

    fn zero(&mut self, tensor: Tensor) -> Result<()> {
        self.memory.zero(&self.gpu, tensor)
    }

    fn sync(&mut self) -> Result<()> {
        let done = self.gpu.sync();
        self.waited(done)
    }

    fn repeated(&mut self, step: &mut (dyn FnMut(&mut dyn Device) -> Result<bool> + Send)) -> Result<bool> {
        self.make_step(step)
    }

    fn timed(&mut self, work: &mut dyn FnMut(&mut dyn Device) -> Result<()>) -> Result<Option<Vec<KernelTime>>> {
        self.time_launches(work).map(Some)
    }

    fn max_sequences(&self) -> usize {
        MAX_SEQUENCES
    }

    fn grad_slots(&self) -> usize {
        GRAD_SLOTS
    }

    fn saved_len(&self, half: HalfBlock, call: &Call) -> usize {
        let &Call { n_time, d_model, n_head, .. } = call;
        let shape = &Shape { d_model, n_head, n_time, n_level: NO_LEVEL };
        match half {
            HalfBlock::Attention => attention::saved_len(shape),
            HalfBlock::Mlp => mlp::saved_len(shape),
        }
    }

    /// The largest stage's scratch, and the working copies: up to three of each weight in bf16.
    fn work_bytes(&self, config: &ModelConfig, n: usize) -> usize {
        let &ModelConfig { d_model, n_head, n_ctx: n_time, n_level, .. } = config;
        let shape = &Shape { d_model, n_head, n_time, n_level };
        let lens = [attention::scratch_len(shape, true), mlp::scratch_len(shape, true), head::scratch_len(shape, true)];
        let scratch = n.saturating_mul(4 * lens.into_iter().max().expect("three stages"));
        scratch.saturating_add(6 * ParamLayout::new(config).len())
    }

    fn embed(&mut self, call: &Call, params: &EmbedParams, inputs: &Inputs, x: Tensor) -> Result<()> {
        let &Call { n, n_time: t, d_model: e, .. } = call;
        let shape = shape(call, params.token.len / e.max(1))?;
        let mut stage = self.memory.stage();
        let Indices { tokens, conditions, channels, subjects } = Indices::new(&mut stage, call, params, inputs)?;
        let mut table = |table: Tensor| stage.read(table, table.len);
        let kernel = EmbedForward {
            token: table(params.token)?,
            position: table(params.position)?,
            channel: table(params.channel)?,
            subject: table(params.subject)?,
            condition: table(params.condition)?,
            tokens,
            conditions,
            channels,
            subjects,
            x: stage.first_mut(x, n * t * e)?,
            n: n as u32,
        };
        // SAFETY: every length and index has been checked.
        unsafe { embed::forward(&mut self.gpu, &shape, &kernel) }
    }

    fn embed_backward(&mut self, call: &Call, grads: &EmbedParams, inputs: &Inputs, dx: Tensor) -> Result<()> {
        let &Call { n, n_time: t, d_model: e, .. } = call;
        let shape = shape(call, grads.token.len / e.max(1))?;
        let mut stage = self.memory.stage();
        let Indices { tokens, conditions, channels, subjects } = Indices::new(&mut stage, call, grads, inputs)?;
        let dx = stage.first(dx, n * t * e)?;
        let slots = stage.slots(grads.token)?;
        let table = |table: Tensor| slots.part(table, table.len);
        let kernel = EmbedBackward {
            token: table(grads.token)?,
            position: table(grads.position)?,
            channel: table(grads.channel)?,
            subject: table(grads.subject)?,
            condition: table(grads.condition)?,
            tokens,
            conditions,
            channels,
            subjects,
            dx,
            n: n as u32,
            first: call.first as u32,
            slots: GRAD_SLOTS as u32,
            slot_len: slots.len as u64,
        };
        // SAFETY: every length and index has been checked.
        unsafe { embed::backward(&mut self.gpu, &shape, &kernel) }
    }

    fn attention(&mut self, call: &Call, params: &AttentionParams, x: Tensor, saved: Option<Tensor>) -> Result<()> {
        let &Call { n, n_time: t, d_model: e, from, .. } = call;
        let (shape, written) = (shape(call, NO_LEVEL)?, self.memory.written(&params.tensors())?);
        let kept = n * attention::saved_len(&shape);
        let Self { gpu, memory, copies, scratch, .. } = self;
        let mut stage = memory.stage();
        let pointers = AttentionPointers::of(params, e, |tensor, len| stage.read(tensor, len))?;
        let x = stage.first_mut(x, n * t * e)?;
        let saved = saved.map(|saved| stage.first_mut::<f32>(saved, kept)).transpose()?.map(Pointer::cast);
        let [scratch] = scratch.split(gpu, [n * attention::scratch_len(&shape, false)])?;
        let (new, refresh) = (attention::Working::new, attention::Working::refresh);
        let working = copies.attention.get(gpu, &shape, *params, written, &pointers, new, refresh)?;
        // SAFETY: every length has been checked.
        unsafe { attention::forward(gpu, &shape, (n, from), &pointers, working, x, saved, scratch) }
    }

    fn attention_backward(
        &mut self,
        call: &Call,
        params: &AttentionParams,
        grads: &AttentionParams,
        saved: Tensor,
        dx: Tensor,
    ) -> Result<()> {
        let &Call { n, n_time: t, d_model: e, .. } = call;
        let (shape, written) = (shape(call, NO_LEVEL)?, self.memory.written(&params.tensors())?);
        let kept = n * attention::saved_len(&shape);
        let Self { gpu, memory, copies, scratch, .. } = self;
        let mut stage = memory.stage();
        let pointers = AttentionPointers::of(params, e, |tensor, len| stage.read(tensor, len))?;
        let saved = stage.first::<f32>(saved, kept)?.cast();
        let slots = stage.slots(grads.norm_weight)?;
        let to = AttentionPointers::of(grads, e, |tensor, len| slots.part(tensor, len))?;
        let dx = stage.first_mut(dx, n * t * e)?;
        let [scratch] = scratch.split(gpu, [n * attention::scratch_len(&shape, true)])?;
        let (new, refresh) = (attention::Working::new, attention::Working::refresh);
        let working = copies.attention.get(gpu, &shape, *params, written, &pointers, new, refresh)?;
        let part = part(call, &slots);
        // SAFETY: every length has been checked.
        unsafe { attention::backward(gpu, &shape, &part, &pointers, &to, working, saved, scratch, dx) }
    }

    fn mlp(&mut self, call: &Call, params: &MlpParams, x: Tensor, saved: Option<Tensor>) -> Result<()> {
        let &Call { n, n_time: t, d_model: e, from, .. } = call;
        let (shape, written) = (shape(call, NO_LEVEL)?, self.memory.written(&params.tensors())?);
        let kept = n * mlp::saved_len(&shape);
        let Self { gpu, memory, copies, scratch, .. } = self;
        let mut stage = memory.stage();
        let pointers = MlpPointers::of(params, e, |tensor, len| stage.read(tensor, len))?;
        let x = stage.first_mut(x, n * t * e)?;
        let saved = saved.map(|saved| stage.first_mut::<f32>(saved, kept)).transpose()?.map(Pointer::cast);
        let [scratch] = scratch.split(gpu, [n * mlp::scratch_len(&shape, false)])?;
        let (new, refresh) = (mlp::Working::new, mlp::Working::refresh);
        let working = copies.mlp.get(gpu, &shape, *params, written, &pointers, new, refresh)?;
        // SAFETY: every length has been checked.
        unsafe { mlp::forward(gpu, &shape, (n, from), &pointers, working, x, saved, scratch) }
    }

    fn mlp_backward(
        &mut self,
        call: &Call,
        params: &MlpParams,
        grads: &MlpParams,
        saved: Tensor,
        dx: Tensor,
    ) -> Result<()> {
        let &Call { n, n_time: t, d_model: e, .. } = call;
        let (shape, written) = (shape(call, NO_LEVEL)?, self.memory.written(&params.tensors())?);
        let kept = n * mlp::saved_len(&shape);
        let Self { gpu, memory, copies, scratch, .. } = self;
        let mut stage = memory.stage();
        let pointers = MlpPointers::of(params, e, |tensor, len| stage.read(tensor, len))?;
        let saved = stage.first::<f32>(saved, kept)?.cast();
        let slots = stage.slots(grads.norm_weight)?;
        let to = MlpPointers::of(grads, e, |tensor, len| slots.part(tensor, len))?;
        let dx = stage.first_mut(dx, n * t * e)?;
        let [scratch] = scratch.split(gpu, [n * mlp::scratch_len(&shape, true)])?;
        let (new, refresh) = (mlp::Working::new, mlp::Working::refresh);
        let working = copies.mlp.get(gpu, &shape, *params, written, &pointers, new, refresh)?;
        let part = part(call, &slots);
        // SAFETY: every length has been checked.
        unsafe { mlp::backward(gpu, &shape, &part, &pointers, &to, working, saved, scratch, dx) }
    }

    fn head_loss(
        &mut self,
        call: &Call,
        params: &HeadParams,
        inputs: &Inputs,
        levels: Tensor,
        x: Tensor,
        scores: Tensor,
        backward: Option<HeadBackward>,
    ) -> Result<()> {
        let (&Call { n, n_time: t, d_model: e, from, .. }, q) = (call, levels.len);
        let (shape, written) = (shape(call, q)?, self.memory.written(&params.tensors())?);
        let Self { gpu, memory, copies, scratch, .. } = self;
        let mut stage = memory.stage();
        let pointers = HeadPointers::of(params, (q, e), |tensor, len| stage.read(tensor, len))?;
        let (token, most) = stage.indices(inputs.token, n * (t + 1))?;
        ensure!(most < q, Kind::Internal, "token {most} of a vocabulary of {q}");
        let channel = channels(&mut stage, inputs, n, &pointers)?;
        let levels = stage.read(levels, q)?;
        let (x, scores) = (stage.first(x, n * t * e)?, stage.write(scores, n * Score::LEN)?);
        let [scratch] = scratch.split(gpu, [n * head::scratch_len(&shape, backward.is_some())])?;
        let backward = backward.map(|backward| -> Result<_> {
            let slots = stage.slots(backward.grads.weight)?;
            let grads = HeadPointers::of(&backward.grads, (q, e), |tensor, len| slots.part(tensor, len))?;
            let dx = stage.first_mut(backward.dx, n * t * e)?;
            Ok(head::Backward { part: part(call, &slots), params: &pointers, grads, factor: backward.weight, dx })
        });
        let backward = backward.transpose()?;
        let (new, refresh) = (head::Working::new, head::Working::refresh);
        let working = copies.head.get(gpu, &shape, *params, written, &pointers, new, refresh)?;
        let read = Read { token, channel, levels };
        // SAFETY: every length and index has been checked.
        unsafe { head::loss(gpu, &shape, (n, from), working, &read, x, scratch, scores, backward) }
    }

    fn head_logits(
        &mut self,
        call: &Call,
        params: &HeadParams,
        inputs: &Inputs,
        x: Tensor,
        logits: Tensor,
    ) -> Result<()> {
        let &Call { n, n_time: t, d_model: e, from, .. } = call;
        let rows = n * t.saturating_sub(from);
        let q = logits.len / rows.max(1);
        let (shape, written) = (shape(call, q)?, self.memory.written(&params.tensors())?);
        let Self { gpu, memory, copies, scratch, .. } = self;
        let mut stage = memory.stage();
        let pointers = HeadPointers::of(params, (q, e), |tensor, len| stage.read(tensor, len))?;
        let channel = channels(&mut stage, inputs, n, &pointers)?;
        let (x, logits) = (stage.first(x, n * t * e)?, stage.write(logits, rows * q)?);
        let [scratch] = scratch.split(gpu, [n * head::scratch_len(&shape, false)])?;
        let (new, refresh) = (head::Working::new, head::Working::refresh);
        let working = copies.head.get(gpu, &shape, *params, written, &pointers, new, refresh)?;
        // SAFETY: every length and index has been checked.
        unsafe { head::logits(gpu, &shape, (n, from), working, channel, x, scratch, logits) }
    }

    fn update(&mut self, state: &OptimizerState, hyper: &AdamW, scores: Tensor) -> Result<UpdateOutcome> {
        self.gpu.outside_step()?;
        let len = state.params.len;
        let aligned = [state.params, state.grads, state.m, state.v].iter().all(|t| t.offset.is_multiple_of(4));
        ensure!(aligned && len > 0 && state.n_decayed <= len, Kind::Internal, "a state that makes no sense: {state:?}");
        let mut stage = self.memory.stage();
        let on_gpu = State {
            len,
            n_decayed: state.n_decayed,
            params: stage.write(state.params, len)?,
            grads: stage.write(state.grads, GRAD_SLOTS * len)?,
            m: stage.write(state.m, len)?,
            v: stage.write(state.v, len)?,
        };
        let scores = (stage.read(scores, scores.len)?, scores.len);
        // The kernels know no shape.
        let shape = Shape { d_model: 8, n_head: 1, n_time: 1, n_level: 1 };
        // SAFETY: every length has been checked.
        let outcome = unsafe { update::update(&mut self.gpu, &shape, &mut self.sums, &on_gpu, hyper, scores) };
        self.waited(outcome)
    }

    fn rollout(
        &mut self,
        config: &ModelConfig,
        params: &Parameters,
        rollout: &Rollout,
        tokens: &mut [u8],
        logits: Option<&mut [f32]>,
    ) -> Result<()> {
        self.gpu.outside_step()?;
        let handles = tensors(params);
        let written = self.memory.written(&handles)?;
        let Self { gpu, memory, copies, .. } = self;
        let pointers = network(&mut memory.stage(), config, params)?;
        let (shape, new, refresh) = (rollout::shape(config), rollout::Working::new, rollout::Working::fill);
        let working = copies.network.get(gpu, &shape, handles, written, &pointers, new, refresh)?;
        // SAFETY: every length has been checked.
        let done = unsafe {
            let stop = || interrupt::requested().is_some();
            rollout::rollout(gpu, config, &pointers, working, rollout, None, &stop, tokens, logits)
        };
        self.waited(done)
    }
}
