//! `gpt2meg simulate`.

use super::{Exit, Globals};
use crate::error::Result;
use clap::Args;

/// Arguments of `gpt2meg simulate`.
#[derive(Args, Debug)]
pub struct Simulate {}

impl Simulate {
    /// Runs the command.
    pub fn run(self, globals: &Globals) -> Result<Exit> {
        let _ = globals;
        todo!()
    }
}
