//! The machine's own rules: divergence, barriers, masks, calls, waiting, and what it finds.

mod arrivals;
mod racing;
mod signals;
mod values;
mod waiting;

use std::sync::Arc;

use ptx_emulator::decode::Module;
use ptx_emulator::machine::{self, FaultKind, Launch, LaunchReport, LoadedModule};
use ptx_emulator::memory::GlobalMemory;
use ptx_emulator::settings::{Settings, Watch};
use ptx_emulator::target::Target;
use ptx_emulator::watch::FindingKind;

const HEAD: &str = ".version 8.0\n.target sm_80\n.address_size 64\n";
const REGISTERS: &str = ".reg .pred %p<8>; .reg .b32 %r<16>; .reg .b64 %rd<16>; .reg .f32 %f<8>;
    mov.u32 %r0, %tid.x; mov.u32 %r1, %ctaid.x; mov.u32 %r2, %ntid.x; mad.lo.u32 %r3, %r1, %r2, %r0;
    ld.param.u64 %rd0, [out]; mul.wide.u32 %rd1, %r3, 4; add.u64 %rd1, %rd0, %rd1;";

fn settings() -> Settings {
    Settings { watch: Watch::Memory, threads: 1, max_warp_instructions: 200_000, ..Settings::default() }
}

/// Runs a body, in which %r0 is the thread, %r3 its number in the grid, %rd0 the output and %rd1 its own word there.
fn run_with(outside: &str, body: &str, grid: u32, block: u32, settings: &Settings) -> (LaunchReport, Vec<u32>) {
    run_in(&GlobalMemory::new(1 << 24).unwrap(), outside, body, grid, block, settings)
}

/// Likewise, in a memory that there is.
fn run_in(
    memory: &GlobalMemory,
    outside: &str,
    body: &str,
    grid: u32,
    block: u32,
    settings: &Settings,
) -> (LaunchReport, Vec<u32>) {
    let head = HEAD.replace("80", &settings.target.number().to_string());
    let text = format!("{head}{outside}\n.visible .entry k(.param .u64 out) {{ {REGISTERS}\n{body}\n ret; }}");
    let module = Arc::new(Module::load(&text, settings.target).unwrap_or_else(|error| panic!("{error}\n{text}")));
    let loaded = LoadedModule::new(module.clone(), memory).unwrap();
    let words = u64::from(grid * block);
    let out = memory.allocate(4 * words).unwrap();
    memory.fill(out, &[0], 4 * words).unwrap();
    let kernel = module.kernel("k").unwrap();
    let parameters = out.to_le_bytes();
    let (grid, block) = ([grid, 1, 1], [block, 1, 1]);
    let launch = Launch { kernel, grid, block, dynamic_shared: 0, parameters: &parameters, cooperative: false };
    let report = machine::run(&loaded, &launch, memory, settings);
    let mut bytes = vec![0; 4 * words as usize];
    memory.read(out, &mut bytes).unwrap();
    (report, bytes.chunks(4).map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect())
}

fn values(outside: &str, body: &str, grid: u32, block: u32) -> Vec<u32> {
    let (report, values) = run_with(outside, body, grid, block, &settings());
    assert!(report.findings.is_empty(), "{}", report.findings[0]);
    values
}

/// What is found, and that it names the line of the instruction that is marked by `//!`.
fn found(body: &str, block: u32) -> (FindingKind, String) {
    let (report, _) = run_with("", body, 1, block, &settings());
    let finding = report.findings.first().unwrap_or_else(|| panic!("nothing was found in {body}"));
    assert_eq!(report.fault.as_ref().unwrap().message, finding.to_string());
    if let Some(at) = body.lines().position(|line| line.contains("//!")) {
        // Three lines of head, one empty, three of registers come before the body.
        assert_eq!(finding.place.ptx_line as usize, at + 8, "{finding}");
    }
    (finding.kind, finding.to_string())
}

#[test]
fn lanes_part_and_meet_again() {
    let body = "and.b32 %r4, %r0, 3; setp.eq.u32 %p1, %r4, 0; @%p1 bra A; setp.eq.u32 %p1, %r4, 1; @%p1 bra B;
        mov.u32 %r5, 30; bra M; A: mov.u32 %r5, 10; bra M; B: mov.u32 %r5, 20;
        M: activemask.b32 %r6; popc.b32 %r6, %r6; add.u32 %r5, %r5, %r6; st.global.u32 [%rd1], %r5;";
    let want: Vec<u32> = (0..32).map(|t| [42, 52, 62, 62][t % 4]).collect();
    assert_eq!(values("", body, 1, 32), want);
}

