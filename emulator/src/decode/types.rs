//! The types of PTX.

use crate::arith::convert::NumberType;

/// A fundamental type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names of PTX")]
pub enum Type {
    Pred,
    B8,
    B16,
    B32,
    B64,
    B128,
    U8,
    U16,
    U32,
    U64,
    S8,
    S16,
    S32,
    S64,
    F16,
    F16x2,
    Bf16,
    Bf16x2,
    Tf32,
    F32,
    F64,
    E4m3x2,
    E5m2x2,
    U16x2,
    S16x2,
}

const NAMES: [(&str, Type); 25] = [
    ("pred", Type::Pred),
    ("b8", Type::B8),
    ("b16", Type::B16),
    ("b32", Type::B32),
    ("b64", Type::B64),
    ("b128", Type::B128),
    ("u8", Type::U8),
    ("u16", Type::U16),
    ("u32", Type::U32),
    ("u64", Type::U64),
    ("s8", Type::S8),
    ("s16", Type::S16),
    ("s32", Type::S32),
    ("s64", Type::S64),
    ("f16", Type::F16),
    ("f16x2", Type::F16x2),
    ("bf16", Type::Bf16),
    ("bf16x2", Type::Bf16x2),
    ("tf32", Type::Tf32),
    ("f32", Type::F32),
    ("f64", Type::F64),
    ("e4m3x2", Type::E4m3x2),
    ("e5m2x2", Type::E5m2x2),
    ("u16x2", Type::U16x2),
    ("s16x2", Type::S16x2),
];

impl Type {
    /// The type of that name, without its dot.
    pub fn named(name: &str) -> Option<Type> {
        NAMES.iter().find(|(known, _)| *known == name).map(|(_, t)| *t)
    }

    /// Its name, without the dot.
    pub fn name(self) -> &'static str {
        NAMES.iter().find(|(_, t)| *t == self).map_or("?", |(name, _)| name)
    }

    /// Bytes in memory.
    pub fn bytes(self) -> u32 {
        match self {
            Type::Pred | Type::B8 | Type::U8 | Type::S8 => 1,
            Type::B16 | Type::U16 | Type::S16 | Type::F16 | Type::Bf16 | Type::E4m3x2 | Type::E5m2x2 => 2,
            Type::B64 | Type::U64 | Type::S64 | Type::F64 => 8,
            Type::B128 => 16,
            _ => 4,
        }
    }

    /// Whether a register of it has 64 bits.
    pub fn is_wide(self) -> bool {
        self.bytes() == 8
    }

    /// Whether it is a signed integer.
    pub fn is_signed(self) -> bool {
        matches!(self, Type::S8 | Type::S16 | Type::S32 | Type::S64)
    }

    /// Whether it is a floating-point type, packed ones included.
    pub fn is_float(self) -> bool {
        matches!(
            self,
            Type::F16
                | Type::F16x2
                | Type::Bf16
                | Type::Bf16x2
                | Type::Tf32
                | Type::F32
                | Type::F64
                | Type::E4m3x2
                | Type::E5m2x2
        )
    }

    /// As a type of numbers that are converted; of packed types, that of an element.
    pub fn number(self) -> Option<NumberType> {
        Some(match self {
            Type::U8 | Type::B8 => NumberType::U8,
            Type::S8 => NumberType::S8,
            Type::U16 | Type::B16 | Type::U16x2 => NumberType::U16,
            Type::S16 | Type::S16x2 => NumberType::S16,
            Type::U32 | Type::B32 => NumberType::U32,
            Type::S32 => NumberType::S32,
            Type::U64 | Type::B64 => NumberType::U64,
            Type::S64 => NumberType::S64,
            Type::F16 | Type::F16x2 => NumberType::F16,
            Type::Bf16 | Type::Bf16x2 => NumberType::Bf16,
            Type::F32 => NumberType::F32,
            Type::F64 => NumberType::F64,
            Type::Tf32 => NumberType::Tf32,
            Type::E4m3x2 => NumberType::E4m3,
            Type::E5m2x2 => NumberType::E5m2,
            Type::Pred | Type::B128 => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_both_ways() {
        for (name, t) in NAMES {
            assert_eq!(Type::named(name), Some(t));
            assert_eq!(t.name(), name);
        }
        assert_eq!(Type::named("f8"), None);
    }
}
