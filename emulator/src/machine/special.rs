//! What a warp knows of itself and its surroundings: the special registers.

use super::lanes::{Frame, Row};
use crate::arith::approx::Perturbation;
use crate::decode::RESERVED_BYTES;
use crate::decode::op::Op;

/// Values behind the special registers of one warp.
#[derive(Clone, Debug)]
pub struct Special {
    /// `%tid`
    pub thread: [Row; 3],
    /// `%ntid`
    pub block_size: [u32; 3],
    /// `%ctaid`
    pub block: [u32; 3],
    /// `%nctaid`
    pub grid_size: [u32; 3],
    /// `%warpid`
    pub warp: u32,
    /// `%nwarpid`: warps that a multiprocessor has room for.
    pub warps: u32,
    /// `%smid` that the block poses to run on, and `%nsmid`.
    pub multiprocessor: [u32; 2],
    /// `%dynamic_smem_size`
    pub dynamic_shared: u32,
    /// `%total_smem_size`
    pub total_shared: u32,
    /// `%gridid`
    pub grid: u64,
    /// Room for the barrier of a cooperative launch, which `%envreg1` and `%envreg2` point to; 0 for other launches.
    pub workspace: u64,
    /// Where the part of shared memory begins that is reserved for the system, if the kernel uses it.
    pub reserved_shared: u32,
    /// How approximations are perturbed.
    pub perturbation: Perturbation,
}

/// The special registers, by what [`Op::x`] holds for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
#[allow(missing_docs, reason = "the names of PTX")]
pub enum Register {
    TidX,
    TidY,
    TidZ,
    NtidX,
    NtidY,
    NtidZ,
    CtaidX,
    CtaidY,
    CtaidZ,
    NctaidX,
    NctaidY,
    NctaidZ,
    Laneid,
    Warpid,
    Nwarpid,
    Smid,
    Nsmid,
    LanemaskEq,
    LanemaskLe,
    LanemaskLt,
    LanemaskGe,
    LanemaskGt,
    DynamicSmemSize,
    TotalSmemSize,
    WarpSize,
    EnvironmentHigh,
    EnvironmentLow,
    ReservedBegin,
    ReservedEnd,
    ReservedBytes,
    ReservedFirst,
    ReservedSecond,
    Zero,
    One,
}

const NAMES: [(&str, Register); 47] = [
    ("%tid.x", Register::TidX),
    ("%tid.y", Register::TidY),
    ("%tid.z", Register::TidZ),
    ("%ntid.x", Register::NtidX),
    ("%ntid.y", Register::NtidY),
    ("%ntid.z", Register::NtidZ),
    ("%ctaid.x", Register::CtaidX),
    ("%ctaid.y", Register::CtaidY),
    ("%ctaid.z", Register::CtaidZ),
    ("%nctaid.x", Register::NctaidX),
    ("%nctaid.y", Register::NctaidY),
    ("%nctaid.z", Register::NctaidZ),
    ("%laneid", Register::Laneid),
    ("%warpid", Register::Warpid),
    ("%nwarpid", Register::Nwarpid),
    ("%smid", Register::Smid),
    ("%nsmid", Register::Nsmid),
    ("%lanemask_eq", Register::LanemaskEq),
    ("%lanemask_le", Register::LanemaskLe),
    ("%lanemask_lt", Register::LanemaskLt),
    ("%lanemask_ge", Register::LanemaskGe),
    ("%lanemask_gt", Register::LanemaskGt),
    ("%dynamic_smem_size", Register::DynamicSmemSize),
    ("%total_smem_size", Register::TotalSmemSize),
    ("WARP_SZ", Register::WarpSize),
    // Where cooperative launches have room for the barrier of the grid.
    ("%envreg1", Register::EnvironmentHigh),
    ("%envreg2", Register::EnvironmentLow),
    // Without clusters every block is a cluster of its own.
    ("%cluster_ctarank", Register::Zero),
    ("%cluster_nctarank", Register::One),
    ("%cluster_ctaid.x", Register::Zero),
    ("%cluster_ctaid.y", Register::Zero),
    ("%cluster_ctaid.z", Register::Zero),
    ("%cluster_nctaid.x", Register::One),
    ("%cluster_nctaid.y", Register::One),
    ("%cluster_nctaid.z", Register::One),
    ("%clusterid.x", Register::CtaidX),
    ("%clusterid.y", Register::CtaidY),
    ("%clusterid.z", Register::CtaidZ),
    ("%nclusterid.x", Register::NctaidX),
    ("%nclusterid.y", Register::NctaidY),
    ("%nclusterid.z", Register::NctaidZ),
    ("%is_explicit_cluster", Register::Zero),
    // Shared memory of the system, in which cooperative groups of several warps keep their barriers.
    ("%reserved_smem_offset_begin", Register::ReservedBegin),
    ("%reserved_smem_offset_end", Register::ReservedEnd),
    ("%reserved_smem_offset_cap", Register::ReservedBytes),
    ("%reserved_smem_offset_0", Register::ReservedFirst),
    ("%reserved_smem_offset_1", Register::ReservedSecond),
];