#[test]
fn loops_of_different_length_and_tables_of_targets() {
    let body = "mov.u32 %r4, 0; mov.u32 %r5, 0; L: setp.ge.u32 %p1, %r4, %r0; @%p1 bra D;
        add.u32 %r4, %r4, 1; add.u32 %r5, %r5, %r4; bra L; D: st.global.u32 [%rd1], %r5;";
    assert_eq!(values("", body, 1, 40), (0..40).map(|t| t * (t + 1) / 2).collect::<Vec<u32>>());
    let body = "and.b32 %r4, %r0, 3; T: .branchtargets A, B, C, B; brx.idx %r4, T;
        A: mov.u32 %r5, 1; bra M; B: mov.u32 %r5, 2; bra M; C: mov.u32 %r5, 3; M: st.global.u32 [%rd1], %r5;";
    assert_eq!(values("", body, 1, 32), (0..32).map(|t| [1, 2, 3, 2][t % 4]).collect::<Vec<u32>>());
    let (kind, text) = found("brx.idx %r0, T; //!\n T: .branchtargets A, B; A: B:", 32);
    assert_eq!(kind, FindingKind::Undefined, "{text}");
}

#[test]
fn functions_recurse_and_are_called_by_address() {
    let outside = ".func (.param .b32 r) fact(.param .b32 n) { .reg .pred %p; .reg .b32 %a<4>; ld.param.u32 %a0, [n];
        setp.gt.u32 %p, %a0, 1; @%p bra more; mov.u32 %a1, 1; bra done;
        more: sub.u32 %a2, %a0, 1; { .param .b32 x; .param .b32 y; st.param.b32 [x], %a2; call (y), fact, (x);
        ld.param.b32 %a1, [y]; } mul.lo.u32 %a1, %a1, %a0; done: st.param.b32 [r], %a1; ret; }
        .func (.reg .u32 r) twice(.reg .u32 x) { add.u32 r, x, x; ret; }
        .func (.reg .u32 r) next(.reg .u32 x) { add.u32 r, x, 1; ret; }
        .global .u64 table[2] = {twice, next};";
    let body = "and.b32 %r4, %r0, 7; { .param .b32 x; .param .b32 y; st.param.b32 [x], %r4; call (y), fact, (x); ld.param.b32 %r5, [y]; }
        and.b32 %r6, %r0, 1; mul.wide.u32 %rd2, %r6, 8; mov.u64 %rd3, table; add.u64 %rd3, %rd3, %rd2; ld.global.u64 %rd4, [%rd3];
        P: .callprototype (.reg .u32 _) _ (.reg .u32 _); call (%r5), %rd4, (%r5), P; st.global.u32 [%rd1], %r5;";
    let fact = |n: u32| (1..=n).product::<u32>();
    let want: Vec<u32> = (0..32).map(|t| if t % 2 == 0 { 2 * fact(t % 8) } else { fact(t % 8) + 1 }).collect();
    assert_eq!(values(outside, body, 1, 32), want);
}

/// Accesses that are wider than all there is: of all lanes and of some, side by side and at one place.
#[test]
fn accesses_that_are_larger_than_the_memory() {
    for access in ["ld.shared.v4.u32 {%r5,%r6,%r7,%r8}, [%r4];", "st.shared.v4.u32 [%r4], {%r0,%r0,%r0,%r0};"] {
        for (stride, block) in [(0, 32), (0, 7), (16, 32), (4096, 32)] {
            let body = format!(
                ".shared .align 16 .b8 s[4]; mul.lo.u32 %r4, %r0, {stride}; mov.u32 %r5, s; st.shared.u32 [%r5], 1; {access} //!"
            );
            assert_eq!(found(&body, block).0, FindingKind::OutOfBounds, "{access} {stride} {block}");
        }
    }
}

#[test]
fn registers_and_memory_that_were_never_written() {
    let body = "setp.ge.u32 %p1, %r0, 5;\n @%p1 mov.u32 %r9, 1;\n st.global.u32 [%rd1], %r9; //!";
    let (kind, text) = found(body, 32);
    assert_eq!(kind, FindingKind::Uninitialised);
    assert!(text.contains("%r9") && text.contains("lane 0"), "{text}");
    values("", "setp.ge.u32 %p1, %r0, 0; @%p1 mov.u32 %r9, 1; st.global.u32 [%rd1], %r9;", 1, 32);
    let body = ".shared .align 4 .b8 s[128];\n shl.b32 %r4, %r0, 2;\n mov.u32 %r5, s;\n add.u32 %r4, %r4, %r5;\n ld.shared.u32 %r6, [%r4]; //!";
    assert_eq!(found(body, 32).0, FindingKind::Uninitialised);
    assert_eq!(found(".local .b32 l[2];\n ld.local.u32 %r4, [l]; //!", 1).0, FindingKind::Uninitialised);
}

