//! A disk whose calls fail when they are told to, and what a crash may make of those that succeeded.

use gpt2meg::storage::disk::{Disk, DiskFile, Os};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// What a call does instead of its work.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fault {
    DiskFull,
    Eio,
    /// Half of the bytes are written, and the call says so; the next one finds the disk full.
    Short,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Call {
    Create(PathBuf),
    Write { file: usize, offset: u64, bytes: Vec<u8> },
    SetLen { file: usize, len: u64 },
    Sync(usize),
    Rename(PathBuf, PathBuf),
    SyncFolder,
    Remove(PathBuf),
}

/// The calls made so far, and which of them is to fail.
#[derive(Default)]
pub struct State {
    calls: Vec<Call>,
    /// The number of the call that fails, how, and whether all that follow do.
    fail: Option<(usize, Fault, bool)>,
    /// Whether files cannot be removed either.
    pub keep_files: bool,
    n_file: usize,
}

/// The real disk with a log and a fault.
#[derive(Clone, Default)]
pub struct Faulty(pub Arc<Mutex<State>>);

impl Faulty {
    pub fn failing(call: usize, fault: Fault, persistent: bool) -> Self {
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

    pub fn calls(&self) -> Vec<Call> {
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
    fn set_len(&mut self, len: u64) -> io::Result<()> {
        match self.disk.next(Call::SetLen { file: self.number, len }) {
            Some(fault) => Err(error(fault)),
            None => self.inner.set_len(len),
        }
    }
    fn sync(&mut self) -> io::Result<()> {
        match self.disk.next(Call::Sync(self.number)) {
            Some(fault) => Err(error(fault)),
            None => self.inner.sync(),
        }
    }
}

/// A folder in memory where that can be had: a thousand saves with their syncs should not wear a disk.
pub fn scratch() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory).unwrap() } else { tempfile::tempdir().unwrap() }
}

pub fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        folder.read_dir().unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Content of every file of a folder.
pub type Files = BTreeMap<PathBuf, Vec<u8>>;

/// The files of a folder.
pub fn files(folder: &Path) -> Files {
    names(folder).into_iter().map(|name| (folder.join(&name), std::fs::read(folder.join(name)).unwrap())).collect()
}

/// What a crash may have made of a folder with the files `old`, from the calls up to it. Synced content is there; each
/// later write is there, absent, torn at 512 bytes or garbage. Names that were given or taken before the last sync of the
/// folder are so; each one after it is or is not, by itself.
pub fn crash_state(calls: &[Call], old: &Files, random: &mut ChaCha8Rng) -> Files {
    let mut contents: Vec<Vec<u8>> = Vec::new();
    let mut created: BTreeMap<PathBuf, usize> = BTreeMap::new();
    let last_sync = |file: usize| calls.iter().rposition(|call| *call == Call::Sync(file));
    for (at, call) in calls.iter().enumerate() {
        match call {
            Call::Create(path) => {
                created.insert(path.clone(), contents.len());
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
            Call::SetLen { file, len } => contents[*file].resize(*len as usize, 0),
            Call::Rename(..) | Call::Sync(_) | Call::SyncFolder | Call::Remove(_) => {}
        }
    }
    let mut folder = old.clone();
    folder.extend(created.into_iter().map(|(path, file)| (path, contents[file].clone())));
    let folder_sync = calls.iter().rposition(|call| *call == Call::SyncFolder);
    for (at, call) in calls.iter().enumerate() {
        let happened = folder_sync.is_some_and(|sync| at < sync) || random.next_u32().is_multiple_of(2);
        match call {
            Call::Rename(from, to) if happened => {
                let content = folder.remove(from).expect("a file that was created");
                folder.insert(to.clone(), content);
            }
            Call::Remove(path) if happened => drop(folder.remove(path)),
            _ => {}
        }
    }
    folder
}

/// Writes what a crash left of a folder into another one.
pub fn restore(state: &Files, folder: &Path) {
    for (file, content) in state {
        std::fs::write(folder.join(file.file_name().unwrap()), content).unwrap();
    }
}
