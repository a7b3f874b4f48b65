//! One table of a comparison: models as rows, measures as columns, with what real recordings reach and what is reached
//! where something is missing.
//!
//! Everything in it is read from the report's numbers and from the scores. A number is marked as the best of its column
//! only where its interval lies apart from that of every other model.

use crate::evaluate::section::{Section, Table as HtmlTable};
use crate::evaluate::svg::escape;
use crate::evaluate::text::{brief, listed, significant};
use serde::Serialize;
use serde_json::{Map, Value, json};

/// A number, and the interval that holds 95 % of what it might have been.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Cell {
    /// The number.
    pub value: f64,
    /// The interval's bounds; none where nothing could be drawn again.
    pub interval: Option<(f64, f64)>,
}

/// What a row is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RowKind {
    /// What the real recording is to itself.
    Ceiling,
    /// A model.
    Model,
    /// Real data in which something was destroyed, or a prediction without a model.
    Floor,
}

/// One row.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Its name.
    pub label: String,
    /// What it is.
    pub kind: RowKind,
    /// One a column.
    pub cells: Vec<Option<Cell>>,
    /// Why there are numbers missing.
    pub note: Option<String>,
}

/// One measure.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Column {
    /// Key in the files.
    pub key: &'static str,
    /// Name in the report.
    pub name: &'static str,
    /// Unit.
    pub unit: &'static str,
    /// Whether more is better.
    pub more_is_better: bool,
    from: From,
}

/// Where a column's numbers stand in the report's.
#[derive(Debug, Clone, Copy, PartialEq)]
enum From {
    /// Cross-entropy, in the scores.
    Scores,
    /// A section's distance from the real recording.
    Distance(&'static str, &'static str),
    /// A correlation of evoked responses.
    Evoked(&'static str),
    /// Accuracy of a decoder that has learnt from generated trials alone.
    Decoding,
    /// Channels at fault.
    Health,
}

const fn less(key: &'static str, name: &'static str, unit: &'static str, from: From) -> Column {
    Column { key, name, unit, more_is_better: false, from }
}

const fn more(key: &'static str, name: &'static str, unit: &'static str, from: From) -> Column {
    Column { key, name, unit, more_is_better: true, from }
}

/// All measures.
const COLUMNS: [Column; 13] = [
    less("nats", "Cross-entropy", "nats", From::Scores),
    less("spectrum", "Spectrum", "decades", From::Distance("spectrum", "log_distance")),
    less("amplitude", "Amplitudes", "SD", From::Distance("amplitude", "wasserstein")),
    less("autocorrelation", "Auto&shy;correlation", "", From::Distance("autocorrelation", "mean_difference")),
    less("bursts_alpha", "Bursts, alpha", "", From::Distance("envelope", "alpha")),
    less("bursts_beta", "Bursts, beta", "", From::Distance("envelope", "beta")),
    less("covariance", "Covariance", "", From::Distance("covariance", "correlation")),
    less("state_lifetimes", "State lifetimes", "s", From::Distance("hmm", "lifetimes")),
    less("state_switching", "State switching", "Hz", From::Distance("hmm", "switching")),
    more("evoked", "Evoked response", "r", From::Evoked("correlation_pooled")),
    more("evoked_specific", "Evoked, by condition", "r", From::Evoked("correlation_condition_specific")),
    more("decoding", "Decoding", "accuracy", From::Decoding),
    less("faulty_channels", "Channels at fault", "", From::Health),
];

/// Real data in which something was destroyed, as the report calls them.
const FLOORS: [&str; 4] = ["real, channels shifted", "real, phases randomised", SHUFFLED, "real, at random times"];
/// With these conditions all trials together are what they were.
const SHUFFLED: &str = "real, conditions shuffled";

/// A model of the table: its name, the labels of its recordings in the report, the scores of each, and why some are
/// missing.
pub struct Entrant {
    /// Its name.
    pub name: String,
    /// Labels of its recordings, one a seed.
    pub labels: Vec<String>,
    /// What `score` wrote, one a seed.
    pub scores: Vec<Value>,
    /// Whether its cross-entropy is of the same levels as that of the others.
    pub same_levels: bool,
    /// Why there is nothing of some of its seeds.
    pub failures: Vec<String>,
}

/// The table.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    /// Those measures that anything has.
    pub columns: Vec<Column>,
    /// Ceilings, models, floors.
    pub rows: Vec<Row>,
    /// Rows whose cross-entropy is of other levels.
    other_levels: Vec<usize>,
    n_seed: usize,
}

