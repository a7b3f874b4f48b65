//! The elements of loads and stores: how they lie in memory, and in which registers.

use super::lanes::Lane;

/// An element as it lies in memory, and the register that it is loaded into or stored from.
pub trait Element: Copy + 'static {
    /// The register's lane.
    type Register: Lane;
    /// Its bytes.
    const BYTES: u32;
    /// Extended as its type says.
    fn load(bits: u64) -> Self::Register;
    /// The register's low bits.
    fn bits(register: Self::Register) -> u64;
    /// Reads one.
    ///
    /// # Safety
    /// `from` is valid for reads of [`Self::BYTES`] bytes.
    unsafe fn read(from: *const u8) -> Self::Register;
    /// Writes one.
    ///
    /// # Safety
    /// `to` is valid for writes of [`Self::BYTES`] bytes.
    unsafe fn put(to: *mut u8, register: Self::Register);
}

/// An element of memory type `$memory`, in a register of type `$register`.
macro_rules! element {
    ($name:ident, $memory:ty, $register:ty) => {
        #[doc = concat!("`", stringify!($memory), "` in a register of type `", stringify!($register), "`.")]
        #[derive(Clone, Copy, Debug)]
        pub struct $name;
        impl Element for $name {
            type Register = $register;
            const BYTES: u32 = size_of::<$memory>() as u32;
            #[inline(always)]
            fn load(bits: u64) -> $register {
                bits as $memory as $register
            }
            #[inline(always)]
            fn bits(register: $register) -> u64 {
                register as u64
            }
            #[inline(always)]
            unsafe fn read(from: *const u8) -> $register {
                // SAFETY: by the caller's promise.
                unsafe { from.cast::<$memory>().read_unaligned() as $register }
            }
            #[inline(always)]
            unsafe fn put(to: *mut u8, register: $register) {
                // SAFETY: by the caller's promise.
                unsafe { to.cast::<$memory>().write_unaligned(register as $memory) }
            }
        }
    };
}
element!(U8, u8, u32);
element!(S8, i8, u32);
element!(U16, u16, u32);
element!(S16, i16, u32);
element!(U32, u32, u32);
element!(U8Wide, u8, u64);
element!(S8Wide, i8, u64);
element!(U16Wide, u16, u64);
element!(S16Wide, i16, u64);
element!(U32Wide, u32, u64);
element!(S32Wide, i32, u64);
element!(U64, u64, u64);
