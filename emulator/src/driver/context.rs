//! Contexts: what streams, events, modules and memory belong to, and what an asynchronous error breaks.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::error::{Failure, Outcome, Status, fail};
use super::handle::Serial;
use super::schedule::Node;
use super::state::{Driver, Locked};
use super::stream::{Rule, Stream};

/// A context.
#[derive(Debug)]
pub struct Context {
    /// Scheduling and mapping flags; they change nothing here.
    pub flags: u32,
    /// The first asynchronous error; every later call in the context tells it again.
    pub broken: Option<Failure>,
    /// Its legacy default stream.
    pub legacy: Serial,
    /// Default streams of threads, by thread.
    pub per_thread: BTreeMap<u64, Serial>,
    /// Ends of blocking streams that were destroyed with work in them: the legacy stream still waits for it.
    pub orphans: Vec<Arc<Node>>,
    /// Ends of all streams that were destroyed; who waits for the context waits for them.
    pub ended: Vec<Arc<Node>>,
    /// Limits by their number in `CUlimit`.
    pub limits: BTreeMap<u32, usize>,
    /// `CUfunc_cache`, a preference.
    pub cache_config: u32,
}

/// The device's primary context.
#[derive(Debug, Default)]
pub struct Primary {
    /// The context, while it is retained.
    pub context: Option<Serial>,
    /// How often it was retained and not released.
    pub retained: u32,
    /// Flags for its next creation.
    pub flags: u32,
}

/// Stack size, printf buffer, malloc heap, depth and count of launches from the device, L2 fetch granularity, persisting
/// L2: what a fresh context answers.
const DEFAULT_LIMITS: [(u32, usize); 7] = [(0, 1024), (1, 1 << 20), (2, 8 << 20), (3, 2), (4, 2048), (5, 64), (6, 0)];

impl Driver {
    /// Makes a context. The device's memory is set up with the first.
    pub fn create_context(&mut self, flags: u32) -> Outcome<Serial> {
        self.memory()?;
        let serial = self.contexts.insert(Context {
            flags,
            broken: None,
            legacy: 0,
            per_thread: BTreeMap::new(),
            orphans: Vec::new(),
            ended: Vec::new(),
            limits: DEFAULT_LIMITS.into(),
            cache_config: 0,
        });
        let legacy = self.streams.insert(Stream::new(serial, Rule::Legacy, 0));
        if let Some(context) = self.contexts.find_mut(serial) {
            context.legacy = legacy;
        }
        Ok(serial)
    }

    /// Retains the primary context, and makes it if need be.
    pub fn retain_primary(&mut self) -> Outcome<Serial> {
        let serial = match self.primary.context {
            Some(serial) => serial,
            None => self.create_context(self.primary.flags)?,
        };
        self.primary.context = Some(serial);
        self.primary.retained += 1;
        Ok(serial)
    }
}

impl Locked {
    /// Releases the primary context; the last release destroys it.
    pub fn release_primary(&mut self) -> Outcome<()> {
        let Some(serial) = self.primary.context else {
            return fail(Status::INVALID_CONTEXT, "the primary context is released more often than it was retained");
        };
        self.primary.retained -= 1;
        if self.primary.retained == 0 {
            self.primary.context = None;
            self.destroy_context(serial);
        }
        Ok(())
    }

    /// Runs what waits in a context, then destroys it and all that belongs to it.
    pub fn destroy_context(&mut self, serial: Serial) {
        self.wait_for_context(serial);
        self.contexts.remove(serial);
        self.streams.retain(|stream| stream.context != serial);
        self.events.retain(|event| event.context != serial);
        self.functions.retain(|function| function.context != serial);
        self.modules.retain(|image| image.context != serial);
        self.executables.retain(|executable| executable.context != serial);
        self.captures.retain(|_, capture| capture.context != serial);
        for address in self.allocations.of_context(serial) {
            // It was in the table, so it can be released; and there is nobody left to tell.
            let _ = self.release(address);
        }
    }

    /// Waits for all work in a context.
    ///
    /// # Errors
    /// The context's error, if it is broken by then.
    pub fn synchronize_context(&mut self, serial: Serial) -> Outcome<()> {
        self.wait_for_context(serial);
        self.check_context(serial)
    }

    /// Runs all that waits in a context. What has run already, the host knows from now on.
    fn wait_for_context(&mut self, serial: Serial) {
        let mut goals = self.queue.of_context(serial);
        let streams = self.streams.iter().map(|(_, stream)| stream).filter(|stream| stream.context == serial);
        goals.extend(streams.filter_map(|stream| stream.tail.clone()));
        if let Some(context) = self.contexts.find_mut(serial) {
            goals.append(&mut context.ended);
        }
        self.wait_for(&goals);
    }
}
