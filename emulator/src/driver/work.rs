//! The operations that streams hold, and what each does when its time has come.

use std::ffi::c_void;
use std::sync::Arc;

use super::error::{Failure, Outcome, Status, fail};
use super::handle::Serial;
use super::hazards::{Place, Use};
use super::module::KernelLaunch;
use super::state::{Locked, Origin};
use crate::machine::{self, FaultKind, LaunchReport};
use crate::memory::{MemoryFault, Stretch};
use crate::settings::Watch;

/// One operation. Cheap to clone, for graphs run theirs again and again.
#[derive(Clone, Debug)]
pub enum Work {
    /// Nothing but a point in the order: an event's record, a wait, a join.
    Marker,
    /// Moves bytes.
    Copy(Copy),
    /// Repeats a pattern.
    Fill(Fill),
    /// Runs a kernel.
    Kernel(Arc<KernelLaunch>),
    /// Calls the program.
    Host(HostFunction),
    /// Makes stream-ordered memory usable, from here on.
    Allocate {
        /// Where it begins.
        address: u64,
    },
    /// Ends stream-ordered memory.
    Free {
        /// Where it begins.
        address: u64,
    },
}

/// One side of a copy.
#[derive(Clone, Debug)]
pub enum Side {
    /// An address that the device can reach: its own memory, pinned, managed or registered memory of the host.
    Device(u64),
    /// Pageable memory of the program, used when the copy runs.
    Pageable(u64),
    /// Bytes that were taken from pageable memory when the copy was submitted.
    Staged(Arc<[u8]>),
}

/// A copy of `height` rows of `width` bytes.
#[derive(Clone, Debug)]
pub struct Copy {
    /// The call that asked for it.
    pub call: &'static str,
    /// Where the first row comes from.
    pub from: Side,
    /// Where it goes.
    pub to: Side,
    /// Bytes of a row.
    pub width: u64,
    /// Rows.
    pub height: u64,
    /// Bytes from one row to the next: at the source and at the destination.
    pub pitches: (u64, u64),
}

/// A pattern of 1, 2 or 4 bytes, repeated `width` times in each of `height` rows.
#[derive(Clone, Debug)]
pub struct Fill {
    /// The call that asked for it.
    pub call: &'static str,
    /// Where the first row begins.
    pub to: u64,
    /// The pattern.
    pub pattern: Vec<u8>,
    /// Repetitions in a row.
    pub width: u64,
    /// Rows.
    pub height: u64,
    /// Bytes from one row to the next.
    pub pitch: u64,
}

/// A function of the program, to be called in a stream's order.
#[derive(Clone, Copy, Debug)]
pub struct HostFunction {
    /// The function.
    pub function: unsafe extern "C" fn(*mut c_void),
    /// Its argument, as an address.
    pub argument: usize,
}

/// What the modelled device needs at least for an operation, in nanoseconds. The numbers are round ones: they make
/// event times plausible, ordered and equal on every run; they predict nothing.
const LAUNCH_NANOSECONDS: u64 = 2_000;
const THREAD_INSTRUCTIONS_PER_NANOSECOND: u64 = 10;
const COPIED_BYTES_PER_NANOSECOND: u64 = 25;
const FILLED_BYTES_PER_NANOSECOND: u64 = 1_000;

impl Work {
    /// Whether it is done as soon as it may be, not as late.
    pub fn is_early(&self) -> bool {
        matches!(self, Work::Marker | Work::Free { .. })
    }

    /// Whether it calls the program.
    pub fn is_host_function(&self) -> bool {
        matches!(self, Work::Host(_))
    }

    /// What it is called in a diagnosis.
    fn name(&self) -> &str {
        match self {
            Work::Marker => "a marker",
            Work::Copy(copy) => copy.call,
            Work::Fill(fill) => fill.call,
            Work::Kernel(launch) => launch.name(),
            Work::Host(_) => "a host function",
            Work::Allocate { .. } => "cuMemAllocAsync",
            Work::Free { .. } => "cuMemFreeAsync",
        }
    }

    /// Bytes of the program's data that it keeps until it has run.
    pub fn staged_bytes(&self) -> usize {
        match self {
            Work::Copy(Copy { from: Side::Staged(bytes), .. }) => bytes.len(),
            _ => 0,
        }
    }
}

