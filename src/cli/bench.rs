//! `gpt2meg bench`: what this machine reaches, beside its own limits.

use super::shape::Shape;
use super::{Exit, Globals, say, say_json};
use crate::bench::card::Card;
use crate::bench::measure::{self, Generation, Seconds};
use crate::bench::page::{self, Table};
use crate::bench::stage::Place;
use crate::bench::step::Step;
#[cfg(feature = "emulated")]
use crate::bench::{card, count, table};
use crate::bench::{least, peak};
use crate::device::{self, cpu};
use crate::ensure;
use crate::error::{Kind, Result};
use crate::interrupt;
use crate::model::config::ModelConfig;
use crate::storage;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

/// Time training or generation on this machine, with a model and data made up for it.
///
/// On a processor, rates stand beside what it reaches in registers alone, measured in the same run. With --device emulated (in
/// builds with the feature `emulated`) nothing is timed: kernels are counted, and a bound on a card's time is worked out.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  gpt2meg bench train
  gpt2meg bench train --preset group --sequences 32 --json
  gpt2meg bench generate --hop 128 --threads 1
  gpt2meg bench kernels
  gpt2meg bench kernels --device emulated --card a100 --html kernels.html")]
pub struct Bench {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Debug)]
enum What {
    /// Whole training steps: forward, backward, update.
    Train(Options),
    /// Windows of generation, as `gpt2meg generate` draws them: the prompt is read, a hop of timesteps drawn.
    Generate {
        #[command(flatten)]
        options: Options,
        /// Timesteps drawn from one window.
        #[arg(long, default_value_t = 10)]
        hop: usize,
    },
    /// Every stage of a training step by itself.
    Kernels(Options),
}

#[derive(Args, Debug)]
struct Options {
    #[command(flatten)]
    shape: Shape,
    /// Sequences, as many as channels of a window [default: 306 to generate, on a GPU and on the emulator, otherwise 64].
    #[arg(long)]
    sequences: Option<usize>,
    /// How often to time it.
    #[arg(long, default_value_t = 10)]
    repeats: usize,
    /// With --device emulated: the card that kernels are specialised for, and whose bound is worked out.
    #[cfg(feature = "emulated")]
    #[arg(long, value_enum, default_value_t = CardChoice::H100)]
    card: CardChoice,
    /// Write the result as a page, too.
    #[arg(long, value_name = "FILE")]
    html: Option<std::path::PathBuf>,
    #[command(flatten)]
    overwrite: super::Overwrite,
}

impl Options {
    fn config(&self) -> Result<ModelConfig> {
        let config = self.shape.apply(&self.shape.preset().config(306, 1, 118));
        config.check().map_err(|e| e.hint("Choose another shape"))?;
        let most = 1 << 16;
        ensure!(self.repeats > 0, Kind::Usage, "--repeats must be at least 1");
        ensure!(
            self.sequences.is_none_or(|n| (1..=most).contains(&n)),
            Kind::Usage,
            "--sequences must be 1 to {most}, not {}",
            self.sequences.unwrap_or_default()
        );
        Ok(config)
    }
}

impl Options {
    /// Sequences of a step where none are asked for: a window of a whole head on a GPU.
    fn n_sequence(&self, device: &dyn device::Device) -> usize {
        self.sequences.unwrap_or(if device.free_memory().is_some() { 306 } else { 64 })
    }

    /// Writes the page, if one was asked for.
    fn write_page(&self, globals: &Globals, page: impl FnOnce() -> String) -> Result<()> {
        let Some(path) = &self.html else { return Ok(()) };
        storage::atomic::write(path, globals.force, |file| file.write_at(0, page().as_bytes())).map(drop)
    }
}

/// A card to work out bounds for.
#[cfg(feature = "emulated")]
#[derive(clap::ValueEnum, Debug, Clone, Copy)]
enum CardChoice {
    /// NVIDIA H100 SXM.
    H100,
    /// NVIDIA A100 SXM.
    A100,
    /// NVIDIA GeForce RTX 4090.
    Rtx4090,
}

