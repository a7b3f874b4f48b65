//! Operations that each lane does by itself: how a function of one lane becomes an operation on 32.
//!
//! The registers of a warp are kept as rows of 32 lanes, so that such an operation is a short loop that the compiler
//! turns into vector code. Each is compiled twice: with AVX2 and FMA, chosen when the processor has them, and portably.
//! All 32 lanes are computed, and those that are active are kept; no function of a lane may therefore panic or trap.

use std::sync::LazyLock;

use super::core::Core;
use super::special::Special;
use super::trouble::Outcome;
use super::warp::Warp;
use crate::arith::approx::Perturbation;
use crate::decode::op::{self, Action, Op};

/// 32 lanes of 32 bits.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(32))]
pub struct Row(pub [u32; 32]);

/// All lanes.
pub const ALL: u32 = u32::MAX;

/// What operations on registers see: the frame that is current.
#[derive(Clone, Copy, Debug)]
pub struct Frame {
    /// The frame's rows, and the constants: indexed by the top bit of an operand's code.
    pub rows: [*mut Row; 2],
    /// The frame's predicates.
    pub predicates: *mut u32,
    /// What the warp knows of itself; see [`Frame::special`].
    pub special: *const Special,
    /// Where the frame's local memory begins.
    pub local_base: u32,
    /// Where its watched registers begin.
    pub tracked_base: u32,
}

/// What a function of a lane may need beside its operands.
#[derive(Clone, Copy, Debug)]
pub struct Extra {
    /// [`Op::x`]
    pub x: u64,
    /// [`Op::y`]
    pub y: u64,
    /// How approximations are perturbed.
    pub perturbation: Perturbation,
}

/// The function behind [`Action::Lanes`].
pub type LanesHandler = unsafe fn(&Frame, &Op, u32);

