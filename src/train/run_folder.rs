//! The folder of a run: `run.json`, `metrics.jsonl`, `checkpoints/`, `best.safetensors`, `anchors.json`, TensorBoard's
//! event files, and the lock that keeps a second trainer out.

use super::checkpoint::{self, DataMeta};
use super::config::TrainingConfig;
use crate::error::{Error, Kind, Result};
use crate::model::kind::Model;
use crate::storage::atomic;
use crate::storage::disk::Os;
use crate::storage::lock::FolderLock;
use crate::tokens::dataset;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// `run.json`: the resolved configuration of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunMeta {
    /// The model's kind and shape.
    pub model: Model,
    /// How it is trained.
    pub training: TrainingConfig,
    /// Where the data was when the run started.
    pub data_path: PathBuf,
    /// The data.
    pub data: DataMeta,
    /// Version of gpt2meg that started the run.
    pub version: String,
}

/// A run folder that this process alone writes to.
pub struct RunFolder {
    path: PathBuf,
    _lock: FolderLock,
}

impl RunFolder {
    /// Makes the folder if need be, and locks it.
    pub fn acquire(path: &Path) -> Result<Self> {
        std::fs::create_dir_all(path).map_err(|e| Error::io(e, "make the run folder", path))?;
        let lock = FolderLock::acquire(path)?;
        let checkpoints = path.join("checkpoints");
        std::fs::create_dir_all(&checkpoints).map_err(|e| Error::io(e, "make the folder", &checkpoints))?;
        atomic::remove_stale(&Os, &checkpoints);
        Ok(Self { path: path.to_path_buf(), _lock: lock })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The log's path.
    pub fn log_path(&self) -> PathBuf {
        self.path.join("metrics.jsonl")
    }

    /// What `run.json` says; none if no run has started here.
    pub fn meta(&self) -> Result<Option<RunMeta>> {
        let path = self.path.join("run.json");
        if !path.exists() {
            return Ok(None);
        }
        let meta: RunMeta = read_json(&path)?;
        let made_up = |e: Error| Error::new(Kind::Corrupt, e.to_string()).at(&path);
        meta.model.check().and_then(|()| meta.training.check()).map_err(made_up)?;
        Ok(Some(meta))
    }

    /// Writes `run.json`.
    pub fn write_meta(&self, meta: &RunMeta) -> Result<()> {
        write_json(&self.path.join("run.json"), true, meta)
    }

    /// Removes what an earlier run left, so that a new one can start. `run.json` goes last: a crash in between leaves a
    /// folder that is still known for a run.
    pub fn clear(&self) -> Result<()> {
        for path in leftovers(&self.path)? {
            std::fs::remove_file(&path).map_err(|e| Error::io(e, "remove a file of the earlier run", &path))?;
        }
        Ok(())
    }
}

/// Whether there is a run in the folder that may go on: its configuration or, should that be lost, a checkpoint.
pub fn holds_run(path: &Path) -> Result<bool> {
    let is_checkpoint = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "safetensors");
    Ok(path.join("run.json").exists() || leftovers(path)?.iter().any(is_checkpoint))
}

/// Refuses a folder for a new run if it holds a run, unless forced; or data; or files that a run would replace but that
/// need not be a run's, as there is no `run.json`, which a run writes first and removes last.
pub fn refuse_occupied(path: &Path, force: bool) -> Result<()> {
    if dataset::holds_data(path)? {
        let hint = "Choose another --out: a run's own files would make the data unusable";
        return Err(Error::new(Kind::Exists, "this folder holds tokens").at(path).hint(hint));
    }
    let Some(last) = leftovers(path)?.pop() else { return Ok(()) };
    let last = last.file_name().unwrap_or_default().display();
    let others = "They may be somebody else's: choose another --out, or remove them by hand";
    let run = path.join("run.json");
    let (what, hint) = if !run.exists() {
        (format!("this folder holds {last} but no run.json"), others)
    } else if !is_ours(&run) {
        ("this folder holds a run.json that gpt2meg train has not written, or that is damaged".into(), others)
    } else if !force {
        let hint = "Give --resume to go on with it, --force to replace it, or choose another --out";
        (format!("this folder holds a run ({last})"), hint)
    } else {
        return Ok(());
    };
    Err(Error::new(Kind::Exists, what).at(path).hint(hint))
}

/// Whether a `run.json` has what [`RunMeta`] has always had: files of its folder are about to be removed.
fn is_ours(run: &Path) -> bool {
    let content = std::fs::read(run).ok().and_then(|text| serde_json::from_slice::<Value>(&text).ok());
    content.is_some_and(|run| {
        ["model", "training", "data_path", "data", "version"].iter().all(|key| run.get(key).is_some())
    })
}

/// What an earlier run left, `run.json` last.
fn leftovers(run: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for (folder, prefix) in [(run.join("checkpoints"), "step-"), (run.to_path_buf(), "events.out.tfevents.")] {
        let doing = |e| Error::io(e, "list the folder", &folder);
        let entries = match std::fs::read_dir(&folder) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
            entries => entries.map_err(doing)?,
        };
        for entry in entries {
            let entry = entry.map_err(doing)?;
            if entry.file_name().to_string_lossy().starts_with(prefix) {
                found.push(entry.path());
            }
        }
    }
    let names = ["metrics.jsonl", "anchors.json", "scores.json", "run.json"].map(|name| run.join(name));
    found.extend([checkpoint::best_path(run)].into_iter().chain(names).filter(|path| path.exists()));
    Ok(found)
}

/// Reads a JSON file of ours.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text = std::fs::read(path).map_err(|e| Error::io(e, "read", path))?;
    serde_json::from_slice(&text).map_err(|e| Error::new(Kind::Corrupt, format!("not what we wrote: {e}")).at(path))
}

/// Writes a JSON file, indented for people.
pub fn write_json(path: &Path, force: bool, value: &impl Serialize) -> Result<()> {
    let mut text = serde_json::to_string_pretty(value).expect("plain data");
    text.push('\n');
    atomic::write(path, force, |file| file.write_at(0, text.as_bytes()))
}
