//! Kernels: their sources, their arguments, and the launch.

use std::marker::PhantomData;

/// The text of a file of kernels.
#[derive(Debug)]
pub struct Source {
    /// Name of the file, for messages.
    pub name: &'static str,
    /// Tells versions apart.
    pub hash: u128,
    /// CUDA C++, includes expanded.
    pub text: &'static str,
}

/// An address on the device, of elements of a type. It says nothing of how many there are, or for how long.
#[derive(Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Pointer<T>(u64, PhantomData<fn() -> T>);

impl<T> Clone for Pointer<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Pointer<T> {}

impl<T> Pointer<T> {
    /// No address: what is optional is absent.
    pub const NULL: Self = Self(0, PhantomData);

    /// The address itself.
    pub fn new(address: u64) -> Self {
        Self(address, PhantomData)
    }

    /// The address as a number.
    pub fn address(self) -> u64 {
        self.0
    }

    /// The address `elements` further on.
    pub fn offset(self, elements: usize) -> Self {
        Self::new(self.0 + (elements * size_of::<T>()) as u64)
    }

    /// The same address, of elements of another type.
    pub fn cast<U>(self) -> Pointer<U> {
        Pointer::new(self.0)
    }
}

/// What may be an argument: plain data of the size that the kernel expects.
///
/// # Safety
/// The type has the representation of the kernel's parameter.
pub unsafe trait Plain {}
// SAFETY: transparent over the address.
unsafe impl<T> Plain for Pointer<T> {}
// SAFETY: the same on both sides.
unsafe impl Plain for f32 {}
// SAFETY: the same on both sides.
unsafe impl Plain for u32 {}
// SAFETY: the same on both sides.
unsafe impl Plain for u64 {}

/// Where one argument is read from.
#[derive(Debug, Clone, Copy)]
pub struct Argument<'a> {
    pub(super) at: *const std::ffi::c_void,
    len: usize,
    life: PhantomData<&'a ()>,
}

impl<'a> Argument<'a> {
    /// The argument with the bytes of `value`.
    pub fn of<T: Plain>(value: &'a T) -> Self {
        Self { at: std::ptr::from_ref(value).cast(), len: size_of::<T>(), life: PhantomData }
    }

    /// Its bytes.
    pub(super) fn bytes(&self) -> &'a [u8] {
        // SAFETY: these are the bytes of a value that is plain, so without gaps, and lives as long.
        unsafe { std::slice::from_raw_parts(self.at.cast(), self.len) }
    }
}

/// The arguments of a kernel; the build script writes one such type for each.
pub trait Kernel {
    /// The file that defines it.
    const SOURCE: &'static Source;
    /// Its name there.
    const NAME: &'static str;
    /// The arguments in their order.
    fn arguments(&self) -> Vec<Argument<'_>>;
}

include!(concat!(env!("OUT_DIR"), "/kernels.rs"));
