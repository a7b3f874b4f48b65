//! The parts of an experiment, and what each depends on.
//!
//! A part is one command, and **its key is a hash of three things**: the version of this program, the words of its
//! command (paths below the experiment's folder by their place in it, so that the folder may be moved; paths to what is
//! given with length and time of change of every file there), and the keys of the parts whose output it reads. So a
//! setting that changes makes another key for the part whose setting it is and for all that follow from it, and for no
//! others. Nothing else is in a key: not the machine, not the number of threads, not the device.

use super::plan::{Data, ModelKind, ModelPlan, Options, Plan};
use super::words::{Word, flags, line};
use serde_json::json;
use siphasher::sip128::{Hasher128, SipHasher13};
use std::hash::Hasher;

/// The command that a part is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verb {
    /// `simulate`.
    Simulate,
    /// `tokenize`.
    Tokenize,
    /// `train`.
    Train,
    /// `score`.
    Score,
    /// `generate`.
    Generate,
    /// `evaluate`, with the table before its report.
    Evaluate,
}

impl Verb {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Simulate => "simulate",
            Self::Tokenize => "tokenize",
            Self::Train => "train",
            Self::Score => "score",
            Self::Generate => "generate",
            Self::Evaluate => "evaluate",
        }
    }
}

/// One command of an experiment.
#[derive(Debug, Clone)]
pub struct Part {
    /// What it is called, as in `train GPT2MEG`.
    pub name: String,
    /// The command.
    pub verb: Verb,
    /// Its words, the command's name first.
    pub words: Vec<Word>,
    /// Parts whose output it reads.
    pub inputs: Vec<usize>,
    /// What it makes, below the experiment's folder: the first one is what others read.
    pub outputs: Vec<String>,
    /// What it depends on.
    pub key: String,
    /// The kind of model, where it is about one.
    pub kind: Option<ModelKind>,
}

/// One model with one seed.
#[derive(Debug, Clone)]
pub struct Row {
    /// Its name in the report.
    pub label: String,
    /// The model's index in the plan.
    pub model: usize,
    /// The parts that make it: training, scores, generation.
    pub parts: [usize; 3],
}

/// Everything up to the report.
#[derive(Debug)]
pub struct Parts {
    /// In an order in which they can run.
    pub all: Vec<Part>,
    /// In the order of the report.
    pub rows: Vec<Row>,
    /// Where the data are that everything is compared with.
    data: Word,
    /// The parts that make them.
    of_data: Vec<usize>,
}

/// The report's folder, below the experiment's.
pub const REPORT: &str = "report";

impl Parts {
    /// The parts of a plan.
    pub fn new(plan: &Plan) -> Self {
        let mut parts = Self { all: Vec::new(), rows: Vec::new(), data: Word::from("@data"), of_data: Vec::new() };
        let recording = match &plan.data {
            Data::Tokens(path) => {
                parts.data = Word::Given(path.clone());
                None
            }
            Data::Recording(path) => Some((Word::Given(path.clone()), vec![])),
            Data::Simulation(options) => {
                let words = [line("simulate --out @recording_raw.fif"), flags(options)].concat();
                let outputs = ["recording_raw.fif", "recording_raw_truth.safetensors"].map(String::from).to_vec();
                let index = parts.add("simulate", Verb::Simulate, words, vec![], outputs, None);
                Some((Word::from("@recording_raw.fif"), vec![index]))
            }
        };
        if let Some((recording, inputs)) = &recording {
            let index = parts.tokens("tokenize", "data", recording, inputs, &plan.tokenize);
            parts.of_data = vec![index];
        }
        for (index, model) in plan.models.iter().enumerate() {
            for &seed in &plan.seeds {
                let label = match plan.seeds.len() {
                    1 => model.name.clone(),
                    _ => format!("{}, seed {seed}", model.name),
                };
                // Its own levels, where it has others than the rest.
                let data = match &recording {
                    Some((recording, inputs)) if !model.scheme.is_empty() => {
                        let mut options = plan.tokenize.clone();
                        options.extend(model.scheme.clone());
                        let folder = format!("models/{}/data", model.name);
                        let name = format!("tokenize for {}", model.name);
                        let index = parts.tokens(&name, &folder, recording, inputs, &options);
                        (Word::Inside(parts.all[index].outputs[0].clone()), vec![index])
                    }
                    _ => (parts.data.clone(), parts.of_data.clone()),
                };
                let made = parts.model(model, &label, seed, &data);
                parts.rows.push(Row { label, model: index, parts: made });
            }
        }
        parts
    }

    fn tokens(&mut self, name: &str, folder: &str, recording: &Word, inputs: &[usize], options: &Options) -> usize {
        let out = [Word::from("--out"), Word::Inside(folder.into())];
        let words = [vec![Word::from("tokenize"), recording.clone()], out.to_vec(), flags(options)].concat();
        self.add(name, Verb::Tokenize, words, inputs.to_vec(), vec![folder.into()], None)
    }

