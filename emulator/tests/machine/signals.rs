//! Lanes that speak and listen for others, stages and words that are handed over: in every order of warps and blocks.

use super::racing::in_every_order;

/// Replaces names by texts.
fn filled(body: &str, places: &[(&str, &str)]) -> String {
    places.iter().fold(body.to_owned(), |body, (name, text)| body.replace(name, text))
}

#[test]
fn a_stage_that_one_lane_gives_back_for_all_that_read_it() {
    // Warps 1 and 2 read one word, each by all its lanes at once; lane 0 of each gives it back, warp 0 writes it again.
    let body = "shr.u32 %r4, %r0, 5; and.b32 %r5, %r0, 31; setp.ne.u32 %p1, %r5, 0; setp.eq.u32 %p2, %r4, 0; setp.eq.u32 %p4, %r0, 0;
        setp.eq.u32 %p5, %r4, 1; @%p4 st.SPACE.u32 [data], 1; @%p4 st.SPACE.u32 [count], 0; bar.sync 0; @%p2 bra P;
        WHO ld.SPACE.u32 %r6, [data]; SYNC @%p1 bra E; atom.release.cta.SPACE.add.u32 %r7, [count], 1; bra E;
        P: @%p1 bra A; W: ld.acquire.cta.SPACE.u32 %r7, [count]; setp.lt.u32 %p3, %r7, 2; @%p3 bra W; A: bar.warp.sync -1;
        @!%p1 st.SPACE.u32 [data], 5; E:";
    let sync = "bar.warp.sync -1;";
    // In warp 2 only the lane that gives it back may have read. In global memory it is not kept of each warp which lanes did.
    for (space, who, met, found) in [
        ("shared", "", sync, false),
        ("shared", "", "", true),
        ("global", "", sync, false),
        ("global", "", "", true),
        ("shared", "not.pred %p6, %p1; or.pred %p6, %p6, %p5; @%p6", "", true),
        ("shared", "@!%p1", "", false),
        ("global", "@!%p1", "", false),
    ] {
        let outside = format!(".{space} .align 4 .b32 data; .{space} .align 4 .b32 count;");
        let body = filled(body, &[("SPACE", space), ("WHO", who), ("SYNC", met)]);
        in_every_order(&outside, &body, 1, 96, found);
    }
}

/// A thread hands a word over in parts: to another warp or block, which must have been told of the part that it touches.
#[test]
fn a_word_that_is_handed_over_in_parts() {
    // The first warp or block tells by one flag after another; the second waits for as many as it needs.
    let body = "and.b32 %r5, %r0, 31; setp.ne.u32 %p1, %r5, 0; @%p1 bra E; setp.ne.u32 %p2, WHO, 0; @%p2 bra L;
        FIRST0 st.release.SCOPE.global.u32 [flags], 1; FIRST1 st.release.SCOPE.global.u32 [flags+4], 1;
        FIRST2 st.release.SCOPE.global.u32 [flags+8], 1; FIRST3 st.release.SCOPE.global.u32 [flags+12], 1; bra E;
        L: W0: ld.acquire.SCOPE.global.u32 %r6, [flags]; setp.eq.u32 %p3, %r6, 0; @%p3 bra W0; SECOND0
        W1: ld.acquire.SCOPE.global.u32 %r6, [flags+4]; setp.eq.u32 %p3, %r6, 0; @%p3 bra W1; SECOND1 E:";
    let outside = ".global .u32 data; .global .u32 flags[4]; .shared .align 4 .b32 mine;";
    let (writes, reads) = ("st.SPACE.TYPE [MINE+AT], %r8;", "ld.SPACE.TYPE %r7, [MINE+AT];");
    for (t, bytes) in [("u16", 2), ("u8", 1)] {
        for (first, second) in [(writes, reads), (reads, writes), (writes, writes)] {
            for (space, mine, who, scope, grid, block) in [
                ("shared", "mine", "%r0", "cta", 1, 64),
                ("global", "data", "%r0", "cta", 1, 64),
                ("global", "data", "%r1", "gpu", 2, 32),
            ] {
                for (early, found) in [(false, false), (true, true)] {
                    let at = |text: &str, part: u32| text.replace("AT", &(part * bytes).to_string());
                    let parts = 4 / bytes;
                    let of = |part: u32| if part < parts { at(first, part) } else { String::new() };
                    // Too early: the last part is touched when only the first one was told of.
                    let then = if early { at(second, parts - 1) } else { at(second, 0) };
                    let texts = [of(0), of(1), of(2), of(3), then, if early { String::new() } else { at(second, 1) }];
                    let names = ["FIRST0", "FIRST1", "FIRST2", "FIRST3", "SECOND0", "SECOND1"];
                    let places: Vec<(&str, &str)> = names.into_iter().zip(texts.iter().map(String::as_str)).collect();
                    let body = filled(body, &places);
                    let rest = [("SPACE", space), ("TYPE", t), ("MINE", mine), ("SCOPE", scope), ("WHO", who)];
                    // Each stores another value.
                    let set = "setp.eq.u32 %p4, %r0, 0; @%p4 st.shared.u32 [mine], 0; bar.sync 0; mad.lo.u32 %r8, %r1, 3, %r0; add.u32 %r8, %r8, 1;";
                    in_every_order(outside, &format!("{set} {}", filled(&body, &rest)), grid, block, found);
                }
            }
        }
    }
}

