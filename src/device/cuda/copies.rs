//! Working copies of the parameters, kept from one call to the next and made anew when a parameter has been written since.
//!
//! Nothing has to be told that parameters change: whatever writes a buffer (an upload, an update) passes through
//! [`super::memory`], which notes when; a copy that is older than what it was made from is stale.

use super::either::{attention, head, mlp};
use super::{Gpu, Shape, rollout};
use crate::device::{AttentionParams, HeadParams, MlpParams, Tensor};
use crate::error::Result;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;

/// Copies by the handles of the parameters they were made from.
#[derive(Default)]
pub struct Copies {
    /// Of attention half-blocks.
    pub attention: Cache<AttentionParams, attention::Working>,
    /// Of MLP half-blocks.
    pub mlp: Cache<MlpParams, mlp::Working>,
    /// Of heads.
    pub head: Cache<HeadParams, head::Working>,
    /// Of whole networks, for generation.
    pub network: Cache<Vec<Tensor>, rollout::Working>,
}

impl Copies {
    /// Forgets what was made from a buffer that is given back.
    pub fn forget(&mut self, buffer: u32) {
        let lies = |tensor: Tensor| tensor.buffer == buffer;
        self.attention.0.retain(|(params, _), _| !params.tensors().into_iter().any(lies));
        self.mlp.0.retain(|(params, _), _| !params.tensors().into_iter().any(lies));
        self.head.0.retain(|(params, _), _| !params.tensors().into_iter().any(lies));
        self.network.0.retain(|(tensors, _), _| !tensors.iter().copied().any(lies));
    }

    /// Takes all of them for stale.
    pub fn expire(&mut self) {
        self.attention.expire();
        self.mlp.expire();
        self.head.expire();
        self.network.expire();
    }
}

/// Copies of one kind, by their parameters and the shape they serve, each with when its parameters were last written as it was
/// made.
pub struct Cache<K, W>(HashMap<(K, Shape), (u64, W)>);

impl<K, W> Default for Cache<K, W> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Eq + Hash, W> Cache<K, W> {
    fn expire(&mut self) {
        // No write is that late.
        self.0.values_mut().for_each(|(made, _)| *made = u64::MAX);
    }

    /// The copy of `key`, whose parameters were last written at `written`: as it is, made anew, or new.
    #[expect(clippy::too_many_arguments, reason = "a copy, what it is made from, and how")]
    pub fn get<P>(
        &mut self,
        gpu: &mut Gpu,
        shape: &Shape,
        key: K,
        written: u64,
        params: &P,
        new: fn(&mut Gpu, &Shape, &P) -> Result<W>,
        refresh: fn(&W, &mut Gpu, &Shape, &P) -> Result<()>,
    ) -> Result<&W> {
        let shape = &shape.of_copies();
        match self.0.entry((key, *shape)) {
            Entry::Vacant(entry) => Ok(&entry.insert((written, new(gpu, shape, params)?)).1),
            Entry::Occupied(entry) => {
                let (made, working) = entry.into_mut();
                if *made != written {
                    refresh(working, gpu, shape, params)?;
                    *made = written;
                }
                Ok(working)
            }
        }
    }
}
