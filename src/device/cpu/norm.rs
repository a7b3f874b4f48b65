//! LayerNorm over the rows of the residual stream, forward and backward.

use super::vector::{add, dot, load, map, store, sum_of};
use pulp::Simd;

/// Added to the variance (GPT-2).
const EPSILON: f32 = 1e-5;

/// One row: normal = (x − mean) / √(variance + ε). Returns 1 / √(variance + ε).
#[inline(always)]
pub(crate) fn normalize<S: Simd>(simd: S, x: &[f32], normal: &mut [f32]) -> f32 {
    let n = x.len() as f32;
    let mean = sum_of(simd, x, x, |x, _| x, |x, _| x) / n;
    let mean_splat = simd.splat_f32s(mean);
    map(simd, x, normal, |x| simd.sub_f32s(x, mean_splat));
    let scale = 1.0 / (dot(simd, normal, normal) / n + EPSILON).sqrt();
    let factor = simd.splat_f32s(scale);
    for x in normal.chunks_mut(S::F32_LANES) {
        let value = simd.mul_f32s(load(simd, x), factor);
        store(simd, x, value);
    }
    scale
}

/// One row: y = normal · weight + bias.
#[inline(always)]
pub(crate) fn scale_and_shift<S: Simd>(simd: S, normal: &[f32], weight: &[f32], bias: &[f32], y: &mut [f32]) {
    let lanes = S::F32_LANES;
    for (((x, w), b), y) in
        normal.chunks(lanes).zip(weight.chunks(lanes)).zip(bias.chunks(lanes)).zip(y.chunks_mut(lanes))
    {
        store(simd, y, simd.mul_add_e_f32s(load(simd, x), load(simd, w), load(simd, b)));
    }
}

/// One row of the backward pass. In: the gradient `dy` of the norm's output; out: `dy` holds the gradient of its input.
/// Adds dy to `grad_bias` and dy · normal to `grad_weight`.
///
/// With g = dy · weight and means over the row: dx = scale · (g − mean(g) − normal · mean(g · normal)).
#[inline(always)]
pub(crate) fn normalize_backward<S: Simd>(
    simd: S,
    normal: &[f32],
    scale: f32,
    weight: &[f32],
    dy: &mut [f32],
    grad_weight: &mut [f32],
    grad_bias: &mut [f32],
) {
    let lanes = S::F32_LANES;
    add(simd, dy, grad_bias);
    for (((normal, dy), weight), grad) in
        normal.chunks(lanes).zip(dy.chunks_mut(lanes)).zip(weight.chunks(lanes)).zip(grad_weight.chunks_mut(lanes))
    {
        let value = load(simd, dy);
        let sum = simd.mul_add_e_f32s(value, load(simd, normal), load(simd, grad));
        store(simd, grad, sum);
        store(simd, dy, simd.mul_f32s(value, load(simd, weight)));
    }
    let n = normal.len() as f32;
    let mean = simd.splat_f32s(sum_of(simd, dy, dy, |x, _| x, |x, _| x) / n);
    let slope = simd.splat_f32s(dot(simd, dy, normal) / n);
    let scale = simd.splat_f32s(scale);
    for (normal, dy) in normal.chunks(lanes).zip(dy.chunks_mut(lanes)) {
        let centred = simd.sub_f32s(load(simd, dy), mean);
        let value = simd.negate_mul_add_e_f32s(load(simd, normal), slope, centred);
        store(simd, dy, simd.mul_f32s(value, scale));
    }
}
