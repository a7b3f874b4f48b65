//! Vector mathematics: loads and stores, exp, GELU, reductions, generic over the instruction set.
//!
//! Everything here is `#[inline(always)]` and is called from inside a dispatched function, so that it is compiled for
//! the instruction set found at run time. There are no calls to the C library's mathematics.

use pulp::Simd;

/// log2(e).
pub(crate) const LOG2_E: f32 = std::f32::consts::LOG2_E;

/// The vector at the start of `slice`; lanes beyond its end are zero.
#[inline(always)]
pub(crate) fn load<S: Simd>(simd: S, slice: &[f32]) -> S::f32s {
    match S::as_simd_f32s(slice).0.first() {
        Some(&vector) => vector,
        None => simd.partial_load_f32s(slice),
    }
}

/// Writes as many lanes as `slice` has room for.
#[inline(always)]
pub(crate) fn store<S: Simd>(simd: S, slice: &mut [f32], vector: S::f32s) {
    match S::as_mut_simd_f32s(slice) {
        ([first, ..], _) => *first = vector,
        (_, tail) => simd.partial_store_f32s(tail, vector),
    }
}

/// 2^x for x up to 127; below −127 it is zero, and NaN stays NaN. Relative error at most 2⁻²³ (the polynomial's own is
/// 2⁻²⁵·⁹; the rest is its rounding) where the result is a normal number, and results below 2⁻¹²⁶ are flushed to zero.
///
/// x is split into its nearest whole number n and f in [−½, ½]: a polynomial gives 2^f, and n goes into the exponent.
#[inline(always)]
pub(crate) fn exp2<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    // Adding 1.5 · 2^23 rounds to a whole number, which then stands in the low bits; 127 is the exponent's bias.
    const SHIFT: f32 = 12_582_912.0 + 127.0;
    // The least maximal relative error on [−½, ½] in degree 6, by iteratively reweighted least squares.
    const COEFFICIENTS: [f32; 6] =
        [0.000_153_458_11, 0.001_339_993_1, 0.009_618_489, 0.055_503_286, 0.240_226_46, std::f32::consts::LN_2];

    // Not a maximum: that of a number and NaN is the number on some machines, and NaN must pass.
    let least = simd.splat_f32s(-127.0);
    let x = simd.select_f32s(simd.less_than_f32s(x, least), least, x);
    let shifted = simd.add_f32s(x, simd.splat_f32s(SHIFT));
    let fraction = simd.sub_f32s(x, simd.sub_f32s(shifted, simd.splat_f32s(SHIFT)));
    let mut sum = simd.splat_f32s(COEFFICIENTS[0]);
    for &coefficient in &COEFFICIENTS[1..] {
        sum = simd.mul_add_e_f32s(sum, fraction, simd.splat_f32s(coefficient));
    }
    sum = simd.mul_add_e_f32s(sum, fraction, simd.splat_f32s(1.0));
    let exponent = simd.wrapping_dyn_shl_u32s(simd.transmute_u32s_f32s(shifted), simd.splat_u32s(23));
    simd.mul_f32s(sum, simd.transmute_f32s_u32s(exponent))
}

// tanh-GELU: ½x(1 + tanh(√(2/π)(x + 0.044715x³))) = x·σ(CUBE·x³ + LINE·x), by tanh(u) = 2σ(2u) − 1.
const LINE: f32 = 1.595_769; // 2√(2/π)
const CUBE: f32 = 0.071_354_814; // 0.044715 · 2√(2/π)

