//! Integer arithmetic in every width. Results wrap unless the name says otherwise.

/// An integer type of PTX: `u8` to `i64`, taken from and put back into the low bits of a register.
pub trait Integer: Copy + Ord {
    /// The type of twice the width (`mul.wide`).
    type Wide: Integer;
    /// Bits of the type.
    const BITS: u32;
    /// Whether the type is signed.
    const SIGNED: bool;
    /// From the low bits of a register.
    fn from_bits(bits: u64) -> Self;
    /// Into a register: sign-extended if signed, zero-extended if not.
    fn bits(self) -> u64;
    /// The value.
    fn wide(self) -> i128;
    /// The nearest value of the type.
    fn clamp_from(value: i128) -> Self;
    /// `add`.
    fn add(self, other: Self) -> Self;
    /// `sub`.
    fn sub(self, other: Self) -> Self;
    /// `neg`.
    fn neg(self) -> Self;
    /// `abs`; the least signed value is its own.
    fn abs(self) -> Self;
    /// `add.sat`.
    fn add_sat(self, other: Self) -> Self;
    /// `sub.sat`.
    fn sub_sat(self, other: Self) -> Self;
    /// `mul.lo`.
    fn mul_lo(self, other: Self) -> Self;
    /// `mul.hi`.
    fn mul_hi(self, other: Self) -> Self;
    /// `mul.wide`.
    fn mul_wide(self, other: Self) -> Self::Wide;
    /// `div`; by zero: all bits set, as the hardware's own routine gives.
    fn div(self, other: Self) -> Self;
    /// `rem`; by zero: the dividend.
    fn rem(self, other: Self) -> Self;
}

macro_rules! integer {
    ($type:ty, $wide:ty, $product:ty, $signed:literal, $abs:expr) => {
        impl Integer for $type {
            type Wide = $wide;
            const BITS: u32 = <$type>::BITS;
            const SIGNED: bool = $signed;
            #[inline(always)]
            fn from_bits(bits: u64) -> Self {
                bits as $type
            }
            #[inline(always)]
            fn bits(self) -> u64 {
                self as u64
            }
            #[inline(always)]
            fn wide(self) -> i128 {
                self as i128
            }
            #[inline(always)]
            fn clamp_from(value: i128) -> Self {
                value.clamp(<$type>::MIN as i128, <$type>::MAX as i128) as $type
            }
            #[inline(always)]
            fn add(self, other: Self) -> Self {
                self.wrapping_add(other)
            }
            #[inline(always)]
            fn sub(self, other: Self) -> Self {
                self.wrapping_sub(other)
            }
            #[inline(always)]
            fn neg(self) -> Self {
                self.wrapping_neg()
            }
            #[inline(always)]
            fn abs(self) -> Self {
                let absolute: fn($type) -> $type = $abs;
                absolute(self)
            }
            #[inline(always)]
            fn add_sat(self, other: Self) -> Self {
                self.saturating_add(other)
            }
            #[inline(always)]
            fn sub_sat(self, other: Self) -> Self {
                self.saturating_sub(other)
            }
            #[inline(always)]
            fn mul_lo(self, other: Self) -> Self {
                self.wrapping_mul(other)
            }
            #[inline(always)]
            fn mul_hi(self, other: Self) -> Self {
                ((self as $product * other as $product) >> <$type>::BITS) as $type
            }
            #[inline(always)]
            fn mul_wide(self, other: Self) -> $wide {
                (self as $wide).wrapping_mul(other as $wide)
            }
            #[inline(always)]
            fn div(self, other: Self) -> Self {
                if other == 0 { !0 } else { self.wrapping_div(other) }
            }
            #[inline(always)]
            fn rem(self, other: Self) -> Self {
                if other == 0 { self } else { self.wrapping_rem(other) }
            }
        }
    };
}

