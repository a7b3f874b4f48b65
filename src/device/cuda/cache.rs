//! Compiled kernels on disk, so that only the first start with a model's shape has to wait for the compiler.
//!
//! A file holds what it was compiled from, as text, then a checksum, and what it was compiled to. It is used only if all of that is right;
//! otherwise the kernel is compiled again. Files are written under another name and renamed, so processes may share the
//! folder. That it cannot be written is no failure: kernels are then compiled at every start. Whenever one is added, those that
//! nobody has read for half a year go, and of more than [`MOST_BYTES`] those that nobody has read for longest.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Bytes that the folder may hold: some hundred shapes.
const MOST_BYTES: u64 = 256 << 20;
/// What the names of files end in.
const END: &str = "kernels";
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The folder of compiled kernels: `gpt2meg/kernels` in the user's cache folder, if there is one.
pub fn folder() -> Option<PathBuf> {
    let variable = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let cache = variable("XDG_CACHE_HOME").or_else(|| variable("HOME").map(|home| home.join(".cache")))?;
    Some(cache.join("gpt2meg/kernels"))
}

/// The kernel of this `key` (one line of text that says what it is compiled from), from `folder` or from the compiler.
pub fn cached<E>(folder: Option<&Path>, key: &str, compile: impl FnOnce() -> Result<Vec<u8>, E>) -> Result<Vec<u8>, E> {
    let path = folder.map(|folder| path(folder, key));
    if let Some(made) = path.as_ref().and_then(|path| read(path, key)) {
        return Ok(made);
    }
    let made = compile()?;
    if let Some(path) = path {
        // The user is not to be bothered with a cache.
        let _ = write(&path, key, &made);
    }
    Ok(made)
}

/// The kernel of this key from the compiler, in place of one that turned out to be of no use.
pub fn anew<E>(folder: Option<&Path>, key: &str, compile: impl FnOnce() -> Result<Vec<u8>, E>) -> Result<Vec<u8>, E> {
    if let Some(folder) = folder {
        // That it stays has been no help before, and is none now.
        let _ = std::fs::remove_file(path(folder, key));
    }
    cached(folder, key, compile)
}

/// The file of a key.
fn path(folder: &Path, key: &str) -> PathBuf {
    folder.join(format!("{:032x}.{END}", hash(key)))
}

