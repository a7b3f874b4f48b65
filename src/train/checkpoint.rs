//! Checkpoints: one file holds parameters, moments, scales and everything needed to go on or to generate.
//!
//! A container of kind `checkpoint` with, for every entry of the [`ParamLayout`], the parameter under its own name and
//! Adam's moments under `m.` and `v.` before it (all f32), and `centre`, `spread`, `peak` (f64 [subject, channel]): the
//! scales of each subject's first training recording.
//!
//! A run folder holds `checkpoints/step-00000100.safetensors`, the last few, and `best.safetensors`, the one with the
//! lowest validation loss. A new file is written, synced, renamed and read back before an older one is removed.

use super::config::TrainingConfig;
use super::metrics::StepRecord;
use crate::console::note;
use crate::ensure;
use crate::error::{Error, Kind, Result};
use crate::model::kind::{Model, Sizes};
use crate::model::layout::ParamLayout;
use crate::model::linear::{Linear, LinearConfig, TENSORS};
use crate::recording::Info;
use crate::storage::container::{self, Container};
use crate::tokens::dataset::Dataset;
use crate::tokens::scheme::{Scales, Scheme};
use crate::tokens::shard::Split;
use safetensors::Dtype;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Checkpoints of the last steps that a run folder keeps.
pub const KEEP: usize = 3;
/// What the container is called in its header.
pub const KIND: &str = "checkpoint";

/// What a model knows of the data it was trained on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DataMeta {
    /// Sensors, sampling rate, pass band and so on of the first training recording; its events are left out.
    pub info: Info,
    /// The tokenizer.
    pub scheme: Scheme,
    /// Names of the conditions: condition i is `conditions[i - 1]`.
    pub conditions: Vec<String>,
    /// Labels of the subjects: subject i is `subjects[i]`.
    pub subjects: Vec<String>,
    /// Changes when recordings, splits, lengths, events or scales do: a run is resumed only on the same data.
    pub fingerprint: String,
}

/// The lowest validation loss so far.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Best {
    /// Its step.
    pub step: u64,
    /// Validation loss in nats a token.
    pub nats: f64,
}

/// How far a run has come. With the parameters, the moments and the configuration, this is the whole state.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Progress {
    /// Steps done.
    pub step: u64,
    /// Updates applied: steps whose loss and gradient were finite.
    pub n_update: u64,
    /// Steps skipped in a row, up to now.
    pub n_skipped: u64,
    /// The lowest validation loss so far.
    pub best: Option<Best>,
    /// Validations since then.
    pub n_worse: u64,
    /// Whether the last validation was not finite.
    #[serde(default)]
    pub diverged: bool,
    /// The last step's record, when the step is done but its validation was interrupted.
    pub unvalidated: Option<StepRecord>,
}

impl Progress {
    /// Checks that the numbers fit together: those of a file made by somebody else need not.
    fn check(&self) -> Result<()> {
        let Self { step, n_update, n_skipped, n_worse, .. } = *self;
        let counted = n_update.checked_add(n_skipped).is_some_and(|n| n <= step) && n_worse <= step;
        let possible = step <= TrainingConfig::MAX_STEPS
            && counted
            && self.best.is_none_or(|best| (1..=step).contains(&best.step) && best.nats.is_finite())
            && self.unvalidated.is_none_or(|record| step > 0 && record.step == step);
        ensure!(possible, Kind::Corrupt, "its counts of steps contradict each other");
        Ok(())
    }
}

/// What a checkpoint says of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CheckpointMeta {
    /// Its kind and shape.
    pub model: Model,
    /// The data it was trained on.
    pub data: DataMeta,
    /// How it is trained.
    pub training: TrainingConfig,
    /// How far it has come.
    pub progress: Progress,
    /// Version of gpt2meg that wrote it.
    pub version: String,
    /// What computed it (see [`crate::device::Device::identity`]): bits are the same for any number of threads, but not for
    /// another instruction set.
    pub device: String,
}

/// A checkpoint as everyone but the trainer needs it.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    /// The file it came from.
    pub path: PathBuf,
    /// What it says of itself.
    pub meta: CheckpointMeta,
    /// The scales of each subject's first training recording.
    pub scales: Vec<Scales>,
    /// The parameters, a flat buffer of [`ParamLayout`]; none of an autoregression.
    pub params: Vec<f32>,
    /// The autoregression, if it is one.
    pub linear: Option<Linear>,
}

