//! How sure distances of hidden states are: of blocks of the courses, drawn with replacement.

use super::Options;
use super::compare::{Distance, Entry};
use super::summary::StateSummary;
use crate::evaluate::bootstrap::{N_DRAW, blocks, centred, drawn};
use crate::evaluate::section::{Interval, Intervals, Spread};
use rayon::prelude::*;

/// The visits of one block of a course, for each state.
#[derive(Clone)]
struct Block {
    n_timestep: usize,
    /// Timesteps in the state, of the block.
    within: Vec<usize>,
    /// Visits that begin in the block, but for one at the beginning of the course.
    begun: Vec<usize>,
    /// Lengths of the visits that begin in the block, s: whole, also where they end in another.
    lifetimes: Vec<Vec<f64>>,
}

/// The blocks of an entry's course; none where it is too short or missing.
fn cut(entry: &Entry, sfreq: f64) -> Option<Vec<Block>> {
    let n_state = entry.states.len();
    let ranges = blocks(entry.course.len(), sfreq).filter(|_| entry.missing.is_none())?;
    let empty = |n_timestep| Block {
        n_timestep,
        within: vec![0; n_state],
        begun: vec![0; n_state],
        lifetimes: vec![Vec::new(); n_state],
    };
    let mut all: Vec<Block> = ranges.iter().map(|range| empty(range.len())).collect();
    for (block, range) in all.iter_mut().zip(&ranges) {
        entry.course[range.clone()].iter().for_each(|&state| block.within[usize::from(state)] += 1);
    }
    let mut start = 0;
    for visit in entry.course.chunk_by(|a, b| a == b) {
        let block = &mut all[ranges.partition_point(|range| range.end <= start)];
        let state = usize::from(visit[0]);
        block.begun[state] += usize::from(start > 0);
        block.lifetimes[state].push(visit.len() as f64 / sfreq);
        start += visit.len();
    }
    Some(all)
}

/// What a course of these blocks would be.
fn together(blocks: &[Block], chosen: &[usize], sfreq: f64) -> Vec<StateSummary> {
    let n: usize = chosen.iter().map(|&block| blocks[block].n_timestep).sum();
    let of = |state: usize| {
        let sum = |of: &dyn Fn(&Block) -> usize| chosen.iter().map(|&block| of(&blocks[block])).sum::<usize>() as f64;
        StateSummary {
            fractional_occupancy: sum(&|block| block.within[state]) / n as f64,
            switching_rate: sum(&|block| block.begun[state]) * sfreq / n as f64,
            lifetimes: chosen.iter().flat_map(|&block| blocks[block].lifetimes[state].iter().copied()).collect(),
            intervals: Vec::new(),
        }
    };
    (0..blocks[0].within.len()).map(of).collect()
}

/// The intervals of a distance between the first entry and each other: the second is the ceiling.
pub fn intervals(entries: &[Entry], distance: Distance, sfreq: f64, options: &Options) -> Option<Intervals> {
    let cuts: Vec<Option<Vec<Block>>> = entries.iter().map(|entry| cut(entry, sfreq)).collect();
    let reference = cuts[0].as_ref()?;
    let interval = |index: usize| -> Option<Interval> {
        let other = cuts[index].as_ref()?;
        let median = |draw: usize| {
            let of = |blocks: &[Block], recording| {
                together(blocks, &drawn(blocks.len(), options.seed, recording, draw), sfreq)
            };
            Spread::of(distance.between_states(&of(reference, 0), &of(other, index))).median
        };
        let draws = (0..N_DRAW).into_par_iter().map(median).collect();
        centred(Spread::of(distance.between(&entries[0], &entries[index])).median, draws)
    };
    let generated = (2..entries.len()).map(interval).collect();
    Some(Intervals { ceiling: interval(1), generated, references: Vec::new() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(course: Vec<u8>) -> Entry {
        let states = super::super::summary::summarise(&course, std::slice::from_ref(&(0..course.len())), 3, 10.0);
        Entry {
            label: String::new(),
            states,
            course,
            log_likelihood: 0.0,
            explained: None,
            evoked: None,
            missing: None,
        }
    }

    #[test]
    fn blocks_together_are_the_course() {
        let course: Vec<u8> = (0..1234).map(|t| ((t / 7 + t / 31) % 3) as u8).collect();
        let entry = entry(course);
        let blocks = cut(&entry, 10.0).unwrap();
        let all = together(&blocks, &(0..blocks.len()).collect::<Vec<_>>(), 10.0);
        for (got, want) in all.iter().zip(&entry.states) {
            assert_eq!((got.fractional_occupancy, &got.lifetimes), (want.fractional_occupancy, &want.lifetimes));
            assert!((got.switching_rate - want.switching_rate).abs() < 1e-12);
        }
        assert!(cut(&Entry { missing: Some("x".into()), ..entry.clone() }, 10.0).is_none());
        assert!(cut(&super::tests::entry(vec![0; 599]), 10.0).is_none());
    }

    #[test]
    fn other_courses_lie_apart_and_alike_ones_do_not() {
        let course = |length: usize, shift: usize| -> Vec<u8> {
            let jitter = |t: usize| (t * 7919 % 13) / 5;
            (0..4000).map(|t| (((t + shift) / length + jitter((t + shift) / 50)) % 3) as u8).collect()
        };
        let entries = [course(9, 0), course(9, 371), course(9, 700), course(30, 0)].map(entry);
        let options = Options { seed: 3, ..Options::default() };
        let found = intervals(&entries, Distance::Lifetime, 10.0, &options).unwrap();
        let (ceiling, alike, other) =
            (found.ceiling.unwrap(), found.generated[0].unwrap(), found.generated[1].unwrap());
        assert!(other.low > ceiling.high && other.low > alike.high, "{found:?}");
        assert!(alike.low < ceiling.high, "{found:?}");
    }
}
