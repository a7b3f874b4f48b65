//! A run, from its first step or its newest checkpoint to its end.
//!
//! After every step the state is (parameters, moments, [`Progress`]), and the log holds one line for every step up to
//! it. Which windows a step trains on is a function of the seed and the step alone, so nothing else has to be kept: a
//! run that goes on from any checkpoint computes the same bits as one that was never interrupted.

use super::checkpoint::{self, Best, Checkpoint, CheckpointMeta, Moments, Progress};
use super::init;
use super::log::StepLog;
use super::metrics::{Metrics, StepRecord};
use super::numbering::Numbering;
use super::run_folder::{RunFolder, RunMeta};
use super::scoring::spread;
use super::tensorboard::EventWriter;
use super::trainer::Trainer;
use crate::device::Device;
use crate::ensure;
use crate::error::{Error, Kind, Result};
use crate::interrupt;
use crate::tokens::dataset::Dataset;
use crate::tokens::scheme::Scales;
use crate::tokens::shard::Split;
use crate::tokens::window::{Window, Windows};
use std::time::{Duration, Instant};

/// Steps in a row without a finite loss and gradient after which a run stops.
pub const MAX_SKIPPED: u64 = 8;

/// A checkpoint is written at least this often, however long a step takes.
const SAVE_INTERVAL: Duration = Duration::from_secs(300);

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// All steps are done.
    Steps,
    /// The validation loss has not improved for as long as the patience allows.
    Patience,
    /// A signal asked it to stop; the last complete step is saved.
    Signal(i32),
}

/// A run in progress.
pub struct Session<'a> {
    folder: &'a RunFolder,
    dataset: &'a Dataset,
    trainer: Trainer<'a>,
    meta: CheckpointMeta,
    scales: Vec<Scales>,
    windows: Windows,
    validation: Vec<Window>,
    log: StepLog,
    events: EventWriter,
    params: Vec<f32>,
    moments: Moments,
    saved_step: Option<u64>,
    saved_at: Instant,
}

/// A run on its device, before its folder is touched: whatever is refused, for want of memory too, has been by now.
pub struct Prepared<'a> {
    dataset: &'a Dataset,
    trainer: Trainer<'a>,
    meta: CheckpointMeta,
    before: Option<String>,
    windows: Windows,
    validation: Vec<Window>,
    params: Vec<f32>,
    moments: Moments,
    saved_step: Option<u64>,
}

/// The windows of the validation part that a run is validated on.
pub fn validation_windows(dataset: &Dataset, run: &RunMeta) -> Result<Vec<Window>> {
    let windows = Windows::new(dataset, Split::Validation, run.model.n_ctx())?;
    Ok(spread(&windows, run.training.validation_windows))
}

impl<'a> Prepared<'a> {
    /// The name of what computes.
    pub fn device_name(&self) -> String {
        self.trainer.device_name()
    }

    /// All that decides the bits of what it computes.
    pub fn computed_by(&self) -> &str {
        &self.meta.device
    }

    /// Puts a state that a checkpoint holds, or a fresh one, on the device.
    pub fn new(
        device: &'a mut dyn Device,
        run: &RunMeta,
        dataset: &'a Dataset,
        state: Option<(Checkpoint, Moments)>,
    ) -> Result<Self> {
        let windows = Windows::new(dataset, Split::Train, run.model.n_ctx())?;
        let validation = validation_windows(dataset, run)?;
        let before = state.as_ref().map(|(checkpoint, _)| checkpoint.meta.device.clone());
        let saved_step = state.as_ref().map(|(checkpoint, _)| checkpoint.meta.progress.step);
        let (params, moments, progress) = match state {
            Some((checkpoint, moments)) => {
                check_same(&checkpoint, run)?;
                (checkpoint.params, moments, checkpoint.meta.progress)
            }
            None => {
                let layout = run.model.layout();
                let moments = Moments { m: vec![0.0; layout.len()], v: vec![0.0; layout.len()] };
                (init::parameters(&layout, run.training.seed), moments, Progress::default())
            }
        };
        let n_window = run.training.windows_per_step;
        let numbering = Numbering::for_windows(&run.data, dataset, &run.training);
        let trainer = Trainer::new(device, &run.model, &run.data.scheme, &params, &moments, n_window, &numbering)?;
        let meta = CheckpointMeta {
            model: run.model.clone(),
            data: run.data.clone(),
            training: run.training.clone(),
            progress,
            version: env!("CARGO_PKG_VERSION").to_string(),
            device: trainer.device_identity(),
        };
        Ok(Self { dataset, trainer, meta, before, windows, validation, params, moments, saved_step })
    }

    /// What computed the checkpoint and what goes on, where these are not the same and the bits may differ therefore.
    pub fn moved(&self) -> Option<(&str, &str)> {
        let before = self.before.as_deref().filter(|before| *before != self.meta.device)?;
        Some((before, &self.meta.device))
    }

