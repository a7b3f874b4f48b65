//! `cvt`: from any type to any other, with every rounding and saturation.

use super::exact::{self, Exact, Format};
use super::float::{flush_f32, saturate_f64};
use super::half::{Bf16, F16, Half};
use super::integer::Integer;
use super::{NAN_F16, NAN_F32, Round};

/// The types that numbers are converted between.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names of PTX")]
pub enum NumberType {
    U8,
    S8,
    U16,
    S16,
    U32,
    S32,
    U64,
    S64,
    F16,
    Bf16,
    F32,
    F64,
    /// In 32 bits, the low 13 of which are zero.
    Tf32,
    E4m3,
    E5m2,
}

/// One `cvt`, of scalars.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Conversion {
    /// Destination type.
    pub to: NumberType,
    /// Source type.
    pub from: NumberType,
    /// Rounding: of a float's last place or, to an integer or with [`Conversion::integral`], to an integer.
    pub round: Round,
    /// `.rni`, `.rzi`, `.rmi`, `.rpi` from a float type to the same: the result is a whole number.
    pub integral: bool,
    /// `.ftz`: subnormal f32 operands and results become zero.
    pub ftz: bool,
    /// `.sat`: integers are clamped to the destination's range, floats to [0, 1] with NaN to +0.
    pub saturate: bool,
    /// `.satfinite`: what is too large, infinity too, becomes the largest finite value.
    pub finite: bool,
    /// `.relu`: below zero becomes +0.
    pub relu: bool,
}

impl Conversion {
    /// `from` → `to` to the nearest, without modifiers.
    #[inline(always)]
    pub const fn new(to: NumberType, from: NumberType) -> Conversion {
        let (integral, ftz, saturate, finite, relu) = (false, false, false, false, false);
        Conversion { to, from, round: Round::Nearest, integral, ftz, saturate, finite, relu }
    }

    /// The same with another rounding.
    #[inline(always)]
    pub const fn rounded(self, round: Round) -> Conversion {
        Conversion { round, ..self }
    }
}

impl NumberType {
    /// Not an integer.
    #[inline(always)]
    pub const fn is_float(self) -> bool {
        !matches!(self, Self::U8 | Self::S8 | Self::U16 | Self::S16 | Self::U32 | Self::S32 | Self::U64 | Self::S64)
    }
}

/// Converts. The operand is in the low bits; a signed integer comes back sign-extended to 64 bits, all else
/// zero-extended. With a constant `conversion` only the wanted path is left after inlining.
#[inline(always)]
pub fn convert(conversion: Conversion, bits: u64) -> u64 {
    match (conversion.from.is_float(), conversion.to.is_float()) {
        (false, false) => integer_to_integer(conversion, bits),
        (false, true) => integer_to_float(conversion, bits),
        (true, false) => float_to_integer(conversion, bits),
        (true, true) => float_to_float(conversion, bits),
    }
}

/// The integer in a register, sign- or zero-extended to 64 bits, and whether its type is signed.
#[inline(always)]
fn extended(from: NumberType, bits: u64) -> (u64, bool) {
    match from {
        NumberType::U8 => (u8::from_bits(bits).bits(), false),
        NumberType::S8 => (i8::from_bits(bits).bits(), true),
        NumberType::U16 => (u16::from_bits(bits).bits(), false),
        NumberType::S16 => (i16::from_bits(bits).bits(), true),
        NumberType::U32 => (u32::from_bits(bits).bits(), false),
        NumberType::S32 => (i32::from_bits(bits).bits(), true),
        NumberType::S64 => (bits, true),
        _ => (bits, false),
    }
}

#[inline(always)]
fn integer_to_integer(c: Conversion, bits: u64) -> u64 {
    let (value, signed) = extended(c.from, bits);
    if !c.saturate {
        return extended(c.to, value).0;
    }
    let wide = if signed { i128::from(value as i64) } else { i128::from(value) };
    match c.to {
        NumberType::U8 => u8::clamp_from(wide).bits(),
        NumberType::S8 => i8::clamp_from(wide).bits(),
        NumberType::U16 => u16::clamp_from(wide).bits(),
        NumberType::S16 => i16::clamp_from(wide).bits(),
        NumberType::U32 => u32::clamp_from(wide).bits(),
        NumberType::S32 => i32::clamp_from(wide).bits(),
        NumberType::U64 => u64::clamp_from(wide).bits(),
        _ => i64::clamp_from(wide).bits(),
    }
}

