//! Branches, calls, jump tables, special registers.

use crate::case::Kind::*;
use crate::case::{BLOCK, Case, THREADS, Want};

fn signed(bits: u64) -> i32 {
    bits as u32 as i32
}

pub fn branches() -> Vec<Case> {
    let word = |value: i32| Want::Bits(u64::from(value as u32));
    vec![
        Case::new(
            "{ .reg .b32 %k; and.b32 %k, %a, 3; TABLE: .branchtargets ZERO, ONE, TWO, THREE; brx.idx %k, TABLE; \
             ZERO: mov.b32 %d, 10; bra.uni DONE; ONE: mov.b32 %d, 11; bra DONE; TWO: mov.b32 %d, 12; bra DONE; \
             THREE: mov.b32 %d, 13; DONE: add.u32 %d, %d, 0; }",
            &[U32],
            U32,
            |x| Want::Bits(10 + (x[0] & 3)),
        ),
        // A loop whose length differs by lane, with a way out of its middle.
        Case::new(
            "{ .reg .b32 %i; .reg .pred %p; and.b32 %b, %a, 31; mov.b32 %d, 0; mov.b32 %i, 0; LOOP: setp.ge.u32 %p, %i, %b; @%p bra END; \
             add.u32 %d, %d, %i; add.u32 %i, %i, 1; setp.eq.u32 %p, %i, 20; @%p bra END; bra LOOP; END: add.u32 %d, %d, 1000; }",
            &[U32, U32],
            U32,
            |x| Want::Bits((0..(x[0] & 31).min(20)).sum::<u64>() + 1000),
        ),
        Case::new(
            "{ .reg .pred %p; setp.lt.s32 %p, %a, 0; mov.b32 %d, 1; @!%p bra SKIP; mov.b32 %d, 2; SKIP: add.u32 %d, %d, 5; }",
            &[U32],
            U32,
            move |x| word(if signed(x[0]) < 0 { 7 } else { 6 }),
        ),
        // Lanes that return early store their result first.
        Case::new(
            "{ .reg .pred %p; setp.lt.s32 %p, %a, 0; mov.b32 %d, 3; @%p st.global.b32 [%to], %d; @%p ret; mov.b32 %d, 4; }",
            &[U32],
            U32,
            move |x| word(if signed(x[0]) < 0 { 3 } else { 4 }),
        ),
        Case::new(
            "{ .reg .pred %p; setp.lt.s32 %p, %a, 0; mov.b32 %d, 3; @%p st.global.b32 [%to], %d; @%p exit; mov.b32 %d, 4; }",
            &[U32],
            U32,
            move |x| word(if signed(x[0]) < 0 { 3 } else { 4 }),
        ),
        Case::new(
            "{ .param .b32 argument; .param .b32 answer; st.param.b32 [argument], %a; call.uni (answer), triple, (argument); ld.param.b32 %d, [answer]; }",
            &[U32],
            U32,
            move |x| word(signed(x[0]).wrapping_mul(3)),
        ),
        Case::new("call (%d), with_registers, (%a, %b);", &[U32; 2], U32, move |x| {
            word(signed(x[0]).wrapping_sub(signed(x[1])))
        }),
        // A call that only some lanes make, each to its own depth.
        Case::new(
            "{ .reg .pred %p; setp.lt.s32 %p, %a, 0; and.b32 %b, %a, 7; mov.b32 %d, 0; @%p bra SKIP; { .param .b32 argument; .param .b32 answer; \
             st.param.b32 [argument], %b; call (answer), faculty, (argument); ld.param.b32 %d, [answer]; } SKIP: add.u32 %d, %d, 1; }",
            &[U32, U32],
            U32,
            move |x| word(if signed(x[0]) < 0 { 1 } else { 1 + (1..=signed(x[0]) & 7).product::<i32>() }),
        ),
        // By pointer: one of two functions, per lane.
        Case::new(
            "{ .reg .b64 %f64, %i64; and.b32 %b, %a, 1; mul.wide.u32 %i64, %b, 8; mov.u64 %f64, functions; add.u64 %f64, %f64, %i64; \
             ld.global.u64 %f64, [%f64]; and.b32 %c, %a, 7; { .param .b32 argument; .param .b32 answer; st.param.b32 [argument], %c; \
             PROTOTYPE: .callprototype (.param .b32 _) _ (.param .b32 _); call (answer), %f64, (argument), PROTOTYPE; ld.param.b32 %d, [answer]; } }",
            &[U32, U32, U32],
            U32,
            move |x| {
                let n = signed(x[0]) & 7;
                word(if x[0] & 1 == 0 { 3 * n } else { (1..=n).product() })
            },
        ),
        Case::new("nanosleep.u32 50; mov.b32 %d, %a;", &[U32], U32, |x| Want::Bits(x[0])),
        Case::new("pmevent 3; mov.b32 %d, %a;", &[U32], U32, |x| Want::Bits(x[0])),
        Case::new(
            "{ .reg .b32 %before; mov.u32 %before, %clock; mov.u32 %d, %clock; sub.u32 %d, %d, %before; shr.u32 %d, %d, 31; }",
            &[],
            U32,
            |_| Want::Bits(0),
        ),
        Case::new(
            "{ .reg .b64 %before, %after; .reg .pred %p; mov.u64 %before, %clock64; mov.u64 %after, %clock64; setp.le.u64 %p, %before, %after; selp.b32 %d, 1, 0, %p; }",
            &[],
            U32,
            |_| Want::Bits(1),
        ),
        Case::new(
            "{ .reg .b64 %before, %after; .reg .pred %p; mov.u64 %before, %globaltimer; mov.u64 %after, %globaltimer; setp.le.u64 %p, %before, %after; selp.b32 %d, 1, 0, %p; }",
            &[],
            U32,
            |_| Want::Bits(1),
        ),
        Case::new(
            "{ .reg .b32 %n; .reg .pred %p; mov.u32 %d, %smid; mov.u32 %n, %nsmid; setp.lt.u32 %p, %d, %n; selp.b32 %d, 1, 0, %p; }",
            &[],
            U32,
            |_| Want::Bits(1),
        ),
    ]
}

