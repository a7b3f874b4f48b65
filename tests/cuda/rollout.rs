//! Generation with a cache on the GPU: its logits against the oracle, which computes every window anew; its tokens against the
//! CPU's sampler; its bits against themselves.

use crate::bench::{Bench, CASES, Data, RUNS, Run, judge};
use crate::oracle::network::{self, Table};
use crate::oracle::number::Matrix;
use crate::unfused;
use cudarc::driver::CudaSlice;
use gpt2meg::device::cpu::sampler::draw;
use gpt2meg::device::cuda::kernel::Pointer;
use gpt2meg::device::cuda::rollout::{Cut, Params, Tables, Working, rollout, shape};
use gpt2meg::device::cuda::{attention, head, mlp};
use gpt2meg::device::{Rollout, Sampler};
use gpt2meg::error::{Kind, Result};
use gpt2meg::model::config::{Head, ModelConfig};
use gpt2meg::model::layout::{Init, ParamLayout};
use gpt2meg::random::{Purpose, word_at};
use ptx_emulator::count::Counters;

const SEED: u64 = 29;
pub const NUCLEUS: Sampler = Sampler { temperature: 1.1, top_k: 0, top_p: 0.8, greedy: false };
const GREEDY: Sampler = Sampler { greedy: true, ..NUCLEUS };

/// A network large enough in its numbers that everything matters.
pub struct Model {
    pub config: ModelConfig,
    layout: ParamLayout,
    flat: Vec<f32>,
}

impl Model {
    pub fn new(n_layer: usize, n_head: usize, d_model: usize, n_ctx: usize, n_level: usize, head: Head) -> Self {
        let config =
            ModelConfig { n_layer, n_head, d_model, n_ctx, n_level, n_channel: 4, n_subject: 2, n_condition: 3, head };
        config.check().unwrap();
        let layout = ParamLayout::new(&config);
        let mut data = Data::new(d_model as u64 + 1000);
        let mut flat = Vec::new();
        for entry in layout.entries() {
            flat.extend(match entry.init {
                Init::Constant(c) => data.floats(entry.len, 0.3).iter().map(|x| c + x).collect(),
                // Rows of tables are as large as what half-blocks add to them.
                _ if entry.name.starts_with('w') => data.floats(entry.len, 0.7),
                _ => data.floats(entry.len, 1.5 / (entry.shape[entry.shape.len() - 2] as f32).sqrt()),
            });
        }
        Self { config, layout, flat }
    }

    fn part(&self, name: &str) -> Vec<f32> {
        let entry = self.layout.entry(name);
        self.flat[entry.offset..][..entry.len].to_vec()
    }

    /// The output projection of a channel.
    fn output(&self, channel: u32) -> Vec<f32> {
        let len = self.config.n_level * self.config.d_model;
        let first = if self.config.head == Head::PerChannel { channel as usize * len } else { 0 };
        self.part("lm_head")[first..][..len].to_vec()
    }

    /// The logits after each token, [T, Q].
    fn oracle(&self, tokens: &[u8], condition: &[u16], who: [u32; 2]) -> Vec<f64> {
        let &ModelConfig { n_layer, n_head, n_ctx, n_level, d_model, .. } = &self.config;
        let mut params = Table::new();
        for entry in self.layout.entries() {
            let columns = *entry.shape.last().unwrap();
            params.insert(
                entry.name.clone(),
                Matrix::exact(entry.len / columns, columns, &self.flat[entry.offset..][..entry.len]),
            );
        }
        let output = Matrix::exact(n_level, d_model, &self.output(who[0]));
        let shape = network::Shape { n_layer, n_head, n_ctx, n_level };
        let logits = network::logits(&params, &shape, &output, tokens, condition, who);
        logits.data.iter().map(|number| number.v).collect()
    }

