//! `mma`, `ldmatrix`, `stmatrix`, `movmatrix`: between registers, memory and [`crate::tensor`].

use super::access::addresses;
use super::core::{Core, OpSpace, SHARED_WINDOW};
use super::lanes::{ALL, Frame};
use super::locate::{locate, written};
use super::modifiers::Modifiers;
use super::trouble::{Outcome, Trouble};
use super::warp::Warp;
use crate::decode::op::Op;
use crate::settings::Rounding;
use crate::tensor::WarpRegister;
use crate::tensor::matrix::{Rows, to_fragment, to_rows, transpose};
use crate::tensor::mma::{Mma, Sums, mma, mma_f64};
use crate::watch::FindingKind;

/// That all 32 lanes are there.
fn all_lanes(mask: u32) -> Outcome {
    if mask == ALL {
        return Ok(());
    }
    let message = format!("executes an instruction of the whole warp, but only lanes {mask:#010x} are there");
    Err(Trouble::new(FindingKind::MaskMismatch, mask.trailing_zeros(), message))
}

/// The places of the rows of `count` matrices, which the first `8 count` lanes hold the addresses of.
///
/// # Safety
/// The decoder placed the operands.
unsafe fn rows(
    core: &mut Core<'_>,
    frame: &Frame,
    op: &Op,
    need: u8,
    verb: &str,
) -> Outcome<([*mut u8; 32], [u64; 32], u32)> {
    let m = Modifiers::unpack(op.y);
    // SAFETY: by the caller's promise.
    let mut addresses = unsafe { addresses(frame, op, m) };
    let lanes = 8 * u32::from(m.count);
    let mask = ALL >> (32 - lanes);
    if m.space == OpSpace::Generic {
        for lane in 0..lanes {
            if Core::space_of(addresses[lane as usize]) != OpSpace::Shared {
                return Err(Trouble::new(
                    FindingKind::Undefined,
                    lane,
                    "a row of a matrix that is not in shared memory",
                ));
            }
            addresses[lane as usize] -= SHARED_WINDOW;
        }
    }
    let region = core.region(OpSpace::Shared);
    // SAFETY: shared addresses as they are.
    let places = unsafe { locate(core, &region, &addresses, mask, 16, 16, need, verb)? };
    Ok((places, addresses, mask))
}

/// `ldmatrix`: destinations are listed; `c` is none, `b` unused; transposed if bit 63 of `y`.
///
/// # Safety
/// The decoder placed the operands.
pub unsafe fn load(core: &mut Core<'_>, warp: &mut Warp, frame: &Frame, op: &Op, mask: u32) -> Outcome {
    all_lanes(mask)?;
    let need = core.grid.need;
    let count = usize::from(Modifiers::unpack(op.y).count);
    // SAFETY: by the caller's promise; the rows were located.
    unsafe {
        let (places, addresses, lanes) = rows(core, frame, op, need, "reads")?;
        for matrix in 0..count {
            let rows: Rows = std::array::from_fn(|row| places[8 * matrix + row].cast::<[u32; 4]>().read_unaligned());
            let to = core.listed(op, count)[matrix];
            frame.write(to, &to_fragment(&rows, op.y >> 63 != 0), ALL);
        }
        super::hooks::matrix(core, warp, false, op.y >> 63 != 0, lanes, &addresses)
    }
}

/// `stmatrix`: sources are listed.
///
/// # Safety
/// The decoder placed the operands.
pub unsafe fn store(core: &mut Core<'_>, warp: &mut Warp, frame: &Frame, op: &Op, mask: u32) -> Outcome {
    all_lanes(mask)?;
    let count = usize::from(Modifiers::unpack(op.y).count);
    // SAFETY: by the caller's promise; the rows were located.
    unsafe {
        let (places, addresses, lanes) = rows(core, frame, op, 0x0F, "writes")?;
        super::hooks::matrix(core, warp, true, op.y >> 63 != 0, lanes, &addresses)?;
        let region = core.region(OpSpace::Shared);
        for matrix in 0..count {
            let from = core.listed(op, count)[matrix];
            let rows = to_rows(frame.row::<u32>(from), op.y >> 63 != 0);
            for (row, words) in rows.iter().enumerate() {
                places[8 * matrix + row].cast::<[u32; 4]>().write_unaligned(*words);
                written(core, &region, addresses[8 * matrix + row], 16);
            }
        }
    }
    Ok(())
}

/// `movmatrix.trans`
///
/// # Safety
/// The decoder placed the operands.
pub unsafe fn turn(_: &mut Core<'_>, _: &mut Warp, frame: &Frame, op: &Op, mask: u32) -> Outcome {
    all_lanes(mask)?;
    // SAFETY: by the caller's promise.
    unsafe { frame.write(op.d, &transpose(frame.row::<u32>(op.a)), ALL) };
    Ok(())
}

/// `mma`: the shape is the module's, at `x`; the registers of D, A, B and C are listed.
///
/// # Safety
/// The decoder placed the operands.
pub unsafe fn multiply(core: &mut Core<'_>, _: &mut Warp, frame: &Frame, op: &Op, mask: u32) -> Outcome {
    all_lanes(mask)?;
    let shape: Mma = core.grid.module.shapes[op.x as usize];
    let counts = [shape.d.registers(), shape.a_registers(), shape.b_registers(), shape.c.registers()];
    let listed = core.listed(op, counts.iter().sum());
    let mut registers: [&WarpRegister; 16] = [&[0; 32]; 16];
    for (register, code) in registers.iter_mut().zip(&listed[counts[0]..]) {
        // SAFETY: by the caller's promise.
        *register = unsafe { frame.row::<u32>(*code) };
    }
    let (a, rest) = registers.split_at(counts[1]);
    let (b, rest) = rest.split_at(counts[2]);
    let mut d = [[0; 32]; 4];
    let sums = match core.grid.settings.rounding {
        Rounding::Exact => Sums::Exact,
        Rounding::Adversarial => Sums::Truncated(core.grid.settings.seed),
    };
    mma(shape, a, b, &rest[..counts[3]], &mut d[..counts[0]], sums);
    for (values, code) in d.iter().zip(&listed[..counts[0]]) {
        // SAFETY: by the caller's promise.
        unsafe { frame.write(*code, values, ALL) };
    }
    Ok(())
}

/// `mma.m8n8k4` of f64: D in two registers, A, B, C in two, all listed.
///
/// # Safety
/// The decoder placed the operands.
pub unsafe fn multiply_f64(core: &mut Core<'_>, _: &mut Warp, frame: &Frame, op: &Op, mask: u32) -> Outcome {
    all_lanes(mask)?;
    let listed = core.listed(op, 6);
    // SAFETY: by the caller's promise.
    unsafe {
        let row = |at: usize| frame.row::<u64>(listed[at]);
        let d = mma_f64(row(2), row(3), [row(4), row(5)]);
        frame.write(listed[0], &d[0], ALL);
        frame.write(listed[1], &d[1], ALL);
    }
    Ok(())
}
