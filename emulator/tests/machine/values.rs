//! Values that nobody gave: where they may go, and where they may not.

use ptx_emulator::watch::FindingKind;

use crate::{found, run_with, settings, values};

#[test]
fn what_nobody_wrote_may_be_shuffled_and_copied_but_not_used() {
    // The upper half has no value. It offers it, and takes what the lower half offers; nobody looks at what is nothing.
    let half = "setp.lt.u32 %p1, %r0, 16; @%p1 mov.u32 %r9, %r0;";
    let shuffle = "shfl.sync.down.b32 %r10, %r9, 8, 31, -1; mov.b32 %r11, %r10;";
    let body = format!("{half} {shuffle} setp.lt.u32 %p2, %r0, 8; @%p2 st.global.u32 [%rd1], %r11;");
    assert_eq!(values("", &body, 1, 32), (0..32).map(|t| if t < 8 { t + 8 } else { 0 }).collect::<Vec<u32>>());
    // Lane 8 gets the value of lane 16, which has none.
    let (kind, text) = found(&format!("{half}\n {shuffle}\n st.global.u32 [%rd1], %r11; //!"), 32);
    assert_eq!(kind, FindingKind::Uninitialised);
    assert!(text.contains("lane 8") && text.contains("uses register %r11"), "{text}");
    assert!(text.contains("it was first read at PTX line 9: shfl.sync.down"), "{text}");
    // Also as halves of what has 64 bits, and in a loop that sums.
    let wide = "mov.b64 %rd2, {%r9, %r9}; mov.b64 {%r10, %r11}, %rd2;";
    let body = format!("{half} {wide} @%p1 st.global.u32 [%rd1], %r11;");
    assert_eq!(values("", &body, 1, 32), (0..32).map(|t| if t < 16 { t } else { 0 }).collect::<Vec<u32>>());
    let (kind, _) = found(&format!("{half}\n {wide} add.u32 %r11, %r11, 1;\n st.global.u32 [%rd1], %r11; //!"), 32);
    assert_eq!(kind, FindingKind::Uninitialised);
    // From whom to take it is used at once, also where that is what is taken.
    for value in ["%r0", "%r9"] {
        let (kind, text) = found(&format!("{half}\n shfl.sync.idx.b32 %r10, {value}, %r9, 31, -1; //!"), 32);
        assert_eq!(kind, FindingKind::Uninitialised);
        assert!(text.contains("lane 16"), "{text}");
    }
}

/// The upper half of the warp has no %r9, %rd9 and %p3.
const HALF: &str =
    "setp.lt.u32 %p1, %r0, 16; @%p1 mov.u32 %r9, %r0; @%p1 setp.lt.u32 %p3, %r0, 99; setp.ge.u32 %p4, %r0, 16;
    @%p1 cvt.u64.u32 %rd9, %r0;";

/// That the upper half may compute and then select something else; and that what it computed is not to be stored.
fn selects(compute: &str) {
    let body = format!("{HALF} {compute} selp.b32 %r12, %r11, 7, %p1; st.global.u32 [%rd1], %r12;");
    let upper = values("", &body, 1, 32)[16..].to_vec();
    assert_eq!(upper, [7; 16], "{compute}");
    let body = format!("{HALF}\n {compute}\n st.global.u32 [%rd1], %r11; //!");
    let (kind, text) = found(&body, 32);
    assert_eq!(kind, FindingKind::Uninitialised, "{compute}");
    assert!(text.contains("lane 16") && text.contains("it was first read at PTX line 10"), "{text}");
}

