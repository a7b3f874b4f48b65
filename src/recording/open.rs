//! Opening whatever the user names: a file by its content, a BIDS folder, a folder of recordings.

use super::bids::{self, Sidecars};
use super::events::table;
use super::marks::marks_signal;
use super::npy::{self, Layout, NpyOptions};
use super::{ChannelKind, Event, Info, Recording, Writer, fif, stem_and_extension, stim};
use crate::error::{Error, Kind, Result};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Where the events come from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum EventsFrom {
    /// The first of these that has any: a table beside the recording, a trigger channel, annotations.
    #[default]
    Auto,
    /// A trigger channel.
    Stim,
    /// The annotations in the file; those that begin with BAD or EDGE mark stretches of signal and are left out.
    Annotations,
    /// The table beside the recording (`_events.tsv`).
    Bids,
}

/// How to open recordings.
#[derive(Debug, Clone, Default)]
pub struct OpenOptions {
    /// What `.npy` files do not say of themselves.
    pub npy: NpyOptions,
    /// Where the events come from.
    pub events_from: EventsFrom,
    /// A table of events that replaces all others; see [`table::read`].
    pub events: Option<PathBuf>,
    /// The trigger channel, where the usual names do not do.
    pub stim_channel: Option<String>,
}

/// The formats we read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// FIF, gzipped or not.
    Fif,
    /// A numpy array.
    Npy,
}

/// A recording that was found and can be opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Its first file.
    pub path: PathBuf,
    /// Its format.
    pub format: Format,
    /// The name of the file without extension.
    pub name: String,
    /// What lies beside it, where its name follows BIDS.
    pub bids: Option<Sidecars>,
}

/// A file that was passed over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// The file.
    pub path: PathBuf,
    /// Why.
    pub why: String,
}

/// What a path holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    /// Recordings, sorted by path.
    pub found: Vec<Source>,
    /// Files that look like recordings and are not read.
    pub skipped: Vec<Skipped>,
}

impl Listing {
    /// Notes a file that is not read.
    pub fn skip(&mut self, path: &Path, why: impl Into<String>) {
        self.skipped.push(Skipped { path: path.into(), why: why.into() });
    }
}

/// An open recording, and what the user should hear about it.
pub struct Opened {
    /// Its events are those of the source chosen.
    pub recording: Recording,
    /// Where the events come from, in words; empty when there are none.
    pub events_from: String,
    /// Annotations about the signal (BAD, EDGE) and gaps in the acquisition, from the file and from the source of the
    /// events; see [`super::marks`].
    pub marks: Vec<Event>,
    /// Peculiarities worth a line each.
    pub notes: Vec<String>,
}

/// Opens every recording at `path`: see [`list`] for what was passed over, and [`Source::open`] for one at a time.
pub fn open(path: &Path, options: &OpenOptions) -> Result<Vec<Recording>> {
    list(path)?.found.iter().map(|source| Ok(source.open(options)?.recording)).collect()
}

/// Finds the recordings at `path`: a file, a BIDS data set (or one subject of it), or a folder of files. At least one,
/// or an error that says what is there instead.
pub fn list(path: &Path) -> Result<Listing> {
    let about = path.metadata().map_err(|e| Error::io(e, "open the recording", path))?;
    if about.is_file() {
        return Ok(Listing { found: vec![file(path)?], skipped: Vec::new() });
    }
    let listing = if bids::is_dataset(path) { bids::list(path)? } else { list_folder(path)? };
    if listing.found.is_empty() {
        let seen = match listing.skipped.first() {
            Some(Skipped { path, why }) => {
                format!("{} files were passed over; {}: {why}", listing.skipped.len(), path.display())
            }
            None => "it has no .fif or .npy file and no BIDS subjects (sub-…)".to_string(),
        };
        let what = format!("the folder holds no recording that is read: {seen}");
        return Err(Error::new(Kind::UnknownFormat, what).at(path).hint(CONVERT));
    }
    Ok(listing)
}

