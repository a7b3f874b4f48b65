//! Floats of eight bits.

use crate::case::Kind::*;
use crate::case::{Case, Want, bits_of};
use crate::exact::{HALF, SINGLE, approximately};

/// A format of eight bits.
#[derive(Clone, Copy)]
struct Tiny {
    name: &'static str,
    fraction_bits: u32,
    bias: i32,
    /// The largest number, and its bits.
    largest: (f64, u8),
    /// Whether the highest exponent is that of infinity and NaN alone.
    infinite: bool,
}

const E4M3: Tiny = Tiny { name: "e4m3x2", fraction_bits: 3, bias: 7, largest: (448.0, 0x7e), infinite: false };
const E5M2: Tiny = Tiny { name: "e5m2x2", fraction_bits: 2, bias: 15, largest: (57344.0, 0x7b), infinite: true };

impl Tiny {
    fn value(self, bits: u8) -> f64 {
        let sign = if bits & 0x80 != 0 { -1.0 } else { 1.0 };
        let size = bits & 0x7f;
        let (exponent, fraction) = (i32::from(size >> self.fraction_bits), size & ((1 << self.fraction_bits) - 1));
        let unit = 0.5f64.powi(self.fraction_bits as i32);
        match size {
            _ if size > self.largest.1 && self.infinite && fraction == 0 => sign * f64::INFINITY,
            _ if size > self.largest.1 => f64::NAN,
            _ if exponent == 0 => sign * f64::from(fraction) * unit * 2f64.powi(1 - self.bias),
            _ => sign * (1.0 + f64::from(fraction) * unit) * 2f64.powi(exponent - self.bias),
        }
    }

    /// The nearest number, of two the even one; what is too large becomes the largest.
    fn bits(self, value: f64, relu: bool) -> u8 {
        if value.is_nan() {
            return 0x7f;
        }
        let negative = value.is_sign_negative();
        if relu && negative {
            return 0;
        }
        let size = value.abs().min(self.largest.0);
        let candidates = 0..=self.largest.1;
        let distance = |bits: &u8| (self.value(*bits) - size).abs();
        let nearest = candidates.min_by(|a, b| distance(a).total_cmp(&distance(b)).then((a & 1).cmp(&(b & 1))));
        nearest.expect("there are some") | if negative { 0x80 } else { 0 }
    }
}

pub fn conversions() -> Vec<Case> {
    let mut cases = Vec::new();
    for format in [E4M3, E5M2] {
        let name = format.name;
        for relu in [false, true] {
            let suffix = if relu { ".relu" } else { "" };
            let two = move |high: f64, low: f64| {
                let [high, low] = [high, low].map(|value| u64::from(format.bits(value, relu)));
                Want::Bits(high << 8 | low)
            };
            let single = |bits: u64| approximately(SINGLE.decode(bits, false));
            let signed = move |bits: u64| if bits >> 31 == 1 { -single(bits).abs() } else { single(bits) };
            cases.push(Case::new(
                format!("cvt.rn.satfinite{suffix}.{name}.f32 %d, %a, %b;"),
                &[F32; 2],
                U16,
                move |x| two(signed(x[0]), signed(x[1])),
            ));
            let half = |bits: u64| {
                let value = approximately(HALF.decode(bits & 0xffff, false));
                if bits >> 15 & 1 == 1 { -value.abs() } else { value }
            };
            cases.push(Case::new(format!("cvt.rn.satfinite{suffix}.{name}.f16x2 %d, %a;"), &[F16x2], U16, move |x| {
                two(half(x[0] >> 16), half(x[0]))
            }));
            cases.push(Case::new(format!("cvt.rn{suffix}.f16x2.{name} %d, %a;"), &[U16], F16x2, move |x| {
                let half = |byte: u64| match format.value(byte as u8) {
                    value if value.is_nan() => HALF.nan(),
                    _ if relu && byte & 0x80 != 0 => 0,
                    value => bits_of(F16, value) | (byte & 0x80) << 8,
                };
                Want::Bits(half(x[0] & 0xff) | half(x[0] >> 8) << 16)
            }));
        }
    }
    cases
}