/// FNV-1a of 128 bits, for the file's name.
fn hash(text: &str) -> u128 {
    text.bytes().fold(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d, |hash, byte| {
        (hash ^ u128::from(byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b)
    })
}

/// The first line of a file.
fn header(key: &str, made: &[u8]) -> String {
    format!("// {key}; crc32c {:08x}\n", crc32c::crc32c(made))
}

fn read(path: &Path, key: &str) -> Option<Vec<u8>> {
    let bytes = std::fs::read(path).ok()?;
    let (first, made) = bytes.split_at(bytes.iter().position(|&byte| byte == b'\n')? + 1);
    let right = first == header(key, made).as_bytes();
    if right {
        used(path);
    }
    right.then(|| made.to_vec())
}

/// Notes the day on which a file was read, in the time of its change. That this fails makes it go earlier, nothing else.
fn used(path: &Path) {
    let age = path.metadata().and_then(|metadata| metadata.modified()).map(|modified| modified.elapsed());
    if age.is_ok_and(|age| age.is_ok_and(|age| age > DAY)) {
        let _ = std::fs::File::options().append(true).open(path).and_then(|file| file.set_modified(SystemTime::now()));
    }
}

/// Removes what nobody has read for half a year, what is beyond `most` bytes, the latest read being kept, and what is no kernel:
/// what a process left that was killed as it wrote, or an earlier version of the program.
fn prune(folder: &Path, most: u64) {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut files: Vec<(SystemTime, u64, PathBuf)> = entries
        .filter_map(|path| path.metadata().ok().and_then(|of| Some((of.modified().ok()?, of.len(), path))))
        .collect();
    files.sort_by(|a, b| b.cmp(a));
    let mut kept = 0;
    for (modified, len, path) in files {
        let kernel = path.extension().is_some_and(|end| end == END);
        kept += if kernel { len } else { 0 };
        // Another process may be writing.
        let allowed = if kernel { 183 * DAY } else { DAY };
        if kept > most || modified.elapsed().is_ok_and(|age| age > allowed) {
            // Another process may have been faster.
            let _ = std::fs::remove_file(path);
        }
    }
}

fn write(path: &Path, key: &str, made: &[u8]) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(header(key, made).as_bytes())?;
    file.write_all(made)?;
    file.persist(path)?;
    prune(folder, MOST_BYTES);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The kernel of a key, and whether it was compiled.
    fn get(folder: &Path, key: &str) -> (String, bool) {
        let mut compiled = false;
        let made = cached(Some(folder), key, || {
            compiled = true;
            Ok::<_, ()>(format!("ptx of {key}\n").into_bytes())
        });
        (String::from_utf8(made.unwrap()).unwrap(), compiled)
    }

    #[test]
    fn a_kernel_is_compiled_once_and_damage_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("not/yet/there");
        assert_eq!(get(&folder, "a"), ("ptx of a\n".into(), true));
        assert_eq!(get(&folder, "a"), ("ptx of a\n".into(), false));
        assert_eq!(get(&folder, "b"), ("ptx of b\n".into(), true));

        for damage in [0, 5, 30] {
            let files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
            assert_eq!(files.len(), 2, "nothing else is left behind");
            for path in files {
                let mut bytes = std::fs::read(&path).unwrap();
                bytes[damage] ^= 1;
                std::fs::write(path, bytes).unwrap();
            }
            assert_eq!(get(&folder, "a"), ("ptx of a\n".into(), true));
            assert_eq!(get(&folder, "b"), ("ptx of b\n".into(), true));
        }
        for path in std::fs::read_dir(&folder).unwrap() {
            let path = path.unwrap().path();
            std::fs::write(&path, "").unwrap();
        }
        assert_eq!(get(&folder, "a"), ("ptx of a\n".into(), true));
        assert_eq!(get(&folder, "a"), ("ptx of a\n".into(), false));
    }

    #[test]
    fn what_is_of_no_use_is_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        let made = |text: &str| Ok::<_, ()>(text.into());
        cached(Some(folder.path()), "a", || made("of no use")).unwrap();
        assert_eq!(anew(Some(folder.path()), "a", || made("better")).unwrap(), b"better");
        assert_eq!(cached(Some(folder.path()), "a", || made("not asked for")).unwrap(), b"better");
        assert_eq!(anew(None, "a", || made("alone")).unwrap(), b"alone");
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_no_failure() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert_eq!(get(&file.join("kernels"), "a"), ("ptx of a\n".into(), true));
    }

    #[test]
    fn what_nobody_reads_goes() {
        let folder = tempfile::tempdir().unwrap();
        let put = |key: &str, text: &str| cached::<()>(Some(folder.path()), key, || Ok(text.into())).unwrap();
        let path = |key: &str| super::path(folder.path(), key);
        let touch = |path: &Path, days: u32| {
            let file = std::fs::File::options().append(true).create(true).open(path).unwrap();
            file.set_modified(SystemTime::now() - days * DAY).unwrap();
        };
        let age = |key: &str, days: u32| touch(&path(key), days);
        let others = [".tmp1", ".tmp2", "a.ptx"].map(|name| folder.path().join(name));
        others.iter().zip([0, 2, 2]).for_each(|(path, days)| touch(path, days));
        let old = [("a", 200), ("b", 200), ("c", 100)];
        old.iter().for_each(|(key, _)| _ = put(key, "text"));
        old.iter().for_each(|(key, days)| age(key, *days));
        // Reading renews b; adding d takes a away.
        put("b", "another text");
        put("d", "text");
        assert_eq!(["a", "b", "c", "d"].map(|key| path(key).exists()), [false, true, true, true]);
        assert_eq!(others.map(|path| path.exists()), [true, false, false], "another process may be writing .tmp1");
        // Room for two: the one that was read longest ago goes.
        age("b", 1);
        prune(folder.path(), path("b").metadata().unwrap().len() * 2 + 1);
        assert_eq!(["b", "c", "d"].map(|key| path(key).exists()), [true, false, true]);
    }
}
