//! Counting, against numbers worked out by hand.

use super::class::{Class, flop, opcode};
use super::distinct::Distinct;
use super::traffic::{Flow, Global, Shared, Traffic, wavefronts};
use super::{Counters, Issued};

fn at(f: impl Fn(u64) -> u64) -> [u64; 32] {
    std::array::from_fn(|lane| f(lane as u64))
}

const ALL: u32 = u32::MAX;

#[test]
fn sectors_of_requests() {
    // Addresses, mask, bytes; sectors, fewest sectors.
    let cases = [
        (at(|i| 4 * i), ALL, 4, 4, 4),
        (at(|i| 4 + 4 * i), ALL, 4, 5, 4),
        (at(|i| 16 * i), ALL, 16, 16, 16),
        (at(|i| 128 * i), ALL, 4, 32, 4),
        (at(|_| 64), ALL, 4, 1, 1),
        (at(|i| 4 * (31 - i)), ALL, 4, 4, 4),
        (at(|i| 2 * i), ALL, 2, 2, 2),
        (at(|i| 4 * i), 0x1, 4, 1, 1),
        (at(|i| if i % 2 == 0 { 0 } else { 1024 }), ALL, 8, 2, 1),
    ];
    for (addresses, mask, bytes, sectors, ideal_sectors) in cases {
        let mut traffic = Traffic::default();
        let mut seen = Vec::new();
        traffic.global(Flow::Load, mask, &addresses, bytes, |sector| seen.push(sector));
        let expected = Global { requests: 1, sectors, ideal_sectors, bytes: u64::from(mask.count_ones()) * bytes };
        assert_eq!(traffic.global[0], expected, "{addresses:?}");
        assert_eq!(seen.len() as u64, sectors);
    }
}

#[test]
fn wavefronts_of_banks() {
    // Addresses, mask, bytes, atomic; wavefronts, ideal.
    let cases = [
        (at(|i| 4 * i), ALL, 4, false, 1, 1),
        (at(|_| 12), ALL, 4, false, 1, 1),
        (at(|_| 12), ALL, 4, true, 32, 1),
        (at(|i| 8 * i), ALL, 4, false, 2, 1),
        (at(|i| 128 * i), ALL, 4, false, 32, 1),
        (at(|i| 132 * i), ALL, 4, false, 1, 1),
        (at(|i| 2 * i), ALL, 2, false, 1, 1),
        (at(|i| 8 * i), ALL, 8, false, 2, 2),
        (at(|i| 16 * i), ALL, 16, false, 4, 4),
        (at(|i| 16 * i), 0xff, 16, false, 1, 1),
        // Eight rows of a matrix 64 bytes apart: two rows to a pass. 16-byte rows 144 apart: none meets another.
        (at(|i| 64 * i), ALL, 16, false, 16, 4),
        (at(|i| 144 * i), ALL, 16, false, 4, 4),
    ];
    for (addresses, mask, bytes, atomic, passes, ideal) in cases {
        assert_eq!(wavefronts(mask, &addresses, bytes, atomic), (passes, ideal), "{bytes} {addresses:?}");
    }
    let mut traffic = Traffic::default();
    traffic.shared(Flow::Store, ALL, &at(|i| 8 * i), 4);
    assert_eq!(traffic.shared[1], Shared { requests: 1, wavefronts: 2, ideal_wavefronts: 1, bytes: 128 });
}

#[test]
fn classes_by_name() {
    let cases = [
        ("fma.rn.f32 %f1, %f2, %f3, %f4;", Class::Float),
        ("@%p1 add.s64 %rd1, %rd2, 4;", Class::Integer),
        ("@!%p1 bra $L__BB0_2;", Class::Control),
        ("mul.wide.u32 %rd1, %r1, 4;", Class::Integer),
        ("fma.rn.bf16x2 %r1, %r2, %r3, %r4;", Class::Half),
        ("ex2.approx.ftz.f32 %f1, %f2;", Class::Special),
        ("sqrt.rn.f32 %f1, %f2;", Class::Float),
        ("div.rn.f64 %fd1, %fd2, %fd3;", Class::Double),
        ("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%f1}, {%r1};", Class::Tensor),
        ("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%r1}, [%r5];", Class::Matrix),
        ("cp.async.commit_group;", Class::AsyncCopy),
        ("bar.sync 0;", Class::Barrier),
        ("ret;", Class::Control),
        ("lop3.b32 %r1, %r2, %r3, %r4, 0x96;", Class::Bits),
        ("setp.lt.f32 %p1, %f1, %f2;", Class::Compare),
        ("cvt.rn.bf16x2.f32 %r1, %f1, %f2;", Class::Convert),
    ];
    for (text, class) in cases {
        assert_eq!(Class::of(opcode(text)), class, "{text}");
    }
    assert_eq!(flop("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32"), 4096);
    assert_eq!(flop("mma.sync.aligned.m16n8k4.row.col.f32.tf32.tf32.f32"), 1024);
}

#[test]
fn a_launch_adds_up_and_survives_json() {
    let mut counters = Counters::default();
    counters.add_instruction("mma.sync.aligned.m16n8k8.row.col.f32.bf16.bf16.f32 {}, {};", 3, 96);
    counters.add_instruction("ex2.approx.ftz.bf16x2 %r1, %r2;", 2, 40);
    counters.add_instruction("ex2.approx.ftz.f32 %f1, %f2;", 1, 32);
    counters.add_instruction("bar.sync 0;", 4, 128);
    counters.add_instruction("bar.warp.sync -1;", 1, 32);
    counters.add_instruction("add.s32 %r1, %r2, %r3;", 0, 0);
    let mut traffic = Traffic { divergent_branches: 5, ..Traffic::default() };
    traffic.global(Flow::Copy, ALL, &at(|i| 16 * i), 16, |_| {});
    counters.add_traffic(&traffic);
    counters.add_traffic(&traffic);
    assert_eq!((counters.warp_instructions, counters.thread_instructions), (11, 328));
    assert_eq!(counters.tensor_flop, 3 * 2048);
    assert_eq!(counters.special_functions, 2 * 40 + 32);
    assert_eq!(counters.barriers, 4);
    assert_eq!(counters.divergent_branches, 10);
    assert_eq!(counters.async_copies, Global { requests: 2, sectors: 32, ideal_sectors: 32, bytes: 1024 });
    assert_eq!(counters.classes[&Class::Barrier], Issued { warp: 5, thread: 160 });
    assert!(!counters.classes.contains_key(&Class::Integer));
    let json = serde_json::to_string(&counters).unwrap();
    assert_eq!(serde_json::from_str::<Counters>(&json).unwrap(), counters);
}

#[test]
fn distinct_sectors_count_once() {
    let distinct = Distinct::new(1 << 30, 1 << 24);
    for _ in 0..3 {
        for sector in 0..10 {
            distinct.touch((1 << 25) + sector * 1000, false);
        }
        distinct.touch(1 << 25, true);
    }
    distinct.touch(7, true);
    distinct.touch((1 << 25) + (1 << 19), true);
    assert_eq!(distinct.bytes(), (320, 32));
}
