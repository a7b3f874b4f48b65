//! The stages of the network as plainly as they can be written, in f64 with error bounds: what every device is compared
//! with. It shares no code with them.
//!
//! One sequence at a time; rows are timesteps. Gradients are those of a scalar whose gradient with respect to the stage's
//! output is given.

#![allow(dead_code, reason = "each test binary uses its part")]

pub mod network;
pub mod number;
pub mod wavenet;

use number::{Matrix, Number, TINY, U, dot};

/// Weight and bias of a LayerNorm, a matrix or whatever has both.
#[derive(Debug, Clone, Default)]
pub struct Affine {
    pub weight: Matrix,
    pub bias: Vec<Number>,
}

impl Affine {
    fn apply(&self, x: &Matrix) -> Matrix {
        x.times(&self.weight).plus_row(&self.bias)
    }
}

/// The parameters of a half-block, or their gradients.
#[derive(Debug, Clone, Default)]
pub struct HalfBlock {
    pub norm: Affine,
    /// qkv of attention, fc of the MLP.
    pub first: Affine,
    pub proj: Affine,
}

/// Normalised rows and their factor.
fn normalize(x: &Matrix) -> (Matrix, Vec<Number>) {
    let n = Number::from(x.columns as f32);
    let mut normal = x.clone();
    let mut factors = Vec::new();
    for i in 0..x.rows {
        let row = x.row(i);
        let mean = row.iter().copied().sum::<Number>() / n;
        let centred: Vec<_> = row.iter().map(|&x| x - mean).collect();
        let variance = dot(centred.iter(), centred.iter()) / n;
        let factor = Number::from(1.0) / (variance + Number::within(1e-5, 1e-5 * U)).sqrt();
        for (out, centred) in normal.data[i * x.columns..].iter_mut().zip(centred) {
            *out = centred * factor;
        }
        factors.push(factor);
    }
    (normal, factors)
}

fn scale_and_shift(normal: &Matrix, norm: &Affine) -> Matrix {
    let weight = &norm.weight.data;
    Matrix::from_fn(normal.rows, normal.columns, |i, j| normal.at(i, j) * weight[j] + norm.bias[j])
}

/// Gradients of the norm's input, weight and bias from that of its output.
fn normalize_backward(dy: &Matrix, normal: &Matrix, factors: &[Number], norm: &Affine) -> (Matrix, Affine) {
    let n = Number::from(dy.columns as f32);
    let weight = (0..dy.columns).map(|j| {
        let (dy, normal): (Vec<_>, Vec<_>) = (0..dy.rows).map(|i| (dy.at(i, j), normal.at(i, j))).unzip();
        dot(dy.iter(), normal.iter())
    });
    let grads = Affine { weight: Matrix::new(1, dy.columns, weight.collect()), bias: dy.column_sums() };
    let mut dx = dy.clone();
    for (i, &factor) in factors.iter().enumerate() {
        let g: Vec<_> = dy.row(i).iter().zip(&norm.weight.data).map(|(&dy, &w)| dy * w).collect();
        let mean = g.iter().copied().sum::<Number>() / n;
        let slope = dot(g.iter(), normal.row(i).iter()) / n;
        for (j, &g) in g.iter().enumerate() {
            dx.data[i * dy.columns + j] = (g - mean - normal.at(i, j) * slope) * factor;
        }
    }
    (dx, grads)
}

/// Softmax of a row of scores, each multiplied by `scale` first.
///
/// A device may multiply before it subtracts the largest score, so the argument carries the rounding of largest · scale
/// beside its own. The largest score itself needs no error: whatever is subtracted from all, the result is the same.
pub fn softmax(scores: &[Number], scale: f64) -> Vec<Number> {
    let most = scores.iter().map(|s| s.v).fold(f64::NEG_INFINITY, f64::max);
    let exponentials: Vec<_> = scores
        .iter()
        .map(|s| {
            let v = (s.v - most) * scale;
            let own = U * (4.0 * v.abs() + 2.0 * (most * scale).abs());
            Number::new(v, s.e * scale + own, s.variance * scale * scale + own * own).exp()
        })
        .collect();
    let sum: Number = exponentials.iter().copied().sum();
    exponentials.iter().map(|&p| p / sum).collect()
}

