//! What loads, stores and atomics say about themselves beside their operands.

use super::core::OpSpace;

/// What `ld` and `st` keep in [`crate::decode::op::Op::y`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Modifiers {
    /// State space.
    pub space: OpSpace,
    /// Elements of the vector: 1, 2, 4 or 8.
    pub count: u8,
    /// Whether the address register has 64 bits.
    pub wide: bool,
    /// Whether the address counts from the current frame's local memory.
    pub framed: bool,
    /// `.volatile`, `.relaxed`, `.acquire`, `.release`, `.mmio`: others may rely on its order.
    pub order: Order,
}

/// How strong an access is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs, reason = "the names of PTX")]
pub enum Order {
    Weak,
    Volatile,
    Relaxed,
    Acquire,
    Release,
    AcquireRelease,
    /// `.relaxed.cta`; so the following three.
    RelaxedBlock,
    AcquireBlock,
    ReleaseBlock,
    AcquireReleaseBlock,
    /// `.nc`: past the coherent caches, for what no thread writes during the launch.
    Constant,
}

impl Order {
    /// Whether it acquires.
    pub fn acquires(self) -> bool {
        matches!(self, Order::Acquire | Order::AcquireRelease | Order::AcquireBlock | Order::AcquireReleaseBlock)
    }

    /// Whether it releases.
    pub fn releases(self) -> bool {
        matches!(self, Order::Release | Order::AcquireRelease | Order::ReleaseBlock | Order::AcquireReleaseBlock)
    }

    /// Whether others may rely on it, and so wait for it in a loop.
    pub fn is_strong(self) -> bool {
        !matches!(self, Order::Weak | Order::Constant)
    }

    /// Whether it is for the block alone.
    pub fn is_narrow(self) -> bool {
        self as u8 >= Order::RelaxedBlock as u8 && self != Order::Constant
    }
}

impl Modifiers {
    /// Into [`crate::decode::op::Op::y`].
    pub fn pack(self) -> u64 {
        let flags = u64::from(self.wide) | u64::from(self.framed) << 1;
        self.space as u64 | u64::from(self.count) << 8 | flags << 16 | (self.order as u64) << 24
    }

    /// From [`crate::decode::op::Op::y`].
    #[inline(always)]
    pub fn unpack(y: u64) -> Self {
        let space = match y & 0xFF {
            0 => OpSpace::Generic,
            1 => OpSpace::Global,
            2 => OpSpace::Shared,
            3 => OpSpace::Local,
            4 => OpSpace::Parameter,
            _ => OpSpace::Constant,
        };
        let order = match y >> 24 & 0xFF {
            0 => Order::Weak,
            1 => Order::Volatile,
            2 => Order::Relaxed,
            3 => Order::Acquire,
            4 => Order::Release,
            5 => Order::AcquireRelease,
            6 => Order::RelaxedBlock,
            7 => Order::AcquireBlock,
            8 => Order::ReleaseBlock,
            9 => Order::AcquireReleaseBlock,
            _ => Order::Constant,
        };
        Modifiers { space, count: (y >> 8) as u8, wide: y >> 16 & 1 != 0, framed: y >> 17 & 1 != 0, order }
    }
}
