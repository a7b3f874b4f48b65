//! Kernels of ordinary style, compiled by the real NVRTC, run, and compared with plain references in Rust.
//!
//! Every job runs on the machine itself with all checks, again with other orders and adversarial rounding, as `sm_80`
//! and as `sm_90` (with `PTX_EMULATOR_ALL_TARGETS=1` as every GPU that there is), and through cudarc on the stand-in
//! driver; none may find anything, and the references' bounds must hold in each.

#[path = "../support/mod.rs"]
mod support;

mod arrivals;
mod blocks;
mod check;
mod control;
mod elements;
mod exchange;
mod language;
mod network;
mod products;
mod turns;

use check::ptx;
use support::compile::{ARCHITECTURES, kernels, toolkit};

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

/// Every file for sm_80; the other architectures in turn, so that each meets many kernels.
#[test]
fn every_kernel_assembles_and_loads_for_every_architecture() {
    if toolkit().is_none() {
        return;
    }
    for (i, file) in files().iter().enumerate() {
        for architecture in [80, ARCHITECTURES[1 + i % (ARCHITECTURES.len() - 1)]] {
            let text = ptx(file, architecture);
            let target = support::device::target(architecture);
            if let Err(error) = ptx_emulator::decode::Module::load(&text, target) {
                panic!("{file} for sm_{architecture}: {error}");
            }
        }
    }
}
