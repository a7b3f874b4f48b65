//! `gpt2meg info`: what a file, a folder or this machine is.

use super::{Exit, Globals, say, say_json};
use crate::device::describe::{self, Cuda};
use crate::error::Result;
use crate::recording::npy::{Layout, NpyOptions};
use crate::recording::open::{self, OpenOptions, Opened};
use crate::recording::{Channel, ChannelKind, Info as Header};
use crate::storage::container::Container;
use crate::tokens::dataset::Dataset;
use crate::tokens::shard::{ShardMeta, Split};
use crate::train::checkpoint::{self, CheckpointMeta, Which};
use clap::Args;
use serde_json::{Map, Value, json};
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
    /// Which axis of an .npy file is time, where no .json file beside it says so.
    #[arg(long, value_enum)]
    layout: Option<Layout>,
    /// Sampling rate of an .npy file in Hz, where no .json file beside it says so.
    #[arg(long, value_name = "HZ")]
    rate: Option<f64>,
}

/// Facts for programs alone: there are too many for people.
const CHANNEL_NAMES: &str = "channel_names";

impl Info {
    /// Runs the command.
    pub fn run(self, globals: &Globals) -> Result<Exit> {
        let facts = if self.path == Path::new("device") { machine() } else { self.of_path()? };
        if globals.json {
            say_json(serde_json::to_string_pretty(&facts).expect("JSON of plain values"))?;
        } else {
            print(&facts, 0)?;
        }
        Ok(Exit::Done)
    }

    fn of_path(&self) -> Result<Value> {
        let path = &self.path;
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
        self.recordings()
    }

    /// Every recording of a file or a folder. In a folder, one that cannot be opened is named and passed over.
    fn recordings(&self) -> Result<Value> {
        let listing = open::list(&self.path)?;
        let npy = NpyOptions { layout: self.layout, sfreq: self.rate, ..NpyOptions::default() };
        let options = OpenOptions { npy, ..OpenOptions::default() };
        let mut all = Map::new();
        let mut failures = Vec::new();
        for source in &listing.found {
            let name = source.path.display().to_string();
            match source.open(&options) {
                Ok(opened) => all.insert(name, recording(&opened)),
                Err(error) => {
                    failures.push(error);
                    all.insert(name, json!({ "skipped": failures[failures.len() - 1].to_string() }))
                }
            };
        }
        if failures.len() == listing.found.len() {
            return Err(failures.swap_remove(0));
        }
        for skipped in &listing.skipped {
            all.insert(skipped.path.display().to_string(), json!({ "skipped": skipped.why }));
        }
        Ok(Value::Object(all))
    }
}

/// Prints nested objects as aligned lines.
fn print(facts: &Value, indent: usize) -> Result<()> {
    let Value::Object(map) = facts else { return Ok(()) };
    let map: Vec<_> = map.iter().filter(|(key, _)| *key != CHANNEL_NAMES).collect();
    let width = map.iter().map(|(key, _)| key.len()).max().unwrap_or(0);
    for (key, value) in map {
        let label = key.replace('_', " ");
        match value {
            // What has parts is named by its file as often as by a word of ours: left as it is.
            Value::Object(parts) if indent == 0 || parts.values().any(Value::is_object) => {
                say(format_args!("{:indent$}{key}", ""))?;
                print(value, indent + 2)?;
            }
            Value::Object(parts) => {
                let words: Vec<String> = parts.iter().map(|(name, value)| format!("{name} {}", plain(value))).collect();
                say(format_args!("{:indent$}{key:width$}  {}", "", words.join(", ")))?;
            }
            Value::Array(items) => {
                let words: Vec<String> = items.iter().map(plain).collect();
                let words = if words.is_empty() { "none".into() } else { words.join(", ") };
                say(format_args!("{:indent$}{label:width$}  {words}", ""))?;
            }
            _ => say(format_args!("{:indent$}{label:width$}  {}", "", plain(value)))?,
        }
    }
    Ok(())
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "unknown".into(),
        // Much of this was float32 in a file: its digits, and no more.
        Value::Number(number) if number.is_f64() => format!("{:?}", number.as_f64().unwrap_or(f64::NAN) as f32),
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

fn holds_containers(dir: &Path) -> bool {
    let Ok(entries) = std::fs::read_dir(dir) else { return false };
    let containers = entries.flatten().map(|entry| entry.path());
    let mut containers = containers.filter(|path| path.extension().is_some_and(|e| e == "safetensors"));
    // The truth beside a simulated recording makes no folder of tokens; what is damaged is better named than passed over.
    containers.any(|path| !Container::open_any(&path).is_ok_and(|container| container.kind() == "truth"))
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
    let names: Vec<&str> = info.channels.iter().map(|c| c.name.as_str()).collect();
    let is_trigger = |c: &&Channel| c.kind == ChannelKind::Stim;
    let triggers: Vec<&str> = info.channels.iter().filter(is_trigger).map(|c| c.name.as_str()).collect();
    json!({
        "channels": kinds,
        CHANNEL_NAMES: names,
        "trigger_channels": triggers,
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
    let mut recordings: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
    for shard in &dataset.shards {
        let meta = &shard.meta;
        let of = recordings.entry(&meta.recording).or_default();
        of.insert(meta.split.name().into(), json!(shard.n_timestep()));
        if let Some(subject) = &meta.info.subject {
            of.insert("subject".into(), json!(subject));
        }
    }
    let first = &dataset.shards[0].meta;
    let excluded_all: usize = dataset.shards.iter().map(|shard| excluded(&shard.meta)).sum();
    json!({ "kind": "data set", "shards": dataset.shards.len(), "timesteps": parts, "recordings": recordings, "subjects": dataset.subjects,
            "conditions": dataset.conditions, "excluded_timesteps": excluded_all, "scheme": first.scheme, "channels": first.info.n_channel(),
            "sampling_rate_hz": first.info.sfreq })
}

fn checkpoint(meta: &CheckpointMeta, path: &Path) -> Value {
    json!({
        "kind": "checkpoint",
        "file": path.display().to_string(),
        "step": meta.progress.step,
        "best_validation": meta.progress.best.map(|b| format!("{:.4} nats at step {}", b.nats, b.step)),
        "parameters": meta.model.n_parameter(),
        "model": meta.model,
        "subjects": meta.data.subjects,
        "conditions": meta.data.conditions,
        "sampling_rate_hz": meta.data.info.sfreq,
        "pass_band_hz": [meta.data.info.pass_band.0, meta.data.info.pass_band.1],
        "written_by": meta.version,
        "computed_by": meta.device,
    })
}

fn recording(opened: &Opened) -> Value {
    let mut facts = header(&opened.recording.info);
    facts["events_from"] = json!(opened.events_from);
    if !opened.notes.is_empty() {
        facts["notes"] = json!(opened.notes);
    }
    facts
}
