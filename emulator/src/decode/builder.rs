//! The function that is being decoded: names, operands, operations before their registers are placed.

use std::borrow::Cow;
use std::collections::HashMap;

use super::LoadError;
use super::constants::{Constants, Value};
use super::op::{Action, CONSTANT, Call, NONE, NUMBER, Op, PREDICATE, REGISTER};
use super::types::Type;
use crate::machine::lanes::frame;
use crate::machine::special;
use crate::ptx::{Instruction, Operand};

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Symbol {
    /// A virtual register and its type.
    Register(u32, Type),
    /// A virtual predicate.
    Predicate(u32),
    /// A variable of the module in global memory: its index.
    Variable(u32),
    /// Constant memory at this offset.
    Constant(u32),
    /// Shared memory at this offset.
    Shared(u32),
    /// Local memory of the frame at this offset.
    Local(u32),
    /// A kernel's parameter at this offset.
    Parameter(u32),
    /// A function: its index.
    Function(u32),
}

/// What becomes of a source that was never written. Who computes with it has a result that depends on it; that is no
/// harm as long as nobody acts on the result: compilers compute first and select afterwards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Carries {
    /// What its action implies: a computation of each lane by itself passes all sources on, anything else uses them.
    #[default]
    Usual,
    /// `selp`: of `a` and `b` the one that the predicate `c` selects.
    Select,
    /// Logic of the predicates `a` and `b`, by `x`: one may decide without the other.
    Logic,
    /// `setp`: the comparison of `a` and `b`, joined with the predicate `c` by `y`.
    Compare,
    /// It moves `a` from lane to lane, and uses the others.
    Across,
    /// It stores `b`, or what is listed, and uses its address.
    Store,
}

/// An operation before its registers are placed.
#[derive(Clone, Debug)]
pub struct Draft {
    /// The operation; operands name virtual registers.
    pub op: Op,
    /// More operands, and how many of them, from the first, are written; [`Op::list`] will tell where they are.
    pub list: Option<(Vec<u32>, usize)>,
    /// Whether [`Op::e`] is written, not read.
    pub e_written: bool,
    /// What it does with what was never written.
    pub carries: Carries,
    /// Index of the instruction that it belongs to.
    pub instruction: u32,
}

/// A branch to a label that is still to be found.
#[derive(Clone, Debug)]
pub struct Jump<'a> {
    /// The branch, among the drafts.
    pub draft: usize,
    /// Where in its list the target goes; of none, into [`Op::x`].
    pub position: Option<usize>,
    /// The braces around it, the outermost first.
    pub braces: Vec<u32>,
    /// The label.
    pub label: &'a str,
    /// The branch's line.
    pub line: u32,
}

/// A function that is being decoded.
pub struct Builder<'a, 'm> {
    /// Names, from the module's to those of the innermost braces.
    pub scopes: Vec<HashMap<Cow<'a, str>, Symbol>>,
    /// Labels: scope they belong to and place, by name; places are indices of drafts.
    pub labels: HashMap<(u32, &'a str), u32>,
    /// Numbers of the open braces, the outermost first.
    pub braces: Vec<u32>,
    /// Branches to labels that are still to be found.
    pub jumps: Vec<Jump<'a>>,
    /// Target lists and prototypes by name.
    pub targets: HashMap<&'a str, Vec<&'a str>>,
    /// For each virtual register: its name and whether it has 64 bits.
    pub registers: Vec<(String, bool)>,
    /// Names of the virtual predicates.
    pub predicates: Vec<String>,
    /// The carry of `add.cc`, once it is used.
    pub carry: Option<u32>,
    /// Operations so far.
    pub drafts: Vec<Draft>,
    /// Calls so far: the module's.
    pub calls: &'m mut Vec<Call>,
    /// Shapes of matrix products so far: the module's.
    pub shapes: &'m mut Vec<crate::tensor::mma::Mma>,
    /// `wmma` instructions so far: the module's.
    pub wmmas: &'m mut Vec<crate::machine::wmma::Wmma>,
    /// Constants so far: the module's.
    pub constants: &'m mut Constants,
    /// Bytes of local memory so far.
    pub local_bytes: u32,
    /// Bytes of each variable in local memory, by its offset.
    pub sizes: HashMap<u32, u32>,
    /// The register that it returns, and where in local memory the caller looks for it.
    pub returned: Option<(u32, Type, u32)>,
    /// Whether it is a kernel.
    pub entry: bool,
    /// Whether it touches memory in ways that let blocks communicate.
    pub communicates: bool,
    /// Number of the SM the module is loaded for.
    pub sm: u32,
    /// Index of the instruction that is being decoded.
    pub instruction: u32,
    /// Its line.
    pub line: u32,
    /// Its guard.
    pub guard: u32,
}

/// The result of decoding.
pub type Decoded<T = ()> = Result<T, LoadError>;

impl<'a> Builder<'a, '_> {
    /// An error at the current line.
    pub fn error<T>(&self, message: impl Into<String>) -> Decoded<T> {
        Err(LoadError { line: self.line, malformed: true, message: message.into() })
    }

