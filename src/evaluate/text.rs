//! Numbers and names as people read them.

use super::chart::minus;

/// Three significant digits, with a true minus sign; powers of ten only where plain digits would be long.
pub fn significant(x: f64) -> String {
    if x == 0.0 {
        return "0".into();
    }
    if !x.is_finite() {
        return "–".into();
    }
    let rounded: f64 = format!("{x:.2e}").parse().expect("a number just written");
    let exponent = rounded.abs().log10().floor() as i32;
    let text = match exponent {
        3..=6 => format!("{rounded:.0}"),
        -4..=2 => format!("{rounded:.*}", (2 - exponent) as usize),
        _ => format!("{rounded:.2e}"),
    };
    minus(&text)
}

/// At most three significant digits, without zeros at the end.
pub fn brief(x: f64) -> String {
    let text = significant(x);
    if text.contains('.') && !text.contains('e') {
        return text.trim_end_matches('0').trim_end_matches('.').into();
    }
    text
}

/// With a capital first letter.
pub fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or(String::new(), |first| first.to_uppercase().chain(letters).collect())
}

/// A length in seconds, in the unit that fits.
pub fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 120.0 => format!("{} s", brief(s)),
        s if s < 7200.0 => format!("{} min", brief(s / 60.0)),
        s => format!("{} h", brief(s / 3600.0)),
    }
}

/// A list in a sentence: "a", "a and b", "a, b and c".
pub fn listed(items: &[String]) -> String {
    match items {
        [] => String::new(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

/// A label as a part of a file name: at most a hundred letters, digits, dots and dashes; everything else becomes a dash.
fn slug(label: &str) -> String {
    let dashed: String = label
        .chars()
        .take(100)
        .map(|c| if c.is_ascii_alphanumeric() || c == '.' { c.to_ascii_lowercase() } else { '-' })
        .collect();
    let parts: Vec<&str> = dashed.split('-').filter(|part| !part.trim_matches('.').is_empty()).collect();
    if parts.is_empty() { "recording".into() } else { parts.join("-") }
}

/// The same with a number behind it where the name is one of `taken`.
pub fn unique_slug(label: &str, taken: &[String]) -> String {
    let plain = slug(label);
    let mut name = plain.clone();
    let mut number = 1;
    while taken.contains(&name) {
        number += 1;
        name = format!("{plain}-{number}");
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_digits() {
        let cases = [
            (0.0, "0"),
            (1.0, "1.00"),
            (-0.01234, "−0.0123"),
            (123.456, "123"),
            (999.9, "1000"),
            (12345.6, "12300"),
            (1e-7, "1.00e−7"),
            (9.999e9, "1.00e10"),
            (f64::NAN, "–"),
        ];
        assert_eq!(cases.map(|(x, _)| significant(x)), cases.map(|(_, text)| text.to_string()));
    }

    #[test]
    fn names_and_lists() {
        assert_eq!(slug("p = 0.8 / ../x"), "p-0.8-x");
        assert_eq!(slug("…"), "recording");
        assert_eq!(slug(&"long ".repeat(60)).len(), 99);
        let mut names = Vec::new();
        for label in ["x-2", "x", "X?", "x-2", "x"] {
            names.push(unique_slug(label, &names));
        }
        assert_eq!(names, ["x-2", "x", "x-3", "x-2-2", "x-4"]);
        assert_eq!(duration(90.0), "90 s");
        assert_eq!(duration(3630.0), "60.5 min");
        assert_eq!(listed(&["a".into(), "b".into(), "c".into()]), "a, b and c");
    }
}
