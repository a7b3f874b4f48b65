//! How fast the emulator is, and where its time goes.
//!
//! `cargo bench -p ptx-emulator --bench throughput` runs three workloads at each level of watching, on one core and on
//! all, and prints what was done per second. Then it times single instructions of each class in a loop and sets their
//! cost against how often the workloads execute them: where the time goes. With `-- --test` every part runs once, small;
//! with a part of a name, as in `-- product`, only the workloads whose names have it.
//!
//! On one core it is the processor's time that counts, so that what else the machine does matters little.

use std::sync::Arc;
use std::time::Instant;

use ptx_emulator::decode::Module;
use ptx_emulator::machine::{Launch, LaunchReport, LoadedModule, run};
use ptx_emulator::memory::GlobalMemory;
use ptx_emulator::settings::{Settings, Watch};
use ptx_emulator::target::Target;
use ptx_emulator::toolkit::Toolkit;

#[path = "../tests/support/nvrtc.rs"]
mod nvrtc;

/// A loop of integer and fused operations that touches no memory.
const ALU: &str = r#"
extern "C" __global__ void alu(int n, float *y) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    unsigned int a = i, b = i + 7;
    float x = i * 1e-3f, z = 0.5f;
    for (int k = 0; k < n; k++) {
        a = a * 1664525u + 1013904223u;
        b ^= a >> 13;
        x = x * 0.999f + z;
        z = z * 0.5f + 0.25f * x;
        b += a & 255u;
        x -= z;
    }
    y[i] = x + z + (float)(a ^ b);
}
"#;

/// What a workload runs.
struct Workload {
    name: &'static str,
    source: String,
    file: &'static str,
    kernel: &'static str,
    grid: [u32; 3],
    block: [u32; 3],
    /// Bytes of the buffers, in the order of the kernel's pointers; all but the last are filled.
    buffers: Vec<u64>,
    /// The kernel's integers, before its pointers.
    integers: Vec<i32>,
    /// Floating-point operations of a product, for products.
    operations: f64,
}

fn workloads(small: bool) -> Vec<Workload> {
    let read = |file: &str| {
        std::fs::read_to_string(format!("{}/tests/kernels/{file}", env!("CARGO_MANIFEST_DIR")))
            .expect("a file of the corpus")
    };
    let side: u32 = if small { 64 } else { 512 };
    let n = u64::from(side);
    let integers = vec![side as i32; 3];
    let operations = 2.0 * f64::from(side).powi(3);
    vec![
        Workload {
            name: "ALU loop",
            source: ALU.into(),
            file: "alu.cu",
            kernel: "alu",
            grid: [8, 1, 1],
            block: [256, 1, 1],
            buffers: vec![8 * 256 * 4],
            integers: vec![if small { 100 } else { 20_000 }],
            operations: 0.0,
        },
        Workload {
            name: "fp32 tiled product",
            source: read("sgemm.cu"),
            file: "sgemm.cu",
            kernel: "sgemm_tiled",
            grid: [side / 16, side / 16, 1],
            block: [16, 16, 1],
            buffers: vec![4 * n * n; 3],
            integers: integers.clone(),
            operations,
        },
        Workload {
            name: "bf16 mma product",
            source: read("hgemm.cu"),
            file: "hgemm.cu",
            kernel: "hgemm",
            grid: [side / 64, side / 64, 1],
            block: [128, 1, 1],
            buffers: vec![2 * n * n, 2 * n * n, 4 * n * n],
            integers,
            operations,
        },
    ]
}

/// A device with a module and the buffers of a workload.
struct Prepared {
    module: LoadedModule,
    memory: GlobalMemory,
    parameters: Vec<u8>,
}

impl Prepared {
    fn new(ptx: &str, integers: &[i32], buffers: &[u64]) -> Self {
        let memory = GlobalMemory::new(1 << 30).expect("address space");
        let module = Module::load(ptx, Target::Sm80).unwrap_or_else(|e| panic!("{e}"));
        let module = LoadedModule::new(Arc::new(module), &memory).expect("room for variables");
        let mut parameters: Vec<u8> = integers.iter().flat_map(|value| value.to_le_bytes()).collect();
        parameters.resize(parameters.len().next_multiple_of(8), 0);
        for (i, &bytes) in buffers.iter().enumerate() {
            let address = memory.allocate(bytes).expect("room for buffers");
            if i + 1 < buffers.len() {
                // Small numbers in either format: 0x3c00 repeated is 0.0078 in bf16 and in fp32.
                memory.fill(address, &[0x00, 0x3c], bytes / 2).expect("just allocated");
            }
            parameters.extend(address.to_le_bytes());
        }
        Prepared { module, memory, parameters }
    }

    /// Runs once; the report and the seconds it took.
    fn run(&self, kernel: &str, grid: [u32; 3], block: [u32; 3], settings: &Settings) -> (LaunchReport, f64) {
        let kernel = self.module.module().kernel(kernel).expect("a kernel of the module");
        let launch =
            Launch { kernel, grid, block, dynamic_shared: 0, parameters: &self.parameters, cooperative: false };
        let (started, processor) = (Instant::now(), processor_seconds());
        let report = run(&self.module, &launch, &self.memory, settings);
        let seconds =
            if settings.threads == 1 { processor_seconds() - processor } else { started.elapsed().as_secs_f64() };
        assert!(report.fault.is_none(), "{}: {:?}", kernel.name, report.fault);
        (report, seconds)
    }
}

/// Seconds that this thread has had of a processor.
fn processor_seconds() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: it writes to the structure that it is given.
    assert_eq!(unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) }, 0);
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

fn settings(watch: Watch, threads: usize) -> Settings {
    Settings { watch, threads, ..Settings::default() }
}

