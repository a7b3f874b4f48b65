//! What CUDA promises about order, and what it does not: each rule with a program that keeps it and one that does not.

mod driver;

use std::sync::Arc;

use cudarc::driver::result::{self, stream::StreamKind};
use cudarc::driver::sys::{self, CUevent_flags};
use cudarc::driver::{CudaContext, CudaStream, DevicePtr};
use driver::planted;
use ptx_emulator::settings::{Settings, Watch};

const RACE: &str = "race between streams";
const NUMBERS: [u32; 256] = [7; 256];

/// A blocking stream, which cudarc does not make; it outlives its uses.
fn blocking_stream(context: &Arc<CudaContext>) -> Arc<CudaStream> {
    let raw = result::stream::create(StreamKind::Default).unwrap();
    // SAFETY: it is never destroyed, and belongs to the context that is current.
    unsafe { context.wrap_borrowed_stream(raw) }
}

#[test]
fn reading_before_another_stream_has_written() {
    planted(RACE, |context, fault| {
        let (one, two) = (context.new_stream()?, context.new_stream()?);
        let mut source = one.alloc_zeros::<u32>(256)?;
        let mut copy = two.alloc_zeros::<u32>(256)?;
        context.synchronize()?;
        one.memcpy_htod(&NUMBERS, &mut source)?;
        if !fault {
            two.join(&one)?;
        }
        two.memcpy_dtod(&source, &mut copy)?;
        // Whichever is waited for first.
        one.synchronize()?;
        let copied = two.clone_dtoh(&copy)?;
        assert!(fault || copied == NUMBERS);
        Ok(())
    });
}

#[test]
fn overwriting_before_another_stream_has_read() {
    planted(RACE, |context, fault| {
        let (one, two) = (context.new_stream()?, context.new_stream()?);
        let mut source = one.clone_htod(&NUMBERS)?;
        let mut copy = one.alloc_zeros::<u32>(256)?;
        two.join(&one)?;
        one.memcpy_dtod(&source, &mut copy)?;
        if !fault {
            two.join(&one)?;
        }
        two.memset_zeros(&mut source)?;
        two.synchronize()?;
        let copied = one.clone_dtoh(&copy)?;
        assert!(fault || copied == NUMBERS);
        Ok(())
    });
}

#[test]
fn parts_of_one_allocation_do_not_race() {
    planted(RACE, |context, fault| {
        let (one, two) = (context.new_stream()?, context.new_stream()?);
        let mut whole = one.alloc_zeros::<u32>(20)?;
        two.join(&one)?;
        one.memset_zeros(&mut whole.slice_mut(0..10))?;
        // One element more is one too many.
        two.memset_zeros(&mut whole.slice_mut(if fault { 9..20 } else { 10..20 }))?;
        one.join(&two)?;
        Ok(())
    });
}

#[test]
fn a_wait_means_the_record_before_it() {
    planted(RACE, |context, fault| {
        let (one, two) = (context.new_stream()?, context.new_stream()?);
        let mut data = one.alloc_zeros::<u32>(256)?;
        let event = one.record_event(None)?;
        if fault {
            // What is recorded after the wait does not count for it.
            two.wait(&event)?;
        }
        one.memcpy_htod(&NUMBERS, &mut data)?;
        event.record(&one)?;
        if !fault {
            two.wait(&event)?;
        }
        two.memset_zeros(&mut data)?;
        one.join(&two)?;
        Ok(())
    });
}

#[test]
fn what_the_host_has_waited_for_comes_first() {
    planted(RACE, |context, fault| {
        let (one, two) = (context.new_stream()?, context.new_stream()?);
        let mut data = one.clone_htod(&NUMBERS)?;
        let event = one.record_event(None)?;
        if fault {
            // Not enough: the event is older than the write.
            one.memset_zeros(&mut data)?;
        }
        event.synchronize()?;
        two.memset_zeros(&mut data)?;
        one.join(&two)?;
        Ok(())
    });
}

#[test]
fn the_legacy_stream_orders_blocking_streams_only() {
    planted(RACE, |context, fault| {
        let legacy = context.default_stream();
        let other = if fault { context.new_stream()? } else { blocking_stream(context) };
        let mut data = legacy.clone_htod(&NUMBERS)?;
        legacy.synchronize()?;
        legacy.memcpy_htod(&NUMBERS, &mut data)?;
        other.memset_zeros(&mut data)?;
        let zeros = legacy.clone_dtoh(&data)?;
        assert!(fault || zeros == [0; 256]);
        other.synchronize()
    });
}

#[test]
fn a_destroyed_stream_still_counts_for_the_legacy_one() {
    planted(RACE, |context, fault| {
        let legacy = context.default_stream();
        let mut data = legacy.clone_htod(&NUMBERS)?;
        legacy.synchronize()?;
        let raw = result::stream::create(if fault { StreamKind::NonBlocking } else { StreamKind::Default })?;
        // SAFETY: the stream lives up to its destruction below, and the data longer.
        unsafe {
            let (address, _sync) = data.device_ptr(&legacy);
            result::memset_d8_async(address, 0, 1024, raw)?;
            result::stream::destroy(raw)?;
        }
        legacy.memcpy_htod(&NUMBERS, &mut data)?;
        assert_eq!(legacy.clone_dtoh(&data)?, NUMBERS);
        context.synchronize()
    });
}

