//! One writer per folder.

use crate::error::Result;
use std::path::Path;

/// Holds a folder until dropped; the operating system releases it when the process dies, however it dies.
pub struct FolderLock {}

impl FolderLock {
    /// Locks `folder`, or says who holds it ([`crate::error::Kind::Locked`]).
    pub fn acquire(folder: &Path) -> Result<Self> {
        let _ = folder;
        todo!()
    }
}
