//! Tokenizing recordings into a folder: all of them or none.
//!
//! Every shard is written and made durable under a temporary name. Only when the last recording is whole do they take
//! their names, one after the other, and `tokenize.json` last. A crash in between can leave shards of two tokenizations
//! side by side; each carries the checksums of its own ([`Tokenization`]), so that such a folder is refused when it is
//! opened, and `tokenize --force` mends it. `tokenize.json` is gone by then: it never describes other shards.

use super::dataset::{belong_together, shard_files};
use super::encode::Plan;
use super::report::Report;
use super::scheme::{Scales, Scheme};
use super::shard::{Shard, ShardMeta, ShardWriter, Split, Tokenization};
use crate::error::{Error, Kind, Result};
use crate::recording::events::{ClassMap, Trial, conditions};
use crate::recording::marks;
use crate::recording::open::Opened;
use crate::recording::prepare::{PrepareOptions, Prepared, prepare};
use crate::recording::split::{Parts, split};
use crate::storage::atomic::{self, AtomicFile};
use crate::storage::disk::Os;
use crate::storage::lock::FolderLock;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// What all recordings of a data set are tokenized with.
pub struct Settings {
    /// Picks, filter, resampling.
    pub prepare: PrepareOptions,
    /// The tokenizer.
    pub scheme: Scheme,
    /// Which labels are conditions.
    pub classes: ClassMap,
    /// How long a condition lasts from its onset, in seconds.
    pub hold: f64,
    /// Whether shards keep the prepared signal beside the tokens.
    pub keep_signal: bool,
}

impl Settings {
    /// A checksum of everything that two recordings of a data set must agree in. (Channels are compared by themselves.)
    fn checksum(&self) -> String {
        let prepare = &self.prepare;
        let anti_alias = format!("{:?}", prepare.anti_alias);
        let signal = self.keep_signal;
        checksum(&(prepare.band, prepare.sfreq, anti_alias, self.scheme, &self.classes, self.hold, signal))
    }
}

/// The content of `tokenize.json`.
#[derive(Debug, Serialize, Deserialize)]
pub struct Summary {
    /// Version of gpt2meg that wrote it.
    pub version: String,
    /// Conditions are numbered from 1 in this order.
    pub conditions: Vec<String>,
    /// The report on each recording.
    pub recordings: BTreeMap<String, Report>,
}

/// Shards and reports on their way into a folder; dropped before [`Batch::publish`], it leaves nothing.
pub struct Batch<'a> {
    settings: &'a Settings,
    /// Where the shards go; `None` when nothing is to be written.
    out: Option<&'a Path>,
    /// Where the prepared signal lies while it is used.
    scratch: PathBuf,
    force: bool,
    /// Whether the folder was made for this.
    made: bool,
    /// A shard that every other must fit.
    first: Option<ShardMeta>,
    /// The shards of these recordings.
    ours: Vec<PathBuf>,
    /// The other recordings of the data set, with their scales.
    others: Vec<(String, Scales)>,
    /// These recordings, as far as they are tokenized, with their scales.
    added: Vec<(String, Scales)>,
    /// What the user should hear about the folder, a line each.
    pub notes: Vec<String>,
    shards: Vec<ShardWriter>,
    summary: Summary,
}

