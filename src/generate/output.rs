//! From the tokens of a partial file to recordings.

use super::Plan;
use super::partial::Partial;
use super::provenance::Provenance;
use crate::error::{Error, Kind, Result};
use crate::recording::{Block, Info, Writer, fif, npy};
use crate::storage::atomic;
use crate::tokens::scheme::{Quantiser, Scales, Scheme};
use std::path::{Path, PathBuf};

/// What the levels of every channel stand for, in SI units: `[n_channel][n_level]`.
#[derive(Debug, Clone)]
pub struct Decoder {
    values: Vec<Vec<f64>>,
}

impl Decoder {
    /// The centres of the levels, scaled back for each channel.
    pub fn new(scheme: &Scheme, scales: &Scales) -> Self {
        let quantiser = Quantiser::new(scheme);
        let n_channel = scales.centre.len();
        Self { values: (0..n_channel).map(|channel| quantiser.decoded(scales.channel(channel))).collect() }
    }
}

/// The name of rollout number `rollout` (from 0) of `n_rollout`: the name given, or `x_rollout-2_meg.fif` for
/// `x_meg.fif`, so that MNE's names for kinds of files stay at the end.
pub fn rollout_path(output: &Path, rollout: usize, n_rollout: usize) -> PathBuf {
    if n_rollout == 1 {
        return output.to_path_buf();
    }
    let name = output.file_name().unwrap_or_default().to_string_lossy();
    let (stem, extension) = name.rsplit_once('.').unwrap_or((&name, ""));
    let kinds = ["_meg", "_eeg", "_raw", "-raw"];
    let kind = kinds.iter().find(|kind| stem.ends_with(*kind)).copied().unwrap_or("");
    let stem = &stem[..stem.len() - kind.len()];
    let dot = if extension.is_empty() { "" } else { "." };
    output.with_file_name(format!("{stem}_rollout-{}{kind}{dot}{extension}", rollout + 1))
}

/// Refuses, before any work is done, a file that could not be written in the end: everything that would be replaced is
/// looked at, for a recording like `info`. What an interrupted run of the same generation wrote, `ours`, may be; other
/// files only with `force`.
pub fn check(path: &Path, info: &Info, force: bool, ours: Option<&Provenance>) -> Result<()> {
    let named = path.extension().is_some_and(|extension| extension == "fif" || extension == "npy");
    if !named {
        let what = "a recording is written as .fif or .npy, and its name must say which";
        return Err(Error::new(Kind::Usage, what).at(path).hint("Choose a name such as generated_raw.fif"));
    }
    let files = match is_npy(path) {
        true => npy::files(path).to_vec(),
        false => fif::files(path, info.n_channel(), info.sfreq, info.n_timestep)?,
    };
    files.iter().try_for_each(|file| {
        // An array and its description are one; every part of a split FIF file speaks for itself.
        let said = || if is_npy(path) { said_of_array(path) } else { fif::description(file).ok().flatten() };
        let mine = ours
            .is_some_and(|ours| said().and_then(|said| Provenance::read(&said)).is_some_and(|it| ours.is_same(&it)));
        let refused = atomic::refuse_target(file, force || mine);
        refused.map_err(|e| if ours.is_some() { e.also("Beside --resume it keeps the tokens so far") } else { e })
    })
}

fn is_npy(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "npy")
}

/// What an array that exists says of itself, by the description beside it: a crash may have left that without the array,
/// never the reverse.
fn said_of_array(path: &Path) -> Option<String> {
    npy::described(path).ok().flatten()?.description
}

