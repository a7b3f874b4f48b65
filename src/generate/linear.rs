//! Generation by a linear autoregression: its prediction plus Gaussian noise, in scaled units, never quantised.

use crate::error::{Error, Kind, Result};
use crate::model::linear::Linear;
use crate::random::{Purpose, keyed};
use crate::recording::Block;
use crate::tokens::scheme::Scales;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};
use serde::Serialize;

/// The noise that drives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Noise {
    /// As large as what the fit left over, and, of a multivariate one, with its covariance.
    Residual,
    /// Of one scaled unit in every channel, as the authors have it.
    Unit,
}

/// Values so far from all data mean that the process runs away: least squares does not promise a stable one.
const RUNAWAY: f64 = 1e4;

/// One rollout in progress: all channels, timestep by timestep.
pub struct Process<'a> {
    linear: &'a Linear,
    noise: Noise,
    /// Each channel's values, or all channels' timestep by timestep; the last `order` timesteps and those of a block.
    past: Vec<Vec<f64>>,
    draws: Vec<ChaCha8Rng>,
    timestep: usize,
}

impl<'a> Process<'a> {
    /// After a prompt in scaled units, `[n_channel][order]`; a rollout's channels draw with keys of their own.
    pub fn new(linear: &'a Linear, noise: Noise, prompt: &[Vec<f64>], seed: u64, rollout: usize) -> Self {
        let n_channel = prompt.len();
        let key = |channel| keyed(seed, Purpose::LinearNoise, (rollout * n_channel + channel) as u64);
        let past = match linear.config.multivariate {
            false => prompt.to_vec(),
            true => vec![(0..linear.config.order).flat_map(|t| prompt.iter().map(move |row| row[t])).collect()],
        };
        Self { linear, noise, past, draws: (0..n_channel).map(key).collect(), timestep: 0 }
    }

    /// The next `n_timestep` timesteps in SI units.
    pub fn next(&mut self, n_timestep: usize, scales: &Scales) -> Result<Block> {
        let n_channel = self.draws.len();
        let mut block = Block::zeros(n_channel, n_timestep);
        let mut noise = vec![0.0; n_channel];
        for t in 0..n_timestep {
            for (noise, draws) in noise.iter_mut().zip(&mut self.draws) {
                *noise = StandardNormal.sample(draws);
            }
            // All channels are predicted from the past before any of them goes on.
            let now: Vec<f64> = (0..n_channel).map(|channel| self.value(channel, &noise)).collect();
            for (channel, &z) in now.iter().enumerate() {
                if z.is_nan() || z.abs() >= RUNAWAY {
                    return Err(self.runaway(channel, t));
                }
                let scale = scales.channel(channel);
                block.channel_mut(channel)[t] = scale.centre + scale.spread * z;
                let row = if self.linear.config.multivariate { 0 } else { channel };
                self.past[row].push(z);
            }
        }
        self.timestep += n_timestep;
        let kept = self.linear.config.width();
        self.past.iter_mut().for_each(|row| drop(row.drain(..row.len() - kept)));
        Ok(block)
    }

    fn value(&self, channel: usize, noise: &[f64]) -> f64 {
        let row = &self.past[if self.linear.config.multivariate { 0 } else { channel }];
        let mean = self.linear.predict(channel, &row[row.len() - self.linear.config.width()..]);
        let n_channel = noise.len();
        let noise = match (self.noise, self.linear.factor.is_empty()) {
            (Noise::Unit, _) => noise[channel],
            (Noise::Residual, true) => self.linear.sigma[channel] * noise[channel],
            (Noise::Residual, false) => {
                let factor = &self.linear.factor[channel * n_channel..][..=channel];
                factor.iter().zip(noise).map(|(factor, noise)| factor * noise).sum()
            }
        };
        mean + noise
    }

    fn runaway(&self, channel: usize, t: usize) -> Error {
        let timestep = self.timestep + t;
        let what =
            format!("the autoregression is unstable: channel {channel} runs away at generated timestep {timestep}");
        Error::new(Kind::NonFiniteTraining, what).hint("Fit it again with a larger --ridge or a lower --order")
    }
}
