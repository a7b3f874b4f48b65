//! From the tokens of a partial file to recordings.

use super::Plan;
use super::partial::Partial;
use crate::error::{Error, Kind, Result};
use crate::recording::{Block, Info, Writer, fif, npy};
use crate::tokens::scheme::{Scales, Scheme};
use std::path::{Path, PathBuf};

/// What the levels of every channel stand for, in SI units.
#[derive(Debug, Clone)]
pub struct Decoder {
    n_level: usize,
    /// [n_channel, n_level]
    values: Vec<f64>,
}

impl Decoder {
    /// The centres of the levels, scaled back for each channel.
    pub fn new(scheme: &Scheme, scales: &Scales) -> Self {
        let levels = scheme.levels();
        let scales = scales.centre.iter().zip(&scales.spread).zip(&scales.peak);
        let values = scales.flat_map(|((centre, spread), peak)| levels.iter().map(move |x| x * peak * spread + centre));
        Self { n_level: levels.len(), values: values.collect() }
    }

    /// The value of a channel's level.
    pub fn value(&self, channel: usize, level: u8) -> f64 {
        self.values[channel * self.n_level + usize::from(level)]
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

/// Refuses, before any work is done, a file that could not be written in the end.
pub fn check(path: &Path, force: bool) -> Result<()> {
    Format::of(path)?;
    if path.exists() && !force {
        return Err(Error::new(Kind::Exists, "the file exists").at(path).hint("Give --force to replace it"));
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !folder.is_dir() {
        return Err(Error::new(Kind::NotFound, "there is no such folder").at(folder).hint("Create it first"));
    }
    Ok(())
}

/// Starts writing a recording in the format that the name asks for; `layout` is that of a `.npy` file.
pub fn create(path: &Path, info: &Info, layout: npy::Layout, force: bool) -> Result<Box<dyn Writer>> {
    match Format::of(path)? {
        Format::Fif => fif::create(path, info, force),
        Format::Npy => npy::create(path, info, layout, force),
    }
}

/// What a recording can be written as.
enum Format {
    Fif,
    Npy,
}

impl Format {
    fn of(path: &Path) -> Result<Self> {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("fif") => Ok(Self::Fif),
            Some("npy") => Ok(Self::Npy),
            _ => {
                let what = "a recording is written as .fif or .npy, by its name";
                Err(Error::new(Kind::UnknownFormat, what).at(path).hint("Name it, say, generated_meg.fif"))
            }
        }
    }
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
                    *x = decoder.value(channel, token);
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
}
