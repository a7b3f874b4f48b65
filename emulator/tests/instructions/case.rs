//! What a case is, and how a table of cases is run.

use crate::exact::{DOUBLE, Format};

/// What an operand holds. Decides its register, its values, and how results are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    S8,
    U8,
    S16,
    U16,
    S32,
    U32,
    S64,
    U64,
    F16,
    Bf16,
    F32,
    F64,
    F16x2,
    Bf16x2,
    Predicate,
    /// Whole numbers of at most eight, whose products and sums are exact in every format: two halves,
    SmallHalves,
    /// two bfloats,
    SmallBfloats,
    /// a single.
    SmallSingle,
}

use Kind::*;

impl Kind {
    /// The integers of arithmetic, with their names in PTX.
    pub const INTEGERS: [(&'static str, Kind); 6] =
        [("s16", S16), ("u16", U16), ("s32", S32), ("u32", U32), ("s64", S64), ("u64", U64)];

    pub fn bits(self) -> u32 {
        match self {
            S8 | U8 => 8,
            S16 | U16 | F16 | Bf16 => 16,
            S32 | U32 | F32 | F16x2 | Bf16x2 | Predicate | SmallHalves | SmallBfloats | SmallSingle => 32,
            S64 | U64 | F64 => 64,
        }
    }

    pub fn signed(self) -> bool {
        matches!(self, S8 | S16 | S32 | S64)
    }

    /// The value of an integer operand.
    pub fn value(self, bits: u64) -> i128 {
        let unused = 64 - self.bits();
        if self.signed() { i128::from((bits << unused) as i64 >> unused) } else { i128::from(bits << unused >> unused) }
    }

    /// A result cut to the operand's width.
    pub fn wrap(self, value: i128) -> u64 {
        value as u64 & (u64::MAX >> (64 - self.bits()))
    }

    /// The least value of an integer.
    pub fn least(self) -> i128 {
        if self.signed() { -(1i128 << (self.bits() - 1)) } else { 0 }
    }

    /// The greatest value of an integer.
    pub fn greatest(self) -> i128 {
        if self.signed() { (1i128 << (self.bits() - 1)) - 1 } else { (1i128 << self.bits()) - 1 }
    }

    /// The format of a float, or of each half of a packed one.
    pub fn format(self) -> Option<Format> {
        match self {
            F16 | F16x2 | SmallHalves => Some(crate::exact::HALF),
            Bf16 | Bf16x2 | SmallBfloats => Some(crate::exact::BFLOAT),
            F32 | SmallSingle => Some(crate::exact::SINGLE),
            F64 => Some(crate::exact::DOUBLE),
            _ => None,
        }
    }

    fn packed(self) -> bool {
        matches!(self, F16x2 | Bf16x2 | SmallHalves | SmallBfloats)
    }

    pub fn register(self) -> &'static str {
        match self {
            Predicate => ".pred",
            kind if kind.bits() == 64 => ".b64",
            kind if kind.bits() == 32 => ".b32",
            _ => ".b16",
        }
    }

    pub fn memory(self) -> &'static str {
        match self.bits() {
            8 if self.signed() => "s8",
            8 => "u8",
            16 => "b16",
            32 => "b32",
            _ => "b64",
        }
    }

    fn small(self) -> bool {
        matches!(self, SmallHalves | SmallBfloats | SmallSingle)
    }

    /// Values at which this kind is likely to go wrong.
    fn edges(self) -> Vec<u64> {
        if self.small() {
            return Vec::new();
        }
        if let Some(format) = self.format() {
            let edges = float_edges(format);
            if !self.packed() {
                return edges;
            }
            let n = edges.len();
            return (0..n).map(|i| edges[i] | edges[(i * 7 + 3) % n] << 16).collect();
        }
        if self == Predicate {
            return vec![0, 1];
        }
        let (low, high) = (self.least(), self.greatest());
        let all = [0, 1, 2, 3, 5, 7, 8, 15, 16, 31, 32, 33, 63, 64, 100, 127, 255, -1, -2, -3, -7, -100];
        let mut values: Vec<u64> = all.iter().map(|&v| self.wrap(v)).collect();
        values.extend([low, low + 1, high, high - 1, high / 2, high / 3, high / 3 * 2].map(|v| self.wrap(v)));
        values.sort_unstable();
        values.dedup();
        values
    }

    /// A random value; floats half the time of ordinary size.
    fn random(self, random: &mut Random) -> u64 {
        let bits = random.next();
        let cut = bits & (u64::MAX >> (64 - self.bits()));
        match self.format() {
            _ if self == Predicate => bits >> 13 & 1,
            Some(_) if self.small() => {
                let low = bits_of(self, (bits % 17) as f64 - 8.0);
                if self.packed() { low | bits_of(self, (bits >> 8 & 15) as f64 - 7.0) << 16 } else { low }
            }
            Some(format) if random.next() & 1 == 0 => {
                let ordinary = |bits: u64, spread: u64| {
                    let fraction = bits & ((1 << (format.precision - 1)) - 1);
                    let exponent = (1u64 << (format.exponent_bits - 1)) - 1 - 6 + spread % 12;
                    fraction
                        | exponent << (format.precision - 1)
                        | (bits >> 63) << (format.precision + format.exponent_bits - 1)
                };
                let low = ordinary(bits, random.next());
                if self.packed() { low | ordinary(random.next(), random.next()) << 16 } else { low }
            }
            // Small integers half the time: what is a shift count, a divisor.
            None if random.next() & 1 == 0 => self.wrap(bits as i128 >> (random.next() % 64) as u32),
            _ => cut,
        }
    }
}

