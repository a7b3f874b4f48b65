//! `gpt2meg tokenize`.

use super::{Exit, Globals};
use crate::error::Result;
use clap::Args;

/// Arguments of `gpt2meg tokenize`.
#[derive(Args, Debug)]
pub struct Tokenize {}

impl Tokenize {
    /// Runs the command.
    pub fn run(self, globals: &Globals) -> Result<Exit> {
        let _ = globals;
        todo!()
    }
}
