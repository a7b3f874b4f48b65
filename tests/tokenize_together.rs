//! Several recordings in one data set: what they must agree in, what is added, what is replaced; and what is refused.

#[path = "support/lines.rs"]
mod lines;

use gpt2meg::error::Kind;
use gpt2meg::recording::events::ClassMap;
use gpt2meg::recording::open::{self, OpenOptions};
use gpt2meg::recording::prepare::PrepareOptions;
use gpt2meg::tokens::dataset::Dataset;
use gpt2meg::tokens::publish::{Batch, Settings, Summary};
use gpt2meg::tokens::scheme::Scheme;
use lines::{entries, event, fail, noise, run, succeed, write_channels, write_fif};
use std::path::Path;
use std::process::Command;

fn recordings(data: &Path) -> Vec<String> {
    Dataset::open(data).unwrap();
    let summary: Summary = serde_json::from_slice(&std::fs::read(data.join("tokenize.json")).unwrap()).unwrap();
    summary.recordings.into_keys().collect()
}

/// Two that began when the folder was empty: what the first has done when the second is ready stands, reports and all,
/// and what the second has must fit it.
#[test]
fn of_two_tokenizations_at_once_the_first_stands() {
    let folder = tempfile::tempdir().unwrap();
    let (folder, data) = (folder.path(), folder.path().join("data"));
    for (number, name) in ["a.fif", "b.fif"].into_iter().enumerate() {
        write_numbered(&folder.join(name), number);
    }
    let settings = |hold| Settings {
        prepare: PrepareOptions::default(),
        scheme: Scheme::PAPER,
        classes: ClassMap::of_labels([], &[]).unwrap(),
        hold,
        keep_signal: false,
    };
    let (ours, others) = (settings(0.5), settings(0.4));
    let begun = |settings, file: &str, name: &str| {
        let mut batch = Batch::begin(settings, &data, &[name], false, false).unwrap();
        let source = open::file(&folder.join(file)).unwrap();
        batch.add(name, source.open(&OpenOptions::default()).unwrap(), |_, _| ()).unwrap();
        batch
    };
    let first = begun(&ours, "a.fif", "a");
    let second = [
        (begun(&ours, "a.fif", "a"), Kind::Exists, "a_train.safetensors: the file exists"),
        (begun(&ours, "a.fif", "copy"), Kind::Exists, "has this recording already, under the name a"),
        (begun(&others, "b.fif", "b"), Kind::TokenizerMismatch, "other settings"),
    ];
    first.publish().unwrap();
    let names = entries(&data).into_iter().filter(|name| !name.starts_with('.')).collect::<Vec<_>>();
    let before = (names, std::fs::read(data.join("tokenize.json")).unwrap());
    for (batch, kind, named) in second {
        let error = batch.publish().unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(named), "{error}");
        assert!(before.0.iter().all(|name| data.join(name).exists()), "{error}");
        assert_eq!(std::fs::read(data.join("tokenize.json")).unwrap(), before.1);
    }
    assert_eq!(recordings(&data), ["a"]);
}

/// What one recording lacks is left out of the others; what none has is a slip of the pen; what is left out may hold
/// anything.
#[test]
fn channels_are_left_out_where_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let names = [("MEG 0111", false), ("MEG 0121", false), ("MEG 0131", false)];
    for (number, n_channel) in [3, 2].into_iter().enumerate() {
        let path = folder.join(format!("sub-0{number}_meg.fif"));
        write_channels(&path, &names[..n_channel], 100.0, 6000, &[], |channel, time| {
            noise(40_000 * number + 4 * time + channel)
        });
    }
    let both = "tokenize sub-00_meg.fif sub-01_meg.fif --max-error 1 --out";
    let left_out = |line: &str, name: &str| {
        let output = Command::new(env!("CARGO_BIN_EXE_gpt2meg"))
            .args(line.split(' '))
            .args(["--exclude", name])
            .current_dir(folder)
            .output()
            .unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    fail(folder, &format!("{both} data"), 14, "it lacks MEG 0131");
    let (code, error) = left_out(&format!("{both} data"), "MEG 0132");
    assert!(code == Some(14) && error.contains("there is no channel MEG 0132"), "{error}");
    let (code, error) = left_out(&format!("{both} data"), "MEG 0131");
    assert_eq!(code, Some(0), "{error}");

    let mut array = b"\x93NUMPY\x01\x00\x76\x00".to_vec();
    array.extend(format!("{:<117}\n", "{'descr': '<f4', 'fortran_order': False, 'shape': (6000, 2), }").as_bytes());
    let value = |i: usize| if i == 777 { f32::NAN } else { noise(i) as f32 };
    array.extend((0..12_000).flat_map(|i| value(i).to_le_bytes()));
    std::fs::write(folder.join("nan.npy"), array).unwrap();
    let nan = "tokenize nan.npy --rate 100 --layout time-first --max-error 1 --out nan";
    fail(folder, nan, 12, "channel 001 is NaN at timestep 388");
    let (code, error) = left_out(nan, "001");
    assert_eq!(code, Some(0), "{error}");
}

