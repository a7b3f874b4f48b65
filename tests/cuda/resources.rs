//! What the assembler makes of every kernel, for every architecture: recorded in `kernels/resources.txt`.
//!
//! A kernel that needs more registers than it did, spills more, or is made of other instructions, fails here until the file is changed on purpose: run with
//! `GPT2MEG_RECORD=1` to write it anew.

use crate::gpu;
use gpt2meg::device::cuda::kernel::{SOURCES, Source};
use gpt2meg::device::cuda::nvrtc::Code;
use gpt2meg::device::cuda::{Shape, compile};
use ptx_emulator::sass::Mix;
use ptx_emulator::toolkit::{Assembly, Resources};
use rayon::prelude::*;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Architectures that the engine asks for, and the shared memory that a block may have.
const ARCHITECTURES: [(&str, u32); 6] =
    [("80", 163 << 10), ("86", 99 << 10), ("89", 99 << 10), ("90", 227 << 10), ("100", 227 << 10), ("120", 99 << 10)];

/// Those that have a variant of their own, whose kernels run on it alone.
const OWN: [&str; 3] = ["90", "100", "120"];

/// What a file of kernels is compiled for: the paper's single-subject and group models, as far as they take its kernels; attention,
/// whose registers grow with the number of heads, for the most that there may be, too.
fn shapes(source: &Source) -> Vec<Shape> {
    let shape = |d_model, n_head| Shape { d_model, n_head, n_time: 256, n_level: 256 };
    let (single, group, widest) = (shape(96, 12), shape(240, 12), shape(128, 16));
    match source.name {
        "decode.cu" | "embed.cu" | "weights.cu" | "working.cu" => vec![single, group],
        "attention.cu" | "attention_backward.cu" => vec![single, widest],
        name if name.starts_with("general_") => vec![group],
        _ => vec![single],
    }
}

/// The columns with their widths.
const COLUMNS: [(&str, usize); 13] = [
    ("d_model", 8),
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

fn row(name: &str, architecture: &str, shape: &Shape, needs: &Resources, mix: &Mix) -> String {
    let numbers = [
        shape.d_model as u32,
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
    let jobs: Vec<_> = SOURCES
        .iter()
        .flat_map(|source| shapes(source).into_iter().map(move |shape| (source, shape)))
        .flat_map(|job| ARCHITECTURES.map(|architecture| (job, architecture)))
        .collect();
    let rows: Vec<Vec<String>> = jobs
        .into_par_iter()
        .map(|((source, shape), (architecture, shared_limit))| {
            let ptx = compile(source, &shape, Code::Ptx, architecture, shared_limit).unwrap();
            let ptx = String::from_utf8(ptx).unwrap();
            let assembly = toolkit.assemble(&ptx, &format!("sm_{architecture}")).unwrap();
            let mixes = toolkit.disassemble(&assembly).unwrap();
            if OWN.contains(&architecture) {
                // Nothing is asked for that only the variant has.
                let own = toolkit.assemble(&ptx, &format!("sm_{architecture}a")).unwrap();
                assert_eq!(own.kernels, assembly.kernels, "{} for sm_{architecture}a", source.name);
            }
            assembly.kernels.iter().map(|(name, needs)| row(name, architecture, &shape, needs, &mixes[name])).collect()
        })
        .collect();
    let mut rows = rows.concat();
    rows.sort();
    let mut text = String::from(
        "# Written by `GPT2MEG_RECORD=1 cargo test --test cuda resources`: 256 timesteps, 256 levels, 12 heads (of d_model 128: 16).\n\
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

/// A card that NVRTC knows gets machine code from it, and not PTX: that is the machine code which is recorded. It holds the constants
/// that the host reads, too, which no kernel asks for.
#[test]
fn machine_code_is_what_ptxas_makes() {
    let Some(toolkit) = gpu::toolkit() else { return };
    // Every source, every architecture.
    let jobs: Vec<_> = SOURCES.iter().zip(ARCHITECTURES.iter().cycle()).collect();
    jobs.into_par_iter().for_each(|(source, &(architecture, shared_limit))| {
        let what = format!("{} for sm_{architecture}", source.name);
        let made = |code| compile(source, &shapes(source)[0], code, architecture, shared_limit).unwrap();
        let ptx = String::from_utf8(made(Code::Ptx)).unwrap();
        let expected = toolkit.assemble(&ptx, &format!("sm_{architecture}")).unwrap();
        let machine = Assembly { cubin: made(Code::Machine), kernels: BTreeMap::new() };
        let mixes = toolkit.disassemble(&machine).unwrap();
        assert!(mixes == toolkit.disassemble(&expected).unwrap(), "{what}");

        let symbols = symbols(&machine.cubin);
        let constants = source.text.split("extern \"C\" __constant__ const u32 ").skip(1);
        for name in constants.map(|rest| rest.split([' ', '=']).next().unwrap()) {
            assert!(symbols.contains(&(name.to_owned(), 4)), "{what}: no {name} of four bytes among {symbols:?}");
        }
    });
}

/// Names and sizes of the variables in an object file (ELF, 64 bits, little-endian). They are symbols of its own, as of every program
/// that is compiled whole.
fn symbols(elf: &[u8]) -> Vec<(String, u64)> {
    let number = |at: usize, len: usize| {
        elf[at..at + len].iter().rev().fold(0u64, |number, &byte| number << 8 | u64::from(byte)) as usize
    };
    let (sections, size, count) = (number(40, 8), number(58, 2), number(60, 2));
    let section = |i: usize| sections + i * size;
    let table = (0..count).map(section).find(|&at| number(at + 4, 4) == 2).expect("a table of symbols");
    let (begin, len, names) = (number(table + 24, 8), number(table + 32, 8), section(number(table + 40, 4)));
    let names = number(names + 24, 8);
    let variables = (begin..begin + len).step_by(24).filter(|&at| elf[at + 4] & 15 == 1);
    variables
        .map(|at| {
            let name = elf[names + number(at, 4)..].split(|&byte| byte == 0).next().expect("a text");
            (String::from_utf8(name.to_vec()).unwrap(), number(at + 16, 8) as u64)
        })
        .collect()
}
