//! Counts as a table, for the terminal and for a browser.

use super::count::{Counts, Row};
use super::page::{escape, head};
use super::work::Resource;
use std::fmt::Write;

/// What every table says beneath it.
const CAVEAT: &str = "Counted by the emulator, not measured: a bound is the time of a card whose busiest resource never waits, \
     launches and waves left out.";

const COLUMNS: [&str; 15] = [
    "stage",
    "rows",
    "times",
    "kernel",
    "bytes",
    "tensor",
    "special",
    "shared",
    "registers",
    "spilled",
    "resident",
    "blocks",
    "bound µs",
    "share",
    "bound by",
];

/// How many times the least possible; nothing where that is unknown or none.
fn ratio(count: f64, least: Option<f64>) -> String {
    match least {
        Some(least) if least > 0.0 => format!("{:.2}", count / least),
        _ => "–".to_owned(),
    }
}

fn or_dash(value: Option<u32>) -> String {
    value.map_or("–".to_owned(), |value| value.to_string())
}

fn resource(resource: Resource) -> &'static str {
    match resource {
        Resource::Memory => "memory",
        Resource::Tensor => "tensor cores",
        Resource::Special => "special functions",
        Resource::Issue => "issue",
        Resource::Shared => "shared memory",
    }
}

fn cells(row: &Row, whole: f64) -> [String; COLUMNS.len()] {
    let (binding, seconds) = row.times_of_resources.binding();
    let least = row.least.as_ref();
    [
        row.stage.to_owned(),
        row.rows.to_string(),
        row.times.to_string(),
        row.kernel.clone(),
        ratio(row.work.bytes, least.map(|least| least.bytes)),
        ratio(row.work.tensor_flop, least.map(|least| least.tensor_flop)),
        ratio(row.work.special, least.map(|least| least.special)),
        ratio(row.work.wavefronts, Some(row.ideal_wavefronts)),
        or_dash(row.registers.map(|(registers, _)| registers)),
        or_dash(row.registers.map(|(_, spilled)| spilled)),
        or_dash(row.resident),
        row.blocks.to_string(),
        format!("{:.1}", seconds * 1e6),
        format!("{:.1} %", 100.0 * seconds / whole),
        resource(binding).to_owned(),
    ]
}

/// What the whole comes to.
fn total(counts: &Counts) -> String {
    format!(
        "{}: {} sequences, bound {:.3} ms, {:.2} million timesteps of a channel a second",
        counts.card,
        counts.n_sequence,
        counts.bound_seconds * 1e3,
        counts.bound_tokens_per_second / 1e6
    )
}

/// The same for the terminal, with what has to be said of it.
pub fn summary(counts: &Counts) -> Vec<String> {
    vec![total(counts), CAVEAT.to_owned()]
}

/// Lines for the terminal.
pub fn lines(counts: &Counts) -> Vec<String> {
    let rows: Vec<_> = counts.rows.iter().map(|row| cells(row, counts.bound_seconds)).collect();
    let width = |i: usize| {
        let cells = rows.iter().map(|row| row[i].chars().count());
        cells.chain([COLUMNS[i].chars().count()]).max().expect("the heading")
    };
    let widths: Vec<usize> = (0..COLUMNS.len()).map(width).collect();
    let line = |cells: Vec<&str>| {
        let mut line = String::new();
        for (i, (cell, width)) in cells.iter().zip(&widths).enumerate() {
            // Words to the left, numbers to the right.
            let pad = " ".repeat(width - cell.chars().count());
            let (before, after) = if [0, 3, 14].contains(&i) { ("", pad.as_str()) } else { (pad.as_str(), "") };
            write!(line, "{before}{cell}{after}  ").expect("writing to a string");
        }
        line.trim_end().to_owned()
    };
    let mut lines = vec![line(COLUMNS.to_vec())];
    lines.extend(rows.iter().map(|row| line(row.iter().map(String::as_str).collect())));
    lines.push(String::new());
    lines.push("Bytes, tensor, special: times the least possible. Shared: passes over the banks, times those without conflicts.".into());
    lines.extend(summary(counts));
    lines
}

/// A page for a browser.
pub fn html(counts: &Counts, title: &str) -> String {
    let mut page = head(title);
    page += &format!("<p>{}</p>\n<p>{CAVEAT}</p>\n<table>\n<tr>", escape(&total(counts)));
    let mut put = |text: std::fmt::Arguments<'_>| page.write_fmt(text).expect("writing to a string");
    COLUMNS.iter().for_each(|column| put(format_args!("<th>{column}</th>")));
    put(format_args!("<th>time of each resource</th></tr>\n"));
    let longest = counts.rows.iter().map(|row| row.times_of_resources.binding().1).fold(0.0, f64::max);
    for row in &counts.rows {
        put(format_args!("<tr>"));
        cells(row, counts.bound_seconds).iter().for_each(|cell| put(format_args!("<td>{}</td>", escape(cell))));
        let times = row.times_of_resources;
        put(format_args!("<td class=\"bars\">"));
        let bars = [
            ("memory", times.memory),
            ("tensor", times.tensor),
            ("special", times.special),
            ("issue", times.issue),
            ("shared", times.shared),
        ];
        for (name, seconds) in bars {
            let (width, us) = (200.0 * seconds / longest, seconds * 1e6);
            put(format_args!("<i title=\"{name}: {us:.1} µs\" class=\"{name}\" style=\"width:{width:.1}px\"></i>"));
        }
        put(format_args!("</td></tr>\n"));
    }
    put(format_args!(
        "</table>\n<p>Bars, from above: memory, tensor cores, special functions, issue, shared memory. Bytes, tensor, special: times \
         the least possible. Shared: passes over the banks, times those without conflicts.</p>\n</html>\n"
    ));
    page
}
