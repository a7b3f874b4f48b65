//! Generation as a whole: the window policy over the cached rollout against a plain loop that computes every window
//! anew, without a cache.

use gpt2meg::device::cpu::{Cpu, sampler};
use gpt2meg::device::{Call, Device, Dtype, Inputs, Rollout, Sampler};
use gpt2meg::generate::conditions::Series;
use gpt2meg::generate::{Generator, Plan};
use gpt2meg::model::config::{Head, ModelConfig};
use gpt2meg::model::gpt2::Gpt2;
use gpt2meg::model::layout::{Init, ParamLayout};
use gpt2meg::random::{Purpose, keyed, word_at};
use rand::Rng;

const SEED: u64 = 17;
const GREEDY: Sampler = Sampler { temperature: 1.0, top_k: 0, top_p: 1.0, greedy: true };
const NUCLEUS: Sampler = Sampler { temperature: 1.2, top_k: 0, top_p: 0.8, greedy: false };

fn config(n_ctx: usize) -> ModelConfig {
    let (head, n_level) = (Head::Shared, 64);
    ModelConfig { n_layer: 2, n_head: 2, d_model: 16, n_ctx, n_level, n_channel: 3, n_subject: 2, n_condition: 4, head }
}

/// Parameters of ordinary size times ten, so that logits are well apart.
fn parameters(config: &ModelConfig) -> Vec<f32> {
    let layout = ParamLayout::new(config);
    let mut noise = keyed(2, Purpose::Init, 0);
    let mut flat = vec![0.0; layout.len()];
    for entry in layout.entries() {
        for x in &mut flat[entry.offset..][..entry.len] {
            let spread = (noise.next_u32() as f64 / u32::MAX as f64 - 0.5) as f32;
            *x = match entry.init {
                Init::Constant(c) => c + 0.3 * spread,
                Init::Normal(_) => 0.7 * spread,
            };
        }
    }
    flat
}

struct Network {
    device: Cpu,
    gpt2: Gpt2,
    flat: Vec<f32>,
    layout: ParamLayout,
}

impl Network {
    fn new(config: &ModelConfig) -> Self {
        let mut device = Cpu::new(Some(2)).unwrap();
        let (layout, flat) = (ParamLayout::new(config), parameters(config));
        let buffer = device.alloc(Dtype::F32, layout.len()).unwrap();
        device.upload(buffer, bytemuck::cast_slice(&flat)).unwrap();
        let levels = device.alloc(Dtype::F32, config.n_level).unwrap();
        let gpt2 = Gpt2 { config: config.clone(), params: layout.bind(buffer), levels };
        Self { device, gpt2, flat, layout }
    }

    fn upload<T: bytemuck::Pod>(&mut self, dtype: Dtype, values: &[T]) -> gpt2meg::device::Tensor {
        let tensor = self.device.alloc(dtype, values.len()).unwrap();
        self.device.upload(tensor, bytemuck::cast_slice(values)).unwrap();
        tensor
    }

    /// The logits after each of the tokens from position `from` on, by the stages that training uses: no cache.
    fn uncached(&mut self, tokens: &[u8], condition: &[u16], channel: u32, subject: u32, from: usize) -> Vec<f32> {
        let n_time = tokens.len();
        // The last target is nobody's: any token.
        let inputs = Inputs {
            token: self.upload(Dtype::U8, &[tokens, &[0]].concat()),
            condition: self.upload(Dtype::U16, condition),
            channel: self.upload(Dtype::U32, &[channel]),
            subject: self.upload(Dtype::U32, &[subject]),
        };
        let gpt2 = self.gpt2.clone();
        let work = gpt2.workspace(&mut self.device, 1, false).unwrap();
        let work_x = work.x.slice(0, n_time * gpt2.config.d_model);
        let work = gpt2meg::model::gpt2::Workspace { x: work_x, ..work };
        let call = Call { n_time, ..gpt2.call(0, 1) };
        let len = (n_time - from) * gpt2.config.n_level;
        let logits = self.device.alloc(Dtype::F32, len).unwrap();
        gpt2.logits(&mut self.device, &call, from, &inputs, &work, logits).unwrap();
        let mut values = vec![0.0f32; len];
        self.device.download(logits, bytemuck::cast_slice_mut(&mut values)).unwrap();
        for tensor in [inputs.token, inputs.condition, inputs.channel, inputs.subject, work.x, work.dx, logits] {
            self.device.free(tensor);
        }
        values
    }

