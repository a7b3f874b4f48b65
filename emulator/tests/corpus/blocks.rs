//! Kernels whose threads work together: sums, scans, histograms, sorting, atomics, locks, pipelines.

use crate::args;
use crate::check::{Numbers, ROUNDING, close, equal, everywhere};
use crate::support::job::Job;

/// What `n` additions in any order may be off by.
fn sum_bound(x: &[f32]) -> f64 {
    x.len() as f64 * ROUNDING * x.iter().map(|x| f64::from(x.abs())).sum::<f64>()
}

fn sum(x: &[f32]) -> f64 {
    x.iter().copied().map(f64::from).sum()
}

#[test]
fn sums_of_blocks() {
    for n in [1usize, 255, 256, 1000] {
        let x = Numbers::new(1).units(n);
        let blocks = n.div_ceil(256);
        let mut job = Job::new();
        let (of_x, tree, shuffled) = (job.buffer(&x), job.output::<f32>(blocks), job.output::<f32>(blocks));
        job.launch("block_sums", blocks as u32, 256, args![n as i32, of_x, tree]);
        job.launch("shuffle_sums", blocks as u32, 256, args![n as i32, of_x, shuffled]);
        let parts: Vec<&[f32]> = x.chunks(256).collect();
        let want: Vec<f64> = parts.iter().map(|part| sum(part)).collect();
        everywhere("reduce.cu", &job, |outcome| {
            close("tree", &outcome.values::<f32>(tree), &want, |i| sum_bound(parts[i]));
            close("shuffles", &outcome.values::<f32>(shuffled), &want, |i| sum_bound(parts[i]));
        });
    }
}

#[test]
fn sum_by_the_last_block() {
    let n = 1900;
    let x = Numbers::new(2).units(n);
    let mut job = Job::new();
    let (of_x, partial, total) = (job.buffer(&x), job.output::<f32>(15), job.output::<f32>(1));
    // Twice, for the counter must be as it was.
    for _ in 0..2 {
        job.launch("sum_last_block", 15, 128, args![n as i32, of_x, partial, total]);
    }
    everywhere("reduce.cu", &job, |outcome| {
        close("total", &outcome.values::<f32>(total), &[sum(&x)], |_| sum_bound(&x));
    });
}

#[test]
fn largest_and_where() {
    for x in [Numbers::new(3).units(777), vec![-3.5, -1.25, -1.25, -9.0], vec![0.0]] {
        let mut job = Job::new();
        let (of_x, best) = (job.buffer(&x), job.buffer(&[0u64]));
        job.launch("arg_max", (x.len() as u32).div_ceil(64), 64, args![x.len() as i32, of_x, best]);
        let largest = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let first = x.iter().position(|&v| v == largest).expect("it is one of them");
        everywhere("reduce.cu", &job, |outcome| {
            let found = u32::MAX - outcome.values::<u64>(best)[0] as u32;
            assert_eq!(found as usize, first);
        });
    }
}

fn running(x: &[i32]) -> Vec<i32> {
    x.iter()
        .scan(0i32, |sum, &v| {
            *sum = sum.wrapping_add(v);
            Some(*sum)
        })
        .collect()
}

#[test]
fn scans() {
    let mut numbers = Numbers::new(4);
    let x: Vec<i32> = (0..1000).map(|_| numbers.below(200) as i32 - 100).collect();
    for n in [1usize, 33, 128] {
        let mut job = Job::new();
        let (of_x, of_y) = (job.buffer(&x[..n]), job.output::<i32>(n));
        job.launch("scan_block", 1, 128, args![n as i32, of_x, of_y]).shared = 2 * 128 * 4;
        everywhere("scan.cu", &job, |outcome| equal("y", &outcome.values::<i32>(of_y), &running(&x[..n])));
    }
    for n in [5usize, 64, 1000] {
        let tiles = n.div_ceil(64);
        let mut job = Job::new();
        let (of_x, of_y) = (job.buffer(&x[..n]), job.output::<i32>(n));
        let (state, next) = (job.buffer(&vec![0u64; tiles]), job.buffer(&[0u32]));
        job.launch("scan_look_back", tiles as u32, 64, args![n as i32, of_x, of_y, state, next]);
        everywhere("scan.cu", &job, |outcome| equal("y", &outcome.values::<i32>(of_y), &running(&x[..n])));
    }
}

