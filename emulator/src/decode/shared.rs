//! Where shared variables lie, and how large variables are.

use std::collections::{HashMap, HashSet};

use super::LoadError;
use super::builder::Decoded;
use super::types::Type;
use crate::ptx::{self, Operand, Statement};

/// Bytes of a variable; zero for `[]`.
pub fn bytes_of(variable: &ptx::Variable<'_>) -> Decoded<u64> {
    let error = |message: String| LoadError { line: variable.line, malformed: true, message };
    let Some(t) = Type::named(variable.element) else {
        return Err(error(format!(".{} is not a type that is known", variable.element)));
    };
    variable
        .dimensions
        .iter()
        .try_fold(u64::from(t.bytes()) * variable.vector, |bytes, length| bytes.checked_mul(length.unwrap_or(0)))
        .filter(|bytes| *bytes < 1 << 40)
        .ok_or_else(|| error(format!("{} is too large", variable.name)))
}
/// Its alignment.
pub fn align_of(variable: &ptx::Variable<'_>) -> u64 {
    let natural = Type::named(variable.element).map_or(1, |t| u64::from(t.bytes())) * variable.vector;
    variable.align.unwrap_or(natural).max(1).next_power_of_two()
}

/// Bytes between two shared variables, at least, and between the last and dynamic shared memory: who writes past the end
/// of one does not reach the next. A row of the 32 banks, so that every variable keeps the banks that it would have
/// without gaps.
pub const SHARED_GAP: u32 = 128;

/// A shared variable's place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedVariable {
    /// Its (mangled) name.
    pub name: String,
    /// Where it begins.
    pub at: u32,
    /// Its length in bytes.
    pub bytes: u32,
}

/// Where the next variable goes.
#[derive(Clone, Copy, Debug, Default)]
struct End {
    /// As the assembler lays them out. This is what counts against the limits of a GPU.
    packed: u32,
    /// With gaps.
    spread: u32,
}

impl End {
    /// Takes bytes: where they begin, with gaps.
    fn take(&mut self, bytes: u32, align: u32) -> u32 {
        let packed = self.packed.next_multiple_of(align);
        let least = if self.spread > 0 { self.spread + SHARED_GAP } else { 0 };
        let row = align.max(SHARED_GAP);
        let at = packed + least.saturating_sub(packed).next_multiple_of(row);
        *self = End { packed: packed + bytes, spread: at + bytes };
        at
    }
}

/// Shared variables. Those that one kernel uses lie in that kernel's shared memory; those that several do, or a device
/// function does, lie at the same place in all kernels.
pub struct Shared<'a> {
    common: Vec<(&'a str, u32, u32)>,
    common_end: End,
    /// By function: its own variables, their places and bytes.
    own: HashMap<&'a str, Vec<(&'a str, u32, u32)>>,
    ends: HashMap<&'a str, End>,
    /// `extern` arrays: dynamic shared memory, and its alignment.
    dynamic: Vec<&'a str>,
    dynamic_align: u32,
    /// When device functions use dynamic shared memory it begins at the same place in all kernels.
    dynamic_common: bool,
}

/// The shared memory of one function.
pub struct Layout<'a> {
    /// Names and places, those of dynamic arrays too.
    pub offsets: Vec<(&'a str, u32)>,
    /// Static variables.
    pub variables: Vec<SharedVariable>,
    /// Bytes declared, without gaps.
    pub static_bytes: u32,
    /// Where dynamic shared memory begins.
    pub dynamic: u32,
}

