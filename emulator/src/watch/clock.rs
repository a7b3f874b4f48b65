//! What is ordered before what: the clocks of a block.
//!
//! A block counts ticks; every event that orders something (barrier, `bar.warp.sync`, fence, release) is one. A warp
//! knows, of every warp of its block, the tick before which all that it did comes before what this warp does now; of
//! other blocks it knows what it has acquired. What one lane does orders that lane: it hands on what it has done itself and
//! what its whole warp knew, and what it learns the others know when they have met it.

use std::sync::Arc;

use super::known::{Fenced, Handed, Partly, join_fenced, join_foreign};
pub use super::known::{Foreign, Knowledge, Known, Lanes, Readers, Warps, block_bit};
use super::met::Met;
use super::tag::{Scope, TICK_LIMIT, Tag};

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
    lanes: Vec<Option<Met>>,
    /// What warps have done that have exited: it comes before whatever a later barrier lets go on.
    exited: Knowledge,
    /// Warps that wait at each barrier.
    waiting: [u32; 16],
    /// What has arrived at each barrier, and what completed barriers hand on.
    arrived: [Handed; 16],
    completed: [Handed; 16],
    /// What is known to each warp to lie before some fence, its own or one that a barrier has put before it.
    fenced: Vec<Fenced>,
    /// Lanes that have fenced since their warp last met.
    unmet: Vec<u32>,
    /// What some lanes of each warp know, and the others do not.
    partly: Vec<Partly>,
    /// What lanes of each warp have read that they will know after their next fence.
    pending: Vec<Partly>,
}

impl BlockClock {
    /// A block that begins.
    pub fn new(block: u32, warps: u32) -> Self {
        let warps = warps as usize;
        BlockClock {
            block,
            warps,
            tick: 1,
            known: vec![Known::default(); warps],
            horizon: [0; 32],
            foreign: vec![None; warps],
            lanes: vec![None; warps],
            exited: Knowledge::default(),
            waiting: [0; 16],
            arrived: Default::default(),
            completed: Default::default(),
            fenced: vec![[None, None]; warps],
            unmet: vec![0; warps],
            partly: vec![Partly::default(); warps],
            pending: vec![Partly::default(); warps],
        }
    }

    /// The next tick is the last but two.
    #[cfg(test)]
    pub fn skip_to_the_end(&mut self) {
        self.tick = TICK_LIMIT - 3;
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
        self.tick = (self.tick + 1).min(TICK_LIMIT);
    }

    fn learn(&mut self, warp: usize, knowledge: &Knowledge) {
        if let Some(own) = &knowledge.own {
            self.known[warp].join(own);
            self.set_horizon(warp);
        }
        join_foreign(&mut self.foreign[warp], &knowledge.foreign);
    }

    fn set_horizon(&mut self, warp: usize) {
        self.horizon[warp] = self.known[warp].warps[..self.warps].iter().copied().min().unwrap_or(0);
    }

    /// Lanes learn something. The others will when they meet them.
    fn teach(&mut self, warp: usize, lanes: Lanes, knowledge: &Knowledge) {
        if lanes.are_all() {
            return self.learn(warp, knowledge);
        }
        self.partly[warp].add(lanes.mask, knowledge);
        if (Lanes { mask: self.partly[warp].mask, ..lanes }).are_all() {
            self.share(warp);
        }
    }

    /// What some lanes of a warp know, all know now.
    fn share(&mut self, warp: usize) {
        if self.partly[warp].mask != 0 {
            let partly = std::mem::take(&mut self.partly[warp]);
            self.learn(warp, &partly.what);
        }
    }

    /// What the lanes know, without what they have done themselves.
    fn known_to(&self, warp: usize, lanes: Lanes) -> Knowledge {
        let mut knowledge =
            Knowledge { own: Some(Arc::new(self.known[warp].clone())), foreign: self.foreign[warp].clone() };
        if self.partly[warp].mask & lanes.mask != 0 {
            knowledge.join(&self.partly[warp].what);
        }
        if let (Some(met), Some(own)) = (&self.lanes[warp], &mut knowledge.own) {
            for of in 0..32 {
                let tick = met.of_any(lanes.mask, of);
                if tick > own.warps[warp] {
                    Arc::make_mut(own).add_lanes(warp, 1 << of, tick);
                }
            }
        }
        knowledge
    }

    /// What the lanes know and have done up to now.
    fn now(&self, warp: usize, lanes: Lanes) -> Knowledge {
        let mut knowledge = self.known_to(warp, lanes);
        if let Some(own) = &mut knowledge.own {
            Arc::make_mut(own).add(warp, lanes, self.tick + 1);
        }
        knowledge
    }

