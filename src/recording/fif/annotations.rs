//! The annotations block: onsets and ends in seconds, descriptions, and the time that the onsets count from.

use super::constants::{block, kind};
use super::encode::Encoder;
use super::source::Source;
use super::tags::{Tree, join_names, split_names};
use crate::error::Result;
use crate::recording::{Event, Info};

/// What places an annotation on the recording's time axis.
pub(super) struct TimeAxis {
    /// Date of the acquisition's timestep 0, in seconds and microseconds.
    pub meas_date: Option<(i64, i64)>,
    /// Hz.
    pub sfreq: f64,
    /// Number that the acquisition gave the recording's first timestep.
    pub first_timestep: i64,
    /// The same as the file's own tag says it, which is without a skip before the first buffer.
    pub first_tagged: i64,
    /// Timesteps in the recording.
    pub n_timestep: usize,
}

impl TimeAxis {
    /// The event from `onset` to `end`, both in seconds from the recording's first timestep, cut to the recording;
    /// nothing if it lies outside.
    fn event(&self, onset: f64, end: f64, label: String) -> Option<Event> {
        let last = self.n_timestep as f64 / self.sfreq;
        if onset > last || end < 0.0 {
            return None;
        }
        let timestep = |seconds: f64| (seconds.clamp(0.0, last) * self.sfreq).round_ties_even() as usize;
        let (onset, end) = (timestep(onset), timestep(end));
        (onset < self.n_timestep).then(|| Event { onset, duration: end.saturating_sub(onset), label })
    }

    /// Seconds to add to an onset so that it counts from the recording's first timestep, as MNE understands it: onsets
    /// count from `origin`; without one, from the first timestep, unless the recording has no date either, and then
    /// from the acquisition's timestep 0.
    fn shift(&self, source: &Source, origin: Option<(i64, i64)>) -> Result<f64> {
        match (origin, self.meas_date) {
            (Some(origin), Some(date)) => {
                let since = (origin.0 as f64 - date.0 as f64) + (origin.1 - date.1) as f64 * 1e-6;
                Ok(since - self.first_timestep as f64 / self.sfreq)
            }
            (Some(_), None) => Err(source.corrupt("the annotations count from a date, but the recording has none")),
            (None, Some(_)) => Ok(0.0),
            (None, None) => Ok(-(self.first_tagged as f64) / self.sfreq),
        }
    }
}

/// The events of the first annotations block, in the order of the file.
pub(super) fn read(source: &Source, tree: &Tree, axis: &TimeAxis) -> Result<Vec<Event>> {
    let Some(block) = tree.find_all(block::MNE_ANNOTATIONS).next() else { return Ok(Vec::new()) };
    let seconds = |kind| block.tag(kind).filter(|t| t.size > 0).map(|t| t.numbers(source)).transpose();
    let onsets = seconds(kind::MNE_BASELINE_MIN)?.unwrap_or_default();
    let ends = seconds(kind::MNE_BASELINE_MAX)?.unwrap_or_default();
    let labels = match block.tag(kind::COMMENT) {
        Some(tag) => tag.text(source)?,
        None => String::new(),
    };
    // Counted before they are taken apart: a list of nothing but colons would need 24 times its length.
    let n_label = if labels.is_empty() { 0 } else { 1 + labels.matches(':').count() };
    if onsets.len() != ends.len() || onsets.len() != n_label {
        let what = format!("the annotations have {} onsets, {} ends and {n_label} labels", onsets.len(), ends.len());
        return Err(source.corrupt(what));
    }
    let origin = match seconds(kind::MEAS_DATE)?.as_deref() {
        None | Some([]) => None,
        Some([stamp]) => Some((stamp.trunc() as i64, (stamp.fract() * 1e6).round() as i64)),
        Some([seconds, microseconds, ..]) => Some((*seconds as i64, (*microseconds as i64).clamp(0, 999_999))),
    };
    let shift = if n_label == 0 { 0.0 } else { axis.shift(source, origin)? };
    let mut events = Vec::new();
    for ((onset, end), label) in onsets.iter().zip(&ends).zip(split_names(&labels)) {
        if !(onset + end + shift).is_finite() {
            return Err(source.corrupt(format!("annotation {label} reaches from {onset} s to {end} s")));
        }
        events.extend(axis.event(onset + shift, end + shift, label));
    }
    Ok(events)
}

/// Appends the annotations block. Onsets are written as float64 seconds since `meas_date`, because float32 seconds no
/// longer tell the timesteps of a recording of some hours apart.
pub(super) fn write(out: &mut Encoder, info: &Info, sfreq: f64, events: &[Event]) {
    if events.is_empty() {
        return;
    }
    let seconds = |timestep: usize| (info.first_timestep as f64 + timestep as f64) / sfreq;
    let onsets = events.iter().map(|e| seconds(e.onset));
    let ends = events.iter().map(|e| seconds(e.onset.saturating_add(e.duration)));
    // A list with one empty name cannot be told from an empty list.
    let labels = events.iter().map(|e| if e.label.is_empty() { "n/a" } else { e.label.as_str() });
    out.start_block(block::MNE_ANNOTATIONS);
    out.doubles(kind::MNE_BASELINE_MIN, onsets);
    out.doubles(kind::MNE_BASELINE_MAX, ends);
    out.text(kind::COMMENT, &join_names(labels));
    if let Some((seconds, microseconds)) = info.meas_date {
        out.doubles(kind::MEAS_DATE, [seconds as f64, microseconds as f64].into_iter());
    }
    out.end_block(block::MNE_ANNOTATIONS);
}
