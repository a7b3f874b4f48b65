//! A grid: its blocks, in parallel or interleaved.
//!
//! Blocks of a kernel that does not communicate run on several threads, each to its end. Blocks of one that does (atomics
//! on global memory, volatile accesses, fences for more than the block) run on one thread in the seed's order, and one that seems to wait for another gives
//! way to it; so equal seeds give equal bits, whatever the number of threads.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use super::block::{Block, Failed, Progress};
use super::core::Grid;
use super::random::Random;
use super::trouble::Noted;
use super::{Fault, Launch, LaunchReport, LoadedModule};
use crate::count::Counters;
use crate::memory::GlobalMemory;
use crate::settings::{Findings, Settings};
use crate::watch::Finding;

/// Blocks that are resident together at most, when they communicate and the launch is not cooperative.
const RESIDENT: usize = 64;

/// Runs a launch to its end.
pub fn run(module: &LoadedModule, launch: &Launch, memory: &GlobalMemory, settings: &Settings) -> LaunchReport {
    let blocks: u64 = launch.grid.iter().map(|axis| u64::from(*axis)).product();
    let mut order: Vec<u64> = (0..blocks).collect();
    // Seed 0 is the order of the numbers, which is easiest to follow.
    if settings.seed != 0 {
        Random::new(settings.seed, 0).shuffle(&mut order);
    }
    let threads = match settings.threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        threads => threads,
    };
    let communicates = launch.cooperative || launch.kernel.communicates;
    // Of the host's own memory that kernels may address, nothing can be undone.
    if !communicates && threads > 1 && blocks > 1 && !memory.has_registered() {
        let grid = Grid::new(module, launch, memory, settings, true);
        let total = parallel(&grid, &order, threads.min(order.len()));
        match &grid.records.races {
            // Which of two racing accesses comes second was up to the threads. On one it is up to the seed.
            Some(races) if total.found.iter().any(|found| found.fatal || found.noted.trouble.is_harmless()) => {
                races.undo()
            }
            _ => return report(&grid, total),
        }
    }
    let mut grid = Grid::new(module, launch, memory, settings, false);
    if launch.cooperative {
        grid.workspace = workspace(memory);
    }
    let report = report(&grid, interleaved(&grid, &order, launch.cooperative, communicates));
    if grid.workspace != 0 {
        memory.free(grid.workspace).expect("allocated for this launch");
    }
    report
}

/// Bytes of [`workspace`]: its own length in the first word, the barrier of the grid in the second.
const WORKSPACE_BYTES: u32 = 64;

/// Room for the barrier of the grid, which the code of `cooperative_groups.h` finds by `%envreg1` and `%envreg2`. 0 when
/// the memory is full; the kernel then traps, as in a launch that is not cooperative.
fn workspace(memory: &GlobalMemory) -> u64 {
    let Some(address) = memory.allocate(WORKSPACE_BYTES.into()) else { return 0 };
    let mut bytes = [0; WORKSPACE_BYTES as usize];
    bytes[..4].copy_from_slice(&WORKSPACE_BYTES.to_le_bytes());
    memory.write(address, &bytes).expect("just allocated");
    address
}

/// What blocks leave behind.
#[derive(Default)]
struct Total {
    /// Printed text, with the block's place in the order.
    printed: Vec<(u64, String)>,
    counts: Option<Vec<[u64; 2]>>,
    traffic: Counters,
    /// What was found.
    found: Vec<Found>,
}

/// Trouble of a block.
struct Found {
    /// The block's place in the order, and in the grid.
    place: u64,
    block: [u32; 3],
    noted: Noted,
    /// Whether it ended the block.
    fatal: bool,
}

impl Total {
    fn take(&mut self, place: u64, block: Block<'_>) {
        let coordinates = block.core.block;
        for noted in block.core.noted.into_inner() {
            self.find(Found { place, block: coordinates, noted, fatal: false });
        }
        if !block.core.printed.is_empty() {
            self.printed.push((place, block.core.printed));
        }
        if let Some(traffic) = block.core.observer.and_then(|observer| observer.traffic) {
            self.traffic.add_traffic(&traffic);
        }
    }

    /// Lets a block take turns; it counts its instructions together with the blocks before it.
    fn run(&mut self, grid: &Grid<'_>, block: &mut Block<'_>) -> Result<Progress, Failed> {
        let fresh = || vec![[0; 2]; grid.module.code.len()];
        block.core.counts = grid.settings.count.then(|| self.counts.take().unwrap_or_else(fresh));
        let progress = block.run();
        self.counts = block.core.counts.take();
        progress
    }

    /// A block has ended early.
    fn fail(&mut self, place: u64, block: [u32; 3], (warp, pc, trouble): Failed) {
        self.find(Found { place, block, noted: Noted { warp, pc, trouble, times: 1 }, fatal: true });
    }

