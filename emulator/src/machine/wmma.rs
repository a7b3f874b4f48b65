//! `wmma`: the matrix functions of `mma.h`.
//!
//! PTX leaves open which lane holds which element, so fragments are made of those of `mma`: a matrix of 16 columns, or of
//! 32 rows, is two of them side by side. The shape `m8n32` is the shape `m32n8` of the transposed matrices.

use super::access::{addresses, by_space};
use super::core::{Core, OpSpace};
use super::lanes::{ALL, Frame};
use super::locate::{locate, written};
use super::modifiers::{Modifiers, Order};
use super::trouble::{Outcome, Trouble};
use super::warp::Warp;
use crate::decode::op::Op;
use crate::settings::Rounding;
use crate::tensor::WarpRegister;
use crate::tensor::layout::{a_cell, b_cell, c_cell};
use crate::tensor::mma::{Accumulator, Element, Mma, Sums, mma};
use crate::watch::FindingKind;

/// Which matrix a fragment is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operand {
    /// The left factor.
    A,
    /// The right factor.
    B,
    /// Addend or result.
    C,
}

/// A `wmma` instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wmma {
    /// One of the products of `mma` that it is made of.
    pub product: Mma,
    /// Rows, columns of the result.
    pub shape: [usize; 2],
    /// Of loads and stores: which matrix, and whether it lies column by column.
    pub operand: Operand,
    /// Whether it lies column by column in memory.
    pub by_column: bool,
    /// Registers of a fragment as PTX counts them: those of f16 factors hold each element twice.
    pub registers: usize,
}

impl Wmma {
    /// Whether the transposed product is computed.
    fn transposed(&self) -> bool {
        self.shape[0] == 8
    }

    /// Tiles that the left factor of `mma` has, and the right one.
    fn tiles(&self) -> [usize; 2] {
        match self.shape {
            [16, 16] => [1, 2],
            _ => [2, 1],
        }
    }

    /// Registers that are different, of the fragments of A, B, C.
    pub fn distinct(&self, operand: Operand) -> usize {
        let [left, right] = self.tiles();
        let (of_left, of_right) = (left * self.product.a_registers(), right * self.product.b_registers());
        match (operand, self.transposed()) {
            (Operand::A, false) | (Operand::B, true) => of_left,
            (Operand::B, false) | (Operand::A, true) => of_right,
            (Operand::C, _) => 2 * self.product.c.registers(),
        }
    }

    /// Bytes of an element, and elements of a register.
    fn element(&self) -> (u64, usize) {
        match self.operand {
            Operand::C if self.product.c == Accumulator::F16 => (2, 2),
            Operand::C => (4, 1),
            _ => (4 / self.product.a.per_register() as u64, self.product.a.per_register()),
        }
    }

    /// Row and column of an element.
    fn cell(&self, lane: usize, register: usize, index: usize) -> [usize; 2] {
        let elements = self.product.a.per_register();
        let [left, _] = self.tiles();
        let left_factor = self.operand == if self.transposed() { Operand::B } else { Operand::A };
        let [row, column] = match self.operand {
            Operand::C => {
                let per_tile = self.product.c.registers();
                let (tile, within) = (register / per_tile, register % per_tile);
                let cell = c_cell(lane, within * self.element().1 + index);
                if left == 2 { [16 * tile + cell.row, cell.column] } else { [cell.row, 8 * tile + cell.column] }
            }
            _ if left_factor => {
                let per_tile = self.product.a_registers();
                let cell = a_cell(lane, register % per_tile, index, elements);
                [16 * (register / per_tile) + cell.row, cell.column]
            }
            _ => {
                let per_tile = self.product.b_registers();
                let cell = b_cell(lane, register % per_tile, index, elements);
                [cell.row, 8 * (register / per_tile) + cell.column]
            }
        };
        if self.transposed() { [column, row] } else { [row, column] }
    }

    /// Elements between rows, or columns, when no stride is given.
    fn leading(&self) -> u32 {
        let [m, n] = self.shape;
        let k = self.product.k;
        (match (self.operand, self.by_column) {
            (Operand::A, false) | (Operand::B, true) => k,
            (Operand::A, true) | (Operand::C, true) => m,
            (Operand::B, false) | (Operand::C, false) => n,
        }) as u32
    }
}

