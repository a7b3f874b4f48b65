//! All that the driver knows, behind one lock.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::allocations::Allocations;
use super::capture::Capture;
use super::context::{Context, Primary};
use super::error::{Failure, Outcome, Status, fail};
use super::graph::{Executable, Graph};
use super::handle::{Kind, Serial, Table};
use super::module::{Function, LoadedImage};
use super::pool::Pool;
use super::schedule::Queue;
use super::stream::{Event, Stream};
use crate::machine::LaunchReport;
use crate::memory::GlobalMemory;
use crate::settings::Settings;

/// Memory of the device. A fixed amount, the same on every machine; it costs the host only what is touched.
const DEVICE_BYTES: u64 = 16 << 30;
/// Reports that are kept until somebody takes them; the oldest go first.
const REPORTS_KEPT: usize = 16_384;

/// Who submitted an operation: its settings hold for it, and the report of a launch is his.
#[derive(Clone, Debug)]
pub struct Origin {
    /// A number for the host thread.
    pub thread: u64,
    /// The settings that held for the thread.
    pub settings: Arc<Settings>,
}

/// The driver's state.
#[derive(Debug)]
pub struct Driver {
    /// `cuInit` was called.
    pub initialised: bool,
    /// What holds for threads without settings of their own.
    pub settings: Arc<Settings>,
    /// The device's memory, from the first context on.
    pub memory: Option<Arc<GlobalMemory>>,
    /// What was allocated, and how.
    pub allocations: Allocations,
    /// The device's primary context.
    pub primary: Primary,
    /// Live contexts.
    pub contexts: Table<Context>,
    /// Live streams, the default ones among them.
    pub streams: Table<Stream>,
    /// Live events.
    pub events: Table<Event>,
    /// Loaded modules.
    pub modules: Table<LoadedImage>,
    /// Functions that were asked for.
    pub functions: Table<Function>,
    /// Graphs.
    pub graphs: Table<Graph>,
    /// Executable graphs.
    pub executables: Table<Executable>,
    /// Memory pools.
    pub pools: Table<Pool>,
    /// The pool that `cuMemAllocAsync` takes from, once asked for: the default, and the current one.
    pub device_pools: Option<(Serial, Serial)>,
    /// Captures that have begun and not ended.
    pub captures: BTreeMap<Serial, Capture>,
    /// Captures begun so far.
    pub captures_begun: Serial,
    /// Operations that have not run.
    pub queue: Queue,
    /// When a call last came in.
    pub last_call: Instant,
    reports: VecDeque<(u64, LaunchReport)>,
}

static DRIVER: LazyLock<Mutex<Driver>> = LazyLock::new(|| {
    Mutex::new(Driver {
        initialised: false,
        settings: Arc::default(),
        memory: None,
        allocations: Allocations::default(),
        primary: Primary::default(),
        contexts: Table::new(Kind::Context),
        streams: Table::new(Kind::Stream),
        events: Table::new(Kind::Event),
        modules: Table::new(Kind::Module),
        functions: Table::new(Kind::Function),
        graphs: Table::new(Kind::Graph),
        executables: Table::new(Kind::GraphExec),
        pools: Table::new(Kind::Pool),
        device_pools: None,
        captures: BTreeMap::new(),
        captures_begun: 0,
        queue: Queue::default(),
        last_call: Instant::now(),
        reports: VecDeque::new(),
    })
});
/// Signalled when an operation has ended while others may wait for it.
static CHANGED: Condvar = Condvar::new();

thread_local! {
    static THREAD: u64 = {
        static THREADS: AtomicU64 = AtomicU64::new(1);
        THREADS.fetch_add(1, Ordering::Relaxed)
    };
    /// Settings of this thread, where they differ from the driver's.
    static SETTINGS: RefCell<Option<Arc<Settings>>> = const { RefCell::new(None) };
    /// For whom a thread of the stand-in's own works.
    static BEHALF: RefCell<Option<Origin>> = const { RefCell::new(None) };
    /// The stack of contexts; the last is current.
    static CONTEXTS: RefCell<Vec<Serial>> = const { RefCell::new(Vec::new()) };
    /// This thread is in a host function, where calls of the driver are forbidden.
    static IN_HOST_FUNCTION: Cell<bool> = const { Cell::new(false) };
}

/// The number of the calling thread.
pub fn this_thread() -> u64 {
    THREAD.with(|thread| *thread)
}

/// Whether the calling thread is in a host function of a stream.
pub fn in_host_function() -> bool {
    IN_HOST_FUNCTION.get()
}

/// The driver's state, while this lives.
pub struct Locked {
    /// None only while [`Locked::unlocked`] runs.
    guard: Option<MutexGuard<'static, Driver>>,
}

impl Deref for Locked {
    type Target = Driver;
    fn deref(&self) -> &Driver {
        self.guard.as_ref().expect("unlocked() puts it back")
    }
}

