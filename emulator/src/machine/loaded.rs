//! A module whose variables have their places in a device's memory.

use std::sync::Arc;

use super::lanes::Row;
use crate::decode::Module;
use crate::memory::GlobalMemory;

/// A module, and where its variables lie.
#[derive(Debug)]
pub struct LoadedModule {
    module: Arc<Module>,
    /// The address of each variable, in the module's order.
    addresses: Vec<u64>,
    /// What was allocated for them.
    taken: Vec<u64>,
    /// Where constant memory begins.
    bank: u64,
    constants: Vec<Row>,
}

impl LoadedModule {
    /// Takes memory for the module's variables and writes their first values. None when the memory does not suffice.
    pub fn new(module: Arc<Module>, memory: &GlobalMemory) -> Option<Self> {
        let mut taken = Vec::new();
        let mut take = |bytes: u64| match memory.allocate(bytes) {
            Some(address) => {
                taken.push(address);
                Some(address)
            }
            None => {
                taken.drain(..).for_each(|address| drop(memory.free(address)));
                None
            }
        };
        // Constant memory is one bank, as its addresses count from its beginning.
        let bank = if module.constant_bytes > 0 { take(module.constant_bytes)? } else { 0 };
        let mut addresses = Vec::with_capacity(module.variables().len());
        for variable in module.variables() {
            addresses.push(match variable.bank_offset {
                Some(offset) => bank + offset,
                None => take(variable.bytes)?,
            });
        }
        for (variable, address) in module.variables().iter().zip(&addresses) {
            let mut bytes = variable.initial.clone();
            bytes.resize(variable.bytes as usize, 0);
            for relocation in &variable.relocations {
                let value = relocation.value(&addresses).to_le_bytes();
                bytes[relocation.at..][..relocation.bytes].copy_from_slice(&value[..relocation.bytes]);
            }
            memory.write(*address, &bytes).expect("just allocated with this length");
        }
        let constants = module.constant_rows(&addresses);
        Some(LoadedModule { module, addresses, taken, bank, constants })
    }

    /// Constant memory: its address and its bytes.
    pub(crate) fn constant_bank(&self) -> (u64, u64) {
        (self.bank, self.module.constant_bytes)
    }

    /// The module's constants, with the addresses of its variables.
    pub(crate) fn constants(&self) -> &[Row] {
        &self.constants
    }

    /// What was loaded.
    pub fn module(&self) -> &Arc<Module> {
        &self.module
    }

    /// Address and bytes of a variable in global or constant memory.
    pub fn global(&self, name: &str) -> Option<(u64, u64)> {
        let index = self.module.variables().iter().position(|variable| variable.name == name)?;
        Some((self.addresses[index], self.module.variables()[index].bytes))
    }

    /// Gives the variables' memory back.
    pub fn unload(&self, memory: &GlobalMemory) {
        self.taken.iter().for_each(|address| drop(memory.free(*address)));
    }
}
