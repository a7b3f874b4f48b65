//! `simulate` and `tokenize` as their users meet them: what is excluded, what aliases, what an interruption leaves.

#[path = "support/lines.rs"]
mod lines;

use gpt2meg::recording::{ChannelKind, Event};
use gpt2meg::tokens::dataset::Dataset;
use gpt2meg::tokens::publish::Summary;
use gpt2meg::tokens::shard::{Shard, Split};
use gpt2meg::tokens::window::Windows;
use lines::{entries, event, fail, noise, succeed, write_channels, write_fif};
use std::path::{Path, PathBuf};
use std::process::Command;

fn shard(folder: &Path, name: &str) -> Shard {
    Shard::open(&folder.join(name)).unwrap()
}

/// A channel's offset is a thousand times its signal, and a gap reads as zeros; a stretch that is marked BAD is
/// ten times as large as the rest. Neither may be seen in the scales, the windows or the trials.
#[test]
fn gaps_and_bad_stretches_are_excluded() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let (gap, bad) = (5000..7000, 20_000..21_500);
    let mut events = vec![event(5000, 2000, "BAD_ACQ_SKIP"), event(20_000, 1500, "bad muscle")];
    events.extend((0..30).map(|i| event(400 + 1000 * i, 0, "face")));
    write_fif(&folder.join("x_raw.fif"), 1000.0, 30_000, &events, |channel, time| {
        let size = if bad.contains(&time) { 1e-11 } else { 1e-12 };
        if gap.contains(&time) { 0.0 } else { 1e-9 + size * noise(2 * time + channel) }
    });
    let said = succeed(folder, "tokenize x_raw.fif --out data --max-error 1");
    assert!(said.contains("3.5 s excluded (11.7 %") && said.contains("1 BAD_ACQ_SKIP, 1 bad muscle"), "{said}");
    // Trials at 5.4, 6.4, 20.4 and 21.4 s begin where there is no signal.
    assert!(said.contains("26 trials of 1 conditions"), "{said}");
    let data = folder.join("data");
    let dataset = Dataset::open(&data).unwrap();
    let mut excluded = Vec::new();
    for shard in &dataset.shards {
        let first = shard.meta.info.first_timestep as usize;
        excluded.extend(shard.meta.excluded.iter().map(|e| e.start + first..e.end + first));
        // White noise of variance 1/12 in a band of 44.5 of 500 Hz; a step of 1e-9, or the BAD stretch, is far more.
        let wanted = 1e-12 * (44.5f64 / 500.0 / 12.0).sqrt();
        let spread = shard.scales.spread[1];
        assert!((0.8..1.25).contains(&(spread / wanted)), "{spread:e} instead of {wanted:e}");
    }
    excluded.sort_by_key(|stretch| stretch.start);
    assert_eq!(excluded, [500..700, 2000..2150]);
    for split in Split::ALL {
        let Ok(windows) = Windows::new(&dataset, split, 32) else { continue };
        for window in (0..windows.len()).map(|i| windows.in_order(i)) {
            let shard = &dataset.shards[window.shard];
            let touches = |e: &std::ops::Range<usize>| e.start < window.start + 33 && window.start < e.end;
            assert!(!shard.meta.excluded.iter().any(touches), "{window:?}");
        }
    }
    // Nothing marked: that is said too.
    write_fif(&folder.join("y_raw.fif"), 1000.0, 30_000, &[], |c, t| noise(2 * t + c));
    let said = succeed(folder, "tokenize y_raw.fif --out whole --max-error 1");
    assert!(said.contains("nothing is excluded") && said.contains("by time (75 % training"), "{said}");
    // In a table of events, as MNE-BIDS writes annotations, such a row is no condition either.
    let table = "onset\tduration\ttrial_type\n1.0\t0\tface\n12.0\t1.5\tBAD_jump\n";
    std::fs::write(folder.join("y_raw_events.tsv"), table).unwrap();
    let said = succeed(folder, "tokenize y_raw.fif --out table --max-error 1");
    assert!(said.contains("1.5 s excluded") && said.contains("1 trials of 1 conditions"), "{said}");
}

/// The amplitude at `hz` of a channel's training part, relative to its standard deviation.
fn amplitude(shard: Shard, hz: f64) -> f64 {
    let n = shard.n_timestep();
    let x = shard.into_recording().unwrap().read(0, n).unwrap();
    let x = x.channel(0);
    let (mut re, mut im) = (0.0, 0.0);
    for (t, x) in x.iter().enumerate() {
        let phase = std::f64::consts::TAU * hz * t as f64 / 100.0;
        (re, im) = (re + x * phase.cos(), im + x * phase.sin());
    }
    let sd = (x.iter().map(|x| x * x).sum::<f64>() / n as f64).sqrt();
    2.0 * f64::hypot(re, im) / n as f64 / sd
}

