//! A data set as a model sees it: whether it is of the kind the model was trained on, and how the model counts its
//! subjects and conditions, which may come in another order, be fewer, or be others.

use super::checkpoint::DataMeta;
use super::config::TrainingConfig;
use super::labels::ConditionLabels;
use crate::error::{Error, Kind, Result};
use crate::tokens::dataset::Dataset;
use crate::tokens::shard::Shard;
use crate::tokens::window::Window;

/// The model's numbers for the subjects and conditions of a data set.
#[derive(Debug, Clone)]
pub struct Numbering {
    /// For each subject of the data.
    subjects: Vec<Option<usize>>,
    /// For each condition of the data, from the first named one on (0 is none, for everybody).
    conditions: Vec<Option<u16>>,
    /// Names for messages: the data's subjects and conditions, then the model's.
    names: [Vec<String>; 4],
    /// What stands in for the conditions of windows, and the seed of its draws.
    labels: (ConditionLabels, u64),
}

impl Numbering {
    /// Compares names.
    pub fn new(model: &DataMeta, dataset: &Dataset) -> Self {
        let place = |names: &[String], name: &String| names.iter().position(|known| known == name);
        let subjects = dataset.subjects.iter().map(|name| place(&model.subjects, name)).collect();
        let number = |name: &String| Some(place(&model.conditions, name)? as u16 + 1);
        let conditions = dataset.conditions.iter().map(number).collect();
        let names = [&dataset.subjects, &dataset.conditions, &model.subjects, &model.conditions].map(Vec::clone);
        Self { subjects, conditions, names, labels: (ConditionLabels::Data, 0) }
    }

    /// The same for windows that a model is trained or scored on, whose conditions are as its recipe has them.
    pub fn for_windows(model: &DataMeta, dataset: &Dataset, training: &TrainingConfig) -> Self {
        Self { labels: (training.condition_labels, training.seed), ..Self::new(model, dataset) }
    }

    /// The model's number of the subject of a shard; none if the model does not know it.
    pub fn subject(&self, dataset: &Dataset, shard: usize) -> Option<usize> {
        self.subjects[dataset.subject(shard)]
    }

    /// Replaces the data's numbers of conditions by the model's; an error names one that the model does not know.
    pub fn conditions(&self, series: &mut [u16]) -> Result<()> {
        for condition in series {
            if let Some(index) = condition.checked_sub(1) {
                let index = usize::from(index);
                let Some(number) = self.conditions[index] else {
                    let what = format!("the model knows no condition called \"{}\"", self.names[1][index]);
                    return Err(
                        Error::new(Kind::UnknownCondition, what).hint(known("Its conditions are", &self.names[3]))
                    );
                };
                *condition = number;
            }
        }
        Ok(())
    }

    /// Reads the conditions of a window, as the model counts them, and gives the model's number of its subject.
    pub fn read(&self, dataset: &Dataset, window: Window, conditions: &mut [u16]) -> Result<usize> {
        let shard = &dataset.shards[window.shard];
        let subject = self.subject(dataset, window.shard).ok_or_else(|| {
            let label = &self.names[0][dataset.subject(window.shard)];
            let what = format!("the model knows no subject \"{label}\"");
            Error::new(Kind::UnknownSubject, what).at(shard.path()).hint(known("Its subjects are", &self.names[2]))
        })?;
        shard.conditions(window.start, conditions)?;
        self.conditions(conditions).map_err(|e| e.at(shard.path()))?;
        let (labels, seed) = self.labels;
        labels.apply(seed, window, self.names[3].len(), conditions);
        Ok(subject)
    }
}

/// Checks that a shard is the like of what a model was trained on: channels, rate and tokenizer.
pub fn check_alike(data: &DataMeta, shard: &Shard) -> Result<()> {
    let (ours, theirs) = (&data.info, &shard.meta.info);
    let hint = "Give the data the model was trained on, or tokenize this recording the same way";
    let place = &shard.meta.recording;
    let (n, m) = (ours.n_channel(), theirs.n_channel());
    if n != m {
        let what = format!("the model has {n} channels, the data {m}");
        return Err(Error::new(Kind::ChannelMismatch, what).at(place).hint(hint));
    }
    if let Some((a, b)) = ours.channels.iter().zip(&theirs.channels).find(|(a, b)| a.name != b.name) {
        let what = format!("the model has the channel {} where the data has {}", a.name, b.name);
        return Err(Error::new(Kind::ChannelMismatch, what).at(place).hint(hint));
    }
    if (ours.sfreq - theirs.sfreq).abs() > 1e-6 * ours.sfreq {
        let what = format!("the model was trained at {} Hz, the data is at {} Hz", ours.sfreq, theirs.sfreq);
        return Err(Error::new(Kind::SamplingRate, what).at(place).hint(hint));
    }
    if data.scheme != shard.meta.scheme {
        let what = "the data was made by another tokenizer than the model's";
        return Err(Error::new(Kind::TokenizerMismatch, what).at(place).hint(hint));
    }
    Ok(())
}

/// A hint that lists names, the first few of many.
pub fn known(what: &str, names: &[String]) -> String {
    const SHOWN: usize = 12;
    match names.len() {
        0 => format!("{what} none at all"),
        n if n > SHOWN => format!("{what} {} … ({n} in all)", names[..SHOWN].join(", ")),
        _ => format!("{what} {}", names.join(", ")),
    }
}
