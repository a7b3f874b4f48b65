//! What can be wrong with CUDA on a machine, in words, with what to do next.

use super::nvrtc::{Nvrtc, Version};
use crate::error::{Error, Kind, Result};
use cudarc::driver::DriverError;
use cudarc::driver::sys::CUresult as Status;

/// The oldest driver that has all that is called.
const OLDEST_DRIVER: Version = (12, 0);
/// The oldest architecture that has all the instructions.
const OLDEST_CARD: Version = (8, 0);

/// What went wrong, in the driver's words.
pub(super) fn failed(doing: &str, error: DriverError) -> Error {
    use Status::*;
    let what = format!("CUDA cannot {doing}: {error}");
    match error.0 {
        // A fault of a kernel is one of the program.
        CUDA_ERROR_ILLEGAL_ADDRESS
        | CUDA_ERROR_ILLEGAL_INSTRUCTION
        | CUDA_ERROR_MISALIGNED_ADDRESS
        | CUDA_ERROR_INVALID_VALUE
        | CUDA_ERROR_ASSERT
        | CUDA_ERROR_LAUNCH_FAILED => Error::new(Kind::Internal, what),
        CUDA_ERROR_OUT_OF_MEMORY => {
            Error::new(Kind::DeviceUnavailable, what).hint("Use a smaller model, a shorter context, or --device cpu")
        }
        CUDA_ERROR_UNSUPPORTED_PTX_VERSION => {
            Error::new(Kind::DeviceUnavailable, what).hint("The driver is older than the compiler: update the driver")
        }
        CUDA_ERROR_INVALID_PTX | CUDA_ERROR_INVALID_IMAGE | CUDA_ERROR_NOT_FOUND => {
            Error::new(Kind::DeviceUnavailable, what).hint(REPORT)
        }
        _ => Error::new(Kind::DeviceUnavailable, what).hint("Use --device cpu, or see whether `nvidia-smi` works"),
    }
}

/// What to do about what is no fault of the machine.
const REPORT: &str =
    "That is a defect of this program, or of that version: please report it. Until then use --device cpu";

/// That the compiler, which has passed its trial, has refused one of our sources.
pub(super) fn refused(nvrtc: &Nvrtc, source: &str, log: &str) -> Error {
    let (build, path) = (&nvrtc.build, nvrtc.path.display());
    // A message is one line; of a log the first one with an error says most.
    let line = log.lines().find(|line| line.contains("error")).or(log.lines().next()).unwrap_or_default().trim();
    let what = format!("the CUDA compiler {path} of version {build} refuses {source}: {line}");
    Error::new(Kind::DeviceUnavailable, what).hint(REPORT)
}

/// That there is no driver.
pub(super) fn no_driver() -> Error {
    let hint = "Install NVIDIA's driver, or use --device cpu";
    Error::new(Kind::DeviceUnavailable, "there is no CUDA driver (libcuda.so) on this machine").hint(hint)
}

/// The version that the driver gives as 1000·major + 10·minor, if it is new enough.
pub(super) fn check_driver(number: i32) -> Result<Version> {
    let version = ((number / 1000) as u32, (number % 1000 / 10) as u32);
    let ((major, minor), (least, _)) = (version, OLDEST_DRIVER);
    if version < OLDEST_DRIVER {
        let what =
            format!("the CUDA driver is too old: it knows CUDA {major}.{minor}, and at least {least}.0 is needed");
        return Err(Error::new(Kind::DeviceUnavailable, what).hint("Update the driver, or use --device cpu"));
    }
    Ok(version)
}

/// Whether a card of this compute capability has all the instructions.
pub(super) fn check_card(name: &str, capability: Version) -> Result<()> {
    let ((major, minor), (least, _)) = (capability, OLDEST_CARD);
    if capability < OLDEST_CARD {
        let what = format!("{name} has compute capability {major}.{minor}, and at least {least}.0 is needed");
        let hint = "Cards from the year 2020 on have it: A100, RTX 30 and later. Use --device cpu";
        return Err(Error::new(Kind::DeviceUnavailable, what).hint(hint));
    }
    Ok(())
}

/// That so much memory cannot be had, of which `free` of `total` bytes are left.
pub(super) fn out_of_memory(n_byte: usize, (free, total): (usize, usize)) -> Error {
    let gb = |bytes: usize| format!("{:.1} GB", bytes as f64 / 1e9);
    let what = format!("the GPU has no room for {}: {} of {} are free", gb(n_byte), gb(free), gb(total));
    Error::new(Kind::DeviceUnavailable, what).hint("Use a smaller model, a shorter context, or --device cpu")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drivers_and_cards_that_are_too_old_are_named() {
        assert_eq!(check_driver(12_090).unwrap(), (12, 9));
        assert_eq!(check_driver(13_000).unwrap(), (13, 0));
        let error = check_driver(11_080).unwrap_err();
        assert_eq!(error.kind(), Kind::DeviceUnavailable);
        assert!(error.to_string().contains("knows CUDA 11.8") && error.to_string().contains("Update"), "{error}");

        check_card("A100", (8, 0)).unwrap();
        let error = check_card("Tesla V100", (7, 0)).unwrap_err();
        assert_eq!(error.kind(), Kind::DeviceUnavailable);
        assert!(error.to_string().starts_with("Tesla V100 has compute capability 7.0"), "{error}");
    }
}
