//! Reading, preparing and writing recordings, from outside.

use gpt2meg::error::Kind;
use gpt2meg::recording::events::table;
use gpt2meg::recording::filter::{Band, filter, memory};
use gpt2meg::recording::npy::{self, Layout, NpyOptions};
use gpt2meg::recording::open::{EventsFrom, list};
use gpt2meg::recording::pick::{Pick, Picks, pick};
use gpt2meg::recording::{
    Block, Channel, ChannelKind, Event, InMemory, Info, OpenOptions, Recording, create, fif, open,
};
use std::fs;
use std::path::{Path, PathBuf};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/recording").join(name)
}

fn options(layout: Layout, sfreq: f64) -> NpyOptions {
    NpyOptions { layout: Some(layout), sfreq: Some(sfreq), ..NpyOptions::default() }
}

fn read_all(recording: &mut Recording) -> Block {
    recording.read(0, recording.info.n_timestep).unwrap()
}

fn error_of<T>(result: gpt2meg::error::Result<T>) -> (Kind, String) {
    let error = result.err().expect("this must fail");
    (error.kind(), error.to_string())
}

fn event(onset: usize, duration: usize, label: &str) -> Event {
    Event { onset, duration, label: label.into() }
}

/// Three channels of 5 timesteps: a magnetometer, a gradiometer, a trigger line.
fn small() -> (Info, Block) {
    let kinds = [ChannelKind::Mag, ChannelKind::Grad, ChannelKind::Stim];
    let channel = |(i, kind): (usize, ChannelKind)| Channel {
        name: format!("CH {i}"),
        kind,
        loc: [i as f32; 12],
        coil_type: 3000 + i as i32,
        coord_frame: 1,
        bad: i == 1,
    };
    let info = Info {
        channels: kinds.into_iter().enumerate().map(channel).collect(),
        sfreq: 4.0,
        n_timestep: 5,
        first_timestep: 100,
        events: Vec::new(),
        subject: Some("07".into()),
        pass_band: (0.5, 1.5),
        meas_date: Some((1_000_000_000, 17)),
        line_freq: Some(50.0),
        dev_head_t: None,
        dig: Vec::new(),
        description: None,
        source: "test".into(),
    };
    // Whole multiples of 2⁻⁴⁰: exact in float32.
    let data = (0..15).map(|i| f64::from(i - 7) * 2f64.powi(-40)).collect();
    (info, Block { n_channel: 3, n_timestep: 5, data })
}

/// Columns `start..end` of a block.
fn part(block: &Block, start: usize, end: usize) -> Block {
    let data = (0..block.n_channel).flat_map(|c| block.channel(c)[start..end].to_vec()).collect();
    Block { n_channel: block.n_channel, n_timestep: end - start, data }
}

#[test]
fn the_filter_is_scipys() {
    let about: serde_json::Value = serde_json::from_slice(&fs::read(fixture("filter.json")).unwrap()).unwrap();
    for (name, about) in about.as_object().unwrap() {
        let band = Band {
            high_pass: about["high_pass"].as_f64().unwrap(),
            low_pass: about["low_pass"].as_f64(),
            order: about["order"].as_u64().unwrap() as usize,
        };
        let array = |name: &str| npy::open(&fixture(name), &options(Layout::TimeFirst, 250.0)).unwrap();
        let ringing = memory(&band.sections(250.0).unwrap()).unwrap().ringing;
        assert_eq!(ringing as u64, about["ringing"].as_u64().unwrap(), "{name}");
        let got = read_all(&mut filter(array("filter_input.npy"), &band).unwrap()).data;
        let wanted = read_all(&mut array(&format!("filter_{name}.npy"))).data;
        let largest = read_all(&mut array("filter_input.npy")).data.iter().fold(0.0, |a: f64, x| a.max(x.abs()));
        let worst = got.iter().zip(&wanted).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        // 2⁻⁵² of the largest input, magnified by the slow poles: both implementations round differently.
        assert!(worst < 1e-9 * largest, "{name}: {worst:e} of {largest:e}, ends included");
    }
}

