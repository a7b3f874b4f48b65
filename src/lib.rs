//! gpt2meg: from recordings of the brain to tokens, a hand-written GPT-2, and generated MEG.
//!
//! `ARCHITECTURE.md` is the map. A newcomer starts with [`model::gpt2`], then reads [`device::Device`].

// Printing macros panic where nobody listens: see `console`.
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

pub mod bench;
pub mod cli;
pub mod console;
pub mod device;
pub mod error;
pub mod evaluate;
pub mod experiment;
pub mod generate;
pub mod interrupt;
pub mod model;
pub mod random;
pub mod recording;
pub mod statistics;
pub mod storage;
pub mod tokens;
pub mod train;
