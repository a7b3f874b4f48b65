//! `cvt`.
//!
//! The commonest conversions have loops of their own; all others look theirs up in `x` for each lane.

use super::Reader;
use crate::arith::Round;
use crate::arith::convert::{self as k, Conversion, NumberType};
use crate::decode::builder::{Builder, Decoded};
use crate::decode::op::{Action, Op};
use crate::decode::types::Type;
use crate::machine::lanes::{binary, ternary, unary};
use crate::ptx::Operand;

const NUMBERS: [NumberType; 15] = [
    NumberType::U8,
    NumberType::S8,
    NumberType::U16,
    NumberType::S16,
    NumberType::U32,
    NumberType::S32,
    NumberType::U64,
    NumberType::S64,
    NumberType::F16,
    NumberType::Bf16,
    NumberType::F32,
    NumberType::F64,
    NumberType::Tf32,
    NumberType::E4m3,
    NumberType::E5m2,
];
const ROUNDS: [Round; 5] = [Round::Nearest, Round::Zero, Round::Down, Round::Up, Round::NearestAway];

fn pack(c: Conversion) -> u64 {
    let number = |t| NUMBERS.iter().position(|n| *n == t).unwrap_or(0) as u64;
    let round = ROUNDS.iter().position(|n| *n == c.round).unwrap_or(0) as u64;
    let flags = [c.integral, c.ftz, c.saturate, c.finite, c.relu];
    let flags = flags.iter().enumerate().fold(0, |bits, (i, flag)| bits | u64::from(*flag) << i);
    number(c.to) | number(c.from) << 8 | round << 16 | flags << 24
}

fn unpack(x: u64) -> Conversion {
    let flag = |i: u32| x >> (24 + i) & 1 != 0;
    Conversion {
        to: NUMBERS[(x & 0xFF) as usize],
        from: NUMBERS[(x >> 8 & 0xFF) as usize],
        round: ROUNDS[(x >> 16 & 0xFF) as usize],
        integral: flag(0),
        ftz: flag(1),
        saturate: flag(2),
        finite: flag(3),
        relu: flag(4),
    }
}

pub fn decode<'a>(b: &mut Builder<'a, '_>, mut r: Reader<'a, '_>) -> Decoded {
    if r.has("pack") {
        return packed_integers(b, r);
    }
    let integral = r.one_of(&[("rni", Round::Nearest), ("rzi", Round::Zero), ("rmi", Round::Down), ("rpi", Round::Up)]);
    let away = r.has("rna").then_some(Round::NearestAway);
    let round = away.or(integral).unwrap_or_else(|| r.rounding());
    let (ftz, saturate, finite, relu) = (r.has("ftz"), r.has("sat"), r.has("satfinite"), r.has("relu"));
    let [to, from] = r.types()[..] else { return b.error("two types must be given") };
    let (Some(to_number), Some(from_number)) = (to.number(), from.number()) else { return r.refuse(b) };
    // Rounded to a whole number and kept as a float; between unequal float types the rounding is that of the type.
    let integral = integral.is_some() && to_number.is_float() && from_number.is_float();
    let c = Conversion { to: to_number, from: from_number, round, integral, ftz, saturate, finite, relu };
    let is_packed = |t| matches!(t, Type::F16x2 | Type::Bf16x2 | Type::E4m3x2 | Type::E5m2x2);
    match (is_packed(to), is_packed(from)) {
        (true, true) => {
            r.done_with(b, 2)?;
            let d = any_destination(b, r.operand(b, 0)?)?.0;
            let a = b.source(r.operand(b, 1)?, Type::B32)?;
            let action = unary(|e, x: u32| k::convert_packed(unpack(e.x), x));
            b.emit(Op { d, a, x: pack(c), ..Op::new(action) });
            Ok(())
        }
        (true, false) => {
            r.done_with(b, 3)?;
            let d = any_destination(b, r.operand(b, 0)?)?.0;
            let a = b.source(r.operand(b, 1)?, from)?;
            let second = b.source(r.operand(b, 2)?, from)?;
            b.emit(Op { d, a, b: second, x: pack(c), ..Op::new(pairs(c)) });
            Ok(())
        }
        (false, _) => scalar(b, &r, c, from),
    }
}

/// Two scalars into a packed register: first operand high.
fn pairs(c: Conversion) -> Action {
    const F16: Conversion = Conversion::new(NumberType::F16, NumberType::F32);
    const BF16: Conversion = Conversion::new(NumberType::Bf16, NumberType::F32);
    match c {
        _ if c == F16 => binary(|_, x: u32, y: u32| k::convert_pair(F16, x.into(), y.into())),
        _ if c == BF16 => binary(|_, x: u32, y: u32| k::convert_pair(BF16, x.into(), y.into())),
        _ => binary(|e, x: u32, y: u32| k::convert_pair(unpack(e.x), x.into(), y.into())),
    }
}

fn any_destination<'a>(b: &Builder<'a, '_>, operand: &Operand<'a>) -> Decoded<(u32, Type)> {
    match b.any_register(operand) {
        Some(found) => Ok(found),
        None => b.error(format!("a register must stand where {operand:?} does")),
    }
}