#[test]
fn arrays_of_every_type_and_order() {
    let wanted: Vec<f64> = (0..15).map(|i| f64::from(i * 100 - 700)).collect();
    for name in ["little_f4", "little_f8", "little_i2", "little_i4", "big_f4", "big_f8", "big_i2", "fortran"] {
        let path = fixture(&format!("array_{name}.npy"));
        let block = read_all(&mut npy::open(&path, &options(Layout::TimeFirst, 10.0)).unwrap());
        let transposed: Vec<f64> =
            (0..5).flat_map(|t| (0..3).map(move |c| (t, c))).map(|(t, c)| block.channel(c)[t]).collect();
        assert_eq!(transposed, wanted, "{name}");
    }
}

#[test]
fn arrays_are_never_guessed() {
    let path = fixture("array_little_f4.npy");
    let bare = NpyOptions { sfreq: Some(1.0), ..NpyOptions::default() };
    let (kind, text) = error_of(npy::open(&path, &bare));
    assert!(kind == Kind::Usage && text.contains("--layout"), "{text}");
    let (kind, text) = error_of(npy::open(&path, &options(Layout::ChannelsFirst, 1.0)));
    assert!(kind == Kind::Usage && text.contains("--layout time-first"), "{text}");
    let rateless = NpyOptions { layout: Some(Layout::TimeFirst), ..NpyOptions::default() };
    assert_eq!(error_of(npy::open(&path, &rateless)).0, Kind::SamplingRate);
    assert_eq!(error_of(npy::open(&path, &options(Layout::TimeFirst, -3.0))).0, Kind::SamplingRate);
    let named = NpyOptions { names: Some(vec!["a".into()]), ..options(Layout::TimeFirst, 1.0) };
    assert_eq!(error_of(npy::open(&path, &named)).0, Kind::ChannelMismatch);
    for (name, hint) in [("array_complex.npy", "float32"), ("array_cube.npy", "two")] {
        let (kind, text) = error_of(npy::open(&fixture(name), &options(Layout::TimeFirst, 1.0)));
        assert!(kind == Kind::UnknownFormat && text.contains(hint), "{text}");
    }
}

#[test]
fn written_arrays_come_back() {
    let (info, block) = small();
    let events = [event(1, 2, "face"), event(3, 0, "a\tb")];
    for layout in [Layout::TimeFirst, Layout::ChannelsFirst] {
        // As long as announced, in one block or several; and stopped short.
        for cuts in [vec![0, 5], vec![0, 1, 4, 5], vec![0, 2, 4]] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("x.npy");
            let mut writer = create(&path, &info, layout, false).unwrap();
            for cut in cuts.windows(2) {
                writer.write(&part(&block, cut[0], cut[1])).unwrap();
            }
            assert!(!path.exists() && fs::read_dir(folder.path()).unwrap().count() == 1);
            writer.finish(&events).unwrap();
            let mut names: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
            names.sort();
            assert_eq!(names, ["x.json", "x.npy", "x_events.tsv"]);
            let end = *cuts.last().unwrap();
            let mut back = npy::open(&path, &NpyOptions::default()).unwrap();
            assert_eq!(read_all(&mut back), part(&block, 0, end), "{layout:?} {cuts:?}");
            let wanted = Info {
                n_timestep: end,
                events: vec![event(1, 2, "face"), event(3, 0, "a b")],
                source: path.display().to_string(),
                ..info.clone()
            };
            assert_eq!(back.info, wanted);
            // numpy's own header rules, by another reader.
            let file = npyz::NpyFile::new(fs::File::open(&path).unwrap()).unwrap();
            let shape = if layout == Layout::TimeFirst { [end as u64, 3] } else { [3, end as u64] };
            assert_eq!((file.shape(), file.order()), (&shape[..], npyz::Order::C));
            let flat: Vec<f32> = file.into_vec().unwrap();
            assert_eq!(
                f64::from(flat[1]),
                if layout == Layout::TimeFirst { block.channel(1)[0] } else { block.channel(0)[1] }
            );
            // The declared layout must agree with the noted one.
            let other = if layout == Layout::TimeFirst { Layout::ChannelsFirst } else { Layout::TimeFirst };
            assert_eq!(error_of(npy::open(&path, &options(other, 4.0))).0, Kind::Usage);
        }
    }
}

