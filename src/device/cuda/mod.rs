//! The CUDA engine: the stages of the network as hand-written kernels, compiled for the card and the model's shape when they
//! are first needed.
//!
//! The driver and NVRTC are opened at run time. Kernels need no CUDA header: NVRTC alone compiles them.

pub mod attention;
pub mod embed;
pub mod general;
pub mod head;
pub mod kernel;
pub mod mlp;
pub mod rollout;
pub mod update;
pub mod weights;
pub mod working;

use crate::ensure;
use crate::error::{Error, Kind, Result};
use cudarc::driver::sys::CUdevice_attribute as Attribute;
use cudarc::driver::sys::CUfunction_attribute as FunctionAttribute;
use cudarc::driver::{CudaContext, CudaFunction, CudaModule, CudaSlice, CudaStream, DevicePtr, DriverError};
use cudarc::nvrtc::{CompileError, CompileOptions, Ptx, compile_ptx_with_opts};
use kernel::{Kernel, Pointer, Source};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

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
        d_model == 8 * n_head && d_model.is_multiple_of(32) && d_model <= 128 && n_time <= 256 && n_level <= 256
    }
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
    /// Compute capability, as in `compute_90`.
    architecture: u32,
    /// Bytes of shared memory that a block may ask for.
    shared_limit: u32,
    /// Streaming multiprocessors.
    multiprocessors: u32,
    modules: HashMap<(&'static str, Shape), Module>,
}

struct Module {
    module: Arc<CudaModule>,
    functions: HashMap<&'static str, CudaFunction>,
}

/// What went wrong, in the driver's words.
fn failed(doing: &str, error: DriverError) -> Error {
    Error::new(Kind::DeviceUnavailable, format!("CUDA cannot {doing}: {error}"))
}

impl Gpu {
    /// Opens a GPU by its number.
    pub fn open(ordinal: usize) -> Result<Self> {
        let unavailable = |error| failed(&format!("open device {ordinal}"), error);
        let context = CudaContext::new(ordinal).map_err(unavailable)?;
        let (major, minor) = context.compute_capability().map_err(unavailable)?;
        ensure!(
            (major, minor) >= (8, 0),
            Kind::DeviceUnavailable,
            "the GPU has compute capability {major}.{minor}, and kernels need at least 8.0"
        );
        let attribute = |attribute| context.attribute(attribute).map(|value| value as u32).map_err(unavailable);
        Ok(Self {
            architecture: (10 * major + minor) as u32,
            shared_limit: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?,
            multiprocessors: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
            stream: context.default_stream(),
            modules: HashMap::new(),
        })
    }

    /// The stream that everything runs on.
    pub fn stream(&self) -> &Arc<CudaStream> {
        &self.stream
    }

    /// Streaming multiprocessors.
    pub fn multiprocessors(&self) -> u32 {
        self.multiprocessors
    }

    /// Memory of `len` elements, all zero.
    pub fn zeros<T: cudarc::driver::DeviceRepr + cudarc::driver::ValidAsZeroBits>(
        &self,
        len: usize,
    ) -> Result<CudaSlice<T>> {
        self.stream.alloc_zeros(len).map_err(|error| failed(&format!("allocate {len} elements"), error))
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
        let function = self.function(K::SOURCE, shape, K::NAME)?;
        let doing = format!("launch {} for {shape:?}", K::NAME);
        // More than 48 KiB, what the kernel itself declares included, must be asked for.
        let own = function.shared_size_bytes().map_err(|error| failed(&doing, error))?;
        if grid.shared_bytes + own as u32 > 48 << 10 {
            let attribute = FunctionAttribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            function.set_attribute(attribute, grid.shared_bytes as i32).map_err(|error| failed(&doing, error))?;
        }
        let mut arguments: Vec<_> = kernel.arguments().iter().map(|argument| argument.0.cast_mut()).collect();
        // SAFETY: the arguments have the kernel's types, for the struct was made from its signature; their pointers are the
        // caller's promise.
        unsafe {
            cudarc::driver::result::launch_kernel(
                function.cu_function(),
                (grid.blocks.0, grid.blocks.1, 1),
                (grid.threads, 1, 1),
                grid.shared_bytes,
                stream.cu_stream(),
                &mut arguments,
            )
        }
        .map_err(|error| failed(&doing, error))
    }