#[test]
fn compilers_compute_first_and_select_afterwards() {
    selects("max.s32 %r11, %r9, 5;");
    selects("cvt.rn.f32.s32 %f1, %r9; fma.rn.f32 %f1, %f1, %f1, %f1; ex2.approx.f32 %f1, %f1; mov.b32 %r11, %f1;");
    selects("prmt.b32 %r11, %r9, 0, 0x4140;");
    selects("add.cc.u32 %r10, %r9, -1; addc.u32 %r11, 0, 0;");
    selects("mul.lo.u64 %rd8, %rd9, 3; cvt.u32.u64 %r11, %rd8;");
    selects("setp.gt.s32 %p5, %r9, 3; selp.b32 %r11, %r9, 3, %p5;");
    selects("setp.gt.s32 %p5, %r9, 3; selp.b32 %r11, 2, 3, %p5;");
    selects("not.pred %p5, %p3; selp.b32 %r11, 2, 3, %p5;");
    selects("xor.pred %p5, %p3, %p1; selp.b32 %r11, 2, 3, %p5;");
    selects("setp.ne.xor.u32 %p5, %r9, 0, %p1; selp.b32 %r11, 2, 3, %p5;");
    // Of the two that might be selected, only the one that is counts.
    let body = format!(
        "{HALF} selp.b32 %r11, %r9, 5, %p1; selp.b32 %r12, 5, %r9, %p4; add.u32 %r11, %r11, %r12; st.global.u32 [%rd1], %r11;"
    );
    assert_eq!(values("", &body, 1, 32), (0..32).map(|t| if t < 16 { 2 * t } else { 10 }).collect::<Vec<u32>>());
}

#[test]
fn one_condition_may_decide_without_the_other() {
    // In the upper half %p1 does not hold and %p4 does, whatever %p3 and %r9 say; the second and third by the comparison.
    for condition in [
        "and.pred %p5, %p1, %p3;",
        "and.pred %p5, %p3, %p1;",
        "or.pred %p5, %p3, %p4; not.pred %p5, %p5;",
        "setp.lt.and.u32 %p5, %r9, 99, %p1;",
        "setp.lt.and.u32 %p5, %r0, 16, %p3;",
        "setp.lt.or.u32 %p5, %r9, 99, %p4; not.pred %p5, %p5;",
        "setp.ge.or.u32 %p5, %r0, 16, %p3; not.pred %p5, %p5;",
        "setp.lt.and.u32 %p5|%p6, %r9, 99, %p1;",
    ] {
        let body = format!("{HALF} {condition} @%p5 st.global.u32 [%rd1], 1;");
        let (report, upper) = run_with("", &body, 1, 32, &settings());
        assert_eq!(report.findings, [], "{condition}");
        assert_eq!(upper[16..], [0; 16], "{condition}");
    }
    for condition in [
        "and.pred %p5, %p4, %p3;",
        "or.pred %p5, %p3, %p1;",
        "setp.lt.and.u32 %p5, %r9, 99, %p4;",
        "setp.ge.and.u32 %p5, %r0, 16, %p3;",
        "setp.lt.or.u32 %p5, %r9, 99, %p1;",
        "setp.lt.or.u32 %p5, %r0, 16, %p3;",
    ] {
        let (kind, text) = found(&format!("{HALF}\n {condition}\n @%p5 st.global.u32 [%rd1], 1; //!"), 32);
        assert_eq!(kind, FindingKind::Uninitialised);
        assert!(text.contains("lane 16") && text.contains("%p5"), "{text}");
    }
    // The comparison by itself was only asked about: the predicate that was there stays for the lanes that are left out.
    let body = format!(
        "{HALF} setp.eq.u32 %p5, %r0, %r0; @%p4 setp.eq.and.u32 %p5, %r0, 99, %p3; @%p5 st.global.u32 [%rd1], 1;"
    );
    assert_eq!(values("", &body, 1, 32), (0..32).map(|t| u32::from(t < 16)).collect::<Vec<u32>>());
}

#[test]
fn what_acts_on_a_value_that_nobody_gave() {
    let outside = ".global .u32 word;";
    for action in [
        "setp.gt.s32 %p5, %r9, 3; @%p5 bra E; E:",
        "cvt.u64.u32 %rd2, %r9; add.u64 %rd2, %rd2, %rd0; ld.global.u32 %r10, [%rd2];",
        "atom.global.add.u32 %r10, [word], %r9;",
        "red.global.add.u32 [word], %r9;",
        "redux.sync.add.u32 %r10, %r9, -1;",
        "vote.sync.ballot.b32 %r10, %p3, -1;",
        "match.any.sync.b32 %r10, %r9, -1;",
        "st.global.v2.u32 [%rd4], {%r0, %r9};",
        "st.v2.u32 [%rd4], {%r9, %r0};",
        "mad.lo.u32 %r10, %r9, 2, 1; st.global.u32 [word], %r10;",
        // Also where the guard happens not to hold.
        "@%p3 bra E; E:",
        "@!%p3 bra E; E:",
        "@%p3 mov.u32 %r10, 1;",
    ] {
        let body = format!("{HALF} cvta.global.u64 %rd4, word; add.u64 %rd4, %rd0, 8; {action}");
        let (report, _) = run_with(outside, &body, 1, 32, &settings());
        let finding = report.findings.first().unwrap_or_else(|| panic!("nothing was found in {action}"));
        assert_eq!((finding.kind, finding.lane), (FindingKind::Uninitialised, 16), "{action}");
    }
}

