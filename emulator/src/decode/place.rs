//! Virtual registers to rows of the frame.
//!
//! NVRTC names every value anew. Were each to have a row of its own, the registers of a warp would not fit a cache; so
//! values that are never alive together share rows (linear scan over live intervals).

use std::collections::HashMap;
use std::ops::Range;

use super::builder::Draft;
use super::op::{Action, NONE, NUMBER, PREDICATE, REGISTER, index, kind};
use super::set::Set;
use super::watched::{Track, Uses, tracks};

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
pub struct Stretch {
    first: usize,
    end: usize,
    /// Those that may come next.
    pub next: Vec<usize>,
}

impl Stretch {
    /// Its operations.
    pub fn range(&self) -> Range<usize> {
        self.first..self.end
    }
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
    let uses: Vec<Uses> = drafts.iter().map(|draft| Uses::new(draft, names.len())).collect();
    let stretches = stretches(drafts);
    let name = |id: usize| match names.get(id) {
        Some((name, _)) => name.clone(),
        None => predicates[id - names.len()].clone(),
    };
    let (tracks, tracked) = tracks(drafts, &uses, &stretches, size, name);
    let mut placed = Placed { tracks, tracked, ..Placed::default() };
    let intervals = intervals(drafts, &uses, &stretches, size);
    let slots = scan(&intervals, names, &mut placed);
    for draft in drafts {
        rewrite(draft, &slots, names.len());
    }
    placed
}

/// From the first to the last moment that each register is alive: it is read at twice the index of an operation, written
/// right after.
fn intervals(drafts: &[Draft], uses: &[Uses], stretches: &[Stretch], size: usize) -> Vec<(usize, usize)> {
    let mut alive: Vec<Set> = stretches.iter().map(|_| Set::empty(size)).collect();
    let back = |set: &mut Set, i: usize| {
        if drafts[i].op.guard == NONE {
            uses[i].writes().for_each(|id| set.remove(id));
        }
        uses[i].reads().for_each(|id| set.insert(id));
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
        for i in stretch.range() {
            uses[i].reads().for_each(|id| extend(id, 2 * i));
            uses[i].writes().for_each(|id| extend(id, 2 * i + 1));
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
    use crate::decode::builder::Carries;
    use crate::decode::op::Op;

    fn draft(action: Action, d: u32, a: u32, guard: u32, x: u64) -> Draft {
        Draft {
            op: Op { d, a, guard, x, ..Op::new(action) },
            list: None,
            e_written: false,
            carries: Carries::Usual,
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
        assert_eq!(placed.tracks[&3].guard, Some((0, "p".to_string())));
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
    fn what_depends_on_what_was_never_written_is_watched_too() {
        let copy = |d, a, guard| draft(crate::machine::lanes::unary(|_, x: u32| x), d, a, guard, 0);
        let mut drafts = vec![copy(2, 0, NONE), copy(4, 2, NONE), draft(Action::Exit, NONE, 4, NONE, 0)];
        let placed = place(&mut drafts, &names(5), &[]);
        assert_eq!(placed.tracked, 3);
        assert!(placed.tracks[&0].reads.is_empty() && placed.tracks[&1].reads.is_empty());
        assert_eq!(placed.tracks[&1].from[0], Some((1, "r2".to_string())));
        assert_eq!(placed.tracks[&1].to, [2]);
        assert_eq!(placed.tracks[&2].reads, [(2, "r4".to_string())]);
        // Register 2 has been written, but some lanes may have overwritten it with nothing.
        let known = draft(Action::Nothing, 2, NONE, NONE, 0);
        let guard = draft(Action::Nothing, PREDICATE, NONE, NONE, 0);
        let mut drafts = vec![known, guard, copy(2, 0, PREDICATE), draft(Action::Exit, NONE, 2, NONE, 0)];
        let placed = place(&mut drafts, &names(3), &["p".into()]);
        assert_eq!(placed.tracks[&3].reads, [(1, "r2".to_string())]);
    }
}