    /// Legal perhaps, but not known here.
    pub fn unknown<T>(&self, message: impl Into<String>) -> Decoded<T> {
        Err(LoadError { line: self.line, malformed: false, message: message.into() })
    }

    /// What a name stands for.
    pub fn find(&self, name: &str) -> Option<Symbol> {
        self.scopes.iter().rev().find_map(|scope| scope.get(name)).copied()
    }

    /// Declares a name in the innermost scope.
    pub fn declare(&mut self, name: impl Into<Cow<'a, str>>, symbol: Symbol) {
        if let Some(scope) = self.scopes.last_mut() {
            scope.insert(name.into(), symbol);
        }
    }

    /// A new virtual register.
    pub fn register(&mut self, name: &str, wide: bool) -> u32 {
        self.registers.push((name.to_string(), wide));
        self.registers.len() as u32 - 1
    }

    /// A new virtual predicate.
    pub fn predicate(&mut self, name: &str) -> u32 {
        self.predicates.push(name.to_string());
        self.predicates.len() as u32 - 1
    }

    /// The carry flag, as a predicate.
    pub fn carry_flag(&mut self) -> u32 {
        let id = match self.carry {
            Some(id) => id,
            None => self.predicate("the carry flag"),
        };
        self.carry = Some(id);
        PREDICATE | id << 1
    }

    /// Space in the frame's local memory: its offset.
    pub fn local_space(&mut self, bytes: u32, align: u32) -> u32 {
        let at = self.local_bytes.next_multiple_of(align.max(1));
        self.local_bytes = at + bytes;
        self.sizes.insert(at, bytes);
        at
    }

    /// Adds an operation under the instruction's guard.
    pub fn emit(&mut self, op: Op) -> &mut Draft {
        let op = Op { guard: self.guard, ..op };
        let carries = Carries::default();
        self.drafts.push(Draft { op, list: None, e_written: false, carries, instruction: self.instruction });
        self.drafts.last_mut().expect("just pushed")
    }

    /// Adds one that is not counted and that no guard stops.
    pub fn emit_hidden(&mut self, op: Op) {
        let op = Op { guard: NONE, hidden: true, ..op };
        let carries = Carries::default();
        self.drafts.push(Draft { op, list: None, e_written: false, carries, instruction: self.instruction });
    }

    /// A constant.
    pub fn constant(&mut self, value: u64, wide: bool) -> u32 {
        CONSTANT | self.constants.add(Value::Bits(value), wide)
    }

    /// An operand's register, of any width.
    pub fn any_register(&self, operand: &Operand<'a>) -> Option<(u32, Type)> {
        match operand {
            Operand::Name(name) => match self.find(name) {
                Some(Symbol::Register(id, t)) => Some((REGISTER | id, t)),
                _ => None,
            },
            _ => None,
        }
    }

    /// A destination of type `t`; [`NONE`] for `_`.
    pub fn destination(&mut self, operand: &Operand<'a>, t: Type) -> Decoded<u32> {
        if *operand == Operand::Name("_") {
            return Ok(NONE);
        }
        match self.any_register(operand) {
            Some((code, have)) if have.is_wide() == t.is_wide() => Ok(code),
            Some(_) => self.error(format!("the destination {operand:?} does not have the width of .{}", t.name())),
            None => self.error(format!("a register must stand where {operand:?} does")),
        }
    }

    /// A source of type `t`: register, special register, constant, or address of a symbol.
    pub fn source(&mut self, operand: &Operand<'a>, t: Type) -> Decoded<u32> {
        let wide = t.is_wide();
        let bits = match *operand {
            Operand::Integer(value) if t == Type::F32 => u64::from((value as f32).to_bits()),
            Operand::Integer(value) if t == Type::F64 => (value as f64).to_bits(),
            Operand::Integer(value) => value as u64,
            Operand::Float(value) if t == Type::F64 || t == Type::B64 => value.to_bits(),
            Operand::Float(value) => u64::from((value as f32).to_bits()),
            Operand::Bits32(bits) if t == Type::F64 => f64::from(f32::from_bits(bits)).to_bits(),
            Operand::Bits32(bits) => bits.into(),
            Operand::Bits64(bits) if t == Type::F32 => u64::from((f64::from_bits(bits) as f32).to_bits()),
            Operand::Bits64(bits) => bits,
            Operand::Name(name) => return self.named_source(name, 0, t),
            Operand::Offset(name, offset) => return self.named_source(name, offset, t),
            _ => return self.error(format!("{operand:?} cannot stand here")),
        };
        Ok(self.constant(if wide { bits } else { bits & 0xFFFF_FFFF }, wide))
    }

    fn named_source(&mut self, name: &'a str, offset: i64, t: Type) -> Decoded<u32> {
        match self.find(name) {
            Some(Symbol::Register(id, have)) if offset == 0 => {
                if have.is_wide() == t.is_wide() {
                    Ok(REGISTER | id)
                } else {
                    self.error(format!("the register {name} does not have the width of .{}", t.name()))
                }
            }
            Some(Symbol::Predicate(_)) => self.error(format!("{name} is a predicate, not a value")),
            Some(symbol) => self.address_of(symbol, offset, t.is_wide()),
            None => self.special(name, t),
        }
    }

