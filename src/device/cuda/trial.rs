//! Whether a compiler is of use: a small kernel that takes every way that the engine's kernels take, to the end.

use super::nvrtc::{Code, Nvrtc};
use super::{Shape, options};
use cudarc::driver::sys::CUfunction_attribute as Attribute;
use cudarc::driver::{CudaContext, DriverError, LaunchConfig, PushKernelArg};
use cudarc::nvrtc::Ptx;
use std::sync::Arc;

/// A constant that no kernel asks for and the host reads, shared memory by the launch, and a result.
const TEXT: &str = r#"
extern "C" __constant__ const unsigned trial_bytes = 4 * (D_MODEL + SHARED_LIMIT / 8);
extern __shared__ unsigned words[];
extern "C" __global__ void trial(unsigned* out) {
    words[trial_bytes / 4 - 1 - threadIdx.x] = threadIdx.x;
    __syncthreads();
    out[threadIdx.x] = words[trial_bytes / 4 - 32 + threadIdx.x];
}
"#;

/// What kernels of the trial are specialised for.
const SHAPE: Shape = Shape { d_model: 32, n_head: 4, n_time: 1, n_level: 1 };

/// Tries it on a card whose blocks may have `shared_limit` bytes of shared memory; the reason, if it is of no use.
pub fn run(
    context: &Arc<CudaContext>,
    shared_limit: u32,
    nvrtc: &Nvrtc,
    code: Code,
    architecture: u32,
) -> Result<(), String> {
    let options = options(&SHAPE, code, &architecture.to_string(), shared_limit);
    let made = nvrtc.compile(code, "trial", TEXT, &options)?;
    match launched(context, made) {
        Ok(out) if out.iter().copied().eq((0..32).rev()) => Ok(()),
        Ok(out) => Err(format!("the trial kernel gives {out:?}")),
        Err(error) => Err(error.to_string()),
    }
}

/// What the kernel writes.
fn launched(context: &Arc<CudaContext>, made: Vec<u8>) -> Result<Vec<u32>, DriverError> {
    let module = context.load_module(Ptx::from_binary(made))?;
    let stream = context.new_stream()?;
    let mut bytes = [0u8; 4];
    stream.memcpy_dtoh(&module.get_global("trial_bytes", &stream)?, &mut bytes)?;
    stream.synchronize()?;
    let shared_mem_bytes = u32::from_le_bytes(bytes);
    let function = module.load_function("trial")?;
    function.set_attribute(Attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, shared_mem_bytes as i32)?;
    let mut out = stream.alloc_zeros::<u32>(32)?;
    let config = LaunchConfig { grid_dim: (1, 1, 1), block_dim: (32, 1, 1), shared_mem_bytes };
    // SAFETY: the kernel takes one pointer, to as many numbers as there are threads; its shared memory has the size it says.
    unsafe { stream.launch_builder(&function).arg(&mut out).launch(config) }?;
    let out = stream.clone_dtoh(&out)?;
    stream.synchronize()?;
    Ok(out)
}
