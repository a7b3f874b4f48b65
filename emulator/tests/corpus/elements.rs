//! Kernels whose threads work apart: vectors, halves, 64 bits, integers, local and constant memory.

use half::{bf16, f16};

use crate::args;
use crate::check::{Numbers, ROUNDING, close, equal, everywhere};
use crate::support::job::Job;

#[test]
fn saxpy() {
    for n in [0usize, 1, 31, 1000] {
        let mut numbers = Numbers::new(1);
        let (x, y) = (numbers.units(n.max(1)), numbers.units(n.max(1)));
        let mut job = Job::new();
        let (of_x, of_y) = (job.buffer(&x), job.buffer(&y));
        job.launch("saxpy", 3, 64, args![n as i32, 0.37f32, of_x, of_y]);
        // The compiler fuses product and sum: one rounding.
        let want: Vec<f32> = (0..y.len()).map(|i| if i < n { 0.37f32.mul_add(x[i], y[i]) } else { y[i] }).collect();
        everywhere("vector.cu", &job, |outcome| equal("y", &outcome.values::<f32>(of_y), &want));
    }
}

#[test]
fn scale_by_four() {
    for n in [1usize, 4, 257, 510] {
        let x = Numbers::new(2).units(n);
        let mut job = Job::new();
        let (of_x, of_y) = (job.buffer(&x), job.output::<f32>(n));
        job.launch("scale_by_four", (n as u32).div_ceil(256), 64, args![n as i32, 1.5f32, of_x, of_y]);
        let want: Vec<f32> = x.iter().map(|x| 1.5 * x).collect();
        everywhere("vector.cu", &job, |outcome| equal("y", &outcome.values::<f32>(of_y), &want));
    }
}

#[test]
fn to_upper() {
    let text: Vec<u8> = (0..=255).cycle().take(700).collect();
    let mut job = Job::new();
    let (of_x, of_y) = (job.buffer(&text), job.output::<u8>(text.len()));
    job.launch("to_upper", 6, 128, args![text.len() as i32, of_x, of_y]);
    everywhere("vector.cu", &job, |outcome| equal("upper", &outcome.values::<u8>(of_y), &text.to_ascii_uppercase()));
}

#[test]
fn complex_product() {
    let n = 100;
    let mut numbers = Numbers::new(3);
    let x: Vec<i16> = (0..2 * n).map(|_| numbers.word() as i16).collect();
    let w = numbers.units(2 * n);
    let mut job = Job::new();
    let (of_x, of_w, of_y) = (job.buffer(&x), job.buffer(&w), job.output::<f32>(2 * n));
    job.launch("complex_product", 4, 32, args![n as i32, of_x, of_w, of_y]);
    let part = |i: usize, which: usize| {
        let (re, im) = (f64::from(x[2 * i]), f64::from(x[2 * i + 1]));
        let (a, b) = (f64::from(w[2 * i]), f64::from(w[2 * i + 1]));
        if which == 0 {
            (re * a - im * b, (re * a).abs() + (im * b).abs())
        } else {
            (re * b + im * a, (re * b).abs() + (im * a).abs())
        }
    };
    let want: Vec<f64> = (0..2 * n).map(|i| part(i / 2, i % 2).0).collect();
    everywhere("vector.cu", &job, |outcome| {
        // Two products and a sum: at most three roundings of what is at most the sum of the magnitudes.
        close("y", &outcome.values::<f32>(of_y), &want, |i| 3.0 * ROUNDING * part(i / 2, i % 2).1);
    });
}

