//! `cuMemcpy*` and `cuMemset*`.

use std::ffi::{c_uint, c_void};

use super::call;
use crate::driver::copies::{CopyRequest, End};
use crate::driver::error::{Outcome, Status, invalid};
use crate::driver::state::Locked;
use crate::driver::work::Fill;

/// A copy in one row: in the legacy stream and done before the call returns as far as CUDA promises it, or in a stream.
fn copy(call_name: &'static str, from: End, to: End, bytes: usize, stream: Option<*mut c_void>) -> Status {
    let width = bytes as u64;
    call(call_name, |driver| {
        let pitches = (width, width);
        driver.copy(&CopyRequest { call: call_name, from, to, width, height: 1, pitches }, stream)
    })
}

fn host(pointer: *const c_void) -> End {
    End::Host(pointer.expose_provenance() as u64)
}

#[unsafe(no_mangle)]
extern "C" fn cuMemcpyHtoD_v2(to: u64, from: *const c_void, bytes: usize) -> Status {
    copy("cuMemcpyHtoD_v2", host(from), End::Device(to), bytes, None)
}

#[unsafe(no_mangle)]
extern "C" fn cuMemcpyDtoH_v2(to: *mut c_void, from: u64, bytes: usize) -> Status {
    copy("cuMemcpyDtoH_v2", End::Device(from), host(to), bytes, None)
}

#[unsafe(no_mangle)]
extern "C" fn cuMemcpyDtoD_v2(to: u64, from: u64, bytes: usize) -> Status {
    copy("cuMemcpyDtoD_v2", End::Device(from), End::Device(to), bytes, None)
}

#[unsafe(no_mangle)]
extern "C" fn cuMemcpy(to: u64, from: u64, bytes: usize) -> Status {
    copy("cuMemcpy", End::Either(from), End::Either(to), bytes, None)
}

#[unsafe(no_mangle)]
extern "C" fn cuMemcpyHtoDAsync_v2(to: u64, from: *const c_void, bytes: usize, stream: *mut c_void) -> Status {
    copy("cuMemcpyHtoDAsync_v2", host(from), End::Device(to), bytes, Some(stream))
}

#[unsafe(no_mangle)]
extern "C" fn cuMemcpyDtoHAsync_v2(to: *mut c_void, from: u64, bytes: usize, stream: *mut c_void) -> Status {
    copy("cuMemcpyDtoHAsync_v2", End::Device(from), host(to), bytes, Some(stream))
}

#[unsafe(no_mangle)]
extern "C" fn cuMemcpyDtoDAsync_v2(to: u64, from: u64, bytes: usize, stream: *mut c_void) -> Status {
    copy("cuMemcpyDtoDAsync_v2", End::Device(from), End::Device(to), bytes, Some(stream))
}

#[unsafe(no_mangle)]
extern "C" fn cuMemcpyAsync(to: u64, from: u64, bytes: usize, stream: *mut c_void) -> Status {
    copy("cuMemcpyAsync", End::Either(from), End::Either(to), bytes, Some(stream))
}

#[unsafe(no_mangle)]
extern "C" fn cuMemcpyPeerAsync(
    to: u64,
    to_context: *mut c_void,
    from: u64,
    from_context: *mut c_void,
    bytes: usize,
    stream: *mut c_void,
) -> Status {
    let known = call("cuMemcpyPeerAsync", |driver| {
        driver.contexts.serial(to_context)?;
        driver.contexts.serial(from_context).map(|_| ())
    });
    if known != Status::SUCCESS {
        return known;
    }
    copy("cuMemcpyPeerAsync", End::Device(from), End::Device(to), bytes, Some(stream))
}

/// `CUDA_MEMCPY2D`.
#[repr(C)]
struct Copy2d {
    from_x: usize,
    from_y: usize,
    from_type: c_uint,
    from_host: *const c_void,
    from_device: u64,
    from_array: *mut c_void,
    from_pitch: usize,
    to_x: usize,
    to_y: usize,
    to_type: c_uint,
    to_host: *mut c_void,
    to_device: u64,
    to_array: *mut c_void,
    to_pitch: usize,
    width: usize,
    height: usize,
}

/// One end of a two-dimensional copy: `CUmemorytype`, the addresses for it, pitch and offsets.
fn end(kind: c_uint, host: u64, device: u64, array: *mut c_void, offset: u64) -> Outcome<End> {
    match kind {
        1 => Ok(End::Host(host.wrapping_add(offset))),
        2 => Ok(End::Device(device.wrapping_add(offset))),
        4 => Ok(End::Either(device.wrapping_add(offset))),
        other => invalid(format!("memory of type {other} ({array:?}): the stand-in has no arrays")),
    }
}