/// Mains of sixty times the noise within the band. By default nothing of it is found at 40 Hz, where decimation folds
/// it; with the authors' preset it is most of the signal.
#[test]
fn mains_do_not_fold_into_the_tokens() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write_fif(&folder.join("x_raw.fif"), 1000.0, 120_000, &[], |channel, time| {
        noise(2 * time + channel) + 5.0 * (std::f64::consts::TAU * 60.0 * time as f64 / 1000.0).sin()
    });
    succeed(folder, "tokenize x_raw.fif --out default --max-error 1");
    succeed(folder, "tokenize x_raw.fif --out authors --max-error 1 --preset authors");
    let of = |data: &str| amplitude(shard(&folder.join(data), "x_raw_train.safetensors"), 40.0);
    // 9000 samples of noise show an amplitude of about 2 / sqrt(9000) = 0.02 at any frequency.
    assert!(of("default") < 0.06, "{}", of("default"));
    assert!(of("authors") > 1.0, "{}", of("authors"));
}

/// A crash while shards take their names leaves some of one tokenization beside some of another.
#[test]
fn parts_of_two_tokenizations_are_refused_and_mended() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    for (offset, name) in ["x_raw.fif", "y_raw.fif"].into_iter().enumerate() {
        let trials: Vec<Event> = (0..30).map(|i| event(400 + 1000 * i, 0, "face")).collect();
        write_fif(&folder.join(name), 1000.0, 31_000, &trials, |c, t| noise(2 * t + c + offset));
    }
    let tokenize = "tokenize x_raw.fif --max-error 1";
    succeed(folder, &format!("{tokenize} --out data"));
    let first = entries(&folder.join("data"));
    let train = "data/x_raw_train.safetensors";
    let old = std::fs::read(folder.join(train)).unwrap();
    // The same tokenization is the same bytes, whenever and wherever it was.
    std::fs::create_dir(folder.join("elsewhere")).unwrap();
    std::fs::copy(folder.join("x_raw.fif"), folder.join("elsewhere/x_raw.fif")).unwrap();
    succeed(folder, "tokenize elsewhere/x_raw.fif --max-error 1 --out copy");
    let tokenization = |name: &str| shard(folder, name).meta.tokenization;
    assert_eq!(tokenization(train), tokenization("copy/x_raw_train.safetensors"));
    // Other events, and nothing else: only the conditions and where the parts are cut differ.
    let table = (0..30).map(|i| format!("{}\t0\tface\n", f64::from(i) + 0.6)).collect::<String>();
    std::fs::write(folder.join("events.tsv"), format!("onset\tduration\ttrial_type\n{table}")).unwrap();
    succeed(folder, &format!("{tokenize} --out data --force --events events.tsv"));
    assert_eq!(entries(&folder.join("data")), first);
    std::fs::write(folder.join(train), &old).unwrap();
    for line in
        ["verify data", "info data", "train data --out run --layers 1 --heads 1 --d-model 8 --context 16 --steps 1"]
    {
        fail(folder, line, 17, "different tokenizations of x_raw");
    }
    succeed(folder, &format!("{tokenize} --out data --force"));
    succeed(folder, "verify data");
    // Another recording may come to it, with the same settings only.
    let other = "tokenize y_raw.fif --max-error 1 --out data";
    fail(folder, &format!("{other} --band 0.5,40"), 17, "the pass band is 0.5 to 40 Hz");
    fail(folder, &format!("{other} --hold 0.4"), 17, "other settings");
    succeed(folder, other);
    assert_eq!(Dataset::open(&folder.join("data")).unwrap().shards.len(), 6);
    let summary: Summary = serde_json::from_slice(&std::fs::read(folder.join("data/tokenize.json")).unwrap()).unwrap();
    assert_eq!(summary.recordings.keys().collect::<Vec<_>>(), ["x_raw", "y_raw"]);
}

/// More recordings than the process may at first have files open, three shards for each.
#[test]
fn many_recordings_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    std::fs::create_dir(folder.join("in")).unwrap();
    for i in 0..20 {
        write_fif(&folder.join(format!("in/{i:02}_raw.fif")), 100.0, 1000, &[], |c, t| noise(2 * t + c + i));
    }
    let program = PathBuf::from(env!("CARGO_BIN_EXE_gpt2meg"));
    let script = format!("ulimit -Sn 32; exec {} tokenize in --out data --max-error 1 --band 2,45", program.display());
    let output = Command::new("sh").args(["-c", &script]).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(Dataset::open(&folder.join("data")).unwrap().shards.len(), 60);
}

