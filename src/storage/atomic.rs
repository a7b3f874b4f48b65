//! Old or new, never a third thing: write to a temporary file in the same folder, sync, rename, sync the folder.

use super::disk::{Disk, DiskFile, Os};
use crate::error::{Error, Kind, Result};
use std::ffi::OsString;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Last part of the name of a file that is being written; the first is a dot.
const SUFFIX: &str = ".partial";

/// Writes `path` through `fill`, so that after any crash the file is the old one or the whole new one. Without `force`
/// an existing file is refused before anything is written.
pub fn write(path: &Path, force: bool, fill: impl FnOnce(&mut AtomicFile) -> Result<()>) -> Result<()> {
    let mut file = AtomicFile::create(path, force)?;
    fill(&mut file)?;
    file.commit()
}

/// Refuses a path that exists, unless forced; and a folder always, which no file replaces.
pub fn refuse_existing(path: &Path, force: bool) -> Result<()> {
    match path.symlink_metadata() {
        Ok(about) if about.is_dir() => {
            Err(Error::new(Kind::Exists, "a folder of this name exists").at(path).hint("Choose another name"))
        }
        Ok(_) if !force => Err(Error::new(Kind::Exists, "the file exists").at(path).hint("Give --force to replace it")),
        _ => Ok(()),
    }
}

/// Refuses, before any work is done, a path that a file could not be written to in the end: as [`refuse_existing`], and
/// where there is no folder for it.
pub fn refuse_target(path: &Path, force: bool) -> Result<()> {
    refuse_existing(path, force)?;
    let folder = folder_of(path);
    if folder.is_dir() {
        return Ok(());
    }
    Err(Error::new(Kind::NotFound, "there is no such folder").at(folder).hint("Create it first"))
}

/// A file that holds `bytes`, durable under its temporary name.
pub fn sealed(disk: Arc<dyn Disk>, path: &Path, force: bool, bytes: &[u8]) -> Result<AtomicFile> {
    let mut file = AtomicFile::create_on(disk, path, force)?;
    file.expect_bytes(bytes.len() as u64);
    file.write_at(0, bytes)?;
    file.sync()?;
    Ok(file)
}

/// Gives sealed files that only make sense together their names: `leader` is the one that readers open first, the
/// others are found by it or beside it.
///
/// One file replaces another in one step, several do not. So an older leader is removed before anything else, and the
/// new one takes its name last: a crash in between leaves no leader, which every reader notices, and never an old
/// leader beside new companions or the reverse, which none could. All bytes are on the disk before the old leader goes:
/// a full disk cannot come in between.
pub fn publish_together(disk: &dyn Disk, companions: Vec<AtomicFile>, leader: AtomicFile) -> Result<()> {
    if !companions.is_empty() {
        refuse_existing(&leader.target, leader.force)?;
        remove(disk, &leader.target)?;
    }
    companions.into_iter().try_for_each(AtomicFile::publish)?;
    leader.publish()
}

/// Refuses a path that another process, or another part of this one, is writing at the moment.
pub fn refuse_busy(path: &Path) -> Result<()> {
    let Ok(entries) = std::fs::read_dir(folder_of(path)) else { return Ok(()) };
    let begins = format!(".{}.", path.file_name().unwrap_or_default().to_string_lossy());
    for entry in entries.flatten().map(|entry| entry.path()).filter(|entry| is_temporary(entry)) {
        let number = entry.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let is_of_path = number.strip_prefix(&begins).is_some_and(|rest| rest.matches('.').count() == 1);
        let lock = std::fs::File::open(&entry).map(|file| file.try_lock());
        if is_of_path && matches!(lock, Ok(Err(std::fs::TryLockError::WouldBlock))) {
            let hint = "Wait until that has ended, or give another name";
            return Err(Error::new(Kind::Locked, "another process is writing this file").at(path).hint(hint));
        }
    }
    Ok(())
}

/// Removes a file, where there is one, so that no crash brings it back.
pub fn remove(disk: &dyn Disk, path: &Path) -> Result<()> {
    if path.symlink_metadata().is_err() {
        return Ok(());
    }
    disk.remove(path).map_err(|e| Error::io(e, "remove what is to be replaced", path))?;
    let folder = folder_of(path);
    disk.sync_folder(folder).map_err(|e| Error::io(e, "sync the folder", folder))
}

