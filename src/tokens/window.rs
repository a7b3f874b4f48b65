//! Windows: which stretch of which shard is trained on at which step, as a function of the seed and the step alone.

use super::dataset::Dataset;
use super::shard::Split;
use crate::error::Result;

/// One window: all channels of a shard, `n_ctx + 1` timesteps from `start` on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Index into [`Dataset::shards`].
    pub shard: usize,
    /// First timestep.
    pub start: usize,
}

/// All windows of a split, and their order in each pass.
#[derive(Debug, Clone)]
pub struct Windows {}

impl Windows {
    /// The windows of `split`, `n_ctx + 1` long, a stride of `n_ctx / 2` apart (every timestep is a target about once).
    /// An error if no shard is long enough.
    pub fn new(dataset: &Dataset, split: Split, n_ctx: usize) -> Result<Self> {
        let _ = (dataset, split, n_ctx);
        todo!()
    }
    /// Number of windows: one pass.
    #[expect(clippy::len_without_is_empty, reason = "never empty")]
    pub fn len(&self) -> usize {
        todo!()
    }
    /// The `index`-th window in file order: for evaluation.
    pub fn in_order(&self, index: usize) -> Window {
        let _ = index;
        todo!()
    }
    /// The window that is drawn `index`-th (counted over all passes): pass `index / len`, a keyed permutation within.
    pub fn drawn(&self, seed: u64, index: u64) -> Window {
        let _ = (seed, index);
        todo!()
    }
}
