//! What the stage tests share: the devices, data, moving it, and comparing.

use crate::cases::{Case, Kind};
pub use crate::data::Data;
use crate::gpu;
use crate::oracle::number::{Matrix, Number};
use crate::oracle::{Affine, HalfBlock};
pub use crate::unfused::typical;
use gpt2meg::device::cpu::Cpu;
use gpt2meg::device::cuda;
use gpt2meg::device::{Call, Device, Dtype, Tensor};

/// Every device: the CPU with every instruction set that this machine has, and the emulated GPU where there is a compiler.
pub fn devices() -> Vec<Box<dyn Device>> {
    let gpu = gpu::machine(&gpu::adversarial()).map(|_| Box::new(cuda::open(0).unwrap()) as Box<dyn Device>);
    cpus().into_iter().chain(gpu).collect()
}

/// Whether a device multiplies in bf16.
pub fn is_bf16(device: &dyn Device) -> bool {
    device.name().starts_with("CUDA")
}

/// The devices that a case is tried on. The emulator would take minutes for wide models; `tests/cuda` has those.
pub fn devices_for(case: &Case) -> Vec<Box<dyn Device>> {
    if case.e <= 128 { devices() } else { cpus() }
}

fn cpus() -> Vec<Box<dyn Device>> {
    let mut sets = vec![pulp::Arch::Scalar];
    #[cfg(target_arch = "x86_64")]
    sets.extend(pulp::x86::V3::try_new().map(pulp::Arch::V3));
    if std::mem::discriminant(&pulp::Arch::new()) != std::mem::discriminant(sets.last().expect("one")) {
        sets.push(pulp::Arch::new());
    }
    sets.into_iter().map(|set| Box::new(Cpu::with_instructions(set, 2).unwrap()) as Box<dyn Device>).collect()
}

impl Data {
    /// The residual stream of each sequence, [N, T, E].
    pub fn stream(&mut self, case: &Case) -> Vec<f32> {
        let Case { n, t, e, .. } = *case;
        match case.kind {
            Kind::Equal => {
                let rows = (0..n).map(|_| self.floats(e, 1.0)).collect::<Vec<_>>();
                rows.iter().flat_map(|row| row.repeat(t)).collect()
            }
            _ => self.floats(n * t * e, 1.5),
        }
    }

    /// norm (weight, bias), first [E, wide] + [wide], proj [inner, E] + [E].
    pub fn half_block(&mut self, case: &Case, wide: usize, inner: usize) -> Flat {
        let e = case.e;
        let gain = if case.kind == Kind::Extreme { 20.0 } else { 1.5 };
        let [weight, bias] = self.norm(e);
        let first = self.floats(e * wide, gain / (e as f32).sqrt());
        let proj = self.floats(inner * e, 1.0 / (inner as f32).sqrt());
        Flat::new(vec![weight, bias, first, self.floats(wide, 0.5), proj, self.floats(e, 0.5)])
    }
}

/// Parameters one after another, as in one flat buffer.
pub struct Flat {
    pub parts: Vec<Vec<f32>>,
}

impl Flat {
    pub fn new(parts: Vec<Vec<f32>>) -> Self {
        Self { parts }
    }

    pub fn len(&self) -> usize {
        self.parts.iter().map(Vec::len).sum()
    }

    /// Handles of the parts in a buffer whose first slot is laid out like this.
    pub fn bind<const N: usize>(&self, buffer: Tensor) -> [Tensor; N] {
        let mut offset = 0;
        let tensors = self.parts.iter().map(|part| {
            offset += part.len();
            buffer.slice(offset - part.len(), part.len())
        });
        tensors.collect::<Vec<_>>().try_into().expect("as many parts")
    }

    pub fn half_block(&self, e: usize, wide: usize, inner: usize) -> HalfBlock {
        let row = |i: usize| self.parts[i].iter().map(|&x| Number::from(x)).collect();
        let matrix = |i: usize, rows: usize, columns: usize| Matrix::exact(rows, columns, &self.parts[i]);
        HalfBlock {
            norm: Affine { weight: matrix(0, 1, e), bias: row(1) },
            first: Affine { weight: matrix(2, e, wide), bias: row(3) },
            proj: Affine { weight: matrix(4, inner, e), bias: row(5) },
        }
    }
}

/// A half-block's gradients in the order of its parameters.
pub fn flatten(grads: HalfBlock) -> Vec<Number> {
    let HalfBlock { norm, first, proj } = grads;
    [norm.weight.data, norm.bias, first.weight.data, first.bias, proj.weight.data, proj.bias].concat()
}

pub fn call(case: &Case) -> Call {
    Call { first: case.first, n: case.n, n_time: case.t, d_model: case.e, n_head: case.h, from: case.from }
}

pub fn put<T: bytemuck::Pod>(device: &mut dyn Device, dtype: Dtype, data: &[T]) -> Tensor {
    let tensor = device.alloc(dtype, data.len()).unwrap();
    device.upload(tensor, bytemuck::cast_slice(data)).unwrap();
    tensor
}

