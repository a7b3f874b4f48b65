//! What this machine offers, in words, without starting any engine: for `info device`.

use cudarc::driver::{result, sys};
use serde::Serialize;

/// What there is to compute with.
#[derive(Debug, Clone, Serialize)]
pub struct Machine {
    /// The processor's architecture and the vector instructions the CPU engine can use here.
    pub cpu: String,
    /// Hardware threads available to this process.
    pub threads: usize,
    /// Graphics cards, or why there are none.
    pub cuda: Cuda,
}

/// The state of CUDA on this machine.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Cuda {
    /// The cards the driver lists.
    Cards(Vec<Card>),
    /// Why there are none, in one clause.
    Unavailable(String),
}

/// One graphics card.
#[derive(Debug, Clone, Serialize)]
pub struct Card {
    /// The driver's name for it.
    pub name: String,
    /// Compute capability, major and minor.
    pub compute_capability: (i32, i32),
    /// Total memory.
    pub memory_bytes: usize,
}

/// Asks the machine.
pub fn machine() -> Machine {
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    Machine { cpu: cpu(), threads, cuda: cuda() }
}

fn cpu() -> String {
    let mut features: Vec<&str> = Vec::new();
    #[cfg(target_arch = "x86_64")]
    {
        let found = [
            ("AVX2", std::arch::is_x86_feature_detected!("avx2")),
            ("FMA", std::arch::is_x86_feature_detected!("fma")),
            ("AVX-512", std::arch::is_x86_feature_detected!("avx512f")),
        ];
        features.extend(found.iter().filter(|(_, present)| *present).map(|(name, _)| *name));
    }
    #[cfg(target_arch = "aarch64")]
    features.push("NEON");
    format!(
        "{} ({})",
        std::env::consts::ARCH,
        if features.is_empty() { "portable".into() } else { features.join(", ") }
    )
}

fn cuda() -> Cuda {
    // SAFETY: looks for the driver library by name and closes it again; nothing of it is called.
    // Asked first because every other call of cudarc panics when the library is missing.
    if !unsafe { sys::is_culib_present() } {
        return Cuda::Unavailable("no CUDA driver (libcuda) on this machine".into());
    }
    match cards() {
        Ok(cards) if cards.is_empty() => Cuda::Unavailable("the CUDA driver lists no card".into()),
        Ok(cards) => Cuda::Cards(cards),
        Err(error) => Cuda::Unavailable(format!("the CUDA driver fails: {error:?}")),
    }
}

fn cards() -> Result<Vec<Card>, cudarc::driver::DriverError> {
    use sys::CUdevice_attribute as Attribute;
    result::init()?;
    (0..result::device::get_count()?)
        .map(|ordinal| {
            let device = result::device::get(ordinal)?;
            // SAFETY: `device` comes from `device::get`, which is what the three calls require.
            let (major, minor, memory_bytes) = unsafe {
                (
                    result::device::get_attribute(device, Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
                    result::device::get_attribute(device, Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
                    result::device::total_mem(device)?,
                )
            };
            Ok(Card { name: result::device::get_name(device)?, compute_capability: (major, minor), memory_bytes })
        })
        .collect()
}
