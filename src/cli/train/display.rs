//! What `gpt2meg train` shows while it trains.

use crate::cli::{note, progress};
use crate::train::metrics::StepRecord;
use crate::train::run_folder::RunMeta;
use std::time::{Duration, Instant};

/// Progress on the terminal: a bar, or a line now and then where there is no terminal.
pub(super) struct Display {
    bar: indicatif::ProgressBar,
    lines: bool,
    steps: u64,
    tokens_per_step: f64,
    started: Instant,
    first_step: u64,
    last_line: Instant,
    validation: String,
}

impl Display {
    /// Time between lines where there is no terminal.
    const INTERVAL: Duration = Duration::from_secs(30);

    pub(super) fn new(run: &RunMeta, first_step: u64, quiet: bool) -> Self {
        use std::io::IsTerminal;
        let bar = progress::bar(run.training.steps, "steps", quiet);
        bar.set_position(first_step);
        bar.reset_eta();
        Self {
            bar,
            lines: !quiet && !std::io::stderr().is_terminal(),
            steps: run.training.steps,
            tokens_per_step: (run.training.windows_per_step * run.model.n_channel() * run.model.n_ctx()) as f64,
            started: Instant::now(),
            first_step,
            last_line: Instant::now(),
            validation: String::new(),
        }
    }

    pub(super) fn show(&mut self, record: &StepRecord) {
        let bits = record.nats / std::f64::consts::LN_2;
        if let Some(validation) = &record.validation {
            self.validation = format!(", validation {:.3} nats", validation.nats);
        }
        let mut text = format!("{:.3} nats ({bits:.3} bits){}", record.nats, self.validation);
        // A step whose validation alone was left to do has come without any time of its own.
        let done = record.step.saturating_sub(self.first_step) as f64;
        let seconds = self.started.elapsed().as_secs_f64();
        let timed = done > 0.0 && seconds > 0.0;
        if timed {
            text += &format!(", {:.0} tokens/s", done * self.tokens_per_step / seconds);
        }
        if !record.applied {
            text = format!("NOT FINITE, update skipped; {text}");
            if self.lines || !self.bar.is_hidden() {
                self.bar.suspend(|| {
                    note(format_args!("Step {}: loss or gradient not finite, update skipped.", record.step))
                });
            }
        }
        if self.lines && (record.validation.is_some() || self.last_line.elapsed() >= Self::INTERVAL) {
            let left = seconds / done * self.steps.saturating_sub(record.step) as f64;
            let left = if timed { format!(", {left:.0} s left") } else { String::new() };
            note(format_args!("Step {}/{}: {text}{left}", record.step, self.steps));
            self.last_line = Instant::now();
        }
        self.bar.set_message(text);
        self.bar.set_position(record.step);
    }

    pub(super) fn finish(&self) {
        self.bar.finish();
    }
}
