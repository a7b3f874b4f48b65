//! The embedding: sums of five numbers in f32, whose error is that of f32.

use crate::bench::{Bench, Case, Data, before, cases, part};
use gpt2meg::device::cuda::embed::{backward, forward};
use gpt2meg::device::cuda::kernel::embed::{EmbedBackward, EmbedForward};

fn try_case(number: usize, case: &Case) {
    let Case { n, t, e, .. } = *case;
    let [q, channels, subjects, conditions] = [5, 4, 3, 4];
    let mut data = Data::new(number as u64 + 200);
    let tables = [q, t, channels, subjects, conditions].map(|rows| data.floats(rows * e, 1.0)).to_vec();
    let token: Vec<u8> = (0..n * (t + 1)).map(|_| data.below(q) as u8).collect();
    let condition: Vec<u16> = (0..n * t).map(|_| data.below(conditions) as u16).collect();
    let channel: Vec<u32> = (0..n).map(|_| data.below(channels) as u32).collect();
    let subject: Vec<u32> = (0..n).map(|_| data.below(subjects) as u32).collect();
    let dx = data.floats(n * t * e, 1.0);
    let len: usize = tables.iter().map(Vec::len).sum();
    let part = part(case, len);
    let before = before(&part, &mut data);
    // For each element of each slot: the sum of what it should gain, and of the magnitudes.
    let mut gains: Vec<(f64, f64, f64)> = before.iter().map(|&x| (f64::from(x), f64::from(x).abs(), 1.0)).collect();
    for row in 0..n * t {
        let (i, s) = (row / t, row % t);
        let indices = [usize::from(token[i * (t + 1) + s]), s, channel[i] as usize, subject[i] as usize];
        let y = usize::from(condition[row]);
        let rows = indices.into_iter().chain((y > 0).then_some(y)).enumerate();
        for (table, index) in rows {
            let slot = (part.first + i) % part.slots * len;
            let offset: usize = tables[..table].iter().map(Vec::len).sum();
            for j in 0..e {
                let d = f64::from(dx[row * e + j]);
                let (sum, size, count) = &mut gains[slot + offset + index * e + j];
                (*sum, *size, *count) = (*sum + d, *size + d.abs(), *count + 1.0);
            }
        }
    }
    for run in case.runs() {
        let Some(mut bench) = Bench::new(run) else { return };
        let buffer = bench.put(&tables.concat());
        let (tokens, conditions) = (bench.put(&token), bench.put(&condition));
        let (channels, subjects) = (bench.put(&channel), bench.put(&subject));
        let x = bench.put(&vec![f32::NAN; n * t * e]);
        let [token_table, position, channel_table, subject_table, condition_table] = bench.bind(&buffer, &tables);
        let kernel = EmbedForward {
            token: token_table,
            position,
            channel: channel_table,
            subject: subject_table,
            condition: condition_table,
            tokens: bench.gpu.address(&tokens),
            conditions: bench.gpu.address(&conditions),
            channels: bench.gpu.address(&channels),
            subjects: bench.gpu.address(&subjects),
            x: bench.gpu.address(&x),
            n: n as u32,
        };
        // SAFETY: everything has its size.
        unsafe { forward(&mut bench.gpu, &case.shape(q), &kernel) }.unwrap();
        for (index, x) in bench.get(&x).into_iter().enumerate() {
            let (row, j) = (index / e, index % e);
            let (i, s) = (row / t, row % t);
            let y = usize::from(condition[row]);
            let mut terms = vec![
                tables[0][usize::from(token[i * (t + 1) + s]) * e + j],
                tables[1][s * e + j],
                tables[2][channel[i] as usize * e + j],
                tables[3][subject[i] as usize * e + j],
            ];
            terms.extend((y > 0).then(|| tables[4][y * e + j]));
            let sum: f64 = terms.iter().map(|&x| f64::from(x)).sum();
            // Four additions of partial sums below five.
            assert!(
                (f64::from(x) - sum).abs() <= 4.0 * 5.0 * 2f64.powi(-24),
                "{case:?} on {}: {x} for {sum}",
                bench.name
            );
        }

        let (dxs, buffer) = (bench.put(&dx), bench.put(&before));
        let [token_table, position, channel_table, subject_table, condition_table] = bench.bind(&buffer, &tables);
        let kernel = EmbedBackward {
            token: token_table,
            position,
            channel: channel_table,
            subject: subject_table,
            condition: condition_table,
            tokens: kernel.tokens,
            conditions: kernel.conditions,
            channels: kernel.channels,
            subjects: kernel.subjects,
            dx: bench.gpu.address(&dxs),
            n: n as u32,
            first: part.first as u32,
            slots: part.slots as u32,
            slot_len: len as u64,
        };
        // SAFETY: everything has its size.
        unsafe { backward(&mut bench.gpu, &case.shape(q), &kernel) }.unwrap();
        for (i, (after, (sum, size, count))) in bench.get(&buffer).into_iter().zip(&gains).enumerate() {
            // Any order of summation: n roundings of partial sums that the magnitudes bound.
            let bound = count * 2f64.powi(-24) * size;
            assert!((f64::from(after) - sum).abs() <= bound, "{case:?} on {}, {i}: {after} for {sum}", bench.name);
        }
    }
}

#[test]
fn embed_is_the_oracles() {
    for (number, case) in cases(true).iter().chain(&cases(false)).enumerate() {
        try_case(number, case);
    }
}
