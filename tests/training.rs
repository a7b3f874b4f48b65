//! Training in this process: that it learns, that bad numbers never reach the weights, that threads do not matter, and
//! that bad input is refused.

mod support;

use gpt2meg::device::cpu::Cpu;
use gpt2meg::device::{
    AdamW, AttentionParams, Call, Device, Dtype, EmbedParams, HalfBlock, HeadBackward, HeadParams, Inputs, MlpParams,
    OptimizerState, Rollout, Tensor, UpdateOutcome,
};
use gpt2meg::error::{Kind, Result};
use gpt2meg::model::config::{Head, ModelConfig};
use gpt2meg::model::kind::Model;
use gpt2meg::model::layout::Parameters;
use gpt2meg::tokens::dataset::Dataset;
use gpt2meg::tokens::scheme::Scheme;
use gpt2meg::tokens::shard::Split;
use gpt2meg::tokens::window::Window;
use gpt2meg::train::anchors::{Anchors, NAMES, named};
use gpt2meg::train::checkpoint::{self, Checkpoint, DataMeta, Moments, Which};
use gpt2meg::train::config::TrainingConfig;
use gpt2meg::train::init;
use gpt2meg::train::metrics::StepRecord;
use gpt2meg::train::numbering::Numbering;
use gpt2meg::train::run_folder::{RunFolder, RunMeta};
use gpt2meg::train::session::{End, MAX_SKIPPED, Session, validation_windows};
use gpt2meg::train::trainer::Trainer;
use std::collections::BTreeSet;
use std::path::Path;

/// A wave with some disorder, on two channels, in two recordings.
fn wave(folder: &Path) -> Dataset {
    for recording in ["a", "b"] {
        support::write_recording(folder, recording, 2, [300, 100, 100], |channel, time| {
            let disorder = ((time * 7919 + channel * 31) % 101) as f64 / 101.0 - 0.5;
            0.2 * (time as f64 * (0.2 + 0.3 * channel as f64)).sin() + 0.05 * disorder
        });
    }
    Dataset::open(folder).unwrap()
}

fn run_meta(dataset: &Dataset, shape: ModelConfig, training: TrainingConfig) -> RunMeta {
    let data = DataMeta::of(dataset).unwrap();
    let (n_channel, n_subject, n_condition) = (data.info.n_channel(), data.subjects.len(), data.conditions.len());
    let model = Model::from(ModelConfig { n_channel, n_subject, n_condition, ..shape });
    model.check().unwrap();
    training.check().unwrap();
    RunMeta { model, training, data_path: "data".into(), data, version: "test".into() }
}

fn small() -> ModelConfig {
    ModelConfig { n_layer: 2, n_head: 2, d_model: 8, n_ctx: 16, ..ModelConfig::tiny(1, 1, 0) }
}

/// Runs to the end; the newest state and the records.
fn train(
    device: &mut dyn Device,
    folder: &Path,
    run: &RunMeta,
    dataset: &Dataset,
) -> (Result<End>, (Checkpoint, Moments), Vec<StepRecord>) {
    let folder = RunFolder::acquire(folder).unwrap();
    let mut records = Vec::new();
    let end = Session::open(device, &folder, run, dataset).unwrap().run(&mut |record| records.push(*record));
    if let Err(error) = &end {
        println!("{error}");
    }
    (end, checkpoint::load_state(folder.path()).unwrap().unwrap(), records)
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|x| x.to_bits()).collect()
}

#[test]
fn memorises_a_short_recording() {
    for head in [Head::Shared, Head::PerChannel] {
        let folder = tempfile::tempdir().unwrap();
        // Levels without any order, so that nothing but memory helps; each window's last half has been seen often.
        support::write_recording(folder.path(), "a", 2, [65, 65, 65], |channel, time| {
            (((time * 7919 + channel * 104_729 + time * time * 31) % 1009) as f64 / 504.5 - 1.0).powi(3)
        });
        let dataset = Dataset::open(folder.path()).unwrap();
        let shape = ModelConfig { n_layer: 2, n_head: 4, d_model: 64, n_ctx: 16, head, ..small() };
        let training = TrainingConfig { lr: 3e-3, warmup: 10, windows_per_step: 7, ..TrainingConfig::paper(1, 120) };
        let run = run_meta(&dataset, shape, training);
        let mut device = Cpu::new(Some(2)).unwrap();
        let (end, _, records) = train(&mut device, &folder.path().join("run"), &run, &dataset);
        assert_eq!(end.unwrap(), End::Steps);
        let (first, last) = (records[0].nats, records[records.len() - 1].nats);
        // Fresh logits are small: the loss begins at that of the uniform distribution.
        assert!((first - 256f64.ln()).abs() < 0.1, "{head:?}: the first loss is {first}");
        assert!(last < 0.1, "{head:?}: the last loss is {last}");
    }
}

