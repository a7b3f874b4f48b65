//! Files that lie: flipped bits, cut ends, and headers made up with valid checksums. An error each, no panic, no large
//! allocation, and `verify` agrees with whoever loads the file.

use gpt2meg::error::Result;
use gpt2meg::model::config::ModelConfig;
use gpt2meg::model::layout::ParamLayout;
use gpt2meg::recording::{Channel, ChannelKind, Event, Info};
use gpt2meg::storage::container::{Container, Entry, write};
use gpt2meg::tokens::scheme::{Scales, Scheme};
use gpt2meg::tokens::shard::{Shard, ShardMeta, ShardWriter, Split, Tokenization};
use gpt2meg::train::checkpoint::{self, Best, CheckpointMeta, DataMeta, Moments, Progress, Which};
use gpt2meg::train::config::TrainingConfig;
use gpt2meg::train::metrics::StepRecord;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use safetensors::Dtype;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Notes the largest request of each thread.
struct Counting;

thread_local!(static LARGEST: Cell<usize> = const { Cell::new(0) });

// SAFETY: every call goes to the system's allocator unchanged; the note is a thread-local number.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = LARGEST.try_with(|largest| largest.set(largest.get().max(layout.size())));
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let _ = LARGEST.try_with(|largest| largest.set(largest.get().max(size)));
        // SAFETY: the caller's promise is passed on.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The largest allocation while `work` ran.
fn largest_allocation<T>(work: impl FnOnce() -> T) -> (T, usize) {
    LARGEST.set(0);
    let result = work();
    (result, LARGEST.get())
}

/// A file in memory-backed storage that is changed in place, so that a case costs microseconds.
fn scratch() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory).unwrap() } else { tempfile::tempdir().unwrap() }
}

const N_CHANNEL: usize = 2;
const N_TIMESTEP: usize = 40;

fn small_shard(folder: &Path) -> PathBuf {
    let channel = |i| Channel {
        name: format!("C{i}"),
        kind: ChannelKind::Mag,
        loc: [0.0; 12],
        coil_type: 0,
        coord_frame: 0,
        bad: false,
    };
    let info = Info {
        channels: (0..N_CHANNEL).map(channel).collect(),
        sfreq: 100.0,
        n_timestep: N_TIMESTEP,
        first_timestep: 0,
        events: vec![Event { onset: 3, duration: 0, label: "a".into() }],
        subject: None,
        pass_band: (0.5, 45.0),
        meas_date: None,
        line_freq: None,
        dev_head_t: None,
        dig: vec![],
        description: None,
        source: "s".into(),
    };
    let meta = ShardMeta {
        info,
        split: Split::Train,
        recording: "s".into(),
        scheme: Scheme::PAPER,
        conditions: vec!["a".into()],
        excluded: vec![],
        tokenization: Tokenization::default(),
        version: "0".into(),
    };
    let scales = Scales { centre: vec![0.0; N_CHANNEL], spread: vec![1e-13; N_CHANNEL], peak: vec![10.0; N_CHANNEL] };
    let path = folder.join("s_train.safetensors");
    let mut writer = ShardWriter::create(&path, false, &meta, &scales).unwrap();
    for channel in 0..N_CHANNEL {
        writer.tokens(channel, 0, &[(channel * 90 + 20) as u8; N_TIMESTEP]).unwrap();
    }
    writer.conditions(0, &[1; N_TIMESTEP]).unwrap();
    writer.seal().unwrap();
    writer.publish().unwrap();
    path
}

/// The smallest checkpoint there can be.
fn small_checkpoint(folder: &Path) -> PathBuf {
    let channel =
        Channel { name: "C".into(), kind: ChannelKind::Mag, loc: [0.0; 12], coil_type: 0, coord_frame: 0, bad: false };
    let info = Info {
        channels: vec![channel],
        sfreq: 100.0,
        n_timestep: N_TIMESTEP,
        first_timestep: 0,
        events: vec![],
        subject: None,
        pass_band: (0.5, 45.0),
        meas_date: None,
        line_freq: None,
        dev_head_t: None,
        dig: vec![],
        description: None,
        source: "s".into(),
    };
    let scheme = Scheme { n_level: 2, ..Scheme::PAPER };
    let (conditions, subjects, fingerprint) = (vec!["a".into()], vec!["s".into()], "0".into());
    let data = DataMeta { info, scheme, conditions, subjects, fingerprint };
    let tiny = ModelConfig::tiny(1, 1, 1);
    let model = ModelConfig { n_layer: 1, n_head: 1, d_model: 1, n_ctx: 2, n_level: 2, ..tiny };
    let values: Vec<f32> = (0..ParamLayout::new(&model).len()).map(|i| i as f32 / 7.0).collect();
    let record = StepRecord { step: 9, nats: 1.5, lr: 1e-4, grad_norm: 0.5, applied: true, validation: None };
    let best = Some(Best { step: 5, nats: 1.25 });
    let progress =
        Progress { step: 9, n_update: 8, n_skipped: 1, best, n_worse: 2, diverged: true, unvalidated: Some(record) };
    let training = TrainingConfig::paper(3, 100);
    let meta =
        CheckpointMeta { model: model.into(), data, training, progress, version: "0".into(), device: "d".into() };
    let scales = Scales { centre: vec![0.0], spread: vec![1e-13], peak: vec![10.0] };
    let path = folder.join("step.safetensors");
    checkpoint::save(&path, &meta, &[scales], &values, &Moments { m: values.clone(), v: values.clone() }).unwrap();
    path
}

