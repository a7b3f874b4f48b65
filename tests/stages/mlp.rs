//! The MLP half-block against the oracle.

use crate::bench::{
    Data, Expected, Gradient, call, compare_slots, compare_with, devices_for, flatten, floats, get, gradients_before,
};
use crate::cases::{CASES, Case};
use crate::oracle::number::{Matrix, Number};
use crate::oracle::{mlp, mlp_backward};
use crate::unfused;
use gpt2meg::device::{HalfBlock, MlpParams, Tensor};

fn bind([norm_weight, norm_bias, fc_weight, fc_bias, proj_weight, proj_bias]: [Tensor; 6]) -> MlpParams {
    MlpParams { norm_weight, norm_bias, fc_weight, fc_bias, proj_weight, proj_bias }
}

fn try_case(number: usize, case: &Case) {
    let Case { n, t, e, from, .. } = *case;
    let mut data = Data::new(number as u64 + 100);
    let params = data.half_block(case, 4 * e, 4 * e);
    let (x, dx) = (data.stream(case), data.floats(n * t * e, 1.0));
    let grads = data.floats(16 * params.len(), 0.1);

    // Rows before `from` are left alone, forward and backward.
    let oracle = params.half_block(e, 4 * e, 4 * e);
    let exact = |rows: &[f32]| rows.iter().map(|&x| Number::from(x)).collect::<Vec<_>>();
    let (mut outs, mut dxs, mut d_params) = (Vec::new(), Vec::new(), Vec::new());
    let (mut outs_unfused, mut dxs_unfused) = (Vec::new(), Vec::new());
    let nothing = vec![0.0; from * e];
    for (x, dx) in x.chunks_exact(t * e).zip(dx.chunks_exact(t * e)) {
        let (x_before, x) = x.split_at(from * e);
        let (dx_before, dx) = dx.split_at(from * e);
        let forward = mlp(&oracle, &Matrix::exact(t - from, e, x));
        let (dx_truth, grads) = mlp_backward(&oracle, &forward, &Matrix::exact(t - from, e, dx));
        outs.extend([exact(x_before), forward.out.data].concat());
        dxs.extend([exact(dx_before), dx_truth.data].concat());
        outs_unfused.extend([nothing.clone(), unfused::mlp(&params.parts, x, e)].concat());
        let (added, unfused) = unfused::mlp_backward(&params.parts, x, dx, e);
        dxs_unfused.extend([nothing.clone(), added].concat());
        d_params.push(Gradient { truth: flatten(grads), unfused });
    }

    for mut device in devices_for(case) {
        let device = &mut *device;
        let what = format!("{case:?} on {}", device.name());
        let call = call(case);
        let buffer = floats(device, &params.parts.concat());
        let handles = bind(params.bind(buffer));
        let xs = floats(device, &x);
        let kept = vec![f32::NAN; n * device.saved_len(HalfBlock::Mlp, &call)];
        let saved = floats(device, &kept);
        device.mlp(&call, &handles, xs, Some(saved)).unwrap();
        let out = get(device, xs);
        let expected = Expected { truth: &outs, base: &x, unfused: &outs_unfused };
        compare_with(&format!("{what}, x"), case, device, &out, &expected);
        let unsaved = floats(device, &x);
        device.mlp(&call, &handles, unsaved, None).unwrap();
        assert_eq!(get(device, unsaved), out, "{what}: keeping nothing changes nothing");

        let grads = gradients_before(device, &grads, params.len());
        let grad_buffer = floats(device, &grads);
        let dx_tensor = floats(device, &dx);
        device.mlp_backward(&call, &handles, &bind(params.bind(grad_buffer)), saved, dx_tensor).unwrap();
        let expected = Expected { truth: &dxs, base: &dx, unfused: &dxs_unfused };
        let got = get(device, dx_tensor);
        compare_with(&format!("{what}, dx"), case, device, &got, &expected);
        let after = get(device, grad_buffer);
        compare_slots(&what, case, device, &grads, &after, &d_params);
    }
}

#[test]
fn mlp_is_the_oracles() {
    for (number, case) in CASES.iter().enumerate() {
        try_case(number, case);
    }
}
