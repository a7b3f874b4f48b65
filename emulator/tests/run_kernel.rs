//! The example program: arrays in and out, and one clear message for whatever is wrong.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use npyz::WriterBuilder;

/// y[i] = a x[i] for i < n, and a second kernel that does nothing.
const SCALE: &str = "
.version 8.0
.target sm_80
.address_size 64
.visible .entry scale(.param .u32 n, .param .f32 a, .param .u64 x, .param .u64 y)
{
    .reg .b32 %i, %n;
    .reg .f32 %a, %v;
    .reg .b64 %x, %y, %o;
    .reg .pred %p;
    ld.param.u32 %n, [n];
    ld.param.f32 %a, [a];
    ld.param.u64 %x, [x];
    ld.param.u64 %y, [y];
    mov.u32 %i, %tid.x;
    setp.ge.u32 %p, %i, %n;
    @%p ret;
    mul.wide.u32 %o, %i, 4;
    add.u64 %x, %x, %o;
    add.u64 %y, %y, %o;
    ld.global.f32 %v, [%x];
    mul.f32 %v, %v, %a;
    st.global.f32 [%y], %v;
    ret;
}
.visible .entry nothing() { ret; }
";

/// The program: built, if cargo has not built it along with this test.
fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let test = std::env::current_exe().expect("this test");
        let profile = test.parent().and_then(Path::parent).expect("deps lies in the profile's folder");
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "-q", "-p", "ptx-emulator", "--example", "run_kernel"]);
        if profile.ends_with("release") {
            build.arg("--release");
        }
        assert!(build.current_dir(env!("CARGO_MANIFEST_DIR")).status().expect("cargo runs").success());
        profile.join("examples/run_kernel")
    })
}

/// A folder with the kernel in it.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(folder.path().join("scale.ptx"), SCALE).expect("written");
    folder
}

fn run(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(program()).args(arguments).current_dir(folder).output().expect("the program runs")
}

/// The arguments of a launch of `scale`.
fn scale<'a>(rest: &[&'a str]) -> Vec<&'a str> {
    [&["scale.ptx", "--kernel", "scale"], rest].concat()
}

fn save(path: &Path, values: &[f32], order: npyz::Order) {
    let file = std::fs::File::create(path).expect("created");
    let shape = [2, values.len() as u64 / 2];
    let mut npy =
        npyz::WriteOptions::new().default_dtype().shape(&shape).order(order).writer(file).begin_nd().expect("begun");
    npy.extend(values.iter().copied()).expect("written");
    npy.finish().expect("finished");
}

/// It ended with this code and said all of this.
#[track_caller]
fn expect(output: &Output, code: i32, words: &[&str]) {
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{said}");
    for word in words {
        assert!(said.contains(word), "it does not say {word:?}: {said}");
    }
}

#[test]
fn arrays_go_in_and_come_out() {
    let folder = folder();
    let x: Vec<f32> = (0..20).map(|i| i as f32 - 7.5).collect();
    save(&folder.path().join("x.npy"), &x, npyz::Order::C);
    let output = run(
        folder.path(),
        &scale(&["i32:20", "f32:0.5", "x=x.npy", "y=f32[4,5]", "--save", "y=y.npy", "--json", "report.json"]),
    );
    expect(
        &output,
        0,
        &["findings: none", "counters:", "x: f32[2,10], least -7.5, most 11.5", "y: f32[4,5], least -3.75"],
    );
    let y =
        npyz::NpyFile::new(std::fs::File::open(folder.path().join("y.npy")).expect("saved")).expect("numpy's format");
    assert_eq!(y.shape(), [4, 5]);
    assert_eq!(y.into_vec::<f32>().expect("floats"), x.iter().map(|x| 0.5 * x).collect::<Vec<f32>>());
    let report: serde_json::Value =
        serde_json::from_slice(&std::fs::read(folder.path().join("report.json")).expect("saved")).expect("JSON");
    assert!(report["counters"]["thread_instructions"].as_u64().is_some_and(|count| count > 100));
}

#[test]
fn a_short_result_is_told() {
    let folder = folder();
    let output = run(folder.path(), &scale(&["i32:7", "f32:2", "x=random:f32[20]", "y=f32[20]"]));
    expect(&output, 0, &["y: not all of it was written; the first such byte is 28"]);
}

#[test]
fn a_finding_ends_with_one() {
    let folder = folder();
    let output = run(folder.path(), &scale(&["i32:21", "f32:2", "x=random:f32[20]", "y=f32[21]"]));
    expect(&output, 1, &["scale block (0,0,0) warp 0 lane 20", "ld.global.f32"]);
}

#[test]
fn mistakes_are_named() {
    let folder = folder();
    let x: Vec<f32> = vec![0.0; 20];
    save(&folder.path().join("turned.npy"), &x, npyz::Order::Fortran);
    let unknown = SCALE.replace("mul.f32 %v", "frobnicate.f32 %v");
    std::fs::write(folder.path().join("unknown.ptx"), unknown).expect("written");
    let cases: [(Vec<&str>, &[&str]); 9] = [
        (vec!["scale.ptx"], &["--kernel", "scale, nothing"]),
        (vec!["scale.ptx", "--kernel", "scales"], &["no kernel scales", "scale, nothing"]),
        (vec!["nowhere.ptx"], &["nowhere.ptx"]),
        (scale(&["i32:20"]), &["takes 4 arguments, not 1"]),
        (scale(&["i64:20", "f32:1", "x=f32[20]", "y=f32[20]"]), &["argument 1 has 8 bytes, but the parameter has 4"]),
        (scale(&["i32:20", "f32:1", "x=turned.npy", "y=f32[20]"]), &["Fortran order"]),
        (scale(&["i32:4294967296", "f32:1", "x=f32[20]", "y=f32[20]"]), &["does not fit into 32 bits"]),
        (scale(&["i32:20", "f32:1", "x=f31[20]", "y=f32[20]"]), &["f31", "bf16"]),
        (vec!["unknown.ptx", "--kernel", "scale"], &["line 22", "frobnicate"]),
    ];
    for (arguments, words) in cases {
        expect(&run(folder.path(), &arguments), 2, words);
    }
}
