//! Matrices: products in every style, transposition, fragments.

use half::{bf16, f16};

use crate::args;
use crate::check::{Numbers, ROUNDING, close, equal, everywhere};
use crate::support::job::Job;

/// `A B` in double, with the sum of the magnitudes for the bound. `b` gives the element of a row and a column.
fn product(
    m: usize,
    n: usize,
    k: usize,
    a: impl Fn(usize, usize) -> f64,
    b: impl Fn(usize, usize) -> f64,
) -> (Vec<f64>, Vec<f64>) {
    let of = |f: &dyn Fn(f64) -> f64| -> Vec<f64> {
        (0..m * n).map(|i| (0..k).map(|j| f(a(i / n, j) * b(j, i % n))).sum()).collect()
    };
    (of(&|v| v), of(&f64::abs))
}

#[test]
fn tiled_in_single_precision() {
    for (m, n, k) in [(1usize, 1usize, 1usize), (16, 16, 16), (17, 33, 15), (40, 20, 50)] {
        let mut numbers = Numbers::new(1);
        let (a, b) = (numbers.units(m * k), numbers.units(k * n));
        let mut job = Job::new();
        let (of_a, of_b, of_c) = (job.buffer(&a), job.buffer(&b), job.output::<f32>(m * n));
        let grid = ((n as u32).div_ceil(16), (m as u32).div_ceil(16));
        job.launch("sgemm_tiled", grid, (16, 16), args![m as i32, n as i32, k as i32, of_a, of_b, of_c]);
        let (want, size) = product(m, n, k, |i, j| a[i * k + j].into(), |i, j| b[i * n + j].into());
        everywhere("sgemm.cu", &job, |outcome| {
            close("c", &outcome.values::<f32>(of_c), &want, |i| (k + 1) as f64 * ROUNDING * size[i]);
        });
    }
}

#[test]
fn blocked_in_single_precision() {
    for (m, n, k) in [(64usize, 64usize, 16usize), (100, 128, 48)] {
        let mut numbers = Numbers::new(2);
        let (a, b) = (numbers.units(m * k), numbers.units(k * n));
        let mut job = Job::new();
        let (of_a, of_b, of_c) = (job.buffer(&a), job.buffer(&b), job.output::<f32>(m * n));
        job.launch(
            "sgemm_blocked",
            (n as u32 / 64, (m as u32).div_ceil(64)),
            256,
            args![m as i32, n as i32, k as i32, of_a, of_b, of_c],
        );
        let (want, size) = product(m, n, k, |i, j| a[i * k + j].into(), |i, j| b[i * n + j].into());
        everywhere("sgemm.cu", &job, |outcome| {
            close("c", &outcome.values::<f32>(of_c), &want, |i| (k + 1) as f64 * ROUNDING * size[i]);
        });
    }
}

#[test]
fn pipelined_in_bfloat() {
    for (m, n, k) in [(64usize, 64usize, 32usize), (1, 1, 64), (65, 70, 160), (128, 100, 96)] {
        let mut numbers = Numbers::new(3);
        let a: Vec<bf16> = (0..m * k).map(|_| bf16::from_f32(numbers.unit())).collect();
        let b: Vec<bf16> = (0..n * k).map(|_| bf16::from_f32(numbers.unit())).collect();
        let mut job = Job::new();
        let (of_a, of_b, of_c) = (job.buffer(&a), job.buffer(&b), job.output::<f32>(m * n));
        let grid = ((n as u32).div_ceil(64), (m as u32).div_ceil(64));
        job.launch("hgemm", grid, 128, args![m as i32, n as i32, k as i32, of_a, of_b, of_c]);
        let (want, size) = product(m, n, k, |i, j| a[i * k + j].to_f64(), |i, j| b[j * k + i].to_f64());
        everywhere("hgemm.cu", &job, |outcome| {
            // Tensor cores may cut bits off each addend, twice what rounding would.
            close("c", &outcome.values::<f32>(of_c), &want, |i| 2.0 * (k + 1) as f64 * ROUNDING * size[i]);
        });
    }
}

