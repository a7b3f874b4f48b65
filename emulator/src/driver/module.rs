//! Modules and functions: PTX that was loaded, kernels that were asked for, and what a launch of them may ask for.

use std::ffi::{CStr, c_void};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::error::{Failure, Outcome, Status, fail, invalid};
use super::handle::Serial;
use super::occupancy;
use super::state::Driver;
use crate::decode::{Kernel, Module};
use crate::machine::{self, Launch, LaunchReport, LoadedModule};
use crate::memory::GlobalMemory;
use crate::settings::Settings;
use crate::target::{self, Target};

/// A module in a context. Its variables' memory goes when the last launch of its kernels has run, for a program may
/// drop the module while they wait.
#[derive(Debug)]
pub struct LoadedImage {
    /// The context that it belongs to.
    pub context: Serial,
    /// What was loaded.
    pub resident: Arc<Resident>,
}

/// A module whose variables are in the device's memory.
#[derive(Debug)]
pub struct Resident {
    /// The module.
    pub module: LoadedModule,
    memory: Arc<GlobalMemory>,
    /// What it was loaded for.
    pub target: Target,
    /// `.version`, as major times ten plus minor.
    pub ptx_version: u32,
}

impl Drop for Resident {
    fn drop(&mut self) {
        self.module.unload(&self.memory);
    }
}

/// A kernel that was asked for.
#[derive(Debug)]
pub struct Function {
    /// The context that it belongs to.
    pub context: Serial,
    /// The module that it came from, so that asking twice gives one handle.
    pub module: Serial,
    /// Its name.
    pub name: String,
    /// Its module.
    pub resident: Arc<Resident>,
    /// Bytes of dynamic shared memory that a launch may ask for.
    pub dynamic_shared_limit: AtomicU32,
    /// Preferred share of shared memory in percent, -1 for none; it changes nothing here.
    pub carveout: i32,
}

/// A launch with all that it needs.
#[derive(Debug)]
pub struct KernelLaunch {
    resident: Arc<Resident>,
    name: String,
    grid: [u32; 3],
    block: [u32; 3],
    dynamic_shared: u32,
    parameters: Vec<u8>,
    cooperative: bool,
}

/// The shape of a launch, as it comes from a call.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Blocks.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub block: [u32; 3],
    /// Bytes of dynamic shared memory.
    pub dynamic_shared: u32,
    /// All blocks must be resident together.
    pub cooperative: bool,
}

impl KernelLaunch {
    /// Threads of all blocks.
    pub fn threads(&self) -> u64 {
        self.grid.iter().chain(&self.block).map(|&extent| u64::from(extent)).product()
    }

    /// The kernel's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs it.
    pub fn run(&self, memory: &GlobalMemory, settings: &Settings) -> LaunchReport {
        let kernel = self.resident.kernel(&self.name);
        let launch = Launch {
            kernel,
            grid: self.grid,
            block: self.block,
            dynamic_shared: self.dynamic_shared,
            parameters: &self.parameters,
            cooperative: self.cooperative,
        };
        machine::run(&self.resident.module, &launch, memory, settings)
    }
}

impl Resident {
    /// A kernel that is known to be in the module.
    fn kernel(&self, name: &str) -> &Kernel {
        self.module.module().kernel(name).expect("functions are made of kernels that were found")
    }
}

impl Function {
    /// Its kernel.
    pub fn kernel(&self) -> &Kernel {
        self.resident.kernel(&self.name)
    }

    /// Threads that a block may have.
    pub fn max_threads(&self) -> u32 {
        let bound = |extents: [u32; 3]| extents.iter().product::<u32>();
        let kernel = self.kernel();
        let own = kernel.max_threads.or(kernel.required_threads).map_or(u32::MAX, bound);
        own.min(target::THREADS_PER_BLOCK)
    }

