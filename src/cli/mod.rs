//! The command line: one file a command.

mod bench;
mod demo;
mod evaluate;
mod experiment;
mod export;
mod generate;
mod info;
pub mod progress;
mod score;
mod shape;
mod simulate;
mod tokenize;
mod train;
mod verify;

use crate::console::{note, say, say_json};
use crate::device::{self, Device, DeviceChoice};
use crate::ensure;
use crate::error::{Error, Kind, Result};
use crate::model::kind::Model;
use clap::{Args, Parser, Subcommand};
use std::path::Path;

/// From recordings of the brain to tokens, a GPT-2, and generated MEG.
#[derive(Parser)]
#[command(name = "gpt2meg", version, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    globals: Globals,
}

/// Options that mean the same everywhere.
#[derive(Args, Debug, Clone)]
pub struct Globals {
    /// Where to compute.
    #[arg(long, global = true, value_enum, default_value_t = DeviceChoice::Auto)]
    pub device: DeviceChoice,
    /// Threads to compute with; results do not depend on it [default: all cores].
    #[arg(long, global = true)]
    pub threads: Option<usize>,
    /// Seed of everything random.
    #[arg(long, global = true, default_value_t = 0)]
    pub seed: u64,
    /// Print the result as JSON on standard output.
    #[arg(long, global = true)]
    pub json: bool,
    /// Replace files that exist: an option of the commands that write.
    #[arg(skip)]
    pub force: bool,
    /// No progress, no notes.
    #[arg(short, long, global = true)]
    pub quiet: bool,
}

impl Globals {
    /// Opens the device that was asked for.
    fn open_device(&self) -> Result<Box<dyn Device>> {
        self.open(self.device)
    }

    /// Opens the device that was asked for; where the choice is ours, one that has the stages of this model.
    fn open_device_for(&self, model: &Model) -> Result<Box<dyn Device>> {
        match (self.device, model) {
            (DeviceChoice::Auto, Model::Wavenet(_)) => {
                if device::cuda::has_driver() && !self.quiet {
                    note("The GPU is not used: it has no stages for WaveNet yet. The CPU computes instead.");
                }
                self.open(DeviceChoice::Cpu)
            }
            (choice, _) => {
                let device = self.open(choice)?;
                if device.is_gpu() && !self.quiet {
                    note(format_args!("{}: compiling the kernels that are not kept from before.", device.name()));
                }
                Ok(device)
            }
        }
    }

    /// The CPU instead of a GPU that turns out to lack what it takes, where the choice is ours; otherwise that error.
    fn instead_of(&self, device: Box<dyn Device>, error: Error) -> Result<Box<dyn Device>> {
        if !device.is_gpu() || self.device != DeviceChoice::Auto || error.kind() != Kind::DeviceUnavailable {
            return Err(error);
        }
        if !self.quiet {
            note(device::cpu_instead(&error));
        }
        self.open(DeviceChoice::Cpu)
    }

    /// Refuses another device than the CPU, for an autoregression: it is no network.
    fn refuse_device(&self) -> Result<()> {
        let host = matches!(self.device, DeviceChoice::Auto | DeviceChoice::Cpu);
        ensure!(host, Kind::Usage, "an autoregression is computed on the CPU, in float64: leave --device away");
        Ok(())
    }

    fn open(&self, choice: DeviceChoice) -> Result<Box<dyn Device>> {
        device::open(choice, self.threads, |why| {
            if !self.quiet {
                note(why);
            }
        })
    }
}

#[derive(Subcommand)]
enum Command {
    /// The whole way on simulated MEG, in minutes, ending in a report.
    Demo(demo::Demo),
    /// Make a recording whose truth is known.
    Simulate(simulate::Simulate),
    /// Turn recordings into tokens, and say what that cost.
    Tokenize(Box<tokenize::Tokenize>),
    /// Train a model on tokens.
    Train(train::Train),
    /// Generate a recording from a trained model.
    Generate(generate::Generate),
    /// Measure a model's predictions on held-out data.
    Score(score::Score),
    /// Compare generated recordings with real ones, in a report.
    Evaluate(evaluate::Evaluate),
    /// Compare models from one small file: data, training, generation, one report with one table.
    Experiment(experiment::Experiment),
    /// What this machine reaches, beside its own limits.
    Bench(bench::Bench),
    /// What a file is, or this machine.
    Info(info::Info),
    /// Check every byte of a file against its checksums.
    Verify(verify::Verify),
    /// Write config.json and model.safetensors that Hugging Face's GPT-2 loads.
    Export(export::Export),
}

/// How a command ended, when it did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// All is done.
    Done,
    /// A signal asked it to stop; what was complete has been saved.
    Signal(i32),
}

/// The option of the commands that write.
#[derive(Args, Debug, Clone, Copy)]
struct Overwrite {
    /// Replace files that exist.
    #[arg(long)]
    force: bool,
}

impl Command {
    /// Whether files that exist are to be replaced.
    fn force(&self) -> bool {
        let overwrite = match self {
            Self::Demo(command) => command.overwrite,
            Self::Simulate(command) => command.overwrite,
            Self::Tokenize(command) => command.overwrite,
            Self::Train(command) => command.overwrite,
            Self::Generate(command) => command.overwrite,
            Self::Score(command) => command.overwrite,
            Self::Evaluate(command) => command.overwrite,
            Self::Export(command) => command.overwrite,
            Self::Bench(command) => Overwrite { force: command.force() },
            Self::Info(_) | Self::Verify(_) | Self::Experiment(_) => Overwrite { force: false },
        };
        overwrite.force
    }
}

/// A path as text, for JSON: names need not be Unicode, JSON must be.
fn shown(path: &Path) -> String {
    path.display().to_string()
}

/// Runs what the command line asks for.
pub fn run(cli: Cli) -> Result<Exit> {
    let globals = &Globals { force: cli.command.force(), ..cli.globals.clone() };
    if let Some(threads) = globals.threads {
        use crate::device::cpu::MAX_THREADS;
        ensure!((1..=MAX_THREADS).contains(&threads), Kind::Usage, "{threads} threads is outside 1 to {MAX_THREADS}");
        // For everything outside the engine, which has threads of its own. A program that calls this twice keeps those
        // of the first call; results do not depend on it.
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).thread_name(|i| format!("common-{i}"));
        let _ = pool.build_global();
    }
    run_command(cli, globals)
}

/// Runs a command with these options instead of those of its command line.
fn run_command(cli: Cli, globals: &Globals) -> Result<Exit> {
    match cli.command {
        Command::Demo(command) => command.run(globals),
        Command::Simulate(command) => command.run(globals),
        Command::Tokenize(command) => command.run(globals),
        Command::Train(command) => command.run(globals),
        Command::Generate(command) => command.run(globals),
        Command::Score(command) => command.run(globals),
        Command::Evaluate(command) => command.run(globals),
        Command::Experiment(command) => command.run(globals),
        Command::Bench(command) => command.run(globals),
        Command::Info(command) => command.run(globals),
        Command::Verify(command) => command.run(globals),
        Command::Export(command) => command.run(globals),
    }
}