    /// The address of a symbol in its own space, as a value.
    pub fn address_of(&mut self, symbol: Symbol, offset: i64, wide: bool) -> Decoded<u32> {
        match symbol {
            Symbol::Variable(index) if wide => Ok(CONSTANT | self.constants.add(Value::Variable(index, offset), true)),
            Symbol::Function(index) if wide => Ok(CONSTANT | self.constants.add(Value::Function(index), true)),
            Symbol::Variable(_) | Symbol::Function(_) => self.error("an address has 64 bits"),
            Symbol::Shared(at) | Symbol::Parameter(at) | Symbol::Constant(at) => {
                Ok(self.constant((i64::from(at) + offset) as u64, wide))
            }
            Symbol::Local(at) => {
                let d = REGISTER | self.register("the address of a local variable", wide);
                let x = (i64::from(at) + offset) as u64;
                let action = if wide { frame(special::local_address) } else { frame(special::local_address32) };
                self.emit_hidden(Op { d, x, ..Op::new(action) });
                Ok(d)
            }
            Symbol::Register(..) | Symbol::Predicate(_) => self.error("a register has no address"),
        }
    }

    /// The value of a special register.
    fn special(&mut self, name: &str, t: Type) -> Decoded<u32> {
        let wide = t.is_wide();
        let d = REGISTER | self.register(name, wide);
        let clock = |x| Op { d, x, ..Op::new(Action::Clock) };
        let op = match name {
            "%clock" | "%globaltimer_lo" if !wide => clock(0),
            "%clock_hi" | "%globaltimer_hi" if !wide => clock(1),
            "%clock64" | "%globaltimer" if wide => clock(2),
            "%gridid" if wide => Op { d, ..Op::new(frame(special::read_grid)) },
            _ if name.starts_with("%envreg") && !wide && special::Register::named(name).is_none() => {
                return Ok(self.constant(0, false));
            }
            _ => match special::Register::named(name) {
                Some(special::Register::WarpSize) => return Ok(self.constant(32, wide)),
                Some(register) if !wide => Op { d, x: register as u64, ..Op::new(frame(special::read)) },
                Some(_) => return self.error(format!("{name} has 32 bits, not those of .{}", t.name())),
                None if name.starts_with('%') => {
                    return self.unknown(format!("{name} is neither declared nor a special register that is known"));
                }
                None => return self.error(format!("{name} is not declared")),
            },
        };
        self.emit_hidden(op);
        Ok(d)
    }

    /// A predicate that is read, perhaps negated.
    pub fn predicate_source(&mut self, operand: &Operand<'a>) -> Decoded<u32> {
        let (name, negated) = match operand {
            Operand::Name(name) => (*name, 0),
            Operand::Not(name) => (*name, 1),
            Operand::Integer(value) => {
                // A constant predicate: one that is never written, and read as it is or negated.
                return Ok(self.constant_predicate(*value != 0));
            }
            _ => return self.error(format!("a predicate must stand where {operand:?} does")),
        };
        match self.find(name) {
            Some(Symbol::Predicate(id)) => Ok(PREDICATE | id << 1 | negated),
            _ => self.error(format!("{name} is not a predicate")),
        }
    }

    fn constant_predicate(&mut self, value: bool) -> u32 {
        let id = self.predicate("a constant");
        let d = PREDICATE | id << 1;
        let set = frame(|frame, op, mask| {
            // SAFETY: the decoder gives `d` a predicate.
            unsafe { frame.write_predicate(op.d, if op.x != 0 { u32::MAX } else { 0 }, mask) }
        });
        self.emit_hidden(Op { d, x: value.into(), ..Op::new(set) });
        d
    }

    /// A predicate that is written; [`NONE`] for `_`.
    pub fn predicate_destination(&mut self, operand: &Operand<'a>) -> Decoded<u32> {
        match operand {
            Operand::Name("_") => Ok(NONE),
            Operand::Name(name) => match self.find(name) {
                Some(Symbol::Predicate(id)) => Ok(PREDICATE | id << 1),
                _ => self.error(format!("{name} is not a predicate")),
            },
            _ => self.error(format!("a predicate must stand where {operand:?} does")),
        }
    }

    /// Sets the guard of the instruction that comes.
    pub fn set_guard(&mut self, instruction: &Instruction<'a>) -> Decoded {
        self.guard = match instruction.guard {
            None => NONE,
            Some((name, negated)) => match self.find(name) {
                Some(Symbol::Predicate(id)) => PREDICATE | id << 1 | u32::from(negated),
                _ => return self.error(format!("the guard {name} is not a predicate")),
            },
        };
        Ok(())
    }

    /// A plain number as an operand's code.
    pub fn number(value: u32) -> u32 {
        NUMBER | value
    }
}
