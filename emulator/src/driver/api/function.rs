//! `cuFunc*`, `cuLaunchKernel` and its kin, `cuOccupancy*`.

use std::ffi::{c_int, c_uint, c_void};
use std::sync::Arc;

use super::context::LAST_CACHE_CONFIG;
use super::{Out, call};
use crate::driver::attributes;
use crate::driver::error::{Outcome, Status, fail, invalid};
use crate::driver::module::{Function, Shape};
use crate::driver::occupancy;
use crate::driver::state::Locked;
use crate::driver::work::Work;

#[unsafe(no_mangle)]
extern "C" fn cuFuncGetAttribute(value: Out<c_int>, attribute: c_uint, function: *mut c_void) -> Status {
    call("cuFuncGetAttribute", |driver| value.put(attributes::of_function(driver.functions.get(function)?, attribute)?))
}

#[unsafe(no_mangle)]
extern "C" fn cuFuncSetAttribute(function: *mut c_void, attribute: c_uint, value: c_int) -> Status {
    call("cuFuncSetAttribute", |driver| {
        attributes::set_of_function(driver.functions.get_mut(function)?, attribute, value)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuFuncSetCacheConfig(function: *mut c_void, config: c_uint) -> Status {
    call("cuFuncSetCacheConfig", |driver| {
        driver.functions.get(function)?;
        if config > LAST_CACHE_CONFIG { invalid(format!("{config} is no cache configuration")) } else { Ok(()) }
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuFuncGetModule(module: Out<*mut c_void>, function: *mut c_void) -> Status {
    call("cuFuncGetModule", |driver| {
        let serial = driver.functions.get(function)?.module;
        module.put(driver.modules.handle(serial))
    })
}

/// Checks a launch, copies its parameters, and submits it.
///
/// # Safety
/// As [`Function::prepare`].
unsafe fn launch(
    driver: &mut Locked,
    function: *mut c_void,
    shape: Shape,
    stream: *mut c_void,
    parameters: *mut *mut c_void,
    extra: *mut *mut c_void,
) -> Outcome<()> {
    let stream = driver.stream(stream)?;
    let function = driver.functions.get(function)?;
    if function.context != driver.context_of(stream) {
        return fail(Status::INVALID_HANDLE, format!("{} and its stream belong to different contexts", function.name));
    }
    // SAFETY: by the caller's promise.
    let launch = unsafe { function.prepare(shape, parameters, extra) }?;
    driver.submit(stream, Work::Kernel(Arc::new(launch)))
}

#[unsafe(no_mangle)]
extern "C" fn cuLaunchKernel(
    function: *mut c_void,
    grid_x: c_uint,
    grid_y: c_uint,
    grid_z: c_uint,
    block_x: c_uint,
    block_y: c_uint,
    block_z: c_uint,
    dynamic_shared: c_uint,
    stream: *mut c_void,
    parameters: *mut *mut c_void,
    extra: *mut *mut c_void,
) -> Status {
    call("cuLaunchKernel", |driver| {
        let (grid, block) = ([grid_x, grid_y, grid_z], [block_x, block_y, block_z]);
        let shape = Shape { grid, block, dynamic_shared, cooperative: false };
        // SAFETY: the interface wants the kernel's parameters there.
        unsafe { launch(driver, function, shape, stream, parameters, extra) }
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuLaunchCooperativeKernel(
    function: *mut c_void,
    grid_x: c_uint,
    grid_y: c_uint,
    grid_z: c_uint,
    block_x: c_uint,
    block_y: c_uint,
    block_z: c_uint,
    dynamic_shared: c_uint,
    stream: *mut c_void,
    parameters: *mut *mut c_void,
) -> Status {
    call("cuLaunchCooperativeKernel", |driver| {
        let (grid, block) = ([grid_x, grid_y, grid_z], [block_x, block_y, block_z]);
        let shape = Shape { grid, block, dynamic_shared, cooperative: true };
        // SAFETY: the interface wants the kernel's parameters there.
        unsafe { launch(driver, function, shape, stream, parameters, std::ptr::null_mut()) }
    })
}

/// `CUlaunchConfig`.
#[repr(C)]
struct LaunchConfig {
    grid: [c_uint; 3],
    block: [c_uint; 3],
    dynamic_shared: c_uint,
    stream: *mut c_void,
    attributes: *const LaunchAttribute,
    attribute_count: c_uint,
}

/// `CUlaunchAttribute`: a number, and a value of 64 bytes that begins 8 bytes on.
#[repr(C)]
struct LaunchAttribute {
    id: c_uint,
    padding: c_uint,
    value: [c_int; 16],
}

/// Attributes of a launch that it can have here: none, cooperative, priority.
const IGNORED: c_uint = 0;
const COOPERATIVE: c_uint = 2;
const PRIORITY: c_uint = 8;

#[unsafe(no_mangle)]
extern "C" fn cuLaunchKernelEx(
    config: *const LaunchConfig,
    function: *mut c_void,
    parameters: *mut *mut c_void,
    extra: *mut *mut c_void,
) -> Status {
    call("cuLaunchKernelEx", |driver| {
        // SAFETY: null, or what the interface wants there.
        let Some(config) = (unsafe { config.as_ref() }) else { return invalid("the configuration is null") };
        let mut shape =
            Shape { grid: config.grid, block: config.block, dynamic_shared: config.dynamic_shared, cooperative: false };
        for index in 0..config.attribute_count as usize {
            // SAFETY: the interface wants so many attributes there.
            let attribute = unsafe { &*config.attributes.add(index) };
            match attribute.id {
                IGNORED | PRIORITY => {}
                COOPERATIVE => shape.cooperative = attribute.value[0] != 0,
                other => return fail(Status::NOT_SUPPORTED, format!("attribute {other} of a launch is not supported")),
            }
        }
        // SAFETY: the interface wants the kernel's parameters there.
        unsafe { launch(driver, function, shape, config.stream, parameters, extra) }
    })
}

/// Sizes come as `int` or `size_t`; what no block can have is as good as the largest number.
fn clamp<T: TryInto<u32>>(size: T) -> u32 {
    size.try_into().unwrap_or(u32::MAX)
}

fn positive(size: c_int, what: &str) -> Outcome<u32> {
    match u32::try_from(size) {
        Ok(size) if size > 0 => Ok(size),
        _ => invalid(format!("{what} is {size}")),
    }
}

fn max_active(count: &Out<c_int>, function: &Function, threads: c_int, dynamic_shared: usize) -> Outcome<()> {
    let threads = positive(threads, "the block size")?;
    count.put(occupancy::blocks_per_multiprocessor(function, threads, clamp(dynamic_shared)) as c_int)
}

#[unsafe(no_mangle)]
extern "C" fn cuOccupancyMaxActiveBlocksPerMultiprocessor(
    count: Out<c_int>,
    function: *mut c_void,
    threads: c_int,
    dynamic_shared: usize,
) -> Status {
    call("cuOccupancyMaxActiveBlocksPerMultiprocessor", |driver| {
        max_active(&count, driver.functions.get(function)?, threads, dynamic_shared)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(
    count: Out<c_int>,
    function: *mut c_void,
    threads: c_int,
    dynamic_shared: usize,
    flags: c_uint,
) -> Status {
    call("cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags", |driver| {
        if flags > 1 {
            return invalid(format!("{flags:#x} are no flags of occupancy"));
        }
        max_active(&count, driver.functions.get(function)?, threads, dynamic_shared)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuOccupancyAvailableDynamicSMemPerBlock(
    bytes: Out<usize>,
    function: *mut c_void,
    blocks: c_int,
    threads: c_int,
) -> Status {
    call("cuOccupancyAvailableDynamicSMemPerBlock", |driver| {
        let (blocks, threads) = (positive(blocks, "the number of blocks")?, positive(threads, "the block size")?);
        bytes.put(occupancy::available_shared(driver.functions.get(function)?, blocks, threads)? as usize)
    })
}

type SharedOfBlock = Option<extern "C" fn(c_int) -> usize>;

#[unsafe(no_mangle)]
extern "C" fn cuOccupancyMaxPotentialBlockSize(
    grid: Out<c_int>,
    block: Out<c_int>,
    function: *mut c_void,
    shared_of_block: SharedOfBlock,
    dynamic_shared: usize,
    limit: c_int,
) -> Status {
    cuOccupancyMaxPotentialBlockSizeWithFlags(grid, block, function, shared_of_block, dynamic_shared, limit, 0)
}

#[unsafe(no_mangle)]
extern "C" fn cuOccupancyMaxPotentialBlockSizeWithFlags(
    grid: Out<c_int>,
    block: Out<c_int>,
    function: *mut c_void,
    shared_of_block: SharedOfBlock,
    dynamic_shared: usize,
    limit: c_int,
    flags: c_uint,
) -> Status {
    call("cuOccupancyMaxPotentialBlockSize", |driver| {
        let Ok(limit) = u32::try_from(limit) else { return invalid(format!("the block size limit is {limit}")) };
        if flags > 1 {
            return invalid(format!("{flags:#x} are no flags of occupancy"));
        }
        let shared = |threads: u32| match shared_of_block {
            Some(shared_of_block) => clamp(shared_of_block(threads as c_int)),
            None => clamp(dynamic_shared),
        };
        let (blocks, threads) = occupancy::best_block(driver.functions.get(function)?, limit, shared);
        grid.put(blocks as c_int)?;
        block.put(threads as c_int)
    })
}

/// Clusters come with sm_90, and the machine has none.
fn no_clusters(driver: &mut Locked, function: *mut c_void) -> Outcome<()> {
    driver.functions.get(function)?;
    fail(Status::NOT_SUPPORTED, "the stand-in has no clusters of blocks")
}

#[unsafe(no_mangle)]
extern "C" fn cuOccupancyMaxActiveClusters(
    _count: Out<c_int>,
    function: *mut c_void,
    _config: *const LaunchConfig,
) -> Status {
    call("cuOccupancyMaxActiveClusters", |driver| no_clusters(driver, function))
}

#[unsafe(no_mangle)]
extern "C" fn cuOccupancyMaxPotentialClusterSize(
    _size: Out<c_int>,
    function: *mut c_void,
    _config: *const LaunchConfig,
) -> Status {
    call("cuOccupancyMaxPotentialClusterSize", |driver| no_clusters(driver, function))
}