#[test]
fn half_arithmetic() {
    let n = 200;
    let mut numbers = Numbers::new(4);
    let halves =
        |numbers: &mut Numbers, n: usize| -> Vec<f16> { (0..n).map(|_| f16::from_f32(4.0 * numbers.unit())).collect() };
    let (x, y) = (halves(&mut numbers, 2 * n), halves(&mut numbers, 2 * n));
    let mut job = Job::new();
    let (of_x, of_y) = (job.buffer(&x), job.buffer(&y));
    job.launch("half2_axpy", 4, 64, args![n as i32, 0.3f32, of_x, of_y]);
    let (a, b) = (halves(&mut numbers, n), halves(&mut numbers, n));
    let (of_a, of_b, of_steps) = (job.buffer(&a), job.buffer(&b), job.output::<f16>(n));
    job.launch("half_steps", 4, 64, args![n as i32, of_a, of_b, of_steps]);
    // Products and sums of halves are exact in double: one rounding each, as the instruction has.
    let round = |v: f64| f16::from_f64(v);
    let wide = |v: f16| v.to_f64();
    let axpy: Vec<f16> = (0..2 * n).map(|i| round(wide(f16::from_f32(0.3)) * wide(x[i]) + wide(y[i]))).collect();
    let steps: Vec<f16> = (0..n)
        .map(|i| {
            let s = round(wide(a[i]) + wide(b[i]));
            let p = round(wide(s) * wide(f16::from_f32(0.3)));
            let d = round(wide(p) - wide(a[i]));
            let m = if wide(-d) > wide(b[i]).abs() { -d } else { f16::from_f64(wide(b[i]).abs()) };
            if m < s { round(wide(m) * wide(d) + wide(s)) } else { s }
        })
        .collect();
    let bits = |v: Vec<f16>| -> Vec<u16> { v.into_iter().map(f16::to_bits).collect() };
    everywhere("half.cu", &job, |outcome| {
        equal("axpy", &bits(outcome.values(of_y)), &bits(axpy.clone()));
        equal("steps", &bits(outcome.values(of_steps)), &bits(steps.clone()));
    });
}

#[test]
fn bfloat_arithmetic() {
    let n = 150;
    let mut numbers = Numbers::new(5);
    let values: Vec<bf16> = (0..4 * n).map(|_| bf16::from_f32(3.0 * numbers.unit())).collect();
    let (a, b) = values.split_at(2 * n);
    let mut job = Job::new();
    let (of_a, of_b) = (job.buffer(a), job.buffer(b));
    let (of_y, of_sum) = (job.output::<bf16>(2 * n), job.output::<f32>(n));
    job.launch("bfloat_steps", 3, 64, args![n as i32, of_a, of_b, of_y, of_sum]);
    let round = |v: f64| bf16::from_f64(v);
    let wide = |v: bf16| v.to_f64();
    let y: Vec<bf16> = (0..2 * n)
        .map(|i| {
            let s = round(wide(a[i]) + wide(b[i]));
            let p = round(wide(s) * wide(a[i]));
            let f = round((wide(p) * wide(b[i]) + wide(s)).max(0.0));
            if wide(f) > -wide(s) { f } else { -s }
        })
        .collect();
    everywhere("half.cu", &job, |outcome| {
        let got = outcome.values::<bf16>(of_y);
        equal(
            "y",
            &got.iter().map(|v| v.to_f32()).collect::<Vec<_>>(),
            &y.iter().map(|v| v.to_f32()).collect::<Vec<_>>(),
        );
        let sums: Vec<f32> = y.chunks(2).map(|pair| pair[0].to_f32() + pair[1].to_f32()).collect();
        equal("sum", &outcome.values::<f32>(of_sum), &sums);
    });
}

#[test]
fn narrowing() {
    let mut numbers = Numbers::new(6);
    let mut x: Vec<f32> = (0..400).map(|i| numbers.unit() * f32::powi(2.0, i % 40 - 20)).collect();
    x.extend([0.0, -0.0, 1.0, 65504.0, 65519.9, 65520.0, 1e-8, -6e-8, 3.4e38, f32::INFINITY, -1e30]);
    let mut job = Job::new();
    let (of_x, of_y) = (job.buffer(&x), job.output::<u16>(6 * x.len()));
    job.launch("narrow", 4, 128, args![x.len() as i32, of_x, of_y]);
    // The nearest, and from it the neighbour on the side that the mode wants.
    let toward = |x: f32, nearest: f16, up: Option<bool>| -> u16 {
        let bits = nearest.to_bits();
        let step = |up: bool| {
            // Along the line of all halves, which the bits follow on each side of zero.
            if nearest.to_f32() == 0.0 {
                return if up { 1 } else { 0x8001 };
            }
            if up != nearest.is_sign_negative() { bits + 1 } else { bits - 1 }
        };
        let up = up.unwrap_or(x < 0.0);
        if (up && nearest.to_f32() < x) || (!up && nearest.to_f32() > x) { step(up) } else { bits }
    };
    let want: Vec<u16> = x
        .iter()
        .flat_map(|&x| {
            let half = f16::from_f32(x);
            let cut = ((x.to_bits() >> 16) as u16, bf16::from_f32(x).to_bits());
            [
                half.to_bits(),
                toward(x, half, None),
                toward(x, half, Some(false)),
                toward(x, half, Some(true)),
                cut.1,
                cut.0,
            ]
        })
        .collect();
    everywhere("half.cu", &job, |outcome| equal("narrowed", &outcome.values::<u16>(of_y), &want));
}

