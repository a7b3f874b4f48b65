//! NVRTC, CUDA's compiler as a library, opened at run time: the few calls that turn a source into what a driver loads.

use libloading::Library;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::{Path, PathBuf};

/// A version of CUDA, major and minor.
pub type Version = (u32, u32);

type Program = *mut c_void;
type Status = c_int;
type Size = unsafe extern "C" fn(Program, *mut usize) -> Status;
type Take = unsafe extern "C" fn(Program, *mut c_char) -> Status;

/// What a source is compiled to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// Machine code of one architecture. A driver of the same major version takes it, also an older one.
    Machine,
    /// PTX, which the driver assembles for its card: no newer than the driver is.
    Ptx,
}

impl Code {
    /// The option that asks for it, for an architecture (`80`, `90a`).
    pub fn option(self, architecture: &str) -> String {
        let kind = match self {
            Self::Machine => "sm",
            Self::Ptx => "compute",
        };
        format!("--gpu-architecture={kind}_{architecture}")
    }
}

/// The compiler, opened.
pub struct Nvrtc {
    /// What it was opened by: a path, or a name that the loader knows.
    pub path: PathBuf,
    /// Its version.
    pub version: Version,
    /// Which build of that version it is, as far as its PTX says: `12.9.86`.
    pub build: String,
    /// Architectures that it knows: 90 for 9.0.
    pub architectures: Vec<u32>,
    create: unsafe extern "C" fn(
        *mut Program,
        *const c_char,
        *const c_char,
        c_int,
        *const *const c_char,
        *const *const c_char,
    ) -> Status,
    compile: unsafe extern "C" fn(Program, c_int, *const *const c_char) -> Status,
    ptx: (Size, Take),
    machine: (Size, Take),
    log: (Size, Take),
    destroy: unsafe extern "C" fn(*mut Program) -> Status,
    /// Keeps the functions where they are.
    _library: Library,
}

impl Nvrtc {
    /// Opens the library at a path, or of a name that the loader knows.
    pub fn load(path: &Path) -> Result<Self, libloading::Error> {
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
            // What fails leaves nothing: no architecture, and so no way to use the compiler.
            version(&mut major, &mut minor);
            n_architecture(&mut n);
            let mut known = vec![0; n.max(0) as usize];
            architectures(known.as_mut_ptr());
            let mut this = Self {
                path: path.to_path_buf(),
                version: (major as u32, minor as u32),
                build: format!("{major}.{minor}"),
                architectures: known.into_iter().map(|number| number as u32).collect(),
                create: *library.get(b"nvrtcCreateProgram\0")?,
                compile: *library.get(b"nvrtcCompileProgram\0")?,
                ptx: (*library.get(b"nvrtcGetPTXSize\0")?, *library.get(b"nvrtcGetPTX\0")?),
                machine: (*library.get(b"nvrtcGetCUBINSize\0")?, *library.get(b"nvrtcGetCUBIN\0")?),
                log: (*library.get(b"nvrtcGetProgramLogSize\0")?, *library.get(b"nvrtcGetProgramLog\0")?),
                destroy: *library.get(b"nvrtcDestroyProgram\0")?,
                _library: library,
            };
            if let Ok(ptx) = this.compile(Code::Ptx, "nothing", "", &[]) {
                this.build = build(&String::from_utf8_lossy(&ptx)).unwrap_or(this.build);
            }
            Ok(this)
        }
    }

    /// Compiles a source, with the options that ask for `code`; the error is what the compiler says. PTX ends in NUL, as the
    /// driver wants it.
    pub fn compile(&self, code: Code, name: &str, text: &str, options: &[String]) -> Result<Vec<u8>, String> {
        let c = |text: &str| CString::new(text).map_err(|_| "a text holds a NUL".to_owned());
        let (name, text) = (c(name)?, c(text)?);
        let options = options.iter().map(|option| c(option)).collect::<Result<Vec<_>, _>>()?;
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
        let result = match (compiled, code) {
            // SAFETY: sizes and contents are of that program, whether it compiled or not.
            (0, Code::Ptx) => unsafe { take(program, self.ptx) },
            // SAFETY: as above.
            (0, Code::Machine) => unsafe { take(program, self.machine) },
            (status, _) => {
                // SAFETY: as above.
                let log = unsafe { take(program, self.log) }.unwrap_or_default();
                let log = CStr::from_bytes_until_nul(&log).unwrap_or_default().to_string_lossy().into_owned();
                Err(if log.is_empty() { format!("status {status}") } else { log })
            }
        };
        // SAFETY: as above.
        unsafe { (self.destroy)(&mut program) };
        result
    }
}

/// The build that made some PTX, by the comment it begins with.
fn build(ptx: &str) -> Option<String> {
    let tools = ptx.lines().find(|line| line.starts_with("// Cuda compilation tools"))?;
    let build = tools.rsplit(", V").next()?.trim();
    build.starts_with(|first: char| first.is_ascii_digit()).then(|| build.to_owned())
}

/// What a program has become, or what is said of it.
///
/// # Safety
/// The two functions are of NVRTC, for a size and that many bytes; the program is alive.
unsafe fn take(program: Program, (size, take): (Size, Take)) -> Result<Vec<u8>, String> {
    let mut len = 0;
    // SAFETY: the caller's.
    let sized = unsafe { size(program, &mut len) };
    let mut bytes = vec![0u8; len];
    // SAFETY: there is room for so many bytes.
    let taken = unsafe { take(program, bytes.as_mut_ptr().cast()) };
    match (sized, taken, len) {
        (0, 0, 1..) => Ok(bytes),
        _ => Err(format!("it gives nothing (status {sized}, {taken})")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn builds_of_one_version_are_told_apart() {
        let of = |last: &str| {
            build(&format!(
                "//\n// Compiler Build ID: CL-1\n// Cuda compilation tools, release 12.9, V12.9.{last}\n//\n"
            ))
        };
        assert_eq!(of("86").as_deref(), Some("12.9.86"));
        assert_ne!(of("41"), of("86"));
        assert_eq!(build("// Cuda compilation tools, of another kind\n"), None);
        assert_eq!(build(".version 8.8"), None);
    }
}
