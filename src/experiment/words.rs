//! The words of a command line, with paths that are known for what they are.

use super::plan::{Options, Setting};
use serde_json::{Value, json};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

/// One word.
#[derive(Debug, Clone, PartialEq)]
pub enum Word {
    /// Said as it is.
    Text(String),
    /// A path below the experiment's folder.
    Inside(String),
    /// A path outside, to what the experiment is given.
    Given(PathBuf),
}

impl From<&str> for Word {
    fn from(text: &str) -> Self {
        match text.strip_prefix('@') {
            Some(path) => Self::Inside(path.into()),
            None => Self::Text(text.into()),
        }
    }
}

impl Word {
    /// As the command line takes it, for an experiment in `folder`.
    pub fn spelt(&self, folder: &Path) -> OsString {
        match self {
            Self::Text(text) => text.into(),
            Self::Inside(path) => folder.join(path).into_os_string(),
            Self::Given(path) => path.into(),
        }
    }

    /// What a part depends on in it: of a path that is given also what can be seen of the files there without reading them.
    pub fn identity(&self) -> Value {
        match self {
            Self::Text(text) => json!(text),
            Self::Inside(path) => json!({ "inside": path }),
            // Wherever it is called from, the same file is the same.
            Self::Given(path) => {
                let path = path.canonicalize().unwrap_or_else(|_| path.clone());
                json!({ "given": path.display().to_string(), "files": seen(&path) })
            }
        }
    }
}

/// The words of a line such as `train @data --steps 3`; what begins with @ is below the experiment's folder.
pub fn line(text: &str) -> Vec<Word> {
    text.split_whitespace().map(Word::from).collect()
}

/// The words of options.
pub fn flags(options: &Options) -> Vec<Word> {
    let of = |(key, setting): (&String, &Setting)| {
        let flag = Word::Text(format!("--{}", key.replace('_', "-")));
        match setting {
            Setting::On => vec![flag],
            Setting::Off => vec![],
            Setting::Text(text) if key == "events" => vec![flag, Word::Given(text.into())],
            Setting::Text(text) => vec![flag, Word::Text(text.clone())],
        }
    };
    options.iter().flat_map(of).collect()
}

/// A word as a shell takes it.
pub fn quoted(word: &OsString) -> String {
    let word = word.to_string_lossy();
    let plain = !word.is_empty() && word.chars().all(|c| c.is_alphanumeric() || "/._-=+:@%,".contains(c));
    if plain { word.into_owned() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

/// Path, length and time of change of a file, or of all files in a folder, in the order of their names.
fn seen(path: &Path) -> Vec<Value> {
    let Ok(about) = path.metadata() else { return Vec::new() };
    if !about.is_dir() {
        let changed = about.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        return vec![json!([path.display().to_string(), about.len(), changed.map(|time| time.as_nanos().to_string())])];
    }
    let Ok(entries) = std::fs::read_dir(path) else { return Vec::new() };
    let mut below: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    below.sort();
    // A link to a folder may lead back to where it is.
    below.retain(|path| path.is_file() || !path.is_symlink());
    below.iter().flat_map(|path| seen(path)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_spelt_and_quoted() {
        let words = line("train @data --out @run");
        assert_eq!(words[1], Word::Inside("data".into()));
        assert_eq!(words[1].spelt(Path::new("it's")), "it's/data");
        assert_eq!(quoted(&"it's/x".into()), r"'it'\''s/x'");
        assert_eq!(quoted(&"".into()), "''");
        let options = Options::from([
            ("d_model".to_string(), Setting::Text("8".into())),
            ("greedy".to_string(), Setting::On),
            ("multivariate".to_string(), Setting::Off),
        ]);
        assert_eq!(flags(&options), line("--d-model 8 --greedy"));
    }

    #[test]
    fn a_file_that_changes_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let word = Word::Given(folder.path().into());
        let empty = word.identity();
        std::fs::create_dir(folder.path().join("sub")).unwrap();
        std::fs::write(folder.path().join("sub/a"), "1").unwrap();
        let one = word.identity();
        assert_eq!(one, word.identity());
        std::fs::write(folder.path().join("sub/a"), "12").unwrap();
        let two = word.identity();
        assert!(empty != one && one != two);
    }
}
