//! The head against the oracle: loss, measures, gradients, bare logits.

use crate::bench::{
    Data, Expected, Flat, Gradient, call, compare_slots, compare_with, devices_for, floats, get, gradients_before,
    is_bf16, put,
};
use crate::cases::{CASES, Case, Kind};
use crate::gpu::assert_measures;
use crate::oracle::number::{Matrix, Number};
use crate::oracle::{Affine, head};
use crate::unfused;
use gpt2meg::device::{Device, Dtype, HeadBackward, HeadParams, Inputs, Tensor};

const CHANNELS: usize = 3;

fn inputs(device: &mut dyn Device, token: &[u8], channel: &[u32]) -> Inputs {
    // The head reads neither conditions nor subjects.
    let nothing = device.alloc(Dtype::U16, 0).unwrap();
    let channel = put(device, Dtype::U32, channel);
    Inputs { token: put(device, Dtype::U8, token), condition: nothing, channel, subject: channel }
}

fn try_case(number: usize, case: &Case, q: usize, per_channel: bool) {
    let Case { n, t, e, from, .. } = *case;
    let mut data = Data::new(number as u64 + 300);
    let gain = if case.kind == Kind::Extreme { 30.0 } else { 2.0 };
    let matrices = if per_channel { CHANNELS } else { 1 };
    let [norm_weight, norm_bias] = data.norm(e);
    let weight = data.floats(matrices * q * e, gain / (e as f32).sqrt());
    let params = Flat::new(vec![norm_weight, norm_bias, weight]);
    let (x, levels) = (data.stream(case), data.floats(q, 1.0));
    let token: Vec<u8> = (0..n * (t + 1)).map(|_| data.below(q) as u8).collect();
    let channel: Vec<u32> = (0..n).map(|_| data.below(CHANNELS) as u32).collect();
    let grads = data.floats(16 * params.len(), 0.1);
    let factor = 0.25;
    let bind =
        |[norm_weight, norm_bias, weight]: [Tensor; 3]| HeadParams { norm_weight, norm_bias, weight, per_channel };

    let parts = &params.parts;
    let bias = parts[1].iter().map(|&x| Number::from(x)).collect();
    let norm = Affine { weight: Matrix::exact(1, e, &parts[0]), bias };
    let (mut expected, mut unfused, mut d_params) = (Vec::new(), Vec::new(), Vec::new());
    for i in 0..n {
        let matrix = if per_channel { channel[i] as usize } else { 0 };
        let weight = &parts[2][matrix * q * e..][..q * e];
        let rows = &x[(i * t + from) * e..(i + 1) * t * e];
        let targets = &token[i * (t + 1) + from + 1..][..t - from];
        let x = Matrix::exact(t - from, e, rows);
        let result = head(&norm, &Matrix::exact(q, e, weight), &x, targets, &levels, factor);
        let mut d_weight = vec![Number::default(); matrices * q * e];
        d_weight[matrix * q * e..][..q * e].copy_from_slice(&result.weight.data);
        let truth = [result.norm.weight.data.clone(), result.norm.bias.clone(), d_weight].concat();
        expected.push(result);
        let plain = unfused::head([&parts[0], &parts[1]], weight, rows, targets, factor);
        let mut d_weight = vec![0.0; matrices * q * e];
        d_weight[matrix * q * e..][..q * e].copy_from_slice(&plain.weight);
        let [norm_weight, norm_bias] = plain.norm.clone();
        d_params.push(Gradient { truth, unfused: vec![norm_weight, norm_bias, d_weight] });
        unfused.push(plain);
    }

    for mut device in devices_for(case) {
        let device = &mut *device;
        let what = format!("{case:?}, {q} levels, per channel {per_channel} on {}", device.name());
        let buffer = floats(device, &params.parts.concat());
        let handles = bind(params.bind(buffer));
        let inputs = inputs(device, &token, &channel);
        let (x, values) = (floats(device, &x), floats(device, &levels));
        let scores = floats(device, &vec![f32::NAN; n * 4]);
        let dx = floats(device, &vec![f32::NAN; n * t * e]);
        let grads = gradients_before(device, &grads, params.len());
        let grad_buffer = floats(device, &grads);
        let backward = HeadBackward { grads: bind(params.bind(grad_buffer)), dx, weight: factor };
        device.head_loss(&call(case), &handles, &inputs, values, x, scores, Some(backward)).unwrap();
        let logits = floats(device, &vec![f32::NAN; n * (t - from) * q]);
        device.head_logits(&call(case), &handles, &inputs, x, logits).unwrap();

        let (got, dx, logits) = (get(device, scores), get(device, dx), get(device, logits));
        for (i, (expected, score)) in expected.iter().zip(got.chunks_exact(4)).enumerate() {
            let compare = |name: &str, actual: &[f32], truth: &[Number], unfused: &[f64]| {
                let base = vec![0.0; truth.len()];
                let expected = Expected { truth, base: &base, unfused };
                compare_with(&format!("{what}, {name} {i}"), case, device, actual, &expected);
            };
            compare("nats", &score[..1], &[expected.nats], &[unfused[i].nats]);
            let rows = &dx[(i * t + from) * e..(i + 1) * t * e];
            compare("dx", rows, &expected.dx.data, &unfused[i].dx);
            let rows = &logits[i * (t - from) * q..][..(t - from) * q];
            compare("logits", rows, &expected.logits.data, &unfused[i].logits);
            let targets = &token[i * (t + 1) + from + 1..][..t - from];
            assert_measures(&what, rows, score, targets, &levels);
            let in_f32 = [expected.top1, expected.top5, expected.squared];
            for (value, (least, most)) in score[1..].iter().zip(in_f32).filter(|_| !is_bf16(device)) {
                // Whole numbers are exact; a sum of squares is rounded to f32, and so is each difference of levels.
                let room = 1e-6 * most;
                assert!((least - room..=most + room).contains(&f64::from(*value)), "{what}, sequence {i}: {score:?}");
            }
        }
        let after = get(device, grad_buffer);
        compare_slots(&what, case, device, &grads, &after, &d_params);

        let forward = floats(device, &vec![f32::NAN; n * 4]);
        device.head_loss(&call(case), &handles, &inputs, values, x, forward, None).unwrap();
        assert_eq!(get(device, forward), got, "{what}: the backward pass changes no score");
    }
}

