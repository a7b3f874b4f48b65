//! Races whatever the number of threads, launches that are undone, and what comes after a finding.

use ptx_emulator::machine::{FaultKind, LaunchReport};
use ptx_emulator::settings::{Findings, Settings, Watch};
use ptx_emulator::watch::FindingKind;

use super::{found, run_with, settings, values};

fn watching(threads: usize) -> Settings {
    Settings { watch: Watch::Races, threads, ..settings() }
}

/// All of a finding but its address, which is another in every memory.
fn told(report: &LaunchReport) -> Vec<String> {
    let tell = |finding: &ptx_emulator::watch::Finding| {
        let mut finding = finding.clone();
        finding.address = None;
        finding.to_string()
    };
    report.findings.iter().map(tell).collect()
}

#[test]
fn two_blocks_that_store_are_found_by_any_number_of_threads() {
    let one = run_with("", "st.global.u32 [%rd0], %r1;", 2, 1, &watching(1));
    assert_eq!(one.0.findings[0].kind, FindingKind::Race);
    for _ in 0..200 {
        let two = run_with("", "st.global.u32 [%rd0], %r1;", 2, 1, &watching(2));
        assert_eq!((told(&two.0), two.1), (told(&one.0), one.1.clone()));
    }
}

#[test]
fn what_blocks_have_stored_is_undone_before_they_run_again() {
    // The first warp of a block adds 1 to its 256 words: bytewise, by whole words, or as a matrix. The last blocks race.
    let bytes = "setp.ge.u32 %p1, %r0, 32; @%p1 exit; mad.lo.u32 %r4, %r1, 256, %r0; mul.wide.u32 %rd1, %r4, 4; add.u64 %rd1, %rd0, %rd1;
        ld.global.u8 %r5, [%rd1]; add.u32 %r5, %r5, 1; st.global.u8 [%rd1], %r5;";
    let words = "ld.global.u32 %r5, [%rd1]; add.u32 %r5, %r5, 1; st.global.u32 [%rd1], %r5;";
    let registers = "{%f0, %f1, %f2, %f3, %f4, %f5, %f6, %f7}";
    let add: String = (0..8).map(|i| format!("add.f32 %f{i}, %f{i}, 0f3F800000;")).collect();
    let matrix = format!(
        "setp.ge.u32 %p1, %r0, 32; @%p1 exit; mul.wide.u32 %rd1, %r1, 1024; add.u64 %rd1, %rd0, %rd1;
        wmma.load.c.sync.aligned.row.m16n16k16.global.f32 {registers}, [%rd1], 16; {add}
        wmma.store.d.sync.aligned.row.m16n16k16.global.f32 [%rd1], {registers}, 16;"
    );
    for body in [bytes, words, &matrix] {
        let body = format!("{body} setp.ge.u32 %p1, %r1, 30; @%p1 st.global.u32 [flag], %r1;");
        let run = |threads| run_with(".global .u32 flag;", &body, 40, 256, &watching(threads));
        let one = run(1);
        assert_eq!(one.0.findings[0].kind, FindingKind::Race);
        for _ in 0..3 {
            let several = run(4);
            assert_eq!(told(&several.0), told(&one.0));
            assert!(several.1 == one.1, "{body}");
        }
    }
}

