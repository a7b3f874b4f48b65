//! `gpt2meg generate`.

mod linear;
mod making;
mod summary;

use super::{Exit, Globals, Overwrite, note, progress, shown};
use crate::device::{Device, Dtype, Sampler};
use crate::ensure;
use crate::error::{Error, Kind, Result};
use crate::generate::conditions::Series;
use crate::generate::linear::Noise;
use crate::generate::output::{self, Decoder, rollout_path, write_rollout};
use crate::generate::partial::Partial;
use crate::generate::prompt::{Place, Prompt, find_subject};
use crate::generate::{Generator, Plan};
use crate::interrupt;
use crate::model::kind::Model;
use crate::model::network::Generating;
use crate::recording::{self, Info, events::table};
use crate::tokens::dataset::Dataset;
use crate::tokens::shard::Split;
use crate::train::checkpoint::{self, Checkpoint, Which};
use clap::{Args, ValueEnum};
use making::{generated_info, pins, provenance};
use std::path::PathBuf;
use std::time::Instant;
use summary::Summary;

const EXAMPLES: &str = "\
Examples:
  gpt2meg generate run --data tokens --out generated_raw.fif --seconds 600
      Ten minutes, as the paper does it: the data's own conditions, top-p 0.8, hop 10.
  gpt2meg generate run --data tokens --out long_raw.fif --seconds 36000 --hop 128
      Ten hours, several times faster: the window is recomputed every 128 timesteps only.
  gpt2meg generate run --data tokens --out trials.npy --seconds 60 --events trials.tsv --subject 03
      A minute of subject 03 with the conditions of a table (onset, duration, trial_type).
  gpt2meg generate run --data tokens --out long_raw.fif --seconds 36000 --hop 128 --resume
      Goes on after Ctrl-C or a crash; the file has the same bytes as if it had never stopped.";

/// Longest recording: 35 years at 1 kHz. Every later product stays far inside 64 bits.
const MOST_TIMESTEPS: usize = 1 << 40;

/// Generate a recording from a trained model.
///
/// Reads a prompt from real data, then draws every channel's next level from what the model expects of it, again and
/// again. Tokens go to OUT.tokens.partial as they come, so Ctrl-C or a crash loses nothing, and a power cut a second or
/// two; the recording takes its name when it is whole. A linear autoregression draws no tokens, and nothing is kept of a
/// recording of it that was interrupted: it is made again, from the start.
///
/// The prompt, which is not in the recording, is fed with the conditions it was recorded under, whatever comes after it:
/// the model is told the truth about real signal. The first generated timesteps may therefore still answer a stimulus
/// of the prompt; choose --prompt-start where there is none, or leave out the first seconds, if that matters.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Generate {
    /// Run folder that `gpt2meg train` wrote, or one checkpoint file.
    run: PathBuf,
    /// Data the prompt comes from, and with it conditions, scales and sensors: a folder that `gpt2meg tokenize` wrote
    /// [default: what RUN was trained on].
    #[arg(long)]
    data: Option<PathBuf>,
    /// File to write: .fif (opens in MNE) or .npy (with a .json and an _events.tsv beside it).
    #[arg(long)]
    out: PathBuf,
    /// Length of the recording in seconds.
    #[arg(long, required_unless_present = "timesteps", conflicts_with = "timesteps")]
    seconds: Option<f64>,
    /// Length of the recording in timesteps.
    #[arg(long)]
    timesteps: Option<usize>,
    /// Timesteps drawn before the window is recomputed; every one of them sees the window less this much, or more. The
    /// paper's is 10; half the window is several times faster. Of GPT2MEG only: a WaveNet has no window [default: 10].
    #[arg(long)]
    hop: Option<usize>,
    /// Draw from the smallest set of levels that together are more probable than this; 1 draws from all. This and the next
    /// three are not of an autoregression, which draws no levels [default: 0.8].
    #[arg(long)]
    top_p: Option<f32>,
    /// Draw from this many of the most probable levels; 0 draws from all [default: 0].
    #[arg(long)]
    top_k: Option<u32>,
    /// Below 1 makes probable levels more probable, above 1 less [default: 1].
    #[arg(long)]
    temperature: Option<f32>,
    /// Always take the most probable level.
    #[arg(long, conflicts_with_all = ["top_p", "top_k", "temperature"])]
    greedy: bool,
    /// Of a linear autoregression, which draws no tokens: the noise that drives it. Its values are not quantised
    /// [default: residual].
    #[arg(long, value_enum)]
    noise: Option<Noise>,
    /// Where the conditions of the generated timesteps come from.
    #[arg(long, value_enum, default_value_t = Conditions::Data)]
    conditions: Conditions,
    /// Table of conditions: columns onset and duration (seconds; 0.5 where there is none) and trial_type, by tabs.
    #[arg(long, conflicts_with = "conditions")]
    events: Option<PathBuf>,
    /// Length in seconds of the trials of `--conditions random`; 0.5 s without condition come before each.
    #[arg(long, default_value_t = 0.5)]
    trial_seconds: f64,
    /// Subject to generate, by label or by index [default: that of the prompt].
    #[arg(long)]
    subject: Option<String>,
    /// Part of the recording that the prompt is cut from.
    #[arg(long, value_enum, default_value_t = PromptFrom::Train)]
    prompt_from: PromptFrom,
    /// Where in that part the prompt begins, in seconds.
    #[arg(long, default_value_t = 0.0)]
    prompt_start: f64,
    /// Recordings to generate at once, from the same prompt with draws of their own: one file each.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rollouts: u32,
    /// Which checkpoint of the run.
    #[arg(long, value_enum, default_value_t = Which::Best)]
    checkpoint: Which,
    /// Orientation of a .npy file.
    #[arg(long, value_enum, default_value = "time-first")]
    layout: recording::npy::Layout,
    /// Go on with an interrupted generation, to the same bytes as if it had never stopped; on another device, which is not
    /// noticed, to others from there on. An autoregression begins again, and replaces the recordings that the same command has
    /// finished.
    #[arg(long)]
    resume: bool,
    #[command(flatten)]
    pub(super) overwrite: Overwrite,
}

