//! Modules, functions and launches: what is checked at the call, what shows later, and the limits of architectures.

mod driver;

use std::ffi::c_void;
use std::sync::Arc;

use cudarc::driver::sys::{
    self, CUfunction_attribute as Attribute, CUgraphInstantiate_flags, CUresult, CUstreamCaptureMode,
};
use cudarc::driver::{
    CudaContext, CudaFunction, CudaModule, CudaSlice, CudaStream, DriverError, LaunchConfig, PushKernelArg, result,
};
use cudarc::nvrtc::Ptx;
use driver::{SEEDS, context, context_with_seed, expect_refusal, planted, standin};
use ptx_emulator::settings::Settings;
use ptx_emulator::target::Target;

const KERNELS: &str = include_str!("driver/kernels.ptx");
const INVALID: CUresult = CUresult::CUDA_ERROR_INVALID_VALUE;

fn module(context: &Arc<CudaContext>) -> Arc<CudaModule> {
    context.load_module(Ptx::from_src(KERNELS)).unwrap()
}

fn shape(blocks: u32, threads: u32) -> LaunchConfig {
    LaunchConfig { grid_dim: (blocks, 1, 1), block_dim: (threads, 1, 1), shared_mem_bytes: 0 }
}

fn fill(stream: &CudaStream, module: &Arc<CudaModule>, to: &mut CudaSlice<u32>, value: u32) -> Result<(), DriverError> {
    let function = module.load_function("fill")?;
    let count = to.len() as u32;
    // SAFETY: the arguments are the kernel's.
    unsafe { stream.launch_builder(&function).arg(to).arg(&value).arg(&count).launch(shape(count.div_ceil(64), 64)) }
        .map(drop)
}

fn scale(
    stream: &CudaStream,
    module: &Arc<CudaModule>,
    to: &mut CudaSlice<u32>,
    from: &CudaSlice<u32>,
) -> Result<(), DriverError> {
    let function = module.load_function("scale")?;
    let count = to.len() as u32;
    // SAFETY: the arguments are the kernel's.
    unsafe { stream.launch_builder(&function).arg(to).arg(from).arg(&count).launch(shape(count.div_ceil(64), 64)) }
        .map(drop)
}

/// A launch of a kernel without parameters.
fn launch(stream: &CudaStream, function: &CudaFunction, shape: LaunchConfig) -> Result<(), DriverError> {
    // SAFETY: there are no arguments.
    unsafe { stream.launch_builder(function).launch(shape) }.map(drop)
}

#[test]
fn kernels_run_when_they_are_waited_for() {
    let context = context();
    let (stream, module) = (context.new_stream().unwrap(), module(&context));
    let mut data = stream.alloc_zeros::<u32>(100).unwrap();
    let mut scaled = stream.alloc_zeros::<u32>(100).unwrap();
    standin().take_thread_reports();
    fill(&stream, &module, &mut data, 7).unwrap();
    scale(&stream, &module, &mut scaled, &data).unwrap();
    assert_eq!(standin().take_thread_reports().len(), 0, "nothing has been waited for");
    assert_eq!(stream.clone_dtoh(&scaled).unwrap(), [21; 100]);
    let reports = standin().take_thread_reports();
    let names: Vec<&str> = reports.iter().map(|report| report.kernel.as_str()).collect();
    assert_eq!(names, ["fill", "scale"]);
    assert!(reports.iter().all(|report| report.counters.as_ref().unwrap().thread_instructions > 0));
    assert_eq!((reports[1].grid, reports[1].block, reports[1].dynamic_shared), ([2, 1, 1], [64, 1, 1], 0));
}

#[test]
fn variables_of_a_module_are_memory() {
    let context = context();
    let (stream, module) = (context.new_stream().unwrap(), module(&context));
    let mut out = stream.alloc_zeros::<u32>(1).unwrap();
    let mut data = stream.alloc_zeros::<u32>(1).unwrap();
    fill(&stream, &module, &mut data, 1).unwrap();
    let count = module.load_function("count").unwrap();
    for value in [5u32, 9] {
        // SAFETY: the argument is the kernel's.
        unsafe { stream.launch_builder(&count).arg(&mut out).launch(shape(1, 1)) }.unwrap();
        assert_eq!(stream.clone_dtoh(&out).unwrap(), [value]);
        let mut variable = module.get_global("counter", &stream).unwrap();
        stream.memcpy_htod(&9u32.to_ne_bytes(), &mut variable).unwrap();
    }
    let mut factor = module.get_global("factor", &stream).unwrap();
    stream.memcpy_htod(&10u32.to_ne_bytes(), &mut factor).unwrap();
    scale(&stream, &module, &mut out, &data).unwrap();
    assert_eq!(stream.clone_dtoh(&out).unwrap(), [10]);
    let not_found = CUresult::CUDA_ERROR_NOT_FOUND;
    expect_refusal(module.get_global("none", &stream), not_found, "it has: counter, factor");
    expect_refusal(module.load_function("none").map(drop), not_found, "it has: fill, scale, count");
}

