//! What the lanes of a warp, and the warps of a block, do together.

use crate::case::Kind::{self, *};
use crate::case::{BLOCK, Case, Want};

/// One result per lane.
fn each(results: impl IntoIterator<Item = u64>) -> Vec<Vec<Want>> {
    results.into_iter().map(|bits| vec![Want::Bits(bits)]).collect()
}

pub fn shuffles() -> Vec<Case> {
    let mut cases = Vec::new();
    for mode in ["up", "down", "bfly", "idx"] {
        for (width, distance) in
            [(32u64, 1u64), (32, 16), (32, 31), (32, 0), (16, 3), (8, 5), (4, 2), (2, 1), (1, 0), (32, 40)]
        {
            // Segments of the width: their mask in bits 8 to 12; the clamp in the lowest five.
            let segments = 32 - width;
            let clamp = if mode == "up" { 0 } else { 31 };
            let control = segments << 8 | clamp;
            cases.push(Case::of_group(
                format!("shfl.sync.{mode}.b32 %d|%e, %a, {distance}, {control}, 0xffffffff;"),
                &[U32],
                &[U32, Predicate],
                32,
                move |warp| {
                    (0..32u64)
                        .map(|lane| {
                            let distance = distance & 31;
                            let (first, last) = (lane & segments, lane & segments | !segments & 31);
                            let (source, inside) = match mode {
                                "up" => (lane as i64 - distance as i64, lane as i64 - distance as i64 >= first as i64),
                                "down" => ((lane + distance) as i64, lane + distance <= last),
                                "bfly" => ((lane ^ distance) as i64, lane ^ distance <= last),
                                _ => {
                                    let source = first | distance & !segments & 31;
                                    (source as i64, source <= last)
                                }
                            };
                            let from = if inside { source as usize } else { lane as usize };
                            vec![Want::Bits(warp[from][0]), Want::Bits(u64::from(inside))]
                        })
                        .collect()
                },
            ));
        }
        cases.push(Case::of_group(
            format!(
                "{{ .reg .b32 %n; and.b32 %n, %b, 7; shfl.sync.{mode}.b32 %d, %a, %n, 0x{:x}, -1; }}",
                if mode == "up" { 0x1800 } else { 0x181f }
            ),
            &[U32; 2],
            &[U32],
            32,
            move |warp| {
                each((0..32usize).map(|lane| {
                    let distance = (warp[lane][1] & 7) as usize;
                    let first = lane & 24;
                    let source = match mode {
                        "up" => lane.checked_sub(distance).filter(|&source| source >= first),
                        "down" => Some(lane + distance).filter(|&source| source <= first + 7),
                        "bfly" => Some(lane ^ distance),
                        _ => Some(first + distance),
                    };
                    warp[source.unwrap_or(lane)][0]
                }))
            },
        ));
    }
    // Only the even lanes; the others go another way.
    cases.push(Case::of_group(
        "{ .reg .pred %odd; .reg .b32 %lane; mov.u32 %lane, %laneid; and.b32 %lane, %lane, 1; setp.eq.u32 %odd, %lane, 1; \
         mov.b32 %d, %a; @%odd bra SKIP; shfl.sync.bfly.b32 %d, %a, 2, 31, 0x55555555; SKIP: mov.b32 %d, %d; }",
        &[U32],
        &[U32],
        32,
        |warp| each((0..32usize).map(|lane| warp[if lane % 2 == 0 { lane ^ 2 } else { lane }][0])),
    ));
    cases
}