/// σ of GELU's argument. Beyond ±10 σ has reached 1 (or the smallest normal numbers), so clamping changes nothing.
#[inline(always)]
fn gelu_gate<S: Simd>(simd: S, x: S::f32s) -> (S::f32s, S::f32s) {
    let x = simd.min_f32s(simd.splat_f32s(10.0), simd.max_f32s(simd.splat_f32s(-10.0), x));
    let square = simd.mul_f32s(x, x);
    let slope = simd.mul_add_e_f32s(square, simd.splat_f32s(-CUBE * LOG2_E), simd.splat_f32s(-LINE * LOG2_E));
    let one = simd.splat_f32s(1.0);
    let gate = simd.div_f32s(one, simd.add_f32s(one, exp2(simd, simd.mul_f32s(slope, x))));
    (gate, square)
}

/// GELU in GPT-2's tanh form.
#[inline(always)]
pub(crate) fn gelu<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    simd.mul_f32s(x, gelu_gate(simd, x).0)
}

/// GELU and its derivative.
#[inline(always)]
pub(crate) fn gelu_and_slope<S: Simd>(simd: S, x: S::f32s) -> (S::f32s, S::f32s) {
    let (gate, square) = gelu_gate(simd, x);
    let value = simd.mul_f32s(x, gate);
    // σ + x·σ·(1 − σ)·(3·CUBE·x² + LINE)
    let inner = simd.mul_add_e_f32s(square, simd.splat_f32s(3.0 * CUBE), simd.splat_f32s(LINE));
    let rest = simd.mul_f32s(value, simd.sub_f32s(simd.splat_f32s(1.0), gate));
    (value, simd.mul_add_e_f32s(rest, inner, gate))
}

/// σ(x). Beyond ±80 it has reached 1, or 2⁻¹¹⁵, and stays there.
#[inline(always)]
pub(crate) fn sigmoid<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    let x = simd.min_f32s(simd.splat_f32s(80.0), simd.max_f32s(simd.splat_f32s(-80.0), x));
    let one = simd.splat_f32s(1.0);
    let power = exp2(simd, simd.mul_f32s(x, simd.splat_f32s(-LOG2_E)));
    simd.div_f32s(one, simd.add_f32s(one, power))
}

/// tanh(x) = 2σ(2x) − 1: its error is a few 2⁻²⁴ of 1, not of itself.
#[inline(always)]
pub(crate) fn tanh<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    let gate = sigmoid(simd, simd.add_f32s(x, x));
    simd.sub_f32s(simd.add_f32s(gate, gate), simd.splat_f32s(1.0))
}

/// A row of filters and gates becomes tanh of the first half and σ of the second, and `h` their product.
#[inline(always)]
pub(crate) fn gates<S: Simd>(simd: S, row: &mut [f32], h: &mut [f32]) {
    let (filter, gate) = row.split_at_mut(h.len());
    let vectors = filter.chunks_mut(S::F32_LANES).zip(gate.chunks_mut(S::F32_LANES));
    for ((filter, gate), h) in vectors.zip(h.chunks_mut(S::F32_LANES)) {
        let (a, b) = (tanh(simd, load(simd, filter)), sigmoid(simd, load(simd, gate)));
        store(simd, filter, a);
        store(simd, gate, b);
        store(simd, h, simd.mul_f32s(a, b));
    }
}

/// y[i] = f(x[i]).
#[inline(always)]
pub(crate) fn map<S: Simd>(simd: S, x: &[f32], y: &mut [f32], f: impl Fn(S::f32s) -> S::f32s) {
    for (x, y) in x.chunks(S::F32_LANES).zip(y.chunks_mut(S::F32_LANES)) {
        store(simd, y, f(load(simd, x)));
    }
}

/// y[i] = f(x[i], y[i]).
#[inline(always)]
pub(crate) fn update<S: Simd>(simd: S, x: &[f32], y: &mut [f32], f: impl Fn(S::f32s, S::f32s) -> S::f32s) {
    for (x, y) in x.chunks(S::F32_LANES).zip(y.chunks_mut(S::F32_LANES)) {
        let value = f(load(simd, x), load(simd, y));
        store(simd, y, value);
    }
}

