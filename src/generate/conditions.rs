//! The condition series of a generated recording: which condition, if any, goes with each timestep.

use crate::error::{Error, Kind, Result};
use crate::random::{Purpose, word_at};
use crate::recording::Event;
use crate::train::numbering::known;

/// Where conditions come from. Timestep 0 is the first generated one; every timestep can be asked for by itself, so that
/// hours of signal need no memory and resuming needs no state.
#[derive(Debug, Clone, PartialEq)]
pub enum Series {
    /// No conditions: rest.
    None,
    /// The data's own series (paper, section 4), beginning at `start`; after its end it begins again.
    Data {
        /// The condition of every timestep of the part that the prompt is from, but for those that are excluded.
        series: Vec<u16>,
        /// The timestep of the data that follows the prompt.
        start: usize,
    },
    /// Trials of a table, sorted by onset; where they overlap, a later onset ends the earlier trial.
    Events(Vec<Trial>),
    /// For ever: a pause without condition, then a trial of a condition drawn uniformly, for each rollout anew.
    Random {
        /// Seed of the draws.
        seed: u64,
        /// Conditions to draw from, at least 1.
        n_condition: usize,
        /// Timesteps of a pause.
        pause: usize,
        /// Timesteps of a trial, at least 1.
        trial: usize,
    },
}

/// A stretch of one condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trial {
    /// First timestep.
    pub onset: usize,
    /// Timesteps.
    pub duration: usize,
    /// The condition, counted from 1.
    pub condition: u16,
}

impl Series {
    /// The series of an events table whose labels are names of `conditions`; events without a duration last `hold`
    /// timesteps.
    pub fn of_events(events: &[Event], conditions: &[String], hold: usize) -> Result<Self> {
        let mut trials = Vec::with_capacity(events.len());
        for event in events {
            let Some(index) = conditions.iter().position(|name| *name == event.label) else {
                let what = format!("the model knows no condition called \"{}\"", event.label);
                return Err(Error::new(Kind::UnknownCondition, what).hint(known("Its conditions are", conditions)));
            };
            let duration = if event.duration == 0 { hold } else { event.duration };
            trials.push(Trial { onset: event.onset, duration, condition: index as u16 + 1 });
        }
        trials.sort_by_key(|trial| trial.onset);
        Ok(Self::Events(trials))
    }

    /// The condition that goes with the token at `timestep` of `rollout`.
    pub fn at(&self, rollout: u64, timestep: usize) -> u16 {
        match self {
            Self::None => 0,
            Self::Data { series, start } => series[(start + timestep) % series.len()],
            Self::Events(trials) => {
                let begun = trials.partition_point(|trial| trial.onset <= timestep);
                match begun.checked_sub(1).map(|last| trials[last]) {
                    Some(trial) if timestep - trial.onset < trial.duration => trial.condition,
                    _ => 0,
                }
            }
            &Self::Random { seed, n_condition, pause, trial } => {
                let (block, within) = (timestep / (pause + trial), timestep % (pause + trial));
                if within < pause {
                    return 0;
                }
                let word = word_at(seed, Purpose::Conditions, rollout, block as u64);
                // The word's share of the conditions, rounded down: uniform to within 2⁻³² · n_condition.
                1 + ((u64::from(word) * n_condition as u64) >> 32) as u16
            }
        }
    }

    /// A short text that differs wherever the series do.
    pub fn fingerprint(&self) -> String {
        match self {
            Self::None => "none".into(),
            Self::Data { series, start } => {
                let crc = crc32c::crc32c(bytemuck::cast_slice(series));
                format!("data {crc:08x}, {} timesteps from {start} on", series.len())
            }
            Self::Events(trials) => {
                let crc = trials.iter().fold(0, |crc, trial| {
                    let numbers = [trial.onset as u64, trial.duration as u64, u64::from(trial.condition)];
                    crc32c::crc32c_append(crc, bytemuck::cast_slice(&numbers))
                });
                format!("events {crc:08x}, {} trials", trials.len())
            }
            Self::Random { seed, n_condition, pause, trial } => {
                format!("random {n_condition}, seed {seed}, {pause} + {trial} timesteps")
            }
        }
    }

    /// The trials of the first `n_timestep` timesteps as events: an event wherever a condition begins.
    pub fn events(&self, rollout: u64, n_timestep: usize, conditions: &[String]) -> Vec<Event> {
        let mut events: Vec<Event> = Vec::new();
        let mut previous = 0;
        for timestep in 0..n_timestep {
            let condition = self.at(rollout, timestep);
            match events.last_mut() {
                Some(event) if condition == previous && condition > 0 => event.duration += 1,
                _ if condition > 0 => {
                    let label = conditions[condition as usize - 1].clone();
                    events.push(Event { onset: timestep, duration: 1, label });
                }
                _ => {}
            }
            previous = condition;
        }
        events
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(n: usize) -> Vec<String> {
        (1..=n).map(|i| format!("image{i}")).collect()
    }

    fn row(series: &Series, n: usize) -> Vec<u16> {
        (0..n).map(|t| series.at(0, t)).collect()
    }

    fn event(onset: usize, duration: usize, label: &str) -> Event {
        Event { onset, duration, label: label.into() }
    }

    #[test]
    fn the_datas_series_goes_on_after_the_prompt_and_begins_again() {
        let series = Series::Data { series: vec![0, 1, 1, 0, 2], start: 3 };
        assert_eq!(row(&series, 9), [0, 2, 0, 1, 1, 0, 2, 0, 1]);
        let ends_with_the_data = Series::Data { series: vec![3, 0], start: 2 };
        assert_eq!(row(&ends_with_the_data, 3), [3, 0, 3]);
    }

    #[test]
    fn a_later_onset_ends_the_earlier_trial() {
        let events = [event(6, 0, "image2"), event(1, 4, "image1"), event(2, 1, "image3")];
        let series = Series::of_events(&events, &names(3), 2).unwrap();
        assert_eq!(row(&series, 9), [0, 1, 3, 0, 0, 0, 2, 2, 0]);
        let error = Series::of_events(&[event(0, 1, "face")], &names(2), 2).unwrap_err();
        assert_eq!(error.kind(), Kind::UnknownCondition);
        assert!(error.to_string().contains("image1, image2"), "{error}");
    }

    #[test]
    fn random_blocks_pause_hold_and_use_every_condition() {
        let series = Series::Random { seed: 4, n_condition: 5, pause: 3, trial: 2 };
        let mut seen = [0; 6];
        for block in 0..2000 {
            let conditions: Vec<u16> = (0..5).map(|t| series.at(1, block * 5 + t)).collect();
            assert_eq!(conditions[..3], [0, 0, 0]);
            assert_eq!(conditions[3], conditions[4]);
            seen[conditions[3] as usize] += 1;
        }
        // 2000 draws of five: 400 each, standard deviation 18.
        assert!(seen[0] == 0 && seen[1..].iter().all(|n| (310..490).contains(n)), "{seen:?}");
        let other = (0..500).filter(|&b| series.at(1, b * 5 + 3) != series.at(2, b * 5 + 3)).count();
        assert!(other > 300, "rollouts draw their own conditions");
    }

    #[test]
    fn events_are_the_stretches_of_the_series() {
        let series = Series::Data { series: vec![2, 2, 0, 1, 2, 0], start: 0 };
        let expected = [event(0, 2, "image2"), event(3, 1, "image1"), event(4, 1, "image2"), event(6, 2, "image2")];
        assert_eq!(series.events(0, 8, &names(2)), expected);
        assert!(Series::None.events(0, 8, &[]).is_empty());
    }
}