impl<'a> Batch<'a> {
    /// Recordings called `names` will be tokenized into `out`, which is made when it is not there. Those that are there
    /// already are replaced with `force` only; others stay, and what is new must fit them. With `dry_run` nothing is
    /// written but the prepared signal, to a nameless file in the nearest folder above `out` that exists.
    pub fn begin(settings: &'a Settings, out: &'a Path, names: &[&str], dry_run: bool, force: bool) -> Result<Self> {
        let conditions = settings.classes.names.clone();
        let summary = Summary { version: env!("CARGO_PKG_VERSION").into(), conditions, recordings: BTreeMap::new() };
        let scratch = out.to_path_buf();
        let shard_paths = |name: &&str| Split::ALL.map(|part| shard_path(out, name, part));
        let mut batch = Self {
            settings,
            out: Some(out),
            scratch,
            force,
            made: false,
            first: None,
            ours: names.iter().flat_map(shard_paths).collect(),
            others: Vec::new(),
            added: Vec::new(),
            notes: Vec::new(),
            shards: Vec::new(),
            summary,
        };
        if dry_run {
            let above = out.ancestors().find(|folder| folder.is_dir()).unwrap_or(Path::new("."));
            (batch.out, batch.scratch) = (None, above.to_path_buf());
            return Ok(batch);
        }
        batch.refuse_replacing()?;
        batch.made = !out.exists();
        std::fs::create_dir_all(out).map_err(|e| Error::io(e, "make the folder", out))?;
        batch.look_around(out)?;
        // What is damaged is said now; what stands there in the end counts.
        batch.reports(out)?;
        Ok(batch)
    }

    /// Refuses to replace what is there, unless forced.
    fn refuse_replacing(&self) -> Result<()> {
        self.ours.iter().try_for_each(|path| atomic::refuse_existing(path, self.force))
    }

    /// Takes note of the other recordings in the folder, which the new ones must fit.
    fn look_around(&mut self, out: &Path) -> Result<()> {
        self.others.clear();
        let mut files = shard_files(out)?;
        files.retain(|path| !self.ours.contains(path));
        for path in &files {
            let shard = Shard::open(path)?;
            self.check_fits(&shard.meta).map_err(|e| e.at(path))?;
            if self.others.iter().all(|(name, _)| *name != shard.meta.recording) {
                self.others.push((shard.meta.recording, shard.scales));
            }
        }
        Ok(())
    }

