//! How a model is trained: everything that decides the bits of a run, apart from the data and the model's shape.

use super::labels::ConditionLabels;
use crate::device::AdamW;
use crate::ensure;
use crate::error::{Kind, Result};
use serde::{Deserialize, Serialize};

/// How the learning rate goes over a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Schedule {
    /// The same throughout (after the warm-up, if there is one): the paper's.
    Constant,
    /// Half a cosine from the full rate to a tenth of it at the last step.
    Cosine,
}

/// Everything that decides how a run goes. Resolved once, when the run starts; `run.json` and every checkpoint carry it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrainingConfig {
    /// Seed of the initial parameters and of the order of the windows.
    pub seed: u64,
    /// Steps in the whole run.
    pub steps: u64,
    /// Windows (of all channels) whose gradients are averaged in one step.
    pub windows_per_step: usize,
    /// Highest learning rate.
    pub lr: f32,
    /// How the learning rate goes.
    pub schedule: Schedule,
    /// Steps over which the learning rate first rises linearly.
    pub warmup: u64,
    /// Decay of Adam's first moment.
    pub beta1: f32,
    /// Decay of Adam's second moment.
    pub beta2: f32,
    /// Adam's epsilon.
    pub eps: f32,
    /// Decoupled weight decay of matrices and embedding tables; 0 is plain Adam, the paper's.
    pub weight_decay: f32,
    /// Gradients with a larger norm are scaled down to it; none: never, the paper's.
    pub clip_norm: Option<f32>,
    /// Steps between validations.
    pub validate_every: u64,
    /// Windows of the validation part that are used, evenly spread; none: all.
    pub validation_windows: Option<usize>,
    /// Steps between checkpoints.
    pub checkpoint_every: u64,
    /// Validations in a row without a better one after which the run stops; none: never.
    pub patience: Option<u64>,
    /// What stands in for the data's conditions.
    #[serde(default, skip_serializing_if = "ConditionLabels::is_data")]
    pub condition_labels: ConditionLabels,
}

impl TrainingConfig {
    /// The longest run, so that no product of counts can overflow.
    pub const MAX_STEPS: u64 = 1 << 40;
    /// The most windows in one step.
    pub const MAX_WINDOWS: usize = 1 << 16;

    /// Adam as PyTorch has it (paper 2.3), a constant rate of 1e-4, one window a step.
    pub fn paper(seed: u64, steps: u64) -> Self {
        Self {
            seed,
            steps,
            windows_per_step: 1,
            lr: 1e-4,
            schedule: Schedule::Constant,
            warmup: 0,
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            weight_decay: 0.0,
            clip_norm: None,
            validate_every: steps.max(1),
            validation_windows: None,
            checkpoint_every: steps.max(1),
            patience: None,
            condition_labels: ConditionLabels::Data,
        }
    }

    /// Checks that every number makes sense.
    pub fn check(&self) -> Result<()> {
        let positive = |name: &str, value: f32| -> Result<()> {
            ensure!(value.is_finite() && value > 0.0, Kind::Usage, "{name} = {value} is not a positive number");
            Ok(())
        };
        positive("the learning rate", self.lr)?;
        positive("epsilon", self.eps)?;
        if let Some(norm) = self.clip_norm {
            positive("the largest gradient norm", norm)?;
        }
        for (name, beta) in [("beta1", self.beta1), ("beta2", self.beta2)] {
            ensure!((0.0..1.0).contains(&beta), Kind::Usage, "{name} = {beta} is outside 0 to 1");
        }
        let decay = self.weight_decay;
        ensure!(decay.is_finite() && decay >= 0.0, Kind::Usage, "a weight decay of {decay} makes no sense");
        for (name, count) in [
            ("the number of steps", self.steps),
            ("the number of windows per step", self.windows_per_step as u64),
            ("the number of steps between validations", self.validate_every),
            ("the number of steps between checkpoints", self.checkpoint_every),
            ("the number of validation windows", self.validation_windows.unwrap_or(1) as u64),
            ("the patience", self.patience.unwrap_or(1)),
        ] {
            ensure!(count > 0, Kind::Usage, "{name} is 0");
        }
        let (steps, windows) = (self.steps, self.windows_per_step);
        ensure!(steps <= Self::MAX_STEPS, Kind::Usage, "{steps} steps are more than {}", Self::MAX_STEPS);
        ensure!(
            windows <= Self::MAX_WINDOWS,
            Kind::Usage,
            "{windows} windows per step are more than {}",
            Self::MAX_WINDOWS
        );
        Ok(())
    }

    /// Refuses to go on with this what was trained with `earlier`, where the result would not be that of one whole run:
    /// only the number of steps may differ, and not even that where the learning rate depends on it.
    pub fn check_goes_on(&self, earlier: &Self) -> Result<()> {
        let same_but_steps = Self { steps: self.steps, ..earlier.clone() } == *self;
        ensure!(
            same_but_steps,
            Kind::Usage,
            "a run cannot go on with another seed or recipe: only --steps or --passes may differ"
        );
        ensure!(
            self.steps == earlier.steps || self.schedule == Schedule::Constant,
            Kind::Usage,
            "a run with the schedule cosine cannot go on to {} steps: its learning rate was to end with step {}",
            self.steps,
            earlier.steps
        );
        Ok(())
    }

