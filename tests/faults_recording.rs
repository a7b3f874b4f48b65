//! Recordings that replace others, on a disk whose every call may fail and on a machine that may stop after any of them:
//! the old recording stands whole, or the new one does, or (where several files have to be replaced) there is none; never
//! a mixture.

#[path = "support/faulty.rs"]
mod faulty;

use faulty::{Call, Fault, Faulty, crash_state, files, names, restore, scratch};
use gpt2meg::error::{Kind, Result};
use gpt2meg::recording::npy::{Layout, NpyOptions};
use gpt2meg::recording::{Block, Channel, ChannelKind, Event, Info, Writer, fif, npy, publish_described};
use gpt2meg::storage::atomic;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const N_CHANNEL: usize = 3;

/// What is written.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Format {
    /// One file.
    Fif,
    /// As many files as there are seconds.
    SplitFif,
    /// With its description and events beside it; laid out for more timesteps than come.
    Npy,
    /// A recording, and another file that must describe this one and no other.
    Described,
}

const FORMATS: [Format; 4] = [Format::Fif, Format::SplitFif, Format::Npy, Format::Described];

/// Versions differ in length, so in the number of their parts, both ways.
fn n_timestep(version: u8) -> usize {
    [0, 30, 40, 20][usize::from(version)]
}

fn info(version: u8) -> Info {
    let channel = |i| Channel {
        name: format!("MEG {i:03}"),
        kind: ChannelKind::Mag,
        loc: [0.0; 12],
        coil_type: 3024,
        coord_frame: 1,
        bad: false,
    };
    Info {
        channels: (0..N_CHANNEL).map(channel).collect(),
        sfreq: 10.0,
        n_timestep: n_timestep(version) + 5,
        first_timestep: 0,
        events: vec![],
        subject: None,
        pass_band: (0.0, f64::from(version)),
        meas_date: None,
        line_freq: None,
        dev_head_t: None,
        dig: vec![],
        description: None,
        source: String::new(),
    }
}

fn path(format: Format, folder: &Path) -> PathBuf {
    folder.join(if format == Format::Npy { "x.npy" } else { "x_raw.fif" })
}

/// Writes a recording that has its version as every sample, and as the onset of its event.
fn save(disk: &Faulty, format: Format, folder: &Path, version: u8) -> Result<()> {
    let disk = Arc::new(disk.clone());
    let (path, info) = (path(format, folder), info(version));
    let mut writer: Box<dyn Writer> = match format {
        Format::Npy => npy::create_on(disk.clone(), &path, &info, Layout::ChannelsFirst, true)?,
        Format::SplitFif => fif::create_on(disk.clone(), &path, &info, true, 0)?,
        Format::Fif | Format::Described => fif::create_on(disk.clone(), &path, &info, true, 1 << 30)?,
    };
    let mut block = Block::zeros(N_CHANNEL, n_timestep(version));
    block.data.fill(f64::from(version));
    writer.write(&block)?;
    let events = [Event { onset: version.into(), duration: 0, label: "e".into() }];
    if format != Format::Described {
        return writer.finish(&events);
    }
    writer.seal(&events)?;
    let beside = atomic::sealed(disk.clone(), &folder.join("truth"), true, &[version; 600])?;
    publish_described(&*disk, writer, vec![beside])
}

/// The version that stands there; `None` where there is no recording. Everything must be of one version.
fn load(format: Format, folder: &Path) -> Option<u8> {
    let path = path(format, folder);
    if !path.exists() {
        return None;
    }
    let opened = if format == Format::Npy { npy::open(&path, &NpyOptions::default()) } else { fif::open(&path) };
    let mut recording = opened.unwrap_or_else(|e| panic!("{e}"));
    let version = recording.info.events[0].onset as u8;
    assert_eq!(recording.info.n_timestep, n_timestep(version), "the length of another version");
    assert_eq!(recording.info.pass_band.1, f64::from(version), "the description of another version");
    let block = recording.read(0, recording.info.n_timestep).unwrap();
    assert!(block.data.iter().all(|&x| x == f64::from(version)), "samples of another version");
    if let Ok(truth) = std::fs::read(folder.join("truth")) {
        assert!(truth == [version; 600], "the truth of another version");
    }
    Some(version)
}