    /// The reports that are in the folder. What is damaged is an error or, with `force`, noted and passed over.
    fn reports(&mut self, out: &Path) -> Result<BTreeMap<String, Report>> {
        let path = out.join("tokenize.json");
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
            Err(e) => return Err(Error::io(e, "read", &path)),
        };
        match serde_json::from_slice::<Summary>(&text) {
            Ok(summary) => Ok(summary.recordings),
            Err(e) if self.force => {
                let lost = "it is replaced, and reports on other recordings than these are lost (their tokens stay)";
                self.notes.push(format!("{}: not what tokenize wrote ({e}): {lost}", path.display()));
                Ok(BTreeMap::new())
            }
            Err(e) => {
                let hint = "Give --force to replace it; reports on other recordings are lost, their tokens stay";
                Err(Error::new(Kind::Corrupt, format!("not what tokenize wrote: {e}")).at(&path).hint(hint))
            }
        }
    }

    /// Prepares and tokenizes one recording; its report, or `None` when a signal asked the process to stop. `progress`
    /// hears of timesteps done, and of how many there are.
    pub fn add(
        &mut self,
        name: &str,
        opened: Opened,
        mut progress: impl FnMut(usize, usize),
    ) -> Result<Option<Report>> {
        let info = &opened.recording.info;
        let (source, old_sfreq) = (info.source.clone(), info.sfreq);
        let mut recording = prepare(opened.recording, &opened.marks, &self.settings.prepare)?;
        let n_timestep = recording.info.n_timestep;
        let Some(prepared) = Prepared::new(&mut recording, &self.scratch, |done| progress(done, n_timestep))? else {
            return Ok(None);
        };
        let excluded = marks::stretches(&opened.marks, prepared.info.sfreq / old_sfreq, n_timestep);
        let classes = &self.settings.classes;
        // A trial that begins where there is no signal is none.
        let usable = |trial: &Trial| !excluded.iter().any(|stretch| stretch.contains(&trial.onset));
        let trials: Vec<Trial> = classes.trials(&prepared.info.events).into_iter().filter(usable).collect();
        let parts = split(n_timestep, &trials, &classes.names).map_err(|e| e.at(&source))?;
        let scheme = self.settings.scheme;
        let plan = Plan { scheme, parts: &parts, excluded: &excluded, trials: &trials, conditions: &classes.names };
        let scales = plan.fit(&prepared)?;
        self.refuse_namesake(name, &scales).map_err(|e| e.at(&source))?;
        self.added.push((name.into(), scales.clone()));
        let condition = conditions(n_timestep, prepared.info.sfreq, &trials, self.settings.hold);
        let tokenization = self.tokenization(name, &source, &parts, &excluded, &condition, &scales);
        let mut writers = self.start_shards(name, &prepared, &plan, &tokenization, &scales)?;
        let report = plan.encode(name, &prepared, &scales, |channel, start, tokens| {
            writers.iter_mut().try_for_each(|(part, writer)| {
                let (from, to) = (part.start.max(start), part.end.min(start + tokens.len()));
                let piece = tokens.get(from.saturating_sub(start)..to.saturating_sub(start)).unwrap_or_default();
                if piece.is_empty() { Ok(()) } else { writer.tokens(channel, from - part.start, piece) }
            })
        })?;
        let Some(mut report) = report else { return Ok(None) };
        for mark in &opened.marks {
            *report.marks.entry(mark.label.clone()).or_default() += 1;
        }
        for (part, mut writer) in writers {
            writer.conditions(0, &condition[part.clone()])?;
            if self.settings.keep_signal {
                for channel in 0..prepared.info.n_channel() {
                    writer.signal(channel, &prepared.channel(channel)[part.clone()])?;
                }
            }
            writer.seal()?;
            self.shards.push(writer);
        }
        self.summary.recordings.insert(name.into(), report.clone());
        Ok(Some(report))
    }

    /// Refuses a recording that is in the data set under another name: two recordings never have the same scales to the
    /// last bit. (A file is named after its folder only where another has the same name, so its name may change.)
    fn refuse_namesake(&self, name: &str, scales: &Scales) -> Result<()> {
        let mut known = self.others.iter().chain(&self.added);
        if let Some((other, _)) = known.find(|(other, theirs)| other != name && theirs == scales) {
            let what = format!("the data set has this recording already, under the name {other}");
            let is_there = self.others.iter().any(|(name, _)| name == other);
            let hint = match self.out.filter(|_| is_there) {
                Some(out) => {
                    let [first, second, third] = Split::ALL.map(|part| shard_path(out, other, part));
                    let files = format!("{}, {} and {}", first.display(), second.display(), third.display());
                    format!("Remove {files}, or leave this one out")
                }
                None => "Leave one of the two out".into(),
            };
            return Err(Error::new(Kind::Exists, what).hint(hint));
        }
        Ok(())
    }

    /// Gives everything its name.
    pub fn publish(mut self) -> Result<Summary> {
        let Some(out) = self.out else { return Ok(self.take_summary()) };
        // Others may have tokenized into this folder meanwhile: what they did is not replaced, is fitted to, and their
        // reports stay.
        let _lock = wait_for_lock(out)?;
        self.refuse_replacing()?;
        self.look_around(out)?;
        for (name, scales) in &self.added {
            self.refuse_namesake(name, scales).map_err(|e| e.at(out))?;
        }
        let mut theirs = self.reports(out)?;
        theirs.retain(|name, _| self.others.iter().any(|(other, _)| other == name));
        let ours = std::mem::replace(&mut self.summary.recordings, theirs);
        self.summary.recordings.extend(ours);
        let path = out.join("tokenize.json");
        let text = serde_json::to_string_pretty(&self.summary);
        let text = text.map_err(|e| Error::new(Kind::Internal, e.to_string()))? + "\n";
        let mut summary = AtomicFile::create(&path, true)?;
        summary.expect_bytes(text.len() as u64);
        summary.write_at(0, text.as_bytes())?;
        summary.sync()?;
        // From here on no file grows: only names change.
        atomic::remove(&Os, &path)?;
        self.made = false;
        std::mem::take(&mut self.shards).into_iter().try_for_each(ShardWriter::publish)?;
        summary.publish()?;
        Ok(self.take_summary())
    }

    fn take_summary(&mut self) -> Summary {
        let (version, conditions) = (String::new(), Vec::new());
        std::mem::replace(&mut self.summary, Summary { version, conditions, recordings: BTreeMap::new() })
    }

    fn tokenization(
        &self,
        name: &str,
        source: &str,
        parts: &Parts,
        excluded: &[Range<usize>],
        condition: &[u16],
        scales: &Scales,
    ) -> Tokenization {
        // The folder a recording lies in says nothing about its content.
        let source = Path::new(source).file_name().unwrap_or_default().to_string_lossy();
        let fitted =
            [&scales.centre, &scales.spread, &scales.peak].map(|values| crc32c::crc32c(bytemuck::cast_slice(values)));
        let condition = crc32c::crc32c(bytemuck::cast_slice(condition));
        let recording = checksum(&(name, source, parts, excluded, condition, fitted));
        Tokenization { settings: self.settings.checksum(), recording }
    }

    /// The three shards of a recording, with the timesteps that go into each.
    fn start_shards(
        &mut self,
        name: &str,
        prepared: &Prepared,
        plan: &Plan,
        tokenization: &Tokenization,
        scales: &Scales,
    ) -> Result<Vec<(Range<usize>, ShardWriter)>> {
        let Some(out) = self.out else { return Ok(Vec::new()) };
        let mut writers = Vec::new();
        for part in Split::ALL {
            let meta = shard_meta(name, prepared, plan, tokenization, part);
            self.check_fits(&meta).map_err(|e| e.at(&prepared.info.source))?;
            let path = shard_path(out, name, part);
            writers.push((
                plan.part(part),
                ShardWriter::new(&path, self.force, &meta, scales, self.settings.keep_signal)?,
            ));
        }
        Ok(writers)
    }

    /// Checks that a shard may stand beside the others.
    fn check_fits(&mut self, meta: &ShardMeta) -> Result<()> {
        match &self.first {
            Some(first) => belong_together(first, meta, &first.recording),
            None => {
                self.first = Some(meta.clone());
                Ok(())
            }
        }
    }
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        // Temporary files first, then the folder, which only goes when it is empty.
        self.shards.clear();
        if let Some(out) = self.out.filter(|_| self.made) {
            let _ = std::fs::remove_dir(out);
        }
    }
}