/// Adam's moments, flat buffers of [`ParamLayout`].
#[derive(Debug, Clone, PartialEq)]
pub struct Moments {
    /// First moments.
    pub m: Vec<f32>,
    /// Second moments.
    pub v: Vec<f32>,
}

/// Which checkpoint of a run folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Which {
    /// The one with the lowest validation loss.
    Best,
    /// The newest.
    Last,
}

impl DataMeta {
    /// The description of a data set's training part, which must have at least one shard.
    pub fn of(dataset: &Dataset) -> Result<Self> {
        let Some(&first) = dataset.split(Split::Train).first() else {
            return Err(Error::new(Kind::TooShort, "the data has no training part"));
        };
        let meta = &dataset.shards[first].meta;
        let info = Info { events: Vec::new(), ..meta.info.clone() };
        Ok(Self {
            info,
            scheme: meta.scheme,
            conditions: dataset.conditions.clone(),
            subjects: dataset.subjects.clone(),
            fingerprint: fingerprint(dataset),
        })
    }
}

/// The scales of each subject's first training recording (any recording's, for a subject without one).
pub fn scales_by_subject(dataset: &Dataset) -> Vec<Scales> {
    let mut shards = dataset.split(Split::Train);
    shards.extend(0..dataset.shards.len());
    let first_of = |subject| shards.iter().find(|&&shard| dataset.subject(shard) == subject);
    (0..dataset.subjects.len())
        .map(|subject| first_of(subject).map_or_else(Scales::default, |&shard| dataset.shards[shard].scales.clone()))
        .collect()
}

/// A checksum of what the shards say of themselves and of their scales, which are fitted to the signal.
fn fingerprint(dataset: &Dataset) -> String {
    let mut checksum = 0;
    for shard in &dataset.shards {
        // A shard's description is plain data: serialising cannot fail.
        let text = serde_json::to_vec(&shard.meta).expect("plain data");
        checksum = crc32c::crc32c_append(checksum, &text);
        for values in [&shard.scales.centre, &shard.scales.spread, &shard.scales.peak] {
            checksum = crc32c::crc32c_append(checksum, bytemuck::cast_slice(values));
        }
    }
    format!("{checksum:08x}")
}

/// The name of a step's checkpoint within a run folder.
pub fn step_path(run: &Path, step: u64) -> PathBuf {
    run.join("checkpoints").join(format!("step-{step:08}.safetensors"))
}

/// The name of the best checkpoint within a run folder.
pub fn best_path(run: &Path) -> PathBuf {
    run.join("best.safetensors")
}

/// Writes a checkpoint and reads it back; an older file of the same name stands until then.
pub fn save(path: &Path, meta: &CheckpointMeta, scales: &[Scales], params: &[f32], moments: &Moments) -> Result<()> {
    let layout = meta.model.layout();
    let names: Vec<[String; 3]> =
        layout.entries().iter().map(|e| [e.name.clone(), format!("m.{}", e.name), format!("v.{}", e.name)]).collect();
    let mut tensors = Vec::with_capacity(3 * names.len() + 3);
    for (part, flat) in [params, &moments.m, &moments.v].into_iter().enumerate() {
        for (entry, names) in layout.entries().iter().zip(&names) {
            let bytes = bytemuck::cast_slice(&flat[entry.offset..][..entry.len]);
            tensors.push(container::Entry { name: &names[part], dtype: Dtype::F32, shape: entry.shape.clone(), bytes });
        }
    }
    write(path, meta, scales, tensors)
}

/// As [`save`], for an autoregression: its tensors, in f64, under their names.
pub fn save_linear(path: &Path, meta: &CheckpointMeta, scales: &[Scales], linear: &Linear) -> Result<()> {
    let named = TENSORS.into_iter().zip(linear.tensors()).zip(Linear::shapes(&linear.config));
    let entry = |((name, values), shape): ((&'static str, &'_ Vec<f64>), Vec<usize>)| (name, values.clone(), shape);
    let all: Vec<_> = named.map(entry).collect();
    let tensors = all.iter().map(|(name, values, shape)| container::Entry {
        name,
        dtype: Dtype::F64,
        shape: shape.clone(),
        bytes: bytemuck::cast_slice(values),
    });
    write(path, meta, scales, tensors.collect())
}

