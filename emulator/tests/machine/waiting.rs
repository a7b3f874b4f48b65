//! Lanes, warps and blocks that wait for each other: barriers, `.sync` instructions, loops.

use ptx_emulator::machine::FaultKind;
use ptx_emulator::settings::{Findings, Settings};
use ptx_emulator::watch::FindingKind;

use super::{found, racing::watching, run_with, settings, values};

#[test]
fn a_barrier_that_some_lanes_go_past() {
    let body = "setp.ge.u32 %p1, %r0, 16;\n @%p1 bra S;\n bar.sync 0; //!\n S: st.global.u32 [%rd1], %r0;";
    assert_eq!(found(body, 32).0, FindingKind::BarrierDivergence);
    // Lanes that have left before are no fault.
    let body = "setp.ge.u32 %p1, %r0, 16; @%p1 bra E; bar.sync 0; st.global.u32 [%rd1], %r0; E:";
    values("", body, 1, 64);
    // Two barriers in the two branches of warps, and in those of lanes.
    for bound in [32, 8] {
        let body = format!(
            "setp.ge.u32 %p1, %r0, {bound}; @%p1 bra S; bar.sync 0; bra E; S: bar.sync 0; E: st.global.u32 [%rd1], %r0;"
        );
        assert_eq!(found(&body, 64).0, FindingKind::BarrierDivergence);
    }
}

#[test]
fn what_never_comes_is_a_deadlock() {
    let (kind, text) = found("setp.ge.u32 %p1, %r0, 32;\n @%p1 bra E;\n bar.sync 1, 64; //!\n E:", 64);
    assert_eq!(kind, FindingKind::Deadlock);
    assert!(text.contains("lanes 0xffffffff of warp 0"), "{text}");
    let body = "setp.eq.u32 %p1, %r0, 0; @%p1 bra S; bar.sync 0; bra E; S: shfl.sync.idx.b32 %r4, %r0, 0, 31, -1; E: st.global.u32 [%rd1], %r4;";
    assert!(matches!(found(body, 32).0, FindingKind::MaskMismatch | FindingKind::BarrierDivergence));
}

#[test]
fn masks_of_sync_instructions() {
    let (kind, text) = found("shfl.sync.idx.b32 %r4, %r0, 0, 31, 0xFFFF; //!", 32);
    assert_eq!(kind, FindingKind::MaskMismatch);
    assert!(text.contains("lane 16"), "{text}");
    // The lane that the value comes from does not exist.
    assert_eq!(found("shfl.sync.down.b32 %r4, %r0, 8, 31, -1; //!", 20).0, FindingKind::MaskMismatch);
    // Groups with masks of their own, each complete.
    let body = "and.b32 %r4, %r0, 1; setp.eq.u32 %p1, %r4, 0; selp.b32 %r5, 0x55555555, 0xAAAAAAAA, %p1;
        redux.sync.add.u32 %r6, %r0, %r5; st.global.u32 [%rd1], %r6;";
    assert_eq!(values("", body, 1, 32), (0..32).map(|t| if t % 2 == 0 { 240 } else { 256 }).collect::<Vec<u32>>());
    // bar.warp.sync joins lanes in different places.
    let body = "setp.ge.u32 %p1, %r0, 16; @%p1 bra S; bar.warp.sync -1; bra E; S: bar.warp.sync -1; E: st.global.u32 [%rd1], 1;";
    assert_eq!(values("", body, 1, 32), [1; 32]);
}