#[test]
fn a_module_may_go_while_its_kernels_wait() {
    let context = context();
    let stream = context.new_stream().unwrap();
    let mut data = stream.alloc_zeros::<u32>(10).unwrap();
    fill(&stream, &module(&context), &mut data, 7).unwrap();
    assert_eq!(stream.clone_dtoh(&data).unwrap(), [7; 10]);
}

#[test]
fn a_fault_shows_at_the_next_synchronisation_and_stays() {
    let context = context();
    let (stream, module) = (context.new_stream().unwrap(), module(&context));
    // SAFETY: it is written before it is read.
    let mut data = unsafe { stream.alloc::<u32>(10) }.unwrap();
    let function = module.load_function("fill").unwrap();
    // SAFETY: the arguments are the kernel's, but the count is one too many, which the machine sees.
    unsafe { stream.launch_builder(&function).arg(&mut data).arg(&1u32).arg(&11u32).launch(shape(1, 64)) }.unwrap();
    let illegal = CUresult::CUDA_ERROR_ILLEGAL_ADDRESS;
    expect_refusal(stream.synchronize(), illegal, "fill block (0,0,0) warp 0 lane 10");
    expect_refusal(context.synchronize(), illegal, "0 bytes after the end of one of 40 bytes");
    expect_refusal(stream.clone_htod(&[1]).map(drop), illegal, "fill block");
}

#[test]
fn kernels_of_different_streams_race_too() {
    planted("race between streams", |context, fault| {
        let (one, two, module) = (context.new_stream()?, context.new_stream()?, module(context));
        let mut data = one.alloc_zeros::<u32>(100)?;
        let mut scaled = one.alloc_zeros::<u32>(100)?;
        one.synchronize()?;
        fill(&one, &module, &mut data, 7)?;
        if !fault {
            two.join(&one)?;
        }
        scale(&two, &module, &mut scaled, &data)?;
        one.synchronize()?;
        two.synchronize()
    });
}

#[test]
fn a_kernel_that_still_reads_what_a_copy_overwrites() {
    planted("race between streams", |context, fault| {
        let (one, two, module) = (context.new_stream()?, context.new_stream()?, module(context));
        let mut data = one.clone_htod(&[7u32; 100])?;
        let mut scaled = one.alloc_zeros::<u32>(100)?;
        one.synchronize()?;
        scale(&one, &module, &mut scaled, &data)?;
        if !fault {
            two.join(&one)?;
        }
        two.memcpy_htod(&[8u32; 100], &mut data)?;
        two.synchronize()?;
        let numbers = one.clone_dtoh(&scaled)?;
        assert!(fault || numbers == [21; 100]);
        Ok(())
    });
}

#[test]
fn halves_of_one_buffer_do_not_race() {
    for seed in SEEDS {
        let context = context_with_seed(seed);
        let (one, two, module) = (context.new_stream().unwrap(), context.new_stream().unwrap(), module(&context));
        let mut data = one.alloc_zeros::<u32>(101).unwrap();
        one.synchronize().unwrap();
        let function = module.load_function("fill").unwrap();
        let (mut left, mut right) = data.split_at_mut(51);
        // SAFETY: the arguments are the kernel's.
        unsafe {
            one.launch_builder(&function).arg(&mut left).arg(&1u32).arg(&51u32).launch(shape(1, 64)).unwrap();
            two.launch_builder(&function).arg(&mut right).arg(&2u32).arg(&50u32).launch(shape(1, 64)).unwrap();
        }
        context.synchronize().unwrap();
        let numbers = one.clone_dtoh(&data).unwrap();
        assert!(numbers[..51] == [1; 51] && numbers[51..] == [2; 50]);
    }
}

#[test]
fn graphs_replay_kernels_with_the_parameters_of_their_capture() {
    let context = context();
    let (stream, module) = (context.new_stream().unwrap(), module(&context));
    let mut data = stream.alloc_zeros::<u32>(100).unwrap();
    let mut scaled = stream.alloc_zeros::<u32>(100).unwrap();
    stream.synchronize().unwrap();
    stream.begin_capture(CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL).unwrap();
    scale(&stream, &module, &mut scaled, &data).unwrap();
    scale(&stream, &module, &mut data, &scaled).unwrap();
    let graph = stream.end_capture(CUgraphInstantiate_flags(0)).unwrap().unwrap();
    stream.memcpy_htod(&[1u32; 100], &mut data).unwrap();
    for expected in [9, 81, 729] {
        graph.launch().unwrap();
        assert_eq!(stream.clone_dtoh(&data).unwrap(), [expected; 100]);
    }
}

