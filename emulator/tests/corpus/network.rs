//! Pieces of neural networks and of simulations, in single precision, against double.

use crate::args;
use crate::check::{Numbers, ROUNDING, close, everywhere};
use crate::support::job::{Arg, Job};

fn softmax(row: &[f32]) -> Vec<f64> {
    let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let weights: Vec<f64> = row.iter().map(|&v| f64::from(v - largest).exp()).collect();
    let total: f64 = weights.iter().sum();
    weights.iter().map(|w| w / total).collect()
}

#[test]
fn softmax_of_rows() {
    for (rows, columns) in [(1usize, 1usize), (5, 31), (3, 100), (4, 257)] {
        let x: Vec<f32> = Numbers::new(1).units(rows * columns).iter().map(|v| 8.0 * v).collect();
        let mut job = Job::new();
        let (of_x, by_warp, by_block) = (job.buffer(&x), job.output::<f32>(x.len()), job.output::<f32>(x.len()));
        job.launch("softmax_warp", (rows as u32).div_ceil(4), 128, args![rows as i32, columns as i32, of_x, by_warp]);
        job.launch("softmax_block", rows as u32, 96, args![columns as i32, of_x, by_block]);
        let want: Vec<f64> = x.chunks(columns).flat_map(softmax).collect();
        everywhere("softmax.cu", &job, |outcome| {
            // The differences are exact to one rounding of at most 16, which the exponential turns into a relative
            // error; its own error, the sum's and the quotient's are of the same size.
            let relative = ROUNDING * (16.0 + 8.0 + columns as f64 / 16.0 + 10.0);
            close("by warp", &outcome.values::<f32>(by_warp), &want, |i| 2.0 * relative * want[i] + 1e-37);
            // The fast exponential rounds its argument times log2(e) as well, twice where the sum is scaled.
            close("by block", &outcome.values::<f32>(by_block), &want, |i| 6.0 * relative * want[i] + 1e-37);
        });
    }
}

#[test]
fn layernorm() {
    let (rows, columns) = (9usize, 70usize);
    let mut numbers = Numbers::new(2);
    let (x, dy) = (numbers.units(rows * columns), numbers.units(rows * columns));
    let (gain, bias) = (numbers.units(columns), numbers.units(columns));
    let blocks = rows.div_ceil(4);
    let mut job = Job::new();
    let (of_x, of_gain, of_bias) = (job.buffer(&x), job.buffer(&gain), job.buffer(&bias));
    let (of_y, of_mean, of_rstd) = (job.output::<f32>(x.len()), job.output::<f32>(rows), job.output::<f32>(rows));
    job.launch(
        "layernorm_forward",
        blocks as u32,
        128,
        args![rows as i32, columns as i32, 1e-5f32, of_x, of_gain, of_bias, of_y, of_mean, of_rstd],
    );
    let (of_dy, of_dx, partial) =
        (job.buffer(&dy), job.output::<f32>(x.len()), job.output::<f32>(blocks * 2 * columns));
    job.launch(
        "layernorm_backward",
        blocks as u32,
        128,
        args![rows as i32, columns as i32, of_x, of_gain, of_mean, of_rstd, of_dy, of_dx, partial],
    )
    .shared = (2 * columns * 4) as u32;
    let (dgain, dbias) = (job.output::<f32>(columns), job.output::<f32>(columns));
    job.launch("layernorm_gather", 3, 32, args![blocks as i32, columns as i32, partial, dgain, dbias]);

    let wide = |v: &[f32]| -> Vec<f64> { v.iter().copied().map(f64::from).collect() };
    let (x, dy, gain, bias) = (wide(&x), wide(&dy), wide(&gain), wide(&bias));
    let n = columns as f64;
    let (mut y, mut dx, mut want_gain, mut want_bias) = (vec![], vec![], vec![0.0; columns], vec![0.0; columns]);
    for r in 0..rows {
        let (row, of_dy) = (&x[r * columns..][..columns], &dy[r * columns..][..columns]);
        let mean = row.iter().sum::<f64>() / n;
        let rstd = (row.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n + 1e-5).sqrt().recip();
        let normal: Vec<f64> = row.iter().map(|v| (v - mean) * rstd).collect();
        let a = (0..columns).map(|i| of_dy[i] * gain[i]).sum::<f64>() / n;
        let b = (0..columns).map(|i| of_dy[i] * gain[i] * normal[i]).sum::<f64>() / n;
        for i in 0..columns {
            y.push(normal[i] * gain[i] + bias[i]);
            dx.push((of_dy[i] * gain[i] - a - normal[i] * b) * rstd);
            want_gain[i] += of_dy[i] * normal[i];
            want_bias[i] += of_dy[i];
        }
    }
    everywhere("layernorm.cu", &job, |outcome| {
        // A row's mean is off by at most the additions of a lane and of the tree, and normal values are below 2.
        let once = (columns / 32 + 8) as f64 * ROUNDING * 2.0;
        close("y", &outcome.values::<f32>(of_y), &y, |_| 4.0 * once);
        close("dx", &outcome.values::<f32>(of_dx), &dx, |_| 12.0 * once);
        close("dgain", &outcome.values::<f32>(dgain), &want_gain, |_| rows as f64 * 4.0 * once);
        close("dbias", &outcome.values::<f32>(dbias), &want_bias, |_| rows as f64 * once);
    });
}