#[test]
fn votes_count_those_who_vote() {
    // %p2 holds for all, %p3 for the upper half only; each half votes by itself.
    let body = "setp.ge.u32 %p2, %r0, 0; setp.ge.u32 %p3, %r0, 16; @%p3 bra U;
        vote.sync.ballot.b32 %r4, %p2, 0xFFFF; vote.sync.any.pred %p4, %p3, 0xFFFF; match.any.sync.b32 %r5, %r2, 0xFFFF; bra M;
        U: vote.sync.ballot.b32 %r4, %p2, 0xFFFF0000; vote.sync.all.pred %p4, %p3, 0xFFFF0000; match.any.sync.b32 %r5, %r2, 0xFFFF0000;
        M: selp.b32 %r6, 1, 0, %p4; xor.b32 %r5, %r5, %r4; add.u32 %r4, %r4, %r5; add.u32 %r4, %r4, %r6; st.global.u32 [%rd1], %r4;";
    let want: Vec<u32> = (0..32).map(|t| if t < 16 { 0xFFFF } else { 0xFFFF_0001 }).collect();
    assert_eq!(values("", body, 1, 32), want);
    // Of each half the first is elected.
    let body =
        "setp.ge.u32 %p3, %r0, 16; @%p3 bra U; elect.sync %r4|%p2, 0xFFFF; bra M; U: elect.sync %r4|%p2, 0xFFFF0000;
        M: selp.b32 %r5, 100, 0, %p2; add.u32 %r4, %r4, %r5; st.global.u32 [%rd1], %r4;";
    let want: Vec<u32> = (0..32).map(|t| t / 16 * 16 + if t % 16 == 0 { 100 } else { 0 }).collect();
    assert_eq!(values("", body, 1, 32), want);
}

#[test]
fn barriers_that_count() {
    // Lanes of one warp arrive in two places; %p2 holds for those who arrive first, when they do.
    let body = "setp.ge.u32 %p2, %r0, 0; setp.ge.u32 %p1, %r0, 16; @%p1 bra U; barrier.red.popc.u32 %r4, 0, %p2; bra M;
        U: setp.lt.u32 %p2, %r0, 20; barrier.red.popc.u32 %r4, 0, %p2; M: st.global.u32 [%rd1], %r4;";
    assert_eq!(values("", body, 1, 64), [16 + 4; 64]);
    // Who joins a barrier for another number of threads than those who wait at it.
    let body = "setp.ge.u32 %p1, %r0, 32;\n @%p1 bra U; bar.sync 1, 64; bra E; U: bar.sync 1, 96; E:";
    let (_, text) = found(body, 96);
    assert!(text.contains("threads while others wait at it for"), "{text}");
}

#[test]
fn barriers_that_count_at_the_same_time() {
    // Two pairs of warps, each at a barrier of its own: of the first, 10 lanes of a warp hold, of the second, 20. Then warps 2
    // and 3 use the first one's barrier, while warp 0 has perhaps not looked yet: 30.
    let body =
        "shr.u32 %r4, %r0, 5; and.b32 %r5, %r0, 31; setp.ge.u32 %p1, %r4, 2; @%p1 bra B; setp.lt.u32 %p2, %r5, 10;
        bar.red.popc.u32 %r6, 1, 64, %p2; setp.eq.u32 %p3, %r4, 1; @%p3 bar.arrive 3, 96; bra E;
        B: setp.lt.u32 %p2, %r5, 20; bar.red.popc.u32 %r6, 2, 64, %p2; bar.sync 3, 96; setp.lt.u32 %p2, %r5, 30;
        bar.red.popc.u32 %r7, 1, 64, %p2; mad.lo.u32 %r6, %r7, 1000, %r6; E: st.global.u32 [%rd1], %r6;";
    let want: Vec<u32> = (0..128).map(|t| if t < 64 { 20 } else { 60_040 }).collect();
    for seed in 0..20 {
        let (report, values) = run_with("", body, 1, 128, &Settings { seed, ..settings() });
        assert_eq!((report.findings, values), (vec![], want.clone()), "seed {seed}");
    }
}

