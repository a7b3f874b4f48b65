//! The whole network: the oracle against finite differences and PyTorch, and every device against the oracle.

#[path = "oracle/mod.rs"]
mod oracle;
#[path = "support/tensors.rs"]
mod tensors;

use gpt2meg::device::cpu::Cpu;
use gpt2meg::device::{AdamW, Device, Dtype, Inputs, OptimizerState, Tensor};
use gpt2meg::model::config::{Head, ModelConfig};
use gpt2meg::model::gpt2::{Backward, Gpt2};
use gpt2meg::model::layout::ParamLayout;
use oracle::network::{Batch, Shape, Table, run};
use oracle::number::{Matrix, Number};
use safetensors::SafeTensors;
use serde_json::Value;
use tensors::numbers;

/// What PyTorch made: see `tests/fixtures/make_pytorch.py`.
struct Fixture {
    config: ModelConfig,
    lr: f64,
    weight_decay: f64,
    params: Table,
    grads: Vec<(String, Vec<f64>)>,
    batch: Batch,
    logits: Vec<f64>,
    losses: Vec<f64>,
}

impl Fixture {
    /// One output projection for all channels, and one for each.
    fn both() -> [Self; 2] {
        let shared = include_bytes!("fixtures/pytorch/small.safetensors");
        let per_channel = include_bytes!("fixtures/pytorch/per_channel.safetensors");
        [Self::read(shared, Head::Shared), Self::read(per_channel, Head::PerChannel)]
    }

    fn read(bytes: &[u8], head: Head) -> Self {
        let file = SafeTensors::deserialize(bytes).unwrap();
        let (_, header) = SafeTensors::read_metadata(bytes).unwrap();
        let metadata = header.metadata().clone().unwrap();
        let shape: Value = serde_json::from_str(&metadata["shape"]).unwrap();
        let size = |name: &str| shape[name].as_u64().unwrap() as usize;
        let config = ModelConfig {
            n_layer: size("n_layer"),
            n_head: size("n_head"),
            d_model: size("d_model"),
            n_ctx: size("n_ctx"),
            n_level: size("n_level"),
            n_channel: size("n_channel"),
            n_subject: size("n_subject"),
            n_condition: size("n_condition"),
            head,
        };
        assert_eq!(file.tensor("param.lm_head").unwrap().shape().len(), if head == Head::Shared { 2 } else { 3 });
        let (mut params, mut grads) = (Table::new(), Vec::new());
        for name in file.names() {
            if let Some(name) = name.strip_prefix("param.") {
                let tensor = file.tensor(&format!("param.{name}")).unwrap();
                let columns = *tensor.shape().last().unwrap();
                let data: Vec<f32> = numbers(&file, &format!("param.{name}"));
                params.insert(name.to_string(), Matrix::exact(data.len() / columns, columns, &data));
                grads.push((name.to_string(), numbers(&file, &format!("grad.{name}"))));
            }
        }
        let t = config.n_ctx;
        let token: Vec<u8> = numbers(&file, "token");
        let condition: Vec<u16> = numbers(&file, "condition");
        let batch = Batch {
            token: token.chunks(t + 1).map(<[u8]>::to_vec).collect(),
            condition: condition.chunks(t).map(<[u16]>::to_vec).collect(),
            channel: numbers(&file, "channel"),
            subject: numbers(&file, "subject"),
        };
        let number = |name: &str| metadata[name].parse().unwrap();
        let (lr, weight_decay) = (number("lr"), number("weight_decay"));
        let (logits, losses) = (numbers(&file, "logits"), numbers(&file, "losses"));
        Self { config, lr, weight_decay, params, grads, batch, logits, losses }
    }
}

fn shape(config: &ModelConfig) -> Shape {
    Shape { n_layer: config.n_layer, n_head: config.n_head, n_ctx: config.n_ctx, n_level: config.n_level }
}

#[test]
fn the_oracles_gradients_are_finite_differences() {
    finite_differences(Head::Shared);
    finite_differences(Head::PerChannel);
}