/// A file under a temporary name, which takes its own in [`AtomicFile::commit`] and vanishes if dropped before.
/// As a [`Write`] it appends; put a `BufWriter` before it when the pieces are small, and flush that.
pub struct AtomicFile {
    disk: Arc<dyn Disk>,
    file: Box<dyn DiskFile>,
    temporary: PathBuf,
    target: PathBuf,
    force: bool,
    position: u64,
    len: u64,
    /// Bytes that went to the disk; not `len`, as what lies before the last of them may be a hole still.
    written: u64,
    expected: u64,
    renamed: bool,
}

impl AtomicFile {
    /// Starts to write what will become `path`. Without `force` an existing file is refused.
    pub fn create(path: &Path, force: bool) -> Result<Self> {
        Self::create_on(Arc::new(Os), path, force)
    }

    /// As [`Self::create`], on a given disk.
    pub fn create_on(disk: Arc<dyn Disk>, path: &Path, force: bool) -> Result<Self> {
        refuse_existing(path, force)?;
        remove_stale(&*disk, folder_of(path));
        let (temporary, file) = create_temporary(&*disk, path)?;
        let (target, renamed) = (path.to_owned(), false);
        Ok(Self { disk, file, temporary, target, force, position: 0, len: 0, written: 0, expected: 0, renamed })
    }

    /// Announces the final length, so that a full disk can be reported with what is missing.
    pub fn expect_bytes(&mut self, len: u64) {
        self.expected = len;
    }

    /// The name it has while it is written.
    pub fn temporary(&self) -> &Path {
        &self.temporary
    }

    /// Writes all of `bytes` at `offset`.
    pub fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        let mut written = 0;
        while written < bytes.len() {
            match self.file.write_at(&bytes[written..], offset + written as u64) {
                Ok(0) => return Err(self.write_error(io::ErrorKind::WriteZero.into(), bytes.len(), offset)),
                Ok(n) => {
                    written += n;
                    self.written += n as u64;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(self.write_error(e, bytes.len(), offset)),
            }
        }
        self.len = self.len.max(offset + bytes.len() as u64);
        Ok(())
    }

    /// Cuts it to `len` bytes.
    pub fn set_len(&mut self, len: u64) -> Result<()> {
        self.file.set_len(len).map_err(|e| self.failed(e, &format!("set the length to {len} bytes")))?;
        self.len = len;
        Ok(())
    }

    /// The name it will take.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// Makes the content durable, under the temporary name still. A failure is final.
    pub fn sync(&mut self) -> Result<()> {
        let doing = format!("sync {} bytes to disk", self.len);
        self.file.sync().map_err(|e| self.failed(e, &doing))
    }

    /// Gives the synced file its name. From here on a crash leaves the new file.
    pub fn publish(mut self) -> Result<()> {
        refuse_existing(&self.target, self.force)?;
        let doing = format!("rename {} to it", self.temporary.display());
        self.disk.rename(&self.temporary, &self.target).map_err(|e| Error::io(e, &doing, &self.target))?;
        self.renamed = true;
        let folder = folder_of(&self.target);
        self.disk.sync_folder(folder).map_err(|e| Error::io(e, "sync the folder", folder))
    }

    /// Makes the content durable and gives the file its name.
    pub fn commit(mut self) -> Result<()> {
        self.sync()?;
        self.publish()
    }

    fn write_error(&self, error: io::Error, len: usize, offset: u64) -> Error {
        self.failed(error, &format!("write {len} bytes at byte {offset}"))
    }

    /// The error, and on a full disk how many bytes are missing.
    fn failed(&self, error: io::Error, doing: &str) -> Error {
        use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull, WriteZero};
        let is_full = matches!(error.kind(), StorageFull | QuotaExceeded | WriteZero);
        let is_limited = error.kind() == FileTooLarge;
        let error = Error::io(error, doing, &self.target);
        let wanted = self.expected.max(self.len);
        if is_limited {
            return error
                .hint(format!("The file needs {wanted} bytes in all; see the limit on one file's (ulimit -f)"));
        }
        let Some(free) = self.disk.free_bytes(folder_of(&self.target)).filter(|_| is_full) else { return error };
        let missing = wanted.saturating_sub(self.written).saturating_sub(free);
        error.hint(format!("The file needs {wanted} bytes in all; {free} are free, {missing} more are missing"))
    }
}

impl Drop for AtomicFile {
    fn drop(&mut self) {
        if !self.renamed {
            // Nothing more can be done if this fails too; the next start removes what is left.
            let _ = self.disk.remove(&self.temporary);
        }
    }
}

