//! `cuStream*`, `cuLaunchHostFunc`.

use std::ffi::{c_int, c_uint, c_void};

use super::context::PRIORITIES;
use super::{Out, call};
use crate::driver::allocations::Origin;
use crate::driver::error::{Outcome, Status, fail, invalid};
use crate::driver::state::Locked;
use crate::driver::stream::{Rule, Stream};
use crate::driver::work::{HostFunction, Work};

const NON_BLOCKING: c_uint = 1;

fn create(driver: &mut Locked, stream: &Out<*mut c_void>, flags: c_uint, priority: c_int) -> Outcome<()> {
    let context = driver.current()?;
    let rule = match flags {
        0 => Rule::Blocking,
        NON_BLOCKING => Rule::NonBlocking,
        other => return invalid(format!("{other:#x} are no flags of a stream")),
    };
    // A priority outside the range is moved to its nearer end.
    let priority = priority.clamp(PRIORITIES.1, PRIORITIES.0);
    let serial = driver.streams.insert(Stream::new(context, rule, priority));
    stream.put(driver.streams.handle(serial))
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamCreate(stream: Out<*mut c_void>, flags: c_uint) -> Status {
    call("cuStreamCreate", |driver| create(driver, &stream, flags, 0))
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamCreateWithPriority(stream: Out<*mut c_void>, flags: c_uint, priority: c_int) -> Status {
    call("cuStreamCreateWithPriority", |driver| create(driver, &stream, flags, priority))
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamDestroy_v2(stream: *mut c_void) -> Status {
    call("cuStreamDestroy_v2", |driver| driver.destroy_stream(stream))
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamSynchronize(stream: *mut c_void) -> Status {
    call("cuStreamSynchronize", |driver| {
        let stream = driver.stream(stream)?;
        driver.refuse_captured_stream(stream)?;
        driver.refuse_while_capturing("cuStreamSynchronize")?;
        driver.synchronize_stream(stream)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamQuery(stream: *mut c_void) -> Status {
    call("cuStreamQuery", |driver| {
        let stream = driver.stream(stream)?;
        driver.refuse_captured_stream(stream)?;
        driver.refuse_while_capturing("cuStreamQuery")?;
        driver.query_stream(stream)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamWaitEvent(stream: *mut c_void, event: *mut c_void, flags: c_uint) -> Status {
    call("cuStreamWaitEvent", |driver| {
        if flags > 1 {
            return invalid(format!("{flags:#x} are no flags of a wait"));
        }
        let stream = driver.stream(stream)?;
        driver.wait_event(stream, event)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamGetCtx(stream: *mut c_void, context: Out<*mut c_void>) -> Status {
    call("cuStreamGetCtx", |driver| {
        let stream = driver.stream(stream)?;
        context.put(driver.contexts.handle(driver.context_of(stream)))
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamGetFlags(stream: *mut c_void, flags: Out<c_uint>) -> Status {
    call("cuStreamGetFlags", |driver| {
        let stream = driver.stream(stream)?;
        let rule = driver.streams.find(stream).map(|stream| stream.rule);
        flags.put(if rule == Some(Rule::NonBlocking) { NON_BLOCKING } else { 0 })
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamGetPriority(stream: *mut c_void, priority: Out<c_int>) -> Status {
    call("cuStreamGetPriority", |driver| {
        let stream = driver.stream(stream)?;
        priority.put(driver.streams.find(stream).map_or(0, |stream| stream.priority))
    })
}

/// `CU_MEM_ATTACH_SINGLE`.
const ATTACH_SINGLE: c_uint = 4;

#[unsafe(no_mangle)]
extern "C" fn cuStreamAttachMemAsync(stream: *mut c_void, address: u64, _bytes: usize, flags: c_uint) -> Status {
    call("cuStreamAttachMemAsync", |driver| {
        if !matches!(flags, 1 | 2 | ATTACH_SINGLE) {
            return invalid(format!("{flags:#x} are no flags of an attachment"));
        }
        if flags == ATTACH_SINGLE && stream.is_null() {
            return invalid("memory cannot be attached to the legacy default stream alone");
        }
        if driver.allocations.at(address).map(|allocation| allocation.origin) != Some(Origin::Managed) {
            return invalid(format!("no managed memory begins at {address:#x}"));
        }
        let stream = driver.stream(stream)?;
        driver.submit(stream, Work::Marker)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamBeginCapture_v2(stream: *mut c_void, mode: c_uint) -> Status {
    call("cuStreamBeginCapture_v2", |driver| {
        let stream = driver.stream(stream)?;
        driver.begin_capture(stream, mode)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamEndCapture(stream: *mut c_void, graph: Out<*mut c_void>) -> Status {
    call("cuStreamEndCapture", |driver| {
        graph.put(std::ptr::null_mut())?;
        let stream = driver.stream(stream)?;
        let serial = driver.end_capture(stream)?;
        graph.put(driver.graphs.handle(serial))
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamIsCapturing(stream: *mut c_void, status: Out<c_uint>) -> Status {
    call("cuStreamIsCapturing", |driver| {
        let stream = driver.stream(stream)?;
        driver.frontier_of_legacy(stream)?;
        status.put(driver.capture_status(stream).0)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamGetCaptureInfo_v2(
    stream: *mut c_void,
    status: Out<c_uint>,
    id: Out<u64>,
    graph: Out<*mut c_void>,
    dependencies: Out<*const c_void>,
    dependency_count: Out<usize>,
) -> Status {
    call("cuStreamGetCaptureInfo_v2", |driver| {
        let wanted = [graph.0.is_null(), dependencies.0.is_null(), dependency_count.0.is_null()];
        if wanted.contains(&false) {
            return fail(Status::NOT_SUPPORTED, "the nodes of a capture under way cannot be looked at");
        }
        let stream = driver.stream(stream)?;
        let (state, serial) = driver.capture_status(stream);
        id.put_if_wanted(serial);
        status.put(state)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuLaunchHostFunc(
    stream: *mut c_void,
    function: Option<unsafe extern "C" fn(*mut c_void)>,
    argument: *mut c_void,
) -> Status {
    call("cuLaunchHostFunc", |driver| {
        let Some(function) = function else { return invalid("the host function is null") };
        let stream = driver.stream(stream)?;
        driver.submit(stream, Work::Host(HostFunction { function, argument: argument.expose_provenance() }))
    })
}
