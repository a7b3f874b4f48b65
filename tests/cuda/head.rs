//! The head with its loss.

use crate::bench::{Bench, Bits, CASES, Case, Data, GENERAL, Gradients, Kind, before, cases, judge, judge_slots, part};
use crate::gpu::assert_measures;
use crate::oracle::number::{Matrix, Number};
use crate::oracle::{Affine, head};
use crate::unfused;
use cudarc::driver::CudaSlice;
use gpt2meg::device::cuda::general::head as general;
use gpt2meg::device::cuda::head::{self as fused, Inputs, Params};
use gpt2meg::device::cuda::kernel::Pointer;
use gpt2meg::device::cuda::{Part, Shape};

/// The kernels that know the shape, with what they work in.
enum Passes {
    /// Gradients of logits, and normalised rows.
    Fused(fused::Working, [Pointer<u32>; 2]),
    General(general::Working, general::Scratch),
}

impl Passes {
    /// And the memory.
    fn new(bench: &mut Bench, shape: &Shape, n: usize, params: &Params) -> (Self, Vec<CudaSlice<u32>>) {
        let rows = n * shape.n_time;
        if shape.is_fused() {
            let (rooms, left) = bench.rooms([rows * shape.n_level.div_ceil(16) * 8, rows * shape.d_model / 2]);
            (Self::Fused(fused::Working::new(&mut bench.gpu, shape, params).unwrap(), left), rooms)
        } else {
            let (rooms, [scratch]) = bench.rooms([n * general::scratch_len(shape)]);
            let working = general::Working::new(&mut bench.gpu, shape, params).unwrap();
            (Self::General(working, general::Scratch::at(scratch, shape, n)), rooms)
        }
    }

    fn loss(
        &self,
        bench: &mut Bench,
        (shape, rows): (&Shape, (usize, usize)),
        inputs: &Inputs,
        [x, scores]: [&CudaSlice<f32>; 2],
        backward: Option<(f32, &CudaSlice<f32>)>,
    ) {
        let gpu = &mut bench.gpu;
        let (x, scores) = (gpu.address(x), gpu.address(scores));
        let backward = backward.map(|(factor, dx)| (factor, gpu.address(dx)));
        // SAFETY: everything has its size.
        let done = unsafe {
            match self {
                Self::Fused(working, [dlogits, normals]) => {
                    let (dlogits, normals) = (*dlogits, *normals);
                    let backward = backward.map(|(factor, dx)| fused::Backward { factor, dx, dlogits, normals });
                    fused::loss(gpu, shape, rows, working, inputs, x, scores, backward)
                }
                Self::General(working, scratch) => {
                    general::loss(gpu, shape, rows, working, inputs, x, scratch, scores, backward)
                }
            }
        };
        done.unwrap();
    }

    fn logits(
        &self,
        bench: &mut Bench,
        (shape, rows): (&Shape, (usize, usize)),
        channel: Pointer<u32>,
        [x, logits]: [&CudaSlice<f32>; 2],
    ) {
        let gpu = &mut bench.gpu;
        let (x, logits) = (gpu.address(x), gpu.address(logits));
        // SAFETY: everything has its size.
        let done = unsafe {
            match self {
                Self::Fused(working, _) => fused::logits(gpu, shape, rows, working, channel, x, logits),
                Self::General(working, scratch) => {
                    general::logits(gpu, shape, rows, working, channel, x, scratch, logits)
                }
            }
        };
        done.unwrap();
    }

    fn gradients(&self, bench: &mut Bench, shape: &Shape, part: &Part, both: [&Params; 2], channel: Pointer<u32>) {
        let (gpu, [params, to]) = (&mut bench.gpu, both);
        // SAFETY: everything has its size.
        let done = unsafe {
            match self {
                Self::Fused(_, [dlogits, normals]) => {
                    let (dlogits, normals) = (*dlogits, *normals);
                    let left = fused::Backward { factor: 0.0, dx: Pointer::NULL, dlogits, normals };
                    fused::gradients(gpu, shape, part, params, to, channel, &left)
                }
                Self::General(_, scratch) => general::gradients(gpu, shape, part, params, to, channel, scratch),
            }
        };
        done.unwrap();
    }
}

const CHANNELS: usize = 3;