#[test]
fn warp_matrix_functions() {
    let (m, n, k) = (32usize, 64usize, 48usize);
    let mut numbers = Numbers::new(4);
    let a: Vec<f16> = (0..m * k).map(|_| f16::from_f32(numbers.unit())).collect();
    let b: Vec<f16> = (0..n * k).map(|_| f16::from_f32(numbers.unit())).collect();
    let mut job = Job::new();
    let (of_a, of_b, of_c) = (job.buffer(&a), job.buffer(&b), job.output::<f32>(m * n));
    job.launch("wmma_product", (2, 2), 64, args![m as i32, n as i32, k as i32, of_a, of_b, of_c]);
    let (want, size) = product(m, n, k, |i, j| a[i * k + j].to_f64(), |i, j| b[i * n + j].to_f64());
    everywhere("wmma.cu", &job, |outcome| {
        close("c", &outcome.values::<f32>(of_c), &want, |i| 2.0 * (k + 1) as f64 * ROUNDING * size[i]);
    });
}

#[test]
fn transposition() {
    for (rows, columns) in [(1usize, 1usize), (32, 32), (33, 70), (64, 31)] {
        let x = Numbers::new(5).units(rows * columns);
        let mut job = Job::new();
        let (of_x, of_y) = (job.buffer(&x), job.output::<f32>(rows * columns));
        let grid = ((columns as u32).div_ceil(32), (rows as u32).div_ceil(32));
        job.launch("transpose", grid, (32, 8), args![rows as i32, columns as i32, of_x, of_y]);
        let want: Vec<f32> = (0..rows * columns).map(|i| x[i % rows * columns + i / rows]).collect();
        everywhere("transpose.cu", &job, |outcome| equal("y", &outcome.values::<f32>(of_y), &want));
    }
    for n in [7usize, 16, 40] {
        let x: Vec<f64> = Numbers::new(6).units(n * n).into_iter().map(f64::from).collect();
        let mut job = Job::new();
        let of_x = job.buffer(&x);
        let blocks = (n as u32).div_ceil(16);
        job.launch("transpose_in_place", (blocks, blocks), (16, 16), args![n as i32, of_x]);
        let want: Vec<f64> = (0..n * n).map(|i| x[i % n * n + i / n]).collect();
        everywhere("transpose.cu", &job, |outcome| equal("x", &outcome.values::<f64>(of_x), &want));
    }
}

#[test]
fn fragments() {
    let x: Vec<u16> = (0..256).collect();
    let mut job = Job::new();
    let (of_x, plain) = (job.buffer(&x), job.output::<u16>(256));
    let (turned, moved) = (job.output::<u16>(256), job.output::<u16>(64));
    job.launch("load_fragments", 1, 32, args![of_x, plain, turned, moved]);
    // Lane `l`, register `r`: rows 0-7 and 8-15 of the left half, then of the right; two neighbours of a row.
    let place = |i: usize, transposed: bool| {
        let (lane, register, half) = (i / 8, i / 2 % 4, i % 2);
        let (row, column) = if transposed { (lane % 4 * 2 + half, lane / 4) } else { (lane / 4, lane % 4 * 2 + half) };
        x[(row + register % 2 * 8) * 16 + column + register / 2 * 8]
    };
    let mut numbers = Numbers::new(7);
    let (a, b) = (numbers.units(16 * 8), numbers.units(8 * 8));
    let (of_a, of_b, of_d) = (job.buffer(&a), job.buffer(&b), job.output::<f32>(16 * 8));
    job.launch("product_tf32", 1, 32, args![of_a, of_b, of_d]);
    // Ten bits of fraction, the nearest, ties away from zero.
    let narrow = |v: f32| f64::from(f32::from_bits((v.to_bits() + 0x1000) & 0xffff_e000));
    let (want, size) = product(16, 8, 8, |i, j| narrow(a[i * 8 + j]), |i, j| narrow(b[i * 8 + j]));
    everywhere("fragments.cu", &job, |outcome| {
        equal("plain", &outcome.values::<u16>(plain), &(0..256).map(|i| place(i, false)).collect::<Vec<_>>());
        equal("turned", &outcome.values::<u16>(turned), &(0..256).map(|i| place(i, true)).collect::<Vec<_>>());
        let of_first = |i: usize| x[(i / 2 % 4 * 2 + i % 2) * 16 + i / 8];
        equal("moved", &outcome.values::<u16>(moved), &(0..64).map(of_first).collect::<Vec<_>>());
        close("tf32", &outcome.values::<f32>(of_d), &want, |i| 2.0 * 9.0 * ROUNDING * size[i]);
    });
}
