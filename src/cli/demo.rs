//! `gpt2meg demo`.

use super::{Exit, Globals};
use crate::error::Result;
use clap::Args;

/// Arguments of `gpt2meg demo`.
#[derive(Args, Debug)]
pub struct Demo {}

impl Demo {
    /// Runs the command.
    pub fn run(self, globals: &Globals) -> Result<Exit> {
        let _ = globals;
        todo!()
    }
}
