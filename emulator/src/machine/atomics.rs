//! `atom`, `red`, and fences.
//!
//! Kernels with atomics on global memory run their blocks on one thread, so an atomic operation is a read and a write. The
//! lanes of a warp take part one after the other, from a lane that the address chooses, so that nobody relies on an order.

use super::access::{addresses, by_space, one_number};
use super::core::{Core, OpSpace};
use super::lanes::{Frame, WarpHandler};
use super::locate::{locate, written};
use super::modifiers::Modifiers;
use super::trouble::{Outcome, Trouble};
use super::warp::Warp;
use crate::arith::float::{add_f32, add_f64};
use crate::arith::half::{self, Bf16, F16, HalfMode};
use crate::arith::{Mode, Round};
use crate::decode::Module;
use crate::decode::op::{self, Action, Op};
use crate::decode::types::Type;
use crate::watch::FindingKind;

/// What an atomic does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs, reason = "the names say it")]
pub enum What {
    Add,
    Exchange,
    Min,
    Max,
    Increment,
    Decrement,
    And,
    Or,
    Xor,
    Compare,
}

/// An atomic operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Atomic {
    /// What it does.
    pub what: What,
    /// To what.
    pub t: Type,
}

const OPERATIONS: [What; 10] = [
    What::Add,
    What::Exchange,
    What::Min,
    What::Max,
    What::Increment,
    What::Decrement,
    What::And,
    What::Or,
    What::Xor,
    What::Compare,
];
const TYPES: [Type; 12] = [
    Type::B32,
    Type::U32,
    Type::S32,
    Type::F32,
    Type::F16x2,
    Type::Bf16x2,
    Type::B64,
    Type::U64,
    Type::S64,
    Type::F64,
    Type::F16,
    Type::Bf16,
];

impl Atomic {
    /// As a number, if PTX has this operation.
    pub fn pack(self) -> Option<u32> {
        let bits = matches!(self.what, What::Exchange | What::And | What::Or | What::Xor | What::Compare);
        let legal = match self.t {
            Type::B16 => self.what == What::Compare,
            Type::B32 | Type::B64 => bits,
            Type::U32 => matches!(self.what, What::Add | What::Min | What::Max | What::Increment | What::Decrement),
            Type::S32 | Type::U64 | Type::S64 => matches!(self.what, What::Add | What::Min | What::Max),
            Type::F32 | Type::F64 => self.what == What::Add,
            Type::F16 | Type::F16x2 | Type::Bf16 | Type::Bf16x2 => {
                matches!(self.what, What::Add | What::Min | What::Max)
            }
            _ => false,
        };
        if !legal {
            return None;
        }
        let t = if self.t == Type::B16 { TYPES.len() } else { TYPES.iter().position(|t| *t == self.t)? };
        Some(self.what as u32 | (t as u32) << 8)
    }

    /// From a number.
    pub fn unpack(bits: u32) -> Self {
        let t = TYPES.get((bits >> 8) as usize).copied().unwrap_or(Type::B16);
        Atomic { what: OPERATIONS[(bits & 0xFF) as usize % OPERATIONS.len()], t }
    }

    /// The new value: of the old one, an operand, and for `cas` a second operand.
    fn apply(self, old: u64, x: u64, y: u64, flush: bool) -> u64 {
        let mode = HalfMode::default();
        let (a, b) = (old as u32, x as u32);
        match (self.what, self.t) {
            (What::Exchange, _) => x,
            (What::Compare, _) => {
                if old == x {
                    y
                } else {
                    old
                }
            }
            (What::And, _) => old & x,
            (What::Or, _) => old | x,
            (What::Xor, _) => old ^ x,
            // On global memory subnormals are flushed, on shared memory they are not.
            (What::Add, Type::F32) if flush => add_f32(a, b, Mode::NEAREST_FTZ).into(),
            (What::Add, Type::F32) => add_f32(a, b, Mode::NEAREST).into(),
            (What::Add, Type::F64) => add_f64(old, x, Round::Nearest),
            (What::Add, Type::F16) => half::add::<F16>(a, b, mode).into(),
            (What::Add, Type::F16x2) => half::add2::<F16>(a, b, mode).into(),
            (What::Add, Type::Bf16) => half::add::<Bf16>(a, b, mode).into(),
            (What::Add, Type::Bf16x2) => half::add2::<Bf16>(a, b, mode).into(),
            (What::Min | What::Max, Type::F16 | Type::F16x2 | Type::Bf16 | Type::Bf16x2) => {
                self.half_extreme(a, b).into()
            }
            (What::Add, _) => old.wrapping_add(x),
            (What::Increment, _) => u64::from(if a >= b { 0 } else { a + 1 }),
            (What::Decrement, _) => u64::from(if a == 0 || a > b { b } else { a - 1 }),
            (What::Min, Type::S32) => (a as i32).min(b as i32) as u32 as u64,
            (What::Max, Type::S32) => (a as i32).max(b as i32) as u32 as u64,
            (What::Min, Type::S64) => (old as i64).min(x as i64) as u64,
            (What::Max, Type::S64) => (old as i64).max(x as i64) as u64,
            (What::Min, _) => old.min(x),
            (What::Max, _) => old.max(x),
        }
    }

