//! Stream capture: work that is written down in place of being submitted, and the calls that this forbids.

use super::error::{Failure, Outcome, Status, fail, invalid};
use super::graph::{Graph, GraphNode};
use super::handle::Serial;
use super::state::{Driver, Locked, this_thread};
use super::stream::{Rule, Stream};
use super::work::Work;

/// Which calls of which threads a capture forbids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Unsafe calls of any thread.
    Global,
    /// Unsafe calls of the thread that began it.
    ThreadLocal,
    /// None.
    Relaxed,
}

/// A capture under way.
#[derive(Debug)]
pub struct Capture {
    /// The context that it belongs to.
    pub context: Serial,
    origin: Serial,
    mode: Mode,
    thread: u64,
    nodes: Vec<GraphNode>,
    /// Why it can only be ended, if something spoilt it.
    invalid: Option<String>,
}

fn spoilt(reason: &str) -> Failure {
    Failure { status: Status::STREAM_CAPTURE_INVALIDATED, text: format!("the capture was invalidated: {reason}") }
}

impl Driver {
    /// Spoils a capture, if it is still under way.
    pub fn invalidate(&mut self, capture: Serial, reason: &str) {
        if let Some(capture) = self.captures.get_mut(&capture) {
            capture.invalid.get_or_insert_with(|| reason.to_owned());
        }
    }

    /// Refuses a call that could wait for the device, or change what captured work relies on, while a capture forbids it.
    ///
    /// # Errors
    /// `STREAM_CAPTURE_UNSUPPORTED`, which spoils the capture.
    pub fn refuse_while_capturing(&mut self, call: &str) -> Outcome<()> {
        let forbids = |capture: &Capture| match capture.mode {
            Mode::Global => true,
            Mode::ThreadLocal => capture.thread == this_thread(),
            Mode::Relaxed => false,
        };
        let mut refused = false;
        for capture in self.captures.values_mut().filter(|capture| forbids(capture)) {
            capture.invalid.get_or_insert_with(|| format!("{call} was called during it"));
            refused = true;
        }
        if refused {
            let text = format!("{call} is not permitted while a stream is capturing");
            return fail(Status::STREAM_CAPTURE_UNSUPPORTED, text);
        }
        Ok(())
    }

    /// Refuses to wait for a stream that captures, or to ask for its state.
    ///
    /// # Errors
    /// `STREAM_CAPTURE_UNSUPPORTED`, which spoils the capture.
    pub fn refuse_captured_stream(&mut self, stream: Serial) -> Outcome<()> {
        if let Some((capture, _)) = self.streams.find(stream).and_then(|stream| stream.capture.clone()) {
            self.invalidate(capture, "one of its streams was waited for or asked about");
            let text = "a stream that captures can neither be waited for nor asked about";
            return fail(Status::STREAM_CAPTURE_UNSUPPORTED, text);
        }
        Ok(())
    }

    /// Refuses that a capturing stream waits for work outside its capture.
    ///
    /// # Errors
    /// `STREAM_CAPTURE_ISOLATION`, which spoils the capture.
    pub fn refuse_dependency_of_capture(&mut self, stream: Serial) -> Outcome<()> {
        if let Some((capture, _)) = self.streams.find(stream).and_then(|stream| stream.capture.clone()) {
            let text = "a capturing stream waits for an event that was recorded outside the capture";
            self.invalidate(capture, text);
            return fail(Status::STREAM_CAPTURE_ISOLATION, text);
        }
        Ok(())
    }

    /// The nodes that a capturing stream's next one must follow; `None` for a stream that does not capture.
    ///
    /// # Errors
    /// The capture is spoilt; or the stream is the legacy one while a stream that it waits for captures.
    pub fn frontier(&mut self, stream: Serial) -> Outcome<Option<(Serial, Vec<usize>)>> {
        let Some(state) = self.streams.find(stream) else { return Ok(None) };
        if let Some((capture, frontier)) = state.capture.clone() {
            return match self.captures.get(&capture).and_then(|capture| capture.invalid.as_deref()) {
                Some(reason) => Err(spoilt(reason)),
                None => Ok(Some((capture, frontier))),
            };
        }
        if state.rule == Rule::Legacy {
            let context = state.context;
            let entangled = |other: &Stream| {
                let (capture, _) = other.capture.as_ref()?;
                (other.rule == Rule::Blocking && other.context == context).then_some(*capture)
            };
            let found = self.streams.iter().find_map(|(_, other)| entangled(other));
            if let Some(capture) = found {
                let text = "the legacy default stream was used, which waits for the capturing stream";
                self.invalidate(capture, text);
                return fail(Status::STREAM_CAPTURE_IMPLICIT, text);
            }
        }
        Ok(None)
    }

