//! What predictions are measured by, and the record of one step in `metrics.jsonl`.

use serde::{Deserialize, Deserializer, Serialize};

/// Means over targets, the same for a model and for the anchors it is held against.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Metrics {
    /// Cross-entropy in nats a token.
    #[serde(deserialize_with = "null_as_nan")]
    pub nats: f64,
    /// The same in bits.
    #[serde(deserialize_with = "null_as_nan")]
    pub bits: f64,
    /// Fraction of targets that were the most probable level.
    #[serde(deserialize_with = "null_as_nan")]
    pub top1: f64,
    /// Fraction of targets among the five most probable levels.
    #[serde(deserialize_with = "null_as_nan")]
    pub top5: f64,
    /// Squared difference between the most probable level's value and the target's, both in [−1, 1].
    #[serde(deserialize_with = "null_as_nan")]
    pub squared: f64,
    /// The same in z units: the channel's scaled units, before clipping's range was mapped to [−1, 1].
    #[serde(deserialize_with = "null_as_nan")]
    pub squared_z: f64,
}

/// Sums that become [`Metrics`].
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[expect(missing_docs, reason = "the names are those of Metrics")]
pub struct Sums {
    pub n_target: f64,
    pub nats: f64,
    pub top1: f64,
    pub top5: f64,
    pub squared: f64,
    pub squared_z: f64,
}

impl Sums {
    /// Adds another part's sums.
    pub fn add(&mut self, other: &Sums) {
        self.n_target += other.n_target;
        self.nats += other.nats;
        self.top1 += other.top1;
        self.top5 += other.top5;
        self.squared += other.squared;
        self.squared_z += other.squared_z;
    }

    /// The means over the targets; there must be some.
    pub fn metrics(&self) -> Metrics {
        let n = self.n_target;
        Metrics {
            nats: self.nats / n,
            bits: self.nats / n / std::f64::consts::LN_2,
            top1: self.top1 / n,
            top5: self.top5 / n,
            squared: self.squared / n,
            squared_z: self.squared_z / n,
        }
    }
}

/// One line of `metrics.jsonl`: what is a function of data, configuration and seed, and nothing of the clock, so that
/// the log of a resumed run equals that of an uninterrupted one byte for byte.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct StepRecord {
    /// The step, counted from 1.
    pub step: u64,
    /// Training loss in nats a token, before this step's update; null if it was not finite.
    #[serde(deserialize_with = "null_as_nan")]
    pub nats: f64,
    /// Learning rate.
    pub lr: f32,
    /// Euclidean norm of the gradient before clipping; null if it was not finite.
    #[serde(deserialize_with = "null_as_nan")]
    pub grad_norm: f64,
    /// False if loss or gradient was not finite and the update was skipped.
    pub applied: bool,
    /// On the steps that end with a validation, after the update.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub validation: Option<Metrics>,
}

/// JSON has no NaN: it is written as null.
fn null_as_nan<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::<f64>::deserialize(deserializer)?.unwrap_or(f64::NAN))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_survives_json_to_the_bit_and_nan_becomes_null() {
        let mut record = StepRecord {
            step: 3,
            nats: 5.123456789012345e-1,
            lr: 1e-4,
            grad_norm: 0.1 + 0.2,
            applied: true,
            validation: None,
        };
        let text = serde_json::to_string(&record).unwrap();
        assert_eq!(serde_json::from_str::<StepRecord>(&text).unwrap(), record);
        record.nats = f64::NAN;
        let text = serde_json::to_string(&record).unwrap();
        assert!(text.contains("\"nats\":null"), "{text}");
        assert!(serde_json::from_str::<StepRecord>(&text).unwrap().nats.is_nan());
    }

    #[test]
    fn means_are_sums_over_targets() {
        let mut sums = Sums { n_target: 1.0, nats: 2.0, top1: 1.0, ..Sums::default() };
        sums.add(&Sums { n_target: 3.0, nats: 2.0, squared: 8.0, ..Sums::default() });
        let metrics = sums.metrics();
        assert_eq!((metrics.nats, metrics.top1, metrics.squared), (1.0, 0.25, 2.0));
        assert!((metrics.bits - 1.0 / 2f64.ln()).abs() < 1e-15);
    }
}
