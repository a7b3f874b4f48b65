//! What the machine code of a kernel is made of: instructions by kind, as `nvdisasm` prints them. Static counts, each
//! instruction once, however often a loop repeats it.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Instructions of a kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mix {
    /// All of them but `NOP`.
    pub all: u32,
    /// Tensor cores (`HMMA`, `IMMA`, `DMMA`).
    pub tensor: u32,
    /// Special functions (`MUFU`).
    pub special: u32,
    /// Arithmetic in f16, f32 and f64.
    pub float: u32,
    /// Conversions, packing to bf16 among them.
    pub convert: u32,
    /// Shared memory, `ldmatrix` and `movmatrix` included.
    pub shared: u32,
    /// Global memory, `cp.async` included.
    pub global: u32,
    /// Local memory: spilled registers, and arrays that are no registers.
    pub local: u32,
}

impl Mix {
    fn add(&mut self, opcode: &str) {
        let name = opcode.split('.').next().unwrap_or(opcode);
        let kind = match name {
            "HMMA" | "IMMA" | "DMMA" | "QMMA" | "OMMA" => Some(&mut self.tensor),
            "MUFU" => Some(&mut self.special),
            "F2F" | "F2FP" | "F2I" | "F2IP" | "I2F" | "I2FP" | "I2I" | "FRND" => Some(&mut self.convert),
            "LDS" | "STS" | "LDSM" | "STSM" | "ATOMS" | "MOVM" => Some(&mut self.shared),
            "LDG" | "STG" | "LDGSTS" | "LD" | "ST" | "ATOM" | "ATOMG" | "RED" | "REDG" => Some(&mut self.global),
            "LDL" | "STL" => Some(&mut self.local),
            _ => None,
        };
        self.all += 1;
        match kind {
            Some(kind) => *kind += 1,
            // FADD, FFMA, FMUL, FMNMX, FSEL, FSETP, HADD2, HFMA2, DADD and their kin.
            None if ["F", "H", "D"].iter().any(|first| name.starts_with(first)) && !name.starts_with("DEPBAR") => {
                self.float += 1;
            }
            None => {}
        }
    }
}

/// The mix of each kernel in what `nvdisasm -c` prints.
pub fn mixes(text: &str) -> BTreeMap<String, Mix> {
    let mut mixes = BTreeMap::<String, Mix>::new();
    let mut current = None;
    for line in text.lines() {
        let line = line.trim();
        if let Some(kernel) = line.strip_prefix(".text.").and_then(|rest| rest.strip_suffix(':')) {
            current = Some(kernel.to_owned());
        }
        let Some((_, code)) = line.strip_prefix("/*").and_then(|rest| rest.split_once("*/")) else { continue };
        let mut words = code.split_whitespace().skip_while(|word| word.starts_with('@') || *word == "{");
        if let (Some(opcode), Some(kernel)) = (words.next(), &current) {
            let opcode = opcode.trim_end_matches(';');
            // They fill the last cache line.
            if opcode != "NOP" {
                mixes.entry(kernel.clone()).or_default().add(opcode);
            }
        }
    }
    mixes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_are_told_apart() {
        let text = "
	.section	.text.first,\"ax\",@progbits
first:
.text.first:
        /*0000*/                   IMAD.MOV.U32 R1, RZ, RZ, c[0x0][0x28] ;
        /*0010*/                   LDSM.16.M88.4 R4, [R2] ;
.L_x_1:
        /*0020*/                   HMMA.16816.F32.BF16 R8, R4, R6, R8 ;
        /*0030*/              @!P0 MUFU.EX2 R3, R3 ;
        /*0040*/                   F2FP.BF16.PACK_AB R3, R3, R2 ;
        /*0050*/               @P1 STG.E [R2.64], R3 ;
        /*0060*/                   FSETP.GT.AND P0, PT, R3, R2, PT ;
        /*0070*/                   STL [R1], R2 ;
        /*0080*/                   DEPBAR.LE SB0, 0x0 ;
        /*0090*/                   EXIT ;
        /*00a0*/                   BRA `(.L_x_9);
        /*00b0*/                   NOP;
.text.second:
        /*0000*/                   DFMA R2, R2, R4, R6 ;
";
        let mixes = mixes(text);
        let first = Mix { all: 11, tensor: 1, special: 1, float: 1, convert: 1, shared: 1, global: 1, local: 1 };
        assert_eq!(mixes["first"], first);
        assert_eq!(mixes["second"], Mix { all: 1, float: 1, ..Mix::default() });
    }
}