#[test]
fn a_dry_run_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write_fif(&folder.join("x_raw.fif"), 100.0, 3000, &[], |c, t| noise(2 * t + c));
    let said = succeed(folder, "tokenize x_raw.fif --out not/yet/there --max-error 1 --dry-run");
    assert!(said.contains("relative error"), "{said}");
    assert_eq!(entries(folder), ["x_raw.fif"]);
}

/// Electrodes are what is tokenized where there is no MEG, and where they are asked for.
#[test]
fn eeg_is_tokenized_too() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let value = |channel: usize, time: usize| 1e-5 * noise(3 * time + channel);
    let both = [("MEG 000", false), ("EEG 001", false), ("EEG 002", false)];
    write_channels(&folder.join("eeg.fif"), &both[1..], 100.0, 3000, &[], value);
    write_channels(&folder.join("both.fif"), &both, 100.0, 3000, &[], value);
    for (line, names) in [
        ("tokenize eeg.fif --out eeg", &["EEG 001", "EEG 002"][..]),
        ("tokenize both.fif --out both", &["MEG 000"]),
        ("tokenize both.fif --picks eeg --out picked", &["EEG 001", "EEG 002"]),
    ] {
        succeed(folder, &format!("{line} --max-error 1"));
        let data = folder.join(line.rsplit(' ').next().unwrap());
        let dataset = Dataset::open(&data).unwrap();
        let channels = &dataset.shards[0].meta.info.channels;
        assert_eq!(channels.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(), names);
        let kind = if names[0].starts_with("EEG") { ChannelKind::Eeg } else { ChannelKind::Mag };
        assert!(channels.iter().all(|c| c.kind == kind), "{line}");
    }
}

/// Validation and test parts that are ten times as large change nothing in the scales.
#[test]
fn scales_are_those_of_the_training_part() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write_fif(&folder.join("x_raw.fif"), 100.0, 12_000, &[], |channel, time| {
        let size = if time < 9000 { 1e-12 } else { 1e-11 };
        size * noise(2 * time + channel)
    });
    for scaling in ["mean-std", "robust"] {
        succeed(folder, &format!("tokenize x_raw.fif --out {scaling} --scaling {scaling} --max-error 100"));
        for shard in Dataset::open(&folder.join(scaling)).unwrap().shards {
            // White noise of variance 1/12 in a band of 44.5 of 50 Hz; its quartiles are 1.35 standard deviations apart.
            let spread = if scaling == "robust" { 1.35 } else { 1.0 } * 1e-12 * (44.5f64 / 50.0 / 12.0).sqrt();
            let found = shard.scales.spread[1];
            assert!((0.8..1.25).contains(&(found / spread)), "{scaling}: {found:e} instead of {spread:e}");
        }
    }
}

/// Which events there are, and what they are called, as the command line has it.
#[test]
fn conditions_are_what_the_options_say() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let events: Vec<_> = (0..40).map(|i| event(100 + 70 * i, 0, ["5", "6", "17", "99"][i % 4])).collect();
    write_fif(&folder.join("x_raw.fif"), 100.0, 3000, &events, |c, t| noise(2 * t + c));
    std::fs::write(folder.join("map.txt"), "# Wakeman and Henson\n5=face\n6=face\n\n17=scrambled\n").unwrap();
    // MNE's events: first_samp (0 here) is counted in, then what the trigger was before, and its code.
    let rows: Vec<i64> = (0..20).flat_map(|i| [200 + 100 * i, 0, 3 + i % 2]).collect();
    let header = format!("{:<117}\n", "{'descr': '<i8', 'fortran_order': False, 'shape': (20, 3), }");
    let array = [&b"\x93NUMPY\x01\x00\x76\x00"[..], header.as_bytes(), bytemuck::cast_slice(&rows)].concat();
    std::fs::write(folder.join("events.npy"), array).unwrap();
    for (options, conditions, n_trial) in [
        ("--classes 5=face,6=face,17=scrambled", &["face", "scrambled"][..], 30),
        ("--classes map.txt", &["face", "scrambled"], 30),
        ("--events-from annotations", &["5", "6", "17", "99"], 40),
        ("--events events.npy", &["3", "4"], 20),
    ] {
        let said = succeed(folder, &format!("tokenize x_raw.fif --out data --force --max-error 1 {options}"));
        assert!(said.contains(&format!("{n_trial} trials of {} conditions", conditions.len())), "{options}: {said}");
        assert_eq!(Dataset::open(&folder.join("data")).unwrap().conditions, conditions, "{options}");
    }
    fail(folder, "tokenize x_raw.fif --out data --force --classes 5=face,7=house", 15, "no event has the label 7");
    fail(folder, "tokenize x_raw.fif --out data --force --events-from stim", 14, "no trigger channel");
}

