//! The quick judgement against the judge.

use super::super::clock::{BlockClock, Lanes};
use super::super::race::{Access, Kind};
use super::super::shared::SharedRaces;
use super::{ALL, access, barrier};

/// What is judged quickly is judged as it is slowly: many short histories of accesses and meetings, in both ways.
#[test]
fn quick_judgements_are_those_of_the_judge() {
    let mut state = 1u64;
    let mut below = |limit: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % limit
    };
    let mut races = 0;
    for history in 0..20_000 {
        let mut clock = BlockClock::new(0, 4);
        let mut ways = [SharedRaces::new(1024), SharedRaces::new(1024)];
        ways[1].slow = true;
        let mut told = Vec::new();
        for step in 0..16 {
            let warp = below(4) as u32;
            match below(10) {
                0 => {
                    told.push("barrier".to_owned());
                    barrier(&mut clock, 4);
                }
                3 | 4 => {
                    // One arrives and goes on, the other waits for it.
                    let other = (warp + 1 + below(3) as u32) % 4;
                    told.push(format!("warp {warp} arrives for warp {other}"));
                    clock.arrive(warp, Lanes::ALL, 1, false);
                    clock.arrive(other, Lanes::ALL, 1, true);
                    clock.complete(1, true);
                    clock.leave(other, 1);
                }
                1 => {
                    told.push(format!("warp {warp} meets"));
                    clock.meet(warp, ALL, ALL);
                }
                2 if history % 4 == 0 => clock.meet(warp, 0xffff, ALL),
                _ => {
                    let kind = if below(3) == 0 { Kind::Write } else { Kind::Read };
                    let bytes = [4, 4, 4, 8, 16, 2][below(6) as usize];
                    let from = 64 * below(2) + 4 * below(2) * u64::from(bytes == 4);
                    let (stride, turn) =
                        (u64::from(bytes) * [1, 1, 1, 0, 2][below(5) as usize], [0, 0, 1][below(3) as usize]);
                    let mask = [ALL, ALL, 1, 0xff, 1 << 7][below(5) as usize];
                    let addresses = std::array::from_fn(|lane| from + stride * (lane as u64 ^ turn) % 512);
                    let made = Access { bytes, pc: step, ..access(warp, mask, &addresses, kind) };
                    // No two lanes store the same, nor what is there.
                    let found = ways.each_mut().map(|way| way.access(&clock, &made, &|lane, _| (lane + 1, 0)));
                    told.push(format!("{kind:?} by warp {warp}, {mask:#x}, {bytes} bytes at {addresses:?}"));
                    let [quickly, slowly] = found.map(|found| found.map(|c| (c.address, c.wrote)));
                    assert_eq!(quickly, slowly, "history {history}:\n{}", told.join("\n"));
                    if found[0].is_some() {
                        races += 1;
                        break;
                    }
                }
            }
        }
    }
    assert!((5_000..19_000).contains(&races), "{races} of the histories have a race");
}
