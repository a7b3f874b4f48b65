//! The file of an experiment: which data, which models, which measures.
//!
//! Its keys are the options of the commands that run, with `_` for `-`; what they mean and which values they take is
//! those commands' business. Here is said which options belong to what, so that a key that nobody knows is an error.

use crate::ensure;
use crate::error::{Error, Kind, Result};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use toml::{Table, Value};

/// Options of `simulate`.
const SIMULATE: &[&str] = &["hours", "channels", "conditions", "sfreq", "bad", "artefacts", "seed"];
/// Options of `tokenize` that one model may have otherwise than the others.
const SCHEME: &[&str] = &["companding", "levels", "scaling", "clip"];
/// Its other options.
const TOKENIZE: &[&str] = &[
    "picks",
    "exclude",
    "drop_bads",
    "band",
    "sfreq",
    "layout",
    "rate",
    "events_from",
    "events",
    "stim_channel",
    "classes",
    "hold",
    "preset",
    "max_error",
    "keep_signal",
];
/// How networks are trained.
const TRAIN: &[&str] = &[
    "preset",
    "steps",
    "passes",
    "windows_per_step",
    "lr",
    "schedule",
    "warmup",
    "weight_decay",
    "clip_norm",
    "validate_every",
    "validate_passes",
    "validation_windows",
    "patience",
    "condition_labels",
];
/// Options of `generate` that all models have.
const GENERATE: &[&str] = &["seconds", "conditions", "trial_seconds", "prompt_from", "prompt_start"];
/// Those that only networks have, which draw levels.
const DRAW: &[&str] = &["top_p", "top_k", "temperature", "greedy"];
/// Options of `evaluate`.
const MEASURES: &[&str] = &[
    "part",
    "recording",
    "control_p",
    "skip",
    "hmm_states",
    "hmm_lags",
    "hmm_components",
    "hmm_starts",
    "hmm_means",
    "hmm_time_domain",
    "network",
    "seed",
];

/// A kind of model, as `train --model` has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelKind {
    /// GPT2MEG.
    Gpt,
    /// WaveNet, channels independent.
    Wavenet,
    /// WaveNet with a map across channels.
    WavenetMix,
    /// Linear autoregression.
    Ar,
}

impl ModelKind {
    const ALL: [Self; 4] = [Self::Gpt, Self::Wavenet, Self::WavenetMix, Self::Ar];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gpt => "gpt",
            Self::Wavenet => "wavenet",
            Self::WavenetMix => "wavenet-mix",
            Self::Ar => "ar",
        }
    }

    /// The section with what all models of this kind have in common.
    fn section(self) -> &'static str {
        match self {
            Self::WavenetMix => "wavenet",
            other => other.name(),
        }
    }

    /// The options of `train` that it has.
    fn train(self) -> Vec<&'static str> {
        let shape: &[&str] = match self {
            Self::Gpt => &["layers", "heads", "d_model", "context", "head"],
            Self::Wavenet | Self::WavenetMix => &["layers", "d_model", "context"],
            Self::Ar => return vec!["order", "multivariate", "ridge"],
        };
        [TRAIN, shape].concat()
    }

    /// The options of `generate` that it has.
    fn generate(self) -> Vec<&'static str> {
        match self {
            Self::Gpt => [GENERATE, DRAW, &["hop"]].concat(),
            Self::Wavenet | Self::WavenetMix => [GENERATE, DRAW].concat(),
            Self::Ar => [GENERATE, &["noise"]].concat(),
        }
    }
}

/// The value of an option.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Setting {
    /// `true`.
    On,
    /// `false`.
    Off,
    /// Anything else, as the command line has it.
    Text(String),
}

/// Options by name.
pub type Options = BTreeMap<String, Setting>;

/// Where the data come from.
#[derive(Debug, Clone, PartialEq)]
pub enum Data {
    /// A recording that is tokenized.
    Recording(PathBuf),
    /// A folder that is tokenized already.
    Tokens(PathBuf),
    /// A simulation with these options.
    Simulation(Options),
}

