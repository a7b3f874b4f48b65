//! `setp`, `set`, `selp`, `slct`.

#![allow(clippy::unnecessary_cast, reason = "needed for one of the lane types that a macro is used with")]

use super::{Reader, by_integer, simple};
use crate::arith::compare::{self as k, Relation};
use crate::arith::half::{Bf16, F16};
use crate::arith::integer::Integer;
use crate::decode::builder::{Builder, Carries, Decoded};
use crate::decode::op::{self, Action, NONE, Op};
use crate::decode::types::Type;
use crate::machine::lanes::{compare, frame, ternary};
use crate::ptx::Operand;

pub fn decode<'a>(b: &mut Builder<'a, '_>, r: Reader<'a, '_>) -> Decoded {
    match r.base() {
        "setp" => predicates(b, r),
        "set" => values(b, r),
        "selp" => select(b, r),
        _ => by_sign(b, r),
    }
}

/// One loop for each relation: `$body` sees the relation as a constant.
macro_rules! by_relation {
    ($relation:expr, $R:ident => $body:expr, $($name:ident),*) => {
        match $relation {
            $(Relation::$name => {
                const $R: Relation = Relation::$name;
                $body
            })*
        }
    };
}

const NAMES: [(&str, Relation); 18] = [
    ("eq", Relation::Equal),
    ("ne", Relation::NotEqual),
    ("lt", Relation::Less),
    ("le", Relation::LessEqual),
    ("gt", Relation::Greater),
    ("ge", Relation::GreaterEqual),
    ("lo", Relation::Less),
    ("ls", Relation::LessEqual),
    ("hi", Relation::Greater),
    ("hs", Relation::GreaterEqual),
    ("equ", Relation::EqualUnordered),
    ("neu", Relation::NotEqualUnordered),
    ("ltu", Relation::LessUnordered),
    ("leu", Relation::LessEqualUnordered),
    ("gtu", Relation::GreaterUnordered),
    ("geu", Relation::GreaterEqualUnordered),
    ("num", Relation::Numbers),
    ("nan", Relation::AnyNan),
];

/// The comparison of two values of type `t`.
fn comparison<'a>(b: &Builder<'a, '_>, relation: Relation, t: Type, ftz: bool) -> Decoded<Action> {
    if t.is_float() {
        return Ok(match (t, ftz) {
            (Type::F32, false) => by_relation!(relation, R => compare(|_, x: u32, y: u32| k::f32s(R, x, y, false)),
                Equal, NotEqual, Less, LessEqual, Greater, GreaterEqual, EqualUnordered, NotEqualUnordered, LessUnordered,
                LessEqualUnordered, GreaterUnordered, GreaterEqualUnordered, Numbers, AnyNan),
            (Type::F32, true) => compare(|e, x: u32, y: u32| k::f32s(relation_of(e.x), x, y, true)),
            (Type::F64, _) => compare(|e, x: u64, y: u64| k::f64s(relation_of(e.x), x, y)),
            (Type::F16, false) => compare(|e, x: u32, y: u32| k::halves::<F16>(relation_of(e.x), x, y, false)),
            (Type::F16, true) => compare(|e, x: u32, y: u32| k::halves::<F16>(relation_of(e.x), x, y, true)),
            (Type::Bf16, _) => compare(|e, x: u32, y: u32| k::halves::<Bf16>(relation_of(e.x), x, y, false)),
            _ => return b.unknown(format!("comparing .{} is not known here", t.name())),
        });
    }
    let ordered = matches!(
        relation,
        Relation::Equal
            | Relation::NotEqual
            | Relation::Less
            | Relation::LessEqual
            | Relation::Greater
            | Relation::GreaterEqual
    );
    if !ordered {
        return b.error("this relation is for floating-point types");
    }
    Ok(by_integer!(b, t, (T, L) => match relation {
        Relation::Equal => compare(|_, x: L, y: L| T::from_bits(x as u64) == T::from_bits(y as u64)),
        Relation::NotEqual => compare(|_, x: L, y: L| T::from_bits(x as u64) != T::from_bits(y as u64)),
        Relation::Less => compare(|_, x: L, y: L| T::from_bits(x as u64) < T::from_bits(y as u64)),
        Relation::LessEqual => compare(|_, x: L, y: L| T::from_bits(x as u64) <= T::from_bits(y as u64)),
        Relation::Greater => compare(|_, x: L, y: L| T::from_bits(x as u64) > T::from_bits(y as u64)),
        _ => compare(|_, x: L, y: L| T::from_bits(x as u64) >= T::from_bits(y as u64)),
    }))
}

/// Relations by number, for the loops that look them up.
#[inline(always)]
fn relation_of(x: u64) -> Relation {
    const ALL: [Relation; 14] = [
        Relation::Equal,
        Relation::NotEqual,
        Relation::Less,
        Relation::LessEqual,
        Relation::Greater,
        Relation::GreaterEqual,
        Relation::EqualUnordered,
        Relation::NotEqualUnordered,
        Relation::LessUnordered,
        Relation::LessEqualUnordered,
        Relation::GreaterUnordered,
        Relation::GreaterEqualUnordered,
        Relation::Numbers,
        Relation::AnyNan,
    ];
    ALL[(x % 14) as usize]
}

