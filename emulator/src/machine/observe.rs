//! What a block's accesses mean to watching and counting: the one place where the machine meets [`crate::watch`] and
//! [`crate::count`].

use super::core::Grid;
use super::modifiers::{Modifiers, Order};
use super::trouble::{Outcome, Trouble};
use crate::count::distinct::Distinct;
use crate::count::traffic::{Flow, Traffic};
use crate::decode::op::Op;
use crate::memory::View;
use crate::settings::{Findings, Settings, Watch};
use crate::watch::clock::{BlockClock, Lanes};
use crate::watch::global::GlobalRaces;
use crate::watch::order::{Releases, Strong};
use crate::watch::race::{Access, Conflict, Kind, Stored};
use crate::watch::shared::SharedRaces;
use crate::watch::tag::Strength;
use crate::watch::{FindingKind, Space};

/// What all blocks of a launch record together.
#[derive(Debug)]
pub struct Records {
    /// Races in global memory.
    pub races: Option<GlobalRaces>,
    /// Sectors of global memory that were touched.
    pub distinct: Option<Distinct>,
}

impl Records {
    /// Nothing recorded yet. With `undo`, the launch can be undone if races are watched.
    pub fn new(settings: &Settings, view: &View, undo: bool) -> Self {
        let undo = undo.then_some(view.shadow);
        Records {
            races: (settings.watch == Watch::Races).then(|| GlobalRaces::new(view.base, view.length, undo)),
            distinct: settings.count.then(|| Distinct::new(view.base, view.length)),
        }
    }
}

/// What a block records by itself.
#[derive(Debug)]
pub struct Observer {
    races: Option<BlockRaces>,
    /// Its traffic, if the launch is counted.
    pub traffic: Option<Traffic>,
}

#[derive(Debug)]
struct BlockRaces {
    clock: BlockClock,
    shared: SharedRaces,
    /// Releases in shared memory.
    releases: Releases,
    /// Plain reads of what atomics have changed: races, unless an atomic on the same word is what the warp does next.
    tentative: Vec<(Place, Box<Trouble>)>,
}

/// Which word a warp has read.
#[derive(Clone, Copy, Debug)]
struct Place {
    warp: u32,
    space: Space,
    word: u64,
}

/// An access as the machine makes it.
#[derive(Clone, Copy, Debug)]
pub struct Made<'a> {
    /// The warp in its block.
    pub warp: u32,
    /// The operation.
    pub pc: u32,
    /// The space of the addresses.
    pub space: Space,
    /// Loads, stores or both.
    pub kind: Kind,
    /// For whom it is counted; none if it has been counted.
    pub flow: Option<Flow>,
    /// How strong it is.
    pub order: Order,
    /// Active lanes.
    pub mask: u32,
    /// Lanes of the warp that have not exited.
    pub live: u32,
    /// Their addresses.
    pub addresses: &'a [u64; 32],
    /// Bytes of each lane.
    pub bytes: u64,
    /// Whether each address stands for several lanes.
    pub spread: bool,
}

impl Observer {
    /// For the block with this number.
    pub fn new(grid: &Grid<'_>, number: u64, warps: u32) -> Option<Box<Self>> {
        let settings = grid.settings;
        let races = (settings.watch == Watch::Races).then(|| BlockRaces {
            clock: BlockClock::new(number as u32, warps),
            shared: SharedRaces::new(grid.shared_bytes),
            releases: Releases::default(),
            tentative: Vec::new(),
        });
        let traffic = settings.count.then(Traffic::default);
        (races.is_some() || traffic.is_some()).then(|| Box::new(Observer { races, traffic }))
    }

    /// An access of checked addresses. For a store: before it is made, with what it is going to store.
    ///
    /// # Errors
    /// When it races with an earlier one.
    #[inline(always)]
    pub fn access(&mut self, grid: &Grid<'_>, made: &Made<'_>, stored: Stored) -> Outcome {
        self.count(grid, made);
        match &mut self.races {
            Some(races) => races.access(grid, made, stored),
            None => Ok(()),
        }
    }

