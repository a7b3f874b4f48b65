//! How sure a distance is: stretches are cut into blocks, and the distance is computed again of blocks drawn with replacement
//! (Künsch 1989; Efron 1979), on both sides.
//!
//! Of a block only what distances need is kept. What a draw has of a channel is the mean over its blocks: of spectra and of
//! counts exactly what the blocks together have, of correlations nearly, which is why the draws are moved so that
//! their mean is the distance.

use super::amplitude::Amplitude;
use super::envelope::Envelope;
use super::measure::{Measured, Scale, Source};
use super::section::{Distance, Interval, Spread};
use crate::error::{Kind, Result};
use crate::random::{Purpose, keyed};
use crate::statistics::quantile::quantile;
use rand::RngExt;
use rayon::prelude::*;
use std::ops::Range;

/// Draws.
pub const N_DRAW: usize = 200;
/// Blocks of a stretch at most: more would be shorter, and cost more.
pub const BLOCKS_MAX: usize = 24;
/// Blocks of a stretch at least: draws of fewer say little.
pub const BLOCKS_MIN: usize = 6;
/// Length of a block at least, s: some times what a signal remembers, and room for segments of a spectrum.
pub const BLOCK_SECONDS: f64 = 10.0;

/// The blocks of a stretch, in timesteps from its beginning; none where it is too short.
pub fn blocks(n_timestep: usize, sfreq: f64) -> Option<Vec<Range<usize>>> {
    let n = ((n_timestep as f64 / (BLOCK_SECONDS * sfreq)) as usize).min(BLOCKS_MAX);
    let edge = |i: usize| i * n_timestep / n;
    (n >= BLOCKS_MIN).then(|| (0..n).map(|i| edge(i)..edge(i + 1)).collect())
}

/// Which blocks a draw has: of the reference (`recording` 0) the same for all that is held against it.
pub fn drawn(n_block: usize, seed: u64, recording: usize, draw: usize) -> Vec<usize> {
    // Beyond the draws of trials.
    let index = (1 << 40) + ((recording as u64) << 20) + draw as u64;
    let mut generator = keyed(seed, Purpose::Bootstrap, index);
    (0..n_block).map(|_| generator.random_range(0..n_block)).collect()
}

/// The interval of a distance that holds 95 % of its draws, after they have been moved so that their mean is the value: what is
/// drawn again is noisier than what it is drawn from, and so farther away. None where a draw is no number.
pub fn centred(value: f64, mut draws: Vec<f64>) -> Option<Interval> {
    let bias = draws.iter().sum::<f64>() / draws.len() as f64 - value;
    draws.iter_mut().for_each(|x| *x -= bias);
    draws.sort_unstable_by(f64::total_cmp);
    // No distance is less than none.
    let interval = Interval { low: quantile(&draws, 0.025).max(0.0), high: quantile(&draws, 0.975) };
    (interval.low.is_finite() && interval.high.is_finite()).then_some(interval)
}

/// What distances need of one block, `[channel]` each.
struct Block {
    spectra: Vec<Vec<f64>>,
    autocorrelations: Vec<Vec<f64>>,
    correlations: Vec<Vec<f64>>,
    /// `[band][channel]`.
    envelopes: Vec<Vec<Vec<f64>>>,
    /// Counts in wide bins.
    amplitudes: Vec<Vec<u64>>,
}

/// A stretch of a recording in blocks.
pub struct Blocks {
    blocks: Vec<Block>,
    frequencies: Vec<f64>,
}

impl Blocks {
    /// The blocks of a stretch that begins at `start`; none where it is too short, or gaps leave a block without a spectrum.
    pub fn of(
        source: &mut Source,
        scale: &Scale,
        stretch: Range<usize>,
        progress: &mut dyn FnMut(usize) -> Result<()>,
    ) -> Result<Option<Self>> {
        let Some(ranges) = blocks(stretch.len(), source.info().sfreq) else { return Ok(None) };
        let moved = ranges.into_iter().map(|range| stretch.start + range.start..stretch.start + range.end);
        let measured = match source.measure_in_turn(scale, &moved.collect::<Vec<_>>(), Block::new, progress) {
            Err(e) if e.kind() == Kind::TooShort => return Ok(None),
            measured => measured?,
        };
        let (blocks, mut frequencies): (Vec<Block>, Vec<Vec<f64>>) = measured.into_iter().unzip();
        Ok(Some(Self { blocks, frequencies: frequencies.swap_remove(0) }))
    }

