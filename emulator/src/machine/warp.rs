//! A warp: registers, fragments of lanes that have diverged, frames of calls.

use std::collections::HashMap;
use std::rc::Rc;

use super::lanes::{Frame, Row};
use super::local::LocalMemory;
use super::special::Special;
use super::trouble::{Outcome, Trouble};
use super::ungiven::NOWHERE;
use crate::decode::op::Function;
use crate::watch::FindingKind;

/// At so many addresses a warp remembers what it has read by strong reads; who looks at more in turn reads news for ever.
const HEARD: usize = 1024;

/// Lanes that are at one place of one call.
#[derive(Clone, Copy, Debug)]
pub struct Fragment {
    /// The operation that they execute next.
    pub pc: u32,
    /// Which lanes.
    pub mask: u32,
    /// The call that they are in: an index into [`Warp::nodes`].
    pub node: u32,
    /// What they wait for.
    pub state: State,
    /// Whether they have had their turn and others of the warp have not.
    pub tired: bool,
    /// [`Warp::steps`] when they began to wait.
    pub since: u64,
}

impl Fragment {
    /// Lanes come to where these are, and all go on together. Whoever has had a turn still has had it: else lanes that part
    /// and meet again in a loop would never give way to others.
    pub fn join(&mut self, other: &Fragment) {
        self.mask |= other.mask;
        self.tired |= other.tired;
        self.state = State::Ready;
    }
}

/// What a fragment waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Nothing.
    Ready,
    /// For other lanes of its warp, at a `.sync` or an aligned barrier. With the count of effects when it began to.
    Lanes(u64),
    /// For other warps, at a barrier: its number, and how often it had completed by then.
    Barrier(u32, u64),
}

/// A call in progress. Lanes in the same call share it; a call made twice from the same place in the same call is one.
#[derive(Clone, Copy, Debug)]
pub struct Node {
    /// The call that made this one; of the kernel's own frame, itself.
    pub parent: u32,
    /// Number of calls around it.
    pub depth: u32,
    /// Where it returns to.
    pub return_pc: u32,
    /// The function.
    pub function: u32,
    /// First row of its frame.
    pub rows: u32,
    /// First predicate of its frame.
    pub predicates: u32,
    /// First of its registers whose initialisation is watched.
    pub tracked: u32,
    /// First byte of its local memory.
    pub local: u32,
}

/// A warp.
#[derive(Debug)]
pub struct Warp {
    /// Its number in the block.
    pub index: u32,
    /// Lanes that exist and have not exited.
    pub live: u32,
    /// Fragments other than the one that runs.
    pub fragments: Vec<Fragment>,
    /// Calls, that of the kernel first.
    pub nodes: Vec<Node>,
    /// Rows of all frames.
    pub rows: Vec<Row>,
    /// Predicates of all frames.
    pub predicates: Vec<u32>,
    /// For registers that are watched: which lanes have written them.
    pub tracked: Vec<u32>,
    /// For the same registers: the operation that first computed with what was never written, if that was passed on.
    pub origins: Vec<u32>,
    /// Local memory.
    pub local: LocalMemory,
    /// Special registers.
    pub special: Rc<Special>,
    /// Operations on memory and barriers so far.
    pub effects: u64,
    /// Operations so far, up to the last change of fragments.
    pub steps: u64,
    /// Operations in this turn that a loop which waits for somebody else would make: atomics, volatile accesses.
    pub spins: u32,
    /// The address that the first lane of its last strong read asked for.
    pub polled: u64,
    /// The addresses of its strong reads, and what came of the last at each.
    heard: HashMap<u64, u64>,
    /// Instructions that it may still execute in this turn.
    pub patience: u64,
    /// [`super::core::Core::completions`] when it last looked.
    pub seen: u64,
    /// The operation that is executed, for reports.
    pub pc: u32,
}

impl Warp {
    /// A warp at the beginning of a kernel.
    ///
    /// # Errors
    /// When its local memory does not fit.
    pub fn new(index: u32, live: u32, special: Rc<Special>, function: u32, shape: &Function) -> Outcome<Self> {
        let node = Node { parent: 0, depth: 0, return_pc: 0, function, rows: 0, predicates: 0, tracked: 0, local: 0 };
        let mut warp = Warp {
            index,
            live,
            fragments: vec![Fragment {
                pc: shape.entry,
                mask: live,
                node: 0,
                state: State::Ready,
                tired: false,
                since: 0,
            }],
            nodes: vec![node],
            rows: Vec::new(),
            predicates: Vec::new(),
            tracked: Vec::new(),
            origins: Vec::new(),
            local: LocalMemory::default(),
            special,
            effects: 0,
            steps: 0,
            spins: 0,
            polled: 0,
            heard: HashMap::new(),
            patience: 0,
            seen: 0,
            pc: shape.entry,
        };
        warp.make_room(0, shape, live)?;
        Ok(warp)
    }

    /// The frame of a call.
    pub fn frame(&mut self, node: u32, constants: &[Row]) -> Frame {
        let node = self.nodes[node as usize];
        Frame {
            // The constants are never written: decoded destinations are registers.
            rows: [self.rows[node.rows as usize..].as_mut_ptr(), constants.as_ptr().cast_mut()],
            predicates: self.predicates[node.predicates as usize..].as_mut_ptr(),
            special: Rc::as_ptr(&self.special),
            local_base: node.local,
            tracked_base: node.tracked,
        }
    }

