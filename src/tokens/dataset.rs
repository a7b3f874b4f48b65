//! A folder of shards that belong together: the same channels, rate, tokenizer and condition names.

use super::shard::{Shard, ShardMeta, Split};
use crate::ensure;
use crate::error::{Error, Kind, Result};
use std::path::{Path, PathBuf};

/// An open data set.
pub struct Dataset {
    /// Every shard, sorted by recording and split.
    pub shards: Vec<Shard>,
    /// Labels of the subjects, sorted; a shard's subject is an index into this.
    pub subjects: Vec<String>,
    /// Names of the conditions, the same in every shard.
    pub conditions: Vec<String>,
}

impl Dataset {
    /// Opens a folder (or one shard file) and checks that its shards belong together.
    pub fn open(path: &Path) -> Result<Self> {
        let files = if path.is_dir() { shard_files(path)? } else { vec![path.to_owned()] };
        let mut shards = files.iter().map(|file| Shard::open(file)).collect::<Result<Vec<_>>>()?;
        let Some(first) = shards.first() else {
            let hint = "Make shards with: gpt2meg tokenize RECORDING --out DATA";
            return Err(Error::new(Kind::NotFound, "there are no shards in this folder").at(path).hint(hint));
        };
        for shard in &shards {
            let name = first.path().file_name().unwrap_or_default().display().to_string();
            belong_together(&first.meta, &shard.meta, &name).map_err(|e| e.at(shard.path()))?;
        }
        shards.sort_by(|a, b| (&a.meta.recording, a.meta.split).cmp(&(&b.meta.recording, b.meta.split)));
        for pair in shards.windows(2) {
            let same = (&pair[0].meta.recording, pair[0].meta.split) == (&pair[1].meta.recording, pair[1].meta.split);
            let other = pair[1].path().display();
            if same {
                let what = format!("this is the same part of the same recording as {other}");
                return Err(Error::new(Kind::TokenizerMismatch, what).at(pair[0].path()).hint("Remove one of them"));
            }
            let (a, b) = (&pair[0].meta, &pair[1].meta);
            if a.recording == b.recording && a.tokenization != b.tokenization {
                let what = format!("this part and {other} come from different tokenizations of {}", a.recording);
                let hint = "An interrupted tokenize --force may have left them so: run it again";
                return Err(Error::new(Kind::TokenizerMismatch, what).at(pair[0].path()).hint(hint));
            }
        }
        let mut subjects: Vec<String> = shards.iter().map(|shard| label(&shard.meta)).collect();
        subjects.sort();
        subjects.dedup();
        let conditions = shards[0].meta.conditions.clone();
        Ok(Self { shards, subjects, conditions })
    }

    /// The shards of one split, with their indices.
    pub fn split(&self, split: Split) -> Vec<usize> {
        (0..self.shards.len()).filter(|&i| self.shards[i].meta.split == split).collect()
    }

    /// The subject index of a shard.
    pub fn subject(&self, shard: usize) -> usize {
        let label = label(&self.shards[shard].meta);
        self.subjects.binary_search(&label).expect("every shard's subject is listed")
    }
}

/// A recording without a known subject counts as its own: two of them need not be the same person.
fn label(meta: &ShardMeta) -> String {
    meta.info.subject.clone().unwrap_or_else(|| meta.recording.clone())
}

/// Whether a folder holds what `gpt2meg tokenize` writes.
pub fn holds_data(folder: &Path) -> Result<bool> {
    if !folder.is_dir() {
        return Ok(false);
    }
    let is_shard = |file: &PathBuf| Shard::open(file).is_ok();
    Ok(folder.join("tokenize.json").exists() || shard_files(folder)?.iter().any(is_shard))
}

/// The shards in a folder, by name; what is still being written begins with a dot.
pub(super) fn shard_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let failed = |e| Error::io(e, "list the folder", folder);
    let entries = std::fs::read_dir(folder).map_err(failed)?.collect::<std::io::Result<Vec<_>>>().map_err(failed)?;
    let is_shard = |path: &PathBuf| {
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        !hidden && path.extension().is_some_and(|extension| extension == "safetensors")
    };
    let mut files: Vec<_> = entries.into_iter().map(|entry| entry.path()).filter(is_shard).collect();
    files.sort();
    Ok(files)
}

