//! Runs a job everywhere, and the comparisons that the references use.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock};

use ptx_emulator::count::Class;
use ptx_emulator::settings::{Rounding, Settings};

use crate::support::compile::{ARCHITECTURES, compile_checked, toolkit};
use crate::support::device::{Loaded, real_gpu, run_through_standin, seed, target};
use crate::support::job::{Job, Outcome};

/// The PTX of a file of the corpus, compiled and confirmed by `ptxas` once in a process.
pub fn ptx(file: &str, architecture: u32) -> Arc<String> {
    type Texts = Mutex<HashMap<(String, u32), Arc<OnceLock<Arc<String>>>>>;
    static TEXTS: OnceLock<Texts> = OnceLock::new();
    let texts = TEXTS.get_or_init(Default::default);
    let cell = {
        let mut texts = texts.lock().unwrap_or_else(|e| e.into_inner());
        texts.entry((file.to_owned(), architecture)).or_default().clone()
    };
    let toolkit = toolkit().expect("asked for before");
    cell.get_or_init(|| Arc::new(compile_checked(toolkit, file, architecture))).clone()
}

/// Set to run the corpus as every GPU that the emulator poses as, not as two of them.
const ALL_TARGETS_VARIABLE: &str = "PTX_EMULATOR_ALL_TARGETS";

/// What the machine runs a job as, beside `sm_80`.
fn further_targets() -> &'static [u32] {
    let all = std::env::var_os(ALL_TARGETS_VARIABLE).is_some_and(|value| value == "1");
    if all { &ARCHITECTURES[1..] } else { &[90] }
}

/// Runs a job in every way there is, and checks what came of each.
pub fn everywhere(file: &str, job: &Job, check: impl Fn(&Outcome)) {
    if toolkit().is_none() {
        return;
    }
    let text = ptx(file, 80);
    if real_gpu() {
        let loaded = Loaded::real(&text).unwrap_or_else(|e| panic!("{file}: {e}"));
        return check(&loaded.run(job).clean(file));
    }
    // None of these kernels takes a tenth of that: one that hangs is told instead of waited for.
    let plain = Settings { seed: seed(), max_warp_instructions: 50_000_000, ..Settings::default() };
    let adverse = Settings { seed: seed() + 20, rounding: Rounding::Adversarial, ..plain.clone() };
    let on_machine = |text: &str, settings: &Settings, name: &str| {
        let name = format!("{file}, {}{name}", settings.target);
        let loaded = Loaded::machine(text, settings).unwrap_or_else(|e| panic!("{name}: {e}"));
        let outcome = loaded.run(job).clean(&name);
        check(&outcome);
        outcome
    };
    let of_plain = on_machine(&text, &plain, "");
    on_machine(&text, &adverse, ", adverse");
    for &architecture in further_targets() {
        // As the newer GPUs are: with code that is written for them, and in yet another order.
        let settings =
            Settings { target: target(architecture), seed: seed() + u64::from(architecture), ..plain.clone() };
        on_machine(&ptx(file, architecture), &settings, "");
    }
    let outcome = run_through_standin(&text, &plain, job).clean(&format!("{file}, through cudarc"));
    check(&outcome);
    // Atomics may come in another order there, for addresses differ; all else is bit for bit the same.
    let atomics = |outcome: &Outcome| {
        outcome
            .reports
            .iter()
            .filter_map(|report| report.counters.as_ref())
            .any(|c| c.classes.contains_key(&Class::Atomic))
    };
    if !atomics(&of_plain) {
        assert!(outcome.buffers == of_plain.buffers, "{file}: through cudarc other bits come out");
    }
    assert!(outcome.reports.len() == job.steps.len(), "{file}: not every launch was reported");
}

/// Panics unless every value lies within its bound of the expected one.
#[track_caller]
pub fn close(what: &str, got: &[f32], want: &[f64], bound: impl Fn(usize) -> f64) {
    assert_eq!(got.len(), want.len(), "{what}: length");
    for (i, (&got, &want)) in got.iter().zip(want).enumerate() {
        let distance = (f64::from(got) - want).abs();
        assert!(distance <= bound(i), "{what} [{i}]: {got} is {distance:e} from {want}, more than {:e}", bound(i));
    }
}

/// Panics at the first difference.
#[track_caller]
pub fn equal<T: PartialEq + std::fmt::Debug>(what: &str, got: &[T], want: &[T]) {
    assert_eq!(got.len(), want.len(), "{what}: length");
    if let Some(i) = (0..got.len()).find(|&i| got[i] != want[i]) {
        panic!("{what} [{i}]: {:?}, not {:?}", got[i], want[i]);
    }
}

/// Half a unit in the last place of 1 in single precision: what one rounding may add, relatively.
pub const ROUNDING: f64 = 1.0 / (1u64 << 24) as f64;

/// Numbers for tests.
pub struct Numbers(u64);

impl Numbers {
    pub fn new(seed: u64) -> Self {
        Numbers(seed)
    }

    pub fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 29) ^ self.0.rotate_left(17)
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.word() % limit
    }

    /// Evenly from -1 to 1, with 24 bits.
    pub fn unit(&mut self) -> f32 {
        (self.word() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    pub fn units(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.unit()).collect()
    }
}