    /// Enters a function: the call's node.
    ///
    /// # Errors
    /// When the stack overflows.
    pub fn enter(
        &mut self,
        caller: u32,
        return_pc: u32,
        function: u32,
        shapes: &[Function],
        mask: u32,
    ) -> Outcome<u32> {
        let from = self.nodes[caller as usize];
        let shape = &shapes[from.function as usize];
        let known = self.nodes.iter().position(|node| {
            node.parent == caller
                && node.depth == from.depth + 1
                && node.return_pc == return_pc
                && node.function == function
        });
        let node = known.unwrap_or_else(|| {
            self.nodes.push(Node {
                parent: caller,
                depth: from.depth + 1,
                return_pc,
                function,
                rows: from.rows + shape.rows,
                predicates: from.predicates + shape.predicates,
                tracked: from.tracked + shape.tracked,
                local: from.local + shape.local_bytes.next_multiple_of(16),
            });
            self.nodes.len() - 1
        }) as u32;
        self.make_room(node, &shapes[function as usize], mask)?;
        Ok(node)
    }

    /// Leaves a function: the caller's node and where it goes on.
    pub fn leave(&mut self, node: u32, shapes: &[Function], mask: u32) -> (u32, u32) {
        let left = self.nodes[node as usize];
        self.local.leave(left.local, shapes[left.function as usize].local_bytes, mask);
        // Calls that nobody is in any more are forgotten from the end, so that recursion does not pile them up.
        while let Some(last) =
            self.nodes.len().checked_sub(1).map(|last| last as u32).filter(|last| *last > left.parent)
        {
            if self.fragments.iter().any(|fragment| fragment.node == last) {
                break;
            }
            self.nodes.pop();
        }
        (left.parent, left.return_pc)
    }

    fn make_room(&mut self, node: u32, shape: &Function, mask: u32) -> Outcome {
        let node = self.nodes[node as usize];
        let grow = |wanted: u32, have: usize| (wanted as usize).max(have);
        self.rows.resize(grow(node.rows + shape.rows + 2, self.rows.len()), Row([u32::MAX; 32]));
        self.predicates.resize(grow(node.predicates + shape.predicates + 1, self.predicates.len()), 0);
        self.tracked.resize(grow(node.tracked + shape.tracked, self.tracked.len()), 0);
        for lanes in &mut self.tracked[node.tracked as usize..][..shape.tracked as usize] {
            *lanes &= !mask;
        }
        self.origins.resize(self.tracked.len(), NOWHERE);
        self.origins[node.tracked as usize..][..shape.tracked as usize].fill(NOWHERE);
        if self.local.enter(node.local, shape.local_bytes, mask) {
            Ok(())
        } else {
            let lane = mask.trailing_zeros();
            let message = format!(
                "the stack overflows: {} needs {} bytes at depth {}",
                shape.name, shape.local_bytes, node.depth
            );
            Err(Trouble::new(FindingKind::OutOfBounds, lane, message))
        }
    }

    /// A strong read, as a loop makes that waits for somebody else. Whether it asks for something else than the last one did.
    pub fn polls(&mut self, address: u64) -> bool {
        self.spins += 1;
        std::mem::replace(&mut self.polled, address) != address
    }

    /// What a strong read has read, all lanes in one number. Whether that is news: it last read something else there, or
    /// nothing that is remembered.
    pub fn hears(&mut self, address: u64, answer: u64) -> bool {
        if self.heard.len() == HEARD && !self.heard.contains_key(&address) {
            self.heard.clear();
        }
        self.heard.insert(address, answer) != Some(answer)
    }

    /// Adds lanes that are ready, to a fragment at the same place if there is one.
    pub fn add(&mut self, fragment: Fragment) {
        for other in &mut self.fragments {
            if other.pc == fragment.pc && other.node == fragment.node && !matches!(other.state, State::Barrier(..)) {
                other.join(&fragment);
                return;
            }
        }
        self.fragments.push(fragment);
    }

    /// Takes the fragment that runs next: the deepest call first, then the lowest place, so that lanes meet again where
    /// their paths join. With it, the place where it must stop because others wait there.
    pub fn choose(&mut self) -> Option<(Fragment, u32)> {
        let ready = |f: &&Fragment| f.state == State::Ready;
        if self.fragments.len() == 1 {
            return if self.fragments[0].state == State::Ready {
                self.fragments.pop().map(|f| (f, u32::MAX))
            } else {
                None
            };
        }
        let depth = |f: &Fragment| self.nodes[f.node as usize].depth;
        let order = |f: &&Fragment| (f.tired, u32::MAX - depth(f), f.pc, f.mask.trailing_zeros());
        let chosen = *self.fragments.iter().filter(ready).min_by_key(order)?;
        self.fragments.retain(|f| f.mask != chosen.mask);
        let beyond = |f: &&Fragment| f.node == chosen.node && f.pc > chosen.pc;
        let limit = self.fragments.iter().filter(beyond).map(|f| f.pc).min().unwrap_or(u32::MAX);
        Some((chosen, limit))
    }

    /// The thread of a lane, counted through the block.
    pub fn thread(&self, lane: u32) -> u32 {
        self.index * 32 + lane
    }
}