/// y += x
#[inline(always)]
pub(crate) fn add<S: Simd>(simd: S, x: &[f32], y: &mut [f32]) {
    update(simd, x, y, |x, y| simd.add_f32s(y, x));
}

/// Sum of f(a[i], b[i]); lanes first, then the lanes together, then what is left over.
#[inline(always)]
pub(crate) fn sum_of<S: Simd>(
    simd: S,
    a: &[f32],
    b: &[f32],
    f: impl Fn(S::f32s, S::f32s) -> S::f32s,
    g: impl Fn(f32, f32) -> f32,
) -> f32 {
    let (a, a_tail) = S::as_simd_f32s(a);
    let (b, b_tail) = S::as_simd_f32s(b);
    let mut sum = simd.splat_f32s(0.0);
    for (&a, &b) in a.iter().zip(b) {
        sum = simd.add_f32s(sum, f(a, b));
    }
    a_tail.iter().zip(b_tail).fold(simd.reduce_sum_f32s(sum), |sum, (&a, &b)| sum + g(a, b))
}

/// Σ a[i]·b[i]
#[inline(always)]
pub(crate) fn dot<S: Simd>(simd: S, a: &[f32], b: &[f32]) -> f32 {
    sum_of(simd, a, b, |a, b| simd.mul_f32s(a, b), |a, b| a * b)
}

/// The largest element; −∞ for none.
#[inline(always)]
pub(crate) fn largest<S: Simd>(simd: S, x: &[f32]) -> f32 {
    let (x, tail) = S::as_simd_f32s(x);
    let mut most = simd.splat_f32s(f32::NEG_INFINITY);
    for &x in x {
        most = simd.max_f32s(most, x);
    }
    tail.iter().fold(simd.reduce_max_f32s(most), |most, &x| most.max(x))
}

/// Replaces logits by exp(logit − largest) and returns (largest, sum): the row's softmax, not yet divided by its sum.
#[inline(always)]
pub(crate) fn exponentials<S: Simd>(simd: S, row: &mut [f32]) -> (f32, f32) {
    let most = largest(simd, row);
    let (factor, most_splat) = (simd.splat_f32s(LOG2_E), simd.splat_f32s(most));
    let (vectors, tail) = S::as_mut_simd_f32s(row);
    let mut sum = simd.splat_f32s(0.0);
    for x in vectors {
        *x = exp2(simd, simd.mul_f32s(simd.sub_f32s(*x, most_splat), factor));
        sum = simd.add_f32s(sum, *x);
    }
    let x = exp2(simd, simd.mul_f32s(simd.sub_f32s(simd.partial_load_f32s(tail), most_splat), factor));
    simd.partial_store_f32s(tail, x);
    (most, tail.iter().fold(simd.reduce_sum_f32s(sum), |sum, &x| sum + x))
}