    fn half_extreme(self, a: u32, b: u32) -> u32 {
        let how = crate::arith::float::Extreme { max: self.what == What::Max, ..Default::default() };
        let one = |a: u32, b: u32| match self.t {
            Type::F16 | Type::F16x2 => half::extreme::<F16>(a & 0xFFFF, b & 0xFFFF, how),
            _ => half::extreme::<Bf16>(a & 0xFFFF, b & 0xFFFF, how),
        };
        if matches!(self.t, Type::F16x2 | Type::Bf16x2) { one(a, b) | one(a >> 16, b >> 16) << 16 } else { one(a, b) }
    }
}

/// `atom`, `red`: the operation in the upper half of [`Op::y`], operands in `b` and `c`, the old value to `d`. Of a vector
/// the old values (none of a `red`) and the operands are listed; each element is changed by itself.
///
/// # Safety
/// The decoder placed the operands.
pub unsafe fn run(core: &mut Core<'_>, warp: &mut Warp, frame: &Frame, op: &Op, mask: u32) -> Outcome {
    let m = Modifiers::unpack(op.y);
    // SAFETY: by the caller's promise.
    let addresses = unsafe { addresses(frame, op, m) };
    warp.spins = warp.spins.wrapping_add(1);
    let mut run = |space: OpSpace, addresses: &[u64; 32], mask: u32| -> Outcome {
        // SAFETY: as above.
        unsafe { run_in(core, warp, frame, op, mask, m, space, addresses) }
    };
    match m.space {
        OpSpace::Generic => by_space(addresses, mask, run),
        space => run(space, &addresses, mask),
    }
}

unsafe fn run_in(
    core: &mut Core<'_>,
    warp: &mut Warp,
    frame: &Frame,
    op: &Op,
    mask: u32,
    m: Modifiers,
    space: OpSpace,
    addresses: &[u64; 32],
) -> Outcome {
    if matches!(space, OpSpace::Local | OpSpace::Parameter | OpSpace::Constant) {
        let message = "an atomic operation on memory that is neither global nor shared";
        return Err(Trouble::new(FindingKind::Undefined, mask.trailing_zeros(), message));
    }
    let atomic = Atomic::unpack((op.y >> 32) as u32);
    let (bytes, count) = (u64::from(atomic.t.bytes()), usize::from(m.count));
    if count > 1 && space != OpSpace::Global {
        let message = "an atomic operation on a vector that is not in global memory";
        return Err(Trouble::new(FindingKind::Undefined, mask.trailing_zeros(), message));
    }
    let mut codes = [op::NONE; 16];
    (codes[0], codes[1]) = (op.d, op.b);
    if count > 1 {
        codes[..2 * count].copy_from_slice(core.listed(op, 2 * count));
    }
    let all = bytes * count as u64;
    let region = core.region(space);
    let need = if atomic.what == What::Exchange { 0x0F } else { core.grid.need };
    let wide = atomic.t.is_wide();
    let (mut kept, mut changed, mut answer) = (0u32, false, 0);
    // SAFETY: located below; the operands are the decoder's.
    unsafe {
        let operand = |code: u32, lane: usize| match (code, wide) {
            (op::NONE, _) => 0,
            (_, true) => frame.row::<u64>(code)[lane],
            (_, false) => u64::from(frame.row::<u32>(code)[lane]) & (u64::MAX >> (64 - 8 * bytes)),
        };
        let places = locate(core, &region, addresses, mask, all, all, need, "changes atomically")?;
        let first = first_lane(addresses, mask) as usize;
        for (element, (&d, &b)) in codes[..count].iter().zip(&codes[count..]).enumerate() {
            let mut old = [0u64; 32];
            for lane in (0..32).map(|i| (i + first) % 32).filter(|lane| mask >> lane & 1 != 0) {
                let place = places[lane].add(element * bytes as usize);
                let mut value = 0u64;
                (&raw mut value).cast::<u8>().copy_from(place, bytes as usize);
                old[lane] = value;
                answer = one_number(answer, value);
                let new = atomic.apply(value, operand(b, lane), operand(op.c, lane), space == OpSpace::Global);
                changed |= new != value;
                kept |= u32::from(atomic.what == What::Compare && new == value) << lane;
                place.copy_from((&raw const new).cast::<u8>(), bytes as usize);
                if need & 0xF0 == 0 {
                    written(core, &region, addresses[lane] + element as u64 * bytes, bytes);
                }
            }
            match d {
                op::NONE => {}
                d if wide => frame.write(d, &old, mask),
                d => frame.write(d, &old.map(|value| value as u32), mask),
            }
        }
    }
    let heard = warp.hears(addresses[mask.trailing_zeros() as usize], answer);
    core.news += u64::from(space == OpSpace::Global && (changed || heard));
    core.progress += u64::from(changed);
    core.polls += u32::from(!changed);
    super::hooks::atomic(core, warp, region.space, m.order, mask, kept, addresses, all)
}

