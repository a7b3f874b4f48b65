//! Streams and events: what CUDA promises about order, and no more.

use std::sync::Arc;

use super::allocations::Origin;
use super::error::{Outcome, Status, fail, invalid};
use super::handle::Serial;
use super::hazards::Lane;
use super::schedule::Node;
use super::state::{Driver, Locked, this_thread};
use super::work::Work;

/// How a stream relates to the legacy default stream of its context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// It is the legacy default stream: its work waits for all earlier work of blocking streams.
    Legacy,
    /// Its work waits for earlier work in the legacy default stream.
    Blocking,
    /// It keeps to itself.
    NonBlocking,
}

/// A stream.
#[derive(Debug)]
pub struct Stream {
    /// The context that it belongs to.
    pub context: Serial,
    /// How it relates to the legacy default stream.
    pub rule: Rule,
    /// Its priority; it changes nothing here.
    pub priority: i32,
    /// Its last operation.
    pub tail: Option<Arc<Node>>,
    /// The capture that it takes part in: its serial, and the capture's nodes that the stream's next one must follow.
    pub capture: Option<(Serial, Vec<usize>)>,
}

impl Stream {
    /// An empty stream.
    pub fn new(context: Serial, rule: Rule, priority: i32) -> Stream {
        Stream { context, rule, priority, tail: None, capture: None }
    }
}

/// An event.
#[derive(Debug)]
pub struct Event {
    /// The context that it belongs to.
    pub context: Serial,
    /// Whether it takes times.
    pub timed: bool,
    /// What it recorded last.
    pub record: Record,
}

/// What an event stands for.
#[derive(Clone, Debug, Default)]
pub enum Record {
    /// Nothing yet; whoever waits for it need not wait.
    #[default]
    Nothing,
    /// The work that was in a stream when the event was recorded.
    Work(Arc<Node>),
    /// Nodes of a capture.
    Captured(Serial, Vec<usize>),
}

/// Handles that stand for the default streams.
const LEGACY_STREAM: usize = 1;
const PER_THREAD_STREAM: usize = 2;

impl Driver {
    /// Which stream a handle means for the calling thread.
    ///
    /// # Errors
    /// Not a live stream, or its context is broken or (for a default stream) there is none.
    pub fn stream(&mut self, handle: *mut std::ffi::c_void) -> Outcome<Serial> {
        match handle.addr() {
            0 | LEGACY_STREAM => {
                let current = self.current()?;
                Ok(self.contexts.find(current).map_or(0, |context| context.legacy))
            }
            PER_THREAD_STREAM => {
                let (current, thread) = (self.current()?, this_thread());
                let known = self.contexts.find(current).and_then(|context| context.per_thread.get(&thread).copied());
                if let Some(stream) = known {
                    return Ok(stream);
                }
                let stream = self.streams.insert(Stream::new(current, Rule::Blocking, 0));
                if let Some(context) = self.contexts.find_mut(current) {
                    context.per_thread.insert(thread, stream);
                }
                Ok(stream)
            }
            _ => {
                let serial = self.streams.serial(handle)?;
                self.check_context(self.context_of(serial))?;
                Ok(serial)
            }
        }
    }

    /// The context of a live stream.
    pub fn context_of(&self, stream: Serial) -> Serial {
        self.streams.find(stream).map_or(0, |stream| stream.context)
    }

    /// What the next operation of a stream must follow.
    fn predecessors(&self, serial: Serial) -> Vec<Arc<Node>> {
        let Some(stream) = self.streams.find(serial) else { return Vec::new() };
        let mut nodes: Vec<Arc<Node>> = stream.tail.iter().cloned().collect();
        let Some(context) = self.contexts.find(stream.context) else { return nodes };
        match stream.rule {
            Rule::NonBlocking => {}
            Rule::Blocking => nodes.extend(self.streams.find(context.legacy).and_then(|legacy| legacy.tail.clone())),
            Rule::Legacy => {
                let blocking = self.streams.iter().map(|(_, other)| other);
                let blocking = blocking.filter(|o| o.rule == Rule::Blocking && o.context == stream.context);
                nodes.extend(blocking.filter_map(|other| other.tail.clone()));
                nodes.extend(context.orphans.iter().cloned());
            }
        }
        nodes
    }
}

