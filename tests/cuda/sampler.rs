//! The sampler on the GPU against that of the CPU: the same token, always.

use crate::bench::{Bench, CASES, Data, RUNS};
use gpt2meg::device::Sampler;
use gpt2meg::device::cpu::sampler::draw;
use gpt2meg::device::cuda::kernel::{Argument, Kernel, Pointer, Source};
use gpt2meg::device::cuda::rollout::Draw;
use gpt2meg::device::cuda::{Grid, Shape};
use gpt2meg::random::{Purpose, word_at};

/// Kernels around the device functions.
static SOURCE: Source = Source {
    name: concat!(env!("CARGO_MANIFEST_DIR"), "/kernels/draw_rows.cu"),
    hash: 0,
    text: r#"
#include "sampler.cuh"
KERNEL key_words(const u64* key, const u64* position, u64 seed, u32* words, u32 n) {
    const u32 i = 128 * blockIdx.x + threadIdx.x;
    if (i < n) words[i] = sampling_word(seed, key[i], position[i]);
}
KERNEL draw_rows(const float* logits, const u32* words, float scale, u32 top_k, u64 top_p, u32 greedy, u32* tokens, u32 n) {
    const u32 i = 4 * blockIdx.x + warp_id();
    if (i >= n) return;
    const u32 token = draw(logits + i * Q, {scale, top_k, top_p, greedy}, words[i]);
    if (lane_id() == i % 32) tokens[i] = token;
}
"#,
};

/// The word at `position[i]` of the stream `key[i]`.
struct KeyWords {
    key: Pointer<u64>,
    position: Pointer<u64>,
    seed: u64,
    words: Pointer<u32>,
    n: u32,
}

impl Kernel for KeyWords {
    const SOURCE: &'static Source = &SOURCE;
    const NAME: &'static str = "key_words";
    fn arguments(&self) -> Vec<Argument<'_>> {
        let Self { key, position, seed, words, n } = self;
        vec![Argument::of(key), Argument::of(position), Argument::of(seed), Argument::of(words), Argument::of(n)]
    }
}

/// The token that each row of logits gives with its word.
struct DrawRows {
    logits: Pointer<f32>,
    words: Pointer<u32>,
    draw: Draw,
    tokens: Pointer<u32>,
    n: u32,
}

