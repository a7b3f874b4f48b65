//! Windows: which stretch of which shard is trained on at which step, as a function of the seed and the step alone.

use super::dataset::Dataset;
use super::shard::Split;
use crate::error::{Error, Kind, Result};
use crate::random::{Purpose, keyed};
use rand::Rng;

/// One window: all channels of a shard, `n_ctx + 1` timesteps from `start` on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Index into [`Dataset::shards`].
    pub shard: usize,
    /// First timestep.
    pub start: usize,
}

/// All windows of a split, and their order in each pass.
#[derive(Debug, Clone)]
pub struct Windows {
    /// Shards that are long enough, with the number of windows before and including their own.
    shards: Vec<(usize, usize)>,
    stride: usize,
}

impl Windows {
    /// The windows of `split`, `n_ctx + 1` long, a stride of `n_ctx / 2` apart (every timestep is a target about once).
    /// An error if no shard is long enough.
    pub fn new(dataset: &Dataset, split: Split, n_ctx: usize) -> Result<Self> {
        let shards: Vec<_> = dataset.split(split).into_iter().map(|i| (i, dataset.shards[i].n_timestep())).collect();
        Self::of_lengths(&shards, n_ctx).ok_or_else(|| {
            let longest = shards.iter().map(|shard| shard.1).max().unwrap_or(0);
            let name = split.name();
            let what = format!("no {name} part is as long as one window: {longest} timesteps of {}", n_ctx + 1);
            Error::new(Kind::TooShort, what).hint("Choose a shorter context (--context) or add longer recordings")
        })
    }

    /// As [`Self::new`], for shards given as (index, timesteps).
    fn of_lengths(shards: &[(usize, usize)], n_ctx: usize) -> Option<Self> {
        let stride = (n_ctx / 2).max(1);
        let mut total = 0;
        let mut long_enough = Vec::new();
        for &(shard, n_timestep) in shards {
            if n_timestep > n_ctx {
                total += (n_timestep - n_ctx - 1) / stride + 1;
                long_enough.push((shard, total));
            }
        }
        (total > 0).then_some(Self { shards: long_enough, stride })
    }

    /// Number of windows: one pass.
    #[expect(clippy::len_without_is_empty, reason = "never empty")]
    pub fn len(&self) -> usize {
        self.shards.last().map_or(0, |&(_, total)| total)
    }

    /// The `index`-th window in file order: for evaluation.
    pub fn in_order(&self, index: usize) -> Window {
        let at = self.shards.partition_point(|&(_, total)| total <= index);
        let before = if at == 0 { 0 } else { self.shards[at - 1].1 };
        Window { shard: self.shards[at].0, start: (index - before) * self.stride }
    }

    /// The window that is drawn `index`-th (counted over all passes): pass `index / len`, a keyed permutation within.
    pub fn drawn(&self, seed: u64, index: u64) -> Window {
        let len = self.len() as u64;
        self.in_order(permute(len, index % len, seed, index / len) as usize)
    }
}

/// The image of `x` under the permutation of `0 .. len` that belongs to the seed and the pass: a Feistel network over
/// the next even number of bits, walked along its cycle until it lands inside.
fn permute(len: u64, mut x: u64, seed: u64, pass: u64) -> u64 {
    const N_ROUND: usize = 8;
    let mut generator = keyed(seed, Purpose::WindowOrder, pass);
    let keys: [u64; N_ROUND] = std::array::from_fn(|_| generator.next_u64());
    let n_bit = u64::BITS - (len - 1).leading_zeros();
    let half = n_bit.div_ceil(2).max(1);
    let mask = (1u64 << half) - 1;
    loop {
        let (mut left, mut right) = (x >> half, x & mask);
        for key in keys {
            (left, right) = (right, left ^ (mix(right ^ key) & mask));
        }
        x = left << half | right;
        if x < len {
            return x;
        }
    }
}

/// Spreads every bit of `x` over all 64 (multiply and xor-shift, twice).
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    x = (x ^ (x >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    x ^ (x >> 32)
}

#[cfg(test)]
mod tests {
    use super::super::shard::tests::write_shard;
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_pass_draws_every_window_once() {
        for len in (1..70).chain([255, 256, 257, 1000]) {
            for pass in [0, 1, 7] {
                let seen: HashSet<u64> = (0..len).map(|x| permute(len, x, 3, pass)).collect();
                assert_eq!(seen.len() as u64, len, "{len} windows, pass {pass}");
                assert!(seen.iter().all(|&x| x < len));
            }
        }
    }

    #[test]
    fn seeds_and_passes_draw_differently() {
        let order = |seed, pass| (0..1000).map(|x| permute(1000, x, seed, pass)).collect::<Vec<_>>();
        let base = order(1, 0);
        assert_eq!(base, order(1, 0));
        for other in [order(1, 1), order(2, 0)] {
            let same = base.iter().zip(&other).filter(|(a, b)| a == b).count();
            assert!(same < 15, "{same} of 1000 windows are in the same place");
        }
    }

    /// Over many seeds, each place is as likely to hold each window: chi-square with 15 degrees of freedom, whose mean
    /// is 15 and standard deviation 5.5, stays within 6 of these.
    #[test]
    fn the_order_is_uniform() {
        for place in [0, 1, 8, 15] {
            let mut counts = [0f64; 16];
            for seed in 0..16_000 {
                counts[permute(16, place, seed, 0) as usize] += 1.0;
            }
            let chi_square: f64 = counts.iter().map(|n| (n - 1000.0).powi(2) / 1000.0).sum();
            assert!(chi_square < 48.0, "place {place}: {chi_square}");
        }
    }

    #[test]
    fn windows_never_leave_their_shard_and_reach_its_end() {
        // 17 timesteps hold no window of 16 + 1 but one; 16 none; 24 only one; 25 two.
        let shards = [(3, 17), (5, 16), (7, 24), (9, 25)];
        let windows = Windows::of_lengths(&shards, 16).unwrap();
        let all: Vec<_> = (0..windows.len()).map(|i| windows.in_order(i)).collect();
        let expected = [(3, 0), (7, 0), (9, 0), (9, 8)].map(|(shard, start)| Window { shard, start });
        assert_eq!(all, expected);
        let drawn: HashSet<_> = (4..8).map(|i| windows.drawn(1, i)).map(|w| (w.shard, w.start)).collect();
        assert_eq!(drawn.len(), 4);
    }

    #[test]
    fn too_short_is_said() {
        let folder = tempfile::tempdir().unwrap();
        write_shard(folder.path(), "a", Split::Train, 1, 256, |_| ());
        let dataset = Dataset::open(folder.path()).unwrap();
        let error = Windows::new(&dataset, Split::Train, 256).unwrap_err();
        assert_eq!(error.kind(), Kind::TooShort);
        assert!(error.to_string().contains("256 timesteps of 257"), "{error}");
        assert_eq!(Windows::new(&dataset, Split::Test, 8).unwrap_err().kind(), Kind::TooShort);
        assert_eq!(Windows::new(&dataset, Split::Train, 254).unwrap().len(), 1);
    }
}