#[test]
fn histograms() {
    let mut numbers = Numbers::new(5);
    let x: Vec<u8> = (0..3001).map(|_| (numbers.below(16) * numbers.below(16)) as u8).collect();
    let mut want = vec![0u32; 256];
    x.iter().for_each(|&v| want[usize::from(v)] += 1);
    let mut job = Job::new();
    let of_x = job.buffer(&x);
    let [shared, matched, of_warps] = [0; 3].map(|_| job.buffer(&[0u32; 256]));
    job.launch("histogram_shared", 4, 96, args![x.len() as i32, of_x, shared]);
    job.launch("histogram_matched", 47, 64, args![x.len() as i32, of_x, matched]);
    job.launch("histogram_of_warps", 3, 128, args![x.len() as i32, of_x, of_warps]);
    everywhere("histogram.cu", &job, |outcome| {
        equal("shared", &outcome.values::<u32>(shared), &want);
        equal("of warps", &outcome.values::<u32>(of_warps), &want);
        equal("matched", &outcome.values::<u32>(matched), &want);
    });
}

#[test]
fn compaction() {
    let mut numbers = Numbers::new(6);
    let x: Vec<i32> = (0..1000).map(|_| numbers.below(1000) as i32).collect();
    let mut job = Job::new();
    let (of_x, kept, count) = (job.buffer(&x), job.buffer(&vec![-1i32; x.len()]), job.buffer(&[0i32]));
    job.launch("compact", 8, 128, args![x.len() as i32, 600i32, of_x, kept, count]);
    let (in_order, of_block) = (job.buffer(&vec![-1i32; 200]), job.output::<i32>(1));
    job.launch("compact_block", 1, 256, args![200i32, 600i32, of_x, in_order, of_block]);
    let mut want: Vec<i32> = x.iter().copied().filter(|&v| v > 600).collect();
    let first: Vec<i32> = x[..200].iter().copied().filter(|&v| v > 600).collect();
    want.sort_unstable();
    everywhere("compact.cu", &job, |outcome| {
        let count = outcome.values::<i32>(count)[0] as usize;
        let mut got = outcome.values::<i32>(kept)[..count].to_vec();
        got.sort_unstable();
        equal("kept", &got, &want);
        assert_eq!(outcome.values::<i32>(of_block)[0] as usize, first.len());
        equal("in order", &outcome.values::<i32>(in_order)[..first.len()], &first);
    });
}

#[test]
fn bitonic_sort() {
    let mut numbers = Numbers::new(7);
    let keys: Vec<u32> = (0..1024).map(|_| numbers.word() as u32).collect();
    let values: Vec<u32> = (0..1024).collect();
    let mut job = Job::new();
    let (of_keys, of_values) = (job.buffer(&keys), job.buffer(&values));
    job.launch("bitonic_sort", 1, 512, args![of_keys, of_values]);
    let mut want: Vec<(u32, u32)> = keys.into_iter().zip(values).collect();
    want.sort_unstable();
    everywhere("bitonic.cu", &job, |outcome| {
        let got: Vec<(u32, u32)> =
            outcome.values::<u32>(of_keys).into_iter().zip(outcome.values::<u32>(of_values)).collect();
        equal("pairs", &got, &want);
    });
}

#[test]
fn atomics_on_integers() {
    let mut numbers = Numbers::new(8);
    let x: Vec<i32> = (0..384).map(|_| numbers.word() as i32).collect();
    let mut job = Job::new();
    let (s_first, u_first, w_first) =
        ([0i32, 0, i32::MAX, i32::MIN, 0, 0, 0, 0], [u32::MAX, 0, u32::MAX, 0, 0, 0, 6], [0u64, i64::MAX as u64, 0, 0]);
    let (of_x, s, u, w) = (job.buffer(&x), job.buffer(&s_first), job.buffer(&u_first), job.buffer(&w_first));
    job.launch("atomic_integers", 4, 96, args![of_x, s, u, w]);
    let total = x.iter().fold(0i32, |a, &b| a.wrapping_add(b));
    let (least, most) = (*x.iter().min().expect("some"), *x.iter().max().expect("some"));
    let bits: Vec<u32> = x.iter().map(|&v| v as u32).collect();
    let exclusive = bits.iter().fold(0, |a, b| a ^ b);
    let of_blocks: Vec<[i32; 4]> = x
        .chunks(96)
        .map(|part| {
            let add = part.iter().fold(0i32, |a, &b| a.wrapping_add(b));
            let min = *part.iter().min().expect("some");
            let max = *part.iter().max().expect("some");
            [add, min, max, part.iter().fold(0, |a, b| a ^ b)]
        })
        .collect();
    let gathered = |i: usize| of_blocks.iter().fold(0i32, |a, block| a.wrapping_add(block[i]));
    let want_s = [total, total.wrapping_neg(), least, most, gathered(0), gathered(1), gathered(2), gathered(3)];
    // Counting modulo 7 upwards from 0, and downwards from 6.
    let cycles = x.len() as u32 % 7;
    let want_u = [
        *bits.iter().min().expect("some"),
        *bits.iter().max().expect("some"),
        bits.iter().fold(u32::MAX, |a, b| a & (b | 0xff)),
        bits.iter().fold(0, |a, b| a | (b & 0xff00)),
        exclusive,
        cycles,
        (13 - cycles) % 7,
    ];
    let want_w = [
        x.iter().fold(0u64, |a, &b| a.wrapping_add(i64::from(b) as u64)),
        (i64::from(least) << 20) as u64,
        u64::from(*bits.iter().max().expect("some")) << 8,
        u64::from(exclusive) * 0x1_0000_0001,
    ];
    everywhere("atomics.cu", &job, |outcome| {
        equal("32 bits, signed", &outcome.values::<i32>(s), &want_s);
        equal("32 bits, unsigned", &outcome.values::<u32>(u), &want_u);
        equal("64 bits", &outcome.values::<u64>(w), &want_w);
    });
}

