//! What the kernels' tests share: the machine, data, cases, and comparing.

pub use crate::data::Data;
pub use crate::gpu::judge;
use crate::gpu::{self, Machine, assert_clean};
use crate::oracle::number::{Matrix, Number};
use crate::oracle::{Affine, HalfBlock};
use cudarc::driver::{CudaSlice, DeviceRepr};
use gpt2meg::device::cuda::kernel::Pointer;
use gpt2meg::device::cuda::{GRAD_SLOTS, Gpu, Part, Shape};
use ptx_emulator::machine::LaunchReport;
use ptx_emulator::settings::{Rounding, Settings};
use ptx_emulator::target::Target;

/// How the machine runs: what it poses as, and how it rounds what the manual leaves open.
pub struct Run {
    target: Target,
    rounding: Rounding,
    seed: u64,
}

/// The variable that asks for everything: all cases of [`CROSS`], too, and every case on all cards in both roundings.
const CROSS_VARIABLE: &str = "GPT2MEG_CROSS";

/// An A100; the same in other orders and roundings; a card with little shared memory, and the newest with much.
pub const RUNS: &[Run] = &[
    Run { target: Target::Sm80, rounding: Rounding::Exact, seed: 0 },
    Run { target: Target::Sm80, rounding: Rounding::Adversarial, seed: 1 },
    Run { target: Target::Sm86, rounding: Rounding::Adversarial, seed: 2 },
    Run { target: Target::Sm90, rounding: Rounding::Exact, seed: 3 },
];

/// A case above a few tiles is run on one card: mostly as an A100 in adversarial rounding, where kernels cut a sequence's heads into
/// blocks; as an H100, where one block has them all.
const LONG: &[Run] = &[Run { target: Target::Sm80, rounding: Rounding::Adversarial, seed: 1 }];
const LONG_WHOLE: &[Run] = &[Run { target: Target::Sm90, rounding: Rounding::Adversarial, seed: 7 }];

/// Every amount of shared memory that a block may have, in both roundings.
const ALL_RUNS: &[Run] = &[
    Run { target: Target::Sm80, rounding: Rounding::Exact, seed: 8 },
    Run { target: Target::Sm80, rounding: Rounding::Adversarial, seed: 9 },
    Run { target: Target::Sm89, rounding: Rounding::Exact, seed: 10 },
    Run { target: Target::Sm89, rounding: Rounding::Adversarial, seed: 11 },
    Run { target: Target::Sm90, rounding: Rounding::Exact, seed: 12 },
    Run { target: Target::Sm90, rounding: Rounding::Adversarial, seed: 13 },
];

/// The general kernels take the same way whatever the card.
const GENERAL_RUNS: &[Run] = &[
    Run { target: Target::Sm80, rounding: Rounding::Exact, seed: 4 },
    Run { target: Target::Sm80, rounding: Rounding::Adversarial, seed: 5 },
    Run { target: Target::Sm80, rounding: Rounding::Exact, seed: 6 },
];

/// A GPU in one way of running.
pub struct Bench {
    pub gpu: Gpu,
    machine: Machine,
    pub name: String,
    exact: bool,
}

impl Bench {
    /// The GPU of a run; none where there is no compiler.
    pub fn new(run: &Run) -> Option<Self> {
        let settings =
            Settings { target: run.target, rounding: run.rounding, seed: run.seed, threads: 2, ..Settings::default() };
        let machine = gpu::machine(&settings)?;
        let gpu = Gpu::open(0).unwrap();
        let name = format!("{}, {:?}, seed {}", gpu.card(), run.rounding, run.seed);
        // A real card rounds always in one way.
        let exact = run.rounding == Rounding::Exact || machine.is_real();
        Some(Self { gpu, machine, name, exact })
    }

    /// Whether it is a card, which counts nothing.
    pub fn is_real(&self) -> bool {
        self.machine.is_real()
    }

    pub fn put<T: DeviceRepr>(&self, data: &[T]) -> CudaSlice<T> {
        self.gpu.stream().clone_htod(data).unwrap()
    }

