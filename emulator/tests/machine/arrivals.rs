//! `mbarrier`: what it orders, when copies land that arrive at one, and what is not to be done with it.

use ptx_emulator::settings::{Settings, Watch};
use ptx_emulator::target::Target;
use ptx_emulator::watch::FindingKind;

use crate::{run_with, settings};

/// A barrier for `arrivals`, made by thread 0, at %r4; each thread's word of an array at %r5.
fn with_barrier(arrivals: u32, body: &str) -> String {
    format!(
        ".shared .align 8 .b64 bar; .shared .align 16 .b8 room[512]; mov.u32 %r4, bar; mov.u32 %r5, room; mad.lo.u32 %r5, %r0, 4, %r5;
        setp.eq.u32 %p1, %r0, 0; @%p1 mbarrier.init.shared.b64 [%r4], {arrivals}; bar.sync 0; {body}"
    )
}

fn finding(body: &str, block: u32) -> Option<(FindingKind, String)> {
    // What the seed chooses must not matter.
    let mut found = None;
    for seed in [0, 1, 2] {
        let settings = Settings { watch: Watch::Races, seed, ..settings() };
        let (report, _) = run_with("", body, 1, block, &settings);
        let new = report.findings.first().map(|finding| (finding.kind, finding.to_string()));
        found = found.or(new);
    }
    found
}

#[track_caller]
fn finds(body: &str, block: u32, kind: FindingKind, words: &str) {
    let (found, text) = finding(body, block).unwrap_or_else(|| panic!("nothing was found in {body}"));
    assert_eq!(found, kind, "{text}");
    assert!(text.contains(words), "{text}");
}

#[track_caller]
fn finds_nothing(body: &str, block: u32) {
    assert_eq!(finding(body, block), None);
}

const ARRIVE: &str = "mbarrier.arrive.shared.b64 %rd2, [%r4];";
const WAIT: &str = "W: mbarrier.test_wait.shared.b64 %p2, [%r4], %rd2; @!%p2 bra W;";
/// Reads the word of a thread of the other warp.
const READ: &str = "xor.b32 %r6, %r0, 32; mov.u32 %r7, room; mad.lo.u32 %r6, %r6, 4, %r7; ld.shared.u32 %r8, [%r6];";

#[test]
fn an_arrival_releases_and_a_wait_acquires() {
    let store = "st.shared.u32 [%r5], %r0;";
    finds_nothing(&with_barrier(64, &format!("{store} {ARRIVE} {WAIT} {READ}")), 64);
    // Without the wait, with the store after the arrival, and with an order that is none.
    let late = with_barrier(64, &format!("st.shared.u32 [%r5], 1; bar.sync 0; {ARRIVE} {store} {WAIT} {READ}"));
    finds(&late, 64, FindingKind::Race, "ld.shared");
    let hasty = with_barrier(64, &format!("st.shared.u32 [%r5], 1; bar.sync 0; {store} {ARRIVE} {READ}"));
    finds(&hasty, 64, FindingKind::Race, "ld.shared");
    let loose = ARRIVE.replace("arrive", "arrive.relaxed.cta");
    let loose = with_barrier(64, &format!("st.shared.u32 [%r5], 1; bar.sync 0; {store} {loose} {WAIT} {READ}"));
    finds(&loose, 64, FindingKind::Race, "ld.shared");
}

#[test]
fn a_lane_arrives_and_waits_for_itself() {
    // One arrival stands for warp 0, or one wait for warp 1: if their lanes have met.
    let body = |meet: &str, met: &str| {
        let store =
            "st.shared.u32 [%r5], 1; bar.sync 0; setp.ge.u32 %p3, %r0, 32; @%p3 bra B; st.shared.u32 [%r5], %r0;";
        let one =
            "setp.ne.u32 %p4, %r0, 32; @%p4 bra C; W: mbarrier.test_wait.parity.shared.b64 %p2, [%r4], 0; @!%p2 bra W;";
        with_barrier(
            1,
            &format!(
                "{store} {meet} @!%p1 bra E; {ARRIVE} bra E; B: {one} C: {met} {READ} E: st.global.u32 [%rd1], 0;"
            ),
        )
    };
    finds_nothing(&body("bar.warp.sync -1;", "bar.warp.sync -1;"), 64);
    finds(&body("", "bar.warp.sync -1;"), 64, FindingKind::Race, "ld.shared");
    finds(&body("bar.warp.sync -1;", ""), 64, FindingKind::Race, "ld.shared");
}

