//! Kernels about control: lanes that part, calls, printf and assert, cooperative launches.

use ptx_emulator::machine::FaultKind;
use ptx_emulator::settings::Settings;
use ptx_emulator::watch::FindingKind;

use crate::args;
use crate::check::{Numbers, close, equal, everywhere, ptx};
use crate::support::compile::toolkit;
use crate::support::device::{Loaded, real_gpu, run_through_standin};
use crate::support::job::Job;

#[test]
fn loops_of_different_length() {
    let start: Vec<u32> = (1..=200).collect();
    let mut job = Job::new();
    let (of_start, steps, peak) = (job.buffer(&start), job.output::<u32>(200), job.output::<u32>(200));
    job.launch("collatz", 4, 64, args![200i32, of_start, steps, peak]);
    let walk = |mut v: u32| {
        let (mut count, mut largest) = (0, v);
        while v != 1 {
            v = if v & 1 == 0 { v / 2 } else { 3 * v + 1 };
            largest = largest.max(v);
            count += 1;
        }
        (count, largest)
    };
    everywhere("divergence.cu", &job, |outcome| {
        equal("steps", &outcome.values::<u32>(steps), &start.iter().map(|&v| walk(v).0).collect::<Vec<u32>>());
        equal("peak", &outcome.values::<u32>(peak), &start.iter().map(|&v| walk(v).1).collect::<Vec<u32>>());
    });
}

fn nested_walk(v: i32) -> i32 {
    let mut sum = 0;
    'out: for a in 0..10 {
        if (v + a) % 7 == 3 {
            continue;
        }
        for b in 0..10 {
            if a * b > (v & 31) {
                break;
            }
            if v >> (b % 5) & 1 == 1 {
                sum += if b % 2 != 0 { a * b } else { -b };
            } else if a == b {
                sum += 100;
                break 'out;
            }
        }
        if sum > 400 {
            return -sum;
        }
    }
    sum
}

#[test]
fn nested_conditions() {
    let x: Vec<i32> = (0..500).map(|i| i * 37 - 400).collect();
    let mut job = Job::new();
    let (of_x, of_y) = (job.buffer(&x), job.output::<i32>(x.len()));
    job.launch("nested", 8, 64, args![x.len() as i32, of_x, of_y]);
    everywhere("divergence.cu", &job, |outcome| {
        equal("y", &outcome.values::<i32>(of_y), &x.iter().map(|&v| nested_walk(v)).collect::<Vec<i32>>());
    });
}

#[test]
fn lanes_that_wait_for_each_other() {
    let mut job = Job::new();
    let (turn, order) = (job.buffer(&[0i32]), job.output::<i32>(32));
    job.launch("take_turns", 1, 32, args![turn, order]);
    everywhere("divergence.cu", &job, |outcome| {
        equal("order", &outcome.values::<i32>(order), &(0..32).map(|i| 10 * i).collect::<Vec<i32>>());
    });
}

fn ackermann(m: i32, n: i32) -> i32 {
    match (m, n) {
        (0, _) => n + 1,
        (_, 0) => ackermann(m - 1, 1),
        _ => ackermann(m - 1, ackermann(m, n - 1)),
    }
}

#[test]
fn recursion() {
    let x: Vec<i32> = (0..32).flat_map(|i| [i % 3, i / 5]).collect();
    let mut job = Job::new();
    let (of_x, of_y) = (job.buffer(&x), job.output::<i32>(32));
    job.launch("recursion", 1, 32, args![of_x, of_y]);
    everywhere("calls.cu", &job, |outcome| {
        equal("y", &outcome.values::<i32>(of_y), &x.chunks(2).map(|p| ackermann(p[0], p[1])).collect::<Vec<i32>>());
    });
}

