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

    /// What the description of a recording says, if it was generated.
    pub fn of(info: &Info) -> Option<Self> {
        serde_json::from_str(info.description.as_deref()?.strip_prefix(MARK)?).ok()
    }

    /// Whether the recording is the work of the same generation, though perhaps shorter.
    pub fn made(&self, info: &Info) -> bool {
        Self::of(info).is_some_and(|other| other.generation == self.generation && other.rollout == self.rollout)
    }
}
