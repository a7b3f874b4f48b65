//! `cuMem*` but for copies and pools, `cuPointer*`, and external memory, which there is none of.

use std::ffi::{c_int, c_uint, c_void};

use super::{Out, call};
use crate::driver::allocations::{Allocation, Origin};
use crate::driver::error::{Outcome, Status, fail, invalid};
use crate::driver::state::Locked;
use crate::driver::work::Work;

#[unsafe(no_mangle)]
extern "C" fn cuMemGetInfo_v2(free: Out<usize>, total: Out<usize>) -> Status {
    call("cuMemGetInfo_v2", |driver| {
        driver.current()?;
        let (free_bytes, total_bytes) = driver.memory()?.free_and_total();
        free.put(free_bytes as usize)?;
        total.put(total_bytes as usize)
    })
}

/// Allocates for the current context; nothing that could wait for the device is allowed during a capture.
fn allocate(driver: &mut Locked, call: &str, bytes: usize, origin: Origin) -> Outcome<u64> {
    let context = driver.current()?;
    driver.refuse_while_capturing(call)?;
    if bytes == 0 {
        return invalid("0 bytes are asked for");
    }
    driver.allocate(bytes as u64, context, origin)
}

#[unsafe(no_mangle)]
extern "C" fn cuMemAlloc_v2(address: Out<u64>, bytes: usize) -> Status {
    call("cuMemAlloc_v2", |driver| {
        let allocated = allocate(driver, "cuMemAlloc_v2", bytes, Origin::Device)?;
        address.put(allocated)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemAllocPitch_v2(
    address: Out<u64>,
    pitch: Out<usize>,
    width: usize,
    height: usize,
    _element_bytes: c_uint,
) -> Status {
    call("cuMemAllocPitch_v2", |driver| {
        // Rows begin at multiples of the texture alignment, as they do on these architectures.
        let row = width.checked_next_multiple_of(512);
        let Some((row, bytes)) = row.and_then(|row| Some((row, row.checked_mul(height)?))) else {
            return fail(Status::OUT_OF_MEMORY, format!("{height} rows of {width} bytes"));
        };
        let allocated = allocate(driver, "cuMemAllocPitch_v2", bytes, Origin::Device)?;
        pitch.put(row)?;
        address.put(allocated)
    })
}

/// Frees device memory at once, whatever still waits: the manual promises no more, and what uses the memory afterwards is
/// told so. Managed memory is freed when all work of the context is done, as drivers do; cudarc relies on that.
#[unsafe(no_mangle)]
extern "C" fn cuMemFree_v2(address: u64) -> Status {
    call("cuMemFree_v2", |driver| {
        driver.current()?;
        driver.refuse_while_capturing("cuMemFree_v2")?;
        if address == 0 {
            return Ok(());
        }
        match driver.allocations.at(address).map(|allocation| allocation.origin) {
            Some(Origin::Device | Origin::StreamOrdered { freed: false, .. }) => driver.release(address),
            Some(Origin::Managed) => {
                let waited = driver.current().and_then(|current| driver.synchronize_context(current));
                driver.release(address).and(waited)
            }
            Some(Origin::StreamOrdered { .. }) => invalid(format!("{address:#x} is freed a second time")),
            Some(Origin::Pinned { .. } | Origin::Registered { .. }) => {
                invalid(format!("{address:#x} is memory of the host; free it with cuMemFreeHost"))
            }
            None => {
                let fault = driver.memory()?.fault_at(address);
                invalid(format!("no allocation begins at {address:#x}: {fault}"))
            }
        }
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemAllocManaged(address: Out<u64>, bytes: usize, flags: c_uint) -> Status {
    call("cuMemAllocManaged", |driver| {
        if !matches!(flags, 1 | 2) {
            return invalid(format!("{flags:#x}: managed memory begins as global (1) or host (2)"));
        }
        let allocated = allocate(driver, "cuMemAllocManaged", bytes, Origin::Managed)?;
        address.put(allocated)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemHostAlloc(pointer: Out<*mut c_void>, bytes: usize, flags: c_uint) -> Status {
    call("cuMemHostAlloc", |driver| {
        if flags > 7 {
            return invalid(format!("{flags:#x} are no flags of pinned memory"));
        }
        let allocated = allocate(driver, "cuMemHostAlloc", bytes, Origin::Pinned { flags })?;
        pointer.put(std::ptr::with_exposed_provenance_mut(allocated as usize))
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemAllocHost_v2(pointer: Out<*mut c_void>, bytes: usize) -> Status {
    cuMemHostAlloc(pointer, bytes, 0)
}

/// Frees at once, as `cuMemFree_v2` does.
#[unsafe(no_mangle)]
extern "C" fn cuMemFreeHost(pointer: *mut c_void) -> Status {
    call("cuMemFreeHost", |driver| {
        driver.current()?;
        driver.refuse_while_capturing("cuMemFreeHost")?;
        let address = pointer.addr() as u64;
        match driver.allocations.at(address).map(|allocation| allocation.origin) {
            Some(Origin::Pinned { .. }) => driver.release(address),
            _ => invalid(format!("no memory from cuMemHostAlloc begins at {pointer:?} (was it freed before?)")),
        }
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemHostRegister_v2(pointer: *mut c_void, bytes: usize, flags: c_uint) -> Status {
    call("cuMemHostRegister_v2", |driver| {
        let context = driver.current()?;
        if pointer.is_null() || bytes == 0 {
            return invalid("there is no memory to register");
        }
        let address = pointer.expose_provenance() as u64;
        let last = address + bytes as u64 - 1;
        if driver.allocations.containing(address).or(driver.allocations.containing(last)).is_some() {
            return fail(Status::HOST_MEMORY_ALREADY_REGISTERED, format!("{pointer:?} is known to the driver already"));
        }
        // SAFETY: the interface wants it to stay valid until it is unregistered.
        unsafe { driver.memory()?.register_host(address, bytes as u64) };
        let allocation = Allocation { bytes: bytes as u64, context, origin: Origin::Registered { flags } };
        driver.allocations.insert(address, allocation);
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemHostUnregister(pointer: *mut c_void) -> Status {
    call("cuMemHostUnregister", |driver| {
        driver.current()?;
        let address = pointer.addr() as u64;
        match driver.allocations.at(address).map(|allocation| allocation.origin) {
            Some(Origin::Registered { .. }) => driver.release(address),
            _ => fail(Status::HOST_MEMORY_NOT_REGISTERED, format!("{pointer:?} is not registered")),
        }
    })
}

/// Pinned and registered memory as the device sees it, and its flags.
fn host_memory(driver: &mut Locked, pointer: *mut c_void) -> Outcome<(u64, c_uint)> {
    driver.current()?;
    let address = pointer.addr() as u64;
    match driver.allocations.containing(address).map(|(_, allocation)| allocation.origin) {
        Some(Origin::Pinned { flags } | Origin::Registered { flags }) => Ok((address, flags)),
        _ => invalid(format!("{pointer:?} is neither pinned nor registered")),
    }
}

#[unsafe(no_mangle)]
extern "C" fn cuMemHostGetDevicePointer_v2(address: Out<u64>, pointer: *mut c_void, _flags: c_uint) -> Status {
    call("cuMemHostGetDevicePointer_v2", |driver| {
        let (found, _) = host_memory(driver, pointer)?;
        address.put(found)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemHostGetFlags(flags: Out<c_uint>, pointer: *mut c_void) -> Status {
    call("cuMemHostGetFlags", |driver| {
        let (_, found) = host_memory(driver, pointer)?;
        flags.put(found)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemGetAddressRange_v2(base: Out<u64>, bytes: Out<usize>, address: u64) -> Status {
    call("cuMemGetAddressRange_v2", |driver| {
        driver.current()?;
        let Some((start, allocation)) = driver.allocations.containing(address) else {
            return fail(Status::NOT_FOUND, format!("{address:#x} is in no allocation"));
        };
        base.put_if_wanted(start);
        bytes.put_if_wanted(allocation.bytes as usize);
        Ok(())
    })
}

/// Attributes of a pointer, by their numbers in `CUpointer_attribute`.
#[unsafe(no_mangle)]
extern "C" fn cuPointerGetAttribute(value: *mut c_void, attribute: c_uint, address: u64) -> Status {
    call("cuPointerGetAttribute", |driver| {
        let Some((start, allocation)) = driver.allocations.containing(address) else {
            return invalid(format!("{address:#x} is not known to the driver"));
        };
        let Allocation { bytes, context, origin } = *allocation;
        let of_host = matches!(origin, Origin::Pinned { .. } | Origin::Registered { .. });
        match attribute {
            1 => Out(value.cast()).put(driver.contexts.handle(context)),
            2 => Out::<c_uint>(value.cast()).put(if of_host { 1 } else { 2 }),
            3 => Out::<u64>(value.cast()).put(address),
            4 if of_host || origin == Origin::Managed => Out::<u64>(value.cast()).put(address),
            8 => Out::<c_uint>(value.cast()).put(c_uint::from(origin == Origin::Managed)),
            9 => Out::<c_int>(value.cast()).put(0),
            11 => Out::<u64>(value.cast()).put(start),
            12 => Out::<usize>(value.cast()).put(bytes as usize),
            13 => Out::<c_uint>(value.cast()).put(1),
            other => invalid(format!("attribute {other} of a pointer is not known, or the pointer has none")),
        }
    })
}

/// `CUmemLocation`, passed by value.
#[repr(C)]
struct Location {
    kind: c_uint,
    id: c_int,
}

/// Advice and prefetches move nothing here; they are checked.
fn check_managed(driver: &mut Locked, address: u64, bytes: usize, location: &Location) -> Outcome<()> {
    driver.current()?;
    if !(1..=4).contains(&location.kind) || (location.kind == 1 && location.id != 0) {
        return invalid(format!("there is no place of type {} with number {}", location.kind, location.id));
    }
    match driver.allocations.containing(address) {
        Some((start, allocation)) if allocation.origin == Origin::Managed => {
            if address - start + bytes as u64 > allocation.bytes {
                return invalid("the range ends after its allocation");
            }
            Ok(())
        }
        _ => invalid(format!("{address:#x} is not managed memory")),
    }
}

#[unsafe(no_mangle)]
extern "C" fn cuMemAdvise_v2(address: u64, bytes: usize, advice: c_uint, location: Location) -> Status {
    call("cuMemAdvise_v2", |driver| {
        if !(1..=6).contains(&advice) {
            return invalid(format!("{advice} is no advice"));
        }
        check_managed(driver, address, bytes, &location)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemPrefetchAsync_v2(
    address: u64,
    bytes: usize,
    location: Location,
    _flags: c_uint,
    stream: *mut c_void,
) -> Status {
    call("cuMemPrefetchAsync_v2", |driver| {
        check_managed(driver, address, bytes, &location)?;
        let stream = driver.stream(stream)?;
        driver.submit(stream, Work::Marker)
    })
}

/// External memory belongs to graphics interfaces, which the stand-in has none of.
fn no_external_memory() -> Outcome<()> {
    fail(Status::NOT_SUPPORTED, "the stand-in has no external memory")
}

#[unsafe(no_mangle)]
extern "C" fn cuImportExternalMemory(_memory: Out<*mut c_void>, _description: *const c_void) -> Status {
    call("cuImportExternalMemory", |_| no_external_memory())
}

#[unsafe(no_mangle)]
extern "C" fn cuExternalMemoryGetMappedBuffer(
    _address: Out<u64>,
    _memory: *mut c_void,
    _description: *const c_void,
) -> Status {
    call("cuExternalMemoryGetMappedBuffer", |_| no_external_memory())
}

#[unsafe(no_mangle)]
extern "C" fn cuDestroyExternalMemory(_memory: *mut c_void) -> Status {
    call("cuDestroyExternalMemory", |_| no_external_memory())
}
