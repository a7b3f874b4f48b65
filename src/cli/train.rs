//! `gpt2meg train`.

use super::shape::{Preset, Shape};
use super::{Exit, Globals, Overwrite, progress};
use crate::error::{Error, Kind, Result};
use crate::model::config::{Head, ModelConfig};
use crate::model::layout::ParamLayout;
use crate::storage::lock::FolderLock;
use crate::tokens::dataset::Dataset;
use crate::tokens::shard::Split;
use crate::tokens::window::Windows;
use crate::train::anchors::{Anchor, Anchors, named};
use crate::train::checkpoint::{self, CheckpointMeta, DataMeta, Which};
use crate::train::config::{Schedule, TrainingConfig};
use crate::train::metrics::StepRecord;
use crate::train::run_folder::{self, RunFolder, RunMeta, read_json, write_json};
use crate::train::session::{End, Prepared, validation_windows};
use crate::train::trainer;
use clap::Args;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Train a model on tokens.
///
/// The run's folder receives run.json (the configuration), metrics.jsonl (one line a step), TensorBoard events,
/// checkpoints/ (the last three) and best.safetensors (lowest validation loss). Ctrl-C saves and stops; --resume goes on
/// to the same bits as if nothing had happened.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  gpt2meg train data --out run --preset tiny
  gpt2meg train data --out run --preset single --passes 50 --patience 5
  gpt2meg train --out run --resume
  gpt2meg train data --out run --preset tiny --d-model 64 --layers 4 --lr 1e-3 --warmup 100 --schedule cosine")]
pub struct Train {
    /// Folder of shards that `gpt2meg tokenize` has written.
    #[arg(required_unless_present = "resume")]
    data: Option<PathBuf>,
    /// Folder of the run.
    #[arg(long, value_name = "RUN")]
    out: PathBuf,
    /// Go on from the newest checkpoint, with the same recipe; only --steps or --passes may differ, and with the schedule
    /// cosine not even those. Starts a new run where there is none.
    #[arg(long)]
    resume: bool,
    #[command(flatten)]
    shape: Shape,
    #[command(flatten)]
    recipe: Recipe,
    #[command(flatten)]
    pub(super) overwrite: Overwrite,
}

/// How it is trained.
#[derive(Args, Debug)]
struct Recipe {
    /// Stop after so many steps.
    #[arg(long, conflicts_with = "passes")]
    steps: Option<u64>,
    /// Stop after so many passes over the training part [default: 10].
    #[arg(long)]
    passes: Option<f64>,
    /// Windows of all channels in one step [default: 1].
    #[arg(long)]
    windows_per_step: Option<usize>,
    /// Learning rate [default: 1e-4; 1e-3 for tiny].
    #[arg(long)]
    lr: Option<f32>,
    /// How the learning rate goes: constant, or half a cosine down to a tenth at the last step [default: constant].
    #[arg(long, value_enum)]
    schedule: Option<Schedule>,
    /// Steps over which the learning rate first rises [default: 0].
    #[arg(long)]
    warmup: Option<u64>,
    /// AdamW's weight decay of matrices and tables [default: 0, plain Adam].
    #[arg(long)]
    weight_decay: Option<f32>,
    /// Scale gradients with a larger norm down to it [default: never].
    #[arg(long)]
    clip_norm: Option<f32>,
    /// Steps between validations [default: those of one pass, or a tenth of the run if that is shorter].
    #[arg(long, conflicts_with = "validate_passes")]
    validate_every: Option<u64>,
    /// The same in passes over the training part, such as 0.5 or 2.
    #[arg(long, value_name = "PASSES")]
    validate_passes: Option<f64>,
    /// Validate on so many windows, evenly spread [default: all of the validation part].
    #[arg(long)]
    validation_windows: Option<usize>,
    /// Steps between checkpoints; there is one after every validation and every five minutes in any case
    /// [default: as validations].
    #[arg(long)]
    checkpoint_every: Option<u64>,
    /// Stop after so many validations in a row without a better one [default: never].
    #[arg(long)]
    patience: Option<u64>,
}

