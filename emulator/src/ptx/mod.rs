//! From text to a syntax tree in which every node knows its line.
//!
//! The tree keeps PTX's own words: what an opcode or a type means is the decoder's business ([`crate::decode`]).

mod expression;
mod lexer;
mod parser;
mod statements;
mod tree;

pub use parser::parse;
pub use tree::*;

use std::fmt;

/// Text that is not PTX.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyntaxError {
    /// Line, from 1.
    pub line: u32,
    /// What is wrong.
    pub message: String,
}

impl fmt::Display for SyntaxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PTX line {}: {}", self.line, self.message)
    }
}

impl std::error::Error for SyntaxError {}
