//! From the syntax tree to operations that the machine runs: types resolved, registers placed, addresses laid out.
//!
//! What is not known here is refused with its line; the machine never meets an instruction that it would have to skip.

mod body;
pub(crate) mod builder;
mod constants;
mod inlined;
mod instructions;
mod module;
pub mod op;
mod place;
mod set;
mod shared;
pub mod types;
pub(crate) mod watched;

use std::collections::HashMap;
use std::fmt;

use crate::machine::lanes::Row;
use crate::ptx::At;
use crate::target::Target;
use crate::tensor::mma::Mma;
use crate::watch::Place;
use constants::Constants;
use inlined::Calls;
pub use instructions::mnemonics;
use op::{Call, Function, Op};
pub(crate) use shared::SharedVariable;
use watched::Track;

/// A loaded translation unit.
#[derive(Debug)]
pub struct Module {
    kernels: Vec<Kernel>,
    variables: Vec<Variable>,
    /// Bytes of constant memory.
    pub(crate) constant_bytes: u64,
    /// Operations of all functions, one after the other.
    pub(crate) code: Vec<Op>,
    /// Operands of operations that have many.
    pub(crate) operands: Vec<u32>,
    pub(crate) calls: Vec<Call>,
    /// Shapes of matrix products.
    pub(crate) shapes: Vec<Mma>,
    pub(crate) wmmas: Vec<crate::machine::wmma::Wmma>,
    constants: Constants,
    /// By operation: registers whose initialisation is watched.
    pub(crate) tracks: HashMap<u32, Track>,
    pub(crate) functions: Vec<Function>,
    /// By operation: where it comes from.
    origins: Vec<Origin>,
    files: HashMap<u32, String>,
}

/// Where an operation comes from.
#[derive(Clone, Debug, Default)]
struct Origin {
    ptx_line: u32,
    text: String,
    at: At,
    calls: Calls,
}

/// A function that the host can launch (`.entry`).
#[derive(Clone, Debug)]
pub struct Kernel {
    /// Its (mangled) name.
    pub name: String,
    /// Its parameters, in order.
    pub parameters: Vec<Parameter>,
    /// Bytes of statically declared shared memory, as an assembler would lay it out.
    pub static_shared: u32,
    /// Bytes of local memory for each thread, without those of the functions that it calls.
    pub local_bytes: u32,
    /// Bytes of constant memory that the module declares.
    pub constant_bytes: u32,
    /// 32-bit registers alive at a time, a guess at what an assembler would need.
    pub registers: u32,
    /// `.maxntid`: no block may be larger in any dimension.
    pub max_threads: Option<[u32; 3]>,
    /// `.reqntid`: blocks have exactly this shape.
    pub required_threads: Option<[u32; 3]>,
    /// `.minnctapersm`.
    pub min_blocks_per_multiprocessor: Option<u32>,
    /// Static shared variables, spread so that one does not touch the next.
    pub(crate) shared_variables: Vec<SharedVariable>,
    /// Where dynamic shared memory begins, after the static and aligned.
    pub(crate) dynamic_shared_base: u32,
    /// Whether its module names the shared memory that is reserved for the system.
    pub(crate) uses_reserved: bool,
    /// Index among the module's functions.
    pub(crate) function: u32,
    /// Whether its blocks may communicate: by atomics on global memory, volatile accesses, or allocations.
    pub(crate) communicates: bool,
}

/// A parameter of a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// Where it begins in the parameter buffer, in bytes.
    pub offset: u32,
    /// Its length in bytes.
    pub bytes: u32,
    /// Its alignment in bytes.
    pub align: u32,
}

/// A variable of the module in global or constant memory.
#[derive(Clone, Debug)]
pub struct Variable {
    /// Its (mangled) name.
    pub name: String,
    /// Its length in bytes.
    pub bytes: u64,
    /// Its alignment in bytes.
    pub align: u64,
    /// Whether it lives in constant memory.
    pub constant: bool,
    /// What it holds at first; shorter than `bytes` when the rest is zero.
    pub initial: Vec<u8>,
    /// Where it lies in constant memory, if it does.
    pub(crate) bank_offset: Option<u64>,
    /// Addresses within the initial value.
    pub(crate) relocations: Vec<Relocation>,
}