/// Half of a warp comes to a place and waits; the other half comes there later, with other values.
#[test]
fn lanes_that_wait_are_joined_by_those_who_come() {
    let later = |wait: &str| {
        format!(
            "setp.ge.u32 %p1, %r0, 16; setp.lt.u32 %p2, %r0, 5; bra S; L: {wait} bra M; S: @!%p1 bra L; setp.ge.u32 %p2, %r0, 30;
            add.u32 %r0, %r0, 100; bra L; M: st.global.u32 [%rd1], %r4;"
        )
    };
    let halves =
        |low: fn(u32) -> u32, high: fn(u32) -> u32| (0..32).map(move |t| if t < 16 { low(t) } else { high(t) });
    let cases: [(&str, Vec<u32>); 5] = [
        ("shfl.sync.bfly.b32 %r4, %r0, 16, 31, -1;", halves(|t| t + 116, |t| t - 16).collect()),
        ("vote.sync.ballot.b32 %r4, %p2, -1;", vec![0xC000_001F; 32]),
        ("bar.red.popc.u32 %r4, 0, %p2;", vec![7; 32]),
        // One that is not for whole warps: each half has arrived by itself.
        ("barrier.red.popc.u32 %r4, 0, %p2;", vec![7; 32]),
        // Another warp comes, too, and all of it holds.
        ("barrier.red.popc.u32 %r4, 0, %p2;", vec![39; 64]),
    ];
    for (wait, want) in cases {
        assert_eq!(values("", &later(wait), 1, want.len() as u32), want, "{wait}");
    }
    // In a function that the halves have called from two places: each goes back to its own.
    let outside = ".func (.reg .u32 r) meet(.reg .u32 x) { bar.warp.sync -1; add.u32 r, x, x; ret; }";
    let body = "setp.ge.u32 %p1, %r0, 16; @%p1 bra S; call (%r4), meet, (%r0); add.u32 %r4, %r4, 1; bra M;
        S: call (%r4), meet, (%r0); add.u32 %r4, %r4, 1000; M: st.global.u32 [%rd1], %r4;";
    assert_eq!(values(outside, body, 1, 32), halves(|t| 2 * t + 1, |t| 2 * t + 1000).collect::<Vec<u32>>());
}

#[test]
fn loops_that_wait_make_progress() {
    // Lanes, warps and blocks take turns at one word; then each adds to the next one.
    let outside = ".global .u32 turn; .global .u32 sum;";
    let body = "L: atom.global.add.u32 %r4, [turn], 0; setp.ne.u32 %p1, %r4, %r3; @%p1 bra L;
        ld.volatile.global.u32 %r5, [sum]; add.u32 %r5, %r5, %r3; st.volatile.global.u32 [sum], %r5; st.global.u32 [%rd1], %r5;
        membar.gl; atom.global.add.u32 %r4, [turn], 1;";
    for seed in [0, 5] {
        let (report, values) =
            run_with(outside, body, 3, 64, &Settings { seed, max_warp_instructions: 0, ..settings() });
        assert!(report.findings.is_empty(), "{}", report.findings[0]);
        assert_eq!(values, (0..192).map(|t| t * (t + 1) / 2).collect::<Vec<u32>>());
    }
}

#[test]
fn a_loop_without_end_is_ended() {
    let (report, _) = run_with("", "L: add.u32 %r4, %r0, 1; bra L;", 1, 32, &settings());
    assert_eq!(report.fault.unwrap().kind, FaultKind::Runaway);
}

