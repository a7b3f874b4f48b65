//! One writer per folder.

use super::{atomic, disk::Os};
use crate::error::{Error, Kind, Result};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::Path;

/// Holds a folder until dropped; the operating system releases it when the process dies, however it dies.
#[derive(Debug)]
pub struct FolderLock {
    _file: File,
}

impl FolderLock {
    /// Name of the file that is locked. It stays behind: removing it would let two processes lock two files.
    pub const NAME: &'static str = ".lock";

    /// Locks `folder`, or says who holds it ([`Kind::Locked`]), and removes what dead writers left in it.
    pub fn acquire(folder: &Path) -> Result<Self> {
        let path = folder.join(Self::NAME);
        let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let mut file = open.map_err(|e| Error::io(e, "open the lock", &path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(held(file, folder)),
            Err(TryLockError::Error(e)) => return Err(Error::io(e, "lock the folder", &path)),
        }
        let holder = format!("process {} on {}\n", std::process::id(), host_name());
        let written = file.set_len(0).and_then(|()| file.write_all(holder.as_bytes()));
        written.map_err(|e| Error::io(e, "name the holder of the lock", &path))?;
        atomic::remove_stale(&Os, folder);
        Ok(Self { _file: file })
    }

    /// Fails if somebody holds `folder` ([`Kind::Locked`]); changes nothing in it. A glance, not a promise: to write,
    /// acquire.
    pub fn refuse_held(folder: &Path) -> Result<()> {
        match File::open(folder.join(Self::NAME)) {
            Ok(file) if matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)) => Err(held(file, folder)),
            _ => Ok(()),
        }
    }
}

/// The error that names the holder, as far as it has had the time to write its name.
fn held(file: File, folder: &Path) -> Error {
    let mut holder = String::new();
    let _ = file.take(200).read_to_string(&mut holder);
    let holder = if holder.trim().is_empty() { "another process" } else { holder.trim() };
    Error::new(Kind::Locked, format!("{holder} is writing to this folder"))
        .at(folder)
        .hint("Wait for it, stop it, or choose another folder")
}

fn host_name() -> String {
    let mut name = [0u8; 256];
    // SAFETY: the call writes at most the length it is given, and we keep the last byte zero.
    let failed = unsafe { libc::gethostname(name.as_mut_ptr().cast(), name.len() - 1) } != 0;
    let len = name.iter().position(|&byte| byte == 0).unwrap_or(0);
    if failed { "an unknown host".into() } else { String::from_utf8_lossy(&name[..len]).into_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_refused_until_the_first_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let first = FolderLock::acquire(folder.path()).unwrap();
        assert_eq!(FolderLock::refuse_held(folder.path()).unwrap_err().kind(), Kind::Locked);
        let error = FolderLock::acquire(folder.path()).unwrap_err();
        assert_eq!(error.kind(), Kind::Locked);
        assert!(error.to_string().contains(&format!("process {} on ", std::process::id())), "{error}");
        drop(first);
        FolderLock::refuse_held(folder.path()).unwrap();
        FolderLock::acquire(folder.path()).unwrap();
    }

    #[test]
    fn a_folder_that_is_not_there() {
        let folder = tempfile::tempdir().unwrap();
        let error = FolderLock::acquire(&folder.path().join("absent")).unwrap_err();
        assert_eq!(error.kind(), Kind::NotFound);
    }
}
