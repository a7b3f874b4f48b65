//! A shard: the tokens of one recording and split, with everything needed to turn them back into signal.
//!
//! A container of kind `tokens` with the tensors `tokens` u8 [channel, time], `condition` u16 [time], and `centre`,
//! `spread`, `peak` f64 [channel].

use super::scheme::{Scales, Scheme};
use crate::error::Result;
use crate::recording::{Info, Recording};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Which part of a recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "their names say it")]
pub enum Split {
    Train,
    Validation,
    Test,
}

/// What a shard says of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ShardMeta {
    /// The recording this is a part of: sensors, sampling rate, subject, pass band; `n_timestep` and `events` are the
    /// part's own, `first_timestep` its start in the prepared recording.
    pub info: Info,
    /// The part.
    pub split: Split,
    /// The recording's name within the data set; shared by its three parts.
    pub recording: String,
    /// The tokenizer.
    pub scheme: Scheme,
    /// Names of the conditions: condition i is `conditions[i - 1]`. The same in every shard of a data set.
    pub conditions: Vec<String>,
    /// Version of gpt2meg that wrote it.
    pub version: String,
}

/// An open shard.
pub struct Shard {
    /// What it says of itself.
    pub meta: ShardMeta,
    /// The scales of its recording.
    pub scales: Scales,
}

impl Shard {
    /// Opens and validates; nothing of the tokens is read yet.
    pub fn open(path: &Path) -> Result<Self> {
        let _ = path;
        todo!()
    }
    /// Timesteps.
    pub fn n_timestep(&self) -> usize {
        self.meta.info.n_timestep
    }
    /// Copies channel `channel`, timesteps `start .. start + out.len()`.
    pub fn tokens(&self, channel: usize, start: usize, out: &mut [u8]) -> Result<()> {
        let _ = (channel, start, out);
        todo!()
    }
    /// Copies the conditions of timesteps `start .. start + out.len()`.
    pub fn conditions(&self, start: usize, out: &mut [u16]) -> Result<()> {
        let _ = (start, out);
        todo!()
    }
    /// The signal these tokens stand for, in SI units.
    pub fn into_recording(self) -> Result<Recording> {
        todo!()
    }
}
