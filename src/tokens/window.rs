//! Windows: which stretch of which shard is trained on at which step, as a function of the seed and the step alone.

use super::dataset::Dataset;
use super::shard::Split;
use crate::error::{Error, Kind, Result};
use crate::random::{Purpose, keyed};
use rand::Rng;
use std::ops::Range;

/// One window: all channels of a shard, `n_ctx + 1` timesteps from `start` on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Index into [`Dataset::shards`].
    pub shard: usize,
    /// First timestep.
    pub start: usize,
}

/// A usable stretch of a shard that is long enough for a window.
#[derive(Debug, Clone, Copy)]
struct Stretch {
    shard: usize,
    /// Its first timestep.
    start: usize,
    /// The number of windows before and including its own.
    total: usize,
}

/// All windows of a split, and their order in each pass.
#[derive(Debug, Clone)]
pub struct Windows {
    stretches: Vec<Stretch>,
    stride: usize,
}

impl Windows {
    /// The windows of `split`, `n_ctx + 1` long, a stride of `n_ctx / 2` apart (every timestep is a target about once);
    /// none touches a stretch that is excluded. An error if no part has a usable stretch that is long enough.
    pub fn new(dataset: &Dataset, split: Split, n_ctx: usize) -> Result<Self> {
        let stretches = |shard: usize| dataset.shards[shard].kept().into_iter().map(move |kept| (shard, kept));
        let kept: Vec<_> = dataset.split(split).into_iter().flat_map(stretches).collect();
        Self::of_stretches(&kept, n_ctx).ok_or_else(|| {
            let longest = kept.iter().map(|(_, kept)| kept.len()).max().unwrap_or(0);
            let name = split.name();
            let n_time = n_ctx + 1;
            let what =
                format!("no usable stretch of a {name} part is as long as one window: {longest} timesteps of {n_time}");
            let hint = "Choose a shorter context (--context; of an autoregression --order), or add longer recordings";
            Error::new(Kind::TooShort, what).hint(hint)
        })
    }

    /// As [`Self::new`], for usable stretches of shards.
    fn of_stretches(kept: &[(usize, Range<usize>)], n_ctx: usize) -> Option<Self> {
        let stride = (n_ctx / 2).max(1);
        let mut total = 0;
        let mut stretches = Vec::new();
        for (shard, kept) in kept {
            if kept.len() > n_ctx {
                total += (kept.len() - n_ctx - 1) / stride + 1;
                stretches.push(Stretch { shard: *shard, start: kept.start, total });
            }
        }
        (total > 0).then_some(Self { stretches, stride })
    }

    /// Number of windows: one pass.
    #[expect(clippy::len_without_is_empty, reason = "never empty")]
    pub fn len(&self) -> usize {
        self.stretches.last().map_or(0, |stretch| stretch.total)
    }

    /// The `index`-th window in file order: for evaluation.
    pub fn in_order(&self, index: usize) -> Window {
        let at = self.stretches.partition_point(|stretch| stretch.total <= index);
        let before = if at == 0 { 0 } else { self.stretches[at - 1].total };
        let Stretch { shard, start, .. } = self.stretches[at];
        Window { shard, start: start + (index - before) * self.stride }
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
    fn windows_never_leave_their_stretch_and_reach_its_end() {
        // 17 timesteps hold one window of 16 + 1; 16 none; 24 only one; 25 two.
        let kept = [(3, 0..17), (5, 0..16), (7, 0..24), (9, 0..25)];
        let windows = Windows::of_stretches(&kept, 16).unwrap();
        let all: Vec<_> = (0..windows.len()).map(|i| windows.in_order(i)).collect();
        let expected = [(3, 0), (7, 0), (9, 0), (9, 8)].map(|(shard, start)| Window { shard, start });
        assert_eq!(all, expected);
        let drawn: HashSet<_> = (4..8).map(|i| windows.drawn(1, i)).map(|w| (w.shard, w.start)).collect();
        assert_eq!(drawn.len(), 4);
    }

    #[test]
    fn windows_avoid_what_is_excluded() {
        let folder = tempfile::tempdir().unwrap();
        let excluded = vec![0..3, 40..41, 57..80];
        write_shard(folder.path(), "a", Split::Train, 1, 120, |m| m.excluded = excluded.clone());
        let windows = Windows::new(&Dataset::open(folder.path()).unwrap(), Split::Train, 16).unwrap();
        let starts: Vec<_> = (0..windows.len()).map(|i| windows.in_order(i).start).collect();
        // 37 timesteps from 3 on, 16 from 41 on (one too few), 40 from 80 on.
        assert_eq!(starts, [3, 11, 19, 80, 88, 96]);
        let touched = |start: usize| excluded.iter().any(|e| e.start < start + 17 && start < e.end);
        assert!(!starts.into_iter().any(touched));
        let error = Windows::new(&Dataset::open(folder.path()).unwrap(), Split::Train, 64).unwrap_err();
        assert!(error.to_string().contains("40 timesteps of 65"), "{error}");
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
