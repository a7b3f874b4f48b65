//! SIGINT, SIGTERM and SIGHUP: the first asks long work to stop at the next safe point, the second ends the process.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

static REQUESTED: OnceLock<Arc<AtomicUsize>> = OnceLock::new();

/// Installs the handlers. Called once, by the program; the library alone never touches signals.
pub fn install() -> std::io::Result<()> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    // A write beyond the limit on the size of files (ulimit -f) is then an error that is reported, not the end.
    signal_hook::flag::register(libc::SIGXFSZ, Arc::default())?;
    let requested = REQUESTED.get_or_init(Arc::default);
    let seen = Arc::new(std::sync::atomic::AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        // A process started by nohup is to outlive its terminal.
        if signal == SIGHUP && is_ignored(signal) {
            continue;
        }
        // Order matters: the default action runs if an earlier signal has already set `seen`; then `seen` is set.
        signal_hook::flag::register_conditional_default(signal, Arc::clone(&seen))?;
        signal_hook::flag::register(signal, Arc::clone(&seen))?;
        signal_hook::flag::register_usize(signal, Arc::clone(requested), signal as usize)?;
    }
    Ok(())
}

/// Whether whoever started the process had it ignore the signal.
fn is_ignored(signal: i32) -> bool {
    // SAFETY: an all-zero sigaction is valid.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: without a new action nothing is changed; the old one is written to a value that lives long enough.
    let asked = unsafe { libc::sigaction(signal, std::ptr::null(), &mut action) };
    asked == 0 && action.sa_sigaction == libc::SIG_IGN
}

/// The signal that asked us to stop, if one did. Long loops ask once per step.
pub fn requested() -> Option<i32> {
    let signal = REQUESTED.get()?.load(Ordering::Relaxed);
    (signal != 0).then_some(signal as i32)
}
