//! The section on evoked responses: numbers, table, files.

use super::figures;
use super::responses::{Averages, Chosen, Estimate, Likeness, N_DRAW, PEAK_SECONDS, Power, averages, likeness, power};
use crate::ensure;
use crate::error::{Kind, Result};
use crate::evaluate::arrays;
use crate::evaluate::epochs::{Epochs, WINDOW_SECONDS, labels};
use crate::evaluate::measure::{Scale, Source};
use crate::evaluate::section::{Section, Table};
use crate::evaluate::svg::escape;
use crate::evaluate::text::{listed, significant, unique_slug};
use crate::random::{Purpose, keyed};
use rand::seq::SliceRandom;
use serde_json::{Value, json};

/// Trials of each condition that an average is made of at least.
const TRIALS_MIN: usize = 2;

/// One set of trials beside the reference.
pub struct Entry {
    /// Name in figures.
    pub label: String,
    /// How alike its averages are to the reference's.
    pub likeness: Likeness,
    /// The size of its response.
    pub power: Power,
    /// Which trials.
    pub chosen: Chosen,
    /// Mean correlation between the averages of different conditions of its own.
    pub between: Option<f64>,
}

/// Everything that the section shows.
pub struct Evoked {
    /// Names of the channels.
    pub channels: Vec<String>,
    /// Names of the conditions.
    pub names: Vec<String>,
    /// Trials of each condition that are averaged on either side.
    pub n_trial: Vec<usize>,
    /// Trials of the real recording, of each generated one and of the reference at random times.
    pub epochs: Vec<Epochs>,
    /// The trials of the real recording that all others are compared with.
    pub reference: Chosen,
    /// The real recording's other trials, each generated recording, the real one with its conditions shuffled, the real one
    /// at random times; each with the index of its epochs.
    pub entries: Vec<(usize, Entry)>,
    /// Conditions left out, and why.
    pub missing: Vec<String>,
}

/// Timesteps of progress.
pub fn work(n_real: usize, generated: &[usize]) -> usize {
    2 * n_real + generated.iter().sum::<usize>()
}

/// Makes the section; the errors are those of what cannot be computed.
pub fn section(
    real: &mut Source,
    generated: &mut [Source],
    scale: &Scale,
    seed: u64,
    progress: &mut dyn FnMut(usize) -> Result<()>,
) -> Result<Section> {
    let found = compare(real, generated, scale, seed, progress)?;
    let mut drawn = vec![figures::sizes(&found), figures::channels(&found, seed)];
    drawn.extend(figures::matrices(&found));
    Ok(Section {
        id: "evoked",
        title: "Evoked responses".into(),
        text: text(&found),
        numbers: numbers(&found),
        figures: drawn,
        tables: vec![table(&found)],
        methods: vec![methods(&found)],
        files: files(&found),
        ..Section::default()
    })
}