    /// The same as a program without fused kernels computes them.
    fn unfused(&self, tokens: &[u8], condition: &[u16], [channel, subject]: [u32; 2]) -> Vec<f64> {
        let (e, h) = (self.config.d_model, self.config.n_head);
        let mut x = Vec::new();
        for (t, (&token, &condition)) in tokens.iter().zip(condition).enumerate() {
            let mut rows =
                vec![("wte", token as usize), ("wpe", t), ("wce", channel as usize), ("wse", subject as usize)];
            rows.extend((condition > 0).then_some(("wye", condition as usize)));
            let rows: Vec<_> = rows.into_iter().map(|(table, row)| self.part(table)[row * e..][..e].to_vec()).collect();
            x.extend((0..e).map(|j| rows.iter().map(|row| row[j]).sum::<f32>()));
        }
        let add = |x: &mut [f32], added: Vec<f64>| x.iter_mut().zip(added).for_each(|(x, added)| *x += added as f32);
        for layer in 0..self.config.n_layer {
            let parts = |names: [&str; 3]| -> Vec<Vec<f32>> {
                let both =
                    names.iter().flat_map(|name| ["weight", "bias"].map(|kind| format!("h.{layer}.{name}.{kind}")));
                both.map(|name| self.part(&name)).collect()
            };
            let added = unfused::attention(&parts(["ln_1", "attn.c_attn", "attn.c_proj"]), &x, e, h, 0);
            add(&mut x, added);
            let added = unfused::mlp(&parts(["ln_2", "mlp.c_fc", "mlp.c_proj"]), &x, e);
            add(&mut x, added);
        }
        let norm = [self.part("ln_f.weight"), self.part("ln_f.bias")];
        unfused::head([&norm[0], &norm[1]], &self.output(channel), &x, &vec![0; tokens.len()], 1.0).logits
    }
}

/// The network on a GPU.
pub struct OnGpu {
    pub bench: Bench,
    params: Params,
    working: Working,
    _flat: CudaSlice<f32>,
    /// What the last launch of the last rollout cost.
    counters: Counters,
    /// Launches that the last rollout made, and after how many it is told to stop.
    pub launched: usize,
    pub launches: usize,
}

impl OnGpu {
    pub fn new(model: &Model, run: &Run) -> Option<Self> {
        let mut bench = Bench::new(run)?;
        let flat = bench.put(&model.flat);
        let all: Pointer<f32> = bench.gpu.address(&flat);
        let at = |name: &str| all.offset(model.layout.entry(name).offset);
        let tables = Tables {
            token: at("wte"),
            position: at("wpe"),
            channel: at("wce"),
            subject: at("wse"),
            condition: at("wye"),
        };
        let blocks = (0..model.config.n_layer).map(|layer| {
            let at = |name: &str| at(&format!("h.{layer}.{name}"));
            let attention = attention::Params {
                norm_weight: at("ln_1.weight"),
                norm_bias: at("ln_1.bias"),
                qkv_weight: at("attn.c_attn.weight"),
                qkv_bias: at("attn.c_attn.bias"),
                proj_weight: at("attn.c_proj.weight"),
                proj_bias: at("attn.c_proj.bias"),
            };
            let mlp = mlp::Params {
                norm_weight: at("ln_2.weight"),
                norm_bias: at("ln_2.bias"),
                fc_weight: at("mlp.c_fc.weight"),
                fc_bias: at("mlp.c_fc.bias"),
                proj_weight: at("mlp.c_proj.weight"),
                proj_bias: at("mlp.c_proj.bias"),
            };
            (attention, mlp)
        });
        let matrices = if model.config.head == Head::PerChannel { model.config.n_channel } else { 1 };
        let head = head::Params {
            norm_weight: at("ln_f.weight"),
            norm_bias: at("ln_f.bias"),
            weight: at("lm_head"),
            matrices,
        };
        let params = Params { tables, blocks: blocks.collect(), head };
        let working = Working::new(&mut bench.gpu, &shape(&model.config), &params).unwrap();
        let (counters, launches) = (Counters::default(), usize::MAX);
        Some(Self { bench, params, working, _flat: flat, counters, launched: 0, launches })
    }

