//! What is written is read back, in one part or many, and nothing is left behind when it is not finished.

use super::*;
use crate::error::Kind;
use crate::recording::{Block, Channel, ChannelKind, DigPoint, Event};

/// A recording of all kinds of channels whose samples are all different.
fn info(n_channel: usize) -> Info {
    use ChannelKind::*;
    let kinds = [Mag, Grad, RefMeg, Eeg, Stim, Eog, Ecg, Emg, Misc];
    let frames = [1, 1, 1, 4, 0, 0, 0, 0, 0];
    let channel = |i: usize| Channel {
        // Most names fit FIF's 15 characters; some do not, and two of those agree in the first 15.
        name: if i % 4 == 3 { format!("a long channel name {i}") } else { format!("MEG {i:04}") },
        kind: kinds[i % kinds.len()],
        loc: std::array::from_fn(|k| (i * 12 + k) as f32 * 1e-3),
        // MNE-Python knows only some types for an electrode, and any for the others.
        coil_type: if kinds[i % kinds.len()] == Eeg { 1 } else { 3000 + i as i32 },
        coord_frame: frames[i % kinds.len()],
        bad: i % 5 == 3,
    };
    let point = |kind, ident| DigPoint { kind, ident, position: [0.01, -0.02, ident as f32], coord_frame: 4 };
    Info {
        channels: (0..n_channel).map(channel).collect(),
        sfreq: 100.0,
        n_timestep: 0,
        first_timestep: 25_800,
        events: vec![],
        subject: Some("01".into()),
        pass_band: (0.5, 45.0),
        meas_date: Some((1_038_942_071, 201_560)),
        line_freq: Some(60.0),
        dev_head_t: Some([[0.0, -1.0, 0.0, 0.1], [1.0, 0.0, 0.0, 0.2], [0.0, 0.0, 1.0, 0.3], [0.0, 0.0, 0.0, 1.0]]),
        dig: (1..=5).map(|kind| point(kind, 2 * kind)).collect(),
        description: Some("From one head".into()),
        source: "test".into(),
    }
}

fn sample(channel: usize, timestep: usize) -> f64 {
    (((channel * 7919 + timestep) % 65_521) as f64 - 3e4) * 1e-15
}

/// Writes `n_timestep` timesteps in blocks of several sizes.
fn write(writer: &mut Box<dyn Writer>, n_channel: usize, n_timestep: usize) -> Result<()> {
    let mut start = 0;
    for size in [1, 99, 100, 101, 7, 250].into_iter().cycle() {
        let n = size.min(n_timestep - start);
        let mut block = Block::zeros(n_channel, n);
        for channel in 0..n_channel {
            for (i, x) in block.channel_mut(channel).iter_mut().enumerate() {
                *x = sample(channel, start + i);
            }
        }
        writer.write(&block)?;
        start += n;
        if start == n_timestep {
            return Ok(());
        }
    }
    Ok(())
}

fn events() -> Vec<Event> {
    let event = |onset, duration, label: &str| Event { onset, duration, label: label.into() };
    vec![event(0, 0, "a:b"), event(3, 50, "visual/left"), event(3, 0, "Ω"), event(749, 0, "last")]
}

fn check(path: &Path, written: &Info, n_timestep: usize) {
    let mut recording = open(path).unwrap();
    let mut expected = written.clone();
    expected.n_timestep = n_timestep;
    expected.events = events();
    expected.source = path.display().to_string();
    assert_eq!(recording.info, expected);
    for (start, n) in [(0, n_timestep), (0, 1), (n_timestep - 1, 1), (99, 3), (149, 302), (250, 0)] {
        let block = recording.read(start, n).unwrap();
        for channel in 0..written.n_channel() {
            for (i, x) in block.channel(channel).iter().enumerate() {
                assert_eq!(*x, f64::from(sample(channel, start + i) as f32), "channel {channel}, {start} + {i}");
            }
        }
    }
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn what_is_written_is_read_back() {
    for n_channel in [1, 9, 31] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a_raw.fif");
        let info = info(n_channel);
        let mut writer = create(&path, &info, false).unwrap();
        write(&mut writer, n_channel, 750).unwrap();
        assert!(!path.exists() && names(folder.path()).len() == 1);
        writer.finish(&events()).unwrap();
        assert_eq!(names(folder.path()), ["a_raw.fif"]);
        check(&path, &info, 750);
    }
}