pub fn floats(device: &mut dyn Device, data: &[f32]) -> Tensor {
    put(device, Dtype::F32, data)
}

pub fn get(device: &mut dyn Device, tensor: Tensor) -> Vec<f32> {
    let mut data = vec![0.0f32; tensor.len];
    let downloaded = device.download(tensor, bytemuck::cast_slice_mut(&mut data));
    // What was found in a kernel says more than that the download failed.
    if is_bf16(device) {
        gpu::assert_clean(&gpu::machine(&gpu::adversarial()).unwrap());
    }
    downloaded.unwrap();
    data
}

/// Values as they should be: the oracle's, and those of an unfused computation in bf16, of which both add something to `base`.
pub struct Expected<'a> {
    pub truth: &'a [Number],
    pub base: &'a [f32],
    /// What is added.
    pub unfused: &'a [f64],
}

/// The same of gradients, parameter by parameter; `truth` has them one after another.
pub fn typical_gradients(truth: &[Number], units: &[Vec<Vec<f64>>]) -> Vec<Vec<f64>> {
    let mut offset = 0;
    let one = |k: usize| {
        let truth = &truth[offset..][..units[0][k].len()];
        offset += truth.len();
        typical(truth.iter().map(|x| x.v), units.iter().map(|unit| unit[k].clone()).collect())
    };
    (0..units[0].len()).map(one).collect()
}

/// Asserts that a device's results are as near to the truth as its arithmetic lets them be.
pub fn compare_with(what: &str, case: &Case, device: &dyn Device, actual: &[f32], expected: &Expected) {
    let Expected { truth, base, unfused } = *expected;
    if !is_bf16(device) {
        return compare(what, case, actual, truth);
    }
    assert_eq!((actual.len(), base.len()), (truth.len(), truth.len()), "{what}");
    let added = |value: f64, i: usize| value - f64::from(base[i]);
    let actual: Vec<f64> = actual.iter().enumerate().map(|(i, &x)| added(f64::from(x), i)).collect();
    let truth: Vec<f64> = truth.iter().enumerate().map(|(i, x)| added(x.v, i)).collect();
    gpu::judge(what, &actual, &truth, unfused);
}

/// Asserts that every value is as near as the arithmetic of f32 says, and that this says something: together the deviations that
/// are allowed must be below a thousandth of the values, or the case's slack times that.
pub fn compare(what: &str, case: &Case, actual: &[f32], expected: &[Number]) {
    assert_eq!(actual.len(), expected.len(), "{what}");
    for (i, (&actual, expected)) in actual.iter().zip(expected).enumerate() {
        let (v, e) = (expected.v, expected.e);
        assert!(
            expected.allows(actual, case.repeats()),
            "{what}[{i}]: {actual} for {v}, bound {e:e}, rule {:e}",
            expected.deviation()
        );
    }
    let slack = case.slack();
    let size = expected.iter().map(|x| x.v.powi(2)).sum::<f64>().sqrt();
    let error = expected.iter().map(|x| x.deviation().powi(2)).sum::<f64>().sqrt();
    assert!(
        slack.is_infinite() || error <= 1e-3 * slack * size,
        "{what}: errors of {error:e} in {size:e} prove little"
    );
}

/// A sequence's gradients, one parameter after another: the oracle's, and those of an unfused computation in bf16, which may
/// be left out of a stage that multiplies nothing.
pub struct Gradient {
    pub truth: Vec<Number>,
    pub unfused: Vec<Vec<f64>>,
}

/// Asserts that gradient slots hold what they held before plus each sequence's gradient.
pub fn compare_slots(what: &str, case: &Case, device: &dyn Device, before: &[f32], after: &[f32], grads: &[Gradient]) {
    let slots = device.grad_slots();
    let len = after.len() / slots;
    for slot in 0..slots {
        let (before, after) = (&before[slot * len..][..len], &after[slot * len..][..len]);
        let Some(i) = (0..case.n).find(|i| (case.first + i) % slots == slot) else {
            assert_eq!(before, after, "{what}: slot {slot} is nobody's");
            continue;
        };
        // What was there is one more term of each sum, and the sum is rounded once more.
        let sum: Vec<_> = before.iter().zip(&grads[i].truth).map(|(&b, &g)| Number::from(b) + g).collect();
        if !is_bf16(device) || grads[i].unfused.is_empty() {
            compare(&format!("{what}, sequence {i}"), case, after, &sum);
            continue;
        }
        let mut offset = 0;
        for (k, unfused) in grads[i].unfused.iter().enumerate() {
            let range = offset..offset + unfused.len();
            let expected = Expected { truth: &sum[range.clone()], base: &before[range.clone()], unfused };
            compare_with(
                &format!("{what}, sequence {i}, parameter {k}"),
                case,
                device,
                &after[range.clone()],
                &expected,
            );
            offset = range.end;
        }
    }
}

/// What a device's buffer of gradients holds before a stage, for so many parameters.
pub fn gradients_before(device: &dyn Device, data: &[f32], len: usize) -> Vec<f32> {
    data.iter().copied().cycle().take(device.grad_slots() * len).collect()
}