impl Locked {
    /// Submits work to a stream, or adds it to the capture that the stream is in.
    ///
    /// # Errors
    /// Those of captures.
    pub fn submit(&mut self, stream: Serial, work: Work) -> Outcome<()> {
        if self.capture_work(stream, &work)? {
            return Ok(());
        }
        self.append(stream, Vec::new(), work);
        Ok(())
    }

    /// Submits work to a stream that does not capture; it follows the given nodes too.
    pub fn append(&mut self, stream: Serial, others: Vec<Arc<Node>>, work: Work) -> Arc<Node> {
        let mut dependencies = self.predecessors(stream);
        dependencies.extend(others);
        let context = self.context_of(stream);
        let node = self.enqueue(context, Lane::Stream(stream), dependencies, work);
        if let Some(stream) = self.streams.find_mut(stream) {
            stream.tail = Some(node.clone());
            if stream.rule == Rule::Legacy
                && let Some(context) = self.contexts.find_mut(context)
            {
                context.orphans.clear();
            }
        }
        node
    }

    /// Waits for all work of a stream.
    ///
    /// # Errors
    /// Asynchronous errors of its context; captures cannot be waited for.
    pub fn synchronize_stream(&mut self, stream: Serial) -> Outcome<()> {
        self.refuse_captured_stream(stream)?;
        let goals: Vec<Arc<Node>> = self.streams.find(stream).and_then(|s| s.tail.clone()).into_iter().collect();
        self.wait_for(&goals);
        self.check_context(self.context_of(stream))
    }

    /// Whether a stream's work is finished.
    ///
    /// # Errors
    /// `NOT_READY`, and those of [`Locked::synchronize_stream`].
    pub fn query_stream(&mut self, stream: Serial) -> Outcome<()> {
        self.refuse_captured_stream(stream)?;
        let tail = self.streams.find(stream).and_then(|s| s.tail.clone());
        let outcome = tail.map_or(Ok(()), |tail| self.poll(&tail));
        self.check_context(self.context_of(stream)).and(outcome)
    }

    /// Destroys a stream; its work goes on.
    ///
    /// # Errors
    /// It is a default stream, which cannot be destroyed.
    pub fn destroy_stream(&mut self, handle: *mut std::ffi::c_void) -> Outcome<()> {
        if handle.addr() <= PER_THREAD_STREAM {
            return fail(Status::INVALID_HANDLE, "a default stream cannot be destroyed");
        }
        let serial = self.streams.serial(handle)?;
        self.abort_capture_of(serial);
        if let Some(Stream { context, rule, tail: Some(tail), .. }) = self.streams.remove(serial) {
            let Driver { contexts, queue, .. } = &mut **self;
            if let Some(context) = contexts.find_mut(context) {
                context.ended.retain(|node| !queue.is_known_to_host(node));
                context.ended.push(tail.clone());
                if rule == Rule::Blocking {
                    context.orphans.push(tail);
                }
            }
        }
        Ok(())
    }

    /// Records in an event what is in a stream now.
    ///
    /// # Errors
    /// They are of different contexts; or those of captures.
    pub fn record_event(&mut self, event: *mut std::ffi::c_void, stream: Serial) -> Outcome<()> {
        let serial = self.events.serial(event)?;
        if self.events.find(serial).map(|event| event.context) != Some(self.context_of(stream)) {
            return fail(Status::INVALID_HANDLE, "event and stream belong to different contexts");
        }
        let record = match self.frontier(stream)? {
            Some((capture, nodes)) => Record::Captured(capture, nodes),
            None => Record::Work(self.append(stream, Vec::new(), Work::Marker)),
        };
        if let Some(event) = self.events.find_mut(serial) {
            event.record = record;
        }
        Ok(())
    }