#[test]
fn nothing_is_overwritten_or_left_behind() {
    let (info, block) = small();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.npy");
    let mut writer = create(&path, &info, Layout::TimeFirst, false).unwrap();
    writer.write(&block).unwrap();
    // A second writer of the same file is refused while the first is at work.
    assert_eq!(error_of(create(&path, &info, Layout::TimeFirst, false)).0, Kind::Locked);
    drop(writer);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    for occupied in ["x.npy", "x.json", "x_events.tsv"] {
        fs::write(folder.path().join(occupied), "mine").unwrap();
        let (kind, text) = error_of(create(&path, &info, Layout::TimeFirst, false));
        assert!(kind == Kind::Exists && text.contains(occupied), "{text}");
        let mut writer = create(&path, &info, Layout::TimeFirst, true).unwrap();
        writer.write(&block).unwrap();
        drop(writer);
        assert_eq!(fs::read(folder.path().join(occupied)).unwrap(), b"mine");
        fs::remove_file(folder.path().join(occupied)).unwrap();
    }
    let mut bad = block.clone();
    bad.data[7] = 1e39;
    let mut writer = create(&path, &info, Layout::TimeFirst, false).unwrap();
    let (kind, text) = error_of(writer.write(&bad));
    assert!(kind == Kind::NonFiniteSignal && text.contains("CH 1") && text.contains("timestep 2"), "{text}");
    assert_eq!(error_of(writer.finish(&[])).0, Kind::EmptyRecording);
    assert_eq!(error_of(create(&folder.path().join("x.edf"), &info, Layout::TimeFirst, false)).0, Kind::Usage);
    assert_eq!(error_of(create(&folder.path().join("no/x.npy"), &info, Layout::TimeFirst, false)).0, Kind::NotFound);
}

/// Every truncation and every changed byte of the header: an error or the same shape, never a panic.
#[test]
fn damaged_arrays_are_refused() {
    let whole = fs::read(fixture("array_little_f4.npy")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.npy");
    let attempt = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        npy::open(&path, &options(Layout::TimeFirst, 1.0)).map(|mut r| read_all(&mut r).data.len())
    };
    for length in 0..whole.len() {
        let kind = error_of(attempt(&whole[..length])).0;
        assert!(matches!(kind, Kind::Corrupt | Kind::UnknownFormat), "{length}: {kind:?}");
    }
    for at in 0..128 {
        for value in [0, b'9', b'(', b'\'', 255] {
            let mut changed = whole.clone();
            changed[at] = value;
            if let Ok(n) = attempt(&changed) {
                assert_eq!(n, 15, "byte {at} = {value}");
            }
        }
    }
    // Lengths whose product overflows.
    let text = whole.windows(6).position(|w| w == b"(5, 3)").unwrap();
    let mut huge = whole.clone();
    huge[text..text + 30].copy_from_slice(b"(4294967296, 4294967296), }   ");
    assert_eq!(error_of(attempt(&huge)).0, Kind::Corrupt);
}

#[test]
fn tables_of_events() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.tsv");
    let read = |text: &str| {
        fs::write(&path, text).unwrap();
        table::read(&path, 100.0, 0, 1000)
    };
    let both = read("\u{feff}onset\tduration\ttrial_type\tvalue\n5.004\t0.5\tface\t7\n1\tn/a\tn/a\t9\n").unwrap();
    assert_eq!(both.events, [event(100, 0, "9"), event(500, 50, "face")]);
    let odd = read("value\tonset\n1\t-0.1\n2\t10\nn/a\t3\n4\tn/a\n5\n6\t9.99\n").unwrap();
    assert_eq!((odd.events, odd.n_outside, odd.n_unlabelled), (vec![event(999, 0, "6")], 2, 3));
    for (text, why) in
        [("", "empty"), ("onset\n1\n", "trial_type"), ("value\n1\n", "onset"), ("onset\tvalue\nx\t1\n", "row 2")]
    {
        let (kind, said) = error_of(read(text));
        assert!(kind == Kind::Corrupt && said.contains(why), "{said}");
    }
    assert_eq!(error_of(table::read(&folder.path().join("none.tsv"), 1.0, 0, 1)).0, Kind::NotFound);
    // MNE's array: 1, 4 and 9 in the acquisition's count, of a recording that begins at 2 and has five timesteps.
    let mne = table::read(&fixture("mne_events.npy"), 100.0, 2, 5).unwrap();
    assert_eq!((mne.events, mne.n_outside), (vec![event(2, 0, "32")], 2));
    assert_eq!(error_of(table::read(&fixture("filter_input.npy"), 1.0, 0, 5)).0, Kind::Corrupt);
}

