//! Blocks that wait for others in loops of every shape, and groups of several warps.

use ptx_emulator::settings::Settings;

use crate::args;
use crate::check::{Numbers, ROUNDING, close, equal, everywhere, ptx};
use crate::support::compile::toolkit;
use crate::support::device::{Loaded, real_gpu};
use crate::support::job::{Buffer, Job};

fn numbers(n: usize) -> Vec<i32> {
    let mut numbers = Numbers::new(81);
    (0..n).map(|_| numbers.below(100) as i32 - 50).collect()
}

/// Running sums of `n` numbers by blocks of 64 threads, and where they are.
fn look_back(n: usize) -> (Job, Buffer) {
    let tiles = n.div_ceil(64);
    let mut job = Job::new();
    let (x, y, state) = (job.buffer(&numbers(n)), job.output::<i32>(n), job.buffer(&vec![0i32; tiles]));
    let (of_tile, up_to_tile) = (job.buffer(&vec![0i32; tiles]), job.output::<i32>(tiles));
    job.launch("look_back", tiles as u32, 64, args![n as i32, x, y, state, of_tile, up_to_tile]);
    (job, y)
}

#[test]
fn running_sums_by_looking_back() {
    for n in [1usize, 64, 500, 2500] {
        let (job, y) = look_back(n);
        let mut sum = 0;
        let want: Vec<i32> = numbers(n)
            .into_iter()
            .map(|v| {
                sum += v;
                sum
            })
            .collect();
        everywhere("turns.cu", &job, |outcome| equal("y", &outcome.values::<i32>(y), &want));
    }
}

/// Sums of the parts of blocks in their order, and where they are.
fn in_turn(blocks: usize, threads: usize) -> (Job, Vec<f32>, Buffer) {
    let x = Numbers::new(82).units(blocks * threads);
    let mut job = Job::new();
    let (turn, of_x, sum) = (job.buffer(&[0i32]), job.buffer(&x), job.output::<f32>(threads));
    job.launch("add_in_turn", blocks as u32, threads as u32, args![turn, of_x, sum]);
    (job, x, sum)
}

#[test]
fn sums_in_turn() {
    let (job, x, sum) = in_turn(9, 96);
    let want: Vec<f64> = (0..96).map(|i| x.iter().skip(i).step_by(96).map(|v| f64::from(*v)).sum()).collect();
    // Nine numbers below 1: eight sums below 9.
    everywhere("turns.cu", &job, |outcome| close("sum", &outcome.values::<f32>(sum), &want, |_| 72.0 * ROUNDING));
}

/// Who waits lets others go on, in whichever order they begin.
#[test]
fn nobody_waits_for_ever_in_any_order() {
    if toolkit().is_none() || real_gpu() {
        return;
    }
    let text = ptx("turns.cu", 80);
    for seed in 1..12 {
        // Either needs less than a hundredth of this.
        let settings = Settings { seed, max_warp_instructions: 2_000_000, ..Settings::default() };
        for job in [look_back(8 * 64).0, look_back(40 * 64).0, in_turn(20, 64).0] {
            Loaded::machine(&text, &settings).expect("loads").run(&job).clean(&format!("seed {seed}"));
        }
    }
}

#[test]
fn groups_of_several_warps() {
    let x = numbers(3 * 256);
    let mut job = Job::new();
    let (of_x, sums, shuffled) = (job.buffer(&x), job.output::<i32>(18), job.output::<i32>(3 * 256));
    job.launch("sums_of_tiles", 3, 256, args![of_x, sums, shuffled]);
    let (mut want_sums, mut want) = (Vec::new(), Vec::new());
    for tile in x.chunks(128) {
        let mut values = tile.to_vec();
        for i in 0..3 {
            want_sums.push(values.iter().map(|v| v + i).sum::<i32>());
            let fifth = values[5];
            values.iter_mut().for_each(|v| *v += fifth);
        }
        want.extend(values);
    }
    everywhere("tiles.cu", &job, |outcome| {
        equal("sums", &outcome.values::<i32>(sums), &want_sums);
        equal("shuffled", &outcome.values::<i32>(shuffled), &want);
    });
}