/// One model of the comparison.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelPlan {
    /// Its name in the report, and of its folder.
    pub name: String,
    /// Its kind.
    pub kind: ModelKind,
    /// What its tokenizer has otherwise than that of the others.
    pub scheme: Options,
    /// Options of `train`.
    pub train: Options,
    /// Options of `generate`.
    pub generate: Options,
}

/// A whole experiment.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Seeds that every model is trained and generates with.
    pub seeds: Vec<u64>,
    /// The data.
    pub data: Data,
    /// Options of `tokenize`.
    pub tokenize: Options,
    /// Options of `evaluate`.
    pub measures: Options,
    /// The models, in the order of the report.
    pub models: Vec<ModelPlan>,
}

impl Plan {
    /// Reads a plan; paths in it are relative to the file's folder.
    pub fn read(path: &Path) -> Result<(Self, String)> {
        let text = std::fs::read_to_string(path).map_err(|e| Error::io(e, "read the experiment", path))?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let plan = Self::parse(&text, folder).map_err(|e| e.at(path))?;
        Ok((plan, text))
    }

    /// The plan that a text describes.
    pub fn parse(text: &str, folder: &Path) -> Result<Self> {
        let top: Table = text.parse().map_err(|e: toml::de::Error| {
            let line = e.span().map_or(0, |span| text[..span.start.min(text.len())].lines().count().max(1));
            let what = format!("line {line} is not TOML: {}", e.message().replace('\n', ", "));
            Error::new(Kind::Usage, what)
        })?;
        let known = ["seeds", "data", "tokenize", "train", "generate", "gpt", "wavenet", "ar", "measures", "model"];
        refuse_unknown(&top, "the file", &known)?;
        let tokenize = section(&top, "tokenize", &[SCHEME, TOKENIZE].concat())?;
        if let Some(Setting::Text(classes)) = tokenize.get("classes") {
            ensure!(
                classes.contains('='),
                Kind::Usage,
                "[tokenize] classes: write them here, as label=name,label=name"
            );
        }
        let train = section(&top, "train", TRAIN)?;
        let generate = section(&top, "generate", &ModelKind::ALL.map(ModelKind::generate).concat())?;
        let mut kinds = BTreeMap::new();
        for kind in ModelKind::ALL {
            let known = [kind.train(), kind.generate()].concat();
            kinds.insert(kind.section(), section(&top, kind.section(), &known)?);
        }
        let shared = Shared { train, generate, kinds };
        let models = match top.get("model") {
            Some(Value::Array(models)) => models.iter().map(|model| shared.model(model)).collect::<Result<Vec<_>>>()?,
            None => Vec::new(),
            Some(_) => return Err(Error::new(Kind::Usage, "write models as [[model]], each with a name and a kind")),
        };
        ensure!(!models.is_empty(), Kind::Usage, "there is no [[model]], nothing to compare");
        for (index, model) in models.iter().enumerate() {
            // Folders are called so, and some file systems know no capitals.
            let is_same = |other: &ModelPlan| other.name.to_lowercase() == model.name.to_lowercase();
            ensure!(!models[..index].iter().any(is_same), Kind::Usage, "two models are called {}", model.name);
        }
        let data = data(&top, folder)?;
        if let Data::Tokens(_) = data {
            let what = "data that are tokens already cannot be tokenized otherwise: leave [tokenize] away";
            ensure!(tokenize.is_empty(), Kind::Usage, "{what}");
            let other = models.iter().find(|model| !model.scheme.is_empty());
            ensure!(
                other.is_none(),
                Kind::Usage,
                "model {}: its tokenizer needs a recording, and data are tokens already",
                other.expect("one").name
            );
        }
        let measures = section(&top, "measures", MEASURES)?;
        Ok(Self { seeds: seeds(&top)?, data, tokenize: located(tokenize, folder), measures, models })
    }
}

