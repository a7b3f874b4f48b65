//! The sampler on the GPU against that of the CPU: the same token, always.

use crate::bench::{Bench, CASES, Data};
use gpt2meg::device::Sampler;
use gpt2meg::device::cpu::sampler::draw;
use gpt2meg::device::cuda::kernel::{Argument, Kernel, Pointer, Source};
use gpt2meg::device::cuda::rollout::Draw;
use gpt2meg::device::cuda::{Grid, Shape};
use gpt2meg::random::{Purpose, word_at};

/// A kernel around the device function: row r is drawn with the word at `position[r]` of the stream `key[r]`.
static SOURCE: Source = Source {
    name: concat!(env!("CARGO_MANIFEST_DIR"), "/kernels/draw_rows.cu"),
    hash: 0,
    text: r#"
#include "sampler.cuh"
KERNEL draw_rows(const float* logits, const u64* key, const u64* position, u64 seed, float scale, u32 top_k, u64 top_p,
                 u32 greedy, u32* words, u32* tokens, u32 rows) {
    const u32 row = 4 * blockIdx.x + warp_id();
    if (row >= rows) return;
    const u32 word = sampling_word(seed, key[row], position[row]);
    const u32 token = draw(logits + row * Q, {scale, top_k, top_p, greedy}, word);
    if (lane_id() == row % 32) words[row] = word, tokens[row] = token;
}
"#,
};

struct DrawRows {
    logits: Pointer<f32>,
    key: Pointer<u64>,
    position: Pointer<u64>,
    seed: u64,
    draw: Draw,
    words: Pointer<u32>,
    tokens: Pointer<u32>,
    rows: u32,
}

impl Kernel for DrawRows {
    const SOURCE: &'static Source = &SOURCE;
    const NAME: &'static str = "draw_rows";
    fn arguments(&self) -> Vec<Argument<'_>> {
        let Draw { scale, top_k, top_p, greedy } = &self.draw;
        vec![
            Argument::of(&self.logits),
            Argument::of(&self.key),
            Argument::of(&self.position),
            Argument::of(&self.seed),
            Argument::of(scale),
            Argument::of(top_k),
            Argument::of(top_p),
            Argument::of(greedy),
            Argument::of(&self.words),
            Argument::of(&self.tokens),
            Argument::of(&self.rows),
        ]
    }
}

/// A row of logits of one of the kinds that have gone wrong somewhere.
fn row(data: &mut Data, q: usize, kind: usize) -> Vec<f32> {
    let mut row = data.floats(q, [0.5, 4.0, 30.0, 300.0, 3e38][kind % 5]);
    let at = data.below(q);
    match kind / 5 % 8 {
        // Many ties, zeros of both signs among them.
        0 => row.iter_mut().for_each(|x| *x = (*x / 2.0).round() * 2.0 - 0.0),
        // All equal.
        1 => row.fill(data.floats(1, 5.0)[0]),
        // One takes all.
        2 => row[at] = 3e38,
        // Two levels alone.
        3 => {
            row.iter_mut().for_each(|x| *x = *x / 3e38 - 100.0);
            (row[at], row[q - 1 - at]) = (0.0, -0.0);
        }
        // Neighbouring floats, and numbers too small to be normal.
        4 => row.iter_mut().for_each(|x| *x = f32::from_bits(1.0f32.to_bits() + (x.abs() as u32 % 7))),
        5 => row.iter_mut().for_each(|x| *x *= 1e-42),
        // A bell, as trained networks give.
        6 => {
            row.iter_mut().enumerate().for_each(|(i, x)| *x = -(i as f32 - at as f32 + 0.3).powi(2) / 50.0 + *x / 1e38)
        }
        _ => {}
    }
    row
}