/// Checks that `shard` may stand beside `first`, whose file is called `name`.
pub(crate) fn belong_together(first: &ShardMeta, shard: &ShardMeta, name: &str) -> Result<()> {
    let hint = "Tokenise all recordings of a data set together, with the same options";
    let (n, n_first) = (shard.info.n_channel(), first.info.n_channel());
    if n != n_first {
        let what = format!("{n} channels, where {name} has {n_first}");
        return Err(Error::new(Kind::ChannelMismatch, what).hint(hint));
    }
    for (i, (ours, theirs)) in shard.info.channels.iter().zip(&first.info.channels).enumerate() {
        if ours.name != theirs.name || ours.kind != theirs.kind {
            let what = format!("channel {} is {}, where {name} has {}", i + 1, ours.name, theirs.name);
            return Err(Error::new(Kind::ChannelMismatch, what).hint(hint));
        }
    }
    let (sfreq, first_sfreq) = (shard.info.sfreq, first.info.sfreq);
    ensure!(sfreq == first_sfreq, Kind::SamplingRate, "{sfreq} Hz, where {name} has {first_sfreq} Hz. {hint}");
    let tokenizer = |what: String| Err(Error::new(Kind::TokenizerMismatch, what).hint(hint));
    if shard.scheme != first.scheme {
        return tokenizer(format!("another tokenizer ({}) than that of {name} ({})", shard.scheme, first.scheme));
    }
    if shard.conditions != first.conditions {
        let [ours, theirs] = [shard, first].map(|meta| meta.conditions.join(", "));
        return tokenizer(format!("the conditions are ({ours}), where {name} has ({theirs})"));
    }
    if shard.info.pass_band != first.info.pass_band {
        let [ours, theirs] =
            [shard, first].map(|meta| format!("{} to {} Hz", meta.info.pass_band.0, meta.info.pass_band.1));
        return tokenizer(format!("the pass band is {ours}, where {name} has {theirs}"));
    }
    if shard.tokenization.settings != first.tokenization.settings {
        return tokenizer(format!(
            "tokenized with other settings (filter, resampling, --hold or --keep-signal) than {name}"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::shard::tests::write_shard;
    use super::*;

    #[test]
    fn sorted_with_subjects_and_conditions() {
        let folder = tempfile::tempdir().unwrap();
        for (recording, subject) in [("b", Some("02")), ("a", Some("01")), ("c", None)] {
            for split in [Split::Test, Split::Train] {
                write_shard(folder.path(), recording, split, 2, 50, |m| m.info.subject = subject.map(Into::into));
            }
        }
        std::fs::write(folder.path().join(".a.safetensors.1-0.partial"), "x").unwrap();
        std::fs::write(folder.path().join("tokenize.json"), "{}").unwrap();
        let dataset = Dataset::open(folder.path()).unwrap();
        let order: Vec<_> = dataset.shards.iter().map(|s| (s.meta.recording.as_str(), s.meta.split)).collect();
        let (train, test) = (Split::Train, Split::Test);
        assert_eq!(order, [("a", train), ("a", test), ("b", train), ("b", test), ("c", train), ("c", test)]);
        assert_eq!(dataset.subjects, ["01", "02", "c"]);
        assert_eq!((0..6).map(|i| dataset.subject(i)).collect::<Vec<_>>(), [0, 0, 1, 1, 2, 2]);
        assert_eq!(dataset.conditions, ["face", "house"]);
        assert_eq!(dataset.split(Split::Test), [1, 3, 5]);
        assert_eq!(Dataset::open(&folder.path().join("b_test.safetensors")).unwrap().shards.len(), 1);
    }

    #[test]
    fn shards_that_do_not_belong_together() {
        type Change = fn(&mut ShardMeta);
        let cases: [(Change, Kind); 8] = [
            (|m| m.info.channels[1].name = "other".into(), Kind::ChannelMismatch),
            (|m| m.info.channels.swap(0, 1), Kind::ChannelMismatch),
            (|m| m.info.sfreq = 99.0, Kind::SamplingRate),
            (|m| m.scheme.scaling = super::super::scheme::Scaling::Robust, Kind::TokenizerMismatch),
            (|m| m.conditions.reverse(), Kind::TokenizerMismatch),
            (|m| m.info.pass_band.1 = 49.9, Kind::TokenizerMismatch),
            (|m| m.tokenization.settings = "other".into(), Kind::TokenizerMismatch),
            (|m| m.recording = "a".into(), Kind::TokenizerMismatch),
        ];
        for (change, kind) in cases {
            let folder = tempfile::tempdir().unwrap();
            write_shard(folder.path(), "a", Split::Train, 2, 50, |_| ());
            write_shard(folder.path(), "b", Split::Train, 2, 50, change);
            assert_eq!(Dataset::open(folder.path()).err().unwrap().kind(), kind);
        }
        let folder = tempfile::tempdir().unwrap();
        write_shard(folder.path(), "a", Split::Train, 2, 50, |_| ());
        write_shard(folder.path(), "b", Split::Train, 3, 50, |_| ());
        assert_eq!(Dataset::open(folder.path()).err().unwrap().kind(), Kind::ChannelMismatch);
    }

    /// Recordings may be tokenized one after the other, the parts of one may not.
    #[test]
    fn parts_of_different_tokenizations() {
        let folder = tempfile::tempdir().unwrap();
        write_shard(folder.path(), "a", Split::Train, 2, 50, |_| ());
        write_shard(folder.path(), "b", Split::Train, 2, 50, |m| m.tokenization.recording = "other".into());
        Dataset::open(folder.path()).unwrap();
        write_shard(folder.path(), "b", Split::Test, 2, 50, |_| ());
        let error = Dataset::open(folder.path()).err().unwrap();
        assert_eq!(error.kind(), Kind::TokenizerMismatch);
        assert!(error.to_string().contains("different tokenizations of b"), "{error}");
    }

    #[test]
    fn nothing_there() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Dataset::open(folder.path()).err().unwrap().kind(), Kind::NotFound);
        assert_eq!(Dataset::open(&folder.path().join("absent")).err().unwrap().kind(), Kind::NotFound);
    }
}