    pub fn run(&mut self, model: &Model, batch: &Batch, cut: Option<Cut>) -> Result<(Vec<u8>, Vec<f32>)> {
        let asked = batch.rollout();
        let mut tokens = vec![0; asked.n * asked.n_new];
        let mut logits = vec![f32::NAN; tokens.len() * model.config.n_level];
        let Self { bench, params, working, counters, launched, .. } = self;
        let left = std::cell::Cell::new(self.launches);
        // Asked before each launch.
        let stop = || left.replace(left.get().saturating_sub(1)) == 0;
        // SAFETY: parameters and copies are this model's.
        let done = unsafe {
            rollout(&mut bench.gpu, &model.config, params, working, &asked, cut, &stop, &mut tokens, Some(&mut logits))
        };
        let mut reports = bench.check();
        *launched = reports.iter().filter(|report| report.kernel == "decode").count();
        if let Some(report) = reports.pop() {
            *counters = report.counters.expect("a launch that ran to its end was counted");
        }
        done.map(|()| (tokens, logits))
    }
}

#[derive(Clone)]
pub struct Batch {
    n_prompt: usize,
    n_new: usize,
    prompt: Vec<u8>,
    condition: Vec<u16>,
    channel: Vec<u32>,
    subject: Vec<u32>,
    key: Vec<u64>,
    timestep: u64,
    sampler: Sampler,
}

impl Batch {
    pub fn new(config: &ModelConfig, n: usize, n_prompt: usize, n_new: usize, sampler: Sampler) -> Self {
        let mut data = Data::new(n as u64 + 1100);
        let fed = n_prompt + n_new - 1;
        Self {
            n_prompt,
            n_new,
            prompt: (0..n * n_prompt).map(|_| data.below(config.n_level) as u8).collect(),
            condition: (0..n * fed).map(|_| data.below(config.n_condition + 1) as u16).collect(),
            channel: (0..n).map(|_| data.below(config.n_channel) as u32).collect(),
            subject: (0..n).map(|_| data.below(config.n_subject) as u32).collect(),
            key: (0..n as u64).map(|i| i * 7 + (1 << 40)).collect(),
            timestep: 27,
            sampler,
        }
    }

    pub fn rollout(&self) -> Rollout<'_> {
        Rollout {
            n: self.channel.len(),
            n_prompt: self.n_prompt,
            n_new: self.n_new,
            prompt: &self.prompt,
            condition: &self.condition,
            channel: &self.channel,
            subject: &self.subject,
            key: &self.key,
            timestep: self.timestep,
            seed: SEED,
            sampler: self.sampler,
        }
    }

    /// The same sequences with the first `k` drawn tokens read instead.
    fn later(&self, tokens: &[u8], k: usize) -> Self {
        let prompts = self.prompt.chunks(self.n_prompt).zip(tokens.chunks(self.n_new));
        Self {
            prompt: prompts.flat_map(|(prompt, new)| [prompt, &new[..k]].concat()).collect(),
            n_prompt: self.n_prompt + k,
            n_new: self.n_new - k,
            timestep: self.timestep + k as u64,
            ..self.clone()
        }
    }
}

