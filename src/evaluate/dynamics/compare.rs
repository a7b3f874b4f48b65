//! The states of the real recording in every other, and the states that each recording has by itself.

use super::components::Components;
use super::fit::{Fitted, fit, work as fit_work};
use super::hmm::courses;
use super::matching::{match_states, wasserstein};
use super::summary::{StateSummary, summarise};
use super::{Options, Series};
use crate::error::Result;
use crate::evaluate::battery::is_of_the_data;
use crate::evaluate::measure::{Scale, Source};
use crate::evaluate::surrogate::{Surrogate, surrogate};
use crate::statistics::quantile::median;
use std::ops::Range;

/// Seconds before and after an event that state-evoked curves show.
pub const EVOKED_SECONDS: (f64, f64) = (0.25, 1.0);

/// The states of one recording, or of a stretch of it.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Name in figures.
    pub label: String,
    /// A state each.
    pub states: Vec<StateSummary>,
    /// The state of each row of the stretch.
    pub course: Vec<u8>,
    /// Nats for each row.
    pub log_likelihood: f64,
    /// Share of the variance that its own components hold; only where it has its own.
    pub explained: Option<f64>,
    /// Mean change of each state's occupancy around events, `[state][time]`; none without events.
    pub evoked: Option<Vec<Vec<f64>>>,
    /// Why there is nothing of all this.
    pub missing: Option<String>,
}

/// A model and what it says of a whole recording, to be saved.
pub struct Inferred {
    /// The recording.
    pub label: String,
    /// Probability of each state in each row, `[row, state]`.
    pub alpha: Vec<f64>,
    /// The states of the whole recording.
    pub states: Vec<StateSummary>,
}

/// Everything that the section shows.
pub struct Dynamics {
    /// The model of the whole real recording.
    pub fitted: Fitted,
    /// What it was fitted to.
    pub components: Components,
    /// That model's states, over stretches of equal length: two of the real recording, one of each generated one, and the
    /// surrogates.
    pub applied: Vec<Entry>,
    /// Models of their own for the same stretches, the states in the order of the first one's.
    pub separate: Vec<Entry>,
    /// The real model's states in whole recordings: the real one, then the generated ones.
    pub inferred: Vec<Inferred>,
    /// Sampling rate, Hz.
    pub sfreq: f64,
    /// Number of generated recordings.
    pub n_generated: usize,
}

/// The surrogates that stand beside the generated recordings.
pub const REFERENCES: [Surrogate; 2] = [Surrogate::Phases, Surrogate::Channels];

/// The length, in timesteps, over which recordings are compared: that of the shortest generated one that is long enough for
/// a model of its own, and not more than half of the real one. Those that are shorter have no row then.
fn stretch(n_real: usize, generated: &[usize], options: &Options) -> usize {
    let least = (10 * options.n_state).max(2 * options.n_component) + options.n_lag - 1;
    let long_enough = generated.iter().copied().filter(|&n| n >= least).min();
    long_enough.or(generated.iter().copied().min()).unwrap_or(0).min(n_real / 2)
}

/// Timesteps read and iterated over at most: what `progress` adds up to.
pub fn work(n_real: usize, generated: &[usize], options: &Options) -> usize {
    let stretch = stretch(n_real, generated, options);
    let (n_reference, all) = (REFERENCES.len(), generated.iter().sum::<usize>());
    let one = n_real * 2 + fit_work(n_real, options) + n_reference * (n_real + stretch) + all;
    // Two stretches of the real recording, the generated ones, and the surrogates.
    let n_own = 2 + generated.len() + n_reference;
    let separate = 2 * (2 * n_real + all + n_reference * stretch) + n_own * fit_work(stretch, options);
    one + separate
}

