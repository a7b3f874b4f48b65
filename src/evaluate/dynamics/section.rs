//! The section on hidden states: numbers, tables, files.

use super::Options;
use super::compare::{Distance, Dynamics, Entry, Inferred, compare};
use super::figures;
use super::intervals::intervals;
use super::summary::StateSummary;
use crate::error::Result;
use crate::evaluate::arrays;
use crate::evaluate::measure::{Scale, Source};
use crate::evaluate::section::{Measure, Section, Spread, Table};
use crate::evaluate::svg::escape;
use crate::evaluate::text::{brief, significant, unique_slug};
use serde_json::{Value, json};

/// Makes the section; the errors are those of what cannot be computed.
pub fn section(
    real: &mut Source,
    generated: &mut [Source],
    scale: &Scale,
    options: &Options,
    progress: &mut dyn FnMut(usize) -> Result<()>,
) -> Result<Section> {
    let found = compare(real, generated, scale, options, progress)?;
    let (id, title) = names(options);
    let columns: Vec<String> = found.applied[2..].iter().map(|entry| entry.label.clone()).collect();
    let mut drawn = vec![
        figures::statistics(
            &found.applied,
            "Each point is one of the states of the real recording’s model, in every recording.",
        ),
        figures::statistics(
            &found.separate,
            "As above, but each recording has components and a model of its own. Where all states are alike, the \
                             points of a recording lie together: the sign of a process without states.",
        ),
        figures::lifetimes(&found),
        figures::courses(&found),
    ];
    drawn.extend(figures::evoked(&found));
    Ok(Section {
        id,
        title: title.into(),
        columns,
        over: "states",
        text: text(&found),
        measures: measures(&found, options),
        numbers: numbers(&found, options),
        figures: drawn,
        tables: vec![table(&found)],
        methods: vec![methods(&found, options)],
        files: files(&found, id),
        ..Section::default()
    })
}

/// Anchor and heading.
pub fn names(options: &Options) -> (&'static str, &'static str) {
    match options.n_lag {
        1 => ("hmm-time-domain", "Hidden states, without embedding"),
        _ => ("hmm", "Hidden states"),
    }
}

fn measures(found: &Dynamics, options: &Options) -> Vec<Measure> {
    let of = |key, name, unit, entries: &[Entry], distance: Distance| {
        let from_first = |entry: &Entry| Spread::of(distance.between(&entries[0], entry));
        let generated = entries[2..].iter().map(from_first).collect();
        let intervals = intervals(entries, distance, found.sfreq, options);
        Measure { key, name, unit, ceiling: from_first(&entries[1]), generated, references: Vec::new(), intervals }
    };
    let (applied, separate) = (&found.applied, &found.separate);
    vec![
        of("lifetimes", "States: Wasserstein distance of lifetimes", "s", applied, Distance::Lifetime),
        of("occupancy", "States: |difference| of occupancy", "", applied, Distance::Occupancy),
        of("switching", "States: |difference| of switching rate", "Hz", applied, Distance::Switching),
        of("own_lifetimes", "Own states: Wasserstein distance of lifetimes", "s", separate, Distance::Lifetime),
        of("own_occupancy", "Own states: |difference| of occupancy", "", separate, Distance::Occupancy),
        of("own_switching", "Own states: |difference| of switching rate", "Hz", separate, Distance::Switching),
    ]
}

fn text(found: &Dynamics) -> Vec<String> {
    let percent = |entry: &Entry| format!("{} %", brief(100.0 * entry.explained.unwrap_or(f64::NAN)));
    let (real, others) = (&found.separate[0], &found.separate[2..]);
    let shares: Vec<String> = others
        .iter()
        .filter(|e| e.missing.is_none())
        .map(|e| format!("{} of {}", percent(e), escape(&e.label)))
        .collect();
    vec![
        "Activity comes in states: patterns of rhythms and their distribution over the head that last some tenths of a \
         second and return. A hidden Markov model finds them in the real recording; then it says which of them is on in \
         each generated recording, and each recording is given a model of its own."
            .into(),
        format!(
            "{} components hold {} of the variance of a stretch of the real recording (of the embedded channels), {}.",
            found.components.n_component,
            percent(real),
            shares.join(", ")
        ),
        "<b>Two references.</b> With its phases randomised the real recording keeps its spectra and all correlations of its \
         channels but has no states: a measure that cannot tell it from the real one says nothing about dynamics. With its \
         channels shifted in time against each other it keeps the dynamics of every channel but nothing that channels have \
         in common: a model that generates each channel by itself cannot come closer than that, but for chance and what \
         the shared conditions bring. Both are made of another stretch of the real recording than the one that everything \
         is held against."
            .into(),
    ]
}

fn table(found: &Dynamics) -> Table {
    let head =
        ["", "occupancy", "lifetime (s)", "interval (s)", "switching (Hz)", "variance held", "ln p for a timestep"];
    let range = |entry: &Entry, of: fn(&StateSummary) -> f64| {
        let finite = || entry.states.iter().map(of).filter(|x| x.is_finite());
        let (low, high) = (finite().fold(f64::INFINITY, f64::min), finite().fold(f64::NEG_INFINITY, f64::max));
        format!(
            "{}<br><small>{}&nbsp;…&nbsp;{}</small>",
            significant(entry.typical(of)),
            significant(low),
            significant(high)
        )
    };
    let row = |entry: &Entry, how: &str| {
        let why = entry.missing.as_ref().map_or(String::new(), |why| format!("; not computed: {}", escape(why)));
        vec![
            format!("{}<br><small>{how}{why}</small>", escape(&entry.label)),
            range(entry, |s| s.fractional_occupancy),
            range(entry, StateSummary::mean_lifetime),
            range(entry, StateSummary::mean_interval),
            range(entry, |s| s.switching_rate),
            entry.explained.map_or("–".into(), |share| format!("{} %", brief(100.0 * share))),
            significant(entry.log_likelihood),
        ]
    };
    let applied = found.applied.iter().map(|entry| row(entry, "the real model"));
    let separate = found.separate.iter().map(|entry| row(entry, "a model of its own"));
    Table {
        caption: "States: median over states, the smallest and the largest in small print.".into(),
        head: head.map(String::from).to_vec(),
        rows: applied.chain(separate).collect(),
    }
}

