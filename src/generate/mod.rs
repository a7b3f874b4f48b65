//! From prompts to hours of signal: window policy, conditions, and what is streamed to disk.
//!
//! The paper's window policy (section 4): the prompt is the last `n_ctx − hop` tokens; `hop` tokens are drawn with the
//! KV cache; then the cache is dropped, the window slides by `hop`, and positions start at 0 again. The context of a
//! drawn token is therefore `n_ctx − hop` to `n_ctx − 1` timesteps. A WaveNet has no such window: its context is always its
//! receptive field, its layers keep what they will look back at, and chunks are only for the file. Everything is a function of the prompt, the
//! conditions, the seed and the tokens so far: nothing else has to be remembered to go on.

pub mod conditions;
pub mod linear;
pub mod output;
pub mod partial;
pub mod prompt;
pub mod provenance;

use crate::device::{Device, Rollout, Sampler};
use crate::ensure;
use crate::error::{Error, Kind, Result};
use crate::model::kind::Model;
use crate::model::network::Generating;
use crate::train::labels::ConditionLabels;
use conditions::Series;

/// Timesteps that a WaveNet generates between two prompts: what reading these costs is then less than half of all.
const WAVENET_CHUNK: usize = 512;

/// What the tokens are a function of, besides the parameters.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Kind and shape of the model.
    pub model: Model,
    /// Timesteps of a chunk. For GPT2MEG, those between one recomputation of the window and the next: 1 to `n_ctx − 1`.
    pub hop: usize,
    /// Recordings generated at once, each of all channels.
    pub n_rollout: usize,
    /// The subject whose embedding is added.
    pub subject: u32,
    /// The real tokens that come first, [n_channel, n_prompt].
    pub prompt: Vec<u8>,
    /// The condition that each of them was recorded under, `[n_prompt]`, whatever `series` says of what comes after. (The
    /// authors' code feeds none here when it draws random conditions: the model then hears answers to stimuli that, it
    /// is told, were not there.)
    pub prompt_condition: Vec<u16>,
    /// The conditions of the generated timesteps.
    pub series: Series,
    /// What the model was trained with in place of the data's labels. Where that was one label it is fed that one, as it
    /// knows no other; the recording's events are those of `series` in any case.
    pub labels: ConditionLabels,
    /// Seed of the draws.
    pub seed: u64,
    /// How tokens are drawn.
    pub sampler: Sampler,
}

impl Plan {
    /// Tokens a chunk begins with.
    pub fn n_prompt(&self) -> usize {
        Self::prompt_of(&self.model, self.hop)
    }

    /// Tokens that a chunk of a model begins with.
    pub fn prompt_of(model: &Model, hop: usize) -> usize {
        match model {
            Model::Gpt(config) => config.n_ctx - hop,
            Model::Wavenet(config) => config.n_receptive(),
            Model::Ar(config) => config.order,
        }
    }

    /// Sequences: the channels of all rollouts.
    pub fn n_sequence(&self) -> usize {
        self.n_rollout * self.model.n_channel()
    }

    /// The timesteps of a chunk: those asked for, or else the paper's. A hop is checked against the window; a WaveNet,
    /// which computes every timestep once whatever the chunk, has none to ask for.
    pub fn hop_of(model: &Model, asked: Option<usize>) -> Result<usize> {
        match (model, asked) {
            (Model::Gpt(config), asked) => {
                let (hop, most) = (asked.unwrap_or(10.min(config.n_ctx - 1)), config.n_ctx - 1);
                ensure!(
                    (1..=most).contains(&hop),
                    Kind::Usage,
                    "a hop of {hop} timesteps is outside 1 to {most}, the window less 1"
                );
                Ok(hop)
            }
            (Model::Wavenet(_), None) => Ok(WAVENET_CHUNK),
            (Model::Ar(_), None) => Ok(1),
            (Model::Wavenet(_) | Model::Ar(_), Some(_)) => {
                let what = "only GPT2MEG has a window that is recomputed, and so a hop";
                Err(Error::new(Kind::Usage, what)
                    .hint("Leave --hop away: this model always sees as far back as it can"))
            }
        }
    }

