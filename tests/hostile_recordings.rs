//! Damaged and hostile recordings, FIF and arrays: an error each, no panic, and no more memory than the file's own size justifies.

use flate2::read::MultiGzDecoder;
use gpt2meg::error::Kind;
use gpt2meg::random::{Purpose, keyed};
use gpt2meg::recording::fif;
use gpt2meg::recording::npy::{self, NpyOptions};
use rand::Rng;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// The system's allocator, keeping account of this thread's memory.
struct Counting;

thread_local! {
    static LIVE: Cell<usize> = const { Cell::new(0) };
    static PEAK: Cell<usize> = const { Cell::new(0) };
}

fn count(allocated: usize, freed: usize) {
    LIVE.with(|live| {
        // A thread may free what another allocated.
        live.set((live.get() + allocated).saturating_sub(freed));
        PEAK.with(|peak| peak.set(peak.get().max(live.get())));
    });
}

// SAFETY: all memory comes from the system's allocator, asked exactly as we are asked; counting touches no memory of
// the caller and allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc_zeroed(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(0, layout.size());
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn fixture(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/fif").join(name)).unwrap()
}

/// A file that is written anew for each case.
struct Case {
    _folder: tempfile::TempDir,
    path: PathBuf,
    file: File,
    n_case: usize,
    n_error: usize,
}

impl Case {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a_raw.fif");
        let file = File::create(&path).unwrap();
        Self { _folder: folder, path, file, n_case: 0, n_error: 0 }
    }

    /// Opens a file of these bytes and reads its ends; gives back the kind of error. `unpacked` is the length that
    /// memory may grow with.
    fn open(&mut self, bytes: &[u8], unpacked: usize) -> Option<Kind> {
        // Written over the old bytes: a file that is cut to nothing first is flushed to the disk by some file systems.
        self.file.write_all_at(bytes, 0).unwrap();
        self.file.set_len(bytes.len() as u64).unwrap();
        let before = LIVE.with(Cell::get);
        PEAK.with(|peak| peak.set(before));
        let opened = fif::open(&self.path);
        let peak = PEAK.with(Cell::get) - before;
        // A tag of 20 bytes may become a block of our tree, and a name of one byte a string; gzip needs its windows.
        let limit = 16 * unpacked + (1 << 18);
        assert!(peak <= limit, "{peak} bytes of memory for {unpacked} of file");
        self.n_case += 1;
        match opened {
            Ok(mut recording) => {
                let n_timestep = recording.info.n_timestep;
                for (start, n) in [(0, n_timestep.min(50)), (n_timestep - 1, 1)] {
                    if let Err(error) = recording.read(start, n) {
                        assert_eq!(error.kind(), Kind::NonFiniteSignal, "{error}");
                    }
                }
                None
            }
            Err(error) => {
                use Kind::*;
                let expected = [UnknownFormat, EmptyRecording, Corrupt, SamplingRate, NotFound, ChannelMismatch];
                assert!(expected.contains(&error.kind()), "{:?}: {error}", error.kind());
                self.n_error += 1;
                Some(error.kind())
            }
        }
    }
}

#[test]
fn every_truncation_is_refused() {
    let mut case = Case::new();
    let whole = fixture("single_raw.fif");
    for len in 0..whole.len() {
        let kind = case.open(&whole[..len], len);
        // Without its last tag, which holds nothing, a file is still whole.
        if len < whole.len() - 16 {
            // Sixteen bytes, the first header, are what a FIF file is known by.
            let expected = match len {
                0 => Kind::EmptyRecording,
                1..16 => Kind::UnknownFormat,
                // The file's own tags are whole, but for a header that is not counted: FIF without a measurement.
                56..72 | 76..92 => Kind::UnknownFormat,
                _ => Kind::Corrupt,
            };
            assert_eq!(kind, Some(expected), "{len} bytes");
        }
    }
    assert_eq!(case.open(&whole, whole.len()), None);
}