pub fn votes() -> Vec<Case> {
    let set = |warp: &[Vec<u64>]| warp.iter().enumerate().fold(0u64, |mask, (lane, x)| mask | (x[0] & 1) << lane);
    const ALL: u64 = 0xffff_ffff;
    let mut cases = Vec::new();
    // Of random bits, hardly any warp agrees: so also of bits that do by chance.
    for bits in ["setp.ne.u32 %p, %a, 0;", "setp.ge.u32 %p, %a, 0;", "setp.gt.u32 %p, 0, %a;"] {
        let truth = move |x: u64| match bits.as_bytes()[5] {
            b'n' => u64::from(x != 0),
            b'g' if bits.contains("ge") => 1,
            _ => 0,
        };
        let votes = move |warp: &[Vec<u64>]| set(&warp.iter().map(|x| vec![truth(x[0])]).collect::<Vec<_>>());
        type Rule = fn(u64) -> bool;
        let rules: [(&str, Rule); 3] = [("all", |v| v == ALL), ("any", |v| v != 0), ("uni", |v| v == 0 || v == ALL)];
        for (name, rule) in rules {
            cases.push(Case::of_group(
                format!("{{ .reg .pred %p; {bits} vote.sync.{name}.pred %d, %p, -1; }}"),
                &[U32],
                &[Predicate],
                32,
                move |warp| each(vec![u64::from(rule(votes(warp))); 32]),
            ));
            cases.push(Case::of_group(
                format!("{{ .reg .pred %p; {bits} vote.sync.{name}.pred %d, !%p, 0xffffffff; }}"),
                &[U32],
                &[Predicate],
                32,
                move |warp| each(vec![u64::from(rule(votes(warp) ^ ALL)); 32]),
            ));
        }
        cases.push(Case::of_group(
            format!("{{ .reg .pred %p; {bits} vote.sync.ballot.b32 %d, %p, -1; }}"),
            &[U32],
            &[U32],
            32,
            move |warp| each(vec![votes(warp); 32]),
        ));
    }
    cases.push(Case::of_group("activemask.b32 %d;", &[], &[U32], 32, |_| each(vec![ALL; 32])));
    // Few values, so that some lanes agree.
    for (t, kind) in [("b32", U32), ("b64", U64)] {
        let equal = |warp: &[Vec<u64>], value: u64, mask: u64| {
            warp.iter().enumerate().fold(0, |found, (lane, x)| found | u64::from(x[0] & mask == value) << lane)
        };
        cases.push(Case::of_group(
            format!("and.{t} %a, %a, 3; match.any.sync.{t} %d, %a, -1;"),
            &[kind],
            &[U32],
            32,
            move |warp| each(warp.iter().map(|x| equal(warp, x[0] & 3, 3))),
        ));
        for mask in [0u64, 3] {
            cases.push(Case::of_group(
                format!("and.{t} %a, %a, {mask}; match.all.sync.{t} %d|%e, %a, -1;"),
                &[kind],
                &[U32, Predicate],
                32,
                move |warp| {
                    let same = warp.iter().all(|x| x[0] & mask == warp[0][0] & mask);
                    vec![vec![Want::Bits(if same { ALL } else { 0 }), Want::Bits(u64::from(same))]; 32]
                },
            ));
        }
    }
    type Fold = fn(Kind, &[i128]) -> i128;
    let folds: [(&str, &str, Kind, Fold); 9] = [
        ("add", "u32", U32, |_, x| x.iter().sum()),
        ("add", "s32", S32, |_, x| x.iter().sum()),
        ("min", "u32", U32, |_, x| *x.iter().min().expect("32")),
        ("min", "s32", S32, |_, x| *x.iter().min().expect("32")),
        ("max", "u32", U32, |_, x| *x.iter().max().expect("32")),
        ("max", "s32", S32, |_, x| *x.iter().max().expect("32")),
        ("and", "b32", U32, |_, x| x.iter().fold(-1, |a, b| a & b)),
        ("or", "b32", U32, |_, x| x.iter().fold(0, |a, b| a | b)),
        ("xor", "b32", U32, |_, x| x.iter().fold(0, |a, b| a ^ b)),
    ];
    for (name, t, kind, fold) in folds {
        cases.push(Case::of_group(format!("redux.sync.{name}.{t} %d, %a, -1;"), &[kind], &[kind], 32, move |warp| {
            let values: Vec<i128> = warp.iter().map(|x| kind.value(x[0])).collect();
            each(vec![kind.wrap(fold(kind, &values)); 32])
        }));
        // By the lanes of the lower half alone.
        cases.push(Case::of_group(
            format!("{{ .reg .pred %low; .reg .b32 %lane; mov.u32 %lane, %laneid; setp.lt.u32 %low, %lane, 16; mov.b32 %d, 0; @%low redux.sync.{name}.{t} %d, %a, 0xffff; }}"),
            &[kind],
            &[kind],
            32,
            move |warp| {
                let values: Vec<i128> = warp[..16].iter().map(|x| kind.value(x[0])).collect();
                let result = kind.wrap(fold(kind, &values));
                each((0..32).map(|lane| if lane < 16 { result } else { 0 }))
            },
        ));
    }
    cases
}