/// Sources of conditions.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
enum Conditions {
    /// The data's own, continued from the prompt; from the beginning again where the data ends.
    Data,
    /// 0.5 s of none after the prompt, then a trial of a random condition, and so on.
    Random,
    /// None after the prompt: rest.
    None,
}

/// Parts of a recording.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
enum PromptFrom {
    /// What the model was trained on (as the authors do).
    Train,
    /// What it was validated on.
    Validation,
    /// What it never saw.
    Test,
}

impl Generate {
    /// Runs the command.
    pub fn run(self, globals: &Globals) -> Result<Exit> {
        let checkpoint = checkpoint::load(&self.run, self.checkpoint)?;
        let hop = Plan::hop_of(&checkpoint.meta.model, self.hop)?;
        let sfreq = checkpoint.meta.data.info.sfreq;
        let n_timestep = self.length(sfreq)?;
        if let Some(linear) = &checkpoint.linear {
            return self.linear(&checkpoint, linear, n_timestep, globals);
        }
        ensure!(
            self.noise.is_none(),
            Kind::Usage,
            "a network draws levels: leave --noise away, which drives an autoregression"
        );
        let outputs: Vec<PathBuf> =
            (0..self.rollouts as usize).map(|r| rollout_path(&self.out, r, self.rollouts as usize)).collect();
        let path = Partial::beside(&self.out);
        if path.exists() && !self.resume && !globals.force {
            let hint = "Go on with --resume, or give --force to throw it away";
            return Err(Error::new(Kind::Exists, "an unfinished generation is here").at(&path).hint(hint));
        }
        let (prompt, plan) = self.plan(&checkpoint, hop, n_timestep, globals)?;
        let pins = pins(&checkpoint, &plan, None);
        let made = provenance(&pins, &plan, checkpoint.meta.data.scheme, None);
        let n_token = plan.n_sequence() * plan.hop;
        let mut generator = Generator::new(plan)?;
        let begun = match self.resume {
            true => Some(Partial::resume(&path, &pins, n_token, |tokens| generator.advance(tokens))?),
            false => None,
        };
        let written = Info { n_timestep, ..checkpoint.meta.data.info.clone() };
        for (output, made) in outputs.iter().zip(&made) {
            output::check(output, &written, globals.force, begun.is_some().then_some(made))?;
        }

        let mut device = globals.open_device_for(&checkpoint.meta.model)?;
        // A new partial file comes after everything that may be refused: it empties an older one under --force.
        let mut partial = match begun {
            Some(partial) => partial,
            None => Partial::create(&path, &pins, n_token, globals.force)?,
        };
        let resumed = generator.timestep();
        let started = Instant::now();
        let mut parameters = checkpoint.params;
        let mut filled = |device: &mut dyn Device, generator: &mut Generator| {
            let params = upload(device, &checkpoint.meta.model, &mut parameters)?;
            fill(device, &params, generator, &mut partial, n_timestep, sfreq, globals.quiet)
        };
        let filled = match filled(&mut *device, &mut generator) {
            Err(error) if generator.timestep() == resumed => {
                globals.instead_of(device, error).and_then(|mut cpu| filled(&mut *cpu, &mut generator))
            }
            done => done,
        };
        if let Err(error) = filled {
            if partial.n_record() == 0 {
                // There is nothing to go on with, and the next try should not have to be forced.
                let _ = partial.remove();
            }
            return Err(error);
        }
        let wall_seconds = started.elapsed().as_secs_f64();

        let written = generator.timestep().min(n_timestep);
        let decoder = Decoder::new(&checkpoint.meta.data.scheme, &prompt.scales);
        for (rollout, output) in outputs.iter().enumerate().take(if written > 0 { outputs.len() } else { 0 }) {
            let conditions = &checkpoint.meta.data.conditions;
            let info = generated_info(&prompt.info, generator.plan(), &made[rollout], written, conditions);
            let writer = recording::create(output, &info, self.layout, globals.force || self.resume);
            let done = writer.and_then(|w| write_rollout(w, &info, generator.plan(), &partial, &decoder, rollout));
            done.map_err(|e| keep_tokens(e, info.n_channel() * written))?;
        }
        let complete = written == n_timestep;
        if complete {
            partial.remove()?;
        }
        let drawn = generator.timestep() - resumed;
        let plan = generator.plan();
        let summary = Summary {
            files: if written > 0 { outputs.iter().map(|output| shown(output)).collect() } else { Vec::new() },
            complete,
            n_timestep: written,
            seconds: written as f64 / sfreq,
            n_channel: plan.model.n_channel(),
            n_rollout: plan.n_rollout,
            n_timestep_drawn: drawn,
            wall_seconds,
            tokens_per_second: (drawn * plan.n_sequence()) as f64 / wall_seconds,
            real_time_factor: drawn as f64 / sfreq / wall_seconds,
        };
        summary.tell(globals, &path)?;
        Ok(interrupt::requested().filter(|_| !complete).map_or(Exit::Done, Exit::Signal))
    }

