//! Floating-point arithmetic worked out with whole numbers: every result exact, then rounded once to any format.
//!
//! Written for the tests alone and sharing nothing with the crate: a value is `mantissa * 2^exponent` with a 128-bit
//! mantissa and a flag for what was cut off below it.

/// A binary format with an IEEE layout.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Format {
    /// Bits of the significand, the hidden one included.
    pub precision: u32,
    /// Bits of the exponent.
    pub exponent_bits: u32,
}

pub const HALF: Format = Format { precision: 11, exponent_bits: 5 };
pub const BFLOAT: Format = Format { precision: 8, exponent_bits: 8 };
pub const SINGLE: Format = Format { precision: 24, exponent_bits: 8 };
pub const DOUBLE: Format = Format { precision: 53, exponent_bits: 11 };

/// Direction of rounding.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Round {
    /// To nearest, ties to even.
    Nearest,
    /// To nearest, ties away from zero.
    NearestAway,
    /// Towards zero.
    Zero,
    /// Towards minus infinity.
    Down,
    /// Towards plus infinity.
    Up,
}

impl Round {
    /// The modes of arithmetic with PTX's names.
    pub const NAMED: [(&'static str, Round); 4] =
        [("rn", Round::Nearest), ("rz", Round::Zero), ("rm", Round::Down), ("rp", Round::Up)];
}

/// An exact value: a finite one is `±mantissa * 2^exponent`, plus something below the mantissa's last bit when `sticky`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Number {
    Nan,
    Infinite { negative: bool },
    Finite { negative: bool, mantissa: u128, exponent: i32, sticky: bool },
}

use Number::{Finite, Infinite, Nan};

impl Format {
    fn bias(self) -> i32 {
        (1 << (self.exponent_bits - 1)) - 1
    }

    fn fraction_bits(self) -> u32 {
        self.precision - 1
    }

    /// The bit of the sign.
    pub fn sign_bit(self) -> u64 {
        1 << (self.fraction_bits() + self.exponent_bits)
    }

    /// The bits of infinity, positive.
    pub fn infinity(self) -> u64 {
        ((1 << self.exponent_bits) - 1) << self.fraction_bits()
    }

    /// Some NaN; tests treat all NaNs of a result as equal.
    pub fn nan(self) -> u64 {
        self.sign_bit() - 1
    }

    pub fn is_nan(self, bits: u64) -> bool {
        bits & (self.sign_bit() - 1) > self.infinity()
    }

    /// The value of a bit pattern; with `flush`, subnormals are zero.
    pub fn decode(self, bits: u64, flush: bool) -> Number {
        let negative = bits & self.sign_bit() != 0;
        let fraction = u128::from(bits & ((1 << self.fraction_bits()) - 1));
        let biased = (bits >> self.fraction_bits()) as i32 & ((1 << self.exponent_bits) - 1);
        if biased == (1 << self.exponent_bits) - 1 {
            return if fraction == 0 { Infinite { negative } } else { Nan };
        }
        let lowest = 1 - self.bias() - self.fraction_bits() as i32;
        if biased == 0 {
            let mantissa = if flush { 0 } else { fraction };
            return Finite { negative, mantissa, exponent: lowest, sticky: false };
        }
        let mantissa = fraction | 1 << self.fraction_bits();
        Finite { negative, mantissa, exponent: lowest + biased - 1, sticky: false }
    }