    /// Rooms of so many words, full of what is no number, and where they are.
    pub fn rooms<const N: usize>(&self, lens: [usize; N]) -> (Vec<CudaSlice<u32>>, [Pointer<u32>; N]) {
        let rooms = lens.map(|len| self.put(&vec![u32::MAX; len]));
        let at = rooms.each_ref().map(|room| self.gpu.address(room));
        (rooms.into(), at)
    }

    /// Copies out, after everything has run; fails with what the machine found.
    pub fn get<T: DeviceRepr + Clone + Default>(&self, slice: &CudaSlice<T>) -> Vec<T> {
        let out = self.gpu.stream().clone_dtoh(slice).and_then(|out| self.gpu.stream().synchronize().map(|()| out));
        self.check();
        out.unwrap()
    }

    /// Fails with what the machine found in what has run; the reports.
    pub fn check(&self) -> Vec<LaunchReport> {
        assert_clean(&self.machine)
    }

    /// The addresses of parts that lie one after another.
    pub fn bind<const N: usize>(&self, buffer: &CudaSlice<f32>, parts: &[Vec<f32>]) -> [Pointer<f32>; N] {
        let mut offset = 0;
        let pointers = parts.iter().map(|part| {
            offset += part.len();
            self.gpu.address(buffer).offset(offset - part.len())
        });
        pointers.collect::<Vec<_>>().try_into().expect("as many parts")
    }
}

/// Results of the first run with exact rounding.
#[derive(Default)]
pub struct Bits(Option<Vec<u32>>);

impl Bits {
    /// Asserts that every such run has the same bits, whatever the card, its multiprocessors and the order of warps.
    pub fn same(&mut self, what: &str, bench: &Bench, results: &[&[f32]]) {
        if bench.exact {
            let bits: Vec<u32> = results.iter().flat_map(|result| result.iter().map(|x| x.to_bits())).collect();
            assert!(*self.0.get_or_insert_with(|| bits.clone()) == bits, "{what}: other bits than in another order");
        }
    }
}

/// What the numbers are like.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    Normal,
    /// All timesteps are the same, so all scores are equal.
    Equal,
    /// Weights so large that one score takes all.
    Extreme,
    /// One timestep has a key twenty times longer than the others.
    HugeKey,
}

#[derive(Debug, Clone, Copy)]
pub struct Case {
    pub n: usize,
    pub t: usize,
    pub e: usize,
    pub h: usize,
    pub from: usize,
    pub kind: Kind,
}

const fn case(n: usize, t: usize, from: usize) -> Case {
    Case { n, t, e: 96, h: 12, from, kind: Kind::Normal }
}

/// Below, at and above every tile; one sequence and several; a small model; rows that nobody needs.
pub const CASES: &[Case] = &[
    case(1, 1, 0),
    case(3, 15, 0),
    case(1, 16, 7),
    case(2, 17, 16),
    case(1, 31, 0),
    case(1, 128, 64),
    case(1, 255, 0),
    case(1, 256, 128),
    Case { e: 32, h: 4, ..case(2, 33, 1) },
    Case { e: 128, h: 16, ..case(1, 40, 0) },
    Case { kind: Kind::Equal, ..case(1, 31, 0) },
    Case { kind: Kind::Extreme, ..case(1, 31, 0) },
    Case { kind: Kind::HugeKey, ..case(1, 40, 0) },
    // A window of a whole head: slots of seven sequences, more blocks than multiprocessors.
    case(306, 3, 1),
];

/// What takes too long for every day: every number of timesteps beside a tile's, alone and as a window of a whole head.
const CROSS: &[Case] = &[
    case(2, 128, 0),
    case(2, 129, 1),
    case(2, 255, 127),
    case(3, 256, 0),
    case(306, 17, 0),
    case(306, 256, 128),
    Case { e: 32, h: 4, ..case(2, 256, 0) },
    Case { e: 64, h: 8, ..case(2, 256, 128) },
    Case { e: 128, h: 16, ..case(2, 256, 0) },
    Case { kind: Kind::Equal, ..case(2, 256, 0) },
    Case { kind: Kind::HugeKey, ..case(2, 256, 0) },
    Case { e: 240, h: 12, ..case(2, 256, 128) },
    Case { e: 240, h: 12, ..case(306, 17, 1) },
];

