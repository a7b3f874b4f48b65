//! `gpt2meg evaluate`.

mod more;

use super::{Exit, Globals, Overwrite, note, progress, say, say_json};
use crate::device::Sampler;
use crate::ensure;
use crate::error::{Error, Kind, Result};
use crate::evaluate::measure::Source;
use crate::evaluate::next_step;
use crate::evaluate::report::{self, Inputs, Report};
use crate::generate::provenance::Provenance;
use crate::interrupt;
use crate::recording::marks;
use crate::recording::npy::{self, Layout, NpyOptions};
use crate::recording::open::{self, OpenOptions};
use crate::recording::pick::{self, Pick, Picks};
use crate::recording::{Event, Recording, stem_and_extension};
use crate::tokens::dataset::Dataset;
use crate::tokens::scheme::Scheme;
use crate::tokens::shard::{Shard, Split};
use clap::Args;
use std::path::{Path, PathBuf};

/// Compare generated recordings with real ones: spectra, amplitudes, autocorrelation, each beside what the real
/// recording differs by from itself.
///
/// Writes a folder with report.html (one self-contained page), report.json (every number) and the curves as .npy.
///
/// The fairest real recording is the tokenized data that the model was trained on: it was filtered, resampled and
/// quantised in the same way.
///
/// Example: gpt2meg evaluate --real data --generated p1_raw.fif p08_raw.fif --label "p = 1" "p = 0.8"
/// --scores run/scores.json --out report
///
/// Arrays of your own: gpt2meg evaluate --real real.npy --generated mine.npy --layout time-first --rate 100 --out report
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub struct Evaluate {
    /// The real recording: a folder of tokenized data, a FIF or an .npy file.
    #[arg(long, value_name = "DATA")]
    real: PathBuf,
    /// Generated recordings: FIF or .npy files.
    #[arg(long, value_name = "FILE", num_args = 1.., required = true)]
    generated: Vec<PathBuf>,
    /// Names of the generated recordings in the report, in the same order [default: the names of the files].
    #[arg(long, value_name = "NAME", num_args = 1..)]
    label: Vec<String>,
    /// Scores of models, written by `gpt2meg score`.
    #[arg(long, value_name = "FILE", num_args = 1..)]
    scores: Vec<PathBuf>,
    /// The parts of tokenized data that are compared with.
    #[arg(long, value_enum, default_value_t = Part::All)]
    part: Part,
    /// The recording of tokenized data that is compared with; must be given where there are
    /// several.
    #[arg(long, value_name = "NAME")]
    recording: Option<String>,
    /// Which axis of .npy files is time, where no .json file beside them says so.
    #[arg(long, value_enum)]
    layout: Option<Layout>,
    /// Sampling rate of .npy files in Hz, where no .json file beside them says so.
    #[arg(long, value_name = "HZ")]
    rate: Option<f64>,
    /// Nuclei for the sampler's control, which shows what drawing with them does to a known process; 1 is always shown.
    #[arg(long, value_name = "P", value_delimiter = ',', default_value = "0.9,0.8")]
    control_p: Vec<f32>,
    #[command(flatten)]
    more: more::More,
    /// The report's folder.
    #[arg(long, value_name = "REPORT")]
    out: PathBuf,
    #[command(flatten)]
    pub(super) overwrite: Overwrite,
}

/// Parts of tokenized data.
#[derive(clap::ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// Everything.
    All,
    /// What the model was trained on.
    Train,
    /// What training was stopped by.
    Validation,
    /// What neither has seen.
    Test,
}

impl Evaluate {
    /// Runs the command.
    pub fn run(self, globals: &Globals) -> Result<Exit> {
        let Some(report) = self.report(globals)? else {
            return Ok(Exit::Signal(interrupt::requested().unwrap_or_default()));
        };
        report.write(&self.out, globals.force)?;
        if globals.json {
            say_json(report.json())?;
        } else {
            say(self.out.join("report.html").display())?;
        }
        Ok(Exit::Done)
    }