/// What the attention half-block computes on its way.
pub struct Attention {
    pub out: Matrix,
    normal: Matrix,
    factors: Vec<Number>,
    normed: Matrix,
    qkv: Matrix,
    /// For each head, [T', T], zero beyond the diagonal.
    softmax: Vec<Matrix>,
    answer: Matrix,
}

/// Rows from `from` on of the half-block's output: [T', E].
pub fn attention(params: &HalfBlock, x: &Matrix, n_head: usize, from: usize) -> Attention {
    let (t, e) = (x.rows, x.columns);
    let (d, rows) = (e / n_head, t - from);
    let (normal, factors) = normalize(x);
    let normed = scale_and_shift(&normal, &params.norm);
    let qkv = params.first.apply(&normed);
    let mut heads = Vec::new();
    let mut answer = Matrix::new(rows, e, vec![Number::default(); rows * e]);
    for head in 0..n_head {
        let [q, k, v] = [0, e, 2 * e].map(|part| qkv.part(0, part + head * d, d));
        let mut p = Matrix::new(rows, t, vec![Number::default(); rows * t]);
        for i in from..t {
            let scores: Vec<_> = (0..=i).map(|j| dot(q.row(i).iter(), k.row(j).iter())).collect();
            let row = softmax(&scores, 1.0 / (d as f64).sqrt());
            p.data[(i - from) * t..][..=i].copy_from_slice(&row);
        }
        let out = p.times(&v);
        for i in 0..rows {
            answer.data[i * e + head * d..][..d].copy_from_slice(out.row(i));
        }
        heads.push(p);
    }
    let out = params.proj.apply(&answer).plus(&x.part(from, 0, e));
    Attention { out, normal, factors, normed, qkv, softmax: heads, answer }
}

/// Gradients of the input (all rows) and the parameters, from that of the output (rows from `from` on).
pub fn attention_backward(
    params: &HalfBlock,
    forward: &Attention,
    dout: &Matrix,
    n_head: usize,
    from: usize,
) -> (Matrix, HalfBlock) {
    let (t, e) = (forward.qkv.rows, dout.columns);
    let (d, rows) = (e / n_head, t - from);
    let proj = Affine { weight: forward.answer.transposed().times(dout), bias: dout.column_sums() };
    let d_answer = dout.times(&params.proj.weight.transposed());
    let mut dqkv = Matrix::new(t, 3 * e, vec![Number::default(); t * 3 * e]);
    // Both factors are rounded: 1/√d, and its product.
    let scale = Number::within(1.0 / (d as f64).sqrt(), 2.0 * U / (d as f64).sqrt());
    for head in 0..n_head {
        let [q, k, v] = [0, e, 2 * e].map(|part| forward.qkv.part(0, part + head * d, d));
        let p = &forward.softmax[head];
        let d_out = d_answer.part(0, head * d, d);
        let dp = d_out.times(&v.transposed());
        let out = forward.answer.part(0, head * d, d);
        let sums: Vec<_> = (0..rows).map(|i| dot(d_out.row(i).iter(), out.row(i).iter())).collect();
        let ds = Matrix::from_fn(rows, t, |i, j| p.at(i, j) * (dp.at(i, j) - sums[i]) * scale);
        let dq = ds.times(&k);
        let dk = ds.transposed().times(&q.part(from, 0, d));
        let dv = p.transposed().times(&d_out);
        for (part, gradient, first) in [(0, dq, from), (e, dk, 0), (2 * e, dv, 0)] {
            for i in 0..gradient.rows {
                let to = (first + i) * 3 * e + part + head * d;
                dqkv.data[to..][..d].copy_from_slice(gradient.row(i));
            }
        }
    }
    let first = Affine { weight: forward.normed.transposed().times(&dqkv), bias: dqkv.column_sums() };
    let dnormed = dqkv.times(&params.first.weight.transposed());
    let (mut dx, norm) = normalize_backward(&dnormed, &forward.normal, &forward.factors, &params.norm);
    for i in from..t {
        for j in 0..e {
            dx.data[i * e + j] = dx.at(i, j) + dout.at(i - from, j);
        }
    }
    (dx, HalfBlock { norm, first, proj })
}