#[test]
fn a_recording_is_split_and_joined() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a_raw.fif");
    let info = info(9);
    // Headers of about 7000 bytes and buffers of 3616: two in a part.
    let mut writer = create_on(Arc::new(Os), &path, &info, false, 15_000).unwrap();
    write(&mut writer, 9, 750).unwrap();
    writer.finish(&events()).unwrap();
    assert_eq!(names(folder.path()), ["a_raw-1.fif", "a_raw-2.fif", "a_raw-3.fif", "a_raw.fif"]);
    for name in names(folder.path()) {
        assert!(std::fs::metadata(folder.path().join(name)).unwrap().len() < 15_500);
    }
    check(&path, &info, 750);

    // A part of another recording of the same channels is not taken for one of this.
    let other = folder.path().join("b_raw.fif");
    let mut writer = create_on(Arc::new(Os), &other, &info, false, 15_000).unwrap();
    write(&mut writer, 9, 749).unwrap();
    writer.finish(&[]).unwrap();
    let second = folder.path().join("a_raw-2.fif");
    let own = std::fs::read(&second).unwrap();
    std::fs::copy(folder.path().join("b_raw-2.fif"), &second).unwrap();
    let error = open(&path).err().unwrap();
    assert_eq!(error.kind(), Kind::Corrupt);
    assert!(error.to_string().contains("a_raw-2.fif") && error.to_string().contains("another recording"), "{error}");
    std::fs::write(&second, own).unwrap();

    // Replaced by a shorter recording, it leaves none of its later parts behind; what is not its part stays.
    std::fs::copy(&other, folder.path().join("a_raw-9.fif")).unwrap();
    let mut writer = create_on(Arc::new(Os), &path, &info, true, 30_000).unwrap();
    write(&mut writer, 9, 750).unwrap();
    writer.finish(&events()).unwrap();
    check(&path, &info, 750);
    let of_a: Vec<String> = names(folder.path()).into_iter().filter(|name| name.starts_with('a')).collect();
    assert_eq!(of_a, ["a_raw-1.fif", "a_raw-9.fif", "a_raw.fif"]);

    // A first part that was copied under another name leads to parts that are not its own.
    let copy = folder.path().join("c_raw.fif");
    std::fs::copy(&other, &copy).unwrap();
    let before = names(folder.path());
    let mut writer = create_on(Arc::new(Os), &copy, &info, true, 1 << 20).unwrap();
    write(&mut writer, 9, 750).unwrap();
    writer.finish(&events()).unwrap();
    assert_eq!(names(folder.path()), before);
    check(&copy, &info, 750);

    // Nor are those its own that have the right names and belong to another recording of that name.
    std::fs::copy(folder.path().join("b_raw-1.fif"), folder.path().join("b-mine")).unwrap();
    let mut writer = create_on(Arc::new(Os), &other, &info, true, 15_000).unwrap();
    write(&mut writer, 9, 748).unwrap();
    writer.finish(&[]).unwrap();
    std::fs::rename(folder.path().join("b-mine"), folder.path().join("b_raw-1.fif")).unwrap();
    let mut writer = create_on(Arc::new(Os), &other, &info, true, 1 << 20).unwrap();
    write(&mut writer, 9, 750).unwrap();
    writer.finish(&[]).unwrap();
    assert!(folder.path().join("b_raw-1.fif").exists());

    let mut writer = create_on(Arc::new(Os), &path, &info, true, 15_000).unwrap();
    write(&mut writer, 9, 750).unwrap();
    writer.finish(&events()).unwrap();
    std::fs::remove_file(folder.path().join("a_raw-2.fif")).unwrap();
    let error = open(&path).err().unwrap();
    assert_eq!(error.kind(), Kind::NotFound);
    assert!(error.to_string().contains("a_raw-2.fif, which is missing"), "{error}");
}

