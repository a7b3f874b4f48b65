//! A small SVG writer: shapes, text, numbers. Colours are CSS classes, so that one style sheet serves light and dark.

use std::fmt::Write;

/// A drawing under construction; y grows downwards, units are pixels of the drawing's own size.
pub struct Svg {
    width: f64,
    height: f64,
    /// What a screen reader says.
    label: String,
    body: String,
}

impl Svg {
    /// An empty drawing; `label` says in a few words what it shows.
    pub fn new(width: f64, height: f64, label: &str) -> Self {
        Self { width, height, label: escape(label), body: String::new() }
    }

    /// A straight line.
    pub fn line(&mut self, class: &str, (x1, y1): (f64, f64), (x2, y2): (f64, f64)) {
        let [x1, y1, x2, y2] = [x1, y1, x2, y2].map(number);
        let _ = write!(self.body, r#"<line class="{class}" x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}"/>"#);
    }

    /// A line through points; where a coordinate is not finite, the line is broken.
    pub fn polyline(&mut self, class: &str, points: impl IntoIterator<Item = (f64, f64)>) {
        let mut path = String::new();
        let mut pen_up = true;
        for (x, y) in points {
            if x.is_finite() && y.is_finite() {
                let _ = write!(path, "{}{} {}", if pen_up { 'M' } else { 'L' }, number(x), number(y));
            }
            pen_up = !(x.is_finite() && y.is_finite());
        }
        if !path.is_empty() {
            let _ = write!(self.body, r#"<path class="{class}" d="{path}"/>"#);
        }
    }

    /// A closed, filled shape; points that are not finite are left out.
    pub fn polygon(&mut self, class: &str, points: impl IntoIterator<Item = (f64, f64)>) {
        let finite = points.into_iter().filter(|(x, y)| x.is_finite() && y.is_finite());
        let path = finite.map(|(x, y)| format!("{} {}", number(x), number(y))).collect::<Vec<_>>().join("L");
        if !path.is_empty() {
            let _ = write!(self.body, r#"<path class="{class}" d="M{path}Z"/>"#);
        }
    }

    /// A rectangle, filled with `fill` if given, else by its class.
    pub fn rect(&mut self, class: &str, (x, y): (f64, f64), (width, height): (f64, f64), fill: Option<&str>) {
        let [x, y, width, height] = [x, y, width, height].map(number);
        let fill = fill.map(|f| format!(r#" fill="{f}""#)).unwrap_or_default();
        let _ = write!(self.body, r#"<rect class="{class}" x="{x}" y="{y}" width="{width}" height="{height}"{fill}/>"#);
    }

    /// A disc with a tooltip, filled with `fill` if given, else by its class.
    pub fn disc(&mut self, class: &str, (x, y): (f64, f64), radius: f64, fill: Option<&str>, tooltip: &str) {
        let [x, y, radius] = [x, y, radius].map(number);
        let fill = fill.map(|f| format!(r#" fill="{f}""#)).unwrap_or_default();
        let tooltip = escape(tooltip);
        let _ = write!(
            self.body,
            r#"<circle class="{class}" cx="{x}" cy="{y}" r="{radius}"{fill}><title>{tooltip}</title></circle>"#
        );
    }

    /// Text; the class says how it is anchored (`start`, `middle`, `end`).
    pub fn text(&mut self, class: &str, (x, y): (f64, f64), text: &str) {
        let (x, y, text) = (number(x), number(y), escape(text));
        let _ = write!(self.body, r#"<text class="{class}" x="{x}" y="{y}">{text}</text>"#);
    }

    /// Text that reads upwards, centred at a point.
    pub fn text_upwards(&mut self, class: &str, (x, y): (f64, f64), text: &str) {
        let (x, y, text) = (number(x), number(y), escape(text));
        let _ = write!(self.body, r#"<text class="{class}" transform="translate({x} {y}) rotate(-90)">{text}</text>"#);
    }

    /// Places another drawing inside, cut off at its own edges.
    pub fn inset(&mut self, (x, y): (f64, f64), inner: Svg) {
        let [x, y, width, height] = [x, y, inner.width, inner.height].map(number);
        let _ = write!(
            self.body,
            r#"<svg x="{x}" y="{y}" width="{width}" height="{height}" viewBox="0 0 {width} {height}">{}</svg>"#,
            inner.body
        );
    }

    /// The finished element, to be placed in an HTML page.
    pub fn finish(self) -> String {
        format!(
            r#"<svg role="img" aria-label="{}" viewBox="0 0 {} {}">{}</svg>"#,
            self.label,
            number(self.width),
            number(self.height),
            self.body
        )
    }
}

/// A coordinate with at most two decimals, and no more digits than it needs.
pub fn number(x: f64) -> String {
    let text = format!("{x:.2}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".into() } else { text.into() }
}

/// Text made safe for HTML and SVG, between tags and in quoted attributes.
pub fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            // Control characters are not allowed in XML at all.
            control if control.is_control() && !matches!(control, '\n' | '\t') => safe.push('\u{fffd}'),
            other => safe.push(other),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let cases = [(1.0, "1"), (-0.001, "0"), (2.5, "2.5"), (1234.567, "1234.57"), (100.0, "100")];
        assert_eq!(cases.map(|(x, _)| number(x)), cases.map(|(_, text)| text.to_string()));
    }

    #[test]
    fn names_cannot_break_out() {
        let mut svg = Svg::new(1.0, 1.0, "\"><script>");
        svg.text("t", (0.0, 0.0), "a<b & \u{1}c");
        let text = svg.finish();
        assert!(text.contains("a&lt;b &amp; \u{fffd}c") && !text.contains("<script"), "{text}");
    }

    #[test]
    fn lines_break_at_gaps_and_never_hold_a_nan() {
        let mut svg = Svg::new(10.0, 10.0, "");
        svg.polyline("line", [(0.0, 1.0), (1.0, f64::NAN), (2.0, 3.0), (3.0, 4.0)]);
        svg.polyline("line", [(f64::INFINITY, 1.0)]);
        svg.polygon("band", [(0.0, f64::NAN)]);
        assert!(svg.finish().ends_with(r#"><path class="line" d="M0 1M2 3L3 4"/></svg>"#));
    }
}