#[test]
fn wide_integers() {
    let n = 100;
    let mut numbers = Numbers::new(7);
    let modulus = 4_294_967_291u64;
    let base: Vec<u64> = (0..n).map(|_| numbers.word()).collect();
    let exponent: Vec<u64> = (0..n).map(|i| numbers.word() >> (i % 64)).collect();
    let mut job = Job::new();
    let (of_base, of_exponent) = (job.buffer(&base), job.buffer(&exponent));
    let of_power = job.output::<u64>(n);
    job.launch("modular_power", 4, 32, args![n as i32, modulus, of_base, of_exponent, of_power]);
    let (of_product, of_high, of_hash) = (job.output::<u64>(2 * n), job.output::<i64>(n), job.output::<u64>(n));
    job.launch("wide_product", 4, 32, args![n as i32, of_base, of_exponent, of_product, of_high, of_hash]);
    let power = |mut b: u64, mut e: u64| {
        let mut result = 1u128;
        b %= modulus;
        let mut b = u128::from(b);
        while e > 0 {
            if e & 1 == 1 {
                result = result * b % u128::from(modulus);
            }
            b = b * b % u128::from(modulus);
            e >>= 1;
        }
        result as u64
    };
    let powers: Vec<u64> = (0..n).map(|i| power(base[i], exponent[i])).collect();
    let products: Vec<u128> = (0..n).map(|i| u128::from(base[i]) * u128::from(exponent[i])).collect();
    let highs: Vec<i64> =
        (0..n).map(|i| ((i128::from(base[i] as i64) * i128::from(exponent[i] as i64)) >> 64) as i64).collect();
    let hashes: Vec<u64> = products
        .iter()
        .map(|p| {
            let mut h = *p as u64 ^ ((p >> 64) as u64).rotate_left(7);
            h ^= h.reverse_bits() >> 3;
            let first = if h == 0 { 0 } else { h.trailing_zeros() + 1 };
            let add = u64::from(h.count_ones()).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            h.wrapping_add(add).wrapping_add(u64::from(h.leading_zeros())).wrapping_add(u64::from(first))
        })
        .collect();
    everywhere("wide.cu", &job, |outcome| {
        equal("powers", &outcome.values::<u64>(of_power), &powers);
        let flat: Vec<u64> = products.iter().flat_map(|&p| [p as u64, (p >> 64) as u64]).collect();
        equal("products", &outcome.values::<u64>(of_product), &flat);
        equal("signed high", &outcome.values::<i64>(of_high), &highs);
        equal("hash", &outcome.values::<u64>(of_hash), &hashes);
    });
}

