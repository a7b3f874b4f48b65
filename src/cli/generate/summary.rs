//! What `gpt2meg generate` says when it is done.

use crate::cli::{Globals, note, say, say_json};
use crate::error::Result;
use std::path::Path;

/// What has been done, as JSON.
#[derive(serde::Serialize)]
pub(super) struct Summary {
    pub(super) files: Vec<String>,
    pub(super) complete: bool,
    pub(super) n_timestep: usize,
    pub(super) seconds: f64,
    pub(super) n_channel: usize,
    pub(super) n_rollout: usize,
    /// Timesteps of this run of the program: fewer than all after `--resume`.
    pub(super) n_timestep_drawn: usize,
    pub(super) wall_seconds: f64,
    pub(super) tokens_per_second: f64,
    /// Seconds of signal, of each rollout, in one second.
    pub(super) real_time_factor: f64,
}

impl Summary {
    /// Says what has been done, to people or as JSON.
    pub(super) fn tell(&self, globals: &Globals, partial: &Path) -> Result<()> {
        if globals.json {
            return say_json(serde_json::to_string(self).expect("plain data"));
        }
        for file in &self.files {
            let (channels, timesteps, seconds) = (self.n_channel, self.n_timestep, self.seconds);
            say(format_args!("{file}: {channels} channels, {timesteps} timesteps, {seconds:.2} s"))?;
        }
        if self.n_timestep_drawn > 0 && !globals.quiet {
            let (rate, factor) = (self.tokens_per_second, self.real_time_factor);
            note(format_args!("gpt2meg: {rate:.0} tokens/s, {factor:.2} × real time"));
        }
        if !self.complete {
            note(format_args!(
                "gpt2meg: stopped early; go on with --resume (the tokens so far are in {})",
                partial.display()
            ));
        }
        Ok(())
    }
}
