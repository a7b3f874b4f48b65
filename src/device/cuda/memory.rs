//! The device's buffers, and the resolution of handles into addresses.
//!
//! Three things are kept beside the memory itself. Buffers of indices have a copy on the host, so that indices are checked
//! before a kernel follows them. Every buffer knows when it was last written, so that what was made from it can be seen to be
//! stale ([`super::copies`]). And a [`Stage`] notes what it reads and writes, so that one that is asked to read what it writes
//! gets an error, as on the CPU.

use super::kernel::Pointer;
use super::staging::Staging;
use super::{GRAD_SLOTS, Gpu, failed};
use crate::device::{Dtype, Tensor};
use crate::ensure;
use crate::error::{Error, Kind, Result};
use cudarc::driver::CudaSlice;
use std::ops::Range;

/// Elements that live in a buffer.
pub trait Element: bytemuck::Pod {
    /// Their type.
    const DTYPE: Dtype;
}

impl Element for u8 {
    const DTYPE: Dtype = Dtype::U8;
}
impl Element for u16 {
    const DTYPE: Dtype = Dtype::U16;
}
impl Element for u32 {
    const DTYPE: Dtype = Dtype::U32;
}
impl Element for f32 {
    const DTYPE: Dtype = Dtype::F32;
}

struct Buffer {
    bytes: CudaSlice<u8>,
    address: u64,
    dtype: Dtype,
    len: usize,
    /// When it was last written, by the memory's clock.
    written: u64,
    /// What a buffer of indices holds.
    host: Vec<u8>,
    /// The largest index of stretches of bytes that have been looked through since it was written.
    largest: Vec<(Range<usize>, usize)>,
}

/// All buffers of a device; a freed one leaves its number unused until the next allocation.
#[derive(Default)]
pub struct Memory {
    buffers: Vec<Option<Buffer>>,
    /// Counts writes, to whichever buffer.
    clock: u64,
    staging: Staging,
}

impl Memory {
    /// A new tensor, all zero.
    pub fn alloc(&mut self, gpu: &Gpu, dtype: Dtype, len: usize) -> Result<Tensor> {
        let too_large = || Error::new(Kind::DeviceUnavailable, format!("{len} elements are beyond every address"));
        let n_byte = len.checked_mul(dtype.size()).ok_or_else(too_large)?;
        // An empty tensor has an address, too.
        let bytes = gpu.zeros::<u8>(n_byte.max(1))?;
        let mut host = Vec::new();
        if dtype != Dtype::F32 {
            host.try_reserve_exact(n_byte).map_err(|_| too_large())?;
            host.resize(n_byte, 0);
        }
        let number = match self.buffers.iter().position(Option::is_none) {
            Some(number) => number,
            None => {
                self.buffers.push(None);
                self.buffers.len() - 1
            }
        };
        self.clock += 1;
        let address = gpu.address(&bytes).address();
        self.buffers[number] =
            Some(Buffer { bytes, address, dtype, len, written: self.clock, host, largest: Vec::new() });
        Ok(Tensor { buffer: number as u32, offset: 0, len, dtype })
    }

    /// Gives a whole buffer back.
    pub fn free(&mut self, tensor: Tensor) {
        if let Some(buffer) = self.buffers.get_mut(tensor.buffer as usize) {
            *buffer = None;
        }
    }

    /// The buffer that a tensor lies in, checked.
    fn buffer(&self, tensor: Tensor) -> Result<&Buffer> {
        let buffer = self.buffers.get(tensor.buffer as usize).and_then(Option::as_ref);
        let buffer = buffer.ok_or_else(|| Error::new(Kind::Internal, format!("{tensor:?} is in no live buffer")))?;
        let inside = tensor.offset.checked_add(tensor.len).is_some_and(|end| end <= buffer.len);
        ensure!(
            inside && tensor.dtype == buffer.dtype,
            Kind::Internal,
            "{tensor:?} is not inside a buffer of {} {:?}",
            buffer.len,
            buffer.dtype
        );
        Ok(buffer)
    }