#[test]
fn blocks_that_wait_for_each_other_make_progress() {
    // Block 0 waits for what block 1 stores: by whatever says that others may change what is read.
    for (load, store) in [
        ("ld.global.cv.u32 %r4, [flag];", "st.global.wt.u32 [flag], 1;"),
        ("ld.global.cg.u32 %r4, [flag];", "st.global.cg.u32 [flag], 1;"),
        ("membar.gl; ld.global.u32 %r4, [flag];", "st.global.u32 [flag], 1;"),
        ("fence.acq_rel.sys; ld.global.u32 %r4, [flag];", "st.global.u32 [flag], 1;"),
        ("ld.volatile.global.u32 %r4, [flag];", "st.volatile.global.u32 [flag], 1;"),
    ] {
        let body = format!(
            "setp.ne.u32 %p1, %r1, 0; @%p1 bra S; L: {load} setp.eq.u32 %p2, %r4, 0; @%p2 bra L; bra E; S: {store}
            E: st.global.u32 [%rd1], 5;"
        );
        let settings = Settings { max_warp_instructions: 10_000_000, ..settings() };
        let (report, values) = run_with(".global .u32 flag;", &body, 2, 32, &settings);
        assert!(report.findings.is_empty(), "{load}: {}", report.findings[0]);
        assert_eq!(values, [5; 64], "{load}");
    }
}

#[test]
fn blocks_that_ask_in_loops_of_every_shape() {
    // Block 0 comes first in this order, and asks for what block 1 tells: by some lanes of a warp, while the others wait for
    // them at a vote, or by one warp, while the others wait for it at a barrier.
    let lanes = "L: mov.u32 %r4, 1; @%p2 bra V; ld.volatile.global.u32 %r4, [flag];\n V: setp.eq.u32 %p3, %r4, 0;
        vote.sync.any.pred %p3, %p3, -1; @%p3 bra L;";
    let two = "L: mov.u32 %r4, 1; @%p2 bra M; ld.volatile.global.u32 %r4, [flag]; bra V;\n M: ld.volatile.global.u32 %r4, [flag];
        V: setp.eq.u32 %p3, %r4, 0; vote.sync.any.pred %p3, %p3, -1; @%p3 bra L;";
    let barrier = "L: mov.u32 %r4, 1; @!%p2 ld.volatile.global.u32 %r4, [flag]; setp.eq.u32 %p3, %r4, 0;
        barrier.cta.red.or.pred %p3, 0, %p3; @%p3 bra L;";
    for (wait, threads) in [(lanes, 32), (two, 32), (barrier, 64)] {
        let body = format!(
            "setp.gt.u32 %p2, %r0, 3; setp.ne.u32 %p1, %r1, 0; @%p1 bra S; {wait} bra E; S: st.volatile.global.u32 [flag], 1;
            E: st.global.u32 [%rd1], 5;"
        );
        let settings = Settings { max_warp_instructions: 100_000, ..settings() };
        let (report, values) = run_with(".global .u32 flag;", &body, 2, threads, &settings);
        assert!(report.findings.is_empty(), "{wait}: {}", report.findings[0]);
        assert_eq!(values, vec![5; 2 * threads as usize], "{wait}");
    }
}

#[test]
fn blocks_that_wait_for_ever_are_ended() {
    let body = "\n L: ld.volatile.global.u32 %r4, [flag];\n setp.eq.u32 %p2, %r4, 0;\n @%p2 bra L;";
    let settings = Settings { max_warp_instructions: 1 << 20, ..settings() };
    let (report, _) = run_with(".global .u32 flag;", body, 64, 64, &settings);
    let finding = &report.findings[0];
    assert_eq!(finding.kind, FindingKind::Runaway);
    // In the loop: after three lines of head, the line outside, and three of registers.
    assert!((9..=11).contains(&finding.place.ptx_line), "{finding}");
    assert_eq!(report.fault.map(|fault| fault.kind), Some(FaultKind::Runaway));
    assert!(Settings::default().max_warp_instructions > 0, "by default there is a limit");
    assert!(!finding.message.contains("not begun"), "{finding}");
    // For the last of more blocks than there is room for nobody can wait.
    let last = format!("setp.eq.u32 %p1, %r1, 69; @%p1 st.volatile.global.u32 [flag], 1; {body}");
    let (report, _) = run_with(".global .u32 flag;", &last, 70, 32, &settings);
    assert!(report.findings[0].message.contains("6 blocks have not begun"), "{}", report.findings[0]);
}

