//! NVRTC, CUDA's compiler as a library: where it is looked for, and the few calls that turn a source into PTX.
//!
//! It is opened at run time, by its path where that is known. The places, in their order:
//!
//! 1. a CUDA toolkit: `CUDA_HOME`, `CUDA_PATH`, `/usr/local/cuda`;
//! 2. the loader's path, `LD_LIBRARY_PATH` included;
//! 3. the Python environment, where the wheels that PyTorch brings have it: `VIRTUAL_ENV`, `CONDA_PREFIX`, and those of every
//!    `python3` on the path.
//!
//! The first one that the driver understands is taken: PTX of a newer CUDA than the driver's is refused by it.

use crate::error::{Error, Kind, Result};
use libloading::Library;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// A version of CUDA, major and minor.
pub type Version = (u32, u32);

type Program = *mut c_void;
type Status = c_int;

/// The compiler, opened.
pub struct Nvrtc {
    /// What it was opened by: a path, or a name that the loader knows.
    pub path: PathBuf,
    /// Its version.
    pub version: Version,
    create: unsafe extern "C" fn(
        *mut Program,
        *const c_char,
        *const c_char,
        c_int,
        *const *const c_char,
        *const *const c_char,
    ) -> Status,
    compile: unsafe extern "C" fn(Program, c_int, *const *const c_char) -> Status,
    ptx_size: unsafe extern "C" fn(Program, *mut usize) -> Status,
    ptx: unsafe extern "C" fn(Program, *mut c_char) -> Status,
    log_size: unsafe extern "C" fn(Program, *mut usize) -> Status,
    log: unsafe extern "C" fn(Program, *mut c_char) -> Status,
    destroy: unsafe extern "C" fn(*mut Program) -> Status,
    architectures: Vec<u32>,
    /// Keeps the functions where they are.
    _library: Library,
}

/// The compiler for a driver of this version, or for none in particular. It is looked for once in a process.
pub fn open(driver: Option<Version>) -> Result<&'static Nvrtc> {
    static FOUND: OnceLock<Nvrtc> = OnceLock::new();
    if let Some(found) = FOUND.get() {
        return Ok(found);
    }
    let found = find(&places(&|name| std::env::var_os(name).map(PathBuf::from)), driver)?;
    Ok(FOUND.get_or_init(|| found))
}

/// The first of `places` that holds a compiler which a driver of this version understands.
fn find(places: &[PathBuf], driver: Option<Version>) -> Result<Nvrtc> {
    let mut newest = None;
    for path in places {
        let Ok(nvrtc) = Nvrtc::load(path) else { continue };
        if driver.is_none_or(|driver| nvrtc.version <= driver) {
            return Ok(nvrtc);
        }
        newest.get_or_insert(nvrtc);
    }
    let Some(Nvrtc { path, version: (major, minor), .. }) = newest else {
        let hint = format!(
            "Install it with `pip install {}`, or a CUDA toolkit, or activate the Python environment that PyTorch with CUDA is in",
            package(driver.unwrap_or((12, 9)))
        );
        return Err(Error::new(Kind::DeviceUnavailable, "there is no CUDA compiler (libnvrtc)").hint(hint));
    };
    let known = driver.unwrap_or_default();
    let (known_major, known_minor) = known;
    let what = format!(
        "the CUDA driver is too old: it knows CUDA {known_major}.{known_minor}, and the compiler {} is of {major}.{minor}",
        path.display()
    );
    let hint = format!("Update the driver, or install a compiler of its version: pip install {}", package(known));
    Err(Error::new(Kind::DeviceUnavailable, what).hint(hint))
}

/// What `pip` calls the compiler of a version of CUDA: from 13 on, its name no longer says which.
fn package((major, minor): Version) -> String {
    let suffix = if major < 13 { format!("-cu{major}") } else { String::new() };
    format!("'nvidia-cuda-nvrtc{suffix}=={major}.{minor}.*'")
}