/// What only the general kernels know: heads of every width, one of them and many, odd ones, and widths that no fragment
/// divides; below, at and above every tile; the paper's group model.
pub const GENERAL: &[Case] = &[
    Case { e: 8, h: 1, ..case(1, 1, 0) },
    Case { e: 1, h: 1, ..case(2, 2, 1) },
    Case { e: 20, h: 4, ..case(3, 15, 0) },
    Case { e: 20, h: 20, ..case(2, 17, 16) },
    Case { e: 15, h: 3, ..case(1, 257, 128) },
    Case { e: 8, h: 1, ..case(1, 300, 0) },
    Case { e: 240, h: 12, ..case(1, 65, 31) },
    Case { e: 240, h: 1, ..case(1, 20, 0) },
    Case { e: 128, h: 2, ..case(2, 33, 7) },
    Case { e: 136, h: 17, ..case(1, 40, 1) },
    Case { e: 20, h: 2, kind: Kind::Equal, ..case(1, 64, 0) },
    Case { e: 40, h: 2, kind: Kind::Extreme, ..case(1, 31, 0) },
    Case { e: 40, h: 2, kind: Kind::HugeKey, ..case(1, 40, 0) },
    Case { e: 20, h: 4, ..case(306, 2, 0) },
];

/// Whether everything is asked for.
fn is_cross() -> bool {
    std::env::var_os(CROSS_VARIABLE).is_some()
}

/// The cases of the fused kernels, or of the general ones.
pub fn cases(fused: bool) -> Vec<Case> {
    let cross = CROSS.iter().filter(|case| is_cross() && case.shape(256).is_fused() == fused);
    if fused { CASES } else { GENERAL }.iter().chain(cross).copied().collect()
}

impl Case {
    /// How the case is run: in every way where it is short (one sequence of a general shape: in one), and where it is long as the
    /// most likely to go wrong.
    pub fn runs(&self) -> &'static [Run] {
        let short = self.n * self.t <= 64;
        match self.shape(256).is_fused() {
            // One is enough of what takes minutes.
            _ if is_cross() && self.n * self.t <= 10_000 => ALL_RUNS,
            true if short => RUNS,
            true if [255, 3].contains(&self.t) => LONG_WHOLE,
            true => LONG,
            false if short && self.n > 1 => GENERAL_RUNS,
            false => &GENERAL_RUNS[1..2],
        }
    }

    /// The units that the unfused computation is done in, of which the middle one by its error counts. A gradient to which one long key
    /// gives nearly all is a small difference of large numbers, so its error is a few roundings', and by chance: in nine units that
    /// of one sequence's norm lay between 0.17 and 0.56.
    pub fn units(&self) -> &'static [f64] {
        if self.kind == Kind::HugeKey { &[1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7, 1.8] } else { &[1.0] }
    }

    pub fn shape(&self, n_level: usize) -> Shape {
        Shape { d_model: self.e, n_head: self.h, n_time: self.t, n_level }
    }
}

impl Data {
    /// The residual stream of each sequence, [N, T, E].
    pub fn stream(&mut self, case: &Case) -> Vec<f32> {
        let Case { n, t, e, .. } = *case;
        match case.kind {
            Kind::Equal => (0..n).flat_map(|_| self.floats(e, 1.0).repeat(t)).collect(),
            _ => self.floats(n * t * e, 1.5),
        }
    }

    /// norm (weight, bias), first [E, wide] + [wide], proj [inner, E] + [E].
    pub fn half_block(&mut self, case: &Case, wide: usize, inner: usize) -> Vec<Vec<f32>> {
        let e = case.e;
        let gain = if case.kind == Kind::Extreme { 20.0 } else { 1.5 };
        let [weight, bias] = self.norm(e);
        let first = self.floats(e * wide, gain / (e as f32).sqrt());
        let proj = self.floats(inner * e, 1.0 / (inner as f32).sqrt());
        vec![weight, bias, first, self.floats(wide, 0.5), proj, self.floats(e, 0.5)]
    }
}

