//! What a user of the emulator may vary.

use serde::{Deserialize, Serialize};

use crate::target::Target;

/// How the machine runs and what it checks. Travels as JSON from a test to the stand-in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The GPU that the stand-in poses as.
    pub target: Target,
    /// Chooses the order of blocks, warps and asynchronous work, and the perturbations of [`Rounding::Adversarial`].
    /// Equal seeds give equal results, findings and counters, for any number of threads.
    pub seed: u64,
    /// What is watched.
    pub watch: Watch,
    /// How results that the PTX manual leaves open are chosen.
    pub rounding: Rounding,
    /// Whether launches are counted.
    pub count: bool,
    /// Blocks run on this many threads; 0 means all cores.
    pub threads: usize,
    /// Warp instructions after which a launch counts as a runaway loop; 0 means no limit.
    pub max_warp_instructions: u64,
}

/// What is watched while kernels run. Bounds and alignment always are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Watch {
    /// Bounds and alignment only.
    Off,
    /// Also reads of uninitialised registers and memory, and the rules of barriers and `.sync` instructions.
    Memory,
    /// Also races in shared and global memory.
    Races,
}

/// How results are chosen where the PTX manual allows several.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rounding {
    /// Approximations correctly rounded; tensor cores add exactly, in index order, and round once.
    Exact,
    /// Approximations perturbed by the seed within the documented bounds; tensor cores add in another order and
    /// truncate intermediate sums.
    Adversarial,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            target: Target::default(),
            seed: 0,
            watch: Watch::Races,
            rounding: Rounding::Exact,
            count: true,
            threads: 0,
            max_warp_instructions: 0,
        }
    }
}
