//! Memory that a stage works in, the same for all of them: they run one after another.

use super::Gpu;
use super::kernel::Pointer;
use crate::error::Result;
use cudarc::driver::CudaSlice;

/// Room that grows to what the hungriest stage has needed.
#[derive(Default)]
pub struct Scratch {
    room: Option<CudaSlice<u32>>,
}

/// Every stretch begins where a whole line of the L2 cache does.
const ALIGNMENT: usize = 32;

/// Words of all stretches together. Never none: drivers without memory pools refuse to allocate nothing.
fn total(lens: &[usize]) -> usize {
    lens.iter().map(|len| len.next_multiple_of(ALIGNMENT)).sum::<usize>().max(ALIGNMENT)
}

impl Scratch {
    /// Stretches of these lengths, in words; their content is whatever was left there.
    pub fn split<const N: usize>(&mut self, gpu: &Gpu, lens: [usize; N]) -> Result<[Pointer<u32>; N]> {
        let total = total(&lens);
        if self.room.as_ref().is_none_or(|room| room.len() < total) {
            gpu.outside_step()?;
            // The old room goes first: both at once may not fit.
            self.room = None;
            // SAFETY: who asks for scratch writes it before it is read.
            let room = unsafe { gpu.stream().alloc::<u32>(total) };
            self.room = Some(room.map_err(|error| gpu.no_room(4 * total, error))?);
        }
        let mut next = gpu.address(self.room.as_ref().expect("made above"));
        Ok(lens.map(|len| {
            let here = next;
            next = next.offset(len.next_multiple_of(ALIGNMENT));
            here
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_takes_some_room_and_stretches_are_aligned() {
        assert_eq!([total(&[0]), total(&[]), total(&[1]), total(&[32]), total(&[33, 1])], [32, 32, 32, 32, 96]);
    }
}