impl Train {
    /// Runs the command.
    pub fn run(self, globals: &Globals) -> Result<Exit> {
        let earlier = if self.resume && run_folder::holds_run(&self.out)? {
            let folder = RunFolder::acquire(&self.out)?;
            Some((self.earlier(&folder)?, folder))
        } else {
            // Of a run that somebody is writing, that is what matters, and --force would not help.
            run_folder::refuse_occupied(&self.out, globals.force)
                .map_err(|occupied| FolderLock::refuse_held(&self.out).err().unwrap_or(occupied))?;
            None
        };
        let data_path = match (&self.data, &earlier) {
            (Some(path), _) => path.clone(),
            (None, Some((run, _))) => run.data_path.clone(),
            (None, None) => {
                let hint = "Give the data's folder to start a run";
                return Err(Error::new(Kind::NotFound, "no run to go on with").at(&self.out).hint(hint));
            }
        };
        let dataset = Dataset::open(&data_path)?;
        let run = match &earlier {
            Some((earlier, _)) => self.resumed(earlier, &dataset, globals)?,
            None => self.fresh(&dataset, &data_path, globals)?,
        };
        // Everything that can be refused is, before a folder is made or an earlier run removed.
        let mut device = crate::device::open(globals.device, globals.threads)?;
        let announcement = announcement(&run, &dataset, &*device)?;
        let state = earlier.as_ref().map(|(_, folder)| checkpoint::load_state(folder.path())).transpose()?;
        let prepared = Prepared::new(&mut *device, &run, &dataset, state.flatten())?;
        let folder = match earlier {
            Some((_, folder)) => folder,
            None => self.vacated(globals)?,
        };
        folder.write_meta(&run)?;
        let say = |line: &str| {
            if !globals.quiet {
                eprintln!("{line}");
            }
        };
        say(&announcement);
        let Some(anchors) = anchors(&folder, &run, &dataset, say)? else {
            return Ok(Exit::Signal(crate::interrupt::requested().unwrap_or_default()));
        };
        let mut session = prepared.open(&folder)?;
        if session.progress().step > 0 {
            say(&format!("Going on from step {}.", session.progress().step));
        }
        let mut display = Display::new(&run, session.progress().step, globals.quiet);
        let end = session.run(&mut |record| display.show(record));
        display.finish();
        let end = end?;
        let progress = *session.progress();
        say(&closing(end, progress.step, &self.out));
        if globals.json {
            let summary = serde_json::json!({
                "run": self.out, "steps": progress.step, "best": progress.best, "anchors": anchors,
                "n_parameter": ParamLayout::new(&run.model).len(),
            });
            super::say(summary)?;
        }
        Ok(match end {
            End::Signal(signal) => Exit::Signal(signal),
            End::Steps | End::Patience => Exit::Done,
        })
    }

    /// The folder of a new run, without what an earlier one left.
    fn vacated(&self, globals: &Globals) -> Result<RunFolder> {
        let folder = RunFolder::acquire(&self.out)?;
        // Once more, now that nobody else may start a run here.
        run_folder::refuse_occupied(&self.out, globals.force)?;
        folder.clear()?;
        Ok(folder)
    }

    /// The run that is in the folder and is to go on; where run.json is lost, from its newest checkpoint.
    fn earlier(&self, folder: &RunFolder) -> Result<RunMeta> {
        if let Some(run) = folder.meta()? {
            return Ok(run);
        }
        let checkpoint = checkpoint::load(folder.path(), Which::Last)?;
        let Some(data) = &self.data else {
            let hint = "Give the data's folder, which run.json would have named";
            return Err(Error::new(Kind::NotFound, "run.json is missing").at(&self.out).hint(hint));
        };
        let data_path = std::path::absolute(data).map_err(|e| Error::io(e, "find", data))?;
        let CheckpointMeta { model, training, data, version, .. } = checkpoint.meta;
        Ok(RunMeta { model, training, data_path, data, version })
    }

    /// The configuration of a new run.
    fn fresh(&self, dataset: &Dataset, data_path: &Path, globals: &Globals) -> Result<RunMeta> {
        let data = DataMeta::of(dataset)?;
        let base = self.shape.preset().config(data.info.n_channel(), data.subjects.len(), data.conditions.len());
        let model = self.shape.apply(&ModelConfig { n_level: data.scheme.n_level, ..base });
        model.check().map_err(|e| e.hint("Choose another shape"))?;

        let n_window = Windows::new(dataset, Split::Train, model.n_ctx)?.len();
        let mut base = TrainingConfig::paper(globals.seed, 1);
        if self.shape.preset() == Preset::Tiny {
            base.lr = 1e-3;
        }
        let mut training = self.recipe.apply(&base);
        let pass = n_window.div_ceil(training.windows_per_step.max(1)) as u64;
        training.steps = self.recipe.steps(pass)?.unwrap_or(10 * pass);
        let validate_every = self.recipe.validate_every(pass)?;
        training.validate_every = validate_every.unwrap_or(pass.min(training.steps / 10).max(1));
        training.checkpoint_every = self.recipe.checkpoint_every.unwrap_or(training.validate_every);
        training.check()?;
        let data_path = std::path::absolute(data_path).map_err(|e| Error::io(e, "find", data_path))?;
        Ok(RunMeta { model, training, data_path, data, version: env!("CARGO_PKG_VERSION").to_string() })
    }

