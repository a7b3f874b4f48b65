//! The options of `gpt2meg train` that say how a model is trained.

use crate::ensure;
use crate::error::{Error, Kind, Result};
use crate::train::config::{Schedule, TrainingConfig};
use crate::train::labels::ConditionLabels;
use clap::Args;

/// How it is trained.
#[derive(Args, Debug, Default, PartialEq)]
pub(super) struct Recipe {
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
    pub(super) checkpoint_every: Option<u64>,
    /// Stop after so many validations in a row without a better one [default: never].
    #[arg(long)]
    patience: Option<u64>,
    /// Labels of the conditions: the data's, random ones (each window has its own, the same in every pass; what is on when
    /// stays), or one for all. The paper's ablations; scoring does the same, generation feeds one label where there was one [default: data].
    #[arg(long, value_enum)]
    condition_labels: Option<ConditionLabels>,
}

impl Recipe {
    /// `base` with what the flags change, but for what may be given in passes.
    pub(super) fn apply(&self, base: &TrainingConfig) -> TrainingConfig {
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
            condition_labels: self.condition_labels.unwrap_or(base.condition_labels),
            ..base.clone()
        }
    }

    /// Refuses every one of them, for a model that is solved at once.
    pub(super) fn refuse_any(&self) -> Result<()> {
        let none = *self == Self::default();
        ensure!(none, Kind::Usage, "an autoregression is solved at once: leave the options of training away");
        Ok(())
    }

    /// The number of steps asked for, where `pass` steps are one pass.
    pub(super) fn steps(&self, pass: u64) -> Result<Option<u64>> {
        in_steps(self.steps, self.passes, pass)
    }

    /// The steps between validations asked for, where `pass` steps are one pass.
    pub(super) fn validate_every(&self, pass: u64) -> Result<Option<u64>> {
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
