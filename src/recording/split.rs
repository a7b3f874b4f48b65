//! Training, validation and test parts of a recording: three contiguous blocks of time.
//!
//! The rule is the paper's (section 1.1, step 6): the first four trials of each class are for validation, the next four
//! for testing, the rest for training; the three are then made contiguous by cutting at midpoints.

use super::events::Trial;
use crate::ensure;
use crate::error::{Kind, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ops::Range;

/// Trials of each class that validation gets, and again testing.
const HELD_OUT: usize = 4;
/// Trials each class needs for the split by trials: as many for training as validation and testing have each.
const NEEDED: usize = 3 * HELD_OUT;

/// Which timesteps belong to which part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parts {
    /// Training part.
    pub train: Range<usize>,
    /// Validation part.
    pub validation: Range<usize>,
    /// Test part.
    pub test: Range<usize>,
    /// How it came about.
    pub rule: Rule,
}

/// How a recording was split.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "by")]
pub enum Rule {
    /// By trial order: validation first, then testing, then training.
    Trials {
        /// Trials whose place in their class says one part and whose onset lies in another, because the classes do not
        /// come evenly mixed.
        n_misplaced: usize,
    },
    /// By time: the first 75 % for training, then 12.5 % for validation and 12.5 % for testing.
    Time {
        /// Why not by trials.
        why: String,
    },
}

impl std::fmt::Display for Rule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Trials { n_misplaced: 0 } => write!(f, "by trial order (4 validation, 4 test, the rest training)"),
            Self::Trials { n_misplaced } => write!(
                f,
                "by trial order (4 validation, 4 test, the rest training; {n_misplaced} trials fall into another part)"
            ),
            Self::Time { why } => write!(f, "by time (75 % training, 12.5 % validation, 12.5 % test), because {why}"),
        }
    }
}

/// Splits a recording of `n_timestep` timesteps by the order of its trials, or by time where that is impossible.
/// `class_names` are those of the class map: each needs twelve trials.
pub fn split(n_timestep: usize, trials: &[Trial], class_names: &[String]) -> Result<Parts> {
    ensure!(n_timestep >= 8, Kind::TooShort, "a recording of {n_timestep} timesteps cannot be split into three parts");
    match by_trials(n_timestep, trials, class_names) {
        Ok(split) => Ok(split),
        Err(why) => {
            let held_out = n_timestep / 8;
            let (first, second) = (n_timestep - 2 * held_out, n_timestep - held_out);
            let rule = Rule::Time { why };
            Ok(Parts { train: 0..first, validation: first..second, test: second..n_timestep, rule })
        }
    }
}

/// The split by trials, or why it cannot be had.
fn by_trials(n_timestep: usize, trials: &[Trial], class_names: &[String]) -> std::result::Result<Parts, String> {
    if trials.is_empty() {
        return Err("there are no trials".into());
    }
    let mut onsets: BTreeMap<u16, Vec<usize>> = (1..=class_names.len() as u16).map(|c| (c, Vec::new())).collect();
    for trial in trials {
        onsets.entry(trial.condition).or_default().push(trial.onset);
    }
    for (&condition, onsets) in &mut onsets {
        onsets.sort_unstable();
        if onsets.len() < NEEDED {
            let name = class_names.get(usize::from(condition) - 1).map_or("?", String::as_str);
            return Err(format!("class {name} has {} trials and needs {NEEDED}", onsets.len()));
        }
    }
    // The last onset before a cut and the first after it, over all classes; they may be in the wrong order when the
    // classes do not come evenly mixed, and the midpoint is then the best compromise.
    let cut = |n_before: usize| {
        let last = onsets.values().map(|onsets| onsets[n_before - 1]).max().unwrap_or(0);
        let first = onsets.values().map(|onsets| onsets[n_before]).min().unwrap_or(0);
        last.midpoint(first)
    };
    let (first, second) = (cut(HELD_OUT), cut(2 * HELD_OUT));
    if first == 0 || first >= second || second >= n_timestep {
        return Err("the trials leave a part of the split empty".into());
    }
    let part_at = |onset: usize| usize::from(onset >= first) + usize::from(onset >= second);
    let misplaced = |onsets: &Vec<usize>| {
        onsets.iter().enumerate().filter(|&(order, &onset)| part_at(onset) != (order / HELD_OUT).min(2)).count()
    };
    let n_misplaced = onsets.values().map(misplaced).sum();
    let rule = Rule::Trials { n_misplaced };
    Ok(Parts { validation: 0..first, test: first..second, train: second..n_timestep, rule })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trials(n: usize, n_class: u16) -> Vec<Trial> {
        (0..n).map(|i| Trial { onset: 100 + 50 * i, condition: (i % usize::from(n_class)) as u16 + 1 }).collect()
    }

    fn names(n: usize) -> Vec<String> {
        (1..=n).map(|i| format!("c{i}")).collect()
    }

    #[test]
    fn four_and_four_and_the_rest() {
        // Two classes that alternate, thirteen trials each: onsets 100, 150, …, 1350.
        let split = split(1500, &trials(26, 2), &names(2)).unwrap();
        // The last validation trial is number 7 (onset 450), the first test trial number 8 (onset 500).
        assert_eq!((split.validation, split.test, split.train), (0..475, 475..875, 875..1500));
        assert_eq!(split.rule, Rule::Trials { n_misplaced: 0 });
    }

    #[test]
    fn classes_one_after_the_other_are_cut_between() {
        let mut all = trials(12, 1);
        all.extend((0..12).map(|i| Trial { onset: 1000 + 50 * i, condition: 2 }));
        let split = split(2000, &all, &names(2)).unwrap();
        // Validation ends with class 2's fourth (1150), testing begins with class 1's fifth (300); then 1350 and 500.
        assert_eq!((split.validation.end, split.test.end), (725, 925));
        // 8 trials of class 1 and 8 of class 2 belong elsewhere.
        assert_eq!(split.rule, Rule::Trials { n_misplaced: 16 });
    }

    #[test]
    fn by_time_where_trials_do_not_do() {
        let by_time = |split: &Parts| (split.train.clone(), split.validation.clone(), split.test.clone());
        let bare = split(1000, &[], &[]).unwrap();
        assert_eq!(by_time(&bare), (0..750, 750..875, 875..1000));
        assert!(bare.rule.to_string().contains("no trials"));
        let few = split(1000, &trials(11, 1), &names(1)).unwrap();
        assert!(few.rule.to_string().contains("class c1 has 11 trials and needs 12"), "{}", few.rule);
        let absent = split(1000, &trials(12, 1), &names(2)).unwrap();
        assert!(absent.rule.to_string().contains("class c2 has 0 trials"), "{}", absent.rule);
        assert_eq!(split(7, &[], &[]).unwrap_err().kind(), Kind::TooShort);
    }

    #[test]
    fn the_parts_cover_everything_once() {
        for n_timestep in 8..100 {
            let Parts { train, validation, test, .. } = split(n_timestep, &[], &[]).unwrap();
            assert_eq!(
                (train.start, train.end, validation.end, test.end),
                (0, validation.start, test.start, n_timestep)
            );
            assert!(!validation.is_empty() && !test.is_empty());
        }
    }
}
