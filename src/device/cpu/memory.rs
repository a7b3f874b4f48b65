//! The device's buffers, and the resolution of handles into slices.
//!
//! A stage reads some buffers and writes others; which of them are the same is known only at run time, so each buffer
//! sits in a `RefCell`: reading twice is fine, and a stage that is asked to read what it writes gets an error. All
//! resolving happens on the calling thread, before the work is spread over sequences.

use super::GRAD_SLOTS;
use crate::device::{Dtype, Tensor};
use crate::ensure;
use crate::error::{Error, Kind, Result};
use bytemuck::{Pod, Zeroable};
use std::cell::{Ref, RefCell, RefMut};

/// A cache line, so that buffers begin where one does.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
pub(crate) struct Line([u64; 8]);

impl Line {
    const BYTES: usize = size_of::<Self>();

    /// Lines that hold `len` floats.
    fn of_floats(len: usize) -> usize {
        len.div_ceil(Self::BYTES / size_of::<f32>())
    }
}

/// Elements that live in a buffer.
pub(crate) trait Element: Pod {
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
    lines: RefCell<Vec<Line>>,
    dtype: Dtype,
    len: usize,
}

/// All buffers of a device; a freed one leaves its number unused until the next allocation.
#[derive(Default)]
pub(crate) struct Memory {
    buffers: Vec<Option<Buffer>>,
}

impl Memory {
    pub(crate) fn alloc(&mut self, dtype: Dtype, len: usize) -> Result<Tensor> {
        let failed = || {
            let what = format!("cannot allocate {len} elements of {} bytes", dtype.size());
            Error::new(Kind::DeviceUnavailable, what).hint("Use a smaller model or a smaller batch")
        };
        let bytes = len.checked_mul(dtype.size()).ok_or_else(failed)?;
        let mut lines = Vec::new();
        let count = bytes.div_ceil(Line::BYTES);
        lines.try_reserve_exact(count).map_err(|_| failed())?;
        lines.resize(count, Line::zeroed());
        let buffer = Some(Buffer { lines: RefCell::new(lines), dtype, len });
        let number = match self.buffers.iter().position(Option::is_none) {
            Some(number) => number,
            None => {
                self.buffers.push(None);
                self.buffers.len() - 1
            }
        };
        self.buffers[number] = buffer;
        Ok(Tensor { buffer: number as u32, offset: 0, len, dtype })
    }

    pub(crate) fn free(&mut self, tensor: Tensor) {
        if let Some(buffer) = self.buffers.get_mut(tensor.buffer as usize) {
            *buffer = None;
        }
    }

    /// Elements of the whole buffer that `tensor` is a part of.
    pub(crate) fn buffer_len(&self, tensor: Tensor) -> Result<usize> {
        Ok(self.buffer(tensor)?.len)
    }

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

    /// The elements of `tensor`, to read.
    pub(crate) fn read<T: Element>(&self, tensor: Tensor) -> Result<Ref<'_, [T]>> {
        ensure!(tensor.dtype == T::DTYPE, Kind::Internal, "{tensor:?} was asked for as {:?}", T::DTYPE);
        let lines = self.buffer(tensor)?.lines.try_borrow();
        let lines = lines.map_err(|_| Error::new(Kind::Internal, "a stage was asked to read what it writes"))?;
        Ok(Ref::map(lines, |lines| &bytemuck::cast_slice(lines)[tensor.offset..][..tensor.len]))
    }

    /// The elements of `tensor`, to write.
    pub(crate) fn write<T: Element>(&self, tensor: Tensor) -> Result<RefMut<'_, [T]>> {
        ensure!(tensor.dtype == T::DTYPE, Kind::Internal, "{tensor:?} was asked for as {:?}", T::DTYPE);
        let lines = self.buffer(tensor)?.lines.try_borrow_mut();
        let lines = lines.map_err(|_| Error::new(Kind::Internal, "a stage was asked to write what it reads"))?;
        Ok(RefMut::map(lines, |lines| &mut bytemuck::cast_slice_mut(lines)[tensor.offset..][..tensor.len]))
    }

    /// The elements of a float tensor that must have `len` of them, to read.
    pub(crate) fn floats(&self, tensor: Tensor, len: usize) -> Result<Ref<'_, [f32]>> {
        ensure!(tensor.len == len, Kind::Internal, "{tensor:?} should have {len} elements");
        self.read(tensor)
    }

    /// The first `len` elements of a float tensor, to read.
    pub(crate) fn first(&self, tensor: Tensor, len: usize) -> Result<Ref<'_, [f32]>> {
        ensure!(tensor.len >= len, Kind::Internal, "{tensor:?} should have at least {len} elements");
        self.read(Tensor { len, ..tensor })
    }

    /// The first `len` elements of a float tensor, to write: a workspace may be made for more sequences than a call has.
    pub(crate) fn first_mut(&self, tensor: Tensor, len: usize) -> Result<RefMut<'_, [f32]>> {
        ensure!(tensor.len >= len, Kind::Internal, "{tensor:?} should have at least {len} elements");
        self.write(Tensor { len, ..tensor })
    }

    /// The elements of a float tensor that must have `len` of them, to write.
    pub(crate) fn floats_mut(&self, tensor: Tensor, len: usize) -> Result<RefMut<'_, [f32]>> {
        ensure!(tensor.len == len, Kind::Internal, "{tensor:?} should have {len} elements");
        self.write(tensor)
    }

    /// The slots of the buffer in which the gradients lie; each must be in the first slot and have the length given.
    pub(crate) fn slots(&self, grads: &[(Tensor, usize)]) -> Result<Slots<'_>> {
        let first = grads[0].0;
        let all = self.buffer_len(first)?;
        let len = all / GRAD_SLOTS;
        for &(grad, expected) in grads {
            let inside = grad.offset.checked_add(grad.len).is_some_and(|end| end <= len);
            ensure!(
                grad.buffer == first.buffer && inside && grad.len == expected,
                Kind::Internal,
                "the gradient {grad:?} of {expected} parameters is not in a slot of {len}"
            );
        }
        Ok(Slots { all: self.write(Tensor { offset: 0, len: all, ..first })?, len })
    }

    /// The bytes of `tensor`, to write, whatever its type.
    pub(crate) fn bytes_mut(&self, tensor: Tensor) -> Result<RefMut<'_, [u8]>> {
        let lines = self.buffer(tensor)?.lines.try_borrow_mut();
        let lines = lines.map_err(|_| Error::new(Kind::Internal, "a buffer in use was asked for"))?;
        let size = tensor.dtype.size();
        Ok(RefMut::map(lines, |lines| {
            &mut bytemuck::cast_slice_mut(lines)[tensor.offset * size..][..tensor.len * size]
        }))
    }
}