#[test]
fn boundary_integers_in_every_word() {
    let mut case = Case::new();
    for name in ["names_raw.fif", "skip_first_raw.fif", "scalar_origin_raw.fif", "continuous_raw.fif", "split_raw.fif"]
    {
        let whole = fixture(name);
        let len = whole.len() as u32;
        for at in (0..whole.len() - 3).step_by(4) {
            let word = u32::from_be_bytes(whole[at..at + 4].try_into().unwrap());
            for hostile in
                [0, 1, u32::MAX, i32::MAX as u32, 1 << 31, len, len - at as u32, word ^ 1, word.wrapping_neg()]
            {
                let mut bytes = whole.clone();
                bytes[at..at + 4].copy_from_slice(&hostile.to_be_bytes());
                case.open(&bytes, bytes.len());
            }
        }
    }
    assert!(case.n_case > 35_000 && case.n_error > case.n_case / 8, "{} of {}", case.n_error, case.n_case);
}

/// With explicit pointers from tag to tag, a size that lies does not end the chain.
#[test]
fn boundary_integers_in_every_header() {
    let mut case = Case::new();
    let whole = fixture("pointers_raw.fif");
    let word = |at: usize| u32::from_be_bytes(whole[at..at + 4].try_into().unwrap());
    let mut at = 0;
    loop {
        for field in (at..at + 16).step_by(4) {
            let len = whole.len() as u32;
            for hostile in [0, 1, u32::MAX, i32::MAX as u32, 1 << 31, len, len - at as u32, 1 << 28, at as u32] {
                let mut bytes = whole.clone();
                bytes[field..field + 4].copy_from_slice(&hostile.to_be_bytes());
                case.open(&bytes, bytes.len());
            }
        }
        match word(at + 12) {
            u32::MAX => break,
            next => at = next as usize,
        }
    }
    assert!(case.n_case > 2000 && case.n_error > 500, "{} of {}", case.n_error, case.n_case);
}

#[test]
fn random_edits() {
    let mut case = Case::new();
    let mut random = keyed(1, Purpose::Simulate, 0);
    let files = ["single_raw.fif", "names_raw.fif", "pointers_raw.fif", "string_raw.fif", "int16_raw.fif"].map(fixture);
    for i in 0..60_000 {
        let mut bytes = files[i % files.len()].clone();
        for _ in 0..1 + random.next_u32() % 8 {
            let at = random.next_u32() as usize % bytes.len();
            bytes[at] = random.next_u32() as u8;
        }
        case.open(&bytes, bytes.len());
    }
    assert!(case.n_error > 3000, "{}", case.n_error);
}

#[test]
fn damaged_gzip() {
    let mut case = Case::new();
    let mut random = keyed(2, Purpose::Simulate, 0);
    let (packed, unpacked) = (fixture("packed_raw.fif.gz"), fixture("single_raw.fif").len());
    for len in (0..packed.len()).step_by(7) {
        assert!(case.open(&packed[..len], unpacked).is_some(), "{len} bytes");
    }
    for _ in 0..1000 {
        let mut bytes = packed.clone();
        let at = 10 + random.next_u32() as usize % (bytes.len() - 10);
        bytes[at] ^= 1 << (random.next_u32() % 8);
        // The checksum leaves no flipped bit unnoticed, but for those that change only the unused part of a code table.
        if case.open(&bytes, unpacked).is_none() {
            let mut content = Vec::new();
            MultiGzDecoder::new(&bytes[..]).read_to_end(&mut content).unwrap();
            assert_eq!(content, fixture("single_raw.fif"), "byte {at}");
        }
    }
}