impl<'a> Shared<'a> {
    /// Lays out a unit's variables.
    pub fn new(tree: &ptx::Unit<'a>) -> Decoded<Self> {
        let mut users: HashMap<&str, Vec<usize>> = HashMap::new();
        for (i, function) in tree.functions.iter().enumerate() {
            for name in mentioned(function) {
                users.entry(name).or_default().push(i);
            }
        }
        let mut shared = Shared {
            common: Vec::new(),
            common_end: End::default(),
            own: HashMap::new(),
            ends: HashMap::new(),
            dynamic: Vec::new(),
            dynamic_align: 16,
            dynamic_common: false,
        };
        let inside = tree.functions.iter().enumerate().flat_map(|(i, function)| {
            function.body.iter().flatten().filter_map(move |statement| match statement {
                Statement::Variable(variable) if variable.space == "shared" => Some((variable, Some(i))),
                _ => None,
            })
        });
        let all: Vec<_> =
            tree.variables.iter().filter(|v| v.space == "shared").map(|v| (v, None)).chain(inside).collect();
        let mut later = Vec::new();
        for (variable, owner) in all {
            let (bytes, align) = (bytes_of(variable)?, align_of(variable) as u32);
            let used = users.get(variable.name).cloned().unwrap_or_default();
            let by_function = used.iter().any(|i| !tree.functions[*i].entry);
            if bytes == 0 {
                shared.dynamic.push(variable.name);
                shared.dynamic_align = shared.dynamic_align.max(align);
                shared.dynamic_common |= by_function;
                continue;
            }
            let bytes = u32::try_from(bytes).ok().filter(|bytes| *bytes < 1 << 20).ok_or_else(|| LoadError {
                line: variable.line,
                malformed: false,
                message: format!("{} does not fit shared memory", variable.name),
            })?;
            match (owner, &used[..]) {
                (Some(owner), _) if tree.functions[owner].entry => {
                    later.push((tree.functions[owner].name, variable.name, bytes, align))
                }
                (None, []) => {}
                (None, [one]) if !by_function => later.push((tree.functions[*one].name, variable.name, bytes, align)),
                _ => {
                    let at = shared.common_end.take(bytes, align);
                    shared.common.push((variable.name, at, bytes));
                }
            }
        }
        for (function, name, bytes, align) in later {
            let at = shared.ends.entry(function).or_insert(shared.common_end).take(bytes, align);
            shared.own.entry(function).or_default().push((name, at, bytes));
        }
        Ok(shared)
    }

    /// As one function sees it.
    pub fn layout(&self, function: &ptx::Function<'a>) -> Layout<'a> {
        let end = self.ends.get(function.name).copied().unwrap_or(self.common_end);
        let ends = if self.dynamic_common { self.ends.values().chain([&self.common_end]).collect() } else { vec![] };
        let widest = ends.into_iter().copied().chain([end]).max_by_key(|end| end.spread);
        let dynamic = widest.unwrap_or(end).take(0, self.dynamic_align);
        let placed = || self.common.iter().chain(self.own.get(function.name).into_iter().flatten());
        let mut offsets: Vec<(&str, u32)> = placed().map(|(name, at, _)| (*name, *at)).collect();
        offsets.extend(self.dynamic.iter().map(|name| (*name, dynamic)));
        let variable =
            |(name, at, bytes): &(&str, u32, u32)| SharedVariable { name: (*name).into(), at: *at, bytes: *bytes };
        Layout { offsets, variables: placed().map(variable).collect(), static_bytes: end.packed, dynamic }
    }
}

/// Names that a function's operands contain.
fn mentioned<'a>(function: &ptx::Function<'a>) -> HashSet<&'a str> {
    fn visit<'a>(operand: &Operand<'a>, names: &mut HashSet<&'a str>) {
        match operand {
            Operand::Name(name) | Operand::Offset(name, _) => drop(names.insert(name)),
            Operand::Vector(inner) | Operand::Memory(inner) | Operand::List(inner) => {
                inner.iter().for_each(|operand| visit(operand, names));
            }
            Operand::Pair(a, b) => {
                visit(a, names);
                visit(b, names);
            }
            _ => {}
        }
    }
    let mut names = HashSet::new();
    for statement in function.body.iter().flatten() {
        if let Statement::Instruction(instruction) = statement {
            instruction.operands.iter().for_each(|operand| visit(operand, &mut names));
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_keep_apart_and_keep_their_banks() {
        let (mut end, mut last) = (End::default(), None);
        for (bytes, align) in [(4, 4), (1, 1), (12, 4), (256, 16), (8, 8), (2048, 1024), (3, 1), (64, 64)] {
            let packed = end.packed.next_multiple_of(align);
            let at = end.take(bytes, align);
            assert_eq!((at % align, at % SHARED_GAP), (0, packed % SHARED_GAP));
            assert!(last.is_none_or(|last| at >= last + SHARED_GAP), "{at} {last:?}");
            last = Some(at + bytes);
        }
        // Alone, a variable begins at the beginning, and the packed length has no gaps.
        assert_eq!((End::default().take(4, 4), end.packed), (0, 3200));
    }
}
