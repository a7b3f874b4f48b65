//! `gpt2meg simulate`.

use super::{Exit, Globals, Overwrite, progress, say, say_json, shown};
use crate::error::{Error, Kind, Result};
use crate::recording::events::table;
use crate::recording::npy::{self, Layout};
use crate::recording::simulate::{Config, Simulation};
use crate::recording::{ChannelKind, Info, Recording, Writer, fif, publish_described};
use crate::storage::atomic;
use crate::storage::disk::Os;
use crate::{ensure, interrupt};
use clap::Args;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Make recordings whose truth is known: 12 hidden states with their own rhythms, evoked responses, 1/f noise, on the
/// sensors of a 306-channel helmet. What lies behind a recording is saved beside it, as NAME_truth.safetensors.
///
///   gpt2meg simulate --out sim_raw.fif --hours 0.5
///   gpt2meg simulate --out sim.npy --channels 32 --sfreq 100
///   gpt2meg simulate --out study --subjects 10 --conditions 8 --bad 3 --artefacts
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub struct Simulate {
    /// A file (.fif or .npy) for one subject, or a folder, which is filled as BIDS asks (sub-01/meg/…).
    #[arg(long, value_name = "FILE|DIR")]
    out: PathBuf,
    /// Length of each recording in hours.
    #[arg(long, default_value_t = 0.25)]
    hours: f64,
    /// Number of MEG channels; 306 are a whole helmet (102 magnetometers, 204 planar gradiometers).
    #[arg(long, default_value_t = 306)]
    channels: usize,
    /// Number of subjects; with more than one, --out is a folder.
    #[arg(long, default_value_t = 1)]
    subjects: usize,
    /// Number of conditions, each with its own evoked response; 0 for a recording at rest.
    #[arg(long, default_value_t = 4)]
    conditions: usize,
    /// Sampling rate in Hz.
    #[arg(long, default_value_t = 250.0)]
    sfreq: f64,
    /// Number of bad channels, flat and noisy by turns, marked as bad.
    #[arg(long, default_value_t = 0)]
    bad: usize,
    /// Add blinks, slow drifts and jumps.
    #[arg(long)]
    artefacts: bool,
    /// Add a trigger channel, STI 014, that carries the condition's number at each onset.
    #[arg(long)]
    stim: bool,
    /// Orientation of a .npy file.
    #[arg(long, value_enum, default_value_t = Layout::TimeFirst)]
    layout: Layout,
    #[command(flatten)]
    pub(super) overwrite: Overwrite,
}

impl Simulate {
    /// Runs the command.
    pub fn run(self, globals: &Globals) -> Result<Exit> {
        let seconds = self.hours * 3600.0;
        let config = Config {
            seed: globals.seed,
            seconds,
            sfreq: self.sfreq,
            n_channel: self.channels,
            n_condition: self.conditions,
            n_bad: self.bad,
            artefacts: self.artefacts,
            stim: self.stim,
        };
        config.check(self.subjects.saturating_sub(1))?;
        self.check_name()?;
        let in_folder = self.is_folder();
        let files = self.files()?;
        // Nothing is begun that would be refused later.
        for file in &files {
            let all = match is_npy(file) {
                true => npy::files(file).to_vec(),
                false => fif::files(file, self.channels + usize::from(self.stim), self.sfreq, config.n_timestep())?,
            };
            all.iter().try_for_each(|file| atomic::refuse_existing(file, globals.force))?;
            atomic::refuse_existing(&truth_beside(file), globals.force)?;
        }
        for file in files.iter().filter(|_| in_folder) {
            for beside in [bids_name(file, "events.tsv"), bids_name(file, "channels.tsv"), file.with_extension("json")]
            {
                atomic::refuse_existing(&beside, globals.force)?;
            }
        }
        for name in [DESCRIPTION, PARTICIPANTS].into_iter().filter(|_| in_folder) {
            atomic::refuse_existing(&self.out.join(name), globals.force)?;
        }
        for folder in files.iter().filter(|_| in_folder).filter_map(|file| file.parent()) {
            std::fs::create_dir_all(folder).map_err(|e| Error::io(e, "create the folder", folder))?;
        }
        if in_folder {
            describe_study(&self.out, self.subjects, globals.force)?;
        }
        let mut written = Vec::new();
        for (index, file) in files.iter().enumerate() {
            let plan = Simulation::new(&config, index)?;
            let truth = plan.truth();
            let mut recording = plan.into_recording()?;
            let Some(writer) = self.write(&mut recording, file, globals)? else {
                return Ok(Exit::Signal(interrupt::requested().unwrap_or_default()));
            };
            let info = &recording.info;
            let mut beside = vec![truth.seal(Arc::new(Os), &truth_beside(file), globals.force)?];
            if in_folder {
                for (path, text) in [
                    (bids_name(file, "events.tsv"), table::text(&info.events, info.sfreq)),
                    (bids_name(file, "channels.tsv"), channel_table(info)),
                    (file.with_extension("json"), sidecar(info)),
                ] {
                    beside.push(atomic::sealed(Arc::new(Os), &path, globals.force, text.as_bytes())?);
                }
            }
            publish_described(&Os, writer, beside)?;
            if !globals.quiet && !globals.json {
                let (n_channel, minutes, n_trial) = (info.n_channel(), info.seconds() / 60.0, info.events.len());
                let (path, sfreq) = (file.display(), info.sfreq);
                say(format_args!("{path}: {n_channel} channels, {minutes:.1} min at {sfreq} Hz, {n_trial} trials"))?;
            }
            written.push(json!({
                "path": shown(file),
                "truth": shown(&truth_beside(file)),
                "subject": info.subject,
                "n_channel": info.n_channel(),
                "n_timestep": info.n_timestep,
                "sfreq": info.sfreq,
                "n_trial": info.events.len(),
            }));
        }
        if globals.json {
            say_json(json!({ "seed": globals.seed, "recordings": written }))?;
        }
        Ok(Exit::Done)
    }

