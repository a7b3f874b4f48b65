//! The seam to the file system: every call that writes goes through here, so that tests can make the n-th one fail.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;

/// The calls on the path of a write. [`Os`] is the real one; tests put their own behind it.
pub trait Disk: Send + Sync {
    /// Creates a new file with ordinary permissions (0666 less the umask) and locks it for as long as it is open: the
    /// lock is what tells a file still being written from one that a dead process left.
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;
    /// Gives a file its name, replacing what had it.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Makes the folder's entries durable.
    fn sync_folder(&self, folder: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Bytes that may still be written to the folder's file system, where that can be known.
    fn free_bytes(&self, folder: &Path) -> Option<u64>;
}

/// A file being written.
pub trait DiskFile: Send {
    /// Writes some of `bytes` at `offset` and returns how many.
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<usize>;
    /// Cuts the file to `len` bytes.
    fn set_len(&mut self, len: u64) -> io::Result<()>;
    /// Makes the content durable. After a failure the pages count as clean, so a second attempt proves nothing.
    fn sync(&mut self) -> io::Result<()>;
}

/// The operating system's file system.
#[derive(Debug, Clone, Copy, Default)]
pub struct Os;

impl Disk for Os {
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
        match file.try_lock() {
            // Someone clearing up may have removed the file between its creation and its lock.
            Ok(()) if is_unlinked(&file)? => Err(io::ErrorKind::AlreadyExists.into()),
            Err(std::fs::TryLockError::WouldBlock) => Err(io::ErrorKind::AlreadyExists.into()),
            // A file system without locks: nobody can lock this file to remove it either.
            Ok(()) | Err(std::fs::TryLockError::Error(_)) => Ok(Box::new(file)),
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        File::open(folder)?.sync_all()
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn free_bytes(&self, folder: &Path) -> Option<u64> {
        use std::os::unix::ffi::OsStrExt;
        let folder = std::ffi::CString::new(folder.as_os_str().as_bytes()).ok()?;
        let mut stat = std::mem::MaybeUninit::<libc::statvfs>::uninit();
        // SAFETY: the path is a C string and `stat` has room for what the call writes.
        let failed = unsafe { libc::statvfs(folder.as_ptr(), stat.as_mut_ptr()) } != 0;
        if failed {
            return None;
        }
        // SAFETY: the call succeeded, so it has filled the structure.
        let stat = unsafe { stat.assume_init() };
        #[allow(clippy::unnecessary_cast, reason = "the fields' types differ between systems")]
        (stat.f_bavail as u64).checked_mul(stat.f_frsize as u64)
    }
}

impl DiskFile for File {
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        std::os::unix::fs::FileExt::write_at(self, bytes, offset)
    }

    fn set_len(&mut self, len: u64) -> io::Result<()> {
        File::set_len(self, len)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_all()
    }
}

/// Lets this process have as many files open as the system allows it to; many systems begin with a thousand, which some
/// hundred recordings with three shards each exceed. Where that fails, opening a file will say what is missing.
pub fn allow_many_open_files() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid place for what the call writes.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) } != 0 {
        return;
    }
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: `limit` is initialised.
    unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) };
}

fn is_unlinked(file: &File) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    Ok(file.metadata()?.nlink() == 0)
}