/// Relation, how it is joined with a predicate, `ftz`.
fn parts<'a>(b: &Builder<'a, '_>, r: &mut Reader<'a, '_>) -> Decoded<(Relation, u64, bool)> {
    let Some(relation) = r.one_of(&NAMES) else { return b.error("a comparison must be given") };
    let join = r.one_of(&[("and", op::AND), ("or", op::OR), ("xor", op::XOR)]).unwrap_or(0);
    Ok((relation, join, r.has("ftz")))
}

fn predicates<'a>(b: &mut Builder<'a, '_>, mut r: Reader<'a, '_>) -> Decoded {
    let (relation, join, ftz) = parts(b, &mut r)?;
    let t = r.only_type(b)?;
    r.done_with(b, if join > 0 { 4 } else { 3 })?;
    if let Type::F16x2 | Type::Bf16x2 = t {
        return packed(b, &r, relation, join, ftz, t);
    }
    let action = comparison(b, relation, t, ftz)?;
    let (d, e) = destinations(b, r.operand(b, 0)?)?;
    let a = b.source(r.operand(b, 1)?, t)?;
    let second = b.source(r.operand(b, 2)?, t)?;
    let c = if join > 0 { b.predicate_source(r.operand(b, 3)?)? } else { NONE };
    let draft = b.emit(Op { d, e, a, b: second, c, x: relation as u64, y: join, ..Op::new(action) });
    (draft.e_written, draft.carries) = (true, Carries::Compare);
    Ok(())
}

/// `p|q` or `p`.
fn destinations<'a>(b: &mut Builder<'a, '_>, operand: &Operand<'a>) -> Decoded<(u32, u32)> {
    match operand {
        Operand::Pair(p, q) => Ok((b.predicate_destination(p)?, b.predicate_destination(q)?)),
        operand => Ok((b.predicate_destination(operand)?, NONE)),
    }
}

/// `setp.f16x2`: each half has a destination of its own. Done as two scalar comparisons.
fn packed<'a>(
    b: &mut Builder<'a, '_>,
    r: &Reader<'a, '_>,
    relation: Relation,
    join: u64,
    ftz: bool,
    t: Type,
) -> Decoded {
    let Operand::Pair(p, q) = r.operand(b, 0)? else { return b.error("two predicates must be given") };
    let (low, high) = (b.predicate_destination(p)?, b.predicate_destination(q)?);
    let a = b.source(r.operand(b, 1)?, Type::B32)?;
    let second = b.source(r.operand(b, 2)?, Type::B32)?;
    let c = if join > 0 { b.predicate_source(r.operand(b, 3)?)? } else { NONE };
    let halves: [Action; 2] = match (t, ftz) {
        (Type::F16x2, false) => [
            compare(|e, x: u32, y: u32| k::halves::<F16>(relation_of(e.x), x, y, false)),
            compare(|e, x: u32, y: u32| k::halves::<F16>(relation_of(e.x), x >> 16, y >> 16, false)),
        ],
        (Type::F16x2, true) => [
            compare(|e, x: u32, y: u32| k::halves::<F16>(relation_of(e.x), x, y, true)),
            compare(|e, x: u32, y: u32| k::halves::<F16>(relation_of(e.x), x >> 16, y >> 16, true)),
        ],
        _ => [
            compare(|e, x: u32, y: u32| k::halves::<Bf16>(relation_of(e.x), x, y, false)),
            compare(|e, x: u32, y: u32| k::halves::<Bf16>(relation_of(e.x), x >> 16, y >> 16, false)),
        ],
    };
    for (i, (d, action)) in [low, high].into_iter().zip(halves).enumerate() {
        b.emit(Op { d, a, b: second, c, x: relation as u64, y: join, hidden: i > 0, ..Op::new(action) }).carries =
            Carries::Compare;
    }
    Ok(())
}

