//! The functions of `libcuda.so`, as a host program calls them.
//!
//! The C functions are in `api`, one file a topic; each checks its arguments and calls the driver's state.
//! What is asynchronous on CUDA is asynchronous here, and later than any hardware would be: see `schedule`.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `api` | the C functions, and the wrapper that turns an outcome into a `CUresult` |
//! | `error` | statuses and diagnoses |
//! | `handle` | handles that are checked |
//! | `state` | everything behind the lock |
//! | `context`, `stream`, `module`, `pool` | the objects of those names, and what they allow |
//! | `allocations` | memory, as the program asked for it |
//! | `copies` | copies and fills, up to their submission |
//! | `work` | operations of streams, and their execution |
//! | `schedule` | when they are executed |
//! | `hazards` | races between streams |
//! | `capture`, `graph` | stream capture and replay |
//! | `occupancy`, `attributes` | limits of architecture and kernel |
//! | `control` | functions for the handle that a test holds |

mod allocations;
mod api;
mod attributes;
mod capture;
mod context;
mod control;
mod copies;
mod error;
mod graph;
mod handle;
mod hazards;
mod module;
mod occupancy;
mod pool;
mod schedule;
mod state;
mod stream;
mod work;
