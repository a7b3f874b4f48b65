//! The folder of a run: `run.json`, `metrics.jsonl`, `checkpoints/`, `best.safetensors`, `anchors.json`, TensorBoard's
//! event files, and the lock that keeps a second trainer out.

use super::checkpoint::{self, DataMeta};
use super::config::TrainingConfig;
use crate::error::{Error, Kind, Result};
use crate::model::config::ModelConfig;
use crate::storage::atomic;
use crate::storage::disk::Os;
use crate::storage::lock::FolderLock;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// `run.json`: the resolved configuration of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunMeta {
    /// The network's shape.
    pub model: ModelConfig,
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
        if path.exists() { read_json(&path).map(Some) } else { Ok(None) }
    }

    /// Writes `run.json`.
    pub fn write_meta(&self, meta: &RunMeta) -> Result<()> {
        write_json(&self.path.join("run.json"), true, meta)
    }

    /// Removes what an earlier run left, so that a new one can start. `run.json` goes last: a crash in between leaves a
    /// folder that is still known for a run.
    pub fn clear(&self) -> Result<()> {
        let remove = |path: &Path| match std::fs::remove_file(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::io(error, "remove a file of the earlier run", path))
            }
            _ => Ok(()),
        };
        let list = |folder: &Path| -> Result<Vec<PathBuf>> {
            let doing = |e| Error::io(e, "list the folder", folder);
            std::fs::read_dir(folder).map_err(doing)?.map(|entry| Ok(entry.map_err(doing)?.path())).collect()
        };
        let name_of = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
        for path in list(&self.path.join("checkpoints"))? {
            if name_of(&path).is_some_and(|name| name.starts_with("step-")) {
                remove(&path)?;
            }
        }
        for path in list(&self.path)? {
            if name_of(&path).is_some_and(|name| name.starts_with("events.out.tfevents.")) {
                remove(&path)?;
            }
        }
        remove(&checkpoint::best_path(&self.path))?;
        for name in ["metrics.jsonl", "anchors.json", "scores.json", "run.json"] {
            remove(&self.path.join(name))?;
        }
        Ok(())
    }
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