fn finite_differences(head: Head) {
    let config = ModelConfig {
        n_layer: 2,
        n_head: 2,
        d_model: 6,
        n_ctx: 6,
        n_level: 5,
        n_channel: 2,
        n_subject: 2,
        n_condition: 2,
        head,
    };
    // Values that look random, large enough that nothing is near linear.
    let mut state = 1u64;
    let mut next = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as f64 / (1u64 << 31) as f64 * 2.0 - 1.0
    };
    let mut params = Table::new();
    for entry in ParamLayout::new(&config).entries() {
        let columns = *entry.shape.last().unwrap();
        let data =
            (0..entry.len).map(|_| Number::from(0.7 * next() + if entry.name.contains("ln_") { 0.5 } else { 0.0 }));
        params.insert(entry.name.clone(), Matrix::new(entry.len / columns, columns, data.collect()));
    }
    let batch = Batch {
        token: vec![vec![0, 3, 1, 4, 2, 2, 0], vec![4, 4, 0, 1, 3, 0, 1]],
        condition: vec![vec![0, 1, 1, 0, 2, 2], vec![2, 0, 0, 1, 0, 1]],
        channel: vec![0, 1],
        subject: vec![1, 0],
    };
    let (shape, grads) = (shape(&config), run(&params, &shape(&config), &batch).grads);
    let step = 1e-4;
    for (name, grad) in &grads {
        for i in 0..grad.data.len() {
            let loss = |by: f64| {
                let mut params = params.clone();
                let value = &mut params.get_mut(name).unwrap().data[i];
                *value = Number::from(value.v + by);
                run(&params, &shape, &batch).loss.v
            };
            // Fourth order: the error is of the fifth derivative times step⁴ / 30, and rounding 1e-16 / step.
            let slope = (8.0 * (loss(step) - loss(-step)) - (loss(2.0 * step) - loss(-2.0 * step))) / (12.0 * step);
            // 1/T of the batch's targets is an f32 in the oracle, so 2⁻²⁴ relative beside those.
            let bound = 1e-9 + 1e-7 * slope.abs();
            let found = grad.data[i].v;
            assert!((slope - found).abs() < bound, "{head:?}, {name}[{i}]: {slope} and {found}");
        }
    }
}

#[test]
fn the_oracle_is_pytorch() {
    Fixture::both().iter().for_each(oracle_is_pytorch);
}

fn oracle_is_pytorch(fixture: &Fixture) {
    let outcome = run(&fixture.params, &shape(&fixture.config), &fixture.batch);
    // Both are f64; the factor 1 / targets is an f32 here, 2⁻²⁴ off.
    let near = |ours: f64, theirs: f64| (ours - theirs).abs() <= 1e-12 + 1e-7 * theirs.abs();
    assert!(near(outcome.loss.v, fixture.losses[0]), "{} {}", outcome.loss.v, fixture.losses[0]);
    let logits: Vec<_> = outcome.logits.iter().flat_map(|logits| &logits.data).collect();
    assert_eq!(logits.len(), fixture.logits.len());
    for (ours, &theirs) in logits.iter().zip(&fixture.logits) {
        assert!((ours.v - theirs).abs() < 1e-10, "{} {theirs}", ours.v);
    }
    assert_eq!(fixture.grads.len(), outcome.grads.len());
    for (name, theirs) in &fixture.grads {
        let ours = &outcome.grads[name].data;
        assert_eq!(ours.len(), theirs.len(), "{name}");
        for (ours, &theirs) in ours.iter().zip(theirs) {
            assert!(near(ours.v, theirs), "{name}: {} {theirs}", ours.v);
        }
    }
}

/// A device with the fixture's model on it.
struct Trainer {
    device: Box<dyn Device>,
    layout: ParamLayout,
    model: Gpt2,
    backward: Backward,
    inputs: Inputs,
    scores: Tensor,
    state: OptimizerState,
    n: usize,
}

impl Trainer {
    fn new(mut device: Box<dyn Device>, fixture: &Fixture) -> Self {
        let (config, batch) = (fixture.config.clone(), &fixture.batch);
        let layout = ParamLayout::new(&config);
        let mut start = vec![0.0f32; layout.len()];
        for entry in layout.entries() {
            let values = &fixture.params[&entry.name].data;
            for (to, from) in start[entry.offset..][..entry.len].iter_mut().zip(values) {
                *to = from.v as f32;
            }
        }
        let n = batch.token.len();
        let p = layout.len();
        let slots = device.grad_slots();
        let mut put = |dtype: Dtype, len: usize, bytes: &[u8]| {
            let tensor = device.alloc(dtype, len).unwrap();
            if !bytes.is_empty() {
                device.upload(tensor, bytes).unwrap();
            }
            tensor
        };
        let inputs = Inputs {
            token: put(Dtype::U8, n * (config.n_ctx + 1), &batch.token.concat()),
            condition: put(Dtype::U16, n * config.n_ctx, bytemuck::cast_slice(&batch.condition.concat())),
            channel: put(Dtype::U32, n, bytemuck::cast_slice(&batch.channel)),
            subject: put(Dtype::U32, n, bytemuck::cast_slice(&batch.subject)),
        };
        let params = put(Dtype::F32, p, bytemuck::cast_slice(&start));
        let (grads, m, v) = (put(Dtype::F32, slots * p, &[]), put(Dtype::F32, p, &[]), put(Dtype::F32, p, &[]));
        let scores = put(Dtype::F32, n * 4, &[]);
        let levels = put(Dtype::F32, config.n_level, &[]);
        let state = OptimizerState { params, grads, m, v, n_decayed: layout.n_decayed() };
        let weight = 1.0 / (n * config.n_ctx / 2) as f32;
        let backward = Backward { grads: layout.bind(grads), weight };
        let model = Gpt2 { params: layout.bind(params), levels, config };
        Self { device, layout, model, backward, inputs, scores, state, n }
    }

    fn get(&mut self, tensor: Tensor) -> Vec<f32> {
        let mut data = vec![0.0f32; tensor.len];
        self.device.download(tensor, bytemuck::cast_slice_mut(&mut data)).unwrap();
        data
    }

