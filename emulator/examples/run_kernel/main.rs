//! Runs a kernel of any `.cu` or `.ptx` on the emulator, and prints results, counters and findings.

mod arguments;
mod array;
#[path = "../../tests/support/nvrtc.rs"]
mod nvrtc;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Parser, ValueEnum};
use ptx_emulator::decode::{Kernel, Module};
use ptx_emulator::machine::{Launch, LaunchReport, LoadedModule, run};
use ptx_emulator::memory::GlobalMemory;
use ptx_emulator::settings::{Findings, Rounding, Settings, Watch};
use ptx_emulator::target::Target;
use ptx_emulator::toolkit::Toolkit;

use arguments::{Argument, Contents};

/// Runs a kernel without a GPU: every access checked, every launch counted.
///
/// The arguments come in the order of the kernel's parameters. A number is TYPE:VALUE (i32:1000, f32:0.5). A buffer is
/// NAME=CONTENTS, where CONTENTS is a file of numpy (x=x.npy), a file narrowed to a shorter float (x=x.npy:bf16),
/// elements that nobody has written yet (y=f32[1000]), zeros (y=zeros:f32[4,250]), or some numbers (x=random:f32[1000]).
///
/// Example: run_kernel saxpy.cu --grid 4 --block 256 --save y=out.npy i32:1000 f32:0.5 x=x.npy y=random:f32[1000]
///
/// Ends with 0 when nothing was found, 1 after a finding, 2 when it could not be run.
#[derive(Parser)]
#[command(name = "run_kernel", verbatim_doc_comment)]
struct Options {
    /// CUDA C++ (compiled by NVRTC) or PTX.
    file: PathBuf,
    /// The arguments of the kernel.
    #[arg(value_parser = arguments::parse)]
    arguments: Vec<Argument>,
    /// The kernel's name; not needed when the file has one kernel only.
    #[arg(long)]
    kernel: Option<String>,
    /// Blocks: X, X,Y or X,Y,Z.
    #[arg(long, value_parser = arguments::shape, default_value = "1")]
    grid: arguments::Shape,
    /// Threads of a block: X, X,Y or X,Y,Z.
    #[arg(long, value_parser = arguments::shape, default_value = "32")]
    block: arguments::Shape,
    /// Bytes of dynamic shared memory.
    #[arg(long, default_value_t = 0)]
    shared: u32,
    /// Launch cooperatively: all blocks are resident, and may wait for each other.
    #[arg(long)]
    cooperative: bool,
    /// Save a buffer after the launch: NAME=FILE.npy. May be given several times.
    #[arg(long, value_parser = arguments::pair)]
    save: Vec<(String, String)>,
    /// Write a variable of the module (a __constant__ table) before the launch: NAME=FILE.npy.
    #[arg(long, value_parser = arguments::pair)]
    variable: Vec<(String, String)>,
    /// The GPU to pose as: 80, 86, 89, 90, 100 or 120.
    #[arg(long, default_value_t = 80)]
    architecture: u32,
    /// An option for NVRTC, such as -DTILE=32 or --use_fast_math. May be given several times.
    #[arg(long, allow_hyphen_values = true)]
    option: Vec<String>,
    /// What is watched.
    #[arg(long, value_enum, default_value_t = Watching::Races)]
    watch: Watching,
    /// How results are chosen that the PTX manual leaves open.
    #[arg(long, value_enum, default_value_t = Choosing::Exact)]
    rounding: Choosing,
    /// Chooses the order of blocks and warps, and what adversarial rounding does.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Threads of the host; 0 for all cores.
    #[arg(long, default_value_t = 0)]
    threads: usize,
    /// Go on after a finding as far as possible, and list all there are at the end, each place once.
    #[arg(long)]
    summary: bool,
    /// Instructions of warps after which a block counts as a runaway loop; 0 for no limit.
    #[arg(long, default_value_t = Settings::default().max_warp_instructions)]
    limit: u64,
    /// Save the whole report (counters, findings, what was printed) as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Save the PTX that NVRTC made.
    #[arg(long)]
    keep_ptx: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Watching {
    /// Bounds and alignment.
    Off,
    /// Also what is not initialised, barriers and masks.
    Memory,
    /// Also races.
    Races,
}

#[derive(Clone, Copy, ValueEnum)]
enum Choosing {
    /// Correctly rounded.
    Exact,
    /// As far off as the manual allows.
    Adversarial,
}

fn main() -> ExitCode {
    match launch(&Options::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::from(2)
        }
    }
}