    /// Opens the logs in the run's folder.
    pub fn open(self, folder: &'a RunFolder) -> Result<Session<'a>> {
        let Self { dataset, trainer, meta, windows, validation, params, moments, saved_step, .. } = self;
        // A step whose validation was interrupted has no line yet.
        let logged = meta.progress.step - u64::from(meta.progress.unvalidated.is_some());
        Ok(Session {
            log: StepLog::open(&folder.log_path(), logged)?,
            events: EventWriter::create(folder.path(), logged)?,
            scales: checkpoint::scales_by_subject(dataset),
            folder,
            dataset,
            trainer,
            meta,
            windows,
            validation,
            params,
            moments,
            saved_step,
            saved_at: Instant::now(),
        })
    }
}

impl<'a> Session<'a> {
    /// Puts the newest checkpoint of a folder, or a fresh start if there is none, on the device.
    pub fn open(
        device: &'a mut dyn Device,
        folder: &'a RunFolder,
        run: &RunMeta,
        dataset: &'a Dataset,
    ) -> Result<Self> {
        let state = checkpoint::load_state(folder.path())?;
        Prepared::new(device, run, dataset, state)?.open(folder)
    }

    /// How far the run has come.
    pub fn progress(&self) -> &Progress {
        &self.meta.progress
    }

    /// Runs to the end, or until a signal; `report` hears of every step.
    pub fn run(&mut self, report: &mut dyn FnMut(&StepRecord)) -> Result<End> {
        if let Some(record) = self.meta.progress.unvalidated.take() {
            // The checkpoint of this step lacks its validation: it will be written anew.
            self.saved_step = None;
            if !self.conclude(record, 0.0, report)? {
                return self.stop(Some(record));
            }
        }
        loop {
            if self.meta.progress.n_skipped >= MAX_SKIPPED {
                return Err(self.give_up());
            }
            if let Some(end) = self.ended() {
                self.save()?;
                let Progress { diverged, best, .. } = self.meta.progress;
                return if diverged || best.is_none() { Err(self.useless()) } else { Ok(end) };
            }
            let started = Instant::now();
            let Some(record) = self.step()? else {
                return self.stop(None);
            };
            if !self.conclude(record, started.elapsed().as_secs_f64(), report)? {
                return self.stop(Some(record));
            }
        }
    }

    /// Whether there is nothing more to do.
    fn ended(&self) -> Option<End> {
        let (training, progress) = (&self.meta.training, &self.meta.progress);
        if progress.step >= training.steps {
            Some(End::Steps)
        } else if training.patience.is_some_and(|patience| progress.n_worse >= patience) {
            Some(End::Patience)
        } else {
            None
        }
    }

    /// One step of training; none if a signal came before its update.
    fn step(&mut self) -> Result<Option<StepRecord>> {
        if interrupt::requested().is_some() {
            return Ok(None);
        }
        let (training, progress) = (&self.meta.training, &mut self.meta.progress);
        let per_step = training.windows_per_step as u64;
        let first = progress.step * per_step;
        let drawn =
            |first: u64| (first..first + per_step).map(|i| self.windows.drawn(training.seed, i)).collect::<Vec<_>>();
        let hyper = training.adamw(progress.step + 1, progress.n_update + 1);
        let Some(step) = self.trainer.step(self.dataset, &drawn(first), drawn(first + per_step), &hyper)? else {
            return Ok(None);
        };
        progress.step += 1;
        progress.n_update += u64::from(step.applied);
        progress.n_skipped = if step.applied { 0 } else { progress.n_skipped + 1 };
        Ok(Some(StepRecord {
            step: progress.step,
            nats: step.nats,
            lr: hyper.lr,
            grad_norm: step.grad_norm,
            applied: step.applied,
            validation: None,
        }))
    }

    /// What follows a step: validation, log, checkpoint, as they are due. False if a signal came before the validation
    /// was done; nothing is logged then.
    fn conclude(&mut self, mut record: StepRecord, seconds: f64, report: &mut dyn FnMut(&StepRecord)) -> Result<bool> {
        let training = &self.meta.training;
        let validate = record.step.is_multiple_of(training.validate_every) || record.step == training.steps;
        let overdue = self.saved_at.elapsed() >= SAVE_INTERVAL;
        let save = validate || overdue || record.step.is_multiple_of(training.checkpoint_every);
        if validate {
            let Some(scored) = self.trainer.validate(self.dataset, &self.validation)? else {
                return Ok(false);
            };
            record.validation = Some(scored.metrics());
        }
        self.log.append(&record)?;
        self.write_events(&record, seconds)?;
        report(&record);
        if let Some(validation) = record.validation {
            self.judge(record.step, &validation)?;
        }
        if save {
            self.save()?;
        }
        Ok(true)
    }

