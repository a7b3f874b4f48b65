//! Finds the CUDA compiler: NVRTC, its headers, `ptxas` and `nvdisasm`.
//!
//! None of them needs a GPU, and NVIDIA publishes all of them as Python wheels, so they may be in a CUDA toolkit or in
//! any Python environment. The places that are tried, in this order:
//!
//! 1. the folder that the environment variable `PTX_EMULATOR_CUDA` names, and no other when it is set;
//! 2. `target/cuda`, a Python environment in a cargo target folder, above the running program or the working directory;
//! 3. the active Python environment (`VIRTUAL_ENV`, `CONDA_PREFIX`);
//! 4. a CUDA toolkit (`CUDA_HOME`, `CUDA_PATH`, `/usr/local/cuda`).
//!
//! ```no_run
//! let toolkit = ptx_emulator::toolkit::Toolkit::find()?;
//! toolkit.open_nvrtc()?; // from here on cudarc's `compile_ptx` works, with `toolkit.includes()` as include paths
//! # Ok::<(), ptx_emulator::toolkit::ToolkitError>(())
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::{Deserialize, Serialize};

use crate::sass::{self, Mix};

/// The folder to look in, and no other, when it is set.
pub const FOLDER_VARIABLE: &str = "PTX_EMULATOR_CUDA";

/// Set where the compiler has been installed on purpose: tests then fail where they would otherwise skip.
pub const REQUIRED_VARIABLE: &str = "PTX_EMULATOR_REQUIRE_CUDA";

/// How to get the compiler, for messages.
const HOW_TO_INSTALL: &str = "install it with: python3 -m venv target/cuda && target/cuda/bin/pip install \
     nvidia-cuda-nvrtc-cu12==12.9.86 nvidia-cuda-runtime-cu12==12.9.79 nvidia-cuda-nvcc-cu12==12.9.86 \
     nvidia-cuda-cccl-cu12==12.9.27, or name the folder of a CUDA toolkit in PTX_EMULATOR_CUDA";

/// Where libraries lie below a root, wheels first.
const LIBRARY_FOLDERS: [&str; 4] = ["nvidia/cuda_nvrtc/lib", "nvidia/cu13/lib", "lib64", "targets/x86_64-linux/lib"];
/// Where headers lie. Several may apply: the wheels have one folder each.
const INCLUDE_FOLDERS: [&str; 5] = [
    "nvidia/cuda_runtime/include",
    "nvidia/cuda_nvcc/include",
    "nvidia/cuda_cccl/include",
    "nvidia/cu13/include",
    "include",
];
/// Where programs lie.
const PROGRAM_FOLDERS: [&str; 3] = ["nvidia/cuda_nvcc/bin", "nvidia/cu13/bin", "bin"];

/// Why the compiler cannot be used, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolkitError(String);

impl fmt::Display for ToolkitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ToolkitError {}

/// A CUDA compiler that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Toolkit {
    nvrtc: PathBuf,
    includes: Vec<PathBuf>,
    ptxas: Option<PathBuf>,
    nvdisasm: Option<PathBuf>,
}

/// What one kernel needs of a multiprocessor, as `ptxas` reports it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// Registers per thread.
    pub registers: u32,
    /// Bytes per thread that did not fit into registers and are stored.
    pub spill_store_bytes: u32,
    /// Bytes per thread of such spills that are loaded.
    pub spill_load_bytes: u32,
    /// Bytes per thread of local memory.
    pub stack_bytes: u32,
    /// Bytes of static shared memory per block.
    pub shared_bytes: u32,
}

/// What `ptxas` made of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assembly {
    /// The machine code, an ELF image.
    pub cubin: Vec<u8>,
    /// What each kernel needs, by its name.
    pub kernels: BTreeMap<String, Resources>,
}