#[test]
fn a_summary_tells_all_there_is() {
    let body = ".shared .align 4 .b8 s[256]; shl.b32 %r4, %r0, 2; mov.u32 %r5, s; add.u32 %r4, %r4, %r5;
        ld.shared.u32 %r6, [%r4];
        st.global.u32 [flag], %r3;
        setp.eq.u32 %p1, %r0, 99; @%p1 mov.u32 %r9, 1; add.u32 %r9, %r9, %r6; st.global.u32 [%rd1], %r9;
        st.global.u32 [%rd1], 7;";
    let all = Settings { findings: Findings::Summary, ..watching(2) };
    let (report, values) = run_with(".global .u32 flag;", body, 3, 64, &all);
    assert_eq!(values, [7; 192], "the launch goes on");
    let kinds: Vec<FindingKind> = report.findings.iter().map(|finding| finding.kind).collect();
    assert_eq!(kinds, [FindingKind::Uninitialised, FindingKind::Race, FindingKind::Uninitialised], "{report:?}");
    // Each lane of three blocks reads what nobody has written.
    assert_eq!(report.findings[0].times, 192);
    let fault = report.fault.expect("it fails all the same");
    assert!(fault.message.starts_with("3 findings:\n") && fault.message.contains("(192 times)"), "{}", fault.message);
    assert!(report.counters.is_some());
    let (first, _) = run_with(".global .u32 flag;", body, 3, 64, &watching(2));
    assert_eq!((first.findings.len(), first.findings[0].kind), (1, FindingKind::Uninitialised));
    assert!(first.counters.is_none());
}

#[test]
fn what_ends_a_block_does_not_end_a_summary() {
    let body = "setp.eq.u32 %p1, %r1, 1; @%p1 st.global.u32 [%rd1+4096], %r0;\n st.global.u32 [%rd1], 7;";
    for threads in [1, 3] {
        let all = Settings { findings: Findings::Summary, ..watching(threads) };
        let (report, values) = run_with("", body, 3, 32, &all);
        assert_eq!(report.fault.expect("a fault").kind, FaultKind::IllegalAddress);
        assert_eq!((report.findings.len(), report.findings[0].block), (1, [1, 0, 0]));
        assert_eq!((&values[..32], &values[32..64], &values[64..]), (&[7; 32][..], &[0; 32][..], &[7; 32][..]));
    }
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
}