#[test]
fn double_functions() {
    let mut numbers = Numbers::new(8);
    let x: Vec<f64> =
        (0..120).map(|i| f64::from(numbers.unit()) * f64::powi(2.0, i % 12 - 4)).chain([0.0, 1.0, -8.0]).collect();
    let n = x.len();
    let mut job = Job::new();
    let (of_x, of_root, of_y) = (job.buffer(&x), job.output::<f64>(n), job.output::<f64>(6 * n));
    job.launch("double_functions", 4, 32, args![n as i32, of_x, of_root, of_y]);
    let (of_integer, of_unsigned, of_float) = (job.output::<i64>(2 * n), job.output::<u32>(n), job.output::<f32>(n));
    job.launch("convert", 4, 32, args![n as i32, of_x, of_integer, of_unsigned, of_float]);
    everywhere("wide.cu", &job, |outcome| {
        let (root, y) = (outcome.values::<f64>(of_root), outcome.values::<f64>(of_y));
        let (integers, unsigned, floats) =
            (outcome.values::<i64>(of_integer), outcome.values::<u32>(of_unsigned), outcome.values::<f32>(of_float));
        for (i, &v) in x.iter().enumerate() {
            let a = v.abs();
            let near = |what: &str, got: f64, want: f64, ulps: f64| {
                assert!(
                    (got - want).abs() <= ulps * f64::EPSILON * want.abs() + f64::MIN_POSITIVE,
                    "{what} of {v}: {got}, not {want}"
                );
            };
            // The library promises one or two units in the last place; the host's functions may be off by one.
            near("cube root", root[i], v.cbrt(), 4.0);
            assert_eq!(y[6 * i], a.sqrt(), "root of {a}");
            near("exp", y[6 * i + 1], (-a).exp(), 3.0);
            near("log", y[6 * i + 2], (a + 1.0).ln(), 3.0);
            near("sin", y[6 * i + 3], v.sin(), 3.0);
            assert_eq!(y[6 * i + 4], v.floor() + (2.5 * v).trunc() + (3.5 * v).round_ties_even(), "whole parts of {v}");
            assert_eq!(y[6 * i + 5], v.mul_add(v, -a) + v.min(0.5) + v % 0.7, "the rest of {v}");
            assert_eq!(integers[2 * i], v.round_ties_even() as i64);
            assert_eq!(integers[2 * i + 1], v as i64);
            assert_eq!(unsigned[i], a as u32);
            assert_eq!(floats[i], v as f32 + (v * 1e6) as i64 as f32);
        }
    });
}

#[test]
fn small_integer_dots() {
    let (rows, quads) = (70, 13);
    let mut numbers = Numbers::new(9);
    let matrix: Vec<i8> = (0..rows * quads * 4).map(|_| numbers.word() as i8).collect();
    let vector: Vec<i8> = (0..quads * 4).map(|_| numbers.word() as i8).collect();
    let mut job = Job::new();
    let (of_matrix, of_vector, of_y) = (job.buffer(&matrix), job.buffer(&vector), job.output::<i32>(rows));
    job.launch("dot_int8", 2, 64, args![rows as i32, quads as i32, of_matrix, of_vector, of_y]);
    let want: Vec<i32> = matrix
        .chunks(quads * 4)
        .map(|row| row.iter().zip(&vector).map(|(&a, &b)| i32::from(a) * i32::from(b)).sum())
        .collect();
    everywhere("integer.cu", &job, |outcome| equal("y", &outcome.values::<i32>(of_y), &want));
}

/// Philox by its definition, in wide integers.
fn philox(index: u32, seed: u64) -> [u32; 4] {
    let mut c = [index, 0, 0, 0];
    let mut key = [seed as u32, (seed >> 32) as u32];
    for _ in 0..10 {
        let (p, q) = (0xD251_1F53u64 * u64::from(c[0]), 0xCD9E_8D57u64 * u64::from(c[2]));
        c = [(q >> 32) as u32 ^ c[1] ^ key[0], q as u32, (p >> 32) as u32 ^ c[3] ^ key[1], p as u32];
        key = [key[0].wrapping_add(0x9E37_79B9), key[1].wrapping_add(0xBB67_AE85)];
    }
    c
}

