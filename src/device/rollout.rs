//! What every device checks before it rolls out, and the one thing that can go wrong while it does.

use super::Rollout;
use crate::ensure;
use crate::error::{Error, Kind, Result};
use crate::model::config::ModelConfig;

impl Rollout<'_> {
    /// Timesteps of a sequence that are fed: the last token drawn never is.
    pub fn n_fed(&self) -> usize {
        (self.n_prompt + self.n_new).saturating_sub(1)
    }

    /// Checks sizes, indices and the window; `n_token` and `n_logit` are the lengths of what is to be filled.
    pub(super) fn check(&self, config: &ModelConfig, n_token: usize, n_logit: Option<usize>) -> Result<()> {
        let &Rollout { n_prompt, n_new, .. } = self;
        let longest = config.n_ctx + 1;
        ensure!(
            n_prompt > 0 && n_prompt.checked_add(n_new).is_some_and(|all| all <= longest),
            Kind::Internal,
            "{n_prompt} tokens to read and {n_new} to draw do not fit a window of {}",
            config.n_ctx
        );
        let limits = [config.n_level, config.n_condition + 1, config.n_channel, config.n_subject];
        self.check_sizes(limits, n_token, n_logit)
    }

    /// Checks sizes, and indices against the number of levels, conditions (with none), channels and subjects.
    pub(super) fn check_sizes(&self, limits: [usize; 4], n_token: usize, n_logit: Option<usize>) -> Result<()> {
        let (&Rollout { n, n_prompt, n_new, .. }, [n_level, n_condition, n_channel, n_subject]) = (self, limits);
        self.sampler.check()?;
        for (what, len, expected) in [
            ("prompt", self.prompt.len(), n * n_prompt),
            ("conditions", self.condition.len(), n * self.n_fed()),
            ("channels", self.channel.len(), n),
            ("subjects", self.subject.len(), n),
            ("keys", self.key.len(), n),
            ("tokens", n_token, n * n_new),
            ("logits", n_logit.unwrap_or(n * n_new * n_level), n * n_new * n_level),
        ] {
            ensure!(len == expected, Kind::Internal, "a rollout with {len} {what} where {expected} are needed");
        }
        for (what, limit, largest) in [
            ("level", n_level, self.prompt.iter().max().map(|&x| usize::from(x))),
            ("condition", n_condition, self.condition.iter().max().map(|&x| usize::from(x))),
            ("channel", n_channel, self.channel.iter().max().map(|&x| x as usize)),
            ("subject", n_subject, self.subject.iter().max().map(|&x| x as usize)),
        ] {
            let largest = largest.unwrap_or(0);
            ensure!(largest < limit, Kind::Internal, "a rollout with the {what} {largest} of {limit}");
        }
        Ok(())
    }

    /// The error of logits that are not finite, at the drawing `step` of a sequence.
    pub(super) fn not_finite(&self, sequence: usize, step: usize) -> Error {
        let (channel, timestep) = (self.channel[sequence], self.timestep + step as u64);
        let what = format!("the logits of channel {channel} are not finite at generated timestep {timestep}");
        Error::new(Kind::NonFiniteTraining, what).hint("The model has diverged in training: use an earlier checkpoint")
    }
}
