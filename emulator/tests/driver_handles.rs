//! Handles, sticky errors, contexts, attributes: what the driver answers, and what it refuses.

mod driver;

use std::ffi::c_void;

use cudarc::driver::sys::{self, CUdevice_attribute as Attribute, CUresult};
use cudarc::driver::{CudaContext, result};
use driver::{context, expect_refusal, refused, standin};
use ptx_emulator::settings::Settings;
use ptx_emulator::target::{self, Target};

#[test]
fn destroyed_foreign_and_mistaken_handles() {
    let context = context();
    let stream = context.new_stream().unwrap();
    let event = result::event::create(sys::CUevent_flags::CU_EVENT_DEFAULT).unwrap();
    // SAFETY: every one of these handles is checked before it is used.
    unsafe {
        let mistaken = result::stream::synchronize(event.cast());
        expect_refusal(mistaken, CUresult::CUDA_ERROR_INVALID_HANDLE, "is a event, not a stream");
        result::event::record(event, stream.cu_stream()).unwrap();
        result::event::destroy(event).unwrap();
        let wait =
            result::stream::wait_event(stream.cu_stream(), event, sys::CUevent_wait_flags::CU_EVENT_WAIT_DEFAULT);
        expect_refusal(wait, CUresult::CUDA_ERROR_INVALID_HANDLE, "was destroyed before");
        expect_refusal(result::event::destroy(event), CUresult::CUDA_ERROR_INVALID_HANDLE, "was destroyed before");
        let local = 0u64;
        let foreign = result::event::synchronize((&raw const local).cast_mut().cast());
        expect_refusal(foreign, CUresult::CUDA_ERROR_INVALID_HANDLE, "is not a event of this driver");
        expect_refusal(result::event::query(std::ptr::null_mut()), CUresult::CUDA_ERROR_INVALID_HANDLE, "is null");
    }
    stream.synchronize().unwrap();
}

#[test]
fn events_belong_to_their_context() {
    let (one, two) = (context(), context());
    let stream = one.new_stream().unwrap();
    let event = two.new_event(None).unwrap();
    // SAFETY: both live.
    let refusal = unsafe { result::event::record(event.cu_event(), stream.cu_stream()) };
    expect_refusal(refusal, CUresult::CUDA_ERROR_INVALID_HANDLE, "different contexts");
}

#[test]
fn memory_is_freed_once_and_in_its_own_way() {
    let context = context();
    let stream = context.new_stream().unwrap();
    let raw = stream.cu_stream();
    let invalid = CUresult::CUDA_ERROR_INVALID_VALUE;
    // SAFETY: the driver looks every address up before it frees it.
    unsafe {
        let address = result::malloc_sync(100).unwrap();
        expect_refusal(result::free_sync(address + 4), invalid, "no allocation begins at");
        expect_refusal(result::free_async(address, raw), invalid, "does not come from cuMemAllocAsync");
        result::free_sync(address).unwrap();
        expect_refusal(result::free_sync(address), invalid, "has been freed");
        let address = result::malloc_async(raw, 100).unwrap();
        result::free_async(address, raw).unwrap();
        expect_refusal(result::free_async(address, raw), invalid, "freed");
        expect_refusal(result::free_sync(address), invalid, "freed");
        let pinned = result::malloc_host(100, 0).unwrap();
        expect_refusal(result::free_sync(pinned as u64), invalid, "free it with cuMemFreeHost");
        result::free_host(pinned).unwrap();
        expect_refusal(result::free_host(pinned), invalid, "was it freed before?");
        expect_refusal(result::malloc_sync(0), invalid, "0 bytes");
        expect_refusal(result::malloc_sync(1 << 40), CUresult::CUDA_ERROR_OUT_OF_MEMORY, "are free");
    }
}

#[test]
fn ranges_are_checked_at_the_call() {
    let context = context();
    let stream = context.new_stream().unwrap();
    let invalid = CUresult::CUDA_ERROR_INVALID_VALUE;
    // SAFETY: the driver checks every range before it uses it.
    unsafe {
        let address = result::malloc_sync(100).unwrap();
        let raw = stream.cu_stream();
        expect_refusal(result::memset_d8_async(address, 0, 101, raw), invalid, "0 bytes after the end of one of 100");
        expect_refusal(result::memset_d8_async(16, 0, 1, raw), invalid, "outside every allocation");
        expect_refusal(result::memset_d8_async(address, 0, usize::MAX, raw), invalid, "wrap around");
        expect_refusal(result::memcpy_htod_async(address + 90, &[0u8; 11], raw), invalid, "destination");
        let ordered = result::malloc_async(raw, 100).unwrap();
        expect_refusal(result::memset_d8_async(ordered, 0, 101, raw), invalid, "end after the allocation");
        result::memset_d8_async(address, 0, 100, raw).unwrap();
        result::memset_d8_async(16, 0, 0, raw).unwrap();
        expect_refusal(sys::cuMemsetD32Async(address + 2, 0, 1, raw).result(), invalid, "no multiple of 4");
    }
    stream.synchronize().unwrap();
}

