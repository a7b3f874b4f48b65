//! Every call to the disk may fail, and the machine may stop after any of them: the old file stands or the new one.

#[path = "support/faulty.rs"]
mod faulty;

use faulty::{Call, Fault, Faulty, crash_state, files, names, restore, scratch};
use gpt2meg::error::{Kind, Result};
use gpt2meg::storage::container::{Container, Entry, write_on};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use safetensors::Dtype;
use std::path::Path;
use std::sync::Arc;

/// A container of a few tensors, all of whose bytes depend on `version`.
fn save(disk: &Faulty, path: &Path, version: u8) -> Result<()> {
    let tensors: Vec<(String, Vec<u8>)> =
        (0..12).map(|i| (format!("t{i:02}"), vec![version.wrapping_mul(17) ^ i; 300 + 97 * usize::from(i)])).collect();
    let entry = |(name, bytes): &(String, Vec<u8>)| (name.clone(), bytes.clone());
    let owned: Vec<_> = tensors.iter().map(entry).collect();
    let entries: Vec<Entry> =
        owned.iter().map(|(name, bytes)| Entry { name, dtype: Dtype::U8, shape: vec![bytes.len()], bytes }).collect();
    write_on(Arc::new(disk.clone()), path, true, "test", &version, &entries)
}

/// The version of a file that is whole.
fn load(path: &Path) -> Result<u8> {
    let container = Container::open(path, "test")?;
    container.verify()?;
    container.meta()
}

#[test]
fn any_call_may_fail() {
    let n_call = {
        let folder = scratch();
        let disk = Faulty::default();
        save(&disk, &folder.path().join("x"), 1).unwrap();
        disk.calls().len()
    };
    assert!(n_call >= 15, "{n_call} calls");
    for call in 0..n_call {
        for fault in [Fault::DiskFull, Fault::Eio, Fault::Short] {
            for persistent in [false, true] {
                let case = format!("call {call}, {fault:?}, persistent: {persistent}");
                let folder = scratch();
                let path = folder.path().join("x");
                save(&Faulty::default(), &path, 1).unwrap();
                let old = std::fs::read(&path).unwrap();
                let disk = Faulty::failing(call, fault, persistent);
                let outcome = save(&disk, &path, 2);
                let calls = disk.calls();
                // What of each write went to the disk: the pieces come in no order, so it is not the last one's end.
                let on_disk = |made: &Call, at: usize| match made {
                    Call::Write { bytes, .. } if at < call => bytes.len(),
                    Call::Write { bytes, .. } if fault == Fault::Short && bytes.len() > 1 => bytes.len() / 2,
                    _ => 0,
                };
                let renamed = calls[..call].iter().any(|call| matches!(call, Call::Rename(..)));
                match &outcome {
                    // One short write is no failure: the rest follows.
                    Ok(()) => assert!(fault == Fault::Short && !persistent, "{case}"),
                    Err(error) => {
                        assert_eq!(error.kind(), Kind::Io, "{case}: {error}");
                        let message = error.to_string();
                        assert!(message.contains(folder.path().to_str().unwrap()), "{case}: {message}");
                        let writes = matches!(calls[call], Call::Write { .. } | Call::Sync(_));
                        assert!(!writes || message.contains("bytes"), "{case}: {message}");
                        let full = writes && fault != Fault::Eio;
                        let written: usize = calls.iter().enumerate().map(|(at, made)| on_disk(made, at)).sum();
                        let missing = old.len().saturating_sub(written + 100);
                        let said = format!("{} bytes in all; 100 are free, {missing} more are missing", old.len());
                        assert!(!full || message.contains(&said), "{case}: no {said} in {message}");
                    }
                }
                // The old file stands, bit for bit, until the new one has been renamed.
                if outcome.is_err() && !renamed {
                    assert_eq!(std::fs::read(&path).unwrap(), old, "{case}");
                } else {
                    assert_eq!(load(&path).unwrap(), 2, "{case}");
                }
                // A failed sync is not tried again on the same file.
                if matches!(calls[call], Call::Sync(_)) {
                    let syncs = calls.iter().filter(|other| **other == calls[call]).count();
                    assert_eq!(syncs, 1, "{case}");
                }
                // Whatever was left behind is gone after the next start.
                save(&Faulty::default(), &path, 3).unwrap();
                assert_eq!((load(&path).unwrap(), names(folder.path())), (3, vec!["x".into()]), "{case}");
            }
        }
    }
}

#[test]
fn a_temporary_that_could_not_be_removed_goes_at_the_next_start() {
    let folder = scratch();
    let path = folder.path().join("x");
    let disk = Faulty::failing(1, Fault::DiskFull, false);
    disk.0.lock().unwrap().keep_files = true;
    save(&disk, &path, 1).unwrap_err();
    assert!(matches!(disk.calls()[..], [Call::Create(_), Call::Write { .. }, Call::Remove(_)]), "{:?}", disk.calls());
    assert_eq!(names(folder.path()).len(), 1);
    std::fs::write(folder.path().join(".x.999999-5.partial"), "left by the dead").unwrap();
    save(&Faulty::default(), &path, 2).unwrap();
    assert_eq!(names(folder.path()), ["x"]);
}

#[test]
fn every_crash_leaves_the_old_or_the_new() {
    let folder = scratch();
    let path = folder.path().join("x");
    save(&Faulty::default(), &path, 1).unwrap();
    let old = files(folder.path());
    let disk = Faulty::default();
    save(&disk, &path, 2).unwrap();
    let calls = disk.calls();
    let mut random = ChaCha8Rng::seed_from_u64(11);
    let (mut n_state, mut n_old, mut n_new) = (0, 0, 0);
    for end in 0..=calls.len() {
        let done = &calls[..end];
        let folder_synced = done.contains(&Call::SyncFolder);
        for _ in 0..150 {
            let crashed = scratch();
            restore(&crash_state(done, &old, &mut random), crashed.path());
            let path = crashed.path().join("x");
            match load(&path).unwrap_or_else(|e| panic!("after {end} calls: {e}")) {
                1 => n_old += 1,
                2 => n_new += 1,
                other => panic!("version {other}"),
            }
            assert!(!folder_synced || load(&path).unwrap() == 2);
            n_state += 1;
        }
    }
    assert!(n_state >= 2000 && n_old > 100 && n_new > 100, "{n_state} states, {n_old} old, {n_new} new");
}
