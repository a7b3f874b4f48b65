//! Recordings split over several files: how a part names the next one.

use super::constants::{block, kind, role};
use super::reader::content;
use super::source::Source;
use super::tags::Tree;
use crate::error::{Error, Kind, Result};
use crate::recording::stem_and_extension;
use std::path::{Path, PathBuf};

/// More parts than this are a mistake; MNE writes at most as many.
pub(super) const PARTS_MAX: usize = 100;

/// The file that follows, where this one refers to one. Only the name counts: parts lie in the same folder.
pub(super) fn next_part(source: &Source, tree: &Tree, path: &Path) -> Result<Option<PathBuf>> {
    referred(source, tree, path, role::NEXT_FILE)
}

/// The file that this one refers to in this role; a reference without a role is to the next.
fn referred(source: &Source, tree: &Tree, path: &Path, wanted: i32) -> Result<Option<PathBuf>> {
    for reference in tree.find_all(block::REF) {
        let role = reference.tag(kind::REF_ROLE).map(|tag| tag.int(source)).transpose()?;
        if role.unwrap_or(role::NEXT_FILE) != wanted {
            continue;
        }
        let name = reference.tag(kind::REF_FILE_NAME).map(|t| t.text(source)).transpose()?;
        if name.as_deref().is_some_and(|n| n.contains('\0')) {
            return Err(source.corrupt("the name of another part has a zero byte in it"));
        }
        if let Some(name) = name.as_deref().and_then(|n| Path::new(n).file_name()) {
            return Ok(Some(path.with_file_name(name)));
        }
        // Acquisition software may give only the number.
        if let Some(tag) = reference.tag(kind::REF_FILE_NUM) {
            return Ok(Some(path.with_file_name(numbered(path, tag.int(source)?))));
        }
    }
    Ok(None)
}

/// The file that the one at `path` says it goes on from; none where it is no recording.
pub(crate) fn previous_part(path: &Path) -> Option<PathBuf> {
    let source = Source::open(path).ok()?;
    referred(&source, &Tree::scan(&source).ok()?, path, role::PREV_FILE).ok()?
}

/// The mark that our writer gives to all parts of one recording.
fn content_of(path: &Path) -> Option<i32> {
    let source = Source::open(path).ok()?;
    content(&source, &Tree::scan(&source).ok()?).ok()?
}

/// The later parts of the recording at `path` that refer back to the file that leads to them. A first part that was
/// copied under another name leads to parts of the recording that it was copied from: those are not its own.
pub(super) fn own_parts(path: &Path) -> Vec<PathBuf> {
    let mut own = later_parts(path);
    let before = |i: usize, own: &[PathBuf]| if i == 0 { path.to_path_buf() } else { own[i - 1].clone() };
    // Our own recordings have a mark that tells their parts from those of another of the same name.
    let mark = content_of(path);
    let is_own = |i: usize, own: &[PathBuf]| {
        previous_part(&own[i]) == Some(before(i, own)) && (mark.is_none() || content_of(&own[i]) == mark)
    };
    let n = (0..own.len()).take_while(|&i| is_own(i, &own)).count();
    own.truncate(n);
    own
}

/// The later parts of the recording at `path`, as far as they can be followed; none where it is no recording.
pub(crate) fn later_parts(path: &Path) -> Vec<PathBuf> {
    let next = |path: &Path| -> Result<Option<PathBuf>> {
        let source = Source::open(path)?;
        next_part(&source, &Tree::scan(&source)?, path)
    };
    let mut parts: Vec<PathBuf> = Vec::new();
    while let Ok(Some(part)) = next(parts.last().map_or(path, PathBuf::as_path)) {
        if parts.contains(&part) || part == path || parts.len() == PARTS_MAX || !part.exists() {
            break;
        }
        parts.push(part);
    }
    parts
}

/// The name of part `number`: `a_raw.fif` and `a_raw-4.fif` are followed by `a_raw-1.fif` and `a_raw-5.fif`. The first, with
/// the number 0, has none in its name.
pub(super) fn numbered(path: &Path, number: i32) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let (stem, extension) = match stem_and_extension(&name) {
        (other, "") => other.rfind('.').map_or((other, ".fif"), |dot| other.split_at(dot)),
        known => known,
    };
    let stem = match stem.rsplit_once('-') {
        Some((stem, digits)) if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) => stem,
        _ => stem,
    };
    if number == 0 { format!("{stem}{extension}") } else { format!("{stem}-{number}{extension}") }
}

/// The error for a part that is not there.
pub(super) fn missing(part: &Path, referred_by: &Path) -> Error {
    let what = format!("the recording goes on in {}, which is missing", part.display());
    Error::new(Kind::NotFound, what)
        .at(referred_by)
        .hint("Put all parts of the recording in one folder under the names they were written with")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_numbered() {
        for (name, number, next) in [
            ("a_raw.fif", 1, "a_raw-1.fif"),
            ("a_raw-1.fif", 2, "a_raw-2.fif"),
            ("a-b_raw.fif", 1, "a-b_raw-1.fif"),
            ("a_raw.fif.gz", 1, "a_raw-1.fif.gz"),
            ("sub-01.a_raw.fif", 1, "sub-01.a_raw-1.fif"),
            ("sub-01.a_raw-1.fif", 2, "sub-01.a_raw-2.fif"),
            ("a_raw", 1, "a_raw-1.fif"),
            ("a_raw.FIF", 1, "a_raw-1.FIF"),
            ("a-1.raw", 2, "a-2.raw"),
            ("a_raw-1.fif", 0, "a_raw.fif"),
        ] {
            assert_eq!(numbered(Path::new(name), number), next);
        }
    }
}