    /// A number that a source computes from its shape, such as the shared memory that its kernels need.
    pub fn constant(&mut self, source: &'static Source, shape: &Shape, name: &str) -> Result<u32> {
        let stream = self.stream.clone();
        let module = self.module(source, shape)?.module.clone();
        let doing = format!("read {name} of {}", source.name);
        let bytes = module.get_global(name, &stream).map_err(|error| failed(&doing, error))?;
        let mut value = [0u8; 4];
        stream.memcpy_dtoh(&bytes, &mut value).map_err(|error| failed(&doing, error))?;
        stream.synchronize().map_err(|error| failed(&doing, error))?;
        Ok(u32::from_le_bytes(value))
    }

    fn function(&mut self, source: &'static Source, shape: &Shape, name: &'static str) -> Result<&CudaFunction> {
        let module = self.module(source, shape)?;
        if !module.functions.contains_key(name) {
            let function = module.module.load_function(name).map_err(|error| failed(&format!("find {name}"), error))?;
            module.functions.insert(name, function);
        }
        Ok(&module.functions[name])
    }

    fn module(&mut self, source: &'static Source, shape: &Shape) -> Result<&mut Module> {
        let key = (source.name, *shape);
        if !self.modules.contains_key(&key) {
            let ptx = compile(source, shape, &self.architecture.to_string(), self.shared_limit)?;
            let module = self.stream.context().load_module(ptx);
            let module = module.map_err(|error| failed(&format!("load {}", source.name), error))?;
            self.modules.insert(key, Module { module, functions: HashMap::new() });
        }
        Ok(self.modules.get_mut(&key).expect("inserted above"))
    }
}

/// What kernels are compiled to, by source, shape, architecture and shared memory.
type Compiled = HashMap<(u128, Shape, String, u32), Ptx>;

/// Compiles a source for an architecture (`80`, `90a`) whose blocks may have `shared_limit` bytes of shared memory; once in a
/// process.
pub fn compile(source: &Source, shape: &Shape, architecture: &str, shared_limit: u32) -> Result<Ptx> {
    static COMPILED: OnceLock<Mutex<Compiled>> = OnceLock::new();
    let compiled = || COMPILED.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
    let key = (source.hash, *shape, architecture.to_owned(), shared_limit);
    if let Some(ptx) = compiled().get(&key) {
        return Ok(ptx.clone());
    }
    let ptx = compile_anew(source, shape, architecture, shared_limit)?;
    compiled().insert(key, ptx.clone());
    Ok(ptx)
}

fn compile_anew(source: &Source, shape: &Shape, architecture: &str, shared_limit: u32) -> Result<Ptx> {
    let options = vec![
        format!("--gpu-architecture=compute_{architecture}"),
        "--std=c++17".to_owned(),
        "-lineinfo".to_owned(),
        "-default-device".to_owned(),
        format!("-DD_MODEL={}", shape.d_model),
        format!("-DN_HEAD={}", shape.n_head),
        format!("-DN_TIME={}", shape.n_time),
        format!("-DN_LEVEL={}", shape.n_level),
        format!("-DSHARED_LIMIT={shared_limit}"),
        format!("-DGRAD_SLOTS={GRAD_SLOTS}"),
    ];
    let options = CompileOptions { name: Some(source.name.to_owned()), options, ..Default::default() };
    compile_ptx_with_opts(source.text, options).map_err(|error| {
        let log = match &error {
            CompileError::CompileError { log, .. } => log.to_string_lossy().into_owned(),
            other => format!("{other:?}"),
        };
        Error::new(Kind::Internal, format!("NVRTC refuses {} for {shape:?}: {log}", source.name))
    })
}
