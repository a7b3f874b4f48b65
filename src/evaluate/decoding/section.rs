//! The section on decoding: learning curves, confusions, numbers.

use super::lda::Lda;
use super::network::{Network, Options};
use super::trials::{COMPONENTS, Filters, SECONDS, whole};
use super::{Labelled, accuracy};
use crate::ensure;
use crate::error::{Kind, Result};
use crate::evaluate::chart::{Axis, Chart};
use crate::evaluate::epochs::{Epochs, labels};
use crate::evaluate::evoked::figures::matrix;
use crate::evaluate::measure::{Scale, Source};
use crate::evaluate::panels::PAIR;
use crate::evaluate::section::{Figure, Layout, Section, Table, series};
use crate::evaluate::svg::escape;
use crate::evaluate::text::{brief, listed};
use crate::random::{Purpose, keyed};
use rand::seq::SliceRandom;
use serde_json::{Value, json};

/// Shares of the real training trials that a learning curve has; 0 is none of them.
const FRACTIONS: [f64; 5] = [0.0, 0.1, 0.25, 0.5, 1.0];
/// Real trials of a condition that decoding needs: one to test with and four to learn from.
const TRIALS_MIN: usize = 5;
/// Trials of a condition that a decoder learns from at least: shares with fewer have no number.
const LEARNT_MIN: usize = 2;
/// Conditions of which confusions are drawn at most.
const CONDITIONS_MAX: usize = 20;

/// One decoder, trained and tested.
struct Tested {
    /// Share of the real training trials it has seen.
    fraction: f64,
    /// What it said of each test trial.
    found: Vec<usize>,
}

/// A learning curve.
struct Curve {
    label: String,
    decoder: &'static str,
    tested: Vec<Tested>,
}

/// Everything that the section shows.
struct Decoding {
    names: Vec<String>,
    test: Vec<usize>,
    curves: Vec<Curve>,
    n_train: usize,
    n_generated: Vec<(String, usize)>,
    missing: Vec<String>,
}

/// Timesteps of progress.
pub fn work(n_real: usize, generated: &[usize]) -> usize {
    n_real + generated.iter().sum::<usize>()
}

/// Makes the section; with options for the network, that too.
pub fn section(
    real: &mut Source,
    generated: &mut [Source],
    scale: &Scale,
    network: Option<&Options>,
    seed: u64,
    progress: &mut dyn FnMut(usize) -> Result<()>,
) -> Result<Section> {
    let found = decode(real, generated, scale, network, seed, progress)?;
    Ok(Section {
        id: "decoding",
        title: "Decoding".into(),
        text: text(&found),
        numbers: numbers(&found),
        figures: std::iter::once(learning(&found)).chain(confusions(&found)).collect(),
        tables: vec![table(&found)],
        methods: vec![methods(network)],
        ..Section::default()
    })
}

