//! Where a job runs: the machine itself, the stand-in driver or a real one through cudarc.

use std::sync::{Arc, Mutex, OnceLock};

use cudarc::driver::{CudaContext, CudaFunction, CudaModule, CudaSlice, DriverError, LaunchConfig, PushKernelArg};
use ptx_emulator::decode::Module;
use ptx_emulator::machine::{Launch, LoadedModule, run};
use ptx_emulator::memory::GlobalMemory;
use ptx_emulator::settings::Settings;
use ptx_emulator::standin;
use ptx_emulator::target::Target;

use super::job::{Arg, Job, Outcome};

/// Set to run the tests of kernels on the GPU of this machine.
pub const REAL_GPU_VARIABLE: &str = "PTX_EMULATOR_REAL_GPU";

/// Another seed for the tests of corpus and faults, which none of them may depend on.
pub const SEED_VARIABLE: &str = "PTX_EMULATOR_SEED";

/// The seed of the settings that tests begin with: 0, or what the variable says.
pub fn seed() -> u64 {
    let text = std::env::var(SEED_VARIABLE).unwrap_or_else(|_| "0".into());
    text.parse().unwrap_or_else(|e| panic!("{SEED_VARIABLE}={text}: {e}"))
}

/// Whether kernels go to a real GPU.
pub fn real_gpu() -> bool {
    std::env::var_os(REAL_GPU_VARIABLE).is_some_and(|value| value == "1")
}

/// The target of an architecture's number.
pub fn target(architecture: u32) -> Target {
    let found = Target::ALL.into_iter().find(|target| target.number() == architecture);
    found.unwrap_or_else(|| panic!("sm_{architecture} is none of the targets"))
}

/// A device with a module loaded.
pub struct Loaded {
    place: Place,
}

enum Place {
    Machine { module: LoadedModule, memory: Box<GlobalMemory>, settings: Box<Settings> },
    Driver { module: Arc<CudaModule>, context: Arc<CudaContext> },
}

impl Loaded {
    /// Loads PTX where kernels are tested: on the machine itself, or on the GPU when the variable asks for it.
    pub fn new(ptx: &str, settings: &Settings) -> Result<Self, String> {
        if real_gpu() { Self::real(ptx) } else { Self::machine(ptx, settings) }
    }

    /// Loads PTX into the machine itself.
    pub fn machine(ptx: &str, settings: &Settings) -> Result<Self, String> {
        let memory = GlobalMemory::new(1 << 30).map_err(|e| e.to_string())?;
        let module = Module::load(ptx, settings.target).map_err(|e| e.to_string())?;
        let module = LoadedModule::new(Arc::new(module), &memory).ok_or("the module does not fit into memory")?;
        Ok(Loaded { place: Place::Machine { module, memory: Box::new(memory), settings: Box::new(settings.clone()) } })
    }

    /// Loads PTX through cudarc into the real driver.
    pub fn real(ptx: &str) -> Result<Self, String> {
        static CONTEXT: OnceLock<Arc<CudaContext>> = OnceLock::new();
        let context = CONTEXT.get_or_init(|| CudaContext::new(0).expect("a GPU with a driver"));
        let module = context.load_module(ptx.into()).map_err(|e| describe(&e))?;
        Ok(Loaded { place: Place::Driver { module, context: context.clone() } })
    }

    /// Runs a job; stops at the first launch that fails.
    pub fn run(&self, job: &Job) -> Outcome {
        match &self.place {
            Place::Machine { module, memory, settings } => run_on_machine(module, memory, settings, job),
            Place::Driver { module, context } => run_on_driver(module, context, job),
        }
    }
}

fn run_on_machine(module: &LoadedModule, memory: &GlobalMemory, settings: &Settings, job: &Job) -> Outcome {
    let mut outcome = Outcome::default();
    for (name, bytes) in &job.variables {
        let (address, room) = module.global(name).unwrap_or_else(|| panic!("there is no variable {name}"));
        assert!(bytes.len() as u64 <= room, "{name} has room for {room} bytes");
        memory.write(address, bytes).expect("a variable of the module");
    }
    let addresses: Vec<u64> = (job.buffers.iter())
        .map(|(length, initial)| {
            let address = memory.allocate(*length as u64).expect("room for a test's buffers");
            initial.iter().for_each(|bytes| memory.write(address, bytes).expect("just allocated"));
            address
        })
        .collect();
    for step in &job.steps {
        let kernel =
            module.module().kernel(&step.kernel).unwrap_or_else(|| panic!("there is no kernel {}", step.kernel));
        assert_eq!(kernel.parameters.len(), step.args.len(), "{}: number of arguments", step.kernel);
        let length = kernel.parameters.iter().map(|p| p.offset + p.bytes).max().unwrap_or(0);
        let mut parameters = vec![0; length as usize];
        for (parameter, arg) in kernel.parameters.iter().zip(&step.args) {
            let bytes = match arg {
                Arg::Pointer(buffer) => addresses[buffer.0].to_le_bytes().to_vec(),
                Arg::Value(bytes) => bytes.clone(),
            };
            assert_eq!(parameter.bytes as usize, bytes.len(), "{}: size of an argument", step.kernel);
            parameters[parameter.offset as usize..][..bytes.len()].copy_from_slice(&bytes);
        }
        let launch = Launch {
            kernel,
            grid: step.grid,
            block: step.block,
            dynamic_shared: step.shared,
            parameters: &parameters,
            cooperative: step.cooperative,
        };
        let report = run(module, &launch, memory, settings);
        let failed = report.fault.is_some();
        outcome.reports.push(report);
        if failed {
            break;
        }
    }
    for ((length, _), address) in job.buffers.iter().zip(addresses) {
        let mut bytes = vec![0; *length];
        memory.read(address, &mut bytes).expect("a buffer of the job");
        outcome.buffers.push(bytes);
        memory.free(address).expect("a buffer of the job");
    }
    outcome
}

