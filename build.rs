//! Embeds the CUDA kernels: each file of `kernels/` as one text with its includes and a hash, and for each kernel a struct
//! of its arguments, taken from the kernel's own signature. So a launch with a wrong argument does not compile.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

fn main() {
    println!("cargo::rerun-if-changed=kernels");
    let mut files: Vec<PathBuf> = std::fs::read_dir("kernels")
        .expect("the folder kernels")
        .map(|entry| entry.expect("an entry of kernels").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "cu"))
        .collect();
    files.sort();
    let mut rust: String = files.iter().map(|file| module(file)).collect();
    let all = files.iter().map(|file| format!("&{}::SOURCE, ", stem(file)));
    writeln!(rust, "/// Every file of kernels.\npub const SOURCES: &[&Source] = &[{}];", all.collect::<String>())
        .unwrap();
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    std::fs::write(out.join("kernels.rs"), rust).expect("the output folder can be written");
}

/// The name of a file without its ending.
fn stem(file: &Path) -> &str {
    file.file_stem().and_then(|stem| stem.to_str()).expect("a name in UTF-8")
}

/// The Rust module of one file.
fn module(file: &Path) -> String {
    let stem = stem(file);
    let text = expand(file, &mut BTreeSet::new());
    let mut rust = String::new();
    writeln!(rust, "/// `{stem}.cu`.\npub mod {stem} {{").unwrap();
    writeln!(rust, "use super::{{Argument, Kernel, Pointer, Source}};").unwrap();
    writeln!(rust, "/// The text, includes expanded.").unwrap();
    writeln!(
        rust,
        "pub const SOURCE: Source = Source {{ name: \"{stem}.cu\", hash: {:#x}, text: r####\"{text}\"#### }};",
        hash(&text)
    )
    .unwrap();
    // Only what this file itself defines: included files define no kernels.
    for signature in text.split("\nKERNEL").skip(1) {
        kernel(signature, &mut rust);
    }
    rust.push_str("}\n");
    rust
}

/// A file with each of its includes in place of the first `#include` of it.
fn expand(file: &Path, seen: &mut BTreeSet<PathBuf>) -> String {
    if !seen.insert(file.to_path_buf()) {
        return String::new();
    }
    let name = file.file_name().and_then(|name| name.to_str()).expect("a name in UTF-8");
    let text = std::fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let mut out = format!("#line 1 \"{name}\"\n");
    for (number, line) in text.lines().enumerate() {
        let include = line.strip_prefix("#include \"").and_then(|rest| rest.strip_suffix('"'));
        match include {
            Some(include) => {
                let inner = expand(&file.with_file_name(include), seen);
                writeln!(out, "{inner}#line {} \"{name}\"", number + 2).unwrap();
            }
            // Each text is pasted once; the pragma would be a warning in a main file.
            None if line == "#pragma once" => out.push('\n'),
            None => writeln!(out, "{line}").unwrap(),
        }
    }
    out
}

/// The struct of a kernel's arguments, from what follows `KERNEL` up to the body.
fn kernel(signature: &str, rust: &mut String) {
    let signature = &signature[..signature.find('{').expect("a kernel has a body")];
    // `__launch_bounds__(..)` may come first; the list of parameters is the last pair of brackets.
    let open = signature.rfind('(').expect("a kernel has parameters");
    let name = signature[..open].split_whitespace().last().expect("a kernel has a name");
    let list = signature[open + 1..].trim_end().strip_suffix(')').expect("the list ends before the body");
    let parameters: Vec<(String, String)> = list.split(',').map(parameter).collect();

    let camel: String = name.split('_').map(|word| word[..1].to_uppercase() + &word[1..]).collect();
    writeln!(rust, "/// Arguments of `{name}`, as the kernel's own comment explains them.").unwrap();
    writeln!(
        rust,
        "#[derive(Debug, Clone, Copy)]\n#[allow(missing_docs, reason = \"explained in the kernel's source\")]"
    )
    .unwrap();
    writeln!(rust, "pub struct {camel} {{").unwrap();
    for (name, kind) in &parameters {
        writeln!(rust, "pub {name}: {kind},").unwrap();
    }
    writeln!(rust, "}}\nimpl Kernel for {camel} {{").unwrap();
    writeln!(rust, "const SOURCE: &'static Source = &SOURCE;\nconst NAME: &'static str = \"{name}\";").unwrap();
    let all: Vec<String> = parameters.iter().map(|(name, _)| format!("Argument::of(&self.{name})")).collect();
    writeln!(rust, "fn arguments(&self) -> Vec<Argument<'_>> {{ vec![{}] }}\n}}", all.join(", ")).unwrap();
}

/// Name and Rust type of one parameter.
fn parameter(text: &str) -> (String, String) {
    let text = text.trim().trim_start_matches("const ");
    let (kind, name) = text.rsplit_once(' ').unwrap_or_else(|| panic!("a parameter without a name: {text}"));
    let (kind, pointer) = kind.trim().strip_suffix('*').map_or((kind.trim(), false), |kind| (kind, true));
    let rust = match kind {
        "float" => "f32",
        "double" => "f64",
        "u8" => "u8",
        "u16" => "u16",
        "u32" => "u32",
        "u64" => "u64",
        "uint4" => "[u32; 4]",
        other => panic!("a parameter of a type without a Rust twin: {other}"),
    };
    (name.to_owned(), if pointer { format!("Pointer<{rust}>") } else { rust.to_owned() })
}

/// FNV-1a of 128 bits: tells versions of a source apart.
fn hash(text: &str) -> u128 {
    text.bytes().fold(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d, |hash, byte| {
        (hash ^ u128::from(byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b)
    })
}