/// Does it all; whether nothing was found.
fn launch(options: &Options) -> Result<bool, String> {
    let target = Target::ALL.into_iter().find(|target| target.number() == options.architecture);
    let target =
        target.ok_or_else(|| format!("sm_{} is none of those that the emulator poses as", options.architecture))?;
    let ptx = ptx_of(&options.file, options)?;
    if let Some(path) = &options.keep_ptx {
        std::fs::write(path, &ptx).map_err(|e| format!("{}: {e}", path.display()))?;
    }
    let module = Module::load(&ptx, target).map_err(|e| format!("{}: {e}", options.file.display()))?;
    let memory = GlobalMemory::new(8 << 30).map_err(|e| format!("no address space for the device's memory: {e}"))?;
    let module = LoadedModule::new(Arc::new(module), &memory).ok_or("the module's variables do not fit into memory")?;
    let kernel = pick(module.module(), options.kernel.as_deref())?;
    for (name, file) in &options.variable {
        let (address, room) = module.global(name).ok_or_else(|| format!("the module has no variable {name}"))?;
        let bytes = array::read(Path::new(file))?.bytes;
        if bytes.len() as u64 > room {
            return Err(format!("{file} has {} bytes, but {name} has room for {room}", bytes.len()));
        }
        memory.write(address, &bytes).map_err(|e| e.to_string())?;
    }
    let addresses = place(&options.arguments, &memory)?;
    let parameters = parameters(kernel, &options.arguments, &addresses)?;
    let settings = Settings {
        target,
        seed: options.seed,
        watch: match options.watch {
            Watching::Off => Watch::Off,
            Watching::Memory => Watch::Memory,
            Watching::Races => Watch::Races,
        },
        rounding: match options.rounding {
            Choosing::Exact => Rounding::Exact,
            Choosing::Adversarial => Rounding::Adversarial,
        },
        count: true,
        findings: if options.summary { Findings::Summary } else { Findings::First },
        threads: options.threads,
        max_warp_instructions: options.limit,
    };
    let launch = Launch {
        kernel,
        grid: options.grid.0,
        block: options.block.0,
        dynamic_shared: options.shared,
        parameters: &parameters,
        cooperative: options.cooperative,
    };
    let started = std::time::Instant::now();
    let report = run(&module, &launch, &memory, &settings);
    tell(&report, started.elapsed());
    show(&options.arguments, &addresses, &memory)?;
    save(options, &addresses, &memory)?;
    if let Some(path) = &options.json {
        let json = serde_json::to_string_pretty(&report).map_err(|e| e.to_string())?;
        std::fs::write(path, json).map_err(|e| format!("{}: {e}", path.display()))?;
    }
    Ok(report.findings.is_empty() && report.fault.is_none())
}

/// The PTX of the file, compiled if it is not PTX already.
fn ptx_of(file: &Path, options: &Options) -> Result<String, String> {
    let text = std::fs::read_to_string(file).map_err(|e| format!("{}: {e}", file.display()))?;
    if file.extension().is_some_and(|extension| extension == "ptx") {
        return Ok(text);
    }
    let toolkit = Toolkit::find().map_err(|e| e.to_string())?;
    toolkit.open_nvrtc().map_err(|e| e.to_string())?;
    let more: Vec<&str> = options.option.iter().map(String::as_str).collect();
    nvrtc::compile(&toolkit, &file.display().to_string(), &text, options.architecture, &more)
}

/// The kernel of that name, or the only one.
fn pick<'a>(module: &'a Module, name: Option<&str>) -> Result<&'a Kernel, String> {
    let names: Vec<&str> = module.kernels().iter().map(|kernel| kernel.name.as_str()).collect();
    match name {
        Some(name) => {
            module.kernel(name).ok_or_else(|| format!("there is no kernel {name}; there are: {}", names.join(", ")))
        }
        None => match module.kernels() {
            [only] => Ok(only),
            _ => Err(format!("choose one with --kernel: {}", names.join(", "))),
        },
    }
}

