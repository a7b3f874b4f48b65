//! `gpt2meg experiment`: the other commands in turn, as far as they are not done.

mod left;

use super::{Cli, Command, Exit, Globals, note, progress, say, say_json, shown};
use crate::console;
use crate::device::DeviceChoice;
use crate::error::{Error, Kind, Result};
use crate::experiment::parts::{Part, Parts, REPORT, Row, Verb};
use crate::experiment::plan::{Data, ModelKind, Plan};
use crate::experiment::record::{self, Record};
use crate::experiment::table::{Entrant, Table};
use crate::experiment::words::{Word, line, quoted};
use crate::generate::partial::Partial;
use crate::interrupt;
use crate::storage::atomic;
use crate::storage::lock::FolderLock;
use crate::train::run_folder::{self, read_json};
use clap::{Args, Parser};
use left::Left;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Compare models on one recording: everything from the data to one report with one table, from one small file.
///
/// The file says which data (a recording, a folder of tokens, or a simulation), which models, seeds, steps, seconds generated and
/// measures; its keys are the options of the commands that run. Each part is one command. What it said is in
/// DIR/parts/NAME.log, and the command itself in DIR/parts/NAME.json.
///
/// Ctrl-C stops and saves; the same line goes on. A part is done again only where its own settings, or what it reads, have
/// changed; what it had finished before is kept beside it, under a name that ends in .earlier, .earlier-2 and so on. A model that fails
/// ends its own row of the table, with the reason; the others go on.
///
/// DIR/report receives report.html, which begins with the table, report.json and table.csv.
///
/// Example: gpt2meg experiment experiments/quick.toml --out quick
#[derive(Args, Debug)]
#[command(after_help = "An experiment on a recording of your own:

  [data]
  recording = \"sub-01_raw.fif\"     # beside this file; or tokens = \"data\", or simulate = { hours = 0.5, channels = 16 }
  [tokenize]
  picks = \"mag\"
  [train]                          # all networks
  passes = 50
  [generate]
  seconds = 600
  [[model]]
  name = \"GPT2MEG\"
  kind = \"gpt\"                     # gpt, wavenet, wavenet-mix or ar
  [[model]]
  name = \"GPT2MEG, one label\"
  kind = \"gpt\"
  condition_labels = \"one\"         # every option of train and generate may be said of one model
  [[model]]
  name = \"AR(255)\"
  kind = \"ar\"")]