/// Locks the folder, waiting a minute for others: they hold it as long as it takes to rename files.
fn wait_for_lock(folder: &Path) -> Result<FolderLock> {
    for _ in 0..600 {
        match FolderLock::acquire(folder) {
            Err(e) if e.kind() == Kind::Locked => std::thread::sleep(std::time::Duration::from_millis(100)),
            done => return done,
        }
    }
    FolderLock::acquire(folder)
}

fn shard_path(folder: &Path, name: &str, part: Split) -> PathBuf {
    folder.join(format!("{name}_{}.safetensors", part.name()))
}

/// Eight digits of what `content` serialises to.
fn checksum(content: &impl Serialize) -> String {
    // Plain data: serialising cannot fail.
    format!("{:08x}", crc32c::crc32c(&serde_json::to_vec(content).expect("plain data")))
}

/// What a part of a recording says of itself.
fn shard_meta(name: &str, prepared: &Prepared, plan: &Plan, tokenization: &Tokenization, part: Split) -> ShardMeta {
    let range = plan.part(part);
    let mut info = marks::cut(&prepared.info, &range);
    info.first_timestep = range.start as u64;
    ShardMeta {
        info,
        split: part,
        recording: name.into(),
        scheme: plan.scheme,
        conditions: plan.conditions.to_vec(),
        excluded: marks::within(&range, plan.excluded),
        tokenization: tokenization.clone(),
        version: env!("CARGO_PKG_VERSION").into(),
    }
}