/// tanh-GELU and its slope. A device evaluates σ(a) with a = 2√(2/π)(x + 0.044715x³): the argument is rounded about six
/// times, the exponential and the division thrice, and 1 − σ is rounded to u. |GELU''| stays below 1.2.
pub fn gelu(x: Number) -> (Number, Number) {
    let c = 2.0 * (2.0 / std::f64::consts::PI).sqrt();
    let (a, da) = (c * (x.v + 0.044715 * x.v.powi(3)), c * (1.0 + 3.0 * 0.044715 * x.v * x.v));
    // σ and 1 − σ, each without cancellation.
    let (gate, other) = (1.0 / (1.0 + (-a).exp()), 1.0 / (1.0 + a.exp()));
    let (value, slope) = (x.v * gate, gate + x.v * gate * other * da);
    let gate_error = gate * other * a.abs() * 8.0 * U + 6.0 * U * gate + TINY;
    let value_error = x.v.abs() * gate_error + U * value.abs();
    let slope_error = gate_error * (1.0 + x.v.abs() * da) + x.v.abs() * gate * da * (6.0 * U * other + 2.0 * U);
    (
        Number::new(
            value,
            (slope.abs() + 1.2 * x.e) * x.e + value_error,
            slope * slope * x.variance + value_error * value_error,
        ),
        Number::new(
            slope,
            1.2 * x.e + slope_error + U * slope.abs(),
            1.44 * x.variance + slope_error * slope_error + (U * slope).powi(2),
        ),
    )
}

/// What the MLP half-block computes on its way.
pub struct Mlp {
    pub out: Matrix,
    normal: Matrix,
    factors: Vec<Number>,
    normed: Matrix,
    hidden: Matrix,
    active: Matrix,
}

pub fn mlp(params: &HalfBlock, x: &Matrix) -> Mlp {
    let (normal, factors) = normalize(x);
    let normed = scale_and_shift(&normal, &params.norm);
    let hidden = params.first.apply(&normed);
    let active = Matrix::from_fn(hidden.rows, hidden.columns, |i, j| gelu(hidden.at(i, j)).0);
    let out = params.proj.apply(&active).plus(x);
    Mlp { out, normal, factors, normed, hidden, active }
}

pub fn mlp_backward(params: &HalfBlock, forward: &Mlp, dout: &Matrix) -> (Matrix, HalfBlock) {
    let proj = Affine { weight: forward.active.transposed().times(dout), bias: dout.column_sums() };
    let d_active = dout.times(&params.proj.weight.transposed());
    let d_hidden =
        Matrix::from_fn(d_active.rows, d_active.columns, |i, j| d_active.at(i, j) * gelu(forward.hidden.at(i, j)).1);
    let first = Affine { weight: forward.normed.transposed().times(&d_hidden), bias: d_hidden.column_sums() };
    let dnormed = d_hidden.times(&params.first.weight.transposed());
    let (dx, norm) = normalize_backward(&dnormed, &forward.normal, &forward.factors, &params.norm);
    (dx.plus(dout), HalfBlock { norm, first, proj })
}

/// The head's result for one sequence.
pub struct Head {
    pub logits: Matrix,
    /// Sums over the targets. Where two logits are nearer than their errors, either may be the larger, so what depends
    /// on their order is a range.
    pub nats: Number,
    pub top1: (f64, f64),
    pub top5: (f64, f64),
    pub squared: (f64, f64),
    /// Gradients of weight · nats.
    pub dx: Matrix,
    pub norm: Affine,
    pub weight: Matrix,
}

