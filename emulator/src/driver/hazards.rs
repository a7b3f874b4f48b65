//! Races between streams: two uses of the same memory, one a write, that nothing orders.
//!
//! The order of a run is only one of those that CUDA allows, so a missing wait may do no harm in it. Here the question
//! is settled without luck: every operation has a vector clock of what must come before it (streams, events, and what
//! the host had waited for when it was submitted), and every use of memory is held against the uses before it.
//!
//! What the host itself does to pinned and managed memory is not seen.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::error::{Outcome, Status, fail};
use super::handle::Serial;

/// A sequence of operations each of which follows the one before: a stream, or one node of a graph over its launches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Lane {
    /// A stream.
    Stream(Serial),
    /// A node of an executable graph.
    Graph(Serial, usize),
}

/// How far each lane must have come.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Clock {
    reached: BTreeMap<Lane, u64>,
}

impl Clock {
    /// Whether an operation is among those that it covers.
    fn covers(&self, lane: Lane, index: u64) -> bool {
        self.reached.get(&lane).is_some_and(|reached| *reached >= index)
    }

    /// Extends it by all that another covers.
    fn join(&mut self, other: &Clock) {
        for (lane, index) in &other.reached {
            let reached = self.reached.entry(*lane).or_default();
            *reached = (*reached).max(*index);
        }
    }
}

/// An operation's place in the order of things.
#[derive(Clone, Debug)]
pub struct Place {
    lane: Lane,
    /// Its number among all operations; a lane's are in order.
    index: u64,
    /// What must come before it in the device's order, itself included.
    clock: Clock,
    /// What the host had waited for when it was submitted.
    host: Arc<Clock>,
}

impl Place {
    fn follows(&self, earlier: &Place) -> bool {
        self.clock.covers(earlier.lane, earlier.index) || self.host.covers(earlier.lane, earlier.index)
    }
}

/// A use of memory: `height` rows of `width` bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Use {
    /// The first byte.
    pub start: u64,
    /// Bytes of a row.
    pub width: u64,
    /// Rows, at least 1.
    pub height: u64,
    /// Bytes from one row to the next.
    pub pitch: u64,
    /// Whether it changes what lies there.
    pub writes: bool,
}

impl Use {
    /// A use of bytes without gaps.
    pub fn whole(start: u64, bytes: u64, writes: bool) -> Use {
        Use { start, width: bytes, height: 1, pitch: bytes, writes }
    }

    /// One past the last byte.
    fn end(&self) -> u64 {
        self.start + (self.height - 1) * self.pitch + self.width
    }

    /// The first bytes that two uses share: where they begin, and one past their end.
    fn overlap(&self, other: &Use) -> Option<(u64, u64)> {
        if self.start >= other.end() || other.start >= self.end() {
            return None;
        }
        for row in 0..self.height {
            let (start, end) = (self.start + row * self.pitch, self.start + row * self.pitch + self.width);
            // Only these rows of the other can reach this one.
            let nearest = start.saturating_sub(other.start).checked_div(other.pitch).unwrap_or(0);
            for index in nearest..other.height.min(nearest + 2 + self.width.checked_div(other.pitch).unwrap_or(0)) {
                let begin = other.start + index * other.pitch;
                if begin < end && start < begin + other.width {
                    return Some((start.max(begin), end.min(begin + other.width)));
                }
            }
        }
        None
    }

    /// Whether it uses all that another uses, as far as can be told at a glance.
    fn covers(&self, other: &Use) -> bool {
        let within = self.start <= other.start && other.end() <= self.end();
        let same = Use { writes: self.writes, ..*other } == *self;
        same || (within && (self.height == 1 || self.width == self.pitch))
    }
}

#[derive(Debug)]
struct Past {
    used: Use,
    place: Arc<Place>,
    by: String,
}

/// Uses remembered; beyond them the oldest allocations' are forgotten, and a race with them is missed.
const USES_REMEMBERED: usize = 1 << 16;

