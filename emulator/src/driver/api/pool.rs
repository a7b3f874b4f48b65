//! `cuMemPool*`, `cuDevice*MemPool`, and the memory that comes from pools.

use std::ffi::{c_int, c_uint, c_void};

use super::device::check_device;
use super::{Out, call};
use crate::driver::error::{Outcome, Status, fail, invalid};
use crate::driver::pool::Pool;
use crate::driver::state::Locked;

#[unsafe(no_mangle)]
extern "C" fn cuDeviceGetDefaultMemPool(pool: Out<*mut c_void>, device: c_int) -> Status {
    call("cuDeviceGetDefaultMemPool", |driver| {
        check_device(device)?;
        let (default, _) = driver.pools_of_device();
        pool.put(driver.pools.handle(default))
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuDeviceGetMemPool(pool: Out<*mut c_void>, device: c_int) -> Status {
    call("cuDeviceGetMemPool", |driver| {
        check_device(device)?;
        let (_, current) = driver.pools_of_device();
        pool.put(driver.pools.handle(current))
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuDeviceSetMemPool(device: c_int, pool: *mut c_void) -> Status {
    call("cuDeviceSetMemPool", |driver| {
        check_device(device)?;
        let serial = driver.pools.serial(pool)?;
        let (default, _) = driver.pools_of_device();
        driver.device_pools = Some((default, serial));
        Ok(())
    })
}

/// The start of `CUmemPoolProps`.
#[repr(C)]
struct PoolProperties {
    allocation_type: c_uint,
    handle_types: c_uint,
    location_type: c_uint,
    location: c_int,
}

#[unsafe(no_mangle)]
extern "C" fn cuMemPoolCreate(pool: Out<*mut c_void>, properties: *const PoolProperties) -> Status {
    call("cuMemPoolCreate", |driver| {
        // SAFETY: null, or what the interface wants there.
        let Some(properties) = (unsafe { properties.as_ref() }) else { return invalid("the properties are null") };
        let PoolProperties { allocation_type, handle_types, location_type, location } = *properties;
        // Pinned memory, on a device.
        if (allocation_type, location_type) != (1, 1) {
            let text =
                format!("a pool of type {allocation_type} at a place of type {location_type}: only 1 and 1 exist");
            return fail(Status::NOT_SUPPORTED, text);
        }
        if handle_types != 0 {
            return fail(Status::NOT_SUPPORTED, "the stand-in's pools cannot be shared with other processes");
        }
        check_device(location)?;
        let serial = driver.pools.insert(Pool::default());
        pool.put(driver.pools.handle(serial))
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemPoolDestroy(pool: *mut c_void) -> Status {
    call("cuMemPoolDestroy", |driver| {
        let serial = driver.pools.serial(pool)?;
        if driver.pools.get(pool)?.of_device {
            return invalid("the device's default pool cannot be destroyed");
        }
        driver.pools.remove(serial);
        if let Some((default, current)) = driver.device_pools
            && current == serial
        {
            driver.device_pools = Some((default, default));
        }
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemPoolTrimTo(pool: *mut c_void, _bytes: usize) -> Status {
    call("cuMemPoolTrimTo", |driver| driver.pools.serial(pool).map(|_| ()))
}

#[unsafe(no_mangle)]
extern "C" fn cuMemPoolGetAttribute(pool: *mut c_void, attribute: c_uint, value: *mut c_void) -> Status {
    call("cuMemPoolGetAttribute", |driver| {
        // SAFETY: the interface wants room there for the attribute's type.
        unsafe { driver.pool_attribute(pool, attribute, value) }
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemPoolSetAttribute(pool: *mut c_void, attribute: c_uint, value: *const c_void) -> Status {
    call("cuMemPoolSetAttribute", |driver| {
        // SAFETY: the interface wants a value of the attribute's type there.
        unsafe { driver.set_pool_attribute(pool, attribute, value) }
    })
}

fn allocate(driver: &mut Locked, to: &Out<u64>, bytes: usize, pool: u64, stream: *mut c_void) -> Outcome<()> {
    let stream = driver.stream(stream)?;
    let address = driver.allocate_in_stream(bytes as u64, pool, stream)?;
    to.put(address)
}

#[unsafe(no_mangle)]
extern "C" fn cuMemAllocAsync(address: Out<u64>, bytes: usize, stream: *mut c_void) -> Status {
    call("cuMemAllocAsync", |driver| {
        let (_, current) = driver.pools_of_device();
        allocate(driver, &address, bytes, current, stream)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemAllocFromPoolAsync(
    address: Out<u64>,
    bytes: usize,
    pool: *mut c_void,
    stream: *mut c_void,
) -> Status {
    call("cuMemAllocFromPoolAsync", |driver| {
        let pool = driver.pools.serial(pool)?;
        allocate(driver, &address, bytes, pool, stream)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemFreeAsync(address: u64, stream: *mut c_void) -> Status {
    call("cuMemFreeAsync", |driver| {
        let stream = driver.stream(stream)?;
        driver.free_in_stream(address, stream)
    })
}
