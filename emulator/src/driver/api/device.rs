//! `cuInit`, `cuDevice*`, `cuGetError*`, `cuProfiler*`.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};

use super::{Out, call};
use crate::driver::attributes;
use crate::driver::error::{Outcome, Status, diagnosis, fail, invalid};
use crate::driver::state::{Driver, Locked};

/// The CUDA version that the stand-in answers to, in the form of `CUDA_VERSION`.
const CUDA_VERSION: c_int = 12_090;

/// There is one device.
pub(super) fn check_device(device: c_int) -> Outcome<()> {
    if device != 0 {
        return fail(Status::INVALID_DEVICE, format!("there is no device {device}: the stand-in is one device, 0"));
    }
    Ok(())
}

#[unsafe(no_mangle)]
extern "C" fn cuInit(flags: c_uint) -> Status {
    Locked::new().initialised = true;
    call("cuInit", |_| if flags == 0 { Ok(()) } else { invalid("flags must be 0") })
}

#[unsafe(no_mangle)]
extern "C" fn cuDriverGetVersion(version: Out<c_int>) -> Status {
    match version.put(CUDA_VERSION) {
        Ok(()) => Status::SUCCESS,
        Err(failure) => failure.status,
    }
}

#[unsafe(no_mangle)]
extern "C" fn cuDeviceGet(device: Out<c_int>, ordinal: c_int) -> Status {
    call("cuDeviceGet", |_| {
        check_device(ordinal)?;
        device.put(ordinal)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuDeviceGetCount(count: Out<c_int>) -> Status {
    call("cuDeviceGetCount", |_| count.put(1))
}

#[unsafe(no_mangle)]
extern "C" fn cuDeviceGetName(name: Out<c_char>, length: c_int, device: c_int) -> Status {
    call("cuDeviceGetName", |driver| {
        check_device(device)?;
        let text = format!("PTX emulator posing as {}", driver.origin().settings.target);
        let room = usize::try_from(length).unwrap_or(0);
        if name.0.is_null() || room == 0 {
            return invalid("there is no room for the name");
        }
        let bytes = text.bytes().take(room - 1).chain([0]);
        for (index, byte) in bytes.enumerate() {
            // SAFETY: the caller has room for `length` characters, and no more are written.
            unsafe { name.0.add(index).write(byte as c_char) };
        }
        Ok(())
    })
}

/// The same on every machine: there is only one such device.
const UUID: [u8; 16] = *b"ptx-emulator 0\0\0";

#[unsafe(no_mangle)]
extern "C" fn cuDeviceGetUuid(uuid: Out<[u8; 16]>, device: c_int) -> Status {
    call("cuDeviceGetUuid", |_| {
        check_device(device)?;
        uuid.put(UUID)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuDeviceGetUuid_v2(uuid: Out<[u8; 16]>, device: c_int) -> Status {
    cuDeviceGetUuid(uuid, device)
}

#[unsafe(no_mangle)]
extern "C" fn cuDeviceTotalMem_v2(bytes: Out<usize>, device: c_int) -> Status {
    call("cuDeviceTotalMem_v2", |_| {
        check_device(device)?;
        bytes.put(Driver::device_bytes() as usize)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuDeviceGetAttribute(value: Out<c_int>, attribute: c_uint, device: c_int) -> Status {
    call("cuDeviceGetAttribute", |driver| {
        check_device(device)?;
        value.put(attributes::of_device(driver.origin().settings.target, attribute)?)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuDeviceCanAccessPeer(can: Out<c_int>, device: c_int, peer: c_int) -> Status {
    call("cuDeviceCanAccessPeer", |_| {
        check_device(device)?;
        check_device(peer)?;
        can.put(0)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuDevicePrimaryCtxRetain(context: Out<*mut c_void>, device: c_int) -> Status {
    call("cuDevicePrimaryCtxRetain", |driver| {
        check_device(device)?;
        let serial = driver.retain_primary()?;
        context.put(driver.contexts.handle(serial))
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuDevicePrimaryCtxRelease_v2(device: c_int) -> Status {
    call("cuDevicePrimaryCtxRelease_v2", |driver| {
        check_device(device)?;
        driver.release_primary()
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuDevicePrimaryCtxReset_v2(device: c_int) -> Status {
    call("cuDevicePrimaryCtxReset_v2", |driver| {
        check_device(device)?;
        if let Some(context) = driver.primary.context.take() {
            driver.primary.retained = 0;
            driver.destroy_context(context);
        }
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuDevicePrimaryCtxGetState(device: c_int, flags: Out<c_uint>, active: Out<c_int>) -> Status {
    call("cuDevicePrimaryCtxGetState", |driver| {
        check_device(device)?;
        flags.put(driver.primary.flags)?;
        active.put(c_int::from(driver.primary.context.is_some()))
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuDevicePrimaryCtxSetFlags_v2(device: c_int, flags: c_uint) -> Status {
    call("cuDevicePrimaryCtxSetFlags_v2", |driver| {
        check_device(device)?;
        driver.primary.flags = flags;
        Ok(())
    })
}

/// Writes a text of the status, or null for a number that is no status.
fn put_text(text: Option<&'static CStr>, to: &Out<*const c_char>) -> Status {
    let pointer = text.map_or(std::ptr::null(), CStr::as_ptr);
    if to.put(pointer).is_err() || pointer.is_null() { Status::INVALID_VALUE } else { Status::SUCCESS }
}

#[unsafe(no_mangle)]
extern "C" fn cuGetErrorName(status: Status, name: Out<*const c_char>) -> Status {
    put_text(status.describe().map(|(name, _)| name), &name)
}

#[unsafe(no_mangle)]
extern "C" fn cuGetErrorString(status: Status, text: Out<*const c_char>) -> Status {
    put_text(diagnosis(status), &text)
}

#[unsafe(no_mangle)]
extern "C" fn cuProfilerStart() -> Status {
    call("cuProfilerStart", |_| Ok(()))
}

#[unsafe(no_mangle)]
extern "C" fn cuProfilerStop() -> Status {
    call("cuProfilerStop", |_| Ok(()))
}