#[test]
fn accesses_out_of_bounds_and_misaligned() {
    let (report, _) = run_with("", "st.global.u32 [%rd1+4], %r0;", 1, 32, &settings());
    assert_eq!(report.fault.unwrap().kind, FaultKind::IllegalAddress);
    assert_eq!(report.findings[0].lane, 31);
    let (report, _) = run_with("", "st.global.u16 [%rd1+1], %r0;", 1, 32, &settings());
    assert_eq!(report.fault.unwrap().kind, FaultKind::MisalignedAddress);
    assert_eq!(found(".shared .b32 s[4];\n st.shared.u32 [s+16], %r0; //!", 1).0, FindingKind::OutOfBounds);
    assert_eq!(found(".local .b32 l[4];\n st.local.u32 [l+16], %r0; //!", 1).0, FindingKind::OutOfBounds);
}

/// By a generic address, as C++ that casts `const` away does it: for lanes that store side by side, and for some of them.
#[test]
fn constants_and_parameters_cannot_be_written() {
    let constant = "mov.u64 %rd2, table; cvta.const.u64 %rd2, %rd2;";
    let parameter = "mov.u64 %rd2, out; cvta.param.u64 %rd2, %rd2;";
    for (place, step) in [(constant, 4), (constant, 0), (parameter, 0)] {
        let body = format!("{place} mul.wide.u32 %rd3, %r0, {step}; add.u64 %rd2, %rd2, %rd3; st.b32 [%rd2], %r0;");
        for block in [32, 20] {
            let (report, _) = run_with(".const .align 16 .b32 table[32];", &body, 1, block, &settings());
            let finding = report.findings.first().unwrap_or_else(|| panic!("nothing was found in {body}"));
            assert_eq!(finding.kind, FindingKind::Undefined);
            assert!(finding.message.contains("constant memory"), "{finding}");
        }
    }
}

/// Shared variables do not touch each other, and each is at least as far from the next as a row of banks is long.
#[test]
fn one_shared_array_does_not_run_into_the_next() {
    let arrays = ".shared .align 4 .b8 one[128]; .shared .align 4 .b8 two[128];
        shl.b32 %r4, %r0, 2; mov.u32 %r5, one; add.u32 %r5, %r5, %r4; mov.u32 %r6, two; add.u32 %r6, %r6, %r4;
        st.shared.u32 [%r5], %r0; st.shared.u32 [%r6], %r0; bar.sync 0;";
    for access in
        ["ld.shared.u32 %r7, [%r5+4];", "st.shared.u32 [%r5+128], %r0;", "atom.shared.add.u32 %r7, [%r5+8], 1;"]
    {
        let (report, _) = run_with("", &format!("{arrays} {access}"), 1, 32, &settings());
        let finding = report.findings.first().unwrap_or_else(|| panic!("nothing was found of {access}"));
        assert_eq!(finding.kind, FindingKind::OutOfBounds);
        assert!(finding.message.contains("one has 128 bytes, from 0x0"), "{finding}");
    }
    // Dynamic shared memory does not touch the static one either.
    let outside = ".extern .shared .align 4 .b8 dynamic[];";
    let body = ".shared .align 4 .b32 word; mov.u32 %r5, dynamic; st.shared.u32 [word], %r5; ld.shared.u32 %r6, [word];
        st.global.u32 [%rd1], %r6;";
    let at = values(outside, body, 1, 1)[0];
    assert!(at >= 4 + 128 && at.is_multiple_of(16), "{at}");
    let (report, _) = run_with(outside, "st.shared.u32 [dynamic], %r0;", 1, 1, &settings());
    assert_eq!(report.findings[0].kind, FindingKind::OutOfBounds);
}

#[test]
fn special_registers_that_depend_on_the_card() {
    let body = "mov.u32 %r4, %nsmid; mov.u32 %r5, %nwarpid; mad.lo.u32 %r4, %r4, 1000, %r5; st.global.u32 [%rd1], %r4;";
    for (target, want) in
        [(Target::Sm80, 108_064), (Target::Sm86, 82_048), (Target::Sm90, 132_064), (Target::Sm120, 170_048)]
    {
        let (report, values) = run_with("", body, 1, 1, &Settings { target, ..settings() });
        assert_eq!((report.fault, values), (None, vec![want]), "{target}");
    }
}

#[test]
fn copies_land_when_they_are_waited_for() {
    let copy = ".shared .align 16 .b8 s[128]; st.global.u32 [%rd1], %r0; shl.b32 %r4, %r0, 2; mov.u32 %r5, s; add.u32 %r4, %r4, %r5;\n\
        cp.async.ca.shared.global [%r4], [%rd1], 4; cp.async.commit_group;";
    let read = "ld.shared.u32 %r6, [%r4]; add.u32 %r6, %r6, 1; st.global.u32 [%rd1], %r6;";
    let (kind, text) = found(&format!("{copy} cp.async.wait_group 1; {read}"), 32);
    assert_eq!(kind, FindingKind::InFlight);
    assert!(text.contains("cp.async.ca.shared.global"), "{text}");
    let want: Vec<u32> = (1..33).collect();
    assert_eq!(values("", &format!("{copy} cp.async.wait_group 0; {read}"), 1, 32), want);
    assert_eq!(values("", &format!("{copy} cp.async.wait_all; {read}"), 1, 32), want);
}

