//! The stages as a program without fused kernels computes them in mixed precision: every tensor between two operators is
//! rounded to bf16, the residual stream is not. Inside an operator f64, so that nothing but bf16 is measured.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::cell::Cell;

thread_local! {
    /// The unit that numbers are rounded in.
    static UNIT: Cell<f64> = const { Cell::new(1.0) };
}

/// What `compute` gives if all numbers are measured in `unit`: the same computation, bf16's numbers lying elsewhere.
pub fn in_unit<R>(unit: f64, compute: impl FnOnce() -> R) -> R {
    UNIT.set(unit);
    let result = compute();
    UNIT.set(1.0);
    result
}

/// A tensor of the unfused computation: of one for each unit, the middle one by its largest error.
pub fn typical(truth: impl Iterator<Item = f64> + Clone, mut units: Vec<Vec<f64>>) -> Vec<f64> {
    let error =
        |of: &[f64]| of.iter().zip(truth.clone()).fold(0.0, |most: f64, (x, truth)| most.max((x - truth).abs()));
    units.sort_by(|a, b| error(a).total_cmp(&error(b)));
    units.swap_remove(units.len() / 2)
}

/// Rounds to bf16.
pub fn round(x: f64) -> f64 {
    let unit = UNIT.get();
    half::bf16::from_f64(x / unit).to_f64() * unit
}

/// Rows of `columns` numbers.
#[derive(Clone)]
pub struct Rows {
    pub columns: usize,
    pub data: Vec<f64>,
}

impl Rows {
    pub fn exact(columns: usize, data: &[f32]) -> Self {
        Self { columns, data: data.iter().map(|&x| f64::from(x)).collect() }
    }

    pub fn rounded(columns: usize, data: &[f32]) -> Self {
        Self::exact(columns, data).round()
    }

    pub fn round(mut self) -> Self {
        self.data.iter_mut().for_each(|x| *x = round(*x));
        self
    }

    pub fn rows(&self) -> std::slice::ChunksExact<'_, f64> {
        self.data.chunks_exact(self.columns)
    }

    pub fn transposed(&self) -> Self {
        let n = self.data.len() / self.columns;
        let data = (0..self.columns).flat_map(|j| (0..n).map(move |i| (i, j)));
        Self { columns: n, data: data.map(|(i, j)| self.data[i * self.columns + j]).collect() }
    }

    /// A product and a row added to it, rounded once.
    pub fn times(&self, other: &Self, bias: &[f32]) -> Self {
        let mut data = Vec::new();
        for row in self.rows() {
            let mut sum: Vec<f64> = bias.iter().map(|&b| f64::from(b)).collect();
            sum.resize(other.columns, 0.0);
            for (&x, other) in row.iter().zip(other.rows()) {
                sum.iter_mut().zip(other).for_each(|(sum, &y)| *sum += x * y);
            }
            data.extend(sum);
        }
        Self { columns: other.columns, data }.round()
    }
}

/// Normalised rows in full, and their factors.
pub fn normalize(x: &Rows) -> (Rows, Vec<f64>) {
    let n = x.columns as f64;
    let (mut data, mut factors) = (Vec::new(), Vec::new());
    for row in x.rows() {
        let mean = row.iter().sum::<f64>() / n;
        let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
        let factor = 1.0 / (variance + 1e-5).sqrt();
        data.extend(row.iter().map(|x| (x - mean) * factor));
        factors.push(factor);
    }
    (Rows { columns: x.columns, data }, factors)
}

fn norm(x: &Rows, weight: &[f32], bias: &[f32]) -> Rows {
    let (mut out, _) = normalize(x);
    for row in out.data.chunks_exact_mut(x.columns) {
        for ((x, &w), &b) in row.iter_mut().zip(weight).zip(bias) {
            *x = *x * f64::from(w) + f64::from(b);
        }
    }
    out.round()
}

fn softmax(scores: &[f64]) -> Vec<f64> {
    let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let exponentials: Vec<f64> = scores.iter().map(|s| (s - most).exp()).collect();
    let sum: f64 = exponentials.iter().sum();
    exponentials.iter().map(|p| p / sum).collect()
}