/// What was in the batch before is no part of a step of fewer windows.
#[test]
fn a_step_is_of_its_windows_alone() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = wave(folder.path());
    let run = run_meta(&dataset, small(), TrainingConfig { windows_per_step: 3, ..TrainingConfig::paper(1, 1) });
    let windows: Vec<Window> = (0..3).map(|i| Window { shard: 0, start: 20 * i }).collect();
    let numbering = Numbering::for_windows(&run.data, &dataset, &run.training);
    let layout = run.model.layout();
    let (params, zeros) = (init::parameters(&layout, 1), vec![0.0; layout.len()]);
    let moments = Moments { m: zeros.clone(), v: zeros };
    let hyper = AdamW { lr: 0.0, beta1: 0.9, beta2: 0.99, eps: 1e-8, weight_decay: 0.0, max_norm: 1.0, step: 1 };
    let last = |steps: &[&[Window]]| {
        let mut device = Cpu::new(Some(1)).unwrap();
        let scheme = &run.data.scheme;
        let mut trainer = Trainer::new(&mut device, &run.model, scheme, &params, &moments, 3, &numbering).unwrap();
        let step = |windows: &&[Window]| trainer.step(&dataset, windows, windows.to_vec(), &hyper).unwrap().unwrap();
        steps.iter().map(step).last().unwrap()
    };
    let alone = last(&[&windows[..1]]);
    assert!(alone.applied && alone.nats > 0.0);
    assert_eq!(last(&[&windows, &windows[..1]]), alone);
}

#[test]
fn the_number_of_threads_does_not_matter() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = wave(folder.path());
    let training = TrainingConfig {
        lr: 1e-3,
        windows_per_step: 5,
        validate_every: 4,
        clip_norm: Some(1.0),
        weight_decay: 0.01,
        ..TrainingConfig::paper(7, 12)
    };
    let run = run_meta(&dataset, small(), training);
    let results: Vec<_> = [1, 2, 3, 5]
        .into_iter()
        .map(|threads| {
            let path = folder.path().join(format!("run-{threads}"));
            let mut device = Cpu::new(Some(threads)).unwrap();
            let (end, (state, moments), _) = train(&mut device, &path, &run, &dataset);
            end.unwrap();
            let log = std::fs::read(path.join("metrics.jsonl")).unwrap();
            (bits(&state.params), bits(&moments.m), bits(&moments.v), log, state.meta.progress)
        })
        .collect();
    assert!(results.iter().all(|result| *result == results[0]));
}

#[test]
fn a_run_in_pieces_gives_the_same_bits() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = wave(folder.path());
    let config = |steps| TrainingConfig {
        lr: 1e-3,
        validate_every: 3,
        checkpoint_every: 1,
        patience: Some(100),
        ..TrainingConfig::paper(7, steps)
    };
    let steps = 12;
    let mut device = Cpu::new(Some(1)).unwrap();
    let whole = folder.path().join("whole");
    let (_, (reference, moments), _) =
        train(&mut device, &whole, &run_meta(&dataset, small(), config(steps)), &dataset);
    let pieces = folder.path().join("pieces");
    for stop in (3..=steps).step_by(3) {
        // Stops where a validation is due anyway, and goes on with a longer run.
        let mut device = Cpu::new(Some(1)).unwrap();
        let (end, (state, _), _) = train(&mut device, &pieces, &run_meta(&dataset, small(), config(stop)), &dataset);
        assert_eq!((end.unwrap(), state.meta.progress.step), (End::Steps, stop));
    }
    let (state, resumed) = checkpoint::load_state(&pieces).unwrap().unwrap();
    assert_eq!(state.meta.progress, reference.meta.progress);
    assert_eq!(bits(&state.params), bits(&reference.params));
    assert_eq!((bits(&resumed.m), bits(&resumed.v)), (bits(&moments.m), bits(&moments.v)));
    let log = |run: &Path| std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    assert_eq!(log(&pieces), log(&whole));
}