    /// The buffer that a tensor lies in, which is now being written.
    fn buffer_mut(&mut self, tensor: Tensor) -> Result<&mut Buffer> {
        self.buffer(tensor)?;
        self.clock += 1;
        let buffer = self.buffers[tensor.buffer as usize].as_mut().expect("checked above");
        buffer.written = self.clock;
        buffer.largest.clear();
        Ok(buffer)
    }

    /// Copies bytes in.
    pub fn upload(&mut self, gpu: &Gpu, to: Tensor, from: &[u8]) -> Result<()> {
        gpu.outside_step()?;
        let range = bytes_of(to, from.len())?;
        let buffer = self.buffer_mut(to)?;
        if let Some(host) = buffer.host.get_mut(range.clone()) {
            host.copy_from_slice(from);
        }
        if range.is_empty() {
            return Ok(());
        }
        let to = buffer.address + range.start as u64;
        // SAFETY: the range is inside the buffer.
        unsafe { self.staging.upload(gpu, to, from) }
    }

    /// Copies bytes out, after everything that was asked for before is done.
    pub fn download(&mut self, gpu: &Gpu, from: Tensor, to: &mut [u8]) -> Result<()> {
        gpu.outside_step()?;
        let range = bytes_of(from, to.len())?;
        let buffer = self.buffer(from)?;
        let copied = match range.is_empty() {
            true => Ok(()),
            false => gpu.stream().memcpy_dtoh(&buffer.bytes.slice(range), to),
        };
        // A kernel that failed is heard of here.
        copied
            .and_then(|()| gpu.stream().synchronize())
            .map_err(|error| failed(&format!("copy {} bytes from the GPU", to.len()), error))
    }

    /// Sets every element to zero.
    pub fn zero(&mut self, gpu: &Gpu, tensor: Tensor) -> Result<()> {
        gpu.outside_step()?;
        let buffer = self.buffer_mut(tensor)?;
        let range = bytes_of(tensor, tensor.len * tensor.dtype.size())?;
        if let Some(host) = buffer.host.get_mut(range.clone()) {
            host.fill(0);
        }
        if range.is_empty() {
            return Ok(());
        }
        let zeroed = gpu.stream().memset_zeros(&mut buffer.bytes.slice_mut(range));
        zeroed.map_err(|error| failed("zero memory of the GPU", error))
    }

    /// When the buffers of these tensors were last written: a number that grows whenever one of them is.
    pub fn written(&self, tensors: &[Tensor]) -> Result<u64> {
        tensors.iter().try_fold(0, |latest, &tensor| Ok(latest.max(self.buffer(tensor)?.written)))
    }

    /// Begins a stage.
    pub fn stage(&mut self) -> Stage<'_> {
        Stage { memory: self, read: Vec::new(), written: Vec::new() }
    }
}

/// The bytes of a tensor within its buffer, which must be so many.
fn bytes_of(tensor: Tensor, n_byte: usize) -> Result<Range<usize>> {
    let size = tensor.dtype.size();
    ensure!(
        tensor.len.checked_mul(size) == Some(n_byte) && tensor.offset <= isize::MAX as usize / size,
        Kind::Internal,
        "{n_byte} bytes for {tensor:?}"
    );
    Ok(tensor.offset * size..tensor.offset * size + n_byte)
}

/// What one stage reads and writes.
pub struct Stage<'a> {
    memory: &'a mut Memory,
    read: Vec<u32>,
    written: Vec<u32>,
}