#[test]
fn random_uniform() {
    // The known answer of the paper's code for a counter and a key of zero.
    assert_eq!(philox(0, 0), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
    let n = 501;
    let seed = 0x1234_5678_9abc_def0u64;
    let mut job = Job::new();
    let of_y = job.output::<f32>(n);
    job.launch("random_uniform", 2, 64, args![n as i32, seed, of_y]);
    let want: Vec<f32> = (0..n).map(|i| (philox(i as u32 / 4, seed)[i % 4] >> 8) as f32 / (1 << 24) as f32).collect();
    everywhere("integer.cu", &job, |outcome| equal("y", &outcome.values::<f32>(of_y), &want));
}

#[test]
fn checksums() {
    let (records, length) = (40, 33);
    let mut numbers = Numbers::new(10);
    let mut bytes: Vec<u8> = (0..records * length).map(|_| numbers.word() as u8).collect();
    bytes[..9].copy_from_slice(b"123456789");
    let mut job = Job::new();
    let (of_bytes, of_crc) = (job.buffer(&bytes), job.output::<u32>(records));
    job.launch("crc32", 1, 64, args![records as i32, length as i32, of_bytes, of_crc]);
    let of_nine = job.output::<u32>(1);
    job.launch("crc32", 1, 32, args![1i32, 9i32, of_bytes, of_nine]);
    let crc = |record: &[u8]| {
        !record.iter().fold(u32::MAX, |mut c, &byte| {
            c ^= u32::from(byte);
            (0..8).for_each(|_| c = if c & 1 == 1 { c >> 1 ^ 0xedb8_8320 } else { c >> 1 });
            c
        })
    };
    let want: Vec<u32> = bytes.chunks(length).map(crc).collect();
    everywhere("integer.cu", &job, |outcome| {
        equal("crc", &outcome.values::<u32>(of_crc), &want);
        // The check value of this checksum.
        equal("crc of nine digits", &outcome.values::<u32>(of_nine), &[0xcbf4_3926]);
    });
}

#[test]
fn bit_tricks() {
    let n = 300;
    let mut numbers = Numbers::new(11);
    let x: Vec<u32> = (0..n).map(|i| numbers.word() as u32 >> (i % 32)).collect();
    let z: Vec<i32> = (0..n).map(|i| numbers.word() as i32 >> (i % 32)).collect();
    let mut job = Job::new();
    let (of_x, of_z, of_y) = (job.buffer(&x), job.buffer(&z), job.output::<u32>(10 * n as usize));
    job.launch("bits", 5, 64, args![n, of_x, of_z, of_y]);
    let want: Vec<u32> = (x.iter().zip(&z))
        .flat_map(|(&v, &s)| {
            let first = if v == 0 { 0 } else { v.trailing_zeros() + 1 };
            let joined = u64::from(!v) << 32 | u64::from(v);
            let distance = |a: i64, b: i64| (a - b).unsigned_abs() as u32;
            [
                v.count_ones() | v.leading_zeros() << 8 | first << 16,
                v.reverse_bits(),
                v & 0xffff | (!v & 0xffff) << 16,
                v.rotate_left(s as u32 & 31),
                (joined >> (s & 31)) as u32,
                (s / 7 + s % 7).wrapping_add(v as i32 / -3) as u32,
                v / 10 + v % 1000,
                distance(s.into(), (v as i32).into())
                    .wrapping_add(5)
                    .wrapping_add(distance(v.into(), 77))
                    .wrapping_add(1),
                (s.min(v as i32) as u32)
                    .wrapping_add(v.max(12345))
                    .wrapping_add(s.wrapping_abs() as u32)
                    .wrapping_add(((i64::from(s) * i64::from(v as i32)) >> 32) as u32),
                (v >> 3 & 0xff) << 4 | (v << 9 >> 27) | (s << 5 >> 9) as u32,
            ]
        })
        .collect();
    everywhere("integer.cu", &job, |outcome| equal("bits", &outcome.values::<u32>(of_y), &want));
}

#[test]
fn local_arrays() {
    let rows = 70;
    let mut numbers = Numbers::new(12);
    let x: Vec<i32> = (0..rows * 24).map(|_| numbers.word() as i32).collect();
    let mut job = Job::new();
    let (of_x, of_y) = (job.buffer(&x), job.output::<i32>(x.len()));
    job.launch("sort_rows", 3, 32, args![rows, of_x, of_y]);
    let mut want = x.clone();
    want.chunks_mut(24).for_each(|row| row.sort_unstable());
    everywhere("local.cu", &job, |outcome| equal("rows", &outcome.values::<i32>(of_y), &want));
}

#[test]
fn constant_tables() {
    let n = 96;
    let x = Numbers::new(13).units(n);
    let coefficients = [0.5f32, -1.0, 0.25, 3.0, -0.125, 1.5, 0.75, -2.0];
    let mut job = Job::new();
    job.variable("coefficients", &coefficients);
    let (of_x, of_y) = (job.buffer(&x), job.output::<f32>(n));
    job.launch("polynomial", 3, 32, args![n as i32, 7i32, of_x, of_y]);
    let mut want = vec![0.0f32; n];
    for (i, &x) in x.iter().enumerate() {
        let v = coefficients[..7].iter().rev().fold(coefficients[7], |v, &c| v.mul_add(x, c));
        want[i & !15 | ((i & 15) as u8).reverse_bits() as usize >> 4] = v;
    }
    everywhere("local.cu", &job, |outcome| equal("y", &outcome.values::<f32>(of_y), &want));
}