#[test]
fn shapes_are_checked_at_the_call() {
    let context = context();
    let (stream, module) = (context.new_stream().unwrap(), module(&context));
    let [bounded, exact] = ["bounded", "exact"].map(|name| module.load_function(name).unwrap());
    let config = |grid_dim, block_dim| LaunchConfig { grid_dim, block_dim, shared_mem_bytes: 0 };
    for (function, config, status, part) in [
        (&bounded, config((0, 1, 1), (1, 1, 1)), INVALID, "an extent is 0"),
        (&bounded, config((1, 1, 1), (1, 0, 1)), INVALID, "an extent is 0"),
        (&bounded, config((1, 65_536, 1), (1, 1, 1)), INVALID, "grid [1, 65536, 1] exceeds"),
        (&bounded, config((1 << 31, 1, 1), (1, 1, 1)), INVALID, "exceeds"),
        (&bounded, config((1, 1, 1), (1025, 1, 1)), INVALID, "1024 threads in all"),
        (&bounded, config((1, 1, 1), (1, 1, 65)), INVALID, "exceeds"),
        (&bounded, config((1, 1, 1), (32, 64, 1)), INVALID, "1024 threads in all"),
        (&bounded, config((1, 1, 1), (65, 1, 1)), CUresult::CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES, "bounds admit 64"),
        (&exact, config((1, 1, 1), (64, 1, 1)), INVALID, "requires [32, 2, 1]"),
    ] {
        expect_refusal(launch(&stream, function, config), status, part);
    }
    launch(&stream, &bounded, config((1, 1, 65_535), (64, 1, 1))).unwrap();
    launch(&stream, &exact, config((1, 1, 1), (32, 2, 1))).unwrap();
    stream.synchronize().unwrap();
}

#[test]
fn shared_memory_is_to_be_asked_for() {
    for (target, most) in [(Target::Sm80, 163 << 10), (Target::Sm86, 99 << 10), (Target::Sm90, 227 << 10)] {
        standin().configure_thread(Some(&Settings { target, ..Settings::default() })).unwrap();
        let context = context();
        let (stream, module) = (context.new_stream().unwrap(), module(&context));
        let sharing = module.load_function("sharing").unwrap();
        let mut out = stream.alloc_zeros::<u32>(1).unwrap();
        let mut launch = |shared_mem_bytes| {
            let config = LaunchConfig { shared_mem_bytes, ..shape(1, 32) };
            // SAFETY: the argument is the kernel's.
            unsafe { stream.launch_builder(&sharing).arg(&mut out).launch(config) }.map(drop)
        };
        // The static 1024 bytes count.
        launch((48 << 10) - 1024).unwrap();
        expect_refusal(launch((48 << 10) - 1023), INVALID, &format!("up to {} on {target}", most - 1024));
        let attribute = Attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        expect_refusal(sharing.set_attribute(attribute, most - 1023), INVALID, &format!("0 to {}", most - 1024));
        sharing.set_attribute(attribute, most - 1024).unwrap();
        assert_eq!(sharing.get_attribute(attribute).unwrap(), most - 1024);
        launch(most as u32 - 1024).unwrap();
        stream.synchronize().unwrap();
    }
}

#[test]
fn attributes_of_functions() {
    let context = context();
    let module = module(&context);
    let [fill, sharing, bounded] = ["fill", "sharing", "bounded"].map(|name| module.load_function(name).unwrap());
    assert_eq!((fill.shared_size_bytes().unwrap(), sharing.shared_size_bytes().unwrap()), (0, 1024));
    assert_eq!((fill.max_threads_per_block().unwrap(), bounded.max_threads_per_block().unwrap()), (1024, 64));
    assert_eq!(fill.local_size_bytes().unwrap(), 0);
    assert!((1..=64).contains(&fill.num_regs().unwrap()));
    assert_eq!(fill.ptx_version().unwrap(), 70);
    assert_eq!(fill.cu_function(), module.load_function("fill").unwrap().cu_function());
}