#[test]
fn atomics_on_floats() {
    let mut numbers = Numbers::new(9);
    let x: Vec<i32> = (0..256).map(|_| numbers.below(2000) as i32 - 1000).collect();
    let mut job = Job::new();
    let (of_x, f, d) = (job.buffer(&x), job.buffer(&[0.0f32, -1e9]), job.buffer(&[0.0f64]));
    let h = job.buffer(&[half::f16::ZERO; 2]);
    job.launch("atomic_floats", 4, 64, args![of_x, f, d, h]);
    everywhere("atomics.cu", &job, |outcome| {
        let largest = *x.iter().max().expect("some") as f32 * 0.25;
        equal("single", &outcome.values::<f32>(f), &[x.iter().map(|v| v % 100).sum::<i32>() as f32, largest]);
        equal("double", &outcome.values::<f64>(d), &[f64::from(x.iter().sum::<i32>())]);
        let odd = x.iter().map(|v| v & 1).sum::<i32>() as f32;
        let second = x.iter().map(|v| v >> 1 & 1).sum::<i32>() as f32;
        equal("halves", &outcome.values::<half::f16>(h).iter().map(|v| v.to_f32()).collect::<Vec<_>>(), &[odd, second]);
    });
}

#[test]
fn warp_wide_functions() {
    let mut numbers = Numbers::new(10);
    let x: Vec<i32> = (0..128).map(|i| if i < 64 { numbers.word() as i32 } else { 7 + i / 96 }).collect();
    let mut job = Job::new();
    let (of_x, of_y) = (job.buffer(&x), job.output::<i32>(8 * x.len()));
    job.launch("warp_wide", 2, 64, args![of_x, of_y]);
    let mut want = Vec::new();
    for warp in x.chunks(32) {
        for lane in 0..32usize {
            let unsigned = |v: &i32| *v as u32;
            let same = warp.iter().all(|v| v / 1_000_000 == warp[0] / 1_000_000);
            let thirds = warp.iter().filter(|&v| v % 3 == 0).count() as i32;
            want.extend([
                warp.iter().fold(0i32, |a, &b| a.wrapping_add(b)),
                *warp.iter().min().expect("32"),
                warp.iter().map(unsigned).max().expect("32") as i32,
                (warp.iter().map(unsigned).fold(0, |a, b| a ^ b))
                    .wrapping_add(warp.iter().map(unsigned).fold(0, |a, b| a | b & 15)) as i32,
                i32::from(warp.contains(&7)) + 2 * i32::from(!warp.contains(&3)),
                if same { 0u32.wrapping_sub(1).wrapping_add(1) as i32 } else { 0 },
                warp[lane ^ 5].wrapping_add(warp[lane / 16 * 16 + 3]),
                if warp[lane] % 3 == 0 { thirds } else { -1 },
            ]);
        }
    }
    everywhere("atomics.cu", &job, |outcome| {
        let got = outcome.values::<i32>(of_y);
        // How many lanes are together after a branch is left to the machine: at least one, at most all that took it.
        let free = |i: usize| i % 8 == 7 && want[i] > 0;
        for (i, (&got, &want)) in got.iter().zip(&want).enumerate() {
            assert!(if free(i) { (1..=want).contains(&got) } else { got == want }, "y [{i}]: {got}, not {want}");
        }
    });
}

