//! Finite numbers held wide enough that one rounding at the end is the only one.
//!
//! An [`Exact`] is `± significand × 2^exponent`. Operations keep every bit, or, where bits must go, leave a 1 in the
//! lowest place for them ("sticky"), at least 60 bits below the leading one: no rounding to 53 bits or fewer can tell.

use super::Round;

/// A finite number, not rounded yet.
#[derive(Clone, Copy, Debug)]
pub struct Exact {
    /// Below zero. Also the sign of a zero.
    pub negative: bool,
    /// Its lowest bit may stand for "and something more".
    pub significand: u128,
    /// Of the significand's lowest bit.
    pub exponent: i32,
}

/// A binary floating-point format, as the constants that rounding needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    /// Bits of the significand, the hidden one included.
    pub precision: u32,
    /// Exponent of the smallest subnormal number.
    pub lowest: i32,
    /// Encoding (without sign) of the first value that is too large: infinity, or the NaN where there is none.
    pub overflow: u64,
    /// Encoding of the sign bit.
    pub sign: u64,
}

/// IEEE binary16.
pub const F16: Format = Format { precision: 11, lowest: -24, overflow: 0x7c00, sign: 0x8000 };
/// bfloat16.
pub const BF16: Format = Format { precision: 8, lowest: -133, overflow: 0x7f80, sign: 0x8000 };
/// IEEE binary32.
pub const F32: Format = Format { precision: 24, lowest: -149, overflow: 0x7f80_0000, sign: 0x8000_0000 };
/// IEEE binary64.
pub const F64: Format = Format { precision: 53, lowest: -1074, overflow: 0x7ff0_0000_0000_0000, sign: 1 << 63 };
/// tf32, without the 13 low bits that its register leaves unused.
pub const TF32: Format = Format { precision: 11, lowest: -136, overflow: 0x7f80_0000 >> 13, sign: 0x8000_0000 >> 13 };
/// 8-bit float with 4 bits of exponent; has no infinity.
pub const E4M3: Format = Format { precision: 4, lowest: -9, overflow: 0x7f, sign: 0x80 };
/// 8-bit float with 5 bits of exponent.
pub const E5M2: Format = Format { precision: 3, lowest: -16, overflow: 0x7c, sign: 0x80 };

impl Exact {
    /// A finite double.
    pub fn of_f64(value: f64) -> Exact {
        let bits = value.to_bits();
        let field = ((bits >> 52) & 0x7ff) as i32;
        let fraction = bits & ((1 << 52) - 1);
        debug_assert!(field != 0x7ff, "Exact holds finite numbers");
        let significand = if field == 0 { fraction } else { fraction | 1 << 52 };
        Exact { negative: bits >> 63 != 0, significand: significand.into(), exponent: field.max(1) - 1075 }
    }

    /// An integer.
    pub fn of_integer(negative: bool, magnitude: u64) -> Exact {
        Exact { negative, significand: magnitude.into(), exponent: 0 }
    }

    /// The product of two numbers of at most 64 bits.
    pub fn times(self, other: Exact) -> Exact {
        Exact {
            negative: self.negative != other.negative,
            significand: self.significand * other.significand,
            exponent: self.exponent + other.exponent,
        }
    }

    /// The sum. An exact zero is negative if both are, or if `round` is [`Round::Down`] and they differ in sign.
    pub fn plus(self, other: Exact, round: Round) -> Exact {
        if self.significand == 0 && other.significand == 0 {
            let negative = if self.negative == other.negative { self.negative } else { round == Round::Down };
            return Exact { negative, ..self };
        }
        if self.significand == 0 {
            return other;
        }
        if other.significand == 0 {
            return self;
        }
        // Leading bits at place 125: room for the carry; a product has 106 bits, so nothing is lost by the move.
        let (a, b) = (self.normalised(), other.normalised());
        let (large, small) = if a.exponent >= b.exponent { (a, b) } else { (b, a) };
        let aligned = shift_right_sticky(small.significand, (large.exponent - small.exponent) as u32);
        let (negative, significand) = if large.negative == small.negative {
            (large.negative, large.significand + aligned)
        } else if large.significand >= aligned {
            (large.negative, large.significand - aligned)
        } else {
            (small.negative, aligned - large.significand)
        };
        let negative = if significand == 0 { round == Round::Down } else { negative };
        Exact { negative, significand, exponent: large.exponent }
    }