pub struct Experiment {
    /// The file that describes it.
    #[arg(value_name = "FILE.toml")]
    plan: PathBuf,
    /// Folder for everything it makes: a new one, or that of the same experiment, which then goes on.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// The plan as it was when the experiment last ran, beside the records: the mark of an experiment's folder.
const COPY: &str = "experiment.toml";

impl Experiment {
    /// Runs the command.
    pub fn run(self, globals: &Globals) -> Result<Exit> {
        let (plan, text) = Plan::read(&self.plan)?;
        let parts = Parts::new(&plan);
        // What begins with a dash is an option to the commands that follow.
        let dashed = self.out.as_os_str().as_encoded_bytes().starts_with(b"-");
        let folder = if dashed { Path::new(".").join(&self.out) } else { self.out.clone() };
        super::train::absolute(&folder)?;
        if let Data::Recording(path) | Data::Tokens(path) = &plan.data {
            path.metadata().map_err(|e| Error::io(e, "find the data", path))?;
            refuse_within(&folder, path)?;
        }
        // Everything that can be refused is, before the first part runs.
        let all: Vec<&Row> = parts.rows.iter().collect();
        for part in parts.all.iter().chain([&parts.report(&plan, &all, &[])]) {
            parsed(&spelt(&part.words, &folder)).map_err(|e| e.at(&self.plan))?;
        }
        let _lock = prepare(&folder, &text)?;
        Runner { plan, parts, folder, globals, failures: BTreeMap::new(), first: None }.run()
    }
}

/// Refuses an experiment's folder within the data: what it makes would be what it depends on.
fn refuse_within(folder: &Path, data: &Path) -> Result<()> {
    let data = data.canonicalize().map_err(|e| Error::io(e, "find the data", data))?;
    // The nearest folder above that is there already.
    let above = super::train::absolute(folder)?;
    let above = above.ancestors().find_map(|folder| folder.canonicalize().ok());
    if above.is_some_and(|above| above.starts_with(&data)) {
        let what = "the folder lies within the data that the experiment depends on";
        return Err(Error::new(Kind::Usage, what).at(folder).hint("Give a folder elsewhere with --out"));
    }
    Ok(())
}

/// Makes the folder if need be, takes it, and puts a copy of the plan there.
fn prepare(folder: &Path, text: &str) -> Result<FolderLock> {
    let records = folder.join(record::FOLDER);
    let copy = records.join(COPY);
    if folder.is_dir() && !copy.exists() {
        let entries = std::fs::read_dir(folder).map_err(|e| Error::io(e, "list the folder", folder))?;
        // A first run may have ended before it could put its mark there.
        let ours = [FolderLock::NAME, record::FOLDER];
        let others = entries.flatten().any(|entry| ours.iter().all(|name| entry.file_name() != *name));
        let hint = "Give another folder with --out";
        if others {
            return Err(Error::new(Kind::Exists, "the folder is not empty, and not an experiment's")
                .at(folder)
                .hint(hint));
        }
    }
    std::fs::create_dir_all(folder).map_err(|e| Error::io(e, "create the folder", folder))?;
    let lock = FolderLock::acquire(folder)?;
    std::fs::create_dir_all(&records).map_err(|e| Error::io(e, "create the folder", &records))?;
    if std::fs::read(&copy).ok().as_deref() != Some(text.as_bytes()) {
        atomic::write(&copy, true, |file| file.write_at(0, text.as_bytes()))?;
    }
    Ok(lock)
}

/// The words of a command line, after the program's name.
fn spelt(words: &[Word], folder: &Path) -> Vec<OsString> {
    words.iter().map(|word| word.spelt(folder)).collect()
}

/// The command that the words are; what the command line refuses in them, in one line.
fn parsed(words: &[OsString]) -> Result<Cli> {
    let name = std::iter::once("gpt2meg".into());
    Cli::try_parse_from(name.chain(words.iter().cloned())).map_err(|e| {
        let text = e.to_string();
        // What is wrong stands before the first empty line, advice after it.
        let lines: Vec<&str> = text.lines().take_while(|line| !line.is_empty()).map(str::trim).collect();
        let what = lines.join(" ").trim_start_matches("error: ").to_string();
        let command = words.first().map(|word| word.to_string_lossy().into_owned()).unwrap_or_default();
        Error::new(Kind::Usage, format!("{command}: {what}"))
    })
}

/// Whether a failure is the machine's or the program's, and no model's.
fn ends_all(e: &Error) -> bool {
    matches!(e.kind(), Kind::Io | Kind::Permission | Kind::Internal | Kind::Locked | Kind::DeviceUnavailable)
}

/// An experiment under way.
struct Runner<'a> {
    plan: Plan,
    parts: Parts,
    folder: PathBuf,
    globals: &'a Globals,
    /// Parts that failed, or that read what failed, with the reason.
    failures: BTreeMap<usize, String>,
    /// The first of these failures.
    first: Option<Error>,
}