fn compare(
    real: &mut Source,
    generated: &mut [Source],
    scale: &Scale,
    seed: u64,
    progress: &mut dyn FnMut(usize) -> Result<()>,
) -> Result<Evoked> {
    let all = labels(real);
    ensure!(!all.is_empty(), Kind::TooShort, "the real recording has no events to average over");
    let mut epochs = vec![Epochs::cut(real, scale, &all, progress)?];
    let mut missing = Vec::new();
    for source in generated.iter_mut() {
        let cut = Epochs::cut(source, scale, &all, progress)?;
        match cut.is_empty() {
            true => missing.push(format!("{} (it has no trial of the real recording’s conditions)", source.label)),
            false => epochs.push(cut),
        }
    }
    ensure!(epochs.len() > 1, Kind::TooShort, "no generated recording has a trial of the real recording's conditions");
    // As many trials of a condition on every side: an average of more trials is less noisy and correlates better.
    let count = |condition: usize| {
        let halves = epochs[0].of(condition).len() / 2;
        epochs[1..].iter().map(|e| e.of(condition).len()).fold(halves, usize::min)
    };
    let (kept, lost): (Vec<usize>, Vec<usize>) = (0..all.len()).partition(|&k| count(k) >= TRIALS_MIN);
    let why = |&k: &usize| {
        let counts: Vec<String> = epochs.iter().map(|e| format!("{} in {}", e.of(k).len(), e.label)).collect();
        format!("{} ({} trials)", all[k], listed(&counts))
    };
    missing.extend(lost.iter().map(why));
    let what = "no condition has four trials in the real recording and two in every generated one";
    ensure!(!kept.is_empty(), Kind::TooShort, "{what}: {}", missing.join("; "));
    let n_trial: Vec<usize> = kept.iter().map(|&k| count(k)).collect();
    // Every other trial, so that slow changes are in both halves.
    let half = |first: usize| -> Chosen {
        let trials = |(&k, &n): (&usize, &usize)| epochs[0].of(k).into_iter().skip(first).step_by(2).take(n).collect();
        kept.iter().zip(&n_trial).map(trials).collect()
    };
    let (reference, other) = (half(0), half(1));
    let mut sets: Vec<(usize, &str, Chosen)> = vec![(0, "real, other trials", other.clone())];
    for (index, epochs) in epochs.iter().enumerate().skip(1) {
        let first = |(&k, &n): (&usize, &usize)| epochs.of(k).into_iter().take(n).collect();
        sets.push((index, &epochs.label, kept.iter().zip(&n_trial).map(first).collect()));
    }
    if kept.len() > 1 {
        sets.push((0, "real, conditions shuffled", shuffled(&other, seed)));
    }
    let total = n_trial.iter().sum::<usize>();
    let anywhere = Epochs::cut_at_random(real, scale, total, seed, progress)?;
    let last = epochs.len();
    // Fewer than asked for where a window would reach across an end: the conditions share what there is.
    let share = |k: usize| (0..anywhere.len()).filter(|trial| trial % kept.len() == k).collect();
    sets.push((last, "real, at random times", (0..kept.len()).map(share).collect()));
    let named: Vec<(usize, String, Chosen)> = sets.into_iter().map(|(i, label, c)| (i, label.into(), c)).collect();
    epochs.push(anywhere);
    let entry = |(index, label, chosen): (usize, String, Chosen)| {
        let likeness = likeness((&epochs[0], &reference), (&epochs[index], &chosen), seed);
        let power = power(&epochs[index], &chosen, seed);
        let between = between(&averages(&epochs[index], &chosen), epochs[index].n_before);
        (index, Entry { label, likeness, power, chosen, between })
    };
    let entries = named.into_iter().filter(|(_, _, chosen)| chosen.iter().all(|c| !c.is_empty())).map(entry).collect();
    let names = kept.iter().map(|&k| all[k].clone()).collect();
    let channels = real.info().channels.iter().map(|channel| channel.name.clone()).collect();
    Ok(Evoked { channels, names, n_trial, epochs, reference, entries, missing })
}

/// The same trials with their conditions exchanged at random.
fn shuffled(chosen: &Chosen, seed: u64) -> Chosen {
    let mut all: Vec<usize> = chosen.concat();
    all.shuffle(&mut keyed(seed, Purpose::Bootstrap, u64::MAX - 1));
    let mut rest = all.into_iter();
    chosen.iter().map(|trials| rest.by_ref().take(trials.len()).collect()).collect()
}

/// Mean over channels and pairs of the correlation between the averages of two conditions.
fn between(averages: &Averages, from: usize) -> Option<f64> {
    use crate::evaluate::dynamics::matching::correlation;
    let all = &averages.conditions;
    let pairs = (0..all.len()).flat_map(|i| (0..i).map(move |j| (i, j)));
    let each: Vec<f64> =
        pairs.flat_map(|(i, j)| all[i].iter().zip(&all[j]).map(|(a, b)| correlation(&a[from..], &b[from..]))).collect();
    (!each.is_empty()).then(|| each.iter().sum::<f64>() / each.len() as f64)
}

fn text(found: &Evoked) -> Vec<String> {
    let mut text = vec![
        "What the onset of a condition does to the signal, on average. The correlation of a generated recording’s averages \
         with the real ones is bounded by that of the real recording’s other trials: averages of few trials are noisy, \
         and noise cannot be predicted. A model that ignores its condition has responses all the same, but their \
         condition-specific part is no better than with the conditions shuffled."
            .into(),
    ];
    if !found.missing.is_empty() {
        let list: Vec<String> = found.missing.iter().map(|m| escape(m)).collect();
        text.push(format!("<b>Left out</b>, for too few trials: {}.", list.join("; ")));
    }
    text
}

fn cell(e: &Estimate) -> String {
    format!("{}<br><small>{}&nbsp;…&nbsp;{}</small>", significant(e.value), significant(e.low), significant(e.high))
}

