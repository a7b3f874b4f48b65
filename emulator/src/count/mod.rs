//! What a launch cost, as JSON.
//!
//! Counts are of PTX instructions and of the memory traffic that their addresses imply; they do not depend on schedule,
//! threads or seed. An assembler merges, splits and drops instructions, so they are not the machine's own counts.
//!
//! | file | what it holds |
//! | --- | --- |
//! | [`class`] | the class of an instruction, and what tensor cores and special functions do |
//! | [`traffic`] | requests, sectors, wavefronts of one block |
//! | [`distinct`] | which sectors of global memory a launch touched at all |

pub mod class;
pub mod distinct;
pub mod traffic;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use class::Class;
pub use traffic::{Global, Shared, Traffic};

/// Counters of one launch. Equal for equal seeds, whatever the number of threads.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counters {
    /// Instructions that a warp issued, whatever the number of its active lanes.
    pub warp_instructions: u64,
    /// Instructions, counted once for each active lane.
    pub thread_instructions: u64,
    /// The same by class; classes that do not occur are left out.
    pub classes: BTreeMap<Class, Issued>,
    /// Loads from global memory.
    pub global_loads: Global,
    /// Stores to global memory.
    pub global_stores: Global,
    /// Atomics on global memory.
    pub global_atomics: Global,
    /// Reads of global memory by `cp.async`.
    pub async_copies: Global,
    /// Bytes of the 32-byte sectors of global memory that were read at least once: what a perfect cache would fetch.
    pub distinct_bytes_read: u64,
    /// Bytes of the sectors that were written at least once.
    pub distinct_bytes_written: u64,
    /// Loads from shared memory, `ldmatrix` included.
    pub shared_loads: Shared,
    /// Stores to shared memory, `stmatrix` and arriving `cp.async` included.
    pub shared_stores: Shared,
    /// Atomics on shared memory.
    pub shared_atomics: Shared,
    /// `mma` instructions, by their names.
    pub tensor: BTreeMap<String, u64>,
    /// Multiplications and additions on tensor cores.
    pub tensor_flop: u64,
    /// Special functions (`rcp`, `sqrt`, `rsqrt`, `sin`, `cos`, `lg2`, `ex2`, `tanh`, approximate), counted for each
    /// lane and each element of a packed operand.
    pub special_functions: u64,
    /// Barriers of the block that warps arrived at.
    pub barriers: u64,
    /// Branches at which lanes of a warp parted.
    pub divergent_branches: u64,
}

/// How often instructions were issued.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Issued {
    /// By warps.
    pub warp: u64,
    /// By lanes.
    pub thread: u64,
}

impl Counters {
    /// Adds an instruction, as it stands in the PTX, that warps issued `issued` times with `lanes` active lanes in all.
    pub fn add_instruction(&mut self, text: &str, issued: u64, lanes: u64) {
        if issued == 0 {
            return;
        }
        let opcode = class::opcode(text);
        let class = Class::of(opcode);
        self.warp_instructions += issued;
        self.thread_instructions += lanes;
        let sum = self.classes.entry(class).or_default();
        sum.warp += issued;
        sum.thread += lanes;
        match class {
            Class::Tensor => {
                *self.tensor.entry(opcode.to_string()).or_default() += issued;
                self.tensor_flop += issued * class::flop(opcode);
            }
            Class::Special => {
                // Not any "x2": there is one in `ex2`.
                self.special_functions += lanes * if opcode.contains("16x2") { 2 } else { 1 }
            }
            Class::Barrier if opcode.starts_with("bar") && !opcode.starts_with("bar.warp") => self.barriers += issued,
            _ => {}
        }
    }

    /// Adds other counters' traffic.
    pub fn add(&mut self, other: &Counters) {
        let global = [other.global_loads, other.global_stores, other.global_atomics, other.async_copies];
        let shared = [other.shared_loads, other.shared_stores, other.shared_atomics];
        self.add_traffic(&Traffic { global, shared, divergent_branches: other.divergent_branches });
    }

    /// Adds the traffic of a block.
    pub fn add_traffic(&mut self, traffic: &Traffic) {
        let Traffic { global, shared, divergent_branches } = traffic;
        for (sum, part) in [
            (&mut self.global_loads, &global[0]),
            (&mut self.global_stores, &global[1]),
            (&mut self.global_atomics, &global[2]),
            (&mut self.async_copies, &global[3]),
        ] {
            sum.add(part);
        }
        for (sum, part) in [
            (&mut self.shared_loads, &shared[0]),
            (&mut self.shared_stores, &shared[1]),
            (&mut self.shared_atomics, &shared[2]),
        ] {
            sum.add(part);
        }
        self.divergent_branches += divergent_branches;
    }
}