/// A recording of its own for each number, 30 s long.
fn write_numbered(path: &Path, number: usize) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    write_fif(path, 100.0, 3000, &[], |channel, time| noise(10_000 * number + 2 * time + channel));
}

#[test]
fn recordings_are_added_without_force_and_replaced_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let (folder, data) = (folder.path(), folder.path().join("data"));
    for (number, name) in ["a.fif", "b.fif"].into_iter().enumerate() {
        write_numbered(&folder.join(name), number);
    }
    succeed(folder, "tokenize a.fif --out data --max-error 1");
    let first = std::fs::read(data.join("a_train.safetensors")).unwrap();
    fail(folder, "tokenize a.fif --out data --max-error 1", 73, "a_train.safetensors: the file exists");
    fail(folder, "tokenize a.fif b.fif --out data --max-error 1", 73, "a_train.safetensors: the file exists");
    succeed(folder, "tokenize b.fif --out data --max-error 1");
    assert_eq!(recordings(&data), ["a", "b"]);
    succeed(folder, "tokenize a.fif --out data --max-error 1 --force");
    assert_eq!(recordings(&data), ["a", "b"]);
    assert_eq!(std::fs::read(data.join("a_train.safetensors")).unwrap(), first);
}

/// While one recording was being tokenized, another of the data set was replaced.
#[test]
fn a_report_that_was_replaced_meanwhile_stays_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let (folder, data) = (folder.path(), folder.path().join("data"));
    for (number, name) in ["a.fif", "b.fif"].into_iter().enumerate() {
        write_numbered(&folder.join(name), number);
    }
    let (scheme, prepare, classes) = (Scheme::PAPER, PrepareOptions::default(), ClassMap::of_labels([], &[]).unwrap());
    let settings = Settings { prepare, scheme, classes, hold: 0.5, keep_signal: false };
    let begun = |name: &str, force| {
        let mut batch = Batch::begin(&settings, &data, &[name], false, force).unwrap();
        let source = open::file(&folder.join(format!("{name}.fif"))).unwrap();
        batch.add(name, source.open(&OpenOptions::default()).unwrap(), |_, _| ()).unwrap();
        batch
    };
    let report = || {
        let text = std::fs::read(data.join("tokenize.json")).unwrap();
        serde_json::from_slice::<serde_json::Value>(&text).unwrap()["recordings"]["b"].clone()
    };
    begun("b", false).publish().unwrap();
    let before = report();
    let slow = begun("a", false);
    std::fs::remove_file(folder.join("b.fif")).unwrap();
    write_numbered(&folder.join("b.fif"), 7);
    begun("b", true).publish().unwrap();
    let replaced = report();
    assert_ne!(replaced, before);
    slow.publish().unwrap();
    assert_eq!((recordings(&data), report()), (vec!["a".to_string(), "b".to_string()], replaced));
    // Replaced by what a slow one has, it would be in the data set twice.
    write_numbered(&folder.join("c.fif"), 9);
    let slow = begun("c", false);
    std::fs::copy(folder.join("c.fif"), folder.join("b.fif")).unwrap();
    begun("b", true).publish().unwrap();
    let error = slow.publish().unwrap_err();
    assert!(error.kind() == Kind::Exists && error.to_string().contains("under the name b"), "{error}");
    // What was removed meanwhile is not reported on.
    write_numbered(&folder.join("e.fif"), 11);
    let slow = begun("e", false);
    for part in ["train", "validation", "test"] {
        std::fs::remove_file(data.join(format!("b_{part}.safetensors"))).unwrap();
    }
    slow.publish().unwrap();
    assert_eq!(recordings(&data), ["a", "e"]);
}