/// Exchange through shared memory between neighbours, across warps, with every way to wait.
pub fn barriers() -> Vec<Case> {
    let mut cases = Vec::new();
    let block = BLOCK as usize;
    let exchange = |wait: &str| {
        format!(
            "{{ .shared .align 4 .b8 room[512]; .reg .b32 %i, %at; mov.u32 %i, %tid.x; shl.b32 %at, %i, 2; mov.u32 %word, room; \
             add.u32 %at, %at, %word; st.shared.b32 [%at], %a; {wait} \
             add.u32 %i, %i, 37; and.b32 %i, %i, 127; shl.b32 %at, %i, 2; add.u32 %at, %at, %word; ld.shared.b32 %d, [%at]; }}"
        )
    };
    for wait in [
        "bar.sync 0;",
        "bar.sync 3, 128;",
        "bar.cta.sync 0;",
        "barrier.sync 0;",
        "barrier.sync.aligned 1, 128;",
        "barrier.cta.sync.aligned 2;",
        "{ .reg .b32 %n; mov.u32 %n, 5; bar.sync %n; }",
        "{ .reg .b32 %n; .reg .pred %x; setp.eq.u32 %x, %a, 1; bar.red.popc.u32 %n, 0, %x; }",
        "bar.sync 0; bar.warp.sync -1;",
    ] {
        cases.push(Case::of_group(exchange(wait), &[U32], &[U32], block, move |threads| {
            each((0..block).map(|i| threads[(i + 37) % block][0]))
        }));
    }
    let odd = |threads: &[Vec<u64>]| threads.iter().filter(|x| x[0] & 1 == 1).count() as u64;
    let predicate = ".reg .pred %p; .reg .b32 %low; and.b32 %low, %a, 1; setp.eq.u32 %p, %low, 1;";
    cases.push(Case::of_group(
        format!("{{ {predicate} bar.red.popc.u32 %d, 0, %p; }}"),
        &[U32],
        &[U32],
        block,
        move |threads| each(vec![odd(threads); block]),
    ));
    cases.push(Case::of_group(
        format!("{{ {predicate} barrier.red.popc.u32 %d, 1, 128, !%p; }}"),
        &[U32],
        &[U32],
        block,
        move |threads| each(vec![block as u64 - odd(threads); block]),
    ));
    cases.push(Case::of_group(
        format!("{{ {predicate} bar.red.and.pred %d, 0, %p; bar.red.or.pred %e, 0, %p; }}"),
        &[U32],
        &[Predicate; 2],
        block,
        move |threads| {
            let odd = odd(threads);
            vec![vec![Want::Bits(u64::from(odd == block as u64)), Want::Bits(u64::from(odd > 0))]; block]
        },
    ));
    // The first warp only arrives; the others wait for it.
    cases.push(Case::of_group(
        "{ .shared .align 4 .b8 room[128]; .reg .b32 %w, %at; .reg .pred %first; mov.u32 %w, %tid.x; and.b32 %at, %w, 31; shl.b32 %at, %at, 2; \
         mov.u32 %word, room; add.u32 %at, %at, %word; setp.lt.u32 %first, %w, 32; mov.b32 %d, %a; @!%first bra READ; \
         st.shared.b32 [%at], %a; bar.arrive 1, 128; bra DONE; READ: bar.sync 1, 128; ld.shared.b32 %d, [%at]; DONE: mov.b32 %d, %d; }",
        &[U32],
        &[U32],
        block,
        move |threads| each((0..block).map(|i| threads[i % 32][0])),
    ));
    // Within a warp.
    cases.push(Case::of_group(
        "{ .shared .align 4 .b8 room[512]; .reg .b32 %i, %at; mov.u32 %i, %tid.x; shl.b32 %at, %i, 2; mov.u32 %word, room; \
         add.u32 %at, %at, %word; st.shared.b32 [%at], %a; bar.warp.sync 0xffffffff; \
         xor.b32 %i, %i, 21; shl.b32 %at, %i, 2; add.u32 %at, %at, %word; ld.shared.b32 %d, [%at]; }",
        &[U32],
        &[U32],
        block,
        move |threads| each((0..block).map(|i| threads[i ^ 21][0])),
    ));
    cases
}
