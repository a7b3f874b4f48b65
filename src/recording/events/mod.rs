//! From events to conditions: which labels are classes, when each class was shown, and a condition for every timestep.

pub mod table;

use super::Event;
use crate::ensure;
use crate::error::{Error, Kind, Result};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// How long a condition is held from its onset, in seconds (the paper, section 1.1: an image is shown for 0.5 s).
pub const HOLD: f64 = 0.5;

/// An onset of a known class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trial {
    /// Timestep of the onset.
    pub onset: usize,
    /// The class, counted from 1; 0 stands for none and never occurs here.
    pub condition: u16,
}

/// Which labels are classes, and which condition each class is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ClassMap {
    /// Names of the classes: condition `i` is `names[i - 1]`.
    pub names: Vec<String>,
    /// The condition of each label; several labels may share one. Labels that are not here are no class.
    pub labels: BTreeMap<String, u16>,
}

impl ClassMap {
    /// Every distinct label becomes a class of its own name, unless it is in `exclude`. Classes are in numeric order
    /// where all labels are whole numbers, otherwise in alphabetical order. Several recordings must share one map:
    /// give the events of all of them.
    pub fn of_labels<'a>(events: impl IntoIterator<Item = &'a Event>, exclude: &[String]) -> Result<Self> {
        let labels = events.into_iter().map(|event| event.label.as_str());
        let labels: BTreeSet<&str> = labels.filter(|label| !exclude.iter().any(|e| e == label)).collect();
        let mut labels: Vec<&str> = labels.into_iter().collect();
        if labels.iter().all(|label| label.parse::<i64>().is_ok()) {
            labels.sort_by_key(|label| label.parse::<i64>().unwrap_or(i64::MAX));
        }
        let mut map = Self::default();
        labels.iter().try_for_each(|label| map.add(label, label))?;
        Ok(map)
    }

    /// Reads `1=face,2=house,3=house`: label, equals sign, class. Classes are numbered in the order they appear in.
    pub fn parse(text: &str) -> Result<Self> {
        Self::from_pairs(text.split(','))
    }

    /// What the user gave on the command line: the path of a file with one `label=class` on each line (empty lines and
    /// lines that begin with `#` do not count), or the pairs themselves.
    pub fn parse_or_read(text: &str) -> Result<Self> {
        if text.contains('=') {
            return Self::parse(text);
        }
        let path = Path::new(text);
        let content = std::fs::read_to_string(path).map_err(|e| {
            Error::io(e, "read the class map", path).hint("A class map is 1=face,2=house or a file of such lines")
        })?;
        let lines = content.lines().filter(|line| !line.trim().is_empty() && !line.trim_start().starts_with('#'));
        Self::from_pairs(lines).map_err(|e| e.at(path))
    }

    fn from_pairs<'a>(pairs: impl Iterator<Item = &'a str>) -> Result<Self> {
        let mut map = Self::default();
        for pair in pairs {
            let (label, class) = pair.split_once('=').map(|(l, c)| (l.trim(), c.trim())).unwrap_or_default();
            let hint = "Write label=class, as in 1=face,2=house";
            if label.is_empty() || class.is_empty() {
                return Err(Error::new(Kind::Usage, format!("\"{pair}\" is no class")).hint(hint));
            }
            let twice = map.labels.contains_key(label);
            ensure!(!twice, Kind::Usage, "the class map gives the label {label} twice");
            map.add(label, class)?;
        }
        Ok(map)
    }

    fn add(&mut self, label: &str, class: &str) -> Result<()> {
        let known = self.names.iter().position(|name| name == class);
        let index = known.unwrap_or_else(|| {
            self.names.push(class.to_string());
            self.names.len() - 1
        });
        let condition = u16::try_from(index + 1);
        let condition = condition.map_err(|_| {
            let what = format!("there are more than {} classes", u16::MAX);
            Error::new(Kind::UnknownCondition, what).hint("Name the labels that count with --classes")
        })?;
        self.labels.insert(label.to_string(), condition);
        Ok(())
    }

    /// The onsets of known classes, in order; events of other labels are left out.
    pub fn trials(&self, events: &[Event]) -> Vec<Trial> {
        let trial = |event: &Event| Some(Trial { onset: event.onset, condition: *self.labels.get(&event.label)? });
        events.iter().filter_map(trial).collect()
    }

    /// Labels of the map that none of the events carries: probably a mistake of the user's.
    pub fn unused<'a>(&self, events: impl IntoIterator<Item = &'a Event>) -> Vec<String> {
        let seen: BTreeSet<&str> = events.into_iter().map(|event| event.label.as_str()).collect();
        self.labels.keys().filter(|label| !seen.contains(label.as_str())).cloned().collect()
    }
}

/// How often each label occurs: the table to show to the user.
pub fn counts(events: &[Event]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for event in events {
        *counts.entry(event.label.clone()).or_insert(0) += 1;
    }
    counts
}

/// The condition of every timestep (the paper, section 1.1, step 5): that of the trial that began less than `hold`
/// seconds ago, else 0. Where trials overlap the later onset wins.
pub fn conditions(n_timestep: usize, sfreq: f64, trials: &[Trial], hold: f64) -> Vec<u16> {
    let held = (hold * sfreq).round() as usize;
    let mut series = vec![0; n_timestep];
    let mut sorted = trials.to_vec();
    sorted.sort_by_key(|trial| trial.onset);
    for trial in sorted {
        let end = trial.onset.saturating_add(held).min(n_timestep);
        series[trial.onset.min(end)..end].fill(trial.condition);
    }
    series
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(onset: usize, label: &str) -> Event {
        Event { onset, duration: 0, label: label.into() }
    }

    #[test]
    fn numeric_labels_are_classes_in_numeric_order() {
        let events = [event(0, "10"), event(5, "2"), event(9, "200"), event(12, "10")];
        let map = ClassMap::of_labels(&events, &["200".to_string()]).unwrap();
        assert_eq!(map.names, ["2", "10"]);
        let trials = map.trials(&events);
        let expected = [(0, 2), (5, 1), (12, 2)].map(|(onset, condition)| Trial { onset, condition });
        assert_eq!(trials, expected);
        assert_eq!(counts(&events)["10"], 2);
    }

    #[test]
    fn a_class_map_joins_labels_and_leaves_others_out() {
        let map = ClassMap::parse("5=face, 6=face,7=house").unwrap();
        assert_eq!(map.names, ["face", "house"]);
        let events = [event(1, "7"), event(2, "6"), event(3, "1")];
        let conditions: Vec<u16> = map.trials(&events).iter().map(|t| t.condition).collect();
        assert_eq!(conditions, [2, 1]);
        assert_eq!(map.unused(&events), ["5"]);
        for bad in ["face", "=face", "1=", "", "1=a,1=b"] {
            assert_eq!(ClassMap::parse(bad).unwrap_err().kind(), Kind::Usage, "{bad}");
        }
    }

    #[test]
    fn conditions_are_held_and_later_onsets_win() {
        let trials = [(8, 1), (2, 3), (4, 2)].map(|(onset, condition)| Trial { onset, condition });
        assert_eq!(conditions(10, 6.0, &trials, 0.5), [0, 0, 3, 3, 2, 2, 2, 0, 1, 1]);
        assert_eq!(conditions(3, 6.0, &[], 0.5), [0, 0, 0]);
        assert_eq!(conditions(3, 6.0, &[Trial { onset: 9, condition: 1 }], 0.5), [0, 0, 0]);
    }
}
