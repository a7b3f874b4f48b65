//! Loads and stores in every space, advice to caches, copies that land later.

use crate::case::Kind::{self, *};
use crate::case::{Case, Want};

/// The address of 32 bytes of one's own in a space, in `%slot`.
pub fn slot(space: &str) -> String {
    match space {
        "shared" => ".shared .align 16 .b8 room[4096]; .reg .b32 %slot, %i; mov.u32 %i, %tid.x; mov.u32 %slot, room; \
                     mad.lo.u32 %slot, %i, 32, %slot;"
            .into(),
        "local" => ".local .align 16 .b8 room[32]; .reg .b64 %slot; mov.u64 %slot, room;".into(),
        "global" => ".reg .b64 %slot; mov.u64 %slot, scratch; mad.wide.u32 %slot, %thread, 32, %slot;".into(),
        other => panic!("no slots in {other}"),
    }
}

const TYPES: [(&str, Kind); 15] = [
    ("b8", U8),
    ("u8", U8),
    ("s8", S8),
    ("b16", U16),
    ("u16", U16),
    ("s16", S16),
    ("b32", U32),
    ("u32", U32),
    ("s32", S32),
    ("b64", U64),
    ("u64", U64),
    ("s64", S64),
    ("f32", U32),
    ("f64", U64),
    ("b32", U32),
];

pub fn spaces() -> Vec<Case> {
    let mut cases = Vec::new();
    for space in ["shared", "local", "global"] {
        let slot = slot(space);
        for (t, kind) in TYPES {
            // A narrow load fills its register: by the sign of its type.
            let out = if kind.bits() < 32 { U32 } else { kind };
            let register = if t.starts_with('f') { format!(".{t}") } else { format!(".b{}", out.bits()) };
            cases.push(Case::new(
                format!("{{ {slot} .reg {register} %v; st.{space}.{t} [%slot], %a; ld.{space}.{t} %v, [%slot]; mov.b{0} %d, %v; }}", out.bits()),
                &[kind],
                out,
                move |x| Want::Bits(out.wrap(kind.value(x[0]))),
            ));
        }
        for (t, kind) in [("u8", U8), ("b16", U16), ("b32", U32), ("f32", U32), ("b64", U64), ("f64", U64)] {
            cases.push(Case::with_outputs(
                format!("{{ {slot} st.{space}.v2.{t} [%slot], {{%a, %b}}; ld.{space}.v2.{t} {{%e, %d}}, [%slot]; }}"),
                &[kind; 2],
                &[kind; 2],
                |x| vec![Want::Bits(x[1]), Want::Bits(x[0])],
            ));
            if kind.bits() <= 32 {
                cases.push(Case::with_outputs(
                    format!("{{ {slot} st.{space}.v4.{t} [%slot+16], {{%a, %b, %c, %f}}; ld.{space}.v4.{t} {{%h, %g, %e, %d}}, [%slot+16]; }}"),
                    &[kind; 4],
                    &[kind; 4],
                    |x| x.iter().rev().map(|&bits| Want::Bits(bits)).collect(),
                ));
            }
        }
        // The same bytes by a generic address, and the space that it is in.
        let generic = |space: &str| match space {
            "shared" => "cvt.u64.u32 %g64, %slot; cvta.shared.u64 %g64, %g64;".to_owned(),
            _ => format!("cvta.{space}.u64 %g64, %slot;"),
        };
        let to = generic(space);
        cases.push(Case::new(
            format!("{{ {slot} .reg .b64 %g64; {to} st.b32 [%g64+4], %a; ld.{space}.b32 %d, [%slot+4]; }}"),
            &[U32],
            U32,
            |x| Want::Bits(x[0]),
        ));
        cases.push(Case::new(
            format!("{{ {slot} .reg .b64 %g64; {to} st.{space}.b64 [%slot+8], %a; ld.b64 %d, [%g64+8]; }}"),
            &[U64],
            U64,
            |x| Want::Bits(x[0]),
        ));
        cases.push(Case::new(
            format!("{{ {slot} .reg .b64 %g64, %back; {to} cvta.to.{space}.u64 %back, %g64; st.{space}.b32 [%slot], %a; ld.{space}.b32 %d, [%back]; }}"),
            &[U32],
            U32,
            |x| Want::Bits(x[0]),
        ));
        for asked in ["global", "shared", "local", "const"] {
            let expected = u64::from(asked == space);
            cases.push(Case::new(
                format!("{{ {slot} .reg .b64 %g64; {to} isspacep.{asked} %d, %g64; }}"),
                &[],
                Predicate,
                move |_| Want::Bits(expected),
            ));
        }
        // Parts of what was stored whole.
        cases.push(Case::with_outputs(
            format!(
                "{{ {slot} st.{space}.b64 [%slot], %a; ld.{space}.u8 %d, [%slot+5]; ld.{space}.s16 %e, [%slot+6]; }}"
            ),
            &[U64],
            &[U32; 2],
            |x| vec![Want::Bits(x[0] >> 40 & 0xff), Want::Bits(U32.wrap(S16.value(x[0] >> 48)))],
        ));
        cases.push(Case::new(
            format!(
                "{{ {slot} add.u{0} %slot, %slot, 20; st.{space}.b16 [%slot+-4], %a; ld.{space}.b16 %d, [%slot+-4]; }}",
                if space == "shared" { 32 } else { 64 }
            ),
            &[U16],
            U16,
            |x| Want::Bits(x[0]),
        ));
    }
    cases
}