fn try_case(number: usize, case: &Case, q: usize, per_channel: bool) {
    let Case { n, t, e, from, .. } = *case;
    let mut data = Data::new(number as u64 + 300);
    let gain = if case.kind == Kind::Extreme { 30.0 } else { 2.0 };
    let matrices = if per_channel { CHANNELS } else { 1 };
    let [norm_weight, norm_bias] = data.norm(e);
    let weight = data.floats(matrices * q * e, gain / (e as f32).sqrt());
    let parts = vec![norm_weight, norm_bias, weight];
    let (x, levels) = (data.stream(case), data.floats(q, 1.0));
    let token: Vec<u8> = (0..n * (t + 1)).map(|_| data.below(q) as u8).collect();
    let channel: Vec<u32> = (0..n).map(|_| data.below(CHANNELS) as u32).collect();
    let factor = 0.25;

    let bias = parts[1].iter().map(|&x| Number::from(x)).collect();
    let norm = Affine { weight: Matrix::exact(1, e, &parts[0]), bias };
    let (mut truths, mut unfuseds) = (Vec::new(), Vec::new());
    let mut grads = Gradients::default();
    for i in 0..n {
        let matrix = if per_channel { channel[i] as usize } else { 0 };
        let weight = &parts[2][matrix * q * e..][..q * e];
        let rows = &x[(i * t + from) * e..(i + 1) * t * e];
        let targets = &token[i * (t + 1) + from + 1..][..t - from];
        let x = Matrix::exact(t - from, e, rows);
        let truth = head(&norm, &Matrix::exact(q, e, weight), &x, targets, &levels, factor);
        let unfused = unfused::head([&parts[0], &parts[1]], weight, rows, targets, factor);
        let of_all = |own: Vec<f64>| {
            let mut all = vec![0.0; matrices * q * e];
            all[matrix * q * e..][..q * e].copy_from_slice(&own);
            all
        };
        let row = |row: &[Number]| row.iter().map(|x| x.v).collect::<Vec<_>>();
        let Affine { weight, bias } = &truth.norm;
        grads.truth.push(vec![row(&weight.data), row(bias), of_all(row(&truth.weight.data))]);
        let [weight, bias] = unfused.norm.clone();
        grads.unfused.push(vec![weight, bias, of_all(unfused.weight.clone())]);
        truths.push(truth);
        unfuseds.push(unfused);
    }

    let len = parts.iter().map(Vec::len).sum();
    let part = part(case, len);
    let before = before(&part, &mut data);

    let mut bits = Bits::default();
    for run in case.runs() {
        let Some(mut bench) = Bench::new(run) else { return };
        let what = format!("head, {case:?}, {q} levels, per channel {per_channel} on {}", bench.name);
        let shape = case.shape(q);
        let buffer = bench.put(&parts.concat());
        let [norm_weight, norm_bias, weight] = bench.bind(&buffer, &parts);
        let params = Params { norm_weight, norm_bias, weight, matrices };
        let (passes, _rooms) = Passes::new(&mut bench, &shape, n, &params);
        let xs = bench.put(&x);
        let read = (bench.put(&token), bench.put(&channel), bench.put(&levels));
        let inputs = Inputs {
            token: bench.gpu.address(&read.0),
            channel: bench.gpu.address(&read.1),
            levels: bench.gpu.address(&read.2),
        };
        let scores = bench.put(&vec![f32::NAN; n * 4]);
        let dx = bench.put(&vec![f32::NAN; n * t * e]);
        passes.loss(&mut bench, (&shape, (n, from)), &inputs, [&xs, &scores], Some((factor, &dx)));
        let (got, dx) = (bench.get(&scores), bench.get(&dx));
        let gradient_buffer = bench.put(&before);
        let [norm_weight, norm_bias, weight] = bench.bind(&gradient_buffer, &parts);
        let to = Params { norm_weight, norm_bias, weight, matrices };
        passes.gradients(&mut bench, &shape, &part, [&params, &to], inputs.channel);
        let names = ["norm weight", "norm bias", "weight"];
        let after = bench.get(&gradient_buffer);
        judge_slots(&what, &part, &names, &before, &after, &grads);
        let forward = bench.put(&vec![f32::NAN; n * 4]);
        passes.loss(&mut bench, (&shape, (n, from)), &inputs, [&xs, &forward], None);
        assert_eq!(bench.get(&forward), got, "{what}: the backward pass changes no score");
        let bare = bench.put(&vec![f32::NAN; n * (t - from) * q]);
        passes.logits(&mut bench, (&shape, (n, from)), inputs.channel, [&xs, &bare]);
        let bare = bench.get(&bare);
        let needed: Vec<f32> = dx.chunks_exact(t * e).flat_map(|dx| dx[from * e..].to_vec()).collect();
        bits.same(&what, &bench, &[&got, &needed, &after, &bare]);

        for i in 0..n {
            let (truth, unfused) = (&truths[i], &unfuseds[i]);
            let wide = |x: &[f32]| x.iter().map(|&x| f64::from(x)).collect::<Vec<_>>();
            let numbers = |x: &Matrix| x.data.iter().map(|x| x.v).collect::<Vec<_>>();
            let rows = &bare[i * (t - from) * q..][..(t - from) * q];
            judge(&format!("{what}, logits {i}"), &wide(rows), &numbers(&truth.logits), &unfused.logits);
            judge(&format!("{what}, nats {i}"), &wide(&got[4 * i..][..1]), &[truth.nats.v], &[unfused.nats]);
            let rows = &dx[(i * t + from) * e..(i + 1) * t * e];
            judge(&format!("{what}, dx {i}"), &wide(rows), &numbers(&truth.dx), &unfused.dx);
            let rows = &bare[i * (t - from) * q..][..(t - from) * q];
            let targets = &token[i * (t + 1) + from + 1..][..t - from];
            assert_measures(&what, rows, &got[4 * i..][..4], targets, &levels);
        }
    }
}