impl Toolkit {
    /// Looks in every place of the module's list; the error names them all, and how to install.
    pub fn find() -> Result<Self, ToolkitError> {
        if let Some(folder) = std::env::var_os(FOLDER_VARIABLE) {
            return Self::in_folder(Path::new(&folder))
                .map_err(|e| ToolkitError(format!("{FOLDER_VARIABLE} is set, but {e}")));
        }
        let places = places();
        places.iter().find_map(|place| Self::in_folder(place).ok()).ok_or_else(|| {
            let tried: Vec<String> = places.iter().map(|place| place.display().to_string()).collect();
            ToolkitError(format!(
                "no CUDA compiler (libnvrtc with its headers) in {}; {HOW_TO_INSTALL}",
                tried.join(", ")
            ))
        })
    }

    /// Looks in one folder: a Python environment, its `site-packages`, or a CUDA toolkit.
    pub fn in_folder(folder: &Path) -> Result<Self, ToolkitError> {
        let roots = roots(folder);
        let existing = |folders: &[&str]| -> Vec<PathBuf> {
            let all = roots.iter().flat_map(|root| folders.iter().map(|below| root.join(below)));
            all.filter(|path| path.is_dir()).collect()
        };
        let nvrtc = existing(&LIBRARY_FOLDERS).iter().find_map(|folder| nvrtc_in(folder));
        let nvrtc = nvrtc.ok_or_else(|| ToolkitError(format!("there is no libnvrtc.so in {}", folder.display())))?;
        let mut includes = existing(&INCLUDE_FOLDERS);
        if !includes.iter().any(|folder| folder.join("cuda_fp16.h").is_file()) {
            return Err(ToolkitError(format!("there are no CUDA headers (cuda_fp16.h) in {}", folder.display())));
        }
        // A Python environment has an `include` of its own, for C extensions; only CUDA's are wanted.
        includes.retain(|folder| ["cuda_fp16.h", "crt", "nv"].iter().any(|part| folder.join(part).exists()));
        let programs = existing(&PROGRAM_FOLDERS);
        let program = |name| programs.iter().map(|folder| folder.join(name)).find(|path| path.is_file());
        Ok(Toolkit { nvrtc, includes, ptxas: program("ptxas"), nvdisasm: program("nvdisasm") })
    }

    /// The library of NVRTC.
    pub fn nvrtc(&self) -> &Path {
        &self.nvrtc
    }

    /// The folders of headers, for NVRTC's `--include-path`.
    pub fn includes(&self) -> &[PathBuf] {
        &self.includes
    }

    /// The assembler, when it is installed.
    pub fn ptxas(&self) -> Option<&Path> {
        self.ptxas.as_deref()
    }

    /// The disassembler, when it is installed.
    pub fn nvdisasm(&self) -> Option<&Path> {
        self.nvdisasm.as_deref()
    }

    /// Opens NVRTC by its path and leaves it open: from then on the loader answers whoever asks for `libnvrtc.so.12`
    /// (cudarc does) with this library. To be called before the first use of cudarc's `nvrtc` module.
    pub fn open_nvrtc(&self) -> Result<(), ToolkitError> {
        // SAFETY: the library is NVIDIA's, found by name; its initialisers have no preconditions.
        let library = unsafe { libloading::Library::new(&self.nvrtc) };
        let library = library.map_err(|e| ToolkitError(format!("cannot open {}: {e}", self.nvrtc.display())))?;
        std::mem::forget(library);
        Ok(())
    }

    /// Assembles PTX for an architecture (`"sm_80"`): the judge of whether a text is legal. The error is what `ptxas`
    /// prints.
    pub fn assemble(&self, ptx: &str, architecture: &str) -> Result<Assembly, ToolkitError> {
        let failed = |what: &str, error: std::io::Error| ToolkitError(format!("{what}: {error}"));
        let ptxas = self.ptxas.as_ref().ok_or_else(|| {
            ToolkitError(format!("there is no ptxas beside {}; {HOW_TO_INSTALL}", self.nvrtc.display()))
        })?;
        let folder = ScratchFolder::new().map_err(|e| failed("cannot create a temporary folder", e))?;
        let (input, output) = (folder.0.join("kernel.ptx"), folder.0.join("kernel.cubin"));
        std::fs::write(&input, ptx).map_err(|e| failed("cannot write a temporary file", e))?;
        let run = Command::new(ptxas)
            .args(["-v", "-arch", architecture, "-o"])
            .args([&output, &input])
            .output()
            .map_err(|e| failed("cannot run ptxas", e))?;
        let log = String::from_utf8_lossy(&run.stderr);
        if !run.status.success() {
            let log = log.replace(&*input.to_string_lossy(), "kernel.ptx");
            return Err(ToolkitError(format!("ptxas refuses this for {architecture}: {log}")));
        }
        let cubin = std::fs::read(&output).map_err(|e| failed("cannot read what ptxas wrote", e))?;
        Ok(Assembly { cubin, kernels: resources(&log) })
    }
}

