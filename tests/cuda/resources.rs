//! What the assembler makes of every kernel, for every architecture: recorded in `kernels/resources.txt`.
//!
//! A kernel that needs more registers than it did, spills more, or is made of other instructions, fails here until the file is changed on purpose: run with
//! `GPT2MEG_RECORD=1` to write it anew.

use crate::gpu;
use gpt2meg::device::cuda::kernel::{SOURCES, Source};
use gpt2meg::device::cuda::{Shape, compile};
use ptx_emulator::sass::Mix;
use ptx_emulator::toolkit::Resources;
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

/// The columns with their widths.
const COLUMNS: [(&str, usize); 12] = [
    ("registers", 10),
    ("stored", 7),
    ("loaded", 7),
    ("static", 7),
    ("all", 7),
    ("tensor", 7),
    ("special", 8),
    ("float", 6),
    ("convert", 8),
    ("shared", 7),
    ("global", 7),
    ("local", 6),
];

fn row(name: &str, architecture: &str, needs: &Resources, mix: &Mix) -> String {
    let numbers = [
        needs.registers,
        needs.spill_store_bytes,
        needs.spill_load_bytes,
        needs.shared_bytes,
        mix.all,
        mix.tensor,
        mix.special,
        mix.float,
        mix.convert,
        mix.shared,
        mix.global,
        mix.local,
    ];
    let cells = numbers.iter().zip(COLUMNS).map(|(number, (_, width))| format!("{number:>width$}"));
    format!("{name:<26} sm_{architecture:<5}{}", cells.collect::<String>())
}

#[test]
fn resources_are_as_recorded() {
    let Some(toolkit) = gpu::toolkit() else { return };
    let jobs: Vec<_> =
        SOURCES.iter().flat_map(|source| ARCHITECTURES.map(|architecture| (source, architecture))).collect();
    let rows: Vec<Vec<String>> = jobs
        .into_par_iter()
        .map(|(source, (architecture, shared_limit))| {
            let ptx = compile(source, &shape(source), architecture, shared_limit).unwrap().to_src();
            let assembly = toolkit.assemble(&ptx, &format!("sm_{architecture}")).unwrap();
            let mixes = toolkit.disassemble(&assembly).unwrap();
            assembly.kernels.iter().map(|(name, needs)| row(name, architecture, needs, &mixes[name])).collect()
        })
        .collect();
    let mut rows = rows.concat();
    rows.sort();
    let mut text = String::from(
        "# Written by `GPT2MEG_RECORD=1 cargo test --test cuda resources`: 12 heads, 256 timesteps, 256 levels, d_model 96;\n\
         # for the general kernels, from `attend` to `product_logits`, 240.\n\
         # Registers of a thread, bytes of them spilled to memory and back, static shared bytes of a block; instructions of the\n\
         # machine code, each once: all, and those of a kind. ptxas 12.9.86, nvdisasm 13.5.37.\n",
    );
    let columns = COLUMNS.map(|(name, width)| format!("{name:>width$}"));
    writeln!(text, "# {:<24} {:<8}{}", "kernel", "target", columns.concat()).unwrap();
    rows.iter().for_each(|row| writeln!(text, "{row}").unwrap());

    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/kernels/resources.txt");
    if std::env::var_os("GPT2MEG_RECORD").is_some() {
        std::fs::write(path, &text).unwrap();
    }
    let recorded = std::fs::read_to_string(path).unwrap_or_default();
    let differ: Vec<_> = text.lines().filter(|line| !recorded.lines().any(|old| old == *line)).collect();
    assert!(recorded == text, "not as recorded in kernels/resources.txt:\n{}", differ.join("\n"));
}