fn decode(
    real: &mut Source,
    generated: &mut [Source],
    scale: &Scale,
    network: Option<&Options>,
    seed: u64,
    progress: &mut dyn FnMut(usize) -> Result<()>,
) -> Result<Decoding> {
    let all = labels(real);
    let first = Epochs::cut(real, scale, &all, progress)?;
    let (mut others, mut missing) = (Vec::new(), Vec::new());
    for source in generated.iter_mut() {
        others.push(Epochs::cut(source, scale, &all, progress)?);
    }
    let kept: Vec<usize> = (0..all.len()).filter(|&k| first.of(k).len() >= TRIALS_MIN).collect();
    let few = (0..all.len())
        .filter(|k| !kept.contains(k))
        .map(|k| format!("{} (fewer than {TRIALS_MIN} real trials)", all[k]));
    missing.extend(few);
    ensure!(
        kept.len() > 1,
        Kind::TooShort,
        "fewer than two conditions have {TRIALS_MIN} real trials: nothing to tell apart"
    );
    // Of each condition the first fifth is for testing (the paper, section 6.1).
    let trials = |k: usize| {
        let trials = first.of(k);
        let cut = trials.len().div_ceil(5);
        (trials[..cut].to_vec(), trials[cut..].to_vec())
    };
    let test_trials: Vec<usize> = kept.iter().flat_map(|&k| trials(k).0).collect();
    let train_trials: Vec<Vec<usize>> = kept.iter().map(|&k| trials(k).1).collect();
    let n_of =
        |trials: &Vec<usize>, fraction: f64| ((trials.len() as f64 * fraction).ceil() as usize).min(trials.len());
    let share = |fraction: f64| -> Vec<usize> {
        train_trials.iter().flat_map(|trials| trials[..n_of(trials, fraction)].to_vec()).collect()
    };
    let enough = |fraction: f64| train_trials.iter().all(|trials| n_of(trials, fraction) >= LEARNT_MIN);
    let fractions: Vec<f64> = FRACTIONS.into_iter().filter(|&f| f == 0.0 || enough(f)).collect();
    let renamed = |mut rows: Labelled| {
        rows.labels.iter_mut().for_each(|label| *label = kept.iter().position(|k| k == label).unwrap_or(usize::MAX));
        rows
    };
    let known = |rows: Labelled| {
        let inside: Vec<usize> = (0..rows.len()).filter(|&i| rows.labels[i] != usize::MAX).collect();
        rows.pick(&inside)
    };
    let filters = Filters::fit(&first, &share(1.0));
    let features = renamed(filters.features(&first));
    let test = features.pick(&test_trials);
    let n_class = kept.len();
    let lda = |train: &Labelled, fraction| {
        let lda = Lda::fit(train, n_class);
        lda.is_finite().then(|| Tested { fraction, found: lda.predict(&test) })
    };
    let real_only = fractions[1..].iter().filter_map(|&f| lda(&features.pick(&share(f)), f)).collect();
    let mut curves = vec![Curve { label: "real trials alone".into(), decoder: "LDA", tested: real_only }];
    let mut n_generated = Vec::new();
    let mut usable = Vec::new();
    for epochs in &others {
        let theirs = learnable(known(renamed(filters.features(epochs))), n_class);
        n_generated.push((epochs.label.clone(), theirs.len()));
        let classes = (0..n_class).filter(|class| theirs.labels.contains(class)).count();
        if classes < 2 {
            missing.push(format!("{} (fewer than two conditions have {LEARNT_MIN} trials)", epochs.label));
            continue;
        }
        usable.push(epochs);
        let with = |f: f64| if f > 0.0 { theirs.and(&features.pick(&share(f))) } else { theirs.clone() };
        let tested = fractions.iter().filter_map(|&f| lda(&with(f), f)).collect();
        curves.push(Curve { label: epochs.label.clone(), decoder: "LDA", tested });
    }
    let mut shuffled = features.pick(&share(1.0));
    shuffled.labels.shuffle(&mut keyed(seed, Purpose::Decoder, u64::MAX));
    let chance = Curve {
        label: "real, conditions shuffled".into(),
        decoder: "LDA",
        tested: lda(&shuffled, 1.0).into_iter().collect(),
    };
    if let Some(options) = network {
        let rows = renamed(whole(&first));
        let size = (first.n_channel, rows.n_feature / first.n_channel);
        let test = rows.pick(&test_trials);
        let mut tick = || progress(0);
        // Validation decides when to stop, and must not be the test: every fifth of the training trials.
        let split = |trials: &[usize]| -> (Labelled, Labelled) {
            let part = |last: bool| {
                trials.iter().enumerate().filter(|(i, _)| (i % 5 == 4) == last).map(|(_, &t)| t).collect::<Vec<_>>()
            };
            (rows.pick(&part(false)), rows.pick(&part(true)))
        };
        let mut curve = |label: &str, begun: &Network, fractions: &[f64]| -> Result<Curve> {
            let mut tested = Vec::new();
            for &fraction in fractions {
                let mut network = begun.clone();
                if fraction > 0.0 {
                    let (train, validation) = split(&share(fraction));
                    network.train(&train, &validation, options, seed, &mut tick)?;
                }
                tested.push(Tested { fraction, found: network.predict(&test) });
            }
            Ok(Curve { label: label.into(), decoder: "network", tested })
        };
        let new = Network::new(size, n_class, options, seed);
        curves.push(curve("real trials alone", &new, &fractions[1..])?);
        for epochs in usable {
            let theirs = learnable(known(renamed(whole(epochs))), n_class);
            let part = |last: bool| (0..theirs.len()).filter(|i| (i % 5 == 4) == last).collect::<Vec<_>>();
            let mut begun = new.clone();
            let (train, validation) = (theirs.pick(&part(false)), theirs.pick(&part(true)));
            begun.train(&train, &validation, options, seed, &mut || Ok(()))?;
            curves.push(curve(&epochs.label, &begun, &fractions)?);
        }
    }
    curves.push(chance);
    let names = kept.iter().map(|&k| all[k].clone()).collect();
    Ok(Decoding { names, test: test.labels, curves, n_train: share(1.0).len(), n_generated, missing })
}

