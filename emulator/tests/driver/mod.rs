//! What the tests of the driver share.

#![allow(dead_code, reason = "each test file uses its part")]

use std::sync::Arc;

use cudarc::driver::sys::CUresult;
use cudarc::driver::{CudaContext, DriverError};
use ptx_emulator::settings::Settings;
use ptx_emulator::standin::{self, StandIn};

/// Seeds under which a fault must be found, and its absence must pass. The order of asynchronous work differs in each.
pub const SEEDS: std::ops::Range<u64> = 0..12;

/// The stand-in, opened once for the process.
pub fn standin() -> StandIn {
    standin::open(&Settings::default()).unwrap()
}

/// A context of the test's own: what breaks in it, breaks no other test. Waits between streams are the test's business.
pub fn context() -> Arc<CudaContext> {
    standin();
    let context = CudaContext::new_non_primary(0, 0).unwrap();
    // SAFETY: the tests order their streams, or leave it out on purpose.
    unsafe { context.disable_event_tracking() };
    context
}

/// As [`context`], with a seed for this thread.
pub fn context_with_seed(seed: u64) -> Arc<CudaContext> {
    standin().configure_thread(Some(&Settings { seed, ..Settings::default() })).unwrap();
    context()
}

/// What an error says, with its status; or that there was none.
pub fn refused<T>(result: Result<T, DriverError>) -> (CUresult, String) {
    match result {
        Ok(_) => (CUresult::CUDA_SUCCESS, "no error".into()),
        Err(error) => (error.0, error.error_string().unwrap().to_string_lossy().into_owned()),
    }
}

/// That a call is refused with a status and a diagnosis that contains a text.
#[track_caller]
pub fn expect_refusal<T>(result: Result<T, DriverError>, status: CUresult, part: &str) {
    let (found, text) = refused(result);
    assert_eq!(found, status, "{text}");
    assert!(text.contains(part), "{part:?} is not in {text:?}");
}

/// Runs a program under every seed: with a fault planted it must be told, by an error whose diagnosis contains a text;
/// without, nothing may be said.
#[track_caller]
pub fn planted(part: &str, program: impl Fn(&Arc<CudaContext>, bool) -> Result<(), DriverError>) {
    for seed in SEEDS {
        let context = context_with_seed(seed);
        let (status, text) = refused(program(&context, false).and_then(|()| context.synchronize()));
        assert_eq!(status, CUresult::CUDA_SUCCESS, "correct, but with seed {seed}: {text}");
        drop(context);
        let context = context_with_seed(seed);
        let (status, text) = refused(program(&context, true).and_then(|()| context.synchronize()));
        assert_ne!(status, CUresult::CUDA_SUCCESS, "the fault was not found with seed {seed}");
        assert!(text.contains(part), "with seed {seed}, {part:?} is not in {text:?}");
    }
}