/// Constants, variables with first values, parameters by parts.
pub fn constants() -> Vec<Case> {
    let table = [1u64, 2, 3, 132, 5, 6, 7, 136, 9, 10, 11, 12, 13, 14, 15, 144];
    vec![
        Case::new(
            "{ .reg .b32 %i; and.b32 %i, %a, 15; mov.u32 %word, table; add.u32 %word, %word, %i; ld.const.u8 %d, [%word]; }",
            &[U32],
            U32,
            move |x| Want::Bits(table[(x[0] & 15) as usize]),
        ),
        Case::new("ld.const.s8 %d, [table+3];", &[], U32, |_| Want::Bits(0xffff_ff84)),
        Case::new("ld.const.b64 %d, [table+8];", &[], U64, |_| Want::Bits(0x900f_0e0d_0c0b_0a09)),
        Case::with_outputs("ld.const.v2.u32 {%d, %e}, [squares+8];", &[], &[U32; 2], |_| {
            vec![Want::Bits(4), Want::Bits(9)]
        }),
        Case::new(
            "{ .reg .b64 %p; mov.u64 %p, squares; cvta.const.u64 %p, %p; ld.u32 %d, [%p+20]; }",
            &[],
            U32,
            |_| Want::Bits(25),
        ),
        Case::new("ld.global.f32 %d, [half_one];", &[], F32, |_| Want::Bits(0x3f00_0000)),
        Case::new(
            "{ .reg .b32 %low, %high; ld.param.u32 %low, [in]; ld.param.b32 %high, [in+4]; mov.b64 %d, {%low, %high}; ld.param.u64 %offset, [in]; xor.b64 %d, %d, %offset; }",
            &[],
            U64,
            |_| Want::Bits(0),
        ),
    ]
}