impl Stage<'_> {
    /// A tensor of exactly `len` elements, to read.
    pub fn read<T: Element>(&mut self, tensor: Tensor, len: usize) -> Result<Pointer<T>> {
        ensure!(tensor.len == len, Kind::Internal, "{tensor:?} should have {len} elements");
        self.first(tensor, len)
    }

    /// The first `len` elements of a tensor, to read: a workspace may be made for more sequences than a call has.
    pub fn first<T: Element>(&mut self, tensor: Tensor, len: usize) -> Result<Pointer<T>> {
        check(tensor, len, T::DTYPE)?;
        let buffer = self.memory.buffer(tensor)?;
        ensure!(!self.written.contains(&tensor.buffer), Kind::Internal, "a stage was asked to read what it writes");
        self.read.push(tensor.buffer);
        Ok(Pointer::<T>::new(buffer.address).offset(tensor.offset))
    }

    /// A tensor of exactly `len` elements, to write.
    pub fn write<T: Element>(&mut self, tensor: Tensor, len: usize) -> Result<Pointer<T>> {
        ensure!(tensor.len == len, Kind::Internal, "{tensor:?} should have {len} elements");
        self.first_mut(tensor, len)
    }

    /// The first `len` elements of a tensor, to write.
    pub fn first_mut<T: Element>(&mut self, tensor: Tensor, len: usize) -> Result<Pointer<T>> {
        check(tensor, len, T::DTYPE)?;
        let used = self.read.contains(&tensor.buffer) || self.written.contains(&tensor.buffer);
        ensure!(!used, Kind::Internal, "a stage was asked to write what it reads");
        let buffer = self.memory.buffer_mut(tensor)?;
        self.written.push(tensor.buffer);
        Ok(Pointer::<T>::new(buffer.address).offset(tensor.offset))
    }

    /// The buffer of gradients that `grad` lies in, to add to.
    pub fn slots(&mut self, grad: Tensor) -> Result<Slots> {
        let len = self.memory.buffer(grad)?.len;
        let start = self.first_mut(Tensor { offset: 0, len, ..grad }, len)?;
        Ok(Slots { buffer: grad.buffer, start, len: len / GRAD_SLOTS })
    }

    /// The indices in a tensor of exactly `len` elements: where they are on the device, and the largest.
    pub fn indices<T: Element + Into<u32>>(&mut self, tensor: Tensor, len: usize) -> Result<(Pointer<T>, usize)> {
        let pointer = self.read(tensor, len)?;
        let range = bytes_of(tensor, len * size_of::<T>())?;
        let buffer = self.memory.buffers[tensor.buffer as usize].as_mut().expect("it was just read");
        // Several stages of a step ask for the same.
        if let Some((_, largest)) = buffer.largest.iter().find(|(of, _)| *of == range) {
            return Ok((pointer, *largest));
        }
        let index = |bytes: &[u8]| bytemuck::pod_read_unaligned::<T>(bytes).into() as usize;
        let largest = buffer.host[range.clone()].chunks_exact(size_of::<T>()).map(index).max().unwrap_or(0);
        buffer.largest.push((range, largest));
        Ok((pointer, largest))
    }
}

/// A tensor must be of a type and have at least `len` elements.
fn check(tensor: Tensor, len: usize, dtype: Dtype) -> Result<()> {
    ensure!(tensor.len >= len, Kind::Internal, "{tensor:?} should have at least {len} elements");
    ensure!(tensor.dtype == dtype, Kind::Internal, "{tensor:?} was asked for as {dtype:?}");
    Ok(())
}

/// A buffer of gradients, cut into its slots.
#[derive(Debug, Clone, Copy)]
pub struct Slots {
    buffer: u32,
    start: Pointer<f32>,
    /// Elements of a slot.
    pub len: usize,
}

impl Slots {
    /// A gradient of `len` elements in the first slot.
    pub fn part(&self, grad: Tensor, len: usize) -> Result<Pointer<f32>> {
        let inside = grad.offset.checked_add(grad.len).is_some_and(|end| end <= self.len);
        ensure!(
            grad.buffer == self.buffer && grad.dtype == Dtype::F32 && inside && grad.len == len,
            Kind::Internal,
            "the gradient {grad:?} of {len} parameters is not in a slot of {}",
            self.len
        );
        Ok(self.start.offset(grad.offset))
    }
}