    /// How far two f32 computations of a logit may lie apart: twice the error of one. By Cauchy and Schwarz the absolute
    /// products of a logit sum to at most |weights| · |normalised row|; each of the 2L + 1 half-blocks and the head adds
    /// a relative error of as many roundings as its longest sum has terms.
    fn bound(&self, level: usize) -> f32 {
        let config = &self.gpt2.config;
        let get = |name: &str| {
            let entry = self.layout.entry(name);
            &self.flat[entry.offset..][..entry.len]
        };
        let norm = |x: &[f32]| x.iter().map(|x| x * x).sum::<f32>().sqrt();
        let largest = get("ln_f.weight").iter().fold(0.0f32, |most, x| most.max(x.abs()));
        let row = (config.d_model as f32).sqrt() * largest + norm(get("ln_f.bias"));
        let longest = (4 * config.d_model).max(config.n_ctx) as f32;
        let head = norm(&get("lm_head")[level * config.d_model..][..config.d_model]);
        2.0 * (2 * config.n_layer + 1) as f32 * longest / 16_777_216.0 * head * row
    }
}

fn plan(config: &ModelConfig, hop: usize, sampler: Sampler) -> Plan {
    let n_prompt = config.n_ctx - hop;
    let mut noise = keyed(5, Purpose::Init, 0);
    Plan {
        config: config.clone(),
        hop,
        n_rollout: 2,
        subject: 1,
        prompt: (0..config.n_channel * n_prompt).map(|_| noise.next_u32() as u8 % config.n_level as u8).collect(),
        prompt_condition: (0..n_prompt).map(|t| (t / 3 % 5) as u16).collect(),
        series: Series::Random { seed: SEED, n_condition: config.n_condition, pause: 2, trial: 3 },
        seed: SEED,
        sampler,
    }
}

/// The whole loop, written as the paper's section 4 says it: for every token, the window's tokens so far from position 0
/// on, computed anew.
fn plain_loop(network: &mut Network, plan: &Plan, n_chunk: usize) -> Vec<Vec<u8>> {
    let (n_channel, n_prompt) = (plan.config.n_channel, plan.config.n_ctx - plan.hop);
    let mut series = Vec::new();
    for sequence in 0..plan.n_rollout * n_channel {
        let (rollout, channel) = (sequence / n_channel, sequence % n_channel);
        let mut tokens = plan.prompt[channel * n_prompt..][..n_prompt].to_vec();
        let mut condition = plan.prompt_condition.clone();
        condition.extend((0..n_chunk * plan.hop).map(|t| plan.series.at(rollout as u64, t)));
        for timestep in 0..n_chunk * plan.hop {
            let window = timestep / plan.hop * plan.hop;
            let (tokens_in, condition) = (&tokens[window..], &condition[window..tokens.len()]);
            let last = tokens_in.len() - 1;
            let logits = network.uncached(tokens_in, condition, channel as u32, plan.subject, last);
            let word = word_at(plan.seed, Purpose::Sampling, sequence as u64, timestep as u64);
            tokens.push(sampler::draw(&logits, &plan.sampler, word).unwrap());
        }
        series.push(tokens[n_prompt..].to_vec());
    }
    series
}

#[test]
fn the_window_policy_with_a_cache_equals_plain_recomputation() {
    for (n_ctx, hop, n_chunk) in [(12, 1, 9), (20, 10, 3), (20, 3, 5), (8, 7, 4), (2, 1, 5)] {
        let config = config(n_ctx);
        let mut network = Network::new(&config);
        for sampler in [GREEDY, NUCLEUS] {
            let plan = plan(&config, hop, sampler);
            let expected = plain_loop(&mut network, &plan, n_chunk);
            let mut generator = Generator::new(plan).unwrap();
            let mut series = vec![Vec::<u8>::new(); 2 * config.n_channel];
            for _ in 0..n_chunk {
                let tokens = generator.draw(&mut network.device, &network.gpt2.params).unwrap();
                for (series, new) in series.iter_mut().zip(tokens.chunks(hop)) {
                    series.extend(new);
                }
                generator.advance(&tokens);
            }
            assert_eq!(series, expected, "context {n_ctx}, hop {hop}, {sampler:?}");
            assert_eq!(generator.timestep(), n_chunk * hop);
        }
    }
}

