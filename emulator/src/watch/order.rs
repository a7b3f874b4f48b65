//! Releases and acquisitions: how flags, tickets and locks order what different threads do.
//!
//! A strong write (atomic, volatile, `.relaxed` and stronger) after a fence hands on what its lane knew at the fence; a
//! `.release` hands on all up to now. A read-modify-write keeps what earlier ones handed on. Whoever reads it knows it:
//! at once with `.acquire` or by a read-modify-write, else after the next fence or barrier. (By the letter of the memory
//! model a relaxed read-modify-write acquires nothing without a fence either; but kernels in NVIDIA's own samples go on
//! from the ticket that an `atomicInc` drew, and so this is not called a race.)

use std::collections::HashMap;
use std::sync::Arc;

use super::clock::{BlockClock, Foreign, Knowledge, Known, Lanes};

/// A strong access of one address.
#[derive(Clone, Copy, Debug)]
pub struct Strong {
    /// The warp.
    pub warp: u32,
    /// Those of its lanes that make it.
    pub lanes: Lanes,
    /// Which of the 32 comes first; the others follow by their numbers, and then those before it.
    pub first: u32,
    /// The address.
    pub address: u64,
    /// Whether it reads.
    pub reads: bool,
    /// Whether its lanes get to know what it has read.
    pub answers: bool,
    /// Whether it writes.
    pub writes: bool,
    /// `.acquire` or `.acq_rel`.
    pub acquire: bool,
    /// `.release` or `.acq_rel`.
    pub release: bool,
    /// Whether its scope is wider than the block.
    pub device: bool,
}

/// What has been released where.
#[derive(Debug, Default)]
pub struct Releases {
    locations: HashMap<u64, Location>,
    count: u32,
}

#[derive(Debug, Default)]
struct Location {
    /// For the same block.
    blocks: HashMap<u32, Arc<Known>>,
    /// For all blocks.
    device: Arc<Foreign>,
}

impl Releases {
    /// How many there have been.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// A strong access happens.
    pub fn strong(&mut self, clock: &mut BlockClock, access: Strong) {
        if access.reads && access.answers {
            self.acquire(clock, access);
        }
        if access.writes {
            self.release(clock, access);
        }
    }

    fn acquire(&self, clock: &mut BlockClock, access: Strong) {
        let Some(location) = self.locations.get(&access.address) else { return };
        let mut knowledge = Knowledge { own: location.blocks.get(&clock.block).cloned(), foreign: None };
        let own = location.device.blocks.get(&clock.block).cloned();
        let foreign = access.device.then(|| location.device.clone());
        knowledge.join(&Knowledge { own, foreign });
        clock.acquire(access.warp, access.lanes, &knowledge, access.acquire || access.writes);
    }

    fn release(&mut self, clock: &mut BlockClock, access: Strong) {
        let [block, device] = clock.released(access.warp, access.lanes, access.release, access.device);
        if !access.reads {
            self.locations.remove(&access.address);
        }
        if block.is_none() && device.is_none() {
            return;
        }
        let (lanes, several) = (access.lanes.mask, access.lanes.mask.count_ones() > 1);
        if let Some(own) = block.as_ref().and_then(|knowledge| knowledge.own.as_ref())
            && several
            && access.reads
            && access.answers
        {
            // Each reads what those before it have left there.
            let order = (0..32).map(|i| (i + access.first) % 32).filter(|lane| lanes >> lane & 1 != 0);
            clock.follow(access.warp, order, own);
        }
        let location = self.locations.entry(access.address).or_default();
        if let Some(own) = block.and_then(|knowledge| knowledge.own) {
            let mut known = Knowledge { own: location.blocks.remove(&clock.block), foreign: None };
            known.join(&Knowledge { own: Some(own), foreign: None });
            location.blocks.extend(known.own.map(|own| (clock.block, own)));
        }
        if let Some(knowledge) = device.filter(|_| access.device) {
            self.count += 1;
            let all = Arc::make_mut(&mut location.device);
            all.latest = self.count;
            if let Some(own) = &knowledge.own {
                all.add(clock.block, own);
            }
            for (block, known) in knowledge.foreign.iter().flat_map(|foreign| &foreign.blocks) {
                all.add(*block, known);
            }
        }
    }
}
