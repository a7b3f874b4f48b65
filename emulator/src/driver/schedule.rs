//! When asynchronous work happens: as late as CUDA allows, in an order that the seed draws.
//!
//! Every operation is a node of a graph whose edges are CUDA's guarantees and nothing else: the operation before it in
//! its stream, the events that its stream waits for, the rules of the legacy default stream. Nothing runs when it is
//! submitted. A host synchronisation runs what it must wait for; how much else runs, and in which order, is drawn from
//! the seed. So a program that relies on an order which it did not ask for gets another one.
//!
//! The one exception is stream-ordered `free`: it happens as *early* as allowed, for that is what shows a use after it.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::error::{Failure, Outcome, Status, fail};
use super::handle::Serial;
use super::hazards::{Hazards, Lane, Place};
use super::state::{Locked, Origin};
use super::work::Work;

/// Operations that may wait. Submitting more makes the oldest run, as a full hardware queue would.
const WAITING_LIMIT: usize = 1024;
/// Bytes of staged host data that may wait.
const STAGED_LIMIT: usize = 256 << 20;
/// A host function that nobody asks for runs after the program has been silent for this long: its effect may be what
/// the program waits for, and CUDA promises that it comes.
const SILENCE: Duration = Duration::from_millis(200);

/// The time that a node not yet finished has.
const UNFINISHED: u64 = u64::MAX;

/// A point in the order of things: the end of one operation. Streams and events keep nodes; the operation itself goes
/// when it has run.
#[derive(Debug)]
pub struct Node {
    id: u64,
    /// When it ended on the modelled device, in nanoseconds.
    finished: AtomicU64,
    /// What it follows.
    place: Arc<Place>,
}

impl Node {
    /// When the operation ended on the modelled device, in nanoseconds; `None` while it has not.
    pub fn finished(&self) -> Option<u64> {
        Some(self.finished.load(Ordering::Acquire)).filter(|&time| time != UNFINISHED)
    }
}

/// An operation that has not run.
#[derive(Debug)]
struct Operation {
    node: Arc<Node>,
    context: Serial,
    dependencies: Vec<Arc<Node>>,
    work: Work,
    origin: Origin,
    /// Some thread is in its host function.
    running: bool,
    /// How often the host asked whether it is finished.
    polls: u32,
    /// A thread of the stand-in's own was sent to finish it.
    sent_for: bool,
}

impl Operation {
    fn is_ready(&self) -> bool {
        !self.running && self.dependencies.iter().all(|node| node.finished().is_some())
    }
}

/// Which operations a synchronisation lets run besides those that it waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Policy {
    /// None: everything else stays undone.
    Late,
    /// All others before the first that is waited for.
    OthersFirst,
    /// Any, interleaved.
    Mixed,
}

/// The operations that have not run.
#[derive(Debug, Default)]
pub struct Queue {
    next: u64,
    waiting: BTreeMap<u64, Operation>,
    staged_bytes: usize,
    /// Draws made so far; with the seed it determines the next.
    draws: u64,
    /// The thread that minds host functions runs.
    minded: bool,
    /// Who follows whom, and who used which memory.
    pub hazards: Hazards,
}