#[test]
fn an_arrival_acquires_nothing() {
    // Warp 0 stores and arrives; warp 1 arrives, does not wait, and reads.
    let body = "st.shared.u32 [%r5], 1; bar.sync 0; setp.lt.u32 %p3, %r0, 32; @%p3 st.shared.u32 [%r5], %r0;";
    let body = with_barrier(64, &format!("{body} {ARRIVE} @%p3 bra E; {READ} E: st.global.u32 [%rd1], 0;"));
    finds(&body, 64, FindingKind::Race, "ld.shared");
}

#[test]
fn a_wait_knows_of_its_own_phase_and_no_later_one() {
    // Warp 0 arrives, stores, and arrives for the next phase; warp 1 waits for the first phase only.
    let body = "st.shared.u32 [%r5], 1; bar.sync 0; setp.lt.u32 %p3, %r0, 32; @%p3 bra A;";
    let warp_1 = format!("{ARRIVE} {WAIT} {READ} bra E;");
    let warp_0 = format!(
        "A: {ARRIVE} X: mbarrier.test_wait.shared.b64 %p2, [%r4], %rd2; @!%p2 bra X; st.shared.u32 [%r5], %r0; {ARRIVE}"
    );
    let body = with_barrier(64, &format!("{body} {warp_1} {warp_0} E: st.global.u32 [%rd1], 0;"));
    finds(&body, 64, FindingKind::Race, "shared");
}

#[test]
fn copies_land_for_those_who_wait_at_the_barrier() {
    let copy = "st.global.u32 [%rd1], %r0; cp.async.ca.shared.global [%r5], [%rd1], 4;";
    let follow = "cp.async.mbarrier.arrive.noinc.shared.b64 [%r4];";
    finds_nothing(&with_barrier(128, &format!("{copy} {follow} {ARRIVE} {WAIT} {READ}")), 64);
    finds_nothing(
        &with_barrier(64, &format!("{copy} cp.async.mbarrier.arrive.shared.b64 [%r4]; {ARRIVE} {WAIT} {READ}")),
        64,
    );
    // Also where the thread itself waits first.
    finds_nothing(&with_barrier(128, &format!("{copy} {follow} cp.async.wait_all; {ARRIVE} {WAIT} {READ}")), 64);
    // An arrival that does not follow the copies says nothing of them.
    finds(&with_barrier(64, &format!("{copy} {ARRIVE} {WAIT} {READ}")), 64, FindingKind::InFlight, "cp.async");
    finds(
        &with_barrier(128, &format!("{follow} {copy} {ARRIVE} {WAIT} {READ}")),
        64,
        FindingKind::InFlight,
        "cp.async",
    );
    // Who does not wait reads what is in flight, or races with it.
    finds(
        &with_barrier(128, &format!("{copy} {follow} {ARRIVE} bar.sync 0; {READ}")),
        64,
        FindingKind::InFlight,
        "cp.async",
    );
    // What the thread stores after its copies is not part of the arrival.
    let late = format!("st.shared.u32 [%r5], 1; bar.sync 0; {copy} {follow}");
    let late =
        format!("{late} xor.b32 %r6, %r0, 64; mov.u32 %r7, room; mad.lo.u32 %r6, %r6, 4, %r7; st.shared.u32 [%r6], 1;");
    let read = READ.replace("%r0, 32", "%r0, 96");
    finds(
        &with_barrier(
            64,
            &format!("{late} {} {read}", WAIT.replace("test_wait", "test_wait.parity").replace("%rd2;", "0;")),
        ),
        64,
        FindingKind::Race,
        "shared",
    );
}