#[test]
fn causal_attention() {
    let (heads, length, width) = (2usize, 37usize, 8usize);
    let size = heads * length * width;
    let mut numbers = Numbers::new(3);
    let (q, k, v) = (numbers.units(size), numbers.units(size), numbers.units(size));
    let mut job = Job::new();
    let (of_q, of_k, of_v, of_y) = (job.buffer(&q), job.buffer(&k), job.buffer(&v), job.output::<f32>(size));
    job.launch("causal_attention", heads as u32, 64, args![length as i32, width as i32, of_q, of_k, of_v, of_y])
        .shared = (2 * length * width * 4) as u32;
    let mut want = vec![0.0f64; size];
    for h in 0..heads {
        for t in 0..length {
            let at = |s: usize, d: usize| (h * length + s) * width + d;
            let scores: Vec<f32> = (0..=t)
                .map(|s| {
                    ((0..width).map(|d| f64::from(q[at(t, d)]) * f64::from(k[at(s, d)])).sum::<f64>()
                        / (width as f64).sqrt()) as f32
                })
                .collect();
            for (s, weight) in softmax(&scores).into_iter().enumerate() {
                (0..width).for_each(|d| want[at(t, d)] += weight * f64::from(v[at(s, d)]));
            }
        }
    }
    everywhere("network.cu", &job, |outcome| {
        // Values are at most 1; scores at most 3, to some ten roundings; then a weighted mean of up to 37 of them.
        close("y", &outcome.values::<f32>(of_y), &want, |_| 150.0 * ROUNDING);
    });
}

/// The error function by its series, in double; good for arguments of a few.
fn erf(x: f64) -> f64 {
    let (mut term, mut sum) = (x, x);
    for n in 1..80 {
        term *= -x * x / f64::from(n);
        sum += term / f64::from(2 * n + 1);
    }
    sum * 2.0 / std::f64::consts::PI.sqrt()
}

#[test]
fn gelu() {
    let n = 300;
    let x: Vec<f32> = Numbers::new(4).units(n).iter().map(|v| 4.0 * v).collect();
    let mut job = Job::new();
    let (of_x, tanh, exact, slope) = (job.buffer(&x), job.output::<f32>(n), job.output::<f32>(n), job.output::<f32>(n));
    job.launch("gelu", 5, 64, args![n as i32, of_x, tanh, exact, slope]);
    let c = (2.0 / std::f64::consts::PI).sqrt();
    let parts = |v: f32| {
        let v = f64::from(v);
        let t = (c * (v + 0.044715 * v * v * v)).tanh();
        (
            0.5 * v * (1.0 + t),
            0.5 * v * (1.0 + erf(v / 2f64.sqrt())),
            0.5 * (1.0 + t) + 0.5 * v * (1.0 - t * t) * c * (1.0 + 3.0 * 0.044715 * v * v),
        )
    };
    everywhere("network.cu", &job, |outcome| {
        // Values of at most 4, with functions that are good to a few units in the last place of 1.
        let of = |f: fn((f64, f64, f64)) -> f64| x.iter().map(|&v| f(parts(v))).collect::<Vec<f64>>();
        close("tanh", &outcome.values::<f32>(tanh), &of(|p| p.0), |_| 4.0 * 8.0 * ROUNDING);
        close("exact", &outcome.values::<f32>(exact), &of(|p| p.1), |_| 4.0 * 8.0 * ROUNDING);
        close("slope", &outcome.values::<f32>(slope), &of(|p| p.2), |_| 40.0 * 8.0 * ROUNDING);
    });
}

