//! Counts as a table.

use super::count::{Counts, Row};
use super::page::{Bar, Column, Column::Numbers, Column::Words, Table};
use super::work::{Resource, Times};

/// What is said of every count.
const CAVEAT: &str = "Counted by the emulator, not measured: a bound is the time of a card whose busiest resource never waits, \
     launches and waves left out.";

const COLUMNS: [Column; 15] = [
    Words("stage"),
    Numbers("rows"),
    Numbers("times"),
    Words("kernel"),
    Numbers("bytes"),
    Numbers("tensor"),
    Numbers("special"),
    Numbers("shared"),
    Numbers("registers"),
    Numbers("spilled"),
    Numbers("resident"),
    Numbers("blocks"),
    Numbers("bound µs"),
    Numbers("share"),
    Words("bound by"),
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

/// What the whole comes to, and what has to be said of it.
pub fn summary(counts: &Counts) -> Vec<String> {
    let whole = format!(
        "{}: {} sequences, bound {:.3} ms, {:.2} million timesteps of a channel a second",
        counts.card,
        counts.n_sequence,
        counts.bound_seconds * 1e3,
        counts.bound_tokens_per_second / 1e6
    );
    vec![whole, CAVEAT.to_owned()]
}

/// Every kernel.
pub fn table(counts: &Counts) -> Table {
    let longest = counts.rows.iter().map(|row| row.times_of_resources.binding().1).fold(0.0, f64::max);
    let bars = |row: &Row| {
        let Times { memory, tensor, special, issue, shared } = row.times_of_resources;
        let times =
            [("memory", memory), ("tensor", tensor), ("special", special), ("issue", issue), ("shared", shared)];
        let bar = |(class, seconds)| Bar {
            class,
            title: format!("{class}: {:.1} µs", seconds * 1e6),
            share: seconds / longest,
        };
        times.map(bar).to_vec()
    };
    Table {
        columns: COLUMNS.to_vec(),
        rows: counts.rows.iter().map(|row| cells(row, counts.bound_seconds).to_vec()).collect(),
        bars: Some(("time of each resource: memory, tensor cores, special, issue, shared", counts.rows.iter().map(bars).collect())),
        note: "Bytes, tensor, special: times the least possible. Shared: passes over the banks, times those without conflicts."
            .to_owned(),
    }
}
