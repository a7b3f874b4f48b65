//! What osl-dynamics says of a state time course: fractional occupancy, lifetimes, intervals, switching rates.

use std::ops::Range;

/// The visits to one state, and what is said of them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StateSummary {
    /// Timesteps in the state over all timesteps.
    pub fractional_occupancy: f64,
    /// Length of every visit, s; those that the beginning or the end of a stretch cuts off are included.
    pub lifetimes: Vec<f64>,
    /// From the end of every visit to the beginning of the next to the same state, s.
    pub intervals: Vec<f64>,
    /// Beginnings of a visit in a second; a stretch that begins in the state begins no visit.
    pub switching_rate: f64,
}

impl StateSummary {
    /// Mean length of a visit, s; NaN without visits.
    pub fn mean_lifetime(&self) -> f64 {
        mean(&self.lifetimes)
    }

    /// Mean time between visits, s; NaN with fewer than two.
    pub fn mean_interval(&self) -> f64 {
        mean(&self.intervals)
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// The summary of every state of a course, whose stretches without gaps are `segments`; what lies in none does not count.
pub fn summarise(course: &[u8], segments: &[Range<usize>], n_state: usize, sfreq: f64) -> Vec<StateSummary> {
    let mut states = vec![StateSummary::default(); n_state];
    let mut n = 0;
    for segment in segments {
        n += segment.len();
        let course = &course[segment.clone()];
        let mut ends: Vec<Option<usize>> = vec![None; n_state];
        let mut start = 0;
        for visit in course.chunk_by(|a, b| a == b) {
            let (state, end) = (usize::from(visit[0]), start + visit.len());
            let summary = &mut states[state];
            summary.fractional_occupancy += visit.len() as f64;
            summary.lifetimes.push(visit.len() as f64 / sfreq);
            summary.switching_rate += f64::from(u8::from(start > 0));
            if let Some(before) = ends[state].replace(end) {
                summary.intervals.push((start - before) as f64 / sfreq);
            }
            start = end;
        }
    }
    for summary in &mut states {
        summary.fractional_occupancy /= n.max(1) as f64;
        summary.switching_rate *= sfreq / n.max(1) as f64;
    }
    states
}

#[cfg(test)]
mod tests {
    use super::*;

    /// osl-dynamics' definitions, by hand.
    #[test]
    fn a_course_by_hand() {
        // State 0: visits of 2, 1 and 1; 1: of 3 and 2; 2: of 1; 3: none. 10 Hz.
        let whole = std::slice::from_ref(&(0..10));
        let states = summarise(&[0, 0, 1, 1, 1, 0, 1, 1, 2, 0], whole, 4, 10.0);
        let got = |i: usize| (states[i].fractional_occupancy, states[i].lifetimes.clone(), states[i].intervals.clone());
        assert_eq!(got(0), (0.4, vec![0.2, 0.1, 0.1], vec![0.3, 0.3]));
        assert_eq!(got(1), (0.5, vec![0.3, 0.2], vec![0.1]));
        assert_eq!(got(2), (0.1, vec![0.1], vec![]));
        assert_eq!(got(3), (0.0, vec![], vec![]));
        // The visit at the very beginning is no onset.
        assert_eq!([0, 1, 2, 3].map(|i| states[i].switching_rate), [2.0, 2.0, 1.0, 0.0]);
        assert!((states[0].mean_lifetime() - 0.4 / 3.0).abs() < 1e-15 && states[3].mean_lifetime().is_nan());
        assert!(states[2].mean_interval().is_nan());
    }

    #[test]
    fn nothing_reaches_across_a_gap() {
        let states = summarise(&[0, 0, 0, 0, 1, 0], &[0..2, 2..4, 5..6], 2, 1.0);
        assert_eq!(states[0].lifetimes, [2.0, 2.0, 1.0]);
        assert!(states[0].intervals.is_empty() && states[0].switching_rate == 0.0);
        assert_eq!((states[0].fractional_occupancy, states[1].fractional_occupancy), (1.0, 0.0));
        assert!(summarise(&[], &[], 2, 1.0)[1].fractional_occupancy == 0.0);
    }
}