/// Adds the scales, writes the container and reads it back.
fn write(path: &Path, meta: &CheckpointMeta, scales: &[Scales], parameters: Vec<container::Entry>) -> Result<()> {
    let sizes = meta.model.sizes();
    let joined = |part: fn(&Scales) -> &Vec<f64>| -> Vec<f64> { scales.iter().flat_map(part).copied().collect() };
    let (centre, spread, peak) = (joined(|s| &s.centre), joined(|s| &s.spread), joined(|s| &s.peak));
    let mut tensors = parameters;
    for (name, values) in [("centre", &centre), ("spread", &spread), ("peak", &peak)] {
        let shape = vec![sizes.n_subject, sizes.n_channel];
        tensors.push(container::Entry { name, dtype: Dtype::F64, shape, bytes: bytemuck::cast_slice(values) });
    }
    container::write(path, true, KIND, meta, &tensors)?;
    Container::open(path, KIND)?.verify()
}

/// Removes all but the newest [`KEEP`] step checkpoints. The newest must have been read back by now.
pub fn prune(run: &Path) -> Result<()> {
    for (_, path) in listed(run)?.into_iter().skip(KEEP) {
        std::fs::remove_file(&path).map_err(|e| Error::io(e, "remove an old checkpoint", &path))?;
    }
    Ok(())
}

/// Opens a checkpoint: the file itself, or `which` of a run folder. In a folder, damaged files are skipped, loudly, for
/// the next newest; a run without a best checkpoint yet gives its newest.
pub fn load(path: &Path, which: Which) -> Result<Checkpoint> {
    find(path, which, |path| open(path).map(|(checkpoint, _)| checkpoint))
}

/// One file with all that a trainer needs to go on.
pub fn read_state(path: &Path) -> Result<(Checkpoint, Moments)> {
    let (checkpoint, container) = open(path)?;
    let layout = checkpoint.meta.model.layout();
    let moments = Moments { m: flat(&container, &layout, "m.", path)?, v: flat(&container, &layout, "v.", path)? };
    Ok((checkpoint, moments))
}

/// The newest whole state of a run folder, to go on from; none if no checkpoint was written yet.
pub fn load_state(run: &Path) -> Result<Option<(Checkpoint, Moments)>> {
    if listed(run)?.is_empty() {
        return Ok(None);
    }
    find(run, Which::Last, read_state).map(Some)
}

/// Tries `open` on a file, or on the candidates of a folder until one succeeds.
fn find<T>(path: &Path, which: Which, open: impl Fn(&Path) -> Result<T>) -> Result<T> {
    if !path.is_dir() {
        return open(path);
    }
    let mut candidates: Vec<PathBuf> = listed(path)?.into_iter().map(|(_, path)| path).collect();
    if which == Which::Best && best_path(path).exists() {
        candidates.insert(0, best_path(path));
    }
    let mut failure = None;
    for candidate in candidates {
        match open(&candidate) {
            Ok(found) => return Ok(found),
            Err(error) => {
                note(format_args!("gpt2meg: SKIPPED a checkpoint that cannot be used: {error}"));
                failure.get_or_insert(error);
            }
        }
    }
    Err(failure.unwrap_or_else(|| {
        Error::new(Kind::NotFound, "no checkpoint here").at(path).hint("Give a folder that `gpt2meg train` has written")
    }))
}

/// The step checkpoints of a run folder, newest first.
fn listed(run: &Path) -> Result<Vec<(u64, PathBuf)>> {
    let folder = run.join("checkpoints");
    let entries = match std::fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io(error, "list the checkpoints", &folder)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(|e| Error::io(e, "list the checkpoints", &folder))?.path();
        let step = path
            .file_name()
            .and_then(|name| name.to_str())
            .and_then(|name| name.strip_prefix("step-")?.strip_suffix(".safetensors")?.parse().ok());
        if let Some(step) = step {
            found.push((step, path));
        }
    }
    found.sort_unstable_by_key(|&(step, _)| std::cmp::Reverse(step));
    Ok(found)
}

