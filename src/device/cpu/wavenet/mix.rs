//! The map across channels, forward and backward: products whose one side is as long as all a channel's skips, cut into
//! blocks that stay in a core's cache.
//!
//! Threads share the rows of the result. A row's bits do not depend on how many rows a product has, so neither do they on the
//! number of threads.

use super::super::Cpu;
use super::super::gemm::{Matrix, Onto, Product, columns, pack};
use super::super::memory::{Scratch, part};
use super::super::team::Team;
use crate::device::Tensor;
use crate::ensure;
use crate::error::{Kind, Result};
use pulp::{Simd, WithSimd};

/// Elements of a channel's skips in a block.
const BLOCK: usize = 384;

/// mixed = weight · skips.
pub(super) fn forward(cpu: &mut Cpu, n_channel: usize, weight: Tensor, skips: Tensor, mixed: Tensor) -> Result<()> {
    let memory = &cpu.memory;
    let weight = memory.floats(weight, n_channel * n_channel)?;
    let len = row_len(n_channel, skips)?;
    let (skips, mut mixed) = (memory.read::<f32>(skips)?, memory.floats_mut(mixed, n_channel * len)?);
    product(&cpu.team, n_channel, len, Matrix::Rows(&weight, n_channel), &skips, &mut mixed)
}

/// Elements of one channel's skips.
fn row_len(n_channel: usize, skips: Tensor) -> Result<usize> {
    let whole = n_channel > 0 && skips.len.is_multiple_of(n_channel);
    ensure!(whole, Kind::Internal, "{} elements are not the skips of {n_channel} channels", skips.len);
    Ok(skips.len / n_channel)
}

/// grad += dmixed · skipsᵀ, dskips = weightᵀ · dmixed.
#[expect(clippy::too_many_arguments, reason = "a stage's tensors, forward and backward")]
pub(super) fn backward(
    cpu: &mut Cpu,
    n_channel: usize,
    first: usize,
    weight: Tensor,
    grad: Tensor,
    skips: Tensor,
    dmixed: Tensor,
    dskips: Tensor,
) -> Result<()> {
    let (memory, team) = (&cpu.memory, &cpu.team);
    let weight = memory.floats(weight, n_channel * n_channel)?;
    let len = row_len(n_channel, skips)?;
    let (skips, dmixed) = (memory.read::<f32>(skips)?, memory.floats(dmixed, n_channel * len)?);
    let mut slots = memory.slots(&[(grad, n_channel * n_channel)])?;
    let slot = slots.of(first).next().expect("sixteen slots");
    let rows = n_channel.div_ceil(team.threads());
    let right = &*skips;
    let jobs = part(slot, grad).chunks_mut(rows * n_channel).zip(dmixed.chunks(rows * len)).collect();
    team.try_all(jobs, |(out, left): (&mut [f32], &[f32]), scratch| {
        team.arch.dispatch(Outer { n_channel, len, left, right, out, scratch });
        Ok(())
    })?;
    let mut dskips = memory.floats_mut(dskips, n_channel * len)?;
    product(team, n_channel, len, Matrix::Columns(&weight, n_channel), &dmixed, &mut dskips)
}

/// out = weight · from, [C, len].
pub(super) fn product(
    team: &Team,
    n_channel: usize,
    len: usize,
    weight: Matrix,
    from: &[f32],
    out: &mut [f32],
) -> Result<()> {
    let rows = n_channel.div_ceil(team.threads());
    let jobs = out.chunks_mut(rows * len).enumerate().collect();
    team.try_all(jobs, |(number, out): (usize, &mut [f32]), scratch| {
        let weight = match weight {
            Matrix::Rows(data, ld) => Matrix::Rows(&data[number * rows * ld..], ld),
            Matrix::Columns(data, ld) => Matrix::Columns(&data[number * rows..], ld),
        };
        team.arch.dispatch(Rows { n_channel, len, weight, from, out, scratch });
        Ok(())
    })
}

/// Some rows of a product with all channels.
struct Rows<'a> {
    n_channel: usize,
    len: usize,
    weight: Matrix<'a>,
    from: &'a [f32],
    out: &'a mut [f32],
    scratch: &'a mut Scratch,
}

impl WithSimd for Rows<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { n_channel, len, weight, from, out, scratch } = self;
        let m = out.len() / len;
        let columns = columns::<S>();
        let [packed] = scratch.split([BLOCK.next_multiple_of(columns) * n_channel]);
        for at in (0..len).step_by(BLOCK) {
            let n = BLOCK.min(len - at);
            pack(columns, n_channel, n, Matrix::Rows(&from[at..], len), packed);
            let (right, out) = (&*packed, &mut out[at..]);
            Product { m, k: n_channel, n, left: weight, right, onto: Onto::Nothing, out, ld: len }.run(simd);
        }
    }
}

/// Some rows of left · rightᵀ, added to `out`; blocks of the long side one after the other.
struct Outer<'a> {
    n_channel: usize,
    len: usize,
    left: &'a [f32],
    right: &'a [f32],
    out: &'a mut [f32],
    scratch: &'a mut Scratch,
}

impl WithSimd for Outer<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { n_channel: n, len, left, right, out, scratch } = self;
        let m = out.len() / n;
        let columns = columns::<S>();
        let [packed] = scratch.split([n.next_multiple_of(columns) * BLOCK]);
        for at in (0..len).step_by(BLOCK) {
            let k = BLOCK.min(len - at);
            pack(columns, k, n, Matrix::Columns(&right[at..], len), packed);
            let (left, right, out) = (Matrix::Rows(&left[at..], len), &*packed, &mut *out);
            Product { m, k, n, left, right, onto: Onto::Out, out, ld: n }.run(simd);
        }
    }
}