impl Write for AtomicFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.file.write_at(bytes, self.position)?;
        self.position += n as u64;
        self.written += n as u64;
        self.len = self.len.max(self.position);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for AtomicFile {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let moved = match to {
            SeekFrom::Start(offset) => Some(offset),
            SeekFrom::End(by) => self.len.checked_add_signed(by),
            SeekFrom::Current(by) => self.position.checked_add_signed(by),
        };
        self.position = moved.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}

/// The folder a file is in.
pub fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// A new file in the target's folder: `.NAME.PID-COUNT.partial`.
fn create_temporary(disk: &dyn Disk, target: &Path) -> Result<(PathBuf, Box<dyn DiskFile>)> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let name = target.file_name().ok_or_else(|| Error::new(Kind::Usage, "this is no name for a file").at(target))?;
    let mut tries = 0;
    loop {
        let mut temporary = OsString::from(".");
        temporary.push(name);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        temporary.push(format!(".{}-{count}{SUFFIX}", std::process::id()));
        let temporary = target.with_file_name(temporary);
        match disk.create(&temporary) {
            Ok(file) => return Ok((temporary, file)),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists && tries < 100 => tries += 1,
            Err(e) => return Err(Error::io(e, "create a file beside it", target)),
        }
    }
}

/// Removes what dead processes were writing in `folder`. A file that is still being written is locked, and stays; so
/// does everything where locks cannot be had. Failures are left for the next time: nothing depends on this.
pub fn remove_stale(disk: &dyn Disk, folder: &Path) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for path in entries.flatten().map(|entry| entry.path()).filter(|path| is_temporary(path)) {
        let Ok(file) = std::fs::File::open(&path) else { continue };
        if file.try_lock().is_ok() {
            let _ = disk.remove(&path);
        }
    }
}

/// Whether the name is one that [`create_temporary`] gives.
fn is_temporary(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let Some(inner) = name.strip_prefix('.').and_then(|name| name.strip_suffix(SUFFIX)) else { return false };
    let Some((_, number)) = inner.rsplit_once('.') else { return false };
    number.split_once('-').is_some_and(|(pid, count)| pid.parse::<u32>().is_ok() && count.parse::<u64>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn fill(text: &'static str) -> impl FnOnce(&mut AtomicFile) -> Result<()> {
        move |file| file.write_all(text.as_bytes()).map_err(|e| Error::io(e, "write", "x"))
    }

    #[test]
    fn replaces_only_when_forced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        write(&path, false, fill("one")).unwrap();
        assert_eq!(write(&path, false, fill("two")).unwrap_err().kind(), Kind::Exists);
        assert_eq!(std::fs::read(&path).unwrap(), b"one");
        write(&path, true, fill("two")).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        assert_eq!(names(folder.path()), ["a.json"]);
    }

    #[test]
    fn a_failure_leaves_the_old_file_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        write(&path, false, fill("one")).unwrap();
        let error = write(&path, true, |file| {
            file.write_at(0, b"half")?;
            Err(Error::new(Kind::Internal, "stop"))
        });
        assert!(error.is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"one");
        assert_eq!(names(folder.path()), ["a"]);
    }

    #[test]
    fn removes_what_the_dead_left_and_spares_the_living() {
        let folder = tempfile::tempdir().unwrap();
        let (dead, other) = (folder.path().join(".a.safetensors.4194303-0.partial"), folder.path().join(".a.partial"));
        std::fs::write(&dead, "x").unwrap();
        std::fs::write(&other, "not ours").unwrap();
        let living = AtomicFile::create(&folder.path().join("b"), false).unwrap();
        assert!(!dead.exists());
        let third = AtomicFile::create(&folder.path().join("c"), false).unwrap();
        assert!(living.temporary().exists() && third.temporary().exists() && other.exists());
        drop((living, third));
        assert_eq!(names(folder.path()), [".a.partial"]);
    }

    #[test]
    fn has_ordinary_permissions() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let (ours, plain) = (folder.path().join("ours"), folder.path().join("plain"));
        write(&ours, false, fill("x")).unwrap();
        std::fs::write(&plain, "x").unwrap();
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode();
        assert_eq!(mode(&ours), mode(&plain));
    }

    #[test]
    fn seeks_and_appends() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        write(&path, false, |file| {
            file.write_all(b"hello world").unwrap();
            file.seek(SeekFrom::Start(0)).unwrap();
            file.write_all(b"J").unwrap();
            file.seek(SeekFrom::End(0)).unwrap();
            file.write_all(b"!").unwrap();
            Ok(())
        })
        .unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"Jello world!");
    }
}
