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
    assert!(text.contains("lane 8") && text.contains("%r11 (a copy)"), "{text}");
    // Also as halves of what has 64 bits, and in a loop that sums.
    let wide = "mov.b64 %rd2, {%r9, %r9}; mov.b64 {%r10, %r11}, %rd2;";
    let body = format!("{half} {wide} @%p1 st.global.u32 [%rd1], %r11;");
    assert_eq!(values("", &body, 1, 32), (0..32).map(|t| if t < 16 { t } else { 0 }).collect::<Vec<u32>>());
    let (kind, _) = found(&format!("{half}\n {wide}\n add.u32 %r11, %r11, 1; //!"), 32);
    assert_eq!(kind, FindingKind::Uninitialised);
    // From whom to take it is used at once.
    let (kind, text) = found(&format!("{half}\n shfl.sync.idx.b32 %r10, %r0, %r9, 31, -1; //!"), 32);
    assert_eq!(kind, FindingKind::Uninitialised);
    assert!(text.contains("lane 16"), "{text}");
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
