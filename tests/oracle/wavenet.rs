//! WaveNet, from tokens to the gradient of every parameter: each layer a product of [earlier input, input, condition,
//! subject] with its matrices on top of each other, at every timestep where it is defined.

use super::network::{Batch, Table};
use super::number::{Matrix, Number, TINY, U};
use super::{Entropy, cross_entropy};

#[derive(Debug, Clone)]
pub struct Shape {
    pub dilations: Vec<usize>,
    pub n_ctx: usize,
    pub n_level: usize,
    pub n_channel: usize,
}

pub struct Outcome {
    /// Mean cross-entropy of the last half of the window.
    pub loss: Number,
    pub grads: Table,
    /// For each sequence, what its targets come to.
    pub entropy: Vec<Entropy>,
    /// For each sequence, [T / 2, Q].
    pub logits: Vec<Matrix>,
}

/// σ and its slope. A device's exponential has a relative error of 2u from its argument's rounding for each unit of that, and
/// 2u of its own; the sum and the quotient are rounded, 1 − σ too.
fn sigmoid(x: Number) -> (Number, Number) {
    let (gate, other) = (1.0 / (1.0 + (-x.v).exp()), 1.0 / (1.0 + x.v.exp()));
    let own = gate * other * (3.0 * x.v.abs() + 2.0) * U + 3.0 * U * gate + TINY;
    let slope = gate * other;
    let slope_own = own + gate * U + 2.0 * U * slope;
    (
        Number::new(gate, slope * x.e + 0.1 * x.e * x.e + own, slope * slope * x.variance + own * own),
        // |σ''| stays below 0.1.
        Number::new(slope, 0.1 * x.e + slope_own, 0.01 * x.variance + slope_own * slope_own),
    )
}

/// tanh and its slope, by tanh(x) = 2σ(2x) − 1.
fn tanh(x: Number) -> (Number, Number) {
    let v = x.v.tanh();
    let (gate, other) = (1.0 / (1.0 + (-2.0 * x.v).exp()), 1.0 / (1.0 + (2.0 * x.v).exp()));
    let own = 2.0 * (gate * other * (6.0 * x.v.abs() + 2.0) * U + 3.0 * U * gate + TINY) + U * v.abs();
    let slope = 4.0 * gate * other;
    // 1 − tanh² is the difference of rounded numbers; |tanh''| stays below 0.8.
    let slope_own = 2.0 * v.abs() * own + 2.0 * U;
    (
        Number::new(v, slope * x.e + 0.4 * x.e * x.e + own, slope * slope * x.variance + own * own),
        Number::new(slope, 0.8 * x.e + slope_own, 0.64 * x.variance + slope_own * slope_own),
    )
}

/// Leaky ReLU and its slope; where rounding may move the sign, it may move the slope.
fn leaky(x: Number) -> (Number, Number) {
    let slope = if x.v > 0.0 { 1.0 } else { f64::from(0.01f32) };
    let unsure = if x.v.abs() <= x.e { 1.0 } else { 0.0 };
    let slope = Number::new(slope, unsure, unsure);
    let v = x.v * slope.v;
    (Number::new(v, x.e + U * v.abs(), x.variance + (U * v).powi(2)), slope)
}

fn map(x: &Matrix, f: impl Fn(Number) -> Number) -> Matrix {
    Matrix::from_fn(x.rows, x.columns, |i, j| f(x.at(i, j)))
}

fn times_each(a: &Matrix, b: &Matrix) -> Matrix {
    Matrix::from_fn(a.rows, a.columns, |i, j| a.at(i, j) * b.at(i, j))
}

/// Matrices on top of each other.
fn stacked(parts: &[&Matrix]) -> Matrix {
    let columns = parts[0].columns;
    let data: Vec<_> = parts.iter().flat_map(|part| part.data.iter().copied()).collect();
    Matrix::new(data.len() / columns, columns, data)
}

/// One layer's input rows [earlier, now, condition, subject], of the timesteps from `start` on.
struct Layer {
    start: usize,
    rows: Matrix,
    gate: Matrix,
    h: Matrix,
}

