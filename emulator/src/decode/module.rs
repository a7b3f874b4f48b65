//! A translation unit: variables laid out, functions decoded and linked.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use super::body::{Source, declare_parameters, declare_returns, resolve, statements};
use super::builder::{Builder, Decoded, Draft, Symbol};
use super::constants::Constants;
use super::op::{Action, Call, Function, NONE, Op};
use super::place::place;
use super::shared::{Shared, align_of, bytes_of};
use super::types::Type;
use super::watched::Track;
use super::{Kernel, LoadError, Module, Origin, Relocation, Variable};
use crate::ptx::{self, Initial};
use crate::target::Target;

/// Bytes between two variables of constant memory, at least.
const CONSTANT_GAP: u64 = 16;

/// What is gathered while functions are decoded.
#[derive(Default)]
struct Unit<'a> {
    code: Vec<Op>,
    origins: Vec<Origin>,
    operands: Vec<u32>,
    calls: Vec<Call>,
    shapes: Vec<crate::tensor::mma::Mma>,
    wmmas: Vec<crate::machine::wmma::Wmma>,
    constants: Constants,
    tracks: HashMap<u32, Track>,
    functions: Vec<Function>,
    kernels: Vec<Kernel>,
    variables: Vec<Variable>,
    names: HashMap<&'a str, Symbol>,
    /// Variables by name, constant ones too.
    places: HashMap<&'a str, u32>,
    /// Bytes of constant memory so far.
    constant_bytes: u64,
    /// Functions that touch memory in ways that let blocks communicate.
    communicating: Vec<bool>,
}

/// Decodes a unit.
pub fn load(text: &str, target: Target) -> Result<Module, LoadError> {
    let tree = ptx::parse(text).map_err(|e| LoadError { line: e.line, malformed: true, message: e.message })?;
    let sm = target.number();
    if tree.target > sm {
        let message = format!("the module is for sm_{}, the device is sm_{sm}", tree.target);
        return Err(LoadError { line: 0, malformed: false, message });
    }
    if tree.address_size != 64 {
        let message = "only modules with .address_size 64 are known".into();
        return Err(LoadError { line: 0, malformed: false, message });
    }
    let mut unit = Unit::default();
    // A function may be declared before it is defined: one number for each name.
    for function in &tree.functions {
        let index = unit.functions.len() as u32;
        if let std::collections::hash_map::Entry::Vacant(entry) = unit.names.entry(function.name) {
            entry.insert(Symbol::Function(index));
            unit.functions.push(Function { name: function.name.into(), ..Function::default() });
            unit.communicating.push(false);
        }
    }
    for (alias, name) in &tree.aliases {
        if let Some(symbol) = unit.names.get(name).copied() {
            unit.names.insert(alias, symbol);
        }
    }
    for variable in tree.variables.iter().filter(|variable| variable.space != "shared") {
        unit.variable(variable)?;
    }
    unit.relocations(&tree)?;
    let shared = Shared::new(&tree)?;
    for function in tree.functions.iter().filter(|function| function.body.is_some()) {
        unit.function(function, &shared, sm)?;
    }
    let communicating = unit.communicating.clone();
    let mut module = unit.finish(&tree);
    // A kernel communicates if it does so itself, or any device function does.
    let inner: HashSet<u32> = module.kernels.iter().map(|kernel| kernel.function).collect();
    let outer = communicating.iter().enumerate().any(|(i, c)| *c && !inner.contains(&(i as u32)));
    for kernel in &mut module.kernels {
        kernel.communicates = outer || communicating[kernel.function as usize];
        kernel.uses_reserved = text.contains("%reserved_smem_offset_");
    }
    module.check_calls()?;
    Ok(module)
}

