//! What the tests of the driver share.

#![allow(dead_code, reason = "each test file uses its part")]

use std::sync::Arc;

use cudarc::driver::CudaContext;
use ptx_emulator::settings::Settings;
use ptx_emulator::standin::{self, StandIn};

/// The stand-in, opened once for the process.
pub fn standin() -> StandIn {
    standin::open(&Settings::default()).unwrap()
}

/// A context of the test's own: what breaks in it, breaks no other test.
pub fn context() -> Arc<CudaContext> {
    standin();
    CudaContext::new_non_primary(0, 0).unwrap()
}

/// As [`context`], with a seed for this thread.
pub fn context_with_seed(seed: u64) -> Arc<CudaContext> {
    standin().configure_thread(Some(&Settings { seed, ..Settings::default() })).unwrap();
    context()
}