struct Sequence<'a> {
    token: &'a [u8],
    condition: &'a [u16],
    channel: usize,
    subject: usize,
}

struct Network<'a> {
    params: &'a Table,
    shape: &'a Shape,
}

impl Network<'_> {
    fn weight(&self, layer: usize, name: &str) -> &Matrix {
        &self.params[&format!("layers.{layer}.{name}.weight")]
    }

    fn bias(&self, layer: usize, name: &str) -> Option<&Matrix> {
        self.params.get(&format!("layers.{layer}.{name}.bias"))
    }

    fn with_bias(&self, x: Matrix, layer: usize, name: &str) -> Matrix {
        self.bias(layer, name).map_or(x.clone(), |bias| x.plus_row(&bias.data))
    }

    /// The conditions' and the subject's embedding at a timestep.
    fn local(&self, sequence: &Sequence, t: usize) -> Vec<Number> {
        let condition = sequence.condition[t];
        let row = self.params["condition"].row(usize::from(condition));
        let mut local: Vec<_> = row.iter().map(|&x| if condition > 0 { x } else { Number::default() }).collect();
        if let Some(subjects) = self.params.get("subject") {
            local.extend(subjects.row(sequence.subject));
        }
        local
    }

    /// Every layer, and the sum of the skips of the last half of the window.
    fn forward(&self, sequence: &Sequence) -> (Vec<Layer>, Matrix) {
        let (t, from) = (self.shape.n_ctx, self.shape.n_ctx / 2);
        let table = &self.params["token"];
        let row = |t: usize| table.row(sequence.channel * self.shape.n_level + usize::from(sequence.token[t]));
        let (mut x, mut start) = (Matrix::from_fn(t, table.columns, |t, j| row(t)[j]), 0);
        let (mut layers, mut skips): (Vec<Layer>, Option<Matrix>) = (Vec::new(), None);
        for layer in 0..=self.shape.dilations.len() {
            let dilation = if layer == 0 { 0 } else { self.shape.dilations[layer - 1] };
            let before = start;
            start += dilation;
            let rows: Vec<_> = (start..t)
                .flat_map(|t| {
                    let early = if layer == 0 { &[] } else { x.row(t - dilation - before) };
                    [early, x.row(t - before), &self.local(sequence, t)].concat()
                })
                .collect();
            let rows = Matrix::new(t - start, rows.len() / (t - start), rows);
            let gate = rows.times(&stacked(&[self.weight(layer, "conv"), self.weight(layer, "local")]));
            let gate = self.with_bias(self.with_bias(gate, layer, "conv"), layer, "local");
            let e = gate.columns / 2;
            let h = Matrix::from_fn(gate.rows, e, |i, j| tanh(gate.at(i, j)).0 * sigmoid(gate.at(i, e + j)).0);
            let skip = self.with_bias(h.part(from - start, 0, e).times(self.weight(layer, "skip")), layer, "skip");
            skips = Some(skips.map_or(skip.clone(), |sum| sum.plus(&skip)));
            let now = x.part(start - before, 0, x.columns);
            let now = if layer == 0 { self.with_bias(now.times(self.weight(0, "input")), 0, "input") } else { now };
            x = now.plus(&self.with_bias(h.times(self.weight(layer, "res")), layer, "res"));
            layers.push(Layer { start, rows, gate, h });
        }
        (layers, skips.expect("a layer"))
    }

    /// Adds to the gradients what the gradient of the summed skips comes to.
    fn backward(&self, sequence: &Sequence, layers: &[Layer], dskips: &Matrix, grads: &mut Table) {
        let (t, from) = (self.shape.n_ctx, self.shape.n_ctx / 2);
        let zero = Number::default();
        let mut dx: Option<Matrix> = None;
        let mut add = |name: String, gradient: Matrix| {
            let sum = grads.get_mut(&name).unwrap_or_else(|| panic!("no {name}"));
            *sum = sum.plus(&Matrix::new(sum.rows, sum.columns, gradient.data));
        };
        let mut d_local = vec![vec![zero; self.local(sequence, 0).len()]; t];
        for (layer, kept) in layers.iter().enumerate().rev() {
            let (start, e) = (kept.start, kept.h.columns);
            let name = |part: &str| format!("layers.{layer}.{part}.weight");
            let of_bias = |part: &str| format!("layers.{layer}.{part}.bias");
            let sums = |d: &Matrix| Matrix::new(1, d.columns, d.column_sums());
            let all = Matrix::from_fn(t - start, dskips.columns, |i, j| {
                if i + start < from { zero } else { dskips.at(i + start - from, j) }
            });
            add(name("skip"), kept.h.transposed().times(&all));
            let mut dh = all.times(&self.weight(layer, "skip").transposed());
            if let Some(dx) = &dx {
                add(name("res"), kept.h.transposed().times(dx));
                dh = dh.plus(&dx.times(&self.weight(layer, "res").transposed()));
            }
            let dgate = Matrix::from_fn(dh.rows, 2 * e, |i, j| {
                let (filter, gate) = (tanh(kept.gate.at(i, j % e)), sigmoid(kept.gate.at(i, e + j % e)));
                let through = if j < e { gate.0 * filter.1 } else { filter.0 * gate.1 };
                dh.at(i, j % e) * through
            });
            let weights = stacked(&[self.weight(layer, "conv"), self.weight(layer, "local")]);
            let dweights = kept.rows.transposed().times(&dgate);
            let n_conv = self.weight(layer, "conv").rows;
            add(name("conv"), Matrix::from_fn(n_conv, 2 * e, |i, j| dweights.at(i, j)));
            add(name("local"), dweights.part(n_conv, 0, 2 * e));
            let drows = dgate.times(&weights.transposed());
            let dilation = if layer == 0 { 0 } else { self.shape.dilations[layer - 1] };
            let width = if layer == 0 { n_conv } else { n_conv / 2 };
            let before = start - dilation;
            for i in 0..drows.rows {
                for (sum, &x) in d_local[i + start].iter_mut().zip(&drows.row(i)[n_conv..]) {
                    *sum = *sum + x;
                }
            }
            let taps = Matrix::from_fn(t - before, width, |i, j| {
                // As the earlier tap of a later timestep, and as the later tap of its own.
                let early = if layer > 0 && i < drows.rows { drows.at(i, j) } else { zero };
                let late = if i >= dilation { drows.at(i - dilation, n_conv - width + j) } else { zero };
                early + late
            });
            if layer > 0 {
                let through = dx.take();
                dx = Some(match through {
                    None => taps,
                    Some(dx) => Matrix::from_fn(taps.rows, taps.columns, |i, j| {
                        if i < dilation { taps.at(i, j) } else { taps.at(i, j) + dx.at(i - dilation, j) }
                    }),
                });
                continue;
            }
            for part in ["conv", "local"] {
                add(of_bias(part), sums(&dgate));
            }
            add(of_bias("skip"), sums(&all));
            let mut dtokens = taps;
            if let Some(dx) = &dx {
                add(of_bias("res"), sums(dx));
                add(of_bias("input"), sums(dx));
                add(name("input"), kept.rows.part(0, 0, width).transposed().times(dx));
                dtokens = dtokens.plus(&dx.times(&self.weight(0, "input").transposed()));
            }
            let mut add_row = |table: &str, row: usize, gradient: &[Number]| {
                let table = grads.get_mut(table).expect("a table");
                for (j, &x) in gradient.iter().enumerate() {
                    let at = row * table.columns + j;
                    table.data[at] = table.data[at] + x;
                }
            };
            for (s, d_local) in d_local.iter().enumerate() {
                let row = sequence.channel * self.shape.n_level + usize::from(sequence.token[s]);
                add_row("token", row, dtokens.row(s));
                let d_condition = self.params["condition"].columns;
                let (of_condition, of_subject) = d_local.split_at(d_condition);
                if sequence.condition[s] > 0 {
                    add_row("condition", usize::from(sequence.condition[s]), of_condition);
                }
                if !of_subject.is_empty() {
                    add_row("subject", sequence.subject, of_subject);
                }
            }
            return;
        }
    }
}