/// The function behind [`Action::Warp`] and [`Action::Together`].
pub type WarpHandler = unsafe fn(&mut Core<'_>, &mut Warp, &Frame, &Op, u32) -> Outcome;

/// What a register holds for one lane: `u32` or `u64`.
pub trait Lane: Copy + Default + 'static {}
impl Lane for u32 {}
impl Lane for u64 {}

/// Whether the processor has what the vector versions are compiled for.
pub static VECTORS: LazyLock<bool> = LazyLock::new(|| {
    #[cfg(target_arch = "x86_64")]
    {
        is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c")
            && is_x86_feature_detected!("bmi1")
            && is_x86_feature_detected!("bmi2")
            && is_x86_feature_detected!("lzcnt")
            && is_x86_feature_detected!("popcnt")
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        false
    }
});

impl Frame {
    /// The 32 lanes of a register or constant.
    ///
    /// # Safety
    /// `code` is one that the decoder placed for this frame, of this width; nobody writes the row while the result lives.
    #[inline(always)]
    pub unsafe fn row<T: Lane>(&self, code: u32) -> &[T; 32] {
        // SAFETY: the decoder's codes stay within the frame and the constants.
        unsafe { &*self.rows[(code >> 31) as usize].add((code & 0x1fff_ffff) as usize).cast() }
    }

    /// Keeps the active lanes of a result.
    ///
    /// # Safety
    /// As for [`Self::row`], and `code` is a register.
    #[inline(always)]
    pub unsafe fn write<T: Lane>(&self, code: u32, values: &[T; 32], mask: u32) {
        // SAFETY: as above.
        let to: &mut [T; 32] = unsafe { &mut *self.rows[0].add(code as usize).cast() };
        if mask == ALL {
            *to = *values;
        } else {
            for lane in 0..32 {
                to[lane] = if mask >> lane & 1 != 0 { values[lane] } else { to[lane] };
            }
        }
    }

    /// A predicate, negated if its code says so; all lanes if there is none.
    ///
    /// # Safety
    /// `code` is a predicate that the decoder placed for this frame, or [`op::NONE`].
    #[inline(always)]
    pub unsafe fn predicate(&self, code: u32) -> u32 {
        if code == op::NONE {
            return ALL;
        }
        let code = op::index(code);
        // SAFETY: by the caller's promise.
        unsafe { *self.predicates.add((code >> 1) as usize) ^ 0u32.wrapping_sub(code & 1) }
    }

    /// Keeps the active lanes of a predicate; nothing if there is none.
    ///
    /// # Safety
    /// As for [`Self::predicate`].
    #[inline(always)]
    pub unsafe fn write_predicate(&self, code: u32, value: u32, mask: u32) {
        if code != op::NONE {
            // SAFETY: by the caller's promise.
            let to = unsafe { &mut *self.predicates.add((op::index(code) >> 1) as usize) };
            *to = *to & !mask | value & mask;
        }
    }

    /// What the warp knows of itself.
    #[inline(always)]
    pub fn special(&self) -> &Special {
        // SAFETY: the warp that the frame was made from keeps it, and nobody changes it.
        unsafe { &*self.special }
    }

    #[inline(always)]
    fn extra(&self, op: &Op) -> Extra {
        Extra { x: op.x, y: op.y, perturbation: self.special().perturbation }
    }
}

/// The value of a closure type that captures nothing.
#[inline(always)]
fn conjure<F: Copy>() -> F {
    const { assert!(size_of::<F>() == 0, "the function of a lane must capture nothing") };
    // SAFETY: a type without bytes, of which the constructor below was shown a value.
    unsafe { std::ptr::NonNull::<F>::dangling().read() }
}

/// Declares the constructor `$name` of an operation, whose body for 32 lanes is `$run`.
macro_rules! constructor {
    ($(#[$doc:meta])* $name:ident<$($t:ident),*>($($argument:ty),*) $(-> $result:ty)?, $run:ident) => {
        $(#[$doc])*
        pub fn $name<$($t: Lane,)* F: Fn($($argument),*) $(-> $result)? + Copy + 'static>(_: F) -> Action {
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c,bmi1,bmi2,lzcnt,popcnt")]
            unsafe fn vector<$($t: Lane,)* F: Fn($($argument),*) $(-> $result)? + Copy>(frame: &Frame, op: &Op, mask: u32) {
                // SAFETY: the caller's promise is passed on.
                unsafe { $run::<$($t,)* F>(frame, op, mask) }
            }
            unsafe fn portable<$($t: Lane,)* F: Fn($($argument),*) $(-> $result)? + Copy>(frame: &Frame, op: &Op, mask: u32) {
                // SAFETY: the caller's promise is passed on.
                unsafe { $run::<$($t,)* F>(frame, op, mask) }
            }
            #[cfg(target_arch = "x86_64")]
            if *VECTORS {
                return Action::Lanes(vector::<$($t,)* F>);
            }
            Action::Lanes(portable::<$($t,)* F>)
        }
    };
}

constructor!(
    /// `d = f(a)`
    unary<A, D>(Extra, A) -> D, run_unary
);
constructor!(
    /// `d = f(a)`, by a function that is large, and perturbed or not.
    large_unary<A, D>(Extra, A) -> D, run_large_unary
);
constructor!(
    /// `d = f(a, b)`
    binary<A, B, D>(Extra, A, B) -> D, run_binary
);
constructor!(
    /// `d = f(a, b, c)`
    ternary<A, B, C, D>(Extra, A, B, C) -> D, run_ternary
);
constructor!(
    /// `d = f(a, b, c, e)`
    quaternary<A, B, C, E, D>(Extra, A, B, C, E) -> D, run_quaternary
);
constructor!(
    /// `d | e = f(a, b)` of predicates, joined with the predicate `c` as [`join`] says.
    compare<A, B>(Extra, A, B) -> bool, run_compare
);
constructor!(
    /// `d, carry = f(a, b, c, carry)`: the carry comes from predicate `list` and goes to predicate `e`.
    carrying<A>(Extra, A, A, A, bool) -> (A, bool), run_carrying
);
constructor!(
    /// Anything on the frame.
    frame<>(&Frame, &Op, u32), run_frame
);

/// `d = f(a)` for an approximation, given as a closure that captures nothing. It becomes a function that is inlined for
/// certain, as a closure of its size is not: only so does the loop over the lanes become vectors.
macro_rules! approximation {
    (|$e:ident, $x:ident: $t:ty| $body:expr) => {{
        #[inline(always)]
        fn function($e: $crate::machine::lanes::Extra, $x: $t) -> $t {
            $body
        }
        $crate::machine::lanes::large_unary(function)
    }};
}
pub(crate) use approximation;

#[inline(always)]
unsafe fn run_unary<A: Lane, D: Lane, F: Fn(Extra, A) -> D + Copy>(frame: &Frame, op: &Op, mask: u32) {
    let (f, extra) = (conjure::<F>(), frame.extra(op));
    let mut d = [D::default(); 32];
    // SAFETY: the decoder placed the operands.
    unsafe {
        let a = frame.row::<A>(op.a);
        for lane in 0..32 {
            d[lane] = f(extra, a[lane]);
        }
        frame.write(op.d, &d, mask);
    }
}

#[inline(always)]
unsafe fn run_large_unary<A: Lane, D: Lane, F: Fn(Extra, A) -> D + Copy>(frame: &Frame, op: &Op, mask: u32) {
    let (f, extra) = (conjure::<F>(), frame.extra(op));
    // A loop of its own for what is not perturbed: the choice made in it for each lane would keep the loop from being
    // vectors.
    let plain = Extra { perturbation: Perturbation::NONE, ..extra };
    let mut d = [D::default(); 32];
    // SAFETY: the decoder placed the operands.
    unsafe {
        let a = frame.row::<A>(op.a);
        if extra.perturbation == Perturbation::NONE {
            for lane in 0..32 {
                d[lane] = f(plain, a[lane]);
            }
        } else {
            for lane in 0..32 {
                d[lane] = f(extra, a[lane]);
            }
        }
        frame.write(op.d, &d, mask);
    }
}

#[inline(always)]
unsafe fn run_binary<A: Lane, B: Lane, D: Lane, F: Fn(Extra, A, B) -> D + Copy>(frame: &Frame, op: &Op, mask: u32) {
    let (f, extra) = (conjure::<F>(), frame.extra(op));
    let mut d = [D::default(); 32];
    // SAFETY: the decoder placed the operands.
    unsafe {
        let (a, b) = (frame.row::<A>(op.a), frame.row::<B>(op.b));
        for lane in 0..32 {
            d[lane] = f(extra, a[lane], b[lane]);
        }
        frame.write(op.d, &d, mask);
    }
}

#[inline(always)]
unsafe fn run_ternary<A: Lane, B: Lane, C: Lane, D: Lane, F: Fn(Extra, A, B, C) -> D + Copy>(
    frame: &Frame,
    op: &Op,
    mask: u32,
) {
    let (f, extra) = (conjure::<F>(), frame.extra(op));
    let mut d = [D::default(); 32];
    // SAFETY: the decoder placed the operands.
    unsafe {
        let (a, b, c) = (frame.row::<A>(op.a), frame.row::<B>(op.b), frame.row::<C>(op.c));
        for lane in 0..32 {
            d[lane] = f(extra, a[lane], b[lane], c[lane]);
        }
        frame.write(op.d, &d, mask);
    }
}

#[inline(always)]
unsafe fn run_quaternary<A: Lane, B: Lane, C: Lane, E: Lane, D: Lane, F: Fn(Extra, A, B, C, E) -> D + Copy>(
    frame: &Frame,
    op: &Op,
    mask: u32,
) {
    let (f, extra) = (conjure::<F>(), frame.extra(op));
    let mut d = [D::default(); 32];
    // SAFETY: the decoder placed the operands.
    unsafe {
        let (a, b, c, e) = (frame.row::<A>(op.a), frame.row::<B>(op.b), frame.row::<C>(op.c), frame.row::<E>(op.e));
        for lane in 0..32 {
            d[lane] = f(extra, a[lane], b[lane], c[lane], e[lane]);
        }
        frame.write(op.d, &d, mask);
    }
}

#[inline(always)]
unsafe fn run_compare<A: Lane, B: Lane, F: Fn(Extra, A, B) -> bool + Copy>(frame: &Frame, op: &Op, mask: u32) {
    let (f, extra) = (conjure::<F>(), frame.extra(op));
    // SAFETY: the decoder placed the operands.
    unsafe {
        let (a, b) = (frame.row::<A>(op.a), frame.row::<B>(op.b));
        let mut holds = 0;
        for lane in 0..32 {
            holds |= u32::from(f(extra, a[lane], b[lane])) << lane;
        }
        let other = frame.predicate(op.c);
        frame.write_predicate(op.d, join(op.y, holds, other), mask);
        frame.write_predicate(op.e, join(op.y, !holds, other), mask);
    }
}

#[inline(always)]
unsafe fn run_carrying<A: Lane, F: Fn(Extra, A, A, A, bool) -> (A, bool) + Copy>(frame: &Frame, op: &Op, mask: u32) {
    let (f, extra) = (conjure::<F>(), frame.extra(op));
    let mut d = [A::default(); 32];
    // SAFETY: the decoder placed the operands.
    unsafe {
        let (a, b, c) = (frame.row::<A>(op.a), frame.row::<A>(op.b), frame.row::<A>(op.c));
        let (before, mut after) = (if op.list == op::NONE { 0 } else { frame.predicate(op.list) }, 0);
        for lane in 0..32 {
            let (value, carry) = f(extra, a[lane], b[lane], c[lane], before >> lane & 1 != 0);
            d[lane] = value;
            after |= u32::from(carry) << lane;
        }
        frame.write(op.d, &d, mask);
        frame.write_predicate(op.e, after, mask);
    }
}

#[inline(always)]
unsafe fn run_frame<F: Fn(&Frame, &Op, u32) + Copy>(frame: &Frame, op: &Op, mask: u32) {
    conjure::<F>()(frame, op, mask);
}

/// How `setp` joins its comparison with a third predicate: 0 not at all, 1 and, 2 or, 3 xor.
#[inline(always)]
pub fn join(how: u64, holds: u32, other: u32) -> u32 {
    match how & 3 {
        op::AND => holds & other,
        op::OR => holds | other,
        op::XOR => holds ^ other,
        _ => holds,
    }
}
