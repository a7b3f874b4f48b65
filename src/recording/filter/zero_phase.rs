//! Forward and backward through a recording that never is in memory as a whole.
//!
//! Time is cut into a fixed grid of blocks, each at least as long as the filter reaches ([`Memory::reach`]). The
//! forward pass is exact: it goes on from its states at the grid line. The backward pass over a block starts one block
//! further on, in the steady state of the last value there, as if the signal stayed at that value; what it does not
//! know of the future weighs at most 2⁻²⁶ of the largest deviation from that value, which is less than half a unit in
//! the last place of a float32 of that size. At the end of the recording the backward pass is exact too. As the grid
//! is fixed, the result does not depend on how the signal is asked for.
//!
//! However long the recording, at most [`KEPT`] states are kept; who reads backwards waits for the pass to come again
//! from the one before.

use super::design::{Band, Memory, Section, memory, steady_states};
use super::kernel::{self, Direction, States};
use crate::error::Result;
use crate::recording::extend::Extended;
use crate::recording::{Block, Recording, Signal};
use std::collections::BTreeMap;

/// Shortest block of the grid: filters without a high-pass reach only a few hundred timesteps.
const SHORTEST_BLOCK: usize = 8192;

/// States of the forward pass that are kept.
const KEPT: usize = 64;

/// The recording filtered forward and backward with a Butterworth filter.
///
/// Equals `scipy.signal.sosfiltfilt(sos, x, padtype="odd", padlen=ringing)` with [`Memory::ringing`], which is also
/// what `mne.filter.filter_data(method="iir", iir_params=dict(order=…, ftype="butter"))` computes for recordings longer
/// than that. Peak memory: three blocks of all channels in f64 (with a high-pass of 0.5 Hz a block is about 20 s).
///
/// Errors: band edges that the sampling rate does not allow; a recording no longer than the filter rings.
pub fn filter(recording: Recording, band: &Band) -> Result<Recording> {
    let mut info = recording.info.clone();
    let sections = band.sections(info.sfreq).map_err(|e| e.at(&info.source))?;
    if sections.is_empty() {
        return Ok(recording);
    }
    info.pass_band.0 = info.pass_band.0.max(band.high_pass);
    info.pass_band.1 = info.pass_band.1.min(band.low_pass.unwrap_or(f64::INFINITY));
    let memory = memory(&sections).map_err(|e| e.at(&info.source))?;
    let mut filtered = zero_phase(recording, sections, memory, memory.reach.max(SHORTEST_BLOCK))?;
    filtered.info.pass_band = info.pass_band;
    Ok(filtered)
}

/// [`filter`] with given sections and grid.
pub(super) fn zero_phase(
    recording: Recording,
    sections: Vec<Section>,
    memory: Memory,
    n_block_timestep: usize,
) -> Result<Recording> {
    let info = recording.info.clone();
    Recording::new(info, Box::new(ZeroPhase::new(recording, sections, memory, n_block_timestep)?))
}

struct ZeroPhase {
    input: Extended,
    sections: Vec<Section>,
    steady: Vec<[f64; 2]>,
    /// Timesteps between grid lines.
    n_block_timestep: usize,
    /// States of the forward pass at grid lines: at the last one reached, and at multiples of `stride`.
    starts: BTreeMap<usize, States>,
    stride: usize,
    /// The block after the last one done, forward only.
    ahead: Option<(usize, Block)>,
    /// The last block done, forward and backward.
    done: Option<(usize, Block)>,
}

impl ZeroPhase {
    fn new(recording: Recording, sections: Vec<Section>, memory: Memory, n_block_timestep: usize) -> Result<Self> {
        Ok(Self {
            input: Extended::new(recording, memory.ringing, "a filter that rings that long")?,
            steady: steady_states(&sections),
            sections,
            n_block_timestep,
            starts: BTreeMap::new(),
            stride: 1,
            ahead: None,
            done: None,
        })
    }

    fn n_block(&self) -> usize {
        self.input.n_timestep().div_ceil(self.n_block_timestep)
    }

    /// Block `index` of the forward pass, and the states at the grid line after it.
    fn forward(&mut self, index: usize) -> Result<Block> {
        if let Some((_, block)) = self.ahead.take_if(|(held, _)| *held == index) {
            return Ok(block);
        }
        // After a jump the pass must first get there.
        let nearest = self.starts.range(..=index).next_back().map_or(0, |(&line, _)| line);
        for line in nearest..index {
            self.forward_from_states(line)?;
        }
        self.forward_from_states(index)
    }