    /// Refuses to ask about the legacy stream while a stream that it waits for captures.
    ///
    /// # Errors
    /// `STREAM_CAPTURE_IMPLICIT`, which spoils that capture.
    pub fn frontier_of_legacy(&mut self, stream: Serial) -> Outcome<()> {
        match self.streams.find(stream).map(|stream| stream.rule) {
            Some(Rule::Legacy) => self.frontier(stream).map(|_| ()),
            _ => Ok(()),
        }
    }

    /// Writes work down if its stream captures; tells whether it does.
    ///
    /// # Errors
    /// As [`Driver::frontier`].
    pub fn capture_work(&mut self, stream: Serial, work: &Work) -> Outcome<bool> {
        self.capture_nodes(stream, &[GraphNode { work: work.clone(), after: Vec::new() }])
    }

    /// Writes a piece of a graph down if the stream captures: its roots follow the stream's frontier, and its ends are
    /// the new one.
    ///
    /// # Errors
    /// As [`Driver::frontier`].
    pub fn capture_nodes(&mut self, stream: Serial, piece: &[GraphNode]) -> Outcome<bool> {
        let Some((serial, frontier)) = self.frontier(stream)? else { return Ok(false) };
        let Some(capture) = self.captures.get_mut(&serial) else { return Ok(false) };
        let base = capture.nodes.len();
        for GraphNode { work, after } in piece {
            let after = if after.is_empty() { frontier.clone() } else { after.iter().map(|i| base + i).collect() };
            capture.nodes.push(GraphNode { work: work.clone(), after });
        }
        let inner = |i: &usize| piece.iter().any(|node| node.after.contains(i));
        let ends: Vec<usize> = (0..piece.len()).filter(|i| !inner(i)).map(|i| base + i).collect();
        if let Some(Stream { capture: Some((_, frontier)), .. }) = self.streams.find_mut(stream)
            && !ends.is_empty()
        {
            *frontier = ends;
        }
        Ok(true)
    }

    /// Begins a capture in a stream.
    ///
    /// # Errors
    /// The legacy stream cannot capture; the stream captures already; no such mode.
    pub fn begin_capture(&mut self, stream: Serial, mode: u32) -> Outcome<()> {
        let mode = match mode {
            0 => Mode::Global,
            1 => Mode::ThreadLocal,
            2 => Mode::Relaxed,
            other => return invalid(format!("{other} is no capture mode")),
        };
        self.captures_begun += 1;
        let serial = self.captures_begun;
        let Some(state) = self.streams.find_mut(stream) else { return invalid("no such stream") };
        if state.rule == Rule::Legacy {
            return fail(Status::STREAM_CAPTURE_UNSUPPORTED, "the legacy default stream cannot capture");
        }
        if state.capture.is_some() {
            return fail(Status::ILLEGAL_STATE, "the stream captures already");
        }
        state.capture = Some((serial, Vec::new()));
        let context = state.context;
        let capture =
            Capture { context, origin: stream, mode, thread: this_thread(), nodes: Vec::new(), invalid: None };
        self.captures.insert(serial, capture);
        Ok(())
    }