    /// The learning rate of `step`, counted from 1.
    pub fn lr_at(&self, step: u64) -> f32 {
        const FLOOR: f64 = 0.1;
        let lr = f64::from(self.lr);
        if step <= self.warmup {
            return (lr * step as f64 / self.warmup as f64) as f32;
        }
        match self.schedule {
            Schedule::Constant => self.lr,
            Schedule::Cosine => {
                // From the first step after the warm-up (full rate) to the last step (the floor).
                let span = self.steps.saturating_sub(self.warmup + 1).max(1);
                let part = ((step - self.warmup - 1) as f64 / span as f64).min(1.0);
                // libm: the same bits on every machine.
                let cosine = 0.5 * (1.0 + libm::cos(std::f64::consts::PI * part));
                (lr * (FLOOR + (1.0 - FLOOR) * cosine)) as f32
            }
        }
    }

    /// What the device needs for the update of `step`, which is the `n_update`-th that is applied (both from 1).
    pub fn adamw(&self, step: u64, n_update: u64) -> AdamW {
        AdamW {
            lr: self.lr_at(step),
            beta1: self.beta1,
            beta2: self.beta2,
            eps: self.eps,
            weight_decay: self.weight_decay,
            max_norm: self.clip_norm.unwrap_or(f32::INFINITY),
            step: n_update,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(schedule: Schedule, warmup: u64) -> TrainingConfig {
        TrainingConfig { schedule, warmup, lr: 1e-3, ..TrainingConfig::paper(0, 100) }
    }

    #[test]
    fn constant_is_constant() {
        let config = config(Schedule::Constant, 0);
        assert!((1..=200).all(|step| config.lr_at(step) == 1e-3));
    }

    #[test]
    fn warm_up_rises_to_the_full_rate_and_the_cosine_falls_to_a_tenth() {
        let config = config(Schedule::Cosine, 10);
        let is = |step, lr: f32| assert!((config.lr_at(step) / lr - 1.0).abs() < 2.0 * f32::EPSILON, "step {step}");
        is(1, 1e-4);
        is(10, 1e-3);
        is(11, 1e-3);
        // Half-way between the steps 11 and 100 lies 55.5: the mean of both ends.
        let middle = (config.lr_at(55) + config.lr_at(56)) / 2.0;
        assert!((middle - 5.5e-4).abs() < 1e-9, "{middle}");
        is(100, 1e-4);
        // Beyond the end the floor stays.
        is(150, 1e-4);
        assert!((11..100).all(|step| config.lr_at(step + 1) < config.lr_at(step)));
    }

    #[test]
    fn a_run_as_short_as_its_warm_up_has_rates() {
        let config = TrainingConfig { steps: 10, ..config(Schedule::Cosine, 10) };
        assert!((1..=12).all(|step| config.lr_at(step).is_finite() && config.lr_at(step) > 0.0));
    }

    #[test]
    fn a_run_goes_on_with_its_own_recipe() {
        let earlier = TrainingConfig::paper(3, 100);
        let longer = TrainingConfig { steps: 200, ..earlier.clone() };
        assert!(earlier.check_goes_on(&earlier).is_ok() && longer.check_goes_on(&earlier).is_ok());
        for other in [
            TrainingConfig { seed: 4, ..earlier.clone() },
            TrainingConfig { lr: 2e-4, ..longer.clone() },
            TrainingConfig { beta2: 0.99, ..earlier.clone() },
            TrainingConfig { validate_every: 3, ..earlier.clone() },
        ] {
            assert_eq!(other.check_goes_on(&earlier).unwrap_err().kind(), Kind::Usage, "{other:?}");
        }
        let [cosine, longer] = [earlier, longer].map(|c| TrainingConfig { schedule: Schedule::Cosine, ..c });
        assert!(cosine.check_goes_on(&cosine).is_ok());
        let error = longer.check_goes_on(&cosine).unwrap_err();
        assert!(error.to_string().contains("cosine"), "{error}");
    }

    #[test]
    fn nonsense_is_refused() {
        let good = TrainingConfig::paper(0, 10);
        assert!(good.check().is_ok());
        for bad in [
            TrainingConfig { lr: f32::NAN, ..good.clone() },
            TrainingConfig { lr: 0.0, ..good.clone() },
            TrainingConfig { beta2: 1.0, ..good.clone() },
            TrainingConfig { clip_norm: Some(0.0), ..good.clone() },
            TrainingConfig { windows_per_step: 0, ..good.clone() },
            TrainingConfig { weight_decay: -1.0, ..good.clone() },
            TrainingConfig { patience: Some(0), ..good.clone() },
            TrainingConfig { steps: u64::MAX, ..good.clone() },
            TrainingConfig { windows_per_step: usize::MAX, ..good.clone() },
        ] {
            assert_eq!(bad.check().unwrap_err().kind(), Kind::Usage, "{bad:?}");
        }
    }
}
