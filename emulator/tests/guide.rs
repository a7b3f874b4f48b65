//! The commands of the guide and of the README work, and the guide's print what it says.

use std::path::{Path, PathBuf};
use std::process::Command;

use ptx_emulator::toolkit::{REQUIRED_VARIABLE, Toolkit};

/// A block of the guide: what stands behind the fence, and its text.
struct Block {
    label: String,
    text: String,
}

fn guide() -> Vec<Block> {
    blocks("docs/write-a-kernel-without-a-gpu.md")
}

/// The blocks of a document of this crate.
fn blocks(document: &str) -> Vec<Block> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(document);
    let text = std::fs::read_to_string(path).expect("the document is there");
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    for line in text.lines() {
        match (line.strip_prefix("```"), &mut open) {
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (Some(label), None) => open = Some(Block { label: label.to_owned(), text: String::new() }),
            (None, Some(block)) => {
                block.text.push_str(line);
                block.text.push('\n');
            }
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "a block of {document} is not closed");
    blocks
}

/// The repository's root.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate is in a workspace").to_path_buf()
}

/// What a change makes of a text: a run of kept and removed lines becomes kept and added ones.
fn patched(text: &str, change: &str) -> String {
    let side = |drop: char| -> String {
        let lines = change.lines().filter(|line| !line.starts_with(drop));
        lines.map(|line| format!("{}\n", line.get(1..).unwrap_or(""))).collect()
    };
    let (before, after) = (side('+'), side('-'));
    assert!(text.contains(&before), "the guide's change does not fit:\n{before}");
    text.replacen(&before, &after, 1)
}

/// Whether there is a compiler; if not, why.
fn compiler() -> bool {
    let Err(reason) = Toolkit::find() else { return true };
    assert!(std::env::var_os(REQUIRED_VARIABLE).is_none(), "{reason}");
    eprintln!("SKIPPED: {reason}");
    false
}

#[test]
fn the_readmes_command_works() {
    if !compiler() {
        return;
    }
    let commands: Vec<Block> = blocks("README.md").into_iter().filter(|block| block.label == "sh").collect();
    assert_eq!(commands.len(), 1, "the README shows how to run a kernel");
    let run = Command::new("bash").args(["-euc", &commands[0].text]).current_dir(root()).output().expect("bash runs");
    let (printed, errors) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success() && printed.contains("findings: none"), "{printed}\n{errors}");
    assert!(root().join("target/y.npy").exists());
}

#[test]
fn the_guide_can_be_followed() {
    if !compiler() {
        return;
    }
    let folder = root().join("target/guide");
    std::fs::create_dir_all(&folder).expect("target can be written");
    let kernel = folder.join("softmax.cu");
    let mut printed = String::new();
    for block in guide() {
        match block.label.as_str() {
            "cuda" => std::fs::write(&kernel, &block.text).expect("target can be written"),
            "diff target/guide/softmax.cu" => {
                let before = std::fs::read_to_string(&kernel).expect("written before");
                std::fs::write(&kernel, patched(&before, &block.text)).expect("target can be written");
            }
            "sh" | "sh fails" => {
                let run =
                    Command::new("bash").args(["-euc", &block.text]).current_dir(root()).output().expect("bash runs");
                // The compiler makes paths absolute; the guide shows them from the root.
                let here = format!("{}/", root().display());
                printed = String::from_utf8_lossy(&run.stdout).replace(&here, "");
                let errors = String::from_utf8_lossy(&run.stderr);
                let expected = if block.label == "sh" { 0 } else { 1 };
                assert_eq!(run.status.code(), Some(expected), "{}\n{printed}\n{errors}", block.text);
            }
            // What was printed last has this text, in this order; an ellipsis stands for anything.
            "text" => {
                let mut rest = printed.as_str();
                let parts = block.text.lines().flat_map(|line| line.split('…')).map(str::trim);
                for part in parts.filter(|part| !part.is_empty()) {
                    let at =
                        rest.find(part).unwrap_or_else(|| panic!("the guide promises {part:?}; printed:\n{printed}"));
                    rest = &rest[at + part.len()..];
                }
            }
            _ => {}
        }
    }
}

#[test]
fn the_guides_test_is_this_crates_test() {
    let shown = guide().into_iter().find(|block| block.label == "rust").expect("the guide shows a test");
    assert_eq!(shown.text, include_str!("first_kernel.rs"), "copy tests/first_kernel.rs into the guide");
    let written = guide().into_iter().find(|block| block.label == "cuda").expect("the guide shows a kernel");
    let change = guide().into_iter().find(|block| block.label.starts_with("diff")).expect("and what was wrong with it");
    assert_eq!(patched(&written.text, &change.text), include_str!("kernels/guide_softmax.cu"));
}