/// Every path and name to try, in order; `variable` is the environment.
fn places(variable: &dyn Fn(&str) -> Option<PathBuf>) -> Vec<PathBuf> {
    let mut places = Vec::new();
    let toolkits = [variable("CUDA_HOME"), variable("CUDA_PATH"), Some("/usr/local/cuda".into())];
    for toolkit in toolkits.into_iter().flatten() {
        for folder in ["lib64", "targets/x86_64-linux/lib", "targets/sbsa-linux/lib", "lib"] {
            places.extend(libraries(&toolkit.join(folder)));
        }
    }
    places.extend(["libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"].map(PathBuf::from));
    let path = variable("PATH").unwrap_or_default();
    let pythons = std::env::split_paths(&path).filter(|folder| folder.join("python3").exists());
    let prefixes = pythons.filter_map(|folder| folder.parent().map(Path::to_path_buf));
    let named = [variable("VIRTUAL_ENV"), variable("CONDA_PREFIX")].into_iter().flatten();
    for prefix in named.chain(prefixes).chain(variable("HOME").map(|home| home.join(".local"))) {
        for packages in packages(&prefix) {
            places.extend(libraries(&packages.join("nvidia/cuda_nvrtc/lib")));
            places.extend(libraries(&packages.join("nvidia/cu13/lib")));
        }
        // Conda's own package.
        places.extend(libraries(&prefix.join("lib")));
    }
    let mut seen = std::collections::HashSet::new();
    places.retain(|path| seen.insert(path.clone()));
    places
}

/// The folders below a prefix in which Python looks for packages.
fn packages(prefix: &Path) -> Vec<PathBuf> {
    let versions = entries(&prefix.join("lib"), |name| name.starts_with("python3"));
    versions.into_iter().flat_map(|version| ["site-packages", "dist-packages"].map(|name| version.join(name))).collect()
}

/// NVRTC's library in a folder, the highest version first: `libnvrtc.so.12` and the like, not its builtins.
fn libraries(folder: &Path) -> Vec<PathBuf> {
    let mut found = entries(folder, |name| {
        let rest = name.strip_prefix("libnvrtc.so");
        rest.is_some_and(|rest| rest.bytes().all(|b| b == b'.' || b.is_ascii_digit()))
    });
    found.reverse();
    found
}

/// What a folder holds by such names, sorted; nothing where there is no folder.
fn entries(folder: &Path, named: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> =
        entries.filter(|entry| entry.file_name().to_str().is_some_and(&named)).map(|entry| entry.path()).collect();
    found.sort();
    found
}

impl Nvrtc {
    fn load(path: &Path) -> std::result::Result<Self, libloading::Error> {
        // SAFETY: the library is NVIDIA's, found by its name; its initialisers have no preconditions. The functions have these
        // types in every version from 11.2 on.
        unsafe {
            let library = Library::new(path)?;
            let version: unsafe extern "C" fn(*mut c_int, *mut c_int) -> Status = *library.get(b"nvrtcVersion\0")?;
            let n_architecture: unsafe extern "C" fn(*mut c_int) -> Status =
                *library.get(b"nvrtcGetNumSupportedArchs\0")?;
            let architectures: unsafe extern "C" fn(*mut c_int) -> Status =
                *library.get(b"nvrtcGetSupportedArchs\0")?;
            let (mut major, mut minor, mut n) = (0, 0, 0);
            version(&mut major, &mut minor);
            n_architecture(&mut n);
            let mut known = vec![0; n.max(0) as usize];
            architectures(known.as_mut_ptr());
            Ok(Self {
                path: path.to_path_buf(),
                version: (major as u32, minor as u32),
                create: *library.get(b"nvrtcCreateProgram\0")?,
                compile: *library.get(b"nvrtcCompileProgram\0")?,
                ptx_size: *library.get(b"nvrtcGetPTXSize\0")?,
                ptx: *library.get(b"nvrtcGetPTX\0")?,
                log_size: *library.get(b"nvrtcGetProgramLogSize\0")?,
                log: *library.get(b"nvrtcGetProgramLog\0")?,
                destroy: *library.get(b"nvrtcDestroyProgram\0")?,
                architectures: known.into_iter().map(|number| number as u32).collect(),
                _library: library,
            })
        }
    }

    /// The newest architecture that the compiler knows and a card of compute capability `card` (90 for 9.0) runs.
    pub fn architecture_for(&self, card: u32) -> Option<u32> {
        self.architectures.iter().copied().filter(|&known| known <= card).max()
    }