/// Final norm, logits and cross-entropy of rows `x` with their `targets`; `weight` is [Q, E].
pub fn head(norm: &Affine, weight: &Matrix, x: &Matrix, targets: &[u8], levels: &[f32], factor: f32) -> Head {
    let (normal, factors) = normalize(x);
    let normed = scale_and_shift(&normal, norm);
    let logits = normed.times(&weight.transposed());
    let Entropy { dlogits, nats, top1, top5, squared } = cross_entropy(&logits, targets, levels, factor);
    let dweight = dlogits.transposed().times(&normed);
    let dnormed = dlogits.times(weight);
    let (dx, dnorm) = normalize_backward(&dnormed, &normal, &factors, norm);
    Head { logits, nats, top1, top5, squared, dx, norm: dnorm, weight: dweight }
}

/// The cross-entropy of rows of logits: see [`Head`].
pub struct Entropy {
    pub dlogits: Matrix,
    pub nats: Number,
    pub top1: (f64, f64),
    pub top5: (f64, f64),
    pub squared: (f64, f64),
}

/// Cross-entropy of `logits` with their `targets`, and `factor` times its gradient.
pub fn cross_entropy(logits: &Matrix, targets: &[u8], levels: &[f32], factor: f32) -> Entropy {
    let q = logits.columns;
    let mut dlogits = logits.clone();
    let mut nats = Vec::new();
    let (mut top1, mut top5, mut squared) = ((0.0, 0.0), (0.0, 0.0), (0.0, 0.0));
    for (i, &target) in targets.iter().enumerate() {
        let (row, target) = (logits.row(i), usize::from(target));
        let most = row.iter().map(|l| l.v).fold(f64::NEG_INFINITY, f64::max);
        let p = softmax(row, 1.0);
        // −ln p, from the logits: a relative error of the sum of exponentials is an absolute one of its logarithm.
        let exponentials = row.iter().map(|l| {
            let own = U * (4.0 * (l.v - most).abs() + 2.0 * most.abs());
            Number::new(l.v - most, l.e + own, l.variance + own * own).exp()
        });
        let sum: Number = exponentials.sum();
        let loss = sum.v.ln() + most - row[target].v;
        let own = U * (most.abs() + row[target].v.abs());
        let variance = sum.variance / sum.v.powi(2) + row[target].variance + own * own;
        nats.push(Number::new(loss, sum.e / sum.v + row[target].e + own, variance));
        // Levels that surely come before the target (by value, then by number), and those that may.
        let before = |slack: f64| {
            let comes_first = |(level, l): (usize, &Number)| {
                let lead = l.v - row[target].v + slack * (l.e + row[target].e);
                level != target && (lead > 0.0 || (lead == 0.0 && level < target))
            };
            row.iter().enumerate().filter(|&l| comes_first(l)).count()
        };
        let (least, greatest) = (before(-1.0), before(1.0));
        for (sum, within) in [(&mut top1, 1), (&mut top5, 5)] {
            sum.0 += f64::from(u8::from(greatest < within));
            sum.1 += f64::from(u8::from(least < within));
        }
        let floor = row.iter().map(|l| l.v - l.e).fold(f64::NEG_INFINITY, f64::max);
        let errors = (0..q).filter(|&l| row[l].v + row[l].e >= floor);
        let errors: Vec<_> = errors.map(|l| f64::from(levels[l] - levels[target]).powi(2)).collect();
        squared.0 += errors.iter().copied().fold(f64::INFINITY, f64::min);
        squared.1 += errors.iter().copied().fold(0.0, f64::max);
        for (level, p) in p.into_iter().enumerate() {
            let hit = Number::from(if level == target { factor } else { 0.0 });
            dlogits.data[i * q + level] = p * Number::from(factor) - hit;
        }
    }
    Entropy { dlogits, nats: nats.into_iter().sum(), top1, top5, squared }
}
