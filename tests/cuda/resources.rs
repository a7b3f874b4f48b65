//! What the assembler makes of every kernel, for every architecture: recorded in `kernels/resources.txt`.
//!
//! A kernel that needs more registers than it did, or spills more, fails here until the file is changed on purpose: run with
//! `GPT2MEG_RECORD=1` to write it anew.

use crate::bench;
use gpt2meg::device::cuda::kernel::{SOURCES, Source};
use gpt2meg::device::cuda::{Shape, compile};
use rayon::prelude::*;
use std::fmt::Write as _;

/// Architectures, and the shared memory that a block may have.
const ARCHITECTURES: [(&str, u32); 6] = [
    ("80", 163 << 10),
    ("86", 99 << 10),
    ("89", 99 << 10),
    ("90a", 227 << 10),
    ("100a", 227 << 10),
    ("120a", 99 << 10),
];

/// What a file of kernels is compiled for: the paper's group model where its kernels are for any shape, otherwise the
/// single-subject model.
fn shape(source: &Source) -> Shape {
    let d_model = if source.name.starts_with("general_") { 240 } else { 96 };
    Shape { d_model, n_head: 12, n_time: 256, n_level: 256 }
}

#[test]
fn resources_are_as_recorded() {
    let Some(toolkit) = bench::toolkit() else { return };
    let jobs: Vec<_> =
        SOURCES.iter().flat_map(|source| ARCHITECTURES.map(|architecture| (source, architecture))).collect();
    let rows: Vec<Vec<String>> = jobs
        .into_par_iter()
        .map(|(source, (architecture, shared_limit))| {
            let ptx = compile(source, &shape(source), architecture, shared_limit).unwrap().to_src();
            let assembly = toolkit.assemble(&ptx, &format!("sm_{architecture}")).unwrap();
            let rows = assembly.kernels.iter().map(|(name, needs)| {
                let spills = (needs.spill_store_bytes, needs.spill_load_bytes);
                let (registers, shared) = (needs.registers, needs.shared_bytes);
                format!("{name:<26} sm_{architecture:<5} {registers:>9} {:>6} {:>6} {shared:>6}", spills.0, spills.1)
            });
            rows.collect()
        })
        .collect();
    let mut rows = rows.concat();
    rows.sort();
    let mut text = String::from(
        "# Written by `GPT2MEG_RECORD=1 cargo test --test cuda resources`: 12 heads, 256 timesteps, 256 levels, d_model 96;\n\
         # for the general kernels, from `attend` to `product_logits`, 240.\n\
         # Bytes per thread spilled to memory and back, static shared bytes per block; ptxas 12.9.86.\n",
    );
    writeln!(
        text,
        "# {:<24} {:<8} {:>9} {:>6} {:>6} {:>6}",
        "kernel", "target", "registers", "stored", "loaded", "shared"
    )
    .unwrap();
    rows.iter().for_each(|row| writeln!(text, "{row}").unwrap());

    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/kernels/resources.txt");
    if std::env::var_os("GPT2MEG_RECORD").is_some() {
        std::fs::write(path, &text).unwrap();
    }
    let recorded = std::fs::read_to_string(path).unwrap_or_default();
    let differ: Vec<_> = text.lines().filter(|line| !recorded.lines().any(|old| old == *line)).collect();
    assert!(recorded == text, "not as recorded in kernels/resources.txt:\n{}", differ.join("\n"));
}
