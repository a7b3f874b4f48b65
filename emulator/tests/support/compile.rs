//! From CUDA C++ to PTX by NVRTC, and `ptxas` as the judge of whether a text is legal.

use std::io::Write;
use std::path::PathBuf;
use std::sync::OnceLock;

use ptx_emulator::toolkit::{REQUIRED_VARIABLE, Toolkit};

pub use super::nvrtc::compile;

/// The architectures that the emulator poses as.
pub const ARCHITECTURES: [u32; 6] = [80, 86, 89, 90, 100, 120];

/// The CUDA compiler, with NVRTC opened; `None` where it is not installed. Then the test is to return at once: that it
/// was skipped, and why, has been said. Where the compiler was installed on purpose, not to find it is a failure.
pub fn toolkit() -> Option<&'static Toolkit> {
    static TOOLKIT: OnceLock<Result<Toolkit, String>> = OnceLock::new();
    let found = TOOLKIT.get_or_init(|| {
        let toolkit = Toolkit::find().map_err(|e| e.to_string())?;
        toolkit.open_nvrtc().map_err(|e| e.to_string())?;
        Ok(toolkit)
    });
    match found {
        Ok(toolkit) => Some(toolkit),
        Err(reason) if std::env::var_os(REQUIRED_VARIABLE).is_some() => {
            panic!("{REQUIRED_VARIABLE} is set, but {reason}")
        }
        Err(reason) => {
            let test = std::thread::current().name().unwrap_or("test").to_owned();
            // Written to the stream itself: what goes through `eprintln` is shown of failed tests only.
            writeln!(std::io::stderr(), "SKIPPED {test}: {reason}").expect("standard error is open");
            None
        }
    }
}

/// The folder of the corpus.
pub fn kernels() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/kernels")
}

/// The text of a file of the corpus.
pub fn source(file: &str) -> String {
    std::fs::read_to_string(kernels().join(file)).unwrap_or_else(|e| panic!("{file}: {e}"))
}

/// Compiles and has `ptxas` confirm what came out. Panics with the compiler's words.
pub fn compile_checked(toolkit: &Toolkit, file: &str, architecture: u32) -> String {
    let ptx = compile(toolkit, file, &source(file), architecture, &[]).unwrap_or_else(|log| panic!("{file}: {log}"));
    toolkit.assemble(&ptx, &format!("sm_{architecture}")).unwrap_or_else(|e| panic!("{file}: {e}"));
    ptx
}
