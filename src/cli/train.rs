//! `gpt2meg train`.

mod display;
mod linear;
mod recipe;

use super::shape::{ModelKind, Preset, Shape};
use super::{Exit, Globals, Overwrite, note, say_json, shown};
use crate::device::DeviceChoice;
use crate::error::{Error, Kind, Result};
use crate::model::config::Head;
use crate::model::kind::Model;
use crate::storage::lock::FolderLock;
use crate::tokens::dataset::Dataset;
use crate::tokens::shard::Split;
use crate::tokens::window::Windows;
use crate::train::anchors::{Anchor, Anchors, named};
use crate::train::checkpoint::{self, CheckpointMeta, DataMeta, Which};
use crate::train::config::TrainingConfig;
use crate::train::linear::keeps_signal;
use crate::train::run_folder::{self, RunFolder, RunMeta, read_json, write_json};
use crate::train::session::{End, Prepared, validation_windows};
use crate::train::trainer;
use clap::Args;
use display::Display;
use recipe::Recipe;
use std::path::{Path, PathBuf};

/// Train a model on tokens.
///
/// The run's folder receives run.json (the configuration), metrics.jsonl (one line a step), TensorBoard events,
/// checkpoints/ (the last three) and best.safetensors (lowest validation loss). Ctrl-C saves and stops; --resume goes on
/// to the same bits as if nothing had happened.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  gpt2meg train data --out run --preset tiny
  gpt2meg train data --out run --preset single --passes 50 --patience 5
  gpt2meg train data --out wavenet --model wavenet --preset tiny
  gpt2meg train data --out ar255 --model ar
  gpt2meg train data --out one --preset tiny --condition-labels one
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
    /// Kind of model: GPT2MEG, or one that it is compared with [default: gpt].
    #[arg(long, value_enum)]
    model: Option<ModelKind>,
    #[command(flatten)]
    shape: Shape,
    #[command(flatten)]
    recipe: Recipe,
    #[command(flatten)]
    pub(super) overwrite: Overwrite,
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
        if let Model::Ar(config) = run.model {
            let folder = || match earlier {
                Some((_, folder)) => Ok(folder),
                None => self.vacated(globals),
            };
            return linear::fit(folder, &run, &config, &dataset, globals);
        }
        // Everything that can be refused is, before a folder is made or an earlier run removed.
        let mut device = globals.open_device_for(&run.model)?;
        let mut announcement = announcement(&run, &dataset, &mut *device)?;
        let state = || -> Result<_> {
            let state = earlier.as_ref().map(|(_, folder)| checkpoint::load_state(folder.path())).transpose()?;
            Ok(state.flatten())
        };
        let prepared = match Prepared::new(&mut *device, &run, &dataset, state()?) {
            Ok(prepared) => prepared,
            Err(error) => {
                device = globals.instead_of(device, error)?;
                announcement = self::announcement(&run, &dataset, &mut *device)?;
                Prepared::new(&mut *device, &run, &dataset, state()?)?
            }
        };
        let folder = match earlier {
            Some((_, folder)) => folder,
            None => self.vacated(globals)?,
        };
        folder.write_meta(&run)?;
        let tell = |line: &str| {
            if !globals.quiet {
                note(line);
            }
        };
        tell(&announcement);
        let (device, computed_by) = (prepared.device_name(), prepared.computed_by().to_owned());
        let Some(anchors) = anchors(&folder, &run, &dataset, tell)? else {
            return Ok(Exit::Signal(crate::interrupt::requested().unwrap_or_default()));
        };
        let moved = prepared.moved().map(|(before, now)| {
            format!("The checkpoint was computed by {before}. Now it is {now}: the bits may differ from an uninterrupted run's.")
        });
        let mut session = prepared.open(&folder)?;
        if session.progress().step > 0 {
            tell(&format!("Going on from step {}.", session.progress().step));
            moved.iter().for_each(|moved| tell(moved));
        }
        let mut display = Display::new(&run, session.progress().step, globals.quiet);
        let end = session.run(&mut |record| display.show(record));
        display.finish();
        let end = end.map_err(|error| lost(error, &self.out))?;
        let progress = *session.progress();
        tell(&closing(end, progress.step, &self.out));
        if globals.json {
            let summary = serde_json::json!({
                "run": shown(&self.out), "device": device, "computed_by": computed_by, "steps": progress.step, "best": progress.best, "anchors": anchors,
                "n_parameter": run.model.n_parameter(),
            });
            say_json(summary)?;
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
        let data_path = absolute(data)?;
        let CheckpointMeta { model, training, data, version, .. } = checkpoint.meta;
        Ok(RunMeta { model, training, data_path, data, version })
    }

    /// What a new run on these data would be.
    pub(super) fn planned(&self, dataset: &Dataset) -> Result<RunMeta> {
        let globals =
            Globals { seed: 0, device: DeviceChoice::Auto, threads: None, json: false, force: false, quiet: true };
        self.fresh(dataset, &self.out, &globals)
    }

    /// The configuration of a new run.
    fn fresh(&self, dataset: &Dataset, data_path: &Path, globals: &Globals) -> Result<RunMeta> {
        let data = DataMeta::of(dataset)?;
        let counts = [data.info.n_channel(), data.subjects.len(), data.conditions.len()];
        let mut model = self.shape.model(self.model.unwrap_or(ModelKind::Gpt), counts, data.scheme.n_level)?;
        if let Model::Ar(config) = &mut model {
            self.recipe.refuse_any()?;
            config.signal = keeps_signal(dataset);
        }
        let n_window = Windows::new(dataset, Split::Train, model.n_ctx())?.len();
        let mut base = TrainingConfig::paper(globals.seed, 1);
        if self.shape.preset() == Preset::Tiny {
            base.lr = 1e-3;
        }
        let mut training = self.recipe.apply(&base);
        if let Model::Ar(_) = model {
            let data_path = absolute(data_path)?;
            return Ok(RunMeta { model, training, data_path, data, version: env!("CARGO_PKG_VERSION").to_string() });
        }
        let pass = n_window.div_ceil(training.windows_per_step.max(1)) as u64;
        training.steps = self.recipe.steps(pass)?.unwrap_or(10 * pass);
        let validate_every = self.recipe.validate_every(pass)?;
        training.validate_every = validate_every.unwrap_or(pass.min(training.steps / 10).max(1));
        training.checkpoint_every = self.recipe.checkpoint_every.unwrap_or(training.validate_every);
        training.check()?;
        let data_path = absolute(data_path)?;
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
        if self.model.is_some_and(|kind| kind.name() != earlier.model.name()) {
            return refuse(Kind::ShapeMismatch, "with another kind of model: leave --model away");
        }
        if self.shape.apply_to(&earlier.model)? != earlier.model || self.shape.preset.is_some() {
            return refuse(Kind::ShapeMismatch, "with another shape: leave --preset and the shape's flags away");
        }
        if let Model::Ar(_) = earlier.model {
            self.recipe.refuse_any()?;
        }
        let n_window = Windows::new(dataset, Split::Train, earlier.model.n_ctx())?.len();
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

/// The data's path as run.json keeps it.
pub(super) fn absolute(data: &Path) -> Result<PathBuf> {
    let path = std::path::absolute(data).map_err(|e| Error::io(e, "find", data))?;
    if path.to_str().is_none() {
        let what = "the folder's name is not Unicode (UTF-8), and run.json could not keep it";
        return Err(Error::new(Kind::Usage, what).at(data).hint("Rename it"));
    }
    Ok(path)
}

/// What is about to be trained, on what, and the memory it takes.
fn announcement(run: &RunMeta, dataset: &Dataset, device: &mut dyn crate::device::Device) -> Result<String> {
    let (model, training, sizes) = (&run.model, &run.training, run.model.sizes());
    let n_window = Windows::new(dataset, Split::Train, sizes.n_ctx)?.len();
    let shape = match model {
        Model::Gpt(config) => {
            let head = match config.head {
                Head::Shared => "",
                Head::PerChannel => ", a head for each channel",
            };
            let (n_layer, n_head) = (config.n_layer, config.n_head);
            format!("{n_layer} layers, {n_head} heads, d_model {}, context {}{head}", config.d_model, config.n_ctx)
        }
        Model::Ar(config) => linear::described(config),
        Model::Wavenet(config) => {
            let mix = if config.mix { ", a map across channels" } else { "" };
            let (n_layer, d_model, d_skip) = (config.n_layer, config.d_model, config.d_skip);
            let reach = config.n_receptive();
            format!(
                "WaveNet, {n_layer} dilated layers, d_model {d_model}, skips {d_skip}, receptive field {reach}{mix}"
            )
        }
    };
    let shape = format!("Model: {} parameters; {shape}.", model.layout().len());
    let data = format!(
        "Data: {} channels at {} Hz, {} subjects, {} conditions; {n_window} windows to train on.",
        sizes.n_channel, run.data.info.sfreq, sizes.n_subject, sizes.n_condition
    );
    let n_byte = trainer::n_byte(device, model, training.windows_per_step)?;
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
        n_byte as f64 / 1e6
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
        let Some(scored) = fitted.score(dataset, &windows, run.model.n_ctx())? else { return Ok(None) };
        let anchors = named(&scored);
        write_json(&path, true, &anchors)?;
        anchors
    };
    say("Without a model, on the validation part:");
    say(&super::score::table(&anchors));
    Ok(crate::interrupt::requested().is_none().then_some(anchors))
}

/// What ended a run that had begun: where it is the device's doing, what has been saved is not lost with it.
fn lost(error: Error, out: &Path) -> Error {
    match error.kind() {
        Kind::DeviceUnavailable | Kind::Internal => error.also(&format!(
            "Nothing that was saved is lost: gpt2meg train --out {} --resume goes on from the last checkpoint",
            out.display()
        )),
        _ => error,
    }
}

/// The last line of a run.
fn closing(end: End, step: u64, out: &Path) -> String {
    let run = out.display();
    match end {
        End::Steps => {
            format!("Done after {step} steps. Next: gpt2meg generate {run} --out generated_raw.fif --seconds 60")
        }
        End::Patience => format!("Stopped after {step} steps: the validation loss no longer improves."),
        End::Signal(_) => {
            format!("Stopped after step {step}, which is saved. To go on: gpt2meg train --out {run} --resume")
        }
    }
}