    /// The comparison, not yet written; none if a signal stopped it.
    pub(super) fn report(&self, globals: &Globals) -> Result<Option<Report>> {
        report::refuse_occupied(&self.out, &self.labels()?, globals.force)?;
        report::refuse_folders(&self.out, &self.more.wanted(globals.seed)?.folders(), globals.force)?;
        let inputs = self.inputs(globals)?;
        let bar = progress::bar(inputs.work() as u64, "timesteps", globals.quiet);
        let mut step = |n: usize| {
            bar.inc(n as u64);
            match interrupt::requested() {
                Some(signal) => Err(Error::new(Kind::Internal, format!("stopped by signal {signal}"))),
                None => Ok(()),
            }
        };
        let report = Report::new(inputs, &mut step);
        bar.finish_and_clear();
        if interrupt::requested().is_some() {
            return Ok(None);
        }
        let report = report?;
        if !globals.quiet {
            note(format_args!("gpt2meg: {}", report.lengths()));
        }
        Ok(Some(report))
    }

    fn inputs(&self, globals: &Globals) -> Result<Inputs> {
        let labels = self.labels()?;
        for &top_p in &self.control_p {
            Sampler { temperature: 1.0, top_k: 0, top_p, greedy: false }.check()?;
        }
        let mut generated = Vec::new();
        // Everything but trigger lines: they have no spectrum worth comparing.
        let signals = Picks { include: vec![Pick::All], ..Picks::default() };
        for (path, label) in self.generated.iter().zip(labels) {
            generated.push(Source { label, pieces: self.open_usable(path, &signals, globals)? });
        }
        // Arrays whose channels have no names stand for the real recording's, in their order.
        let is_named: Vec<bool> = self.generated.iter().map(|path| is_named(path)).collect::<Result<_>>()?;
        let named = generated.iter().zip(&is_named).find(|(_, is_named)| **is_named).map(|(source, _)| source.info());
        let names = named.map(|info| info.channels.iter().map(|channel| channel.name.clone()).collect());
        let (real, scheme) = self.real(names.unwrap_or_default(), globals)?;
        for (source, _) in generated.iter_mut().zip(&is_named).filter(|(_, is_named)| !**is_named) {
            let (channels, info) = (&real.info().channels, source.info());
            if info.n_channel() == channels.len() && info.channels != *channels {
                if !globals.quiet {
                    let what = "names no channels: they are taken to be the real recording's, in their order";
                    note(format_args!("gpt2meg: {} {what}", info.source));
                }
                source.pieces.iter_mut().for_each(|piece| piece.info.channels.clone_from(channels));
            }
        }
        let scheme = scheme.or_else(|| {
            let made = |source: &Source| Provenance::of(source.info()).map(|made| made.tokenizer);
            generated.iter().find_map(made)
        });
        let scheme_is_known = scheme.is_some();
        if !scheme_is_known && !globals.quiet {
            note(format_args!(
                "gpt2meg: nothing says which tokenizer was used: the sampler's control takes the paper's"
            ));
        }
        let scores = self.scores.iter().map(|path| Ok((scores_name(path), next_step::read(path)?)));
        Ok(Inputs {
            real,
            generated,
            scores: scores.collect::<Result<_>>()?,
            scheme: scheme.unwrap_or(Scheme::PAPER),
            scheme_is_known,
            top_p: self.control_p.clone(),
            wanted: self.more.wanted(globals.seed)?,
            seed: globals.seed,
        })
    }

    /// The usable stretches of one recording, of any format that is read: gaps and what is marked BAD are nothing to
    /// compare with.
    fn open_usable(&self, path: &Path, picks: &Picks, globals: &Globals) -> Result<Vec<Recording>> {
        let npy = NpyOptions { layout: self.layout, sfreq: self.rate, ..NpyOptions::default() };
        let opened = open::file(path)?.open(&OpenOptions { npy, ..OpenOptions::default() })?;
        let recording = pick::pick(opened.recording, picks).map_err(|e| e.at(path))?;
        let (n_timestep, sfreq) = (recording.info.n_timestep, recording.info.sfreq);
        let kept = marks::kept(0..n_timestep, &marks::stretches(&opened.marks, 1.0, n_timestep));
        let excluded = n_timestep - kept.iter().map(ExactSizeIterator::len).sum::<usize>();
        ensure!(!kept.is_empty(), Kind::EmptyRecording, "{}: all of it is marked BAD or missing", path.display());
        if excluded > 0 && !globals.quiet {
            let seconds = excluded as f64 / sfreq;
            note(format_args!("gpt2meg: {}: {seconds:.1} s marked BAD or missing are left out", path.display()));
        }
        marks::pieces(recording, kept)
    }

