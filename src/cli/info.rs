//! `gpt2meg info`.

use super::{Exit, Globals};
use crate::error::Result;
use clap::Args;

/// Arguments of `gpt2meg info`.
#[derive(Args, Debug)]
pub struct Info {}

impl Info {
    /// Runs the command.
    pub fn run(self, globals: &Globals) -> Result<Exit> {
        let _ = globals;
        todo!()
    }
}