/// Two processes that add to one folder at once: neither's reports are lost.
#[test]
fn what_others_add_meanwhile_stays() {
    let folder = tempfile::tempdir().unwrap();
    let (folder, data) = (folder.path(), folder.path().join("data"));
    for number in 0..6 {
        write_numbered(&folder.join(format!("r{number}.fif")), number);
    }
    let tokenize = |number| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gpt2meg"));
        command.args(["tokenize", &format!("r{number}.fif"), "--out", "data", "--max-error", "1", "--threads", "1"]);
        command.current_dir(folder).stdout(std::process::Stdio::null()).spawn().unwrap()
    };
    for mut child in (0..6).map(tokenize).collect::<Vec<_>>() {
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(recordings(&data), ["r0", "r1", "r2", "r3", "r4", "r5"]);
}

#[test]
fn a_damaged_summary_is_said_before_anything_is_replaced_and_force_mends_it() {
    let folder = tempfile::tempdir().unwrap();
    let (folder, data) = (folder.path(), folder.path().join("data"));
    for (number, name) in ["a.fif", "b.fif"].into_iter().enumerate() {
        write_numbered(&folder.join(name), number);
    }
    succeed(folder, "tokenize a.fif b.fif --out data --max-error 1");
    let before = entries(&data);
    std::fs::write(data.join("tokenize.json"), "{\"version\": \"0.1").unwrap();
    std::fs::remove_file(data.join("b_test.safetensors")).unwrap();
    let old = std::fs::read(data.join("a_train.safetensors")).unwrap();
    write_numbered(&folder.join("c.fif"), 3);
    fail(folder, "tokenize c.fif --out data --max-error 1", 65, "tokenize.json: not what tokenize wrote");
    assert_eq!(std::fs::read(data.join("a_train.safetensors")).unwrap(), old);
    assert!(!data.join("c_train.safetensors").exists());
    let said = succeed(folder, "tokenize b.fif --out data --max-error 1 --force");
    assert!(said.contains("tokenize.json: not what tokenize wrote") && said.contains("are lost"), "{said}");
    assert_eq!((recordings(&data), entries(&data)), (vec!["b".to_string()], before));
}

/// Its name changes with its company, what it is does not.
#[test]
fn a_recording_comes_into_a_data_set_once() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    for (number, name) in ["A/r.fif", "B/r.fif"].into_iter().enumerate() {
        write_numbered(&folder.join(name), number);
    }
    succeed(folder, "tokenize A/r.fif --out data --max-error 1");
    let before = entries(&folder.join("data"));
    for force in ["", " --force"] {
        let line = format!("tokenize A/r.fif B/r.fif --out data --max-error 1{force}");
        fail(folder, &line, 73, "has this recording already, under the name r. Remove data/r_train.safetensors, ");
        assert_eq!(entries(&folder.join("data")), before);
    }
    // Both at once: neither is there to be removed.
    std::fs::copy(folder.join("A/r.fif"), folder.join("r2.fif")).unwrap();
    let line = "tokenize A/r.fif r2.fif --out data --max-error 1 --force";
    fail(folder, line, 73, "under the name r. Leave one of the two out");
    for part in ["train", "validation", "test"] {
        std::fs::remove_file(folder.join(format!("data/r_{part}.safetensors"))).unwrap();
    }
    succeed(folder, "tokenize A/r.fif B/r.fif --out data --max-error 1");
}

