//! The real tokens a generation begins with, and what goes with them: conditions, scales, sensors.

use super::conditions::Series;
use crate::ensure;
use crate::error::{Error, Kind, Result};
use crate::recording::Info;
use crate::tokens::dataset::Dataset;
use crate::tokens::scheme::Scales;
use crate::tokens::shard::{Shard, Split};
use crate::train::checkpoint::{Checkpoint, DataMeta};
use crate::train::numbering::{Numbering, check_alike, known};
use std::ops::Range;

/// The beginning of a generation.
#[derive(Debug, Clone)]
pub struct Prompt {
    /// [n_channel, n_prompt]
    pub tokens: Vec<u8>,
    /// `[n_prompt]`, the model's conditions.
    pub condition: Vec<u16>,
    /// The data's conditions from here on, as the model counts them.
    pub continued: Series,
    /// The model's index of the subject.
    pub subject: u32,
    /// What decodes the tokens.
    pub scales: Scales,
    /// Sensors and everything else the generated recording inherits.
    pub info: Info,
    /// The recording it is from.
    pub recording: String,
    /// True if the data holds nothing of the subject, so that the prompt is somebody else's.
    pub of_another: bool,
    /// Where in its part it begins, if not where it was asked for because something there is excluded.
    pub moved_to: Option<usize>,
}

/// Where a prompt is cut from.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    /// The part of a recording.
    pub split: Split,
    /// First timestep within the part.
    pub start: usize,
    /// Timesteps.
    pub n_prompt: usize,
}

/// The model's index of a subject given by label or, if no label is called that, by index.
pub fn find_subject(data: &DataMeta, text: &str) -> Result<usize> {
    let by_label = data.subjects.iter().position(|label| label == text);
    let by_index = || text.parse().ok().filter(|&index: &usize| index < data.subjects.len());
    by_label.or_else(by_index).ok_or_else(|| {
        let what = format!("the model knows no subject \"{text}\"");
        Error::new(Kind::UnknownSubject, what).hint(known("Its subjects are", &data.subjects))
    })
}

impl Prompt {
    /// Cuts a prompt from the first recording in the data that is of `subject` (an index of the model), or of anybody the
    /// model knows if none is given. If the data has nothing of that subject, the first recording has to do.
    pub fn cut(checkpoint: &Checkpoint, dataset: &Dataset, subject: Option<usize>, place: Place) -> Result<Self> {
        let data = &checkpoint.meta.data;
        let shards = dataset.split(place.split);
        let numbering = Numbering::new(data, dataset);
        let subject_of = |shard: usize| numbering.subject(dataset, shard);
        let of_subject = shards.iter().find(|&&shard| match subject {
            Some(subject) => subject_of(shard) == Some(subject),
            None => subject_of(shard).is_some(),
        });
        let Some(&shard) = of_subject.or(shards.first().filter(|_| subject.is_some())) else {
            let (what, hint) = match shards.first() {
                None => {
                    (format!("the data has no {} part", place.split.name()), "Choose another with --prompt-from".into())
                }
                Some(_) => (
                    "the model knows none of the data's subjects".into(),
                    known("Name one with --subject. The model's are", &data.subjects),
                ),
            };
            let kind = if shards.is_empty() { Kind::TooShort } else { Kind::UnknownSubject };
            return Err(Error::new(kind, what).hint(hint));
        };
        let subject_index = subject.or(subject_of(shard)).expect("one of the two was found");
        let shard_subject = subject_of(shard);
        let shard = &dataset.shards[shard];
        check_alike(data, shard)?;

        let of_another = shard_subject != Some(subject_index);
        let scales = if of_another { &checkpoint.scales[subject_index] } else { &shard.scales };
        let asked = place.start;
        let place = usable(shard, place)?;
        let (tokens, condition, continued) = read(&numbering, shard, place)?;
        let info = Info { subject: Some(data.subjects[subject_index].clone()), ..shard.meta.info.clone() };
        Ok(Self {
            tokens,
            condition,
            continued,
            subject: subject_index as u32,
            scales: scales.clone(),
            info,
            recording: shard.meta.recording.clone(),
            of_another,
            moved_to: (place.start != asked).then_some(place.start),
        })
    }
}

/// The first place from `place` on where nothing of the prompt is excluded.
fn usable(shard: &Shard, place: Place) -> Result<Place> {
    let Place { start, n_prompt, .. } = place;
    let (name, recording) = (place.split.name(), &shard.meta.recording);
    ensure!(
        start.saturating_add(n_prompt) <= shard.n_timestep(),
        Kind::TooShort,
        "the prompt needs {n_prompt} timesteps from {start} on, but the {name} part of {recording} has {}",
        shard.n_timestep()
    );
    let fits = |kept: &Range<usize>| kept.start.max(start).saturating_add(n_prompt) <= kept.end;
    let kept = shard.kept().into_iter().find(fits).ok_or_else(|| {
        let what = format!(
            "the prompt needs {n_prompt} timesteps together, and the {name} part of {recording} has none from {start} on \
             that are not interrupted by what is excluded (BAD, gaps)"
        );
        Error::new(Kind::TooShort, what).hint("Choose another place with --prompt-start or --prompt-from")
    })?;
    Ok(Place { start: kept.start.max(start), ..place })
}

/// Reads a prompt's tokens and the conditions of its whole part, without what is excluded: those are no conditions that
/// the model has met.
fn read(numbering: &Numbering, shard: &Shard, place: Place) -> Result<(Vec<u8>, Vec<u16>, Series)> {
    let Place { start, n_prompt, .. } = place;
    let end = start + n_prompt;
    let mut tokens = vec![0; shard.meta.info.n_channel() * n_prompt];
    for (channel, row) in tokens.chunks_exact_mut(n_prompt).enumerate() {
        shard.tokens(channel, start, row)?;
    }
    let mut series = vec![0; shard.n_timestep()];
    shard.conditions(0, &mut series)?;
    // The data may name its conditions in another order than the model, or have fewer.
    numbering.conditions(&mut series)?;
    let condition = series[start..end].to_vec();
    let kept = shard.kept();
    let before = kept.iter().map(|kept| kept.end.min(end).saturating_sub(kept.start)).sum();
    let series = kept.into_iter().flat_map(|kept| series[kept].to_vec()).collect();
    Ok((tokens, condition, Series::Data { series, start: before }))
}
