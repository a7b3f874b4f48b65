//! Recordings made of the real one in which something is destroyed on purpose: what a measure says of them is what it says
//! where that is missing.

use super::measure::Source;
use crate::error::Result;
use crate::random::{Purpose, keyed};
use crate::recording::{Block, InMemory, Recording};
use rand::RngExt;
use rayon::prelude::*;
use realfft::RealFftPlanner;
use realfft::num_complex::Complex;
use std::f64::consts::TAU;
use std::ops::Range;

/// What is destroyed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Surrogate {
    /// Everything but the spectra and cross-spectra: the phases are random, the same shift for all channels at a frequency
    /// (Prichard and Theiler 1994). What remains is a stationary linear Gaussian process: the floor.
    Phases,
    /// What channels have to do with each other: each is turned in time by an amount of its own. What remains is all that a
    /// model of single channels can know: the ceiling that such a model can attain.
    Channels,
}

impl Surrogate {
    /// The name in figures and tables.
    pub fn label(self) -> &'static str {
        match self {
            Self::Phases => "real, phases randomised",
            Self::Channels => "real, channels shifted",
        }
    }
}

/// A surrogate of timesteps `range` of a recording, gaps closed; it is held in memory.
pub fn surrogate(
    real: &mut Source,
    range: Range<usize>,
    kind: Surrogate,
    seed: u64,
    progress: &mut dyn FnMut(usize) -> Result<()>,
) -> Result<Source> {
    let (n_channel, n) = (real.info().n_channel(), range.len());
    let mut all = Block::zeros(n_channel, n);
    real.blocks(|start, block, _| {
        let inside = |t: usize| t.saturating_sub(start).min(block.n_timestep);
        let (from, to) = (inside(range.start), inside(range.end));
        for channel in (0..n_channel).filter(|_| from < to) {
            let at = start + from - range.start;
            all.channel_mut(channel)[at..at + to - from].copy_from_slice(&block.channel(channel)[from..to]);
        }
        progress(block.n_timestep)
    })?;
    match kind {
        Surrogate::Phases => randomise_phases(&mut all, seed),
        Surrogate::Channels => shift(&mut all, seed),
    }
    let mut info = real.info().clone();
    (info.n_timestep, info.first_timestep, info.events) = (n, 0, Vec::new());
    info.source = kind.label().into();
    Ok(Source { label: kind.label().into(), pieces: vec![Recording::new(info, Box::new(InMemory(all)))?] })
}

fn randomise_phases(all: &mut Block, seed: u64) {
    let n = all.n_timestep;
    let mut planner = RealFftPlanner::<f64>::new();
    let (forward, inverse) = (planner.plan_fft_forward(n), planner.plan_fft_inverse(n));
    let mut generator = keyed(seed, Purpose::Surrogate, 0);
    let turns: Vec<Complex<f64>> =
        (0..n / 2 + 1).map(|_| Complex::from_polar(1.0 / n as f64, TAU * generator.random::<f64>())).collect();
    all.data.par_chunks_mut(n).for_each(|row| {
        let mut spectrum = forward.make_output_vec();
        forward.process(row, &mut spectrum).expect("planned lengths");
        // The mean, and the highest frequency of an even length, have no phase.
        let fixed = |bin: usize| bin == 0 || 2 * bin == n;
        for (bin, value) in spectrum.iter_mut().enumerate() {
            *value *= if fixed(bin) { Complex::from(1.0 / n as f64) } else { turns[bin] };
        }
        spectrum[0].im = 0.0;
        if n.is_multiple_of(2) {
            spectrum[n / 2].im = 0.0;
        }
        inverse.process(&mut spectrum, row).expect("planned lengths");
    });
}

fn shift(all: &mut Block, seed: u64) {
    let n = all.n_timestep;
    all.data.par_chunks_mut(n).enumerate().for_each(|(channel, row)| {
        let by = keyed(seed, Purpose::Surrogate, 1 + channel as u64).random_range(0..n);
        row.rotate_left(by);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block() -> Block {
        let value = |c: usize, t: usize| ((t * (c + 2)) as f64 * 0.31).sin() + ((t * t) as f64 * 0.17).cos() + 3.0;
        let data = (0..2).flat_map(|c| (0..301).map(move |t| value(c, t))).collect();
        Block { n_channel: 2, n_timestep: 301, data }
    }

    /// Circular cross-correlation at a lag.
    fn lagged(a: &[f64], b: &[f64], lag: usize) -> f64 {
        (0..a.len()).map(|t| a[t] * b[(t + lag) % a.len()]).sum::<f64>() / a.len() as f64
    }

    #[test]
    fn random_phases_keep_spectra_and_cross_spectra_and_nothing_else() {
        for n in [300, 301] {
            let cut = |b: Block| Block {
                n_channel: 2,
                n_timestep: n,
                data: [&b.channel(0)[..n], &b.channel(1)[..n]].concat(),
            };
            let (before, mut after) = (cut(block()), cut(block()));
            randomise_phases(&mut after, 4);
            for (i, j) in [(0, 0), (0, 1), (1, 1)] {
                for lag in [0, 1, 7, 150] {
                    let (want, got) = (
                        lagged(before.channel(i), before.channel(j), lag),
                        lagged(after.channel(i), after.channel(j), lag),
                    );
                    // Transforms of 301 numbers of size 5: products to 1e-13.
                    assert!((want - got).abs() < 1e-12, "{n} {i} {j} {lag}: {want} {got}");
                }
            }
            let moved = before.data.iter().zip(&after.data).filter(|(a, b)| (*a - *b).abs() > 0.1).count();
            assert!(moved > n, "{moved} of {} values have moved", 2 * n);
        }
    }

    #[test]
    fn shifted_channels_keep_their_values() {
        let (before, mut after) = (block(), block());
        shift(&mut after, 4);
        for channel in 0..2 {
            let sorted = |b: &Block| {
                let mut row = b.channel(channel).to_vec();
                row.sort_by(f64::total_cmp);
                row
            };
            assert_eq!(sorted(&before), sorted(&after));
            assert_ne!(before.channel(channel), after.channel(channel));
        }
    }
}
