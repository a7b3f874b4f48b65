//! What the kernels of a step or of generation cost, counted by the emulator: counts against the least possible, and the bound
//! that they put on a card's time. No second here was measured.

use super::card::Card;
use super::least;
use super::measure::Generation;
use super::stage::Stage;
use super::step::Step;
use super::work::{Times, Work};
use crate::device::cuda::emulated;
use crate::device::cuda::kernel::{SOURCES, Source};
use crate::device::cuda::nvrtc::Code;
use crate::device::cuda::{self, Shape};
use crate::error::{Error, Kind, Result};
use crate::model::config::ModelConfig;
use ptx_emulator::count::{Class, Counters};
use ptx_emulator::machine::LaunchReport;
use ptx_emulator::target::Target;
use ptx_emulator::toolkit::{Resources, Toolkit};
use serde::Serialize;
use std::collections::BTreeMap;

/// The launches of one kernel at one place.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// The stage that launches it, and the timesteps of a window whose output that needs.
    pub stage: &'static str,
    /// See `stage`.
    pub rows: usize,
    /// Places like this one in the whole.
    pub times: usize,
    /// Name of the kernel.
    pub kernel: String,
    /// Launches, of one such place.
    pub launches: usize,
    /// Blocks of all launches together.
    pub blocks: u64,
    /// Threads and bytes of shared memory of a block.
    pub block: (u32, u32),
    /// What was counted, of one such place.
    pub work: Work,
    /// Bytes moved between the multiprocessors and the L2 cache.
    pub cache_bytes: f64,
    /// Passes over the banks of shared memory if there were no conflicts.
    pub ideal_wavefronts: f64,
    /// The least possible, where it is known.
    pub least: Option<Work>,
    /// Registers of a thread and bytes of them spilled, by the assembler.
    pub registers: Option<(u32, u32)>,
    /// Blocks that a multiprocessor holds.
    pub resident: Option<u32>,
    /// Seconds that each resource would need for all such places.
    #[serde(rename = "seconds")]
    pub times_of_resources: Times,
}

impl Row {
    /// With its work `scale` times as much, for so many places on a card.
    fn scaled(mut self, scale: f64, times: usize, card: &Card) -> Self {
        self.work = self.work * scale;
        self.cache_bytes *= scale;
        self.ideal_wavefronts *= scale;
        self.times = times;
        self.times_of_resources = (self.work * times as f64).times(card);
        self
    }
}

/// Counts of a step, or of a window of generation.
#[derive(Debug, Clone, Serialize)]
pub struct Counts {
    /// Name of the card.
    pub card: &'static str,
    /// Sequences.
    pub n_sequence: usize,
    /// Kernels, in the order in which they run.
    pub rows: Vec<Row>,
    /// Seconds of all kernels back to back, each as fast as its slowest resource.
    pub bound_seconds: f64,
    /// Timesteps of a channel a second at that: processed ones of training, new ones of generation.
    pub bound_tokens_per_second: f64,
}

impl Counts {
    fn new(card: &Card, n_sequence: usize, rows: Vec<Row>, n_token: usize) -> Self {
        let bound_seconds = rows.iter().map(|row| row.times_of_resources.binding().1).sum::<f64>();
        let bound_tokens_per_second = n_token as f64 / bound_seconds;
        Self { card: card.name, n_sequence, rows, bound_seconds, bound_tokens_per_second }
    }
}

