//! The host's part: pinned and pageable memory, host functions, managed memory.

mod driver;

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use cudarc::driver::result;
use cudarc::driver::sys::{self, CUresult};
use driver::{SEEDS, context, context_with_seed, expect_refusal, planted, refused};

/// A pinned buffer from the driver, without cudarc's own waits.
fn pinned(count: usize) -> &'static mut [u32] {
    // SAFETY: so many bytes were asked for; they are leaked, or freed by the test at its own risk.
    unsafe { std::slice::from_raw_parts_mut(result::malloc_host(count * 4, 0).unwrap().cast(), count) }
}

#[test]
fn pinned_memory_is_read_late() {
    for seed in SEEDS {
        for reused_too_early in [false, true] {
            let context = context_with_seed(seed);
            let stream = context.new_stream().unwrap();
            let buffer = pinned(64);
            buffer.fill(1);
            let data = stream.clone_htod(&*buffer).unwrap();
            if !reused_too_early {
                stream.synchronize().unwrap();
            }
            buffer.fill(2);
            let expected = if reused_too_early { 2 } else { 1 };
            assert_eq!(stream.clone_dtoh(&data).unwrap(), [expected; 64]);
        }
    }
}

#[test]
fn pageable_memory_is_staged() {
    for seed in SEEDS {
        let context = context_with_seed(seed);
        let stream = context.new_stream().unwrap();
        let mut buffer = vec![1u32; 64];
        let data = stream.clone_htod(&buffer).unwrap();
        buffer.fill(2);
        assert_eq!(stream.clone_dtoh(&data).unwrap(), [1; 64]);
    }
}

#[test]
fn pinned_memory_is_written_late() {
    let context = context();
    let stream = context.new_stream().unwrap();
    let data = stream.clone_htod(&[1u32; 64]).unwrap();
    let buffer = pinned(64);
    buffer.fill(0);
    stream.memcpy_dtoh(&data, &mut *buffer).unwrap();
    assert_eq!(*buffer, [0; 64], "nothing has been waited for");
    stream.synchronize().unwrap();
    assert_eq!(*buffer, [1; 64]);
}

#[test]
fn synchronous_copies_are_done_when_they_return() {
    let _context = context();
    let (buffer, back) = (pinned(64), pinned(64));
    buffer.fill(1);
    // SAFETY: the addresses are live and long enough.
    unsafe {
        let data = result::malloc_sync(256).unwrap();
        result::memcpy_htod_sync(data, buffer).unwrap();
        buffer.fill(2);
        result::memcpy_dtoh_sync(back, data).unwrap();
    }
    assert_eq!(*back, [1; 64]);
}

#[test]
fn pinned_memory_freed_while_a_copy_waits() {
    planted("has been freed", |context, fault| {
        let stream = context.new_stream()?;
        let buffer = pinned(64);
        buffer.fill(1);
        let _data = stream.clone_htod(&*buffer)?;
        if !fault {
            stream.synchronize()?;
        }
        // SAFETY: it came from `malloc_host`, and is not used by the host again.
        unsafe { result::free_host(buffer.as_mut_ptr().cast()) }?;
        stream.synchronize()
    });
}

#[test]
fn registered_memory_counts_as_pinned() {
    let context = context();
    let stream = context.new_stream().unwrap();
    let mut buffer = vec![1u32; 64];
    let pointer = buffer.as_mut_ptr().cast();
    // SAFETY: the buffer lives until it is unregistered.
    unsafe { sys::cuMemHostRegister_v2(pointer, 256, 0) }.result().unwrap();
    // SAFETY: as above.
    let again = unsafe { sys::cuMemHostRegister_v2(pointer, 256, 0) }.result();
    expect_refusal(again, CUresult::CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED, "known to the driver already");
    let data = stream.clone_htod(&buffer).unwrap();
    buffer.fill(2);
    assert_eq!(stream.clone_dtoh(&data).unwrap(), [2; 64]);
    // SAFETY: it is registered.
    unsafe { sys::cuMemHostUnregister(pointer) }.result().unwrap();
    // SAFETY: the call only looks the pointer up.
    let again = unsafe { sys::cuMemHostUnregister(pointer) }.result();
    expect_refusal(again, CUresult::CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED, "is not registered");
}

#[test]
fn a_device_address_is_no_host_pointer() {
    let context = context();
    let stream = context.new_stream().unwrap();
    // SAFETY: the slice is never looked at: the copy is refused.
    let refusal = unsafe {
        let data = result::malloc_sync(256).unwrap();
        let wrong = std::slice::from_raw_parts(data as *const u8, 256);
        result::memcpy_htod_async(data, wrong, stream.cu_stream())
    };
    expect_refusal(refusal, CUresult::CUDA_ERROR_INVALID_VALUE, "memory of the device, not of the host");
}

static CALLS: AtomicU32 = AtomicU32::new(0);

unsafe extern "C" fn calls_the_driver(caller: *mut std::ffi::c_void) {
    let (status, text) = refused(result::ctx::synchronize());
    let refused = status == CUresult::CUDA_ERROR_NOT_PERMITTED && text.contains("must not call the driver");
    // SAFETY: the test gives its thread's identity, which it keeps until the stream is done.
    let elsewhere = unsafe { *caller.cast::<std::thread::ThreadId>() } != std::thread::current().id();
    CALLS.fetch_add(if refused && elsewhere { 1 } else { 100 }, Ordering::SeqCst);
}

#[test]
fn host_functions_run_late_once_elsewhere_and_alone() {
    let context = context();
    let stream = context.new_stream().unwrap();
    let mut this = std::thread::current().id();
    // SAFETY: the argument lives until the stream is done.
    unsafe { result::stream::launch_host_function(stream.cu_stream(), calls_the_driver, (&raw mut this).cast()) }
        .unwrap();
    assert_eq!(CALLS.load(Ordering::SeqCst), 0);
    stream.synchronize().unwrap();
    stream.synchronize().unwrap();
    assert_eq!(CALLS.load(Ordering::SeqCst), 1);
}

unsafe extern "C" fn sends(sender: *mut std::ffi::c_void) {
    // SAFETY: the test gives a box, and the driver calls this once.
    unsafe { Box::from_raw(sender.cast::<mpsc::Sender<()>>()) }.send(()).unwrap();
}

/// CUDA promises that submitted work comes to its end; a program may wait for that by its own means.
#[test]
fn host_functions_come_even_if_nobody_synchronises() {
    let context = context();
    let stream = context.new_stream().unwrap();
    let (sender, receiver) = mpsc::channel::<()>();
    let sender = Box::into_raw(Box::new(sender)).cast();
    // SAFETY: the function takes the box.
    unsafe { result::stream::launch_host_function(stream.cu_stream(), sends, sender) }.unwrap();
    receiver.recv_timeout(Duration::from_secs(30)).expect("the host function was never called");
}

#[test]
fn managed_memory_is_the_same_on_both_sides() {
    let context = context();
    let stream = context.new_stream().unwrap();
    // SAFETY: every bit pattern is a number.
    let mut managed = unsafe { context.alloc_unified::<u32>(64, true) }.unwrap();
    managed.as_mut_slice().unwrap().fill(3);
    let copy = stream.clone_dtod(&managed).unwrap();
    assert_eq!(stream.clone_dtoh(&copy).unwrap(), [3; 64]);
    stream.memset_zeros(&mut managed).unwrap();
    stream.synchronize().unwrap();
    assert_eq!(managed.as_slice().unwrap(), [0; 64]);
}
