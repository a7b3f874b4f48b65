//! Which compiler is used, and what it is asked for.
//!
//! NVRTC, of 12.0 at least, is looked for, in this order, in
//!
//! 1. a CUDA toolkit: `CUDA_HOME`, `CUDA_PATH`, `/usr/local/cuda`;
//! 2. the loader's path, `LD_LIBRARY_PATH` included;
//! 3. the Python environment, where the wheels that PyTorch brings have it: `VIRTUAL_ENV`, `CONDA_PREFIX`, and those of every
//!    `python3` on the path, the user's own and those in `/usr/local`, where Debian's `pip` puts them.
//!
//! The first one is taken whose code of a small kernel the driver loads: what is broken, or what this driver cannot use, hides
//! nothing behind it. Machine code is asked for where the compiler knows the card and is of the driver's major version, for then
//! the compiler may be newer than the driver, as PyTorch's often is; PTX otherwise, and where the driver refuses the machine
//! code. So it is with the emulator, which runs PTX.

use super::nvrtc::{Code, Nvrtc, Version};
use crate::error::{Error, Kind, Result};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

/// What a compiler has to be of use for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    /// The driver's version.
    pub driver: Version,
    /// The card's compute capability: 90 for 9.0.
    pub card: u32,
}

/// A compiler, and what it is asked for.
#[derive(Clone, Copy)]
pub struct Compiler {
    /// The library.
    pub nvrtc: &'static Nvrtc,
    /// What the driver takes from it.
    pub code: Code,
    /// For this architecture.
    pub architecture: u32,
    /// The driver's version.
    driver: Version,
}

/// The driver's own version, which tells apart those that know the same CUDA; none where it does not say.
fn driver_build() -> Option<String> {
    driver_build_of(&std::fs::read_to_string("/proc/driver/nvidia/version").ok()?)
}

/// The number with dots in the first line: `NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.129.03  Thu Oct 19 …`.
fn driver_build_of(text: &str) -> Option<String> {
    let number = |word: &&str| word.contains('.') && word.bytes().all(|b| b == b'.' || b.is_ascii_digit());
    text.lines().next()?.split_whitespace().find(number).map(str::to_owned)
}

impl fmt::Display for Compiler {
    /// As far as it decides what kernels do: the driver assembles PTX.
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "NVRTC {}", self.nvrtc.build)?;
        if self.code == Code::Machine {
            return Ok(());
        }
        write!(f, ", PTX for a driver of {}.{}", self.driver.0, self.driver.1)?;
        driver_build().map_or(Ok(()), |build| write!(f, " ({build})"))
    }
}

/// Whether a driver takes what a compiler makes; the reason, if it does not.
pub type Trial<'a> = dyn Fn(&Nvrtc, Code, u32) -> std::result::Result<(), String> + 'a;

/// The compiler for a driver and card. It is looked for once in a process.
pub fn open(target: Target, trial: &Trial) -> Result<Compiler> {
    static FOUND: Mutex<Vec<(Target, Compiler)>> = Mutex::new(Vec::new());
    let mut found = FOUND.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, compiler)) = found.iter().find(|(of, _)| *of == target) {
        return Ok(*compiler);
    }
    let (nvrtc, code, architecture) = find(&all_places(), target, trial)?;
    // Kernels may be compiled at any time from now on.
    let compiler = Compiler { nvrtc: Box::leak(Box::new(nvrtc)), code, architecture, driver: target.driver };
    found.push((target, compiler));
    Ok(compiler)
}

/// The first compiler that there is, for no driver in particular.
pub fn any() -> Result<&'static Nvrtc> {
    static FOUND: OnceLock<Nvrtc> = OnceLock::new();
    if let Some(found) = FOUND.get() {
        return Ok(found);
    }
    let found =
        all_places().iter().find_map(|path| Nvrtc::load(path).ok()).ok_or_else(|| no_compiler(NO_COMPILER, (12, 9)))?;
    Ok(FOUND.get_or_init(|| found))
}

