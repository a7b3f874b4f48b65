//! The PTX around a case.

use crate::case::Case;
use crate::case::Kind::Predicate;

const INPUT_NAMES: [&str; 10] = ["%a", "%b", "%c", "%f", "%i4", "%i5", "%i6", "%i7", "%i8", "%i9"];
const OUTPUT_NAMES: [&str; 4] = ["%d", "%e", "%g", "%h"];

/// The text of a kernel that reads the operands of each thread, runs the line, and writes the results.
pub fn entry(case: &Case, name: &str) -> String {
    use std::fmt::Write;
    let mut text = format!(".visible .entry {name}(.param .u64 in, .param .u64 out)\n{{\n");
    let mut line = |s: String| writeln!(text, "    {s}").expect("a string takes everything");
    line(".reg .b64 %from, %to, %offset; .reg .b32 %thread, %block, %size, %word;".into());
    for (kind, name) in case.inputs.iter().zip(INPUT_NAMES).chain(case.outputs.iter().zip(OUTPUT_NAMES)) {
        line(format!(".reg {} {name};", kind.register()));
    }
    line("ld.param.u64 %from, [in]; ld.param.u64 %to, [out];".into());
    line("mov.u32 %thread, %tid.x; mov.u32 %block, %ctaid.x; mov.u32 %size, %ntid.x;".into());
    line("mad.lo.u32 %thread, %block, %size, %thread;".into());
    line(format!("mul.wide.u32 %offset, %thread, {}; add.u64 %from, %from, %offset;", 8 * case.inputs.len()));
    line(format!("mul.wide.u32 %offset, %thread, {}; add.u64 %to, %to, %offset;", 8 * case.outputs.len()));
    for (i, (kind, name)) in case.inputs.iter().zip(INPUT_NAMES).enumerate() {
        match kind {
            Predicate => line(format!("ld.global.b32 %word, [%from+{}]; setp.ne.b32 {name}, %word, 0;", 8 * i)),
            _ => line(format!("ld.global.{} {name}, [%from+{}];", kind.memory(), 8 * i)),
        }
    }
    line(case.body.clone());
    for (i, (kind, name)) in case.outputs.iter().zip(OUTPUT_NAMES).enumerate() {
        match kind {
            Predicate => line(format!("selp.b32 %word, 1, 0, {name}; st.global.b32 [%to+{}], %word;", 8 * i)),
            _ => line(format!("st.global.{} [%to+{}], {name};", kind.memory(), 8 * i)),
        }
    }
    text.push_str("    ret;\n}\n");
    text
}

/// What the lines of a table may refer to.
const PRELUDE: &str = ".const .align 8 .b8 table[16] = {1, 2, 3, 132, 5, 6, 7, 136, 9, 10, 11, 12, 13, 14, 15, 144};
.const .align 4 .u32 squares[8] = {0, 1, 4, 9, 16, 25, 36, 49};
.global .align 16 .b8 scratch[65536];
.global .align 4 .f32 half_one = 0f3F000000;
.func (.param .b32 result) triple(.param .b32 x)
{
    .reg .b32 %x;
    ld.param.b32 %x, [x];
    mul.lo.s32 %x, %x, 3;
    st.param.b32 [result], %x;
    ret;
}
.func (.reg .b32 %result) with_registers(.reg .b32 %x, .reg .b32 %y)
{
    sub.s32 %result, %x, %y;
    ret;
}
.func (.param .b32 result) faculty(.param .b32 x)
{
    .reg .b32 %x, %y;
    .reg .pred %p;
    ld.param.b32 %x, [x];
    setp.le.u32 %p, %x, 1;
    @%p bra ONE;
    sub.u32 %y, %x, 1;
    {
        .param .b32 argument;
        .param .b32 answer;
        st.param.b32 [argument], %y;
        call (answer), faculty, (argument);
        ld.param.b32 %y, [answer];
    }
    mul.lo.u32 %x, %x, %y;
    st.param.b32 [result], %x;
    ret;
ONE:
    st.param.b32 [result], 1;
    ret;
}
.global .u64 functions[2] = {triple, faculty};
";

/// A module of several cases, named `case_0` and on.
pub fn module(cases: &[&Case], architecture: u32) -> String {
    let mut text = format!(".version 8.8\n.target sm_{architecture}\n.address_size 64\n\n{PRELUDE}\n");
    for (i, case) in cases.iter().enumerate() {
        text.push_str(&entry(case, &format!("case_{i}")));
    }
    text
}