/// Three recordings, in two of which a channel is flat; a fourth has a channel less.
#[test]
fn flat_channels_of_all_recordings_are_named_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let names = ["MEG 0111", "MEG 0121", "MEG 0131", "MEG 0141"];
    for (number, flat) in [Some(1), None, Some(3)].into_iter().enumerate() {
        // The first is flat but for a gap that reads as zeros.
        let gap = [event(500, 100, "BAD_ACQ_SKIP")];
        let events = if number == 0 { &gap[..] } else { &[] };
        let channels = names.map(|name| (name, flat.is_some_and(|flat| names[flat] == name)));
        let path = folder.join(format!("sub-0{number}_meg.fif"));
        write_channels(&path, &channels, 100.0, 6000, events, |channel, time| match channel {
            _ if number == 0 && (500..600).contains(&time) => 0.0,
            channel if flat == Some(channel) => 1e-9,
            _ => noise(40_000 * number + 4 * time + channel),
        });
    }
    let all = "tokenize sub-00_meg.fif sub-01_meg.fif sub-02_meg.fif --max-error 1 --out data";
    fail(folder, all, 13, "sub-00_meg.fif (MEG 0121), sub-02_meg.fif (MEG 0141): MEG 0121, MEG 0141: the signal never");
    fail(folder, "tokenize sub-00_meg.fif --max-error 1 --out data", 13, "sub-00_meg.fif: MEG 0121: the signal never");
    assert!(!folder.join("data").exists());
    // All of them are marked bad; where they are not, the option that is named can be pasted into a shell.
    fail(folder, all, 13, "--drop-bads");
    let unmarked = names.map(|name| (name, false));
    write_channels(&folder.join("sub-04_meg.fif"), &unmarked, 100.0, 6000, &[], |channel, time| match channel {
        1 | 3 => 1e-9,
        _ => noise(4 * time + channel),
    });
    let all = all.replace("sub-01", "sub-04");
    let error = String::from_utf8(run(folder, &all).stderr).unwrap();
    let option = error.trim_end().rsplit_once("Leave such channels out: ").unwrap().1.to_string();
    let line = format!("{} {all} {option}", env!("CARGO_BIN_EXE_gpt2meg"));
    let output = Command::new("sh").args(["-c", &line]).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(Dataset::open(&folder.join("data")).unwrap().shards[0].meta.info.n_channel(), 2);
    // What is bad in one recording is left out of all.
    let all = all.replace("sub-04", "sub-01");
    let said = succeed(folder, &all.replace("data", "bads --drop-bads"));
    assert!(said.contains("2 channels marked bad are left out, of every recording: MEG 0121, MEG 0141"), "{said}");
    let dataset = Dataset::open(&folder.join("bads")).unwrap();
    let left: Vec<&str> = dataset.shards[4].meta.info.channels.iter().map(|channel| channel.name.as_str()).collect();
    assert_eq!((dataset.shards.len(), left), (9, vec!["MEG 0111", "MEG 0131"]));
    // Other channels are found out before anything is prepared, and named.
    let three = [names[0], names[1], names[2]].map(|name| (name, false));
    write_channels(&folder.join("sub-03_meg.fif"), &three, 100.0, 6000, &[], |c, t| noise(200_000 + 3 * t + c));
    let line = "tokenize sub-01_meg.fif sub-03_meg.fif --max-error 1 --out other";
    fail(folder, line, 14, "3 channels, where sub-01_meg.fif has 4; it lacks MEG 0141");
}

/// Too few levels, or a clip too near: each has its own mend.
#[test]
fn what_quantising_loses_is_blamed_on_what_does_it() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write_numbered(&folder.join("a.fif"), 0);
    let hint = |options: &str| {
        let output = run(folder, &format!("tokenize a.fif --out data {options}"));
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(19), "{error}");
        error.lines().find(|line| line.starts_with("gpt2meg: ")).unwrap().to_string()
    };
    let coarse = hint("--levels 2");
    assert!(coarse.contains("more levels (--levels)") && !coarse.contains("clip later"), "{coarse}");
    let wide = hint("--clip 10000 --companding linear");
    assert!(wide.contains("clip earlier") && !wide.contains("--levels"), "{wide}");
    let near = hint("--clip 0.5");
    assert!(near.contains("clip later") && !near.contains("clip earlier"), "{near}");
    assert!(hint("--clip 0.5 --levels 4").contains("clip later"));
    // One sample in a thousand is clipped, but two levels lose nearly everything.
    std::fs::remove_file(folder.join("a.fif")).unwrap();
    write_fif(&folder.join("a.fif"), 100.0, 3000, &[], |channel, time| {
        noise(2 * time + channel) * if time % 1000 == 0 { 100.0 } else { 1.0 }
    });
    let both = hint("--levels 2 --band none");
    assert!(both.find("more levels").unwrap() < both.find("clip later").unwrap(), "{both}");
}

