//! Tables for the terminal, and as pages for a browser.

/// Colours and distances of every page.
const STYLE: &str = "body{font:14px/1.4 system-ui,sans-serif;margin:2em;color:#222}table{border-collapse:collapse}\
    th,td{padding:.2em .6em;text-align:right;border-bottom:1px solid #ddd;white-space:nowrap}\
    .words{text-align:left}.bars{text-align:left;width:210px}.bars i{display:block;height:4px;margin:1px 0}\
    .memory{background:#0072b2}.tensor{background:#d55e00}.special{background:#009e73}.issue{background:#cc79a7}\
    .shared{background:#e69f00}";

/// Pixels of the longest bar.
const LONGEST: f64 = 200.0;

/// A column of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Column {
    /// Words, to the left.
    Words(&'static str),
    /// Numbers, to the right.
    Numbers(&'static str),
}

impl Column {
    fn name(self) -> &'static str {
        let (Self::Words(name) | Self::Numbers(name)) = self;
        name
    }

    /// The class of its cells in a page, as an attribute.
    fn class(self) -> &'static str {
        match self {
            Self::Words(_) => " class=\"words\"",
            Self::Numbers(_) => "",
        }
    }
}

/// A bar behind a row, in a browser.
#[derive(Debug, Clone, PartialEq)]
pub struct Bar {
    /// Its colour, by the name of what it stands for.
    pub class: &'static str,
    /// What it says of itself.
    pub title: String,
    /// Its length as a share of the longest.
    pub share: f64,
}

/// A table with its heading.
#[derive(Debug, Default)]
pub struct Table {
    /// The columns.
    pub columns: Vec<Column>,
    /// Cells, row by row.
    pub rows: Vec<Vec<String>>,
    /// What bars stand for, and those of each row; the terminal shows none.
    pub bars: Option<(&'static str, Vec<Vec<Bar>>)>,
    /// What has to be said beneath it.
    pub note: String,
}

/// Text that says in HTML what it says.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;")
}

/// A page with lines of text and tables.
pub fn page(title: &str, lines: &[String], tables: &[Table]) -> String {
    let title = escape(title);
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>{title}</title>\n<style>{STYLE}</style>\n<h1>{title}</h1>\n"
    );
    let paragraph = |text: &str| format!("<p>{}</p>\n", escape(text.trim()));
    page.extend(lines.iter().map(|line| paragraph(line)));
    for table in tables {
        page += &html(table);
        page += &paragraph(&table.note);
    }
    page + "</html>\n"
}

fn html(Table { columns, rows, bars, .. }: &Table) -> String {
    let cell = |tag: &str, column: &Column, text: &str| format!("<{tag}{}>{}</{tag}>", column.class(), escape(text));
    let bar = |Bar { class, title, share }: &Bar| {
        format!("<i title=\"{}\" class=\"{class}\" style=\"width:{:.1}px\"></i>", escape(title), LONGEST * share)
    };
    let mut table = String::from("<table>\n<tr>");
    table.extend(columns.iter().map(|column| cell("th", column, column.name())));
    table.extend(bars.iter().map(|(heading, _)| format!("<th>{}</th>", escape(heading))));
    for (i, row) in rows.iter().enumerate() {
        table += "</tr>\n<tr>";
        table.extend(columns.iter().zip(row).map(|(column, text)| cell("td", column, text)));
        let own = bars.iter().map(|(_, bars)| bars[i].iter().map(bar).collect::<String>());
        table.extend(own.map(|bars| format!("<td class=\"bars\">{bars}</td>")));
    }
    table + "</tr>\n</table>\n"
}

/// A table for the terminal.
pub fn lines(Table { columns, rows, note, .. }: &Table) -> Vec<String> {
    let heading: Vec<String> = columns.iter().map(|column| column.name().to_owned()).collect();
    let all: Vec<&Vec<String>> = [&heading].into_iter().chain(rows).collect();
    let width = |i: usize| all.iter().map(|row| row[i].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns.len()).map(width).collect();
    let cell = |((cell, column), width): ((&String, &Column), &usize)| {
        let pad = " ".repeat(width - cell.chars().count());
        match column {
            Column::Words(_) => format!("  {cell}{pad}"),
            Column::Numbers(_) => format!("  {pad}{cell}"),
        }
    };
    let line = |row: &&Vec<String>| row.iter().zip(columns).zip(&widths).map(cell).collect::<String>();
    let mut lines: Vec<String> = all.iter().map(|row| line(row).trim_end().to_owned()).collect();
    lines.extend((!note.is_empty()).then(|| note.clone()));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_one_in_the_terminal_and_in_a_browser() {
        let rows = [["a<b", "1", "c"], ["d", "123", "long"]].map(|row| row.map(str::to_owned).to_vec());
        let bar = |share| vec![Bar { class: "memory", title: "5 \"µs\"".to_owned(), share }];
        let table = Table {
            columns: vec![Column::Words("name"), Column::Numbers("µs"), Column::Words("by")],
            rows: rows.to_vec(),
            bars: Some(("time", vec![bar(1.0), bar(0.25)])),
            note: "a note".to_owned(),
        };
        assert_eq!(lines(&table), ["  name   µs  by", "  a<b     1  c", "  d     123  long", "a note"]);
        let page = page("A & B", &["first".to_owned()], &[table]);
        let row = "<tr><td class=\"words\">a&lt;b</td><td>1</td><td class=\"words\">c</td><td class=\"bars\"><i title=\"5 \
                   &quot;µs&quot;\" class=\"memory\" style=\"width:200.0px\"></i></td></tr>\n<tr>";
        for part in ["<h1>A &amp; B</h1>", "<p>first</p>", "<th>µs</th>", row, "width:50.0px", "<p>a note</p>"] {
            assert!(page.contains(part), "{page}");
        }
    }
}