impl Register {
    /// The 32-bit special register of that name; `%clock` and the 64-bit ones are operations of their own.
    pub fn named(name: &str) -> Option<Register> {
        NAMES.iter().find(|(known, _)| *known == name).map(|(_, register)| *register)
    }
}

/// `mov.u32 d, %special`, the register being [`Op::x`].
pub fn read(frame: &Frame, op: &Op, mask: u32) {
    let s = frame.special();
    let axis = |first: Register| (op.x - first as u64) as usize;
    let lanes = |f: fn(u32) -> u32| std::array::from_fn(|lane| f(lane as u32));
    let all = |value: u32| [value; 32];
    let is = |first: Register, last: Register| op.x >= first as u64 && op.x <= last as u64;
    let values = match op.x {
        _ if is(Register::TidX, Register::TidZ) => s.thread[axis(Register::TidX)].0,
        _ if is(Register::NtidX, Register::NtidZ) => all(s.block_size[axis(Register::NtidX)]),
        _ if is(Register::CtaidX, Register::CtaidZ) => all(s.block[axis(Register::CtaidX)]),
        _ if is(Register::NctaidX, Register::NctaidZ) => all(s.grid_size[axis(Register::NctaidX)]),
        x if x == Register::Laneid as u64 => lanes(|lane| lane),
        x if x == Register::Warpid as u64 => all(s.warp),
        x if x == Register::Nwarpid as u64 => all(s.warps),
        x if x == Register::Smid as u64 => all(s.multiprocessor[0]),
        x if x == Register::Nsmid as u64 => all(s.multiprocessor[1]),
        x if x == Register::LanemaskEq as u64 => lanes(|lane| 1 << lane),
        x if x == Register::LanemaskLe as u64 => lanes(|lane| u32::MAX >> (31 - lane)),
        x if x == Register::LanemaskLt as u64 => lanes(|lane| (1 << lane) - 1),
        x if x == Register::LanemaskGe as u64 => lanes(|lane| u32::MAX << lane),
        x if x == Register::LanemaskGt as u64 => lanes(|lane| !(u32::MAX >> (31 - lane))),
        x if x == Register::DynamicSmemSize as u64 => all(s.dynamic_shared),
        x if x == Register::TotalSmemSize as u64 => all(s.total_shared),
        x if x == Register::WarpSize as u64 => all(32),
        x if x == Register::EnvironmentHigh as u64 => all((s.workspace >> 32) as u32),
        x if x == Register::EnvironmentLow as u64 => all(s.workspace as u32),
        x if x == Register::ReservedBegin as u64 => all(s.reserved_shared),
        x if x == Register::ReservedEnd as u64 => all(s.reserved_shared + RESERVED_BYTES),
        x if x == Register::ReservedBytes as u64 => all(RESERVED_BYTES),
        x if x == Register::ReservedFirst as u64 => all(s.reserved_shared),
        x if x == Register::ReservedSecond as u64 => all(s.reserved_shared + RESERVED_BYTES / 2),
        x if x == Register::One as u64 => all(1),
        _ => all(0),
    };
    // SAFETY: the decoder gives `d` a 32-bit register.
    unsafe { frame.write(op.d, &values, mask) };
}

/// `mov.u64 d, %gridid`
pub fn read_grid(frame: &Frame, op: &Op, mask: u32) {
    // SAFETY: the decoder gives `d` a 64-bit register.
    unsafe { frame.write(op.d, &[frame.special().grid; 32], mask) };
}

/// The address of a local variable: the frame's base plus [`Op::x`], as 64 bits.
pub fn local_address(frame: &Frame, op: &Op, mask: u32) {
    // SAFETY: the decoder gives `d` a 64-bit register.
    unsafe { frame.write(op.d, &[u64::from(frame.local_base) + op.x; 32], mask) };
}

/// Likewise, as 32 bits.
pub fn local_address32(frame: &Frame, op: &Op, mask: u32) {
    // SAFETY: the decoder gives `d` a 32-bit register.
    unsafe { frame.write(op.d, &[frame.local_base + op.x as u32; 32], mask) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_and_distinct() {
        for (name, register) in NAMES {
            assert_eq!(Register::named(name), Some(register));
        }
        assert_eq!(Register::named("%tid.w"), None);
    }
}