#[test]
fn who_changes_something_does_not_wait() {
    // All blocks are busy with atomics, or with reading what others might change, for much longer than they may wait.
    let limit = Settings { max_warp_instructions: 1 << 21, ..settings() };
    let body = "mov.u32 %r4, 0; mov.u64 %rd2, counts; L: shl.b32 %r5, %r4, 2; and.b32 %r5, %r5, 252; cvt.u64.u32 %rd3, %r5;
        add.u64 %rd3, %rd3, %rd2; WORK add.u32 %r4, %r4, 1; setp.lt.u32 %p1, %r4, 2000; @%p1 bra L; st.global.u32 [%rd1], %r4;";
    for work in [
        "red.global.add.u32 [%rd3], 1;",
        "ld.volatile.global.u32 %r6, [%rd3];",
        "st.volatile.global.u32 [%rd3], 1;",
        // Looks at the same word in every round, whether to stop, and stores plainly.
        "ld.volatile.global.u32 %r6, [counts]; st.global.u32 [%rd1], %r6;",
    ] {
        let (report, values) = run_with(".global .u32 counts[64];", &body.replace("WORK", work), 64, 32, &limit);
        assert_eq!((report.findings, values), (vec![], vec![2000; 64 * 32]), "{work}");
    }
    // An atomic that changes nothing is as good as a load.
    let limit = Settings { max_warp_instructions: 1 << 16, ..settings() };
    for poll in [
        "atom.global.add.u32 %r4, [flag], 0;",
        "atom.global.cas.b32 %r4, [flag], 1, 2;",
        "atom.global.exch.b32 %r4, [flag], 0;",
    ] {
        let (report, _) = run_with(".global .u32 flag;", &format!("L: {poll} bra L;"), 64, 32, &limit);
        assert!(report.findings[0].message.contains("waits in a loop"), "{}", report.findings[0]);
    }
}

#[test]
fn a_block_that_waits_for_itself_is_ended_soon() {
    // 33 arrivals will never come. A limit that a loop without waiting would need minutes to reach.
    let body =
        ".shared .align 8 .b64 bar; setp.eq.u32 %p1, %r0, 0; @%p1 mbarrier.init.shared.b64 [bar], 33; bar.sync 0;
        mbarrier.arrive.shared.b64 %rd2, [bar]; W: mbarrier.test_wait.shared.b64 %p2, [bar], %rd2; @!%p2 bra W;";
    for threads in [1, 2] {
        let settings = Settings { max_warp_instructions: 1 << 28, ..watching(threads) };
        let begin = std::time::Instant::now();
        let (report, _) = run_with("", body, 2, 32, &settings);
        assert!(report.findings[0].message.contains("waits in a loop"), "{}", report.findings[0]);
        assert!(begin.elapsed().as_secs() < 60, "{threads} threads need {:?}", begin.elapsed());
    }
}

#[test]
fn lanes_that_have_met_join_those_that_wait_for_them() {
    // The upper half waits for lanes 0 to 7, which first meet lanes 8 to 15: these wait elsewhere, with the same mask.
    let body = "setp.ge.u32 %p1, %r0, 16; @%p1 bra S; setp.ge.u32 %p2, %r0, 8; @%p2 bra Y; bar.warp.sync 0xFFFF;
        S: shfl.sync.idx.b32 %r4, %r0, 5, 31, 0xFFFF00FF; bra M; Y: bar.warp.sync 0xFFFF; mov.u32 %r4, 7; M: st.global.u32 [%rd1], %r4;";
    let want: Vec<u32> = (0..32).map(|t| if (8..16).contains(&t) { 7 } else { 5 }).collect();
    assert_eq!(values("", body, 1, 32), want);
}

