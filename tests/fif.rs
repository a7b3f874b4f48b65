//! FIF recordings that MNE-Python wrote, against what MNE-Python reads from them (`tests/fixtures/make_fif.py`).

#[path = "support/fif.rs"]
mod support;

use gpt2meg::error::Kind;
use gpt2meg::recording::{fif, stim::events_from_stim};
use serde_json::Value;
use std::path::{Path, PathBuf};
use support::{check_info, check_samples, events, expected_samples};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/fif").join(name)
}

/// Compares a fixture with the facts of `stem`.
fn check(name: &str, stem: &str) {
    let mut recording = fif::open(&fixture(name)).unwrap_or_else(|e| panic!("{e}"));
    let expected: Value =
        serde_json::from_str(&std::fs::read_to_string(fixture(&format!("{stem}.json"))).unwrap()).unwrap();
    check_info(&recording.info, &expected);
    let samples = expected_samples(&fixture(&format!("{stem}.npy")));
    let n = recording.info.n_timestep;
    assert_eq!(samples.len(), recording.info.n_channel() * n);
    assert!(samples.iter().any(|&x| x != 0.0));
    check_samples(&recording.read(0, n).unwrap(), 0, &samples, n);
    // In pieces that fit no buffer, backwards.
    for start in (0..n).step_by(37).collect::<Vec<_>>().into_iter().rev() {
        let length = 37.min(n - start);
        check_samples(&recording.read(start, length).unwrap(), start, &samples, n);
    }
    if !expected["triggers"].is_null() {
        assert_eq!(events_from_stim(&mut recording, None).unwrap(), events(&expected["triggers"]));
    }
}

#[test]
fn recordings_equal_what_mne_reads() {
    let mut n_checked = 0;
    for entry in std::fs::read_dir(fixture("")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let Some((stem, "json")) = name.rsplit_once('.') else { continue };
        let packed = fixture(&format!("{stem}.fif.gz")).exists();
        println!("{stem}");
        check(&format!("{stem}.fif{}", if packed { ".gz" } else { "" }), stem);
        n_checked += 1;
    }
    assert_eq!(n_checked, 22);
}

#[test]
fn what_is_no_real_recording_is_refused() {
    let error = |name: &str| fif::open(&fixture(name)).err().unwrap();
    let complex = error("complex_raw.fif");
    assert_eq!(complex.kind(), Kind::UnknownFormat);
    assert!(complex.to_string().contains("complex"), "{complex}");
    assert_eq!(error("single_raw.npy").kind(), Kind::UnknownFormat);
    assert_eq!(error("").kind(), Kind::UnknownFormat);
    assert_eq!(error("absent.fif").kind(), Kind::NotFound);
}

#[test]
fn a_missing_part_is_named() {
    for (name, part) in [
        ("split_raw.fif", "split_raw-1.fif"),
        ("sub-07_split-01_meg.fif", "sub-07_split-02_meg.fif"),
        ("number_raw.fif", "number_raw-1.fif"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let alone = folder.path().join(name);
        std::fs::copy(fixture(name), &alone).unwrap();
        let error = fif::open(&alone).err().unwrap();
        assert_eq!(error.kind(), Kind::NotFound);
        assert!(error.to_string().contains(&format!("{part}, which is missing")), "{error}");

        // A part of another recording under the right name.
        std::fs::copy(fixture("int16_raw.fif"), folder.path().join(part)).unwrap();
        let error = fif::open(&alone).err().unwrap();
        assert_eq!(error.kind(), Kind::ChannelMismatch);
        assert!(error.to_string().contains(part), "{error}");

        // The first part again: a ring.
        std::fs::remove_file(folder.path().join(part)).unwrap();
        std::fs::copy(fixture(name), folder.path().join(part)).unwrap();
        assert_eq!(fif::open(&alone).err().unwrap().kind(), Kind::Corrupt);
    }
}

#[test]
fn a_trigger_channel_can_be_chosen() {
    let mut recording = fif::open(&fixture("single_raw.fif")).unwrap();
    let chosen = events_from_stim(&mut recording, Some("STIM 004")).unwrap();
    assert_eq!(chosen, events_from_stim(&mut recording, None).unwrap());
    assert_eq!(chosen.iter().map(|e| e.label.as_str()).collect::<Vec<_>>(), ["5", "32", "64"]);
    assert_eq!(events_from_stim(&mut recording, Some("STIM 999")).unwrap_err().kind(), Kind::ChannelMismatch);
    let mut untriggered = fif::open(&fixture("int16_raw.fif")).unwrap();
    assert_eq!(events_from_stim(&mut untriggered, None).unwrap_err().kind(), Kind::ChannelMismatch);
}
