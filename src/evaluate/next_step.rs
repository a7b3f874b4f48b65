//! Next-step predictions: the scores of models beside the anchors that need no model, as `gpt2meg score` wrote them.

use super::section::{Section, Table};
use super::svg::escape;
use super::text::significant;
use crate::error::{Error, Kind, Result};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::path::Path;

/// Means over all predictions; what something does not define is absent or null.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    /// Cross-entropy in nats a token.
    pub nats: Option<f64>,
    /// The same in bits.
    pub bits: Option<f64>,
    /// Fraction of targets that were the most probable level.
    pub top1: Option<f64>,
    /// Fraction of targets among the five most probable levels.
    pub top5: Option<f64>,
    /// Squared error of the most probable level's value, in [−1, 1].
    pub squared: Option<f64>,
    /// The same in the channel's scaled units.
    pub squared_z: Option<f64>,
    /// Standard error of `nats` over windows.
    pub nats_standard_error: Option<f64>,
}

/// One anchor of a scores file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Anchor {
    /// Its name.
    pub name: String,
    /// Its scores.
    #[serde(flatten)]
    pub metrics: Metrics,
}

/// What `gpt2meg score` wrote about one model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Scores {
    /// The part of the data that was scored.
    pub split: Option<String>,
    /// The model's own scores.
    pub model: Metrics,
    /// Predictions that need no model, on the same data.
    pub anchors: Vec<Anchor>,
    /// The model's nats minus those of each anchor that has any, over the same windows.
    #[serde(default)]
    pub model_minus: Vec<Difference>,
}

/// The paired difference between the model and one anchor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    /// The anchor's name.
    pub name: String,
    /// Mean difference in nats a token; negative where the model is better.
    pub nats: f64,
    /// Standard error of the windows' differences; none for a single window.
    pub standard_error: Option<f64>,
}

/// Reads a scores file.
pub fn read(path: &Path) -> Result<Scores> {
    let text = std::fs::read_to_string(path).map_err(|e| Error::io(e, "read the scores", path))?;
    serde_json::from_str(&text).map_err(|e| {
        let what = format!("these are not the scores of gpt2meg score: {e}");
        Error::new(Kind::Corrupt, what).at(path).hint("Give the scores.json that gpt2meg score wrote")
    })
}

/// The section on next-step predictions: a row for each model and each anchor. The anchors of the first file are shown;
/// those of others differ only if they were scored on other data, and then they are shown too.
pub fn section(scores: &[(String, Scores)]) -> Section {
    let mut rows = Vec::new();
    for (label, scores) in scores {
        let part =
            scores.split.as_ref().map_or(String::new(), |split| format!(" <small>{} data</small>", escape(split)));
        rows.push((format!("<b>{}</b>{part}", escape(label)), &scores.model));
    }
    let mut seen: Vec<&Anchor> = Vec::new();
    for (label, scores) in scores {
        for anchor in &scores.anchors {
            if seen.contains(&anchor) {
                continue;
            }
            let other_data = seen.iter().any(|known| known.name == anchor.name);
            let name = escape(&described(&anchor.name));
            let name = if other_data { format!("{name} (data of {})", escape(label)) } else { name };
            rows.push((name, &anchor.metrics));
            seen.push(anchor);
        }
    }
    let table = Table {
        caption: "Predictions of the next level on held-out data. Cross-entropy: lower is better; a model that has \
                  learned nothing beyond how often each level occurs stands at the unigram. Accuracies are low for \
                  everybody: neighbouring levels are nearly the same value, and much of the next value is noise. A dash: \
                  not defined."
            .into(),
        head: ["", "Cross-entropy (nats)", "(bits)", "Top-1 (%)", "Top-5 (%)", "Squared error ([−1, 1]²)", "Squared error (z²)"]
            .map(String::from)
            .to_vec(),
        rows: rows.iter().map(|(name, metrics)| row(name, metrics)).collect(),
    };
    let numbers = scores.iter().map(|(label, scores)| (label.clone(), json!(scores))).collect();
    Section {
        id: "next-step",
        title: "Next-step predictions".into(),
        text: vec![
            "How well the next value is predicted from the real past, which is what training optimises. It says little \
             about free-running generation: a model can be good here and drift there."
                .into(),
        ],
        tables: [Some(table), differences(scores)].into_iter().flatten().collect(),
        numbers,
        methods: vec![
            "<b>Next-step metrics.</b> From the scores files: mean over channels and held-out timesteps of \
             −ln <i>p</i>(true level), in nats, and over ln 2 in bits; fraction of targets that are the most probable \
             level (top-1) or among the five most probable (top-5); squared difference of the most probable level’s \
             value and the target’s (paper, section 2.2). ± is the standard error over windows. Nothing here is held against \
             real against real: no second recording of the same moment exists, and how far a perfect model could come is \
             not known."
                .into(),
        ],
        ..Section::default()
    }
}