fn float_edges(format: Format) -> Vec<u64> {
    let one = format.infinity() >> 1 & (u64::MAX << (format.precision - 1));
    let unit = 1u64 << (format.precision - 1);
    let sign = format.sign_bit();
    let positive = [
        0,
        1,
        2,
        unit / 2 + 1,
        unit - 1,
        unit,
        unit + 1,
        one - unit,
        one - 1,
        one,
        one + 1,
        one + unit / 2,
        one + unit,
        one + unit + unit / 4,
        one + 4 * unit + unit / 8,
        format.infinity() - 1,
        format.infinity(),
        format.infinity() + unit / 2,
    ];
    positive.iter().flat_map(|&bits| [bits, bits | sign]).collect()
}

/// SplitMix64.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Random(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }
}

/// What must come out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Want {
    /// These bits; for a float, any NaN where the bits are a NaN.
    Bits(u64),
    /// One of two, where the manual leaves the choice.
    Either(u64, u64),
    /// Within a distance of a real number; where that is infinite or NaN, exactly so.
    Near { value: f64, bound: f64 },
    /// The manual leaves it open.
    Any,
}

/// What one lane must give for its operands.
type OfLane = Box<dyn Fn(&[u64]) -> Vec<Want> + Send + Sync>;
/// What the threads of a group must give for theirs, one list per thread.
type OfGroup = Box<dyn Fn(&[Vec<u64>]) -> Vec<Vec<Want>> + Send + Sync>;

pub enum Expect {
    Lane(OfLane),
    Group(usize, OfGroup),
}

/// A line of PTX, and what it must do. Operands are `%a`, `%b`, `%c`, `%f`; results are `%d` and `%e`.
pub struct Case {
    pub name: String,
    pub body: String,
    pub inputs: Vec<Kind>,
    pub outputs: Vec<Kind>,
    pub expect: Expect,
}

impl Case {
    /// A case with one result.
    pub fn new(
        body: impl Into<String>,
        inputs: &[Kind],
        output: Kind,
        expect: impl Fn(&[u64]) -> Want + Send + Sync + 'static,
    ) -> Self {
        Self::with_outputs(body, inputs, &[output], move |x| vec![expect(x)])
    }

    /// A case with several results.
    pub fn with_outputs(
        body: impl Into<String>,
        inputs: &[Kind],
        outputs: &[Kind],
        expect: impl Fn(&[u64]) -> Vec<Want> + Send + Sync + 'static,
    ) -> Self {
        let expect = Expect::Lane(Box::new(expect));
        let body = body.into();
        Case { name: body.clone(), body, inputs: inputs.to_vec(), outputs: outputs.to_vec(), expect }
    }

    /// A case whose threads depend on each other: warps of 32, blocks of [`BLOCK`], or all [`THREADS`].
    pub fn of_group(
        body: impl Into<String>,
        inputs: &[Kind],
        outputs: &[Kind],
        group: usize,
        expect: impl Fn(&[Vec<u64>]) -> Vec<Vec<Want>> + Send + Sync + 'static,
    ) -> Self {
        let expect = Expect::Group(group, Box::new(expect));
        let body = body.into();
        Case { name: body.clone(), body, inputs: inputs.to_vec(), outputs: outputs.to_vec(), expect }
    }
}

/// Threads that run a case: blocks of 128.
pub const THREADS: usize = 1024;
pub const BLOCK: u32 = 128;

/// The operands of all threads: edges against edges, then random ones.
pub fn operands(case: &Case) -> Vec<Vec<u64>> {
    let mut random = Random::new(0x5eed);
    let edges: Vec<Vec<u64>> = case.inputs.iter().map(|kind| kind.edges()).collect();
    (0..THREADS)
        .map(|thread| {
            let mut left = thread;
            let exhaustive = edges.iter().take(2).map(Vec::len).product::<usize>();
            (case.inputs.iter().zip(&edges).enumerate())
                .map(|(i, (kind, edges))| {
                    if thread < exhaustive && i < 2 {
                        let value = edges[left % edges.len()];
                        left /= edges.len();
                        value
                    } else if random.next().is_multiple_of(3) && !edges.is_empty() {
                        edges[random.next() as usize % edges.len()]
                    } else {
                        kind.random(&mut random)
                    }
                })
                .collect()
        })
        .collect()
}

/// Whether a result is what it must be.
pub fn agrees(kind: Kind, got: u64, want: Want) -> bool {
    let equal = |want: u64| match kind.format() {
        Some(format) if kind.packed() => [0, 16].iter().all(|&shift| {
            let (got, want) = (got >> shift & 0xffff, want >> shift & 0xffff);
            got == want || (format.is_nan(got) && format.is_nan(want))
        }),
        Some(format) => got == want || (format.is_nan(got) && format.is_nan(want)),
        None => got == want,
    };
    match want {
        Want::Any => true,
        Want::Bits(want) => equal(want),
        Want::Either(one, other) => equal(one) || equal(other),
        Want::Near { value, bound } => {
            let got = crate::exact::approximately(kind.format().expect("a float").decode(got, false));
            if value.is_nan() {
                got.is_nan()
            } else if value.is_infinite() || got.is_infinite() || got.is_nan() {
                got == value
            } else {
                (got - value).abs() <= bound
            }
        }
    }
}

/// A number of one of the formats, as its bits.
pub fn bits_of(kind: Kind, value: f64) -> u64 {
    let number = DOUBLE.decode(value.to_bits(), false);
    kind.format().expect("a float").encode(number, crate::exact::Round::Nearest, false)
}
