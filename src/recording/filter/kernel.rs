//! A cascade of second-order sections over many channels at once.
//!
//! A recursive filter cannot be vectorised along time, so eight channels go through it side by side. A short tile of
//! them is transposed into the cache, passes all sections there, and is transposed back. Sums and products are plain
//! (never fused), so every machine gives the same bits.

use super::design::Section;
use rayon::prelude::*;

/// Channels side by side.
const LANES: usize = 8;
/// Timesteps of a tile: 16 KiB with eight channels of f64.
const TILE: usize = 256;

/// The memory of one section for [`LANES`] channels.
type State = [[f64; LANES]; 2];

/// Which way through time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    Forward,
    Backward,
}

/// The states of all sections for all channels: `[group of lanes][section]`.
#[derive(Debug, Clone, PartialEq)]
pub struct States(Vec<State>);

impl States {
    /// The states after a constant input `level(channel)` of infinite length.
    pub fn steady(steady: &[[f64; 2]], n_channel: usize, level: impl Fn(usize) -> f64) -> Self {
        let group = |group: usize| {
            let mut levels = [0.0; LANES];
            for (lane, slot) in levels.iter_mut().enumerate() {
                let channel = group * LANES + lane;
                *slot = if channel < n_channel { level(channel) } else { 0.0 };
            }
            steady.iter().map(move |state| state.map(|s| levels.map(|level| s * level)))
        };
        Self((0..n_channel.div_ceil(LANES)).flat_map(group).collect())
    }
}

/// Filters `data[channel * n_timestep + time]` in place.
pub fn run(sections: &[Section], states: &mut States, data: &mut [f64], n_timestep: usize, direction: Direction) {
    let groups = data.par_chunks_mut(n_timestep * LANES).zip(states.0.par_chunks_mut(sections.len()));
    groups.for_each(|(rows, states)| {
        pulp::Arch::new().dispatch(|| {
            let mut tile = [[0.0; LANES]; TILE];
            for_each_tile(n_timestep, direction, |start, n| {
                gather(rows, n_timestep, start, &mut tile[..n]);
                cascade(sections, states, &mut tile[..n], direction);
                scatter(&tile[..n], rows, n_timestep, start);
            });
        });
    });
}

/// As [`run`], for the sake of the states alone: the data stay as they are.
pub fn advance(sections: &[Section], states: &mut States, data: &[f64], n_timestep: usize, direction: Direction) {
    let groups = data.par_chunks(n_timestep * LANES).zip(states.0.par_chunks_mut(sections.len()));
    groups.for_each(|(rows, states)| {
        pulp::Arch::new().dispatch(|| {
            let mut tile = [[0.0; LANES]; TILE];
            for_each_tile(n_timestep, direction, |start, n| {
                gather(rows, n_timestep, start, &mut tile[..n]);
                cascade(sections, states, &mut tile[..n], direction);
            });
        });
    });
}

#[inline(always)]
fn for_each_tile(n_timestep: usize, direction: Direction, mut each: impl FnMut(usize, usize)) {
    let n_tile = n_timestep.div_ceil(TILE);
    for number in 0..n_tile {
        let start = TILE * if direction == Direction::Forward { number } else { n_tile - 1 - number };
        each(start, TILE.min(n_timestep - start));
    }
}

/// Missing channels of the last group stay zero.
#[inline(always)]
fn gather(rows: &[f64], n_timestep: usize, start: usize, tile: &mut [[f64; LANES]]) {
    for (lane, row) in rows.chunks_exact(n_timestep).enumerate() {
        for (slot, &x) in tile.iter_mut().zip(&row[start..]) {
            slot[lane] = x;
        }
    }
}

#[inline(always)]
fn scatter(tile: &[[f64; LANES]], rows: &mut [f64], n_timestep: usize, start: usize) {
    for (lane, row) in rows.chunks_exact_mut(n_timestep).enumerate() {
        for (slot, x) in tile.iter().zip(&mut row[start..]) {
            *x = slot[lane];
        }
    }
}

#[inline(always)]
fn cascade(sections: &[Section], states: &mut [State], tile: &mut [[f64; LANES]], direction: Direction) {
    for (section, state) in sections.iter().zip(states) {
        match direction {
            Direction::Forward => tile.iter_mut().for_each(|x| step(section, state, x)),
            Direction::Backward => tile.iter_mut().rev().for_each(|x| step(section, state, x)),
        }
    }
}

/// One timestep through one section, in transposed direct form II.
#[inline(always)]
fn step(section: &Section, state: &mut State, x: &mut [f64; LANES]) {
    let Section { b: [b0, b1, b2], a: [a1, a2] } = *section;
    for lane in 0..LANES {
        let input = x[lane];
        let output = b0 * input + state[0][lane];
        state[0][lane] = b1 * input - a1 * output + state[1][lane];
        state[1][lane] = b2 * input - a2 * output;
        x[lane] = output;
    }
}
