//! The handle on the stand-in driver: open it, configure it, take the reports of what ran.
//!
//! ```no_run
//! use ptx_emulator::settings::Settings;
//! use ptx_emulator::standin;
//!
//! let standin = standin::open(&Settings::default()).unwrap();
//! // ... cudarc, or whatever loads `libcuda.so`, now talks to the stand-in ...
//! for report in standin.take_reports() {
//!     println!("{}: {:?}", report.kernel, report.counters);
//! }
//! ```
//!
//! The stand-in is this crate's other form, a C library with the SONAME `libcuda.so`. Once it is loaded by its path, the
//! system's loader gives it to everybody in the process who asks for that name, and to nobody else. So it must be opened
//! before the first CUDA call. A test that has `ptx-emulator` among its (dev-)dependencies finds the library beside its
//! own executable, where cargo puts it; anything else gives the path.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};

use crate::machine::LaunchReport;
use crate::settings::Settings;

/// The library's file, as cargo names it.
const FILE: &str = "libptx_emulator.so";

/// The name that programs ask for.
const SONAME: &CStr = c"libcuda.so";

type Configure = unsafe extern "C" fn(*const c_char, c_int) -> *mut c_char;
type TakeReports = unsafe extern "C" fn(c_int) -> *mut c_char;
type Free = unsafe extern "C" fn(*mut c_char);

/// The stand-in, loaded. It stays so until the process ends, for others have its functions' addresses.
#[derive(Clone, Copy, Debug)]
pub struct StandIn {
    configure: Configure,
    take_reports: TakeReports,
    free: Free,
}

/// Why the stand-in cannot be opened.
#[derive(Debug)]
pub enum OpenError {
    /// It is not where it should be.
    NotFound {
        /// Where it was looked for.
        tried: Vec<PathBuf>,
    },
    /// The process has another CUDA driver already.
    AnotherDriver,
    /// It does not load, or is not the stand-in.
    Unusable {
        /// The file.
        path: PathBuf,
        /// What the loader says.
        reason: String,
    },
    /// It refuses the settings.
    Settings(String),
}

impl fmt::Display for OpenError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenError::NotFound { tried } => {
                let tried: Vec<String> = tried.iter().map(|path| path.display().to_string()).collect();
                write!(
                    formatter,
                    "{FILE} was not found; tried {}. Build it (cargo build -p ptx-emulator) or give its path",
                    tried.join(", ")
                )
            }
            OpenError::AnotherDriver => {
                write!(formatter, "another libcuda.so is loaded already: open the stand-in before the first CUDA call")
            }
            OpenError::Unusable { path, reason } => write!(formatter, "{}: {reason}", path.display()),
            OpenError::Settings(reason) => write!(formatter, "{reason}"),
        }
    }
}

impl std::error::Error for OpenError {}

/// The stand-in of this process, once opened.
static OPENED: Mutex<Option<StandIn>> = Mutex::new(None);

/// Opens the stand-in that lies beside the running executable, in `deps` below it, or in `deps` beside its folder (all of
/// which cargo brings about), and sets what holds for all threads. Opening it again only sets that.
///
/// # Errors
/// See [`OpenError`].
pub fn open(settings: &Settings) -> Result<StandIn, OpenError> {
    let executable = std::env::current_exe().unwrap_or_default();
    let folder = executable.parent().unwrap_or(Path::new("."));
    // A test runs in deps; a program above it; an example beside it; a documentation test anywhere.
    let tried: Vec<PathBuf> = ["", "deps", "../deps", ".."].iter().map(|part| folder.join(part).join(FILE)).collect();
    if let Some(standin) = already_open(settings)? {
        return Ok(standin);
    }
    match tried.iter().find(|path| path.is_file()) {
        Some(path) => open_at(path, settings),
        None => Err(OpenError::NotFound { tried }),
    }
}

fn already_open(settings: &Settings) -> Result<Option<StandIn>, OpenError> {
    let opened = *OPENED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(standin) = opened {
        standin.configure(settings).map_err(OpenError::Settings)?;
    }
    Ok(opened)
}

