//! BIDS data sets: where their recordings are, and what the tables beside them say.

use super::events::table::Rows;
use super::open::{Listing, Source, continues, file_name, goes_on_from, sorted_entries};
use super::{ChannelKind, Info};
use crate::error::{Error, Kind, Result};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The files that describe a recording, as far as they exist.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sidecars {
    /// The subject: `01` of `sub-01`.
    pub subject: String,
    /// `_channels.tsv`: types and bad channels.
    pub channels: Option<PathBuf>,
    /// `_events.tsv`.
    pub events: Option<PathBuf>,
    /// `_meg.json` or `_eeg.json`: the mains frequency.
    pub description: Option<PathBuf>,
}

/// A file name taken apart: `sub-01_task-rest_meg.fif` is {sub: 01, task: rest}, `meg`, `fif`.
struct Name {
    entities: BTreeMap<String, String>,
    suffix: String,
    extension: String,
}

impl Name {
    fn parse(path: &Path) -> Option<Self> {
        let name = file_name(path);
        let (stem, extension) = name.split_once('.')?;
        let mut parts: Vec<&str> = stem.split('_').collect();
        let suffix = parts.pop()?.to_string();
        let pair = |part: &&str| part.split_once('-').map(|(key, value)| (key.to_string(), value.to_string()));
        let entities = parts.iter().map(pair).collect::<Option<_>>()?;
        Some(Self { entities, suffix, extension: extension.to_string() })
    }

    fn entity(&self, key: &str) -> Option<&str> {
        self.entities.get(key).map(String::as_str)
    }
}

/// Whether the folder is a data set, or one subject of one.
pub fn is_dataset(folder: &Path) -> bool {
    let has_subjects =
        || sorted_entries(folder).is_ok_and(|e| e.iter().any(|p| file_name(p).starts_with("sub-") && p.is_dir()));
    folder.join("dataset_description.json").exists() || file_name(folder).starts_with("sub-") || has_subjects()
}

/// Finds the recordings of a data set: `sub-*/[ses-*/](meg|eeg)/*_(meg|eeg).fif`.
pub fn list(root: &Path) -> Result<Listing> {
    let mut listing = Listing::default();
    let folders = |folder: &Path, prefix: &str| -> Result<Vec<PathBuf>> {
        let mut entries = sorted_entries(folder)?;
        entries.retain(|path| file_name(path).starts_with(prefix) && path.is_dir());
        Ok(entries)
    };
    let subjects = if file_name(root).starts_with("sub-") { vec![root.to_path_buf()] } else { folders(root, "sub-")? };
    for subject in subjects {
        let mut visits = folders(&subject, "ses-")?;
        visits.push(subject);
        for modality in visits.iter().flat_map(|visit| [visit.join("meg"), visit.join("eeg")]) {
            if modality.is_dir() {
                for path in sorted_entries(&modality)? {
                    consider(&path, &mut listing);
                }
            }
        }
    }
    Ok(listing)
}

/// Sorts one entry of a modality's folder into the listing; descriptions and tables do not count.
fn consider(path: &Path, listing: &mut Listing) {
    let Some(name) = Name::parse(path) else { return };
    if !matches!(name.suffix.as_str(), "meg" | "eeg") || name.extension == "json" {
        return;
    }
    if !matches!(name.extension.as_str(), "fif" | "fif.gz") {
        // A BrainVision or EEGLAB recording is several files: name it once.
        if !matches!(name.extension.as_str(), "eeg" | "vmrk" | "fdt" | "dat") {
            listing.skip(path, format!("recordings in .{} are not read; convert them to FIF", name.extension));
        }
    } else if matches!(name.entity("acq"), Some("crosstalk" | "calibration")) {
        listing.skip(path, "holds the system's calibration, not a recording");
    } else if name.entity("sub") == Some("emptyroom") {
        listing.skip(path, "is a recording of the empty room");
    } else if !path.exists() {
        listing.skip(path, "is a link to content that is not here (git-annex or DataLad: fetch it first)");
    } else if let Some(before) = continues(path) {
        listing.skip(path, goes_on_from(&before));
    } else if name.entity("split").is_some_and(|number| number.trim_start_matches('0') != "1") {
        listing.skip(path, "by its name a later part of a recording, but no first part (split-01) leads to it");
    } else {
        match Source::at(path) {
            Ok(source) => listing.found.push(source),
            Err(error) => listing.skip(path, error.to_string()),
        }
    }
}