#[test]
fn any_call_may_fail() {
    for format in FORMATS {
        let n_call = {
            let (folder, disk) = (scratch(), Faulty::default());
            save(&Faulty::default(), format, folder.path(), 1).unwrap();
            save(&disk, format, folder.path(), 2).unwrap();
            disk.calls().len()
        };
        for call in 0..n_call {
            for fault in [Fault::DiskFull, Fault::Eio, Fault::Short] {
                for persistent in [false, true] {
                    let case = format!("{format:?}, call {call}, {fault:?}, persistent: {persistent}");
                    let folder = scratch();
                    save(&Faulty::default(), format, folder.path(), 1).unwrap();
                    let disk = Faulty::failing(call, fault, persistent);
                    let outcome = save(&disk, format, folder.path(), 2);
                    let calls = disk.calls();
                    let version = load(format, folder.path());
                    match outcome {
                        Ok(()) => assert_eq!(version, Some(2), "{case}"),
                        Err(error) => {
                            assert_eq!(error.kind(), Kind::Io, "{case}: {error}");
                            assert!(error.to_string().contains(folder.path().to_str().unwrap()), "{case}: {error}");
                            // Whatever a full disk can refuse comes before the first name changes.
                            if matches!(
                                calls[call],
                                Call::Create(_) | Call::Write { .. } | Call::SetLen { .. } | Call::Sync(_)
                            ) {
                                assert_eq!(version, Some(1), "{case}");
                            }
                            let full = matches!(calls[call], Call::Write { .. } | Call::Sync(_)) && fault != Fault::Eio;
                            assert!(!full || error.to_string().contains("100 are free"), "{case}: {error}");
                        }
                    }
                    save(&Faulty::default(), format, folder.path(), 3).unwrap();
                    assert_eq!(load(format, folder.path()), Some(3), "{case}");
                    let left = names(folder.path()).into_iter().filter(|name| name.starts_with('.'));
                    assert_eq!(left.count(), 0, "{case}");
                }
            }
        }
    }
}

#[test]
fn every_crash_leaves_one_version_or_none() {
    let mut random = ChaCha8Rng::seed_from_u64(12);
    for format in FORMATS {
        for (before, after) in [(1, 2), (1, 3)] {
            let (folder, disk) = (scratch(), Faulty::default());
            save(&Faulty::default(), format, folder.path(), before).unwrap();
            let old = files(folder.path());
            save(&disk, format, folder.path(), after).unwrap();
            let calls = disk.calls();
            let first_removed = calls.iter().position(|call| matches!(call, Call::Remove(_))).unwrap_or(calls.len());
            let (mut n_old, mut n_new, mut n_none) = (0, 0, 0);
            for end in 0..=calls.len() {
                for _ in 0..60 {
                    let crashed = scratch();
                    restore(&crash_state(&calls[..end], &old, &mut random), crashed.path());
                    match load(format, crashed.path()) {
                        None => n_none += 1,
                        Some(version) if version == before => n_old += 1,
                        Some(version) => {
                            assert_eq!(version, after);
                            n_new += 1;
                        }
                    }
                    assert!(end > first_removed || path(format, crashed.path()).exists(), "{format:?}, {end} calls");
                }
            }
            assert!(n_old > 100 && n_new > 20, "{format:?}: {n_old} old, {n_new} new, {n_none} none");
            // One file replaces one in a single step.
            assert_eq!(n_none == 0, matches!(format, Format::Fif | Format::Described), "{format:?}: {n_none}");
        }
    }
}
