//! `gpt2meg info`: what a file, a folder or this machine is.

use super::{Exit, Globals};
use crate::device::describe::{self, Cuda};
use crate::error::Result;
use crate::model::layout::ParamLayout;
use crate::recording::Info as Header;
use crate::recording::open::{self, OpenOptions};
use crate::storage::container::Container;
use crate::tokens::dataset::Dataset;
use crate::tokens::shard::{ShardMeta, Split};
use crate::train::checkpoint::{self, CheckpointMeta, Which};
use clap::Args;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Say what a recording, a folder of tokens, a run or a checkpoint is; or, for `device`, what this machine offers.
///
/// Examples:
///   gpt2meg info recording_raw.fif
///   gpt2meg info run
///   gpt2meg info device
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub struct Info {
    /// A recording (FIF, npy, a BIDS folder), tokens, a run folder, a checkpoint; or the word `device`.
    path: PathBuf,
}

impl Info {
    /// Runs the command.
    pub fn run(self, globals: &Globals) -> Result<Exit> {
        let facts = if self.path == Path::new("device") { machine() } else { of_path(&self.path)? };
        if globals.json {
            println!("{}", serde_json::to_string_pretty(&facts).expect("JSON of plain values"));
        } else {
            print(&facts, 0);
        }
        Ok(Exit::Done)
    }
}

/// Prints nested objects as aligned lines.
fn print(facts: &Value, indent: usize) {
    let Value::Object(map) = facts else { return };
    let width = map.keys().map(String::len).max().unwrap_or(0);
    for (key, value) in map {
        let label = key.replace('_', " ");
        match value {
            // What has parts is named by its file as often as by a word of ours: left as it is.
            Value::Object(_) => {
                println!("{:indent$}{key}", "");
                print(value, indent + 2);
            }
            Value::Array(items) => {
                let words: Vec<String> = items.iter().map(plain).collect();
                println!("{:indent$}{label:width$}  {}", "", words.join(", "));
            }
            _ => println!("{:indent$}{label:width$}  {}", "", plain(value)),
        }
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "unknown".into(),
        Value::Object(map) => map.values().map(plain).collect::<Vec<_>>().join(" "),
        other => other.to_string(),
    }
}

fn machine() -> Value {
    let machine = describe::machine();
    let cuda = match machine.cuda {
        Cuda::Unavailable(why) => json!(why),
        Cuda::Cards(cards) => cards
            .iter()
            .map(|card| {
                let (major, minor) = card.compute_capability;
                let gib = card.memory_bytes as f64 / f64::from(1 << 30);
                json!(format!("{} (compute capability {major}.{minor}, {gib:.1} GiB)", card.name))
            })
            .collect(),
    };
    json!({ "program": format!("gpt2meg {}", env!("CARGO_PKG_VERSION")), "cpu": machine.cpu,
            "threads": machine.threads, "cuda": cuda })
}

fn of_path(path: &Path) -> Result<Value> {
    let is_container = path.extension().is_some_and(|e| e == "safetensors");
    if is_container && path.is_file() {
        let container = Container::open_any(path)?;
        return match container.kind() {
            "tokens" => Ok(shard(&container.meta()?)),
            "checkpoint" => Ok(checkpoint(&container.meta()?, path)),
            other => Ok(json!({ "kind": other, "tensors": container.names() })),
        };
    }
    if path.join("checkpoints").is_dir() {
        let last = checkpoint::load(path, Which::Last)?;
        return Ok(checkpoint(&last.meta, &last.path));
    }
    if path.is_dir() && holds_containers(path) {
        return Ok(dataset(&Dataset::open(path)?));
    }
    recordings(path)
}

fn holds_containers(dir: &Path) -> bool {
    let Ok(entries) = std::fs::read_dir(dir) else { return false };
    entries.flatten().any(|entry| entry.path().extension().is_some_and(|e| e == "safetensors"))
}

fn header(info: &Header) -> Value {
    let mut kinds = BTreeMap::new();
    for channel in &info.channels {
        *kinds.entry(format!("{:?}", channel.kind).to_lowercase()).or_insert(0usize) += 1;
    }
    let kinds: Vec<String> = kinds.iter().map(|(kind, n)| format!("{n} {kind}")).collect();
    let bads: Vec<&str> = info.channels.iter().filter(|c| c.bad).map(|c| c.name.as_str()).collect();
    let mut events = BTreeMap::new();
    for event in &info.events {
        *events.entry(event.label.as_str()).or_insert(0usize) += 1;
    }
    let events: Vec<String> = events.iter().map(|(label, n)| format!("{label} × {n}")).collect();
    json!({
        "channels": kinds,
        "bad_channels": bads,
        "sampling_rate_hz": info.sfreq,
        "pass_band_hz": [info.pass_band.0, info.pass_band.1],
        "timesteps": info.n_timestep,
        "seconds": (info.seconds() * 1000.0).round() / 1000.0,
        "events": events,
        "subject": info.subject,
    })
}

fn shard(meta: &ShardMeta) -> Value {
    json!({ "kind": "tokens", "recording": meta.recording, "part": meta.split, "scheme": meta.scheme,
            "conditions": meta.conditions, "excluded_timesteps": excluded(meta), "written_by": meta.version, "signal": header(&meta.info) })
}

/// Timesteps that hold no usable signal.
fn excluded(meta: &ShardMeta) -> usize {
    meta.excluded.iter().map(|stretch| stretch.len()).sum()
}

fn dataset(dataset: &Dataset) -> Value {
    let parts: BTreeMap<String, usize> = [Split::Train, Split::Validation, Split::Test]
        .into_iter()
        .map(|split| {
            let timesteps = dataset.split(split).iter().map(|&i| dataset.shards[i].n_timestep()).sum();
            (format!("{split:?}").to_lowercase(), timesteps)
        })
        .collect();
    let first = &dataset.shards[0].meta;
    let excluded_all: usize = dataset.shards.iter().map(|shard| excluded(&shard.meta)).sum();
    json!({ "kind": "data set", "shards": dataset.shards.len(), "timesteps": parts, "subjects": dataset.subjects,
            "conditions": dataset.conditions, "excluded_timesteps": excluded_all, "scheme": first.scheme, "channels": first.info.n_channel(),
            "sampling_rate_hz": first.info.sfreq })
}

fn checkpoint(meta: &CheckpointMeta, path: &Path) -> Value {
    json!({
        "kind": "checkpoint",
        "file": path.display().to_string(),
        "step": meta.progress.step,
        "best_validation": meta.progress.best.map(|b| format!("{:.4} nats at step {}", b.nats, b.step)),
        "parameters": ParamLayout::new(&meta.model).len(),
        "model": meta.model,
        "subjects": meta.data.subjects,
        "conditions": meta.data.conditions,
        "sampling_rate_hz": meta.data.info.sfreq,
        "pass_band_hz": [meta.data.info.pass_band.0, meta.data.info.pass_band.1],
        "written_by": meta.version,
        "device": meta.device,
    })
}

fn recordings(path: &Path) -> Result<Value> {
    let listing = open::list(path)?;
    let mut all = serde_json::Map::new();
    for source in &listing.found {
        let opened = source.open(&OpenOptions::default())?;
        let mut facts = header(&opened.recording.info);
        facts["events_from"] = json!(opened.events_from);
        if !opened.notes.is_empty() {
            facts["notes"] = json!(opened.notes);
        }
        all.insert(source.path.display().to_string(), facts);
    }
    for skipped in &listing.skipped {
        all.insert(skipped.path.display().to_string(), json!({ "skipped": skipped.why }));
    }
    Ok(Value::Object(all))
}
