//! The attention half-block.

use crate::bench::{
    Bench, Bits, Case, Data, Gradients, HALF_BLOCK, Kind, RUNS, before, cases, difference, half_block_gradients, judge,
    judge_slots, oracle_half_block, part, values,
};
use crate::oracle::number::Matrix;
use crate::oracle::{attention, attention_backward};
use crate::unfused;
use cudarc::driver::CudaSlice;

passes!(attention);

/// What the fused kernels keep and work in, for some rows.
fn fused_memory(bench: &Bench, shape: &Shape, rows: usize) -> (fused::Saved, fused::Scratch, Vec<CudaSlice<u32>>) {
    let wide = rows * shape.d_model / 2;
    let (rooms, [normal, scale, answer, lse, dqkv, dout]) =
        bench.rooms([wide, rows, wide, rows * shape.n_head, 3 * wide, wide]);
    let saved = fused::Saved { normal, scale: scale.cast(), answer, lse: lse.cast() };
    (saved, fused::Scratch { dqkv, dout }, rooms)
}

/// Tensors of the unfused computation, each the middle one of several units'.
fn typical(truth: &[Vec<f64>], units: Vec<Vec<Vec<f64>>>) -> Vec<Vec<f64>> {
    let of = |k: usize| units.iter().map(|unit| unit[k].clone()).collect();
    truth.iter().enumerate().map(|(k, truth)| unfused::typical(truth.iter().copied(), of(k))).collect()
}

fn try_case(number: usize, case: &Case) {
    let Case { n, t, e, h, from, kind } = *case;
    let mut data = Data::new(number as u64);
    let mut parts = data.half_block(case, 3 * e, e);
    let mut x = data.stream(case);
    if kind == Kind::HugeKey {
        // The norm makes all rows equally long, so a key is made long by a direction that one row alone has.
        for row in 0..n * t {
            x[row * e] = if row % t == 3 { 30.0 } else { 0.0 };
        }
        parts[2][e..2 * e].iter_mut().for_each(|weight| *weight *= 20.0);
    }
    let oracle = oracle_half_block(&parts, e, 3 * e, e);
    let mut dx = data.floats(n * t * e, 1.0);
    let (mut truth, mut unfused) = (Vec::new(), Vec::new());
    let (mut grads, mut dx_truth, mut dx_unfused) = (Gradients::default(), Vec::new(), Vec::new());
    for (x, dx) in x.chunks_exact(t * e).zip(dx.chunks_exact_mut(t * e)) {
        let result = attention(&oracle, &Matrix::exact(t, e, x), h, from);
        truth.extend(values(&result.out).iter().zip(&x[from * e..]).map(|(out, &x)| out - f64::from(x)));
        let in_units = |compute: &dyn Fn() -> Vec<Vec<f64>>| -> Vec<Vec<Vec<f64>>> {
            case.units().iter().map(|&unit| unfused::in_unit(unit, compute)).collect()
        };
        let added = in_units(&|| vec![unfused::attention(&parts, x, e, h, from)]);
        unfused.extend(typical(&[truth[truth.len() - (t - from) * e..].to_vec()], added).concat());
        let dout = Matrix::exact(t - from, e, &dx[from * e..]);
        let (out, gradients) = attention_backward(&oracle, &result, &dout, h, from);
        // Earlier rows have no gradient, and what is there must not be read.
        let gained = values(&out).into_iter().enumerate();
        let gained = gained.map(|(i, out)| out - if i < from * e { 0.0 } else { f64::from(dx[i]) });
        let all = [vec![gained.collect()], half_block_gradients(gradients)].concat();
        let backward = in_units(&|| {
            let (added, gradients) = unfused::attention_backward(&parts, x, dx, e, h, from);
            [vec![added], gradients].concat()
        });
        let mut of_units = typical(&all, backward);
        dx_unfused.extend(of_units.remove(0));
        grads.unfused.push(of_units);
        dx_truth.extend(&all[0]);
        grads.truth.push(all[1..].to_vec());
        dx[..from * e].fill(f32::NAN);
    }
    let len = parts.iter().map(Vec::len).sum();
    let part = part(case, len);
    let before = before(&part, &mut data);
    let mut bits = Bits::default();
    for run in case.runs() {
        let Some(mut bench) = Bench::new(run) else { return };
        let what = format!("attention, {case:?} on {}", bench.name);
        let buffer = bench.put(&parts.concat());
        let [norm_weight, norm_bias, qkv_weight, qkv_bias, proj_weight, proj_bias] = bench.bind(&buffer, &parts);
        let params = Params { norm_weight, norm_bias, qkv_weight, qkv_bias, proj_weight, proj_bias };
        let (passes, _rooms) = Passes::new(&mut bench, case, &params);
        let xs = bench.put(&x);
        passes.forward(&mut bench, case, &params, &xs, true);
        let out = bench.get(&xs);
        let rows = |all: &[f32]| all.chunks_exact(t * e).flat_map(|x| x[from * e..].to_vec()).collect::<Vec<_>>();
        judge(&what, &difference(&rows(&out), &rows(&x)), &truth, &unfused);

        let unsaved = bench.put(&x);
        passes.forward(&mut bench, case, &params, &unsaved, false);
        assert_eq!(rows(&bench.get(&unsaved)), rows(&out), "{what}: keeping nothing changes nothing");

        let (dxs, buffer) = (bench.put(&dx), bench.put(&before));
        let [norm_weight, norm_bias, qkv_weight, qkv_bias, proj_weight, proj_bias] = bench.bind(&buffer, &parts);
        let to = Params { norm_weight, norm_bias, qkv_weight, qkv_bias, proj_weight, proj_bias };
        passes.backward(&mut bench, case, &part, [&params, &to], &dxs);
        let dout: Vec<f32> =
            dx.iter().enumerate().map(|(i, &dx)| if i % (t * e) < from * e { 0.0 } else { dx }).collect();
        let (dxs, after) = (bench.get(&dxs), bench.get(&buffer));
        judge(&format!("{what}, dx"), &difference(&dxs, &dout), &dx_truth, &dx_unfused);
        judge_slots(&what, &part, &HALF_BLOCK, &before, &after, &grads);
        bits.same(&what, &bench, &[&rows(&out), &dxs, &after]);
    }
}