/// What models have in common.
struct Shared {
    train: Options,
    generate: Options,
    kinds: BTreeMap<&'static str, Options>,
}

impl Shared {
    /// A model, with what it does not say itself taken from its kind's section, and else from [train] and [generate].
    fn model(&self, value: &Value) -> Result<ModelPlan> {
        let Value::Table(table) = value else {
            return Err(Error::new(Kind::Usage, "write models as [[model]], each with a name and a kind"));
        };
        let text = |key: &str| match table.get(key) {
            Some(Value::String(text)) => Ok(text.clone()),
            _ => Err(Error::new(Kind::Usage, format!("a [[model]] has no {key}, or one that is no text"))),
        };
        let (name, kind) = (text("name")?, text("kind")?);
        check_name(&name)?;
        let kind = ModelKind::ALL.into_iter().find(|known| known.name() == kind).ok_or_else(|| {
            let known = ModelKind::ALL.map(ModelKind::name);
            Error::new(Kind::Usage, format!("model {name}: {kind} is no kind of model")).hint(suggestion(&kind, &known))
        })?;
        let (train, generate) = (kind.train(), kind.generate());
        let known = [&["name", "kind"], SCHEME, &train, &generate].concat();
        refuse_unknown(table, &format!("model {name}"), &known)?;
        let own = options(table, &format!("model {name}"))?;
        let of_kind = &self.kinds[kind.section()];
        let pick = |keys: &[&str], common: &Options| -> Options {
            let found = |key: &&str| {
                let setting = own.get(*key).or_else(|| of_kind.get(*key)).or_else(|| common.get(*key));
                setting.map(|setting| (key.to_string(), setting.clone()))
            };
            keys.iter().filter_map(found).collect()
        };
        let none = Options::new();
        let scheme = own.iter().filter(|(key, _)| SCHEME.contains(&key.as_str()));
        let scheme = scheme.map(|(key, setting)| (key.clone(), setting.clone())).collect();
        let recipe = if kind == ModelKind::Ar { &none } else { &self.train };
        Ok(ModelPlan { scheme, train: pick(&train, recipe), generate: pick(&generate, &self.generate), name, kind })
    }
}

/// Names are those of folders, and words of command lines.
fn check_name(name: &str) -> Result<()> {
    let fits = (1..=80).contains(&name.chars().count()) && name == name.trim();
    let plain = !name.starts_with(['-', '.', '@']) && !name.chars().any(|c| c.is_control() || "/\\:".contains(c));
    let what = "a folder is called so, and slashes, colons, dashes in front and more than 80 letters do not go";
    ensure!(fits && plain, Kind::Usage, "{name:?} cannot be the name of a model: {what}");
    Ok(())
}

fn data(top: &Table, folder: &Path) -> Result<Data> {
    const ONE: &str = "[data] needs one of recording, tokens and simulate";
    let Some(Value::Table(data)) = top.get("data") else { return Err(Error::new(Kind::Usage, ONE)) };
    refuse_unknown(data, "[data]", &["recording", "tokens", "simulate"])?;
    ensure!(data.len() == 1, Kind::Usage, "{ONE}");
    match data.iter().next().map(|(key, value)| (key.as_str(), value)) {
        Some(("simulate", Value::Table(simulate))) => {
            refuse_unknown(simulate, "[data.simulate]", SIMULATE)?;
            Ok(Data::Simulation(options(simulate, "[data.simulate]")?))
        }
        Some(("recording", Value::String(path))) => Ok(Data::Recording(folder.join(path))),
        Some(("tokens", Value::String(path))) => Ok(Data::Tokens(folder.join(path))),
        _ => Err(Error::new(Kind::Usage, ONE).hint("recording and tokens are paths, simulate is a table of options")),
    }
}