#[test]
fn patience_stops_a_run_that_no_longer_improves() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = wave(folder.path());
    // So fast that it soon gets worse.
    let training = TrainingConfig { lr: 0.5, validate_every: 2, patience: Some(3), ..TrainingConfig::paper(7, 400) };
    let run = run_meta(&dataset, small(), training);
    let path = folder.path().join("run");
    let (end, (last, _), records) = train(&mut Cpu::new(Some(1)).unwrap(), &path, &run, &dataset);
    assert_eq!(end.unwrap(), End::Patience);
    let validations: Vec<_> = records.iter().filter_map(|r| Some((r.step, r.validation?.nats))).collect();
    let best = validations.iter().min_by(|a, b| a.1.total_cmp(&b.1)).unwrap();
    assert_eq!(last.meta.progress.best.map(|b| (b.step, b.nats)), Some(*best));
    assert_eq!(last.meta.progress.step, best.0 + 6, "three validations after the best");
    let kept = checkpoint::load(&path, Which::Best).unwrap();
    assert_eq!(kept.meta.progress.step, best.0);
    assert_ne!(bits(&kept.params), bits(&last.params));
}

/// A device whose gradients or scores turn bad at chosen updates.
struct Poisoned {
    device: Cpu,
    /// Number of the update (from 1, counted over skipped ones), and what goes wrong.
    plan: Vec<(u64, Poison)>,
    n_update: u64,
}

#[derive(Debug, Clone, Copy)]
enum Poison {
    Gradient(f32),
    Score(f32),
    /// All scores without a backward pass after this update.
    Validation(f32),
}

impl Device for Poisoned {
    fn update(&mut self, state: &OptimizerState, hyper: &AdamW, scores: Tensor) -> Result<UpdateOutcome> {
        self.n_update += 1;
        if let Some((_, poison)) = self.plan.iter().find(|(update, _)| *update == self.n_update) {
            let (tensor, value) = match *poison {
                Poison::Gradient(value) => (state.grads, value),
                Poison::Score(value) => (scores, value),
                Poison::Validation(_) => return self.device.update(state, hyper, scores),
            };
            // Somewhere in the middle.
            self.device.upload(tensor.slice(tensor.len / 2, 1), bytemuck::bytes_of(&value))?;
        }
        self.device.update(state, hyper, scores)
    }

    fn name(&self) -> String {
        self.device.name()
    }
    fn alloc(&mut self, dtype: Dtype, len: usize) -> Result<Tensor> {
        self.device.alloc(dtype, len)
    }
    fn free(&mut self, tensor: Tensor) {
        self.device.free(tensor);
    }
    fn upload(&mut self, to: Tensor, from: &[u8]) -> Result<()> {
        self.device.upload(to, from)
    }
    fn download(&mut self, from: Tensor, to: &mut [u8]) -> Result<()> {
        self.device.download(from, to)
    }
    fn repeated(&mut self, step: &mut (dyn FnMut(&mut dyn Device) -> Result<bool> + Send)) -> Result<bool> {
        step(self)
    }
    fn zero(&mut self, tensor: Tensor) -> Result<()> {
        self.device.zero(tensor)
    }
    fn sync(&mut self) -> Result<()> {
        self.device.sync()
    }
    fn max_sequences(&self) -> usize {
        self.device.max_sequences()
    }
    fn grad_slots(&self) -> usize {
        self.device.grad_slots()
    }
    fn saved_len(&self, half: HalfBlock, call: &Call) -> usize {
        self.device.saved_len(half, call)
    }
    fn embed(&mut self, call: &Call, params: &EmbedParams, inputs: &Inputs, x: Tensor) -> Result<()> {
        self.device.embed(call, params, inputs, x)
    }
    fn embed_backward(&mut self, call: &Call, grads: &EmbedParams, inputs: &Inputs, dx: Tensor) -> Result<()> {
        self.device.embed_backward(call, grads, inputs, dx)
    }
    fn attention(&mut self, call: &Call, params: &AttentionParams, x: Tensor, saved: Option<Tensor>) -> Result<()> {
        self.device.attention(call, params, x, saved)
    }
    fn attention_backward(
        &mut self,
        call: &Call,
        params: &AttentionParams,
        grads: &AttentionParams,
        saved: Tensor,
        dx: Tensor,
    ) -> Result<()> {
        self.device.attention_backward(call, params, grads, saved, dx)
    }
    fn mlp(&mut self, call: &Call, params: &MlpParams, x: Tensor, saved: Option<Tensor>) -> Result<()> {
        self.device.mlp(call, params, x, saved)
    }
    fn mlp_backward(
        &mut self,
        call: &Call,
        params: &MlpParams,
        grads: &MlpParams,
        saved: Tensor,
        dx: Tensor,
    ) -> Result<()> {
        self.device.mlp_backward(call, params, grads, saved, dx)
    }
    fn head_loss(
        &mut self,
        call: &Call,
        params: &HeadParams,
        inputs: &Inputs,
        levels: Tensor,
        x: Tensor,
        scores: Tensor,
        backward: Option<HeadBackward>,
    ) -> Result<()> {
        let is_validation = backward.is_none();
        self.device.head_loss(call, params, inputs, levels, x, scores, backward)?;
        match self.plan.iter().find(|(update, _)| *update == self.n_update) {
            Some((_, Poison::Validation(value))) if is_validation => {
                self.device.upload(scores.slice(0, 1), bytemuck::bytes_of(value))
            }
            _ => Ok(()),
        }
    }
    fn head_logits(
        &mut self,
        call: &Call,
        params: &HeadParams,
        inputs: &Inputs,
        x: Tensor,
        logits: Tensor,
    ) -> Result<()> {
        self.device.head_logits(call, params, inputs, x, logits)
    }
    fn rollout(
        &mut self,
        config: &ModelConfig,
        params: &Parameters,
        rollout: &Rollout,
        tokens: &mut [u8],
        logits: Option<&mut [f32]>,
    ) -> Result<()> {
        self.device.rollout(config, params, rollout, tokens, logits)
    }
}

