//! C functions for the handle that a test holds (`standin`): settings in, reports out, both as JSON, for the handle and
//! the driver are different copies of this crate.

use std::ffi::{CStr, CString, c_char, c_int};
use std::sync::Arc;

use super::state::{Driver, Locked, this_thread};
use crate::settings::Settings;

/// A text for the caller, to be given back to [`ptx_emulator_free`].
fn give(text: String) -> *mut c_char {
    CString::new(text.replace('\0', " ")).map_or(std::ptr::null_mut(), CString::into_raw)
}

/// Settings from JSON; `None` for null.
///
/// # Safety
/// `json` is null or a text that ends in NUL.
unsafe fn settings(json: *const c_char) -> Result<Option<Settings>, String> {
    if json.is_null() {
        return Ok(None);
    }
    // SAFETY: by the caller's promise.
    let text = unsafe { CStr::from_ptr(json) };
    serde_json::from_slice(text.to_bytes()).map(Some).map_err(|error| format!("settings: {error}"))
}

/// Sets what holds for the calling thread (`of_thread` not 0; null takes its own settings away again), or for all
/// threads without settings of their own. Returns null, or what is wrong with the settings.
///
/// # Safety
/// `json` is null or a text that ends in NUL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ptx_emulator_configure(json: *const c_char, of_thread: c_int) -> *mut c_char {
    // SAFETY: by the caller's promise.
    match unsafe { settings(json) } {
        Err(error) => give(error),
        Ok(settings) if of_thread != 0 => {
            Driver::set_thread_settings(settings);
            std::ptr::null_mut()
        }
        Ok(settings) => {
            let mut driver = Locked::new();
            driver.settings = Arc::new(settings.unwrap_or_default());
            driver.queue.reseed();
            std::ptr::null_mut()
        }
    }
}

/// The reports of launches that have run and were submitted by the calling thread (`of_thread` not 0) or by any; they
/// are forgotten here. A list in JSON.
#[unsafe(no_mangle)]
pub extern "C" fn ptx_emulator_take_reports(of_thread: c_int) -> *mut c_char {
    let thread = (of_thread != 0).then(this_thread);
    let reports = Locked::new().take_reports(thread);
    give(serde_json::to_string(&reports).unwrap_or_else(|error| format!("reports: {error}")))
}

/// Takes back a text that a function of this file gave.
///
/// # Safety
/// `text` is null or came from there, and was not given back before.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ptx_emulator_free(text: *mut c_char) {
    if !text.is_null() {
        // SAFETY: `give` made it with `CString::into_raw`.
        drop(unsafe { CString::from_raw(text) });
    }
}