    /// Refuses names of files that are not written; without this they would become folders.
    fn check_name(&self) -> Result<()> {
        const OTHERS: [&str; 12] =
            [".gz", ".npz", ".mat", ".edf", ".bdf", ".vhdr", ".set", ".h5", ".hdf5", ".csv", ".tsv", ".safetensors"];
        let name = self.out.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
        if let Some(other) = OTHERS.iter().find(|other| name.ends_with(**other)) {
            let what = format!("recordings are written as .fif or .npy, not as {other}");
            let hint = "Give such a name, or that of a folder; pack or convert the file afterwards";
            return Err(Error::new(Kind::Usage, what).at(&self.out).hint(hint));
        }
        Ok(())
    }

    /// Whether `--out` is a folder: any name that is not that of a recording.
    fn is_folder(&self) -> bool {
        !self.out.extension().is_some_and(|e| e == "fif" || e == "npy")
    }

    /// The recordings to write, one a subject.
    fn files(&self) -> Result<Vec<PathBuf>> {
        ensure!(self.subjects > 0, Kind::Usage, "no subjects, nothing to simulate");
        if !self.is_folder() {
            if self.subjects > 1 {
                let what = format!("{} subjects do not fit into one file", self.subjects);
                return Err(Error::new(Kind::Usage, what).at(&self.out).hint("Give the name of a folder"));
            }
            return Ok(vec![self.out.clone()]);
        }
        let file = |subject| {
            let folder = self.out.join(format!("sub-{subject:02}")).join("meg");
            folder.join(format!("sub-{subject:02}_task-sim_meg.fif"))
        };
        Ok((1..=self.subjects).map(file).collect())
    }

    /// Writes one recording, under temporary names still; `None` when a signal stopped it, and then no file is left.
    fn write(&self, recording: &mut Recording, file: &Path, globals: &Globals) -> Result<Option<Box<dyn Writer>>> {
        let info = recording.info.clone();
        let mut writer = match is_npy(file) {
            true => npy::create(file, &info, self.layout, globals.force)?,
            false => fif::create(file, &info, globals.force)?,
        };
        let bar = progress::bar(info.n_timestep as u64, "timesteps", globals.quiet);
        let mut start = 0;
        while start < info.n_timestep {
            if interrupt::requested().is_some() {
                return Ok(None);
            }
            let n = Recording::BLOCK.min(info.n_timestep - start);
            writer.write(&recording.read(start, n)?)?;
            start += n;
            bar.set_position(start as u64);
        }
        bar.finish_and_clear();
        writer.seal(&info.events)?;
        Ok(Some(writer))
    }
}

fn is_npy(file: &Path) -> bool {
    file.extension().is_some_and(|extension| extension == "npy")
}

/// `x_truth.safetensors` for `x.fif`.
fn truth_beside(file: &Path) -> PathBuf {
    let stem = file.file_stem().unwrap_or_default().to_string_lossy();
    file.with_file_name(format!("{stem}_truth.safetensors"))
}

/// `sub-01_task-sim_events.tsv` for `sub-01_task-sim_meg.fif`.
fn bids_name(file: &Path, what: &str) -> PathBuf {
    let stem = file.file_stem().unwrap_or_default().to_string_lossy();
    file.with_file_name(format!("{}_{what}", stem.trim_end_matches("_meg")))
}

/// What BIDS asks for at the top of a study.
const DESCRIPTION: &str = "dataset_description.json";
const PARTICIPANTS: &str = "participants.tsv";

/// Writes both.
fn describe_study(folder: &Path, n_subject: usize, force: bool) -> Result<()> {
    let description = json!({
        "Name": "Simulated MEG",
        "BIDSVersion": "1.9.0",
        "DatasetType": "raw",
        "GeneratedBy": [{ "Name": "gpt2meg", "Version": env!("CARGO_PKG_VERSION") }],
    });
    write_text(&folder.join(DESCRIPTION), &format!("{description:#}\n"), force)?;
    let rows: String = (1..=n_subject).map(|subject| format!("sub-{subject:02}\n")).collect();
    write_text(&folder.join(PARTICIPANTS), &format!("participant_id\n{rows}"), force)
}

/// The table of channels that BIDS asks for beside a recording.
fn channel_table(info: &Info) -> String {
    let mut text = String::from("name\ttype\tunits\tstatus\n");
    for channel in &info.channels {
        let (kind, units) = match channel.kind {
            ChannelKind::Mag => ("MEGMAG", "T"),
            ChannelKind::Grad => ("MEGGRADPLANAR", "T/m"),
            _ => ("TRIG", "n/a"),
        };
        let status = if channel.bad { "bad" } else { "good" };
        text += &format!("{}\t{kind}\t{units}\t{status}\n", channel.name);
    }
    text
}

/// The description that BIDS asks for beside a recording.
fn sidecar(info: &Info) -> String {
    let sidecar = json!({
        "TaskName": "sim",
        "SamplingFrequency": info.sfreq,
        "PowerLineFrequency": "n/a",
        "DewarPosition": "upright",
        "SoftwareFilters": "n/a",
        "DigitizedLandmarks": true,
        "DigitizedHeadPoints": true,
    });
    format!("{sidecar:#}\n")
}

fn write_text(path: &Path, text: &str, force: bool) -> Result<()> {
    atomic::sealed(Arc::new(Os), path, force, text.as_bytes())?.publish()
}
