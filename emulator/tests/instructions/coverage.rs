//! That nothing which the decoder knows is without a case.

use std::collections::BTreeSet;

use ptx_emulator::decode::mnemonics;

/// The opcodes that cases use, cut at their dots.
fn opcodes() -> Vec<Vec<String>> {
    let mut opcodes = Vec::new();
    for case in crate::all_cases() {
        for statement in case.body.split([';', '{', '}']) {
            let mut words = statement.split_whitespace().filter(|word| !word.starts_with('@') && !word.ends_with(':'));
            let opcode = words.next().unwrap_or_default();
            opcodes.push(opcode.split('.').map(str::to_owned).collect());
        }
    }
    opcodes
}

#[test]
fn every_mnemonic_has_a_case() {
    let opcodes = opcodes();
    let missing: Vec<&str> = mnemonics().filter(|name| !opcodes.iter().any(|opcode| opcode[0] == *name)).collect();
    assert!(missing.is_empty(), "no case has {missing:?}");
}

/// Sources of the decoder, and the instructions that each of them decodes.
const SOURCES: [(&str, &str, &[&str]); 13] = [
    ("atomic", include_str!("../../src/decode/instructions/atomic.rs"), &["atom", "red"]),
    ("bits", include_str!("../../src/decode/instructions/bits.rs"), &[]),
    ("compare", include_str!("../../src/decode/instructions/compare.rs"), &["set", "setp", "selp", "slct"]),
    ("control", include_str!("../../src/decode/instructions/control.rs"), &[]),
    ("convert", include_str!("../../src/decode/instructions/convert.rs"), &["cvt"]),
    ("float", include_str!("../../src/decode/instructions/float.rs"), &[]),
    ("half", include_str!("../../src/decode/instructions/half.rs"), &[]),
    ("integer", include_str!("../../src/decode/instructions/integer.rs"), &[]),
    ("mbarrier", include_str!("../../src/decode/instructions/mbarrier.rs"), &["mbarrier", "cp"]),
    (
        "memory",
        include_str!("../../src/decode/instructions/memory.rs"),
        &["ld", "ldu", "st", "cp", "prefetch", "prefetchu", "discard", "applypriority", "createpolicy", "atom", "red"],
    ),
    ("moves", include_str!("../../src/decode/instructions/moves.rs"), &["mov", "cvta", "isspacep"]),
    (
        "together",
        include_str!("../../src/decode/instructions/together.rs"),
        &["shfl", "vote", "match", "redux", "activemask", "elect", "mma", "ldmatrix", "stmatrix", "movmatrix"],
    ),
    ("wmma", include_str!("../../src/decode/instructions/wmma.rs"), &["wmma"]),
];

/// Parts that are looked for only to refuse them, and names of functions.
const REFUSED: [(&str, &str); 8] = [
    // Of functions' parameters; no case is a function.
    ("memory", "param::func"),
    ("atomic", "async"),
    ("together", "sp"),
    ("together", "sp::ordered_metadata"),
    ("control", "vprintf"),
    ("control", "__assertfail"),
    ("control", "malloc"),
    ("control", "free"),
];

/// Parts of opcodes that a source speaks of: texts that begin a pair or an argument, as in `has("x")` and `("x", 1)`, or
/// that a pattern joins.
fn spoken_of(source: &str) -> BTreeSet<&str> {
    let source = source.split("#[cfg(test)]").next().unwrap_or_default();
    let starts = source.match_indices("(\"").map(|(at, _)| &source[at + 2..]);
    let texts = starts.filter_map(|rest| rest.split_once('"').map(|(text, _)| text));
    texts
        .filter(|text| !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "_:".contains(c)))
        .collect()
}

#[test]
fn every_type_has_a_case() {
    let opcodes = opcodes();
    let types = spoken_of(include_str!("../../src/decode/types.rs"));
    let missing = types.into_iter().filter(|name| !opcodes.iter().any(|opcode| opcode.iter().any(|part| part == name)));
    // No instruction here has operands of 128 bits.
    let missing: Vec<&str> = missing.filter(|name| !matches!(*name, "b128")).collect();
    assert!(missing.is_empty(), "no case has {missing:?}");
}

#[test]
fn every_modifier_has_a_case() {
    let opcodes = opcodes();
    let mut missing = Vec::new();
    for (name, source, bases) in SOURCES {
        for part in spoken_of(source) {
            let ours = opcodes.iter().filter(|opcode| bases.is_empty() || bases.contains(&opcode[0].as_str()));
            let used = ours.into_iter().any(|opcode| opcode.iter().any(|have| have == part));
            if !used && !REFUSED.contains(&(name, part)) {
                missing.push(format!("{name}: .{part}"));
            }
        }
    }
    assert!(missing.is_empty(), "no case has {}", missing.join(", "));
}

#[test]
fn the_readme_says_how_many_there_are() {
    let about = (crate::all_cases().len() + 50) / 100 * 100;
    let words = format!("About {},{:03} small PTX programs", about / 1000, about % 1000);
    assert!(include_str!("../../README.md").contains(&words), "not what the README says: {words}");
}