/// Loads PTX through cudarc into the stand-in driver and runs a job there, in a context of its own: a launch that fails
/// spoils the context that it ran in.
pub fn run_through_standin(ptx: &str, settings: &Settings, job: &Job) -> Outcome {
    // One at a time, so that the context is gone before the next one asks for it.
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(|e| e.into_inner());
    let standin = standin::open(settings).expect("cargo leaves the stand-in beside the tests");
    standin.take_reports();
    let run = || -> Result<Outcome, DriverError> {
        let context = CudaContext::new(0)?;
        let module = context.load_module(ptx.into())?;
        Ok(run_on_driver(&module, &context, job))
    };
    let mut outcome = run().unwrap_or_else(|error| Outcome { error: Some(describe(&error)), ..Outcome::default() });
    outcome.reports = standin.take_reports();
    outcome
}

fn run_on_driver(module: &Arc<CudaModule>, context: &Arc<CudaContext>, job: &Job) -> Outcome {
    let mut outcome = Outcome::default();
    if let Err(error) = drive(module, context, job, &mut outcome) {
        outcome.error = Some(describe(&error));
    }
    outcome
}

/// The job as a host program would write it.
fn drive(
    module: &Arc<CudaModule>,
    context: &Arc<CudaContext>,
    job: &Job,
    outcome: &mut Outcome,
) -> Result<(), DriverError> {
    let stream = context.default_stream();
    for (name, bytes) in &job.variables {
        let mut variable = module.get_global(name, &stream)?;
        stream.memcpy_htod(bytes, &mut variable)?;
    }
    let mut buffers: Vec<CudaSlice<u8>> = Vec::new();
    for (length, initial) in &job.buffers {
        buffers.push(match initial {
            Some(bytes) => stream.clone_htod(bytes)?,
            // SAFETY: bytes have no invalid values; what reads them before they are written is what is tested.
            None => unsafe { stream.alloc(*length)? },
        });
    }
    for step in &job.steps {
        let function: CudaFunction = module.load_function(&step.kernel)?;
        if step.shared > 48 << 10 {
            use cudarc::driver::sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            function.set_attribute(CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, step.shared as i32)?;
        }
        // The driver reads as many bytes of an argument as the parameter has: a structure lies in several words.
        let words: Vec<Vec<u64>> = (step.args.iter())
            .map(|arg| match arg {
                Arg::Pointer(_) => Vec::new(),
                Arg::Value(bytes) => bytes
                    .chunks(8)
                    .map(|chunk| {
                        let mut word = [0; 8];
                        word[..chunk.len()].copy_from_slice(chunk);
                        u64::from_le_bytes(word)
                    })
                    .collect(),
            })
            .collect();
        let mut launch = stream.launch_builder(&function);
        for (arg, words) in step.args.iter().zip(&words) {
            match arg {
                Arg::Pointer(buffer) => launch.arg(&buffers[buffer.0]),
                Arg::Value(_) => launch.arg(&words[0]),
            };
        }
        let [gx, gy, gz] = step.grid;
        let [bx, by, bz] = step.block;
        let config = LaunchConfig { grid_dim: (gx, gy, gz), block_dim: (bx, by, bz), shared_mem_bytes: step.shared };
        // SAFETY: the arguments are those that the test wrote for this kernel.
        unsafe {
            if step.cooperative {
                launch.launch_cooperative(config)?
            } else {
                launch.launch(config)?
            };
        }
        stream.synchronize()?;
    }
    for buffer in &buffers {
        outcome.buffers.push(stream.clone_dtoh(buffer)?);
    }
    Ok(())
}

fn describe(error: &DriverError) -> String {
    let text = error.error_string().map(|text| text.to_string_lossy().into_owned());
    text.unwrap_or_else(|_| error.to_string())
}
