//! `gpt2meg export`.

use super::{Exit, Globals};
use crate::error::Result;
use clap::Args;

/// Arguments of `gpt2meg export`.
#[derive(Args, Debug)]
pub struct Export {}

impl Export {
    /// Runs the command.
    pub fn run(self, globals: &Globals) -> Result<Exit> {
        let _ = globals;
        todo!()
    }
}
