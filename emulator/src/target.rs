//! The GPUs that the stand-in can pose as.

use serde::{Deserialize, Serialize};

/// An architecture, by its compute capability. `sm_80` is the default: what runs there runs on all the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// A100.
    #[default]
    Sm80,
    /// RTX 30, A40.
    Sm86,
    /// RTX 40, L40.
    Sm89,
    /// H100, H200.
    Sm90,
    /// B200.
    Sm100,
    /// RTX 50.
    Sm120,
}