impl Toolkit {
    /// What the machine code of each kernel is made of, by `nvdisasm`.
    pub fn disassemble(&self, assembly: &Assembly) -> Result<BTreeMap<String, Mix>, ToolkitError> {
        let failed = |what: &str, error: std::io::Error| ToolkitError(format!("{what}: {error}"));
        let nvdisasm = self.nvdisasm.as_ref().ok_or_else(|| {
            ToolkitError(format!("there is no nvdisasm beside {}; {HOW_TO_INSTALL}", self.nvrtc.display()))
        })?;
        let folder = ScratchFolder::new().map_err(|e| failed("cannot create a temporary folder", e))?;
        let input = folder.0.join("kernel.cubin");
        std::fs::write(&input, &assembly.cubin).map_err(|e| failed("cannot write a temporary file", e))?;
        let run = Command::new(nvdisasm).arg("-c").arg(&input).output();
        let run = run.map_err(|e| failed("cannot run nvdisasm", e))?;
        if !run.status.success() {
            return Err(ToolkitError(format!("nvdisasm: {}", String::from_utf8_lossy(&run.stderr))));
        }
        Ok(sass::mixes(&String::from_utf8_lossy(&run.stdout)))
    }
}

/// The folders that may hold a compiler when no variable names one.
fn places() -> Vec<PathBuf> {
    let mut places = Vec::new();
    let above = |start: Option<PathBuf>, places: &mut Vec<PathBuf>| {
        for folder in start.iter().flat_map(|path| path.ancestors()) {
            let place = folder.join("target/cuda");
            if place.is_dir() && !places.contains(&place) {
                places.push(place);
            }
        }
    };
    above(std::env::current_exe().ok(), &mut places);
    above(std::env::current_dir().ok(), &mut places);
    let named = ["VIRTUAL_ENV", "CONDA_PREFIX", "CUDA_HOME", "CUDA_PATH"];
    places.extend(named.iter().filter_map(std::env::var_os).map(PathBuf::from));
    places.push(PathBuf::from("/usr/local/cuda"));
    places
}

/// The folder itself and, where it is a Python environment, the folders that packages are installed in.
fn roots(folder: &Path) -> Vec<PathBuf> {
    let mut roots = Vec::new();
    for lib in ["lib", "lib64"] {
        let entries = std::fs::read_dir(folder.join(lib)).into_iter().flatten().flatten();
        let mut packages: Vec<PathBuf> = entries
            .filter(|entry| entry.file_name().to_string_lossy().starts_with("python3"))
            .map(|entry| entry.path().join("site-packages"))
            .collect();
        packages.sort();
        roots.extend(packages);
    }
    roots.push(folder.to_path_buf());
    roots
}

/// NVRTC's library in a folder: `libnvrtc.so.12` and the like, not its builtins.
fn nvrtc_in(folder: &Path) -> Option<PathBuf> {
    let mut found: Vec<PathBuf> = std::fs::read_dir(folder)
        .ok()?
        .flatten()
        .filter(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            name.strip_prefix("libnvrtc.so").is_some_and(|rest| rest.bytes().all(|b| b == b'.' || b.is_ascii_digit()))
        })
        .map(|entry| entry.path())
        .collect();
    found.sort();
    found.into_iter().next()
}

