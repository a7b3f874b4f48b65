//! Every stage of every device against the oracle, forward and backward, over awkward shapes.

#[path = "../oracle/mod.rs"]
mod oracle;

mod attention;
mod bench;
mod cases;
mod embed;
mod head;
mod mlp;
mod update;