    /// Rounds to this format; with `flush`, a subnormal result becomes zero.
    pub fn encode(self, value: Number, round: Round, flush: bool) -> u64 {
        let (negative, mantissa, exponent, sticky) = match value {
            Nan => return self.nan(),
            Infinite { negative } => return self.infinity() | if negative { self.sign_bit() } else { 0 },
            Finite { negative, mantissa, exponent, sticky } => (negative, mantissa, exponent, sticky),
        };
        let sign = if negative { self.sign_bit() } else { 0 };
        if mantissa == 0 && !sticky {
            return sign;
        }
        // The weight of the result's last bit: set by the precision, but never below that of the subnormals.
        let lowest = 1 - self.bias() - self.fraction_bits() as i32;
        let top = 127 - mantissa.leading_zeros() as i32 + exponent;
        let last = (top - self.fraction_bits() as i32).max(lowest);
        let shift = last - exponent;
        let (mut kept, half, below) = if shift <= 0 {
            assert!(!sticky, "a value with cut-off bits must have more bits than the format");
            (mantissa << -shift, false, false)
        } else if shift > 127 {
            (0, false, true)
        } else {
            let below = mantissa & ((1 << (shift - 1)) - 1) != 0 || sticky;
            (mantissa >> shift, mantissa >> (shift - 1) & 1 == 1, below)
        };
        let up = match round {
            Round::Nearest => half && (below || kept & 1 == 1),
            Round::NearestAway => half,
            Round::Zero => false,
            Round::Down => negative && (half || below),
            Round::Up => !negative && (half || below),
        };
        kept += u128::from(up);
        let mut last = last;
        if kept >> self.precision != 0 {
            kept >>= 1;
            last += 1;
        }
        if kept >> self.fraction_bits() == 0 {
            return sign | if flush { 0 } else { kept as u64 };
        }
        let biased = last - lowest + 1;
        if biased >= (1 << self.exponent_bits) - 1 {
            let to_infinity = match round {
                Round::Nearest | Round::NearestAway => true,
                Round::Zero => false,
                Round::Down => negative,
                Round::Up => !negative,
            };
            return sign | if to_infinity { self.infinity() } else { self.infinity() - 1 };
        }
        sign | (biased as u64) << self.fraction_bits() | (kept as u64 & ((1 << self.fraction_bits()) - 1))
    }
}

/// A whole number.
pub fn integer(value: i128) -> Number {
    Finite { negative: value < 0, mantissa: value.unsigned_abs(), exponent: 0, sticky: false }
}

pub fn negate(a: Number) -> Number {
    match a {
        Nan => Nan,
        Infinite { negative } => Infinite { negative: !negative },
        Finite { negative, mantissa, exponent, sticky } => Finite { negative: !negative, mantissa, exponent, sticky },
    }
}

/// The product, exact.
pub fn multiply(a: Number, b: Number) -> Number {
    let sign = |x: Number| matches!(x, Infinite { negative: true } | Finite { negative: true, .. });
    let negative = sign(a) != sign(b);
    match (a, b) {
        (Nan, _) | (_, Nan) => Nan,
        (Finite { mantissa: x, exponent: p, .. }, Finite { mantissa: y, exponent: q, .. }) => {
            Finite { negative, mantissa: x * y, exponent: p + q, sticky: false }
        }
        (Infinite { .. }, Finite { mantissa: 0, .. }) | (Finite { mantissa: 0, .. }, Infinite { .. }) => Nan,
        _ => Infinite { negative },
    }
}

/// The sum; an exact zero from opposite signs takes the sign that the rounding gives it.
pub fn add(a: Number, b: Number, round: Round) -> Number {
    let (x, y) = match (a, b) {
        (Nan, _) | (_, Nan) => return Nan,
        (Infinite { negative: p }, Infinite { negative: q }) => return if p == q { a } else { Nan },
        (Infinite { .. }, _) => return a,
        (_, Infinite { .. }) => return b,
        (
            Finite { negative: p, mantissa: x, exponent: e, .. },
            Finite { negative: q, mantissa: y, exponent: f, .. },
        ) => {
            if x == 0 && y == 0 {
                let negative = if p == q { p } else { round == Round::Down };
                return Finite { negative, mantissa: 0, exponent: 0, sticky: false };
            }
            if x == 0 {
                return b;
            }
            if y == 0 {
                return a;
            }
            // Both get their top bit at the same place, with room for a carry; the larger one first.
            let lift = |m: u128, e: i32| (m << (m.leading_zeros() - 2), e - (m.leading_zeros() as i32 - 2));
            let ((x, e), (y, f)) = (lift(x, e), lift(y, f));
            if (e, x) >= (f, y) { ((p, x, e), (q, y, f)) } else { ((q, y, f), (p, x, e)) }
        }
    };
    let ((p, x, e), (q, y, f)) = (x, y);
    let shift = (e - f) as u32;
    let (moved, sticky) = if shift > 127 { (0, true) } else { (y >> shift, y & ((1u128 << shift) - 1) != 0) };
    let mantissa = if p == q { x + moved } else { x - moved - u128::from(sticky) };
    let negative = if mantissa == 0 && !sticky { round == Round::Down } else { p };
    Finite { negative, mantissa, exponent: e, sticky }
}

/// The quotient, to more bits than any format has.
pub fn divide(a: Number, b: Number) -> Number {
    let sign = |x: Number| matches!(x, Infinite { negative: true } | Finite { negative: true, .. });
    let negative = sign(a) != sign(b);
    match (a, b) {
        (Nan, _) | (_, Nan) | (Infinite { .. }, Infinite { .. }) => Nan,
        (Finite { mantissa: 0, .. }, Finite { mantissa: 0, .. }) => Nan,
        (Infinite { .. }, _) | (_, Finite { mantissa: 0, .. }) => Infinite { negative },
        (_, Infinite { .. }) | (Finite { mantissa: 0, .. }, _) => {
            Finite { negative, mantissa: 0, exponent: 0, sticky: false }
        }
        (Finite { mantissa: x, exponent: p, .. }, Finite { mantissa: y, exponent: q, .. }) => {
            let lift = x.leading_zeros();
            let x = x << lift;
            Finite { negative, mantissa: x / y, exponent: p - lift as i32 - q, sticky: x % y != 0 }
        }
    }
}

/// The square root, to more bits than any format has.
pub fn square_root(a: Number) -> Number {
    match a {
        Finite { negative: true, mantissa: 1.., .. } | Infinite { negative: true } | Nan => Nan,
        Infinite { .. } | Finite { mantissa: 0, .. } => a,
        Finite { mantissa, exponent, .. } => {
            // An even exponent, and as many bits as fit.
            let mut lift = mantissa.leading_zeros() as i32 - 1;
            if (exponent - lift) % 2 != 0 {
                lift -= 1;
            }
            let x = mantissa << lift;
            let root = x.isqrt();
            Finite { negative: false, mantissa: root, exponent: (exponent - lift) / 2, sticky: root * root != x }
        }
    }
}

/// Nearest whole number in a direction, as a number of the same sign (so that zero keeps its sign).
pub fn to_integral(a: Number, round: Round) -> Number {
    let Finite { negative, mantissa, exponent, .. } = a else { return a };
    if exponent >= 0 || mantissa == 0 {
        return a;
    }
    let shift = -exponent as u32;
    let (kept, half, below) = if shift > 127 {
        (0, false, true)
    } else {
        let below = mantissa & ((1 << (shift - 1)) - 1) != 0;
        (mantissa >> shift, mantissa >> (shift - 1) & 1 == 1, below)
    };
    let up = match round {
        Round::Nearest => half && (below || kept & 1 == 1),
        Round::NearestAway => half,
        Round::Zero => false,
        Round::Down => negative && (half || below),
        Round::Up => !negative && (half || below),
    };
    Finite { negative, mantissa: kept + u128::from(up), exponent: 0, sticky: false }
}

/// The double nearest to a value; for comparisons with a bound.
pub fn approximately(a: Number) -> f64 {
    f64::from_bits(DOUBLE.encode(a, Round::Nearest, false))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The host's own arithmetic rounds to nearest: ours must agree with it on all sorts of values.
    #[test]
    fn agrees_with_the_host_to_nearest() {
        let mut state = 7u64;
        let mut next = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 32) as u32
        };
        let same = |ours: u64, host: f32, what: &str| {
            let equal = ours == u64::from(host.to_bits()) || (SINGLE.is_nan(ours) && host.is_nan());
            assert!(equal, "{what}: {ours:x} but {:x}", host.to_bits());
        };
        for _ in 0..100_000 {
            let (a, b, c) = (f32::from_bits(next()), f32::from_bits(next()), f32::from_bits(next()));
            let b = if next() % 2 == 0 { b } else { f32::from_bits(a.to_bits() ^ next() >> 9) };
            let number = |x: f32| SINGLE.decode(u64::from(x.to_bits()), false);
            let (x, y, z) = (number(a), number(b), number(c));
            let nearest = |v| SINGLE.encode(v, Round::Nearest, false);
            same(nearest(add(x, y, Round::Nearest)), a + b, "sum");
            same(nearest(add(x, negate(y), Round::Nearest)), a - b, "difference");
            same(nearest(multiply(x, y)), a * b, "product");
            same(nearest(divide(x, y)), a / b, "quotient");
            same(nearest(square_root(x)), a.sqrt(), "root");
            same(nearest(add(multiply(x, y), z, Round::Nearest)), a.mul_add(b, c), "fma");
            same(nearest(to_integral(x, Round::Nearest)), a.round_ties_even(), "whole");
            assert_eq!(DOUBLE.encode(x, Round::Nearest, false) << 1 > DOUBLE.infinity() << 1, a.is_nan());
        }
    }
}