impl Locked {
    /// Does what an operation says; tells how long the modelled device was busy, in nanoseconds.
    pub fn execute(&mut self, work: &Work, origin: &Origin, context: Serial, place: &Arc<Place>) -> Outcome<u64> {
        self.check_context(context)?;
        if origin.settings.watch == Watch::Races {
            let memory = self.memory()?;
            for used in self.uses(work) {
                // Registered memory of the host is not the device's.
                let registered = || self.allocations.containing(used.start).map(|(start, _)| start);
                if let Some(start) = memory.allocation(used.start).map(|(start, _)| start).or_else(registered) {
                    self.queue.hazards.check(start, used, place, work.name())?;
                }
            }
        }
        match work {
            Work::Marker => Ok(0),
            Work::Copy(copy) => self.execute_copy(copy, origin),
            Work::Fill(fill) => self.execute_fill(fill),
            Work::Kernel(launch) => self.execute_kernel(launch, origin, place),
            Work::Host(host) => {
                let HostFunction { function, argument } = *host;
                self.in_host_function(move || {
                    let argument = std::ptr::with_exposed_provenance_mut(argument);
                    // SAFETY: the program gave function and argument to be called so, from any thread, once.
                    unsafe { function(argument) }
                });
                Ok(LAUNCH_NANOSECONDS)
            }
            Work::Allocate { address } => self.begin_stream_ordered(*address).map(|()| 0),
            Work::Free { address } => self.end_stream_ordered(*address).map(|()| 0),
        }
    }

    /// The memory that an operation is known to use before it runs.
    fn uses(&self, work: &Work) -> Vec<Use> {
        let rows = |start, width, height, pitch, writes| Use { start, width, height, pitch, writes };
        match work {
            Work::Marker | Work::Kernel(_) | Work::Host(_) => Vec::new(),
            Work::Copy(Copy { from, to, width, height, pitches, .. }) => {
                let mut uses = Vec::new();
                if let Side::Device(from) = from {
                    uses.push(rows(*from, *width, *height, pitches.0, false));
                }
                if let Side::Device(to) = to {
                    uses.push(rows(*to, *width, *height, pitches.1, true));
                }
                uses
            }
            Work::Fill(fill) => {
                vec![rows(fill.to, fill.width * fill.pattern.len() as u64, fill.height, fill.pitch, true)]
            }
            Work::Allocate { address } | Work::Free { address } => {
                let bytes = self.allocations.at(*address).map(|allocation| allocation.bytes.max(1));
                bytes.map(|bytes| Use::whole(*address, bytes, true)).into_iter().collect()
            }
        }
    }

    fn execute_copy(&mut self, copy: &Copy, origin: &Origin) -> Outcome<u64> {
        for row in 0..copy.height {
            self.copy_row(copy, row, origin)
                .map_err(|(fault, side)| self.asynchronous_fault(copy.call, fault, side))??;
        }
        Ok(LAUNCH_NANOSECONDS + copy.width * copy.height / COPIED_BYTES_PER_NANOSECOND)
    }

    /// One row of a copy. Outer error: an address, and which side it is on. Inner error: it may be read, but holds nothing.
    fn copy_row(&mut self, copy: &Copy, row: u64, origin: &Origin) -> Result<Outcome<()>, (MemoryFault, &'static str)> {
        let memory = match self.memory() {
            Ok(memory) => memory,
            Err(failure) => return Ok(Err(failure)),
        };
        let (from_row, to_row) = (row * copy.pitches.0, row * copy.pitches.1);
        let width = copy.width as usize;
        let source = |fault| (fault, "source");
        let destination = |fault| (fault, "destination");
        match (&copy.from, &copy.to) {
            (Side::Device(from), Side::Device(to)) if !self.allocations.host_visible(*to) => {
                memory.check(*from + from_row, copy.width).map_err(source)?;
                memory.copy(*to + to_row, *from + from_row, copy.width).map_err(destination)?;
            }
            (Side::Device(from), to) => {
                let mut bytes = vec![0; width];
                let unwritten = memory.read(*from + from_row, &mut bytes).map_err(source)?;
                if let Some(first) = unwritten
                    && origin.settings.watch != Watch::Off
                {
                    return Ok(fail(
                        Status::LAUNCH_FAILED,
                        format!(
                            "{}: uninitialised memory is copied to the host: {}, byte {} of the {} copied, was never \
                             written (has its kernel or copy not run yet, for want of a wait?)",
                            copy.call,
                            self.allocations.describe(&memory, first),
                            first - (*from + from_row),
                            copy.width
                        ),
                    ));
                }
                match to {
                    Side::Device(to) => memory.write(*to + to_row, &bytes).map_err(destination)?,
                    Side::Pageable(to) => {
                        let to: *mut u8 = std::ptr::with_exposed_provenance_mut((*to + to_row) as usize);
                        // SAFETY: the caller of the copy vouches for its destination until the copy is done; copies to
                        // pageable memory are done before the call returns, or belong to a graph, as on CUDA.
                        unsafe { to.copy_from_nonoverlapping(bytes.as_ptr(), width) };
                    }
                    Side::Staged(_) => unreachable!("staged bytes are a source only"),
                }
            }
            (Side::Staged(bytes), Side::Device(to)) => {
                let start = (row * copy.width) as usize;
                memory.write(*to + to_row, &bytes[start..start + width]).map_err(destination)?;
            }
            (Side::Pageable(from), Side::Device(to)) => {
                let from: *const u8 = std::ptr::with_exposed_provenance((*from + from_row) as usize);
                // SAFETY: only a graph holds such a copy, and its owner vouches for the source whenever it is launched,
                // as on CUDA. A copy, for the machine must not see memory of the program change under it.
                let bytes = unsafe { std::slice::from_raw_parts(from, width) }.to_vec();
                memory.write(*to + to_row, &bytes).map_err(destination)?;
            }
            (_, Side::Pageable(_) | Side::Staged(_)) => unreachable!("copies within the host are done at once"),
        }
        Ok(Ok(()))
    }

