//! `gpt2meg generate` for a linear autoregression: straight into the recording, as there are no tokens to keep.

use super::Generate;
use super::making::{generated_info, pins, provenance};
use super::summary::Summary;
use crate::cli::{Exit, Globals, note, progress, shown};
use crate::ensure;
use crate::error::{Kind, Result};
use crate::generate::linear::{Noise, Process};
use crate::generate::output::{self, rollout_path};
use crate::interrupt;
use crate::model::linear::Linear;
use crate::recording::{self, Info};
use crate::train::checkpoint::Checkpoint;
use std::path::PathBuf;
use std::time::Instant;

/// Timesteps of a block.
const BLOCK: usize = 1000;

impl Generate {
    /// Generates every rollout, one after the other. An interrupted one leaves nothing.
    pub(super) fn linear(
        &self,
        checkpoint: &Checkpoint,
        linear: &Linear,
        n_timestep: usize,
        globals: &Globals,
    ) -> Result<Exit> {
        let draws = self.greedy || self.top_p.is_some() || self.top_k.is_some() || self.temperature.is_some();
        let what = "an autoregression draws no levels: leave --greedy, --top-p, --top-k and --temperature away";
        ensure!(!draws, Kind::Usage, "{what}");
        globals.refuse_device()?;
        let noise = self.noise.unwrap_or(Noise::Residual);
        let n_rollout = self.rollouts as usize;
        let outputs: Vec<PathBuf> = (0..n_rollout).map(|r| rollout_path(&self.out, r, n_rollout)).collect();
        let (prompt, plan) = self.plan(checkpoint, 1, n_timestep, globals)?;
        let pins = pins(checkpoint, &plan, Some(noise));
        let made = provenance(&pins, &plan, checkpoint.meta.data.scheme, Some(noise));
        let n_channel = plan.model.n_channel();
        let force = globals.force || self.resume;
        let written = Info { n_timestep, ..checkpoint.meta.data.info.clone() };
        for (output, made) in outputs.iter().zip(&made) {
            output::check(output, &written, globals.force, self.resume.then_some(made))?;
        }
        let levels = checkpoint.meta.data.scheme.levels();
        let order = linear.config.order;
        let of_level = |channel: usize, token: u8| levels[usize::from(token)] * prompt.scales.peak[channel];
        let rows = prompt.tokens.chunks_exact(order).enumerate();
        let past: Vec<Vec<f64>> = rows.map(|(c, row)| row.iter().map(|&token| of_level(c, token)).collect()).collect();
        let sfreq = checkpoint.meta.data.info.sfreq;
        let started = Instant::now();
        let bar = progress::bar((n_timestep * n_rollout) as u64, "timesteps", globals.quiet);
        let mut files = Vec::new();
        for (rollout, (output, made)) in outputs.iter().zip(&made).enumerate() {
            let conditions = &checkpoint.meta.data.conditions;
            let info = generated_info(&prompt.info, &plan, made, n_timestep, conditions);
            let mut writer = recording::create(output, &info, self.layout, force)?;
            let mut process = Process::new(linear, noise, &past, plan.seed, rollout);
            for first in (0..n_timestep).step_by(BLOCK) {
                if let Some(signal) = interrupt::requested() {
                    bar.finish_and_clear();
                    if !globals.quiet {
                        let whole = format!("Stopped: {} of {n_rollout} recordings are whole", files.len());
                        let lost = "an autoregression keeps nothing of the others and cannot go on";
                        note(format_args!("{whole}; {lost}. To begin again: the same command with --resume"));
                    }
                    return Ok(Exit::Signal(signal));
                }
                let n = BLOCK.min(n_timestep - first);
                writer.write(&process.next(n, &prompt.scales)?)?;
                bar.inc(n as u64);
            }
            writer.finish(&info.events)?;
            files.push(shown(output));
        }
        bar.finish_and_clear();
        let wall_seconds = started.elapsed().as_secs_f64();
        let summary = Summary {
            files,
            complete: true,
            n_timestep,
            seconds: n_timestep as f64 / sfreq,
            n_channel,
            n_rollout,
            n_timestep_drawn: n_timestep,
            wall_seconds,
            tokens_per_second: (n_timestep * n_channel * n_rollout) as f64 / wall_seconds,
            real_time_factor: n_timestep as f64 / sfreq / wall_seconds,
        };
        summary.tell(globals, &self.out)?;
        Ok(Exit::Done)
    }
}