#[test]
fn the_streams_of_threads_wait_for_the_legacy_one() {
    planted(RACE, |context, fault| {
        let legacy = context.default_stream();
        let mut data = legacy.clone_htod(&NUMBERS)?;
        legacy.synchronize()?;
        legacy.memcpy_htod(&NUMBERS, &mut data)?;
        let own = if fault { context.new_stream()? } else { context.per_thread_stream() };
        own.memset_zeros(&mut data)?;
        own.synchronize()?;
        legacy.clone_dtoh(&data).map(drop)
    });
}

#[test]
fn memory_freed_in_one_stream_and_used_in_another() {
    planted("", |context, fault| {
        let (one, two) = (context.new_stream()?, context.new_stream()?);
        let data = one.clone_htod(&NUMBERS)?;
        let mut copy = two.alloc_zeros::<u32>(256)?;
        two.join(&one)?;
        two.memcpy_dtod(&data, &mut copy)?;
        if !fault {
            one.join(&two)?;
        }
        drop(data);
        two.synchronize()
    });
}

#[test]
fn memory_used_before_the_stream_that_allocates_it_has_come_so_far() {
    planted("", |context, fault| {
        let (one, two) = (context.new_stream()?, context.new_stream()?);
        // Something to keep the first stream from being idle.
        let _busy = one.clone_htod(&NUMBERS)?;
        // SAFETY: it is written before it is read.
        let mut data = unsafe { one.alloc::<u32>(256) }?;
        if !fault {
            two.join(&one)?;
        }
        two.memset_zeros(&mut data)?;
        two.synchronize()?;
        one.join(&two)
    });
}

/// Races apart, the late order alone shows it, in the seeds that draw it.
#[test]
fn memory_that_is_not_there_yet() {
    let found = driver::SEEDS.filter(|&seed| {
        let settings = Settings { seed, watch: Watch::Memory, ..Settings::default() };
        driver::standin().configure_thread(Some(&settings)).unwrap();
        let context = driver::context();
        let (one, two) = (context.new_stream().unwrap(), context.new_stream().unwrap());
        // SAFETY: it is not looked at.
        let mut data = unsafe { one.alloc::<u32>(256) }.unwrap();
        two.memset_zeros(&mut data).unwrap();
        let (status, text) = driver::refused(two.synchronize());
        assert!(status == sys::CUresult::CUDA_SUCCESS || text.contains("not yet allocated"), "{text}");
        status != sys::CUresult::CUDA_SUCCESS
    });
    assert!(found.count() >= 3);
}

#[test]
fn memory_freed_by_the_host_while_work_waits() {
    planted("has been freed", |context, fault| {
        let stream = context.new_stream()?;
        // SAFETY: the pointers are used as they were allocated, but for the fault.
        unsafe {
            let (from, to) = (result::malloc_sync(1024)?, result::malloc_sync(1024)?);
            result::memset_d8_async(from, 1, 1024, stream.cu_stream())?;
            result::memcpy_dtod_async(to, from, 1024, stream.cu_stream())?;
            if !fault {
                stream.synchronize()?;
            }
            result::free_sync(from)?;
            stream.synchronize()?;
            result::free_sync(to)
        }
    });
}

#[test]
fn what_was_never_written_is_not_copied_to_the_host() {
    planted("byte 1000 of the 1024 copied, was never written", |context, fault| {
        let stream = context.new_stream()?;
        // SAFETY: what is not written is not looked at.
        let mut data = unsafe { stream.alloc::<u8>(1024) }?;
        stream.memset_zeros(&mut data.slice_mut(0..if fault { 1000 } else { 1024 }))?;
        stream.clone_dtoh(&data).map(drop)
    });
}

#[test]
fn queries_say_not_yet_and_then_yes() {
    for seed in driver::SEEDS {
        let context = driver::context_with_seed(seed);
        let stream = context.new_stream().unwrap();
        let data = stream.clone_htod(&NUMBERS).unwrap();
        let event = stream.record_event(None).unwrap();
        assert!(!event.is_complete(), "nothing has asked for the work yet");
        let polls = (0..100).take_while(|_| !event.try_is_complete().unwrap()).count();
        assert!(polls <= 3, "{polls} polls");
        // Who has seen it finished, needs not wait.
        context.default_stream().clone_dtod(&data).unwrap();
        context.synchronize().unwrap();
    }
}

#[test]
fn times_are_of_the_modelled_device() {
    let measure = || {
        let context = driver::context();
        let stream = context.new_stream().unwrap();
        let timed = Some(CUevent_flags::CU_EVENT_DEFAULT);
        let start = stream.record_event(timed).unwrap();
        let _data = stream.clone_htod(&vec![0u8; 1 << 20]).unwrap();
        let end = stream.record_event(timed).unwrap();
        let untimed = stream.record_event(None).unwrap();
        let (status, text) = driver::refused(start.elapsed_ms(&untimed));
        assert_eq!(status, sys::CUresult::CUDA_ERROR_INVALID_HANDLE);
        assert!(text.contains("takes no times"), "{text}");
        start.elapsed_ms(&end).unwrap()
    };
    let milliseconds = measure();
    assert!(milliseconds > 0.0);
    assert_eq!(measure(), milliseconds, "the same on every run");
}
