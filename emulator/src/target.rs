//! The GPUs that the stand-in can pose as, and the limits that the CUDA programming guide gives for each.

use std::fmt;
use std::str::FromStr;

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

/// What a multiprocessor of an architecture holds: the guide's table of technical specifications.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Resident threads on a multiprocessor.
    pub threads_per_multiprocessor: u32,
    /// Resident blocks on a multiprocessor.
    pub blocks_per_multiprocessor: u32,
    /// Shared memory of a multiprocessor, in bytes.
    pub shared_per_multiprocessor: u32,
    /// Shared memory that a block may have once it opts in, in bytes.
    pub shared_per_block_optin: u32,
    /// Multiprocessors of the card that stands for the architecture.
    pub multiprocessors: u32,
    /// Level 2 cache of that card, in bytes.
    pub l2_bytes: u32,
    /// Clock of its multiprocessors and of its memory, in kHz.
    pub clocks_khz: (u32, u32),
    /// Width of its memory bus, in bits.
    pub bus_bits: u32,
    /// Ratio of single to double precision throughput.
    pub single_to_double: u32,
}

/// Threads in a block, at most; the same on every architecture here.
pub const THREADS_PER_BLOCK: u32 = 1024;
/// Extents of a block, at most.
pub const BLOCK_EXTENTS: [u32; 3] = [1024, 1024, 64];
/// Extents of a grid, at most.
pub const GRID_EXTENTS: [u32; 3] = [i32::MAX as u32, 65_535, 65_535];
/// Shared memory that a block may have without opting in, in bytes.
pub const SHARED_PER_BLOCK: u32 = 48 << 10;
/// Shared memory that the system takes for every resident block, in bytes.
pub const SHARED_RESERVED_PER_BLOCK: u32 = 1 << 10;
/// Shared memory is given to blocks in units of this many bytes.
pub const SHARED_UNIT: u32 = 128;
/// 32-bit registers of a multiprocessor, and of a block at most.
pub const REGISTERS_PER_MULTIPROCESSOR: u32 = 65_536;
/// Registers are given to warps in units of this many.
pub const REGISTER_UNIT: u32 = 256;
/// Registers of a thread, at most.
pub const REGISTERS_PER_THREAD: u32 = 255;
/// Bytes of `__constant__` memory in a module.
pub const CONSTANT_BYTES: u32 = 64 << 10;
/// Bytes of local memory that a thread may have.
pub const LOCAL_BYTES: u32 = 512 << 10;

impl Target {
    /// Every architecture, oldest first.
    pub const ALL: [Target; 6] = [Target::Sm80, Target::Sm86, Target::Sm89, Target::Sm90, Target::Sm100, Target::Sm120];

    /// Major and minor compute capability.
    pub fn compute_capability(self) -> (u32, u32) {
        match self {
            Target::Sm80 => (8, 0),
            Target::Sm86 => (8, 6),
            Target::Sm89 => (8, 9),
            Target::Sm90 => (9, 0),
            Target::Sm100 => (10, 0),
            Target::Sm120 => (12, 0),
        }
    }

    /// The number in `sm_80` and in `.target sm_80`.
    pub fn number(self) -> u32 {
        let (major, minor) = self.compute_capability();
        major * 10 + minor
    }

    /// What a multiprocessor holds, and the card that stands for the architecture.
    pub fn limits(self) -> Limits {
        const KIB: u32 = 1 << 10;
        const MIB: u32 = 1 << 20;
        // A datacentre multiprocessor first; the others say in what they differ.
        let big = Limits {
            threads_per_multiprocessor: 2048,
            blocks_per_multiprocessor: 32,
            shared_per_multiprocessor: 228 * KIB,
            shared_per_block_optin: 227 * KIB,
            multiprocessors: 132,
            l2_bytes: 50 * MIB,
            clocks_khz: (1_980_000, 2_619_000),
            bus_bits: 5120,
            single_to_double: 2,
        };
        let small = Limits {
            threads_per_multiprocessor: 1536,
            blocks_per_multiprocessor: 24,
            shared_per_multiprocessor: 100 * KIB,
            shared_per_block_optin: 99 * KIB,
            bus_bits: 384,
            single_to_double: 64,
            ..big
        };
        match self {
            Target::Sm80 => Limits {
                shared_per_multiprocessor: 164 * KIB,
                shared_per_block_optin: 163 * KIB,
                multiprocessors: 108,
                l2_bytes: 40 * MIB,
                clocks_khz: (1_410_000, 1_215_000),
                ..big
            },
            Target::Sm86 => Limits {
                blocks_per_multiprocessor: 16,
                multiprocessors: 82,
                l2_bytes: 6 * MIB,
                clocks_khz: (1_695_000, 9_751_000),
                ..small
            },
            Target::Sm89 => {
                Limits { multiprocessors: 128, l2_bytes: 72 * MIB, clocks_khz: (2_520_000, 10_501_000), ..small }
            }
            Target::Sm90 => big,
            Target::Sm100 => Limits {
                multiprocessors: 148,
                l2_bytes: 126 * MIB,
                clocks_khz: (1_965_000, 3_996_000),
                bus_bits: 8192,
                ..big
            },
            Target::Sm120 => Limits {
                multiprocessors: 170,
                l2_bytes: 96 * MIB,
                clocks_khz: (2_407_000, 14_001_000),
                bus_bits: 512,
                ..small
            },
        }
    }
}

/// `sm_80`.
impl fmt::Display for Target {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "sm_{}", self.number())
    }
}

/// Reads `sm_80`, `compute_80` or `80`.
impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Target, String> {
        let number = text.strip_prefix("sm_").or(text.strip_prefix("compute_")).unwrap_or(text);
        Target::ALL.into_iter().find(|target| target.number().to_string() == number).ok_or_else(|| {
            let known: Vec<String> = Target::ALL.iter().map(Target::to_string).collect();
            format!("{text} is not an architecture that the stand-in can pose as; choose one of {}", known.join(", "))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_is_written_and_read() {
        for target in Target::ALL {
            assert_eq!(target.to_string().parse::<Target>(), Ok(target));
            let json = serde_json::to_string(&target).unwrap();
            assert_eq!(serde_json::from_str::<Target>(&json).unwrap(), target);
        }
        assert!("sm_75".parse::<Target>().unwrap_err().contains("sm_80, sm_86"));
    }

    /// Every block must fit its multiprocessor with the memory that the system keeps.
    #[test]
    fn limits_agree_with_each_other() {
        for target in Target::ALL {
            let limits = target.limits();
            assert_eq!(limits.shared_per_block_optin + SHARED_RESERVED_PER_BLOCK, limits.shared_per_multiprocessor);
            assert!(limits.threads_per_multiprocessor >= THREADS_PER_BLOCK);
            assert_eq!(limits.threads_per_multiprocessor % 32, 0);
        }
    }
}
