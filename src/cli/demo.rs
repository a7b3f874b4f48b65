//! `gpt2meg demo`: every other command in turn, as a user would type them.

use super::{Cli, Exit, Globals, Overwrite};
use crate::error::{Error, Kind, Result};
use clap::{Args, Parser};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Simulate, tokenize, train, generate twice (p = 1 and p = 0.8), score and compare: the whole way in minutes.
///
/// Each step is an ordinary command and is printed before it runs, so the demonstration is also a transcript to start
/// from.
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
        prepare(&self.out, globals.force)?;
        let started = Instant::now();
        for step in steps(&self.out) {
            if let Exit::Signal(signal) = run_step(&step, globals)? {
                return Ok(Exit::Signal(signal));
            }
        }
        if !globals.quiet {
            eprintln!("\nAll done in {:.0} s. The report:", started.elapsed().as_secs_f64());
        }
        super::say(self.out.join("report/report.html").display())?;
        Ok(Exit::Done)
    }
}

/// Marks a folder as a demonstration's own.
const MARK: &str = ".gpt2meg-demo";

/// The demonstration's folder, empty but for its mark. `--force` empties one that an earlier demonstration made.
fn prepare(out: &Path, force: bool) -> Result<()> {
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

/// The command lines, without the program's name.
fn steps(out: &Path) -> Vec<Vec<String>> {
    let path = |name: &str| out.join(name).display().to_string();
    let (fif, data, run, report) = (path("meg_raw.fif"), path("data"), path("run"), path("report"));
    let (all, nucleus) = (path("generated_p1_raw.fif"), path("generated_p08_raw.fif"));
    let scores = path("run/scores.json");
    let lines: [&[&str]; 7] = [
        &["simulate", "--out", &fif, "--hours", "0.15", "--channels", "12", "--conditions", "3"],
        &["tokenize", &fif, "--out", &data],
        &[
            "train",
            &data,
            "--out",
            &run,
            "--preset",
            "tiny",
            "--steps",
            "3000",
            "--lr",
            "2e-3",
            "--warmup",
            "100",
            "--schedule",
            "cosine",
            "--clip-norm",
            "1",
            "--validate-every",
            "500",
        ],
        &["score", &run, &data],
        &["generate", &run, "--data", &data, "--out", &all, "--seconds", "120", "--top-p", "1"],
        &["generate", &run, "--data", &data, "--out", &nucleus, "--seconds", "120", "--top-p", "0.8"],
        &[
            "evaluate",
            "--real",
            &data,
            "--generated",
            &all,
            &nucleus,
            "--label",
            "p=1",
            "p=0.8",
            "--scores",
            &scores,
            "--out",
            &report,
        ],
    ];
    lines.iter().map(|line| line.iter().map(|word| word.to_string()).collect()).collect()
}

fn run_step(words: &[String], globals: &Globals) -> Result<Exit> {
    if !globals.quiet {
        eprintln!("\n$ gpt2meg {}", words.join(" "));
    }
    let line = std::iter::once("gpt2meg").chain(words.iter().map(String::as_str));
    let mut cli = Cli::try_parse_from(line).map_err(|e| Error::new(Kind::Internal, e.to_string()))?;
    cli.globals = Globals { json: false, force: false, ..globals.clone() };
    super::run(cli)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_is_a_command_that_parses() {
        for out in ["demo", "a folder with spaces"] {
            let all = steps(Path::new(out));
            assert_eq!(all.len(), 7);
            for words in all {
                let line = std::iter::once("gpt2meg").chain(words.iter().map(String::as_str));
                Cli::try_parse_from(line).unwrap_or_else(|e| panic!("{words:?}: {e}"));
            }
        }
    }
}