    /// Counts an access.
    #[inline(always)]
    pub fn count(&mut self, grid: &Grid<'_>, made: &Made<'_>) {
        if let (Some(traffic), Some(flow)) = (&mut self.traffic, made.flow) {
            count(traffic, grid, made, flow);
        }
    }

    /// Whether races are looked for.
    pub fn races(&self) -> bool {
        self.races.is_some()
    }

    /// All lanes of a warp have exited. What it read last, nobody will see.
    pub fn exit(&mut self, warp: u32) {
        if let Some(races) = &mut self.races {
            races.clock.exit(warp);
            races.tentative.retain(|(place, _)| place.warp != warp);
        }
    }

    /// Something that orders: applied to the block's clock.
    #[inline(always)]
    pub fn order(&mut self, event: impl FnOnce(&mut BlockClock)) {
        if let Some(races) = &mut self.races {
            event(&mut races.clock);
        }
    }
}

#[inline]
fn count(traffic: &mut Traffic, grid: &Grid<'_>, made: &Made<'_>, flow: Flow) {
    match made.space {
        Space::Global => {
            let distinct = grid.records.distinct.as_ref();
            traffic.global(flow, made.mask, made.addresses, made.bytes, |sector| {
                let Some(distinct) = distinct else { return };
                if made.kind != Kind::Write {
                    distinct.touch(sector, false);
                }
                if made.kind != Kind::Read {
                    distinct.touch(sector, true);
                }
            });
        }
        Space::Shared => traffic.shared(flow, made.mask, made.addresses, made.bytes),
        _ => {}
    }
}

impl BlockRaces {
    #[inline]
    fn access(&mut self, grid: &Grid<'_>, made: &Made<'_>, stored: Stored) -> Outcome {
        let shared = match made.space {
            Space::Shared => true,
            Space::Global => false,
            _ => return Ok(()),
        };
        if !self.tentative.is_empty() {
            self.settle(made)?;
        }
        let strength = strength(made);
        // An atomic that leaves all as it was, a compare-and-swap that fails, has only read.
        let kept = |lane: &u32| {
            let (new, old) = stored(*lane, made.addresses[*lane as usize] / 4);
            made.mask >> lane & 1 != 0 && new == old
        };
        let idle = match made.kind {
            Kind::Update => (0..32).filter(kept).fold(0, |lanes, lane| lanes | 1u32 << lane),
            _ => 0,
        };
        if strength != Strength::Weak {
            self.order(grid, made, shared, made.kind, made.mask & !idle);
            self.order(grid, made, shared, Kind::Read, idle);
        }
        self.judge(grid, made, strength, made.kind, made.mask & !idle, stored)?;
        self.judge(grid, made, strength, Kind::Read, idle, stored)
    }

    #[inline]
    fn judge(
        &mut self,
        grid: &Grid<'_>,
        made: &Made<'_>,
        strength: Strength,
        kind: Kind,
        mask: u32,
        stored: Stored,
    ) -> Outcome {
        if mask == 0 {
            return Ok(());
        }
        let Made { warp, pc, addresses, spread, .. } = *made;
        let (constant, all) = (made.order == Order::Constant, grid.settings.findings == Findings::Summary);
        let bytes = made.bytes as u32;
        let access = Access { warp, pc, mask, addresses, bytes, kind, strength, spread, constant, all };
        let found = if made.space == Space::Shared {
            self.shared.access(&self.clock, &access, stored)
        } else {
            grid.records.races.as_ref().and_then(|races| races.access(&self.clock, &access, stored))
        };
        let Some(conflict) = found else { return Ok(()) };
        let trouble = trouble(grid, made, conflict);
        if !conflict.tentative {
            return Err(trouble);
        }
        if begins_exchange(grid, made.pc) {
            return Ok(());
        }
        self.tentative.push((Place { warp, space: made.space, word: conflict.address / 4 }, trouble));
        Ok(())
    }

    /// What a warp does after a tentative race.
    #[cold]
    fn settle(&mut self, next: &Made<'_>) -> Outcome {
        let Some(index) = self.tentative.iter().position(|(place, _)| place.warp == next.warp) else { return Ok(()) };
        let (place, trouble) = self.tentative.swap_remove(index);
        let there = (0..32).any(|lane| next.mask >> lane & 1 != 0 && next.addresses[lane] / 4 == place.word);
        if next.kind == Kind::Update && next.space == place.space && there { Ok(()) } else { Err(trouble) }
    }