#[test]
fn equal_seeds_give_equal_bits_for_any_number_of_threads() {
    // A sum of floats by atomics: its last bits tell the order of blocks and warps.
    let outside = ".global .f32 sum;";
    let atomics =
        "cvt.rn.f32.u32 %f1, %r3; rcp.approx.f32 %f1, %f1; setp.eq.u32 %p1, %r3, 0; selp.f32 %f1, 0f3F800000, %f1, %p1;
        atom.global.add.f32 %f2, [sum], %f1; st.global.f32 [%rd1], %f2;";
    let failing = "setp.eq.u32 %p1, %r3, 500; @%p1 trap; setp.eq.u32 %p1, %r3, 900; @%p1 trap;";
    let with = |body, seed, threads| run_with(outside, body, 16, 64, &Settings { seed, threads, ..settings() });
    for seed in [0, 7] {
        assert_eq!(with(atomics, seed, 1), with(atomics, seed, 2));
        let (one, two) = (with(failing, seed, 1).0, with(failing, seed, 2).0);
        assert_eq!(one.findings, two.findings);
        assert_eq!(one.findings[0].kind, FindingKind::Trap);
    }
    assert_ne!(with(atomics, 1, 1).1, with(atomics, 2, 1).1);
}

#[test]
fn what_is_not_known_is_refused_with_its_line() {
    for (body, line) in [
        ("mov.u32 %r4, 1;\n frobnicate.u32 %r4, %r4;", 9),
        ("add.foo.u32 %r4, %r4, 1;", 8),
        ("bra nowhere;", 8),
        ("add.u32 %r99, %r4, 1;", 8),
        ("add.u32 %rd4, %r4, 1;", 8),
        ("mov.u32 %r4, %nosuch;", 8),
        ("call nobody;", 8),
    ] {
        let text = format!("{HEAD}\n.visible .entry k(.param .u64 out) {{ {REGISTERS}\n{body}\n ret; }}");
        let error = Module::load(&text, Target::Sm80).unwrap_err();
        assert_eq!(error.line, line, "{body}: {error}");
    }
}

/// What the README says is not supported is refused when the module is loaded, with its line.
#[test]
fn what_is_not_supported_is_refused_with_its_line() {
    for instruction in [
        "mma.sp.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%f0,%f1,%f2,%f3}, {%r4,%r5}, {%r6,%r7}, {%f0,%f1,%f2,%f3}, %r8, 0x0;",
        "mma.sync.aligned.m8n8k128.row.col.s32.b1.b1.s32.xor.popc {%r4,%r5}, {%r6}, {%r7}, {%r8,%r9};",
        "mma.sync.aligned.m16n8k4.row.col.f64.f64.f64.f64 {%rd2,%rd3,%rd4,%rd5}, {%rd6,%rd7}, {%rd8}, {%rd2,%rd3,%rd4,%rd5};",
        "wmma.load.a.sync.aligned.m8n8k32.row.s4 {%r4}, [%rd0];",
        "wmma.mma.xor.popc.sync.aligned.m8n8k128.row.col.s32.b1.b1.s32 {%r4,%r5}, {%r6}, {%r7}, {%r8,%r9};",
        "mapa.u64 %rd2, %rd3, %r4;",
        "barrier.cluster.arrive;",
        "wgmma.fence.sync.aligned;",
        "tcgen05.wait::ld.sync.aligned;",
        "cp.async.bulk.commit_group;",
        "cp.async.bulk.global.shared::cta.bulk_group [%rd0], [%r4], 16;",
        "cp.async.bulk.tensor.1d.shared::cluster.global.mbarrier::complete_tx::bytes [%r4], [%rd0, {%r5}], [%r6];",
        "tex.2d.v4.f32.f32 {%f0,%f1,%f2,%f3}, [%rd0, {%f4,%f5}];",
        "suld.b.2d.b32.trap %r4, [%rd0, {%r5,%r6}];",
        "setmaxnreg.inc.sync.aligned.u32 40;",
    ] {
        for target in [Target::Sm80, Target::Sm90, Target::Sm100] {
            let text = format!("{HEAD}\n.visible .entry k(.param .u64 out) {{ {REGISTERS}\n\n{instruction}\n ret; }}");
            let error = Module::load(&text, target).expect_err(instruction);
            assert_eq!(error.line, 9, "{instruction}: {error}");
        }
    }
}