/// Reads what `ptxas -v` prints: per kernel a line that names it, one about the stack, one about the rest.
fn resources(log: &str) -> BTreeMap<String, Resources> {
    let before = |line: &str, unit: &str| -> u32 {
        let start = line.find(unit).map_or("", |at| line[..at].trim_end());
        start.rsplit([' ', ',']).next().and_then(|number| number.parse().ok()).unwrap_or(0)
    };
    let mut kernels: BTreeMap<String, Resources> = BTreeMap::new();
    let mut current = None;
    for line in log.lines() {
        let quoted = || line.split('\'').nth(1).map(str::to_owned);
        if line.contains("Compiling entry function") {
            current = quoted();
        }
        let Some(name) = &current else { continue };
        let kernel = kernels.entry(name.clone()).or_default();
        if line.contains("bytes stack frame") {
            kernel.stack_bytes = before(line, "bytes stack frame");
            kernel.spill_store_bytes = before(line, "bytes spill stores");
            kernel.spill_load_bytes = before(line, "bytes spill loads");
        } else if line.contains("Used ") {
            kernel.registers = before(line, "registers");
            kernel.shared_bytes = before(line, "bytes smem");
        }
    }
    kernels
}

/// A folder of its own, gone when it is dropped.
struct ScratchFolder(PathBuf);

impl ScratchFolder {
    fn new() -> std::io::Result<Self> {
        static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("ptx-emulator-{}-{number}", std::process::id()));
        std::fs::create_dir(&path)?;
        Ok(ScratchFolder(path))
    }
}

impl Drop for ScratchFolder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_without_a_compiler_is_refused_with_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let error = Toolkit::in_folder(folder.path()).unwrap_err().to_string();
        assert!(error.contains("no libnvrtc.so") && error.contains(&*folder.path().to_string_lossy()), "{error}");
    }

    #[test]
    fn wheels_and_toolkits_are_both_found() {
        let touch = |path: PathBuf| {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        };
        let wheels = tempfile::tempdir().unwrap();
        let packages = wheels.path().join("lib/python3.12/site-packages/nvidia");
        touch(wheels.path().join("include/python3.12/Python.h"));
        touch(packages.join("cuda_nvrtc/lib/libnvrtc-builtins.so.12.9"));
        touch(packages.join("cuda_nvrtc/lib/libnvrtc.so.12"));
        touch(packages.join("cuda_runtime/include/cuda_fp16.h"));
        touch(packages.join("cuda_nvcc/include/crt/mma.h"));
        touch(packages.join("cuda_nvcc/bin/ptxas"));
        let found = Toolkit::in_folder(wheels.path()).unwrap();
        assert_eq!(found.nvrtc(), packages.join("cuda_nvrtc/lib/libnvrtc.so.12"));
        assert_eq!(found.includes(), [packages.join("cuda_runtime/include"), packages.join("cuda_nvcc/include")]);
        assert_eq!((found.ptxas(), found.nvdisasm()), (Some(&*packages.join("cuda_nvcc/bin/ptxas")), None));

        let toolkit = tempfile::tempdir().unwrap();
        touch(toolkit.path().join("lib64/libnvrtc.so"));
        assert!(Toolkit::in_folder(toolkit.path()).unwrap_err().to_string().contains("cuda_fp16.h"));
        touch(toolkit.path().join("include/cuda_fp16.h"));
        touch(toolkit.path().join("bin/nvdisasm"));
        let found = Toolkit::in_folder(toolkit.path()).unwrap();
        assert_eq!(found.nvrtc(), toolkit.path().join("lib64/libnvrtc.so"));
        assert_eq!(found.nvdisasm(), Some(&*toolkit.path().join("bin/nvdisasm")));
    }

    #[test]
    fn the_report_of_the_assembler_is_read() {
        let log = "ptxas info    : 0 bytes gmem\n\
                   ptxas info    : Compiling entry function 'scale' for 'sm_80'\n\
                   ptxas info    : Function properties for scale\n    \
                   8 bytes stack frame, 4 bytes spill stores, 12 bytes spill loads\n\
                   ptxas info    : Used 48 registers, used 1 barriers, 8 bytes cumulative stack size, 8448 bytes smem, 380 bytes cmem[0]\n";
        let scale = resources(log)["scale"];
        assert_eq!((scale.registers, scale.shared_bytes, scale.stack_bytes), (48, 8448, 8));
        assert_eq!((scale.spill_store_bytes, scale.spill_load_bytes), (4, 12));
    }
}