/// The order of things, and the uses of memory so far.
#[derive(Debug, Default)]
pub struct Hazards {
    operations: u64,
    /// The latest operation of each lane.
    lanes: HashMap<Lane, u64>,
    /// What the host has waited for.
    host: Arc<Clock>,
    /// By the first address of the allocation.
    past: BTreeMap<u64, Vec<Past>>,
    remembered: usize,
}

impl Hazards {
    /// The place of a new operation on a lane, after others.
    pub fn place<'a>(&mut self, lane: Lane, after: impl Iterator<Item = &'a Place>) -> Place {
        self.operations += 1;
        let index = self.operations;
        self.lanes.insert(lane, index);
        let mut clock = Clock { reached: BTreeMap::from([(lane, index)]) };
        let host = &self.host;
        after.for_each(|place| clock.join(&place.clock));
        // What the host knows need not be kept twice.
        clock.reached.retain(|each, reached| *each == lane || !host.covers(*each, *reached));
        Place { lane, index, clock, host: self.host.clone() }
    }

    /// The host has waited for an operation: all that it submits from now on comes after.
    pub fn observe(&mut self, place: &Place) {
        if self.is_observed(place) {
            return;
        }
        let host = Arc::make_mut(&mut self.host);
        host.join(&place.clock);
        host.join(&place.host);
        self.forget_if_quiet();
    }

    /// Whether the host has waited for an operation.
    pub fn is_observed(&self, place: &Place) -> bool {
        !self.lanes.contains_key(&place.lane) || self.host.covers(place.lane, place.index)
    }

    /// When the host has waited for everything, nothing of the past can race with what comes. Numbers are not given
    /// twice, so clocks that events still keep cover nothing new.
    fn forget_if_quiet(&mut self) {
        if self.lanes.iter().all(|(lane, index)| self.host.covers(*lane, *index)) {
            self.lanes.clear();
            self.host = Arc::default();
            self.past.clear();
            self.remembered = 0;
        }
    }

    /// Forgets an allocation: its address means something else from now on.
    pub fn forget(&mut self, allocation: u64) {
        if let Some(gone) = self.past.remove(&allocation) {
            self.remembered -= gone.len();
        }
    }

    /// Holds a use against the past of its allocation, and remembers it.
    ///
    /// # Errors
    /// `LAUNCH_FAILED` with both uses, when they race.
    pub fn check(&mut self, allocation: u64, used: Use, place: &Arc<Place>, by: &str) -> Outcome<()> {
        let past = self.past.entry(allocation).or_default();
        let racing = |past: &Past| {
            let ordered = (!past.used.writes && !used.writes) || place.follows(&past.place);
            if ordered { None } else { used.overlap(&past.used) }
        };
        if let Some((other, (start, end))) = past.iter().find_map(|past| Some((past, racing(past)?))) {
            let verb = |writes| if writes { "writes" } else { "reads" };
            return fail(
                Status::LAUNCH_FAILED,
                format!(
                    "race between streams: {by} in {} {} and {} in {} {} bytes {} to {} of the allocation at \
                     {allocation:#x}, and nothing orders the two; let one stream wait for an event of the other",
                    place.lane,
                    verb(used.writes),
                    other.by,
                    other.place.lane,
                    verb(other.used.writes),
                    start - allocation,
                    end - 1 - allocation,
                ),
            );
        }
        // Who races with a use that is covered by this one, races with this one.
        let before = past.len();
        past.retain(|past| {
            !(used.covers(&past.used) && (used.writes || !past.used.writes) && place.follows(&past.place))
        });
        past.push(Past { used, place: place.clone(), by: by.to_owned() });
        self.remembered = self.remembered + past.len() - before;
        while self.remembered > USES_REMEMBERED {
            let Some((_, gone)) = self.past.pop_first() else { break };
            self.remembered -= gone.len();
        }
        Ok(())
    }
}

