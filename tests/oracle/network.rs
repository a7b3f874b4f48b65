//! The whole network, from tokens to the gradient of every parameter, out of the oracle's stages.

use super::number::{Matrix, Number};
use super::{Affine, Attention, HalfBlock, Mlp, attention, attention_backward, head, mlp, mlp_backward};
use std::collections::BTreeMap;

/// Parameters or gradients by GPT-2's names; vectors are matrices of one row.
pub type Table = BTreeMap<String, Matrix>;

#[derive(Debug, Clone, Copy)]
pub struct Shape {
    pub n_layer: usize,
    pub n_head: usize,
    pub n_ctx: usize,
    pub n_level: usize,
}

/// Sequences with one token more than timesteps.
pub struct Batch {
    pub token: Vec<Vec<u8>>,
    pub condition: Vec<Vec<u16>>,
    pub channel: Vec<u32>,
    pub subject: Vec<u32>,
}

pub struct Outcome {
    /// Mean cross-entropy of the last half of the window.
    pub loss: Number,
    pub grads: Table,
    /// For each sequence, [T / 2, Q].
    pub logits: Vec<Matrix>,
}

fn half_block(params: &Table, layer: usize, norm: &str, first: &str, proj: &str) -> HalfBlock {
    let affine = |name: &str| Affine {
        weight: params[&format!("h.{layer}.{name}.weight")].clone(),
        bias: params[&format!("h.{layer}.{name}.bias")].data.clone(),
    };
    HalfBlock { norm: affine(norm), first: affine(first), proj: affine(proj) }
}

fn add(grads: &mut Table, name: String, gradient: &Matrix) {
    let sum = grads.get_mut(&name).unwrap_or_else(|| panic!("no {name}"));
    *sum = sum.plus(&Matrix::new(sum.rows, sum.columns, gradient.data.clone()));
}

fn add_half_block(grads: &mut Table, layer: usize, [norm, first, proj]: [&str; 3], gradient: HalfBlock) {
    for (name, affine) in [(norm, gradient.norm), (first, gradient.first), (proj, gradient.proj)] {
        add(grads, format!("h.{layer}.{name}.weight"), &affine.weight);
        add(grads, format!("h.{layer}.{name}.bias"), &Matrix::new(1, affine.bias.len(), affine.bias));
    }
}

const ATTENTION: [&str; 3] = ["ln_1", "attn.c_attn", "attn.c_proj"];
const MLP: [&str; 3] = ["ln_2", "mlp.c_fc", "mlp.c_proj"];

/// (table, row) of everything that one timestep adds up; `who` is the channel and the subject.
fn rows(token: u8, s: usize, condition: u16, [channel, subject]: [u32; 2]) -> Vec<(&'static str, usize)> {
    let mut rows = vec![("wte", token as usize), ("wpe", s), ("wce", channel as usize), ("wse", subject as usize)];
    rows.extend((condition > 0).then_some(("wye", condition as usize)));
    rows
}

/// One sequence behind the last block, and what each block's backward pass needs.
fn forward(
    params: &Table,
    shape: &Shape,
    token: &[u8],
    condition: &[u16],
    who: [u32; 2],
) -> (Matrix, Vec<(Attention, Mlp)>) {
    let block = |layer: usize, [norm, first, proj]: [&str; 3]| half_block(params, layer, norm, first, proj);
    let at = |s, j| rows(token[s], s, condition[s], who).into_iter().map(|(table, row)| params[table].at(row, j)).sum();
    let mut x = Matrix::from_fn(token.len(), params["wte"].columns, at);
    let mut kept = Vec::new();
    for layer in 0..shape.n_layer {
        let attended = attention(&block(layer, ATTENTION), &x, shape.n_head, 0);
        let fed = mlp(&block(layer, MLP), &attended.out);
        x = fed.out.clone();
        kept.push((attended, fed));
    }
    (x, kept)
}

fn final_norm(params: &Table) -> Affine {
    Affine { weight: params["ln_f.weight"].clone(), bias: params["ln_f.bias"].data.clone() }
}

/// The output projection of a channel, and its first row in the table: where there is one for each, they follow each
/// other.
pub fn output(params: &Table, shape: &Shape, channel: u32) -> (usize, Matrix) {
    let (all, q) = (&params["lm_head"], shape.n_level);
    let first = if all.rows > q { channel as usize * q } else { 0 };
    (first, Matrix::new(q, all.columns, all.data[first * all.columns..][..q * all.columns].to_vec()))
}

/// The logits after each token of one sequence, [T, Q], with `lm_head` [Q, E]; no cache, nothing left out.
pub fn logits(
    params: &Table,
    shape: &Shape,
    lm_head: &Matrix,
    token: &[u8],
    condition: &[u16],
    who: [u32; 2],
) -> Matrix {
    let (x, _) = forward(params, shape, token, condition, who);
    let levels = vec![0.0; lm_head.rows];
    head(&final_norm(params), lm_head, &x, &[], &levels, 1.0).logits
}

/// Loss and gradients; every block answers all timesteps, as PyTorch's do.
pub fn run(params: &Table, shape: &Shape, batch: &Batch) -> Outcome {
    let t = shape.n_ctx;
    let half = t / 2;
    let weight = 1.0 / (batch.token.len() * (t - half)) as f32;
    let mut grads: Table = params
        .iter()
        .map(|(name, p)| (name.clone(), Matrix::from_fn(p.rows, p.columns, |_, _| Number::default())))
        .collect();
    let block = |layer: usize, [norm, first, proj]: [&str; 3]| half_block(params, layer, norm, first, proj);
    let final_norm = final_norm(params);
    let (mut nats, mut all_logits) = (Vec::new(), Vec::new());
    for (i, token) in batch.token.iter().enumerate() {
        let (condition, who) = (&batch.condition[i], [batch.channel[i], batch.subject[i]]);
        let (x, kept) = forward(params, shape, &token[..t], condition, who);
        let width = x.columns;
        let (first_row, output) = output(params, shape, batch.channel[i]);
        let levels = vec![0.0; shape.n_level];
        let result = head(&final_norm, &output, &x.part(half, 0, width), &token[half + 1..], &levels, weight);
        nats.push(result.nats);
        let lm_head = grads.get_mut("lm_head").expect("a head");
        for (sum, part) in lm_head.data[first_row * width..].iter_mut().zip(&result.weight.data) {
            *sum = *sum + *part;
        }
        add(&mut grads, "ln_f.weight".into(), &result.norm.weight);
        add(&mut grads, "ln_f.bias".into(), &Matrix::new(1, width, result.norm.bias));
        let zero = Number::default();
        let mut dx = Matrix::from_fn(t, width, |s, j| if s < half { zero } else { result.dx.at(s - half, j) });
        for (layer, (attended, fed)) in kept.iter().enumerate().rev() {
            let (before, gradient) = mlp_backward(&block(layer, MLP), fed, &dx);
            add_half_block(&mut grads, layer, MLP, gradient);
            let (before, gradient) = attention_backward(&block(layer, ATTENTION), attended, &before, shape.n_head, 0);
            add_half_block(&mut grads, layer, ATTENTION, gradient);
            dx = before;
        }
        for s in 0..t {
            for (table, row) in rows(token[s], s, condition[s], who) {
                let table = grads.get_mut(table).expect("a table");
                for j in 0..width {
                    let at = row * table.columns + j;
                    table.data[at] = table.data[at] + dx.at(s, j);
                }
            }
        }
        all_logits.push(result.logits);
    }
    let sum: Number = nats.into_iter().sum();
    Outcome { loss: sum * Number::from(weight), grads, logits: all_logits }
}