    /// All that live of a warp have met.
    fn all_meet(&mut self, warp: usize) {
        self.share(warp);
        self.lanes[warp] = None;
        self.unmet[warp] = 0;
        for knowledge in self.fenced[warp].iter_mut().flatten() {
            if let Some(own) = &mut knowledge.own {
                Arc::make_mut(own).settle(warp);
            }
        }
    }

    /// The lanes of `mask` have met at `bar.warp.sync`; `live` are those of the warp that have not exited.
    pub fn meet(&mut self, warp: u32, mask: u32, live: u32) {
        self.advance();
        let (tick, index) = (self.tick, warp as usize);
        if live & !mask == 0 {
            self.known[index].warps[index] = tick;
            self.all_meet(index);
            return self.set_horizon(index);
        }
        if self.partly[index].mask & mask != 0 {
            self.partly[index].mask |= mask;
        }
        self.lanes[index].get_or_insert_with(Met::new).meet(mask, tick);
    }

    /// Lanes of a warp, in this order, have changed a word by one instruction, and handed on what `released` says: each has read
    /// what those before it have left there.
    pub fn follow(&mut self, warp: u32, order: impl Iterator<Item = u32>, released: &Known) {
        let met = self.lanes[warp as usize].get_or_insert_with(Met::new);
        met.follow(order, |lane| released.tick_of_lane(warp, lane));
    }

    /// Lanes of a warp arrive at a barrier. If all of them wait there, it does nothing more until the barrier completes.
    pub fn arrive(&mut self, warp: u32, lanes: Lanes, barrier: u32, waits: bool) {
        let knowledge = self.now(warp as usize, lanes);
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
            (0..self.warps).filter(|warp| waiting >> warp & 1 != 0).for_each(|warp| own.warps[warp] = self.tick);
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
        let mut knowledge = self.now(warp as usize, Lanes::ALL);
        if let Some(own) = &mut knowledge.own {
            Arc::make_mut(own).warps[warp as usize] = u32::MAX;
        }
        self.exited.join(&knowledge);
    }

    /// A warp goes on after a barrier. That is a fence to what it has read, too.
    pub fn leave(&mut self, warp: u32, barrier: u32) {
        let completed = self.completed[barrier as usize].clone();
        self.learn(warp as usize, &completed.all);
        join_fenced(&mut self.fenced[warp as usize], &completed.fenced);
        self.take_pending(warp as usize, Lanes::ALL);
        self.all_meet(warp as usize);
    }

    /// Lanes of a warp take part in a shuffle or a vote. That orders nothing that they did; but what one of them was told, the
    /// others may have from it now: one lane asks for all, and hands on the answer.
    #[inline(always)]
    pub fn hear(&mut self, warp: u32, lanes: Lanes) {
        let index = warp as usize;
        if (self.partly[index].mask | self.pending[index].mask) & lanes.mask != 0 {
            self.tell(index, lanes);
        }
    }

    #[cold]
    fn tell(&mut self, warp: usize, lanes: Lanes) {
        for partly in [&mut self.pending[warp], &mut self.partly[warp]] {
            if partly.mask & lanes.mask != 0 {
                partly.mask |= lanes.mask;
            }
        }
        if (Lanes { mask: self.partly[warp].mask, ..lanes }).are_all() {
            self.share(warp);
        }
    }

    /// `membar`, `fence`: for the block alone, or for the device.
    pub fn fence(&mut self, warp: u32, lanes: Lanes, device: bool) {
        let index = warp as usize;
        self.take_pending(index, lanes);
        let mut now = self.known_to(index, lanes);
        // What each lane did lies before its own fence, and nobody else's before they have met.
        let each = if lanes.are_all() { u32::MAX } else { lanes.mask };
        if let Some(own) = &mut now.own {
            Arc::make_mut(own).add_lanes(index, each, self.tick + 1);
        }
        self.unmet[index] |= lanes.mask;
        let new = [Some(now.clone()), device.then_some(now)];
        join_fenced(&mut self.fenced[index], &new);
        self.advance();
    }

    fn take_pending(&mut self, warp: usize, lanes: Lanes) {
        let mask = self.pending[warp].mask & lanes.mask;
        if mask == 0 {
            return;
        }
        let pending = self.pending[warp].clone();
        self.teach(warp, Lanes { mask, ..lanes }, &pending.what);
        if pending.mask == mask {
            self.pending[warp] = Partly::default();
        }
    }