/// The recording that begins in this one file; a later part of another is refused.
pub fn file(path: &Path) -> Result<Source> {
    let Some(before) = continues(path) else { return Source::at(path) };
    let what = "the file is a later part of a recording, which is read from its first";
    let name = file_name(&before);
    Err(Error::new(Kind::Usage, what).at(path).hint(match before.exists() && before != path {
        true => format!("{name} comes before it: give the recording's first file alone, or the folder"),
        false => format!("It was written after {name}; where that is lost, MNE-Python can save this one as a whole"),
    }))
}

/// Why a file that goes on from `before` is not listed.
pub(super) fn goes_on_from(before: &Path) -> String {
    format!("goes on from {}{}", file_name(before), if before.exists() { "" } else { ", which is missing" })
}

const CONVERT: &str = "Read are FIF, npy and BIDS folders of FIF; MNE-Python converts others: raw.save(\"x_raw.fif\")";

/// The recordings in a folder without order: every FIF and npy file that is one.
fn list_folder(folder: &Path) -> Result<Listing> {
    let mut listing = Listing::default();
    for path in sorted_entries(folder)? {
        let name = file_name(&path);
        let is_fif = name.ends_with(".fif") || name.ends_with(".fif.gz");
        if !is_fif && !name.ends_with(".npy") {
            continue;
        }
        if let Some(what) = is_fif.then(|| not_raw(&name)).flatten() {
            listing.skip(&path, format!("holds {what}, not a recording"));
        } else if let Some(before) = continues(&path) {
            listing.skip(&path, goes_on_from(&before));
        } else {
            match Source::at(&path) {
                Ok(source) => listing.found.push(source),
                Err(error) => listing.skip(&path, error.to_string()),
            }
        }
    }
    Ok(listing)
}

/// Names that MNE reserves for FIF files other than recordings.
fn not_raw(name: &str) -> Option<&'static str> {
    let (stem, _) = stem_and_extension(name);
    let kinds = [
        ("epo", "epochs"),
        ("ave", "averages"),
        ("eve", "events"),
        ("cov", "a covariance"),
        ("ica", "an ICA"),
        ("trans", "a transform"),
        ("fwd", "a forward model"),
        ("inv", "an inverse operator"),
        ("src", "a source space"),
        ("bem", "a head model"),
        ("proj", "projectors"),
        ("annot", "annotations"),
    ];
    let ends = |suffix: &str| stem.strip_suffix(suffix).is_some_and(|rest| rest.ends_with(['-', '_']));
    kinds.iter().find(|(suffix, _)| ends(suffix)).map(|&(_, what)| what)
}

/// The file that `path` goes on from, where it is a later part of a recording: it says so itself, or the first part, by
/// the names (`x_split-01_meg.fif`, `x.fif` of `x-1.fif`), leads to it. Names alone say nothing.
pub(super) fn continues(path: &Path) -> Option<PathBuf> {
    let name = file_name(path);
    let (stem, extension) = stem_and_extension(&name);
    // A pipe is not opened to be asked.
    if !extension.starts_with(".fif") || !path.is_file() {
        return None;
    }
    let split = first_of_split(stem).map(|first| path.with_file_name(first + extension));
    let first = split.clone().or_else(|| Some(path.with_file_name(first_of_numbered(stem)? + extension)));
    // To be asked, a packed file is unpacked: only where its name gives reason to.
    let said = if extension == ".fif" || first.is_some() { fif::previous_part(path) } else { None };
    let leads_here = |first: &PathBuf| extension == ".fif" && fif::later_parts(first).iter().any(|part| part == path);
    match said {
        Some(said) if said.exists() && said != path => Some(said),
        // The first part was renamed, as MNE itself does in the end to that of a BIDS recording.
        Some(said) => first.filter(leads_here).or(split).or(Some(said)),
        None => first.filter(leads_here),
    }
}

/// `x_split-01_meg` of `x_split-02_meg`.
fn first_of_split(stem: &str) -> Option<String> {
    let (before, rest) = stem.split_once("_split-")?;
    let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let number: u32 = rest[..digits].parse().ok()?;
    (number > 1).then(|| format!("{before}_split-{:0digits$}{}", 1, &rest[digits..]))
}

