//! `gpt2meg score`.

use super::{Exit, Globals, Overwrite, progress, say, say_json, shown};
use crate::device::Device;
use crate::ensure;
use crate::error::{Error, Kind, Result};
use crate::interrupt;
use crate::model::network::Network;
use crate::tokens::dataset::Dataset;
use crate::tokens::shard::Split;
use crate::tokens::window::Windows;
use crate::train::anchors::{Anchor, Anchors, NAMES, named};
use crate::train::checkpoint::{self, Which};
use crate::train::linear;
use crate::train::numbering::{Numbering, check_alike};
use crate::train::run_folder::write_json;
use crate::train::scoring::{Difference, Scorer, Summary, spread};
use crate::train::trainer::upload;
use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Measure a model's predictions on held-out data.
///
/// Predicts every next level of held-out data and writes cross-entropy, accuracies and squared error to scores.json,
/// beside what can be had without a model: uniform, unigram, bigram, repeating the last level, and AR(20).
///
/// The data must have the model's channels, rate and tokenizer. Subjects and conditions are matched by name; one that the
/// model has never seen is an error.
///
/// Of a linear autoregression, accuracies and squared error are those of its prediction, quantised (a hit is its own level,
/// and among five are the two on either side); its cross-entropy is that of the Gaussian around it, in each level's interval.
///
/// Targets are the last halves of windows as long as the model's. Models with other windows are therefore scored on other
/// targets, if mostly the same: a longer window begins later in each usable stretch, and leaves out stretches shorter than
/// itself. An autoregression that was fitted to a kept signal (tokenize --keep-signal) is scored with that signal as its past,
/// and so knows more than a network, which sees levels alone. Only the anchors are scored on just the model's targets.
///
/// The difference between the model and each anchor comes with a paired standard error: its units are the windows of the
/// held-out part, each of which both predict. Neighbouring windows are alike, so it is rather too small; take a
/// difference below three of them for none.
///
/// Example: gpt2meg score run data
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  gpt2meg score run data
  gpt2meg score run data --split validation --checkpoint last --out last.json
  gpt2meg score run/best.safetensors data --json")]
pub struct Score {
    /// Folder of a run, or a checkpoint.
    run: PathBuf,
    /// Folder of shards that `gpt2meg tokenize` has written.
    data: PathBuf,
    /// Part of the data to predict.
    #[arg(long, value_enum, default_value_t = Part::Test)]
    split: Part,
    /// Checkpoint of the run.
    #[arg(long, value_enum, default_value_t = Which::Best)]
    checkpoint: Which,
    /// Use so many windows, evenly spread [default: all].
    #[arg(long)]
    windows: Option<usize>,
    /// File to write [default: scores.json in the run's folder].
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    pub(super) overwrite: Overwrite,
}

/// A part of the data.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// What the model was trained on.
    Train,
    /// What chose the best checkpoint.
    Validation,
    /// What nothing was fitted to or chosen by.
    Test,
}

/// `scores.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Scores {
    /// The checkpoint's file.
    pub checkpoint: String,
    /// Its step.
    pub step: u64,
    /// What computed the scores.
    pub device: String,
    /// The data's folder.
    pub data: String,
    /// The part of the data.
    pub split: Split,
    /// Names of the channels, in the order of each `channels` below.
    pub channel_names: Vec<String>,
    /// Windows that were scored.
    pub n_window: usize,
    /// Targets in each window of each channel: the last half of the context.
    pub n_target: usize,
    /// The model.
    pub model: Summary,
    /// What anybody can compute, on the same targets.
    pub anchors: Vec<Anchor>,
    /// The model's nats minus those of each anchor that has any, over the same windows.
    pub model_minus: Vec<ModelMinus>,
}

/// The difference between the model and one anchor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelMinus {
    /// The anchor's name.
    pub name: String,
    /// The difference; negative where the model is better.
    #[serde(flatten)]
    pub difference: Difference,
}