    /// Releases and acquisitions of the lanes of a strong access, once for each address.
    #[cold]
    fn order(&mut self, grid: &Grid<'_>, made: &Made<'_>, shared: bool, kind: Kind, mask: u32) {
        let answers = made.kind != Kind::Update || super::atomics::answers(grid.module, made.pc);
        let mut rest = mask;
        while rest != 0 {
            let address = made.addresses[rest.trailing_zeros() as usize];
            let same = (0..32).filter(|lane| rest >> lane & 1 != 0 && made.addresses[*lane] == address);
            let same = same.fold(0, |lanes, lane| lanes | 1u32 << lane);
            rest &= !same;
            let strong = Strong {
                warp: made.warp,
                lanes: Lanes { mask: same, live: made.live },
                first: super::atomics::first_lane(made.addresses, made.mask),
                address,
                answers,
                reads: kind != Kind::Write,
                writes: kind != Kind::Read,
                acquire: made.order.acquires(),
                release: made.order.releases(),
                device: !made.order.is_narrow(),
            };
            if shared {
                self.releases.strong(&mut self.clock, strong);
            } else if let Some(races) = &grid.records.races {
                races.strong(&mut self.clock, strong);
            }
        }
    }
}

/// Whether a compare-and-swap follows in the code that compares with what is read, or changes the same word: the plain
/// read only tells it where to begin, and it begins again if that was wrong.
#[cold]
fn begins_exchange(grid: &Grid<'_>, pc: u32) -> bool {
    /// Operations that may lie between.
    const NEAR: usize = 64;
    let code = &grid.module.code[pc as usize..];
    let space = |op: &Op| Modifiers::unpack(op.y).space;
    let same = |read: &Op, op: &Op| (op.a, op.x, space(op)) == (read.a, read.x, space(read));
    // Registers that hold what was read: a float is compared as an integer, by another name.
    let mut holding = vec![code[0].d];
    for (next, op) in (pc + 1..).zip(&code[1..]).take(NEAR) {
        if super::atomics::exchanges(op) && (holding.contains(&op.b) || same(&code[0], op)) {
            return true;
        }
        if holding.contains(&op.a) && grid.module.place(next).instruction.starts_with("mov.") {
            holding.push(op.d);
        }
    }
    false
}

fn strength(made: &Made<'_>) -> Strength {
    match made.order {
        Order::Weak | Order::Constant if made.kind != Kind::Update => Strength::Weak,
        Order::Volatile => Strength::Volatile,
        order if order.is_narrow() => Strength::Block,
        _ => Strength::Device,
    }
}

#[cold]
fn trouble(grid: &Grid<'_>, made: &Made<'_>, conflict: Conflict) -> Box<Trouble> {
    let space = if made.space == Space::Shared { "shared" } else { "global" };
    let verb = |wrote: bool| if wrote { "write" } else { "read" };
    let other = match conflict.block {
        None => format!("warp {} lane {} of the same block", conflict.thread / 32, conflict.thread % 32),
        Some(block) => {
            let [x, y, z] = super::launch::coordinates(grid, block.into());
            format!("block ({x},{y},{z}) warp {} lane {}", conflict.thread / 32, conflict.thread % 32)
        }
    };
    let message = if conflict.constant {
        let (read, write) = if conflict.wrote { ("this", "an earlier write") } else { ("an earlier", "this write") };
        format!(
            "{read} read by ld.global.nc, which is for what no thread writes during the launch, and {write} by {other} \
             are of the same bytes"
        )
    } else {
        format!(
            "race in {space} memory: this {} and an earlier {} by {other} have nothing between them that orders them",
            verb(made.kind != Kind::Read),
            verb(conflict.wrote),
        )
    };
    let mut trouble = Trouble::at_address(FindingKind::Race, conflict.lane, made.space, conflict.address, message);
    trouble.at = Some(made.pc);
    trouble.other = Some(conflict.pc);
    trouble
}
