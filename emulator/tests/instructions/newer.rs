//! Small things that sm_90 and later add.

use std::sync::Arc;

use crate::case::Kind::{self, *};
use crate::case::{Case, Want};
use crate::exact::{self, Format, Round};

/// One lane is elected; all agree which.
pub fn elections() -> Vec<Case> {
    vec![Case::of_group(
        "{ .reg .pred %p; .reg .b32 %leader, %bit; elect.sync %leader|%p, -1; vote.sync.ballot.b32 %bit, %p, -1; popc.b32 %d, %bit; \
         shl.b32 %leader, 1, %leader; setp.eq.u32 %e, %leader, %bit; }",
        &[],
        &[U32, Predicate],
        32,
        |_| vec![vec![Want::Bits(1), Want::Bits(1)]; 32],
    )]
}

/// What waits for other launches, and tells them to begin: of one alone, nothing.
pub fn launches() -> Vec<Case> {
    ["griddepcontrol.wait;", "griddepcontrol.launch_dependents;"]
        .map(|text| Case::new(format!("{text} mov.b32 %d, %a;"), &[U32], U32, |x| Want::Bits(x[0])))
        .into()
}

type Update = Arc<dyn Fn(u64, u64) -> u64 + Send + Sync>;

fn sum(format: Format) -> Update {
    Arc::new(move |a, b| {
        let number = |bits: u64| format.decode(bits, false);
        format.encode(exact::add(number(a), number(b), Round::Nearest), Round::Nearest, false)
    })
}

/// The smaller or the larger; a NaN loses.
fn extreme(format: Format, largest: bool) -> Update {
    Arc::new(move |a, b| {
        // Of zeros the positive one is the larger.
        let key = |bits: u64| {
            let size = (bits & (format.sign_bit() - 1)) as i64;
            if bits & format.sign_bit() != 0 { -size - 1 } else { size }
        };
        match (format.is_nan(a), format.is_nan(b)) {
            (true, true) => format.nan(),
            (true, false) => b,
            (false, true) => a,
            _ if (key(a) < key(b)) == largest => b,
            _ => a,
        }
    })
}

/// Applied to each half of a word.
fn packed(update: Update) -> Update {
    Arc::new(move |a, b| update(a & 0xffff, b & 0xffff) | update(a >> 16, b >> 16) << 16)
}

/// Atomics on bfloats, and on vectors.
pub fn atomics() -> Vec<Case> {
    let mut cases = Vec::new();
    let slot = ".reg .b64 %slot; mov.u64 %slot, scratch; mad.wide.u32 %slot, %thread, 32, %slot;";
    for (t, kind, update) in [("bf16", Bf16, sum(exact::BFLOAT)), ("bf16x2", Bf16x2, packed(sum(exact::BFLOAT)))] {
        let bits = kind.bits();
        let after = update.clone();
        cases.push(Case::with_outputs(
            format!("{{ {slot} st.global.b{bits} [%slot], %a; atom.global.add.noftz.{t} %d, [%slot], %b; ld.global.b{bits} %e, [%slot]; }}"),
            &[kind; 2],
            &[kind; 2],
            move |x| vec![Want::Bits(x[0]), Want::Bits(after(x[0], x[1]))],
        ));
        cases.push(Case::new(
            format!("{{ {slot} st.global.b{bits} [%slot], %a; red.global.add.noftz.{t} [%slot], %b; ld.global.b{bits} %d, [%slot]; }}"),
            &[kind; 2],
            kind,
            move |x| Want::Bits(update(x[0], x[1])),
        ));
    }
    let single: Update = Arc::new(|a, b| {
        let number = |bits: u64| exact::SINGLE.decode(bits, true);
        exact::SINGLE.encode(exact::add(number(a), number(b), Round::Nearest), Round::Nearest, true)
    });
    vector(&mut cases, "add", "f32", F32, 4, &single);
    for (halves, pairs, kind, pair_kind, format) in
        [("f16", "f16x2", F16, F16x2, exact::HALF), ("bf16", "bf16x2", Bf16, Bf16x2, exact::BFLOAT)]
    {
        for (name, update) in [("add", sum(format)), ("min", extreme(format, false)), ("max", extreme(format, true))] {
            vector(&mut cases, &format!("{name}.noftz"), halves, kind, 8, &update);
            vector(&mut cases, &format!("{name}.noftz"), pairs, pair_kind, 4, &packed(update));
        }
    }
    cases
}

/// Vectors of 2, 4 and up to `most` elements: an `atom`, whose results are what was there, then a `red`.
fn vector(cases: &mut Vec<Case>, name: &str, t: &str, kind: Kind, most: usize, update: &Update) {
    let register = if kind.bits() == 16 { ".b16" } else { ".b32" };
    let bits = kind.bits();
    for count in [2, 4, 8].into_iter().filter(|count| *count <= most) {
        let names = |prefix: &str| (0..count).map(|i| format!("%{prefix}{i}")).collect::<Vec<_>>().join(", ");
        // Element i is %a or %c; what is added to it %b.
        let stored: String = (0..count)
            .map(|i| {
                format!(
                    "st.global.b{bits} [%slot+{}], {};",
                    i * bits as usize / 8,
                    if i % 2 == 0 { "%a" } else { "%c" }
                )
            })
            .collect();
        let given: String = (0..count).map(|i| format!("mov.b{bits} %n{i}, %b;")).collect();
        let last = (count - 1) * bits as usize / 8;
        let update = update.clone();
        cases.push(Case::with_outputs(
            format!(
                "{{ .reg .b64 %slot; .reg {register} %n<8>, %o<8>; mov.u64 %slot, scratch; mad.wide.u32 %slot, %thread, 32, %slot; {stored} {given} \
                 atom.global.{name}.v{count}.{t} {{{}}}, [%slot], {{{}}}; mov.b{bits} %d, %o{}; ld.global.b{bits} %e, [%slot]; \
                 red.global.{name}.v{count}.{t} [%slot], {{{}}}; ld.global.b{bits} %g, [%slot]; ld.global.b{bits} %h, [%slot+{last}]; }}",
                names("o"),
                names("n"),
                count - 1,
                names("n"),
            ),
            &[kind; 3],
            &[kind; 4],
            move |x| {
                let [once, other] = [update(x[0], x[1]), update(x[2], x[1])];
                [x[2], once, update(once, x[1]), update(other, x[1])].map(Want::Bits).into()
            },
        ));
    }
}
