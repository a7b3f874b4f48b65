//! The CUDA engine: the stages of the network as hand-written kernels, compiled for the card and the model's shape when they
//! are first needed.
//!
//! The driver and NVRTC are opened at run time. Kernels need no CUDA header: NVRTC alone compiles them.

pub mod attention;
mod cache;
mod compiler;
mod copies;
mod device;
mod either;
pub mod embed;
#[cfg(feature = "emulated")]
pub mod emulated;
mod failure;
pub mod general;
mod graph;
pub mod head;
pub mod kernel;
mod memory;
pub mod mlp;
pub mod nvrtc;
mod resolve;
pub mod rollout;
mod scratch;
mod staging;
mod timing;
mod trial;
pub mod update;
pub mod weights;
pub mod working;

use crate::error::{Error, Result};
use compiler::{Compiler, Target};
use cudarc::driver::sys::{self, CUdevice_attribute as Attribute, CUfunction_attribute as FunctionAttribute};
use cudarc::driver::{CudaContext, CudaFunction, CudaModule, CudaSlice, CudaStream, DevicePtr, DriverError};
use cudarc::nvrtc::Ptx;
use failure::failed;
use graph::Launches;
use kernel::{Kernel, Pointer, SOURCES, Source};
use nvrtc::{Code, Nvrtc};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::PathBuf;
use std::sync::Arc;

pub use device::{Cuda, MAX_SEQUENCES, Watch};

/// Copies of the parameters in a gradient buffer. A constant: the sums, and with them the bits of a run, must not depend on the
/// machine. As many as give every multiprocessor of a large card work, when the gradients of weights are cut into rows of 32.
pub const GRAD_SLOTS: usize = 44;

/// The part of a step that one call works on, and how its gradients are laid out.
#[derive(Debug, Clone, Copy)]
pub struct Part {
    /// Sequences of the call (N).
    pub n: usize,
    /// Index within the step of the first one: chooses its gradient slot.
    pub first: usize,
    /// First timestep whose output anybody needs.
    pub from: usize,
    /// Slots of the gradients, at most [`GRAD_SLOTS`].
    pub slots: usize,
    /// Floats from slot to slot.
    pub slot_len: usize,
}

/// What kernels are specialised for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shape {
    /// Width of the residual stream (E).
    pub d_model: usize,
    /// Attention heads (H).
    pub n_head: usize,
    /// Timesteps of a sequence (T).
    pub n_time: usize,
    /// Levels of the quantiser (Q).
    pub n_level: usize,
}

impl Shape {
    /// Whether the fused kernels know this shape: heads of eight, and keys and values that stay in registers.
    pub fn is_fused(&self) -> bool {
        let Self { d_model, n_head, n_time, n_level } = *self;
        d_model == 8 * n_head
            && d_model.is_multiple_of(32)
            && d_model <= 128
            && n_time <= Self::MOST_FUSED
            && n_level <= 256
    }
}

impl Shape {
    /// Timesteps that the fused kernels take.
    const MOST_FUSED: usize = 256;

    /// Stands for all shapes that share working copies, so that these are compiled once: copies know timesteps only in so far as
    /// these decide which kernels take them.
    fn of_copies(&self) -> Self {
        Self { n_time: if self.n_time <= Self::MOST_FUSED { 1 } else { Self::MOST_FUSED + 1 }, ..*self }
    }
}

/// Whether there is a CUDA driver.
pub fn has_driver() -> bool {
    // SAFETY: looks for the driver's library by its name, and calls nothing of it.
    unsafe { sys::is_culib_present() }
}

/// Opens the GPU of this number as a device.
pub fn open(ordinal: usize) -> Result<Cuda> {
    Ok(Cuda::new(Gpu::open(ordinal)?))
}

/// How a kernel is launched.
#[derive(Debug, Clone, Copy)]
pub struct Grid {
    /// Blocks in x and y.
    pub blocks: (u32, u32),
    /// Threads of a block.
    pub threads: u32,
    /// Bytes of dynamic shared memory of a block.
    pub shared_bytes: u32,
}

impl Grid {
    /// One thread for each of `len` elements, 256 in a block.
    pub fn over(len: usize) -> Self {
        Self { blocks: (len.div_ceil(256) as u32, 1), threads: 256, shared_bytes: 0 }
    }
}