/// Two-dimensional copies and fills against the same done byte by byte.
#[test]
fn rows_are_copied_with_their_pitches() {
    let context = context();
    let stream = context.new_stream().unwrap();
    let source: Vec<u8> = (0..200).collect();
    let mut copy = sys::CUDA_MEMCPY2D {
        srcXInBytes: 3,
        srcY: 1,
        srcMemoryType: sys::CUmemorytype::CU_MEMORYTYPE_HOST,
        srcHost: source.as_ptr().cast(),
        srcDevice: 0,
        srcArray: std::ptr::null_mut(),
        srcPitch: 20,
        dstXInBytes: 1,
        dstY: 0,
        dstMemoryType: sys::CUmemorytype::CU_MEMORYTYPE_DEVICE,
        dstHost: std::ptr::null_mut(),
        dstDevice: 0,
        dstArray: std::ptr::null_mut(),
        dstPitch: 32,
        WidthInBytes: 11,
        Height: 4,
    };
    // SAFETY: source and destination live, and the shapes fit both.
    let back = unsafe {
        let device = result::malloc_sync(160).unwrap();
        sys::cuMemsetD2D8Async(device, 32, 0xEE, 32, 5, stream.cu_stream()).result().unwrap();
        copy.dstDevice = device;
        sys::cuMemcpy2DAsync_v2(&copy, stream.cu_stream()).result().unwrap();
        let mut back = vec![0u8; 160];
        result::memcpy_dtoh_async(&mut back, device, stream.cu_stream()).unwrap();
        copy.dstPitch = 11;
        let refusal = sys::cuMemcpy2DAsync_v2(&copy, stream.cu_stream()).result();
        expect_refusal(refusal, CUresult::CUDA_ERROR_INVALID_VALUE, "do not fit");
        back
    };
    let mut expected = vec![0xEE; 160];
    for row in 0..4 {
        for at in 0..11 {
            expected[row * 32 + 1 + at] = source[(row + 1) * 20 + 3 + at];
        }
    }
    assert_eq!(back, expected);
}

#[test]
fn an_asynchronous_error_stays_until_its_context_goes() {
    let broken = context();
    let stream = broken.new_stream().unwrap();
    // SAFETY: the fault is the point; the driver sees it.
    unsafe {
        let address = result::malloc_sync(100).unwrap();
        result::memset_d8_async(address, 0, 100, stream.cu_stream()).unwrap();
        result::free_sync(address).unwrap();
    }
    let illegal = CUresult::CUDA_ERROR_ILLEGAL_ADDRESS;
    expect_refusal(stream.synchronize(), illegal, "cuMemsetD8Async: destination");
    expect_refusal(broken.synchronize(), illegal, "cuMemsetD8Async: destination");
    // SAFETY: refused.
    expect_refusal(unsafe { result::malloc_sync(4) }, illegal, "has been freed");
    expect_refusal(broken.new_event(None).map(drop), illegal, "has been freed");
    let whole = context();
    let numbers = whole.default_stream().clone_htod(&[1, 2, 3]).unwrap();
    assert_eq!(whole.default_stream().clone_dtoh(&numbers).unwrap(), [1, 2, 3]);
}

#[test]
fn contexts_are_destroyed_with_what_they_hold() {
    let kept = context();
    let gone = context();
    let stream = result::stream::create(result::stream::StreamKind::NonBlocking).unwrap();
    let handle = gone.cu_ctx();
    drop(gone);
    // SAFETY: handles are checked.
    unsafe {
        expect_refusal(
            result::stream::synchronize(stream),
            CUresult::CUDA_ERROR_INVALID_HANDLE,
            "was destroyed before",
        );
        expect_refusal(result::ctx::set_current(handle), CUresult::CUDA_ERROR_CONTEXT_IS_DESTROYED, "destroyed");
    }
    kept.bind_to_thread().unwrap();
    kept.synchronize().unwrap();
}

