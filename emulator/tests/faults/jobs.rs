//! What the kernels with faults are given: small, and with sizes that are no multiples of anything.

use crate::args;
use crate::support::job::{Arg, Job};

/// Numbers from -1 to 1 without a pattern.
fn units(n: usize) -> Vec<f32> {
    (0..n as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 8) as f32 / (1 << 23) as f32 - 1.0).collect()
}

fn words(n: usize) -> Vec<i32> {
    (0..n as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 20) as i32).collect()
}

pub fn vector() -> Job {
    let mut job = Job::new();
    let n = 510;
    let (x, y) = (job.buffer(&units(n)), job.buffer(&units(n)[..].iter().rev().copied().collect::<Vec<f32>>()));
    job.launch("saxpy", 3, 64, args![n as i32, 0.5f32, x, y]);
    job.launch("scale_by_four", 2, 128, args![n as i32, 0.5f32, x, y]);
    job
}

/// As `vector`, with one element less room than the count says.
pub fn vector_short() -> Job {
    let mut job = vector();
    job.buffers[1] = (509 * 4, None);
    job
}

pub fn reduce() -> Job {
    let mut job = Job::new();
    let n = 1000;
    let (x, partial, sum) = (job.buffer(&units(n)), job.output::<f32>(4), job.output::<f32>(1));
    job.launch("block_sums", 4, 256, args![n as i32, x, partial]);
    job.launch("shuffle_sums", 4, 256, args![n as i32, x, partial]);
    job.launch("sum_last_block", 4, 256, args![n as i32, x, partial, sum]);
    job
}

pub fn scan() -> Job {
    let mut job = Job::new();
    let n = 300;
    let x = job.buffer(&words(n));
    let (state, next, y) = (job.buffer(&[0u64; 5]), job.buffer(&[0u32]), job.output::<i32>(n));
    job.launch("scan_block", 1, 128, args![100i32, x, y]).shared = 2 * 128 * 4;
    job.launch("scan_look_back", 5, 64, args![n as i32, x, y, state, next]);
    job
}

/// As `scan`, with dynamic shared memory for one of the two buffers only.
pub fn scan_without_room() -> Job {
    let mut job = scan();
    job.steps[0].shared = 128 * 4;
    job
}

pub fn histogram() -> Job {
    let mut job = Job::new();
    let x: Vec<u8> = (0..1001).map(|i| (255 - i % 251 * (i % 2)) as u8).collect();
    let (x, counts) = (job.buffer(&x), job.buffer(&[0u32; 256]));
    job.launch("histogram_shared", 3, 96, args![1001i32, x, counts]);
    job.launch("histogram_matched", 16, 64, args![1001i32, x, counts]);
    job.launch("histogram_of_warps", 2, 128, args![1001i32, x, counts]);
    job
}

pub fn transpose() -> Job {
    let mut job = Job::new();
    let (rows, columns) = (40, 70);
    let (x, y) = (job.buffer(&units(rows * columns)), job.output::<f32>(rows * columns));
    job.launch("transpose", (3, 2), (32, 8), args![rows as i32, columns as i32, x, y]);
    let square = job.buffer(&(0..40 * 40).map(f64::from).collect::<Vec<f64>>());
    job.launch("transpose_in_place", (3, 3), (16, 16), args![40i32, square]);
    job
}

/// The kernel alone, so that its result is the last buffer.
pub fn transpose_alone() -> Job {
    let mut job = transpose();
    job.buffers.pop();
    job.steps.pop();
    job
}

pub fn sgemm() -> Job {
    let mut job = Job::new();
    let (m, n, k) = (20, 18, 40);
    let (a, b, c) = (job.buffer(&units(m * k)), job.buffer(&units(k * n)), job.output::<f32>(m * n));
    job.launch("sgemm_tiled", (2, 2), (16, 16), args![m as i32, n as i32, k as i32, a, b, c]);
    job
}

pub fn sgemm_blocked() -> Job {
    let mut job = Job::new();
    let (m, n, k) = (70, 64, 32);
    let (a, b, c) = (job.buffer(&units(m * k)), job.buffer(&units(k * n)), job.output::<f32>(m * n));
    job.launch("sgemm_blocked", (1, 2), 256, args![m as i32, n as i32, k as i32, a, b, c]);
    job
}

pub fn hgemm() -> Job {
    let mut job = Job::new();
    let (m, n, k) = (70, 66, 160);
    let narrow = |v: Vec<f32>| v.into_iter().map(half::bf16::from_f32).collect::<Vec<_>>();
    let (a, b) = (job.buffer(&narrow(units(m * k))), job.buffer(&narrow(units(n * k))));
    let c = job.output::<f32>(m * n);
    job.launch("hgemm", (2, 2), 128, args![m as i32, n as i32, k as i32, a, b, c]);
    job
}

pub fn softmax() -> Job {
    let mut job = Job::new();
    let (x, y) = (job.buffer(&units(5 * 47)), job.output::<f32>(5 * 47));
    job.launch("softmax_warp", 2, 96, args![5i32, 47i32, x, y]);
    job.launch("softmax_block", 5, 96, args![47i32, x, y]);
    job
}

