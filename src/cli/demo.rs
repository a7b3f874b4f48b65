//! `gpt2meg demo`: every other command in turn, as a user would type them.

use super::{Cli, Exit, Globals, Overwrite, note, say, say_json, shown};
use crate::error::{Error, Kind, Result};
use crate::experiment::words::quoted;
use clap::{Args, Parser};
use serde_json::json;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Simulate, tokenize, train, generate twice (p = 1 and p = 0.8), score and compare: the whole way in minutes.
///
/// Each step is an ordinary command and is printed before it runs, so the demonstration is also a transcript to start
/// from.
///
/// With --json, standard output receives the JSON of every step, one after the other, and that of the demonstration last.
///
/// Example: gpt2meg demo --out demo
#[derive(Args, Debug)]
pub struct Demo {
    /// Folder for everything the demonstration makes; must not exist yet, or be empty (--force empties an earlier one).
    #[arg(long, default_value = "gpt2meg-demo")]
    out: PathBuf,
    #[command(flatten)]
    pub(super) overwrite: Overwrite,
}

impl Demo {
    /// Runs the command.
    pub fn run(self, globals: &Globals) -> Result<Exit> {
        // What begins with a dash is an option to the commands that follow.
        let dashed = self.out.as_os_str().as_encoded_bytes().starts_with(b"-");
        let out = &if dashed { Path::new(".").join(&self.out) } else { self.out };
        prepare(out, globals.force)?;
        let started = Instant::now();
        for step in STEPS {
            if let Exit::Signal(signal) = run_step(&words(step, out), globals)? {
                return Ok(Exit::Signal(signal));
            }
        }
        if !globals.quiet {
            note(format_args!("\nAll done in {:.0} s. The report:", started.elapsed().as_secs_f64()));
        }
        let report = out.join("report/report.html");
        if globals.json {
            say_json(json!({ "report": shown(&report) }))?
        } else {
            say(report.display())?
        }
        Ok(Exit::Done)
    }
}

/// Marks a folder as a demonstration's own.
const MARK: &str = ".gpt2meg-demo";

/// The demonstration's folder, empty but for its mark. `--force` empties one that an earlier demonstration made.
fn prepare(out: &Path, force: bool) -> Result<()> {
    // Training would refuse the name only then.
    super::train::absolute(out)?;
    let is_empty = |dir: &Path| std::fs::read_dir(dir).map(|mut entries| entries.next().is_none()).unwrap_or(true);
    if force && out.join(MARK).exists() {
        std::fs::remove_dir_all(out).map_err(|e| Error::io(e, "empty the folder", out))?;
    }
    if !is_empty(out) {
        let hint = "Give another folder with --out, or --force to replace an earlier demonstration";
        return Err(Error::new(Kind::Exists, "the folder is not empty").at(out).hint(hint));
    }
    std::fs::create_dir_all(out).map_err(|e| Error::io(e, "create the folder", out))?;
    std::fs::write(out.join(MARK), "").map_err(|e| Error::io(e, "mark the folder", out))
}

/// The command lines, without the program's name; what begins with @ is in the demonstration's folder.
const STEPS: [&str; 7] = [
    "simulate --out @meg_raw.fif --hours 0.15 --channels 12 --conditions 3",
    "tokenize @meg_raw.fif --out @data",
    "train @data --out @run --preset tiny --steps 3000 --lr 2e-3 --warmup 100 --schedule cosine --clip-norm 1 \
     --validate-every 500",
    "score @run @data",
    "generate @run --data @data --out @generated_p1_raw.fif --seconds 120 --top-p 1",
    "generate @run --data @data --out @generated_p08_raw.fif --seconds 120 --top-p 0.8",
    "evaluate --real @data --generated @generated_p1_raw.fif @generated_p08_raw.fif --label p=1 p=0.8 \
     --hmm-states 6 --hmm-components 12 --scores @run/scores.json --out @report",
];

/// The words of a step for the folder `out`.
fn words(step: &str, out: &Path) -> Vec<OsString> {
    let word = |word: &str| word.strip_prefix('@').map_or_else(|| word.into(), |name| out.join(name).into_os_string());
    step.split(' ').map(word).collect()
}

fn run_step(words: &[OsString], globals: &Globals) -> Result<Exit> {
    if !globals.quiet {
        note(format_args!("\n$ gpt2meg {}", words.iter().map(quoted).collect::<Vec<_>>().join(" ")));
    }
    let line = std::iter::once("gpt2meg".into()).chain(words.iter().cloned());
    let mut cli = Cli::try_parse_from(line).map_err(|e| Error::new(Kind::Internal, e.to_string()))?;
    cli.globals = Globals { force: false, ..globals.clone() };
    super::run(cli)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_is_a_command_that_parses() {
        for out in ["demo", "a folder with spaces", "./-x"] {
            for step in STEPS {
                let words = words(step, Path::new(out));
                let line = std::iter::once("gpt2meg".into()).chain(words.iter().cloned());
                Cli::try_parse_from(line).unwrap_or_else(|e| panic!("{words:?}: {e}"));
            }
        }
        assert_eq!(words("tokenize @x", Path::new("it's"))[1], "it's/x");
    }
}