#[test]
fn head_is_the_oracles() {
    for (number, case) in cases(true).iter().enumerate() {
        for (q, per_channel) in [(256, false), (7, true)] {
            try_case(number, case, q, per_channel);
        }
    }
    try_case(99, &CASES[3], 2, false);
}

#[test]
fn general_head_is_the_oracles() {
    for (number, case) in cases(false).iter().enumerate() {
        for (q, per_channel) in [(256, false), (7, true)] {
            try_case(number, case, q, per_channel);
        }
    }
    // Rows of several sequences share a tile, and one channel's matrix does not.
    try_case(98, &Case { n: 11, t: 15, from: 1, ..GENERAL[2] }, 33, false);
    try_case(99, &Case { n: 5, t: 15, from: 1, ..GENERAL[2] }, 33, true);
}

#[test]
fn ties_count_by_the_lower_level() {
    for h in [4, 1] {
        try_ties(&Case { e: 32, h, t: 8, ..CASES[0] });
    }
}

/// All logits are equal: level 0 is the most probable, 0 to 4 are the first five, and the loss is ln(Q).
fn try_ties(case: &Case) {
    let q = 8;
    let Some(mut bench) = Bench::new(&case.runs()[0]) else { return };
    let shape = case.shape(q);
    let parts = vec![vec![1.0; 32], vec![0.0; 32], vec![0.0; q * 32]];
    let buffer = bench.put(&parts.concat());
    let [norm_weight, norm_bias, weight] = bench.bind(&buffer, &parts);
    let params = Params { norm_weight, norm_bias, weight, matrices: 1 };
    let (passes, _rooms) = Passes::new(&mut bench, &shape, 1, &params);
    let levels = bench.put(&[0.0f32, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]);
    let (token, channel) = (bench.put(&[3u8, 0, 1, 2, 3, 4, 5, 6, 7]), bench.put(&[0u32]));
    let (x, scores) = (bench.put(&Data::new(1).floats(8 * 32, 1.0)), bench.put(&[f32::NAN; 4]));
    let inputs = Inputs {
        token: bench.gpu.address(&token),
        channel: bench.gpu.address(&channel),
        levels: bench.gpu.address(&levels),
    };
    passes.loss(&mut bench, (&shape, (1, 0)), &inputs, [&x, &scores], None);
    let scores = bench.get(&scores);
    assert!((f64::from(scores[0]) - 8.0 * 8f64.ln()).abs() < 1e-5, "{scores:?}");
    assert_eq!(scores[1..], [1.0, 5.0, 140.0]);
}
