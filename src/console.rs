//! What is printed: results on standard output, everything else on standard error.

use crate::error::{Error, Result};
use std::fmt::{self, Display};
use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::Path;
use std::sync::{Mutex, MutexGuard};

/// Where everything goes instead, while there is a [`Redirect`].
static LOG: Mutex<Option<File>> = Mutex::new(None);

fn log() -> MutexGuard<'static, Option<File>> {
    LOG.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// While it lives, what is printed goes to a file.
pub struct Redirect;

impl Drop for Redirect {
    fn drop(&mut self) {
        *log() = None;
    }
}

/// Sends what is printed from now on to a file: a new one, or to the end of one.
pub fn redirect(path: &Path, append: bool) -> Result<Redirect> {
    let opened = File::options().create(true).write(true).append(append).truncate(!append).open(path);
    *log() = Some(opened.map_err(|e| Error::io(e, "open the log", path))?);
    Ok(Redirect)
}

/// Prints a line, or several, of a result on standard output. That nobody reads it any more, as after `| head -1`, is no
/// failure.
pub fn say(text: impl Display) -> Result<()> {
    print(Harmless(&text.to_string()))
}

/// The same for a result that is JSON, and stays it.
pub fn say_json(json: impl Display) -> Result<()> {
    print(HarmlessJson(&json.to_string()))
}

fn print(text: impl Display) -> Result<()> {
    if let Some(file) = &mut *log() {
        let _ = writeln!(file, "{text}");
        return Ok(());
    }
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => Err(Error::io(e, "print", "standard output")),
        _ => Ok(()),
    }
}

/// Says something beside the result, on standard error. If nobody can hear it, because the terminal is gone, the reader
/// of a pipe has ended or the disk of a log is full, the work goes on.
pub fn note(text: impl Display) {
    let line = format!("{}\n", Harmless(&text.to_string()));
    let _ = match &mut *log() {
        Some(file) => file.write_all(line.as_bytes()),
        None => std::io::stderr().write_all(line.as_bytes()),
    };
}

/// A text that may hold names and labels of others, its control characters but line breaks and tabs made visible, so
/// that it cannot command the terminal.
struct Harmless<'a>(&'a str);

impl Display for Harmless<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        visible(self.0, |c| c.is_control() && c != '\n' && c != '\t', as_in_rust, f)
    }
}

/// JSON with its control characters, which can only stand in strings, as JSON escapes them.
struct HarmlessJson<'a>(&'a str);

impl Display for HarmlessJson<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        visible(self.0, |c| c.is_control() && c != '\n', |c, f| write!(f, "\\u{:04x}", u32::from(c)), f)
    }
}

/// The same with line breaks made visible too: what is to be one line stays one.
pub struct OneLine<'a>(pub &'a str);

impl Display for OneLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        visible(self.0, char::is_control, as_in_rust, f)
    }
}

/// Writes a text with the characters that `hides` names as `escaped` writes them.
fn visible(
    text: &str,
    hides: impl Fn(char) -> bool,
    escaped: impl Fn(char, &mut fmt::Formatter<'_>) -> fmt::Result,
    f: &mut fmt::Formatter<'_>,
) -> fmt::Result {
    use fmt::Write;
    text.chars().try_for_each(|c| if hides(c) { escaped(c, f) } else { f.write_char(c) })
}

fn as_in_rust(c: char, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    write!(f, "{}", c.escape_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_made_visible() {
        assert_eq!(OneLine("µ – 1\n\u{1b}[31m\u{9b}").to_string(), "µ – 1\\n\\u{1b}[31m\\u{9b}");
        assert_eq!(Harmless("1\n\t\r\u{7}2").to_string(), "1\n\t\\r\\u{7}2");
        let label = "a\n\u{7f}\u{9b}";
        let json = HarmlessJson(&serde_json::json!({ "label": label }).to_string()).to_string();
        assert_eq!(json, r#"{"label":"a\n\u007f\u009b"}"#);
        assert_eq!(serde_json::from_str::<serde_json::Value>(&json).unwrap()["label"], label);
    }
}