/// The oracle's half-block of such parameters.
pub fn oracle_half_block(parts: &[Vec<f32>], e: usize, wide: usize, inner: usize) -> HalfBlock {
    let row = |i: usize| parts[i].iter().map(|&x| Number::from(x)).collect();
    let matrix = |i: usize, rows: usize, columns: usize| Matrix::exact(rows, columns, &parts[i]);
    HalfBlock {
        norm: Affine { weight: matrix(0, 1, e), bias: row(1) },
        first: Affine { weight: matrix(2, e, wide), bias: row(3) },
        proj: Affine { weight: matrix(4, inner, e), bias: row(5) },
    }
}

pub fn values(matrix: &Matrix) -> Vec<f64> {
    matrix.data.iter().map(|number| number.v).collect()
}

/// `a − b`, in f64: what a half-block adds to its input.
pub fn difference(a: &[f32], b: &[f32]) -> Vec<f64> {
    a.iter().zip(b).map(|(&a, &b)| f64::from(a) - f64::from(b)).collect()
}

/// Gradients of one parameter after another, for each sequence: the truth, and as the unfused computation has them.
#[derive(Default)]
pub struct Gradients {
    pub truth: Vec<Vec<Vec<f64>>>,
    pub unfused: Vec<Vec<Vec<f64>>>,
}

/// Names of a half-block's parameters.
pub const HALF_BLOCK: [&str; 6] =
    ["norm weight", "norm bias", "first weight", "first bias", "proj weight", "proj bias"];

pub fn half_block_gradients(grads: HalfBlock) -> Vec<Vec<f64>> {
    let HalfBlock { norm, first, proj } = grads;
    let row = |row: Vec<Number>| row.iter().map(|x| x.v).collect::<Vec<_>>();
    [norm, first, proj].into_iter().flat_map(|affine| [values(&affine.weight), row(affine.bias)]).collect()
}

/// The call of a case, with gradients of `len` floats a slot: few slots, so that some hold several sequences and none is the
/// first; all of them where there are as many sequences.
pub fn part(case: &Case, len: usize) -> Part {
    let slots = if case.n < GRAD_SLOTS { 2 } else { GRAD_SLOTS };
    Part { n: case.n, first: GRAD_SLOTS - 1, from: case.from, slots, slot_len: len }
}

/// What the slots of a part hold before.
pub fn before(part: &Part, data: &mut Data) -> Vec<f32> {
    data.floats(part.slots * part.slot_len, 0.1)
}

/// Judges what each slot gained, parameter by parameter.
pub fn judge_slots(what: &str, part: &Part, names: &[&str], before: &[f32], after: &[f32], grads: &Gradients) {
    for slot in 0..part.slots {
        let range = slot * part.slot_len..(slot + 1) * part.slot_len;
        let gained = difference(&after[range.clone()], &before[range.clone()]);
        let mine: Vec<usize> = (0..part.n).filter(|i| (part.first + i) % part.slots == slot).collect();
        if mine.is_empty() {
            assert_eq!(before[range.clone()], after[range], "{what}: slot {slot} is nobody's");
            continue;
        }
        let mut offset = 0;
        for (k, name) in names.iter().enumerate() {
            let total = |all: &[Vec<Vec<f64>>]| {
                let mut sum = vec![0.0; all[0][k].len()];
                mine.iter().for_each(|&i| sum.iter_mut().zip(&all[i][k]).for_each(|(sum, x)| *sum += x));
                sum
            };
            let (truth, unfused) = (total(&grads.truth), total(&grads.unfused));
            judge(&format!("{what}, gradient of {name}"), &gained[offset..][..truth.len()], &truth, &unfused);
            offset += truth.len();
        }
    }
}