#[test]
fn the_primary_context_lives_as_long_as_it_is_retained() {
    standin();
    let (one, two) = (CudaContext::new(0).unwrap(), CudaContext::new(0).unwrap());
    assert_eq!(one.cu_ctx(), two.cu_ctx());
    drop(one);
    two.synchronize().unwrap();
    assert_eq!(refused(CudaContext::new(1)).0, CUresult::CUDA_ERROR_INVALID_DEVICE);
}

#[test]
fn the_device_is_what_it_poses_as() {
    for target in Target::ALL {
        standin().configure_thread(Some(&Settings { target, ..Settings::default() })).unwrap();
        let context = context();
        let (major, minor) = context.compute_capability().unwrap();
        assert_eq!((major as u32, minor as u32), target.compute_capability());
        assert!(context.name().unwrap().contains(&target.to_string()));
        let limits = target.limits();
        for (attribute, expected) in [
            (Attribute::CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK, 1024),
            (Attribute::CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_Z, 64),
            (Attribute::CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_X, i32::MAX as u32),
            (Attribute::CU_DEVICE_ATTRIBUTE_WARP_SIZE, 32),
            (Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK, target::SHARED_PER_BLOCK),
            (Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN, limits.shared_per_block_optin),
            (Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR, limits.shared_per_multiprocessor),
            (Attribute::CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR, limits.threads_per_multiprocessor),
            (Attribute::CU_DEVICE_ATTRIBUTE_MAX_BLOCKS_PER_MULTIPROCESSOR, limits.blocks_per_multiprocessor),
            (Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, limits.multiprocessors),
            (Attribute::CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED, 1),
        ] {
            assert_eq!(context.attribute(attribute).unwrap() as u32, expected, "{target} {attribute:?}");
        }
    }
}

#[test]
fn images_that_are_not_ptx_are_refused_with_a_reason() {
    let _context = context();
    let load = |image: &[u8]| {
        // SAFETY: the images end in NUL or are told by their first bytes.
        unsafe { result::module::load_data(image.as_ptr().cast()) }
    };
    expect_refusal(load(b"\x7FELF\x02\x01\0"), CUresult::CUDA_ERROR_NO_BINARY_FOR_GPU, "is a cubin");
    expect_refusal(load(b"\x50\xED\x55\xBA\x01\0"), CUresult::CUDA_ERROR_NO_BINARY_FOR_GPU, "is a fatbin");
    assert_eq!(refused(load(b"\0")).0, CUresult::CUDA_ERROR_INVALID_PTX);
    expect_refusal(result::module::load(c"/no/such/file.ptx".into()), CUresult::CUDA_ERROR_FILE_NOT_FOUND, "no/such");
}

#[test]
fn the_compilers_log_is_filled() {
    let _context = context();
    let mut log = [1u8; 16];
    let mut options =
        [sys::CUjit_option::CU_JIT_ERROR_LOG_BUFFER, sys::CUjit_option::CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES];
    let mut values: [*mut c_void; 2] = [log.as_mut_ptr().cast(), std::ptr::without_provenance_mut(log.len())];
    let mut module = std::ptr::null_mut();
    // SAFETY: two options and values; the image is a text.
    let status = unsafe {
        let image = c"this is no PTX".as_ptr().cast();
        sys::cuModuleLoadDataEx(&mut module, image, 2, options.as_mut_ptr(), values.as_mut_ptr())
    };
    expect_refusal(status.result(), CUresult::CUDA_ERROR_INVALID_PTX, "cuModuleLoadDataEx");
    let text = std::ffi::CStr::from_bytes_until_nul(&log).unwrap().to_str().unwrap();
    assert_eq!(text.len(), 15, "as much as there is room for");
    assert_eq!(values[1].addr(), 15);
}

#[test]
fn limits_and_pools_keep_what_they_are_given() {
    let context = context();
    let stack = sys::CUlimit::CU_LIMIT_STACK_SIZE;
    context.set_limit(stack, 4096).unwrap();
    assert_eq!(context.get_limit(stack).unwrap(), 4096);
    // SAFETY: the pool is live, and the value of the attribute's type.
    unsafe {
        let pool = result::device::get_default_mem_pool(context.cu_device()).unwrap();
        let threshold = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
        let (mut set, mut got) = (1u64 << 40, 0u64);
        result::mem_pool::set_attribute(pool, threshold, (&raw mut set).cast()).unwrap();
        result::mem_pool::get_attribute(pool, threshold, (&raw mut got).cast()).unwrap();
        assert_eq!(got, set);
        expect_refusal(result::mem_pool::destroy(pool), CUresult::CUDA_ERROR_INVALID_VALUE, "default pool");
    }
}
