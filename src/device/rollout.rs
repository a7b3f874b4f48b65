//! A chunk of generation: what is asked for, what every device checks before, and the one thing that can go wrong in it.

use crate::ensure;
use crate::error::{Error, Kind, Result};
use crate::model::config::ModelConfig;

/// How a token is drawn from the logits. The order is: temperature, softmax, top-k, nucleus, draw; the arithmetic that
/// every device reproduces bit for bit is that of [`crate::device::cpu::sampler`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampler {
    /// Divides the logits; 1 leaves them.
    pub temperature: f32,
    /// Keep the k most probable levels; 0 keeps all.
    pub top_k: u32,
    /// Keep the smallest set of most probable levels whose share of what top-k left exceeds p, the level that crosses it
    /// included (paper section 4); 1 keeps all.
    pub top_p: f32,
    /// Take the most probable level, the lowest at a tie, and draw nothing.
    pub greedy: bool,
}

impl Sampler {
    /// Checks that the numbers make sense: a temperature above 0, a nucleus in (0, 1].
    pub fn check(&self) -> Result<()> {
        let Self { temperature, top_p, .. } = *self;
        // A temperature that is not a normal number has no finite inverse.
        let warm = temperature > 0.0 && temperature.is_normal();
        ensure!(warm, Kind::Usage, "a temperature of {temperature} makes no sense: it must be above 0");
        ensure!(top_p > 0.0 && top_p <= 1.0, Kind::Usage, "top-p of {top_p} is outside (0, 1]");
        Ok(())
    }
}

/// One chunk of generation: every sequence reads `n_prompt` tokens at positions 0.., then draws `n_new` with the cache.
#[derive(Debug, Clone, Copy)]
pub struct Rollout<'a> {
    /// Sequences (N): any number; the device cuts them as it likes.
    pub n: usize,
    /// Tokens already known, at least 1. `n_prompt + n_new ≤ n_ctx + 1`: the last token drawn is never fed back.
    pub n_prompt: usize,
    /// Tokens to draw.
    pub n_new: usize,
    /// [N, n_prompt].
    pub prompt: &'a [u8],
    /// [N, n_prompt + n_new - 1]: the condition that goes with each token that is fed.
    pub condition: &'a [u16],
    /// `[N]`.
    pub channel: &'a [u32],
    /// `[N]`.
    pub subject: &'a [u32],
    /// `[N]`: the sequence's index in the keyed randomness ([`crate::random::Purpose::Sampling`]).
    pub key: &'a [u64],
    /// Timestep of the first new token in the generated series: the position in the keyed randomness.
    pub timestep: u64,
    /// Seed of the draws.
    pub seed: u64,
    /// How to draw.
    pub sampler: Sampler,
}

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
