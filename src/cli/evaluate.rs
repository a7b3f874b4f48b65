//! `gpt2meg evaluate`.

use super::{Exit, Globals};
use crate::error::Result;
use clap::Args;

/// Arguments of `gpt2meg evaluate`.
#[derive(Args, Debug)]
pub struct Evaluate {}

impl Evaluate {
    /// Runs the command.
    pub fn run(self, globals: &Globals) -> Result<Exit> {
        let _ = globals;
        todo!()
    }
}
