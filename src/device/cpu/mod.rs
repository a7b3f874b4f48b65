//! The CPU engine: every stage of [`Device`] on the machine's cores.
//!
//! A sequence is one job for one thread, from one end of a half-block to the other, so that its rows stay in that core's
//! cache; `team` spreads the jobs. Weights are packed for the products once in a call and shared. Nothing is
//! allocated after the first step. Inner loops are written once, over the vectors of whichever instruction set is
//! found at run time (`vector`, `gemm`).

mod attention;
mod attention_backward;
mod embed;
mod gemm;
mod head;
mod memory;
mod mlp;
mod norm;
mod rollout;
pub mod sampler;
mod sequences;
mod strips;
mod team;
mod update;
mod vector;
mod wavenet;

use super::{
    AdamW, AttentionParams, Call, Device, Dtype, EmbedParams, HalfBlock, HeadBackward, HeadParams, Inputs, MlpParams,
    OptimizerState, Rollout, Tensor, UpdateOutcome,
};
use crate::device::wavenet::WavenetStages;
use crate::ensure;
use crate::error::{Kind, Result};
use crate::model::config::ModelConfig;
use crate::model::layout::Parameters;
use memory::{Memory, Scratch};
use team::Team;

/// Copies of the parameters in a gradient buffer, and so the most sequences in one call and the most threads that have
/// work. A constant: the sums, and with them the bits of a run, must not depend on the machine.
pub const GRAD_SLOTS: usize = 16;

/// Timesteps that attention's projections, the MLP forward and the head work on at a time: their widest rows then stay in a core's L2
/// cache.
const ROWS: usize = 64;

/// No machine has more, and a slip of the keyboard should not start a million.
pub const MAX_THREADS: usize = 4096;

/// Threads where nobody says how many: one for each core.
pub fn default_threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The CPU as a device.
pub struct Cpu {
    memory: Memory,
    team: Team,
    /// Weights packed for the products of one call.
    packed: Scratch,
}

impl Cpu {
    /// A device of so many threads; without a number, one for each core.
    pub fn new(threads: Option<usize>) -> Result<Self> {
        let threads = threads.unwrap_or_else(default_threads);
        Self::with_instructions(pulp::Arch::new(), threads)
    }

    /// A device that uses the given instruction set and not the best one, so that tests reach them all.
    pub fn with_instructions(arch: pulp::Arch, threads: usize) -> Result<Self> {
        ensure!((1..=MAX_THREADS).contains(&threads), Kind::Usage, "{threads} threads is outside 1 to {MAX_THREADS}");
        Ok(Self { memory: Memory::default(), team: Team::new(arch, threads)?, packed: Scratch::default() })
    }
}

/// The sizes of a call, checked: N sequences of T timesteps, width E, H heads.
#[derive(Debug, Clone, Copy)]
struct Shape {
    n: usize,
    t: usize,
    e: usize,
    h: usize,
    from: usize,
}

impl Shape {
    fn new(call: &Call) -> Result<Self> {
        let &Call { n, n_time: t, d_model: e, n_head: h, from, .. } = call;
        ensure!(
            (1..=GRAD_SLOTS).contains(&n) && from < t && h > 0 && e > 0 && e.is_multiple_of(h),
            Kind::Internal,
            "a call that makes no sense: {call:?}"
        );
        Ok(Self { n, t, e, h, from })
    }

    /// Width of a head.
    fn d(&self) -> usize {
        self.e / self.h
    }

    /// Timesteps that somebody needs.
    fn rows(&self) -> usize {
        self.t - self.from
    }
}

impl Device for Cpu {
    fn name(&self) -> String {
        format!("CPU ({})", self.team.instructions())
    }

    fn alloc(&mut self, dtype: Dtype, len: usize) -> Result<Tensor> {
        self.memory.alloc(dtype, len)
    }

    fn free(&mut self, tensor: Tensor) {
        self.memory.free(tensor);
    }

