//! What the tests of kernels share: compiling CUDA C++ and PTX, and running the result.
//!
//! Kernels run on the machine itself and through cudarc on the stand-in driver; with `PTX_EMULATOR_REAL_GPU=1` they run
//! through cudarc on the real driver instead, so that the same expectations tell whether emulator and hardware agree.
#![allow(dead_code)] // Each test file uses its part.

pub mod compile;
pub mod device;
pub mod job;
pub mod nvrtc;
