//! What is known of the threads of a block, and what is handed on of it.

use std::collections::HashMap;
use std::sync::Arc;

use super::tag::{Last, Older, Scope, Strength, TICK_LIMIT, Tag};

/// The lanes of a warp that do something, and those that live.
#[derive(Clone, Copy, Debug)]
pub struct Lanes {
    /// Those that do it.
    pub mask: u32,
    /// Those of the warp that have not exited.
    pub live: u32,
}

impl Lanes {
    /// A whole warp.
    pub const ALL: Lanes = Lanes { mask: u32::MAX, live: u32::MAX };

    /// Whether they are all that live.
    pub fn are_all(self) -> bool {
        self.live & !self.mask == 0
    }
}

/// Of each warp of a block, what is known of it: all that it did at ticks below one number, and all that some of its lanes
/// did below another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// For whole warps.
    pub warps: [u32; 32],
    /// For lanes.
    ticks: [u32; 32],
    /// Which lanes.
    lanes: [u32; 32],
}

fn join(into: &mut [u32; 32], from: &[u32; 32], how: impl Fn(u32, u32) -> u32) {
    for (a, b) in into.iter_mut().zip(from) {
        *a = how(*a, *b);
    }
}

impl Known {
    /// Adds other knowledge. Of lanes that are known up to different ticks, all count as known up to the later one.
    pub fn join(&mut self, other: &Known) {
        join(&mut self.warps, &other.warps, u32::max);
        join(&mut self.ticks, &other.ticks, u32::max);
        join(&mut self.lanes, &other.lanes, |a, b| a | b);
    }

    /// What lanes of a warp did below a tick is known.
    pub fn add(&mut self, warp: usize, lanes: Lanes, tick: u32) {
        if lanes.are_all() {
            self.warps[warp] = self.warps[warp].max(tick);
        } else {
            self.add_lanes(warp, lanes.mask, tick);
        }
    }

    /// What these lanes did below a tick is known, by each for itself.
    pub fn add_lanes(&mut self, warp: usize, mask: u32, tick: u32) {
        self.ticks[warp] = self.ticks[warp].max(tick);
        self.lanes[warp] |= mask;
    }

    /// The lanes of a warp have met: what is known of all of them is known of the warp.
    pub fn settle(&mut self, warp: usize) {
        if self.lanes[warp] == u32::MAX {
            self.warps[warp] = self.warps[warp].max(self.ticks[warp]);
            (self.ticks[warp], self.lanes[warp]) = (0, 0);
        }
    }

    /// Of a warp's lanes, these are no more known than the others.
    pub fn drop_lanes(&mut self, warp: usize, mask: u32) {
        self.lanes[warp] &= !mask;
    }

    /// The tick below which is known what a record stands for, as far as its last thread or several lanes of its warp did it.
    #[inline(always)]
    fn tick_of(&self, tag: Tag) -> u32 {
        let warp = tag.warp() as usize;
        let lanes = self.lanes[warp];
        // Of several lanes it is not known which: the doubt is in their favour.
        let is_among = match tag.scope() {
            Scope::Warp => lanes.count_ones() > 1,
            _ => lanes >> (tag.thread() % 32) & 1 != 0,
        };
        if is_among { self.warps[warp].max(self.ticks[warp]) } else { self.warps[warp] }
    }

    /// The tick below which is known what a lane did.
    pub fn tick_of_lane(&self, warp: u32, lane: u32) -> u32 {
        self.tick_of(Tag::new(0, 0, warp * 32 + lane, Scope::Thread, Strength::Weak, false, 0))
    }

    /// Whether what a record of a thread or a warp stands for is known.
    #[inline(always)]
    pub fn covers(&self, tag: Tag) -> bool {
        tag.tick() < self.tick_of(tag) || tag.tick() >= TICK_LIMIT
    }
}

/// What is known of other blocks.
#[derive(Clone, Debug, Default)]
pub struct Foreign {
    /// By block.
    pub blocks: HashMap<u32, Arc<Known>>,
    /// The number of the latest release in it.
    pub latest: u32,
    /// The blocks, as [`block_bit`]s.
    pub bits: u64,
}

/// What stands for a block in a set of them that has room for 64; others share its bit.
pub fn block_bit(block: u32) -> u64 {
    1 << (block % 64)
}

/// Something that one side released and another may acquire.
#[derive(Clone, Debug, Default)]
pub struct Knowledge {
    /// Of the releasing block.
    pub own: Option<Arc<Known>>,
    /// Of all others.
    pub foreign: Option<Arc<Foreign>>,
}

/// What is kept of a record that reaches to its block: of whose accesses it was made, and when the first of them was. The
/// last of them is the record's own. (Of reads of shared memory, it is also kept when each warp made its last.)
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Warps {
    /// The warps, a bit for each.
    pub mask: u32,
    /// The tick of the oldest.
    pub since: u32,
    /// Whether each of them did it by several lanes at once.
    pub several: bool,
}

/// Those whose accesses a record stands for.
#[derive(Clone, Copy)]
pub struct Readers<'a> {
    /// Their warps.
    pub warps: Warps,
    /// How each of these made its last access, if that is kept.
    pub each: Option<&'a [Last; 32]>,
    /// Whether who comes now touches less than they did, so that what it touches may be its own and not its warp's.
    pub parts: bool,
}

impl Warps {
    const SEVERAL: u64 = 1 << 31;

    /// As one number.
    pub fn pack(self) -> u64 {
        u64::from(self.mask) << 32 | u64::from(self.since) | if self.several { Self::SEVERAL } else { 0 }
    }