    /// The stretch with these blocks instead of its own.
    fn combined(&self, chosen: &[usize]) -> Measured {
        let blocks = || chosen.iter().map(|&block| &self.blocks[block]);
        let n = chosen.len() as f64;
        let mean = |rows: Vec<&Vec<f64>>| -> Vec<f64> {
            let mut sum = vec![0.0; rows[0].len()];
            for row in rows {
                sum.iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
            }
            sum.iter_mut().for_each(|x| *x /= n);
            sum
        };
        let channels = 0..self.blocks[0].spectra.len();
        let each = |of: fn(&Block) -> &Vec<Vec<f64>>| -> Vec<Vec<f64>> {
            channels.clone().map(|c| mean(blocks().map(|block| &of(block)[c]).collect())).collect()
        };
        let envelope = |band: usize| {
            let of = |c| mean(blocks().map(|block| &block.envelopes[band][c]).collect());
            channels.clone().map(|c| Envelope { variation: f64::NAN, autocorrelation: of(c) }).collect()
        };
        let amplitude = |c: usize| Amplitude::of_wide(blocks().map(|block| block.amplitudes[c].as_slice()));
        Measured {
            label: String::new(),
            origin: String::new(),
            n_timestep: 0,
            frequencies: self.frequencies.clone(),
            spectra: each(|block| &block.spectra),
            amplitudes: channels.clone().map(amplitude).collect(),
            autocorrelations: each(|block| &block.autocorrelations),
            correlations: each(|block| &block.correlations),
            envelopes: (0..self.blocks[0].envelopes.len()).map(envelope).collect(),
            windows: Vec::new(),
        }
    }

    /// For each distance its draws, the median over channels each, between the reference and `other`, the `recording`th of
    /// those that are held against it.
    pub fn draws(&self, other: &Self, distances: &[Distance], seed: u64, recording: usize) -> Vec<Vec<f64>> {
        let n_channel = self.blocks[0].spectra.len();
        let medians = |draw: usize| -> Vec<f64> {
            let a = self.combined(&drawn(self.blocks.len(), seed, 0, draw));
            let b = other.combined(&drawn(other.blocks.len(), seed, recording, draw));
            let median = |d: &Distance| Spread::of((0..n_channel).map(|i| (d.between)(&a, &b, i)).collect()).median;
            distances.iter().map(median).collect()
        };
        let draws: Vec<Vec<f64>> = (0..N_DRAW).into_par_iter().map(medians).collect();
        (0..distances.len()).map(|d| draws.iter().map(|draw| draw[d]).collect()).collect()
    }
}

