//! `mbarrier`, and copies that arrive at one.

use crate::case::Kind::*;
use crate::case::{BLOCK, Case, Want};

/// A block's room, one barrier for `%n` arrivals that thread 0 has made, and each thread's own word at `%at`.
fn prologue(arrivals: u32) -> String {
    format!(
        ".shared .align 8 .b64 bar; .shared .align 16 .b8 room[2048]; .reg .b32 %i, %at, %bar, %j; .reg .b64 %token; .reg .pred %first, %over; \
         mov.u32 %i, %tid.x; mov.u32 %at, room; mad.lo.u32 %at, %i, 4, %at; mov.u32 %bar, bar; setp.eq.u32 %first, %i, 0; \
         @%first mbarrier.init.shared.b64 [%bar], {arrivals}; bar.sync 0; "
    )
}

/// Reads the word of the thread 37 further on.
const NEIGHBOUR: &str =
    "add.u32 %i, %i, 37; and.b32 %i, %i, 127; mov.u32 %at, room; mad.lo.u32 %at, %i, 4, %at; ld.shared.b32 %d, [%at];";

fn exchange(arrivals: u32, wait: &str) -> Case {
    let block = BLOCK as usize;
    let text = format!("{{ {} st.shared.b32 [%at], %a; {wait} {NEIGHBOUR} }}", prologue(arrivals));
    Case::of_group(text, &[U32], &[U32], block, move |threads| {
        (0..block).map(|i| vec![Want::Bits(threads[(i + 37) % block][0])]).collect()
    })
}

/// A loop around a wait.
fn until(wait: &str) -> String {
    format!("AGAIN: {wait} @!%over bra AGAIN; ")
}

pub fn barriers() -> Vec<Case> {
    let (all, twice) = (BLOCK, 2 * BLOCK);
    let arrive = "mbarrier.arrive.shared.b64 %token, [%bar]; ";
    let mut cases = Vec::new();
    for wait in [
        "mbarrier.test_wait.shared.b64 %over, [%bar], %token;",
        "mbarrier.test_wait.parity.shared.b64 %over, [%bar], 0;",
        "mbarrier.test_wait.acquire.cta.shared::cta.b64 %over, [%bar], %token;",
    ] {
        cases.push(exchange(all, &format!("{arrive}{}", until(wait))));
    }
    let wait = until("mbarrier.test_wait.shared.b64 %over, [%bar], %token;");
    // Without a name for the space: by a generic address.
    let generic =
        ".reg .b64 %g64; cvt.u64.u32 %g64, %bar; cvta.shared.u64 %g64, %g64; mbarrier.arrive.b64 %token, [%g64]; ";
    cases.push(exchange(all, &format!("{generic}{}", until("mbarrier.test_wait.b64 %over, [%g64], %token;"))));
    // One arrival that cannot be the last, and one that may be.
    let two = "mbarrier.arrive.noComplete.shared.b64 %token, [%bar], 1; mbarrier.arrive.shared.b64 %token, [%bar]; ";
    cases.push(exchange(twice, &format!("{two}{wait}")));
    cases.push(exchange(all, &format!("mbarrier.arrive.release.cta.shared.b64 %token, [%bar]; {wait}")));
    // Everybody but one half leaves for good: the second phase is the other half's.
    let drop = "setp.lt.u32 %first, %i, 64; @!%first mbarrier.arrive_drop.shared.b64 %token, [%bar]; \
                @%first mbarrier.arrive.shared.b64 %token, [%bar]; ";
    let again = "bar.sync 0; @%first mbarrier.arrive.shared.b64 %token, [%bar]; MORE: mbarrier.test_wait.parity.shared.b64 %over, [%bar], 1; @!%over bra MORE; ";
    cases.push(exchange(all, &format!("{drop}{wait}{again}")));
    let none =
        "mbarrier.arrive_drop.noComplete.shared.b64 %token, [%bar], 1; mbarrier.arrive.shared.b64 %token, [%bar]; ";
    cases.push(exchange(twice, &format!("{none}{wait}")));
    // The barrier is given up, and its room made another.
    let anew = "bar.sync 0; @%first mbarrier.inval.shared.b64 [%bar]; @%first mbarrier.init.shared.b64 [%bar], 128; bar.sync 0; ";
    cases.push(exchange(all, &format!("{arrive}{wait}{anew}{arrive}{}", wait.replace("AGAIN", "ANEW"))));
    // Arrivals that are still to come, as a state tells: of this thread alone.
    cases.push(Case::of_group(
        "{ .shared .align 8 .b8 bars[1024]; .reg .b32 %i, %bar; .reg .b64 %token; mov.u32 %i, %tid.x; mov.u32 %bar, bars; mad.lo.u32 %bar, %i, 8, %bar; \
         mbarrier.init.shared.b64 [%bar], 5; mbarrier.arrive.noComplete.shared.b64 %token, [%bar], 3; mbarrier.pending_count.b64 %d, %token; \
         mbarrier.arrive.shared.b64 %token, [%bar]; mbarrier.pending_count.b64 %e, %token; }",
        &[],
        &[U32; 2],
        BLOCK as usize,
        |threads| vec![vec![Want::Bits(5), Want::Bits(2)]; threads.len()],
    ));
    cases.extend(copies());
    cases
}