    /// From a number.
    pub fn unpack(bits: u64) -> Warps {
        let since = (bits & (Self::SEVERAL - 1)) as u32;
        Warps { mask: (bits >> 32) as u32, since, several: bits & Self::SEVERAL != 0 }
    }

    /// The number for words that one lane of a further warp has read.
    #[inline(always)]
    pub fn joined_by(bits: u64, warp: u32) -> u64 {
        (bits | 1 << (32 + warp)) & !Self::SEVERAL
    }

    /// Of a record whose bytes are of different times.
    pub fn of_parts(Older { recent, since }: Older) -> Warps {
        Warps { mask: recent.into(), since, several: false }
    }

    /// Likewise, the other way round.
    pub fn older(self) -> Older {
        Older { recent: self.mask as u8, since: self.since }
    }
}

impl Readers<'_> {
    /// How a warp was there last, if that is kept.
    pub fn last(self, warp: u32, last: Tag) -> Option<Tag> {
        match self.each {
            _ if warp == last.warp() => Some(last.last().tag(warp)),
            Some(each) if self.warps.mask >> warp & 1 != 0 => Some(each[warp as usize].tag(warp)),
            _ => None,
        }
    }

    /// Whether who knows as much as `known` knows all of it, but what the warp `except` did. Where it is kept of the last
    /// access alone how it was made, it is known of the others only that they came between [`Warps::since`] and it: the
    /// doubt is in their favour.
    pub fn are_known(self, last: Tag, known: &Known, except: Option<u32>) -> bool {
        let Warps { mask, since, several } = self.warps;
        let fine = |warp: u32| match self.last(warp, last) {
            Some(tag) => known.covers(tag),
            None => {
                let scope = if several { Scope::Warp } else { Scope::Thread };
                // Of a single lane it is not known which.
                let lane = known.lanes[warp as usize].trailing_zeros() % 32;
                known.covers(Tag::new(since, 0, warp * 32 + lane, scope, Strength::Weak, false, 0xf))
            }
        };
        (0..32).filter(|warp| mask >> warp & 1 != 0 && Some(*warp) != except).all(fine)
    }
}

/// Adds foreign knowledge; shared until the two differ.
pub fn join_foreign(into: &mut Option<Arc<Foreign>>, from: &Option<Arc<Foreign>>) {
    match (into.as_mut(), from) {
        (_, None) => {}
        (None, Some(_)) => into.clone_from(from),
        (Some(a), Some(b)) if Arc::ptr_eq(a, b) => {}
        (Some(a), Some(b)) => {
            let a = Arc::make_mut(a);
            a.latest = a.latest.max(b.latest);
            for (block, known) in &b.blocks {
                a.add(*block, known);
            }
        }
    }
}

impl Foreign {
    /// Adds what is known of a block.
    pub fn add(&mut self, block: u32, known: &Arc<Known>) {
        self.bits |= block_bit(block);
        match self.blocks.get_mut(&block) {
            None => drop(self.blocks.insert(block, known.clone())),
            Some(old) if Arc::ptr_eq(old, known) => {}
            Some(old) => Arc::make_mut(old).join(known),
        }
    }

    /// Whether what a record of a block stands for is known. `warps` says more of one that reaches to the block.
    pub fn covers(&self, block: u32, tag: Tag, warps: Warps) -> bool {
        self.blocks.get(&block).is_some_and(|known| match tag.scope() {
            Scope::Block => Readers { warps, each: None, parts: false }.are_known(tag, known, None),
            _ => known.covers(tag),
        })
    }
}

impl Knowledge {
    /// Adds other knowledge of the same block.
    pub fn join(&mut self, other: &Knowledge) {
        match (&mut self.own, &other.own) {
            (_, None) => {}
            (None, own) => self.own.clone_from(own),
            (Some(a), Some(b)) if Arc::ptr_eq(a, b) => {}
            (Some(a), Some(b)) => Arc::make_mut(a).join(b),
        }
        join_foreign(&mut self.foreign, &other.foreign);
    }
}

/// What some lanes of a warp know, and the others do not.
#[derive(Clone, Debug, Default)]
pub struct Partly {
    /// Which lanes; 0 when there is nothing.
    pub mask: u32,
    /// What.
    pub what: Knowledge,
}

impl Partly {
    /// Lanes learn something. (Those that knew something else before count as knowing both.)
    pub fn add(&mut self, mask: u32, what: &Knowledge) {
        self.mask |= mask;
        self.what.join(what);
    }

    /// What the lanes of `mask` know, if all of them know something.
    pub fn of(&self, mask: u32) -> Option<&Knowledge> {
        (self.mask != 0 && mask & !self.mask == 0).then_some(&self.what)
    }
}

/// What lies before a fence, for the block and for the device.
pub type Fenced = [Option<Knowledge>; 2];

/// What a barrier hands on: all, and what of it lies before fences.
#[derive(Clone, Debug, Default)]
pub struct Handed {
    /// All.
    pub all: Knowledge,
    /// What of it lies before fences.
    pub fenced: Fenced,
}

/// Adds what lies before other fences.
pub fn join_fenced(into: &mut Fenced, from: &Fenced) {
    for (into, from) in into.iter_mut().zip(from) {
        match (into.as_mut(), from) {
            (_, None) => {}
            (None, Some(_)) => into.clone_from(from),
            (Some(into), Some(from)) => into.join(from),
        }
    }
}
