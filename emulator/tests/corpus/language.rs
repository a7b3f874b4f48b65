//! The mathematical library, and features of the language.

use crate::args;
use crate::check::{Numbers, equal, everywhere};
use crate::support::job::Job;

/// Arguments of all sizes: small ones, some for the slow reduction of sines, and whole ones.
fn arguments(n: usize) -> (Vec<f32>, Vec<f32>) {
    let mut numbers = Numbers::new(1);
    let x =
        (0..n).map(|i| numbers.unit() * f32::powi(10.0, (i % 9) as i32 - 3)).map(|v| if v == 0.0 { 0.5 } else { v });
    let x: Vec<f32> = x.collect();
    let y = (0..n).map(|i| if i % 5 == 0 { (i % 7) as f32 - 3.5 } else { 6.0 * numbers.unit() + 0.01 }).collect();
    (x, y)
}

#[test]
fn functions_in_single_precision() {
    let n = 180;
    let (x, y) = arguments(n);
    let mut job = Job::new();
    let (of_x, of_y, out) = (job.buffer(&x), job.buffer(&y), job.output::<f32>(20 * n));
    job.launch("single_functions", 3, 64, args![n as i32, of_x, of_y, out]);
    // The guide's largest errors, in units of the last place, with one for the reference's own rounding to single.
    type Function = (&'static str, fn(f64, f64) -> f64, f64);
    let functions: [Function; 17] = [
        ("sin", |a, _| a.sin(), 3.0),
        ("cos", |a, _| a.cos(), 3.0),
        ("tan", |a, _| a.tan(), 5.0),
        ("exp", |_, b| b.exp(), 3.0),
        ("exp2", |_, b| b.exp2(), 3.0),
        ("log", |a, _| a.abs().ln(), 2.0),
        ("log2", |a, _| a.abs().log2(), 2.0),
        ("log1p", |_, b| b.abs().ln_1p(), 2.0),
        ("pow", |a, b| a.abs().powf(b), 5.0),
        ("tanh", |_, b| b.tanh(), 3.0),
        ("erf", |_, _| f64::NAN, 3.0),
        ("atan2", |a, b| a.atan2(b), 4.0),
        ("asin", |_, b| f64::from(b as f32 / 10.0).asin(), 5.0),
        ("sinh", |_, b| b.sinh(), 4.0),
        ("cbrt", |a, _| a.cbrt(), 2.0),
        ("hypot", |a, b| a.hypot(b), 4.0),
        ("fmod", |a, b| a % b, 0.0),
    ];
    everywhere("library.cu", &job, |outcome| {
        let got = outcome.values::<f32>(out);
        for i in 0..n {
            let (a, b) = (f64::from(x[i]), f64::from(y[i]));
            for (f, (name, function, ulps)) in functions.iter().enumerate() {
                let want = function(a, b);
                if want.is_nan() {
                    continue; // The host's library has no such function.
                }
                let unit = f64::from(f32::EPSILON) * want.abs().max(f64::from(f32::MIN_POSITIVE));
                let got = f64::from(got[20 * i + f]);
                assert!((got - want).abs() <= ulps * unit, "{name} of {a}, {b}: {got}, not {want}");
            }
            let near = |f: usize, want: f64, ulps: f64| {
                let got = f64::from(got[20 * i + f]);
                assert!(
                    (got - want).abs() <= ulps * f64::from(f32::EPSILON) * want.abs(),
                    "function {f} of {a}, {b}: {got}, not {want}"
                );
            };
            near(17, b.abs().sqrt().recip(), 3.0);
            // Two units of an exponential near one, by the bound of ex2.approx, weigh more in what is left after the one.
            near(18, b.exp_m1(), 2.0 + 2.0 * b.exp() / b.exp_m1().abs());
            near(19, a.abs().sqrt() / b, 2.0);
        }
    });
}

#[test]
fn functions_in_double_precision() {
    let n = 90;
    let (x, y) = arguments(n);
    let wide = |v: &[f32]| -> Vec<f64> { v.iter().map(|&v| f64::from(v) * 1.000_000_01).collect() };
    let (x, y) = (wide(&x), wide(&y));
    let mut job = Job::new();
    let (of_x, of_y, out) = (job.buffer(&x), job.buffer(&y), job.output::<f64>(14 * n));
    job.launch("double_precision_functions", 3, 32, args![n as i32, of_x, of_y, out]);
    // Two units at most by the guide, and one for the host's own functions.
    let functions: [fn(f64, f64) -> f64; 14] = [
        |a, _| a.sin(),
        |a, _| a.cos(),
        |_, b| b.exp(),
        |a, _| a.abs().ln(),
        |a, b| a.abs().powf(b),
        |_, b| b.tanh(),
        |a, b| a.atan2(b),
        |_, b| b.sinh(),
        |a, _| a.cbrt(),
        |a, b| a.hypot(b),
        |a, b| a % b,
        |_, b| 1.0 / b.abs().sqrt(),
        |_, b| b.exp_m1(),
        |a, b| a / b,
    ];
    everywhere("library.cu", &job, |outcome| {
        for (i, &got) in outcome.values::<f64>(out).iter().enumerate() {
            let want = functions[i % 14](x[i / 14], y[i / 14]);
            let bound = 3.0 * f64::EPSILON * want.abs();
            assert!(
                (got - want).abs() <= bound,
                "function {} of {}, {}: {got}, not {want}",
                i % 14,
                x[i / 14],
                y[i / 14]
            );
        }
    });
}

#[test]
fn whole_numbers() {
    let n = 120;
    let mut numbers = Numbers::new(2);
    let x: Vec<i64> = (0..n).map(|i| numbers.word() as i64 >> (20 + i % 40)).collect();
    let y: Vec<i32> = (0..n)
        .map(|i| (numbers.word() as i32 >> (i % 28)).max(-2_000_000_000))
        .map(|v| if v == 0 || v == -1 { 3 } else { v })
        .collect();
    let mut job = Job::new();
    let (of_x, of_y, out) = (job.buffer(&x), job.buffer(&y), job.output::<i64>(6 * n));
    job.launch("whole_numbers", 4, 32, args![n as i32, of_x, of_y, out]);
    let want: Vec<i64> = (x.iter().zip(&y))
        .flat_map(|(&a, &b)| {
            let wide = i128::from(a) * i128::from(a) * i128::from(b);
            let by = i128::from(if b > 0 { b.wrapping_add(7) } else { b - 7 });
            [
                a / i64::from(b),
                a % i64::from(b),
                (a as u64 / u64::from(b as u32 | 1)) as i64,
                (wide >> 40) as i64,
                ((wide / by) >> 20) as i64,
                i64::from(i32::from(a as i16) * i32::from(b as i8)) + i64::from(a > i64::from(b)),
            ]
        })
        .collect();
    everywhere("library.cu", &job, |outcome| equal("results", &outcome.values::<i64>(out), &want));
}

#[test]
fn classes_and_templates() {
    let kind: Vec<i32> = (0..32).map(|i| i % 3 % 2).collect();
    let size: Vec<f32> = (0..32).map(|i| i as f32 * 0.5).collect();
    let mut numbers = Numbers::new(3);
    let x: Vec<i16> = (0..32 * 7).map(|_| numbers.word() as i16).collect();
    let mut job = Job::new();
    let (of_kind, of_size, area) = (job.buffer(&kind), job.buffer(&size), job.output::<f32>(32));
    job.launch("virtual_functions", 1, 32, args![of_kind, of_size, area]);
    let (of_x, of_y) = (job.buffer(&x), job.output::<i32>(32));
    job.launch("folds", 1, 32, args![of_x, of_y]);
    let areas: Vec<f32> = (0..32).map(|i| if kind[i] == 1 { 1.0 } else { 3.0 } * size[i] * size[i]).collect();
    let folded: Vec<i32> = (0..32)
        .map(|i| {
            let own = &x[7 * i..][..7];
            let most = i32::from(*own.iter().max().expect("seven"));
            let sum = own[..5].iter().fold(0i16, |a, &b| (i32::from(a).wrapping_add(i as i32 * i32::from(b))) as i16);
            most.wrapping_mul(65536).wrapping_add(i32::from(sum) & 0xffff)
        })
        .collect();
    everywhere("language.cu", &job, |outcome| {
        equal("areas", &outcome.values::<f32>(area), &areas);
        equal("folds", &outcome.values::<i32>(of_y), &folded);
    });
}

#[test]
fn unions_and_structures() {
    let x: Vec<f32> = (0..32).map(|i| (i as f32 - 15.3) * 1.7).collect();
    // A particle: mass, tag, place and charge, with what lies between them.
    let mut particles = vec![0u8; 32 * 32];
    for (i, particle) in particles.chunks_mut(32).enumerate() {
        particle[..8].copy_from_slice(&(i as f64 * 0.25).to_le_bytes());
        particle[8] = b'a' + i as u8;
        (0..3).for_each(|c| particle[12 + 4 * c..][..4].copy_from_slice(&(c as f32).to_le_bytes()));
        particle[24..26].copy_from_slice(&(i as i16 * 3).to_le_bytes());
    }
    let mut job = Job::new();
    let (of_x, of_y) = (job.buffer(&x), job.output::<i32>(64));
    job.launch("unions", 1, 32, args![of_x, of_y]);
    let (from, to) = (job.buffer(&particles), job.buffer(&vec![0u8; 32 * 32]));
    job.launch("structures", 1, 32, args![from, to]);
    let words: Vec<i32> = x
        .iter()
        .flat_map(|v| {
            let bits = v.to_bits();
            let sum = (bits >> 23 & 0xff) as i32 - 127 + 1000 * (bits >> 31) as i32;
            [sum, (bits.wrapping_add(1 << 23) & !0xff) as i32]
        })
        .collect();
    everywhere("language.cu", &job, |outcome| {
        equal("words", &outcome.values::<i32>(of_y), &words);
        let got = outcome.values::<u8>(to);
        for (i, particle) in got.chunks(32).enumerate() {
            let source = &particles[(31 - i) * 32..][..32];
            equal("mass and tag", &particle[..9], &source[..9]);
            for c in 0..3 {
                let want = if c == i % 3 { (31 - i) as f32 * 0.25 } else { c as f32 };
                equal("place", &particle[12 + 4 * c..][..4], &want.to_le_bytes());
            }
            equal("charge", &particle[24..26], &(-3 * (31 - i as i16)).to_le_bytes());
        }
    });
}

#[test]
fn shared_memory_of_several_types() {
    for n in [1usize, 50, 96] {
        let mut numbers = Numbers::new(4);
        let x: Vec<f64> = (0..n).map(|_| f64::from(numbers.below(20) as i32 - 5)).collect();
        let mut job = Job::new();
        let (of_x, order) = (job.buffer(&x), job.output::<i32>(n + 3));
        job.launch("several_types", 1, 96, args![n as i32, of_x, order]).shared = (13 * n) as u32;
        let mut want: Vec<i32> = (0..n as i32).collect();
        want.sort_by(|&a, &b| x[a as usize].total_cmp(&x[b as usize]));
        want.extend([n as i32, i32::from(x.iter().any(|&v| v < 0.0)), 1]);
        everywhere("language.cu", &job, |outcome| equal("order", &outcome.values::<i32>(order), &want));
    }
}

#[test]
fn indices_and_intrinsics() {
    let (width, height, depth) = (13, 5, 7);
    let mut numbers = Numbers::new(5);
    let x: Vec<f64> = numbers.units(64).into_iter().map(f64::from).collect();
    let z: Vec<i32> = (0..64).map(|_| numbers.word() as i32).collect();
    let mut job = Job::new();
    let places = job.output::<i32>(width * height * depth);
    job.launch("three_dimensions", (2, 2, 3), (8, 4, 3), args![width as i32, height as i32, depth as i32, places]);
    let (of_x, of_z, of_y, of_w) = (job.buffer(&x), job.buffer(&z), job.output::<f64>(64), job.output::<i32>(64));
    job.launch("intrinsics", 2, 32, args![of_x, of_z, of_y, of_w]);
    let indices: Vec<i32> = (0..width * height * depth)
        .map(|i| (i % width + 100 * (i / width % height) + 10000 * (i / width / height)) as i32)
        .collect();
    let bytes = |a: i32, b: i32, f: fn(u8, u8) -> u8| {
        let (a, b) = (a.to_le_bytes(), b.to_le_bytes());
        i32::from_le_bytes([0, 1, 2, 3].map(|i| f(a[i], b[i])))
    };
    let want: Vec<i32> = (0..64)
        .map(|i| {
            let (a, lane) = (z[i], i % 16);
            let shifted = if lane + 3 < 16 { z[i + 3] } else { a };
            let halves = [0, 16].map(|s| (((a >> s) as i16).max((5 >> s) as i16) as u16 as u32) << s);
            shifted
                .wrapping_add(a)
                .wrapping_add(bytes(a, 0x01ff_0180, u8::wrapping_add))
                .wrapping_add((halves[0] | halves[1]) as i32)
                .wrapping_add(bytes(a, 0x1020_3040, u8::abs_diff))
        })
        .collect();
    everywhere("language.cu", &job, |outcome| {
        equal("places", &outcome.values::<i32>(places), &indices);
        equal("pairs", &outcome.values::<f64>(of_y), &(0..64).map(|i| x[i] + x[i ^ 7]).collect::<Vec<f64>>());
        equal("words", &outcome.values::<i32>(of_w), &want);
    });
}