    /// The configuration of a run that goes on: its own, with another number of steps if that is asked for.
    fn resumed(&self, earlier: &RunMeta, dataset: &Dataset, globals: &Globals) -> Result<RunMeta> {
        let refuse = |kind, what: &str| {
            let hint = "Start a new run with another --out";
            Err(Error::new(kind, format!("a run cannot go on {what}")).at(&self.out).hint(hint))
        };
        if DataMeta::of(dataset)? != earlier.data {
            return refuse(Kind::TokenizerMismatch, "with other data than it was started with");
        }
        if self.shape.apply(&earlier.model) != earlier.model || self.shape.preset.is_some() {
            return refuse(Kind::ShapeMismatch, "with another shape: leave --preset and the shape's flags away");
        }
        let n_window = Windows::new(dataset, Split::Train, earlier.model.n_ctx)?.len();
        let pass = n_window.div_ceil(earlier.training.windows_per_step) as u64;
        let mut training = self.recipe.apply(&earlier.training);
        training.steps = self.recipe.steps(pass)?.unwrap_or(training.steps);
        training.validate_every = self.recipe.validate_every(pass)?.unwrap_or(training.validate_every);
        if globals.seed != 0 {
            training.seed = globals.seed;
        }
        training.check()?;
        let hint = "Start a new run with another --out";
        training.check_goes_on(&earlier.training).map_err(|e| e.at(&self.out).hint(hint))?;
        Ok(RunMeta { training, ..earlier.clone() })
    }
}

impl Recipe {
    /// `base` with what the flags change, but for what may be given in passes.
    fn apply(&self, base: &TrainingConfig) -> TrainingConfig {
        TrainingConfig {
            windows_per_step: self.windows_per_step.unwrap_or(base.windows_per_step),
            lr: self.lr.unwrap_or(base.lr),
            schedule: self.schedule.unwrap_or(base.schedule),
            warmup: self.warmup.unwrap_or(base.warmup),
            weight_decay: self.weight_decay.unwrap_or(base.weight_decay),
            clip_norm: self.clip_norm.or(base.clip_norm),
            validation_windows: self.validation_windows.or(base.validation_windows),
            checkpoint_every: self.checkpoint_every.unwrap_or(base.checkpoint_every),
            patience: self.patience.or(base.patience),
            ..base.clone()
        }
    }

    /// The number of steps asked for, where `pass` steps are one pass.
    fn steps(&self, pass: u64) -> Result<Option<u64>> {
        in_steps(self.steps, self.passes, pass)
    }

    /// The steps between validations asked for, where `pass` steps are one pass.
    fn validate_every(&self, pass: u64) -> Result<Option<u64>> {
        in_steps(self.validate_every, self.validate_passes, pass)
    }
}

/// What was asked for in steps or in passes, in steps.
fn in_steps(steps: Option<u64>, passes: Option<f64>, pass: u64) -> Result<Option<u64>> {
    match passes {
        None => Ok(steps),
        Some(passes) if passes.is_finite() && passes > 0.0 => Ok(Some((passes * pass as f64).ceil() as u64)),
        Some(passes) => Err(Error::new(Kind::Usage, format!("{passes} passes make no sense"))),
    }
}

/// What is about to be trained, on what, and the memory it takes.
fn announcement(run: &RunMeta, dataset: &Dataset, device: &dyn crate::device::Device) -> Result<String> {
    let (model, training) = (&run.model, &run.training);
    let n_window = Windows::new(dataset, Split::Train, model.n_ctx)?.len();
    let head = match model.head {
        Head::Shared => "",
        Head::PerChannel => ", a head for each channel",
    };
    let shape = format!(
        "Model: {} parameters; {} layers, {} heads, d_model {}, context {}{head}.",
        ParamLayout::new(model).len(),
        model.n_layer,
        model.n_head,
        model.d_model,
        model.n_ctx
    );
    let data = format!(
        "Data: {} channels at {} Hz, {} subjects, {} conditions; {n_window} windows to train on.",
        model.n_channel, run.data.info.sfreq, model.n_subject, model.n_condition
    );
    let recipe = format!(
        "Run: {} steps ({:.1} passes), validated every {}; on {}, {}, {:.0} MB.",
        training.steps,
        (training.steps as f64 * training.windows_per_step as f64) / n_window as f64,
        training.validate_every,
        device.name(),
        match rayon::current_num_threads() {
            1 => "1 thread".to_string(),
            n => format!("{n} threads"),
        },
        trainer::n_byte(device, model, training.windows_per_step) as f64 / 1e6
    );
    Ok([shape, data, recipe].join("\n"))
}