impl Runner<'_> {
    fn run(mut self) -> Result<Exit> {
        let n = self.parts.all.len() + 1;
        let done = self.parts.all.iter().filter(|part| record::is_done(&self.folder, part)).count();
        if done > 0 {
            self.tell(&format!("{done} of {n} parts are done already."));
        }
        for index in 0..self.parts.all.len() {
            let part = &self.parts.all[index];
            if let Some(why) = part.inputs.iter().find_map(|input| self.failures.get(input)).cloned() {
                self.failures.insert(index, why);
                continue;
            }
            if record::is_done(&self.folder, part) {
                continue;
            }
            self.announce(index, part);
            match self.make(part, super::run_command) {
                Ok(Exit::Done) => {}
                Ok(Exit::Signal(signal)) => return Ok(self.stopped(signal)),
                // Without the data there is nothing to compare.
                Err(e) if ends_all(&e) || self.parts.is_of_all(index) => return Err(e),
                Err(e) => {
                    self.tell(&format!("{} failed, the others go on: {e}", part.name));
                    self.failures.insert(index, e.to_string());
                    self.first.get_or_insert(e);
                }
            }
            if let Some(signal) = interrupt::requested() {
                return Ok(self.stopped(signal));
            }
        }
        self.report()
    }

    /// Compares what there is, and says where the report is.
    fn report(mut self) -> Result<Exit> {
        let is_whole = |row: &&Row| !row.parts.iter().any(|part| self.failures.contains_key(part));
        let (whole, broken): (Vec<&Row>, Vec<&Row>) = self.parts.rows.iter().partition(is_whole);
        let why = |row: &&Row| {
            let reason = row.parts.iter().find_map(|part| self.failures.get(part)).cloned();
            (row.label.clone(), reason.unwrap_or_default())
        };
        let failures: Vec<(String, String)> = broken.iter().map(why).collect();
        if whole.is_empty() {
            return Err(self.first.take().expect("a failure"));
        }
        let part = self.parts.report(&self.plan, &whole, &failures);
        if !record::is_done(&self.folder, &part) {
            self.announce(self.parts.all.len(), &part);
            let made = self.make(&part, |cli, globals| {
                let Command::Evaluate(command) = cli.command else { unreachable!("the report's command") };
                let Some(mut report) = command.report(globals)? else {
                    return Ok(Exit::Signal(interrupt::requested().unwrap_or_default()));
                };
                report.open_with(self.table(&report.json(), &whole, &failures)?.section());
                report.write(&self.folder.join(REPORT), globals.force)?;
                Ok(Exit::Done)
            })?;
            if let Exit::Signal(signal) = made {
                return Ok(self.stopped(signal));
            }
        }
        let report: Value = read_json(&self.folder.join(REPORT).join("report.json"))?;
        let table = self.table(&report, &whole, &failures)?;
        let page = self.folder.join(REPORT).join("report.html");
        if self.globals.json {
            say_json(json!({ "report": shown(&page), "table": table.json() }))?;
        } else {
            say(table.text())?;
            say(page.display())?;
        }
        match (failures.first(), self.first.take()) {
            (Some((label, why)), Some(first)) => {
                let (n, all) = (failures.len(), self.parts.rows.len());
                let what = format!("{n} of {all} models failed, the first of them {label} ({why})");
                Err(Error::new(first.kind(), what).hint("The report has the others"))
            }
            _ => Ok(Exit::Done),
        }
    }

    fn table(&self, report: &Value, whole: &[&Row], failures: &[(String, String)]) -> Result<Table> {
        let mut entrants = Vec::new();
        for (index, model) in self.plan.models.iter().enumerate() {
            let rows: Vec<&&Row> = whole.iter().filter(|row| row.model == index).collect();
            let scores = |row: &&&Row| read_json(&self.folder.join(&self.parts.all[row.parts[1]].outputs[0]));
            let of_model = |row: &&Row| row.model == index;
            let labels: Vec<&String> = self.parts.rows.iter().filter(|r| of_model(r)).map(|row| &row.label).collect();
            let failed = failures.iter().filter(|(label, _)| labels.contains(&label));
            entrants.push(Entrant {
                name: model.name.clone(),
                labels: rows.iter().map(|row| row.label.clone()).collect(),
                scores: rows.iter().map(scores).collect::<Result<_>>()?,
                same_levels: rows.iter().all(|row| self.parts.has_common_levels(row)),
                failures: failed.map(|(_, why)| why.clone()).collect(),
            });
        }
        Ok(Table::new(report, &entrants))
    }

    /// Runs a part's command, from the beginning or from where it was interrupted. What it prints goes to the part's log.
    fn make(&self, part: &Part, command: impl FnOnce(Cli, &Globals) -> Result<Exit>) -> Result<Exit> {
        let folder = &self.folder;
        let begun = record::of(folder, part).filter(|record| !record.finished);
        let words = match &begun {
            Some(_) => self.resumed(part),
            None => None,
        };
        let resumes = words.is_some();
        if !resumes {
            record::vacate(folder, part)?;
        }
        let whole = spelt(&part.words, folder);
        let said = whole.iter().map(quoted).collect::<Vec<_>>().join(" ");
        let seconds = begun.filter(|_| resumes).map_or(0.0, |record| record.seconds);
        let mut record = Record { key: part.key.clone(), finished: false, seconds, command: format!("gpt2meg {said}") };
        if let Some(within) = folder.join(&part.outputs[0]).parent() {
            std::fs::create_dir_all(within).map_err(|e| Error::io(e, "create the folder", within))?;
        }
        record::write(folder, part, &record)?;
        let cli = parsed(&words.unwrap_or(whole))?;
        let globals = Globals {
            seed: cli.globals.seed,
            device: self.device(part),
            threads: self.globals.threads,
            quiet: self.globals.quiet,
            json: false,
            force: true,
        };
        let started = Instant::now();
        let log = console::redirect(&record::log_path(folder, part), resumes)?;
        let made = command(cli, &globals);
        drop(log);
        record.seconds += started.elapsed().as_secs_f64();
        record.finished = matches!(made, Ok(Exit::Done));
        record::write(folder, part, &record)?;
        made
    }

    /// The words with which an interrupted part goes on; none if it can only begin again.
    fn resumed(&self, part: &Part) -> Option<Vec<OsString>> {
        let output = self.folder.join(&part.outputs[0]);
        match part.verb {
            // A run goes on with its own recipe: to say it again would be refused.
            Verb::Train if run_folder::holds_run(&output).unwrap_or(false) => {
                let data = part.words[1].clone();
                let words =
                    [vec![Word::from("train"), data, Word::from("--out")], vec![Word::Inside(part.outputs[0].clone())]];
                Some(spelt(&[words.concat(), line("--resume")].concat(), &self.folder))
            }
            Verb::Generate if Partial::beside(&output).exists() => {
                Some(spelt(&[part.words.clone(), line("--resume")].concat(), &self.folder))
            }
            _ => None,
        }
    }

    /// The device that was asked for, where the part's model can be computed there.
    fn device(&self, part: &Part) -> DeviceChoice {
        match part.kind {
            None | Some(ModelKind::Gpt) => self.globals.device,
            Some(_) if self.globals.device == DeviceChoice::Cpu => DeviceChoice::Cpu,
            Some(_) => DeviceChoice::Auto,
        }
    }

    fn announce(&self, index: usize, part: &Part) {
        let n = self.parts.all.len() + 1;
        let left = Left::new(&self.plan, &self.parts, &self.folder).from(index);
        let left = left.map_or(String::new(), |left| format!(" ({left} left in all)"));
        self.tell(&format!("[{}/{n}] {}{left}", index + 1, part.name));
        progress::set_context(&format!("{}/{n} ", index + 1));
    }

    fn stopped(&self, signal: i32) -> Exit {
        self.tell("Stopped; what is done is saved. To go on: the same command again.");
        Exit::Signal(signal)
    }

    fn tell(&self, line: &str) {
        if !self.globals.quiet {
            note(line);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_command_refuses_is_one_line() {
        let words: Vec<OsString> = ["train", "data", "--out", "run", "--steps", "many"].map(Into::into).to_vec();
        let error = parsed(&words).err().unwrap();
        assert_eq!(error.kind(), Kind::Usage);
        assert!(error.to_string().starts_with("train: invalid value 'many' for '--steps"), "{error}");
        assert!(!error.to_string().contains("\\n"), "{error}");
    }

    /// The shipped experiments are plans, and every part of theirs is a command line.
    #[test]
    fn the_experiments_that_are_shipped_parse() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("experiments");
        let mut names = Vec::new();
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let (plan, _) = Plan::read(&path).unwrap();
            let parts = Parts::new(&plan);
            let rows: Vec<&Row> = parts.rows.iter().collect();
            for part in parts.all.iter().chain([&parts.report(&plan, &rows, &[])]) {
                parsed(&spelt(&part.words, Path::new("x"))).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            }
            names.push(path.file_stem().unwrap().to_string_lossy().into_owned());
        }
        names.sort();
        assert_eq!(names, ["middle", "paper", "quick"]);
    }
}