#[test]
fn functions_by_pointer() {
    let mut numbers = Numbers::new(1);
    let which: Vec<i32> = (0..128).map(|_| numbers.below(4) as i32).collect();
    let (a, b) = (numbers.units(128), numbers.units(128));
    let mut job = Job::new();
    let (of_which, of_a, of_b, of_y) = (job.buffer(&which), job.buffer(&a), job.buffer(&b), job.output::<f32>(128));
    job.launch("by_pointer", 2, 64, args![of_which, of_a, of_b, of_y]);
    let functions: [fn(f32, f32) -> f32; 4] = [|a, b| a + b, |a, b| a - b, f32::max, |a, _| a];
    let want: Vec<f32> = (0..128).map(|i| functions[which[i] as usize](a[i], b[i])).collect();
    everywhere("calls.cu", &job, |outcome| equal("y", &outcome.values::<f32>(of_y), &want));
}

#[test]
fn jump_tables() {
    let (threads, length) = (96usize, 20usize);
    let mut numbers = Numbers::new(2);
    let programs: Vec<u8> = (0..threads * length).map(|_| numbers.below(12) as u8).collect();
    let input: Vec<i32> = (0..threads as i32).collect();
    let mut job = Job::new();
    let (of_programs, of_input, output) = (job.buffer(&programs), job.buffer(&input), job.output::<i32>(threads));
    job.launch("interpreter", 3, 32, args![of_programs, length as i32, of_input, output]);
    let interpret = |program: &[u8], input: i32| {
        let (mut a, mut b) = (input, 1i32);
        for op in program {
            match op {
                0 => a = a.wrapping_add(b),
                1 => a = a.wrapping_sub(b),
                2 => a = a.wrapping_mul(3),
                3 => b = a,
                4 => a ^= b << 3,
                5 => b = b.wrapping_add(17),
                6 => a = a.wrapping_neg(),
                7 => (a, b) = (b, a),
                8 => a >>= 1,
                9 => b = b.wrapping_mul(b).wrapping_add(1),
                10 => a |= 5,
                _ => return a,
            }
        }
        a.wrapping_add(b)
    };
    let want: Vec<i32> = programs.chunks(length).zip(input).map(|(program, input)| interpret(program, input)).collect();
    everywhere("calls.cu", &job, |outcome| equal("output", &outcome.values::<i32>(output), &want));
}

#[test]
fn structures_by_value() {
    let x = Numbers::new(3).units(50);
    let limits: Vec<f32> = (0..32).map(|i| i as f32 / 16.0 - 1.1).collect();
    let mut job = Job::new();
    let (of_x, of_limits, means) = (job.buffer(&x), job.buffer(&limits), job.output::<f64>(32));
    job.launch("by_structure", 1, 32, args![50i32, of_x, of_limits, means]);
    let mean = |limit: f32| {
        let below: Vec<f64> = x.iter().filter(|&&v| v < limit).map(|&v| v.into()).collect();
        if below.is_empty() { 0.0 } else { below.iter().sum::<f64>() / below.len() as f64 }
    };
    everywhere("calls.cu", &job, |outcome| {
        equal("means", &outcome.values::<f64>(means), &limits.iter().map(|&v| mean(v)).collect::<Vec<f64>>());
    });
}

#[test]
fn printing() {
    if toolkit().is_none() || real_gpu() {
        return; // A real driver prints to the process's own output.
    }
    let x = [1.5f32, -0.25, 1000.0];
    let mut job = Job::new();
    let of_x = job.buffer(&x);
    job.launch("speak", 1, 32, args![3i32, of_x]);
    let line =
        |i: usize, rest: &str| format!("thread {i} of 32: x = {:.3}, bits {:08x}, {rest}\n", x[i], x[i].to_bits());
    let want = [
        line(0, "positive, a, 1099511627776, 1.5e+00%"),
        line(1, "negative, b, 2199023255552, -2.5e-01%"),
        line(2, "positive, c, 4398046511104, 1.0e+03%"),
    ]
    .concat();
    let text = ptx("report.cu", 80);
    let on_machine = Loaded::machine(&text, &Settings::default()).expect("loads").run(&job).clean("report.cu");
    assert_eq!(on_machine.printed(), want);
    let through_driver = run_through_standin(&text, &Settings::default(), &job).clean("report.cu");
    assert_eq!(through_driver.printed(), want);
}

