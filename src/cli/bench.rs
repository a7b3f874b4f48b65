//! `gpt2meg bench`: what this machine reaches, beside its own limits.

use super::shape::Shape;
use super::{Exit, Globals, say, say_json};
use crate::bench::card::Card;
use crate::bench::measure::{self, Generation, Seconds};
use crate::bench::page::{self, Column::Numbers, Column::Words, Table};
use crate::bench::step::Step;
#[cfg(feature = "emulated")]
use crate::bench::{card, count, table};
use crate::bench::{history, least, peak};
use crate::device::{self, cpu};
use crate::ensure;
#[cfg(feature = "emulated")]
use crate::error::Error;
use crate::error::{Kind, Result};
use crate::interrupt;
use crate::model::config::ModelConfig;
use crate::storage;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

/// Time training, scoring or generation on this machine, with a model and data made up for it.
///
/// On a processor, rates stand beside what it reaches in registers alone, measured in the same run. With --device emulated (in
/// builds with the feature `emulated`) nothing is timed: kernels are counted, and a bound on a card's time is worked out.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  gpt2meg bench train
  gpt2meg bench train --preset group --sequences 32 --json
  gpt2meg bench generate --hop 128 --threads 1
  gpt2meg bench score
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
    /// Forward passes and their losses alone, as validation and `gpt2meg score` make them.
    Score(Options),
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
    /// Add a line to this CSV file: when, what, where, and the rates.
    #[arg(long, value_name = "FILE")]
    history: Option<std::path::PathBuf>,
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
        self.sequences.unwrap_or(if device.is_gpu() { 306 } else { 64 })
    }
}

/// A card to work out bounds for.
#[cfg(feature = "emulated")]
#[derive(clap::ValueEnum, Debug, Clone, Copy)]
enum CardChoice {
    /// NVIDIA H100 SXM.
    H100,
    /// NVIDIA H200 SXM.
    H200,
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
}