/// The ways to say how a load or a store is cached and ordered; all read and write the same bytes.
pub fn qualifiers() -> Vec<Case> {
    let mut cases = Vec::new();
    let plain = |store: &str, load: &str, space: &str| {
        let slot = slot(space);
        Case::new(format!("{{ {slot} st{store}.b32 [%slot], %a; ld{load}.b32 %d, [%slot]; }}"), &[U32], U32, |x| {
            Want::Bits(x[0])
        })
    };
    for load in [".ca", ".cg", ".cs", ".lu", ".cv"] {
        cases.push(plain(".global", &format!(".global{load}"), "global"));
    }
    for store in [".wb", ".cg", ".cs", ".wt"] {
        cases.push(plain(&format!(".global{store}"), ".global", "global"));
    }
    for space in ["global", "shared"] {
        cases.push(plain(&format!(".volatile.{space}"), &format!(".volatile.{space}"), space));
        cases.push(plain(&format!(".weak.{space}"), &format!(".weak.{space}"), space));
        for scope in ["cta", "gpu", "sys"] {
            cases.push(plain(&format!(".relaxed.{scope}.{space}"), &format!(".relaxed.{scope}.{space}"), space));
            cases.push(plain(&format!(".release.{scope}.{space}"), &format!(".acquire.{scope}.{space}"), space));
        }
    }
    for load in
        [".global.L1::evict_last", ".global.L1::no_allocate", ".global.L2::128B", ".relaxed.gpu.global.L1::no_allocate"]
    {
        cases.push(plain(".global.L1::evict_first", load, "global"));
    }
    // What was there before the launch may be read by the way for constant data.
    for load in [
        "ld.global.nc.b32",
        "ld.global.nc.L1::no_allocate.b32",
        "ld.global.nc.L1::no_allocate.L2::256B.b32",
        "ldu.global.b32",
        "ld.global.ca.nc.b32",
    ] {
        cases.push(Case::new(format!("{load} %d, [%from];"), &[U32], U32, |x| Want::Bits(x[0])));
    }
    cases.push(Case::with_outputs("ld.global.nc.v2.b32 {%d, %e}, [%from];", &[U64], &[U32; 2], |x| {
        vec![Want::Bits(x[0] & 0xffff_ffff), Want::Bits(x[0] >> 32)]
    }));
    cases.push(Case::with_outputs("ld.global.nc.v4.b32 {%d, %e, %g, %h}, [%from];", &[U64; 2], &[U32; 4], |x| {
        [x[0] & 0xffff_ffff, x[0] >> 32, x[1] & 0xffff_ffff, x[1] >> 32].map(Want::Bits).into()
    }));
    for hint in [
        "prefetch.global.L1 [%from];",
        "prefetch.global.L2 [%from];",
        "prefetchu.L1 [%from];",
        "prefetch.global.L2::evict_last [%from];",
    ] {
        cases.push(Case::new(format!("{hint} mov.b32 %d, %a;"), &[U32], U32, |x| Want::Bits(x[0])));
    }
    cases.push(Case::new("{ .reg .b64 %policy; createpolicy.fractional.L2::evict_last.b64 %policy, 1.0; ld.global.L2::cache_hint.b32 %d, [%from], %policy; }", &[U32], U32, |x| Want::Bits(x[0])));
    // Parameters by the name of who has them, and atomics that tell the cache what to keep.
    cases.push(Case::new(
        "ld.param::entry.b64 %d, [in]; ld.param.b64 %offset, [in]; xor.b64 %d, %d, %offset;",
        &[],
        U64,
        |_| Want::Bits(0),
    ));
    cases.push(Case::with_outputs(
        format!(
            "{{ {} .reg .b64 %policy; createpolicy.fractional.L2::evict_first.b64 %policy, 0.5; st.global.u32 [%slot], %a; \
             atom.global.add.L2::cache_hint.u32 %d, [%slot], %b, %policy; red.global.add.L2::cache_hint.u32 [%slot], %b, %policy; ld.global.u32 %e, [%slot]; }}",
            slot("global")
        ),
        &[U32; 2],
        &[U32; 2],
        |x| vec![Want::Bits(x[0]), Want::Bits(U32.wrap((x[0] + 2 * x[1]) as i128))],
    ));
    cases.push(plain(".mmio.relaxed.sys.global", ".mmio.relaxed.sys.global", "global"));
    cases.push(plain(".shared::cta", ".shared::cta", "shared"));
    for fence in [
        "fence.proxy.alias;",
        "membar.cta;",
        "membar.gl;",
        "membar.sys;",
        "fence.sc.cta;",
        "fence.sc.gpu;",
        "fence.sc.sys;",
        "fence.acq_rel.cta;",
        "fence.acq_rel.gpu;",
        "fence.acq_rel.sys;",
    ] {
        cases.push(Case::new(
            format!("{} st.global.b32 [%slot], %a; {fence} ld.global.b32 %d, [%slot];", slot("global")),
            &[U32],
            U32,
            |x| Want::Bits(x[0]),
        ));
    }
    cases
}