impl Table {
    /// Makes the table of a report's numbers (`report.json`).
    pub fn new(report: &Value, entrants: &[Entrant]) -> Self {
        let mut rows = vec![Row::of("real against real", RowKind::Ceiling, |column| ceiling(report, column))];
        let mut other_levels = Vec::new();
        for entrant in entrants {
            if !entrant.same_levels {
                other_levels.push(rows.len());
            }
            let mut row = Row::of(&entrant.name, RowKind::Model, |column| {
                let of_seed = |(label, scores): (&String, &Value)| of_model(report, column, label, scores);
                let cells: Option<Vec<Cell>> = entrant.labels.iter().zip(&entrant.scores).map(of_seed).collect();
                over_seeds(&cells?)
            });
            row.note = (!entrant.failures.is_empty()).then(|| entrant.failures.join("; "));
            rows.push(row);
        }
        for floor in FLOORS {
            rows.push(Row::of(floor, RowKind::Floor, |column| of_floor(report, column, floor)));
        }
        let unigram = entrants.iter().filter(|e| e.same_levels).find_map(|e| e.scores.first()).and_then(unigram);
        rows.push(Row::of("how often each level occurs", RowKind::Floor, |column| {
            unigram.filter(|_| column.from == From::Scores)
        }));
        rows.retain(|row| row.kind == RowKind::Model || row.cells.iter().any(Option::is_some));
        // A measure that was left out, or could not be computed of anything, is no column.
        let known: Vec<bool> = (0..COLUMNS.len()).map(|c| rows.iter().any(|row| row.cells[c].is_some())).collect();
        for row in &mut rows {
            let kept = row.cells.iter().zip(&known).filter(|(_, known)| **known).map(|(cell, _)| *cell);
            row.cells = kept.collect();
        }
        let columns = COLUMNS.into_iter().zip(known).filter(|(_, known)| *known).map(|(column, _)| column).collect();
        let n_seed = entrants.iter().map(|entrant| entrant.labels.len()).max().unwrap_or(0);
        Self { columns, rows, other_levels, n_seed }
    }

    /// The row whose number is the best of a column, where the intervals say so.
    pub fn best(&self, column: usize) -> Option<usize> {
        let of_model = |(index, row): (usize, &Row)| {
            let comparable = self.columns[column].from != From::Scores || !self.other_levels.contains(&index);
            let cell = row.cells[column].filter(|_| row.kind == RowKind::Model && comparable)?;
            Some((index, cell))
        };
        let mut cells: Vec<(usize, Cell)> = Vec::new();
        for (index, cell) in self.rows.iter().enumerate().filter_map(of_model) {
            // Rows that share a training share its scores, and do not stand in each other's way.
            let shared = self.columns[column].from == From::Scores && cells.iter().any(|(_, other)| *other == cell);
            if !shared {
                cells.push((index, cell));
            }
        }
        best(&cells, self.columns[column].more_is_better)
    }

    /// Whether a row has the best number of a column, or shares the scores that are the best.
    fn is_best(&self, column: usize, row: usize) -> bool {
        let shares = |best: usize| {
            let is_model = self.rows[row].kind == RowKind::Model && !self.other_levels.contains(&row);
            is_model
                && self.columns[column].from == From::Scores
                && self.rows[row].cells[column] == self.rows[best].cells[column]
        };
        self.best(column).is_some_and(|best| best == row || shares(best))
    }

    /// All numbers, for `report.json`.
    pub fn json(&self) -> Map<String, Value> {
        let columns = self.columns.iter().map(|column| {
            json!({"key": column.key, "name": plain(column), "unit": column.unit, "more_is_better": column.more_is_better})
        });
        let row = |(index, row): (usize, &Row)| {
            let cells = self.columns.iter().enumerate().filter_map(|(c, column)| {
                let cell = row.cells[c]?;
                let bounds = cell.interval.map(|(low, high)| [low, high]);
                let cell = json!({"value": cell.value, "interval": bounds, "best": self.is_best(c, index)});
                Some((column.key.to_string(), cell))
            });
            json!({"label": row.label, "kind": row.kind, "cells": cells.collect::<Map<_, _>>(), "note": row.note})
        };
        let rows: Vec<Value> = self.rows.iter().enumerate().map(row).collect();
        [("columns".to_string(), columns.collect()), ("rows".to_string(), rows.into())].into_iter().collect()
    }