/// Before anything is written where the length is announced, and otherwise when it comes to it.
#[test]
fn parts_that_cannot_be_are_refused() {
    use std::os::unix::ffi::OsStrExt;
    let folder = tempfile::tempdir().unwrap();
    let odd = folder.path().join(std::ffi::OsStr::from_bytes(b"a\xff_raw.fif"));
    let plain = folder.path().join("a_raw.fif");
    let refused = |result: Result<()>, what: &str| {
        let error = result.unwrap_err();
        assert!(error.kind() == Kind::Usage && error.to_string().contains(what), "{error}");
        assert!(names(folder.path()).is_empty());
    };
    for (path, n_later, what) in [(&odd, 1, "not Unicode"), (&plain, 100, "more than 100 files")] {
        let announced = Info { n_timestep: n_later * 15_000 / 36 + 1, ..info(9) };
        refused(create_on(Arc::new(Os), path, &announced, false, 15_000).map(drop), what);
        // A timestep of 9 channels takes 36 bytes.
        refused(files(path, 9, 100.0, n_later * (writer::SPLIT_BYTES as usize / 36 + 1)).map(drop), what);
    }
    // A hundred files that are nearly full are no trouble; a timestep that FIF cannot number is.
    let full = (writer::SPLIT_BYTES as usize / 1000 * 999) / (4 * 306);
    assert_eq!(files(&plain, 306, 1000.0, 99 * full).unwrap().len(), 99);
    refused(files(&plain, 1, 1000.0, 1 << 31).map(drop), "31 bits");
    refused(create(&plain, &Info { n_timestep: 1 << 31, ..info(1) }, false).map(drop), "31 bits");
    let mut writer = create_on(Arc::new(Os), &odd, &info(9), false, 15_000).unwrap();
    let written = write(&mut writer, 9, 750);
    drop(writer);
    refused(written, "not Unicode");
    // One file is no trouble.
    let mut writer = create(&odd, &info(9), false).unwrap();
    write(&mut writer, 9, 750).unwrap();
    writer.finish(&events()).unwrap();
    check(&odd, &info(9), 750);
}

#[test]
fn nothing_is_left_of_an_unfinished_recording() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a_raw.fif");
    let info = info(9);
    let mut writer = create_on(Arc::new(Os), &path, &info, false, 15_000).unwrap();
    write(&mut writer, 9, 750).unwrap();
    drop(writer);
    assert!(names(folder.path()).is_empty());

    let writer = create(&path, &info, false).unwrap();
    assert_eq!(writer.finish(&[]).unwrap_err().kind(), Kind::EmptyRecording);
    assert!(names(folder.path()).is_empty());
}

#[test]
fn an_existing_recording_survives_until_another_is_finished() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a_raw.fif");
    std::fs::write(&path, "old").unwrap();
    let info = info(9);
    assert_eq!(create(&path, &info, false).err().unwrap().kind(), Kind::Exists);
    let mut writer = create(&path, &info, true).unwrap();
    assert_eq!(create(&path, &info, true).err().unwrap().kind(), Kind::Locked);
    write(&mut writer, 9, 750).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"old");
    writer.finish(&events()).unwrap();
    check(&path, &info, 750);
}

#[test]
fn a_sample_that_cannot_be_written_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a_raw.fif");
    let mut writer = create(&path, &info(9), false).unwrap();
    write(&mut writer, 9, 130).unwrap();
    for bad in [f64::NAN, f64::INFINITY, 1e39] {
        let mut block = Block::zeros(9, 4);
        block.channel_mut(2)[3] = bad;
        let error = writer.write(&block).unwrap_err();
        assert_eq!(error.kind(), Kind::NonFiniteSignal);
        assert!(error.to_string().contains("MEG 0002"), "{error}");
    }
}

/// The size of the parts is known only in here, so this comparison with MNE-Python is too.
#[cfg(feature = "python-tests")]
#[test]
fn mne_joins_what_is_split() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a_raw.fif");
    let mut writer = create_on(Arc::new(Os), &path, &info(9), false, 15_000).unwrap();
    write(&mut writer, 9, 750).unwrap();
    writer.finish(&events()).unwrap();

    let python = std::env::var_os("GPT2MEG_PYTHON").expect("GPT2MEG_PYTHON must name a Python that has mne and numpy");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/fif_facts.py");
    let status = std::process::Command::new(python).arg(script).arg(folder.path()).arg(&path).status().unwrap();
    assert!(status.success());
    let json = std::fs::read_to_string(folder.path().join("0.json")).unwrap();
    let facts: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(facts["n_timestep"], 750);
    assert_eq!(facts["first_timestep"], 25_800);
    let expected = serde_json::json!([[0, 0, "a:b"], [3, 0, "&#937;"], [3, 50, "visual/left"], [749, 0, "last"]]);
    assert_eq!(facts["events"], expected);
    let file = std::io::BufReader::new(std::fs::File::open(folder.path().join("0.npy")).unwrap());
    let samples: Vec<f64> = npyz::NpyFile::new(file).unwrap().into_vec().unwrap();
    for (i, x) in samples.into_iter().enumerate() {
        assert_eq!(x, f64::from(sample(i / 750, i % 750) as f32), "channel {}, timestep {}", i / 750, i % 750);
    }
}