#[test]
fn memory_that_holds_what_nobody_gave_counts_as_not_written() {
    let shared =
        ".shared .align 8 .b8 room[256]; mov.u32 %r4, room; mad.lo.u32 %r4, %r0, 8, %r4; cvt.u64.u32 %rd2, %r4;
        cvta.shared.u64 %rd2, %rd2;";
    let local = ".local .align 8 .b8 room[8]; mov.u64 %rd2, room; cvta.local.u64 %rd2, %rd2;";
    // By its own space, by a generic address, and as one of two.
    for (place, before, store, load) in [
        (shared, "st.shared.u32 [%r4], 1;", "st.shared.u32 [%r4], %r9;", "ld.shared.u32 %r11, [%r4];"),
        (shared, "", "st.u32 [%rd2], %r9;", "ld.u32 %r11, [%rd2];"),
        (shared, "", "st.shared.v2.u32 [%r4], {%r0, %r9};", "ld.shared.u32 %r11, [%r4+4];"),
        (local, "st.local.u32 [room], 1;", "st.local.u32 [room], %r9;", "ld.local.u32 %r11, [room];"),
        (local, "", "st.v2.u32 [%rd2], {%r0, %r9};", "ld.u32 %r11, [%rd2+4];"),
    ] {
        let head = format!("{place} {HALF} {before} {store}");
        let given = format!("{head} @%p4 bra E; {load} st.global.u32 [%rd1], %r11; E:");
        assert_eq!(values("", &given, 1, 32)[..16], (0..16).collect::<Vec<u32>>(), "{store}");
        let (report, _) = run_with("", &format!("{head} {load}"), 1, 32, &settings());
        let finding = report.findings.first().unwrap_or_else(|| panic!("nothing was found after {store}"));
        assert_eq!((finding.kind, finding.lane), (FindingKind::Uninitialised, 16), "{store}");
        // Written again, it is written.
        let again = store.replace("%r9", "%r0");
        values("", &format!("{head} {again} {load} st.global.u32 [%rd1], %r11;"), 1, 32);
    }
    // What one of two has been given stays given.
    values("", &format!("{shared} {HALF} st.shared.v2.u32 [%r4], {{%r0, %r9}}; ld.shared.u32 %r11, [%r4];"), 1, 32);
}

#[test]
fn arguments_that_nobody_gave() {
    let outside = ".func (.param .b32 r) second(.param .b32 a, .param .b32 b) { .reg .b32 %a; ld.param.b32 %a, [b];
        st.param.b32 [r], %a; ret; }";
    let call = "{ .param .b32 x; .param .b32 y; .param .b32 z; st.param.b32 [x], FIRST; st.param.b32 [y], SECOND;
        call (z), second, (x, y); ld.param.b32 %r11, [z]; } st.global.u32 [%rd1], %r11;";
    let with = |first: &str, second: &str| {
        let body = format!("{HALF} {}", call.replace("FIRST", first).replace("SECOND", second));
        run_with(outside, &body, 1, 32, &settings())
    };
    let (report, values) = with("%r9", "%r0");
    assert_eq!((report.findings, values), (vec![], (0..32).collect()));
    let findings = with("%r0", "%r9").0.findings;
    assert_eq!((findings[0].kind, findings[0].lane), (FindingKind::Uninitialised, 16));
    // What a function returns once is not there any more when it returns nothing.
    let outside = ".func (.param .b32 r) sometimes(.param .b32 a) { .reg .b32 %a; .reg .pred %p; ld.param.b32 %a, [a];
        setp.lt.u32 %p, %a, LIMIT; @%p st.param.b32 [r], %a; ret; }";
    let body = "mov.u32 %r4, 0; L: { .param .b32 x; .param .b32 z; st.param.b32 [x], %r4; call (z), sometimes, (x);
        ld.param.b32 %r11, [z]; } add.u32 %r4, %r4, 1; setp.lt.u32 %p1, %r4, 3; @%p1 bra L; st.global.u32 [%rd1], %r11;";
    let with = |limit: &str| run_with(&outside.replace("LIMIT", limit), body, 1, 32, &settings());
    assert_eq!(with("3"), (with("3").0, vec![2; 32]));
    assert_eq!(with("2").0.findings[0].kind, FindingKind::Uninitialised);
}