impl DerefMut for Locked {
    fn deref_mut(&mut self) -> &mut Driver {
        self.guard.as_mut().expect("unlocked() puts it back")
    }
}

fn lock() -> MutexGuard<'static, Driver> {
    // A panic in a call is turned into an error of that call; the state stays usable.
    DRIVER.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Locked {
    /// Takes the lock.
    #[allow(clippy::new_without_default, reason = "taking a lock is no default value")]
    pub fn new() -> Locked {
        Locked { guard: Some(lock()) }
    }

    /// Takes the lock in a thread of the stand-in's own, which works for another.
    pub fn on_behalf_of(origin: &Origin) -> Locked {
        BEHALF.set(Some(origin.clone()));
        Locked::new()
    }

    /// Runs a host function of the program, without the lock and in a thread of its own, as CUDA's driver has one: it
    /// must not matter which thread of the program waits for it.
    pub fn in_host_function(&mut self, function: impl FnOnce() + Send) {
        self.guard = None;
        std::thread::scope(|scope| {
            scope.spawn(|| {
                IN_HOST_FUNCTION.set(true);
                function();
            });
        });
        self.guard = Some(lock());
    }

    /// Gives the lock up until another thread has ended an operation.
    pub fn wait_for_change(&mut self) {
        if let Some(guard) = self.guard.take() {
            self.guard = Some(CHANGED.wait(guard).unwrap_or_else(PoisonError::into_inner));
        }
    }

    /// Wakes those in [`Locked::wait_for_change`].
    pub fn announce_change(&self) {
        CHANGED.notify_all();
    }
}

impl Driver {
    /// Who is calling.
    pub fn origin(&self) -> Origin {
        if let Some(origin) = BEHALF.with_borrow(Clone::clone) {
            return origin;
        }
        let settings = SETTINGS.with_borrow(Clone::clone).unwrap_or_else(|| self.settings.clone());
        Origin { thread: this_thread(), settings }
    }

    /// Gives the calling thread settings of its own.
    pub fn set_thread_settings(settings: Option<Settings>) {
        SETTINGS.set(settings.map(Arc::new));
    }

    /// The device's memory.
    ///
    /// # Errors
    /// `OUT_OF_MEMORY` when the host refuses the address space.
    pub fn memory(&mut self) -> Outcome<Arc<GlobalMemory>> {
        if let Some(memory) = &self.memory {
            return Ok(memory.clone());
        }
        match GlobalMemory::new(DEVICE_BYTES) {
            Ok(memory) => Ok(self.memory.insert(Arc::new(memory)).clone()),
            Err(error) => fail(
                Status::OUT_OF_MEMORY,
                format!("the host has no address space for {} GiB of device memory: {error}", DEVICE_BYTES >> 30),
            ),
        }
    }

    /// Bytes of the device's memory.
    pub fn device_bytes() -> u64 {
        DEVICE_BYTES
    }

    /// Keeps a report until it is taken.
    pub fn keep_report(&mut self, thread: u64, report: LaunchReport) {
        if self.reports.len() == REPORTS_KEPT {
            self.reports.pop_front();
        }
        self.reports.push_back((thread, report));
    }

    /// The reports of launches that have run, of one thread's or of all; they are forgotten.
    pub fn take_reports(&mut self, thread: Option<u64>) -> Vec<LaunchReport> {
        let (taken, kept): (VecDeque<_>, VecDeque<_>) = std::mem::take(&mut self.reports)
            .into_iter()
            .partition(|(of, _)| thread.is_none_or(|thread| *of == thread));
        self.reports = kept;
        taken.into_iter().map(|(_, report)| report).collect()
    }

    /// Changes the calling thread's stack of contexts.
    pub fn with_context_stack<R>(change: impl FnOnce(&mut Vec<Serial>) -> R) -> R {
        CONTEXTS.with_borrow_mut(change)
    }

    /// The current context of the calling thread, whole and usable.
    ///
    /// # Errors
    /// None current, destroyed, or broken by an earlier asynchronous error, which is then told again.
    pub fn current(&self) -> Outcome<Serial> {
        let Some(serial) = CONTEXTS.with_borrow(|stack| stack.last().copied()) else {
            return fail(Status::INVALID_CONTEXT, "no context is current in this thread");
        };
        self.check_context(serial)?;
        Ok(serial)
    }

    /// That a context lives and no error has broken it.
    ///
    /// # Errors
    /// As [`Driver::current`].
    pub fn check_context(&self, serial: Serial) -> Outcome<()> {
        match self.contexts.find(serial) {
            None => fail(Status::CONTEXT_IS_DESTROYED, "the context was destroyed"),
            Some(Context { broken: Some(failure), .. }) => Err(Failure::clone(failure)),
            Some(_) => Ok(()),
        }
    }
}