    /// The same as a table for spreadsheets: of every measure the number and its bounds.
    pub fn csv(&self) -> String {
        let mut writer = csv::Writer::from_writer(Vec::new());
        let head =
            self.columns.iter().flat_map(|column| ["", "_low", "_high"].map(|end| format!("{}{end}", column.key)));
        let first = ["row", "kind"].map(String::from);
        let record = first.into_iter().chain(head).chain(["note".to_string()]);
        writer.write_record(record).expect("memory");
        for row in &self.rows {
            let kind = json!(row.kind).as_str().unwrap_or_default().to_string();
            let numbers = row.cells.iter().flat_map(|cell| {
                let bounds = cell.and_then(|cell| cell.interval);
                [cell.map(|cell| cell.value), bounds.map(|b| b.0), bounds.map(|b| b.1)]
            });
            let numbers = numbers.map(|number| number.map_or(String::new(), |number| number.to_string()));
            let first = [row.label.clone(), kind];
            let record = first.into_iter().chain(numbers).chain([row.note.clone().unwrap_or_default()]);
            writer.write_record(record).expect("memory");
        }
        String::from_utf8(writer.into_inner().expect("memory")).expect("text")
    }

    /// For a terminal: the numbers alone, a star behind the best.
    pub fn text(&self) -> String {
        let mut lines: Vec<Vec<String>> = Vec::new();
        lines.push(std::iter::once(String::new()).chain(self.columns.iter().map(|c| c.key.to_string())).collect());
        for (index, row) in self.rows.iter().enumerate() {
            let cell = |(c, cell): (usize, &Option<Cell>)| {
                let star = if self.is_best(c, index) { "*" } else { "" };
                cell.map_or("–".into(), |cell| format!("{}{star}", self.columns[c].written(cell.value)))
            };
            lines.push(std::iter::once(row.label.clone()).chain(row.cells.iter().enumerate().map(cell)).collect());
        }
        let width = |c: usize| lines.iter().map(|line| line[c].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..=self.columns.len()).map(width).collect();
        let aligned = |line: &Vec<String>| {
            let rest = line[1..].iter().zip(&widths[1..]).map(|(cell, width)| format!("  {cell:>width$}"));
            format!("{:<1$}{2}", line[0], widths[0], rest.collect::<String>())
        };
        lines.iter().map(aligned).collect::<Vec<_>>().join("\n")
    }

    /// The section that the report begins with.
    pub fn section(&self) -> Section {
        Section {
            id: "table",
            title: "The comparison in one table".into(),
            text: self.notes(),
            numbers: self.json(),
            tables: vec![self.html()],
            methods: vec![METHODS.into()],
            files: vec![("table.csv".into(), self.csv().into_bytes())],
            ..Section::default()
        }
    }

    fn html(&self) -> HtmlTable {
        let head = self.columns.iter().map(|column| {
            let arrow = if column.more_is_better { "↑" } else { "↓" };
            let unit = if column.unit.is_empty() { String::new() } else { format!(" {}", column.unit) };
            format!("{}<br><small>{arrow}{unit}</small>", column.name)
        });
        let row = |(index, row): (usize, &Row)| {
            let name = match row.kind {
                RowKind::Model => escape(&row.label),
                _ => format!("<i>{}</i>", escape(&row.label)),
            };
            let cell = |(c, cell): (usize, &Option<Cell>)| {
                let other = self.columns[c].from == From::Scores && self.other_levels.contains(&index);
                cell.map_or("–".into(), |cell| spelt(&self.columns[c], &cell, self.is_best(c, index), other))
            };
            std::iter::once(name).chain(row.cells.iter().enumerate().map(cell)).collect()
        };
        HtmlTable {
            caption: "↓ less is better, ↑ more is. In small print the interval that holds 95 % of the draws. <b>Bold</b>: better than \
                      every other model that has a number, with an interval that lies apart from all of theirs; where none is \
                      bold, this experiment does not say which is the best. In <i>italics</i> what the real recording is to itself (no \
                      model should be expected to do better), and below what is left where something is missing."
                .into(),
            head: std::iter::once(String::new()).chain(head).collect(),
            rows: self.rows.iter().enumerate().map(row).collect(),
        }
    }

    fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        let seeds = format!("Numbers are means over {} seeds; intervals reach over those of all seeds.", self.n_seed);
        notes.extend((self.n_seed > 1).then_some(seeds));
        for row in self.rows.iter().filter(|row| row.note.is_some()) {
            let why = escape(row.note.as_deref().unwrap_or_default());
            notes.push(format!("<b>{}</b> has not come to its end: {why}.", escape(&row.label)));
        }
        if !self.other_levels.is_empty() {
            let names: Vec<String> = self.other_levels.iter().map(|&row| escape(&self.rows[row].label)).collect();
            notes.push(format!(
                "† {}: of other levels, and not to be compared with the other cross-entropies.",
                listed(&names)
            ));
        }
        notes
    }
}

const METHODS: &str = "<b>The table.</b> Distances are medians over channels (over states, of hidden states) of those that the \
    sections below define, over stretches of one length; their intervals are those of the distances of blocks of at least 10 s, at \
    most 24 of a stretch, drawn with replacement on both sides (200 draws, moved so that their mean is the distance; none of \
    stretches under a minute). Cross-entropy is that of the \
    test part, ± 1.96 standard errors over windows. Evoked responses are correlations with the real ones over all conditions, and of \
    what is specific to each condition. Decoding is the accuracy, on real trials, of linear discriminant analysis that \
    has learnt from generated trials alone (of the real recording: from its other trials), with Wilson’s interval. Intervals of \
    two numbers that lie apart are a stricter demand than a difference that is unlikely by chance. How much another training of \
    the same model would differ is in none of them: only several seeds show that, and what then reaches over their intervals is \
    a range, not one that holds 95 %.";

impl Column {
    /// A number of this column for people.
    fn written(&self, value: f64) -> String {
        if self.from == From::Health { brief(value) } else { significant(value) }
    }
}

/// A column's name without what only a page understands.
fn plain(column: &Column) -> String {
    column.name.replace("&shy;", "")
}

/// A cell of the page.
fn spelt(column: &Column, cell: &Cell, is_best: bool, other: bool) -> String {
    let value = column.written(cell.value);
    let value = if is_best { format!("<b>{value}</b>") } else { value };
    let dagger = if other { "†" } else { "" };
    match cell.interval {
        Some((low, high)) => {
            format!("{value}{dagger}<br><small>{}&nbsp;…<br>{}</small>", significant(low), significant(high))
        }
        None => format!("{value}{dagger}"),
    }
}

/// The best of some rows' cells, if its interval lies on the better side of all others'.
pub fn best(cells: &[(usize, Cell)], more_is_better: bool) -> Option<usize> {
    let sign = if more_is_better { -1.0 } else { 1.0 };
    let (winner, cell) = cells.iter().min_by(|a, b| (sign * a.1.value).total_cmp(&(sign * b.1.value)))?;
    let worst = |(low, high): (f64, f64)| f64::max(sign * low, sign * high);
    let reaches = |(low, high): (f64, f64)| f64::min(sign * low, sign * high);
    let bound = worst(cell.interval?);
    let others = cells.iter().filter(|(index, _)| index != winner);
    let apart = others.map(|(_, other)| other.interval.is_some_and(|interval| bound < reaches(interval)));
    let apart: Vec<bool> = apart.collect();
    (!apart.is_empty() && apart.iter().all(|apart| *apart)).then_some(*winner)
}

/// The mean over seeds, with an interval that reaches over theirs.
fn over_seeds(cells: &[Cell]) -> Option<Cell> {
    let value = cells.iter().map(|cell| cell.value).sum::<f64>() / cells.len() as f64;
    let bounds: Option<Vec<(f64, f64)>> = cells.iter().map(|cell| cell.interval).collect();
    let interval = bounds.map(|bounds| {
        let low = bounds.iter().map(|b| b.0).fold(f64::INFINITY, f64::min);
        (low, bounds.iter().map(|b| b.1).fold(f64::NEG_INFINITY, f64::max))
    });
    (!cells.is_empty()).then_some(Cell { value, interval })
}

impl Row {
    fn of(label: &str, kind: RowKind, cell: impl Fn(&Column) -> Option<Cell>) -> Self {
        Self { label: label.into(), kind, cells: COLUMNS.iter().map(cell).collect(), note: None }
    }
}

