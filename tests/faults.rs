//! Every call to the disk may fail, and the machine may stop after any of them: the old file stands or the new one.

use gpt2meg::error::{Kind, Result};
use gpt2meg::storage::container::{Container, Entry, write_on};
use gpt2meg::storage::disk::{Disk, DiskFile, Os};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use safetensors::Dtype;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// What a call does instead of its work.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    DiskFull,
    Eio,
    /// Half of the bytes are written, and the call says so; the next one finds the disk full.
    Short,
}

#[derive(Debug, Clone, PartialEq)]
enum Call {
    Create(PathBuf),
    Write { file: usize, offset: u64, bytes: Vec<u8> },
    Sync(usize),
    Rename(PathBuf, PathBuf),
    SyncFolder,
    Remove(PathBuf),
}

/// The calls made so far, and which of them is to fail.
#[derive(Default)]
struct State {
    calls: Vec<Call>,
    /// The number of the call that fails, how, and whether all that follow do.
    fail: Option<(usize, Fault, bool)>,
    /// Whether files cannot be removed either.
    keep_files: bool,
    n_file: usize,
}

/// The real disk with a log and a fault.
#[derive(Clone, Default)]
struct Faulty(Arc<Mutex<State>>);

impl Faulty {
    fn failing(call: usize, fault: Fault, persistent: bool) -> Self {
        Self(Arc::new(Mutex::new(State { fail: Some((call, fault, persistent)), ..State::default() })))
    }

    /// Notes a call; says how it is to fail.
    fn next(&self, call: Call) -> Option<Fault> {
        let mut state = self.0.lock().unwrap();
        let number = state.calls.len();
        let is_remove = matches!(call, Call::Remove(_));
        state.calls.push(call);
        let (at, fault, persistent) = state.fail?;
        if is_remove {
            return state.keep_files.then_some(fault);
        }
        (number == at || (persistent && number > at)).then_some(fault)
    }

    fn calls(&self) -> Vec<Call> {
        self.0.lock().unwrap().calls.clone()
    }
}

fn error(fault: Fault) -> io::Error {
    io::Error::from_raw_os_error(if fault == Fault::Eio { libc::EIO } else { libc::ENOSPC })
}

impl Disk for Faulty {
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        if let Some(fault) = self.next(Call::Create(path.into())) {
            return Err(error(fault));
        }
        let number = self.0.lock().unwrap().n_file;
        self.0.lock().unwrap().n_file += 1;
        Ok(Box::new(FaultyFile { inner: Os.create(path)?, disk: self.clone(), number }))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        match self.next(Call::Rename(from.into(), to.into())) {
            Some(fault) => Err(error(fault)),
            None => Os.rename(from, to),
        }
    }
    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        match self.next(Call::SyncFolder) {
            Some(fault) => Err(error(fault)),
            None => Os.sync_folder(folder),
        }
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        match self.next(Call::Remove(path.into())) {
            Some(fault) => Err(error(fault)),
            None => Os.remove(path),
        }
    }
    fn free_bytes(&self, _: &Path) -> Option<u64> {
        Some(100)
    }
}

struct FaultyFile {
    inner: Box<dyn DiskFile>,
    disk: Faulty,
    number: usize,
}

impl DiskFile for FaultyFile {
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        match self.disk.next(Call::Write { file: self.number, offset, bytes: bytes.into() }) {
            Some(Fault::Short) if bytes.len() > 1 => self.inner.write_at(&bytes[..bytes.len() / 2], offset),
            Some(fault) => Err(error(fault)),
            None => self.inner.write_at(bytes, offset),
        }
    }
    fn sync(&mut self) -> io::Result<()> {
        match self.disk.next(Call::Sync(self.number)) {
            Some(fault) => Err(error(fault)),
            None => self.inner.sync(),
        }
    }
}

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

/// A folder in memory where that can be had: a thousand saves with their syncs should not wear a disk.
fn scratch() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory).unwrap() } else { tempfile::tempdir().unwrap() }
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        folder.read_dir().unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
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
                        assert!(!full || message.contains("100 are free"), "{case}: {message}");
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

/// What a crash may have made of the folder: names and content, from the calls up to it. Synced content is there; each
/// later write is there, absent, torn at 512 bytes or garbage; renames after the last sync of the folder have happened
/// or not.
fn crash_state(
    calls: &[Call],
    old: &[u8],
    target: &Path,
    random: &mut ChaCha8Rng,
    folder_synced: bool,
) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut contents: Vec<Vec<u8>> = Vec::new();
    let mut files: BTreeMap<PathBuf, usize> = BTreeMap::new();
    let mut renames = Vec::new();
    let last_sync = |file: usize| calls.iter().rposition(|call| *call == Call::Sync(file));
    for (at, call) in calls.iter().enumerate() {
        match call {
            Call::Create(path) => {
                files.insert(path.clone(), contents.len());
                contents.push(Vec::new());
            }
            Call::Write { file, offset, bytes } => {
                let safe = last_sync(*file).is_some_and(|sync| at < sync);
                let fate = if safe { 0 } else { random.next_u32() % 4 };
                let kept = match fate {
                    0 | 3 => bytes.len(),
                    1 => 0,
                    _ => (random.next_u32() as usize % (bytes.len() / 512 + 1)) * 512,
                };
                let content = &mut contents[*file];
                let end = *offset as usize + kept;
                content.resize(content.len().max(end), 0);
                content[*offset as usize..end].copy_from_slice(&bytes[..kept]);
                if fate == 3 {
                    random.fill_bytes(&mut content[*offset as usize..end]);
                }
            }
            Call::Rename(from, to) => renames.push((from.clone(), to.clone())),
            Call::Sync(_) | Call::SyncFolder | Call::Remove(_) => {}
        }
    }
    let mut folder = BTreeMap::from([(target.to_path_buf(), old.to_vec())]);
    for (path, file) in files {
        folder.insert(path, contents[file].clone());
    }
    for (from, to) in renames {
        if folder_synced || random.next_u32().is_multiple_of(2) {
            let content = folder.remove(&from).unwrap();
            folder.insert(to, content);
        }
    }
    folder
}

#[test]
fn every_crash_leaves_the_old_or_the_new() {
    let folder = scratch();
    let path = folder.path().join("x");
    save(&Faulty::default(), &path, 1).unwrap();
    let old = std::fs::read(&path).unwrap();
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
            let state = crash_state(done, &old, &path, &mut random, folder_synced);
            for (file, content) in &state {
                std::fs::write(crashed.path().join(file.file_name().unwrap()), content).unwrap();
            }
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
