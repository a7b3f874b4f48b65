//! Planted faults: kernels of the corpus with one thing wrong, each of which must be noticed.
//!
//! A fault is a text and its replacement in the source of a kernel. The mutated kernel is compiled by NVRTC as if
//! somebody had written it so, and run on the machine with its default settings. What must come is a finding of the
//! right kind at the right line of the `.cu`; where a fault only changes values, the result must differ clearly from
//! that of the kernel without the fault (which the tests of the corpus compare with references of their own).

#[path = "../support/mod.rs"]
mod support;

mod jobs;
mod table;

use ptx_emulator::settings::Settings;
use ptx_emulator::watch::{Finding, FindingKind, Place};

use support::compile::{compile, source, toolkit};
use support::device::{Loaded, real_gpu, run_through_standin, seed};
use support::job::{Job, Outcome};
use table::{Expect, FAULTS, Fault};

/// A runaway loop is one that takes more instructions than any of these jobs has.
const MOST_INSTRUCTIONS: u64 = 3_000_000;

fn settings() -> Settings {
    Settings { seed: seed(), max_warp_instructions: MOST_INSTRUCTIONS, ..Settings::default() }
}

/// The source with the fault: the first place of the text, at or after the kernel's name.
fn mutated(fault: &Fault) -> String {
    let source = source(fault.file);
    let from =
        source.find(&format!(" {}(", fault.kernel)).unwrap_or_else(|| panic!("{}: no {}", fault.name, fault.kernel));
    if fault.text.is_empty() {
        return source;
    }
    // What stands in functions that the kernel calls stands before it.
    let at = source[from..].find(fault.text).map(|at| at + from).or_else(|| source.find(fault.text));
    let at = at.unwrap_or_else(|| panic!("{}: the kernel has no {:?}", fault.name, fault.text));
    format!("{}{}{}", &source[..at], fault.replacement, &source[at + fault.text.len()..])
}

fn job(fault: &Fault) -> Job {
    let mut job = (fault.job)();
    job.steps.retain(|step| step.kernel == fault.kernel);
    assert!(!job.steps.is_empty(), "{}: the job has no {}", fault.name, fault.kernel);
    job
}

/// What is wrong with how a fault was noticed, if anything.
fn check(fault: &Fault, source: &str, ptx: &str) -> Option<String> {
    let job = job(fault);
    let outcome = match Loaded::machine(ptx, &settings()) {
        Ok(loaded) => loaded.run(&job),
        Err(error) => return Some(error),
    };
    match &fault.expect {
        Expect::Found(kinds, places) => match outcome.findings().first() {
            None => {
                Some(format!("nothing was found{}", outcome.complaint().map_or(String::new(), |c| format!(": {c}"))))
            }
            Some(finding) => wrong(finding, kinds, places, fault.file, source),
        },
        Expect::Differs => match outcome.complaint() {
            // A finding instead of a wrong value is as good, if it is about this kernel.
            Some(said) => (!said.contains(fault.kernel)).then_some(said),
            None => (!differs(fault, &job, &outcome)).then(|| "the result is the same".into()),
        },
    }
}

/// Whether the result differs clearly from the one without the fault.
fn differs(fault: &Fault, job: &Job, outcome: &Outcome) -> bool {
    let toolkit = toolkit().expect("asked for before");
    let ptx = compile(toolkit, fault.file, &source(fault.file), 80, &[]).expect("a file of the corpus");
    let mut right = (fault.job)();
    right.steps.retain(|step| step.kernel == fault.kernel);
    assert_eq!(job.buffers.len(), right.buffers.len());
    let right = Loaded::machine(&ptx, &settings()).expect("a file of the corpus").run(&right).clean(fault.name);
    let last = right.buffers.len() - 1;
    let (got, want) = (&outcome.buffers[last], &right.buffers[last]);
    // Of floats, more than rounding may do; what is subnormal as a float is taken for an integer.
    let single = |bytes: &[u8]| f32::from_le_bytes(bytes.try_into().expect("four"));
    got.chunks_exact(4).zip(want.chunks_exact(4)).any(|(a, b)| {
        let (x, y) = (single(a), single(b));
        let whole = x.is_subnormal() || y.is_subnormal();
        a != b && (whole || x.is_nan() || y.is_nan() || (x - y).abs() > 1e-3 * (1e-3 + y.abs()))
    })
}