/// A GPU: its stream, and the kernels that have been compiled for it.
pub struct Gpu {
    stream: Arc<CudaStream>,
    /// Bytes of shared memory that a block may ask for.
    shared_limit: u32,
    /// Streaming multiprocessors.
    multiprocessors: u32,
    compiler: Compiler,
    /// The folder of kernels that have been compiled before.
    cache: Option<PathBuf>,
    card: String,
    launches: Launches,
    /// Launches that have been made since they are timed.
    timed: Option<Vec<timing::Timed>>,
    modules: HashMap<(&'static str, Shape), Module>,
}

struct Module {
    module: Arc<CudaModule>,
    functions: HashMap<&'static str, Function>,
    constants: HashMap<&'static str, u32>,
}

struct Function {
    function: CudaFunction,
    /// Bytes of shared memory that the kernel itself declares.
    static_shared: u32,
    /// Bytes of dynamic shared memory that it may be launched with.
    dynamic_shared: u32,
}

impl Gpu {
    /// Opens a GPU by its number, and the compiler.
    pub fn open(ordinal: usize) -> Result<Self> {
        // Asked first because every other call of cudarc panics without.
        if !has_driver() {
            return Err(failure::no_driver());
        }
        let unavailable = |error| failed(&format!("open device {ordinal}"), error);
        let mut number = 0;
        // SAFETY: writes one number, and may be called before anything else.
        unsafe { sys::cuDriverGetVersion(&mut number) }.result().map_err(unavailable)?;
        let driver = failure::check_driver(number)?;
        let context = CudaContext::new(ordinal).map_err(unavailable)?;
        let (major, minor) = context.compute_capability().map_err(unavailable)?;
        let card = context.name().map_err(unavailable)?;
        failure::check_card(&card, (major as u32, minor as u32))?;
        let attribute = |attribute| context.attribute(attribute).map(|value| value as u32).map_err(unavailable);
        let shared_limit = attribute(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?;
        let trial = |nvrtc: &Nvrtc, code, architecture| trial::run(&context, shared_limit, nvrtc, code, architecture);
        let compiler = compiler::open(Target { driver, card: (10 * major + minor) as u32 }, &trial)?;
        // SAFETY: everything runs on one stream, in its order, so nobody need wait for events.
        unsafe { context.disable_event_tracking() };
        // The default stream cannot be captured.
        let stream = context.new_stream().map_err(unavailable)?;
        Ok(Self {
            shared_limit,
            multiprocessors: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
            stream,
            compiler,
            cache: cache::folder(),
            card,
            launches: Launches::default(),
            timed: None,
            modules: HashMap::new(),
        })
    }

    /// The driver's name of the card.
    pub fn card(&self) -> &str {
        &self.card
    }

    /// What made its kernels, of which sources.
    pub fn made_by(&self) -> String {
        let kernels = SOURCES.iter().fold(0, |all: u128, source| all.rotate_left(1) ^ source.hash);
        format!("{}, kernels {:08x}", self.compiler, (kernels ^ (kernels >> 64)) as u32)
    }

    /// The stream that everything runs on.
    pub fn stream(&self) -> &Arc<CudaStream> {
        &self.stream
    }

    /// Streaming multiprocessors.
    pub fn multiprocessors(&self) -> u32 {
        self.multiprocessors
    }

    /// Uses so many multiprocessors and no more. That changes how work is spread, but no result.
    pub fn limit_multiprocessors(&mut self, most: u32) {
        self.multiprocessors = self.multiprocessors.min(most.max(1));
    }

    /// Bytes of memory that are free.
    pub fn free_memory(&self) -> Result<usize> {
        let asked = self.stream.context().mem_get_info();
        asked.map(|(free, _)| free).map_err(|error| failed("tell how much memory is free", error))
    }

    /// Memory of `len` elements, all zero.
    pub fn zeros<T: cudarc::driver::DeviceRepr + cudarc::driver::ValidAsZeroBits>(
        &self,
        len: usize,
    ) -> Result<CudaSlice<T>> {
        self.outside_step()?;
        let n_byte = len.saturating_mul(size_of::<T>());
        self.stream.alloc_zeros(len).map_err(|error| self.no_room(n_byte, error))
    }

    /// Why memory of `n_byte` bytes could not be had.
    pub(super) fn no_room(&self, n_byte: usize, error: DriverError) -> Error {
        match (error.0, self.stream.context().mem_get_info()) {
            (sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY, Ok(left)) => failure::out_of_memory(n_byte, left),
            _ => failed(&format!("allocate {n_byte} bytes"), error),
        }
    }

    /// Waits until everything asked for is done.
    pub fn sync(&self) -> Result<()> {
        self.stream.synchronize().map_err(|error| failed("finish what it was asked for", error))
    }

    /// The address of a slice, for kernels on this GPU's stream.
    pub fn address<T>(&self, slice: &CudaSlice<T>) -> Pointer<T> {
        Pointer::new(slice.device_ptr(&self.stream).0)
    }

    /// Asks for a launch.
    ///
    /// # Safety
    /// Every pointer among the arguments is of memory on this GPU that lives until the launch has run, and as long as the
    /// kernel's comment says.
    pub unsafe fn launch<K: Kernel>(&mut self, shape: &Shape, kernel: &K, grid: Grid) -> Result<()> {
        let stream = self.stream.clone();
        let doing = || format!("launch {} for {shape:?}", K::NAME);
        // Whichever thread has the device now.
        stream.context().bind_to_thread().map_err(|error| failed(&doing(), error))?;
        let function = self.function(K::SOURCE, shape, K::NAME)?;
        // More than 48 KiB, what the kernel itself declares included, must be asked for.
        if grid.shared_bytes > function.dynamic_shared && grid.shared_bytes + function.static_shared > 48 << 10 {
            let attribute = FunctionAttribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            let set = function.function.set_attribute(attribute, grid.shared_bytes as i32);
            set.map_err(|error| failed(&doing(), error))?;
            function.dynamic_shared = grid.shared_bytes;
        }
        let (function, arguments) = (function.function.cu_function(), kernel.arguments());
        if !self.launches.note(function, &grid, &arguments) {
            return Ok(());
        }
        let begin = self.mark()?;
        let mut arguments: Vec<_> = arguments.iter().map(|argument| argument.at.cast_mut()).collect();
        // SAFETY: the arguments have the kernel's types, for the struct was made from its signature; their pointers are the
        // caller's promise.
        unsafe {
            cudarc::driver::result::launch_kernel(
                function,
                (grid.blocks.0, grid.blocks.1, 1),
                (grid.threads, 1, 1),
                grid.shared_bytes,
                stream.cu_stream(),
                &mut arguments,
            )
        }
        .map_err(|error| failed(&doing(), error))?;
        self.keep(K::NAME, begin)
    }

    /// A number that a source computes from its shape, such as the shared memory that its kernels need. Only the first call
    /// asks the GPU.
    pub fn constant(&mut self, source: &'static Source, shape: &Shape, name: &'static str) -> Result<u32> {
        let stream = self.stream.clone();
        let module = self.module(source, shape)?;
        if let Some(&value) = module.constants.get(name) {
            return Ok(value);
        }
        let doing = format!("read {name} of {}", source.name);
        let bytes = module.module.get_global(name, &stream).map_err(|error| failed(&doing, error))?;
        let mut value = [0u8; 4];
        stream.memcpy_dtoh(&bytes, &mut value).map_err(|error| failed(&doing, error))?;
        stream.synchronize().map_err(|error| failed(&doing, error))?;
        let value = u32::from_le_bytes(value);
        module.constants.insert(name, value);
        Ok(value)
    }

    fn function(&mut self, source: &'static Source, shape: &Shape, name: &'static str) -> Result<&mut Function> {
        let module = self.module(source, shape)?;
        match module.functions.entry(name) {
            Entry::Occupied(entry) => Ok(entry.into_mut()),
            Entry::Vacant(entry) => {
                let unusable = |error| failed(&format!("find {name}"), error);
                let function = module.module.load_function(name).map_err(unusable)?;
                let static_shared = function.shared_size_bytes().map_err(unusable)? as u32;
                Ok(entry.insert(Function { function, static_shared, dynamic_shared: 0 }))
            }
        }
    }

    fn module(&mut self, source: &'static Source, shape: &Shape) -> Result<&mut Module> {
        match self.modules.entry((source.name, *shape)) {
            Entry::Occupied(entry) => Ok(entry.into_mut()),
            Entry::Vacant(entry) => {
                let Compiler { nvrtc, code, architecture, .. } = self.compiler;
                let options = options(shape, code, &architecture.to_string(), self.shared_limit);
                let key = format!("{} {:x}, NVRTC {}, {}", source.name, source.hash, nvrtc.build, options.join(" "));
                let (folder, compile) = (self.cache.as_deref(), || compiled(nvrtc, code, source, &options));
                let load = |made| self.stream.context().load_module(Ptx::from_binary(made));
                let module = match load(cache::cached(folder, &key, compile)?) {
                    Ok(module) => Ok(module),
                    // What an earlier start left may be of no use to this driver.
                    Err(_) => load(cache::anew(folder, &key, compile)?),
                };
                let module = module.map_err(|error| failed(&format!("load {}", source.name), error))?;
                Ok(entry.insert(Module { module, functions: HashMap::new(), constants: HashMap::new() }))
            }
        }
    }
}

/// What a source becomes for an architecture (`80`, `90a`) whose blocks may have `shared_limit` bytes of shared memory: PTX without
/// the NUL at its end, or machine code.
pub fn compile(source: &Source, shape: &Shape, code: Code, architecture: &str, shared_limit: u32) -> Result<Vec<u8>> {
    let mut made = compiled(compiler::any()?, code, source, &options(shape, code, architecture, shared_limit))?;
    if code == Code::Ptx {
        made.pop_if(|last| *last == 0);
    }
    Ok(made)
}

/// The compiler's options.
fn options(shape: &Shape, code: Code, architecture: &str, shared_limit: u32) -> Vec<String> {
    vec![
        code.option(architecture),
        "--std=c++17".to_owned(),
        "-lineinfo".to_owned(),
        "-default-device".to_owned(),
        format!("-DD_MODEL={}", shape.d_model),
        format!("-DN_HEAD={}", shape.n_head),
        format!("-DN_TIME={}", shape.n_time),
        format!("-DN_LEVEL={}", shape.n_level),
        format!("-DSHARED_LIMIT={shared_limit}"),
        format!("-DGRAD_SLOTS={GRAD_SLOTS}"),
    ]
}

fn compiled(nvrtc: &Nvrtc, code: Code, source: &Source, options: &[String]) -> Result<Vec<u8>> {
    nvrtc.compile(code, source.name, source.text, options).map_err(|log| failure::refused(nvrtc, source.name, &log))
}
