//! The optimiser against AdamW in f64.

use crate::bench::{Data, devices, floats, get};
use crate::oracle::number::{TINY, U};
use gpt2meg::device::{AdamW, Device, OptimizerState, Tensor};

/// Slots that hold something: those of the CPU, and the first ones where there are more.
const SLOTS: usize = 16;

/// A device's buffer of gradients.
fn gradients(device: &mut dyn Device, grads: &[f32]) -> Tensor {
    let mut all = grads.to_vec();
    all.resize(grads.len() / SLOTS * device.grad_slots(), 0.0);
    floats(device, &all)
}

/// AdamW in f64 from f32 state: what the parameter, both moments and their errors may be after one step.
///
/// The gradient sums 16 slots (15 additions), is clipped (2 roundings) and squared; each moment is then a few more
/// operations. The step divides one by the root of the other, which halves the relative error of the second moment.
fn try_size(n: usize, n_decayed: usize, max_norm: f32, weight_decay: f32) {
    let mut data = Data::new(n as u64 + 400);
    let hyper = AdamW { lr: 0.01, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay, max_norm, step: 3 };
    let params = data.floats(n, 1.0);
    let grads = data.floats(SLOTS * n, 0.1);
    let m = data.floats(n, 0.1);
    let v: Vec<f32> = data.floats(n, 0.01).iter().map(|x| x.abs()).collect();
    let sums: Vec<(f64, f64)> = (0..n)
        .map(|i| {
            let terms = (0..SLOTS).map(|slot| f64::from(grads[slot * n + i]));
            (terms.clone().sum(), terms.map(f64::abs).sum())
        })
        .collect();
    let norm = sums.iter().map(|(g, _)| g * g).sum::<f64>().sqrt();
    let clip = (f64::from(max_norm) / norm).min(1.0);
    let (beta1, beta2) = (f64::from(hyper.beta1), f64::from(hyper.beta2));
    let lr = f64::from(hyper.lr);

    let mut first_bits = None;
    for mut device in devices() {
        let device = &mut *device;
        let what = format!("{n} parameters on {}", device.name());
        let state = OptimizerState {
            params: floats(device, &params),
            grads: gradients(device, &grads),
            m: floats(device, &m),
            v: floats(device, &v),
            n_decayed,
        };
        let scores = floats(device, &[1.0, 2.0, 3.0, 4.0]);
        let outcome = device.update(&state, &hyper, scores).unwrap();
        assert!(outcome.applied);
        let most: f64 = sums.iter().map(|(_, size)| size * size).sum::<f64>().sqrt();
        assert!((outcome.grad_norm - norm).abs() <= 5.0 * U * most, "{what}: norm {} for {norm}", outcome.grad_norm);
        assert!(get(device, state.grads).iter().all(|&g| g == 0.0), "{what}: gradients are zero again");

        let (new_p, new_m, new_v) = (get(device, state.params), get(device, state.m), get(device, state.v));
        for i in 0..n {
            let (g, size) = (sums[i].0 * clip, sums[i].1 * clip);
            // The tree is four additions deep, then the clip's own rounding, its product, and the norm in it.
            let g_error = 12.0 * U * size;
            let m_new = f64::from(m[i]) + (g - f64::from(m[i])) * (1.0 - beta1);
            let m_error = (1.0 - beta1) * g_error + 6.0 * U * (f64::from(m[i]).abs() + size);
            assert!((f64::from(new_m[i]) - m_new).abs() <= m_error, "{what}, m {i}: {} for {m_new}", new_m[i]);
            let v_new = f64::from(v[i]) * beta2 + (1.0 - beta2) * g * g;
            let v_error = (1.0 - beta2) * (2.0 * g.abs() * g_error + g_error * g_error) + 4.0 * U * v_new + TINY;
            assert!((f64::from(new_v[i]) - v_new).abs() <= v_error, "{what}, v {i}: {} for {v_new}", new_v[i]);
            let shrink = if i < n_decayed { 1.0 - lr * f64::from(weight_decay) } else { 1.0 };
            let root = (v_new / (1.0 - beta2.powi(3))).sqrt() + f64::from(hyper.eps);
            let step = lr / (1.0 - beta1.powi(3)) / root;
            let p_new = f64::from(params[i]) * shrink - step * m_new;
            let relative = if v_new > 0.0 { v_error / v_new } else { 1.0 };
            let p_error =
                step * m_error + step * m_new.abs() * (relative + 8.0 * U) + 4.0 * U * f64::from(params[i]).abs();
            assert!((f64::from(new_p[i]) - p_new).abs() <= p_error, "{what}, p {i}: {} for {p_new}", new_p[i]);
        }
        // Element by element there is no order to choose, so whatever fuses agrees among itself, the GPU included.
        if !device.name().contains("portable") {
            assert_eq!(first_bits.get_or_insert(new_p.clone()), &new_p, "{what}");
        }
    }
}

#[test]
fn update_is_adamw() {
    for (n, n_decayed) in
        [(1, 1), (15, 0), (16, 16), (17, 5), (255, 100), (4096, 4000), (4097, 4097), (100_003, 50_000)]
    {
        try_size(n, n_decayed, f32::INFINITY, 0.1);
        try_size(n, n_decayed, 0.05, 0.0);
    }
}

#[test]
fn what_is_not_finite_never_reaches_a_weight() {
    let n = 100;
    for (gradient, score) in [(f32::NAN, 1.0), (f32::INFINITY, 1.0), (0.1, f32::NAN), (0.1, f32::INFINITY), (1e30, 1.0)]
    {
        for mut device in devices() {
            let device = &mut *device;
            let mut data = Data::new(7);
            let [params, m] = [data.floats(n, 1.0), data.floats(n, 1.0)];
            let v: Vec<f32> = m.iter().map(|m| m * m).collect();
            let mut grads = data.floats(SLOTS * n, 1.0);
            grads[5 * n + 50] = gradient;
            let state = OptimizerState {
                params: floats(device, &params),
                grads: gradients(device, &grads),
                m: floats(device, &m),
                v: floats(device, &v),
                n_decayed: n,
            };
            let scores = floats(device, &[0.0, 0.0, 0.0, 0.0, score]);
            let hyper = AdamW {
                lr: 0.1,
                beta1: 0.9,
                beta2: 0.99,
                eps: 1e-8,
                weight_decay: 0.1,
                max_norm: f32::INFINITY,
                step: 1,
            };
            let outcome = device.update(&state, &hyper, scores).unwrap();
            assert!(!outcome.applied, "{gradient} {score}");
            assert_eq!(get(device, state.params), params);
            assert_eq!(get(device, state.m), m);
            assert_eq!(get(device, state.v), v);
            assert!(get(device, state.grads).iter().all(|&g| g == 0.0));
        }
    }
}