#[cfg(feature = "emulated")]
impl Options {
    fn card(&self) -> &'static card::Card {
        &card::CARDS[self.card as usize]
    }

    /// What the emulator counted, and the page that was asked for. `whole`: no table of kernels.
    fn outcome(&self, counts: &count::Counts, what: &str, whole: bool, globals: &Globals) -> Result<Outcome> {
        self.write_page(globals, || table::html(counts, what))?;
        let facts = serde_json::to_value(counts).expect("JSON of plain values");
        let mut lines = vec![what.to_owned()];
        lines.extend(if whole { table::summary(counts) } else { table::lines(counts) });
        Ok(Outcome { facts, lines, tables: Vec::new() })
    }
}

/// What was measured: facts for programs, lines and tables for people.
struct Outcome {
    facts: Value,
    lines: Vec<String>,
    tables: Vec<Table>,
}

impl Bench {
    /// Whether a file that exists is to be replaced.
    pub(super) fn force(&self) -> bool {
        self.options().overwrite.force
    }

    fn options(&self) -> &Options {
        let (What::Train(options) | What::Kernels(options) | What::Generate { options, .. }) = &self.what;
        options
    }

    /// Runs the command.
    pub fn run(self, globals: &Globals) -> Result<Exit> {
        if let Some(path) = &self.options().html {
            storage::atomic::refuse_target(path, globals.force)?;
        }
        let outcome = match globals.device {
            #[cfg(feature = "emulated")]
            device::DeviceChoice::Emulated => self.counted(globals)?,
            _ => self.measured(globals)?,
        };
        if let Some(signal) = interrupt::requested() {
            return Ok(Exit::Signal(signal));
        }
        if globals.json {
            say_json(serde_json::to_string_pretty(&outcome.facts).expect("JSON of plain values"))?;
        } else {
            outcome.lines.iter().try_for_each(say)?;
            outcome.tables.iter().flat_map(page::lines).try_for_each(say)?;
        }
        Ok(Exit::Done)
    }

    fn measured(&self, globals: &Globals) -> Result<Outcome> {
        let outcome = match &self.what {
            What::Train(options) => train(options, globals),
            What::Generate { options, hop } => generate(options, *hop, globals),
            What::Kernels(options) => kernels(options, globals),
        }?;
        let page = || page::page("gpt2meg bench", &outcome.lines, &outcome.tables);
        self.options().write_page(globals, page)?;
        Ok(outcome)
    }

    /// The emulator's seconds say nothing; its counts do.
    #[cfg(feature = "emulated")]
    fn counted(&self, globals: &Globals) -> Result<Outcome> {
        let options = self.options();
        let (config, card) = (options.config()?, options.card());
        let n = options.sequences.unwrap_or(306);
        if let What::Generate { hop, .. } = &self.what {
            check_hop(*hop, &config)?;
            let counts = count::generation(&config, n, *hop, card, globals.threads)?;
            let what = format!("Generation, d_model {}, context {}, hop {hop}", config.d_model, config.n_ctx);
            return options.outcome(&counts, &what, false, globals);
        }
        let counts = count::step(&config, n, card, globals.threads)?;
        let what = format!("A training step, d_model {}, context {}", config.d_model, config.n_ctx);
        options.outcome(&counts, &what, matches!(self.what, What::Train(_)), globals)
    }
}

/// The rate of multiplications and additions in registers, where the device is this processor.
fn register_rate(device: &dyn device::Device, globals: &Globals) -> Option<f64> {
    let threads = globals.threads.unwrap_or_else(cpu::default_threads);
    device.name().starts_with("CPU").then(|| peak::flop_rate(threads, 20))
}

fn milliseconds(seconds: &Seconds) -> String {
    let [median, fast, slow] = [seconds.median, seconds.fast, seconds.slow].map(|s| s * 1e3);
    format!("{median:9.3} ms ({fast:.3} to {slow:.3})")
}

