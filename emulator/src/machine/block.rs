//! A block: its warps take turns until all have exited.

use std::cell::RefCell;
use std::rc::Rc;

use super::barrier::BarrierState;
use super::copy::Copies;
use super::core::{Core, Grid};
use super::lanes::Row;
use super::local::SharedMemory;
use super::mbarrier_state::Barriers;
use super::observe::Observer;
use super::random::Random;
use super::special::Special;
use super::step::{SPINS, Turn, turn};
use super::trouble::Trouble;
use super::warp::{State, Warp};
use crate::arith::approx::Perturbation;
use crate::decode::op::Action;
use crate::settings::Rounding;
use crate::watch::FindingKind;

/// A block that is running.
#[derive(Debug)]
pub struct Block<'a> {
    /// What its warps share.
    pub core: Core<'a>,
    /// Its warps.
    pub warps: Vec<Warp>,
    /// The order of its warps' turns.
    order: Vec<usize>,
    random: Random,
}

/// How far a block came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// To its end.
    Done,
    /// Its warps seem to wait for another block.
    Yielded,
}

/// Trouble, and the warp that it happened in.
pub type Failed = (u32, u32, Box<Trouble>);

impl<'a> Block<'a> {
    /// The block with this number, ready to run.
    ///
    /// # Errors
    /// When its local memory does not fit.
    pub fn new(grid: &'a Grid<'a>, number: u64) -> Result<Self, Failed> {
        let block = super::launch::coordinates(grid, number);
        let threads: u32 = grid.launch.block.iter().product();
        let count = threads.div_ceil(32);
        let budget = match grid.settings.max_warp_instructions {
            0 => u64::MAX,
            limit => limit,
        };
        let core = Core {
            grid,
            block,
            shared: SharedMemory::new(&grid.shared_ranges, grid.reserved_shared),
            live: threads,
            barriers: [BarrierState::default(); 16],
            completions: 0,
            progress: 0,
            news: 0,
            polls: 0,
            budget,
            clock: 0,
            copies: vec![Copies::default(); count as usize],
            mbarriers: Barriers::default(),
            printed: String::new(),
            at: (0, 0),
            noted: RefCell::default(),
            observer: Observer::new(grid, number, count),
            counts: None,
        };
        let shape = &grid.module.functions[grid.function as usize];
        let warps: Result<Vec<Warp>, _> = (0..count)
            .map(|warp| {
                let lanes = (threads - warp * 32).min(32);
                let live = u32::MAX >> (32 - lanes);
                Warp::new(warp, live, Rc::new(special(grid, block, number, warp)), grid.function, shape)
                    .map_err(|trouble| (warp, shape.entry, trouble))
            })
            .collect();
        let order = (0..count as usize).collect();
        Ok(Block { core, warps: warps?, order, random: Random::new(grid.settings.seed, number + 1) })
    }

    /// Lets the warps take turns, in an order that the seed chooses anew in every round.
    ///
    /// # Errors
    /// The first trouble.
    pub fn run(&mut self) -> Result<Progress, Failed> {
        self.core.polls = 0;
        loop {
            self.random.shuffle(&mut self.order);
            let (mut ran, mut yielded) = (false, false);
            let before = self.core.completions;
            for &index in &self.order {
                let warp = &mut self.warps[index];
                if warp.live == 0 {
                    continue;
                }
                let clock = self.core.clock;
                match turn(&mut self.core, warp) {
                    Ok(Turn::Exited) => ran = true,
                    Ok(Turn::Blocked) => ran |= self.core.clock != clock,
                    Ok(Turn::Yielded) => yielded = true,
                    Err(trouble) => return Err((warp.index, warp.pc, trouble)),
                }
            }
            if self.core.live == 0 {
                return Ok(Progress::Done);
            }
            if !ran && !yielded && self.core.completions == before {
                return Err(self.stuck());
            }
            // One warp may ask while the others wait for it at a barrier, again and again.
            if yielded && !ran || self.core.polls >= SPINS {
                return Ok(Progress::Yielded);
            }
        }
    }