/// Copies whose end is an arrival.
fn copies() -> Vec<Case> {
    let copy = "cp.async.ca.shared.global [%at], [%from], 4; ";
    let wait = until("mbarrier.test_wait.shared.b64 %over, [%bar], %token;");
    let block = BLOCK as usize;
    [
        // The copies' arrivals are added to those that the barrier expects,
        (BLOCK, "cp.async.mbarrier.arrive.shared.b64 [%bar]; "),
        // or are among them.
        (2 * BLOCK, "cp.async.mbarrier.arrive.noinc.shared.b64 [%bar]; "),
        (2 * BLOCK, ".reg .b64 %g64; cvt.u64.u32 %g64, %bar; cvta.shared.u64 %g64, %g64; cp.async.mbarrier.arrive.noinc.b64 [%g64]; "),
    ]
    .into_iter()
    .map(|(arrivals, follow)| {
        let text = format!(
            "{{ {} {copy}{follow} mbarrier.arrive.shared.b64 %token, [%bar]; {wait} {NEIGHBOUR} }}",
            prologue(arrivals)
        );
        Case::of_group(text, &[U32], &[U32], block, move |threads| {
            (0..block).map(|i| vec![Want::Bits(threads[(i + 37) % block][0])]).collect()
        })
    })
    .collect()
}

/// What sm_90 adds.
pub fn barriers_of_sm_90() -> Vec<Case> {
    let arrive = "mbarrier.arrive.shared.b64 %token, [%bar]; ";
    vec![
        bulk("mbarrier.arrive.expect_tx.shared.b64 %token, [%bar], 1024;", ""),
        bulk(
            "mbarrier.expect_tx.relaxed.cta.shared::cta.b64 [%bar], 1024; mbarrier.arrive.shared.b64 %token, [%bar];",
            "",
        ),
        // Bytes that are told by hand.
        bulk(
            "mbarrier.arrive.expect_tx.shared.b64 %token, [%bar], 1040;",
            "mbarrier.complete_tx.relaxed.cta.shared::cta.b64 [%bar], 16;",
        ),
        exchange(BLOCK, &format!("{arrive}{}", until("mbarrier.try_wait.shared.b64 %over, [%bar], %token;"))),
        exchange(
            BLOCK,
            &format!("{arrive}{}", until("mbarrier.try_wait.parity.shared::cta.b64 %over, [%bar], 0, 1000;")),
        ),
        exchange(
            2 * BLOCK,
            &format!(
                "mbarrier.arrive.shared.b64 %token, [%bar], 2; {}",
                until("mbarrier.try_wait.shared.b64 %over, [%bar], %token;")
            ),
        ),
        // To every thread of a block without a cluster, the cluster's shared memory is its own.
        exchange(
            BLOCK,
            &format!(
                "mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%bar]; {}",
                until("mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 %over, [%bar], 0;")
            ),
        ),
        exchange(
            BLOCK,
            &format!(
                "mbarrier.arrive.relaxed.cta.shared.b64 %token, [%bar]; {} bar.sync 0;",
                until("mbarrier.try_wait.relaxed.cta.shared.b64 %over, [%bar], %token;")
            ),
        ),
    ]
}

/// Thread 0 copies 1024 bytes, the operands of a block, and alone arrives; all wait. `arrive` expects the bytes, `after`
/// comes when the copy has begun.
fn bulk(arrive: &str, after: &str) -> Case {
    // With a policy for the cache where nothing comes after.
    let (hint, policy) = if after.is_empty() { (".L2::cache_hint", ", %policy") } else { ("", "") };
    let block = BLOCK as usize;
    let text = format!(
        "{{ {} @!%first bra ALL; {arrive} .reg .b32 %bytes; .reg .b64 %policy; createpolicy.fractional.L2::evict_first.b64 %policy, 1.0; mov.u32 %bytes, 1024; \
         cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes{hint} [%at], [%from], %bytes, [%bar]{policy}; {after} \
         ALL: mov.b32 %j, 0; {} add.u32 %i, %i, 37; and.b32 %i, %i, 127; mov.u32 %at, room; mad.lo.u32 %at, %i, 8, %at; ld.shared.b64 %d, [%at]; }}",
        prologue(1),
        until("mbarrier.try_wait.parity.shared.b64 %over, [%bar], 0;")
    );
    Case::of_group(text, &[U64], &[U64], block, move |threads| {
        (0..block).map(|i| vec![Want::Bits(threads[(i + 37) % block][0])]).collect()
    })
}
