//! cudarc's own unit tests against the stand-in: people who know CUDA wrote down there what they expect of a driver.
//!
//! A copy of the sources, as cargo has them, is built in the target folder and run with the stand-in as `libcuda.so`.
//! It is changed in two places only: where one test looks for `cuda_fp16.h`, and how often a kernel goes round that is
//! there to be slow (it would be slow for minutes here; times are modelled, so they keep their proportions). What does
//! not take part, by name:
//!
//! - two tests that compare the speed of pinned with that of other memory, which here is the same memory;
//! - three that need two GPUs (cudarc itself leaves them out).

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use support::compile::toolkit;

/// They time copies.
const NOT_HERE: [&str; 2] =
    ["test_pinned_copy_is_faster", "test_default_pinned_host_reads_are_faster_than_write_combined"];

/// Those that cudarc wants "executed by itself": one looks at all free memory, one breaks the primary context.
const BY_THEMSELVES: [&str; 2] = ["test_post_alloc_memory", "test_device_side_assert"];

/// Tests that pass, without those: to notice should they be left out by accident.
const EXPECTED: usize = 51;

const MANIFEST: &str = r#"
[package]
name = "cudarc"
version = "0.19.10"
edition = "2021"
build = "build.rs"

[features]
default = ["std", "driver", "nvrtc", "dynamic-loading", "cuda-12080", "f16"]
std = []
driver = []
nvrtc = []
dynamic-loading = []
cuda-12080 = []
f16 = ["dep:half"]

[dependencies]
half = { version = "2", features = ["num-traits", "rand_distr"], default-features = false, optional = true }
libloading = "0.9"

[workspace]
"#;

#[test]
fn cudarcs_own_tests_pass() {
    let Some(toolkit) = toolkit() else { return };
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cudarc");
    let include = toolkit.includes().iter().find(|folder| folder.join("cuda_fp16.h").is_file()).unwrap();
    copy_sources(&cudarc_sources(), &folder, include);
    let libraries = folder.join("libraries");
    fs::create_dir_all(&libraries).unwrap();
    let link = libraries.join("libcuda.so");
    let _ = fs::remove_file(&link);
    std::os::unix::fs::symlink(stand_in(), &link).unwrap();
    let search =
        [libraries.as_path(), toolkit.nvrtc().parent().unwrap()].map(|path| path.display().to_string()).join(":");

    let run = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO"))
            .args(["test", "--offline", "--quiet", "--lib", "--manifest-path"])
            .arg(folder.join("Cargo.toml"))
            .arg("--target-dir")
            .arg(folder.join("target"))
            .arg("--")
            .args(arguments)
            .env("LD_LIBRARY_PATH", &search)
            .env("RUSTFLAGS", "-Awarnings")
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{arguments:?}\n{text}\n{}", String::from_utf8_lossy(&output.stderr));
        passed(&text)
    };
    let skipped: Vec<&str> = NOT_HERE.iter().flat_map(|name| ["--skip", name]).collect();
    assert_eq!(run(&skipped), EXPECTED);
    for name in BY_THEMSELVES {
        assert_eq!(run(&["--ignored", name]), 1, "{name}");
    }
}

/// Where cargo keeps the sources of the cudarc that this crate is tested with.
fn cudarc_sources() -> PathBuf {
    let output = Command::new(env!("CARGO"))
        // For this platform only: what others need may not be at hand.
        .args(["metadata", "--offline", "--format-version", "1"])
        .args(["--filter-platform", &format!("{}-unknown-linux-gnu", std::env::consts::ARCH)])
        .arg("--manifest-path")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let cudarc = packages.iter().find(|package| package["name"] == "cudarc").unwrap();
    assert_eq!(cudarc["version"], "0.19.10", "see which tests the new version has, then change this and the manifest");
    Path::new(cudarc["manifest_path"].as_str().unwrap()).parent().unwrap().to_owned()
}

/// The stand-in's library beside this test.
fn stand_in() -> PathBuf {
    std::env::current_exe().unwrap().with_file_name("libptx_emulator.so")
}

/// Writes a file unless it holds just that, so that a second run builds nothing.
fn write(to: &Path, content: &[u8]) {
    if fs::read(to).ok().as_deref() != Some(content) {
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::write(to, content).unwrap();
    }
}

fn copy_sources(from: &Path, to: &Path, include: &Path) {
    write(&to.join("Cargo.toml"), MANIFEST.as_bytes());
    write(&to.join("build.rs"), &fs::read(from.join("build.rs")).unwrap());
    let mut folders = vec![PathBuf::from("src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(from.join(&folder)).unwrap() {
            let path = folder.join(entry.unwrap().file_name());
            if from.join(&path).is_dir() {
                folders.push(path);
                continue;
            }
            let mut content = fs::read(from.join(&path)).unwrap();
            if path.ends_with("driver/safe/launch.rs") {
                let text = String::from_utf8(content).unwrap();
                let changes = [
                    ("\"/usr/include\"", format!("{:?}", include.display().to_string())),
                    ("i < 1000000;", "i < 10000;".into()),
                ];
                content = changes
                    .iter()
                    .fold(text, |text, (before, after)| {
                        assert_eq!(text.matches(before).count(), 1, "{before}");
                        text.replace(before, after)
                    })
                    .into_bytes();
            }
            write(&to.join(&path), &content);
        }
    }
}

/// The number in "test result: ok. 51 passed".
fn passed(output: &str) -> usize {
    let line = output.lines().find(|line| line.starts_with("test result: ok.")).unwrap_or_else(|| panic!("{output}"));
    line.split_whitespace().nth(3).unwrap().parse().unwrap()
}