#[test]
fn lanes_that_change_a_word_together_know_of_those_before_them() {
    // Each lane stores, and counts itself by one instruction; then it reads what its neighbour has stored.
    let body = ".shared .align 4 .b8 s[128]; .shared .align 4 .b32 count; shl.b32 %r4, %r0, 2; mov.u32 %r5, s; add.u32 %r5, %r5, %r4; mov.u32 %r6, 0;
        setp.eq.u32 %p1, %r0, 0; @%p1 st.shared.u32 [count], 0; bar.warp.sync -1; st.shared.u32 [%r5], %r0; COUNT
        mov.u32 %r7, s; WHO mov.u32 %r8, 0; R: ld.shared.u32 %r9, [%r7]; add.u32 %r7, %r7, 4; add.u32 %r8, %r8, 1; setp.lt.u32 %p3, %r8, 32; @%p3 bra R; E:";
    let all = "atom.acq_rel.cta.shared.add.u32 %r6, [count], 1;";
    for (count, reader, found) in [
        // The last of them has heard from all; the last but one has not heard from the last.
        (all, Some(31), false),
        (all, Some(30), true),
        (all, None, true),
        ("membar.cta; atom.shared.add.u32 %r6, [count], 1;", Some(31), false),
        ("atom.shared.add.u32 %r6, [count], 1;", Some(31), true),
        // What returns nothing tells nothing.
        ("membar.cta; red.shared.add.u32 [count], 1;", Some(0), true),
    ] {
        let who = reader.map_or(String::new(), |last| format!("setp.ne.u32 %p2, %r6, {last}; @%p2 bra E;"));
        in_every_order("", &filled(body, &[("COUNT", count), ("WHO", &who)]), 1, 32, found);
    }
}