#[test]
fn what_is_not_to_be_done_with_a_barrier() {
    let wrong = |arrivals: u32, body: &str, words: &str| {
        finds(&with_barrier(arrivals, body), 32, FindingKind::Undefined, words)
    };
    wrong(16, "mbarrier.arrive.noComplete.shared.b64 %rd2, [%r4], 17;", "needs 16 more");
    wrong(32, "mbarrier.arrive.noComplete.shared.b64 %rd2, [%r4], 1;", "completes the phase");
    wrong(32, "@%p1 mbarrier.init.shared.b64 [%r4], 32;", "inval must come first");
    wrong(
        1,
        &format!(
            "@%p1 {ARRIVE} @%p1 mbarrier.arrive.shared.b64 %rd3, [%r4]; bar.sync 0; @%p1 mbarrier.test_wait.shared.b64 %p2, [%r4], %rd2;"
        ),
        "neither this one nor the last",
    );
    wrong(32, &format!("@%p1 st.shared.b64 [%r4], 5; bar.sync 0; {ARRIVE}"), "something else has written");
    wrong(32, "mbarrier.arrive.b64 %rd2, [%rd1];", "not in shared memory");
    let unmade = ".shared .align 8 .b64 bar; mov.u32 %r4, bar; st.shared.b64 [%r4], 0; bar.warp.sync -1;";
    finds(&format!("{unmade} {ARRIVE}"), 32, FindingKind::Undefined, "not initialised by mbarrier.init");
    let none = ".shared .align 8 .b64 bar; mbarrier.init.shared.b64 [bar], 0;";
    finds(none, 1, FindingKind::Undefined, "0 arrivals");
    // Given up, it is a barrier no more; and nobody else may have it meanwhile.
    let gone = with_barrier(32, &format!("@%p1 mbarrier.inval.shared.b64 [%r4]; bar.sync 0; {ARRIVE}"));
    finds(&gone, 32, FindingKind::Uninitialised, "mbarrier");
    let unordered =
        with_barrier(64, &format!("setp.ge.u32 %p3, %r0, 32; @%p3 {ARRIVE} @%p1 mbarrier.inval.shared.b64 [%r4];"));
    finds(&unordered, 64, FindingKind::Race, "mbarrier");
}

/// As `sm_90`: one thread copies for all, and the barrier counts the bytes.
#[test]
fn bulk_copies_land_for_those_who_wait() {
    let found = |body: &str| {
        let settings = Settings { watch: Watch::Races, target: Target::Sm90, ..settings() };
        let (report, _) = run_with("", &with_barrier(1, body), 1, 64, &settings);
        report.findings.first().map(|finding| (finding.kind, finding.to_string()))
    };
    let fill = "st.global.u32 [%rd1], %r0; bar.sync 0; @!%p1 bra ALL;";
    let copy = |bytes: u32| {
        format!(
            "mov.u32 %r9, {bytes}; cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%r5], [%rd0], %r9, [%r4];"
        )
    };
    let expect = |bytes: u32| format!("mbarrier.arrive.expect_tx.shared.b64 %rd2, [%r4], {bytes};");
    let wait = "W: mbarrier.try_wait.parity.shared.b64 %p2, [%r4], 0; @!%p2 bra W;";
    assert_eq!(found(&format!("{fill} {} {} ALL: {wait} {READ}", expect(256), copy(256))), None);
    // The copy may come before what it is expected by.
    assert_eq!(
        found(&format!(
            "{fill} mbarrier.expect_tx.relaxed.cta.shared::cta.b64 [%r4], 0; {} {} ALL: {wait} {READ}",
            copy(256),
            expect(256)
        )),
        None
    );
    let kind = |body: String| found(&body).map(|(kind, _)| kind);
    assert_eq!(
        kind(format!("{fill} {} {} ALL: bar.sync 0; {READ}", expect(256), copy(256))),
        Some(FindingKind::InFlight)
    );
    // Bytes that never come.
    assert_eq!(kind(format!("{fill} {} {} ALL: {wait} {READ}", expect(272), copy(256))), Some(FindingKind::Runaway));
    assert_eq!(kind(format!("{fill} {} {} ALL: {wait}", expect(24), copy(24))), Some(FindingKind::Undefined));
    assert_eq!(kind(format!("{fill} {} {} ALL: {wait}", expect(272), copy(272))), Some(FindingKind::OutOfBounds));
    // A barrier that nobody has made, and bytes that nobody waits for.
    let lost = copy(256).replace("[%r4]", "[%r5]");
    assert_eq!(kind(format!("{fill} {} {lost} ALL:", expect(256))), Some(FindingKind::Undefined));
    let (found, text) = found(&format!("{fill} {} {} ALL:", expect(256), copy(256))).expect("a copy is left");
    assert_eq!(found, FindingKind::InFlight);
    assert!(text.contains("PTX line 9: cp.async.bulk"), "{text}");
    // Arrivals that come with the copies which they follow, one too many.
    let follow = "cp.async.ca.shared.global [%r5], [%rd1], 4; cp.async.mbarrier.arrive.noinc.shared.b64 [%r4];";
    let bytes = "mbarrier.expect_tx.relaxed.cta.shared::cta.b64 [%r4], 16;";
    let test = "mbarrier.test_wait.parity.shared.b64 %p2, [%r4], 0;";
    assert_eq!(kind(format!("{fill} {bytes} {follow} {follow} {test} ALL:")), Some(FindingKind::Undefined));
    let astray = format!("{fill} add.u64 %rd0, %rd0, 4; {} {} ALL: {wait}", expect(16), copy(16));
    assert_eq!(kind(astray), Some(FindingKind::Misaligned));
}

