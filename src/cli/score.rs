//! `gpt2meg score`.

use super::{Exit, Globals};
use crate::error::Result;
use clap::Args;

/// Arguments of `gpt2meg score`.
#[derive(Args, Debug)]
pub struct Score {}

impl Score {
    /// Runs the command.
    pub fn run(self, globals: &Globals) -> Result<Exit> {
        let _ = globals;
        todo!()
    }
}
