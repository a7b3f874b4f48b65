//! Runs CUDA kernels without a GPU.
//!
//! NVRTC turns CUDA C++ into PTX on any machine; this crate executes that PTX, warp by warp, behind a stand-in for the
//! CUDA driver, and watches every access while it does. The host program is not changed and not told: a test opens the
//! stand-in ([`standin::open`]), and cudarc (or any program that loads `libcuda.so` by name) talks to it.
//!
//! The rooms, from text to result:
//!
//! | room | what happens there |
//! | --- | --- |
//! | [`ptx`] | text → syntax tree; every node knows its line |
//! | [`decode`] | syntax → [`decode::Module`] of typed operations; what is not known is refused here, with its line |
//! | [`arith`] | what one lane computes: integers, floats in every width and rounding, conversions, approximations |
//! | [`tensor`] | what a warp computes together: `mma`, `ldmatrix`, `stmatrix`, `movmatrix`, by their fragment layouts |
//! | [`memory`] | address spaces, allocations with red zones, the shadow that knows what is valid and initialised |
//! | [`machine`] | warps, blocks, grids: control flow, scheduling, execution |
//! | [`watch`] | races, barriers, findings |
//! | [`count`] | what a launch cost, as JSON |
//! | [`driver`] | the functions of `libcuda.so` |
//! | [`standin`] | the handle a test holds: open, configure, take the reports |
//! | [`toolkit`] | where NVRTC, its headers, `ptxas` and `nvdisasm` are, and running them |
//! | [`sass`] | what machine code is made of |

pub mod arith;
pub mod count;
pub mod decode;
pub mod driver;
pub mod machine;
pub mod memory;
pub mod ptx;
pub mod sass;
pub mod settings;
pub mod standin;
pub mod target;
pub mod tensor;
pub mod toolkit;
pub mod watch;

/// What the README shows as Rust is compiled.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
