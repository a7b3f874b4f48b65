//! The quick judgement against the judge.

use super::super::clock::{BlockClock, Lanes};
use super::super::global::GlobalRaces;
use super::super::order::{Releases, Strong};
use super::super::race::{Access, Conflict, Kind};
use super::super::shared::SharedRaces;
use super::super::tag::Strength;
use super::{ALL, access, barrier};

/// Numbers that look random.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }

    fn among<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len() as u64) as usize]
    }
}

/// Shared memory with the releases in it, or global memory: what one way of judging knows.
enum Memory {
    Shared(Box<SharedRaces>, Releases),
    Global(GlobalRaces),
}

impl Memory {
    fn new(global: bool, slow: bool) -> Memory {
        if global {
            let mut races = GlobalRaces::new(0, 1 << 16, None);
            races.slow = slow;
            return Memory::Global(races);
        }
        let mut races = Box::new(SharedRaces::new(1024));
        races.slow = slow;
        Memory::Shared(races, Releases::default())
    }

    fn access(&mut self, clock: &BlockClock, made: &Access) -> Option<Conflict> {
        // No two lanes store the same, nor what is there.
        match self {
            Memory::Shared(races, _) => races.access(clock, made, &|lane, _| (lane + 1, 0)),
            Memory::Global(races) => races.access(clock, made, &|lane, _| (lane + 1, 0)),
        }
    }

    fn strong(&mut self, clock: &mut BlockClock, strong: Strong) {
        match self {
            Memory::Shared(_, releases) => releases.strong(clock, strong),
            Memory::Global(races) => races.strong(clock, strong),
        }
    }
}

/// What is judged quickly is judged as it is slowly: many short histories of accesses, meetings and messages, in both ways.
/// In half of them lanes speak and listen by themselves; in the others, parts of words are touched. (Where both are, a record
/// may stand for more than need be, and who touches a part is excused.)
fn histories(blocks: u64, seed: u64) -> u32 {
    let mut n = Numbers(seed);
    let mut races = 0;
    for history in 0..20_000 {
        let warps = if blocks > 1 { 2 } else { 4 };
        let clocks = || (0..blocks as u32).map(|block| BlockClock::new(block, warps)).collect::<Vec<_>>();
        let mut ways = [false, true].map(|slow| (clocks(), Memory::new(blocks > 1, slow)));
        let mut told = Vec::new();
        for step in 0..16 {
            let (block, warp) = (n.below(blocks) as usize, n.below(warps.into()) as u32);
            let apart = history % 2 == 0;
            let mask = if apart { n.among(&[ALL, ALL, 1, 1, 1 << 7, 0xff]) } else { ALL };
            let lanes = Lanes { mask, live: ALL };
            let other = (warp + 1 + n.below(u64::from(warps) - 1) as u32) % warps;
            let mut order = |what: String, event: &mut dyn FnMut(&mut BlockClock)| {
                told.push(what);
                ways.iter_mut().for_each(|(clocks, _)| event(&mut clocks[block]));
            };
            match n.below(14) {
                0 => order(format!("barrier of block {block}"), &mut |clock| barrier(clock, warps)),
                // One arrives and goes on, the other waits for it.
                1 | 2 => {
                    order(format!("{block}: lanes {lanes:?} of warp {warp} arrive for warp {other}"), &mut |clock| {
                        clock.arrive(warp, lanes, 1, false);
                        clock.arrive(other, Lanes::ALL, 1, true);
                        clock.complete(1, true);
                        clock.leave(other, 1);
                    })
                }
                3 => order(format!("{block}: warp {warp} meets"), &mut |clock| clock.meet(warp, ALL, ALL)),
                4 if history % 4 < 2 => {
                    order(format!("{block}: half of warp {warp} meets"), &mut |clock| clock.meet(warp, 0xffff, ALL));
                }
                5 => {
                    order(format!("{block}: lanes {lanes:?} of warp {warp} hear"), &mut |clock| clock.hear(warp, lanes))
                }
                6 | 7 => {
                    // Flags: a release or an acquisition, of a block or of the device.
                    let (tells, device, address) = (n.below(2) == 0, n.below(3) > 0, 4 * n.below(2));
                    told.push(format!("{block}: lanes {lanes:?} of warp {warp} tell ({tells}, {device}) at {address}"));
                    for (clocks, memory) in &mut ways {
                        let strong = Strong {
                            warp,
                            lanes,
                            first: 0,
                            address,
                            reads: !tells,
                            answers: true,
                            writes: tells,
                            acquire: true,
                            release: true,
                            device,
                        };
                        memory.strong(&mut clocks[block], strong);
                    }
                }
                _ => {
                    let kind = if n.below(3) == 0 { Kind::Write } else { Kind::Read };
                    let bytes = n.among(if apart { &[4, 4, 8, 16] } else { &[4, 4, 4, 8, 16, 2, 1] });
                    let from = 64 * n.below(2) + 4 * n.below(2) * u64::from(bytes == 4);
                    let (stride, turn) = (u64::from(bytes) * n.among(&[1, 1, 1, 0, 2]), n.among(&[0, 0, 1]));
                    let mask = n.among(&[ALL, ALL, 1, 0xff, 1 << 7]);
                    let addresses = std::array::from_fn(|lane| from + stride * (lane as u64 ^ turn) % 512);
                    let constant = blocks > 1 && kind == Kind::Read && n.below(12) == 0;
                    let strength = if n.below(16) == 0 { Strength::Device } else { Strength::Weak };
                    let made = Access { bytes, pc: step, constant, strength, ..access(warp, mask, &addresses, kind) };
                    let found = ways.each_mut().map(|(clocks, memory)| memory.access(&clocks[block], &made));
                    told.push(format!(
                        "{block}: {strength:?} {kind:?} by warp {warp}, {mask:#x}, {bytes} bytes at {addresses:?}, {constant}"
                    ));
                    let [quickly, slowly] = found.map(|found| found.map(|c| (c.address, c.wrote, c.constant)));
                    assert_eq!(quickly, slowly, "history {history}:\n{}", told.join("\n"));
                    if found[0].is_some() {
                        races += 1;
                        break;
                    }
                }
            }
        }
    }
    races
}

#[test]
fn quick_judgements_are_those_of_the_judge() {
    for seed in 1..4 {
        let races = histories(1, seed);
        assert!((5_000..19_000).contains(&races), "{races} of the histories have a race");
    }
}

#[test]
fn quick_judgements_of_several_blocks_are_those_of_the_judge() {
    for seed in 1..4 {
        let races = histories(3, seed);
        assert!((5_000..19_500).contains(&races), "{races} of the histories have a race");
    }
}