impl Block {
    fn new(measured: Measured) -> (Self, Vec<f64>) {
        let envelopes =
            measured.envelopes.into_iter().map(|band| band.into_iter().map(|e| e.autocorrelation).collect());
        let block = Self {
            envelopes: envelopes.collect(),
            amplitudes: measured.amplitudes.iter().map(Amplitude::wide).collect(),
            spectra: measured.spectra,
            autocorrelations: measured.autocorrelations,
            correlations: measured.correlations,
        };
        (block, measured.frequencies)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::{amplitude, autocorrelation, covariance, spectrum};
    use crate::recording::testing::in_memory;

    const SFREQ: f64 = 50.0;

    /// Two channels of noise with a memory of some tenths of a second.
    fn source(seed: u64, seconds: usize) -> Source {
        let n = seconds * SFREQ as usize;
        let row = |channel: u64| -> Vec<f64> {
            let (mut x, mut y) = (0.0, 0.0);
            let mut generator = keyed(seed, Purpose::Control, channel);
            let mut next = || {
                let drawn: f64 = (0..3).map(|_| generator.random::<f64>() - 0.5).sum();
                (x, y) = (1.6 * x - 0.81 * y + drawn, x);
                x
            };
            (0..n).map(|_| next()).collect()
        };
        let recording = in_memory(&[&row(0), &row(1)], SFREQ);
        Source { label: "test".into(), pieces: vec![recording] }
    }

    fn distances(real: &Measured) -> Vec<Distance> {
        let mut all = spectrum::distances(real);
        all.truncate(1);
        all.extend([amplitude::distances().swap_remove(0), autocorrelation::distances().swap_remove(0)]);
        all.extend(covariance::distances());
        all
    }

    /// How far distances between recordings of one process scatter, and how far the draws say that they do.
    #[test]
    fn draws_scatter_as_recordings_do() {
        let scale = source(0, 100).scale(|_| Ok(())).unwrap();
        let mut progress = |_: usize| Ok(());
        let (n_pair, seconds) = (24, 120);
        let (mut values, mut spreads): (Vec<Vec<f64>>, Vec<Vec<f64>>) = (Vec::new(), Vec::new());
        for pair in 0..n_pair {
            let [mut a, mut b] = [0, 1].map(|which| source(1 + 2 * pair + which, seconds));
            let [x, y] = [&mut a, &mut b].map(|source| source.measure(&scale, |_| Ok(())).unwrap());
            let distances = distances(&x);
            let median = |d: &Distance| Spread::of((0..2).map(|i| (d.between)(&x, &y, i)).collect()).median;
            values.push(distances.iter().map(median).collect());
            let all = 0..seconds * SFREQ as usize;
            let mut of = |source: &mut Source| Blocks::of(source, &scale, all.clone(), &mut progress).unwrap().unwrap();
            let (blocks, others) = (of(&mut a), of(&mut b));
            let draws = blocks.draws(&others, &distances, pair, 1);
            spreads.push(draws.iter().map(|draws| deviation(draws)).collect());
        }
        for d in 0..values[0].len() {
            let real = deviation(&values.iter().map(|row| row[d]).collect::<Vec<_>>());
            let said = spreads.iter().map(|row| row[d]).sum::<f64>() / n_pair as f64;
            // A deviation of 24 is sure to a seventh or so; draws of a distance that is near its least scatter more.
            assert!((0.55..2.2).contains(&(said / real)), "distance {d}: {said} of {real}");
        }
    }

    fn deviation(values: &[f64]) -> f64 {
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        (values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (n - 1.0)).sqrt()
    }

    #[test]
    fn blocks_in_their_order_are_the_stretch() {
        let mut real = source(5, 121);
        let scale = real.scale(|_| Ok(())).unwrap();
        let whole = real.measure(&scale, |_| Ok(())).unwrap();
        let blocks = Blocks::of(&mut real, &scale, 0..6050, &mut |_| Ok(())).unwrap().unwrap();
        let same = blocks.combined(&(0..blocks.blocks.len()).collect::<Vec<_>>());
        for channel in 0..2 {
            // Counts are exact, in wide bins: less than one of them apart.
            assert!(same.amplitudes[channel].wasserstein(&whole.amplitudes[channel]) < 0.06);
            // Segments that reach across two blocks are missing.
            assert!(spectrum::log_distance(&same.spectra[channel], &whole.spectra[channel]) < 0.06);
            let [a, b] = [&same, &whole].map(|m| &m.autocorrelations[channel]);
            // Of pairs as far apart as lags are long, those across two blocks are missing: an eighth in the mean, of some 600
            // that are independent.
            assert!(autocorrelation::distance(a, b) < 0.03);
        }
        assert!((same.correlations[0][1] - whole.correlations[0][1]).abs() < 0.02);
        assert_eq!(drawn(12, 3, 0, 7), drawn(12, 3, 0, 7));
        assert_ne!(drawn(12, 3, 0, 7), drawn(12, 3, 1, 7));
        assert!(blocks_of(2999).is_none() && blocks_of(3000).is_some());
    }

    fn blocks_of(n: usize) -> Option<Vec<Range<usize>>> {
        super::blocks(n, SFREQ)
    }

    #[test]
    fn intervals_are_moved_to_the_value() {
        let draws = || (0..=200).map(f64::from).collect::<Vec<f64>>();
        assert_eq!(centred(105.0, draws()), Some(Interval { low: 10.0, high: 200.0 }));
        assert_eq!(centred(5.0, draws()), Some(Interval { low: 0.0, high: 100.0 }));
        assert_eq!(centred(5.0, vec![1.0, f64::NAN]), None);
    }
}
