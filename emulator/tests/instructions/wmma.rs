//! `wmma`: matrices from memory, multiplied, and back to memory. What lies between is the hardware's own affair.

use crate::case::Kind::{self, *};
use crate::case::{Case, Want};
use crate::exact::{self, Round, approximately};

/// The eight inputs that fill 1024 bytes for each warp, 32 a lane: A lies at their beginning, B at their end.
const POOL: usize = 1024;

/// How a product is written.
#[derive(Clone, Copy)]
struct Product {
    /// Rows, columns, depth.
    shape: [usize; 3],
    /// Elements of A and B, and the values they take.
    factor: (&'static str, Kind),
    /// Sums: C and D.
    sums: [&'static str; 2],
    /// Whether A, B, C, D lie column by column.
    by_column: [bool; 4],
    /// `shared`, `global`, or by generic addresses.
    space: &'static str,
    /// Whether the distance between rows is given.
    strides: bool,
    saturate: bool,
}

fn bytes(t: &str) -> usize {
    match t {
        "s8" | "u8" => 1,
        "f16" | "bf16" => 2,
        "f64" => 8,
        _ => 4,
    }
}

/// Registers of a fragment of `elements` elements.
fn registers(operand: char, t: &str, elements: usize) -> usize {
    match t {
        // The fragments of f16 factors hold each element twice.
        "f16" if operand != 'c' => 8,
        _ => elements * bytes(t) / 128,
    }
}

fn value(t: &str, bytes: &[u8]) -> f64 {
    let word = bytes.iter().rev().fold(0u64, |word, byte| word << 8 | u64::from(*byte));
    let float = |format: exact::Format| approximately(format.decode(word, false));
    match t {
        "s8" => f64::from(bytes[0] as i8),
        "u8" => f64::from(bytes[0]),
        "s32" => f64::from(word as u32 as i32),
        "f16" => float(exact::HALF),
        "bf16" => float(exact::BFLOAT),
        _ => float(exact::SINGLE),
    }
}

fn bits(t: &str, value: f64, saturate: bool) -> Vec<u8> {
    let number = exact::DOUBLE.decode(value.to_bits(), false);
    let float = |format: exact::Format| format.encode(number, Round::Nearest, false).to_le_bytes();
    match t {
        "s32" if saturate => (value as i32).to_le_bytes().to_vec(),
        "s32" => (value as i64 as i32).to_le_bytes().to_vec(),
        "f16" => float(exact::HALF)[..2].to_vec(),
        _ => float(exact::SINGLE)[..4].to_vec(),
    }
}

impl Product {
    /// Rows and columns of a matrix.
    fn extents(&self, operand: char) -> [usize; 2] {
        let [m, n, k] = self.shape;
        match operand {
            'a' => [m, k],
            'b' => [k, n],
            _ => [m, n],
        }
    }

    fn layout(&self, operand: char) -> (&'static str, bool) {
        let by_column = self.by_column["abcd".find(operand).expect("one of four")];
        (if by_column { "col" } else { "row" }, by_column)
    }

    /// Elements between rows or columns.
    fn leading(&self, operand: char) -> usize {
        let [rows, columns] = self.extents(operand);
        if self.layout(operand).1 { rows } else { columns }
    }

    fn text(&self) -> String {
        let [m, n, k] = self.shape;
        let shape = format!("m{m}n{n}k{k}");
        let (factor, [of_c, of_d]) = (self.factor.0, self.sums);
        let stride = |operand: char| if self.strides { format!(", {}", self.leading(operand)) } else { String::new() };
        let elements = |operand: char| self.extents(operand).iter().product::<usize>();
        let list = |operand: char, t: &str| {
            let count = registers(if operand == 'd' { 'c' } else { operand }, t, elements(operand));
            (0..count).map(|i| format!("%{operand}x{i}")).collect::<Vec<_>>().join(", ")
        };
        let b_offset = POOL - elements('b') * bytes(factor);
        let dot = if self.space.is_empty() { String::new() } else { format!(".{}", self.space) };
        // Addresses of the warp's parts of the pool, of C and of D, in the space.
        let places = match self.space {
            "shared" | "shared::cta" => "mov.b32 %pa, %p; mov.b32 %qa, %q; mov.b32 %ra, %r;".to_owned(),
            "" => ["p", "q", "r"]
                .map(|x| format!("cvt.u64.u32 %{x}a, %{x}; cvta.shared.u64 %{x}a, %{x}a;"))
                .concat(),
            // A copy of the pool and of C in global memory: in the kernel's scratch room, for each warp.
            _ => "mov.u64 %pa, scratch; shr.u32 %w, %thread, 5; mad.wide.u32 %pa, %w, 1024, %pa; add.u64 %qa, %pa, 0; add.u64 %ra, %pa, 0;".to_owned(),
        };
        let global = self.space == "global";
        let width = if self.space.starts_with("shared") { 32 } else { 64 };
        let load = |operand: char, t: &str, address: &str| {
            let layout = self.layout(operand).0;
            let list = list(operand, t);
            format!(
                "wmma.load.{operand}.sync.aligned.{layout}.{shape}{dot}.{t} {{{list}}}, [{address}]{};",
                stride(operand)
            )
        };
        let types = match factor {
            "f16" => format!("{of_d}.{of_c}"),
            _ => format!("{of_d}.{factor}.{factor}.{of_c}"),
        };
        let saturate = if self.saturate { ".satfinite" } else { "" };
        // Through global memory, one matrix after the other goes by the same room.
        let (show_pool, show_sums, fetch) = if global {
            (
                "st.global.v4.b32 [%ga], {%a, %b, %c, %f}; st.global.v4.b32 [%ga+16], {%i4, %i5, %i6, %i7}; bar.warp.sync -1;",
                "bar.warp.sync -1; st.global.v4.b32 [%ga], {%i8, %i9, %i8, %i9}; st.global.v4.b32 [%ga+16], {%i8, %i9, %i8, %i9}; bar.warp.sync -1;",
                "bar.warp.sync -1; ld.global.v2.b64 {%d, %e}, [%ga]; ld.global.v2.b64 {%g, %h}, [%ga+16];",
            )
        } else {
            ("", "", "bar.warp.sync -1; ld.shared.v2.b64 {%d, %e}, [%rl]; ld.shared.v2.b64 {%g, %h}, [%rl+16];")
        };
        format!(
            "{{ .shared .align 32 .b8 pool[4096]; .shared .align 32 .b8 sums[4096]; .shared .align 32 .b8 results[4096]; \
             .reg .b32 %ax<8>, %bx<8>, %cx<8>, %dx<8>; .reg .b32 %p, %q, %r, %rl, %l, %w; .reg .b{width} %pa, %qa, %ra; .reg .b64 %ga; \
             mov.u32 %l, %tid.x; mov.u32 %p, pool; mad.lo.u32 %p, %l, 32, %p; mov.u32 %q, sums; mad.lo.u32 %q, %l, 32, %q; \
             mov.u32 %rl, results; mad.lo.u32 %rl, %l, 32, %rl; mov.u64 %ga, scratch; mad.wide.u32 %ga, %thread, 32, %ga; \
             st.shared.v4.b32 [%p], {{%a, %b, %c, %f}}; st.shared.v4.b32 [%p+16], {{%i4, %i5, %i6, %i7}}; \
             st.shared.v4.b32 [%q], {{%i8, %i9, %i8, %i9}}; st.shared.v4.b32 [%q+16], {{%i8, %i9, %i8, %i9}}; \
             mov.b64 %d, 0; st.shared.v2.b64 [%rl], {{%d, %d}}; st.shared.v2.b64 [%rl+16], {{%d, %d}}; {show_pool} bar.warp.sync -1; \
             and.b32 %l, %l, 0x60; mov.u32 %p, pool; mad.lo.u32 %p, %l, 32, %p; mov.u32 %q, sums; mad.lo.u32 %q, %l, 32, %q; \
             mov.u32 %r, results; mad.lo.u32 %r, %l, 32, %r; {places} {} {} {show_sums} {} \
             wmma.mma.sync.aligned.{}.{}.{shape}.{types}{saturate} {{{}}}, {{{}}}, {{{}}}, {{{}}}; {} \
             wmma.store.d.sync.aligned.{}.{shape}{dot}.{of_d} [%ra], {{{}}}{}; {fetch} }}",
            load('a', factor, "%pa"),
            load('b', factor, &format!("%pa+{b_offset}")),
            load('c', of_c, "%qa"),
            self.layout('a').0,
            self.layout('b').0,
            list('d', of_d),
            list('a', factor),
            list('b', factor),
            list('c', of_c),
            if global { "bar.warp.sync -1;" } else { "" },
            self.layout('d').0,
            list('d', of_d),
            stride('d'),
        )
    }

    /// What a warp must find where it stored the result, by lanes.
    fn expected(&self, warp: &[Vec<u64>]) -> Vec<Vec<Want>> {
        let words = |of: fn(&[u64]) -> Vec<u64>| -> Vec<u8> {
            warp.iter().flat_map(|x| of(x)).flat_map(|word| (word as u32).to_le_bytes()).collect()
        };
        let pool = words(|x| x[..8].to_vec());
        let sums = words(|x| [&x[8..10]; 4].concat());
        let element = |memory: &[u8], t: &str, operand: char, [row, column]: [usize; 2]| {
            let (far, near) = if self.layout(operand).1 { (column, row) } else { (row, column) };
            let at = (far * self.leading(operand) + near) * bytes(t);
            value(t, &memory[at..at + bytes(t)])
        };
        let (factor, [m, n, k]) = (self.factor.0, self.shape);
        let of_b = &pool[POOL - k * n * bytes(factor)..];
        let mut result = vec![0u8; 1024];
        if self.space == "global" {
            result.copy_from_slice(&sums);
        }
        for row in 0..m {
            for column in 0..n {
                let products =
                    (0..k).map(|i| element(&pool, factor, 'a', [row, i]) * element(of_b, factor, 'b', [i, column]));
                let sum = element(&sums, self.sums[0], 'c', [row, column]) + products.sum::<f64>();
                let (far, near) = if self.by_column[3] { (column, row) } else { (row, column) };
                let bits = bits(self.sums[1], sum, self.saturate);
                let at = (far * self.leading('d') + near) * bits.len();
                result[at..at + bits.len()].copy_from_slice(&bits);
            }
        }
        let word = |at: usize| u64::from_le_bytes(result[at..at + 8].try_into().expect("eight"));
        (0..32).map(|lane| (0..4).map(|i| Want::Bits(word(32 * lane + 8 * i))).collect()).collect()
    }

    fn case(self) -> Case {
        let sum = match self.sums[0] {
            "f16" => SmallHalves,
            "s32" => S32,
            _ => SmallSingle,
        };
        let inputs = [vec![self.factor.1; 8], vec![sum; 2]].concat();
        Case::of_group(self.text(), &inputs, &[U64; 4], 32, move |warp| self.expected(warp))
    }
}

pub fn products() -> Vec<Case> {
    let plain = Product {
        shape: [16, 16, 16],
        factor: ("f16", SmallHalves),
        sums: ["f32", "f32"],
        by_column: [false; 4],
        space: "shared",
        strides: true,
        saturate: false,
    };
    let mut products = Vec::new();
    for shape in [[16, 16, 16], [32, 8, 16], [8, 32, 16]] {
        for sums in [["f32", "f32"], ["f16", "f16"], ["f16", "f32"], ["f32", "f16"]] {
            products.push(Product { shape, sums, ..plain });
        }
        products.push(Product { shape, factor: ("bf16", SmallBfloats), ..plain });
        for t in ["s8", "u8"] {
            let whole = Product { shape, factor: (t, U32), sums: ["s32", "s32"], ..plain };
            products.extend([whole, Product { saturate: true, ..whole }]);
        }
        for layout in 0..16 {
            let by_column = [1, 2, 4, 8].map(|bit| layout & bit != 0);
            products.push(Product { shape, by_column, strides: layout % 3 != 0, ..plain });
        }
        products.push(Product { shape, space: "", ..plain });
        products.push(Product { shape, space: "global", ..plain });
        products.push(Product { shape, space: "shared::cta", ..plain });
    }
    let singles = Product { shape: [16, 16, 8], factor: ("tf32", SmallSingle), ..plain };
    products.extend([singles, Product { by_column: [true, true, false, true], strides: false, ..singles }]);
    products.into_iter().map(Product::case).chain(doubles()).collect()
}

/// 8 x 8 x 4 of doubles: each lane stores one element of A and B and two of C.
fn doubles() -> Vec<Case> {
    let mut cases = Vec::new();
    for (layout, strides) in [(0, true), (1, false), (2, true), (3, false)] {
        let (a_by_column, b_by_column) = (layout & 1 != 0, layout & 2 != 0);
        let name = |by_column: bool| if by_column { "col" } else { "row" };
        let (la, lb) = (name(a_by_column), name(b_by_column));
        let stride = |n: usize| if strides { format!(", {n}") } else { String::new() };
        let (sa, sb) = (stride(if a_by_column { 8 } else { 4 }), stride(if b_by_column { 4 } else { 8 }));
        // The rounding may be named; it is the same.
        let round = if strides { ".rn" } else { "" };
        let text = format!(
            "{{ .shared .align 32 .b8 room[4096]; .reg .b32 %l, %p; .reg .f64 %x0, %x1, %x2, %x3, %y0, %y1; mov.u32 %l, %tid.x; mov.u32 %p, room; \
             cvt.f64.f32 %x0, %a; cvt.f64.f32 %x1, %b; cvt.f64.f32 %x2, %c; cvt.f64.f32 %x3, %f; \
             and.b32 %l, %l, 31; shl.b32 %l, %l, 3; .reg .b32 %w, %at; mov.u32 %w, %tid.x; and.b32 %w, %w, 0x60; \
             mov.u32 %p, room; mad.lo.u32 %p, %w, 32, %p; add.u32 %at, %p, %l; st.shared.f64 [%at], %x0; st.shared.f64 [%at+256], %x1; \
             add.u32 %at, %at, %l; st.shared.v2.f64 [%at+512], {{%x2, %x3}}; bar.warp.sync -1; \
             wmma.load.a.sync.aligned.{la}.m8n8k4.shared.f64 {{%x0}}, [%p]{sa}; wmma.load.b.sync.aligned.{lb}.m8n8k4.shared.f64 {{%x1}}, [%p+256]{sb}; \
             wmma.load.c.sync.aligned.row.m8n8k4.shared.f64 {{%x2, %x3}}, [%p+512]{}; \
             wmma.mma.sync.aligned.{la}.{lb}.m8n8k4{round}.f64.f64.f64.f64 {{%y0, %y1}}, {{%x0}}, {{%x1}}, {{%x2, %x3}}; bar.warp.sync -1; \
             wmma.store.d.sync.aligned.col.m8n8k4.shared.f64 [%p], {{%y0, %y1}}{}; bar.warp.sync -1; ld.shared.v2.b64 {{%d, %e}}, [%at]; }}",
            stride(8),
            stride(8),
        );
        cases.push(Case::of_group(text, &[SmallSingle; 4], &[F64; 2], 32, move |warp| {
            let number = |lane: usize, i: usize| f64::from(f32::from_bits(warp[lane][i] as u32));
            let a = |row: usize, k: usize| number(if a_by_column { 8 * k + row } else { 4 * row + k }, 0);
            let b = |k: usize, column: usize| number(if b_by_column { 4 * column + k } else { 8 * k + column }, 1);
            let d = |row: usize, column: usize| {
                let at = 8 * row + column;
                number(at / 2, 2 + at % 2) + (0..4).map(|k| a(row, k) * b(k, column)).sum::<f64>()
            };
            // Column by column: lane l finds the elements 2 l and 2 l + 1.
            let at = |i: usize| Want::Bits((d(i % 8, i / 8) + 0.0).to_bits());
            (0..32).map(|lane| vec![at(2 * lane), at(2 * lane + 1)]).collect()
        }));
    }
    cases
}
