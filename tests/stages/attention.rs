//! The attention half-block against the oracle.

use crate::bench::{Data, call, compare, compare_slots, devices, flatten, floats, get};
use crate::cases::{CASES, Case};
use crate::oracle::number::Matrix;
use crate::oracle::{attention, attention_backward};
use gpt2meg::device::{AttentionParams, HalfBlock, Tensor};

fn bind([norm_weight, norm_bias, qkv_weight, qkv_bias, proj_weight, proj_bias]: [Tensor; 6]) -> AttentionParams {
    AttentionParams { norm_weight, norm_bias, qkv_weight, qkv_bias, proj_weight, proj_bias }
}

fn try_case(number: usize, case: &Case) {
    let Case { n, t, e, h, from, .. } = *case;
    let mut data = Data::new(number as u64);
    let params = data.half_block(case, 3 * e, e);
    let (x, dx) = (data.stream(case), data.floats(n * t * e, 1.0));
    let grads = data.floats(16 * params.len(), 0.1);

    let oracle = params.half_block(e, 3 * e, e);
    let (mut outs, mut dxs, mut d_params) = (Vec::new(), Vec::new(), Vec::new());
    for (x, dx) in x.chunks_exact(t * e).zip(dx.chunks_exact(t * e)) {
        let forward = attention(&oracle, &Matrix::exact(t, e, x), h, from);
        let dout = Matrix::exact(t - from, e, &dx[from * e..]);
        let (dx, grads) = attention_backward(&oracle, &forward, &dout, h, from);
        outs.push(forward.out);
        dxs.extend(dx.data);
        d_params.push(flatten(grads));
    }

    for mut device in devices() {
        let device = &mut *device;
        let what = format!("{case:?} on {}", device.name());
        let call = call(case);
        let buffer = floats(device, &params.parts.concat());
        let handles = bind(params.bind(buffer));
        let xs = floats(device, &x);
        let kept = vec![f32::NAN; n * device.saved_len(HalfBlock::Attention, &call)];
        let saved = floats(device, &kept);
        device.attention(&call, &handles, xs, Some(saved)).unwrap();
        let out = get(device, xs);
        for (i, expected) in outs.iter().enumerate() {
            compare(&format!("{what}, x {i}"), case, &out[(i * t + from) * e..(i + 1) * t * e], &expected.data);
        }
        let unsaved = floats(device, &x);
        device.attention(&call, &handles, unsaved, None).unwrap();
        assert_eq!(get(device, unsaved), out, "{what}: keeping nothing changes nothing");

        let grad_buffer = floats(device, &grads);
        let dx_tensor = floats(device, &dx);
        device.attention_backward(&call, &handles, &bind(params.bind(grad_buffer)), saved, dx_tensor).unwrap();
        compare(&format!("{what}, dx"), case, &get(device, dx_tensor), &dxs);
        compare_slots(&what, case, &grads, &get(device, grad_buffer), &d_params);
    }
}

#[test]
fn attention_is_the_oracles() {
    for (number, case) in CASES.iter().enumerate() {
        try_case(number, case);
    }
}
