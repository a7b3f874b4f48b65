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
    /// Equal seeds give equal results, findings and counters, for any number of threads; but a kernel with a race between
    /// blocks only where races are watched, for otherwise nothing tells that its blocks must not run at the same time.
    pub seed: u64,
    /// What is watched.
    pub watch: Watch,
    /// How results that the PTX manual leaves open are chosen.
    pub rounding: Rounding,
    /// Whether launches are counted.
    pub count: bool,
    /// Blocks run on this many threads; 0 means all cores.
    pub threads: usize,
    /// Whether a finding ends the launch.
    pub findings: Findings,
    /// Warp instructions that one block may execute before it counts as a runaway loop. Blocks that wait for each other may
    /// together execute a sixteenth of it while nothing changes, and all of it while none that asks reads anything new. 0
    /// means no limit.
    pub max_warp_instructions: u64,
}

/// What comes after a finding. The launch fails in either case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Findings {
    /// It ends the launch, and is what is told.
    First,
    /// The launch goes on as far as it can, and all is told at its end: each kind at each place once, with how often it
    /// was. A race and a read of what was not written are passed over; anything else ends its block, and if blocks
    /// communicate, the launch.
    Summary,
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
    /// Approximations correctly rounded; tensor cores sum up products in index order, in f64, and round once at the end.
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
            findings: Findings::First,
            max_warp_instructions: 1 << 30,
        }
    }
}
