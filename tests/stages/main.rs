//! Every stage of every device against the oracle, forward and backward, over awkward shapes.

#[path = "../oracle/mod.rs"]
mod oracle;

#[path = "../support/data.rs"]
mod data;

#[path = "../support/gpu.rs"]
mod gpu;

#[path = "../cuda/unfused.rs"]
mod unfused;

mod attention;
mod bench;
mod cases;
mod embed;
mod head;
mod mlp;
mod update;