impl Kernel for DrawRows {
    const SOURCE: &'static Source = &SOURCE;
    const NAME: &'static str = "draw_rows";
    fn arguments(&self) -> Vec<Argument<'_>> {
        let Self { logits, words, draw: Draw { scale, top_k, top_p, greedy }, tokens, n } = self;
        vec![
            Argument::of(logits),
            Argument::of(words),
            Argument::of(scale),
            Argument::of(top_k),
            Argument::of(top_p),
            Argument::of(greedy),
            Argument::of(tokens),
            Argument::of(n),
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

/// A word, and those on both sides of the end of the interval in which it lies: there the last bit of a weight decides.
fn words(row: &[f32], sampler: &Sampler, word: u32) -> [u32; 3] {
    let level = draw(row, sampler, word);
    let (mut low, mut high) = (word, u32::MAX);
    while low < high {
        let middle = low + (high - low).div_ceil(2);
        (low, high) = if draw(row, sampler, middle) == level { (middle, high) } else { (low, middle - 1) };
    }
    [word, low, low.saturating_add(1)]
}

/// Rows with their words, and what the CPU draws of them.
struct Drawn {
    logits: Vec<f32>,
    words: Vec<u32>,
    tokens: Vec<u32>,
}

impl Drawn {
    fn new(data: &mut Data, sampler: &Sampler, rows: impl Iterator<Item = Vec<f32>>) -> Self {
        let mut all = Self { logits: Vec::new(), words: Vec::new(), tokens: Vec::new() };
        for row in rows {
            for word in words(&row, sampler, data.word() as u32) {
                all.logits.extend(&row);
                all.words.push(word);
                all.tokens.push(draw(&row, sampler, word).map_or(u32::MAX, u32::from));
            }
        }
        all
    }

    /// Draws them on the GPU.
    fn compare(&self, bench: &mut Bench, sampler: &Sampler, q: usize) {
        let n = self.words.len();
        let (logits, words, tokens) = (bench.put(&self.logits), bench.put(&self.words), bench.put(&vec![0u32; n]));
        let kernel = DrawRows {
            logits: bench.gpu.address(&logits),
            words: bench.gpu.address(&words),
            draw: Draw::new(sampler),
            tokens: bench.gpu.address(&tokens),
            n: n as u32,
        };
        let shape = Shape { n_level: q, ..CASES[0].shape(256) };
        let grid = Grid { blocks: (n.div_ceil(4) as u32, 1), threads: 128, shared_bytes: 0 };
        // SAFETY: everything has its size.
        unsafe { bench.gpu.launch(&shape, &kernel, grid) }.unwrap();
        for (i, (token, expected)) in bench.get(&tokens).into_iter().zip(&self.tokens).enumerate() {
            let row = &self.logits[i * q..][..q];
            assert_eq!(token, *expected, "{sampler:?} on {}: word {}, {q} levels {row:?}", bench.name, self.words[i]);
        }
    }
}

#[test]
fn tokens_are_the_cpus() {
    for (number, q) in [1, 2, 31, 32, 33, 64, 255, 256].into_iter().enumerate() {
        let mut data = Data::new(number as u64 + 700);
        let drawn = samplers().into_iter().map(|sampler| {
            let (n, first) = (if q == 256 { 24 } else { 12 }, data.below(40));
            let rows: Vec<_> = (0..n).map(|i| row(&mut data, q, first + i)).collect();
            (sampler, Drawn::new(&mut data, &sampler, rows.into_iter()))
        });
        let drawn: Vec<_> = drawn.collect();
        for run in RUNS {
            let Some(mut bench) = Bench::new(run) else { return };
            drawn.iter().for_each(|(sampler, drawn)| drawn.compare(&mut bench, sampler, q));
        }
    }
}

#[test]
fn logits_that_are_not_finite_are_told() {
    let Some(mut bench) = Bench::new(&RUNS[1]) else { return };
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
            Drawn::new(&mut data, &sampler, rows.into_iter()).compare(&mut bench, &sampler, q);
        }
    }
}

#[test]
fn words_are_the_cpus() {
    let Some(mut bench) = Bench::new(&RUNS[0]) else { return };
    let mut data = Data::new(78);
    for _ in 0..4 {
        let (seed, n) = (data.word(), 300);
        let key: Vec<u64> = (0..n).map(|i| if i % 2 == 0 { i as u64 } else { data.word() }).collect();
        // The first blocks of the keystream, and far ones.
        let position: Vec<u64> =
            (0..n as u64).map(|i| if i % 2 == 0 { i } else { data.word() >> (4 + i % 50) }).collect();
        let (keys, positions, words) = (bench.put(&key), bench.put(&position), bench.put(&vec![0u32; n]));
        let kernel = KeyWords {
            key: bench.gpu.address(&keys),
            position: bench.gpu.address(&positions),
            seed,
            words: bench.gpu.address(&words),
            n: n as u32,
        };
        let grid = Grid { blocks: (n.div_ceil(128) as u32, 1), threads: 128, shared_bytes: 0 };
        // SAFETY: everything has its size.
        unsafe { bench.gpu.launch(&CASES[0].shape(256), &kernel, grid) }.unwrap();
        for (i, word) in bench.get(&words).into_iter().enumerate() {
            let expected = word_at(seed, Purpose::Sampling, key[i], position[i]);
            assert_eq!(word, expected, "seed {seed}, stream {}, position {}", key[i], position[i]);
        }
    }
}
