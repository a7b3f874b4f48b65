//! Graphics cards, as far as they bound a kernel's time.
//!
//! From the vendors' data sheets; the share of the tensor cores' rate that `mma.sync` sustains on an H100 is the mean that Luo
//! et al. measured (arXiv 2402.13499), the other two are what it is usually taken to be. All are assumptions here: nothing in
//! this program measured them.

/// Rates of one card, each for a streaming multiprocessor and a cycle unless it says otherwise.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Card {
    /// Its name.
    pub name: &'static str,
    /// What the driver calls it, and no card of other rates.
    pub driver_name: &'static str,
    /// Streaming multiprocessors.
    pub multiprocessors: f64,
    /// Cycles a second.
    pub clock: f64,
    /// bf16 multiplications and additions with fp32 accumulation.
    pub tensor_flop: f64,
    /// Share of that which `mma.sync` sustains.
    pub sustained: f64,
    /// Special functions.
    pub special: f64,
    /// Instructions of warps.
    pub issue: f64,
    /// Passes over the banks of shared memory.
    pub wavefronts: f64,
    /// Bytes a second to and from the card's memory, of the whole card.
    pub memory: f64,
    /// Registers of a multiprocessor.
    pub registers: u32,
    /// Warps that a multiprocessor can hold.
    pub warps: u32,
    /// Bytes of shared memory of a multiprocessor, 1 KiB of each block's taken by the system.
    pub shared_bytes: u32,
    /// The architecture that kernels are assembled for.
    pub architecture: &'static str,
    /// Bytes of shared memory that a block may have.
    pub block_shared_bytes: u32,
}

/// The cards that bounds are worked out for.
pub const CARDS: [Card; 4] = [
    Card {
        name: "H100 SXM",
        driver_name: "NVIDIA H100 80GB HBM3",
        multiprocessors: 132.0,
        clock: 1.83e9,
        tensor_flop: 4096.0,
        sustained: 0.63,
        special: 16.0,
        issue: 4.0,
        wavefronts: 1.0,
        memory: 3.35e12,
        registers: 65_536,
        warps: 64,
        shared_bytes: 228 << 10,
        architecture: "90a",
        block_shared_bytes: 227 << 10,
    },
    // The processor of an H100, with more and faster memory.
    Card {
        name: "H200 SXM",
        driver_name: "NVIDIA H200",
        multiprocessors: 132.0,
        clock: 1.83e9,
        tensor_flop: 4096.0,
        sustained: 0.63,
        special: 16.0,
        issue: 4.0,
        wavefronts: 1.0,
        memory: 4.8e12,
        registers: 65_536,
        warps: 64,
        shared_bytes: 228 << 10,
        architecture: "90a",
        block_shared_bytes: 227 << 10,
    },
    Card {
        name: "A100 SXM",
        driver_name: "NVIDIA A100-SXM4-80GB",
        multiprocessors: 108.0,
        clock: 1.41e9,
        tensor_flop: 2048.0,
        sustained: 0.90,
        special: 16.0,
        issue: 4.0,
        wavefronts: 1.0,
        memory: 2.04e12,
        registers: 65_536,
        warps: 64,
        shared_bytes: 164 << 10,
        architecture: "80",
        block_shared_bytes: 163 << 10,
    },
    Card {
        name: "RTX 4090",
        driver_name: "NVIDIA GeForce RTX 4090",
        multiprocessors: 128.0,
        clock: 2.52e9,
        tensor_flop: 512.0,
        sustained: 0.92,
        special: 16.0,
        issue: 4.0,
        wavefronts: 1.0,
        memory: 1.01e12,
        registers: 65_536,
        warps: 48,
        shared_bytes: 100 << 10,
        architecture: "89",
        block_shared_bytes: 99 << 10,
    },
];

impl Card {
    /// The card that a device of this name is, if its rates are assumed here. Others of the same processor have other memory and
    /// clocks (an H100 NVL, a 4090 D), so the whole name has to be the same.
    pub fn named(device: &str) -> Option<&'static Self> {
        CARDS.iter().find(|card| device == format!("CUDA ({})", card.driver_name))
    }

    /// Blocks of one kernel that a multiprocessor holds at a time: `threads` each, with so many registers a thread and bytes
    /// of shared memory a block. Registers are given out by 256 to a warp, shared memory by 128 bytes.
    pub fn resident_blocks(&self, threads: u32, registers: u32, shared_bytes: u32) -> u32 {
        let warps = threads.div_ceil(32).max(1);
        let of_warp = (32 * registers).next_multiple_of(256).max(256);
        let by_registers = self.registers / of_warp / warps;
        let by_shared = self.shared_bytes / (shared_bytes + 1024).next_multiple_of(128);
        by_registers.min(by_shared).min(self.warps / warps).min(32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cards_are_known_by_the_drivers_names() {
        let known = |name: &str| Card::named(name).map(|card| card.name);
        assert_eq!(known("CUDA (NVIDIA H100 80GB HBM3)"), Some("H100 SXM"));
        assert_eq!(known("CUDA (NVIDIA A100-SXM4-80GB)"), Some("A100 SXM"));
        assert_eq!(known("CUDA (NVIDIA GeForce RTX 4090)"), Some("RTX 4090"));
        assert_eq!(known("CUDA (NVIDIA H200)"), Some("H200 SXM"));
        let others = ["GH200 480GB", "H100 NVL", "H100 PCIe", "H200 NVL", "A100-PCIE-40GB", "GeForce RTX 4090 D"];
        for other in others {
            assert_eq!(known(&format!("CUDA (NVIDIA {other})")), None);
        }
        assert_eq!(known("CPU (AVX2, 4 threads)"), None);
    }

    #[test]
    fn occupancy_is_the_vendors() {
        let [h100, _, a100, _] = CARDS;
        // Worked out by hand from the programming guide's tables.
        assert_eq!(h100.resident_blocks(256, 32, 0), 8, "bound by warps");
        assert_eq!(h100.resident_blocks(384, 168, 53_248), 1, "12 warps of 168 registers: 64,512 of 65,536");
        assert_eq!(h100.resident_blocks(256, 64, 0), 4, "bound by registers");
        assert_eq!(h100.resident_blocks(32, 16, 0), 32, "bound by the number of blocks");
        assert_eq!(a100.resident_blocks(128, 32, 81 << 10), 2, "bound by shared memory");
        assert_eq!(a100.resident_blocks(128, 32, 82 << 10), 1, "with the system's KiB a second one does not fit");
    }
}