/// The rows of classes that have enough of them to learn from.
fn learnable(rows: Labelled, n_class: usize) -> Labelled {
    let mut counts = vec![0; n_class];
    rows.labels.iter().for_each(|&label| counts[label] += 1);
    let kept: Vec<usize> = (0..rows.len()).filter(|&i| counts[rows.labels[i]] >= LEARNT_MIN).collect();
    rows.pick(&kept)
}

/// The interval of a share `x` of `n` (Wilson 1927), 95 %.
fn wilson(x: f64, n: usize) -> (f64, f64) {
    let (n, z) = (n.max(1) as f64, 1.96);
    let centre = (x + z * z / (2.0 * n)) / (1.0 + z * z / n);
    let half = z / (1.0 + z * z / n) * (x * (1.0 - x) / n + z * z / (4.0 * n * n)).sqrt();
    ((centre - half).max(0.0), (centre + half).min(1.0))
}

fn text(found: &Decoding) -> Vec<String> {
    let counts: Vec<String> = found.n_generated.iter().map(|(label, n)| format!("{n} of {}", escape(label))).collect();
    let mut text = vec![
        "A decoder learns to tell conditions apart, from real trials, from generated ones, or from generated ones and then some \
         real ones; it is always tested on real trials that it has not learnt from. What it can do with generated trials alone is \
         what the model knows of the conditions; whether they help where real trials are few is what they are good for."
            .into(),
        "The <em>decoder</em> has not seen the test trials; the <em>generative model</em> may have. They are the first fifth of \
         each condition’s trials of the real recording as it was given, and where that model was trained on parts of it, what \
         decoders do with generated trials may be better than it would be with a recording that was kept from the model."
            .into(),
        format!(
            "{} conditions, {} real trials to learn from and {} to test with; generated trials: {}. Chance is {} %.",
            found.names.len(),
            found.n_train,
            found.test.len(),
            listed(&counts),
            brief(100.0 / found.names.len() as f64)
        ),
    ];
    if !found.missing.is_empty() {
        let list: Vec<String> = found.missing.iter().map(|m| escape(m)).collect();
        text.push(format!("<b>Left out</b>: {}.", list.join("; ")));
    }
    text
}

/// What a curve's decoders were trained on, in words.
fn trained_on(curve: &Curve) -> String {
    match curve.label.as_str() {
        label if label.starts_with("real") => label.into(),
        label => format!("{label}, then real trials"),
    }
}

