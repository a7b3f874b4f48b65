//! Attributes of the device and of functions, by their numbers in `cuda.h`.

use std::sync::atomic::Ordering;

use super::error::{Outcome, invalid};
use super::module::Function;
use super::occupancy;
use crate::target::{self, Target};

/// The value of a device attribute.
///
/// # Errors
/// No such attribute.
pub fn of_device(target: Target, attribute: u32) -> Outcome<i32> {
    let limits = target.limits();
    let (major, minor) = target.compute_capability();
    let datacentre = matches!(target, Target::Sm80 | Target::Sm90 | Target::Sm100);
    let value = match attribute {
        1 => target::THREADS_PER_BLOCK,
        2..=4 => target::BLOCK_EXTENTS[attribute as usize - 2],
        5..=7 => target::GRID_EXTENTS[attribute as usize - 5],
        8 => target::SHARED_PER_BLOCK,
        9 => target::CONSTANT_BYTES,
        10 => 32,
        11 => i32::MAX as u32,
        12 | 82 => target::REGISTERS_PER_MULTIPROCESSOR,
        13 => limits.clocks_khz.0,
        14 => 512, // texture alignment
        15 => 1,   // copies overlap with kernels
        16 => limits.multiprocessors,
        17 | 18 => 0,  // no time limit on kernels; not integrated
        19 => 1,       // host memory can be mapped
        20 => 0,       // any number of contexts
        21 => 131_072, // textures and surfaces: sizes that all of these architectures have
        22 => 131_072,
        23 => 65_536,
        24..=26 => 16_384,
        27 | 28 => 32_768,
        29 => 2_048,
        30 => 512,
        31 => 1,                     // concurrent kernels
        32 => u32::from(datacentre), // error correction
        33..=35 => 0,                // place on the bus; driver model
        36 => limits.clocks_khz.1,
        37 => limits.bus_bits,
        38 => limits.l2_bytes,
        39 => limits.threads_per_multiprocessor,
        40 => {
            if datacentre {
                3
            } else {
                2
            }
        } // copy engines
        41 => 1, // unified addresses
        42 => 32_768,
        43 => 2_048,
        44 => 1,
        45 | 46 => 32_768,
        47 | 48 => 8_192,
        49 => 32_768,
        50 => 0,
        51 => 32,
        52 | 53 => 32_768,
        54 => 2_046,
        55 | 57 => 32_768,
        56 => 131_072,
        58..=60 => 16_384,
        61..=63 => 32_768,
        64 => 2_048,
        65 => 2_048,
        66 | 67 => 32_768,
        68 => 2_046,
        69 => 268_435_456,
        70 => 131_072,
        71 => 65_000,
        72 => 2_097_120,
        73 | 74 | 77 => 32_768,
        75 => major,
        76 => minor,
        78..=80 => 1, // stream priorities; caching in L1
        81 => limits.shared_per_multiprocessor,
        83 => 1,      // managed memory
        84 | 85 => 0, // one GPU on the board
        86 => 0,
        87 => limits.single_to_double,
        88 => 0,      // pageable memory is not for kernels
        89..=91 => 1, // managed memory at the same time as the host; preemption; one address for both
        92..=94 => 0, // memory operations in streams
        95 => 1,      // cooperative launches
        96 => 0,
        97 => limits.shared_per_block_optin,
        98 => 0,
        99 => 1,        // host memory can be registered
        100..=105 => 0, // page tables shared with the host; virtual memory management
        106 => limits.blocks_per_multiprocessor,
        107 => 0,
        108 | 109 => 0, // persisting L2
        110 => 0,
        111 => target::SHARED_RESERVED_PER_BLOCK,
        112..=114 => 0,
        115 => 1, // memory pools
        116..=119 => 0,
        120 => u32::from(occupancy::has_clusters(target)),
        121..=148 => 0, // what came later: nothing of it is here
        other => return invalid(format!("{other} is no attribute of a device")),
    };
    Ok(value as i32)
}

const MAX_DYNAMIC_SHARED: u32 = 8;
const CARVEOUT: u32 = 9;
const CLUSTER: std::ops::RangeInclusive<u32> = 10..=15;

/// The value of a function attribute.
///
/// # Errors
/// No such attribute.
pub fn of_function(function: &Function, attribute: u32) -> Outcome<i32> {
    let kernel = function.kernel();
    let value = match attribute {
        0 => function.max_threads(),
        1 => kernel.static_shared,
        2 => kernel.constant_bytes,
        3 => kernel.local_bytes,
        4 => occupancy::registers(function, function.max_threads()),
        5 => function.resident.ptx_version,
        6 => function.resident.target.number(),
        7 => 0,
        MAX_DYNAMIC_SHARED => function.dynamic_shared_limit.load(Ordering::Relaxed),
        CARVEOUT => return Ok(function.carveout),
        a if CLUSTER.contains(&a) => 0,
        other => return invalid(format!("{other} is no attribute of a function")),
    };
    Ok(value as i32)
}

/// Sets a function attribute.
///
/// # Errors
/// Not one that can be set; a value outside its range.
pub fn set_of_function(function: &mut Function, attribute: u32, value: i32) -> Outcome<()> {
    match attribute {
        MAX_DYNAMIC_SHARED => {
            let static_shared = function.kernel().static_shared;
            let most = function.resident.target.limits().shared_per_block_optin.saturating_sub(static_shared);
            match u32::try_from(value) {
                Ok(bytes) if bytes <= most => function.dynamic_shared_limit.store(bytes, Ordering::Relaxed),
                _ => {
                    return invalid(format!(
                        "{}: {value} bytes of dynamic shared memory; on {} it may have 0 to {most} besides its \
                         {static_shared} static ones",
                        function.name, function.resident.target
                    ));
                }
            }
        }
        CARVEOUT if (-1..=100).contains(&value) => function.carveout = value,
        CARVEOUT => return invalid(format!("a carve-out of {value} percent")),
        other => return invalid(format!("attribute {other} of a function cannot be set to {value}")),
    }
    Ok(())
}