/// A rate of arithmetic, and its share of what registers alone allow.
fn arithmetic(flop: f64, peak: Option<f64>) -> String {
    let share = peak.map(|peak| format!(", {:.0} % of {:.1} in registers", 100.0 * flop / peak, peak / 1e9));
    format!("{:.1} GFLOP/s{}", flop / 1e9, share.unwrap_or_default())
}

/// The least seconds for some places of a step on the card that the device is, if that is known; and that as a share of what
/// they took, in words.
fn bound(step: &Step, places: &[Place], config: &ModelConfig, took: f64) -> (Option<f64>, String) {
    let (n, slots) = (step.n_sequence(), step.device.grad_slots());
    let Some(card) = Card::named(&step.device.name()) else { return (None, String::new()) };
    let least = least::seconds(places, config, n, slots, card);
    (Some(least), reached(least, took, card))
}

/// The least seconds on a card as a share of what something took.
fn reached(least: f64, took: f64, card: &Card) -> String {
    format!("{:.0} % of the bound on an {}, {:.3} ms", 100.0 * least / took, card.name, least * 1e3)
}

fn train(options: &Options, globals: &Globals) -> Result<Outcome> {
    let config = options.config()?;
    let device = globals.open_device()?;
    let name = device.name();
    let peak = register_rate(device.as_ref(), globals);
    let n = options.n_sequence(device.as_ref());
    let mut step = Step::new(device, &config, n)?;
    let seconds = measure::step(&mut step, options.repeats)?;
    let tokens = step.n_token() as f64 / seconds.median;
    let flop = tokens * least::training_flop(&config);
    let mut lines = vec![
        format!("{name}: {} sequences of {} timesteps", step.n_sequence(), config.n_ctx),
        format!("  step        {}", milliseconds(&seconds)),
        format!("  rate        {tokens:9.0} timesteps of a channel a second"),
        format!("  arithmetic  {}", arithmetic(flop, peak)),
    ];
    let (least, share) = bound(&step, &step.places(config.n_layer), &config, seconds.median);
    lines.extend(least.map(|_| format!("  reached     {share}")));
    let facts = json!({
        "device": name,
        "model": config,
        "sequences": step.n_sequence(),
        "seconds": seconds,
        "least_seconds": least,
        "tokens_per_second": tokens,
        "flop_per_second": flop,
        "register_flop_per_second": peak,
    });
    Ok(Outcome { facts, lines, tables: Vec::new() })
}

fn check_hop(hop: usize, config: &ModelConfig) -> Result<()> {
    ensure!(
        hop > 0 && hop < config.n_ctx,
        Kind::Usage,
        "--hop {hop} is outside 1 to {}: one timestep of the window at least is the prompt",
        config.n_ctx - 1
    );
    Ok(())
}

fn generate(options: &Options, hop: usize, globals: &Globals) -> Result<Outcome> {
    let config = options.config()?;
    check_hop(hop, &config)?;
    let device = globals.open_device()?;
    let (name, n) = (device.name(), options.sequences.unwrap_or(306));
    let peak = register_rate(device.as_ref(), globals);
    let mut generation = Generation::new(device, &config, n)?;
    let seconds = measure::repeat(options.repeats, || generation.window(hop))?;
    let timesteps = hop as f64 / seconds.median;
    // Every timestep of a window but the last is read or fed back once.
    let fed = (config.n_ctx - 1) as f64;
    let flop = n as f64 * fed * least::forward_flop(&config, (fed + 1.0) / 2.0) / seconds.median;
    let card = Card::named(&name);
    let least = card.map(|card| least::decode(&config, n, hop).times(card).binding().1);
    let mut lines = vec![
        format!("{name}: {n} sequences, context {}, hop {hop}", config.n_ctx),
        format!("  window      {}", milliseconds(&seconds)),
        format!("  rate        {timesteps:9.2} timesteps a second, {:.0} tokens", timesteps * n as f64),
        format!("  arithmetic  {}", arithmetic(flop, peak)),
    ];
    lines
        .extend(card.zip(least).map(|(card, least)| format!("  reached     {}", reached(least, seconds.median, card))));
    let facts = json!({
        "device": name,
        "model": config,
        "sequences": n,
        "least_seconds": least,
        "hop": hop,
        "seconds": seconds,
        "timesteps_per_second": timesteps,
        "tokens_per_second": timesteps * n as f64,
        "flop_per_second": flop,
        "register_flop_per_second": peak,
    });
    Ok(Outcome { facts, lines, tables: Vec::new() })
}