    /// Training, scores and generation of a model with one seed.
    fn model(&mut self, model: &ModelPlan, label: &str, seed: u64, (data, of_data): &(Word, Vec<usize>)) -> [usize; 3] {
        let folder = format!("models/{label}");
        let inside = |name: &str| format!("{folder}/{name}");
        let kind = Some(model.kind);
        let seeded = line(&format!("--seed {seed}"));
        let (run, scores, generated) = (inside("run"), inside("scores.json"), inside("generated_raw.fif"));
        let words = [
            vec![Word::from("train"), data.clone(), Word::from("--out"), Word::Inside(run.clone())],
            line(&format!("--model {}", model.kind.name())),
            flags(&model.train),
            seeded.clone(),
        ];
        let train = self.add(&format!("train {label}"), Verb::Train, words.concat(), of_data.clone(), vec![run], kind);
        // Another row may be of the same training.
        let run = Word::Inside(self.all[train].outputs[0].clone());
        let words = [Word::from("score"), run.clone(), data.clone(), Word::from("--out"), Word::Inside(scores.clone())];
        let inputs = [&of_data[..], &[train]].concat();
        let score =
            self.add(&format!("score {label}"), Verb::Score, words.to_vec(), inputs.clone(), vec![scores], kind);
        let words = [
            vec![Word::from("generate"), run, Word::from("--data"), data.clone()],
            vec![Word::from("--out"), Word::Inside(generated.clone())],
            flags(&model.generate),
            seeded,
        ];
        let outputs = vec![generated.clone(), format!("{generated}.tokens.partial")];
        let generate = self.add(&format!("generate {label}"), Verb::Generate, words.concat(), inputs, outputs, kind);
        [train, score, generate]
    }

    /// The part that ends in the report, on the rows that are there to be compared; of the others it says why not.
    pub fn report(&self, plan: &Plan, rows: &[&Row], failures: &[(String, String)]) -> Part {
        let made = |row: &Row, which: usize| &self.all[row.parts[which]];
        let all = |flag: &str, of: &dyn Fn(&Row) -> Word| -> Vec<Word> {
            std::iter::once(Word::from(flag)).chain(rows.iter().map(|row| of(row))).collect()
        };
        let mut scores = vec![Word::from("--scores")];
        for row in rows {
            let word = Word::Inside(made(row, 1).outputs[0].clone());
            if !scores.contains(&word) {
                scores.push(word);
            }
        }
        let words = [
            vec![Word::from("evaluate"), Word::from("--real"), self.data.clone()],
            all("--generated", &|row| Word::Inside(made(row, 2).outputs[0].clone())),
            all("--label", &|row| Word::Text(row.label.clone())),
            scores,
            line(&format!("--out @{REPORT}")),
            flags(&plan.measures),
        ];
        let mut inputs = self.of_data.clone();
        inputs.extend(rows.iter().flat_map(|row| [row.parts[1], row.parts[2]]));
        let mut part = Part {
            name: "report".into(),
            verb: Verb::Evaluate,
            words: words.concat(),
            inputs,
            outputs: vec![REPORT.into()],
            key: String::new(),
            kind: None,
        };
        // The table names models, and says why some are not there.
        let names: Vec<&String> = plan.models.iter().map(|model| &model.name).collect();
        part.key = self.key(&part, &json!([names, failures]));
        part
    }

    /// Adds a part, or finds the one with the same words and inputs but for where the output goes: models that differ only in
    /// how they generate are trained once.
    fn add(
        &mut self,
        name: &str,
        verb: Verb,
        words: Vec<Word>,
        inputs: Vec<usize>,
        outputs: Vec<String>,
        kind: Option<ModelKind>,
    ) -> usize {
        let mut part = Part { name: name.into(), verb, words, inputs, outputs, key: String::new(), kind };
        let apart_from_output = |part: &Part| -> Vec<Word> {
            let is_output = |word: &Word| matches!(word, Word::Inside(path) if *path == part.outputs[0]);
            part.words.iter().filter(|word| !is_output(word)).cloned().collect()
        };
        let is_same = |other: &Part| {
            other.verb == part.verb
                && other.inputs == part.inputs
                && apart_from_output(other) == apart_from_output(&part)
        };
        if let Some(index) = self.all.iter().position(is_same) {
            return index;
        }
        part.key = self.key(&part, &json!(null));
        self.all.push(part);
        self.all.len() - 1
    }

