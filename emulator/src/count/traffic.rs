//! What the addresses of a warp's accesses mean for memory: requests, sectors, wavefronts.

use serde::{Deserialize, Serialize};

/// Accesses to global memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Global {
    /// Instructions of warps.
    pub requests: u64,
    /// 32-byte sectors that they touched, each once for a request.
    pub sectors: u64,
    /// The fewest sectors that could hold the bytes asked for.
    pub ideal_sectors: u64,
    /// Bytes asked for by all lanes.
    pub bytes: u64,
}

/// Accesses to shared memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shared {
    /// Instructions of warps.
    pub requests: u64,
    /// Passes over the 32 banks that they need.
    pub wavefronts: u64,
    /// Passes that they would need without bank conflicts.
    pub ideal_wavefronts: u64,
    /// Bytes asked for by all lanes.
    pub bytes: u64,
}

/// Which counters an access belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Flow {
    /// `ld`, `ldmatrix`.
    Load,
    /// `st`, `stmatrix`; in shared memory also the arriving side of `cp.async`.
    Store,
    /// `atom`, `red`.
    Atomic,
    /// The reading side of `cp.async`.
    Copy,
}

/// Traffic of one block.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// By [`Flow`].
    pub global: [Global; 4],
    /// By [`Flow`].
    pub shared: [Shared; 3],
    /// Branches at which lanes parted.
    pub divergent_branches: u64,
}

impl Global {
    /// Adds another count.
    pub fn add(&mut self, other: &Global) {
        self.requests += other.requests;
        self.sectors += other.sectors;
        self.ideal_sectors += other.ideal_sectors;
        self.bytes += other.bytes;
    }
}

impl Shared {
    /// Adds another count.
    pub fn add(&mut self, other: &Shared) {
        self.requests += other.requests;
        self.wavefronts += other.wavefronts;
        self.ideal_wavefronts += other.ideal_wavefronts;
        self.bytes += other.bytes;
    }
}

/// The distinct addresses among active lanes divided by `unit`, in order of size when there are several out of order.
#[inline(always)]
fn distinct(mask: u32, addresses: &[u64; 32], unit: u64, out: &mut [u64; 32]) -> usize {
    let mut count = 0;
    let mut ordered = true;
    for (lane, address) in addresses.iter().enumerate() {
        let item = address / unit;
        let new = mask >> lane & 1 != 0 && (count == 0 || out[count - 1] != item);
        ordered &= !new || count == 0 || out[count - 1] < item;
        if new {
            out[count] = item;
            count += 1;
        }
    }
    if !ordered {
        out[..count].sort_unstable();
        let mut kept = 1;
        for i in 1..count {
            if out[i] != out[kept - 1] {
                out[kept] = out[i];
                kept += 1;
            }
        }
        count = kept;
    }
    count
}

impl Traffic {
    /// An access of the lanes of `mask` to global memory, `bytes` each, aligned; it calls `touched` with every sector.
    #[inline(always)]
    pub fn global(&mut self, flow: Flow, mask: u32, addresses: &[u64; 32], bytes: u64, mut touched: impl FnMut(u64)) {
        let mut items = [0; 32];
        // Accesses are aligned to their size, so that up to 32 bytes lie in one sector.
        let count = distinct(mask, addresses, 32, &mut items);
        items[..count].iter().for_each(|sector| touched(*sector));
        let (sum, sectors) = (&mut self.global[flow as usize], count as u64);
        sum.requests += 1;
        sum.sectors += sectors;
        // Lanes that share an address ask for the same bytes.
        let mut places = [0; 32];
        let distinct_bytes = distinct(mask, addresses, bytes, &mut places) as u64 * bytes;
        sum.ideal_sectors += distinct_bytes.div_ceil(32);
        sum.bytes += u64::from(mask.count_ones()) * bytes;
    }

    /// An access to shared memory.
    #[inline(always)]
    pub fn shared(&mut self, flow: Flow, mask: u32, addresses: &[u64; 32], bytes: u64) {
        let (wavefronts, ideal) = wavefronts(mask, addresses, bytes, flow == Flow::Atomic);
        let sum = &mut self.shared[flow as usize];
        sum.requests += 1;
        sum.wavefronts += wavefronts;
        sum.ideal_wavefronts += ideal;
        sum.bytes += u64::from(mask.count_ones()) * bytes;
    }
}

/// Passes over the banks that an access needs, and would need without conflicts.
///
/// 32 banks of 4 bytes; lanes that read the same word share a pass. An access of 8 bytes goes half a warp at a time, one
/// of 16 bytes a quarter. Atomics on the same word go one after the other.
#[inline(always)]
pub fn wavefronts(mask: u32, addresses: &[u64; 32], bytes: u64, atomic: bool) -> (u64, u64) {
    let lanes = if bytes <= 4 { 32 } else { (128 / bytes) as usize };
    let (mut sum, mut ideal) = (0, 0);
    for first in (0..32).step_by(lanes) {
        let part = mask >> first & (u32::MAX >> (32 - lanes));
        if part == 0 {
            continue;
        }
        ideal += 1;
        sum += passes(part, &addresses[first..first + lanes], bytes, atomic);
    }
    (sum, ideal)
}

/// Passes of one part of an access: the most distinct words that fall into one bank.
#[inline(always)]
fn passes(mask: u32, addresses: &[u64], bytes: u64, atomic: bool) -> u64 {
    let mut banks = [u64::MAX; 32];
    let mut conflict = false;
    for (lane, address) in addresses.iter().enumerate() {
        if mask >> lane & 1 == 0 {
            continue;
        }
        for i in 0..bytes.div_ceil(4) {
            let word = address / 4 + i;
            let bank = &mut banks[(word % 32) as usize];
            conflict |= *bank != u64::MAX && (*bank != word || atomic);
            *bank = word;
        }
    }
    if conflict { conflicting_passes(mask, addresses, bytes, atomic) } else { 1 }
}

#[cold]
#[inline(never)]
fn conflicting_passes(mask: u32, addresses: &[u64], bytes: u64, atomic: bool) -> u64 {
    let active = addresses.iter().enumerate().filter(|(lane, _)| mask >> lane & 1 != 0);
    let mut words: Vec<u64> = active.flat_map(|(_, a)| (0..bytes.div_ceil(4)).map(move |i| a / 4 + i)).collect();
    words.sort_unstable();
    if !atomic {
        words.dedup();
    }
    let mut counts = [0; 32];
    words.iter().for_each(|word| counts[(word % 32) as usize] += 1);
    counts.into_iter().max().unwrap_or(0)
}
