//! A translation unit: variables laid out, functions decoded and linked.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use super::builder::{Builder, Decoded, Draft, Jump, Symbol};
use super::constants::Constants;
use super::instructions;
use super::op::{Action, Call, Function, NONE, NUMBER, Op};
use super::place::{Track, place};
use super::types::Type;
use super::{Kernel, LoadError, Module, Origin, Parameter, Relocation, Variable};
use crate::ptx::{self, Initial, Instruction, Location, Operand, Statement};
use crate::target::Target;

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
    }
    module.check_calls()?;
    Ok(module)
}

/// Bytes of a variable; zero for `[]`.
fn bytes_of(variable: &ptx::Variable<'_>) -> Decoded<u64> {
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

fn align_of(variable: &ptx::Variable<'_>) -> u64 {
    let natural = Type::named(variable.element).map_or(1, |t| u64::from(t.bytes())) * variable.vector;
    variable.align.unwrap_or(natural).max(1).next_power_of_two()
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
            let at = self.constant_bytes.next_multiple_of(align_of(variable));
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
                let Initial::Address { name, offset, generic } = *value else { continue };
                let target = match self.names.get(name) {
                    Some(Symbol::Variable(target)) if size == 8 => {
                        Relocation { at: i * size, variable: Some(*target), offset }
                    }
                    Some(Symbol::Constant(target)) if size == 8 => {
                        let window = if generic { crate::machine::core::CONSTANT_WINDOW as i64 } else { 0 };
                        Relocation { at: i * size, variable: None, offset: window + i64::from(*target) + offset }
                    }
                    Some(Symbol::Function(target)) if size == 8 => {
                        let offset = crate::machine::core::FUNCTION_WINDOW as i64 + i64::from(*target);
                        Relocation { at: i * size, variable: None, offset }
                    }
                    _ => {
                        let message = format!("the address of {name} cannot be an initial value here");
                        return Err(LoadError { line: variable.line, malformed: false, message });
                    }
                };
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
        let mut sources: Vec<(&Instruction<'a>, Location<'a>)> = Vec::new();
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
                dynamic_shared_base: layout.dynamic,
                local_bytes: shape.local_bytes,
                constant_bytes: self.constant_bytes as u32,
                registers: (shape.rows + 8).min(255),
                max_threads: three("maxntid"),
                required_threads: three("reqntid"),
                min_blocks_per_multiprocessor: directive("minnctapersm").and_then(|n| n.first().copied()),
                function: index,
                communicates: false,
            });
        }
        self.functions[index as usize] = shape;
        Ok(())
    }

    /// Puts a function's operations behind those of the functions before it.
    fn link(&mut self, drafts: Vec<Draft>, entry: u32, sources: &[(&Instruction<'a>, Location<'a>)]) {
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
                Some((instruction, location)) => Origin {
                    ptx_line: instruction.line,
                    text: tidy(instruction.text),
                    file: location.file,
                    line: location.line,
                    inlined_at: location.inlined_at,
                },
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

/// Parameters: of a kernel in its parameter buffer, of a function in its local memory (or in registers).
fn declare_parameters<'a>(b: &mut Builder<'a, '_>, function: &ptx::Function<'a>) -> Decoded<Vec<Parameter>> {
    let mut parameters = Vec::new();
    let mut end = 0u32;
    for parameter in &function.parameters {
        let (bytes, align) = (bytes_of(parameter)? as u32, align_of(parameter) as u32);
        if function.entry {
            let offset = end.next_multiple_of(align);
            end = offset + bytes;
            b.declare(parameter.name, Symbol::Parameter(offset));
            parameters.push(Parameter { offset, bytes, align });
            continue;
        }
        let offset = b.local_space(bytes, align);
        parameters.push(Parameter { offset, bytes, align });
        if parameter.space == "reg" {
            let Some(t) = Type::named(parameter.element) else { return b.error("a type must be given") };
            let id = b.register(parameter.name, t.is_wide());
            b.declare(parameter.name, Symbol::Register(id, t));
            let Some(op) = instructions::local_load(offset, t, id) else { return b.error("no parameter of this type") };
            b.emit_hidden(op);
        } else {
            b.declare(parameter.name, Symbol::Local(offset));
        }
    }
    Ok(parameters)
}

fn declare_returns<'a>(b: &mut Builder<'a, '_>, function: &ptx::Function<'a>) -> Decoded<Option<(u32, u32)>> {
    let Some(returned) = function.returns.first() else { return Ok(None) };
    if function.returns.len() > 1 {
        return b.unknown("functions that return several values are not known");
    }
    let (bytes, align) = (bytes_of(returned)? as u32, align_of(returned) as u32);
    let offset = b.local_space(bytes, align);
    if returned.space == "reg" {
        let Some(t) = Type::named(returned.element) else { return b.error("a type must be given") };
        let id = b.register(returned.name, t.is_wide());
        b.declare(returned.name, Symbol::Register(id, t));
        b.returned = Some((offset, t, id));
    } else {
        b.declare(returned.name, Symbol::Local(offset));
    }
    Ok(Some((offset, bytes)))
}

