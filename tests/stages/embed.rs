//! The embedding against the oracle.

use crate::bench::{Data, Flat, Gradient, call, compare, compare_slots, devices, floats, get, gradients_before, put};
use crate::cases::{CASES, Case};
use crate::oracle::number::Number;
use gpt2meg::device::{Device, Dtype, EmbedParams, Inputs, Tensor};

const TABLES: [usize; 4] = [5, 4, 3, 4];

fn bind([token, position, channel, subject, condition]: [Tensor; 5]) -> EmbedParams {
    EmbedParams { token, position, channel, subject, condition }
}

fn try_case(number: usize, case: &Case) {
    let Case { n, t, e, .. } = *case;
    let [q, channels, subjects, conditions] = TABLES;
    let mut data = Data::new(number as u64 + 200);
    let tables = [q, t, channels, subjects, conditions].map(|rows| data.floats(rows * e, 1.0));
    let params = Flat::new(tables.to_vec());
    let token: Vec<u8> = (0..n * (t + 1)).map(|_| data.below(q) as u8).collect();
    let condition: Vec<u16> = (0..n * t).map(|_| data.below(conditions) as u16).collect();
    let channel: Vec<u32> = (0..n).map(|_| data.below(channels) as u32).collect();
    let subject: Vec<u32> = (0..n).map(|_| data.below(subjects) as u32).collect();
    let dx = data.floats(n * t * e, 1.0);
    let grads = data.floats(16 * params.len(), 0.1);

    // The rows that timestep t of sequence i reads: (table, row).
    let rows = |i: usize, s: usize| {
        let mut rows = vec![(0, token[i * (t + 1) + s] as usize), (1, s), (2, channel[i] as usize)];
        rows.push((3, subject[i] as usize));
        rows.extend((condition[i * t + s] > 0).then_some((4, condition[i * t + s] as usize)));
        rows
    };
    let (mut xs, mut d_params) = (Vec::new(), Vec::new());
    for i in 0..n {
        let mut terms: Vec<Vec<Vec<Number>>> = params.parts.iter().map(|part| vec![Vec::new(); part.len()]).collect();
        for s in 0..t {
            for j in 0..e {
                let rows = rows(i, s);
                xs.push(rows.iter().map(|&(table, row)| Number::from(tables[table][row * e + j])).sum());
                for (table, row) in rows {
                    terms[table][row * e + j].push(Number::from(dx[(i * t + s) * e + j]));
                }
            }
        }
        let truth = terms.concat().into_iter().map(|terms| terms.into_iter().sum()).collect();
        d_params.push(Gradient { truth, unfused: Vec::new() });
    }

    for mut device in devices() {
        let device = &mut *device;
        let what = format!("{case:?} on {}", device.name());
        let buffer = floats(device, &params.parts.concat());
        let inputs = Inputs {
            token: put(device, Dtype::U8, &token),
            condition: put(device, Dtype::U16, &condition),
            channel: put(device, Dtype::U32, &channel),
            subject: put(device, Dtype::U32, &subject),
        };
        let x = floats(device, &vec![f32::NAN; n * t * e]);
        device.embed(&call(case), &bind(params.bind(buffer)), &inputs, x).unwrap();
        compare(&what, case, &get(device, x), &xs);
        let grads = gradients_before(device, &grads, params.len());
        let grad_buffer = floats(device, &grads);
        let dx = floats(device, &dx);
        device.embed_backward(&call(case), &bind(params.bind(grad_buffer)), &inputs, dx).unwrap();
        let after = get(device, grad_buffer);
        compare_slots(&what, case, device, &grads, &after, &d_params);
    }
}

#[test]
fn embed_is_the_oracles() {
    for (number, case) in CASES.iter().enumerate() {
        try_case(number, case);
    }
}

#[test]
fn an_index_beyond_its_table_is_an_error() {
    for mut device in devices() {
        let device: &mut dyn Device = &mut *device;
        let params = Flat::new([5, 2, 3, 4, 4].map(|rows| vec![0.0; rows * 8]).to_vec());
        let buffer = floats(device, &params.parts.concat());
        let x = device.alloc(Dtype::F32, 2 * 8).unwrap();
        let good = Inputs {
            token: put(device, Dtype::U8, &[0u8, 4, 4]),
            condition: put(device, Dtype::U16, &[0u16, 3]),
            channel: put(device, Dtype::U32, &[2u32]),
            subject: put(device, Dtype::U32, &[3u32]),
        };
        let case = Case { n: 1, first: 0, t: 2, e: 8, h: 1, from: 0, kind: crate::cases::Kind::Normal };
        let embed = |device: &mut dyn Device, inputs: Inputs| {
            device.embed(&call(&case), &bind(params.bind(buffer)), &inputs, x).is_ok()
        };
        assert!(embed(device, good));
        let token = put(device, Dtype::U8, &[0u8, 5, 0]);
        assert!(!embed(device, Inputs { token, ..good }));
        let condition = put(device, Dtype::U16, &[0u16, 4]);
        assert!(!embed(device, Inputs { condition, ..good }));
        let channel = put(device, Dtype::U32, &[3u32]);
        assert!(!embed(device, Inputs { channel, ..good }));
        let subject = put(device, Dtype::U32, &[u32::MAX]);
        assert!(!embed(device, Inputs { subject, ..good }));
    }
}
