//! Generation as a whole: logits with and without the cache against the float64 oracle; the window policy over the cached rollout against a plain loop that computes every window
//! anew, without a cache.

mod oracle;

use gpt2meg::device::cpu::{Cpu, sampler};
use gpt2meg::device::{Call, Device, Dtype, Inputs, Rollout, Sampler};
use gpt2meg::generate::conditions::Series;
use gpt2meg::generate::{Generator, Plan};
use gpt2meg::model::config::{Head, ModelConfig};
use gpt2meg::model::gpt2::Gpt2;
use gpt2meg::model::layout::{Init, ParamLayout};
use gpt2meg::model::network::Generating;
use gpt2meg::random::{Purpose, keyed, word_at};
use gpt2meg::train::labels::ConditionLabels;
use oracle::network::{Shape, Table};
use oracle::number::Matrix;
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
                _ => 0.7 * spread,
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

    fn generating(&self) -> Generating {
        Generating::Gpt(self.gpt2.config.clone(), self.gpt2.params.clone())
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

    /// The logits after each token, as the oracle has them, with what rounding may do to them.
    fn oracle(&self, tokens: &[u8], condition: &[u16], channel: u32, subject: u32) -> Matrix {
        let ModelConfig { n_layer, n_head, n_ctx, n_level, .. } = self.gpt2.config;
        let mut params = Table::new();
        for entry in self.layout.entries() {
            let columns = *entry.shape.last().unwrap();
            let data = &self.flat[entry.offset..][..entry.len];
            params.insert(entry.name.clone(), Matrix::exact(entry.len / columns, columns, data));
        }
        let own = if self.gpt2.config.head == Head::PerChannel { channel as usize * n_level } else { 0 };
        let all = &params["lm_head"];
        let lm_head =
            Matrix::new(n_level, all.columns, all.data[own * all.columns..][..n_level * all.columns].to_vec());
        oracle::network::logits(
            &params,
            &Shape { n_layer, n_head, n_ctx, n_level },
            &lm_head,
            tokens,
            condition,
            [channel, subject],
        )
    }
}

fn plan(config: &ModelConfig, hop: usize, sampler: Sampler) -> Plan {
    let n_prompt = config.n_ctx - hop;
    let mut noise = keyed(5, Purpose::Init, 0);
    Plan {
        model: config.clone().into(),
        hop,
        n_rollout: 2,
        subject: 1,
        prompt: (0..config.n_channel * n_prompt).map(|_| noise.next_u32() as u8 % config.n_level as u8).collect(),
        prompt_condition: (0..n_prompt).map(|t| (t / 3 % 5) as u16).collect(),
        series: Series::Random { seed: SEED, n_condition: config.n_condition, pause: 2, trial: 3 },
        labels: ConditionLabels::Data,
        seed: SEED,
        sampler,
    }
}

/// The whole loop, written as the paper's section 4 says it: for every token, the window's tokens so far from position 0
/// on, computed anew.
fn plain_loop(network: &mut Network, plan: &Plan, n_chunk: usize) -> Vec<Vec<u8>> {
    let (n_channel, n_prompt) = (plan.model.n_channel(), plan.model.n_ctx() - plan.hop);
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
                let model = network.generating();
                let tokens = generator.draw(&mut network.device, &model).unwrap();
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
        let model = network.generating();
        let tokens = Generator::new(plan).unwrap().draw(&mut network.device, &model).unwrap();
        tokens[..30] == tokens[30..]
    };
    assert!(halves_equal(GREEDY));
    assert!(!halves_equal(NUCLEUS));
}

/// Shapes around what matters: the shortest window, one layer, one head, head widths off a vector's, one below and above
/// the tile of rows (64), prompts of one token and of the whole window, heads shared and not; and the sequences, more than
/// are drawn together (8) in one.
fn cases() -> Vec<(ModelConfig, usize, usize)> {
    let of = |n_layer, n_head, d_head, n_ctx, n_level, head| {
        let (n_channel, n_subject, n_condition) = (3, 2, 4);
        let d_model = n_head * d_head;
        ModelConfig { n_layer, n_head, d_model, n_ctx, n_level, n_channel, n_subject, n_condition, head }
    };
    let (shared, own) = (Head::Shared, Head::PerChannel);
    vec![
        (of(1, 1, 1, 2, 2, shared), 1, 1),
        (of(2, 2, 8, 16, 64, shared), 1, 1),
        (of(2, 2, 8, 16, 64, shared), 16, 2),
        (of(2, 3, 5, 16, 17, own), 6, 11),
        (of(2, 2, 8, 66, 256, own), 63, 2),
        (of(3, 2, 8, 66, 33, shared), 64, 9),
        (of(2, 1, 20, 130, 31, shared), 65, 1),
        (of(2, 2, 16, 130, 64, shared), 129, 2),
        (of(2, 17, 2, 40, 64, shared), 20, 3),
    ]
}

/// Logits that were drawn from, with the cache, and logits of the stages that training uses, without it, are both what
/// the oracle says, to what rounding may do: so each equals the other within twice that.
#[test]
fn cached_logits_equal_uncached_ones_at_every_position() {
    for (config, n_prompt, n) in cases() {
        let ModelConfig { n_ctx, n_level, .. } = config;
        let mut network = Network::new(&config);
        let n_new = n_ctx + 1 - n_prompt;
        let mut noise = keyed(6, Purpose::Init, n_prompt as u64);
        let mut below = |limit: usize| noise.next_u32() as usize % limit;
        let prompt: Vec<u8> = (0..n * n_prompt).map(|_| below(n_level) as u8).collect();
        let condition: Vec<u16> = (0..n * n_ctx).map(|_| below(5) as u16).collect();
        let channel: Vec<u32> = (0..n).map(|_| below(3) as u32).collect();
        let subject: Vec<u32> = (0..n).map(|_| below(2) as u32).collect();
        let key: Vec<u64> = (0..n as u64).collect();
        let rollout = Rollout {
            n,
            n_prompt,
            n_new,
            prompt: &prompt,
            condition: &condition,
            channel: &channel,
            subject: &subject,
            key: &key,
            timestep: 0,
            seed: SEED,
            sampler: NUCLEUS,
        };
        let mut tokens = vec![0; n * n_new];
        let mut cached = vec![0.0; n * n_new * n_level];
        let params = network.gpt2.params.clone();
        network.device.rollout(&config, &params, &rollout, &mut tokens, Some(&mut cached)).unwrap();
        // The first sequence and the last.
        for i in [0, n - 1] {
            let new = &tokens[i * n_new..][..n_new - 1];
            let fed = [&prompt[i * n_prompt..][..n_prompt], new].concat();
            let condition = &condition[i * n_ctx..][..n_ctx];
            let expected = network.oracle(&fed, condition, channel[i], subject[i]);
            let uncached = network.uncached(&fed, condition, channel[i], subject[i], n_prompt - 1);
            let cached = &cached[i * n_new * n_level..][..n_new * n_level];
            for (at, (a, b)) in cached.iter().zip(&uncached).enumerate() {
                let want = expected.at(n_prompt - 1 + at / n_level, at % n_level);
                let place = format!("{config:?}, sequence {i}, step {}", at / n_level);
                assert!(want.allows(*a, 1), "{place}: with the cache {a}, should be {want:?}");
                assert!(want.allows(*b, 1), "{place}: without it {b}, should be {want:?}");
            }
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
