//! Events from trigger lines.

use super::{ChannelKind, Event, Info, Recording};
use crate::error::{Error, Kind, Result};
use std::collections::BTreeSet;

/// The rising steps of a trigger line: wherever its value (an integer, its sign ignored) becomes larger than it was,
/// an event labelled with the new value. The value that the line starts with is no event.
///
/// These are the events of `mne.find_events` with its defaults. Without `channel`, the line is `STI101`, or else
/// `STI 014`, or else all trigger channels together; the same step at the same timestep on several of them is one event.
pub fn events_from_stim(recording: &mut Recording, channel: Option<&str>) -> Result<Vec<Event>> {
    let lines = stim_channels(&recording.info, channel)?;
    let mut last: Vec<Option<i64>> = vec![None; lines.len()];
    let mut steps: BTreeSet<(usize, i64, i64)> = BTreeSet::new();
    let n_timestep = recording.info.n_timestep;
    for start in (0..n_timestep).step_by(Recording::BLOCK) {
        let block = recording.read_rows(&lines, start, Recording::BLOCK.min(n_timestep - start))?;
        for (line, last) in last.iter_mut().enumerate() {
            for (i, &sample) in block.channel(line).iter().enumerate() {
                let value = (sample as i64).saturating_abs();
                if let Some(before) = last.replace(value).filter(|&before| value > before) {
                    steps.insert((start + i, before, value));
                }
            }
        }
    }
    Ok(steps.into_iter().map(|(onset, _, value)| Event { onset, duration: 0, label: value.to_string() }).collect())
}

/// The rows to look at.
fn stim_channels(info: &Info, channel: Option<&str>) -> Result<Vec<usize>> {
    let named = |name: &str| info.channels.iter().position(|c| c.name == name);
    if let Some(name) = channel {
        let missing = || {
            let error = Error::new(Kind::ChannelMismatch, format!("no channel is called {name}")).at(&info.source);
            error.hint("gpt2meg info lists the trigger channels, with --json all of them")
        };
        return Ok(vec![named(name).ok_or_else(missing)?]);
    }
    if let Some(line) = named("STI101").or_else(|| named("STI 014")) {
        return Ok(vec![line]);
    }
    let stim = |i: &usize| info.channels[*i].kind == ChannelKind::Stim;
    let lines: Vec<usize> = (0..info.n_channel()).filter(stim).collect();
    if lines.is_empty() {
        let error = Error::new(Kind::ChannelMismatch, "the recording has no trigger channel").at(&info.source);
        return Err(error.hint("Take the events from annotations or from a BIDS table"));
    }
    Ok(lines)
}
