//! Virtual registers to rows of the frame.
//!
//! NVRTC names every value anew. Were each to have a row of its own, the registers of a warp would not fit a cache; so
//! values that are never alive together share rows (linear scan over live intervals). The same flow analysis finds the
//! registers that might be read before they are written: only those are watched while the program runs.

use std::collections::{HashMap, HashSet};

use super::builder::{Carries, Draft};
use super::op::{Action, NONE, NUMBER, PREDICATE, REGISTER, index, kind};
use super::set::Set;

/// What is to be watched at an operation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Track {
    /// Registers that must have been written, and their names.
    pub reads: Vec<(u32, String)>,
    /// Registers that it writes.
    pub writes: Vec<u32>,
    /// Registers that it only passes on, from and to: what was never written may be copied, and shuffled to lanes that
    /// do not look at it.
    pub carried: (Vec<u32>, Vec<u32>),
    /// Whether it passes them on between lanes. Then the operation itself knows from which to which.
    pub across: bool,
}

/// What placing found.
#[derive(Clone, Debug, Default)]
pub struct Placed {
    /// Rows that the frame needs.
    pub rows: u32,
    /// Predicates that the frame needs.
    pub predicates: u32,
    /// Registers that are watched.
    pub tracked: u32,
    /// By index of draft: what is to be watched there.
    pub tracks: HashMap<usize, Track>,
}

/// Operations that follow each other, and where they lead.
struct Stretch {
    first: usize,
    end: usize,
    next: Vec<usize>,
}

/// Virtual registers of a draft, numbered with the predicates after the others.
fn registers(draft: &Draft, wide: &[(String, bool)]) -> (Vec<usize>, Vec<usize>) {
    let id = |code: u32| match kind(code) {
        _ if code == NONE => None,
        REGISTER => Some(index(code) as usize),
        PREDICATE => Some(wide.len() + index(code) as usize / 2),
        _ => None,
    };
    let op = &draft.op;
    let (mut reads, mut writes) = (Vec::new(), Vec::new());
    reads.extend([op.guard, op.a, op.b, op.c].into_iter().filter_map(id));
    if draft.list.is_none() {
        reads.extend(id(op.list));
    }
    writes.extend(id(op.d));
    if draft.e_written {
        writes.extend(id(op.e))
    } else {
        reads.extend(id(op.e))
    }
    if let Some((list, written)) = &draft.list {
        writes.extend(list[..*written].iter().copied().filter_map(id));
        reads.extend(list[*written..].iter().copied().filter_map(id));
    }
    (reads, writes)
}

/// Of what a draft reads and writes: what it only passes on.
fn carried(draft: &Draft, names: &[(String, bool)]) -> (Vec<usize>, Vec<usize>) {
    let id = |code: &u32| (*code != NONE && kind(*code) == REGISTER).then(|| index(*code) as usize);
    let op = &draft.op;
    let from = match draft.carries {
        Carries::Nothing => return (Vec::new(), Vec::new()),
        Carries::Lane => [op.a, op.b, op.c, op.e],
        Carries::Across => [op.a, NONE, NONE, NONE],
    };
    debug_assert!(from.iter().filter_map(id).all(|id| id < names.len()));
    (from.iter().filter_map(id).collect(), id(&op.d).into_iter().collect())
}

fn stretches(drafts: &[Draft]) -> Vec<Stretch> {
    let targets = |draft: &Draft| -> Vec<usize> {
        match draft.op.action {
            Action::Branch => vec![draft.op.x as usize],
            Action::BranchTable => {
                draft.list.iter().flat_map(|(list, _)| list).map(|code| index(*code) as usize).collect()
            }
            _ => Vec::new(),
        }
    };
    let mut starts = vec![false; drafts.len() + 1];
    starts[0] = true;
    for (i, draft) in drafts.iter().enumerate() {
        let jumps = targets(draft);
        let ends = matches!(draft.op.action, Action::Return | Action::Exit | Action::Trap) || !jumps.is_empty();
        starts[i + 1] |= ends;
        jumps.into_iter().for_each(|target| starts[target] = true);
    }
    let firsts: Vec<usize> = (0..drafts.len()).filter(|i| starts[*i]).collect();
    let number: HashMap<usize, usize> = firsts.iter().enumerate().map(|(i, first)| (*first, i)).collect();
    let ends = firsts.iter().skip(1).copied().chain([drafts.len()]);
    let stretch = |(first, end): (usize, usize)| {
        let last = &drafts[end - 1];
        let mut next: Vec<usize> = targets(last).iter().filter_map(|target| number.get(target)).copied().collect();
        let leaves = matches!(
            last.op.action,
            Action::Return | Action::Exit | Action::Trap | Action::Branch | Action::BranchTable
        );
        if !leaves || last.op.guard != NONE {
            next.extend(number.get(&end));
        }
        Stretch { first, end, next }
    };
    firsts.iter().copied().zip(ends).map(stretch).collect()
}

