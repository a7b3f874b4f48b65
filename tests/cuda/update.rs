//! The optimiser against AdamW in f64, and against the CPU engine, whose operations it repeats one by one.

use crate::bench::{Bench, CASES, Data};
use cudarc::driver::CudaSlice;
use gpt2meg::device::cuda::GRAD_SLOTS;
use gpt2meg::device::cuda::update::{State, Sums, update};
use gpt2meg::device::{AdamW, UpdateOutcome};

struct Buffers {
    params: CudaSlice<f32>,
    grads: CudaSlice<f32>,
    m: CudaSlice<f32>,
    v: CudaSlice<f32>,
}

fn step(bench: &mut Bench, buffers: &Buffers, n_decayed: usize, hyper: &AdamW, scores: &[f32]) -> UpdateOutcome {
    let sums = &mut Sums::default();
    let on_gpu = bench.put(scores);
    let Buffers { params, grads, m, v } = buffers;
    let [params, grads, m, v] = [params, grads, m, v].map(|slice| (bench.gpu.address(slice), slice.len()));
    let state = State { len: params.1, n_decayed, params: params.0, grads: grads.0, m: m.0, v: v.0 };
    let scores = (bench.gpu.address(&on_gpu), scores.len());
    // SAFETY: everything has its size.
    unsafe { update(&mut bench.gpu, &CASES[0].shape(256), sums, &state, hyper, scores) }.unwrap()
}

fn try_size(n: usize, n_decayed: usize, max_norm: f32, weight_decay: f32) {
    let mut data = Data::new(n as u64 + 400);
    let hyper = AdamW { lr: 0.01, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay, max_norm, step: 3 };
    let (params, grads, m) = (data.floats(n, 1.0), data.floats(GRAD_SLOTS * n, 0.1), data.floats(n, 0.1));
    let v: Vec<f32> = data.floats(n, 0.01).iter().map(|x| x.abs()).collect();
    let sums: Vec<(f64, f64)> = (0..n)
        .map(|i| {
            let terms = (0..GRAD_SLOTS).map(|slot| f64::from(grads[slot * n + i]));
            (terms.clone().sum(), terms.map(f64::abs).sum())
        })
        .collect();
    let norm = sums.iter().map(|(g, _)| g * g).sum::<f64>().sqrt();
    let clip = (f64::from(max_norm) / norm).min(1.0);
    let (beta1, beta2, lr) = (f64::from(hyper.beta1), f64::from(hyper.beta2), f64::from(hyper.lr));
    let u = 2f64.powi(-24);
    for run in CASES[0].runs() {
        let Some(mut bench) = Bench::new(run) else { return };
        let what = format!("{n} parameters on {}", bench.name);
        let buffers =
            Buffers { params: bench.put(&params), grads: bench.put(&grads), m: bench.put(&m), v: bench.put(&v) };
        let outcome = step(&mut bench, &buffers, n_decayed, &hyper, &[1.0, 2.0]);
        assert!(outcome.applied, "{what}");
        // The tree is six additions deep.
        let most: f64 = sums.iter().map(|(_, size)| size * size).sum::<f64>().sqrt();
        assert!((outcome.grad_norm - norm).abs() <= 7.0 * u * most, "{what}: norm {} for {norm}", outcome.grad_norm);
        assert!(bench.get(&buffers.grads).iter().all(|&g| g == 0.0), "{what}: gradients are zero again");
        let (new_p, new_m, new_v) = (bench.get(&buffers.params), bench.get(&buffers.m), bench.get(&buffers.v));
        for i in 0..n {
            let (g, size) = (sums[i].0 * clip, sums[i].1 * clip);
            let g_error = 14.0 * u * size;
            let m_new = f64::from(m[i]) + (g - f64::from(m[i])) * (1.0 - beta1);
            let m_error = (1.0 - beta1) * g_error + 6.0 * u * (f64::from(m[i]).abs() + size);
            assert!((f64::from(new_m[i]) - m_new).abs() <= m_error, "{what}, m {i}: {} for {m_new}", new_m[i]);
            let v_new = f64::from(v[i]) * beta2 + (1.0 - beta2) * g * g;
            let v_error = (1.0 - beta2) * (2.0 * g.abs() * g_error + g_error * g_error) + 4.0 * u * v_new + 1e-38;
            assert!((f64::from(new_v[i]) - v_new).abs() <= v_error, "{what}, v {i}: {} for {v_new}", new_v[i]);
            let shrink = if i < n_decayed { 1.0 - lr * f64::from(weight_decay) } else { 1.0 };
            let root = (v_new / (1.0 - beta2.powi(3))).sqrt() + f64::from(hyper.eps);
            let step = lr / (1.0 - beta1.powi(3)) / root;
            let p_new = f64::from(params[i]) * shrink - step * m_new;
            let relative = if v_new > 0.0 { v_error / v_new } else { 1.0 };
            let p_error =
                step * m_error + step * m_new.abs() * (relative + 8.0 * u) + 4.0 * u * f64::from(params[i]).abs();
            assert!((f64::from(new_p[i]) - p_new).abs() <= p_error, "{what}, p {i}: {} for {p_new}", new_p[i]);
        }
    }
}

#[test]
fn update_is_adamw() {
    for (n, n_decayed) in [(1, 1), (15, 0), (17, 5), (1023, 100), (1024, 1024), (4097, 2)] {
        try_size(n, n_decayed, f32::INFINITY, 0.1);
        try_size(n, n_decayed, 0.05, 0.0);
    }
}

#[test]
fn what_is_not_finite_never_reaches_a_weight() {
    let n = 100;
    let wrong = [(f32::NAN, 1.0), (f32::INFINITY, 1.0), (0.1, f32::NAN), (0.1, f32::INFINITY), (1e30, 1.0)];
    for (gradient, score) in wrong {
        let Some(mut bench) = Bench::new(&CASES[0].runs()[0]) else { return };
        let mut data = Data::new(7);
        let [params, m] = [data.floats(n, 1.0), data.floats(n, 1.0)];
        let v: Vec<f32> = m.iter().map(|m| m * m).collect();
        let mut grads = data.floats(GRAD_SLOTS * n, 1.0);
        grads[5 * n + 50] = gradient;
        let buffers =
            Buffers { params: bench.put(&params), grads: bench.put(&grads), m: bench.put(&m), v: bench.put(&v) };
        let hyper =
            AdamW { lr: 0.1, beta1: 0.9, beta2: 0.99, eps: 1e-8, weight_decay: 0.1, max_norm: f32::INFINITY, step: 1 };
        let outcome = step(&mut bench, &buffers, n, &hyper, &[0.0, 0.0, score]);
        assert!(!outcome.applied, "{gradient} {score}");
        assert_eq!(bench.get(&buffers.params), params);
        assert_eq!(bench.get(&buffers.m), m);
        assert_eq!(bench.get(&buffers.v), v);
        assert!(bench.get(&buffers.grads).iter().all(|&g| g == 0.0));
    }
}
