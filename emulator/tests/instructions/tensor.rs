//! Fragments of matrices and their products, by the layouts of the PTX manual.

use crate::case::Kind::{self, *};
use crate::case::{Case, Want};
use crate::exact::{self, Round, approximately};

/// The 16 bytes that a lane stores are one row of eight b16: lane `8 m + r` holds row `r` of matrix `m`.
fn element(warp: &[Vec<u64>], matrix: usize, row: usize, column: usize) -> u64 {
    let lane = &warp[matrix * 8 + row];
    lane[column / 4] >> (16 * (column % 4)) & 0xffff
}

/// The register of a fragment of matrix `m`: two neighbours of a row, or of a column when transposed.
fn fragment(warp: &[Vec<u64>], matrix: usize, lane: usize, transposed: bool) -> u64 {
    let (group, member) = (lane / 4, lane % 4 * 2);
    let at = |i: usize| {
        if transposed { element(warp, matrix, member + i, group) } else { element(warp, matrix, group, member + i) }
    };
    at(0) | at(1) << 16
}

/// A row of 16 bytes per thread, in `%at`, and the block's room from which each warp has 512 bytes.
const ROWS: &str = ".shared .align 16 .b8 room[2048]; .reg .b32 %i, %at; mov.u32 %i, %tid.x; mov.u32 %at, room; mad.lo.u32 %at, %i, 16, %at;";

pub fn matrices() -> Vec<Case> {
    let mut cases = Vec::new();
    for (number, registers) in [(1usize, "{%d}"), (2, "{%d, %e}"), (4, "{%d, %e, %g, %h}")] {
        for (suffix, transposed) in [("", false), (".trans", true)] {
            cases.push(Case::of_group(
                format!("{{ {ROWS} st.shared.v2.b64 [%at], {{%a, %b}}; bar.warp.sync -1; ldmatrix.sync.aligned.m8n8.x{number}{suffix}.shared.b16 {registers}, [%at]; }}"),
                &[U64; 2],
                &vec![U32; number],
                32,
                move |warp| (0..32).map(|lane| (0..number).map(|m| Want::Bits(fragment(warp, m, lane, transposed))).collect()).collect(),
            ));
        }
    }
    // By a generic address, without the space.
    cases.push(Case::of_group(
        format!("{{ {ROWS} .reg .b64 %g64; cvt.u64.u32 %g64, %at; cvta.shared.u64 %g64, %g64; st.shared.v2.b64 [%at], {{%a, %b}}; bar.warp.sync -1; ldmatrix.sync.aligned.m8n8.x1.b16 {{%d}}, [%g64]; }}"),
        &[U64; 2],
        &[U32],
        32,
        |warp| (0..32).map(|lane| vec![Want::Bits(fragment(warp, 0, lane, false))]).collect(),
    ));
    cases.push(Case::of_group(
        format!("{{ {ROWS} st.shared.v2.b64 [%at], {{%a, %b}}; bar.warp.sync -1; ldmatrix.sync.aligned.m8n8.x1.shared::cta.b16 {{%d}}, [%at]; }}"),
        &[U64; 2],
        &[U32],
        32,
        |warp| (0..32).map(|lane| vec![Want::Bits(fragment(warp, 0, lane, false))]).collect(),
    ));
    cases.push(Case::of_group("movmatrix.sync.aligned.m8n8.trans.b16 %d, %a;", &[U32], &[U32], 32, |warp| {
        let at = |row: usize, column: usize| warp[row * 4 + column / 2][0] >> (16 * (column % 2)) & 0xffff;
        (0..32)
            .map(|lane: usize| vec![Want::Bits(at(lane % 4 * 2, lane / 4) | at(lane % 4 * 2 + 1, lane / 4) << 16)])
            .collect()
    }));
    cases
}

/// Stores of fragments: sm_90. Each thread reads back the row that its own address named.
pub fn matrix_stores() -> Vec<Case> {
    let mut cases = Vec::new();
    for (number, registers) in [(1usize, "{%a}"), (2, "{%a, %b}"), (4, "{%a, %b, %c, %f}")] {
        for (suffix, transposed) in [("", false), (".trans", true)] {
            cases.push(Case::of_group(
                format!("{{ {ROWS} mov.b64 %d, 0; st.shared.v2.b64 [%at], {{%d, %d}}; bar.warp.sync -1; stmatrix.sync.aligned.m8n8.x{number}{suffix}.shared.b16 [%at], {registers}; bar.warp.sync -1; ld.shared.v2.b64 {{%d, %e}}, [%at]; }}"),
                &vec![U32; number],
                &[U64; 2],
                32,
                move |warp| {
                    (0..32)
                        .map(|lane| {
                            let (matrix, row) = (lane / 8, lane % 8);
                            let value = |column: usize| {
                                if matrix >= number {
                                    return 0;
                                }
                                let (r, c) = if transposed { (column, row) } else { (row, column) };
                                warp[r * 4 + c / 2][matrix] >> (16 * (c % 2)) & 0xffff
                            };
                            let half = |first: usize| Want::Bits((0..4).fold(0, |word, i| word | value(first + i) << (16 * i)));
                            vec![half(0), half(4)]
                        })
                        .collect()
                },
            ));
        }
    }
    cases
}

