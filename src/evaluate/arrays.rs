//! Arrays as numpy's files, in memory.

use npyz::{AutoSerialize, Serialize, WriterBuilder};

/// A float64 array in row-major order.
pub fn f64s(shape: &[usize], values: &[f64]) -> Vec<u8> {
    array(shape, values.iter().copied())
}

/// A float32 array in row-major order.
pub fn f32s(shape: &[usize], values: &[f64]) -> Vec<u8> {
    array(shape, values.iter().map(|&x| x as f32))
}

fn array<T: Serialize + AutoSerialize>(shape: &[usize], values: impl ExactSizeIterator<Item = T>) -> Vec<u8> {
    assert_eq!(shape.iter().product::<usize>(), values.len());
    let shape: Vec<u64> = shape.iter().map(|&n| n as u64).collect();
    let mut bytes = Vec::new();
    let options = npyz::WriteOptions::new().default_dtype().shape(&shape);
    let mut writer = options.writer(&mut bytes).begin_nd().expect("writing to memory");
    writer.extend(values).expect("writing to memory");
    writer.finish().expect("writing to memory");
    bytes
}