    /// Lets a stream wait for an event of a capture: it takes part in the capture from then on.
    ///
    /// # Errors
    /// `STREAM_CAPTURE_MERGE` when it takes part in another one, which spoils both.
    pub fn join_capture(&mut self, stream: Serial, capture: Serial, nodes: Vec<usize>) -> Outcome<()> {
        if !self.captures.contains_key(&capture) {
            return fail(Status::CAPTURED_EVENT, "the event was last recorded in a capture that has ended");
        }
        let Some(state) = self.streams.find_mut(stream) else { return invalid("no such stream") };
        if state.rule == Rule::Legacy {
            self.invalidate(capture, "the legacy default stream was made to wait for one of its events");
            return fail(Status::STREAM_CAPTURE_IMPLICIT, "the legacy default stream cannot wait for a captured event");
        }
        match &mut state.capture {
            None => state.capture = Some((capture, nodes)),
            Some((own, frontier)) if *own == capture => {
                frontier.extend(nodes);
                frontier.sort_unstable();
                frontier.dedup();
            }
            Some((own, _)) => {
                let own = *own;
                for each in [own, capture] {
                    self.invalidate(each, "a stream of one capture waited for an event of another");
                }
                return fail(Status::STREAM_CAPTURE_MERGE, "the event belongs to another capture than the stream");
            }
        }
        Ok(())
    }

    /// Whether a stream captures: 0 no, 1 yes, 2 yes but spoilt.
    pub fn capture_status(&self, stream: Serial) -> (u32, Serial) {
        match self.streams.find(stream).and_then(|stream| stream.capture.as_ref()) {
            None => (0, 0),
            Some((capture, _)) => {
                let invalid = self.captures.get(capture).is_none_or(|capture| capture.invalid.is_some());
                (1 + u32::from(invalid), *capture)
            }
        }
    }

    /// Ends the capture that began in a stream.
    ///
    /// # Errors
    /// None began there; another thread's; spoilt; a forked stream was not joined.
    pub fn end_capture(&mut self, stream: Serial) -> Outcome<Serial> {
        let Some((serial, frontier)) = self.streams.find(stream).and_then(|stream| stream.capture.clone()) else {
            return fail(Status::ILLEGAL_STATE, "the stream does not capture");
        };
        let Some(capture) = self.captures.get(&serial) else {
            return fail(Status::ILLEGAL_STATE, "the stream's capture has ended");
        };
        if capture.origin != stream {
            self.invalidate(serial, "it was to be ended in a stream that it did not begin in");
            return fail(Status::STREAM_CAPTURE_UNMATCHED, "the capture began in another stream");
        }
        if capture.mode != Mode::Relaxed && capture.thread != this_thread() {
            return fail(Status::STREAM_CAPTURE_WRONG_THREAD, "the capture was begun by another thread");
        }
        let Some(capture) = self.forget_capture(serial) else { return invalid("no such capture") };
        if let Some(reason) = &capture.invalid {
            return Err(spoilt(reason));
        }
        // Whatever was captured must come before the end of the origin.
        let mut joined = vec![false; capture.nodes.len()];
        let mut open = frontier;
        while let Some(node) = open.pop() {
            if !std::mem::replace(&mut joined[node], true) {
                open.extend(&capture.nodes[node].after);
            }
        }
        if let Some(lost) = joined.iter().position(|joined| !joined) {
            let text = format!("node {lost} of the capture is in a forked stream that was not joined to the first");
            return fail(Status::STREAM_CAPTURE_UNJOINED, text);
        }
        Ok(self.graphs.insert(Graph { nodes: capture.nodes.into() }))
    }

    /// Gives up the capture that a stream takes part in, for the stream goes.
    pub fn abort_capture_of(&mut self, stream: Serial) {
        if let Some((capture, _)) = self.streams.find(stream).and_then(|stream| stream.capture.clone()) {
            if self.captures.get(&capture).is_some_and(|capture| capture.origin == stream) {
                self.forget_capture(capture);
            } else {
                self.invalidate(capture, "one of its streams was destroyed");
            }
        }
    }

    fn forget_capture(&mut self, serial: Serial) -> Option<Capture> {
        for (_, stream) in self.streams.iter_mut() {
            stream.capture.take_if(|(capture, _)| *capture == serial);
        }
        self.captures.remove(&serial)
    }
}

impl Locked {
    /// Waits for the whole context, unless a capture forbids it.
    ///
    /// # Errors
    /// As [`Driver::refuse_while_capturing`], and the context's own.
    pub fn synchronize_current(&mut self, call: &str) -> Outcome<()> {
        let current = self.current()?;
        self.refuse_while_capturing(call)?;
        self.synchronize_context(current)
    }
}