    /// Makes a stream wait for what an event recorded last, before this call.
    ///
    /// # Errors
    /// Those of captures.
    pub fn wait_event(&mut self, stream: Serial, event: *mut std::ffi::c_void) -> Outcome<()> {
        let record = self.events.get(event)?.record.clone();
        match record {
            Record::Nothing => Ok(()),
            Record::Work(node) => {
                self.refuse_dependency_of_capture(stream)?;
                self.append(stream, vec![node], Work::Marker);
                Ok(())
            }
            Record::Captured(capture, nodes) => self.join_capture(stream, capture, nodes),
        }
    }

    /// The work that an event stands for.
    ///
    /// # Errors
    /// `CAPTURED_EVENT`: what is captured can neither be waited for nor asked about; the capture is spoilt by trying.
    pub fn recorded(&mut self, event: *mut std::ffi::c_void) -> Outcome<Option<Arc<Node>>> {
        let event = self.events.get(event)?;
        let context = event.context;
        match event.record.clone() {
            Record::Nothing => self.check_context(context).map(|()| None),
            Record::Work(node) => self.check_context(context).map(|()| Some(node)),
            Record::Captured(capture, _) => {
                self.invalidate(capture, "one of its events was waited for or asked about");
                fail(Status::CAPTURED_EVENT, "the event was last recorded in a stream that captures")
            }
        }
    }

    /// Milliseconds of the modelled device between two events.
    ///
    /// # Errors
    /// Not recorded, without times, or not finished.
    pub fn elapsed(&mut self, start: *mut std::ffi::c_void, end: *mut std::ffi::c_void) -> Outcome<f32> {
        let mut times = [0; 2];
        for ((time, event), which) in times.iter_mut().zip([start, end]).zip(["first", "second"]) {
            let node = self.recorded(event)?;
            if !self.events.get(event)?.timed {
                let text = format!("the {which} event takes no times (CU_EVENT_DISABLE_TIMING)");
                return fail(Status::INVALID_HANDLE, text);
            }
            let Some(node) = node else {
                return fail(Status::INVALID_HANDLE, format!("the {which} event was never recorded"));
            };
            *time = match node.finished() {
                Some(time) => time,
                None => return fail(Status::NOT_READY, format!("the {which} event is not finished")),
            };
        }
        Ok((times[1] as f64 - times[0] as f64) as f32 / 1e6)
    }

    /// Takes stream-ordered memory.
    ///
    /// # Errors
    /// `OUT_OF_MEMORY`, and those of captures.
    pub fn allocate_in_stream(&mut self, bytes: u64, pool: Serial, stream: Serial) -> Outcome<u64> {
        let of_graph = self.streams.find(stream).is_some_and(|stream| stream.capture.is_some());
        let origin = Origin::StreamOrdered { pool, of_graph, usable: false, freed: false };
        let context = self.context_of(stream);
        let address = self.allocate(bytes, context, origin)?;
        if let Err(failure) = self.submit(stream, Work::Allocate { address }) {
            self.release(address)?;
            return Err(failure);
        }
        Ok(address)
    }

    /// Gives stream-ordered memory back.
    ///
    /// # Errors
    /// It is none, or was given back before; and those of captures.
    pub fn free_in_stream(&mut self, address: u64, stream: Serial) -> Outcome<()> {
        match self.allocations.at(address).map(|allocation| allocation.origin) {
            Some(Origin::StreamOrdered { freed: false, .. }) => {}
            Some(Origin::StreamOrdered { .. }) => return invalid(format!("{address:#x} is freed a second time")),
            Some(_) => {
                return invalid(format!("{address:#x} does not come from cuMemAllocAsync; free it with cuMemFree"));
            }
            None => {
                let fault = self.memory()?.fault_at(address);
                return invalid(format!("no allocation begins at {address:#x}: {fault}"));
            }
        }
        self.submit(stream, Work::Free { address })?;
        if let Some(allocation) = self.allocations.at_mut(address)
            && let Origin::StreamOrdered { freed, .. } = &mut allocation.origin
        {
            *freed = true;
        }
        Ok(())
    }
}