/// What newer architectures add: the scope of a cluster, fences of one direction, and of proxies.
pub fn qualifiers_of_sm_90() -> Vec<Case> {
    let mut cases = Vec::new();
    for (store, fence, load) in [
        ("st.relaxed.cluster.global", "", "ld.relaxed.cluster.global"),
        ("st.release.cluster.global", "", "ld.acquire.cluster.global"),
        ("st.global", "fence.acq_rel.cluster;", "ld.global"),
        ("st.global", "fence.sc.cluster;", "ld.global"),
        ("st.global", "fence.acquire.cluster;", "ld.global"),
        ("st.global", "fence.release.gpu;", "ld.global"),
        ("st.global", "fence.mbarrier_init.release.cluster;", "ld.global"),
        ("st.global", "fence.proxy.async;", "ld.global"),
        ("st.global", "fence.proxy.async.global;", "ld.global"),
        ("st.global", "fence.proxy.async.shared::cta;", "ld.global"),
    ] {
        let slot = slot("global");
        cases.push(Case::new(
            format!("{{ {slot} {store}.b32 [%slot], %a; {fence} {load}.b32 %d, [%slot]; }}"),
            &[U32],
            U32,
            |x| Want::Bits(x[0]),
        ));
    }
    let slot = slot("global");
    cases.push(Case::new(
        format!("{{ {slot} st.global.u32 [%slot], %a; atom.acq_rel.cluster.global.add.u32 %d, [%slot], %b; ld.global.u32 %d, [%slot]; }}"),
        &[U32; 2],
        U32,
        |x| Want::Bits(U32.wrap((x[0] + x[1]) as i128)),
    ));
    cases
}

/// Accesses of 32 bytes.
pub fn vectors_of_sm_100() -> Vec<Case> {
    let slot = slot("global");
    vec![
        Case::with_outputs(
            format!(
                "{{ {slot} st.global.v4.b64 [%slot], {{%a, %b, %c, %f}}; ld.global.v4.b64 {{%h, %g, %e, %d}}, [%slot]; }}"
            ),
            &[U64; 4],
            &[U64; 4],
            |x| x.iter().rev().map(|&bits| Want::Bits(bits)).collect(),
        ),
        Case::with_outputs(
            format!(
                "{{ {slot} .reg .b32 %x<8>; st.global.v8.b32 [%slot], {{%a, %b, %c, %f, %f, %c, %b, %a}}; \
                 ld.global.v8.b32 {{%x0, %x1, %x2, %x3, %d, %e, %g, %h}}, [%slot]; xor.b32 %d, %d, %x0; xor.b32 %h, %h, %x1; }}"
            ),
            &[U32; 4],
            &[U32; 4],
            |x| [x[3] ^ x[0], x[2], x[1], x[0] ^ x[1]].map(Want::Bits).into(),
        ),
    ]
}

