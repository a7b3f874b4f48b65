//! Stream capture and graphs: what is written down, what is forbidden meanwhile, and what a launch then does.

mod driver;

use cudarc::driver::sys::{
    CUgraphInstantiate_flags as Flags, CUresult, CUstreamCaptureMode as Mode, CUstreamCaptureStatus as Capturing,
};
use cudarc::driver::{CudaStream, DriverError, result};
use driver::{SEEDS, context, context_with_seed, expect_refusal, planted, refused};

const UNSUPPORTED: CUresult = CUresult::CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
const INVALIDATED: CUresult = CUresult::CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;

fn begin(stream: &CudaStream) {
    stream.begin_capture(Mode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL).unwrap();
}

/// Ends a capture whose graph does not matter.
fn end(stream: &CudaStream) -> Result<(), DriverError> {
    // SAFETY: the stream lives; a graph that comes is destroyed once.
    unsafe { result::graph::destroy(result::stream::end_capture(stream.cu_stream())?) }
}

#[test]
fn captured_work_runs_when_launched_and_each_time() {
    for seed in SEEDS {
        let context = context_with_seed(seed);
        let (stream, side) = (context.new_stream().unwrap(), context.new_stream().unwrap());
        let mut data = stream.alloc_zeros::<u32>(8).unwrap();
        let mut one = stream.alloc_zeros::<u32>(8).unwrap();
        let mut two = stream.alloc_zeros::<u32>(8).unwrap();
        let source = vec![5u32; 8];
        stream.synchronize().unwrap();
        begin(&stream);
        assert_eq!(stream.capture_status().unwrap(), Capturing::CU_STREAM_CAPTURE_STATUS_ACTIVE);
        // Pageable memory is captured by its address: what it holds at the launch counts.
        stream.memcpy_htod(&source, &mut data).unwrap();
        side.join(&stream).unwrap();
        side.memcpy_dtod(&data, &mut one).unwrap();
        stream.memcpy_dtod(&data, &mut two).unwrap();
        stream.join(&side).unwrap();
        stream.memset_zeros(&mut data).unwrap();
        let graph = stream.end_capture(Flags(0)).unwrap().unwrap();
        assert_eq!(stream.capture_status().unwrap(), Capturing::CU_STREAM_CAPTURE_STATUS_NONE);
        assert_eq!(stream.clone_dtoh(&one).unwrap(), [0; 8], "nothing was launched yet");
        for _ in 0..2 {
            graph.launch().unwrap();
            for copy in [&mut one, &mut two] {
                assert_eq!(stream.clone_dtoh(copy).unwrap(), [5; 8]);
                stream.memset_zeros(copy).unwrap();
            }
        }
        drop(source);
    }
}

#[test]
fn branches_of_a_graph_race_unless_they_are_joined() {
    planted("race between streams", |context, fault| {
        let (stream, side) = (context.new_stream()?, context.new_stream()?);
        let mut data = stream.alloc_zeros::<u32>(8)?;
        stream.synchronize()?;
        begin(&stream);
        side.join(&stream)?;
        side.memset_zeros(&mut data)?;
        if !fault {
            stream.join(&side)?;
        }
        stream.memset_zeros(&mut data)?;
        stream.join(&side)?;
        let graph = stream.end_capture(Flags(0))?.unwrap();
        graph.launch()?;
        stream.synchronize()
    });
}

#[test]
fn a_graph_may_allocate_what_it_frees() {
    let context = context();
    let stream = context.new_stream().unwrap();
    let mut out = stream.alloc_zeros::<u32>(8).unwrap();
    stream.synchronize().unwrap();
    begin(&stream);
    let scratch = stream.alloc_zeros::<u32>(8).unwrap();
    stream.memcpy_dtod(&scratch, &mut out).unwrap();
    drop(scratch);
    let graph = stream.end_capture(Flags(0)).unwrap().unwrap();
    for _ in 0..3 {
        graph.launch().unwrap();
    }
    assert_eq!(stream.clone_dtoh(&out).unwrap(), [0; 8]);
}

#[test]
fn waiting_for_a_capturing_stream_spoils_the_capture() {
    let context = context();
    let stream = context.new_stream().unwrap();
    begin(&stream);
    expect_refusal(stream.synchronize(), UNSUPPORTED, "neither be waited for");
    assert_eq!(stream.capture_status().unwrap(), Capturing::CU_STREAM_CAPTURE_STATUS_INVALIDATED);
    expect_refusal(end(&stream), INVALIDATED, "was waited for");
    // The stream is as good as new.
    begin(&stream);
    end(&stream).unwrap();
    stream.synchronize().unwrap();
}