    fn upload(&mut self, to: Tensor, from: &[u8]) -> Result<()> {
        let mut to = self.memory.bytes_mut(to)?;
        ensure!(to.len() == from.len(), Kind::Internal, "{} bytes for a tensor of {}", from.len(), to.len());
        to.copy_from_slice(from);
        Ok(())
    }

    fn download(&mut self, from: Tensor, to: &mut [u8]) -> Result<()> {
        let from = self.memory.bytes_mut(from)?;
        ensure!(to.len() == from.len(), Kind::Internal, "{} bytes for a tensor of {}", to.len(), from.len());
        to.copy_from_slice(&from);
        Ok(())
    }

    fn zero(&mut self, tensor: Tensor) -> Result<()> {
        self.memory.bytes_mut(tensor)?.fill(0);
        Ok(())
    }

    fn sync(&mut self) -> Result<()> {
        Ok(())
    }

    /// On one of the team's threads: stages that follow one another then find the others awake, and not each has to wake them.
    fn repeated(&mut self, step: &mut (dyn FnMut(&mut dyn Device) -> Result<bool> + Send)) -> Result<bool> {
        match self.team.pool() {
            Some(pool) => pool.install(|| step(self)),
            None => step(self),
        }
    }

    fn max_sequences(&self) -> usize {
        GRAD_SLOTS.min(2 * self.team.threads())
    }

    fn grad_slots(&self) -> usize {
        GRAD_SLOTS
    }

    fn saved_len(&self, half: HalfBlock, call: &Call) -> usize {
        let shape = Shape { n: call.n, t: call.n_time, e: call.d_model, h: call.n_head, from: call.from };
        match half {
            HalfBlock::Attention => attention::saved_len(&shape),
            HalfBlock::Mlp => mlp::saved_len(&shape),
        }
    }

    fn embed(&mut self, call: &Call, params: &EmbedParams, inputs: &Inputs, x: Tensor) -> Result<()> {
        embed::forward(self, call, params, inputs, x)
    }

    fn embed_backward(&mut self, call: &Call, grads: &EmbedParams, inputs: &Inputs, dx: Tensor) -> Result<()> {
        embed::backward(self, call, grads, inputs, dx)
    }

    fn attention(&mut self, call: &Call, params: &AttentionParams, x: Tensor, saved: Option<Tensor>) -> Result<()> {
        attention::forward(self, call, params, x, saved)
    }

    fn attention_backward(
        &mut self,
        call: &Call,
        params: &AttentionParams,
        grads: &AttentionParams,
        saved: Tensor,
        dx: Tensor,
    ) -> Result<()> {
        attention_backward::backward(self, call, params, grads, saved, dx)
    }

    fn mlp(&mut self, call: &Call, params: &MlpParams, x: Tensor, saved: Option<Tensor>) -> Result<()> {
        mlp::forward(self, call, params, x, saved)
    }

    fn mlp_backward(
        &mut self,
        call: &Call,
        params: &MlpParams,
        grads: &MlpParams,
        saved: Tensor,
        dx: Tensor,
    ) -> Result<()> {
        mlp::backward(self, call, params, grads, saved, dx)
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
        head::loss(self, call, params, inputs, levels, x, scores, backward)
    }

    fn head_logits(
        &mut self,
        call: &Call,
        params: &HeadParams,
        inputs: &Inputs,
        x: Tensor,
        logits: Tensor,
    ) -> Result<()> {
        head::bare_logits(self, call, params, inputs, x, logits)
    }

    fn update(&mut self, state: &OptimizerState, hyper: &AdamW, scores: Tensor) -> Result<UpdateOutcome> {
        update::update(self, state, hyper, scores)
    }

    fn rollout(
        &mut self,
        config: &ModelConfig,
        params: &Parameters,
        rollout: &Rollout,
        tokens: &mut [u8],
        logits: Option<&mut [f32]>,
    ) -> Result<()> {
        rollout::rollout(self, config, params, rollout, tokens, logits)
    }

    fn wavenet(&mut self) -> Result<&mut dyn WavenetStages> {
        Ok(self)
    }
}