impl std::fmt::Display for Lane {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Lane::Stream(serial) => write!(formatter, "stream {serial}"),
            Lane::Graph(serial, node) => write!(formatter, "node {node} of graph {serial}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Lane = Lane::Stream(1);
    const TWO: Lane = Lane::Stream(2);

    fn used(start: u64, end: u64, writes: bool) -> Use {
        Use::whole(start, end - start, writes)
    }

    /// Against a list of all bytes.
    #[test]
    fn rows_overlap_where_their_bytes_do() {
        let uses = |start| {
            [(1, 1), (3, 5), (4, 4), (2, 9)].into_iter().flat_map(move |(width, pitch)| {
                [1, 2, 5].map(|height| Use { start, width, height, pitch, writes: true })
            })
        };
        let bytes = |used: &Use| -> std::collections::BTreeSet<u64> {
            (0..used.height).flat_map(|row| (0..used.width).map(move |at| used.start + row * used.pitch + at)).collect()
        };
        for one in uses(20) {
            for other in (0..50).flat_map(uses) {
                let shared: Vec<u64> = bytes(&one).intersection(&bytes(&other)).copied().collect();
                let overlap = one.overlap(&other);
                assert_eq!(overlap.map(|(start, _)| start), shared.first().copied(), "{one:?} {other:?}");
                assert!(!one.covers(&other) || bytes(&other).is_subset(&bytes(&one)), "{one:?} {other:?}");
            }
        }
    }

    #[test]
    fn what_nothing_orders_races() {
        for (first_writes, second_writes) in [(true, false), (false, true), (true, true), (false, false)] {
            let mut hazards = Hazards::default();
            let first = Arc::new(hazards.place(ONE, [].iter()));
            let second = Arc::new(hazards.place(TWO, [].iter()));
            hazards.check(0, used(0, 8, first_writes), &first, "first").unwrap();
            let outcome = hazards.check(0, used(7, 16, second_writes), &second, "second");
            assert_eq!(outcome.is_err(), first_writes || second_writes);
            if let Err(failure) = outcome {
                assert!(failure.text.contains("bytes 7 to 7"), "{}", failure.text);
            }
            assert!(hazards.check(0, used(16, 17, true), &first, "elsewhere").is_ok());
        }
    }

    #[test]
    fn lanes_events_and_the_host_order() {
        let mut hazards = Hazards::default();
        let first = Arc::new(hazards.place(ONE, [].iter()));
        let same_lane = Arc::new(hazards.place(ONE, [&*first].into_iter()));
        let waits = Arc::new(hazards.place(TWO, [&*same_lane].into_iter()));
        for place in [&first, &same_lane, &waits] {
            hazards.check(0, used(0, 8, true), place, "write").unwrap();
        }
        let unordered = Arc::new(hazards.place(Lane::Stream(3), [].iter()));
        assert!(hazards.check(0, used(0, 8, true), &unordered, "unordered").is_err());
        hazards.observe(&waits);
        assert!(hazards.check(0, used(0, 8, true), &unordered, "submitted before the wait").is_err());
        let submitted_after = Arc::new(hazards.place(Lane::Stream(3), [&*unordered].into_iter()));
        hazards.check(0, used(0, 8, true), &submitted_after, "after").unwrap();
    }

    #[test]
    fn a_read_does_not_hide_a_write() {
        let mut hazards = Hazards::default();
        let write = Arc::new(hazards.place(ONE, [].iter()));
        let read = Arc::new(hazards.place(ONE, [&*write].into_iter()));
        hazards.check(0, used(0, 8, true), &write, "write").unwrap();
        hazards.check(0, used(0, 8, false), &read, "read").unwrap();
        let other = Arc::new(hazards.place(TWO, [].iter()));
        assert!(hazards.check(0, used(0, 8, false), &other, "other read").is_err());
    }
}
