//! `cuCtx*`.

use std::ffi::{c_int, c_uint, c_void};

use super::device::check_device;
use super::{Out, call};
use crate::driver::error::{Outcome, Status, fail, invalid};
use crate::driver::handle::{Kind, encode};
use crate::driver::state::{Driver, Locked};

/// Makes a context and pushes it on the thread's stack.
fn create(driver: &mut Locked, context: &Out<*mut c_void>, flags: c_uint, device: c_int) -> Outcome<()> {
    check_device(device)?;
    let serial = driver.create_context(flags)?;
    Driver::with_context_stack(|stack| stack.push(serial));
    context.put(driver.contexts.handle(serial))
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxCreate_v2(context: Out<*mut c_void>, flags: c_uint, device: c_int) -> Status {
    call("cuCtxCreate_v2", |driver| create(driver, &context, flags, device))
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxCreate_v3(
    context: Out<*mut c_void>,
    _affinity: *mut c_void,
    affinities: c_int,
    flags: c_uint,
    device: c_int,
) -> Status {
    call("cuCtxCreate_v3", |driver| {
        if affinities != 0 {
            return fail(Status::NOT_SUPPORTED, "the stand-in has no execution affinities");
        }
        create(driver, &context, flags, device)
    })
}

/// `CUctxCreateParams`.
#[repr(C)]
struct CreateParameters {
    affinity: *mut c_void,
    affinities: c_int,
    graphics: *mut c_void,
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxCreate_v4(
    context: Out<*mut c_void>,
    parameters: *const CreateParameters,
    flags: c_uint,
    device: c_int,
) -> Status {
    call("cuCtxCreate_v4", |driver| {
        // SAFETY: null, or what the interface wants there.
        if let Some(parameters) = unsafe { parameters.as_ref() }
            && (parameters.affinities != 0 || !parameters.affinity.is_null() || !parameters.graphics.is_null())
        {
            return fail(Status::NOT_SUPPORTED, "the stand-in has neither execution affinities nor graphics");
        }
        create(driver, &context, flags, device)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxDestroy_v2(context: *mut c_void) -> Status {
    call("cuCtxDestroy_v2", |driver| {
        let serial = driver.contexts.serial(context)?;
        if driver.primary.context == Some(serial) {
            return fail(Status::INVALID_CONTEXT, "the primary context is released, not destroyed");
        }
        driver.destroy_context(serial);
        // It is current in this thread no longer; other threads find it destroyed.
        Driver::with_context_stack(|stack| stack.pop_if(|top| *top == serial));
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxPushCurrent_v2(context: *mut c_void) -> Status {
    call("cuCtxPushCurrent_v2", |driver| {
        let serial = driver.contexts.serial(context)?;
        Driver::with_context_stack(|stack| stack.push(serial));
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxPopCurrent_v2(context: Out<*mut c_void>) -> Status {
    call("cuCtxPopCurrent_v2", |driver| match Driver::with_context_stack(Vec::pop) {
        Some(serial) => {
            context.put_if_wanted(driver.contexts.handle(serial));
            Ok(())
        }
        None => fail(Status::INVALID_CONTEXT, "no context is current in this thread"),
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxSetCurrent(context: *mut c_void) -> Status {
    call("cuCtxSetCurrent", |driver| {
        let serial = if context.is_null() { None } else { Some(driver.contexts.serial(context)?) };
        Driver::with_context_stack(|stack| {
            stack.pop();
            stack.extend(serial);
        });
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxGetCurrent(context: Out<*mut c_void>) -> Status {
    call("cuCtxGetCurrent", |_| {
        let current = Driver::with_context_stack(|stack| stack.last().copied());
        context.put(current.map_or(std::ptr::null_mut(), |serial| encode(Kind::Context, serial)))
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxGetDevice(device: Out<c_int>) -> Status {
    call("cuCtxGetDevice", |driver| {
        driver.current()?;
        device.put(0)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxGetApiVersion(context: *mut c_void, version: Out<c_uint>) -> Status {
    call("cuCtxGetApiVersion", |driver| {
        if !context.is_null() {
            driver.contexts.serial(context)?;
        }
        version.put(3020)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxGetFlags(flags: Out<c_uint>) -> Status {
    call("cuCtxGetFlags", |driver| {
        let current = driver.current()?;
        flags.put(driver.contexts.find(current).map_or(0, |context| context.flags))
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxSetFlags(flags: c_uint) -> Status {
    call("cuCtxSetFlags", |driver| {
        let current = driver.current()?;
        if let Some(context) = driver.contexts.find_mut(current) {
            context.flags = flags;
        }
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxSynchronize() -> Status {
    call("cuCtxSynchronize", |driver| driver.synchronize_current("cuCtxSynchronize"))
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxGetLimit(value: Out<usize>, limit: c_uint) -> Status {
    call("cuCtxGetLimit", |driver| {
        let current = driver.current()?;
        match driver.contexts.find(current).and_then(|context| context.limits.get(&limit)) {
            Some(set) => value.put(*set),
            None => fail(Status::UNSUPPORTED_LIMIT, format!("there is no limit {limit}")),
        }
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxSetLimit(limit: c_uint, value: usize) -> Status {
    call("cuCtxSetLimit", |driver| {
        let current = driver.current()?;
        match driver.contexts.find_mut(current).and_then(|context| context.limits.get_mut(&limit)) {
            Some(set) => {
                *set = value;
                Ok(())
            }
            None => fail(Status::UNSUPPORTED_LIMIT, format!("there is no limit {limit}")),
        }
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxGetCacheConfig(config: Out<c_uint>) -> Status {
    call("cuCtxGetCacheConfig", |driver| {
        let current = driver.current()?;
        config.put(driver.contexts.find(current).map_or(0, |context| context.cache_config))
    })
}

/// `CU_FUNC_CACHE_PREFER_EQUAL`, the last.
pub(super) const LAST_CACHE_CONFIG: c_uint = 3;

#[unsafe(no_mangle)]
extern "C" fn cuCtxSetCacheConfig(config: c_uint) -> Status {
    call("cuCtxSetCacheConfig", |driver| {
        let current = driver.current()?;
        if config > LAST_CACHE_CONFIG {
            return invalid(format!("{config} is no cache configuration"));
        }
        if let Some(context) = driver.contexts.find_mut(current) {
            context.cache_config = config;
        }
        Ok(())
    })
}

/// Least and greatest priority of streams.
pub(super) const PRIORITIES: (c_int, c_int) = (0, -5);

#[unsafe(no_mangle)]
extern "C" fn cuCtxGetStreamPriorityRange(least: Out<c_int>, greatest: Out<c_int>) -> Status {
    call("cuCtxGetStreamPriorityRange", |driver| {
        driver.current()?;
        least.put_if_wanted(PRIORITIES.0);
        greatest.put_if_wanted(PRIORITIES.1);
        Ok(())
    })
}