/// Places the registers of a function and rewrites its operations. `registers` tells for each its name and whether it has
/// 64 bits, `predicates` the names of the predicates.
pub fn place(drafts: &mut [Draft], names: &[(String, bool)], predicates: &[String]) -> Placed {
    if drafts.is_empty() {
        return Placed::default();
    }
    let size = names.len() + predicates.len();
    let uses: Vec<(Vec<usize>, Vec<usize>)> = drafts.iter().map(|draft| registers(draft, names)).collect();
    let carries: Vec<(Vec<usize>, Vec<usize>)> = drafts.iter().map(|draft| carried(draft, names)).collect();
    let stretches = stretches(drafts);
    let watched = watched(drafts, &uses, &carries, &stretches, size);
    let copies: HashSet<usize> = carries.iter().flat_map(|(_, to)| to.iter().copied()).collect();
    let mut placed = Placed::default();
    let mut numbers = HashMap::new();
    for id in watched.iter() {
        numbers.insert(id, numbers.len() as u32);
    }
    placed.tracked = numbers.len() as u32;
    for (i, (reads, writes)) in uses.iter().enumerate() {
        let name = |id: usize| match names.get(id) {
            Some((name, _)) if copies.contains(&id) => format!("{name} (a copy)"),
            Some((name, _)) => name.clone(),
            None => predicates[id - names.len()].clone(),
        };
        let (from, to) = &carries[i];
        let number = |id: &usize| numbers.get(id).copied();
        let used = reads.iter().filter(|id| !from.contains(id));
        let track = Track {
            reads: used.filter_map(|id| number(id).map(|number| (number, name(*id)))).collect(),
            writes: writes.iter().filter(|id| !to.contains(id)).filter_map(number).collect(),
            carried: (from.iter().filter_map(number).collect(), to.iter().filter_map(number).collect()),
            across: drafts[i].carries == Carries::Across,
        };
        if track != (Track { across: track.across, ..Track::default() }) {
            drafts[i].op.tracked = true;
            placed.tracks.insert(i, track);
        }
    }
    let intervals = intervals(drafts, &uses, &stretches, size);
    let slots = scan(&intervals, names, &mut placed);
    for draft in drafts {
        rewrite(draft, &slots, names.len());
    }
    placed
}