fn described(entry: &Entry) -> Value {
    let each = |of: fn(&StateSummary) -> f64| entry.states.iter().map(of).collect::<Vec<f64>>();
    json!({
        "label": entry.label,
        "fractional_occupancy": each(|s| s.fractional_occupancy),
        "mean_lifetime_s": each(StateSummary::mean_lifetime),
        "mean_interval_s": each(StateSummary::mean_interval),
        "switching_rate_hz": each(|s| s.switching_rate),
        "explained_variance": entry.explained,
        "log_likelihood_per_timestep": entry.log_likelihood,
        "not_computed": entry.missing,
    })
}

fn numbers(found: &Dynamics, options: &Options) -> serde_json::Map<String, Value> {
    let all = [
        ("n_state", json!(options.n_state)),
        ("n_lag", json!(options.n_lag)),
        ("n_component", json!(found.components.n_component)),
        ("explained_variance", json!(found.components.explained())),
        ("converged", json!(found.fitted.converged)),
        ("objective", json!(found.fitted.objective)),
        ("real_model", found.applied.iter().map(described).collect()),
        ("own_models", found.separate.iter().map(described).collect()),
    ];
    all.into_iter().map(|(key, value)| (key.to_string(), value)).collect()
}

/// Arrays under the names that osl-dynamics uses.
fn files(found: &Dynamics, id: &str) -> Vec<(String, Vec<u8>)> {
    let (hmm, mut files) = (&found.fitted.hmm, Vec::new());
    let (k, d) = (hmm.n_state, hmm.n_dim);
    let mut put = |name: String, bytes: Vec<u8>| files.push((format!("{id}/{name}"), bytes));
    put("real/inf_params/covs.npy".into(), arrays::f64s(&[k, d, d], &hmm.covariances.concat()));
    put("real/inf_params/means.npy".into(), arrays::f64s(&[k, d], &hmm.means));
    put("real/inf_params/initial_state_probs.npy".into(), arrays::f64s(&[k], &hmm.initial));
    put("real/inf_params/trans_prob.npy".into(), arrays::f64s(&[k, k], &hmm.transition));
    let width = found.components.directions.len() / d;
    put("real/inf_params/pca_components.npy".into(), arrays::f64s(&[width, d], &found.components.directions));
    let mut taken: Vec<String> = Vec::new();
    for Inferred { label, alpha, states } in &found.inferred {
        let name = unique_slug(label, &taken);
        put(format!("{name}/inf_params/alp.npy"), arrays::f32s(&[alpha.len() / k, k], alpha));
        let each = |of: fn(&StateSummary) -> f64| arrays::f64s(&[k], &states.iter().map(of).collect::<Vec<_>>());
        put(format!("{name}/summary_stats/fo.npy"), each(|s| s.fractional_occupancy));
        put(format!("{name}/summary_stats/lt.npy"), each(StateSummary::mean_lifetime));
        put(format!("{name}/summary_stats/intv.npy"), each(StateSummary::mean_interval));
        put(format!("{name}/summary_stats/sr.npy"), each(|s| s.switching_rate));
        taken.push(name);
    }
    files
}

fn methods(found: &Dynamics, options: &Options) -> String {
    let embedded = match options.n_lag {
        1 => "The channels themselves".to_string(),
        n => format!("Every timestep is embedded with its neighbours ({n} lags of every channel)"),
    };
    let means = if options.means { "a mean" } else { "mean zero" };
    format!(
        "<b>Hidden states.</b> {embedded}, each channel in standard deviations of the real one; {} principal components, each \
         standardised; a hidden Markov model of {} states with {means} and a full covariance each, fitted by Baum–Welch on \
         all timesteps ({} beginnings from random stretches, the best after six iterations finished, at most {} iterations or \
         until one gains less than 10⁻⁴ nats a timestep; {} here). A covariance is drawn to that of all timesteps as if one \
         more had been seen with it. The state of a timestep is the one with the highest posterior. As in osl-dynamics: \
         fractional occupancy is the share of timesteps in a state, mean lifetime the mean length of its visits (those cut \
         off at the ends included), mean interval the mean time between the end of a visit and the beginning of the next, \
         switching rate the number of visits begun in a second. Distances are state by state, over stretches of one length, \
         to the first stretch of the real recording; their intervals are of blocks of the courses drawn with replacement, visits going with \
         the block that they begin in; lifetimes by the Wasserstein-1 distance, a state that is never visited \
         counting as one of lifetime 0. States of models fitted separately are matched by the assignment (Kuhn 1955) with \
         the largest sum of correlations between their covariances, turned into the coordinates of the first stretch’s \
         components, each less the mean over states. The random phases are common to all channels (Prichard and Theiler \
         1994). The real recording’s model has seen both of its stretches, so that ceiling is a little too good.",
        found.components.n_component,
        options.n_state,
        options.n_init,
        options.max_iter,
        if found.fitted.converged { "it converged" } else { "it did not converge" },
    )
}