/// Writes the first `info.n_timestep` timesteps of one rollout, with the info's events.
pub fn write_rollout(
    mut writer: Box<dyn Writer>,
    info: &Info,
    plan: &Plan,
    partial: &Partial,
    decoder: &Decoder,
    rollout: usize,
) -> Result<()> {
    // About a megabyte of signal at a time, whole records.
    let n_channel = info.n_channel();
    let per_block = ((1 << 17) / (n_channel * plan.hop)).max(1) as u64;
    let mut tokens = vec![0; n_channel * plan.hop];
    let mut first = 0;
    while first * (plan.hop as u64) < info.n_timestep as u64 {
        let start = first as usize * plan.hop;
        let n_timestep = (info.n_timestep - start).min(per_block as usize * plan.hop);
        let mut block = Block::zeros(n_channel, n_timestep);
        for (i, at) in (0..n_timestep).step_by(plan.hop).enumerate() {
            partial.read(first + i as u64, rollout * tokens.len(), &mut tokens)?;
            let wanted = plan.hop.min(n_timestep - at);
            for (channel, tokens) in tokens.chunks_exact(plan.hop).enumerate() {
                let row = &mut block.channel_mut(channel)[at..at + wanted];
                for (x, &token) in row.iter_mut().zip(tokens) {
                    *x = decoder.values[channel][usize::from(token)];
                }
            }
        }
        writer.write(&block)?;
        first += per_block;
    }
    writer.finish(&info.events)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rollouts_have_names_of_their_own() {
        let name = |path: &str, rollout, n| rollout_path(Path::new(path), rollout, n).display().to_string();
        assert_eq!(name("a/x_meg.fif", 0, 1), "a/x_meg.fif");
        assert_eq!(name("a/x_meg.fif", 1, 2), "a/x_rollout-2_meg.fif");
        assert_eq!(name("x.npy", 0, 3), "x_rollout-1.npy");
        assert_eq!(name("x", 0, 3), "x_rollout-1");
        assert_eq!(name("a.b/x", 0, 3), "a.b/x_rollout-1");
    }

    /// Whatever will be replaced in the end is found in the beginning.
    #[test]
    fn everything_that_will_be_written_is_looked_at() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x_raw.fif");
        std::fs::write(folder.path().join("x_raw-2.fif"), "mine").unwrap();
        // 400 bytes a timestep: three files of at most 2 GB, or two.
        let row = [0.0];
        let mut info = crate::recording::testing::in_memory(&vec![&row[..]; 100], 100.0).info;
        let mut check = |path: &Path, n_timestep, force| {
            info.n_timestep = n_timestep;
            super::check(path, &info, force, None)
        };
        check(&path, 9_980_000, false).unwrap();
        let error = check(&path, 10_000_000, false).unwrap_err();
        assert!(error.to_string().contains("x_raw-2.fif: the file exists"), "{error}");
        check(&path, 10_000_000, true).unwrap();
        // A folder is not replaced by force.
        std::fs::create_dir(&path).unwrap();
        assert_eq!(check(&path, 1, true).unwrap_err().kind(), Kind::Exists);
        assert_eq!(check(&path.join("no/x.npy"), 1, false).unwrap_err().kind(), Kind::NotFound);
    }

    /// Going on replaces the parts that the same generation wrote, and nobody else's that has such a name.
    #[test]
    fn going_on_replaces_its_own_parts_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x_raw.fif");
        let ours =
            Provenance { generation: "ours".into(), rollout: 1, sampler: String::new(), tokenizer: Scheme::PAPER };
        let write = |name: &str, provenance: &Provenance| {
            let mut info = crate::recording::testing::in_memory(&[&[0.0, 1.0]], 100.0).info;
            info.description = Some(provenance.text());
            let disk = std::sync::Arc::new(crate::storage::disk::Os);
            // Three parts, a second in each.
            let mut writer = fif::create_on(disk, &folder.path().join(name), &info, true, 0).unwrap();
            writer.write(&Block::zeros(1, 300)).unwrap();
            writer.finish(&[]).unwrap();
        };
        let row = [0.0];
        let mut info = crate::recording::testing::in_memory(&vec![&row[..]; 100], 100.0).info;
        info.n_timestep = 10_000_000;
        let check = || super::check(&path, &info, false, Some(&ours));
        write("x_raw.fif", &ours);
        assert!(folder.path().join("x_raw-2.fif").exists());
        check().unwrap();
        // Between two renames: the first part is taken away first, and others are not there yet.
        std::fs::remove_file(&path).unwrap();
        std::fs::remove_file(folder.path().join("x_raw-2.fif")).unwrap();
        check().unwrap();
        write("x_raw-2.fif", &Provenance { generation: "another".into(), ..ours.clone() });
        let error = check().unwrap_err();
        assert!(error.to_string().contains("x_raw-2.fif: the file exists"), "{error}");
        std::fs::remove_file(folder.path().join("x_raw-2.fif")).unwrap();
        check().unwrap();
        std::fs::write(folder.path().join("x_raw-1.fif"), "not FIF").unwrap();
        assert_eq!(check().unwrap_err().kind(), Kind::Exists);
    }
}
