//! Sets of virtual registers, for the analysis of flow.

/// A set of virtual registers.
#[derive(Clone, PartialEq, Eq)]
pub struct Set(Vec<u64>);

impl Set {
    /// None of `size` registers.
    pub fn empty(size: usize) -> Self {
        Set(vec![0; size.div_ceil(64)])
    }
    /// All of them, and some more.
    pub fn full(size: usize) -> Self {
        Set(vec![u64::MAX; size.div_ceil(64)])
    }
    /// Adds one.
    pub fn insert(&mut self, id: usize) {
        self.0[id / 64] |= 1 << (id % 64);
    }
    /// Takes one away.
    pub fn remove(&mut self, id: usize) {
        self.0[id / 64] &= !(1 << (id % 64));
    }
    /// Whether one is in it.
    pub fn contains(&self, id: usize) -> bool {
        self.0[id / 64] >> (id % 64) & 1 != 0
    }
    /// Adds those of another.
    pub fn union(&mut self, other: &Set) {
        self.0.iter_mut().zip(&other.0).for_each(|(a, b)| *a |= b);
    }
    /// Keeps those that another has too.
    pub fn intersect(&mut self, other: &Set) {
        self.0.iter_mut().zip(&other.0).for_each(|(a, b)| *a &= b);
    }
    /// Those in it, in order.
    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.0.iter().enumerate().flat_map(|(i, word)| {
            let mut rest = *word;
            std::iter::from_fn(move || {
                let bit = rest.trailing_zeros() as usize;
                (rest != 0).then(|| {
                    rest &= rest - 1;
                    i * 64 + bit
                })
            })
        })
    }
}