/// Counts a step of `n_sequence` sequences as kernels specialised for `card` do it.
pub fn step(config: &ModelConfig, n_sequence: usize, card: &Card, threads: Option<usize>) -> Result<Counts> {
    let (device, reports) = emulated::open_counted(card.target()?, threads)?;
    // All layers but the last are alike, so two are enough to count.
    let short = ModelConfig { n_layer: config.n_layer.min(2), ..config.clone() };
    let mut step = Step::new(Box::new(device), &short, n_sequence)?;
    let slots = step.device.grad_slots();
    let mut assembler = Assembler::new(config, card);
    let mut rows = Vec::new();
    for place in step.places(config.n_layer) {
        step.device.sync()?;
        reports.take();
        step.run_place(&place)?;
        step.device.sync()?;
        let kernels = by_kernel(reports.take());
        let launched = |kernel: &str| kernels.iter().any(|(name, _)| name == kernel);
        let mut least: BTreeMap<_, _> =
            least::stage(place.stage, &short, place.rows, n_sequence, slots, launched).into_iter().collect();
        // The update's work grows with the parameters.
        let scale = if place.stage == Stage::Update { parameters(config) / parameters(&short) } else { 1.0 };
        for (kernel, launches) in kernels {
            let mut row = row(kernel, &launches, &mut assembler)?;
            row.least = least.remove(row.kernel.as_str()).map(|work| work * scale);
            (row.stage, row.rows) = (place.stage.name(), place.rows);
            rows.push(row.scaled(scale, place.times, card));
        }
        least::all_launched(place.stage, least.keys())?;
    }
    Ok(Counts::new(card, n_sequence, rows, step.n_token()))
}

/// Counts a window of generation: the prompt is read, `hop` timesteps are drawn.
pub fn generation(
    config: &ModelConfig,
    n_sequence: usize,
    hop: usize,
    card: &Card,
    threads: Option<usize>,
) -> Result<Counts> {
    let mut assembler = Assembler::new(config, card);
    let mut of_layers = |n_layer| {
        let (device, reports) = emulated::open_counted(card.target()?, threads)?;
        let short = ModelConfig { n_layer, ..config.clone() };
        let mut generation = Generation::new(Box::new(device), &short, n_sequence)?;
        reports.take();
        generation.window(hop)?;
        generation.device.sync()?;
        let rows =
            by_kernel(reports.take()).into_iter().map(|(kernel, launches)| row(kernel, &launches, &mut assembler));
        rows.collect::<Result<Vec<Row>>>()
    };
    // Every layer costs what the second one does.
    let (mut rows, two) = (of_layers(1)?, of_layers(2)?);
    for row in &mut rows {
        if let Some(two) = two.iter().find(|two| two.kernel == row.kernel) {
            let more = (config.n_layer - 1) as f64;
            row.work += (two.work - row.work) * more;
            row.cache_bytes += (two.cache_bytes - row.cache_bytes) * more;
            row.ideal_wavefronts += (two.ideal_wavefronts - row.ideal_wavefronts) * more;
        }
        (row.stage, row.rows) = ("rollout", hop);
        row.least = (row.kernel == "decode").then(|| least::decode(config, n_sequence, hop));
    }
    let rows = rows.into_iter().map(|row| row.scaled(1.0, 1, card)).collect();
    Ok(Counts::new(card, n_sequence, rows, n_sequence * hop))
}

fn parameters(config: &ModelConfig) -> f64 {
    crate::model::layout::ParamLayout::new(config).len() as f64
}

/// Launches by kernel, in the order of their first ones.
fn by_kernel(reports: Vec<LaunchReport>) -> Vec<(String, Vec<LaunchReport>)> {
    let mut kernels: Vec<(String, Vec<LaunchReport>)> = Vec::new();
    for report in reports {
        match kernels.iter_mut().find(|(name, _)| *name == report.kernel) {
            Some((_, launches)) => launches.push(report),
            None => kernels.push((report.kernel.clone(), vec![report])),
        }
    }
    kernels
}

/// The emulator's counts as work. Moves and address conversions are left out: an assembler drops most of them.
pub fn work(counters: &Counters) -> Work {
    let moves = counters.classes.get(&Class::Move).map_or(0, |issued| issued.warp);
    let shared = [&counters.shared_loads, &counters.shared_stores, &counters.shared_atomics];
    Work {
        bytes: (counters.distinct_bytes_read + counters.distinct_bytes_written) as f64,
        tensor_flop: counters.tensor_flop as f64,
        special: counters.special_functions as f64,
        instructions: (counters.warp_instructions - moves) as f64,
        wavefronts: shared.iter().map(|shared| shared.wavefronts as f64).sum(),
    }
}