/// `x` of `x-1`.
fn first_of_numbered(stem: &str) -> Option<String> {
    let (before, number) = stem.rsplit_once('-')?;
    (!number.is_empty() && number.bytes().all(|b| b.is_ascii_digit())).then(|| before.to_owned())
}

pub(super) fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// The entries of a folder in the order of their names; hidden ones do not count.
pub(super) fn sorted_entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let failed = |e| Error::io(e, "read the folder", folder);
    let entries = std::fs::read_dir(folder).map_err(failed)?.map(|entry| entry.map(|e| e.path()));
    let mut entries: Vec<PathBuf> = entries.collect::<std::io::Result<_>>().map_err(failed)?;
    entries.retain(|path| !file_name(path).starts_with('.'));
    entries.sort();
    Ok(entries)
}

/// Tells the format of a file by its first bytes.
fn format_of(path: &Path) -> Result<Format> {
    let mut start = Vec::new();
    if path.metadata().is_ok_and(|about| !about.is_file()) {
        return Err(Error::new(Kind::UnknownFormat, "not a regular file").at(path));
    }
    let read = File::open(path).and_then(|file| file.take(16).read_to_end(&mut start));
    read.map_err(|e| Error::io(e, "open the recording", path))?;
    // A FIF file begins with its identification: tag 100 of type 31, 20 bytes, big-endian.
    const FIF: [u8; 12] = [0, 0, 0, 100, 0, 0, 0, 31, 0, 0, 0, 20];
    const OTHERS: [(&[u8], &str); 8] = [
        (b"\x89HDF", "an HDF5 file (MATLAB 7.3, EEGLAB or braindecode)"),
        (b"MATLAB 5", "a MATLAB file"),
        (b"PK\x03\x04", "a zip archive (or .npz)"),
        (b"0       ", "an EDF recording"),
        (b"\xffBIOSEMI", "a BDF recording"),
        (b"Brain Vis", "a BrainVision header"),
        (b"MEG41CP", "a part of a CTF recording"),
        (b"\x1f\x8b", "a gzipped file that is not called .fif.gz"),
    ];
    if start.is_empty() {
        return Err(Error::new(Kind::EmptyRecording, "the file is empty").at(path));
    }
    if start.starts_with(npy::MAGIC) {
        return Ok(Format::Npy);
    }
    if start.starts_with(&FIF) || (start.starts_with(b"\x1f\x8b") && file_name(path).ends_with(".fif.gz")) {
        return Ok(Format::Fif);
    }
    let other = OTHERS.iter().find(|(magic, _)| start.starts_with(magic)).map(|(_, what)| (*what).to_string());
    let what = other.unwrap_or_else(|| format!("a file that begins with \"{}\"", start.escape_ascii()));
    Err(Error::new(Kind::UnknownFormat, format!("this is {what}, no recording that is read")).at(path).hint(CONVERT))
}

impl Source {
    /// The recording in this one file, whatever it may go on from; see [`file`].
    pub(super) fn at(path: &Path) -> Result<Self> {
        let name = file_name(path);
        // A name of ours must not begin with a dot: that is how files are called that are being written.
        let name = match stem_and_extension(&name).0.trim_start_matches('.') {
            "" => "recording".to_string(),
            name => name.to_string(),
        };
        Ok(Self { path: path.into(), format: format_of(path)?, name, bids: bids::sidecars(path) })
    }

    /// Opens it. Its events are read; its samples are not.
    pub fn open(&self, options: &OpenOptions) -> Result<Opened> {
        let mut notes = Vec::new();
        let mut recording = match self.format {
            Format::Fif => fif::open(&self.path)?,
            Format::Npy => npy::open(&self.path, &options.npy)?,
        };
        if let Some(sidecars) = &self.bids {
            sidecars.apply(&mut recording.info, &mut notes)?;
        }
        let (mut marks, annotations) = apart(std::mem::take(&mut recording.info.events));
        recording.info.events = annotations;
        let chosen = self.events(&mut recording, options, &mut notes)?;
        let events_from = chosen.as_ref().map_or_else(String::new, |(_, from)| from.clone());
        // A table may repeat the file's annotations, as MNE-BIDS writes it.
        let (more, events) = apart(chosen.map_or_else(Vec::new, |(events, _)| events));
        marks.extend(more);
        marks.sort();
        marks.dedup();
        if !marks.is_empty() {
            notes.push(format!("{} annotations mark stretches of signal (BAD, EDGE)", marks.len()));
        }
        recording.info.events = events;
        recording.info.check().map_err(|e| e.at(&self.path))?;
        Ok(Opened { recording, events_from, marks, notes })
    }

