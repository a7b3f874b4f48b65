//! Training: the loop, its checkpoints, its logs, and the anchors its loss is held against.

pub mod checkpoint;
pub mod config;
pub mod init;
pub mod metrics;
