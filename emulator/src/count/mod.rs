//! What a launch cost, as JSON.

use serde::{Deserialize, Serialize};

/// Counters of one launch. Equal for equal seeds, whatever the number of threads.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Instructions that a warp issued, whatever the number of its active lanes.
    pub warp_instructions: u64,
    /// Instructions, counted once for each active lane.
    pub thread_instructions: u64,
}
