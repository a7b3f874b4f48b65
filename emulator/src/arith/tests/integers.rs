//! Integers against 128-bit arithmetic and bit-by-bit definitions.

use super::Source;
use crate::arith::bits::{self, Permute};
use crate::arith::integer::{self, Integer};

/// The low bits of an exact result, as the type holds them.
fn wrapped<T: Integer>(value: i128) -> T {
    T::from_bits(value as u64)
}

fn arithmetic<T: Integer + std::fmt::Debug>(rounds: u32)
where
    T::Wide: std::fmt::Debug,
{
    let mut source = Source::new(T::BITS.into());
    for _ in 0..rounds {
        let [a, b, c] = std::array::from_fn(|_| T::from_bits(source.long() >> (source.next() % 64)));
        let (x, y, z) = (a.wide(), b.wide(), c.wide());
        assert_eq!(a.add(b), wrapped(x + y));
        assert_eq!(a.sub(b), wrapped(x - y));
        assert_eq!(a.neg(), wrapped(-x));
        assert_eq!(a.abs(), wrapped(x.abs()));
        assert_eq!(a.add_sat(b), T::clamp_from(x + y));
        assert_eq!(a.sub_sat(b), T::clamp_from(x - y));
        // 64-bit unsigned products need all 128 bits: they are compared without their sign.
        let product = if T::SIGNED { (x * y) as u128 } else { (x as u128).wrapping_mul(y as u128) };
        assert_eq!(a.mul_lo(b), T::from_bits(product as u64));
        assert_eq!(a.mul_hi(b), T::from_bits((product >> T::BITS) as u64), "{a:?} {b:?}");
        assert_eq!(a.mul_wide(b), T::Wide::from_bits(product as u64));
        assert_eq!(integer::mad_lo(a, b, c), T::from_bits((product as u64).wrapping_add(z as u64)));
        assert_eq!(integer::sad(a, b, c), wrapped(z + (x - y).abs()));
        if y != 0 {
            assert_eq!(a.div(b), wrapped(x / y));
            assert_eq!(a.rem(b), wrapped(x % y));
        }
    }
    let zero = T::from_bits(0);
    assert_eq!(T::from_bits(7).div(zero), T::from_bits(!0));
    assert_eq!(T::from_bits(7).rem(zero), T::from_bits(7));
}

#[test]
fn every_width_agrees_with_wide_integers() {
    arithmetic::<u8>(20_000);
    arithmetic::<i8>(20_000);
    arithmetic::<u16>(20_000);
    arithmetic::<i16>(20_000);
    arithmetic::<u32>(50_000);
    arithmetic::<i32>(50_000);
    arithmetic::<u64>(50_000);
    arithmetic::<i64>(50_000);
}

#[test]
fn registers_extend_by_the_sign_of_the_type() {
    assert_eq!((-1i8).bits(), !0);
    assert_eq!(0xffu8.bits(), 0xff);
    assert_eq!(i16::from_bits(0x1_8000).bits(), 0xffff_ffff_ffff_8000);
}

#[test]
fn products_of_24_bits() {
    let mut source = Source::new(24);
    for _ in 0..50_000 {
        let [a, b, c] = std::array::from_fn(|_| source.word());
        let signed = |x: u32| i128::from(x & 0xff_ffff) - if x & 0x80_0000 != 0 { 1 << 24 } else { 0 };
        let product = signed(a) * signed(b);
        assert_eq!(integer::mul24_lo(a, b, true), product as u32);
        assert_eq!(integer::mul24_hi(a, b, true), (product >> 16) as u32);
        let sum = i128::from((product >> 16) as i32) + i128::from(c as i32);
        assert_eq!(integer::mad24_hi_sat(a, b, c), i32::clamp_from(sum) as u32);
        let product = u64::from(a & 0xff_ffff) * u64::from(b & 0xff_ffff);
        assert_eq!(integer::mul24_hi(a, b, false), (product >> 16) as u32);
        let high = (i128::from(a as i32) * i128::from(b as i32)) >> 32;
        assert_eq!(integer::mad_hi_sat(a as i32, b as i32, c as i32), i32::clamp_from(high + i128::from(c as i32)));
    }
}

#[test]
fn carries_chain_into_wide_sums() {
    let mut source = Source::new(3);
    for _ in 0..20_000 {
        let (a, b) = (source.long(), source.long());
        let (low, carry) = integer::add_carry32(a as u32, b as u32, false);
        let (high, out) = integer::add_carry32((a >> 32) as u32, (b >> 32) as u32, carry);
        assert_eq!((u64::from(high) << 32 | u64::from(low), out), a.overflowing_add(b));
        let (low, borrow) = integer::sub_borrow32(a as u32, b as u32, false);
        let (high, out) = integer::sub_borrow32((a >> 32) as u32, (b >> 32) as u32, borrow);
        assert_eq!((u64::from(high) << 32 | u64::from(low), out), a.overflowing_sub(b));
        let (c, d) = (source.long(), source.long());
        let wide = |high: u64, low: u64| u128::from(high) << 64 | u128::from(low);
        let (low, carry) = integer::add_carry64(a, b, false);
        let high = integer::add_carry64(c, d, carry).0;
        assert_eq!(wide(high, low), wide(c, a).wrapping_add(wide(d, b)));
        let (low, borrow) = integer::sub_borrow64(a, b, false);
        let high = integer::sub_borrow64(c, d, borrow).0;
        assert_eq!(wide(high, low), wide(c, a).wrapping_sub(wide(d, b)));
    }
}

