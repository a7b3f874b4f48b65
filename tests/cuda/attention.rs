//! The attention half-block.

use crate::bench::{Bench, CASES, Case, Data, Kind, RUNS, difference, judge, oracle_half_block, values};
use crate::oracle::attention;
use crate::oracle::number::Matrix;
use crate::unfused;
use gpt2meg::device::cuda::attention::{Params, Saved, Working, forward};

/// The truth and the unfused computation of what one sequence gains.
fn expected(case: &Case, parts: &[Vec<f32>], x: &[f32]) -> (Vec<f64>, Vec<f64>) {
    let Case { t, e, h, from, .. } = *case;
    let oracle = oracle_half_block(parts, e, 3 * e, e);
    let out = values(&attention(&oracle, &Matrix::exact(t, e, x), h, from).out);
    let truth = out.iter().zip(&x[from * e..]).map(|(out, &x)| out - f64::from(x)).collect();
    (truth, unfused::attention(parts, x, e, h, from))
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
        for column in e..2 * e {
            parts[2][column] *= 20.0;
        }
    }
    let (mut truth, mut unfused) = (Vec::new(), Vec::new());
    for x in x.chunks_exact(t * e) {
        let (a, b) = expected(case, &parts, x);
        truth.extend(a);
        unfused.extend(b);
    }
    for run in RUNS {
        let Some(mut bench) = Bench::new(run) else { return };
        let what = format!("attention, {case:?} on {}", bench.name);
        let shape = case.shape(256);
        let buffer = bench.put(&parts.concat());
        let [norm_weight, norm_bias, qkv_weight, qkv_bias, proj_weight, proj_bias] = bench.bind(&buffer, &parts);
        let params = Params { norm_weight, norm_bias, qkv_weight, qkv_bias, proj_weight, proj_bias };
        let working = Working::new(&mut bench.gpu, &shape, &params).unwrap();
        let xs = bench.put(&x);
        let normal = bench.put(&vec![u32::MAX; n * t * e / 2]);
        let scale = bench.put(&vec![f32::NAN; n * t]);
        let answer = bench.put(&vec![u32::MAX; n * t * e / 2]);
        let lse = bench.put(&vec![f32::NAN; n * h * t]);
        let gpu = &mut bench.gpu;
        let saved = Saved {
            normal: gpu.address(&normal),
            scale: gpu.address(&scale),
            answer: gpu.address(&answer),
            lse: gpu.address(&lse),
        };
        let pointer = gpu.address(&xs);
        // SAFETY: everything has its size.
        unsafe { forward(gpu, &shape, (n, from), &params, &working, pointer, Some(saved)) }.unwrap();
        let out = bench.get(&xs);
        let rows = |all: &[f32]| all.chunks_exact(t * e).flat_map(|x| x[from * e..].to_vec()).collect::<Vec<_>>();
        judge(&what, &difference(&rows(&out), &rows(&x)), &truth, &unfused);

        let unsaved = bench.put(&x);
        let pointer = bench.gpu.address(&unsaved);
        // SAFETY: everything has its size.
        unsafe { forward(&mut bench.gpu, &shape, (n, from), &params, &working, pointer, None) }.unwrap();
        assert_eq!(rows(&bench.get(&unsaved)), rows(&out), "{what}: keeping nothing changes nothing");
    }
}

#[test]
fn attention_is_the_oracles() {
    for (number, case) in CASES.iter().enumerate() {
        try_case(number, case);
    }
}