/// SplitMix64's finaliser over seed and index: what the seed decides.
fn draw(seed: u64, index: u64) -> u64 {
    let mut z = seed.wrapping_add(index.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

impl Queue {
    fn draw(&mut self, seed: u64) -> u64 {
        self.draws += 1;
        draw(seed, self.draws)
    }

    /// Begins the sequence of draws anew.
    pub fn reseed(&mut self) {
        self.draws = 0;
    }

    /// Half of all synchronisations are as late as can be.
    fn policy(&mut self, seed: u64) -> Policy {
        match self.draw(seed) % 4 {
            0 => Policy::OthersFirst,
            1 => Policy::Mixed,
            _ => Policy::Late,
        }
    }

    /// The waiting operations that must run before the goals are reached, the goals included.
    fn needed(&self, goals: &[Arc<Node>]) -> BTreeSet<u64> {
        let mut needed = BTreeSet::new();
        let mut open: Vec<u64> = goals.iter().map(|node| node.id).collect();
        while let Some(id) = open.pop() {
            if let Some(operation) = self.waiting.get(&id)
                && needed.insert(id)
            {
                open.extend(operation.dependencies.iter().map(|node| node.id));
            }
        }
        needed
    }

    /// Whether the host has waited for an operation, or for one after it.
    pub fn is_known_to_host(&self, node: &Node) -> bool {
        self.hazards.is_observed(&node.place)
    }

    /// All that waits in a context.
    pub fn of_context(&self, context: Serial) -> Vec<Arc<Node>> {
        self.waiting.values().filter(|o| o.context == context).map(|o| o.node.clone()).collect()
    }

    /// Takes an operation in.
    fn add(
        &mut self,
        context: Serial,
        lane: Lane,
        dependencies: Vec<Arc<Node>>,
        work: Work,
        origin: Origin,
    ) -> Arc<Node> {
        self.next += 1;
        let place = Arc::new(self.hazards.place(lane, dependencies.iter().map(|node| &*node.place)));
        let node = Arc::new(Node { id: self.next, finished: AtomicU64::new(UNFINISHED), place });
        self.staged_bytes += work.staged_bytes();
        let operation = Operation {
            node: node.clone(),
            context,
            dependencies,
            work,
            origin,
            running: false,
            polls: 0,
            sent_for: false,
        };
        self.waiting.insert(node.id, operation);
        node
    }

    /// Ends an operation at a time of the modelled device.
    fn finish(&mut self, id: u64, time: u64) {
        if let Some(operation) = self.waiting.remove(&id) {
            self.staged_bytes -= operation.work.staged_bytes();
            operation.node.finished.store(time, Ordering::Release);
        }
    }

    /// Drops what waits in a context that is broken: it will never run.
    fn abandon(&mut self, context: Serial) {
        let gone: Vec<u64> =
            self.waiting.iter().filter(|(_, o)| o.context == context && !o.running).map(|(id, _)| *id).collect();
        gone.into_iter().for_each(|id| self.finish(id, 0));
    }

    /// An operation that may run now under a policy, drawn among all that may.
    fn choose(&mut self, policy: Policy, needed: &BTreeSet<u64>, context: Serial, seed: u64) -> Option<u64> {
        let ready = |id: &u64| self.waiting[id].is_ready();
        let wanted: Vec<u64> = needed.iter().filter(|id| ready(id)).copied().collect();
        // Host functions of others stay undone: they may block, and nobody asked for them.
        let others = || {
            let others = self.waiting.iter().filter(|(id, o)| {
                o.context == context && !needed.contains(id) && o.is_ready() && !o.work.is_host_function()
            });
            others.map(|(id, _)| *id).collect::<Vec<u64>>()
        };
        let mut candidates = match policy {
            Policy::Late => wanted,
            Policy::OthersFirst => {
                let others = others();
                if others.is_empty() { wanted } else { others }
            }
            Policy::Mixed => [wanted, others()].concat(),
        };
        if candidates.is_empty() {
            return None;
        }
        let index = self.draw(seed) % candidates.len() as u64;
        Some(candidates.swap_remove(index as usize))
    }
}

impl Locked {
    /// Submits work that must come after the given nodes; it runs when something waits for it.
    pub fn enqueue(&mut self, context: Serial, lane: Lane, dependencies: Vec<Arc<Node>>, work: Work) -> Arc<Node> {
        let origin = self.origin();
        let host_function = work.is_host_function();
        let node = self.queue.add(context, lane, dependencies, work, origin);
        if host_function {
            self.mind_host_functions();
        }
        self.settle();
        while self.queue.waiting.len() > WAITING_LIMIT || self.queue.staged_bytes > STAGED_LIMIT {
            let Some(oldest) = self.queue.waiting.values().next().map(|o| o.node.clone()) else { break };
            self.complete(&[oldest]);
        }
        node
    }

    /// Runs until the goals are reached. What went wrong on the way is kept by the contexts it concerns.
    pub fn complete(&mut self, goals: &[Arc<Node>]) {
        let seed = self.origin().settings.seed;
        let policy = self.queue.policy(seed);
        while let Some(goal) = goals.iter().find(|goal| goal.finished().is_none()) {
            let needed = self.queue.needed(goals);
            let context = self.queue.waiting.get(&goal.id).map_or(0, |operation| operation.context);
            match self.queue.choose(policy, &needed, context, seed) {
                Some(id) => self.run(id),
                // Another thread is in a host function that these wait for.
                None => self.wait_for_change(),
            }
        }
    }

    /// Runs until the goals are reached, for the host that waits for them.
    pub fn wait_for(&mut self, goals: &[Arc<Node>]) {
        self.complete(goals);
        goals.iter().for_each(|goal| self.queue.hazards.observe(&goal.place));
    }

    /// Runs one operation, then what it sets free.
    fn run(&mut self, id: u64) {
        let Some(operation) = self.queue.waiting.get_mut(&id) else { return };
        operation.running = true;
        let (work, origin, context) = (operation.work.clone(), operation.origin.clone(), operation.context);
        let begin = operation.dependencies.iter().filter_map(|node| node.finished()).max().unwrap_or(0);
        let place = operation.node.place.clone();
        if work.is_host_function() {
            // What the function tells the program's threads, they know.
            self.queue.hazards.observe(&place);
        }
        // A panic is a defect of the stand-in. It must not leave the operation undone, for others would wait for ever.
        let outcome = catch_unwind(AssertUnwindSafe(|| self.execute(&work, &origin, context, &place)));
        let outcome = outcome.unwrap_or_else(|_| {
            fail(Status::UNKNOWN, "the stand-in itself has failed in an asynchronous operation; see its panic message")
        });
        match outcome {
            Ok(nanoseconds) => self.queue.finish(id, begin + nanoseconds),
            Err(failure) => {
                self.queue.finish(id, begin);
                self.break_context(context, failure);
            }
        }
        self.announce_change();
        self.settle();
    }

    /// Lets happen what has no reason to be late: markers (an event's record, a wait), and stream-ordered frees, whose
    /// earliness shows uses after them.
    fn settle(&mut self) {
        while let Some(id) =
            self.queue.waiting.iter().find(|(_, o)| o.work.is_early() && o.is_ready()).map(|(id, _)| *id)
        {
            let operation = &self.queue.waiting[&id];
            let (work, origin, context) = (operation.work.clone(), operation.origin.clone(), operation.context);
            let begin = operation.dependencies.iter().filter_map(|node| node.finished()).max().unwrap_or(0);
            let place = operation.node.place.clone();
            let result = self.execute(&work, &origin, context, &place);
            self.queue.finish(id, begin);
            if let Err(failure) = result {
                self.break_context(context, failure);
            }
        }
    }

    /// The context's first error stays; what waits in it is dropped.
    fn break_context(&mut self, context: Serial, failure: Failure) {
        if let Some(context) = self.contexts.find_mut(context) {
            context.broken.get_or_insert(failure);
        }
        self.queue.abandon(context);
    }

    /// Whether a node is finished, as a query is told: "not yet" a few times, whatever the truth, then work is done
    /// towards it so that a program which polls gets on.
    ///
    /// # Errors
    /// `NOT_READY`.
    pub fn poll(&mut self, node: &Arc<Node>) -> Outcome<()> {
        if node.finished().is_some() {
            self.queue.hazards.observe(&node.place);
            return Ok(());
        }
        let patience = 1 + draw(self.origin().settings.seed, node.id) % 3;
        let with_host_function = self
            .queue
            .needed(std::slice::from_ref(node))
            .iter()
            .any(|id| self.queue.waiting[id].work.is_host_function());
        if let Some(operation) = self.queue.waiting.get_mut(&node.id) {
            operation.polls += 1;
            if u64::from(operation.polls) > patience {
                if !with_host_function {
                    self.complete(std::slice::from_ref(node));
                } else if !std::mem::replace(&mut operation.sent_for, true) {
                    // A host function may wait for the very thread that polls, so another one must go.
                    let (node, origin) = (node.clone(), operation.origin.clone());
                    std::thread::spawn(move || Locked::on_behalf_of(&origin).complete(&[node]));
                }
            }
        }
        match node.finished() {
            Some(_) => {
                self.queue.hazards.observe(&node.place);
                Ok(())
            }
            None => fail(Status::NOT_READY, "the work is not finished"),
        }
    }

    /// Sees to it that host functions run in the end even if nobody synchronises.
    fn mind_host_functions(&mut self) {
        if std::mem::replace(&mut self.queue.minded, true) {
            return;
        }
        std::thread::spawn(|| {
            loop {
                std::thread::sleep(SILENCE / 2);
                let mut locked = Locked::new();
                let Some(operation) = locked.queue.waiting.values().find(|o| o.work.is_host_function()) else {
                    locked.queue.minded = false;
                    return;
                };
                if locked.last_call.elapsed() >= SILENCE {
                    let (node, origin) = (operation.node.clone(), operation.origin.clone());
                    drop(locked);
                    Locked::on_behalf_of(&origin).complete(&[node]);
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_differ_by_seed_and_index() {
        let drawn: BTreeSet<u64> = (0..100).flat_map(|seed| (0..100).map(move |index| draw(seed, index))).collect();
        assert_eq!(drawn.len(), 10_000);
        let mut queue = Queue::default();
        let policies: Vec<Policy> = (0..100).map(|_| queue.policy(7)).collect();
        for policy in [Policy::Late, Policy::OthersFirst, Policy::Mixed] {
            assert!(policies.iter().filter(|&&drawn| drawn == policy).count() >= 10, "{policy:?}");
        }
    }
}