#[test]
fn picks_by_kind_and_name() {
    let (info, block) = small();
    let take = |include: &[&str], exclude: &[&str], drop_bads: bool| {
        let picks = Picks {
            include: include.iter().map(|p| p.parse().unwrap()).collect(),
            exclude: exclude.iter().map(|n| n.to_string()).collect(),
            drop_bads,
        };
        let picked = pick(Recording::new(info.clone(), Box::new(InMemory(block.clone()))).unwrap(), &picks)?;
        let rows: Vec<String> = picked.info.channels.iter().map(|c| c.name.clone()).collect();
        let mut picked = picked;
        let samples = read_all(&mut picked);
        for (row, name) in rows.iter().enumerate() {
            let source = info.channels.iter().position(|c| c.name == *name).unwrap();
            assert_eq!(samples.channel(row), block.channel(source));
        }
        Ok(rows.join(","))
    };
    assert_eq!(take(&[], &[], false).unwrap(), "CH 0,CH 1");
    assert_eq!(take(&["grad"], &[], false).unwrap(), "CH 1");
    assert_eq!(take(&["CH 2", "mag"], &[], false).unwrap(), "CH 0,CH 2");
    assert_eq!(take(&["all"], &["CH 0"], false).unwrap(), "CH 1");
    assert_eq!(take(&["meg"], &[], true).unwrap(), "CH 0");
    assert_eq!(error_of(take(&["eeg"], &[], false)).0, Kind::EmptyRecording);
    assert_eq!(error_of(take(&["grad"], &[], true)).0, Kind::EmptyRecording);
    assert_eq!(error_of(take(&["MEG 1"], &[], true)).0, Kind::ChannelMismatch);
    // What is to be left out may be another recording's.
    assert_eq!(take(&[], &["MEG 1"], true).unwrap(), "CH 0");
    assert_eq!("eeg".parse(), Ok(Pick::Eeg));
}

/// Writes `small()` as FIF: 20 timesteps, the trigger line at 3 from timestep 2 on and at 5 from timestep 9 on.
fn write_fif(path: &Path, annotations: &[Event]) {
    let (mut info, _) = small();
    (info.n_timestep, info.sfreq) = (20, 100.0);
    let mut block = Block::zeros(3, 20);
    for t in 0..20 {
        block.data[t] = t as f64 * 1e-13;
        block.data[20 + t] = (t % 3) as f64 * 1e-12;
        block.data[40 + t] = if t < 2 {
            0.0
        } else if t < 9 {
            3.0
        } else {
            5.0
        };
    }
    let mut writer = create(path, &info, Layout::TimeFirst, false).unwrap();
    writer.write(&block).unwrap();
    writer.finish(annotations).unwrap();
}

