//! Event tables: BIDS's `_events.tsv`, and MNE's event arrays of (timestep, 0, id).

use super::super::npy::{Array, MAGIC};
use super::super::{Event, stem_and_extension};
use crate::error::{Error, Kind, Result};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// What a table held.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Table {
    /// The events inside the recording, sorted by onset.
    pub events: Vec<Event>,
    /// Rows whose onset lies outside the recording.
    pub n_outside: usize,
    /// Rows without an onset or without a label (`n/a`).
    pub n_unlabelled: usize,
}

/// `x_events.tsv` for `x.npy`, `x.fif` or `x.fif.gz`.
pub fn beside(recording: &Path) -> PathBuf {
    let name = recording.file_name().unwrap_or_default().to_string_lossy();
    let stem = match stem_and_extension(&name) {
        (other, "") => other.rsplit_once('.').map_or(other, |(stem, _)| stem),
        (stem, _) => stem,
    };
    recording.with_file_name(format!("{stem}_events.tsv"))
}

/// Reads a table for a recording of `n_timestep` timesteps at `sfreq` Hz.
///
/// A `.tsv` has the columns `onset` (seconds from the first timestep) and `trial_type` or `value`, `duration` at will;
/// an onset becomes the nearest timestep. A `.npy` holds (timestep, 0, id) counted as MNE does, from the timestep that
/// the acquisition system called 0, so `first_timestep` is subtracted.
pub fn read(path: &Path, sfreq: f64, first_timestep: u64, n_timestep: usize) -> Result<Table> {
    let mut start = Vec::new();
    let opened = File::open(path).and_then(|file| file.take(6).read_to_end(&mut start));
    opened.map_err(|e| Error::io(e, "read the events", path))?;
    let mut table =
        if start == MAGIC { read_npy(path, first_timestep, n_timestep)? } else { read_tsv(path, sfreq, n_timestep)? };
    table.events.sort_by_key(|event| event.onset);
    Ok(table)
}

/// A table that [`read`] and MNE-BIDS understand. Events without a duration get `n/a`.
pub fn text(events: &[Event], sfreq: f64) -> String {
    let mut text = String::from("onset\tduration\ttrial_type\tsample\n");
    for event in events {
        let duration = match event.duration {
            0 => "n/a".to_string(),
            n => (n as f64 / sfreq).to_string(),
        };
        // A label is one field of one row, whatever it contains.
        let label = event.label.replace(['\t', '\n', '\r'], " ");
        text += &format!("{}\t{duration}\t{label}\t{}\n", event.onset as f64 / sfreq, event.onset);
    }
    text
}

fn read_tsv(path: &Path, sfreq: f64, n_timestep: usize) -> Result<Table> {
    let rows = Rows::read(path)?;
    let missing = |column: &str| {
        let hint = "An events table needs the columns onset (seconds) and trial_type or value, separated by tabs";
        Error::new(Kind::Corrupt, format!("the table has no column {column}")).at(path).hint(hint)
    };
    let onset = rows.column("onset").ok_or_else(|| missing("onset"))?;
    let labels = [rows.column("trial_type"), rows.column("value")];
    if labels == [None, None] {
        return Err(missing("trial_type or value"));
    }
    let duration = rows.column("duration");
    let mut table = Table::default();
    for (number, row) in rows.rows.iter().enumerate() {
        let field = |column: usize| row.get(column).map(String::as_str).filter(|f| !f.is_empty() && *f != "n/a");
        let label = labels.iter().flatten().find_map(|&column| field(column));
        let (Some(label), Some(text)) = (label, field(onset)) else {
            table.n_unlabelled += 1;
            continue;
        };
        let seconds: f64 = text.parse().ok().filter(|s: &f64| s.is_finite()).ok_or_else(|| {
            Error::new(Kind::Corrupt, format!("row {} has the onset \"{text}\", not a number", number + 2)).at(path)
        })?;
        let timestep = (seconds * sfreq).round();
        if !(0.0..n_timestep as f64).contains(&timestep) {
            table.n_outside += 1;
            continue;
        }
        let length = duration.and_then(field).and_then(|d| d.parse::<f64>().ok()).unwrap_or(0.0);
        let duration = (length * sfreq).round().max(0.0) as usize;
        table.events.push(Event { onset: timestep as usize, duration, label: label.to_string() });
    }
    Ok(table)
}

fn read_npy(path: &Path, first_timestep: u64, n_timestep: usize) -> Result<Table> {
    let mut array = Array::open(path)?;
    let (n, width) = (array.n_row, array.n_column);
    let hint = "An MNE event array has three columns: timestep, previous value, id";
    if width != 3 {
        return Err(Error::new(Kind::Corrupt, format!("the array has {width} columns")).at(path).hint(hint));
    }
    let mut columns = vec![0.0; n * 3];
    array.timesteps(true, 0, n, &mut columns)?;
    let mut table = Table::default();
    for (&timestep, id) in columns[..n].iter().zip(&columns[2 * n..]) {
        let onset = timestep - first_timestep as f64;
        if (0.0..n_timestep as f64).contains(&onset) {
            table.events.push(Event { onset: onset as usize, duration: 0, label: id.to_string() });
        } else {
            table.n_outside += 1;
        }
    }
    Ok(table)
}

/// A tab-separated file with a row of column names, as BIDS writes them.
pub struct Rows {
    names: Vec<String>,
    /// Everything below the names; rows may be shorter than the names.
    pub rows: Vec<Vec<String>>,
}

impl Rows {
    /// Reads the whole file; bytes that are not UTF-8 (older files' units, µV) become replacement characters.
    pub fn read(path: &Path) -> Result<Self> {
        let mut reader = csv::ReaderBuilder::new()
            .delimiter(b'\t')
            .has_headers(false)
            .flexible(true)
            .quoting(false)
            .from_path(path)
            .map_err(|e| from_csv(e, path))?;
        let mut rows = Vec::new();
        for record in reader.byte_records() {
            let record = record.map_err(|e| from_csv(e, path))?;
            let fields = record.iter().map(|field| String::from_utf8_lossy(field).trim().to_string());
            rows.push(fields.collect::<Vec<_>>());
        }
        if rows.is_empty() {
            return Err(Error::new(Kind::Corrupt, "the table is empty").at(path));
        }
        let names = rows.remove(0).iter().map(|name| name.trim_start_matches('\u{feff}').to_string()).collect();
        Ok(Self { names, rows })
    }

    /// The number of the column called `name`.
    pub fn column(&self, name: &str) -> Option<usize> {
        self.names.iter().position(|n| n == name)
    }
}

fn from_csv(error: csv::Error, path: &Path) -> Error {
    let text = error.to_string();
    match error.into_kind() {
        csv::ErrorKind::Io(e) => Error::io(e, "read the table", path),
        _ => Error::new(Kind::Corrupt, format!("the table cannot be read: {text}")).at(path),
    }
}
