//! What tests of the GPU share: the compiler, the emulator that stands in for a card, and the bound that results must keep.
//!
//! With GPT2MEG_TEST_GPU set to anything there is no stand-in: the same tests run on the machine's own first card, each of their ways
//! of running in the one way that the card has. What only an emulator can tell (races, counts, other cards) is then not looked at.
//!
//! The bound: the error is at most twice that of an unfused computation in bf16, plus one unit in the last place of bf16 of the
//! tensor's largest value.

#![allow(dead_code, reason = "each test binary uses its part")]

use ptx_emulator::machine::LaunchReport;
use ptx_emulator::settings::{Rounding, Settings};
use ptx_emulator::standin::{self, StandIn};
use ptx_emulator::target::Target;
use ptx_emulator::toolkit::{REQUIRED_VARIABLE, Toolkit};
use std::io::Write as _;
use std::sync::OnceLock;

/// The compiler, with NVRTC opened; if there is none, that has been said. Where it was installed on purpose, not to find it is
/// a failure.
pub fn toolkit() -> Option<&'static Toolkit> {
    static FOUND: OnceLock<Result<Toolkit, String>> = OnceLock::new();
    let found = FOUND.get_or_init(|| {
        let toolkit = Toolkit::find().map_err(|error| error.to_string())?;
        toolkit.open_nvrtc().map_err(|error| error.to_string())?;
        Ok(toolkit)
    });
    if let Err(reason) = found {
        assert!(std::env::var_os(REQUIRED_VARIABLE).is_none(), "{REQUIRED_VARIABLE} is set, but {reason}");
        // Written to the stream itself: what goes through `eprintln` is shown of failed tests only.
        writeln!(std::io::stderr(), "SKIPPED: {reason}").expect("standard error is open");
    }
    found.as_ref().ok()
}

/// All checks on, everything that the manual leaves open as bad as it may be.
pub fn adversarial() -> Settings {
    Settings { target: Target::Sm80, rounding: Rounding::Adversarial, seed: 1, threads: 2, ..Settings::default() }
}

/// What kernels run on: the stand-in, or the machine's own card.
pub struct Machine(Option<StandIn>);

impl Machine {
    /// Whether it is a card.
    pub fn is_real(&self) -> bool {
        self.0.is_none()
    }
}

/// The emulator, set up for the calling thread, or the machine's own card if that is asked for; none where there is no compiler.
pub fn machine(settings: &Settings) -> Option<Machine> {
    if std::env::var_os("GPT2MEG_TEST_GPU").is_some() {
        assert!(gpt2meg::device::cuda::has_driver(), "GPT2MEG_TEST_GPU is set, but there is no CUDA driver");
        return Some(Machine(None));
    }
    toolkit()?;
    let standin = standin::open(&Settings::default()).unwrap();
    standin.configure_thread(Some(settings)).unwrap();
    Some(Machine(Some(standin)))
}

/// Fails with what the emulator found in the calling thread's launches; their reports, of which a card has none.
pub fn assert_clean(machine: &Machine) -> Vec<LaunchReport> {
    let Some(standin) = &machine.0 else { return Vec::new() };
    let reports = standin.take_thread_reports();
    for report in &reports {
        if let Some(fault) = &report.fault {
            panic!("{}: {}", report.kernel, fault.message);
        }
        assert!(report.findings.is_empty(), "{}: {}", report.kernel, report.findings[0]);
        if std::env::var_os("GPT2MEG_COUNTERS").is_some() {
            println!("{}: {}", report.kernel, serde_json::to_string(&report.counters).unwrap());
        }
    }
    reports
}

/// One unit in the last place of bf16 at `x`.
fn bf16_ulp(x: f64) -> f64 {
    if x == 0.0 { 0.0 } else { 2f64.powi(x.abs().log2().floor() as i32 - 7) }
}

/// Asserts the bound, for the largest error and for the root of the mean square.
pub fn judge(what: &str, actual: &[f64], truth: &[f64], unfused: &[f64]) {
    assert_eq!((actual.len(), unfused.len()), (truth.len(), truth.len()), "{what}");
    let errors = |of: &[f64]| -> (f64, f64) {
        let errors = of.iter().zip(truth).map(|(x, truth)| (x - truth).abs());
        // A NaN must not pass: `max` would drop it.
        let most = errors.clone().fold(0.0, |most, error| if error <= most { most } else { error });
        (most, (errors.map(|error| error * error).sum::<f64>() / truth.len() as f64).sqrt())
    };
    let (most, mean) = errors(actual);
    let (unfused_most, unfused_mean) = errors(unfused);
    let ulp = bf16_ulp(truth.iter().fold(0.0, |most, x| x.abs().max(most)));
    if std::env::var_os("GPT2MEG_ERRORS").is_some() {
        println!("{what}: most {most:.2e} of {unfused_most:.2e} + {ulp:.2e}, mean {mean:.2e} of {unfused_mean:.2e}");
    }
    assert!(most <= 2.0 * unfused_most + ulp, "{what}: error {most:e}, unfused {unfused_most:e}, ulp {ulp:e}");
    // Of a few numbers the unfused computation may by chance have none wrong.
    assert!(
        truth.len() < 64 || mean <= 2.0 * unfused_mean + ulp / 16.0,
        "{what}: mean {mean:e}, unfused {unfused_mean:e}"
    );
}

/// Measures of order follow exactly from a device's own logits, rows of as many as there are `levels`: those of one sequence
/// with these targets.
pub fn assert_measures(what: &str, logits: &[f32], score: &[f32], targets: &[u8], levels: &[f32]) {
    let (mut top1, mut top5, mut squared) = (0.0f32, 0.0f32, 0.0f64);
    for (row, &target) in logits.chunks_exact(levels.len()).zip(targets) {
        let target = usize::from(target);
        let before = (0..row.len()).filter(|&l| row[l] > row[target] || (row[l] == row[target] && l < target)).count();
        let best = (1..row.len()).fold(0, |best, l| if row[l] > row[best] { l } else { best });
        top1 += f32::from(u8::from(before < 1));
        top5 += f32::from(u8::from(before < 5));
        squared += f64::from(levels[best] - levels[target]).powi(2);
    }
    assert_eq!(score[1..3], [top1, top5], "{what}");
    assert!((f64::from(score[3]) - squared).abs() <= 1e-5 * squared, "{what}: {} for {squared}", score[3]);
}