/// Loss and gradients of whole windows of all channels.
pub fn run(params: &Table, shape: &Shape, batch: &Batch, levels: &[f32]) -> Outcome {
    let (t, half) = (shape.n_ctx, shape.n_ctx / 2);
    let network = Network { params, shape };
    let weight = 1.0 / (batch.token.len() * (t - half)) as f32;
    let mut grads: Table = params
        .iter()
        .map(|(name, p)| (name.clone(), Matrix::from_fn(p.rows, p.columns, |_, _| Number::default())))
        .collect();
    let add = |grads: &mut Table, name: &str, gradient: Matrix| {
        let sum = grads.get_mut(name).expect("a parameter");
        *sum = sum.plus(&Matrix::new(sum.rows, sum.columns, gradient.data));
    };
    let (mut nats, mut entropies, mut all_logits) = (Vec::new(), Vec::new(), Vec::new());
    for window in 0..batch.token.len() / shape.n_channel {
        let of = |c: usize| window * shape.n_channel + c;
        let sequences: Vec<_> = (0..shape.n_channel)
            .map(|c| Sequence {
                token: &batch.token[of(c)],
                condition: &batch.condition[of(c)],
                channel: batch.channel[of(c)] as usize,
                subject: batch.subject[of(c)] as usize,
            })
            .collect();
        let forward: Vec<_> = sequences.iter().map(|sequence| network.forward(sequence)).collect();
        // Channels as rows, all their skips as columns.
        let (rows, s) = (t - half, forward[0].1.columns);
        let skips = Matrix::new(shape.n_channel, rows * s, forward.iter().flat_map(|f| f.1.data.clone()).collect());
        let mixed = params.get("mix").map_or(skips.clone(), |mix| mix.times(&skips));
        let mut dmixed = Vec::new();
        for (c, sequence) in sequences.iter().enumerate() {
            let summed = Matrix::new(rows, s, mixed.row(c).to_vec());
            let first = map(&summed, |x| leaky(x).0);
            let hidden = first.times(&params["head.fc.weight"]).plus_row(&params["head.fc.bias"].data);
            let second = map(&hidden, |x| leaky(x).0);
            let logits = second.times(&params["head.proj.weight"]).plus_row(&params["head.proj.bias"].data);
            let entropy = cross_entropy(&logits, &sequence.token[half + 1..], levels, weight);
            let d = &entropy.dlogits;
            add(&mut grads, "head.proj.weight", second.transposed().times(d));
            add(&mut grads, "head.proj.bias", Matrix::new(1, d.columns, d.column_sums()));
            let dhidden = times_each(&d.times(&params["head.proj.weight"].transposed()), &map(&hidden, |x| leaky(x).1));
            add(&mut grads, "head.fc.weight", first.transposed().times(&dhidden));
            add(&mut grads, "head.fc.bias", Matrix::new(1, dhidden.columns, dhidden.column_sums()));
            let dsummed = dhidden.times(&params["head.fc.weight"].transposed());
            dmixed.extend(times_each(&dsummed, &map(&summed, |x| leaky(x).1)).data);
            nats.push(entropy.nats);
            entropies.push(entropy);
            all_logits.push(logits);
        }
        let dmixed = Matrix::new(shape.n_channel, rows * s, dmixed);
        let dskips = match params.get("mix") {
            None => dmixed,
            Some(mix) => {
                add(&mut grads, "mix", dmixed.times(&skips.transposed()));
                mix.transposed().times(&dmixed)
            }
        };
        for (c, (sequence, (layers, _))) in sequences.iter().zip(&forward).enumerate() {
            network.backward(sequence, layers, &Matrix::new(rows, s, dskips.row(c).to_vec()), &mut grads);
        }
    }
    let sum: Number = nats.into_iter().sum();
    Outcome { loss: sum * Number::from(weight), grads, entropy: entropies, logits: all_logits }
}