    /// Timesteps to generate.
    fn length(&self, sfreq: f64) -> Result<usize> {
        let n_timestep = match (self.timesteps, self.seconds) {
            (Some(timesteps), _) => timesteps as f64,
            (None, seconds) => (seconds.unwrap_or(0.0) * sfreq).round(),
        };
        let sensible = (1.0..=MOST_TIMESTEPS as f64).contains(&n_timestep);
        ensure!(sensible, Kind::Usage, "a recording of {n_timestep} timesteps makes no sense");
        Ok(n_timestep as usize)
    }

    /// The data asked for, or else what the run folder says that it was trained on.
    fn data_path(&self) -> Result<PathBuf> {
        #[derive(serde::Deserialize)]
        struct Run {
            data_path: PathBuf,
        }
        if let Some(path) = &self.data {
            return Ok(path.clone());
        }
        let text = std::fs::read(self.run.join("run.json")).ok();
        let run: Option<Run> = text.and_then(|text| serde_json::from_slice(&text).ok());
        run.map(|run| run.data_path).ok_or_else(|| {
            let what = "nothing here says which data the model was trained on";
            Error::new(Kind::NotFound, what).at(&self.run).hint("Name the data with --data")
        })
    }

    /// Resolves what the user asked for against the model and the data.
    fn plan(
        &self,
        checkpoint: &Checkpoint,
        hop: usize,
        n_timestep: usize,
        globals: &Globals,
    ) -> Result<(Prompt, Plan)> {
        let (model, data) = (&checkpoint.meta.model, &checkpoint.meta.data);
        let sampler = Sampler {
            temperature: self.temperature.unwrap_or(1.0),
            top_k: self.top_k.unwrap_or(0),
            top_p: self.top_p.unwrap_or(0.8),
            greedy: self.greedy,
        };
        sampler.check()?;
        let start = (self.prompt_start * data.info.sfreq).round();
        let sensible = (0.0..MOST_TIMESTEPS as f64).contains(&start);
        ensure!(sensible, Kind::Usage, "a prompt cannot begin at {} s", self.prompt_start);
        let split = match self.prompt_from {
            PromptFrom::Train => Split::Train,
            PromptFrom::Validation => Split::Validation,
            PromptFrom::Test => Split::Test,
        };
        let place = Place { split, start: start as usize, n_prompt: Plan::prompt_of(model, hop) };
        let data_path = self.data_path()?;
        let dataset = Dataset::open(&data_path)?;
        let subject = self.subject.as_deref().map(|text| find_subject(data, text)).transpose()?;
        let prompt = Prompt::cut(checkpoint, &dataset, subject, place).map_err(|e| e.at(&data_path))?;
        let tell = |text: String| {
            if !globals.quiet {
                note(format_args!("gpt2meg: {text}"));
            }
        };
        if prompt.of_another {
            tell(format!("the data has nothing of this subject: the prompt is from {}", prompt.recording));
        }
        if let Some(start) = prompt.moved_to {
            let seconds = start as f64 / data.info.sfreq;
            tell(format!("the prompt begins at {seconds:.2} s of its part: before, it would touch what is excluded"));
        }
        let series = self.series(&prompt, data.info.sfreq, &data.conditions, globals.seed)?;
        if let Series::Data { series, start } = &series
            && start + n_timestep > series.len()
            && series.iter().any(|&condition| condition > 0)
        {
            tell(format!("the data's conditions end after {} timesteps and begin again", series.len() - start));
        }
        let plan = Plan {
            model: model.clone(),
            hop,
            n_rollout: self.rollouts as usize,
            subject: prompt.subject,
            prompt: prompt.tokens.clone(),
            prompt_condition: prompt.condition.clone(),
            series,
            labels: checkpoint.meta.training.condition_labels,
            seed: globals.seed,
            sampler,
        };
        Ok((prompt, plan))
    }