fn seeds(top: &Table) -> Result<Vec<u64>> {
    let what = "seeds are different whole numbers from 0 on, as in seeds = [1, 2, 3]";
    let wrong = || Error::new(Kind::Usage, what);
    let Some(value) = top.get("seeds") else { return Ok(vec![0]) };
    let values = value.as_array().ok_or_else(wrong)?;
    let one = |value: &Value| value.as_integer().and_then(|seed| u64::try_from(seed).ok()).ok_or_else(wrong);
    let seeds: Vec<u64> = values.iter().map(one).collect::<Result<_>>()?;
    let twice = (1..seeds.len()).any(|i| seeds[..i].contains(&seeds[i]));
    ensure!(!seeds.is_empty() && !twice, Kind::Usage, "{what}");
    Ok(seeds)
}

/// A section of options, empty where it is not there.
fn section(top: &Table, name: &str, known: &[&str]) -> Result<Options> {
    match top.get(name) {
        None => Ok(Options::new()),
        Some(Value::Table(table)) => {
            let place = format!("[{name}]");
            refuse_unknown(table, &place, known)?;
            options(table, &place)
        }
        Some(_) => Err(Error::new(Kind::Usage, format!("{name} is a section: write [{name}] on a line by itself"))),
    }
}

/// The options with the path among them relative to the folder of the file.
fn located(mut options: Options, folder: &Path) -> Options {
    if let Some(Setting::Text(path)) = options.get_mut("events") {
        *path = folder.join(&*path).display().to_string();
    }
    options
}

fn refuse_unknown(table: &Table, place: &str, known: &[&str]) -> Result<()> {
    match table.keys().find(|key| !known.contains(&key.as_str())) {
        Some(key) => {
            let what = format!("{place} has the key {key}, which means nothing there");
            Err(Error::new(Kind::Usage, what).hint(suggestion(key, known)))
        }
        None => Ok(()),
    }
}

/// The nearest of the known keys, or where none is near, all of them.
fn suggestion(key: &str, known: &[&str]) -> String {
    let likeness = |other: &&&str| strsim::normalized_damerau_levenshtein(key, other);
    let nearest = known.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
    match nearest.filter(|nearest| likeness(nearest) >= 0.5) {
        Some(nearest) => format!("The nearest that does is {nearest}"),
        None => format!("Known are {}", known.join(", ")),
    }
}

