//! Old or new, never a third thing: write to a temporary file in the same folder, sync, rename, sync the folder.

use crate::error::Result;
use std::fs::File;
use std::path::Path;

/// Writes `path` through `fill`, so that after any crash the file is the old one or the whole new one. Without `force`
/// an existing file is refused before anything is written.
pub fn write(path: &Path, force: bool, fill: impl FnOnce(&mut File) -> Result<()>) -> Result<()> {
    let _ = (path, force, fill);
    todo!()
}