#[test]
fn initial_values_of_parts_of_addresses() {
    // As a packed structure with a pointer in it is written down.
    let bytes: Vec<String> = (0..8).map(|i| format!("0xFF{}(generic(table)+4)", "00".repeat(i))).collect();
    let outside = format!(
        ".global .align 4 .u32 table[4] = {{10, 11, 12, 13}};\n.global .align 1 .u8 packed[9] = {{7, {}}};\n\
         .global .align 4 .u32 words[2] = {{0xFFFFFFFF(table), 0xFFFFFFFF00000000(table)}};",
        bytes.join(", ")
    );
    let load: String = (0..8)
        .map(|i| {
            format!("ld.global.u8 %rd3, [packed+{}]; shl.b64 %rd3, %rd3, {}; or.b64 %rd2, %rd2, %rd3;", i + 1, 8 * i)
        })
        .collect();
    let body = format!("mov.u64 %rd2, 0; {load} ld.u32 %r4, [%rd2]; st.global.u32 [%rd1], %r4;");
    assert_eq!(values(&outside, &body, 1, 1), [11]);
    let body = "ld.global.u32 %r4, [words]; ld.global.u32 %r5, [words+4]; mov.b64 %rd2, {%r4, %r5}; ld.u32 %r4, [%rd2+12]; st.global.u32 [%rd1], %r4;";
    assert_eq!(values(&outside, body, 1, 1), [13]);
}

#[test]
fn discarded_memory_is_not_to_be_read() {
    let outside = ".global .align 128 .b8 room[256];";
    let discard = "mov.u64 %rd2, room; discard.global.L2 [%rd2], 128; ld.global.u32 %r4, [%rd2";
    let (report, _) = run_with(outside, &format!("{discard}+128];"), 1, 1, &settings());
    assert_eq!(report.findings, []);
    let (report, _) = run_with(outside, &format!("{discard}+124];"), 1, 1, &settings());
    assert_eq!(report.findings[0].kind, FindingKind::Uninitialised);
    let (report, _) = run_with(outside, "mov.u64 %rd2, room; discard.global.L2 [%rd2+4], 128;", 1, 1, &settings());
    assert_eq!(report.findings[0].kind, FindingKind::Misaligned);
}

#[test]
fn copies_that_read_less_than_they_write() {
    let copy = |offset: u32, given: &str| {
        format!(
            ".shared .align 16 .b8 room[512]; mov.u32 %r4, room; mad.lo.u32 %r4, %r0, 16, %r4; mad.wide.u32 %rd2, %r0, 16, %rd0;
            mov.u32 %r5, {given}; cp.async.ca.shared.global [%r4], [%rd2+{offset}], 16, %r5; cp.async.wait_all; ld.shared.u32 %r6, [%r4];
            st.global.u32 [%rd1], %r6;"
        )
    };
    // 128 threads have 512 bytes: 32 pieces, of which the last reads what is there.
    let run = |offset: u32, given: &str| run_with("", &copy(offset, given), 1, 32, &settings()).0.findings;
    let one = |offset: u32, given: &str| run(offset, given).first().map(|finding| (finding.kind, finding.lane));
    assert_eq!(one(0, "12"), Some((FindingKind::OutOfBounds, 8)));
    // However little is read: the source is aligned as the whole copy.
    assert_eq!(one(4, "12"), Some((FindingKind::Misaligned, 0)));
    assert_eq!(one(4, "4"), Some((FindingKind::Misaligned, 0)));
    // What reads nothing has no source.
    assert_eq!(one(4, "0"), None);
    assert_eq!(one(0, "17"), Some((FindingKind::Undefined, 0)));
}