/// A sort of file: how a small one is made, and who reads it.
struct Sort {
    name: &'static str,
    make: fn(&Path) -> PathBuf,
    /// Reads everything that is ever read.
    load: fn(&Path) -> Result<()>,
    /// What `gpt2meg verify` does.
    verify: fn(&Path) -> Result<()>,
}

impl Sort {
    /// Both must refuse.
    fn refused(&self, path: &Path, case: &str) {
        let (loaded, verified) = ((self.load)(path), (self.verify)(path));
        assert!(loaded.is_err() && verified.is_err(), "{}, {case}: load {loaded:?}, verify {verified:?}", self.name);
    }
}

const SORTS: [Sort; 2] = [
    Sort { name: "shard", make: small_shard, load, verify: |path| Shard::open(path)?.verify() },
    Sort {
        name: "checkpoint",
        make: small_checkpoint,
        load: |path| checkpoint::load(path, Which::Last).map(drop).and(checkpoint::read_state(path).map(drop)),
        verify: |path| Container::open_any(path)?.verify().and(checkpoint::read_state(path).map(drop)),
    },
];

/// Reads everything of a shard that a trainer would read.
fn load(path: &Path) -> Result<()> {
    let shard = Shard::open(path)?;
    let mut tokens = vec![0; shard.n_timestep()];
    for channel in 0..shard.meta.info.n_channel() {
        shard.tokens(channel, 0, &mut tokens)?;
    }
    shard.conditions(0, &mut vec![0; shard.n_timestep()])
}

#[test]
fn every_flipped_bit_is_refused() {
    for sort in &SORTS {
        let folder = scratch();
        let path = (sort.make)(folder.path());
        let bytes = std::fs::read(&path).unwrap();
        (sort.load)(&path).unwrap();
        let file = File::options().write(true).open(&path).unwrap();
        for (at, &byte) in bytes.iter().enumerate() {
            for bit in 0..8 {
                file.write_at(&[byte ^ 1 << bit], at as u64).unwrap();
                sort.refused(&path, &format!("byte {at}, bit {bit}"));
            }
            file.write_at(&[byte], at as u64).unwrap();
        }
        (sort.load)(&path).unwrap();
    }
}

#[test]
fn every_truncation_and_extension_is_refused() {
    for sort in &SORTS {
        let folder = scratch();
        let path = (sort.make)(folder.path());
        let bytes = std::fs::read(&path).unwrap();
        let file = File::options().write(true).open(&path).unwrap();
        for len in (0..bytes.len()).rev() {
            file.set_len(len as u64).unwrap();
            sort.refused(&path, &format!("cut to {len} of {} bytes", bytes.len()));
        }
        std::fs::write(&path, [&bytes[..], &[0]].concat()).unwrap();
        sort.refused(&path, "one byte more");
        std::fs::write(&path, &bytes).unwrap();
        (sort.load)(&path).unwrap();
    }
}

#[test]
fn random_edits_of_a_larger_file_are_refused() {
    let folder = scratch();
    let path = folder.path().join("large.safetensors");
    let mut random = ChaCha8Rng::seed_from_u64(5);
    let mut bytes = vec![0u8; 300_000];
    random.fill_bytes(&mut bytes);
    let half = bytes.len() / 2;
    let entry = |name, bytes| Entry { name, dtype: Dtype::U8, shape: vec![half], bytes };
    write(&path, false, "test", &1, &[entry("a", &bytes[..half]), entry("b", &bytes[half..])]).unwrap();
    let whole = std::fs::read(&path).unwrap();
    let file = File::options().write(true).open(&path).unwrap();
    let check = || Container::open(&path, "test").and_then(|container| container.verify());
    check().unwrap();
    for _ in 0..5_000 {
        let len = 1 + random.next_u32() as usize % 16;
        let at = random.next_u32() as usize % (whole.len() - len);
        let mut edit = whole[at..at + len].to_vec();
        while edit == whole[at..at + len] {
            random.fill_bytes(&mut edit);
        }
        file.write_at(&edit, at as u64).unwrap();
        assert!(check().is_err(), "{len} bytes at {at}");
        file.write_at(&whole[at..at + len], at as u64).unwrap();
    }
    check().unwrap();
}

/// A header with a right checksum: what somebody hostile would write.
fn with_checksum(json: &[u8]) -> Vec<u8> {
    const DIGITS: usize = br#"{"__metadata__":{"gpt2meg":"{\"checksum\":\""#.len();
    let mut json = json.to_vec();
    json.resize(json.len().next_multiple_of(8), b' ');
    let mut bytes = (json.len() as u64).to_le_bytes().to_vec();
    bytes.extend(json);
    if bytes.len() >= 8 + DIGITS + 8 {
        bytes[8 + DIGITS..][..8].fill(b'0');
        let digits = format!("{:08x}", crc32c::crc32c(&bytes));
        bytes[8 + DIGITS..][..8].copy_from_slice(digits.as_bytes());
    }
    bytes
}

