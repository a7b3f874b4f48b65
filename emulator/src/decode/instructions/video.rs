//! Arithmetic on the bytes or halves of a word: `vabsdiff4` and its kin, as the SIMD intrinsics of CUDA C++ emit them.

use super::Reader;
use crate::decode::builder::{Builder, Decoded};
use crate::decode::op::Op;
use crate::decode::types::Type;
use crate::machine::lanes::{Extra, ternary};

const OPERATIONS: [&str; 6] = ["vadd", "vsub", "vavrg", "vabsdiff", "vmin", "vmax"];

/// `x`: operation, elements (2 or 4), signs of d, a and b, `.sat`, `.add`.
#[inline(always)]
fn apply(e: Extra, a: u32, b: u32, c: u32) -> u32 {
    let flag = |bit: u32| e.x >> bit & 1 != 0;
    let (operation, count) = (e.x & 7, (e.x >> 4 & 7) as u32);
    let bits = 32 / count;
    let mask = u32::MAX >> (32 - bits);
    let element = |word: u32, i: u32, signed: bool| {
        let low = word >> (i * bits) & mask;
        if signed { i64::from((low << (32 - bits)) as i32 >> (32 - bits)) } else { i64::from(low) }
    };
    let (mut merged, mut sum) = (0, c);
    for i in 0..count {
        let (x, y) = (element(a, i, flag(9)), element(b, i, flag(10)));
        let value = match operation {
            0 => x + y,
            1 => x - y,
            2 => (x + y + 1) >> 1,
            3 => (x - y).abs(),
            4 => x.min(y),
            _ => x.max(y),
        };
        let (least, most) =
            if flag(8) { (-1i64 << (bits - 1), (1i64 << (bits - 1)) - 1) } else { (0, i64::from(mask)) };
        let value = if flag(11) { value.clamp(least, most) } else { value };
        merged |= (value as u32 & mask) << (i * bits);
        sum = sum.wrapping_add(value as u32);
    }
    if flag(12) { sum } else { merged }
}

pub fn decode<'a>(b: &mut Builder<'a, '_>, mut r: Reader<'a, '_>) -> Decoded {
    let base = r.base();
    let count = match base.as_bytes().last() {
        Some(b'2') => 2u64,
        Some(b'4') => 4,
        _ => return r.refuse(b),
    };
    let Some(operation) = OPERATIONS.iter().position(|name| *name == &base[..base.len() - 1]) else {
        return r.refuse(b);
    };
    let (saturate, add) = (r.has("sat"), r.has("add"));
    let [d, left, right] = r.types()[..] else { return b.error("three types must be given") };
    let t = Type::B32;
    let op = super::simple(b, &r, ternary(apply), t, &[t; 3])?;
    let flags = [d.is_signed(), left.is_signed(), right.is_signed(), saturate, add];
    let flags = flags.iter().enumerate().fold(0, |bits, (i, flag)| bits | u64::from(*flag) << (8 + i));
    b.emit(Op { x: operation as u64 | count << 4 | flags, ..op });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arith::approx::Perturbation;

    #[test]
    fn elements_do_not_touch_each_other() {
        let run = |x, a, b, c| apply(Extra { x, y: 0, perturbation: Perturbation::NONE }, a, b, c);
        assert_eq!(run(3 | 4 << 4, 0x01FF_0005, 0x0300_0502, 9), 0x02FF_0503);
        assert_eq!(run(3 | 4 << 4 | 1 << 12, 0x01FF_0005, 0x0300_0502, 9), 9 + 2 + 255 + 5 + 3);
        assert_eq!(run(3 | 2 << 4 | 3 << 9, 0xFFFF_0005, 0x0001_0007, 0), 0x0002_0002);
        assert_eq!(run(4 << 4 | 1 << 11, 0x80FF_0102, 0x8001_0102, 0), 0xFFFF_0204);
    }
}
