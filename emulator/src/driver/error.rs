//! Statuses of the driver interface, and the diagnosis that goes with each one that was returned.
//!
//! CUDA gives a number; the text behind `cuGetErrorString` is fixed. Here that text carries the whole diagnosis of the
//! error that was returned last under the number, first of the calling thread, then of any thread: so a host program
//! that prints its errors prints what happened, without knowing of the stand-in.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::sync::{LazyLock, Mutex, PoisonError};

/// `CUresult`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Status(pub u32);

macro_rules! statuses {
    ($($name:ident = $number:literal, $c_name:literal, $meaning:literal;)*) => {
        impl Status {
            $(#[doc = $meaning] pub const $name: Status = Status($number);)*

            /// Name in `cuda.h` and general meaning; `None` for a number that is not a status.
            pub fn describe(self) -> Option<(&'static CStr, &'static CStr)> {
                match self {
                    $(Status::$name => Some((c_text(concat!($c_name, "\0")), c_text(concat!($meaning, "\0")))),)*
                    _ => None,
                }
            }
        }
    };
}

statuses! {
    SUCCESS = 0, "CUDA_SUCCESS", "no error";
    INVALID_VALUE = 1, "CUDA_ERROR_INVALID_VALUE", "invalid argument";
    OUT_OF_MEMORY = 2, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory";
    NOT_INITIALIZED = 3, "CUDA_ERROR_NOT_INITIALIZED", "cuInit was not called";
    DEINITIALIZED = 4, "CUDA_ERROR_DEINITIALIZED", "the driver is shutting down";
    NO_DEVICE = 100, "CUDA_ERROR_NO_DEVICE", "no CUDA device";
    INVALID_DEVICE = 101, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal";
    INVALID_IMAGE = 200, "CUDA_ERROR_INVALID_IMAGE", "the kernel image is invalid";
    INVALID_CONTEXT = 201, "CUDA_ERROR_INVALID_CONTEXT", "no valid context is current";
    NO_BINARY_FOR_GPU = 209, "CUDA_ERROR_NO_BINARY_FOR_GPU", "no kernel image for this device";
    UNSUPPORTED_LIMIT = 215, "CUDA_ERROR_UNSUPPORTED_LIMIT", "the limit is not supported by the device";
    INVALID_PTX = 218, "CUDA_ERROR_INVALID_PTX", "the PTX was refused";
    INVALID_SOURCE = 300, "CUDA_ERROR_INVALID_SOURCE", "invalid source";
    FILE_NOT_FOUND = 301, "CUDA_ERROR_FILE_NOT_FOUND", "file not found";
    INVALID_HANDLE = 400, "CUDA_ERROR_INVALID_HANDLE", "invalid handle";
    ILLEGAL_STATE = 401, "CUDA_ERROR_ILLEGAL_STATE", "the operation is not allowed in this state";
    NOT_FOUND = 500, "CUDA_ERROR_NOT_FOUND", "named symbol not found";
    NOT_READY = 600, "CUDA_ERROR_NOT_READY", "the work is not finished";
    ILLEGAL_ADDRESS = 700, "CUDA_ERROR_ILLEGAL_ADDRESS", "an illegal memory access was made";
    LAUNCH_OUT_OF_RESOURCES = 701, "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES", "too many resources were asked for by a launch";
    LAUNCH_TIMEOUT = 702, "CUDA_ERROR_LAUNCH_TIMEOUT", "the launch took too long and was ended";
    PRIMARY_CONTEXT_ACTIVE = 708, "CUDA_ERROR_PRIMARY_CONTEXT_ACTIVE", "the primary context is in use";
    CONTEXT_IS_DESTROYED = 709, "CUDA_ERROR_CONTEXT_IS_DESTROYED", "the context was destroyed";
    ASSERT = 710, "CUDA_ERROR_ASSERT", "a device-side assertion failed";
    HOST_MEMORY_ALREADY_REGISTERED = 712, "CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED", "host memory is registered already";
    HOST_MEMORY_NOT_REGISTERED = 713, "CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED", "host memory is not registered";
    ILLEGAL_INSTRUCTION = 715, "CUDA_ERROR_ILLEGAL_INSTRUCTION", "an illegal instruction was met";
    MISALIGNED_ADDRESS = 716, "CUDA_ERROR_MISALIGNED_ADDRESS", "a misaligned address was used";
    LAUNCH_FAILED = 719, "CUDA_ERROR_LAUNCH_FAILED", "the launch failed";
    COOPERATIVE_LAUNCH_TOO_LARGE = 720, "CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE", "a cooperative launch has more blocks than fit the device";
    NOT_PERMITTED = 800, "CUDA_ERROR_NOT_PERMITTED", "the operation is not permitted";
    NOT_SUPPORTED = 801, "CUDA_ERROR_NOT_SUPPORTED", "the operation is not supported";
    STREAM_CAPTURE_UNSUPPORTED = 900, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED", "the operation is not permitted while a stream is capturing";
    STREAM_CAPTURE_INVALIDATED = 901, "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED", "an earlier error invalidated the capture";
    STREAM_CAPTURE_MERGE = 902, "CUDA_ERROR_STREAM_CAPTURE_MERGE", "two separate captures would be merged";
    STREAM_CAPTURE_UNMATCHED = 903, "CUDA_ERROR_STREAM_CAPTURE_UNMATCHED", "the capture was not begun in this stream";
    STREAM_CAPTURE_UNJOINED = 904, "CUDA_ERROR_STREAM_CAPTURE_UNJOINED", "a forked stream was not joined to the capture's origin";
    STREAM_CAPTURE_ISOLATION = 905, "CUDA_ERROR_STREAM_CAPTURE_ISOLATION", "the capture would depend on work outside it";
    STREAM_CAPTURE_IMPLICIT = 906, "CUDA_ERROR_STREAM_CAPTURE_IMPLICIT", "the legacy default stream would depend on a capturing stream";
    CAPTURED_EVENT = 907, "CUDA_ERROR_CAPTURED_EVENT", "the event was last recorded in a capturing stream";
    STREAM_CAPTURE_WRONG_THREAD = 908, "CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD", "the capture was begun by another thread";
    UNKNOWN = 999, "CUDA_ERROR_UNKNOWN", "unknown error";
}

/// A literal that ends in its only NUL.
fn c_text(text: &'static str) -> &'static CStr {
    CStr::from_bytes_with_nul(text.as_bytes()).expect("the table's texts hold no NUL but the last")
}

/// An error on its way out: the number, and what happened.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    /// What the call returns.
    pub status: Status,
    /// What `cuGetErrorString` will say.
    pub text: String,
}

/// What a call of the driver yields.
pub type Outcome<T> = Result<T, Failure>;

/// An error with its diagnosis.
pub fn fail<T>(status: Status, text: impl Into<String>) -> Outcome<T> {
    Err(Failure { status, text: text.into() })
}

/// `INVALID_VALUE`, the commonest.
pub fn invalid<T>(text: impl Into<String>) -> Outcome<T> {
    fail(Status::INVALID_VALUE, text)
}

/// Texts by status; they live for ever, for C programs keep the pointers.
type Diagnoses = HashMap<Status, &'static CStr>;

thread_local! {
    static OF_THIS_THREAD: RefCell<Diagnoses> = RefCell::default();
}
static OF_ANY_THREAD: LazyLock<Mutex<Diagnoses>> = LazyLock::new(Mutex::default);
static TEXTS: LazyLock<Mutex<HashMap<String, &'static CStr>>> = LazyLock::new(Mutex::default);

impl Failure {
    /// Makes this the diagnosis of its status.
    pub fn remember(&self) {
        // A poll that says "not yet" is no news, and there may be millions.
        if self.status == Status::NOT_READY {
            return;
        }
        let mut texts = TEXTS.lock().unwrap_or_else(PoisonError::into_inner);
        let text = *texts.entry(self.text.clone()).or_insert_with(|| {
            let bytes: Vec<u8> = self.text.bytes().filter(|&byte| byte != 0).collect();
            Box::leak(CString::new(bytes).expect("the NULs were left out").into_boxed_c_str())
        });
        OF_THIS_THREAD.with_borrow_mut(|diagnoses| diagnoses.insert(self.status, text));
        OF_ANY_THREAD.lock().unwrap_or_else(PoisonError::into_inner).insert(self.status, text);
    }
}

/// The last diagnosis under a status, or what the status means in general.
pub fn diagnosis(status: Status) -> Option<&'static CStr> {
    let (_, meaning) = status.describe()?;
    let here = OF_THIS_THREAD.with_borrow(|diagnoses| diagnoses.get(&status).copied());
    let anywhere = || OF_ANY_THREAD.lock().unwrap_or_else(PoisonError::into_inner).get(&status).copied();
    Some(here.or_else(anywhere).unwrap_or(meaning))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_diagnosis_of_the_calling_thread_is_told() {
        let status = Status::STREAM_CAPTURE_MERGE;
        assert_eq!(diagnosis(status).unwrap().to_str(), Ok("two separate captures would be merged"));
        fail::<()>(status, "first").unwrap_err().remember();
        std::thread::spawn(move || {
            assert_eq!(diagnosis(status).unwrap().to_str(), Ok("first"), "another thread's, for want of an own one");
            fail::<()>(status, "theirs").unwrap_err().remember();
        })
        .join()
        .unwrap();
        assert_eq!(diagnosis(status).unwrap().to_str(), Ok("first"));
        assert_eq!(diagnosis(Status(12345)), None);
    }
}
