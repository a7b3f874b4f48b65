//! Races whatever the number of threads, launches that are undone, and what comes after a finding.

use ptx_emulator::machine::{FaultKind, LaunchReport};
use ptx_emulator::memory::GlobalMemory;
use ptx_emulator::settings::{Findings, Settings, Watch};
use ptx_emulator::target::Target;
use ptx_emulator::watch::FindingKind;

use super::{found, run_in, run_with, settings, values};

pub fn watching(threads: usize) -> Settings {
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
fn memory_of_the_host_is_written_once() {
    // Each thread counts in the host's own memory, which cannot be undone; the last blocks race elsewhere.
    let mut counts = vec![0u32; 40 * 32];
    let memory = GlobalMemory::new(1 << 24).unwrap();
    let host = counts.as_mut_ptr();
    // SAFETY: the vector outlives the launch.
    unsafe { memory.register_host(host as u64, 4 * counts.len() as u64) };
    let body = format!(
        "mov.u64 %rd2, {}; mul.wide.u32 %rd3, %r3, 4; add.u64 %rd2, %rd2, %rd3; ld.u32 %r4, [%rd2]; add.u32 %r4, %r4, 1; st.u32 [%rd2], %r4;
        setp.ge.u32 %p1, %r1, 38; @%p1 st.global.u32 [flag], %r1;",
        host as u64
    );
    let (report, _) = run_in(&memory, ".global .u32 flag;", &body, 40, 32, &watching(4));
    assert_eq!(report.findings[0].kind, FindingKind::Race);
    // SAFETY: the vector is still there, and the launch has ended.
    let counts = unsafe { std::slice::from_raw_parts(host, counts.len()) };
    assert!(counts.iter().all(|count| *count <= 1) && counts.contains(&1), "{counts:?}");
}

#[test]
fn what_is_for_a_cluster_is_for_the_block() {
    let sm_90 = |threads| Settings { target: Target::Sm90, ..watching(threads) };
    let outside = ".global .u32 flag; .global .u32 data;";
    // The first block or warp writes and tells; the second looks once, and if it was told it reads.
    for (scope, of_fence) in
        [("cluster", "cluster"), ("gpu", "gpu"), ("cta", "cta"), ("gpu", "cluster"), ("cluster", "gpu")]
    {
        let fence = &*format!("fence.acq_rel.{of_fence};");
        let (release, acquire) = (format!("st.release.{scope}.global.u32"), format!("ld.acquire.{scope}.global.u32"));
        let relaxed = (format!("{fence} st.relaxed.{scope}.global.u32"), format!("ld.relaxed.{scope}.global.u32"));
        for (tell, listen, after) in [(release, acquire, ""), (relaxed.0, relaxed.1, fence)] {
            for (who, grid, block) in [("%r1", 2, 1), ("%r4", 1, 64)] {
                let body = format!(
                    "shr.u32 %r4, %r0, 5; and.b32 %r5, %r0, 31; setp.ne.u32 %p1, %r5, 0; @%p1 bra E; setp.ne.u32 %p2, {who}, 0; @%p2 bra L;
                    st.global.u32 [data], 1; {tell} [flag], 1; bra E; L: {listen} %r6, [flag]; {after} setp.eq.u32 %p3, %r6, 0; @%p3 bra E;
                    ld.global.u32 %r6, [data]; E:"
                );
                let races = (0..10).filter(|seed| {
                    let (report, _) = run_with(outside, &body, grid, block, &Settings { seed: *seed, ..sm_90(1) });
                    !report.findings.is_empty()
                });
                // Between blocks it is told in some of these orders, and then only what is for the device helps.
                let device = scope == "gpu" && (after.is_empty() || of_fence == "gpu");
                assert_eq!(races.count() > 0, grid == 2 && !device, "{scope} {who} {after}");
            }
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

/// That one kind of order is missing is found whatever the order of warps and blocks; and nothing where it is not missing.
pub fn in_every_order(outside: &str, body: &str, grid: u32, block: u32, found: bool) {
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
fn the_last_of_a_warp_to_arrive_knows_of_the_others() {
    // All threads write and count themselves; who comes last, whichever lane, opens the gate, and all read.
    let body = ".shared .align 4 .b8 s[256]; .shared .align 4 .b32 left; .shared .align 4 .b32 gate; shl.b32 %r4, %r0, 2; mov.u32 %r5, s; add.u32 %r5, %r5, %r4;
        setp.eq.u32 %p1, %r0, 0; @%p1 st.shared.u32 [left], 64; @%p1 st.shared.u32 [gate], 0; bar.sync 0;
        st.shared.u32 [%r5], %r0; COUNT setp.eq.u32 %p2, %r6, 1; @%p2 st.release.cta.shared.u32 [gate], 1;
        W: ld.acquire.cta.shared.u32 %r7, [gate]; setp.eq.u32 %p3, %r7, 0; @%p3 bra W; xor.b32 %r4, %r4, 4; mov.u32 %r5, s; add.u32 %r5, %r5, %r4; ld.shared.u32 %r7, [%r5];";
    for (order, found) in [("acq_rel", false), ("acquire", true), ("relaxed", true)] {
        let count = format!("atom.{order}.cta.shared.add.u32 %r6, [left], -1;");
        in_every_order("", &body.replace("COUNT", &count), 1, 64, found);
    }
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

#[test]
fn what_is_not_watched_is_not_told() {
    let off = Settings { watch: Watch::Off, ..watching(1) };
    // Reads of what nobody wrote, in a register, shared and global memory, and a race: nothing of it is told.
    let body = ".shared .align 4 .b8 s[256]; shl.b32 %r4, %r0, 2; mov.u32 %r5, s; add.u32 %r4, %r4, %r5; ld.shared.u32 %r6, [%r4];
        st.shared.u32 [s], %r0; add.u32 %r9, %r9, %r6; and.b32 %r9, %r9, 0; st.global.u32 [flag], %r3; add.u32 %r9, %r9, %r3; st.global.u32 [%rd1], %r9;";
    assert!(!run_with(".global .u32 flag;", body, 3, 64, &watching(1)).0.findings.is_empty());
    let (report, unwatched) = run_with(".global .u32 flag;", body, 3, 64, &off);
    assert_eq!((report.findings, report.fault), (vec![], None));
    assert_eq!(unwatched, (0..192).collect::<Vec<u32>>());
    // What is right computes the same.
    let right = "bar.sync 0; mul.lo.u32 %r4, %r3, %r3; st.global.u32 [%rd1], %r4; ld.global.u32 %r5, [%rd1]; add.u32 %r5, %r5, 1; st.global.u32 [%rd1], %r5;";
    let [with, without] = [watching(1), off.clone()].map(|settings| run_with("", right, 3, 64, &settings));
    assert_eq!((with.0.findings, with.1), (without.0.findings, without.1));
    assert_eq!(with.0.counters, without.0.counters);
    // Bounds, alignment and loops without end are watched still.
    for (body, kind, fault) in [
        ("st.global.u32 [%rd1+4096], %r0;", FindingKind::OutOfBounds, FaultKind::IllegalAddress),
        ("ld.shared.u32 %r4, [%r0+4096];", FindingKind::OutOfBounds, FaultKind::IllegalAddress),
        ("st.global.u32 [%rd1+1], %r0;", FindingKind::Misaligned, FaultKind::MisalignedAddress),
        ("L: bra L;", FindingKind::Runaway, FaultKind::Runaway),
    ] {
        let (report, _) = run_with(".shared .align 4 .b8 s[16];", body, 1, 32, &off);
        assert_eq!(report.findings.first().map(|finding| finding.kind), Some(kind), "{body}");
        assert_eq!(report.fault.map(|found| found.kind), Some(fault), "{body}");
    }
}
