//! The C functions. Their names, arguments and statuses are those of `cuda.h`; a function that is not here is missing
//! from the library, which a program that asks for it by name is told by its loader.
//!
//! None of them is meant for Rust: they are reached by their symbols. What C hands over raw is wrapped in [`Out`] and
//! [`Text`], the only places that write or read through a pointer on nothing but the interface's word.

mod context;
mod copy;
mod device;
mod event;
mod function;
mod graph;
mod memory;
mod module;
mod pool;
mod stream;

use std::ffi::{CStr, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use super::error::{Failure, Outcome, Status, fail, invalid};
use super::state::{Locked, in_host_function};

/// Where the caller wants a result.
#[repr(transparent)]
struct Out<T>(*mut T);

impl<T> Out<T> {
    /// Writes the result.
    fn put(&self, value: T) -> Outcome<()> {
        if self.0.is_null() {
            return invalid("the pointer for the result is null");
        }
        // SAFETY: only a C caller makes such a value, and the interface wants it to point to room for a `T`.
        unsafe { self.0.write(value) };
        Ok(())
    }

    /// Writes the result if the caller wants it.
    fn put_if_wanted(&self, value: T) {
        if !self.0.is_null() {
            // SAFETY: as in `put`.
            unsafe { self.0.write(value) };
        }
    }
}

/// A text from the caller.
#[repr(transparent)]
struct Text(*const c_char);

impl Text {
    fn read(&self) -> Outcome<&str> {
        if self.0.is_null() {
            return invalid("the text is null");
        }
        // SAFETY: only a C caller makes such a value, and the interface wants it to point to a text that ends in NUL.
        let text = unsafe { CStr::from_ptr(self.0) };
        text.to_str().or_else(|_| invalid("the text is not UTF-8"))
    }
}

/// Runs the body of a call under the lock, and keeps its diagnosis.
fn call(name: &str, body: impl FnOnce(&mut Locked) -> Outcome<()>) -> Status {
    let outcome = if in_host_function() {
        fail(Status::NOT_PERMITTED, "a host function of a stream must not call the driver")
    } else {
        let body = AssertUnwindSafe(|| {
            let mut locked = Locked::new();
            locked.last_call = Instant::now();
            if !locked.initialised {
                return fail(Status::NOT_INITIALIZED, "cuInit was not called");
            }
            body(&mut locked)
        });
        // A panic must not cross into C. It is a defect of the stand-in, and says so.
        catch_unwind(body)
            .unwrap_or_else(|_| fail(Status::UNKNOWN, "the stand-in itself has failed; see its panic message"))
    };
    match outcome {
        Ok(()) => Status::SUCCESS,
        Err(Failure { status, text }) => {
            Failure { status, text: format!("{name}: {text}") }.remember();
            status
        }
    }
}
