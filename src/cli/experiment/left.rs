//! How long an experiment will take yet: a rough count of the work of each part, and how long those that are done took.

use super::{parsed, spelt};
use crate::cli::Command;
use crate::evaluate::text::duration;
use crate::experiment::parts::{Part, Parts, Verb};
use crate::experiment::plan::{ModelKind, Plan, Setting};
use crate::experiment::record;
use crate::model::kind::Model;
use crate::tokens::dataset::Dataset;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Multiplications and additions a second that a part is first taken to do: right within a few times on a small machine,
/// and corrected by the parts that are done.
const RATE: f64 = 3e10;
/// Seconds of a part that is mostly reading and writing.
const SHORT: f64 = 3.0;

/// The time that each part takes, s.
pub struct Left {
    guesses: Option<Vec<f64>>,
}

impl Left {
    /// Guesses, as soon as the data are there.
    pub fn new(plan: &Plan, parts: &Parts, folder: &Path) -> Self {
        Self { guesses: guesses(plan, parts, folder) }
    }

    /// The time left where this part is the next one, in words.
    pub fn from(&self, index: usize) -> Option<String> {
        let seconds: f64 = self.guesses.as_ref()?[index..].iter().sum();
        Some(match seconds {
            s if s < 90.0 => "about a minute".into(),
            s if s < 5400.0 => format!("about {}", duration(60.0 * (s / 60.0).round())),
            s => format!("about {}", duration(1800.0 * (s / 1800.0).round())),
        })
    }
}

fn guesses(plan: &Plan, parts: &Parts, folder: &Path) -> Option<Vec<f64>> {
    let data = Dataset::open(&PathBuf::from(parts.data().spelt(folder))).ok()?;
    let n_channel = data.shards.first()?.meta.info.n_channel() as f64;
    let n_real: usize = data.shards.iter().map(|shard| shard.n_timestep()).sum();
    let mut models: BTreeMap<usize, Model> = BTreeMap::new();
    let mut all: Vec<f64> = Vec::new();
    for (index, part) in parts.all.iter().enumerate() {
        let seconds = match part.verb {
            Verb::Train => {
                let planned = match parsed(&spelt(&part.words, folder)).ok()?.command {
                    Command::Train(command) => command.planned(&data).ok(),
                    _ => None,
                };
                // What is refused takes no time.
                let Some(planned) = planned else {
                    all.push(0.0);
                    continue;
                };
                let (model, training) = (planned.model, planned.training);
                let tokens =
                    training.steps as f64 * training.windows_per_step as f64 * n_channel * model.n_ctx() as f64;
                let work = 6.0 * model.n_parameter() as f64 * tokens;
                models.insert(index, model);
                if part.kind == Some(ModelKind::Ar) { SHORT } else { SHORT + work / RATE }
            }
            Verb::Generate => {
                let Some(model) = part.inputs.iter().find_map(|input| models.get(input)) else {
                    all.push(0.0);
                    continue;
                };
                let n = number(part, "--seconds") * data.shards[0].meta.info.sfreq;
                let again = match model {
                    // Every hop reads the window again.
                    Model::Gpt(config) => 1.0 + config.n_ctx as f64 / number(part, "--hop").max(1.0),
                    _ => 1.0,
                };
                SHORT + 2.0 * model.n_parameter() as f64 * n_channel * n * again / RATE
            }
            _ => SHORT,
        };
        all.push(seconds);
    }
    all.push(report(plan, n_real as f64, n_channel));
    Some(corrected(parts, folder, all))
}

/// The report: hidden states take most of it.
fn report(plan: &Plan, n_real: f64, n_channel: f64) -> f64 {
    let measure = |key: &str, default: f64| match plan.measures.get(key) {
        Some(Setting::Text(text)) => text.parse().unwrap_or(default),
        _ => default,
    };
    let skipped = matches!(plan.measures.get("skip"), Some(Setting::Text(text)) if text.contains("hmm"));
    let n_recording = (plan.models.len() * plan.seeds.len()) as f64;
    let (n_state, n_component) = (measure("hmm_states", 12.0), measure("hmm_components", 80.0));
    // Some forty iterations over all recordings, of a triangular product and a sum of squares for each state.
    let dynamics = 40.0 * (2.0 + n_recording) * n_real * n_state * 2.0 * n_component * n_component;
    let passes = (2.0 + n_recording) * n_real * n_channel * 3000.0;
    SHORT + (passes + if skipped { 0.0 } else { dynamics }) / RATE
}

/// The guesses, by what those that are done took against theirs: of the same command and kind if there is one, else of any.
fn corrected(parts: &Parts, folder: &Path, mut guesses: Vec<f64>) -> Vec<f64> {
    let mut sums: BTreeMap<String, (f64, f64)> = BTreeMap::new();
    let group = |part: &Part| format!("{:?} {:?}", part.verb, part.kind);
    for (part, guess) in parts.all.iter().zip(&guesses) {
        if let Some(record) = record::of(folder, part).filter(|record| record.finished) {
            for name in [group(part), String::new()] {
                let sum = sums.entry(name).or_default();
                *sum = (sum.0 + record.seconds, sum.1 + guess);
            }
        }
    }
    let factor = |name: &str| sums.get(name).filter(|sum| sum.1 > SHORT).map(|sum| sum.0 / sum.1);
    let any = factor("").unwrap_or(1.0);
    let groups = parts.all.iter().map(group).chain([String::new()]);
    guesses.iter_mut().zip(groups).for_each(|(guess, name)| *guess *= factor(&name).unwrap_or(any));
    guesses
}

/// The number behind a flag; of one that is not there, what the command takes.
fn number(part: &Part, flag: &str) -> f64 {
    use crate::experiment::words::Word;
    let at = part.words.iter().position(|word| *word == Word::Text(flag.into()));
    match at.and_then(|at| part.words.get(at + 1)) {
        Some(Word::Text(text)) => text.parse().unwrap_or(0.0),
        _ => {
            if flag == "--hop" {
                10.0
            } else {
                0.0
            }
        }
    }
}