#[test]
fn attention_is_the_oracles() {
    for (number, case) in cases(true).iter().enumerate() {
        try_case(number, case);
    }
}

#[test]
fn general_attention_is_the_oracles() {
    for (number, case) in cases(false).iter().enumerate() {
        try_case(number, case);
    }
}

/// The kernel of the input's gradient is for two blocks a multiprocessor, where there are tiles of 128 rows for them.
#[test]
fn the_inputs_gradient_keeps_multiprocessors_busy() {
    let case = Case { n: 3, t: 255, ..cases(true)[1] };
    let run = &RUNS[0];
    for (multiprocessors, blocks) in [(2, 4), (u32::MAX, 6)] {
        let Some(mut bench) = Bench::new(run).filter(|bench| !bench.is_real()) else { return };
        bench.gpu.limit_multiprocessors(multiprocessors);
        let mut data = Data::new(1);
        let parts = data.half_block(&case, 3 * case.e, case.e);
        let part = part(&case, parts.iter().map(Vec::len).sum());
        let (params, grads) = (bench.put(&parts.concat()), bench.put(&before(&part, &mut data)));
        let [params, grads] = [&params, &grads].map(|buffer| {
            let [norm_weight, norm_bias, qkv_weight, qkv_bias, proj_weight, proj_bias] = bench.bind(buffer, &parts);
            Params { norm_weight, norm_bias, qkv_weight, qkv_bias, proj_weight, proj_bias }
        });
        let (passes, _rooms) = Passes::new(&mut bench, &case, &params);
        let (x, dx) = (bench.put(&data.stream(&case)), bench.put(&data.stream(&case)));
        passes.forward(&mut bench, &case, &params, &x, true);
        passes.backward(&mut bench, &case, &part, [&params, &grads], &dx);
        bench.gpu.sync().unwrap();
        let reports = bench.check();
        let of_input = reports.iter().find(|report| report.kernel == "attention_backward_input").unwrap();
        assert_eq!(of_input.grid, [blocks, 1, 1]);
    }
}

/// A single key takes all, so nothing is left of the scores' gradient, whatever rounding takes from that of the answers.
#[test]
fn what_rounding_takes_is_no_gradient() {
    let case = Case { n: 1, t: 1, from: 0, ..cases(true)[0] };
    let Some(mut bench) = Bench::new(&RUNS[0]) else { return };
    let mut data = Data::new(1);
    let parts = data.half_block(&case, 3 * case.e, case.e);
    let len = parts.iter().map(Vec::len).sum();
    let part = part(&case, len);
    let (params, buffer) = (bench.put(&parts.concat()), bench.put(&vec![0.0f32; part.slots * len]));
    let [params, grads] = [&params, &buffer].map(|buffer| {
        let [norm_weight, norm_bias, qkv_weight, qkv_bias, proj_weight, proj_bias] = bench.bind(buffer, &parts);
        Params { norm_weight, norm_bias, qkv_weight, qkv_bias, proj_weight, proj_bias }
    });
    let (passes, _rooms) = Passes::new(&mut bench, &case, &params);
    let (x, dx) = (bench.put(&data.stream(&case)), bench.put(&data.stream(&case)));
    passes.forward(&mut bench, &case, &params, &x, true);
    passes.backward(&mut bench, &case, &part, [&params, &grads], &dx);
    // The gradient of QKV's bias, behind those of the norm and of QKV's matrix.
    let before: usize = parts[..3].iter().map(Vec::len).sum();
    let bias = &bench.get(&buffer)[part.first % part.slots * len + before..][..3 * case.e];
    let largest = |of: &[f32]| of.iter().fold(0.0f32, |most, x| most.max(x.abs()));
    let (scores, values) = (largest(&bias[..2 * case.e]), largest(&bias[2 * case.e..]));
    assert!(values > 0.1 && scores < 1e-4 * values, "{scores} of {values}");
}