fn table(found: &Evoked) -> Table {
    let head =
        ["", "all trials", "each condition", "condition-specific", "between conditions", "peak (s)", "peak (SD)"];
    let row = |(_, e): &(usize, Entry)| {
        vec![
            escape(&e.label),
            cell(&e.likeness.pooled),
            cell(&e.likeness.conditions),
            e.likeness.specific.as_ref().map_or("–".into(), cell),
            e.between.map_or("–".into(), significant),
            cell(&e.power.latency),
            cell(&e.power.height),
        ]
    };
    Table {
        caption: "Correlation with the averages of the real recording’s first half of trials, mean over channels; between a \
                  recording’s own conditions; time and size of the largest response. In small print what 95 % of bootstrap \
                  draws of the trials give."
            .into(),
        head: head.map(String::from).to_vec(),
        rows: found.entries.iter().map(row).collect(),
    }
}

fn numbers(found: &Evoked) -> serde_json::Map<String, Value> {
    let entry = |(_, e): &(usize, Entry)| {
        json!({
            "label": e.label,
            "correlation_pooled": e.likeness.pooled,
            "correlation_pooled_channels": e.likeness.channels,
            "correlation_conditions": e.likeness.conditions,
            "correlation_condition_specific": e.likeness.specific,
            "correlation_matrix": e.likeness.matrix,
            "correlation_between_own_conditions": e.between,
            "peak_latency_s": e.power.latency,
            "peak_sd": e.power.height,
        })
    };
    let all = [
        ("conditions", json!(found.names)),
        ("n_trial", json!(found.n_trial)),
        ("left_out", json!(found.missing)),
        ("compared_with_real_first_half", found.entries.iter().map(entry).collect()),
    ];
    all.into_iter().map(|(key, value)| (key.to_string(), value)).collect()
}

/// The averages of all trials: `[condition, channel, time]`, in standard deviations of the real channels.
fn files(found: &Evoked) -> Vec<(String, Vec<u8>)> {
    let (mut files, mut taken) = (Vec::new(), Vec::new());
    let n = found.epochs.len() - 1;
    for (index, epochs) in found.epochs[..n].iter().enumerate() {
        let name = unique_slug(if index == 0 { "real" } else { &epochs.label }, &taken);
        let chosen: Chosen = match index {
            0 => {
                found.reference.iter().zip(&found.entries[0].1.chosen).map(|(a, b)| [&a[..], &b[..]].concat()).collect()
            }
            _ => found.entries[index].1.chosen.clone(),
        };
        let all = averages(epochs, &chosen).conditions;
        let shape = [all.len(), epochs.n_channel, epochs.n_time];
        files.push((format!("evoked/{name}.npy"), arrays::f32s(&shape, &all.concat().concat())));
        taken.push(name);
    }
    files.push(("evoked/times.npy".into(), arrays::f64s(&[found.epochs[0].n_time], &found.epochs[0].times())));
    files
}

fn methods(found: &Evoked) -> String {
    let total: usize = found.n_trial.iter().sum();
    format!(
        "<b>Evoked responses.</b> Trials from {} s before to {} s after an onset that lie within a piece of the recording, each \
         channel in standard deviations of the real one. All averages are of the same number of trials of a condition \
         ({} over {} conditions): the real recording’s 1st, 3rd, … trials are compared with its 2nd, 4th, … (the ceiling), \
         with the first ones of each generated recording, with its own 2nd, 4th, … under shuffled conditions, and with \
         windows at random times. <i>All trials</i>: for each channel Pearson’s correlation over 0 to {} s, without baseline \
         correction, of the means over conditions of the conditions’ averages; then the mean over channels. <i>Each \
         condition</i>: the same of each condition’s average, mean over conditions. <i>Condition-specific</i>: of each \
         condition’s average less the mean over conditions. <i>Between conditions</i>: of the averages of two conditions of \
         one recording, mean over pairs. The peak is the largest root mean square over channels of the mean response less its \
         mean before the onset, within {} s. The paper leaves these definitions open: they are ours. Intervals: {} draws of \
         every condition’s trials with replacement, on both sides (Efron 1979), moved so that their mean is the value, because draws are noisier than \
         what they are drawn from; that of the latency is not moved.",
        WINDOW_SECONDS.0,
        WINDOW_SECONDS.1,
        total,
        found.names.len(),
        WINDOW_SECONDS.1,
        PEAK_SECONDS,
        N_DRAW
    )
}