/// The first of `places` that holds a compiler of use, and what to ask it for.
fn find(places: &[PathBuf], target: Target, trial: &Trial) -> Result<(Nvrtc, Code, u32)> {
    let (mut unusable, mut closed) = (None, None);
    for path in places {
        let nvrtc = match Nvrtc::load(path) {
            Ok(nvrtc) => nvrtc,
            Err(error) => {
                // Names are only tried.
                closed = closed.or(path.exists().then_some((path, error)));
                continue;
            }
        };
        let mut reason = None;
        for (code, architecture) in ways(&nvrtc.architectures, nvrtc.version, target) {
            match trial(&nvrtc, code, architecture) {
                Ok(()) => return Ok((nvrtc, code, architecture)),
                Err(refusal) => reason = Some(refusal),
            }
        }
        unusable.get_or_insert((nvrtc.path, nvrtc.version, reason));
    }
    Err(match (unusable, closed) {
        (Some((path, version, reason)), _) => no_use(&path, version, reason, target.driver),
        (None, Some((path, error))) => {
            let what = format!("the CUDA compiler {} cannot be opened: {error}", path.display());
            no_compiler(&what, target.driver)
        }
        (None, None) => no_compiler(NO_COMPILER, target.driver),
    })
}

/// What a compiler of this version, which knows these architectures, may be asked for, the best first.
fn ways(architectures: &[u32], version: Version, Target { driver, card }: Target) -> Vec<(Code, u32)> {
    if version < OLDEST {
        return Vec::new();
    }
    let machine = architectures.contains(&card) && version.0 <= driver.0;
    // PTX of an older architecture runs on a newer card.
    let newest = architectures.iter().copied().filter(|&known| known <= card).max().filter(|_| version <= driver);
    machine.then_some((Code::Machine, card)).into_iter().chain(newest.map(|newest| (Code::Ptx, newest))).collect()
}

/// The oldest compiler that is asked.
const OLDEST: Version = (12, 0);

/// What is said where there is none.
const NO_COMPILER: &str = "there is no CUDA compiler (libnvrtc)";

/// That there is no compiler at all, or none that opens.
fn no_compiler(what: &str, version: Version) -> Error {
    let hint = format!(
        "Install it with `pip install {}`, or a CUDA toolkit, or activate the Python environment that PyTorch with CUDA is in",
        package(version)
    );
    Error::new(Kind::DeviceUnavailable, what).hint(hint)
}

/// That there is one, of no use: by its version, or for this reason.
fn no_use(path: &Path, (major, minor): Version, reason: Option<String>, driver: Version) -> Error {
    let (path, known) = (path.display(), format!("{}.{}", driver.0, driver.1));
    let what = match reason {
        // A log may be long.
        Some(reason) => {
            let first = reason.lines().find(|line| !line.trim().is_empty()).unwrap_or_default().trim();
            format!("the CUDA compiler {path} of version {major}.{minor} does not serve the driver of {known}: {first}")
        }
        None if (major, minor) < OLDEST => {
            format!(
                "the CUDA compiler {path} is too old: it is of {major}.{minor}, and at least {}.0 is needed",
                OLDEST.0
            )
        }
        None => {
            format!("the CUDA driver is too old: it knows CUDA {known}, and the compiler {path} is of {major}.{minor}")
        }
    };
    let install = format!("nstall a compiler of its version: pip install {}", package(driver));
    let hint =
        if (major, minor) < OLDEST { format!("I{install}") } else { format!("Update the driver, or i{install}") };
    Error::new(Kind::DeviceUnavailable, what).hint(hint)
}

/// What `pip` calls the compiler of a version of CUDA: from 13 on, its name no longer says which.
fn package((major, minor): Version) -> String {
    let suffix = if major < 13 { format!("-cu{major}") } else { String::new() };
    format!("'nvidia-cuda-nvrtc{suffix}=={major}.{minor}.*'")
}

/// Every path and name to try on this machine.
fn all_places() -> Vec<PathBuf> {
    places(&|name| std::env::var_os(name).map(PathBuf::from), Path::new("/usr/local"))
}

