//! Races and findings.
//!
//! | file | what it holds |
//! | --- | --- |
//! | [`tag`] | the record of who touched a word last |
//! | [`groups`] | an access of a warp, split into words |
//! | [`clock`], `known`, `met` | what a warp and its lanes know of the others: barriers, `bar.warp.sync`, fences |
//! | [`order`] | releases and acquisitions by flags, tickets and locks |
//! | [`race`], `quick` | the judgement of an access; that of the common cases in few steps |
//! | [`shared`], [`global`], `page` | shared memory; global memory, in pages |

pub mod clock;
pub mod global;
pub mod groups;
mod known;
mod met;
pub mod order;
mod page;
mod quick;
pub mod race;
pub mod shared;
pub mod tag;

#[cfg(test)]
mod tests;

use std::fmt;

use serde::{Deserialize, Serialize};

/// Something wrong that a launch did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What kind of wrong.
    pub kind: FindingKind,
    /// Name of the kernel.
    pub kernel: String,
    /// Block in x, y and z.
    pub block: [u32; 3],
    /// Warp in the block.
    pub warp: u32,
    /// Lane in the warp: the first that did it.
    pub lane: u32,
    /// The address, when it concerns memory: an offset in shared and local memory.
    pub address: Option<u64>,
    /// The space of the address.
    pub space: Option<Space>,
    /// Where in the source.
    pub place: Place,
    /// The other place: of a race the other access, of what was never written where it was first computed with.
    pub other: Option<Place>,
    /// What happened, in a sentence without the above.
    pub message: String,
    /// How often it was found, where a launch goes on after a finding.
    #[serde(default = "once")]
    pub times: u64,
}

fn once() -> u64 {
    1
}

/// Kinds of findings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FindingKind {
    /// An access outside every allocation, or into freed memory.
    OutOfBounds,
    /// An address that is no multiple of the access's size.
    Misaligned,
    /// A register or memory that was never written is read.
    Uninitialised,
    /// Data of a `cp.async` is used before its wait.
    InFlight,
    /// Two accesses, at least one a write, that nothing orders.
    Race,
    /// A barrier that not all threads reach together.
    BarrierDivergence,
    /// A `.sync` instruction whose mask and lanes do not match.
    MaskMismatch,
    /// All that still run wait for each other.
    Deadlock,
    /// More instructions than the settings allow.
    Runaway,
    /// `assert` failed.
    Assert,
    /// `trap` or `brkpt`.
    Trap,
    /// Anything else whose outcome the PTX manual leaves undefined.
    Undefined,
}

/// The state spaces of PTX.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Space {
    /// `.global`
    Global,
    /// `.shared`
    Shared,
    /// `.local`
    Local,
    /// `.const`
    Constant,
    /// `.param`
    Parameter,
}

/// A place in the source: of the `.cu` when the PTX has line information, and of the PTX always.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// File of the `.cu`, empty when not known.
    pub file: String,
    /// Its line, 0 when not known.
    pub line: u32,
    /// Where that line was inlined at: file and line, from the inside out.
    pub inlined_at: Vec<(String, u32)>,
    /// Line of the PTX.
    pub ptx_line: u32,
    /// The instruction as it stands in the PTX.
    pub instruction: String,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line > 0 {
            write!(f, "{}:{}", self.file, self.line)?;
            for (file, line) in &self.inlined_at {
                write!(f, ", inlined at {file}:{line}")?;
            }
            write!(f, " (PTX line {}: {})", self.ptx_line, self.instruction)
        } else {
            write!(f, "PTX line {}: {}", self.ptx_line, self.instruction)
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [x, y, z] = self.block;
        write!(f, "{} block ({x},{y},{z}) warp {} lane {}: {}", self.kernel, self.warp, self.lane, self.message)?;
        if let (Some(address), Some(space)) = (self.address, self.space) {
            write!(f, " [{space:?} {address:#x}]")?;
        }
        write!(f, " at {}", self.place)?;
        if let Some(other) = &self.other {
            match self.kind {
                FindingKind::Uninitialised => write!(f, "; it was first read at {other}")?,
                _ => write!(f, "; the other access is at {other}")?,
            }
        }
        if self.times > 1 {
            write!(f, " ({} times)", self.times)?;
        }
        Ok(())
    }
}
