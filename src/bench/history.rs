//! What was measured, a line of a CSV file each time.

use crate::ensure;
use crate::error::{Error, Kind, Result};
use serde_json::Value;
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// The columns: when (seconds since 1970, UTC), what and where, and what came out. Rates are of timesteps of a channel (tokens),
/// and of operations that the device reaches in registers alone.
const HEAD: [&str; 14] = [
    "unix_time",
    "version",
    "work",
    "device",
    "threads",
    "d_model",
    "n_layer",
    "n_head",
    "n_ctx",
    "sequences",
    "hop",
    "median_seconds",
    "tokens_per_second",
    "register_flop_per_second",
];

fn line<T: AsRef<[u8]>>(fields: impl IntoIterator<Item = T>) -> Vec<u8> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(fields).expect("memory");
    writer.into_inner().expect("memory")
}

/// Whether the head is still to be written, because nothing is there yet; an error where no lines can be added: to a file that
/// [`append`] did not begin, or in a folder that is not there.
pub fn check(path: &Path) -> Result<bool> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    ensure!(folder.is_dir(), Kind::NotFound, "there is no folder {}", folder.display());
    let head = line(HEAD);
    let mut found = Vec::new();
    match File::open(path) {
        Ok(file) => file.take(head.len() as u64).read_to_end(&mut found),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(true),
        Err(error) => Err(error),
    }
    .map_err(|e| Error::io(e, "read", path))?;
    ensure!(
        found.is_empty() || found == head,
        Kind::Exists,
        "{} is not a history that `gpt2meg bench` began: it is left alone",
        path.display()
    );
    Ok(found.is_empty())
}

/// Adds the facts of one measurement of `work` to the history in `path`, in one write.
pub fn append(path: &Path, work: &str, threads: usize, facts: &Value) -> Result<()> {
    let mut text = if check(path)? { line(HEAD) } else { Vec::new() };
    let time = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    let spelt = |value: &Value| match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let model = ["d_model", "n_layer", "n_head", "n_ctx"].map(|key| spelt(&facts["model"][key]));
    let seconds = if facts["seconds"].is_object() { &facts["seconds"]["median"] } else { &facts["seconds"] };
    let [device, sequences, hop] = ["device", "sequences", "hop"].map(|key| spelt(&facts[key]));
    let [d_model, n_layer, n_head, n_ctx] = model;
    let [tokens, register] = ["tokens_per_second", "register_flop_per_second"].map(|key| spelt(&facts[key]));
    text.extend(line([
        time.to_string(),
        env!("CARGO_PKG_VERSION").into(),
        work.into(),
        device,
        threads.to_string(),
        d_model,
        n_layer,
        n_head,
        n_ctx,
        sequences,
        hop,
        spelt(seconds),
        tokens,
        register,
    ]));
    let file = File::options().append(true).create(true).open(path);
    file.and_then(|mut file| file.write_all(&text)).map_err(|e| Error::io(e, "add a line to", path))
}
