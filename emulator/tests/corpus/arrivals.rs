//! Kernels by libcu++ and cub: barriers in shared memory, pipelines, atomics by reference, sorting.

use crate::args;
use crate::check::{Numbers, ROUNDING, close, equal, everywhere};
use crate::support::job::Job;

#[test]
fn warps_that_hand_over() {
    let n = 7usize;
    let x: Vec<i32> = (0..32 * n as i32).map(|i| i * i - 1000).collect();
    let mut job = Job::new();
    let (of_x, out) = (job.buffer(&x), job.output::<i32>(x.len()));
    job.launch("hand_over", 1, 64, args![of_x, out, n as i32]);
    let want: Vec<i32> = x.chunks(32).flat_map(|row| row.iter().rev().map(|v| 2 * v)).collect();
    everywhere("arrivals.cu", &job, |outcome| equal("out", &outcome.values::<i32>(out), &want));
}

#[test]
fn copies_that_arrive_at_a_barrier() {
    let x: Vec<i32> = (0..1024).map(|i| 7 * i).collect();
    let mut job = Job::new();
    let (of_x, out) = (job.buffer(&x), job.output::<i32>(x.len()));
    job.launch("tiles", 1, 64, args![of_x, out, 1024i32]);
    let want: Vec<i32> = x.chunks(256).flat_map(|tile| tile.iter().rev().map(|v| v + 1)).collect();
    everywhere("arrivals.cu", &job, |outcome| equal("out", &outcome.values::<i32>(out), &want));
}

#[test]
fn one_thread_copies_for_itself() {
    let x: Vec<f32> = (0..5 * 64).map(|i| (i % 17) as f32 - 8.0).collect();
    let mut job = Job::new();
    let (of_x, sum) = (job.buffer(&x), job.output::<f32>(1));
    job.launch("alone", 1, 32, args![of_x, sum, 5i32]);
    // Whole numbers: no sum is rounded.
    everywhere("arrivals.cu", &job, |outcome| equal("sum", &outcome.values::<f32>(sum), &[x.iter().sum::<f32>()]));
}

#[test]
fn stages_with_several_consumers() {
    let n = 5usize;
    // Whole numbers: no sum is rounded.
    let x: Vec<f32> = (0..64 * n).map(|i| (i * 37 % 101) as f32).collect();
    let mut job = Job::new();
    let (of_x, stages) = (job.buffer(&x), job.output::<f32>(2 * 64));
    let outputs = [job.output::<f32>(96), job.output::<f32>(96)];
    job.launch("consumers", 1, 128, args![of_x, outputs[0], n as i32]);
    job.launch("consumers_apart", 1, 128, args![of_x, outputs[1], n as i32, stages]);
    everywhere("arrivals.cu", &job, |outcome| {
        for y in outputs {
            equal("y", &outcome.values::<f32>(y), &[x.iter().sum::<f32>(); 96]);
        }
    });
}

#[test]
fn threads_that_leave_a_barrier_for_good() {
    let mut job = Job::new();
    let (count, out, squares) = (job.output::<i32>(1), job.output::<i32>(4 * 96), job.output::<i32>(32));
    job.launch("leave", 1, 128, args![count]);
    job.launch("follow", 1, 96, args![out, 4i32]);
    job.launch("twice", 1, 32, args![squares]);
    everywhere("arrivals.cu", &job, |outcome| {
        equal("count", &outcome.values::<i32>(count), &[32 * (1 + 2 + 3 + 4)]);
        equal("out", &outcome.values::<i32>(out), &(0..4 * 96).map(|i| i / 96 + 1).collect::<Vec<i32>>());
        equal("squares", &outcome.values::<i32>(squares), &(0..32).map(|i| i % 4 * (i % 4)).collect::<Vec<i32>>());
    });
}

#[test]
fn stages_of_a_pipeline() {
    let x = Numbers::new(1).units(7 * 128);
    let mut job = Job::new();
    let (of_x, staged, roles) = (job.buffer(&x), job.output::<f32>(x.len()), job.output::<f32>(x.len()));
    job.launch("staged", 1, 64, args![of_x, staged, 7i32]);
    job.launch("roles", 1, 64, args![of_x, roles, 14i32]);
    let reversed = |length: usize, f: fn(f32) -> f32| -> Vec<f32> {
        x.chunks(length).flat_map(|part| part.iter().rev().map(|v| f(*v))).collect()
    };
    everywhere("stages.cu", &job, |outcome| {
        equal("staged", &outcome.values::<f32>(staged), &reversed(128, |v| 2.0 * v));
        equal("roles", &outcome.values::<f32>(roles), &reversed(64, |v| v + 1.0));
    });
}