/// What each model needs more than each anchor, on the same windows; none if no file says.
fn differences(scores: &[(String, Scores)]) -> Option<Table> {
    let mut names: Vec<&str> = Vec::new();
    for difference in scores.iter().flat_map(|(_, scores)| &scores.model_minus) {
        if !names.contains(&difference.name.as_str()) {
            names.push(&difference.name);
        }
    }
    let cell = |scores: &Scores, name: &str| {
        let difference = scores.model_minus.iter().find(|difference| difference.name == name);
        difference.map_or_else(
            || "–".to_string(),
            |Difference { nats, standard_error, .. }| {
                let error = standard_error.map_or_else(String::new, |error| format!(" ± {error:.4}"));
                // The sign that typographers, and the rest of the report, put before negative numbers.
                format!("{nats:+.4}{error}").replace('-', "−")
            },
        )
    };
    let rows = scores.iter().map(|(label, scores)| {
        let cells = names.iter().map(|name| cell(scores, name));
        [format!("<b>{}</b>", escape(label))].into_iter().chain(cells).collect()
    });
    (!names.is_empty()).then(|| Table {
        caption: "Cross-entropy of each model minus that of each prediction that needs none, in nats, window by window on \
                  the same data: below 0 the model is better. ± is the standard error of the windows’ differences, in which \
                  what is hard for both cancels; neighbouring windows are alike, so it is rather too small."
            .into(),
        head: std::iter::once(String::new()).chain(names.iter().map(|name| escape(&described(name)))).collect(),
        rows: rows.collect(),
    })
}

fn row(name: &str, m: &Metrics) -> Vec<String> {
    let dash = || "–".to_string();
    let plain = |x: Option<f64>, digits: usize| x.map_or_else(dash, |x| format!("{x:.digits$}"));
    let percent = |x: Option<f64>| x.map_or_else(dash, |x| format!("{:.2}", 100.0 * x));
    let nats = match m.nats_standard_error {
        Some(error) => format!("{} ± {error:.3}", plain(m.nats, 3)),
        None => plain(m.nats, 3),
    };
    let small = |x: Option<f64>| x.map_or_else(dash, significant);
    vec![name.into(), nats, plain(m.bits, 3), percent(m.top1), percent(m.top5), small(m.squared), small(m.squared_z)]
}

/// An anchor's name in words.
fn described(name: &str) -> String {
    match name {
        "uniform" => "All levels equally likely".into(),
        "unigram" => "Unigram: how often each level occurs".into(),
        "bigram" => "Bigram: the previous level".into(),
        "repeat-last" => "Repeat the last value".into(),
        "ar20" => "AR(20), Gaussian residual".into(),
        "ar20-mean" => "AR(20), its mean".into(),
        other => other.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_for_models_and_anchors_once() {
        let text = r#"{"model": {"nats": 4.9, "bits": 7.07, "top1": 0.02, "top5": 0.1, "squared": 0.001, "more": 1},
            "anchors": [{"name": "uniform", "nats": 5.545, "top1": null}, {"name": "<x>", "nats": 5.1}], "extra": {}}"#;
        let scores: Scores = serde_json::from_str(text).unwrap();
        let section = section(&[("a".into(), scores.clone()), ("b".into(), scores)]);
        let rows = &section.tables[0].rows;
        assert_eq!(rows.len(), 4);
        assert_eq!(rows[2][..4], ["All levels equally likely", "5.545", "–", "–"]);
        assert_eq!(rows[3][0], "&lt;x&gt;");
        assert_eq!(rows[0][3], "2.00");
    }

    #[test]
    fn paired_differences_have_a_table() {
        let text = r#"{"model": {"nats": 4.9}, "anchors": [], "model_minus": [
            {"name": "uniform", "nats": -0.645, "standard_error": 0.0123}, {"name": "<x>", "nats": 0.02, "standard_error": null}]}"#;
        let scores: Scores = serde_json::from_str(text).unwrap();
        let without = Scores { model_minus: vec![], ..scores.clone() };
        let section = section(&[("<a>".into(), scores), ("b".into(), without.clone())]);
        let table = &section.tables[1];
        assert_eq!(table.head, ["", "All levels equally likely", "&lt;x&gt;"]);
        assert_eq!(table.rows[0], ["<b>&lt;a&gt;</b>", "−0.6450 ± 0.0123", "+0.0200"]);
        assert_eq!(table.rows[1], ["<b>b</b>", "–", "–"]);
        assert_eq!(super::section(&[("b".into(), without)]).tables.len(), 1);
    }

    #[test]
    fn another_file_is_refused_by_name() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "{\"steps\": 3}").unwrap();
        let error = read(file.path()).unwrap_err();
        assert_eq!(error.kind(), Kind::Corrupt);
        assert!(error.to_string().contains("gpt2meg score"), "{error}");
        assert_eq!(read(Path::new("nowhere/scores.json")).unwrap_err().kind(), Kind::NotFound);
    }
}