#[test]
fn shifts_beyond_the_width() {
    for amount in 0..70 {
        let a = 0x9234_5678_9abc_def1u64;
        let (low, high) = (a as u32, (a >> 32) as u32);
        assert_eq!(u128::from(bits::shl64(a, amount)), u128::from(a) << amount & u128::from(u64::MAX));
        assert_eq!(u128::from(bits::shr_u64(a, amount)), u128::from(a) >> amount);
        assert_eq!(bits::shr_s64(a, amount), (i128::from(a as i64) >> amount) as u64);
        assert_eq!(u128::from(bits::shl32(low, amount)), u128::from(low) << amount & 0xffff_ffff);
        assert_eq!(u128::from(bits::shr_u32(low, amount)), u128::from(low) >> amount);
        assert_eq!(bits::shr_s32(low, amount), (i128::from(low as i32) >> amount) as u32);
        assert_eq!(u128::from(bits::shl16(low as u16, amount)), u128::from(low as u16) << amount & 0xffff);
        assert_eq!(u128::from(bits::shr_u16(low as u16, amount)), u128::from(low as u16) >> amount);
        assert_eq!(bits::shr_s16(low as u16, amount), (i128::from(low as i16) >> amount) as u16);
        let clamped = amount.min(32);
        assert_eq!(bits::funnel_left(low, high, amount, false), ((u128::from(a) << clamped) >> 32) as u32);
        assert_eq!(bits::funnel_right(low, high, amount, false), (u128::from(a) >> clamped) as u32);
        assert_eq!(bits::funnel_left(low, high, amount, true), ((u128::from(a) << (amount % 32)) >> 32) as u32);
        assert_eq!(bits::funnel_right(low, high, amount, true), (u128::from(a) >> (amount % 32)) as u32);
    }
}

/// The manual's loop over bits.
fn extract_by_bit(a: u64, position: u32, length: u32, width: u32, signed: bool) -> u64 {
    let top = width - 1;
    let sign = signed && length > 0 && a >> (position + length).saturating_sub(1).min(top) & 1 == 1;
    (0..width).fold(0, |d, i| {
        let bit = if i < length && position + i <= top { a >> (position + i) & 1 == 1 } else { sign };
        d | u64::from(bit) << i
    })
}

#[test]
fn fields_bit_by_bit() {
    let a = 0x8421_f00d_9abc_def1u64;
    let b = 0x0123_4567_89ab_cdefu64;
    for width in [32, 64] {
        let fit = |x: u64| if width == 32 { x & 0xffff_ffff } else { x };
        for position in (0..70).chain([255, 256]) {
            for length in (0..70).chain([255, 256, 300]) {
                for signed in [false, true] {
                    let expected = extract_by_bit(fit(a), position & 255, length & 255, width, signed);
                    let got = bits::extract(fit(a), position, length, width, signed);
                    assert_eq!(got, expected, "{position} {length} {width} {signed}");
                }
                let (p, l) = (position & 255, length & 255);
                let expected = (0..l)
                    .filter(|i| p + i < width)
                    .fold(fit(b), |f, i| f & !(1 << (p + i)) | (fit(a) >> i & 1) << (p + i));
                assert_eq!(bits::insert(fit(a), fit(b), position, length, width), expected, "{position} {length}");
            }
        }
    }
}

#[test]
fn places_of_bits() {
    assert_eq!(bits::find32(0, false, false), !0);
    assert_eq!(bits::find32(!0, true, false), !0);
    assert_eq!(bits::find64(!0, true, true), !0);
    for place in 0..32 {
        let a = 1u32 << place;
        assert_eq!(bits::find32(a, false, false), place);
        assert_eq!(bits::find32(a, false, true), 31 - place);
        if place < 31 {
            assert_eq!(bits::find32(!a, true, false), place);
        }
        assert_eq!(bits::find64(u64::from(a) << 32, false, false), place + 32);
        assert_eq!(bits::find64(u64::from(a), true, true), 63 - place);
    }
    // Set bits of 0b1011_0010: 1, 4, 5, 7.
    let mask = 0b1011_0010;
    assert_eq!(bits::find_nth_set(mask, 0, 1), 1);
    assert_eq!(bits::find_nth_set(mask, 4, 2), 5);
    assert_eq!(bits::find_nth_set(mask, 7, -3), 4);
    assert_eq!(bits::find_nth_set(mask, 4, 0), 4);
    assert_eq!(bits::find_nth_set(mask, 3, 0), !0);
    assert_eq!(bits::find_nth_set(mask, 6, 2), !0);
    assert_eq!(bits::find_nth_set(mask, 40, 1), !0);
}

