//! A folder of shards that belong together: the same channels, rate, tokenizer and condition names.

use super::shard::{Shard, Split};
use crate::error::Result;
use std::path::Path;

/// An open data set.
pub struct Dataset {
    /// Every shard, sorted by recording and split.
    pub shards: Vec<Shard>,
    /// Labels of the subjects, sorted; a shard's subject is an index into this.
    pub subjects: Vec<String>,
    /// Names of the conditions, the same in every shard.
    pub conditions: Vec<String>,
}

impl Dataset {
    /// Opens a folder (or one shard file) and checks that its shards belong together.
    pub fn open(path: &Path) -> Result<Self> {
        let _ = path;
        todo!()
    }
    /// The shards of one split, with their indices.
    pub fn split(&self, split: Split) -> Vec<usize> {
        (0..self.shards.len()).filter(|&i| self.shards[i].meta.split == split).collect()
    }
    /// The subject index of a shard.
    pub fn subject(&self, shard: usize) -> usize {
        let _ = shard;
        todo!()
    }
}