    /// The condition that goes with the token at `timestep` of a rollout, counted from the beginning of the prompt.
    fn condition(&self, rollout: usize, timestep: usize) -> u16 {
        let condition = match timestep.checked_sub(self.n_prompt()) {
            None => self.prompt_condition[timestep],
            Some(generated) => self.series.at(rollout as u64, generated),
        };
        if self.labels == ConditionLabels::One { condition.min(1) } else { condition }
    }
}

/// A generation in progress: all rollouts, one chunk of `hop` timesteps at a time.
#[derive(Debug)]
pub struct Generator {
    plan: Plan,
    /// The last tokens of each sequence, [n_sequence, n_prompt].
    history: Vec<u8>,
    /// Timesteps generated so far.
    timestep: usize,
    channel: Vec<u32>,
    subject: Vec<u32>,
    key: Vec<u64>,
}

impl Generator {
    /// The beginning: nothing generated yet.
    pub fn new(plan: Plan) -> Result<Self> {
        if let Model::Gpt(_) = plan.model {
            Plan::hop_of(&plan.model, Some(plan.hop))?;
        }
        plan.sampler.check()?;
        let (n, n_channel) = (plan.n_sequence(), plan.model.n_channel());
        let prompts = (plan.prompt.len(), plan.prompt_condition.len());
        let wanted = (n_channel * plan.n_prompt(), plan.n_prompt());
        ensure!(prompts == wanted, Kind::Internal, "a prompt of {prompts:?} elements where {wanted:?} are needed");
        Ok(Self {
            history: plan.prompt.repeat(plan.n_rollout),
            timestep: 0,
            channel: (0..n).map(|i| (i % n_channel) as u32).collect(),
            subject: vec![plan.subject; n],
            // Rollout r of channel c draws with the same key however many rollouts there are.
            key: (0..n as u64).collect(),
            plan,
        })
    }

    /// What is being generated.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Timesteps generated so far.
    pub fn timestep(&self) -> usize {
        self.timestep
    }

    /// Draws the next chunk, [n_sequence, hop], without moving on: [`Self::advance`] does, when the chunk is safe. If a
    /// signal has asked to stop meanwhile ([`crate::interrupt::requested`]) the tokens are not to be used.
    pub fn draw(&self, device: &mut dyn Device, model: &Generating) -> Result<Vec<u8>> {
        let plan = &self.plan;
        let (n_prompt, n_channel) = (plan.n_prompt(), plan.model.n_channel());
        let fed = n_prompt + plan.hop - 1;
        let mut condition = Vec::with_capacity(plan.n_sequence() * fed);
        for rollout in 0..plan.n_rollout {
            let row: Vec<u16> = (self.timestep..self.timestep + fed).map(|t| plan.condition(rollout, t)).collect();
            condition.extend(row.repeat(n_channel));
        }
        let rollout = Rollout {
            n: plan.n_sequence(),
            n_prompt,
            n_new: plan.hop,
            prompt: &self.history,
            condition: &condition,
            channel: &self.channel,
            subject: &self.subject,
            key: &self.key,
            timestep: self.timestep as u64,
            seed: plan.seed,
            sampler: plan.sampler,
        };
        let mut tokens = vec![0; plan.n_sequence() * plan.hop];
        model.rollout(device, &rollout, &mut tokens)?;
        Ok(tokens)
    }

    /// Slides the window over a chunk, just drawn or read back.
    pub fn advance(&mut self, tokens: &[u8]) {
        let (n_prompt, hop) = (self.plan.n_prompt(), self.plan.hop);
        for (history, new) in self.history.chunks_exact_mut(n_prompt).zip(tokens.chunks_exact(hop)) {
            let kept = n_prompt.saturating_sub(hop);
            history.copy_within(n_prompt - kept.., 0);
            history[kept..].copy_from_slice(&new[hop - (n_prompt - kept)..]);
        }
        self.timestep += hop;
    }
}
