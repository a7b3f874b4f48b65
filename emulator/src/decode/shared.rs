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

/// Shared variables. Those that one kernel uses lie in that kernel's shared memory; those that several do, or a device
/// function does, lie at the same place in all kernels.
pub struct Shared<'a> {
    common: Vec<(&'a str, u32)>,
    common_end: u32,
    /// By function: its own variables.
    own: HashMap<&'a str, Vec<(&'a str, u32)>>,
    ends: HashMap<&'a str, u32>,
    /// `extern` arrays: dynamic shared memory, and its alignment.
    dynamic: Vec<&'a str>,
    dynamic_align: u32,
    /// When device functions use dynamic shared memory it begins at the same place in all kernels.
    dynamic_common: bool,
}

/// The shared memory of one function.
pub struct Layout<'a> {
    /// Names and places.
    pub offsets: Vec<(&'a str, u32)>,
    /// Bytes declared.
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
            common_end: 0,
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
                    let at = shared.common_end.next_multiple_of(align);
                    shared.common.push((variable.name, at));
                    shared.common_end = at + bytes;
                }
            }
        }
        for (function, name, bytes, align) in later {
            let end = shared.ends.entry(function).or_insert(shared.common_end);
            let at = end.next_multiple_of(align);
            *end = at + bytes;
            shared.own.entry(function).or_default().push((name, at));
        }
        Ok(shared)
    }

    /// As one function sees it.
    pub fn layout(&self, function: &ptx::Function<'a>) -> Layout<'a> {
        let static_bytes = self.ends.get(function.name).copied().unwrap_or(self.common_end);
        let mut end = static_bytes;
        if self.dynamic_common {
            end = self.ends.values().copied().chain([end, self.common_end]).max().unwrap_or(end);
        }
        let dynamic = end.next_multiple_of(self.dynamic_align);
        let mut offsets = self.common.clone();
        offsets.extend(self.own.get(function.name).into_iter().flatten());
        offsets.extend(self.dynamic.iter().map(|name| (*name, dynamic)));
        Layout { offsets, static_bytes, dynamic }
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
