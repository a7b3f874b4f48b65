//! What the half-blocks share: from a call's tensors to the parts of each sequence, spread over the threads.

use super::Shape;
use super::memory::{Memory, Scratch};
use super::team::Team;
use crate::device::Tensor;
use crate::error::Result;

/// The tensors of a half-block's call.
pub(super) struct Sequences<'a> {
    pub(super) memory: &'a Memory,
    pub(super) team: &'a Team,
    pub(super) shape: Shape,
    /// Elements that a sequence keeps for the backward pass.
    pub(super) kept: usize,
}

impl Sequences<'_> {
    /// Does `work` with each sequence's activations in `x`, [T, E], and its part of `saved`.
    pub(super) fn forward(
        &self,
        x: Tensor,
        saved: Option<Tensor>,
        work: impl Fn(&mut [f32], Option<&mut [f32]>, &mut Scratch) + Sync,
    ) -> Result<()> {
        let Shape { n, t, e, .. } = self.shape;
        let mut x = self.memory.first_mut(x, n * t * e)?;
        let mut saved = saved.map(|saved| self.memory.first_mut(saved, n * self.kept)).transpose()?;
        let mut saved = saved.as_mut().map(|saved| saved.chunks_exact_mut(self.kept));
        let jobs = x.chunks_exact_mut(t * e).map(|x| (x, saved.as_mut().and_then(Iterator::next)));
        self.team.each(jobs, |(x, saved), scratch| work(x, saved, scratch));
        Ok(())
    }

    /// Does `work` with each sequence's gradient in `dx`, [T, E], its part of `saved`, and its slot of the gradients; the
    /// first sequence has the index `first` within the step, and each of `grads` the length beside it.
    pub(super) fn backward(
        &self,
        first: usize,
        dx: Tensor,
        saved: Tensor,
        grads: &[(Tensor, usize)],
        work: impl Fn(&mut [f32], &mut [f32], &mut [f32], &mut Scratch) + Sync,
    ) -> Result<()> {
        let Shape { n, t, e, .. } = self.shape;
        let mut dx = self.memory.first_mut(dx, n * t * e)?;
        let mut saved = self.memory.first_mut(saved, n * self.kept)?;
        let mut slots = self.memory.slots(grads)?;
        let jobs = dx.chunks_exact_mut(t * e).zip(saved.chunks_exact_mut(self.kept)).zip(slots.of(first));
        self.team.each(jobs, |((dx, saved), slot), scratch| work(dx, saved, slot, scratch));
        Ok(())
    }
}
