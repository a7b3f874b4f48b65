//! `gpt2meg generate`.

use super::{Exit, Globals};
use crate::error::Result;
use clap::Args;

/// Arguments of `gpt2meg generate`.
#[derive(Args, Debug)]
pub struct Generate {}

impl Generate {
    /// Runs the command.
    pub fn run(self, globals: &Globals) -> Result<Exit> {
        let _ = globals;
        todo!()
    }
}