#[test]
fn levels_of_a_graph() {
    let nodes = 150usize;
    let mut numbers = Numbers::new(2);
    let neighbours: Vec<Vec<i32>> =
        (0..nodes).map(|_| (0..1 + numbers.below(2)).map(|_| numbers.below(nodes as u64) as i32).collect()).collect();
    let mut start = vec![0i32];
    for list in &neighbours {
        start.push(start[start.len() - 1] + list.len() as i32);
    }
    let mut want = vec![-1i32; nodes];
    want[0] = 0;
    for level in 0..nodes as i32 {
        for node in (0..nodes).filter(|node| want[*node] == level).collect::<Vec<usize>>() {
            for next in &neighbours[node] {
                if want[*next as usize] == -1 {
                    want[*next as usize] = level + 1;
                }
            }
        }
    }
    assert!(want.iter().any(|level| *level > 3), "the graph must be deep enough to say something");
    let mut job = Job::new();
    let (of_start, edges) = (job.buffer(&start), job.buffer(&neighbours.concat()));
    let (level, queue) = (job.buffer(&vec![-1i32; nodes]), job.buffer(&vec![0i32; nodes]));
    job.launch("levels", 1, 64, args![of_start, edges, level, queue]);
    everywhere("search.cu", &job, |outcome| equal("levels", &outcome.values::<i32>(level), &want));
}

#[test]
fn a_ring_of_halves_of_words() {
    let (n, mut numbers) = (61usize, Numbers::new(5));
    let x: Vec<i16> = (0..n).map(|_| numbers.below(2001) as i16 - 1000).collect();
    let mut job = Job::new();
    let (of_x, sum) = (job.buffer(&x), job.output::<i32>(1));
    job.launch("ring", 1, 64, args![of_x, sum, n as i32]);
    let want: i32 = (1..).zip(&x).map(|(i, v)| i * i32::from(*v)).sum();
    everywhere("arrivals.cu", &job, |outcome| equal("sum", &outcome.values::<i32>(sum), &[want]));
}

#[test]
fn shared_memory_carved_by_hand() {
    let (n, blocks, bins) = (300usize, 4usize, 10usize);
    let x = Numbers::new(3).units(n * blocks);
    let mut job = Job::new();
    let (of_x, moments) = (job.buffer(&x), job.output::<f64>(2 * blocks));
    let (near_end, histogram) = (job.output::<i32>(blocks), job.buffer(&vec![0i32; bins]));
    let args = args![n as i32, of_x, moments, near_end, histogram, bins as i32];
    // Flags of 99 bytes, counts from 100 on, partial sums from 144 on.
    job.launch("statistics", blocks as u32, 96, args).shared = 144 + 3 * 16;
    let mut counts = vec![0i32; bins];
    x.iter().for_each(|v| counts[(((v + 1.0) * bins as f32 / 2.0) as usize).min(bins - 1)] += 1);
    let of_block = |part: &[f32]| {
        let mean = part.iter().map(|&v| f64::from(v)).sum::<f64>() / n as f64;
        [mean, part.iter().map(|&v| f64::from(v) * f64::from(v)).sum::<f64>() / n as f64 - mean * mean]
    };
    let want: Vec<f64> = x.chunks(n).flat_map(of_block).collect();
    everywhere("carve.cu", &job, |outcome| {
        equal("histogram", &outcome.values::<i32>(histogram), &counts);
        let ends = x.chunks(n).map(|part| i32::from(part.iter().any(|&v| v > 0.9)));
        equal("near_end", &outcome.values::<i32>(near_end), &ends.collect::<Vec<i32>>());
        for (got, want) in outcome.values::<f64>(moments).iter().zip(&want) {
            // Some hundred roundings of numbers below one.
            assert!((got - want).abs() < 1e-13, "{got} {want}");
        }
    });
}

#[test]
fn the_largest_by_cub() {
    let (rows, n, k) = (3usize, 500usize, 10usize);
    let x = Numbers::new(4).units(rows * n);
    let mut job = Job::new();
    let (of_x, share, place) = (job.buffer(&x), job.output::<f32>(rows * k), job.output::<i32>(rows * k));
    job.launch("largest", rows as u32, 128, args![n as i32, k as i32, of_x, share, place]);
    let (mut shares, mut places) = (Vec::new(), Vec::new());
    for row in x.chunks(n) {
        let mut order: Vec<usize> = (0..n).collect();
        order.sort_by(|a, b| row[*b].total_cmp(&row[*a]));
        let weights: Vec<f64> = order[..k].iter().map(|i| f64::from(row[*i]).exp()).collect();
        let total: f64 = weights.iter().sum();
        shares.extend(weights.iter().map(|weight| weight / total));
        places.extend(order[..k].iter().map(|i| *i as i32));
    }
    everywhere("largest.cu", &job, |outcome| {
        equal("where", &outcome.values::<i32>(place), &places);
        // expf is good to 2 units in the last place; ten are added, and one division.
        close("share", &outcome.values::<f32>(share), &shares, |i| 20.0 * ROUNDING * shares[i]);
    });
}