#[test]
fn cross_entropy() {
    let (rows, classes) = (6usize, 200usize);
    let mut numbers = Numbers::new(5);
    let logits: Vec<f32> = numbers.units(rows * classes).iter().map(|v| 6.0 * v).collect();
    let target: Vec<i32> = (0..rows).map(|_| numbers.below(classes as u64) as i32).collect();
    let mut job = Job::new();
    let (of_logits, of_target) = (job.buffer(&logits), job.buffer(&target));
    let (loss, gradient) = (job.output::<f32>(rows), job.output::<f32>(logits.len()));
    job.launch("cross_entropy", rows as u32, 128, args![classes as i32, of_logits, of_target, loss, gradient]);
    let probabilities: Vec<Vec<f64>> = logits.chunks(classes).map(softmax).collect();
    let want_loss: Vec<f64> = (0..rows).map(|r| -probabilities[r][target[r] as usize].ln()).collect();
    let want: Vec<f64> = (0..logits.len())
        .map(|i| {
            probabilities[i / classes][i % classes] - f64::from(u8::from(target[i / classes] as usize == i % classes))
        })
        .collect();
    everywhere("network.cu", &job, |outcome| {
        close("loss", &outcome.values::<f32>(loss), &want_loss, |_| 40.0 * ROUNDING * 12.0);
        close("gradient", &outcome.values::<f32>(gradient), &want, |i| {
            60.0 * ROUNDING * probabilities[i / classes][i % classes] + ROUNDING
        });
    });
}

#[test]
fn adamw() {
    let n = 130;
    let mut numbers = Numbers::new(6);
    let (g, w, m) = (numbers.units(n), numbers.units(n), numbers.units(n));
    let v: Vec<f32> = numbers.units(n).iter().map(|v| v * v).collect();
    let (rate, beta1, beta2, epsilon, decay, step) = (1e-2f32, 0.9f32, 0.99f32, 1e-8f32, 0.1f32, 3i32);
    let mut settings: Vec<u8> = [rate, beta1, beta2, epsilon, decay].iter().flat_map(|v| v.to_le_bytes()).collect();
    settings.extend(step.to_le_bytes());
    let mut job = Job::new();
    let (of_g, of_w, of_m, of_v) = (job.buffer(&g), job.buffer(&w), job.buffer(&m), job.buffer(&v));
    let arguments = vec![Arg::from(n as i32), Arg::Value(settings), of_g.into(), of_w.into(), of_m.into(), of_v.into()];
    job.launch("adamw", 3, 64, arguments);
    let wide = |v: f32| f64::from(v);
    let mut want = vec![];
    for i in 0..n {
        let m1 = wide(beta1) * wide(m[i]) + (1.0 - wide(beta1)) * wide(g[i]);
        let v1 = wide(beta2) * wide(v[i]) + (1.0 - wide(beta2)) * wide(g[i]).powi(2);
        let (m_hat, v_hat) = (m1 / (1.0 - wide(beta1).powi(step)), v1 / (1.0 - wide(beta2).powi(step)));
        want.push(wide(w[i]) - wide(rate) * (m_hat / (v_hat.sqrt() + wide(epsilon)) + wide(decay) * wide(w[i])));
    }
    everywhere("network.cu", &job, |outcome| {
        // The change is a hundredth; one minus a power near one loses digits, at most seven bits here.
        close("w", &outcome.values::<f32>(of_w), &want, |i| {
            ROUNDING * 2.0 + 400.0 * ROUNDING * (want[i] - f64::from(w[i])).abs()
        });
    });
}