/// Opens and checks one file, all but the moments.
fn open(path: &Path) -> Result<(Checkpoint, Container)> {
    let container = Container::open(path, KIND)?;
    // Also what is not asked for now: a file that is damaged anywhere is not to be trusted.
    container.verify()?;
    let meta: CheckpointMeta = container.meta().map_err(|e| e.at(path))?;
    meta.model.check().map_err(|e| e.at(path))?;
    let made_up = |e: Error| Error::new(Kind::Corrupt, e.to_string()).at(path);
    meta.training.check().and_then(|()| meta.progress.check()).map_err(made_up)?;
    let Sizes { n_subject, n_channel, n_level, n_condition, .. } = meta.model.sizes();
    let data = &meta.data;
    data.scheme.check().and_then(|()| data.info.check()).map_err(|e| e.at(path))?;
    ensure_same(path, "levels", data.scheme.n_level, n_level)?;
    ensure_same(path, "channels", data.info.n_channel(), n_channel)?;
    ensure_same(path, "subjects", data.subjects.len(), n_subject)?;
    ensure_same(path, "conditions", data.conditions.len(), n_condition)?;
    let params = flat(&container, &meta.model.layout(), "", path)?;
    let table = |name: &str| -> Result<Vec<f64>> {
        check_shape(&container, name, Dtype::F64, &[n_subject, n_channel], path)?;
        let values = container.bytes(name)?.chunks_exact(8);
        Ok(values.map(|x| f64::from_le_bytes(x.try_into().expect("eight bytes"))).collect())
    };
    let (centre, spread, peak) = (table("centre")?, table("spread")?, table("peak")?);
    let finite = |table: &[f64]| table.iter().all(|x| x.is_finite());
    let positive = |table: &[f64]| table.iter().all(|&x| x > 0.0);
    if !(finite(&centre) && finite(&spread) && finite(&peak) && positive(&spread) && positive(&peak)) {
        return Err(Error::new(Kind::Corrupt, "the scales make no sense").at(path));
    }
    let row = |table: &[f64], subject: usize| table[subject * n_channel..][..n_channel].to_vec();
    let scales = (0..n_subject)
        .map(|s| Scales { centre: row(&centre, s), spread: row(&spread, s), peak: row(&peak, s) })
        .collect();
    let linear = match &meta.model {
        Model::Ar(config) => Some(linear(&container, *config, path)?),
        _ => None,
    };
    Ok((Checkpoint { path: path.to_path_buf(), meta, scales, params, linear }, container))
}

/// Reads an autoregression.
fn linear(container: &Container, config: LinearConfig, path: &Path) -> Result<Linear> {
    let read = |(name, shape): (&str, Vec<usize>)| -> Result<Vec<f64>> {
        check_shape(container, name, Dtype::F64, &shape, path)?;
        let values: Vec<f64> = container.bytes(name)?.as_chunks().0.iter().map(|&x| f64::from_le_bytes(x)).collect();
        if !values.iter().all(|x| x.is_finite()) {
            return Err(Error::new(Kind::Corrupt, format!("{name} is not finite")).at(path));
        }
        Ok(values)
    };
    let tensors: Vec<Vec<f64>> = TENSORS.into_iter().zip(Linear::shapes(&config)).map(read).collect::<Result<_>>()?;
    let [intercept, weights, sigma, factor] = tensors.try_into().expect("four names");
    if !sigma.iter().all(|&sigma: &f64| sigma > 0.0) {
        return Err(Error::new(Kind::Corrupt, "a residual makes no sense").at(path));
    }
    Ok(Linear { config, intercept, weights, sigma, factor })
}

/// Collects the tensors of a layout, each under `prefix` and its name, into one flat buffer.
fn flat(container: &Container, layout: &ParamLayout, prefix: &str, path: &Path) -> Result<Vec<f32>> {
    // Shapes first: a header that lies about the model must not make us allocate for it.
    for entry in layout.entries() {
        check_shape(container, &format!("{prefix}{}", entry.name), Dtype::F32, &entry.shape, path)?;
    }
    let mut values = Vec::with_capacity(layout.len());
    for entry in layout.entries() {
        let bytes = container.bytes(&format!("{prefix}{}", entry.name))?;
        values.extend(bytes.chunks_exact(4).map(|x| f32::from_le_bytes(x.try_into().expect("four bytes"))));
    }
    Ok(values)
}

fn check_shape(container: &Container, name: &str, dtype: Dtype, wanted: &[usize], path: &Path) -> Result<()> {
    let shape = container.shape(name, dtype)?;
    if shape != wanted {
        let what = format!("{name} has the shape {shape:?}, but this model needs {wanted:?}");
        return Err(Error::new(Kind::ShapeMismatch, what).at(path));
    }
    Ok(())
}

fn ensure_same(path: &Path, what: &str, named: usize, counted: usize) -> Result<()> {
    if named != counted {
        let what = format!("the checkpoint names {named} {what}, but its model has {counted}");
        return Err(Error::new(Kind::ShapeMismatch, what).at(path));
    }
    Ok(())
}
