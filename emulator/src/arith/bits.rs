//! Shifts, bit fields, counts, byte permutations, three-input logic and small dot products.

/// `shl.b32`; 32 and more give zero.
#[inline(always)]
pub fn shl32(a: u32, amount: u32) -> u32 {
    if amount < 32 { a << amount } else { 0 }
}

/// `shl.b64`.
#[inline(always)]
pub fn shl64(a: u64, amount: u32) -> u64 {
    if amount < 64 { a << amount } else { 0 }
}

/// `shr.u32`, `shr.b32`.
#[inline(always)]
pub fn shr_u32(a: u32, amount: u32) -> u32 {
    if amount < 32 { a >> amount } else { 0 }
}

/// `shr.s32`; 32 and more give the sign.
#[inline(always)]
pub fn shr_s32(a: u32, amount: u32) -> u32 {
    ((a as i32) >> amount.min(31)) as u32
}

/// `shr.u64`, `shr.b64`.
#[inline(always)]
pub fn shr_u64(a: u64, amount: u32) -> u64 {
    if amount < 64 { a >> amount } else { 0 }
}

/// `shr.s64`.
#[inline(always)]
pub fn shr_s64(a: u64, amount: u32) -> u64 {
    ((a as i64) >> amount.min(63)) as u64
}

/// `shl.b16`.
#[inline(always)]
pub fn shl16(a: u16, amount: u32) -> u16 {
    if amount < 16 { a << amount } else { 0 }
}

/// `shr.u16`, `shr.b16`.
#[inline(always)]
pub fn shr_u16(a: u16, amount: u32) -> u16 {
    if amount < 16 { a >> amount } else { 0 }
}

/// `shr.s16`.
#[inline(always)]
pub fn shr_s16(a: u16, amount: u32) -> u16 {
    ((a as i16) >> amount.min(15)) as u16
}

/// `shf.l`: the upper half of `high:low << amount`, the amount clamped to 32 or taken modulo 32.
#[inline(always)]
pub fn funnel_left(low: u32, high: u32, amount: u32, wrap: bool) -> u32 {
    let amount = if wrap { amount & 31 } else { amount.min(32) };
    ((u64::from(high) << 32 | u64::from(low)) << amount >> 32) as u32
}

/// `shf.r`: the lower half of `high:low >> amount`.
#[inline(always)]
pub fn funnel_right(low: u32, high: u32, amount: u32, wrap: bool) -> u32 {
    let amount = if wrap { amount & 31 } else { amount.min(32) };
    ((u64::from(high) << 32 | u64::from(low)) >> amount) as u32
}

/// `bfe` of a type of `width` bits (32 or 64): `length` bits from `position`, sign-extended if `signed`. Bits beyond
/// the top read as the sign (signed) or zero.
#[inline(always)]
pub fn extract(a: u64, position: u32, length: u32, width: u32, signed: bool) -> u64 {
    let (position, length) = (position & 0xff, length & 0xff);
    if length == 0 {
        return 0;
    }
    let mask = if width == 64 { !0 } else { (1 << width) - 1 };
    let a = a & mask;
    let fill = signed && a >> (position + length - 1).min(width - 1) & 1 == 1;
    let field = if position < width { a >> position } else { 0 };
    let valid = length.min(width.saturating_sub(position));
    let valid_mask = if valid >= 64 { !0 } else { (1u64 << valid) - 1 };
    (field & valid_mask | if fill { !valid_mask } else { 0 }) & mask
}

/// `bfi` of a type of `width` bits: `length` bits of `a` put into `b` at `position`.
#[inline(always)]
pub fn insert(a: u64, b: u64, position: u32, length: u32, width: u32) -> u64 {
    let (position, length) = (position & 0xff, length & 0xff);
    if position >= width || length == 0 {
        return b;
    }
    let length = length.min(width - position);
    let mask = if length >= 64 { !0 } else { (1u64 << length) - 1 } << position;
    b & !mask | a << position & mask
}

/// `bfind` of 32 bits: place of the highest bit that differs from the sign; all ones if there is none. With `shift`
/// (`.shiftamt`): how far left it must be shifted to get to the top.
#[inline(always)]
pub fn find32(a: u32, signed: bool, shift: bool) -> u32 {
    let a = if signed && (a as i32) < 0 { !a } else { a };
    if a == 0 {
        !0
    } else if shift {
        a.leading_zeros()
    } else {
        31 - a.leading_zeros()
    }
}

/// `bfind` of 64 bits.
#[inline(always)]
pub fn find64(a: u64, signed: bool, shift: bool) -> u32 {
    let a = if signed && (a as i64) < 0 { !a } else { a };
    if a == 0 {
        !0
    } else if shift {
        a.leading_zeros()
    } else {
        63 - a.leading_zeros()
    }
}