pub fn layernorm() -> Job {
    let mut job = Job::new();
    let (rows, columns) = (9usize, 70usize);
    let x = job.buffer(&units(rows * columns));
    let (gain, mean, rstd) =
        (job.buffer(&units(columns)), job.buffer(&vec![0.1f32; rows]), job.buffer(&vec![1.5f32; rows]));
    let (dx, partial) = (job.output::<f32>(rows * columns), job.output::<f32>(3 * 2 * columns));
    let arguments = args![rows as i32, columns as i32, x, gain, mean, rstd, x, dx, partial];
    job.launch("layernorm_backward", 3, 128, arguments).shared = (2 * columns * 4) as u32;
    job
}

pub fn layernorm_gather() -> Job {
    let mut job = Job::new();
    let partial = job.buffer(&units(3 * 2 * 70));
    let (dgain, dbias) = (job.output::<f32>(70), job.output::<f32>(70));
    job.launch("layernorm_gather", 3, 32, args![3i32, 70i32, partial, dgain, dbias]);
    job
}

pub fn compact() -> Job {
    let mut job = Job::new();
    let x = job.buffer(&words(300));
    let (kept, count) = (job.output::<i32>(300), job.buffer(&[0i32]));
    job.launch("compact", 3, 128, args![300i32, 2000i32, x, kept, count]);
    job.launch("compact_block", 1, 256, args![250i32, 2000i32, x, kept, count]);
    job
}

pub fn language() -> Job {
    let mut job = Job::new();
    let bytes: Vec<u8> = (0..32 * 32).map(|i| (i * 37 % 251) as u8).collect();
    let (from, to) = (job.buffer(&bytes), job.buffer(&[0u8; 32 * 32]));
    job.launch("structures", 1, 32, args![from, to]);
    job
}

pub fn divergence() -> Job {
    let mut job = Job::new();
    let start = job.buffer(&(1..=70).collect::<Vec<u32>>());
    let (steps, peak) = (job.output::<u32>(70), job.output::<u32>(70));
    job.launch("collatz", 2, 64, args![70i32, start, steps, peak]);
    let (turn, order) = (job.buffer(&[0i32]), job.output::<i32>(32));
    job.launch("take_turns", 1, 32, args![turn, order]);
    job
}

pub fn local() -> Job {
    let mut job = Job::new();
    let (x, y) = (job.buffer(&words(70 * 24)), job.output::<i32>(70 * 24));
    job.launch("sort_rows", 3, 32, args![70i32, x, y]);
    job.variable("coefficients", &[0.5f32, -1.0, 0.25, 3.0, -0.125, 1.5, 0.75, -2.0]);
    let (points, values) = (job.buffer(&units(96)), job.output::<f32>(96));
    job.launch("polynomial", 3, 32, args![96i32, 7i32, points, values]);
    job
}

/// As `local`, with a degree for which there is no coefficient.
pub fn local_degree() -> Job {
    let mut job = local();
    job.steps[1].args[1] = Arg::from(8i32);
    job
}

pub fn bitonic() -> Job {
    let mut job = Job::new();
    let values = job.buffer(&(0..1024).collect::<Vec<u32>>());
    let keys = job.buffer(&words(1024));
    job.launch("bitonic_sort", 1, 512, args![keys, values]);
    job
}

pub fn stencil() -> Job {
    let mut job = Job::new();
    let (u, v) = (job.buffer(&units(20 * 33)), job.output::<f32>(20 * 33));
    job.launch("diffuse", (3, 2), (16, 16), args![20i32, 33i32, 0.2f32, u, v]);
    let (x, w, y) = (job.buffer(&units(150)), job.buffer(&units(4)), job.output::<f32>(150));
    job.launch("causal_convolution", 3, 64, args![150i32, 4i32, 9i32, x, w, y]).shared = (64 + 27) * 4;
    job
}

/// As `stencil`, with one word too little of dynamic shared memory.
pub fn stencil_without_room() -> Job {
    let mut job = stencil();
    job.steps[1].shared -= 4;
    job
}

pub fn pipeline() -> Job {
    let mut job = Job::new();
    let (x, y) = (job.buffer(&units(2 * 5 * 512)), job.output::<f32>(256));
    job.launch("squares", 2, 128, args![5i32, x, y]);
    let (items, handed) = (job.buffer(&words(7 * 32)), job.output::<i32>(7 * 32));
    job.launch("hand_over", 1, 64, args![7i32, items, handed]);
    job
}

pub fn arrivals() -> Job {
    let mut job = Job::new();
    let (items, handed) = (job.buffer(&words(7 * 32)), job.output::<i32>(7 * 32));
    job.launch("hand_over", 1, 64, args![items, handed, 7i32]);
    let (x, y) = (job.buffer(&words(512)), job.output::<i32>(512));
    job.launch("tiles", 1, 64, args![x, y, 512i32]);
    let (parts, sum) = (job.buffer(&units(3 * 64)), job.output::<f32>(1));
    job.launch("alone", 1, 32, args![parts, sum, 3i32]);
    let (x, y) = (job.buffer(&units(5 * 64)), job.output::<f32>(96));
    job.launch("consumers", 1, 128, args![x, y, 5i32]);
    let stages = job.output::<f32>(2 * 64);
    job.launch("consumers_apart", 1, 128, args![x, y, 5i32, stages]);
    let (x, sum) = (job.buffer(&(0..29).collect::<Vec<i16>>()), job.output::<i32>(1));
    job.launch("ring", 1, 64, args![x, sum, 29i32]);
    job
}

