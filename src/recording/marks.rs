//! Stretches of signal that are marked: gaps in the acquisition, and what somebody has called bad.
//!
//! By MNE-Python's convention an annotation that begins with BAD marks signal not to be used, `BAD_ACQ_SKIP` a stretch
//! that was never acquired (it reads as zeros), and EDGE the place where two recordings were joined. As MNE's epochs do,
//! tokens leave marked stretches out: no window touches them, and no scale and no statistic is computed from them.

use super::{Block, Event, Info, Recording, Signal};
use crate::error::Result;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

/// The description that MNE-Python gives to a stretch that was not acquired.
pub const GAP: &str = "BAD_ACQ_SKIP";

/// Whether an annotation is about the signal, and not something that happened.
pub fn marks_signal(label: &str) -> bool {
    let begins = |with: &str| label.get(..with.len()).is_some_and(|start| start.eq_ignore_ascii_case(with));
    begins("BAD") || begins("EDGE")
}

/// The timesteps that events cover, at a rate `ratio` times that of the events: sorted, disjoint and not adjacent, none
/// empty (a mark without length is one timestep that cannot be crossed), all within `n_timestep`.
pub fn stretches<'a>(marks: impl IntoIterator<Item = &'a Event>, ratio: f64, n_timestep: usize) -> Vec<Range<usize>> {
    let stretch = |mark: &Event| {
        let start = (mark.onset as f64 * ratio).floor() as usize;
        let end = (mark.onset.saturating_add(mark.duration) as f64 * ratio).ceil() as usize;
        start.min(n_timestep)..end.max(start.saturating_add(1)).min(n_timestep)
    };
    let mut sorted: Vec<_> = marks.into_iter().map(stretch).filter(|stretch| !stretch.is_empty()).collect();
    sorted.sort_by_key(|stretch| stretch.start);
    let mut merged: Vec<Range<usize>> = Vec::new();
    for stretch in sorted {
        match merged.last_mut() {
            Some(last) if stretch.start <= last.end => last.end = last.end.max(stretch.end),
            _ => merged.push(stretch),
        }
    }
    merged
}

/// What `excluded` (sorted and disjoint) leaves of `range`, in order.
pub fn kept(range: Range<usize>, excluded: &[Range<usize>]) -> Vec<Range<usize>> {
    let mut kept = Vec::new();
    let mut start = range.start;
    for stretch in excluded.iter().filter(|stretch| stretch.start < range.end && stretch.end > range.start) {
        kept.push(start..stretch.start);
        start = stretch.end;
    }
    kept.push(start..range.end);
    kept.retain(|stretch| stretch.start < stretch.end);
    kept
}

/// What `excluded` covers of `range`, counted from the start of `range`.
pub fn within(range: &Range<usize>, excluded: &[Range<usize>]) -> Vec<Range<usize>> {
    let cut = |stretch: &Range<usize>| stretch.start.max(range.start)..stretch.end.min(range.end);
    let inside = excluded.iter().map(cut).filter(|stretch| stretch.start < stretch.end);
    inside.map(|stretch| stretch.start - range.start..stretch.end - range.start).collect()
}

/// What is known of a recording about timesteps `range` of it: events that begin there, counted from its start and cut at
/// its end.
pub fn cut(info: &Info, range: &Range<usize>) -> Info {
    let mut info = info.clone();
    info.n_timestep = range.len();
    info.first_timestep += range.start as u64;
    info.events.retain(|event| range.contains(&event.onset));
    for event in &mut info.events {
        event.duration = event.duration.min(range.end - event.onset);
        event.onset -= range.start;
    }
    info
}

/// Stretches of a recording, in order, each as a recording of its own: what [`kept`] leaves of it. Events that begin in a
/// piece are its own.
pub fn pieces(recording: Recording, stretches: Vec<Range<usize>>) -> Result<Vec<Recording>> {
    let info = recording.info.clone();
    let whole = Arc::new(Mutex::new(recording));
    let piece = |stretch: Range<usize>| {
        let (info, whole) = (cut(&info, &stretch), whole.clone());
        Recording::new(info, Box::new(Piece { whole, first: stretch.start }))
    };
    stretches.into_iter().map(piece).collect()
}

/// A stretch of a recording that others read other stretches of.
struct Piece {
    whole: Arc<Mutex<Recording>>,
    first: usize,
}

impl Signal for Piece {
    fn read(&mut self, start: usize, n_timestep: usize) -> Result<Block> {
        // A panic elsewhere leaves a recording as readable as it was.
        self.whole.lock().unwrap_or_else(PoisonError::into_inner).read(self.first + start, n_timestep)
    }
}

