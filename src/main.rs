//! The program: parse, run, report an error in one line with its own exit code.

use clap::Parser;
use gpt2meg::cli::{Cli, Exit, run};
use gpt2meg::console::note;
use gpt2meg::interrupt;
use gpt2meg::storage::{disk, sigbus};
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Err(error) = interrupt::install() {
        note(format_args!("gpt2meg: signals cannot be caught, Ctrl-C will lose work: {error}"));
    }
    if let Err(error) = sigbus::install() {
        note(format_args!("gpt2meg: SIGBUS cannot be caught: {error}"));
    }
    disk::allow_many_open_files();
    match run(cli) {
        Ok(Exit::Done) => ExitCode::SUCCESS,
        Ok(Exit::Signal(signal)) => ExitCode::from(128 + signal as u8),
        Err(error) => {
            note(format_args!("gpt2meg: {error}"));
            ExitCode::from(error.exit_code())
        }
    }
}