fn copy_2d(call_name: &'static str, request: *const Copy2d, stream: Option<*mut c_void>) -> Status {
    call(call_name, |driver| {
        // SAFETY: null, or what the interface wants there.
        let Some(r) = (unsafe { request.as_ref() }) else { return invalid("the description is null") };
        // A pitch of 0 means rows without gaps.
        let pitch = |pitch: usize| if pitch == 0 { r.width as u64 } else { pitch as u64 };
        let (from_pitch, to_pitch) = (pitch(r.from_pitch), pitch(r.to_pitch));
        let too_short = |pitch: u64, x: usize| pitch < r.width as u64 + x as u64 && r.height > 1;
        if too_short(from_pitch, r.from_x) || too_short(to_pitch, r.to_x) {
            return invalid(format!("rows of {} bytes do not fit pitches {from_pitch} and {to_pitch}", r.width));
        }
        let offset = |x: usize, y: usize, pitch: u64| (y as u64).wrapping_mul(pitch).wrapping_add(x as u64);
        let (from_host, to_host) = (r.from_host.expose_provenance() as u64, r.to_host.expose_provenance() as u64);
        let from_offset = offset(r.from_x, r.from_y, from_pitch);
        let from = end(r.from_type, from_host, r.from_device, r.from_array, from_offset)?;
        let to = end(r.to_type, to_host, r.to_device, r.to_array, offset(r.to_x, r.to_y, to_pitch))?;
        let (width, height) = (r.width as u64, r.height as u64);
        driver.copy(&CopyRequest { call: call_name, from, to, width, height, pitches: (from_pitch, to_pitch) }, stream)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemcpy2D_v2(request: *const Copy2d) -> Status {
    copy_2d("cuMemcpy2D_v2", request, None)
}

#[unsafe(no_mangle)]
extern "C" fn cuMemcpy2DUnaligned_v2(request: *const Copy2d) -> Status {
    copy_2d("cuMemcpy2DUnaligned_v2", request, None)
}

#[unsafe(no_mangle)]
extern "C" fn cuMemcpy2DAsync_v2(request: *const Copy2d, stream: *mut c_void) -> Status {
    copy_2d("cuMemcpy2DAsync_v2", request, Some(stream))
}

/// A fill of rows; `pitch` counts bytes.
fn fill(
    call: &'static str,
    driver: &mut Locked,
    to: u64,
    pattern: &[u8],
    (width, height, pitch): (usize, usize, usize),
    stream: Option<*mut c_void>,
) -> Outcome<()> {
    let (width, height, pitch) = (width as u64, height as u64, pitch as u64);
    driver.fill(Fill { call, to, pattern: pattern.to_vec(), width, height, pitch }, stream)
}

macro_rules! fills {
    ($($value:ty, $name:ident, $name_async:ident, $name_2d:ident, $name_2d_async:ident;)*) => { $(
        #[unsafe(no_mangle)]
        extern "C" fn $name(to: u64, value: $value, count: usize) -> Status {
            let name = stringify!($name);
            call(name, |driver| fill(name, driver, to, &value.to_ne_bytes(), (count, 1, 0), None))
        }

        #[unsafe(no_mangle)]
        extern "C" fn $name_async(to: u64, value: $value, count: usize, stream: *mut c_void) -> Status {
            let name = stringify!($name_async);
            call(name, |driver| fill(name, driver, to, &value.to_ne_bytes(), (count, 1, 0), Some(stream)))
        }

        #[unsafe(no_mangle)]
        extern "C" fn $name_2d(to: u64, pitch: usize, value: $value, width: usize, height: usize) -> Status {
            let name = stringify!($name_2d);
            call(name, |driver| fill(name, driver, to, &value.to_ne_bytes(), (width, height, pitch), None))
        }

        #[unsafe(no_mangle)]
        extern "C" fn $name_2d_async(
            to: u64,
            pitch: usize,
            value: $value,
            width: usize,
            height: usize,
            stream: *mut c_void,
        ) -> Status {
            let name = stringify!($name_2d_async);
            call(name, |driver| fill(name, driver, to, &value.to_ne_bytes(), (width, height, pitch), Some(stream)))
        }
    )* };
}

fills! {
    u8, cuMemsetD8_v2, cuMemsetD8Async, cuMemsetD2D8_v2, cuMemsetD2D8Async;
    u16, cuMemsetD16_v2, cuMemsetD16Async, cuMemsetD2D16_v2, cuMemsetD2D16Async;
    u32, cuMemsetD32_v2, cuMemsetD32Async, cuMemsetD2D32_v2, cuMemsetD2D32Async;
}
