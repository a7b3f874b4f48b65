//! The report as one HTML page: no scripts, nothing fetched, light or dark as the reader's system is.

use super::section::{Figure, Layout, Measure, Quantity, Section, Spread, series};
use super::svg::escape;
use super::text::significant;
use std::fmt::Write;

/// What stands above the sections.
pub struct Head {
    /// How many sections come before the summary.
    pub opening: usize,
    /// Number and what it is: channels, rate, lengths.
    pub facts: Vec<(String, String)>,
    /// One paragraph on what was compared, HTML.
    pub lead: String,
    /// For each generated recording its name, and one sentence each on what was found, HTML.
    pub verdicts: Vec<(String, Vec<String>)>,
    /// A figure beside them.
    pub figure: Option<Figure>,
    /// What the reader must know to judge, HTML.
    pub notes: Vec<String>,
    /// Names of the generated recordings.
    pub labels: Vec<String>,
    /// Names of the references that stand beside them.
    pub references: Vec<String>,
    /// The last lines: version, seed, files; HTML.
    pub footer: String,
}

/// The whole page.
pub fn render(head: &Head, sections: &[Section]) -> String {
    let mut html = String::with_capacity(1 << 20);
    html.push_str("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">");
    html.push_str("<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">");
    html.push_str("<meta name=\"color-scheme\" content=\"light dark\"><title>Real and generated recordings</title>");
    let _ = write!(html, "<style>{}</style></head><body><main>", include_str!("page.css"));
    header(&mut html, head, sections);
    for section in &sections[head.opening..] {
        write_section(&mut html, head, section);
    }
    html.push_str("<section id=\"methods\" class=\"methods\"><h2>Methods</h2>");
    sections.iter().flat_map(|s| &s.methods).for_each(|text| paragraph(&mut html, "", text));
    let _ = write!(html, "</section>\n<footer>{}</footer></main></body></html>\n", head.footer);
    html
}

fn write_section(html: &mut String, head: &Head, section: &Section) {
    let _ = write!(html, "<section id=\"{}\"><h2>{}</h2>", section.id, escape(&section.title));
    section.text.iter().for_each(|text| paragraph(html, "", text));
    section.figures.iter().for_each(|f| figure(html, f));
    section.tables.iter().for_each(|t| table(html, &t.caption, &t.head, &t.rows));
    numbers(html, head, section);
    html.push_str("</section>\n");
}

fn header(html: &mut String, head: &Head, sections: &[Section]) {
    html.push_str("<header><p class=\"kicker\">gpt2meg · evaluation</p><h1>Real and generated recordings</h1>");
    paragraph(html, "lead", &head.lead);
    html.push_str("<nav>");
    for section in sections {
        let _ = write!(html, "<a href=\"#{}\">{}</a>", section.id, escape(&section.title));
    }
    html.push_str("<a href=\"#methods\">Methods</a></nav></header><div class=\"facts\">");
    for (number, what) in &head.facts {
        let _ = write!(html, "<div><b>{}</b><span>{}</span></div>", escape(number), escape(what));
    }
    html.push_str("</div>");
    sections[..head.opening].iter().for_each(|section| write_section(html, head, section));
    html.push_str("<div class=\"summary\"><div>");
    for (index, (label, sentences)) in head.verdicts.iter().enumerate() {
        let _ = write!(html, "<div class=\"verdict {}\"><h3>{}</h3>", series(index + 1), escape(label));
        sentences.iter().for_each(|sentence| paragraph(html, "", sentence));
        html.push_str("</div>");
    }
    html.push_str("</div><div>");
    if let Some(f) = &head.figure {
        figure(html, f);
    }
    html.push_str("</div></div>");
    head.notes.iter().for_each(|note| paragraph(html, "note", note));
}

fn paragraph(html: &mut String, class: &str, text: &str) {
    let class = if class.is_empty() { String::new() } else { format!(" class=\"{class}\"") };
    let _ = write!(html, "<p{class}>{text}</p>");
}

fn figure(html: &mut String, f: &Figure) {
    html.push_str("<figure>");
    if !f.legend.is_empty() {
        html.push_str("<ul class=\"legend\">");
        for (class, name) in &f.legend {
            let _ = write!(html, "<li class=\"{class}\"><i></i>{}</li>", escape(name));
        }
        html.push_str("</ul>");
    }
    let layout = match f.layout {
        Layout::Single => "panels",
        Layout::Pairs => "panels pairs",
        Layout::Triples => "panels triples",
    };
    let _ = write!(
        html,
        "<div class=\"{layout}\">{}</div><figcaption>{}</figcaption></figure>",
        f.panels.concat(),
        f.caption
    );
}

fn table(html: &mut String, caption: &str, head: &[String], rows: &[Vec<String>]) {
    let _ = write!(html, "<div class=\"scroll\"><table><caption>{caption}</caption><thead><tr>");
    head.iter().for_each(|cell| html.push_str(&format!("<th scope=\"col\">{cell}</th>")));
    html.push_str("</tr></thead><tbody>");
    for row in rows {
        html.push_str("<tr>");
        for (index, cell) in row.iter().enumerate() {
            let _ = if index == 0 {
                write!(html, "<th scope=\"row\">{cell}</th>")
            } else {
                write!(html, "<td>{cell}</td>")
            };
        }
        html.push_str("</tr>");
    }
    html.push_str("</tbody></table></div>");
}

/// The tables of a section's measures and quantities.
fn numbers(html: &mut String, head: &Head, section: &Section) {
    let labels = if section.columns.is_empty() { &head.labels } else { &section.columns };
    let ceiling = if section.ceiling.is_empty() { "real against real" } else { &section.ceiling };
    let names = |first: &[&str]| -> Vec<String> {
        let fixed = first.iter().map(|s| escape(s));
        let key =
            |(i, label): (usize, &String)| format!("<span class=\"key {}\"></span>{}", series(i + 1), escape(label));
        fixed.chain(labels.iter().enumerate().map(key)).collect()
    };
    let over = if section.over.is_empty() { "channels" } else { section.over };
    if !section.measures.is_empty() {
        let caption =
            &format!("Distances: median over {over}, 10–90 % of {over} in small print; × is the ratio to the ceiling.");
        let mut head_cells = names(&["", ceiling]);
        if section.measures.iter().any(|m| !m.references.is_empty()) {
            head_cells.extend(head.references.iter().map(|label| escape(label)));
        }
        table(html, caption, &head_cells, &section.measures.iter().map(measure_row).collect::<Vec<_>>());
    }
    if !section.quantities.is_empty() {
        let caption = &format!("Properties: median over {over}, 10–90 % of {over} in small print.");
        // The two runs of a control are alike by construction: one of them is enough.
        let control = !section.ceiling.is_empty();
        let columns: &[&str] = if control {
            &["", "the process", "and again"]
        } else {
            &["", "real", "real, one stretch", "real, another"]
        };
        let rows: Vec<Vec<String>> = section.quantities.iter().map(|q| quantity_row(q, control)).collect();
        table(html, caption, &names(columns), &rows);
    }
}

fn spread_cell(s: &Spread) -> String {
    let range = format!("{}&nbsp;…&nbsp;{}", significant(s.p10), significant(s.p90));
    format!("{}<br><small>{range}</small>", significant(s.median))
}

fn named(name: &str, unit: &str) -> String {
    if unit.is_empty() { escape(name) } else { format!("{} <small>{}</small>", escape(name), escape(unit)) }
}

fn measure_row(m: &Measure) -> Vec<String> {
    let cell = |s: &Spread| {
        let chip =
            m.ratio(s).map_or(String::new(), |r| format!("<span class=\"chip {}\">×{}</span>", class(r), times(r)));
        let range = format!("{}&nbsp;…&nbsp;{}", significant(s.p10), significant(s.p90));
        format!("{}{chip}<br><small>{range}</small>", significant(s.median))
    };
    let mut row = vec![named(m.name, m.unit), spread_cell(&m.ceiling)];
    row.extend(m.generated.iter().chain(&m.references).map(cell));
    row
}

fn quantity_row(q: &Quantity, control: bool) -> Vec<String> {
    let fixed = if control { vec![&q.real, &q.halves[1]] } else { vec![&q.real, &q.halves[0], &q.halves[1]] };
    std::iter::once(named(q.name, q.unit)).chain(fixed.into_iter().chain(&q.generated).map(spread_cell)).collect()
}

/// How far is far, as a CSS class: at the ceiling but for chance, up to three times as far, or farther.
pub fn class(ratio: f64) -> &'static str {
    match ratio {
        r if r <= 1.25 => "good",
        r if r <= 3.0 => "fair",
        _ => "poor",
    }
}

/// A ratio with two digits.
pub fn times(ratio: f64) -> String {
    match ratio {
        r if r < 9.95 => format!("{r:.1}"),
        r => format!("{r:.0}"),
    }
}