    /// Checks shape and shared memory of a launch.
    ///
    /// # Errors
    /// More than the architecture has, or than the kernel was compiled for.
    fn check_shape(&self, shape: &Shape) -> Outcome<()> {
        let Shape { grid, block, dynamic_shared, cooperative } = *shape;
        let name = &self.name;
        if grid.contains(&0) || block.contains(&0) {
            return invalid(format!("{name}: grid {grid:?}, block {block:?}: an extent is 0"));
        }
        let larger = |extents: [u32; 3], limits: [u32; 3]| extents.iter().zip(limits).any(|(e, limit)| *e > limit);
        if larger(grid, target::GRID_EXTENTS) {
            return invalid(format!("{name}: grid {grid:?} exceeds {:?}", target::GRID_EXTENTS));
        }
        let threads = block.iter().map(|&extent| u64::from(extent)).product::<u64>();
        if larger(block, target::BLOCK_EXTENTS) || threads > u64::from(target::THREADS_PER_BLOCK) {
            let (extents, most) = (target::BLOCK_EXTENTS, target::THREADS_PER_BLOCK);
            return invalid(format!("{name}: block {block:?} exceeds {extents:?}, or {most} threads in all"));
        }
        let kernel = self.kernel();
        if let Some(required) = kernel.required_threads
            && required != block
        {
            return invalid(format!("{name}: block {block:?}, but the kernel requires {required:?}"));
        }
        if threads > u64::from(self.max_threads()) {
            let text =
                format!("{name}: {threads} threads in a block, but the kernel's bounds admit {}", self.max_threads());
            return fail(Status::LAUNCH_OUT_OF_RESOURCES, text);
        }
        let limit = self.dynamic_shared_limit.load(Ordering::Relaxed);
        if dynamic_shared > limit {
            let most = self.resident.target.limits().shared_per_block_optin.saturating_sub(kernel.static_shared);
            return invalid(format!(
                "{name}: {dynamic_shared} bytes of dynamic shared memory, but {limit} are allowed (up to {most} on {} \
                 with CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES)",
                self.resident.target
            ));
        }
        if cooperative {
            let blocks: u64 = grid.iter().map(|&extent| u64::from(extent)).product();
            let limits = self.resident.target.limits();
            let resident = occupancy::blocks_per_multiprocessor(self, threads as u32, dynamic_shared);
            let most = u64::from(resident) * u64::from(limits.multiprocessors);
            if blocks > most {
                let text = format!("{name}: a cooperative launch of {blocks} blocks, but {most} can be resident");
                return fail(Status::COOPERATIVE_LAUNCH_TOO_LARGE, text);
            }
        }
        Ok(())
    }

    /// A launch, with its parameters copied from where the caller keeps them.
    ///
    /// # Safety
    /// `pointers` is null or holds one readable pointer for each of the kernel's parameters; `extra` is null or a list as
    /// `cuLaunchKernel` describes it.
    ///
    /// # Errors
    /// As [`Function::check_shape`]; parameters missing.
    pub unsafe fn prepare(
        &self,
        shape: Shape,
        pointers: *mut *mut c_void,
        extra: *mut *mut c_void,
    ) -> Outcome<KernelLaunch> {
        self.check_shape(&shape)?;
        let kernel = self.kernel();
        let length = kernel.parameters.iter().map(|p| p.offset + p.bytes).max().unwrap_or(0) as usize;
        let mut parameters = vec![0; length];
        if !extra.is_null() {
            // SAFETY: by the caller's promise.
            let given = unsafe { packed_parameters(extra) }?;
            if given.len() < length {
                return invalid(format!("{}: {} bytes of parameters, {length} are needed", self.name, given.len()));
            }
            parameters.copy_from_slice(&given[..length]);
        } else if pointers.is_null() && length > 0 {
            return invalid(format!("{}: no parameters, {} are needed", self.name, kernel.parameters.len()));
        } else {
            for (index, parameter) in kernel.parameters.iter().enumerate() {
                // SAFETY: the caller promises a pointer for each parameter.
                let pointer = unsafe { pointers.add(index).read() };
                if pointer.is_null() {
                    return invalid(format!("{}: the pointer to parameter {index} is null", self.name));
                }
                let to = &mut parameters[parameter.offset as usize..][..parameter.bytes as usize];
                // SAFETY: the caller promises that the parameter is readable there.
                unsafe { to.as_mut_ptr().copy_from(pointer.cast(), to.len()) };
            }
        }
        let Shape { grid, block, dynamic_shared, cooperative } = shape;
        let (resident, name) = (self.resident.clone(), self.name.clone());
        Ok(KernelLaunch { resident, name, grid, block, dynamic_shared, parameters, cooperative })
    }
}

/// Parameters in one buffer: `CU_LAUNCH_PARAM_BUFFER_POINTER` (1) and `_SIZE` (2), ended by `CU_LAUNCH_PARAM_END` (0).
///
/// # Safety
/// `extra` is such a list, and its buffer is readable.
unsafe fn packed_parameters<'a>(extra: *mut *mut c_void) -> Outcome<&'a [u8]> {
    let (mut buffer, mut size) = (std::ptr::null::<u8>(), None);
    let mut at = extra;
    loop {
        // SAFETY: the list has not ended yet.
        let key = unsafe { at.read() }.addr();
        if key == 0 {
            break;
        }
        // SAFETY: a key is followed by its value.
        let value = unsafe { at.add(1).read() };
        match key {
            1 => buffer = value.cast(),
            // SAFETY: the value of this key points to the size.
            2 => size = Some(unsafe { value.cast::<usize>().read() }),
            other => return invalid(format!("{other:#x} is no key of the launch's extra list")),
        }
        // SAFETY: after a pair, the list goes on.
        at = unsafe { at.add(2) };
    }
    match size {
        Some(size) if !buffer.is_null() => {
            // SAFETY: the caller's buffer is that long.
            Ok(unsafe { std::slice::from_raw_parts(buffer, size) })
        }
        _ => invalid("the launch's extra list lacks buffer or size"),
    }
}