    /// Compiles a source; the error is what the compiler says.
    pub fn compile(&self, name: &str, text: &str, options: &[String]) -> std::result::Result<String, String> {
        let c = |text: &str| CString::new(text).map_err(|_| "a text holds a NUL".to_owned());
        let (name, text) = (c(name)?, c(text)?);
        let options = options.iter().map(|option| c(option)).collect::<std::result::Result<Vec<_>, _>>()?;
        let options: Vec<*const c_char> = options.iter().map(|option| option.as_ptr()).collect();
        let none = std::ptr::null();
        let mut program: Program = std::ptr::null_mut();
        // SAFETY: every text ends in NUL and outlives the call, and there are no headers.
        match unsafe { (self.create)(&mut program, text.as_ptr(), name.as_ptr(), 0, none, none) } {
            0 => {}
            status => return Err(format!("no program can be created (status {status})")),
        }
        // SAFETY: the program was created above and is destroyed once, below; so many options are there.
        let compiled = unsafe { (self.compile)(program, options.len() as c_int, options.as_ptr()) };
        // SAFETY: sizes and texts are of that program, whether it compiled or not.
        let result = unsafe {
            match compiled {
                0 => take_text(program, self.ptx_size, self.ptx),
                status => Err(take_text(program, self.log_size, self.log).unwrap_or_default())
                    .map_err(|log| if log.is_empty() { format!("status {status}") } else { log }),
            }
        };
        // SAFETY: as above.
        unsafe { (self.destroy)(&mut program) };
        result
    }
}

/// A text of a program.
///
/// # Safety
/// The two functions are of NVRTC, for the size of a text with its NUL, and the text; the program is alive.
unsafe fn take_text(
    program: Program,
    size: unsafe extern "C" fn(Program, *mut usize) -> Status,
    text: unsafe extern "C" fn(Program, *mut c_char) -> Status,
) -> std::result::Result<String, String> {
    let mut len = 0;
    // SAFETY: the caller's.
    let sized = unsafe { size(program, &mut len) };
    let mut bytes = vec![0u8; len + 1];
    // SAFETY: there is room for `len` bytes, and one more that stays zero.
    let taken = unsafe { text(program, bytes.as_mut_ptr().cast()) };
    match (sized, taken) {
        (0, 0) => Ok(CStr::from_bytes_until_nul(&bytes).unwrap_or_default().to_string_lossy().into_owned()),
        _ => Err(format!("no text (status {sized}, {taken})")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn touch(path: PathBuf) -> PathBuf {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, "no library").unwrap();
        path
    }

    #[test]
    fn toolkit_loader_and_python_in_this_order() {
        let folder = tempfile::tempdir().unwrap();
        let at = |path: &str| folder.path().join(path);
        let toolkit = touch(at("toolkit/lib64/libnvrtc.so.12"));
        touch(at("toolkit/lib64/libnvrtc-builtins.so.12.9"));
        let wheel = touch(at("env/lib/python3.12/site-packages/nvidia/cuda_nvrtc/lib/libnvrtc.so.12"));
        let wheel_13 = touch(at("other/lib/python3.13/site-packages/nvidia/cu13/lib/libnvrtc.so.13"));
        touch(at("other/bin/python3"));
        let environment = |name: &str| match name {
            "CUDA_PATH" => Some(at("toolkit")),
            "VIRTUAL_ENV" => Some(at("env")),
            "PATH" => Some(at("other/bin")),
            _ => None,
        };
        let mut places = places(&environment);
        // A toolkit of this machine is none of the test's business.
        places.retain(|path| path.starts_with(folder.path()) || path.is_relative());
        let loader = ["libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"].map(PathBuf::from);
        assert_eq!(places, [vec![toolkit], loader.to_vec(), vec![wheel, wheel_13]].concat());
    }

    #[test]
    fn what_is_no_library_is_passed_over_and_none_is_one_clear_error() {
        let folder = tempfile::tempdir().unwrap();
        let error = find(&[touch(folder.path().join("libnvrtc.so.12"))], None).err().unwrap();
        assert_eq!(error.kind(), Kind::DeviceUnavailable);
        assert!(error.to_string().contains("no CUDA compiler"), "{error}");
    }
}
