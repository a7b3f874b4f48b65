//! Memory pools. All of them take from the device's one memory; a pool is its attributes and what was taken in its name.

use std::collections::BTreeMap;
use std::ffi::c_void;

use super::error::{Outcome, invalid};
use super::handle::Serial;
use super::state::Driver;

/// A memory pool.
#[derive(Debug, Default)]
pub struct Pool {
    /// Attributes that were set, by their number in `CUmemPool_attribute`.
    pub attributes: BTreeMap<u32, u64>,
    /// Whether it is the device's own, which cannot be destroyed.
    pub of_device: bool,
}

/// The three switches of reuse are `int`s, and on at first.
const LAST_SWITCH: u32 = 3;
const RELEASE_THRESHOLD: u32 = 4;
const RESERVED: [u32; 2] = [5, 6];
const USED: [u32; 2] = [7, 8];

impl Driver {
    /// The device's default pool and its current one.
    pub fn pools_of_device(&mut self) -> (Serial, Serial) {
        if let Some(pools) = self.device_pools {
            return pools;
        }
        let default = self.pools.insert(Pool { of_device: true, ..Pool::default() });
        *self.device_pools.insert((default, default))
    }

    /// Reads an attribute of a pool into the C value behind a pointer.
    ///
    /// # Safety
    /// `value` is writable, an `int` for attributes 1 to 3 and 64 bits for the others.
    ///
    /// # Errors
    /// No such pool or attribute.
    pub unsafe fn pool_attribute(&mut self, pool: *mut c_void, attribute: u32, value: *mut c_void) -> Outcome<()> {
        let serial = self.pools.serial(pool)?;
        let set = self.pools.get(pool)?.attributes.get(&attribute).copied();
        if value.is_null() {
            return invalid("the pointer to the value is null");
        }
        let number = match attribute {
            1..=LAST_SWITCH => set.unwrap_or(1),
            RELEASE_THRESHOLD => set.unwrap_or(0),
            a if RESERVED.contains(&a) || USED.contains(&a) => self.allocations.used_of_pool(serial),
            other => return invalid(format!("{other} is no attribute of a pool")),
        };
        // SAFETY: by the caller's promise.
        unsafe {
            if attribute <= LAST_SWITCH {
                value.cast::<i32>().write(number as i32)
            } else {
                value.cast::<u64>().write(number)
            }
        }
        Ok(())
    }

    /// Sets an attribute of a pool from the C value behind a pointer.
    ///
    /// # Safety
    /// `value` is readable, an `int` for attributes 1 to 3 and 64 bits for the others.
    ///
    /// # Errors
    /// No such pool; no such attribute, or not one to be set.
    pub unsafe fn set_pool_attribute(
        &mut self,
        pool: *mut c_void,
        attribute: u32,
        value: *const c_void,
    ) -> Outcome<()> {
        let pool = self.pools.get_mut(pool)?;
        if value.is_null() {
            return invalid("the pointer to the value is null");
        }
        let number = match attribute {
            // SAFETY: by the caller's promise.
            1..=LAST_SWITCH => unsafe { value.cast::<i32>().read() as u64 },
            // SAFETY: by the caller's promise.
            RELEASE_THRESHOLD => unsafe { value.cast::<u64>().read() },
            // High-water marks may be reset.
            6 | 8 => 0,
            other => return invalid(format!("attribute {other} of a pool cannot be set")),
        };
        pool.attributes.insert(attribute, number);
        Ok(())
    }
}
