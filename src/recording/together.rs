//! What recordings that become one data set must agree in, found out before hours of work: the channels picked, which of
//! them are left out as bad, and that none of them is flat.

use super::marks::{GAP, kept, stretches};
use super::open::Opened;
use super::pick::{Picks, missing};
use super::prepare::flat_error;
use crate::error::{Error, Kind, Result};
use std::collections::BTreeSet;

/// Refuses a channel to leave out that none of the recordings has. That some lack it is what leaving out is for.
pub fn check_excluded<'a>(opened: impl Iterator<Item = &'a Opened>, picks: &Picks) -> Result<()> {
    let infos: Vec<_> = opened.map(|opened| &opened.recording.info).collect();
    let is_there = |name: &String| infos.iter().any(|info| info.channels.iter().any(|channel| channel.name == *name));
    match (picks.exclude.iter().find(|name| !is_there(name)), infos.first()) {
        (Some(name), Some(info)) => Err(missing(name, &info.channels).at(&info.source)),
        _ => Ok(()),
    }
}

/// Marks a channel bad in every recording where it is marked in one, so that leaving out the bad ones leaves the same.
/// Returns the channels of `picks` that are concerned.
pub fn unite_bads<'a>(opened: impl Iterator<Item = &'a mut Opened>, picks: &Picks) -> Result<BTreeSet<String>> {
    let mut opened: Vec<&mut Opened> = opened.collect();
    let all = Picks { drop_bads: false, ..picks.clone() };
    let mut bads = BTreeSet::new();
    for info in opened.iter().map(|opened| &opened.recording.info) {
        let rows = all.rows(&info.channels).map_err(|e| e.at(&info.source))?;
        let bad = rows.into_iter().map(|row| &info.channels[row]).filter(|channel| channel.bad);
        bads.extend(bad.map(|channel| channel.name.clone()));
    }
    for channel in opened.iter_mut().flat_map(|opened| &mut opened.recording.info.channels) {
        channel.bad |= bads.contains(&channel.name);
    }
    Ok(bads)
}

/// Checks that the channels picked have the same names, kinds and order in all recordings.
pub fn same_channels<'a>(opened: impl Iterator<Item = &'a Opened>, picks: &Picks) -> Result<()> {
    let mut first: Option<(&str, Vec<_>)> = None;
    for info in opened.map(|opened| &opened.recording.info) {
        let rows = picks.rows(&info.channels).map_err(|e| e.at(&info.source))?;
        let ours: Vec<_> = rows.into_iter().map(|row| (&info.channels[row].name, info.channels[row].kind)).collect();
        let Some((source, theirs)) = &first else {
            first = Some((&info.source, ours));
            continue;
        };
        if ours == *theirs {
            continue;
        }
        // What one has and the other has not, or else the first that stands elsewhere.
        let more = |a: &[(&String, _)], b: &[(&String, _)]| -> Vec<String> {
            a.iter().filter(|channel| !b.contains(channel)).map(|(name, _)| name.to_string()).collect()
        };
        let (extra, missing) = (more(&ours, theirs), more(theirs, &ours));
        let mut what = vec![format!("{} channels, where {source} has {}", ours.len(), theirs.len())];
        what.extend((!missing.is_empty()).then(|| format!("it lacks {}", shown(&missing))));
        what.extend((!extra.is_empty()).then(|| format!("only it has {}", shown(&extra))));
        what.extend((extra.is_empty() && missing.is_empty()).then(|| "their order differs".into()));
        let hint = "One model has one set of channels: pick those that all recordings have (--picks, --exclude), or \
                    tokenize them into different folders";
        return Err(Error::new(Kind::ChannelMismatch, what.join("; ")).at(&info.source).hint(hint));
    }
    Ok(())
}

/// Five names of a list, and how many more there are.
fn shown(names: &[String]) -> String {
    let more = if names.len() > 5 { format!(" and {} more", names.len() - 5) } else { String::new() };
    names[..names.len().min(5)].join(", ") + &more
}

/// Refuses channels that never change, those of all recordings at once. Reading stops as soon as every channel of a
/// recording has changed, which is nearly at once; it also stops, without an error, when a signal asks the process to.
pub fn refuse_flat<'a>(opened: impl Iterator<Item = &'a mut Opened>, picks: &Picks) -> Result<()> {
    let mut flat: Vec<(String, Vec<String>)> = Vec::new();
    let (mut n_recording, mut all_bad) = (0, true);
    for opened in opened {
        n_recording += 1;
        let names = flat_channels(opened, picks)?;
        let channels = &opened.recording.info.channels;
        all_bad &= names.iter().all(|name| channels.iter().any(|channel| channel.bad && channel.name == *name));
        if !names.is_empty() {
            flat.push((opened.recording.info.source.clone(), names));
        }
    }
    if flat.is_empty() {
        return Ok(());
    }
    let names: BTreeSet<&str> = flat.iter().flat_map(|(_, names)| names).map(String::as_str).collect();
    let error = flat_error(&names.into_iter().collect::<Vec<_>>(), "the signal never changes", all_bad);
    if n_recording == 1 {
        return Err(error.at(&flat[0].0));
    }
    let places: Vec<String> = flat.iter().map(|(source, names)| format!("{source} ({})", shown(names))).collect();
    Err(error.at(shown(&places)))
}

/// The channels of `picks` that have one value throughout, gaps in the acquisition apart.
fn flat_channels(opened: &mut Opened, picks: &Picks) -> Result<Vec<String>> {
    /// Timesteps read at a time.
    const BLOCK: usize = 2048;
    let info = opened.recording.info.clone();
    let gaps = stretches(opened.marks.iter().filter(|mark| mark.label == GAP), 1.0, info.n_timestep);
    // Rows that have not changed yet, with their first value.
    let mut flat: Vec<(usize, Option<f64>)> = picks.rows(&info.channels)?.into_iter().map(|row| (row, None)).collect();
    for usable in kept(0..info.n_timestep, &gaps) {
        for start in usable.clone().step_by(BLOCK) {
            if flat.is_empty() || crate::interrupt::requested().is_some() {
                return Ok(Vec::new());
            }
            let rows: Vec<usize> = flat.iter().map(|(row, _)| *row).collect();
            let block = opened.recording.read_rows(&rows, start, BLOCK.min(usable.end - start))?;
            let mut left = 0..rows.len();
            flat.retain_mut(|(_, first)| {
                let samples = block.channel(left.next().expect("a row for each channel left"));
                let first = *first.get_or_insert(samples[0]);
                samples.iter().all(|&x| x == first)
            });
        }
    }
    Ok(flat.into_iter().map(|(row, _)| info.channels[row].name.clone()).collect())
}