    /// The conditions of the generated timesteps.
    fn series(&self, prompt: &Prompt, sfreq: f64, conditions: &[String], seed: u64) -> Result<Series> {
        const HOLD: f64 = recording::events::HOLD;
        let timesteps = |seconds: f64| (seconds * sfreq).round() as usize;
        if let Some(path) = &self.events {
            // The whole table, so that a generation may be resumed with another length.
            let table = table::read(path, sfreq, 0, MOST_TIMESTEPS)?;
            return Series::of_events(&table.events, conditions, timesteps(HOLD).max(1)).map_err(|e| e.at(path));
        }
        match self.conditions {
            Conditions::None => Ok(Series::None),
            Conditions::Data => Ok(prompt.continued.clone()),
            Conditions::Random => {
                if conditions.is_empty() {
                    let what = "the model was trained without conditions";
                    return Err(Error::new(Kind::UnknownCondition, what).hint("Generate with --conditions none"));
                }
                let (seconds, trial) = (self.trial_seconds, timesteps(self.trial_seconds));
                ensure!(trial > 0, Kind::Usage, "trials of {seconds} s are shorter than a timestep");
                ensure!(trial <= MOST_TIMESTEPS, Kind::Usage, "trials of {seconds} s make no sense");
                Ok(Series::Random { seed, n_condition: conditions.len(), pause: timesteps(HOLD), trial })
            }
        }
    }
}

/// A model's parameters on the device; they are kept where another device may have to take over.
fn upload(device: &mut dyn Device, model: &Model, params: &mut Vec<f32>) -> Result<Generating> {
    let buffer = device.alloc(Dtype::F32, params.len())?;
    device.upload(buffer, bytemuck::cast_slice(params))?;
    if !device.is_gpu() {
        *params = Vec::new();
    }
    Generating::new(model, buffer)
}

/// Generates until there are `n_timestep` timesteps, or a signal asks to stop; every finished chunk is in the file.
fn fill(
    device: &mut dyn Device,
    params: &Generating,
    generator: &mut Generator,
    partial: &mut Partial,
    n_timestep: usize,
    sfreq: f64,
    quiet: bool,
) -> Result<()> {
    let bar = progress::bar(n_timestep as u64, "timesteps", quiet);
    bar.set_position(generator.timestep() as u64);
    bar.reset_eta();
    let (first, started) = (generator.timestep(), Instant::now());
    while generator.timestep() < n_timestep && interrupt::requested().is_none() {
        let tokens = generator.draw(device, params)?;
        if interrupt::requested().is_some() {
            break;
        }
        partial.append(&tokens)?;
        generator.advance(&tokens);
        let seconds = (generator.timestep() - first) as f64 / sfreq;
        bar.set_message(format!("{:.2} × real time", seconds / started.elapsed().as_secs_f64()));
        bar.set_position(generator.timestep().min(n_timestep) as u64);
    }
    bar.finish_and_clear();
    partial.sync()
}

/// A recording of so many samples could not be written: its tokens are all there.
fn keep_tokens(error: Error, n_sample: usize) -> Error {
    if error.kind() != Kind::Io {
        return error;
    }
    let n_byte = 4 * n_sample;
    error.also(&format!(
        "The recording needs {n_byte} bytes and a little; all its tokens are kept: make room, then give --resume"
    ))
}
