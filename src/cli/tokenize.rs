//! `gpt2meg tokenize`.

use super::{Exit, Globals, Overwrite, note, progress, say, say_json};
use crate::ensure;
use crate::error::{Error, Kind, Result};
use crate::recording::events::{ClassMap, HOLD};
use crate::recording::filter::Band;
use crate::recording::npy::{Layout, NpyOptions};
use crate::recording::open::{EventsFrom, OpenOptions, Opened, Source, list};
use crate::recording::pick::Picks;
use crate::recording::prepare::PrepareOptions;
use crate::recording::resample::AntiAlias;
use crate::recording::together;
use crate::tokens::publish::{Batch, Settings};
use crate::tokens::scheme::{Companding, Scaling, Scheme};
use clap::{Args, ValueEnum};
use std::path::{Path, PathBuf};

/// Turn recordings into tokens, and say what that costs.
///
/// Filters, resamples and quantises recordings. Each becomes three files in DATA, one for training, one for validation
/// and one for testing, which numpy's and PyTorch's safetensors open. The scales are fitted on the training part only.
/// Stretches that annotations mark BAD, and gaps in the acquisition, stay in the files but are excluded: no window of
/// training or scoring touches them, and no scale or statistic is computed from them.
/// What quantising costs is printed, and written to DATA/tokenize.json for every channel.
///
/// Examples:
///
///   gpt2meg tokenize sub-01_task-faces_meg.fif --out data
///
///   gpt2meg tokenize ds000117 --out data --picks grad --classes 5=face,6=face,17=scrambled
///
///   gpt2meg tokenize signal.npy --rate 250 --layout time-first --out data
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub struct Tokenize {
    /// FIF or npy files, BIDS folders, or folders of recordings.
    #[arg(required = true, value_name = "RECORDING")]
    recordings: Vec<PathBuf>,
    /// Folder for the tokens; made when it is not there.
    #[arg(long, value_name = "DATA")]
    out: PathBuf,
    /// Print what it would cost, write nothing. (The prepared signal, four bytes a sample, goes to a nameless file that
    /// vanishes, in DATA or the nearest folder above it that exists.)
    #[arg(long)]
    dry_run: bool,
    /// Refuse recordings of which a channel loses more than this (relative root mean square; 0.05 is 5 %).
    #[arg(long, default_value_t = 0.05, value_name = "FRACTION")]
    max_error: f64,
    /// Keep the prepared signal beside the tokens (four times their size): what a linear autoregression is then fitted to.
    #[arg(long)]
    keep_signal: bool,
    #[command(flatten)]
    signal: SignalArgs,
    #[command(flatten)]
    events: EventArgs,
    #[command(flatten)]
    scheme: SchemeArgs,
    #[command(flatten)]
    pub(super) overwrite: Overwrite,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Signal")]
struct SignalArgs {
    /// Channels: mag, grad, meg, eeg, all, or names [default: MEG where there is any, else EEG].
    #[arg(long, value_delimiter = ',', value_name = "CHANNELS")]
    picks: Vec<String>,
    /// Names of channels to leave out.
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    exclude: Vec<String>,
    /// Leave out the channels that are marked bad, in any of the recordings. They are kept otherwise.
    #[arg(long)]
    drop_bads: bool,
    /// Pass band in Hz, as 0.5,45; 0,45 has no high-pass, none does not filter [default: 0.5,45; authors: 0.5,49.9].
    #[arg(long, value_name = "LOW,HIGH", value_parser = parse_band)]
    band: Option<PassBand>,
    /// Sampling rate of the tokens in Hz.
    #[arg(long, default_value_t = 100.0, value_name = "HZ")]
    sfreq: f64,
    /// Which axis of .npy files is time.
    #[arg(long, value_enum)]
    layout: Option<Layout>,
    /// Sampling rate of .npy files in Hz.
    #[arg(long, value_name = "HZ")]
    rate: Option<f64>,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Events")]
struct EventArgs {
    /// Where events come from.
    #[arg(long, value_enum, default_value_t = EventsFrom::Auto)]
    events_from: EventsFrom,
    /// A table of events (.tsv as in BIDS, .npy as MNE's) instead of the recording's own.
    #[arg(long, value_name = "FILE", conflicts_with = "events_from")]
    events: Option<PathBuf>,
    /// The trigger channel, where it has an unusual name.
    #[arg(long, value_name = "NAME")]
    stim_channel: Option<String>,
    /// Conditions, as label=name,… or a file of such lines; other labels are left out [default: every label is one].
    #[arg(long, value_name = "CLASSES")]
    classes: Option<String>,
    /// How long a condition lasts from its onset, in seconds.
    #[arg(long, default_value_t = HOLD, value_name = "SECONDS")]
    hold: f64,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Tokenizer")]
struct SchemeArgs {
    /// The paper's tokenizer (mean and standard deviation, clip 10) or that of the authors' code (robust, clip 4).
    #[arg(long, value_enum, default_value_t = Preset::Paper)]
    preset: Preset,
    /// How channels are centred and scaled [default: the preset's].
    #[arg(long, value_enum)]
    scaling: Option<ScalingChoice>,
    /// Clip at ± this many scaled units [default: the preset's].
    #[arg(long, value_name = "UNITS")]
    clip: Option<f64>,
    /// Spacing of the levels.
    #[arg(long, value_enum, default_value_t = CompandingChoice::MuLaw)]
    companding: CompandingChoice,
    /// Number of levels, 2 to 256; µ is one less, as in the paper.
    #[arg(long, default_value_t = 256, value_name = "N")]
    levels: usize,
}

#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
enum Preset {
    Paper,
    Authors,
}

#[derive(ValueEnum, Debug, Clone, Copy)]
enum ScalingChoice {
    /// Mean and standard deviation.
    MeanStd,
    /// Median and inter-quartile range, then the largest value.
    Robust,
}

#[derive(ValueEnum, Debug, Clone, Copy)]
enum CompandingChoice {
    /// Finer near zero: µ-law.
    MuLaw,
    /// All the same.
    Linear,
}

/// What `--band` asks for. (A type of its own: clap would take an option in an option for its own business.)
#[derive(Debug, Clone, Copy)]
struct PassBand(Option<Band>);

/// Nothing for "none", else the two edges.
fn parse_band(text: &str) -> std::result::Result<PassBand, String> {
    if text == "none" {
        return Ok(PassBand(None));
    }
    let edges: Option<Vec<f64>> = text.split(',').map(|edge| edge.trim().parse().ok()).collect();
    match edges.as_deref() {
        Some(&[low, high]) => Ok(PassBand(Some(Band { high_pass: low, low_pass: Some(high), ..Band::default() }))),
        _ => Err("write two numbers as in 0.5,45, or none".into()),
    }
}

/// A recording waiting for its turn.
struct Pending {
    name: String,
    opened: Opened,
}

impl Tokenize {
    /// Runs the command.
    pub fn run(self, globals: &Globals) -> Result<Exit> {
        let scheme = self.scheme.scheme();
        scheme.check()?;
        for (option, value) in [("--max-error", self.max_error), ("--hold", self.events.hold)] {
            ensure!(value.is_finite() && value >= 0.0, Kind::Usage, "{option} {value} makes no sense");
        }
        let prepare = self.prepare_options();
        let mut pending = self.open_all(globals)?;
        self.agree(&mut pending, &prepare.picks, globals)?;
        let (classes, hold) = (self.classes(&pending)?, self.events.hold);
        let settings = Settings { prepare, scheme, classes, hold, keep_signal: self.keep_signal };
        let names: Vec<&str> = pending.iter().map(|pending| pending.name.as_str()).collect();
        let mut batch = Batch::begin(&settings, &self.out, &names, self.dry_run, globals.force)?;
        if !globals.quiet {
            batch.notes.iter().for_each(note);
        }
        // A report that cannot be printed is told when the tokens have their names.
        let mut printed = Ok(());
        for Pending { name, opened } in pending {
            let source = opened.recording.info.source.clone();
            let bar = progress::bar(0, "timesteps", globals.quiet);
            bar.set_message(name.clone());
            let report = batch.add(&name, opened, |done, n_timestep| {
                bar.set_length(n_timestep as u64);
                bar.set_position(done as u64);
            })?;
            bar.finish_and_clear();
            let Some(report) = report else {
                return Ok(Exit::Signal(crate::interrupt::requested().unwrap_or_default()));
            };
            report.check(self.max_error).map_err(|e| {
                // The table says which channels and bands it is.
                note(&report);
                e.at(&source)
            })?;
            if !globals.json && !globals.quiet {
                printed = printed.and_then(|()| say(report));
            }
        }
        let summary = batch.publish()?;
        printed?;
        if globals.json {
            let text = serde_json::to_string_pretty(&summary);
            say_json(text.map_err(|e| Error::new(Kind::Internal, e.to_string()))?)?;
        }
        Ok(Exit::Done)
    }

    /// Opens every recording, so that all problems with files and events come before hours of work.
    fn open_all(&self, globals: &Globals) -> Result<Vec<Pending>> {
        let mut sources: Vec<Source> = Vec::new();
        for path in &self.recordings {
            let listing = list(path)?;
            for skipped in listing.skipped.iter().filter(|_| !globals.quiet) {
                note(format_args!("passed over {}: {}", skipped.path.display(), skipped.why));
            }
            sources.extend(listing.found);
        }
        let names = unique_names(&sources)?;
        let npy = NpyOptions { layout: self.signal.layout, sfreq: self.signal.rate, kind: None, names: None };
        let (events_from, events) = (self.events.events_from, self.events.events.clone());
        let options = OpenOptions { npy, events_from, events, stim_channel: self.events.stim_channel.clone() };
        let open = |(source, name): (&Source, String)| {
            let opened = source.open(&options).map_err(|e| e.at(&source.path))?;
            if !globals.quiet {
                let n_event = opened.recording.info.events.len();
                let from = if n_event == 0 { String::new() } else { format!(" from {}", opened.events_from) };
                note(format_args!("{name}: {n_event} events{from}"));
                opened.notes.iter().for_each(|text| note(format_args!("{name}: {text}")));
            }
            Ok(Pending { name, opened })
        };
        sources.iter().zip(names).map(open).collect()
    }

    /// Makes sure that all recordings have the same channels to give, so that the last does not fail after hours.
    fn agree(&self, pending: &mut [Pending], picks: &Picks, globals: &Globals) -> Result<()> {
        together::check_excluded(pending.iter().map(|pending| &pending.opened), picks)?;
        if picks.drop_bads {
            let bads = together::unite_bads(pending.iter_mut().map(|pending| &mut pending.opened), picks)?;
            if !bads.is_empty() && !globals.quiet {
                let (n, names) = (bads.len(), bads.into_iter().collect::<Vec<_>>().join(", "));
                let of = if pending.len() > 1 { ", of every recording" } else { "" };
                note(format_args!("{n} channels marked bad are left out{of}: {names}"));
            }
        }
        together::same_channels(pending.iter().map(|pending| &pending.opened), picks)?;
        together::refuse_flat(pending.iter_mut().map(|pending| &mut pending.opened), picks)
    }

    /// One class map for all recordings.
    fn classes(&self, pending: &[Pending]) -> Result<ClassMap> {
        let events = || pending.iter().flat_map(|pending| &pending.opened.recording.info.events);
        let Some(text) = &self.events.classes else { return ClassMap::of_labels(events(), &[]) };
        let classes = ClassMap::parse_or_read(text)?;
        let unused = classes.unused(events());
        ensure!(
            unused.is_empty(),
            Kind::UnknownCondition,
            "no event has the label {}, which --classes names",
            unused.join(", ")
        );
        Ok(classes)
    }

    fn prepare_options(&self) -> PrepareOptions {
        let signal = &self.signal;
        let (preset, anti_alias) = match self.scheme.preset {
            Preset::Paper => (Band::default(), AntiAlias::LowPass),
            Preset::Authors => (Band::AUTHORS, AntiAlias::PassBand),
        };
        // Infallible: what is no kind of channel is a name.
        let include = signal.picks.iter().filter_map(|pick| pick.parse().ok()).collect();
        PrepareOptions {
            picks: Picks { include, exclude: signal.exclude.clone(), drop_bads: signal.drop_bads },
            band: signal.band.map_or(Some(preset), |band| band.0),
            sfreq: Some(signal.sfreq),
            anti_alias,
        }
    }
}

impl SchemeArgs {
    fn scheme(&self) -> Scheme {
        let preset = match self.preset {
            Preset::Paper => Scheme::PAPER,
            Preset::Authors => Scheme::AUTHORS,
        };
        Scheme {
            scaling: self.scaling.map_or(preset.scaling, |choice| match choice {
                ScalingChoice::MeanStd => Scaling::MeanStd,
                ScalingChoice::Robust => Scaling::Robust,
            }),
            clip: self.clip.unwrap_or(preset.clip),
            companding: match self.companding {
                CompandingChoice::MuLaw => Companding::MuLaw { mu: self.levels.saturating_sub(1) as f64 },
                CompandingChoice::Linear => Companding::Linear,
            },
            n_level: self.levels,
        }
    }
}

/// The names of files, with that of their folder before them where two are the same.
fn unique_names(sources: &[Source]) -> Result<Vec<String>> {
    let is_unique = |name: &str| sources.iter().filter(|source| source.name == name).count() == 1;
    let name = |source: &Source| {
        let folder = source.path.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy();
        if is_unique(&source.name) { source.name.clone() } else { format!("{folder}_{}", source.name) }
    };
    let names: Vec<String> = sources.iter().map(name).collect();
    for (i, name) in names.iter().enumerate() {
        let twice = names[..i].contains(name);
        ensure!(!twice, Kind::Usage, "two of the recordings would be called {name}: rename one or leave it out");
    }
    Ok(names)
}