/// The device does not know how many characters the host will print; it tells how many arguments it took.
#[test]
fn what_printf_returns() {
    if toolkit().is_none() || real_gpu() {
        return; // A real driver prints to the process's own output.
    }
    let mut job = Job::new();
    let count = job.output::<i32>(3);
    job.launch("count_arguments", 1, 1, args![count]);
    let outcome =
        Loaded::machine(&ptx("report.cu", 80), &Settings::default()).expect("loads").run(&job).clean("report.cu");
    assert_eq!(outcome.values::<i32>(count), [0, 4, 5]);
    assert_eq!(outcome.printed(), "none\n1 of two:     3\n44 255 2345 -25536 377\n");
}

#[test]
fn assertions_and_traps() {
    if toolkit().is_none() {
        return;
    }
    for (kernel, kind, fault, words) in [
        ("check", FindingKind::Assert, FaultKind::Assert, "x[i] >= 0"),
        ("give_up", FindingKind::Trap, FaultKind::LaunchFailed, "trap"),
    ] {
        for (x, fails) in [([1, 2, 3], false), ([1, -2, 3], true)] {
            let mut job = Job::new();
            let of_x = job.buffer(&x);
            job.launch(kernel, 1, 32, args![3i32, of_x]);
            let text = ptx("report.cu", 80);
            if real_gpu() {
                let outcome = Loaded::real(&text).expect("loads").run(&job);
                assert_eq!(outcome.error.is_some(), fails);
                continue;
            }
            let outcome = Loaded::machine(&text, &Settings::default()).expect("loads").run(&job);
            if !fails {
                outcome.clean(kernel);
                continue;
            }
            let findings = outcome.findings();
            assert_eq!(findings[0].kind, kind);
            assert_eq!((findings[0].warp, findings[0].lane), (0, 1));
            assert_eq!(outcome.reports[0].fault.as_ref().expect("it failed").kind, fault);
            let said = outcome.complaint().expect("it failed");
            assert!(said.to_lowercase().contains(words), "{said}");
            let through_driver = run_through_standin(&text, &Settings::default(), &job);
            let said = through_driver.error.expect("the copy back meets the error");
            assert!(said.to_lowercase().contains(words) && said.contains(kernel), "{said}");
        }
    }
}

#[test]
fn grid_wide_barriers() {
    let (n, sweeps) = (300usize, 9);
    let mut u = Numbers::new(4).units(n);
    let mut job = Job::new();
    let (of_u, of_v) = (job.buffer(&u), job.output::<f32>(n));
    job.launch("jacobi", 4, 64, args![n as i32, sweeps, of_u, of_v]).cooperative = true;
    let x: Vec<i32> = (0..128).map(|i| i * i - 500).collect();
    let (of_x, sums) = (job.buffer(&x), job.output::<i32>(16));
    job.launch("tile_sums", 2, 64, args![of_x, sums]);
    for _ in 0..sweeps {
        u = (0..n)
            .map(|i| 0.5 * (if i > 0 { u[i - 1] } else { 0.0 } + if i + 1 < n { u[i + 1] } else { 1.0 }))
            .collect();
    }
    let want: Vec<f64> = u.iter().copied().map(f64::from).collect();
    everywhere("grid_sync.cu", &job, |outcome| {
        close("v", &outcome.values::<f32>(of_v), &want, |_| 0.0);
        equal("sums", &outcome.values::<i32>(sums), &x.chunks(8).map(|tile| tile.iter().sum()).collect::<Vec<i32>>());
    });
}