#[test]
fn a_bids_folder_is_listed_and_opened() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    let file = |path: &str, text: &str| {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    file("dataset_description.json", "{}");
    file("participants.tsv", "participant_id\n");
    // Inherited by every recording of this task; overruled below for the first.
    file("task-rest_meg.json", "{\"PowerLineFrequency\": 60}");
    file("sub-01/meg/sub-01_task-rest_run-01_meg.json", "{\"PowerLineFrequency\": 50.0}");
    file(
        "sub-01/meg/sub-01_task-rest_run-01_channels.tsv",
        "name\ttype\tstatus\nCH 0\tMEGMAG\tbad\nCH 1\tMEGGRADPLANAR\tgood\nX\tEEG\tgood\n",
    );
    file(
        "sub-01/meg/sub-01_task-rest_run-01_events.tsv",
        "onset\tduration\ttrial_type\n0.1\t0.05\tface\n7\t0\thouse\n",
    );
    file("sub-02/ses-a/meg/sub-02_ses-a_acq-crosstalk_meg.fif", "");
    file("sub-02/ses-a/eeg/sub-02_ses-a_task-rest_eeg.edf", "");
    file("sub-02/ses-a/meg/sub-02_ses-a_task-odd_meg.fif", "not a FIF file");
    file("sub-02/ses-a/meg/sub-02_ses-a_task-big_split-02_meg.fif", "");
    fs::copy(fixture("../fif/sub-07_split-02_meg.fif"), root.join("sub-01/meg/sub-07_split-02_meg.fif")).unwrap();
    file("sub-emptyroom/meg/sub-emptyroom_task-noise_meg.fif", "");
    let first = root.join("sub-01/meg/sub-01_task-rest_run-01_meg.fif");
    write_fif(&first, &[]);
    let second = root.join("sub-02/ses-a/meg/sub-02_ses-a_task-rest_meg.fif");
    write_fif(&second, &[]);
    std::os::unix::fs::symlink("nowhere", root.join("sub-02/ses-a/meg/sub-02_ses-a_task-gone_meg.fif")).unwrap();

    let listing = list(root).unwrap();
    let found: Vec<&Path> = listing.found.iter().map(|s| s.path.as_path()).collect();
    assert_eq!(found, [&first, &second]);
    let why = |part: &str| &listing.skipped.iter().find(|s| s.path.to_string_lossy().contains(part)).unwrap().why;
    assert!(why("crosstalk").contains("calibration"));
    assert!(why("_eeg.edf").contains(".edf"));
    assert!(why("odd").contains("not a FIF file"));
    assert!(why("big_split-02").contains("no first part (split-01) leads to it"));
    let lost = why("sub-07_split-02");
    assert!(lost.contains("sub-07_split-01_meg.fif, which is missing"), "{lost}");
    assert!(why("emptyroom").contains("empty room"));
    assert!(why("gone").contains("git-annex"));
    assert_eq!(listing.skipped.len(), 7);

    let opened = listing.found[0].open(&OpenOptions::default()).unwrap();
    let info = &opened.recording.info;
    assert_eq!((info.subject.as_deref(), info.line_freq), (Some("01"), Some(50.0)));
    assert_eq!(info.channels.iter().map(|c| c.bad).collect::<Vec<_>>(), [true, false, false]);
    assert_eq!(info.events, [event(10, 5, "face")]);
    assert_eq!(opened.events_from, "sub-01_task-rest_run-01_events.tsv");
    assert_eq!(opened.notes.len(), 2, "{:?}", opened.notes);
    let from_stim = OpenOptions { events_from: EventsFrom::Stim, ..OpenOptions::default() };
    let events = listing.found[0].open(&from_stim).unwrap().recording.info.events;
    assert_eq!(events.iter().map(|e| (e.onset, e.label.as_str())).collect::<Vec<_>>(), [(2, "3"), (9, "5")]);

    // The second has no table of its own: the mains frequency is inherited, the events are the trigger line's.
    let opened = listing.found[1].open(&OpenOptions::default()).unwrap();
    assert_eq!(opened.recording.info.line_freq, Some(60.0));
    assert_eq!((opened.recording.info.events.len(), opened.events_from.as_str()), (2, "the trigger channel"));
    let from_bids = OpenOptions { events_from: EventsFrom::Bids, ..OpenOptions::default() };
    assert_eq!(error_of(listing.found[1].open(&from_bids)).0, Kind::NotFound);
    // A subject's folder and a single file find the same tables.
    assert_eq!(list(&root.join("sub-01")).unwrap().found, listing.found[..1]);
    assert_eq!(list(&first).unwrap().found, listing.found[..1]);
    assert_eq!(open(root, &OpenOptions::default()).unwrap().len(), 2);
}

