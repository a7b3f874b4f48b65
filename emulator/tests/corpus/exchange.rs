//! Loops around a compare-and-swap, and threads that wait for each other.

use ptx_emulator::settings::Settings;

use crate::args;
use crate::check::{Numbers, ROUNDING, close, equal, everywhere, ptx};
use crate::support::compile::toolkit;
use crate::support::device::{Loaded, real_gpu};
use crate::support::job::Job;

#[test]
fn largest_value_by_exchange() {
    let n = 250;
    let x = Numbers::new(71).units(n);
    let mut job = Job::new();
    let (of_x, y) = (job.buffer(&x), job.output::<f32>(4));
    job.launch("largest_of_block", 4, 64, args![n as i32, of_x, y]);
    let want: Vec<f32> = x.chunks(64).map(|part| part.iter().copied().fold(f32::MIN, f32::max)).collect();
    let all = job.buffer(&[-9.0f32; 5]);
    job.launch("largest_of_all", 4, 62, args![of_x, all]);
    let largest = x[..248].iter().copied().fold(f32::MIN, f32::max);
    everywhere("exchange.cu", &job, |outcome| {
        equal("largest", &outcome.values::<f32>(y), &want);
        equal("of all", &outcome.values::<f32>(all), &[-9.0, -9.0, -9.0, -9.0, largest]);
    });
}

/// The jobs whose threads count or wait, and what they must leave in their last buffer.
fn waiting() -> Vec<(Job, Vec<i32>)> {
    let mut jobs = Vec::new();
    for setter in [0, 1, 40] {
        let mut job = Job::new();
        let y = job.output::<i32>(192);
        job.launch("count_by_exchange", 2, 96, args![setter, y]);
        jobs.push((job, vec![96; 192]));
    }
    let mut job = Job::new();
    let y = job.output::<i32>(32);
    job.launch("wait_for_count", 1, 64, args![y]);
    jobs.push((job, vec![32; 32]));
    let mut job = Job::new();
    let (flag, data, y) = (job.buffer(&[0i32]), job.output::<i32>(64), job.output::<i32>(64));
    job.launch("wait_by_hints", 2, 64, args![flag, data, y]);
    jobs.push((job, (0..64).map(|i| 3 * i + 1).collect()));
    jobs
}

#[test]
fn counts_and_flags() {
    for (job, want) in waiting() {
        everywhere("exchange.cu", &job, |outcome| {
            let last = outcome.buffers.last().expect("a buffer");
            let got: Vec<i32> = last.chunks(4).map(|b| i32::from_le_bytes(b.try_into().expect("four"))).collect();
            equal("counts and flags", &got, &want);
        });
    }
}

/// What is judged must not depend on the order of warps and blocks.
#[test]
fn nothing_is_found_in_any_order() {
    if toolkit().is_none() || real_gpu() {
        return;
    }
    let text = ptx("exchange.cu", 80);
    for seed in 1..12 {
        for (job, _) in waiting() {
            let settings = Settings { seed, max_warp_instructions: 50_000_000, ..Settings::default() };
            Loaded::machine(&text, &settings).expect("loads").run(&job).clean(&format!("seed {seed}"));
        }
    }
}

#[test]
fn sums_by_exchange() {
    let x = Numbers::new(72).units(192);
    let mut job = Job::new();
    let (of_x, y) = (job.buffer(&x), job.output::<f32>(3));
    job.launch("sum_by_exchange", 3, 64, args![of_x, y]);
    let sum = |part: &[f32]| part.iter().map(|x| f64::from(*x)).sum::<f64>();
    let want: Vec<f64> = x.chunks(64).map(sum).collect();
    let bound = 64.0 * ROUNDING * 64.0;
    everywhere("exchange.cu", &job, |outcome| close("sums", &outcome.values::<f32>(y), &want, |_| bound));
}