/// Opens the stand-in at a path. If one is open already, that is kept.
///
/// # Errors
/// See [`OpenError`].
pub fn open_at(path: &Path, settings: &Settings) -> Result<StandIn, OpenError> {
    if let Some(standin) = already_open(settings)? {
        return Ok(standin);
    }
    let unusable = |reason: String| OpenError::Unusable { path: path.to_owned(), reason };
    // Absolute, so that the loader takes this very file.
    let path = path.canonicalize().map_err(|error| unusable(error.to_string()))?;
    let mut opened = OPENED.lock().unwrap_or_else(PoisonError::into_inner);
    if opened.is_none() && loaded_as_cuda().is_some() {
        return Err(OpenError::AnotherDriver);
    }
    // SAFETY: loading runs the library's initialisers; those of Rust libraries do nothing of note.
    let library = unsafe { Library::open(Some(&path), RTLD_NOW | RTLD_GLOBAL) }.map_err(|e| unusable(e.to_string()))?;
    let symbol = |name: &CStr| {
        // SAFETY: only the address is looked at.
        let found = unsafe { library.get::<*mut c_void>(name.to_bytes_with_nul()) };
        found.map(|symbol| *symbol).map_err(|_| unusable(format!("has no {name:?}: it is not the stand-in")))
    };
    let (configure, take, free) =
        (symbol(c"ptx_emulator_configure")?, symbol(c"ptx_emulator_take_reports")?, symbol(c"ptx_emulator_free")?);
    // SAFETY: functions of these names have these types, in this version of the crate.
    let standin = unsafe {
        StandIn {
            configure: std::mem::transmute::<*mut c_void, Configure>(configure),
            take_reports: std::mem::transmute::<*mut c_void, TakeReports>(take),
            free: std::mem::transmute::<*mut c_void, Free>(free),
        }
    };
    // The whole point is that the name now means this library.
    let named = loaded_as_cuda();
    if named != Some(symbol(c"cuInit")?) {
        return Err(unusable(format!("does not answer to the name {SONAME:?}")));
    }
    std::mem::forget(library);
    standin.configure(settings).map_err(OpenError::Settings)?;
    *opened = Some(standin);
    Ok(standin)
}

/// The `cuInit` of the library that the name of the driver means in this process, if one is loaded.
fn loaded_as_cuda() -> Option<*mut c_void> {
    // SAFETY: asks for a library that is loaded already; nothing is run. A handle that comes back is given back: the
    // library stays loaded, for whoever loaded it still holds it.
    unsafe {
        let handle = libc::dlopen(SONAME.as_ptr(), libc::RTLD_NOW | libc::RTLD_NOLOAD);
        if handle.is_null() {
            return None;
        }
        let symbol = libc::dlsym(handle, c"cuInit".as_ptr());
        libc::dlclose(handle);
        Some(symbol)
    }
}

impl StandIn {
    /// Sets what holds for all threads that have no settings of their own, and begins the seed's sequence anew.
    ///
    /// # Errors
    /// The settings as the library understands them differ from ours: it is of another version.
    pub fn configure(&self, settings: &Settings) -> Result<(), String> {
        self.set(Some(settings), false)
    }

    /// Sets what holds for the calling thread alone: for launches that it submits, and for the device that it sees. `None`
    /// takes them away again. Tests that run side by side in one process use this.
    ///
    /// # Errors
    /// As [`StandIn::configure`].
    pub fn configure_thread(&self, settings: Option<&Settings>) -> Result<(), String> {
        self.set(settings, true)
    }

    fn set(&self, settings: Option<&Settings>, of_thread: bool) -> Result<(), String> {
        let json = match settings {
            None => None,
            Some(settings) => {
                let json = serde_json::to_string(settings).map_err(|error| error.to_string())?;
                Some(CString::new(json).map_err(|error| error.to_string())?)
            }
        };
        let pointer = json.as_ref().map_or(std::ptr::null(), |json| json.as_ptr());
        // SAFETY: null or a text that ends in NUL, and it outlives the call.
        let error = self.take_text(unsafe { (self.configure)(pointer, c_int::from(of_thread)) });
        error.map_or(Ok(()), Err)
    }

    /// The reports of all launches that have run since they were last taken, oldest first; the stand-in keeps the newest
    /// 16,384. A launch runs when something waits for it: synchronise first.
    pub fn take_reports(&self) -> Vec<LaunchReport> {
        self.reports(false)
    }

    /// As [`StandIn::take_reports`], of launches that the calling thread submitted.
    pub fn take_thread_reports(&self) -> Vec<LaunchReport> {
        self.reports(true)
    }

    fn reports(&self, of_thread: bool) -> Vec<LaunchReport> {
        // SAFETY: it takes a number and gives a text.
        let json = self.take_text(unsafe { (self.take_reports)(c_int::from(of_thread)) }).unwrap_or_default();
        serde_json::from_str(&json).unwrap_or_else(|error| panic!("the stand-in is of another version: {error}"))
    }

    /// A text that the stand-in gave, copied and given back.
    fn take_text(&self, text: *mut c_char) -> Option<String> {
        if text.is_null() {
            return None;
        }
        // SAFETY: the stand-in gives texts that end in NUL.
        let copied = unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned();
        // SAFETY: it came from the stand-in just now.
        unsafe { (self.free)(text) };
        Some(copied)
    }
}