/// The whole analysis. A generated recording that it cannot be made of is an entry that says why.
pub fn compare(
    real: &mut Source,
    generated: &mut [Source],
    scale: &Scale,
    options: &Options,
    progress: &mut dyn FnMut(usize) -> Result<()>,
) -> Result<Dynamics> {
    let (n, sfreq) = (real.n_timestep(), real.info().sfreq);
    let lengths: Vec<usize> = generated.iter().map(Source::n_timestep).collect();
    let stretch = stretch(n, &lengths, options);
    let size = (options.n_lag, options.n_component);
    let components = Components::fit(real, scale, 0..n, size, progress)?;
    let series = components.series(real, scale, 0..n, progress)?;
    let fitted = fit(&series, options, progress)?;
    let halves = [0..stretch, n / 2..n / 2 + stretch];
    let context = Context { sfreq, n_state: options.n_state };
    let (mut applied, mut inferred) = (Vec::new(), Vec::new());
    let whole = context.infer(&fitted, &series, real);
    for (range, name) in halves.iter().zip(["real, one stretch", "real, another"]) {
        applied.push(context.entry(name, &whole, &series, range.clone()));
    }
    inferred.push(context.inferred("real", whole, &series));
    drop(series);
    // Of the second stretch: what chance does to the ceiling it does to them, too.
    let mut references = Vec::new();
    for kind in REFERENCES {
        references.push(surrogate(real, halves[1].clone(), kind, options.seed, progress)?);
    }
    let n_generated = generated.len();
    for (index, source) in generated.iter_mut().chain(&mut references).enumerate() {
        let series = components.series(source, scale, 0..source.n_timestep(), progress)?;
        let label = source.label.clone();
        let whole = context.infer(&fitted, &series, source);
        applied.push(match too_short(source, stretch) {
            Some(why) => Entry::missing(&label, why),
            None => context.entry(&label, &whole, &series, 0..stretch),
        });
        if index < n_generated {
            inferred.push(context.inferred(&label, whole, &series));
        }
    }
    let mut separate = Vec::new();
    let mut first: Option<(Fitted, Components)> = None;
    for (index, range) in halves.iter().enumerate() {
        let (entry, found) = context.own(real, scale, range.clone(), options, first.as_ref(), progress)?;
        separate.push(Entry { label: applied[index].label.clone(), ..entry });
        first.get_or_insert(found);
    }
    for source in generated.iter_mut().chain(&mut references) {
        if let Some(why) = too_short(source, stretch) {
            separate.push(Entry::missing(&source.label, why));
            continue;
        }
        separate.push(match context.own(source, scale, 0..stretch, options, first.as_ref(), progress) {
            Ok((entry, _)) => entry,
            // What is wrong with one recording takes nothing from the others.
            Err(e) if is_of_the_data(&e) => Entry::missing(&source.label, e.to_string()),
            Err(e) => return Err(e),
        });
    }
    Ok(Dynamics { fitted, components, applied, separate, inferred, sfreq, n_generated })
}

/// In words, that a recording is shorter than what is compared.
fn too_short(source: &Source, stretch: usize) -> Option<String> {
    let n = source.n_timestep();
    (n < stretch).then(|| format!("it has {n} timesteps, fewer than a model of its own needs"))
}

/// What all recordings share.
struct Context {
    sfreq: f64,
    n_state: usize,
}

/// A model's view of a series.
struct Whole {
    alpha: Vec<f64>,
    course: Vec<u8>,
    log_likelihood: f64,
    /// Onsets of events, in timesteps over all pieces.
    onsets: Vec<usize>,
}

impl Context {
    fn infer(&self, fitted: &Fitted, series: &Series, source: &Source) -> Whole {
        let posterior = fitted.hmm.posterior(series);
        let course = courses(&posterior.states, self.n_state);
        let log_likelihood = posterior.log_likelihood / series.len().max(1) as f64;
        Whole { alpha: posterior.states, course, log_likelihood, onsets: source.onsets() }
    }

    /// The part of a view that lies in a range of timesteps.
    fn entry(&self, label: &str, whole: &Whole, series: &Series, range: Range<usize>) -> Entry {
        let cut = |(rows, centre): (&Range<usize>, &usize)| {
            let inside = |t: usize| rows.start + t.saturating_sub(*centre).min(rows.len());
            inside(range.start)..inside(range.end)
        };
        let segments: Vec<Range<usize>> =
            series.segments.iter().zip(&series.centres).map(cut).filter(|rows| !rows.is_empty()).collect();
        Entry {
            label: label.into(),
            states: summarise(&whole.course, &segments, self.n_state, self.sfreq),
            course: segments.iter().flat_map(|rows| whole.course[rows.clone()].iter().copied()).collect(),
            log_likelihood: whole.log_likelihood,
            explained: None,
            evoked: self.evoked(whole, series),
            missing: None,
        }
    }

    fn inferred(&self, label: &str, whole: Whole, series: &Series) -> Inferred {
        let states = summarise(&whole.course, &series.segments, self.n_state, self.sfreq);
        Inferred { label: label.into(), alpha: whole.alpha, states }
    }