/// What was measured or counted: facts for programs, lines and tables for people.
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
        let (What::Train(options) | What::Score(options) | What::Kernels(options) | What::Generate { options, .. }) =
            &self.what;
        options
    }

    /// Runs the command.
    pub fn run(self, globals: &Globals) -> Result<Exit> {
        if let Some(path) = &self.options().html {
            storage::atomic::refuse_target(path, globals.force)?;
        }
        if let Some(path) = &self.options().history {
            history::check(path)?;
        }
        let (work, outcome) = match globals.device {
            #[cfg(feature = "emulated")]
            device::DeviceChoice::Emulated => ("counts", self.counted(globals)?),
            _ => self.measured(globals)?,
        };
        if let Some(signal) = interrupt::requested() {
            return Ok(Exit::Signal(signal));
        }
        if let Some(path) = &self.options().html {
            let page = page::page("gpt2meg bench", &outcome.lines, &outcome.tables);
            storage::atomic::write(path, globals.force, |file| file.write_at(0, page.as_bytes()))?;
        }
        if globals.json {
            say_json(serde_json::to_string_pretty(&outcome.facts).expect("JSON of plain values"))?;
        } else {
            outcome.lines.iter().try_for_each(say)?;
            outcome.tables.iter().flat_map(page::lines).try_for_each(say)?;
        }
        // Last: what was measured is said, whatever becomes of the history.
        if let Some(path) = &self.options().history {
            let threads = globals.threads.unwrap_or_else(cpu::default_threads);
            history::append(path, work, threads, &outcome.facts)?;
        }
        Ok(Exit::Done)
    }

    fn measured(&self, globals: &Globals) -> Result<(&'static str, Outcome)> {
        let measured = match &self.what {
            What::Train(options) => ("train", train(options, globals)?),
            What::Score(options) => ("score", score(options, globals)?),
            What::Generate { options, hop } => ("generate", generate(options, *hop, globals)?),
            What::Kernels(options) => ("kernels", kernels(options, globals)?),
        };
        Ok(measured)
    }

    /// The emulator's seconds say nothing; its counts do.
    #[cfg(feature = "emulated")]
    fn counted(&self, globals: &Globals) -> Result<Outcome> {
        let options = self.options();
        ensure!(options.history.is_none(), Kind::Usage, "--history is of measured times: the emulator has none");
        let (config, card) = (options.config()?, options.card());
        let n = options.sequences.unwrap_or(306);
        let shape = format!("d_model {}, context {}", config.d_model, config.n_ctx);
        let (counts, what) = match &self.what {
            What::Generate { hop, .. } => {
                check_hop(*hop, &config)?;
                let counts = count::generation(&config, n, *hop, card, globals.threads)?;
                (counts, format!("Generation, {shape}, hop {hop}"))
            }
            What::Score(_) => {
                return Err(Error::new(Kind::Usage, "a pass without gradients is not counted by itself")
                    .hint("`gpt2meg bench kernels --device emulated` counts its stages, among those of a whole step"));
            }
            _ => (count::step(&config, n, card, globals.threads)?, format!("A training step, {shape}")),
        };
        // Of a whole step the sum is enough.
        let tables = if matches!(self.what, What::Train(_)) { Vec::new() } else { vec![table::table(&counts)] };
        let lines = [vec![what], table::summary(&counts)].concat();
        Ok(Outcome { facts: serde_json::to_value(counts).expect("JSON of plain values"), lines, tables })
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

/// How much of what a card could do was reached, by the least seconds that something could take on it.
fn reached(least: Option<f64>, took: f64, card: Option<&Card>) -> Option<String> {
    let (least, card) = (least?, card?);
    Some(format!("  reached     {}: {} needs at least {:.3} ms", percent(least / took), card.name, least * 1e3))
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
    let card = Card::named(&name);
    let kernels = card.map(|card| measure::kernels(&mut step, 1, Some(card))).transpose()?.flatten();
    let least = kernels.and_then(|kernels| measure::least_seconds(&kernels, &config, |_| true));
    lines.extend(reached(least, seconds.median, card));
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

fn score(options: &Options, globals: &Globals) -> Result<Outcome> {
    let config = options.config()?;
    let device = globals.open_device()?;
    let name = device.name();
    let peak = register_rate(device.as_ref(), globals);
    let n = options.n_sequence(device.as_ref());
    let mut step = Step::new(device, &config, n)?;
    let seconds = measure::repeat(options.repeats, || step.losses().and_then(|()| step.device.sync()))?;
    let tokens = step.n_token() as f64 / seconds.median;
    let flop = tokens * least::training_flop(&config) / 3.0;
    let lines = vec![
        format!("{name}: {} sequences of {} timesteps", step.n_sequence(), config.n_ctx),
        format!("  pass        {}", milliseconds(&seconds)),
        format!("  rate        {tokens:9.0} timesteps of a channel a second"),
        format!("  arithmetic  {}", arithmetic(flop, peak)),
    ];
    let facts = json!({
        "device": name,
        "model": config,
        "sequences": step.n_sequence(),
        "seconds": seconds,
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
    lines.extend(reached(least, seconds.median, card));
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
    let (name, is_gpu) = (device.name(), device.is_gpu());
    let peak = register_rate(device.as_ref(), globals);
    let n = options.n_sequence(device.as_ref());
    let mut step = Step::new(device, &config, n)?;
    let places = measure::places(&mut step, config.n_layer, options.repeats)?;
    let whole: f64 = places.iter().map(|(place, seconds)| place.times as f64 * seconds.median).sum();

    let launched = measure::kernels(&mut step, options.repeats, Card::named(&name))?;
    let (mut facts, mut rows) = (Vec::new(), Vec::new());
    for (place, seconds) in &places {
        let flop = least::stage_flop(place.stage, &config, place.rows, step.n_sequence()) / seconds.median;
        let of_place = launched.as_ref();
        let least = of_place.and_then(|kernels| measure::least_seconds(kernels, &config, |of| of == place));
        let least = least.map(|least| least / place.times as f64);
        let (median, times) = (seconds.median, place.times as f64);
        rows.push(vec![
            place.stage.name().to_owned(),
            place.rows.to_string(),
            place.times.to_string(),
            format!("{:.1}", median * 1e6),
            percent(times * median / whole),
            or_dash(least, |least| format!("{:.1}", least * 1e6)),
            or_dash(least, |least| percent(least / median)),
            if flop > 0.0 { arithmetic(flop, peak) } else { String::new() },
        ]);
        facts.push(json!({ "place": place, "seconds": seconds, "least_seconds": least, "flop_per_second": flop }));
    }
    let numbers = ["rows", "times", "µs", "share", "least µs", "of least"].map(Numbers);
    let columns = [&[Words("stage")], numbers.as_slice(), &[Words("arithmetic")]].concat();
    // A processor's call is the stage and nothing else.
    let note = if is_gpu { STAGES_NOTE.to_owned() } else { String::new() };
    let stages = Table { columns, rows, note, ..Table::default() };
    let tokens = step.n_token() as f64 / whole;
    let lines = vec![
        format!("{name}: {} sequences of {} timesteps", step.n_sequence(), config.n_ctx),
        format!("  sum {:.3} ms: {tokens:.0} timesteps of a channel a second", whole * 1e3),
    ];
    let tables = [stages].into_iter().chain(launched.as_ref().map(|kernels| table_of(kernels))).collect();
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

/// What a stage's time on a GPU holds beside its kernels.
const STAGES_NOTE: &str = "Each stage is called and waited for by itself: its time, and so their sum, holds the launch and the waking up. \
     `gpt2meg bench train` has the whole step.";

fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

fn or_dash(value: Option<f64>, text: impl Fn(f64) -> String) -> String {
    value.map_or_else(|| "–".to_owned(), text)
}

/// Kernels of a whole step, working copies made anew included, which no stage's time has.
fn table_of(kernels: &[measure::Kernel]) -> Table {
    let all: f64 = kernels.iter().map(|kernel| kernel.seconds).sum();
    let row = |kernel: &measure::Kernel| {
        let least = kernel.least_seconds;
        vec![
            kernel.place.stage.name().to_owned(),
            kernel.place.rows.to_string(),
            kernel.place.times.to_string(),
            kernel.kernel.to_owned(),
            kernel.launches.to_string(),
            format!("{:.1}", kernel.seconds * 1e6),
            percent(kernel.seconds / all),
            or_dash(least, |least| format!("{:.1}", least * 1e6)),
            or_dash(least, |least| percent(least / kernel.seconds)),
        ]
    };
    let numbers = ["launches", "µs", "share", "least µs", "of least"].map(Numbers);
    let columns = [Words("stage"), Numbers("rows"), Numbers("times"), Words("kernel")];
    Table {
        columns: [columns.as_slice(), &numbers].concat(),
        rows: kernels.iter().map(row).collect(),
        bars: None,
        note: "Launch by launch, from event to event: of short kernels that is the launch more than the kernel. Least: by the bytes, \
               tensor operations and special functions of the formulas and the card's rates as assumed; no instruction is \
               counted."
            .to_owned(),
    }
}