/// What the half-block adds to rows from `from` on of one sequence; parameters as in the bench.
pub fn attention(parts: &[Vec<f32>], x: &[f32], e: usize, h: usize, from: usize) -> Vec<f64> {
    let (t, d) = (x.len() / e, e / h);
    let normed = norm(&Rows::exact(e, x), &parts[0], &parts[1]);
    let qkv = normed.times(&Rows::rounded(3 * e, &parts[2]), &parts[3]);
    let mut answer = vec![0.0; (t - from) * e];
    for head in 0..h {
        let at = |i: usize, part: usize| &qkv.data[i * 3 * e + part * e + head * d..][..d];
        for i in from..t {
            let dot = |j: usize| at(i, 0).iter().zip(at(j, 1)).map(|(q, k)| q * k).sum::<f64>() / (d as f64).sqrt();
            let scores: Vec<f64> = (0..=i).map(|j| round(dot(j))).collect();
            for (j, p) in softmax(&scores).into_iter().enumerate() {
                let out = &mut answer[(i - from) * e + head * d..][..d];
                out.iter_mut().zip(at(j, 2)).for_each(|(out, v)| *out += round(p) * v);
            }
        }
    }
    Rows { columns: e, data: answer }.round().times(&Rows::rounded(e, &parts[4]), &parts[5]).data
}

fn gelu(x: f64) -> f64 {
    0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh())
}

/// What the half-block adds to rows.
pub fn mlp(parts: &[Vec<f32>], x: &[f32], e: usize) -> Vec<f64> {
    let normed = norm(&Rows::exact(e, x), &parts[0], &parts[1]);
    let mut hidden = normed.times(&Rows::rounded(4 * e, &parts[2]), &parts[3]);
    hidden.data.iter_mut().for_each(|x| *x = round(gelu(*x)));
    hidden.times(&Rows::rounded(e, &parts[4]), &parts[5]).data
}

/// Loss of each row, logits and gradients of rows.
pub struct Head {
    pub nats: f64,
    pub logits: Vec<f64>,
    pub dx: Vec<f64>,
    pub norm: [Vec<f64>; 2],
    /// [Q, E].
    pub weight: Vec<f64>,
}

pub fn head([weight, bias]: [&[f32]; 2], matrix: &[f32], x: &[f32], targets: &[u8], factor: f32) -> Head {
    let e = weight.len();
    let q = matrix.len() / e;
    let matrix = Rows::rounded(e, matrix);
    let normed = norm(&Rows::exact(e, x), weight, bias);
    let logits = normed.times(&matrix.transposed(), &[]);
    let mut nats = 0.0;
    let mut dlogits = logits.clone();
    for (row, &target) in dlogits.data.chunks_exact_mut(q).zip(targets) {
        let p = softmax(row);
        nats -= p[usize::from(target)].ln();
        for (level, (out, p)) in row.iter_mut().zip(p).enumerate() {
            *out = round(f64::from(factor) * (p - f64::from(u8::from(level == usize::from(target)))));
        }
    }
    let dweight = dlogits.transposed().times(&normed, &[]);
    let dy = dlogits.times(&matrix, &[]);
    let (dx, norm) = norm_backward(&dy, &Rows::exact(e, x), weight);
    Head { nats, logits: logits.data, dx: dx.data, norm, weight: dweight.data }
}

/// The gradient of normalised rows' input from that of the norm's output `dy`; and those of the norm's weight and bias.
fn norm_backward(dy: &Rows, x: &Rows, weight: &[f32]) -> (Rows, [Vec<f64>; 2]) {
    let (normal, factors) = normalize(x);
    let e = x.columns;
    let (mut dw, mut db) = (vec![0.0; e], vec![0.0; e]);
    let mut data = Vec::new();
    for ((dy, normal), scale) in dy.rows().zip(normal.rows()).zip(factors) {
        for (j, (&dy, &x)) in dy.iter().zip(normal).enumerate() {
            dw[j] += dy * x;
            db[j] += dy;
        }
        let g: Vec<f64> = dy.iter().zip(weight).map(|(dy, &w)| dy * f64::from(w)).collect();
        let mean = g.iter().sum::<f64>() / e as f64;
        let slope = g.iter().zip(normal).map(|(g, x)| g * x).sum::<f64>() / e as f64;
        data.extend(g.iter().zip(normal).map(|(g, x)| scale * (g - mean - x * slope)));
    }
    (Rows { columns: e, data }, [dw, db])
}