/// An address in an initial value.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Relocation {
    /// Where in the variable.
    pub at: usize,
    /// Whose address; of none, `offset` is all.
    pub variable: Option<u32>,
    /// Bytes added.
    pub offset: i64,
    /// The bits of the address that are taken; the lowest of them becomes bit 0.
    pub mask: u64,
    /// Bytes that they fill.
    pub bytes: usize,
}

impl Relocation {
    /// What is written, once it is known where the variables lie.
    pub fn value(&self, addresses: &[u64]) -> u64 {
        let base = self.variable.map_or(0, |index| addresses[index as usize]);
        (base.wrapping_add_signed(self.offset) & self.mask) >> self.mask.trailing_zeros().min(63)
    }
}

/// Why a module cannot be loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadError {
    /// Line in the PTX, from 1; 0 when it concerns the whole.
    pub line: u32,
    /// Whether the PTX is malformed (else it is legal, but more than the emulator knows or the target has).
    pub malformed: bool,
    /// What is wrong.
    pub message: String,
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line > 0 { write!(f, "PTX line {}: {}", self.line, self.message) } else { f.write_str(&self.message) }
    }
}

impl std::error::Error for LoadError {}

/// Bytes of shared memory in each block that are reserved for the system.
pub(crate) const RESERVED_BYTES: u32 = 1024;

impl Kernel {
    /// The ranges of shared memory that a block has: each static variable, then the dynamic bytes.
    pub(crate) fn shared_ranges(&self, dynamic: u32) -> Vec<std::ops::Range<u32>> {
        let variables = self.shared_variables.iter().map(|variable| variable.at..variable.at + variable.bytes);
        let dynamic = (dynamic > 0).then(|| self.dynamic_shared_base..self.dynamic_shared_base + dynamic);
        variables.chain(dynamic).collect()
    }

    /// The range of shared memory that is reserved for the system, if it is used. (On a GPU it comes before the others.)
    pub(crate) fn reserved_range(&self, dynamic: u32) -> Option<std::ops::Range<u32>> {
        let end = self.shared_ranges(dynamic).iter().map(|range| range.end).max().unwrap_or(0);
        let begin = end.next_multiple_of(shared::SHARED_GAP) + shared::SHARED_GAP;
        self.uses_reserved.then_some(begin..begin + RESERVED_BYTES)
    }
}

impl Module {
    /// Parses and decodes PTX.
    ///
    /// # Errors
    /// With the line: malformed PTX, an instruction that is not known, or one that `target` does not have.
    pub fn load(ptx: &str, target: Target) -> Result<Module, LoadError> {
        module::load(ptx, target)
    }

    /// The kernel of that name.
    pub fn kernel(&self, name: &str) -> Option<&Kernel> {
        self.kernels.iter().find(|kernel| kernel.name == name)
    }

    /// All kernels, in the order of the text.
    pub fn kernels(&self) -> &[Kernel] {
        &self.kernels
    }

    /// All variables in global and constant memory, in the order of the text.
    pub fn variables(&self) -> &[Variable] {
        &self.variables
    }

    /// The constants, once it is known where the variables lie.
    pub(crate) fn constant_rows(&self, addresses: &[u64]) -> Vec<Row> {
        self.constants.rows(addresses)
    }

    /// Where an operation comes from.
    pub fn place(&self, pc: u32) -> Place {
        let Some(origin) = self.origins.get(pc as usize) else { return Place::default() };
        let file = |number: u32| self.files.get(&number).cloned().unwrap_or_default();
        Place {
            file: file(origin.at.file),
            line: origin.at.line,
            inlined_at: origin.calls.iter().map(|call| (file(call.file), call.line)).collect(),
            ptx_line: origin.ptx_line,
            instruction: origin.text.clone(),
        }
    }

    /// That every function which is called has a body.
    fn check_calls(&self) -> Result<(), LoadError> {
        for (pc, op) in self.code.iter().enumerate() {
            if !matches!(op.action, op::Action::Call) {
                continue;
            }
            if let Some(function) = self.calls[op.x as usize].function
                && self.functions[function as usize].end == 0
            {
                let message = format!("the function {} has no body", self.functions[function as usize].name);
                return Err(LoadError { line: self.origins[pc].ptx_line, malformed: false, message });
            }
        }
        Ok(())
    }
}
