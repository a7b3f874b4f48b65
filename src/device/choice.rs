//! Which device computes.

use super::{Device, cpu, cuda};
use crate::error::{Error, Result};

/// Where to compute.
#[derive(clap::ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The first GPU if it can be used, otherwise the CPU.
    Auto,
    /// The CPU engine.
    Cpu,
    /// The first GPU that NVIDIA's driver lists.
    Cuda,
    /// The GPU's kernels, run by the emulator: for tests, and very slow.
    #[cfg(feature = "emulated")]
    Emulated,
}

/// Opens a device. `threads` is for the CPU engine (and the emulator), and by default there is one for each core. `note` hears
/// why a GPU that seems to be there is not used.
pub fn open(choice: DeviceChoice, threads: Option<usize>, note: impl FnOnce(&str)) -> Result<Box<dyn Device>> {
    let cpu = || -> Result<Box<dyn Device>> { Ok(Box::new(cpu::Cpu::new(threads)?)) };
    match choice {
        DeviceChoice::Cpu => cpu(),
        DeviceChoice::Cuda => Ok(Box::new(cuda::open(0)?)),
        DeviceChoice::Auto if !cuda::has_driver() => cpu(),
        DeviceChoice::Auto => match cuda::open(0) {
            Ok(gpu) => Ok(Box::new(gpu)),
            Err(error) => {
                note(&cpu_instead(&error));
                cpu()
            }
        },
        #[cfg(feature = "emulated")]
        DeviceChoice::Emulated => Ok(Box::new(cuda::emulated::open(threads)?)),
    }
}

/// What is said when the CPU takes over from a GPU that cannot be used.
pub fn cpu_instead(error: &Error) -> String {
    format!("The GPU is not used: {error}. The CPU computes instead.")
}