#[inline(always)]
fn integer_to_float(c: Conversion, bits: u64) -> u64 {
    let (value, signed) = extended(c.from, bits);
    // 32 bits fit f64 exactly; of 64 bits the host rounds to nearest, all else is rounded once from the exact value.
    match (c.to, c.round) {
        _ if c.saturate => {
            if value == 0 || (signed && (value as i64) < 0) {
                0
            } else {
                one(c.to)
            }
        }
        (NumberType::F32, Round::Nearest) if signed => (value as i64 as f32).to_bits().into(),
        (NumberType::F32, Round::Nearest) => (value as f32).to_bits().into(),
        (NumberType::F64, Round::Nearest) if signed => (value as i64 as f64).to_bits(),
        (NumberType::F64, Round::Nearest) => (value as f64).to_bits(),
        _ => {
            let negative = signed && (value as i64) < 0;
            let magnitude = if negative { value.wrapping_neg() } else { value };
            Exact::of_integer(negative, magnitude).round(format(c.to), c.round)
        }
    }
}

#[inline(always)]
fn float_to_integer(c: Conversion, bits: u64) -> u64 {
    let value = value_of(c.from, bits, c.ftz);
    if value.is_nan() {
        // Zero, unless 64 bits are at either end: then the top bit alone.
        return match c.to {
            NumberType::U64 | NumberType::S64 => 1 << 63,
            _ if c.from != NumberType::F64 => 0,
            NumberType::U32 => 1 << 31,
            NumberType::S32 => i32::MIN.bits(),
            NumberType::U16 => 1 << 15,
            NumberType::S16 => i16::MIN.bits(),
            NumberType::U8 => 1 << 7,
            _ => i8::MIN.bits(),
        };
    }
    // Rust's casts clamp, as cvt does with and without .sat.
    let whole = integral(value, c.round);
    match c.to {
        NumberType::U8 => (whole as u8).bits(),
        NumberType::S8 => (whole as i8).bits(),
        NumberType::U16 => (whole as u16).bits(),
        NumberType::S16 => (whole as i16).bits(),
        NumberType::U32 => (whole as u32).bits(),
        NumberType::S32 => (whole as i32).bits(),
        NumberType::U64 => whole as u64,
        _ => (whole as i64).bits(),
    }
}

#[inline(always)]
fn float_to_float(c: Conversion, bits: u64) -> u64 {
    let plain = !c.saturate && !c.relu && !c.finite && !c.integral && c.round == Round::Nearest;
    let ftz = c.ftz && c.from == NumberType::F32;
    // The common ones, in straight code.
    if plain && c.from == NumberType::F32 {
        let value = f32::from_bits(if ftz { flush_f32(bits as u32) } else { bits as u32 });
        match c.to {
            NumberType::F16 => return F16::from_f32(value).into(),
            NumberType::Bf16 => return Bf16::from_f32(value).into(),
            NumberType::F64 => return f64::from(value).to_bits(),
            _ => (),
        }
    }
    // Same type, nothing to round: the bits stay, NaN included.
    if c.from == c.to && !c.integral && !c.saturate && !c.relu {
        return if ftz { flush_f32(bits as u32).into() } else { bits };
    }
    let mut value = value_of(c.from, bits, c.ftz);
    if c.integral {
        value = integral(value, c.round);
    }
    if c.saturate {
        value = saturate_f64(value);
    }
    if c.relu && value <= 0.0 {
        value = 0.0;
    }
    encode(c, value)
}

/// Rounds a value to the destination's format.
#[inline(always)]
fn encode(c: Conversion, value: f64) -> u64 {
    if value.is_nan() {
        return match c.to {
            NumberType::F16 | NumberType::Bf16 => NAN_F16.into(),
            NumberType::F64 => value.to_bits(),
            NumberType::E4m3 | NumberType::E5m2 => 0x7f,
            _ => NAN_F32.into(),
        };
    }
    match c.to {
        NumberType::F64 => return value.to_bits(),
        NumberType::F32 if c.round == Round::Nearest => {
            let bits = (value as f32).to_bits();
            return if c.ftz { flush_f32(bits) } else { bits }.into();
        }
        _ => (),
    }
    let format = format(c.to);
    let sign = if value.is_sign_negative() { format.sign } else { 0 };
    let mut bits =
        if value.is_infinite() { sign | format.overflow } else { Exact::of_f64(value).round(format, c.round) };
    let too_large = bits & !format.sign >= format.overflow;
    if too_large && (c.finite || c.to == NumberType::E4m3) {
        bits = sign | (format.overflow - 1);
    }
    match c.to {
        NumberType::Tf32 => bits << 13,
        NumberType::F32 if c.ftz => flush_f32(bits as u32).into(),
        _ => bits,
    }
}