/// Registers that some path reads before it has written them.
fn watched(
    drafts: &[Draft],
    uses: &[(Vec<usize>, Vec<usize>)],
    carries: &[(Vec<usize>, Vec<usize>)],
    stretches: &[Stretch],
    size: usize,
) -> Set {
    let mut before: Vec<Set> = stretches.iter().map(|_| Set::full(size)).collect();
    before[0] = Set::empty(size);
    let mut todo: Vec<usize> = (0..stretches.len()).rev().collect();
    let through = |set: &mut Set, i: usize| {
        if drafts[i].op.guard == NONE {
            // A copy of what may not have been written may not have been written either.
            let (from, to) = &carries[i];
            let known = from.iter().all(|id| set.contains(*id));
            uses[i].1.iter().filter(|id| known || !to.contains(id)).for_each(|id| set.insert(*id));
            to.iter().filter(|_| !known).for_each(|id| set.remove(*id));
        }
    };
    while let Some(number) = todo.pop() {
        let mut set = before[number].clone();
        (stretches[number].first..stretches[number].end).for_each(|i| through(&mut set, i));
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
    for (number, stretch) in stretches.iter().enumerate() {
        let mut set = before[number].clone();
        for (i, (reads, _)) in uses.iter().enumerate().take(stretch.end).skip(stretch.first) {
            reads.iter().filter(|id| !set.contains(**id)).for_each(|id| watched.insert(*id));
            through(&mut set, i);
        }
    }
    watched
}

/// From the first to the last moment that each register is alive: it is read at twice the index of an operation, written
/// right after.
fn intervals(
    drafts: &[Draft],
    uses: &[(Vec<usize>, Vec<usize>)],
    stretches: &[Stretch],
    size: usize,
) -> Vec<(usize, usize)> {
    let mut alive: Vec<Set> = stretches.iter().map(|_| Set::empty(size)).collect();
    let back = |set: &mut Set, i: usize| {
        if drafts[i].op.guard == NONE {
            uses[i].1.iter().for_each(|id| set.remove(*id));
        }
        uses[i].0.iter().for_each(|id| set.insert(*id));
    };
    let after = |number: usize, alive: &[Set]| {
        let mut set = Set::empty(size);
        stretches[number].next.iter().for_each(|next| set.union(&alive[*next]));
        set
    };
    let mut changed = true;
    while changed {
        changed = false;
        for (number, stretch) in stretches.iter().enumerate().rev() {
            let mut set = after(number, &alive);
            (stretch.first..stretch.end).rev().for_each(|i| back(&mut set, i));
            if set != alive[number] {
                alive[number] = set;
                changed = true;
            }
        }
    }
    let mut intervals = vec![(usize::MAX, 0); size];
    let mut extend = |id: usize, at: usize| {
        let (first, last) = intervals[id];
        intervals[id] = (first.min(at), last.max(at));
    };
    for (number, stretch) in stretches.iter().enumerate() {
        alive[number].iter().for_each(|id| extend(id, 2 * stretch.first));
        after(number, &alive).iter().for_each(|id| extend(id, 2 * stretch.end - 1));
        for (i, (reads, writes)) in uses.iter().enumerate().take(stretch.end).skip(stretch.first) {
            reads.iter().for_each(|id| extend(*id, 2 * i));
            writes.iter().for_each(|id| extend(*id, 2 * i + 1));
        }
    }
    intervals
}

/// Gives each register a row (two if it has 64 bits) or a predicate, so that those alive together have different ones.
fn scan(intervals: &[(usize, usize)], names: &[(String, bool)], placed: &mut Placed) -> Vec<u32> {
    const WIDE: usize = 0;
    const NARROW: usize = 1;
    const FLAG: usize = 2;
    let pool = |id: usize| match names.get(id) {
        Some((_, true)) => WIDE,
        Some((_, false)) => NARROW,
        None => FLAG,
    };
    let mut order: Vec<usize> = (0..intervals.len()).filter(|id| intervals[*id].0 != usize::MAX).collect();
    order.sort_by_key(|id| intervals[*id]);
    let mut slots = vec![0u32; intervals.len()];
    let mut free: [Vec<u32>; 3] = Default::default();
    let mut used = [0u32; 3];
    let mut alive = std::collections::BTreeSet::new();
    for id in order {
        let (first, last) = intervals[id];
        while let Some(&(end, old)) = alive.first() {
            if end >= first {
                break;
            }
            alive.remove(&(end, old));
            free[pool(old)].push(slots[old]);
        }
        let pool = pool(id);
        slots[id] = free[pool].pop().unwrap_or_else(|| {
            used[pool] += 1;
            used[pool] - 1
        });
        alive.insert((last, id));
    }
    // The rows of 64-bit registers come first.
    for (id, slot) in slots.iter_mut().enumerate() {
        match pool(id) {
            WIDE => *slot *= 2,
            NARROW => *slot += 2 * used[WIDE],
            _ => {}
        }
    }
    placed.rows = 2 * used[WIDE] + used[NARROW];
    placed.predicates = used[FLAG];
    slots
}

fn rewrite(draft: &mut Draft, slots: &[u32], first_predicate: usize) {
    let code = |code: &mut u32| match kind(*code) {
        _ if *code == NONE => {}
        REGISTER => *code = slots[index(*code) as usize],
        PREDICATE => *code = PREDICATE | slots[first_predicate + index(*code) as usize / 2] << 1 | *code & 1,
        NUMBER => *code = index(*code),
        _ => {}
    };
    let op = &mut draft.op;
    [&mut op.guard, &mut op.d, &mut op.a, &mut op.b, &mut op.c, &mut op.e, &mut op.list].into_iter().for_each(code);
    if let Some((list, _)) = &mut draft.list {
        list.iter_mut().for_each(code);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::op::Op;

    fn draft(action: Action, d: u32, a: u32, guard: u32, x: u64) -> Draft {
        Draft {
            op: Op { d, a, guard, x, ..Op::new(action) },
            list: None,
            e_written: false,
            carries: Carries::Nothing,
            instruction: 0,
        }
    }

    fn names(count: usize) -> Vec<(String, bool)> {
        (0..count).map(|i| (format!("r{i}"), i % 2 == 1)).collect()
    }

    #[test]
    fn registers_that_are_never_alive_together_share_a_row() {
        let move_to = |d: u32, a: u32| draft(Action::Nothing, d, a, NONE, 0);
        let mut drafts = vec![move_to(0, NONE), move_to(2, 0), move_to(4, 2), draft(Action::Exit, NONE, 4, NONE, 0)];
        let placed = place(&mut drafts, &names(5), &[]);
        assert_eq!((placed.rows, placed.tracked), (1, 0));
        // Two results of one operation never share, even if nobody reads them.
        let mut drafts = vec![Draft { list: Some((vec![0, 2], 2)), ..move_to(NONE, NONE) }];
        assert_eq!(place(&mut drafts, &names(3), &[]).rows, 2);
    }

    #[test]
    fn a_value_that_lives_through_a_loop_keeps_its_row() {
        let mut drafts = vec![
            draft(Action::Nothing, 0, NONE, NONE, 0),
            // The loop: reads 0, writes 2, reads 2.
            draft(Action::Nothing, 2, 0, NONE, 0),
            draft(Action::Nothing, NONE, 2, NONE, 0),
            draft(Action::Branch, NONE, NONE, PREDICATE, 1),
            draft(Action::Exit, NONE, NONE, NONE, 0),
        ];
        let placed = place(&mut drafts, &names(3), &["p".into()]);
        assert_eq!(placed.rows, 2);
        assert_ne!(drafts[1].op.d, drafts[1].op.a);
        // The predicate was never written.
        assert_eq!(placed.tracked, 1);
        assert_eq!(placed.tracks[&3].reads, [(0, "p".to_string())]);
    }

    #[test]
    fn what_only_one_path_writes_is_watched() {
        let mut drafts = vec![
            draft(Action::Nothing, PREDICATE, NONE, NONE, 0),
            draft(Action::Branch, NONE, NONE, PREDICATE, 3),
            draft(Action::Nothing, 0, NONE, NONE, 0),
            draft(Action::Exit, NONE, 0, NONE, 0),
        ];
        let placed = place(&mut drafts, &names(1), &["p".into()]);
        assert_eq!(placed.tracked, 1);
        assert_eq!(placed.tracks[&2].writes, [0]);
        assert_eq!(placed.tracks[&3].reads, [(0, "r0".to_string())]);
    }
    #[test]
    fn copies_of_what_was_never_written_are_watched_too() {
        let copy = |d, a| Draft { carries: Carries::Lane, ..draft(Action::Nothing, d, a, NONE, 0) };
        let mut drafts = vec![copy(2, 0), copy(4, 2), draft(Action::Exit, NONE, 4, NONE, 0)];
        let placed = place(&mut drafts, &names(5), &[]);
        assert_eq!(placed.tracked, 3);
        assert!(placed.tracks[&0].reads.is_empty() && placed.tracks[&1].reads.is_empty());
        assert_eq!(placed.tracks[&1].carried, (vec![1], vec![2]));
        assert_eq!(placed.tracks[&2].reads, [(2, "r4 (a copy)".to_string())]);
    }
}