/// Against the occupancy calculator's arithmetic, done by hand for a kernel of few registers.
#[test]
fn occupancy_is_what_threads_blocks_and_shared_memory_allow() {
    for (target, [b32, b256, b768, b1024, with_40_kib]) in [
        (Target::Sm80, [32, 8, 2, 2, 4]),
        (Target::Sm86, [16, 6, 2, 1, 2]),
        (Target::Sm89, [24, 6, 2, 1, 2]),
        (Target::Sm90, [32, 8, 2, 2, 5]),
        (Target::Sm120, [24, 6, 2, 1, 2]),
    ] {
        standin().configure_thread(Some(&Settings { target, ..Settings::default() })).unwrap();
        let context = context();
        let fill = module(&context).load_function("fill").unwrap();
        let resident =
            |threads, shared| fill.occupancy_max_active_blocks_per_multiprocessor(threads, shared, None).unwrap();
        assert_eq!([32, 256, 768, 1024].map(|threads| resident(threads, 0)), [b32, b256, b768, b1024], "{target}");
        assert_eq!(resident(128, 40 << 10), with_40_kib, "{target}");
        assert_eq!(resident(128, 1 << 20), 0);
        extern "C" fn none(_: i32) -> usize {
            0
        }
        let (grid, block) = fill.occupancy_max_potential_block_size(none, 0, 0, None).unwrap();
        let limits = target.limits();
        assert_eq!(grid * block, limits.threads_per_multiprocessor * limits.multiprocessors, "{target}");
        let shared = fill.occupancy_available_dynamic_smem_per_block(2, 128).unwrap();
        assert_eq!(shared as u32, (limits.shared_per_multiprocessor / 2 - 1024).min(limits.shared_per_block_optin));
    }
}

#[test]
fn a_cooperative_launch_must_be_resident() {
    let context = context();
    let (stream, module) = (context.new_stream().unwrap(), module(&context));
    let bounded = module.load_function("bounded").unwrap();
    let most = 32 * Target::Sm80.limits().multiprocessors;
    let launch = |blocks| {
        // SAFETY: there are no arguments.
        unsafe { stream.launch_builder(&bounded).launch_cooperative(shape(blocks, 64)) }.map(drop)
    };
    let too_large = CUresult::CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE;
    expect_refusal(launch(most + 1), too_large, &format!("{most} can be resident"));
    launch(most).unwrap();
    stream.synchronize().unwrap();
}

#[test]
fn parameters_in_one_buffer() {
    let context = context();
    let (stream, module) = (context.new_stream().unwrap(), module(&context));
    let data = stream.alloc_zeros::<u32>(10).unwrap();
    let mut buffer = [0u8; 16];
    let function = module.load_function("fill").unwrap();
    let address = data.leak();
    buffer[..8].copy_from_slice(&address.to_ne_bytes());
    buffer[8..12].copy_from_slice(&7u32.to_ne_bytes());
    buffer[12..].copy_from_slice(&10u32.to_ne_bytes());
    let launch = |mut size: usize| {
        let mut extra: [*mut c_void; 5] = [
            std::ptr::without_provenance_mut(1),
            buffer.as_ptr().cast_mut().cast(),
            std::ptr::without_provenance_mut(2),
            (&raw mut size).cast(),
            std::ptr::null_mut(),
        ];
        let none = std::ptr::null_mut();
        let (function, stream) = (function.cu_function(), stream.cu_stream());
        // SAFETY: the list is as the interface wants it.
        unsafe { sys::cuLaunchKernel(function, 1, 1, 1, 32, 1, 1, 0, stream, none, extra.as_mut_ptr()) }.result()
    };
    launch(16).unwrap();
    expect_refusal(launch(15), INVALID, "15 bytes of parameters, 16 are needed");
    let mut back = [0u32; 10];
    // SAFETY: the address is live.
    unsafe { result::memcpy_dtoh_async(&mut back, address, stream.cu_stream()) }.unwrap();
    assert_eq!(back, [7; 10]);
}

#[test]
fn a_function_stays_in_its_context() {
    let (one, two) = (context(), context());
    let stream = two.new_stream().unwrap();
    one.bind_to_thread().unwrap();
    let bounded = module(&one).load_function("bounded").unwrap();
    let refusal = launch(&stream, &bounded, shape(1, 1));
    expect_refusal(refusal, CUresult::CUDA_ERROR_INVALID_HANDLE, "different contexts");
}

#[test]
fn ptx_is_refused_with_its_line() {
    let context = context();
    let broken = KERNELS.replace("mul.lo.s32 %r8, %r6, %r7;", "frobnicate.s32 %r8, %r6, %r7;");
    let line = broken.lines().position(|line| line.contains("frobnicate")).unwrap() + 1;
    let refusal = context.load_module(Ptx::from_src(broken));
    expect_refusal(refusal, CUresult::CUDA_ERROR_INVALID_PTX, &format!("PTX line {line}"));
}
