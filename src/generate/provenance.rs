//! What a generated recording says of its own making, in the description that FIF files and arrays carry.

use crate::recording::Info;
use crate::tokens::scheme::Scheme;
use serde::{Deserialize, Serialize};

/// What the description begins with; JSON follows.
const MARK: &str = "gpt2meg generated ";

/// How a recording came to be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Provenance {
    /// Checksum of everything that the tokens are a function of: the same for what one generation writes.
    pub generation: String,
    /// Number of the rollout, from 1.
    pub rollout: usize,
    /// How it was drawn, in words.
    pub sampler: String,
    /// The tokenizer its values are levels of.
    pub tokenizer: Scheme,
}

impl Provenance {
    /// The description of a recording.
    pub fn text(&self) -> String {
        format!("{MARK}{}", serde_json::to_string(self).expect("plain data"))
    }

    /// What the recording says, if it was generated.
    pub fn of(info: &Info) -> Option<Self> {
        Self::read(info.description.as_deref()?)
    }

    /// What a description says, if it is that of a generated recording.
    pub fn read(description: &str) -> Option<Self> {
        serde_json::from_str(description.strip_prefix(MARK)?).ok()
    }

    /// Whether both are of the same rollout of the same generation, though perhaps one is shorter.
    pub fn is_same(&self, other: &Self) -> bool {
        other.generation == self.generation && other.rollout == self.rollout
    }
}