/// Flat channels are named with the option that leaves them out.
#[test]
fn flat_channels_are_named_with_what_helps() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let value = |channel: usize, time: usize| if channel == 1 { 0.0 } else { noise(3 * time + channel) };
    for (name, bad, hint) in [("bad", true, "--drop-bads"), ("good", false, "--exclude \"MEG 001\"")] {
        let channels = [("MEG 000", false), ("MEG 001", bad), ("MEG 002", bad)];
        write_channels(&folder.join(format!("{name}.fif")), &channels, 100.0, 3000, &[], value);
        fail(folder, &format!("tokenize {name}.fif --out data"), 13, hint);
    }
    succeed(folder, "tokenize bad.fif --out data --drop-bads --max-error 1");
    assert_eq!(Dataset::open(&folder.join("data")).unwrap().shards[0].meta.info.channels.len(), 1);
}

#[test]
fn simulate_writes_what_its_name_says() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    for name in ["x.fif.gz", "x.FIF.GZ", "x.npz", "x.mat"] {
        fail(folder, &format!("simulate --out {name} --channels 2 --hours 0.001"), 2, "not as");
        assert!(entries(folder).is_empty(), "{name}");
    }
    // More files than a recording may have: found before anything is made.
    fail(
        folder,
        "simulate --out study --hours 500 --channels 306 --sfreq 1000",
        2,
        "sub-01_task-sim_meg.fif: the recording needs more than",
    );
    fail(folder, "simulate --out x.fif --hours 700 --channels 1 --sfreq 1000", 2, "x.fif: FIF numbers its timesteps");
    assert!(entries(folder).is_empty());
    succeed(folder, "simulate --out x_raw.fif --channels 2 --hours 0.001");
    assert_eq!(entries(folder), ["x_raw.fif", "x_raw_truth.safetensors"]);
    succeed(folder, "simulate --out study --channels 2 --hours 0.001 --subjects 2 --conditions 2");
    assert_eq!(
        entries(&folder.join("study/sub-02/meg")),
        [
            "sub-02_task-sim_channels.tsv",
            "sub-02_task-sim_events.tsv",
            "sub-02_task-sim_meg.fif",
            "sub-02_task-sim_meg.json",
            "sub-02_task-sim_meg_truth.safetensors"
        ]
    );
}

/// The lines of Python that the README shows, run as they stand there.
#[cfg(feature = "python-tests")]
#[test]
fn numpy_opens_a_shard_by_the_readmes_lines() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = tempfile::tempdir().unwrap();
    let fixture = top.join("tests/fixtures/audvis_mag_raw.fif");
    succeed(folder.path(), &format!("tokenize {} --out data", fixture.display()));
    let readme = std::fs::read_to_string(top.join("README.md")).unwrap();
    let blocks: Vec<&str> = readme.split("```python\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    let lines = blocks.iter().find(|block| block.contains("load_file")).expect("the README opens a shard");
    let (expression, comment) =
        lines.trim_end().lines().last().unwrap().split_once("  # ").expect("a shape, as a comment");
    let check = format!(
        "{lines}\nassert {expression} == {comment}, {expression}\n\
         assert shard['tokens'].dtype == 'uint8' and shard['condition'].dtype == 'uint16'\n\
         assert shard['condition'].shape == shard['tokens'].shape[1:]\n\
         assert shard['centre'].shape == shard['spread'].shape == shard['peak'].shape == shard['tokens'].shape[:1]\n\
         print(int(shard['tokens'][7, 1000]), int(shard['tokens'].sum()))\n"
    );
    let python = std::env::var_os("GPT2MEG_PYTHON").expect("GPT2MEG_PYTHON must name a Python that has safetensors");
    let output = Command::new(python).args(["-c", &check]).current_dir(folder.path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let ours = shard(folder.path(), "data/audvis_mag_raw_train.safetensors");
    let (mut sum, mut row, mut one) = (0, vec![0; ours.n_timestep()], 0);
    for channel in 0..102 {
        ours.tokens(channel, 0, &mut row).unwrap();
        sum += row.iter().map(|&token| u64::from(token)).sum::<u64>();
        one = if channel == 7 { row[1000] } else { one };
    }
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), format!("{one} {sum}"));
}