fn wrong(finding: &Finding, kinds: &[FindingKind], places: &[&str], file: &str, source: &str) -> Option<String> {
    if !kinds.contains(&finding.kind) {
        return Some(format!("it was taken for {:?}, not for one of {kinds:?}: {finding}", finding.kind));
    }
    let lines = |text: &str| -> Vec<u32> {
        // A statement's line is where it begins or where it ends: all that it spans count.
        let all: Vec<&str> = source.lines().collect();
        let first = (0..all.len()).filter(|&i| all[i].contains(text));
        let last = |i: usize| (i..all.len()).find(|&j| ends(all[j])).unwrap_or(i);
        first.flat_map(|i| i..=last(i)).map(|i| i as u32 + 1).collect()
    };
    let expected: Vec<u32> = places.iter().flat_map(|text| lines(text)).collect();
    assert!(!expected.is_empty(), "no line has any of {places:?}");
    // Of an inlined function, its place or the call's.
    let is_right = |place: &Place| {
        let outside = place.inlined_at.iter().map(|(file, line)| (file, *line));
        std::iter::once((&place.file, place.line))
            .chain(outside)
            .any(|(f, line)| f.ends_with(file) && expected.contains(&line))
    };
    // Of a race both accesses; of what is told with another place than where it was done, either.
    let (here, other) = (is_right(&finding.place), finding.other.as_ref().map(is_right));
    let right = match finding.kind {
        FindingKind::Race => here && other == Some(true),
        _ => here || other == Some(true),
    };
    (!right).then(|| format!("it was not placed at line {expected:?}: {finding}"))
}

/// Whether a statement or the head of a block ends with this line.
fn ends(line: &str) -> bool {
    line.ends_with([';', '{', '}'])
}

/// Runs a share of the table; in several tests, so that they run side by side.
fn share(part: usize, parts: usize) {
    let Some(toolkit) = toolkit() else { return };
    if real_gpu() {
        return; // Hardware notices hardly any of these.
    }
    let mut failures = Vec::new();
    for fault in FAULTS.iter().skip(part).step_by(parts) {
        let source = mutated(fault);
        match compile(toolkit, fault.file, &source, 80, &[]) {
            Ok(ptx) => {
                failures.extend(check(fault, &source, &ptx).map(|problem| format!("{}: {problem}", fault.name)));
            }
            Err(log) => failures.push(format!("{}: does not compile: {log}", fault.name)),
        }
    }
    assert!(
        failures.is_empty(),
        "{} faults were not noticed as they must be:\n{}",
        failures.len(),
        failures.join("\n")
    );
}

#[test]
fn all_faults_are_noticed_first_part() {
    share(0, 4);
}

#[test]
fn all_faults_are_noticed_second_part() {
    share(1, 4);
}

#[test]
fn all_faults_are_noticed_third_part() {
    share(2, 4);
}

#[test]
fn all_faults_are_noticed_fourth_part() {
    share(3, 4);
}

#[test]
fn the_table_is_long_enough() {
    assert!(FAULTS.len() >= 40, "{} faults", FAULTS.len());
    for document in [include_str!("../../README.md"), include_str!("../../ARCHITECTURE.md")] {
        assert!(document.contains(&format!("{} ", FAULTS.len())), "the documents say how many faults there are");
    }
    let differ = FAULTS.iter().filter(|fault| matches!(fault.expect, Expect::Differs)).count();
    let how = format!("{} with kind and line, {differ} by a wrong result", FAULTS.len() - differ);
    assert!(include_str!("../../README.md").contains(&how), "the README says how they are noticed: {how}");
    let mut names: Vec<&str> = FAULTS.iter().map(|fault| fault.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), FAULTS.len(), "names are unique");
}

/// Through cudarc, a fault is an error of the driver that tells the whole diagnosis, kernel and line.
#[test]
fn faults_are_errors_of_the_driver() {
    let Some(toolkit) = toolkit() else { return };
    if real_gpu() {
        return;
    }
    let placed = |fault: &&Fault| matches!(fault.expect, Expect::Found(..));
    for fault in FAULTS.iter().filter(placed).step_by(9) {
        let source = mutated(fault);
        let ptx = compile(toolkit, fault.file, &source, 80, &[]).unwrap_or_else(|log| panic!("{}: {log}", fault.name));
        let outcome = run_through_standin(&ptx, &settings(), &job(fault));
        let error = outcome.error.unwrap_or_else(|| panic!("{}: the driver saw nothing", fault.name));
        assert!(error.contains(fault.kernel) && error.contains(&format!("{}:", fault.file)), "{}: {error}", fault.name);
    }
}

/// Without a fault, none of the jobs gives a finding.
#[test]
fn nothing_is_found_where_nothing_is_wrong() {
    let Some(toolkit) = toolkit() else { return };
    let mut done: Vec<(&str, &str)> = Vec::new();
    for fault in FAULTS.iter().filter(|fault| !fault.text.is_empty()) {
        if done.contains(&(fault.file, fault.kernel)) {
            continue;
        }
        done.push((fault.file, fault.kernel));
        let ptx = compile(toolkit, fault.file, &source(fault.file), 80, &[]).expect("a file of the corpus");
        let loaded = Loaded::new(&ptx, &settings()).unwrap_or_else(|e| panic!("{}: {e}", fault.file));
        loaded.run(&job(fault)).clean(fault.kernel);
    }
}
