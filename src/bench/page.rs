//! Tables as pages for a browser.

/// Colours and distances of every page.
pub const STYLE: &str = "body{font:14px/1.4 system-ui,sans-serif;margin:2em;color:#222}table{border-collapse:collapse}\
    th,td{padding:.2em .6em;text-align:right;border-bottom:1px solid #ddd;white-space:nowrap}\
    th:nth-child(1),td:nth-child(1),th:nth-child(4),td:nth-child(4){text-align:left}.bars{text-align:left;width:210px}\
    .bars i{display:block;height:4px;margin:1px 0}.memory{background:#0072b2}.tensor{background:#d55e00}\
    .special{background:#009e73}.issue{background:#cc79a7}.shared{background:#e69f00}";

/// A table with its heading.
#[derive(Debug, Default)]
pub struct Table {
    /// Names of the columns.
    pub columns: Vec<&'static str>,
    /// Cells, row by row.
    pub rows: Vec<Vec<String>>,
}

/// Text that says in HTML what it says.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

/// The head of a page, up to and with its heading.
pub fn head(title: &str) -> String {
    let title = escape(title);
    format!(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>{title}</title>\n<style>{STYLE}</style>\n<h1>{title}</h1>\n"
    )
}

/// A page with lines of text and tables.
pub fn page(title: &str, lines: &[String], tables: &[Table]) -> String {
    let mut page = head(title);
    page.extend(lines.iter().map(|line| format!("<p>{}</p>\n", escape(line.trim()))));
    for Table { columns, rows } in tables {
        let row = |cells: String| format!("<tr>{cells}</tr>\n");
        page += "<table>\n";
        page += &row(columns.iter().map(|column| format!("<th>{column}</th>")).collect());
        let cells = |cells: &Vec<String>| cells.iter().map(|cell| format!("<td>{}</td>", escape(cell))).collect();
        page.extend(rows.iter().map(cells).map(row));
        page += "</table>\n";
    }
    page + "</html>\n"
}

/// A table for the terminal: the first column to the left, numbers to the right.
pub fn lines(Table { columns, rows }: &Table) -> Vec<String> {
    let heading = columns.iter().map(|column| column.to_string()).collect();
    let all: Vec<&Vec<String>> = [&heading].into_iter().chain(rows).collect();
    let width = |i: usize| all.iter().map(|row| row[i].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns.len()).map(width).collect();
    let cell = |(i, (cell, width)): (usize, (&String, &usize))| {
        let pad = " ".repeat(width - cell.chars().count());
        if i == 0 { format!("  {cell}{pad}") } else { format!("  {pad}{cell}") }
    };
    all.iter()
        .map(|row| row.iter().zip(&widths).enumerate().map(cell).collect::<String>().trim_end().to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_one_in_the_terminal_and_in_a_browser() {
        let rows = vec![vec!["a<b".to_owned(), "1".to_owned()], vec!["c".to_owned(), "123".to_owned()]];
        let table = Table { columns: vec!["name", "µs"], rows };
        assert_eq!(lines(&table), ["  name   µs", "  a<b     1", "  c     123"]);
        let page = page("A & B", &["first".to_owned()], &[table]);
        assert!(page.contains("<h1>A &amp; B</h1>") && page.contains("<tr><td>a&lt;b</td><td>1</td></tr>"), "{page}");
    }
}
