//! What a kernel does, in the units of a card's rates, and the time that takes at least.

use super::card::Card;
use serde::Serialize;
use std::ops::{Add, AddAssign, Mul, Sub};

/// Work of a kernel. Counts are of the whole launch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Work {
    /// Bytes of the card's memory, each read or written once.
    pub bytes: f64,
    /// Multiplications and additions on tensor cores.
    pub tensor_flop: f64,
    /// Special functions.
    pub special: f64,
    /// Instructions of warps, moves between registers left out.
    pub instructions: f64,
    /// Passes over the banks of shared memory.
    pub wavefronts: f64,
}

/// What bounds a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Resource {
    /// The card's memory.
    Memory,
    /// The tensor cores.
    Tensor,
    /// The units for special functions.
    Special,
    /// The issue of instructions.
    Issue,
    /// Shared memory.
    Shared,
}

/// Seconds that each resource would need, all others being free.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
#[expect(missing_docs, reason = "the names are those of the resources")]
pub struct Times {
    pub memory: f64,
    pub tensor: f64,
    pub special: f64,
    pub issue: f64,
    pub shared: f64,
}

impl Work {
    /// The time on a card, were the work spread evenly over it.
    pub fn times(&self, card: &Card) -> Times {
        let cycles = card.multiprocessors * card.clock;
        Times {
            memory: self.bytes / card.memory,
            tensor: self.tensor_flop / (card.tensor_flop * card.sustained * cycles),
            special: self.special / (card.special * cycles),
            issue: self.instructions / (card.issue * cycles),
            shared: self.wavefronts / (card.wavefronts * cycles),
        }
    }
}

impl Times {
    /// The resource that needs the longest, and its seconds: no schedule of this work can be faster.
    pub fn binding(&self) -> (Resource, f64) {
        let times = [
            (Resource::Memory, self.memory),
            (Resource::Tensor, self.tensor),
            (Resource::Special, self.special),
            (Resource::Issue, self.issue),
            (Resource::Shared, self.shared),
        ];
        times.into_iter().max_by(|a, b| a.1.total_cmp(&b.1)).expect("there are five")
    }
}

/// A function of each count of two.
fn zip(a: Work, b: Work, f: impl Fn(f64, f64) -> f64) -> Work {
    Work {
        bytes: f(a.bytes, b.bytes),
        tensor_flop: f(a.tensor_flop, b.tensor_flop),
        special: f(a.special, b.special),
        instructions: f(a.instructions, b.instructions),
        wavefronts: f(a.wavefronts, b.wavefronts),
    }
}

impl Add for Work {
    type Output = Work;
    fn add(self, other: Work) -> Work {
        zip(self, other, |a, b| a + b)
    }
}

impl AddAssign for Work {
    fn add_assign(&mut self, other: Work) {
        *self = *self + other;
    }
}

impl Sub for Work {
    type Output = Work;
    fn sub(self, other: Work) -> Work {
        zip(self, other, |a, b| a - b)
    }
}

impl Mul<f64> for Work {
    type Output = Work;
    fn mul(self, factor: f64) -> Work {
        zip(self, Work::default(), |a, _| a * factor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::card::CARDS;

    #[test]
    fn the_slowest_resource_binds() {
        let card = &CARDS[0];
        // A second of each, by the data sheet: 132 multiprocessors at 1.83 GHz.
        let cycles = 132.0 * 1.83e9;
        let second = Work {
            bytes: 3.35e12,
            tensor_flop: 4096.0 * 0.63 * cycles,
            special: 16.0 * cycles,
            instructions: 4.0 * cycles,
            wavefronts: cycles,
        };
        let times = second.times(card);
        for time in [times.memory, times.tensor, times.special, times.issue, times.shared] {
            assert!((time - 1.0).abs() < 1e-12);
        }
        let more = second + Work { special: 8.0 * cycles, ..Work::default() };
        let (resource, time) = more.times(card).binding();
        assert!(resource == Resource::Special && (time - 1.5).abs() < 1e-12);
    }
}