    /// The blocks wait for each other, or for nothing: where the first warp of this one that has not ended is, and why that is
    /// said of it. For others there was no room yet.
    pub fn waits(&self, why: &str, not_begun: usize) -> Failed {
        let warp = self.warps.iter().find(|warp| warp.live != 0).unwrap_or(&self.warps[0]);
        let mut message =
            format!("waits in a loop, as all blocks that run do, for something that none of them brings about{why}");
        if not_begun > 0 {
            message += &format!(" ({not_begun} blocks have not begun: others need not be there at the same time)");
        }
        (warp.index, warp.pc, Trouble::new(FindingKind::Runaway, warp.live.trailing_zeros(), message))
    }

    /// Nobody can go on: who waits where, and what that means.
    fn stuck(&self) -> Failed {
        let mut waits = Vec::new();
        for warp in self.warps.iter().filter(|warp| warp.live != 0) {
            for fragment in &warp.fragments {
                let op = &self.core.grid.module.code[fragment.pc as usize];
                let place = self.core.grid.module.place(fragment.pc);
                // The clearest sign first: lanes that wait for lanes of their own warp.
                let kind = match (fragment.state, op.action) {
                    (State::Lanes(_), Action::Barrier) => FindingKind::BarrierDivergence,
                    (State::Lanes(_), _) => FindingKind::MaskMismatch,
                    _ => FindingKind::Deadlock,
                };
                let rank = matches!(kind, FindingKind::Deadlock);
                let text = format!("lanes {:#010x} of warp {} wait at {place}", fragment.mask, warp.index);
                waits.push((rank, warp.index, fragment.mask, fragment.pc, kind, text));
            }
        }
        waits.sort_by_key(|wait| wait.0);
        let texts: Vec<&str> = waits.iter().map(|wait| wait.5.as_str()).take(4).collect();
        let more = if waits.len() > 4 { format!(" and {} more", waits.len() - 4) } else { String::new() };
        let (_, warp, mask, pc, kind, _) = &waits[0];
        let message = match kind {
            FindingKind::BarrierDivergence => "waits at a barrier that other lanes of its warp do not reach",
            FindingKind::MaskMismatch => "waits at a .sync instruction for lanes of its mask that do not come",
            _ => "waits for ever: nothing in the block can go on",
        };
        let message = format!("{message}: {}{more}", texts.join("; "));
        (*warp, *pc, Trouble::new(*kind, mask.trailing_zeros(), message))
    }
}

/// The special registers of a warp.
fn special(grid: &Grid<'_>, block: [u32; 3], number: u64, warp: u32) -> Special {
    let [x, y, _] = grid.launch.block;
    let thread = |lane: usize| warp * 32 + lane as u32;
    let row = |f: &dyn Fn(u32) -> u32| Row(std::array::from_fn(|lane| f(thread(lane))));
    let limits = grid.settings.target.limits();
    let multiprocessors = u64::from(limits.multiprocessors);
    Special {
        thread: [row(&|t| t % x), row(&|t| t / x % y), row(&|t| t / x / y)],
        block_size: grid.launch.block,
        block,
        grid_size: grid.launch.grid,
        warp,
        warps: limits.threads_per_multiprocessor / 32,
        multiprocessor: [(number % multiprocessors) as u32, multiprocessors as u32],
        dynamic_shared: grid.launch.dynamic_shared,
        total_shared: grid.launch.kernel.static_shared + grid.launch.dynamic_shared,
        grid: 1,
        workspace: grid.workspace,
        reserved_shared: grid.reserved_shared,
        perturbation: Perturbation(match grid.settings.rounding {
            Rounding::Exact => None,
            Rounding::Adversarial => Some(grid.settings.seed),
        }),
    }
}
