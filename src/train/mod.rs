//! Training: the loop, its checkpoints, its logs, and the anchors its loss is held against.

pub mod anchors;
pub mod autoregression;
pub mod batch;
pub mod checkpoint;
pub mod config;
pub mod init;
pub mod labels;
pub mod linear;
pub mod log;
pub mod metrics;
pub mod numbering;
pub mod run_folder;
pub mod scoring;
pub mod session;
pub mod tensorboard;
pub mod trainer;