/// Logits and tokens of every sequence, and the same bits however they are cut.
fn try_batch(model: &Model, batch: &Batch, runs: &[Run]) {
    let (n, q, n_new) = (batch.channel.len(), model.config.n_level, batch.n_new);
    for (number, run) in runs.iter().enumerate() {
        let Some(mut gpu) = OnGpu::new(model, run) else { return };
        let what = format!("{:?}, {n} sequences, {} + {n_new} on {}", model.config, batch.n_prompt, gpu.bench.name);
        let (tokens, logits) = gpu.run(model, batch, None).unwrap();
        let (mut truth, mut unfused) = (Vec::new(), Vec::new());
        for i in 0..n {
            let new = &tokens[i * n_new..][..n_new];
            let fed = [&batch.prompt[i * batch.n_prompt..][..batch.n_prompt], &new[..n_new - 1]].concat();
            let (condition, who) =
                (&batch.condition[i * fed.len()..][..fed.len()], [batch.channel[i], batch.subject[i]]);
            let from = (batch.n_prompt - 1) * q;
            truth.extend_from_slice(&model.oracle(&fed, condition, who)[from..]);
            unfused.extend_from_slice(&model.unfused(&fed, condition, who)[from..]);
            for (step, (row, &token)) in logits[i * n_new * q..].chunks_exact(q).zip(new).enumerate() {
                let word = word_at(SEED, Purpose::Sampling, batch.key[i], batch.timestep + step as u64);
                assert_eq!(draw(row, &batch.sampler, word), Some(token), "{what}: sequence {i}, step {step}");
            }
        }
        let actual: Vec<f64> = logits.iter().map(|&x| x.into()).collect();
        judge(&what, &actual, &truth, &unfused);

        // What changes bits in one way of running does so in all.
        if number > 0 {
            continue;
        }
        for (per_launch, per_block, passes) in [(n, 1, 1), (3, 2, usize::MAX), (n, 8, 8 * (batch.n_prompt / 64) + 2)] {
            let cut = Cut { per_launch, per_block, columns: 32, passes };
            let again = gpu.run(model, batch, Some(cut)).unwrap();
            assert!(again == (tokens.clone(), logits.clone()), "{what}: {cut:?} changes bits");
        }
        for k in [1, n_new - 1].into_iter().filter(|&k| k > 0 && k < n_new) {
            let (later_tokens, later_logits) = gpu.run(model, &batch.later(&tokens, k), None).unwrap();
            for i in 0..n {
                let left = n_new - k;
                assert_eq!(later_tokens[i * left..][..left], tokens[i * n_new + k..][..left], "{what}: {k} read");
                let rest = &logits[(i * n_new + k) * q..][..left * q];
                assert_eq!(&later_logits[i * left * q..][..left * q], rest, "{what}: {k} read");
            }
        }
    }
}

#[test]
fn a_rollout_is_the_oracles_and_the_samplers() {
    let (shared, own) = (Head::Shared, Head::PerChannel);
    let model = Model::new(2, 12, 96, 48, 256, shared);
    try_batch(&model, &Batch::new(&model.config, 15, 10, 3, NUCLEUS), RUNS);
    // The paper's wider model; one sequence whose window is full.
    let model = Model::new(1, 12, 240, 16, 256, own);
    try_batch(&model, &Batch::new(&model.config, 1, 16, 1, NUCLEUS), &RUNS[1..2]);
    try_batch(&model, &Batch::new(&model.config, 16, 1, 2, GREEDY), &RUNS[3..]);
}

#[test]
fn shapes_that_fit_nothing_roll_out_too() {
    let (shared, own) = (Head::Shared, Head::PerChannel);
    for (number, (model, n, n_prompt, n_new)) in [
        (Model::new(2, 4, 20, 34, 17, own), 17, 1, 34),
        (Model::new(1, 1, 1, 2, 2, shared), 1, 1, 1),
        // More keys than are taken at once.
        (Model::new(2, 4, 32, 300, 33, shared), 2, 290, 4),
        // Several lanes share a key, and some have none of it.
        (Model::new(1, 1, 288, 6, 31, shared), 3, 4, 2),
        // Few columns fit shared memory.
        (Model::new(1, 8, 640, 6, 256, shared), 3, 4, 2),
    ]
    .into_iter()
    .enumerate()
    {
        try_batch(&model, &Batch::new(&model.config, n, n_prompt, n_new, NUCLEUS), &RUNS[1 + number / 4..][..1]);
    }
}