fn poisoned(plan: Vec<(u64, Poison)>) -> Poisoned {
    Poisoned { device: Cpu::new(Some(1)).unwrap(), plan, n_update: 0 }
}

/// Every sort of bad number, in gradients and in scores.
const POISONS: [Poison; 7] = [
    Poison::Gradient(f32::NAN),
    Poison::Gradient(f32::INFINITY),
    Poison::Gradient(f32::NEG_INFINITY),
    Poison::Gradient(1e30),
    Poison::Score(f32::NAN),
    Poison::Score(f32::INFINITY),
    Poison::Score(f32::NEG_INFINITY),
];

#[test]
fn bad_numbers_never_reach_the_weights() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = wave(folder.path());
    let config = |steps| {
        let recipe = TrainingConfig { lr: 1e-3, checkpoint_every: 1, ..TrainingConfig::paper(7, 100) };
        TrainingConfig { steps, ..recipe }
    };
    let before = folder.path().join("before");
    train(&mut poisoned(vec![]), &before, &run_meta(&dataset, small(), config(3)), &dataset).0.unwrap();
    let (good, good_moments) = checkpoint::load_state(&before).unwrap().unwrap();
    for poison in POISONS {
        let path = folder.path().join(format!("{poison:?}"));
        let run = run_meta(&dataset, small(), config(4));
        let (end, (state, moments), records) = train(&mut poisoned(vec![(4, poison)]), &path, &run, &dataset);
        assert_eq!(end.unwrap(), End::Steps);
        assert!(!records[3].applied, "{poison:?}");
        assert_eq!(bits(&state.params), bits(&good.params), "{poison:?}");
        assert_eq!((bits(&moments.m), bits(&moments.v)), (bits(&good_moments.m), bits(&good_moments.v)));
        let progress = state.meta.progress;
        assert_eq!((progress.step, progress.n_update, progress.n_skipped), (4, 3, 1));
        let log = std::fs::read_to_string(path.join("metrics.jsonl")).unwrap();
        assert!(log.lines().last().unwrap().contains("\"applied\":false"), "{log}");

        // The next step is as good as ever: the gradients were zeroed, and the count goes back.
        let run = run_meta(&dataset, small(), config(5));
        let (_, (state, _), records) = train(&mut poisoned(vec![]), &path, &run, &dataset);
        assert!(records[0].applied && records[0].nats.is_finite());
        assert_eq!((state.meta.progress.n_update, state.meta.progress.n_skipped), (4, 0));
        assert!(state.params.iter().all(|x| x.is_finite()));
    }
}