fn kernels(options: &Options, globals: &Globals) -> Result<Outcome> {
    let config = options.config()?;
    let device = globals.open_device()?;
    let name = device.name();
    let peak = register_rate(device.as_ref(), globals);
    let n = options.n_sequence(device.as_ref());
    let mut step = Step::new(device, &config, n)?;
    let places = measure::places(&mut step, config.n_layer, options.repeats)?;
    let whole: f64 = places.iter().map(|(place, seconds)| place.times as f64 * seconds.median).sum();

    let mut lines = vec![
        format!("{name}: {} sequences of {} timesteps", step.n_sequence(), config.n_ctx),
        format!("  {:<20} {:>5} {:>6} {:>10} {:>7}  arithmetic", "stage", "rows", "times", "ms", "share"),
    ];
    let mut facts = Vec::new();
    for (place, seconds) in &places {
        let flop = least::stage_flop(place.stage, &config, place.rows, step.n_sequence()) / seconds.median;
        let arithmetic = if flop > 0.0 { arithmetic(flop, peak) } else { String::new() };
        let (least, of_bound) = bound(&step, &[Place { times: 1, ..*place }], &config, seconds.median);
        let share = 100.0 * place.times as f64 * seconds.median / whole;
        let (stage, rows, times, ms) = (place.stage.name(), place.rows, place.times, seconds.median * 1e3);
        lines.push(
            format!("  {stage:<20} {rows:>5} {times:>6} {ms:>10.3} {share:>5.1} %  {arithmetic}  {of_bound}")
                .trim_end()
                .into(),
        );
        facts.push(json!({ "place": place, "seconds": seconds, "least_seconds": least, "flop_per_second": flop }));
    }
    let tokens = step.n_token() as f64 / whole;
    lines.push(format!("  sum {:.3} ms: {tokens:.0} timesteps of a channel a second", whole * 1e3));
    let launched = measure::kernels(&mut step, options.repeats)?;
    let tables = launched.iter().map(|kernels| table_of(kernels)).collect();
    let facts = json!({
        "device": name,
        "model": config,
        "sequences": step.n_sequence(),
        "stages": facts,
        "kernels": launched,
        "seconds": whole,
        "tokens_per_second": tokens,
        "register_flop_per_second": peak,
    });
    Ok(Outcome { facts, lines, tables })
}

/// Kernels of a whole step, working copies made anew included, which no stage's time has.
fn table_of(kernels: &[measure::Kernel]) -> Table {
    let all: f64 = kernels.iter().map(|kernel| kernel.seconds).sum();
    let dash = || "–".to_owned();
    let row = |kernel: &measure::Kernel| {
        let least = kernel.least_seconds;
        vec![
            kernel.kernel.to_owned(),
            kernel.launches.to_string(),
            format!("{:.1}", kernel.seconds * 1e6),
            format!("{:.1} %", 100.0 * kernel.seconds / all),
            least.map_or_else(dash, |least| format!("{:.1}", least * 1e6)),
            least.map_or_else(dash, |least| format!("{:.0} %", 100.0 * least / kernel.seconds)),
        ]
    };
    let columns = vec!["kernel", "launches", "µs", "share", "bound µs", "of bound"];
    Table { columns, rows: kernels.iter().map(row).collect() }
}