fn table(found: &Decoding) -> Table {
    let n = found.test.len();
    let cell = |tested: &Tested| {
        let x = accuracy(&tested.found, &found.test);
        let (low, high) = wilson(x, n);
        let percent = |x: f64| brief(100.0 * x);
        format!("{} %<br><small>{}&nbsp;…&nbsp;{}</small>", percent(x), percent(low), percent(high))
    };
    let row = |curve: &Curve| {
        let at = |f: &f64| curve.tested.iter().find(|tested| tested.fraction == *f).map_or("–".into(), cell);
        let name = format!("{}<br><small>{}</small>", escape(&trained_on(curve)), curve.decoder);
        std::iter::once(name).chain(FRACTIONS.iter().map(at)).collect()
    };
    let head = |f: &f64| if *f == 0.0 { "no real trials".into() } else { format!("{} % of them", brief(100.0 * f)) };
    Table {
        caption: "Accuracy on real trials that no decoder has learnt from (the generative model may have), by the share of the \
                  other real trials that it has; in small print its 95 % interval (Wilson 1927). – where that share has fewer \
                  than two trials of a condition."
            .into(),
        head: std::iter::once(String::new()).chain(FRACTIONS.iter().map(head)).collect(),
        rows: found.curves.iter().map(row).collect(),
    }
}

fn numbers(found: &Decoding) -> serde_json::Map<String, Value> {
    let n = found.test.len();
    let tested = |t: &Tested| {
        let x = accuracy(&t.found, &found.test);
        let (low, high) = wilson(x, n);
        json!({"fraction_of_real": t.fraction, "accuracy": x, "low": low, "high": high,
               "confusion": confusion(&t.found, &found.test, found.names.len())})
    };
    let curve = |c: &Curve| json!({"label": c.label, "decoder": c.decoder, "tested": c.tested.iter().map(tested).collect::<Vec<_>>()});
    let all = [
        ("conditions", json!(found.names)),
        ("chance", json!(1.0 / found.names.len() as f64)),
        ("n_test", json!(n)),
        ("n_train", json!(found.n_train)),
        ("left_out", json!(found.missing)),
        ("curves", found.curves.iter().map(curve).collect()),
    ];
    all.into_iter().map(|(key, value)| (key.to_string(), value)).collect()
}

/// Test trials by their condition (row) and what was said of them (column).
fn confusion(found: &[usize], truth: &[usize], n_class: usize) -> Vec<Vec<usize>> {
    let mut counts = vec![vec![0; n_class]; n_class];
    found.iter().zip(truth).for_each(|(&said, &is)| counts[is][said] += 1);
    counts
}

/// The colour of a curve: real trials in the real colour, generated ones in theirs.
fn class(found: &Decoding, curve: &Curve) -> String {
    series(found.n_generated.iter().position(|(label, _)| *label == curve.label).map_or(0, |i| i + 1))
}

fn learning(found: &Decoding) -> Figure {
    let mut panels = Vec::new();
    for decoder in ["LDA", "network"] {
        let shown: Vec<&Curve> =
            found.curves.iter().filter(|c| c.decoder == decoder && !c.label.ends_with("shuffled")).collect();
        if shown.is_empty() {
            continue;
        }
        let x = Axis::linear(-2.0, 102.0, 5, "Real training trials used (%)");
        let title = if decoder == "LDA" { "Linear discriminant analysis" } else { "Linear network" };
        let mut chart = Chart::new(PAIR.0, PAIR.1, title, x, Axis::linear(0.0, 100.0, 5, "Accuracy (%)"));
        chart.horizontal("zero", 100.0 / found.names.len() as f64);
        for curve in shown {
            let class = class(found, curve);
            let (xs, ys): (Vec<f64>, Vec<f64>) =
                curve.tested.iter().map(|t| (100.0 * t.fraction, 100.0 * accuracy(&t.found, &found.test))).unzip();
            let bounds: Vec<(f64, f64)> = ys.iter().map(|y| wilson(y / 100.0, found.test.len())).collect();
            let of = |f: fn(&(f64, f64)) -> f64| bounds.iter().map(|b| 100.0 * f(b)).collect::<Vec<f64>>();
            chart.band(&class, &xs, &of(|b| b.0), &of(|b| b.1));
            chart.line(&class, &xs, &ys);
            for (x, y) in xs.iter().zip(&ys) {
                chart.point(&class, *x, *y, &format!("{}: {} %", trained_on(curve), brief(*y)));
            }
        }
        panels.push(chart.finish());
    }
    let lda = found.curves.iter().filter(|c| c.decoder == "LDA" && !c.label.ends_with("shuffled"));
    Figure {
        panels,
        layout: Layout::Pairs,
        legend: lda.map(|c| (class(found, c), trained_on(c))).collect(),
        caption: "Accuracy on real trials that the decoder has not learnt from, by the share of the other real trials that it \
                  has; the dashed line is chance, shaded the 95 % interval. At 0 its weights come from generated trials only; \
                  the spatial filters are those of all real training trials throughout."
            .into(),
    }
}