/// Every path and name to try, in order; `variable` is the environment, `local` where programs are put for all users.
fn places(variable: &dyn Fn(&str) -> Option<PathBuf>, local: &Path) -> Vec<PathBuf> {
    let mut places = Vec::new();
    let toolkits = [variable("CUDA_HOME"), variable("CUDA_PATH"), Some(local.join("cuda"))];
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
    let own = variable("HOME").map(|home| home.join(".local"));
    for prefix in named.chain(prefixes).chain(own).chain([local.to_path_buf()]) {
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
        let debian = touch(at("local/lib/python3.11/dist-packages/nvidia/cuda_nvrtc/lib/libnvrtc.so.12"));
        let common = touch(at("local/cuda/lib64/libnvrtc.so.12"));
        let environment = |name: &str| match name {
            "CUDA_PATH" => Some(at("toolkit")),
            "VIRTUAL_ENV" => Some(at("env")),
            "PATH" => Some(at("other/bin")),
            _ => None,
        };
        let places = places(&environment, &at("local"));
        let loader = ["libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"].map(PathBuf::from);
        assert_eq!(places, [vec![toolkit, common], loader.to_vec(), vec![wheel, wheel_13, debian]].concat());
    }

    #[test]
    fn what_is_no_library_is_passed_over_and_none_is_one_clear_error() {
        let folder = tempfile::tempdir().unwrap();
        let target = Target { driver: (12, 4), card: 90 };
        let error = |places: &[PathBuf]| find(places, target, &|_, _, _| Ok(())).err().unwrap();
        let missing = folder.path().join("libnvrtc.so.13");
        let none = error(std::slice::from_ref(&missing));
        assert_eq!(none.kind(), Kind::DeviceUnavailable);
        assert!(none.to_string().contains("no CUDA compiler") && none.to_string().contains("cu12==12.4"), "{none}");
        // What is there and does not open is named.
        let closed = error(&[missing, touch(folder.path().join("libnvrtc.so.12"))]);
        assert_eq!(closed.kind(), Kind::DeviceUnavailable);
        let said = closed.to_string();
        assert!(said.contains("libnvrtc.so.12 cannot be opened") && said.contains("cu12==12.4"), "{said}");
    }

    #[test]
    fn drivers_of_one_version_are_told_apart() {
        let text = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.129.03  Thu Oct 19 18:56:32 UTC 2023\nGCC version:  gcc 12.2.0";
        assert_eq!(driver_build_of(text).as_deref(), Some("535.129.03"));
        assert_eq!(driver_build_of("NVRM version: unknown\nGCC 12.2.0"), None);
    }

    #[test]
    fn machine_code_where_the_card_is_known_and_ptx_where_the_driver_is_newer() {
        use Code::{Machine, Ptx};
        let known = &[75, 80, 86, 89, 90][..];
        let cases: [(Version, Version, u32, &[_]); 10] = [
            // Compiler, driver, card.
            ((12, 4), (12, 4), 90, &[(Machine, 90), (Ptx, 90)]),
            ((12, 4), (13, 0), 86, &[(Machine, 86), (Ptx, 86)]),
            // PyTorch's wheels on an older driver of the same major version.
            ((12, 9), (12, 2), 90, &[(Machine, 90)]),
            // A card newer than the compiler.
            ((12, 4), (12, 8), 120, &[(Ptx, 90)]),
            ((12, 4), (12, 8), 87, &[(Ptx, 86)]),
            ((12, 9), (12, 8), 120, &[]),
            // The driver is of an older major version.
            ((13, 0), (12, 9), 90, &[]),
            ((0, 0), (12, 9), 70, &[]),
            // Too old to have compiled what there is.
            ((11, 8), (12, 9), 90, &[]),
            ((12, 0), (12, 9), 90, &[(Machine, 90), (Ptx, 90)]),
        ];
        for (version, driver, card, expected) in cases {
            assert_eq!(ways(known, version, Target { driver, card }), expected, "{version:?}, {driver:?}, {card}");
        }
    }

    #[test]
    fn what_is_of_no_use_is_named() {
        let error = no_use(Path::new("/x/libnvrtc.so.13"), (13, 0), None, (12, 8)).to_string();
        let words = ["knows CUDA 12.8", "/x/libnvrtc.so.13 is of 13.0", "'nvidia-cuda-nvrtc-cu12==12.8.*'"];
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
        let error = no_use(Path::new("/x/y"), (11, 8), None, (12, 8)).to_string();
        let words = ["compiler /x/y is too old: it is of 11.8, and at least 12.0", "nvrtc-cu12==12.8.*'"];
        assert!(words.iter().all(|word| error.contains(word)) && !error.contains("driver"), "{error}");
        let error = no_use(Path::new("/x/y"), (12, 1), Some("\nno builtins\nmore".into()), (13, 0)).to_string();
        let words = ["12.1", "13.0: no builtins", "'nvidia-cuda-nvrtc==13.0.*'"];
        assert!(words.iter().all(|word| error.contains(word)) && !error.contains("more"), "{error}");
    }
}