/// The launches of one kernel at one place, which the caller names.
fn row(kernel: String, launches: &[LaunchReport], assembler: &mut Assembler) -> Result<Row> {
    let mut sum = Work::default();
    let (mut cache_bytes, mut ideal_wavefronts, mut blocks) = (0.0, 0.0, 0);
    for launch in launches {
        let Some(counters) = &launch.counters else {
            return Err(Error::new(Kind::Internal, format!("{kernel} was not counted")));
        };
        sum += work(counters);
        let global = [counters.global_loads, counters.global_stores, counters.global_atomics, counters.async_copies];
        cache_bytes += global.iter().map(|global| 32.0 * global.sectors as f64).sum::<f64>();
        let shared = [counters.shared_loads, counters.shared_stores, counters.shared_atomics];
        ideal_wavefronts += shared.iter().map(|shared| shared.ideal_wavefronts as f64).sum::<f64>();
        blocks += launch.grid.iter().map(|&n| u64::from(n)).product::<u64>();
    }
    let threads = launches[0].block.iter().product();
    let dynamic = launches.iter().map(|launch| launch.dynamic_shared).max().unwrap_or(0);
    let resources = assembler.resources(&kernel)?;
    let shared_bytes = dynamic + resources.map_or(0, |needs| needs.shared_bytes);
    Ok(Row {
        stage: "",
        rows: 0,
        times: 1,
        launches: launches.len(),
        blocks,
        block: (threads, shared_bytes),
        work: sum,
        cache_bytes,
        ideal_wavefronts,
        least: None,
        registers: resources.map(|needs| (needs.registers, needs.spill_store_bytes)),
        resident: resources.map(|needs| assembler.card.resident_blocks(threads, needs.registers, shared_bytes)),
        times_of_resources: Times::default(),
        kernel,
    })
}

impl Card {
    /// What the emulator poses as.
    pub fn target(&self) -> Result<Target> {
        let number = self.architecture.trim_end_matches('a');
        Target::ALL
            .into_iter()
            .find(|target| target.number().to_string() == number)
            .ok_or_else(|| Error::new(Kind::Internal, format!("the emulator knows no {}", self.name)))
    }
}

/// What the assembler makes of kernels, file by file, where there is one.
struct Assembler {
    toolkit: Option<Toolkit>,
    shape: Shape,
    card: Card,
    known: BTreeMap<String, Resources>,
}

impl Assembler {
    fn new(config: &ModelConfig, card: &Card) -> Self {
        let toolkit = Toolkit::find().ok().filter(|toolkit| toolkit.ptxas().is_some());
        let shape =
            Shape { d_model: config.d_model, n_head: config.n_head, n_time: config.n_ctx, n_level: config.n_level };
        Self { toolkit, shape, card: *card, known: BTreeMap::new() }
    }

    fn resources(&mut self, kernel: &str) -> Result<Option<Resources>> {
        let Some(toolkit) = &self.toolkit else { return Ok(None) };
        if !self.known.contains_key(kernel) {
            // Other functions may have a kernel's name.
            let name = format!(" {kernel}(");
            let defines = |source: &Source| {
                source
                    .text
                    .split("\nKERNEL")
                    .skip(1)
                    .any(|rest| rest.split('{').next().is_some_and(|s| s.contains(&name)))
            };
            for source in SOURCES.iter().copied().filter(|source| defines(source)) {
                let Card { architecture, block_shared_bytes, .. } = self.card;
                let ptx = cuda::compile(source, &self.shape, Code::Ptx, architecture, block_shared_bytes)?;
                let ptx = String::from_utf8_lossy(&ptx);
                let assembly = toolkit.assemble(&ptx, &format!("sm_{architecture}"));
                let assembly = assembly.map_err(|error| Error::new(Kind::Internal, error.to_string()))?;
                self.known.extend(assembly.kernels);
            }
        }
        Ok(self.known.get(kernel).copied())
    }
}