/// The recording with its gaps filled by straight lines.
///
/// The zeros of a gap would be two steps as high as a channel's offset, which a high-pass lets ring for seconds into the
/// signal on both sides. A line between the values beside the gap gives filters nothing to ring about. What is filled in
/// is still no signal: the gap stays marked.
pub fn bridge(recording: Recording, marks: &[Event]) -> Result<Recording> {
    let gaps = stretches(marks.iter().filter(|mark| mark.label == GAP), 1.0, recording.info.n_timestep);
    if gaps.is_empty() {
        return Ok(recording);
    }
    let info = recording.info.clone();
    Recording::new(info, Box::new(Bridged { inner: recording, gaps }))
}

struct Bridged {
    inner: Recording,
    gaps: Vec<Range<usize>>,
}

impl Signal for Bridged {
    fn read(&mut self, start: usize, n_timestep: usize) -> Result<Block> {
        let mut block = self.inner.read(start, n_timestep)?;
        let end = start + n_timestep;
        for gap in self.gaps.iter().filter(|gap| gap.start < end && gap.end > start) {
            let before = gap.start.checked_sub(1);
            let after = Some(gap.end).filter(|&after| after < self.inner.info.n_timestep);
            // At an end of the recording the one value there is goes on.
            let (Some(before), Some(after)) = (before.or(after), after.or(before)) else { continue };
            let (before, after) = (self.inner.read(before, 1)?, self.inner.read(after, 1)?);
            for channel in 0..block.n_channel {
                let (from, to) = (before.channel(channel)[0], after.channel(channel)[0]);
                let row = block.channel_mut(channel);
                for time in gap.start.max(start)..gap.end.min(end) {
                    let part = (time + 1 - gap.start) as f64 / (gap.len() + 1) as f64;
                    row[time - start] = from + part * (to - from);
                }
            }
        }
        Ok(block)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recording::testing::in_memory;

    fn mark(onset: usize, duration: usize, label: &str) -> Event {
        Event { onset, duration, label: label.into() }
    }

    #[test]
    fn labels() {
        for label in ["BAD", "bad blink", "Bad_muscle", "BAD_ACQ_SKIP", "EDGE boundary", "edge"] {
            assert!(marks_signal(label), "{label}");
        }
        for label in ["face", "ba", "", "é", "EDG", "not bad"] {
            assert!(!marks_signal(label), "{label}");
        }
    }

    #[test]
    fn stretches_are_merged_and_kept_is_the_rest() {
        let marks =
            [mark(50, 10, "BAD"), mark(0, 5, "BAD"), mark(55, 20, "BAD"), mark(90, 0, "EDGE"), mark(98, 50, "BAD")];
        let merged = stretches(&marks, 1.0, 100);
        assert_eq!(merged, [0..5, 50..75, 90..91, 98..100]);
        assert_eq!(kept(0..100, &merged), [5..50, 75..90, 91..98]);
        assert_eq!(kept(60..95, &merged), [75..90, 91..95]);
        assert!(kept(55..60, &merged).is_empty());
        assert_eq!(kept(10..80, &merged), [10..50, 75..80]);
        assert_eq!(within(&(60..95), &merged), [0..15, 30..31]);
        // To a tenth of the rate: whatever a mark touches is covered.
        assert_eq!(stretches(&marks, 0.1, 10), [0..1, 5..8, 9..10]);
        assert!(stretches(&[mark(200, 5, "BAD")], 1.0, 100).is_empty());
    }

    /// Every stretch of the bridged recording is the same as of the whole; gaps at both ends hold the value beside them.
    #[test]
    fn gaps_become_lines() {
        let x = [0.0, 0.0, 3.0, 5.0, 0.0, 0.0, 0.0, 9.0, 2.0, 0.0];
        let marks = [mark(0, 2, GAP), mark(4, 3, GAP), mark(9, 1, GAP), mark(2, 1, "BAD")];
        let wanted = [3.0, 3.0, 3.0, 5.0, 6.0, 7.0, 8.0, 9.0, 2.0, 2.0];
        let mut bridged = bridge(in_memory(&[&x, &x], 10.0), &marks).unwrap();
        for start in 0..10 {
            for n in 1..=10 - start {
                assert_eq!(bridged.read(start, n).unwrap().channel(1), &wanted[start..start + n], "{n} at {start}");
            }
        }
        let mut nothing = bridge(in_memory(&[&[0.0; 4]], 10.0), &[mark(0, 4, GAP)]).unwrap();
        assert_eq!(nothing.read(0, 4).unwrap().data, [0.0; 4]);
    }
}
