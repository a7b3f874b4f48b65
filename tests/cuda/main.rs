//! Every CUDA kernel, compiled by NVRTC and run by the emulator with all checks on, against the float64 oracle.
//!
//! The bound: the error is at most twice that of an unfused computation in bf16 (`unfused`), plus one unit in the last place
//! of bf16 of the tensor's largest value. Where NVRTC is not installed the tests say so and do nothing.

#[path = "../oracle/mod.rs"]
mod oracle;

#[macro_use]
mod passes;

#[path = "../support/data.rs"]
mod data;

#[path = "../support/gpu.rs"]
mod gpu;

mod attention;
mod bench;
mod cut;
mod embed;
mod head;
mod mlp;
mod model;
mod resources;
mod rollout;
mod sampler;
mod unfused;
mod update;