    /// A model of a stretch's own, its states in the order of those of `first`.
    fn own(
        &self,
        source: &mut Source,
        scale: &Scale,
        range: Range<usize>,
        options: &Options,
        first: Option<&(Fitted, Components)>,
        progress: &mut dyn FnMut(usize) -> Result<()>,
    ) -> Result<(Entry, (Fitted, Components))> {
        let size = (options.n_lag, options.n_component);
        let components = Components::fit(source, scale, range.clone(), size, progress)?;
        let series = components.series(source, scale, range.clone(), progress)?;
        let fitted = fit(&series, options, progress)?;
        let whole = self.infer(&fitted, &series, source);
        let mut entry = self.entry(&source.label, &whole, &series, range);
        if let Some((other, others)) = first {
            let order = match_states((&other.hmm, others), (&fitted.hmm, &components));
            entry.states = order.iter().map(|&state| entry.states[state].clone()).collect();
            entry.evoked = entry.evoked.map(|curves| order.iter().map(|&state| curves[state].clone()).collect());
            let place = |state: &u8| order.iter().position(|&s| s == usize::from(*state)).expect("a state") as u8;
            entry.course = entry.course.iter().map(place).collect();
        }
        entry.explained = Some(components.explained());
        Ok((entry, (fitted, components)))
    }

    /// The mean of each state's course around events, less its mean before them.
    fn evoked(&self, whole: &Whole, series: &Series) -> Option<Vec<Vec<f64>>> {
        let steps = |seconds: f64| (seconds * self.sfreq).round() as usize;
        let (before, after) = (steps(EVOKED_SECONDS.0), steps(EVOKED_SECONDS.1));
        let mut curves = vec![vec![0.0; before + after]; self.n_state];
        let mut n = 0usize;
        for onset in &whole.onsets {
            let within = |(rows, centre): &(&Range<usize>, &usize)| {
                **centre + before <= *onset && onset + after <= **centre + rows.len()
            };
            let Some((rows, centre)) = series.segments.iter().zip(&series.centres).find(within) else { continue };
            let from = rows.start + onset - before - centre;
            for (at, &state) in whole.course[from..from + before + after].iter().enumerate() {
                curves[usize::from(state)][at] += 1.0;
            }
            n += 1;
        }
        for curve in &mut curves {
            curve.iter_mut().for_each(|x| *x /= n as f64);
            let base = curve[..before].iter().sum::<f64>() / before.max(1) as f64;
            curve.iter_mut().for_each(|x| *x -= base);
        }
        (n > 0).then_some(curves)
    }
}

/// What states differ by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Distance {
    /// |difference| of fractional occupancies.
    Occupancy,
    /// Wasserstein distance of the lifetimes, s; a state that is never visited counts as one of lifetime 0.
    Lifetime,
    /// |difference| of switching rates, Hz.
    Switching,
}

impl Distance {
    /// State by state; no numbers where an entry is missing.
    pub fn between(self, a: &Entry, b: &Entry) -> Vec<f64> {
        match a.missing.is_some() || b.missing.is_some() {
            true => vec![f64::NAN; a.states.len().max(b.states.len())],
            false => self.between_states(&a.states, &b.states),
        }
    }

    /// The same of states alone.
    pub fn between_states(self, a: &[StateSummary], b: &[StateSummary]) -> Vec<f64> {
        let visits = |s: &StateSummary| if s.lifetimes.is_empty() { vec![0.0] } else { s.lifetimes.clone() };
        let of = |(a, b): (&StateSummary, &StateSummary)| match self {
            Self::Occupancy => (a.fractional_occupancy - b.fractional_occupancy).abs(),
            Self::Lifetime => wasserstein(&visits(a), &visits(b)),
            Self::Switching => (a.switching_rate - b.switching_rate).abs(),
        };
        a.iter().zip(b).map(of).collect()
    }
}

impl Entry {
    /// Of a recording that has not what is needed.
    fn missing(label: &str, why: String) -> Self {
        Self {
            label: label.into(),
            states: Vec::new(),
            course: Vec::new(),
            log_likelihood: f64::NAN,
            explained: None,
            evoked: None,
            missing: Some(why),
        }
    }

    /// All visits to all states, s.
    pub fn lifetimes(&self) -> Vec<f64> {
        self.states.iter().flat_map(|state| state.lifetimes.iter().copied()).collect()
    }

    /// The median over states of a property that is a number.
    pub fn typical(&self, of: impl Fn(&StateSummary) -> f64) -> f64 {
        median(self.states.iter().map(of).filter(|x| x.is_finite())).unwrap_or(f64::NAN)
    }
}