/// The files that describe the recording `path`; `None` when its name does not follow BIDS.
///
/// A table may lie beside the recording or in any folder above it up to the data set's own; it applies when its name
/// has no other entities than the recording's. The nearest folder and, there, the longest name wins.
pub fn sidecars(path: &Path) -> Option<Sidecars> {
    let name = Name::parse(path).filter(|name| matches!(name.suffix.as_str(), "meg" | "eeg"))?;
    let subject = name.entity("sub")?.to_string();
    let find = |suffix: &str, extension: &str| {
        let mut folder = path.parent();
        // The recording's folder, the session's, the subject's, the data set's.
        for _ in 0..4 {
            let applies = |candidate: &PathBuf| {
                Name::parse(candidate).is_some_and(|c| {
                    let inherits = c.entities.iter().all(|(key, value)| name.entity(key) == Some(value));
                    c.suffix == suffix && c.extension == extension && inherits
                })
            };
            let here = match folder {
                Some(folder) if folder.as_os_str().is_empty() => sorted_entries(Path::new(".")),
                Some(folder) => sorted_entries(folder),
                None => break,
            };
            let matching = here.unwrap_or_default().into_iter().filter(applies);
            if let Some(best) = matching.max_by_key(|candidate| file_name(candidate).len()) {
                return Some(best);
            }
            folder = folder.and_then(Path::parent);
        }
        None
    };
    Some(Sidecars {
        subject,
        channels: find("channels", "tsv"),
        events: find("events", "tsv"),
        description: find(&name.suffix, "json"),
    })
}

impl Sidecars {
    /// Puts into `info` what the files say: subject, bad channels, types of channels that are not MEG, mains frequency.
    pub fn apply(&self, info: &mut Info, notes: &mut Vec<String>) -> Result<()> {
        info.subject = Some(self.subject.clone());
        if let Some(path) = &self.channels {
            apply_channels(path, info, notes)?;
        }
        if let Some(path) = &self.description {
            let text = std::fs::read(path).map_err(|e| Error::io(e, "read the description", path))?;
            let value: serde_json::Value = serde_json::from_slice(&text)
                .map_err(|e| Error::new(Kind::Corrupt, format!("the description is not JSON: {e}")).at(path))?;
            let mains = value.get("PowerLineFrequency").and_then(serde_json::Value::as_f64);
            info.line_freq = mains.filter(|f| *f > 0.0).or(info.line_freq);
        }
        Ok(())
    }
}

fn apply_channels(path: &Path, info: &mut Info, notes: &mut Vec<String>) -> Result<()> {
    let rows = Rows::read(path)?;
    let missing = || Error::new(Kind::Corrupt, "the table has no column name").at(path);
    let name_column = rows.column("name").ok_or_else(missing)?;
    let (type_column, status_column) = (rows.column("type"), rows.column("status"));
    let mut unknown = Vec::new();
    for row in &rows.rows {
        let field = |column: Option<usize>| column.and_then(|column| row.get(column)).map_or("", String::as_str);
        let name = field(Some(name_column));
        let Some(channel) = info.channels.iter_mut().find(|channel| channel.name == name) else {
            unknown.push(name.to_string());
            continue;
        };
        match field(status_column) {
            "bad" => channel.bad = true,
            "good" => channel.bad = false,
            _ => {}
        }
        // The file knows its MEG sensors better: coil and unit belong together.
        let is_meg = |kind| matches!(kind, ChannelKind::Mag | ChannelKind::Grad | ChannelKind::RefMeg);
        if let Some(kind) = kind_of(field(type_column)).filter(|_| !is_meg(channel.kind)) {
            channel.kind = kind;
        }
    }
    if let Some(first) = unknown.first() {
        notes.push(format!("{} of {} are not in the recording ({first})", unknown.len(), file_name(path)));
    }
    Ok(())
}

/// The kind that a BIDS channel type stands for, MEG sensors excepted.
fn kind_of(channel_type: &str) -> Option<ChannelKind> {
    Some(match channel_type {
        "EEG" => ChannelKind::Eeg,
        "EOG" | "VEOG" | "HEOG" => ChannelKind::Eog,
        "ECG" => ChannelKind::Ecg,
        "EMG" => ChannelKind::Emg,
        "TRIG" => ChannelKind::Stim,
        "MISC" | "OTHER" | "AUDIO" | "EYEGAZE" | "PUPIL" | "SYSCLOCK" | "ADC" | "DAC" | "HLU" | "FITERR" => {
            ChannelKind::Misc
        }
        _ => return None,
    })
}
