//! `gpt2meg verify`.

use super::{Exit, Globals, say, say_json};
use crate::error::{Error, Kind, Result};
use crate::storage::container::Container;
use crate::tokens::dataset::Dataset;
use crate::tokens::shard::{self, Shard};
use crate::train::checkpoint;
use clap::Args;
use std::path::{Path, PathBuf};

/// Check every byte of tokens and checkpoints against its checksum.
///
/// Reads every byte of shards and checkpoints and compares it with its checksum. Folders are searched; the shards of
/// one folder must also belong together.
///
/// Example: gpt2meg verify data run
#[derive(Args, Debug)]
pub struct Verify {
    /// Files, or folders of them.
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
}

impl Verify {
    /// Runs the command.
    pub fn run(self, globals: &Globals) -> Result<Exit> {
        let mut whole = Vec::new();
        for path in &self.paths {
            for file in files(path)? {
                if let Some(signal) = crate::interrupt::requested() {
                    return Ok(Exit::Signal(signal));
                }
                let kind = verify(&file)?;
                if !globals.quiet && !globals.json {
                    say(format_args!("{}: whole ({kind})", file.display()))?;
                }
                whole.push(serde_json::json!({"path": file.display().to_string(), "kind": kind}));
            }
        }
        if globals.json {
            say_json(serde_json::json!({ "whole": whole }))?;
        }
        Ok(Exit::Done)
    }
}

/// Checks one file as strictly as whoever loads it would, and every checksum; says what it is.
fn verify(path: &Path) -> Result<String> {
    let container = Container::open_any(path)?;
    container.verify()?;
    match container.kind() {
        shard::KIND => Shard::open(path)?.verify()?,
        checkpoint::KIND => drop(checkpoint::read_state(path)?),
        _ => {}
    }
    Ok(container.kind().to_string())
}

/// The file itself, or the safetensors files of a folder (whose shards must belong together).
fn files(path: &Path) -> Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let failed = |e| Error::io(e, "list the folder", path);
    let mut files = Vec::new();
    // A run keeps its steps in a folder of their own.
    for folder in [path.to_owned(), path.join("checkpoints")].into_iter().filter(|folder| folder.is_dir()) {
        for entry in std::fs::read_dir(folder).map_err(failed)? {
            files.push(entry.map_err(failed)?.path());
        }
    }
    let hidden = |path: &Path| path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
    files.retain(|file| !hidden(file) && file.extension().is_some_and(|extension| extension == "safetensors"));
    files.sort();
    if files.is_empty() {
        return Err(Error::new(Kind::NotFound, "there are no safetensors files in this folder").at(path));
    }
    let is_shard = |file: &PathBuf| Container::open_any(file).is_ok_and(|container| container.kind() == shard::KIND);
    if files.iter().all(is_shard) {
        Dataset::open(path)?;
    }
    Ok(files)
}