/// That all 32 lanes are there.
pub fn all_lanes(mask: u32) -> Outcome {
    if mask == ALL {
        return Ok(());
    }
    let message = format!("executes an instruction of the whole warp, but only lanes {mask:#010x} are there");
    Err(Trouble::new(FindingKind::MaskMismatch, mask.trailing_zeros(), message))
}

/// Where element `index` of `register` lies, for each lane: `b` is the stride.
///
/// # Safety
/// The decoder placed the operands.
unsafe fn elements(w: &Wmma, frame: &Frame, op: &Op, base: &[u64; 32], register: usize, index: usize) -> [u64; 32] {
    std::array::from_fn(|lane| {
        let stride = match op.b {
            crate::decode::op::NONE => w.leading(),
            // SAFETY: by the caller's promise.
            code => unsafe { frame.row::<u32>(code)[lane] },
        };
        let [row, column] = w.cell(lane, register, index);
        let (far, near) = if w.by_column { (column, row) } else { (row, column) };
        base[lane].wrapping_add((far as u64 * u64::from(stride) + near as u64) * w.element().0)
    })
}

/// `wmma.load`: `e` is the instruction's number among the module's, registers are listed.
///
/// # Safety
/// The decoder placed the operands.
pub unsafe fn load(core: &mut Core<'_>, warp: &mut Warp, frame: &Frame, op: &Op, mask: u32) -> Outcome {
    all_lanes(mask)?;
    let w = core.grid.module.wmmas[op.e as usize];
    let m = Modifiers::unpack(op.y);
    let (bytes, per_register) = w.element();
    let need = core.grid.need;
    // SAFETY: by the caller's promise; what is read was located.
    unsafe {
        let base = addresses(frame, op, m);
        let distinct = w.distinct(w.operand);
        let mut values: [WarpRegister; 8] = [[0; 32]; 8];
        for register in 0..distinct {
            for index in 0..per_register {
                let at = elements(&w, frame, op, &base, register, index);
                let value = &mut values[register];
                let mut read = |space: OpSpace, at: &[u64; 32], lanes: u32| -> Outcome {
                    plain_space(space, lanes)?;
                    let region = core.region(space);
                    let places = locate(core, &region, at, lanes, bytes, bytes, need, "reads")?;
                    for lane in (0..32).filter(|lane| lanes >> lane & 1 != 0) {
                        let mut bits = 0u32;
                        (&raw mut bits).cast::<u8>().copy_from(places[lane], bytes as usize);
                        value[lane] |= bits << (8 * bytes as usize * index);
                    }
                    super::hooks::access(core, warp, region.space, false, Order::Weak, lanes, at, bytes)
                };
                match m.space {
                    OpSpace::Generic => by_space(at, ALL, read)?,
                    space => read(space, &at, ALL)?,
                }
            }
        }
        for register in 0..w.registers {
            frame.write(core.listed(op, w.registers)[register], &values[register % distinct], ALL);
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
    let w = core.grid.module.wmmas[op.e as usize];
    let m = Modifiers::unpack(op.y);
    let (bytes, per_register) = w.element();
    // SAFETY: by the caller's promise; what is written was located.
    unsafe {
        let base = addresses(frame, op, m);
        for register in 0..w.registers {
            let values = *frame.row::<u32>(core.listed(op, w.registers)[register]);
            for index in 0..per_register {
                let at = elements(&w, frame, op, &base, register, index);
                let mut write = |space: OpSpace, at: &[u64; 32], lanes: u32| -> Outcome {
                    plain_space(space, lanes)?;
                    let region = core.region(space);
                    let places = locate(core, &region, at, lanes, bytes, bytes, 0x0F, "writes")?;
                    super::hooks::access(core, warp, region.space, true, Order::Weak, lanes, at, bytes)?;
                    for lane in (0..32).filter(|lane| lanes >> lane & 1 != 0) {
                        let bits = values[lane] >> (8 * bytes as usize * index);
                        places[lane].copy_from((&raw const bits).cast::<u8>(), bytes as usize);
                        written(core, &region, at[lane], bytes);
                    }
                    Ok(())
                };
                match m.space {
                    OpSpace::Generic => by_space(at, ALL, write)?,
                    space => write(space, &at, ALL)?,
                }
            }
        }
    }
    Ok(())
}

/// That a matrix is where a matrix may be.
pub fn plain_space(space: OpSpace, lanes: u32) -> Outcome {
    if matches!(space, OpSpace::Global | OpSpace::Shared) {
        return Ok(());
    }
    let message = "a matrix that is neither in global nor in shared memory";
    Err(Trouble::new(FindingKind::Undefined, lanes.trailing_zeros(), message))
}

/// `wmma.mma`: `e` is the instruction's number; the registers of D, A, B and C are listed.
///
/// # Safety
/// The decoder placed the operands.
pub unsafe fn multiply(core: &mut Core<'_>, _: &mut Warp, frame: &Frame, op: &Op, mask: u32) -> Outcome {
    all_lanes(mask)?;
    let w = core.grid.module.wmmas[op.e as usize];
    let counts = counts(&w);
    let listed = core.listed(op, counts.iter().sum());
    // SAFETY: by the caller's promise.
    let rows: Vec<&WarpRegister> = listed[counts[0]..].iter().map(|code| unsafe { frame.row::<u32>(*code) }).collect();
    let (a, rest) = rows.split_at(counts[1]);
    let (b, c) = rest.split_at(counts[2]);
    let (left, right) = if w.transposed() { (b, a) } else { (a, b) };
    let sums = match core.grid.settings.rounding {
        Rounding::Exact => Sums::Exact,
        Rounding::Adversarial => Sums::Truncated(core.grid.settings.seed),
    };
    let p = w.product;
    let [left_tiles, right_tiles] = w.tiles();
    let mut out = [[[0u32; 32]; 4]; 2];
    for (tile, out) in out.iter_mut().enumerate() {
        let at = |registers: usize, tiles: usize| if tiles == 2 { tile * registers } else { 0 };
        let left = &left[at(p.a_registers(), left_tiles)..][..p.a_registers()];
        let right = &right[at(p.b_registers(), right_tiles)..][..p.b_registers()];
        let addend = &c[tile * p.c.registers()..][..p.c.registers()];
        mma(p, left, right, addend, &mut out[..p.d.registers()], sums);
    }
    let values = out.iter().flat_map(|tile| &tile[..p.d.registers()]);
    for (value, code) in values.zip(&listed[..counts[0]]) {
        // SAFETY: by the caller's promise.
        unsafe { frame.write(*code, value, ALL) };
    }
    Ok(())
}

/// Registers of D, A, B and C.
pub fn counts(w: &Wmma) -> [usize; 4] {
    let factor = |operand| if w.product.a == Element::F16 { 8 } else { w.distinct(operand) };
    [2 * w.product.d.registers(), factor(Operand::A), factor(Operand::B), 2 * w.product.c.registers()]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every element of every matrix is held, by exactly one place of the distinct registers.
    #[test]
    fn fragments_hold_each_element_once() {
        for (element, k, shapes) in [
            (Element::F16, 16, &[[16, 16], [32, 8], [8, 32]][..]),
            (Element::Bf16, 16, &[[16, 16], [32, 8], [8, 32]]),
            (Element::S8, 16, &[[16, 16], [32, 8], [8, 32]]),
            (Element::Tf32, 8, &[[16, 16]]),
        ] {
            for &shape in shapes {
                for operand in [Operand::A, Operand::B, Operand::C] {
                    for c in [Accumulator::F32, Accumulator::F16] {
                        let product = Mma { a: element, b: element, k, c, d: c, saturate: false };
                        let w = Wmma { product, shape, operand, by_column: false, registers: 0 };
                        let (rows, columns) = match operand {
                            Operand::A => (shape[0], k),
                            Operand::B => (k, shape[1]),
                            Operand::C => (shape[0], shape[1]),
                        };
                        let mut held = vec![0; rows * columns];
                        for lane in 0..32 {
                            for register in 0..w.distinct(operand) {
                                for index in 0..w.element().1 {
                                    let [row, column] = w.cell(lane, register, index);
                                    held[row * columns + column] += 1;
                                }
                            }
                        }
                        assert!(held.iter().all(|times| *times == 1), "{element:?} {shape:?} {operand:?} {c:?}");
                    }
                }
            }
        }
    }
}
