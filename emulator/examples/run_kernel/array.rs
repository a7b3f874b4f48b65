//! Arrays as numpy writes them.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read};
use std::path::Path;

use half::{bf16, f16};
use npyz::{DType, NpyHeader, Order, WriterBuilder};

/// The type of an array's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element {
    I8,
    U8,
    I16,
    U16,
    I32,
    U32,
    I64,
    U64,
    F16,
    /// Not known to numpy: read from wider floats and saved as fp32.
    Bf16,
    F32,
    F64,
}

use Element::*;

/// Each element's name here and, where numpy has it, there.
const NAMES: [(&str, Element, &str); 12] = [
    ("i8", I8, "|i1"),
    ("u8", U8, "|u1"),
    ("i16", I16, "<i2"),
    ("u16", U16, "<u2"),
    ("i32", I32, "<i4"),
    ("u32", U32, "<u4"),
    ("i64", I64, "<i8"),
    ("u64", U64, "<u8"),
    ("f16", F16, "<f2"),
    ("bf16", Bf16, ""),
    ("f32", F32, "<f4"),
    ("f64", F64, "<f8"),
];

impl Element {
    pub fn parse(name: &str) -> Result<Self, String> {
        let found = NAMES.iter().find(|(ours, ..)| *ours == name).map(|(_, element, _)| *element);
        found.ok_or_else(|| {
            let names: Vec<&str> = NAMES.iter().map(|(name, ..)| *name).collect();
            format!("{name:?} is no type; types are {}", names.join(", "))
        })
    }

    pub fn bytes(self) -> usize {
        match self {
            I8 | U8 => 1,
            I16 | U16 | F16 | Bf16 => 2,
            I32 | U32 | F32 => 4,
            I64 | U64 | F64 => 8,
        }
    }

    /// The bytes of a number in decimal.
    pub fn number(self, text: &str) -> Result<Vec<u8>, String> {
        let failed = |e: &dyn std::fmt::Display| format!("{text:?}: {e}");
        if matches!(self, F16 | Bf16 | F32 | F64) {
            let value: f64 = text.parse().map_err(|e| failed(&e))?;
            return Ok(self.float(value));
        }
        let value: i128 = text.parse().map_err(|e| failed(&e))?;
        let bits = 8 * self.bytes() as u32;
        let signed = matches!(self, I8 | I16 | I32 | I64);
        let (least, most) =
            if signed { (-(1i128 << (bits - 1)), (1i128 << (bits - 1)) - 1) } else { (0, (1i128 << bits) - 1) };
        if !(least..=most).contains(&value) {
            return Err(format!("{text} does not fit into {bits} bits"));
        }
        Ok(value.to_le_bytes()[..self.bytes()].to_vec())
    }

    /// The bytes of a float, rounded to this type.
    fn float(self, value: f64) -> Vec<u8> {
        match self {
            F16 => f16::from_f64(value).to_le_bytes().to_vec(),
            Bf16 => bf16::from_f64(value).to_le_bytes().to_vec(),
            F32 => (value as f32).to_le_bytes().to_vec(),
            _ => value.to_le_bytes().to_vec(),
        }
    }

    /// An element's value, for printing: integers beyond 53 bits lose digits.
    fn value(self, bytes: &[u8]) -> f64 {
        macro_rules! read {
            ($t:ty) => {
                <$t>::from_le_bytes(bytes.try_into().expect("an element's bytes"))
            };
        }
        match self {
            I8 => read!(i8).into(),
            U8 => read!(u8).into(),
            I16 => read!(i16).into(),
            U16 => read!(u16).into(),
            I32 => read!(i32).into(),
            U32 => read!(u32).into(),
            I64 => read!(i64) as f64,
            U64 => read!(u64) as f64,
            F16 => read!(f16).into(),
            Bf16 => read!(bf16).into(),
            F32 => read!(f32).into(),
            F64 => read!(f64),
        }
    }
}

/// An array, in C order.
#[derive(Clone, Debug)]
pub struct Array {
    pub element: Element,
    pub shape: Vec<u64>,
    pub bytes: Vec<u8>,
}

impl Array {
    /// The same values, each rounded to a shorter float.
    pub fn narrowed(self, to: Element) -> Result<Self, String> {
        if !matches!(self.element, F32 | F64) || !matches!(to, F16 | Bf16 | F32) {
            return Err(format!(
                "only f32 and f64 arrays can be narrowed, to f16, bf16 or f32; this one is {:?}",
                self.element
            ));
        }
        let values = self.bytes.chunks(self.element.bytes()).map(|bytes| self.element.value(bytes));
        let bytes = values.flat_map(|value| to.float(value)).collect();
        Ok(Array { element: to, bytes, ..self })
    }
}