#[test]
fn extensions_and_masks() {
    for count in 0..40 {
        let clamped = count.min(32);
        let a = 0xdead_beef_u32;
        let unsigned = (u64::from(a) & ((1 << clamped) - 1)) as u32;
        assert_eq!(bits::extend(a, count, false, false), unsigned);
        let negative = clamped > 0 && a >> (clamped - 1) & 1 == 1;
        let signed = i64::from(unsigned) - if negative { 1 << clamped } else { 0 };
        assert_eq!(bits::extend(a, count, true, false), signed as u32);
        for position in 0..40 {
            let ones = ((1u128 << clamped) - 1) << position.min(32);
            assert_eq!(bits::mask(position, count, false), ones as u32);
            let ones = ((1u128 << (count % 32)) - 1) << (position % 32);
            assert_eq!(bits::mask(position, count, true), ones as u32);
        }
    }
}

#[test]
fn permutations_follow_the_manuals_table() {
    let (a, b) = (0x8302_0100, 0x0786_0504); // byte i holds i; bytes 3 and 6 are negative
    // Mode, selector, bytes from the highest to the lowest.
    let table: [(Permute, u32, [u8; 4]); 22] = [
        (Permute::Forward4, 0, [3, 2, 1, 0]),
        (Permute::Forward4, 1, [4, 3, 2, 1]),
        (Permute::Forward4, 2, [5, 4, 3, 2]),
        (Permute::Forward4, 3, [6, 5, 4, 3]),
        (Permute::Backward4, 0, [5, 6, 7, 0]),
        (Permute::Backward4, 1, [6, 7, 0, 1]),
        (Permute::Backward4, 2, [7, 0, 1, 2]),
        (Permute::Backward4, 3, [0, 1, 2, 3]),
        (Permute::Replicate8, 2, [2, 2, 2, 2]),
        (Permute::Replicate8, 7, [3, 3, 3, 3]),
        (Permute::EdgeLeft, 0, [3, 2, 1, 0]),
        (Permute::EdgeLeft, 1, [3, 2, 1, 1]),
        (Permute::EdgeLeft, 2, [3, 2, 2, 2]),
        (Permute::EdgeLeft, 3, [3, 3, 3, 3]),
        (Permute::EdgeRight, 0, [0, 0, 0, 0]),
        (Permute::EdgeRight, 1, [1, 1, 1, 0]),
        (Permute::EdgeRight, 2, [2, 2, 1, 0]),
        (Permute::EdgeRight, 3, [3, 2, 1, 0]),
        (Permute::Replicate16, 0, [1, 0, 1, 0]),
        (Permute::Replicate16, 1, [3, 2, 3, 2]),
        (Permute::Replicate16, 2, [1, 0, 1, 0]),
        (Permute::Index, 0x7610, [7, 6, 1, 0]),
    ];
    for (mode, selector, places) in table {
        let value = |place: u8| place | if place == 3 || place == 6 { 0x80 } else { 0 };
        assert_eq!(bits::permute(a, b, selector, mode), u32::from_be_bytes(places.map(value)), "{mode:?} {selector}");
    }
    assert_eq!(bits::permute(a, b, 0xbac3, Permute::Index), 0xff00_0083);
}

#[test]
fn logic_of_three_by_truth_table() {
    for table in 0..=255u8 {
        let got = bits::logic3(0xf0f0_1234, 0xcccc_5678, 0xaaaa_9abc, table);
        let expected = (0..32).fold(0u32, |d, i| {
            let row = (0xf0f0_1234u32 >> i & 1) << 2 | (0xcccc_5678u32 >> i & 1) << 1 | 0xaaaa_9abcu32 >> i & 1;
            d | (u32::from(table) >> row & 1) << i
        });
        assert_eq!(got, expected, "{table:#x}");
    }
    // The manual's recipe for the table: the operation applied to 0xF0, 0xCC, 0xAA.
    assert_eq!(bits::logic3(3, 6, 8, 0xf0 & 0xcc | 0xaa), 10);
}

#[test]
fn small_dot_products() {
    let mut source = Source::new(4);
    let signed = |x: u32, bits: u32| i64::from(x) - if x >> (bits - 1) & 1 == 1 { 1 << bits } else { 0 };
    let value = |x: u32, bits: u32, s: bool| if s { signed(x, bits) } else { i64::from(x) };
    for _ in 0..5_000 {
        let [a, b, c] = std::array::from_fn(|_| source.word());
        for (s, t) in [(false, false), (false, true), (true, false), (true, true)] {
            let byte = |x: u32, i: usize, s| value(x.to_le_bytes()[i].into(), 8, s);
            let four = (0..4).map(|i| byte(a, i, s) * byte(b, i, t)).sum::<i64>();
            assert_eq!(bits::dot4(a, b, c, s, t), (i64::from(c) + four) as u32);
            for (upper, first) in [(false, 0), (true, 2)] {
                let half = |i: usize| value(a >> (16 * i) & 0xffff, 16, s);
                let two = (0..2).map(|i| half(i) * byte(b, first + i, t)).sum::<i64>();
                assert_eq!(bits::dot2(a, b, c, s, t, upper), (i64::from(c) + two) as u32);
            }
        }
    }
}