#[test]
fn locks_and_flags() {
    let mut numbers = Numbers::new(11);
    let x: Vec<i32> = (0..512).map(|_| numbers.below(1000) as i32 - 500).collect();
    let mut job = Job::new();
    let (of_x, total, visits) = (job.buffer(&x), job.buffer(&[0i64]), job.buffer(&[0i32]));
    job.launch("sum_under_lock", 8, 64, args![of_x, total, visits]);
    let (data, flag, copies) = (job.output::<i32>(100), job.buffer(&[0i32]), job.output::<i32>(300));
    job.launch("publish", 4, 64, args![100i32, data, flag, copies]);
    let squares: Vec<i32> = (0..300).map(|i| (i % 100) * (i % 100)).collect();
    everywhere("locks.cu", &job, |outcome| {
        equal("total", &outcome.values::<i64>(total), &[x.iter().map(|&v| i64::from(v)).sum()]);
        equal("visits", &outcome.values::<i32>(visits), &[8]);
        equal("copies", &outcome.values::<i32>(copies), &squares);
    });
}

#[test]
fn breadth_first_search() {
    let n = 200usize;
    let mut numbers = Numbers::new(12);
    let neighbours: Vec<Vec<i32>> = (0..n).map(|_| (0..3).map(|_| numbers.below(n as u64) as i32).collect()).collect();
    let first_edge: Vec<i32> = (0..=n).map(|i| 3 * i as i32).collect();
    let mut want = vec![-1i32; n];
    want[0] = 0;
    let mut levels = vec![vec![0usize]];
    while let Some(level) = levels.last().filter(|level| !level.is_empty()) {
        let mut next = Vec::new();
        for &vertex in level {
            for &other in &neighbours[vertex] {
                if want[other as usize] == -1 {
                    want[other as usize] = levels.len() as i32;
                    next.push(other as usize);
                }
            }
        }
        levels.push(next);
    }
    let mut job = Job::new();
    let mut start = vec![-1i32; n];
    start[0] = 0;
    let (edges, first, distance) = (job.buffer(&neighbours.concat()), job.buffer(&first_edge), job.buffer(&start));
    let mut frontier = job.buffer(&[0i32]);
    // The sizes of the frontiers are known from the reference; their order is the machine's.
    for (level, members) in levels.iter().enumerate().take(levels.len() - 1) {
        let (next, size) = (job.buffer(&vec![-1i32; n]), job.buffer(&[0i32]));
        let blocks = (members.len() as u32).div_ceil(64);
        job.launch(
            "breadth_first",
            blocks,
            64,
            args![level as i32, members.len() as i32, frontier, first, edges, distance, next, size],
        );
        frontier = next;
    }
    everywhere("locks.cu", &job, |outcome| equal("distance", &outcome.values::<i32>(distance), &want));
}

#[test]
fn pipelines() {
    let (blocks, chunks) = (2usize, 5usize);
    let x = Numbers::new(13).units(blocks * chunks * 512);
    let mut job = Job::new();
    let (of_x, of_y) = (job.buffer(&x), job.output::<f32>(blocks * 128));
    job.launch("squares", blocks as u32, 128, args![chunks as i32, of_x, of_y]);
    let mut numbers = Numbers::new(14);
    let items: Vec<i32> = (0..7 * 32).map(|_| numbers.below(1000) as i32).collect();
    let (of_items, handed) = (job.buffer(&items), job.output::<i32>(items.len()));
    job.launch("hand_over", 1, 64, args![7i32, of_items, handed]);
    let squares: Vec<f64> = (0..blocks * 128)
        .map(|i| {
            let (block, t) = (i / 128, i % 128);
            let at = |c: usize, j: usize| x[block * chunks * 512 + c * 512 + (t + j * 128 + 1) % 512];
            (0..chunks).flat_map(|c| (0..4).map(move |j| (c, j))).map(|(c, j)| f64::from(at(c, j)).powi(2)).sum()
        })
        .collect();
    let want: Vec<i32> = (0..items.len()).map(|i| 3 * items[i / 32 * 32 + 31 - i % 32] + 1).collect();
    everywhere("pipeline.cu", &job, |outcome| {
        close("squares", &outcome.values::<f32>(of_y), &squares, |i| 20.0 * ROUNDING * squares[i]);
        equal("handed over", &outcome.values::<i32>(handed), &want);
    });
}