#[test]
fn a_skipped_step_leaves_nothing_behind_for_the_next() {
    // The same with and without an interruption right after the skipped step.
    let folder = tempfile::tempdir().unwrap();
    let dataset = wave(folder.path());
    let config = |steps| {
        let recipe = TrainingConfig { lr: 1e-3, validate_every: 2, ..TrainingConfig::paper(7, 100) };
        TrainingConfig { steps, ..recipe }
    };
    let plan = vec![(4, Poison::Gradient(f32::NAN))];
    let (whole, pieces) = (folder.path().join("whole"), folder.path().join("pieces"));
    let (_, reference, _) =
        train(&mut poisoned(plan.clone()), &whole, &run_meta(&dataset, small(), config(8)), &dataset);
    train(&mut poisoned(plan), &pieces, &run_meta(&dataset, small(), config(4)), &dataset).0.unwrap();
    let (_, resumed, _) = train(&mut poisoned(vec![]), &pieces, &run_meta(&dataset, small(), config(8)), &dataset);
    assert_eq!(bits(&resumed.0.params), bits(&reference.0.params));
    assert_eq!(bits(&resumed.1.v), bits(&reference.1.v));
    assert_eq!(resumed.0.meta.progress, reference.0.meta.progress);
}

#[test]
fn too_many_bad_steps_in_a_row_stop_the_run_with_a_good_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = wave(folder.path());
    let training = TrainingConfig { lr: 1e-3, ..TrainingConfig::paper(7, 100) };
    let run = run_meta(&dataset, small(), training);
    let path = folder.path().join("run");
    // Seven in a row are survived; then eight are not.
    let bad = |from: u64, n: u64| (from..from + n).map(|update| (update, Poison::Score(f32::NAN)));
    let plan = bad(3, MAX_SKIPPED - 1).chain(bad(20, MAX_SKIPPED)).collect();
    let (end, (state, _), records) = train(&mut poisoned(plan), &path, &run, &dataset);
    let error = end.unwrap_err();
    assert_eq!(error.kind(), Kind::NonFiniteTraining);
    assert_eq!(error.exit_code(), 3);
    assert!(error.to_string().contains("step 27"), "{error}");
    assert_eq!(records.len(), 27);
    assert_eq!(state.meta.progress.step, 27);
    assert!(state.params.iter().all(|x| x.is_finite()));
    // Going on says the same again, and changes nothing.
    let (end, (again, _), _) = train(&mut poisoned(vec![]), &path, &run, &dataset);
    assert_eq!(end.unwrap_err().kind(), Kind::NonFiniteTraining);
    assert_eq!(again.meta.progress, state.meta.progress);
}

#[test]
fn a_run_whose_last_validation_is_not_finite_is_not_done() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = wave(folder.path());
    let recipe = TrainingConfig { lr: 1e-3, validate_every: 2, ..TrainingConfig::paper(7, 4) };
    let run = run_meta(&dataset, small(), recipe);
    for (bad, told) in [(vec![2], None), (vec![4], Some("step 2")), (vec![2, 4], Some("no validation"))] {
        let path = folder.path().join(format!("{bad:?}"));
        let plan = bad.into_iter().map(|update| (update, Poison::Validation(f32::NAN))).collect();
        let (end, (state, _), _) = train(&mut poisoned(plan), &path, &run, &dataset);
        assert_eq!(state.meta.progress.step, 4, "saved all the same");
        match told {
            None => assert_eq!(end.unwrap(), End::Steps),
            Some(told) => {
                let error = end.unwrap_err();
                assert_eq!(error.kind(), Kind::NonFiniteTraining);
                assert!(error.to_string().contains(told), "{error}");
                // Going on, with nothing left to do, does not make it good.
                let (again, ..) = train(&mut poisoned(vec![]), &path, &run, &dataset);
                assert_eq!(again.unwrap_err().to_string(), error.to_string());
            }
        }
    }
}

#[test]
fn a_context_longer_than_the_recording_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = wave(folder.path());
    let run = run_meta(&dataset, ModelConfig { n_ctx: 300, ..small() }, TrainingConfig::paper(0, 1));
    let run_folder = RunFolder::acquire(&folder.path().join("run")).unwrap();
    let mut device = Cpu::new(Some(1)).unwrap();
    let error = Session::open(&mut device, &run_folder, &run, &dataset).err().unwrap();
    assert_eq!(error.kind(), Kind::TooShort);
}

#[test]
fn a_checkpoint_of_another_model_or_other_data_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = wave(folder.path());
    let run = run_meta(&dataset, small(), TrainingConfig::paper(0, 1));
    let path = folder.path().join("run");
    train(&mut Cpu::new(Some(1)).unwrap(), &path, &run, &dataset).0.unwrap();
    let open = |run: &RunMeta| {
        let run_folder = RunFolder::acquire(&path).unwrap();
        let mut device = Cpu::new(Some(1)).unwrap();
        Session::open(&mut device, &run_folder, run, &dataset).err().unwrap().kind()
    };
    let Model::Gpt(shape) = run.model.clone() else { panic!("another kind") };
    let wider = RunMeta { model: ModelConfig { d_model: 16, ..shape }.into(), ..run.clone() };
    assert_eq!(open(&wider), Kind::ShapeMismatch);
    let other = RunMeta { data: DataMeta { fingerprint: "x".into(), ..run.data.clone() }, ..run.clone() };
    assert_eq!(open(&other), Kind::TokenizerMismatch);
}