#[test]
fn diffusion() {
    for (height, width) in [(1usize, 1usize), (16, 16), (20, 33)] {
        let u = Numbers::new(7).units(height * width);
        let mut job = Job::new();
        let (of_u, of_v) = (job.buffer(&u), job.output::<f32>(u.len()));
        job.launch(
            "diffuse",
            ((width as u32).div_ceil(16), (height as u32).div_ceil(16)),
            (16, 16),
            args![height as i32, width as i32, 0.2f32, of_u, of_v],
        );
        let at = |y: usize, x: usize| f64::from(u[y.min(height - 1) * width + x.min(width - 1)]);
        let want: Vec<f64> = (0..u.len())
            .map(|i| {
                let (y, x) = (i / width, i % width);
                let around = at(y, x.saturating_sub(1)) + at(y, x + 1) + at(y.saturating_sub(1), x) + at(y + 1, x);
                at(y, x) + 0.2f32 as f64 * (around - 4.0 * at(y, x))
            })
            .collect();
        everywhere("stencil.cu", &job, |outcome| close("v", &outcome.values::<f32>(of_v), &want, |_| 16.0 * ROUNDING));
    }
}

#[test]
fn causal_convolution() {
    let (n, taps, dilation) = (150usize, 4usize, 9usize);
    let mut numbers = Numbers::new(8);
    let (x, w) = (numbers.units(n), numbers.units(taps));
    let mut job = Job::new();
    let (of_x, of_w, of_y) = (job.buffer(&x), job.buffer(&w), job.output::<f32>(n));
    job.launch("causal_convolution", 3, 64, args![n as i32, taps as i32, dilation as i32, of_x, of_w, of_y]).shared =
        ((64 + (taps - 1) * dilation) * 4) as u32;
    let want: Vec<f64> = (0..n)
        .map(|t| {
            (0..taps).filter(|j| j * dilation <= t).map(|j| f64::from(w[j]) * f64::from(x[t - j * dilation])).sum()
        })
        .collect();
    everywhere("stencil.cu", &job, |outcome| {
        close("y", &outcome.values::<f32>(of_y), &want, |_| 2.0 * 4.0 * 4.0 * ROUNDING)
    });
}

#[test]
fn gravity() {
    let n = 100;
    let bodies = Numbers::new(9).units(4 * n);
    let mut job = Job::new();
    let (of_bodies, of_a) = (job.buffer(&bodies), job.output::<f32>(3 * n));
    job.launch("accelerations", 2, 64, args![n as i32, 0.01f32, of_bodies, of_a]);
    let at = |i: usize, c: usize| f64::from(bodies[4 * i + c]);
    let (mut want, mut size) = (vec![0.0; 3 * n], vec![0.0; 3 * n]);
    for i in 0..n {
        for j in 0..n {
            let d: Vec<f64> = (0..3).map(|c| at(j, c) - at(i, c)).collect();
            let force = at(j, 3) * (d.iter().map(|v| v * v).sum::<f64>() + f64::from(0.01f32)).powf(-1.5);
            for c in 0..3 {
                want[3 * i + c] += force * d[c];
                size[3 * i + c] += (force * d[c]).abs();
            }
        }
    }
    everywhere("nbody.cu", &job, |outcome| {
        close("a", &outcome.values::<f32>(of_a), &want, |i| (n + 30) as f64 * ROUNDING * size[i] + 1e-30);
    });
}

#[test]
fn mandelbrot() {
    let (width, height, limit) = (40usize, 24usize, 60i32);
    let mut job = Job::new();
    let out = job.output::<i32>(width * height);
    job.launch("mandelbrot", (5, 3), (8, 8), args![width as i32, height as i32, limit, out]);
    // Near the border a rounding decides: count with both, and where they differ, the point is left out.
    let steps = |px: usize, py: usize, nudge: f64| {
        let (cx, cy) = (-2.0 + 3.0 * px as f64 / width as f64 + nudge, -1.5 + 3.0 * py as f64 / height as f64 - nudge);
        let (mut x, mut y, mut i) = (0.0, 0.0, 0);
        while i < limit && x * x + y * y <= 4.0 {
            (x, y) = (x * x - y * y + cx, 2.0 * x * y + cy);
            i += 1;
        }
        i
    };
    everywhere("nbody.cu", &job, |outcome| {
        let got = outcome.values::<i32>(out);
        let mut compared = 0;
        for (i, &got) in got.iter().enumerate() {
            let all = [-1e-5, 0.0, 1e-5].map(|nudge| steps(i % width, i / width, nudge));
            if all[0] == all[1] && all[1] == all[2] {
                assert_eq!(got, all[1], "point {i}");
                compared += 1;
            }
        }
        assert!(compared > width * height * 8 / 10, "only {compared} points compared");
    });
}