/// Advice to caches changes nothing; what is discarded is written again before it is read.
pub fn advice() -> Vec<Case> {
    let own =
        ".reg .b64 %slot; mov.u64 %slot, scratch; shr.u32 %word, %thread, 1; mad.wide.u32 %slot, %word, 128, %slot;";
    let room =
        ".reg .b64 %slot; mov.u64 %slot, scratch; shr.u32 %word, %thread, 2; mad.wide.u32 %slot, %word, 128, %slot;";
    let mut cases = Vec::new();
    for advice in [
        "applypriority.global.L2::evict_normal [%slot], 128;",
        "applypriority.L2::evict_normal [%slot], 128;",
        "prefetch.local.L1 [%slot];",
        "prefetch.L2 [%slot];",
    ] {
        cases.push(Case::new(format!("{{ {own} {advice} mov.b32 %d, %a; }}"), &[U32], U32, |x| Want::Bits(x[0])));
    }
    // Four threads share 128 bytes, which the first of them discards.
    for discard in ["discard.global.L2 [%slot], 128;", "discard.L2 [%slot], 128;"] {
        cases.push(Case::new(
            format!(
                "{{ {room} .reg .pred %first; and.b32 %word, %thread, 3; setp.eq.u32 %first, %word, 0; @%first {discard} bar.warp.sync -1; \
                 mad.wide.u32 %slot, %word, 32, %slot; st.global.b32 [%slot], %a; ld.global.b32 %d, [%slot]; }}"
            ),
            &[U32],
            U32,
            |x| Want::Bits(x[0]),
        ));
    }
    cases
}

/// Copies that land at their wait.
pub fn asynchronous_copies() -> Vec<Case> {
    let slot = slot("shared");
    let mut cases = Vec::new();
    let waits = ["cp.async.wait_all;", "cp.async.commit_group; cp.async.wait_group 0;"];
    for (i, (cache, bytes, hint)) in
        [("ca", 4, ""), ("ca", 8, ""), ("ca", 16, ""), ("cg", 16, ""), ("cg", 16, ".L2::128B"), ("ca", 8, ".L2::256B")]
            .into_iter()
            .enumerate()
    {
        let wait = waits[i % 2];
        let read = format!("{wait} ld.shared.v2.b64 {{%d, %e}}, [%slot];");
        let mask = |bytes: u64, x: &[u64]| {
            let whole = u128::from(x[0]) | u128::from(x[1]) << 64;
            let kept = if bytes >= 16 { whole } else { whole & ((1u128 << (8 * bytes)) - 1) };
            vec![Want::Bits(kept as u64), Want::Bits((kept >> 64) as u64)]
        };
        let clear = "mov.b64 %d, 0; st.shared.v2.b64 [%slot], {%d, %d};";
        cases.push(Case::with_outputs(
            format!("{{ {slot} {clear} cp.async.{cache}.shared.global{hint} [%slot], [%from], {bytes}; {read} }}"),
            &[U64; 2],
            &[U64; 2],
            move |x| mask(bytes, x),
        ));
        // Fewer bytes than the copy has: the rest is zero.
        for given in [0, 1, 3, bytes / 2, bytes] {
            cases.push(Case::with_outputs(
                format!("{{ {slot} {clear} cp.async.{cache}.shared.global{hint} [%slot], [%from], {bytes}, {given}; {read} }}"),
                &[U64; 2],
                &[U64; 2],
                move |x| mask(given, x),
            ));
        }
        cases.push(Case::with_outputs(
            format!("{{ {slot} {clear} .reg .pred %ignore; setp.lt.u64 %ignore, %a, 100; cp.async.{cache}.shared.global{hint} [%slot], [%from], {bytes}, %ignore; {read} }}"),
            &[U64; 2],
            &[U64; 2],
            move |x| mask(if x[0] < 100 { 0 } else { bytes }, x),
        ));
    }
    // Two groups; only the older one has to have landed when the first is read.
    cases.push(Case::with_outputs(
        format!(
            "{{ {slot} cp.async.ca.shared.global [%slot], [%from], 8; cp.async.commit_group; \
             cp.async.ca.shared.global [%slot+8], [%from+8], 8; cp.async.commit_group; \
             cp.async.wait_group 1; ld.shared.b64 %d, [%slot]; cp.async.wait_group 0; ld.shared.b64 %e, [%slot+8]; }}"
        ),
        &[U64; 2],
        &[U64; 2],
        |x| vec![Want::Bits(x[0]), Want::Bits(x[1])],
    ));
    cases
}
