//! Tests of the arithmetic against references that share no code with it: wide integers, exhaustive walks, the manual's
//! tables, error-free transformations.

mod approximations;
mod conversions;
mod floats;
mod halves;
mod integers;

/// A stream of well-mixed numbers; every fourth is a special pattern of bits.
pub(crate) struct Source(u64);

impl Source {
    pub(crate) fn new(seed: u64) -> Self {
        Source(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let x = self.0;
        (x ^ x >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd) ^ x >> 29
    }

    /// 32 bits: often edges of integers and floats.
    pub(crate) fn word(&mut self) -> u32 {
        const EDGES: [u32; 16] = [
            0,
            1,
            2,
            31,
            32,
            0x7fff_ffff,
            0x8000_0000,
            0xffff_ffff,
            0x3f80_0000, // 1.0
            0x7f80_0000, // infinity
            0xff80_0000,
            0x7fc0_0001, // NaN
            0x007f_ffff, // largest subnormal
            0x0080_0000, // smallest normal
            0x7f7f_ffff, // largest finite
            0xbf80_0001,
        ];
        let x = self.next();
        match x >> 62 {
            0 => EDGES[(x & 15) as usize],
            // Floats of moderate size, so that sums and fused sums round and cancel.
            1 => (x as u32 & 0x80ff_ffff) | (0x3c + (x >> 40 & 7) as u32) << 24,
            _ => x as u32,
        }
    }

    /// 64 bits: often edges.
    pub(crate) fn long(&mut self) -> u64 {
        const EDGES: [u64; 10] = [
            0,
            1,
            !0,
            1 << 63,
            !(1 << 63),
            0x7ff0_0000_0000_0000,
            0xfff8_0000_0000_0000,
            0x000f_ffff_ffff_ffff,
            0x7fef_ffff_ffff_ffff,
            0x3ff0_0000_0000_0000,
        ];
        let x = self.next();
        match x >> 62 {
            0 => EDGES[(x % 10) as usize],
            1 => (self.next() & 0x800f_ffff_ffff_ffff) | (0x3f8 + (x >> 40 & 15)) << 52,
            _ => self.next(),
        }
    }
}