/// A gradient buffer, cut into its slots.
pub(crate) struct Slots<'a> {
    all: RefMut<'a, [f32]>,
    len: usize,
}

impl Slots<'_> {
    /// The slots of the sequences from the index `first` on, for one after another.
    pub(crate) fn of(&mut self, first: usize) -> impl Iterator<Item = &mut [f32]> {
        let mut chunks = self.all.chunks_exact_mut(self.len);
        let mut slots: [&mut [f32]; GRAD_SLOTS] = std::array::from_fn(|_| chunks.next().unwrap_or_default());
        slots.rotate_left(first % GRAD_SLOTS);
        slots.into_iter()
    }
}

/// The stretch of a slot where the gradient `tensor` lies.
pub(crate) fn part(slot: &mut [f32], tensor: Tensor) -> &mut [f32] {
    &mut slot[tensor.offset..][..tensor.len]
}

/// Two of them at once.
pub(crate) fn parts(slot: &mut [f32], tensors: [Tensor; 2]) -> [&mut [f32]; 2] {
    slot.get_disjoint_mut(tensors.map(|t| t.offset..t.offset + t.len)).expect("two parameters do not overlap")
}

/// Memory that one thread works in; grows on first use, then stays.
#[derive(Default)]
pub(crate) struct Scratch {
    lines: Vec<Line>,
}

impl Scratch {
    /// Stretches of at least `lens` elements each, every one beginning on a cache line; their content is whatever was
    /// left there.
    pub(crate) fn split<const N: usize>(&mut self, lens: [usize; N]) -> [&mut [f32]; N] {
        let mut cuts = self.cuts(lens);
        lens.map(|len| cuts.take(len))
    }

    /// Room for stretches of these lengths, to be taken one after the other.
    pub(crate) fn cuts(&mut self, lens: impl IntoIterator<Item = usize>) -> Cuts<'_> {
        let total: usize = lens.into_iter().map(Line::of_floats).sum();
        if self.lines.len() < total {
            self.lines.resize(total, Line::zeroed());
        }
        Cuts { rest: &mut self.lines }
    }
}

/// Memory that is handed out in stretches, every one beginning on a cache line; their content is whatever was left there.
pub(crate) struct Cuts<'a> {
    rest: &'a mut [Line],
}

impl<'a> Cuts<'a> {
    /// The next `len` elements.
    pub(crate) fn take(&mut self, len: usize) -> &'a mut [f32] {
        let (part, others) = std::mem::take(&mut self.rest).split_at_mut(Line::of_floats(len));
        self.rest = others;
        &mut bytemuck::cast_slice_mut(part)[..len]
    }

    /// What is left, lent: it can be cut again and again.
    pub(crate) fn rest(&mut self) -> Cuts<'_> {
        Cuts { rest: self.rest }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handles_are_checked() {
        let mut memory = Memory::default();
        let a = memory.alloc(Dtype::F32, 10).unwrap();
        assert!(memory.read::<u32>(a).is_err(), "another type");
        assert!(memory.read::<f32>(Tensor { len: 11, ..a }).is_err(), "too long");
        assert!(memory.read::<f32>(Tensor { offset: usize::MAX, ..a }).is_err(), "overflow");
        {
            let _reading = memory.read::<f32>(a).unwrap();
            assert!(memory.write::<f32>(a).is_err(), "written while read");
        }
        memory.free(a);
        assert!(memory.read::<f32>(a).is_err(), "freed");
        assert!(memory.alloc(Dtype::F32, usize::MAX).is_err(), "larger than the address space");
        assert!(memory.alloc(Dtype::F32, usize::MAX / 8).is_err(), "larger than the machine");
    }

    #[test]
    fn scratch_is_cut_on_cache_lines() {
        let mut scratch = Scratch::default();
        let parts = scratch.split([3, 0, 17, 16]);
        assert_eq!(parts.each_ref().map(|part| part.len()), [3, 0, 17, 16]);
        for part in parts.iter().filter(|part| !part.is_empty()) {
            assert_eq!(part.as_ptr() as usize % 64, 0);
        }
    }
}