/// The anchors on the validation windows, from the run's folder or computed and kept there; none if a signal came.
fn anchors(folder: &RunFolder, run: &RunMeta, dataset: &Dataset, say: impl Fn(&str)) -> Result<Option<Vec<Anchor>>> {
    let path = folder.path().join("anchors.json");
    let anchors = if path.exists() {
        read_json(&path)?
    } else {
        let windows = validation_windows(dataset, run)?;
        let Some(fitted) = Anchors::fit(dataset)? else { return Ok(None) };
        let Some(scored) = fitted.score(dataset, &windows, run.model.n_ctx)? else { return Ok(None) };
        let anchors = named(&scored);
        write_json(&path, true, &anchors)?;
        anchors
    };
    say("Without a model, on the validation part:");
    say(&super::score::table(&anchors));
    Ok(crate::interrupt::requested().is_none().then_some(anchors))
}

/// The last line of a run.
fn closing(end: End, step: u64, out: &Path) -> String {
    let run = out.display();
    match end {
        End::Steps => format!("Done after {step} steps. Next: gpt2meg generate {run} --out generated.fif --seconds 60"),
        End::Patience => format!("Stopped after {step} steps: the validation loss no longer improves."),
        End::Signal(_) => {
            format!("Stopped after step {step}, which is saved. To go on: gpt2meg train --out {run} --resume")
        }
    }
}

/// Progress on the terminal: a bar, or a line now and then where there is no terminal.
struct Display {
    bar: indicatif::ProgressBar,
    lines: bool,
    steps: u64,
    tokens_per_step: f64,
    started: Instant,
    first_step: u64,
    last_line: Instant,
    validation: String,
}

impl Display {
    /// Time between lines where there is no terminal.
    const INTERVAL: Duration = Duration::from_secs(30);

    fn new(run: &RunMeta, first_step: u64, quiet: bool) -> Self {
        use std::io::IsTerminal;
        let bar = progress::bar(run.training.steps, "steps", quiet);
        bar.set_position(first_step);
        bar.reset_eta();
        Self {
            bar,
            lines: !quiet && !std::io::stderr().is_terminal(),
            steps: run.training.steps,
            tokens_per_step: (run.training.windows_per_step * run.model.n_channel * run.model.n_ctx) as f64,
            started: Instant::now(),
            first_step,
            last_line: Instant::now(),
            validation: String::new(),
        }
    }

    fn show(&mut self, record: &StepRecord) {
        let bits = record.nats / std::f64::consts::LN_2;
        if let Some(validation) = &record.validation {
            self.validation = format!(", validation {:.3} nats", validation.nats);
        }
        let mut text = format!("{:.3} nats ({bits:.3} bits){}", record.nats, self.validation);
        // A step whose validation alone was left to do has come without any time of its own.
        let done = record.step.saturating_sub(self.first_step) as f64;
        let seconds = self.started.elapsed().as_secs_f64();
        let timed = done > 0.0 && seconds > 0.0;
        if timed {
            text += &format!(", {:.0} tokens/s", done * self.tokens_per_step / seconds);
        }
        if !record.applied {
            text = format!("NOT FINITE, update skipped; {text}");
            if self.lines || !self.bar.is_hidden() {
                self.bar.suspend(|| eprintln!("Step {}: loss or gradient not finite, update skipped.", record.step));
            }
        }
        if self.lines && (record.validation.is_some() || self.last_line.elapsed() >= Self::INTERVAL) {
            let left = seconds / done * self.steps.saturating_sub(record.step) as f64;
            let left = if timed { format!(", {left:.0} s left") } else { String::new() };
            eprintln!("Step {}/{}: {text}{left}", record.step, self.steps);
            self.last_line = Instant::now();
        }
        self.bar.set_message(text);
        self.bar.set_position(record.step);
    }

    fn finish(&self) {
        self.bar.finish();
    }
}
