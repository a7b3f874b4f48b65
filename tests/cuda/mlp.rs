//! The MLP half-block.

use crate::bench::{
    Bench, Bits, CASES, Case, Data, GENERAL, Gradients, HALF_BLOCK, before, cases, difference, half_block_gradients,
    judge, judge_slots, oracle_half_block, part, values,
};
use crate::oracle::number::Matrix;
use crate::oracle::{mlp, mlp_backward};
use crate::unfused;
use cudarc::driver::CudaSlice;

passes!(mlp);

/// What the fused kernels keep and work in, for some rows.
fn fused_memory(bench: &Bench, shape: &Shape, rows: usize) -> (fused::Saved, fused::Scratch, Vec<CudaSlice<u32>>) {
    let (wide, shares) = (rows * shape.d_model / 2, rows / shape.n_time * shape.d_model / 32 * 2 * shape.d_model);
    let (rooms, [normal, scale, dout, partial]) = bench.rooms([wide, rows, wide, shares]);
    (fused::Saved { normal, scale: scale.cast() }, fused::Scratch { dout, partial: partial.cast() }, rooms)
}

fn try_case(number: usize, case: &Case) {
    let Case { n, t, e, from, .. } = *case;
    let mut data = Data::new(number as u64 + 100);
    let parts = data.half_block(case, 4 * e, 4 * e);
    let x = data.stream(case);
    let oracle = oracle_half_block(&parts, e, 4 * e, 4 * e);
    let rows = |all: &[f32]| all.chunks_exact(t * e).flat_map(|x| x[from * e..].to_vec()).collect::<Vec<_>>();
    let needed = rows(&x);
    let out = values(&mlp(&oracle, &Matrix::exact(n * (t - from), e, &needed)).out);
    let truth: Vec<f64> = out.iter().zip(&needed).map(|(out, &x)| out - f64::from(x)).collect();
    let unfused = unfused::mlp(&parts, &needed, e);

    let dx = data.floats(n * t * e, 1.0);
    let (mut grads, mut dx_truth, mut dx_unfused) = (Gradients::default(), Vec::new(), Vec::new());
    for (x, dx) in x.chunks_exact(t * e).zip(dx.chunks_exact(t * e)) {
        let (x, dx) = (&x[from * e..], &dx[from * e..]);
        let forward = mlp(&oracle, &Matrix::exact(t - from, e, x));
        let (out, gradients) = mlp_backward(&oracle, &forward, &Matrix::exact(t - from, e, dx));
        dx_truth.extend(values(&out).iter().zip(dx).map(|(out, &dx)| out - f64::from(dx)));
        grads.truth.push(half_block_gradients(gradients));
        let (out, gradients) = unfused::mlp_backward(&parts, x, dx, e);
        dx_unfused.extend(out);
        grads.unfused.push(gradients);
    }
    let len = parts.iter().map(Vec::len).sum();
    let part = part(case, len);
    let before = before(&part, &mut data);

    let mut bits = Bits::default();
    for run in case.runs() {
        let Some(mut bench) = Bench::new(run) else { return };
        let what = format!("mlp, {case:?} on {}", bench.name);
        let buffer = bench.put(&parts.concat());
        let [norm_weight, norm_bias, fc_weight, fc_bias, proj_weight, proj_bias] = bench.bind(&buffer, &parts);
        let params = Params { norm_weight, norm_bias, fc_weight, fc_bias, proj_weight, proj_bias };
        let (passes, _rooms) = Passes::new(&mut bench, case, &params);
        let xs = bench.put(&x);
        passes.forward(&mut bench, case, &params, &xs, true);
        let forward = bench.get(&xs);
        judge(&what, &difference(&rows(&forward), &needed), &truth, &unfused);
        for (out, x) in forward.chunks_exact(t * e).zip(x.chunks_exact(t * e)) {
            assert_eq!(out[..from * e], x[..from * e], "{what}: earlier rows are left alone");
        }

        let unsaved = bench.put(&x);
        passes.forward(&mut bench, case, &params, &unsaved, false);
        assert_eq!(bench.get(&unsaved), forward, "{what}: keeping nothing changes nothing");

        let (dxs, buffer) = (bench.put(&dx), bench.put(&before));
        let [norm_weight, norm_bias, fc_weight, fc_bias, proj_weight, proj_bias] = bench.bind(&buffer, &parts);
        let to = Params { norm_weight, norm_bias, fc_weight, fc_bias, proj_weight, proj_bias };
        passes.backward(&mut bench, case, &part, [&params, &to], &dxs);
        let out = bench.get(&dxs);
        judge(&format!("{what}, dx"), &difference(&rows(&out), &rows(&dx)), &dx_truth, &dx_unfused);
        for (out, dx) in out.chunks_exact(t * e).zip(dx.chunks_exact(t * e)) {
            assert_eq!(out[..from * e], dx[..from * e], "{what}: earlier gradients are left alone");
        }
        let after = bench.get(&buffer);
        judge_slots(&what, &part, &HALF_BLOCK, &before, &after, &grads);
        bits.same(&what, &bench, &[&forward, &out, &after]);
    }
}

#[test]
fn mlp_is_the_oracles() {
    for (number, case) in cases(true).iter().enumerate() {
        try_case(number, case);
    }
    // More timesteps than one block of threads takes, so that rows of several sequences share a tile.
    try_case(50, &Case { n: 40, t: 15, from: 1, ..CASES[0] });
}

#[test]
fn general_mlp_is_the_oracles() {
    for (number, case) in cases(false).iter().enumerate() {
        try_case(number, case);
    }
    // More timesteps than a tile, so that rows of several sequences share one, and the last tile is not full.
    try_case(50, &Case { n: 11, t: 15, from: 1, ..GENERAL[2] });
}