/// Files that are nothing but what is dear to read.
#[test]
fn crafted_files() {
    let tag = |kind: u32, data_type: u32, data: &[u8]| {
        let header = [kind, data_type, data.len() as u32, 0].map(u32::to_be_bytes).concat();
        [header, data.to_vec()].concat()
    };
    let int = |kind, number: u32| tag(kind, 3, &number.to_be_bytes());
    let opening = [tag(100, 31, &[0; 20]), int(101, u32::MAX)].concat();
    let n = 20_000;
    let mut case = Case::new();
    for repeated in [
        // Blocks within blocks, blocks beside blocks, tags, and colons.
        int(104, 100),
        [int(104, 100), int(105, 100)].concat(),
        tag(999, 0, &[]),
        [int(104, 3810), tag(206, 10, &[b':'; 60]), int(105, 3810)].concat(),
    ] {
        let bytes = [opening.clone(), repeated.repeat(n)].concat();
        assert!(case.open(&bytes, bytes.len()).is_some());
    }
    // A valid recording whose list of bad channels, and whose annotations, are a megabyte of colons.
    let whole = fixture("names_raw.fif");
    let meas_end = whole.len() - 16 - 20;
    let list = |block: u32, kind: u32| [int(104, block), tag(kind, 10, &vec![b':'; 1 << 20]), int(105, block)].concat();
    let info_end = whole.windows(20).position(|w| w == [&int(105, 101)[..16], &101u32.to_be_bytes()].concat()).unwrap();
    for (at, block) in [(meas_end, list(3810, 206)), (info_end, list(359, 3507))] {
        let bytes = [&whole[..at], &block, &whole[at..]].concat();
        case.open(&bytes, bytes.len());
    }
}

/// An array of ours with its description, an edit of either at a time. Which of the edits can be told is not the point:
/// numbers of another value are numbers.
#[test]
fn arrays_and_their_descriptions() {
    let folder = tempfile::tempdir().unwrap();
    let (array, json) = (folder.path().join("x.npy"), folder.path().join("x.json"));
    let mut recording =
        fif::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/fif/int16_raw.fif")).unwrap();
    let n_timestep = recording.info.n_timestep.min(20);
    let block = recording.read(0, n_timestep).unwrap();
    let mut writer = npy::create(&array, &recording.info, npy::Layout::TimeFirst, false).unwrap();
    writer.write(&block).unwrap();
    writer.finish(&[]).unwrap();
    let whole = [std::fs::read(&array).unwrap(), std::fs::read(&json).unwrap()];
    let handles = [&array, &json].map(|path| File::options().write(true).open(path).unwrap());
    let mut random = keyed(3, Purpose::Simulate, 0);
    const SIGNS: &[u8] = b"0123456789-.eE,:[]{}()'\"";
    let mut errors = [0; 2];
    for i in 0..40_000 {
        let mut files = whole.clone();
        let edited = i % 2;
        // Of the array, the header: what follows are numbers.
        let most = if edited == 0 { 128 } else { files[1].len() - 8 };
        for _ in 0..1 + random.next_u32() % 4 {
            let at = random.next_u32() as usize % most;
            match random.next_u32() % 4 {
                0 => files[edited][at] = random.next_u32() as u8,
                1 => files[edited][at] = SIGNS[random.next_u32() as usize % SIGNS.len()],
                2 => files[edited].insert(at, b'9'),
                _ => drop(files[edited].remove(at)),
            }
        }
        for (file, bytes) in handles.iter().zip(&files) {
            file.write_all_at(bytes, 0).unwrap();
            file.set_len(bytes.len() as u64).unwrap();
        }
        let before = LIVE.with(Cell::get);
        PEAK.with(|peak| peak.set(before));
        let opened = npy::open(&array, &NpyOptions::default());
        let grown = PEAK.with(Cell::get) - before;
        let n_byte = files[0].len() + files[1].len();
        assert!(grown <= 64 * n_byte + (1 << 18), "{grown} bytes of memory for {n_byte} of files");
        let read = opened.and_then(|mut recording| {
            let n_timestep = recording.info.n_timestep;
            recording.read(0, n_timestep.min(50)).map(drop)
        });
        if let Err(error) = read {
            assert!(error.kind() != Kind::Internal && error.kind() != Kind::Io, "{:?}: {error}", error.kind());
            errors[edited] += 1;
        }
    }
    assert!(errors.iter().all(|&n| n > 5000), "{errors:?} of 20000 each");
}