// The widest have no wider register: their `mul.wide` does not exist in PTX.
integer!(u8, u16, u16, false, |a| a);
integer!(i8, i16, i16, true, i8::wrapping_abs);
integer!(u16, u32, u32, false, |a| a);
integer!(i16, i32, i32, true, i16::wrapping_abs);
integer!(u32, u64, u64, false, |a| a);
integer!(i32, i64, i64, true, i32::wrapping_abs);
integer!(u64, u64, u128, false, |a| a);
integer!(i64, i64, i128, true, i64::wrapping_abs);

/// `mad.lo`.
#[inline(always)]
pub fn mad_lo<T: Integer>(a: T, b: T, c: T) -> T {
    a.mul_lo(b).add(c)
}

/// `mad.hi`.
#[inline(always)]
pub fn mad_hi<T: Integer>(a: T, b: T, c: T) -> T {
    a.mul_hi(b).add(c)
}

/// `mad.hi.sat.s32`.
#[inline(always)]
pub fn mad_hi_sat(a: i32, b: i32, c: i32) -> i32 {
    a.mul_hi(b).saturating_add(c)
}

/// `mad.wide`.
#[inline(always)]
pub fn mad_wide<T: Integer>(a: T, b: T, c: T::Wide) -> T::Wide {
    a.mul_wide(b).add(c)
}

/// `sad`: `c + |a - b|`, the difference taken without overflow.
#[inline(always)]
pub fn sad<T: Integer>(a: T, b: T, c: T) -> T {
    let difference = if a < b { b.sub(a) } else { a.sub(b) };
    c.add(difference)
}

/// Bits 0 to 47 of the product of two 24-bit numbers.
#[inline(always)]
fn product24(a: u32, b: u32, signed: bool) -> u64 {
    if signed {
        let extend = |x: u32| i64::from((x << 8) as i32 >> 8);
        (extend(a) * extend(b)) as u64
    } else {
        u64::from(a & 0xff_ffff) * u64::from(b & 0xff_ffff)
    }
}

/// `mul24.lo`: bits 0 to 31 of the 48-bit product of the low 24 bits.
#[inline(always)]
pub fn mul24_lo(a: u32, b: u32, signed: bool) -> u32 {
    product24(a, b, signed) as u32
}

/// `mul24.hi`: bits 16 to 47 of that product.
#[inline(always)]
pub fn mul24_hi(a: u32, b: u32, signed: bool) -> u32 {
    (product24(a, b, signed) >> 16) as u32
}

/// `mad24.hi.sat.s32`.
#[inline(always)]
pub fn mad24_hi_sat(a: u32, b: u32, c: u32) -> u32 {
    (mul24_hi(a, b, true) as i32).saturating_add(c as i32) as u32
}

/// `addc`: sum and carry out of 32 bits. `add.cc` is this with no carry in.
#[inline(always)]
pub fn add_carry32(a: u32, b: u32, carry: bool) -> (u32, bool) {
    let sum = u64::from(a) + u64::from(b) + u64::from(carry);
    (sum as u32, sum >> 32 != 0)
}

/// `addc` of 64 bits.
#[inline(always)]
pub fn add_carry64(a: u64, b: u64, carry: bool) -> (u64, bool) {
    let sum = u128::from(a) + u128::from(b) + u128::from(carry);
    (sum as u64, sum >> 64 != 0)
}

/// `subc`: difference and borrow. `CC.CF` is the opposite of the borrow, which is the caller's business.
#[inline(always)]
pub fn sub_borrow32(a: u32, b: u32, borrow: bool) -> (u32, bool) {
    let difference = i64::from(a) - i64::from(b) - i64::from(borrow);
    (difference as u32, difference < 0)
}

/// `subc` of 64 bits.
#[inline(always)]
pub fn sub_borrow64(a: u64, b: u64, borrow: bool) -> (u64, bool) {
    let difference = i128::from(a) - i128::from(b) - i128::from(borrow);
    (difference as u64, difference < 0)
}