#[test]
fn one_of_a_group_that_has_met_signals_for_it() {
    // Half a warp writes and meets; its first lane tells the other warp.
    let body = ".shared .align 4 .b8 s[128]; .shared .align 4 .b32 flag; setp.eq.u32 %p1, %r0, 0; @%p1 st.shared.u32 [flag], 0; bar.sync 0;
        and.b32 %r4, %r0, 31; setp.gt.u32 %p2, %r4, 15; @%p2 bra E; shl.b32 %r4, %r4, 2; mov.u32 %r5, s; add.u32 %r5, %r5, %r4; setp.gt.u32 %p3, %r0, 31; @%p3 bra R;
        st.shared.u32 [%r5], %r0; MEET TELL bra E;
        R: W: ld.acquire.cta.shared.u32 %r6, [flag]; setp.eq.u32 %p4, %r6, 0; @%p4 bra W; ld.shared.u32 %r7, [%r5]; E:";
    let release = ("", "@%p1 st.release.cta.shared.u32 [flag], 1;");
    let fence = ("", "@%p1 membar.cta; @%p1 st.volatile.shared.u32 [flag], 1;");
    let fences = ("membar.cta;", "@%p1 st.volatile.shared.u32 [flag], 1;");
    for (each, tell) in [release, fence, fences] {
        for (meet, found) in [("bar.warp.sync 0xFFFF;", false), ("", true), ("bar.warp.sync 0xFF;", true)] {
            let meet =
                if meet.ends_with("0xFF;") { format!("setp.lt.u32 %p5, %r0, 8; @%p5 {meet}") } else { meet.to_owned() };
            let places = [("MEET", &*format!("{each} {meet}")), ("TELL", tell)];
            in_every_order("", &filled(body, &places), 1, 64, found);
        }
    }
}

#[test]
fn lanes_that_share_a_word_each_keep_to_their_part() {
    // Each lane has a half or a byte of its own; the odd ones write theirs again after a fence, and read it after another.
    let body = "SPACE .align 4 .b8 own[64]; mov.u64 %rd2, own; mul.wide.u32 %rd3, %r0, BYTES; add.u64 %rd2, %rd2, %rd3; and.b32 %r4, %r0, 1; setp.eq.u32 %p1, %r4, 1;
        stSPACE.TYPE [%rd2], 0; membar.cta; @%p1 stSPACE.TYPE [%rd2], %r0; membar.cta; @%p1 ldSPACE.TYPE %r5, [WHOSE];";
    for space in [".shared", ".global"] {
        for (t, bytes) in [("u8", "1"), ("u16", "2")] {
            for (whose, found) in [("%rd2", false), ("own", true)] {
                let read = if found { "u32" } else { t };
                let body = body.replace("ldSPACE.TYPE", &format!("ld{space}.{read}"));
                let places = [("SPACE", space), ("TYPE", t), ("BYTES", bytes), ("WHOSE", whose)];
                let (outside, body) = match space {
                    ".global" => (".global .align 4 .b8 own[64];", body.replace("SPACE .align 4 .b8 own[64];", "")),
                    _ => ("", body),
                };
                in_every_order(outside, &filled(&body, &places), 1, 32, found);
            }
        }
    }
}

#[test]
fn a_tile_of_half_a_warp_meets_before_one_lane_writes() {
    // All lanes of a tile read one word, meet, and the first of them writes it.
    let body = "SPACE mov.u64 %rd2, s; shr.u32 %r4, %r0, 4; mul.wide.u32 %rd3, %r4, 4; add.u64 %rd2, %rd2, %rd3; and.b32 %r5, %r0, 15; setp.eq.u32 %p1, %r5, 0;
        @%p1 stWHERE.u32 [%rd2], %r0; bar.warp.sync -1; ldWHERE.u32 %r6, [%rd2]; add.u32 %r6, %r6, 1; mov.u32 %r7, 0xFFFF;
        shl.b32 %r8, %r4, 4; shl.b32 %r7, %r7, %r8; MEET @%p1 stWHERE.u32 [%rd2], %r6;";
    for (space, outside, inside) in
        [(".shared", "", ".shared .align 4 .b8 s[8];"), (".global", ".global .align 4 .b8 s[8];", "")]
    {
        for (meet, found) in [("bar.warp.sync %r7;", false), ("", true)] {
            in_every_order(
                outside,
                &filled(body, &[("SPACE", inside), ("WHERE", space), ("MEET", meet)]),
                1,
                32,
                found,
            );
        }
    }
}