/// Instructions that are timed on their own: a class, and a line that can be repeated.
const CLASSES: [(&str, &str); 12] = [
    ("integer add", "add.u32 %a, %a, %b;"),
    ("integer multiply-add", "mad.lo.u32 %a, %a, %b, %c;"),
    ("fp32 fma", "fma.rn.f32 %x, %x, %y, %x;"),
    ("fp32 add", "add.rn.f32 %x, %x, %y;"),
    ("comparison", "setp.lt.u32 %p, %a, %b;"),
    ("special function", "ex2.approx.ftz.f32 %z, %y;"),
    ("shuffle", "shfl.sync.bfly.b32 %a, %a, 1, 31, -1;"),
    ("shared load", "ld.shared.f32 %z, [%at];"),
    ("shared store", "st.shared.f32 [%at], %y;"),
    ("global load", "ld.global.f32 %z, [%from];"),
    ("global store", "st.global.f32 [%from], %y;"),
    (
        "mma m16n8k16 bf16",
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%d0, %d1, %d2, %d3}, {%a, %a, %a, %a}, {%b, %b}, {%d0, %d1, %d2, %d3};",
    ),
];

/// A kernel that repeats a line 64 times in a loop.
fn repeated(line: &str) -> String {
    let body = line.to_owned() + "\n";
    format!(
        ".version 8.0\n.target sm_80\n.address_size 64\n.visible .entry repeat(.param .u32 n, .param .u64 buffer)\n{{\n\
         .reg .b32 %a, %b, %c, %i, %n, %at; .reg .f32 %x, %y, %z, %d0, %d1, %d2, %d3; .reg .pred %p, %q; .reg .b64 %from, %offset;\n\
         .shared .align 4 .b8 room[1024];\n\
         ld.param.u32 %n, [n]; ld.param.u64 %from, [buffer]; mov.u32 %i, %tid.x; mul.wide.u32 %offset, %i, 4; add.u64 %from, %from, %offset;\n\
         shl.b32 %i, %i, 2; mov.u32 %at, room; add.u32 %at, %at, %i; mov.f32 %y, 0f3F000000; mov.f32 %x, %y; mov.f32 %z, %y;\n\
         mov.f32 %d0, %y; mov.f32 %d1, %y; mov.f32 %d2, %y; mov.f32 %d3, %y;\n\
         st.shared.f32 [%at], %y; st.global.f32 [%from], %y; mov.u32 %a, 0x3f003f00; mov.u32 %b, 0x3f003f00; mov.u32 %c, 3; mov.u32 %i, 0;\n\
         LOOP:\n{}add.u32 %i, %i, 1; setp.lt.u32 %q, %i, %n; @%q bra LOOP;\n\
         add.f32 %x, %x, %z; add.f32 %x, %x, %d0; st.global.f32 [%from], %x; ret;\n}}\n",
        body.repeat(64)
    )
}

fn main() {
    let small = std::env::args().any(|argument| argument == "--test");
    let part = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let toolkit = Toolkit::find().unwrap_or_else(|e| panic!("{e}"));
    toolkit.open_nvrtc().unwrap_or_else(|e| panic!("{e}"));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);

    println!(
        "{:<20} {:<8} {:>5} {:>9} {:>14} {:>9}",
        "workload", "watch", "cores", "seconds", "Mthread-inst/s", "GFLOP/s"
    );
    let wanted = |workload: &Workload| part.as_ref().is_none_or(|part| workload.name.contains(part.as_str()));
    for workload in workloads(small).into_iter().filter(wanted) {
        let ptx =
            nvrtc::compile(&toolkit, workload.file, &workload.source, 80, &[]).unwrap_or_else(|log| panic!("{log}"));
        let prepared = Prepared::new(&ptx, &workload.integers, &workload.buffers);
        let once = |watch: Watch, threads: usize| {
            // The best of three: the others were disturbed.
            let runs = (0..if small { 1 } else { 3 })
                .map(|_| prepared.run(workload.kernel, workload.grid, workload.block, &settings(watch, threads)));
            let (report, seconds) = runs.min_by(|a, b| a.1.total_cmp(&b.1)).expect("at least one");
            let done = report.counters.map_or(0, |counters| counters.thread_instructions);
            println!(
                "{:<20} {:<8} {:>5} {:>9.3} {:>14.0} {:>9.2}",
                workload.name,
                format!("{watch:?}").to_lowercase(),
                threads,
                seconds,
                done as f64 / seconds / 1e6,
                workload.operations / seconds / 1e9
            );
        };
        for watch in [Watch::Off, Watch::Memory, Watch::Races] {
            once(watch, 1);
        }
        if cores > 1 {
            once(Watch::Races, cores);
        }
    }

    if part.is_some() {
        return;
    }
    println!(
        "\nnanoseconds for one instruction of a warp (32 lanes), one core\n{:<22} {:>8} {:>8} {:>8}",
        "class", "off", "memory", "races"
    );
    for (class, line) in CLASSES {
        let iterations = if small { 2 } else { 2000 };
        let prepared = Prepared::new(&repeated(line), &[iterations], &[4 * 256]);
        let cost = |watch: Watch| {
            let runs = (0..if small { 1 } else { 3 })
                .map(|_| prepared.run("repeat", [1, 1, 1], [128, 1, 1], &settings(watch, 1)).1);
            let seconds = runs.min_by(f64::total_cmp).expect("at least one");
            seconds * 1e9 / (f64::from(iterations) * 64.0 * 4.0)
        };
        println!("{class:<22} {:>8.1} {:>8.1} {:>8.1}", cost(Watch::Off), cost(Watch::Memory), cost(Watch::Races));
    }
}