impl<'a> Unit<'a> {
    fn variable(&mut self, variable: &ptx::Variable<'a>) -> Decoded {
        if !matches!(variable.space, "global" | "const") {
            let message = format!(".{} is not known at module scope", variable.space);
            return Err(LoadError { line: variable.line, malformed: false, message });
        }
        let index = self.variables.len() as u32;
        let size = Type::named(variable.element).map_or(1, Type::bytes) as usize;
        let mut bytes = bytes_of(variable)?;
        // `name[] = {…}` is as long as its initialiser.
        if bytes == 0 {
            bytes = (variable.initial.len() * size) as u64;
        }
        let mut initial = Vec::with_capacity(variable.initial.len() * size);
        for value in &variable.initial {
            let bits = match *value {
                Initial::Integer(value) => value as u64,
                Initial::Float(value) if size == 8 => value.to_bits(),
                Initial::Float(value) => u64::from((value as f32).to_bits()),
                Initial::Bits32(bits) => bits.into(),
                Initial::Address { .. } => 0,
            };
            initial.extend_from_slice(&bits.to_le_bytes()[..size]);
        }
        initial.truncate(bytes as usize);
        let mut bank_offset = None;
        if variable.space == "const" {
            // A gap before each, which nobody writes, so that reading past a table shows.
            let gap = if self.constant_bytes > 0 { CONSTANT_GAP } else { 0 };
            let at = (self.constant_bytes + gap).next_multiple_of(align_of(variable));
            self.constant_bytes = at + bytes;
            bank_offset = Some(at);
            self.names.insert(variable.name, Symbol::Constant(at as u32));
        } else {
            self.names.insert(variable.name, Symbol::Variable(index));
        }
        self.places.insert(variable.name, index);
        self.variables.push(Variable {
            name: variable.name.into(),
            bytes,
            align: align_of(variable),
            constant: variable.space == "const",
            bank_offset,
            initial,
            relocations: Vec::new(),
        });
        Ok(())
    }

    /// Initialisers that are addresses.
    fn relocations(&mut self, tree: &ptx::Unit<'a>) -> Decoded {
        for variable in &tree.variables {
            let Some(index) = self.places.get(variable.name).copied() else { continue };
            let size = Type::named(variable.element).map_or(1, Type::bytes) as usize;
            for (i, value) in variable.initial.iter().enumerate() {
                let Initial::Address { name, offset, generic, mask } = *value else { continue };
                let fits = mask != 0 && mask >> mask.trailing_zeros() <= u64::MAX >> (64 - 8 * size);
                let found = match self.names.get(name) {
                    Some(Symbol::Variable(target)) => Some((Some(*target), 0)),
                    Some(Symbol::Constant(target)) => {
                        let window = if generic { crate::machine::core::CONSTANT_WINDOW } else { 0 };
                        Some((None, window as i64 + i64::from(*target)))
                    }
                    Some(Symbol::Function(target)) => {
                        Some((None, crate::machine::core::FUNCTION_WINDOW as i64 + i64::from(*target)))
                    }
                    _ => None,
                };
                let Some((variable_index, base)) = found.filter(|_| fits) else {
                    let message = format!("the address of {name} cannot be an initial value here");
                    return Err(LoadError { line: variable.line, malformed: false, message });
                };
                let target =
                    Relocation { at: i * size, variable: variable_index, offset: base + offset, mask, bytes: size };
                self.variables[index as usize].relocations.push(target);
            }
        }
        Ok(())
    }

