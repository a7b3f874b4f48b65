//! Progress on the terminal: a bar for anything longer than two seconds, nothing when stderr is not a terminal.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::sync::Mutex;
use std::time::Duration;

/// What stands before every bar: which part of a longer work it is of.
static CONTEXT: Mutex<String> = Mutex::new(String::new());

/// Puts a text before every bar from now on.
pub fn set_context(text: &str) {
    *CONTEXT.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = text.into();
}

/// A bar over `len` units of `unit`, with the rate and the time left; it appears after two seconds.
pub fn bar(len: u64, unit: &str, quiet: bool) -> ProgressBar {
    if quiet || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::with_draw_target(Some(len), ProgressDrawTarget::hidden());
    let template = format!("{{prefix}}{{msg}} [{{bar:30}}] {{pos}}/{{len}} {unit} · {{per_sec}} · {{eta}} left");
    bar.set_style(ProgressStyle::with_template(&template).expect("a valid template").progress_chars("━╸─"));
    bar.set_prefix(CONTEXT.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone());
    let shown = bar.clone();
    std::thread::spawn(move || {
        std::thread::sleep(Duration::from_secs(2));
        if !shown.is_finished() {
            shown.set_draw_target(ProgressDrawTarget::stderr_with_hz(5));
        }
    });
    bar
}