/// Decodes a body. `sources` gets its instructions and where they come from.
fn statements<'a, 'i>(
    b: &mut Builder<'a, '_>,
    body: &'i [Statement<'a>],
    sources: &mut Vec<(&'i Instruction<'a>, Location<'a>)>,
) -> Decoded {
    // Lists of targets stand anywhere.
    for statement in body {
        if let Statement::Targets(name, targets) = statement {
            b.targets.insert(name, targets.clone());
        }
    }
    let mut location = Location::default();
    let mut scopes = 0;
    for statement in body {
        match statement {
            Statement::Open => {
                scopes += 1;
                b.braces.push(scopes);
                b.scopes.push(HashMap::new());
            }
            Statement::Close => {
                b.braces.pop();
                b.scopes.pop();
            }
            Statement::Label(name, line) => {
                let scope = *b.braces.last().unwrap_or(&0);
                if b.labels.insert((scope, name), b.drafts.len() as u32).is_some() {
                    b.line = *line;
                    return b.error(format!("the label {name} stands twice"));
                }
            }
            Statement::Registers { line, element, vector, names } => {
                b.line = *line;
                registers(b, element, *vector, names)?;
            }
            Statement::Variable(variable) => {
                b.line = variable.line;
                match variable.space {
                    "param" | "local" => {
                        let at = b.local_space(bytes_of(variable)? as u32, align_of(variable) as u32);
                        b.declare(variable.name, Symbol::Local(at));
                    }
                    // Laid out before; the name is known already.
                    "shared" => {}
                    other => return b.unknown(format!(".{other} variables in a body are not known")),
                }
            }
            Statement::Location(new) => {
                // Line 0 stands for code that belongs to no line: what came before is a better guess.
                if new.line > 0 {
                    location = *new;
                }
            }
            Statement::Targets(..) | Statement::Prototype(..) => {}
            Statement::Instruction(instruction) => {
                b.instruction = sources.len() as u32;
                sources.push((instruction, location));
                // What the function returns in a register is put where the caller looks for it.
                if let (Some((at, t, id)), "ret") = (b.returned, instruction.opcode[0]) {
                    b.line = instruction.line;
                    b.set_guard(instruction)?;
                    if let Some(op) = instructions::local_store(at, t, id) {
                        b.emit(op);
                    }
                }
                instructions::decode(b, instruction)?;
            }
        }
    }
    Ok(())
}

fn registers<'a>(b: &mut Builder<'a, '_>, element: &str, vector: u64, names: &[(&'a str, Option<u32>)]) -> Decoded {
    let Some(t) = Type::named(element) else { return b.error(format!(".{element} is not a type that is known")) };
    if vector != 1 || t == Type::B128 {
        return b.unknown("registers of vector types and of 128 bits are not known");
    }
    for (name, count) in names {
        match count {
            None => declare_register(b, (*name).into(), t),
            Some(count) => (0..*count).for_each(|i| declare_register(b, format!("{name}{i}").into(), t)),
        }
    }
    Ok(())
}

fn declare_register<'a>(b: &mut Builder<'a, '_>, name: Cow<'a, str>, t: Type) {
    let symbol = if t == Type::Pred {
        Symbol::Predicate(b.predicate(&name))
    } else {
        Symbol::Register(b.register(&name, t.is_wide()), t)
    };
    b.declare(name, symbol);
}

/// Labels to operations.
fn resolve(b: &mut Builder<'_, '_>) -> Decoded {
    for Jump { draft, position, braces, label, line } in std::mem::take(&mut b.jumps) {
        let found = braces.iter().rev().find_map(|scope| b.labels.get(&(*scope, label)).copied());
        let Some(target) = found else {
            b.line = line;
            return b.error(format!("the label {label} does not exist"));
        };
        let draft = &mut b.drafts[draft];
        match (position, &mut draft.list) {
            (Some(i), Some((list, _))) => list[i] = NUMBER | target,
            _ => draft.op.x = target.into(),
        }
    }
    Ok(())
}

/// Shared variables. Those that one kernel uses lie in that kernel's shared memory; those that several do, or a device
/// function does, lie at the same place in all kernels.
struct Shared<'a> {
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
struct Layout<'a> {
    offsets: Vec<(&'a str, u32)>,
    static_bytes: u32,
    dynamic: u32,
}

impl<'a> Shared<'a> {
    fn new(tree: &ptx::Unit<'a>) -> Decoded<Self> {
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

    fn layout(&self, function: &ptx::Function<'a>) -> Layout<'a> {
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