    fn function(&mut self, function: &ptx::Function<'a>, shared: &Shared<'a>, sm: u32) -> Decoded {
        let Some(Symbol::Function(index)) = self.names.get(function.name).copied() else { return Ok(()) };
        let body = function.body.as_deref().unwrap_or_default();
        let layout = shared.layout(function);
        let mut scope: HashMap<Cow<'a, str>, Symbol> =
            self.names.iter().map(|(n, s)| (Cow::Borrowed(*n), *s)).collect();
        scope.extend(layout.offsets.iter().map(|(name, offset)| (Cow::Borrowed(*name), Symbol::Shared(*offset))));
        let mut b = Builder {
            scopes: vec![scope, HashMap::new()],
            labels: HashMap::new(),
            braces: vec![0],
            jumps: Vec::new(),
            targets: HashMap::new(),
            registers: Vec::new(),
            predicates: Vec::new(),
            carry: None,
            drafts: Vec::new(),
            calls: &mut self.calls,
            shapes: &mut self.shapes,
            wmmas: &mut self.wmmas,
            constants: &mut self.constants,
            local_bytes: 0,
            sizes: HashMap::new(),
            returned: None,
            entry: function.entry,
            communicates: false,
            sm,
            instruction: 0,
            line: function.line,
            guard: NONE,
        };
        let parameters = declare_parameters(&mut b, function)?;
        let mut shape = Function { name: function.name.into(), ..Function::default() };
        if !function.entry {
            shape.parameters = parameters.iter().map(|p| (p.offset, p.bytes)).collect();
            shape.returns = declare_returns(&mut b, function)?;
        }
        let mut sources = Vec::new();
        statements(&mut b, body, &mut sources)?;
        // A body that runs off its end returns.
        b.guard = NONE;
        b.instruction = sources.len() as u32;
        b.emit_hidden(Op::new(Action::Return));
        resolve(&mut b)?;
        let mut drafts = std::mem::take(&mut b.drafts);
        let (names, predicates) = (std::mem::take(&mut b.registers), std::mem::take(&mut b.predicates));
        let placed = place(&mut drafts, &names, &predicates);
        (shape.local_bytes, shape.rows, shape.predicates, shape.tracked) =
            (b.local_bytes.next_multiple_of(16), placed.rows, placed.predicates, placed.tracked);
        self.communicating[index as usize] = b.communicates;
        let entry = self.code.len() as u32;
        (shape.entry, shape.end) = (entry, entry + drafts.len() as u32);
        self.tracks.extend(placed.tracks.into_iter().map(|(at, track)| (entry + at as u32, track)));
        self.link(drafts, entry, &sources);
        if function.entry {
            let directive =
                |name: &str| function.directives.iter().find(|(n, _)| *n == name).map(|(_, numbers)| numbers);
            let three = |name: &str| directive(name).map(|n| [0, 1, 2].map(|i| n.get(i).copied().unwrap_or(1)));
            self.kernels.push(Kernel {
                name: function.name.into(),
                parameters,
                static_shared: layout.static_bytes,
                shared_variables: layout.variables,
                dynamic_shared_base: layout.dynamic,
                local_bytes: shape.local_bytes,
                constant_bytes: self.constant_bytes as u32,
                registers: (shape.rows + 8).min(255),
                max_threads: three("maxntid"),
                required_threads: three("reqntid"),
                min_blocks_per_multiprocessor: directive("minnctapersm").and_then(|n| n.first().copied()),
                uses_reserved: false,
                function: index,
                communicates: false,
            });
        }
        self.functions[index as usize] = shape;
        Ok(())
    }

    /// Puts a function's operations behind those of the functions before it.
    fn link(&mut self, drafts: Vec<Draft>, entry: u32, sources: &[Source<'a, '_>]) {
        for draft in drafts {
            let mut op = draft.op;
            if matches!(op.action, Action::Branch) {
                op.x += u64::from(entry);
            }
            if let Some((list, _)) = draft.list {
                op.list = self.operands.len() as u32;
                let table = matches!(op.action, Action::BranchTable);
                self.operands.extend(list.into_iter().map(|code| if table { code + entry } else { code }));
            }
            self.code.push(op);
            let origin = match sources.get(draft.instruction as usize) {
                Some(Source { instruction, at, calls }) => {
                    Origin { ptx_line: instruction.line, text: tidy(instruction.text), at: *at, calls: calls.clone() }
                }
                None => Origin::default(),
            };
            self.origins.push(origin);
        }
    }

    fn finish(self, tree: &ptx::Unit<'a>) -> Module {
        Module {
            kernels: self.kernels,
            variables: self.variables,
            constant_bytes: self.constant_bytes,
            code: self.code,
            operands: self.operands,
            calls: self.calls,
            shapes: self.shapes,
            wmmas: self.wmmas,
            constants: self.constants,
            tracks: self.tracks,
            functions: self.functions,
            origins: self.origins,
            files: tree.files.iter().map(|(number, path)| (*number, (*path).to_string())).collect(),
        }
    }
}

/// One line, single spaces.
fn tidy(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