/// Numbers without a pattern, always the same: floats from -1 to 1, integers from 0 to 99.
pub fn random(element: Element, count: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state >> 40
    };
    (0..count)
        .flat_map(|_| match element {
            F16 | Bf16 | F32 | F64 => element.float(next() as f64 / f64::from(1 << 23) - 1.0),
            _ => (next() % 100).to_le_bytes()[..element.bytes()].to_vec(),
        })
        .collect()
}

/// Reads an array.
pub fn read(path: &Path) -> Result<Array, String> {
    let failed = |e: std::io::Error| format!("{}: {e}", path.display());
    let mut reader = BufReader::new(File::open(path).map_err(failed)?);
    let header = NpyHeader::from_reader(&mut reader).map_err(failed)?;
    let DType::Plain(dtype) = header.dtype() else {
        return Err(format!("{}: arrays of records are not supported", path.display()));
    };
    let name = dtype.to_string();
    let element = NAMES.iter().find(|(_, _, theirs)| *theirs == name).map(|(_, element, _)| *element);
    let element = element.ok_or_else(|| format!("{}: elements of type {name} are not supported", path.display()))?;
    let shape = header.shape().to_vec();
    if header.order() == Order::Fortran && shape.len() > 1 {
        return Err(format!("{}: the array is in Fortran order; save numpy.ascontiguousarray of it", path.display()));
    }
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes).map_err(failed)?;
    let wanted = shape.iter().product::<u64>() * element.bytes() as u64;
    if bytes.len() as u64 != wanted {
        return Err(format!("{}: has {} bytes of data where its shape needs {wanted}", path.display(), bytes.len()));
    }
    Ok(Array { element, shape, bytes })
}

/// Writes an array; bf16 as fp32, for numpy has no such type.
pub fn write(path: &Path, element: Element, shape: &[u64], bytes: &[u8]) -> Result<(), String> {
    let failed = |e: std::io::Error| format!("{}: {e}", path.display());
    let writer = BufWriter::new(File::create(path).map_err(failed)?);
    macro_rules! save {
        ($t:ty, $values:expr) => {{
            let mut npy = npyz::WriteOptions::<$t>::new()
                .default_dtype()
                .shape(shape)
                .writer(writer)
                .begin_nd()
                .map_err(failed)?;
            npy.extend($values).map_err(failed)?;
            npy.finish().map_err(failed)
        }};
        ($t:ty) => {
            save!(
                $t,
                bytes.chunks(size_of::<$t>()).map(|b| <$t>::from_le_bytes(b.try_into().expect("an element's bytes")))
            )
        };
    }
    match element {
        I8 => save!(i8),
        U8 => save!(u8),
        I16 => save!(i16),
        U16 => save!(u16),
        I32 => save!(i32),
        U32 => save!(u32),
        I64 => save!(i64),
        U64 => save!(u64),
        F16 | Bf16 => save!(f32, bytes.chunks(2).map(|b| element.value(b) as f32)),
        F32 => save!(f32),
        F64 => save!(f64),
    }
}

/// Type and shape, the range, and the first few values.
pub fn summary(element: Element, shape: &[u64], bytes: &[u8]) -> String {
    let values: Vec<f64> = bytes.chunks(element.bytes()).map(|bytes| element.value(bytes)).collect();
    let name = NAMES.iter().find(|(_, e, _)| *e == element).map_or("", |(name, ..)| name);
    let extents: Vec<String> = shape.iter().map(u64::to_string).collect();
    let mut text = format!("{name}[{}]", extents.join(","));
    let numbers: Vec<f64> = values.iter().copied().filter(|value| !value.is_nan()).collect();
    if !numbers.is_empty() {
        let least = numbers.iter().copied().fold(f64::INFINITY, f64::min);
        let most = numbers.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let mean = numbers.iter().sum::<f64>() / numbers.len() as f64;
        text.push_str(&format!(", least {least}, most {most}, mean {mean:.6}"));
    }
    if numbers.len() < values.len() {
        text.push_str(&format!(", {} NaN", values.len() - numbers.len()));
    }
    let first: Vec<String> = values.iter().take(8).map(f64::to_string).collect();
    let more = if values.len() > 8 { ", …" } else { "" };
    format!("{text}: {}{more}", first.join(", "))
}
