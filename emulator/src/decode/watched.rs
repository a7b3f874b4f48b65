//! Which registers might be read before they are written: only those are watched while the program runs.
//!
//! A result that depends on what was never written counts as never written too, and no more: compilers compute first and
//! select afterwards. Who acts on it is at fault: an address, a branch, a store where others see it, an exchange of lanes.

use std::collections::HashMap;

use super::builder::{Carries, Draft};
use super::op::{Action, NONE, Op, PREDICATE, REGISTER, index, kind};
use super::place::Stretch;
use super::set::Set;

/// What is to be watched at an operation. Registers are numbered among those that are watched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Track {
    /// The guard, which all lanes that come here read, and its name.
    pub guard: Option<(u32, String)>,
    /// Registers that must have been written, and their names.
    pub reads: Vec<(u32, String)>,
    /// Registers that it writes, whatever it read.
    pub writes: Vec<u32>,
    /// How [`Self::to`] depends on [`Self::from`].
    pub carries: Carries,
    /// Operands that it passes on, in their order; none for those that are known to be written.
    pub from: Vec<Option<(u32, String)>>,
    /// Where to.
    pub to: Vec<u32>,
}

/// What a draft does with its registers, which are numbered with the predicates after the others.
pub struct Uses {
    /// The guard.
    guard: Option<usize>,
    /// What it uses.
    used: Vec<usize>,
    /// What it passes on: its operands in their order.
    from: Vec<Option<usize>>,
    /// What it writes that depends on `from`.
    to: Vec<usize>,
    /// What else it writes.
    written: Vec<usize>,
}

impl Uses {
    /// Of a draft, where so many registers are no predicates.
    pub fn new(draft: &Draft, registers: usize) -> Self {
        let id = |code: u32| match kind(code) {
            _ if code == NONE => None,
            REGISTER => Some(index(code) as usize),
            PREDICATE => Some(registers + index(code) as usize / 2),
            _ => None,
        };
        let ids = |codes: &[u32]| codes.iter().copied().filter_map(id).collect::<Vec<_>>();
        let Op { guard, d, a, b, c, e, list, .. } = draft.op;
        let (written, listed): (&[u32], &[u32]) = match &draft.list {
            Some((list, written)) => list.split_at(*written),
            None => (&[], &[]),
        };
        let list = if draft.list.is_none() { list } else { NONE };
        let (read_e, written_e) = if draft.e_written { (NONE, e) } else { (e, NONE) };
        let lanes = matches!(draft.op.action, Action::Lanes(_));
        let (used, from): (Vec<u32>, Vec<u32>) = match draft.carries {
            Carries::Usual if !lanes => ([&[a, b, c, read_e, list], listed].concat(), vec![]),
            Carries::Across => (vec![b, c, list], vec![a]),
            Carries::Store if draft.list.is_none() => (vec![a], vec![b]),
            Carries::Store => (vec![a], listed.to_vec()),
            _ => (vec![], [&[a, b, c, read_e, list], listed].concat()),
        };
        let (to, written) = match draft.carries {
            Carries::Usual if !lanes => (vec![], [&[d, written_e], written].concat()),
            Carries::Across => (vec![d], vec![written_e]),
            _ => ([&[d, written_e], written].concat(), vec![]),
        };
        Uses {
            guard: id(guard),
            used: ids(&used),
            from: from.into_iter().map(id).collect(),
            to: ids(&to),
            written: ids(&written),
        }
    }

    /// All that it reads.
    pub fn reads(&self) -> impl Iterator<Item = usize> + '_ {
        self.guard.iter().chain(&self.used).chain(self.from.iter().flatten()).copied()
    }

    /// All that it writes.
    pub fn writes(&self) -> impl Iterator<Item = usize> + '_ {
        self.to.iter().chain(&self.written).copied()
    }

    /// What is known to be written after it, of what was before.
    fn pass(&self, set: &mut Set) {
        let known = self.from.iter().flatten().all(|id| set.contains(*id));
        if !known {
            self.to.iter().for_each(|id| set.remove(*id));
        } else if self.guard.is_none() {
            self.to.iter().for_each(|id| set.insert(*id));
        }
        if self.guard.is_none() {
            self.written.iter().for_each(|id| set.insert(*id));
        }
    }
}

/// Registers that some path reads before it has written them.
fn watched(uses: &[Uses], stretches: &[Stretch], size: usize) -> Set {
    let mut before: Vec<Set> = stretches.iter().map(|_| Set::full(size)).collect();
    before[0] = Set::empty(size);
    let mut todo: Vec<usize> = (0..stretches.len()).rev().collect();
    while let Some(number) = todo.pop() {
        let mut set = before[number].clone();
        uses[stretches[number].range()].iter().for_each(|uses| uses.pass(&mut set));
        for next in &stretches[number].next {
            let mut joined = before[*next].clone();
            joined.intersect(&set);
            if joined != before[*next] {
                before[*next] = joined;
                todo.push(*next);
            }
        }
    }
    let mut watched = Set::empty(size);
    for (stretch, set) in stretches.iter().zip(&mut before) {
        for uses in &uses[stretch.range()] {
            uses.reads().filter(|id| !set.contains(*id)).for_each(|id| watched.insert(id));
            uses.pass(set);
        }
    }
    watched
}

/// What is to be watched at each draft, and how many registers are watched in all. `name` tells the name of a register.
pub fn tracks(
    drafts: &mut [Draft],
    uses: &[Uses],
    stretches: &[Stretch],
    size: usize,
    name: impl Fn(usize) -> String,
) -> (HashMap<usize, Track>, u32) {
    let numbers: HashMap<usize, u32> = watched(uses, stretches, size).iter().zip(0..).collect();
    let named = |id: &usize| numbers.get(id).map(|number| (*number, name(*id)));
    let number = |id: &usize| numbers.get(id).copied();
    let mut tracks = HashMap::new();
    for (i, uses) in uses.iter().enumerate() {
        let track = Track {
            guard: uses.guard.as_ref().and_then(named),
            reads: uses.used.iter().filter_map(named).collect(),
            writes: uses.written.iter().filter_map(number).collect(),
            carries: drafts[i].carries,
            from: uses.from.iter().map(|id| id.as_ref().and_then(named)).collect(),
            to: uses.to.iter().filter_map(number).collect(),
        };
        let something = track.guard.is_some() || track.from.iter().any(Option::is_some);
        if something || !(track.reads.is_empty() && track.writes.is_empty() && track.to.is_empty()) {
            drafts[i].op.tracked = true;
            tracks.insert(i, track);
        }
    }
    (tracks, numbers.len() as u32)
}
