//! Kernels of ordinary style, compiled by the real NVRTC, run, and compared with plain references in Rust.

#[path = "../support/mod.rs"]
mod support;

use support::compile::{ARCHITECTURES, compile_checked, kernels, toolkit};

/// The files of the corpus.
fn files() -> Vec<String> {
    let mut files: Vec<String> = std::fs::read_dir(kernels())
        .expect("the corpus is there")
        .map(|entry| entry.expect("readable").file_name().to_string_lossy().into_owned())
        .filter(|name| name.ends_with(".cu"))
        .collect();
    files.sort();
    files
}

#[test]
fn every_kernel_compiles_for_every_architecture() {
    let Some(toolkit) = toolkit() else { return };
    for (i, file) in files().iter().enumerate() {
        // Every file for sm_80; the others in turn, so that each architecture meets many kernels.
        for architecture in [80, ARCHITECTURES[1 + i % (ARCHITECTURES.len() - 1)]] {
            compile_checked(toolkit, file, architecture);
        }
    }
}
