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
use ptx_emulator::toolkit::REQUIRED_VARIABLE;
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

/// Where there is no compiler, a test says that it was skipped, and why; where there must be one, it fails.
#[test]
fn without_a_compiler_tests_are_skipped_and_say_so() {
    let empty = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("no compiler");
    std::fs::create_dir_all(&empty).expect("a folder");
    let run = |required: bool| {
        let mut test = std::process::Command::new(std::env::current_exe().expect("this test"));
        test.args(["--exact", "arrivals::a_ring_of_halves_of_words", "--test-threads", "2"]);
        test.env("PTX_EMULATOR_CUDA", &empty).env_remove("PTX_EMULATOR_REAL_GPU").env_remove(REQUIRED_VARIABLE);
        if required {
            test.env(REQUIRED_VARIABLE, "1");
        }
        let output = test.output().expect("it runs");
        let text = [&output.stdout[..], &output.stderr[..]].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        (output.status.success(), text.concat())
    };
    let (passed, text) = run(false);
    assert!(passed && text.contains("SKIPPED arrivals::a_ring_of_halves_of_words: "), "{text}");
    assert!(text.contains("no compiler"), "it says where it looked: {text}");
    let (passed, text) = run(true);
    assert!(!passed && text.contains(&format!("{REQUIRED_VARIABLE} is set, but ")), "{text}");
}
