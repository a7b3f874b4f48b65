//! `gpt2meg train --model ar`: solved at once, with the files of a run of one step.

use crate::cli::{Exit, Globals, note, progress, say_json, score, shown};
use crate::error::Result;
use crate::interrupt;
use crate::model::linear::LinearConfig;
use crate::tokens::dataset::Dataset;
use crate::tokens::shard::Split;
use crate::tokens::window::Windows;
use crate::train::anchors::Anchor;
use crate::train::checkpoint::{self, Best, CheckpointMeta, Progress};
use crate::train::linear;
use crate::train::log::StepLog;
use crate::train::metrics::StepRecord;
use crate::train::run_folder::{RunFolder, RunMeta};
use crate::train::scoring::spread;
use crate::train::session::validation_windows;

/// Windows of the training part whose likelihood the log names.
const SOME: usize = 256;

/// The shape in words.
pub(super) fn described(config: &LinearConfig) -> String {
    let LinearConfig { order, multivariate, ridge, signal, .. } = *config;
    let of = if multivariate { "all channels together" } else { "each channel by itself" };
    let values = if signal { "the signal" } else { "the levels' centres" };
    format!("linear autoregression of order {order}, {of}, of {values}, ridge {ridge:e}")
}

/// Fits, scores on the validation part and saves. The folder is made, and an earlier run removed from it, by `folder`: when
/// there is a fit, and nothing can be refused any more.
pub(super) fn fit(
    folder: impl FnOnce() -> Result<RunFolder>,
    run: &RunMeta,
    config: &LinearConfig,
    dataset: &Dataset,
    globals: &Globals,
) -> Result<Exit> {
    let tell = |line: &str| {
        if !globals.quiet {
            note(line);
        }
    };
    let stopped = || Ok(Exit::Signal(interrupt::requested().unwrap_or_default()));
    globals.refuse_device()?;
    let training = spread(&Windows::new(dataset, Split::Train, config.sizes.n_ctx)?, Some(SOME));
    let validation = validation_windows(dataset, run)?;
    tell(&format!("Model: {} parameters; {}.", run.model.n_parameter(), described(config)));
    tell(match config.signal {
        true => "Data: the signal as it was before quantising.",
        false => "Data: the levels' centres; tokenize --keep-signal would give the signal from before quantising.",
    });
    let Some(fitted) = linear::fit(dataset, config)? else { return stopped() };
    let folder = folder()?;
    folder.write_meta(run)?;
    let bar = progress::bar((training.len() + validation.len()) as u64, "windows", globals.quiet);
    let done = |n: usize| bar.inc(n as u64);
    let Some(trained) = linear::score(&fitted, dataset, &training, done)? else { return stopped() };
    let Some(scored) = linear::score(&fitted, dataset, &validation, done)? else { return stopped() };
    bar.finish_and_clear();
    let Some(anchors) = super::anchors(&folder, run, dataset, tell)? else { return stopped() };
    let metrics = scored.metrics();
    let record = StepRecord {
        step: 1,
        nats: trained.metrics().nats,
        lr: 0.0,
        grad_norm: 0.0,
        applied: true,
        validation: Some(metrics),
    };
    let best = Some(Best { step: 1, nats: metrics.nats });
    let meta = CheckpointMeta {
        model: run.model.clone(),
        data: run.data.clone(),
        training: run.training.clone(),
        progress: Progress { step: 1, n_update: 1, best, ..Progress::default() },
        version: env!("CARGO_PKG_VERSION").to_string(),
        device: "CPU (float64)".to_string(),
    };
    let mut log = StepLog::open(&folder.log_path(), 0)?;
    log.append(&record)?;
    log.sync()?;
    let scales = checkpoint::scales_by_subject(dataset);
    for path in [checkpoint::step_path(folder.path(), 1), checkpoint::best_path(folder.path())] {
        checkpoint::save_linear(&path, &meta, &scales, &fitted)?;
    }
    tell("And this model:");
    tell(&score::table(&[Anchor { name: run.model.name().into(), scores: scored.summary() }]));
    if globals.json {
        say_json(serde_json::json!({
            "run": shown(folder.path()), "steps": 1, "best": best, "anchors": anchors,
            "n_parameter": run.model.n_parameter(),
        }))?;
    }
    Ok(Exit::Done)
}