/// Numbers at every boundary that matters, and things that are no numbers.
const NUMBERS: [&str; 21] = [
    "0",
    "1",
    "2",
    "7",
    "8",
    "39",
    "41",
    "79",
    "81",
    "255",
    "65536",
    "1048576",
    "2147483648",
    "4294967296",
    "9007199254740993",
    "9223372036854775807",
    "18446744073709551615",
    "18446744073709551616",
    "-1",
    "1e300",
    "null",
];

/// Replaces, at random: a number by another, a byte, or a stretch; or doubles or drops a stretch.
fn mutate(json: &[u8], random: &mut ChaCha8Rng) -> Vec<u8> {
    let mut json = json.to_vec();
    let mut pick = |n: usize| random.next_u32() as usize % n.max(1);
    for _ in 0..1 + pick(3) {
        let digits: Vec<usize> = (1..json.len())
            .filter(|&i| json[i].is_ascii_digit() && matches!(json[i - 1], b':' | b',' | b'['))
            .collect();
        match pick(8) {
            0..=4 if !digits.is_empty() => {
                let start = digits[pick(digits.len())];
                let len = json[start..].iter().take_while(|b| b.is_ascii_digit() || **b == b'.').count();
                json.splice(start..start + len, NUMBERS[pick(NUMBERS.len())].bytes());
            }
            5 => {
                let at = 60 + pick(json.len() - 61);
                json[at] = pick(256) as u8;
            }
            6 => {
                let start = 60 + pick(json.len() - 61);
                let end = (start + pick(40)).min(json.len());
                json.drain(start..end);
            }
            _ => {
                let start = 60 + pick(json.len() - 61);
                let end = (start + pick(40)).min(json.len());
                let stretch = json[start..end].to_vec();
                json.splice(start..start, stretch);
            }
        }
    }
    json
}

#[test]
fn made_up_headers_are_boring() {
    SORTS.iter().for_each(made_up_headers);
}

fn made_up_headers(sort: &Sort) {
    const CASES: usize = 50_000;
    let folder = scratch();
    let path = (sort.make)(folder.path());
    let whole = std::fs::read(&path).unwrap();
    let header = u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    let (json, data) = (&whole[8..8 + header], &whole[8 + header..]);
    // The tool itself must be able to make a file that loads.
    std::fs::write(&path, [&with_checksum(json)[..], data].concat()).unwrap();
    (sort.load)(&path).unwrap();
    let seed = std::env::var("GPT2MEG_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    println!("GPT2MEG_SEED={seed}");
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let file = File::options().write(true).open(&path).unwrap();
    let (mut n_refused, mut past_header) = (0, 0);
    for case in 0..CASES {
        let bytes = [&with_checksum(&mutate(json, &mut random))[..], data].concat();
        file.write_at(&bytes, 0).unwrap();
        file.set_len(bytes.len() as u64).unwrap();
        let (outcome, largest) = largest_allocation(|| (sort.load)(&path));
        assert!(largest <= 1 << 20, "{}, case {case} of seed {seed}: an allocation of {largest} bytes", sort.name);
        // Rarely a mutant is a valid file with another number in it; then both must agree on it.
        let verified = (sort.verify)(&path);
        assert_eq!(outcome.is_ok(), verified.is_ok(), "{}, case {case} of seed {seed}: {outcome:?}", sort.name);
        match outcome {
            Ok(()) => {}
            Err(error) => {
                n_refused += 1;
                past_header += usize::from(!error.to_string().contains("header"));
            }
        }
    }
    println!("{}: {n_refused} of {CASES} refused, {past_header} of them beyond the header", sort.name);
    assert!(n_refused > CASES / 2 && past_header > CASES / 200, "{n_refused} refused, {past_header} beyond the header");
}

/// Every length that a file may claim for its header.
#[test]
fn lengths_that_lie() {
    for sort in &SORTS {
        let folder = scratch();
        let path = (sort.make)(folder.path());
        let whole = std::fs::read(&path).unwrap();
        let right = u64::from_le_bytes(whole[..8].try_into().unwrap());
        let file = File::options().write(true).open(&path).unwrap();
        let powers = (0..64).flat_map(|bit| [(1u64 << bit).wrapping_sub(1), 1 << bit, (1 << bit) + 1, !(1 << bit)]);
        let near = (right.saturating_sub(64)..right + 64).chain(whole.len() as u64 - 20..whole.len() as u64 + 20);
        for len in powers.chain(near).chain([0, u64::MAX]).filter(|&len| len != right) {
            file.write_at(&len.to_le_bytes(), 0).unwrap();
            let (opened, largest) = largest_allocation(|| (sort.load)(&path));
            let case = format!("{}, length {len}: {opened:?}, {largest} bytes allocated", sort.name);
            assert!(opened.is_err() && largest < 1 << 20, "{case}");
        }
    }
}