#[test]
fn blocks_that_ask_for_ever_together_are_ended_before_each_is() {
    // By the barrier of their block, and storing what they have seen; or by turns two flags. For 32 blocks, one of which
    // alone would take as many instructions as all may together.
    let barrier = "L: mov.u32 %r4, 1; @!%p2 ld.volatile.global.u32 %r4, [flag]; setp.eq.u32 %p3, %r4, 0; st.global.u32 [%rd1], %r5; add.u32 %r5, %r5, 1;
        barrier.cta.red.or.pred %p3, 0, %p3; @%p3 bra L;";
    let two = "L: ld.volatile.global.u32 %r4, [flag]; ld.volatile.global.u32 %r6, [flag+4]; or.b32 %r4, %r4, %r6; setp.eq.u32 %p3, %r4, 0; @%p3 bra L;";
    // Two that lie apart; and one of many, counted over and over.
    let apart = two.replace("flag+4", "flag+64");
    let many = "L: mov.u32 %r4, 0; mov.u32 %r6, 0; mov.u64 %rd2, flag; C: ld.volatile.global.u32 %r7, [%rd2]; add.u64 %rd2, %rd2, 4; add.u32 %r4, %r4, %r7;
        add.u32 %r6, %r6, 1; setp.lt.u32 %p3, %r6, 40; @%p3 bra C; setp.lt.u32 %p3, %r4, 40; @%p3 bra L;";
    let most = 1 << 18;
    for wait in [barrier, two, &*apart, many] {
        let body = format!("mov.u32 %r5, 0; setp.ne.u32 %p2, %r0, 0; {wait} st.global.u32 [%rd1], 5;");
        let settings = Settings { max_warp_instructions: most, ..settings() };
        let (report, _) = run_with(".global .u32 flag[40];", &body, 32, 64, &settings);
        let finding = &report.findings[0];
        assert_eq!(finding.kind, FindingKind::Runaway);
        assert!(finding.message.contains("all blocks together"), "{finding}");
    }
    // Who is told something, if only now and then, goes on: each block waits for the one before it to count on, many times.
    let body = "setp.ne.u32 %p2, %r0, 0; mov.u32 %r5, 0; L: mov.u32 %r4, 0; @%p2 bra B; ld.volatile.global.u32 %r4, [flag]; and.b32 %r4, %r4, 15;
        sub.u32 %r4, %r4, %r1; B: setp.ne.u32 %p3, %r4, 0; barrier.cta.red.or.pred %p3, 0, %p3; @%p3 bra L;
        @!%p2 atom.global.add.u32 %r4, [flag], 1; add.u32 %r5, %r5, 1; setp.lt.u32 %p3, %r5, 30; @%p3 bra L; st.global.u32 [%rd1], 5;";
    let settings = Settings { max_warp_instructions: most, ..settings() };
    let (report, values) = run_with(".global .u32 flag[2];", body, 16, 64, &settings);
    assert_eq!((report.findings, values), (vec![], vec![5; 16 * 64]));
}

#[test]
fn a_block_that_never_ends_says_nothing_of_the_next() {
    // Block 0 is ended; block 1 has much to do by itself, but less than the limit.
    let body = "setp.eq.u32 %p1, %r1, 0; mov.u32 %r4, 0; L: add.u32 %r4, %r4, 1; @%p1 bra L; setp.lt.u32 %p2, %r4, 900000; @%p2 bra L;
        st.global.u32 [%rd1], %r4;";
    for (seed, threads) in [(0, 1), (1, 1), (2, 1), (3, 1), (0, 2)] {
        let findings = Findings::Summary;
        let settings = Settings { seed, findings, max_warp_instructions: 1 << 22, ..watching(threads) };
        let (report, values) = run_with("", body, 2, 32, &settings);
        let blocks: Vec<[u32; 3]> = report.findings.iter().map(|finding| finding.block).collect();
        assert_eq!((blocks, &values[32..]), (vec![[0; 3]], &[900_000; 32][..]), "seed {seed}, {threads} threads");
    }
}