pub fn special_registers() -> Vec<Case> {
    let block = u64::from(BLOCK);
    type Rule = fn(u64, u64) -> u64;
    let rules: [(&str, Rule); 19] = [
        ("%tid.x", |i, n| i % n),
        ("%tid.y", |_, _| 0),
        ("%tid.z", |_, _| 0),
        ("%ntid.x", |_, n| n),
        ("%ntid.y", |_, _| 1),
        ("%ntid.z", |_, _| 1),
        ("%ctaid.x", |i, n| i / n),
        ("%ctaid.y", |_, _| 0),
        ("%ctaid.z", |_, _| 0),
        ("%nctaid.x", |_, n| THREADS as u64 / n),
        ("%nctaid.y", |_, _| 1),
        ("%nctaid.z", |_, _| 1),
        ("%laneid", |i, _| i % 32),
        ("%lanemask_eq", |i, _| 1 << (i % 32)),
        ("%lanemask_lt", |i, _| (1 << (i % 32)) - 1),
        ("%lanemask_le", |i, _| (2 << (i % 32)) - 1),
        ("%lanemask_gt", |i, _| 0xffff_ffff & !((2 << (i % 32)) - 1)),
        ("%lanemask_ge", |i, _| 0xffff_ffff & !((1 << (i % 32)) - 1)),
        ("%dynamic_smem_size", |_, _| 0),
    ];
    rules
        .into_iter()
        .map(|(register, rule)| {
            Case::of_group(format!("mov.u32 %d, {register};"), &[], &[U32], THREADS, move |threads| {
                (0..threads.len() as u64).map(|i| vec![Want::Bits(rule(i, block))]).collect()
            })
        })
        .chain([
            // The manual promises no more than that lanes of a warp agree, and the range.
            Case::of_group(
                "{ .reg .b32 %w, %n; .reg .pred %p; mov.u32 %w, %warpid; mov.u32 %n, %nwarpid; match.all.sync.b32 %d|%p, %w, -1; \
                 setp.lt.and.u32 %e, %w, %n, %p; mov.u32 %d, %n; and.b32 %d, %d, 15; }",
                &[],
                &[U32, Predicate],
                THREADS,
                // 64 or 48 warps, on every card here.
                |threads| vec![vec![Want::Bits(0), Want::Bits(1)]; threads.len()],
            ),
            // What cooperative groups of several warps count on: 288 bytes from the second offset on.
            Case::of_group(
                "{ .reg .b32 %x, %y; .reg .pred %p; mov.u32 %x, %reserved_smem_offset_begin; mov.u32 %y, %reserved_smem_offset_0; \
                 setp.le.u32 %p, %x, %y; mov.u32 %x, %reserved_smem_offset_1; setp.le.and.u32 %p, %y, %x, %p; add.u32 %x, %x, 288; \
                 mov.u32 %y, %reserved_smem_offset_end; setp.le.and.u32 %p, %x, %y, %p; mov.u32 %y, %reserved_smem_offset_cap; \
                 setp.ge.and.u32 %p, %y, 288, %p; selp.u32 %d, 1, 0, %p; }",
                &[],
                &[U32],
                THREADS,
                |threads| vec![vec![Want::Bits(1)]; threads.len()],
            ),
            Case::of_group("mov.u32 %d, WARP_SZ;", &[], &[U32], THREADS, |threads| {
                vec![vec![Want::Bits(32)]; threads.len()]
            }),
            Case::of_group(
                "{ .reg .b16 %s; mov.u16 %s, %tid.x; cvt.u32.u16 %d, %s; }",
                &[],
                &[U32],
                THREADS,
                move |threads| (0..threads.len() as u64).map(|i| vec![Want::Bits(i % block)]).collect(),
            ),
        ])
        .collect()
}

/// Ends that nobody comes to, one that some do, and an event for a profiler.
pub fn ends() -> Vec<Case> {
    let never = ".reg .pred %never; setp.ne.u32 %never, %a, %a;";
    let mut cases: Vec<Case> = ["trap;", "brkpt;", "exit;", "ret;"]
        .map(|end| Case::new(format!("{{ {never} @%never {end} mov.b32 %d, %a; }}"), &[U32], U32, |x| Want::Bits(x[0])))
        .into();
    cases.push(Case::new("pmevent 7; mov.b32 %d, %a;", &[U32], U32, |x| Want::Bits(x[0])));
    // Results that were never stored are zero.
    cases.push(Case::new(
        "{ .reg .pred %odd; .reg .b32 %low; and.b32 %low, %a, 1; setp.eq.u32 %odd, %low, 1; @%odd exit; mov.b32 %d, %a; }",
        &[U32],
        U32,
        |x| Want::Bits(if x[0] & 1 == 1 { 0 } else { x[0] }),
    ));
    cases
}