/// The operands of a product, by the manual: for each register of a lane, the places of what it packs.
struct Layout {
    k: usize,
    /// Number of registers of A and B.
    registers: (usize, usize),
    /// Elements in a register.
    packed: usize,
    /// Row and column of element `i` of A for a lane's group and member.
    a: fn(usize, usize, usize) -> (usize, usize),
    b: fn(usize, usize, usize) -> (usize, usize),
}

const K8_PAIRS: Layout = Layout {
    k: 8,
    registers: (2, 1),
    packed: 2,
    a: |g, m, i| (if i < 2 { g } else { g + 8 }, m * 2 + i % 2),
    b: |g, m, i| (m * 2 + i, g),
};
const K16_PAIRS: Layout = Layout {
    k: 16,
    registers: (4, 2),
    packed: 2,
    a: |g, m, i| (if i < 2 || (4..6).contains(&i) { g } else { g + 8 }, m * 2 + i % 2 + if i >= 4 { 8 } else { 0 }),
    b: |g, m, i| (m * 2 + i % 2 + if i >= 2 { 8 } else { 0 }, g),
};
const K4_SINGLES: Layout =
    Layout { k: 4, registers: (2, 1), packed: 1, a: |g, m, i| (g + 8 * i, m), b: |g, m, _| (m, g) };
const K8_SINGLES: Layout = Layout {
    k: 8,
    registers: (4, 2),
    packed: 1,
    a: |g, m, i| (g + 8 * (i % 2), m + 4 * (i / 2)),
    b: |g, m, i| (m + 4 * i, g),
};

/// All products of the 16 x 8 shapes. The numbers are small and whole, so that every order of summing is exact.
pub fn products() -> Vec<Case> {
    let mut cases = Vec::new();
    for (t, kind) in [("f16", SmallHalves), ("bf16", SmallBfloats)] {
        cases.push(product(8, t, kind, K8_PAIRS, false));
        cases.push(product(16, t, kind, K16_PAIRS, false));
    }
    cases.push(product(8, "f16", SmallHalves, K8_PAIRS, true));
    cases.push(product(16, "f16", SmallHalves, K16_PAIRS, true));
    cases.push(product(4, "tf32", SmallSingle, K4_SINGLES, false));
    cases.push(product(8, "tf32", SmallSingle, K8_SINGLES, false));
    cases
}

/// One product; with sums in f16 when `narrow`.
fn product(k: usize, t: &str, kind: Kind, layout: Layout, narrow: bool) -> Case {
    let names = ["%a", "%b", "%c", "%f", "%i4", "%i5", "%i6", "%i7", "%i8", "%i9"];
    let (of_a, of_b) = layout.registers;
    let of_c = if narrow { 2 } else { 4 };
    let list = |from: usize, count: usize| names[from..from + count].join(", ");
    let (sum, outputs) = if narrow { ("f16", "%d, %e") } else { ("f32", "%d, %e, %g, %h") };
    let body = format!(
        "mma.sync.aligned.m16n8k{k}.row.col.{sum}.{t}.{t}.{sum} {{{outputs}}}, {{{}}}, {{{}}}, {{{}}};",
        list(0, of_a),
        list(of_a, of_b),
        list(of_a + of_b, of_c),
    );
    let c_kind = if narrow { SmallHalves } else { SmallSingle };
    let inputs: Vec<Kind> = [vec![kind; of_a + of_b], vec![c_kind; of_c]].concat();
    let out = if narrow { F16x2 } else { F32 };
    Case::of_group(body, &inputs, &vec![out; of_c], 32, move |warp| {
        let value = |kind: Kind, bits: u64, i: usize| {
            let bits = if matches!(kind, SmallHalves | SmallBfloats) { bits >> (16 * i) & 0xffff } else { bits };
            approximately(kind.format().expect("a float").decode(bits, false))
        };
        let (mut a, mut b) = ([[0.0; 16]; 16], [[0.0; 8]; 16]);
        for (lane, x) in warp.iter().enumerate() {
            let (group, member) = (lane / 4, lane % 4);
            for i in 0..of_a * layout.packed {
                let (row, column) = (layout.a)(group, member, i);
                a[row][column] = value(kind, x[i / layout.packed], i % layout.packed);
            }
            for i in 0..of_b * layout.packed {
                let (row, column) = (layout.b)(group, member, i);
                b[row][column] = value(kind, x[of_a + i / layout.packed], i % layout.packed);
            }
        }
        (0..32)
            .map(|lane: usize| {
                let result = |i: usize| {
                    let (row, column) = (lane / 4 + if i < 2 { 0 } else { 8 }, lane % 4 * 2 + i % 2);
                    let c = &warp[lane][of_a + of_b..];
                    let start = if narrow { value(c_kind, c[i / 2], i % 2) } else { value(c_kind, c[i], 0) };
                    start + (0..layout.k).map(|k| a[row][k] * b[k][column]).sum::<f64>()
                };
                let bits = |format: exact::Format, value: f64| {
                    // A sum of zero is plus zero here: the small numbers have no minus zero.
                    format.encode(exact::DOUBLE.decode(value.to_bits(), false), Round::Nearest, false)
                };
                if narrow {
                    let pair = |i: usize| bits(exact::HALF, result(i)) | bits(exact::HALF, result(i + 1)) << 16;
                    vec![Want::Bits(pair(0)), Want::Bits(pair(2))]
                } else {
                    (0..4).map(|i| Want::Bits(bits(exact::SINGLE, result(i)))).collect()
                }
            })
            .collect()
    })
}