    fn forward_from_states(&mut self, index: usize) -> Result<Block> {
        let start = index * self.n_block_timestep;
        let n = self.n_block_timestep.min(self.input.n_timestep() - start);
        let mut block = self.input.read(start, n)?;
        if self.starts.is_empty() {
            self.starts.insert(0, States::steady(&self.steady, block.n_channel, |channel| block.channel(channel)[0]));
        }
        let mut states = self.starts[&index].clone();
        kernel::run(&self.sections, &mut states, &mut block.data, n, Direction::Forward);
        self.keep(index + 1, states);
        Ok(block)
    }

    /// Keeps the states at a grid line, and ever fewer of those before.
    fn keep(&mut self, line: usize, states: States) {
        self.starts.insert(line, states);
        if self.starts.len() > KEPT {
            self.stride *= 2;
        }
        let stride = self.stride;
        self.starts.retain(|&other, _| other % stride == 0 || other == line);
    }

    /// Makes `done` hold block `index`.
    fn filter_block(&mut self, index: usize) -> Result<()> {
        if self.done.as_ref().is_some_and(|(held, _)| *held == index) {
            return Ok(());
        }
        self.done = None;
        let mut block = self.forward(index)?;
        let last_value = |block: &Block, channel: usize| block.channel(channel)[block.n_timestep - 1];
        let mut states;
        if index + 1 < self.n_block() {
            let ahead = self.forward(index + 1)?;
            states = States::steady(&self.steady, ahead.n_channel, |channel| last_value(&ahead, channel));
            kernel::advance(&self.sections, &mut states, &ahead.data, ahead.n_timestep, Direction::Backward);
            self.ahead = Some((index + 1, ahead));
        } else {
            states = States::steady(&self.steady, block.n_channel, |channel| last_value(&block, channel));
        }
        let n = block.n_timestep;
        kernel::run(&self.sections, &mut states, &mut block.data, n, Direction::Backward);
        self.done = Some((index, block));
        Ok(())
    }
}

impl Signal for ZeroPhase {
    fn read(&mut self, start: usize, n_timestep: usize) -> Result<Block> {
        let mut out = Block::zeros(self.input.inner.info.n_channel(), n_timestep);
        let (from, end) = (start + self.input.margin, start + self.input.margin + n_timestep);
        let mut at = from;
        while at < end {
            let index = at / self.n_block_timestep;
            self.filter_block(index)?;
            let Some((_, block)) = &self.done else { unreachable!("filter_block leaves its block there") };
            let inside = at - index * self.n_block_timestep;
            let n = (end - at).min(block.n_timestep - inside);
            for channel in 0..out.n_channel {
                out.channel_mut(channel)[at - from..][..n].copy_from_slice(&block.channel(channel)[inside..][..n]);
            }
            at += n;
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recording::filter::design::memory as memory_of;
    use crate::recording::testing::{in_memory, noise};

    /// A grid of 700 lines, read in order and then not: the states kept stay few, the result stays the same.
    #[test]
    fn the_states_that_are_kept_do_not_grow_with_the_recording() {
        let x = noise(70_000, 9);
        let sections = Band { high_pass: 0.0, ..Band::default() }.sections(250.0).unwrap();
        let memory = memory_of(&sections).unwrap();
        let make = || ZeroPhase::new(in_memory(&[&x], 250.0), sections.clone(), memory, 100).unwrap();
        let mut filter = make();
        let whole = filter.read(0, 70_000).unwrap();
        assert!((KEPT / 4..=KEPT + 1).contains(&filter.starts.len()), "{}", filter.starts.len());
        for (start, n) in [(69_000, 1000), (0, 150), (35_217, 301), (60_000, 10_000), (34_000, 99)] {
            assert_eq!(filter.read(start, n).unwrap().data, whole.data[start..start + n], "{n} at {start}");
            assert!(filter.starts.len() <= KEPT + 1, "{}", filter.starts.len());
        }
        assert_eq!(make().read(60_000, 10_000).unwrap().data, whole.data[60_000..]);
    }
}