    /// What a part depends on, as 32 hexadecimal digits.
    fn key(&self, part: &Part, more: &serde_json::Value) -> String {
        let depends = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "words": part.words.iter().map(Word::identity).collect::<Vec<_>>(),
            "inputs": part.inputs.iter().map(|&input| &self.all[input].key).collect::<Vec<_>>(),
            "more": more,
        });
        let mut hasher = SipHasher13::new();
        hasher.write(depends.to_string().as_bytes());
        format!("{:032x}", hasher.finish128().as_u128())
    }

    /// Where the data are that everything is compared with.
    pub fn data(&self) -> &Word {
        &self.data
    }

    /// Whether a row's model has the levels of the data that everything is compared with.
    pub fn has_common_levels(&self, row: &Row) -> bool {
        self.all[row.parts[0]].inputs == self.of_data
    }

    /// Whether the data that everything is compared with come from this part.
    pub fn is_of_all(&self, part: usize) -> bool {
        self.of_data.iter().any(|&data| data == part || self.all[data].inputs.contains(&part))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    const PLAN: &str = "seeds = [1, 2]\n[data.simulate]\nhours = 0.1\n[train]\nsteps = 10\n[generate]\nseconds = 60\n\
        [[model]]\nname = 'a'\nkind = 'gpt'\n[[model]]\nname = 'p 1'\nkind = 'gpt'\ntop_p = 1\n\
        [[model]]\nname = 'w'\nkind = 'wavenet'\nlr = 0.01\n[[model]]\nname = 'linear'\nkind = 'gpt'\ncompanding = 'linear'\n";

    fn parts(text: &str) -> Parts {
        Parts::new(&Plan::parse(text, Path::new("")).unwrap())
    }

    fn changed(text: &str) -> Vec<String> {
        let (before, after) = (parts(PLAN), parts(text));
        let is_new = |part: &&Part| !before.all.iter().any(|old| old.name == part.name && old.key == part.key);
        after.all.iter().filter(is_new).map(|part| part.name.clone()).collect()
    }

    #[test]
    fn every_part_comes_after_what_it_reads_and_none_is_there_twice() {
        let parts = parts(PLAN);
        for (index, part) in parts.all.iter().enumerate() {
            assert!(part.inputs.iter().all(|&input| input < index), "{part:?}");
        }
        let names: Vec<&str> = parts.all.iter().map(|part| part.name.as_str()).collect();
        assert_eq!(names[..4], ["simulate", "tokenize", "train a, seed 1", "score a, seed 1"]);
        assert!(names.contains(&"generate p 1, seed 2") && !names.contains(&"train p 1, seed 2"), "{names:?}");
        // Two for the data, one for other levels; three for each seed of a, w and linear, one for each of p 1.
        assert_eq!((names.len(), parts.rows.len()), (3 + 6 * 3 + 2, 8));
        let common: Vec<bool> = parts.rows.iter().map(|row| parts.has_common_levels(row)).collect();
        assert_eq!(common, [true, true, true, true, true, true, false, false]);
        let of_all: Vec<&str> =
            (0..names.len()).filter(|&part| parts.is_of_all(part)).map(|part| names[part]).collect();
        assert_eq!(of_all, ["simulate", "tokenize"]);
    }

    #[test]
    fn a_setting_changes_the_keys_of_what_follows_from_it_alone() {
        assert_eq!(changed(PLAN), [""; 0]);
        let all = parts(PLAN).all.len();
        assert_eq!(changed(&PLAN.replace("hours = 0.1", "hours = 0.2")).len(), all);
        let found = changed(&PLAN.replace("lr = 0.01", "lr = 0.02"));
        let of_w = ["train", "score", "generate"].map(|verb| [1, 2].map(|seed| format!("{verb} w, seed {seed}")));
        let mut want: Vec<String> = (0..2).flat_map(|s| of_w.iter().map(move |both| both[s].clone())).collect();
        assert_eq!(found, want);
        // Where only generating changes, nothing is trained again.
        want = [1, 2].map(|seed| format!("generate p 1, seed {seed}")).to_vec();
        assert_eq!(changed(&PLAN.replace("top_p = 1", "top_p = 0.9")), want);
        let measured = changed(&PLAN.replace("[generate]", "[measures]\nskip = 'hmm'\n[generate]"));
        assert_eq!(measured, [""; 0]);
    }

    #[test]
    fn the_report_depends_on_what_it_shows() {
        let plan = |text: &str| Plan::parse(text, Path::new("")).unwrap();
        let key = |text: &str, failures: &[(String, String)]| {
            let parts = parts(text);
            parts.report(&plan(text), &parts.rows.iter().collect::<Vec<_>>(), failures).key
        };
        let first = key(PLAN, &[]);
        assert_eq!(first, key(PLAN, &[]));
        assert_ne!(first, key(&PLAN.replace("lr = 0.01", "lr = 0.02"), &[]));
        assert_ne!(first, key(&PLAN.replace("[generate]", "[measures]\nskip = 'hmm'\n[generate]"), &[]));
        assert_ne!(first, key(PLAN, &[("x".into(), "y".into())]));
    }
}
