//! Constants: every value that an operand names, as a row that all lanes read.

use std::collections::HashMap;

use crate::machine::core::FUNCTION_WINDOW;
use crate::machine::lanes::Row;

/// What a constant is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Value {
    /// These bits.
    Bits(u64),
    /// The address of a variable of the module, plus an offset.
    Variable(u32, i64),
    /// The address of a function.
    Function(u32),
}

/// The constants of a module.
#[derive(Clone, Debug, Default)]
pub struct Constants {
    values: Vec<(Value, bool)>,
    known: HashMap<(Value, bool), u32>,
    rows: u32,
}

impl Constants {
    /// The row of a constant, of 64 bits if `wide`.
    pub fn add(&mut self, value: Value, wide: bool) -> u32 {
        if let Some(row) = self.known.get(&(value, wide)) {
            return *row;
        }
        let row = self.rows;
        self.rows += if wide { 2 } else { 1 };
        self.values.push((value, wide));
        self.known.insert((value, wide), row);
        row
    }

    /// The rows, once it is known where the variables lie.
    pub fn rows(&self, variables: &[u64]) -> Vec<Row> {
        let mut rows = Vec::with_capacity(self.rows as usize + 1);
        for (value, wide) in &self.values {
            let bits = match value {
                Value::Bits(bits) => *bits,
                Value::Variable(index, offset) => variables[*index as usize].wrapping_add_signed(*offset),
                Value::Function(index) => FUNCTION_WINDOW + u64::from(*index),
            };
            if *wide {
                let half = std::array::from_fn(|i| (bits >> (32 * (i % 2))) as u32);
                rows.extend([Row(half); 2]);
            } else {
                rows.push(Row([bits as u32; 32]));
            }
        }
        rows.push(Row([0; 32]));
        rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_hold_their_values_in_order() {
        let mut constants = Constants::default();
        assert_eq!(constants.add(Value::Bits(7), false), 0);
        assert_eq!(constants.add(Value::Variable(0, -4), true), 1);
        assert_eq!(constants.add(Value::Bits(7), true), 3);
        assert_eq!(constants.add(Value::Bits(7), false), 0);
        let rows = constants.rows(&[0x1_0000_0004]);
        assert_eq!(rows[0].0, [7; 32]);
        assert_eq!(rows[1].0[..4], [0, 1, 0, 1]);
        assert_eq!(rows[3].0[..2], [7, 0]);
    }
}
