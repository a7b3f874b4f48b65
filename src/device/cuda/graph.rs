//! A step as a CUDA graph: the launches it asks for are captured once, and from then on asked for all at once.
//!
//! Every step still makes all its calls, so that handles and indices are checked and stale copies noticed; but their launches
//! are only compared with those captured, byte for byte. If they are the same the graph is launched; if not, for a
//! validation came between or the batch is another one, the step is made again launch by launch, and the next one captured.

use super::kernel::Argument;
use super::{Cuda, Gpu, Grid, failed};
use crate::device::Device;
use crate::ensure;
use crate::error::{Kind, Result};
use cudarc::driver::CudaGraph;
use cudarc::driver::sys::{CUfunction, CUgraphInstantiate_flags as Flags, CUstreamCaptureMode as Mode};

/// What becomes of launches.
#[derive(Default)]
pub(super) enum Launches {
    /// They are made.
    #[default]
    Made,
    /// They go to a capture, and are written down.
    Captured(Vec<u8>),
    /// They are compared with those written down; `next` is what comes next there, none after a difference.
    Compared { captured: Vec<u8>, next: Option<usize> },
}

impl Launches {
    /// Takes note of a launch; whether it is to be made.
    pub(super) fn note(&mut self, function: CUfunction, grid: &Grid, arguments: &[Argument]) -> bool {
        match self {
            Self::Made => true,
            Self::Captured(all) => {
                all.extend(description(function, grid, arguments));
                true
            }
            Self::Compared { captured, next } => {
                let this = description(function, grid, arguments);
                *next = next.filter(|&next| captured[next..].starts_with(&this)).map(|next| next + this.len());
                false
            }
        }
    }
}

/// All that a launch is.
fn description(function: CUfunction, grid: &Grid, arguments: &[Argument]) -> Vec<u8> {
    let mut all = (function as usize).to_le_bytes().to_vec();
    let Grid { blocks, threads, shared_bytes } = *grid;
    all.extend([blocks.0, blocks.1, threads, shared_bytes].iter().flat_map(|number| number.to_le_bytes()));
    arguments.iter().for_each(|argument| all.extend(argument.bytes()));
    all
}

/// A step that has been captured.
struct Captured {
    graph: CudaGraph,
    launches: Vec<u8>,
}

/// How far the steps of a device have come.
#[derive(Default)]
pub(super) struct Steps(Progress);

#[derive(Default)]
enum Progress {
    /// None has been made: kernels are not compiled and memory is not allocated.
    #[default]
    Cold,
    /// The next one can be captured.
    Warm,
    Captured(Captured),
    /// The driver makes no graph of it: steps stay as they are.
    Refused,
}

// SAFETY: a graph must not be used by two threads at once, and only the exclusive owner of the device uses it.
unsafe impl Send for Steps {}

impl Gpu {
    /// Fails within a step that is captured or compared: only launches belong there.
    pub(super) fn outside_step(&self) -> Result<()> {
        let outside = matches!(self.launches, Launches::Made);
        ensure!(outside, Kind::Internal, "memory was asked for, or copied, within a step");
        Ok(())
    }

    fn begin_capture(&mut self) -> Result<()> {
        let begun = self.stream.begin_capture(Mode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL);
        begun.map_err(|error| failed("capture a step", error))?;
        self.launches = Launches::Captured(Vec::new());
        Ok(())
    }

    /// What has been captured; none where nothing can be made of it.
    fn end_capture(&mut self) -> Option<Captured> {
        let launches = match std::mem::take(&mut self.launches) {
            Launches::Captured(launches) => launches,
            Launches::Made | Launches::Compared { .. } => return None,
        };
        let graph = self.stream.end_capture(Flags(0)).ok()??;
        Some(Captured { graph, launches })
    }
}

impl Captured {
    fn launch(&self) -> Result<()> {
        self.graph.launch().map_err(|error| failed("launch a step", error))
    }
}

impl Cuda {
    /// Makes a step, as [`Device::repeated`] says.
    pub(super) fn make_step(&mut self, step: &mut dyn FnMut(&mut dyn Device) -> Result<bool>) -> Result<bool> {
        let mut next = Progress::Warm;
        match std::mem::take(&mut self.steps.0) {
            Progress::Cold => {}
            Progress::Refused => next = Progress::Refused,
            Progress::Warm => {
                self.gpu.begin_capture()?;
                let done = step(self);
                match self.gpu.end_capture() {
                    Some(captured) if matches!(done, Ok(true)) => {
                        captured.launch()?;
                        self.steps.0 = Progress::Captured(captured);
                        return Ok(true);
                    }
                    // The step came to no end; the next one may.
                    Some(_) => {}
                    // The driver gave up, wherever in the step: it would not succeed the next time either.
                    None => next = Progress::Refused,
                }
                // Nothing has been launched, so nothing has been made fresh.
                self.copies.expire();
            }
            Progress::Captured(Captured { graph, launches }) => {
                self.gpu.launches = Launches::Compared { captured: launches, next: Some(0) };
                let done = step(self);
                let Launches::Compared { captured: launches, next } = std::mem::take(&mut self.gpu.launches) else {
                    unreachable!("a step leaves the launches as they are")
                };
                if matches!(done, Ok(true)) && next == Some(launches.len()) {
                    let captured = Captured { graph, launches };
                    captured.launch()?;
                    self.steps.0 = Progress::Captured(captured);
                    return Ok(true);
                }
                self.copies.expire();
            }
        }
        let done = step(self)?;
        if done {
            self.steps.0 = next;
        }
        Ok(done)
    }
}
