//! The statements of a function: declarations, labels, instructions.

use std::borrow::Cow;
use std::collections::HashMap;

use super::builder::{Builder, Carries, Decoded, Jump, Symbol};
use super::inlined::{Calls, Inlined};
use super::op::NUMBER;
use super::shared::{align_of, bytes_of};
use super::types::Type;
use super::{Parameter, instructions};
use crate::ptx::{self, At, Instruction, Statement};

/// Parameters: of a kernel in its parameter buffer, of a function in its local memory (or in registers).
pub fn declare_parameters<'a>(b: &mut Builder<'a, '_>, function: &ptx::Function<'a>) -> Decoded<Vec<Parameter>> {
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

/// What a function returns: where in its local memory, and its bytes.
pub fn declare_returns<'a>(b: &mut Builder<'a, '_>, function: &ptx::Function<'a>) -> Decoded<Option<(u32, u32)>> {
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

/// An instruction, and where it comes from.
pub struct Source<'a, 'i> {
    /// The instruction.
    pub instruction: &'i Instruction<'a>,
    /// Its place in the source.
    pub at: At,
    /// The calls around that.
    pub calls: Calls,
}

/// Decodes a body. `sources` gets its instructions and where they come from.
pub fn statements<'a, 'i>(
    b: &mut Builder<'a, '_>,
    body: &'i [Statement<'a>],
    sources: &mut Vec<Source<'a, 'i>>,
) -> Decoded {
    // Lists of targets stand anywhere.
    for statement in body {
        if let Statement::Targets(name, targets) = statement {
            b.targets.insert(name, targets.clone());
        }
    }
    let (mut at, mut calls, mut inlined) = (At::default(), Calls::default(), Inlined::default());
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
                let around = inlined.enter(new);
                // Line 0 stands for code that belongs to no line: what came before is a better guess.
                if new.at.line > 0 {
                    (at, calls) = (new.at, around);
                }
            }
            Statement::Targets(..) | Statement::Prototype(..) => {}
            Statement::Instruction(instruction) => {
                b.instruction = sources.len() as u32;
                sources.push(Source { instruction, at, calls: calls.clone() });
                // What the function returns in a register is put where the caller looks for it.
                if let (Some((at, t, id)), "ret") = (b.returned, instruction.opcode[0]) {
                    b.line = instruction.line;
                    b.set_guard(instruction)?;
                    if let Some(op) = instructions::local_store(at, t, id) {
                        b.emit(op).carries = Carries::Store;
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
pub fn resolve(b: &mut Builder<'_, '_>) -> Decoded {
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