/// The text of a module image, or why it is none.
///
/// # Safety
/// `image` points to a cubin, a fatbin, or text that ends in NUL.
pub unsafe fn ptx_of_image<'a>(image: *const c_void) -> Outcome<&'a str> {
    if image.is_null() {
        return invalid("the image is null");
    }
    let bytes: *const u8 = image.cast();
    let mut start = Vec::new();
    // Byte by byte, for a text may be shorter than a magic number.
    while start.len() < 4 {
        // SAFETY: neither a magic number nor the text's NUL has been passed yet.
        let byte = unsafe { bytes.add(start.len()).read() };
        start.push(byte);
        if byte == 0 {
            break;
        }
    }
    let kind = match start.as_slice() {
        [0x7F, b'E', b'L', b'F'] => "a cubin",
        [0x50, 0xED, 0x55, 0xBA] => "a fatbin",
        _ => {
            // SAFETY: it is text, which ends in NUL by the caller's promise.
            let text = unsafe { CStr::from_ptr(bytes.cast()) };
            return text.to_str().or_else(|_| fail(Status::INVALID_IMAGE, "the image is neither PTX nor a binary"));
        }
    };
    fail(
        Status::NO_BINARY_FOR_GPU,
        format!(
            "the image is {kind}: machine code, which this stand-in cannot run. Load PTX (NVRTC: --gpu-architecture=compute_80)"
        ),
    )
}

/// Major times ten plus minor of a text's `.version`; 0 when it has none.
fn ptx_version(ptx: &str) -> u32 {
    let version = ptx.lines().find_map(|line| line.trim_start().strip_prefix(".version"));
    let number = version.and_then(|version| version.trim().parse::<f64>().ok()).unwrap_or(0.0);
    (number * 10.0).round() as u32
}

impl Driver {
    /// Loads PTX into the current context.
    ///
    /// # Errors
    /// The PTX is refused, with its line; its variables do not fit the memory.
    pub fn load_ptx(&mut self, ptx: &str) -> Outcome<Serial> {
        let context = self.current()?;
        let target = self.origin().settings.target;
        let module = Module::load(ptx, target)
            .map_err(|error| Failure { status: Status::INVALID_PTX, text: error.to_string() })?;
        let memory = self.memory()?;
        let Some(module) = LoadedModule::new(Arc::new(module), &memory) else {
            return fail(Status::OUT_OF_MEMORY, "the module's variables do not fit the device's memory");
        };
        let resident = Arc::new(Resident { module, memory, target, ptx_version: ptx_version(ptx) });
        Ok(self.modules.insert(LoadedImage { context, resident }))
    }

    /// The function of a name.
    ///
    /// # Errors
    /// The module has none; the names that it has are told.
    pub fn function_of(&mut self, module: *mut c_void, name: &str) -> Outcome<Serial> {
        let module = self.modules.serial(module)?;
        let known = self.functions.iter().find(|(_, f)| f.module == module && f.name == name);
        if let Some((serial, _)) = known {
            return Ok(serial);
        }
        let Some(LoadedImage { context, resident }) = self.modules.find(module) else {
            return invalid("no such module");
        };
        let Some(kernel) = resident.module.module().kernel(name) else {
            let names: Vec<&str> = resident.module.module().kernels().iter().map(|k| k.name.as_str()).collect();
            let text = format!("the module has no kernel {name}; it has: {}", names.join(", "));
            return fail(Status::NOT_FOUND, text);
        };
        let limit = target::SHARED_PER_BLOCK.saturating_sub(kernel.static_shared);
        let function = Function {
            context: *context,
            module,
            name: name.to_owned(),
            resident: resident.clone(),
            dynamic_shared_limit: AtomicU32::new(limit),
            carveout: -1,
        };
        Ok(self.functions.insert(function))
    }

    /// Forgets a module and its functions; launches that wait still run.
    ///
    /// # Errors
    /// Not a live module.
    pub fn unload(&mut self, module: *mut c_void) -> Outcome<()> {
        let serial = self.modules.serial(module)?;
        self.modules.remove(serial);
        self.functions.retain(|function| function.module != serial);
        Ok(())
    }
}