fn samplers() -> Vec<Sampler> {
    let plain = Sampler { temperature: 1.0, top_k: 0, top_p: 1.0, greedy: false };
    let mut all = vec![plain, Sampler { greedy: true, ..plain }];
    for top_p in [1e-38, 1e-6, 0.1, 0.5, 0.8, 0.95, 0.999_999_94] {
        all.push(Sampler { top_p, ..plain });
    }
    for top_k in [1, 2, 31, 32, 33, 200, 255, 256, u32::MAX] {
        all.push(Sampler { top_k, ..plain });
        all.push(Sampler { top_k, top_p: 0.8, temperature: 1.3, ..plain });
    }
    for temperature in [2e-38, 0.1, 0.9, 3.0, 3e38] {
        all.push(Sampler { temperature, top_p: 0.9, ..plain });
    }
    all
}

/// Draws every row on the GPU and compares words and tokens with the CPU's.
fn try_rows(bench: &mut Bench, data: &mut Data, q: usize, sampler: &Sampler, rows: &[Vec<f32>]) {
    let what = format!("{q} levels, {sampler:?} on {}", bench.name);
    let (seed, n) = (data.word(), rows.len());
    let key: Vec<u64> = (0..n).map(|i| if i % 2 == 0 { i as u64 } else { data.word() }).collect();
    // The words of the first block, and far ones; `Rollout::timestep` counts from 0.
    let position: Vec<u64> = (0..n as u64).map(|i| if i % 2 == 0 { i } else { data.word() >> (4 + i % 50) }).collect();
    let (logits, keys, positions) = (bench.put(&rows.concat()), bench.put(&key), bench.put(&position));
    let (words, tokens) = (bench.put(&vec![0u32; n]), bench.put(&vec![0u32; n]));
    let kernel = DrawRows {
        logits: bench.gpu.address(&logits),
        key: bench.gpu.address(&keys),
        position: bench.gpu.address(&positions),
        seed,
        draw: Draw::new(sampler),
        words: bench.gpu.address(&words),
        tokens: bench.gpu.address(&tokens),
        rows: n as u32,
    };
    let shape = Shape { n_level: q, ..CASES[0].shape(256) };
    let grid = Grid { blocks: (n.div_ceil(4) as u32, 1), threads: 128, shared_bytes: 0 };
    // SAFETY: everything has its size.
    unsafe { bench.gpu.launch(&shape, &kernel, grid) }.unwrap();
    let (words, tokens) = (bench.get(&words), bench.get(&tokens));
    for (i, row) in rows.iter().enumerate() {
        let word = word_at(seed, Purpose::Sampling, key[i], position[i]);
        assert_eq!(words[i], word, "{what}: the word at {} of stream {}", position[i], key[i]);
        let expected = draw(row, sampler, word).map_or(u32::MAX, u32::from);
        assert_eq!(tokens[i], expected, "{what}: row {i}, word {word}, {row:?}");
    }
}

#[test]
fn tokens_are_the_cpus() {
    for (number, q) in [1, 2, 31, 32, 33, 64, 255, 256].into_iter().enumerate() {
        let mut data = Data::new(number as u64 + 700);
        for run in CASES[0].runs() {
            let Some(mut bench) = Bench::new(run) else { return };
            for sampler in samplers() {
                let n = if q == 256 { 40 } else { 20 };
                let first = data.below(40);
                let rows: Vec<_> = (0..n).map(|i| row(&mut data, q, first + i)).collect();
                try_rows(&mut bench, &mut data, q, &sampler, &rows);
            }
        }
    }
}

#[test]
fn logits_that_are_not_finite_are_told() {
    let Some(mut bench) = Bench::new(&CASES[0].runs()[1]) else { return };
    let mut data = Data::new(77);
    for sampler in samplers().into_iter().take(3) {
        for q in [1, 33, 256] {
            let rows: Vec<_> = (0..9)
                .map(|i| {
                    let mut row = data.floats(q, 2.0);
                    let at = data.below(q);
                    row[at] = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY][i % 3];
                    row
                })
                .collect();
            try_rows(&mut bench, &mut data, q, &sampler, &rows);
        }
    }
}