/// One thread that copies, uses what has come, and copies again races with nobody, least of all with itself.
#[test]
fn one_thread_copies_again_and_again() {
    let run = |between: &str, after: &str| {
        let body = format!(
            ".shared .align 8 .b64 bar; .shared .align 16 .b8 room[512]; mov.u32 %r4, bar; mov.u32 %r5, room; mov.u32 %r9, 512;
            mad.lo.u32 %r6, %r0, 4, %r5; st.global.u32 [%rd1], %r0; setp.eq.u32 %p1, %r0, 0; bar.sync 0; @!%p1 bra E;
            mbarrier.init.shared.b64 [%r4], 1; fence.mbarrier_init.release.cluster; mov.u32 %r10, 0; mov.u32 %r12, 0;
            L: fence.proxy.async; mbarrier.arrive.expect_tx.shared.b64 %rd2, [%r4], 512;
            cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%r5], [%rd0], %r9, [%r4];
            and.b32 %r11, %r10, 1; W: mbarrier.try_wait.parity.shared.b64 %p2, [%r4], %r11; @!%p2 bra W;
            ld.shared.u32 %r13, [%r5+508]; add.u32 %r12, %r12, %r13; ld.shared.u32 %r13, [%r5+4]; add.u32 %r12, %r12, %r13;
            {between} add.u32 %r10, %r10, 1; setp.lt.u32 %p3, %r10, 4; @%p3 bra L; st.global.u32 [%rd0+8], %r12; E: {after}"
        );
        let settings = Settings { watch: Watch::Races, target: Target::Sm90, ..settings() };
        run_with("", &body, 1, 128, &settings)
    };
    let (report, values) = run("st.global.u32 [%rd0+4], %r10;", "");
    assert_eq!((report.findings, values[2]), (vec![], 4 * 127 + 1 + 1 + 2));
    // Who stores there meanwhile does race.
    let (report, _) = run("", "st.shared.u32 [%r6], %r0;");
    assert_eq!(report.findings[0].kind, FindingKind::Race);
    // Rows that their own lanes give up and write again.
    let row = "shl.b32 %r4, %r0, 7; cvt.u64.u32 %rd2, %r4; mov.u64 %rd3, rows; add.u64 %rd2, %rd2, %rd3; st.global.u32 [%rd2+64], %r0;";
    for (other, kind) in [("", None), ("xor.b32 %r4, %r4, 128;", Some(FindingKind::Race))] {
        let again = format!("{other} cvt.u64.u32 %rd2, %r4; add.u64 %rd2, %rd2, %rd3; discard.global.L2 [%rd2], 128;");
        let body = format!("{row} {again} st.global.u32 [%rd2+4], %r0;");
        let settings = Settings { watch: Watch::Races, ..settings() };
        let (report, _) = run_with(".global .align 128 .b8 rows[4096];", &body, 1, 32, &settings);
        assert_eq!(report.findings.first().map(|finding| finding.kind), kind);
    }
}