    /// Adds what was found, to the same of another block if there is any; the earliest block's is told.
    fn find(&mut self, found: Found) {
        let Some(known) = self.found.iter_mut().find(|known| known.noted.key() == found.noted.key()) else {
            return self.found.push(found);
        };
        let (times, fatal) = (known.noted.times + found.noted.times, known.fatal || found.fatal);
        if found.place < known.place {
            *known = found;
        }
        (known.noted.times, known.fatal) = (times, fatal);
    }

    fn join(&mut self, other: Total) {
        self.printed.extend(other.printed);
        match (&mut self.counts, other.counts) {
            (Some(total), Some(counts)) => {
                for (sum, [issued, lanes]) in total.iter_mut().zip(counts) {
                    sum[0] += issued;
                    sum[1] += lanes;
                }
            }
            (total, counts) => *total = total.take().or(counts),
        }
        self.traffic.add(&other.traffic);
        other.found.into_iter().for_each(|found| self.find(found));
    }
}

/// The place of a block in the grid, by its number.
pub fn coordinates(grid: &Grid<'_>, number: u64) -> [u32; 3] {
    let [x, y, _] = grid.launch.grid.map(u64::from);
    [number % x, number / x % y, number / x / y].map(|axis| axis as u32)
}

/// On one thread: a block runs until it ends or seems to wait for another.
fn interleaved(grid: &Grid<'_>, order: &[u64], cooperative: bool, communicates: bool) -> Total {
    let mut total = Total::default();
    let mut resident: std::collections::VecDeque<(u64, Block<'_>)> = std::collections::VecDeque::new();
    let limit = if cooperative { order.len() } else { RESIDENT };
    let mut next = 0;
    let mut patience = Patience::new(grid, communicates);
    loop {
        // A block that gave way lets a new one begin, while there is room; then the one that has waited longest goes on.
        let (place, mut block) = if next < order.len() && resident.len() < limit {
            next += 1;
            let number = order[next - 1];
            match Block::new(grid, number) {
                Ok(block) => (next as u64 - 1, block),
                Err(failed) => {
                    total.fail(next as u64 - 1, coordinates(grid, number), failed);
                    if ends(grid, communicates) {
                        return total;
                    }
                    continue;
                }
            }
        } else if let Some(waiting) = resident.pop_front() {
            waiting
        } else {
            return total;
        };
        patience.not_begun = if communicates { order.len() - next } else { 0 };
        loop {
            match patience.run(grid, &mut total, &mut block) {
                Ok(Progress::Done) => {
                    total.take(place, block);
                    break;
                }
                // Without others that it could wait for, a block that gives way goes on at once.
                Ok(Progress::Yielded) if !communicates => {}
                Ok(Progress::Yielded) => {
                    resident.push_back((place, block));
                    break;
                }
                Err(failed) => {
                    // How long this one has waited says nothing of the next.
                    (patience.waited, patience.asked) = (0, 0);
                    total.fail(place, block.core.block, failed);
                    total.take(place, block);
                    if ends(grid, communicates) {
                        return total;
                    }
                    break;
                }
            }
        }
    }
}

/// For how long blocks may do nothing but wait. What a block may execute is limited by itself; this limits, of all that run
/// together, what they execute while nothing changes that one of them could wait for, and while none of those that ask
/// hears anything new.
struct Patience {
    /// Instructions at most while nothing changes; 0 for no limit.
    most: u64,
    waited: u64,
    /// Instructions at most while there is no news; 0 for no limit. Other than changes, news are what others have done: who
    /// asks round the barrier of his block, or stores what he has seen, changes something all the time.
    most_without_news: u64,
    asked: u64,
    /// Blocks that have not begun, for want of room.
    not_begun: usize,
}

impl Patience {
    /// Instructions of a block's turn that count as waiting, if nothing changed: what it did before it began to wait is not
    /// known apart.
    const POLLS: u64 = 4096;

    /// For blocks that wait for each other; or for one that cannot wait for any other, and needs less.
    fn new(grid: &Grid<'_>, communicates: bool) -> Self {
        let limit = grid.settings.max_warp_instructions;
        Patience {
            most: limit / if communicates { 16 } else { 256 },
            waited: 0,
            most_without_news: if communicates { limit } else { 0 },
            asked: 0,
            not_begun: 0,
        }
    }

    /// Lets a block take its turns.
    fn run(&mut self, grid: &Grid<'_>, total: &mut Total, block: &mut Block<'_>) -> Result<Progress, Failed> {
        let before = (block.core.clock, block.core.completions, block.core.progress, block.core.news);
        let progress = total.run(grid, block)?;
        let (goes_on, core) = (progress == Progress::Yielded, &block.core);
        let turn = core.clock - before.0;
        if goes_on && (core.completions, core.progress) == (before.1, before.2) {
            self.waited += turn.min(Self::POLLS);
        } else {
            self.waited = 0;
        }
        if !goes_on || core.news != before.3 {
            self.asked = 0;
        } else if core.polls > 0 {
            self.asked += turn;
        }
        if self.most > 0 && self.waited > self.most {
            return Err(block.waits("", self.not_begun));
        }
        if self.most_without_news > 0 && self.asked > self.most_without_news {
            let why = format!(
                ": all blocks together have executed {} warp instructions, the limit (max_warp_instructions of the \
                 settings), while none of those that ask has read anything new",
                self.most_without_news
            );
            return Err(block.waits(&why, self.not_begun));
        }
        Ok(progress)
    }
}

/// Whether a block that ends early ends the launch.
fn ends(grid: &Grid<'_>, communicates: bool) -> bool {
    communicates || grid.settings.findings == Findings::First
}

/// On several threads, which take blocks in the order; after a failure only blocks before it are still run, so that the
/// earliest failure is found, whichever thread was fastest.
fn parallel(grid: &Grid<'_>, order: &[u64], threads: usize) -> Total {
    let next = AtomicU64::new(0);
    let end = AtomicU64::new(order.len() as u64);
    let total = Mutex::new(Total::default());
    let work = || {
        let mut mine = Total::default();
        loop {
            let place = next.fetch_add(1, Ordering::Relaxed);
            if place >= end.load(Ordering::Relaxed) {
                break;
            }
            let number = order[place as usize];
            let result = Block::new(grid, number).and_then(|mut block| {
                let mut patience = Patience::new(grid, false);
                let result = loop {
                    match patience.run(grid, &mut mine, &mut block) {
                        Ok(Progress::Yielded) => {}
                        Ok(Progress::Done) => break Ok(()),
                        Err(failed) => break Err(failed),
                    }
                };
                mine.take(place, block);
                result
            });
            if let Err(failed) = result {
                if ends(grid, false) {
                    end.fetch_min(place, Ordering::Relaxed);
                }
                mine.fail(place, coordinates(grid, number), failed);
            }
        }
        total.lock().unwrap_or_else(|e| e.into_inner()).join(mine);
    };
    std::thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(work);
        }
        work();
    });
    total.into_inner().unwrap_or_else(|e| e.into_inner())
}