/// `set`: a comparison whose result is a value: all ones or 1.0.
fn values<'a>(b: &mut Builder<'a, '_>, mut r: Reader<'a, '_>) -> Decoded {
    let (relation, join, ftz) = parts(b, &mut r)?;
    let [to, t] = r.types()[..] else { return b.error("two types must be given") };
    r.done_with(b, if join > 0 { 4 } else { 3 })?;
    let d = b.destination(r.operand(b, 0)?, to)?;
    let a = b.source(r.operand(b, 1)?, t)?;
    let second = b.source(r.operand(b, 2)?, t)?;
    let c = if join > 0 { b.predicate_source(r.operand(b, 3)?)? } else { NONE };
    let one = match to {
        Type::U32 | Type::S32 => 0xFFFF_FFFFu64,
        Type::U16 | Type::S16 => 0xFFFF,
        Type::F32 => 0x3F80_0000,
        Type::F16 | Type::F16x2 => 0x3C00,
        Type::Bf16 | Type::Bf16x2 => 0x3F80,
        _ => return r.refuse(b),
    };
    let holds = b.predicate("the result of a comparison") << 1 | crate::decode::op::PREDICATE;
    let set = |b: &mut Builder<'a, '_>, action, place: u64, keep: bool| {
        let hidden = keep;
        b.emit(Op { d: holds, a, b: second, c, x: relation as u64, y: join, hidden, ..Op::new(action) });
        let write = frame(|frame, op, mask| {
            // SAFETY: the decoder gives a predicate and a 32-bit register; `c` is the same register when it is kept.
            unsafe {
                let holds = frame.predicate(op.a);
                let before = if op.c == NONE { [0; 32] } else { *frame.row::<u32>(op.c) };
                let values =
                    std::array::from_fn(|lane| before[lane] | if holds >> lane & 1 != 0 { op.x as u32 } else { 0 });
                frame.write(op.d, &values, mask);
            }
        });
        b.emit(Op { d, a: holds, c: if keep { d } else { NONE }, x: one << place, hidden: true, ..Op::new(write) });
    };
    match (t, ftz) {
        (Type::F16x2, _) => {
            let [low, high] = [
                compare(|e, x: u32, y: u32| k::halves::<F16>(relation_of(e.x), x, y, false)),
                compare(|e, x: u32, y: u32| k::halves::<F16>(relation_of(e.x), x >> 16, y >> 16, false)),
            ];
            set(b, low, 0, false);
            set(b, high, 16, true);
        }
        (Type::Bf16x2, _) => {
            let [low, high] = [
                compare(|e, x: u32, y: u32| k::halves::<Bf16>(relation_of(e.x), x, y, false)),
                compare(|e, x: u32, y: u32| k::halves::<Bf16>(relation_of(e.x), x >> 16, y >> 16, false)),
            ];
            set(b, low, 0, false);
            set(b, high, 16, true);
        }
        _ => {
            let action = comparison(b, relation, t, ftz)?;
            set(b, action, 0, false);
        }
    }
    Ok(())
}

fn select<'a>(b: &mut Builder<'a, '_>, mut r: Reader<'a, '_>) -> Decoded {
    let t = r.only_type(b)?;
    r.done_with(b, 4)?;
    let action = if t.is_wide() {
        frame(|frame, op, mask| {
            // SAFETY: the decoder gives 64-bit registers and a predicate.
            unsafe {
                let (x, y, p) = (frame.row::<u64>(op.a), frame.row::<u64>(op.b), frame.predicate(op.c));
                let mut values = [0; 32];
                for lane in 0..32 {
                    values[lane] = if p >> lane & 1 != 0 { x[lane] } else { y[lane] };
                }
                frame.write(op.d, &values, mask);
            }
        })
    } else {
        frame(|frame, op, mask| {
            // SAFETY: the decoder gives 32-bit registers and a predicate.
            unsafe {
                let (x, y, p) = (frame.row::<u32>(op.a), frame.row::<u32>(op.b), frame.predicate(op.c));
                let mut values = [0; 32];
                for lane in 0..32 {
                    values[lane] = if p >> lane & 1 != 0 { x[lane] } else { y[lane] };
                }
                frame.write(op.d, &values, mask);
            }
        })
    };
    let d = b.destination(r.operand(b, 0)?, t)?;
    let a = b.source(r.operand(b, 1)?, t)?;
    let second = b.source(r.operand(b, 2)?, t)?;
    let c = b.predicate_source(r.operand(b, 3)?)?;
    b.emit(Op { d, a, b: second, c, ..Op::new(action) }).carries = Carries::Select;
    Ok(())
}

/// `slct`
fn by_sign<'a>(b: &mut Builder<'a, '_>, mut r: Reader<'a, '_>) -> Decoded {
    let ftz = r.has("ftz");
    let [t, selector] = r.types()[..] else { return b.error("two types must be given") };
    let action = match (t.is_wide(), selector, ftz) {
        (false, Type::S32, _) => ternary(|_, x: u32, y: u32, s: u32| if k::select_s32(s) { x } else { y }),
        (true, Type::S32, _) => ternary(|_, x: u64, y: u64, s: u32| if k::select_s32(s) { x } else { y }),
        (false, Type::F32, false) => ternary(|_, x: u32, y: u32, s: u32| if k::select_f32(s, false) { x } else { y }),
        (false, Type::F32, true) => ternary(|_, x: u32, y: u32, s: u32| if k::select_f32(s, true) { x } else { y }),
        (true, Type::F32, false) => ternary(|_, x: u64, y: u64, s: u32| if k::select_f32(s, false) { x } else { y }),
        (true, Type::F32, true) => ternary(|_, x: u64, y: u64, s: u32| if k::select_f32(s, true) { x } else { y }),
        _ => return r.refuse(b),
    };
    let op = simple(b, &r, action, t, &[t, t, selector])?;
    b.emit(op);
    Ok(())
}
