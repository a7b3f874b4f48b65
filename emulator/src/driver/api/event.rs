//! `cuEvent*`.

use std::ffi::{c_uint, c_void};
use std::sync::Arc;

use super::{Out, call};
use crate::driver::error::{Outcome, Status, fail, invalid};
use crate::driver::schedule::Node;
use crate::driver::state::Locked;
use crate::driver::stream::{Event, Record};

const DISABLE_TIMING: c_uint = 2;
const INTERPROCESS: c_uint = 4;

#[unsafe(no_mangle)]
extern "C" fn cuEventCreate(event: Out<*mut c_void>, flags: c_uint) -> Status {
    call("cuEventCreate", |driver| {
        let context = driver.current()?;
        if flags > 7 || (flags & INTERPROCESS != 0 && flags & DISABLE_TIMING == 0) {
            return invalid(format!("{flags:#x} are no flags of an event"));
        }
        if flags & INTERPROCESS != 0 {
            return fail(Status::NOT_SUPPORTED, "the stand-in has no events between processes");
        }
        let timed = flags & DISABLE_TIMING == 0;
        let serial = driver.events.insert(Event { context, timed, record: Record::Nothing });
        event.put(driver.events.handle(serial))
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuEventDestroy_v2(event: *mut c_void) -> Status {
    call("cuEventDestroy_v2", |driver| {
        let serial = driver.events.serial(event)?;
        driver.events.remove(serial);
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuEventRecord(event: *mut c_void, stream: *mut c_void) -> Status {
    call("cuEventRecord", |driver| {
        let stream = driver.stream(stream)?;
        driver.record_event(event, stream)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuEventRecordWithFlags(event: *mut c_void, stream: *mut c_void, flags: c_uint) -> Status {
    call("cuEventRecordWithFlags", |driver| {
        if flags != 0 {
            return fail(Status::NOT_SUPPORTED, "the stand-in records events without flags only");
        }
        let stream = driver.stream(stream)?;
        driver.record_event(event, stream)
    })
}

/// What the host waits for or asks about: the event's work, in a context that is whole.
fn recorded(driver: &mut Locked, call: &str, event: *mut c_void) -> Outcome<Option<Arc<Node>>> {
    let node = driver.recorded(event)?;
    driver.refuse_while_capturing(call)?;
    Ok(node)
}

#[unsafe(no_mangle)]
extern "C" fn cuEventQuery(event: *mut c_void) -> Status {
    call("cuEventQuery", |driver| {
        let node = recorded(driver, "cuEventQuery", event)?;
        let outcome = node.map_or(Ok(()), |node| driver.poll(&node));
        let context = driver.events.get(event)?.context;
        driver.check_context(context).and(outcome)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuEventSynchronize(event: *mut c_void) -> Status {
    call("cuEventSynchronize", |driver| {
        let node = recorded(driver, "cuEventSynchronize", event)?;
        let context = driver.events.get(event)?.context;
        if let Some(node) = node {
            driver.wait_for(&[node]);
        }
        driver.check_context(context)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuEventElapsedTime(milliseconds: Out<f32>, start: *mut c_void, end: *mut c_void) -> Status {
    call("cuEventElapsedTime", |driver| {
        let elapsed = driver.elapsed(start, end)?;
        milliseconds.put(elapsed)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuEventElapsedTime_v2(milliseconds: Out<f32>, start: *mut c_void, end: *mut c_void) -> Status {
    cuEventElapsedTime(milliseconds, start, end)
}