#[test]
fn a_plain_folder_is_listed() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    let (kind, text) = error_of(list(root));
    assert!(kind == Kind::UnknownFormat && text.contains("no .fif"), "{text}");
    write_fif(&root.join("a_raw.fif"), &[event(4, 3, "face"), event(5, 1, "BAD blink")]);
    for name in ["b-epo.fif", "notes.txt", "c.npz"] {
        fs::write(root.join(name), "").unwrap();
    }
    // Recordings that somebody numbered, and one that is split over several files; a dot may be a part of a name.
    for name in ["a_raw-7.fif", "h_split-1_raw.fif", "h_split-2_raw.fif"] {
        fs::copy(root.join("a_raw.fif"), root.join(name)).unwrap();
    }
    for name in ["d.npy", "d-1.npy"] {
        fs::copy(fixture("array_little_f4.npy"), root.join(name)).unwrap();
    }
    let (info, block) = small();
    let disk = std::sync::Arc::new(gpt2meg::storage::disk::Os);
    let mut writer = fif::create_on(disk, &root.join("x.y_raw.fif"), &info, false, 0).unwrap();
    writer.write(&block).unwrap();
    writer.finish(&[]).unwrap();
    // A part that names the one before it by its number only; and what is no file is not waited for.
    for part in ["number_raw.fif", "number_raw-1.fif"] {
        fs::copy(fixture("../fif/").join(part), root.join(part)).unwrap();
    }
    let (kind, text) = error_of(list(&root.join("number_raw-1.fif")));
    assert!(kind == Kind::Usage && text.contains("number_raw.fif comes before it"), "{text}");
    for part in ["number_raw.fif", "number_raw-1.fif"] {
        fs::remove_file(root.join(part)).unwrap();
    }
    fs::copy(root.join("a_raw.fif"), root.join("pipe_raw-1.fif")).unwrap();
    for name in ["pipe_raw.fif", "pipe-fwd.fif"] {
        assert!(std::process::Command::new("mkfifo").arg(root.join(name)).status().unwrap().success());
        let listing = list(root).unwrap();
        assert!(listing.skipped.iter().any(|s| s.path.ends_with(name)), "{:?}", listing.skipped);
        fs::remove_file(root.join(name)).unwrap();
    }
    fs::remove_file(root.join("pipe_raw-1.fif")).unwrap();
    let listing = list(root).unwrap();
    let names: Vec<&str> = listing.found.iter().map(|s| s.name.as_str()).collect();
    assert_eq!(names, ["a_raw-7", "a_raw", "d-1", "d", "h_split-1_raw", "h_split-2_raw", "x.y_raw"]);
    let why: Vec<&str> = listing.skipped.iter().map(|s| s.why.as_str()).collect();
    let later = "goes on from x.y_raw.fif";
    assert_eq!(why, ["holds epochs, not a recording", later]);
    // A later part is never taken for a recording of its own, not even where the first is damaged; nor is it one alone.
    let (kind, text) = error_of(list(&root.join("x.y_raw-1.fif")));
    assert!(kind == Kind::Usage && text.contains("is a later part") && text.contains("x.y_raw.fif"), "{text}");
    fs::rename(root.join("x.y_raw.fif"), root.join("lost")).unwrap();
    let (_, text) = error_of(list(&root.join("x.y_raw-1.fif")));
    assert!(text.contains("It was written after x.y_raw.fif; where that is lost"), "{text}");
    let skipped = list(root).unwrap().skipped;
    assert!(skipped.iter().any(|s| s.why == "goes on from x.y_raw.fif, which is missing"), "{skipped:?}");
    // What a later part says of itself counts, whatever it is called.
    fs::copy(root.join("x.y_raw-1.fif"), root.join("renamed_raw.fif")).unwrap();
    let (kind, text) = error_of(list(&root.join("renamed_raw.fif")));
    assert!(kind == Kind::Usage && text.contains("is a later part"), "{text}");
    fs::remove_file(root.join("renamed_raw.fif")).unwrap();
    fs::write(root.join("x.y_raw.fif"), "").unwrap();
    let skipped = list(root).unwrap().skipped;
    assert!(skipped.iter().any(|s| s.path.ends_with("x.y_raw-1.fif") && s.why == later), "{skipped:?}");
    let annotated = OpenOptions { events_from: EventsFrom::Annotations, ..OpenOptions::default() };
    let opened = listing.found[1].open(&annotated).unwrap();
    assert_eq!(opened.recording.info.events, [event(4, 3, "face")]);
    assert!(opened.notes[0].contains("1 annotations"), "{:?}", opened.notes);
    let table = OpenOptions { events: Some(fixture("mne_events.npy")), ..OpenOptions::default() };
    let opened = listing.found[0].open(&table).unwrap();
    assert_eq!((opened.recording.info.events.len(), opened.notes.len()), (0, 2));
}

#[test]
fn other_formats_are_named() {
    let folder = tempfile::tempdir().unwrap();
    for (content, name) in [(&b"\x89HDF\r\n"[..], "HDF5"), (b"0       X", "EDF"), (b"hello", "hello")] {
        let path = folder.path().join("x.dat");
        fs::write(&path, content).unwrap();
        let (kind, text) = error_of(open(&path, &OpenOptions::default()));
        assert!(kind == Kind::UnknownFormat && text.contains(name), "{text}");
    }
    fs::write(folder.path().join("x.dat"), b"").unwrap();
    assert_eq!(error_of(open(&folder.path().join("x.dat"), &OpenOptions::default())).0, Kind::EmptyRecording);
    assert_eq!(error_of(open(&folder.path().join("none"), &OpenOptions::default())).0, Kind::NotFound);
}