    /// The events from the source that the user wants, or from the first that has any, and what that is.
    fn events(
        &self,
        recording: &mut Recording,
        options: &OpenOptions,
        notes: &mut Vec<String>,
    ) -> Result<Option<(Vec<Event>, String)>> {
        use EventsFrom::{Annotations, Auto, Bids, Stim};
        if let Some(path) = &options.events {
            return Ok(Some((read_table(path, &recording.info, notes)?, path.display().to_string())));
        }
        let from = options.events_from;
        let table = match (&self.bids, self.format) {
            (Some(sidecars), _) if sidecars.events.is_some() => sidecars.events.clone(),
            _ => Some(table::beside(&self.path)).filter(|path| path.exists()),
        };
        if let (Auto | Bids, Some(path)) = (from, &table) {
            return Ok(Some((read_table(path, &recording.info, notes)?, file_name(path))));
        }
        if from == Bids {
            let what = "there is no table of events beside the recording";
            return Err(Error::new(Kind::NotFound, what).at(&self.path).hint("Name one with --events"));
        }
        let has_stim = recording.info.channels.iter().any(|channel| channel.kind == ChannelKind::Stim);
        if from == Stim || (from == Auto && (has_stim || options.stim_channel.is_some())) {
            let events = stim::events_from_stim(recording, options.stim_channel.as_deref())?;
            if !events.is_empty() || from == Stim {
                return Ok(Some((events, "the trigger channel".to_string())));
            }
        }
        let events = recording.info.events.clone();
        let any = !events.is_empty() || from == Annotations;
        Ok(any.then(|| (events, "the annotations".to_string())))
    }
}

/// Annotations about the signal, and things that happened.
fn apart(events: Vec<Event>) -> (Vec<Event>, Vec<Event>) {
    events.into_iter().partition(|event| marks_signal(&event.label))
}

fn read_table(path: &Path, info: &Info, notes: &mut Vec<String>) -> Result<Vec<Event>> {
    let table = table::read(path, info.sfreq, info.first_timestep, info.n_timestep)?;
    for (n, what) in [(table.n_outside, "lie outside the recording"), (table.n_unlabelled, "have no onset or label")] {
        if n > 0 {
            notes.push(format!("{n} rows of {} {what}", file_name(path)));
        }
    }
    Ok(table.events)
}

/// Starts to write a recording of the channels in `info`, in the format that the name asks for: `.fif` or `.npy`
/// (float32, oriented by `layout`). See [`fif::create`] and [`npy::create`].
pub fn create(path: &Path, info: &Info, layout: Layout, force: bool) -> Result<Box<dyn Writer>> {
    let name = file_name(path);
    if name.ends_with(".npy") {
        npy::create(path, info, layout, force)
    } else if name.ends_with(".fif") {
        fif::create(path, info, force)
    } else {
        let what = "the format to write follows from the name, which ends neither in .fif nor in .npy";
        Err(Error::new(Kind::Usage, what).at(path).hint("Choose a name such as generated_raw.fif or generated.npy"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Only the extension is no part of a name: two sessions that differ after a dot are two recordings.
    #[test]
    fn names_of_recordings() {
        let folder = tempfile::tempdir().unwrap();
        for (file, name) in [
            ("sub-01.a_raw.fif", "sub-01.a_raw"),
            ("x.fif.gz", "x"),
            ("x.npy", "x"),
            ("x", "x"),
            (".hidden.npy", "hidden"),
            ("..npy", "recording"),
        ] {
            let path = folder.path().join(file);
            let start: &[u8] = if file.ends_with(".gz") { b"\x1f\x8b" } else { npy::MAGIC };
            std::fs::write(&path, start).unwrap();
            assert_eq!(Source::at(&path).unwrap().name, name, "{file}");
        }
    }
}
