//! Files that last: atomic writes, checksummed safetensors, locks, and maps of files that may shrink.

pub mod atomic;
mod checksum;
pub mod container;
pub mod disk;
pub mod lock;
pub mod sigbus;
mod writer;