/// A loop for one conversion that is known now.
macro_rules! constant {
    ($c:expr, $to:ident, $from:ident, $round:ident, $integral:literal, $a:ty, $d:ty) => {
        const C: Conversion = Conversion {
            integral: $integral,
            ..Conversion::new(NumberType::$to, NumberType::$from).rounded(Round::$round)
        };
        if $c == C {
            return unary(|_, x: $a| k::convert(C, x.into()) as $d);
        }
    };
}

fn scalar<'a>(b: &mut Builder<'a, '_>, r: &Reader<'a, '_>, c: Conversion, from: Type) -> Decoded {
    r.done_with(b, 2)?;
    let (d, to) = any_destination(b, r.operand(b, 0)?)?;
    // Registers may be wider than the types.
    let (a, from) = match b.any_register(r.operand(b, 1)?) {
        Some(found) => found,
        None => (b.source(r.operand(b, 1)?, from)?, from),
    };
    let action = match (from.is_wide(), to.is_wide()) {
        (false, false) => narrow_to_narrow(c),
        (false, true) => narrow_to_wide(c),
        (true, false) => wide_to_narrow(c),
        (true, true) => unary(|e, x: u64| k::convert(unpack(e.x), x)),
    };
    b.emit(Op { d, a, x: pack(c), ..Op::new(action) });
    Ok(())
}

fn narrow_to_narrow(c: Conversion) -> Action {
    {
        constant!(c, F32, S32, Nearest, false, u32, u32);
    }
    {
        constant!(c, F32, U32, Nearest, false, u32, u32);
    }
    {
        constant!(c, S32, F32, Zero, false, u32, u32);
    }
    {
        constant!(c, S32, F32, Nearest, false, u32, u32);
    }
    {
        constant!(c, U32, F32, Zero, false, u32, u32);
    }
    {
        constant!(c, F32, F16, Nearest, false, u32, u32);
    }
    {
        constant!(c, F16, F32, Nearest, false, u32, u32);
    }
    {
        constant!(c, F32, Bf16, Nearest, false, u32, u32);
    }
    {
        constant!(c, Bf16, F32, Nearest, false, u32, u32);
    }
    {
        constant!(c, F32, F32, Down, true, u32, u32);
    }
    {
        constant!(c, F32, F32, Zero, true, u32, u32);
    }
    {
        constant!(c, U16, U32, Nearest, false, u32, u32);
    }
    {
        constant!(c, U32, U16, Nearest, false, u32, u32);
    }
    {
        constant!(c, S32, S16, Nearest, false, u32, u32);
    }
    {
        constant!(c, U32, U8, Nearest, false, u32, u32);
    }
    {
        constant!(c, S32, S8, Nearest, false, u32, u32);
    }
    unary(|e, x: u32| k::convert(unpack(e.x), x.into()) as u32)
}

fn narrow_to_wide(c: Conversion) -> Action {
    {
        constant!(c, U64, U32, Nearest, false, u32, u64);
    }
    {
        constant!(c, S64, S32, Nearest, false, u32, u64);
    }
    {
        constant!(c, F64, F32, Nearest, false, u32, u64);
    }
    {
        constant!(c, F64, S32, Nearest, false, u32, u64);
    }
    unary(|e, x: u32| k::convert(unpack(e.x), x.into()))
}

fn wide_to_narrow(c: Conversion) -> Action {
    {
        constant!(c, U32, U64, Nearest, false, u64, u32);
    }
    {
        constant!(c, F32, F64, Nearest, false, u64, u32);
    }
    unary(|e, x: u64| k::convert(unpack(e.x), x) as u32)
}

/// `cvt.pack.sat`
fn packed_integers<'a>(b: &mut Builder<'a, '_>, mut r: Reader<'a, '_>) -> Decoded {
    if !r.has("sat") {
        return r.refuse(b);
    }
    let types = r.types();
    let to = types.first().and_then(|t| t.number());
    let rest = types.len() == 3;
    r.done_with(b, if rest { 4 } else { 3 })?;
    let Some(to) = to.filter(|t| matches!(t, NumberType::U8 | NumberType::S8 | NumberType::U16 | NumberType::S16))
    else {
        return r.refuse(b);
    };
    let t = Type::B32;
    let d = b.destination(r.operand(b, 0)?, t)?;
    let a = b.source(r.operand(b, 1)?, t)?;
    let second = b.source(r.operand(b, 2)?, t)?;
    let c = if rest { b.source(r.operand(b, 3)?, t)? } else { b.constant(0, false) };
    let action = ternary(|e, x: u32, y: u32, z: u32| k::pack_saturated(NUMBERS[(e.x & 7) as usize], x, y, z));
    b.emit(Op { d, a, b: second, c, x: NUMBERS.iter().position(|n| *n == to).unwrap_or(0) as u64, ..Op::new(action) });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conversions_survive_packing() {
        for to in NUMBERS {
            for round in ROUNDS {
                let c = Conversion { relu: true, integral: true, ..Conversion::new(to, NumberType::S8).rounded(round) };
                assert_eq!(unpack(pack(c)), c);
                let c = Conversion { ftz: true, saturate: true, finite: true, ..Conversion::new(NumberType::F64, to) };
                assert_eq!(unpack(pack(c)), c);
            }
        }
    }
}