/// The value of a register of a floating-point type; exact.
#[inline(always)]
pub fn value_of(from: NumberType, bits: u64, ftz: bool) -> f64 {
    let low = bits as u32;
    match from {
        NumberType::F16 => F16::to_f32(low & 0xffff).into(),
        NumberType::Bf16 => Bf16::to_f32(low & 0xffff).into(),
        NumberType::F64 => f64::from_bits(bits),
        // The top byte of an f16.
        NumberType::E5m2 => F16::to_f32((low & 0xff) << 8).into(),
        NumberType::E4m3 => {
            let exponent = (low >> 3 & 0xf) as i32;
            let fraction = f64::from(low & 7);
            let magnitude = match low & 0x7f {
                0x7f => f64::NAN,
                _ if exponent == 0 => fraction / 512.0,
                _ => (8.0 + fraction) * f64::from_bits(((exponent - 10 + 1023) as u64) << 52),
            };
            if low & 0x80 != 0 { -magnitude } else { magnitude }
        }
        _ => f32::from_bits(if ftz { flush_f32(low) } else { low }).into(),
    }
}

/// To a whole number.
#[inline(always)]
fn integral(value: f64, round: Round) -> f64 {
    match round {
        Round::Nearest => value.round_ties_even(),
        Round::Zero => value.trunc(),
        Round::Down => value.floor(),
        Round::Up => value.ceil(),
        Round::NearestAway => value.round(),
    }
}

/// Encoding of 1.
#[inline(always)]
const fn one(to: NumberType) -> u64 {
    match to {
        NumberType::F16 => F16::ONE as u64,
        NumberType::Bf16 => Bf16::ONE as u64,
        NumberType::F64 => 0x3ff0_0000_0000_0000,
        _ => 0x3f80_0000,
    }
}

/// The constants of a floating-point type.
#[inline(always)]
const fn format(of: NumberType) -> Format {
    match of {
        NumberType::F16 => exact::F16,
        NumberType::Bf16 => exact::BF16,
        NumberType::F64 => exact::F64,
        NumberType::Tf32 => exact::TF32,
        NumberType::E4m3 => exact::E4M3,
        NumberType::E5m2 => exact::E5M2,
        _ => exact::F32,
    }
}

/// `cvt` with a packed destination and two scalar sources: `high` and `low` converted, side by side.
#[inline(always)]
pub fn convert_pair(conversion: Conversion, high: u64, low: u64) -> u32 {
    let width = if matches!(conversion.to, NumberType::E4m3 | NumberType::E5m2) { 8 } else { 16 };
    (convert(conversion, high) << width | convert(conversion, low)) as u32
}

/// `cvt` with a packed source and a packed destination, such as `cvt.rn.f16x2.e4m3x2`.
#[inline(always)]
pub fn convert_packed(conversion: Conversion, packed: u32) -> u32 {
    let width = if matches!(conversion.from, NumberType::E4m3 | NumberType::E5m2) { 8 } else { 16 };
    let low = packed & ((1 << width) - 1);
    convert_pair(conversion, (packed >> width).into(), low.into())
}

/// `cvt.pack.sat.TYPE.s32`: `high` and `low` clamped and packed; of 8-bit types, `rest` is shifted up to make room.
#[inline]
pub fn pack_saturated(to: NumberType, high: u32, low: u32, rest: u32) -> u32 {
    let conversion = Conversion { saturate: true, ..Conversion::new(to, NumberType::S32) };
    let one = |value: u32| convert(conversion, value.into()) as u32;
    if matches!(to, NumberType::U8 | NumberType::S8) {
        rest << 16 | (one(high) & 0xff) << 8 | one(low) & 0xff
    } else {
        (one(high) & 0xffff) << 16 | one(low) & 0xffff
    }
}