/// `fns`: place of the `offset`-th set bit of `mask`, upwards from `base` or, with a negative offset, downwards. Offset
/// 0 asks whether the bit at `base` itself is set. All ones if there is no such bit.
#[inline]
pub fn find_nth_set(mask: u32, base: u32, offset: i32) -> u32 {
    let set = |place: i64| (0..32).contains(&place) && mask >> place & 1 == 1;
    let base = i64::from(base);
    if offset == 0 {
        return if set(base) { base as u32 } else { !0 };
    }
    let mut left = offset.unsigned_abs();
    let mut place = base;
    while (0..32).contains(&place) {
        if set(place) {
            left -= 1;
            if left == 0 {
                return place as u32;
            }
        }
        place += i64::from(offset.signum());
    }
    !0
}

/// `szext`: the low `bits` of `a`, extended. The count is clamped to 32 or taken modulo 32.
#[inline(always)]
pub fn extend(a: u32, bits: u32, signed: bool, wrap: bool) -> u32 {
    let bits = if wrap { bits & 31 } else { bits.min(32) };
    if bits == 0 {
        return 0;
    }
    let unused = 32 - bits;
    if signed { ((a << unused) as i32 >> unused) as u32 } else { a << unused >> unused }
}

/// `bmsk`: `length` ones from `position` up.
#[inline(always)]
pub fn mask(position: u32, length: u32, wrap: bool) -> u32 {
    let (position, length) = if wrap { (position & 31, length & 31) } else { (position.min(32), length.min(32)) };
    (((1u64 << length) - 1) << position) as u32
}

/// How `prmt` reads its selector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Permute {
    /// Four 4-bit selectors; their top bit replicates the byte's sign.
    Index,
    /// `.f4e`.
    Forward4,
    /// `.b4e`.
    Backward4,
    /// `.rc8`.
    Replicate8,
    /// `.ecl`.
    EdgeLeft,
    /// `.ecr`.
    EdgeRight,
    /// `.rc16`.
    Replicate16,
}

/// `prmt`: four bytes chosen from the eight of `a` (0 to 3) and `b` (4 to 7).
#[inline(always)]
pub fn permute(a: u32, b: u32, selector: u32, mode: Permute) -> u32 {
    let s = selector & 3;
    // One selector of 4 bits for each byte, the lowest byte's in the low bits.
    let indices = match mode {
        Permute::Index => selector & 0xffff,
        Permute::Forward4 => 0x3210 + 0x1111 * s,
        Permute::Backward4 => [0x5670, 0x6701, 0x7012, 0x0123][s as usize],
        Permute::Replicate8 => 0x1111 * s,
        Permute::EdgeLeft => [0x3210, 0x3211, 0x3222, 0x3333][s as usize],
        Permute::EdgeRight => [0x0000, 0x1110, 0x2210, 0x3210][s as usize],
        Permute::Replicate16 => [0x1010, 0x3232][(s & 1) as usize],
    };
    let bytes = u64::from(b) << 32 | u64::from(a);
    let pick = |i: u32| {
        let index = indices >> (4 * i) & 0xf;
        let byte = (bytes >> (8 * (index & 7))) as u8;
        let byte = if index & 8 != 0 { ((byte as i8) >> 7) as u8 } else { byte };
        u32::from(byte) << (8 * i)
    };
    pick(0) | pick(1) | pick(2) | pick(3)
}

/// `lop3`: bit by bit, the truth table `table` of (`a`, `b`, `c`), `a` the most significant of its index.
#[inline(always)]
pub fn logic3(a: u32, b: u32, c: u32, table: u8) -> u32 {
    let row = |index: u8, a: u32, b: u32, c: u32| if table >> index & 1 == 1 { a & b & c } else { 0 };
    row(0, !a, !b, !c)
        | row(1, !a, !b, c)
        | row(2, !a, b, !c)
        | row(3, !a, b, c)
        | row(4, a, !b, !c)
        | row(5, a, !b, c)
        | row(6, a, b, !c)
        | row(7, a, b, c)
}

/// The value of byte `index` of `word`.
#[inline(always)]
fn byte(word: u32, index: u32, signed: bool) -> i32 {
    let byte = (word >> (8 * index)) as u8;
    if signed { i32::from(byte as i8) } else { i32::from(byte) }
}

/// The value of half-word `index` of `word`.
#[inline(always)]
fn half_word(word: u32, index: u32, signed: bool) -> i32 {
    let half = (word >> (16 * index)) as u16;
    if signed { i32::from(half as i16) } else { i32::from(half) }
}

/// `dp4a`: `c` plus the dot product of four bytes with four bytes.
#[inline(always)]
pub fn dot4(a: u32, b: u32, c: u32, a_signed: bool, b_signed: bool) -> u32 {
    (0..4).fold(c, |sum, i| sum.wrapping_add((byte(a, i, a_signed) * byte(b, i, b_signed)) as u32))
}

/// `dp2a`: `c` plus the dot product of the two half-words of `a` with the lower or upper two bytes of `b`.
#[inline(always)]
pub fn dot2(a: u32, b: u32, c: u32, a_signed: bool, b_signed: bool, upper: bool) -> u32 {
    let first = if upper { 2 } else { 0 };
    (0..2)
        .fold(c, |sum, i| sum.wrapping_add(half_word(a, i, a_signed).wrapping_mul(byte(b, first + i, b_signed)) as u32))
}