#[test]
fn head_is_the_oracles() {
    for (number, case) in CASES.iter().enumerate() {
        for (q, per_channel) in [(256, false), (7, true)] {
            try_case(number, case, q, per_channel);
        }
    }
    try_case(99, &CASES[3], 2, false);
}

/// One sequence of a small model.
const SMALL: Case = Case { n: 1, first: 0, t: 8, e: 32, h: 4, from: 0, kind: Kind::Normal };

#[test]
fn ties_count_by_the_lower_level() {
    // All logits are equal: level 0 is the most probable, 0 to 4 are the first five, and the loss is ln(Q).
    let q = 8;
    let (case, e) = (SMALL, SMALL.e);
    for mut device in devices_for(&case) {
        let device = &mut *device;
        let params = Flat::new(vec![vec![1.0; e], vec![0.0; e], vec![0.0; q * e]]);
        let buffer = floats(device, &params.parts.concat());
        let [norm_weight, norm_bias, weight] = params.bind(buffer);
        let handles = HeadParams { norm_weight, norm_bias, weight, per_channel: false };
        let inputs = inputs(device, &[3, 0, 1, 2, 3, 4, 5, 6, 7], &[0]);
        let x = floats(device, &Data::new(1).floats(8 * e, 1.0));
        let (levels, scores) = (floats(device, &[0., 1., 2., 3., 4., 5., 6., 7.]), floats(device, &[0.0; 4]));
        device.head_loss(&call(&case), &handles, &inputs, levels, x, scores, None).unwrap();
        let scores = get(device, scores);
        assert!((f64::from(scores[0]) - 8.0 * 8f64.ln()).abs() < 1e-5, "{scores:?}");
        assert_eq!(scores[1..], [1.0, 5.0, 140.0], "{}", device.name());
    }
}

#[test]
fn a_row_that_is_not_finite_is_no_hit() {
    // One weight is bad, or all of a level, so that one logit of every row is: whichever level it is, the target or another one.
    let (q, case, e) = (8, SMALL, SMALL.e);
    let bad = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY];
    for (bad, count) in bad.into_iter().flat_map(|bad| [(bad, 1), (bad, e)]) {
        for mut device in devices_for(&case) {
            let device = &mut *device;
            let mut weight = vec![0.0; q * e];
            weight[2 * e..][..count].fill(bad);
            let params = Flat::new(vec![vec![1.0; e], vec![1.0; e], weight]);
            let buffer = floats(device, &params.parts.concat());
            let [norm_weight, norm_bias, weight] = params.bind(buffer);
            let handles = HeadParams { norm_weight, norm_bias, weight, per_channel: false };
            let inputs = inputs(device, &[3, 0, 1, 2, 3, 4, 5, 6, 7], &[0]);
            let x = floats(device, &Data::new(1).floats(8 * e, 1.0));
            let (levels, scores) = (floats(device, &[0., 1., 2., 3., 4., 5., 6., 7.]), floats(device, &[0.0; 4]));
            device.head_loss(&call(&case), &handles, &inputs, levels, x, scores, None).unwrap();
            let scores = get(device, scores);
            assert!(scores[0].is_nan() && scores[3].is_nan(), "{bad}: {scores:?}");
            assert_eq!(scores[1..3], [0.0, 0.0], "{bad} on {}", device.name());
        }
    }
}