    /// Compares a validation with the best so far, and keeps the model if it is better.
    fn judge(&mut self, step: u64, validation: &Metrics) -> Result<()> {
        let progress = &mut self.meta.progress;
        progress.diverged = !validation.nats.is_finite();
        if progress.best.is_none_or(|best| validation.nats < best.nats) && validation.nats.is_finite() {
            progress.best = Some(Best { step, nats: validation.nats });
            progress.n_worse = 0;
            self.log.sync()?;
            self.trainer.read_state(&mut self.params, &mut self.moments)?;
            let path = checkpoint::best_path(self.folder.path());
            checkpoint::save(&path, &self.meta, &self.scales, &self.params, &self.moments)?;
        } else {
            progress.n_worse += 1;
        }
        Ok(())
    }

    /// Saves the state, unless it is saved already, and removes checkpoints beyond the last few.
    fn save(&mut self) -> Result<()> {
        let step = self.meta.progress.step;
        if self.saved_step == Some(step) {
            return Ok(());
        }
        self.log.sync()?;
        self.trainer.read_state(&mut self.params, &mut self.moments)?;
        let path = checkpoint::step_path(self.folder.path(), step);
        checkpoint::save(&path, &self.meta, &self.scales, &self.params, &self.moments)?;
        self.saved_step = Some(step);
        self.saved_at = Instant::now();
        checkpoint::prune(self.folder.path())
    }

    /// Saves the last complete step because of a signal; `unvalidated` is its record if its validation was interrupted.
    fn stop(&mut self, unvalidated: Option<StepRecord>) -> Result<End> {
        self.meta.progress.unvalidated = unvalidated;
        self.save()?;
        Ok(End::Signal(interrupt::requested().unwrap_or(libc::SIGINT)))
    }

    /// Saves what the last applied update left, and says why the run cannot go on.
    fn give_up(&mut self) -> Error {
        let step = self.meta.progress.step;
        if let Err(error) = self.save() {
            return error;
        }
        let what = format!("loss or gradient was not finite for {MAX_SKIPPED} steps in a row, up to step {step}");
        let hint = "Every such update was skipped, so no weight is NaN, but the last steps before may have spoilt the model; \
                    start again with a lower --lr, a longer --warmup or --clip-norm 1";
        Error::new(Kind::NonFiniteTraining, what).at(self.folder.path()).hint(hint)
    }

    /// Why a run that has come to its end is not done.
    fn useless(&self) -> Error {
        let what = match self.meta.progress.best {
            None => "no validation of this run was finite: the model has diverged".to_string(),
            Some(best) => format!(
                "the last validation was not finite: the model has diverged. best.safetensors, of step {}, is good",
                best.step
            ),
        };
        let hint = "Start again with a lower --lr, a longer --warmup or --clip-norm 1";
        Error::new(Kind::NonFiniteTraining, what).at(self.folder.path()).hint(hint)
    }

    fn write_events(&mut self, record: &StepRecord, seconds: f64) -> Result<()> {
        let mut scalars = vec![
            ("train/nats", record.nats),
            ("train/bits", record.nats / std::f64::consts::LN_2),
            ("train/lr", f64::from(record.lr)),
            ("train/grad_norm", record.grad_norm),
            ("train/applied", f64::from(u8::from(record.applied))),
        ];
        if let Some(validation) = &record.validation {
            scalars.push(("validation/nats", validation.nats));
            scalars.push(("validation/bits", validation.bits));
            scalars.push(("validation/top1", validation.top1));
            scalars.push(("validation/top5", validation.top5));
            scalars.push(("validation/squared_z", validation.squared_z));
        } else if seconds > 0.0 {
            // Steps with a validation would show its time, not theirs.
            let training = &self.meta.training;
            let n_token = training.windows_per_step * self.meta.model.n_channel() * self.meta.model.n_ctx();
            scalars.push(("train/tokens_per_second", n_token as f64 / seconds));
        }
        self.events.scalars(record.step, &scalars)
    }
}

/// A checkpoint must be of the run it is found in.
fn check_same(checkpoint: &Checkpoint, run: &RunMeta) -> Result<()> {
    let meta = &checkpoint.meta;
    ensure!(
        meta.model == run.model,
        Kind::ShapeMismatch,
        "{}: this checkpoint is of another model than run.json",
        checkpoint.path.display()
    );
    ensure!(
        meta.data.fingerprint == run.data.fingerprint,
        Kind::TokenizerMismatch,
        "{}: this checkpoint was trained on other data than run.json says",
        checkpoint.path.display()
    );
    run.training.check_goes_on(&meta.training).map_err(|e| e.at(&checkpoint.path))
}