    /// The quotient of two numbers of at most 53 bits, the divisor not zero.
    pub fn over(self, divisor: Exact) -> Exact {
        let wide = self.significand << 70;
        let sticky = u128::from(!wide.is_multiple_of(divisor.significand));
        // Both subnormal or not, at least 17 + 53 bits of quotient unless the dividend is short: normalise it first.
        if self.significand != 0 && self.significand.leading_zeros() > 75 {
            let shift = self.significand.leading_zeros() - 75;
            let longer =
                Exact { significand: self.significand << shift, exponent: self.exponent - shift as i32, ..self };
            return longer.over(divisor);
        }
        Exact {
            negative: self.negative != divisor.negative,
            significand: (wide / divisor.significand) | sticky,
            exponent: self.exponent - 70 - divisor.exponent,
        }
    }

    /// The square root of a number of at most 53 bits, not negative.
    pub fn sqrt(self) -> Exact {
        if self.significand == 0 {
            return self;
        }
        let mut number = self.normalised();
        if number.exponent % 2 != 0 {
            number = Exact { significand: number.significand >> 1, exponent: number.exponent + 1, ..number };
        }
        let root = number.significand.isqrt();
        let sticky = u128::from(root * root != number.significand);
        Exact { negative: false, significand: root << 1 | sticky, exponent: number.exponent / 2 - 1 }
    }

    /// The same number with its leading bit at place 125. Not for zero.
    fn normalised(self) -> Exact {
        let shift = self.significand.leading_zeros() as i32 - 2;
        if shift >= 0 {
            Exact { significand: self.significand << shift, exponent: self.exponent - shift, ..self }
        } else {
            let significand = shift_right_sticky(self.significand, -shift as u32);
            Exact { significand, exponent: self.exponent - shift, ..self }
        }
    }

    /// Rounds once; the encoding in `format`.
    pub fn round(self, format: Format, round: Round) -> u64 {
        let sign = if self.negative { format.sign } else { 0 };
        if self.significand == 0 {
            return sign;
        }
        let leading = self.exponent + 127 - self.significand.leading_zeros() as i32;
        let last = (leading - (format.precision as i32 - 1)).max(format.lowest);
        let drop = last - self.exponent;
        let (kept, below) = if drop <= 0 {
            (self.significand << -drop, Below::Nothing)
        } else if drop > 127 {
            (0, Below::LessThanHalf)
        } else {
            let rest = self.significand & ((1u128 << drop) - 1);
            (self.significand >> drop, Below::of(rest, 1u128 << (drop - 1)))
        };
        let up = match round {
            Round::Nearest => below == Below::MoreThanHalf || (below == Below::Half && kept & 1 == 1),
            Round::NearestAway => matches!(below, Below::MoreThanHalf | Below::Half),
            Round::Zero => false,
            Round::Down => self.negative && below != Below::Nothing,
            Round::Up => !self.negative && below != Below::Nothing,
        };
        // A significand that rounds up to the next power of two carries into the exponent field, as it should.
        let binade = ((last - format.lowest) as u64) << (format.precision - 1);
        let magnitude = binade + kept as u64 + u64::from(up);
        if magnitude < format.overflow {
            return sign | magnitude;
        }
        let to_infinity = match round {
            Round::Nearest | Round::NearestAway => true,
            Round::Zero => false,
            Round::Down => self.negative,
            Round::Up => !self.negative,
        };
        sign | if to_infinity { format.overflow } else { format.overflow - 1 }
    }
}

/// What the dropped bits amount to, in units of the last kept place.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Below {
    Nothing,
    LessThanHalf,
    Half,
    MoreThanHalf,
}

impl Below {
    fn of(rest: u128, half: u128) -> Below {
        match rest {
            0 => Below::Nothing,
            _ if rest < half => Below::LessThanHalf,
            _ if rest == half => Below::Half,
            _ => Below::MoreThanHalf,
        }
    }
}

/// `value >> amount`, with a 1 in the lowest place if anything but zeros was shifted out.
fn shift_right_sticky(value: u128, amount: u32) -> u128 {
    if amount == 0 {
        value
    } else if amount > 127 {
        u128::from(value != 0)
    } else {
        value >> amount | u128::from(value & ((1u128 << amount) - 1) != 0)
    }
}