/// An array that is empty along either axis is an empty recording in either layout, and not the wrong way round.
#[test]
fn empty_arrays_are_empty_recordings() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    for shape in ["(0, 4)", "(4, 0)", "(0, 0)"] {
        let text = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}");
        let text = format!("{text:<117}\n");
        let bytes = [b"\x93NUMPY\x01\x00", &(text.len() as u16).to_le_bytes()[..], text.as_bytes()].concat();
        std::fs::write(folder.join("empty.npy"), bytes).unwrap();
        for layout in ["time-first", "channels-first"] {
            fail(
                folder,
                &format!("tokenize empty.npy --rate 100 --layout {layout} --out data"),
                11,
                "the array is empty",
            );
        }
    }
}

/// Half of the recording is a hundred times as large and marked BAD. Neither the report nor the prompt, nor the
/// conditions that go on from it, may know.
#[test]
fn what_is_excluded_reaches_neither_report_nor_prompt() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let marks = [event(0, 1500, "BAD_begin"), event(6000, 3000, "BAD_middle")];
    let faces = (0..8).map(|i| event(1400 + 1500 * i, 0, "face"));
    let mut events: Vec<_> = marks.iter().cloned().chain(faces).collect();
    events.sort();
    let bad = |time: usize| marks.iter().any(|mark| (mark.onset..mark.onset + mark.duration).contains(&time));
    write_fif(&folder.join("a.fif"), 100.0, 16_000, &events, |channel, time| {
        noise(2 * time + channel) * if bad(time) { 100.0 } else { 1.0 }
    });
    write_fif(&folder.join("other.fif"), 100.0, 8_000, &[], |channel, time| noise(90_000 + 2 * time + channel));
    succeed(folder, "tokenize a.fif --out data --max-error 1 --band none --hold 3");
    succeed(folder, "evaluate --real data --generated other.fif --skip hmm --out report");
    let report: serde_json::Value =
        serde_json::from_slice(&std::fs::read(folder.join("report/report.json")).unwrap()).unwrap();
    assert_eq!(report["real"]["n_timestep"], 16_000 - 4_500);
    // As they were recorded too.
    let said = succeed(folder, "evaluate --real a.fif --generated other.fif --skip hmm --out untokenized");
    assert!(said.contains("a.fif: 45.0 s marked BAD or missing are left out"), "{said}");
    let report: serde_json::Value =
        serde_json::from_slice(&std::fs::read(folder.join("untokenized/report.json")).unwrap()).unwrap();
    assert_eq!(report["real"]["n_timestep"], 16_000 - 4_500);
    let line = "train data --out run --layers 1 --heads 1 --d-model 8 --context 64 --steps 1 --threads 1";
    succeed(folder, line);
    let said = succeed(folder, "generate run --data data --timesteps 11500 --hop 32 --conditions data --out x.npy");
    assert!(said.contains("the prompt begins at 15.00 s of its part"), "{said}");
    // Left are 15 to 60 s and 90 to 120 s (the end of the training part), 32 timesteps of them for the prompt. Trials at
    // 29, 44, 59 (1 s is left of it), 104 and 119 s (1 s) begin there; then it begins again.
    let table = std::fs::read_to_string(folder.join("x_events.tsv")).unwrap();
    let trials: Vec<[f64; 2]> = table
        .lines()
        .skip(1)
        .map(|line| std::array::from_fn(|column| line.split('\t').nth(column).unwrap().parse().unwrap()))
        .collect();
    assert_eq!(
        trials[..6],
        [[13.68, 3.0], [28.68, 3.0], [43.68, 1.0], [58.68, 3.0], [73.68, 1.0], [88.68, 3.0]],
        "{table}"
    );
}
