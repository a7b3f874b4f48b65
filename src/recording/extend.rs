//! A recording continued beyond its ends, so that filters have something to run in on.

use super::{Block, Recording};
use crate::error::{Error, Kind, Result};

/// A recording with `margin` more timesteps before its first and after its last one: the signal turned about its end
/// point (odd extension, `2 x[0] - x[k]` at timestep `-k`), which keeps value and slope continuous.
pub(super) struct Extended {
    pub inner: Recording,
    pub margin: usize,
}

impl Extended {
    /// Fails where the recording is too short to be mirrored; `what` names who needs the margin.
    pub fn new(inner: Recording, margin: usize, what: &str) -> Result<Self> {
        if margin >= inner.info.n_timestep {
            let (seconds, needed) = (inner.info.seconds(), margin as f64 / inner.info.sfreq);
            let what = format!("the recording lasts {seconds:.2} s, {what} needs more than {needed:.2} s");
            let hint = "Take a longer recording, or a pass band with a higher lower edge (--band), or 0 for none";
            return Err(Error::new(Kind::TooShort, what).at(&inner.info.source).hint(hint));
        }
        Ok(Self { inner, margin })
    }

    /// Length with both margins.
    pub fn n_timestep(&self) -> usize {
        self.inner.info.n_timestep + 2 * self.margin
    }

    /// `n` timesteps from `start` on, counted from the beginning of the first margin.
    pub fn read(&mut self, start: usize, n: usize) -> Result<Block> {
        let (margin, inside) = (self.margin, self.inner.info.n_timestep);
        let end = start + n;
        if start >= margin && end <= margin + inside {
            return self.inner.read(start - margin, n);
        }
        let mut block = Block::zeros(self.inner.info.n_channel(), n);
        // Timestep `t` before the margin's end mirrors inner timestep `margin - t`.
        let before = start..end.min(margin);
        if !before.is_empty() {
            let mirrored = self.inner.read(0, margin - before.start + 1)?;
            for (channel, row) in block.data.chunks_exact_mut(n).enumerate() {
                let source = mirrored.channel(channel);
                for t in before.clone() {
                    row[t - start] = 2.0 * source[0] - source[margin - t];
                }
            }
        }
        let middle = start.max(margin)..end.min(margin + inside);
        if !middle.is_empty() {
            let source = self.inner.read(middle.start - margin, middle.len())?;
            for (channel, row) in block.data.chunks_exact_mut(n).enumerate() {
                row[middle.start - start..middle.end - start].copy_from_slice(source.channel(channel));
            }
        }
        // Timestep `last + k` mirrors `last - k`.
        let last = margin + inside - 1;
        let after = start.max(last + 1)..end;
        if !after.is_empty() {
            let furthest = after.end - 1 - last;
            let mirrored = self.inner.read(inside - 1 - furthest, furthest + 1)?;
            for (channel, row) in block.data.chunks_exact_mut(n).enumerate() {
                let source = mirrored.channel(channel);
                for t in after.clone() {
                    row[t - start] = 2.0 * source[furthest] - source[furthest - (t - last)];
                }
            }
        }
        Ok(block)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recording::testing::in_memory;

    #[test]
    fn any_stretch_of_the_extension_is_the_mirrored_signal() {
        let x: Vec<f64> = (0..9).map(|t| (t * t) as f64 + 1.0).collect();
        let margin = 5;
        let mut whole: Vec<f64> = (1..=margin).rev().map(|k| 2.0 * x[0] - x[k]).collect();
        whole.extend(&x);
        whole.extend((1..=margin).map(|k| 2.0 * x[8] - x[8 - k]));
        let mut extended = Extended::new(in_memory(&[&x], 10.0), margin, "the test").unwrap();
        assert_eq!(extended.n_timestep(), whole.len());
        for start in 0..whole.len() {
            for n in 1..=whole.len() - start {
                assert_eq!(extended.read(start, n).unwrap().data, whole[start..start + n], "{n} at {start}");
            }
        }
        assert_eq!(Extended::new(in_memory(&[&x], 10.0), 9, "the test").err().unwrap().kind(), Kind::TooShort);
    }
}