#[test]
fn what_makes_no_sense_is_refused() {
    let mut model = Model::new(1, 2, 16, 8, 9, Head::Shared);
    let Some(mut gpu) = OnGpu::new(&model, &CASES[0].runs()[0]) else { return };
    let good = Batch::new(&model.config, 2, 3, 4, NUCLEUS);
    let bad = [
        Batch { channel: vec![0, 4], ..good.clone() },
        Batch { subject: vec![2, 0], ..good.clone() },
        Batch { condition: vec![4; 12], ..good.clone() },
        Batch { prompt: vec![9; 6], ..good.clone() },
        Batch { n_new: 7, condition: vec![0; 18], ..good.clone() },
    ];
    for batch in bad {
        assert_eq!(gpu.run(&model, &batch, None).unwrap_err().kind(), Kind::Internal);
    }
    // A row of the table of positions is not finite: the first logits that know it are told.
    let position = model.layout.entry("wpe").offset;
    model.flat[position + 4 * 16] = f32::NAN;
    drop(gpu);
    let mut gpu = OnGpu::new(&model, &CASES[0].runs()[0]).expect("it was there before");
    // In one launch, or with others before and after the one that found it.
    let one_each = Cut { per_launch: 2, per_block: 2, columns: 32, passes: 1 };
    for (cut, launches) in [(None, 1), (Some(one_each), 5)] {
        let error = gpu.run(&model, &good, cut).unwrap_err();
        assert_eq!(error.kind(), Kind::NonFiniteTraining);
        assert!(error.to_string().contains("generated timestep 29"), "{cut:?}: {error}");
        assert!(gpu.launched == launches || gpu.bench.is_real(), "{cut:?}: {} launches", gpu.launched);
    }
}

/// What another step costs: keys and values once, each block's weights once, and the tensor operations of the kernel's comment.
#[test]
fn a_step_costs_what_it_must() {
    let (n_layer, e, q, n, n_prompt) = (2, 96, 256, 3, 70);
    let model = Model::new(n_layer, 12, e, 72, q, Head::Shared);
    let Some(mut gpu) = OnGpu::new(&model, &RUNS[3]) else { return };
    if gpu.bench.is_real() {
        return;
    }
    let [one, two] = [1, 2].map(|n_new| {
        let batch = Batch::new(&model.config, n, n_prompt, n_new, NUCLEUS);
        gpu.run(&model, &batch, Some(Cut { per_launch: n, per_block: n, columns: 32, passes: usize::MAX })).unwrap();
        gpu.counters.clone()
    });
    let n_key = n_prompt + 1;
    let kept = n * n_layer * 4 * e * n_key;
    let weights = n_layer * 24 * e * e + 2 * e * q;
    let loaded = (two.global_loads.bytes - one.global_loads.bytes) as usize;
    // The rest: rows of tables, biases, indices, and the two logits' worth of a prompt.
    let rest = n * (5 + 4 * n_layer) * 4 * e + n_layer * 8 * e * 16;
    assert!((kept + weights..kept + weights + rest).contains(&loaded), "{loaded} of {kept} + {weights}");
    assert_eq!(two.global_loads.sectors, two.global_loads.ideal_sectors);
    let wavefronts = two.shared_loads.wavefronts as f64 / two.shared_loads.ideal_wavefronts as f64;
    assert!(wavefronts < 1.05, "{wavefronts}");

    let issued = |name: &str| {
        let of = |counters: &Counters| -> u64 {
            counters.tensor.iter().filter(|(full, _)| full.contains(name)).map(|(_, count)| count).sum()
        };
        (of(&two) - of(&one)) as usize
    };
    // Products with eight columns a tile; for each head of each sequence stretches of eight tiles of keys.
    let stretches = n * 12 * n_key.div_ceil(64);
    assert_eq!(issued("m16n8k16"), n_layer * (12 * (e / 16) * (e / 16) + stretches * 4) + (q / 16) * (e / 16));
    assert_eq!(issued("m16n8k8"), n_layer * stretches * 8);
}
