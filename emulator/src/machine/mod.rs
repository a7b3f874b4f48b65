//! Warps, blocks, grids: control flow, scheduling, execution.
//!
//! | file | what it holds |
//! | --- | --- |
//! | [`lanes`] | how a function of one lane becomes an operation on 32 |
//! | [`warp`] | registers, fragments of lanes that have diverged, frames of calls |
//! | [`step`], `wait` | the interpreter's loop: a warp's turn; lanes that wait for each other |
//! | [`block`], [`barrier`] | warps that take turns; what they wait at |
//! | [`launch`] | blocks of a grid, in parallel or interleaved |
//! | [`access`], [`elements`], [`atomics`], [`copy`], [`bulk`], [`discard`] | loads and stores, atomics, `cp.async` |
//! | [`modifiers`], `locate` | how strong an access is; its checks |
//! | [`mbarrier`], [`mbarrier_state`] | barriers in shared memory |
//! | [`exchange`], [`matrix`], [`wmma`], [`wmma_double`] | what the lanes of a warp do together |
//! | [`calls`], [`mod@print`] | functions, `printf`, `assert` |
//! | `ungiven` | values that nobody gave, on their way |
//! | [`hooks`] | where watching and counting look on |

#![allow(clippy::needless_range_loop, reason = "lanes index several rows at once")]
#![allow(clippy::too_many_arguments, reason = "what is known of one access")]

pub mod access;
pub mod atomics;
pub mod barrier;
pub mod block;
pub mod bulk;
pub mod calls;
pub mod copy;
pub mod core;
pub mod discard;
pub mod elements;
pub mod exchange;
pub mod hooks;
pub mod lanes;
pub mod launch;
mod loaded;
pub mod local;
mod local_access;
mod locate;
pub mod matrix;
pub mod mbarrier;
pub mod mbarrier_state;
pub mod modifiers;
mod observe;
pub mod print;
mod random;
pub mod special;
pub mod step;
pub mod trouble;
mod ungiven;
mod wait;
pub mod warp;
pub mod wmma;
pub mod wmma_double;

use crate::count::Counters;
use crate::decode::Kernel;
use crate::watch::Finding;
pub use lanes::{LanesHandler, WarpHandler};
pub use launch::run;
pub use loaded::LoadedModule;

/// A launch, as the driver knows it. The driver has checked its shape against the target's limits.
#[derive(Clone, Copy, Debug)]
pub struct Launch<'a> {
    /// What is launched.
    pub kernel: &'a Kernel,
    /// Blocks in x, y and z.
    pub grid: [u32; 3],
    /// Threads of a block in x, y and z.
    pub block: [u32; 3],
    /// Bytes of dynamic shared memory.
    pub dynamic_shared: u32,
    /// The parameter buffer, laid out as `kernel.parameters` says.
    pub parameters: &'a [u8],
    /// Whether all blocks must be resident together (a cooperative launch), so that they may wait for each other.
    pub cooperative: bool,
}

/// What came of a launch.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct LaunchReport {
    /// Name of the kernel.
    pub kernel: String,
    /// Blocks in x, y and z.
    pub grid: [u32; 3],
    /// Threads of a block in x, y and z.
    pub block: [u32; 3],
    /// Bytes of dynamic shared memory of a block.
    pub dynamic_shared: u32,
    /// What it cost, when settings ask for counting and the launch ran to its end.
    pub counters: Option<Counters>,
    /// What was found, the first first. A finding ends the launch.
    pub findings: Vec<Finding>,
    /// What the kernel printed.
    pub printed: String,
    /// Why the launch ended early, if it did.
    pub fault: Option<Fault>,
}

/// Why a launch ended early.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Fault {
    /// Its kind, from which the driver takes its error code.
    pub kind: FaultKind,
    /// The whole diagnosis.
    pub message: String,
}

/// Kinds of faults, as the driver tells them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FaultKind {
    /// CUDA_ERROR_ILLEGAL_ADDRESS (700).
    IllegalAddress,
    /// CUDA_ERROR_MISALIGNED_ADDRESS (716).
    MisalignedAddress,
    /// CUDA_ERROR_ASSERT (710).
    Assert,
    /// CUDA_ERROR_LAUNCH_TIMEOUT (702): more instructions than the settings allow.
    Runaway,
    /// CUDA_ERROR_LAUNCH_FAILED (719): a trap, or any finding that hardware would pass over in silence.
    LaunchFailed,
}