/// Gives each buffer its memory and its contents; zero for what is no buffer.
fn place(arguments: &[Argument], memory: &GlobalMemory) -> Result<Vec<u64>, String> {
    let of = |argument: &Argument| {
        let Argument::Buffer { name, contents } = argument else { return Ok(0) };
        let bytes = contents.length();
        let address = memory.allocate(bytes).ok_or_else(|| format!("{name}: {bytes} bytes do not fit into memory"))?;
        if let Contents::Array(array) = contents {
            memory.write(address, &array.bytes).map_err(|e| e.to_string())?;
        }
        Ok(address)
    };
    arguments.iter().map(of).collect()
}

/// The parameter buffer; the arguments must be as many and as long as the kernel's parameters.
fn parameters(kernel: &Kernel, arguments: &[Argument], addresses: &[u64]) -> Result<Vec<u8>, String> {
    if kernel.parameters.len() != arguments.len() {
        return Err(format!("{} takes {} arguments, not {}", kernel.name, kernel.parameters.len(), arguments.len()));
    }
    let length = kernel.parameters.iter().map(|p| p.offset + p.bytes).max().unwrap_or(0);
    let mut buffer = vec![0; length as usize];
    for (i, (parameter, argument)) in kernel.parameters.iter().zip(arguments).enumerate() {
        let bytes = match argument {
            Argument::Value(bytes) => bytes.clone(),
            Argument::Buffer { .. } => addresses[i].to_le_bytes().to_vec(),
        };
        if bytes.len() != parameter.bytes as usize {
            return Err(format!(
                "argument {} has {} bytes, but the parameter has {}",
                i + 1,
                bytes.len(),
                parameter.bytes
            ));
        }
        buffer[parameter.offset as usize..][..bytes.len()].copy_from_slice(&bytes);
    }
    Ok(buffer)
}

/// What the launch said and cost.
fn tell(report: &LaunchReport, took: std::time::Duration) {
    if !report.printed.is_empty() {
        println!("printed:\n{}", report.printed.trim_end());
    }
    if let Some(counters) = &report.counters {
        let json = serde_json::to_string_pretty(counters).expect("counters are numbers");
        println!("counters: {json}");
        let rate = counters.thread_instructions as f64 / took.as_secs_f64() / 1e6;
        println!("emulated in {:.3} s, {rate:.0} million thread instructions a second", took.as_secs_f64());
    }
    if let (true, Some(fault)) = (report.findings.is_empty(), &report.fault) {
        println!("fault: {}", fault.message);
    }
    println!("findings:{}", if report.findings.is_empty() { " none" } else { "" });
    for finding in &report.findings {
        println!("  {finding}");
    }
}

/// A line or two about each buffer.
fn show(arguments: &[Argument], addresses: &[u64], memory: &GlobalMemory) -> Result<(), String> {
    for (argument, &address) in arguments.iter().zip(addresses) {
        let Argument::Buffer { name, contents } = argument else { continue };
        let mut bytes = vec![0; contents.length() as usize];
        let unwritten = memory.read(address, &mut bytes).map_err(|e| e.to_string())?;
        println!("{name}: {}", array::summary(contents.element(), contents.shape(), &bytes));
        if let Some(first) = unwritten {
            println!("{name}: not all of it was written; the first such byte is {}", first - address);
        }
    }
    Ok(())
}

fn save(options: &Options, addresses: &[u64], memory: &GlobalMemory) -> Result<(), String> {
    for (wanted, file) in &options.save {
        let found = options.arguments.iter().zip(addresses).find_map(|(argument, &address)| match argument {
            Argument::Buffer { name, contents } if name == wanted => Some((contents, address)),
            _ => None,
        });
        let (contents, address) = found.ok_or_else(|| format!("--save {wanted}: there is no such buffer"))?;
        let mut bytes = vec![0; contents.length() as usize];
        memory.read(address, &mut bytes).map_err(|e| e.to_string())?;
        array::write(Path::new(file), contents.element(), contents.shape(), &bytes)?;
    }
    Ok(())
}