#[test]
fn unsafe_calls_are_refused_while_capturing() {
    let context = context();
    let stream = context.new_stream().unwrap();
    let address = result::mem_get_info().map(|_| ()).and_then(|()| unsafe_malloc()).unwrap();
    type Call = fn(u64) -> Result<(), DriverError>;
    let calls: [(&str, Call); 5] = [
        ("cuCtxSynchronize", |_| result::ctx::synchronize()),
        ("cuMemAlloc_v2", |_| unsafe_malloc().map(drop)),
        // SAFETY: refused, or a good address freed once.
        ("cuMemFree_v2", |address| unsafe { result::free_sync(address) }),
        // SAFETY: refused, or a good range.
        ("cuMemsetD8_v2", |address| unsafe { result::memset_d8_sync(address, 0, 1) }),
        // SAFETY: the text is no PTX, which is a refusal in any case.
        ("cuModuleLoadData", |_| unsafe { result::module::load_data(c"".as_ptr().cast()) }.map(drop)),
    ];
    for (name, call) in calls {
        begin(&stream);
        expect_refusal(call(address), UNSUPPORTED, name);
        expect_refusal(end(&stream), INVALIDATED, name);
        // A relaxed capture permits them.
        stream.begin_capture(Mode::CU_STREAM_CAPTURE_MODE_RELAXED).unwrap();
        if name != "cuMemFree_v2" {
            assert_ne!(refused(call(address)).0, UNSUPPORTED, "{name}");
        }
        end(&stream).unwrap();
        // One of another thread does not care about this thread's.
        begin(&stream);
        std::thread::scope(|scope| {
            let bound = context.clone();
            scope.spawn(move || {
                bound.bind_to_thread().unwrap();
                if name != "cuMemFree_v2" {
                    assert_ne!(refused(call(address)).0, UNSUPPORTED, "{name}");
                }
            });
        });
        end(&stream).unwrap();
    }
}

fn unsafe_malloc() -> Result<u64, DriverError> {
    // SAFETY: the memory is not looked at.
    unsafe { result::malloc_sync(64) }
}

#[test]
fn events_inside_and_outside_do_not_mix() {
    let context = context();
    let (stream, other) = (context.new_stream().unwrap(), context.new_stream().unwrap());
    let _work = other.clone_htod(&[1u32; 8]).unwrap();
    let outside = other.record_event(None).unwrap();
    begin(&stream);
    expect_refusal(stream.wait(&outside), CUresult::CUDA_ERROR_STREAM_CAPTURE_ISOLATION, "outside the capture");
    expect_refusal(end(&stream), INVALIDATED, "outside the capture");
    begin(&stream);
    let inside = stream.record_event(None).unwrap();
    expect_refusal(inside.synchronize(), CUresult::CUDA_ERROR_CAPTURED_EVENT, "in a stream that captures");
    expect_refusal(end(&stream), INVALIDATED, "asked about");
    // Never recorded: nothing to wait for.
    begin(&stream);
    stream.wait(&context.new_event(None).unwrap()).unwrap();
    end(&stream).unwrap();
    context.synchronize().unwrap();
}

#[test]
fn captures_end_where_and_as_they_began() {
    let context = context();
    let (stream, side) = (context.new_stream().unwrap(), context.new_stream().unwrap());
    let mut data = stream.alloc_zeros::<u32>(8).unwrap();
    stream.synchronize().unwrap();
    expect_refusal(end(&stream), CUresult::CUDA_ERROR_ILLEGAL_STATE, "does not capture");
    begin(&stream);
    let again = stream.begin_capture(Mode::CU_STREAM_CAPTURE_MODE_RELAXED);
    expect_refusal(again, CUresult::CUDA_ERROR_ILLEGAL_STATE, "captures already");
    side.join(&stream).unwrap();
    expect_refusal(end(&side), CUresult::CUDA_ERROR_STREAM_CAPTURE_UNMATCHED, "in another stream");
    expect_refusal(end(&stream), INVALIDATED, "did not begin in");
    begin(&stream);
    side.join(&stream).unwrap();
    side.memset_zeros(&mut data).unwrap();
    expect_refusal(end(&stream), CUresult::CUDA_ERROR_STREAM_CAPTURE_UNJOINED, "not joined");
    begin(&stream);
    std::thread::scope(|scope| {
        let (bound, stream) = (&context, &stream);
        scope.spawn(move || {
            bound.bind_to_thread().unwrap();
            expect_refusal(end(stream), CUresult::CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD, "another thread");
        });
    });
    end(&stream).unwrap();
    begin(&stream);
    begin(&side);
    let event = stream.record_event(None).unwrap();
    expect_refusal(side.wait(&event), CUresult::CUDA_ERROR_STREAM_CAPTURE_MERGE, "another capture");
    expect_refusal(end(&stream), INVALIDATED, "another");
    expect_refusal(end(&side), INVALIDATED, "another");
    let legacy = context.default_stream().begin_capture(Mode::CU_STREAM_CAPTURE_MODE_RELAXED);
    expect_refusal(legacy, UNSUPPORTED, "legacy default stream cannot capture");
}

#[test]
fn the_legacy_stream_must_not_wait_for_a_capture() {
    let context = context();
    let raw = result::stream::create(result::stream::StreamKind::Default).unwrap();
    // SAFETY: the stream lives to the end of the process.
    let blocking = unsafe { context.wrap_borrowed_stream(raw) };
    let mut data = context.default_stream().alloc_zeros::<u32>(8).unwrap();
    context.synchronize().unwrap();
    begin(&blocking);
    let refusal = context.default_stream().memset_zeros(&mut data);
    expect_refusal(refusal, CUresult::CUDA_ERROR_STREAM_CAPTURE_IMPLICIT, "legacy default stream");
    expect_refusal(end(&blocking), INVALIDATED, "legacy default stream");
    context.default_stream().memset_zeros(&mut data).unwrap();
    context.synchronize().unwrap();
}
