//! `wmma` of doubles: 8 × 8 × 4, in the layout of `mma.m8n8k4`, for PTX leaves the layout open.

use super::access::{addresses, by_space};
use super::core::{Core, OpSpace};
use super::lanes::{ALL, Frame};
use super::locate::{locate, written};
use super::modifiers::{Modifiers, Order};
use super::trouble::Outcome;
use super::warp::Warp;
use super::wmma::{Operand, all_lanes, plain_space};
use crate::decode::op::{self, Op};

/// Rows, columns and depth of the product.
const M: u32 = 8;
const N: u32 = 8;
const K: u32 = 4;

/// A fragment: which matrix, and how it lies in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// Which matrix.
    pub operand: Operand,
    /// Whether it lies column by column.
    pub by_column: bool,
}

impl Fragment {
    /// As a number.
    pub fn pack(self) -> u32 {
        self.operand as u32 | u32::from(self.by_column) << 2
    }

    fn unpack(bits: u32) -> Self {
        let operand = [Operand::A, Operand::B, Operand::C][(bits & 3) as usize % 3];
        Fragment { operand, by_column: bits >> 2 & 1 != 0 }
    }

    /// Registers of a lane.
    pub fn registers(self) -> usize {
        if self.operand == Operand::C { 2 } else { 1 }
    }

    /// Row and column of what a lane holds in a register.
    fn cell(self, lane: u32, register: u32) -> [u32; 2] {
        let (group, t) = (lane / 4, lane % 4);
        match self.operand {
            Operand::A => [group, t],
            Operand::B => [t, group],
            Operand::C => [group, 2 * t + register],
        }
    }

    /// Elements between rows, or columns, when no stride is given.
    fn leading(self) -> u32 {
        match (self.operand, self.by_column) {
            (Operand::A, false) | (Operand::B, true) => K,
            (Operand::A, true) | (Operand::C, true) => M,
            (Operand::B, false) | (Operand::C, false) => N,
        }
    }

    /// Bytes from the matrix's first element to that of a lane.
    fn distance(self, lane: u32, register: u32, stride: u32) -> u64 {
        let [row, column] = self.cell(lane, register);
        let (far, near) = if self.by_column { (column, row) } else { (row, column) };
        8 * (u64::from(far) * u64::from(stride) + u64::from(near))
    }
}

/// Calls `f` with the addresses of the elements of each register.
unsafe fn each(
    core: &mut Core<'_>,
    frame: &Frame,
    op: &Op,
    mut f: impl FnMut(&mut Core<'_>, usize, OpSpace, &[u64; 32], u32) -> Outcome,
) -> Outcome {
    let (m, fragment) = (Modifiers::unpack(op.y), Fragment::unpack(op.e));
    // SAFETY: by the caller's promise.
    let base = unsafe { addresses(frame, op, m) };
    for register in 0..fragment.registers() {
        let at: [u64; 32] = std::array::from_fn(|lane| {
            let stride = match op.b {
                op::NONE => fragment.leading(),
                // SAFETY: by the caller's promise.
                code => unsafe { frame.row::<u32>(code)[lane] },
            };
            base[lane].wrapping_add(fragment.distance(lane as u32, register as u32, stride))
        });
        let mut one = |space: OpSpace, at: &[u64; 32], lanes: u32| -> Outcome {
            plain_space(space, lanes)?;
            f(core, register, space, at, lanes)
        };
        match m.space {
            OpSpace::Generic => by_space(at, ALL, one)?,
            space => one(space, &at, ALL)?,
        }
    }
    Ok(())
}

/// `wmma.load`: the fragment is in `e`, the stride in `b`, registers are listed.
///
/// # Safety
/// The decoder placed the operands.
pub unsafe fn load(core: &mut Core<'_>, warp: &mut Warp, frame: &Frame, op: &Op, mask: u32) -> Outcome {
    all_lanes(mask)?;
    let registers = Fragment::unpack(op.e).registers();
    let mut values = [[0u64; 32]; 2];
    // SAFETY: by the caller's promise; what is read was located.
    unsafe {
        each(core, frame, op, |core, register, space, at, lanes| {
            let region = core.region(space);
            let places = locate(core, &region, at, lanes, 8, 8, core.grid.need, "reads")?;
            for lane in (0..32).filter(|lane| lanes >> lane & 1 != 0) {
                values[register][lane] = places[lane].cast::<u64>().read_unaligned();
            }
            super::hooks::access(core, warp, region.space, false, Order::Weak, lanes, at, 8)
        })?;
        for (register, code) in core.listed(op, registers).iter().enumerate() {
            frame.write(*code, &values[register], ALL);
        }
    }
    Ok(())
}

/// `wmma.store`: likewise.
///
/// # Safety
/// The decoder placed the operands.
pub unsafe fn store(core: &mut Core<'_>, warp: &mut Warp, frame: &Frame, op: &Op, mask: u32) -> Outcome {
    all_lanes(mask)?;
    // SAFETY: by the caller's promise; what is written was located.
    unsafe {
        each(core, frame, op, |core, register, space, at, lanes| {
            let region = core.region(space);
            let places = locate(core, &region, at, lanes, 8, 8, 0x0F, "writes")?;
            super::hooks::access(core, warp, region.space, true, Order::Weak, lanes, at, 8)?;
            let values = frame.row::<u64>(core.listed(op, 2)[register]);
            for lane in (0..32).filter(|lane| lanes >> lane & 1 != 0) {
                places[lane].cast::<u64>().write_unaligned(values[lane]);
                written(core, &region, at[lane], 8);
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fragments_hold_each_element_once() {
        for (operand, rows, columns) in [(Operand::A, M, K), (Operand::B, K, N), (Operand::C, M, N)] {
            for by_column in [false, true] {
                let fragment = Fragment { operand, by_column };
                assert_eq!(Fragment::unpack(fragment.pack()), fragment);
                let cells = (0..32).flat_map(|lane| (0..fragment.registers() as u32).map(move |r| (lane, r)));
                let mut places: Vec<u64> =
                    cells.map(|(lane, register)| fragment.distance(lane, register, fragment.leading()) / 8).collect();
                places.sort_unstable();
                assert_eq!(places, (0..u64::from(rows * columns)).collect::<Vec<u64>>());
            }
        }
    }
}