pub fn turns() -> Job {
    let mut job = Job::new();
    let (turn, x, sum) = (job.buffer(&[0i32]), job.buffer(&units(4 * 64)), job.output::<f32>(64));
    job.launch("add_in_turn", 4, 64, args![turn, x, sum]);
    let (x, y, state) = (job.buffer(&words(300)), job.output::<i32>(300), job.buffer(&[0i32; 5]));
    let (of_tile, up_to_tile) = (job.output::<i32>(5), job.output::<i32>(5));
    job.launch("look_back", 5, 64, args![300i32, x, y, state, of_tile, up_to_tile]);
    job
}

pub fn stages() -> Job {
    let mut job = Job::new();
    let (x, y) = (job.buffer(&units(5 * 128)), job.output::<f32>(5 * 128));
    job.launch("staged", 1, 64, args![x, y, 5i32]);
    job
}

pub fn locks() -> Job {
    let mut job = Job::new();
    let (x, total, visits) = (job.buffer(&words(256)), job.buffer(&[0i64]), job.buffer(&[0i32]));
    job.launch("sum_under_lock", 4, 64, args![x, total, visits]);
    let (data, flag, copies) = (job.output::<i32>(100), job.buffer(&[0i32]), job.output::<i32>(300));
    job.launch("publish", 4, 64, args![100i32, data, flag, copies]);
    job
}

/// Blocks of one warp, of which one lane signals for the others.
pub fn locks_of_warps() -> Job {
    let mut job = Job::new();
    let (data, flag, copies) = (job.output::<i32>(32), job.buffer(&[0i32]), job.output::<i32>(96));
    job.launch("publish", 4, 32, args![32i32, data, flag, copies]);
    job
}

pub fn grid_sync() -> Job {
    let mut job = Job::new();
    let (u, v) = (job.buffer(&units(300)), job.output::<f32>(300));
    job.launch("jacobi", 4, 64, args![300i32, 9i32, u, v]).cooperative = true;
    job
}

/// As `grid_sync`, launched like any kernel.
pub fn grid_not_cooperative() -> Job {
    let mut job = grid_sync();
    job.steps[0].cooperative = false;
    job
}

pub fn atomics() -> Job {
    let mut job = Job::new();
    let (x, s) = (job.buffer(&words(384)), job.buffer(&[0i32; 8]));
    let (u, w) = (job.buffer(&[0u32; 7]), job.buffer(&[0u64; 4]));
    job.launch("atomic_integers", 4, 96, args![x, s, u, w]);
    job
}

pub fn network() -> Job {
    let mut job = Job::new();
    let (logits, target) = (job.buffer(&units(3 * 200)), job.buffer(&[0i32, 150, 199]));
    let (loss, gradient) = (job.output::<f32>(3), job.output::<f32>(3 * 200));
    job.launch("cross_entropy", 3, 128, args![200i32, logits, target, loss, gradient]);
    job
}

/// Attention with heads of a width.
fn attention_of(width: usize) -> Job {
    let mut job = Job::new();
    let size = 37 * width;
    let (q, k, v, y) =
        (job.buffer(&units(size)), job.buffer(&units(size)), job.buffer(&units(size)), job.output::<f32>(size));
    job.launch("causal_attention", 1, 64, args![37i32, width as i32, q, k, v, y]).shared = (2 * size * 4) as u32;
    job
}

pub fn attention() -> Job {
    attention_of(8)
}

/// A head wider than the array that gathers its sums.
pub fn attention_too_wide() -> Job {
    attention_of(33)
}

pub fn nbody() -> Job {
    let mut job = Job::new();
    let (bodies, accelerations) = (job.buffer(&units(4 * 100)), job.output::<f32>(3 * 100));
    job.launch("accelerations", 2, 64, args![100i32, 0.01f32, bodies, accelerations]);
    job
}

pub fn exchange() -> Job {
    let mut job = Job::new();
    let (x, sums, counts) = (job.buffer(&units(192)), job.output::<f32>(3), job.output::<i32>(192));
    job.launch("sum_by_exchange", 3, 64, args![x, sums]);
    job.launch("count_by_exchange", 2, 96, args![0i32, counts]);
    let (flag, data, y) = (job.buffer(&[0i32]), job.output::<i32>(64), job.output::<i32>(64));
    job.launch("wait_by_hints", 2, 64, args![flag, data, y]);
    job
}

pub fn fragments() -> Job {
    let mut job = Job::new();
    let x = job.buffer(&(0..256).map(|i| i as u16).collect::<Vec<u16>>());
    let [plain, turned, moved] = [128, 128, 32].map(|n| job.output::<u32>(n));
    job.launch("load_fragments", 1, 32, args![x, plain, turned, moved]);
    job
}