    /// Forward and backward; the mean loss.
    fn loss(&mut self) -> f64 {
        let device = &mut *self.device;
        let work = self.model.workspace(device, self.n, true).unwrap();
        let call = self.model.call(0, self.n);
        self.model.loss(device, &call, &self.inputs, &work, self.scores, Some(&self.backward)).unwrap();
        let scores = self.get(self.scores);
        let nats: f64 = scores.chunks(4).map(|row| f64::from(row[0])).sum();
        nats / (self.n * self.model.config.n_ctx / 2) as f64
    }

    fn logits(&mut self) -> Vec<f32> {
        let (config, device) = (&self.model.config, &mut *self.device);
        let half = config.first_target();
        let work = self.model.workspace(device, self.n, false).unwrap();
        let logits = device.alloc(Dtype::F32, self.n * half * config.n_level).unwrap();
        self.model.logits(device, &self.model.call(0, self.n), half, &self.inputs, &work, logits).unwrap();
        self.get(logits)
    }
}

#[test]
fn devices_have_pytorchs_loss_gradients_and_ten_steps() {
    Fixture::both().iter().for_each(device_has_pytorchs);
}

fn device_has_pytorchs(fixture: &Fixture) {
    let outcome = run(&fixture.params, &shape(&fixture.config), &fixture.batch);
    let mut trainer = Trainer::new(Box::new(Cpu::new(Some(2)).unwrap()), fixture);

    let logits = trainer.logits();
    let expected = outcome.logits.iter().flat_map(|logits| &logits.data);
    for (i, (&ours, expected)) in logits.iter().zip(expected).enumerate() {
        assert!(expected.allows(ours, 1), "logit {i}: {ours} for {} ± {:e}", expected.v, expected.deviation());
    }

    let first = trainer.loss();
    assert!((first - fixture.losses[0]).abs() <= outcome.loss.deviation(), "{first} {}", fixture.losses[0]);
    let slots = trainer.get(trainer.state.grads);
    let p = trainer.layout.len();
    let mut gradient_error = 0.0;
    for entry in trainer.layout.entries() {
        let expected = &outcome.grads[&entry.name].data;
        for (i, expected) in expected.iter().enumerate() {
            let sum: f32 = slots.chunks(p).map(|slot| slot[entry.offset + i]).sum();
            let name = &entry.name;
            assert!(expected.allows(sum, 1), "{name}[{i}]: {sum} for {} ± {:e}", expected.v, expected.deviation());
            gradient_error += expected.deviation();
        }
    }

    // A gradient that is off by e moves Adam's step by at most 2 · lr · e / |gradient|, and that the loss by
    // |gradient| times as much: 2 · lr · e, for each parameter and step. (Where the gradient is zero in truth, as that of
    // the keys' bias, the step is noise, and the loss does not depend on it.)
    for (step, &expected) in fixture.losses.iter().enumerate() {
        let loss = if step == 0 { first } else { trainer.loss() };
        let bound = outcome.loss.deviation() + 2.0 * fixture.lr * gradient_error * step as f64;
        assert!((loss - expected).abs() <= bound, "step {step}: {loss} for {expected} ± {bound:e}");
        assert!(bound < 0.02 * (fixture.losses[0] - expected).abs().max(0.1), "a bound of {bound:e} proves little");
        let hyper = AdamW {
            lr: fixture.lr as f32,
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            weight_decay: fixture.weight_decay as f32,
            max_norm: f32::INFINITY,
            step: step as u64 + 1,
        };
        assert!(trainer.device.update(&trainer.state, &hyper, trainer.scores).unwrap().applied);
    }
}

#[test]
fn nothing_not_finite_hides_on_its_way_to_the_loss() {
    Fixture::both().iter().for_each(nothing_hides);
}

fn nothing_hides(fixture: &Fixture) {
    let names: Vec<_> = ParamLayout::new(&fixture.config).entries().iter().map(|entry| entry.name.clone()).collect();
    for name in names.iter().filter(|name| *name != "wye") {
        for poison in [f32::NAN, f32::INFINITY] {
            let mut trainer = Trainer::new(Box::new(Cpu::new(Some(1)).unwrap()), fixture);
            let entry = trainer.layout.entry(name).clone();
            let at = trainer.state.params.slice(entry.offset, 1);
            trainer.device.upload(at, bytemuck::bytes_of(&poison)).unwrap();
            let before = trainer.get(trainer.state.params);
            trainer.loss();
            let hyper =
                AdamW { lr: 0.1, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.1, max_norm: 1.0, step: 1 };
            let outcome = trainer.device.update(&trainer.state, &hyper, trainer.scores).unwrap();
            assert!(!outcome.applied, "{poison} in {name}");
            let after = trainer.get(trainer.state.params);
            assert!(before.iter().zip(&after).all(|(a, b)| a.to_bits() == b.to_bits()), "{name}");
            assert!(trainer.get(trainer.state.grads).iter().all(|&g| g == 0.0), "{name}");
        }
    }
}
