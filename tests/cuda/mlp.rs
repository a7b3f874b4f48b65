//! The MLP half-block.

use crate::bench::{Bench, CASES, Case, Data, RUNS, difference, judge, oracle_half_block, values};
use crate::oracle::mlp;
use crate::oracle::number::Matrix;
use crate::unfused;
use gpt2meg::device::cuda::mlp::{Params, Saved, Working, forward};

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

    for run in RUNS {
        let Some(mut bench) = Bench::new(run) else { return };
        let what = format!("mlp, {case:?} on {}", bench.name);
        let shape = case.shape(256);
        let buffer = bench.put(&parts.concat());
        let [norm_weight, norm_bias, fc_weight, fc_bias, proj_weight, proj_bias] = bench.bind(&buffer, &parts);
        let params = Params { norm_weight, norm_bias, fc_weight, fc_bias, proj_weight, proj_bias };
        let working = Working::new(&mut bench.gpu, &shape, &params).unwrap();
        let xs = bench.put(&x);
        let (normal, scale) = (bench.put(&vec![u32::MAX; n * t * e / 2]), bench.put(&vec![f32::NAN; n * t]));
        let saved = Saved { normal: bench.gpu.address(&normal), scale: bench.gpu.address(&scale) };
        let pointer = bench.gpu.address(&xs);
        // SAFETY: everything has its size.
        unsafe { forward(&mut bench.gpu, &shape, (n, from), &params, &working, pointer, Some(saved)) }.unwrap();
        let out = bench.get(&xs);
        judge(&what, &difference(&rows(&out), &needed), &truth, &unfused);
        for (out, x) in out.chunks_exact(t * e).zip(x.chunks_exact(t * e)) {
            assert_eq!(out[..from * e], x[..from * e], "{what}: earlier rows are left alone");
        }

        let unsaved = bench.put(&x);
        let pointer = bench.gpu.address(&unsaved);
        // SAFETY: everything has its size.
        unsafe { forward(&mut bench.gpu, &shape, (n, from), &params, &working, pointer, None) }.unwrap();
        assert_eq!(bench.get(&unsaved), out, "{what}: keeping nothing changes nothing");
    }
}

#[test]
fn mlp_is_the_oracles() {
    for (number, case) in CASES.iter().enumerate() {
        try_case(number, case);
    }
    // More timesteps than one block of threads takes, so that rows of several sequences share a tile.
    try_case(50, &Case { n: 40, t: 15, from: 1, ..CASES[0] });
}