/// Greedy rollouts of one prompt and one condition series are equal; drawn ones are not.
#[test]
fn rollouts_draw_for_themselves() {
    let config = config(20);
    let mut network = Network::new(&config);
    let mut halves_equal = |sampler| {
        let plan = Plan { series: Series::None, ..plan(&config, 10, sampler) };
        let tokens = Generator::new(plan).unwrap().draw(&mut network.device, &network.gpt2.params).unwrap();
        tokens[..30] == tokens[30..]
    };
    assert!(halves_equal(GREEDY));
    assert!(!halves_equal(NUCLEUS));
}

#[test]
fn cached_logits_equal_uncached_ones_at_every_position() {
    for (n_ctx, n_prompt) in [(16, 1), (16, 16), (64, 20), (130, 63), (130, 64), (130, 120)] {
        let config = config(n_ctx);
        let mut network = Network::new(&config);
        let n_new = n_ctx + 1 - n_prompt;
        let mut noise = keyed(6, Purpose::Init, n_prompt as u64);
        let prompt: Vec<u8> = (0..n_prompt).map(|_| noise.next_u32() as u8 % 64).collect();
        let condition: Vec<u16> = (0..n_ctx).map(|_| noise.next_u32() as u16 % 5).collect();
        let rollout = Rollout {
            n: 1,
            n_prompt,
            n_new,
            prompt: &prompt,
            condition: &condition,
            channel: &[2],
            subject: &[1],
            key: &[3],
            timestep: 0,
            seed: SEED,
            sampler: NUCLEUS,
        };
        let mut tokens = vec![0; n_new];
        let mut cached = vec![0.0; n_new * config.n_level];
        let params = network.gpt2.params.clone();
        network.device.rollout(&config, &params, &rollout, &mut tokens, Some(&mut cached)).unwrap();
        let fed = [&prompt[..], &tokens[..n_new - 1]].concat();
        let uncached = network.uncached(&fed, &condition, 2, 1, n_prompt - 1);
        for (at, (a, b)) in cached.iter().zip(&uncached).enumerate() {
            let bound = network.bound(at % config.n_level);
            let step = at / config.n_level;
            assert!((a - b).abs() <= bound, "context {n_ctx}, step {step}: {a} and {b}, bound {bound:e}");
        }
    }
}

/// What a call may ask for is checked: sizes, indices, the window.
#[test]
fn rollouts_that_make_no_sense_are_refused() {
    let config = config(16);
    let mut network = Network::new(&config);
    let params = network.gpt2.params.clone();
    let (prompt, condition) = ([1u8; 10], [0u16; 16]);
    let good = Rollout {
        n: 1,
        n_prompt: 10,
        n_new: 7,
        prompt: &prompt,
        condition: &condition,
        channel: &[2],
        subject: &[1],
        key: &[3],
        timestep: 0,
        seed: SEED,
        sampler: NUCLEUS,
    };
    let mut run = |rollout: &Rollout| {
        let mut tokens = vec![0; rollout.n_new];
        network.device.rollout(&config, &params, rollout, &mut tokens, None)
    };
    assert!(run(&good).is_ok());
    let bad = [
        ("beyond the window", Rollout { n_new: 8, condition: &[0; 17], ..good }),
        ("no prompt", Rollout { n_prompt: 0, prompt: &[], condition: &[0; 6], ..good }),
        ("prompt too short", Rollout { prompt: &prompt[1..], ..good }),
        ("conditions too short", Rollout { condition: &condition[1..], ..good }),
        ("an unknown level", Rollout { prompt: &[64; 10], ..good }),
        ("an unknown condition", Rollout { condition: &[5; 16], ..good }),
        ("an unknown channel", Rollout { channel: &[3], ..good }),
        ("an unknown subject", Rollout { subject: &[2], ..good }),
        ("no keys", Rollout { key: &[], ..good }),
        ("no temperature", Rollout { sampler: Sampler { temperature: 0.0, ..NUCLEUS }, ..good }),
        ("no nucleus", Rollout { sampler: Sampler { top_p: f32::NAN, ..NUCLEUS }, ..good }),
    ];
    for (what, rollout) in bad {
        assert!(run(&rollout).is_err(), "{what}");
    }
}
