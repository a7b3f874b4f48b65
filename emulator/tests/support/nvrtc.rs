//! CUDA C++ to PTX by NVRTC, through cudarc.

use cudarc::nvrtc::{CompileError, CompileOptions, compile_ptx_with_opts};
use ptx_emulator::toolkit::Toolkit;

/// Compiles CUDA C++ for an architecture (80 for `compute_80`), with line numbers. The error is the compiler's log.
pub fn compile(
    toolkit: &Toolkit,
    file: &str,
    source: &str,
    architecture: u32,
    options: &[&str],
) -> Result<String, String> {
    let mut all = vec![
        format!("--gpu-architecture=compute_{architecture}"),
        "--std=c++17".to_owned(),
        "-lineinfo".to_owned(),
        "-default-device".to_owned(),
        "--device-int128".to_owned(),
    ];
    all.extend(options.iter().map(|&option| option.to_owned()));
    let include_paths = toolkit.includes().iter().map(|path| path.display().to_string()).collect();
    let options = CompileOptions { include_paths, name: Some(file.to_owned()), options: all, ..Default::default() };
    match compile_ptx_with_opts(source, options) {
        Ok(ptx) => Ok(ptx.to_src()),
        Err(CompileError::CompileError { log, .. }) => Err(log.to_string_lossy().into_owned()),
        Err(other) => Err(format!("{other:?}")),
    }
}
