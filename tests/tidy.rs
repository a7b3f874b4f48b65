//! Style as a test: what a reader of this tree may rely on.

use std::fs;
use std::path::{Path, PathBuf};

/// Every file that git would track below the top, by extension.
fn files(extensions: &[&str]) -> Vec<PathBuf> {
    fn walk(folder: &Path, extensions: &[&str], found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).expect("a readable folder") {
            let path = entry.expect("a readable entry").path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_dir() && name != "target" && !name.starts_with(".git") {
                walk(&path, extensions, found);
            } else if path.extension().is_some_and(|e| extensions.contains(&e.to_string_lossy().as_ref())) {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    walk(Path::new(env!("CARGO_MANIFEST_DIR")), extensions, &mut found);
    assert!(found.len() > 10, "the walk found almost nothing");
    found
}

fn complain(complaints: &[String]) {
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

#[test]
fn files_are_one_room_each() {
    const LINES_MAX: usize = 600;
    let long = files(&["rs", "cu", "cuh"]).into_iter().filter_map(|path| {
        let lines = fs::read_to_string(&path).expect("text").lines().count();
        (lines > LINES_MAX).then(|| format!("{}: {lines} lines, more than {LINES_MAX}", path.display()))
    });
    complain(&long.collect::<Vec<_>>());
}

#[test]
fn nothing_is_left_unfinished() {
    // Assembled here so that this file does not contain what it looks for.
    let marks = ["todo", "unimplemented", "dbg"].map(|m| format!("{m}!("));
    let words = ["FIX", "XX"].map(|m| format!("{m}{}", if m == "FIX" { "ME" } else { "X" }));
    let ignored = format!("#[{}", "ignore");
    let mut complaints = Vec::new();
    for path in files(&["rs", "py", "sh", "cu", "cuh"]) {
        let text = fs::read_to_string(&path).expect("text");
        for (number, line) in text.lines().enumerate() {
            if marks.iter().chain(&words).chain([&ignored]).any(|mark| line.contains(mark.as_str())) {
                complaints.push(format!("{}:{}: {}", path.display(), number + 1, line.trim()));
            }
        }
    }
    complain(&complaints);
}

#[test]
fn every_module_says_what_it_is() {
    let silent = files(&["rs"]).into_iter().filter(|path| {
        let text = fs::read_to_string(path).expect("text");
        !text.starts_with("//!")
    });
    complain(&silent.map(|path| format!("{}: no opening comment", path.display())).collect::<Vec<_>>());
}

/// Backquoted paths in the documents are files of the tree; backquoted `file.rs::name` are tests or functions in it.
#[test]
fn documents_name_what_exists() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut complaints = Vec::new();
    for document in ["README.md", "ARCHITECTURE.md"] {
        let text = fs::read_to_string(top.join(document)).expect("the document");
        for quoted in text.split('`').skip(1).step_by(2) {
            let (file, function) = quoted.split_once("::").unwrap_or((quoted, ""));
            let is_source = file.starts_with("src/") || file.starts_with("tests/") || file.starts_with("benches/");
            if !is_source || file.contains(char::is_whitespace) {
                continue;
            }
            let path = top.join(file);
            if !path.exists() {
                complaints.push(format!("{document}: {file} does not exist"));
            } else if !function.is_empty() {
                let source = fs::read_to_string(&path).unwrap_or_default();
                if !source.contains(&format!("fn {function}(")) {
                    complaints.push(format!("{document}: {file} has no function {function}"));
                }
            }
        }
    }
    complain(&complaints);
}