impl Score {
    /// Runs the command.
    pub fn run(self, globals: &Globals) -> Result<Exit> {
        let checkpoint = checkpoint::load(&self.run, self.checkpoint)?;
        if checkpoint.linear.is_some() {
            globals.refuse_device()?;
        }
        let dataset = Dataset::open(&self.data)?;
        check_alike(&checkpoint.meta.data, &dataset.shards[0])?;
        let out = self.out.clone().unwrap_or_else(|| {
            let folder = if self.run.is_dir() { Some(self.run.as_path()) } else { self.run.parent() };
            folder.map_or_else(PathBuf::new, PathBuf::from).join("scores.json")
        });
        crate::storage::atomic::refuse_target(&out, globals.force)?;
        let split = match self.split {
            Part::Train => Split::Train,
            Part::Validation => Split::Validation,
            Part::Test => Split::Test,
        };
        let meta = &checkpoint.meta;
        let windows = spread(&Windows::new(&dataset, split, meta.model.n_ctx())?, self.windows);
        ensure!(!windows.is_empty(), Kind::Usage, "--windows 0 leaves nothing to score");
        let numbering = Numbering::for_windows(&meta.data, &dataset, &meta.training);
        // A subject or a condition that the model has never seen is said before any work is done.
        let mut conditions = vec![0; meta.model.n_ctx()];
        windows.iter().try_for_each(|&window| numbering.read(&dataset, window, &mut conditions).map(drop))?;

        let bar = progress::bar(windows.len() as u64, "windows", globals.quiet);
        let done = |n: usize| bar.inc(n as u64);
        let (scored, device) = match &checkpoint.linear {
            Some(linear) => (linear::score(linear, &dataset, &windows, done)?, "CPU (float64)".to_owned()),
            None => {
                let score = |device: &mut dyn Device| {
                    let (params, levels) = upload(device, &meta.data.scheme, &checkpoint.params)?;
                    let network = Network::new(device, &meta.model, usize::MAX, params, levels, None)?;
                    let mut scorer = Scorer::new(device, &meta.model, &numbering)?;
                    scorer.score(device, &network, &dataset, &windows, done)
                };
                let mut device = globals.open_device_for(&meta.model)?;
                let scored = match score(&mut *device) {
                    Err(error) if bar.position() == 0 => {
                        device = globals.instead_of(device, error)?;
                        score(&mut *device)?
                    }
                    scored => scored?,
                };
                (scored, device.name())
            }
        };
        bar.finish_and_clear();
        let stopped = || Ok(Exit::Signal(interrupt::requested().unwrap_or_default()));
        let Some(scored) = scored else { return stopped() };
        if !scored.metrics().nats.is_finite() {
            let hint = "The model has diverged in training: use an earlier checkpoint";
            return Err(Error::new(Kind::NonFiniteTraining, "what the model predicts is not finite")
                .at(&checkpoint.path)
                .hint(hint));
        }
        let Some(fitted) = Anchors::fit(&dataset)? else { return stopped() };
        let Some(anchors) = fitted.score(&dataset, &windows, meta.model.n_ctx())? else { return stopped() };
        let differences = NAMES.iter().zip(anchors.iter().map(|anchor| scored.minus(anchor)));
        let scores = Scores {
            checkpoint: shown(&checkpoint.path),
            step: meta.progress.step,
            device,
            data: shown(&self.data),
            split,
            channel_names: meta.data.info.channels.iter().map(|channel| channel.name.clone()).collect(),
            n_window: windows.len(),
            n_target: meta.model.n_target(),
            model: scored.summary(),
            anchors: named(&anchors),
            model_minus: differences
                .filter(|(_, difference)| difference.nats.is_finite())
                .map(|(name, difference)| ModelMinus { name: name.to_string(), difference })
                .collect(),
        };
        write_json(&out, globals.force, &scores)?;
        if globals.json {
            say_json(serde_json::to_string(&scores).expect("plain data"))?;
        } else {
            let mut rows = scores.anchors.clone();
            rows.push(Anchor { name: "model".into(), scores: scores.model.clone() });
            say(table(&rows))?;
            say(format_args!("\n{}", differences_table(&scores.model_minus, scores.n_window)))?;
            say(out.display())?;
        }
        Ok(Exit::Done)
    }
}

/// The differences for people: one line an anchor.
fn differences_table(rows: &[ModelMinus], n_window: usize) -> String {
    let mut lines =
        vec![format!("  Model minus anchor, nats (below 0: the model is better), paired over {n_window} windows:")];
    for ModelMinus { name, difference } in rows {
        let error = difference.standard_error.map_or_else(|| "–".to_string(), |error| format!("{error:.4}"));
        lines.push(format!("  {name:<12}{:>+9.4} ± {error}", difference.nats));
    }
    lines.join("\n")
}

/// A table for people: one row a predictor.
pub(super) fn table(rows: &[Anchor]) -> String {
    let cell = |value: f64, width: usize, digits: usize| match value.is_finite() {
        true => format!("{value:>width$.digits$}"),
        false => format!("{:>width$}", "–"),
    };
    let mut lines = vec![format!(
        "  {:<12}{:>8}{:>9}{:>8}{:>8}{:>8}{:>15}",
        "", "nats", "± s.e.", "bits", "top-1", "top-5", "squared (z²)"
    )];
    for row in rows {
        let all = &row.scores.all;
        lines.push(format!(
            "  {:<12}{}{}{}{}{}{}",
            row.name,
            cell(all.nats, 8, 3),
            cell(row.scores.nats_standard_error.unwrap_or(f64::NAN), 9, 3),
            cell(all.bits, 8, 3),
            cell(all.top1, 8, 3),
            cell(all.top5, 8, 3),
            cell(all.squared_z, 15, 4)
        ));
    }
    lines.join("\n")
}