fn report(grid: &Grid<'_>, mut total: Total) -> LaunchReport {
    let Launch { kernel, grid: blocks, block, dynamic_shared, .. } = *grid.launch;
    total.printed.sort_by_key(|(place, _)| *place);
    let mut report =
        LaunchReport { kernel: kernel.name.clone(), grid: blocks, block, dynamic_shared, ..LaunchReport::default() };
    if let Some(races) = &grid.records.races {
        races.uses(|address, bytes, written| grid.memory.note_use(address, bytes, written));
    }
    let first = grid.settings.findings == Findings::First;
    // Of a block, what ended it comes last.
    total.found.sort_by_key(|found| (found.place, found.fatal));
    if first {
        total.found.truncate(1);
    }
    let fatal = total.found.iter().find(|found| found.fatal).map(|found| found.place);
    if let Some(found) = total.found.first() {
        if let (true, Some(place)) = (first, fatal) {
            total.printed.retain(|(printed, _)| *printed < place);
        }
        let kind = found.noted.trouble.fault();
        report.findings = total.found.into_iter().map(|found| finding(grid, found)).collect();
        let lines: Vec<String> = report.findings.iter().map(ToString::to_string).collect();
        let message = match &lines[..] {
            [one] => one.clone(),
            several => format!("{} findings:\n{}", several.len(), several.join("\n")),
        };
        report.fault = Some(Fault { kind, message });
    }
    if let (None, Some(counts)) = (fatal, total.counts) {
        let mut counters = total.traffic;
        for (pc, (op, [issued, lanes])) in grid.module.code.iter().zip(counts).enumerate() {
            if !op.hidden && issued > 0 {
                counters.add_instruction(&grid.module.place(pc as u32).instruction, issued, lanes);
            }
        }
        if let Some(distinct) = &grid.records.distinct {
            (counters.distinct_bytes_read, counters.distinct_bytes_written) = distinct.bytes();
        }
        report.counters = Some(counters);
    }
    report.printed = total.printed.into_iter().map(|(_, text)| text).collect();
    report
}

/// Trouble, with all that is known of where it happened.
fn finding(grid: &Grid<'_>, Found { block, noted, .. }: Found) -> Finding {
    let Noted { warp, pc, trouble, times } = noted;
    Finding {
        kind: trouble.kind,
        kernel: grid.launch.kernel.name.clone(),
        block,
        warp,
        lane: trouble.lane,
        address: trouble.address.map(|(_, address)| address),
        space: trouble.address.map(|(space, _)| space),
        place: grid.module.place(trouble.at.unwrap_or(pc)),
        other: trouble.other.map(|pc| grid.module.place(pc)),
        message: trouble.message,
        times,
    }
}
