//! Files that last: atomic writes, checksummed safetensors, locks.

pub mod atomic;
pub mod container;
pub mod lock;