    /// What a strong write of some lanes hands on: with `.release` all up to now, else what lies before fences.
    /// For its block, and for the device.
    pub fn released(&mut self, warp: u32, lanes: Lanes, release: bool, device: bool) -> Fenced {
        let index = warp as usize;
        if release {
            let now = self.now(index, lanes);
            self.advance();
            return [Some(now.clone()), device.then_some(now)];
        }
        let mut fenced = self.fenced[index].clone();
        let others = self.unmet[index] & !lanes.mask;
        if others != 0 {
            let known = fenced.iter_mut().flatten().flat_map(|knowledge| &mut knowledge.own);
            known.for_each(|own| {
                // But those that have met one of these since they fenced.
                let has_met = |of: u32| {
                    let met = self.lanes[index].as_ref().map_or(0, |met| met.of_any(lanes.mask, of));
                    met >= own.tick_of_lane(warp, of)
                };
                let unmet = (0..32).filter(|of| others >> of & 1 != 0 && !has_met(*of));
                let unmet = unmet.fold(0, |mask, of| mask | 1u32 << of);
                Arc::make_mut(own).drop_lanes(index, unmet);
            });
        }
        fenced
    }

    /// Lanes of the warp read something released: known at once, or after their next fence.
    pub fn acquire(&mut self, warp: u32, lanes: Lanes, knowledge: &Knowledge, at_once: bool) {
        if at_once {
            self.teach(warp as usize, lanes, knowledge);
        } else {
            self.pending[warp as usize].add(lanes.mask, knowledge);
        }
    }

    /// Whether some lanes of the warp, not all, have met or learnt something since the last barrier.
    #[inline(always)]
    pub fn has_met_partly(&self, warp: u32) -> bool {
        self.lanes[warp as usize].is_some() || self.partly[warp as usize].mask != 0
    }

    /// Whether any lane of the warp knows anything of other blocks.
    #[inline(always)]
    pub fn knows_others(&self, warp: u32) -> bool {
        self.foreign[warp as usize].is_some() || self.partly[warp as usize].what.foreign.is_some()
    }

    /// What all lanes of the warp know.
    #[inline(always)]
    pub fn known(&self, warp: u32) -> &Known {
        &self.known[warp as usize]
    }

    /// Whether what a record of this block stands for comes before what a lane does now, which is `alone` or the first of
    /// those of `mask`. `readers` say more of a record that reaches to the block.
    pub fn is_ordered(&self, warp: u32, lane: u32, alone: bool, mask: u32, tag: Tag, readers: Readers<'_>) -> bool {
        let (tick, index) = (tag.tick(), warp as usize);
        if tick < self.horizon[index] || tick >= TICK_LIMIT {
            return true;
        }
        if self.is_ordered_by(&self.known[index], warp, lane, alone, tag, readers) {
            return true;
        }
        let Some(own) = self.partly[index].of(mask).and_then(|what| what.own.as_ref()) else { return false };
        let mut known = self.known[index].clone();
        known.join(own);
        self.is_ordered_by(&known, warp, lane, alone, tag, readers)
    }

    fn is_ordered_by(&self, known: &Known, warp: u32, lane: u32, alone: bool, tag: Tag, readers: Readers<'_>) -> bool {
        let (tick, met) = (tag.tick(), self.lanes[warp as usize].as_ref());
        match tag.scope() {
            Scope::Thread if alone && tag.thread() == warp * 32 + lane => true,
            Scope::Thread | Scope::Warp if tag.warp() == warp => {
                // Of several lanes one is known, the first of neighbours, and counts for all: a tile of the warp meets by itself.
                let met = met.map_or(0, |met| met.of(lane, tag.thread() % 32));
                known.covers(tag) || tick < met
            }
            Scope::Thread | Scope::Warp => known.covers(tag),
            Scope::Block => {
                let own = readers.last(warp, tag).filter(|_| !readers.parts);
                own.is_none_or(|own| self.is_ordered_by(known, warp, lane, alone, own, readers))
                    && readers.are_known(tag, known, Some(warp))
            }
            Scope::Grid => false,
        }
    }

    /// Whether what a record of another block stands for comes before what the lanes of `mask` do now.
    pub fn knows_foreign(&self, warp: u32, mask: u32, block: u32, tag: Tag, warps: Warps) -> bool {
        let all = self.foreign[warp as usize].as_deref();
        let some = self.partly[warp as usize].of(mask).and_then(|what| what.foreign.as_deref());
        if tag.scope() == Scope::Grid {
            // They must have heard from each block, and since the last of them was there.
            let others = warps.pack() & !block_bit(self.block);
            let both = || all.into_iter().chain(some);
            return both().any(|foreign| foreign.latest > tag.tick())
                && others & !both().fold(0, |bits, foreign| bits | foreign.bits) == 0;
        }
        all.into_iter().chain(some).any(|foreign| foreign.covers(block, tag, warps))
    }
}