#[test]
fn who_changes_something_does_not_wait() {
    // All blocks are busy with atomics, or with reading what others might change, for much longer than they may wait.
    let limit = Settings { max_warp_instructions: 1 << 16, ..settings() };
    let body = "mov.u32 %r4, 0; mov.u64 %rd2, counts; L: shl.b32 %r5, %r4, 2; and.b32 %r5, %r5, 252; cvt.u64.u32 %rd3, %r5;
        add.u64 %rd3, %rd3, %rd2; WORK add.u32 %r4, %r4, 1; setp.lt.u32 %p1, %r4, 2000; @%p1 bra L; st.global.u32 [%rd1], %r4;";
    for work in
        ["red.global.add.u32 [%rd3], 1;", "ld.volatile.global.u32 %r6, [%rd3];", "st.volatile.global.u32 [%rd3], 1;"]
    {
        let (report, values) = run_with(".global .u32 counts[64];", &body.replace("WORK", work), 64, 32, &limit);
        assert_eq!((report.findings, values), (vec![], vec![2000; 64 * 32]), "{work}");
    }
    // An atomic that changes nothing is as good as a load.
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

/// That one kind of order is missing is found whatever the order of warps and blocks; and nothing where it is not missing.
fn in_every_order(outside: &str, body: &str, grid: u32, block: u32, found: bool) {
    for seed in 0..10 {
        let (report, _) = run_with(outside, body, grid, block, &Settings { seed, ..watching(1) });
        let kind = report.findings.first().map(|finding| finding.kind);
        assert_eq!(kind, found.then_some(FindingKind::Race), "seed {seed}: {body}\n{:?}", report.findings.first());
    }
}

#[test]
fn a_ticket_that_counts_one_block_too_few() {
    // Blocks 1 to 8 read and count themselves; block 0 waits for so many of them and writes.
    let body = "setp.eq.u32 %p1, %r1, 0; @%p1 bra W; ld.global.u32 %r5, [x]; membar.gl; bar.sync 0; atom.global.add.u32 %r6, [count], 1; bra E;
        W: atom.global.add.u32 %r6, [count], 0; setp.lt.u32 %p2, %r6, NEED; @%p2 bra W; membar.gl; st.global.u32 [x], 5; E:";
    let outside = ".global .u32 x; .global .u32 count;";
    in_every_order(outside, &body.replace("NEED", "8"), 9, 1, false);
    // Block 0 must come in time to see too few: not in every order.
    for need in ["1", "4"] {
        let found =
            |seed| run_with(outside, &body.replace("NEED", need), 9, 1, &Settings { seed, ..watching(1) }).0.findings;
        assert!((0..20).any(|seed| !found(seed).is_empty()), "{need}");
    }
}

/// A lane that tells others speaks for itself, and a lane that is told listens for itself.
#[test]
fn one_lane_signals_for_its_warp() {
    // All of warp 0 of block 0 write; lane 0 tells. Lane 0 of block 1 is told; all of them read.
    let outside = ".global .u32 flag; .global .u32 data[64];";
    let body = "mov.u64 %rd2, data; mul.wide.u32 %rd3, %r0, 4; add.u64 %rd2, %rd2, %rd3; setp.ne.u32 %p1, %r0, 0;
        setp.ne.u32 %p2, %r1, 0; @%p2 bra R; st.global.u32 [%rd2], %r0; EACH TELLER @%p1 bra E; ONE STORE bra E;
        R: @%p1 bra A; W: LOAD setp.eq.u32 %p3, %r5, 0; @%p3 bra W; AFTER A: LISTENER ld.global.u32 %r6, [%rd2]; E:";
    let exchange = ("atom.global.exch.b32 %r5, [flag], 1;", "atom.global.add.u32 %r5, [flag], 0;");
    let volatile = ("st.volatile.global.u32 [flag], 1;", "ld.volatile.global.u32 %r5, [flag];");
    let strong = ("st.release.gpu.global.u32 [flag], 1;", "ld.acquire.gpu.global.u32 %r5, [flag];");
    let (warp, block, fence) = ("bar.warp.sync -1;", "bar.sync 0;", "membar.gl;");
    let check = |(store, load): (&str, &str), [each, teller, one, after, listener]: [&str; 5], threads, found| {
        let places = [("EACH", each), ("TELLER", teller), ("ONE", one), ("AFTER", after), ("LISTENER", listener)];
        let body = places
            .iter()
            .fold(body.replace("STORE", store).replace("LOAD", load), |body, (name, text)| body.replace(name, text));
        in_every_order(outside, &body, 2, threads, found);
    };
    for flag in [exchange, volatile, strong] {
        check(flag, ["", warp, fence, fence, warp], 32, false);
        check(flag, ["", block, fence, fence, block], 64, false);
        // Not all have written when the one tells; not all have been told when they read.
        check(flag, ["", "", fence, fence, warp], 32, true);
        check(flag, ["", warp, fence, fence, ""], 32, true);
        check(flag, ["", warp, fence, fence, warp], 64, true);
    }
    for flag in [exchange, volatile] {
        // Each fences for itself, and they meet; or they do not.
        check(flag, [fence, warp, "", fence, warp], 32, false);
        check(flag, [fence, block, "", fence, block], 64, false);
        check(flag, [fence, "", "", fence, warp], 32, true);
    }
    // What is written after the fences is told by nobody.
    let late = "membar.gl; bar.warp.sync -1; st.global.u32 [%rd2], 7;";
    check(exchange, [late, "", fence, fence, warp], 32, true);
    check(exchange, [late, warp, "", fence, warp], 32, true);
    check(exchange, [late, warp, fence, fence, warp], 32, false);
    // One lane by itself needs nobody else.
    let alone = "mov.u64 %rd2, data; setp.ne.u32 %p1, %r0, 0; @%p1 bra E; setp.ne.u32 %p2, %r1, 0; @%p2 bra W; st.global.u32 [%rd2+4], 1; membar.gl;
        st.volatile.global.u32 [flag], 1; bra E; W: ld.volatile.global.u32 %r5, [flag]; setp.eq.u32 %p3, %r5, 0; @%p3 bra W; membar.gl;
        ld.global.u32 %r6, [%rd2+4]; st.global.u32 [%rd2+4], 2; E:";
    in_every_order(outside, alone, 2, 64, false);
}

#[test]
fn a_stage_that_is_given_back_before_the_last_look() {
    // Warp 1 gives the stage back; warp 0 fills it again.
    let body = ".shared .align 4 .b8 s[128]; and.b32 %r4, %r0, 31; shl.b32 %r4, %r4, 2; mov.u32 %r5, s; add.u32 %r4, %r4, %r5;
        st.shared.u32 [%r4], %r4; bar.sync 0; setp.lt.u32 %p1, %r0, 32; @%p1 bra P; ld.shared.u32 %r6, [%r4]; bar.arrive 1, 64; LATE bra E;
        P: bar.sync 1, 64; st.shared.u32 [%r4], %r0; E:";
    for (late, found) in [("", false), ("ld.shared.u32 %r6, [%r4];", true)] {
        in_every_order("", &body.replace("LATE", late), 1, 64, found);
    }
}

#[test]
fn a_stage_that_one_of_two_gives_back_too_early() {
    // Warps 1 and 2 read the stage and give it back; warp 1 looks once more. Warp 3 only counts. Warp 0 fills it again.
    let body = ".shared .align 4 .b8 s[128]; and.b32 %r4, %r0, 31; shl.b32 %r4, %r4, 2; mov.u32 %r5, s; add.u32 %r4, %r4, %r5; shr.u32 %r6, %r0, 5;
        setp.eq.u32 %p1, %r6, 1; setp.eq.u32 %p2, %r6, 2; setp.eq.u32 %p3, %r6, 3; st.shared.u32 [%r4], %r4; bar.sync 0;
        @%p1 bra A; @%p2 bra B; @%p3 bra C; bar.sync 1, 128; st.shared.u32 [%r4], %r0; bra E;
        A: ld.shared.u32 %r7, [%r4]; bar.arrive 1, 128; LATE bra E;
        B: ld.shared.u32 %r7, [%r4]; bar.sync 2, 64; ld.shared.u32 %r7, [%r4]; bar.arrive 1, 128; bra E;
        C: bar.sync 2, 64; bar.arrive 1, 128; E:";
    for (late, found) in [("", false), ("ld.shared.u32 %r7, [%r4];", true)] {
        in_every_order("", &body.replace("LATE", late), 1, 128, found);
    }
}

#[test]
fn what_a_lane_was_told_goes_with_a_shuffle() {
    // Lane 0 is told; the others have it from a shuffle, or from a vote on whether to ask again.
    let outside = ".global .u32 flag; .global .u32 data[32];";
    let body = "mov.u64 %rd2, data; mul.wide.u32 %rd3, %r0, 4; add.u64 %rd2, %rd2, %rd3; setp.ne.u32 %p1, %r0, 0; mov.u32 %r5, 1;
        setp.ne.u32 %p2, %r1, 0; @%p2 bra W; st.global.u32 [%rd2], %r0; bar.sync 0; @!%p1 st.release.gpu.global.u32 [flag], 1; bra E;
        W: @!%p1 LOAD HEAR @%p3 bra W; AFTER ld.global.u32 %r6, [%rd2]; E:";
    let acquire = "ld.acquire.gpu.global.u32 %r5, [flag];";
    let volatile = "ld.volatile.global.u32 %r5, [flag];";
    let shuffle = "shfl.sync.idx.b32 %r5, %r5, 0, 31, -1; setp.eq.u32 %p3, %r5, 0;";
    let vote = "setp.eq.u32 %p3, %r5, 0; vote.sync.any.pred %p3, %p3, -1;";
    for (load, hear, after, found) in [
        (acquire, shuffle, "", false),
        (acquire, vote, "", false),
        (volatile, vote, "membar.gl;", false),
        // Nobody has fenced; nobody has heard anything.
        (volatile, vote, "", true),
        (acquire, "setp.eq.u32 %p3, %r5, 0;", "", true),
    ] {
        let body = [("LOAD", load), ("HEAR", hear), ("AFTER", after)]
            .iter()
            .fold(body.to_owned(), |body, (name, text)| body.replace(name, text));
        in_every_order(outside, &body, 2, 32, found);
    }
    // A shuffle tells nothing of what the lanes themselves have done.
    let own = ".shared .align 4 .b8 s[128]; shl.b32 %r4, %r0, 2; mov.u32 %r5, s; add.u32 %r6, %r4, %r5; st.shared.u32 [%r6], %r0;
        shfl.sync.idx.b32 %r7, %r4, 0, 31, -1; xor.b32 %r4, %r4, 4; add.u32 %r6, %r4, %r5; ld.shared.u32 %r7, [%r6];";
    in_every_order("", own, 1, 32, true);
}

#[test]
fn a_compare_and_swap_that_fails_releases_nothing() {
    // Warp 0 writes, fences, and offers; warp 1 polls until it sees what warp 0 has put there, fences, and reads.
    let body = "setp.lt.u32 %p1, %r0, 32; @%p1 bra P; W: atom.global.add.u32 %r5, [flag], 0; setp.eq.u32 %p2, %r5, 0; @%p2 bra W;
        membar.gl; ld.global.u32 %r6, [x]; bra E;
        P: setp.ne.u32 %p3, %r0, 0; @%p3 bra E; FIRST st.global.u32 [x], 7; membar.gl; OFFER E:";
    let cas = "atom.global.cas.b32 %r7, [flag], 0, 1;";
    let all = body.replace("FIRST", "").replace("OFFER", cas);
    in_every_order(".global .u32 x; .global .u32 flag;", &all, 1, 64, false);
    // The flag is up already, so that this one fails.
    let failing = body.replace("FIRST", "atom.global.exch.b32 %r7, [flag], 1;").replace("OFFER", cas);
    in_every_order(".global .u32 x; .global .u32 flag;", &failing, 1, 64, true);
}

#[test]
fn copies_that_nobody_waits_for() {
    let copy = ".shared .align 16 .b8 s[128]; st.global.u32 [%rd1], %r0; shl.b32 %r4, %r0, 2; mov.u32 %r5, s; add.u32 %r4, %r4, %r5;\n\
        cp.async.ca.shared.global [%r4], [%rd1], 4; //!\n";
    let (kind, text) = found(&format!("{copy} cp.async.commit_group; cp.async.wait_group 1;"), 32);
    assert_eq!(kind, FindingKind::InFlight, "{text}");
    values("", &format!("{copy} cp.async.wait_all;"), 1, 32);
}

#[test]
fn lanes_that_go_past_a_barrier_and_leave() {
    // A tree whose barrier is in the branch: the lanes that do not add go on halving, and are gone before anybody else.
    let tree = |inside: &str, outside: &str| {
        format!(
            ".shared .align 4 .b8 s[512]; shl.b32 %r4, %r0, 2; mov.u32 %r5, s; add.u32 %r4, %r4, %r5; st.shared.u32 [%r4], %r0;
            bar.sync 0; mov.u32 %r6, 64;
            L: setp.ge.u32 %p1, %r0, %r6; @%p1 bra N; shl.b32 %r7, %r6, 2; add.u32 %r7, %r7, %r4; ld.shared.u32 %r8, [%r7];
            ld.shared.u32 %r9, [%r4]; add.u32 %r8, %r8, %r9; st.shared.u32 [%r4], %r8; {inside}
            N: {outside} shr.u32 %r6, %r6, 1; setp.gt.u32 %p2, %r6, 0; @%p2 bra L;
            setp.ne.u32 %p3, %r0, 0; @%p3 bra E; ld.shared.u32 %r8, [s]; st.global.u32 [%rd1], %r8; E:"
        )
    };
    let (report, _) = run_with("", &tree("bar.sync 0;", ""), 1, 128, &watching(1));
    assert_eq!(report.findings.first().map(|finding| finding.kind), Some(FindingKind::BarrierDivergence));
    let (report, sums) = run_with("", &tree("", "bar.sync 0;"), 1, 128, &watching(1));
    assert_eq!((report.findings.len(), sums[0]), (0, 127 * 64), "{report:?}");
}
