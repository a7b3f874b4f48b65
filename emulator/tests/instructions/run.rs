//! Runs a table of cases.

use ptx_emulator::settings::{Settings, Watch};

use crate::args;
use crate::case::{BLOCK, Case, Expect, THREADS, Want, agrees, operands};
use crate::support::compile::toolkit;
use crate::support::device::{Loaded, target};
use crate::support::job::Job;
use crate::text::module;

/// Mismatches that are printed; there may be thousands.
const SHOWN: usize = 30;

/// Has `ptxas` accept the table for an architecture, runs every case, and panics with all that went wrong.
pub fn table(architecture: u32, cases: Vec<Case>) {
    let Some(toolkit) = toolkit() else { return };
    let all: Vec<&Case> = cases.iter().collect();
    let text = module(&all, architecture);
    if let Err(error) = toolkit.assemble(&text, &format!("sm_{architecture}")) {
        // The assembler names lines by their numbers.
        let lines: Vec<&str> = text.lines().collect();
        let message = error.to_string();
        let numbers = message.split("line ").skip(1).filter_map(|rest| rest.split(';').next()?.parse::<usize>().ok());
        let cited: Vec<String> = numbers.map(|number| format!("{number}: {}", lines[number - 1].trim())).collect();
        panic!("{message}\n{}", cited.join("\n"));
    }
    let settings = Settings { target: target(architecture), watch: Watch::Memory, ..Settings::default() };
    let mut wrong = Vec::new();
    match Loaded::new(&text, &settings) {
        Ok(loaded) => {
            for (i, case) in cases.iter().enumerate() {
                wrong.extend(check(&loaded, &format!("case_{i}"), case));
            }
        }
        // Which of them are not known is told best one by one.
        Err(_) => {
            for case in &cases {
                match Loaded::new(&module(&[case], architecture), &settings) {
                    Ok(loaded) => wrong.extend(check(&loaded, "case_0", case)),
                    Err(error) => wrong.push(format!("{}: {error}", case.name)),
                }
            }
        }
    }
    let shown = wrong.iter().take(SHOWN).cloned().collect::<Vec<_>>().join("\n");
    assert!(wrong.is_empty(), "{} of {} cases are wrong:\n{shown}", wrong.len(), cases.len());
}

/// Runs one case; what is wrong with it, if anything.
fn check(loaded: &Loaded, kernel: &str, case: &Case) -> Option<String> {
    let operands = operands(case);
    let mut job = Job::new();
    // A kernel without operands still gets a buffer.
    let flat: Vec<u64> = operands.iter().flatten().copied().chain([0]).collect();
    let input = job.buffer(&flat);
    let output = job.buffer(&vec![0u64; THREADS * case.outputs.len()]);
    job.launch(kernel, THREADS as u32 / BLOCK, BLOCK, args![input, output]);
    let outcome = loaded.run(&job);
    if let Some(said) = outcome.complaint() {
        return Some(format!("{}: {said}", case.name));
    }
    let results = outcome.values::<u64>(output);
    let wants: Vec<Vec<Want>> = match &case.expect {
        Expect::Lane(expect) => operands.iter().map(|x| expect(x)).collect(),
        Expect::Group(size, expect) => operands.chunks(*size).flat_map(expect).collect(),
    };
    for (thread, (got, want)) in results.chunks(case.outputs.len()).zip(&wants).enumerate() {
        for ((&kind, &got), &want) in case.outputs.iter().zip(got).zip(want) {
            if !agrees(kind, got, want) {
                let operands: Vec<String> = operands[thread].iter().map(|x| format!("{x:#x}")).collect();
                return Some(format!("{} of ({}) gave {got:#x}, not {want:x?}", case.name, operands.join(", ")));
            }
        }
    }
    None
}