/// The settings of a table, as texts.
fn options(table: &Table, place: &str) -> Result<Options> {
    let text = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Integer(number) => Some(number.to_string()),
        Value::Float(number) => Some(number.to_string()),
        _ => None,
    };
    let setting = |(key, value): (&String, &Value)| {
        let setting = match value {
            Value::Boolean(true) => Some(Setting::On),
            Value::Boolean(false) => Some(Setting::Off),
            Value::Array(values) => {
                let all: Option<Vec<String>> = values.iter().map(text).collect();
                all.map(|all| Setting::Text(all.join(",")))
            }
            other => text(other).map(Setting::Text),
        };
        let what = || format!("{place} {key}: neither a number, a text, true or false, nor a list of them");
        setting.map(|setting| (key.clone(), setting)).ok_or_else(|| Error::new(Kind::Usage, what()))
    };
    table.iter().map(setting).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATA: &str = "[data.simulate]\nhours = 0.1\n";

    fn parse(text: &str) -> Result<Plan> {
        Plan::parse(text, Path::new("folder"))
    }

    fn refused(text: &str, named: &str) {
        let error = parse(text).expect_err(text);
        assert_eq!(error.kind(), Kind::Usage, "{text}");
        assert!(error.to_string().contains(named), "{text}: {error}");
    }

    #[test]
    fn what_a_model_does_not_say_its_kind_and_the_sections_do() {
        let plan = parse(&format!(
            "seeds = [3, 5]\n[train]\nsteps = 10\nlr = 1e-3\n[gpt]\nlayers = 4\nsteps = 20\n[generate]\nseconds = 60\nhop = 5\n\
             top_p = 1\n{DATA}[[model]]\nname = 'a'\nkind = 'gpt'\nlayers = 2\ncompanding = 'linear'\n\
             [[model]]\nname = 'b'\nkind = 'wavenet-mix'\n[[model]]\nname = 'c'\nkind = 'ar'\nmultivariate = true\n"
        ))
        .unwrap();
        assert_eq!(plan.seeds, [3, 5]);
        let text = |options: &Options, key: &str| match options.get(key) {
            Some(Setting::Text(text)) => text.clone(),
            other => format!("{other:?}"),
        };
        let [a, b, c] = plan.models.try_into().unwrap();
        assert_eq!(["steps", "layers", "lr"].map(|key| text(&a.train, key)), ["20", "2", "0.001"]);
        assert_eq!(text(&a.scheme, "companding"), "linear");
        assert_eq!((text(&a.generate, "hop"), text(&b.generate, "hop")), ("5".into(), "None".into()));
        assert_eq!((text(&b.train, "steps"), b.scheme.len()), ("10".into(), 0));
        // An autoregression is not trained in steps and draws no levels.
        assert_eq!(c.train, Options::from([("multivariate".to_string(), Setting::On)]));
        assert_eq!(c.generate, Options::from([("seconds".to_string(), Setting::Text("60".into()))]));
    }

    #[test]
    fn what_nobody_knows_is_refused_with_what_is_near() {
        let model = "[[model]]\nname = 'a'\nkind = 'gpt'\n";
        refused(
            &format!("{DATA}{model}stpes = 3\n"),
            "model a has the key stpes, which means nothing there. The nearest that does is steps",
        );
        refused(&format!("[trian]\nsteps = 3\n{DATA}{model}"), "nearest that does is train");
        refused(&format!("{DATA}chanels = 3\n{model}"), "[data.simulate] has the key chanels");
        refused(&format!("[train]\nxyzzyx = 3\n{DATA}{model}"), "Known are preset, steps");
        refused(&format!("{DATA}[[model]]\nname = 'a'\nkind = 'wavnet'\n"), "nearest that does is wavenet");
        refused(&format!("{DATA}[[model]]\nname = 'a'\nkind = 'ar'\nlayers = 2\n"), "the key layers");
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let model = "[[model]]\nname = 'a'\nkind = 'gpt'\n";
        refused(&format!("{DATA}seeds ="), "line 3 is not TOML");
        refused(DATA, "no [[model]]");
        refused(model, "[data] needs one of");
        refused(&format!("[data]\ntokens = 'x'\nrecording = 'y'\n{model}"), "[data] needs one of");
        refused(&format!("[data]\ntokens = 'x'\n{model}levels = 16\n"), "model a: its tokenizer needs a recording");
        refused(&format!("[data]\ntokens = 'x'\n[tokenize]\nlevels = 16\n{model}"), "leave [tokenize] away");
        refused(&format!("{DATA}{model}{}", model.replace('a', "A")), "has no name");
        refused(&format!("{DATA}{model}[[model]]\nname = 'A'\nkind = 'gpt'\n"), "two models are called A");
        refused(&format!("{DATA}[[model]]\nname = '../a'\nkind = 'gpt'\n"), "cannot be the name");
        refused(&format!("{DATA}{model}lr = 1979-05-27\n"), "model a lr: neither");
        for seeds in ["[]", "[1, 1]", "[-1]", "3", "['a']"] {
            refused(&format!("seeds = {seeds}\n{DATA}{model}"), "seeds are different whole numbers");
        }
    }

    #[test]
    fn paths_are_relative_to_the_file() {
        let model = "[[model]]\nname = 'a'\nkind = 'gpt'\n";
        let plan = parse(&format!("[data]\nrecording = 'x.fif'\n[tokenize]\nevents = 'e.tsv'\n{model}")).unwrap();
        assert_eq!(plan.data, Data::Recording("folder/x.fif".into()));
        assert_eq!(plan.tokenize["events"], Setting::Text("folder/e.tsv".into()));
        assert_eq!(parse(&format!("[data]\ntokens = '/x'\n{model}")).unwrap().data, Data::Tokens("/x".into()));
    }
}
