//! What is ordered before what: the clocks of a block.
//!
//! A block counts ticks; every event that orders something (barrier, `bar.warp.sync`, fence, release) is one. A warp
//! knows, of every warp of its block, the tick before which all that it did comes before what this warp does now; of
//! other blocks it knows what it has acquired.

use std::collections::HashMap;
use std::sync::Arc;

use super::tag::{Scope, TICK_LIMIT, Tag};

/// For each warp of a block: all that it did at ticks below is known.
pub type Known = [u32; 32];

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

/// What is known of a record that reaches to its block: of whose accesses it was made, and when the first of them was.
/// The last of them is the record's own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Warps {
    /// The warps, a bit for each.
    pub mask: u32,
    /// The tick of the oldest.
    pub since: u32,
}

impl Warps {
    /// As one number.
    pub fn pack(self) -> u64 {
        u64::from(self.mask) << 32 | u64::from(self.since)
    }

    /// From a number.
    pub fn unpack(bits: u64) -> Warps {
        Warps { mask: (bits >> 32) as u32, since: bits as u32 }
    }

    /// Whether who knows the warps up to the ticks of `known` may know all of it. Of the last access it is known for
    /// sure; of the others only that they came between [`Warps::since`] and the last, and the doubt is in their favour.
    fn are_known(self, last: Tag, known: &Known, except: Option<u32>) -> bool {
        let fine = |warp: u32| {
            let tick = if warp == last.warp() { last.tick() } else { self.since };
            tick < known[warp as usize]
        };
        (0..32).filter(|warp| self.mask >> warp & 1 != 0 && Some(*warp) != except).all(fine)
    }
}

/// The clocks of a block.
#[derive(Debug)]
pub struct BlockClock {
    /// The block, by its number in the grid.
    pub block: u32,
    warps: usize,
    tick: u32,
    known: Vec<Known>,
    /// For each warp: the least of what it knows, its own lanes' included. Whatever is older is ordered.
    horizon: [u32; 32],
    foreign: Vec<Option<Arc<Foreign>>>,
    /// Of warps of which only some lanes have met: what each lane knows of each other.
    lanes: Vec<Option<Box<[Known; 32]>>>,
    /// What warps have done that have exited: it comes before whatever a later barrier lets go on.
    exited: Knowledge,
    /// Warps that wait at each barrier.
    waiting: [u32; 16],
    /// What has arrived at each barrier, and what completed barriers hand on.
    arrived: [Handed; 16],
    completed: [Handed; 16],
    /// What is known to each warp to lie before some fence, its own or one that a barrier has put before it.
    fenced: Vec<Fenced>,
    /// What each warp has read that it will know after its next fence.
    pending: Vec<Knowledge>,
}

/// What lies before a fence, for the block and for the device.
type Fenced = [Option<Knowledge>; 2];

/// What a barrier hands on: all, and what of it lies before fences.
#[derive(Clone, Debug, Default)]
struct Handed {
    all: Knowledge,
    fenced: Fenced,
}

fn join_fenced(into: &mut Fenced, from: &Fenced) {
    for (into, from) in into.iter_mut().zip(from) {
        match (into.as_mut(), from) {
            (_, None) => {}
            (None, Some(_)) => into.clone_from(from),
            (Some(into), Some(from)) => into.join(from),
        }
    }
}

fn join(into: &mut Known, from: &Known) {
    for (a, b) in into.iter_mut().zip(from) {
        *a = (*a).max(*b);
    }
}

/// Adds foreign knowledge; shared until the two differ.
fn join_foreign(into: &mut Option<Arc<Foreign>>, from: &Option<Arc<Foreign>>) {
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
            Some(old) => join(Arc::make_mut(old), known),
        }
    }
}

impl Knowledge {
    /// Adds other knowledge of the same block.
    pub fn join(&mut self, other: &Knowledge) {
        match (&mut self.own, &other.own) {
            (_, None) => {}
            (None, own) => self.own.clone_from(own),
            (Some(a), Some(b)) if Arc::ptr_eq(a, b) => {}
            (Some(a), Some(b)) => join(Arc::make_mut(a), b),
        }
        join_foreign(&mut self.foreign, &other.foreign);
    }
}