    fn execute_fill(&mut self, fill: &Fill) -> Outcome<u64> {
        let memory = self.memory()?;
        for row in 0..fill.height {
            memory
                .fill(fill.to + row * fill.pitch, &fill.pattern, fill.width)
                .map_err(|fault| self.asynchronous_fault(fill.call, fault, "destination"))?;
        }
        let bytes = fill.width * fill.height * fill.pattern.len() as u64;
        Ok(LAUNCH_NANOSECONDS + bytes / FILLED_BYTES_PER_NANOSECOND)
    }

    /// A copy or fill whose memory went away, or has not come, between its call and its time.
    fn asynchronous_fault(&self, call: &str, fault: MemoryFault, side: &str) -> Failure {
        let address = match fault {
            MemoryFault::OutOfBounds { address, .. } | MemoryFault::UseAfterFree { address, .. } => Some(address),
            MemoryFault::FreedTwice { .. } | MemoryFault::NotAnAllocation { .. } => None,
        };
        let hint = address.and_then(|address| self.allocations.hint(address)).unwrap_or_default();
        Failure { status: Status::ILLEGAL_ADDRESS, text: format!("{call}: {side}: {fault}{hint}") }
    }

    fn execute_kernel(&mut self, launch: &KernelLaunch, origin: &Origin, place: &Arc<Place>) -> Outcome<u64> {
        let memory = self.memory()?;
        let report = launch.run(&memory, &origin.settings);
        print!("{}", report.printed);
        let instructions = report.counters.as_ref().map_or(launch.threads(), |counters| counters.thread_instructions);
        let outcome = self.judge(&report);
        self.keep_report(origin.thread, report);
        // Taken in any case, for they must not be the next launch's.
        let uses = if origin.settings.watch == Watch::Races { memory.take_uses() } else { Vec::new() };
        outcome?;
        for (allocation, Stretch { start, end, written }) in uses {
            let used = Use::whole(start, end - start, written);
            self.queue.hazards.check(allocation, used, place, launch.name())?;
        }
        Ok(LAUNCH_NANOSECONDS + instructions / THREAD_INSTRUCTIONS_PER_NANOSECOND)
    }

    /// A launch that went wrong, as CUDA names it, with all that was found.
    fn judge(&self, report: &LaunchReport) -> Outcome<()> {
        let Some(fault) = &report.fault else {
            return match report.findings.first() {
                None => Ok(()),
                Some(_) => fail(Status::LAUNCH_FAILED, diagnosis(report, None)),
            };
        };
        let status = match fault.kind {
            FaultKind::IllegalAddress => Status::ILLEGAL_ADDRESS,
            FaultKind::MisalignedAddress => Status::MISALIGNED_ADDRESS,
            FaultKind::Assert => Status::ASSERT,
            FaultKind::Runaway => Status::LAUNCH_TIMEOUT,
            FaultKind::LaunchFailed => Status::LAUNCH_FAILED,
        };
        let addresses = report.findings.iter().filter_map(|finding| finding.address);
        let hint = addresses.filter_map(|address| self.allocations.hint(address)).next().unwrap_or_default();
        fail(status, diagnosis(report, Some(fault)) + &hint)
    }
}

/// Fault and findings in full, each once.
fn diagnosis(report: &LaunchReport, fault: Option<&machine::Fault>) -> String {
    let mut lines: Vec<String> = fault.map(|fault| fault.message.clone()).into_iter().collect();
    for finding in report.findings.iter().map(ToString::to_string) {
        // The fault's message may be that of a finding.
        if !lines.iter().any(|line| line.contains(&finding)) {
            lines.push(finding);
        }
    }
    lines.join("\n")
}
