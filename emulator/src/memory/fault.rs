//! What is wrong with an address.

use std::fmt;

/// Why an access to global memory, or a request about it, is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MemoryFault {
    /// Some byte belongs to no allocation. With the nearest allocation: its address and length.
    OutOfBounds {
        /// The first such byte.
        address: u64,
        /// The allocation nearest to it.
        nearest: Option<(u64, u64)>,
    },
    /// Some byte belongs to an allocation that has been freed.
    UseAfterFree {
        /// The first such byte.
        address: u64,
        /// The freed allocation: its address and length.
        allocation: (u64, u64),
    },
    /// It was freed before.
    FreedTwice {
        /// The address that was to be freed.
        address: u64,
    },
    /// No allocation begins there.
    NotAnAllocation {
        /// The address that was to be freed.
        address: u64,
    },
}

impl fmt::Display for MemoryFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MemoryFault::OutOfBounds { address, nearest: None } => {
                write!(f, "address {address:#x} is outside every allocation (there is none)")
            }
            MemoryFault::OutOfBounds { address, nearest: Some((start, bytes)) } => {
                write!(f, "address {address:#x} is outside every allocation: ")?;
                if address < start {
                    write!(f, "{} bytes before one of {bytes} bytes at {start:#x}", start - address)
                } else if address - start < *bytes {
                    write!(f, "it is byte {} of one of {bytes} bytes that cannot be used now", address - start)
                } else {
                    write!(f, "{} bytes after the end of one of {bytes} bytes at {start:#x}", address - (start + bytes))
                }
            }
            MemoryFault::UseAfterFree { address, allocation: (start, bytes) } => {
                write!(
                    f,
                    "address {address:#x} lies in an allocation of {bytes} bytes at {start:#x} that has been freed"
                )
            }
            MemoryFault::FreedTwice { address } => write!(f, "the allocation at {address:#x} has been freed before"),
            MemoryFault::NotAnAllocation { address } => write!(f, "no allocation begins at {address:#x}"),
        }
    }
}

impl std::error::Error for MemoryFault {}