impl BlockClock {
    /// A block that begins.
    pub fn new(block: u32, warps: u32) -> Self {
        let warps = warps as usize;
        BlockClock {
            block,
            warps,
            tick: 1,
            known: vec![[0; 32]; warps],
            horizon: [0; 32],
            foreign: vec![None; warps],
            lanes: vec![None; warps],
            exited: Knowledge::default(),
            waiting: [0; 16],
            arrived: Default::default(),
            completed: Default::default(),
            fenced: vec![[None, None]; warps],
            pending: vec![Knowledge::default(); warps],
        }
    }

    /// Now.
    #[inline(always)]
    pub fn tick(&self) -> u32 {
        self.tick
    }

    /// Whatever the block did before this tick comes before what the warp does now.
    #[inline(always)]
    pub fn horizon(&self, warp: u32) -> u32 {
        self.horizon[warp as usize]
    }

    fn advance(&mut self) {
        self.tick += 1;
        if self.tick >= TICK_LIMIT {
            // Start anew and forget: records of "later" ticks count as ordered. Some race may pass, none is invented.
            *self = BlockClock {
                foreign: std::mem::take(&mut self.foreign),
                ..BlockClock::new(self.block, self.warps as u32)
            };
        }
    }

    fn learn(&mut self, warp: usize, knowledge: &Knowledge) {
        if let Some(own) = &knowledge.own {
            join(&mut self.known[warp], own);
            self.set_horizon(warp);
        }
        join_foreign(&mut self.foreign[warp], &knowledge.foreign);
    }

    fn set_horizon(&mut self, warp: usize) {
        self.horizon[warp] = self.known[warp][..self.warps].iter().copied().min().unwrap_or(0);
    }

    /// What the warp knows and has done up to now.
    fn now(&self, warp: usize) -> Knowledge {
        let mut own = self.known[warp];
        own[warp] = self.tick + 1;
        Knowledge { own: Some(Arc::new(own)), foreign: self.foreign[warp].clone() }
    }

    /// The lanes of `mask` have met at `bar.warp.sync`; `live` are those of the warp that have not exited.
    pub fn meet(&mut self, warp: u32, mask: u32, live: u32) {
        self.advance();
        let (tick, index) = (self.tick, warp as usize);
        if live & !mask == 0 {
            self.known[index][index] = tick;
            self.lanes[index] = None;
            return self.set_horizon(index);
        }
        let lanes = self.lanes[index].get_or_insert_with(|| Box::new([[0; 32]; 32]));
        let members = || (0..32usize).filter(|lane| mask >> lane & 1 != 0);
        let mut union = [0; 32];
        members().for_each(|lane| join(&mut union, &lanes[lane]));
        members().for_each(|lane| union[lane] = tick);
        members().for_each(|lane| lanes[lane] = union);
    }

    /// A warp arrives at a barrier. If all its lanes wait there, it does nothing more until the barrier completes.
    pub fn arrive(&mut self, warp: u32, barrier: u32, waits: bool) {
        let knowledge = self.now(warp as usize);
        let arrived = &mut self.arrived[barrier as usize];
        arrived.all.join(&knowledge);
        join_fenced(&mut arrived.fenced, &self.fenced[warp as usize]);
        if waits {
            self.waiting[barrier as usize] |= 1 << warp;
        } else {
            self.advance();
        }
    }

    /// A barrier completes: who waits for it will know what arrived. If it is for all warps, and not for a `counted` number
    /// of threads, those that have exited count as having arrived.
    pub fn complete(&mut self, barrier: u32, counted: bool) {
        let mut arrived = std::mem::take(&mut self.arrived[barrier as usize]);
        let waiting = std::mem::take(&mut self.waiting[barrier as usize]);
        self.advance();
        if let Some(own) = &mut arrived.all.own {
            // Others may have moved the clock since these arrived; they have done nothing since.
            let own = Arc::make_mut(own);
            (0..self.warps).filter(|warp| waiting >> warp & 1 != 0).for_each(|warp| own[warp] = self.tick);
        }
        let completed = &mut self.completed[barrier as usize];
        completed.all.join(&arrived.all);
        if !counted {
            completed.all.join(&self.exited);
        }
        join_fenced(&mut completed.fenced, &arrived.fenced);
    }

    /// All lanes of a warp have exited: nothing it did can come later than anything.
    pub fn exit(&mut self, warp: u32) {
        let mut knowledge = self.now(warp as usize);
        if let Some(own) = &mut knowledge.own {
            Arc::make_mut(own)[warp as usize] = u32::MAX;
        }
        self.exited.join(&knowledge);
    }