/// Adds the rows of `x` (each `width` wide, `ld` apart) to `sum`, in their order.
#[inline(always)]
pub(crate) fn add_rows<S: Simd>(simd: S, rows: usize, width: usize, x: &[f32], ld: usize, sum: &mut [f32]) {
    for column in (0..width).step_by(S::F32_LANES) {
        let lanes = S::F32_LANES.min(width - column);
        let mut total = simd.splat_f32s(0.0);
        for row in 0..rows {
            total = simd.add_f32s(total, load(simd, &x[row * ld + column..][..lanes]));
        }
        let sum = &mut sum[column..][..lanes];
        let value = simd.add_f32s(load(simd, sum), total);
        store(simd, sum, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pulp::{Arch, WithSimd};

    /// Elementwise functions over a slice, to be dispatched.
    struct Evaluate<'a> {
        x: &'a [f32],
        y: &'a mut [f32],
        slope: &'a mut [f32],
        gelu: bool,
    }

    impl WithSimd for Evaluate<'_> {
        type Output = ();
        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) {
            let lanes = S::F32_LANES;
            for ((x, y), slope) in self.x.chunks(lanes).zip(self.y.chunks_mut(lanes)).zip(self.slope.chunks_mut(lanes))
            {
                let x = load(simd, x);
                let (value, derivative) = if self.gelu { gelu_and_slope(simd, x) } else { (exp2(simd, x), x) };
                store(simd, y, value);
                store(simd, slope, derivative);
            }
        }
    }

    fn evaluate(arch: Arch, gelu: bool, x: &[f32]) -> (Vec<f32>, Vec<f32>) {
        let (mut y, mut slope) = (vec![0.0; x.len()], vec![0.0; x.len()]);
        arch.dispatch(Evaluate { x, y: &mut y, slope: &mut slope, gelu });
        (y, slope)
    }

    fn archs() -> Vec<Arch> {
        let mut archs = vec![Arch::Scalar, Arch::new()];
        #[cfg(target_arch = "x86_64")]
        archs.extend(pulp::x86::V3::try_new().map(Arch::V3));
        archs
    }

    /// Every 997th float, of either sign, with magnitudes up to `most`.
    fn floats(most: f32) -> Vec<f32> {
        let magnitudes = (0..=most.to_bits()).step_by(997).map(f32::from_bits);
        magnitudes.flat_map(|x| [x, -x]).collect()
    }

    #[test]
    fn exp2_keeps_its_error() {
        let x = floats(126.0);
        for arch in archs() {
            for (&x, y) in x.iter().zip(evaluate(arch, false, &x).0) {
                let truth = f64::from(x).exp2();
                assert!((f64::from(y) - truth).abs() <= truth * 2f64.powi(-23), "2^{x} = {truth}, not {y}");
            }
            let (edges, _) = evaluate(arch, false, &[-127.0, -1e30, f32::NEG_INFINITY, f32::NAN, 0.0, 127.0]);
            assert_eq!(edges[..3], [0.0; 3]);
            assert!(edges[3].is_nan());
            assert_eq!(edges[4..], [1.0, 2f32.powi(127)]);
        }
    }

    #[test]
    fn gelu_keeps_its_error() {
        let x = floats(20.0);
        for arch in archs() {
            let (y, slope) = evaluate(arch, true, &x);
            for ((&x, y), slope) in x.iter().zip(y).zip(slope) {
                let v = f64::from(x);
                let root = (2.0 / std::f64::consts::PI).sqrt();
                // σ(2u) and its complement, each without cancellation; u is rounded a few times, so that its error
                // grows with itself.
                let u = root * (v + 0.044715 * v.powi(3));
                let (gate, other) = (1.0 / (1.0 + (-2.0 * u).exp()), 1.0 / (1.0 + (2.0 * u).exp()));
                let rounding = 2f64.powi(-24);
                let bound = gate * rounding * (6.0 + 16.0 * other * u.abs());
                let truth = v * gate;
                let error = (f64::from(y) - truth).abs();
                let tiny = f64::from(f32::MIN_POSITIVE);
                assert!(
                    error <= v.abs() * (bound + 1e-37) + rounding * truth.abs() + tiny,
                    "gelu({x}) = {truth}, not {y}"
                );

                let inner = 2.0 * root * (1.0 + 3.0 * 0.044715 * v * v);
                let truth = gate + v * gate * other * inner;
                // 1 − σ is rounded to 2⁻²⁴, and enters times x · σ · inner.
                let bound = bound * (1.0 + v.abs() * inner) + 8.0 * rounding * (gate + v.abs() * gate * inner);
                let error = (f64::from(slope) - truth).abs();
                assert!(error <= bound + 1e-35, "gelu'({x}) = {truth}, not {slope}");
            }
            let (edges, _) = evaluate(arch, true, &[0.0, 1e30, -1e30, f32::NAN]);
            assert_eq!(edges[..2], [0.0, 1e30]);
            assert!(edges[2].abs() < 1e-7 && edges[3].is_nan());
        }
    }
}