fn ceiling(report: &Value, column: &Column) -> Option<Cell> {
    match column.from {
        From::Scores | From::Health => None,
        From::Distance(section, key) => {
            let measure = measure(report, section, key)?;
            distance(&measure["ceiling"], &measure["intervals"]["ceiling"])
        }
        From::Evoked(key) => evoked(report, key, "real, other trials"),
        From::Decoding => accuracy(report, "real trials alone", 1.0),
    }
}

fn of_model(report: &Value, column: &Column, label: &str, scores: &Value) -> Option<Cell> {
    match column.from {
        From::Scores => {
            let value = scores["model"]["nats"].as_f64()?;
            let error = scores["model"]["nats_standard_error"].as_f64();
            Some(Cell { value, interval: error.map(|error| (value - 1.96 * error, value + 1.96 * error)) })
        }
        From::Distance(section, key) => {
            let columns = report["sections"][section]["generated"].as_array()?;
            let index = columns.iter().position(|name| name == label)?;
            let measure = measure(report, section, key)?;
            distance(&measure["generated"][index], &measure["intervals"]["generated"][index])
        }
        From::Evoked(key) => evoked(report, key, label),
        From::Decoding => accuracy(report, label, 0.0),
        From::Health => {
            let faults = report["sections"]["health"]["recordings"][label]["faults"].as_object()?;
            let names = faults.values().filter_map(|fault| fault["channels"].as_array()).flatten();
            let mut names: Vec<&str> = names.filter_map(Value::as_str).collect();
            names.sort_unstable();
            names.dedup();
            Some(Cell { value: names.len() as f64, interval: None })
        }
    }
}

/// Of real data in which something was destroyed.
fn of_floor(report: &Value, column: &Column, label: &str) -> Option<Cell> {
    match column.from {
        From::Scores => None,
        From::Distance(section, key) => {
            let index = report["references"].as_array()?.iter().position(|name| name == label)?;
            let measure = measure(report, section, key)?;
            match measure["references"].get(index) {
                Some(spread) => distance(spread, &measure["intervals"]["references"][index]),
                // Hidden states have them among the recordings.
                None => of_model(report, column, label, &Value::Null),
            }
        }
        From::Evoked("correlation_pooled") if label == SHUFFLED => None,
        From::Evoked(key) => evoked(report, key, label),
        From::Decoding => accuracy(report, label, 1.0),
        From::Health => of_model(report, column, label, &Value::Null),
    }
}

fn unigram(scores: &Value) -> Option<Cell> {
    let anchor = scores["anchors"].as_array()?.iter().find(|anchor| anchor["name"] == "unigram")?;
    let value = anchor["nats"].as_f64()?;
    let error = anchor["nats_standard_error"].as_f64();
    Some(Cell { value, interval: error.map(|error| (value - 1.96 * error, value + 1.96 * error)) })
}

fn measure<'a>(report: &'a Value, section: &str, key: &str) -> Option<&'a Value> {
    report["sections"][section]["measures"].get(key)
}

fn distance(spread: &Value, interval: &Value) -> Option<Cell> {
    let bounds = interval["low"].as_f64().zip(interval["high"].as_f64());
    Some(Cell { value: spread["median"].as_f64()?, interval: bounds })
}

fn evoked(report: &Value, key: &str, label: &str) -> Option<Cell> {
    let entries = report["sections"]["evoked"]["compared_with_real_first_half"].as_array()?;
    let estimate = &entries.iter().find(|entry| entry["label"] == label)?[key];
    let bounds = estimate["low"].as_f64().zip(estimate["high"].as_f64());
    Some(Cell { value: estimate["value"].as_f64()?, interval: bounds })
}

/// Of the discriminant analysis that has learnt from this share of the real trials.
fn accuracy(report: &Value, label: &str, fraction: f64) -> Option<Cell> {
    let curves = report["sections"]["decoding"]["curves"].as_array()?;
    let curve = curves.iter().find(|curve| curve["label"] == label && curve["decoder"] == "LDA")?;
    let is_it = |tested: &&Value| tested["fraction_of_real"].as_f64() == Some(fraction);
    let tested = curve["tested"].as_array()?.iter().find(is_it)?;
    let bounds = tested["low"].as_f64().zip(tested["high"].as_f64());
    Some(Cell { value: tested["accuracy"].as_f64()?, interval: bounds })
}

#[cfg(test)]
mod tests;
