//! The attention half-block against the oracle.

use crate::bench::{
    Data, Expected, Gradient, call, compare_slots, compare_with, devices_for, flatten, floats, get, gradients_before,
    typical, typical_gradients,
};
use crate::cases::{CASES, Case};
use crate::oracle::number::{Matrix, Number};
use crate::oracle::{attention, attention_backward};
use crate::unfused;
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
    let (mut outs_unfused, mut dxs_unfused) = (Vec::new(), Vec::new());
    for (x, dx) in x.chunks_exact(t * e).zip(dx.chunks_exact(t * e)) {
        let forward = attention(&oracle, &Matrix::exact(t, e, x), h, from);
        let dout = Matrix::exact(t - from, e, &dx[from * e..]);
        let (dx_truth, grads) = attention_backward(&oracle, &forward, &dout, h, from);
        let in_units = |unit: &f64| {
            unfused::in_unit(*unit, || {
                let (dx, grads) = unfused::attention_backward(&params.parts, x, dx, e, h, from);
                (unfused::attention(&params.parts, x, e, h, from), dx, grads)
            })
        };
        let (outs_of, (dxs_of, grads_of)): (Vec<_>, (Vec<_>, Vec<_>)) =
            case.units().iter().map(in_units).map(|(out, dx, grads)| (out, (dx, grads))).unzip();
        let added = |truth: &Number, base: f32| truth.v - f64::from(base);
        let out_added = forward.out.data.iter().zip(&x[from * e..]).map(|(out, &x)| added(out, x));
        outs_unfused.push(typical(out_added, outs_of));
        let base = |i: usize| if i < from * e { 0.0 } else { dx[i] };
        let dx_added = dx_truth.data.iter().enumerate().map(|(i, truth)| added(truth, base(i)));
        dxs_unfused.extend(typical(dx_added, dxs_of));
        let truth = flatten(grads);
        d_params.push(Gradient { unfused: typical_gradients(&truth, &grads_of), truth });
        outs.push(forward.out);
        dxs.extend(dx_truth.data);
    }
    // Rows before `from` have no gradient yet, whatever lies there.
    let dx_base: Vec<f32> =
        dx.iter().enumerate().map(|(i, &dx)| if i % (t * e) < from * e { 0.0 } else { dx }).collect();

    for mut device in devices_for(case) {
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
            let rows = (i * t + from) * e..(i + 1) * t * e;
            let expected = Expected { truth: &expected.data, base: &x[rows.clone()], unfused: &outs_unfused[i] };
            compare_with(&format!("{what}, x {i}"), case, device, &out[rows], &expected);
        }
        let unsaved = floats(device, &x);
        device.attention(&call, &handles, unsaved, None).unwrap();
        let needed = |out: &[f32]| out.chunks_exact(t * e).flat_map(|x| x[from * e..].to_vec()).collect::<Vec<_>>();
        assert_eq!(needed(&get(device, unsaved)), needed(&out), "{what}: keeping nothing changes nothing");

        let grads = gradients_before(device, &grads, params.len());
        let grad_buffer = floats(device, &grads);
        let dx_tensor = floats(device, &dx);
        device.attention_backward(&call, &handles, &bind(params.bind(grad_buffer)), saved, dx_tensor).unwrap();
        let expected = Expected { truth: &dxs, base: &dx_base, unfused: &dxs_unfused };
        let got = get(device, dx_tensor);
        compare_with(&format!("{what}, dx"), case, device, &got, &expected);
        let after = get(device, grad_buffer);
        compare_slots(&what, case, device, &grads, &after, &d_params);
    }
}

#[test]
fn attention_is_the_oracles() {
    for (number, case) in CASES.iter().enumerate() {
        try_case(number, case);
    }
}