fn confusions(found: &Decoding) -> Option<Figure> {
    let k = found.names.len();
    if k > CONDITIONS_MAX {
        return None;
    }
    let panel = |curve: &Curve| {
        let tested = if curve.label.starts_with("real") { curve.tested.last() } else { curve.tested.first() }?;
        let counts = confusion(&tested.found, &found.test, k);
        let share = |row: &Vec<usize>| {
            let sum = row.iter().sum::<usize>().max(1) as f64;
            row.iter().map(|&n| n as f64 / sum).collect()
        };
        let title =
            if curve.label.starts_with("real") { curve.label.clone() } else { format!("{} alone", curve.label) };
        Some(matrix(&title, &counts.iter().map(share).collect::<Vec<_>>(), &found.names, (0.0, 1.0)))
    };
    Some(Figure {
        panels: found.curves.iter().filter(|c| c.decoder == "LDA").filter_map(panel).collect(),
        layout: Layout::Triples,
        legend: Vec::new(),
        caption: "Confusions of linear discriminant analysis: rows are the conditions of the real test trials, columns what was \
                  said of them, as shares of a row from 0 (dark) to 1 (light). Trained on all real trials, on generated trials \
                  alone, and on real trials whose conditions were shuffled."
            .into(),
    })
}

fn methods(network: Option<&Options>) -> String {
    let lda = format!(
        "<b>Decoding.</b> 0 to {SECONDS} s from the onset. Of each condition the first fifth of the real trials is for testing. \
         Linear discriminant analysis: up to {COMPONENTS} principal components over channels of the real training trials, \
         means over ten bins of time, covariance of each condition drawn to the identity by the amount of Ledoit and Wolf \
         (2004), as scikit-learn has it (<code>solver=\"lsqr\", shrinkage=\"auto\"</code>); generated and real trials are \
         put together."
    );
    match network {
        None => lda,
        Some(o) => format!(
            "{lda} Linear network (the paper, section 6.1): channels to {}, all to {}, to {}, to the conditions, dropout {} \
             between, Adam with {}, batches of {}, {} epochs, the state kept that is best on every fifth training trial; first \
             trained on generated trials, then on real ones.",
            o.n_spatial, o.hidden[0], o.hidden[1], o.dropout, o.lr, o.batch, o.epochs
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_by_hand() {
        // statsmodels.stats.proportion.proportion_confint(8, 10, method="wilson") = (0.4902, 0.9433)
        let (low, high) = wilson(0.8, 10);
        assert!((low - 0.4902).abs() < 1e-4 && (high - 0.9433).abs() < 1e-4, "{low} {high}");
        assert_eq!(wilson(0.0, 10).0, 0.0);
        assert_eq!(confusion(&[0, 1, 1], &[0, 0, 1], 2), [[1, 1], [0, 1]]);
    }
}
