//! Numbers for tests.

/// Numbers that look random and are always the same.
pub struct Data(u64);

impl Data {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5851_f42d_4c95_7f2d)
    }

    pub fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.word() % n as u64) as usize
    }

    /// `len` numbers in [-size, size].
    pub fn floats(&mut self, len: usize, size: f32) -> Vec<f32> {
        (0..len).map(|_| ((self.word() >> 40) as f32 / 8_388_608.0 - 1.0) * size).collect()
    }

    /// A LayerNorm's weight and bias, near what they start with.
    pub fn norm(&mut self, e: usize) -> [Vec<f32>; 2] {
        [self.floats(e, 0.5).iter().map(|w| 1.0 + w).collect(), self.floats(e, 0.3)]
    }
}