    /// A warp goes on after a barrier. That is a fence to what it has read, too.
    pub fn leave(&mut self, warp: u32, barrier: u32) {
        let completed = self.completed[barrier as usize].clone();
        self.learn(warp as usize, &completed.all);
        join_fenced(&mut self.fenced[warp as usize], &completed.fenced);
        self.take_pending(warp as usize);
        self.lanes[warp as usize] = None;
    }

    /// `membar`, `fence`: for the block alone, or for the device.
    pub fn fence(&mut self, warp: u32, device: bool) {
        let index = warp as usize;
        self.take_pending(index);
        let now = self.now(index);
        if device {
            self.fenced[index][1] = Some(now.clone());
        }
        self.fenced[index][0] = Some(now);
        self.advance();
    }

    fn take_pending(&mut self, warp: usize) {
        let pending = std::mem::take(&mut self.pending[warp]);
        self.learn(warp, &pending);
    }

    /// What a strong write of the warp hands on: with `.release` all up to now, else what lies before fences.
    /// For its block, and for the device.
    pub fn released(&mut self, warp: u32, release: bool, device: bool) -> Fenced {
        let index = warp as usize;
        if !release {
            return self.fenced[index].clone();
        }
        let now = self.now(index);
        self.advance();
        [Some(now.clone()), device.then_some(now)]
    }

    /// The warp reads something released: known at once, or after its next fence.
    pub fn acquire(&mut self, warp: u32, knowledge: &Knowledge, at_once: bool) {
        if at_once {
            self.learn(warp as usize, knowledge);
        } else {
            self.pending[warp as usize].join(knowledge);
        }
    }

    /// Whether some lanes of the warp, not all, have met since the last barrier.
    #[inline(always)]
    pub fn has_met_partly(&self, warp: u32) -> bool {
        self.lanes[warp as usize].is_some()
    }

    /// What the warp knows of each: all that it did before this tick comes before what this warp does now.
    #[inline(always)]
    pub fn known(&self, warp: u32) -> &Known {
        &self.known[warp as usize]
    }

    /// Whether what a record of this block stands for comes before what a lane does now, which is `alone` or the first of
    /// several. `warps` says more of a record that reaches to the block.
    pub fn is_ordered(&self, warp: u32, lane: u32, alone: bool, tag: Tag, warps: Warps) -> bool {
        let (tick, index) = (tag.tick(), warp as usize);
        if tick < self.horizon[index] || tick > self.tick {
            return true;
        }
        match tag.scope() {
            Scope::Thread if alone && tag.thread() == warp * 32 + lane => true,
            Scope::Thread if tag.warp() == warp => {
                let met =
                    self.lanes[index].as_ref().map_or(0, |lanes| lanes[lane as usize][tag.thread() as usize % 32]);
                tick < self.known[index][index] || tick < met
            }
            Scope::Warp if tag.warp() == warp => {
                // Several lanes, not known which: those of the last partial meeting cover it if it knows all of them.
                let met = self.lanes[index]
                    .as_ref()
                    .map_or(0, |lanes| lanes[lane as usize].iter().copied().min().unwrap_or(0));
                tick < self.known[index][index] || tick < met
            }
            Scope::Thread | Scope::Warp => tick < self.known[index][tag.warp() as usize],
            Scope::Block => {
                // Of one's own warp: only whether another lane was the last.
                let mate = tag.warp() == warp && tag.thread() != warp * 32 + lane;
                (!mate || self.is_ordered(warp, lane, alone, tag.of_last(), warps))
                    && warps.are_known(tag, &self.known[index], Some(warp))
            }
            Scope::Grid => false,
        }
    }

    /// Whether what a record of another block stands for comes before what the warp does now.
    pub fn knows_foreign(&self, warp: u32, block: u32, tag: Tag, warps: Warps) -> bool {
        let Some(foreign) = &self.foreign[warp as usize] else { return false };
        if tag.scope() == Scope::Grid {
            // It must have heard from each block, and since the last of them was there.
            let others = warps.pack() & !block_bit(self.block);
            return foreign.latest > tag.tick() && others & !foreign.bits == 0;
        }
        let warps = match tag.scope() {
            Scope::Block => warps,
            _ => Warps { mask: 1 << tag.warp(), since: tag.tick() },
        };
        foreign.blocks.get(&block).is_some_and(|known| warps.are_known(tag, known, None))
    }
}