/// The lane that takes part first; the others follow by their numbers, and then those before it.
pub fn first_lane(addresses: &[u64; 32], mask: u32) -> u32 {
    (addresses[mask.trailing_zeros() as usize] >> 2) as u32 % 32
}

/// Whether the atomic operation at `pc` gives its lanes what it has read: not if it is a `red`.
pub fn answers(module: &Module, pc: u32) -> bool {
    let op = &module.code[pc as usize];
    let d = if Modifiers::unpack(op.y).count > 1 { module.operands[op.list as usize] } else { op.d };
    d != op::NONE
}

/// Whether an operation is a compare-and-swap.
pub fn exchanges(op: &Op) -> bool {
    matches!(op.action, Action::Warp(handler) if std::ptr::fn_addr_eq(handler, run as WarpHandler))
        && Atomic::unpack((op.y >> 32) as u32).what == What::Compare
}

/// `membar`, `fence`: the scope is in `x` (0 block, 2 device, 3 system).
///
/// # Safety
/// None is needed; the signature is that of all handlers.
pub unsafe fn fence(core: &mut Core<'_>, warp: &mut Warp, _: &Frame, op: &Op, mask: u32) -> Outcome {
    super::hooks::fence(core, warp, mask, op.x);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_survive_packing() {
        for what in OPERATIONS {
            for t in TYPES.into_iter().chain([Type::B16]) {
                let atomic = Atomic { what, t };
                if let Some(bits) = atomic.pack() {
                    assert_eq!(Atomic::unpack(bits), atomic);
                }
            }
        }
        assert_eq!(Atomic { what: What::Add, t: Type::B32 }.pack(), None);
    }

    #[test]
    fn values() {
        let apply = |what, t, old, x, y| Atomic { what, t }.apply(old, x, y, false);
        assert_eq!(apply(What::Increment, Type::U32, 7, 7, 0), 0);
        assert_eq!(apply(What::Increment, Type::U32, 6, 7, 0), 7);
        assert_eq!(apply(What::Decrement, Type::U32, 0, 7, 0), 7);
        assert_eq!(apply(What::Decrement, Type::U32, 9, 7, 0), 7);
        assert_eq!(apply(What::Decrement, Type::U32, 3, 7, 0), 2);
        assert_eq!(apply(What::Min, Type::S32, 0xFFFF_FFFF, 1, 0), 0xFFFF_FFFF);
        assert_eq!(apply(What::Min, Type::U32, 0xFFFF_FFFF, 1, 0), 1);
        assert_eq!(apply(What::Compare, Type::B64, 5, 5, 9), 9);
        assert_eq!(apply(What::Compare, Type::B64, 5, 4, 9), 5);
        assert_eq!(
            apply(What::Add, Type::F32, 1.0f32.to_bits().into(), 2.5f32.to_bits().into(), 0),
            u64::from(3.5f32.to_bits())
        );
    }
}