fn sums(rows: &Rows) -> Vec<f64> {
    (0..rows.columns).map(|j| round(rows.rows().map(|row| row[j]).sum())).collect()
}

/// What the input's gradient gains over the output's (all rows), and the gradients of the six parameters.
pub fn mlp_backward(parts: &[Vec<f32>], x: &[f32], dout: &[f32], e: usize) -> (Vec<f64>, Vec<Vec<f64>>) {
    let x = Rows::exact(e, x);
    let normed = norm(&x, &parts[0], &parts[1]);
    let (fc, proj) = (Rows::rounded(4 * e, &parts[2]), Rows::rounded(e, &parts[4]));
    let hidden = normed.times(&fc, &parts[3]);
    let mut active = hidden.clone();
    active.data.iter_mut().for_each(|x| *x = round(gelu(*x)));
    let dout = Rows::rounded(e, dout);
    let mut dhidden = dout.times(&proj.transposed(), &[]);
    for (d, &x) in dhidden.data.iter_mut().zip(&hidden.data) {
        // The slope by a difference: its error, 1e-10, is far below bf16's.
        *d = round(*d * (gelu(x + 1e-5) - gelu(x - 1e-5)) / 2e-5);
    }
    let dy = dhidden.times(&fc.transposed(), &[]);
    let (dx, [dw, db]) = norm_backward(&dy, &x, &parts[0]);
    let dfc = normed.transposed().times(&dhidden, &[]);
    let dproj = active.transposed().times(&dout, &[]);
    (dx.data, vec![dw, db, dfc.data, sums(&dhidden), dproj.data, sums(&dout)])
}

/// As [`mlp_backward`]; `dout` has all rows, and those before `from` are not read.
pub fn attention_backward(
    parts: &[Vec<f32>],
    x: &[f32],
    dout: &[f32],
    e: usize,
    h: usize,
    from: usize,
) -> (Vec<f64>, Vec<Vec<f64>>) {
    let (t, d) = (x.len() / e, e / h);
    let scale = 1.0 / (d as f64).sqrt();
    let x = Rows::exact(e, x);
    let normed = norm(&x, &parts[0], &parts[1]);
    let (wide, proj) = (Rows::rounded(3 * e, &parts[2]), Rows::rounded(e, &parts[4]));
    let qkv = normed.times(&wide, &parts[3]);
    let dout = Rows::rounded(e, &dout[from * e..]);
    let danswer = dout.times(&proj.transposed(), &[]);
    let (mut answer, mut dqkv) = (vec![0.0; (t - from) * e], vec![0.0; t * 3 * e]);
    for head in 0..h {
        let at = |i: usize, part: usize| &qkv.data[i * 3 * e + part * e + head * d..][..d];
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        for i in from..t {
            let scores: Vec<f64> = (0..=i).map(|j| round(dot(at(i, 0), at(j, 1)) * scale)).collect();
            let p: Vec<f64> = softmax(&scores).into_iter().map(round).collect();
            let at_answer = (i - from) * e + head * d;
            let d_o = &danswer.data[at_answer..][..d];
            let dp: Vec<f64> = (0..=i).map(|j| round(dot(d_o, at(j, 2)))).collect();
            let sum = dot(&p, &dp);
            for j in 0..=i {
                let ds = round(p[j] * (dp[j] - sum));
                for c in 0..d {
                    answer[at_answer + c] += p[j] * at(j, 2)[c];
                    dqkv[i * 3 * e + head * d + c] += ds * at(j, 1)[c] * scale;
                    dqkv[j * 3 * e + e + head * d + c] += ds * at(i, 0)[c] * scale;
                    dqkv[j * 3 * e + 2 * e + head * d + c] += p[j] * d_o[c];
                }
            }
        }
    }
    let (answer, dqkv) = (Rows { columns: e, data: answer }.round(), Rows { columns: 3 * e, data: dqkv }.round());
    let dy = dqkv.times(&wide.transposed(), &[]);
    let (dx, [dw, db]) = norm_backward(&dy, &x, &parts[0]);
    let dwide = normed.transposed().times(&dqkv, &[]);
    let dproj = answer.transposed().times(&dout, &[]);
    (dx.data, vec![dw, db, dwide.data, sums(&dqkv), dproj.data, sums(&dout)])
}
