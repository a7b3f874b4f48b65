//! What stands in for the data's conditions while a model is trained and scored: the paper's ablations (section 6.3).

use crate::random::{Purpose, word_at};
use crate::tokens::window::Window;
use serde::{Deserialize, Serialize};

/// Where the labels of conditions come from. When something is on is always the data's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum ConditionLabels {
    /// The data.
    #[default]
    Data,
    /// In every window, each condition that occurs is replaced by a random one: the model learns that something was shown,
    /// and cannot learn what.
    Random,
    /// Every condition is replaced by the first: the model never hears that there are several.
    One,
}

impl ConditionLabels {
    /// Whether they are the data's: what runs that are older than the choice have.
    pub fn is_data(&self) -> bool {
        *self == Self::Data
    }

    /// Replaces the conditions of a window, of which there are `n_condition` and none (0). The same window always gets the
    /// same labels, in training and in validation; another that overlaps it gets its own.
    pub fn apply(self, seed: u64, window: Window, n_condition: usize, conditions: &mut [u16]) {
        match self {
            Self::Data => {}
            Self::One => conditions.iter_mut().for_each(|condition| *condition = (*condition).min(1)),
            Self::Random => {
                // A recording has fewer timesteps than 2^44, and a data set fewer than 2^20 shards.
                let index = ((window.shard as u64) << 44) | window.start as u64;
                for condition in conditions.iter_mut().filter(|condition| **condition > 0) {
                    let word = word_at(seed, Purpose::ConditionLabels, index, u64::from(*condition));
                    *condition = 1 + ((u64::from(word) * n_condition as u64) >> 32) as u16;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(labels: ConditionLabels, start: usize, conditions: &[u16]) -> Vec<u16> {
        let mut conditions = conditions.to_vec();
        labels.apply(3, Window { shard: 1, start }, 5, &mut conditions);
        conditions
    }

    #[test]
    fn timing_stays_and_identity_goes() {
        let data = [0, 2, 2, 0, 5, 5, 0, 2, 1];
        assert_eq!(applied(ConditionLabels::Data, 0, &data), data);
        assert_eq!(applied(ConditionLabels::One, 0, &data), [0, 1, 1, 0, 1, 1, 0, 1, 1]);
        let mut counts = [[0; 6]; 6];
        for start in 0..4000 {
            let random = applied(ConditionLabels::Random, start, &data);
            assert_eq!(random, applied(ConditionLabels::Random, start, &data));
            assert!(data.iter().zip(&random).all(|(a, b)| (*a == 0) == (*b == 0) && *b <= 5));
            // The same condition gets the same label throughout a window.
            assert!(random[1] == random[2] && random[1] == random[7] && random[4] == random[5]);
            counts[usize::from(random[1])][usize::from(random[4])] += 1;
        }
        // Uniform and independent: 160 for each pair, standard deviation 12.4.
        assert!(counts[1..].iter().all(|row| row[1..].iter().all(|n| (85..235).contains(n))), "{counts:?}");
    }
}