    /// One label a generated recording, all different.
    fn labels(&self) -> Result<Vec<String>> {
        let stem = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            stem_and_extension(&name).0.to_owned()
        };
        let labels = if self.label.is_empty() { self.generated.iter().map(stem).collect() } else { self.label.clone() };
        let n = self.generated.len();
        if labels.len() != n {
            let what = format!("{} labels for {n} generated recordings", labels.len());
            return Err(Error::new(Kind::Usage, what).hint("Give one --label for each, in the same order, or none"));
        }
        for (index, label) in labels.iter().enumerate() {
            if labels[..index].contains(label) {
                let what = format!("two generated recordings are called {label}");
                return Err(Error::new(Kind::Usage, what).hint("Give each its own --label"));
            }
        }
        Ok(labels)
    }

    /// The real recording, and its tokenizer. Of a recording that is not tokenized, the channels called `names`, or
    /// without any those that `tokenize` takes.
    fn real(&self, names: Vec<String>, globals: &Globals) -> Result<(Source, Option<Scheme>)> {
        let tokenized = self.real.is_dir() || self.real.extension().is_some_and(|e| e == "safetensors");
        if !tokenized {
            let picks = Picks { include: names.into_iter().map(Pick::Name).collect(), ..Picks::default() };
            return Ok((Source { label: "real".into(), pieces: self.open_usable(&self.real, &picks, globals)? }, None));
        }
        let mut shards = Dataset::open(&self.real)?.shards;
        let wanted = |split: Split| match self.part {
            Part::All => true,
            Part::Train => split == Split::Train,
            Part::Validation => split == Split::Validation,
            Part::Test => split == Split::Test,
        };
        let named = |name: &str| self.recording.as_deref().is_none_or(|wanted| wanted == name);
        shards.retain(|shard| wanted(shard.meta.split) && named(&shard.meta.recording));
        if shards.is_empty() {
            let what = "the data has no such recording or part";
            return Err(Error::new(Kind::NotFound, what).at(&self.real).hint("gpt2meg info lists what it has"));
        }
        shards.sort_by(|a, b| {
            let key = |s: &Shard| (s.meta.recording.clone(), s.meta.info.first_timestep);
            key(a).cmp(&key(b))
        });
        // Halves of different recordings would make the ceiling a distance between subjects.
        let other = shards.iter().find(|shard| shard.meta.recording != shards[0].meta.recording);
        if let Some(other) = other {
            let what =
                format!("the data has more than one recording: {}, {}", shards[0].meta.recording, other.meta.recording);
            let hint = "Name the one that was generated from with --recording; gpt2meg info lists what the data has";
            return Err(Error::new(Kind::Usage, what).at(&self.real).hint(hint));
        }
        let scheme = shards[0].meta.scheme;
        let mut pieces = Vec::new();
        for mut shard in shards {
            shard.meta.info.events = onsets(&shard)?;
            // Gaps and stretches marked BAD are nothing to be compared with.
            for mut piece in shard.into_usable()? {
                piece.info.source = self.real.display().to_string();
                pieces.push(piece);
            }
        }
        ensure!(!pieces.is_empty(), Kind::EmptyRecording, "{}: all of it is excluded (BAD)", self.real.display());
        Ok((Source { label: "real".into(), pieces }, Some(scheme)))
    }
}

/// An event wherever a condition begins, under the condition's name: as generated recordings have them.
fn onsets(shard: &Shard) -> Result<Vec<Event>> {
    let mut conditions = vec![0; shard.n_timestep()];
    shard.conditions(0, &mut conditions)?;
    let mut events = Vec::new();
    let mut onset = 0;
    for held in conditions.chunk_by(|a, b| a == b) {
        // What is on at the very beginning began in another part.
        if let Some(name) = usize::from(held[0]).checked_sub(1).filter(|_| onset > 0) {
            events.push(Event { onset, duration: held.len(), label: shard.meta.conditions[name].clone() });
        }
        onset += held.len();
    }
    Ok(events)
}

/// Whether the file names its channels: an array does so by our description beside it.
fn is_named(path: &Path) -> Result<bool> {
    Ok(open::file(path)?.format != open::Format::Npy || npy::described(path)?.is_some())
}

/// A scores file by the folder it lies in, which is the run, or by its own name.
fn scores_name(path: &Path) -> String {
    let folder = path.parent().and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    match folder {
        Some(folder) if stem == "scores" => folder,
        _ => stem,
    }
}