/// The anchors by their definitions, target by target.
#[test]
fn anchors_are_scored_on_the_models_targets() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = wave(folder.path());
    let n_ctx = 60;
    let run = run_meta(&dataset, ModelConfig { n_ctx, ..small() }, TrainingConfig::paper(0, 1));
    let windows = validation_windows(&dataset, &run).unwrap();
    assert_eq!(windows.len(), 2 * 2);
    let fitted = Anchors::fit(&dataset).unwrap().unwrap();
    let anchors = named(&fitted.score(&dataset, &windows, n_ctx).unwrap().unwrap());
    assert_eq!(anchors.iter().map(|a| a.name.as_str()).collect::<Vec<_>>(), NAMES);

    let levels = Scheme::PAPER.levels();
    let part = |split: Split, recording: usize, channel: usize| -> Vec<usize> {
        let shard = &dataset.shards[dataset.split(split)[recording]];
        let mut tokens = vec![0; shard.n_timestep()];
        shard.tokens(channel, 0, &mut tokens).unwrap();
        tokens.into_iter().map(usize::from).collect()
    };
    let both = |split, channel| [part(split, 0, channel), part(split, 1, channel)];
    let (mut unigram, mut bigram, mut repeat, mut repeat_squared, mut n) = (0.0, 0.0, 0.0, 0.0, 0.0);
    let mut pairs = vec![[0.0f64; 256]; 256];
    let mut pooled = [1.0f64; 256]; // half a count for each of two channels, or what the whole pool adds
    pooled.fill(0.5);
    for channel in 0..2 {
        for tokens in both(Split::Train, channel) {
            tokens.iter().for_each(|&token| pooled[token] += 1.0);
            tokens.windows(2).for_each(|pair| pairs[pair[0]][pair[1]] += 1.0);
        }
    }
    let pool: f64 = pooled.iter().sum();
    for channel in 0..2 {
        let mut counts = [0.5f64; 256];
        both(Split::Train, channel).iter().flatten().for_each(|&token| counts[token] += 1.0);
        let total: f64 = counts.iter().sum();
        for tokens in both(Split::Validation, channel) {
            // Windows start at 0 and 30; the targets of the last half of 60 positions are 31 ..= 60 after the start.
            let targets: BTreeSet<usize> = [0, 30].into_iter().flat_map(|start| start + 31..=start + 60).collect();
            assert_eq!(targets.len(), 60, "no target is counted twice");
            for at in targets {
                let (last, target) = (tokens[at - 1], tokens[at]);
                unigram -= (counts[target] / total).ln();
                let row: f64 = pairs[last].iter().sum::<f64>() + 10.0;
                bigram -= ((pairs[last][target] + 10.0 * pooled[target] / pool) / row).ln();
                repeat += f64::from(u8::from(last == target));
                repeat_squared += (levels[last] - levels[target]).powi(2);
                n += 1.0;
            }
        }
    }
    let near = |got: f64, want: f64| assert!((got - want).abs() < 1e-12 * want.abs().max(1.0), "{got} for {want}");
    near(anchors[0].scores.all.nats, 256f64.ln());
    near(anchors[1].scores.all.nats, unigram / n);
    near(anchors[2].scores.all.nats, bigram / n);
    near(anchors[3].scores.all.top1, repeat / n);
    near(anchors[3].scores.all.squared, repeat_squared / n);
    near(anchors[3].scores.all.squared_z, 100.0 * repeat_squared / n);
    assert!(anchors[3].scores.all.nats.is_nan());
    // A sine of slow frequency is what an autoregression predicts best.
    let nats = |i: usize| anchors[i].scores.all.nats;
    assert!(nats(4) < nats(2) && nats(4) < nats(1), "{anchors:?}");
    assert!(anchors[4].scores.all.top1 > anchors[1].scores.all.top1);
    assert!(anchors[5].scores.all.squared < anchors[3].scores.all.squared);
    assert_eq!(anchors[4].scores.channels.len(), 2);
}
